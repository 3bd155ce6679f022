"""The workspace: compare and set, one live rollout per experiment, and crashes that mend."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import abkit.workspace
from abkit import machine
from abkit.compiler import compile_experiment
from abkit.decision import Decision
from abkit.errors import (
    ConfigError,
    StoreBusyError,
    StoreError,
    TransitionError,
    UnknownExperimentError,
)
from abkit.experiment import Experiment
from abkit.rollout import Rollout, Stage
from abkit.snapshot import write_atomically
from abkit.workspace import Workspace, locked

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = (Stage(name="10 %", share=0.1), Stage(name="50 %", share=0.5))


class Clock:
    """Each look at it is a second later."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws", clock=Clock())


def plan(key: str = "ranker-v2", experiment: str = "ranker", **changes: Any) -> Rollout:
    arguments = {"control": "v1", "treatment": "v2", "stages": STAGES, "salt": "s"} | changes
    return Rollout.plan(key, experiment=experiment, **arguments)


def plain(key: str = "colour", **changes: Any) -> Experiment:
    data = {"key": key, "salt": "s", "control": "a", "variants": {"a": 0.5, "b": 0.5}}
    return Experiment.from_dict(data | changes)


def promote(workspace: Workspace, rollout: Rollout) -> Rollout:
    for action in ("advance", "promote"):
        decision = Decision(action=action, reasons=(action,))  # type: ignore[arg-type]
        moved = machine.advance(rollout, decision, now=2000.0)
        workspace.put(moved, expected_version=rollout.version)
        rollout = moved
    return rollout


def published(workspace: Workspace) -> dict[str, Experiment]:
    snapshot = workspace.snapshot()
    assert snapshot is not None
    return dict(snapshot.experiments)


def version(workspace: Workspace) -> int:
    snapshot = workspace.snapshot()
    return 0 if snapshot is None else snapshot.version


# Reading


def test_looking_at_a_workspace_makes_nothing(workspace: Workspace) -> None:
    assert workspace.rollouts() == []
    assert workspace.snapshot() is None
    assert not workspace.path.exists()


def test_an_unknown_rollout_lists_the_known_ones(workspace: Workspace) -> None:
    with pytest.raises(UnknownExperimentError, match=r"no rollout 'x' in .*there is none yet"):
        workspace.rollout("x")
    workspace.start(plan("b", "one"))
    workspace.start(plan("a", "two"))
    with pytest.raises(LookupError, match=r"no rollout 'x' in .*; there is a, b"):
        workspace.rollout("x")
    with pytest.raises(UnknownExperimentError, match="there is a, b"):
        workspace.halt("x", reason="r", actor="a")


@pytest.mark.parametrize("key", ["../a", "", "..", "a/b", "a\x00", 7])
def test_a_name_that_is_no_name_touches_no_file(workspace: Workspace, key: Any) -> None:
    with pytest.raises(ConfigError, match="lawful name"):
        workspace.rollout(key)


def test_rollouts_come_newest_first(workspace: Workspace) -> None:
    keys = ["c", "a", "b"]
    for key in keys:
        workspace.start(plan(key, f"exp-{key}"))
    assert [item.key for item in workspace.rollouts()] == keys[::-1]


# Starting


def test_a_start_stores_the_state_and_publishes_its_allocation(workspace: Workspace) -> None:
    started = workspace.start(plan(), actor="ann")
    assert (started.state, started.version, started.actor) == ("canary", 1, "ann")
    assert workspace.rollout("ranker-v2") == started
    assert published(workspace) == {"ranker": started.experiment}
    assert published(workspace)["ranker"].weights["v2"] == pytest.approx(0.1)


def test_a_key_is_used_once(workspace: Workspace) -> None:
    started = workspace.start(plan())
    for rollout in (plan(), plan(experiment="other")):
        with pytest.raises(TransitionError, match="there is a rollout 'ranker-v2' already"):
            workspace.start(rollout)
    assert workspace.rollouts() == [started]


