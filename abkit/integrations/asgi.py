"""Pure ASGI middleware, for Starlette, FastAPI, Django, Litestar, Quart: anything that is ASGI.

::

    from abkit.integrations.asgi import AbkitMiddleware

    app = AbkitMiddleware(app, ab, unit=lambda scope: scope["session"].get("user_id"))

    async def endpoint(request):
        handle = request.scope["abkit"]          # in Starlette request.state.abkit as well
        with handle.exposure("ranker", latency="latency_ms") as a:
            return JSONResponse(models[a.variant](...))

Where the server speaks the lifespan protocol, its shutdown flushes and closes the client. The
middleware imports no framework and no event loop, reads no body and starts no task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from abkit.integrations.request import ForceHeader, RequestHandle, check_unit

if TYPE_CHECKING:
    from abkit.client import Client
    from abkit.integrations.request import AttributesOf, UnitOf

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY = "abkit"
"""Where the handle is in the scope, and in its state."""
_STARTED = "lifespan.startup.complete"


class AbkitMiddleware:
    """Gives each HTTP request and web socket a `RequestHandle`, as `scope["abkit"]`.

    No failure of the client or of `unit` fails a request: it is served control, with the reason.

    Args:
        app: the ASGI application.
        client: assigns and logs.
        unit: the unit_id of a request, from its scope; None while it is not known. Asked when a
            handler first needs it, so it may read what inner middleware puts into the scope.
        attributes: what is known of the unit, from the scope, for targeting.
        force_header: name of a header that forces variants; None for none. See `ForceHeader`.
        force_token: what the token's header must hold for that.
        force_token_header: name of the token's header; empty for `force_header` and "-token".
        force_is_open: take the force header from anybody, without a token.
        close: close the client when the server shuts down; False where it is used for longer,
            and then it is flushed.

    Raises:
        ConfigError: `unit` is not callable, or a force header has no token and is not open.
    """

    def __init__(
        self,
        app: App,
        client: Client,
        unit: UnitOf,
        *,
        attributes: AttributesOf | None = None,
        force_header: str | None = None,
        force_token: str = "",
        force_token_header: str = "",
        force_is_open: bool = False,
        close: bool = True,
    ) -> None:
        """Check the arguments; the rest of a process's life raises nothing."""
        check_unit(unit, "AbkitMiddleware")
        self.app = app
        self._client = client
        self._unit = unit
        self._attributes = attributes
        self._close = close
        self._force = ForceHeader.named(
            force_header, force_token, force_token_header, is_open=force_is_open
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan of the server."""
        kind = scope["type"]
        if kind == "lifespan":
            await _Lifespan(self.app, receive, send, self._finish).run(scope)
            return
        if kind in ("http", "websocket"):
            self._hand_over(scope)
            if self._force is not None:
                forced = self._forced(scope)
                if forced:
                    with self._client.force(forced):
                        await self.app(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    def _hand_over(self, scope: Scope) -> None:
        # In place, as Starlette's own: in a copy, outer middleware would no longer see the route.
        handle = RequestHandle(self._client, scope, self._unit, self._attributes)
        scope[KEY] = handle
        state = scope.setdefault("state", {})
        if isinstance(state, dict):
            state[KEY] = handle

    def _forced(self, scope: Scope) -> dict[str, str]:
        force = self._force
        if force is None:
            return {}
        header, token_header = force.header.encode(), force.token_header.encode()
        value = token = None
        for name, content in scope.get("headers", ()):
            if name == header and value is None:
                value = content.decode("latin-1")
            elif name == token_header and token is None:
                token = content.decode("latin-1")
        return force.read(value, token, self._client.rejected)

    async def _finish(self) -> None:
        try:
            if self._close:
                await self._client.aclose()
            else:
                self._client.flush()
        except Exception:  # noqa: BLE001 - R1: the application's own shutdown goes on
            self._client.rejected.add("close_error")


class _Lifespan:
    """The server's lifespan: the application's own, or ours where it has none.

    An application without lifespan raises or returns at once, and the server would then never
    tell anybody of its shutdown. So the conversation is carried on in its place.
    """

    def __init__(
        self, app: App, receive: Receive, send: Send, finish: Callable[[], Awaitable[None]]
    ) -> None:
        """Begin with nothing said."""
        self._app = app
        self._receive = receive
        self._send = send
        self._finish = finish
        self._heard: set[str] = set()
        self._said: set[str] = set()

    async def run(self, scope: Scope) -> None:
        """Until the shutdown, or the failure of the start-up."""
        try:
            await self._app(scope, self._hear, self._say)
        except Exception:
            if self._said:
                if "lifespan.shutdown" in self._heard:
                    await self._finish()
                raise
        if self._said - {_STARTED}:
            return
        if "lifespan.startup" in self._heard and not self._said:
            await self._say({"type": _STARTED})
        while "lifespan.shutdown" not in self._heard:
            message = await self._hear()
            if message["type"] == "lifespan.startup":
                await self._say({"type": _STARTED})
        await self._say({"type": "lifespan.shutdown.complete"})

    async def _hear(self) -> Message:
        message = await self._receive()
        self._heard.add(message["type"])
        return message

    async def _say(self, message: Message) -> None:
        kind = message["type"]
        self._said.add(kind)
        if kind != _STARTED:
            # Before the server hears of it: it may end the process at once, and runs no atexit.
            await self._finish()
        await self._send(message)
