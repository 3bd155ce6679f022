"""Quantiles at any look, and thresholds fixed beforehand."""

from __future__ import annotations

import math

import pytest

from abkit.errors import DataError, DesignError
from abkit.estimate import Interval
from abkit.moments import Block
from abkit.sequential.quantile import (
    exceedances,
    quantile_difference,
    quantile_interval,
    quantile_ranks,
)


def test_ranks_surround_the_quantile_and_close_in() -> None:
    widths = []
    for n in (200, 2_000, 20_000, 2_000_000_000):
        lower, upper = quantile_ranks(n, 0.9, n_opt=1_000)
        assert 1 <= lower <= math.ceil(0.9 * n) <= upper <= n + 1
        widths.append((upper - lower) / n)
    assert widths == sorted(widths, reverse=True)


def test_ranks_mirror() -> None:
    for n in (30, 500):
        lower, upper = quantile_ranks(n, 0.2, n_opt=100)
        assert quantile_ranks(n, 0.8, n_opt=100) == (n + 1 - upper, n + 1 - lower)


def test_few_values_bound_nothing() -> None:
    assert quantile_ranks(0, 0.5, n_opt=100) == (0, 1)
    interval = quantile_interval([], 0.5, n_opt=100)
    assert (interval.lower, interval.upper) == (-math.inf, math.inf)
    look = quantile_difference([1.0], [], 0.5, n_opt=100)
    assert (look.status, look.estimate, look.decision) == ("insufficient_data", None, "continue")


def test_ties_are_no_problem() -> None:
    interval = quantile_interval([7.0] * 500, 0.5, n_opt=100)
    assert (interval.lower, interval.upper) == (7.0, 7.0)


def test_equal_arms_do_not_differ() -> None:
    values = [float(x) for x in range(1_000)]
    look = quantile_difference(values, values, 0.95, n_opt=1_000)
    assert look.decision == "continue"
    assert look.estimate == 0.0
    assert look.interval is not None
    assert 0.0 in look.interval


def test_exceedances_count_missing_answers_as_slow() -> None:
    block = exceedances([1.0, 2.0, 3.0], [2.0, math.nan, math.inf], 2.0, hour=3)
    assert block == Block(3, 3, 1, 2, 3)
    with pytest.raises(DesignError, match="finite"):
        exceedances([], [], math.nan)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(DesignError, match="not 95"):
        quantile_ranks(10, 95, n_opt=100)
    with pytest.raises(DesignError, match="n_opt"):
        quantile_ranks(10, 0.5, n_opt=math.inf)
    with pytest.raises(DataError, match="NaN"):
        quantile_interval([math.nan], 0.5, n_opt=100)


def test_infinite_values_give_no_nan() -> None:
    look = quantile_difference([math.inf] * 5_000, [math.inf] * 5_000, 0.5, n_opt=100)
    assert look.interval == Interval(-math.inf, math.inf)
    assert (look.status, look.estimate) == ("insufficient_data", None)


def test_the_arms_share_alpha() -> None:
    control = [float(x) for x in range(1_000)]
    treatment = [x + 30.0 for x in control]
    found = quantile_difference(control, treatment, 0.5, alpha=0.1, n_opt=500).interval
    c, t = (quantile_interval(arm, 0.5, alpha=0.05, n_opt=500) for arm in (control, treatment))
    assert found == Interval(t.lower - c.upper, t.upper - c.lower)
