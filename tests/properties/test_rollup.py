"""A look for the price of the news sees what a look at all events sees, however they arrived."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abkit.metrics import Metric
from abkit.store.moments import observe_all
from abkit.store.rollup import Rollup
from abkit.store.rollup.exact import exact_sums
from abkit.store.rollup.units import Units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abkit.moments import Moments
    from abkit.observation import Observation

START = datetime(2026, 3, 1, 23, 56, tzinfo=UTC).replace(tzinfo=None)  # midnight is near
METRICS = (
    Metric(key="error", kind="proportion", direction="decrease"),
    Metric(key="label", kind="proportion", missing="exclude", aggregate="last"),
    Metric(key="latency", log=True),
    Metric(key="rank", aggregate="first", missing="zero"),
    Metric(key="revenue", aggregate="sum", missing="zero"),
    Metric(key="dwell", aggregate="sum", log=True),
    Metric(key="score", aggregate="mean"),
    Metric(key="peak", aggregate="max"),
    Metric(key="high", source="peak", above=0.25),
    Metric(key="low", source="peak", below=1.0, missing="zero"),
    Metric(key="negative", source="label", below=0.0, aggregate="last"),
    Metric(key="in_time", source="error", above=0.0, missing="zero", window_seconds=60.0),
    Metric(key="early_score", aggregate="mean", source="", window_seconds=90.5),
    Metric(key="early_revenue", aggregate="sum", missing="zero", window_seconds=30.000001),
)
RECORDED = sorted({metric.recorded for metric in METRICS} | {"unknown"})
OTHER_AGGREGATE = {"last": "first", "first": "max", "max": "mean", "mean": "sum", "sum": "last"}

# Few units, writers and times, so that ties, crossings and limits to the microsecond are common.
times = st.builds(
    lambda half_minutes, microseconds: START + timedelta(0, 30 * half_minutes, microseconds),
    st.integers(0, 7),
    st.sampled_from([0, 0, 0, 0, -1, 1]),
)
units = st.sampled_from(["u0", "u1", "u2"])
writers = st.sampled_from(["a", "b", "c"])
exposures = st.tuples(
    st.just("exposure"),
    writers,
    times,
    st.sampled_from(["ranker", "ranker", "ranker", "other"]),
    units,
    st.sampled_from(["old", "new", "old", "new", "third"]),
    st.integers(1, 4),
)
outcomes = st.tuples(
    st.just("outcome"),
    writers,
    times,
    units,
    st.sampled_from(RECORDED),
    st.sampled_from([0.0, 1.0, 0.25, -1.0, 3.0, 1e6 + 0.5]),
    st.sampled_from(
        [("", "")] * 4
        + [("ranker", ""), ("other", ""), ("ranker", "old"), ("ranker", "new"), ("other", "new")]
    ),
)
loads = st.tuples(
    st.just("load"), st.lists(exposures | outcomes | outcomes, min_size=1, max_size=16)
)
looks = st.just(("look", None))
steps = st.one_of(
    loads,
    loads,
    looks,
    looks,
    st.just(("epoch", None)),
    st.tuples(st.just("time"), st.sampled_from([30.0, 30.0, 60.5, 0.000001, 400.0, -45.0])),
    st.just(("reopen", None)),
    st.tuples(st.just("drop"), st.sampled_from([None, "ranker", "other"])),
    st.just(("rebuild", None)),
    st.tuples(st.just("redefine"), st.integers(0, len(METRICS) - 1)),
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as opened:
        opened.execute(files("abkit.store").joinpath("schema.sql").read_text(encoding="utf-8"))
        yield opened


class Story:
    """Loads and looks on one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, first_epoch: int = 1) -> None:
        self.connection = connection
        connection.execute("DELETE FROM exposure; DELETE FROM outcome")
        self.rollup = Rollup(connection)
        self.scope: dict[str, Any] = {
            "experiment": "ranker",
            "epochs": (first_epoch, first_epoch),
            "metrics": METRICS,
            "control": "old",
            "treatment": "new",
            "now": START.replace(tzinfo=UTC).timestamp(),
        }
        self.load_number = 0
        self._sequences = count(1)

    def load(self, events: list[tuple[Any, ...]]) -> None:
        self.load_number += 1
        for kind, writer, time, *rest in events:
            body = [*rest[:-1], *rest[-1]] if kind == "outcome" else rest
            names = (
                "experiment, unit_id, variant, epoch"
                if kind == "exposure"
                else "unit_id, metric, value, experiment, variant"
            )
            row = [self.load_number, writer, next(self._sequences), time, time, *body]
            marks = ", ".join("?" * len(row))
            self.connection.execute(
                f"INSERT INTO {kind} (load, writer, sequence, time, received, {names}) "  # noqa: S608
                f"VALUES ({marks})",
                row,
            )

    def do(self, step: str, value: Any) -> None:
        if step == "load":
            self.load(value)
        elif step == "epoch":
            first, last = self.scope["epochs"]
            self.scope["epochs"] = (first, last + 1)
        elif step == "time":
            self.scope["now"] += value
        elif step == "reopen":
            self.rollup = Rollup(self.connection)
        elif step == "drop":
            self.rollup.drop(value)
        elif step == "rebuild":
            self.rollup.rebuild(load=self.load_number)
        elif step == "redefine":
            metrics = list(self.scope["metrics"])
            if metrics[value].kind == "mean":
                changed = OTHER_AGGREGATE[metrics[value].aggregate]
                metrics[value] = replace(metrics[value], aggregate=changed)
            self.scope["metrics"] = tuple(metrics)

    def look(self) -> Observation:
        return self.rollup.observe(**self.scope, load=self.load_number)

    def assert_same(self) -> None:
        seen, defined = self.look(), observe_all(self.connection, **self.scope)
        assert all(held.scope for held in self.rollup._held.values()), "left to the definition"
        assert seen.exposures == defined.exposures
        assert (seen.returned, seen.live) == (defined.returned, defined.live)
        assert cells(seen).keys() == cells(defined).keys()
        for key, moments in cells(seen).items():
            assert_close(moments, cells(defined)[key])


