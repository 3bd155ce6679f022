"""Real workers under load, a fault put into the canary by hand, and everybody back on control."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from abkit.controller import Controller
from abkit.judge import replay
from abkit.log import LogReader
from abkit.rollout import Rollout, Stage
from abkit.store.reader import StoreReader
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WHY: Final = "`python3 dev.py conformance` installs it"
SECONDS: Final = 120.0
KEY: Final = "logistic-for-forest"
CLIENTS: Final = 4
SHARE: Final = 0.2
BAD_ROWS: Final = 0.02  # requests that fail with either model
BROKEN: Final = 0.5  # requests that the broken model fails, of those that it could answer
AHEAD: Final = 60  # requests that may be sent until the controller has looked again
PATIENCE: Final = 0.5
MULTIPLE: Final = 25

# Two models that learned the same question. While the file FAULT is there, the new one raises for
# every other patient.
APP = """
import json, os
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
import abkit

FEATURES, BENIGN = load_breast_cancer(return_X_y=True)
FOREST = RandomForestClassifier(n_estimators=8, random_state=0).fit(FEATURES, BENIGN)
LOGISTIC = make_pipeline(StandardScaler(), LogisticRegression()).fit(FEATURES, BENIGN)

class Fragile:
    def __init__(self, model): self.model = model
    def predict(self, rows):
        if os.path.exists(os.environ["FAULT"]) and rows[0][0] * 1000 % 20 >= 10:
            raise RuntimeError("broken by hand")
        return self.model.predict(rows)

ab = abkit.Client(os.environ["WORKSPACE"])

@ab.route("diagnosis", unit="patient", models={"forest": FOREST, "logistic": Fragile(LOGISTIC)},
          default="forest", error="error")
def predict(model, patient, row):
    return int(model.predict([FEATURES[row]])[0])  # IndexError: a row that nobody has

def wsgi(environ, start_response):
    patient, _, row = environ["QUERY_STRING"].partition("&")
    error, answer = "", None
    try:
        if patient:
            answer = predict(patient, int(row))
    except (RuntimeError, IndexError) as raised:
        error = str(raised)
    body = json.dumps({
        "pid": os.getpid(), "error": error, "benign": answer,
        "variants": [ab.variant("diagnosis", f"probe-{number}") for number in range(20)],
        "version": ab.health().snapshot.version,
    }).encode()
    start_response("500 Failed" if error else "200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ROWS: Final = 569
SERVER: Final = ("-m", "gunicorn", "--preload", "--workers=2", "--no-control-socket", "app:wsgi")


@contextmanager
def running(folder: Path, name: str, *words: str, **variables: str) -> Iterator[None]:
    """A process that is stopped by SIGTERM in the end, and leaves none of its group behind."""
    output = folder / f"{name}.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | variables,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield
        assert process.poll() is None, output.read_text()
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in output.read_text(), output.read_text()


@dataclass
class Traffic:
    """Clients that ask for ever new patients, never far ahead of the judge.

    How many requests are harmed must not depend on how fast this machine is: after `AHEAD`
    requests the clients wait for the controller's next look, or a moment.
    """

    path: Path
    workspace: Workspace
    answers: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    sent: int = 0
    allowed: int = AHEAD
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, query: str) -> dict[str, Any]:
        """One request over a connection of its own: any worker may take it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(self.path))
            connection.sendall(f"GET /?{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            text = b"".join(iter(partial(connection.recv, 65536), b""))
        answer: dict[str, Any] = json.loads(text.partition(b"\r\n\r\n")[2])
        return answer

    def client(self) -> None:
        """Ask until it is over."""
        while not self.is_over.is_set():
            waited = time.monotonic()
            while self.sent >= self.allowed and time.monotonic() < waited + PATIENCE:
                time.sleep(0.002)
            with self.lock:
                number, self.sent = self.sent, self.sent + 1
            row = ROWS + number if number % round(1 / BAD_ROWS) == 0 else number % ROWS
            try:
                self.answers.append(self.ask(f"patient-{number}&{row}"))
            except (OSError, ValueError) as error:
                self.failed.append(repr(error))

    def watch(self) -> None:
        """Let the clients go on when the controller has looked."""
        looks = 0
        while not self.is_over.is_set():
            rollout = self.workspace.rollout(KEY)
            if rollout.looks > looks or not rollout.live:
                looks, self.allowed = rollout.looks, self.sent + AHEAD
            time.sleep(0.01)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Traffic for as long as the block runs."""
        threads = [threading.Thread(target=self.client) for _ in range(CLIENTS)]
        threads.append(threading.Thread(target=self.watch))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join()

    def harmed(self) -> int:
        """Requests that failed because the canary is broken."""
        return sum(answer["error"] == "broken by hand" for answer in self.answers)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def least_requests(treatment: float, control: float, share: float, threshold: float) -> float:
    """Canary requests that any test needs in the mean: log(K / alpha) over what each tells.

    The information is against the nearest pair of equal rates, control's requests included.
    """
    both = share * treatment + (1 - share) * control
    terms = ((1.0, treatment), ((1 - share) / share, control))
    told = sum(
        weight * (p * math.log(p / both) + (1 - p) * math.log((1 - p) / (1 - both)))
        for weight, p in terms
    )
    return math.log(threshold) / told


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("gunicorn", "sklearn"):
        pytest.importorskip(name, reason=f"no {name}: {WHY}")
    (tmp_path / "app.py").write_text(APP)
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    return workspace


