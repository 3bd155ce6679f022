"""Turning the frames of one writer into events, gaps, losses and damages, in order."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from abkit.log.chunk import Chunk, Damage, Gap, Loss, Position, Run
from abkit.log.frames import END_RECORD, EVENTS, HEADER_RECORD, LOSS_RECORD, METADATA
from abkit.log.scan import Frame, Scan, decode, decode_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN_RECORDS: Final = 1_024


class Cursor:
    """Where one read of a writer's log stands.

    Args:
        writer: id of the writer.
        position: where the read begins.
        chunk: collects what is found.
    """

    def __init__(self, writer: str, position: Position, chunk: Chunk) -> None:
        self.writer = writer
        self.segment = position.segment
        self.offset = position.offset
        self.next_sequence = position.next_sequence
        self.events = 0
        self.bytes = 0
        self.duplicates = 0
        self.is_at_end_mark = False
        self.is_foreign = False
        self._chunk = chunk
        self._open_damage: int | None = None

    @property
    def position(self) -> Position:
        """Where to go on."""
        return Position(self.segment, self.offset, self.next_sequence)

    @property
    def is_open(self) -> bool:
        """Whether it is not yet known what the last damage has cost."""
        return self._open_damage is not None

    def enter(self, segment: int) -> None:
        """Go to a segment; to its beginning unless it is the one already being read."""
        if segment != self.segment:
            self.segment, self.offset = segment, 0
        self.is_at_end_mark = self.is_foreign = False

    def leave(self) -> None:
        """Be done with the segment."""
        self.segment, self.offset = self.segment + 1, 0

    def report(self, offset: int, length: int, reason: str) -> None:
        """Note unreadable bytes; what they cost is known once a frame follows."""
        self.is_at_end_mark = False
        damage = Damage(self.writer, self.segment, offset, length, reason)
        self._open_damage = len(self._chunk.damages)
        self._chunk.damages.append(damage)

    def take(self, buffer: bytes, found: Scan, limit: int) -> None:
        """Take in what a scan found at `offset`, and move on.

        Args:
            buffer: the scanned bytes.
            found: what is in them.
            limit: stop after the frame in which `events` reaches it.
        """
        damaged = deque(found.damaged)
        batch: list[Frame] = []
        waiting = 0
        for frame in found.frames:
            kind, first, events, start, end = frame
            if damaged and damaged[0][0] < start:
                self._flush(buffer, batch)
                is_torn = kind == METADATA and first == 0  # only `seal_dead` knows no number
                self._report_stretch(damaged.popleft(), "torn tail" if is_torn else "corrupt")
            if kind != EVENTS or first != self.next_sequence or self._open_damage is not None:
                self._flush(buffer, batch)
                is_wanted = self._take_unusual(buffer, frame)
                if self.is_foreign:
                    return
                if not is_wanted:
                    continue
            batch.append(frame)
            self.is_at_end_mark = False
            self.next_sequence = first + events
            self.events += events
            waiting += events
            if waiting >= RUN_RECORDS or self.events >= limit:
                self._flush(buffer, batch)
                waiting = 0
                if self.events >= limit:
                    self.offset += end
                    self.bytes += end
                    return
        self._flush(buffer, batch)
        for stretch in damaged:  # it reaches to the end of a file that no longer grows
            self._report_stretch(stretch, "torn tail")
        self.offset += found.stop
        self.bytes += found.stop

    def _report_stretch(self, stretch: tuple[int, int], reason: str) -> None:
        start, end = stretch
        self.report(self.offset + start, end - start, reason)

    def _flush(self, buffer: bytes, batch: list[Frame]) -> None:
        """Decode frames that follow one another."""
        if not batch:
            return
        records = decode(buffer, batch)
        if records is not None:
            self._chunk.runs.append(Run(self.writer, batch[0][1], records))
        elif len(batch) > 1:
            for frame in batch:
                self._flush(buffer, [frame])
        else:
            _, first, events, _, _ = batch[0]
            self.events -= events
            self._lose(batch[0], first, "malformed")
        batch.clear()

    def _lose(self, frame: Frame, first_missing: int, reason: str) -> None:
        _, first, events, start, end = frame
        missing = first + events - first_missing
        self._chunk.gaps.append(Gap(self.writer, first_missing, missing))
        self._chunk.damages.append(
            Damage(
                self.writer,
                self.segment,
                self.offset + start,
                end - start,
                reason,
                first_missing,
                missing,
            )
        )

    def _take_unusual(self, buffer: bytes, frame: Frame) -> bool:
        """Take in a frame that is not simply the next events; True if its events are wanted."""
        if frame[0] == METADATA:
            self._take_metadata(buffer, frame)
            return False
        kind, first, events, _, _ = frame
        self._close_gap(first)
        self.is_at_end_mark = False
        past = min(self.next_sequence - first, events)
        self.duplicates += past
        if past == events:
            return False
        if kind == EVENTS and not past:
            return True
        # A frame of which some events are known, or whose kind is not: take what is new in it.
        records = decode(buffer, [frame]) if kind == EVENTS else None
        if records is None:
            reason = "malformed" if kind == EVENTS else f"unknown kind {kind}"
            self._lose(frame, self.next_sequence, reason)
        else:
            self._chunk.runs.append(Run(self.writer, self.next_sequence, records[past:]))
            self.events += events - past
        self.next_sequence = first + events
        return False

    def _close_gap(self, first_sequence: int) -> None:
        """Note that everything before a number is now known to have arrived or to be missing."""
        missing = first_sequence - self.next_sequence
        if missing > 0:
            self._chunk.gaps.append(Gap(self.writer, self.next_sequence, missing))
            if self._open_damage is not None:
                damages = self._chunk.damages
                damages[self._open_damage] = replace(
                    damages[self._open_damage], first_missing=self.next_sequence, missing=missing
                )
            self.next_sequence = first_sequence
        self._open_damage = None

    def _take_metadata(self, buffer: bytes, frame: Frame) -> None:
        records = decode_metadata(buffer, frame)
        _, first, _, start, _ = frame
        for record in records:
            if record[0] == HEADER_RECORD and _writer_of(record) not in {self.writer, None}:
                self.report(self.offset + start, 0, "foreign segment")
                self.is_foreign = True
                return
        if first:
            self._close_gap(first)
        self.is_at_end_mark = any(record[0] == END_RECORD for record in records)
        losses = (_loss_of(self.writer, record) for record in records if record[0] == LOSS_RECORD)
        self._chunk.losses.extend(loss for loss in losses if loss is not None)


def _writer_of(header: Sequence[Any]) -> str | None:
    match header:
        case [_, _, {"writer": str(writer)}]:
            return writer
    return None


def _loss_of(writer: str, record: Sequence[Any]) -> Loss | None:
    match record:
        case [_, int(time) | float(time), str(experiment), str(variant), str(reason), int(count)]:
            return Loss(writer, float(time), experiment, variant, reason, count)
    return None
