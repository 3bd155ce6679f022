"""Planning for one look: power, sample size, smallest effect that can be found, run length.

What is measured is a model of one unit (`MeanModel`, `ProportionModel`); how many and how they are
split are arguments. Sequential designs multiply the sample size by their inflation factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scipy import optimize, stats

from abkit.errors import ConfigError, DesignError
from abkit.stats.difference import check_test, tail_alpha
from abkit.stats.unit_model import MeanModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from abkit.estimate import Alternative, Guarantee, Scale, Status
    from abkit.stats.unit_model import Model

EVEN: Final = (0.5, 0.5)
_MOST_UNITS: Final = 1e15  # a plan beyond this is an answer too: it cannot be done
_T_ENDS: Final = 1e6  # degrees of freedom from which on t is the normal, to 1e-6
_LEAST: Final = 2.0  # units in an arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many units an experiment needs, or what it can find with those it has.

    Args:
        method: "noncentral_t" or "normal".
        guarantee: "fixed-horizon": for one look at the end.
        alpha: error probability of all comparisons together.
        alternative: side of the test.
        scale: of `difference`.
        status: "ok"; "undefined" where no number of units, or no effect, is enough.
        difference: treatment minus control, in the metric's unit; None where undefined.
        lift: relative to control; None without a control mean.
        power: chance that the weakest comparison rejects, to the side of `difference`.
        units: of each arm, control first, rounded up; zeros where undefined.
        exact_units: of each arm before rounding.
        alpha_each: error probability of one comparison: alpha over their number (Bonferroni).
    """

    method: str
    guarantee: Guarantee
    alpha: float
    alternative: Alternative
    scale: Scale
    status: Status
    difference: float | None
    lift: float | None
    power: float | None
    units: tuple[int, ...]
    exact_units: tuple[float, ...]
    alpha_each: float

    @property
    def total(self) -> int:
        """Units of all arms together."""
        return sum(self.units)


