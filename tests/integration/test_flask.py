"""The Flask extension, through Flask's own test client."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.log import LogReader
from abkit.snapshot import Snapshot, write_atomically
from abkit.workspace import Workspace

pytest.importorskip(
    "flask", reason="Flask is not installed; `python3 dev.py conformance` brings it"
)

import flask
from flask import Flask

from abkit.integrations.flask import Abkit

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a-token-for-one-test"  # noqa: S105 - opens nothing
FORCE = {"force_header": "x-abkit-force", "force_token": TOKEN}
FORCED = {"x-user": "ann", "x-abkit-force": "ranker=student", "x-abkit-force-token": TOKEN}
RANKER = Experiment.create("ranker", {"teacher": 1.0, "student": 0.0}, salt="s")


@pytest.fixture
def client() -> Client:
    return Client.from_experiments([RANKER])


def unit_of(request: Any) -> str | None:
    return request.headers.get("x-user")  # type: ignore[no-any-return]


def make(client: Client, **options: Any) -> Flask:
    app = Flask(__name__)
    options = {"unit": unit_of, "close": False, **FORCE, **options}
    Abkit(client=client, **options).init_app(app)

    @app.get("/")
    def view() -> str:
        with flask.g.abkit.exposure("ranker", default="teacher") as a:
            flask.g.abkit.record("served", 1.0)
        return a.variant  # type: ignore[no-any-return]

    @app.get("/fails")
    def fails() -> str:
        raise LookupError("theirs")

    @app.get("/direct")
    def direct() -> str:
        return client.variant("ranker", "anybody")

    @app.get("/thread")
    def in_a_thread() -> str:
        found: list[str] = []
        handle = flask.g.abkit
        worker = threading.Thread(target=lambda: found.append(handle.unit_id))
        worker.start()
        worker.join()
        return found[0]

    return app


def kinds(client: Client) -> str:
    return "".join(record[0] for record in client.sink.records)  # type: ignore[attr-defined]


def test_a_view_is_given_a_handle_bound_to_its_unit(client: Client) -> None:
    http = make(client).test_client()
    assert http.get("/", headers={"x-user": "ann"}).text == "teacher"
    assert kinds(client) == "eo"


def test_the_handle_works_in_a_thread_of_the_view(client: Client) -> None:
    assert make(client).test_client().get("/thread", headers={"x-user": "ann"}).text == "ann"


def test_the_extension_takes_the_application_at_once_as_well(client: Client) -> None:
    app = Flask(__name__)
    extension = Abkit(app, client=client, unit=unit_of, close=False)
    assert app.extensions["abkit"] is extension


def test_a_header_with_the_token_forces_a_variant_for_its_request_alone(client: Client) -> None:
    http = make(client).test_client()
    assert http.get("/", headers=FORCED).text == "student"
    assert http.get("/direct", headers=FORCED).text == "student"
    assert http.get("/direct").text == "teacher"
    assert kinds(client) == "o", "a forced unit is kept out of the analysis"


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_token_forces_nothing(client: Client, token: str) -> None:
    headers = {**FORCED, "x-abkit-force-token": token}
    assert make(client).test_client().get("/", headers=headers).text == "teacher"
    assert client.rejected.counts == {"force_refused": 1}


def test_forced_variants_end_with_a_request_that_fails(client: Client) -> None:
    http = make(client).test_client()
    assert http.get("/fails", headers=FORCED).status_code == 500
    assert http.get("/direct").text == "teacher"


def test_a_request_that_another_hook_answers_is_left_alone(client: Client) -> None:
    app = Flask(__name__)
    app.before_request(lambda: "closed")
    Abkit(app, client=client, unit=unit_of, close=False, **FORCE)  # type: ignore[arg-type]
    assert app.test_client().get("/", headers=FORCED).text == "closed"


def test_a_unit_function_that_raises_fails_no_request(client: Client) -> None:
    http = make(client, unit=lambda request: request.headers["absent"]).test_client()
    assert http.get("/").text == "teacher"
    assert client.rejected.counts["unit_error"] == 1


def test_a_header_without_a_token_is_refused_at_construction(client: Client) -> None:
    with pytest.raises(ConfigError, match="at least 16 characters"):
        make(client, force_token="")


def test_workers_forked_after_loading_write_logs_of_their_own(tmp_path: Path) -> None:
    """As under `gunicorn --preload`: the client, and a first event, are there before the fork."""
    workspace = Workspace(tmp_path / "workspace")
    workspace.path.mkdir()
    write_atomically(
        workspace.snapshot_path, Snapshot.of([RANKER], version=1, published=1.0).to_bytes()
    )
    client = Client(workspace.path)
    app = make(client)
    app.test_client().get("/", headers={"x-user": "parent"})
    children = []
    for name in ("one", "two"):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                app.test_client().get("/", headers={"x-user": name})
                status = 0
            finally:
                os._exit(status)  # no atexit: as a worker that is stopped hard
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    client.close()
    rows = list(LogReader(workspace.log_path).read({}).rows())
    exposed = sorted(record[3] for _, _, record in rows if record[0] == "e")
    assert exposed == ["one", "parent", "two"]
    assert len({writer for writer, _, _ in rows}) == 3
