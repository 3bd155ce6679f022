"""Hooks against real servers: signed, retried, never in the way, and nothing lost on a restart."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from abkit.errors import ConfigError
from abkit.integrations.hooks import Hooks
from abkit.integrations.kserve import Service, patch
from abkit.integrations.mlflow import Alias
from abkit.integrations.notices import EVENTS, Notice
from abkit.integrations.notify import read_targets
from abkit.integrations.outbox import read_status, read_waiting
from abkit.integrations.webhook import DeliveryError, Webhook, slack
from abkit.rollout import Rollout, Stage
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = b"a secret of this test"
STAGES = (Stage(name="10 %", share=0.1), Stage(name="50 %", share=0.5))


class Receiver:
    """A server that keeps what it got, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, dict(self.headers), body))
                answer = receiver.answers.pop(0) if receiver.answers else status(200)
                with contextlib.suppress(OSError):
                    answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, _, body in self.got]


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def raw(content: bytes, *, every_seconds: float = 0.0) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        for number in range(len(content)) if every_seconds else ():
            handler.wfile.write(content[number : number + 1])
            handler.wfile.flush()
            time.sleep(every_seconds)
        if not every_seconds:
            handler.wfile.write(content)
        handler.close_connection = True

    return answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.server.shutdown()
    found.thread.join()
    found.server.server_close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def plan(key: str = "r", **changes: Any) -> Rollout:
    arguments = {"control": "v1", "treatment": "v2", "stages": STAGES, "salt": "s"} | changes
    return Rollout.plan(key, experiment="ranker", **arguments)


def webhook(receiver: Receiver, **changes: Any) -> Webhook:
    arguments: dict[str, Any] = {"name": "ops", "url": receiver.url, "secret": SECRET}
    return Webhook(**arguments | changes)


def notice(**changes: Any) -> Notice:
    halt = Notice(
        id="r:2:halt",
        event="halt",
        time=5.0,
        rollout="r",
        experiment="ranker",
        control="v1",
        treatment="v2",
        mode="enforce",
        state="halted",
        stage="10 %",
        share=0.0,
        version=2,
        reason="worse",
        actor="abkit",
    )
    return dataclasses.replace(halt, **changes)


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


# One attempt


def test_a_webhook_is_signed_as_documented(receiver: Receiver) -> None:
    webhook(receiver).deliver(notice())
    ((path, headers, body),) = receiver.got
    expected = hmac.new(
        SECRET, headers["Abkit-Timestamp"].encode() + b"." + body, hashlib.sha256
    ).hexdigest()
    assert (path, headers["Abkit-Signature"]) == ("/hook", f"v1={expected}")
    assert (headers["Abkit-Id"], headers["Abkit-Event"]) == ("r:2:halt", "halt")
    assert abs(int(headers["Abkit-Timestamp"]) - time.time()) < 300
    assert headers["Content-Type"] == "application/json"
    data = json.loads(body)
    assert data["schema"] == "abkit.event/v1"
    assert (data["rollout"], data["state"], data["reason"]) == ("r", "halted", "worse")


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    webhook(receiver, secret=b"").deliver(notice())
    assert "Abkit-Signature" not in receiver.got[0][1]


def test_slack_gets_text_and_blocks_in_which_nothing_is_markup(receiver: Receiver) -> None:
    odd = notice(reason="<!channel> & <https://evil|here>" + "x" * 9000, decision_id="sha256:abc")
    webhook(receiver, format="slack").deliver(odd)
    data = json.loads(receiver.got[0][2])
    assert set(data) == {"text", "blocks"}
    section, context = data["blocks"]
    assert (section["type"], section["text"]["type"]) == ("section", "mrkdwn")
    assert "*r*: halt" in section["text"]["text"]
    assert "&lt;!channel&gt; &amp; &lt;https" in section["text"]["text"]
    assert "<" not in section["text"]["text"] + data["text"]
    assert len(section["text"]["text"]) <= 3000
    assert len(data["text"]) <= 3000
    assert context["elements"][0]["text"] == "by abkit, version 2, decision sha256:abc"
    assert slack(notice(event="rolled_back"))["text"].startswith("r: rolled back")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (status(500), "status 500"),
        (status(302, Location="/elsewhere"), "a redirect"),
        (status(307, Location="http://127.0.0.1:1/"), "redirects to another host"),
        (status(308, Location="http://evil.example/"), "redirects to another host"),
        (status(307), "redirects to another host"),
        (raw(b"nonsense\r\n\r\n"), "no answer of HTTP"),
        (raw(b""), "no answer of HTTP"),
        (raw(b"HTTP/1.1 99999 OK\r\n\r\n"), "no answer of HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 2000 + b"\r\n"), "no answer of HTTP"),
    ],
)
def test_what_is_no_plain_yes_is_a_failure(
    receiver: Receiver, answer: Callable[[BaseHTTPRequestHandler], None], words: str
) -> None:
    receiver.answers = [answer]
    with pytest.raises(DeliveryError, match=words):
        webhook(receiver).deliver(notice())


