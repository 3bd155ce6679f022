"""Shadow answers: another variant answers in the dark, off the request's path."""

from __future__ import annotations

import time
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from abkit.client.pool import ShadowPool

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from abkit.assignment import Assignment
    from abkit.client import Client
    from abkit.client.outcomes import Recording


class Shadows:
    """The shadow answers of one client.

    Args:
        client: where outcomes and what went wrong are recorded.
        workers: threads per process.
        queue_size: answers that may wait, and tasks that may be under way in an event loop.
    """

    def __init__(self, client: Client, *, workers: int, queue_size: int) -> None:
        """Start nothing yet."""
        self._client = client
        self._queue_size = queue_size
        self._pool = ShadowPool(workers=workers, queue_size=queue_size)
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(
        self, assignment: Assignment, recording: Recording, work: Callable[..., Any], *given: Any
    ) -> bool:
        """Have `work(*args, **kwargs)` done, where `given` is (args, kwargs)."""
        args, kwargs = given
        if iscoroutinefunction(work):
            return self._in_loop(assignment, recording, work(*args, **kwargs))
        client, variant = self._client, assignment.shadow

        def in_thread() -> None:
            started = time.perf_counter()
            try:
                answer = work(*args, **kwargs)
            except BaseException:  # noqa: BLE001 - a shadow's failure is an outcome, no more
                recording.failed(client, assignment, variant, time.perf_counter() - started)
                return
            recording.answered(client, assignment, variant, time.perf_counter() - started)
            recording.measured(client, assignment, variant, answer)

        return self._pool.submit(in_thread) or client.rejected.add("shadow_queue_full")

    def drain(self, timeout_seconds: float) -> bool:
        """Wait for the threads; False if some answers are left after the timeout."""
        return self._pool.drain(timeout_seconds)

    async def drain_tasks(self, timeout_seconds: float) -> None:
        """Wait for the tasks of this event loop, and give up those that take longer."""
        import asyncio  # noqa: PLC0415 - as below

        loop = asyncio.get_running_loop()
        own = [task for task in self._tasks if task.get_loop() is loop]
        if not own:
            return
        _, late = await asyncio.wait(own, timeout=timeout_seconds)
        for task in late:
            task.cancel()

    def _in_loop(self, assignment: Assignment, recording: Recording, work: Any) -> bool:
        import asyncio  # noqa: PLC0415 - only where the application uses it anyway

        if len(self._tasks) >= self._queue_size:
            self._forget_closed_loops()
        if len(self._tasks) >= self._queue_size:
            work.close()
            return self._client.rejected.add("shadow_queue_full")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            work.close()
            raise
        task = loop.create_task(self._awaited(assignment, recording, work))
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._done)
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._client.rejected.add("shadow_unfinished")

    def _forget_closed_loops(self) -> None:
        """Tasks of a loop that was closed never end."""
        for task in [item for item in self._tasks if item.get_loop().is_closed()]:
            self._tasks.discard(task)
            self._client.rejected.add("shadow_unfinished")

    async def _awaited(self, assignment: Assignment, recording: Recording, work: Any) -> None:
        client, variant = self._client, assignment.shadow
        started = time.perf_counter()
        try:
            answer = await work
        except Exception:  # noqa: BLE001 - the same
            recording.failed(client, assignment, variant, time.perf_counter() - started)
            return
        recording.answered(client, assignment, variant, time.perf_counter() - started)
        recording.measured(client, assignment, variant, answer)
