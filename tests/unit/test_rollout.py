"""Rollouts: which move is lawful from where, and what each does to the allocation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import pytest

from abkit import machine
from abkit.compiler import compile_experiment
from abkit.decision import Decision, Guardrail, Objective, Policy
from abkit.errors import ConfigError, TransitionError
from abkit.metrics import Metric
from abkit.rollout import DEFAULT_STAGES, Rollout, Stage, State

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = Policy(guardrails=(Guardrail(metric="error"),), objectives=(Objective(metric="clicks"),))
SHADOW = Stage(name="shadow", mode="shadow", requires=("clicks",))
CANARY_5 = Stage(name="5 %", share=0.05, min_units=400, min_seconds=60.0)
CANARY_50 = Stage(name="50 %", share=0.5, requires=("clicks", "error"))
SWITCH = Stage(name="all", mode="switch", share=1.0)
UNITS = [f"user-{i}" for i in range(2_000)]


def draft(*stages: Stage, **how: Any) -> Rollout:
    return Rollout.plan(
        "ranker-v2",
        experiment="ranker",
        control="v1",
        treatment="v2",
        policy=POLICY,
        metrics=(Metric(key="clicks", kind="proportion"),),
        stages=stages or (SHADOW, CANARY_5, CANARY_50),
        salt="fixed",
        **how,
    )


def started(*stages: Stage, **how: Any) -> Rollout:
    return machine.start(draft(*stages, **how), now=100.0, epoch=7, actor="ann")


def decided(action: Any, *reasons: str) -> Decision:
    return Decision(action=action, reasons=reasons or (f"because of {action}",))


def advanced(rollout: Rollout, action: Any, *, now: float = 200.0) -> Rollout:
    return machine.advance(rollout, decided(action), now=now)


def halted(rollout: Rollout) -> Rollout:
    return machine.halt(rollout, now=300.0, reason="it burns", actor="bob")


def held(rollout: Rollout) -> Rollout:
    return machine.hold(rollout, now=300.0, reason="wait", actor="bob")


def resumed(rollout: Rollout) -> Rollout:
    return machine.resume(rollout, now=400.0, reason="go on", actor="bob")


def promoted() -> Rollout:
    return advanced(advanced(advanced(started(), "advance"), "advance"), "promote")


def answers(rollout: Rollout) -> dict[str, str]:
    assign = compile_experiment(rollout.experiment)
    return {unit: assign(unit).variant for unit in UNITS}


# Start


def test_a_draft_serves_control_to_everyone() -> None:
    assert draft().state == "draft"
    assert set(answers(draft()).values()) == {"v1"}
    assert not draft().live


def test_a_start_enters_the_first_stage_in_the_given_epoch() -> None:
    rollout = started(CANARY_5)
    assert (rollout.state, rollout.stage, rollout.version) == ("canary", CANARY_5, 1)
    assert (rollout.first_epoch, rollout.last_epoch) == (7, 7)
    assert (rollout.started, rollout.stage_started, rollout.changed) == (100.0, 100.0, 100.0)
    assert rollout.allocations == ((7, rollout.experiment.weights),)
    assert rollout.experiment.weights == pytest.approx({"v1": 0.95, "v2": 0.05}, abs=1e-15)
    assert (rollout.reason, rollout.actor) == ("started", "ann")


@pytest.mark.parametrize(
    ("stage", "state"), [(SHADOW, "shadow"), (CANARY_5, "canary"), (SWITCH, "switched")]
)
def test_the_mode_of_the_stage_is_the_state(stage: Stage, state: str) -> None:
    rollout = started(stage)
    assert rollout.state == state
    assert rollout.live
    treated = sum(variant == "v2" for variant in answers(rollout).values()) / len(UNITS)
    assert treated == pytest.approx(stage.share, abs=0.02)


def test_in_a_shadow_stage_control_answers_and_treatment_answers_in_the_dark() -> None:
    shadow = started()
    assert set(answers(shadow).values()) == {"v1"}
    assert shadow.experiment.shadow == "v2"
    assert advanced(shadow, "advance").experiment.shadow == ""


def test_a_rollout_starts_once() -> None:
    for rollout in (started(), halted(started()), promoted()):
        with pytest.raises(TransitionError, match=rf"'ranker-v2' is {rollout.state}; only a draft"):
            machine.start(rollout, now=1.0, epoch=1)


# Decisions


def test_continue_changes_nothing() -> None:
    assert advanced(started(), "continue") == started()


def test_advance_goes_to_the_next_stage_and_no_further() -> None:
    rollout = started()
    names = [rollout.stage.name]
    for now in (200.0, 300.0):
        rollout = advanced(rollout, "advance", now=now)
        names.append(rollout.stage.name)
        assert rollout.stage_started == rollout.changed == now
        assert rollout.started == 100.0
    assert names == ["shadow", "5 %", "50 %"]
    assert (rollout.version, rollout.last_epoch) == (3, 9)
    assert [epoch for epoch, _ in rollout.allocations] == [7, 8, 9]
    assert rollout.reason == "because of advance"


def test_the_last_stage_is_promoted_and_not_advanced() -> None:
    rollout = started(CANARY_5)
    with pytest.raises(TransitionError, match="last stage; it can be promoted, not advanced"):
        advanced(rollout, "advance")
    assert advanced(rollout, "promote").state == "promoted"


def test_an_earlier_stage_is_not_promoted() -> None:
    with pytest.raises(TransitionError, match="in stage 'shadow'; only the last promotes"):
        advanced(started(), "promote")


def test_a_promoted_rollout_serves_treatment_to_everyone() -> None:
    rollout = promoted()
    assert set(answers(rollout).values()) == {"v2"}
    assert not rollout.live
    assert rollout.last_epoch == 10
    assert rollout.allocations[-1] == (10, {"v2": 1.0})
    assert rollout.control == "v1", "what a rollback goes back to"


def test_units_once_treated_stay_treated_while_the_share_grows() -> None:
    rollout = started(CANARY_5, CANARY_50)
    small = {unit for unit, variant in answers(rollout).items() if variant == "v2"}
    large = {
        unit for unit, variant in answers(advanced(rollout, "advance")).items() if variant == "v2"
    }
    assert 0 < len(small) < len(large)
    assert small < large


def test_all_reasons_of_a_decision_are_kept() -> None:
    moved = machine.advance(started(), decided("hold", "one", "two"), now=1.0, actor="eve")
    assert (moved.reason, moved.actor) == ("one; two", "eve")


# Hold and resume


@pytest.mark.parametrize(
    ("stage", "state"), [(SHADOW, "shadow"), (CANARY_5, "canary"), (SWITCH, "switched")]
)
def test_a_hold_keeps_the_allocation_and_resume_goes_on_with_the_stage(
    stage: Stage, state: str
) -> None:
    before = started(stage)
    hold = held(before)
    assert (hold.state, hold.version, hold.live) == ("hold", 2, True)
    assert hold.experiment == before.experiment
    assert hold.stage_started == before.stage_started
    after = resumed(hold)
    assert (after.state, after.version) == (state, 3)
    assert after.experiment == before.experiment
    assert (after.reason, after.actor) == ("go on", "bob")


def test_a_second_hold_changes_nothing() -> None:
    assert held(held(started())) == held(started())


@pytest.mark.parametrize("action", ["continue", "advance", "promote", "hold"])
def test_a_rollout_on_hold_moves_for_nothing_but_a_halt(action: str) -> None:
    hold = held(started(CANARY_5))
    assert advanced(hold, action) == hold
    assert advanced(hold, "halt").state == "halted"


# Halt


@pytest.mark.parametrize(
    ("rollout", "state"),
    [
        (started(SHADOW), "halted"),
        (started(CANARY_5), "halted"),
        (held(started(CANARY_5)), "halted"),
        (started(SWITCH), "rolled_back"),
        (held(started(SWITCH)), "rolled_back"),
        (promoted(), "rolled_back"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.state} at {value.stage.name}",
)
def test_after_a_halt_control_answers_everyone(rollout: Rollout, state: str) -> None:
    after = halted(rollout)
    assert after.state == state
    assert not after.live
    assert set(answers(after).values()) == {"v1"}
    assert after.experiment.state == "killed"
    assert after.experiment.shadow == ""
    assert after.last_epoch == rollout.last_epoch + 1
    assert after.version == rollout.version + 1
    assert (after.reason, after.actor, after.changed) == ("it burns", "bob", 300.0)


def test_a_decision_to_halt_halts() -> None:
    after = advanced(started(CANARY_5), "halt")
    assert (after.state, after.reason) == ("halted", "because of halt")


@pytest.mark.parametrize(
    ("rollout", "state"),
    [
        (draft(), "draft"),
        (halted(started()), "halted"),
        (halted(promoted()), "rolled_back"),
        (machine.superseded(promoted(), now=1.0, by="v3"), "superseded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(
    "move", [halted, held, resumed, *(lambda r, a=a: advanced(r, a) for a in ("halt", "advance"))]
)
def test_what_is_not_running_cannot_be_moved(
    rollout: Rollout, state: str, move: Callable[[Rollout], Rollout]
) -> None:
    with pytest.raises(TransitionError, match=f"rollout 'ranker-v2' is {state}; "):
        move(rollout)


def test_a_promoted_rollout_takes_no_decision() -> None:
    with pytest.raises(TransitionError, match="is promoted; it cannot advance"):
        advanced(promoted(), "advance")


# Superseding


def test_a_superseded_rollout_says_by_whom() -> None:
    after = machine.superseded(promoted(), now=9.0, by="ranker-v3")
    assert (after.state, after.reason) == ("superseded", "superseded by ranker-v3")
    assert after.experiment == promoted().experiment
    assert not after.live


@pytest.mark.parametrize("rollout", [draft(), started(CANARY_5), held(started(CANARY_5))])
def test_what_may_still_move_is_not_superseded(rollout: Rollout) -> None:
    with pytest.raises(TransitionError, match=f"is {rollout.state}; only a promoted one"):
        machine.superseded(rollout, now=1.0, by="x")


# Ready, bake, and how much is left to people


def baking(**how: Any) -> Rollout:
    how = {"bake_seconds": 60.0, "bake_share": 0.95, **how}
    return advanced(started(CANARY_50, **how), "promote")


def ready() -> Rollout:
    return advanced(started(CANARY_50, approval="manual"), "promote")


def by_hand(verb: str, rollout: Rollout) -> Rollout:
    moved: Rollout = getattr(machine, verb)(rollout, now=300.0, reason="I say so", actor="bob")
    return moved


def test_manual_approval_waits_for_a_person() -> None:
    waiting = ready()
    assert waiting.state == "ready"
    assert waiting.experiment == started(CANARY_50, approval="manual").experiment
    assert advanced(waiting, "promote") == waiting
    done = by_hand("promote", waiting)
    assert (done.state, done.actor, done.last_share) == ("promoted", "bob", 1.0)


def test_what_is_contradicted_while_it_waits_goes_back_to_its_stage() -> None:
    assert advanced(ready(), "continue").state == "canary"
    assert advanced(ready(), "hold").state == "hold"
    assert advanced(ready(), "halt").state == "halted"


def test_a_bake_keeps_some_control_and_ends_with_everyone() -> None:
    bake = baking()
    assert (bake.state, bake.live, bake.stage_started) == ("bake", True, 200.0)
    assert bake.last_share == pytest.approx(0.95)
    assert advanced(bake, "continue") == bake
    assert advanced(bake, "hold") == bake
    done = advanced(bake, "promote")
    assert (done.state, done.last_share) == ("promoted", 1.0)
    assert done.last_epoch == bake.last_epoch + 1


def test_a_bake_is_rolled_back_by_a_halt() -> None:
    after = advanced(baking(), "halt")
    assert after.state == "rolled_back"
    assert set(answers(after).values()) == {"v1"}


def test_notify_acts_on_a_halt_alone() -> None:
    told = started(CANARY_5, CANARY_50, mode="notify")
    assert advanced(told, "advance") == told
    last = by_hand("skip", told)
    assert (last.stage.name, last.actor) == ("50 %", "bob")
    assert advanced(last, "promote").state == "ready"
    assert advanced(told, "halt").state == "halted"


def test_a_person_may_skip_to_the_next_stage_and_promote_from_any() -> None:
    assert by_hand("skip", started()).stage.name == "5 %"
    assert by_hand("promote", started()).state == "promoted"
    assert by_hand("promote", baking()).state == "promoted"
    with pytest.raises(TransitionError, match="last stage; it can be promoted"):
        by_hand("skip", baking())
    with pytest.raises(TransitionError, match="is promoted; it cannot be promoted"):
        by_hand("promote", promoted())


def test_a_dry_run_judges_what_is_published_and_moves_nothing() -> None:
    live = started(CANARY_5).experiment
    dry = machine.observe(draft(mode="dry_run"), live, now=100.0)
    assert (dry.state, dry.stage.name) == ("canary", "as published")
    assert dry.stage.share == pytest.approx(0.05)
    assert dry.allocations == ((live.epoch, live.weights),)
    for action in ("advance", "promote", "hold", "halt"):
        assert advanced(dry, action) == dry
    with pytest.raises(TransitionError, match="is a dry run; it owns no allocation"):
        by_hand("promote", dry)
    over = halted(dry)
    assert (over.state, over.experiment) == ("halted", dry.experiment)
    grown = live.reweight({"v1": 0.5, "v2": 0.5})
    assert machine.followed(dry, live) == dry
    assert [epoch for epoch, _ in machine.followed(dry, grown).allocations] == [7, 8]


def test_a_dry_run_without_a_split_says_what_serves() -> None:
    alone = started(CANARY_5).experiment.reweight({"v1": 1.0, "v2": 0.0})
    with pytest.raises(ConfigError, match="what is published serves v1 1, with control 'v1'"):
        machine.observe(draft(mode="dry_run"), alone, now=1.0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"mode": "maybe"}, "mode must be one of enforce, notify, dry_run, got 'maybe'"),
        ({"approval": "no"}, "approval must be one of auto, manual, got 'no'"),
        ({"bake_seconds": -1}, "bake_seconds must be a number >= 0, got -1"),
        ({"bake_share": 0, "bake_seconds": 1}, "bake_share must be above 0 and at most 1, got 0"),
        ({"bake_share": 0.9}, "bake_share without bake_seconds"),
        ({"bake_share": 0.4, "bake_seconds": 1}, "less than the last stage's 0.5"),
        ({"bake_seconds": 1}, "no control is left to compare with"),
    ],
)
def test_unlawful_ways_to_act_are_named(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draft(CANARY_50, **how)


# Plans and data


EVERY = [
    ready(),
    baking(),
    draft(),
    started(),
    advanced(started(), "advance"),
    held(started()),
    started(SWITCH),
    promoted(),
    halted(started()),
    halted(promoted()),
    machine.superseded(promoted(), now=1.0, by="x"),
]


def test_the_examples_cover_every_state() -> None:
    assert {rollout.state for rollout in EVERY} == set(get_args(State))


@pytest.mark.parametrize("rollout", EVERY, ids=lambda rollout: rollout.state)
def test_every_state_goes_through_json(rollout: Rollout) -> None:
    again = Rollout.from_dict(json.loads(json.dumps(rollout.to_dict(), allow_nan=False)))
    assert again == rollout
    assert again.to_dict() == rollout.to_dict()


def test_a_plan_without_details_is_a_canary_on_errors() -> None:
    plan = Rollout.plan("a", experiment="x", control="v1", treatment="v2")
    assert plan.stages == DEFAULT_STAGES
    assert [stage.share for stage in plan.stages] == [0.01, 0.05, 0.25, 0.5]
    assert [item.metric for item in plan.policy.guardrails] == ["error"]
    metric = plan.experiment.metric("error")
    assert (metric.kind, metric.direction) == ("proportion", "decrease")
    assert (
        plan.experiment.salt
        != Rollout.plan("a", experiment="x", control="v1", treatment="v2").experiment.salt
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "running"},
        {"state": "Halted"},
        {"state": None},
        {"stage_index": 3},
        {"stage_index": -1},
        {"version": "1"},
        {"version": None},
        {"looks": -1},
        {"stages": None},
        {"stages": 5},
        {"stages": []},
        {"allocations": [[1]]},
        {"allocations": [["one", {}]]},
        {"allocations": None},
        {"experiment": None},
        {"policy": {}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_damaged_state_is_refused(changes: dict[str, Any]) -> None:
    """A state file edited by hand must not become a rollout that nothing watches."""
    with pytest.raises(ConfigError):
        Rollout.from_dict(started().to_dict() | changes)


@pytest.mark.parametrize("data", [[], None, "rollout", [1, 2]])
def test_what_is_no_table_is_no_rollout(data: Any) -> None:
    with pytest.raises(ConfigError, match="table of keys"):
        Rollout.from_dict(data)


@pytest.mark.parametrize("name", ["experiment", "policy", "stages", "allocations", "treatment"])
def test_state_that_lacks_a_part_is_refused(name: str) -> None:
    data = started().to_dict()
    del data[name]
    with pytest.raises(ConfigError, match=name):
        Rollout.from_dict(data)


def test_moves_change_nothing_that_was_planned() -> None:
    before, after = draft(), halted(promoted())
    for name in ("key", "treatment", "policy", "stages"):
        assert getattr(before, name) == getattr(after, name)
    assert (after.experiment.key, after.experiment.salt) == ("ranker", "fixed")
    assert after.experiment.metrics == before.experiment.metrics
