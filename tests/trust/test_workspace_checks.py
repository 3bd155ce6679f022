"""What a log says about its own trustworthiness, on what real clients and writers logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import abkit
from abkit.client import Client
from abkit.controller import Controller
from abkit.events import Exposure
from abkit.experiment import Experiment
from abkit.log import SegmentWriter
from abkit.metrics import Metric
from abkit.rollout import Rollout, Stage
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from abkit.check import Check

BOUGHT = Metric(key="bought", kind="proportion")


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def published(tmp_path: Path, clock: Clock, **options: Any) -> Workspace:
    workspace = Workspace(tmp_path / "workspace", clock=clock)
    workspace.publish(
        Experiment.create(
            "ranker", {"old": 0.5, "new": 0.5}, salt="a-fixed-salt", metrics=[BOUGHT], **options
        )
    )
    return workspace


def serve(
    workspace: Workspace, clock: Clock, *, units: int = 600, delay: dict[str, float] | None = None
) -> None:
    """Expose units, and let each buy or not; `delay` in seconds by variant."""
    random = np.random.default_rng(5)
    with Client(workspace.path, poll_seconds=0.0, clock=clock) as client:
        for number in range(units):
            unit = f"user-{number}"
            clock.now += 10.0
            client.expose(assigned := client.assign("ranker", unit))
            if random.random() < 0.5:
                clock.now += (delay or {}).get(assigned.variant, 1.0) * random.random()
                client.record(unit, "bought", 1.0)


def checks(workspace: Workspace, **options: Any) -> dict[str, Check]:
    report = abkit.analyze(workspace.path, experiment="ranker", **options)
    return {item.id: item for item in report.checks}


def test_a_clean_log_is_audited_and_told_of(tmp_path: Path) -> None:
    clock = Clock()
    workspace = published(tmp_path, clock)
    serve(workspace, clock)
    found = checks(workspace)
    assert found["assignment_drift"].severity == "info"
    assert found["assignment_drift"].evidence == {"wrong": 0, "units": 600}
    assert {"logging_loss", "early_outcomes", "unexplained_events"}.isdisjoint(found)
    assert not [item for item in found.values() if item.severity == "block"]


@pytest.mark.parametrize("wrong", [1, 40])
def test_any_exposure_against_its_hash_blocks(tmp_path: Path, wrong: int) -> None:
    clock = Clock()
    workspace = published(tmp_path, clock)
    serve(workspace, clock)
    experiment = workspace.snapshot().experiments["ranker"]  # type: ignore[union-attr]
    with (
        Client.from_experiments([experiment]) as client,
        SegmentWriter(workspace.log_path, clock=clock) as writer,
    ):
        for number in range(wrong):
            unit = f"stray-{number}"
            other = "old" if client.variant("ranker", unit) == "new" else "new"
            writer.append(
                Exposure(clock.now, "ranker", unit, other, 1).to_record(), "ranker", other
            )
    found = checks(workspace)["assignment_drift"]
    assert found.severity == "block"
    assert found.evidence["wrong"] == wrong
    assert "'stray-0'" in found.text
    assert found.remedy


def test_sticky_and_vendor_hashes_are_said_to_be_left_out(tmp_path: Path) -> None:
    clock = Clock()
    workspace = published(tmp_path, clock, sticky=True)
    serve(workspace, clock, units=100)
    found = checks(workspace)["assignment_drift"]
    assert found.severity == "info"
    assert "sticky" in found.text


def test_every_epoch_of_a_ramp_is_audited(tmp_path: Path) -> None:
    clock = Clock()
    workspace = Workspace(tmp_path / "workspace", clock=clock)
    plan = Rollout.plan(
        "ranker-v2",
        experiment="ranker",
        control="old",
        treatment="new",
        stages=(Stage(name="half", share=0.3, min_units=50), Stage(name="most", share=0.6)),
        metrics=(BOUGHT,),
    )
    workspace.start(plan)
    with Controller(workspace, clock=clock) as controller:
        serve(workspace, clock, units=300)
        controller.tick()
        workspace.act("ranker-v2", "skip", reason="a test", actor="test")
        serve(workspace, clock, units=600)
        controller.tick()
    found = checks(workspace, metrics=["bought"])["assignment_drift"]
    assert found.severity == "info"
    assert found.evidence["units"] == 300 + 600


def lose(workspace: Workspace, clock: Clock, lost: dict[str, int]) -> None:
    """A writer that dropped so many exposures of each variant."""
    from abkit.log.losses import Losses

    writer = SegmentWriter(workspace.log_path, clock=clock, durability="buffered", queue_records=1)
    assert isinstance(writer._journal.losses, Losses)
    for variant, number in lost.items():
        for _ in range(number):
            writer._journal.losses.add("ranker", variant, "queue_full")
    writer.append(Exposure(clock.now, "ranker", "last", "old", 1).to_record(), "ranker", "old")
    writer.close()


def test_a_loss_that_depends_on_the_variant_blocks(tmp_path: Path) -> None:
    clock = Clock()
    workspace = published(tmp_path, clock)
    serve(workspace, clock, units=2_000)
    lose(workspace, clock, {"old": 5, "new": 90})
    found = checks(workspace)["logging_loss"]
    assert found.severity == "block"
    assert found.evidence["dropped"] == {"old": 5, "new": 90}
    assert "depends on the variant" in found.text


def test_a_loss_that_does_not_depend_on_the_variant_warns_where_it_is_large(
    tmp_path: Path,
) -> None:
    clock = Clock()
    workspace = published(tmp_path, clock)
    serve(workspace, clock, units=600)
    lose(workspace, clock, {"old": 50, "new": 50})
    assert checks(workspace)["logging_loss"].severity == "warn"


def test_outcomes_from_before_the_exposure_are_counted(tmp_path: Path) -> None:
    clock = Clock()
    workspace = published(tmp_path, clock)
    with Client(workspace.path, poll_seconds=0.0, clock=clock) as client:
        for number in range(40):
            client.record(f"user-{number}", "bought", 1.0)
        clock.now += 3_600
    serve(workspace, clock, units=200)
    found = checks(workspace)["early_outcomes"]
    assert sum(found.evidence["events"].values()) == 40
    assert found.severity == "info"


def test_outcomes_that_take_longer_in_one_variant_are_told_of_unless_there_is_a_window(
    tmp_path: Path,
) -> None:
    clock = Clock()
    workspace = published(tmp_path, clock)
    random = np.random.default_rng(8)
    events = []
    with Client.from_experiments([workspace.snapshot().experiments["ranker"]]) as client:  # type: ignore[union-attr]
        for number in range(3_000):
            unit, start = f"user-{number}", clock.now + 20.0 * number
            variant = client.variant("ranker", unit)
            delay = random.exponential(4_000.0 if variant == "new" else 1_500.0)
            events.append((start, Exposure(start, "ranker", unit, variant, 1).to_record(), variant))
            events.append((start + delay, ("o", start + delay, unit, "bought", 1.0, "", ""), ""))
    end = clock.now + 20.0 * 3_000
    with SegmentWriter(workspace.log_path, clock=clock) as writer:
        for moment, record, variant in sorted(events, key=lambda item: item[0]):
            if moment <= end:
                writer.append(record, "ranker" if variant else "", variant)
    clock.now = end
    assert checks(workspace)["late_outcomes"].severity == "warn"
    assert "late_outcomes" not in checks(workspace, window="2h")
