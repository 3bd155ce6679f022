"""From requests to decisions, through log, store and state files, with nothing stood in for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from abkit.controller import Controller
from abkit.decision import Guardrail, Objective, Policy
from abkit.errors import ConfigError, StoreBusyError
from abkit.experiment import Experiment
from abkit.judge import replay
from abkit.metrics import Metric
from abkit.rollout import Rollout, Stage
from abkit.store.reader import StoreReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from conftest import LivePath

ERROR = Metric(key="error", kind="proportion", direction="decrease")
STAGES = (
    Stage(name="10 %", share=0.1, min_units=100),
    Stage(name="50 %", share=0.5, min_units=300),
)


def plan(key: str = "ranker-v2", **changes: object) -> Rollout:
    settings: dict[str, object] = {
        "experiment": "ranker",
        "control": "old",
        "treatment": "new",
        "stages": STAGES,
        "salt": "a-fixed-salt",
    }
    return Rollout.plan(key, **(settings | changes))  # type: ignore[arg-type]


def run(
    path: LivePath, rates: dict[str, float], *, key: str = "ranker-v2", ticks: int = 60
) -> Rollout:
    for _ in range(ticks):
        path.serve(400, rates)
        path.tick()
        if not path.workspace.rollout(key).live:
            break
    return path.workspace.rollout(key)


def test_a_harmful_canary_is_halted_and_control_serves_everyone(path: LivePath) -> None:
    path.workspace.start(plan())
    rollout = run(path, {"old": 0.02, "new": 0.08})
    assert rollout.state == "halted"
    assert "error is worse in treatment" in rollout.reason
    assert path.served <= 8_000
    after = {path.client.assign("ranker", f"later-{i}").variant for i in range(500)}
    assert after == {"old"}


def test_a_better_canary_passes_every_stage_and_is_promoted(path: LivePath) -> None:
    path.workspace.start(plan())
    rollout = run(path, {"old": 0.3, "new": 0.2})
    assert rollout.state == "promoted"
    assert [epoch for epoch, _ in rollout.allocations] == [1, 2, 3]
    stages = [r["stage"] for r in StoreReader(path.workspace.path).decisions("ranker-v2")]
    assert list(dict.fromkeys(stages)) == ["10 %", "50 %"]
    after = {path.client.assign("ranker", f"later-{i}").variant for i in range(500)}
    assert after == {"new"}


def test_an_equal_canary_is_not_halted(path: LivePath) -> None:
    path.workspace.start(plan())
    assert run(path, {"old": 0.02, "new": 0.02}, ticks=25).state == "canary"


def test_every_decision_replays_to_the_bit(path: LivePath) -> None:
    path.workspace.start(plan())
    run(path, {"old": 0.02, "new": 0.06})
    records = StoreReader(path.workspace.path).decisions("ranker-v2")
    assert len(records) > 3
    assert replay(records) == []
    forged = json.loads(json.dumps(records))
    forged[-1]["action"] = "promote"
    forged[1]["observation"]["values"][0][3] += 1
    assert any("action was 'promote'" in line for line in replay(forged))
    assert any(line.startswith("look 2:") for line in replay(forged))


def test_a_restarted_controller_goes_on_as_if_it_had_never_stopped(path: LivePath) -> None:
    path.workspace.start(plan())
    for _ in range(3):
        path.serve(400, {"old": 0.05, "new": 0.06})
        path.tick()
    path.controller.close()
    with Controller(path.workspace, clock=path.clock) as second:
        path.serve(400, {"old": 0.05, "new": 0.06})
        second.tick()
        records = StoreReader(path.workspace.path).decisions("ranker-v2")
        assert [record["look"] for record in records] == [1, 2, 3, 4]
        assert replay(records) == []


def test_no_news_is_no_look(path: LivePath) -> None:
    path.workspace.start(plan())
    path.serve(100, {"old": 0.0, "new": 0.0})
    assert len(path.tick().taken) == 1
    assert path.tick().taken == ()
    assert path.tick().ingested.events == 0


def test_everything_accepted_is_stored_once(path: LivePath) -> None:
    path.workspace.start(plan())
    for _ in range(3):
        path.serve(200, {"old": 0.1, "new": 0.1})
        path.tick()
    path.tick()
    writers = StoreReader(path.workspace.path).writers()
    accepted = path.client.health().events.accepted
    assert accepted == 1_200
    assert {w.accepted for w in writers} >= {accepted}
    assert all(w.unexplained == w.dropped == w.quarantined == 0 for w in writers)
    assert sum(w.stored for w in writers) == sum(w.accepted for w in writers)


def test_only_one_controller_runs(path: LivePath) -> None:
    with pytest.raises(StoreBusyError, match="another controller runs"):
        Controller(path.workspace)


def test_a_lost_snapshot_write_is_mended_by_the_next_tick(path: LivePath) -> None:
    path.workspace.start(plan())
    before = path.workspace.snapshot_path.read_bytes()
    path.workspace.halt("ranker-v2", reason="by hand", actor="tester")
    path.workspace.snapshot_path.write_bytes(before)  # as if killed between the two writes
    path.tick()
    assert path.client.assign("ranker", "u").reason == "killed"


def test_a_damaged_state_file_stops_its_own_rollout_alone(path: LivePath) -> None:
    path.workspace.start(plan())
    (path.workspace.path / "rollouts" / "other.json").write_text("{")
    path.serve(400, {"old": 0.0, "new": 0.0})
    tick = path.tick()
    assert len(tick.taken) == 1
    assert any("other.json is damaged" in line for line in tick.lines())


def test_labels_that_come_late_are_counted_when_they_come(path: LivePath) -> None:
    wrong = Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude")
    path.workspace.start(
        plan(metrics=(wrong,), policy=Policy(guardrails=(Guardrail(metric="wrong"),)))
    )
    answers = []
    for i in range(4_000):
        path.clock.now += 0.1
        assigned = path.client.assign("ranker", f"u{i}")
        path.client.expose(assigned)
        answers.append((f"u{i}", assigned.variant))
    path.tick()
    assert path.workspace.rollout("ranker-v2").state == "canary"
    path.clock.now += 3_600
    for unit, variant in answers:
        rate = 0.3 if variant == "new" else 0.05
        path.client.record(unit, "wrong", path.random.random() < rate)
    path.tick()
    rollout = path.workspace.rollout("ranker-v2")
    assert rollout.state == "halted"
    last = StoreReader(path.workspace.path).decisions("ranker-v2")[-1]["evidence"][0]
    assert last["n_control"] + last["n_treatment"] == 4_000


def test_a_split_that_is_off_blocks_progress_and_never_a_halt(path: LivePath) -> None:
    path.workspace.start(plan(stages=(Stage(name="50 %", share=0.5, min_units=10_000),)))
    lost = 0
    for i in range(6_000):
        assigned = path.client.assign("ranker", f"u{i}")
        if assigned.variant == "new" and i % 5 == 0:
            lost += 1  # the treatment's process crashes before it logs
            continue
        path.client.expose(assigned)
    path.tick()
    rollout = path.workspace.rollout("ranker-v2")
    assert lost > 500
    assert rollout.state == "hold"
    assert "exposures are lost or misassigned" in rollout.reason
    for i in range(6_000):
        assigned = path.client.assign("ranker", f"u{i}")
        bad = path.random.random() < (0.2 if assigned.variant == "new" else 0.02)
        path.client.record(f"u{i}", "error", bad)
    path.tick()
    assert path.workspace.rollout("ranker-v2").state == "halted"


def test_shadow_pairs_decide_quality_before_anyone_is_served(path: LivePath) -> None:
    wrong = Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude")
    latency = Metric(key="latency_ms", direction="decrease", log=True)
    path.workspace.start(
        plan(
            metrics=(wrong, latency),
            policy=Policy(
                guardrails=(Guardrail(metric="wrong", test="difference", margin=0.02),),
                objectives=(Objective(metric="latency_ms"),),
                planned_units=2_000,
            ),
            stages=(
                Stage(name="shadow", mode="shadow", requires=("wrong", "latency_ms")),
                Stage(name="50 %", share=0.5, min_units=100),
            ),
        )
    )
    for batch in range(20):
        for i in range(400):
            path.clock.now += 0.1
            assigned = path.client.assign("ranker", f"u{batch}-{i}")
            path.client.expose(assigned)
            if not assigned.shadow:
                continue
            hard = path.random.random() < 0.15
            for variant, slow in (("old", 5.0), ("new", 1.0)):
                miss = hard != (path.random.random() < 0.02)
                names = {"experiment": "ranker", "variant": variant}
                path.client.record(assigned.unit_id, "wrong", miss, **names)
                path.client.record(
                    assigned.unit_id, "latency_ms", slow * path.random.lognormal(0, 0.2), **names
                )
        path.tick()
        if path.workspace.rollout("ranker-v2").state != "shadow":
            break
    assert path.workspace.rollout("ranker-v2").state == "canary"
    records = StoreReader(path.workspace.path).decisions("ranker-v2")
    assert all(
        epoch == 1 and variant == "old"
        for epoch, variant, _ in records[-1]["observation"]["exposures"]
    )
    assert {item["basis"] for item in records[-1]["evidence"]} == {"paired"}


def test_blue_green_is_rolled_back_when_it_breaks_its_limit(path: LivePath) -> None:
    path.workspace.start(
        plan(
            policy=Policy(guardrails=(Guardrail(metric="error", test="limit", limit=0.02),)),
            stages=(Stage(name="switched", mode="switch", share=1.0, min_units=5_000),),
        )
    )
    assert path.client.assign("ranker", "u").variant == "new"
    assert run(path, {"old": 0.0, "new": 0.15}).state == "rolled_back"
    assert path.client.assign("ranker", "u").variant == "old"


def test_blue_green_within_its_limit_is_promoted(path: LivePath) -> None:
    path.workspace.start(
        plan(
            policy=Policy(guardrails=(Guardrail(metric="error", test="limit", limit=0.05),)),
            stages=(Stage(name="switched", mode="switch", share=1.0, min_units=500),),
        )
    )
    assert run(path, {"old": 0.0, "new": 0.01}).state == "promoted"


def test_the_next_rollout_of_an_experiment_counts_its_own_epochs_alone(path: LivePath) -> None:
    path.workspace.start(plan())
    assert run(path, {"old": 0.3, "new": 0.2}).state == "promoted"
    path.workspace.start(plan("ranker-v3", control="new", treatment="newer", salt="another-salt"))
    path.serve(400, {"new": 0.1, "newer": 0.1})
    path.tick()
    assert path.workspace.rollout("ranker-v2").state == "superseded"
    record = StoreReader(path.workspace.path).decisions("ranker-v3")[0]
    assert sum(n for _, _, n in record["observation"]["exposures"]) == 400
    assert {epoch for epoch, _, _ in record["observation"]["exposures"]} == {4}


def test_an_undecided_rollout_is_held_and_can_be_resumed(path: LivePath) -> None:
    path.workspace.start(
        plan(policy=Policy(guardrails=(Guardrail(metric="error"),), max_seconds=600.0))
    )
    path.serve(50, {"old": 0.0, "new": 0.0})
    path.clock.now += 700
    path.tick()
    assert path.workspace.rollout("ranker-v2").state == "hold"
    path.workspace.resume("ranker-v2", reason="more time", actor="tester")
    path.serve(50, {"old": 0.0, "new": 0.0})
    path.tick()
    assert path.workspace.rollout("ranker-v2").state == "canary"


def test_a_guardrail_on_something_that_is_no_bad_event_is_refused() -> None:
    revenue = Metric(key="revenue")
    with pytest.raises(ConfigError, match="use test = 'difference'"):
        plan(metrics=(revenue,), policy=Policy(guardrails=(Guardrail(metric="revenue"),)))


def test_a_halt_by_hand_needs_no_store(path: LivePath, tmp_path: object) -> None:
    path.workspace.start(plan())
    path.controller.close()
    (path.workspace.store_path / "abkit.duckdb").write_bytes(b"not a database")
    Workspace(path.workspace.path).halt("ranker-v2", reason="by hand", actor="tester")
    assert path.client.assign("ranker", "u").reason == "killed"


WRONG = Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude")
BY_DIFFERENCE = Policy(guardrails=(Guardrail(metric="wrong", test="difference", margin=0.01),))


@pytest.mark.parametrize(("control", "treatment"), [(0.17, 1.0), (0.0, 0.5), (0.17, 0.999)])
def test_a_difference_guardrail_halts_a_total_failure(
    path: LivePath, control: float, treatment: float
) -> None:
    path.workspace.start(plan(metrics=(WRONG,), policy=BY_DIFFERENCE, stages=STAGES[1:]))
    for _ in range(5):
        path.serve(300, {"old": control, "new": treatment}, metric="wrong")
        path.tick()
        if not path.workspace.rollout("ranker-v2").live:
            break
    assert path.workspace.rollout("ranker-v2").state == "halted"


def test_a_metric_that_nobody_records_never_lets_a_rollout_advance(path: LivePath) -> None:
    path.workspace.start(plan())
    for _ in range(3):
        path.serve(1_000, {"old": 0.0, "new": 0.5}, metric="errors")  # the policy watches "error"
        path.tick()
    rollout = path.workspace.rollout("ranker-v2")
    assert (rollout.state, rollout.stage.name) == ("canary", "10 %")
    last = StoreReader(path.workspace.path).decisions("ranker-v2")[-1]
    assert "no outcome 'error' has been recorded" in last["reason"]


def test_outcomes_recorded_just_before_the_exposure_count(path: LivePath) -> None:
    path.workspace.start(plan(stages=STAGES[1:]))
    for i in range(800):
        path.clock.now += 0.1
        assigned = path.client.assign("ranker", f"u{i}")
        path.client.record(f"u{i}", "error", assigned.variant == "new")
        path.clock.now += 0.05
        path.client.expose(assigned)
    path.tick()
    assert path.workspace.rollout("ranker-v2").state == "halted"


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ((), "'wrong', which is not among the metrics"),
        ((Metric(key="wrong", kind="proportion", direction="decrease", aggregate="last"),), "last"),
    ],
)
def test_a_policy_that_cannot_be_judged_is_refused(metrics: tuple[Metric, ...], words: str) -> None:
    test = "canary" if metrics else "difference"
    guardrail = Guardrail(metric="wrong", test=test, margin=0.1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        plan(metrics=metrics, policy=Policy(guardrails=(guardrail,)))


def test_a_difference_needs_its_margin() -> None:
    with pytest.raises(ConfigError, match="no 'margin'"):
        Guardrail(metric="wrong", test="difference")


def test_a_halt_that_was_recorded_and_not_acted_on_is_acted_on_after_a_restart(
    path: LivePath,
) -> None:
    path.workspace.start(plan())
    path.serve(400, {"old": 0.02, "new": 0.02})
    path.tick()
    state = path.workspace.path / "rollouts" / "ranker-v2.json"
    before = state.read_bytes()
    while path.workspace.rollout("ranker-v2").live:
        before = state.read_bytes()
        path.serve(400, {"old": 0.02, "new": 0.3})
        path.tick()
    path.controller.close()
    state.write_bytes(before)  # as if killed after the record and before the state file
    path.serve(4_000, {"old": 0.02, "new": 0.0})  # later data that speaks against the halt
    with Controller(path.workspace, clock=path.clock) as second:
        second.tick()
    assert path.workspace.rollout("ranker-v2").state == "halted"


def test_an_odd_value_stops_no_other_rollout(path: LivePath) -> None:
    revenue = Metric(key="revenue")
    watch = Policy(guardrails=(Guardrail(metric="revenue", test="difference", margin=1.0),))
    path.workspace.start(plan("other", experiment="shop", metrics=(revenue,), policy=watch))
    path.workspace.start(plan())
    for i in range(200):
        assigned = path.client.assign("shop", f"s{i}")
        path.client.expose(assigned)
        path.client.record(f"s{i}", "revenue", 1e155 * (i % 3))
    path.serve(400, {"old": 0.0, "new": 0.0})
    tick = path.tick()
    assert [item.rollout.key for item in tick.taken] == ["ranker-v2"]
    assert any(line.startswith("other: no look could be taken") for line in tick.lines())


def test_sums_of_returning_units_stop_in_both_arms_when_the_share_grows(path: LivePath) -> None:
    cost = Metric(key="cost", direction="decrease", aggregate="sum", missing="zero")
    watch = Policy(guardrails=(Guardrail(metric="cost", test="difference", margin=5.0),))
    stages = (Stage(name="10 %", share=0.1, min_units=30), STAGES[1])
    path.workspace.start(plan(metrics=(cost,), policy=watch, stages=stages))
    for _ in range(6):
        for i in range(600):
            path.clock.now += 0.1
            path.client.expose(path.client.assign("ranker", f"u{i}"))
            path.client.record(f"u{i}", "cost", 1.0)
        path.tick()
    assert path.workspace.rollout("ranker-v2").stage.name == "50 %"
    record = StoreReader(path.workspace.path).decisions("ranker-v2")[-1]
    means = {v: mean for _, epoch, v, _, mean, _ in record["observation"]["values"] if epoch == 1}
    assert means["new"] == pytest.approx(means["old"], rel=0.05)


def test_a_limit_takes_no_unit_for_good_before_its_outcome() -> None:
    failed = Metric(key="failed", kind="proportion", direction="decrease", missing="zero")
    limit = Policy(guardrails=(Guardrail(metric="failed", test="limit", limit=0.01),))
    with pytest.raises(ConfigError, match="before their outcome is known"):
        plan(metrics=(failed,), policy=limit)


def test_outcomes_of_another_experiment_halt_nobody_and_hide_nothing(path: LivePath) -> None:
    """Two routes with an 'error' metric each: one that fails always, on the same units."""
    path.workspace.start(plan())
    for _ in range(20):
        path.serve(400, {"old": 0.02, "new": 0.02})
        for number in range(path.served - 400, path.served):
            path.client.record(f"unit-{number}", "error", 1.0, experiment="speller")
        path.tick()
    assert path.workspace.rollout("ranker-v2").state == "canary"


def test_outcomes_that_name_their_experiment_count_in_it(path: LivePath) -> None:
    path.workspace.start(plan())
    for _ in range(40):
        for _ in range(400):
            path.clock.now += 0.1
            path.served += 1
            with path.client.exposure("ranker", f"unit-{path.served}") as a:
                bad = path.random.random() < (0.3 if a.variant == "new" else 0.02)
            path.client.record(a, "error", bad)
        path.tick()
        if not path.workspace.rollout("ranker-v2").live:
            break
    assert path.workspace.rollout("ranker-v2").state == "halted"


def test_a_promoted_model_bakes_and_is_rolled_back_when_it_turns_bad(path: LivePath) -> None:
    path.workspace.start(plan(bake_seconds=50_000.0, bake_share=0.9))
    for _ in range(60):
        path.serve(400, {"old": 0.3, "new": 0.2})
        path.tick()
        if path.workspace.rollout("ranker-v2").state == "bake":
            break
    assert path.workspace.rollout("ranker-v2").last_share == pytest.approx(0.9)
    rollout = run(path, {"old": 0.3, "new": 0.9})
    assert rollout.state == "rolled_back"
    assert replay(StoreReader(path.workspace.path).decisions("ranker-v2")) == []


def test_a_bake_that_ends_well_is_promoted_to_everyone(path: LivePath) -> None:
    path.workspace.start(plan(bake_seconds=30.0, bake_share=0.9))
    rollout = run(path, {"old": 0.3, "new": 0.2})
    assert (rollout.state, rollout.last_share) == ("promoted", 1.0)
    assert "baked without harm" in rollout.reason


def test_manual_approval_waits_and_looks_are_not_repeated(path: LivePath) -> None:
    path.workspace.start(plan(approval="manual"))
    for _ in range(60):
        path.serve(400, {"old": 0.3, "new": 0.2})
        path.tick()
        if path.workspace.rollout("ranker-v2").state == "ready":
            break
    path.tick()
    assert path.tick().taken == ()
    moved = path.workspace.act("ranker-v2", "promote", reason="fine", actor="ann")
    assert moved.state == "promoted"


def test_a_dry_run_says_what_it_would_have_done_and_does_nothing(path: LivePath) -> None:
    path.workspace.publish(
        Experiment.from_dict(
            {"key": "ranker", "salt": "s", "control": "old", "variants": {"old": 0.5, "new": 0.5}}
        )
    )
    path.workspace.start(plan(mode="dry_run", salt=None))
    before = path.workspace.snapshot()
    for _ in range(6):
        path.serve(400, {"old": 0.02, "new": 0.2})
        path.tick()
    records = StoreReader(path.workspace.path).decisions("ranker-v2")
    assert records[-1]["action"] == "halt"
    assert path.workspace.rollout("ranker-v2").state == "canary"
    assert path.workspace.snapshot() == before
    assert replay(records) == []
