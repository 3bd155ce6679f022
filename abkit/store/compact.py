"""Old segments -> Parquet, verified before a segment goes.

The rows come from the store, which knows when each was received, and are checked against the
segments themselves: a store that lost a row in silence must not become the truth. The steps are
files on disk, manifest, segments deleted; a crash between two of them is tidied up by the next
command, see `Archive.tidy`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import StoreError
from abkit.log import LogReader, Position
from abkit.log.frames import END_RECORD, METADATA
from abkit.log.scan import decode_metadata, scan
from abkit.log.segment import OPEN_SUFFIX
from abkit.store.archive import (
    ACCOUNTS,
    COLUMNS,
    Archive,
    ArchivedFile,
    Manifest,
    export,
    fsync,
    quoted,
    segments,
    sha256_of,
    with_accounts,
)
from abkit.store.batches import collection_paused, read_batch
from abkit.store.connect import open_store
from abkit.store.loader import Loader, positions
from abkit.store.rowhash import IN_SPAN, event_hashes, hash_rows, set_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import duckdb

    from abkit.store.ingest import Ingester

DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was archived.

    Args:
        segments: that were deleted, as their events are in the archive.
        events: in them.
        files: Parquet files that were written.
    """

    segments: int = 0
    events: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """The segments of one writer that are to be archived."""

    paths: tuple[Path, ...]
    start: Position


