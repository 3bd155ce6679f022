"""Reading the log in batches that are large and yet bounded, in events and in bytes."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Final

from abkit.log import Chunk, Position

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from abkit.log import LogReader

BATCH_RECORDS: Final = 200_000
BATCH_BYTES: Final = 64 * 2**20
# Each read lists every writer's folder, so many writers need a longer step.
STEP_RECORDS: Final = 4_096
STEP_RECORDS_PER_WRITER: Final = 8


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """No search for cycles while a batch is in memory.

    Its lists hold none, and looking through hundreds of thousands of them again and again takes
    three times as long as loading them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_batch(
    reader: LogReader,
    folder: Path,
    positions: Mapping[str, Position],
    *,
    most_records: int = BATCH_RECORDS,
    most_bytes: int = BATCH_BYTES,
) -> Chunk:
    """The events after some positions, as many as make a good transaction.

    Args:
        reader: of the log.
        folder: of the same log.
        positions: by writer.
        most_records: events to stop at; there may be some more, as no frame is split.
        most_bytes: bytes of segments to stop at, likewise.
    """
    batch = Chunk(positions=dict(positions))
    records = consumed = 0
    step = max(STEP_RECORDS, STEP_RECORDS_PER_WRITER * len(positions))
    while True:
        left = min(step, most_records - records)
        chunk = reader.read(batch.positions, max_records=left, max_bytes=most_bytes - consumed)
        consumed += _bytes_between(folder, batch.positions, chunk.positions)
        records += len(chunk)
        batch = Chunk(
            runs=batch.runs + chunk.runs,
            gaps=batch.gaps + chunk.gaps,
            losses=batch.losses + chunk.losses,
            damages=batch.damages + chunk.damages,
            positions=chunk.positions,
            duplicates=batch.duplicates + chunk.duplicates,
            has_more=chunk.has_more,
        )
        if not chunk.has_more or records >= most_records or consumed >= most_bytes:
            return batch


def _bytes_between(
    folder: Path, before: Mapping[str, Position], after: Mapping[str, Position]
) -> int:
    """Bytes of segments between positions; of segments left behind, as far as they exist."""
    total = 0
    for writer, end in after.items():
        start = before.get(writer, Position())
        if start == end:
            continue
        total += end.offset - start.offset
        for number in range(start.segment, min(end.segment, start.segment + 1_000)):
            try:
                total += (folder / writer / f"{number:08d}.seg").stat().st_size
            except OSError:
                continue
    return total
