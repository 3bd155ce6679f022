"""Comparisons of means that stay right at every look: the normal mixture in variance time.

**What the comparisons rest on.** `stratified_difference` and `paired_difference` put estimated
variances into the clock. By a strong approximation the standardised sum then stays so close to a
Brownian motion in that clock that the boundary holds in the limit of a late first look, also
for means and variances that drift (Waudby-Smith et al. 2024, asymptotic confidence sequences). The
guarantee covers all looks together, but nothing is promised for a handful of units: that is why
evidence waits for `FEWEST_EVENTS` or `FEWEST_UNITS`. Rare events and tiny arms belong to
`abkit.sequential.canary`, which is exact. Units must be independent, and counted once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final, get_args

from abkit.errors import ConfigError, DataError, DesignError
from abkit.estimate import Estimate
from abkit.sequential.clock import (
    FEWEST_UNITS,
    Kind,
    is_enough,
    pooled_clock,
    separate_clock,
    total,
)
from abkit.sequential.normal import normal_boundary, normal_log_mixture, normal_rho
from abkit.stats.difference import check_test, interval_around
from abkit.stats.srm import capped_exp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.moments import Moments

__all__ = [
    "normal_boundary",
    "normal_log_mixture",
    "normal_rho",
    "paired_difference",
    "stratified_difference",
]

# Tuned at 0.65 of the planned information the mixture has the shortest mean run at the effect that
# the plan can detect: rho = V*/12.2 at alpha .05.
_TUNED_AT: Final = 0.65


def stratified_difference(
    strata: Sequence[tuple[Moments, Moments]],
    *,
    planned_units: int,
    kind: Kind,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    margin: float = 0.0,
) -> Estimate:
    """Difference of two means at any look, compared within allocation epochs only.

    With h_k = n_t n_c / (n_t + n_c) in epoch k the contrast is S = sum h_k (mean_t - mean_c), with
    clock V = sum h_k^2 (var_t/n_t + var_c/n_c) and information H = sum h_k. Each epoch compares
    like with like, so a base rate that drifts while the split changes does no harm. Dividing by
    the pooled variance V/H makes H the clock, so that rho depends on the plan and alpha alone.

    V is the larger of two: the one above, and the same with the variance of both arms together in
    each epoch. With an even split they agree. With 5 % in treatment and skewed values the first
    alone is not valid: a small arm that has not met a large value yet has a low mean and a low
    variance at once (24 % false positives for a log-normal of sigma 1.5, against 0.2 %).

    Args:
        strata: moments of (control, treatment) for each allocation epoch; an epoch in which one
            arm is empty contributes nothing. An arm with a single unit in an epoch borrows its
            variance from its other epochs.
        planned_units: units of both arms together at the planned end of an even split, >= 1. The
            test is valid whatever it is, and most powerful near it (planned information =
            planned_units / 4). For a constant share q give 4 q (1 - q) times the units.
        kind: "proportion" waits for 25 events and 25 non-events in each arm, "mean" for 25 units.
        alpha: error probability over all looks together, in (0, 1).
        alternative: side of the test and of the confidence sequence.
        margin: difference on the border of the null, in the metric's unit: the e-value tests
            "= margin", "<= margin" for "greater", ">= margin" for "less". For non-inferiority of
            a metric that should rise: "greater" with a negative margin. Not used by the interval.

    Returns:
        An estimate with e-value and confidence sequence (method "normal_mixture"), in the
        metric's unit. The means are weighted like the contrast, so their difference is
        `difference`. Before there is enough to go by: status "insufficient_data", with the
        difference where it exists, no interval, and an e-value of 1. Without any variance:
        "zero_variance", also 1.

    Raises:
        ConfigError: margin is not finite, or kind is unknown.
        DataError: kind is "proportion" and a value is neither 0 nor 1.
        DesignError: alpha, alternative or planned_units is unusable.

    Source: Robbins (1970); Howard et al. (2021), eq. 14; Waudby-Smith, Arbour, Sinha, Kennedy,
    Ramdas (2024), Gaussian-mixture asymptotic confidence sequences.

    Examples:
        >>> from abkit.moments import Moments
        >>> epochs = [
        ...     (Moments.of_counts(9_900, 200), Moments.of_counts(100, 2)),
        ...     (Moments.of_counts(5_000, 200), Moments.of_counts(5_000, 320)),
        ... ]
        >>> result = stratified_difference(epochs, planned_units=20_000, kind="proportion")
        >>> round(result.difference, 4), round(result.e_value)
        (0.0231, 93710)

        Cookie Cats (reference answer O03) has a fixed-horizon interval of [-0.0133, -0.0031]; the
        one that is valid at every look is wider:

        >>> gates = [(Moments.of_counts(44_700, 8_502), Moments.of_counts(45_489, 8_279))]
        >>> result = stratified_difference(gates, planned_units=90_189, kind="proportion")
        >>> round(result.interval.lower, 4), round(result.interval.upper, 4)
        (-0.0161, -0.0003)
    """
    blank = _unanswered(
        "normal_mixture",
        alpha=alpha,
        alternative=alternative,
        margin=margin,
        planned_units=planned_units,
        kind=kind,
    )
    used = [(control, treatment) for control, treatment in strata if control.n and treatment.n]
    controls = [control for control, _ in used]
    treatments = [treatment for _, treatment in used]
    blank = replace(
        blank, n_control=sum(c.n for c in controls), n_treatment=sum(t.n for t in treatments)
    )
    if not used:
        return blank
    weights = [c.n * t.n / (c.n + t.n) for c, t in used]
    h = math.fsum(weights)
    s = total(w * (t.mean - c.mean) for w, (c, t) in zip(weights, used, strict=True))
    mean_control = total(w * c.mean for w, c in zip(weights, controls, strict=True)) / h
    mean_treatment = total(w * t.mean for w, t in zip(weights, treatments, strict=True)) / h
    clocks = (
        (
            separate_clock(weights, controls, treatments),
            separate_clock(weights, treatments, controls),
        ),
        pooled_clock(weights, used),
    )
    if not all(map(math.isfinite, (s, mean_control, mean_treatment, *clocks[0], *clocks[1]))):
        return replace(blank, status="undefined")
    blank = replace(
        blank, mean_control=mean_control, mean_treatment=mean_treatment, difference=s / h
    )
    if not (is_enough(controls, kind) and is_enough(treatments, kind)):
        return blank
    v = max(v_control + v_treatment for v_control, v_treatment in clocks)
    result = _answered(blank, s, v, h, information=planned_units / 4, margin=margin)
    if result.status != "ok" or mean_control == 0:
        return result
    ratio = mean_treatment / mean_control
    v_lift = max(v_treatment + ratio**2 * v_control for v_control, v_treatment in clocks)
    return _with_lift(result, mean_control, v_lift, h, information=planned_units / 4)


def paired_difference(
    moments: Moments,
    *,
    planned_units: int,
    kind: Kind = "mean",
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    margin: float = 0.0,
) -> Estimate:
    """Mean difference of two models that both answered the same units, at any look.

    For shadow comparisons. The pair removes what the unit itself contributes, so it needs far
    fewer units than two arms do. The same mixture as `stratified_difference`, with the number of
    pairs as information.

    Differences that are roughly symmetric around the margin need few pairs. Very skewed ones do
    not: compare logarithms of amounts and latencies, and say `kind="proportion"` for scores of 0
    and 1 (a one-point margin with 1 % discordant pairs has 10-17 % false positives without).

    Args:
        moments: moments of treatment minus control, one value per unit.
        planned_units: pairs at the planned end, >= 1.
        kind: "mean" waits for 25 pairs; "proportion", for differences of -1, 0 and 1, for 25
            discordant ones.
        alpha: error probability over all looks together, in (0, 1).
        alternative: side of the test and of the confidence sequence.
        margin: difference on the border of the null, in the metric's unit, as in
            `stratified_difference`.

    Returns:
        An estimate with e-value and confidence sequence (method "paired_normal_mixture"), in the
        metric's unit; no means and no lift. Fewer than 25 (discordant) pairs: status
        "insufficient_data", with the difference where it exists, no interval, and an e-value of 1.
        Without any variance: "zero_variance", also 1.

    Raises:
        ConfigError: margin is not finite, or kind is unknown.
        DataError: kind is "proportion" and the values are not -1, 0 and 1.
        DesignError: alpha, alternative or planned_units is unusable.

    Source: as for `stratified_difference`.

    Examples:
        >>> from abkit.moments import Moments
        >>> wins, losses, ties = 80, 40, 880
        >>> differences = Moments.of([1.0] * wins + [-1.0] * losses + [0.0] * ties)
        >>> result = paired_difference(differences, planned_units=2_000, kind="proportion")
        >>> round(result.difference, 3), round(result.e_value, 1)
        (0.04, 123.9)
    """
    blank = _unanswered(
        "paired_normal_mixture",
        alpha=alpha,
        alternative=alternative,
        margin=margin,
        planned_units=planned_units,
        kind=kind,
    )
    n = moments.n
    v = n * moments.variance
    if not (math.isfinite(v) and math.isfinite(moments.total)):
        return replace(blank, status="undefined", n_control=n, n_treatment=n)
    blank = replace(blank, n_control=n, n_treatment=n, difference=moments.mean if n else None)
    if (n if kind == "mean" else _discordant(moments)) < FEWEST_UNITS:
        return blank
    return _answered(blank, moments.total, v, float(n), information=planned_units, margin=margin)


def _unanswered(
    method: str,
    *,
    alpha: float,
    alternative: Alternative,
    margin: float,
    planned_units: int,
    kind: Kind,
) -> Estimate:
    """The estimate before there is enough to go by, after checking what was asked."""
    check_test(alpha, alternative)
    if kind not in get_args(Kind):
        raise ConfigError(f"kind must be one of {get_args(Kind)}, got {kind!r}")
    if not math.isfinite(margin):
        raise ConfigError(f"margin must be finite, got {margin}")
    if planned_units < 1:
        raise DesignError(f"planned_units must be >= 1, got {planned_units}")
    return Estimate(
        method=method,
        guarantee="anytime-asymptotic",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        e_value=1.0,
        margin=margin or None,
    )


def _answered(
    blank: Estimate, s: float, v: float, h: float, *, information: float, margin: float
) -> Estimate:
    """Evidence and confidence sequence of a contrast s with clock v and information h."""
    spread = math.sqrt(v / h)
    if spread == 0:
        return replace(blank, status="zero_variance")
    rho = normal_rho(_TUNED_AT * information, blank.alpha, alternative=blank.alternative)
    log_e = normal_log_mixture((s - margin * h) / spread, h, rho=rho, alternative=blank.alternative)
    boundary = normal_boundary(h, blank.alpha, rho=rho, alternative=blank.alternative)
    return replace(
        blank,
        status="ok",
        standard_error=math.sqrt(v) / h,
        interval=interval_around(s / h, boundary * spread / h, blank.alternative),
        e_value=capped_exp(log_e),
    )


def _with_lift(
    result: Estimate, mean_control: float, v: float, h: float, *, information: float
) -> Estimate:
    """Add lift and its confidence sequence, linearised around the means (delta method)."""
    lift = (result.difference or 0.0) / mean_control
    spread = math.sqrt(v / h) / abs(mean_control)
    if not (math.isfinite(lift) and math.isfinite(spread)):
        return result
    side = result.alternative
    if mean_control < 0 and side != "two-sided":  # a larger difference is a smaller lift
        side = "less" if side == "greater" else "greater"
    rho = normal_rho(_TUNED_AT * information, result.alpha, alternative=side)
    boundary = normal_boundary(h, result.alpha, rho=rho, alternative=side)
    return replace(
        result, lift=lift, lift_interval=interval_around(lift, boundary * spread / h, side)
    )


def _discordant(moments: Moments) -> int:
    """Pairs of 0 and 1 that differ, after checking that all differences are -1, 0 or 1."""
    squares = moments.m2 + moments.n * moments.mean**2
    discordant = round(squares)
    balance = moments.successes  # wins minus losses
    slack = 1e-6 * max(1.0, squares)
    if (
        abs(squares - discordant) > slack
        or abs(moments.total - balance) > slack
        or not abs(balance) <= discordant <= moments.n
    ):
        raise DataError(
            f"pairs of proportions differ by -1, 0 or 1, got {moments}; use kind='mean' for others"
        )
    return discordant
