"""Comoments merge as moments do: the order does not matter, and parts add up to the whole."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.comoments import Comoments
from abkit.errors import DataError
from abkit.moments import Moments

NAMES = ("y", "x", "z")
EPOCH_SECONDS = 1.7e9  # where a mean of timestamps lies; raw sums of products fail here

rows_of = st.lists(
    st.tuples(*[st.floats(-10, 10, allow_subnormal=False)] * 3), min_size=0, max_size=10
)
bases = st.sampled_from([0.0, 1.0, -3e4, EPOCH_SECONDS])


def batch(rows: list[tuple[float, ...]], base: float = 0.0) -> Comoments:
    return Comoments.of({name: [base + row[i] for row in rows] for i, name in enumerate(NAMES)})


def assert_same(left: Comoments, right: Comoments, base: float) -> None:
    """Equal up to what the rounding of means near the base can do."""
    ulp = 4 * np.spacing(abs(base) + 10)
    assert (left.names, left.n) == (right.names, right.n)
    assert left.means == pytest.approx(right.means, abs=ulp)
    slack = left.n * (40 * ulp + ulp**2) + 1e-300
    assert np.allclose(left.products, right.products, rtol=1e-12, atol=slack)


@given(parts=st.lists(rows_of, min_size=1, max_size=5), base=bases)
def test_merging_parts_equals_the_batch(parts: list[list[tuple[float, ...]]], base: float) -> None:
    merged = functools.reduce(
        operator.add, (batch(part, base) for part in parts), Comoments.empty(NAMES)
    )
    assert_same(merged, batch([row for part in parts for row in part], base), base)


@given(parts=st.lists(rows_of, min_size=3, max_size=3), base=bases)
def test_merging_is_associative_and_commutative(
    parts: list[list[tuple[float, ...]]], base: float
) -> None:
    a, b, c = (batch(part, base) for part in parts)
    assert_same((a + b) + c, a + (b + c), base)
    assert_same(a + b + c, c + b + a, base)


@given(rows=rows_of)
def test_nothing_is_the_neutral_element(rows: list[tuple[float, ...]]) -> None:
    whole = batch(rows)
    assert whole + Comoments.empty(NAMES) == whole == Comoments.empty(NAMES) + whole


@given(rows=rows_of, other=rows_of)
def test_each_column_merges_as_its_moments_do(
    rows: list[tuple[float, ...]], other: list[tuple[float, ...]]
) -> None:
    merged = batch(rows) + batch(other)
    for i, name in enumerate(NAMES):
        alone = Moments.of(row[i] for row in rows) + Moments.of(row[i] for row in other)
        found = merged.moments(name)
        assert found.n == alone.n
        assert found.mean == pytest.approx(alone.mean, abs=1e-14)
        assert found.m2 == pytest.approx(alone.m2, rel=1e-12, abs=1e-12)


@given(rows=rows_of, weights=st.tuples(*[st.floats(-3, 3)] * 3), constant=st.floats(-5, 5))
def test_a_combination_is_what_its_column_would_have_been(
    rows: list[tuple[float, ...]], weights: tuple[float, ...], constant: float
) -> None:
    found = batch(rows).combined(dict(zip(NAMES, weights, strict=True)), constant)
    column = [constant + sum(w * x for w, x in zip(weights, row, strict=True)) for row in rows]
    expected = Moments.of(column)
    assert found.mean == pytest.approx(expected.mean, abs=1e-12)
    assert found.m2 == pytest.approx(expected.m2, rel=1e-9, abs=1e-9)


def test_covariances_survive_a_mean_of_1_7e9() -> None:
    """statistics.md asks for a relative error below 1e-6 there."""
    generator = np.random.default_rng(5)
    x = generator.normal(size=10_000)
    data = np.stack([x, 0.5 * x + generator.normal(size=10_000), x**2], axis=1) + EPOCH_SECONDS
    parts = [batch(list(map(tuple, part.tolist()))) for part in np.array_split(data, 137)]
    merged = functools.reduce(operator.add, parts)
    exact = np.cov((data - EPOCH_SECONDS).T)  # exact shift: all near 1.7e9
    found = np.array(merged.products) / (merged.n - 1)
    assert np.abs(found / exact - 1).max() < 1e-6
    assert merged.covariance("y", "x") == pytest.approx(exact[0, 1], rel=1e-6)


def test_counts_beyond_int64_products_do_not_overflow() -> None:
    big = Comoments(("y",), 5_000_000_000, (1.0,), ((5e9,),))
    assert (big + big).n == 10_000_000_000
    assert (big + Comoments(("y",), 5_000_000_000, (2.0,), ((5e9,),))).products[0][0] == 1.25e10


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [1.0], "b": [1.0, 2.0]}, "differ in length"),
        ({"a": [1.0, float("nan")]}, "missing or infinite"),
        ({"a": [1e200, -1e200]}, "must be finite"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns: dict[str, list[float]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Comoments.of(columns)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for wrong in (
        (("a", "a"), 1, (0.0, 0.0), ((0.0, 0.0), (0.0, 0.0))),
        (("a",), 1, (0.0, 0.0), ((0.0,),)),
        (("a",), -1, (0.0,), ((0.0,),)),
        (("a",), 1, (0.0,), ((-1.0,),)),
        (("a", "b"), 1, (0.0, 0.0), ((1.0, 0.5), (0.4, 1.0))),
    ):
        with pytest.raises(DataError):
            Comoments(*wrong)


def test_other_columns_do_not_merge() -> None:
    with pytest.raises(DataError, match="cannot merge"):
        Comoments.of({"a": [1.0]}) + Comoments.of({"b": [1.0]})
    with pytest.raises(DataError, match="no column 'c'"):
        Comoments.of({"a": [1.0]}).moments("c")
