"""What a writer dropped, counted by experiment, variant and reason."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

MAX_KEYS: Final = 1_000
MAX_NAME_CHARACTERS: Final = 256
FOLD_AT: Final = 256
WAIT_SECONDS: Final = 0.01

Key = tuple[str, str, str]


class Losses:
    """Cumulative counts of dropped events.

    `add` takes no lock: it may be called from anywhere, by any number of threads, even by a
    signal handler that interrupted `add`. Memory is bounded: beyond 1,000 different keys, and
    for names that are no names, only the reason is kept.
    """

    __slots__ = ("_lock", "changed", "counts", "late", "total")

    def __init__(self) -> None:
        self.late: deque[tuple[object, object, str]] = deque()
        self.changed: set[Key] = set()
        self.counts: dict[Key, int] = {}
        self.total = 0
        self._lock = threading.Lock()

    def add(self, experiment: object, variant: object, reason: str) -> None:
        """Count one dropped event."""
        self.late.append((experiment, variant, reason))
        if len(self.late) >= FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Bring counts and total up to date, unless another thread is doing that right now."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            for _ in range(len(self.late)):
                experiment, variant, reason = self.late.popleft()
                key = (_name(experiment), _name(variant), reason)
                if key not in self.counts and len(self.counts) >= MAX_KEYS:
                    key = ("", "", reason)
                self.counts[key] = self.counts.get(key, 0) + 1
                self.changed.add(key)
                self.total += 1
        finally:
            self._lock.release()

    def take_changed(self) -> dict[Key, int]:
        """Counts that grew since the last call; give them back with `restore` if unwritten."""
        # Whoever was interrupted in `fold` by the signal handler that now calls, must not be
        # waited for.
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            return {}
        try:
            taken = {key: self.counts[key] for key in self.changed}
            self.changed.clear()
        finally:
            self._lock.release()
        return taken

    def restore(self, taken: dict[Key, int]) -> None:
        """Note counts that could not be written after all."""
        self.changed.update(taken)


def _name(value: object) -> str:
    if type(value) is not str or len(value) > MAX_NAME_CHARACTERS:
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return value
