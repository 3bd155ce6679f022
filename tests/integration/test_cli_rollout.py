"""`abkit rollout`: what each command says, and the exit code it says it with."""

from __future__ import annotations

import errno
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from abkit.cli import main
from abkit.client import Client
from abkit.controller import Controller
from abkit.drill import drill
from abkit.errors import TransitionError
from abkit.rollout import Rollout, Stage
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

FIVE_LINES = """\
key = "ranker-v2"
experiment = "ranker"
control = "old"
treatment = "new"
"""
SHORT = (Stage(name="50 %", share=0.5, min_units=50), Stage(name="60 %", share=0.6, min_units=50))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(FIVE_LINES)
    return path


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "space")
    workspace.start(
        Rollout.plan(
            "ranker-v2", experiment="ranker", control="old", treatment="new", stages=SHORT, salt="s"
        )
    )
    return workspace


def serve(workspace: Workspace, rates: dict[str, float], n: int, *, start: int = 0) -> None:
    with Client(workspace.path) as client:
        for i in range(start, start + n):
            a = client.assign("ranker", f"user-{i}")
            client.expose(a)
            client.record(a.unit_id, "error", i % 1000 < 1000 * rates[a.variant])


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["rollout", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_plan_is_told_before_anything_starts(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = told(capsys, "plan", str(plan), "--rps", "1000")
    assert code == 0
    assert [stage["name"] for stage in found["stages"]] == ["1 %", "5 %", "25 %", "50 %"]
    first = found["stages"][0]
    assert (first["requests"], first["seconds"]) == (10_000, 10.0)
    assert first["harms"][1]["excess"] == pytest.approx(19.33, abs=0.01)
    assert main(["rollout", "plan", str(plan), "--rps", "10"]) == 0
    words = capsys.readouterr().out
    assert "guardrail error: canary, margin 0.25" in words
    assert "19 in 5.37 h" in words  # 1,932 requests of treatment, 1 % of 10 a second


def test_a_switch_without_a_limit_is_never_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "green.toml"
    path.write_text(FIVE_LINES + '[[stages]]\nname = "all"\nmode = "switch"\nshare = 1.0\n')
    _, found = told(capsys, "plan", str(path))
    assert {harm["seconds"] for harm in found["stages"][0]["harms"]} == {None}
    main(["rollout", "plan", str(path)])
    assert "never noticed" in capsys.readouterr().out


def test_decide_looks_and_answers_with_its_exit_code(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(space.path)
    code, found = told(capsys, "decide", place, "ranker-v2")
    assert (code, found["action"]) == (2, "continue")
    serve(space, {"old": 0.3, "new": 0.3}, 400)
    code, found = told(capsys, "decide", place, "ranker-v2")
    assert (code, found["action"], found["stage"]) == (0, "advance", "60 %")
    space.hold("ranker-v2", reason="lunch", actor="ann")
    assert told(capsys, "decide", place, "ranker-v2")[0] == 2
    space.resume("ranker-v2", reason="back", actor="ann")
    serve(space, {"old": 0.1, "new": 0.9}, 600, start=400)
    code, found = told(capsys, "decide", place, "ranker-v2")
    assert (code, found["state"]) == (1, "halted")
    assert "error is worse in treatment" in found["last_look"]["reason"]
    assert told(capsys, "decide", place, "ranker-v2")[0] == 1


def test_decide_reads_what_a_running_controller_has_seen(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(space, {"old": 0.1, "new": 0.9}, 600)
    with Controller(space) as controller:
        controller.tick()
        assert told(capsys, "decide", str(space.path), "ranker-v2")[0] == 1


@pytest.mark.parametrize(
    ("verbs", "until", "code"),
    [
        (["skip"], "advance", 0),
        (["promote"], "promote", 0),
        (["halt"], "advance", 1),
        (["hold"], "promote", 2),
    ],
)
def test_wait_ends_with_what_happened(
    space: Workspace, capsys: pytest.CaptureFixture[str], verbs: list[str], until: str, code: int
) -> None:
    def later() -> None:
        time.sleep(0.3)
        for verb in verbs:
            space.act("ranker-v2", verb, reason="now", actor="ann")  # type: ignore[arg-type]

    thread = threading.Thread(target=later)
    thread.start()
    words = ["wait", str(space.path), "ranker-v2", "--until", until, "--interval", "0.05"]
    assert main(["rollout", *words]) == code
    thread.join()
    assert capsys.readouterr().out.startswith("ranker-v2: ")


def test_wait_gives_up_after_its_time(space: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["wait", str(space.path), "ranker-v2", "--timeout", "0.1", "--interval", "0.05"]
    assert main(["rollout", *words]) == 2
    assert "still undecided after 0.1 s" in capsys.readouterr().out


def test_people_move_a_rollout_and_are_named(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--actor", "ann", "--reason", "I looked"]
    for words, state in (
        (["skip", "--expect-version", "1"], "canary"),
        (["hold"], "hold"),
        (["resume"], "canary"),
        (["promote"], "promoted"),
        (["rollback"], "rolled_back"),
    ):
        verb, *rest = words
        code, found = told(capsys, verb, str(space.path), "ranker-v2", *rest, *more)
        assert (code, found["state"], found["actor"]) == (0, state, "ann")
    assert main(["rollout", "abort", str(space.path), "ranker-v2"]) == 3
    assert "there is nothing to halt" in capsys.readouterr().err
    words = ["skip", str(space.path), "ranker-v2", "--expect-version", "1"]
    assert main(["rollout", *words]) == 3
    assert "expected 1" in capsys.readouterr().err


def test_wrong_words_end_with_three(space: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["rollout", "wait", str(space.path), "ranker-v2", "--until", "lunch"])
    assert caught.value.code == 3
    assert "--until" in capsys.readouterr().err


def test_status_shows_the_newest_look(space: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "status", str(space.path), "ranker-v2"]) == 0
    assert "no look has been taken yet" in capsys.readouterr().out
    serve(space, {"old": 0.3, "new": 0.3}, 40)
    with Controller(space) as controller:
        controller.tick()
    assert main(["rollout", "status", str(space.path), "ranker-v2"]) == 0
    words = capsys.readouterr().out
    assert "look 1: continue; " in words
    assert "halts at a harm e-value of 100, a rule is shown at 20" in words
    assert main(["rollout", "status", str(space.path)]) == 0
    assert "units in stage '50 %'" in capsys.readouterr().out


def test_replay_takes_every_decision_again(
    space: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(space, {"old": 0.1, "new": 0.9}, 600)
    with Controller(space) as controller:
        controller.tick()
    assert main(["replay", str(space.path)]) == 0
    assert "ranker-v2: 1 decisions, 0 come out differently" in capsys.readouterr().out
    monkeypatch.setattr("abkit.sequential.canary._HARM_CENTRE", 3.5)
    monkeypatch.setattr("abkit.judge.place.SRM_BLOCK", 0.0)
    assert main(["replay", str(space.path), "ranker-v2"]) == 1
    assert "look 1: " in capsys.readouterr().out
    assert main(["replay", str(space.path), "nope"]) == 3


def test_a_drill_takes_real_workers_back_and_changes_nothing(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in space.path.rglob("*.json")}
    code, found = told(capsys, "drill", str(space.path), "--workers", "2")
    assert (code, found["passed"], len(found["back_seconds"])) == (0, True, 2)
    assert all(0 <= seconds < 10 for seconds in found["back_seconds"])
    assert {path: path.read_bytes() for path in space.path.rglob("*.json")} == before
    assert not list(space.path.glob("drill-*"))


def test_a_drill_of_what_is_over_is_refused(space: Workspace) -> None:
    space.halt("ranker-v2", reason="r", actor="ann")
    with pytest.raises(TransitionError, match="is halted; there is nothing to roll back"):
        drill(space, "ranker-v2")


def test_one_damaged_state_file_hides_no_other_rollout(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (space.path / "rollouts" / "bad.json").write_text("{")
    assert main(["rollout", "status", str(space.path)]) == 0
    found = capsys.readouterr()
    assert "ranker-v2" in found.out
    assert "'bad' is not shown" in found.err
    assert "abkit halt" in found.err


def test_after_a_rollback_the_status_tells_that_nobody_has_the_treatment(
    space: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("promote", "rollback"):
        assert main(["rollout", verb, str(space.path), "ranker-v2"]) == 0
    capsys.readouterr()
    assert told(capsys, "status", str(space.path), "ranker-v2")[1]["share"] == 0.0
    assert main(["rollout", "status", str(space.path), "ranker-v2"]) == 0
    assert "new has 0 of ranker" in capsys.readouterr().out


def test_a_full_disk_is_an_error_and_never_looks_like_a_halt(
    space: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_names: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "space/rollouts/x")

    monkeypatch.setattr("abkit.workspace.write_atomically", full)
    assert main(["rollout", "skip", str(space.path), "ranker-v2"]) == 3
    assert "No space left on device; make room" in capsys.readouterr().err


@pytest.mark.parametrize("margin", [1e-300, 1e300])
def test_a_margin_at_the_end_of_numbers_is_forecast(
    tmp_path: Path, margin: float, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    guardrail = f'[[policy.guardrails]]\nmetric = "error"\nmargin = {margin:.1e}\n'
    path.write_text(FIVE_LINES + guardrail)
    assert main(["rollout", "plan", str(path)]) == 0
    assert "nan" not in capsys.readouterr().out
