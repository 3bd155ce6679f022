"""The snapshot server: hands one snapshot file to followers on many hosts.

::

    GET /v1/snapshot    the file, with its checksum as a strong ETag; 304 where nothing changed
    GET /healthz        version, age and errors; 503 before the first good file

and nothing else: no path of a request ever reaches the file system. The file is looked at on each
request and read through the same checks as in a worker; a bad one never replaces a good one.

One thread serves everybody. A connection brings one request, gets one deadline for all of it and
is closed: slow clients cost a place among `MAX_CONNECTIONS`, never a thread. There is no TLS here;
put a proxy in front of it where the network is not yours.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hmac
import ipaddress
import json
import os
import socket
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from abkit.errors import AbkitError, ConfigError, StoreError
from abkit.fetch import check_token
from abkit.records import check_count, check_positive
from abkit.snapshot import MAX_BYTES, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PORT = 8300
LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 256
MAX_HEAD_BYTES = 16_384
TIMEOUT_SECONDS = 10.0
CHUNK_BYTES = 1 << 16
BACKLOG = 128
_PHRASES = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class GoodSnapshot:
    """A file that passed every check, ready to be sent."""

    snapshot: Snapshot
    plain: bytes
    packed: bytes

    @classmethod
    def read(cls, path: Path) -> GoodSnapshot:
        """Read and check a file.

        Raises:
            OSError: it cannot be read.
            StoreError: it is no snapshot.
        """
        # A pipe in the place of the file would hold a blocking open up for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise StoreError("the snapshot is not a regular file")
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise StoreError(f"the snapshot is larger than {MAX_BYTES} bytes")
        return cls(Snapshot.from_bytes(content), content, gzip.compress(content, mtime=0))


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]

    @classmethod
    def parse(cls, head: bytes) -> _Request:
        """Read the head of a request.

        Raises:
            ValueError: it is none.
        """
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, protocol = first.split(" ")
        if not protocol.startswith("HTTP/1."):
            raise ValueError(protocol)
        headers: dict[str, str] = {}
        for line in filter(None, lines):
            name, colon, value = line.partition(":")
            key = name.lower()
            # Two tokens, or a name that proxies read in different ways: nobody means well by it.
            is_doubled = key == "authorization" and key in headers
            if not colon or not name or name != name.strip() or is_doubled:
                raise ValueError(name)
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
        return cls(method, path, headers)


class SnapshotServer:
    """Serves one snapshot file; made by `serve_snapshot`.

    Args:
        path: the snapshot file; it may appear later.
        listener: a bound socket; the server closes it.
        token: what requests for the snapshot must bring; empty for none.
        timeout_seconds: for one connection as a whole.
        max_connections: served at once; more are turned away with 503.
        report: takes one line whenever the file changes or is found bad.
        clock: seconds since 1970 in UTC, for the age.
    """

    def __init__(
        self,
        path: Path,
        listener: socket.socket,
        *,
        token: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
        report: Callable[[str], object] = lambda line: None,  # noqa: ARG005 - says nothing
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the file for the first time; nothing is served yet."""
        self._path = path
        self._listener = listener
        self._token = token.encode()
        self._timeout_seconds = timeout_seconds
        self._max_connections = max_connections
        self._report = report
        self._clock = clock
        self._good: GoodSnapshot | None = None
        self._signature: tuple[int, ...] = ()
        self._errors = 0
        self._last_error = ""
        self._open = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._refresh()

    def run(self) -> None:
        """Serve until closed, by a signal handler or another thread."""
        asyncio.run(self._serve())

    def start(self) -> Self:
        """Serve from a thread of its own."""
        self._thread = threading.Thread(target=self.run, name="abkit-snapshot-server", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving; may be called twice, from a signal handler, from any thread."""
        self._is_closed = True
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(stop.set)
        else:
            self._listener.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._timeout_seconds)

    def __enter__(self) -> Self:
        """Serve from a thread."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    async def _serve(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if self._is_closed:
            self._listener.close()
            return
        # The listener is closed with the server, and open connections are cancelled with the loop.
        server = await asyncio.start_server(
            self._connected, sock=self._listener, limit=MAX_HEAD_BYTES, backlog=BACKLOG
        )
        try:
            await self._stop.wait()
        finally:
            server.close()
            # A connection that was just accepted begins before it is cancelled: one that never
            # began would leave its socket to the garbage collector.
            for _ in range(3):
                await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if self._open > self._max_connections:
                    await _send(writer, 503, {"Retry-After": "1"}, b"too many connections\n")
                else:
                    await self._converse(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone or too slow (TimeoutError is an OSError), or we are closing
        finally:
            self._open -= 1
            # close() would wait for ever for a client that reads nothing.
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = _Request.parse(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.LimitOverrunError:
            await _send(writer, 431, {}, b"the request is too large\n")
            return
        except ValueError:
            await _send(writer, 400, {}, b"this is no HTTP request\n")
            return
        status, headers, body = self._answer(request)
        await _send(writer, status, headers, body, is_head=request.method == "HEAD")

    def _answer(self, request: _Request) -> tuple[int, dict[str, str], bytes]:
        if request.path not in {"/v1/snapshot", "/healthz"}:
            return 404, {}, b"there is /v1/snapshot and /healthz\n"
        if request.method not in {"GET", "HEAD"}:
            return 405, {"Allow": "GET, HEAD"}, b"read it with GET or HEAD\n"
        if request.path == "/healthz":
            self._refresh()
            return self._health()
        if self._token and not self._is_allowed(request.headers.get("authorization", "")):
            return 401, {"WWW-Authenticate": "Bearer"}, b"the token is wrong or absent\n"
        self._refresh()
        if self._good is None:
            return 503, {"Retry-After": "1"}, b"there is no good snapshot yet\n"
        return snapshot_answer(self._good, request.headers)

    def _is_allowed(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        is_equal = hmac.compare_digest(token.strip().encode("latin-1"), self._token)
        return scheme.lower() == "bearer" and is_equal

    def _health(self) -> tuple[int, dict[str, str], bytes]:
        # Anyone may ask, so what a bad file holds is not told here.
        health: dict[str, object] = {"version": 0, "checksum": "", "age_seconds": None}
        if self._good is not None:
            snapshot = self._good.snapshot
            age = max(0.0, self._clock() - snapshot.published)
            health = {
                "version": snapshot.version,
                "checksum": snapshot.checksum,
                "age_seconds": age,
            }
        body = json.dumps(health | {"errors": self._errors}).encode()
        return 503 if self._good is None else 200, {"Content-Type": "application/json"}, body

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            if signature == self._signature:
                return
            good = GoodSnapshot.read(self._path)
            self._signature = signature
        except Exception as error:  # noqa: BLE001 - fail static: keep the last good one, count it
            if isinstance(error, AbkitError):
                # It is the file that is bad: it is not parsed again until it changes.
                self._signature = signature
            self._errors += 1
            text = str(error)
            if text != self._last_error:
                self._report(f"{self._path} is not taken: {text}")
            self._last_error = text
            return
        self._last_error = ""
        # The same content written in another way keeps its bytes: a strong ETag stands for them.
        if self._good is None or self._good.snapshot.checksum != good.snapshot.checksum:
            self._good = good
            self._report(f"serving version {good.snapshot.version} of {self._path}")


def serve_snapshot(
    path: str | os.PathLike[str],
    *,
    host: str = LOOPBACK,
    port: int = PORT,
    token: str = "",
    is_open: bool = False,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_connections: int = MAX_CONNECTIONS,
    report: Callable[[str], object] = lambda line: None,  # noqa: ARG005 - says nothing
    clock: Callable[[], float] = time.time,
) -> SnapshotServer:
    """Bind a port to serve a snapshot file from; `run` or `start` then serves.

    Args:
        path: the snapshot file; it may appear later.
        host: the address to bind; others than this machine's own need a token.
        port: the port; 0 for any free one, which `url` then tells.
        token: bearer token that requests for the snapshot must bring; empty for none.
        is_open: serve other machines without a token all the same.
        timeout_seconds: for one connection as a whole.
        max_connections: served at once; more are turned away with 503.
        report: takes one line whenever the file changes or is found bad.
        clock: seconds since 1970 in UTC, for the age.

    Raises:
        ConfigError: an argument is not usable, or the port cannot be bound.
    """
    check_token(token)
    check_positive("the snapshot server", "timeout_seconds", timeout_seconds)
    check_count("the snapshot server", "max_connections", max_connections, 1)
    if not (token or is_open or is_loopback(host)):
        raise ConfigError(
            f"{host!r} can be reached from other machines, and a snapshot holds salts and unit "
            "ids: give a token, or allow it explicitly"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host}, port {port} cannot be served: {why}") from None
    return SnapshotServer(
        Path(path),
        listener,
        token=token,
        timeout_seconds=timeout_seconds,
        max_connections=max_connections,
        report=report,
        clock=clock,
    )


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def snapshot_answer(
    good: GoodSnapshot, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for a request; 304 where the asker has this content already."""
    checksum = good.snapshot.checksum
    is_packed = _takes_gzip(headers.get("accept-encoding", ""))
    # A strong tag stands for bytes, so the packed form has one of its own; either is known again.
    tag, packed_tag = f'"{checksum}"', f'"{checksum}-gzip"'
    common = {
        "ETag": packed_tag if is_packed else tag,
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
    }
    asked = {
        item.strip().removeprefix("W/") for item in headers.get("if-none-match", "").split(",")
    }
    if asked & {tag, packed_tag, "*"}:
        return 304, common, b""
    common["Content-Type"] = "application/json"
    if is_packed:
        return 200, common | {"Content-Encoding": "gzip"}, good.packed
    return 200, common, good.plain


def _takes_gzip(accepted: str) -> bool:
    for item in accepted.lower().split(","):
        coding, _, quality = item.replace(" ", "").partition(";q=")
        if coding == "gzip":
            return quality.strip("0.") != "" or quality == ""
    return False


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    headers: dict[str, str],
    body: bytes,
    *,
    is_head: bool = False,
) -> None:
    lines = [f"HTTP/1.1 {status} {_PHRASES[status]}", "Connection: close"]
    lines += ["X-Content-Type-Options: nosniff"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if status != 304:
        lines.append(f"Content-Length: {len(body)}")
    writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    if not is_head:
        # In pieces: what waits for a slow client is one piece, not a copy of the whole file.
        for start in range(0, len(body), CHUNK_BYTES):
            writer.write(body[start : start + CHUNK_BYTES])
            await writer.drain()
    await writer.drain()
