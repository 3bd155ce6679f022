"""A bounded pool of threads for work that must never hold up a request: shadow answers."""

from __future__ import annotations

import threading
import time
from os import getpid
from queue import Full, Queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]


class ShadowPool:
    """Runs work in threads of its own, and refuses what it has no room for.

    The threads are daemons, started by the first work in each process: a model that hangs in
    the dark keeps no process alive, and a fork begins with a pool of its own.

    Args:
        workers: number of threads.
        queue_size: work that may wait; more is refused.
    """

    def __init__(self, *, workers: int, queue_size: int) -> None:
        """Start nothing yet."""
        self._workers = workers
        self._queue_size = queue_size
        self._by_process: dict[int, _Crew] = {}

    def submit(self, work: Work) -> bool:
        """Take one piece of work, which must not raise; False where there is no room."""
        pid = getpid()
        crew = self._by_process.get(pid)
        if crew is None:
            # In one step: of threads that come first at once, all get the same.
            crew = self._by_process.setdefault(pid, _Crew(self._workers, self._queue_size))
        return crew.submit(work)

    def drain(self, timeout_seconds: float) -> bool:
        """Wait until all work is done; False if some is left after the timeout."""
        crew = self._by_process.get(getpid())
        if crew is None:
            return True
        deadline = time.monotonic() + timeout_seconds
        while crew.queue.unfinished_tasks:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True


class _Crew:
    """Queue and threads of one process."""

    def __init__(self, workers: int, queue_size: int) -> None:
        self.queue: Queue[Work] = Queue(queue_size)
        self._missing = workers
        self._starting = threading.Lock()

    def submit(self, work: Work) -> bool:
        if self._missing:
            with self._starting:
                if self._missing:
                    # Where no thread can be had this raises, and the work is not taken.
                    threading.Thread(target=self._work, name="abkit-shadow", daemon=True).start()
                    self._missing -= 1
        try:
            self.queue.put_nowait(work)
        except Full:
            return False
        return True

    def _work(self) -> None:
        while True:
            work = self.queue.get()
            try:
                work()
            finally:
                self.queue.task_done()
