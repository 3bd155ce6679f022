"""Events of one kind as columns, and the records that are none.

Whether a record is sound depends on nothing but the record: a store that is rebuilt in other
batches must hold the same rows. Whole columns are checked first, which costs next to nothing;
only where something is off is every record looked at.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from abkit.assignment import MAX_UNIT_CHARACTERS
from abkit.events import DECISION, EXPOSURE, OUTCOME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_NAME_CHARACTERS: Final = 256
MAX_DECISION_CHARACTERS: Final = 2**18
MAX_INTEGER: Final = 2**31 - 1
MAX_SECONDS: Final = 253_402_300_799.0  # the end of the year 9999
MICROSECONDS: Final = 1_000_000
TEXT, TIME, SEQUENCE = pa.string(), pa.timestamp("us"), pa.uint64()
HEAD: Final = ("writer", "sequence", "time")

# (writer, sequence, record), and why the record is not usable.
Row = tuple[str, int, list[Any]]
Flawed = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    Args:
        name: of the column.
        types: the Python types that JSON may have made of it.
        type: of the column.
        flaw: what is wrong with a value of one of the types; "" if nothing is.
        is_sound: the same for a whole column.
        convert: turns a sound value into what the column takes.
    """

    name: str
    types: frozenset[type]
    type: pa.DataType
    flaw: Callable[[Any], str]
    is_sound: Callable[[pa.Array], bool]
    convert: Callable[[Any], Any]


def _text(name: str, *, least: int, most: int, may_hold_nul: bool = False) -> Field:
    def flaw(value: str) -> str:
        if not least <= len(value) <= most:
            return "too long" if value else "empty"
        if "\0" in value and not may_hold_nul:
            return "not printable"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "no Unicode text"
        return ""

    def is_sound(column: pa.Array) -> bool:
        lengths = pc.min_max(pc.utf8_length(column)).as_py()
        if lengths["min"] < least or lengths["max"] > most:
            return False
        return may_hold_nul or not pc.any(pc.match_substring(column, "\0")).as_py()

    return Field(name, frozenset({str}), TEXT, flaw, is_sound, str)


def _integer(name: str) -> Field:
    def flaw(value: int) -> str:
        return "" if 0 <= value <= MAX_INTEGER else "out of range"

    def is_sound(column: pa.Array) -> bool:
        return bool(pc.min(column).as_py() >= 0)

    return Field(name, frozenset({int}), pa.int32(), flaw, is_sound, int)


def _number(name: str) -> Field:
    def flaw(value: float) -> str:
        try:
            return "" if math.isfinite(value) else "not finite"
        except OverflowError:  # an integer beyond any float
            return "not finite"

    def is_sound(column: pa.Array) -> bool:
        return bool(pc.all(pc.is_finite(column)).as_py())

    return Field(name, frozenset({float, int, bool}), pa.float64(), flaw, is_sound, float)


def _seconds() -> Field:
    def flaw(value: float) -> str:
        return "" if 0 <= value <= MAX_SECONDS else "out of range"  # NaN is neither

    def is_sound(column: pa.Array) -> bool:
        ends = pc.min_max(column).as_py()
        is_finite = bool(pc.all(pc.is_finite(column)).as_py())
        return is_finite and ends["min"] >= 0 and ends["max"] <= MAX_SECONDS

    return Field("time", frozenset({float, int}), pa.float64(), flaw, is_sound, float)


def _name(name: str, *, least: int = 1) -> Field:
    return _text(name, least=least, most=MAX_NAME_CHARACTERS)


_UNIT = _text("unit_id", least=1, most=MAX_UNIT_CHARACTERS, may_hold_nul=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of event.

    Args:
        table: of the store.
        fields: in the order of `to_record`, after the name of the kind; the time comes first.
    """

    table: str
    fields: tuple[Field, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold what was logged."""
        return (*HEAD, *(field.name for field in self.fields[1:]))


KINDS: Final = {
    EXPOSURE: Kind(
        "exposure",
        (
            _seconds(),
            _name("experiment"),
            _UNIT,
            _name("variant"),
            _integer("epoch"),
        ),
    ),
    OUTCOME: Kind(
        "outcome",
        (
            _seconds(),
            _UNIT,
            _name("metric"),
            _number("value"),
            _name("experiment", least=0),
            _name("variant", least=0),
        ),
    ),
    DECISION: Kind(
        "decision",
        (
            _seconds(),
            _name("rollout"),
            _integer("look"),
            _text("record", least=1, most=MAX_DECISION_CHARACTERS),
        ),
    ),
}


def part(kind: str, rows: list[Row]) -> tuple[pa.Table | None, list[Flawed]]:
    """Columns of the sound events of one kind, and what is wrong with the others.

    Args:
        kind: a key of `KINDS`.
        rows: events of this kind.

    Returns:
        The columns writer, sequence, time and those of the kind, or None if nothing is left;
        and the events that are not usable, with the reason, which quotes nothing of them.
    """
    fields = KINDS[kind].fields
    if kind != DECISION:  # of which there are few, and each is to be parsed
        table = _whole(rows, fields)
        if table is not None:
            return table, []
    sound: list[Row] = []
    flawed: list[Flawed] = []
    for writer, sequence, record in rows:
        reason = flaw_of(kind, record)
        if reason:
            flawed.append((writer, sequence, reason))
        else:
            clean = [field.convert(value) for field, value in zip(fields, record[1:], strict=True)]
            sound.append((writer, sequence, [kind, *clean]))
    return _whole(sound, fields) if sound else None, flawed


def flaw_of(kind: str, record: list[Any]) -> str:
    """What makes a record of a known kind unusable, without quoting it; "" if nothing does."""
    fields = KINDS[kind].fields
    name = KINDS[kind].table
    if len(record) != len(fields) + 1:
        return f"{name} of {len(record)} fields"
    for field, value in zip(fields, record[1:], strict=True):
        if type(value) not in field.types:
            return f"{name}: {field.name} of another type"
        reason = field.flaw(value)
        if reason:
            return f"{name}: {field.name} is {reason}"
    return _flaw_of_decision(record) if kind == DECISION else ""


def _flaw_of_decision(record: list[Any]) -> str:
    _, _, rollout, look, text = record
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "decision: record is no JSON"
    match found:
        case {"rollout": str(named), "look": int(number)} if (named, number) == (rollout, look):
            return ""
    return "decision: record is of another look"


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _whole(rows: Iterable[Row], fields: tuple[Field, ...]) -> pa.Table | None:
    """All rows as columns; None if any of them is not sound."""
    writers, sequences, records = zip(*rows, strict=True)
    if set(map(len, records)) != {len(fields) + 1}:
        return None
    _, *columns = zip(*records, strict=True)
    arrays = []
    try:
        for field, values in zip(fields, columns, strict=True):
            if not set(map(type, values)) <= field.types:
                return None
            array = pa.array(values, field.type)
            if not field.is_sound(array):
                return None
            arrays.append(array)
    except (pa.ArrowException, ValueError, OverflowError):
        return None
    micros = pc.round(pc.multiply(arrays[0], float(MICROSECONDS)))
    time = micros.cast(pa.int64()).cast(TIME)
    head = [pa.array(writers, TEXT), pa.array(sequences, SEQUENCE), time]
    return pa.table([*head, *arrays[1:]], names=[*HEAD, *(field.name for field in fields[1:])])
