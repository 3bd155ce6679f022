"""A workspace with the whole path in it: clients, log, controller, store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from abkit.client import Client
from abkit.controller import Controller
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from abkit.controller import Tick


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class LivePath:
    """The path from a request to a decision, on one clock."""

    workspace: Workspace
    controller: Controller
    client: Client
    clock: Clock
    random: np.random.Generator
    served: int = 0

    def serve(self, requests: int, rates: dict[str, float], *, metric: str = "error") -> None:
        """Answer requests; each variant has events of `metric` at its own rate."""
        for _ in range(requests):
            self.clock.now += 0.1
            unit = f"unit-{self.served}"
            self.served += 1
            assigned = self.client.assign("ranker", unit)
            self.client.expose(assigned)
            self.client.record(unit, metric, self.random.random() < rates[assigned.variant])

    def tick(self) -> Tick:
        """One step of the controller."""
        return self.controller.tick()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[LivePath]:
    clock = Clock()
    workspace = Workspace(tmp_path / "workspace", clock=clock)
    with (
        Controller(workspace, clock=clock) as controller,
        Client(workspace.path, poll_seconds=0.0, clock=clock) as client,
    ):
        yield LivePath(workspace, controller, client, clock, np.random.default_rng(7))
