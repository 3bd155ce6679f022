"""Several comparisons at once: adjusted p-values, selected e-values, and intervals to match.

Holm and Hommel bound the chance of any false rejection; Benjamini-Hochberg and e-BH the expected
share of false ones among the rejections. e-BH needs no assumption about how the comparisons
depend on one another, and works at any look with e-values of e-processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from statsmodels.stats.multitest import multipletests

from abkit.errors import ConfigError, DataError
from abkit.stats.difference import check_test
from abkit.stats.standardise import at_alpha

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Estimate

Method = Literal["holm", "hommel", "bh"]
_STATSMODELS: Final = {"hommel": "hommel", "bh": "fdr_bh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What is left of a family of comparisons after correcting for their number.

    Args:
        method: "holm", "hommel", "bh" or "e-bh".
        guarantee: "family-wise" (chance of any false rejection) or "false-discovery" (expected
            share of false rejections among all), at most alpha.
        alpha: that bound, in (0, 1).
        adjusted: for each comparison the smallest alpha at which it would be rejected, in
            [0, 1]; None where it had no p-value or e-value.
        rejected: whether each is rejected.
        interval_alpha: the error probability at which each one's interval must be computed; None
            where the method defines no interval. Family-wise: alpha / m for each (all m intervals
            hold together). False discovery: R alpha / m for the R rejected ones (expected share of
            intervals that miss, among those reported, at most alpha), none for the others.
    """

    method: str
    guarantee: Literal["family-wise", "false-discovery"]
    alpha: float
    adjusted: tuple[float | None, ...]
    rejected: tuple[bool, ...]
    interval_alpha: tuple[float | None, ...]


def corrected(
    p_values: Sequence[float | None], *, method: Method = "holm", alpha: float = 0.05
) -> Correction:
    """Correct p-values for the number of comparisons.

    Holm holds under any dependence; Hommel and Benjamini-Hochberg under independence or
    positive dependence (Simes' inequality).

    Args:
        p_values: in [0, 1]. None is a comparison that was planned and has no p-value: it counts in
            the number of comparisons and is never rejected.
        method: "holm", "hommel" or "bh".
        alpha: bound on the error, in (0, 1).

    Returns:
        The correction, in the order given; empty for no p-values.

    Raises:
        ConfigError: the method is unknown.
        DataError: a p-value is outside of [0, 1] or NaN.
        DesignError: alpha is unusable.

    Source: Holm (1979); Hommel (1988); Benjamini, Hochberg (1995); Benjamini, Yekutieli (2005)
    for the intervals of the selected.

    Examples:
        >>> corrected([0.04, None], method="holm").adjusted
        (0.08, None)

        R's `p.adjust(c(.01, .02, .03, .04, .05), "holm")`:

        >>> corrected([0.01, 0.02, 0.03, 0.04, 0.05]).adjusted
        (0.05, 0.08, 0.09, 0.09, 0.09)
    """
    check_test(alpha, "two-sided")
    if method not in get_args(Method):
        raise ConfigError(f"method must be one of {get_args(Method)}, got {method!r}")
    for p in p_values:
        if p is not None and not 0 <= p <= 1:
            raise DataError(f"p-values lie in [0, 1], got {p}")
    if not p_values:
        return _correction(method, alpha, (), ())
    filled = [1.0 if p is None else p for p in p_values]
    if method == "holm":
        adjusted = _holm(filled)
    else:
        found = multipletests(np.array(filled), alpha, method=_STATSMODELS[method])
        adjusted = found[1].tolist()
    known = tuple(
        None if p is None else float(min(1.0, value))
        for p, value in zip(p_values, adjusted, strict=True)
    )
    return _correction(method, alpha, known, tuple(q is not None and q <= alpha for q in known))


