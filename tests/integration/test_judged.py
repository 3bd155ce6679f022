"""Thresholds, windows, budgets, ramps and checkpoints on the whole path, nothing stood in for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import abkit
from abkit.controller import Controller
from abkit.decision import Guardrail, Policy
from abkit.judge import replay, taken_again
from abkit.metrics import Metric
from abkit.rollout import Ramp, Rollout, Stage
from abkit.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import LivePath

SLOW = Metric(key="slow", source="latency_ms", above=200.0, direction="decrease")
HALF = (Stage(name="50 %", share=0.5, min_units=300),)


def plan(**changes: Any) -> Rollout:
    settings = {
        "experiment": "ranker",
        "control": "old",
        "treatment": "new",
        "stages": HALF,
        "salt": "a-fixed-salt",
    }
    return Rollout.plan("r", **(settings | changes))


def records(path: LivePath) -> list[dict[str, Any]]:
    return StoreReader(path.workspace.path).decisions("r")


def answer(path: LivePath, requests: int, latency: Callable[[str], float]) -> None:
    for _ in range(requests):
        path.clock.now += 0.1
        unit = f"unit-{path.served}"
        path.served += 1
        assigned = path.client.assign("ranker", unit)
        path.client.expose(assigned)
        path.client.record(unit, "latency_ms", latency(assigned.variant))


@pytest.mark.parametrize(
    "guardrail",
    [
        Guardrail(metric="slow"),
        Guardrail(metric="slow", test="limit", limit=0.1),
        Guardrail(metric="slow", test="difference", margin=0.05),
        Guardrail(metric="slow", test="budget", budget=40),
    ],
    ids=lambda item: item.test,
)
def test_too_many_slow_answers_halt(path: LivePath, guardrail: Guardrail) -> None:
    path.workspace.start(plan(metrics=(SLOW,), policy=Policy(guardrails=(guardrail,))))
    tail = {"old": 0.05, "new": 0.4}
    for _ in range(10):
        answer(path, 200, lambda name: 90.0 + 200.0 * (path.random.random() < tail[name]))
        path.tick()
        if not path.workspace.rollout("r").live:
            break
    assert path.workspace.rollout("r").state == "halted"
    assert path.workspace.rollout("r").reason.startswith("slow ")
    assert replay(records(path)) == []


def test_analyze_reads_the_same_slow_answers(path: LivePath) -> None:
    latency = Metric(key="latency_ms", direction="decrease")
    guarded = Policy(guardrails=(Guardrail(metric="slow"),))
    path.workspace.start(plan(metrics=(SLOW, latency), policy=guarded))
    answer(path, 300, lambda name: 100.0 + 200.0 * (path.random.random() < 0.3))
    path.tick()
    path.client.flush()
    seen = records(path)[-1]["observation"]["values"]
    mine = {variant: (n, mean) for metric, _, variant, n, mean, _ in seen if metric == "slow"}
    report = abkit.analyze(path.workspace.path, experiment="ranker")
    result = next(item for item in report.results if item.metric == "slow")
    assert result.estimate.n_control == mine["old"][0]
    assert result.estimate.mean_control == pytest.approx(mine["old"][1])
    assert result.estimate.mean_treatment == pytest.approx(mine["new"][1])


def test_a_window_compares_arms_whose_outcomes_come_at_different_times(path: LivePath) -> None:
    """Treatment's errors come 20 s late: without a window it would seem to have fewer."""
    late = Metric(
        key="error", kind="proportion", direction="decrease", missing="zero", window_seconds=30.0
    )
    path.workspace.start(
        plan(metrics=(late,), policy=Policy(guardrails=(Guardrail(metric="error"),)))
    )
    waiting: list[tuple[float, str]] = []
    for _ in range(20):
        for _ in range(100):
            path.clock.now += 0.1
            unit = f"unit-{path.served}"
            path.served += 1
            assigned = path.client.assign("ranker", unit)
            path.client.expose(assigned)
            if path.random.random() < 0.2:
                waiting.append((path.clock.now + 20.0 * (assigned.variant == "new"), unit))
            for due, name in [item for item in waiting if item[0] <= path.clock.now]:
                path.client.record(name, "error", 1)
                waiting.remove((due, name))
        path.tick()
    rollout, last = path.workspace.rollout("r"), records(path)[-1]
    assert rollout.state in ("canary", "promoted")
    counts = {variant: n for _, _, variant, n, _, _ in last["observation"]["values"]}
    exposed = {variant: n for _, variant, n in last["observation"]["exposures"]}
    assert all(0 < counts[name] < exposed[name] - 100 for name in ("old", "new"))
    rates = {variant: mean for _, _, variant, _, mean, _ in last["observation"]["values"]}
    assert rates["new"] == pytest.approx(rates["old"], abs=0.06)
    assert last["evidence"][0]["e_harm"] < 5
    assert replay(records(path)) == []


