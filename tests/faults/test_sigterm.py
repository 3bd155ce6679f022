"""SIGTERM in the middle of traffic, in eight server modes: no acknowledged event is lost."""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from abkit.log import LogReader, seal_dead
from tests.faults.injected import wait_for

if TYPE_CHECKING:
    from conftest import Account

ANSWERS = 250

APP = """
import json, os, time
import abkit

ab = abkit.Client(os.environ["WORKSPACE"])

def answer(unit):
    is_logged = ab.record(unit, "answered", 1.0)
    time.sleep(0.002)  # between the event and the answer the signal may come
    return json.dumps({"unit": unit, "is_logged": is_logged, "pid": os.getpid()}).encode()

def wsgi(environ, start_response):
    body = answer(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = answer(scope["query_string"].decode())
    headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

GUNICORN = ("-m", "gunicorn", "--workers=2", "--no-control-socket", "--bind=unix:{socket}")
UVICORN = ("-m", "uvicorn", "--uds={socket}", "app:asgi")


@dataclass(frozen=True)
class Mode:
    """A way to serve: arguments of Python, or of the program, and the packages that it needs."""

    command: tuple[str, ...]
    needs: tuple[str, ...]
    program: str = ""


MODES = {
    "sync": Mode((*GUNICORN, "app:wsgi"), ("gunicorn",)),
    "gthread": Mode(
        (*GUNICORN, "--worker-class=gthread", "--threads=4", "app:wsgi"), ("gunicorn",)
    ),
    "gevent": Mode((*GUNICORN, "--worker-class=gevent", "app:wsgi"), ("gunicorn", "gevent")),
    "preload": Mode((*GUNICORN, "--preload", "app:wsgi"), ("gunicorn",)),
    "uvicorn-worker": Mode(
        (*GUNICORN, "--worker-class=uvicorn.workers.UvicornWorker", "app:asgi"),
        ("gunicorn", "uvicorn"),
    ),
    "uvicorn": Mode(UVICORN, ("uvicorn",)),
    "uvicorn-workers": Mode((*UVICORN, "--workers=2"), ("uvicorn",)),
    "uwsgi": Mode(
        (
            *("--http-socket={socket}", "--master", "--processes=2", "--module=app:wsgi"),
            *("--die-on-term", "--need-app"),
        ),
        ("pyuwsgi",),
        "uwsgi",
    ),
}


@dataclass
class Traffic:
    """Clients that ask until nobody answers any more."""

    path: Path
    logged: list[str] = field(default_factory=list)
    is_over: bool = False

    def ask(self, unit: str) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10.0)
                connection.connect(str(self.path))
                connection.sendall(f"GET /?{unit} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                text = b"".join(iter(partial(connection.recv, 65536), b""))
            answer = json.loads(text.partition(b"\r\n\r\n")[2])
        except (OSError, ValueError):
            return False
        assert answer["is_logged"]
        self.logged.append(answer["unit"])
        return True

    def work(self, name: int) -> None:
        number = 0
        while not self.is_over:
            number += 1
            if not self.ask(f"{name}-{number}"):
                time.sleep(0.005)


def terminate(name: str, folder: Path) -> Traffic:
    """Serve, ask, and send SIGTERM in the middle; what was answered as logged."""
    mode, path = MODES[name], folder / "socket"
    (folder / "app.py").write_text(APP)
    program = Path(sys.executable).with_name(mode.program) if mode.program else sys.executable
    words = [word.format(socket=path) for word in mode.command]
    environment = {
        "WORKSPACE": str(folder / "workspace"),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(folder), os.environ.get("PYTHONPATH", "")])
        ),
    }
    traffic = Traffic(path)
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [program, *words],
            cwd=folder,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    threads = [threading.Thread(target=traffic.work, args=(number,)) for number in range(4)]
    try:
        for thread in threads:
            thread.start()
        wait_for(lambda: len(traffic.logged) >= ANSWERS or process.poll() is not None, 40.0)
        assert process.poll() is None, (folder / "output.txt").read_text()
        process.send_signal(signal.SIGTERM)
        process.wait(30.0)
    finally:
        traffic.is_over = True
        for thread in threads:
            thread.join()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return traffic


def check(name: str, account: Account) -> None:
    for package in MODES[name].needs:
        if find_spec(package) is None:
            pytest.skip(f"no {package}: `python3 dev.py conformance` installs it")
    folder = Path(tempfile.mkdtemp(prefix="abkit-"))  # short: a socket's path has 107 characters
    try:
        traffic = terminate(name, folder)
        log = folder / "workspace" / "log"
        seal_dead(log)
        chunk = LogReader(log).read({}, max_records=10**9)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
    found = Counter(record[2] for _, _, record in chunk.rows())
    asked = Counter(traffic.logged)
    assert asked - found == Counter(), "acknowledged, and lost"
    # Besides them there is what was written and whose answer the signal cut off.
    assert (found - asked).total() <= 50
    account(accepted=len(chunk), stored=len(chunk))


@pytest.mark.fault("SIGTERM: gunicorn sync")
def test_sigterm_under_gunicorn_sync(account: Account) -> None:
    check("sync", account)


@pytest.mark.fault("SIGTERM: gunicorn gthread")
def test_sigterm_under_gunicorn_gthread(account: Account) -> None:
    check("gthread", account)


@pytest.mark.fault("SIGTERM: gunicorn gevent")
def test_sigterm_under_gunicorn_gevent(account: Account) -> None:
    check("gevent", account)


@pytest.mark.fault("SIGTERM: gunicorn --preload")
def test_sigterm_under_gunicorn_preload(account: Account) -> None:
    check("preload", account)


@pytest.mark.fault("SIGTERM: gunicorn uvicorn worker")
def test_sigterm_under_gunicorns_uvicorn_worker(account: Account) -> None:
    check("uvicorn-worker", account)


@pytest.mark.fault("SIGTERM: uvicorn")
def test_sigterm_under_uvicorn(account: Account) -> None:
    check("uvicorn", account)


@pytest.mark.fault("SIGTERM: uvicorn --workers")
def test_sigterm_under_uvicorn_with_workers(account: Account) -> None:
    check("uvicorn-workers", account)


@pytest.mark.fault("SIGTERM: uWSGI")
def test_sigterm_under_uwsgi(account: Account) -> None:
    check("uwsgi", account)
