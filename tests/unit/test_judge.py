"""Evidence of pairs and of live units, side by side."""

from __future__ import annotations

from abkit.decision import Guardrail, Objective, Policy
from abkit.judge import JudgeState, judge
from abkit.machine import hold, resume, start
from abkit.metrics import Metric
from abkit.moments import Moments
from abkit.observation import Observation, Paired
from abkit.rollout import Rollout, Stage

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
