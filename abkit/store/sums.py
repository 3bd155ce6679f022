"""Joint moments by plain sums, where those are exact enough: as fast as reading the columns.

The sums of n squares are off by less than n/2 units in the last place each, which the subtraction
of the mean's square makes larger by the sum of squares over m2. Both are known once the sums are,
so the error has a bound that holds for certain: where it is not small, the columns are shifted by
their means and summed again, and where even that does not help the caller counts the slow way.
"""

from __future__ import annotations

import itertools
import math
import sys
from typing import TYPE_CHECKING, Any, Final

from abkit.comoments import Comoments
from abkit.store.cells import Facts, Key, Select, grouping, keyed
from abkit.store.sql import quoted

try:
    import duckdb
except ImportError as error:
    from abkit.errors import MissingExtraError

    msg = "analysis needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOLERANCE: Final = 1e-7  # relative error that rounding can cause in m2, at most
_WHOLE: Final = 2.0**53  # sums of whole numbers below it are exact
_UNIT_ROUNDOFF: Final = sys.float_info.epsilon / 2
_Row = tuple[int, tuple[float, ...], "Mapping[tuple[int, int], float]"]
_Cells = dict[tuple[str, ...], dict[Key, Comoments]]


def read_sums(
    connection: duckdb.DuckDBPyConnection,
    *,
    variant: str,
    epoch: str | None,
    segments: Sequence[str],
    families: Sequence[tuple[str, ...]],
    binary: Sequence[str] = (),
) -> tuple[_Cells, dict[str, Facts]] | None:
    """Comoments of families of columns, as `read_cells` returns them, or None.

    Args:
        connection: where the table `data` is.
        variant: column of the variant.
        epoch: column of the epoch, if any.
        segments: columns to break down by, each on its own.
        families: columns that are needed together, of the same units.
        binary: columns that may hold nothing but 0 and 1.

    Returns:
        None where a value is missing or infinite, where a column of `binary` holds another value,
        or where the sums would not be exact to `TOLERANCE`: `read_cells` then finds out.

    Raises:
        DataError: a segment or the epoch has too many values.

    Source: Higham (2002), eq. 4.4, for the error of a sum.
    """
    columns = list(dict.fromkeys(itertools.chain.from_iterable(families)))
    where = {name: i for i, name in enumerate(columns)}
    pairs = {
        (min(i, j), max(i, j))
        for family in families
        for i, j in itertools.product((where[name] for name in family), repeat=2)
    }
    groups, labels = grouping(connection, variant, epoch, segments)
    shifts = [0.0] * len(columns)
    answers: dict[str, bool] = {}
    for _ in range(2):
        rows = _summed(connection, columns, pairs, shifts, (groups, labels, segments))
        if rows is None:
            return None
        answers = answers or _are_binary(connection, columns, rows)
        if not all(answers[name] for name in binary):
            return None
        if all(_is_exact(row) for row in rows.values()):
            return _cells(families, where, rows, shifts), _facts(rows, answers)
        n = sum(row[0] for key, row in rows.items() if not key.segment)
        totals = [row[1] for key, row in rows.items() if not key.segment]
        shifts = [math.fsum(column) / n for column in zip(*totals, strict=True)]
    return None


