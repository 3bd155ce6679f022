"""Where a client's events go, and what it counts when a call cannot become one."""

from __future__ import annotations

import threading
from collections import deque
from os import getpid
from typing import TYPE_CHECKING, Protocol

from abkit.log import WriterCounts

if TYPE_CHECKING:
    from abkit.events import Record

MEMORY_EVENTS = 100_000


class Sink(Protocol):
    """Where events go: a segment writer in production, a list in tests."""

    def append(self, record: Record, experiment: str = "", variant: str = "") -> bool:
        """Take one event; False if it was dropped. Never raises."""

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Hand everything taken so far to the system."""

    def close(self) -> None:
        """Flush and stop."""

    @property
    def counts(self) -> WriterCounts:
        """What became of the events."""


class MemorySink:
    """Keeps events in memory, for tests and notebooks.

    Args:
        limit: events kept; later ones are dropped and counted.
    """

    def __init__(self, limit: int = MEMORY_EVENTS) -> None:
        """Begin empty."""
        self.records: deque[Record] = deque()
        self._limit = limit
        self._dropped: dict[tuple[str, str, str], int] = {}

    def append(self, record: Record, experiment: str = "", variant: str = "") -> bool:
        """Keep one event, or count it as dropped."""
        if len(self.records) >= self._limit:
            key = (experiment, variant, "queue_full")
            self._dropped[key] = self._dropped.get(key, 0) + 1
            return False
        self.records.append(record)
        return True

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Nothing to do."""
        del timeout_seconds
        return True

    def close(self) -> None:
        """Nothing to do."""

    @property
    def counts(self) -> WriterCounts:
        """What became of the events."""
        kept, dropped = len(self.records), dict(self._dropped)
        return WriterCounts("memory", kept + sum(dropped.values()), kept, dropped, 0, "")


class Rejections:
    """Calls that could not do all that was asked, by reason; for any number of threads.

    A fork begins at nothing, like the counts of events, and with a lock that nobody holds.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        self._by_process: dict[int, tuple[threading.RLock, dict[str, int]]] = {}

    def _own(self) -> tuple[threading.RLock, dict[str, int]]:
        pid = getpid()
        found = self._by_process.get(pid)
        # In one step: of threads that come first at once, all get the same.
        return found or self._by_process.setdefault(pid, (threading.RLock(), {}))

    @property
    def counts(self) -> dict[str, int]:
        """Number of calls by reason, in this process."""
        return self._own()[1]

    def add(self, reason: str) -> bool:
        """Count one; returns False for the caller to return."""
        # Re-entrant: a signal handler that interrupts this may be rejected too.
        lock, counts = self._own()
        with lock:
            counts[reason] = counts.get(reason, 0) + 1
        return False
