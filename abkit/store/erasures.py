"""The erasures that are not finished, and keeping their units out of a store meanwhile.

They stand in `forget.json`: units that are being erased, and units that are in a segment which is
still being written. The segment keeps such a unit until it is sealed; no store does.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import duckdb

from abkit.errors import StoreError
from abkit.snapshot import write_atomically
from abkit.store import tally
from abkit.store.loader import add_retention
from abkit.store.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from abkit.store.retention import Counts

PENDING: Final = "forget.json"
BEGUN: Final = "begun"
UNSEALED: Final = "unsealed"
EVENTS: Final = ("exposure", "outcome")


def pending(workspace: Path) -> dict[str, str]:
    """Units that are still to be erased: `BEGUN`, or `UNSEALED` where only a segment is left.

    Raises:
        StoreError: the list cannot be read.
    """
    try:
        found = json.loads((workspace / PENDING).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{workspace / PENDING} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise StoreError(f"{workspace / PENDING} does not hold a table of units")
    return {unit: str(word) for unit, word in found.items()}


def note(workspace: Path, units: Mapping[str, str]) -> None:
    """Write the list down; without units there is none."""
    if units:
        write_atomically(workspace / PENDING, json.dumps(units, ensure_ascii=False).encode())
    else:
        (workspace / PENDING).unlink(missing_ok=True)


def unsealed(workspace: Path) -> list[str]:
    """Units that are in a segment which is still being written, and are to be kept out meanwhile.

    A list that cannot be read stops no event; whoever erases or rebuilds says so.
    """
    with contextlib.suppress(StoreError):
        return [unit for unit, word in pending(workspace).items() if word == UNSEALED]
    return []


def exclude(connection: duckdb.DuckDBPyConnection, unit: str, *, since: int = 0) -> None:
    """Take a unit that is still to be erased out of what a store was just told by the log.

    Args:
        connection: the store.
        unit: its id.
        since: number of the first load to look at.
    """
    news = f"load >= {since:d}"
    counts: Counts = Counter()
    connection.begin()
    try:
        for table in EVENTS:
            counts += owners(connection, f"(FROM {table} WHERE {news})", unit)
            connection.execute(f"DELETE FROM {table} WHERE {news} AND unit_id = ?", [unit])  # noqa: S608 - of this module
        changed = redacted(connection, f"decision WHERE {news}", Redactor(unit))
        if changed:
            connection.executemany(
                "UPDATE decision SET record = $3 WHERE writer = $1 AND sequence = $2", changed
            )
        if counts:
            add_retention(connection, "forgotten", counts)
            tally.recount(connection)
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            connection.rollback()
        raise


def owners(connection: duckdb.DuckDBPyConnection, table: str, unit: str) -> Counts:
    """The unit's rows by writer, experiment and variant."""
    rows = connection.execute(
        f"SELECT writer, experiment, variant, count(*) FROM {table} WHERE unit_id = ? GROUP BY ALL",  # noqa: S608 - of this module
        [unit],
    ).fetchall()
    return Counter({(w, e, v): int(number) for w, e, v, number in rows})


def redacted(
    connection: duckdb.DuckDBPyConnection, source: str, redactor: Redactor
) -> list[list[Any]]:
    """Writer, number and new text of the decisions of a relation that name the unit."""
    rows = connection.execute(f"SELECT writer, sequence, record FROM {source}").fetchall()  # noqa: S608 - of this module
    found = [(writer, number, redactor.decision(text)) for writer, number, text in rows]
    return [[writer, number, new] for writer, number, new in found if new is not None]
