"""Safe z and t tests: the e-values of the package safestats, for one and for two samples.

The z test knows the standard deviation; the t test does not need it, for normal values: its
e-value is a likelihood ratio of the t statistic, which does not depend on the scale. Both hold at
every look if the values are normal; `AlwaysValid` is for others, in the limit.

Two kinds of alternative: "grow" looks for one effect size (either sign if two-sided) and is the
quickest there; "gauss" mixes over a normal prior of effect sizes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from scipy import special

from abkit.errors import ConfigError, DataError, DesignError
from abkit.estimate import Interval
from abkit.sequential.normal import normal_log_mixture
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from abkit.estimate import Alternative

EffectPrior = Literal["grow", "gauss"]
_LARGEST_T: Final = 1e150  # its square is a float; the evidence has long reached its limit
_QUADRATURE: Final = np.linspace(-9.0, 9.0, 145)


def effective_n(n_treatment: int, n_control: int) -> float:
    """Effective units of two samples: `1 / (1/n_t + 1/n_c)`; 0.0 where one is empty.

    Examples:
        safestats' test of computeNEff: 1.7142857 for 3 and 4

        >>> round(effective_n(3, 4), 7)
        1.7142857
    """
    if min(n_treatment, n_control) < 0:
        raise DataError(f"counts cannot be negative, got {n_treatment} and {n_control}")
    return n_treatment * n_control / (n_treatment + n_control) if n_treatment and n_control else 0.0


def safe_z_log_e(
    z: float,
    n: float,
    *,
    effect: float,
    prior: EffectPrior = "grow",
    alternative: Alternative = "two-sided",
) -> float:
    """Log e-value of a z statistic of values with known standard deviation.

    Args:
        z: `sqrt(n) (mean - null) / sigma`, finite; positive favours treatment.
        n: units, or `effective_n` of two samples, >= 0.
        effect: in standard deviations, > 0: the smallest effect that matters ("grow"), or the
            standard deviation of the normal prior ("gauss").
        prior: kind of alternative.
        alternative: side of the test.

    Returns:
        Natural logarithm of the e-value; 0.0 for n = 0.

    Raises:
        ConfigError: prior is unknown.
        DataError: z or n is unusable.
        DesignError: effect or alternative is unusable.

    Source: Gruenwald, de Heide, Koolen (2024), section 4; Ly, Turner, ter Schure (2022), the
    package safestats (safeZTestStat, eType "grow" and "eGauss").

    Examples:
        statistics.md, 10: z = 2.5, phi = .3, 100 units an arm: 10.59284 and 21.18516

        >>> n = effective_n(100, 100)
        >>> round(math.exp(safe_z_log_e(2.5, n, effect=0.3)), 5)
        10.59284
        >>> round(math.exp(safe_z_log_e(2.5, n, effect=0.3, alternative="greater")), 5)
        21.18516
    """
    _check(z, n, effect, prior, alternative)
    signed = -z if alternative == "less" else z
    if n == 0:
        return 0.0
    if prior == "gauss":
        return normal_log_mixture(z * math.sqrt(n), n, rho=1 / effect**2, alternative=alternative)
    shift = math.sqrt(n) * effect
    up = shift * (signed - 0.5 * shift)
    if alternative != "two-sided":
        return up
    down = -shift * (signed + 0.5 * shift)
    return float(np.logaddexp(up, down)) - math.log(2)


def safe_t_log_e(
    t: float,
    n: float,
    *,
    degrees_of_freedom: float,
    effect: float,
    prior: EffectPrior = "gauss",
    alternative: Alternative = "two-sided",
) -> float:
    """Log e-value of a t statistic of normal values with unknown standard deviation.

    Args:
        t: one-sample, paired or pooled two-sample t statistic, finite.
        n: units, pairs, or `effective_n` of two samples, >= 0.
        degrees_of_freedom: of t, >= 0: units less the number of means.
        effect: in standard deviations, > 0: the smallest effect that matters ("grow"), or the
            standard deviation of the normal prior ("gauss"; safestats' parameter g is its square).
        prior: kind of alternative.
        alternative: side of the test.

    Returns:
        Natural logarithm of the e-value; 0.0 without degrees of freedom.

    Raises:
        ConfigError: prior is unknown.
        DataError: t, n or degrees_of_freedom is unusable.
        DesignError: effect or alternative is unusable.

    Source: Perez-Ortiz, Lardy, de Heide, Gruenwald (2024); Lindon, Ham, Tingley, Bojinov (2022)
    for the mixture; the package safestats (safeTTestStat).

    Examples:
        >>> log_e = safe_t_log_e(3.0, 100, degrees_of_freedom=99, effect=0.3)
        >>> round(math.exp(log_e), 3)
        15.592
    """
    _check(t, n, effect, prior, alternative)
    nu = degrees_of_freedom
    if not (math.isfinite(nu) and nu >= 0):
        raise DataError(f"degrees of freedom must be finite and >= 0, got {nu}")
    if nu == 0 or n == 0:
        return 0.0
    t = max(-_LARGEST_T, min(_LARGEST_T, t))
    if prior == "gauss":
        return _t_gauss(t, n, nu, effect, alternative)
    share = t / math.sqrt(nu + t * t)
    shift = math.sqrt(n) * effect
    if alternative != "two-sided":
        return _t_point(share, nu, -shift if alternative == "less" else shift)
    both = (_t_point(share, nu, shift), _t_point(share, nu, -shift))
    return float(np.logaddexp(*both)) - math.log(2)


def safe_t_interval(
    mean: float,
    standard_deviation: float,
    n: float,
    *,
    degrees_of_freedom: float,
    effect: float,
    alpha: float = 0.05,
) -> Interval:
    """Confidence sequence of a mean, or difference of means, of normal values.

    Args:
        mean: estimated mean or difference, in the metric's unit.
        standard_deviation: estimated, >= 0; pooled for two samples.
        n: units, pairs, or `effective_n` of two samples, > 0.
        degrees_of_freedom: of the standard deviation, > 0.
        effect: standard deviation of the normal prior, in standard deviations, > 0.
        alpha: error probability over all looks together, in (0, 1).

    Returns:
        Interval in the metric's unit; unbounded while no mean could be rejected.

    Raises:
        DataError: a statistic is unusable.
        DesignError: alpha or effect is unusable.

    Source: Lindon, Ham, Tingley, Bojinov (2022), theorem 3.2: the values that the Gauss t test
    does not reject.

    Examples:
        >>> interval = safe_t_interval(1.0, 2.0, 100, degrees_of_freedom=99, effect=0.4)
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.3752, 1.6248)
    """
    check_test(alpha, "two-sided")
    _check(mean, n, effect, "gauss", "two-sided")
    nu = degrees_of_freedom
    if not (nu > 0 and n > 0 and math.isfinite(standard_deviation) and standard_deviation >= 0):
        raise DataError(
            f"need n, degrees of freedom > 0 and sd >= 0, got {n}, {nu}, {standard_deviation}"
        )
    spread = 1 + n * effect**2
    # (1 + q) / (1 + q / spread) = wanted with q = t^2 / nu
    wanted = math.exp(2 / (nu + 1) * (0.5 * math.log(spread) - math.log(alpha)))
    if wanted >= spread:
        return Interval(-math.inf, math.inf)
    q = (wanted - 1) / (1 - wanted / spread)
    half_width = standard_deviation * math.sqrt(q * nu / n)
    return Interval(mean - half_width, mean + half_width)


def _t_gauss(t: float, n: float, nu: float, effect: float, alternative: Alternative) -> float:
    """Bayes factor of a normal prior on the effect size, the scale integrated out."""
    spread = 1 + n * effect**2
    q = t * (t / nu)
    log_e = -0.5 * math.log(spread) + 0.5 * (nu + 1) * (math.log1p(q) - math.log1p(q / spread))
    if alternative == "two-sided":
        return log_e
    # Posterior of the mean: Student with nu + 1 degrees of freedom; twice its mass on the side.
    signed = -t if alternative == "less" else t
    ratio = n * effect**2 / (nu * (1 + q / spread)) * (nu + 1) / spread
    side = float(special.stdtr(nu + 1, signed * math.sqrt(ratio)))
    return log_e + math.log(2) + (math.log(side) if side > 0 else -math.inf)


def _t_point(share: float, nu: float, shift: float) -> float:
    """Log ratio of the noncentral to the central t density, at `share = t / sqrt(nu + t^2)`.

    The scale is integrated out on a grid around the mode of `w^nu exp(-(w - m)^2 / 2)`, which is
    log-concave, so that the trapezoidal sum is as accurate as floats are.
    """
    centre = shift * share
    return (
        -0.5 * shift * shift * (1 - share * share)
        + _log_scale_integral(nu, centre)
        - _log_scale_integral(nu, 0.0)
    )


def _log_scale_integral(nu: float, centre: float) -> float:
    """Log of the integral of `w^nu exp(-(w - centre)^2 / 2)` over w > 0, by w = e^u."""
    root = math.sqrt(centre * centre + 4 * (nu + 1))
    mode = 0.5 * (centre + root) if centre >= 0 else 2 * (nu + 1) / (root - centre)
    curvature = 2 * mode * mode - centre * mode  # of the exponent in u, at its mode
    u = math.log(mode) + _QUADRATURE / math.sqrt(curvature)
    w = np.exp(u)
    exponents = (nu + 1) * u - 0.5 * (w - centre) ** 2
    step = (_QUADRATURE[1] - _QUADRATURE[0]) / math.sqrt(curvature)
    return float(special.logsumexp(exponents)) + math.log(step)


def _check(statistic: float, n: float, effect: float, prior: str, alternative: str) -> None:
    check_test(0.5, alternative)
    if prior not in get_args(EffectPrior):
        raise ConfigError(f"prior must be one of {get_args(EffectPrior)}, got {prior!r}")
    if not (math.isfinite(effect) and effect > 0):
        raise DesignError(f"effect must be finite and > 0, got {effect}")
    if not (math.isfinite(statistic) and math.isfinite(n) and n >= 0):
        raise DataError(f"need a finite statistic and n >= 0, got {statistic} and {n}")
