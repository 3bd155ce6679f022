"""Thousands of randomisations of the same data: sums of treatment at every look, and their z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from abkit.planning.sample import (
    CROSS,
    GROUPS,
    ROWS,
    ROWS2,
    SQUARES,
    SUM,
    SUM2,
    Sample,
)
from abkit.sequential.clock import FEWEST_EVENTS, FEWEST_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.estimate import Alternative

Array = NDArray[np.float64]
Analysis = Literal["unit", "cluster", "row"]

_CHUNK: Final = 4_000_000  # assignments held at once


@dataclass(frozen=True, slots=True)
class Effect:
    """What treatment does to a value: `scale` times it, plus `shift`.

    Args:
        scale: 1 + lift of a multiplicative effect.
        shift: of an additive one, in the metric's unit.
    """

    scale: float = 1.0
    shift: float = 0.0

    def difference(self, mean: float) -> float:
        """Effect on the mean, in the metric's unit."""
        return (self.scale - 1) * mean + self.shift


@dataclass(frozen=True, slots=True)
class Paths:
    """A comparison of means at every look of every run.

    Args:
        z: statistic of the sequential designs, shape (runs, looks); 0 where there is no variance.
        enough: whether asymptotics may be relied on.
        p_fixed: p-value of the fixed test at each look.
    """

    z: Array
    enough: NDArray[np.bool_]
    p_fixed: Array


