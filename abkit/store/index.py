"""The store's file: opened, mended from the archive where it lags, set aside where it is damaged.

The log and the archive are the truth and the store is an index of them. Whatever is wrong with
its file, a new one costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Final

from abkit.errors import StoreBusyError, StoreError
from abkit.log.rewrite import remove_drafts
from abkit.store import publish
from abkit.store.archive import Archive, fsync, removals
from abkit.store.connect import STORE, DamagedStoreError, open_store, store_files
from abkit.store.loader import positions
from abkit.workspace import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

    from abkit.store.archive import Manifest
    from abkit.workspace import Workspace

LOCK: Final = "ingest.lock"
DRAFT: Final = ".draft.duckdb"
"""A store that is being made, and will take the place of the old one."""


@contextlib.contextmanager
def leading(workspace: Workspace) -> Iterator[None]:
    """Be the only process that writes the store of a workspace.

    Raises:
        StoreError: there is no such workspace.
        StoreBusyError: another process does already.
    """
    try:
        with locked(workspace.path / LOCK, timeout_seconds=0.5):
            yield
    except StoreBusyError as error:
        if LOCK not in str(error):
            raise
        raise StoreBusyError(
            f"another controller runs on {workspace.path}: it holds {LOCK}; stop it first"
        ) from None


def open_index(
    workspace: Workspace, *, mend: bool, memory_limit: str, threads: int
) -> duckdb.DuckDBPyConnection:
    """Open the store of a workspace, and bring it up to its archive; the caller leads.

    Args:
        workspace: the workspace.
        mend: whether to set a damaged file aside and to make a new one of archive and log.
        memory_limit: see `open_store`.
        threads: the same.

    Raises:
        DamagedStoreError: the file is damaged, and is not to be mended.
        StoreError: the archive is damaged, or older than the store; the store is as it was.
    """
    tidy(workspace)
    path = workspace.store_path / STORE
    try:
        connection = open_store(path, memory_limit=memory_limit, threads=threads)
    except DamagedStoreError:
        if not mend:
            raise
        set_aside(path, "damaged")
        connection = open_store(path, memory_limit=memory_limit, threads=threads)
    try:
        archive = Archive(workspace.path)
        if not _lags(connection, archive.manifest(), archive.path):
            return connection
        if not positions(connection):
            archive.fill(connection)
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    refill(workspace, memory_limit=memory_limit, threads=threads)
    return open_store(path, memory_limit=memory_limit, threads=threads)


def refill(workspace: Workspace, *, memory_limit: str, threads: int) -> None:
    """Let a store made of the archive alone take the place of the old one, which is closed.

    Raises:
        StoreError: an archived file is missing or damaged; the old store is still there.
    """
    draft = workspace.store_path / DRAFT
    discard(draft)
    with contextlib.closing(
        open_store(draft, memory_limit=memory_limit, threads=threads)
    ) as connection:
        Archive(workspace.path).fill(connection)
        connection.execute("CHECKPOINT")
    take_place(draft, workspace.store_path / STORE)


def _lags(connection: duckdb.DuckDBPyConnection, manifest: Manifest, archive: Path) -> bool:
    """Whether the store is older than the archive: restored, or cut off in a removal.

    Raises:
        StoreError: it is newer. What it holds may be nowhere else, so it is not made anew.
    """
    known_removals = removals(connection)
    if known_removals > manifest.removals:
        raise StoreError(
            f"the store knows of {known_removals} removals from {archive}, whose manifest knows "
            f"of {manifest.removals}: the archive is gone, or an old copy; put the right one back, "
            f"or `abkit rebuild {archive.parent}` goes by it and keeps the old store's file"
        )
    if known_removals < manifest.removals:
        return True
    known = positions(connection)
    return any(
        writer not in known or known[writer].segment < position.segment
        for writer, position in manifest.positions.items()
    )


def tidy(workspace: Workspace) -> None:
    """Remove what processes left behind that were killed; the caller leads."""
    publish.remove_drafts(workspace.store_path)
    discard(workspace.store_path / DRAFT)
    remove_drafts(workspace.log_path)
    Archive(workspace.path).tidy()


def set_aside(path: Path, word: str) -> Path | None:
    """Give the files of a store another name; nothing is deleted.

    Args:
        path: of the store.
        word: why, for the new name.

    Returns:
        The new name; None if there was no file.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    number = 0
    while (target := path.with_name(f"{path.name}.{word}-{stamp}-{number}")).exists():
        number += 1
    found = store_files(path)
    # The write-ahead log goes first: it must never meet another store under its name.
    for item in found:
        item.replace(target.with_name(target.name + item.name.removeprefix(path.name)))
    return target if path in found else None


def aside(folder: Path) -> list[Path]:
    """Files of stores that were set aside."""
    return sorted(folder.glob(f"{STORE}.*-*"))


def take_place(draft: Path, path: Path) -> None:
    """Let a finished store take the place of the old one, whose connection is closed.

    Raises:
        OSError: the system refuses; the old one is still there.
    """
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{path.name}.wal").unlink()
    draft.replace(path)
    fsync(path.parent)


def discard(path: Path) -> None:
    """Delete the files of a store."""
    for item in store_files(path):
        item.unlink()
    shutil.rmtree(path.with_name(f"{path.name}.tmp"), ignore_errors=True)
