"""Quantiles, such as the 95th percentile of latency, from order statistics.

No density is estimated: how many values lie below the true quantile is binomial whatever the
distribution, so two order statistics bound it. All that crosses from a store is three values of
each arm's sorted column, at the ranks that `order_ranks` names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from abkit.errors import ConfigError, DataError, DesignError
from abkit.estimate import Estimate, Interval
from abkit.stats.difference import check_test, tail_alpha
from abkit.stats.standardise import t_p_value

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from abkit.estimate import Alternative


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileSummary:
    """One arm's quantile with the order statistics that bound it.

    Args:
        n: number of values, >= 0.
        quantile: which one, in (0, 1).
        value: the sample quantile, in the metric's unit; None without values.
        lower: value at the lower rank; -inf where there is none.
        upper: value at the upper rank; +inf where there is none.
        alpha: error probability of the whole interval, in (0, 1).
        alternative: the side it was made for.
    """

    n: int
    quantile: float
    value: float | None
    lower: float
    upper: float
    alpha: float
    alternative: Alternative


def order_ranks(n: int, quantile: float, tail: float) -> tuple[int, int]:
    """Ranks of the two order statistics that bound a quantile.

    The true quantile lies below the lower one with probability at most `tail`, and above the
    upper one likewise; exactly so for continuous values, conservatively with ties.

    Args:
        n: number of values, >= 0.
        quantile: in (0, 1).
        tail: error probability of each end, in (0, 1).

    Returns:
        Ranks from 1 to n in ascending order; 0 for a lower end and n + 1 for an upper end that so
        few values cannot give.

    Raises:
        DesignError: quantile or tail is outside of (0, 1).

    Source: Thompson (1936); Conover (1999), section 3.2.

    Examples:
        >>> order_ranks(16, 0.75, 0.05)
        (9, 16)
        >>> order_ranks(20, 0.99, 0.025)
        (19, 21)
    """
    for name, value in (("quantile", quantile), ("tail", tail)):
        if not 0 < value < 1:
            raise DesignError(
                f"{name} must lie in (0, 1), got {value}; 0.95 is the 95th percentile"
            )
    if n == 0:
        return 0, 1
    lower = int(stats.binom.ppf(tail, n, quantile))
    upper = int(stats.binom.isf(tail, n, quantile)) + 1
    return lower, upper


def quantile_summary(
    values: ArrayLike,
    quantile: float,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> QuantileSummary:
    """A quantile of one arm's values with its exact, distribution-free interval.

    Args:
        values: one independent value a unit, in any order, finite.
        quantile: in (0, 1).
        alpha: error probability of the interval, in (0, 1).
        alternative: one-sided intervals put all of alpha on each end.

    Returns:
        The summary; the value is interpolated linearly (R's type 7).

    Raises:
        DataError: a value is missing or infinite.
        DesignError: quantile, alpha or alternative is unusable.

    Source: as for `order_ranks`; Hyndman, Fan (1996) for the type.

    Examples:
        >>> summary = quantile_summary(range(1, 101), 0.5)
        >>> summary.value, summary.lower, summary.upper
        (50.5, 40.0, 61.0)
    """
    check_test(alpha, alternative)
    data = np.asarray(values, dtype=float)
    if not np.all(np.isfinite(data)):
        raise DataError("values must be finite; drop or fill missing ones before")
    lower, upper = order_ranks(data.size, quantile, tail_alpha(alpha, alternative))
    wanted = [rank - 1 for rank in (lower, upper) if 1 <= rank <= data.size]
    ordered = np.partition(data, wanted) if wanted else data
    return QuantileSummary(
        n=int(data.size),
        quantile=quantile,
        value=float(np.quantile(data, quantile)) if data.size else None,
        lower=float(ordered[lower - 1]) if lower >= 1 else -math.inf,
        upper=float(ordered[upper - 1]) if upper <= data.size else math.inf,
        alpha=alpha,
        alternative=alternative,
    )


def quantile_difference(control: QuantileSummary, treatment: QuantileSummary) -> Estimate:
    """Difference of two arms' quantiles, for one look.

    Squares and adds the distances to the ends of each arm's interval (MOVER), which keeps the
    skewness that a tail quantile has and needs no density. Valid for independent values: requests
    of one user are not, so take one value a user, or its mean of log latency instead.

    Args:
        control: summary of the control arm.
        treatment: summary of the treatment arm, of the same quantile, alpha and side.

    Returns:
        An estimate (method "quantile_mover") whose means are the quantiles. The p-value uses the
        distances on the side towards zero, so it is below alpha exactly when the interval leaves
        zero out. Too few values for an end (the 95th percentile at alpha .05 needs 72) give
        "insufficient_data" with the difference, ends that all tie "zero_variance". The lift's
        interval (MOVER for ratios) needs a positive lower end of control.

    Raises:
        ConfigError: the summaries are of different quantiles, alphas or sides.

    Source: Zou, Donner (2008); Donner, Zou (2012) for ratios.

    Examples:
        >>> a = quantile_summary(range(1, 101), 0.5)
        >>> b = quantile_summary(range(21, 121), 0.5)
        >>> result = quantile_difference(a, b)
        >>> f"{result.difference} [{result.interval.lower:.3f}, {result.interval.upper:.3f}]"
        '20.0 [5.151, 34.849]'
    """
    same = [(arm.quantile, arm.alpha, arm.alternative) for arm in (control, treatment)]
    if same[0] != same[1]:
        raise ConfigError(f"summaries of different quantiles, alphas or sides: {same}")
    blank = Estimate(
        method="quantile_mover",
        guarantee="fixed-horizon",
        alpha=control.alpha,
        alternative=control.alternative,
        status="insufficient_data",
        n_control=control.n,
        n_treatment=treatment.n,
        mean_control=control.value,
        mean_treatment=treatment.value,
    )
    if control.value is None or treatment.value is None:
        return blank
    difference = treatment.value - control.value
    blank = replace(blank, difference=difference if math.isfinite(difference) else None)
    below = math.hypot(treatment.value - treatment.lower, control.upper - control.value)
    above = math.hypot(treatment.upper - treatment.value, control.value - control.lower)
    side = control.alternative
    needed = {"two-sided": max(below, above), "greater": below, "less": above}[side]
    if not math.isfinite(needed):
        ends = (control.lower, control.upper, treatment.lower, treatment.upper)
        return replace(blank, status="undefined") if all(map(math.isfinite, ends)) else blank
    if below == 0 and above == 0:
        return replace(blank, status="zero_variance")
    critical = float(stats.norm.isf(tail_alpha(control.alpha, side)))
    towards_zero = _towards_zero(difference, below, above, side) / critical
    statistic = difference / towards_zero if towards_zero else math.inf
    if not math.isfinite(statistic):
        return replace(blank, status="undefined")
    return replace(
        blank,
        status="ok",
        standard_error=towards_zero,
        interval=_interval(difference - below, difference + above, side),
        statistic=statistic,
        p_value=t_p_value(statistic, side, math.inf),
        lift=difference / control.value if control.lower > 0 else None,
        lift_interval=_lift(control, treatment),
    )


def _towards_zero(difference: float, below: float, above: float, side: Alternative) -> float:
    if side != "two-sided":
        return below if side == "greater" else above
    return below if difference > 0 else above


def _interval(lower: float, upper: float, side: Alternative) -> Interval:
    return Interval(
        -math.inf if side == "less" else lower, math.inf if side == "greater" else upper
    )


def _lift(control: QuantileSummary, treatment: QuantileSummary) -> Interval | None:
    """Interval of the ratio minus one (MOVER-R); None where an end is not finite and positive."""
    a, b = treatment.value, control.value
    ends = (control.lower, control.upper, treatment.lower, treatment.upper)
    if a is None or b is None or not all(map(math.isfinite, ends)) or min(ends) <= 0:
        return None
    scaled = [end / b for end in ends]  # in units of control, so that products fit
    low_c, high_c, low_t, high_t = scaled
    r = a / b
    spread_below = r * r - low_t * (2 * r - low_t) * high_c * (2 - high_c)
    spread_above = r * r - high_t * (2 * r - high_t) * low_c * (2 - low_c)
    if high_c >= 2 or not min(spread_below, spread_above) >= 0:
        return None
    lower = (r - math.sqrt(spread_below)) / (high_c * (2 - high_c))
    upper = (r + math.sqrt(spread_above)) / (low_c * (2 - low_c))
    return _interval(lower - 1, upper - 1, control.alternative)
