"""Score tests and score intervals of two proportions within strata, such as allocation epochs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from abkit.errors import DesignError
from abkit.estimate import Estimate, Interval
from abkit.stats.difference import check_test, successes_of, tail_alpha
from abkit.stats.proportion import restricted_rate
from abkit.stats.standardise import t_p_value
from abkit.stats.within import precision_shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.moments import Moments

Counts = tuple[float, int, int, int, int]  # weight, successes and units of treatment, of control


def stratified_score(
    strata: Sequence[tuple[Moments, Moments]],
    *,
    margin: float = 0.0,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Score test of a common difference of two proportions within strata, for one look.

    Each stratum's variance is the one under the null itself, whatever its margin, so the test
    holds its level with few events. Strata weigh as in `precision_shares`, which is Mantel and
    Haenszel's; with a margin of 0 the test is theirs but for the factor n / (n - 1) of each
    stratum.

    Args:
        strata: (control, treatment) moments of zeros and ones of each stratum. One with fewer than
            two units in an arm is left out.
        margin: difference on the border of the null, in (-1, 1).
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the test.

    Returns:
        An estimate (method "stratified_score") of the weighted difference, with the weighted
        proportions, z, p-value and the interval of all differences that the test does not reject.
        Without a usable stratum "insufficient_data", without variance under the null
        "zero_variance".

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: margin, alpha or alternative is unusable.

    Source: Miettinen, Nurminen (1985), stratified, without their n / (n - 1).

    Examples:
        >>> from abkit.moments import Moments
        >>> arms = Moments.of_counts(100, 90), Moments.of_counts(100, 88)
        >>> round(stratified_score([arms], margin=-0.1, alternative="greater").p_value, 4)
        0.0413
    """
    check_test(alpha, alternative)
    if not -1 < margin < 1:
        raise DesignError(f"a margin of proportions lies in (-1, 1), got {margin}")
    blank, cells = _weighted("stratified_score", strata, alpha, alternative)
    blank = replace(blank, margin=margin)
    if blank.difference is None:
        return blank
    statistic = _score(cells, margin)
    if statistic is None:
        return replace(blank, status="zero_variance")
    critical = float(stats.norm.isf(tail_alpha(alpha, alternative)))
    lower, upper = (_end(cells, blank.difference, critical, side) for side in (-1.0, 1.0))
    return replace(
        blank,
        status="ok",
        statistic=statistic,
        p_value=t_p_value(statistic, alternative, math.inf),
        interval=_interval(lower, upper, alternative),
    )


def stratified_newcombe(
    strata: Sequence[tuple[Moments, Moments]],
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Newcombe's interval of a weighted difference of proportions within strata, for one look.

    Squares and adds the weighted distances to the ends of every arm's Wilson interval (MOVER); with
    a single stratum it is `newcombe`.

    Args:
        strata: as in `stratified_score`.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the interval.

    Returns:
        An estimate (method "stratified_newcombe") with difference and interval, no p-value.

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: alpha or alternative is unusable.

    Source: Zou, Donner (2008); Newcombe (1998), method 10, for one stratum.

    Examples:
        >>> from abkit.moments import Moments
        >>> result = stratified_newcombe([(Moments.of_counts(80, 48), Moments.of_counts(70, 56))])
        >>> f"{result.interval.lower:.4f} {result.interval.upper:.4f}"
        '0.0524 0.3339'
    """
    check_test(alpha, alternative)
    blank, cells = _weighted("stratified_newcombe", strata, alpha, alternative)
    if blank.difference is None:
        return blank
    level = 2 * tail_alpha(alpha, alternative)
    below, above = [], []
    for weight, won_t, n_t, won_c, n_c in cells:
        low_t, high_t = proportion_confint(won_t, n_t, level, method="wilson")
        low_c, high_c = proportion_confint(won_c, n_c, level, method="wilson")
        below += [weight * (won_t / n_t - low_t), weight * (high_c - won_c / n_c)]
        above += [weight * (high_t - won_t / n_t), weight * (won_c / n_c - low_c)]
    return replace(
        blank,
        status="ok",
        interval=_interval(
            max(-1.0, blank.difference - math.hypot(*below)),
            min(1.0, blank.difference + math.hypot(*above)),
            alternative,
        ),
    )


def _weighted(
    method: str,
    strata: Sequence[tuple[Moments, Moments]],
    alpha: float,
    alternative: Alternative,
) -> tuple[Estimate, list[Counts]]:
    """An estimate with the weighted means, and the counts of the strata that count."""
    shares = precision_shares([(c.n, t.n) for c, t in strata])
    counted = [(successes_of(t), t.n, successes_of(c), c.n) for c, t in strata]
    cells = [(w, *cell) for w, cell in zip(shares, counted, strict=True) if w > 0]
    blank = Estimate(
        method=method,
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_control=sum(c.n for c, _ in strata),
        n_treatment=sum(t.n for _, t in strata),
    )
    if not cells:
        return blank, []
    treatment = math.fsum(w * won / n for w, won, n, _, _ in cells)
    control = math.fsum(w * won / n for w, _, _, won, n in cells)
    difference = math.fsum(w * (t / n - c / m) for w, t, n, c, m in cells)
    return (
        replace(blank, mean_treatment=treatment, mean_control=control, difference=difference),
        cells,
    )


def _score(cells: Sequence[Counts], margin: float) -> float | None:
    """Score against a common difference; None where the null leaves no variance."""
    distance, variance = [], []
    for weight, won_t, n_t, won_c, n_c in cells:
        p_c = restricted_rate(won_t, n_t, won_c, n_c, margin)
        p_t = min(1.0, max(0.0, p_c + margin))
        variance.append(weight * weight * (p_t * (1 - p_t) / n_t + p_c * (1 - p_c) / n_c))
        distance.append(weight * (won_t / n_t - won_c / n_c - margin))
    far, spread = math.fsum(distance), math.sqrt(max(0.0, math.fsum(variance)))
    if spread == 0:
        return None if far == 0 or margin == 0 else math.copysign(math.inf, far)
    return far / spread


def _end(cells: Sequence[Counts], difference: float, critical: float, side: float) -> float:
    """The end of the interval above (side 1) or below (side -1) the difference."""

    def beyond(margin: float) -> float:
        z = _score(cells, margin)
        return -critical if z is None else min(1e300, -side * z) - critical

    edge = side * (1 - 1e-12)
    if abs(difference) >= 1 - 1e-12 and difference * side > 0:
        return side
    if beyond(edge) <= 0:
        return side
    return float(optimize.brentq(beyond, difference, edge, xtol=1e-14))


def _interval(lower: float, upper: float, alternative: Alternative) -> Interval:
    return Interval(
        -math.inf if alternative == "less" else lower,
        math.inf if alternative == "greater" else upper,
    )
