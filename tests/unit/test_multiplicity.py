"""Corrections for several comparisons, and the intervals that go with them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from abkit.errors import ConfigError, DataError, DesignError
from abkit.moments import Moments
from abkit.stats.difference import welch_t
from abkit.stats.multiplicity import corrected, e_bh, together

if TYPE_CHECKING:
    from abkit.stats.multiplicity import Method

METHODS: tuple[Method, ...] = ("holm", "hommel", "bh")
p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None)  # statsmodels' Holm collects garbage each time
@given(p_values=p_lists)
def test_each_method_is_statsmodels(p_values: list[float]) -> None:
    for method, theirs in (("holm", "holm"), ("hommel", "hommel"), ("bh", "fdr_bh")):
        expected = multipletests(p_values, 0.05, method=theirs)[1]
        assert list(corrected(p_values, method=method).adjusted) == pytest.approx(  # type: ignore[arg-type]
            np.minimum(expected, 1.0).tolist(), rel=1e-12
        )


@given(p_values=p_lists)
def test_hommel_rejects_what_holm_does_and_bh_what_hommel_does(p_values: list[float]) -> None:
    holm, hommel, bh = (corrected(p_values, method=method).adjusted for method in METHODS)
    for weak, middle, strong in zip(holm, hommel, bh, strict=True):
        assert weak is not None
        assert middle is not None
        assert strong is not None
        assert weak >= middle - 1e-12
        assert middle >= strong - 1e-12


def test_a_comparison_without_p_value_counts_and_is_never_rejected() -> None:
    found = corrected([0.03, None])
    assert (found.adjusted, found.rejected) == ((0.06, None), (False, False))


@given(
    e_values=st.lists(st.floats(0, 1e6) | st.just(math.inf), min_size=1, max_size=10),
    alpha=st.floats(0.01, 0.5),
)
def test_e_bh_is_its_definition(e_values: list[float], alpha: float) -> None:
    m = len(e_values)
    ordered = sorted(e_values, reverse=True)
    largest = max((k for k in range(1, m + 1) if k * ordered[k - 1] * alpha >= m), default=0)
    found = e_bh(e_values, alpha=alpha)
    near = any(abs(k * ordered[k - 1] * alpha - m) < 1e-9 * m for k in range(1, m + 1))
    if near:
        return
    threshold = ordered[largest - 1] if largest else math.inf
    assert sum(found.rejected) >= largest
    for e, rejected in zip(e_values, found.rejected, strict=True):
        assert rejected == (largest > 0 and e >= threshold)


def test_family_wise_intervals_are_bonferronis() -> None:
    arms = [Moments(50, shift, 49.0) for shift in (0.0, 0.2, 0.7)]
    results = [welch_t(arms[0], arm) for arm in arms[1:]]
    found = together(results, corrected([r.p_value for r in results]))
    for arm, result in zip(arms[1:], found, strict=True):
        assert result.interval == welch_t(arms[0], arm, alpha=0.025).interval
        assert result.alpha == 0.025


def test_intervals_of_selected_comparisons_only() -> None:
    arms = [Moments(50, shift, 49.0) for shift in (0.0, 0.1, 0.7, 0.9)]
    results = [welch_t(arms[0], arm) for arm in arms[1:]]
    correction = corrected([r.p_value for r in results], method="bh")
    assert correction.rejected == (False, True, True)
    assert correction.interval_alpha == (None, *[pytest.approx(2 * 0.05 / 3)] * 2)
    found = together(results, correction)
    assert found[0].interval is None
    assert found[1].interval is not None
    assert 0.0 not in found[1].interval
    assert (correction.guarantee, corrected([0.1]).guarantee) == (
        "false-discovery",
        "family-wise",
    )


def test_intervals_of_e_values_are_somebody_elses() -> None:
    result = welch_t(Moments(9, 0.0, 8.0), Moments(9, 1.0, 8.0))
    with pytest.raises(ConfigError, match="confidence sequences"):
        together([result], e_bh([3.0]))
    with pytest.raises(ConfigError, match="1 estimates for a correction of 2"):
        together([result], corrected([0.1, 0.2]))


def test_nothing_to_correct() -> None:
    assert corrected([]).adjusted == ()
    assert e_bh([]).rejected == ()
    assert together([], corrected([])) == ()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(p: float) -> None:
    with pytest.raises(DataError):
        corrected([0.5, p])


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sidak'"):
        corrected([0.5], method="sidak")  # type: ignore[arg-type]
    with pytest.raises(DataError):
        e_bh([-1.0])
    with pytest.raises(DataError):
        e_bh([math.nan])
    with pytest.raises(DesignError):
        corrected([0.5], alpha=0.0)
