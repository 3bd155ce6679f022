"""What a look from the rollup reads, corrects and lets go of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from abkit.errors import DataError
from abkit.metrics import Metric
from abkit.moments import Moments
from abkit.store.moments import observe_all
from abkit.store.rollup import Rollup
from abkit.store.rollup.questions import Questions
from abkit.store.rollup.units import Totals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abkit.observation import Observation

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).replace(tzinfo=None)
ERROR = Metric(key="error", kind="proportion", direction="decrease")
REVENUE = Metric(key="revenue", aggregate="sum", missing="zero")
SCORE = Metric(key="score")


class Events:
    """An event store that is filled by hand; times are seconds after noon."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.rollup = Rollup(connection)
        self.load = 1
        self.scope: dict[str, Any] = {
            "experiment": "ranker",
            "epochs": (1, 2),
            "metrics": (ERROR, REVENUE, SCORE),
            "control": "old",
            "treatment": "new",
            "now": 0.0,
        }
        self._sequences = count(1)

    def _insert(self, table: str, writer: str, seconds: float, names: str, *body: object) -> None:
        time = NOON + timedelta(seconds=seconds)
        row = [self.load, writer, next(self._sequences), time, time, *body]
        self.connection.execute(
            f"INSERT INTO {table} (load, writer, sequence, time, received, {names}) "  # noqa: S608
            f"VALUES ({', '.join('?' * len(row))})",
            row,
        )

    def expose(
        self, unit: str, variant: str, at: float, *, epoch: int = 1, writer: str = "a"
    ) -> None:
        names = "experiment, unit_id, variant, epoch"
        self._insert("exposure", writer, at, names, "ranker", unit, variant, epoch)

    def record(
        self,
        unit: str,
        metric: str,
        value: float,
        at: float,
        *,
        writer: str = "a",
        answer: str = "",
    ) -> None:
        names = "unit_id, metric, value, experiment, variant"
        experiment = "ranker" if answer else ""
        self._insert("outcome", writer, at, names, unit, metric, value, experiment, answer)

    def look(self, **changes: Any) -> Observation:
        """Look; what is inserted from now on is of the next load."""
        seen = self.rollup.observe(**(self.scope | changes), load=self.load)
        assert seen == observe_all(self.connection, **(self.scope | changes))
        self.load += 1
        return seen


@pytest.fixture
def events() -> Iterator[Events]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(files("abkit.store").joinpath("schema.sql").read_text(encoding="utf-8"))
        yield Events(connection)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, int], int | None]]:
    """Loads of outcomes that were read, and since when."""
    calls: list[tuple[tuple[int, int], int | None]] = []
    outcomes = Questions.outcomes

    def spy(self: Questions, loads: tuple[int, int], **limits: Any) -> Any:
        calls.append((loads, limits.get("since")))
        return outcomes(self, loads, **limits)

    monkeypatch.setattr(Questions, "outcomes", spy)
    return calls


def test_a_look_at_known_units_reads_new_loads_only(
    events: Events, asked: list[tuple[tuple[int, int], int | None]]
) -> None:
    events.expose("u", "new", 0)
    events.look()
    events.record("u", "error", 1.0, 10)
    events.expose("u", "new", 11)
    asked.clear()
    assert events.look().values["error"] == {1: {"new": Moments(1, 1.0, 0.0)}}
    assert asked == [((2, 2), None)]


def test_a_look_without_news_reads_nothing(
    events: Events, asked: list[tuple[tuple[int, int], int | None]]
) -> None:
    events.expose("u", "new", 0)
    first = events.look()
    asked.clear()
    assert events.rollup.observe(**events.scope, load=1) == first
    assert asked == []


def test_outcomes_that_were_there_before_the_exposure_are_found(
    events: Events, asked: list[tuple[tuple[int, int], int | None]]
) -> None:
    events.record("u", "revenue", 2.0, -60)
    events.record("u", "revenue", 4.0, -60.000001)
    events.look()
    events.expose("u", "old", 0)
    asked.clear()
    assert events.look().values["revenue"] == {1: {"old": Moments(1, 2.0, 0.0)}}
    minute_before = int((NOON - timedelta(seconds=60)).replace(tzinfo=UTC).timestamp() * 1e6)
    assert asked == [((0, 1), minute_before), ((2, 2), None)]


