"""The archive: old events as Parquet, and the manifest that says what is in it.

::

    archive/manifest.json                               what counts; replaced in one step
    archive/<kind>/date=YYYY-MM-DD/<random>.parquet     events of one UTC day, sorted by time

A file counts once the manifest names it, and a segment may go once the manifest covers it. What a
crash leaves beside the manifest is removed by the next command.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import SchemaVersionError, StoreError
from abkit.log import Position
from abkit.log.segment import SEALED_SUFFIX, SEGMENT_NAME
from abkit.snapshot import write_atomically
from abkit.store import tally
from abkit.store.columns import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import duckdb

FORMAT: Final = 1
ACCOUNTS: Final = ("gap", "loss", "quarantine", "retention")
COLUMNS: Final = {kind.table: (*kind.columns, "received") for kind in KINDS.values()}
_HASH_BYTES: Final = 2**20
_EMPTY_SECONDS: Final = 86_400.0
_FILES: Final = "*/date=*/*.parquet"


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One Parquet file.

    Args:
        table: "exposure", "outcome" or "decision".
        rows: events in it.
        sha256: of its bytes, in hexadecimal digits.
    """

    table: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the archive holds.

    Args:
        removals: how often events were taken out of it; a store that knows of fewer is stale.
        positions: by writer, where the log goes on.
        files: by path below the archive's folder.
        accounts: rows of the tables `ACCOUNTS`, for the segments that are archived.
    """

    removals: int = 0
    positions: Mapping[str, Position] = field(default_factory=dict)
    files: Mapping[str, ArchivedFile] = field(default_factory=dict)
    accounts: Mapping[str, list[list[Any]]] = field(default_factory=dict)


class Archive:
    """The archive of a workspace.

    Args:
        workspace: the workspace folder.
    """

    def __init__(self, workspace: Path) -> None:
        """Remember where it is."""
        self.path = workspace / "archive"
        self.draft_path = self.path / ".draft"
        self._manifest_path = self.path / "manifest.json"
        self._log_path = workspace / "log"

    def manifest(self) -> Manifest:
        """What is in it; empty where there is none.

        Raises:
            StoreError: the manifest is damaged, or gone while there are files.
            SchemaVersionError: a newer abkit wrote it.
        """
        try:
            content = self._manifest_path.read_bytes()
        except FileNotFoundError:
            self._expect_no_files()
            return Manifest()
        except OSError as error:
            raise StoreError(f"cannot read {self._manifest_path}: {error.strerror}") from None
        try:
            return _manifest(json.loads(content))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"{self._manifest_path} is damaged ({type(error).__name__}: {error}); "
                "take it from a backup: it says which events the Parquet files hold"
            ) from None

    def _expect_no_files(self) -> None:
        """Before there are files there is a manifest, see `draft`: so it must have been lost."""
        found = sum(1 for _ in self.path.glob(_FILES))
        if found:
            raise StoreError(
                f"{self._manifest_path} is gone, and it says which of the {found:,} Parquet files "
                f"beside it count; take it from a backup, or move {self.path} away to go on "
                "without these events"
            )

    def commit(self, manifest: Manifest) -> None:
        """Replace the manifest: from here on it is the truth."""
        data = {
            "format": FORMAT,
            "removals": manifest.removals,
            "positions": {
                w: [p.segment, p.offset, p.next_sequence] for w, p in manifest.positions.items()
            },
            "files": {
                path: [item.table, item.rows, item.sha256] for path, item in manifest.files.items()
            },
            "accounts": dict(manifest.accounts),
        }
        self.create()
        write_atomically(self._manifest_path, json.dumps(data, ensure_ascii=False).encode())

    def create(self) -> None:
        """Make the folder, for the owner alone."""
        self.path.mkdir(mode=0o700, exist_ok=True)

    def draft(self) -> Path:
        """An empty folder for files that do not count yet.

        Raises:
            StoreError: the manifest is damaged or gone.
        """
        self.create()
        if not self._manifest_path.exists():
            self.commit(self.manifest())
        shutil.rmtree(self.draft_path, ignore_errors=True)
        self.draft_path.mkdir(mode=0o700)
        return self.draft_path

    def tidy(self) -> None:
        """Remove what the manifest does not name, and segments that it covers."""
        if not self.path.is_dir():
            return
        shutil.rmtree(self.draft_path, ignore_errors=True)
        manifest = self.manifest()
        for path in self.path.glob(_FILES):
            if path.relative_to(self.path).as_posix() not in manifest.files:
                path.unlink()
                with contextlib.suppress(OSError):  # others are in it
                    path.parent.rmdir()
        for item in self.path.glob(".manifest.json.*"):
            item.unlink()
        for writer, position in manifest.positions.items():
            folder = self._log_path / writer
            for path in segments(folder):
                if int(path.stem) < position.segment:
                    path.unlink()
            # Each process leaves a folder. One that has been empty for long has no living writer.
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < time.time() - _EMPTY_SECONDS:
                    folder.rmdir()

    def fill(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        progress: Callable[[int], object] = lambda _rows: None,
    ) -> None:
        """Load the archive into an empty store, in one transaction.

        Args:
            connection: the store.
            progress: told of the rows of each file.

        Raises:
            StoreError: a file is missing or not the one that was archived.
        """
        manifest = self.manifest()
        for name, item in manifest.files.items():
            self.check(name, item)
        connection.begin()
        try:
            for name, item in manifest.files.items():
                columns = ", ".join(COLUMNS[item.table])
                connection.execute(
                    f"INSERT INTO {item.table} (load, {columns}) SELECT 1, {columns} "  # noqa: S608 - names of ours
                    "FROM read_parquet($path, hive_partitioning = false)",
                    {"path": literal(self.path / name)},
                )
                progress(item.rows)
            restore(connection, manifest)
            tally.recount(connection)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def check(self, name: str, item: ArchivedFile) -> None:
        """See that a file is the one that was archived: Parquet itself misses flipped bits.

        Raises:
            StoreError: it is not.
        """
        if not self._is_right(name, item):
            raise StoreError(
                f"{self.path / name} is missing or damaged; take it from a backup: its "
                f"{item.rows:,} events may be nowhere else"
            )

    def damaged_files(self) -> list[str]:
        """Names of archived files that are missing, or not the ones that were archived."""
        files = self.manifest().files.items()
        return [name for name, item in files if not self._is_right(name, item)]

    def _is_right(self, name: str, item: ArchivedFile) -> bool:
        try:
            return sha256_of(self.path / name) == item.sha256
        except OSError:
            return False


def restore(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
    """Put what a manifest says beside the events into an empty store, in a transaction."""
    for table, rows in manifest.accounts.items():
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - one of ACCOUNTS
    if manifest.positions:
        connection.executemany(
            "INSERT INTO watermark VALUES (?, ?, ?, ?)",
            [[w, p.segment, p.offset, p.next_sequence] for w, p in manifest.positions.items()],
        )
    set_removals(connection, manifest.removals)


def set_removals(connection: duckdb.DuckDBPyConnection, removals: int) -> None:
    """Note in a store how many removals it has followed."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('removals', ?)", [str(removals)])


