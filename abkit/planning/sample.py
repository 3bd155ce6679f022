"""A user's own data, made ready to be randomised again and again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from abkit.errors import ConfigError, DataError
from abkit.records import counted
from abkit.store.rows import open_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float64]

_BUCKETS: Final = 2_000  # groups of a look that are assigned one by one; more are put in buckets
_FEWEST: Final = 50

# Columns of a group, all of which add up over groups. Values are taken around the metric's mean.
GROUPS, ROWS, ROWS2, BUCKETS = range(4)
SUM, SUM2, CROSS, SQUARES = range(4)  # of a metric: from `Sample.metric`
_SHARED, _EACH = 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Sums by group of what is randomised together, in the order of their looks.

    Args:
        looks: for each look the groups that are new, shape (groups, columns). The columns are
            the number of groups, of rows, its square, and of buckets; then for each metric the
            sum of its values about their mean in units of its scale, its square, its product with
            the rows, and the sum of squares.
        metrics: names.
        means: mean of each metric over all rows.
        scales: of each metric, near its spread; 1 for values of 0 and 1.
        binary: for each metric whether all values are 0 or 1.
        clustered: whether groups hold several rows.
        notes: what was done with the data, one sentence each.
    """

    looks: tuple[Array, ...]
    metrics: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    binary: tuple[bool, ...]
    clustered: bool
    notes: tuple[str, ...] = ()

    @property
    def totals(self) -> Array:
        """Sums of all groups up to each look, shape (looks, columns)."""
        return np.cumsum([look.sum(axis=0) for look in self.looks], axis=0)

    def metric(self, index: int) -> int:
        """First column of a metric."""
        return _SHARED + _EACH * index


def read_sample(
    source: object,
    *,
    unit: str,
    metrics: Sequence[str],
    time: str | None = None,
    cluster: str | None = None,
    looks: int = 20,
    seed: int = 0,
) -> Sample:
    """Read a table for re-randomisation.

    Args:
        source: path, frame, Arrow table or DuckDB relation.
        unit: column of the unit; each stands in one row unless there is a cluster.
        metrics: columns of numbers; rows that lack one of them are left out.
        time: column by which units come in; in a random order without one.
        cluster: column of what is randomised together.
        looks: looks with about as many new rows each, >= 1.
        seed: of the random order, and of the buckets of many units.

    Raises:
        ConfigError: there is no metric, or one stands twice.
        DataError: the data is not usable; the message says why.
    """
    if not metrics or len(set(metrics)) < len(metrics):
        raise ConfigError(f"name one or more different metrics, got {list(metrics)}")
    labels = {"unit": unit}
    labels |= {} if time is None else {"time": time}
    labels |= {} if cluster is None else {"cluster": cluster}
    numbers = {f"metric {i + 1}" if i else "metric": name for i, name in enumerate(metrics)}
    with open_rows(source, labels=labels, numbers=numbers) as rows:
        for part, column in labels.items():
            lacking = rows.empty(column)
            if lacking:
                raise DataError(
                    f"{part} {column!r} is empty in {counted(lacking, 'row')}; drop each"
                )
        repeated = rows.repeated(unit) if cluster is None else 0
        if repeated:
            raise DataError(
                f"column {unit!r} has {counted(repeated, 'unit')} in several rows; if units were "
                f"randomised and rows are their events, say cluster={unit!r}"
            )
        values = np.stack(rows.numbers(list(metrics)), axis=1)
        times = rows.ranks(time) if time is not None else None
        groups = rows.ranks(cluster) if cluster is not None else None
    return sample_of(values, metrics, times=times, groups=groups, looks=looks, seed=seed)


