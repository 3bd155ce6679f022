"""A real `abkit serve` process over a workspace with a rollout in every state."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.controller import Controller
from abkit.rollout import Rollout, Stage

WHY = "`python3 dev.py conformance` brings it"
pytest.importorskip("fastapi", reason=f"FastAPI is not installed; {WHY}")
pytest.importorskip("uvicorn", reason=f"uvicorn is not installed; {WHY}")
httpx = pytest.importorskip("httpx", reason=f"httpx is not installed; {WHY}")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from abkit.workspace import Workspace

SECONDS = 60.0
UNITS = 2_000
STAGES = (
    Stage(name="5 %", share=0.05, min_units=20),
    Stage(name="25 %", share=0.25, min_units=20),
    Stage(name="50 %", share=0.5, min_units=20),
)
HALF = (Stage(name="50 %", share=0.5, min_units=50),)
RATES = {  # errors in a hundred of control and treatment
    "scarce": (2, 2),
    "going": (4, 4),
    "noted": (2, 2),
    "stepped": (2, 2),
    "held": (2, 2),
    "ready": (40, 10),
    "promoted": (40, 10),
    "baking": (40, 10),
    "halted": (2, 50),
}
PLANS: dict[str, dict[str, Any]] = {
    "scarce": {"stages": (Stage(name="50 %", share=0.5, min_units=100_000),)},
    "going": {"stages": HALF},
    "noted": {"stages": STAGES, "mode": "notify"},
    "stepped": {"stages": STAGES},
    "held": {"stages": HALF},
    "ready": {"stages": HALF, "approval": "manual"},
    "promoted": {"stages": HALF},
    "baking": {"stages": HALF, "bake_seconds": 86_400.0, "bake_share": 0.9},
    "halted": {"stages": HALF},
}


@dataclass
class Served:
    """A running server.

    Args:
        url: where it answers.
        log: what it has said so far, on standard error.
        process: the process.
        http: asks it.
    """

    url: str
    log: Path
    process: subprocess.Popen[str]
    http: Any = field(repr=False)

    def get(self, path: str, **options: Any) -> Any:
        return self.http.get(path, **options)

    def post(self, path: str, data: Any = None, **options: Any) -> Any:
        return self.http.post(path, json=data, **options)

    def decision(self, key: str, query: str = "") -> dict[str, Any]:
        answer = self.get(f"/v1/rollouts/{key}/decision{query}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def running(workspace: Path, folder: Path, *words: str, **variables: str) -> Iterator[Served]:
    """`abkit serve`, stopped as a container is."""
    log = folder / f"serve-{time.monotonic_ns()}.txt"
    command = [sys.executable, "-c", "import sys; from abkit.cli import main; sys.exit(main())"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ABKIT_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "serve", str(workspace), "--port", "0", *words],
            env=kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | variables,
            stderr=output,
            stdout=output,
            text=True,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"http://\S+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        with httpx.Client(base_url=found[0], timeout=SECONDS) as http:
            yield Served(found[0], log, process, http)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def fill(workspace: Workspace, controller: Controller, *, units: int = UNITS) -> None:
    """Start every plan, send units through all of them, and look twice."""
    for name, plan in PLANS.items():
        workspace.start(
            Rollout.plan(
                name, experiment=f"x-{name}", control="old", treatment="new", salt=name, **plan
            )
        )
    with Client(workspace.path, poll_seconds=0.0) as client:
        for i in range(units):
            for name, rates in RATES.items():
                found = client.assign(f"x-{name}", f"unit-{i}")
                client.expose(found)
                rate = rates[found.variant == "new"]
                client.record(found.unit_id, "error", i * 37 % 100 < rate, experiment=f"x-{name}")
    controller.tick()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a rollout in every state; nobody changes it."""
    path = tmp_path_factory.mktemp("zoo") / "workspace"
    with Controller(path) as controller:
        workspace = controller.workspace
        fill(workspace, controller)
        workspace.act("held", "hold", reason="by hand", actor="ann")
        workspace.start(
            Rollout.plan(
                "fresh", experiment="x-fresh", control="old", treatment="new", stages=STAGES
            )
        )
    return path


@pytest.fixture(scope="session")
def launch() -> Any:
    """Starts a server that outlives a test; the context manager `running`."""
    return running


@pytest.fixture
def token() -> str:
    return secrets.token_hex(16)


@pytest.fixture(scope="session")
def served(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without tokens over the zoo."""
    with running(zoo, tmp_path_factory.mktemp("served"), "--rate", "0") as found:
        yield found


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    """Starts a server for a block: give it the workspace, more words, and variables."""

    def start(workspace: Path, *words: str, **variables: str) -> Any:
        return running(workspace, tmp_path, *words, **variables)

    return start