def removals(connection: duckdb.DuckDBPyConnection) -> int:
    """How many removals a store has followed."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'removals'").fetchone()
    return 0 if row is None else int(row[0])


def with_accounts(manifest: Manifest, table: str, rows: list[list[Any]]) -> Manifest:
    """A manifest with more rows in one of its accounts; counts of the same key are added."""
    merged = [list(row) for row in manifest.accounts.get(table, [])]
    if table in ("loss", "retention"):
        by_key = {tuple(row[:4]): row for row in merged}
        for row in rows:
            known = by_key.setdefault(tuple(row[:4]), [*row[:4], 0])
            # A writer's losses are cumulative, the others are not.
            known[4] = max(known[4], row[4]) if table == "loss" else known[4] + row[4]
        merged = list(by_key.values())
    elif table == "quarantine":  # the same finding in two segments is one row, as in the store
        merged = list({(*row[:3], row[5]): list(row) for row in [*merged, *rows]}.values())
    else:
        merged += [list(row) for row in rows]
    return replace(manifest, accounts={**manifest.accounts, table: merged})


def segments(folder: Path) -> list[Path]:
    """Sealed segments of a writer, in their order."""
    names = (path for path in folder.glob(f"*{SEALED_SUFFIX}"))
    return sorted(path for path in names if SEGMENT_NAME.fullmatch(path.name))


def export(
    connection: duckdb.DuckDBPyConnection, query: str, table: str, folder: Path
) -> Iterator[tuple[Path, str, int]]:
    """Write the rows of a query as Parquet, a file for each UTC day.

    Args:
        connection: where the query runs.
        query: selects `COLUMNS[table]`.
        table: kind of the events.
        folder: where to write to.

    Yields:
        The file, on disk; its name in the archive; its rows.
    """
    days = connection.execute(
        f"SELECT time::DATE, count(*) FROM ({query}) GROUP BY 1 ORDER BY 1"  # noqa: S608 - of this package
    ).fetchall()
    for day, rows in days:
        name = os.urandom(8).hex()
        path = folder / f"{name}.parquet"
        connection.execute(
            f"COPY (SELECT * FROM ({query}) WHERE time::DATE = DATE '{day}' "  # noqa: S608 - the same
            f"ORDER BY time, writer, sequence) TO '{quoted(path)}' "
            "(FORMAT parquet, COMPRESSION zstd)"
        )
        path.chmod(0o600)
        fsync(path)
        yield path, f"{table}/date={day}/{name}.parquet", int(rows)


def literal(path: Path) -> str:
    """A path in which DuckDB finds no pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in os.fspath(path))


def quoted(path: Path) -> str:
    """A path within an SQL string."""
    return os.fspath(path).replace("'", "''")


def quoted_name(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def fsync(path: Path) -> None:
    """Put a file or folder on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _manifest(data: dict[str, Any]) -> Manifest:
    if data["format"] != FORMAT:
        raise SchemaVersionError(
            f"the archive has format {data['format']!r}; this abkit knows {FORMAT}: upgrade abkit"
        )
    accounts = data["accounts"]
    if not set(accounts) <= set(ACCOUNTS):
        raise ValueError(f"unknown accounts {sorted(set(accounts) - set(ACCOUNTS))}")
    files = {path: ArchivedFile(*item) for path, item in data["files"].items()}
    if any(item.table not in COLUMNS for item in files.values()):
        raise ValueError("a file of an unknown kind")
    return Manifest(
        int(data["removals"]),
        {writer: Position(*map(int, item)) for writer, item in data["positions"].items()},
        files,
        accounts,
    )
