"""S9, S10, S11, S14: tokens and roles, sizes and rates, slow clients, and silent logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.errors import ConfigError
from abkit.follow import Follower
from abkit.rollout import Rollout, Stage
from abkit.server.auth import Role, Tokens, read_tokens
from abkit.server.limits import MAX_CLIENTS, Guard, Rates
from abkit.server.serve import bind
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VIEWER, OPERATOR, APPROVER = (f"{name}-token-of-32-characters-or-so" for name in "vop")
TOKENS = {
    "ABKIT_VIEWER_TOKEN": VIEWER,
    "ABKIT_OPERATOR_TOKEN": OPERATOR,
    "ABKIT_APPROVER_TOKEN": APPROVER,
}
STAGES = (
    Stage(name="5 %", share=0.05),
    Stage(name="25 %", share=0.25),
)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def started(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    workspace.start(
        Rollout.plan("r1", experiment="x", control="old", treatment="new", stages=STAGES)
    )
    return workspace


def asked(version: int, **changes: Any) -> dict[str, Any]:
    return {"reason": "because", "actor": "ann", "expected_version": version} | changes


# ---- actions ------------------------------------------------------------------------------------


def test_each_action_needs_its_role(started: Workspace, serve: Callable[..., Any]) -> None:
    with serve(started.path, **TOKENS) as served:

        def act(verb: str, token: str, version: int, **changes: Any) -> Any:
            path = f"/v1/rollouts/r1/{verb}"
            return served.post(path, asked(version, **changes), headers=bearer(token))

        assert served.post("/v1/rollouts/r1/halt", asked(1)).status_code == 401
        refused = act("halt", VIEWER, 1)
        assert refused.status_code == 403
        assert refused.json()["error"] == "this needs the role operator, the token has viewer"
        assert act("halt", "x" * 40, 1).status_code == 401
        assert act("promote", OPERATOR, 1).status_code == 403
        assert started.rollout("r1").version == 1

        steps = [("hold", "hold"), ("resume", "canary"), ("skip", "canary")]
        for number, (verb, state) in enumerate(steps, 1):
            found = act(verb, OPERATOR, number)
            assert found.status_code == 200, found.text
            assert (found.json()["state"], found.json()["version"]) == (state, number + 1)
        stored = started.rollout("r1")
        assert (stored.stage_index, stored.reason, stored.actor) == (1, "because", "ann")
        assert act("promote", APPROVER, 4).json()["state"] == "promoted"
        with Client(started.path) as client:
            assert client.variant("x", "u") == "new"
        assert act("rollback", OPERATOR, 5).json()["state"] == "rolled_back"
        with Client(started.path) as client:
            assert client.variant("x", "u") == "old"


def test_another_version_or_an_illegal_move_is_409(
    started: Workspace, serve: Callable[..., Any]
) -> None:
    with serve(started.path, ABKIT_OPERATOR_TOKEN=OPERATOR) as served:
        path, headers = "/v1/rollouts/r1", bearer(OPERATOR)
        stale = served.post(f"{path}/hold", asked(0), headers=headers)
        assert stale.status_code == 409
        assert "has moved: version 1" in stale.json()["error"]
        assert served.post(f"{path}/resume", asked(1), headers=headers).status_code == 409
        assert served.post(f"{path}/halt", asked(1), headers=headers).status_code == 200
        assert served.post(f"{path}/halt", asked(2), headers=headers).status_code == 409
        assert served.post(f"{path}/fly", asked(2), headers=headers).status_code == 404
        nobody = served.post("/v1/rollouts/nobody/halt", asked(1), headers=headers)
        assert nobody.status_code == 404


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"expected_version": None}, 400),
        ({"expected_version": "1"}, 400),
        ({"expected_version": True}, 400),
        ({"expected_version": -1}, 400),
        ({"reason": ""}, 400),
        ({"reason": 3}, 400),
        ({"reason": "r" * 257}, 400),
        ({"actor": " "}, 400),
        ({"actor": "a" * 257}, 400),
    ],
)
def test_an_action_says_who_why_and_what_they_saw(
    guarded: Any, changes: dict[str, Any], status: int
) -> None:
    path = "/v1/rollouts/r1/hold"
    answer = guarded.post(path, asked(1, **changes), headers=bearer(OPERATOR))
    assert answer.status_code == status
    assert answer.json()["error"]
    for name in changes:
        body = {key: value for key, value in asked(1).items() if key != name}
        assert guarded.post(path, body, headers=bearer(OPERATOR)).status_code == 400


def test_a_token_with_a_name_signs(
    started: Workspace, serve: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# who may what\noperator ci {OPERATOR}\nviewer {VIEWER}  # Prometheus\n")
    with serve(started.path, "--token-file", str(file)) as served:
        body = {"reason": "red", "expected_version": 1}
        served.post("/v1/rollouts/r1/hold", body, headers=bearer(OPERATOR))
        assert started.rollout("r1").actor == "ci"
        served.post("/v1/rollouts/r1/resume", asked(2), headers=bearer(OPERATOR))
        assert started.rollout("r1").actor == "ann (ci)"


def test_without_tokens_nothing_is_changed(started: Workspace, serve: Callable[..., Any]) -> None:
    with serve(started.path) as served:
        answer = served.post("/v1/rollouts/r1/halt", asked(1))
        assert answer.status_code == 403
        assert "read-only" in answer.json()["error"]
    assert started.rollout("r1").version == 1


def test_this_machine_may_act_where_that_was_said_and_browsers_may_not(
    started: Workspace, serve: Callable[..., Any]
) -> None:
    with serve(started.path, "--allow-actions-from-loopback") as served:
        path = "/v1/rollouts/r1/hold"
        for headers in (
            {"Origin": "http://evil.example"},
            {"Host": "evil.example"},
            {"X-Forwarded-For": "10.0.0.1"},
            {"Forwarded": "for=10.0.0.1"},
            {"Via": "1.1 proxy"},
            {"X-Real-IP": "10.0.0.1"},
        ):
            assert served.post(path, asked(1), headers=headers).status_code == 403
        form = served.http.post(
            path, content=json.dumps(asked(1)), headers={"Content-Type": "text/plain"}
        )
        assert form.status_code == 415
        assert started.rollout("r1").version == 1
        assert served.post(path, asked(1)).json()["state"] == "hold"


def test_two_operators_at_once_are_one(started: Workspace, serve: Callable[..., Any]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with serve(started.path, **TOKENS) as served, ThreadPoolExecutor(8) as pool:
        path = "/v1/rollouts/r1/hold"
        posts = [
            pool.submit(served.post, path, asked(1), headers=bearer(OPERATOR)) for _ in range(8)
        ]
        statuses = sorted(item.result().status_code for item in posts)
    assert statuses == [200] + [409] * 7
    assert started.rollout("r1").version == 2


# ---- reading ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, launch: Any) -> Iterator[Any]:
    workspace = Workspace(tmp_path_factory.mktemp("guarded") / "workspace")
    workspace.start(
        Rollout.plan("r1", experiment="x", control="old", treatment="new", stages=STAGES)
    )
    words = ("--rate", "0", "--read-timeout", "1")
    with launch(workspace.path, tmp_path_factory.mktemp("log"), *words, **TOKENS) as found:
        yield found


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/rollouts"),
        ("GET", "/v1/rollouts/r1/decision"),
        ("GET", "/v1/snapshot"),
        ("GET", "/metrics"),
        ("GET", "/api/v1/query?query=vector(1)"),
        ("POST", "/flagger/rollout"),
        ("POST", "/judge"),
        ("POST", "/ofrep/v1/evaluate/flags"),
        ("GET", "/canaryConfig"),
        ("GET", "/no/such/path"),
    ],
)
def test_everything_but_health_needs_a_token(guarded: Any, method: str, path: str) -> None:
    answer = guarded.http.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json() == {"error": "the token is wrong or absent"}
    with_token = guarded.http.request(method, path, headers=bearer(VIEWER))
    assert with_token.status_code not in (401, 403)


def test_health_needs_none(guarded: Any) -> None:
    assert guarded.get("/healthz").json() == {"status": "ok"}
    ready = guarded.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer -", f"Bearer {VIEWER}x", f"bearer{VIEWER}", "Basic !!!", "Basic eA=="],
)
def test_other_credentials_are_none(guarded: Any, value: str) -> None:
    answer = guarded.get("/metrics", headers={"Authorization": value})
    assert answer.status_code == 401


def test_a_follower_takes_the_snapshot_from_here(guarded: Any, tmp_path: Path) -> None:
    target = tmp_path / "snapshot.json"
    follower = Follower(f"{guarded.url}/v1/snapshot", target, token=VIEWER)
    assert follower.poll().version == 1
    tag = guarded.get("/v1/snapshot", headers=bearer(VIEWER)).headers["etag"]
    again = guarded.get("/v1/snapshot", headers=bearer(VIEWER) | {"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_page_that_resolves_to_this_machine_reads_nothing(served: Any) -> None:
    for host in ("evil.example", "evil.example:8400", "127.0.0.1.evil.example", ""):
        answer = served.get("/v1/snapshot", headers={"Host": host})
        assert answer.status_code == 403, host
    for host in ("localhost", "localhost:8400", "127.0.0.1:1", "[::1]:8400"):
        assert served.get("/v1/snapshot", headers={"Host": host}).status_code == 200, host


# ---- limits -------------------------------------------------------------------------------------


def test_a_large_body_is_refused_before_it_is_read(guarded: Any) -> None:
    headers = bearer(VIEWER)
    fits = guarded.http.post("/flagger/rollout", content=b" " * 65_536, headers=headers)
    assert fits.status_code == 400  # read, and no JSON
    for content in (b" " * 65_537, (b" " * 1_000 for _ in range(70))):  # by length, and in chunks
        answer = guarded.http.post("/flagger/rollout", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"] == "the body has more than 65536 bytes"


def test_what_is_no_json_is_refused_in_words(guarded: Any) -> None:
    headers = bearer(OPERATOR) | {"Content-Type": "application/json"}
    for content in (b"{", b"[1]", b"\xff", b"[" * 60_000, b'"text"', b"null"):
        answer = guarded.http.post("/v1/rollouts/r1/hold", content=content, headers=headers)
        assert answer.status_code == 400, content[:20]
        assert "Traceback" not in answer.text


def talk(url: str, data: bytes) -> bytes:
    """What a server answers to raw bytes until it ends the connection."""
    host, _, port = url.removeprefix("http://").partition(":")
    received = b""
    with (
        socket.create_connection((host, int(port)), timeout=60.0) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(data)
        while piece := connection.recv(65_536):
            received += piece
    return received


def test_slow_clients_are_cut_off(guarded: Any) -> None:
    head = f"POST /flagger/rollout HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {VIEWER}\r\n"
    assert talk(guarded.url, head.encode()) == b""  # a head that never ends
    assert talk(guarded.url, b"") == b""  # and one that never begins
    body = f"{head}Content-Length: 10\r\n\r\n12345".encode()  # a body that never ends
    assert talk(guarded.url, body).startswith(b"HTTP/1.1 408")


def test_a_huge_head_and_no_http_are_refused(guarded: Any) -> None:
    told = talk(guarded.url, b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")
    assert told == b"" or told.startswith(b"HTTP/1.1 4")
    told = talk(guarded.url, b"\x16\x03\x01 garbage\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 400")
    assert guarded.get("/healthz").status_code == 200


def test_a_client_that_asks_too_much_waits(zoo: Path, serve: Callable[..., Any]) -> None:
    with serve(zoo, "--rate", "0.001") as served:
        assert served.get("/v1/rollouts").status_code == 200
        answer = served.get("/v1/rollouts")
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 1_000
        assert answer.json() == {"error": "too many requests"}
        assert served.get("/healthz").status_code == 200


def test_the_bucket_fills_again_and_forgets_the_oldest() -> None:
    now = [0.0]
    rates = Rates(10.0, monotonic=lambda: now[0])
    assert [rates.wait_seconds("a") for _ in range(20)] == [0.0] * 20
    assert rates.wait_seconds("a") == pytest.approx(0.1)
    assert rates.wait_seconds("b") == 0.0
    now[0] = 0.1
    assert rates.wait_seconds("a") == 0.0
    assert rates.wait_seconds("a") > 0.0
    for number in range(MAX_CLIENTS):
        rates.wait_seconds(f"client-{number}")
    assert rates.wait_seconds("a") == 0.0


# ---- starting -----------------------------------------------------------------------------------


def test_other_machines_are_served_with_tokens_only(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "example.org"):  # noqa: S104 - refused
        with pytest.raises(ConfigError, match="can be reached from other machines"):
            bind(tmp_path, host=host, port=0)


def test_a_workspace_that_is_not_there_and_a_port_that_is_taken_are_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from abkit.cli import main; sys.exit(main())"]

    def said(*words: str) -> str:
        done = subprocess.run(
            [*command, "serve", *words], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 2
        return done.stderr

    assert "no workspace" in said(str(tmp_path / "nothing"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "cannot be served" in said(str(tmp_path), "--port", port)
    assert "--rate must be" in said(str(tmp_path), "--rate", "nan")
    assert "is not readable" in said(str(tmp_path), "--token-file", str(tmp_path / "no"))


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_an_absent_extra_is_named(tmp_path: Path, package: str) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None; from abkit.cli import main; "
        f"sys.exit(main(['serve', {str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert (
        done.stderr == f"abkit: abkit serve needs {package}: pip install 'abkit-rollouts[server]'\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("admin secretsecretsecret", "line 1: write `role token`"),
        ("viewer", "line 1"),
        ("viewer a b c", "line 1"),
        ("viewer short", "has 5 characters"),
        (f"viewer {VIEWER}\noperator {VIEWER}", "another one's too"),
    ],
)
def test_a_token_file_of_another_form_is_refused_without_showing_it(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_tokens(file, {})
    assert "secretsecret" not in str(caught.value)
    assert VIEWER not in str(caught.value)


def test_every_token_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    from abkit.server import auth

    compared: list[int] = []

    def counted(first: bytes, second: bytes) -> bool:
        compared.append(len(first) == len(second) == 32)
        return compare(first, second)

    compare = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", counted)
    tokens = Tokens([(Role.VIEWER, "", VIEWER), (Role.APPROVER, "", APPROVER)])
    assert tokens.caller({"authorization": f"Bearer {VIEWER}"}).role == Role.VIEWER
    assert tokens.caller({"authorization": "Bearer x"}).role == Role.NOBODY
    assert compared == [True] * 4


# ---- logs ---------------------------------------------------------------------------------------


def test_no_unit_and_no_token_is_ever_logged(started: Workspace, serve: Callable[..., Any]) -> None:
    unit = "unit-that-is-a-secret"
    with serve(started.path, "--log-exposures", **TOKENS) as served:
        headers = bearer(OPERATOR)
        context = {"context": {"targetingKey": unit}}
        served.post("/ofrep/v1/evaluate/flags/x", context, headers=headers)
        served.post(f"/ofrep/v1/evaluate/flags/{unit}", context, headers=headers)
        served.get(f"/v1/rollouts/{unit}", headers=headers)
        served.post("/v1/rollouts/r1/hold", asked(1, reason=unit, actor=unit), headers=headers)
        served.get("/metrics", headers=bearer(f"wrong-{unit}"))
        # A fault of ours: the snapshot's folder is taken away under a request.
        (started.path / "rollouts" / "r1.json").write_text(f'{{"{unit}": 1}}')
        served.get("/v1/rollouts/r1", headers=headers)
        log = served.log
    told = log.read_text()
    assert "rollout r1: hold by OPERATOR, now hold" in told
    assert unit not in told
    assert not any(token in told for token in TOKENS.values())


async def answered(app: Any, **scope: Any) -> list[dict[str, Any]]:
    """What an application sends for one request without a body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("::1", 1)}
    await app(whole | scope, receive, send)
    return sent


def test_a_fault_of_ours_is_500_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("unit-that-is-a-secret")

    guard = Guard(broken, tokens=Tokens(), rates=Rates())
    start, body = asyncio.run(answered(guard))
    assert start["status"] == 500
    assert json.loads(body["body"]) == {"error": "the server failed", "hint": "its log says where"}
    assert "RuntimeError in broken:" in caplog.text
    assert "secret" not in caplog.text


def test_an_answer_that_has_begun_is_not_answered_again() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    guard = Guard(broken, tokens=Tokens(), rates=Rates())
    assert [item["type"] for item in asyncio.run(answered(guard))] == ["http.response.start"]
