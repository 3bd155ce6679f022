"""Guardrails as the judge puts them together: averages of tests, budgets and bounds keep alpha."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pytest

from abkit.decision import Guardrail, Policy
from abkit.judge import JudgeState, judge
from abkit.machine import start
from abkit.metrics import Metric
from abkit.moments import Block, Moments
from abkit.observation import Observation, Paired
from abkit.rollout import Rollout, Stage
from abkit.sequential.risk import RiskBound
from tests.calibration.streams import most_rejections

ALPHA: Final = 0.05
RUNS: Final = 120
LOOKS: Final = 40
PER_LOOK: Final = 60
WRONG: Final = Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude")


def started(margin: float) -> Rollout:
    plan = Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="new",
        salt="s",
        metrics=(WRONG,),
        stages=(Stage(name="50 %", share=0.5, min_units=10**9),),
        policy=Policy(
            guardrails=(Guardrail(metric="wrong", test="difference", margin=margin),),
            alpha=ALPHA,
            planned_units=LOOKS * PER_LOOK * 2,
        ),
    )
    return start(plan, now=0.0, epoch=1)


def halts(seed: int, rollout: Rollout, base: float, worse: float, *, paired: bool = False) -> bool:
    """Whether any look at one stream halts."""
    random, state = np.random.default_rng(seed), JudgeState()
    n, bad = 0, [0, 0]
    only = [0, 0]
    for look in range(1, LOOKS + 1):
        n += PER_LOOK
        bad = [bad[0] + random.binomial(PER_LOOK, base), bad[1] + random.binomial(PER_LOOK, worse)]
        cells = {name: Moments.of_counts(n, x) for name, x in zip(("old", "new"), bad, strict=True)}
        pairs = {}
        if paired:  # other units, answered by both; where they differ, one alone is wrong
            lone = random.multinomial(PER_LOOK, [base, worse, 1 - base - worse])
            only = [only[0] + int(lone[0]), only[1] + int(lone[1])]
            total, mean = only[0] + only[1], (only[1] - only[0]) / n
            spread = Moments(n, mean, total - n * mean * mean)
            pairs["wrong"] = Paired(
                spread, Moments.of_counts(n, only[0]), Moments.of_counts(n, only[1])
            )
        seen = Observation(60.0 * look, {1: {"old": n, "new": n}}, {"wrong": {1: cells}}, pairs)
        decision, state = judge(rollout, state, seen)
        if decision.action == "halt":
            return True
    return False


@pytest.mark.parametrize(
    ("base", "margin", "paired"),
    [(0.2, 0.02, False), (0.1, 0.05, False), (0.03, 0.03, False), (0.2, 0.02, True)],
)
def test_a_difference_guardrail_keeps_alpha_as_a_whole(
    base: float, margin: float, *, paired: bool
) -> None:
    """On the border of what it allows: worse by the margin, and twice as often bad at most."""
    rollout = started(margin)
    halted = sum(halts(seed, rollout, base, base + margin, paired=paired) for seed in range(RUNS))
    assert halted <= most_rejections(RUNS, ALPHA)


def test_a_difference_guardrail_sees_harm_and_total_failure() -> None:
    rollout = started(0.02)
    assert sum(halts(seed, rollout, 0.2, 0.3) for seed in range(20)) >= 16
    assert all(halts(seed, rollout, 0.2, 1.0) for seed in range(3))


@pytest.mark.parametrize("risk", [1.0, 1.5, 4.0])
def test_the_bound_of_the_relative_risk_holds_at_every_look(risk: float) -> None:
    """On a ramp whose base rate drifts: the chance that it is ever below the truth is alpha."""
    random, missed, runs = np.random.default_rng(5), 0, 300
    for _ in range(runs):
        bound = RiskBound(ALPHA)
        least = math.inf
        for look in range(40):
            n_treatment = min(500, 10 * 2 ** (look // 5))
            base = 0.01 * (1 + look % 7)
            events = (
                int(random.binomial(1_000 - n_treatment, base)),
                int(random.binomial(n_treatment, min(1.0, base * risk))),
            )
            bound = bound.update(Block(1_000 - n_treatment, n_treatment, *events))
            least = min(least, bound.upper)
        missed += least < risk
    assert missed <= most_rejections(runs, ALPHA)


def test_the_bound_comes_near_the_truth() -> None:
    bound = RiskBound(ALPHA).update(Block(500_000, 500_000, 5_000, 5_000))
    assert 1 < bound.upper < 1.2
    assert RiskBound(ALPHA).update(Block(1_000, 0, 10, 0)).upper == math.inf
