"""Hooks: who is told, or moved along, when a rollout moves.

They hear of moves from the audit trail, whoever made them, and from the state files where a line
is missing. Messages go through a folder, and each target has a thread of its own: nothing here
delays a tick or a halt, and a restart goes on where it was. A message arrives at least once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

from abkit.errors import AbkitError
from abkit.integrations.notices import Notice
from abkit.integrations.notify import read_targets
from abkit.integrations.outbox import Outbox, Waiting
from abkit.integrations.webhook import DeliveryError
from abkit.snapshot import write_atomically
from abkit.trail import entries, event_of
from abkit.trail.files import LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from abkit.controller import Tick
    from abkit.integrations.notify import Target
    from abkit.rollout import Rollout
    from abkit.workspace import Workspace

FOLDER: Final = "notify"
FIRST_WAIT_SECONDS: Final = 1.0
MOST_WAIT_SECONDS: Final = 600.0
GIVE_UP_SECONDS: Final = 86_400.0
LEAST_ATTEMPTS: Final = 20
# What happened longer ago than this before the first start is no news to anybody.
FRESH_SECONDS: Final = 3_600.0
_LOG = logging.getLogger("abkit")


class Hooks:
    """Tells the targets of a workspace of its moves.

    Args:
        workspace: whose moves.
        targets: those of `notify.toml` by default.
        clock: seconds since 1970 in UTC.
        first_wait_seconds: before the second attempt; twice as long before each further one.

    Raises:
        ConfigError: `notify.toml` is not usable.

    Examples:
        ::

            with Controller("workspace") as controller, Hooks(controller.workspace) as hooks:
                controller.run(on_tick=hooks.notice)
    """

    def __init__(
        self,
        workspace: Workspace,
        targets: Sequence[Target] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
    ) -> None:
        """Read the targets, and what an earlier process left to deliver."""
        found = read_targets(workspace.path) if targets is None else targets
        self._workspace = workspace
        self._clock = clock
        self._folder = workspace.path / FOLDER
        self._couriers = [
            _Courier(item, Outbox(self._folder, item.name), clock, first_wait_seconds)
            for item in found
        ]
        self._trail_size = -1
        self._without_line: dict[str, int] = {}
        self._cursor, self._versions, self._advice = self._read_cursor()

    def __enter__(self) -> Self:
        """The hooks themselves."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give what waits a moment, and stop."""
        self.close()

    def notice(self, tick: Tick | None = None) -> None:
        """Look for news, and hand it over. Never raises, and waits for no target.

        Args:
            tick: what the controller did, for the advice in it.
        """
        if not self._couriers:
            return
        try:
            self._notice(tick)
        except Exception as error:  # noqa: BLE001 - the controller goes on, whatever this is
            _LOG.warning("hooks were not told: %s: %s", type(error).__name__, error)
        for courier in self._couriers:
            courier.wake()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Stop; what has not arrived stays in the outbox.

        Args:
            timeout_seconds: how long a first attempt at what waits may take.
        """
        deadline = time.monotonic() + timeout_seconds
        for courier in self._couriers:
            courier.stop()
        for courier in self._couriers:
            courier.join(max(0.0, deadline - time.monotonic()))

    def _notice(self, tick: Tick | None) -> None:
        known = (self._cursor, dict(self._versions))
        rollouts = {
            item.key: item for item in self._workspace.rollouts(on_damage=lambda _p, _e: None)
        }
        found = [*self._from_trail(rollouts), *self._from_states(rollouts)]
        for taken in () if tick is None else tick.taken:
            advice = Notice.of_advice(taken, now=self._clock())
            if advice is not None and self._advice.get(advice.rollout) != advice.id:
                self._advice[advice.rollout] = advice.id
                found.append(advice)
        for notice in found:
            self._versions[notice.rollout] = max(
                notice.version, self._versions.get(notice.rollout, 0)
            )
            for courier in self._couriers:
                courier.take(notice)
        if found or known != (self._cursor, self._versions):
            self._write_cursor()

    def _from_trail(self, rollouts: dict[str, Rollout]) -> list[Notice]:
        path = self._workspace.path / LOG
        size = path.stat().st_size if path.is_file() else 0
        if size == self._trail_size:
            return []
        is_first = self._cursor < 0
        news = entries(self._workspace.path, after=max(0, self._cursor))
        found = []
        for entry in news:
            is_old = is_first and entry.time < self._clock() - FRESH_SECONDS
            rollout = rollouts.get(entry.key) if entry.kind == "rollout" else None
            if rollout is None or entry.after is None:
                continue
            version = entry.after.get("version")
            if not isinstance(version, int):
                continue  # none of ours; the state file tells of the move
            if is_old or version <= self._versions.get(entry.key, 0):
                self._versions[entry.key] = max(version, self._versions.get(entry.key, 0))
            else:
                with contextlib.suppress(ValueError, TypeError):  # one line silences no other
                    found.append(Notice.of_entry(entry, rollout))
                    self._versions[entry.key] = version
        self._cursor = max([0, self._cursor, *(entry.sequence for entry in news)])
        self._trail_size = size
        return found

    def _from_states(self, rollouts: dict[str, Rollout]) -> list[Notice]:
        """Moves that have no line: the trail could not be written."""
        found = []
        for key, rollout in rollouts.items():
            if rollout.state == "draft" or rollout.version <= self._versions.get(key, 0):
                continue
            if self._without_line.get(key) != rollout.version:
                self._without_line[key] = rollout.version  # its line may be on its way
                continue
            is_new = key not in self._versions
            # Without a line nobody knows where it came from; its state says enough.
            before = None if is_new else {"state": "", "stage": ""}
            event = event_of(before, {"state": rollout.state, "stage": rollout.stage.name})
            notice = Notice.of_state(rollout, event, now=self._clock())
            self._versions[key] = rollout.version
            if not is_new or notice.time >= self._clock() - FRESH_SECONDS:
                found.append(notice)
        return found

    def _read_cursor(self) -> tuple[int, dict[str, int], dict[str, str]]:
        try:
            data = json.loads((self._folder / "cursor.json").read_bytes())
            versions = {str(key): int(value) for key, value in data["versions"].items()}
            advice = {str(key): str(value) for key, value in data["advice"].items()}
            return int(data["sequence"]), versions, advice
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return -1, {}, {}
        except (OverflowError, RecursionError):
            return -1, {}, {}

    def _write_cursor(self) -> None:
        data: dict[str, Any] = {
            "sequence": self._cursor,
            "versions": self._versions,
            "advice": self._advice,
        }
        with contextlib.suppress(OSError):  # then some messages arrive twice
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._folder / "cursor.json", json.dumps(data).encode())


class _Courier:
    """Delivers to one target, in a thread that is started when it is first needed."""

    def __init__(
        self, target: Target, outbox: Outbox, clock: Callable[[], float], first_wait: float
    ) -> None:
        self.target = target
        self._outbox = outbox
        self._clock = clock
        self._first_wait = first_wait
        self._condition = threading.Condition()
        self._is_stopped = False
        self._has_news = False
        self._thread: threading.Thread | None = None

    def take(self, notice: Notice) -> None:
        """Put a message into the outbox, if the target wants it."""
        if not self.target.wants(notice):
            return
        needless = [
            item.notice
            for item in self._outbox.waiting()
            if self.target.replaces(item.notice, notice) and item.notice.id != notice.id
        ]
        if not self._outbox.put(notice, now=self._clock(), instead=needless):
            _LOG.warning("too many messages wait for %s; %s is lost", self.target.name, notice.id)

    def wake(self) -> None:
        """Have the thread look."""
        if self._thread is None:
            if not self._outbox.waiting():
                return
            self._thread = threading.Thread(
                target=self._run, name=f"abkit-hook-{self.target.name}", daemon=True
            )
            self._thread.start()
        with self._condition:
            self._has_news = True
            self._condition.notify()

    def stop(self) -> None:
        """Have the thread stop after what has not been tried yet."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._has_news = False
            waiting = self._outbox.waiting()
            now = time.monotonic()
            due = next((item for item in waiting if item.due <= now), None)
            with self._condition:
                if self._is_stopped:
                    due = next((item for item in waiting if item.due == 0.0), None)
                    if due is None:
                        return
                elif due is None:
                    if not self._has_news:
                        pause = min((item.due - now for item in waiting), default=None)
                        self._condition.wait(pause)
                    continue
            self._attempt(due)

    def _attempt(self, item: Waiting) -> None:
        try:
            self.target.deliver(item.notice)
        except DeliveryError as error:
            self._put_off(item, error)
        except Exception as error:  # noqa: BLE001 - a courier never dies
            name = error if isinstance(error, AbkitError) else type(error).__name__
            self._put_off(item, DeliveryError(f"failed: {name}"))
        else:
            self._outbox.done(item, now=self._clock())

    def _put_off(self, item: Waiting, error: DeliveryError) -> None:
        doubled = self._first_wait * 2.0 ** min(item.attempts, 30)
        wait = min(MOST_WAIT_SECONDS, doubled) * random.uniform(0.5, 1.0)
        wait = max(wait, error.retry_seconds or 0.0)
        now = self._clock()
        # By attempts too: a clock that is set forward by days is no day of trying.
        is_old = now - item.since > GIVE_UP_SECONDS and item.attempts >= LEAST_ATTEMPTS
        is_over = error.is_final or is_old
        item.due = time.monotonic() + wait
        self._outbox.failed(item, error.reason, now=now, is_over=is_over)
        if item.attempts == 1 or is_over:
            what = "given up" if is_over else "retried"
            _LOG.warning(
                "%s did not reach %s, and is %s: %s",
                *(item.notice.id, self.target.name, what, error.reason),
            )
