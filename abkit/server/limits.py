"""The guard in front of every contract: sizes, rates, time, tokens, and errors as JSON.

Plain ASGI, so that it sees the body as it arrives. No unit id is ever logged: of an unexpected
error, its type and place are, and never its text.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abkit.records import check_positive
from abkit.server.auth import Role
from abkit.server.problems import Problem, problem_of
from abkit.snapshot_server import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from abkit.server.auth import Caller, Tokens

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 64 << 10
MAX_SERIES_BYTES = 4 << 20
"""Of `/judge`: Kayenta sends whole series."""
MAX_ID_BYTES = 256
MAX_CLIENTS = 4_096
READ_SECONDS = 10.0
RATE = 200.0
BURST_SECONDS = 2.0
_OPEN = ("/healthz", "/readyz")
_SECRET = ("/v1/snapshot",)
_LOG = logging.getLogger("abkit")


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rates:
    """A token bucket for each client; the clients that were not seen longest are forgotten.

    Args:
        per_second: requests that one client may send; infinity for no limit.
        monotonic: seconds that never jump.
    """

    def __init__(
        self, per_second: float = RATE, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """No client is known yet."""
        if per_second != math.inf:
            check_positive("the server", "rate", per_second)
        self._rate = per_second
        self._most = max(1.0, per_second * BURST_SECONDS)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, client: str) -> float:
        """0 if the client may go on, else how long it should wait."""
        if self._rate == math.inf:
            return 0.0
        now = self._monotonic()
        bucket = self._buckets.pop(client, None) or _Bucket(self._most, now)
        self._buckets[client] = bucket
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        bucket.left = min(self._most, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.left >= 1.0:
            bucket.left -= 1.0
            return 0.0
        return (1.0 - bucket.left) / self._rate


class Guard:
    """Lets requests through to an application, or answers them itself.

    Args:
        app: the application.
        tokens: who may do what.
        rates: how much each client may ask.
        has_open_reads: let reading pass without a token, the snapshot excepted.
        read_seconds: for a request's body as a whole.
    """

    def __init__(
        self,
        app: App,
        *,
        tokens: Tokens,
        rates: Rates,
        has_open_reads: bool = False,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """Remember all of it."""
        self._app = app
        self._tokens = tokens
        self._rates = rates
        self._has_open_reads = has_open_reads
        self._read_seconds = read_seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._guarded(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - never a traceback; its text may hold a unit id
            problem = problem_of(error)
            if problem.status >= 500:
                _tell(scope, error)
            if not begun:
                await answer(send, problem)

    async def _guarded(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        for part in path.split("/"):
            if len(part.encode("utf-8", "replace")) > MAX_ID_BYTES:
                raise Problem(400, f"a name in the path has more than {MAX_ID_BYTES} bytes")
        if path not in _OPEN:
            wait = self._rates.wait_seconds((scope.get("client") or ("",))[0])
            if wait:
                seconds = str(max(1, math.ceil(wait)))
                raise Problem(429, "too many requests", headers={"Retry-After": seconds})
        caller = self._tokens.caller(headers)
        self._check(path, caller, headers.get("host", "localhost"))
        scope["abkit.caller"] = caller
        scope["abkit.headers"] = headers
        limit = MAX_SERIES_BYTES if path == "/judge" else MAX_BODY_BYTES
        body = await self._body(headers, receive, limit)
        scope["abkit.body"] = body
        is_sent = False

        async def again() -> Message:
            nonlocal is_sent
            if is_sent:
                return await receive()
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    def _check(self, path: str, caller: Caller, host: str) -> None:
        if path in _OPEN or caller.role >= Role.VIEWER:
            return
        if not self._tokens:
            # Bound to loopback, then. A name of elsewhere is a page's that had its name resolved
            # to this machine, to read the answers from a browser here.
            if not is_loopback(host_name(host)):
                raise Problem(
                    403,
                    "without tokens this server answers to 127.0.0.1, [::1] and localhost alone",
                )
            return
        if self._has_open_reads and path not in _SECRET:
            return
        raise Problem(
            401,
            "the token is wrong or absent",
            headers={"WWW-Authenticate": 'Bearer, Basic realm="abkit"'},
        )

    async def _body(self, headers: dict[str, str], receive: Receive, limit: int) -> bytes:
        too_large = Problem(
            413, f"the body has more than {limit} bytes", headers={"Connection": "close"}
        )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > limit:
            raise too_large
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._read_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the request was cut off")
                    piece = message.get("body", b"")
                    size += len(piece)
                    if size > limit:
                        raise too_large
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            raise Problem(
                408,
                f"the body took more than {self._read_seconds:g} s",
                headers={"Connection": "close"},
            ) from None


def host_name(header: str) -> str:
    """The name or address of a `Host` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


async def answer(send: Send, problem: Problem) -> None:
    """Send a refusal."""
    body = problem.body()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Content-Type-Options": "nosniff",
        **problem.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _tell(scope: Message, error: BaseException) -> None:
    """Where an unexpected error came from, without its text."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_name}:{trace.tb_lineno}"
        trace = trace.tb_next
    route = getattr(scope.get("route"), "path", "")
    _LOG.error("%s %s: %s in %s", scope["method"], route, type(error).__name__, place)
