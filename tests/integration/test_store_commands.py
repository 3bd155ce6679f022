"""rebuild, reconcile, compact, retain and forget, as a person types them."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import duckdb
import pytest

from abkit.cli import main
from abkit.experiment import Experiment
from abkit.log import SegmentWriter
from abkit.rollout import Rollout
from abkit.store.forget import pending
from abkit.store.ingest import Ingester
from abkit.store.reader import StoreReader
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0
UNIT = "Jürgen 'the unit'"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Ten days of events, sealed and loaded; every tenth unit is to be forgotten."""
    workspace = Workspace(tmp_path / "ws")
    workspace.publish(
        Experiment.create("ranker", {"old": 0.5, "new": 0.5}, overrides={UNIT: "new"})
    )
    write(workspace, days=10)
    ingest(workspace)
    return workspace


def write(workspace: Workspace, *, days: float, experiment: str = "ranker") -> None:
    now = time.time()
    with SegmentWriter(workspace.log_path, segment_bytes=20_000) as writer:
        for number in range(400):
            at = now - days * DAY * (1 - number / 400)
            unit = UNIT if number % 10 == 0 else f"unit-{number}"
            writer.append(("e", at, experiment, unit, "new", 1), experiment, "new")
            writer.append(("o", at, unit, "clicks", 1.0, "", ""))
        writer.append((), experiment, "new")
        writer.append(("odd", UNIT))


def ingest(workspace: Workspace) -> None:
    with Ingester(workspace) as ingester:
        ingester.ingest()
        ingester.publish()


