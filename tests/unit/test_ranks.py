"""Rank sums: scipy is the oracle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from abkit.errors import DataError
from abkit.stats import ranks
from abkit.stats.ranks import mann_whitney

if TYPE_CHECKING:
    from abkit.estimate import Alternative

SIDES: tuple[Alternative, ...] = ("two-sided", "greater", "less")


@pytest.mark.parametrize("alternative", SIDES)
def test_ties_and_large_samples_are_scipys(alternative: Alternative) -> None:
    generator = np.random.default_rng(1)
    control, treatment = generator.poisson(3, 80), generator.poisson(3.4, 70)
    expected = stats.mannwhitneyu(treatment, control, alternative=alternative)
    result = mann_whitney(control, treatment, alternative=alternative)
    assert result.statistic == float(expected.statistic)
    assert result.p_value == pytest.approx(float(expected.pvalue), rel=1e-12)
    assert result.guarantee == "fixed-horizon"


@pytest.mark.parametrize("alternative", SIDES)
def test_above_scipys_range_the_same_formula_goes_on(
    alternative: Alternative, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(2)
    control, treatment = generator.poisson(3, 800), generator.poisson(3.1, 700)
    expected = mann_whitney(control, treatment, alternative=alternative)
    monkeypatch.setattr(ranks, "_SCIPY_UNITS", 100)
    result = mann_whitney(control, treatment, alternative=alternative)
    assert result.p_value == pytest.approx(expected.p_value, rel=1e-12)


def test_millions_of_ties_do_not_overflow() -> None:
    n = 2_500_000  # its cube is beyond int64
    control, treatment = np.zeros(n), np.zeros(n)
    treatment[:2_000] = control[:1_500] = 1.0
    result = mann_whitney(control, treatment)
    pooled = stats.chi2_contingency([[2_000, n - 2_000], [1_500, n - 1_500]], correction=False)
    assert result.p_value == pytest.approx(float(pooled.pvalue), rel=0.01)


def test_the_interval_of_the_superiority_covers_near_its_level() -> None:
    generator = np.random.default_rng(3)
    truth = float(stats.norm.cdf(0.5 / math.sqrt(2)))
    hits = 0
    for _ in range(1_000):
        result = mann_whitney(generator.normal(size=60), generator.normal(0.5, size=60))
        assert result.interval is not None
        hits += truth in result.interval
    assert stats.binom.ppf(1e-6, 1_000, 0.94) <= hits <= stats.binom.isf(1e-6, 1_000, 0.96)


def test_all_above_has_no_interval() -> None:
    result = mann_whitney([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert (result.superiority, result.interval, result.guarantee) == (1.0, None, "exact")
    assert result.p_value == pytest.approx(0.1)


def test_missing_values_have_no_rank() -> None:
    with pytest.raises(DataError, match="missing"):
        mann_whitney([1.0, math.nan], [2.0])


def test_a_few_values_against_many_are_quick() -> None:
    """The exact distribution of a million pairs would take ten seconds."""
    many = np.random.default_rng(1).normal(size=100_000)
    result = mann_whitney(many, [0.1, 0.5, -0.3])
    assert result.guarantee == "fixed-horizon"
    assert mann_whitney(many[:6_000], [0.1, 0.5, -0.3]).guarantee == "exact"
