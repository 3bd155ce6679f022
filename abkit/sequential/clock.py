"""The clock of a stratified contrast: its variance, and when asymptotics may be relied on.

Shared by `contrast`, for the designs, and `mixture`, for what rollouts ask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from abkit.stats.difference import successes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from abkit.moments import Moments

Kind = Literal["proportion", "mean"]

FEWEST_EVENTS: Final = 25  # and as many non-events, in each arm
FEWEST_UNITS: Final = 25


def separate_clock(
    weights: Sequence[float], arms: Sequence[Moments], others: Sequence[Moments]
) -> float:
    """One arm's part of the clock: sum of h_k^2 var_k / n_k."""
    freedom = sum(arm.n - 1 for arm in arms)
    pooled = total(arm.m2 for arm in arms) / freedom if freedom else None
    return total(
        w
        * w
        / arm.n
        * (arm.variance if arm.n > 1 else other.variance if pooled is None else pooled)
        for w, arm, other in zip(weights, arms, others, strict=True)
    )


def pooled_clock(
    weights: Sequence[float], strata: Sequence[tuple[Moments, Moments]]
) -> tuple[float, float]:
    """Both arms' parts of the clock, (control, treatment), with one variance for both arms."""
    parts = []
    for w, (control, treatment) in zip(weights, strata, strict=True):
        freedom = control.n + treatment.n - 2
        variance = (control.m2 + treatment.m2) / freedom if freedom else 0.0
        parts.append((w * w / control.n * variance, w * w / treatment.n * variance))
    return total(part for part, _ in parts), total(part for _, part in parts)


def is_enough(arms: Sequence[Moments], kind: Kind) -> bool:
    """Whether the asymptotics may be relied on for this arm."""
    n = sum(arm.n for arm in arms)
    if kind == "mean":
        return n >= FEWEST_UNITS
    events = sum(successes_of(arm) for arm in arms)
    return min(events, n - events) >= FEWEST_EVENTS


def total(values: Iterable[float]) -> float:
    """Correctly rounded sum; infinite where it does not fit into a float."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.inf
