"""A new store from the archive and the log, compared with the old one."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from abkit.errors import StoreError
from abkit.log import LogReader, seal_dead
from abkit.store import erasures, publish
from abkit.store.archive import Archive
from abkit.store.batches import collection_paused, read_batch
from abkit.store.connect import MEMORY_LIMIT, STORE, THREADS, open_store
from abkit.store.index import DRAFT, leading, set_aside, take_place, tidy
from abkit.store.loader import Loader, positions
from abkit.store.rowhash import RowHash, account_hashes, event_hashes, set_span, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from abkit.log import Position
    from abkit.workspace import Workspace


@dataclass(frozen=True, slots=True)
class TableCheck:
    """One table in the old store and in the new one.

    Args:
        table: its name; "unusable" stands for the events in quarantine.
        old: hash of its rows; None where the old store cannot be read.
        new: the same of the new store, as far as the old one had read the log.
    """

    table: str
    old: RowHash | None
    new: RowHash

    @property
    def equal(self) -> bool:
        """Whether both hold the same rows."""
        return self.old == self.new


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found.

    Args:
        tables: old against new.
        events: rows in the new store.
        fault: why the old store could not be read; "" if it could, or if there was none.
        kept: where the old store is now; None if it was equal, or is still in its place.
        replaced: whether the new store took the place of the old one.
    """

    tables: tuple[TableCheck, ...]
    events: int
    fault: str
    kept: Path | None
    replaced: bool

    @property
    def equal(self) -> bool:
        """Whether the old store held what log and archive hold."""
        return not self.fault and all(item.equal for item in self.tables)


def rebuild(
    workspace: Workspace,
    *,
    check: bool = False,
    clock: Callable[[], float] = time.time,
    progress: Callable[[int], object] = lambda _events: None,
    memory_limit: str = MEMORY_LIMIT,
    threads: int = THREADS,
) -> Rebuilt:
    """Build a new store beside the old one, compare the two, and swap them.

    Killed at any moment, it leaves the old store in its place, or the new one. An old store that
    was not equal is kept under another name.

    Args:
        workspace: the workspace.
        check: compare only; the old store stays.
        clock: seconds since 1970 in UTC, stamped as the time of receipt.
        progress: told of events as they are loaded.
        memory_limit: see `open_store`.
        threads: the same.

    Raises:
        StoreBusyError: a controller runs on this workspace.
        StoreError: there is no workspace, or an archived file is damaged.
    """
    with leading(workspace):
        tidy(workspace)
        seal_dead(workspace.log_path, clock=clock)
        path, draft = workspace.store_path / STORE, workspace.store_path / DRAFT
        limits: dict[str, Any] = {"memory_limit": memory_limit, "threads": threads}
        old, marks, fault = _old(path, limits)
        with contextlib.closing(open_store(draft, **limits)) as connection:
            events = _fill(connection, workspace, clock, progress)
            tables = _compare(connection, old, marks)
            connection.execute("CHECKPOINT")
        result = Rebuilt(tables, events, fault, None, replaced=False)
        if check:
            tidy(workspace)
            return result
        kept = None if result.equal else set_aside(path, "damaged" if fault else "unequal")
        take_place(draft, path)
        with contextlib.closing(open_store(path, **limits)) as connection:
            publish.publish(connection, workspace.store_path, now=clock())
        return Rebuilt(tables, events, fault, kept, replaced=True)


def _old(
    path: Path, limits: Mapping[str, Any]
) -> tuple[dict[str, RowHash] | None, dict[str, Position], str]:
    """Hashes of the old store, how far it had read, and why that cannot be told."""
    if not path.exists():
        return None, {}, ""
    try:
        with contextlib.closing(open_store(path, **limits)) as connection:
            marks = positions(connection)
            set_span(connection, until(marks))
            hashes = {**event_hashes(connection), **account_hashes(connection)}
            connection.execute("CHECKPOINT")
    except (StoreError, duckdb.Error, UnicodeDecodeError) as error:
        return None, {}, str(error).strip().partition("\n")[0]
    return hashes, marks, ""


def _fill(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    clock: Callable[[], float],
    progress: Callable[[int], object],
) -> int:
    """Load archive and log into an empty store; returns its number of events."""
    Archive(workspace.path).fill(connection, progress=progress)
    reader = LogReader(workspace.log_path)
    loader = Loader(connection, clock=clock)
    while True:
        with collection_paused():
            chunk = read_batch(reader, workspace.log_path, loader.positions)
            progress(loader.load(chunk).events)
        if not chunk.has_more:
            break
    for unit in erasures.pending(workspace.path):
        erasures.exclude(connection, unit)
    row = connection.execute("SELECT coalesce(sum(events), 0) FROM tally").fetchone()
    return 0 if row is None else int(row[0])


def _compare(
    connection: duckdb.DuckDBPyConnection,
    old: dict[str, RowHash] | None,
    marks: Mapping[str, Position],
) -> tuple[TableCheck, ...]:
    """Old against new: the events that the old store had read, and if it had read all, the rest."""
    now = positions(connection)
    ends = {w: p.next_sequence for w, p in marks.items()}
    is_behind = any(p.next_sequence > ends.get(w, 1) for w, p in now.items())
    set_span(connection, until(now if old is None else marks))
    new = event_hashes(connection)
    if old is None or not is_behind:
        new |= account_hashes(connection)
    return tuple(
        TableCheck(name, None if old is None else old.get(name), item) for name, item in new.items()
    )
