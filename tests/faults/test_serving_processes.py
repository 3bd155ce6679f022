"""Real servers and forks: one client, made before the fork, serves and logs in them all."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment
from abkit.log import LogReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abkit.log import Chunk

CLIENTS = 4
START_SECONDS = 30.0
FLIP_SECONDS = 10.0
STOP_SECONDS = 20.0
UNITS = 120

FIRST = Experiment.create("ranker", {"teacher": 0.5, "student": 0.5}, salt="before")
SECOND = replaced(
    Experiment.create("ranker", {"teacher": 0.3, "student": 0.7}, salt="before"), epoch=2
)

# What each server serves: WSGI and ASGI over one client that is made when the module is imported.
APP = """
import json, os, threading, time
import abkit

ab = abkit.Client(os.environ["WORKSPACE"])
ab.assign("ranker", "warm-up")
ab.record("parent", "started", 1.0)  # a segment is open when the workers are forked
MADE_IN = os.getpid()

def answer(unit):
    found = ab.assign("ranker", unit)
    is_logged = ab.expose(found) and ab.record(unit, "answered", 1.0)
    return json.dumps({
        "pid": os.getpid(), "made_in": MADE_IN, "thread": threading.get_ident(), "unit": unit,
        "variant": found.variant, "version": found.version, "epoch": found.epoch,
        "is_logged": is_logged, "writer": ab.health().events.writer_id,
        "accepted": ab.health().events.accepted,
    }).encode()

def wsgi(environ, start_response):
    body = answer(environ["QUERY_STRING"])
    time.sleep(0.004)  # long enough for the other worker to take the next connection
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = answer(scope["query_string"].decode())
    time.sleep(0.004)
    headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

# The same without a server: processes and threads that share a listening socket.
PROCESSES = """
import multiprocessing, os, signal, socket, sys, threading
import app

def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            unit = connection.recv(4096).split(b" ")[1].partition(b"?")[2].decode()
            body = b"".join(app.wsgi({"QUERY_STRING": unit}, lambda *_: None))
            connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + body)

def fork(listener):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        serve(listener)
    return pid

if __name__ == "__main__":
    how, path = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(100)
    if how == "threads":
        for _ in range(8):
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
        signal.pause()  # SIGTERM ends it, and nothing is closed
    if how == "os.fork":
        pids = [fork(listener) for _ in range(2)]
    else:
        context = multiprocessing.get_context(how)
        workers = [context.Process(target=serve, args=(listener,)) for _ in range(2)]
        for worker in workers: worker.start()
        pids = [worker.pid for worker in workers]
    def stop(*_):
        for pid in pids: os.kill(pid, signal.SIGTERM)
        for pid in pids: os.waitpid(pid, 0)
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    while True: signal.pause()
"""

GUNICORN = ("-m", "gunicorn", "--workers=2", "--no-control-socket", "--bind=unix:{socket}")
PRELOAD = (*GUNICORN, "--preload")
UWSGI = ("--http-socket={socket}", "--master", "--processes=2", "--module=app:wsgi")


@dataclass(frozen=True)
class Mode:
    """One way to serve, how many processes answer, and whether they are forks of the client's."""

    command: tuple[str, ...]
    needs: str = ""
    program: str = ""
    processes: int = 2
    is_forked: bool = True


MODES = {
    "gunicorn-preload-sync": Mode((*PRELOAD, "app:wsgi"), "gunicorn"),
    "gunicorn-preload-threads": Mode((*PRELOAD, "--threads=4", "app:wsgi"), "gunicorn"),
    "gunicorn-preload-asgi": Mode((*PRELOAD, "--worker-class=asgi", "app:asgi"), "gunicorn"),
    "gunicorn-preload-uvicorn": Mode(
        (*PRELOAD, "--worker-class=uvicorn.workers.UvicornWorker", "app:asgi"), "uvicorn"
    ),
    "gunicorn-sync": Mode((*GUNICORN, "app:wsgi"), "gunicorn", is_forked=False),
    "uvicorn-workers": Mode(
        ("-m", "uvicorn", "--workers=2", "--uds={socket}", "app:asgi"), "uvicorn", is_forked=False
    ),
    "uwsgi": Mode((*UWSGI, "--die-on-term"), "pyuwsgi", "uwsgi"),
    "uwsgi-lazy-apps": Mode(
        (*UWSGI, "--die-on-term", "--lazy-apps"), "pyuwsgi", "uwsgi", is_forked=False
    ),
    "os-fork": Mode(("processes.py", "os.fork", "{socket}")),
    "multiprocessing-fork": Mode(("processes.py", "fork", "{socket}")),
    "multiprocessing-spawn": Mode(("processes.py", "spawn", "{socket}"), is_forked=False),
    "threads": Mode(("processes.py", "threads", "{socket}"), processes=1, is_forked=False),
}


