"""Joint moments of all columns in every cell of a table, by one query whatever their number.

Aggregates that several metrics need (the spread of a shared covariate, say) are asked for once.
Every column is shifted by the median of its first rows before its squares are summed: the
difference of two close floats is exact, so that a mean of 1.7e9 costs no digit of the variance.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from abkit.comoments import Comoments
from abkit.errors import DataError
from abkit.records import counted
from abkit.store.sql import cast_text, first_line, quoted

try:
    import duckdb
except ImportError as error:
    from abkit.errors import MissingExtraError

    msg = "analysis needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

MOST_LABELS: Final = 200  # values of a segment or epoch; more are an identifier, not a group
_FIRST_ROWS: Final = 1_001
ABSENT: Final = "(missing)"


class Key(NamedTuple):
    """A cell of the table.

    Args:
        variant: its variant.
        epoch: its allocation epoch; empty where the table has none.
        segment: column of the segment; empty for all units.
        value: value of that column.
        look: the look that first sees it, from 1; 0 where there is one look only.
    """

    variant: str
    epoch: str = ""
    segment: str = ""
    value: str = ""
    look: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the values of a column are like, before caps.

    Args:
        missing: rows without a value, by variant.
        infinite: rows with an infinite one.
        binary: whether all are 0 or 1.
        other: a value that is neither, if there is one.
        capped: rows that the caps change, by variant.
    """

    missing: Mapping[str, int]
    infinite: int
    binary: bool
    other: float | None
    capped: Mapping[str, int]


class Select:
    """The aggregates of one query, each asked for once."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def __call__(self, part: str) -> int:
        """The place of an aggregate in the rows."""
        return self.places.setdefault(part, len(self.places))


@dataclass(frozen=True, slots=True)
class Family:
    """Where in a row the comoments of some columns are."""

    n: int
    means: tuple[int, ...]
    products: Mapping[tuple[int, int], int]

    def read(
        self, names: tuple[str, ...], row: Sequence[Any], shifts: Sequence[float]
    ) -> Comoments:
        """The comoments in a row, with what was taken off each column put back."""
        n = int(row[self.n])
        if n == 0:
            return Comoments.empty(names)
        means = tuple(s + row[i] for s, i in zip(shifts, self.means, strict=True))
        k = range(len(names))
        products = tuple(
            tuple(
                max(0.0, row[self.products[i, i]] * n)
                if i == j
                else (row[self.products[min(i, j), max(i, j)]] or 0.0) * n
                for j in k
            )
            for i in k
        )
        if not all(map(math.isfinite, [*means, *itertools.chain.from_iterable(products)])):
            raise DataError(too_large(names))
        return Comoments(names, n, means, products)


def read_cells(
    connection: duckdb.DuckDBPyConnection,
    *,
    variant: str,
    epoch: str | None,
    segments: Sequence[str],
    families: Sequence[tuple[str, ...]],
    missing: str,
    caps: Mapping[str, tuple[float, float]],
    parts: Mapping[str, str],
    look: str | None = None,
) -> tuple[dict[tuple[str, ...], dict[Key, Comoments]], dict[str, Facts]]:
    """Comoments of families of columns by variant, epoch and segment; see `UnitTable.cells`.

    Args:
        connection: where the table `data` is.
        variant: column of the variant.
        epoch: column of the epoch, if any.
        segments: columns to break down by, each on its own.
        families: columns that are needed together, of the same units.
        missing: "error", "exclude" (rows that lack any column of the family), or "zero".
        caps: lowest and highest value of some columns.
        parts: what each column is, for messages.
        look: SQL expression of the look that first sees a row, if there are several.

    Raises:
        DataError: values are missing, infinite or too large, or a segment has too many values.
    """
    columns = list(dict.fromkeys(itertools.chain.from_iterable(families)))
    groups, labels = grouping(connection, variant, epoch, segments)
    shifts = shifts_of(connection, columns)
    shown = [f"{label} AS {name}" for label, name in zip(labels, groups, strict=True)]
    for i, name in enumerate(columns):
        shown += [f"CAST({quoted(name)} AS DOUBLE) AS r{i}"]
        shown += [f"{usable(name, missing, caps.get(name))} - '{shifts[name]!r}'::DOUBLE AS c{i}"]
    select = Select()
    places = {f: _family(select, [columns.index(name) for name in f], missing) for f in families}
    facts = [ask_facts(select, i, caps.get(name)) for i, name in enumerate(columns)]
    base = "v, e" if look is None else "v, e, l"
    shown += [] if look is None else [f"{look} AS l"]
    sets = ", ".join([f"({base})", *(f"({base}, {name})" for name in groups[2:])])
    seen = ["0" if look is None else "l"]
    chosen = [*groups, *(f"grouping({name})" for name in groups[2:]), *seen, *select.places]
    query = (
        f"SELECT {', '.join(chosen)} FROM (SELECT {', '.join(shown)} FROM data) "  # noqa: S608
        f"GROUP BY GROUPING SETS ({sets})"
    )
    try:
        rows = connection.execute(query).fetchall()
    except duckdb.OutOfRangeException as error:
        raise DataError(f"{too_large(columns)} ({first_line(error)})") from None
    found = sorted(keyed(rows, segments), key=lambda item: item[0])
    known = {
        name: read_facts([(key, row) for key, row in found if not key.segment], facts[i])
        for i, name in enumerate(columns)
    }
    for name, fact in known.items():
        check_values(parts.get(name, "column"), name, fact, missing)
    return {
        family: {
            key: place.read(family, row, [shifts[name] for name in family]) for key, row in found
        }
        for family, place in places.items()
    }, known


def grouping(
    connection: duckdb.DuckDBPyConnection,
    variant: str,
    epoch: str | None,
    segments: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Names and SQL of what cells are made by: variant, epoch and segments."""
    if grouped := [*segments, *([] if epoch is None else [epoch])]:
        check_labels(connection, grouped)
    labels = [cast_text(variant), "''" if epoch is None else cast_text(epoch)]
    labels += [f"coalesce({cast_text(name)}, '{ABSENT}')" for name in segments]
    return ["v", "e", *(f"s{i}" for i in range(len(segments)))], labels


