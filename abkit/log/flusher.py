"""The thread that writes what waits while no traffic does; started when first needed."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SECONDS: Final = 1.0


class Flusher:
    """Calls a function at intervals as long as there is work, and sleeps otherwise.

    Args:
        work: what to do; it must not raise.
        is_needed: whether there is anything to do.
        interval_seconds: from a wake to the call.
        monotonic: clock, for new attempts after a thread could not be started.
    """

    def __init__(
        self,
        work: Callable[[], None],
        is_needed: Callable[[], bool],
        interval_seconds: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.parked = True
        self.absent = False
        self._work = work
        self._is_needed = is_needed
        self._interval_seconds = interval_seconds
        self._monotonic = monotonic
        self._retry_at = 0.0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        # Locked while nobody calls. A bare lock: unlike an Event, a signal handler that
        # interrupts `wake` may call it again.
        self._no_call = threading.Lock()
        self._no_call.acquire()
        self._stop = threading.Event()

    def wake(self) -> bool:
        """Have the work done soon; False if the system gives us no thread."""
        if self._thread is None and not self._start():
            return not self.absent
        self._call()  # the thread itself says that it is no longer parked
        return True

    def _call(self) -> None:
        if self._no_call.locked():
            with contextlib.suppress(RuntimeError):  # another thread was quicker
                self._no_call.release()

    def _start(self) -> bool:
        if self._stop.is_set() or (self.absent and self._monotonic() < self._retry_at):
            return False
        if not self._starting.acquire(blocking=False):
            return False
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="abkit-log-flusher", daemon=True)
                thread.start()
                self._thread = thread
            self.absent = False
        except (RuntimeError, MemoryError):  # "can't start new thread": try again later
            self.absent = True
            self._retry_at = self._monotonic() + RETRY_SECONDS
            return False
        finally:
            self._starting.release()
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            # First parked, then the look: whoever adds work does it the other way round.
            self.parked = True
            if not self._is_needed():
                self._no_call.acquire()
            self.parked = False
            self._stop.wait(self._interval_seconds)
            self._work()

    def stop(self, timeout_seconds: float) -> None:
        """End the thread, waiting for it at most this long."""
        self._stop.set()
        self._call()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)