def test_reconcile_accounts_for_every_event(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    assert main(["reconcile", path]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == [
        *("writer", "accepted", "stored", "dropped", "quarantined"),
        *("removed", "waiting", "unexplained"),
    ]
    assert shown[2].split("\t") == ["all", "802", "800", "1", "1", "0", "0", "0"]
    assert "ranker\tnew\t400\t1\t0\t0" in shown
    assert shown[-1] == "every event is explained"
    write(workspace, days=1)
    assert main(["reconcile", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["balanced"] is True
    assert found["total"]["waiting"] == 801
    assert found["total"]["accepted"] == 1_604
    assert "<table>" in reconcile(path)._repr_html_()


def test_reconcile_says_when_events_are_gone(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workspace, days=1)
    newest = max(workspace.log_path.glob("*"), key=lambda folder: folder.stat().st_mtime)
    sorted(newest.glob("*.seg"))[1].unlink()
    ingest(workspace)
    assert main(["reconcile", str(workspace.path)]) == 1
    assert "events are unexplained" in capsys.readouterr().out
    (writer,) = [w for w in StoreReader(workspace.path).writers() if w.unexplained]
    assert writer.writer == newest.name


def test_rebuild_compares_and_swaps(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    assert main(["rebuild", path, "--check"]) == 0
    shown = capsys.readouterr().out
    assert "exposure\told 400 " in shown
    assert "800 events; old and new are equal" in shown
    with duckdb.connect(workspace.store_path / "abkit.duckdb") as connection:
        connection.execute("DELETE FROM exposure WHERE sequence < 20")
    assert main(["rebuild", path, "--check"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out
    assert main(["rebuild", path]) == 0
    assert "the old store is kept as abkit.duckdb.unequal-" in capsys.readouterr().out
    assert main(["rebuild", path, "--check"]) == 0
    assert reconcile(path).balanced


def test_compact_moves_old_segments_to_parquet_that_any_tool_reads(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    assert main(["compact", path]) == 0
    assert "archived 0 segments" in capsys.readouterr().out  # sealed just now
    assert main(["compact", path, "--older-than", "0"]) == 0
    assert "800 events" in capsys.readouterr().out
    assert list(workspace.log_path.glob("*/*.seg")) == []
    files = str(workspace.path / "archive" / "exposure" / "*" / "*.parquet")
    query = "SELECT count(*), count(DISTINCT date), count(DISTINCT unit_id) FROM read_parquet($1)"
    (row,) = duckdb.execute(query, [files]).fetchall()
    assert row[0] == 400
    assert row[1] in (10, 11)
    for file in (workspace.path / "archive").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file
    assert main(["rebuild", path, "--check"]) == 0
    assert reconcile(path).balanced
    write(workspace, days=1)
    ingest(workspace)
    assert main(["compact", path, "--older-than", "0"]) == 0
    assert main(["rebuild", path]) == 0
    assert reconcile(path).total.stored == 1_600


def test_retain_takes_what_is_old_and_says_so(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    assert main(["retain", path, "--days", "5.01", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("400 events would expire; 0 archived files")
    assert reconcile(path).total.stored == 800
    assert main(["retain", path, "--days", "5.01"]) == 0
    assert capsys.readouterr().out.startswith("400 events expired")
    total = reconcile(path).total
    assert (total.stored, total.removed, total.unexplained) == (400, 400, 0)
    assert main(["rebuild", path, "--check"]) == 0
    assert main(["retain", path, "--days", "5.01"]) == 0
    assert "\n0 events expired" in capsys.readouterr().out
    assert main(["retain", path, "--days", "0"]) == 2
    assert main(["retain", path, "--days", "nan"]) == 2


def test_retain_spares_a_live_rollout(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    long_ago = Workspace(workspace.path, clock=lambda: time.time() - 8 * DAY)
    long_ago.start(Rollout.plan("live-v2", experiment="live", control="old", treatment="new"))
    write(workspace, days=10, experiment="live")
    ingest(workspace)
    assert main(["retain", path, "--days", "5.01"]) == 0
    shown = capsys.readouterr().out
    # All exposures of "live", and outcomes since its start, which name no experiment.
    assert "old events stay for live rollouts of live" in shown
    with duckdb.connect(workspace.store_path / "abkit.duckdb", read_only=True) as connection:
        query = "SELECT experiment, count(*) FROM exposure GROUP BY 1 ORDER BY 1"
        assert connection.execute(query).fetchall() == [("live", 400), ("ranker", 200)]
        (outcomes,) = connection.execute("SELECT count(*) FROM outcome").fetchone() or (0,)
        assert 636 <= outcomes <= 644
    assert main(["retain", path, "--days", "5.01", "--force"]) == 0
    assert reconcile(path).total.stored == 800
    assert reconcile(path).balanced
    assert main(["rebuild", path, "--check"]) == 0


@pytest.mark.parametrize("is_archived", [False, True])
def test_forget_leaves_no_byte_of_a_unit(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], *, is_archived: bool
) -> None:
    path = str(workspace.path)
    rollout = Rollout.plan("v2", experiment="next", control="old", treatment="new")
    overrides = {UNIT: "old", "another": "old"}
    workspace.start(Rollout.from_dict(_with_overrides(rollout.to_dict(), overrides)))
    write(workspace, days=1, experiment="next")
    assert main(["controller", path, "--once"]) == 0  # a decision that holds the rollout's state
    if is_archived:
        assert main(["compact", path, "--older-than", "0"]) == 0
        write(workspace, days=1)
    assert found_in(workspace)
    capsys.readouterr()
    assert main(["forget", path, UNIT]) == 0
    shown = capsys.readouterr().out
    assert "override removed\trollout v2" in shown
    assert "override removed\texperiment ranker" in shown
    assert "left\t" not in shown
    assert found_in(workspace) == []
    snapshot = workspace.snapshot()
    assert snapshot is not None
    assert snapshot.experiments["next"].overrides == {"another": "old"}
    assert snapshot.experiments["ranker"].overrides == {}
    assert reconcile(path).balanced
    assert main(["rebuild", path, "--check"]) == 0
    assert main(["controller", path, "--once"]) == 0
    assert StoreReader(path).decisions("v2")
    assert found_in(workspace) == []
    capsys.readouterr()
    assert main(["forget", path, UNIT]) == 0
    assert capsys.readouterr().out.startswith("nothing of this unit was found")


def _with_overrides(data: dict[str, object], overrides: dict[str, str]) -> dict[str, object]:
    experiment = data["experiment"]
    assert isinstance(experiment, dict)
    return {**data, "experiment": {**experiment, "overrides": overrides}}


def found_in(workspace: Workspace) -> list[str]:
    """Files with the unit's bytes, as grep finds them; as it stands, and as JSON escapes it."""
    words = [UNIT, json.dumps(UNIT)[1:-1], "rgen 'the unit'"]
    command = ["grep", "-rlaF", *(part for word in words for part in ("-e", word))]
    done = subprocess.run([*command, str(workspace.path)], capture_output=True, check=False)
    return done.stdout.decode().split("\n")[:-1]


def test_a_segment_that_is_being_written_is_finished_once_it_is_sealed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    with SegmentWriter(workspace.log_path) as writer:
        writer.append(("e", 1.7e9, "ranker", UNIT, "new", 1))
        assert main(["forget", path, UNIT]) == 1
        assert "is still being written" in capsys.readouterr().out
        assert pending(workspace.path) == {UNIT: "unsealed"}
        names = sorted(name.rpartition(".")[2] for name in found_in(workspace))
        assert names == ["json", "open"]
        assert reconcile(path).balanced
        assert main(["rebuild", path, "--check"]) == 0
        assert main(["forget", path, "--pending"]) == 1
    assert main(["forget", path, "--pending"]) == 0
    assert found_in(workspace) == []
    assert pending(workspace.path) == {}
    capsys.readouterr()
    assert main(["forget", path, "--pending"]) == 0
    assert capsys.readouterr().out == "nothing is pending\n"
    assert reconcile(path).balanced
    assert main(["rebuild", path, "--check"]) == 0


def test_the_next_ingester_finishes_what_is_pending(workspace: Workspace) -> None:
    with SegmentWriter(workspace.log_path) as writer:
        writer.append(("e", 1.7e9, "ranker", UNIT, "new", 1))
        assert main(["forget", str(workspace.path), UNIT]) == 1
        ingest(workspace)
        assert pending(workspace.path)
    ingest(workspace)
    assert found_in(workspace) == []
    assert not pending(workspace.path)
    assert reconcile(workspace.path).balanced


def test_forget_wants_a_unit_or_pending(workspace: Workspace) -> None:
    path = str(workspace.path)
    assert main(["forget", path]) == 2
    assert main(["forget", path, UNIT, "--pending"]) == 2
    assert main(["forget", path, ""]) == 2


def test_commands_that_write_refuse_beside_a_controller(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    with Ingester(workspace):
        for command in (["rebuild"], ["compact"], ["retain", "--days", "1"], ["forget", "u"]):
            assert main([command[0], path, *command[1:]]) == 2
            assert "stop it first" in capsys.readouterr().err
        assert main(["reconcile", path]) == 0


def test_what_is_no_workspace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["rebuild"], ["reconcile"], ["compact"], ["retain", "--days", "1"]):
        assert main([command[0], str(tmp_path), *command[1:]]) == 2
        assert "no workspace" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
