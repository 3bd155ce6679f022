"""One snapshot on many hosts: followers and servers as real processes, on real sockets."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import abkit.fetch
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.follow import Follower
from abkit.snapshot import SCHEMA, Snapshot, write_atomically
from abkit.snapshot_server import SnapshotServer, serve_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PUBLISHED = 1_700_000_000.0
TOKEN = "correct-horse"  # noqa: S105 - of a server that lives for one test
PATIENCE_SECONDS = 20.0  # before a test gives up; nothing waits for it when all is well


def make(version: int, **changes: Any) -> bytes:
    """The content of a snapshot of one experiment; everybody gets the variant of its version."""
    variant = "even" if version % 2 == 0 else "odd"
    experiment = Experiment.from_dict(
        {"key": "ranker", "salt": "s", "control": variant, "variants": {variant: 1.0}}
    )
    moment = changes.pop("published", PUBLISHED + version)
    return Snapshot.of([experiment], version=version, published=moment, **changes).to_bytes()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The publisher's snapshot, at version 1."""
    path = tmp_path / "publisher" / "snapshot.json"
    path.parent.mkdir()
    write_atomically(path, make(1))
    return path


@pytest.fixture
def server(published: Path) -> Iterator[SnapshotServer]:
    with serve_snapshot(published, port=0) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a worker expects its snapshot."""
    (tmp_path / "worker").mkdir()
    return tmp_path / "worker" / "snapshot.json"


def eventually(check: Callable[[], bool]) -> None:
    """Wait until something holds."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.01)


def ask(
    server: SnapshotServer, path: str = "/v1/snapshot", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer, read without abkit."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


# The server


def test_the_server_sends_the_file_with_its_checksum_as_tag(
    server: SnapshotServer, published: Path
) -> None:
    status, headers, body = ask(server)
    checksum = Snapshot.from_bytes(body).checksum
    assert (status, body) == (200, published.read_bytes())
    assert headers["ETag"] == f'"{checksum}"'
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Content-Type"] == "application/json"
    for known in (f'"{checksum}"', f'W/"{checksum}"', f'"a", "{checksum}-gzip"', "*"):
        status, headers, body = ask(server, If_None_Match=known)
        assert (status, body, headers["ETag"]) == (304, b"", f'"{checksum}"')
        assert "Content-Length" not in headers
    assert ask(server, If_None_Match='"another"')[0] == 200


def test_the_server_packs_for_those_who_ask(server: SnapshotServer, published: Path) -> None:
    for accepted in ("gzip", "br, GZIP;q=0.5"):
        status, headers, body = ask(server, Accept_Encoding=accepted)
        assert (status, headers["Content-Encoding"]) == (200, "gzip")
        assert gzip.decompress(body) == published.read_bytes()
        assert headers["ETag"].endswith('-gzip"'), "other bytes, another strong tag"
    for accepted in ("", "br", "gzip;q=0", "gzip; q=0.0"):
        assert ask(server, Accept_Encoding=accepted)[2] == published.read_bytes()


def test_head_has_the_headers_of_get_and_no_body(server: SnapshotServer) -> None:
    for path in ("/v1/snapshot", "/healthz"):
        got, headed = ask(server, path), ask(server, path, method="HEAD")
        assert headed[2] == b""
        # The age in the health grows between the two, and may take another digit.
        for _, headers, _ in (got, headed):
            del headers["Content-Length"]
        assert headed[:2] == got[:2]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/snapshot/", "/v1/../v1/snapshot", "/../snapshot.json", "//etc/passwd", "/%2e%2e/x"],
)
def test_the_server_serves_nothing_else(server: SnapshotServer, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_the_server_takes_nothing(server: SnapshotServer, method: str) -> None:
    status, headers, _ = ask(server, method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_bad_file_never_replaces_what_is_served(server: SnapshotServer, published: Path) -> None:
    good = published.read_bytes()
    for bad in (b"", good[:-3], good.replace(SCHEMA.encode(), b"abkit.snapshot/v9")):
        write_atomically(published, bad)
        assert ask(server)[2] == good
    published.unlink()
    assert ask(server)[2] == good
    status, _, body = ask(server, "/healthz")
    health = json.loads(body)
    assert (status, health["version"], health["errors"]) == (200, 1, 5)
    write_atomically(published, make(2))
    assert ask(server)[2] == make(2)


def test_a_server_without_a_good_file_says_so(tmp_path: Path) -> None:
    with serve_snapshot(tmp_path / "absent.json", port=0) as server:
        assert ask(server)[0] == 503
        status, _, body = ask(server, "/healthz")
        assert (status, json.loads(body)["version"]) == (503, 0)


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_a_wrong_token_gets_nothing_but_health(published: Path, given: str) -> None:
    with serve_snapshot(published, port=0, token=TOKEN) as server:
        headers = {"Authorization": given} if given else {}
        status, answered, body = ask(server, **headers)
        assert (status, answered["WWW-Authenticate"]) == (401, "Bearer")
        assert b"ranker" not in body
        assert ask(server, If_None_Match="*", **headers)[0] == 401
        assert ask(server, "/healthz")[0] == 200
        assert ask(server, Authorization=f"bearer {TOKEN}")[0] == 200


def test_other_machines_are_served_with_a_token_or_explicitly(published: Path) -> None:
    for host in ("0.0.0.0", "", "::", "example.org"):  # noqa: S104 - what is refused
        with pytest.raises(ConfigError, match="token"):
            serve_snapshot(published, host=host, port=0)
    serve_snapshot(published, host="0.0.0.0", port=0, token=TOKEN).close()  # noqa: S104
    serve_snapshot(published, host="0.0.0.0", port=0, is_open=True).close()  # noqa: S104
    serve_snapshot(published, host="localhost", port=0).close()


def test_a_taken_port_is_named(server: SnapshotServer, published: Path) -> None:
    port = urlsplit(server.url).port or 0
    with pytest.raises(ConfigError, match=f"port {port} cannot be served"):
        serve_snapshot(published, port=port)


def dial(server: SnapshotServer) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 no HTTP\r\n\r\n", b"400"),
        (b"GET /v1/snapshot\r\n\r\n", b"400"),
        (b"GET /v1/snapshot HTTP/2\r\n\r\n", b"400"),
        (b"GET /v1/snapshot HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET /v1/snapshot HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", b"400"),
        (b"GET /v1/snapshot HTTP/1.1\r\nX: " + b"x" * 40_000, b"431"),
    ],
)
def test_what_is_no_request_is_refused(server: SnapshotServer, sent: bytes, status: bytes) -> None:
    with dial(server) as connection:
        connection.sendall(sent)
        assert connection.recv(100).split(b" ")[1] == status
    assert ask(server)[0] == 200


