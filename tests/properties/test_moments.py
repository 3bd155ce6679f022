"""Moments merge: the order does not matter, and parts add up to the whole."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.moments import Moments

EPOCH_SECONDS = 1.7e9  # where a mean of timestamps lies; raw sums of squares fail here

parts_of = st.lists(
    st.lists(st.floats(-10, 10, allow_subnormal=False), max_size=12), min_size=1, max_size=6
)
bases = st.sampled_from([0.0, 1.0, -3e4, EPOCH_SECONDS])


def shifted(parts: list[list[float]], base: float) -> list[list[float]]:
    return [[base + value for value in part] for part in parts]


def assert_same(left: Moments, right: Moments, values: list[float]) -> None:
    """Equal up to the rounding of the means, which is what a merge can know.

    A mean is off by at most an ulp or so of the largest value, and an error e of a mean moves m2
    by at most about n (2 spread e + e^2).
    """
    assert left.n == right.n
    if not values:
        assert left == right == Moments()
        return
    ulp = 4 * math.ulp(max(map(abs, values)))
    spread = max(values) - min(values)
    assert abs(left.mean - right.mean) <= ulp
    assert abs(left.m2 - right.m2) <= len(values) * (2 * spread * ulp + ulp**2) + 1e-300


@given(parts=parts_of, base=bases)
def test_merging_parts_equals_the_batch(parts: list[list[float]], base: float) -> None:
    data = shifted(parts, base)
    merged = functools.reduce(operator.add, map(Moments.of, data), Moments())
    values = [value for part in data for value in part]
    assert_same(merged, Moments.of(values), values)


@given(parts=st.lists(st.lists(st.floats(-10, 10)), min_size=3, max_size=3), base=bases)
def test_merging_is_associative_and_commutative(parts: list[list[float]], base: float) -> None:
    data = shifted(parts, base)
    values = [value for part in data for value in part]
    a, b, c = map(Moments.of, data)
    assert_same((a + b) + c, a + (b + c), values)
    assert_same(a + b + c, c + b + a, values)


@given(values=st.lists(st.floats(-1e9, 1e9)))
def test_nothing_is_the_neutral_element(values: list[float]) -> None:
    moments = Moments.of(values)
    assert moments + Moments() == moments == Moments() + moments


@given(counts=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=8))
def test_merged_counts_are_the_counts_of_the_whole(counts: list[tuple[int, int]]) -> None:
    arms = [(max(pair), min(pair)) for pair in counts]
    merged = functools.reduce(
        operator.add, (Moments.of_counts(n, won) for n, won in arms), Moments()
    )
    n, won = sum(n for n, _ in arms), sum(won for _, won in arms)
    assert merged.n == n
    assert merged.successes == won
    assert merged.m2 == pytest.approx(Moments.of_counts(n, won).m2, rel=1e-9, abs=1e-9)


def test_variance_survives_a_mean_of_1_7e9() -> None:
    """statistics.md asks for a relative error below 1e-6; raw sums gave 335 instead of 1."""
    values = EPOCH_SECONDS + np.random.default_rng(2).normal(size=10_000)
    merged = functools.reduce(operator.add, map(Moments.of, np.array_split(values, 370)))
    exact = float(np.var(values - EPOCH_SECONDS, ddof=1))  # exact shift: both near 1.7e9
    assert merged.variance == pytest.approx(exact, rel=1e-6)
    naive = float((values**2).sum() - values.sum() ** 2 / len(values)) / (len(values) - 1)
    assert abs(naive / exact - 1) > 0.01