def test_an_experiment_has_one_live_rollout(workspace: Workspace) -> None:
    workspace.start(plan())
    words = r"'ranker' has the live rollout 'ranker-v2' \(canary\); halt or promote it first"
    with pytest.raises(TransitionError, match=words):
        workspace.start(plan("ranker-v3"))
    workspace.hold("ranker-v2", reason="wait", actor="ann")
    with pytest.raises(TransitionError, match=r"\(hold\)"):
        workspace.start(plan("ranker-v3"))
    assert [item.key for item in workspace.rollouts()] == ["ranker-v2"]
    workspace.halt("ranker-v2", reason="stop", actor="ann")
    assert workspace.start(plan("ranker-v3")).state == "canary"


def test_experiments_do_not_wait_for_one_another(workspace: Workspace) -> None:
    workspace.start(plan())
    workspace.start(plan("search-v2", "search"))
    assert set(published(workspace)) == {"ranker", "search"}


def test_a_new_rollout_supersedes_a_promoted_one_with_a_higher_epoch(workspace: Workspace) -> None:
    old = promote(workspace, workspace.start(plan()))
    assert published(workspace)["ranker"].weights == {"v2": 1.0}
    new = workspace.start(plan("ranker-v3", control="v2", treatment="v3"))
    assert new.first_epoch == old.last_epoch + 1
    before = workspace.rollout("ranker-v2")
    assert (before.state, before.reason) == ("superseded", "superseded by ranker-v3")
    assert before.version == old.version + 1
    assert published(workspace) == {"ranker": new.experiment}


def test_epochs_never_repeat_over_the_rollouts_of_an_experiment(workspace: Workspace) -> None:
    epochs: list[int] = []
    for number in range(4):
        started = workspace.start(plan(f"v{number}"))
        ended = workspace.halt(started.key, reason="stop", actor="ann")
        assert started.first_epoch > max(epochs, default=0)
        epochs += [started.last_epoch, ended.last_epoch]
    assert len(set(epochs)) == 8


def test_a_rollout_takes_over_a_plain_experiment_with_a_higher_epoch(workspace: Workspace) -> None:
    workspace.publish(plain("ranker", epoch=9))
    started = workspace.start(plan())
    assert started.first_epoch == 10
    assert published(workspace) == {"ranker": started.experiment}


# Compare and set


def test_a_put_from_an_old_version_is_refused(workspace: Workspace) -> None:
    started = workspace.start(plan())
    workspace.halt(started.key, reason="it burns", actor="bob")
    moved = machine.advance(started, Decision(action="advance", reasons=("x",)), now=5.0)
    words = r"has moved: version 2 \(halted, 'it burns'\), expected 1"
    with pytest.raises(TransitionError, match=words):
        workspace.put(moved, expected_version=started.version)
    assert workspace.rollout(started.key).state == "halted"
    assert published(workspace)["ranker"].state == "killed"


def test_a_put_that_moves_nothing_publishes_nothing(workspace: Workspace) -> None:
    started = workspace.start(plan())
    before = version(workspace)
    workspace.put(replace(started, looks=3), expected_version=1)
    assert workspace.rollout(started.key).looks == 3
    assert version(workspace) == before


RACE = """
import sys, time
from pathlib import Path
from abkit import machine
from abkit.errors import TransitionError
from abkit.rollout import Rollout
from abkit.workspace import Workspace
folder, me, other, rounds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
workspace = Workspace(folder / "ws")
results = []
for number in range(rounds):
    key = f"r{number}"
    if sys.argv[5] == "put":
        before = workspace.rollout(key)
        moved = machine.hold(before, now=1.0, reason=me, actor=me)
        act = lambda: workspace.put(moved, expected_version=before.version)
    else:
        fresh = Rollout.plan(f"{key}-{me}", experiment=key, control="v1", treatment="v2")
        act = lambda: workspace.start(fresh, actor=me)
    (folder / f"{number}-{me}").touch()
    while not (folder / f"{number}-{other}").exists():
        pass
    try:
        act()
        results.append("won")
    except TransitionError:
        results.append("lost")
print(" ".join(results))
"""


