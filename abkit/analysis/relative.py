"""Margins that are a share of control's mean, tested without a division.

Treatment is above (1 + share) times control exactly when `treatment - (1 + share) control` is above
zero: a difference of two means like any other, whatever made it (Welch, CUPED, strata, clusters,
pairs). The interval of the lift is all shares that this test does not reject (Fieller's).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from scipy import optimize

from abkit.comoments import Comoments
from abkit.estimate import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from abkit.estimate import Alternative, Estimate

_MOST_STEPS: Final = 60


def against_share(
    plain: Estimate,
    contrast: Callable[[float], Estimate],
    share: float,
    *,
    alternative: Alternative,
) -> Estimate:
    """Test whether the lift is above (or below) a share of control's mean.

    Args:
        plain: treatment against control, with their means.
        contrast: from a factor to the one-sided estimate of treatment minus factor times control.
        share: lift on the border of the null, > -1.
        alternative: "greater" asks whether the lift is above it.

    Returns:
        An estimate on the relative scale: difference and interval are the lift and its one-sided
        interval, statistic and p-value those of the contrast. "undefined" where control's mean is
        not above zero, since a share of it is no margin then.

    Source: Fieller (1954); Hauschke, Kieser, Diletti, Burke (1999).
    """
    tested = contrast(1 + share)
    blank = replace(
        plain,
        method=f"{plain.method}_non_inferiority",
        alternative=alternative,
        scale="relative",
        margin=share,
        status=tested.status,
        difference=None,
        standard_error=None,
        interval=None,
        statistic=tested.statistic,
        degrees_of_freedom=tested.degrees_of_freedom,
        p_value=tested.p_value,
        lift=None,
        lift_interval=None,
        lift_standard_error=None,
    )
    base, value = plain.mean_control, plain.mean_treatment
    if base is None or value is None:
        return blank
    lift = value / base - 1 if base > 0 else math.nan
    if not math.isfinite(lift):
        fresh = "undefined" if tested.status == "ok" else tested.status
        return replace(blank, status=fresh, statistic=None, degrees_of_freedom=None, p_value=None)
    blank = replace(blank, difference=lift)
    if tested.status != "ok":
        return blank
    end = _end(contrast, lift, alternative)
    greater = alternative == "greater"
    interval = Interval(end if greater else -math.inf, math.inf if greater else end)
    return replace(blank, interval=interval)


def _end(contrast: Callable[[float], Estimate], lift: float, alternative: Alternative) -> float:
    """The share at which the contrast's own interval begins at zero; infinite if there is none."""
    sign = -1.0 if alternative == "greater" else 1.0

    def gap(share: float) -> float:
        """Below zero inside of the interval, above it outside."""
        found = contrast(1 + share).interval
        if found is None:
            return -1.0
        return found.lower if alternative == "greater" else -found.upper

    step = 1e-3 * max(1.0, abs(lift))
    for _ in range(_MOST_STEPS):
        if gap(lift + sign * step) > 0:
            far = lift + sign * step
            return float(optimize.brentq(gap, far, lift, xtol=1e-13, rtol=1e-12))
        step *= 2
        if sign * step < -1e6:
            break
    return sign * math.inf


def of_logarithms(estimate: Estimate) -> Estimate:
    """An estimate of means of logarithms, with the lift that their difference stands for.

    A difference of logarithms is the logarithm of a ratio, so the lift is that of the values'
    geometric means (of their quantiles, for quantiles), not of the logarithms.

    Examples:
        >>> from abkit.moments import Moments
        >>> from abkit.stats.difference import welch_t
        >>> plain = welch_t(Moments(100, 4.0, 25.0), Moments(100, 3.9, 25.0))
        >>> round(plain.lift, 3), round(of_logarithms(plain).lift, 3)
        (-0.025, -0.095)
    """
    if estimate.difference is None:
        return replace(estimate, lift=None, lift_interval=None, lift_standard_error=None)
    lift, error = _ratio(estimate.difference), estimate.standard_error
    ends = estimate.interval
    return replace(
        estimate,
        lift=lift,
        lift_interval=ends and Interval(_ratio(ends.lower), _ratio(ends.upper)),
        lift_standard_error=None if error is None else (1 + lift) * error,
    )


def _ratio(logarithm: float) -> float:
    return math.inf if logarithm == math.inf else math.expm1(min(logarithm, 700.0))


def scaled(cell: Comoments, columns: Sequence[str], factor: float) -> Comoments:
    """Comoments of the same units with some columns multiplied by a factor.

    Examples:
        >>> scaled(Comoments.of({"x": [1.0, 3.0], "y": [0.0, 1.0]}), ["x"], 2.0).products
        ((8.0, 2.0), (2.0, 0.5))
    """
    factors: Mapping[str, float] = dict.fromkeys(columns, factor)
    by = [factors.get(name, 1.0) for name in cell.names]
    return Comoments(
        cell.names,
        cell.n,
        tuple(f * mean for f, mean in zip(by, cell.means, strict=True)),
        tuple(
            tuple(f * g * product for g, product in zip(by, row, strict=True))
            for f, row in zip(by, cell.products, strict=True)
        ),
    )
