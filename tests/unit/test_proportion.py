"""The pooled z test of two proportions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from abkit.errors import DataError, DesignError
from abkit.moments import Moments
from abkit.stats.difference import successes_of
from abkit.stats.proportion import two_proportions

if TYPE_CHECKING:
    from abkit.estimate import Alternative


def arm(successes: int, n: int) -> Moments:
    return Moments.of_counts(n, successes)


def test_the_square_of_z_is_the_chi_square_of_the_table() -> None:
    result = two_proportions(arm(30, 200), arm(45, 210))
    table = stats.chi2_contingency([[45, 165], [30, 170]], correction=False)
    assert result.statistic is not None
    assert result.statistic**2 == pytest.approx(table.statistic, rel=1e-12)
    assert result.p_value == pytest.approx(table.pvalue, rel=1e-12)


def test_the_interval_is_walds_and_so_is_the_standard_error() -> None:
    result = two_proportions(arm(30, 200), arm(45, 210), alpha=0.1)
    low, high = confint_proportions_2indep(45, 210, 30, 200, method="wald", alpha=0.1)
    assert result.interval is not None
    assert (result.interval.lower, result.interval.upper) == pytest.approx((low, high), rel=1e-12)
    assert result.standard_error == pytest.approx(
        math.sqrt(45 / 210 * 165 / 210 / 210 + 30 / 200 * 170 / 200 / 200), rel=1e-12
    )


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_each_side_has_its_share_of_the_two_sided_p(alternative: Alternative) -> None:
    result = two_proportions(arm(30, 200), arm(45, 210), alternative=alternative)
    two = stats.chi2_contingency([[45, 165], [30, 170]], correction=False).pvalue
    expected = {"two-sided": two, "greater": two / 2, "less": 1 - two / 2}
    assert result.p_value == pytest.approx(expected[alternative], rel=1e-12)
    for interval in (result.interval, result.lift_interval):
        assert interval is not None
        assert math.isinf(interval.upper) == (alternative == "greater")
        assert math.isinf(interval.lower) == (alternative == "less")


def test_counts_beyond_int64_products_do_not_overflow() -> None:
    n = 4 * 10**9
    result = two_proportions(arm(n // 2, n), arm(n // 2 + 100_000, n))
    # z = d / sqrt(2 * .25 / n) with d = 100000 / n
    assert result.statistic == pytest.approx(100_000 / n / math.sqrt(0.5 / n), rel=1e-6)


@pytest.mark.parametrize(("n_control", "n_treatment"), [(0, 0), (0, 9), (1, 9), (9, 1)])
def test_fewer_than_two_units_in_an_arm_is_insufficient_data(
    n_control: int, n_treatment: int
) -> None:
    result = two_proportions(arm(0, n_control), arm(0, n_treatment))
    assert result.status == "insufficient_data"
    assert result.p_value is None
    assert (result.difference is None) == (min(n_control, n_treatment) == 0)


@pytest.mark.parametrize("successes", [0, 50])
def test_all_or_nothing_in_both_arms_is_zero_variance(successes: int) -> None:
    result = two_proportions(arm(successes, 50), arm(successes, 50))
    assert result.status == "zero_variance"
    assert result.difference == 0.0
    assert (result.p_value, result.interval) == (None, None)


def test_none_against_all_has_a_test_but_no_wald_interval() -> None:
    result = two_proportions(arm(0, 10), arm(10, 10))
    assert result.status == "ok"
    assert result.statistic == pytest.approx(math.sqrt(20))
    assert (result.interval, result.standard_error) == (None, None)


def test_no_success_in_control_leaves_the_lift_undefined() -> None:
    result = two_proportions(arm(0, 100), arm(10, 100))
    assert result.status == "ok"
    assert result.interval is not None
    assert (result.lift, result.lift_interval) == (None, None)


@pytest.mark.parametrize("values", [[0.0, 2.0], [0.5, 0.5], [-1.0, 1.0, 1.0], [0.2, 0.8]])
def test_values_other_than_0_and_1_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="welch_t"):
        two_proportions(Moments.of(values), arm(1, 2))


def test_merged_moments_of_zeros_and_ones_still_count_as_such() -> None:
    merged = Moments()
    for day in range(1, 400):
        merged += arm(day % 7, 1_000 + day)
    assert successes_of(merged) == sum(day % 7 for day in range(1, 400))


def test_alpha_outside_of_the_unit_interval_is_refused() -> None:
    with pytest.raises(DesignError, match="alpha"):
        two_proportions(arm(1, 2), arm(1, 2), alpha=95)
