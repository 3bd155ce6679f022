"""The audit trail: every change of it shows, and it never stands in the way of a halt."""

from __future__ import annotations

import hashlib
import hmac
import json
import multiprocessing
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import abkit.trail.files
from abkit.errors import ConfigError, StoreError, TransitionError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range
from abkit.rollout import Rollout, Stage
from abkit.trail import Head, Keys, entries, read_head, verify
from abkit.trail.lines import parse
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0123456789abcdef-a-key"
KEYS = Keys((KEY.encode(),))
STAGES = (Stage(name="10 %", share=0.1), Stage(name="50 %", share=0.5))


@pytest.fixture(autouse=True)
def _keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABKIT_AUDIT_KEY", KEY)
    monkeypatch.delenv("ABKIT_AUDIT_KEY_FILE", raising=False)
    monkeypatch.delenv("ABKIT_AUDIT_HEAD", raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def plan(key: str = "r", experiment: str = "ranker", **changes: Any) -> Rollout:
    arguments = {"control": "v1", "treatment": "v2", "stages": STAGES, "salt": "s"} | changes
    return Rollout.plan(key, experiment=experiment, **arguments)


def log_of(workspace: Workspace) -> Path:
    return workspace.path / "audit" / "log.jsonl"


def moved(workspace: Workspace) -> bytes:
    workspace.start(plan())
    for verb in ("hold", "resume", "skip", "promote", "halt"):
        workspace.act("r", verb, reason=f"to {verb}", actor="ann")
    return log_of(workspace).read_bytes()


def told(workspace: Workspace) -> list[tuple[str, str, str]]:
    return [(item.verb, item.key, item.actor) for item in entries(workspace.path)]


# What is written


def test_every_move_has_a_line_with_who_what_and_why(workspace: Workspace) -> None:
    moved(workspace)
    found = entries(workspace.path)
    assert [item.sequence for item in found] == [1, 2, 3, 4, 5, 6]
    assert [item.verb for item in found] == [
        *("start", "hold", "resume", "skip", "promote", "halt")
    ]
    last = found[-1]
    assert (last.actor, last.reason) == ("ann", "to halt")
    assert last.before == {"state": "promoted", "version": 5, "stage": "50 %", "share": 1.0}
    assert last.after == {"state": "rolled_back", "version": 6, "stage": "50 %", "share": 0.0}
    snapshot = workspace.snapshot()
    assert snapshot is not None
    assert last.snapshot == snapshot.version
    assert [item.before for item in found[1:]] == [item.after for item in found[:-1]]


def test_one_line_is_an_hmac_over_what_stands_before_it(workspace: Workspace) -> None:
    """Computed here anew: what is documented is what is written."""
    prev = "0" * 64
    for line in moved(workspace).splitlines():
        data = json.loads(line)
        body = line[: line.rindex(b',"mac":')]
        expected = hmac.new(KEY.encode(), b"abkit.trail/v1\n" + body, hashlib.sha256).hexdigest()
        assert (data["mac"], data["prev"]) == (expected, prev)
        prev = data["mac"]


def test_what_is_published_and_what_it_supersedes_has_lines(workspace: Workspace) -> None:
    layer = Layer(key="page", salt="l", ranges=(Range(0, 2**51, "plain"),))
    plain = Experiment.create("plain", {"a": 0.5, "b": 0.5}, salt="x", layer="page")
    workspace.publish(
        plain,
        layers=[layer],
        holdouts=[Holdout(key="few", salt="h", share=0.1)],
        actor="bo",
        reason="go",
    )
    workspace.publish(plain, actor="bo")
    assert told(workspace) == [
        *(("publish", "page", "bo"), ("publish", "few", "bo"), ("publish", "plain", "bo"))
    ]
    workspace.publish(plain.kill(), actor="cy", reason="enough")
    last = entries(workspace.path)[-1]
    assert (last.actor, last.reason, last.after and last.after["state"]) == (
        *("cy", "enough"),
        "killed",
    )
    workspace.start(plan())
    workspace.act("r", "promote", reason="r", actor="ann")
    workspace.start(plan("next", control="v2", treatment="v3"))
    assert told(workspace)[-2:] == [("superseded", "r", "abkit"), ("start", "next", "abkit")]
    assert verify(workspace.path, items=workspace.standing()).gaps == []


def test_a_look_that_moves_nothing_writes_no_line(workspace: Workspace) -> None:
    started = workspace.start(plan())
    workspace.put(started, expected_version=started.version)
    with pytest.raises(TransitionError):
        workspace.resume("r", reason="r", actor="a")
    assert len(entries(workspace.path)) == 1


def test_reasons_hold_whatever_people_type(workspace: Workspace) -> None:
    workspace.start(plan())
    odd = 'line\n{"sequence":9,"kind":"rollout","key":"r","mac":"0"}\n\udc80 \u2028 "q"'
    workspace.hold("r", reason=odd, actor="a\nb")
    workspace.resume("r", reason="", actor="")
    found = entries(workspace.path)
    assert (len(found), found[1].reason, found[1].actor) == (3, odd, "a\nb")
    assert verify(workspace.path, items=workspace.standing()).gaps == []


def test_the_trail_is_for_its_owner_alone_and_follows_no_link(workspace: Workspace) -> None:
    workspace.start(plan())
    assert log_of(workspace).stat().st_mode & 0o777 == 0o600
    log_of(workspace).rename(workspace.path / "elsewhere")
    log_of(workspace).symlink_to(workspace.path / "elsewhere")
    with pytest.raises(StoreError, match="audit trail"):
        workspace.act("r", "skip", reason="r", actor="a")
    assert workspace.halt("r", reason="r", actor="a").state == "halted"
    assert (workspace.path / "elsewhere").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_is_told_and_never_waited_for(workspace: Workspace, kind: str) -> None:
    workspace.start(plan())
    log = log_of(workspace)
    log.rename(workspace.path / "elsewhere")
    make = {"pipe": os.mkfifo, "link": lambda p: p.symlink_to("../elsewhere"), "folder": os.mkdir}
    make[kind](log)
    assert entries(workspace.path) == []
    with pytest.raises(StoreError, match="audit trail"):
        verify(workspace.path)


# What is found out


def test_any_single_byte_that_is_changed_is_found(workspace: Workspace) -> None:
    content, chance = moved(workspace), random.Random(1)
    for place in range(len(content)):
        other = bytes([content[place] ^ (1 << chance.randrange(8))])
        log_of(workspace).write_bytes(content[:place] + other + content[place + 1 :])
        assert verify(workspace.path).problems, (place, other)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_changed_added_or_taken_are_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABKIT_AUDIT_KEY", KEY)
        workspace = Workspace(tmp_path_factory.getbasetemp() / "tampered")
        kept = workspace.path / "kept"
        content = kept.read_bytes() if kept.exists() else moved(workspace)
        kept.write_bytes(content)
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(begin, min(len(content), begin + 3)))
        new = data.draw(st.binary(max_size=3))
        changed = content[:begin] + new + content[end:]
        log_of(workspace).write_bytes(changed)
        heads = [Head(6, json.loads(content.splitlines()[-1])["mac"])]
        assert verify(workspace.path, keys=KEYS, heads=heads).passed == (changed == content)