def test_an_exposure_that_arrives_late_moves_its_unit_to_the_arm_of_then(events: Events) -> None:
    events.expose("u", "old", 100)
    events.record("u", "score", 3.0, 20)
    events.record("u", "score", 5.0, 150)
    assert events.look().values["score"] == {1: {"old": Moments(1, 5.0, 0.0)}}
    events.expose("u", "new", 50)
    seen = events.look()
    assert seen.exposures == {1: {"new": 1}}
    assert seen.values["score"] == {1: {"new": Moments(1, 3.0, 0.0)}}


def test_a_crossing_that_arrives_late_takes_back_what_came_after_it(events: Events) -> None:
    for unit in ("u", "v"):
        events.expose(unit, "old", 0)
        events.record(unit, "revenue", 1.0, 10)
    events.record("u", "revenue", 8.0, 50)
    assert events.look().values["revenue"][1]["old"].total == 10.0
    events.expose("u", "new", 50)
    assert events.look().values["revenue"][1]["old"].total == 2.0


def test_sums_stop_when_the_next_epoch_turns_out_to_have_begun(events: Events) -> None:
    for unit in ("u", "v"):
        events.expose(unit, "old", 0)
        events.record(unit, "revenue", 1.0, 10)
        events.record(unit, "score", 1.0, 10)
    events.record("u", "revenue", 8.0, 60)
    events.record("u", "score", 8.0, 60)
    events.look()
    events.expose("w", "new", 70, epoch=2)
    assert events.look().values["revenue"][1]["old"].total == 10.0
    events.expose("x", "new", 60, epoch=2)
    seen = events.look()
    assert seen.values["revenue"][1]["old"].total == 2.0
    assert seen.values["score"][1]["old"].total == 9.0


def test_the_order_of_writers_decides_between_events_of_one_time(events: Events) -> None:
    events.expose("u", "old", 0, writer="b")
    events.record("u", "score", 1.0, 5, writer="b")
    events.look()
    events.expose("u", "new", 0, writer="a")
    events.record("u", "score", 2.0, 5, writer="a")
    events.expose("v", "old", 0, writer="a")
    events.record("v", "score", 3.0, 0, writer="b")
    events.record("v", "score", 4.0, 0, writer="a")
    seen = events.look()
    assert seen.exposures == {1: {"new": 1, "old": 1}}
    assert seen.values["score"] == {1: {"old": Moments(1, 3.0, 0.0)}}


def test_the_order_of_writers_decides_the_epoch_of_a_unit_too(events: Events) -> None:
    events.expose("u", "old", 0, epoch=2, writer="b")
    events.record("u", "revenue", 1.0, 5)
    assert events.look().exposures == {2: {"old": 1}}
    events.expose("u", "old", 0, epoch=1, writer="a")
    events.expose("v", "old", 0, epoch=1, writer="a")
    events.expose("v", "old", 0, epoch=2, writer="b")
    seen = events.look()
    assert seen.exposures == {1: {"old": 2}}
    assert "revenue" not in seen.values  # the next epoch has begun before it


@pytest.mark.parametrize(("first", "second", "last"), [("a", "b", 2.0), ("b", "a", 1.0)])
def test_the_order_of_writers_decides_across_looks(
    events: Events, first: str, second: str, last: float
) -> None:
    events.expose("u", "old", 0)
    events.record("u", "score", 1.0, 5, writer=first)
    events.look()
    events.record("u", "score", 2.0, 5, writer=second)
    assert events.look().values["score"][1]["old"].mean == last


def test_an_earlier_exposure_to_the_same_arm_lets_earlier_outcomes_count(events: Events) -> None:
    events.record("u", "revenue", 1.0, 0)
    events.expose("u", "old", 100)
    assert "revenue" not in events.look().values
    events.expose("u", "old", 60)
    assert events.look().values["revenue"] == {1: {"old": Moments(1, 1.0, 0.0)}}


