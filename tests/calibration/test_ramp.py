"""The risk-budget ramp against the figures of its design, through judge and machine.

1,000 requests a second, 1 % bad events in control, 60 s from an event until it is acted on, and a
budget of 100 excess bad events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pytest

from abkit.judge import JudgeState, judge
from abkit.machine import advance, start
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Ramp, Rollout
from tests.calibration.streams import note

RATE: Final = 1_000
BASE: Final = 0.01
LAG: Final = 60
RUNS: Final = 40
RAMP: Final = Ramp(budget=100.0, requests_per_second=float(RATE), lag_seconds=float(LAG))


@dataclass(frozen=True)
class End:
    """How a simulated release ended: at 50 %, or halted."""

    rollout: Rollout
    seconds: int
    excess: float


def simulate(seed: int, risk: float, ramp: Ramp = RAMP) -> End:
    """One look a second at what happened up to a minute before."""
    random, state = np.random.default_rng(seed), JudgeState()
    plan = Rollout.plan("r", experiment="x", control="old", treatment="new", salt="s", ramp=ramp)
    rollout = start(plan, now=0.0, epoch=1)
    counts: dict[int, tuple[int, int, int, int]] = {}
    past = []
    excess, now = 0.0, 0
    while rollout.live and rollout.last_share < ramp.max_share and now < 3_600:
        n = int(random.binomial(RATE, rollout.last_share))
        bad = int(random.binomial(n, min(1.0, BASE * risk)))
        own = int(random.binomial(RATE - n, BASE))
        excess += bad - n * BASE
        before = counts.get(rollout.last_epoch, (0, 0, 0, 0))
        news = (RATE - n, n, own, bad)
        counts = {
            **counts,
            rollout.last_epoch: tuple(a + b for a, b in zip(before, news, strict=True)),  # type: ignore[dict-item]
        }
        past.append(counts)
        now += 1
        if now > LAG:
            seen = observed(past[now - LAG - 1], now)
            decision, state = judge(rollout, state, seen)
            rollout = advance(rollout, decision, now=float(now))
    return End(rollout, now, excess)


def observed(counts: dict[int, tuple[int, int, int, int]], now: int) -> Observation:
    exposures = {epoch: {"old": c, "new": t} for epoch, (c, t, _, _) in counts.items()}
    cells = {
        epoch: {"old": Moments.of_counts(c, own), "new": Moments.of_counts(t, bad)}
        for epoch, (c, t, own, bad) in counts.items()
    }
    return Observation(float(now), exposures, {"error": cells}, {}, exposures, 0)


def test_a_good_release_reaches_half_of_the_units_in_about_four_minutes() -> None:
    ends = [simulate(seed, 1.0) for seed in range(RUNS)]
    grown = [end for end in ends if end.rollout.live]
    assert len(grown) >= RUNS - 3
    median = float(np.median([end.seconds for end in grown]))
    note("median seconds to 50 %", median)
    assert 180 <= median <= 320
    assert max(len(end.rollout.allocations) for end in ends) <= 1 + RAMP.growths


def test_a_release_twenty_times_worse_costs_a_fifth_of_what_fixed_steps_cost() -> None:
    ends = [simulate(seed, 20.0) for seed in range(RUNS)]
    assert {end.rollout.state for end in ends} == {"halted"}
    mean = float(np.mean([end.excess for end in ends]))
    fixed = Ramp(start_share=0.01, max_share=0.010001)  # 1 % until a person looks
    step = [simulate(seed, 20.0, fixed) for seed in range(10)]
    costs = float(np.mean([end.excess for end in step if end.rollout.state == "halted"]))
    note("excess bad events, ramp", mean)
    note("excess bad events, fixed 1 %", costs)
    assert 15 <= mean <= 33
    assert costs >= 100


@pytest.mark.parametrize("risk", [2.0, 5.0, 100.0])
def test_no_relative_risk_costs_more_than_the_budget_on_average(risk: float) -> None:
    ends = [simulate(seed, risk) for seed in range(RUNS)]
    mean = float(np.mean([end.excess for end in ends]))
    note(f"excess bad events at {risk:g} times", mean)
    assert all(end.rollout.state == "halted" for end in ends)
    assert mean <= 1.15 * RAMP.budget  # what is in flight, and a few seconds of looking