@dataclass
class Server:
    """A server that runs, and everything that it has answered."""

    process: subprocess.Popen[bytes]
    folder: Path
    answers: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    def ask(self, unit: str) -> dict[str, Any] | None:
        """One request over a connection of its own; None where none or half an answer came."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10.0)
                connection.connect(str(self.folder / "socket"))
                connection.sendall(f"GET /?{unit} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                text = b"".join(iter(partial(connection.recv, 65536), b""))
            answer: dict[str, Any] = json.loads(text.partition(b"\r\n\r\n")[2])
        except (OSError, ValueError):
            self.failed += 1
            return None
        self.answers.append(answer)
        return answer

    def ask_until(self, name: str, is_enough: Callable[[], bool], seconds: float) -> None:
        """Some clients at once, each asking for ever new units, until there is enough."""
        deadline = time.monotonic() + seconds

        def work(number: int) -> None:
            count = 0
            while not is_enough() and time.monotonic() < deadline:
                count += 1
                self.ask(f"{name}-{number}-{count}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert is_enough(), f"not within {seconds} s: {self.output()}"

    @property
    def pids(self) -> set[int]:
        """The processes that have answered so far."""
        return {answer["pid"] for answer in self.answers}

    def output(self) -> str:
        """What the server printed."""
        return (self.folder / "output.txt").read_text()

    def stop(self) -> None:
        """SIGTERM, and nothing else; every process of the server ends."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while is_alive(self.process.pid):
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def log(self) -> Chunk:
        """All events in the workspace, none lost and none damaged."""
        chunk = LogReader(self.folder / "workspace" / "log").read({}, max_records=10**9)
        assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
        return chunk


