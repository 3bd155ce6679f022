"""Mann-Whitney's rank test: is a value of treatment larger than one of control more often?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import stats

from abkit.errors import DataError
from abkit.estimate import Interval
from abkit.stats.difference import check_test, tail_alpha
from abkit.stats.standardise import t_p_value

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from abkit.estimate import Alternative, Guarantee, Status

_EXACT_UNITS: Final = 8  # scipy's own limit for the exact distribution
_EXACT_PAIRS: Final = 20_000  # 50 ms; a million take ten seconds, and the normal serves as well
_SCIPY_UNITS: Final = 1_000_000  # beyond, its cubes of tie counts overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTest:
    """A rank comparison of treatment with control; it is not about means.

    Args:
        method: "mann_whitney".
        guarantee: "exact" for small samples without ties, else "fixed-horizon".
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the test.
        status: "ok", or why there is no answer.
        n_treatment: values in treatment.
        n_control: values in control.
        statistic: U of treatment, pairs it wins plus half of the ties.
        p_value: in [0, 1].
        superiority: U as a share of all pairs, P(treatment > control) + P(tie) / 2.
        interval: confidence interval of `superiority`, in [0, 1].
    """

    method: str = "mann_whitney"
    guarantee: Guarantee = "fixed-horizon"
    alpha: float
    alternative: Alternative
    status: Status = "insufficient_data"
    n_treatment: int
    n_control: int
    statistic: float | None = None
    p_value: float | None = None
    superiority: float | None = None
    interval: Interval | None = None


def mann_whitney(
    control: ArrayLike,
    treatment: ArrayLike,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> RankTest:
    """Mann-Whitney-Wilcoxon rank sum test, for one look.

    Valid as a test that both arms have the same distribution, for independent values. It can
    reject where the means are equal and the shapes are not: decide on means where sums matter.

    Args:
        control: one value a unit, in any order.
        treatment: likewise.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment tends to be larger.

    Returns:
        The test; exact p for at most 8 values in an arm and 20,000 pairs without ties, else the
        normal one with continuity and tie corrections, as R's. The interval of the superiority is
        DeLong's on the logit scale. An empty arm gives "insufficient_data", nothing but ties
        "zero_variance".

    Raises:
        DataError: a value is NaN.
        DesignError: alpha or alternative is unusable.

    Source: Mann, Whitney (1947); DeLong, DeLong, Clarke-Pearson (1988).

    Examples:
        R's `wilcox.test(c(.80, .83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, .73, 1.46), c(1.15, .88,
        .90, .74, 1.21), alternative = "g")`: W = 35, p-value = 0.1272.

        >>> term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
        >>> result = mann_whitney([1.15, 0.88, 0.90, 0.74, 1.21], term, alternative="greater")
        >>> result.statistic, round(result.p_value, 4)
        (35.0, 0.1272)
    """
    check_test(alpha, alternative)
    c, t = (np.asarray(values, dtype=float) for values in (control, treatment))
    if np.isnan(c).any() or np.isnan(t).any():
        raise DataError("missing values have no rank; drop or fill them before")
    blank = RankTest(
        alpha=alpha, alternative=alternative, n_treatment=int(t.size), n_control=int(c.size)
    )
    if min(c.size, t.size) == 0:
        return blank
    ranks = stats.rankdata(np.concatenate([t, c]))
    pairs = int(t.size) * int(c.size)
    u = math.fsum(ranks[: t.size]) - t.size * (t.size + 1) / 2
    share = u / pairs
    blank = replace(blank, statistic=u, superiority=share)
    ordered = np.sort(ranks)
    if ordered[0] == ordered[-1]:
        return replace(blank, status="zero_variance")
    ties = bool(np.any(ordered[1:] == ordered[:-1]))
    exact = min(c.size, t.size) <= _EXACT_UNITS and not ties and pairs <= _EXACT_PAIRS
    if exact or c.size + t.size <= _SCIPY_UNITS:
        p_value = float(
            stats.mannwhitneyu(
                t, c, alternative=alternative, method="exact" if exact else "asymptotic"
            ).pvalue
        )
    else:
        p_value = _normal_p(u, int(t.size), int(c.size), ordered, alternative)
    return replace(
        blank,
        status="ok",
        guarantee="exact" if exact else "fixed-horizon",
        p_value=min(1.0, p_value),
        interval=_delong(ranks, t, c, alpha=alpha, alternative=alternative),
    )


def _normal_p(
    u: float, n: int, m: int, ordered: NDArray[np.float64], alternative: Alternative
) -> float:
    """Normal p-value with continuity and tie corrections, in floats that do not overflow."""
    _, counts = np.unique(ordered, return_counts=True)
    tied = counts.astype(float)
    total = float(n + m)
    shrink = float(np.sum(tied**3 - tied)) / (total * (total - 1))
    sd = math.sqrt(float(n) * m / 12 * (total + 1 - shrink))
    distance = u - n * m / 2
    if alternative == "two-sided":
        distance = math.copysign(max(0.0, abs(distance) - 0.5), distance)
    else:
        distance -= 0.5 if alternative == "greater" else -0.5
    return t_p_value(distance / sd, alternative, math.inf)


def _delong(
    ranks: NDArray[np.float64],
    t: NDArray[np.float64],
    c: NDArray[np.float64],
    *,
    alpha: float,
    alternative: Alternative,
) -> Interval | None:
    """Interval from the placements of each value among the other arm's."""
    if min(t.size, c.size) < 2:
        return None
    over_control = (ranks[: t.size] - stats.rankdata(t)) / c.size
    share = float(np.mean(over_control))
    if not 0 < share < 1:
        return None
    over_treatment = (ranks[t.size :] - stats.rankdata(c)) / t.size
    variance = float(
        np.var(over_control, ddof=1) / t.size + np.var(over_treatment, ddof=1) / c.size
    )
    if variance == 0:
        return None
    critical = float(stats.norm.isf(tail_alpha(alpha, alternative)))
    logit = math.log(share / (1 - share))
    half = critical * math.sqrt(variance) / (share * (1 - share))
    ends = [1 / (1 + math.exp(min(700.0, -(logit + sign * half)))) for sign in (-1, 1)]
    return Interval(
        0.0 if alternative == "less" else ends[0], 1.0 if alternative == "greater" else ends[1]
    )
