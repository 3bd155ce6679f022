"""How long until every preloaded worker serves a new configuration? And when it is dead?

Four gunicorn workers, forked from a master that has made the client (`--preload`), under steady
traffic. A configuration is published; the clock stops when the last of the four has answered with
it. The same for the clients of vendors, driven by a file or a loopback server, and once more with
the client made in each worker after the fork. Then: the time from nothing to the first answer with
a source that is missing, corrupt, unreachable or silent. Writes `benchmarks/results/flip_time.md`.

    python3 dev.py run python benchmarks/flip_time.py
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flip_clients import CONTENDERS, KEY, VALUES, Contender, document

from abkit.experiment import Experiment
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
RESULT = HERE / "results" / "flip_time.md"
WORKERS = 4
CLIENTS = 8
PAUSE_SECONDS = 0.015
UNSEEN_SECONDS = 15.0
UNSEEN_FLIPS = 2
START_SECONDS = 30.0
PACKAGES = {
    "gunicorn": "gunicorn",
    "ldclient": "launchdarkly-server-sdk",
    "UnleashClient": "UnleashClient",
    "growthbook": "growthbook",
    "eppo_client": "eppo-server-sdk",
    "optimizely": "optimizely-sdk",
}


class Source:
    """Where the configuration is: a workspace, a file and a server, flipped together."""

    def __init__(self, folder: Path) -> None:
        """Begin with the first value."""
        self.folder = folder
        self.number = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self._workspace = Workspace(folder / "workspace")
        self._file = folder / "flags.json"
        self.flip()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def value(self) -> str:
        """The value that is right now."""
        return VALUES[self.number % 2]

    def address(self, contender: Contender) -> str:
        """What the client is told."""
        if contender.source == "workspace":
            return str(self._workspace.path)
        if contender.source == "file":
            return str(self._file)
        return f"http://127.0.0.1:{self.server.server_port}"

    def flip(self) -> None:
        """Publish the other value, everywhere."""
        self.number += 1
        self._file.write_text(json.dumps({"flagValues": {KEY: self.value}}))
        self._workspace.publish(Experiment.create(KEY, {self.value: 1.0}))


class Handler(BaseHTTPRequestHandler):
    """The vendors' servers."""

    def __init__(self, source: Source, *arguments: object) -> None:
        """Answer one connection."""
        self._source = source
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer with the configuration of now."""
        found = document(self.path, self._source.value, self._source.number)
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Fleet:
    """Four workers under steady traffic, and when each last changed its answer.

    Args:
        path: the socket they listen on.
    """

    def __init__(self, path: Path) -> None:
        """Begin with the traffic."""
        self._path = str(path)
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self.serves: dict[int, tuple[str, float]] = {}
        self.requests = 0
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the traffic."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait(self, value: str, seconds: float) -> int:
        """Wait until all workers serve a value; returns how many do."""
        deadline = time.monotonic() + seconds
        while True:
            count = sum(served == value for served, _ in list(self.serves.values()))
            if count == WORKERS or time.monotonic() > deadline:
                return count
            time.sleep(0.005)

    def _ask_on(self) -> None:
        while not self._is_over.is_set():
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(30.0)
                    connection.connect(self._path)
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    text = b"".join(iter(partial(connection.recv, 4096), b"")).decode()
                pid, value = text.partition("\r\n\r\n")[2].split()
            except (OSError, ValueError):
                time.sleep(0.1)
                continue
            with self._lock:
                self.requests += 1
                if self.serves.get(int(pid), ("", 0.0))[0] != value:
                    self.serves[int(pid)] = (value, time.monotonic())
            time.sleep(PAUSE_SECONDS)


@contextmanager
def serving(name: str, source: Source, when: str) -> Iterator[Fleet]:
    """Gunicorn with four preloaded workers, under traffic."""
    path = source.folder / "socket"
    variables = {
        "FLIP_CLIENT": name,
        "FLIP_SOURCE": source.address(CONTENDERS[name]),
        "FLIP_WHEN": when,
        "FLIP_FOLDER": str(source.folder),
    }
    command = ["-m", "gunicorn", "--preload", f"--workers={WORKERS}", f"--bind=unix:{path}"]
    command += ["--no-control-socket", "--log-level=error", "flip_clients:create_app()"]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *command],
        cwd=HERE,
        env=os.environ | variables,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    fleet = Fleet(path)
    try:
        yield fleet
    finally:
        fleet.stop()
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def flip_times(name: str, source: Source, when: str, flips: int) -> tuple[list[float], int]:
    """Seconds of each flip until the last worker served it, and how many never saw theirs."""
    found: list[float] = []
    unseen = 0
    dice = random.Random(name)
    with serving(name, source, when) as fleet:
        if fleet.wait(source.value, 60.0) != WORKERS:
            raise SystemExit(f"{name} ({when} the fork) did not start: {fleet.serves}")
        while len(found) + unseen < (UNSEEN_FLIPS if unseen else flips):
            time.sleep(1.0 + dice.random())  # the flip comes at any point of the period
            published = time.monotonic()
            source.flip()
            if fleet.wait(source.value, UNSEEN_SECONDS) < WORKERS:
                unseen += 1
                source.flip()  # back to what they still serve, so that the next one is news again
                continue
            found.append(max(at for _, at in fleet.serves.values()) - published)
    return found, unseen


def shown(found: list[float], unseen: int) -> str:
    """The cell of a table."""
    if unseen:
        return f"not seen in {UNSEEN_SECONDS:.0f} s ({unseen} of {unseen + len(found)} flips)"
    return f"{statistics.median(found):.2f} s, {max(found):.2f} s"


def flip_table(source: Source, flips: int) -> list[str]:
    """One line a client."""
    lines = [
        "| client | its period | made before the fork | made after the fork, in each worker |",
        "|---|---|---|---|",
    ]
    for name, contender in CONTENDERS.items():
        if not contender.flips or not is_installed(contender):
            continue
        cells = []
        for when in ("before", "after"):
            count = flips if name == "abkit" else flips // 2
            cells.append(shown(*flip_times(name, source, when, count)))
            print(f"{name}, {when} the fork: {cells[-1]}", flush=True)
        lines.append(f"| {name} | {contender.period} | {cells[0]} | {cells[1]} |")
    return lines


def start_time(name: str, address: str) -> str:
    """Seconds to the first answer, and the answer, of a fresh process."""
    command = [sys.executable, "-W", "ignore", str(HERE / "flip_clients.py"), name, address]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            text, _ = process.communicate(timeout=START_SECONDS + 5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"no answer in {START_SECONDS:.0f} s"
    seconds, value = json.loads(text)
    if seconds > START_SECONDS:
        return f"no answer in {START_SECONDS:.0f} s"
    spent = f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.1f} s"
    return f"{spent}: {value}"


def start_tables(folder: Path) -> list[str]:
    """Two tables: what reads a file, and what asks a server."""
    missing, corrupt = folder / "missing", folder / "corrupt"
    corrupt.mkdir()
    published = (folder / "workspace" / "snapshot.json").read_bytes()
    (corrupt / "snapshot.json").write_bytes(published[: len(published) // 2])
    (corrupt / "flags.json").write_text('{"flagValues": {')
    rows: dict[str, list[str]] = {"file": [], "server": []}
    with socket.socket() as refusing, socket.socket() as silent:
        refusing.bind(("127.0.0.1", 0))  # bound, and nobody listens
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)  # connections are made, and never answered
        ports = [f"http://127.0.0.1:{end.getsockname()[1]}" for end in (refusing, silent)]
        for name, contender in CONTENDERS.items():
            if not is_installed(contender):
                continue
            addresses = {
                "workspace": [str(missing), str(corrupt)],
                "file": [str(missing / "flags.json"), str(corrupt / "flags.json")],
                "server": ports,
            }[contender.source]
            cells = [start_time(name, address) for address in addresses]
            print(f"{name}, dead at the start: {cells}", flush=True)
            kind = "server" if contender.source == "server" else "file"
            rows[kind].append(f"| {name} | {cells[0]} | {cells[1]} |")
    head = "| client | {} | {} |\n|---|---|---|"
    return [
        head.format("file missing", "file corrupt"),
        *rows["file"],
        "",
        head.format("nobody listens", "connects, never answers"),
        *rows["server"],
    ]


def is_installed(contender: Contender) -> bool:
    """Whether the client's package is there."""
    return find_spec(contender.modules[0].partition(".")[0]) is not None


