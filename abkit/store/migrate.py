"""Schema versions of the store, and the way from each to the next.

A store is brought forward in one transaction, step by step; a step is plain SQL and is never
changed once released. Going back is not needed: an older abkit rebuilds its store from the log.
"""

from __future__ import annotations

import contextlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import duckdb

from abkit.errors import SchemaVersionError, StoreError
from abkit.store import tally

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION: Final = 2


def _with_load(table: str, columns: str) -> str:
    return f"""
ALTER TABLE {table} RENAME TO {table}_v1;
CREATE TABLE {table} (
  load UBIGINT NOT NULL, writer VARCHAR NOT NULL, sequence UBIGINT NOT NULL,
  time TIMESTAMP NOT NULL, received TIMESTAMP NOT NULL, {columns}
);
INSERT INTO {table} SELECT 1, * FROM {table}_v1;
DROP TABLE {table}_v1;
"""  # noqa: S608 - names of this module


# By the version that they lead to.
STEPS: Final = {
    2: (
        _with_load(
            "exposure",
            "experiment VARCHAR NOT NULL, unit_id VARCHAR NOT NULL, variant VARCHAR NOT NULL, "
            "epoch INTEGER NOT NULL",
        ),
        _with_load(
            "outcome",
            "unit_id VARCHAR NOT NULL, metric VARCHAR NOT NULL, value DOUBLE NOT NULL, "
            "experiment VARCHAR NOT NULL, variant VARCHAR NOT NULL",
        ),
        _with_load(
            "decision", "rollout VARCHAR NOT NULL, look INTEGER NOT NULL, record VARCHAR NOT NULL"
        ),
        # Reasons quoted the event itself, and with it its unit.
        "UPDATE quarantine SET reason = 'unknown event' WHERE segment = 0",
    ),
}


def schema() -> str:
    """SQL that makes the tables of the current version where they are absent."""
    return files("abkit.store").joinpath("schema.sql").read_text(encoding="utf-8")


def prepare(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Bring a store to the current version; an empty one gets its tables.

    Args:
        connection: an open store.
        path: of its file, for messages.

    Raises:
        SchemaVersionError: a newer abkit wrote it.
        StoreError: its version is no number.
        duckdb.Error: a step failed; the store is as it was.
    """
    version = _version(connection, path)
    if version is not None and version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path} has schema version {version}; this abkit knows {SCHEMA_VERSION}: upgrade abkit"
        )
    connection.begin()
    try:
        for step in range((version or SCHEMA_VERSION) + 1, SCHEMA_VERSION + 1):
            for statements in STEPS[step]:
                connection.execute(statements)
        connection.execute(schema())
        if version != SCHEMA_VERSION:
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)", [str(SCHEMA_VERSION)]
            )
        if _is_uncounted(connection):
            tally.recount(connection)
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            connection.rollback()
        raise


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> int | None:
    """The version of a store; None for an empty one."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE table_name = 'meta' AND NOT internal "
        "AND database_name = current_database()"
    ).fetchone()
    if found is None:
        return None
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None:
        return None
    try:
        return int(row[0])
    except ValueError:
        raise StoreError(f"{path} has the schema version {row[0]!r}, which is no number") from None


def _is_uncounted(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether there are events, but no counts of them."""
    if connection.execute("SELECT 1 FROM tally LIMIT 1").fetchone() is not None:
        return False
    return any(
        connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None  # noqa: S608 - of this module
        for table in tally.TABLES
    )
