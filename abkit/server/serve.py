"""The process: a bound socket, uvicorn on it, and a deadline for every request's head."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError, MissingExtraError
from abkit.server.app import Settings, make_app
from abkit.snapshot_server import is_loopback

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"abkit serve needs {error.name}: pip install 'abkit-rollouts[server]'"
    ) from error

if TYPE_CHECKING:
    import asyncio
    import os

PORT = 8400
LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 512
MAX_HEAD_BYTES = 16_384
KEEP_ALIVE_SECONDS = 20
SHUTDOWN_SECONDS = 5


class TimedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for each request's head: it has none of its own."""

    head_seconds = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The first head may begin."""
        super().connection_made(transport)
        # asyncio does so for sockets of its own making; without it an answer waits 40 ms for the
        # acknowledgement of its head.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, or of a body, whose deadline is the guard's."""
        if self._deadline is None:
            self._expect()
        super().data_received(data)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._forget()  # the head is there: the application has begun

    def on_response_complete(self) -> None:
        """The next head may begin; until it does, the keep-alive timer counts."""
        self._forget()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self._late)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self.transport.abort()


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server with its port; `run` serves until SIGTERM or SIGINT.

    Args:
        url: where it answers.
        server: uvicorn's.
        listener: the bound socket.
    """

    url: str
    server: Any
    listener: socket.socket

    def run(self) -> None:
        """Serve."""
        self.server.run(sockets=[self.listener])


def bind(
    workspace: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    host: str = LOOPBACK,
    port: int = PORT,
) -> BoundServer:
    """Bind a port to serve a workspace from.

    Args:
        workspace: the workspace folder.
        settings: how it guards itself.
        host: the address to bind; others than this machine's own need a token.
        port: the port; 0 for any free one, which `url` then tells.

    Raises:
        ConfigError: the host needs a token, or the port cannot be bound.
    """
    chosen = settings or Settings()
    if not is_loopback(host) and not chosen.tokens:
        raise ConfigError(
            f"{host!r} can be reached from other machines: give tokens, with --token-file or "
            "ABKIT_VIEWER_TOKEN, ABKIT_OPERATOR_TOKEN, ABKIT_APPROVER_TOKEN"
        )
    app = make_app(workspace, chosen)
    protocol = type("Protocol", (TimedProtocol,), {"head_seconds": chosen.read_seconds})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        log_level="warning",
        access_log=False,  # nobody's ids, in nobody's logs
        server_header=False,
        proxy_headers=False,  # whoever sends X-Forwarded-For would choose their own rate limit
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host}, port {port} cannot be served: {why}") from None
    name, number = listener.getsockname()[:2]
    url = f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
    return BoundServer(url, uvicorn.Server(config), listener)
