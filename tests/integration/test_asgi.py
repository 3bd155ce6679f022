"""The ASGI middleware under Starlette, under uvicorn, and alone with the protocol."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.integrations.asgi import AbkitMiddleware
from abkit.integrations.request import MAX_HEADER_CHARACTERS, RequestHandle
from abkit.log import LogReader
from abkit.snapshot import Snapshot, write_atomically
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKEN = "a-token-for-one-test"  # noqa: S105 - opens nothing
FORCE = {"force_header": "x-abkit-force", "force_token": TOKEN}
RANKER = Experiment.create("ranker", {"teacher": 1.0, "student": 0.0}, salt="s")
PATIENCE_SECONDS = 30.0  # before a test gives up; nothing waits for it when all is well


@pytest.fixture
def client() -> Client:
    return Client.from_experiments([RANKER])


def unit_of(scope: Any) -> str | None:
    return next((value.decode() for name, value in scope["headers"] if name == b"x-user"), None)


def serve(app: Any, *headers: tuple[str, str], kind: str = "http") -> dict[str, Any]:
    """One connection to an application that only looks at its scope; returns that scope."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope: dict[str, Any] = {"type": kind, "headers": raw}

    async def receive() -> dict[str, Any]:
        raise AssertionError("the middleware must not read the body")

    async def send(message: Any) -> None:
        raise AssertionError("the middleware must not answer")

    asyncio.run(app(scope, receive, send))
    return scope


class Seen:
    """An application that notes what its handle says."""

    def __init__(self, use: Callable[[RequestHandle], Any]) -> None:
        self.use = use
        self.answers: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.answers.append(self.use(scope["abkit"]))


def ask(client: Client, use: Callable[[RequestHandle], Any], *headers: Any, **options: Any) -> Any:
    """What `use` makes of the handle of one request."""
    app = Seen(use)
    serve(AbkitMiddleware(app, client, unit_of, **options), *headers)
    return app.answers[0]


def variant(handle: RequestHandle) -> str:
    return handle.variant("ranker")


def test_the_handle_is_bound_to_the_requests_unit(client: Client) -> None:
    found = ask(client, lambda handle: handle.assign("ranker"), ("x-user", "ann"))
    assert found == client.assign("ranker", "ann")


def test_the_handle_is_in_the_scope_and_in_its_state(client: Client) -> None:
    scope = serve(AbkitMiddleware(Seen(variant), client, unit_of))
    assert scope["abkit"] is scope["state"]["abkit"]


def test_a_state_of_another_kind_is_left_alone(client: Client) -> None:
    state = object()
    scope: dict[str, Any] = {"type": "http", "headers": [], "state": state}
    asyncio.run(AbkitMiddleware(Seen(variant), client, unit_of)(scope, None, None))  # type: ignore[arg-type]
    assert scope["state"] is state


def test_exposures_and_outcomes_are_logged_for_the_unit(client: Client) -> None:
    def use(handle: RequestHandle) -> None:
        with handle.exposure("ranker", latency="latency_ms", error="failed") as a:
            handle.record("score", 2.0)
        assert handle.expose(a)

    ask(client, use, ("x-user", "ann"))
    logged = [(record[0], record[3] if record[0] == "e" else record[2]) for record in sink(client)]
    assert logged == [("e", "ann"), ("o", "ann"), ("o", "ann"), ("o", "ann"), ("e", "ann")]


def sink(client: Client) -> list[Any]:
    return list(client.sink.records)  # type: ignore[attr-defined]


def test_a_request_without_a_unit_gets_control_and_says_why(client: Client) -> None:
    found = ask(client, lambda handle: handle.assign("ranker"))
    assert (found.variant, found.reason) == ("teacher", "invalid_unit")


def test_a_unit_that_is_known_later_is_asked_for_again(client: Client) -> None:
    login: dict[str, str] = {}

    def use(handle: RequestHandle) -> list[Any]:
        before = handle.unit_id
        login["user"] = "ann"
        return [before, handle.unit_id]

    app = Seen(use)
    serve(AbkitMiddleware(app, client, lambda scope: login.get("user")))
    assert app.answers == [["", "ann"]]


