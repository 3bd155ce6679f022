"""Two models on the same units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as oracle

from abkit.errors import ConfigError
from abkit.moments import Moments, PairedCounts
from abkit.stats.paired import mcnemar, paired_t

if TYPE_CHECKING:
    from abkit.estimate import Alternative


def pairs(won: int, lost: int, n: int = 100) -> PairedCounts:
    return PairedCounts(both=n - won - lost, only_control=lost, only_treatment=won)


@given(won=st.integers(0, 30), lost=st.integers(0, 30))
def test_exact_and_asymptotic_are_statsmodels(won: int, lost: int) -> None:
    if won + lost == 0:
        return
    table = [[100 - won - lost, lost], [won, 0]]
    exact = oracle(table, exact=True).pvalue
    chi2 = oracle(table, exact=False, correction=False).pvalue
    assert mcnemar(pairs(won, lost), method="exact").p_value == pytest.approx(
        min(1.0, float(exact)), rel=1e-10
    )
    assert mcnemar(pairs(won, lost), method="asymptotic").p_value == pytest.approx(
        float(chi2), rel=1e-10
    )


@given(won=st.integers(0, 30), lost=st.integers(0, 30))
def test_mid_p_is_less_than_exact_by_half_of_the_table(won: int, lost: int) -> None:
    if won + lost == 0:
        return
    half = float(stats.binom.pmf(won, won + lost, 0.5)) / 2
    sides: tuple[Alternative, ...] = ("greater", "less")
    for side in sides:
        exact = mcnemar(pairs(won, lost), method="exact", alternative=side).p_value
        mid = mcnemar(pairs(won, lost), alternative=side).p_value
        assert exact is not None
        assert mid == pytest.approx(exact - half, abs=1e-12)


@given(won=st.integers(0, 40), lost=st.integers(0, 40))
def test_the_interval_agrees_with_the_asymptotic_test(won: int, lost: int) -> None:
    if won + lost == 0:
        return
    result = mcnemar(pairs(won, lost), method="asymptotic")
    assert result.p_value is not None
    assert result.interval is not None
    if abs(result.p_value - 0.05) > 1e-9:
        assert (result.p_value < 0.05) == (0.0 not in result.interval)
    assert result.difference in result.interval
    other = mcnemar(pairs(lost, won), method="asymptotic").interval
    assert other is not None
    assert (-other.upper, -other.lower) == pytest.approx(
        (result.interval.lower, result.interval.upper), abs=1e-9
    )


def test_no_pair_that_differs_is_no_evidence_but_bounds_the_difference() -> None:
    result = mcnemar(pairs(0, 0, 400))
    assert (result.status, result.p_value, result.difference) == ("zero_variance", None, 0.0)
    q2 = float(stats.norm.isf(0.025)) ** 2
    assert result.interval is not None
    assert result.interval.upper == pytest.approx(q2 / (400 + q2), rel=1e-6)


def test_billions_of_pairs() -> None:
    result = mcnemar(pairs(3_000_100_000, 3_000_000_000, 10**10))
    assert result.p_value == pytest.approx(
        2 * stats.norm.sf(100_000 / math.sqrt(6_000_100_000)), rel=1e-3
    )


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_the_paired_t_test_is_scipys(alternative: Alternative) -> None:
    a, b = [5.1, 4.9, 6.2, 5.8, 6.0], [4.8, 5.0, 5.7, 5.1, 5.9]
    expected = stats.ttest_rel(a, b, alternative=alternative)
    result = paired_t(Moments.of(x - y for x, y in zip(a, b, strict=True)), alternative=alternative)
    assert result.p_value == pytest.approx(float(expected.pvalue), rel=1e-10)
    interval = expected.confidence_interval()
    assert result.interval is not None
    assert result.interval.lower == pytest.approx(float(interval.low), rel=1e-10)
    assert result.interval.upper == pytest.approx(float(interval.high), rel=1e-10)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="'midp'"):
        mcnemar(pairs(1, 2), method="midp")  # type: ignore[arg-type]


@pytest.mark.parametrize(("won", "lost"), [(3, 9), (9, 3), (0, 5), (20, 14)])
def test_one_sided_mid_p_is_binomial_on_either_side(won: int, lost: int) -> None:
    pairs = PairedCounts(both=5, only_control=lost, only_treatment=won, neither=4)
    half = stats.binom.pmf(won, won + lost, 0.5) / 2
    above = mcnemar(pairs, alternative="greater").p_value
    below = mcnemar(pairs, alternative="less").p_value
    assert above == pytest.approx(stats.binom.sf(won - 1, won + lost, 0.5) - half)
    assert below == pytest.approx(stats.binom.cdf(won, won + lost, 0.5) - half)
