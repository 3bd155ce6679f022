"""The difference of two proportions at a fixed horizon: z tests and score intervals.

Exact tests are in `exact`, strata in `stratified`, pairs in `paired`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint, proportions_ztest

from abkit.errors import DesignError
from abkit.estimate import Interval
from abkit.stats.difference import (
    check_test,
    interval_around,
    lift_parts,
    successes_of,
    tail_alpha,
    unanswered,
    with_lift,
)
from abkit.stats.standardise import standardised, t_p_value

if TYPE_CHECKING:
    from abkit.estimate import Alternative, Estimate
    from abkit.moments import Moments

_FEWEST_UNITS = 2
_STATSMODELS: Final = {"two-sided": "two-sided", "greater": "larger", "less": "smaller"}


def two_proportions(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Pooled z test of the difference of two proportions, for one look at a fixed horizon.

    The test pools the variance, which is right under no difference; the interval does not
    (Wald, variance p(1-p)/n), which is right elsewhere, so near the edge the two can disagree.
    Both are asymptotic: expect at least ten successes and ten failures in each arm. Not valid
    when looked at repeatedly.

    Args:
        control: moments of zeros and ones in the control arm.
        treatment: moments of zeros and ones in the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger proportion.

    Returns:
        An estimate of treatment minus control, in [-1, 1], with pooled z and p, the Wald
        interval and its standard error, lift and the delta-method interval of the lift. At the
        edges: fewer than two units in an arm gives status "insufficient_data"; all or no
        successes in both arms gives "zero_variance", with the difference but no p-value; 0 of n
        against n of n has a z, but no interval, since Wald's would be a point.

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: alpha or alternative is unusable.

    Source: Fleiss, Levin, Paik (2003), chapter 3; no continuity correction.

    Examples:
        >>> from abkit.moments import Moments
        >>> two_proportions(Moments.of_counts(100, 10), Moments.of_counts(100, 30)).difference
        0.19999999999999998

        R's `prop.test(c(620, 500), c(10000, 10000), correct = FALSE)`: X-squared = 13.61985.

        >>> result = two_proportions(
        ...     Moments.of_counts(10_000, 500), Moments.of_counts(10_000, 620)
        ... )
        >>> f"{result.statistic ** 2:.7f} {result.p_value:.9f}"
        '13.6198547 0.000223806'
    """
    check_test(alpha, alternative)
    won_control, won_treatment = successes_of(control), successes_of(treatment)
    blank = unanswered("pooled_z", control, treatment, alpha=alpha, alternative=alternative)
    if min(control.n, treatment.n) == 0:
        return blank
    difference = treatment.mean - control.mean
    blank = replace(blank, difference=difference)
    if min(control.n, treatment.n) < _FEWEST_UNITS:
        return blank
    if won_control + won_treatment in (0, control.n + treatment.n):
        return replace(blank, status="zero_variance")
    statistic, p_value = proportions_ztest(
        [float(won_treatment), float(won_control)],
        [float(treatment.n), float(control.n)],
        alternative=_STATSMODELS[alternative],
    )
    standard_error = math.sqrt(
        won_treatment * (treatment.n - won_treatment) / treatment.n**3
        + won_control * (control.n - won_control) / control.n**3
    )
    result = replace(blank, status="ok", statistic=float(statistic), p_value=float(p_value))
    if standard_error == 0:
        return result
    half_width = float(stats.norm.isf(tail_alpha(alpha, alternative))) * standard_error
    result = replace(
        result,
        standard_error=standard_error,
        interval=interval_around(difference, half_width, alternative),
    )
    return with_lift(result, lift_parts(control, treatment))


