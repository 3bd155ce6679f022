"""Ratios: the delta method against regression, Fieller against the test that it inverts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from abkit.comoments import Comoments
from abkit.errors import DataError, DesignError
from abkit.moments import Moments
from abkit.stats.ratio import (
    fieller_lift,
    fieller_ratio,
    linearised,
    log_ratio,
    ratio_difference,
    term_name,
)


def visits(seed: int, n: int) -> dict[str, list[float]]:
    generator = np.random.default_rng(seed)
    views = generator.poisson(4, n) + 1
    return {"clicks": generator.binomial(views, 0.3).tolist(), "views": views.tolist()}


def test_a_ratio_is_weighted_regression_with_robust_errors() -> None:
    """Clicks per view on views: WLS of clicks / views with weights views, statsmodels HC0."""
    data = visits(1, 60), visits(2, 80)
    result = ratio_difference(*map(Comoments.of, data), numerator="clicks", denominator="views")
    clicks, views = (np.concatenate([part[name] for part in data]) for name in ("clicks", "views"))
    dummy = np.repeat([0.0, 1.0], [60, 80])
    fit = sm.WLS(clicks / views, sm.add_constant(dummy), weights=views).fit(cov_type="HC0")
    assert result.difference == pytest.approx(float(fit.params[1]), rel=1e-12)
    # HC0 divides by n, the delta method by n - 1, in each arm.
    variances = [
        n
        / (n - 1)
        * float(np.sum((np.array(part["clicks"]) - r * np.array(part["views"])) ** 2))
        / float(np.sum(part["views"])) ** 2
        for part, n, r in zip(
            data, (60, 80), (result.mean_control, result.mean_treatment), strict=True
        )
    ]
    assert result.standard_error == pytest.approx(math.sqrt(sum(variances)), rel=1e-12)
    assert result.standard_error == pytest.approx(float(fit.bse[1]), rel=0.01)


def test_a_denominator_of_one_is_a_mean() -> None:
    values = [1.0, 4.0, 2.0, 2.0]
    arm = Comoments.of({"y": values, "one": [1.0] * 4})
    line = linearised(arm, [("y", "one"), "y"])
    assert line is not None
    assert line.moments("y/one") == line.moments("y") == Moments.of(values)
    assert term_name(("y", "one")) == "y/one"


def test_the_linearised_variance_is_that_of_the_linearised_values() -> None:
    data = visits(3, 50)
    ratio = sum(data["clicks"]) / sum(data["views"])
    mean = sum(data["views"]) / 50
    values = [(c - ratio * v) / mean for c, v in zip(data["clicks"], data["views"], strict=True)]
    line = linearised(Comoments.of(data), [("clicks", "views")])
    assert line is not None
    assert line.products[0][0] == pytest.approx(Moments.of(values).m2, rel=1e-12)


def test_a_denominator_that_sums_to_zero_is_undefined() -> None:
    zero = Comoments.of({"y": [1.0, 2.0], "n": [1.0, -1.0]})
    result = ratio_difference(zero, zero, numerator="y", denominator="n")
    assert (result.status, result.n_control, result.p_value) == ("undefined", 2, None)
    with pytest.raises(DataError, match="'m'"):
        ratio_difference(zero, zero, numerator="y", denominator="m")


def test_fiellers_ends_are_where_the_z_test_turns() -> None:
    control, treatment = Moments(40, 2.0, 80.0), Moments(50, 2.7, 120.0)
    interval = fieller_lift(control, treatment).interval
    assert interval is not None
    for lift in (interval.lower, interval.upper):
        variance = treatment.variance / 50 + (1 + lift) ** 2 * control.variance / 40
        z = (treatment.mean - (1 + lift) * control.mean) / math.sqrt(variance)
        assert 2 * stats.norm.sf(abs(z)) == pytest.approx(0.05, rel=1e-9)


def test_fiellers_ratio_counts_the_correlation() -> None:
    data = visits(4, 30)
    arm = Comoments.of(data)
    result = fieller_ratio(arm, numerator="clicks", denominator="views", alpha=0.1)
    assert result.interval is not None
    for end in (result.interval.lower, result.interval.upper):
        contrast = arm.combined({"clicks": 1.0, "views": -end})
        z = contrast.mean / math.sqrt(contrast.variance / 30)
        assert 2 * stats.norm.sf(abs(z)) == pytest.approx(0.1, rel=1e-9)


def test_fieller_says_when_the_data_cannot_bound_the_lift() -> None:
    result = fieller_lift(Moments(40, 0.01, 80.0), Moments(50, 2.7, 120.0))
    assert (result.status, result.interval) == ("undefined", None)


def test_far_from_zero_all_three_intervals_of_the_lift_agree() -> None:
    control, treatment = Moments(40_000, 5.0, 40_000.0), Moments(40_000, 5.1, 40_000.0)
    fieller, log = fieller_lift(control, treatment).interval, log_ratio(control, treatment)
    assert fieller is not None
    assert log.lift_interval is not None
    assert fieller.lower == pytest.approx(log.lift_interval.lower, rel=1e-3)
    assert fieller.upper == pytest.approx(log.lift_interval.upper, rel=1e-3)


def test_a_negative_control_mean_turns_the_side_of_fieller_around() -> None:
    control, treatment = Moments(400, -5.0, 400.0), Moments(400, -5.1, 400.0)
    interval = fieller_lift(control, treatment, alternative="greater").interval
    assert interval is not None
    assert interval.lower == -math.inf
    assert log_ratio(control, treatment).status == "undefined"


def test_the_logarithm_is_symmetric_in_the_arms() -> None:
    control, treatment = Moments(40, 2.0, 80.0), Moments(50, 2.7, 120.0)
    there, back = log_ratio(control, treatment), log_ratio(treatment, control)
    assert back.p_value == pytest.approx(there.p_value, rel=1e-12)
    assert there.difference is not None
    assert back.difference == pytest.approx(-there.difference, rel=1e-12)
    assert dataclasses.replace(there).scale == "log"


def test_alpha_is_checked() -> None:
    arm = Moments(4, 1.0, 1.0)
    for function in (log_ratio, fieller_lift):
        with pytest.raises(DesignError, match="alpha"):
            function(arm, arm, alpha=5)
