"""The examples, run as their reader would: real servers, real models, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compiler import compile_experiment
from abkit.experiment import Experiment
from abkit.log import LogReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"
WHY = "`python3 dev.py conformance` installs it"
SECONDS = 120.0


@contextmanager
def running(folder: Path, *words: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, of which nothing is left in the end."""
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=EXAMPLES,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | variables,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        is_left = is_alive(process.pid)
        if is_left:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not is_left, (folder / "output.txt").read_text()


def is_alive(group: int) -> bool:
    """Whether any process of the group is left, a moment for the last ones to go."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def test_the_ranker_service_rolls_out_and_back(tmp_path: Path) -> None:
    for name in ("fastapi", "gunicorn", "sklearn", "pyarrow"):
        pytest.importorskip(name, reason=f"no {name}: {WHY}")
    words = ("ranker_service/run.py", "--workspace", str(tmp_path / "workspace"))
    with running(tmp_path, *words) as process:
        code = process.wait(SECONDS)
    text = (tmp_path / "output.txt").read_text()
    assert code == 0, text
    moves = ["canary, 25 %", "canary, 50 %", "promoted", "rolled_back", "all 2 workers"]
    places = [text.index(move) for move in moves]
    assert places == sorted(places), text
    assert "Traceback" not in text
    assert ", 0 lost" in text
    users = {
        name: int(n.replace(",", "")) for name, n in re.findall(r"(\w+): ([\d,]+) users", text)
    }
    assert users.keys() == {"forest", "tree"}
    assert min(users.values()) >= 300
    workspace = Workspace(tmp_path / "workspace")
    assert workspace.rollout("tree-for-forest").state == "rolled_back"
    # Every user's exposure, latency and failure; labels of those who waited long enough.
    kinds: Counter[str] = Counter()
    for _, _, record in LogReader(workspace.log_path).read({}, max_records=10**9).rows():
        kinds[record[0] if record[0] != "o" else record[3]] += 1
    assert kinds["e"] >= sum(users.values())
    assert kinds["latency_ms"] == kinds["failed"] >= kinds["e"]
    # Labels come for everybody, exposed or not.
    assert kinds["wrong"] > 0


def ask(port: int, path: str, body: dict[str, Any]) -> Any:
    """One request over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return json.loads(response.read())
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_bentoml_service_serves_both_models_and_logs(tmp_path: Path) -> None:
    pytest.importorskip("bentoml", reason=f"no bentoml: {WHY}")
    iris = Experiment.create("iris-model", {"logistic": 0.5, "tree": 0.5}, salt="iris")
    workspace = Workspace(tmp_path / "workspace")
    workspace.publish(iris)
    port = free_port()
    words = ("-m", "bentoml", "serve", "bentoml_service:Iris", "--host=127.0.0.1", f"--port={port}")
    variables = {
        "ABKIT_WORKSPACE": str(workspace.path),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(tmp_path / "bentoml"),
    }
    features = [6.1, 2.8, 4.7, 1.2]
    with running(tmp_path, *words, **variables) as process:
        workers: Counter[int] = Counter()
        wait_for(port, process, tmp_path)
        for number in range(40):
            user = f"user-{number}"
            answer = ask(port, "/predict", {"user_id": user, "features": features})
            assert answer["species"] == "versicolor"
            workers[answer["worker"]] += 1
            assert ask(port, "/confirm", {"user_id": user, "right": True}) is True
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    chunk = LogReader(workspace.log_path).read({})
    assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
    choose = compile_experiment(iris)
    exposures = {record[3]: record[4] for *_, record in chunk.rows() if record[0] == "e"}
    users = [f"user-{number}" for number in range(40)]
    assert exposures == {user: choose(user, None).variant for user in users}
    assert set(exposures.values()) == {"logistic", "tree"}
    outcomes = Counter(record[3] for *_, record in chunk.rows() if record[0] == "o")
    assert outcomes == {"latency_ms": 40, "failed": 40, "wrong": 40}
    logged_by = {int(writer.split("-")[-2]) for writer, *_ in chunk.rows()}
    assert workers.keys() <= logged_by


def wait_for(port: int, process: subprocess.Popen[str], folder: Path) -> None:
    """Return when somebody listens."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "output.txt").read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"nothing listens: {(folder / 'output.txt').read_text()}")
