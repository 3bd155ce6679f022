"""Where a snapshot can be fetched from: a file, an http(s) server, an object store.

Every source answers one question: the content, unless it is still what a tag stands for. For a
server the tag is its ETag; for files, a hash of the content.

A server gets one deadline for the whole answer, from the first packet to the last byte; a server
that sends a byte now and then cannot hold anybody up. Only looking up its name is left to the
system's own limit. Answers are read up to `MAX_BYTES`, unpacked too.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
import ssl
import stat
import time
import zlib
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import SplitResult, urljoin, urlsplit

from abkit.errors import ConfigError, StoreError
from abkit.records import check_positive
from abkit.snapshot import MAX_BYTES, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

    Left = Callable[[], float]

TIMEOUT_SECONDS = 5.0
MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 16
PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_WHY = {
    401: "; is the token right?",
    403: "; is the token right, or has the address expired?",
    404: "; is the address right?",
}


class Source(Protocol):
    """Where a snapshot comes from."""

    @property
    def name(self) -> str:
        """What to call it in messages; it holds no secret."""

    def fetch(self, tag: str) -> tuple[bytes | None, str]:
        """The content, or None if it is still what the tag stands for; and the tag to ask with.

        Raises:
            Exception: it cannot be read.
        """


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of a shared file system, or of a mounted ConfigMap; links are followed.

    Content is compared, not only its time: two files written in one tick have the same.

    Args:
        path: the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def fetch(self, tag: str) -> tuple[bytes | None, str]:
        """The content, unless its hash is the tag.

        Raises:
            OSError: the file cannot be read.
            StoreError: it is no regular file, or too large.
        """
        # A pipe in the place of the file would hold a blocking open up for ever.
        handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise StoreError("the source is not a regular file")
            return _unless(tag, file.read(MAX_BYTES + 1))


class ObjectSource:
    """An object that fsspec can open, where it is installed; its time limits are the driver's.

    Args:
        address: such as s3://bucket/snapshot.json.
    """

    def __init__(self, address: str) -> None:
        """Look for fsspec.

        Raises:
            ConfigError: it is not installed.
        """
        scheme, _, rest = address.partition("?")[0].partition("://")
        self.name = f"{scheme}://{rest.rpartition('@')[2]}"  # without user and password
        self._address = address
        if find_spec("fsspec") is None:
            raise ConfigError(
                f"{self.name} needs fsspec, which is not installed: name a presigned https:// "
                "address of the object instead, or install fsspec and its driver"
            )

    def fetch(self, tag: str) -> tuple[bytes | None, str]:
        """The content, unless its hash is the tag.

        Raises:
            Exception: what the driver raises.
        """
        with import_module("fsspec").open(self._address, "rb") as file:
            return _unless(tag, file.read(MAX_BYTES + 1))


class HttpSource:
    """An address on a web server.

    A redirect is followed within its scheme only, and the token goes to no other host. The
    address may hold a signature, so messages leave its query out. Proxies are not used. The
    certificate authorities are the system's; SSL_CERT_FILE names others.

    Args:
        address: begins with http:// or https://.
        token: bearer token; empty for none.
        timeout_seconds: for the whole answer.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check the arguments; nothing is asked yet.

        Raises:
            ConfigError: an argument is not usable.
        """
        check_positive("a source", "timeout_seconds", timeout_seconds)
        check_token(token)
        self._address = _split(address)
        self.name = _plain(self._address)
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._tls = ssl.create_default_context() if self._address.scheme == "https" else None

    def fetch(self, tag: str) -> tuple[bytes | None, str]:
        """The content, unless the server says that the tag still holds.

        Raises:
            OSError: the server cannot be reached, or is not who it should be.
            HTTPException: its answer is no HTTP.
            StoreError: its answer is no snapshot's, too large, cut off or late.
        """
        end = self._monotonic() + self._timeout_seconds

        def left() -> float:
            seconds = end - self._monotonic()
            if seconds <= 0:
                raise TimeoutError
            return seconds

        address, token = self._address, self._token
        try:
            for _ in range(MAX_REDIRECTS + 1):
                with closing(self._connect(address, left)) as connection:
                    response = _ask(connection, address, tag, token, left)
                    with closing(response):
                        if response.status not in _REDIRECTS:
                            return _answer(response, tag)
                        target = _redirected(address, response)
                if (target.hostname, target.port) != (address.hostname, address.port):
                    token = ""
                address = target
        except TimeoutError:
            raise StoreError(f"no whole answer within {self._timeout_seconds:g} seconds") from None
        raise StoreError(f"more than {MAX_REDIRECTS} redirects")

    def _connect(self, address: SplitResult, left: Left) -> socket.socket:
        host, port = address.hostname, address.port or PORTS[address.scheme]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for index, (family, kind, protocol, _, place) in enumerate(found):
            connection = socket.socket(family, kind, protocol)
            try:
                # An address that swallows packets leaves the others their share of the time.
                connection.settimeout(left() / (len(found) - index))
                connection.connect(place)
                connection.settimeout(left())
                if self._tls is not None:
                    return self._tls.wrap_socket(connection, server_hostname=host)
            except OSError as error:
                connection.close()
                failure = error
            else:
                return connection
        raise failure or OSError(f"{host} has no address")


class _Stream(io.RawIOBase):
    """What a server sends, up to one deadline for all of it."""

    def __init__(self, connection: socket.socket, left: Left) -> None:
        self._connection = connection
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._connection.settimeout(self._left())
        return self._connection.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The one method of a socket that a response asks for."""
        return io.BufferedReader(self)


