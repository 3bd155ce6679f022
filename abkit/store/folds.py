"""Rows folded before they are counted: all of a cluster into one, or both of a unit into a pair.

One query each, whatever the number of metrics: the inner half folds by cluster (or unit) and
segment, the outer half counts what comes out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import DataError
from abkit.store.cells import (
    ABSENT,
    Family,
    Key,
    Select,
    ask_facts,
    check_labels,
    check_values,
    read_facts,
    shifts_of,
    too_large,
    usable,
)
from abkit.store.sql import cast_text, first_line, quoted

try:
    import duckdb
except ImportError as error:
    from abkit.errors import MissingExtraError

    msg = "analysis needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from abkit.comoments import Comoments
    from abkit.store.cells import Facts
    from abkit.store.table import UnitTable

SIZE: Final = "\0size"  # no column can have this name
Cells = dict[tuple[str, ...], dict[Key, "Comoments"]]


@dataclass(frozen=True, slots=True)
class Clusters:
    """What a table says by cluster.

    Args:
        cells: by family and cell the comoments of the clusters' sums, after the shift of each
            column was taken off every row, and of their sizes (column `SIZE`).
        facts: by column what the values of its rows are like.
        shifts: of each column, in its unit.
        counts: clusters by epoch and variant.
    """

    cells: Cells
    facts: Mapping[str, Facts]
    shifts: Mapping[str, float]
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Single:
    """Units of which one row is missing.

    Args:
        n: how many there are.
        example: one of them.
    """

    n: int
    example: str


def control_side(name: str) -> str:
    """Name of a column's values in control, among the columns of a pair."""
    return f"control:{name}"


def treatment_side(name: str) -> str:
    """Name of a column's values in treatment."""
    return f"treatment:{name}"


def read_clusters(
    table: UnitTable,
    cluster: str,
    families: Sequence[tuple[str, ...]],
    caps: Mapping[str, tuple[float, float]],
) -> Clusters:
    """Sums and sizes of clusters, and how they vary together, from one pass over the rows.

    Args:
        table: what was loaded.
        cluster: column of the cluster.
        families: columns that are needed together, of the same rows.
        caps: lowest and highest value of columns that are winsorised.

    Raises:
        DataError: a cluster stands in two variants or epochs, or values are not usable.
    """
    _check_whole(table, cluster)
    columns, shifts, shown = _shown(table, families, caps)
    shown.append(f"{quoted(cluster)} AS k")
    facts = Select()
    asked = [ask_facts(facts, i, caps.get(name)) for i, name in enumerate(columns)]
    folded = [f"{part} AS f{i}" for part, i in facts.places.items()]
    outer = Select()
    places = {}
    for number, family in enumerate(families):
        indices = [columns.index(name) for name in family]
        complete = " AND ".join(f"c{i} IS NOT NULL" for i in indices)
        folded += [f"fsum(c{i}) FILTER ({complete}) AS t{number}_{i}" for i in indices]
        folded.append(f"count(*) FILTER ({complete}) AS n{number}")
        names = [f"t{number}_{i}" for i in indices] + [f"n{number}"]
        places[family] = _family(outer, names, f" FILTER (n{number} > 0)")
    # Facts of rows, put together over clusters: sums of counts, the least of the odd values.
    parts = [
        tuple(
            outer(f"{'min' if position == 2 else 'sum'}(f{i})") for position, i in enumerate(fact)
        )
        for fact in asked
    ]
    rows = _folded(table, ["v", "e", "k"], shown, folded, outer)
    found = sorted(_keyed(rows, table.columns.segments), key=lambda item: item[0])
    whole = [(key, row) for key, row in found if not key.segment]
    known = {name: read_facts(whole, parts[i]) for i, name in enumerate(columns)}
    for name, fact in known.items():
        check_values(table.columns.numbers.get(name, "column"), name, fact, table.missing)
    cells = {
        family: {
            key: place.read((*family, SIZE), row, [0.0] * (len(family) + 1)) for key, row in found
        }
        for family, place in places.items()
    }
    return Clusters(cells, known, shifts, _cluster_counts(table, cluster))