def test_a_redirect_to_the_same_host_is_followed_but_not_for_ever(receiver: Receiver) -> None:
    receiver.answers = [status(307, Location="/new"), status(308, Location=receiver.url)]
    webhook(receiver).deliver(notice())
    assert [path for path, _, _ in receiver.got] == ["/hook", "/new", "/hook"]
    assert len({body for _, _, body in receiver.got}) == 1
    receiver.answers = [status(307, Location="/loop")] * 9
    with pytest.raises(DeliveryError, match="redirects"):
        webhook(receiver).deliver(notice())
    assert len(receiver.got) == 3 + 4


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", every_seconds=0.3),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, every_seconds=0.1),
    ],
)
def test_a_server_that_drips_is_cut_off_in_time(
    receiver: Receiver, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    """A timeout per byte would never end here."""
    receiver.answers = [answer]
    with pytest.raises(DeliveryError, match="no answer in time"):
        webhook(receiver, timeout_seconds=0.5).deliver(notice())


def test_a_body_that_lies_about_its_length_does_no_harm(receiver: Receiver) -> None:
    receiver.answers = [raw(b"HTTP/1.1 204 No\r\nContent-Length: 999999999999\r\n\r\nno")]
    webhook(receiver, timeout_seconds=5.0).deliver(notice())


def test_nobody_there_is_a_failure_that_does_not_tell_the_address() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = Webhook(name="ops", url=f"http://127.0.0.1:{port}/secret-path")
    with pytest.raises(DeliveryError) as error:
        target.deliver(notice())
    assert "secret-path" not in str(error.value)
    assert target.host == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/hook", "use https"),
        ("http://127.0.0.1.example.com/", "use https"),
        ("ftp://example.com/", "must be an https URL"),
        ("https://", "must be an https URL"),
        ("https://user:word@example.com/", "no user and password"),
        ("https://example.com:x/", "no URL"),
        ("https://example.com/a b", "spaces"),
    ],
)
def test_addresses_that_would_send_in_the_clear_are_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Webhook(name="ops", url=url)


# The hooks of a controller


def test_moves_of_anybody_are_told_in_order_and_once(
    workspace: Workspace, receiver: Receiver
) -> None:
    workspace.start(plan())
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
        for verb in ("hold", "resume", "skip", "promote", "halt"):
            workspace.act("r", verb, reason=f"to {verb}", actor="ann")
            hooks.notice()
            hooks.notice()
            eventually(lambda v=verb: receiver.got and f"to {v}".encode() in receiver.got[-1][2])
    assert receiver.events() == ["start", "hold", "resume", "advance", "promote", "rolled_back"]
    last = json.loads(receiver.got[-1][2])
    assert (last["actor"], last["share"], last["version"]) == ("ann", 0.0, 6)
    assert (last["id"], last["sequence"]) == ("r:6:rolled_back", 6)
    with Hooks(workspace, [webhook(receiver)]) as hooks:  # a restart tells nothing twice
        hooks.notice()
    assert len(receiver.got) == 6


def test_only_what_was_asked_for_is_told(workspace: Workspace, receiver: Receiver) -> None:
    targets = [
        webhook(receiver, name="halts", events=("halt",)),
        webhook(receiver, name="others", experiments=("another",)),
    ]
    workspace.start(plan())
    workspace.halt("r", reason="worse", actor="a")
    with Hooks(workspace, targets) as hooks:
        hooks.notice()
    assert receiver.events() == ["halt"]


