"""SIGKILL of the controller at random moments of a rollout: nothing about it comes out otherwise.

A rollout is recorded once, batch by batch, with a controller that nobody disturbs. Then the same
batches are put into the log of fresh workspaces, one when the one before has been looked at, and
the controller's process is killed and started again at random moments in between.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from abkit.client import Client
from abkit.controller import Controller
from abkit.judge import replay
from abkit.rollout import Rollout, Stage
from abkit.snapshot import write_atomically
from abkit.store.reader import StoreReader
from abkit.store.reconcile import reconcile
from abkit.trail import verify
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from conftest import Account

START: Final = 1_700_000_000.0
BATCH_SECONDS: Final = 300.0
BATCH: Final = 300
SECONDS: Final = 120.0
KEY: Final = "ranker-v2"
CHECKPOINT_LOOKS: Final = 3
KILLS: Final = 8
MANY_KILLS: Final = 50
HUNTED: Final = 0.6

# A process from which fresh ones are forked: Python and DuckDB are loaded only once.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["abkit.controller"])


def plan() -> Rollout:
    stages = (
        Stage(name="10 %", share=0.1, min_units=50),
        Stage(name="50 %", share=0.5, min_units=200),
    )
    return Rollout.plan(
        KEY, experiment="ranker", control="old", treatment="new", salt="fixed", stages=stages
    )


# Error rates by batch, until the rollout is over.
STORIES: Final = {
    "turns bad at 50 %": lambda batch: {"old": 0.05, "new": 0.05 if batch < 5 else 0.2},
    "gets better": lambda _: {"old": 0.3, "new": 0.2},
}
ENDS: Final = {"turns bad at 50 %": "halted", "gets better": "promoted"}


class Clock:
    """The moment of the batch that is being looked at."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Recorded:
    """A rollout as it went undisturbed.

    Args:
        batches: folders of writers, each with the events of one batch.
        times: moment of the look at each batch.
        told: what is compared.
    """

    batches: list[Path] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)


def essence(record: dict[str, Any]) -> dict[str, Any]:
    """All of a decision but its number, and ids that name the processes that wrote the log."""
    names = ("time", "stage", "share", "action", "reason", "evidence", "alarms", "state")
    return {name: record[name] for name in (*names, "observation")}


def outcome(workspace: Workspace) -> dict[str, Any]:
    """How a rollout went: where it stands, its allocations, and each decision once.

    A controller that was killed between writing down and moving on looks again: at the same
    moment it sees the same and says the same, or, if it had moved on, that it waits.
    """
    records = StoreReader(workspace.path).decisions(KEY)
    assert replay(records) == []
    assert [record["look"] for record in records] == list(range(1, len(records) + 1))
    kept: list[dict[str, Any]] = []
    for record in records:
        said = essence(record)
        if not kept or said["time"] != kept[-1]["time"]:
            kept.append(said)
        elif said != kept[-1]:
            assert said["action"] == "continue", said["reason"]
            assert said["state"] == record["rollout_state"]["state"]
    rollout = workspace.rollout(KEY).to_dict()
    rollout.pop("looks")
    snapshot = workspace.snapshot()
    assert snapshot is not None
    served = {key: item.to_dict() for key, item in snapshot.experiments.items()}
    return json.loads(json.dumps({"rollout": rollout, "decisions": kept, "served": served}))


def record(folder: Path, story: str) -> Recorded:
    """Serve batch after batch and look at each, with nothing in the way."""
    clock, found, dice = Clock(), Recorded(), np.random.default_rng(11)
    workspace = Workspace(folder / "undisturbed", clock=clock)
    workspace.create()
    workspace.start(plan())
    with Controller(workspace, clock=clock) as controller:
        while workspace.rollout(KEY).live:
            assert len(found.batches) < 60, "no end"
            with Client(workspace.path, poll_seconds=0.0, clock=clock) as ab:
                for number in range(BATCH):
                    unit = f"unit-{len(found.batches)}-{number}"
                    assigned = ab.assign("ranker", unit)
                    ab.expose(assigned)
                    rate = STORIES[story](len(found.batches))[assigned.variant]
                    ab.record(unit, "error", float(dice.random() < rate))
                writer = ab.health().events.writer_id
            kept = folder / "batches" / str(len(found.batches))
            shutil.copytree(workspace.log_path / writer, kept / writer)
            found.batches.append(kept / writer)
            clock.now += BATCH_SECONDS
            found.times.append(clock.now)
            assert len(controller.tick().taken) == 1
    found.told = outcome(workspace)
    return found


