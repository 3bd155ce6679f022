"""Events as columns: what is usable is kept, what is not is named, whatever stands beside it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abkit.store.columns import KINDS, flaw_of, part

SOUND: dict[str, list[Any]] = {
    "e": ["e", 1.7e9, "ranker", "unit-1", "new", 1],
    "o": ["o", 1.7e9, "unit-1", "clicks", 2.0, "", ""],
    "d": ["d", 1.7e9, "ranker-v2", 3, json.dumps({"rollout": "ranker-v2", "look": 3})],
}


def changed(kind: str, place: int, value: Any) -> list[Any]:
    record = list(SOUND[kind])
    record[place] = value
    return record


FLAWED = [
    changed("o", 4, math.inf),
    changed("o", 4, -math.inf),
    changed("o", 4, math.nan),
    changed("o", 4, 10**400),
    changed("o", 4, "2.0"),
    changed("o", 4, None),
    changed("o", 4, [2.0]),
    changed("o", 4, {"value": 2.0}),
    changed("o", 1, "9" * 200_000),
    changed("o", 1, 10**4_000),
    changed("o", 1, -1.0),
    changed("o", 1, 1e12),
    changed("o", 1, math.inf),
    changed("o", 1, True),
    changed("o", 2, ""),
    changed("o", 2, "u" * 16_385),
    changed("o", 2, "\ud800"),
    changed("o", 2, 7),
    changed("o", 3, "m" * 257),
    changed("o", 3, "a\0b"),
    changed("o", 5, None),
    changed("e", 2, ""),
    changed("e", 2, "\udfff"),
    changed("e", 4, "v\0"),
    changed("e", 5, 2**31),
    changed("e", 5, -1),
    changed("e", 5, 1.0),
    changed("e", 5, True),
    changed("e", 3, [[[["deep"]]]]),
    SOUND["e"][:5],
    [*SOUND["e"], 1],
    ["e"],
    changed("d", 4, "no JSON"),
    changed("d", 4, "[" * 100_000),
    changed("d", 4, '{"rollout": "ranker-v2", "look": NaN}'),
    changed("d", 4, '{"rollout": "another", "look": 3}'),
    changed("d", 4, "[]"),
    changed("d", 4, {"rollout": "ranker-v2"}),
    changed("d", 3, -3),
    changed("d", 3, 2**40),
]


def rows(*records: list[Any]) -> list[tuple[str, int, list[Any]]]:
    return [("w-1", number, record) for number, record in enumerate(records, 1)]


@pytest.mark.parametrize("record", FLAWED, ids=range(len(FLAWED)))
def test_a_flawed_event_is_named_and_costs_no_other(record: list[Any]) -> None:
    kind = record[0]
    table, flawed = part(kind, rows(SOUND[kind], record, SOUND[kind]))
    assert table is not None
    assert table["sequence"].to_pylist() == [1, 3]
    ((writer, number, reason),) = flawed
    assert (writer, number) == ("w-1", 2)
    assert reason.startswith(KINDS[kind].table)
    assert len(reason) < 60
    assert "unit-1" not in reason


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_event_arrives_as_it_was_logged(kind: str) -> None:
    table, flawed = part(kind, rows(SOUND[kind]))
    assert flawed == []
    assert table is not None
    (row,) = table.to_pylist()
    assert row["time"].timestamp is not None
    values = [row[field.name] for field in KINDS[kind].fields[1:]]
    assert values == SOUND[kind][2:]


def test_times_are_rounded_to_the_nearest_microsecond_and_ties_to_even() -> None:
    seconds = [0.0, 0.0000005, 0.0000015, 1.7e9 + 0.1234565, 1_700_000_000, 253_402_300_799]
    table, _ = part("o", rows(*(changed("o", 1, value) for value in seconds)))
    assert table is not None
    found = [int(value) for value in table["time"].cast("int64").to_pylist()]
    assert found == [round(value * 1e6) for value in seconds]


def test_a_unit_may_hold_any_text_that_an_assignment_may() -> None:
    units = ["a\0b", "é", "u" * 16_384, " ", "'; DROP TABLE exposure; --"]
    table, flawed = part("e", rows(*(changed("e", 3, unit) for unit in units)))
    assert table is not None
    assert table["unit_id"].to_pylist() == units
    assert flawed == []


def test_booleans_and_whole_numbers_are_values() -> None:
    table, flawed = part("o", rows(*(changed("o", 4, value) for value in (True, 3, 2**60, 0.5))))
    assert table is not None
    assert table["value"].to_pylist() == [1.0, 3.0, float(2**60), 0.5]
    assert flawed == []


def test_nothing_usable_leaves_no_columns() -> None:
    table, flawed = part("o", rows(changed("o", 4, "x")))
    assert table is None
    assert len(flawed) == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=4)
    | st.sampled_from(["", "a\0", "\ud800", "x" * 300, 1e999, 2**31, -1]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["e", "o", "d"]),
    st.lists(st.tuples(st.integers(0, 7), JSON), max_size=4),
)
def test_what_becomes_of_an_event_does_not_depend_on_its_neighbours(
    kind: str, changes: list[tuple[int, Any]]
) -> None:
    records = []
    for place, value in changes:
        record = list(SOUND[kind])
        record[1 + place % (len(record) - 1)] = value
        records.append(record[: 6 + place % 3])
    together, _ = part(kind, rows(*records, SOUND[kind]))
    assert together is not None
    kept = set(together["sequence"].to_pylist())
    for _, number, record in rows(*records):
        alone, flawed = part(kind, [("w-1", number, record)])
        assert (alone is not None) == (number in kept) == (not flaw_of(kind, record))
        assert len(flawed) == (number not in kept)