def cells(observation: Observation) -> dict[tuple[Any, ...], Moments]:
    found: dict[tuple[Any, ...], Moments] = {
        (metric, epoch, variant): moments
        for metric, epochs in observation.values.items()
        for epoch, row in epochs.items()
        for variant, moments in row.items()
    }
    for metric, pair in observation.pairs.items():
        for name in ("difference", "control", "treatment"):
            found[metric, name] = getattr(pair, name)
    return found


def assert_close(a: Moments, b: Moments) -> None:
    assert a.n == b.n
    assert a.mean == pytest.approx(b.mean, rel=1e-9, abs=1e-9)
    # m2 of equal values is rounding alone, of the size of the values' squares.
    assert a.m2 == pytest.approx(b.m2, rel=1e-9, abs=1e-12 * (1 + b.n * b.mean**2))


@settings(max_examples=100)
@given(first_epoch=st.integers(1, 2), story=st.lists(steps, min_size=3, max_size=14))
def test_every_look_equals_the_full_recomputation(
    connection: duckdb.DuckDBPyConnection, first_epoch: int, story: list[tuple[str, Any]]
) -> None:
    told = Story(connection, first_epoch)
    for step, value in story:
        told.do(step, value)
        if step == "look":
            told.assert_same()
    told.assert_same()


@settings(max_examples=50)
@given(events=st.lists(exposures | outcomes, max_size=40), cuts=st.lists(st.integers(0, 40)))
def test_how_the_events_were_cut_into_loads_leaves_no_trace(
    connection: duckdb.DuckDBPyConnection, events: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    told = Story(connection)
    told.scope["epochs"] = (1, 3)
    # Means of a unit's values are rounded in the order of arrival; everything else is exact.
    told.scope["metrics"] = [m for m in METRICS if m.aggregate != "mean"]
    ends = sorted({*(min(cut, len(events)) for cut in cuts), len(events)})
    for start, end in zip([0, *ends], ends, strict=False):
        told.load(events[start:end])
        told.look()
    seen = told.look()
    told.rollup.drop()
    assert told.look() == seen


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(allow_nan=False, allow_infinity=False, width=64)),
        max_size=30,
    )
)
def test_sums_are_exact_for_all_doubles(data: list[tuple[int, float]]) -> None:
    codes = np.array([code for code, _ in data], np.int64)
    values = np.array([value for _, value in data], np.float64)
    sums = exact_sums(codes, values)
    for code in {code for code, _ in data}:
        mine = [value.as_integer_ratio() for c, value in data if c == code]
        assert sums[code].n == len(mine)
        assert sums[code].s1 == sum(p * (2**1126 // q) for p, q in mine)
        assert sums[code].s2 == sum((p * (2**1126 // q)) ** 2 for p, q in mine)


@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=50), max_size=5))
def test_units_are_found_where_they_were_put(batches: list[list[int]]) -> None:
    table, known = Units(), {}
    for batch in batches:
        new = [unit for unit in dict.fromkeys(batch) if unit not in known]
        rows = table.add(np.array(new, np.uint64))
        known |= dict(zip(new, rows.tolist(), strict=True))
        asked = [*batch, 6, 7]
        found = table.find(np.array(asked, np.uint64))
        assert found.tolist() == [known.get(unit, -1) for unit in asked]