def work(path: str, orders: str) -> None:
    """The controller's process: one tick for each batch that it is told of."""
    clock, seen, order = Clock(), -1, Path(orders)
    workspace = Workspace(path, clock=clock)
    with Controller(workspace, clock=clock, checkpoint_looks=CHECKPOINT_LOOKS) as controller:
        while True:
            batch, clock.now = json.loads(order.read_text("utf-8"))
            if batch != seen:
                controller.tick()
                write_atomically(order.with_name("done"), str(batch).encode())
                seen = batch
            time.sleep(0.001)


class Theatre:
    """A workspace whose controller is killed while the recorded batches come in."""

    def __init__(self, folder: Path, recorded: Recorded, dice: random.Random) -> None:
        self.folder, self.recorded, self.dice = folder, recorded, dice
        self.clock = Clock()
        self.workspace = Workspace(folder / "workspace", clock=self.clock)
        self.workspace.create()
        self.workspace.start(plan())
        self.orders = folder / "orders"
        self.process: BaseProcess | None = None
        self.kills = 0
        self.took = {True: 0.0, False: 0.0}  # longest tick of a fresh process, and of another

    def run(self, kills: int, usual: dict[bool, float] | None) -> dict[str, Any]:
        """Feed all batches; returns the outcome."""
        try:
            for batch, moment in enumerate(self.recorded.times):
                source = self.recorded.batches[batch]
                shutil.copytree(source, self.workspace.log_path / source.name)
                self.clock.now = moment
                write_atomically(self.orders, json.dumps([batch, moment]).encode())
                is_looked_at = False
                while not is_looked_at:
                    is_hunted = self.kills < kills and self.dice.random() < HUNTED
                    is_looked_at = self.looked_at(batch, usual if is_hunted else None)
        finally:
            self.end()
        with Controller(self.workspace, clock=self.clock) as last:  # what a kill left in the log
            last.tick()
        return outcome(self.workspace)

    def looked_at(self, batch: int, usual: dict[bool, float] | None) -> bool:
        """Wait for the look at a batch, or kill the controller before; whether it was taken."""
        done = self.orders.with_name("done")
        is_fresh = self.process is None
        if self.process is None:
            if done.exists() and int(done.read_text("utf-8")) >= batch:
                return True  # killed just after it
            self.process = SPAWN.Process(
                target=work, args=(str(self.workspace.path), str(self.orders))
            )
            self.process.start()
        started = time.monotonic()
        until = SECONDS if usual is None else self.dice.uniform(0.0, 1.1 * usual[is_fresh])
        while time.monotonic() < started + until:
            if done.exists() and int(done.read_text("utf-8")) >= batch:
                self.took[is_fresh] = max(self.took[is_fresh], time.monotonic() - started)
                return True
            assert self.process.is_alive(), "the controller ended by itself"
            time.sleep(0.001)
        assert usual is not None, "no look was taken"
        self.end()
        self.kills += 1
        return False

    def end(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
            self.process = None


def kill_and_compare(folder: Path, kills: int, account: Account) -> None:
    dice = random.Random("kill the controller")
    recordings: dict[str, Recorded] = {}
    usual: dict[str, dict[bool, float]] = {}
    for number, story in enumerate(STORIES):
        recordings[story] = record(made(folder / f"recording-{number}"), story)
        assert recordings[story].told["rollout"]["state"] == ENDS[story]
        quiet = Theatre(made(folder / f"quiet-{number}"), recordings[story], dice)
        assert quiet.run(0, None) == recordings[story].told
        usual[story] = quiet.took
    killed, run, repeated = 0, 0, 0
    while killed < kills:
        story = list(STORIES)[run % len(STORIES)]
        theatre = Theatre(made(folder / f"run-{run}"), recordings[story], dice)
        found = theatre.run(kills - killed, usual[story])
        assert found == recordings[story].told, f"after {theatre.kills} kills: {story}"
        balance = reconcile(theatre.workspace.path).total
        assert (balance.removed, balance.waiting) == (0, 0)
        assert verify(theatre.workspace.path).problems == []
        account(
            accepted=balance.accepted,
            stored=balance.stored,
            dropped=balance.dropped,
            quarantined=balance.quarantined,
        )
        looks = StoreReader(theatre.workspace.path).decisions(KEY)
        repeated += len(looks) - len(found["decisions"])
        killed, run = killed + theatre.kills, run + 1
    print(  # noqa: T201 - the figures are wanted
        f"{killed} kills in {run} rollouts, {repeated} looks taken twice, each with the same end"
    )


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.fault("controller killed in mid-rollout (50)")
def test_a_rollout_ends_the_same_however_often_its_controller_is_killed(
    tmp_path: Path, account: Account
) -> None:
    kill_and_compare(tmp_path, KILLS, account)


@pytest.mark.slow
@pytest.mark.fault("controller killed in mid-rollout (50)")
def test_fifty_kills_of_the_controller_change_no_decision(tmp_path: Path, account: Account) -> None:
    kill_and_compare(tmp_path, MANY_KILLS, account)