def test_a_failing_server_is_tried_again_until_it_answers(
    workspace: Workspace, receiver: Receiver
) -> None:
    receiver.answers = [status(500), status(429), raw(b""), status(404)]
    workspace.start(plan())
    with Hooks(workspace, [webhook(receiver)], first_wait_seconds=0.01) as hooks:
        hooks.notice()
        eventually(lambda: len(receiver.got) == 5)
    assert len({body for _, _, body in receiver.got}) == 1
    assert len({headers["Abkit-Id"] for _, headers, _ in receiver.got}) == 1
    found = read_status(workspace.path / "notify" / "ops.status.json")
    assert (found.delivered, found.given_up, found.last_error["error"]) == (1, 0, "status 404")
    assert read_waiting(workspace.path / "notify" / "outbox" / "ops") == {}


def test_a_restart_loses_nothing(workspace: Workspace, receiver: Receiver) -> None:
    receiver.answers = [status(503)] * 2
    workspace.start(plan())
    workspace.hold("r", reason="r", actor="a")
    with Hooks(workspace, [webhook(receiver)], first_wait_seconds=600.0) as hooks:
        hooks.notice()
        eventually(lambda: len(receiver.got) == 2)
    waiting = read_waiting(workspace.path / "notify" / "outbox" / "ops")
    assert {item.attempts for item in waiting.values()} == {1}
    assert set(waiting) == {"r:1:start", "r:2:hold"}
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
    assert receiver.events() == ["start", "hold", "start", "hold"]
    assert read_waiting(workspace.path / "notify" / "outbox" / "ops") == {}


def test_a_server_that_hangs_delays_neither_a_halt_nor_another_target(
    workspace: Workspace, receiver: Receiver
) -> None:
    release = threading.Event()
    other = Receiver()

    def hang(_: BaseHTTPRequestHandler) -> None:
        release.wait(20)

    other.answers = [hang] * 9
    targets = [webhook(other, name="hangs", timeout_seconds=20.0), webhook(receiver)]
    workspace.start(plan())
    hooks = Hooks(workspace, targets)
    hooks.notice()
    eventually(lambda: bool(other.got))
    workspace.halt("r", reason="worse", actor="a")
    hooks.notice()
    eventually(lambda: "halt" in receiver.events())
    hooks.close(0.0)
    assert len(other.got) == 1  # it hangs to this moment
    assert "r:2:halt" in read_waiting(workspace.path / "notify" / "outbox" / "hangs")
    release.set()
    other.server.shutdown()
    other.server.server_close()


def test_a_halt_goes_before_what_waits_longer(workspace: Workspace, receiver: Receiver) -> None:
    workspace.start(plan())
    workspace.hold("r", reason="r", actor="a")
    workspace.halt("r", reason="r", actor="a")
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
    assert receiver.events() == ["halt", "start", "hold"]


def test_what_never_arrives_is_given_up_and_kept(workspace: Workspace, receiver: Receiver) -> None:
    receiver.answers = [status(410)]
    workspace.start(plan())
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
    folder = workspace.path / "notify"
    assert read_status(folder / "ops.status.json").given_up == 1
    assert set(read_waiting(folder / "failed" / "ops")) == {"r:1:start"}
    assert read_waiting(folder / "outbox" / "ops") == {}


def test_without_a_disk_messages_are_sent_from_memory(
    workspace: Workspace, receiver: Receiver
) -> None:
    workspace.start(plan())
    (workspace.path / "notify").touch()  # no folder can be made
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
    assert receiver.events() == ["start"]


def test_moves_without_a_line_are_told_from_the_state_files(
    workspace: Workspace, receiver: Receiver
) -> None:
    workspace.start(plan())
    (workspace.path / "audit" / "log.jsonl").unlink()
    (workspace.path / "audit").rmdir()
    (workspace.path / "audit").touch()  # no trail can be written
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
        hooks.notice()
        workspace.halt("r", reason="worse", actor="ann")
        hooks.notice()
        hooks.notice()
    assert receiver.events() == ["start", "halt"]
    assert json.loads(receiver.got[-1][2])["sequence"] == 0


