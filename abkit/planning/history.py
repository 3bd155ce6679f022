"""What past data says of a metric before an experiment: level, spread, covariates, arrivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from abkit.errors import DataError
from abkit.records import counted
from abkit.store.rows import open_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_FALLING: Final = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Facts of one metric from past data.

    Args:
        n: units with a value.
        mean: of the metric.
        sd: standard deviation (ddof = 1), in the metric's unit.
        binary: whether all values are 0 or 1.
        variance_reduction: share of the variance that the covariates explain, in [0, 1).
        units_per_day: mean number of units that entered in a day; None without times.
        notes: what was used and what to know, one sentence each.
    """

    n: int
    mean: float
    sd: float
    binary: bool
    variance_reduction: float
    units_per_day: float | None
    notes: tuple[str, ...]


def read_history(
    source: object,
    *,
    unit: str,
    metric: str,
    covariates: Sequence[str] = (),
    time: str | None = None,
) -> History:
    """Read past data, one row per unit.

    Args:
        source: path, frame, Arrow table or DuckDB relation.
        unit: column of the unit.
        metric: column of the metric, numbers; rows without a value are left out.
        covariates: columns known before the assignment; a row without one of them counts as its
            mean.
        time: column of the time at which the unit entered.

    Raises:
        DataError: a column or value is not usable, a unit has two rows, or there is no variance.
    """
    labels = {"unit": unit} | ({} if time is None else {"time": time})
    numbers = {"metric": metric} | {f"covariate {i + 1}": c for i, c in enumerate(covariates)}
    with open_rows(source, labels=labels, numbers=numbers) as rows:
        repeated = rows.repeated(unit)
        if repeated:
            raise DataError(
                f"column {unit!r} has {counted(repeated, 'unit')} in several rows; a history has "
                "one row per unit: sum its rows first"
            )
        values, *before = rows.numbers([metric, *covariates])
        days = rows.days(time) if time is not None else None
    notes = [f"from {int(np.isfinite(values).sum()):,} units of the history"]
    missing = int((~np.isfinite(values)).sum())
    if missing:
        notes.append(f"left out: {counted(missing, 'row')} without a value of {metric!r}")
    units_per_day = None
    if days is not None:
        units_per_day, said = arrivals(days)
        notes += said
    return facts(values, before, units_per_day, tuple(notes))


def facts(
    values: Array, covariates: Sequence[Array], units_per_day: float | None, notes: tuple[str, ...]
) -> History:
    """Level, spread and what covariates explain.

    Args:
        values: of the metric, shape (units,); NaN where there is none.
        covariates: each of the same shape.
        units_per_day: for the record.
        notes: so far.

    Raises:
        DataError: there are fewer than two values, or all are the same.

    Examples:
        >>> x = np.arange(6.0)
        >>> found = facts(2 * x, [x], None, ())
        >>> found.mean, round(found.sd, 4), found.binary
        (5.0, 3.7417, False)
        >>> round(found.variance_reduction, 9)
        1.0
    """
    kept = np.isfinite(values)
    y = values[kept]
    if len(y) < 2:
        raise DataError(f"a history needs two or more values, got {len(y)}")
    centred = y - y.mean()
    total = float(centred @ centred)
    if total == 0:
        raise DataError("all values of the history are the same: nothing to plan with")
    explained = 0.0
    if covariates:
        columns = []
        for column in covariates:
            x = column[kept]
            known = np.isfinite(x)
            middle = float(x[known].mean()) if known.any() else 0.0
            columns.append(np.where(known, x, middle) - middle)
        x = np.stack(columns, axis=1)
        scale = np.sqrt((x**2).mean(axis=0))
        x = x / np.where(scale > 0, scale, 1.0)
        theta = np.linalg.lstsq(x, centred, rcond=1e-10)[0]
        rest = centred - x @ theta
        explained = min(max(0.0, 1 - float(rest @ rest) / total), 1 - 1e-12)
        notes = (*notes, f"covariates explain {explained:.1%} of the variance")
    return History(
        n=len(y),
        mean=float(y.mean()),
        sd=float(np.sqrt(total / (len(y) - 1))),
        binary=bool(np.isin(y, (0.0, 1.0)).all()),
        variance_reduction=explained,
        units_per_day=units_per_day,
        notes=notes,
    )


def arrivals(days: Array) -> tuple[float, list[str]]:
    """Units a day, and what to know of it.

    The first and the last day are cut off where there are five or more: they are rarely whole.

    Args:
        days: day on which each unit entered, with its fraction; NaN where it is unknown.

    Raises:
        DataError: no time is known.

    Examples:
        >>> arrivals(np.array([0.1, 0.5, 1.2, 1.3]))
        (2.0, ['2.0 units a day, from 2 days'])
    """
    known = days[np.isfinite(days)]
    if not len(known):
        raise DataError("no unit of the history has a time")
    by_day = np.bincount((np.floor(known) - np.floor(known.min())).astype(np.int64))
    if len(by_day) >= 5:
        by_day = by_day[1:-1]
    mean = float(by_day.mean())
    notes = [f"{mean:,.1f} units a day, from {counted(len(by_day), 'day')}"]
    half = len(by_day) // 2
    if half >= 3 and by_day[-half:].mean() < _FALLING * by_day[:half].mean():
        notes.append(
            "fewer units enter in the second half of the history than in the first, as where "
            "people come back: the run will be longer than these days"
        )
    return mean, notes
