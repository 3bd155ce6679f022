"""Evidence of pairs and of live units, side by side."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from abkit.decision import Guardrail, Objective, Policy
from abkit.errors import ConfigError, DataError
from abkit.judge import JudgeState, judge
from abkit.machine import hold, resume, start
from abkit.metrics import Metric
from abkit.moments import Moments
from abkit.observation import Observation, Paired
from abkit.rollout import Ramp, Rollout, Stage

if TYPE_CHECKING:
    from abkit.sequential.canary import CanaryState

POLICY = Policy(
    guardrails=(Guardrail(metric="wrong", test="difference", margin=0.01),),
    objectives=(Objective(metric="latency_ms"),),
    planned_units=4_000,
)
METRICS = (
    Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude"),
    Metric(key="latency_ms", direction="decrease", log=True),
)
PAIRS = {
    # 8,000 pairs: equal quality, and twice as fast
    "wrong": Paired(
        Moments(8_000, 0.0, 160.0), Moments.of_counts(8_000, 1_360), Moments.of_counts(8_000, 1_360)
    ),
    "latency_ms": Paired(
        Moments(8_000, -0.7, 320.0), Moments(8_000, 2.0, 320.0), Moments(8_000, 1.3, 320.0)
    ),
}


def rollout() -> Rollout:
    stages = (Stage(name="50 %", share=0.5, min_units=100),)
    plan = Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="new",
        policy=POLICY,
        metrics=METRICS,
        stages=stages,
        salt="s",
    )
    return start(plan, now=0.0, epoch=1)


def observed(wrong: int, slower: float, pairs: dict[str, Paired] = PAIRS) -> Observation:
    n = 1_500
    live = {
        "wrong": {1: {"old": Moments.of_counts(n, 255), "new": Moments.of_counts(n, wrong)}},
        "latency_ms": {1: {"old": Moments(n, 2.0, 60.0), "new": Moments(n, 2.0 + slower, 60.0)}},
    }
    return Observation(60.0, {1: {"old": n, "new": n}}, live, pairs)


def look(
    wrong: int, slower: float, state: JudgeState | None = None
) -> tuple[str, dict[str, float]]:
    decision, _ = judge(rollout(), state or JudgeState(), observed(wrong, slower))
    return decision.action, {item.metric: item.e_promote for item in decision.evidence}


def test_pairs_and_live_units_that_agree_promote() -> None:
    action, e_promote = look(wrong=255, slower=-0.7)
    assert action == "promote"
    assert min(e_promote.values()) > 20


def test_live_units_that_contradict_outweigh_any_number_of_pairs() -> None:
    action, e_promote = look(wrong=255, slower=0.35)
    assert action == "continue"
    assert e_promote["latency_ms"] < 20 < e_promote["wrong"]


def shown_once() -> JudgeState:
    _, state = judge(rollout(), JudgeState(), observed(wrong=255, slower=-0.7))
    assert min(state.peaks.values()) > 20
    return state


def test_what_was_shown_stays_shown_while_live_units_are_noise() -> None:
    few = {name: Paired(Moments(), Moments(), Moments()) for name in PAIRS}
    noise = observed(wrong=262, slower=-0.7, pairs=few)
    decision, _ = judge(rollout(), JudgeState(), noise)
    assert decision.action == "continue"
    decision, _ = judge(rollout(), shown_once(), noise)
    assert decision.action == "promote"


def test_live_units_that_contradict_end_what_was_shown() -> None:
    action, e_promote = look(wrong=255, slower=0.35, state=shown_once())
    assert action == "continue"
    assert e_promote["latency_ms"] < 1
    decision, after = judge(rollout(), shown_once(), observed(wrong=255, slower=0.35))
    assert after.peaks["objective", "latency_ms"] < 1
    assert decision.action == "continue"


def split(old: int, new: int, *, time: float) -> Observation:
    return Observation(time, {1: {"old": old, "new": new}})


def test_a_split_that_a_person_has_accepted_stops_nothing_again() -> None:
    first = rollout()
    decision, state = judge(first, JudgeState(), split(2_000, 1_000, time=60.0))
    assert (decision.action, decision.alarms[0].check) == ("hold", "sample_ratio_mismatch")
    resumed = resume(
        hold(first, now=61.0, reason="srm", actor="abkit"), now=70.0, reason="known", actor="ann"
    )
    decision, state = judge(resumed, state, split(2_100, 1_100, time=80.0))
    assert decision.alarms == ()
    decision, state = judge(resumed, state, split(3_100, 2_100, time=90.0))
    assert decision.alarms == ()
    decision, _ = judge(resumed, state, split(5_100, 3_100, time=99.0))
    assert decision.action == "hold"


def counting(guardrail: Guardrail, *, window: float | None = None) -> Rollout:
    metric = Metric(key="error", kind="proportion", direction="decrease", window_seconds=window)
    plan = Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="new",
        policy=Policy(guardrails=(guardrail,)),
        metrics=(metric,),
        stages=(Stage(name="50 %", share=0.5, min_units=100),),
        salt="s",
    )
    return start(plan, now=0.0, epoch=1)


def errors(bad: int, n: int = 1_000, *, time: float = 60.0) -> Observation:
    cells = {"old": Moments.of_counts(n, 0), "new": Moments.of_counts(n, bad)}
    return Observation(time, {1: {"old": n, "new": n}}, {"error": {1: cells}})


def test_a_budget_halts_at_the_first_event_beyond_it() -> None:
    rollout = counting(Guardrail(metric="error", test="budget", budget=50))
    decision, state = judge(rollout, JudgeState(), errors(50))
    assert decision.action == "promote"
    assert decision.reasons == ("error: 50 bad events, at most 50 bad events was asked",)
    assert decision.evidence[0].e_harm == 1.0
    decision, state = judge(rollout, state, errors(51))
    assert decision.action == "halt"
    assert decision.reasons == (
        "error has used up its budget: 51 bad events in 1,000 units of treatment, 50 were allowed",
    )
    json.dumps(decision.to_dict(), allow_nan=False)


def test_a_budget_without_an_outcome_waits() -> None:
    rollout = counting(Guardrail(metric="error", test="budget", budget=50))
    decision, _ = judge(rollout, JudgeState(), Observation(60.0, {1: {"old": 900, "new": 900}}))
    assert decision.action == "continue"
    assert "no outcome 'error' has been recorded" in decision.reasons[0]


def test_with_a_window_only_units_new_in_the_count_are_at_risk() -> None:
    late = counting(Guardrail(metric="error"), window=60.0)
    _, state = judge(late, JudgeState(), errors(0))
    counted = state.guardrails["error"].counted
    assert counted[1, "new"] == (1_000, 0)
    cells = {"old": Moments.of_counts(1_050, 3), "new": Moments.of_counts(1_010, 5)}
    after = Observation(90.0, {1: {"old": 1_050, "new": 1_010}}, {"error": {1: cells}})
    _, state = judge(late, state, after)
    assert state.guardrails["error"].counted[1, "new"] == (1_010, 5)
    # 5 of 8 events where a sixth of the units was at risk, which at a half would be nothing.
    assert state.guardrails["error"].harm.log_e_value > 1.5


def test_a_limit_may_count_units_as_zeros_once_their_window_is_over() -> None:
    limit = Guardrail(metric="error", test="limit", limit=0.01)
    decision, _ = judge(counting(limit, window=60.0), JudgeState(), errors(100))
    assert decision.action == "halt"
    with pytest.raises(ConfigError, match="window_seconds"):
        counting(limit)


def test_units_met_in_this_stage_are_counted_whatever_they_had_before() -> None:
    rollout = counting(Guardrail(metric="error"))
    few = Observation(60.0, {1: {"old": 50, "new": 50}}, {"error": {1: {}}}, live=100)
    decision, _ = judge(rollout, JudgeState(), few)
    assert not any("units in stage" in reason for reason in decision.reasons)
    decision, _ = judge(rollout, JudgeState(), replace(few, live=None))
    assert "50 of 100 units" in decision.reasons[0]


def test_a_state_goes_through_json_to_the_bit() -> None:
    plan = counting(Guardrail(metric="error"))
    ramp = replace(plan, ramp=Ramp(start_share=0.4), stages=(replace(plan.stage, share=0.4),))
    for rollout, seen in ((ramp, errors(7)), (rollout_of_pairs(), observed(255, -0.7))):
        _, state = judge(rollout, JudgeState(), seen)
        again = JudgeState.from_dict(json.loads(json.dumps(state.to_dict())))
        assert again == state
        later = replace(seen, time=9_000.0)
        assert judge(rollout, again, later) == judge(rollout, state, later)


@pytest.mark.parametrize("data", [{}, {"guardrails": 1}, {"accepted": [[1]]}])
def test_a_state_of_another_shape_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(DataError, match="not a state of the judge"):
        JudgeState.from_dict(JudgeState().to_dict() | data if data else data)


def rollout_of_pairs() -> Rollout:
    return rollout()


@pytest.mark.parametrize(
    ("back", "harm", "safe"),
    [
        ({"old": 400, "new": 500}, (0.5, 5), (5 / 9, 5)),  # of 900 again, more in treatment
        ({"old": 500, "new": 400}, (0.5, 5), (4 / 9, 5)),
        ({"old": 1, "new": 2}, (0.5, 5), (2 / 3, 5)),  # fewer than events: only the share counts
        ({"old": 9, "new": 0}, (0.5, 5), None),
        ({}, (0.5, 5), (0.5, 5)),
    ],
)
def test_each_test_takes_the_share_that_makes_it_slower(
    back: dict[str, int], harm: tuple[float, int], safe: tuple[float, int] | None
) -> None:
    first = counting(Guardrail(metric="error"))
    second = grow_by_hand(first)
    cells = {"old": Moments.of_counts(1_000, 3), "new": Moments.of_counts(1_000, 5)}
    seen = Observation(
        90.0, {1: {"old": 1_000, "new": 1_000}}, {"error": {1: cells}}, {}, {1: back}
    )
    _, state = judge(second, JudgeState(), seen)
    found = state.guardrails["error"]
    assert found.safe is not None
    shares = [theta for theta, _ in (harm, safe or harm)]
    largest, smallest = max(shares), min(shares)
    assert found.harm.log_e_value == pytest.approx(by_share(found.harm, largest, 5, 8))
    expected = 0.0 if safe is None else by_share(found.safe, smallest, 5, 8)
    assert found.safe.log_e_value == pytest.approx(expected)


def grow_by_hand(rollout: Rollout) -> Rollout:
    """The next epoch of the same stage."""
    experiment = rollout.experiment.reweight({"old": 0.4, "new": 0.6})
    return replace(rollout, experiment=experiment)


def by_share(state: CanaryState, theta: float, hits: int, trials: int) -> float:
    """Log e-value of one block with a share of treatment, written out."""
    null = state.design.null_relative_risk

    def side(risk: float) -> float:
        return risk * theta / (risk * theta + 1 - theta)

    ratios = [
        weight
        * (side(risk) / side(null)) ** hits
        * ((1 - side(risk)) / (1 - side(null))) ** (trials - hits)
        for risk, weight in zip(state.design.relative_risks, state.design.weights, strict=True)
    ]
    started = state.design.start_weight(0)
    return math.log(1 - started + started * math.fsum(ratios))
