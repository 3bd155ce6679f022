"""Estimates after a group sequential test has stopped: p-value, median-unbiased estimate, interval.

A test that may stop early stops on large values, so its plain estimate is too large and its plain
p-value too small. The stagewise ordering repairs both: an outcome is the more extreme the earlier
it stopped, and at the same look the larger its statistic. It needs no plan for looks that never
happened, so it fits spending functions (Jennison, Turnbull 2000, section 8.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scipy import optimize, special

from abkit.estimate import Guarantee, Interval, Scale, Status
from abkit.sequential.group_plan import CLOSEST
from abkit.sequential.group_walk import START, Walk, above, advance, tilted
from abkit.stats.difference import tail_alpha

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.sequential.group import GroupSequential
    from abkit.sequential.group_look import GroupLook
    from abkit.sequential.group_walk import Path

_FARTHEST: Final = 20.0  # standard errors within which effects are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class StagewiseEstimate:
    """What a stopped group sequential test says about the effect.

    Args:
        alpha: error probability of the interval.
        alternative: side of the test.
        status: "ok"; "insufficient_data" before any tested look; "undefined" for a statistic
            beyond 20 standard errors at a later look, where no effect explains the data.
        look: number of the look that the answer is for; None before any.
        p_value: in [0, 1]; None where undefined.
        estimate: median-unbiased: the effect under which the outcome is the median.
        interval: confidence interval of coverage 1 - alpha; None where undefined.
        stopped: whether the test has stopped; if not, this holds if it stopped here.
        method: always "stagewise".
        guarantee: always "asymptotic".
        scale: that of the design.
    """

    alpha: float
    alternative: Alternative
    status: Status = "ok"
    look: int | None = None
    p_value: float | None = None
    estimate: float | None = None
    interval: Interval | None = None
    stopped: bool = False
    method: str = "stagewise"
    guarantee: Guarantee = "asymptotic"
    scale: Scale = "absolute"


def stagewise(design: GroupSequential, past: Sequence[GroupLook]) -> StagewiseEstimate:
    """P-value, median-unbiased estimate and interval of a test that stopped.

    The p-value is at most the spent alpha exactly if the test rejected. For the two-sided test it
    is twice the smaller tail. Non-binding futility stops are ignored, as if the test had been
    meant to go on.

    Args:
        design: the design.
        past: all looks, as `design.look` returned them. Looks after the one that stopped are
            ignored (overrunning); without a stop the last tested one counts as the end. Where the
            end came without new information, tested looks with as much are left out.

    Returns:
        The estimate: in units of z / sqrt(information), or in the metric's unit where the looks
        were given standard errors. One-sided intervals have an infinite end.

    Source: Tsiatis, Rosner, Mehta (1984); Fairbanks, Madsen (1982); Jennison, Turnbull (2000),
    sections 8.4 and 8.5.

    Examples:
        >>> from abkit.sequential.group import GroupSequential
        >>> design = GroupSequential(planned_information=4.0)
        >>> looks = design.replay([(1.0, 1.0), (3.2, 2.0)])
        >>> result = stagewise(design, looks)
        >>> round(result.p_value, 6), round(result.estimate, 4), round(looks[-1].estimate, 4)
        (0.001382, 2.2624, 2.2627)
    """
    blank = StagewiseEstimate(
        alpha=design.alpha,
        alternative=design.alternative,
        status="insufficient_data",
        scale=design.scale,
    )
    tested = [look for look in past if look.clock_status == "ok"]
    tested = [k for k in tested if k.stopped_at is None or k.number <= k.stopped_at]
    if not tested:
        return blank
    last = tested[-1]
    z, information = last.z, last.information
    path = design.path(tested[:-1], futility=design.binding)
    while path and path[-1][0] * (1 + CLOSEST) >= information:  # the end came without new
        path = path[:-1]
    two_sided = design.alternative == "two-sided"
    flip = -1.0 if design.alternative == "less" or (two_sided and z < 0) else 1.0
    blank = replace(blank, look=last.number, stopped=last.decision != "continue")
    series = _Series(path, flip * z, information)
    tail = tail_alpha(design.alpha, design.alternative)
    tail_p = series.at_least(0.0)
    low, middle, high = (series.effect_at(p) for p in (tail, 0.5, 1 - tail))
    if low is None or middle is None or high is None:
        return replace(blank, status="undefined", p_value=_p_value(tail_p, two_sided=two_sided))
    unit = 1.0 if last.standard_error is None else last.standard_error * math.sqrt(information)
    ends = [low, high if two_sided else math.inf]
    lower, upper = sorted(flip * unit * end for end in ends)
    return replace(
        blank,
        status="ok",
        p_value=_p_value(tail_p, two_sided=two_sided),
        estimate=flip * unit * middle,
        interval=Interval(lower, upper),
    )


class _Series:
    """The stagewise tail probability of an outcome, as a function of the effect."""

    __slots__ = ("_information", "_path", "_walks", "_z")

    def __init__(self, path: Path, z: float, information: float) -> None:
        self._path, self._z, self._information = path, z, information
        walks = [START]
        following = [*(step[0] for step in path[1:]), information][: len(path)]
        for step, after in zip(path, following, strict=True):
            walks.append(advance(walks[-1], step, after, reach=_FARTHEST))
        self._walks: list[Walk] = walks

    def at_least(self, effect: float) -> float:
        """Probability of an outcome at least as extreme, upwards; rises with the effect."""
        total = 0.0
        for walk, step in zip(self._walks, self._path, strict=False):
            total += above(walk, tilted(walk, effect), step[0], step[2], effect)
        walk = self._walks[-1]
        return total + above(walk, tilted(walk, effect), self._information, self._z, effect)

    def effect_at(self, probability: float) -> float | None:
        """Effect at which that probability is reached; None if it is out of sight."""
        unit = 1 / math.sqrt(self._information)
        if not self._path:  # the first look: no recursion, no limit
            return self._first(probability) * unit
        low, high = -_FARTHEST * unit, _FARTHEST * unit
        if not self.at_least(low) < probability < self.at_least(high):
            return None
        return float(
            optimize.brentq(lambda e: self.at_least(e) - probability, low, high, xtol=1e-12 * unit)
        )

    def _first(self, probability: float) -> float:
        return self._z + float(special.ndtri(probability))


def _p_value(tail: float, *, two_sided: bool) -> float:
    return min(1.0, 2 * min(tail, 1 - tail) if two_sided else tail)
