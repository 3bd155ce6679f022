"""Quantiles at any look: confidence sequences from order statistics, exact for any distribution.

The number of values up to the p-quantile is a count of coin tosses with chance p (at least p, where
values are tied). The beta-binomial boundary holds that count at all looks together, and the order
statistics at its ends hold the quantile. Nothing is assumed but independent units with the same
distribution; the ranks depend on n alone, so a database can pick the two values.

Latency targets need no quantile: whether a request took longer than a threshold fixed beforehand is
an event, and its rate is compared by `abkit.sequential.hypergeometric`, exactly, on few requests.
`exceedances` makes the block.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from abkit.errors import DataError, DesignError
from abkit.estimate import Interval
from abkit.moments import Block
from abkit.sequential.boundary import beta_binomial_boundary
from abkit.sequential.design import Look
from abkit.sequential.normal import normal_rho
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@functools.lru_cache(maxsize=4096)
def quantile_ranks(n: int, p: float, *, alpha: float = 0.05, n_opt: float) -> tuple[int, int]:
    """Ranks of the order statistics that hold the p-quantile at all looks together.

    Args:
        n: units so far, >= 0.
        p: the quantile's probability, in (0, 1); 0.95 for the 95th percentile.
        alpha: error probability over all looks together, in (0, 1).
        n_opt: units at which the sequence is to be tight, > 0; fixed before the data.

    Returns:
        Ranks of the lower and the upper end, from 1 for the smallest value. 0 or n + 1 where the
        data do not bound that side.

    Raises:
        DesignError: n, p, alpha or n_opt is unusable.

    Source: Howard, Ramdas (2022), theorem 1 and eq. 19 (the beta-binomial boundary).

    Examples:
        >>> quantile_ranks(2_500, 0.95, n_opt=1_000)
        (2340, 2407)
        >>> quantile_ranks(10, 0.95, n_opt=1_000)
        (2, 11)
    """
    check_test(alpha, "two-sided")
    if not 0 < p < 1:
        raise DesignError(f"a quantile's probability lies in (0, 1), got {p}; 0.95, not 95")
    if n < 0 or not (math.isfinite(n_opt) and n_opt > 0):
        raise DesignError(f"need n >= 0 and a finite n_opt > 0, got {n} and {n_opt}")
    if n == 0:
        return 0, 1
    v, rho = n * p * (1 - p), normal_rho(n_opt * p * (1 - p), alpha)
    # The count less its mean moves up by 1 - p and down by p.
    above = beta_binomial_boundary(v, alpha, rho=rho, g=p, h=1 - p)
    below = beta_binomial_boundary(v, alpha, rho=rho, g=1 - p, h=p)
    # A boundary as large as the largest possible sum excludes nothing.
    lower = math.floor(n * p - below * (1 - 1e-12)) + 1 if below < n * p * (1 - 1e-9) else 0
    upper = math.ceil(n * p + above * (1 - 1e-12)) if above < n * (1 - p) * (1 - 1e-9) else n + 1
    return max(0, lower), min(n + 1, upper)


def quantile_interval(
    values: Sequence[float], p: float, *, alpha: float = 0.05, n_opt: float
) -> Interval:
    """Confidence sequence of a quantile.

    Args:
        values: one value per unit, in any order, none NaN.
        p: the quantile's probability, in (0, 1).
        alpha: error probability over all looks together, in (0, 1).
        n_opt: units at which the sequence is to be tight, > 0; fixed before the data.

    Returns:
        Interval in the unit of the values; ends that the data do not bound are infinite.

    Raises:
        DataError: a value is NaN.
        DesignError: p, alpha or n_opt is unusable.

    Source: Howard, Ramdas (2022), theorem 1.

    Examples:
        >>> interval = quantile_interval([float(x) for x in range(1, 2_501)], 0.95, n_opt=1_000)
        >>> interval.lower, interval.upper
        (2340.0, 2407.0)
    """
    lower, upper = quantile_ranks(len(values), p, alpha=alpha, n_opt=n_opt)
    if any(math.isnan(value) for value in values):
        raise DataError("values must not be NaN; leave those units out and say so")
    ordered = sorted(values)
    return Interval(
        ordered[lower - 1] if lower >= 1 else -math.inf,
        ordered[upper - 1] if upper <= len(ordered) else math.inf,
    )


def quantile_difference(
    control: Sequence[float],
    treatment: Sequence[float],
    p: float,
    *,
    alpha: float = 0.05,
    n_opt: float,
) -> Look:
    """Confidence sequence of the difference of a quantile between two arms.

    The union bound over the arms, each at half of alpha: simple, exact, a little wide.

    Args:
        control: one value per unit of control.
        treatment: one value per unit of treatment.
        p: the quantile's probability, in (0, 1).
        alpha: error probability over all looks and both arms together, in (0, 1).
        n_opt: units of one arm at which the sequence is to be tight, > 0.

    Returns:
        A look in the unit of the values (method "quantile_beta_binomial"); "insufficient_data"
        while an arm does not bound its quantile on both sides. It rejects once 0 is excluded.

    Raises:
        DataError: a value is NaN.
        DesignError: p, alpha or n_opt is unusable.

    Examples:
        >>> slow = [float(x) for x in range(2_000)]
        >>> fast = [0.5 * x for x in slow]
        >>> quantile_difference(slow, fast, 0.5, n_opt=1_000).decision
        'reject'
    """
    arms = [quantile_interval(a, p, alpha=alpha / 2, n_opt=n_opt) for a in (control, treatment)]
    lower = _less(arms[1].lower, arms[0].upper, unknown=-math.inf)
    upper = _less(arms[1].upper, arms[0].lower, unknown=math.inf)
    before, after = (_point(arm, p) for arm in (control, treatment))
    bounded = math.isfinite(lower) and math.isfinite(upper)
    estimate = None
    if before is not None and after is not None:
        estimate = after - before
    return Look(
        method="quantile_beta_binomial",
        guarantee="anytime-valid",
        alpha=alpha,
        alternative="two-sided",
        status="ok" if bounded else "insufficient_data",
        decision="reject" if bounded and (lower > 0 or upper < 0) else "continue",
        information=float(len(control) + len(treatment)),
        estimate=estimate,
        interval=Interval(lower, upper),
    )


def exceedances(
    control: Iterable[float], treatment: Iterable[float], threshold: float, *, hour: int = 0
) -> Block:
    """Block of how many values exceed a threshold that was fixed before the data.

    Args:
        control: values of control since the last look, such as latencies.
        treatment: values of treatment since the last look.
        threshold: the objective (SLO), in the unit of the values, finite.
        hour: clock hour since the rollout began.

    Returns:
        A block for `HypergeometricMixture` or `CanaryDesign`; NaN counts as exceeding: a request
        without an answer is not fast.

    Raises:
        DesignError: the threshold is not finite.

    Examples:
        >>> exceedances([90.0, 110.0], [120.0, 130.0, 80.0], 100.0).events_treatment
        2
    """
    if not math.isfinite(threshold):
        raise DesignError(f"a threshold must be finite, got {threshold}")
    counts = [
        (len(arm), sum(not x <= threshold for x in arm)) for arm in map(list, (control, treatment))
    ]
    (n_control, events_control), (n_treatment, events_treatment) = counts
    return Block(n_control, n_treatment, events_control, events_treatment, hour)


def _less(one: float, other: float, *, unknown: float) -> float:
    """The difference of two ends; both infinite on the same side say nothing."""
    return unknown if math.isinf(one) and one == other else one - other


def _point(values: Sequence[float], p: float) -> float | None:
    if not values:
        return None
    found = sorted(values)[max(0, math.ceil(len(values) * p) - 1)]
    return found if math.isfinite(found) else None
