"""Whether a table has one row per unit, exactly, without a hash table of all units.

Equal units have equal hashes. Hashes are numbers, which sort ten times as fast as units fit into
a hash table; only units whose hash stands there twice are then counted themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from abkit.errors import DataError
from abkit.records import counted
from abkit.store.sql import cast_text, quoted

if TYPE_CHECKING:
    import duckdb

_AT_ONCE: Final = 1 << 24  # hashes in memory: 128 MB


def repeated_units(
    connection: duckdb.DuckDBPyConnection, unit: str, variant: str, rows: int
) -> tuple[int, int]:
    """Units that stand in more than one row, and those in more than one variant.

    Args:
        connection: where the table `data` is.
        unit: column of the unit.
        variant: column of the variant, filled in every row.
        rows: how many there are.

    Raises:
        DataError: a row has no unit.
    """
    passes = 1 + rows // _AT_ONCE
    seen, twice = 0, []
    for turn in range(passes):
        chosen = "" if passes == 1 else f" AND hash({quoted(unit)}) % {passes} = {turn}"
        answer = connection.execute(
            f"SELECT hash({quoted(unit)}) AS h FROM data "  # noqa: S608
            f"WHERE {quoted(unit)} IS NOT NULL{chosen}"
        ).fetchnumpy()
        hashes = np.asarray(answer["h"], dtype=np.uint64)
        hashes.sort()
        seen += len(hashes)
        twice.append(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
    if seen < rows:
        raise DataError(_empty(connection, unit, variant))
    again = np.concatenate(twice)
    if not len(again):
        return 0, 0
    connection.register("twice", {"h": again})
    repeated, crossed = connection.execute(
        "SELECT count(*), count(*) FILTER (first <> last) FROM ("  # noqa: S608
        f"SELECT min({cast_text(variant)}) AS first, max({cast_text(variant)}) AS last "
        f"FROM data WHERE hash({quoted(unit)}) IN (SELECT h FROM twice) "
        f"GROUP BY {quoted(unit)} HAVING count(*) > 1)"
    ).fetchall()[0]
    connection.unregister("twice")
    return int(repeated), int(crossed)


def _empty(connection: duckdb.DuckDBPyConnection, unit: str, variant: str) -> str:
    label, n = connection.execute(
        f"SELECT {cast_text(variant)}, count(*) FROM data "  # noqa: S608
        f"WHERE {quoted(unit)} IS NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()[0]
    return f"column {unit!r} is empty in {counted(n, 'row')} of variant {label!r}"
