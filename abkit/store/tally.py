"""Counts of events by writer, variant and minute, kept with each load."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

# Where the experiment and the variant of an event stand; decisions count under none.
_OWNERS = {
    "exposure": "experiment, variant",
    "outcome": "experiment, variant",
    "decision": "'' AS experiment, '' AS variant",
}
TABLES = tuple(_OWNERS)


def _tally(table: str, source: str) -> str:
    return f"""
INSERT INTO tally
SELECT writer, {_OWNERS[table]}, '{table}' AS kind, count(*), max(time)
FROM {source} GROUP BY ALL
ON CONFLICT DO UPDATE SET
  events = events + excluded.events, last_event = greatest(last_event, excluded.last_event)
"""  # noqa: S608 - names of this module


def _traffic(source: str) -> str:
    return f"""
INSERT INTO traffic
SELECT experiment, epoch, variant, time_bucket(INTERVAL 1 MINUTE, time) AS minute, count(*)
FROM {source} GROUP BY ALL
ON CONFLICT DO UPDATE SET exposures = exposures + excluded.exposures
"""  # noqa: S608 - the same


def count(connection: duckdb.DuckDBPyConnection, table: str, source: str) -> None:
    """Add events to the counts, in the caller's transaction.

    Args:
        connection: the store.
        table: of the events.
        source: name of a relation that holds the new ones.
    """
    connection.execute(_tally(table, source))
    if table == "exposure":
        connection.execute(_traffic(source))


def recount(connection: duckdb.DuckDBPyConnection) -> None:
    """Count everything anew, in a transaction of its own or the caller's."""
    # Not by DELETE: an index keeps deleted keys until the transaction ends.
    for table, key in (
        ("tally", "writer, experiment, variant, kind"),
        ("traffic", "experiment, epoch, variant, minute"),
    ):
        connection.execute(f"CREATE OR REPLACE TABLE {table} AS FROM {table} LIMIT 0")
        connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY ({key})")
    for table in TABLES:
        count(connection, table, table)
