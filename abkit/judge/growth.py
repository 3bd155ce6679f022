"""How far a ramp may go: the share whose unseen harm stays within the budget.

What harms is what happens before it is seen. If treatment has a share s, its excess bad events
within the lag are `s x requests a second x lag x base rate x (relative risk - 1)`; with the upper
bound of the relative risk in its place, which holds at every look, s is as large as the budget lets
it be. The share at least doubles or reaches its maximum, so a ramp has few epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.moments import Moments
from abkit.sequential.risk import RiskBound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.moments import Block
    from abkit.observation import Observation
    from abkit.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Growth:
    """What a ramp may do now.

    Args:
        text: why, in words with numbers.
        share: share to go to at once, in (0, 1]; None to stay.
    """

    text: str
    share: float | None


def bound_after(
    rollout: Rollout, metric: str, bound: RiskBound | None, blocks: Sequence[Block]
) -> RiskBound | None:
    """The bound of a ramp after the blocks of a guardrail, if it is the one that counts."""
    if rollout.ramped != metric:
        return bound
    bound = bound or RiskBound()
    for block in blocks:
        bound = bound.update(block)
    return bound


def growth_of(rollout: Rollout, observation: Observation, bound: RiskBound | None) -> Growth | None:
    """What the ramp may do now; None off a ramp, and on one that has nowhere to go."""
    ramp, metric = rollout.ramp, rollout.ramped
    if ramp is None or metric is None or not rollout.growing:
        return None
    here = f"{_percent(rollout.last_share)} of {_percent(rollout.top_share)}"
    upper = math.inf if bound is None else bound.upper
    rate = ramp.requests_per_second or _measured_rate(rollout, observation)
    base = ramp.base_rate or _base_rate(rollout, metric, observation)
    if math.isinf(upper) or not base:
        return Growth(f"at {here}: the data exclude no relative risk of {metric} yet", None)
    allowed = ramp.budget / (rate * ramp.lag_seconds * base * (upper - 1)) if rate else 0.0
    share = min(ramp.max_share, allowed)
    grows = share >= min(2 * rollout.last_share, ramp.max_share)
    to = f"to {_percent(share)}" if grows else f"no further than {_percent(share)}"
    text = (
        f"from {here}, {to}: the relative risk of {metric} is below {upper:.3g} (95 %, at any "
        f"look), so at {rate:,.4g} units/s and {base:.3g} bad events a unit at most "
        f"{share * rate * ramp.lag_seconds * base * (upper - 1):.3g} of {ramp.budget:g} excess bad "
        f"events go unseen in {ramp.lag_seconds:g} s"
    )
    return Growth(text, share if grows else None)


def _measured_rate(rollout: Rollout, observation: Observation) -> float:
    """First exposures a second since the start."""
    started = rollout.started if rollout.started is not None else observation.time
    seconds = observation.time - started
    return observation.total_units / seconds if seconds > 0 else 0.0


def _base_rate(rollout: Rollout, metric: str, observation: Observation) -> float:
    strata = observation.strata(metric, rollout.control, rollout.treatment)
    return sum((control for control, _ in strata), Moments()).mean


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