def e_bh(e_values: Sequence[float | None], *, alpha: float = 0.05) -> Correction:
    """Select among e-values with a bound on the false discovery rate (e-BH).

    Valid for e-values that depend on one another in any way, at any look when they come from
    e-processes: the k largest are rejected for the largest k with `e_(k) >= m / (k alpha)`.

    Args:
        e_values: >= 0, may be infinite. None counts in the number of comparisons and is never
            rejected.
        alpha: bound on the expected share of false rejections, in (0, 1).

    Returns:
        The correction, in the order given; `adjusted` is the smallest alpha at which e-BH would
        reject. Intervals must be those of e-values (confidence sequences).

    Raises:
        DataError: an e-value is negative or NaN.
        DesignError: alpha is unusable.

    Source: Wang, Ramdas (2022), definition 2; Xu, Wang, Ramdas (2024) for the intervals.

    Examples:
        >>> e_bh([100.0, 25.0, 1.0, 45.0]).rejected
        (True, False, False, True)
    """
    check_test(alpha, "two-sided")
    for e in e_values:
        if e is not None and not e >= 0:
            raise DataError(f"e-values are >= 0, got {e}")
    m = len(e_values)
    order = sorted(range(m), key=lambda i: -(e_values[i] or 0.0))
    adjusted: list[float | None] = [None] * m
    smallest = 1.0
    for rank in range(m, 0, -1):  # from the weakest: a weak one may lean on stronger ones only
        i = order[rank - 1]
        e = e_values[i]
        smallest = min(smallest, m / rank / e if e else 1.0)
        adjusted[i] = None if e is None else smallest
    enough = tuple(q is not None and q <= alpha for q in adjusted)
    return _correction("e-bh", alpha, tuple(adjusted), enough)


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values; statsmodels collects garbage for a tenth of a second first."""
    m = len(p_values)
    adjusted = [1.0] * m
    largest = 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, (m - rank) * p_values[i])
        adjusted[i] = largest
    return adjusted


def _correction(
    method: str, alpha: float, adjusted: tuple[float | None, ...], rejected: tuple[bool, ...]
) -> Correction:
    m, selected = len(adjusted), sum(rejected)
    family = method in ("holm", "hommel")
    level = alpha / m if m else alpha
    return Correction(
        method=method,
        guarantee="family-wise" if family else "false-discovery",
        alpha=alpha,
        adjusted=adjusted,
        rejected=rejected,
        interval_alpha=tuple(
            level if family else selected * level if chosen else None for chosen in rejected
        ),
    )


def together(estimates: Sequence[Estimate], correction: Correction) -> tuple[Estimate, ...]:
    """The estimates with adjusted p-values, and intervals that hold together.

    Family-wise intervals are Bonferroni's: they hold under any dependence, and an interval can
    cover zero although Holm or Hommel rejects, never the other way round.

    Args:
        estimates: in the order of the correction, each with an interval made of its standard
            error and a t or normal quantile.
        correction: from `corrected` on their p-values.

    Returns:
        The estimates; where the method defines no interval, or an estimate has none to widen,
        interval and lift interval are None.

    Raises:
        ConfigError: their number is not that of the correction, or it is one of e-values, whose
            intervals only a confidence sequence can give.

    Examples:
        >>> from abkit.moments import Moments
        >>> from abkit.stats.difference import welch_t
        >>> arms = Moments(50, 0.0, 49.0), Moments(50, 0.5, 49.0)
        >>> one = welch_t(*arms)
        >>> both = together([one, one], corrected([one.p_value, one.p_value]))
        >>> both[0].interval == welch_t(*arms, alpha=0.025).interval
        True
    """
    if len(estimates) != len(correction.adjusted):
        raise ConfigError(
            f"{len(estimates)} estimates for a correction of {len(correction.adjusted)}"
        )
    if correction.method == "e-bh":
        raise ConfigError("recompute confidence sequences at interval_alpha; these are t and z")
    found = []
    for estimate, p, level in zip(
        estimates, correction.adjusted, correction.interval_alpha, strict=True
    ):
        fresh = at_alpha(estimate, level if level is not None else correction.alpha)
        if level is None:
            fresh = replace(fresh, interval=None, lift_interval=None)
        found.append(replace(fresh, p_value=p))
    return tuple(found)
