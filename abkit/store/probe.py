"""What the checks of a report need beyond its moments, by one query whatever their number.

Extreme values with their units, rows by segment and variant, moments by slice of time, days of
the week, and what was delivered: each is a grouping set of the same pass over the table.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from abkit.moments import Moments
from abkit.store.cells import ABSENT, shifts_of, usable
from abkit.store.looks import tick_sql
from abkit.store.sql import cast_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.store.table import UnitTable

SLICES: Final = 40  # of the time from the first row to the last
_DAY_MICROSECONDS: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Extreme:
    """A unit with the largest or the smallest value of its arm.

    Args:
        unit: its id, as text.
        value: its value, within the caps.
    """

    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a table covers.

    Args:
        first: time of the first row, in UTC or in the unit of the column.
        last: of the last.
        weekdays: rows of each day of the week, 1 for Monday; empty where time is a number.
    """

    first: datetime | float
    last: datetime | float
    weekdays: Mapping[int, int]

    @property
    def days(self) -> float | None:
        """How long it is; None where time is a number."""
        if isinstance(self.first, datetime) and isinstance(self.last, datetime):
            return (self.last - self.first).total_seconds() / 86_400
        return None


@dataclass(slots=True)
class Probe:
    """What was found.

    Args:
        extremes: the two ends of each metric, by metric, variant and epoch.
        segments: rows by column and value of the segment, and by variant.
        slices: moments by slice of time, metric and variant.
        middles: mean time of the rows of each slice; in days since the first row, or in the unit
            of the column.
        span: the time covered; None without a time.
        delivered: rows by variant and by what was delivered.
    """

    extremes: dict[tuple[str, str, str], list[Extreme]] = field(default_factory=dict)
    segments: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    slices: dict[int, dict[str, dict[str, Moments]]] = field(default_factory=dict)
    middles: dict[int, float] = field(default_factory=dict)
    span: Span | None = None
    delivered: dict[str, dict[str, int]] = field(default_factory=dict)


def probe(
    table: UnitTable,
    *,
    means: Sequence[str],
    metrics: Sequence[str],
    caps: Mapping[str, tuple[float, float]],
    delivered: str | None = None,
) -> Probe:
    """Read what checks need; nothing is asked where none of them applies.

    Args:
        table: what was loaded.
        means: metrics whose extreme units are wanted.
        metrics: metrics that are wanted by slice of time.
        caps: lowest and highest value of columns that are winsorised.
        delivered: column of what a unit really met.
    """
    columns = table.columns
    sets = ["(v, e)"] if means else []
    sets += [f"(v, s{i})" for i in range(len(columns.segments))]
    sets += ["(v, b)", "(d)"] if columns.time is not None else []
    sets += ["(v, m)"] if delivered is not None else []
    if not sets:
        return Probe()
    names = list(dict.fromkeys([*means, *(metrics if columns.time is not None else [])]))
    query = _query(table, names, means, sets, caps, delivered)
    rows = table.connection.execute(query).fetchall()
    return _read(table, rows, names, means)


def _query(  # noqa: PLR0917 - the parts of one query
    table: UnitTable,
    names: Sequence[str],
    means: Sequence[str],
    sets: Sequence[str],
    caps: Mapping[str, tuple[float, float]],
    delivered: str | None,
) -> str:
    columns = table.columns
    tick, is_time = (
        ("NULL::DOUBLE", False)
        if columns.time is None
        else tick_sql(table.connection, columns.time)
    )
    shifts = shifts_of(table.connection, names) if names else {}
    epoch = "''" if columns.epoch is None else cast_text(columns.epoch)
    met = "NULL" if delivered is None else f"coalesce({cast_text(delivered)}, '{ABSENT}')"
    shown = [f"{cast_text(columns.variant)} AS v", f"{epoch} AS e", f"{met} AS m"]
    shown += [f"CASE WHEN isfinite({tick}) THEN {tick} END AS t", f"{cast_text(columns.unit)} AS u"]
    shown += [
        f"coalesce({cast_text(name)}, '{ABSENT}') AS s{i}"
        for i, name in enumerate(columns.segments)
    ]
    shown += [
        f"{usable(name, table.missing, caps.get(name))} - '{shifts[name]!r}'::DOUBLE AS c{i}"
        for i, name in enumerate(names)
    ]
    groups = ["v", "e", "b", "d", "m", *(f"s{i}" for i in range(len(columns.segments)))]
    used = set(re.findall(r"\w+", " ".join(sets)))
    parts = [f"grouping({name})" if name in used else "1" for name in groups]
    groups = [name if name in used else "NULL" for name in groups]
    parts += ["count(*)", "min(t)", "max(t)", "avg(t)"]
    for i, name in enumerate(names):
        parts += [f"'{shifts[name]!r}'::DOUBLE", f"count(c{i})", f"favg(c{i})", f"var_pop(c{i})"]
        if name in means:
            parts += [f"max(c{i})", f"arg_max(u, c{i})", f"min(c{i})", f"arg_min(u, c{i})"]
    # least() passes over NULL, so a row without a time is looked for first.
    sliced, edge = "NULL::INTEGER", "SELECT NULL AS lo, NULL AS hi"
    if columns.time is not None:
        edge = "SELECT min(t) AS lo, max(t) AS hi FROM shown"
        sliced = (
            "CASE WHEN t IS NULL THEN NULL WHEN hi > lo THEN "
            f"least({SLICES - 1}, floor({SLICES} * ((t - lo) / (hi - lo)))) ELSE 0 END::INTEGER"
        )
    day = f"1 + (floor(t / {_DAY_MICROSECONDS})::BIGINT + 3) % 7" if is_time else "NULL"
    return (
        f"WITH shown AS (SELECT {', '.join(shown)} FROM data), "  # noqa: S608 - quoted names
        f"edge AS ({edge}) "
        f"SELECT {', '.join([*groups, *parts])} "
        f"FROM (SELECT *, {sliced} AS b, {day} AS d FROM shown, edge) "
        f"GROUP BY GROUPING SETS ({', '.join(sets)})"
    )


