"""The mixture SPRT with a fixed mixing variance, as others define it: for comparison and migration.

It is the normal mixture of `abkit.sequential.normal` at a precision that is stated as the prior
variance of the difference, `rho = spread^2 / tau2`. Prefer `AlwaysValid`, which finds it from the
plan, and stratifies by allocation epoch; a tau2 that depends on the data, as the estimated variance
in Liu et al., is no longer fixed beforehand and holds in the limit only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.errors import DataError, DesignError
from abkit.estimate import Interval
from abkit.sequential.design import Contrast, Look, check_past, rejected, running_p
from abkit.stats.difference import check_test
from abkit.stats.srm import capped_exp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.moments import Moments


def msprt_log_e(difference: float, variance: float, *, tau2: float) -> float:
    """Log e-value of a difference under a normal prior of variance tau2.

    Args:
        difference: estimated difference, in the metric's unit, finite.
        variance: variance of that estimate, > 0, in the unit squared.
        tau2: prior variance of the difference, > 0, in the unit squared; fixed beforehand.

    Returns:
        Natural logarithm of the e-value.

    Raises:
        DataError: the variance is not positive: without variance there is no evidence.
        DesignError: tau2 is not positive.

    Source: Robbins (1970); Johari, Pekelis, Walsh (2015), section 4; the two-sample form of
    REFERENCE.md's conventions.

    Examples:
        Landing-page experiment of Udacity at its end (reference answer O14): -1.27721631806

        >>> control, treatment = 17_489 / 145_274, 17_264 / 145_310
        >>> variance = control * (1 - control) / 145_274 + treatment * (1 - treatment) / 145_310
        >>> round(msprt_log_e(treatment - control, variance, tau2=0.01**2), 9)
        -1.277216318
    """
    _check(variance, tau2)
    total = variance + tau2
    share = tau2 / total
    z = difference / math.sqrt(variance)
    # log1p keeps the digits where tau2 is tiny.
    shrunk = math.log1p(-share) if share < 0.5 else math.log(variance) - math.log(total)
    return 0.5 * shrunk + 0.5 * share * z * z


def msprt_interval(
    difference: float, variance: float, *, tau2: float, alpha: float = 0.05
) -> Interval:
    """Confidence sequence of a difference: the values that the mSPRT does not reject.

    Args:
        difference: estimated difference, in the metric's unit.
        variance: variance of that estimate, > 0.
        tau2: prior variance of the difference, > 0.
        alpha: error probability over all looks together, in (0, 1).

    Returns:
        Interval in the metric's unit.

    Raises:
        DataError: the variance is not positive.
        DesignError: tau2 or alpha is unusable.

    Examples:
        >>> interval = msprt_interval(1.0, 0.04, tau2=1.0)
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.3797, 1.6203)
    """
    check_test(alpha, "two-sided")
    _check(variance, tau2)
    total = variance + tau2
    wanted = -2 * math.log(alpha) + math.log(total / variance)
    half_width = math.sqrt(variance) * math.sqrt(total / tau2 * wanted)
    return Interval(difference - half_width, difference + half_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedTauMixture:
    """The two-sided mSPRT as a design.

    Args:
        tau2: prior variance of the difference, > 0, in the metric's unit squared.
        alpha: error probability over all looks together, in (0, 1).

    Examples:
        >>> FixedTauMixture(tau2=1.0).look(Contrast(s=100.0, v=400.0, h=100.0)).decision
        'reject'
    """

    tau2: float
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        check_test(self.alpha, self.alternative)
        _check(1.0, self.tau2)

    @property
    def alternative(self) -> Alternative:
        """Side of the test: it has no other."""
        return "two-sided"

    def look(self, data: Contrast, past: Sequence[Look] = ()) -> Look:
        """Evidence and confidence sequence of the difference at one look.

        Args:
            data: the contrast so far.
            past: earlier looks, oldest first; the last one's p-value and rejection stand.

        Returns:
            A look in the metric's unit; "insufficient_data" or "zero_variance" with an e-value of
            1, as for `AlwaysValid`.
        """
        check_past(past, self, method="msprt")
        answered = data.enough and data.spread > 0
        variance = data.v / data.h / data.h if answered else 1.0
        difference = data.difference
        log_e = 0.0
        if answered and difference is not None:
            log_e = msprt_log_e(difference, variance, tau2=self.tau2)
        stops = log_e >= -math.log(self.alpha) or rejected(past)
        interval = None
        if answered and difference is not None:
            interval = msprt_interval(difference, variance, tau2=self.tau2, alpha=self.alpha)
        return Look(
            method="msprt",
            guarantee="anytime-asymptotic",
            alpha=self.alpha,
            alternative=self.alternative,
            status="ok" if answered else "zero_variance" if data.enough else "insufficient_data",
            decision="reject" if stops else "continue",
            information=data.h,
            estimate=difference,
            interval=interval,
            statistic=data.z,
            e_value=capped_exp(log_e),
            p_value=running_p(log_e, past),
        )


def liu_log_e(control: Moments, treatment: Moments, *, tau2: float) -> float:
    """The mSPRT in the form of Liu et al., on the harmonic mean of the counts.

    The variance of the difference is `(var_t + var_c) / n` with n the harmonic mean of the counts,
    which equals `var_t/n_t + var_c/n_c` for equal variances or counts. Take the running maximum
    over looks (their running minimum of p).

    Args:
        control: moments of the control arm.
        treatment: moments of the treatment arm.
        tau2: prior variance of the difference, > 0.

    Returns:
        Natural logarithm of the e-value; 0.0 for an empty arm or without variance.

    Raises:
        DesignError: tau2 is not positive.

    Source: Liu, Cardoso, Couturier, McCoy (2021), section 5.2.

    Examples:
        >>> from abkit.moments import Moments
        >>> liu_log_e(Moments(), Moments.of([1.0]), tau2=1.0)
        0.0
    """
    spread2 = control.variance + treatment.variance
    if not control.n or not treatment.n or spread2 == 0:
        return 0.0
    harmonic = 2 / (1 / control.n + 1 / treatment.n)
    return msprt_log_e(treatment.mean - control.mean, spread2 / harmonic, tau2=tau2)


def _check(variance: float, tau2: float) -> None:
    if not (math.isfinite(variance) and variance > 0):
        raise DataError(f"a variance must be finite and > 0 here, got {variance}: no evidence yet")
    if not (math.isfinite(tau2) and tau2 > 0):
        raise DesignError(f"tau2 must be finite and > 0, got {tau2}")
