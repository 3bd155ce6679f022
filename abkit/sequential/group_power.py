"""What a group sequential plan costs and finds: power, expected information, inflation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import optimize, special

from abkit.errors import DesignError
from abkit.sequential.group_look import Statistic
from abkit.sequential.group_walk import (
    START,
    Walk,
    above,
    advance,
    below,
    from_score,
    tilted,
)
from abkit.stats.difference import tail_alpha

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.sequential.group import GroupSequential
    from abkit.sequential.group_look import GroupLook
    from abkit.sequential.group_plan import GroupPlan
    from abkit.sequential.group_walk import Path

_HIGHEST_DRIFT: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPower:
    """What a plan does under one drift.

    Args:
        method: that of the plan.
        alpha: that of the plan.
        alternative: that of the plan.
        drift: mean of z at the planned end.
        reject: probability of rejecting at each look, in the direction of a positive drift.
        reverse: probability of rejecting in the other direction at each look; zeros if one-sided.
        futility: probability of stopping for futility at each look; zeros without futility.
        power: probability of rejecting in the direction of a positive drift at some look; alpha/2
            at drift 0 if two-sided.
        expected_fraction: expected information at the end of the test over the planned
            information, in (0, 1].
    """

    method: str
    alpha: float
    alternative: Alternative
    drift: float
    reject: tuple[float, ...]
    reverse: tuple[float, ...]
    futility: tuple[float, ...]
    power: float
    expected_fraction: float


def power_of(plan: GroupPlan, drift: float) -> GroupPower:
    """Power and expected information of a plan.

    Args:
        plan: looks and boundaries; stops for futility are obeyed, binding or not.
        drift: mean of z at the planned end (effect times the root of the planned information), in
            the direction of the alternative, within [-30, 30].

    Returns:
        Probabilities of each way to stop; `expected_fraction` times the planned units is the
        expected size (average sample number, ASN).

    Raises:
        DesignError: drift is unusable.

    Source: Jennison, Turnbull (2000), section 19.3.

    Examples:
        >>> from abkit.sequential.group_plan import even, wang_tsiatis_plan
        >>> fleming = wang_tsiatis_plan(even(5), delta=0)
        >>> round(power_of(fleming, 0.0).power, 6)
        0.025
        >>> result = power_of(fleming, drift_for(fleming, 0.8))
        >>> round(inflation(fleming, 0.8) * result.expected_fraction, 4)  # rpact 3.3.4
        0.8176
    """
    return _power(plan, _walks(plan, abs(_checked(drift))), drift)


def drift_for(plan: GroupPlan, power: float) -> float:
    """Drift, the mean of z at the planned end, at which a plan has a given power.

    Args:
        plan: looks and boundaries.
        power: wanted probability of rejecting, above alpha and below 1.

    Returns:
        The drift, > 0. The planned information is its square over that of the effect.

    Raises:
        DesignError: power is unusable, or out of reach of the plan.

    Examples:
        >>> from abkit.sequential.group_plan import even, spending_plan
        >>> round(drift_for(spending_plan(even(1)), 0.8), 4)  # z_.025 + z_.2
        2.8016
    """
    if not plan.alpha < power < 1:
        raise DesignError(f"power must lie between alpha {plan.alpha} and 1, got {power}")
    reach = 10.0
    walks = _walks(plan, reach)
    if _power(plan, walks, reach).power < power:
        reach = _HIGHEST_DRIFT
        walks = _walks(plan, reach)
        if _power(plan, walks, reach).power < power:
            raise DesignError(f"a power of {power} is out of reach of this plan")
    found = optimize.brentq(
        lambda drift: _power(plan, walks, drift).power - power, 0.0, reach, xtol=1e-11
    )
    return float(found)


def inflation(plan: GroupPlan, power: float) -> float:
    """Largest size of a group sequential test over the size of the fixed one of the same power.

    Args:
        plan: looks and boundaries.
        power: probability of rejecting, above alpha and below 1.

    Returns:
        The factor R, > 0: a fixed test that needs n units becomes one of at most R n.

    Raises:
        DesignError: power is unusable.

    Source: Jennison, Turnbull (2000), tables 2.2, 2.4 and 2.10.

    Examples:
        >>> from abkit.sequential.group_plan import even, wang_tsiatis_plan
        >>> round(inflation(wang_tsiatis_plan(even(5), delta=0), 0.8), 5)  # rpact 3.3.4
        1.02841
    """
    drift = drift_for(plan, power)
    quantile = -float(special.ndtri(tail_alpha(plan.alpha, plan.alternative)))
    return (drift / (quantile + float(special.ndtri(power)))) ** 2


def conditional_power(
    design: GroupSequential,
    past: Sequence[GroupLook],
    future: Sequence[float],
    *,
    effect: float | None = None,
) -> float:
    """Probability of rejecting at a future look, given what has been seen.

    Args:
        design: the design.
        past: all looks so far, as `design.look` returned them.
        future: information at each remaining look, rising and above the last tested look; the last
            of them is the end.
        effect: assumed mean of z / sqrt(information), with its sign; the current estimate (the
            trend) if None.

    Returns:
        A probability: 1.0 after a rejection, 0.0 after a binding stop for futility or without a
        look that may still be tested. Before any tested look it is the power.

    Raises:
        DesignError: effect is not finite, or out of reach (30 standard errors at the end).

    Source: Lan, Simon, Halperin (1982); Jennison, Turnbull (2000), section 10.2.

    Examples:
        >>> from abkit.sequential.group import GroupSequential, Statistic
        >>> design = GroupSequential(planned_information=1.0, alpha=0.025, alternative="greater")
        >>> half = design.look(Statistic(1.5, 0.5))
        >>> round(conditional_power(design, (half,), [1.0]), 4)
        0.5855
    """
    if past and past[-1].decision == "reject":
        return 1.0
    if past and past[-1].decision == "futility" and design.binding:
        return 0.0
    tested = [look for look in past if look.clock_status == "ok"]
    looks = tuple(past)
    ahead: list[GroupLook] = []
    for index, information in enumerate(future):  # boundaries do not depend on z
        at = Statistic(0.0, information)
        look = design.look(at, looks, final=index + 1 == len(future))
        looks = (*looks, look)
        ahead += [look] if look.clock_status == "ok" else []
    sign = -1.0 if design.alternative == "less" else 1.0
    score, reached = 0.0, 0.0
    if tested:
        reached = tested[-1].information
        score = sign * tested[-1].z * math.sqrt(reached)
    trend = score / reached if reached else 0.0
    path = [s for s in design.path(ahead, futility=design.binding) if s[0] > reached]
    if not path:
        return 0.0
    end = math.sqrt(path[-1][0])
    farthest = _HIGHEST_DRIFT / end  # a trend beyond it decides as surely as there
    assumed = min(max(trend, -farthest), farthest) if effect is None else sign * effect
    _checked(assumed * end / (1 + 1e-12))
    two_sided = design.alternative == "two-sided"
    start = from_score(score, reached) if reached else START
    return _reject(tuple(path), start, assumed, two_sided=two_sided)


def _reject(path: Path, walk: Walk, effect: float, *, two_sided: bool) -> float:
    """Probability of rejecting along a path that starts from a walk."""
    total = 0.0
    for k, step in enumerate(path):
        masses = tilted(walk, effect)
        total += above(walk, masses, step[0], step[2], effect)
        if two_sided:
            total += below(walk, masses, step[0], step[1], effect)
        if k + 1 < len(path):
            reach = abs(effect) * math.sqrt(step[0]) + abs(walk.origin[0]) / math.sqrt(step[0])
            walk = advance(walk, step, path[k + 1][0], reach=reach)
    return min(1.0, total)


def _checked(drift: float) -> float:
    if not abs(drift) <= _HIGHEST_DRIFT:
        raise DesignError(f"the drift must lie within [-30, 30] standard errors, got {drift}")
    return drift


def _walks(plan: GroupPlan, reach: float) -> list[Walk]:
    """Runs that come to each look, with nodes as far out as the drift may carry them."""
    walks = [START]
    for step, following in zip(plan.path, plan.fractions[1:], strict=False):
        walks.append(advance(walks[-1], step, following, reach=reach))
    return walks


def _power(plan: GroupPlan, walks: Sequence[Walk], drift: float) -> GroupPower:
    up, down = [], []
    for walk, (t, low, high) in zip(walks, plan.path, strict=True):
        masses = tilted(walk, drift)
        up.append(above(walk, masses, t, high, drift))
        down.append(below(walk, masses, t, low, drift))
    nothing = (0.0,) * len(up)
    two_sided = plan.alternative == "two-sided"
    running = 1 - np.concatenate([[0.0], np.cumsum(np.add(up, down))[:-1]])
    return GroupPower(
        method=plan.method,
        alpha=plan.alpha,
        alternative=plan.alternative,
        drift=drift,
        reject=tuple(up),
        reverse=tuple(down) if two_sided else nothing,
        futility=nothing if two_sided else tuple(down),
        power=min(1.0, math.fsum(up)),
        expected_fraction=float(running @ np.diff(plan.fractions, prepend=0.0)),
    )