def _read(
    table: UnitTable, rows: Sequence[Sequence[Any]], names: Sequence[str], means: Sequence[str]
) -> Probe:
    """Each row belongs to the grouping set whose columns it was grouped by."""
    found, days = Probe(), Counter[int]()
    times: dict[int, list[tuple[Any, ...]]] = {}
    k = 5 + len(table.columns.segments)
    for row in rows:
        variant, epoch, bucket, day, met = row[:5]
        by = {place for place in range(k) if row[k + place] == 0}
        values = row[2 * k + 4 :]
        if by == {0, 1}:
            _extremes(found, (variant, epoch), values, names, means)
        elif by == {0, 2}:
            if bucket is not None:
                times.setdefault(bucket, []).append(tuple(row[2 * k : 2 * k + 4]))
                found.slices.setdefault(bucket, {})[variant] = _moments(values, names, means)
        elif by == {3}:
            days.update({} if day is None else {int(day): row[2 * k]})
        elif by == {0, 4}:
            found.delivered.setdefault(variant, {})[met] = row[2 * k]
        else:
            (place,) = by - {0}
            column = table.columns.segments[place - 5]
            found.segments.setdefault((column, row[place]), {})[variant] = row[2 * k]
    _timed(found, times, days)
    return found


def _timed(
    found: Probe,
    times: Mapping[int, Sequence[tuple[Any, ...]]],
    days: Counter[int],
) -> None:
    """Middles of the slices, and the span: of rows, first, last and mean time by slice."""
    if not times:
        return
    lo = min(first for slice_ in times.values() for _, first, _, _ in slice_)
    hi = max(last for slice_ in times.values() for _, _, last, _ in slice_)
    found.slices = dict(sorted(found.slices.items()))
    for bucket in found.slices:
        total = sum(n for n, *_ in times[bucket])
        mean = sum(n / total * middle for n, _, _, middle in times[bucket])
        found.middles[bucket] = (mean - lo) / _DAY_MICROSECONDS if days else mean
    if days:
        first, last = (datetime.fromtimestamp(x / 1e6, UTC).replace(tzinfo=None) for x in (lo, hi))
        found.span = Span(first, last, dict(sorted(days.items())))
    else:
        found.span = Span(lo, hi, {})


def _moments(
    values: Sequence[Any], names: Sequence[str], means: Sequence[str]
) -> dict[str, Moments]:
    found, place = {}, 0
    for name in names:
        shift, n, mean, variance = values[place : place + 4]
        place += 8 if name in means else 4
        found[name] = Moments(int(n), shift + mean, max(0.0, variance * n)) if n else Moments()
    return found


def _extremes(
    found: Probe,
    where: tuple[str, str],
    values: Sequence[Any],
    names: Sequence[str],
    means: Sequence[str],
) -> None:
    place = 0
    for name in names:
        shift, n = values[place : place + 2]
        if name in means:
            high, who_high, low, who_low = values[place + 4 : place + 8]
            if n:
                found.extremes[name, *where] = [
                    Extreme(who_high, shift + high),
                    Extreme(who_low, shift + low),
                ]
        place += 8 if name in means else 4
