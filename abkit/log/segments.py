"""One segment after the other: rotation, failures, and putting data on disk."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Final

from abkit.log.files import error_name
from abkit.log.frames import END_RECORD, FORMAT, HEADER_RECORD, encode_metadata
from abkit.log.segment import Segment

if TYPE_CHECKING:
    from abkit.log.settings import Settings

FIRST_DELAY_SECONDS: Final = 0.05
LAST_DELAY_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 1.0
NUMBERS_TO_TRY: Final = 3


class Segments:
    """The segments of one writer in one process.

    Args:
        settings: of the writer.

    Attributes:
        lock: to be held by whoever calls `put` or `end`, or changes `next_sequence`.
        next_sequence: number of the next event, from 1 on.
        last_error: short name of the latest failure, such as ENOSPC; "" if there was none.
        has_unsynced: whether there is anything for `sync` to do.
        has_failed_sync: whether something that `sync` should have put on disk may be lost.
    """

    def __init__(self, settings: Settings) -> None:
        self.pid = os.getpid()
        self.host = re.sub(r"[^a-z0-9]+", "-", os.uname().nodename.lower())[:40].strip("-")
        self.writer_id = f"{self.host or 'host'}-{self.pid}-{os.urandom(8).hex()}"
        self.lock = threading.Lock()
        self.next_sequence = 1
        self.last_error = ""
        self.has_unsynced = False
        self.has_failed_sync = False
        self._settings = settings
        self._monotonic = settings.monotonic
        self._segment: Segment | None = None
        self._retired: list[Segment] = []
        self._number = 1
        self._retry_at = 0.0
        self._delay = FIRST_DELAY_SECONDS
        self._sync_lock = threading.Lock()

    def put(self, data: bytes, first_sequence: int) -> str:
        """Append frames; returns why that failed, "" if it did not.

        Args:
            data: whole frames.
            first_sequence: number of the first event in them, or of the next one.
        """
        segment = self._segment
        if segment is not None and self._is_full(segment, len(data)):
            self.end(first_sequence)
            segment = None
        # Once more in another file when the first attempt fails: it may be the file's size
        # that is limited, or its place on the disk that is bad.
        if segment is None or not self._write(segment, data):
            segment = self._open(first_sequence)
            if segment is None or not self._write(segment, data):
                self._back_off()
                return self.last_error
            self._delay = FIRST_DELAY_SECONDS
        self.has_unsynced = True
        return ""

    def _is_full(self, segment: Segment, more_bytes: int) -> bool:
        if self._monotonic() >= segment.deadline:
            return True
        size = segment.size_bytes + more_bytes
        return size > self._settings.segment_bytes and not segment.is_bare

    def _write(self, segment: Segment, data: bytes) -> bool:
        try:
            segment.write(data)
        except OSError as error:
            self.note(error)
            self._retire(segment)
            return False
        except BaseException:
            self._retire(segment)
            raise
        return True

    def _open(self, first_sequence: int) -> Segment | None:
        now = self._monotonic()
        if now < self._retry_at:
            return None
        settings = self._settings
        for _ in range(NUMBERS_TO_TRY):
            # Never used twice: a file that could neither be written nor removed may be sealed by
            # `seal_dead`, and would then hide one of the same number.
            number = self._number
            self._number += 1
            deadline = now + settings.segment_seconds
            try:
                segment = Segment(settings.files, settings.folder, self.writer_id, number, deadline)
                segment.begin(self._head(number, first_sequence))
            except FileExistsError as error:
                self.note(error)
                continue
            except (OSError, ValueError) as error:  # ValueError: a folder with a NUL in its name
                self.note(error)
                return None
            self._segment = segment
            return segment
        return None

    def _head(self, number: int, first_sequence: int) -> bytes:
        about = {
            "format": FORMAT,
            "writer": self.writer_id,
            "host": self.host,
            "pid": self.pid,
            "segment": number,
        }
        return encode_metadata(first_sequence, [(HEADER_RECORD, self._settings.time(), about)])

    def _back_off(self) -> None:
        now = self._monotonic()
        if now >= self._retry_at:
            self._retry_at = now + self._delay
            self._delay = min(2 * self._delay, LAST_DELAY_SECONDS)

    def retry_now(self) -> None:
        """Let the next `put` try at once, however short ago the last failure is."""
        self._retry_at = 0.0

    def note(self, error: BaseException) -> None:
        """Remember a failure."""
        self.last_error = error_name(error)

    def end(self, next_sequence: int) -> None:
        """Complete the segment that is being written, if any.

        Args:
            next_sequence: number of the first event that is not in it.
        """
        segment = self._segment
        if segment is None:
            return
        mark = encode_metadata(next_sequence, [(END_RECORD, self._settings.time(), "sealed")])
        try:
            segment.write(mark)
        except OSError as error:
            self.note(error)
        self._retire(segment)

    def _retire(self, segment: Segment) -> None:
        """Never write to a segment again."""
        self._segment = None
        if self._settings.is_durable:
            # An fsync takes long, and only `sync` may close a file that it may be working on.
            self._retired.append(segment)
            self.has_unsynced = True
        else:
            self._seal(segment)

    def _seal(self, segment: Segment) -> bool:
        if segment.is_bare:
            segment.discard()
            return True
        try:
            segment.seal(durable=self._settings.is_durable and segment.is_syncable)
        except OSError as error:
            self.note(error)
            return False
        return True

    def sync(self, timeout_seconds: float = LOCK_SECONDS) -> bool:
        """Put on disk what has been written, and seal what is complete. Takes the lock itself.

        Args:
            timeout_seconds: how long to wait for other threads; the disk takes its own time.

        Returns:
            False if anything failed, and may be lost when the power fails.
        """
        if not self._sync_lock.acquire(timeout=max(0.0, timeout_seconds)):
            return False
        try:
            if not self.lock.acquire(timeout=max(0.0, timeout_seconds)):
                return False
            try:
                segment = self._segment if self.has_unsynced else None
                retired = self._retired
                self._retired = []
                self.has_unsynced = False
            finally:
                self.lock.release()
            done = [self._seal(old) for old in retired]
            if segment is not None:
                done.append(self._sync(segment))
            self.has_failed_sync |= not all(done)
            return all(done)
        finally:
            self._sync_lock.release()

    def _sync(self, segment: Segment) -> bool:
        try:
            segment.sync()
        except OSError as error:
            self.note(error)
            with self.lock:
                if self._segment is segment:
                    self._retire(segment)
            return False
        return True

    def release_inherited(self) -> None:
        """In a forked child: close its copies of the parent's descriptors."""
        for segment in (self._segment, *self._retired):
            if segment is not None:
                segment.release_inherited()
