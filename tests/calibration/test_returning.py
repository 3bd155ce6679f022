"""People who come back while the share grows: no false halts, and no stage that waits for ever.

Control loses the units that the growing share takes, and these can have no more events in it. A
test that goes on counting all of them as at risk takes the remaining events of treatment for harm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from abkit.decision import Guardrail, Policy
from abkit.judge import JudgeState, judge
from abkit.machine import advance, start
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Rollout, Stage
from tests.calibration.streams import most_rejections

if TYPE_CHECKING:
    from numpy.typing import NDArray

USERS: Final = 2_000
VISITS: Final = 60
RUNS: Final = 120
ALPHA: Final = 0.05
STAGES: Final = tuple(
    Stage(name=f"{share:g}", share=share, min_units=round(0.6 * USERS * share), min_seconds=800.0)
    for share in (0.1, 0.3, 0.7)
)


class People:
    """A population that never grows; each user has at most one bad event that counts."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.place = self.random.random(USERS)  # below the share: treatment
        self.hazard = self.random.gamma(0.5, 0.02, USERS)
        self.first = np.zeros(USERS, np.int64)  # epoch
        self.treated = np.zeros(USERS, np.bool_)  # in that epoch
        self.gone = np.zeros(USERS, np.bool_)
        self.bad = np.zeros(USERS, np.bool_)
        self.met = np.zeros(USERS, np.int64)

    def visit(self, rollout: Rollout, risk: float) -> None:
        epoch, share = rollout.last_epoch, rollout.last_share
        here = self.random.random(USERS) < 0.5
        treated = self.place < share
        new = here & (self.first == 0)
        self.first[new] = epoch
        self.treated[new] = treated[new]
        self.met[here] = epoch
        self.gone |= here & (treated != self.treated)
        rate = self.hazard * np.where(treated, risk, 1.0)
        self.bad |= here & ~self.gone & (self.random.random(USERS) < rate)

    def seen(self, rollout: Rollout, now: float) -> Observation:
        epoch = rollout.last_epoch
        arms = {"old": ~self.treated, "new": self.treated}
        exposures: dict[int, dict[str, int]] = {}
        returned: dict[int, dict[str, int]] = {}
        values: dict[int, dict[str, Moments]] = {}
        for first in range(1, epoch + 1):
            for variant, arm in arms.items():
                mine: NDArray[np.bool_] = arm & (self.first == first)
                n = int(mine.sum())
                back = int((mine & (self.met == epoch) & ~self.gone).sum())
                exposures.setdefault(first, {})[variant] = n
                returned.setdefault(first, {})[variant] = back
                bad = int((mine & self.bad).sum())
                values.setdefault(first, {})[variant] = Moments.of_counts(n, bad)
        live = int(((self.met == epoch) & (self.place < rollout.last_share)).sum())
        return Observation(now, exposures, {"error": values}, {}, returned, live)


def run(seed: int, *, risk: float = 1.0, is_naive: bool = False) -> Rollout:
    people, state, now = People(seed), JudgeState(), 0.0
    plan = Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="new",
        salt="s",
        stages=STAGES,
        policy=Policy(guardrails=(Guardrail(metric="error"),), alpha=ALPHA),
    )
    rollout = start(plan, now=now, epoch=1)
    for _ in range(VISITS):
        people.visit(rollout, risk)
        now += 100.0
        seen = people.seen(rollout, now)
        if is_naive:
            seen = replace(seen, returned=None)
        decision, state = judge(rollout, state, seen)
        rollout = advance(rollout, decision, now=now)
        if not rollout.live:
            break
    return rollout


def test_a_harmless_rollout_among_people_who_come_back_is_not_halted() -> None:
    ends = [run(seed) for seed in range(RUNS)]
    halted = sum(end.state == "halted" for end in ends)
    assert halted <= most_rejections(RUNS, ALPHA)
    reached = [end for end in ends if end.state != "halted"]
    assert all(end.stage.name == "0.7" for end in reached), "a stage waited for new people"


def test_all_of_control_taken_as_at_risk_would_halt_it() -> None:
    halted = sum(run(seed, is_naive=True).state == "halted" for seed in range(RUNS // 2))
    assert halted > most_rejections(RUNS // 2, ALPHA)


def test_a_harmful_one_is_halted() -> None:
    assert sum(run(seed, risk=6.0).state == "halted" for seed in range(20)) >= 16
