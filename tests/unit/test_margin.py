"""Tests against a margin, on the difference and on the lift."""

from __future__ import annotations

import math

import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_ind

from abkit.comoments import Comoments
from abkit.errors import ConfigError, DesignError
from abkit.estimate import Interval
from abkit.moments import Moments
from abkit.sequential.mixture import stratified_difference
from abkit.stats.covariate import adjusted_difference
from abkit.stats.difference import welch_t
from abkit.stats.margin import against, equivalence, non_inferiority, relative_margin, superiority
from abkit.stats.standardise import at_alpha

CONTROL = [4.1, 5.0, 5.9, 4.4, 5.2, 4.9, 5.5]
TREATMENT = [4.6, 5.1, 5.3, 4.7, 5.6, 5.2]


RESULT = welch_t(Moments.of(CONTROL), Moments.of(TREATMENT))


def test_non_inferiority_is_a_shifted_t_test() -> None:
    for better, side, border in ((True, "greater", -0.4), (False, "less", 0.4)):
        result = non_inferiority(RESULT, margin=0.4, higher_is_better=better)
        shifted = [x - border for x in TREATMENT]
        oracle = stats.ttest_ind(shifted, CONTROL, equal_var=False, alternative=side)
        assert result.p_value == pytest.approx(float(oracle.pvalue), rel=1e-10)
        assert (result.margin, result.alternative) == (border, side)
        assert result.method == "welch_t_non_inferiority"


@pytest.mark.parametrize("margin", [0.05, 0.1, 0.3, 0.4, 0.6, 1.0])
def test_the_interval_clears_the_margin_exactly_when_the_test_rejects(margin: float) -> None:
    result = non_inferiority(RESULT, margin=margin)
    assert result.p_value is not None
    assert result.interval is not None
    assert (result.p_value < 0.05) == (result.interval.lower > -margin)
    assert result.interval.upper == math.inf
    both = equivalence(RESULT, lower=-margin, upper=margin)
    assert both.p_value is not None
    assert both.interval is not None
    inside = both.interval.lower > -margin and both.interval.upper < margin
    assert (both.p_value < 0.05) == inside


def test_equivalence_is_statsmodels_tost() -> None:
    for lower, upper in ((-0.5, 0.5), (-0.2, 0.9), (0.1, 0.3)):
        expected = ttost_ind(TREATMENT, CONTROL, lower, upper, usevar="unequal")[0]
        result = equivalence(RESULT, lower=lower, upper=upper)
        assert result.p_value == pytest.approx(float(expected), rel=1e-9)
        assert result.margin == Interval(lower, upper)


def test_superiority_over_nothing_is_the_one_sided_test() -> None:
    one_sided = welch_t(Moments.of(CONTROL), Moments.of(TREATMENT), alternative="greater")
    result = superiority(RESULT)
    assert result.p_value == pytest.approx(one_sided.p_value, rel=1e-12)
    assert result.interval == one_sided.interval
    assert result.lift_interval == one_sided.lift_interval


def test_the_lift_against_a_margin() -> None:
    result = non_inferiority(RESULT, margin=0.05, scale="relative")
    assert RESULT.lift is not None
    assert RESULT.lift_standard_error is not None
    z = (RESULT.lift + 0.05) / RESULT.lift_standard_error
    assert result.p_value == pytest.approx(float(stats.norm.sf(z)), rel=1e-12)
    assert (result.scale, result.difference, result.lift) == ("relative", RESULT.lift, None)


def test_the_relative_margin_is_a_t_test_of_scaled_values() -> None:
    result = relative_margin(Moments.of(CONTROL), Moments.of(TREATMENT), margin=-0.1)
    oracle = stats.ttest_ind(
        TREATMENT, [0.9 * x for x in CONTROL], equal_var=False, alternative="greater"
    )
    assert result.p_value == pytest.approx(float(oracle.pvalue), rel=1e-10)
    assert result.margin == -0.1


def test_any_method_with_a_standard_error_will_do() -> None:
    before = [4.0, 5.2, 5.7, 4.5, 5.0, 5.0, 5.4]
    control = Comoments.of({"y": CONTROL, "x": before})
    treatment = Comoments.of({"y": TREATMENT, "x": before[:6]})
    adjusted = adjusted_difference(control, treatment, metric="y", covariates=["x"])
    result = non_inferiority(adjusted, margin=0.2)
    assert result.method == "cuped_non_inferiority"
    assert result.p_value is not None
    raw = non_inferiority(RESULT, margin=0.2)
    assert raw.p_value is not None
    assert result.p_value < raw.p_value


def test_no_answer_stays_no_answer() -> None:
    empty = welch_t(Moments(), Moments.of(TREATMENT))
    assert non_inferiority(empty, margin=1.0).status == "insufficient_data"
    flat = welch_t(Moments.of([0.0, 1.0, -1.0]), Moments.of(TREATMENT))
    relative = non_inferiority(flat, margin=0.1, scale="relative")
    assert (relative.status, relative.p_value) == ("undefined", None)


def test_margins_that_cannot_be_are_refused() -> None:
    for margin in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(DesignError, match="margin"):
            non_inferiority(RESULT, margin=margin)
    with pytest.raises(DesignError):
        equivalence(RESULT, lower=1.0, upper=-1.0)
    with pytest.raises(DesignError):
        relative_margin(Moments.of(CONTROL), Moments.of(TREATMENT), margin=-1.0)
    with pytest.raises(ConfigError, match="'log'"):
        against(RESULT, 0.0, alternative="greater", scale="log")  # type: ignore[arg-type]
    with pytest.raises(DesignError, match=r"alpha < 0\.5"):
        equivalence(
            welch_t(Moments.of(CONTROL), Moments.of(TREATMENT), alpha=0.6), lower=-1, upper=1
        )


def test_superiority_of_a_metric_that_should_fall() -> None:
    better = Moments(1_000, 10.3, 999.0), Moments(1_000, 10.0, 999.0)
    falls = superiority(welch_t(*better), margin=0.2, higher_is_better=False)
    rises = superiority(welch_t(better[1], better[0]), margin=0.2)
    assert falls.margin == -0.2
    assert falls.p_value == pytest.approx(rises.p_value)
    assert falls.interval is not None
    assert falls.interval.lower == -math.inf


def test_a_test_for_many_looks_is_not_tested_as_if_there_were_one() -> None:
    arms = Moments(1_000, 10.0, 999.0), Moments(1_000, 10.3, 999.0)
    anytime = stratified_difference([arms], planned_units=2_000, kind="mean")
    with pytest.raises(ConfigError, match="one look"):
        non_inferiority(anytime, margin=0.1)
    with pytest.raises(ConfigError, match="one look"):
        at_alpha(anytime, 0.01)
