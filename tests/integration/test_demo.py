"""`abkit demo --fast --json`, run as a newcomer runs it: nothing scripted decides the outcome."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abkit.judge import replay
from abkit.store.reader import StoreReader
from abkit.trail import AUDIT, Head, verify
from abkit.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "workspace"


@pytest.fixture(scope="module")
def summary(workspace: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "abkit.cli", "demo", "--fast", "--json"]
    command += ["--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_acts_end_halted_promoted_and_rolled_back(summary: dict[str, Any]) -> None:
    assert [act["state"] for act in summary["acts"]] == ["halted", "promoted", "rolled_back"]


def test_every_accepted_event_is_stored(summary: dict[str, Any], workspace: Path) -> None:
    events = summary["events"]
    assert events["serving_processes"] >= 2
    assert events["accepted"] == events["stored"] > 10_000
    looks = sum(act["looks"] for act in summary["acts"])
    heads = len(StoreReader(workspace).decisions(AUDIT))
    assert heads >= 3
    assert events["accepted_by_serving"] == events["accepted"] - looks - heads


def test_the_audit_trail_is_whole(summary: dict[str, Any], workspace: Path) -> None:
    heads = [Head(item["count"], item["hash"]) for item in StoreReader(workspace).decisions(AUDIT)]
    found = verify(workspace, heads=heads, items=Workspace(workspace).standing())
    assert (found.problems, found.gaps) == ([], [])


def test_nothing_was_lost_on_the_way(summary: dict[str, Any]) -> None:
    events = summary["events"]
    assert events["dropped"] == events["quarantined"] == events["unexplained"] == 0


def test_the_reasons_are_the_models_own(summary: dict[str, Any]) -> None:
    first, second, third = summary["acts"]
    assert "wrong is worse in treatment" in first["reason"]
    assert "wrong: not worse by 0.01 is shown" in second["reason"]
    assert "latency_ms: better than control is shown" in second["reason"]
    assert "failed breaks its limit" in third["reason"]
    latency = next(item for item in second["evidence"] if item["metric"] == "latency_ms")
    assert latency["upper"] < -1.0  # in log units: at least 2.7 times faster
    assert first["back_seconds"] < 2.0
    assert third["back_seconds"] < 2.0


def test_what_is_asked_over_http_says_the_same(summary: dict[str, Any]) -> None:
    answers = [act["answer"] for act in summary["acts"]]
    assert [item["action"] for item in answers] == ["halt", "promote", "halt"]
    assert [item["code"] for item in answers] == [-1, 2, -1]
    assert [item["weight"] for item in answers] == [0, 100, 0]
    assert [item["state"] for item in answers] == ["halted", "promoted", "rolled_back"]


def test_all_decisions_replay_to_the_bit(summary: dict[str, Any], workspace: Path) -> None:
    for act in summary["acts"]:
        records = StoreReader(workspace).decisions(act["rollout"])
        assert len(records) == act["looks"] > 0
        assert replay(records) == []


def test_a_folder_in_use_is_refused(summary: dict[str, Any], workspace: Path) -> None:
    command = [sys.executable, "-m", "abkit.cli", "demo", "--fast", "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is not empty" in done.stderr


def test_ctrl_c_ends_the_demo_quietly_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "interrupted"
    command = [sys.executable, "-m", "abkit.cli", "demo", "--fast", "--workspace", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:  # the workers serve once the first act is announced
        if "Act 1" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(folder).encode() in line for line in lines)