def test_slow_clients_lose_their_place_and_hold_nobody_up(published: Path) -> None:
    threads = threading.active_count()
    with serve_snapshot(published, port=0, timeout_seconds=0.5, max_connections=8) as server:
        slow = [dial(server) for _ in range(7)]
        for connection in slow:
            connection.sendall(b"GET /v1/snap")
        assert ask(server)[0] == 200
        assert threading.active_count() <= threads + 1
        for connection in slow:
            assert connection.recv(1) == b"", "closed at the deadline, without an answer"
            connection.close()
        assert ask(server)[0] == 200


def test_too_many_connections_are_turned_away(published: Path) -> None:
    with serve_snapshot(published, port=0, max_connections=1) as server, dial(server) as first:
        first.sendall(b"GET")
        eventually(lambda: server._open == 1)
        with dial(server) as second:
            assert second.recv(100).startswith(b"HTTP/1.1 503 ")


# The follower and the server


def test_a_change_passes_and_nothing_else_does(
    server: SnapshotServer, published: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[int, int]] = []
    real = abkit.fetch._answer

    def spy(response: http.client.HTTPResponse, tag: str) -> tuple[bytes | None, str]:
        content, fresh = real(response, tag)
        answers.append((response.status, len(content or b"")))
        return content, fresh

    monkeypatch.setattr(abkit.fetch, "_answer", spy)
    follower = Follower(f"{server.url}/v1/snapshot", target)
    assert [follower.poll().status for _ in range(3)] == ["new", "same", "same"]
    write_atomically(published, make(2))
    assert [follower.poll().status for _ in range(2)] == ["new", "same"]
    assert answers == [
        (200, len(make(1))),
        (304, 0),
        (304, 0),
        (200, len(make(2))),
        (304, 0),
    ]
    again = Follower(f"{server.url}/v1/snapshot", target)
    assert again.poll().status == "same"
    assert answers[-1] == (304, 0), "the file that is in place says what to ask with"
    target.unlink()
    assert follower.poll().changed, "no 304 for a file that is gone"


