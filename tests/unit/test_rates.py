"""Poisson rates: scipy's binomial and statsmodels' score test are the oracles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.rates import test_poisson_2indep as two_rates

from abkit.errors import ConfigError, DataError
from abkit.stats.rates import Events, RateMethod, _difference_interval, poisson_rates


@given(x=st.integers(0, 60), y=st.integers(0, 60), exposure=st.floats(0.2, 5))
def test_the_exact_test_is_binomial(x: int, y: int, exposure: float) -> None:
    if x + y == 0:
        return
    result = poisson_rates(Events(y, 1.0), Events(x, exposure))
    share = exposure / (1 + exposure)
    expected = stats.binomtest(x, x + y, share)
    assert result.p_value == pytest.approx(min(1.0, float(expected.pvalue)), rel=1e-9)
    ends = expected.proportion_ci()
    assert result.lift_interval is not None
    odds = (1 - share) / share
    assert result.lift_interval.lower == pytest.approx(
        odds * ends.low / (1 - ends.low) - 1, rel=1e-8, abs=1e-9
    )


@pytest.mark.parametrize(("x", "y", "exposure"), [(45, 28, 1.0), (11, 21, 0.3), (7, 90, 0.1)])
def test_the_score_test_is_statsmodels(x: int, y: int, exposure: float) -> None:
    result = poisson_rates(Events(y, 1.0), Events(x, exposure), method="score")
    oracle = two_rates(x, exposure, y, 1.0, method="score", compare="ratio")
    assert result.statistic == pytest.approx(float(oracle.statistic), rel=1e-9)
    assert result.p_value == pytest.approx(float(oracle.pvalue), rel=1e-9)


@given(x=st.integers(0, 80), y=st.integers(0, 80), exposure=st.floats(0.2, 5))
def test_both_score_intervals_agree_with_the_test(x: int, y: int, exposure: float) -> None:
    if x + y == 0:
        return
    result = poisson_rates(Events(y, 1.0), Events(x, exposure), method="score")
    assert result.p_value is not None
    assert result.interval is not None
    assert result.lift_interval is not None
    if abs(result.p_value - 0.05) > 1e-9:
        assert (result.p_value < 0.05) == (0.0 not in result.interval)
        assert (result.p_value < 0.05) == (0.0 not in result.lift_interval)
    assert result.difference in result.interval


def test_the_difference_interval_is_where_statsmodels_score_test_turns() -> None:
    control, treatment = Events(28, 2.0), Events(45, 3.0)
    interval = _difference_interval(control, treatment, 0.05, "two-sided")
    assert interval is not None
    for end in (interval.lower, interval.upper):
        oracle = two_rates(45, 3.0, 28, 2.0, value=end, method="score", compare="diff")
        assert float(oracle.pvalue) == pytest.approx(0.05, rel=1e-6)


def test_no_event_in_control_has_no_upper_end() -> None:
    methods: tuple[RateMethod, ...] = ("exact", "score")
    for method in methods:
        result = poisson_rates(Events(0, 10.0), Events(5, 10.0), method=method)
        assert result.lift_interval is not None
        assert (result.lift, result.lift_interval.upper) == (None, math.inf)
        assert result.lift_interval.lower > -1


def test_a_unit_of_exposure_does_not_matter() -> None:
    seconds = poisson_rates(Events(28, 3_600.0), Events(45, 3_600.0))
    hours = poisson_rates(Events(28, 1.0), Events(45, 1.0))
    assert seconds.p_value == hours.p_value
    assert seconds.lift_interval == hours.lift_interval


@pytest.mark.parametrize(("count", "exposure"), [(-1, 1.0), (1, -1.0), (1, math.nan), (1, 0.0)])
def test_events_that_cannot_be_are_refused(count: int, exposure: float) -> None:
    with pytest.raises(DataError):
        Events(count, exposure)
    with pytest.raises(ConfigError, match="'wald'"):
        poisson_rates(Events(1, 1.0), Events(1, 1.0), method="wald")  # type: ignore[arg-type]
