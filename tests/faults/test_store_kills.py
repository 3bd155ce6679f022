"""SIGKILL in the middle of rebuild, compact, retain and forget: at every moment all adds up."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import time
from contextlib import closing
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pytest

from abkit.experiment import Experiment
from abkit.log import SegmentWriter
from abkit.store.compact import compact
from abkit.store.forget import PENDING, forget
from abkit.store.ingest import Ingester
from abkit.store.rebuild import rebuild
from abkit.store.reconcile import reconcile
from abkit.store.retention import retain
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

KILLS = 16
NOW = 1_700_000_000.0
DAY = 86_400.0
UNIT = "unit-to-be-forgotten"
OLD_DAYS = 1.5

Row = tuple[Any, ...]
Rows = set[Row]

# A process from which fresh ones are forked: Python and DuckDB are loaded only once.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["abkit.store.ingest", "abkit.store.rebuild", "abkit.store.forget"])


def clock() -> float:
    return NOW


def do_rebuild(workspace: Workspace) -> None:
    rebuild(workspace, clock=clock)


def do_compact(workspace: Workspace) -> None:
    with Ingester(workspace, clock=clock) as ingester:
        compact(ingester)
        ingester.publish()


def do_retain(workspace: Workspace) -> None:
    with Ingester(workspace, clock=clock) as ingester:
        retain(ingester, OLD_DAYS)
        ingester.publish()


def do_forget(workspace: Workspace) -> None:
    with Ingester(workspace, clock=clock) as ingester:
        forget(ingester, UNIT)


COMMANDS = {
    "rebuild": do_rebuild,
    "compact": do_compact,
    "retain": do_retain,
    "forget": do_forget,
}


def child(name: str, path: str, pipe: Connection) -> None:
    pipe.send("go")
    COMMANDS[name](Workspace(path, clock=clock))
    pipe.send("done")


def run_and_kill(name: str, path: Path, delay: float | None) -> float | None:
    """Run a command in a process of its own and kill it.

    Returns:
        Seconds that it took, if it had been done by then.
    """
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=child, args=(name, os.fspath(path), theirs))
    process.start()
    theirs.close()
    with closing(ours):
        assert ours.recv() == "go"
        started = time.monotonic()
        is_done = ours.poll(60.0 if delay is None else delay) and ours.recv() == "done"
        took = time.monotonic() - started
        process.kill()
        process.join()
    process.close()
    return took if is_done else None


def fill(workspace: Workspace) -> None:
    """Three writers, sealed segments, losses, events of no use, decisions, three days."""
    workspace.publish(Experiment.create("ranker", {"old": 1.0}, overrides={UNIT: "old"}))
    for number in range(3):
        writer = SegmentWriter(workspace.log_path, segment_bytes=6_000, clock=clock)
        for i in range(300):
            unit = UNIT if i % 20 == 7 else f"unit-{i % 60}"
            at = NOW - 3 * DAY + i * 3 * DAY / 300
            writer.append(("e", at, "ranker", unit, "new", 1), "ranker", "new")
            writer.append(("o", at + 1, unit, "clicks", i / 7, "", ""))
            if i % 100 == 50:
                writer.append((), "ranker", "old")
                writer.append(("zz", unit))
                record = {"rollout": "v2", "look": i, "state": {"overrides": {UNIT: "old"}}}
                writer.append(("d", at, "v2", i, json.dumps(record)))
        if number:
            writer.close()  # the other one's segment stays open: in a copy, its writer is dead


def rows(ingester: Ingester) -> Rows:
    found = ingester.connection.execute(
        "SELECT writer, sequence, time, unit_id, experiment || variant FROM exposure UNION ALL "
        "SELECT writer, sequence, time, unit_id, metric || value FROM outcome UNION ALL "
        "SELECT writer, sequence, time, '', rollout || look FROM decision"
    ).fetchall()
    assert len(set(found)) == len(found), "each once"
    return set(found)


class Bench:
    """A filled workspace that every round begins from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "template", clock=clock)
        fill(self.workspace)
        with Ingester(self.workspace, clock=clock) as ingester:
            ingester.ingest()
            ingester.publish()
            self.rows = rows(ingester)
        self.accepted = reconcile(self.workspace.path).total.accepted
        self.kept = {row for row in self.rows if row[3] != UNIT}
        edge = NOW - OLD_DAYS * DAY
        self.young = {
            row for row in self.rows if not row[3] or row[2].replace(tzinfo=UTC).timestamp() >= edge
        }
        assert len(self.young) < len(self.rows)

    def copy(self, name: str) -> Workspace:
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.workspace.path, target)
        return Workspace(target, clock=clock)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("kills"))


