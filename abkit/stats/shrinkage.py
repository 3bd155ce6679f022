"""The winner's curse: the effects that were selected for being large are smaller than they look.

Shrinking each estimate towards the mean of a prior removes the selection bias if the prior is
right, because a posterior mean does not care how the experiment was chosen. The prior is stated,
or fitted to past experiments (empirical Bayes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scipy import optimize, stats

from abkit.estimate import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Scale, Status
    from abkit.stats.bayes import Normal

_FEWEST: Final = 3  # experiments, to tell their spread from their errors


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPrior:
    """A normal prior of effects, from past experiments.

    Args:
        status: "ok", or "insufficient_data" below three usable experiments.
        mean: of the true effects, on the estimates' scale.
        sd: of the true effects, >= 0; 0 where the estimates differ by no more than their errors.
        standard_error: of `mean`.
        experiments: number used.
    """

    status: Status
    mean: float = 0.0
    sd: float = 0.0
    standard_error: float = 0.0
    experiments: int = 0


def fit_prior(estimates: Sequence[Estimate], *, scale: Scale = "absolute") -> FittedPrior:
    """Mean and spread of the true effects behind a collection of estimates.

    The spread is the one at which the weighted squared deviations are as large as expected (Paule
    and Mandel), so no distribution of the effects is assumed. Valid for experiments that were not
    selected by their results: put in all of them, not the winners.

    Args:
        estimates: from any method with a standard error, on one metric.
        scale: "relative" takes lifts, "absolute" differences.

    Returns:
        The fitted prior. Estimates without an answer are left out.

    Source: Paule, Mandel (1982); DerSimonian, Kacker (2007).

    Examples:
        >>> def trial(effect, error):
        ...     return Estimate(
        ...         method="welch_t", guarantee="fixed-horizon", alpha=0.05,
        ...         alternative="two-sided", difference=effect, standard_error=error,
        ...     )
        >>> fitted = fit_prior([trial(0.0, 1.0), trial(4.0, 1.0), trial(-4.0, 1.0)])
        >>> round(fitted.mean, 9), round(fitted.sd**2, 9)
        (0.0, 15.0)
    """
    points = [_point(estimate, scale) for estimate in estimates]
    known = [point for point in points if point is not None]
    if len(known) < _FEWEST:
        return FittedPrior(status="insufficient_data", experiments=len(known))
    unit = max(max(abs(y), s) for y, s in known)
    data = [(y / unit, s / unit) for y, s in known]

    def centre(variance: float) -> tuple[float, float]:
        weights = [1 / (s * s + variance) for _, s in data]
        total = math.fsum(weights)
        return math.fsum(w * y for w, (y, _) in zip(weights, data, strict=True)) / total, total

    def excess(variance: float) -> float:
        middle, _ = centre(variance)
        spread = math.fsum((y - middle) ** 2 / (s * s + variance) for y, s in data)
        return spread - (len(data) - 1)

    if min(s for _, s in data) < 1e-150:  # squares of such errors are no floats
        return FittedPrior(status="undefined", experiments=len(known))
    variance = 0.0
    if excess(0.0) > 0:
        variance = float(optimize.brentq(excess, 0.0, 8.0, xtol=1e-16, rtol=1e-13))
    middle, total = centre(variance)
    return FittedPrior(
        status="ok",
        mean=middle * unit,
        sd=math.sqrt(variance) * unit,
        standard_error=unit / math.sqrt(total),
        experiments=len(known),
    )


def shrunken(result: Estimate, prior: Normal, *, scale: Scale = "absolute") -> Estimate:
    """An estimate shrunk towards a prior: what to expect of a winner after it is shipped.

    Args:
        result: from any method with a standard error.
        prior: of the true effects, on the scale; stated beforehand, or
            `Normal(fitted.mean, fitted.sd)` of past experiments. A fitted sd of 0 is no prior:
            their estimates differ by no more than their errors, so state one.
        scale: "relative" for the lift, "absolute" for the difference.

    Returns:
        The estimate (guarantee "bayesian", "shrunken" appended to the method) with posterior mean,
        standard deviation and credible interval in `difference`, `standard_error` and `interval`;
        no p-value. An estimate without an answer comes back with its status.

    Source: Efron, Morris (1975); Efron (2011) for selection.

    Examples:
        An effect of 3 standard errors, where true effects are usually one:

        >>> winner = Estimate(
        ...     method="welch_t", guarantee="fixed-horizon", alpha=0.05,
        ...     alternative="two-sided", difference=3.0, standard_error=1.0,
        ... )
        >>> from abkit.stats.bayes import Normal
        >>> shrunken(winner, Normal(0.0, 1.0)).difference
        1.5
    """
    blank = replace(
        result,
        method=f"{result.method}_shrunken",
        guarantee="bayesian",
        alternative="two-sided",
        scale=scale,
        difference=None,
        standard_error=None,
        interval=None,
        statistic=None,
        degrees_of_freedom=None,
        p_value=None,
        e_value=None,
        lift=None,
        lift_interval=None,
        lift_standard_error=None,
        margin=None,
    )
    if result.status != "ok":
        return blank
    point = _point(result, scale)
    if point is None:
        return replace(blank, status="undefined")
    effect, error = point
    ratio = error / prior.sd
    kept = 1 / (1 + ratio * ratio) if ratio < 1e150 else 0.0
    mean = prior.mean + kept * (effect - prior.mean)
    sd = math.sqrt(kept) * error if kept > 0 else prior.sd
    if not (math.isfinite(mean) and math.isfinite(sd)):
        return replace(blank, status="undefined")
    half = float(stats.norm.isf(result.alpha / 2)) * sd
    return replace(
        blank, difference=mean, standard_error=sd, interval=Interval(mean - half, mean + half)
    )


def _point(estimate: Estimate, scale: Scale) -> tuple[float, float] | None:
    """Effect and standard error, where both are there."""
    effect, error = estimate.difference, estimate.standard_error
    if scale == "relative" and estimate.scale != "relative":
        effect, error = estimate.lift, estimate.lift_standard_error
    if estimate.status != "ok" or effect is None or error is None or not error > 0:
        return None
    return effect, error