def test_a_unit_function_that_raises_is_counted_once_and_fails_nothing(client: Client) -> None:
    app = Seen(lambda handle: [handle.assign("ranker").reason for _ in range(2)])
    serve(AbkitMiddleware(app, client, lambda scope: scope["absent"]))
    assert app.answers == [["invalid_unit", "invalid_unit"]]
    assert client.rejected.counts == {"unit_error": 1}


def test_attributes_of_the_middleware_and_of_the_call_are_joined() -> None:
    targeting = {"all": [{"attribute": "country", "is": "DE"}, {"attribute": "age", "above": 17}]}
    item = Experiment.create("adult", {"off": 0.0, "on": 1.0}, control="off", targeting=targeting)
    client = Client.from_experiments([item])

    def use(handle: RequestHandle) -> list[str]:
        return [handle.variant("adult", known) for known in (None, {"age": 18}, {"age": 3})]

    options = {"attributes": lambda scope: {"country": "DE"}}
    assert ask(client, use, ("x-user", "ann"), **options) == ["off", "on", "off"]


@pytest.mark.parametrize("attributes", [lambda scope: 1 / 0, lambda scope: 7])
def test_an_attribute_function_that_fails_is_counted(client: Client, attributes: Any) -> None:
    assert ask(client, variant, ("x-user", "ann"), attributes=attributes) == "teacher"
    assert client.rejected.counts == {"attributes_error": 1}


def test_a_broken_client_fails_no_request(client: Client) -> None:
    client._source = None  # type: ignore[assignment]
    found = ask(
        client, lambda handle: handle.assign("ranker", default="teacher"), ("x-user", "ann")
    )
    assert (found.variant, found.reason) == ("teacher", "error")


def test_what_the_application_raises_goes_on(client: Client) -> None:
    def use(handle: RequestHandle) -> None:
        raise LookupError("theirs")

    with pytest.raises(LookupError, match="theirs"):
        ask(client, use, ("x-abkit-force", "ranker=student"), **FORCE)


# ---- forced variants ----


def forced(client: Client, value: str, token: str | None = TOKEN, **options: Any) -> str:
    headers = [("x-user", "ann"), ("x-abkit-force", value)]
    if token is not None:
        headers.append(("x-abkit-force-token", token))
    return ask(client, variant, *headers, **(options or FORCE))  # type: ignore[no-any-return]


def test_a_header_with_the_token_forces_a_variant(client: Client) -> None:
    assert forced(client, "ranker=student") == "student"
    assert forced(client, " other=x , ranker = student ") == "student"
    assert client.rejected.counts == {}


def test_forced_variants_end_with_the_request_and_are_not_analysed(client: Client) -> None:
    def use(handle: RequestHandle) -> Any:
        found = handle.assign("ranker")
        return found.reason, found.in_experiment, client.variant("ranker", "anybody")

    headers = [("x-abkit-force", "ranker=student"), ("x-abkit-force-token", TOKEN)]
    assert ask(client, use, *headers, **FORCE) == ("forced", False, "student")
    assert client.variant("ranker", "anybody") == "teacher"


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", "\xff\xfe" + TOKEN])
def test_a_wrong_or_absent_token_forces_nothing(client: Client, token: str | None) -> None:
    assert forced(client, "ranker=student", token) == "teacher"
    assert client.rejected.counts == {"force_refused": 1}


def test_no_header_is_believed_where_none_was_named(client: Client) -> None:
    assert forced(client, "ranker=student", close=True) == "teacher"


def test_an_open_header_needs_no_token(client: Client) -> None:
    options = {"force_header": "x-abkit-force", "force_is_open": True}
    assert forced(client, "ranker=student", None, **options) == "student"


