"""`abkit doctor` on workspaces that are well, and with one thing wrong in each."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from abkit.cli import main
from abkit.client import Client
from abkit.controller import Controller
from abkit.errors import ConfigError
from abkit.events import Exposure
from abkit.log import SegmentWriter
from abkit.rollout import Rollout
from abkit.store.compact import compact
from abkit.store.connect import STORE
from abkit.store.ingest import Ingester
from abkit.store.publish import PUBLISHED
from abkit.trust import diagnose
from abkit.trust.rules import LOOKS
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from abkit.check import Check


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A live rollout, events in the store, and no controller."""
    path = tmp_path / "workspace"
    workspace = Workspace(path)
    workspace.start(Rollout.plan("v2", experiment="ranker", control="old", treatment="new"))
    serve(path, 30)
    with Controller(workspace) as controller:
        controller.tick()
    return path


@pytest.fixture
def controlled(space: Path) -> Iterator[Path]:
    """The same, with a controller that runs."""
    with Controller(Workspace(space)) as controller:
        controller.tick()
        yield space


def serve(path: Path, units: int, *, start: int = 0) -> None:
    with Client(path) as client:
        for number in range(start, start + units):
            client.expose(client.assign("ranker", f"user-{number}"))


def found(path: Path, name: str, **options: Any) -> list[Check]:
    return [item for item in diagnose(path, **options) if item.id == name]


def worst(path: Path, name: str, **options: Any) -> Check:
    order = {"info": 0, "warn": 1, "block": 2}
    return max(found(path, name, **options), key=lambda item: order[item.severity])


def test_a_workspace_that_is_well_has_nothing_to_complain_of(controlled: Path) -> None:
    checks = diagnose(controlled, is_deep=True)
    odd = [item for item in checks if item.severity != "info" and item.id != "disk"]
    assert not odd
    assert {item.id for item in checks} == {look.id for look in LOOKS}
    assert all(item.explanation and item.remedy for item in checks)


def test_a_folder_that_is_no_workspace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no workspace"):
        diagnose(tmp_path)
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2


def test_nothing_in_the_workspace_is_touched(space: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(space.rglob("*"))}

    before = state()
    diagnose(space, is_deep=True)
    assert state() == before


def test_a_live_rollout_without_a_controller_blocks(space: Path) -> None:
    check = worst(space, "controller")
    assert (check.severity, check.evidence["live"]) == ("block", ["v2"])


def test_a_running_controller_is_seen_and_not_disturbed(controlled: Path) -> None:
    assert worst(controlled, "controller").evidence["running"] is True
    assert "in use" in found(controlled, "store")[0].text


def test_a_damaged_or_absent_snapshot_blocks(space: Path) -> None:
    path = space / "snapshot.json"
    path.write_text(path.read_text().replace("ranker", "rankle", 1))
    assert worst(space, "snapshot").severity == "block"
    path.unlink()
    assert worst(space, "snapshot").severity == "block"


def test_a_snapshot_behind_its_state_files_warns(space: Path) -> None:
    old = (space / "snapshot.json").read_bytes()
    Workspace(space).act("v2", "skip", reason="a test", actor="test")
    (space / "snapshot.json").write_bytes(old)
    check = worst(space, "snapshot")
    assert check.severity == "warn"
    assert check.evidence["behind"] == ["v2"]


def test_writers_that_live_and_those_that_hang_are_told_apart(controlled: Path) -> None:
    event = Exposure(time.time(), "ranker", "unit", "old", 1).to_record()
    with (
        SegmentWriter(controlled / "log") as hung,
        SegmentWriter(controlled / "log") as busy,
    ):
        hung.append(event, "ranker", "old")
        segments = {*controlled.glob("log/*/*.open")}
        for path in segments:
            os.utime(path, (time.time() - 3_000,) * 2)
        busy.append(event, "ranker", "old")
        check = worst(controlled, "writers")
        assert check.severity == "warn"
        assert check.evidence["alive"] >= 2
        assert "silent while others write" in check.text


def test_events_that_wait_are_counted(space: Path) -> None:
    serve(space, 12, start=100)
    assert worst(space, "ingestion_lag").evidence["waiting"] == 12
    late = worst(space, "ingestion_lag", clock=lambda: time.time() + 120.0)
    assert late.severity == "warn"


def test_drops_are_told_by_reason(space: Path) -> None:
    writer = SegmentWriter(space / "log")
    for _ in range(5):
        writer._journal.losses.add("ranker", "new", "queue_full")
    writer.append(Exposure(time.time(), "ranker", "u", "old", 1).to_record(), "ranker", "old")
    writer.close()
    with Controller(Workspace(space)) as controller:
        controller.tick()
    check = worst(space, "drops")
    assert check.severity == "warn"
    assert check.evidence["reasons"] == {"queue_full": 5}


