"""Connections: one process writes the store; readers get a hardened, read-only one."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from abkit.errors import MissingExtraError, StoreBusyError, StoreError
from abkit.log.files import FILE_MODE

try:
    import duckdb
except ImportError as error:
    msg = "the store needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

from abkit.store.migrate import SCHEMA_VERSION, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SCHEMA_VERSION",
    "STORE",
    "DamagedStoreError",
    "open_published",
    "open_store",
    "store_files",
]

STORE = "abkit.duckdb"
MEMORY_LIMIT = "2GB"
THREADS = 2
READ_SECONDS = 30.0

# An IOException that is not the file's fault, by what its message says.
_ELSEWHERE = (
    "permission denied",
    "no space left",
    "quota exceeded",
    "file too large",
    "read-only file system",
    "too many open files",
    "cannot allocate memory",
    "is a directory",
    "not a directory",
)
_HARDENED = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",
    "SET memory_limit = '1GB'",
    "SET threads = 2",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class DamagedStoreError(StoreError):
    """The file of the store cannot be read. The log can: `abkit rebuild` makes a new one."""


def open_store(
    path: Path, *, memory_limit: str = MEMORY_LIMIT, threads: int = THREADS
) -> duckdb.DuckDBPyConnection:
    """Open a store for writing, and bring it to the current schema.

    Args:
        path: the DuckDB file; made if it is absent, readable by its owner alone.
        memory_limit: what DuckDB may use, such as "2GB"; more goes to disk.
        threads: that DuckDB may use.

    Raises:
        StoreBusyError: another process has the file open.
        SchemaVersionError: a newer abkit wrote it.
        DamagedStoreError: the file is not a readable DuckDB database.
        StoreError: the system refuses.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "memory_limit": memory_limit,
        "threads": threads,
    }
    if not path.parent.is_dir():
        raise StoreError(
            f"cannot open the store {path}: there is no folder {path.parent}; "
            "`Workspace.create` makes it, and so does every `abkit` command that writes"
        )
    connection = None
    try:
        connection = duckdb.connect(path, config=config)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # stdout is the command's
        prepare(connection, path)
    except duckdb.Error as error:
        if connection is not None:
            connection.close()
        raise _explained(path, error) from None
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    protect(path)
    return connection


def _explained(path: Path, error: duckdb.Error) -> StoreError:
    """Why a store could not be opened."""
    words = str(error).lower()
    if isinstance(error, duckdb.IOException) and "could not set lock" in words:
        return StoreBusyError(f"another process has {path} open; one ingester writes the store")
    if isinstance(error, (duckdb.IOException, duckdb.PermissionException)) and any(
        word in words for word in _ELSEWHERE
    ):
        return StoreError(f"cannot open the store {path}: {error}")
    if isinstance(error, duckdb.OutOfMemoryException):
        return StoreError(f"the store {path} needs more memory than it may use: {error}")
    return damaged(path, error)


def damaged(path: Path, error: BaseException) -> DamagedStoreError:
    """What to tell about a store that cannot be read."""
    line = str(error).strip().partition("\n")[0]
    return DamagedStoreError(
        f"the store {path} is damaged ({line}); nothing is lost: the log has every event, "
        f"`abkit rebuild {path.parent.parent}` makes a new store of it and keeps the old file"
    )


def store_files(path: Path) -> list[Path]:
    """The files of a store that exist: itself and its write-ahead log."""
    return [item for item in (path.with_name(f"{path.name}.wal"), path) if item.exists()]


def protect(path: Path) -> None:
    """Let nobody but the owner read a store."""
    for item in store_files(path):
        with contextlib.suppress(FileNotFoundError):  # the write-ahead log comes and goes
            if item.stat().st_mode & 0o777 != FILE_MODE:
                item.chmod(FILE_MODE)


@contextlib.contextmanager
def open_published(
    path: str | os.PathLike[str], *, timeout_seconds: float = READ_SECONDS
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a published file: read-only, no file access, no extensions, settings locked.

    Each call opens a file anew. DuckDB shares one that is open in the same process already, by
    its name; a process that reads without a pause would never see that it has been replaced.

    Args:
        path: the file.
        timeout_seconds: how long the block may take; then its query is interrupted.

    Raises:
        StoreError: nothing has been published yet, the file is damaged, or the time is over.
    """
    file = Path(path)
    if not file.exists():
        raise StoreError(f"nothing published in {file.parent} yet; start `abkit controller`")
    # In memory, and hence not shared; the file is attached before access to files is shut off.
    connection = duckdb.connect(":memory:")
    is_late = threading.Event()

    def interrupt() -> None:
        is_late.set()
        connection.interrupt()

    timer = threading.Timer(timeout_seconds, interrupt)
    timer.daemon = True
    try:
        try:
            quoted = os.fspath(file).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS published (READ_ONLY)")
            connection.execute("USE published")
            for statement in _HARDENED:
                connection.execute(statement)
        except duckdb.Error as error:
            raise StoreError(f"cannot read {file}: {error}") from None
        timer.start()
        try:
            yield connection
        except (duckdb.InterruptException, RuntimeError) as error:
            if not is_late.is_set():
                raise
            raise StoreError(
                f"a question to {file} took more than {timeout_seconds:g} s"
            ) from error
        except duckdb.Error as error:
            raise StoreError(f"cannot read {file}: {error}") from error
    finally:
        timer.cancel()
        connection.close()
