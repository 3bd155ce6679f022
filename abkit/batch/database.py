"""The prediction database: a DuckDB file of the user's, with tables of abkit's beside theirs.

DuckDB lets one process write, or any number read. So a job reads quickly, works in a file of its
own, and opens the database for writing only for the one transaction that publishes.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from abkit.errors import ConfigError, DataError, SchemaVersionError, StoreBusyError, StoreError
from abkit.records import hint
from abkit.workspace import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORMAT: Final = "1"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}\Z", re.ASCII)
_OURS: Final = ("abkit_", "pred_")
_LOCKED: Final = "could not set lock"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS abkit_meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS abkit_run (
  run VARCHAR PRIMARY KEY, experiment VARCHAR NOT NULL, source VARCHAR NOT NULL,
  unit VARCHAR NOT NULL, epoch INTEGER NOT NULL, control VARCHAR NOT NULL, shadow VARCHAR NOT NULL,
  weights JSON NOT NULL, snapshot BIGINT NOT NULL, time TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS abkit_assigned (
  run VARCHAR NOT NULL, unit VARCHAR NOT NULL, variant VARCHAR NOT NULL, reason VARCHAR NOT NULL,
  epoch INTEGER NOT NULL, assignment_id VARCHAR NOT NULL, part BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS abkit_part (
  part BIGINT PRIMARY KEY, kind VARCHAR NOT NULL, run VARCHAR NOT NULL, experiment VARCHAR NOT NULL,
  rows BIGINT NOT NULL, time TIMESTAMP NOT NULL, workspace VARCHAR NOT NULL, writer VARCHAR
);
CREATE TABLE IF NOT EXISTS abkit_versions (
  name VARCHAR NOT NULL, version INTEGER NOT NULL, "table" VARCHAR NOT NULL, run VARCHAR NOT NULL,
  entity VARCHAR NOT NULL, rows BIGINT NOT NULL, checksum VARCHAR NOT NULL, models JSON NOT NULL,
  source VARCHAR NOT NULL, job VARCHAR NOT NULL, specification VARCHAR NOT NULL,
  created TIMESTAMP NOT NULL, PRIMARY KEY (name, version)
);
CREATE TABLE IF NOT EXISTS abkit_live (
  name VARCHAR PRIMARY KEY, version INTEGER NOT NULL, behind JSON NOT NULL
);
CREATE TABLE IF NOT EXISTS abkit_history (
  name VARCHAR NOT NULL, number INTEGER NOT NULL, action VARCHAR NOT NULL, "from" INTEGER,
  "to" INTEGER NOT NULL, time TIMESTAMP NOT NULL, actor VARCHAR NOT NULL, reason VARCHAR NOT NULL,
  forced BOOLEAN NOT NULL, checks JSON NOT NULL, PRIMARY KEY (name, number)
);
CREATE TABLE IF NOT EXISTS abkit_cache (
  model VARCHAR NOT NULL, features VARCHAR NOT NULL, prediction DOUBLE NOT NULL,
  job BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS abkit_cache_model (
  model VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, version VARCHAR NOT NULL,
  hits BIGINT NOT NULL, misses BIGINT NOT NULL, used TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS abkit_label (
  name VARCHAR NOT NULL, version INTEGER NOT NULL, unit VARCHAR NOT NULL, metric VARCHAR NOT NULL,
  answered VARCHAR NOT NULL, variant VARCHAR NOT NULL, value DOUBLE NOT NULL,
  scored_at TIMESTAMP NOT NULL, labelled_at TIMESTAMP NOT NULL, part BIGINT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Database:
    """A DuckDB file with predictions.

    Args:
        path: the file.
        clock: seconds since 1970 in UTC.
        wait_seconds: how long to wait for other processes that have it open.
    """

    path: Path
    clock: Callable[[], float] = time.time
    wait_seconds: float = 30.0

    def now(self) -> int:
        """Microseconds since 1970 in UTC."""
        return int(self.clock() * 1e6)

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The database, read-only: others may read it too.

        Raises:
            StoreError: there is none, or abkit has never worked in it.
            StoreBusyError: another process writes it.
        """
        with self._opened(read_only=True) as connection:
            if not has_table(connection, "abkit_meta"):
                raise StoreError(
                    f"abkit has made nothing in {self.path} yet; begin with `abkit batch score`"
                )
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The database for writing, with abkit's tables in it: keep it for moments.

        Raises:
            StoreError: there is no such file, or it is no DuckDB database.
            StoreBusyError: another process has it open.
            SchemaVersionError: a newer abkit wrote it.
        """
        with self._opened(read_only=False) as connection:
            with transaction(connection):
                connection.execute(_SCHEMA)
                connection.execute(
                    "INSERT OR IGNORE INTO abkit_meta VALUES ('format', $format), ('id', $id)",
                    {"format": FORMAT, "id": os.urandom(16).hex()},
                )
                found = meta(connection, "format")
                if found != FORMAT:
                    raise SchemaVersionError(
                        f"{self.path} has format {found} of abkit's tables, this abkit knows "
                        f"{FORMAT}: upgrade abkit"
                    )
            yield connection

    def prepare(self) -> None:
        """Make abkit's tables where there are none; else others may go on reading."""
        with self._opened(read_only=True) as connection:
            is_ready = has_table(connection, "abkit_meta")
        if not is_ready:
            with self.writing():
                pass

    @contextlib.contextmanager
    def job(self, what: str) -> Iterator[None]:
        """Be the only job on this database; the system frees it when the process dies.

        Raises:
            StoreBusyError: another job is at work.
        """
        self._check_there()
        path = self.path.with_name(f"{self.path.name}.job")
        try:
            with locked(path, timeout_seconds=0.0):
                yield
        except StoreBusyError as error:
            if str(path) not in str(error):
                raise
            raise StoreBusyError(
                f"another batch job works on {self.path}, so {what} did not start; wait for it, "
                "or stop it first (what it has scored is kept)"
            ) from None

    def _check_there(self) -> None:
        if not self.path.is_file():
            raise StoreError(f"no database {self.path}; make it with DuckDB: it holds your table")

    @contextlib.contextmanager
    def _opened(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        self._check_there()
        connection = patiently(
            lambda: duckdb.connect(self.path, read_only=read_only), self.path, self.wait_seconds
        )
        try:
            connection.execute("SET enable_progress_bar = false")
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()


def patiently(
    opening: Callable[[], Any], path: Path, wait_seconds: float, *, pause_seconds: float = 0.005
) -> Any:
    """Open a file that others may have open for a moment.

    Raises:
        StoreBusyError: they still have it open after that time.
        StoreError: it cannot be opened at all.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return opening()
        except duckdb.Error as error:
            line = str(error).strip().partition("\n")[0]
            if _LOCKED not in line.lower():
                raise StoreError(f"cannot open {path}: {line}") from None
            if time.monotonic() >= deadline:
                holder = re.search(r"\(PID \d+\)", line)
                raise StoreBusyError(
                    f"another process {holder[0] if holder else ''} has had {path} open for "
                    f"{wait_seconds:g} s; DuckDB lets one process write, and none read meanwhile"
                ) from None
            time.sleep(pause_seconds)


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of the block, or nothing."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            connection.rollback()
        raise


def meta(connection: duckdb.DuckDBPyConnection, key: str) -> str:
    """A value that belongs to the database; empty if it was never set."""
    found = one(connection, "SELECT value FROM abkit_meta WHERE key = $key", key=key)
    return "" if found is None else str(found)


def has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether there is a table or view of this name in the main schema."""
    return bool(
        one(
            connection,
            "SELECT count(*) FROM information_schema.tables "
            "WHERE table_catalog = current_database() AND table_schema = 'main' "
            "AND table_name = $name",
            name=name,
        )
    )


def one(connection: duckdb.DuckDBPyConnection, query: str, **values: Any) -> Any:
    """The first value of a query; None where it has no rows."""
    row = first_row(connection, query, values)
    return None if row is None else row[0]


def first_row(
    connection: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any] | None = None
) -> tuple[Any, ...] | None:
    """The first row of a query; reads all of it, as an unfinished result blocks relations."""
    rows = connection.execute(query, values or {}).fetchall()
    return rows[0] if rows else None


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def table_sql(name: str, catalog: str = "") -> str:
    """A table as SQL: `table` or `schema.table`, with the catalog before it."""
    parts = name.split(".", 1) if "." in name else ["main", name]
    return ".".join(quoted(part) for part in ([catalog] if catalog else []) + parts)


