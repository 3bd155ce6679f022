"""One process's side of a writer: its queue, its losses and its segments.

A forked child makes a journal of its own and never touches the parent's. Methods whose
docstring says so want `segments.lock` held.
"""

from __future__ import annotations

import math
import os
from collections import deque
from dataclasses import dataclass
from time import sleep
from typing import TYPE_CHECKING, Final

from abkit.log.batch import Batch, take_payload
from abkit.log.flusher import Flusher
from abkit.log.frames import (
    EVENTS,
    LOSS_RECORD,
    encode_event,
    encode_frame,
    encode_metadata,
)
from abkit.log.losses import Losses
from abkit.log.segments import LOCK_SECONDS, Segments

if TYPE_CHECKING:
    from abkit.events import Record
    from abkit.log.batch import Queued
    from abkit.log.losses import Key
    from abkit.log.settings import Settings

SYNC_SECONDS: Final = 0.5  # together with the fsync itself, well within the promised second
SLOW_SECONDS: Final = 0.001
SLOW_RATIO: Final = 4
SLOW_WRITES: Final = 3
SPARE_CALLERS_SECONDS: Final = 1.0
MOST_BATCHES: Final = 8  # joined into one frame when the queue has grown
YIELD_SECONDS: Final = 0.0005
PATIENCE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers of events: handed in, written, dropped by key, waiting in memory."""

    accepted: int
    written: int
    dropped: dict[Key, int]
    queued: int


class Journal:
    """What one process writes.

    Args:
        settings: of the writer.
        is_closed: whether the writer was closed before the fork.
    """

    def __init__(self, settings: Settings, *, is_closed: bool = False) -> None:
        self.pid = os.getpid()
        self.segments = Segments(settings)
        self.queue: deque[Queued] = deque()
        self.queue_limit = 0 if is_closed else settings.queue_records
        self.flush_at = settings.flush_records
        self.losses = Losses()
        self.written = 0
        self.is_closed = is_closed
        self._settings = settings
        self._monotonic = settings.monotonic
        self._lock = self.segments.lock
        self._is_stalled = False
        self._batch: Batch | None = None
        self._numbered_losses = 0
        self._synced_at = 0.0
        self._slow_writes = 0
        self._spare_callers_until = 0.0
        self._relieved_at = -math.inf
        self._writing_since = 0.0
        interval = SYNC_SECONDS if settings.is_durable else settings.flush_seconds
        self.flusher = Flusher(self._tick, self._has_work, interval, settings.monotonic)

    # "os" and "fsync": on the caller's thread

    def append(self, record: Record, experiment: object, variant: object) -> bool:
        """Hand one event to the operating system; False if it was dropped."""
        payload, reason = encode_event(record)
        if not self._lock.acquire(blocking=False) and not self._wait():
            self.losses.add(experiment, variant, "busy")
            return False
        try:
            if self.is_closed:
                reason = "closed"
            elif not reason:
                reason = self._write_event(payload)
            if reason:
                self.losses.add(experiment, variant, reason)
                try:
                    self._report_losses()
                except Exception as error:  # noqa: BLE001 - counted above: not once more
                    self.segments.note(error)
        except Exception:
            raise  # the caller counts it
        except BaseException:  # such as the exit that a signal handler asks for
            if not reason:
                self.losses.add(experiment, variant, "internal")
            raise
        finally:
            self._lock.release()
            self._is_stalled = False
        if reason:
            self._see_to_losses()
        elif self._settings.is_durable:
            self._see_to_sync()
        return not reason

    def _wait(self) -> bool:
        """Wait for the lock, but not for ever: of a hung disk each thread learns only once."""
        if not self._is_stalled and self._lock.acquire(timeout=LOCK_SECONDS):
            return True
        self._is_stalled = True
        return False

    def _write_event(self, payload: bytes) -> str:
        if self.losses.late or self.losses.changed:
            self._number_losses()
        segments = self.segments
        first = segments.next_sequence
        segments.next_sequence = first + 1  # before the write: no number is ever used twice
        frame = encode_frame(EVENTS, first, 1, payload)
        try:
            reason = self._put(frame, first)
        except Exception as error:  # noqa: BLE001 - such as a time limit that a signal handler raises
            segments.note(error)
            reason = "internal"
        except BaseException:
            self._numbered_losses += 1  # the same
            raise
        if reason:
            self._numbered_losses += 1  # the loss that the caller counts has this number
        else:
            self.written += 1
        return reason

    def _see_to_losses(self) -> None:
        if not self.is_closed and self.losses.changed and self.flusher.parked:
            self.flusher.wake()

    def _see_to_sync(self) -> None:
        if self.flusher.parked and not self.flusher.wake():
            now = self._monotonic()
            if now - self._synced_at >= SYNC_SECONDS:
                self._synced_at = now
                self.segments.sync()

    # "buffered": through the queue

    def wake(self) -> None:
        """Have the flusher see to the queue; without one, each call writes for itself."""
        if not self.flusher.wake():
            self.flush_at = 1

    def relieve(self) -> None:
        """Write one batch on the caller's thread, unless that could make it wait."""
        try:
            if self.flusher.absent and self.flusher.wake():
                self.flush_at = self._settings.flush_records
            now = self._monotonic()
            if now < self._spare_callers_until:
                return
            records = self._settings.flush_records
            batches = len(self.queue) // records
            if not self._lock.acquire(blocking=False) and not self._make_way(now, batches):
                return
            try:
                self._relieved_at = started = self._monotonic()
                self._write_batch(records * min(max(1, batches), MOST_BATCHES))
            finally:
                self._lock.release()
            self._judge_disk(self._monotonic() - started)
        except Exception as error:  # noqa: BLE001 - the event is in the queue, whatever this is
            self.segments.note(error)

    def _make_way(self, now: float, batches: int) -> bool:
        """Let the thread that is writing catch up, for half a millisecond at most.

        It needs Python's lock, which threads that do nothing but append would not give up. If
        it has been writing for long, it is the disk that it waits for: then nobody joins it.
        """
        if batches < MOST_BATCHES or now - self._writing_since > PATIENCE_SECONDS:
            return False
        return self._lock.acquire(timeout=YIELD_SECONDS)

    def _judge_disk(self, took_seconds: float) -> None:
        """Leave the writing to the flusher for a while when the disk keeps callers waiting.

        A long time may also have been spent waiting for Python's lock, which writing from
        another thread would not cure: so measure what giving up that lock costs by itself.
        """
        if took_seconds < SLOW_SECONDS:
            self._slow_writes = 0
            return
        before = self._monotonic()
        sleep(0)
        after = self._monotonic()
        self._slow_writes += took_seconds > SLOW_RATIO * (after - before)
        if self._slow_writes >= SLOW_WRITES and not self.flusher.absent:
            self._spare_callers_until = after + SPARE_CALLERS_SECONDS

    def _write_batch(self, most_records: int) -> bool:
        """Write one frame of queued events; False if none was written. Wants the lock."""
        self._writing_since = self._monotonic()
        if self._batch is None and not self.is_closed:
            self._batch = self._take_batch(most_records)
        batch = self._batch
        if batch is None or self._put(batch.data, batch.first_sequence):
            return False
        self.written += len(batch.events)
        self._batch = None
        return True

    def _take_batch(self, most_records: int) -> Batch | None:
        payload, events = take_payload(self.queue, most_records, self.losses)
        if not events:
            return None
        if self.losses.late or self.losses.changed:
            self._number_losses()
        first = self.segments.next_sequence
        self.segments.next_sequence = first + len(events)
        return Batch(encode_frame(EVENTS, first, len(events), payload), first, events)

    # All modes

    def _number_losses(self) -> None:
        """Let dropped events consume their numbers, so that each is a gap. Wants the lock."""
        self.losses.fold()
        total = self.losses.total
        self.segments.next_sequence += total - self._numbered_losses
        self._numbered_losses = total

    def _put(self, data: bytes, first_sequence: int) -> str:
        """Append data after any news of losses; returns why not. Wants the lock."""
        if not self.losses.changed:
            return self.segments.put(data, first_sequence)
        news = self.losses.take_changed()
        time = self._settings.time()
        records = [(LOSS_RECORD, time, *key, count) for key, count in news.items()]
        frame = encode_metadata(first_sequence, records)
        reason = "internal"
        try:
            reason = self.segments.put(frame + data, first_sequence)
        finally:
            if reason:
                self.losses.restore(news)
        return reason

    def _report_losses(self) -> bool:
        """Write the counts that grew, if writing works; True if none is left. Wants the lock."""
        self._number_losses()
        if self.losses.changed and not self.is_closed:
            # An event that is numbered and still waits must not seem to be missing.
            waits = self._batch
            self._put(b"", waits.first_sequence if waits else self.segments.next_sequence)
        return not self.losses.changed

    def _has_work(self) -> bool:
        return bool(
            self.queue
            or self._batch
            or self.losses.late
            or self.losses.changed
            or (self._settings.is_durable and self.segments.has_unsynced)
        )

    def _tick(self) -> None:
        try:
            # Callers that write for themselves are quicker at it than a thread that has to
            # take Python's lock from them; whatever they leave is seen to when they pause.
            now = self._monotonic()
            are_callers_writing = now - self._relieved_at < self._settings.flush_seconds
            if not are_callers_writing or now < self._spare_callers_until:
                self._drain(LOCK_SECONDS)
            if self._settings.is_durable:
                self.segments.sync()
        except Exception as error:  # noqa: BLE001 - the flusher must live on
            self.segments.note(error)

    def flush(self, timeout_seconds: float) -> bool:
        """Write what waits, at once even after failures; True if nothing is left."""
        started = self._monotonic()
        self.segments.retry_now()
        is_done = self._drain(timeout_seconds)
        if not self._settings.is_durable:
            return is_done
        is_synced = self.segments.sync(started + timeout_seconds - self._monotonic())
        has_failed = self.segments.has_failed_sync  # perhaps the flusher's, before this one
        self.segments.has_failed_sync = False
        return is_done and is_synced and not has_failed

    def _drain(self, timeout_seconds: float) -> bool:
        deadline = self._monotonic() + timeout_seconds
        records = self._settings.flush_records * MOST_BATCHES
        while True:
            left = max(0.0, deadline - self._monotonic())
            if not self._lock.acquire(timeout=left):
                return False
            try:
                if not self._write_batch(records) and (self._batch or not self.queue):
                    return self._report_losses() and self._batch is None
            finally:
                self._lock.release()
            if not left:
                return False

    def close(self, timeout_seconds: float) -> None:
        """Write what waits, count what cannot be, seal the segment, end the thread."""
        self.queue_limit = 0
        self.flush(timeout_seconds)
        self.flusher.stop(timeout_seconds)
        if not self._lock.acquire(timeout=timeout_seconds):
            return
        try:
            if not self.is_closed:
                self._drop_queued(self.segments.last_error or "closed")
                self._report_losses()
            self.is_closed = True
            self.segments.end(self.segments.next_sequence)
        finally:
            self._lock.release()
        if self._settings.is_durable:
            self.segments.sync(timeout_seconds)

    def _drop_queued(self, reason: str) -> None:
        """Count what will never be written. Wants the lock."""
        lost: list[Queued] = []
        if self._batch is not None:
            lost += self._batch.events
            self._numbered_losses += len(lost)
            self._batch = None
        lost += [self.queue.popleft() for _ in range(len(self.queue))]
        for _, experiment, variant in lost:
            self.losses.add(experiment, variant, reason)

    def tally(self) -> Tally:
        """Where every event is that was handed in. Waits at most a second for the lock."""
        is_locked = self._lock.acquire(timeout=LOCK_SECONDS)
        try:
            if self.is_closed and is_locked:
                self._drop_queued("closed")  # handed in while the writer was being closed
            self.losses.fold()
            dropped = dict(self.losses.counts)
            waiting = len(self.queue)
            numbered = self.segments.next_sequence - 1 - self._numbered_losses
            queued = waiting + (len(self._batch.events) if self._batch else 0)
            return Tally(numbered + sum(dropped.values()) + waiting, self.written, dropped, queued)
        finally:
            if is_locked:
                self._lock.release()