@pytest.mark.parametrize("move", ["put", "start"])
def test_of_two_racing_processes_exactly_one_wins(workspace: Workspace, move: str) -> None:
    rounds = 12
    workspace.create()
    if move == "put":
        for number in range(rounds):
            workspace.start(plan(f"r{number}", f"exp-{number}"))
    folder = str(workspace.path.parent)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, folder, *names, str(rounds), move],
            stdout=subprocess.PIPE,
            text=True,
        )
        for names in (("ann", "bob"), ("bob", "ann"))
    ]
    ann, bob = (racer.communicate(timeout=50)[0].split() for racer in racers)
    assert len(ann) == len(bob) == rounds
    assert all({a, b} == {"won", "lost"} for a, b in zip(ann, bob, strict=True)), (ann, bob)
    actors = [
        workspace.rollout(f"r{number}").actor
        if move == "put"
        else next(r.actor for r in workspace.rollouts() if r.experiment.key == f"r{number}")
        for number in range(rounds)
    ]
    assert actors == ["ann" if word == "won" else "bob" for word in ann]
    assert len(workspace.rollouts()) == rounds


def test_moves_of_many_threads_are_all_published(workspace: Workspace) -> None:
    keys = [f"r{number}" for number in range(8)]
    for key in keys:
        workspace.start(plan(key, key))
    before = version(workspace)
    threads = [
        threading.Thread(target=workspace.halt, args=(key,), kwargs={"reason": "r", "actor": "a"})
        for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {item.state for item in published(workspace).values()} == {"killed"}
    assert version(workspace) == before + len(keys)


def test_a_lock_that_is_held_is_waited_for_and_then_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with (
        locked(path, timeout_seconds=1.0),
        pytest.raises(StoreBusyError, match=r"another process holds .*x\.lock"),
        locked(path, timeout_seconds=0.05),
    ):
        pass
    with locked(path, timeout_seconds=0.0):
        pass


def test_a_lock_dies_with_its_holder(workspace: Workspace) -> None:
    workspace.start(plan())
    script = (
        "import os, sys, pathlib, signal; from abkit.workspace import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), timeout_seconds=1):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    lock = str(workspace.path / "state.lock")
    done = subprocess.run([sys.executable, "-c", script, lock], check=False)
    assert done.returncode == -9
    assert workspace.halt("ranker-v2", reason="stop", actor="ann").state == "halted"


# Halting, and other moves by people


def lose_the_store(workspace: Workspace) -> None:
    shutil.rmtree(workspace.store_path)
    shutil.rmtree(workspace.log_path)


def put_files_in_the_way(workspace: Workspace) -> None:
    lose_the_store(workspace)
    workspace.store_path.write_bytes(b"")
    workspace.log_path.write_bytes(b"")


def lose_the_snapshot(workspace: Workspace) -> None:
    workspace.snapshot_path.unlink()


def damage_the_snapshot(workspace: Workspace) -> None:
    workspace.snapshot_path.write_bytes(b"<html>")


def lose_the_lock_file(workspace: Workspace) -> None:
    (workspace.path / "state.lock").unlink()


def damage_another_rollout(workspace: Workspace) -> None:
    (workspace.path / "rollouts" / "search-v2.json").write_bytes(b"{")


def damage_another_rollouts_content(workspace: Workspace) -> None:
    (workspace.path / "rollouts" / "search-v2.json").write_bytes(b'{"key": "search-v2"}')


def damage_an_experiment(workspace: Workspace) -> None:
    (workspace.path / "experiments" / "colour.json").write_bytes(b"[" * 100_000)


@pytest.mark.parametrize(
    "harm",
    [
        lambda _: None,
        lose_the_store,
        put_files_in_the_way,
        lose_the_snapshot,
        damage_the_snapshot,
        lose_the_lock_file,
        damage_another_rollout,
        damage_another_rollouts_content,
        damage_an_experiment,
    ],
    ids=lambda harm: harm.__name__,
)
def test_a_halt_needs_only_its_own_state_file(
    workspace: Workspace, harm: Callable[[Workspace], None]
) -> None:
    workspace.publish(plain())
    other = workspace.start(plan("search-v2", "search"))
    workspace.start(plan())
    harm(workspace)
    halted = workspace.halt("ranker-v2", reason="it burns", actor="bob")
    assert (halted.state, halted.reason, halted.actor) == ("halted", "it burns", "bob")
    assert workspace.rollout("ranker-v2") == halted
    experiment = published(workspace)["ranker"]
    assert experiment == halted.experiment
    assign = compile_experiment(experiment)
    assert {assign(str(unit)).variant for unit in range(200)} == {"v1"}
    assert {assign(str(unit)).reason for unit in range(200)} == {"killed"}
    # What the halt has nothing to do with goes on as it was.
    assert published(workspace)["search"] == other.experiment
    assert published(workspace)["colour"] == plain()


def test_hold_and_resume_keep_what_is_served(workspace: Workspace) -> None:
    started = workspace.start(plan())
    held = workspace.hold("ranker-v2", reason="wait", actor="ann")
    assert held.state == "hold"
    assert published(workspace)["ranker"] == started.experiment
    resumed = workspace.resume("ranker-v2", reason="go", actor="bob")
    assert (resumed.state, resumed.version, resumed.actor) == ("canary", 3, "bob")
    assert published(workspace)["ranker"] == started.experiment


def test_an_illegal_move_changes_nothing(workspace: Workspace) -> None:
    started = workspace.start(plan())
    before = version(workspace)
    with pytest.raises(TransitionError, match="only one on hold can be resumed"):
        workspace.resume("ranker-v2", reason="r", actor="a")
    assert workspace.rollout("ranker-v2") == started
    assert version(workspace) == before


@pytest.mark.parametrize("reason", ["schön 東京 👩", "caf\udce9", 'a "quote"\n\x00', ""])
def test_a_halt_takes_any_words_as_its_reason(workspace: Workspace, reason: str) -> None:
    """A terminal in Latin-1 hands over lone surrogates; that is no moment to raise."""
    workspace.start(plan())
    workspace.halt("ranker-v2", reason=reason, actor=reason)
    stored = workspace.rollout("ranker-v2")
    assert stored.state == "halted"
    assert stored.reason == reason.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("move", ["halt", "hold", "resume"])
def test_a_move_in_a_folder_that_is_no_workspace_is_an_error(tmp_path: Path, move: str) -> None:
    workspace = Workspace(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"cannot open .*is .*nowhere a workspace\?"):
        getattr(workspace, move)("x", reason="r", actor="a")
    assert not workspace.path.exists()


# Plain experiments


def test_plain_experiments_are_published_and_replaced(workspace: Workspace) -> None:
    first = workspace.publish(plain("a"), plain("b"))
    assert (first.version, set(first.experiments)) == (1, {"a", "b"})
    changed = plain("a").reweight({"a": 0.1, "b": 0.9})
    second = workspace.publish(changed)
    assert second == workspace.snapshot()
    assert (second.version, second.published) == (2, first.published + 1)
    assert second.experiments == {"a": changed, "b": plain("b")}


def test_an_experiment_of_a_rollout_is_not_published_over(workspace: Workspace) -> None:
    started = workspace.start(plan())
    with pytest.raises(ConfigError, match="rollout 'ranker-v2' owns the experiment 'ranker'"):
        workspace.publish(plain(), plain("ranker", epoch=99))
    assert published(workspace) == {"ranker": started.experiment}


def test_a_file_in_the_place_of_the_workspace_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "ws"
    file.write_bytes(b"")
    for act in (lambda: Workspace(file).publish(plain()), lambda: Workspace(file).start(plan())):
        with pytest.raises(StoreError, match=r"cannot make the folder .*ws"):
            act()


# Files


def test_folders_and_files_are_for_their_owner_alone(workspace: Workspace) -> None:
    before = os.umask(0)
    try:
        workspace.publish(plain())
        workspace.start(plan())
        workspace.halt("ranker-v2", reason="r", actor="a")
    finally:
        os.umask(before)
    everything = [workspace.path, *workspace.path.rglob("*")]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in everything}
    folders = {path.name for path in everything if path.is_dir()}
    parts = {"experiments", "layers", "holdouts", "rollouts"}
    assert folders == {"ws", "log", "store", "audit", *parts}
    assert {name: oct(mode) for name, mode in modes.items()} == {
        name: "0o700" if name in folders else "0o600" for name in modes
    }
    assert {"snapshot.json", "state.lock", "ranker-v2.json", "colour.json"} <= modes.keys()


def test_a_link_in_the_place_of_the_lock_is_not_followed(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.create()
    target = tmp_path / "target"
    (workspace.path / "state.lock").symlink_to(target)
    with pytest.raises(StoreError, match=r"cannot open .*state\.lock"):
        workspace.publish(plain())
    assert not target.exists()


def test_state_is_json_for_people(workspace: Workspace) -> None:
    workspace.start(plan())
    workspace.hold("ranker-v2", reason="東京", actor="ann")
    text = (workspace.path / "rollouts" / "ranker-v2.json").read_text(encoding="utf-8")
    assert json.loads(text)["state"] == "hold"
    assert '"reason": "東京"' in text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}"])
def test_a_damaged_state_file_is_an_error_of_abkit(workspace: Workspace, content: bytes) -> None:
    workspace.start(plan())
    (workspace.path / "rollouts" / "ranker-v2.json").write_bytes(content)
    for act in (workspace.rollouts, lambda: workspace.rollout("ranker-v2")):
        with pytest.raises((StoreError, ConfigError)):
            act()


# Crashes between the state file and the snapshot


CRASH = """
import os, signal, sys
import abkit.workspace
from abkit.rollout import Rollout
from abkit.workspace import Workspace
real, left = abkit.workspace.write_atomically, int(sys.argv[3])
def dying(path, content):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real(path, content)
abkit.workspace.write_atomically = dying
workspace = Workspace(sys.argv[1])
if sys.argv[2] == "halt":
    workspace.halt("ranker-v2", reason="it burns", actor="bob")
else:
    workspace.start(Rollout.plan("ranker-v3", experiment="ranker", control="v2", treatment="v3"))
"""


def crash(workspace: Workspace, move: str, after_writes: int) -> None:
    """Kill a process that makes this move before its next write."""
    command = [sys.executable, "-c", CRASH, str(workspace.path), move, str(after_writes)]
    assert subprocess.run(command, check=False).returncode == -9


def check_mended(workspace: Workspace) -> None:
    """The snapshot shows the newest stored allocation, and a second mending finds nothing."""
    newest = max(workspace.rollouts(), key=lambda item: item.last_epoch)
    assert published(workspace) == {"ranker": newest.experiment}
    assert not workspace.mend()


MENDS: dict[str, Callable[[Workspace], object]] = {
    "publish": lambda workspace: workspace.publish(),
    "mend": lambda workspace: workspace.mend(),
}


@pytest.mark.parametrize("mend", MENDS.values(), ids=MENDS)
def test_a_halt_that_died_before_the_snapshot_is_mended(
    workspace: Workspace, mend: Callable[[Workspace], object]
) -> None:
    started = workspace.start(plan())
    crash(workspace, "halt", after_writes=1)
    assert workspace.rollout("ranker-v2").state == "halted"
    assert published(workspace) == {"ranker": started.experiment}, "serving does not know yet"
    mend(workspace)
    assert published(workspace)["ranker"].state == "killed"
    check_mended(workspace)


def test_a_halt_that_died_is_mended_by_asking_again(workspace: Workspace) -> None:
    """What a person does first; the answer is still that it is halted already."""
    workspace.start(plan())
    crash(workspace, "halt", after_writes=1)
    with pytest.raises(TransitionError, match="is halted; there is nothing to halt"):
        workspace.halt("ranker-v2", reason="it burns", actor="bob")
    assert published(workspace)["ranker"].state == "killed"
    check_mended(workspace)


def test_a_halt_that_died_before_the_state_file_can_be_asked_again(workspace: Workspace) -> None:
    started = workspace.start(plan())
    crash(workspace, "halt", after_writes=0)
    assert workspace.rollout("ranker-v2") == started
    assert workspace.halt("ranker-v2", reason="it burns", actor="bob").state == "halted"
    check_mended(workspace)


@pytest.mark.parametrize("after_writes", [0, 1, 2])
def test_a_start_that_died_at_any_write_is_mended(workspace: Workspace, after_writes: int) -> None:
    """It supersedes the promoted rollout, stores its own state and publishes: three writes."""
    promote(workspace, workspace.start(plan()))
    crash(workspace, "start", after_writes)
    assert published(workspace)["ranker"].weights == {"v2": 1.0}
    workspace.publish()
    check_mended(workspace)
    fresh = plan("ranker-v3", control="v2", treatment="v3")
    if after_writes < 2:
        workspace.start(fresh)
    else:
        with pytest.raises(TransitionError, match="there is a rollout 'ranker-v3' already"):
            workspace.start(fresh)
    assert workspace.rollout("ranker-v3").state == "canary"
    assert workspace.rollout("ranker-v2").state == "superseded"
    check_mended(workspace)


def test_a_start_that_died_is_mended_by_the_next_look(workspace: Workspace) -> None:
    """The controller stores the looks of what is live, moved or not."""
    promote(workspace, workspace.start(plan()))
    crash(workspace, "start", after_writes=2)
    live = workspace.rollout("ranker-v3")
    workspace.put(replace(live, looks=1), expected_version=live.version)
    assert published(workspace)["ranker"] == live.experiment
    check_mended(workspace)


def test_a_full_disk_loses_no_state(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    started = workspace.start(plan())

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(abkit.workspace, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            workspace.halt("ranker-v2", reason="r", actor="a")
    assert workspace.rollout("ranker-v2") == started
    assert workspace.halt("ranker-v2", reason="r", actor="a").state == "halted"


def test_a_leftover_of_a_killed_write_is_no_rollout(workspace: Workspace) -> None:
    started = workspace.start(plan())
    (workspace.path / "rollouts" / ".ranker-v3.json.123-abc").write_bytes(b"{")
    write_atomically(workspace.path / "rollouts" / "notes.txt", b"no state")
    assert workspace.rollouts() == [started]
    workspace.publish()
    assert set(published(workspace)) == {"ranker"}


def test_a_workspace_may_be_named_by_text_or_path(tmp_path: Path) -> None:
    assert Workspace(str(tmp_path)).path == Workspace(Path(tmp_path)).path


# What a plan may not take back, and who may move what


def test_a_plan_whose_control_would_take_a_promoted_model_back_is_refused(
    workspace: Workspace,
) -> None:
    promote(workspace, workspace.start(plan()))
    message = "everybody is served 'v2', which rollout 'ranker-v2' promoted: starting it would"
    with pytest.raises(ConfigError, match=message):
        workspace.start(plan("ranker-v3", treatment="v3"))
    started = workspace.start(plan("ranker-v3", control="v2", treatment="v3"))
    assert started.last_share == pytest.approx(0.1)


def test_a_plan_whose_control_is_not_what_is_published_is_refused(workspace: Workspace) -> None:
    workspace.publish(plain(key="ranker", variants={"a": 1.0}))
    with pytest.raises(ConfigError, match="everybody is served 'a': starting it would take that"):
        workspace.start(plan(salt=None))
    assert workspace.start(plan(control="a", salt=None)).state == "canary"


def test_a_halted_model_may_be_tried_again(workspace: Workspace) -> None:
    workspace.start(plan())
    workspace.halt("ranker-v2", reason="r", actor="ann")
    assert workspace.start(plan("again")).state == "canary"


def test_a_person_moves_what_they_have_seen_and_nothing_else(workspace: Workspace) -> None:
    seen = workspace.start(plan())
    moved = workspace.act("ranker-v2", "skip", reason="go", actor="ann", expected_version=1)
    assert (seen.version, moved.stage.name, moved.actor) == (1, "50 %", "ann")
    with pytest.raises(TransitionError, match=r"has moved: version 2 \(canary, 'go'\), "):
        workspace.act("ranker-v2", "promote", reason="go", actor="bob", expected_version=1)
    workspace.act("ranker-v2", "promote", reason="go", actor="bob", expected_version=2)
    assert published(workspace)["ranker"].weights == {"v2": 1.0}
    with pytest.raises(ConfigError, match="verb must be one of hold, resume, skip, promote, halt"):
        workspace.act("ranker-v2", "start", reason="", actor="x")  # type: ignore[arg-type]


def test_a_dry_run_publishes_nothing_and_stands_in_nobodys_way(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="no experiment 'colour' is published"):
        workspace.start(plan("watch", "colour", mode="dry_run"))
    before = workspace.publish(plain())
    roles = {"control": "a", "treatment": "b", "mode": "dry_run"}
    dry = workspace.start(plan("watch", "colour", **roles))
    assert workspace.snapshot() == before
    assert dry.allocations == ((1, {"a": 0.5, "b": 0.5}),)
    workspace.publish(plain(variants={"a": 0.2, "b": 0.8}))
    assert workspace.followed(dry).stage == dry.stage
    assert [epoch for epoch, _ in workspace.followed(dry).allocations] == [1, 2]
    real = workspace.start(plan("real", "colour", control="a", treatment="b", salt=None))
    serving = workspace.snapshot()
    workspace.halt("watch", reason="enough", actor="ann")
    assert workspace.snapshot() == serving
    assert published(workspace)["colour"] == real.experiment