def versions() -> str:
    """The versions that were measured."""
    found = [package for module, package in PACKAGES.items() if find_spec(module)]
    return ", ".join(f"{package} {version(package)}" for package in found)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=20, help="of abkit; half as many of others")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="flip-"))
    source = Source(folder)
    try:
        flips = flip_table(source, options.flips)
        starts = start_tables(folder)
    finally:
        source.server.shutdown()
        source.server.server_close()
        shutil.rmtree(folder, ignore_errors=True)
    text = "\n".join(
        [
            "# From a flip to the last worker, and a dead start",
            "",
            "Written by `python3 dev.py run python benchmarks/flip_time.py`.",
            "",
            f"## Flip: median and maximum until the last of {WORKERS} workers serves it",
            "",
            *flips,
            "",
            NOTES.format(flips=options.flips, half=options.flips // 2, unseen=UNSEEN_FLIPS),
            "",
            "## Start with a dead configuration: until the first answer, and that answer",
            "",
            *starts,
            "",
            START_NOTES,
            "",
            f"Python {sys.version.split()[0]}, {os.cpu_count()} cores; {versions()}.",
            "",
        ]
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, "utf-8")
    print(text)


NOTES = """\
`gunicorn --preload`, sync workers, steady traffic from 8 clients. {flips} flips of abkit and {half}
of each other client; {unseen} of a client that did not see the first. The periods differ, so the
last column compares no speeds: it shows that each client follows when it is made in the worker.
LaunchDarkly reads a file, written in place; the others ask a loopback server that answers at once.
LaunchDarkly documents `postfork()` for this; abkit needs nothing done. "GrowthBook, TTL" calls
`load_features()` in each request, and the request that finds the cache expired waits for the
server; the other clients of vendors follow on a thread, which no fork carries over."""

START_NOTES = """\
A fresh process; imports are not counted. Default timeouts. Eppo is measured with
`wait_for_initialization()`, without which it answers "control" at once in both cases. "control" is
the default that the call names; for Unleash, "teacher" is a flag that is off."""


if __name__ == "__main__":
    main()
