"""Several treatments: who is dropped, who is ahead, and what serves meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from abkit import machine
from abkit.compiler import compile_experiment
from abkit.decision import Decision, Guardrail, Objective, Policy, evidence_on, leading_arm
from abkit.errors import ConfigError, DataError, TransitionError
from abkit.experiment import Experiment
from abkit.forecast import forecast
from abkit.integrations.notices import EVENTS
from abkit.judge import JudgeState, judge, replay
from abkit.metrics import Metric
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Ramp, Rollout, Stage
from abkit.server.verdict import guardrail_e_values, verdict_of
from abkit.trail.state import event_of, state_of

POLICY = Policy(
    guardrails=(Guardrail(metric="error", margin=0.5),),
    objectives=(Objective(metric="bought"),),
    alpha=0.03,
    beta=0.06,
)
STAGES = (
    Stage(name="30 %", share=0.3, min_units=100),
    Stage(name="60 %", share=0.6, min_units=1_000),
)
UNITS = [f"unit-{i}" for i in range(3_000)]


def draft(**changes: Any) -> Rollout:
    settings: dict[str, Any] = {
        "experiment": "shop",
        "control": "old",
        "treatment": "a",
        "rivals": ("b", "c"),
        "policy": POLICY,
        "metrics": (Metric(key="bought", kind="proportion"),),
        "stages": STAGES,
        "salt": "s",
    }
    return Rollout.plan("r", **(settings | changes))


def started(**changes: Any) -> Rollout:
    return machine.start(draft(**changes), now=0.0, epoch=1)


def served(rollout: Rollout) -> dict[str, str]:
    choose = compile_experiment(rollout.experiment)
    return {unit: choose(unit).variant for unit in UNITS}


def seen(
    rollout: Rollout,
    n: int,
    errors: dict[str, float],
    bought: dict[str, float],
    *,
    units: dict[str, int] | None = None,
    time: float = 60.0,
) -> Observation:
    """Counts at these rates; `n` units are split as the newest epoch says."""
    weights = rollout.experiment.weights
    met = {name: round(n * share) for name, share in weights.items()} | (units or {})
    epoch = rollout.last_epoch

    def cell(rates: dict[str, float], base: float) -> dict[str, Moments]:
        return {k: Moments.of_counts(m, round(m * rates.get(k, base))) for k, m in met.items()}

    values = {"error": {epoch: cell(errors, 0.02)}, "bought": {epoch: cell(bought, 0.1)}}
    first, *others = rollout.arms
    return Observation(
        time,
        {epoch: met},
        values,
        live=met[first],
        lives={name: met[name] for name in others},
    )


def look(rollout: Rollout, *args: Any, **rest: Any) -> Decision:
    decision, _ = judge(rollout, JudgeState(), seen(rollout, *args, **rest))
    return decision


def in_last_stage(**changes: Any) -> Rollout:
    return machine.skip(started(**changes), now=1.0, reason="go", actor="ann")


# What is lawful


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rivals": ("b", "b")}, ["all differ", "'b'"]),
        ({"rivals": ("a",)}, ["all differ", "'a'"]),
        ({"rivals": ("old",)}, ["all differ", "'old'"]),
        ({"rivals": ("b c",)}, ["treatment", "'b c'"]),
        ({"rivals": "bc"}, ["rivals must be a list", "'bc'"]),
        ({"policy": Policy(guardrails=POLICY.guardrails)}, ["objective", "winner"]),
        ({"stages": (Stage(name="dark", mode="shadow"), *STAGES)}, ["'dark'", "'shadow'"]),
        ({"stages": (Stage(name="all", mode="switch", share=1.0),)}, ["'all'", "'switch'"]),
        (
            {"stages": (replace(STAGES[0], requires=("error",)), STAGES[1])},
            ["'30 %'", "requires"],
        ),
        ({"ramp": Ramp(), "stages": ()}, ["ramp", "one treatment"]),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        draft(**changes)
    assert [word for word in words if word not in str(caught.value)] == []


def test_plain_data_tells_everything_and_says_nothing_where_there_is_one() -> None:
    rollout = machine.drop(started(), ["b"], now=1.0, reason="bad", actor="abkit")
    data = json.loads(json.dumps(rollout.to_dict()))
    assert Rollout.from_dict(data) == rollout
    assert (data["rivals"], data["dropped"]) == (["c"], ["b"])
    alone = draft(rivals=()).to_dict()
    assert not {"rivals", "dropped"} & set(alone)


def test_alpha_and_beta_are_shared_by_all_that_were_planned() -> None:
    rollout = started()
    assert rollout.arm_policy.halt_threshold == pytest.approx(100)
    assert rollout.arm_policy.promote_threshold == pytest.approx(50)
    less = machine.drop(rollout, ["a", "c"], now=1.0, reason="bad", actor="abkit")
    assert less.arms == ("b",)
    assert less.arm_policy == rollout.arm_policy
    assert draft(rivals=()).arm_policy == POLICY


# Who moves


def test_a_stage_is_shared_evenly() -> None:
    rollout = started()
    assert rollout.experiment.weights == pytest.approx({"old": 0.7, "a": 0.1, "b": 0.1, "c": 0.1})
    assert rollout.last_share == pytest.approx(0.3)
    wider = in_last_stage()
    assert wider.experiment.weights == pytest.approx({"old": 0.4, "a": 0.2, "b": 0.2, "c": 0.2})


def test_only_units_of_the_dropped_one_move_and_to_control() -> None:
    before = in_last_stage()
    after = machine.drop(before, ["b"], now=2.0, reason="bad", actor="abkit")
    was, now = served(before), served(after)
    assert {(was[unit], now[unit]) for unit in UNITS if was[unit] != now[unit]} == {("b", "old")}
    assert (after.stage, after.version) == (before.stage, before.version + 1)
    assert after.allocations[-1] == (after.last_epoch, after.experiment.weights)
    assert after.last_epoch == before.last_epoch + 1


def test_who_is_still_in_gets_the_share_of_the_next_stage() -> None:
    less = machine.drop(started(), ["b"], now=2.0, reason="bad", actor="abkit")
    wider = machine.skip(less, now=3.0, reason="go", actor="ann")
    assert wider.experiment.weights == pytest.approx({"old": 0.4, "a": 0.3, "c": 0.3})
    was, now = served(less), served(wider)
    assert {was[unit] for unit in UNITS if was[unit] != now[unit]} == {"old"}


@pytest.mark.parametrize("arms", [[], ["x"], ["a", "b", "c"], ["old"]])
def test_what_cannot_be_dropped(arms: list[str]) -> None:
    with pytest.raises(TransitionError, match="a, b, c"):
        machine.drop(started(), arms, now=1.0, reason="bad", actor="abkit")


def test_a_person_promotes_only_what_has_won() -> None:
    with pytest.raises(TransitionError, match="still compares a, b, c"):
        machine.promote(started(), now=1.0, reason="I like it", actor="ann")


# What is decided


def test_a_harmed_one_is_dropped_and_the_others_go_on() -> None:
    rollout = started()
    decision = look(rollout, 20_000, {"b": 0.2}, {})
    assert (decision.action, decision.drops) == ("continue", ("b",))
    assert "b is dropped: error is worse in treatment" in decision.reasons[0]
    after = machine.advance(rollout, decision, now=60.0)
    assert (after.state, after.arms, after.dropped) == ("canary", ("a", "c"), ("b",))


def test_the_first_one_can_be_dropped_too() -> None:
    after = machine.advance(started(), look(started(), 20_000, {"a": 0.2}, {}), now=60.0)
    assert (after.treatment, after.rivals, after.dropped) == ("b", ("c",), ("a",))


@pytest.mark.parametrize("state", ["hold", "notify"])
def test_a_drop_protects_people_on_hold_and_in_mode_notify(state: str) -> None:
    rollout = started(mode="notify" if state == "notify" else "enforce")
    if state == "hold":
        rollout = machine.hold(rollout, now=1.0, reason="wait", actor="ann")
    after = machine.advance(rollout, look(rollout, 20_000, {"b": 0.2}, {}), now=60.0)
    assert after.dropped == ("b",)
    assert after.state == ("hold" if state == "hold" else "canary")


def test_when_all_are_harmed_it_halts() -> None:
    rollout = started()
    decision = look(rollout, 20_000, dict.fromkeys("abc", 0.2), {})
    assert (decision.action, decision.drops) == ("halt", ())
    assert [reason[0] for reason in decision.reasons] == ["a", "b", "c"]
    after = machine.advance(rollout, decision, now=60.0)
    assert after.state == "halted"
    assert set(served(after).values()) == {"old"}


def test_the_last_one_left_halts_it() -> None:
    rollout = machine.drop(started(), ["a", "b"], now=1.0, reason="bad", actor="abkit")
    assert look(rollout, 20_000, {"c": 0.2}, {}).action == "halt"


def test_a_stage_is_left_when_each_has_its_units() -> None:
    rollout = started()
    assert look(rollout, 2_000, {}, {}).action == "advance"
    decision = look(rollout, 2_000, {}, {}, units={"c": 99})
    assert decision.action == "hold" or "c: 99 of 100 units" in "; ".join(decision.reasons)
    lacking = replace(seen(rollout, 2_000, {}, {}), lives={"b": 200, "c": 99})
    decision, _ = judge(rollout, JudgeState(), lacking)
    assert (decision.action, decision.reasons) == (
        "continue",
        ("c: 99 of 100 units in stage '30 %'",),
    )


def test_a_split_that_was_not_meant_is_seen_over_all_variants() -> None:
    decision = look(started(), 20_000, {}, {}, units={"c": 1_400})
    assert (decision.action, decision.alarms[0].check) == ("hold", "sample_ratio_mismatch")
    assert "1,400 c" in decision.reasons[0]


def test_of_those_shown_the_best_is_promoted_and_is_the_only_treatment_then() -> None:
    rollout = in_last_stage()
    decision = look(rollout, 60_000, {}, {"a": 0.13, "c": 0.15})
    assert (decision.action, decision.leader) == ("promote", "c")
    after = machine.advance(rollout, decision, now=60.0)
    assert (after.state, after.treatment, after.rivals) == ("promoted", "c", ())
    assert after.dropped == ("a", "b")
    assert set(served(after).values()) == {"c"}


def test_the_best_estimate_does_not_win_without_being_shown() -> None:
    rollout = in_last_stage()
    # b has the best estimate, but its errors are not shown to be no worse.
    decision = look(rollout, 60_000, {"b": 0.0245}, {"a": 0.13, "b": 0.16})
    assert (decision.action, decision.leader) == ("promote", "a")


def test_less_is_better_where_the_metric_says_so() -> None:
    slow = Metric(key="bought", kind="proportion", direction="decrease")
    decision = look(in_last_stage(metrics=(slow,)), 60_000, {}, {"a": 0.08, "b": 0.06})
    assert (decision.action, decision.leader) == ("promote", "b")


def test_equal_ones_win_nothing() -> None:
    decision = look(in_last_stage(), 60_000, {}, {})
    assert decision.action == "continue"
    assert [reason[0] for reason in decision.reasons] == ["a", "b", "c"]


def test_each_record_of_evidence_says_whose_it_is() -> None:
    record = {"treatment": "a", **look(started(), 2_000, {}, {"b": 0.2}).to_dict()}
    variants = [item.get("variant") for item in record["evidence"]]
    assert variants == [None, None, "b", "b", "c", "c"]
    assert leading_arm(record) == "b"
    assert [item["metric"] for item in evidence_on(record, "b")] == ["error", "bought"]
    assert evidence_on(record, "a") == record["evidence"][:2]
    alone = look(started(rivals=()), 2_000, {}, {}).to_dict()
    assert not {"leader", "drops"} & set(alone)
    assert all("variant" not in item for item in alone["evidence"])


# Waiting, baking, dry runs


def test_approved_by_hand_the_one_that_was_told_of_stays_in_front() -> None:
    rollout = in_last_stage(approval="manual")
    ready = machine.advance(rollout, look(rollout, 60_000, {}, {"b": 0.14}), now=60.0)
    assert (ready.state, ready.treatment, ready.rivals) == ("ready", "b", ("a", "c"))
    assert served(ready) == served(rollout)
    again = look(ready, 90_000, {}, {"b": 0.14, "c": 0.15})
    assert (again.action, again.leader) == ("promote", "b")
    assert machine.advance(ready, again, now=70.0) == ready
    done = machine.promote(ready, now=80.0, reason="yes", actor="ann")
    assert (done.state, done.treatment) == ("promoted", "b")


def test_a_drop_of_another_leaves_the_one_that_waits_waiting() -> None:
    rollout = in_last_stage(approval="manual")
    ready = machine.advance(rollout, look(rollout, 60_000, {}, {"b": 0.14}), now=60.0)
    less = machine.advance(ready, look(ready, 60_000, {"c": 0.2}, {"b": 0.14}), now=70.0)
    assert (less.state, less.treatment, less.dropped) == ("ready", "b", ("c",))
    _, state = judge(ready, JudgeState(), seen(ready, 60_000, {}, {"b": 0.14}))
    decision, _ = judge(less, state, seen(less, 60, {}, {}))
    assert decision.action == "promote", "it had met its units before the drop"
    gone = machine.drop(ready, ["b"], now=70.0, reason="bad", actor="abkit")
    assert (gone.state, gone.treatment) == ("canary", "a")


def test_another_winner_waits_anew() -> None:
    rollout = in_last_stage(approval="manual")
    ready = machine.advance(rollout, look(rollout, 60_000, {}, {"b": 0.14}), now=60.0)
    decision = Decision(action="promote", reasons=("c: shown",), leader="c")
    back = machine.advance(ready, decision, now=70.0)
    assert (back.state, back.treatment) == ("canary", "b")
    again = machine.advance(back, decision, now=80.0)
    assert (again.state, again.treatment, again.rivals) == ("ready", "c", ("b", "a"))


def test_what_won_is_watched_while_it_bakes() -> None:
    rollout = in_last_stage(bake_seconds=100.0, bake_share=0.9)
    baking = machine.advance(rollout, look(rollout, 60_000, {}, {"c": 0.15}), now=60.0)
    assert (baking.state, baking.arms, baking.dropped) == ("bake", ("c",), ("a", "b"))
    assert baking.experiment.weights == pytest.approx({"old": 0.1, "c": 0.9})
    assert look(baking, 10_000, {}, {}, time=100.0).action == "continue"
    assert look(baking, 10_000, {"c": 0.2}, {}, time=100.0).action == "halt"
    done = machine.advance(baking, look(baking, 10_000, {}, {}, time=161.0), now=161.0)
    assert (done.state, done.dropped) == ("promoted", ("a", "b"))
    assert machine.halt(done, now=200.0, reason="no", actor="ann").state == "rolled_back"


def test_a_dry_run_drops_nobody() -> None:
    split = Experiment.create("shop", {"old": 0.4, "a": 0.2, "b": 0.2, "c": 0.2}, salt="t")
    dry = machine.observe(draft(mode="dry_run"), split, now=0.0)
    decision = look(dry, 20_000, {"b": 0.2}, {})
    assert decision.drops == ("b",)
    assert machine.advance(dry, decision, now=60.0) == dry
    two = Experiment.create("shop", {"old": 0.5, "a": 0.5}, salt="t")
    with pytest.raises(ConfigError, match="'a', 'b', 'c'"):
        machine.observe(draft(mode="dry_run"), two, now=0.0)


# What others read


def test_what_the_judge_remembers_is_kept_by_treatment() -> None:
    rollout = started()
    _, state = judge(rollout, JudgeState(), seen(rollout, 2_000, {"b": 0.03}, {}))
    assert set(state.arms) == {"a", "b", "c"}
    assert JudgeState.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    assert "arms" not in JudgeState().to_dict()
    with pytest.raises(DataError):
        JudgeState.from_dict(state.to_dict() | {"arms": {"a": {}}})


def test_records_are_replayed_to_the_bit() -> None:
    rollout, state, records = started(), JudgeState(), []
    for number, n in enumerate((500, 2_000, 20_000, 30_000), 1):
        observation = seen(rollout, n, {"b": 0.1}, {"c": 0.12}, time=60.0 * number)
        decision, state = judge(rollout, state, observation)
        record = {
            "look": number,
            "rollout_state": rollout.to_dict(),
            "observation": observation.to_dict(),
            **decision.to_dict(),
        }
        records.append(json.loads(json.dumps(record, allow_nan=False)))
        rollout = machine.advance(rollout, decision, now=60.0 * number)
    assert (rollout.state, rollout.treatment, rollout.dropped) == ("promoted", "c", ("b", "a"))
    assert replay(records) == []
    records[1]["drops"] = ["c"]
    records[2]["leader"] = "a"
    assert [line.partition(":")[0] for line in replay(records)] == ["look 2", "look 3"]


def test_a_drop_is_an_event_of_its_own() -> None:
    before = started()
    after = machine.drop(before, ["b"], now=1.0, reason="bad", actor="abkit")
    assert event_of(state_of(before), state_of(after)) == "drop"
    assert "drop" in EVENTS
    ready = replace(after, state="ready")
    assert event_of(state_of(after), state_of(ready)) == "ready"
    won = machine.promote(ready, now=2.0, reason="yes", actor="ann")
    assert event_of(state_of(ready), state_of(won)) == "promote"


def test_the_forecast_is_about_one_treatment_among_several() -> None:
    several = forecast(draft(), requests_per_second=100.0)
    alone = forecast(draft(rivals=()), requests_per_second=100.0)
    assert several.stages[0].requests == pytest.approx(3 * alone.stages[0].requests)
    for one, other in zip(several.stages[0].harms, alone.stages[0].harms, strict=True):
        assert one.requests > other.requests
    assert several.promotion_seconds is not None
    assert alone.promotion_seconds is not None
    assert several.promotion_seconds > alone.promotion_seconds


class StillBoard:
    """What a board knows, without files."""

    store_error = ""
    overview = None

    def __init__(self, rollout: Rollout, record: Any) -> None:
        self._found, self._record = rollout, record
        self.verdicts: dict[str, Any] = {}

    async def refresh(self) -> None:
        pass

    def rollout(self, key: str) -> Rollout:
        return self._found

    def record(self, key: str) -> Any:
        return self._record


def test_the_answer_to_others_stays_one_object_about_the_one_ahead() -> None:
    rollout = started()
    observation = seen(rollout, 200, {"b": 0.05}, {"c": 0.4})
    decision, _ = judge(rollout, JudgeState(), observation)
    record = {
        "treatment": "a",
        "decision_id": "sha256:1",
        "rollout_state": rollout.to_dict(),
        "observation": observation.to_dict(),
        **decision.to_dict(),
    }
    found = asyncio.run(verdict_of(StillBoard(rollout, record), "r")).to_dict()  # type: ignore[arg-type]
    assert (found["action"], found["weight"], found["next_weight"]) == ("insufficient_data", 30, 60)
    assert decision.leader == "c"
    assert (found["evalue_harm"], found["evalue_noninf"]) == guardrail_e_values(record, "c")
    assert guardrail_e_values(record, "b") != guardrail_e_values(record, "c")