def test_a_wrong_token_leaves_the_file_and_stands_in_no_message(
    published: Path, target: Path
) -> None:
    lines: list[str] = []
    with serve_snapshot(published, port=0, token=TOKEN) as server:
        address = f"{server.url}/v1/snapshot"
        assert Follower(address, target, token=TOKEN).poll().changed
        write_atomically(published, make(2))
        result = Follower(address, target, token="hunter2", report=lines.append).poll()  # noqa: S106
    assert (result.status, result.version) == ("unreachable", 1)
    assert "401" in result.error
    assert "hunter2" not in f"{lines} {result}"


def test_a_server_that_dies_and_comes_back_is_followed(published: Path, target: Path) -> None:
    with serve_snapshot(published, port=0) as server:
        port = urlsplit(server.url).port or 0
        follower = Follower(f"{server.url}/v1/snapshot", target, jitter=random.Random(1))
        assert follower.poll().changed
    for _ in range(3):
        result = follower.poll()
        assert (result.status, result.version) == ("unreachable", 1)
    write_atomically(published, make(2))
    with serve_snapshot(published, port=port):
        assert follower.poll().version == 2


# A server that misbehaves


@contextmanager
def scripted(
    answer: Callable[[socket.socket, bytes], None], *, reads: bool = True
) -> Iterator[str]:
    """A server that does to each connection what it is told; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(PATIENCE_SECONDS)
                    answer(connection, connection.recv(65_536) if reads else b"")
                except OSError:
                    pass  # the follower hung up, as it should

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/snapshot.json"
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def said(head: str, body: bytes = b"", *, length: int | None = None) -> bytes:
    """An answer; `length` is what it promises."""
    promised = len(body) if length is None else length
    return f"HTTP/1.1 {head}\r\nContent-Length: {promised}\r\n\r\n".encode() + body


OVERSIZE = gzip.compress(bytes(65 << 20), 1)
NEWER = make(2)
ANSWERS: dict[str, tuple[bytes, str, str]] = {
    "no HTTP": (b"hello\r\n", "unreachable", "BadStatusLine"),
    "nothing": (b"", "unreachable", "RemoteDisconnected"),
    "HTML": (said("200 OK", b"<html>sign in</html>"), "bad", "not valid JSON"),
    "an empty body": (said("200 OK"), "bad", "not valid JSON"),
    "a wrong checksum": (
        said("200 OK", NEWER.replace(b'"epoch": 1', b'"epoch": 2')),
        "bad",
        "checksum",
    ),
    "a schema from the future": (
        said("200 OK", NEWER.replace(SCHEMA.encode(), b"abkit.snapshot/v9")),
        "bad",
        "abkit.snapshot/v9",
    ),
    "a cut body": (
        said("200 OK", NEWER[:-20], length=len(NEWER)),
        "unreachable",
        "cut off: 20 bytes are missing",
    ),
    "a cut body without its length": (
        b"HTTP/1.1 200 OK\r\n\r\n" + NEWER[:-20],
        "bad",
        "not valid JSON",
    ),
    "a cut chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n" + NEWER[:50],
        "unreachable",
        "IncompleteRead",
    ),
    "a huge promise": (
        said("200 OK", b"{", length=1 << 40),
        "unreachable",
        "larger than",
    ),
    "a bomb": (
        said("200 OK\r\nContent-Encoding: gzip", OVERSIZE),
        "unreachable",
        "larger than",
    ),
    "cut gzip": (
        said("200 OK\r\nContent-Encoding: gzip", gzip.compress(NEWER)[:-9]),
        "unreachable",
        "gzip",
    ),
    "no gzip": (said("200 OK\r\nContent-Encoding: gzip", NEWER), "unreachable", "gzip"),
    "another packing": (said("200 OK\r\nContent-Encoding: br", NEWER), "unreachable", "'br'"),
    "a failure": (said("500 Internal Server Error", NEWER), "unreachable", "500"),
    "an overload": (said("503 Service Unavailable"), "unreachable", "503"),
    "not found": (said("404 Not Found"), "unreachable", "404"),
    "nothing to say": (said("204 No Content"), "unreachable", "204"),
    "a redirect to nowhere": (said("302 Found"), "unreachable", "redirects"),
    "a redirect to another scheme": (
        said("302 Found\r\nLocation: https://127.0.0.1/?secret"),
        "unreachable",
        "refused a redirect from http to https://127.0.0.1/",
    ),
    "a redirect to a file": (
        said("302 Found\r\nLocation: file:///etc/passwd"),
        "unreachable",
        "no usable address",
    ),
    "a redirect to itself": (
        said("302 Found\r\nLocation: /snapshot.json"),
        "unreachable",
        "redirects",
    ),
    "endless headers": (
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
        "unreachable",
        "HTTPException",
    ),
    "a line without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "unreachable", "LineTooLong"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_bad_answer_never_replaces_a_good_file(name: str, target: Path) -> None:
    content, status, word = ANSWERS[name]
    write_atomically(target, make(1))
    lines: list[str] = []
    with scripted(lambda connection, _: connection.sendall(content)) as address:
        result = Follower(address, target, report=lines.append).poll()
    assert (result.changed, result.status, result.version) == (False, status, 1)
    assert word in result.error
    assert "secret" not in result.error
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert target.read_bytes() == make(1)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def hang(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)  # until the follower hangs up


def hang_in_the_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(said("200 OK", NEWER[:100], length=len(NEWER)))
    connection.recv(1)


def drip(content: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, _: bytes) -> None:
        for index in range(len(content)):
            connection.sendall(content[index : index + 1])
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize(
    "answer",
    [hang, hang_in_the_body, drip(said("200 OK", NEWER * 9)), drip(b"HTTP/1.1 200 OK\r\nX: " * 99)],
    ids=["hang", "hang in the body", "drip the body", "drip the head"],
)
def test_a_slow_server_gets_one_deadline_for_everything(
    answer: Callable[[socket.socket, bytes], None], target: Path
) -> None:
    write_atomically(target, make(1))
    with scripted(answer) as address:
        result = Follower(address, target, timeout_seconds=0.3).poll()
    assert (result.status, result.version) == ("unreachable", 1)
    assert result.error == "no whole answer within 0.3 seconds"


def test_what_is_sent_is_what_should_be(target: Path) -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        body = gzip.compress(make(1))
        connection.sendall(said('200 OK\r\nETag: W/"abc"\r\nContent-Encoding: gzip', body))

    with scripted(answer) as address:
        follower = Follower(f"{address}?a=b%20c#part", target, token=TOKEN)
        assert [follower.poll().status, follower.poll().status] == ["new", "same"]
    host = urlsplit(address).netloc.encode()
    first, second = (request.decode().split("\r\n") for request in asked)
    assert first[0] == "GET /snapshot.json?a=b%20c HTTP/1.1"
    assert f"Host: {host.decode()}" in first
    assert f"Authorization: Bearer {TOKEN}" in first
    assert not any(line.startswith("If-None-Match") for line in first)
    assert 'If-None-Match: W/"abc"' in second


def test_a_redirect_is_followed_and_takes_the_token_to_no_other_host(
    published: Path, target: Path
) -> None:
    asked: list[bytes] = []

    def elsewhere(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(said("200 OK", published.read_bytes()))

    def answer(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        place = other if b"GET /moved" in request else "/moved"
        connection.sendall(said(f"307 Temporary Redirect\r\nLocation: {place}"))

    with scripted(elsewhere) as other, scripted(answer) as address:
        assert Follower(address, target, token=TOKEN).poll().changed
    assert [TOKEN.encode() in request for request in asked] == [True, True, False]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of localhost and its key, in one file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path / "localhost.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(path)]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(path) + ".crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text("utf-8") + path.with_suffix(".pem.crt").read_text("utf-8"))
    return path


def test_a_server_over_tls_must_be_who_it_says(
    certificate: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer(connection: socket.socket, _: bytes) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65_536)
            secure.sendall(said("200 OK", make(1)))

    with scripted(answer, reads=False) as plain:
        address = plain.replace("http://127.0.0.1", "https://localhost")
        stranger = Follower(address, target).poll()
        assert (stranger.changed, stranger.status) == (False, "unreachable")
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.error
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert Follower(address, target).poll().changed
        other = Follower(address.replace("localhost", "127.0.0.1"), target).poll()
        assert "CERTIFICATE_VERIFY_FAILED" in other.error


def test_a_server_that_never_ends_its_handshake_gets_the_same_deadline(target: Path) -> None:
    with scripted(hang) as address:
        secure = address.replace("http:", "https:")
        result = Follower(secure, target, timeout_seconds=0.3).poll()
    assert result.error == "no whole answer within 0.3 seconds"


# Processes


WORKER = """
import sys
import abkit
with abkit.Client(sys.argv[1]) as ab:
    print("ready", flush=True)
    for line in sys.stdin:
        print(ab.assign("ranker", line.strip(), default="none").variant, flush=True)