def test_what_happened_long_before_the_first_start_is_no_news(
    tmp_path: Path, receiver: Receiver
) -> None:
    workspace = Workspace(tmp_path / "ws", clock=lambda: 1000.0)
    workspace.start(plan())
    workspace.hold("r", reason="r", actor="a")
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
        hooks.notice()
    assert receiver.got == []


def test_damaged_files_of_its_own_stop_nothing(workspace: Workspace, receiver: Receiver) -> None:
    folder = workspace.path / "notify"
    (folder / "outbox" / "ops").mkdir(parents=True)
    for path in (folder / "outbox" / "ops" / "x.json", folder / "cursor.json"):
        path.write_text("[")
    (folder / "ops.status.json").write_text("[1]")
    workspace.start(plan())
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
    assert receiver.events() == ["start"]


def test_messages_lie_in_folders_for_their_owner_alone(
    workspace: Workspace, receiver: Receiver
) -> None:
    receiver.answers = [status(410)]
    workspace.start(plan())
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
    folders = [p for p in (workspace.path / "notify").rglob("*") if p.is_dir()]
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (workspace.path / "notify", *folders)}
    assert modes == {0o700}


def test_slack_says_what_is_a_dry_run() -> None:
    text = json.dumps(slack(notice(mode="dry_run")))
    assert text.count("halt (dry run)") == 2
    assert "dry run" not in json.dumps(slack(notice()))


@pytest.mark.parametrize(
    "change",
    [
        {"id": 5},
        {"id": "../../r"},
        {"id": "r:1:start\r\nX: y"},
        {"time": "now"},
        {"share": None},
        {"version": [1]},
    ],
    ids=str,
)
def test_a_message_of_another_form_silences_no_other(
    workspace: Workspace, receiver: Receiver, change: dict[str, Any]
) -> None:
    box = workspace.path / "notify" / "outbox" / "ops"
    box.mkdir(parents=True)
    data = {"notice": notice().to_dict() | change, "since": 0.0, "attempts": 0, "error": ""}
    (box / "x.json").write_text(json.dumps(data))
    (box / "y.json").write_text(json.dumps(data | {"notice": notice().to_dict()}) + " ")
    (box / "z.json").write_text(json.dumps(data).replace('"attempts": 0', '"attempts": 1e999'))
    workspace.start(plan())
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
        eventually(lambda: len(receiver.got) == 2)
    assert sorted(receiver.events()) == ["halt", "start"]


def test_numbers_beyond_all_bounds_in_files_of_its_own_stop_nothing(
    workspace: Workspace, receiver: Receiver
) -> None:
    folder = workspace.path / "notify"
    folder.mkdir(parents=True)
    (folder / "cursor.json").write_text('{"sequence": 1e999, "versions": {}, "advice": {}}')
    (folder / "ops.status.json").write_text(
        '{"delivered": 1e999, "given_up": 0, "last_delivered": {}, "last_error": {}}'
    )
    workspace.start(plan())
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
    assert receiver.events() == ["start"]


def test_a_forged_line_silences_no_move(workspace: Workspace, receiver: Receiver) -> None:
    workspace.start(plan())
    log = workspace.path / "audit" / "log.jsonl"
    line = log.read_bytes()
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        hooks.notice()
        log.write_bytes(line + line.replace(b'"version":1', b'"version":"x"'))
        hooks.notice()
        workspace.halt("r", reason="worse", actor="ann")
        hooks.notice()
        hooks.notice()
    assert receiver.events() == ["start", "halt"]


def test_a_pipe_in_place_of_the_trail_holds_no_hook_up(
    workspace: Workspace, receiver: Receiver
) -> None:
    workspace.start(plan())
    log = workspace.path / "audit" / "log.jsonl"
    log.unlink()
    os.mkfifo(log)
    with Hooks(workspace, [webhook(receiver)]) as hooks:
        for _ in range(3):
            thread = threading.Thread(target=hooks.notice, daemon=True)
            thread.start()
            thread.join(30.0)
            assert not thread.is_alive()
        eventually(lambda: receiver.events() == ["start"])


