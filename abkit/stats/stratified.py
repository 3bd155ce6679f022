"""Strata: platforms, countries, or allocation epochs, compared inside and then put together.

A comparison inside of each stratum cannot be confounded by what differs between strata, such as
the base rate of the hours in which a ramp gave treatment more traffic.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from scipy import stats

from abkit.errors import ConfigError
from abkit.estimate import Estimate
from abkit.stats.contrast import contrast
from abkit.stats.difference import (
    check_test,
    interval_around,
    successes_of,
    tail_alpha,
    with_lift,
)
from abkit.stats.standardise import standardised, t_p_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.moments import Moments

Weighting = Literal["population", "precision"]


def post_stratified(
    strata: Sequence[tuple[Moments, Moments]],
    *,
    weights: Sequence[float] | None = None,
    weighting: Weighting = "population",
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Difference of two means, compared within strata, for one look.

    Valid for strata that were fixed before the assignment. "population" weighs a stratum by its
    share of all units and estimates the effect on them, with less variance the more the strata
    differ; "precision" weighs it by `n_c n_t / (n_c + n_t)` (Mantel and Haenszel's), which stays
    stable where a stratum has few units in one arm, and is right under a ramp.

    Args:
        strata: (control, treatment) moments of each stratum. A stratum with no unit in one arm is
            left out, which changes the population the answer is about.
        weights: shares of each stratum instead, >= 0, such as of a census; any multiple.
        weighting: "population" or "precision", where no weights are given.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger mean.

    Returns:
        An estimate (method "post_stratified") with weighted means, Satterthwaite's degrees of
        freedom, and the lift of the weighted means. A stratum that counts and has one unit in an
        arm gives "insufficient_data": merge it with another.

    Raises:
        ConfigError: weights do not fit the strata, or the weighting is unknown.
        DesignError: alpha or alternative is unusable.

    Source: Miratrix, Sekhon, Yu (2013); Cochran (1977), chapter 5A.

    Examples:
        >>> from abkit.moments import Moments
        >>> young = Moments.of([1.0, 2.0, 3.0]), Moments.of([2.0, 3.0, 4.0])
        >>> old = Moments.of([11.0, 12.0, 13.0]), Moments.of([12.0, 13.0, 14.0])
        >>> result = post_stratified([young, old])
        >>> round(result.difference, 6), round(result.standard_error, 6)
        (1.0, 0.57735)
    """
    check_test(alpha, alternative)
    shares = _weights(strata, weights, weighting)
    used = [(w, c, t) for w, (c, t) in zip(shares, strata, strict=True) if w > 0]
    blank = Estimate(
        method="post_stratified",
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_control=sum(c.n for c, _ in strata),
        n_treatment=sum(t.n for _, t in strata),
    )
    if not used:
        return blank
    both = contrast([x for w, c, t in used for x in ((w, t), (-w, c))])
    arms = [contrast([(w, arm[i]) for w, *arm in used]) for i in (0, 1)]
    control, treatment = arms
    if both is None or control is None or treatment is None:
        return blank
    finite = math.isfinite(control.value) and math.isfinite(treatment.value)
    if not finite:
        return replace(blank, status="undefined")
    blank = replace(blank, mean_control=control.value, mean_treatment=treatment.value)
    result = standardised(blank, both.value, both.standard_error, both.degrees_of_freedom)
    if result.status != "ok" or control.value == 0:
        return result
    lift = both.value / control.value
    ratio = treatment.value / control.value
    spread = math.hypot(treatment.standard_error, ratio * control.standard_error)
    spread /= abs(control.value)
    fits = math.isfinite(lift) and 0 < spread < math.inf
    return with_lift(result, (lift, spread)) if fits else result


