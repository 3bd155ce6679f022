"""Two models on the same units: McNemar's test of right and wrong, and the paired t test."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from scipy import optimize, stats

from abkit.errors import ConfigError
from abkit.estimate import Estimate, Interval
from abkit.stats.difference import check_test, tail_alpha
from abkit.stats.standardise import standardised, t_p_value

if TYPE_CHECKING:
    from abkit.estimate import Alternative
    from abkit.moments import Moments, PairedCounts

McNemarMethod = Literal["mid_p", "exact", "asymptotic"]


def mcnemar(
    pairs: PairedCounts,
    *,
    method: McNemarMethod = "mid_p",
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Difference of two proportions of right answers on the same units, for one look.

    Only the pairs that differ say anything: under no difference each is as likely to favour either
    side. "exact" is their binomial test and conservative, "mid_p" takes half of the observed
    table off and keeps its level nearly always, "asymptotic" is the z of both. The interval is
    Tango's score interval, which agrees with the asymptotic test.

    Args:
        pairs: agreement of treatment and control, one pair a unit.
        method: "mid_p", "exact" or "asymptotic" (no continuity correction).
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment is right more often.

    Returns:
        An estimate (method "mcnemar_mid_p" ...) with the difference of the proportions, p-value
        and interval, n of both arms being the pairs. Without pairs "insufficient_data"; without a
        pair that differs "zero_variance", with the interval and no p-value.

    Raises:
        ConfigError: the method is unknown.
        DesignError: alpha or alternative is unusable.

    Source: McNemar (1947); Fagerland, Lydersen, Laake (2013) for mid-p; Tango (1998) for the
    interval.

    Examples:
        Agresti's approval ratings, R's `mcnemar.test(Performance, correct = FALSE)`:
        chi-squared = 17.356.

        >>> from abkit.moments import PairedCounts
        >>> ratings = PairedCounts(both=794, only_control=150, only_treatment=86, neither=570)
        >>> result = mcnemar(ratings, method="asymptotic")
        >>> round(result.difference, 4), round(result.statistic**2, 4)
        (-0.04, 17.3559)
    """
    check_test(alpha, alternative)
    if method not in get_args(McNemarMethod):
        raise ConfigError(f"method must be one of {get_args(McNemarMethod)}, got {method!r}")
    n, won, lost = pairs.n, pairs.only_treatment, pairs.only_control
    blank = _blank(f"mcnemar_{method}", n, alpha, alternative)
    if method == "exact":
        blank = replace(blank, guarantee="exact")
    if n == 0:
        return blank
    blank = replace(
        blank,
        mean_treatment=(pairs.both + won) / n,
        mean_control=(pairs.both + lost) / n,
        difference=(won - lost) / n,
        interval=_tango(n, won, lost, alpha, alternative),
        status="zero_variance",
    )
    if pairs.discordant == 0:
        return blank
    statistic = (won - lost) / math.sqrt(pairs.discordant)
    if method == "asymptotic":
        p_value = t_p_value(statistic, alternative, math.inf)
    else:
        p_value = _binomial_p(won, won + lost, alternative, mid=method == "mid_p")
    return replace(blank, status="ok", statistic=statistic, p_value=p_value)


def paired_t(
    differences: Moments, *, alpha: float = 0.05, alternative: Alternative = "two-sided"
) -> Estimate:
    """Paired t test: the mean of treatment minus control on the same units, for one look.

    Args:
        differences: moments of treatment minus control, one value a unit.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment is larger.

    Returns:
        An estimate (method "paired_t") in the metric's unit, without the arms' means. Fewer than
        two pairs give "insufficient_data", equal differences "zero_variance".

    Raises:
        DesignError: alpha or alternative is unusable.

    Source: Student (1908).

    Examples:
        R's `t.test(Pair(extra.1, extra.2) ~ 1)` on Student's sleep: t = -4.0621, p = .002833.

        >>> from abkit.moments import Moments
        >>> gained = Moments.of([-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4])
        >>> result = paired_t(gained)
        >>> round(result.statistic, 4), round(result.p_value, 6)
        (-4.0621, 0.002833)
    """
    check_test(alpha, alternative)
    n = differences.n
    blank = _blank("paired_t", n, alpha, alternative)
    if n < 2:
        return replace(blank, difference=differences.mean if n else None)
    return standardised(blank, differences.mean, math.sqrt(differences.variance / n), n - 1)


def _blank(method: str, n: int, alpha: float, alternative: Alternative) -> Estimate:
    return Estimate(
        method=method,
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_treatment=n,
        n_control=n,
    )


def _binomial_p(won: int, n: int, alternative: Alternative, *, mid: bool) -> float:
    """p-value of a fair coin; mid-p counts the observed outcome half."""
    at_least = float(stats.binom.sf(won - 1, n, 0.5))
    at_most = float(stats.binom.cdf(won, n, 0.5))
    half = float(stats.binom.pmf(won, n, 0.5)) / 2 if mid else 0.0
    if alternative == "greater":
        return at_least - half
    if alternative == "less":
        return at_most - half
    return min(1.0, 2 * (min(at_least, at_most) - half))


def _tango(n: int, won: int, lost: int, alpha: float, alternative: Alternative) -> Interval:
    """All differences that the score test of this side does not reject."""
    critical = float(stats.norm.isf(tail_alpha(alpha, alternative)))
    point = (won - lost) / n

    def z(delta: float) -> float:
        b = -won - lost + (2 * n - won + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        distance = won - lost - n * delta
        if variance <= 0:
            return 0.0 if distance == 0 else math.copysign(math.inf, distance)
        return distance / math.sqrt(variance)

    def end(side: float) -> float:
        def beyond(delta: float) -> float:
            return min(1e300, -side * z(delta)) - critical

        edge = side * (1 - 1e-12)
        if point * side >= 1 - 1e-12 or beyond(edge) <= 0:
            return side
        if beyond(point) >= 0:
            return point
        return float(optimize.brentq(beyond, point, edge, xtol=1e-14))

    return Interval(
        -math.inf if alternative == "less" else end(-1.0),
        math.inf if alternative == "greater" else end(1.0),
    )
