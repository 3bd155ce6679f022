"""Several treatments that are judged again and again: how often a wrong one wins or is dropped."""

from __future__ import annotations

from typing import Final

import numpy as np

from abkit.decision import Guardrail, Objective, Policy
from abkit.judge import JudgeState, judge
from abkit.machine import advance, start
from abkit.metrics import Metric
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Rollout, Stage
from tests.calibration.streams import most_rejections

RUNS: Final = 200
ALPHA: Final = 0.1
BETA: Final = 0.2
LOOKS: Final = 30
UNITS_A_LOOK: Final = 600
ARMS: Final = ("a", "b", "c")
STAGES: Final = (
    Stage(name="30 %", share=0.3, min_units=100),
    Stage(name="60 %", share=0.6, min_units=300),
)


def plan() -> Rollout:
    return Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="a",
        rivals=("b", "c"),
        salt="s",
        stages=STAGES,
        policy=Policy(
            # The margin is wide, so that the objective alone decides who wins.
            guardrails=(Guardrail(metric="error", margin=3.0),),
            objectives=(Objective(metric="bought"),),
            alpha=ALPHA,
            beta=BETA,
        ),
        metrics=(Metric(key="bought", kind="proportion"),),
    )


def run(seed: int, *, bought: dict[str, float], errors: dict[str, float]) -> Rollout:
    """One contest, with a look after each few hundred new units."""
    random = np.random.default_rng(seed)
    rollout, state, now = start(plan(), now=0.0, epoch=1), JudgeState(), 0.0
    counts: dict[int, dict[str, list[int]]] = {}
    for _ in range(LOOKS):
        now += 60.0
        weights, row = rollout.experiment.weights, counts.setdefault(rollout.last_epoch, {})
        for name, n in zip(
            weights, random.multinomial(UNITS_A_LOOK, list(weights.values())), strict=True
        ):
            new = (
                n,
                random.binomial(n, errors.get(name, 0.05)),
                random.binomial(n, bought.get(name, 0.2)),
            )
            row[name] = [x + int(y) for x, y in zip(row.get(name, [0, 0, 0]), new, strict=True)]
        values = {
            metric: {
                epoch: {name: Moments.of_counts(x[0], x[place]) for name, x in cells.items()}
                for epoch, cells in counts.items()
            }
            for place, metric in ((1, "error"), (2, "bought"))
        }
        exposures = {epoch: {k: x[0] for k, x in cells.items()} for epoch, cells in counts.items()}
        first, *others = (row[arm][0] for arm in rollout.arms)
        lives = dict(zip(rollout.rivals, others, strict=True))
        seen = Observation(now, exposures, values, live=first, lives=lives)
        decision, state = judge(rollout, state, seen)
        rollout = advance(rollout, decision, now=now)
        if not rollout.live:
            break
    return rollout


def test_of_three_that_equal_control_one_wins_as_rarely_as_the_plan_says() -> None:
    ends = [run(seed, bought={}, errors={}) for seed in range(RUNS)]
    assert sum(end.state == "promoted" for end in ends) <= most_rejections(RUNS, BETA)
    dropped = [end for end in ends if end.dropped and end.state != "promoted"]
    assert len(dropped) <= most_rejections(RUNS, ALPHA)


def test_the_harmed_one_is_dropped_and_the_better_one_wins() -> None:
    bought, errors = {"c": 0.28, "b": 0.3}, {"b": 0.15}
    ends = [run(seed, bought=bought, errors=errors) for seed in range(40)]
    winners = [end.treatment for end in ends if end.state == "promoted"]
    assert sum(name == "c" for name in winners) >= 36
    assert "b" not in winners
    assert sum(end.dropped[0] == "b" for end in ends if end.dropped) >= 38


def test_the_best_of_two_better_ones_wins_most_of_the_time() -> None:
    ends = [run(seed, bought={"a": 0.24, "b": 0.32}, errors={}) for seed in range(40)]
    assert sum(end.state == "promoted" and end.treatment == "b" for end in ends) >= 36