def _summed(
    connection: duckdb.DuckDBPyConnection,
    columns: Sequence[str],
    pairs: set[tuple[int, int]],
    shifts: Sequence[float],
    grouped: tuple[Sequence[str], Sequence[str], Sequence[str]],
) -> dict[Key, _Row] | None:
    """Rows, sums and sums of products by cell; None if anything is missing or not finite."""
    groups, labels, segments = grouped
    shown = [f"{label} AS {name}" for label, name in zip(labels, groups, strict=True)]
    for i, (name, shift) in enumerate(zip(columns, shifts, strict=True)):
        moved = f" - '{shift!r}'::DOUBLE" if shift else ""
        shown.append(f"CAST({quoted(name)} AS DOUBLE){moved} AS c{i}")
    select = Select()
    n = select("count(*)")
    counts = [select(f"count(c{i})") for i in range(len(columns))]
    sums = [select(f"sum(c{i})") for i in range(len(columns))]
    products = {pair: select(f"sum(c{pair[0]} * c{pair[1]})") for pair in sorted(pairs)}
    sets = ", ".join(["(v, e)", *(f"(v, e, {name})" for name in groups[2:])])
    chosen = [*groups, *(f"grouping({name})" for name in groups[2:]), "0", *select.places]
    try:
        rows = connection.execute(
            f"SELECT {', '.join(chosen)} FROM (SELECT {', '.join(shown)} FROM data) "  # noqa: S608
            f"GROUP BY GROUPING SETS ({sets})"
        ).fetchall()
    except duckdb.OutOfRangeException:
        return None
    found: dict[Key, _Row] = {}
    for key, row in sorted(keyed(rows, segments), key=lambda item: item[0]):
        values = [row[i] for i in (*sums, *products.values())]
        if any(row[i] != row[n] for i in counts) or not all(map(math.isfinite, values)):
            return None
        totals = tuple(row[i] for i in sums)
        found[key] = (int(row[n]), totals, {pair: row[i] for pair, i in products.items()})
    return found


def _is_exact(row: _Row) -> bool:
    """Whether rounding can have changed m2 of any column by less than `TOLERANCE` of it."""
    n, sums, products = row
    return all(
        n * _UNIT_ROUNDOFF * products[i, i] <= TOLERANCE * (products[i, i] - total * total / n)
        for i, total in enumerate(sums)
    )


def _are_binary(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[str], rows: Mapping[Key, _Row]
) -> dict[str, bool]:
    """Which columns hold nothing but 0 and 1, from the sums of what was not shifted.

    A column whose values and squares do not have the same sum holds another value. Whole numbers
    have the same sum only if all are 0 or 1, since x * x is at least x; of others one must look.
    """
    kinds = {str(row[0]): str(row[1]) for row in connection.execute("DESCRIBE data").fetchall()}
    found: dict[str, bool] = {}
    ask: list[str] = []
    for i, name in enumerate(columns):
        alike = all(
            sums[i] == products[i, i] and products[i, i] < _WHOLE
            for key, (_, sums, products) in rows.items()
            if not key.segment
        )
        found[name] = alike
        whole = kinds[name] == "BOOLEAN" or kinds[name].endswith(("INT", "INTEGER"))
        ask += [name] if alike and not whole else []
    if ask:
        parts = [f"count(*) FILTER ({quoted(name)} NOT IN (0, 1))" for name in ask]
        row = connection.execute(f"SELECT {', '.join(parts)} FROM data").fetchone()  # noqa: S608
        found |= {name: n == 0 for name, n in zip(ask, row or (), strict=True)}
    return found


def _facts(rows: Mapping[Key, _Row], answers: Mapping[str, bool]) -> dict[str, Facts]:
    none: Any = dict.fromkeys((key.variant for key in rows if not key.segment), 0)
    return {name: Facts(none, 0, is_binary, None, none) for name, is_binary in answers.items()}


def _cells(
    families: Sequence[tuple[str, ...]],
    where: Mapping[str, int],
    rows: Mapping[Key, _Row],
    shifts: Sequence[float],
) -> _Cells:
    found: _Cells = {}
    for family in families:
        places = [where[name] for name in family]
        cells = found[family] = {}
        for key, (n, sums, products) in rows.items():
            means = tuple(shifts[i] + sums[i] / n for i in places)
            central = tuple(
                tuple(
                    max(0.0, products[i, i] - sums[i] * sums[i] / n)
                    if i == j
                    else products[min(i, j), max(i, j)] - sums[i] * sums[j] / n
                    for j in places
                )
                for i in places
            )
            cells[key] = Comoments(family, n, means, central)
    return found