def read_pairs(
    table: UnitTable,
    control: str,
    families: Sequence[tuple[str, ...]],
    caps: Mapping[str, tuple[float, float]],
) -> Cells:
    """Joint moments of control's and each treatment's values of the same units.

    Args:
        table: what was loaded; at most one row per unit and variant.
        control: which variant is control.
        families: columns that are needed together, of the same units.
        caps: lowest and highest value of columns that are winsorised.

    Returns:
        By family and cell, its variant being the treatment, comoments over the units that have
        all of the family's values in both rows. Columns are named by `control_side` and
        `treatment_side`.
    """
    columns, shifts, shown = _shown(table, families, caps)
    shown.append(f"{quoted(table.columns.unit)} AS k")
    variants = [control, *(name for name in table.counts if name != control)]
    folded = [
        f"max(c{i}) FILTER (v = {_literal(name)}) AS p{i}_{place}"
        for i in range(len(columns))
        for place, name in enumerate(variants)
    ]
    outer = Select()
    places = {}
    for family, place in itertools.product(families, range(1, len(variants))):
        indices = [columns.index(name) for name in family]
        values = [f"p{i}_{side}" for side in (0, place) for i in indices]
        both = " AND ".join(f"{value} IS NOT NULL" for value in values)
        places[family, place] = _family(outer, values, f" FILTER ({both})")
    rows = _folded(table, ["k"], shown, folded, outer)
    found: Cells = {family: {} for family in families}
    for key, row in sorted(_keyed(rows, table.columns.segments), key=lambda item: item[0]):
        for (family, place), where in places.items():
            names = (*map(control_side, family), *map(treatment_side, family))
            own = [shifts[name] for name in family] * 2
            found[family][key._replace(variant=variants[place])] = where.read(names, row, own)
    return found


def single_units(table: UnitTable, control: str) -> dict[str, Single]:
    """Units that have a row of control or of a treatment, and not of both, by treatment.

    Raises:
        DataError: a unit has two rows of one variant.
    """
    variants = [control, *(name for name in table.counts if name != control)]
    counted = ", ".join(
        f"count(*) FILTER ({cast_text(table.columns.variant)} = {_literal(name)}) AS n{i}"
        for i, name in enumerate(variants)
    )
    double = f"greatest({', '.join(f'n{i}' for i in range(len(variants)))}) > 1"
    parts = [f"min(u) FILTER ({double})"]
    for i in range(1, len(variants)):
        lone = f"FILTER ((n0 = 0) <> (n{i} = 0))"
        parts += [f"count(*) {lone}", f"min(u) {lone}"]
    row = table.connection.execute(
        f"SELECT {', '.join(parts)} FROM (SELECT {cast_text(table.columns.unit)} AS u, {counted} "  # noqa: S608
        f"FROM data GROUP BY {quoted(table.columns.unit)})"
    ).fetchone()
    repeated, *rest = row or ()
    if repeated is not None:
        raise DataError(
            f"unit {repeated!r} has two rows of one variant; a paired table has one row per unit "
            "and variant"
        )
    pairs = zip(variants[1:], rest[::2], rest[1::2], strict=True)
    return {name: Single(n, example) for name, n, example in pairs if n}


def _shown(
    table: UnitTable, families: Sequence[tuple[str, ...]], caps: Mapping[str, tuple[float, float]]
) -> tuple[list[str], dict[str, float], list[str]]:
    """Columns, their shifts, and what the innermost query selects: v, e, s0.., r0.., c0.."""
    roles = table.columns
    columns = list(dict.fromkeys(itertools.chain.from_iterable(families)))
    if grouped := [*roles.segments, *([] if roles.epoch is None else [roles.epoch])]:
        check_labels(table.connection, grouped)
    shifts = shifts_of(table.connection, columns) if columns else {}
    shown = [f"{cast_text(roles.variant)} AS v"]
    shown.append(f"{chr(39) * 2 if roles.epoch is None else cast_text(roles.epoch)} AS e")
    for i, name in enumerate(roles.segments):
        shown.append(f"coalesce({cast_text(name)}, '{ABSENT}') AS s{i}")
    for i, name in enumerate(columns):
        shown.append(f"CAST({quoted(name)} AS DOUBLE) AS r{i}")
        value = usable(name, table.missing, caps.get(name))
        shown.append(f"{value} - '{shifts[name]!r}'::DOUBLE AS c{i}")
    return columns, shifts, shown


