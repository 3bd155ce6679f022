"""z tests and score intervals of two proportions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from scipy import optimize, stats
from statsmodels.stats.proportion import confint_proportions_2indep

from abkit.errors import DataError, DesignError
from abkit.moments import Moments
from abkit.stats.difference import successes_of
from abkit.stats.proportion import (
    newcombe,
    restricted_rate,
    score_z,
    two_proportions,
    unpooled_z,
)

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


def test_the_unpooled_test_agrees_with_its_interval() -> None:
    """The interval leaves zero out exactly where the test rejects, unlike the pooled one's."""
    for won in range(20, 60):
        result = unpooled_z(arm(30, 200), arm(won, 210), alpha=0.1)
        assert result.p_value is not None
        assert result.interval is not None
        assert (result.p_value < 0.1) == (0.0 not in result.interval)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_newcombe_is_statsmodels(alternative: Alternative) -> None:
    level = 0.1 if alternative == "two-sided" else 0.2
    low, high = confint_proportions_2indep(5, 56, 3, 29, method="newcomb", alpha=level)
    interval = newcombe(arm(3, 29), arm(5, 56), alpha=0.1, alternative=alternative).interval
    assert interval is not None
    assert interval.lower == (-math.inf if alternative == "less" else pytest.approx(low, rel=1e-9))
    assert interval.upper == (math.inf if alternative == "greater" else pytest.approx(high))


def test_the_score_test_against_zero_is_the_pooled_one() -> None:
    pooled, score = (f(arm(30, 200), arm(45, 210)) for f in (two_proportions, score_z))
    assert score.statistic == pytest.approx(pooled.statistic, rel=1e-12)
    assert score.p_value == pytest.approx(pooled.p_value, rel=1e-12)


@pytest.mark.parametrize("margin", [-0.8, -0.1, 0.05, 0.3])
@pytest.mark.parametrize(("won", "lost"), [(3, 30), (0, 12), (17, 17), (9, 1)])
def test_the_null_rates_of_the_score_test_are_the_most_likely(
    margin: float, won: int, lost: int
) -> None:
    """By brute force: statsmodels 0.15 has another cubic, whose root is not the maximum."""
    n, m, x = won + lost, 25, 8

    def cost(p: float) -> float:
        rates = ((won, p + margin), (lost, 1 - p - margin), (x, p), (m - x, 1 - p))
        return -sum(count * math.log(rate) for count, rate in rates if count)

    low, high = max(0.0, -margin), min(1.0, 1 - margin)
    best = optimize.minimize_scalar(
        cost, bounds=(low + 1e-12, high - 1e-12), method="bounded", options={"xatol": 1e-11}
    )
    assert restricted_rate(won, n, x, m, margin) == pytest.approx(float(best.x), abs=1e-6)


def test_the_score_interval_holds_what_the_test_does_not_reject() -> None:
    control, treatment = arm(8, 40), arm(15, 35)
    interval = score_z(control, treatment).interval
    assert interval is not None
    for end in (interval.lower, interval.upper):
        at_end = score_z(control, treatment, margin=end)
        assert at_end.p_value == pytest.approx(0.05, rel=1e-6)


def test_a_margin_beyond_all_proportions_is_refused() -> None:
    with pytest.raises(DesignError, match="margin"):
        score_z(arm(1, 2), arm(1, 2), margin=1.0)