def test_shadow_answers_count_after_a_crossing_and_after_the_epoch(events: Events) -> None:
    events.expose("u", "old", 0)
    events.expose("u", "new", 5, epoch=2)
    events.look()
    events.record("u", "revenue", 1.0, 6, answer="old")
    events.record("u", "revenue", 3.0, 6, answer="new")
    assert events.look().pairs["revenue"].difference == Moments(1, 2.0, 0.0)


def test_epochs_that_open_later_bring_their_events_with_them(events: Events) -> None:
    events.expose("u", "new", 0, epoch=3)
    events.expose("v", "new", 10, epoch=2)
    events.record("u", "error", 1.0, 20)
    assert events.look().exposures == {2: {"new": 1}}
    seen = events.look(epochs=(1, 3))
    assert seen.exposures == {2: {"new": 1}, 3: {"new": 1}}
    assert events.look(epochs=(1, 2)).exposures == {2: {"new": 1}}


def test_shadow_answers_pair_up_across_looks(events: Events) -> None:
    events.expose("u", "old", 0)
    events.record("u", "score", 1.0, 1, answer="old")
    assert events.look().pairs == {}
    events.record("u", "score", 3.0, 2, answer="new")
    pair = events.look().pairs["score"]
    assert (pair.difference, pair.control) == (Moments(1, 2.0, 0.0), Moments(1, 1.0, 0.0))
    events.record("u", "score", 4.0, 3, answer="new")
    events.expose("v", "old", 4)
    events.record("v", "score", 4.0, 5, answer="old")
    assert events.look().pairs["score"].difference == Moments(1, 3.0, 0.0)
    assert all(held.scope for held in events.rollup._held.values())


def test_thousands_of_units_are_all_found_again(events: Events) -> None:
    insert = (
        "INSERT INTO {0} (load, writer, sequence, time, received, unit_id, {1}) SELECT ?, 'a', i, "
        "'2026-03-01'::TIMESTAMP + to_seconds(i), '2026-03-01', 'unit-' || i, {2} "
        "FROM range(?) t(i)"
    )
    exposure = insert.format(
        "exposure", "experiment, variant, epoch", "'ranker', if(i % 2 = 0, 'old', 'new'), 1"
    )
    outcome = insert.format(
        "outcome", "experiment, variant, metric, value", "'', '', 'error', (i % 3 = 0)::INTEGER"
    )
    for units in (900, 3_000, 7_000):
        events.connection.execute(exposure, [events.load, units])
        events.connection.execute(outcome, [events.load, units])
        observation = events.rollup.observe(**events.scope, load=events.load)
        assert observation.total_units == units
        bad = observation.values["error"][1]
        assert bad["old"].successes + bad["new"].successes == len(range(0, units, 3))
        events.load += 1


def test_values_without_an_exact_sum_are_left_to_the_definition(events: Events) -> None:
    events.expose("u", "old", 0)
    events.record("u", "score", float("inf"), 1)
    with pytest.raises(DataError):
        events.rollup.observe(**events.scope, load=1)
    events.record("u", "score", 2.0, 2)
    assert events.look().values["score"][1]["old"].mean == 2.0
    events.record("u", "score", 3.0, 3)
    assert events.look().values["score"][1]["old"].mean == 3.0


def test_a_look_that_fails_half_way_leaves_nothing_behind(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.expose("u", "old", 0)
    events.record("u", "revenue", 1.0, 1)
    events.look()
    events.record("u", "revenue", 2.0, 2)
    apply = Totals.apply

    def fail(self: Totals, *columns: Any) -> Any:
        apply(self, *columns)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Totals, "apply", fail)
        with pytest.raises(KeyboardInterrupt):
            events.rollup.observe(**events.scope, load=events.load)
    assert events.look().values["revenue"][1]["old"].total == 3.0


def test_removed_events_are_gone_once_the_rollup_is_dropped(events: Events) -> None:
    for unit in ("u", "v"):
        events.expose(unit, "old", 0)
        events.record(unit, "revenue", 1.0, 1)
    events.look()
    for table in ("exposure", "outcome"):
        events.connection.execute(f"DELETE FROM {table} WHERE unit_id = 'u'")  # noqa: S608
    events.rollup.drop("another")
    assert events.rollup.observe(**events.scope, load=1).total_units == 2
    events.rollup.rebuild(load=1, experiment="ranker")
    assert events.look().total_units == 1


