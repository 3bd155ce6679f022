"""Means, ratios and adjusted means compared within strata, such as the epochs of a ramp."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from abkit.errors import DataError
from abkit.estimate import Estimate
from abkit.moments import Moments
from abkit.stats.covariate import adjustment
from abkit.stats.difference import check_test
from abkit.stats.ratio import linearised, term_name
from abkit.stats.stratified import post_stratified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.comoments import Comoments
    from abkit.estimate import Alternative, Status
    from abkit.stats.ratio import Term

_FEWEST_UNITS: Final = 2  # a variance needs two values


def precision_shares(counts: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Weight of each stratum, proportional to `n_c n_t / (n_c + n_t)` (Mantel and Haenszel's).

    Args:
        counts: units of control and treatment in each stratum.

    Returns:
        Shares that sum to 1. A stratum with fewer than two units in an arm has 0, since it has no
        variance; all have 0 where no stratum has two in both.

    Examples:
        >>> precision_shares([(90, 10), (50, 50), (7, 0)])
        (0.2647058823529412, 0.7352941176470589, 0.0)
    """
    given = [c * t / (c + t) if min(c, t) >= _FEWEST_UNITS else 0.0 for c, t in counts]
    total = math.fsum(given)
    return tuple(x / total if total else 0.0 for x in given)


def within_strata(
    strata: Sequence[tuple[Comoments, Comoments]],
    *,
    metric: Term,
    covariates: Sequence[Term] = (),
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Difference of means or ratios, compared within strata, for one look.

    Valid under a ramp, where the share of treatment and the level of the metric both change
    from epoch to epoch: arms are only compared inside of an epoch. Strata are weighted as by
    `precision_shares`. Slopes of covariates are shared by all strata and come from the products
    within arms and strata.

    Args:
        strata: (control, treatment) comoments of each stratum, with the columns named below.
        metric: a column, or a pair (numerator, denominator) for a ratio of sums.
        covariates: columns or ratios measured before the assignment.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment is larger.

    Returns:
        An estimate (method "post_stratified", "stratified_ratio" or "stratified_cuped"). A
        stratum with fewer than two units in an arm is left out. Statuses as in
        `post_stratified` and `adjusted_difference`.

    Raises:
        DataError: a column is missing.
        DesignError: alpha or alternative is unusable.

    Source: Miratrix, Sekhon, Yu (2013); Deng, Xu, Kohavi, Walker (2013), section 3.

    Examples:
        >>> from abkit.comoments import Comoments
        >>> early = Comoments.of({"x": [1.0, 2.0, 3.0]}), Comoments.of({"x": [2.0, 3.0, 4.0]})
        >>> late = Comoments.of({"x": [11.0, 12.0, 13.0]}), Comoments.of({"x": [12.0, 13.0, 14.0]})
        >>> result = within_strata([early, late], metric="x")
        >>> round(result.difference, 6), round(result.standard_error, 6)
        (1.0, 0.57735)
    """
    check_test(alpha, alternative)
    method = "post_stratified" if isinstance(metric, str) else "stratified_ratio"
    blank = Estimate(
        method="stratified_cuped" if covariates else method,
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_control=sum(c.n for c, _ in strata),
        n_treatment=sum(t.n for _, t in strata),
    )
    kept = [pair for pair in strata if min(pair[0].n, pair[1].n) >= _FEWEST_UNITS]
    plain = comparable(kept, metric=metric)
    if isinstance(plain, str):
        return replace(blank, status=plain)
    shares = precision_shares([(c.n, t.n) for c, t in plain])
    result = post_stratified(plain, weights=shares, alpha=alpha, alternative=alternative)
    result = _named(result, blank)
    if not covariates or not plain or result.standard_error is None:
        return result
    adjusted = comparable(kept, metric=metric, covariates=covariates)
    if isinstance(adjusted, str):
        return replace(blank, status=adjusted)
    better = post_stratified(adjusted, weights=shares, alpha=alpha, alternative=alternative)
    if better.standard_error is None:
        return _named(better, blank)
    gain = 1 - (better.standard_error / result.standard_error) ** 2
    return replace(_named(better, blank), variance_reduction=gain)


def comparable(
    strata: Sequence[tuple[Comoments, Comoments]],
    *,
    metric: Term,
    covariates: Sequence[Term] = (),
) -> list[tuple[Moments, Moments]] | Status:
    """Moments of one number per unit in each stratum, whatever the metric is.

    A ratio becomes its linearised values, and what covariates predict is taken out, with slopes
    that all strata share. What compares means, at one look or at many, takes them from here.

    Args:
        strata: (control, treatment) comoments of each stratum, both with at least one unit.
        metric: a column, or a pair (numerator, denominator) for a ratio of sums.
        covariates: columns or ratios measured before the assignment.

    Returns:
        (control, treatment) of each stratum; or why there are none: "undefined" where a
        denominator sums to zero or a number does not fit into a float, "collinear" or
        "insufficient_data" where the covariates have no slopes.

    Raises:
        DataError: a column is missing.

    Source: Deng, Knoblich, Lu (2018) for ratios; Deng, Xu, Kohavi, Walker (2013) for covariates.

    Examples:
        >>> from abkit.comoments import Comoments
        >>> arms = Comoments.of({"x": [1.0, 2.0]}), Comoments.of({"x": [2.0, 5.0]})
        >>> [(control, treatment)] = comparable([arms], metric="x")
        >>> control.mean, treatment.mean
        (1.5, 3.5)
    """
    terms = (metric, *covariates)
    cells = [(linearised(c, terms), linearised(t, terms)) for c, t in strata]
    usable = [(c, t) for c, t in cells if c is not None and t is not None]
    if len(usable) < len(cells):
        return "undefined"
    name = term_name(metric)
    if not covariates or not usable:
        return [(c.moments(name), t.moments(name)) for c, t in usable]
    arms = [arm for pair in usable for arm in pair]
    products = [
        [math.fsum(arm.products[i][j] for arm in arms) for j in range(len(terms))]
        for i in range(len(terms))
    ]
    found = adjustment(products, sum(arm.n for arm in arms) - len(arms))
    if found.status != "ok":
        return found.status
    try:
        return [_adjusted(pair, found.theta) for pair in usable]
    except DataError:  # squares that do not fit into a float
        return "undefined"


def _named(result: Estimate, blank: Estimate) -> Estimate:
    """The result under the method of the blank, with all of its units."""
    return replace(
        result, method=blank.method, n_control=blank.n_control, n_treatment=blank.n_treatment
    )


def _adjusted(pair: tuple[Comoments, Comoments], theta: Sequence[float]) -> tuple[Moments, Moments]:
    """Both arms of a stratum without what the covariates' deviations from its mean predict."""
    centres = (pair[0] + pair[1]).means[1:]
    control, treatment = (
        Moments(
            arm.n,
            arm.means[0]
            - math.fsum(
                slope * (mean - centre)
                for slope, mean, centre in zip(theta, arm.means[1:], centres, strict=True)
            ),
            arm.combined(dict(zip(arm.names, [1.0, *(-x for x in theta)], strict=True))).m2,
        )
        for arm in pair
    )
    return control, treatment