def test_damaged_bytes_are_told(space: Path) -> None:
    serve(space, 10, start=200)
    (path,) = (p for p in space.glob("log/*/*") if b"user-205" in p.read_bytes())
    content = path.read_bytes()
    at = content.index(b"user-205")
    path.write_bytes(content[:at] + b"XXXX" + content[at + 4 :])
    with Controller(Workspace(space)) as controller:
        controller.tick()
    check = worst(space, "quarantine")
    assert check.severity == "warn"
    assert check.evidence["quarantined"] >= 1


def test_events_of_the_future_are_told(space: Path) -> None:
    def ahead() -> float:
        return time.time() + 3_600

    with SegmentWriter(space / "log", clock=ahead) as writer:
        writer.append(Exposure(ahead(), "ranker", "u", "old", 1).to_record(), "ranker", "old")
    with Controller(Workspace(space)) as controller:
        controller.tick()
    check = worst(space, "clock_skew")
    assert (check.severity, check.evidence["ahead"]) == ("warn", 1)


@pytest.mark.parametrize("name", [STORE, PUBLISHED])
def test_a_damaged_store_warns_and_the_rest_is_looked_at(space: Path, name: str) -> None:
    (space / "store" / name).write_bytes(b"no database" * 1_000)
    checks = diagnose(space)
    assert any(item.id == "store" and item.severity == "warn" for item in checks)
    assert {item.id for item in checks} >= {"audit_trail", "archive", "writers", "controller"}


def test_a_store_that_is_gone_is_no_reason_to_fail(space: Path) -> None:
    for path in (space / "store").iterdir():
        path.unlink()
    checks = diagnose(space)
    assert next(item for item in checks if item.id == "store").severity == "info"
    assert worst(space, "ingestion_lag").severity == "warn"


def test_a_missing_archived_file_blocks(space: Path) -> None:
    with Ingester(Workspace(space)) as ingester:
        compact(ingester)
    assert worst(space, "archive").severity == "info"
    path = next(space.glob("archive/**/*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert worst(space, "archive").severity == "info"  # its bytes are read with --deep alone
    assert worst(space, "archive", is_deep=True).severity == "block"
    path.unlink()
    assert worst(space, "archive").severity == "block"


def test_a_trail_that_was_tampered_with_blocks(space: Path) -> None:
    path = space / "audit" / "log.jsonl"
    path.write_text(path.read_text().replace("v2", "v3", 1))
    assert worst(space, "audit_trail").severity == "block"


def test_messages_that_wait_too_long_are_told(space: Path) -> None:
    folder = space / "notify" / "outbox" / "chat"
    folder.mkdir(mode=0o700, parents=True)
    path = folder / "1.json"
    path.write_text(json.dumps({"since": time.time() - 3_600}))
    path.chmod(0o600)
    check = worst(space, "outbox")
    assert (check.severity, check.evidence["waiting"]) == ("warn", 1)


def test_rollouts_that_wait_for_a_person_are_told(space: Path) -> None:
    late = worst(space, "rollouts", clock=lambda: time.time() + 40 * 86_400)
    assert "longer than its policy's" in late.text
    Workspace(space).hold("v2", reason="lunch", actor="test")
    assert "on hold" in worst(space, "rollouts").text
    (space / "rollouts" / "v2.json").write_text("{")
    assert worst(space, "rollouts").severity == "block"


def test_files_that_others_may_read_are_told(space: Path) -> None:
    (space / "snapshot.json").chmod(0o644)
    (space / "link").symlink_to(space / "snapshot.json")
    check = worst(space, "permissions")
    assert (check.severity, check.evidence) == ("warn", {"open": 1, "links": 1})
    assert "snapshot.json (644)" in check.text


def test_a_full_disk_blocks(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from abkit.trust import files

    monkeypatch.setattr(files.shutil, "disk_usage", lambda _path: (10**12, 10**12 - 10**7, 10**7))
    assert worst(space, "disk").severity == "block"


def test_the_command_exits_with_1_where_something_blocks(
    space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(space)]) == 1
    assert "BLOCK" in capsys.readouterr().out
    assert main(["doctor", str(space), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["severity"] for row in rows} >= {"block", "info"}
    Workspace(space).halt("v2", reason="a test", actor="test")
    with Controller(Workspace(space)) as controller:
        controller.tick()
    assert main(["doctor", str(space)]) == 0
    (space / "snapshot.json").chmod(0o644)
    assert main(["doctor", str(space)]) == 0
    assert main(["doctor", str(space), "--strict"]) == 1