def _folded(
    table: UnitTable, by: list[str], shown: list[str], folded: list[str], outer: Select
) -> list[Any]:
    """Rows of the outer query: v, e (empty where it was not folded by them), s.., g.., places."""
    k = range(len(table.columns.segments))
    base = ", ".join(by)
    sets = ", ".join([f"({base})", *(f"({base}, s{i})" for i in k)])
    keys = [*(f"s{i}" for i in k), *(f"g{i}" for i in k)]
    start = ["v", "e"] if "v" in by else []
    inner = [*by, *(f"s{i}" for i in k), *(f"grouping(s{i}) AS g{i}" for i in k), *folded]
    chosen = [*(start or ["''", "''"]), *keys, *outer.places]
    grouped = f" GROUP BY {', '.join([*start, *keys])}" if start or keys else ""
    query = (
        f"SELECT {', '.join(chosen)} FROM (SELECT {', '.join(inner)} FROM "  # noqa: S608
        f"(SELECT {', '.join(shown)} FROM data) GROUP BY GROUPING SETS ({sets})){grouped}"
    )
    try:
        return table.connection.execute(query).fetchall()
    except duckdb.OutOfRangeException as error:
        raise DataError(f"{too_large(list(table.columns.numbers))} ({first_line(error)})") from None


def _family(select: Select, names: Sequence[str], chosen: str) -> Family:
    """Ask for the comoments of columns that a fold made."""
    k = range(len(names))
    return Family(
        select(f"count({names[0]}){chosen}"),
        tuple(select(f"favg({name}){chosen}") for name in names),
        {
            (a, b): select(
                f"var_pop({names[a]}){chosen}"
                if a == b
                else f"covar_pop({names[a]}, {names[b]}){chosen}"
            )
            for a in k
            for b in k
            if a <= b
        },
    )


def _keyed(rows: Sequence[Any], segments: Sequence[str]) -> Iterator[tuple[Key, Sequence[Any]]]:
    k = len(segments)
    for row in rows:
        by = next((i for i in range(k) if row[2 + k + i] == 0), None)
        value = {} if by is None else {"segment": segments[by], "value": row[2 + by]}
        yield Key(row[0], row[1], **value), row[2 + 2 * k :]


def _check_whole(table: UnitTable, cluster: str) -> None:
    """A cluster has one variant and one epoch: it is what was randomised."""
    for part, name in (("variants", table.columns.variant), ("epochs", table.columns.epoch)):
        if name is None:
            continue
        row = table.connection.execute(
            f"SELECT {cast_text(cluster)}, count(DISTINCT {quoted(name)}) AS n, "  # noqa: S608
            f"min({cast_text(name)}), max({cast_text(name)}) FROM data "
            f"GROUP BY {quoted(cluster)} HAVING n > 1 ORDER BY 1 LIMIT 1"
        ).fetchone()
        if row is not None:
            advice = (
                "its rows cannot be told apart: drop it, or name the column that was randomised"
                if part == "variants"
                else "give each cluster the epoch of its first row"
            )
            raise DataError(
                f"cluster {row[0]!r} stands in {row[1]} {part}, {row[2]!r} and {row[3]!r}; {advice}"
            )


def _cluster_counts(table: UnitTable, cluster: str) -> dict[str, dict[str, int]]:
    epoch = "''" if table.columns.epoch is None else cast_text(table.columns.epoch)
    found: dict[str, dict[str, int]] = {}
    for where, label, n in table.connection.execute(
        f"SELECT {epoch}, {cast_text(table.columns.variant)}, count(DISTINCT {quoted(cluster)}) "  # noqa: S608
        "FROM data GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        found.setdefault(where, {})[label] = n
    return found


def _literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