def open_source(
    source: str | os.PathLike[str],
    *,
    token: str = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> Source:
    """The source that a path or an address names.

    Args:
        source: a path, an http:// or https:// address, or one that fsspec can open.
        token: bearer token for a server; empty for none.
        timeout_seconds: for a server's whole answer.
        monotonic: seconds that never jump.

    Raises:
        ConfigError: the address or an argument is not usable, or fsspec is not installed.
    """
    text = os.fspath(source)
    scheme, mark, _ = text.partition("://")
    if not mark:
        return FileSource(Path(text))
    if scheme.lower() not in PORTS:
        return ObjectSource(text)
    return HttpSource(text, token=token, timeout_seconds=timeout_seconds, monotonic=monotonic)


def read_snapshot(
    source: str | os.PathLike[str],
    *,
    token: str = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Snapshot:
    """The snapshot that a source has now.

    Args:
        source: a path, an http:// or https:// address, or one that fsspec can open.
        token: bearer token for a server; empty for none.
        timeout_seconds: for a server's whole answer.

    Raises:
        ConfigError: the address or an argument is not usable, or fsspec is not installed.
        StoreError: the source cannot be read, or holds no snapshot.
    """
    opened = open_source(source, token=token, timeout_seconds=timeout_seconds)
    try:
        content, _ = opened.fetch("")
        return Snapshot.from_bytes(content or b"")
    except Exception as error:  # noqa: BLE001 - whatever a server or driver does
        raise StoreError(f"{opened.name} cannot be read: {error}") from None


def check_token(token: str) -> None:
    """Raise a ConfigError, which does not show it, unless a token fits into a header."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError("a token must be printable ASCII without spaces; is there a line end?")


def _split(address: str) -> SplitResult:
    # Never shown whole: it may hold a signature or a password.
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not (address.isascii() and address.isprintable()) or " " in address:
        raise ConfigError(
            "the address must be http://HOST/PATH or https://HOST/PATH in ASCII, without spaces "
            f"and line ends, got {_shown(address)!r}"
        )
    if "@" in parts.netloc:
        raise ConfigError("the address holds a user or password: give a token instead")
    return parts


def _shown(address: str) -> str:
    """What of an address may stand in a message: a user, a password or a query does not."""
    return address.rpartition("@")[2].partition("?")[0]


def _plain(address: SplitResult) -> str:
    return f"{address.scheme}://{address.netloc}{address.path}"


def _ask(
    connection: socket.socket, address: SplitResult, tag: str, token: str, left: Left
) -> HTTPResponse:
    query = f"?{address.query}" if address.query else ""
    lines = [
        f"GET {address.path or '/'}{query} HTTP/1.1",
        f"Host: {address.netloc}",
        "Accept: application/json",
        "Accept-Encoding: gzip",
        "Connection: close",
        "User-Agent: abkit",
    ]
    lines += [f"If-None-Match: {tag}"] * bool(tag)
    lines += [f"Authorization: Bearer {token}"] * bool(token)
    connection.settimeout(left())
    connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii"))
    response = HTTPResponse(cast("socket.socket", _Stream(connection, left)), method="GET")
    response.begin()
    return response


def _redirected(address: SplitResult, response: HTTPResponse) -> SplitResult:
    try:
        target = _split(urljoin(address.geturl(), response.headers.get("Location", "")))
    except ValueError:  # a ConfigError is one
        raise StoreError(f"{_plain(address)} redirects to no usable address") from None
    if target.scheme != address.scheme:
        raise StoreError(f"refused a redirect from {address.scheme} to {_plain(target)}")
    return target


def _answer(response: HTTPResponse, tag: str) -> tuple[bytes | None, str]:
    if response.status == 304 and tag:
        return None, tag
    if response.status != 200:
        why = _WHY.get(response.status, "")
        raise StoreError(f"the server answered {response.status} {response.reason}{why}")
    body = bytearray()
    while True:
        if len(body) + (response.length or 0) > MAX_BYTES:
            raise StoreError(f"the answer is larger than {MAX_BYTES} bytes")
        chunk = response.read(CHUNK_BYTES)
        if not chunk:
            break
        body += chunk
    if response.length:  # what was promised and never came
        raise StoreError(f"the answer was cut off: {response.length} bytes are missing")
    coding = response.headers.get("Content-Encoding", "identity").lower()
    if coding == "gzip":
        body = _unpacked(body)
    elif coding != "identity":
        raise StoreError(f"the answer is packed with {coding!r}, which nobody asked for")
    fresh = response.headers.get("ETag", "")
    return bytes(body), fresh if fresh.isascii() and fresh.isprintable() else ""


def _unpacked(body: bytearray) -> bytearray:
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise StoreError(f"the answer's gzip is damaged: {error}") from None
    if len(plain) > MAX_BYTES:
        raise StoreError(f"the answer is larger than {MAX_BYTES} bytes unpacked")
    if not inflate.eof:
        raise StoreError("the answer's gzip was cut off")
    return bytearray(plain)


def _unless(tag: str, content: bytes) -> tuple[bytes | None, str]:
    if len(content) > MAX_BYTES:
        raise StoreError(f"the snapshot is larger than {MAX_BYTES} bytes")
    fresh = hashlib.sha256(content).hexdigest()
    return (None if fresh == tag else content), fresh
