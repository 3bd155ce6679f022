"""A soak: steady traffic through gunicorn and uvicorn while a worker is killed every 20 seconds.

Requests are assigned, exposed and recorded in real workers, a real controller loads the log beside
them, and one worker at a time is killed with SIGKILL. In the end accepted = stored + dropped +
quarantined must hold, no event that an answer acknowledged may be missing, and memory must be
flat: the slope of each kind of process is printed. Linux only: it reads /proc.

    python3 dev.py run python benchmarks/soak.py --minutes 30
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from abkit.experiment import Experiment
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 48
START_SECONDS = 60.0
STOP_SECONDS = 120.0
WARM_UP_SECONDS = 8.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

APP = """
import os
import abkit

ab = abkit.Client(os.environ["WORKSPACE"], durability=os.environ["DURABILITY"])
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}
YES, NO = ({"type": "http.response.body", "body": word} for word in (b"1", b"0"))

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        ab.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    unit = scope["query_string"].decode()
    found = ab.assign("ranker", unit)
    is_logged = ab.expose(found) and ab.record(unit, "clicks", len(unit) % 2)
    await send(START)
    await send(YES if is_logged else NO)
"""

CONTROLLER = """
import signal, sys, threading
from abkit.controller import Controller
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with Controller(sys.argv[1]) as controller:
    while not stop.is_set():
        controller.tick()
        stop.wait(1.0)
    controller.tick()
"""


@dataclass
class Traffic:
    """What was asked, and what was answered."""

    acknowledged: bytearray
    asked: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What a soak came to.

    Args:
        seconds: of traffic.
        requests_per_second: answered.
        answered: requests whose events were acknowledged.
        refused: requests whose events were dropped.
        failed: requests that a killed worker did not answer.
        kills: workers killed.
        accepted: events that the log says were handed in.
        stored: of them in the store.
        dropped: of them counted as dropped.
        quarantined: of them unreadable.
        lost: acknowledged events that are not in the store.
        slopes: growth of memory in KiB a minute, by kind of process.
        peaks: most memory of one process in MiB, by kind.
    """

    seconds: float
    requests_per_second: float
    answered: int
    refused: int
    failed: int
    kills: int
    accepted: int
    stored: int
    dropped: int
    quarantined: int
    lost: int
    slopes: dict[str, float]
    peaks: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether everything is accounted for."""
        return self.lost == 0 and self.accepted == self.stored + self.dropped + self.quarantined

    def lines(self) -> Iterator[str]:
        """What a person wants to read."""
        yield (
            f"{self.answered:,} requests answered in {self.seconds:.0f} s: "
            f"{self.requests_per_second:,.0f} a second; {self.kills} workers killed, "
            f"{self.failed} requests cut off by it"
        )
        yield (
            f"accepted {self.accepted:,} = stored {self.stored:,} + dropped {self.dropped:,} + "
            f"quarantined {self.quarantined:,}; acknowledged and lost: {self.lost}"
        )
        for name, slope in self.slopes.items():
            peak = self.peaks[name]
            yield f"memory of {name}: {slope:+,.0f} KiB a minute, at most {peak:,.0f} MiB"


async def ask(path: str, traffic: Traffic, begin: float, end: float, rate: float) -> None:
    """One client: takes the next number, waits for its moment, asks, over one connection."""
    reader = writer = None
    while True:
        number = traffic.asked
        moment = begin + number / rate
        if moment >= end or time.monotonic() >= end:
            break
        traffic.asked += 1
        wait = moment - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        try:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /?u%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(1)
        except (OSError, asyncio.IncompleteReadError):
            traffic.failed += 1
            if writer is not None:
                writer.close()
            reader = writer = None
            continue
        if head.startswith(b"HTTP/1.1 200") and body == b"1":
            traffic.answered += 1
            traffic.acknowledged[number] = 1
        else:
            traffic.refused += 1
    if writer is not None:
        writer.close()


async def drive(path: str, rate: float, seconds: float) -> Traffic:
    """All clients, for so long."""
    traffic = Traffic(bytearray(int(rate * seconds) + CONNECTIONS + 1))
    begin = time.monotonic()
    await asyncio.gather(
        *(ask(path, traffic, begin, begin + seconds, rate) for _ in range(CONNECTIONS))
    )
    traffic.seconds = time.monotonic() - begin
    return traffic


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def resident(pid: int) -> int:
    """Memory of a process in bytes; 0 if it is gone."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