def test_scopes_of_rollouts_that_are_over_are_let_go(events: Events) -> None:
    events.expose("u", "old", 0)
    events.look(experiment="over")
    for _ in range(200):
        events.rollup.observe(**events.scope, load=events.load)
    assert [definition.experiment for definition in events.rollup._held] == ["ranker"]


SLOW = Metric(key="slow", source="score", above=200.0, direction="decrease")
SOON = Metric(key="soon", source="error", above=0.0, missing="zero", window_seconds=60.0)


def at(seconds: float) -> float:
    return NOON.replace(tzinfo=UTC).timestamp() + seconds


def test_a_threshold_is_applied_to_the_one_number_of_a_unit(events: Events) -> None:
    metrics = (SLOW, Metric(key="fast", source="score", below=200.25, aggregate="last"))
    units = {"u": [100.0, 201.0], "v": [200.0], "w": [300.0, 50.0], "x": [200.5]}
    for unit, values in units.items():
        events.expose(unit, "new", 0)
        for i, value in enumerate(values):
            events.record(unit, "score", value, 1 + i)
    events.expose("silent", "new", 0)
    seen = events.look(metrics=metrics)
    assert seen.values["slow"][1]["new"] == Moments.of_counts(4, 3)
    assert seen.values["fast"][1]["new"] == Moments.of_counts(4, 2)
    events.record("v", "score", 500.0, 9)
    assert events.look(metrics=(SLOW,)).values["slow"][1]["new"] == Moments.of_counts(4, 4)


def test_a_unit_counts_once_its_window_is_over(events: Events) -> None:
    scope = {"metrics": (SOON,)}
    for unit, since in {"u": 0, "v": 0, "w": 30}.items():
        events.expose(unit, "new", since)
    events.record("u", "error", 1.0, 59.999999)
    events.record("v", "error", 1.0, 60)
    assert events.look(**scope, now=at(59.9)).values == {}
    assert events.look(**scope, now=at(60)).values["soon"][1]["new"] == Moments.of_counts(2, 1)
    later = events.look(**scope, now=at(90)).values["soon"][1]["new"]
    assert (later.n, later.successes) == (3, 1)
    assert events.look(**scope, now=at(70)).values["soon"][1]["new"] == Moments.of_counts(2, 1)
    assert all(held.scope for held in events.rollup._held.values())


def test_time_alone_ends_a_window_without_reading_events(
    events: Events, asked: list[tuple[tuple[int, int], int | None]]
) -> None:
    events.expose("u", "new", 0)
    events.record("u", "error", 1.0, 5)
    first = events.rollup.observe(**(events.scope | {"metrics": (SOON,), "now": at(9)}), load=1)
    asked.clear()
    second = events.rollup.observe(**(events.scope | {"metrics": (SOON,), "now": at(99)}), load=1)
    assert (first.values, second.values["soon"][1]["new"].n) == ({}, 1)
    assert [loads for loads, _ in asked] == [(2, 1)]  # of loads that are not there


def test_units_that_come_back_are_told_from_those_that_have_gone_over(events: Events) -> None:
    for unit, variant in {"a": "old", "b": "old", "c": "old", "d": "new"}.items():
        events.expose(unit, variant, 0)
    seen = events.look(epochs=(1, 1))
    assert (seen.returned, seen.live) == ({1: {"old": 3, "new": 1}}, 1)
    events.expose("a", "old", 10, epoch=2)
    events.expose("b", "new", 11, epoch=2)
    events.expose("d", "new", 12, epoch=2)
    events.expose("e", "new", 13, epoch=2)
    seen = events.look()
    assert seen.exposures == {1: {"old": 3, "new": 1}, 2: {"new": 1}}
    assert (seen.returned, seen.live) == ({1: {"old": 1, "new": 1}, 2: {"new": 1}}, 3)