def test_lines_removed_moved_or_repeated_are_found_and_named(workspace: Workspace) -> None:
    content = moved(workspace)
    lines = content.splitlines(keepends=True)
    heads = [Head(6, json.loads(lines[-1])["mac"], "my note")]
    for found, words in (
        (lines[:2] + lines[3:], "line 3: entries 3 to 3 before it were removed"),
        (lines[1:], "line 1: entries 1 to 1 before it were removed"),
        (lines[:4], "the tail is cut: my note knows 6 entries, there are 4"),
        ([*lines[:2], lines[3], lines[2], *lines[4:]], "line 4: entry 3 is out of order"),
        ([*lines[:3], lines[2], *lines[3:]], "line 4: entry 3 is out of order, or twice"),
        ([*lines[:3], b"noise\n", *lines[3:]], "line 4 was put in between"),
        ([*lines[:2], b"noise\n", *lines[3:]], "line 3 was changed or damaged"),
        ([], "the tail is cut"),
    ):
        log_of(workspace).write_bytes(b"".join(found))
        problems = verify(workspace.path, heads=heads).problems
        assert any(words in problem for problem in problems), (words, problems)


def test_a_trail_written_anew_by_the_key_holder_shows_against_an_older_head(
    workspace: Workspace, tmp_path: Path
) -> None:
    lines = moved(workspace).splitlines()
    head = Head(3, json.loads(lines[2])["mac"], "the note of Monday")
    other = Workspace(tmp_path / "other")
    moved(other)
    log_of(workspace).write_bytes(log_of(other).read_bytes())
    assert verify(workspace.path).passed
    problems = verify(workspace.path, heads=[head]).problems
    (problem,) = problems
    assert problem.startswith("entry 3 is another than the note of Monday knows")