def is_alive(group: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def serving(mode: Mode) -> Iterator[Server]:
    """A server that answers, in a folder and a process group of its own; gone in the end."""
    if mode.needs and find_spec(mode.needs) is None:
        pytest.skip(f"no {mode.needs}: `python3 dev.py conformance` installs it")
    folder = Path(tempfile.mkdtemp(prefix="abkit-"))  # short: a socket's path has 107 characters
    (folder / "app.py").write_text(APP)
    (folder / "processes.py").write_text(PROCESSES)
    program = Path(sys.executable).with_name(mode.program) if mode.program else sys.executable
    words = [word.format(socket=folder / "socket") for word in mode.command]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [program, *words],
            cwd=folder,
            env=os.environ | {"WORKSPACE": str(folder / "workspace"), "PYTHONPATH": str(folder)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(process, folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while server.ask("first") is None:
            assert process.poll() is None, server.output()
            assert time.monotonic() < deadline, server.output()
            time.sleep(0.03)
        server.failed = 0
        yield server
    finally:
        if is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def check_variants(answers: list[dict[str, Any]]) -> None:
    """Each answer is what the experiment of its version says of its unit."""
    chosen = {1: compile_experiment(FIRST), 2: compile_experiment(SECOND)}
    for answer in answers:
        arm = chosen[answer["version"]](answer["unit"], None)
        assert (answer["variant"], answer["epoch"]) == (arm.variant, arm.epoch), answer
    assert {answer["variant"] for answer in answers} == {"teacher", "student"}


def flip(server: Server, workspace: Workspace) -> dict[int, float]:
    """Publish the second experiment; seconds until each process was seen to serve it."""
    seen: dict[int, float] = {}
    begin, published = len(server.answers), time.monotonic()
    workspace.publish(SECOND)

    def have_all() -> bool:
        for answer in server.answers[begin:]:
            if answer["version"] == 2:
                seen.setdefault(answer["pid"], time.monotonic() - published)
        return seen.keys() >= server.pids

    server.ask_until("flip", have_all, FLIP_SECONDS)
    return seen


@pytest.mark.parametrize("name", MODES)
def test_each_worker_serves_follows_and_logs(name: str) -> None:
    mode = MODES[name]
    with serving_workspace(mode) as (server, workspace):
        server.ask_until("one", lambda: len(server.answers) >= UNITS, START_SECONDS)
        check_variants(server.answers)
        for answer in server.answers:
            assert (answer["made_in"] != answer["pid"]) == mode.is_forked
        assert name != "threads" or len({answer["thread"] for answer in server.answers}) == 8

        seen = flip(server, workspace)
        slowest = max(seen.values())
        sys.stdout.write(f"{name}: the last worker served the new version after {slowest:.2f} s\n")
        enough = len(server.answers) + UNITS
        begin = len(server.answers)
        server.ask_until("two", lambda: len(server.answers) >= enough, START_SECONDS)
        check_variants(server.answers[begin:])
        assert {answer["version"] for answer in server.answers[begin:]} == {2}

        server.stop()
        assert server.failed == 0
        assert all(answer["is_logged"] for answer in server.answers)
        check_log(server)


@contextmanager
def serving_workspace(mode: Mode) -> Iterator[tuple[Server, Workspace]]:
    """A server that begins without a snapshot, as before the first deployment, and then has one."""
    with serving(mode) as server:
        workspace = Workspace(server.folder / "workspace")
        assert [answer["variant"] for answer in server.answers] == ["control"]
        server.answers.clear()
        workspace.publish(FIRST)

        def have_all() -> bool:
            return len({item["pid"] for item in server.answers if item["version"]}) == processes

        processes = mode.processes
        server.ask_until("zero", have_all, START_SECONDS)
        # What was answered before is the default, and logged nothing.
        server.answers = [item for item in server.answers if item["version"]]
        yield server, workspace


def check_log(server: Server) -> None:
    """Every answer's two events are there, in the segments of the process that answered."""
    expected: Counter[Any] = Counter()
    writers: dict[str, set[int]] = {}
    for answer in server.answers:
        key = (answer["pid"], answer["unit"])
        expected[*key, answer["variant"], answer["epoch"]] += 1
        expected[*key, "answered"] += 1
        writers.setdefault(answer["writer"], set()).add(answer["pid"])
    assert [len(pids) for pids in writers.values()] == [1] * len(server.pids)
    found: Counter[Any] = Counter()
    started: Counter[int] = Counter()
    for writer, _, record in server.log().rows():
        pid = pid_of(writer)
        assert writers.get(writer, {pid}) == {pid}
        if record[0] == "e":
            found[pid, record[3], record[4], record[5]] += 1
        elif record[2] == "parent":
            started[pid] += 1
        elif record[2] != "first":
            found[pid, record[2], record[3]] += 1
    assert found == expected
    assert started.keys() >= {answer["made_in"] for answer in server.answers}
    assert set(started.values()) == {1}


def pid_of(writer: str) -> int:
    """The process that a writer's name tells."""
    return int(writer.split("-")[-2])


def test_a_killed_worker_takes_no_accepted_event_with_it() -> None:
    with serving_workspace(MODES["gunicorn-preload-sync"]) as (server, _):
        killed: set[int] = set()
        is_over = threading.Event()
        traffic = threading.Thread(target=server.ask_until, args=("unit", is_over.is_set, 60.0))
        traffic.start()
        try:
            for _ in range(3):
                victim = busy_pid(server, killed)
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
            busy_pid(server, killed)
        finally:
            is_over.set()
            traffic.join()
        server.stop()
        check_variants(server.answers)
        events = Counter(
            (pid_of(writer), record[3] if record[0] == "e" else record[2])
            for writer, _, record in server.log().rows()
        )
        logged = Counter({(answer["pid"], answer["unit"]): 2 for answer in server.answers})
        assert logged <= events
        # Besides them there is only what the killed ones were in the middle of, and the start.
        assert (events - logged).total() <= 2 * server.failed + 3


def busy_pid(server: Server, but_not: set[int]) -> int:
    """A worker that has answered some requests and still lives."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        counts = Counter(answer["pid"] for answer in server.answers)
        busy = [pid for pid, count in counts.items() if count >= 20 and pid not in but_not]
        if busy:
            return busy[0]
        time.sleep(0.01)
    pytest.fail(f"no worker answers: {server.output()}")


SHADOWS = """
import os, signal, sys, threading
import abkit

signal.alarm(40)  # a deadlock ends the process, and the test
sys.setswitchinterval(1e-6)
ab = abkit.Client(sys.argv[1])
gate = threading.Event()

def assign(number):
    return ab.assign("ranker", f"{os.getpid()}-{number}")

def shadow(found, work=lambda: None):
    return ab.shadow(found, work, measure=lambda _: {"answered": 1.0})

# The parent's threads are at work, more waits, and its queue is locked, when the children begin.
assert all([shadow(assign(number), gate.wait) for number in range(50)])
queue = ab._shadows._pool._by_process[os.getpid()].queue
held, forked = threading.Event(), threading.Event()
def hold():
    with queue.mutex:
        held.set()
        forked.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()

def child():
    signal.alarm(30)
    barrier = threading.Barrier(8)
    taken = []
    def work(thread):
        units = [assign(10 * thread + number) for number in range(10)]
        barrier.wait()
        taken.extend(shadow(unit) for unit in units)
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join(20)
    is_right = taken == [True] * 80
    ab.close()
    os._exit(0 if is_right and "shadow_unfinished" not in ab.health().rejected else 1)

pids = []
for _ in range(12):
    pid = os.fork()
    if pid == 0:
        child()
    pids.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in pids]
forked.set()
gate.set()
holder.join()
ab.close()
assert codes == [0] * 12, codes
print(os.getpid())
"""


def test_shadow_answers_go_on_in_each_forked_child(tmp_path: Path) -> None:
    dark = Experiment.create("ranker", {"teacher": 1.0, "student": 0.0})
    Workspace(tmp_path).publish(replaced(dark, shadow="student"))
    done = subprocess.run(
        [sys.executable, "-c", SHADOWS, tmp_path], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    chunk = LogReader(tmp_path / "log").read({}, max_records=10**9)
    assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
    counts: Counter[int] = Counter()
    for writer, _, (kind, _, unit, metric, _, experiment, variant) in chunk.rows():
        assert (kind, metric, experiment, variant) == ("o", "answered", "ranker", "student")
        assert unit.startswith(f"{pid_of(writer)}-")
        counts[pid_of(writer)] += 1
    assert counts.pop(int(done.stdout)) == 50
    assert list(counts.values()) == [80] * 12


FORCED = Experiment.create("ranker", {"teacher": 0.4, "student": 0.3, "tree": 0.3}, salt="forced")


def test_threads_that_force_variants_at_once_do_not_see_each_others() -> None:
    """Each with a client that nobody has forced anything on yet."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        wrong = [item for _ in range(60) for item in forced_in_threads()]
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def forced_in_threads() -> list[tuple[str, str]]:
    """The pairs of forced and served variant that differ, of eight threads at once."""
    ab = Client.from_experiments([FORCED])
    plain = ab.variant("ranker", "unit")
    sys.modules.pop("abkit.client.forcing", None)  # as in a process that never forced anything
    barrier = threading.Barrier(8)
    wrong: list[tuple[str, str]] = []

    def work(number: int) -> None:
        variant = FORCED.variants[number % 3]
        barrier.wait(20)
        for _ in range(5):
            with ab.force({"ranker": variant}):
                found = [ab.variant("ranker", "unit") for _ in range(5)]
            wrong.extend((variant, item) for item in found if item != variant)
            if ab.variant("ranker", "unit") != plain:
                wrong.append(("nothing", "forced"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_tasks_that_force_variants_at_once_do_not_see_each_others() -> None:
    ab = Client.from_experiments([FORCED])
    units = [f"unit-{number}" for number in range(40)]

    async def forced(number: int) -> None:
        variant, other = FORCED.variants[number % 3], FORCED.variants[(number + 1) % 3]
        with ab.force({"ranker": variant}):
            for unit in units:
                await asyncio.sleep(0)
                found = ab.assign("ranker", unit)
                assert (found.variant, found.reason) == (variant, "forced")
                assert not found.in_experiment
            with ab.force({"ranker": other}):
                await asyncio.sleep(0)
                assert ab.variant("ranker", "unit") == other
                # A thread that the task waits for is part of it.
                assert await asyncio.to_thread(ab.variant, "ranker", "unit") == other
            assert ab.variant("ranker", "unit") == variant

    async def plain() -> None:
        choose = compile_experiment(FORCED)
        for unit in units:
            await asyncio.sleep(0)
            found = ab.assign("ranker", unit)
            assert (found.variant, found.reason) == (choose(unit, None).variant, "split")

    async def together() -> None:
        await asyncio.gather(*(forced(number) for number in range(12)), plain(), plain())

    asyncio.run(together())
