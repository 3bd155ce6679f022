"""Clusters: randomised by household, store or hour, measured by person, order or request.

Units of one cluster resemble one another, so the number of clusters is what counts. All that is
needed of each cluster is the sum of its values and their number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from abkit.comoments import Comoments
from abkit.stats.ratio import ratio_difference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from abkit.estimate import Alternative, Estimate
    from abkit.moments import Moments

TOTAL: Final = "total"
SIZE: Final = "size"


def cluster_sums(clusters: Iterable[Moments]) -> Comoments:
    """Sufficient statistics of one arm's clusters: comoments of their totals and sizes.

    Args:
        clusters: moments of each cluster; empty ones are left out.

    Returns:
        Comoments with the columns "total" and "size", n being the clusters.

    Examples:
        >>> from abkit.moments import Moments
        >>> cluster_sums([Moments.of([1.0, 2.0]), Moments.of([4.0])]).means
        (3.5, 1.5)
    """
    found = [cluster for cluster in clusters if cluster.n]
    return Comoments.of(
        {TOTAL: [cluster.total for cluster in found], SIZE: [float(c.n) for c in found]}
    )


def cluster_difference(
    control: Comoments,
    treatment: Comoments,
    *,
    total: str = TOTAL,
    size: str = SIZE,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Difference of two means with cluster-robust standard errors, for one look.

    The mean of all units is the ratio of the clusters' totals to their sizes; the variance is the
    ratio's over clusters. Valid for independent clusters that were randomised as such, from about
    twenty an arm; with fewer, t on the clusters' degrees of freedom is only a help.

    Args:
        control: comoments of the clusters of control, one row a cluster.
        treatment: comoments of the clusters of treatment.
        total: column with the sum of a cluster's values.
        size: column with the number of its units.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger mean.

    Returns:
        An estimate (method "cluster_robust"); `n_treatment` and `n_control` count clusters, the
        means weigh each unit alike. Statuses as in `welch_t`.

    Raises:
        DataError: a column is missing.
        DesignError: alpha or alternative is unusable.

    Source: Liang, Zeger (1986), with the factor G / (G - 1) in each arm; Deng, Knoblich, Lu
    (2018) for the delta method's view of it.

    Examples:
        >>> from abkit.moments import Moments
        >>> a = cluster_sums([Moments.of([1.0, 2.0]), Moments.of([3.0]), Moments.of([2.0, 2.0])])
        >>> b = cluster_sums([Moments.of([2.0, 3.0]), Moments.of([4.0]), Moments.of([2.0, 4.0])])
        >>> cluster_difference(a, b).difference
        1.0
    """
    result = ratio_difference(
        control, treatment, numerator=total, denominator=size, alpha=alpha, alternative=alternative
    )
    return replace(result, method="cluster_robust")
