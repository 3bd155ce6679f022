"""A hash of rows that does not depend on their order, to see that two stores hold the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from abkit.store.columns import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

    from abkit.log import Position

# What is the same in any store of the same log: not the numbers of loads, not the time of receipt,
# and of accounts no more than how the log was cut into reads cannot change.
_EVENTS: Final = {kind.table: ", ".join(kind.columns) for kind in KINDS.values()}
_ACCOUNTS: Final = {
    "loss": ("writer, experiment, variant, reason, count", "loss"),
    "gap": ("writer, missing", "(SELECT writer, sum(count) AS missing FROM gap GROUP BY writer)"),
    "unusable": (
        'writer, "offset", reason',
        "(FROM quarantine WHERE segment = 0)",
    ),
    "retention": ("writer, experiment, variant, reason, count", "retention"),
    "tally": ("writer, experiment, variant, kind, events, last_event", "tally"),
    "traffic": ("experiment, epoch, variant, minute, exposures", "traffic"),
}


@dataclass(frozen=True, slots=True)
class RowHash:
    """Hash of the rows of a table, whatever their order.

    Args:
        rows: their number.
        digest: of their contents; comparable between stores read by the same DuckDB.
    """

    rows: int
    digest: str


def set_span(connection: duckdb.DuckDBPyConnection, spans: Mapping[str, tuple[int, int]]) -> None:
    """Note which events count: by writer, the first number and the one after the last."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE span (writer VARCHAR, first UBIGINT, until UBIGINT)"
    )
    if spans:
        connection.executemany(
            "INSERT INTO span VALUES (?, ?, ?)", [[w, *span] for w, span in spans.items()]
        )


IN_SPAN: Final = (
    "SELECT e.* FROM {} e JOIN span ON e.writer = span.writer "
    "AND e.sequence >= span.first AND e.sequence < span.until"
)


def event_hashes(connection: duckdb.DuckDBPyConnection) -> dict[str, RowHash]:
    """Hashes of the events within the span that was set, by table."""
    return {
        table: _hash(connection, columns, f"({IN_SPAN.format(table)})")
        for table, columns in _EVENTS.items()
    }


def account_hashes(connection: duckdb.DuckDBPyConnection) -> dict[str, RowHash]:
    """Hashes of everything that is kept beside the events, by table."""
    return {
        name: _hash(connection, columns, source) for name, (columns, source) in _ACCOUNTS.items()
    }


def hash_rows(connection: duckdb.DuckDBPyConnection, table: str, source: str) -> RowHash:
    """Hash of the rows of a relation that has the columns of a table of events."""
    return _hash(connection, _EVENTS[table], source)


def until(positions: Mapping[str, Position]) -> dict[str, tuple[int, int]]:
    """The span of everything before some positions."""
    return {writer: (0, position.next_sequence) for writer, position in positions.items()}


def _hash(connection: duckdb.DuckDBPyConnection, columns: str, source: str) -> RowHash:
    # Sum and exclusive or: neither alone sees every pair of changes.
    (rows, total, mixed) = connection.execute(
        "SELECT count(*), coalesce(sum(h::HUGEINT), 0), coalesce(bit_xor(h), 0) "  # noqa: S608 - names of this package
        f"FROM (SELECT hash({columns}) AS h FROM {source})"
    ).fetchall()[0]
    return RowHash(int(rows), f"{int(total) % 2**64:016x}{int(mixed):016x}")
