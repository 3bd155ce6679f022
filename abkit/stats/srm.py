"""Sample ratio mismatch (SRM): do the arms hold the shares they were meant to hold?

A mismatch means that units were lost or double-counted depending on their variant, and then no
comparison can be trusted. It blocks a promotion, never a halt.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from scipy import stats

from abkit.errors import ConfigError, DataError, DesignError
from abkit.estimate import BalanceTest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SRM_WARN = 100.0
SRM_BLOCK = 1000.0
_LARGEST_LOG = 700.0  # exp(700) is about 1e304, still a float


def capped_exp(log_value: float) -> float:
    """Exponential that stops at exp(700), about 1e304, instead of overflowing.

    Args:
        log_value: natural logarithm, any float, may be infinite.

    Returns:
        A finite number >= 0.

    Examples:
        >>> capped_exp(0.0), capped_exp(1e9) == capped_exp(700.0)
        (1.0, True)
    """
    return math.exp(min(log_value, _LARGEST_LOG))


def _shares(counts: Sequence[int], weights: Sequence[float]) -> list[float]:
    """Intended shares that sum to one, after checking both inputs."""
    if len(counts) != len(weights) or len(weights) < 2:
        raise ConfigError(
            f"need one weight a count and at least two arms, got {counts} and {weights}"
        )
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ConfigError(
            f"weights must be finite and > 0, got {weights}; leave out arms with no traffic"
        )
    if any(count < 0 for count in counts):
        raise DataError(f"counts cannot be negative, got {counts}")
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def chi_square(counts: Sequence[int], weights: Sequence[float]) -> tuple[float, float]:
    """Pearson's chi-square test of the split, for one look.

    Valid for independent units at a single look, with about five expected units in each arm.

    Args:
        counts: units seen in each arm, >= 0.
        weights: intended share of each arm, > 0; any positive multiple of the shares will do.

    Returns:
        Statistic (>= 0) and p-value in [0, 1]; (0.0, 1.0) before the first unit.

    Raises:
        ConfigError: a weight is not positive, or there are not two arms.
        DataError: a count is negative.

    Source: Pearson (1900).

    Examples:
        >>> chi_square([50, 50], [1, 1])
        (0.0, 1.0)

        R's `chisq.test(c(10000, 10300))`:

        >>> "{:.7f} {:.7f}".format(*chi_square([10_000, 10_300], [0.5, 0.5]))
        '4.4334975 0.0352402'
    """
    shares = _shares(counts, weights)
    total = sum(counts)
    if total == 0:
        return 0.0, 1.0
    test = stats.chisquare([float(count) for count in counts], [total * q for q in shares])
    return float(test.statistic), float(test.pvalue)


def lindon_malek_log_e(
    counts: Sequence[int], weights: Sequence[float], *, concentration: float
) -> float:
    """Log e-value against the intended split, valid at every look.

    The Bayes factor of a Dirichlet prior around the intended shares against those shares
    themselves. Under the intended split it is a martingale in the units that arrive
    independently, so by Ville's inequality it ever exceeds 1/alpha with probability <= alpha.

    Args:
        counts: units seen in each arm so far, >= 0.
        weights: intended share of each arm, > 0; any positive multiple of the shares will do.
        concentration: sum of the prior's parameters, > 0, in units: the prior of arm i is
            `concentration * share_i`, as if so many units had been seen at the intended split.
            Larger values look for smaller shifts; the prior's standard deviation of an even
            share is about `0.5 / sqrt(concentration)`.

    Returns:
        Natural logarithm of the e-value; 0.0 before the first unit. Its absolute error is
        about 1e-16 times `n log n` for n units.

    Raises:
        ConfigError: a weight is not positive, or there are not two arms.
        DataError: a count is negative.
        DesignError: concentration is not positive.

    Source: Lindon, Malek (2022), the Dirichlet-multinomial Bayes factor.

    Examples:
        >>> lindon_malek_log_e([0, 0], [0.5, 0.5], concentration=100)
        0.0

        Published for these counts is the e-value, 4.917049, not its logarithm:

        >>> e_value = math.exp(lindon_malek_log_e([480, 560], [0.5, 0.5], concentration=100))
        >>> round(e_value, 6)
        4.917049
    """
    if not (math.isfinite(concentration) and concentration > 0):
        raise DesignError(f"concentration must be finite and > 0, got {concentration}")
    shares = _shares(counts, weights)
    terms = [math.lgamma(concentration), -math.lgamma(concentration + sum(counts))]
    for count, share in zip(counts, shares, strict=True):
        prior = concentration * share
        terms += [math.lgamma(prior + count), -math.lgamma(prior), -count * math.log(share)]
    return math.fsum(terms)


def srm_concentration(share_shift: float) -> float:
    """Concentration of the prior that looks for shifts of about this size.

    Args:
        share_shift: shift of an even share that matters, in (0, 0.5]: 0.01 is one percentage
            point. It becomes the prior's standard deviation of an even share.

    Returns:
        `1 / (4 share_shift^2)`, in units.

    Raises:
        DesignError: share_shift is out of range.

    Examples:
        >>> round(srm_concentration(0.01))
        2500
    """
    if not 0 < share_shift <= 1 / 2:
        raise DesignError(f"share_shift must lie in (0, 0.5], got {share_shift}; 0.01 is one point")
    return 1 / (4 * share_shift**2)


def balance_test(
    counts: Mapping[str, int], weights: Mapping[str, float], *, share_shift: float = 0.01
) -> BalanceTest:
    """Test the split of units between variants for sample ratio mismatch.

    Args:
        counts: units seen in each variant; a variant that is absent has seen none.
        weights: intended share of each variant, > 0; they need not sum to one.
        share_shift: shift of an even share that the e-value looks for, in (0, 0.5]; see
            `srm_concentration`.

    Returns:
        Chi-square with its p-value for one look, and the e-value for every look; status "warn"
        from 100 on, "block" from 1,000 on. Before the first unit: 0.0, 1.0, 1.0, "ok".

    Raises:
        ConfigError: a weight is not positive, or there are not two variants.
        DataError: a count is negative, or of a variant that has no weight.
        DesignError: share_shift is out of range.

    Source: Lindon, Malek (2022); Fabijan et al. (2019) for the practice.

    Examples:
        >>> balance_test({"a": 5_000, "b": 5_050}, {"a": 0.5, "b": 0.5}).status
        'ok'
        >>> balance_test({"a": 50_000, "b": 52_000}, {"a": 0.5, "b": 0.5}).status
        'block'
    """
    strangers = sorted(set(counts) - set(weights))
    if strangers:
        raise DataError(f"units were seen in variants without a weight: {strangers}")
    seen = [counts.get(name, 0) for name in weights]
    shares = list(weights.values())
    statistic, p_value = chi_square(seen, shares)
    log_e = lindon_malek_log_e(seen, shares, concentration=srm_concentration(share_shift))
    e_value = capped_exp(log_e)
    status: Literal["ok", "warn", "block"] = "ok"
    if e_value >= SRM_BLOCK:
        status = "block"
    elif e_value >= SRM_WARN:
        status = "warn"
    return BalanceTest(statistic=statistic, p_value=p_value, e_value=e_value, status=status)