def killed_again_and_again(
    bench: Bench, name: str, after_each: Callable[[Workspace], None]
) -> Workspace:
    """Kill a command at random moments of its work, a third of the time on what a kill left."""
    dice = random.Random(f"kill {name}")
    workspace = bench.copy(name)
    took = run_and_kill(name, workspace.path, None)
    assert took is not None
    workspace = bench.copy(name)
    cut = 0
    for round_number in range(KILLS):
        if round_number % 3 == 0:
            workspace = bench.copy(name)
        cut += run_and_kill(name, workspace.path, dice.uniform(0.0, took)) is None
        found = reconcile(workspace.path)
        assert found.balanced, found.total
        assert found.total.accepted == bench.accepted
        after_each(workspace)
    print(f"{name}: {cut} of {KILLS} runs cut off, within {took:.2f} s")  # noqa: T201 - the figures are wanted
    assert cut > 0
    return workspace


def check(bench: Bench, workspace: Workspace, *allowed: Rows) -> None:
    """The store opens, holds one of the sets of rows, and a rebuilt one is equal."""
    with Ingester(workspace, clock=clock) as ingester:
        ingester.ingest()
        found = rows(ingester)
        ingester.publish()
    assert found in allowed, sorted(len(found ^ rows) for rows in allowed)
    balance = reconcile(workspace.path)
    assert balance.balanced, balance
    assert balance.total.accepted == bench.accepted
    result = rebuild(workspace, check=True, clock=clock)
    assert result.equal, [item for item in result.tables if not item.equal]
    leftovers = [
        path.name
        for path in workspace.path.rglob("*")
        if "draft" in path.name or path.name.startswith((".rewrite", ".published"))
    ]
    assert leftovers == []


def test_a_killed_rebuild_leaves_the_old_store_or_the_new_one(bench: Bench) -> None:
    workspace = killed_again_and_again(bench, "rebuild", lambda ws: check(bench, ws, bench.rows))
    assert list(workspace.store_path.glob("*unequal*")) == []


def test_a_killed_compaction_loses_and_doubles_nothing(bench: Bench) -> None:
    workspace = killed_again_and_again(bench, "compact", lambda ws: check(bench, ws, bench.rows))
    do_compact(workspace)
    check(bench, workspace, bench.rows)
    assert list(workspace.log_path.glob("*/*.seg")) == []


def test_killed_retention_takes_all_that_is_old_or_nothing(bench: Bench) -> None:
    workspace = killed_again_and_again(
        bench, "retain", lambda ws: check(bench, ws, bench.rows, bench.young)
    )
    do_retain(workspace)
    check(bench, workspace, bench.young)


def test_a_killed_erasure_is_finished_by_the_next_ingester(bench: Bench) -> None:
    def after(workspace: Workspace) -> None:
        begun = (workspace.path / PENDING).exists()
        check(bench, workspace, bench.kept, *([] if begun else [bench.rows]))
        if begun:
            assert not (workspace.path / PENDING).exists()
            assert where(workspace.path) == []

    killed_again_and_again(bench, "forget", after)


def test_an_archived_unit_is_erased_through_kills_too(bench: Bench) -> None:
    dice = random.Random("archived")
    archived = bench.copy("archived")
    do_compact(archived)
    for number in range(KILLS):
        workspace = Workspace(bench.folder / f"archived-{number}", clock=clock)
        shutil.copytree(archived.path, workspace.path)
        run_and_kill("forget", workspace.path, dice.uniform(0.0, 0.7))
        assert reconcile(workspace.path).balanced
        run_and_kill("forget", workspace.path, None)
        check(bench, workspace, bench.kept)
        assert where(workspace.path) == []
        shutil.rmtree(workspace.path)


def where(folder: Path) -> list[Path]:
    """Files with the unit's bytes."""
    return [p for p in folder.rglob("*") if p.is_file() and UNIT.encode() in p.read_bytes()]