def draw(
    sample: Sample,
    *,
    share: float,
    runs: int,
    rng: np.random.Generator,
    progress: Callable[[float], None] | None = None,
) -> Array:
    """Sums of the groups that are put into treatment, by run and look.

    Args:
        sample: the data.
        share: of treatment, in (0, 1); each group by itself.
        runs: number of randomisations.
        rng: where the assignments come from.
        progress: told the share that is done.

    Returns:
        Sums of the columns among what is new at each look, shape (runs, looks, columns).
    """
    looks, columns = len(sample.looks), sample.looks[0].shape[1]
    found = np.empty((runs, looks, columns))
    for number, part in enumerate(sample.looks):
        step = max(1, _CHUNK // len(part))
        for start in range(0, runs, step):
            size = min(step, runs - start)
            chosen = rng.random((size, len(part)), dtype=np.float32) < share
            found[start : start + size, number] = chosen.astype(np.float64) @ part
        if progress is not None:
            progress((number + 1) / looks)
    return found


def affected(
    treated: Array, sample: Sample, metric: int, effect: Effect, rng: np.random.Generator
) -> Array:
    """Sums of treatment after the effect: columns of rows and of one metric.

    A binary metric of single units is flipped: units without a success get one with the chance
    that makes the difference, or lose it. Other values are scaled and shifted; of clusters, binary
    ones too.

    Args:
        treated: from `draw`.
        sample: the data.
        metric: index of the metric.
        effect: what treatment does.
        rng: for the flips.

    Returns:
        A copy of `treated` with the columns of that metric changed.
    """
    found = treated.copy()
    at, mean = sample.metric(metric), sample.means[metric]
    rows, crossed = found[..., ROWS], found[..., ROWS2]
    s, ss = found[..., at + SUM].copy(), found[..., at + SUM2].copy()
    sm, squares = found[..., at + CROSS].copy(), found[..., at + SQUARES].copy()
    if sample.binary[metric] and not sample.clustered:
        ones = np.rint(s + mean * rows).astype(np.int64)
        zeros = np.rint(rows).astype(np.int64) - ones
        difference = effect.difference(mean)
        if difference >= 0:
            ones = ones + rng.binomial(zeros, min(1.0, difference / (1 - mean)))
        else:
            ones = ones - rng.binomial(ones, min(1.0, -difference / mean))
        found[..., at + SUM] = ones - mean * rows
        found[..., at + SQUARES] = ones * (1 - mean) ** 2 + (rows - ones) * mean**2
        return found
    a, e = effect.scale, effect.difference(mean) / sample.scales[metric]
    found[..., at + SUM] = a * s + e * rows
    found[..., at + SUM2] = a * a * ss + 2 * a * e * sm + e * e * crossed
    found[..., at + CROSS] = a * sm + e * crossed
    found[..., at + SQUARES] = a * a * squares + 2 * a * e * s + e * e * rows
    return found


def paths(
    treated: Array,
    control: Array,
    sample: Sample,
    metric: int,
    *,
    analysis: Analysis,
    alternative: Alternative,
) -> Paths:
    """The comparison of treatment with control at every look.

    Args:
        treated: sums of treatment up to each look, shape (runs, looks, columns).
        control: those of control.
        sample: the data.
        metric: index of the metric.
        analysis: "unit" and "row" take each row for independent, "cluster" compares ratios of
            sums of clusters by the delta method.
        alternative: side of the fixed test.

    Returns:
        z, p-values of the fixed test (pooled z for 0 and 1, Welch's t for others, z of clusters),
        and whether there is enough to go by. All are finite.

    Source: as `abkit.sequential.contrast` and `abkit.stats.cluster`, in arrays.
    """
    at = sample.metric(metric)
    arms = [_arm(sums, at, clusters=analysis == "cluster") for sums in (treated, control)]
    (nt, mean_t, var_t), (nc, mean_c, var_c) = arms
    difference = mean_t - mean_c
    enough = (nt >= FEWEST_UNITS) & (nc >= FEWEST_UNITS)
    apart = var_t / np.maximum(nt, 1) + var_c / np.maximum(nc, 1)
    if analysis == "cluster":
        z = _ratio(difference, apart)
        return Paths(z, enough, tail(stats.norm.sf, z, alternative))
    freedom = np.maximum(nt + nc - 2, 1)
    pooled = ((nt - 1) * var_t + (nc - 1) * var_c) / freedom * (1 / np.maximum(nt, 1))
    pooled += ((nt - 1) * var_t + (nc - 1) * var_c) / freedom * (1 / np.maximum(nc, 1))
    z = _ratio(difference, np.maximum(apart, pooled))
    if sample.binary[metric]:
        mean = sample.means[metric]
        for n, own in ((nt, mean_t + mean), (nc, mean_c + mean)):
            enough &= (n * own >= FEWEST_EVENTS) & (n * (1 - own) >= FEWEST_EVENTS)
        rate = (nt * mean_t + nc * mean_c) / np.maximum(nt + nc, 1) + mean
        null = np.maximum(rate * (1 - rate), 0.0) * (1 / np.maximum(nt, 1) + 1 / np.maximum(nc, 1))
        return Paths(z, enough, tail(stats.norm.sf, _ratio(difference, null), alternative))
    t = _ratio(difference, apart)
    parts = (var_t / np.maximum(nt, 1)) ** 2 / np.maximum(nt - 1, 1)
    parts += (var_c / np.maximum(nc, 1)) ** 2 / np.maximum(nc - 1, 1)
    welch = np.maximum(np.divide(apart**2, parts, out=np.ones_like(parts), where=parts > 0), 1.0)
    return Paths(z, enough, tail(lambda x: stats.t.sf(x, welch), t, alternative))


def tail(sf: Callable[[Array], Any], z: Array, alternative: Alternative) -> Array:
    """p-values of a statistic.

    Args:
        sf: probability above, of a symmetric distribution.
        z: the statistic.
        alternative: side of the test.
    """
    if alternative == "two-sided":
        return np.minimum(1.0, 2 * np.asarray(sf(np.abs(z)), dtype=np.float64))
    return np.asarray(sf(z if alternative == "greater" else -z), dtype=np.float64)


def _arm(sums: Array, at: int, *, clusters: bool) -> tuple[Array, Array, Array]:
    """Number of independent parts, mean about the metric's mean, and variance of a part."""
    rows = np.maximum(sums[..., ROWS], 1.0)
    mean = sums[..., at + SUM] / rows
    if not clusters:
        n = sums[..., ROWS]
        centred = np.maximum(sums[..., at + SQUARES] - n * mean**2, 0.0)
        return n, mean, centred / np.maximum(n - 1, 1)
    n = sums[..., GROUPS]
    rest = sums[..., at + SUM2] - 2 * mean * sums[..., at + CROSS] + mean**2 * sums[..., ROWS2]
    size = rows / np.maximum(n, 1)
    return n, mean, np.maximum(rest, 0.0) / np.maximum(n - 1, 1) / size**2


def _ratio(difference: Array, variance: Array) -> Array:
    found: Array = np.divide(
        difference, np.sqrt(variance), out=np.zeros_like(difference), where=variance > 0
    )
    return found