def test_people_who_come_back_take_a_rollout_through_its_stages(path: LivePath) -> None:
    """2,000 users who have all been met in the first stage."""
    stages = (
        Stage(name="10 %", share=0.1, min_units=150),
        Stage(name="50 %", share=0.5, min_units=800),
    )
    path.workspace.start(plan(stages=stages))
    for _ in range(8):
        for user in range(2_000):
            path.clock.now += 0.05
            unit = f"user-{user}"
            assigned = path.client.assign("ranker", unit)
            path.client.expose(assigned)
            rate = 0.03 if assigned.variant == "old" else 0.01
            path.client.record(unit, "error", path.random.random() < rate)
        path.tick()
        if not path.workspace.rollout("r").live:
            break
    rollout = path.workspace.rollout("r")
    assert rollout.state in ("canary", "promoted")
    assert rollout.stage.name == "50 %"
    last = records(path)[-1]
    assert last["observation"]["live"] == pytest.approx(1_000, abs=100)
    assert "units in stage" not in last["reason"]
    assert replay(records(path)) == []


def test_a_ramp_grows_on_the_whole_path(path: LivePath) -> None:
    path.workspace.start(
        plan(
            stages=abkit.rollout.DEFAULT_STAGES,
            ramp=Ramp(budget=20.0, lag_seconds=30.0, start_share=0.1, min_units=200),
        )
    )
    for _ in range(30):
        path.serve(400, {"old": 0.3, "new": 0.15})
        path.tick()
        if not path.workspace.rollout("r").live:
            break
    rollout = path.workspace.rollout("r")
    assert rollout.state == "promoted"
    shares = [shares["new"] for _, shares in rollout.allocations]
    assert shares[0] == pytest.approx(0.1)
    assert shares[-2:] == pytest.approx([0.5, 1.0])
    assert shares == sorted(shares)
    assert len({record["share"] for record in records(path)}) == len(shares) - 1
    assert replay(records(path)) == []


def test_a_restarted_controller_goes_on_from_its_checkpoint(
    path: LivePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.workspace.start(plan(stages=(Stage(name="50 %", share=0.5, min_units=10**6),)))
    path.controller.close()
    with Controller(path.workspace, clock=path.clock, checkpoint_looks=4) as first:
        for _ in range(6):
            path.serve(50, {"old": 0.05, "new": 0.06})
            first.tick()
    kept = path.workspace.store_path / "r.judge.json"
    assert json.loads(kept.read_bytes())["look"] == 4
    replayed: list[int] = []

    def spy(found: list[dict[str, Any]], *state: Any) -> Any:
        replayed.append(len(found))
        return taken_again(found, *state)

    monkeypatch.setattr("abkit.controller.taken_again", spy)
    states = []
    for content, expected in ((kept.read_bytes(), 2), (b"{", 6), (forged(kept), 6)):
        kept.write_bytes(content)
        with Controller(path.workspace, clock=path.clock) as again:
            again._ingester.ingest()
            memory = again._recall(path.workspace.rollout("r"))
        assert memory.looks == 6
        assert replayed.pop() == expected
        states.append(memory.state)
    assert states[0] == states[1] == states[2]


def forged(path: Path) -> bytes:
    """A checkpoint with a checksum that fits, of another rollout of the same name."""
    from abkit.decision import sha256_of

    data = json.loads(path.read_bytes())
    del data["checksum"]
    data["decision_id"] = "sha256:0"
    return json.dumps({**data, "checksum": sha256_of(data)}).encode()


def test_a_halt_that_a_checkpoint_holds_is_acted_on(path: LivePath) -> None:
    path.workspace.start(
        plan(policy=Policy(guardrails=(Guardrail(metric="error", test="budget", budget=3),)))
    )
    before = (path.workspace.path / "rollouts" / "r.json").read_bytes()
    path.controller.close()
    with Controller(path.workspace, clock=path.clock, checkpoint_looks=1) as first:
        path.serve(100, {"old": 0.0, "new": 1.0})
        first.tick()
    assert path.workspace.rollout("r").state == "halted"
    (path.workspace.path / "rollouts" / "r.json").write_bytes(
        before
    )  # cut off before it was acted on
    with Controller(path.workspace, clock=path.clock) as second:
        second.tick()
    halted = path.workspace.rollout("r")
    assert (halted.state, "used up its budget" in halted.reason) == ("halted", True)