def power(
    model: Model,
    *,
    difference: float,
    units: Sequence[float],
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Plan:
    """Chance that a test at one look finds a difference, to its own side.

    Rejecting to the wrong side is no success and is not counted, as in R's `power.t.test`.

    Args:
        model: what is measured of one unit.
        difference: treatment minus control, in the metric's unit; for "greater" > 0, for "less"
            < 0, not 0.
        units: of each arm, control first, >= 2; more than one treatment splits alpha.
        alpha: error probability of all comparisons together, in (0, 1).
        alternative: side of the test.

    Returns:
        The plan with its power: the least over the treatments.

    Raises:
        DesignError: an argument is out of range.

    Source: noncentral t for means; for proportions Fleiss, Levin, Paik (2003), chapter 4,
    without continuity correction.

    Examples:
        R's `power.t.test(n = 20, delta = 1, sd = 1)`: power = 0.8689528.

        >>> from abkit.stats.unit_model import MeanModel
        >>> round(power(MeanModel(sd=1.0), difference=1.0, units=(20, 20)).power, 7)
        0.8689528
    """
    each = _alpha_each(alpha, alternative, len(units))
    _check_difference(model, difference, alternative)
    _check_units(units)
    least = min(
        _power(model, difference, (units[0], n), alpha=each, side=alternative) for n in units[1:]
    )
    return _plan(model, difference, least, units, alpha=alpha, alternative=alternative)


def sample_size(
    model: Model,
    *,
    difference: float,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    shares: Sequence[float] = EVEN,
    inflation: float = 1.0,
) -> Plan:
    """Units that a difference needs.

    Args:
        model: what is measured of one unit.
        difference: smallest treatment minus control worth finding; as in `power`.
        power: wanted for each treatment, in (alpha, 1).
        alpha: error probability of all comparisons together, in (0, 1).
        alternative: side of the test.
        shares: intended share of each arm, control first, > 0; any multiple of them.
        inflation: of a sequential design over one look, >= 1.

    Returns:
        The plan; "undefined" where even 1e15 units are not enough.

    Raises:
        DesignError: an argument is out of range.

    Source: as for `power`.

    Examples:
        R's `power.prop.test(p1 = .10, p2 = .11, power = .8)`: n = 14750.79 in each arm, and
        `power.t.test(delta = .1, power = .8)`: n = 1570.737.

        >>> from abkit.stats.unit_model import MeanModel, ProportionModel
        >>> round(sample_size(ProportionModel(0.10), difference=0.01).exact_units[0], 2)
        14750.79
        >>> round(sample_size(MeanModel(sd=1.0), difference=0.1).exact_units[0], 3)
        1570.737
    """
    each = _alpha_each(alpha, alternative, len(shares))
    _check_difference(model, difference, alternative)
    _check_power(power, alpha)
    parts = _parts(shares)
    if not (math.isfinite(inflation) and inflation >= 1):
        raise DesignError(f"inflation must be finite and >= 1, got {inflation}")
    weakest = min(parts[1:])

    def lacking(total: float) -> float:
        n = total * parts[0], total * weakest
        return _power(model, difference, n, alpha=each, side=alternative) - power

    total = _root(lacking, _LEAST / min(parts), _MOST_UNITS)
    if total is None:
        return _plan(
            model, difference, None, (0.0,) * len(parts), alpha=alpha, alternative=alternative
        )
    units = [total * part * inflation for part in parts]
    return _plan(model, difference, power, units, alpha=alpha, alternative=alternative)


def minimum_effect(
    model: Model,
    *,
    units: Sequence[float],
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Plan:
    """Smallest difference that so many units find with the wanted power (MDE).

    Args:
        model: what is measured of one unit.
        units: of each arm, control first, >= 2.
        power: wanted, in (alpha, 1).
        alpha: error probability of all comparisons together, in (0, 1).
        alternative: side of the test; "less" looks below zero, the others above.

    Returns:
        The plan; "undefined" where no difference is large enough (a proportion ends at 0 and 1).

    Raises:
        DesignError: an argument is out of range.

    Source: as for `power`.

    Examples:
        R's `power.t.test(power = .90, n = 50)`: delta = 0.6548 (sd = 1).

        >>> from abkit.stats.unit_model import MeanModel
        >>> plan = minimum_effect(MeanModel(sd=1.0), units=(50, 50), power=0.9)
        >>> round(plan.difference, 4)
        0.6548
    """
    sign = -1.0 if alternative == "less" else 1.0
    each = _alpha_each(alpha, alternative, len(units))
    _check_power(power, alpha)
    _check_units(units)
    weakest = min(units[1:])

    def lacking(size: float) -> float:
        n = units[0], weakest
        return _power(model, sign * size, n, alpha=each, side=alternative) - power

    null, _ = model.standard_errors(units[0], weakest, 0.0)
    size = _root(lacking, 1e-9 * null, min(1e6 * null, model.largest(sign)))
    if size is None:
        return _plan(model, None, None, units, alpha=alpha, alternative=alternative)
    return _plan(model, sign * size, power, units, alpha=alpha, alternative=alternative)


def run_length(plan: Plan, *, units_by_day: Sequence[float] | float) -> int | None:
    """Days until an experiment has its units.

    Args:
        plan: from `sample_size`.
        units_by_day: new units a day that enter the experiment, all arms together, > 0: one number,
            or one for each day since returning units are not new and the daily number falls.

    Returns:
        Whole days, >= 1; None where the plan is undefined or the days given are not enough.

    Raises:
        ConfigError: a number of units is negative or not finite, or the one number is zero.

    Examples:
        >>> from abkit.stats.unit_model import ProportionModel
        >>> plan = sample_size(ProportionModel(0.10), difference=0.01)
        >>> run_length(plan, units_by_day=4_000), run_length(plan, units_by_day=[20_000, 9_000])
        (8, None)
    """
    days = [units_by_day] if isinstance(units_by_day, (int, float)) else list(units_by_day)
    if not all(math.isfinite(n) and n >= 0 for n in days):
        raise ConfigError(f"units a day must be finite and >= 0, got {units_by_day}")
    if plan.status != "ok":
        return None
    if isinstance(units_by_day, (int, float)):
        if units_by_day == 0:
            raise ConfigError("no units a day never add up; give the number that enters each day")
        return max(1, math.ceil(plan.total / units_by_day))
    seen = 0.0
    for day, n in enumerate(days, 1):
        seen += n
        if seen >= plan.total:
            return day
    return None


def difference_of_lift(model: Model, lift: float) -> float:
    """The difference that a lift means.

    Args:
        model: what is measured; a mean needs `mean`.
        lift: relative to control, 0.1 is +10 %.

    Returns:
        `lift` times the control mean, in the metric's unit.

    Raises:
        DesignError: the model has no control mean, or it is zero.

    Examples:
        >>> from abkit.stats.unit_model import ProportionModel
        >>> difference_of_lift(ProportionModel(0.10), 0.1)
        0.010000000000000002
    """
    if not model.base:
        raise DesignError(f"a lift needs a control mean other than 0, got {model.base}")
    return lift * model.base


def _power(
    model: Model,
    difference: float,
    n: tuple[float, float],
    *,
    alpha: float,
    side: Alternative,
) -> float:
    """Chance to reject to the side of the difference, for one comparison."""
    null, alternative = model.standard_errors(*n, difference)
    tail = tail_alpha(alpha, side)
    size = abs(difference)
    freedom = model.degrees_of_freedom(*n)
    if freedom < _T_ENDS:
        shift = size / alternative
        critical = float(stats.t.isf(tail, freedom))
        if shift > critical + 40:  # the noncentral t loses its precision out there
            return 1.0
        return float(stats.nct.sf(critical, freedom, shift))
    excess = size - float(stats.norm.isf(tail)) * null
    if alternative == 0:
        return 1.0 if excess > 0 else 0.0
    return float(stats.norm.cdf(excess / alternative))


def _root(lacking: Callable[[float], float], lower: float, upper: float) -> float | None:
    """Where a growing function crosses zero; the lower end if it is above there already."""
    if lacking(lower) >= 0:
        return lower
    high = lower
    while lacking(high) < 0:
        if high >= upper:
            return None
        high = min(2 * high, upper)
    return float(optimize.brentq(lacking, high / 2, high, xtol=1e-12 * high, rtol=1e-12))


def _plan(
    model: Model,
    difference: float | None,
    chance: float | None,
    units: Sequence[float],
    *,
    alpha: float,
    alternative: Alternative,
) -> Plan:
    ok = difference is not None and chance is not None
    return Plan(
        method="noncentral_t" if isinstance(model, MeanModel) else "normal",
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        scale="absolute",
        status="ok" if ok else "undefined",
        difference=difference,
        lift=difference / model.base if difference is not None and model.base else None,
        power=chance,
        units=tuple(math.ceil(n - 1e-9) for n in units),
        exact_units=tuple(map(float, units)),
        alpha_each=alpha / (len(units) - 1),
    )


def _alpha_each(alpha: float, alternative: Alternative, arms: int) -> float:
    """Alpha of one comparison, after checking the design."""
    check_test(alpha, alternative)
    if arms < 2:
        raise DesignError("need control and at least one treatment")
    return alpha / (arms - 1)


def _check_difference(model: Model, difference: float, alternative: Alternative) -> None:
    if not math.isfinite(difference) or difference == 0:
        raise DesignError(f"difference must be finite and not 0, got {difference}")
    if (alternative == "greater" and difference < 0) or (alternative == "less" and difference > 0):
        raise DesignError(f"difference {difference} lies on the other side of {alternative!r}")
    if abs(difference) > model.largest(difference):
        raise DesignError(f"difference {difference} takes the rate out of [0, 1]: {model}")


def _check_units(units: Sequence[float]) -> None:
    if not all(math.isfinite(n) and n >= _LEAST for n in units):
        raise DesignError(f"each arm needs at least 2 units, got {tuple(units)}")


def _check_power(power: float, alpha: float) -> None:
    if not alpha < power < 1:
        raise DesignError(f"power must lie in (alpha, 1), got {power} with alpha {alpha}")


def _parts(shares: Sequence[float]) -> list[float]:
    if not all(math.isfinite(share) and share > 0 for share in shares):
        raise DesignError(f"shares must be finite and > 0, got {tuple(shares)}")
    total = math.fsum(shares)
    return [share / total for share in shares]
