"""What the server knows: state files and the published store, read again when they change.

Neither the writer's lock nor the controller is needed. A rollout's state file is the truth about
where it stands; the published store adds what the judge saw. Where the store cannot be read, the
last good reading is kept and `store_error` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from abkit.errors import AbkitError, ConfigError, StoreError, UnknownExperimentError
from abkit.metrics import check_name
from abkit.server.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from abkit.client import Client
    from abkit.rollout import Rollout
    from abkit.server.verdict import Verdict
    from abkit.snapshot import SourceHealth
    from abkit.store.overview import Overview
    from abkit.workspace import Workspace

    Signature = tuple[int, ...]

LOOK_SECONDS = 0.2
"""How often the published file is looked at, at most."""
READ_SECONDS = 5.0


class Board:
    """A cached view of a workspace.

    Args:
        workspace: the workspace.
        client: assigns from its snapshot.
        clock: seconds since 1970 in UTC.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        workspace: Workspace,
        client: Client,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read yet."""
        self.workspace = workspace
        self.client = client
        self.clock = clock
        self.overview: Overview | None = None
        self.store_error = "the published store has not been read yet"
        self.verdicts: dict[str, tuple[Rollout, object, Verdict]] = {}
        self._monotonic = monotonic
        self._folder = workspace.path / "rollouts"
        self._rollouts: dict[str, tuple[Signature, Rollout]] = {}
        self._signature: Signature = ()
        self._due = 0.0
        self._store: Any = None
        self._reading = asyncio.Lock()

    def rollout(self, key: str) -> Rollout:
        """The state of one rollout, as its file says now.

        Raises:
            Problem: 404 if there is none of this name, 503 if its file is damaged.
        """
        try:
            path = self._folder / f"{check_name(key, 'rollout key')}.json"
            signature = _signature(path)
        except ConfigError as error:
            raise Problem(404, str(error), hint=self._hint(key)) from None
        except OSError:
            raise Problem(404, f"there is no rollout {key!r}", hint=self._hint(key)) from None
        known = self._rollouts.get(key)
        if known is not None and known[0] == signature:
            return known[1]
        try:
            found = self.workspace.rollout(key)
        except UnknownExperimentError:
            raise Problem(404, f"there is no rollout {key!r}", hint=self._hint(key)) from None
        except (StoreError, ConfigError):
            raise Problem(
                503, f"the state file of rollout {key!r} is damaged", hint="halt it by hand"
            ) from None
        self._rollouts[key] = (signature, found)
        return found

    def keys(self) -> list[str]:
        """Names of the rollouts that have a state file."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def rollouts(self) -> tuple[list[Rollout], list[str]]:
        """All rollouts, the newest first, and the names of those whose file is damaged."""
        found: list[Rollout] = []
        damaged: list[str] = []
        for key in self.keys():
            try:
                found.append(self.rollout(key))
            except Problem as problem:
                damaged += [key] if problem.status == 503 else []
        found.sort(key=lambda item: (item.started or 0.0, item.key), reverse=True)
        return found, damaged

    async def refresh(self) -> None:
        """Read the published store again if it has changed; never raises."""
        if self._monotonic() < self._due:
            return
        async with self._reading:
            if self._monotonic() < self._due:
                return
            try:
                await self._refresh()
            finally:
                self._due = self._monotonic() + LOOK_SECONDS

    async def _refresh(self) -> None:
        try:
            if self._store is None:
                # DuckDB is imported here: a server without it still tells states and halts.
                self._store = await asyncio.to_thread(import_module, "abkit.store.overview")
            store = self._store
            path = store.published_path(self.workspace.path)
            try:
                signature = _signature(path)
            except OSError:
                self._signature = ()
                self.store_error = "nothing is published; is the controller running?"
                return
            if signature == self._signature:
                return
            self.overview = await asyncio.to_thread(
                store.read_overview, self.workspace.path, timeout_seconds=READ_SECONDS
            )
            self._signature, self.store_error = signature, ""
        except Exception as error:  # noqa: BLE001 - the last good reading stays; the reason is told
            self._signature = ()
            kind = "" if isinstance(error, AbkitError) else f" ({type(error).__name__})"
            self.store_error = f"the published store cannot be read{kind}"

    def snapshot_health(self) -> SourceHealth:
        """Version and age of the snapshot that is published."""
        self.client.snapshot()  # as fresh as for an assignment
        health = self.client.health().snapshot
        if health is None:
            raise StoreError("the client has no snapshot file")
        return health

    def record(self, key: str) -> dict[str, Any] | None:
        """The newest decision record of a rollout that could be read."""
        return None if self.overview is None else self.overview.decisions.get(key)

    def _hint(self, key: str) -> str:
        with contextlib.suppress(OSError):
            names = self.keys()
            near = get_close_matches(key[:64], names, n=1)
            if near:
                return f"did you mean {near[0]!r}?"
            return (
                f"there is {', '.join(names[:20]) or 'none yet; `abkit rollout start` makes one'}"
            )
        return "GET /v1/rollouts lists them"


def _signature(path: Path) -> Signature:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