def test_a_clock_that_is_set_forward_gives_nothing_up(
    workspace: Workspace, receiver: Receiver
) -> None:
    now = [time.time()]
    receiver.answers = [status(500), status(500)]
    workspace.start(plan())
    with Hooks(
        workspace, [webhook(receiver)], clock=lambda: now[0], first_wait_seconds=0.05
    ) as hooks:
        hooks.notice()
        eventually(lambda: len(receiver.got) >= 1)
        now[0] += 10 * 86_400
        eventually(lambda: len(receiver.got) == 3)
        box = workspace.path / "notify" / "outbox" / "ops"
        eventually(lambda: read_waiting(box) == {})
    assert read_status(workspace.path / "notify" / "ops.status.json").given_up == 0


@pytest.mark.parametrize(
    "target",
    [
        Service(name="k", experiment="ranker", service="ranker"),
        Alias(name="m", experiment="ranker", model="m", alias="a", versions={"v1": "1"}),
    ],
    ids=["kserve", "mlflow"],
)
def test_after_a_clock_was_set_back_the_halt_still_takes_the_place_of_the_advance(
    target: Any,
) -> None:
    advance = notice(id="r:1:advance", event="advance", time=500.0, version=1, share=0.5)
    halt = notice(time=5.0, version=2)
    assert target.replaces(advance, halt)
    assert not target.replaces(halt, advance)
    first, second = notice(rollout="a", sequence=3, time=9.0), notice(rollout="b", sequence=4)
    assert target.replaces(first, second)
    assert not target.replaces(second, first)


def test_in_mode_notify_people_are_told_once_what_they_might_do(
    workspace: Workspace, receiver: Receiver
) -> None:
    pytest.importorskip("duckdb")
    from abkit.client import Client
    from abkit.controller import Controller

    stages = (Stage(name="half", share=0.5, min_units=10), Stage(name="most", share=0.9))
    workspace.start(plan(mode="notify", stages=stages))
    with Controller(workspace) as controller, Hooks(workspace, [webhook(receiver)]) as hooks:
        for number in range(3):
            with Client(workspace.path) as ab:
                for user in range(100):
                    assignment = ab.assign("ranker", f"user-{number}-{user}")
                    ab.expose(assignment)
                    ab.record(assignment.unit_id, "error", 0)
            hooks.notice(controller.tick())
        assert workspace.rollout("r").stage_index == 0
    assert sorted(receiver.events()) == ["advice", "start"]
    advice = next(body for _, headers, body in receiver.got if headers["Abkit-Event"] == "advice")
    assert json.loads(advice)["reason"].startswith("advance: ")


# notify.toml


def write(workspace: Workspace, text: str) -> None:
    workspace.create()
    (workspace.path / "notify.toml").write_text(text)


