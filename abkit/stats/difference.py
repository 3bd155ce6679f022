"""The difference of two means at a fixed horizon: Welch's t test and the relative lift.

The small pieces that comparisons in `stats` and `sequential` are made of (`check_test`,
`tail_alpha`, `interval_around`, `successes_of`) live here too, so that a side and a proportion
mean the same thing everywhere, and nothing but the z test of two proportions loads statsmodels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from scipy import stats

from abkit.errors import DataError, DesignError
from abkit.estimate import Alternative, Estimate, Interval

if TYPE_CHECKING:
    from abkit.moments import Moments

_FEWEST_UNITS = 2  # a sample variance needs two values


def check_test(alpha: float, alternative: str) -> None:
    """Reject an error probability or a side that no test can have.

    Args:
        alpha: error probability, must lie in (0, 1).
        alternative: "two-sided", "greater" or "less".

    Raises:
        DesignError: either is something else.
    """
    if not 0 < alpha < 1:
        raise DesignError(f"alpha must lie in (0, 1), got {alpha}; 0.05 means 5 %")
    if alternative not in get_args(Alternative):
        raise DesignError(
            f"alternative must be one of {get_args(Alternative)}, got {alternative!r}"
        )


def tail_alpha(alpha: float, alternative: Alternative) -> float:
    """Error probability of each finite end of an interval.

    Args:
        alpha: error probability of the whole interval, in (0, 1).
        alternative: the side; a two-sided interval splits alpha between its ends.

    Returns:
        A probability in (0, 0.5).

    Raises:
        DesignError: a one-sided alpha is 0.5 or more: its interval would leave the estimate out.

    Examples:
        >>> tail_alpha(0.05, "two-sided"), tail_alpha(0.05, "greater")
        (0.025, 0.05)
    """
    tail = alpha / 2 if alternative == "two-sided" else alpha
    if tail >= 1 / 2:
        raise DesignError(f"a one-sided test needs alpha < 0.5, got {alpha}; 0.05 means 5 %")
    return tail


def interval_around(point: float, half_width: float, alternative: Alternative) -> Interval:
    """Interval that rejects exactly what the test of this side rejects.

    Args:
        point: the estimate, finite.
        half_width: distance from the estimate to a finite end, >= 0, same unit.
        alternative: "greater" leaves the upper end infinite, "less" the lower one.

    Returns:
        The interval, in the unit of `point`.

    Examples:
        >>> interval_around(1.0, 0.5, "greater")
        Interval(lower=0.5, upper=inf)
    """
    lower = -math.inf if alternative == "less" else point - half_width
    upper = math.inf if alternative == "greater" else point + half_width
    return Interval(lower, upper)


def successes_of(arm: Moments) -> int:
    """Number of ones in an arm, after checking that its values are all 0 or 1.

    Args:
        arm: moments of one arm.

    Returns:
        Successes, in [0, n].

    Raises:
        DataError: no sample of zeros and ones has these moments.

    Examples:
        >>> from abkit.moments import Moments
        >>> successes_of(Moments.of([0.0, 1.0, 1.0]))
        2
    """
    successes = arm.successes
    possible = 0 <= successes <= arm.n
    m2 = successes * (arm.n - successes) / arm.n if arm.n else 0.0
    slack = 1e-6 * max(1.0, m2)
    if not possible or abs(arm.total - successes) > slack or abs(arm.m2 - m2) > slack:
        raise DataError(
            f"a proportion needs values of 0 and 1, got n={arm.n}, mean={arm.mean}, m2={arm.m2}; "
            "use welch_t for other values"
        )
    return successes


def relative_lift(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> tuple[float, Interval] | None:
    """Lift of treatment over control, relative to control, with a delta-method interval.

    The ratio of the means is linearised around them, so the interval is asymptotic: it needs a
    control mean that is many standard errors away from zero.

    Args:
        control: moments of the control arm.
        treatment: moments of the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the difference. Where the control mean is negative a larger
            difference is a smaller lift, so the infinite end changes sides.

    Returns:
        Lift and interval, dimensionless (0.1 is +10 %). None where they do not exist: fewer
        than two units in an arm, no variance, or a control mean of zero.

    Raises:
        DesignError: alpha or alternative is unusable.

    Source: Cochran (1977), chapter 6 (ratio estimates):
    `lift +- z sqrt(vt/nt/mc^2 + mt^2 vc/nc/mc^4)`.

    Examples:
        >>> from abkit.moments import Moments
        >>> relative_lift(Moments.of([1.0, 3.0]), Moments.of([2.0, 4.0]))[0]
        0.5

        Retention after 7 days in Cookie Cats, gate 40 against gate 30 (reference answer O04):

        >>> lift, interval = relative_lift(
        ...     Moments.of_counts(44_700, 8_502), Moments.of_counts(45_489, 8_279)
        ... )
        >>> f"{lift:.10f} [{interval.lower:.10f}, {interval.upper:.10f}]"
        '-0.0431190349 [-0.0692448667, -0.0169932031]'
    """
    check_test(alpha, alternative)
    parts = lift_parts(control, treatment)
    if parts is None:
        return None
    return parts[0], lift_interval(*parts, control.mean, alpha=alpha, alternative=alternative)


def lift_parts(control: Moments, treatment: Moments) -> tuple[float, float] | None:
    """Lift and its standard error by the delta method, as in `relative_lift`; None likewise.

    Examples:
        >>> from abkit.moments import Moments
        >>> lift_parts(Moments.of([1.0, 3.0]), Moments.of([2.0, 4.0]))
        (0.5, 0.9013878188659973)
    """
    if min(control.n, treatment.n) < _FEWEST_UNITS or control.mean == 0:
        return None
    scale = abs(control.mean)
    ratio = treatment.mean / control.mean
    lift = (treatment.mean - control.mean) / control.mean
    standard_error = math.hypot(
        math.sqrt(treatment.variance / treatment.n) / scale,
        ratio * (math.sqrt(control.variance / control.n) / scale),
    )
    if standard_error == 0 or not (math.isfinite(lift) and math.isfinite(standard_error)):
        return None
    return lift, standard_error


def lift_interval(
    lift: float,
    standard_error: float,
    mean_control: float,
    *,
    alpha: float,
    alternative: Alternative,
) -> Interval:
    """Normal interval of a lift, for a side that is about the difference.

    Args:
        lift: relative to the control mean, dimensionless.
        standard_error: of the lift, > 0.
        mean_control: in the metric's unit; below zero the infinite end changes sides.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the difference.

    Returns:
        The interval, dimensionless.

    Examples:
        >>> lift_interval(0.1, 0.05, -2.0, alpha=0.05, alternative="greater").lower
        -inf
    """
    quantile = float(stats.norm.isf(tail_alpha(alpha, alternative)))
    side = lift_side(mean_control, alternative)
    return interval_around(lift, quantile * standard_error, side)


def lift_side(mean_control: float, alternative: Alternative) -> Alternative:
    """Side of the lift that belongs to a side of the difference.

    Args:
        mean_control: in the metric's unit; below zero a larger difference is a smaller lift.
        alternative: side of the difference.

    Returns:
        The side of the lift.

    Examples:
        >>> lift_side(-1.0, "greater")
        'less'
    """
    if mean_control >= 0 or alternative == "two-sided":
        return alternative
    return "less" if alternative == "greater" else "greater"


def unanswered(
    method: str, control: Moments, treatment: Moments, *, alpha: float, alternative: Alternative
) -> Estimate:
    """An estimate for one look that knows the arms and has no answer yet."""
    return Estimate(
        method=method,
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_treatment=treatment.n,
        n_control=control.n,
        mean_treatment=treatment.mean if treatment.n else None,
        mean_control=control.mean if control.n else None,
    )


def welch_t(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Welch's t test of the difference of two means, for one look at a fixed horizon.

    Valid for independent units with finite variances, which may differ between the arms:
    exactly only in the limit, very nearly so for normal values from about five units on. It is
    not valid when looked at repeatedly: use `abkit.sequential` for that.

    Args:
        control: moments of the control arm.
        treatment: moments of the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger mean.

    Returns:
        An estimate of treatment minus control in the metric's unit, with t, degrees of
        freedom, p-value, t interval, lift and the interval of the lift (normal quantile). At
        the edges: fewer than two units in an arm gives status "insufficient_data"; no variance
        in either arm gives "zero_variance", with the difference but no p-value; values too
        large for a float give "undefined".

    Raises:
        DesignError: alpha or alternative is unusable.

    Source: Welch (1947); Satterthwaite (1946) for the degrees of freedom.

    Examples:
        >>> from abkit.moments import Moments
        >>> welch_t(Moments.of([1.0, 2.0, 3.0]), Moments.of([2.0, 3.0, 4.0])).difference
        1.0

        R's `t.test(extra ~ group, sleep)`: t = -1.8608, df = 17.776, p = .07939.

        >>> drug_1 = Moments.of([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
        >>> drug_2 = Moments.of([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
        >>> result = welch_t(drug_2, drug_1)
        >>> f"{result.statistic:.6f} {result.degrees_of_freedom:.5f} {result.p_value:.7f}"
        '-1.860813 17.77647 0.0793941'
    """
    check_test(alpha, alternative)
    blank = unanswered("welch_t", control, treatment, alpha=alpha, alternative=alternative)
    if min(control.n, treatment.n) == 0:
        return blank
    difference = treatment.mean - control.mean
    part_treatment = treatment.variance / treatment.n
    part_control = control.variance / control.n
    standard_error = math.sqrt(part_treatment + part_control)
    if not (math.isfinite(difference) and math.isfinite(standard_error)):
        return replace(blank, status="undefined")
    blank = replace(blank, difference=difference)
    if min(control.n, treatment.n) < _FEWEST_UNITS:
        return blank
    if standard_error == 0:
        return replace(blank, status="zero_variance")
    statistic = difference / standard_error
    if not math.isfinite(statistic):
        return replace(blank, status="undefined")
    # In units of the standard error, so that nothing under- or overflows inside scipy.
    share = part_treatment / (part_treatment + part_control)
    degrees_of_freedom = 1 / (share**2 / (treatment.n - 1) + (1 - share) ** 2 / (control.n - 1))
    test = stats.ttest_ind_from_stats(
        statistic,
        math.sqrt(share * treatment.n),
        treatment.n,
        0.0,
        math.sqrt((1 - share) * control.n),
        control.n,
        equal_var=False,
        alternative=alternative,
    )
    quantile = float(stats.t.isf(tail_alpha(alpha, alternative), degrees_of_freedom))
    result = replace(
        blank,
        status="ok",
        standard_error=standard_error,
        interval=interval_around(difference, quantile * standard_error, alternative),
        statistic=statistic,
        degrees_of_freedom=degrees_of_freedom,
        p_value=float(test.pvalue),
    )
    return with_lift(result, lift_parts(control, treatment))


def with_lift(result: Estimate, parts: tuple[float, float] | None) -> Estimate:
    """The estimate with lift, its standard error and its interval, where they exist.

    Args:
        result: an estimate that knows its control mean, alpha and side.
        parts: lift and standard error, or None.

    Returns:
        The estimate; unchanged for None.
    """
    if parts is None or result.mean_control is None:
        return result
    lift, standard_error = parts
    return replace(
        result,
        lift=lift,
        lift_standard_error=standard_error,
        lift_interval=lift_interval(
            lift,
            standard_error,
            result.mean_control,
            alpha=result.alpha,
            alternative=result.alternative,
        ),
    )