"""

FOLLOW = """
import signal, sys, threading
from abkit.follow import Follower
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
source, target, seconds = sys.argv[1:]
Follower(source, target, interval_seconds=float(seconds), report=print).run(stop)
print("stopped", flush=True)
"""


@contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that ends with the block."""
    command = [sys.executable, "-u", "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def test_a_change_reaches_a_worker_of_another_host_and_outlives_the_server(
    published: Path, target: Path
) -> None:
    with (
        serve_snapshot(published, port=0) as server,
        process(FOLLOW, f"{server.url}/v1/snapshot", target, 0.05) as follower,
        process(WORKER, target.parent) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None

        def answered() -> str:
            worker.stdin.write("unit\n")  # type: ignore[union-attr]
            worker.stdin.flush()  # type: ignore[union-attr]
            return worker.stdout.readline().strip()  # type: ignore[union-attr]

        assert worker.stdout.readline() == "ready\n"
        eventually(lambda: answered() == "odd")
        write_atomically(published, make(2))
        eventually(lambda: answered() == "even")
        server.close()
        follower.terminate()
        assert follower.communicate(timeout=PATIENCE_SECONDS)[0].endswith("stopped\n")
        assert answered() == "even"


def test_a_follower_that_is_killed_leaves_the_old_file_or_the_new(
    tmp_path: Path, target: Path
) -> None:
    source = tmp_path / "source.json"
    known = {make(version) for version in (1, 2)}
    write_atomically(source, make(1))
    rng = random.Random(5)
    for _ in range(6):
        with process(FOLLOW, source, target, 0.01) as follower:
            assert follower.stdout is not None
            follower.stdout.readline()  # it has written once, or found the file in place
            give_up = time.monotonic() + rng.uniform(0.01, 0.1)
            version = 1
            while time.monotonic() < give_up:
                version = 3 - version
                # Published later each time, so that going back to version 1 is taken.
                content = make(version, published=time.time())
                known.add(content)
                write_atomically(source, content)
            follower.send_signal(signal.SIGKILL)
            follower.wait(PATIENCE_SECONDS)
        assert target.read_bytes() in known
        target.unlink()


DIE = """
import os, signal, sys
from abkit.follow import Follower
real, calls = os.fsync, []
def fsync(handle):
    calls.append(handle)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
Follower(sys.argv[1], sys.argv[2]).poll()
"""


@pytest.mark.parametrize(("call", "version"), [(1, 1), (2, 2)])
def test_a_follower_that_is_killed_in_the_middle_of_a_write_leaves_a_whole_file(
    tmp_path: Path, target: Path, call: int, version: int
) -> None:
    """At the first fsync the new file is written and not in place; at the second it is."""
    source = tmp_path / "source.json"
    write_atomically(source, make(2))
    write_atomically(target, make(1))
    with process(DIE, source, target, call) as follower:
        assert follower.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert target.read_bytes() == make(version)


def test_two_followers_of_one_file_write_nothing_torn(published: Path, target: Path) -> None:
    with (
        serve_snapshot(published, port=0) as server,
        process(FOLLOW, f"{server.url}/v1/snapshot", target, 0.01),
        process(FOLLOW, f"{server.url}/v1/snapshot", target, 0.01),
    ):
        eventually(target.exists)
        for version in range(2, 40):
            write_atomically(published, make(version))
            Snapshot.from_bytes(target.read_bytes())
            time.sleep(0.01)
        eventually(lambda: target.read_bytes() == make(39))
    left = [path for path in os.listdir(target.parent) if path != target.name]  # noqa: PTH208
    assert len(left) <= 2, "at most what the two that were killed had open"
