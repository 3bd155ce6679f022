"""A table gets what its rows would get one by one, whatever the experiment and the units."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abkit.assignment import MAX_UNIT_CHARACTERS, unit_text
from abkit.bucketing import SPACE
from abkit.bulk import assign_many, codes
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range
from abkit.targeting import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abkit.assignment import Assignment

HOSTILE = [
    "",
    " ",
    "\0",
    "nul\0inside",
    "quote'",
    'double"quote',
    "back\\slash",
    "$1 ? %s {} --",
    "é東👩",
    "e\u0301",
    "\ufeff",
    "\u202e",
    "\ud800",
    "ab\udfffcd",
    "x" * MAX_UNIT_CHARACTERS,
    "x" * (MAX_UNIT_CHARACTERS + 1),
    "é" * MAX_UNIT_CHARACTERS,
    "é" * (MAX_UNIT_CHARACTERS + 1),
    0,
    -1,
    2**63,
    -(2**70),
    True,
    None,
    1.5,
    float("nan"),
    b"bytes",
    np.int8(7),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.float64(3),
    pd.NA,
    pd.NaT,
    (),
]
texts = st.text(max_size=12) | st.integers(0, 50).map(lambda n: f"u{n}")
objects = st.sampled_from(HOSTILE) | texts | st.integers() | st.none() | st.floats()
lawful = texts.filter(lambda text: unit_text(text) is not None)
variants = st.sampled_from(["control", "b", "c"])
salts = st.integers(0, 20).map(lambda n: f"salt.{n}_-")
shares = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]) | st.floats(0, 1)
values = st.sampled_from(["DE", "2.10.0", "", 1, 2.5, True])
COUNTRIES = ["DE", "FR", "2.9", "v2.10.0", "", None]
AGES = [0, 1, 17, 18, -1, 2**53 + 1, None]
TRUTHS = [True, False, None]
NUMBERS = [1.0, 2.5, float("nan"), -0.0, None]

leaves = st.one_of(
    st.builds(lambda v: {"attribute": "country", "is": v}, values),
    st.builds(lambda v: {"attribute": "score", "in": v}, st.lists(values, max_size=3)),
    st.builds(
        lambda op, v: {"attribute": "score", op: v},
        st.sampled_from(["at_least", "above", "at_most", "below"]),
        st.sampled_from([1, 2.5, 2**60]),
    ),
    st.just({"attribute": "country", "version_at_least": "2.9.1"}),
    st.just({"attribute": "country", "starts_with": "D"}),
    st.just({"attribute": "tags", "contains": "new"}),
    st.just({"attribute": "nowhere", "is": True}),
    st.builds(
        lambda name, op, v: {"attribute": name, op: v},
        st.sampled_from(["age", "beta", "country"]),
        st.sampled_from(["at_least", "above", "at_most", "below", "is"]),
        st.sampled_from([0, 17, 17.5, -0.5, 2**53, 2.0**53, 2**60, 2**200, 1e300]),
    ),
    st.builds(
        lambda name, v: {"attribute": name, "in": v},
        st.sampled_from(["age", "beta", "country"]),
        st.lists(st.sampled_from([True, False, 0, 17, 17.0, 1, "DE", "\ud800"]), max_size=4),
    ),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda part: {"not": part}),
        st.lists(inner, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"any": parts}),
    ),
    max_leaves=4,
)


@st.composite
def ranges(draw: st.DrawFn, owners: st.SearchStrategy[str]) -> tuple[Range, ...]:
    """Some of the stretches between random cuts: there are gaps."""
    cuts = draw(st.lists(st.integers(1, SPACE - 1), min_size=1, max_size=5, unique=True))
    pairs = list(itertools.pairwise([0, *sorted(cuts), SPACE]))
    kept = draw(st.lists(st.sampled_from(pairs), min_size=1, unique=True).map(sorted))
    return tuple(Range(lower, upper, draw(owners)) for lower, upper in kept)


@st.composite
def worlds(draw: st.DrawFn, hashes: list[str]) -> tuple[Experiment, list[Layer], list[Holdout]]:
    """An experiment with anything on, and the layer and holdouts that it names."""
    layer = Layer(
        key="layer",
        salt="layer." + draw(salts),
        ranges=draw(ranges(st.sampled_from(["x", "other"]))),
        hash=draw(st.sampled_from(hashes)),
    )
    holdouts = [
        Holdout(key=f"h{i}", salt=f"h{i}." + draw(salts), share=draw(shares)) for i in range(2)
    ]
    targeting = draw(st.none() | conditions)
    own = draw(ranges(variants))
    served = sorted({part.variant for part in own})
    experiment = Experiment(
        key="x",
        salt=draw(salts),
        control="control",
        ranges=own,
        state=draw(st.sampled_from(["running"] * 8 + ["draft", "killed"])),
        rollout=draw(shares),
        rollout_salt=draw(st.just("") | salts),
        overrides=draw(st.dictionaries(lawful, st.sampled_from(served), max_size=4)),
        epoch=3,
        hash=draw(st.sampled_from(hashes)),
        layer=draw(st.sampled_from(["", "layer"])),
        holdouts=tuple(draw(st.lists(st.sampled_from(["h0", "h1"]), unique=True))),
        targeting=None if targeting is None else parse(targeting),
    )
    return experiment, [layer], holdouts


@pytest.fixture(params=["stages", "closure"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Few units are not worth starting DuckDB; here both ways are taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes, "FEW", -1 if request.param == "stages" else 1_000)
        yield request.param


ARROW_TYPES = [pa.string(), pa.float64(), pa.list_(pa.string()), pa.int64(), pa.bool_()]
# The way is the same for all examples of a test.
SHARED = [HealthCheck.function_scoped_fixture]
OURS = ["abkit-v1", "abkit-v1", "sha256"]
VENDORS = ["growthbook-v2", "unleash", "launchdarkly", "abkit-v1"]
World = tuple[Experiment, list[Layer], list[Holdout]]


def one_by_one(
    world: World, units: list[Any], attributes: list[dict[str, Any]] | None = None
) -> list[Assignment]:
    experiment, layers, holdouts = world
    assign = compile_experiment(
        experiment,
        layers={item.key: item for item in layers},
        holdouts={item.key: item for item in holdouts},
    )
    if attributes is None:
        return [assign(unit) for unit in units]
    return [assign(unit, row) for unit, row in zip(units, attributes, strict=True)]


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    names = ["variant", "reason", "in_experiment", "bucket", "epoch"]
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def expected(found: list[Assignment]) -> list[tuple[Any, ...]]:
    return [(a.variant, a.reason, a.in_experiment, a.bucket, a.epoch) for a in found]


@pytest.mark.usefixtures("engine")
@given(data=st.data(), units=st.lists(objects, max_size=30))
@settings(max_examples=50, deadline=None, suppress_health_check=SHARED)
def test_a_list_of_anything_gets_what_its_items_would(
    data: st.DataObject, units: list[Any]
) -> None:
    world = data.draw(worlds(OURS))
    found = assign_many(world[0], units, layers=world[1], holdouts=world[2])
    assert found == [item.variant for item in one_by_one(world, units)]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("hashes", [OURS, VENDORS], ids=["ours", "vendors"])
@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=SHARED)
def test_a_frame_gets_what_its_rows_would(data: st.DataObject, hashes: list[str]) -> None:
    """Everything on: pandas with objects, Arrow and a DuckDB relation with texts."""
    world = data.draw(worlds(hashes))
    experiment, layers, holdouts = world
    rows = data.draw(
        st.lists(
            st.tuples(
                objects,
                st.sampled_from(COUNTRIES),
                st.sampled_from(NUMBERS),
                st.none() | st.lists(st.sampled_from(["new", "old"]), max_size=2),
                st.sampled_from(AGES),
                st.sampled_from(TRUTHS),
            ),
            max_size=25,
        )
    )
    names = ["country", "score", "tags", "age", "beta"]
    attributes = [dict(zip(names, row[1:], strict=True)) for row in rows]
    frame = pd.DataFrame({"unit_id": pd.Series([row[0] for row in rows], dtype=object)})
    for name in names:
        frame[name] = pd.Series([row[name] for row in attributes], dtype=object)
    options: dict[str, Any] = {"layers": layers, "holdouts": holdouts, "detail": True}
    wide = assign_many(experiment, frame, **options)
    added = ["variant", "reason", "in_experiment", "bucket", "epoch"]
    found = [
        (*row[:3], None if row[3] is pd.NA else row[3], row[4])
        for row in zip(*(wide[name].tolist() for name in added), strict=True)
    ]
    units = [row[0] for row in rows]
    assert found == expected(one_by_one(world, units, attributes))
    table = pa.table(
        {
            "unit_id": pa.array([unit_text(unit) for unit in units], pa.string()),
            **{
                name: pa.array([row[name] for row in attributes], kind)
                for name, kind in zip(names, ARROW_TYPES, strict=True)
            },
        }
    )
    wanted = expected(one_by_one(world, table.column("unit_id").to_pylist(), attributes))
    assert rows_of(assign_many(experiment, table, **options)) == wanted
    with duckdb.connect() as connection:
        relation = assign_many(experiment, connection.from_arrow(table), **options)
        assert rows_of(relation.to_arrow_table()) == wanted
