"""Bayesian comparison of two arms: chance to beat control, expected loss, credible interval.

The posterior answers "how likely is it, given this prior", not "how often are we wrong": stopping
when the chance to beat passes .95 has no bounded false-positive rate. Integrals are quadrature,
not simulation, so that the same data give the same digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy import optimize, special, stats

from abkit.errors import DesignError
from abkit.estimate import Interval
from abkit.stats.difference import check_test, successes_of, welch_t

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from abkit.estimate import Estimate, Scale, Status
    from abkit.moments import Moments

    Array = NDArray[np.float64]

_NODES: Final = 801
_LARGEST_STEP: Final = 0.5  # of the log odds: a logistic curve needs no finer one
_REACH: Final = 12.0  # standard deviations of the log odds on each side
_TAIL: Final = 45.0  # e-folds of an exponential tail


@dataclass(frozen=True, slots=True)
class Beta:
    """Prior of a proportion.

    Args:
        successes: as if so many had been seen before, > 0.
        failures: likewise, > 0. (1, 1) is uniform, (.5, .5) Jeffreys'.

    Raises:
        DesignError: a parameter is not finite and > 0.
    """

    successes: float = 1.0
    failures: float = 1.0

    def __post_init__(self) -> None:
        """Reject what is no prior."""
        if not all(math.isfinite(x) and x > 0 for x in (self.successes, self.failures)):
            raise DesignError(f"a beta prior needs finite parameters > 0, got {self}")


UNIFORM: Final = Beta()


@dataclass(frozen=True, slots=True)
class Normal:
    """Prior of a difference or lift.

    Args:
        mean: what is expected before the data, on the scale of the comparison.
        sd: how far it may be off, > 0; infinite for a flat prior.

    Raises:
        DesignError: mean is not finite, or sd is not > 0.
    """

    mean: float = 0.0
    sd: float = math.inf

    def __post_init__(self) -> None:
        """Reject what is no prior."""
        if not (math.isfinite(self.mean) and self.sd > 0):
            raise DesignError(f"a normal prior needs a finite mean and sd > 0, got {self}")


FLAT: Final = Normal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """What is believed about treatment minus control after the data.

    Args:
        method: "beta_binomial" or "normal".
        guarantee: "bayesian": right for the prior, no bound on false positives.
        alpha: one minus the mass of the credible interval, in (0, 1).
        alternative: "two-sided": the interval is equal-tailed.
        scale: of difference, losses and interval.
        status: "ok", or why there is no answer.
        n_treatment: units in treatment.
        n_control: units in control.
        mean_treatment: posterior mean; None where only the difference has a prior.
        mean_control: likewise.
        chance_to_beat: probability that treatment is larger than control.
        difference: posterior mean of the difference.
        standard_deviation: posterior standard deviation of the difference.
        interval: equal-tailed credible interval of the difference.
        lift_interval: equal-tailed credible interval of the lift; None where it has none.
        loss_treatment: expected loss of choosing treatment, E[max(control - treatment, 0)].
        loss_control: expected loss of staying with control, E[max(treatment - control, 0)].
    """

    method: str
    guarantee: Literal["bayesian"] = "bayesian"
    alpha: float
    alternative: Literal["two-sided"] = "two-sided"
    scale: Scale = "absolute"
    status: Status = "ok"
    n_treatment: int = 0
    n_control: int = 0
    mean_treatment: float | None = None
    mean_control: float | None = None
    chance_to_beat: float | None = None
    difference: float | None = None
    standard_deviation: float | None = None
    interval: Interval | None = None
    lift_interval: Interval | None = None
    loss_treatment: float | None = None
    loss_control: float | None = None


def beta_binomial(
    control: Moments,
    treatment: Moments,
    *,
    prior_control: Beta = UNIFORM,
    prior_treatment: Beta = UNIFORM,
    alpha: float = 0.05,
) -> Posterior:
    """Posterior of two proportions with beta priors.

    Args:
        control: moments of zeros and ones in the control arm; may be empty.
        treatment: moments of zeros and ones in the treatment arm; may be empty.
        prior_control: before the data.
        prior_treatment: before the data, independent of the other.
        alpha: one minus the mass of the credible intervals, in (0, 1).

    Returns:
        The posterior. Empty arms give the prior's answer: there is always one. Losses are for a
        metric where more is better; swap them for error rates.

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: alpha is unusable.

    Source: conjugacy; integrals by the trapezoidal rule on the log odds, where the integrands are
    smooth and die off exponentially, so that it converges faster than any power of the step.

    Examples:
        >>> from abkit.moments import Moments
        >>> arms = Moments.of_counts(100, 50), Moments.of_counts(100, 50)
        >>> round(beta_binomial(*arms).chance_to_beat, 12)
        0.5

        Retention after a day in Cookie Cats (reference answer O08): 0.0372060251754.

        >>> arms = Moments.of_counts(44_700, 20_034), Moments.of_counts(45_489, 20_119)
        >>> round(beta_binomial(*arms).chance_to_beat, 8)
        0.03720603
    """
    check_test(alpha, "two-sided")
    c = _updated(prior_control, successes_of(control), control.n)
    t = _updated(prior_treatment, successes_of(treatment), treatment.n)
    on_control, on_treatment = _Grid.of(*c), _Grid.of(*t)
    mean_c, mean_t = c[0] / sum(c), t[0] / sum(t)

    def short_of(x: Array) -> Array:  # E[(control - x)+]
        beyond: Array = mean_c * special.betaincc(c[0] + 1, c[1], x) - x * special.betaincc(*c, x)
        return beyond

    def ahead_of(y: Array) -> Array:  # E[(treatment - y)+]
        beyond: Array = mean_t * special.betaincc(t[0] + 1, t[1], y) - y * special.betaincc(*t, y)
        return beyond

    def below(d: float) -> float:  # P(treatment - control <= d)
        inside = on_treatment.expected(
            lambda x: special.betaincc(*c, x - d), max(0.0, d), min(1.0, 1.0 + d)
        )
        return inside + (float(special.betainc(*t, d)) if d > 0 else 0.0)

    def lift_below(lift: float) -> float:  # P(treatment <= (1 + lift) control)
        end = 1 / (1 + lift) if lift > 0 else 1.0
        inside = on_control.expected(lambda y: special.betainc(*t, (1 + lift) * y), 0.0, end)
        return inside + float(special.betaincc(*c, end))

    chance = on_treatment.expected(lambda x: special.betainc(*c, x), 0.0, 1.0)
    spread = math.sqrt(sum(a * b / (a + b) ** 2 / (a + b + 1) for a, b in (c, t)))
    difference, lift = mean_t - mean_c, (mean_t - mean_c) / mean_c
    tails = alpha / 2, 1 - alpha / 2
    ends = [_quantile(below, p, difference, spread, (-1.0, 1.0)) for p in tails]
    lifts = [_quantile(lift_below, p, lift, spread / mean_c, (-1.0, math.inf)) for p in tails]
    return Posterior(
        method="beta_binomial",
        alpha=alpha,
        n_treatment=treatment.n,
        n_control=control.n,
        mean_treatment=mean_t,
        mean_control=mean_c,
        chance_to_beat=min(1.0, max(0.0, chance)),
        difference=difference,
        standard_deviation=spread,
        interval=Interval(*ends),
        lift_interval=Interval(*lifts),
        loss_treatment=max(0.0, on_treatment.expected(short_of, 0.0, 1.0)),
        loss_control=max(0.0, on_control.expected(ahead_of, 0.0, 1.0)),
    )


def normal_means(
    control: Moments, treatment: Moments, *, prior: Normal = FLAT, alpha: float = 0.05
) -> Posterior:
    """Posterior of the difference of two means with a normal prior.

    Args:
        control: moments of the control arm.
        treatment: moments of the treatment arm.
        prior: of treatment minus control, in the metric's unit; flat where not given.
        alpha: one minus the mass of the credible interval, in (0, 1).

    Returns:
        The posterior; statuses as in `welch_t`.

    Raises:
        DesignError: alpha is unusable.

    Source: conjugacy, the variances taken as known: fifty units an arm are enough.

    Examples:
        >>> from abkit.moments import Moments
        >>> arms = Moments(100, 1.0, 99.0), Moments(100, 1.2, 99.0)
        >>> round(normal_means(*arms, prior=Normal(0.0, 0.1)).difference, 4)
        0.0667
    """
    return normal_posterior(welch_t(control, treatment, alpha=alpha), prior=prior)


def normal_posterior(
    result: Estimate, *, prior: Normal = FLAT, scale: Literal["absolute", "relative"] = "absolute"
) -> Posterior:
    """Posterior of a difference or lift that another method estimated.

    Any estimate with a standard error will do: means, CUPED, ratios, strata, clusters.

    Args:
        result: at a fixed horizon, with a standard error.
        prior: on the same scale; flat where not given.
        scale: "absolute" for the difference, "relative" for the lift.

    Returns:
        The posterior; an estimate without an answer passes its status on, one without a lift is
        "undefined" on the relative scale.

    Source: conjugacy; expected loss of a normal: sd (phi(z) - z (1 - Phi(z))).

    Examples:
        >>> from abkit.moments import Moments
        >>> result = welch_t(Moments(100, 1.0, 99.0), Moments(100, 1.2, 99.0))
        >>> posterior = normal_posterior(result, prior=Normal(0.0, 0.05), scale="relative")
        >>> round(posterior.chance_to_beat, 3), round(posterior.loss_treatment, 4)
        (0.652, 0.0111)
    """
    blank = Posterior(
        method="normal",
        alpha=result.alpha,
        scale=scale,
        status=result.status,
        n_treatment=result.n_treatment,
        n_control=result.n_control,
    )
    point, spread = result.difference, result.standard_error
    if scale == "relative":
        point, spread = result.lift, result.lift_standard_error
    if result.status != "ok":
        return blank
    if point is None or spread is None:
        return replace(blank, status="undefined")
    # The prior's share of the posterior's precision, without squares that overflow.
    ratio = spread / prior.sd
    kept = 1 / (1 + ratio * ratio) if ratio < 1e150 else 0.0
    mean = prior.mean + kept * (point - prior.mean)
    sd = math.sqrt(kept) * spread if kept > 0 else prior.sd
    if not (math.isfinite(mean) and math.isfinite(sd) and sd > 0):
        return replace(blank, status="undefined")
    z = mean / sd
    quantile = float(stats.norm.isf(result.alpha / 2))
    ends = mean - quantile * sd, mean + quantile * sd
    losses = _loss(z, sd), _loss(-z, sd)
    if not all(map(math.isfinite, (z, *ends, *losses))):  # beyond what a float holds
        return replace(blank, status="undefined")
    return replace(
        blank,
        chance_to_beat=float(special.ndtr(z)),
        difference=mean,
        standard_deviation=sd,
        interval=Interval(*ends),
        lift_interval=None,
        loss_treatment=losses[0],
        loss_control=losses[1],
    )


def _loss(z: float, sd: float) -> float:
    """E[max(-d, 0)] for d normal with mean z sd."""
    density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) if abs(z) < 40 else 0.0
    return sd * max(0.0, density - z * float(special.ndtr(-z)))


def _updated(prior: Beta, successes: int, n: int) -> tuple[float, float]:
    return prior.successes + successes, prior.failures + (n - successes)


@dataclass(frozen=True, slots=True)
class _Grid:
    """A beta variable that can be integrated against.

    The trapezoidal rule runs on the log odds between the ends of a piece, where a density dies off
    exponentially at both ends; a piece ends where the integrand has a kink.
    """

    a: float
    b: float
    log_norm: float
    low: float  # nearly all mass lies between these two
    high: float

    @classmethod
    def of(cls, a: float, b: float) -> _Grid:
        centre = float(special.digamma(a) - special.digamma(b))
        spread = math.sqrt(float(special.polygamma(1, a) + special.polygamma(1, b)))
        # Where a parameter is small, the log odds have an exponential tail of that rate.
        down = centre - max(_REACH * spread, _TAIL / a if a < 20 else 0.0)
        up = centre + max(_REACH * spread, _TAIL / b if b < 20 else 0.0)
        odds = _steps(down, up)
        # Normalised on its own nodes: log beta is not sure enough for a billion units.
        log_norm = float(
            special.logsumexp(a * special.log_expit(odds) + b * special.log_expit(-odds))
            + math.log(odds[1] - odds[0])
        )
        return cls(a, b, log_norm, float(special.expit(down)), float(special.expit(up)))

    def expected(self, function: Callable[[Array], Array], lower: float, upper: float) -> float:
        """Integral of a function over the piece between two ends, times the density."""
        width = upper - lower
        if width <= 0 or self.high <= lower or self.low >= upper:
            return 0.0
        first = float(special.logit(max(self.low - lower, 0.0) / width))
        last = float(special.logit(min((self.high - lower) / width, 1.0)))
        first = max(first, -_TAIL * max(1.0, 1 / self.a))
        last = min(last, _TAIL * max(1.0, 1 / self.b))
        if not first < last:
            return 0.0
        odds = _steps(first, last)
        x = lower + width * special.expit(odds)
        log_share = math.log(width) + special.log_expit(odds)
        log_rest = math.log(width) + special.log_expit(-odds)
        # Logarithms of x and 1 - x that survive where x rounds to 0 or 1.
        log_x = np.log(x) if lower > 0 else log_share
        log_y = np.log((1 - upper) + np.exp(log_rest)) if upper < 1 else log_rest
        log_density = (self.a - 1) * log_x + (self.b - 1) * log_y - self.log_norm
        mass = np.exp(log_density + log_share + log_rest - math.log(width))
        mass[[0, -1]] /= 2
        return float(mass @ function(x)) * float(odds[1] - odds[0])


def _steps(first: float, last: float) -> Array:
    return np.linspace(first, last, max(_NODES, math.ceil((last - first) / _LARGEST_STEP)))


def _quantile(
    below: Callable[[float], float],
    p: float,
    centre: float,
    spread: float,
    support: tuple[float, float],
) -> float:
    """Where a distribution function reaches p, searched outwards from its middle."""
    low, high = centre, centre
    step = 2 * spread
    while low > support[0] and below(low) > p:
        low, step = max(support[0], low - step), 2 * step
    step = 2 * spread
    while high < support[1] and below(high) < p:
        high, step = min(support[1], high + step), 2 * step
        if high > 1e12:
            return math.inf
    if below(low) >= p:
        return low
    if below(high) <= p:
        return high
    return float(
        optimize.brentq(lambda d: below(d) - p, low, high, xtol=1e-10 * spread, rtol=1e-12)
    )
