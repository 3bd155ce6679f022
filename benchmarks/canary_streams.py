"""Streams of requests and errors for `canary.py`: what a day of a rollout looks like in counts.

A scenario draws, for every block of seconds, the requests that each arm answers and the errors
among them, for many runs at once. Everything is a binomial of the block's totals, so a day at
1,000 requests a second costs no more than one at 10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

MINUTE: Final = 60
HOUR: Final = 3_600
# An erring user sends 5 requests that may fail: one does, and each other does with probability .5.
MORE_ERRORS: Final = (4, 0.5)
ERRORS_OF_ONE: Final = 3.0
REQUESTS_OF_ONE: Final = 10


@dataclass(frozen=True)
class Scenario:
    """A day of one rollout.

    Args:
        name: for the tables.
        share: share of requests that the canary answers; by quarter of the day for a ramp.
        rate: requests a second of both arms.
        base: error rate of control.
        risk: error rate of the canary over that of control, from `onset` on.
        onset: second at which the canary turns bad.
        block: seconds between two looks of abkit; every other rule has its own interval.
        hours: length.
        special: "incident" (both arms fail 20 times as often for 20 minutes at hour 6), "drift"
            (the base rate goes from half to twice `base`), "mesh" (a proxy sends the canary 1.3
            times its share), "users" (errors come in users), "diurnal" (traffic and base rate
            follow the day).
    """

    name: str
    share: tuple[float, ...]
    rate: int
    base: float = 0.01
    risk: float = 1.0
    onset: int = 0
    block: int = MINUTE
    hours: int = 24
    special: str = ""

    @property
    def blocks(self) -> int:
        """Blocks in the whole."""
        return self.hours * HOUR // self.block

    def at(self, risk: float, name: str = "") -> Scenario:
        """The same with another relative risk."""
        return replace(self, risk=risk, name=name or self.name)


@dataclass(frozen=True)
class Stream:
    """Counts by run and block.

    Args:
        n_control: requests (users, for tests on users) at risk in control.
        n_treatment: the same in the canary.
        events_control: errors among them in control.
        events_treatment: errors among them in the canary.
        baseline: requests and errors of a baseline of the canary's size, a part of control.
        users: the same stream by user, where that is another one.
        planned: share that was meant, by block.
        epoch: allocation epoch by block.
        seconds: length of a block.
    """

    n_control: Counts
    n_treatment: Counts
    events_control: Counts
    events_treatment: Counts
    planned: Floats
    epoch: Counts
    seconds: int
    baseline: tuple[Counts, Counts] | None = None
    users: Stream | None = None

    @property
    def hour(self) -> Counts:
        """Hour of each block."""
        return np.arange(self.n_control.shape[1]) * self.seconds // HOUR

    def by_minute(self) -> Stream:
        """The same counts a minute at a time."""
        if self.seconds == MINUTE:
            return self
        size = MINUTE // self.seconds

        def summed(counts: Counts) -> Counts:
            return counts.reshape(len(counts), -1, size).sum(axis=2)

        return replace(
            self,
            n_control=summed(self.n_control),
            n_treatment=summed(self.n_treatment),
            events_control=summed(self.events_control),
            events_treatment=summed(self.events_treatment),
            planned=self.planned[::size],
            epoch=self.epoch[::size],
            seconds=MINUTE,
        )

    def some(self, runs: int) -> Stream:
        """The first runs alone."""
        return replace(
            self,
            n_control=self.n_control[:runs],
            n_treatment=self.n_treatment[:runs],
            events_control=self.events_control[:runs],
            events_treatment=self.events_treatment[:runs],
            users=self.users and self.users.some(runs),
        )


def draw(scenario: Scenario, runs: int, rng: np.random.Generator) -> Stream:
    """Counts of some runs."""
    blocks = scenario.blocks
    at = (np.arange(blocks) + 0.5) / blocks
    epoch = np.arange(blocks) * len(scenario.share) // blocks
    planned = np.array(scenario.share)[epoch]
    base, total = _base(scenario, at), _traffic(scenario, at)
    late = np.arange(blocks) * scenario.block >= scenario.onset
    worse = np.minimum(1.0, base * np.where(late, scenario.risk, 1.0))
    realised = planned * (1.3 if scenario.special == "mesh" else 1.0)
    if scenario.special == "users":
        return _by_user(scenario, total, rng, runs)
    size = (runs, blocks)
    n_treatment = rng.binomial(total, realised, size)
    n_control = total - n_treatment
    events = (rng.binomial(n_control, base), rng.binomial(n_treatment, worse))
    return Stream(n_control, n_treatment, *events, planned, epoch, scenario.block)


def _base(scenario: Scenario, at: Floats) -> Floats:
    """Error rate of control by block."""
    base = np.full(len(at), scenario.base)
    if scenario.special == "incident":
        seconds = at * scenario.hours * HOUR
        base = np.where((seconds >= 6 * HOUR) & (seconds < 6 * HOUR + 1_200), 20 * base, base)
    elif scenario.special == "drift":
        base = base * 0.5 * 4**at
    elif scenario.special == "diurnal":
        base = base * (1 + 0.6 * np.sin(2 * np.pi * at))
    return base


def _traffic(scenario: Scenario, at: Floats) -> Counts:
    """Requests of both arms by block."""
    rate = np.full(len(at), float(scenario.rate))
    if scenario.special == "diurnal":
        rate = rate * (1 + 0.8 * np.sin(2 * np.pi * (at - 0.3)))
    return np.round(rate * scenario.block).astype(np.int64)


def with_baseline(stream: Stream, rng: np.random.Generator) -> Stream:
    """Adds a part of control about as large as the canary, as Kayenta's users deploy it."""
    n = stream.n_control
    sampled = rng.binomial(n, np.minimum(1.0, stream.planned / (1 - stream.planned)))
    ok = n - stream.events_control
    errors = rng.hypergeometric(stream.events_control, ok, sampled)
    return replace(stream, baseline=(sampled, errors))


def _by_user(scenario: Scenario, total: Counts, rng: np.random.Generator, runs: int) -> Stream:
    """Users who come once, for a minute: some meet errors, and then mostly several."""
    epoch = np.zeros(len(total), dtype=np.int64)
    planned = np.full(len(total), scenario.share[0])
    users = np.round(total / REQUESTS_OF_ONE).astype(np.int64)
    treated = rng.binomial(users, planned, (runs, len(users)))
    arms = (users - treated, treated)
    unlucky_rate = scenario.base * REQUESTS_OF_ONE / ERRORS_OF_ONE
    unlucky = [rng.binomial(arm, unlucky_rate) for arm in arms]
    more, chance = MORE_ERRORS
    errors = [bad + rng.binomial(more * bad, chance) for bad in unlucky]
    requests = [REQUESTS_OF_ONE * arm for arm in arms]
    # As the judge sees it: every user met so far is at risk of the new first events.
    at_risk = [np.cumsum(arm, axis=1) for arm in arms]
    by_user = Stream(*at_risk, *unlucky, planned, epoch, scenario.block)
    return Stream(*requests, *errors, planned, epoch, scenario.block, users=by_user)
