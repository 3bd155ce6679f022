"""Serve two models, roll the new one out, and take it back.

    python examples/ranker_service/run.py

Starts gunicorn with two preloaded workers and abkit's controller, sends the census of 2016 as
traffic, and stops everything again. `--serve` keeps it running instead.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import rows

from abkit import Workspace
from abkit.log import LogReader

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
WORKERS = 2
CLIENTS = 4
LABEL_SECONDS = 0.2
ABKIT = (sys.executable, "-m", "abkit.cli")
KEY = "tree-for-forest"


@contextmanager
def running(*command: str, **variables: str) -> Iterator[None]:
    """A process that runs as long as the block does, and is then stopped by SIGTERM."""
    process = subprocess.Popen(
        command, cwd=HERE, env=os.environ | variables, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


class Service:
    """The service as its users see it."""

    def __init__(self, port: int) -> None:
        """Remember the port; start nothing."""
        self.port = port
        self.requests = 0

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request, over a connection of its own: any worker may take it."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            text = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("GET" if body is None else "POST", path, text, headers)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer

    def wait(self) -> None:
        """Return when it answers."""
        for _ in range(600):
            try:
                self.call("/health")
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise SystemExit("the service does not answer")

    def send(self, is_over: threading.Event, number: int) -> None:
        """One client's traffic: a request for each person, and its label a little later."""
        waiting: list[tuple[float, dict[str, Any]]] = []
        people = zip(*rows(2016), strict=True)
        for person, features, employed in itertools.islice(people, number, None, CLIENTS):
            if is_over.is_set():
                break
            user = f"person-{person}"
            found = self.call("/predict", {"user_id": user, "features": features.tolist()})
            label = {"user_id": user, **found, "employed": int(employed)}
            waiting.append((time.monotonic() + LABEL_SECONDS, label))
            self.requests += 1
            while waiting and waiting[0][0] < time.monotonic():
                self.call("/label", waiting.pop(0)[1])

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Clients that ask for as long as the block runs."""
        is_over = threading.Event()
        clients = [threading.Thread(target=self.send, args=(is_over, n)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            is_over.set()
            for client in clients:
                client.join()

    def wait_for_version(self, version: int) -> float:
        """Seconds until every worker serves this version of the configuration."""
        started, seen = time.monotonic(), set[int]()
        while len(seen) < WORKERS and time.monotonic() < started + 20:
            worker = self.call("/health")
            if worker["snapshot"]["version"] >= version:
                seen.add(worker["worker"])
        return time.monotonic() - started


def decided(space: Workspace, service: Service) -> None:
    """Follow the rollout to its end, telling each move."""
    told = ""
    for _ in range(600):
        rollout = space.rollout(KEY)
        line = f"  {rollout.state}, {rollout.stage.name}: {rollout.reason}"
        if line != told:
            print(line, f"({service.requests:,} requests)", flush=True)
            told = line
        if not rollout.live:
            return
        time.sleep(0.1)


def report(folder: Path) -> None:
    """What the event log says of the rollout: users and latency of each variant."""
    served: dict[str, str] = {}
    latencies: dict[str, list[float]] = {}
    events = LogReader(folder / "log").read({}, max_records=10**9)
    for _, _, (kind, _, *rest) in events.rows():
        if kind == "e":
            served[rest[1]] = rest[2]
        elif kind == "o" and rest[1] == "latency_ms" and rest[0] in served:
            latencies.setdefault(served[rest[0]], []).append(rest[2])
    print(f"{len(events):,} events logged, {len(events.gaps)} lost")
    for variant, found in sorted(latencies.items()):
        print(
            f"  {variant}: {len(found):,} users assigned, median {statistics.median(found):.2f} ms"
        )


def main() -> None:
    """Run the whole story, or serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="keep the workspace in this new folder")
    parser.add_argument("--port", type=int, default=0, help="by default a free one")
    parser.add_argument("--serve", action="store_true", help="keep serving, without sample traffic")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops what it has started too
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="abkit-"))
        folder = (options.workspace or Path(temporary)).absolute()
        space = Workspace(folder)
        space.create()
        service = Service(options.port or free_port())
        print(f"workspace {folder}; training two models, starting {WORKERS} workers", flush=True)
        server = (sys.executable, "-m", "gunicorn", "--preload", f"--workers={WORKERS}")
        server += ("--worker-class=asgi", f"--bind=127.0.0.1:{service.port}", "app:app")
        server += ("--no-control-socket", "--log-level=warning")
        stack.enter_context(running(*server, ABKIT_WORKSPACE=str(folder)))
        stack.enter_context(running(*ABKIT, "controller", str(folder), "--interval=0.5"))
        service.wait()
        subprocess.run([*ABKIT, "rollout", "start", folder, HERE / "rollout.toml"], check=True)
        if options.serve:
            serve(service.port, folder)
            return
        with service.traffic():
            decided(space, service)
            subprocess.run([*ABKIT, "rollout", "rollback", folder, KEY], check=True)
            snapshot = space.snapshot()
            seconds = service.wait_for_version(0 if snapshot is None else snapshot.version)
            print(f"  all {WORKERS} workers serve the forest again {seconds:.2f} s later")
        report(folder)


def serve(port: int, folder: Path) -> None:
    """Say how to ask, and wait for Ctrl-C."""
    _, features, _ = (part[:1].tolist() for part in rows(2016))
    body = json.dumps({"user_id": "ann", "features": features[0]})
    print(f"curl -H 'Content-Type: application/json' -d '{body}' 127.0.0.1:{port}/predict")
    print(f"curl 127.0.0.1:{port}/health")
    print(f"abkit rollout rollback {folder} {KEY}    (Ctrl-C stops everything)", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("stopping")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
