"""The writing end of the event log, as serving code holds it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from os import getpid
from typing import TYPE_CHECKING, Self

from abkit.log.files import FileSystem, OsFiles
from abkit.log.journal import Journal
from abkit.log.settings import Durability, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from abkit.events import Record

CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WriterCounts:
    """What became of the events handed to a writer in this process.

    At every moment accepted = written + dropped + queued, and since each event consumes a
    sequence number, the log itself proves it.

    Args:
        writer_id: name of the writer's folder.
        accepted: events handed in.
        written: events in a segment, handed to the operating system.
        dropped: events lost, by (experiment, variant, reason). Reasons: "queue_full",
            "unencodable", "too_large", "busy" (another thread hangs in a write), "closed", or
            the name of the system's error, such as "ENOSPC".
        queued: events waiting in memory ("buffered" only).
        last_error: name of the latest failure of the file system; "" if there was none.
    """

    writer_id: str
    accepted: int
    written: int
    dropped: Mapping[tuple[str, str, str], int]
    queued: int
    last_error: str


class SegmentWriter:
    """Appends events to segment files of its own; for any number of threads, forks and hosts.

    The constructor touches no file and starts no thread. `append` never raises: what cannot be
    written is dropped and counted, and the counts are written as soon as writing works again.

    Args:
        folder: of the whole log; made when the first event comes. A symbolic link is refused.
        durability: what True from `append` means. "os": the event is in the page cache and
            survives SIGKILL. "buffered": it is in a queue in memory; the caller that completes
            a batch writes it, unless the disk proved slow, and a thread sees to what is left.
            "fsync": as "os", and on disk within a second, so that loss of power costs no more.
        clock: seconds since 1970 in UTC, stamped on headers and losses.
        monotonic: seconds that never jump, for ages and retries.
        segment_bytes: size at which a segment is sealed.
        segment_seconds: age at which a segment is sealed, by the first append after it.
        queue_records: events held in memory; the newest are dropped beyond ("buffered").
        flush_records: events per frame ("buffered"), written by the caller that completes them;
            more when more wait.
        flush_seconds: age at which a thread, started when first needed, writes the rest.
        files: the file system; tests inject a failing one.

    Raises:
        ConfigError: an argument out of its range.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with SegmentWriter(folder) as writer:
        ...         writer.append(("o", 0.5, "unit-1", "clicks", 2.0, "", ""))
        ...     writer.counts.written
        True
        1
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        durability: Durability = "os",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        segment_bytes: int = 64 * 2**20,
        segment_seconds: float = 300.0,
        queue_records: int = 65_536,
        flush_records: int = 64,
        flush_seconds: float = 0.1,
        files: FileSystem | None = None,
    ) -> None:
        path = os.fsdecode(folder)
        with contextlib.suppress(OSError, ValueError):  # the working folder may be gone
            path = os.path.abspath(path)  # noqa: PTH100 - a plain string is what is needed
        self._settings = Settings(
            folder=path,
            durability=durability,
            clock=clock,
            monotonic=monotonic,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            queue_records=queue_records,
            flush_records=flush_records,
            flush_seconds=flush_seconds,
            files=OsFiles() if files is None else files,
        )
        self._is_buffered = durability == "buffered"
        self._journal = Journal(self._settings)
        self._children: dict[tuple[str, int], Journal] = {}

    def append(self, record: Record, experiment: str = "", variant: str = "") -> bool:
        """Take one event. Never raises, and waits for no disk but in the write itself.

        Args:
            record: a tuple of JSON values, the first of them the name of its kind.
            experiment: what the event counts under if it is dropped.
            variant: the same.

        Returns:
            True if the event is taken as `durability` says; False if it was dropped.
        """
        journal = self._journal
        try:
            # By pid on each call: uWSGI forks without running what register_at_fork registered.
            if journal.pid != getpid():
                journal = self._enter_child(journal)
            if not self._is_buffered:
                return journal.append(record, experiment, variant)
            queue = journal.queue
            if len(queue) >= journal.queue_limit:
                reason = "queue_full" if journal.queue_limit else "closed"
                journal.losses.add(experiment, variant, reason)
                journal.relieve()
                return False
            queue.append((record, experiment, variant))
            if journal.flusher.parked:
                journal.wake()
            if len(queue) >= journal.flush_at:
                journal.relieve()
        except Exception as error:  # noqa: BLE001 - R8: serving goes on, whatever this is
            journal.segments.note(error)
            journal.losses.add(experiment, variant, "internal")
            return False
        return True

    def _enter_child(self, inherited: Journal) -> Journal:
        """Begin anew after a fork.

        No lock: one held at the fork would be held for ever. Of several threads that come here
        at once, the first to enter its journal wins, and the others' have touched nothing yet.
        """
        fresh = Journal(self._settings, is_closed=inherited.is_closed)
        key = (inherited.segments.writer_id, fresh.pid)
        journal = self._children.setdefault(key, fresh)
        if journal is fresh:
            inherited.segments.release_inherited()
        self._journal = journal
        return journal

    @property
    def _own(self) -> Journal:
        journal = self._journal
        return journal if journal.pid == getpid() else self._enter_child(journal)

    @property
    def counts(self) -> WriterCounts:
        """What became of the events so far; a forked child counts its own from 0."""
        journal = self._own
        tally = journal.tally()
        return WriterCounts(
            writer_id=journal.segments.writer_id,
            accepted=tally.accepted,
            written=tally.written,
            dropped=tally.dropped,
            queued=tally.queued,
            last_error=journal.segments.last_error,
        )

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Write everything that waits, counts of losses included.

        Args:
            timeout_seconds: how long to wait for other threads; the disk takes its own time.

        Returns:
            True if nothing is left and, with "fsync", all of it is on disk.
        """
        return self._own.flush(timeout_seconds)

    def close(self) -> None:
        """Write what waits and seal the segment; later events are dropped and counted.

        Call it, or use the writer in a `with` block: no promise rests on the end of the process.
        """
        self._own.close(CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
