"""Bursty arrivals on a clock that runs faster than the wall's.

Arrivals are a renewal process with gamma gaps whose rate wanders from minute to minute, which is
the shape of the public traces of inference traffic: bursts and lulls, not an even stream.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

GAP_SHAPE = 0.5
"""Shape of the gamma gaps: their coefficient of variation is 1 / sqrt(shape) = 1.41."""
RATE_SIGMA = 0.35
"""Standard deviation of the logarithm of the rate, from minute to minute."""
MINUTE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DemoClock:
    """Seconds since 1970 that pass `speed` times as fast as the wall clock's.

    Args:
        wall_start: wall clock when the demo began, seconds since 1970.
        demo_start: what this clock showed then.
        speed: demo seconds per second.
    """

    wall_start: float
    demo_start: float
    speed: float

    def __call__(self) -> float:
        """The demo's time now."""
        return self.demo_start + (time.time() - self.wall_start) * self.speed


def arrivals(rate: float, *, since: float, seed: int) -> Iterator[float]:
    """Times of requests, without end.

    Args:
        rate: mean requests per demo second.
        since: time of the start, seconds since 1970.
        seed: seed of the generator.
    """
    random = np.random.default_rng(seed)
    now, minute, current = since, -1.0, rate
    while True:
        if now // MINUTE_SECONDS != minute:
            minute = now // MINUTE_SECONDS
            # The lognormal factor has mean 1.
            current = rate * float(random.lognormal(-(RATE_SIGMA**2) / 2, RATE_SIGMA))
        now += float(random.gamma(GAP_SHAPE, 1 / (GAP_SHAPE * current)))
        yield now