def text_sql(column: str) -> str:
    """A column of entities as plain text, which no collation makes equal to another."""
    return f"decode(encode(CAST({column} AS VARCHAR)))"


def columns_of(connection: duckdb.DuckDBPyConnection, table: str, name: str) -> dict[str, str]:
    """Type by column of a table.

    Args:
        connection: where it is.
        table: as SQL.
        name: the same, for messages.

    Raises:
        ConfigError: there is no such table.
    """
    try:
        rows = connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()  # noqa: S608
    except (duckdb.CatalogException, duckdb.ParserException):  # the latter for an empty name
        raise ConfigError(f"no table {name!r} in the database") from None
    return {row[0]: row[1] for row in rows}


def check_column(name: str, known: dict[str, str], table: str) -> None:
    """Refuse a column that a table does not have.

    Raises:
        ConfigError: it does not.
    """
    if name not in known:
        raise ConfigError(f"table {table!r} has no column {name!r}{hint(name, dict(known))}")


def check_entities(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, name: str
) -> int:
    """The number of rows; refuses what cannot be told apart by its entity.

    Args:
        connection: where the table is.
        table: as SQL.
        column: the entity, as SQL.
        name: of the table, for messages.

    Raises:
        DataError: an entity is missing, or stands in two rows.
    """
    rows, nulls, distinct = connection.execute(
        f"SELECT count(*), count(*) - count({column}), "  # noqa: S608
        f"count(DISTINCT {text_sql(column)}) FROM {table}"
    ).fetchall()[0]
    if nulls:
        raise DataError(f"{nulls:,} of {rows:,} rows of {name!r} have no entity; leave them out")
    if distinct != rows:
        example = one(
            connection,
            f"SELECT {text_sql(column)} FROM {table} GROUP BY 1 HAVING count(*) > 1 LIMIT 1",  # noqa: S608
        )
        raise DataError(
            f"{name!r} has {rows:,} rows of {distinct:,} entities, such as {example!r} more than "
            "once; give each entity one row"
        )
    return int(rows)


def check_prediction_name(name: str) -> str:
    """A name that readers use, or an error that says why not.

    Raises:
        ConfigError: it is no plain identifier, or begins as abkit's own tables do.
    """
    if _NAME.match(name) is None or name.lower().startswith(_OURS):
        raise ConfigError(
            f"{name!r} cannot name predictions: use 1 to 48 of A-Z a-z 0-9 _, starting with a "
            f"letter, and not with {' or '.join(_OURS)}"
        )
    return name
