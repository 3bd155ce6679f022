"""FastAPI's dependencies, through FastAPI's own test client."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Annotated, Any

import pytest

from abkit.assignment import Assignment
from abkit.client import Client
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.integrations.asgi import AbkitMiddleware

pytest.importorskip(
    "fastapi", reason="FastAPI is not installed; `python3 dev.py conformance` brings it"
)
pytest.importorskip("httpx", reason="httpx is not installed; `python3 dev.py conformance`")

from fastapi import Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse

from abkit.integrations import fastapi as ours
from abkit.integrations.fastapi import Handle, assignment, unit_dependency

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette prefers a successor of httpx
    from fastapi.testclient import TestClient

RANKER = Experiment.create("ranker", {"teacher": 0.5, "student": 0.5}, salt="s")
ANN = {"x-user": "ann"}

Ranker = Annotated[Assignment, Depends(assignment("ranker", default="teacher"))]
Exposed = Annotated[Assignment, Depends(assignment("ranker", expose=True))]
ExposedEarly = Annotated[Assignment, Depends(assignment("ranker", expose=True), scope="function")]


@pytest.fixture
def client() -> Client:
    return Client.from_experiments([RANKER])


def unit_of(scope: Any) -> str | None:
    return next((value.decode() for name, value in scope["headers"] if name == b"x-user"), None)


def refuse() -> None:
    raise HTTPException(401)


def make(client: Client | None) -> TestClient:
    app = FastAPI()
    if client is not None:
        app.add_middleware(AbkitMiddleware, client=client, unit=unit_of)

    @app.get("/plain")
    async def plain(found: Ranker) -> Any:
        return [found.variant, found.reason, found.unit_id]

    @app.get("/handle")
    def by_hand(handle: Handle, found: Ranker) -> bool:
        return handle.expose(found) and handle.record("served", 1.0)

    @app.get("/unit")
    async def unit(found: Annotated[str | int | None, Depends(unit_dependency)]) -> Any:
        return found

    @app.get("/exposed")
    async def exposed(found: Exposed, number: int = 0) -> Any:
        if number == 13:
            raise HTTPException(503)
        return found.variant

    @app.get("/exposed-in-thread")
    def exposed_in_thread(found: Exposed) -> Any:
        raise LookupError("the model failed")

    @app.websocket("/socket")
    async def talk(websocket: WebSocket, found: Exposed) -> None:
        await websocket.accept()
        await websocket.send_text(found.variant)
        await websocket.close()

    add_refusals(app)
    add_streams(app, client)
    return TestClient(app, raise_server_exceptions=False)


def add_refusals(app: FastAPI) -> None:
    @app.get("/refused", dependencies=[Depends(refuse)])
    async def refused(found: Exposed) -> Any:
        return found.variant

    @app.get("/refused-later")
    async def refused_later(found: Exposed, nothing: Annotated[None, Depends(refuse)]) -> Any:
        return found.variant


def add_streams(app: FastAPI, client: Client | None) -> None:
    @app.get("/stream")
    async def stream(found: ExposedEarly) -> StreamingResponse:
        async def parts() -> Any:
            yield str(len(client.sink.records))  # type: ignore[union-attr]
            raise LookupError("the stream broke")

        return StreamingResponse(parts())

    @app.get("/broken-stream")
    async def broken_stream(found: Exposed) -> StreamingResponse:
        async def parts() -> Any:
            yield "a"
            raise LookupError("the stream broke")

        return StreamingResponse(parts())


def exposures(client: Client) -> list[str]:
    records = client.sink.records  # type: ignore[attr-defined]
    return [record[3] for record in records if record[0] == "e"]


def test_an_endpoint_is_given_its_units_assignment(client: Client) -> None:
    expected = client.assign("ranker", "ann")
    assert make(client).get("/plain", headers=ANN).json() == [expected.variant, "split", "ann"]
    assert exposures(client) == []


def test_the_handle_logs_for_the_unit(client: Client) -> None:
    assert make(client).get("/handle", headers=ANN).json() is True
    assert exposures(client) == ["ann"]


def test_the_unit_is_a_dependency(client: Client) -> None:
    http = make(client)
    assert [http.get("/unit", headers=ANN).json(), http.get("/unit").json()] == ["ann", None]


def test_an_exposure_is_logged_once_the_endpoint_was_entered(client: Client) -> None:
    assert make(client).get("/exposed", headers=ANN).status_code == 200
    assert exposures(client) == ["ann"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/exposed?number=13", 503), ("/exposed-in-thread", 500), ("/broken-stream", 200)],
)
def test_an_endpoint_that_fails_has_met_its_variant(client: Client, path: str, status: int) -> None:
    """Or the comparison would miss the failures of a bad variant."""
    assert make(client).get(path, headers=ANN).status_code == status
    assert exposures(client) == ["ann"]


@pytest.mark.parametrize(
    ("path", "status"), [("/exposed?number=x", 422), ("/refused", 401), ("/refused-later", 401)]
)
def test_a_request_that_never_reaches_the_endpoint_meets_nothing(
    client: Client, path: str, status: int
) -> None:
    assert make(client).get(path, headers=ANN).status_code == status
    assert exposures(client) == []


def test_a_unit_outside_the_experiment_is_not_exposed(client: Client) -> None:
    assert make(client).get("/exposed").status_code == 200
    assert exposures(client) == []
    assert client.rejected.counts == {}


def test_a_stream_is_exposed_before_it_begins(client: Client) -> None:
    assert make(client).get("/stream", headers=ANN).text == "1"
    assert exposures(client) == ["ann"]


def test_a_web_socket_endpoint_is_given_its_assignment(client: Client) -> None:
    with make(client).websocket_connect("/socket", headers=ANN) as talk:
        assert talk.receive_text() == client.variant("ranker", "ann")
    assert exposures(client) == ["ann"]


def test_without_the_middleware_the_default_is_served_and_a_warning_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "_warned", set())
    http = make(None)
    answers = [http.get(path, headers=ANN).json() for path in ("/plain", "/plain", "/unit")]
    assert answers == [["teacher", "error", ""], ["teacher", "error", ""], None]
    assert [record.getMessage() for record in caplog.records if record.name == "abkit"] == [
        ours._NO_MIDDLEWARE
    ]


def test_a_handle_without_the_middleware_says_what_to_add() -> None:
    with pytest.raises(ConfigError, match="no abkit handle"):
        TestClient(make(None).app).get("/handle")


def test_a_dependency_with_a_client_of_its_own_needs_no_middleware(client: Client) -> None:
    app = FastAPI()
    options: dict[str, Any] = {
        "client": client,
        "unit": lambda connection: connection.headers["x-user"],
        "attributes": lambda connection: connection.query_params["absent"],
    }
    found = Depends(assignment("ranker", **options))

    @app.get("/")
    async def endpoint(found: Assignment = found) -> Any:
        return found.variant

    assert TestClient(app).get("/", headers=ANN).json() == client.variant("ranker", "ann")
    assert client.rejected.counts == {"attributes_error": 1}


@pytest.mark.parametrize("given", [{"client": 1}, {"unit": str}])
def test_a_client_without_a_unit_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="both a client and a unit"):
        assignment("ranker", **given)


def test_the_dependencies_run_on_the_loop_and_not_in_a_thread() -> None:
    from inspect import isasyncgenfunction, iscoroutinefunction

    assert iscoroutinefunction(assignment("ranker"))
    assert isasyncgenfunction(assignment("ranker", expose=True))
    assert iscoroutinefunction(unit_dependency)


def test_the_lifespan_of_the_application_closes_the_client(client: Client) -> None:
    closed: list[bool] = []
    client.close = lambda: closed.append(True)  # type: ignore[method-assign]
    with make(client) as http:
        http.get("/plain", headers=ANN)
        assert closed == []
    assert closed == [True]


@pytest.mark.parametrize(
    ("module", "package", "install"),
    [
        ("fastapi", "fastapi", "pip install fastapi"),
        ("flask", "flask", "pip install flask"),
        ("django", "asgiref", "pip install django"),
        ("openfeature", "openfeature", "pip install 'abkit-rollouts[openfeature]'"),
        ("prometheus", "prometheus_client", "pip install prometheus-client"),
    ],
)
def test_a_missing_framework_is_named_with_what_to_install(
    module: str, package: str, install: str
) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from abkit.errors import MissingExtraError\n"
        f"try: import abkit.integrations.{module}\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    said = done.stdout.decode()
    assert said.startswith(f"abkit.integrations.{module} needs {package}"), done.stderr.decode()
    assert install in said