def sample_of(
    values: Array,
    metrics: Sequence[str],
    *,
    times: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
    looks: int = 20,
    seed: int = 0,
) -> Sample:
    """A sample from arrays.

    Args:
        values: of the metrics, shape (rows, metrics); rows with a NaN are left out.
        metrics: names.
        times: of the rows, in any unit; a random order without them. A group counts as a whole
            when its first row comes in.
        groups: of the rows; each row by itself without them.
        looks: number of looks, >= 1.
        seed: of the random order.

    Raises:
        DataError: too few groups are left, a metric does not vary, or its values are too large.
    """
    rng = np.random.default_rng(seed)
    kept = np.isfinite(values).all(axis=1)
    notes = []
    if not kept.all():
        notes.append(f"left out: {counted(int((~kept).sum()), 'row')} without a value")
    y = values[kept]
    if len(y) and (y.max(axis=0) == y.min(axis=0)).any():
        at = int(np.argmax(y.max(axis=0) == y.min(axis=0)))
        raise DataError(f"all values of {metrics[at]!r} are the same: nothing to simulate")
    binary = tuple(bool(np.isin(column, (0.0, 1.0)).all()) for column in y.T)
    y, means, scales = _scaled(y, binary, metrics)
    order = rng.permutation(len(y)) if times is None else times[kept]
    if groups is None:
        label = np.arange(len(y))
    else:
        label = np.unique(groups[kept], return_inverse=True)[1].ravel()
    count = int(label.max()) + 1 if len(label) else 0
    if count < _FEWEST:
        what = "units" if groups is None else "clusters"
        raise DataError(f"a simulation needs at least {_FEWEST} {what}, got {count}")
    columns, first = _columns(y, label, order, count)
    sequence = np.argsort(first, kind="stable")
    ends = np.cumsum(columns[sequence, ROWS])
    at = np.minimum((np.maximum(ends - 0.5, 0) * looks / ends[-1]).astype(np.int64), looks - 1)
    parts = [columns[sequence[at == look]] for look in range(looks)]
    parts = [part for part in parts if len(part)]
    if len(parts) < looks:
        notes.append(f"{len(parts)} looks instead of {looks}: some would have brought nothing new")
    if any(len(part) > _BUCKETS for part in parts):
        notes.append(f"randomised in random buckets, {_BUCKETS:,} at each look")
        parts = [_bucketed(part, rng) for part in parts]
    return Sample(
        looks=tuple(parts),
        metrics=tuple(metrics),
        means=means,
        scales=scales,
        binary=binary,
        clustered=groups is not None,
        notes=tuple(notes),
    )


def _scaled(
    y: Array, binary: Sequence[bool], metrics: Sequence[str]
) -> tuple[Array, tuple[float, ...], tuple[float, ...]]:
    """Values about their means in units of a power of two near their spread, and both."""
    found, means, scales = [], [], []
    for column, name, of_two in zip(y.T, metrics, binary, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(column.mean()) if len(column) else 0.0
            centred = column - mean
            farthest = float(np.abs(centred).max(initial=0.0))
        if not (np.isfinite(mean) and np.isfinite(farthest)):
            raise DataError(f"values of {name!r} are too large to be summed; rescale the metric")
        scale = 1.0
        if not of_two and farthest > 0:
            spread = farthest * math.sqrt(float(((centred / farthest) ** 2).mean()))
            scale = 2.0 ** min(max(round(math.log2(spread)), -1_000), 1_000)
        found.append(centred / scale)
        means.append(mean)
        scales.append(scale)
    return np.stack(found, axis=1), tuple(means), tuple(scales)


def _columns(
    y: Array, label: NDArray[np.int64], order: NDArray[np.int64], count: int
) -> tuple[Array, Array]:
    """Columns of each group, and when it comes in."""
    rows: Array = np.bincount(label, minlength=count).astype(np.float64)
    ones = np.ones(count, dtype=np.float64)
    found: list[NDArray[Any]] = [ones, rows, rows**2, ones]
    for column in y.T:
        total = np.bincount(label, weights=column, minlength=count)
        squares = np.bincount(label, weights=column**2, minlength=count)
        found += [total, total**2, total * rows, squares]
    first = np.full(count, np.inf)
    np.minimum.at(first, label, order)
    return np.stack(found, axis=1), first


def _bucketed(part: Array, rng: np.random.Generator) -> Array:
    """Sums by random buckets: what is assigned as one, with the same moments as its groups."""
    if len(part) <= _BUCKETS:
        return part
    place = rng.permutation(np.arange(len(part)) % _BUCKETS)
    found: Array = np.stack(
        [np.bincount(place, weights=column, minlength=_BUCKETS) for column in part.T], axis=1
    )
    found[:, BUCKETS] = 1.0
    return found