@pytest.mark.parametrize(
    "value",
    [
        "ranker",
        "ranker=",
        "=student",
        "ranker=student;banner=on",
        "ranker=stu\xe9dent",
        "ranker=student," * 100 + "a" * MAX_HEADER_CHARACTERS,
        "ranker=student," + "b=c," * MAX_HEADER_CHARACTERS + "b=c",
    ],
)
def test_a_header_that_is_malformed_or_too_long_forces_nothing(client: Client, value: str) -> None:
    assert forced(client, value) == "teacher"
    assert client.rejected.counts == {"invalid_force_header": 1}


def test_a_variant_that_the_experiment_has_not_forces_nothing(client: Client) -> None:
    assert forced(client, "ranker=nobody") == "teacher"
    assert client.rejected.counts == {"unknown_forced_variant": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force_header": "x-force"}, "at least 16 characters"),
        ({"force_header": "x-force", "force_token": "short"}, "at least 16 characters"),
        ({"force_header": "x-force", "force_token": "é" * 20}, "ASCII"),
        ({"force_header": "X Force", "force_token": TOKEN}, "lower-case"),
        ({"force_header": "x-force", "force_token": TOKEN, "force_is_open": True}, "choose one"),
        ({"unit": "user_id"}, "unit must be a function"),
    ],
)
def test_what_would_be_open_or_useless_is_refused_at_construction(
    client: Client, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        AbkitMiddleware(Seen(variant), client, **{"unit": unit_of, **options})


# ---- lifespan ----


class Closing:
    """A client that notes when it was flushed or closed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def aclose(self) -> None:
        self.calls.append("close")

    def flush(self) -> bool:
        self.calls.append("flush")
        return True


def live(app: Any, client: Any, **options: Any) -> list[str]:
    """One life of a server, as the protocol has it; returns what the server heard."""
    waiting = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    heard: list[str] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        heard.append(f"{message['type']} after {len(client.calls)}")

    middleware = AbkitMiddleware(app, client, unit_of, **options)
    asyncio.run(middleware({"type": "lifespan"}, receive, send))
    return heard


async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def raising(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError(scope["type"])


async def raising_later(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise NotImplementedError(scope["type"])


async def returning(scope: Any, receive: Any, send: Any) -> None:
    return


async def started_only(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("app", [with_lifespan, raising, raising_later, returning, started_only])
def test_the_client_is_closed_before_the_shutdown_is_complete(app: Any) -> None:
    """Also where the application has no lifespan of its own."""
    client = Closing()
    heard = live(app, client)
    assert heard == ["lifespan.startup.complete after 0", "lifespan.shutdown.complete after 1"]
    assert client.calls == ["close"]


def test_a_client_that_lives_longer_is_only_flushed() -> None:
    client = Closing()
    live(with_lifespan, client, close=False)
    assert client.calls == ["flush"]


def test_a_failed_start_up_stays_failed() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        live(failing, Closing())


def test_an_application_that_fails_at_shutdown_still_closes_the_client() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await started_only(scope, receive, send)
        await receive()
        raise RuntimeError("left open")

    client = Closing()
    with pytest.raises(RuntimeError, match="left open"):
        live(failing, client)
    assert client.calls == ["close"]


def test_a_client_that_cannot_close_does_not_fail_the_shutdown(client: Client) -> None:
    def fail() -> None:
        raise OSError

    client.close = fail  # type: ignore[method-assign]
    client.calls = []  # type: ignore[attr-defined]
    assert live(with_lifespan, client)[-1].startswith("lifespan.shutdown.complete")
    assert client.rejected.counts == {"close_error": 1}


def test_other_kinds_of_connection_pass_through(client: Client) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    assert "abkit" not in serve(AbkitMiddleware(app, client, unit_of), kind="future")
    assert seen == ["future"]


def test_the_middleware_starts_no_task(client: Client) -> None:
    tasks: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(len(asyncio.all_tasks()))

    serve(AbkitMiddleware(app, client, unit_of))
    assert tasks == [1]


def test_no_framework_and_no_event_loop_is_imported() -> None:
    script = (
        "import sys; import abkit.integrations.asgi\n"
        "bad = {'asyncio', 'starlette', 'fastapi', 'anyio', 'flask', 'django'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# ---- under Starlette ----


def starlette_app(client: Client) -> Any:
    reason = "Starlette is not installed; `python3 dev.py conformance` brings it"
    pytest.importorskip("starlette", reason=reason)
    pytest.importorskip("httpx", reason=reason)
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route, WebSocketRoute

    def in_a_thread(request: Any) -> Any:
        return PlainTextResponse(request.state.abkit.variant("ranker"))

    async def on_the_loop(request: Any) -> Any:
        return PlainTextResponse(request.scope["abkit"].variant("ranker"))

    async def socket_of(websocket: Any) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.scope["abkit"].variant("ranker"))
        await websocket.close()

    return Starlette(
        routes=[
            Route("/thread", in_a_thread),
            Route("/loop", on_the_loop),
            WebSocketRoute("/socket", socket_of),
        ],
        middleware=[Middleware(AbkitMiddleware, client=client, unit=unit_of, **FORCE)],
    )


HEADERS = {"x-user": "ann", "x-abkit-force": "ranker=student", "x-abkit-force-token": TOKEN}


@pytest.mark.parametrize("path", ["/thread", "/loop"])
def test_a_forced_variant_reaches_threads_and_the_loop(client: Client, path: str) -> None:
    app = starlette_app(client)
    import httpx

    async def run() -> list[str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            plain = http.get(path, headers={"x-user": "ann"})
            both = await asyncio.gather(http.get(path, headers=HEADERS), plain)
        return [answer.text for answer in both]

    assert asyncio.run(run()) == ["student", "teacher"]


def test_web_sockets_have_a_handle_too(client: Client) -> None:
    from_websocket: list[Any] = []
    app = starlette_app(client)
    waiting = [{"type": "websocket.connect"}]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        from_websocket.append(message)

    raw = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    scope = {"type": "websocket", "path": "/socket", "headers": raw, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert [message.get("text") for message in from_websocket] == [None, "student", None]


# ---- under uvicorn ----

SERVER = """
import abkit
from abkit.integrations.asgi import AbkitMiddleware

async def bare(scope, receive, send):
    assert scope["type"] == "http"              # no lifespan support at all
    with scope["abkit"].exposure("ranker") as a:
        scope["abkit"].record("served", 1.0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": a.variant.encode()})

client = abkit.Client(WORKSPACE, durability="buffered")
app = AbkitMiddleware(bare, client, lambda scope: scope["query_string"].decode())
"""


def test_the_last_requests_events_are_in_the_log_after_sigterm(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="no uvicorn; `python3 dev.py conformance` brings it")
    workspace = Workspace(tmp_path / "workspace")
    workspace.path.mkdir()
    snapshot = Snapshot.of([RANKER], version=1, published=1_700_000_000.0)
    write_atomically(workspace.snapshot_path, snapshot.to_bytes())
    script = SERVER.replace("WORKSPACE", repr(str(workspace.path)))
    (tmp_path / "served.py").write_text(script, "utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "served:app", "--port", str(port)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    server = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for number in range(3):
            assert answer(f"http://127.0.0.1:{port}/?unit-{number}", server) == "teacher"
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=PATIENCE_SECONDS)[0].decode()
    finally:
        server.kill()
        server.wait()
    assert "Application shutdown complete" in said, said
    rows = [record for _, _, record in LogReader(workspace.log_path).read({}).rows()]
    assert [(row[0], row[3] if row[0] == "e" else row[2]) for row in rows] == [
        (kind, f"unit-{number}") for number in range(3) for kind in "eo"
    ]
    # Sealed: the client was closed, not merely flushed.
    assert list(workspace.log_path.glob("*/*.seg"))
    assert not list(workspace.log_path.glob("*/*.open"))


def answer(url: str, server: subprocess.Popen[bytes]) -> str:
    """The body of a page, once the server listens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as page:  # noqa: S310 - ours
                return page.read().decode()  # type: ignore[no-any-return]
        except urllib.error.URLError:
            assert server.poll() is None, server.communicate()[0].decode()
            assert time.monotonic() < deadline
            time.sleep(0.05)