class Watch:
    """Kills a worker at intervals and samples memory, beside the traffic.

    Args:
        master: pid of gunicorn.
        controller: pid of the controller.
        kill_seconds: between two kills.
    """

    def __init__(self, master: int, controller: int, kill_seconds: float) -> None:
        self._master = master
        self._controller = controller
        self._kill_seconds = kill_seconds
        self._dice = random.Random(4)
        self.kills = 0
        self.samples: dict[str, list[tuple[int, float, int]]] = defaultdict(list)

    async def run(self) -> None:
        """Until cancelled."""
        begin = time.monotonic()
        while True:
            now = time.monotonic() - begin
            workers = children(self._master)
            if now >= (self.kills + 1) * self._kill_seconds and len(workers) > 1:
                self.kills += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._dice.choice(workers), signal.SIGKILL)
            for name, pids in (
                ("workers", workers),
                ("gunicorn", [self._master]),
                ("controller", [self._controller]),
            ):
                for pid in pids:
                    size = resident(pid)
                    if size:
                        self.samples[name].append((pid, now, size))
            await asyncio.sleep(0.5)

    def slopes(self) -> tuple[dict[str, float], dict[str, float]]:
        """KiB a minute and most MiB by kind, each process compared with itself alone."""
        slopes, peaks = {}, {}
        for name, samples in self.samples.items():
            times, sizes = [], []
            for pid in {pid for pid, _, _ in samples}:
                own = np.array([item[1:] for item in samples if item[0] == pid])
                own = own[own[:, 0] >= own[0, 0] + WARM_UP_SECONDS]
                if len(own) > 1:
                    times.append(own[:, 0] - own[:, 0].mean())
                    sizes.append(own[:, 1] - own[:, 1].mean())
            x, y = np.concatenate(times or [[0.0]]), np.concatenate(sizes or [[0.0]])
            slopes[name] = float(x @ y / max(x @ x, 1e-9)) * 60 / 1024
            peaks[name] = max(size for _, _, size in samples) / 2**20
        return slopes, peaks


@contextlib.contextmanager
def started(*command: object, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process group that is gone in the end."""
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def under_watch(path: str, rate: float, seconds: float, watch: Watch) -> Traffic:
    """The traffic, with somebody who kills and somebody who counts."""
    await asyncio.wait_for(reachable(path), START_SECONDS)
    watching = asyncio.create_task(watch.run())
    try:
        return await drive(path, rate, seconds)
    finally:
        watching.cancel()


async def reachable(path: str) -> None:
    """Until the server takes connections."""
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def soak(
    folder: Path,
    *,
    seconds: float,
    rate: float = 2_000.0,
    workers: int = 2,
    kill_seconds: float = 20.0,
    durability: str = "os",
) -> Report:
    """Run one soak.

    Args:
        folder: an empty folder with a short name, because of the socket in it.
        seconds: of traffic.
        rate: requests a second; fewer where the machine cannot.
        workers: of gunicorn.
        kill_seconds: between two kills.
        durability: of the client.
    """
    workspace = Workspace(folder / "workspace")
    workspace.publish(Experiment.create("ranker", {"old": 0.5, "new": 0.5}, salt="soak"))
    (folder / "soaked.py").write_text(APP, encoding="utf-8")
    path = str(folder / "socket")
    environment = os.environ | {
        "WORKSPACE": str(workspace.path),
        "DURABILITY": durability,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
    }
    gunicorn = (
        *(sys.executable, "-m", "gunicorn", f"--workers={workers}", f"--bind=unix:{path}"),
        *("--worker-class=uvicorn.workers.UvicornWorker", "--no-control-socket"),
        *("--log-level=critical", "soaked:app"),
    )
    with (
        # Its own words, such as DuckDB's progress bar, are no part of the report.
        started(
            *(sys.executable, "-c", CONTROLLER, workspace.path), stdout=subprocess.DEVNULL
        ) as controller,
        started(*gunicorn, cwd=folder, env=environment) as server,
    ):
        watch = Watch(server.pid, controller.pid, kill_seconds)
        traffic = asyncio.run(under_watch(path, rate, seconds, watch))
        for process in (server, controller):  # the log is complete before it is read to its end
            process.terminate()
            process.wait(STOP_SECONDS)
    total = reconcile(workspace.path).total
    slopes, peaks = watch.slopes()
    return Report(
        seconds=traffic.seconds,
        requests_per_second=traffic.answered / traffic.seconds,
        answered=traffic.answered,
        refused=traffic.refused,
        failed=traffic.failed,
        kills=watch.kills,
        accepted=total.accepted,
        stored=total.stored,
        dropped=total.dropped,
        quarantined=total.quarantined,
        lost=count_lost(workspace, traffic.acknowledged),
        slopes=slopes,
        peaks=peaks,
    )


def count_lost(workspace: Workspace, acknowledged: bytearray) -> int:
    """Acknowledged events that are not in the store: of each request, one of each kind."""
    expected = np.flatnonzero(np.frombuffer(acknowledged, np.uint8))
    lost = 0
    with duckdb.connect(workspace.store_path / "abkit.duckdb", read_only=True) as store:
        for table in ("exposure", "outcome"):
            query = f"SELECT substr(unit_id, 2)::BIGINT AS number FROM {table}"  # noqa: S608 - ours
            found = store.execute(query).fetchnumpy()["number"]
            lost += len(np.setdiff1d(expected, found)) + len(found) - len(np.unique(found))
    return lost


def main() -> None:
    """Run a soak, print what came of it, and fail where something is not accounted for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=2_000.0, help="requests a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill-seconds", type=float, default=20.0, help="between two kills")
    parser.add_argument("--durability", choices=("os", "buffered", "fsync"), default="os")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="abkit-"))
    try:
        report = soak(
            folder,
            seconds=60 * options.minutes,
            rate=options.rate,
            workers=options.workers,
            kill_seconds=options.kill_seconds,
            durability=options.durability,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(asdict(report)) if options.json else "\n".join(report.lines())
    print(text)
    sys.exit(0 if report.holds else 1)


if __name__ == "__main__":
    main()