def test_a_canary_broken_by_hand_is_halted_and_every_worker_returns_to_control(
    tmp_path: Path, workspace: Workspace
) -> None:
    stages = (Stage(name="canary", share=SHARE, min_units=10**6),)
    plan = Rollout.plan(
        KEY, experiment="diagnosis", control="forest", treatment="logistic", stages=stages
    )
    workspace.start(plan)
    fault = tmp_path / "fault"
    variables = {"WORKSPACE": str(workspace.path), "FAULT": str(fault)}
    where = ("--bind", f"unix:{tmp_path / 'socket'}")
    controller = ("-m", "abkit.cli", "controller", str(workspace.path), "--interval", "0.05")
    traffic = Traffic(tmp_path / "socket", workspace)
    with (
        running(tmp_path, "server", *SERVER, *where, **variables),
        running(tmp_path, "controller", *controller),
    ):
        wait_until(traffic.path.exists, "the server does not listen")
        with traffic.flowing():
            wait_until(lambda: len(traffic.answers) >= 500, "no traffic")
            wait_until(lambda: workspace.rollout(KEY).looks >= 5, "no looks")
            assert workspace.rollout(KEY).state == "canary"
            workers = {answer["pid"] for answer in traffic.answers}
            assert len(workers) == 2
            assert traffic.harmed() == 0
            before, broken_at = len(traffic.answers), time.monotonic()
            fault.touch()
            wait_until(lambda: not workspace.rollout(KEY).live, "not halted")
            halted_after = time.monotonic() - broken_at
            wait_until(lambda: published(workspace)[0] == "killed", "not published")
            at_halt, (_, version) = len(traffic.answers), published(workspace)

            def returned() -> bool:
                found = {
                    answer["pid"]
                    for answer in traffic.answers[at_halt:]
                    if answer["version"] >= version
                }
                return found == workers

            wait_until(returned, "a worker still serves the canary")
            back_after = time.monotonic() - broken_at
            harmed, asked = traffic.harmed(), len(traffic.answers) - before
            wait_until(lambda: traffic.sent >= before + asked + 200, "no more traffic")
        assert traffic.failed == []
        # Whoever was assigned before a worker had followed may have been answered since.
        assert traffic.harmed() <= harmed + CLIENTS
        later = [traffic.ask("&") for _ in range(20)]
        assert {variant for answer in later for variant in answer["variants"]} == {"forest"}
    bound = least_requests(
        BAD_ROWS + (1 - BAD_ROWS) * BROKEN, BAD_ROWS, SHARE, plan.policy.halt_threshold
    )
    total = traffic.harmed()
    print(  # noqa: T201 - the figures are wanted
        f"{total} of {asked} requests harmed, in {halted_after:.2f} s to the halt and "
        f"{back_after:.2f} s until all workers were back; a test needs {bound:.1f} canary "
        f"requests at least, of which {bound * BROKEN:.1f} are harmed"
    )
    assert 0 < total <= MULTIPLE * bound
    check_what_was_kept(workspace, traffic)


def check_what_was_kept(workspace: Workspace, traffic: Traffic) -> None:
    """The halt has its reason, every decision replays, and every event is accounted for."""
    rollout = workspace.rollout(KEY)
    assert (rollout.state, rollout.actor) == ("halted", "abkit")
    assert "error is worse in treatment" in rollout.reason
    with Controller(workspace) as last:  # what came after the last tick
        last.tick()
    records = StoreReader(workspace.path).decisions(KEY)
    assert records[-1]["action"] == "halt"
    assert replay(records) == []
    balance = reconcile(workspace.path).total
    assert (balance.removed, balance.waiting) == (0, 0)
    assert balance.accepted == balance.stored + balance.dropped + balance.quarantined
    assert (balance.dropped, balance.quarantined) == (0, 0)
    # Each answer of the rollout's time has left its outcome; a worker may have noticed the halt
    # between its last such answer and telling the version.
    _, version = published(workspace)
    during = sum(answer["version"] < version for answer in traffic.answers)
    assert during <= outcomes(workspace) <= during + 2


def published(workspace: Workspace) -> tuple[str, int]:
    """State of the experiment as workers are told it, and the version that says so."""
    snapshot = workspace.snapshot()
    assert snapshot is not None
    return snapshot.experiments["diagnosis"].state, snapshot.version


def outcomes(workspace: Workspace) -> int:
    """Logged outcomes of requests."""
    chunk = LogReader(workspace.log_path).read({}, max_records=10**9)
    return sum(event[0] == "o" and event[3] == "error" for _, _, event in chunk.rows())