def compact(
    ingester: Ingester,
    *,
    older_than_days: float = 0.0,
    progress: Callable[[int], object] = lambda _events: None,
) -> Compacted:
    """Archive the sealed segments that are loaded.

    A writer's segments are archived in their order, so an old one behind a young one waits.

    Args:
        ingester: of the workspace.
        older_than_days: how long ago a segment must have been sealed.
        progress: told of events as they are archived.

    Raises:
        StoreError: the store does not hold what the segments hold; nothing has been changed.
    """
    ingester.ingest()
    ingester.checkpoint()  # what no segment can bring back must not hang on a write-ahead log
    ingester.publish()  # a reader that goes on in the log from an older place would miss segments
    archive = Archive(ingester.workspace.path)
    manifest = archive.manifest()
    before = ingester.now() - older_than_days * DAY_SECONDS
    log = ingester.workspace.log_path
    parts = _choose(log, manifest, positions(ingester.connection), before)
    if not parts:
        return Compacted()
    draft = archive.draft()
    chunks = _read_parts(draft / "log", parts)
    after, accounts = _load(draft, parts, chunks, ingester)
    written: dict[str, ArchivedFile] = {}
    events = 0
    for table in COLUMNS:
        for path, name, rows in export(ingester.connection, _selection(table), table, draft):
            _verify(ingester.connection, path, table, name, rows)
            target = archive.path / name
            for folder in (target.parent.parent, target.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            written[name] = ArchivedFile(table, rows, sha256_of(path))
            path.replace(target)
            for folder in (target.parent, target.parent.parent, archive.path):
                fsync(folder)
            events += rows
            progress(rows)
    for table, account in accounts.items():
        manifest = with_accounts(manifest, table, account)
    archive.commit(
        replace(
            manifest,
            positions={**manifest.positions, **after},
            files={**manifest.files, **written},
        )
    )
    archive.tidy()
    return Compacted(sum(len(part.paths) for part in parts.values()), events, len(written))


def _choose(
    log: Path, manifest: Manifest, loaded: Mapping[str, Position], before: float
) -> dict[str, _Part]:
    """Which segments to archive, by writer: from the first on, all read, ended and old.

    One that was cut off goes with the next one that was not, whose numbers tell what it lost; or
    alone, if its writer has none open and has not touched it since.
    """
    found: dict[str, _Part] = {}
    for writer, mark in loaded.items():
        start = manifest.positions.get(writer, Position())
        chosen: list[Path] = []
        cut_off: list[Path] = []
        for path in segments(log / writer):
            number = int(path.stem)
            if number < start.segment:
                continue
            if number >= mark.segment:
                break
            ended = _ended(path)
            if ended is not None and ended > before:
                break
            cut_off.append(path)
            if ended is not None:
                chosen += cut_off
                cut_off = []
        else:
            is_open = any((log / writer).glob(f"*{OPEN_SUFFIX}"))
            if not is_open and all(path.stat().st_mtime <= before for path in cut_off):
                chosen += cut_off
        if chosen:
            found[writer] = _Part(tuple(chosen), start)
    return found


def _ended(path: Path) -> float | None:
    """When a segment was ended, in seconds since 1970; None if it was cut off."""
    content = path.read_bytes()
    found = scan(content, is_end=True, is_final=True)
    if not found.frames or found.stop != len(content) or found.newer_format:
        return None
    last = found.frames[-1]
    if last[0] != METADATA or last[4] != len(content):
        return None
    for record in decode_metadata(content, last):
        match record:
            case [kind, int(time) | float(time), *_] if kind == END_RECORD:
                return float(time)
    return None


def _read_parts(folder: Path, parts: Mapping[str, _Part]) -> Path:
    """A log that consists of the chosen segments alone: links to them."""
    folder.mkdir(mode=0o700)
    for writer, part in parts.items():
        within = folder / writer
        within.mkdir(mode=0o700)
        for path in part.paths:
            try:
                os.link(path, within / path.name)
            except OSError:  # a file system without links
                shutil.copyfile(path, within / path.name)
    return folder


def _load(
    draft: Path, parts: Mapping[str, _Part], log: Path, ingester: Ingester
) -> tuple[dict[str, Position], dict[str, list[list[Any]]]]:
    """Read the segments into a store of their own, and compare it with the real one.

    Returns:
        Where the log goes on, and the rows of the accounts.
    """
    with contextlib.closing(open_store(draft / "segments.duckdb")) as connection:
        starts = [
            [w, p.start.segment, p.start.offset, p.start.next_sequence] for w, p in parts.items()
        ]
        connection.executemany("INSERT INTO watermark VALUES (?, ?, ?, ?)", starts)
        loader = Loader(connection, clock=ingester.now)
        reader = LogReader(log)
        while True:
            with collection_paused():
                chunk = read_batch(reader, log, loader.positions)
                loader.load(chunk)
            if not chunk.has_more:
                break
        after = loader.positions
        for writer, part in parts.items():
            if after[writer].segment != int(part.paths[-1].stem) + 1:
                raise StoreError(f"the segment {part.paths[-1]} could not be read to its end")
        spans = {w: (p.start.next_sequence, after[w].next_sequence) for w, p in parts.items()}
        set_span(connection, spans)
        set_span(ingester.connection, spans)
        mine, theirs = event_hashes(connection), event_hashes(ingester.connection)
        if mine != theirs:
            names = ", ".join(name for name in mine if mine[name] != theirs[name])
            raise StoreError(
                f"the store differs from the log in {names}; nothing was archived: "
                f"run `abkit rebuild {ingester.workspace.path}`"
            )
        accounts = {table: _rows(connection, table) for table in ACCOUNTS}
    return after, accounts


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> list[list[Any]]:
    return [list(row) for row in connection.execute(f"FROM {table} ORDER BY ALL").fetchall()]


def _selection(table: str) -> str:
    columns = ", ".join(COLUMNS[table])
    return f"SELECT {columns} FROM ({IN_SPAN.format(table)})"  # noqa: S608 - names of ours


def _verify(
    connection: duckdb.DuckDBPyConnection, path: Path, table: str, name: str, rows: int
) -> None:
    """See that a file holds the rows of its day, by reading it back."""
    day = name.split("/")[1].removeprefix("date=")
    source = f"(FROM ({_selection(table)}) WHERE time::DATE = DATE '{day}')"
    wanted = hash_rows(connection, table, source)
    found = hash_rows(
        connection, table, f"read_parquet('{quoted(path)}', hive_partitioning = false)"
    )
    if wanted != found or found.rows != rows:
        raise StoreError(f"{path} does not hold what was written to it; nothing was archived")
