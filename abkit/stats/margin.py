"""Tests against a margin: non-inferiority, superiority by a margin, equivalence.

Each takes an estimate that some other method made (Welch, CUPED, a ratio, strata, clusters) and
moves the border of its null away from zero, on the difference or on the lift. "No significant
difference" proves nothing; these do.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from abkit.errors import ConfigError, DesignError
from abkit.estimate import Interval
from abkit.moments import Moments
from abkit.stats.difference import check_test, welch_t, with_lift
from abkit.stats.standardise import check_one_look, standardised, t_p_value

if TYPE_CHECKING:
    from abkit.estimate import Alternative, Estimate

MarginScale = Literal["absolute", "relative"]


def non_inferiority(
    result: Estimate,
    *,
    margin: float,
    higher_is_better: bool = True,
    scale: MarginScale = "absolute",
) -> Estimate:
    """Is treatment worse than control by less than a margin?

    One-sided at the estimate's alpha: the null is a loss of the margin or more. Valid where the
    estimate's standard error is (fixed horizon), for a margin fixed before the data.

    Args:
        result: an estimate with a standard error; its alternative does not matter.
        margin: largest loss that is accepted, > 0, in the metric's unit or, relative, as a lift.
        higher_is_better: whether a larger metric is a gain; False for error rates, latencies.
        scale: "absolute" for the difference, "relative" for the lift (delta method, normal).

    Returns:
        The estimate with "non_inferiority" appended to its method, the border of the null in
        `margin`, statistic, p-value and a one-sided interval. On the relative scale `difference`,
        `standard_error` and `interval` are those of the lift, and there are no others. An estimate
        without an answer comes back with its status and no p-value.

    Raises:
        DesignError: margin is not finite and > 0.

    Source: Chow, Shao, Wang (2008), chapter 3.

    Examples:
        >>> arms = Moments(1_000, 10.0, 999.0), Moments(1_000, 9.98, 999.0)
        >>> result = non_inferiority(welch_t(*arms), margin=0.1)
        >>> result.margin, round(result.p_value, 4)
        (-0.1, 0.0369)
    """
    _check_margin(margin, above=0.0)
    border = -margin if higher_is_better else margin
    side: Alternative = "greater" if higher_is_better else "less"
    return against(result, border, alternative=side, scale=scale, name="non_inferiority")


def superiority(
    result: Estimate,
    *,
    margin: float = 0.0,
    higher_is_better: bool = True,
    scale: MarginScale = "absolute",
) -> Estimate:
    """Is treatment better than control by more than a margin?

    Args:
        result: as in `non_inferiority`.
        margin: gain that must be exceeded, >= 0, in the metric's unit or as a lift.
        higher_is_better: whether a larger metric is a gain.
        scale: "absolute" or "relative".

    Returns:
        As in `non_inferiority`, with "superiority" appended to the method.

    Raises:
        DesignError: margin is not finite and >= 0.

    Examples:
        >>> arms = Moments(1_000, 10.0, 999.0), Moments(1_000, 10.3, 999.0)
        >>> round(superiority(welch_t(*arms), margin=0.2).p_value, 4)
        0.0127
    """
    if margin != 0:
        _check_margin(margin, above=0.0)
    border = margin if higher_is_better else -margin
    side: Alternative = "greater" if higher_is_better else "less"
    return against(result, border, alternative=side, scale=scale, name="superiority")


def equivalence(
    result: Estimate, *, lower: float, upper: float, scale: MarginScale = "absolute"
) -> Estimate:
    """Is the difference inside of a range: neither worse nor better by more than it?

    Two one-sided tests (TOST), each at alpha; the larger p-value counts. The interval is the one
    of error 2 alpha, which lies inside of the range exactly when the test rejects.

    Args:
        result: as in `non_inferiority`.
        lower: lower end of the range, in the metric's unit or as a lift.
        upper: upper end, > lower.
        scale: "absolute" or "relative".

    Returns:
        The estimate with "equivalence" appended to its method, the range in `margin`, the statistic
        of the side that is closer to its border, and the larger p-value.

    Raises:
        DesignError: an end is not finite, or they are in the wrong order.

    Source: Schuirmann (1987).

    Examples:
        >>> arms = Moments(1_000, 10.0, 999.0), Moments(1_000, 9.98, 999.0)
        >>> result = equivalence(welch_t(*arms), lower=-0.1, upper=0.1)
        >>> round(result.p_value, 4), result.margin
        (0.0369, Interval(lower=-0.1, upper=0.1))
    """
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise DesignError(f"need finite lower < upper, got {lower} and {upper}")
    if result.alpha >= 1 / 2:
        raise DesignError(f"equivalence needs alpha < 0.5, got {result.alpha}")
    below = against(result, lower, alternative="greater", scale=scale, name="equivalence")
    above = against(result, upper, alternative="less", scale=scale, name="equivalence")
    worse = above if (above.p_value or 0.0) > (below.p_value or 0.0) else below
    interval = None
    if below.interval is not None and above.interval is not None:
        interval = Interval(below.interval.lower, above.interval.upper)
    return replace(worse, alternative="two-sided", margin=Interval(lower, upper), interval=interval)


def against(
    result: Estimate,
    border: float,
    *,
    alternative: Alternative,
    scale: MarginScale = "absolute",
    name: str = "margin",
) -> Estimate:
    """Test an estimate against any border, on any side.

    Args:
        result: an estimate with a standard error.
        border: difference (or lift) on the border of the null, finite.
        alternative: "greater" asks whether the truth is above the border.
        scale: "absolute" or "relative".
        name: appended to the method.

    Returns:
        The estimate tested against the border, as in `non_inferiority`.

    Raises:
        ConfigError: scale is unknown, or the estimate is of a test for many looks.
        DesignError: border or alternative is unusable.

    Examples:
        >>> arms = Moments(1_000, 10.0, 999.0), Moments(1_000, 10.3, 999.0)
        >>> result = against(welch_t(*arms), 0.02, alternative="greater", scale="relative")
        >>> result.method, result.scale, round(result.difference, 3), round(result.p_value, 3)
        ('welch_t_margin', 'relative', 0.03, 0.014)
    """
    check_test(result.alpha, alternative)
    check_one_look(result)
    if scale not in ("absolute", "relative"):
        raise ConfigError(f"scale must be 'absolute' or 'relative', got {scale!r}")
    if not math.isfinite(border):
        raise DesignError(f"a margin must be finite, got {border}")
    blank = replace(
        result,
        method=f"{result.method}_{name}",
        alternative=alternative,
        scale=scale,
        margin=border,
        interval=None,
        statistic=None,
        p_value=None,
    )
    point, spread = result.difference, result.standard_error
    freedom = math.inf if result.degrees_of_freedom is None else result.degrees_of_freedom
    if scale == "relative":
        point, spread, freedom = result.lift, result.lift_standard_error, math.inf
        blank = replace(
            blank,
            difference=point,
            standard_error=spread,
            degrees_of_freedom=None,
            lift=None,
            lift_interval=None,
            lift_standard_error=None,
        )
    if result.status != "ok":
        return blank
    if point is None or spread is None:
        return replace(blank, status="undefined")
    answer = standardised(blank, point, spread, freedom)
    if answer.status != "ok":
        return answer
    statistic = (point - border) / spread
    if not math.isfinite(statistic):
        return replace(blank, status="undefined")
    answer = replace(
        answer, statistic=statistic, p_value=t_p_value(statistic, alternative, freedom)
    )
    if scale == "relative" or result.lift is None or result.lift_standard_error is None:
        return answer
    return with_lift(answer, (result.lift, result.lift_standard_error))


def relative_margin(
    control: Moments,
    treatment: Moments,
    *,
    margin: float,
    alpha: float = 0.05,
    alternative: Alternative = "greater",
) -> Estimate:
    """Test the lift against a border without the delta method.

    The lift is above r exactly when `mt - (1 + r) mc` is above zero (for a positive control mean),
    which is a difference of two means: Welch's t, valid where the control mean is small too.

    Args:
        control: moments of the control arm.
        treatment: moments of the treatment arm.
        margin: lift on the border, > -1; -0.05 for non-inferiority with 5 %.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the contrast; for a negative control mean the lift's other side.

    Returns:
        An estimate (method "fieller_t") of `mt - (1 + margin) mc` in the metric's unit, its
        `margin` the lift on the border. Statuses as in `welch_t`.

    Raises:
        DesignError: margin, alpha or alternative is unusable.

    Source: Fieller (1954); Hauschke, Kieser, Diletti, Burke (1999).

    Examples:
        >>> arms = Moments(1_000, 10.0, 999.0), Moments(1_000, 9.98, 999.0)
        >>> round(relative_margin(*arms, margin=-0.01).p_value, 4)
        0.0362
    """
    if not (math.isfinite(margin) and margin > -1):
        raise DesignError(f"a lift on the border must be finite and > -1, got {margin}")
    factor = 1 + margin
    mean, m2 = factor * control.mean, factor * factor * control.m2
    if not (math.isfinite(mean) and math.isfinite(m2)):
        raise DesignError(f"margin {margin} times the control mean does not fit into a float")
    border = Moments(control.n, mean, m2)
    result = welch_t(border, treatment, alpha=alpha, alternative=alternative)
    return replace(
        result,
        method="fieller_t",
        margin=margin,
        mean_control=control.mean if control.n else None,
        lift=None,
        lift_interval=None,
        lift_standard_error=None,
    )


def _check_margin(margin: float, *, above: float) -> None:
    if not (math.isfinite(margin) and margin > above):
        raise DesignError(f"a margin must be finite and > {above:g}, got {margin}")
