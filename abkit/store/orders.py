"""Order statistics of columns in every cell: two queries, whatever the number of quantiles.

The first counts, so that the ranks are known; the second selects the values at those ranks. No
column is sorted or leaves the database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from abkit.store.cells import ABSENT, Facts, Key, check_labels, check_values
from abkit.store.sql import cast_text, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from abkit.store.table import UnitTable

# From the number of values, the quantile and the number of segments to the ranks that are needed.
Ranks = Callable[[int, float, int], Collection[int]]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Some values of a sorted column.

    Args:
        n: number of values, >= 0.
        values: by rank, from 1 to n.
    """

    n: int = 0
    values: Mapping[int, float] = field(default_factory=dict)


def read_orders(
    table: UnitTable, wanted: Mapping[str, Collection[float]], ranks: Ranks
) -> dict[tuple[str, float], dict[Key, Ordered]]:
    """Order statistics by column, quantile and cell; see `Ordered`.

    Args:
        table: what was loaded.
        wanted: quantiles of each column, in (0, 1).
        ranks: which ranks a quantile needs.

    Raises:
        DataError: values are missing or infinite where they must not be.
    """
    if table.columns.segments:
        check_labels(table.connection, table.columns.segments)
    columns = list(wanted)
    parts = []
    for i in range(len(columns)):
        parts += [
            f"count(c{i})",
            f"count(*) FILTER (r{i} IS NULL OR isnan(r{i}))",
            f"count(*) FILTER (isinf(r{i}))",
        ]
    counted = sorted(_asked(table, columns, parts), key=lambda item: item[0])
    for i, name in enumerate(columns):
        own = [(key, row[3 * i : 3 * i + 3]) for key, row in counted if not key.segment]
        missing = {key.variant: row[1] for key, row in own}
        facts = Facts(missing, sum(row[2] for _, row in own), binary=False, other=None, capped={})
        check_values(table.columns.numbers.get(name, "column"), name, facts, table.missing)
    places = len({(key.segment, key.value) for key, _ in counted if key.segment})
    needed: dict[tuple[int, Key, float], list[int]] = {}
    shares: list[set[float]] = [set() for _ in columns]
    for key, row in counted:
        for i, name in enumerate(columns):
            n = row[3 * i]
            for level in wanted[name]:
                found = sorted({r for r in ranks(n, level, places) if 1 <= r <= n}) if n else []
                needed[i, key, level] = found
                shares[i].update(_share(rank, n) for rank in found)
    lists = [sorted(found) for found in shares]
    asked = [i for i, found in enumerate(lists) if found]
    rows: dict[Key, Sequence[Any]] = {}
    if asked:
        rows = dict(
            _asked(table, columns, [f"quantile_disc(c{i}, {lists[i]!r}::DOUBLE[])" for i in asked])
        )
    at = [{share: place for place, share in enumerate(found)} for found in lists]
    result: dict[tuple[str, float], dict[Key, Ordered]] = {}
    for (i, key, level), found in needed.items():
        n = next(row[3 * i] for other, row in counted if other == key)
        values = {rank: float(rows[key][asked.index(i)][at[i][_share(rank, n)]]) for rank in found}
        result.setdefault((columns[i], level), {})[key] = Ordered(n, values)
    return result


def _share(rank: int, n: int) -> float:
    """The quantile that is at a rank of n values: the middle of its step, safe from rounding."""
    return (rank - 0.5) / n


def _asked(
    table: UnitTable, columns: Sequence[str], parts: Sequence[str]
) -> Iterator[tuple[Key, Sequence[Any]]]:
    segments = table.columns.segments
    k = len(segments)
    shown = [f"{cast_text(table.columns.variant)} AS v"]
    shown += [f"coalesce({cast_text(x)}, '{ABSENT}') AS s{i}" for i, x in enumerate(segments)]
    for i, name in enumerate(columns):
        x = f"CAST({quoted(name)} AS DOUBLE)"
        otherwise = "ELSE 0" if table.missing == "zero" else ""
        shown.append(f"{x} AS r{i}")
        shown.append(f"CASE WHEN isfinite({x}) THEN {x} {otherwise} END AS c{i}")
    chosen = ["v", *(f"s{i}" for i in range(k)), *(f"grouping(s{i})" for i in range(k)), *parts]
    sets = ", ".join(["(v)", *(f"(v, s{i})" for i in range(k))])
    rows = table.connection.execute(
        f"SELECT {', '.join(chosen)} FROM (SELECT {', '.join(shown)} FROM data) "  # noqa: S608
        f"GROUP BY GROUPING SETS ({sets})"
    ).fetchall()
    for row in rows:
        by = next((i for i in range(k) if row[1 + k + i] == 0), None)
        value = {} if by is None else {"segment": segments[by], "value": row[1 + by]}
        yield Key(row[0], "", **value), row[1 + 2 * k :]
