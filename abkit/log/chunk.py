"""What a read of the log returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Position:
    """How far a writer's log has been read. Store it with what was read: it is the watermark.

    Args:
        segment: number of the segment to read next, from 1 on; it need not exist yet.
        offset: byte in it.
        next_sequence: number of the first event not yet seen; lower ones are skipped.
    """

    segment: int = 1
    offset: int = 0
    next_sequence: int = 1


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive events of one writer.

    Args:
        writer: id of the writer.
        first_sequence: number of the first record; the others count on from it.
        records: as they were appended, tuples turned into lists.
    """

    writer: str
    first_sequence: int
    records: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers that a writer used and that did not arrive: dropped by it, or damaged on disk.

    Args:
        writer: id of the writer.
        first_sequence: the first missing number.
        count: how many are missing.
    """

    writer: str
    first_sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What a writer says it dropped; the highest count per key holds, so re-reading is harmless.

    Args:
        writer: id of the writer.
        time: when it was written, in seconds since 1970 in UTC.
        experiment: of the events, "" if unknown.
        variant: of the events, "" if unknown.
        reason: see `WriterCounts.dropped`.
        count: events since the writer began.
    """

    writer: str
    time: float
    experiment: str
    variant: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that could not be read; reading went on after them.

    Args:
        writer: id of the writer.
        segment: number of the segment.
        offset: first byte.
        length: number of bytes; 0 where the file itself is at fault.
        reason: "corrupt", "torn tail" (the writer died in a write), "malformed" (checksum
            right, contents wrong), "no end mark" (cut off, or its writer failed), "shrunk",
            "foreign segment" (another writer's file: not read), "newer format N" or the name of
            a system error (both reported again at each read, which does not pass them).
        first_missing: number of the first event that did not arrive; 0 if unknown or none.
        missing: how many did not arrive. The same numbers are in a `Gap`, and some of them may
            have been dropped by the writer.
    """

    writer: str
    segment: int
    offset: int
    length: int
    reason: str
    first_missing: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read found.

    Args:
        runs: the events, in the order of each writer.
        gaps: missing numbers.
        losses: what writers say they dropped.
        damages: unreadable bytes.
        positions: where to go on, for each writer known.
        duplicates: events skipped because their numbers had been seen: copies.
        has_more: whether the read stopped at its limit rather than at the end.
    """

    runs: list[Run] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    positions: dict[str, Position] = field(default_factory=dict)
    duplicates: int = 0
    has_more: bool = False

    def __len__(self) -> int:
        """Number of events."""
        return sum(len(run.records) for run in self.runs)

    def rows(self) -> Iterator[tuple[str, int, list[Any]]]:
        """Each event as (writer, sequence, record)."""
        for run in self.runs:
            for sequence, record in enumerate(run.records, run.first_sequence):
                yield run.writer, sequence, record
