"""Workspaces made through the real path: rollouts, clients, log, controller, published file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from abkit.client import Client
from abkit.controller import Controller
from abkit.rollout import Rollout, Stage
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

DASHBOARD = Path(__file__).parents[2] / "dashboard"
HOSTILE = "<script>alert(1)</script> **bold** [x](https://evil.example) $x$ :red[no]"
STAGES = (
    Stage(name="10 %", share=0.1, min_units=100),
    Stage(name="50 %", share=0.5, min_units=300),
)


class Writer:
    """Serves requests in a workspace and ticks its controller."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder)
        self.controller = Controller(self.workspace)
        self.client = Client(folder, poll_seconds=0.0)
        self._random = np.random.default_rng(3)
        self._served = 0

    def start(self, key: str, experiment: str) -> None:
        """Start a canary of `new` against `old`."""
        self.workspace.start(
            Rollout.plan(
                key,
                experiment=experiment,
                control="old",
                treatment="new",
                stages=STAGES,
                salt=f"salt-of-{key}",
            )
        )

    def serve(self, experiment: str, rates: dict[str, float], requests: int = 400) -> None:
        """Answer requests, then take a look."""
        for _ in range(requests):
            unit = f"unit-{self._served}"
            self._served += 1
            assigned = self.client.assign(experiment, unit, default="old")
            self.client.expose(assigned)
            self.client.record(unit, "error", self._random.random() < rates[assigned.variant])
        self.controller.tick()

    def close(self) -> None:
        """Let go of the workspace."""
        self.client.close()
        self.controller.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """A writer on a workspace of its own."""
    writer = Writer(tmp_path / "workspace")
    yield writer
    writer.close()


@pytest.fixture(scope="session", autouse=True)
def _pages_can_import() -> None:
    """Streamlit puts the folder of its script on the path; so do these tests."""
    sys.path.insert(0, str(DASHBOARD))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A halted canary, a promoted one, a live one, and one halted by hand in hostile words."""
    folder = tmp_path_factory.mktemp("dashboard") / "workspace"
    writer = Writer(folder)
    writer.start("bad-canary", "ranker")
    while writer.workspace.rollout("bad-canary").live:
        writer.serve("ranker", {"old": 0.02, "new": 0.12})
    writer.start("good-canary", "search")
    while writer.workspace.rollout("good-canary").live:
        writer.serve("search", {"old": 0.3, "new": 0.15})
    writer.start("by-hand", "ads")
    writer.serve("ads", {"old": 0.0, "new": 0.0})
    writer.workspace.halt("by-hand", reason=HOSTILE, actor="<b>mallory</b>")
    writer.start("live-canary", "feed")
    writer.serve("feed", {"old": 0.02, "new": 0.02})
    writer.close()
    return folder
