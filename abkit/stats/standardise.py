"""What every z and t test has in common: from a difference and its standard error to an answer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from scipy import stats

from abkit.errors import ConfigError
from abkit.stats.difference import check_test, interval_around, tail_alpha, with_lift

if TYPE_CHECKING:
    from abkit.estimate import Alternative, Estimate


def standardised(
    blank: Estimate, difference: float, standard_error: float, degrees_of_freedom: float = math.inf
) -> Estimate:
    """The estimate with the t or z test of a difference and its standard error.

    Args:
        blank: an estimate without an answer; its alpha and alternative are used.
        difference: treatment minus control, in the metric's unit.
        standard_error: of the difference, >= 0, same unit.
        degrees_of_freedom: of Student's t, > 0; infinite for a normal quantile.

    Returns:
        The estimate with statistic, p-value and interval; status "zero_variance" where the
        standard error is 0, "undefined" where a number does not fit into a float.

    Examples:
        >>> from abkit.estimate import Estimate
        >>> blank = Estimate(
        ...     method="z", guarantee="fixed-horizon", alpha=0.05, alternative="two-sided"
        ... )
        >>> round(standardised(blank, 1.96, 1.0).p_value, 4)
        0.05
    """
    if not (math.isfinite(difference) and math.isfinite(standard_error)):
        return replace(blank, status="undefined")
    blank = replace(blank, difference=difference)
    if standard_error == 0:
        return replace(blank, status="zero_variance")
    statistic = difference / standard_error
    if not (math.isfinite(statistic) and degrees_of_freedom > 0):
        return replace(blank, status="undefined")
    half_width = t_quantile(blank.alpha, blank.alternative, degrees_of_freedom) * standard_error
    return replace(
        blank,
        status="ok",
        standard_error=standard_error,
        interval=interval_around(difference, half_width, blank.alternative),
        statistic=statistic,
        degrees_of_freedom=degrees_of_freedom if math.isfinite(degrees_of_freedom) else None,
        p_value=t_p_value(statistic, blank.alternative, degrees_of_freedom),
    )


def t_quantile(alpha: float, alternative: Alternative, degrees_of_freedom: float) -> float:
    """Quantile of Student's t at the finite ends of an interval; of the normal at infinity.

    Examples:
        >>> round(t_quantile(0.05, "two-sided", math.inf), 6)
        1.959964
    """
    tail = tail_alpha(alpha, alternative)
    if math.isinf(degrees_of_freedom):
        return float(stats.norm.isf(tail))
    return float(stats.t.isf(tail, degrees_of_freedom))


def t_p_value(statistic: float, alternative: Alternative, degrees_of_freedom: float) -> float:
    """p-value of Student's t; of the normal where the degrees of freedom are infinite.

    Examples:
        >>> t_p_value(0.0, "greater", 5.0)
        0.5
    """
    signed = {"two-sided": abs(statistic), "greater": statistic, "less": -statistic}[alternative]
    if math.isinf(degrees_of_freedom):
        tail = float(stats.norm.sf(signed))
    else:
        tail = float(stats.t.sf(signed, degrees_of_freedom))
    return min(1.0, 2 * tail) if alternative == "two-sided" else tail


def check_one_look(result: Estimate) -> None:
    """Reject an estimate that holds at many looks: a z test of its standard error would not.

    Args:
        result: an estimate.

    Raises:
        ConfigError: its guarantee is one for many looks.
    """
    if result.guarantee.startswith("anytime"):
        raise ConfigError(
            f"{result.method} is {result.guarantee}: ask that test itself for its margin or alpha; "
            "a z test of its standard error would hold at one look only"
        )


def at_alpha(result: Estimate, alpha: float) -> Estimate:
    """The same estimate with intervals at another error probability.

    For intervals that must hold together, as after a correction for several comparisons.

    Args:
        result: an estimate whose interval is its difference plus or minus a t or normal quantile
            of its standard error (every z and t method here).
        alpha: the new error probability, in (0, 1).

    Returns:
        The estimate with new alpha and intervals; the p-value stays. Without a standard error
        the intervals become None.

    Raises:
        ConfigError: the estimate is of a test for many looks.
        DesignError: alpha is unusable.

    Examples:
        >>> from abkit.moments import Moments
        >>> from abkit.stats.difference import welch_t
        >>> arms = Moments.of([1.0, 2.0, 3.0]), Moments.of([2.0, 3.0, 5.0])
        >>> at_alpha(welch_t(*arms), 0.01) == welch_t(*arms, alpha=0.01)
        True
    """
    check_test(alpha, result.alternative)
    check_one_look(result)
    fresh = replace(result, alpha=alpha, interval=None, lift_interval=None)
    if result.standard_error is None or result.difference is None or result.interval is None:
        return fresh
    freedom = math.inf if result.degrees_of_freedom is None else result.degrees_of_freedom
    half_width = t_quantile(alpha, result.alternative, freedom) * result.standard_error
    fresh = replace(
        fresh, interval=interval_around(result.difference, half_width, result.alternative)
    )
    if result.lift is None or result.lift_standard_error is None:
        return fresh
    return with_lift(fresh, (result.lift, result.lift_standard_error))