def test_a_line_signed_with_a_wrong_key_or_none_is_found(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.start(plan())
    monkeypatch.setenv("ABKIT_AUDIT_KEY", "the key of somebody else")
    workspace.hold("r", reason="r", actor="eve")
    monkeypatch.delenv("ABKIT_AUDIT_KEY")
    workspace.resume("r", reason="r", actor="eve")
    problems = verify(workspace.path, keys=KEYS).problems
    assert len(problems) == 2
    assert "line 2 is signed with another key" in problems[0]
    assert "line 3 is not signed" in problems[1]
    with pytest.raises(ConfigError, match="no key to check it with"):
        verify(workspace.path)


def test_without_a_key_accidents_show(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABKIT_AUDIT_KEY")
    content = moved(workspace)
    finding = verify(workspace.path)
    assert (finding.passed, finding.keyed) == (True, False)
    log_of(workspace).write_bytes(content.replace(b'"ann"', b'"bob"', 1))
    assert verify(workspace.path).problems == ["line 2 was changed"]
    # A key that comes later: what is older has to be allowed by number.
    log_of(workspace).write_bytes(content)
    assert len(verify(workspace.path, keys=KEYS).problems) == 6
    assert verify(workspace.path, keys=KEYS, unkeyed_allowed=6).passed


# Keys


def test_a_key_file_is_private_and_lies_elsewhere(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABKIT_AUDIT_KEY")
    path = tmp_path / "key"
    monkeypatch.setenv("ABKIT_AUDIT_KEY_FILE", str(path))
    for content, mode, words in (
        (None, 0, "cannot read"),
        ("k" * 32, 0o644, "can be read by others"),
        ("", 0o600, "is empty"),
        ("short", 0o600, "has 5 characters"),
    ):
        if content is not None:
            path.write_text(content)
            path.chmod(mode)
        with pytest.raises(ConfigError, match=words):
            workspace.start(plan())
    path.write_text("k" * 32)
    workspace.start(plan())
    path.write_text("n" * 32 + "\n" + "k" * 32 + "\n")  # rotated: the newest first
    workspace.hold("r", reason="r", actor="a")
    assert verify(workspace.path).passed
    path.write_text("n" * 32)
    assert len(verify(workspace.path).problems) == 1
    inside = workspace.path / "key"
    path.rename(inside)
    monkeypatch.setenv("ABKIT_AUDIT_KEY_FILE", str(inside))
    with pytest.raises(ConfigError, match="lies in the workspace"):
        verify(workspace.path)
    assert workspace.halt("r", reason="r", actor="a").state == "halted"


# What must not stop a halt, and the gap it leaves


@pytest.mark.parametrize("fault", ["full", "a file", "a folder", "a pipe", "noise", "bad key"])
def test_a_halt_goes_on_without_the_trail_and_the_gap_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    workspace.start(plan())
    log = log_of(workspace)
    content = log.read_bytes()
    with monkeypatch.context() as patch:
        if fault == "full":
            patch.setattr(os, "write", full_disk(log))
        elif fault == "bad key":
            patch.setenv("ABKIT_AUDIT_KEY", "short")
        elif fault == "noise":
            monkeypatch.setattr(abkit.trail.files, "MOST_TAIL", 1 << 16)
            log.write_bytes(os.urandom(1 << 18))
        else:
            log.unlink()
            if fault == "a file":
                log.parent.rmdir()
                log.parent.touch()
            else:
                log.mkdir() if fault == "a folder" else os.mkfifo(log)
        if fault not in ("full", "noise"):  # what cannot even be opened stops what would grow
            with pytest.raises((ConfigError, StoreError)):
                workspace.act("r", "skip", reason="r", actor="a")
            assert workspace.rollout("r").stage_index == 0
        assert workspace.halt("r", reason="enough", actor="ann").state == "halted"
        assert Workspace(workspace.path).rollout("r").state == "halted"
    if fault == "a file":
        log.parent.unlink()
        log.parent.mkdir()
    elif fault in ("a folder", "a pipe"):
        log.rmdir() if fault == "a folder" else log.unlink()
    log.write_bytes(content)
    found = verify(workspace.path, items=workspace.standing())
    assert (found.passed, len(found.gaps)) == (True, 1)
    assert not workspace.mend()  # what the next tick of a controller calls
    last = entries(workspace.path)[-1]
    assert (last.verb, last.actor, last.reason) == (
        *("gap", "ann"),
        "no line was written for it: enough",
    )
    assert last.after is not None
    assert last.after["state"] == "halted"
    found = verify(workspace.path, items=workspace.standing())
    assert (found.passed, len(found.gaps)) == (True, 1)
    assert workspace.mend() is False
    assert len(entries(workspace.path)) == 2


def full_disk(log: Path) -> Any:
    """A disk that takes ten bytes of the trail, and no more."""
    really, left = os.write, [10]

    def write(handle: int, data: Any) -> int:
        if os.path.samestat(os.fstat(handle), log.stat()):
            if not left[0]:
                raise OSError(28, "No space left on device")
            data, left[0] = data[: left[0]], 0
        return really(handle, data)

    return write


def test_a_crash_between_state_and_line_is_mended_by_the_next_line(workspace: Workspace) -> None:
    workspace.start(plan())
    crash = (
        "import os, sys; from abkit.trail import Trail; from abkit.workspace import Workspace\n"
        "Trail.record = lambda *a, **k: os._exit(9)\n"
        "Workspace(sys.argv[1]).hold('r', reason='crashed', actor='bo')\n"
    )
    done = subprocess.run([sys.executable, "-c", crash, workspace.path], check=False)
    assert done.returncode == 9
    workspace.resume("r", reason="go on", actor="ann")
    assert told(workspace) == [("start", "r", "abkit"), ("gap", "r", "bo"), ("resume", "r", "ann")]
    found = verify(workspace.path, items=workspace.standing())
    assert (found.passed, found.gaps) == (
        True,
        ["line 2: rollout r: no line was written for it: crashed"],
    )


def test_a_crash_before_the_line_feed_costs_nothing(workspace: Workspace) -> None:
    workspace.start(plan())
    content = log_of(workspace).read_bytes()
    log_of(workspace).write_bytes(content[:-1])
    workspace.hold("r", reason="r", actor="bo")
    assert log_of(workspace).read_bytes().startswith(content)
    assert told(workspace) == [("start", "r", "abkit"), ("hold", "r", "bo")]
    assert verify(workspace.path, items=workspace.standing()).gaps == []


@pytest.mark.parametrize("left", [1, 40, -2])
def test_a_crash_in_mid_line_is_noted_by_the_next_line(workspace: Workspace, left: int) -> None:
    workspace.start(plan())
    workspace.hold("r", reason="r", actor="bo")
    lines = log_of(workspace).read_bytes().splitlines(keepends=True)
    torn = lines[1][:left]
    log_of(workspace).write_bytes(lines[0] + torn)
    problems = verify(workspace.path).problems
    assert any("cut short" in problem for problem in problems)
    workspace.resume("r", reason="r", actor="ann")
    assert told(workspace) == [("start", "r", "abkit"), ("gap", "r", "bo"), ("resume", "r", "ann")]
    found = verify(workspace.path, items=workspace.standing())
    assert (found.passed, found.gaps[0]) == (True, "line 2: a crash left a line unfinished")
    content = log_of(workspace).read_bytes()
    for changed in (
        content.replace(torn + b"\n", b"", 1),
        content.replace(torn + b"\n", b"{" + torn + b"\n", 1),
    ):
        log_of(workspace).write_bytes(changed)
        assert verify(workspace.path).problems


def operate(path: str, key: str) -> None:
    workspace = Workspace(path)
    for number in range(10):
        workspace.hold(key, reason=f"{number}", actor=key)
        workspace.resume(key, reason=f"{number}", actor=key)


def test_operators_at_once_keep_the_chain(workspace: Workspace) -> None:
    names = ["one", "two", "three"]
    for name in names:
        workspace.start(plan(name, experiment=name))
    context = multiprocessing.get_context("spawn")
    people = [context.Process(target=operate, args=(str(workspace.path), name)) for name in names]
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    found = verify(workspace.path, items=workspace.standing())
    assert (found.problems, found.gaps) == ([], [])
    assert found.head is not None
    assert found.head.count == 3 + 3 * 20
    assert {len(entries(workspace.path, rollout=name)) for name in names} == {21}


# Heads


def test_the_head_file_follows_and_is_never_taken_back(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "head.json"
    monkeypatch.setenv("ABKIT_AUDIT_HEAD", str(path))
    moved(Workspace(tmp_path / "drill", keeps_head=False))
    assert not path.exists()
    content = moved(workspace)
    head = read_head(path)
    assert (head.count, head.hash) == (6, json.loads(content.splitlines()[-1])["mac"])
    # Another workspace, such as the copy of a drill, does not overwrite it.
    moved(Workspace(tmp_path / "copy"))
    assert read_head(path) == head
    # Nor does a trail whose tail was cut, when it goes on.
    log_of(workspace).write_bytes(b"".join(content.splitlines(keepends=True)[:3]))
    workspace.start(plan("next"))
    assert read_head(path) == head
    found = verify(workspace.path, heads=[read_head(path)], items=workspace.standing())
    assert any(
        "knows 6" in problem or "entry 6 is another" in problem for problem in found.problems
    )


def test_a_state_file_changed_by_hand_is_a_gap(workspace: Workspace) -> None:
    workspace.start(plan())
    workspace.publish(Experiment.create("plain", {"a": 1.0}, salt="x"))
    path = workspace.path / "rollouts" / "r.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 7'))
    other = workspace.path / "experiments" / "plain.json"
    other.write_text(other.read_text().replace('"salt": "x"', '"salt": "y"'))
    gaps = verify(workspace.path, items=Workspace(workspace.path).standing()).gaps
    assert [gap.split(" stands")[0] for gap in gaps] == ["rollout r", "experiment plain"]


def test_a_workspace_from_before_the_trail_is_written_down_once(workspace: Workspace) -> None:
    workspace.start(plan())
    log_of(workspace).unlink()
    for _ in range(3):
        Workspace(workspace.path).mend()
    assert told(workspace) == [("gap", "r", "abkit")]


def test_lines_that_are_none_are_not_parsed() -> None:
    good = KEYS.sealed(entries_of_one(), "0" * 64)[0].rstrip(b"\n")
    assert parse(good) is not None
    for bad in (b"", b"{}", good[:-1], good + b" ", good.replace(b'"key"', b'"kez"', 1), b"[" * 9):
        assert parse(bad) is None
    for old, new in ((b'"sequence":1', b'"sequence":"1"'), (b'"before":null', b'"before":3')):
        assert parse(good.replace(old, new)) is None


def entries_of_one() -> Any:
    from abkit.trail import Entry

    return Entry(1, 0.0, "a", "start", "rollout", "r", None, None)
