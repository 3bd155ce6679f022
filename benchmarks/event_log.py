"""What does logging an event cost, how soon is it seen, and what does a kill cost?

Accepted events a second from 1, 4 and 8 processes, the time of a call, the time until an event is
in the published file, what is lost to SIGKILL, and rows ingested a second; beside a list's append,
an insert each in DuckDB and SQLite, Python's logging, and the queues of PostHog and LaunchDarkly
sending to a server on this machine that answers 200. All contenders take turns in each round.
Peers that are not installed are left out. Writes `benchmarks/results/event_log.md`.

    python3 dev.py run python benchmarks/event_log.py               # some 3 minutes
    python3 dev.py run python benchmarks/event_log.py --rounds 11 --seconds 3 --kills 40
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from event_log_report import written
from event_log_sinks import (
    ACKNOWLEDGED,
    IN_MEMORY,
    MODES,
    SINKS,
    SPENT,
    YARDS,
    arrived,
    log_length,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = Path(__file__).parent / "results" / "event_log.md"
WORKER = Path(__file__).with_name("event_log_sinks.py")
PACES = {"1": (1, 0.0), "8 flat out": (8, 0.0), "8, 1 ms apart": (8, 0.001)}
TIMED = (*YARDS, *(f"abkit, {mode}" for mode in MODES))
MILLISECOND = 1_000_000  # nanoseconds
TRACK_SECONDS = 20.0  # to give up on an event that nobody sees


class Inbox(ThreadingHTTPServer):
    """A server that answers 200 and keeps what it was sent; reading it comes after the run."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        """Listen on any free port of the loopback."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Keep the body."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # its sender was killed
            self.close_connection = True
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(slots=True)
class Found:
    """Everything that was measured.

    Args:
        rates: accepted events a second, by sink and number of processes; one figure a round.
        cpu: microseconds of CPU a call, likewise.
        arrivals: share of accepted events that arrived, likewise.
        calls: microseconds, by sink and pace: p50, p99, p99.9, slowest; and how many
            calls of a million took more than 1 ms.
        seen: seconds from the call to the published file, by mode.
        lost: kills, acknowledged events, lost ones, by sink.
        ingest: rows a second, by wall clock and by CPU; one figure a round.
        stored: rows that were logged and rows that the store had.
        absent: sinks that were left out.
        load: load averages of the machine before and after.
    """

    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    cpu: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    arrivals: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    calls: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    seen: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    ingest: dict[str, list[float]] = field(default_factory=dict)
    stored: list[tuple[int, int]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    load: list[float] = field(default_factory=list)


@contextlib.contextmanager
def workers(
    name: str, folder: Path, server: str, number: int, *options: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that all begin at the same word, which has been given."""
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), name, str(folder / str(i)), server, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for i in range(number)
    ]
    try:
        for worker in started:
            if worker.stdout is None or worker.stdout.readline() != "ready\n":
                raise RuntimeError(f"a worker of {name!r} did not start")
        for worker in started:
            if worker.stdin is not None:
                worker.stdin.write("go\n")
                worker.stdin.flush()
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.communicate()


def run(name: str, folder: Path, inbox: Inbox, number: int, *options: str) -> list[dict[str, Any]]:
    """Let workers call, and what each says of it."""
    with workers(name, folder, inbox.address, number, *options) as started:
        return [json.loads(worker.communicate(timeout=120)[0]) for worker in started]


def rate(found: Found, name: str, number: int, inbox: Inbox, seconds: float) -> None:
    """Measure how many events a second are accepted."""
    inbox.bodies.clear()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        told = run(name, folder, inbox, number, "--seconds", str(seconds))
        accepted = sum(item["accepted"] for item in told)
        spent = max(item["ended"] for item in told) - min(item["begun"] for item in told)
        calls = sum(item["calls"] for item in told)
        case = (name, number)
        found.rates.setdefault(case, []).append(accepted / spent)
        found.cpu.setdefault(case, []).append(sum(item["cpu"] for item in told) / calls * 1e6)
        if name not in YARDS:
            share = (arrived(name, folder, inbox.bodies) - number) / accepted  # less the warm-up
            found.arrivals.setdefault(case, []).append(share)


def time_calls(found: Found, inbox: Inbox, rounds: int, seconds: float) -> None:
    """Measure how long one call takes."""
    spent: dict[tuple[str, str], list[np.ndarray[Any, np.dtype[np.uint32]]]] = {}
    for _ in range(rounds):
        for pace, (number, pause) in PACES.items():
            for name in TIMED:
                options = ["--how", "timed", "--pause", str(pause), "--seconds", str(seconds)]
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary)
                    run(name, folder, inbox, number, *options)
                    spent.setdefault((name, pace), []).extend(
                        np.fromfile(file, dtype=np.uint32) for file in folder.glob(f"*/{SPENT}")
                    )
    for case, parts in spent.items():
        whole = np.concatenate(parts)
        p50, p99, p999 = (float(q) / 1e3 for q in np.quantile(whole, [0.5, 0.99, 0.999]))
        over = float((whole > MILLISECOND).mean()) * 1e6
        found.calls[case] = (p50, p99, p999, float(whole.max()) / 1e3, over)


def kill(found: Found, name: str, inbox: Inbox, times: int, pause: float = 0.0) -> None:
    """Kill a worker again and again, and count what it had been told is accepted and is gone."""
    order = random.Random(3)
    acknowledged = lost = 0
    for _ in range(times):
        inbox.bodies.clear()
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            options = ("--how", "killed", "--pause", str(pause))
            with workers(name, folder, inbox.address, 1, *options):
                time.sleep(order.uniform(0.1, 1.0))
            time.sleep(0.1)  # what is under way to the server
            known = 1 + int.from_bytes((folder / "0" / ACKNOWLEDGED).read_bytes(), sys.byteorder)
            acknowledged += known
            lost += max(0, known - arrived(name, folder, inbox.bodies))
    found.lost[f"{name}, 1 ms apart" if pause else name] = (times, acknowledged, lost)


def see(found: Found, inbox: Inbox, times: int) -> None:
    """Measure how long an event takes to the published file, beside 2,000 events a second."""
    from abkit.controller import Controller
    from abkit.workspace import Workspace

    stop = threading.Event()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        Workspace(folder).create()
        controller = Controller(folder)
        ticks = threading.Thread(target=controller.run, kwargs={"stop": stop.is_set})
        ticks.start()
        options = ("--how", "timed", "--pause", "0.001", "--seconds", str(4 * times + 5))
        try:
            with workers("abkit, os", folder, inbox.address, 2, *options):
                for mode in ("buffered", "os"):
                    found.seen[mode] = seen(folder, mode, times)
        finally:
            stop.set()
            ticks.join()
            controller.close()


def seen(folder: Path, mode: Any, times: int) -> list[float]:
    """Seconds from calls at odd moments to the published file."""
    from abkit.log import SegmentWriter
    from abkit.store.publish import PUBLISHED
    from abkit.store.reader import StoreReader

    reader, order = StoreReader(folder), random.Random(5)
    spent = []
    with SegmentWriter(folder / "log", durability=mode) as writer:
        own = writer.counts.writer_id
        for number in range(1, times + 1):
            time.sleep(order.uniform(0.0, 1.0))
            writer.append(("o", time.time(), "user-1", "score", 1.0, "", ""))
            begun, state = time.monotonic(), None
            while time.monotonic() < begun + TRACK_SECONDS:
                with contextlib.suppress(FileNotFoundError):
                    now = (folder / "store" / PUBLISHED).stat().st_ino
                    if (
                        now != state
                        and {w.writer: w.stored for w in reader.writers()}.get(own, 0) >= number
                    ):
                        break
                    state = now
                time.sleep(0.002)
            spent.append(time.monotonic() - begun)
    return spent


def ingest(found: Found, rows: int, rounds: int) -> None:
    """Measure how many rows a second are loaded, half exposures and half outcomes."""
    for _ in range(rounds):
        command = [sys.executable, __file__, "--ingest", str(rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        told = json.loads(done.stdout)
        found.stored.append((told["logged"], told["stored"]))
        for clock in ("wall", "cpu"):
            found.ingest.setdefault(clock, []).append(rows / told[clock])


def ingest_once(rows: int) -> dict[str, float]:
    """Log so many events from four writers, and load them."""
    from abkit.log import SegmentWriter
    from abkit.store.ingest import Ingester
    from abkit.workspace import Workspace

    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace(temporary)
        workspace.create()
        begun = time.time()
        for writer_number in range(4):
            with SegmentWriter(workspace.log_path, durability="buffered") as writer:
                for i in range(writer_number, rows, 4):
                    now, unit = begun + i * 1e-4, f"user-{i // 8}"
                    if i % 8 < 4:
                        variant = "new" if i % 16 < 8 else "old"
                        writer.append(("e", now, "ranker", unit, variant, 1))
                    else:
                        writer.append(("o", now, unit, "score", i * 0.37, "", ""))
        logged = log_length(workspace.log_path)
        with Ingester(workspace) as ingester:
            wall, cpu = time.perf_counter(), time.process_time()
            stored = ingester.ingest().events
            again = ingester.ingest().events
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"logged": logged, "stored": stored + again, "wall": wall, "cpu": cpu}


def measured(given: argparse.Namespace) -> Found:
    """Measure everything."""
    found = Found(absent=[name for name, sink in SINKS.items() if not sink.is_here])
    found.load.append(os.getloadavg()[0])
    cases = [
        (name, number) for name, sink in SINKS.items() if sink.is_here for number in sink.counts
    ]
    inbox, order = Inbox(), random.Random(1)
    for number in range(given.rounds):
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
        order.shuffle(cases)
        for name, processes in cases:
            rate(found, name, processes, inbox, given.seconds)
    print("calls", file=sys.stderr)
    time_calls(found, inbox, (given.rounds + 1) // 2, given.seconds)
    print("kills", file=sys.stderr)
    for name, sink in SINKS.items():
        if sink.is_here and name not in YARDS:
            kill(found, name, inbox, given.kills)
        if sink.is_here and name in IN_MEMORY:
            kill(found, name, inbox, given.kills, pause=0.001)
    print("visibility and ingest", file=sys.stderr)
    see(found, inbox, given.looks)
    ingest(found, given.rows, given.rounds)
    found.load.append(os.getloadavg()[0])
    inbox.shutdown()
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="a run (0.5)")
    parser.add_argument("--kills", type=int, default=5, help="of each contender (5)")
    parser.add_argument("--looks", type=int, default=8, help="events watched a mode (8)")
    parser.add_argument("--rows", type=int, default=400_000, help="to ingest (400,000)")
    parser.add_argument("--ingest", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ingest:
        ingest_once(10_000)  # imports and first calls
        print(json.dumps(ingest_once(given.ingest)))
        return
    begun = time.monotonic()
    found = measured(given)
    text = written(found, given, minutes=(time.monotonic() - begun) / 60)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
