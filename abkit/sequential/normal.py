"""The normal mixture itself: evidence and boundary for a sum with a variance clock.

The mixture of `exp(lambda s - lambda^2 v / 2)` over a normal lambda of precision rho is a
supermartingale when s is a sum with variance clock v. Two verbs share one argument order:
`normal_log_mixture(s, v)` is the evidence, `normal_boundary(v, alpha)` the sum at which the
evidence reaches 1/alpha. Both take floats, or arrays of many looks or runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, overload

import numpy as np
from numpy.typing import NDArray
from scipy import special

from abkit.errors import DesignError
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from abkit.estimate import Alternative

Array = NDArray[np.float64]

_NEWTON_STEPS: Final = 60


@overload
def normal_log_mixture(
    s: float, v: float, *, rho: float, alternative: Alternative = ...
) -> float: ...
@overload
def normal_log_mixture(
    s: Array, v: Array | float, *, rho: float, alternative: Alternative = ...
) -> Array: ...
@overload
def normal_log_mixture(
    s: float, v: Array, *, rho: float, alternative: Alternative = ...
) -> Array: ...
def normal_log_mixture(
    s: Array | float,
    v: Array | float,
    *,
    rho: float,
    alternative: Alternative = "two-sided",
) -> Array | float:
    """Log of the normal mixture: the evidence that a sum does not have mean zero.

    An e-process if s is sub-Gaussian with variance clock v, for any stopping rule.

    Args:
        s: sum, in the metric's unit; an array for many looks or runs at once.
        v: variance clock of s, >= 0, in the unit squared; broadcast against s.
        rho: precision of the mixing normal, > 0, in the unit of v; fixed before the data.
        alternative: "greater" and "less" mix over one sign of the mean only.

    Returns:
        Natural logarithm of the e-value, as float or array; 0 at s = v = 0.

    Raises:
        DesignError: rho or alternative is unusable.

    Source: Robbins (1970); Howard, Ramdas, McAuliffe, Sekhon (2021), section 3, eq. 14.

    Examples:
        >>> normal_log_mixture(0.0, 0.0, rho=1.0)
        0.0

        confseq's tests, v_opt = 100, alpha = .05:

        >>> round(normal_log_mixture(10.0, 100.0, rho=normal_rho(100.0, 0.05)), 7)
        -0.6510052
        >>> one_sided = normal_rho(100.0, 0.05, alternative="greater")
        >>> round(normal_log_mixture(10.0, 100.0, rho=one_sided, alternative="greater"), 8)
        -0.06502391
    """
    _check_rho(rho, alternative)
    total = v + rho
    with np.errstate(over="ignore", divide="ignore"):  # an overflow is infinite evidence
        z = s / np.sqrt(total)
        log_mixture = 0.5 * np.log(rho / total)
        if alternative == "two-sided":
            log_mixture = log_mixture + 0.5 * z * z
        else:
            towards = _signed(z, alternative)
            with_it = 0.5 * z * z + math.log(2) + special.log_ndtr(np.maximum(towards, 0.0))
            # Two large numbers would cancel here: erfcx is their product.
            against = np.log(special.erfcx(np.maximum(-towards, 0.0) / math.sqrt(2)))
            log_mixture = log_mixture + np.where(towards < 0, against, with_it)
    return log_mixture if np.ndim(log_mixture) else float(log_mixture)


@overload
def normal_boundary(
    v: float, alpha: float, *, rho: float, alternative: Alternative = ...
) -> float: ...
@overload
def normal_boundary(
    v: Array, alpha: float, *, rho: float, alternative: Alternative = ...
) -> Array: ...
def normal_boundary(
    v: Array | float,
    alpha: float,
    *,
    rho: float,
    alternative: Alternative = "two-sided",
) -> Array | float:
    """Distance from zero that the sum ever reaches with probability at most alpha.

    Args:
        v: variance clock of the sum, >= 0, in the metric's unit squared.
        alpha: error probability over all looks together, in (0, 1).
        rho: precision of the mixing normal, > 0, in the unit of v; fixed before the data.
        alternative: for "greater" the sum stays below the boundary, for "less" above its
            negative, for "two-sided" between the two.

    Returns:
        The boundary, > 0, in the metric's unit, as float or array: there
        `normal_log_mixture` is `log(1 / alpha)`.

    Raises:
        DesignError: alpha, rho or alternative is unusable.

    Source: Robbins (1970); Howard, Ramdas, McAuliffe, Sekhon (2021), eq. 14 (two-sided). The
    one-sided root is found by Newton's method, which descends monotonically since the log
    mixture is convex and increasing in s.

    Examples:
        >>> round(normal_boundary(0.0, 0.05, rho=1.0), 4)
        2.4477

        confseq's tests, v_opt = 100:

        >>> round(normal_boundary(100.0, 0.05, rho=normal_rho(100.0, 0.05)), 5)
        30.35209
        >>> one_sided = normal_rho(100.0, 0.05, alternative="greater")
        >>> round(normal_boundary(100.0, 0.05, rho=one_sided, alternative="greater"), 5)
        27.66071
    """
    check_test(alpha, alternative)
    _check_rho(rho, alternative)
    total = v + rho
    wanted = -math.log(alpha) + 0.5 * np.log(total / rho)
    z = np.sqrt(2 * wanted)
    if alternative != "two-sided":
        for _ in range(_NEWTON_STEPS):
            log_cdf = special.log_ndtr(z)
            excess = 0.5 * z * z + log_cdf + math.log(2) - wanted
            slope = z + np.exp(-0.5 * z * z - log_cdf) / math.sqrt(2 * math.pi)
            step = excess / slope
            z = z - step
            if np.all(np.abs(step) <= 1e-14 * np.maximum(1.0, z)):
                break
    boundary = z * np.sqrt(total)
    return boundary if isinstance(boundary, np.ndarray) else float(boundary)


def normal_rho(v_opt: float, alpha: float, *, alternative: Alternative = "two-sided") -> float:
    """Precision of the mixing normal that makes the boundary nearly tightest at one clock time.

    Args:
        v_opt: clock time, > 0, in the unit of v.
        alpha: error probability, in (0, 1).
        alternative: one-sided mixtures are tuned at twice the alpha (at most 0.9).

    Returns:
        rho, > 0, in the unit of v.

    Raises:
        DesignError: v_opt, alpha or alternative is unusable.

    Source: Howard, Ramdas, McAuliffe, Sekhon (2021), the tuning of eq. 14 as in confseq.

    Examples:
        confseq's tests:

        >>> round(normal_rho(100.0, 0.05), 5)
        12.60056
    """
    check_test(alpha, alternative)
    if not (math.isfinite(v_opt) and v_opt > 0):
        raise DesignError(f"v_opt must be finite and > 0, got {v_opt}")
    tuned = alpha if alternative == "two-sided" else min(2 * alpha, 0.9)
    doubled = 2 * math.log(1 / tuned)
    return v_opt / (doubled + math.log1p(doubled))


def _check_rho(rho: float, alternative: Alternative) -> None:
    check_test(0.5, alternative)
    if not (math.isfinite(rho) and rho > 0):
        raise DesignError(f"rho must be finite and > 0, got {rho}; see normal_rho")


def _signed(value: Array | float, alternative: Alternative) -> Array | float:
    return -value if alternative == "less" else value
