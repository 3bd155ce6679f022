"""Designs as boundaries of z at planned looks, and what becomes of a run that meets them.

The comparison of means is a Brownian motion in the information, seen at the looks, so one recursion
(`abkit.sequential.group_walk`) gives the power and the stopping time of every design that compares
z with a boundary, exactly: no simulation, no error of simulation. Everything is in fractions of the
information at the end; the drift is the mean of z there.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from abkit.errors import ConfigError, DesignError
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.group_plan import GroupPlan, even, spending_plan, wang_tsiatis_plan
from abkit.sequential.group_power import drift_for, power_of
from abkit.sequential.names import CALIBRATED_HORIZON, check_design
from abkit.sequential.normal import Array, normal_boundary
from abkit.stats.difference import tail_alpha

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative, Guarantee

# Designs whose evidence is a z value; the others count events.
Z_DESIGNS: Final = (
    "fixed",
    "group-sequential",
    "obf",
    "pocock",
    "calibrated",
    "always-valid",
    "msprt",
)
COUNT_DESIGNS: Final = ("hypergeometric", "canary")
FEW_LOOKS: Final = 5
MANY_LOOKS: Final = 200  # as good as looking all the time
MOST_LOOKS: Final = 400
PEEKING: Final = "peeking"  # the fixed test at every look: wrong, and often done
# With the end at twice the units of one look of power .8, this is the precision of a prior whose
# standard deviation is the effect: 1 / (2 (z_.025 + z_.2)^2), in shares of the end.
_MSPRT_RHO: Final = 1 / (2 * 2.8015852**2)
_SCALE: Final = 4_000_000  # planned units of a design that is only asked for fractions
_FARTHEST: Final = 30.0
_GUARANTEES: Final[dict[str, Guarantee]] = {
    "fixed": "fixed-horizon",
    "group-sequential": "asymptotic",
    "obf": "asymptotic",
    "pocock": "asymptotic",
    "hypergeometric": "anytime-valid",
    "canary": "anytime-valid",
}


def guarantee_of(name: str) -> Guarantee:
    """What a design promises.

    Examples:
        >>> guarantee_of("fixed"), guarantee_of("calibrated")
        ('fixed-horizon', 'anytime-asymptotic')
    """
    return _GUARANTEES.get(name, "anytime-asymptotic")


def looks_of(name: str, looks: int | None) -> int:
    """Number of looks that a design is planned with.

    Args:
        name: of the design.
        looks: as asked for; None for 5 of a group sequential design and 200 of one that may be
            looked at any time.

    Raises:
        ConfigError: looks is not a whole number from 1 to 400.
    """
    if looks is not None and not (isinstance(looks, int) and 1 <= looks <= MOST_LOOKS):
        raise ConfigError(f"looks must be a whole number from 1 to {MOST_LOOKS}, got {looks!r}")
    if name == "fixed":
        return 1
    if looks is not None:
        return looks
    return FEW_LOOKS if name in ("group-sequential", "obf", "pocock") else MANY_LOOKS


@functools.lru_cache(maxsize=128)
def boundary_plan(
    name: str, fractions: tuple[float, ...], *, alpha: float, alternative: Alternative
) -> GroupPlan:
    """Boundaries of z at the looks of a design.

    Args:
        name: one of `Z_DESIGNS`, or "peeking" for the fixed test at every look.
        fractions: information at the looks over that at the end, rising to 1.
        alpha: error probability, in (0, 1).
        alternative: side of the test.

    Returns:
        The plan; a "fixed" one has a single look. "always-valid" is tuned for half of the end, and
        the mixing variance of "msprt" is that of an effect which one look at half of the end finds
        with power .8.

    Raises:
        ConfigError: there is no such design, or it compares no z.
        DesignError: the looks, alpha or alternative are unusable.

    Examples:
        >>> plan = boundary_plan("pocock", even(3), alpha=0.05, alternative="two-sided")
        >>> [round(b, 5) for b in plan.boundaries]
        [2.28948, 2.28948, 2.28948]
    """
    if name == "fixed":
        fractions = (1.0,)
    times = np.array(fractions)
    if name in ("fixed", PEEKING):
        z = -float(special.ndtri(tail_alpha(alpha, alternative)))
        bounds = np.full(len(times), z)
    elif name == "group-sequential":
        return spending_plan(fractions, alpha=alpha, alternative=alternative)
    elif name in ("obf", "pocock"):
        delta = 0.0 if name == "obf" else 0.5
        return wang_tsiatis_plan(fractions, delta=delta, alpha=alpha, alternative=alternative)
    elif name == "calibrated":
        design = CalibratedMixture(
            planned_units=_SCALE, horizon=CALIBRATED_HORIZON, alpha=alpha, alternative=alternative
        )
        bounds = np.array(design.boundaries([t * design.maximum for t in fractions]))
    elif name in ("always-valid", "msprt"):
        bounds = _mixture(name, times, alpha=alpha, alternative=alternative)
    else:
        check_design(name)
        raise ConfigError(f"the design {name!r} counts events and has no boundary of z")
    return GroupPlan(
        method=name,
        alpha=alpha,
        alternative=alternative,
        fractions=fractions,
        boundaries=tuple(bounds.tolist()),
        alpha_spent=(alpha,) * len(fractions),
    )


def _mixture(name: str, times: Array, *, alpha: float, alternative: Alternative) -> Array:
    if name == "msprt":
        if alternative != "two-sided":
            raise DesignError(f"the design 'msprt' is two-sided, got {alternative!r}")
        rho = _MSPRT_RHO
    else:
        planned = round(_SCALE / CALIBRATED_HORIZON)
        design = AlwaysValid(planned_units=planned, alpha=alpha, alternative=alternative)
        rho = design.rho / (_SCALE / 4)
    side: Alternative = "two-sided" if alternative == "two-sided" else "greater"
    bounds: Array = normal_boundary(times, alpha, rho=rho, alternative=side)
    return bounds / np.sqrt(times)


def msprt_tau2(variance: float, information: float) -> float:
    """Prior variance of the difference that "msprt" stands for.

    Args:
        variance: of one unit, in the metric's unit squared.
        information: effective units at the end (a quarter of all units at an even split), > 0.

    Returns:
        tau2, in the metric's unit squared: what `FixedTauMixture` is given.
    """
    return variance / (_MSPRT_RHO * information)


@dataclass(frozen=True, slots=True)
class Course:
    """When runs stop, under one drift or one pair of rates.

    Args:
        fractions: information at the looks over that at the end.
        stopped: probability of having rejected by each look, to either side.
        power: probability of having rejected by the end, to the side of the effect.
        power_error: Monte Carlo standard error of `power`; 0.0 where it is exact.
        mean_error: the same of `mean`.
    """

    fractions: tuple[float, ...]
    stopped: tuple[float, ...]
    power: float
    power_error: float = 0.0
    mean_error: float = 0.0

    @property
    def mean(self) -> float:
        """Mean share of the end at which a run is over, in (0, 1]."""
        running = 1 - np.concatenate([[0.0], self.stopped[:-1]])
        return float(running @ np.diff(self.fractions, prepend=0.0))

    def quantile(self, level: float) -> float:
        """Share of the end by which so many runs are over; 1.0 where they run to the end.

        Examples:
            >>> Course((0.5, 1.0), (0.6, 0.8), 0.8).quantile(0.5)
            0.5
        """
        over = zip(self.fractions, self.stopped, strict=True)
        return next((t for t, share in over if share >= level), 1.0)


def course(plan: GroupPlan, drift: float) -> Course:
    """What becomes of runs with a drift.

    Args:
        plan: looks and boundaries.
        drift: mean of z at the end, to the side of the alternative; beyond 30 it counts as 30.

    Returns:
        The course, exact for normal data with known variance.

    Examples:
        One look without an effect, and with the one that power .8 asks for:

        >>> plan = boundary_plan("fixed", (1.0,), alpha=0.05, alternative="two-sided")
        >>> round(course(plan, 0.0).stopped[-1], 6), round(course(plan, 2.8015852).power, 6)
        (0.05, 0.8)
    """
    found = power_of(plan, min(max(drift, -_FARTHEST), _FARTHEST))
    stopped = np.minimum(np.cumsum(np.add(found.reject, found.reverse)), 1.0)
    return Course(plan.fractions, tuple(stopped.tolist()), found.power)


@functools.lru_cache(maxsize=128)
def needed_drift(plan: GroupPlan, power: float) -> float:
    """Mean of z at the end at which a plan has this power.

    Raises:
        DesignError: the power is not above alpha and below 1.
    """
    return drift_for(plan, power)


def inflation_of(plan: GroupPlan, power: float) -> float:
    """Units at the end over those of the fixed test of the same alpha and power.

    Args:
        plan: looks and boundaries.
        power: wanted, in (alpha, 1).

    Examples:
        rpact 3.3.4, O'Brien-Fleming and Pocock with five looks: 1.02841 and 1.22859.

        >>> plan = boundary_plan("pocock", even(5), alpha=0.05, alternative="two-sided")
        >>> round(inflation_of(plan, 0.8), 5)
        1.22859
    """
    quantile = -float(special.ndtri(tail_alpha(plan.alpha, plan.alternative)))
    return (needed_drift(plan, power) / (quantile + float(special.ndtri(power)))) ** 2


def drift_of(power: float, *, alpha: float, alternative: Alternative, ratio: float) -> float:
    """Mean of z at the end for a fixed test of this power.

    Args:
        power: of the fixed test.
        alpha: its error probability.
        alternative: its side.
        ratio: effect over its standard error, which stands in where the power is 1 in floats.
    """
    if power > 1 - 1e-12 or math.isinf(ratio):
        return min(ratio, _FARTHEST)
    return float(special.ndtri(power)) - float(special.ndtri(tail_alpha(alpha, alternative)))


def even_looks(name: str, looks: int | None) -> tuple[float, ...]:
    """Fractions of the evenly spaced looks of a design."""
    return even(looks_of(name, looks))


def check_designs(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names of designs, each known and none twice.

    Raises:
        ConfigError: there is none, one is unknown here, or one stands twice.
    """
    given = (names,) if isinstance(names, str) else tuple(names)
    if not given:
        raise ConfigError("name at least one design")
    for name in given:
        if name not in known:
            check_design(name)
            raise ConfigError(f"the design {name!r} is not for this; known are {', '.join(known)}")
    if len(set(given)) < len(given):
        raise ConfigError(f"a design stands twice in {', '.join(given)}")
    return given
