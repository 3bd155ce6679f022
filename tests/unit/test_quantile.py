"""Quantiles from order statistics: exact for one arm, near its level for two."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from abkit.errors import ConfigError, DataError, DesignError
from abkit.stats.quantile import order_ranks, quantile_difference, quantile_summary


@given(n=st.integers(1, 400), quantile=st.floats(0.01, 0.99), tail=st.floats(0.001, 0.2))
def test_ranks_hold_their_error_and_are_the_tightest_that_do(
    n: int, quantile: float, tail: float
) -> None:
    lower, upper = order_ranks(n, quantile, tail)
    assert 0 <= lower <= upper <= n + 1
    slack = 1e-12
    if lower:
        assert stats.binom.cdf(lower - 1, n, quantile) <= tail + slack
    assert stats.binom.cdf(lower, n, quantile) >= tail - slack
    if upper <= n:
        assert stats.binom.sf(upper - 1, n, quantile) <= tail + slack
    assert stats.binom.sf(upper - 2, n, quantile) >= tail - slack


def test_an_arms_interval_covers_at_least_at_its_level() -> None:
    generator = np.random.default_rng(7)
    truth = float(stats.lognorm.ppf(0.9, 1.0))
    hits = 0
    for _ in range(2_000):
        summary = quantile_summary(generator.lognormal(size=150), 0.9)
        hits += summary.lower <= truth <= summary.upper
    # Under a coverage of .95 so few hits have a probability below 1e-6.
    assert hits >= stats.binom.ppf(1e-6, 2_000, 0.95)


def test_false_positives_and_power_of_the_difference() -> None:
    generator = np.random.default_rng(11)
    rejected, found = 0, 0
    for _ in range(1_000):
        control, same = generator.lognormal(size=(2, 300))
        a, b, c = (
            quantile_summary(values, 0.9)
            for values in (control, same, 1.8 * generator.lognormal(size=300))
        )
        null, effect = quantile_difference(a, b), quantile_difference(a, c)
        assert null.p_value is not None
        assert effect.p_value is not None
        rejected += null.p_value < 0.05
        found += effect.p_value < 0.05
    assert rejected <= stats.binom.isf(1e-6, 1_000, 0.05)
    assert found >= 700


@given(shift=st.floats(-40, 40), side=st.sampled_from(["two-sided", "greater", "less"]))
def test_the_p_value_agrees_with_the_interval(shift: float, side: str) -> None:
    values = np.arange(100.0) ** 1.5 / 10
    a, b = (
        quantile_summary(data, 0.7, alpha=0.1, alternative=side)  # type: ignore[arg-type]
        for data in (values, values + shift)
    )
    result = quantile_difference(a, b)
    assert result.p_value is not None
    assert result.interval is not None
    if abs(result.p_value - 0.1) > 1e-9:
        assert (result.p_value < 0.1) == (0.0 not in result.interval)


def test_the_value_is_numpys() -> None:
    values = np.random.default_rng(2).normal(size=37)
    for q in (0.05, 0.5, 0.95):
        assert quantile_summary(values, q).value == pytest.approx(float(np.quantile(values, q)))


def test_three_order_statistics_are_all_that_is_needed() -> None:
    values = np.random.default_rng(3).normal(size=1_000)
    summary = quantile_summary(values, 0.95)
    lower, upper = order_ranks(1_000, 0.95, 0.025)
    ordered = np.sort(values)
    assert (summary.lower, summary.upper) == (ordered[lower - 1], ordered[upper - 1])


def test_too_few_values_for_a_tail_are_insufficient() -> None:
    few = quantile_summary(range(1, 72), 0.95)
    enough = quantile_summary(range(1, 73), 0.95)
    assert few.upper == math.inf
    assert enough.upper == 72.0
    result = quantile_difference(few, few)
    assert (result.status, result.difference) == ("insufficient_data", 0.0)
    assert quantile_difference(enough, enough).status == "ok"


def test_the_lift_interval_is_fiellers_for_symmetric_arms() -> None:
    """MOVER-R with ends at equal distances is Fieller's quadratic."""
    a = quantile_summary(np.arange(1_000, 2_000), 0.5)
    result = quantile_difference(a, quantile_summary(np.arange(1_100, 2_100), 0.5))
    assert result.lift_interval is not None
    assert result.lift is not None
    assert result.lift in result.lift_interval
    assert result.interval is not None
    assert (0.0 in result.lift_interval) == (0.0 in result.interval)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(DesignError, match="quantile"):
        order_ranks(10, 95, 0.05)
    with pytest.raises(DataError, match="missing"):
        quantile_summary([1.0, math.nan], 0.5)
    with pytest.raises(ConfigError, match="different quantiles"):
        quantile_difference(quantile_summary([1.0], 0.5), quantile_summary([1.0], 0.6))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_p_value_uses_the_distances_towards_zero(sign: float) -> None:
    """Skewed values have ends at unequal distances; the p-value must take the interval's."""
    values = sign * np.exp(np.random.default_rng(4).normal(size=400))
    centre = np.quantile(0.1 * values, 0.9) - np.quantile(values, 0.9)
    for shift in centre + np.linspace(-1.5, 1.5, 61):
        result = quantile_difference(
            quantile_summary(0.1 * values, 0.9), quantile_summary(values + shift, 0.9)
        )
        assert result.interval is not None
        assert result.p_value is not None
        assert (result.p_value < 0.05) == (0.0 not in result.interval)