def test_the_file_names_webhooks_aliases_and_services(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK", "https://hooks.example.com/T/B/x")
    monkeypatch.setenv("HOOK_SECRET", "s")
    write(
        workspace,
        """
[[notify]]
name = "ops"
url = "https://example.com/hook"
secret_env = "HOOK_SECRET"
events = ["halt", "rolled_back"]

[[notify]]
name = "slack"
url_env = "SLACK"
format = "slack"
timeout_seconds = 2

[[mlflow]]
name = "champion"
experiment = "ranker"
model = "ranker"
alias = "champion"
versions = { v1 = "1", v2 = "2" }

[[kserve]]
name = "cluster"
experiment = "ranker"
service = "ranker"
namespace = "ml"
""",
    )
    ops, chat, alias, service = read_targets(workspace.path)
    assert isinstance(ops, Webhook)
    assert (ops.secret, ops.events) == (b"s", ("halt", "rolled_back"))
    assert isinstance(chat, Webhook)
    assert (chat.format, chat.host, chat.events) == ("slack", "hooks.example.com", EVENTS)
    assert isinstance(alias, Alias)
    assert isinstance(service, Service)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[notfy]]", "unknown table 'notfy'"),
        ("[notify]", r"write \[\[notify\]\]"),
        ('[[notify]]\nname = "../x"', "name must be"),
        ('[[notify]]\nname = "a"', "give url, or url_env"),
        ('[[notify]]\nname = "a"\nurl_env = "NOT_SET"', "which is not set"),
        ('[[notify]]\nname = "a"\nurl = "https://e.com"\nsecret_env = "NOT_SET"', "is not set"),
        ('[[notify]]\nname = "a"\nurl = "https://e.com"\nsecret = "x"', "unknown key 'secret'"),
        ('[[notify]]\nname = "a"\nurl = "https://e.com"\nevents = ["halted"]', "event"),
        ('[[notify]]\nname = "a"\nurl = "https://e.com"\nevents = "halt"', "must be a list"),
        ('[[notify]]\nname = "a"\nurl = "https://e.com"\nformat = "xml"', "format"),
        ('[[notify]]\nname = "a"\nurl = "https://e.com"\ntimeout_seconds = 0', "timeout_seconds"),
        ('[[notify]]\nname = "a"\nurl = "https://e.com"\n' * 2, "there twice"),
        ('[[mlflow]]\nname = "a"\nexperiment = "e"', "no model, alias"),
        ('[[mlflow]]\nname = "a"\nexperiment = "e"\nmodel = "m"\nalias = "c"', "which version"),
        ('[[mlflow]]\nname = "a"\nversions = { a = 1 }', "must be text"),
        ('[[kserve]]\nname = "a"\nexperiment = "e"\nservice = "-x"', "no name of Kubernetes"),
        ("[[", "cannot read notify.toml"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(workspace: Workspace, text: str, words: str) -> None:
    write(workspace, text)
    with pytest.raises(ConfigError, match=words):
        read_targets(workspace.path)


# On the command line


def abkit(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "abkit.cli", *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_controller_tells_and_the_status_shows_it(
    workspace: Workspace, receiver: Receiver
) -> None:
    pytest.importorskip("duckdb")
    workspace.start(plan())
    write(workspace, f'[[notify]]\nname = "ops"\nurl = "{receiver.url}"\nsecret_env = "S"\n')
    assert abkit("controller", workspace.path, "--once").returncode == 2  # S is not set
    done = abkit("controller", workspace.path, "--once", S="s")
    assert done.returncode == 0, done.stderr
    assert receiver.events() == ["start"]
    workspace.halt("r", reason="worse", actor="ann")
    receiver.answers = [status(500)]
    assert abkit("controller", workspace.path, "--once", S="s").returncode == 0
    done = abkit("notify", "status", workspace.path, "--json", S="s")
    (row,) = json.loads(done.stdout)
    assert (row["delivered"], row["waiting"], row["last_error"]) == (1, 1, "status 500")
    assert abkit("controller", workspace.path, "--once", S="s").returncode == 0
    assert receiver.events() == ["start", "halt", "halt"]
    done = abkit("notify", "test", workspace.path, S="s")
    assert (done.returncode, receiver.events()[-1]) == (0, "test")
    receiver.answers = [status(500)]
    done = abkit("notify", "test", workspace.path, "--target", "ops", S="s")
    assert (done.returncode, "status 500" in done.stdout) == (1, True)
    assert abkit("notify", "test", workspace.path, "--target", "none", S="s").returncode == 2


# KServe


@pytest.mark.parametrize(
    ("state", "share", "percent"),
    [
        *(("canary", 0.1, 10), ("canary", 0.001, 1), ("canary", 0.999, 99), ("hold", 0.5, 50)),
        *(("shadow", 0.0, 0), ("halted", 0.1, 0), ("rolled_back", 1.0, 0), ("switched", 1.0, 100)),
        *(("bake", 0.95, 95), ("ready", 0.5, 50), ("promoted", 1.0, None)),
    ],
)
def test_the_patch_gives_the_canary_its_share(
    state: str, share: float, percent: int | None
) -> None:
    assert patch(state, share) == {"spec": {"predictor": {"canaryTrafficPercent": percent}}}


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that writes down how it was called; it fails once while a file says so."""
    calls = tmp_path / "calls.jsonl"
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        f"with open({str(calls)!r}, 'a') as file: file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        f"if os.path.exists({str(tmp_path / 'fails')!r}): sys.exit('no such service')\n"
        "print('inferenceservice.serving.kserve.io/ranker patched')\n"
    )
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return calls


def called(path: Path) -> list[Any]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(json.loads(line)[-1])["spec"]["predictor"] for line in lines]


def test_kserve_is_patched_through_the_life_of_a_rollout(
    workspace: Workspace, kubectl: Path
) -> None:
    target = Service(name="cluster", experiment="ranker", service="ranker", namespace="ml")
    wanted = []
    with Hooks(workspace, [target]) as hooks:
        workspace.start(plan())
        for verb, percent in (("", 10), ("skip", 50), ("promote", None), ("halt", 0)):
            if verb:
                workspace.act("r", verb, reason="r", actor="a")  # type: ignore[arg-type]
            hooks.notice()
            wanted.append({"canaryTrafficPercent": percent})
            eventually(lambda: called(kubectl) == wanted)
    first = json.loads(kubectl.read_text().splitlines()[0])
    assert first[:-1] == [
        *("patch", "inferenceservice", "ranker", "--namespace", "ml"),
        *("--type", "merge", "--patch"),
    ]


def test_a_newer_patch_takes_the_place_of_one_that_failed(
    workspace: Workspace, kubectl: Path, tmp_path: Path
) -> None:
    target = Service(name="cluster", experiment="ranker", service="ranker")
    (tmp_path / "fails").touch()
    workspace.start(plan())
    with Hooks(workspace, [target], first_wait_seconds=600.0) as hooks:
        hooks.notice()
        eventually(lambda: len(called(kubectl)) == 1)
        (tmp_path / "fails").unlink()
        workspace.halt("r", reason="worse", actor="a")
        hooks.notice()
        eventually(lambda: len(called(kubectl)) == 2)
    assert called(kubectl)[-1] == {"canaryTrafficPercent": 0}
    assert read_waiting(workspace.path / "notify" / "outbox" / "cluster") == {}
    found = read_status(workspace.path / "notify" / "cluster.status.json")
    assert "no such service" in found.last_error["error"]


def test_the_command_prints_the_patch_and_applies_it_when_asked(
    workspace: Workspace, kubectl: Path
) -> None:
    workspace.start(plan())
    done = abkit("kserve", workspace.path, "r")
    assert json.loads(done.stdout) == patch("canary", 0.1)
    done = abkit("kserve", workspace.path, "r", "--service", "ranker")
    assert done.stdout.startswith("kubectl patch inferenceservice ranker --namespace default")
    assert not kubectl.exists()
    done = abkit("kserve", workspace.path, "r", "--service", "ranker", "--apply")
    assert (done.returncode, called(kubectl)) == (0, [{"canaryTrafficPercent": 10}])
    assert abkit("kserve", workspace.path, "r", "--service", "--x", "--apply").returncode == 2
    assert abkit("kserve", workspace.path, "r", "--apply").returncode == 2


def test_a_dry_run_moves_no_cluster_and_no_alias() -> None:
    dry = notice(mode="dry_run", event="rolled_back", state="rolled_back")
    service = Service(name="c", experiment="ranker", service="ranker")
    alias = Alias(name="a", experiment="ranker", model="m", alias="c", versions={"v1": "1"})
    assert not service.wants(dry)
    assert not alias.wants(dry)
    assert alias.wants(dataclasses.replace(dry, mode="enforce"))


# MLflow


def test_an_alias_follows_a_promotion_and_a_rollback(workspace: Workspace, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("ranker")
    for _ in range(2):
        client.create_model_version("ranker", source=str(tmp_path))
    client.set_registered_model_alias("ranker", "champion", "1")

    def version() -> str:
        return str(client.get_model_version_by_alias("ranker", "champion").version)

    target = Alias(
        name="champion",
        experiment="ranker",
        model="ranker",
        alias="champion",
        versions={"v1": "1", "v2": "2"},
        tracking_uri=uri,
    )
    with Hooks(workspace, [target]) as hooks:
        workspace.start(plan())
        hooks.notice()
        assert version() == "1"
        workspace.act("r", "promote", reason="r", actor="a")
        hooks.notice()
        eventually(lambda: version() == "2")
        workspace.halt("r", reason="worse after all", actor="a")
        hooks.notice()
        eventually(lambda: version() == "1")
    found = dataclasses.replace(target, model="another")
    with pytest.raises(DeliveryError, match="MLflow"):
        found.deliver(notice(event="promote"))


def test_a_variant_without_a_version_is_told() -> None:
    target = Alias(name="a", experiment="ranker", model="m", alias="c", versions={"v1": "1"})
    with pytest.raises(DeliveryError, match="no version for the variant 'v2'"):
        target.deliver(notice(event="promote"))