def _weights(
    strata: Sequence[tuple[Moments, Moments]], weights: Sequence[float] | None, weighting: str
) -> list[float]:
    """Shares that sum to one; zero for a stratum without units in an arm."""
    if weighting not in get_args(Weighting):
        raise ConfigError(f"weighting must be one of {get_args(Weighting)}, got {weighting!r}")
    if weights is None:
        given = [
            float(c.n + t.n) if weighting == "population" else c.n * t.n / max(1, c.n + t.n)
            for c, t in strata
        ]
    else:
        given = list(weights)
        if len(given) != len(strata) or not all(math.isfinite(w) and w >= 0 for w in given):
            raise ConfigError(f"need one finite weight >= 0 a stratum, got {weights}")
    kept = [w if min(c.n, t.n) else 0.0 for w, (c, t) in zip(given, strata, strict=True)]
    total = math.fsum(kept)
    return [w / total for w in kept] if total > 0 else [0.0] * len(kept)


def mantel_haenszel(
    strata: Sequence[tuple[Moments, Moments]],
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Difference of two proportions within strata: the Cochran-Mantel-Haenszel test, for one look.

    Valid with many small strata as well as with few large ones, since it conditions on each
    stratum's successes.

    Args:
        strata: (control, treatment) moments of zeros and ones of each stratum.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger proportion.

    Returns:
        An estimate (method "mantel_haenszel"): z and p of the test (no continuity correction),
        Mantel-Haenszel risk difference with Sato's standard error and interval. Without a stratum
        that has units in both arms "insufficient_data", without variance "zero_variance".

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: alpha or alternative is unusable.

    Source: Mantel, Haenszel (1959); Sato (1989) for the risk difference's variance.

    Examples:
        R's `mantelhaen.test(UCBAdmissions, correct = FALSE)`: M^2 = 1.5246, p-value = 0.2169.

        >>> from abkit.moments import Moments
        >>> women = [(89, 108), (17, 25), (202, 593), (131, 375), (94, 393), (24, 341)]
        >>> men = [(512, 825), (353, 560), (120, 325), (138, 417), (53, 191), (22, 373)]
        >>> arms = [
        ...     (Moments.of_counts(m, a), Moments.of_counts(f, b))
        ...     for (a, m), (b, f) in zip(men, women)
        ... ]
        >>> result = mantel_haenszel(arms)
        >>> round(result.statistic**2, 4), round(result.p_value, 4)
        (1.5246, 0.2169)
    """
    check_test(alpha, alternative)
    blank = Estimate(
        method="mantel_haenszel",
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_control=sum(c.n for c, _ in strata),
        n_treatment=sum(t.n for _, t in strata),
    )
    score, variance, weight, numerator, spread = [], [], [], [], []
    for control, treatment in strata:
        y, x = successes_of(control), successes_of(treatment)
        m, n = control.n, treatment.n
        total, won = n + m, x + y
        if min(m, n) == 0:
            continue
        score.append((x * m - y * n) / total)
        weight.append(n * m / total)
        if total > 1:
            variance.append(n * m * won * (total - won) / (total * total * (total - 1)))
        # Sato's P and Q.
        numerator.append((n * n * y - m * m * x + n * m * (m - n) / 2) / (total * total))
        spread.append((x * (m - y) + y * (n - x)) / (2 * total))
    if not weight:
        return blank
    s, v, h = math.fsum(score), math.fsum(variance), math.fsum(weight)
    difference = s / h
    blank = replace(blank, difference=difference, status="zero_variance")
    if v == 0:
        return blank
    statistic = s / math.sqrt(v)
    result = replace(
        blank,
        status="ok",
        statistic=statistic,
        p_value=t_p_value(statistic, alternative, math.inf),
    )
    squared = (difference * math.fsum(numerator) + math.fsum(spread)) / (h * h)
    if squared <= 0:
        return result
    half = float(stats.norm.isf(tail_alpha(alpha, alternative))) * math.sqrt(squared)
    return replace(
        result,
        standard_error=math.sqrt(squared),
        interval=interval_around(difference, half, alternative),
    )
