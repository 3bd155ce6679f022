"""`abkit audit`, and the trail that a running controller keeps."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

import abkit
from abkit.cli import main
from abkit.controller import Controller
from abkit.rollout import Rollout, Stage
from abkit.store.reader import StoreReader
from abkit.trail import AUDIT, entries
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

STAGES = (Stage(name="half", share=0.5, min_units=10), Stage(name="most", share=0.9, min_units=10))


@pytest.fixture(autouse=True)
def _keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABKIT_AUDIT_KEY", "a key of these tests alone")
    monkeypatch.delenv("ABKIT_AUDIT_KEY_FILE", raising=False)
    monkeypatch.delenv("ABKIT_AUDIT_HEAD", raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A rollout that a controller has advanced, and a person has halted."""
    found = Workspace(tmp_path / "ws")
    found.start(
        Rollout.plan(
            "r", experiment="ranker", control="old", treatment="new", stages=STAGES, salt="s"
        ),
        actor="bo",
    )
    with Controller(found) as controller:
        controller.tick()
        with abkit.Client(found.path) as ab:
            for number in range(200):
                assignment = ab.assign("ranker", f"user-{number}")
                ab.expose(assignment)
                ab.record(assignment.unit_id, "error", 0)
        assert controller.tick().taken[-1].changed
        found.halt("r", reason="a feeling", actor="ann")
        controller.tick()
    return found


def out(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capsys.readouterr().out


def test_a_decision_is_named_in_the_line_of_what_it_led_to(workspace: Workspace) -> None:
    start, advance, halt = entries(workspace.path, rollout="r")
    assert (start.actor, start.verb) == ("bo", "start")
    looks = StoreReader(workspace.path).decisions("r")
    assert advance.decision_id in {look["decision_id"] for look in looks}
    assert (advance.actor, advance.verb) == ("abkit", "advance")
    assert (halt.actor, halt.decision_id) == ("ann", "")


def test_the_head_stands_in_the_event_log_after_each_tick_that_saw_a_move(
    workspace: Workspace,
) -> None:
    heads = StoreReader(workspace.path).decisions(AUDIT)
    assert [head["count"] for head in heads] == [1, 2, 3]
    with Controller(workspace) as controller:
        controller.tick()
        assert controller.tick().ingested.events == 0


def test_the_trail_is_shown_and_verified(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = out(capsys, "audit", workspace.path)
    assert code == 0
    assert "halt  rollout r  canary (most) 0.9 v2 -> halted (most) 0 v3  a feeling" in text
    code, text = out(capsys, "audit", workspace.path, "--rollout", "other")
    assert (code, text) == (0, "no moves are recorded\n")
    code, text = out(capsys, "audit", workspace.path, "--json")
    assert [row["verb"] for row in json.loads(text)] == ["start", "advance", "halt"]
    code, text = out(capsys, "audit", "verify", workspace.path)
    assert code == 0
    assert "3 entries, as written, compared with 3 heads kept elsewhere" in text


def test_a_cut_tail_shows_against_the_event_log_and_exits_with_1(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    log = workspace.path / "audit" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    _, text = out(capsys, "audit", "verify", workspace.path, "--json")
    head = json.loads(text)["head"]
    log.write_bytes(b"".join(lines[:2]))
    code, text = out(capsys, "audit", "verify", workspace.path)
    assert code == 1
    assert "the tail is cut: the event log knows 3 entries, there are 2" in text
    assert "gap: rollout r stands at 3, the trail knows 2" in text
    shutil.rmtree(workspace.store_path)  # whoever takes that away too meets the head you kept
    code, text = out(capsys, "audit", "verify", workspace.path, "--head", f"3:{head}")
    assert (code, "the head you gave knows 3" in text) == (1, True)
    assert "the heads in the event log were not compared" in text
    code, text = out(capsys, "audit", "verify", workspace.path, "--json")
    assert (code, json.loads(text)["passed"]) == (0, True)


def test_without_a_key_it_says_what_that_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ABKIT_AUDIT_KEY")
    workspace = Workspace(tmp_path / "ws")
    workspace.start(Rollout.plan("r", experiment="ranker", control="old", treatment="new"))
    code, text = out(capsys, "audit", "verify", workspace.path)
    assert (code, "unkeyed: shows accidents, not tampering" in text) == (0, True)


def test_a_reason_cannot_steer_a_terminal_or_look_like_a_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(abkit.AbkitError):
        workspace.hold("r", reason="r", actor="a")
    workspace.start(
        Rollout.plan("r2", experiment="ranker", control="old", treatment="new", salt="s"),
        actor="eve\n    9  halted\x1b[2J",
    )
    _, text = out(capsys, "audit", workspace.path)
    assert len(text.splitlines()) == 4
    assert "\x1b" not in text


@pytest.mark.parametrize("words", [["a", "b"], ["verify", "a", "b"], ["none"], ["verify", "none"]])
def test_wrong_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *words]) == 2
    assert capsys.readouterr().err.startswith("abkit: ")


def test_a_head_that_is_none_is_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["audit", "verify", str(workspace.path), "--head", "x"]) == 2
    monkeypatch.setenv("ABKIT_AUDIT_HEAD", str(tmp_path / "none"))
    assert main(["audit", "verify", str(workspace.path)]) == 2


def test_publishing_and_killing_leave_lines_with_who_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plain.toml"
    plan.write_text('key = "plain"\nsalt = "x"\ncontrol = "a"\nvariants = { a = 0.5, b = 0.5 }\n')
    path = tmp_path / "ws"
    assert main(["publish", str(path), str(plan), "--actor", "bo", "--reason", "first"]) == 0
    assert main(["halt", str(path), "plain", "--actor", "ann", "--reason", "enough"]) == 0
    capsys.readouterr()
    found = entries(path)
    assert [(item.actor, item.reason) for item in found] == [("bo", "first"), ("ann", "enough")]
    assert [item.after and item.after["state"] for item in found] == ["running", "killed"]
