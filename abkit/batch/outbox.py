"""Events that go to a workspace exactly once, however often a job is killed or run again.

A part is a numbered set of rows, committed in the prediction database before anything is logged.
It becomes one writer of the event log whose name is made of its contents, written aside and put
in place by one rename. Whoever repeats it finds it there, and the log itself counts an event of
the same writer and number once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from abkit.batch.database import meta, one, transaction
from abkit.errors import StoreError
from abkit.events import EXPOSURE, OUTCOME
from abkit.log.files import FILE_MODE, FOLDER_MODE
from abkit.log.frames import (
    END_RECORD,
    EVENTS,
    FORMAT,
    HEADER_RECORD,
    encode_frame,
    encode_metadata,
    encode_records,
)
from abkit.log.segment import SEALED_SUFFIX, segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import duckdb

PART_ROWS: Final = 1_000_000
_FRAME_RECORDS: Final = 5_000
_FRAME_BYTES: Final = 8 * 2**20
_SEGMENT_FRAMES: Final = 100
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY)

_RECORDS: Final = {
    "exposure": "SELECT unit, variant, epoch FROM abkit_assigned "
    "WHERE part = $part AND reason = 'split' ORDER BY unit",
    "outcome": "SELECT unit, metric, value, answered, epoch_us(scored_at) FROM abkit_label "
    "WHERE part = $part ORDER BY name, version, unit, metric, answered",
}


def next_part(connection: duckdb.DuckDBPyConnection) -> int:
    """The number of a new part."""
    return int(one(connection, "SELECT coalesce(max(part), 0) + 1 FROM abkit_part"))


def log_parts(
    connection: duckdb.DuckDBPyConnection,
    log: Path,
    *,
    progress: Callable[[int], object] = lambda _events: None,
) -> int:
    """Log every part that has not been logged; returns the number of events.

    Args:
        connection: the prediction database, open for writing, in no transaction.
        log: the folder of the workspace's log.
        progress: told of events as they are written.

    Raises:
        StoreError: the log cannot be written; the next job goes on here.
    """
    home = str(log.resolve())
    waiting = connection.execute(
        "SELECT part, kind, experiment, epoch_us(time) FROM abkit_part "
        "WHERE writer IS NULL AND workspace = $home ORDER BY part",
        {"home": home},
    ).fetchall()
    events = 0
    for part, kind, experiment, time in waiting:
        writer, count = _log(connection, log, (part, kind, experiment, time / 1e6), progress)
        with transaction(connection):
            connection.execute(
                "UPDATE abkit_part SET writer = $writer WHERE part = $part",
                {"writer": writer, "part": part},
            )
        events += count
    return events


def _log(
    connection: duckdb.DuckDBPyConnection,
    log: Path,
    part: tuple[int, str, str, float],
    progress: Callable[[int], object],
) -> tuple[str, int]:
    """Write one part; returns the writer's name and the number of events."""
    number, kind, experiment, time = part
    digest = hashlib.sha256(f"{meta(connection, 'id')}:{number}:{kind}".encode())
    frames: list[tuple[int, bytes]] = []
    for batch in _batches(connection, number, kind, experiment, time):
        for count, payload in _payloads(batch):
            digest.update(payload)
            frames.append((count, payload))
        progress(len(batch))
    events = sum(count for count, _ in frames)
    writer = f"batch-{number}-{digest.hexdigest()[:32]}"
    if events:
        try:
            _place(log, writer, frames, time)
        except OSError as error:
            raise StoreError(
                f"cannot log {events:,} events to {log}: {error.strerror}; run the job again"
            ) from None
    return writer, events


def _batches(
    connection: duckdb.DuckDBPyConnection, number: int, kind: str, experiment: str, time: float
) -> Iterator[list[tuple[Any, ...]]]:
    found = connection.cursor().execute(_RECORDS[kind], {"part": number})
    while rows := found.fetchmany(_FRAME_RECORDS):
        if kind == "exposure":
            yield [
                (EXPOSURE, time, experiment, unit, variant, epoch) for unit, variant, epoch in rows
            ]
        else:
            # At the time of the prediction: then the unit's variant was the one that it measures.
            yield [
                (OUTCOME, at / 1e6, unit, metric, value, experiment, answered)
                for unit, metric, value, answered, at in rows
            ]


def _payloads(records: list[tuple[Any, ...]]) -> Iterator[tuple[int, bytes]]:
    payload = encode_records(records)
    if len(payload) <= _FRAME_BYTES or len(records) == 1:
        yield len(records), payload
        return
    middle = len(records) // 2
    yield from _payloads(records[:middle])
    yield from _payloads(records[middle:])


def _place(log: Path, writer: str, frames: list[tuple[int, bytes]], time: float) -> None:
    """Put the writer's whole folder in place in one step, unless it is there."""
    if (log / writer).is_dir():
        return
    # A dot is in no writer's name: nobody reads it before it has its own.
    draft = log / f".{writer}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(FOLDER_MODE)
    try:
        sequence = 1
        for segment, start in enumerate(range(0, len(frames), _SEGMENT_FRAMES), 1):
            chosen = frames[start : start + _SEGMENT_FRAMES]
            sequence = _segment(draft, writer, segment, chosen, sequence=sequence, time=time)
        _sync(draft)
        try:
            draft.rename(log / writer)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        _sync(log)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _segment(
    folder: Path,
    writer: str,
    number: int,
    frames: list[tuple[int, bytes]],
    *,
    sequence: int,
    time: float,
) -> int:
    """Write one sealed segment; returns the number of the event after it."""
    about = {
        "format": FORMAT,
        "writer": writer,
        "host": "batch",
        "pid": os.getpid(),
        "segment": number,
    }
    path = folder / segment_name(number, SEALED_SUFFIX)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as file:
        file.write(encode_metadata(sequence, [(HEADER_RECORD, time, about)]))
        for count, payload in frames:
            file.write(encode_frame(EVENTS, sequence, count, payload))
            sequence += count
        file.write(encode_metadata(sequence, [(END_RECORD, time, "sealed")]))
        file.flush()
        os.fsync(file.fileno())
    return sequence


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
