"""When the rows of a table came: which moments to look at, and the look that first sees a row.

A look is a moment, never a row number: rows of one moment are seen together, so that the order of
the rows does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from abkit.errors import ConfigError, DataError
from abkit.records import check_choice, check_count, counted, is_number
from abkit.store.sql import quoted

if TYPE_CHECKING:
    import duckdb

Spacing = Literal["units", "time"]
Moment = float | datetime

MOST_LOOKS: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - naive, as DuckDB's timestamps are
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Looks:
    """Which moments a table is looked at.

    Args:
        column: column of the time at which a row is complete: timestamps, dates or numbers.
        at: number of looks, in [1, 1000], or the moments themselves: datetimes, dates, texts in ISO
            format, or numbers where the column holds numbers.
        spacing: where a number is given: "units" for as many rows from look to look, "time" for as
            much time.

    Raises:
        ConfigError: a field is unusable.
    """

    column: str
    at: int | tuple[object, ...]
    spacing: Spacing = "units"

    def __post_init__(self) -> None:
        """Reject what cannot be looked at."""
        check_choice("looks", "spacing", self.spacing, get_args(Spacing))
        if isinstance(self.at, tuple):
            if not self.at:
                raise ConfigError("looks: a list of moments needs at least one")
            number = len(self.at)
        else:
            check_count("analyze", "looks", self.at, least=1)
            number = self.at
        if number > MOST_LOOKS:
            raise ConfigError(f"{number:,} looks are more than {MOST_LOOKS:,}; take fewer")


@dataclass(frozen=True, slots=True)
class Cuts:
    """The looks of one table.

    Args:
        sql: SQL expression of the look that first sees a row, from 1.
        moments: of each look, rising; datetimes are UTC without saying so.
        late: rows after the last look, which nobody sees.
    """

    sql: str
    moments: tuple[Moment, ...]
    late: int


def cut(connection: duckdb.DuckDBPyConnection, looks: Looks) -> Cuts:
    """Find the looks of the table `data`, and drop the rows after the last one.

    Args:
        connection: where the table is.
        looks: what was asked for. Where many rows share a moment, looks may fall together.

    Raises:
        DataError: the column holds no time, or lacks it in some rows.
        ConfigError: a moment that was given is none.
    """
    tick, timed = tick_sql(connection, looks.column)
    bad = _one(connection, f"count(*) - count(*) FILTER (isfinite({tick}))")
    if bad:
        raise DataError(
            f"time {looks.column!r} is missing or infinite in {counted(bad, 'row')}; drop or fill "
            "each"
        )
    if isinstance(looks.at, tuple):
        edges = sorted({_given(moment, timed=timed, column=looks.column) for moment in looks.at})
    elif looks.spacing == "units":
        levels = ", ".join(repr(k / looks.at) for k in range(1, looks.at + 1))
        edges = sorted(set(_one(connection, f"quantile_disc({tick}, [{levels}])")))
    else:
        first, last = _one(connection, f"[min({tick}), max({tick})]")
        edges = [first + (last - first) * (k / looks.at) for k in range(1, looks.at)]
        edges = sorted({*([math.floor(x) for x in edges] if timed else edges), last})
    late = _one(connection, f"count(*) FILTER ({tick} > {edges[-1]!r})")
    if late == _one(connection, "count(*)"):
        raise DataError(f"no row came by the last look; see the moments of {looks.column!r}")
    if late:
        connection.execute(f"DELETE FROM data WHERE {tick} > {edges[-1]!r}")  # noqa: S608
    moments = tuple(_EPOCH + x * _MICROSECOND if timed else x for x in edges)
    return Cuts(_branch(tick, edges, 0, len(edges) - 1), moments, late)


def tick_sql(connection: duckdb.DuckDBPyConnection, column: str) -> tuple[str, bool]:
    """The column as a number in SQL, and whether it counts microseconds since 1970."""
    row = connection.execute(f"SELECT typeof({quoted(column)}) FROM data LIMIT 1").fetchone()  # noqa: S608
    kind = str(row[0]) if row is not None else ""
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        x = quoted(column)
        return f"CASE WHEN isfinite({x}) THEN epoch_us({x})::DOUBLE END", True
    if kind.startswith("DECIMAL") or kind.endswith(("FLOAT", "DOUBLE", "INT", "INTEGER")):
        return f"CAST({quoted(column)} AS DOUBLE)", False
    raise DataError(
        f"time {column!r} holds {kind}, no timestamps, dates or numbers; cast it beforehand"
    )


def _one(connection: duckdb.DuckDBPyConnection, expression: str) -> Any:
    row = connection.execute(f"SELECT {expression} FROM data").fetchone()  # noqa: S608
    return None if row is None else row[0]


def _given(moment: object, *, timed: bool, column: str) -> float:
    """A moment that was named, as a number."""
    if not timed:
        number = moment
        if isinstance(moment, str):
            try:
                number = float(moment)
            except ValueError:
                number = None
        if not is_number(number):
            raise ConfigError(f"looks: {moment!r} is no number, as {column!r} holds")
        return float(number)  # type: ignore[arg-type]
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - UTC by definition
    if not isinstance(moment, datetime):
        try:
            moment = datetime.fromisoformat(str(moment))
        except ValueError:
            raise ConfigError(
                f"looks: {moment!r} is no moment; write 2026-03-01 or 2026-03-01T12:00"
            ) from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return float((moment - _EPOCH) // _MICROSECOND)


def _branch(tick: str, edges: list[float], low: int, high: int) -> str:
    """Binary search as SQL: the first look whose moment is not before the row."""
    if low == high:
        return str(low + 1)
    middle = (low + high) // 2
    return (
        f"CASE WHEN {tick} <= {float(edges[middle])!r} THEN {_branch(tick, edges, low, middle)} "
        f"ELSE {_branch(tick, edges, middle + 1, high)} END"
    )
