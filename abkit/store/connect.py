"""Connections: one process writes the store; readers get a hardened, read-only one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abkit.errors import MissingExtraError, SchemaVersionError, StoreBusyError, StoreError

try:
    import duckdb
except ImportError as error:
    msg = "the store needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 2

_HARDENED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "1GB",
    "threads": "2",
    "lock_configuration": "true",
}


def open_store(path: Path, *, schema: str) -> duckdb.DuckDBPyConnection:
    """Open the store for writing, and make its tables.

    Args:
        path: the DuckDB file.
        schema: SQL that makes the tables where they are absent.

    Raises:
        StoreBusyError: another process has the file open.
        SchemaVersionError: a newer abkit wrote it.
        StoreError: the file is not a DuckDB database.
    """
    try:
        connection = duckdb.connect(path, config={"autoinstall_known_extensions": "false"})
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            msg = f"another process has {path} open; one ingester writes the store"
            raise StoreBusyError(msg) from None
        msg = f"cannot open the store {path}: {error}"
        raise StoreError(msg) from None
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(schema)
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None:
        connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", [str(SCHEMA_VERSION)])
    elif int(row[0]) > SCHEMA_VERSION:
        connection.close()
        msg = (
            f"{path} has schema version {row[0]}; this abkit knows {SCHEMA_VERSION}: upgrade abkit"
        )
        raise SchemaVersionError(msg)
    return connection


def open_published(path: Path) -> duckdb.DuckDBPyConnection:
    """Open a published file: read-only, no file access, no extensions, settings locked.

    Raises:
        StoreError: nothing has been published yet, or the file is damaged.
    """
    if not path.exists():
        msg = f"nothing published in {path.parent} yet; start `abkit controller`"
        raise StoreError(msg)
    try:
        return duckdb.connect(path, read_only=True, config=dict(_HARDENED))
    except duckdb.Error as error:
        msg = f"cannot read {path}: {error}"
        raise StoreError(msg) from None
