"""Welch's t test and the relative lift."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from abkit.errors import DataError, DesignError
from abkit.estimate import Alternative, Estimate, Interval
from abkit.moments import Block, Moments
from abkit.stats.difference import interval_around, relative_lift, tail_alpha, welch_t
from abkit.stats.proportion import two_proportions

SIDES: tuple[Alternative, ...] = ("two-sided", "greater", "less")


@pytest.fixture(scope="module")
def samples() -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(1)
    return rng.normal(3.0, 1.0, 40).tolist(), rng.normal(3.4, 2.0, 25).tolist()


@pytest.mark.parametrize("alternative", SIDES)
def test_it_agrees_with_scipy_on_the_raw_values(
    samples: tuple[list[float], list[float]], alternative: Alternative
) -> None:
    control, treatment = samples
    expected = stats.ttest_ind(treatment, control, equal_var=False, alternative=alternative)
    interval = expected.confidence_interval(0.9)
    result = welch_t(Moments.of(control), Moments.of(treatment), alpha=0.1, alternative=alternative)
    assert result.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    assert result.degrees_of_freedom == pytest.approx(expected.df, rel=1e-12)
    assert result.interval is not None
    assert result.interval.lower == pytest.approx(interval.low, rel=1e-10)
    assert result.interval.upper == pytest.approx(interval.high, rel=1e-10)
    assert (result.method, result.guarantee) == ("welch_t", "fixed-horizon")


@pytest.mark.parametrize(
    ("alternative", "lower_is_finite", "upper_is_finite"),
    [("two-sided", True, True), ("greater", True, False), ("less", False, True)],
)
def test_a_one_sided_interval_has_one_infinite_end(
    samples: tuple[list[float], list[float]],
    alternative: Alternative,
    lower_is_finite: bool,  # noqa: FBT001 - a table of cases
    upper_is_finite: bool,  # noqa: FBT001
) -> None:
    control, treatment = map(Moments.of, samples)
    result = welch_t(control, treatment, alternative=alternative)
    for interval in (result.interval, result.lift_interval):
        assert interval is not None
        assert math.isfinite(interval.lower) is lower_is_finite
        assert math.isfinite(interval.upper) is upper_is_finite


@pytest.mark.parametrize("alternative", SIDES)
@pytest.mark.parametrize("shift", [-1.0, -0.6, 0.0, 0.6, 1.0])
def test_the_interval_excludes_zero_exactly_when_the_test_rejects(
    alternative: Alternative, shift: float
) -> None:
    control = Moments.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    treatment = dataclasses.replace(control, mean=control.mean + 2 * shift)
    result = welch_t(control, treatment, alpha=0.2, alternative=alternative)
    assert result.interval is not None
    assert result.p_value is not None
    assert (0.0 not in result.interval) == (result.p_value < 0.2)


def test_swapping_the_arms_changes_the_sign_and_nothing_else(
    samples: tuple[list[float], list[float]],
) -> None:
    control, treatment = map(Moments.of, samples)
    there = welch_t(control, treatment, alternative="greater")
    back = welch_t(treatment, control, alternative="less")
    assert there.difference is not None
    assert there.interval is not None
    assert back.difference == -there.difference
    assert back.interval == Interval(-there.interval.upper, -there.interval.lower)
    assert back.p_value == pytest.approx(there.p_value, rel=1e-12)


def test_the_mean_of_a_timestamp_does_not_cost_precision() -> None:
    values = [0.0, 1.0, 2.0, 3.0]
    small = welch_t(Moments.of(values), Moments.of([v + 1 for v in values]))
    large = welch_t(
        Moments.of([v + 1.7e9 for v in values]), Moments.of([v + 1.7e9 + 1 for v in values])
    )
    assert large.statistic == pytest.approx(small.statistic, rel=1e-12)


@pytest.mark.parametrize(("n_control", "n_treatment"), [(0, 0), (0, 5), (1, 5), (5, 1), (1, 1)])
def test_fewer_than_two_units_in_an_arm_is_insufficient_data(
    n_control: int, n_treatment: int
) -> None:
    result = welch_t(Moments.of(range(n_control)), Moments.of(range(n_treatment)))
    assert result.status == "insufficient_data"
    assert (result.p_value, result.interval, result.standard_error, result.lift) == (
        None,
        None,
        None,
        None,
    )
    assert (result.difference is None) == (min(n_control, n_treatment) == 0)
    assert (result.mean_control is None) == (n_control == 0)


def test_without_variance_there_is_a_difference_but_no_evidence() -> None:
    result = welch_t(Moments.of([2.0] * 3), Moments.of([3.0] * 3))
    assert result.status == "zero_variance"
    assert result.difference == 1.0
    assert (result.p_value, result.statistic, result.interval, result.lift_interval) == (
        None,
        None,
        None,
        None,
    )


def test_variance_in_one_arm_is_enough() -> None:
    result = welch_t(Moments.of([2.0] * 9), Moments.of([2.0, 3.0, 4.0]))
    assert result.status == "ok"
    assert result.degrees_of_freedom == 2.0


def test_a_control_mean_of_zero_has_no_lift() -> None:
    result = welch_t(Moments.of([-1.0, 1.0]), Moments.of([1.0, 2.0]))
    assert result.status == "ok"
    assert (result.lift, result.lift_interval) == (None, None)


def test_a_negative_control_mean_turns_the_side_of_the_lift_around() -> None:
    control, treatment = Moments.of([-3.0, -1.0]), Moments.of([-2.0, 1.0])
    result = relative_lift(control, treatment, alternative="greater")
    assert result is not None
    lift, interval = result
    assert lift == -0.75
    assert interval.lower == -math.inf
    assert interval.upper > lift


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5.0, math.nan])
def test_alpha_outside_of_the_unit_interval_is_refused(alpha: float) -> None:
    arm = Moments.of([1.0, 2.0])
    for function in (welch_t, relative_lift):
        with pytest.raises(DesignError, match="alpha"):
            function(arm, arm, alpha=alpha)


def test_an_unknown_side_is_refused() -> None:
    arm = Moments.of([1.0, 2.0])
    with pytest.raises(DesignError, match="'larger'"):
        welch_t(arm, arm, alternative="larger")  # type: ignore[arg-type]


def test_a_side_spends_all_of_alpha_at_its_end() -> None:
    assert tail_alpha(0.05, "less") == 0.05
    assert interval_around(0.0, 2.0, "less") == Interval(-math.inf, 2.0)


def test_a_statistic_too_large_for_a_float_is_undefined() -> None:
    result = welch_t(Moments(9, 0.0, 1e-100), Moments(9, 1e300, 1e-100))
    assert (result.status, result.difference) == ("undefined", 1e300)
    assert (result.p_value, result.statistic) == (None, None)


def numbers(result: Estimate) -> list[float]:
    """Every number in a result, ends of intervals included."""
    flat = []
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        flat += [value.lower, value.upper] if isinstance(value, Interval) else [value]
    return [value for value in flat if isinstance(value, float)]


anything = st.builds(
    Moments,
    n=st.integers(1, 10**12),
    mean=st.floats(allow_nan=False, allow_infinity=False),
    m2=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)


@given(control=anything, treatment=anything, alternative=st.sampled_from(SIDES))
def test_no_moments_whatever_give_nan_or_a_warning(
    control: Moments, treatment: Moments, alternative: Alternative
) -> None:
    result = welch_t(control, treatment, alternative=alternative)
    assert not any(math.isnan(value) for value in numbers(result))
    if result.status == "ok":
        assert result.p_value is not None
        assert 0 <= result.p_value <= 1
    else:
        assert result.p_value is None


def test_one_sided_tests_of_half_and_more_are_refused() -> None:
    arms = Moments.of([1.0, 2.0, 3.0]), Moments.of([2.0, 3.0, 4.0])
    assert welch_t(*arms, alpha=0.6).status == "ok"
    with pytest.raises(DesignError, match="one-sided"):
        welch_t(*arms, alpha=0.6, alternative="greater")


def test_counts_of_numpy_do_not_overflow() -> None:
    n, won = np.int64(8_000_000_000), np.int64(4_000_000_000)
    arm = Moments.of_counts(n, won)  # type: ignore[arg-type]
    assert arm == Moments.of_counts(int(n), int(won))
    assert type(arm.n) is int
    assert type(Moments(5.0, 1.0, 0.0).n) is int  # type: ignore[arg-type]
    plain = two_proportions(Moments(3_000_000, 0.1, 270_000.0), Moments(3_000_000, 0.1, 270_000.0))
    three = Moments(np.int64(3_000_000), np.float64(0.1), np.float64(270_000.0))  # type: ignore[arg-type]
    assert two_proportions(three, three) == plain
    for wrong in (2.5, math.nan, -1):
        with pytest.raises(DataError):
            Moments(wrong, 0.0, 0.0)  # type: ignore[arg-type]
    block = Block(np.int64(5), np.int64(5), np.int64(1), np.int64(1))  # type: ignore[arg-type]
    assert type(block.n_control) is int
