"""Score tests and intervals of proportions within strata: edges and messages."""

from __future__ import annotations

import math

import pytest

from abkit.errors import DataError, DesignError
from abkit.moments import Moments
from abkit.stats.proportion import newcombe
from abkit.stats.stratified_score import stratified_newcombe, stratified_score

A = Moments.of_counts(50, 5), Moments.of_counts(60, 12)
B = Moments.of_counts(500, 150), Moments.of_counts(40, 15)


def test_a_stratum_without_two_units_in_each_arm_is_left_out() -> None:
    lone = Moments.of_counts(9, 1), Moments.of_counts(1, 1)
    for test in (stratified_score, stratified_newcombe):
        found, plain = test([A, B, lone]), test([A, B])
        assert found.difference == plain.difference
        assert found.interval == plain.interval
        assert found.n_treatment == 101
        assert test([lone]).status == "insufficient_data"
        assert test([]).status == "insufficient_data"


def test_nothing_that_varies_has_no_answer() -> None:
    none = Moments.of_counts(10, 0), Moments.of_counts(10, 0)
    assert stratified_score([none, none]).status == "zero_variance"
    found = stratified_newcombe([none, none])
    assert found.interval is not None
    assert found.interval.lower < 0 < found.interval.upper


def test_all_against_nothing_ends_at_one() -> None:
    whole = Moments.of_counts(10, 0), Moments.of_counts(10, 10)
    found = stratified_score([whole, whole])
    assert found.interval is not None
    assert found.interval.upper == 1.0
    assert 0 < found.interval.lower < 1


@pytest.mark.parametrize("side", ["greater", "less"])
def test_one_side_has_one_end(side: str) -> None:
    for test in (stratified_score, stratified_newcombe):
        interval = test([A, B], alternative=side).interval  # type: ignore[arg-type]
        both = test([A, B], alpha=0.1).interval
        assert interval is not None
        assert both is not None
        if side == "greater":
            assert interval.upper == math.inf
            assert interval.lower == pytest.approx(both.lower)
        else:
            assert interval.lower == -math.inf
            assert interval.upper == pytest.approx(both.upper)


def test_one_stratum_of_newcombe_is_newcombe() -> None:
    assert stratified_newcombe([A]).interval == newcombe(*A).interval


def test_bad_arguments_are_named() -> None:
    with pytest.raises(DesignError, match=r"lies in \(-1, 1\), got 1"):
        stratified_score([A], margin=1.0)
    with pytest.raises(DesignError, match="alpha"):
        stratified_score([A], alpha=0.0)
    with pytest.raises(DataError, match="0 and 1"):
        stratified_newcombe([(Moments.of([0.5, 2.0]), A[1])])
