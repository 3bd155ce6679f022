"""Exact tests of two proportions: scipy's, with limits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from scipy import stats

from abkit.errors import ConfigError, DataError
from abkit.moments import Moments
from abkit.stats.exact import MOST_TABLES, exact_proportions

if TYPE_CHECKING:
    from abkit.estimate import Alternative
    from abkit.stats.exact import ExactMethod

METHODS: tuple[ExactMethod, ...] = ("fisher", "barnard", "boschloo")


def arm(successes: int, n: int) -> Moments:
    return Moments.of_counts(n, successes)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_each_method_is_scipys(alternative: Alternative) -> None:
    table = [[12, 5], [18, 25]]
    control, treatment = arm(5, 30), arm(12, 30)
    for method, oracle in (
        ("fisher", stats.fisher_exact),
        ("barnard", stats.barnard_exact),
        ("boschloo", stats.boschloo_exact),
    ):
        result = exact_proportions(control, treatment, method=method, alternative=alternative)  # type: ignore[arg-type]
        expected = float(oracle(table, alternative=alternative).pvalue)
        assert result.p_value == pytest.approx(min(1.0, expected), rel=1e-9)
        assert (result.guarantee, result.method) == ("exact", method)


def test_greater_is_about_treatment() -> None:
    for method in METHODS:
        greater = exact_proportions(arm(2, 30), arm(12, 30), method=method, alternative="greater")
        less = exact_proportions(arm(2, 30), arm(12, 30), method=method, alternative="less")
        assert greater.p_value is not None
        assert less.p_value is not None
        assert greater.p_value < 0.01
        assert less.p_value > 0.9


def test_boschloo_is_never_above_fisher_on_one_side() -> None:
    for won in range(0, 31, 3):
        fisher, boschloo = (
            exact_proportions(arm(7, 25), arm(won, 30), method=method, alternative="greater")
            for method in ("fisher", "boschloo")
        )
        assert fisher.p_value is not None
        assert boschloo.p_value is not None
        assert boschloo.p_value <= fisher.p_value + 1e-9


def test_tests_that_would_take_minutes_are_refused_at_once() -> None:
    side = int(MOST_TABLES**0.5) + 1
    began = time.process_time()
    for method in ("barnard", "boschloo"):
        result = exact_proportions(arm(3, side), arm(9, side), method=method)  # type: ignore[arg-type]
        assert (result.status, result.p_value) == ("too_large", None)
        assert result.difference is not None
    huge = 4_000_000_000
    assert exact_proportions(arm(3, huge), arm(9, huge), method="fisher").status == "too_large"
    assert time.process_time() - began < 10  # minutes otherwise


def test_fisher_takes_millions() -> None:
    result = exact_proportions(arm(1_000, 5_000_000), arm(1_200, 5_000_000), method="fisher")
    assert result.p_value is not None
    assert 1e-6 < result.p_value < 1e-4


def test_what_is_no_proportion_is_refused() -> None:
    with pytest.raises(DataError):
        exact_proportions(Moments.of([0.5, 2.0]), arm(1, 2))
    with pytest.raises(ConfigError, match="'chi2'"):
        exact_proportions(arm(1, 2), arm(1, 2), method="chi2")  # type: ignore[arg-type]
