"""E-values: how they combine, and how they translate to and from p-values.

An e-value is evidence whose mean under the null is at most 1. Averages of e-values are e-values
whatever their dependence; products are if each is one given those before, as for independent data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from abkit.errors import ConfigError, DataError
from abkit.stats.srm import capped_exp

if TYPE_CHECKING:
    from collections.abc import Sequence


def e_to_p(e_value: float) -> float:
    """The p-value that an e-value is worth.

    Args:
        e_value: evidence, >= 0; of the largest so far for a p-value valid at every look.

    Returns:
        `min(1, 1 / e_value)`, valid by Markov's inequality, at every look by Ville's.

    Raises:
        DataError: the e-value is negative or NaN.

    Source: Vovk, Wang (2021), section 2: the only admissible e-to-p calibrator.

    Examples:
        >>> e_to_p(40.0), e_to_p(0.5)
        (0.025, 1.0)
    """
    _check([e_value])
    return 1.0 if e_value <= 1 else 1 / e_value


def p_to_e(p_value: float) -> float:
    """An e-value that a p-value is worth, without any choice to make.

    Args:
        p_value: in [0, 1], of one look.

    Returns:
        `(1 - p + p log p) / (p (log p)^2)`: the average of the calibrators k p^(k - 1) over k in
        (0, 1); 0.5 for 1, and at most 1e304.

    Raises:
        DataError: the p-value is not in [0, 1].

    Source: Vovk, Wang (2021), eq. 2.

    Examples:
        >>> round(p_to_e(0.05), 3), round(p_to_e(0.005), 3)
        (1.783, 6.9)
    """
    if not 0 <= p_value <= 1:
        raise DataError(f"a p-value lies in [0, 1], got {p_value}")
    if p_value == 0:
        return capped_exp(math.inf)
    log_p = math.log(p_value)
    if log_p > -1e-4:  # the formula loses its digits: its series at p = 1
        return 0.5 - log_p / 6
    return min(capped_exp(math.inf), (1 - p_value + p_value * log_p) / (p_value * log_p**2))


def e_product(e_values: Sequence[float]) -> float:
    """E-value of several that are each valid given those before, such as of independent data.

    Args:
        e_values: evidence, >= 0.

    Returns:
        The product, at most 1e304; 1.0 of none.

    Raises:
        DataError: an e-value is negative or NaN.

    Examples:
        >>> e_product([2.0, 10.0])
        20.0
    """
    _check(e_values)
    if any(e == 0 for e in e_values):
        return 0.0
    if len(e_values) <= 1:
        return min(capped_exp(math.inf), *e_values, math.inf) if e_values else 1.0
    exact = math.prod(e_values)
    return exact if math.isfinite(exact) and exact > 0 else capped_exp(_log_product(e_values))


def _log_product(e_values: Sequence[float]) -> float:
    return math.fsum(math.log(min(e, capped_exp(math.inf))) for e in e_values)


def e_average(e_values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """E-value of several of whatever dependence: their weighted average.

    Args:
        e_values: evidence, >= 0, at least one.
        weights: fixed before the data, >= 0, any positive multiple of the shares; equal if None.

    Returns:
        The average, at most 1e304.

    Raises:
        ConfigError: there is nothing to average, or the weights do not fit.
        DataError: an e-value is negative or NaN.

    Source: Vovk, Wang (2021), proposition 3.1: essentially the only admissible symmetric merger.

    Examples:
        >>> e_average([1.0, 39.0])
        20.0
    """
    _check(e_values)
    shares = [1.0] * len(e_values) if weights is None else list(weights)
    total = math.fsum(shares)
    if len(shares) != len(e_values) or not shares or min(shares) < 0 or not 0 < total < math.inf:
        raise ConfigError(f"need one weight >= 0 an e-value, got {weights} for {len(e_values)}")
    largest = capped_exp(math.inf)
    return math.fsum(w / total * min(e, largest) for w, e in zip(shares, e_values, strict=True))


def _check(e_values: Sequence[float]) -> None:
    if any(math.isnan(e) or e < 0 for e in e_values):
        raise DataError(f"e-values are >= 0, got {list(e_values)}")
