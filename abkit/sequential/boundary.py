"""Boundaries for counts and bounded values: conjugate mixtures and stitching.

One grammar: `*_log_mixture(s, v)` is the evidence of a sum s with variance clock v, and
`*_boundary(v, alpha)` the sum at which it reaches 1/alpha, which is ever met with probability at
most alpha. The mixtures are tuned by `normal_rho` of the clock time that matters most. Each holds
for sums whose cumulant generating function is at most v times that of a

- gamma variable (`gamma_exponential_*`): exponential tails of scale c, such as squared normals;
- centred Poisson variable (`gamma_poisson_*`): increments of at most c, such as Poisson counts less
  their mean;
- centred Bernoulli variable (`beta_binomial_*`): increments between -g and h, such as proportions.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final

from scipy import optimize, special

from abkit.errors import DesignError
from abkit.sequential.normal import normal_rho
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.estimate import Alternative

_DOUBLINGS: Final = 200


def gamma_exponential_log_mixture(s: float, v: float, *, rho: float, c: float) -> float:
    """Log evidence that a sub-gamma sum has a mean above zero.

    Args:
        s: sum, in the metric's unit, with `c s + v + rho > 0`.
        v: variance clock, >= 0, in the unit squared.
        rho: precision of the mixture, > 0, in the unit of v; see `normal_rho(..., "greater")`.
        c: scale of the exponential tail, > 0, in the metric's unit.

    Returns:
        Natural logarithm of the e-value; -inf where s is below what c allows, or so low that the
        prior's share of the evidence does not fit into a float.

    Raises:
        DesignError: rho or c is unusable.

    Source: Howard, Ramdas, McAuliffe, Sekhon (2021), proposition 9.

    Examples:
        confseq's tests, v_opt = 100, c = 2, alpha = .05: -.2490165

        >>> rho = normal_rho(100.0, 0.05, alternative="greater")
        >>> round(gamma_exponential_log_mixture(10.0, 100.0, rho=rho, c=2.0), 7)
        -0.2490165
    """
    _check(rho, c)
    square = c * c
    a, r = (v + rho) / square, rho / square
    x = (c * s + v + rho) / square
    if x <= 0:
        return -math.inf
    prior = r * math.log(r) - math.lgamma(r) - math.log(float(special.gammainc(r, r)))
    tail = _log(float(special.gammainc(a, x)))
    return prior + math.lgamma(a) + tail - a * math.log(x) + (c * s + v) / square


def gamma_exponential_boundary(v: float, alpha: float, *, rho: float, c: float) -> float:
    """Sum that a sub-gamma process without drift ever reaches with probability at most alpha.

    Args:
        v: variance clock, >= 0, in the metric's unit squared.
        alpha: error probability over all looks together, in (0, 1).
        rho: precision of the mixture, > 0.
        c: scale of the exponential tail, > 0.

    Returns:
        The boundary, > 0, in the metric's unit.

    Raises:
        DesignError: alpha, rho or c is unusable.

    Examples:
        statistics.md, 9: 33.02017

        >>> rho = normal_rho(100.0, 0.05, alternative="greater")
        >>> round(gamma_exponential_boundary(100.0, 0.05, rho=rho, c=2.0), 5)
        33.02017
    """
    return _root(lambda s: gamma_exponential_log_mixture(s, v, rho=rho, c=c), v, alpha)


def gamma_poisson_log_mixture(s: float, v: float, *, rho: float, c: float) -> float:
    """Log evidence that a sub-Poisson sum has a mean above zero.

    Args:
        s: sum, in the metric's unit, with `c s + v + rho > 0`.
        v: variance clock, >= 0, in the unit squared.
        rho: precision of the mixture, > 0, in the unit of v; see `normal_rho(..., "greater")`.
        c: largest increment, > 0, in the metric's unit.

    Returns:
        Natural logarithm of the e-value; -inf as for `gamma_exponential_log_mixture`.

    Raises:
        DesignError: rho or c is unusable.

    Source: Howard, Ramdas, McAuliffe, Sekhon (2021), proposition 10.

    Examples:
        confseq's tests, v_opt = 100, c = 2, alpha = .05: -.06991219

        >>> rho = normal_rho(100.0, 0.05, alternative="greater")
        >>> round(gamma_poisson_log_mixture(10.0, 100.0, rho=rho, c=2.0), 8)
        -0.06991219
    """
    _check(rho, c)
    square = c * c
    b, r = (v + rho) / square, rho / square
    a = s / c + b
    if a <= 0:
        return -math.inf
    prior = r * math.log(r) - math.lgamma(r) - math.log(float(special.gammaincc(r, r)))
    tail = _log(float(special.gammaincc(a, b)))
    return prior + math.lgamma(a) + tail - a * math.log(b) + v / square


def gamma_poisson_boundary(v: float, alpha: float, *, rho: float, c: float) -> float:
    """Sum that a sub-Poisson process without drift ever reaches with probability at most alpha.

    Args:
        v: variance clock, >= 0, in the metric's unit squared.
        alpha: error probability over all looks together, in (0, 1).
        rho: precision of the mixture, > 0.
        c: largest increment, > 0.

    Returns:
        The boundary, > 0, in the metric's unit.

    Raises:
        DesignError: alpha, rho or c is unusable.

    Examples:
        confseq's tests: 30.1949

        >>> rho = normal_rho(100.0, 0.05, alternative="greater")
        >>> round(gamma_poisson_boundary(100.0, 0.05, rho=rho, c=2.0), 4)
        30.1949
    """
    return _root(lambda s: gamma_poisson_log_mixture(s, v, rho=rho, c=c), v, alpha)


def beta_binomial_log_mixture(
    s: float, v: float, *, rho: float, g: float, h: float, alternative: Alternative = "two-sided"
) -> float:
    """Log evidence that a sum of bounded increments does not have mean zero.

    Args:
        s: sum, in [-v/h, v/g], in the metric's unit.
        v: variance clock, >= 0, in the unit squared: `n g h` for n increments in [-g, h].
        rho: precision of the mixture, > 0, in the unit of v, of the same side.
        g: increments are at least -g, > 0.
        h: increments are at most h, > 0.
        alternative: "greater" and "less" mix over one sign of the mean only.

    Returns:
        Natural logarithm of the e-value; -inf on one side where s is so far on the other that the
        prior's share of the evidence does not fit into a float.

    Raises:
        DesignError: rho, g, h or alternative is unusable, or s is out of range.

    Source: Howard, Ramdas, McAuliffe, Sekhon (2021), propositions 7 and 8.

    Examples:
        confseq's tests, v_opt = 100, g = .2, h = .8, alpha = .05: -.6941012

        >>> rho = normal_rho(100.0, 0.05)
        >>> round(beta_binomial_log_mixture(10.0, 100.0, rho=rho, g=0.2, h=0.8), 7)
        -0.6941012
    """
    check_test(0.5, alternative)
    _check(rho, g)
    _check(rho, h)
    if alternative == "less":
        return beta_binomial_log_mixture(-s, v, rho=rho, g=h, h=g, alternative="greater")
    r = max(rho - g * h, 1e-3 * g * h)
    width = g + h
    x = 1.0 if alternative == "two-sided" else h / width
    below, above = (v - g * s) / (g * width), (v + h * s) / (h * width)
    slack = 1e-9 * (1 + v / (g * width) + v / (h * width))  # rounding at the ends of the range
    if min(below, above) < -slack:
        raise DesignError(f"s must lie in [-v/h, v/g] = [{-v / h}, {v / g}], got {s}")
    below, above = max(0.0, below), max(0.0, above)
    return (
        v / (g * h) * math.log(width)
        - above * math.log(g)
        - below * math.log(h)
        + _log_beta(r / (g * width) + below, r / (h * width) + above, x)
        - _log_beta(r / (g * width), r / (h * width), x)
    )


def beta_binomial_boundary(
    v: float,
    alpha: float,
    *,
    rho: float,
    g: float,
    h: float,
    alternative: Alternative = "two-sided",
) -> float:
    """Distance above zero that the sum ever reaches with probability at most alpha.

    For the distance below zero of a two-sided test, exchange g and h.

    Args:
        v: variance clock, >= 0, in the metric's unit squared.
        alpha: error probability over all looks together, in (0, 1).
        rho: precision of the mixture, > 0, of the same side.
        g: increments are at least -g, > 0.
        h: increments are at most h, > 0.
        alternative: for "less" the distance is below zero.

    Returns:
        The boundary, > 0, at most `v/g`, the largest sum there is ("less": `v/h`).

    Raises:
        DesignError: alpha, rho, g, h or alternative is unusable.

    Examples:
        statistics.md, 9: 31.4308 and 28.41238

        >>> rho = normal_rho(100.0, 0.05)
        >>> round(beta_binomial_boundary(100.0, 0.05, rho=rho, g=0.2, h=0.8), 4)
        31.4308
    """
    if alternative == "less":
        return beta_binomial_boundary(v, alpha, rho=rho, g=h, h=g, alternative="greater")
    return _root(
        lambda s: beta_binomial_log_mixture(s, v, rho=rho, g=g, h=h, alternative=alternative),
        v,
        alpha,
        largest=v / g,
    )


def bernoulli_interval(
    successes: int, n: int, *, alpha: float = 0.05, n_opt: float
) -> tuple[float, float]:
    """Confidence sequence of one proportion, exact at every look.

    Inverts the two-sided beta-binomial mixture, so rates near 0 and 1 are no exception.

    Args:
        successes: ones so far, in [0, n].
        n: units so far, >= 0.
        alpha: error probability over all looks together, in (0, 1).
        n_opt: units at which the sequence is to be tight, > 0; fixed before the data.

    Returns:
        Lower and upper end, in [0, 1]; (0.0, 1.0) before the first unit.

    Raises:
        DesignError: alpha, n_opt or the counts are unusable.

    Source: Howard, Ramdas, McAuliffe, Sekhon (2021), proposition 7.

    Examples:
        statistics.md, 9: (.651629, .745949)

        >>> low, high = bernoulli_interval(700, 1_000, n_opt=100)
        >>> round(low, 7), round(high, 7)
        (0.6516298, 0.7459495)
    """
    check_test(alpha, "two-sided")
    if not (math.isfinite(n_opt) and n_opt > 0):
        raise DesignError(f"n_opt must be finite and > 0, got {n_opt}")
    if not 0 <= successes <= n:
        raise DesignError(f"successes must lie in [0, n], got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0

    def excess(p: float) -> float:
        v = n * p * (1 - p)
        rho = normal_rho(n_opt * p * (1 - p), alpha)
        s = successes - n * p
        return beta_binomial_log_mixture(s, v, rho=rho, g=p, h=1 - p) + math.log(alpha)

    edge = 1e-12
    share = min(max(successes / n, edge), 1 - edge)
    low, high = 0.0, 1.0  # where not even the most extreme rate is excluded
    if successes > 0 and excess(edge) > 0:
        low = float(optimize.brentq(excess, edge, share, xtol=1e-13))
    if successes < n and excess(1 - edge) > 0:
        high = float(optimize.brentq(excess, share, 1 - edge, xtol=1e-13))
    return low, high


@functools.lru_cache(maxsize=64)
def _stitching(s: float, eta: float) -> tuple[float, float, float]:
    k1 = (eta**0.25 + eta**-0.25) / math.sqrt(2)
    k2 = (math.sqrt(eta) + 1) / 2
    return k1, k2, math.log(float(special.zeta(s)) / math.log(eta) ** s)


def poly_stitching_boundary(
    v: float, alpha: float, *, v_min: float, c: float = 0.0, s: float = 1.4, eta: float = 2.0
) -> float:
    """Boundary of the law of the iterated logarithm for sub-gamma sums: tight over all times.

    Args:
        v: variance clock, >= 0, in the metric's unit squared.
        alpha: error probability over all looks together, in (0, 1).
        v_min: clock time before which the boundary stays constant, > 0.
        c: scale of the exponential tail, in the metric's unit; 0 for sub-Gaussian sums, negative
            for lighter tails.
        s: power of the epochs' error probabilities, > 1.
        eta: ratio of the epochs' lengths, > 1.

    Returns:
        The boundary, > 0, in the metric's unit.

    Raises:
        DesignError: alpha, v_min, s or eta is unusable.

    Source: Howard, Ramdas, McAuliffe, Sekhon (2021), eq. 10.

    Examples:
        confseq's tests, v_min = 10: 64.48755 with c = 3 and 28.99389 with c = -1

        >>> round(poly_stitching_boundary(100.0, 0.05, v_min=10.0, c=3.0), 5)
        64.48755
    """
    check_test(alpha, "greater")
    if not (v_min > 0 and s > 1 and eta > 1):
        raise DesignError(f"need v_min > 0, s > 1, eta > 1; got {v_min}, {s}, {eta}")
    k1, k2, constant = _stitching(s, eta)
    at = max(v, v_min)
    ell = s * math.log(math.log(eta * at / v_min)) + constant - math.log(alpha)
    linear = k2 * c * ell
    return math.sqrt(k1 * k1 * at * ell + linear * linear) + linear


def _root(
    log_mixture: Callable[[float], float], v: float, alpha: float, *, largest: float = math.inf
) -> float:
    """Sum at which a log mixture that rises from s = 0 reaches log(1 / alpha)."""
    check_test(alpha, "greater")
    if v < 0:
        raise DesignError(f"a variance clock must be >= 0, got {v}")
    wanted = -math.log(alpha)
    high = largest
    if math.isinf(largest):
        high = 1.0 + v
        for _ in range(_DOUBLINGS):
            if log_mixture(high) > wanted:
                break
            high *= 2
    if log_mixture(high) <= wanted:
        return high
    if not log_mixture(0.0) <= wanted < log_mixture(high):
        raise DesignError(f"a variance clock of {v:g} is beyond what floats can tell here")
    return float(optimize.brentq(lambda s: log_mixture(s) - wanted, 0.0, high, xtol=1e-10))


def _log_beta(a: float, b: float, x: float) -> float:
    """Log of the incomplete beta function up to x."""
    whole = float(special.betaln(a, b))
    return whole if x == 1 else whole + _log(float(special.betainc(a, b, x)))


def _log(probability: float) -> float:
    """Log of a tail; -inf where it underflows, since any other floor would invent evidence."""
    return math.log(probability) if probability > 0 else -math.inf


def _check(rho: float, width: float) -> None:
    if not (math.isfinite(rho) and rho > 0):
        raise DesignError(f"rho must be finite and > 0, got {rho}; see normal_rho")
    if not (math.isfinite(width) and width > 0):
        raise DesignError(f"c, g and h must be finite and > 0, got {width}")