def unpooled_z(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Unpooled z test of two proportions, with the variance of each arm (Wald), for one look.

    Test and interval agree, unlike the pooled test's. Asymptotic: expect at least ten successes
    and ten failures in each arm; with unequal arms and rare events it rejects too often.

    Args:
        control: moments of zeros and ones in the control arm.
        treatment: moments of zeros and ones in the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger proportion.

    Returns:
        An estimate as of `two_proportions` (method "unpooled_z"); all or nothing in both arms,
        also 0 of n against n of n, gives "zero_variance".

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: alpha or alternative is unusable.

    Source: Fleiss, Levin, Paik (2003), chapter 3.

    Examples:
        >>> from abkit.moments import Moments
        >>> result = unpooled_z(Moments.of_counts(10_000, 500), Moments.of_counts(10_000, 620))
        >>> round(result.statistic, 6)
        3.691766
    """
    check_test(alpha, alternative)
    won_control, won_treatment = successes_of(control), successes_of(treatment)
    blank = unanswered("unpooled_z", control, treatment, alpha=alpha, alternative=alternative)
    if min(control.n, treatment.n) == 0:
        return blank
    difference = treatment.mean - control.mean
    if min(control.n, treatment.n) < _FEWEST_UNITS:
        return replace(blank, difference=difference)
    variance = (
        won_treatment * (treatment.n - won_treatment) / treatment.n**3
        + won_control * (control.n - won_control) / control.n**3
    )
    result = standardised(blank, difference, math.sqrt(variance))
    return with_lift(result, lift_parts(control, treatment)) if result.status == "ok" else result


def newcombe(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Newcombe's interval of the difference of two proportions, for one look.

    Squares and adds the distances to the ends of each arm's Wilson interval. It stays inside of
    [-1, 1], exists at 0 of n, and covers near its nominal level from about ten units an arm.

    Args:
        control: moments of zeros and ones in the control arm.
        treatment: moments of zeros and ones in the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the interval.

    Returns:
        An estimate (method "newcombe") with difference and interval, no p-value. An empty arm
        gives "insufficient_data".

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: alpha or alternative is unusable.

    Source: Newcombe (1998), Statistics in Medicine 17, 873-890, method 10.

    Examples:
        His example (a), 56/70 against 48/80: 0.0524 to 0.3339.

        >>> from abkit.moments import Moments
        >>> result = newcombe(Moments.of_counts(80, 48), Moments.of_counts(70, 56))
        >>> f"{result.interval.lower:.4f} {result.interval.upper:.4f}"
        '0.0524 0.3339'
    """
    check_test(alpha, alternative)
    won = successes_of(control), successes_of(treatment)
    blank = unanswered("newcombe", control, treatment, alpha=alpha, alternative=alternative)
    if min(control.n, treatment.n) == 0:
        return blank
    level = 2 * tail_alpha(alpha, alternative)
    ends = [
        proportion_confint(successes, arm.n, level, method="wilson")
        for successes, arm in zip(won, (control, treatment), strict=True)
    ]
    (low_control, high_control), (low_treatment, high_treatment) = ends
    difference = treatment.mean - control.mean
    below = math.hypot(treatment.mean - low_treatment, high_control - control.mean)
    above = math.hypot(high_treatment - treatment.mean, control.mean - low_control)
    return replace(
        blank,
        status="ok",
        difference=difference,
        interval=Interval(
            -math.inf if alternative == "less" else max(-1.0, difference - below),
            math.inf if alternative == "greater" else min(1.0, difference + above),
        ),
    )


def score_z(
    control: Moments,
    treatment: Moments,
    *,
    margin: float = 0.0,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Score test of the difference of two proportions against a margin, for one look.

    The variance is the one under the null itself, whatever its margin, so the test holds its
    level with few events where Wald's does not; the usual choice for non-inferiority of rates.

    Args:
        control: moments of zeros and ones in the control arm.
        treatment: moments of zeros and ones in the treatment arm.
        margin: difference on the border of the null, in (-1, 1); -0.02 to show that treatment
            loses less than two points ("greater").
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the test.

    Returns:
        An estimate (method "score_z") with z, p-value and the interval of all differences that the
        test does not reject. An empty arm gives "insufficient_data"; without any variance under
        the null "zero_variance".

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: margin, alpha or alternative is unusable.

    Source: Farrington, Manning (1990); Miettinen, Nurminen (1985) without their n / (n - 1).

    Examples:
        >>> from abkit.moments import Moments
        >>> arms = Moments.of_counts(100, 90), Moments.of_counts(100, 88)
        >>> round(score_z(*arms, margin=-0.1, alternative="greater").p_value, 4)
        0.0413
    """
    check_test(alpha, alternative)
    if not -1 < margin < 1:
        raise DesignError(f"a margin of proportions lies in (-1, 1), got {margin}")
    won_control, won_treatment = successes_of(control), successes_of(treatment)
    blank = unanswered("score_z", control, treatment, alpha=alpha, alternative=alternative)
    blank = replace(blank, margin=margin)
    if min(control.n, treatment.n) == 0:
        return blank
    counts = (won_treatment, treatment.n, won_control, control.n)
    difference = treatment.mean - control.mean
    statistic = _score(*counts, margin)
    blank = replace(blank, difference=difference)
    if statistic is None:
        return replace(blank, status="zero_variance")
    critical = float(stats.norm.isf(tail_alpha(alpha, alternative)))
    lower = _score_end(counts, difference, critical, -1.0)
    upper = _score_end(counts, difference, critical, 1.0)
    return replace(
        blank,
        status="ok",
        statistic=statistic,
        p_value=t_p_value(statistic, alternative, math.inf),
        interval=Interval(
            -math.inf if alternative == "less" else lower,
            math.inf if alternative == "greater" else upper,
        ),
    )


def _score(
    won_treatment: int, n_treatment: int, won_control: int, n_control: int, margin: float
) -> float | None:
    """Score against a difference; None where the null leaves no variance."""
    p_control = restricted_rate(won_treatment, n_treatment, won_control, n_control, margin)
    p_treatment = min(1.0, max(0.0, p_control + margin))
    variance = (
        p_treatment * (1 - p_treatment) / n_treatment + p_control * (1 - p_control) / n_control
    )
    distance = won_treatment / n_treatment - won_control / n_control - margin
    if variance <= 0 or (standard_error := math.sqrt(variance)) == 0:
        return None if distance == 0 or margin == 0 else math.copysign(math.inf, distance)
    return distance / standard_error


def restricted_rate(
    won_treatment: int, n_treatment: int, won_control: int, n_control: int, margin: float
) -> float:
    """Most likely rate of control when treatment's is higher by the margin."""
    n = n_treatment + n_control
    total = (won_treatment + won_control) / n
    if margin == 0:
        return total
    lower, upper = max(0.0, -margin), min(1.0, 1.0 - margin)
    share = n_treatment / n
    won_t, won_c = won_treatment / n, won_control / n

    def slope(p: float) -> float:  # of the log likelihood, times a positive polynomial
        q = p + margin
        at_treatment = (won_t - share * q) * p * (1 - p)
        return at_treatment + (won_c - (1 - share) * p) * q * (1 - q)

    step = 1e-15 * (upper - lower)  # at the very ends the polynomial is zero whatever the slope
    if slope(lower + step) <= 0:
        return lower
    if slope(upper - step) >= 0:
        return upper
    return float(optimize.brentq(slope, lower + step, upper - step, xtol=1e-16, rtol=1e-14))


def _score_end(
    counts: tuple[int, int, int, int], difference: float, critical: float, side: float
) -> float:
    """The end of the score interval above (side 1) or below (side -1) the difference."""

    def beyond(margin: float) -> float:
        z = _score(*counts, margin)
        return -critical if z is None else min(1e300, -side * z) - critical

    edge = side * (1 - 1e-12)
    if abs(difference) >= 1 - 1e-12 and difference * side > 0:
        return side
    if beyond(edge) <= 0:
        return side
    return float(optimize.brentq(beyond, difference, edge, xtol=1e-14))