def shifts_of(connection: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> dict[str, float]:
    """A number in the middle of each column; which one changes rounding only."""
    shown = []
    for name in columns:
        x = f"CAST({quoted(name)} AS DOUBLE)"
        shown.append(f"coalesce(quantile_disc(CASE WHEN isfinite({x}) THEN {x} END, 0.5), 0)")
    row = connection.execute(
        f"SELECT {', '.join(shown)} FROM (FROM data LIMIT {_FIRST_ROWS})"  # noqa: S608
    ).fetchone()
    return dict(zip(columns, map(float, row or ()), strict=True))


def usable(name: str, missing: str, caps: tuple[float, float] | None) -> str:
    """A column as SQL: finite numbers within its caps, or NULL."""
    x = f"CAST({quoted(name)} AS DOUBLE)"
    x = f"CASE WHEN isfinite({x}) THEN {x} {'ELSE 0' if missing == 'zero' else ''} END"
    if caps is None:
        return x
    lower, upper = (f"'{value}'::DOUBLE" for value in caps)
    # NULL stays NULL, where greatest() and least() alone would take the cap instead.
    return f"CASE WHEN ({x}) IS NOT NULL THEN least({upper}, greatest({lower}, {x})) END"


def _family(select: Select, places: list[int], missing: str) -> Family:
    """Ask for the aggregates of a family."""
    chosen = ""
    if missing == "exclude" and len(places) > 1:
        chosen = " AND ".join(f"c{i} IS NOT NULL" for i in sorted(places))
        chosen = f" FILTER ({chosen})"
    k = range(len(places))
    return Family(
        select(f"count(c{places[0]}){chosen}"),
        tuple(select(f"favg(c{i}){chosen}") for i in places),
        {
            (a, b): select(
                f"var_pop(c{places[a]}){chosen}"
                if a == b
                else f"covar_pop(c{min(places[a], places[b])}, "
                f"c{max(places[a], places[b])}){chosen}"
            )
            for a in k
            for b in k
            if a <= b
        },
    )


def ask_facts(select: Select, i: int, caps: tuple[float, float] | None) -> tuple[int, ...]:
    """Ask for what the values of a column are like."""
    capped = "0"
    if caps is not None:
        lower, upper = caps
        capped = (
            f"count(*) FILTER (isfinite(r{i}) "
            f"AND (r{i} < '{lower}'::DOUBLE OR r{i} > '{upper}'::DOUBLE))"
        )
    return (
        select(f"count(*) FILTER (r{i} IS NULL OR isnan(r{i}))"),
        select(f"count(*) FILTER (isinf(r{i}))"),
        select(f"min(r{i}) FILTER (isfinite(r{i}) AND r{i} NOT IN (0, 1))"),
        select(capped),
    )


def keyed(
    rows: Sequence[Sequence[Any]], segments: Sequence[str]
) -> Iterator[tuple[Key, Sequence[Any]]]:
    """The cell of each row, and its aggregates."""
    k = len(segments)
    for row in rows:
        # grouping() is 0 for the column that the row was grouped by.
        by = next((i for i in range(k) if row[2 + k + i] == 0), None)
        value = {} if by is None else {"segment": segments[by], "value": row[2 + by]}
        yield Key(row[0], row[1], **value, look=row[2 + 2 * k]), row[3 + 2 * k :]


def read_facts(rows: Sequence[tuple[Key, Sequence[Any]]], places: tuple[int, ...]) -> Facts:
    """What `ask_facts` asked for, over the cells of all units."""
    absent, infinite, other, capped = places
    missing: dict[str, int] = {}
    changed: dict[str, int] = {}
    for key, row in rows:
        missing[key.variant] = missing.get(key.variant, 0) + row[absent]
        changed[key.variant] = changed.get(key.variant, 0) + row[capped]
    odd = min((row[other] for _, row in rows if row[other] is not None), default=None)
    return Facts(missing, sum(row[infinite] for _, row in rows), odd is None, odd, changed)


def too_large(names: Sequence[str]) -> str:
    """What is wrong with columns whose squares leave the floats."""
    shown = ", ".join(repr(name) for name in names if not name.startswith("\0"))  # not our own
    return f"values of {shown} are too large for their squares"


def check_labels(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """An identifier is no segment: stop before each of its values becomes a cell."""
    shown = [f"count(DISTINCT {quoted(name)})" for name in names]
    row = connection.execute(f"SELECT {', '.join(shown)} FROM data").fetchone()  # noqa: S608
    for name, n in zip(names, row or (), strict=True):
        if n > MOST_LABELS:
            raise DataError(
                f"column {name!r} has {n:,} values, more than {MOST_LABELS} segments or epochs; "
                "group them first"
            )


def check_values(part: str, name: str, facts: Facts, missing: str) -> None:
    """Reject a column that is infinite, or missing where it must not be."""
    if facts.infinite:
        raise DataError(
            f"{part} {name!r} is infinite in {counted(facts.infinite, 'row')}; mend or drop each"
        )
    absent = {label: n for label, n in facts.missing.items() if n}
    if absent and missing == "error":
        listed = ", ".join(f"{label}: {n:,}" for label, n in absent.items())
        raise DataError(
            f"{part} {name!r} is missing or NaN in {counted(sum(absent.values()), 'row')} "
            f"({listed}); drop or fill each, or say missing='exclude' or 'zero' (--missing)"
        )
