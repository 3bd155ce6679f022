"""One row for each exposed unit, in columns that grow, found by the hash of the unit.

DuckDB has no cheap way to find a few thousand rows among tens of millions, and a look needs
nothing else; an open hash table over numpy columns finds them in the same time at any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from abkit.metrics import Metric

    Rows = NDArray[np.intp]
    Times = NDArray[np.int64]
    Values = NDArray[np.float64]

NEVER = np.iinfo(np.int64).max
"""Microseconds since 1970 of what has not happened."""
_ALWAYS = np.iinfo(np.int64).min
_FIRST_SLOTS = 1 << 10


class Units:
    """Units by hash: when they were first exposed, to what, and until when they count.

    Rows are numbered from 0 in the order in which units are met.

    Args:
        variants: how many variants `met` tells apart, control among them.

    Attributes:
        unit: hash of the unit's name.
        since: time of the first exposure, microseconds since 1970.
        until: time of the first exposure to another variant.
        cell: number of the unit's (epoch, variant, day); -1 before it has one.
        met: newest epoch in which the unit met control, and each treatment; 0 if it never did.
        dirty: touched since the last count.
    """

    def __init__(self, variants: int = 2) -> None:
        """No units."""
        self.size = 0
        self.unit = np.zeros(0, np.uint64)
        self.since = np.zeros(0, np.int64)
        self.until = np.zeros(0, np.int64)
        self.cell = np.zeros(0, np.int32)
        self.met = tuple(np.zeros(0, np.int32) for _ in range(variants))
        self.dirty = np.zeros(0, np.bool_)
        self._slots = np.zeros(_FIRST_SLOTS, np.uint32)  # row number + 1; 0 is free

    @property
    def capacity(self) -> int:
        """Rows that there is room for."""
        return len(self.unit)

    def find(self, units: NDArray[np.uint64]) -> Rows:
        """Row of each unit; -1 for those not here."""
        rows = np.full(len(units), -1, np.intp)
        open_ = np.arange(len(units))
        place = self._home(units)
        while len(open_):
            held = self._slots[place].astype(np.intp) - 1
            same = (held >= 0) & (self.unit[held] == units[open_]) if self.size else held >= 0
            rows[open_[same]] = held[same]
            go_on = (held >= 0) & ~same
            open_, place = open_[go_on], self._next(place[go_on])
        return rows

    def add(self, units: NDArray[np.uint64]) -> Rows:
        """Rows for units that are not here yet; each of them once."""
        rows = np.arange(self.size, self.size + len(units))
        if rows.size and rows[-1] >= self.capacity:
            self._grow(max(int(rows[-1]) + 1, _FIRST_SLOTS, self.capacity * 5 // 4))
        self.size += len(units)
        self.unit[rows] = units
        if self.size * 5 > len(self._slots) * 3:
            needed = 1 << (self.size * 5 // 3).bit_length()
            self._slots = np.zeros(needed, np.uint32)
            for start in range(0, self.size, 1 << 20):
                self._place(np.arange(start, min(self.size, start + (1 << 20))))
        else:
            self._place(rows)
        return rows

    def _grow(self, capacity: int) -> None:
        self.unit = grown(self.unit, capacity, 0)
        self.since = grown(self.since, capacity, NEVER)
        self.until = grown(self.until, capacity, NEVER)
        self.cell = grown(self.cell, capacity, -1)
        self.met = tuple(grown(met, capacity, 0) for met in self.met)
        self.dirty = grown(self.dirty, capacity, 0)

    def _place(self, rows: Rows) -> None:
        place = self._home(self.unit[rows])
        while len(rows):
            free = self._slots[place] == 0
            self._slots[place[free]] = rows[free] + 1  # of several, one gets it
            lost = self._slots[place] != rows + 1
            rows, place = rows[lost], self._next(place[lost])

    def _home(self, units: NDArray[np.uint64]) -> Rows:
        place: Rows = (units & np.uint64(len(self._slots) - 1)).astype(np.intp)
        return place

    def _next(self, place: Rows) -> Rows:
        return (place + 1) & (len(self._slots) - 1)


class Totals:
    """What all outcomes of a unit in one metric have come to, one row a unit.

    Args:
        metric: how several outcomes become one number, and which function of it counts.
    """

    def __init__(self, metric: Metric) -> None:
        """No outcomes."""
        self.aggregate = aggregate = metric.aggregate or "last"
        self._metric = metric
        self._adds = aggregate in ("sum", "mean")
        self._ordered = aggregate in ("last", "first")
        self._fill = -np.inf if aggregate == "max" else 0.0
        self._start = NEVER if aggregate == "first" else _ALWAYS
        self.value = np.zeros(0, np.float64)
        self.n = np.zeros(0, np.int32)  # of sums and means
        self.time = np.zeros(0, np.int64)  # of the last or the first

    def reserve(self, capacity: int) -> None:
        """Make room for that many rows."""
        if capacity <= len(self.value):
            return
        self.value = grown(self.value, capacity, self._fill)
        if self._adds:
            self.n = grown(self.n, capacity, 0)
        if self._ordered:
            self.time = grown(self.time, capacity, self._start)

    def reset(self, rows: Rows) -> None:
        """Forget the outcomes of these rows."""
        self.value[rows] = self._fill
        if self._adds:
            self.n[rows] = 0
        if self._ordered:
            self.time[rows] = self._start

    def apply(self, rows: Rows, times: Times, values: Values) -> Rows:
        """Take outcomes in, in any order.

        Returns:
            Rows with two outcomes of one time, of which the order of writers has to choose.
        """
        if self._adds:
            np.add.at(self.value, rows, values)
            np.add.at(self.n, rows, 1)
            return rows[:0]
        if not self._ordered:
            np.maximum.at(self.value, rows, values)
            return rows[:0]
        before, held = self.time[rows], self.value[rows]
        nearest = np.minimum if self.aggregate == "first" else np.maximum
        nearest.at(self.time, rows, times)
        wins = times == self.time[rows]
        rows, values, before, held = rows[wins], values[wins], before[wins], held[wins]
        self.value[rows] = values
        tied = (self.value[rows] != values) | ((before == times[wins]) & (held != values))
        ties: Rows = rows[tied]
        return ties

    def read(self, rows: Rows | slice) -> tuple[NDArray[np.bool_], Values]:
        """Which rows have outcomes, and the number that counts: NaN where there is none."""
        value = self.value[rows]
        if self._adds:
            n = self.n[rows]
            seen = n > 0
            if self.aggregate == "mean":
                value = value / np.maximum(n, 1)
        else:
            seen = self.time[rows] != self._start if self._ordered else value != self._fill
        log, above, below = self._metric.log, self._metric.above, self._metric.below
        if above is not None:
            value = (value > above).astype(np.float64)
        elif below is not None:
            value = (value < below).astype(np.float64)
        counts = seen & (value > 0) if log else seen
        value = np.where(counts, value, np.nan)
        return seen, np.log(value) if log else value


def grown(column: NDArray[Any], capacity: int, fill: float) -> NDArray[Any]:
    """The column with room for `capacity` rows; the new ones hold `fill`."""
    longer = np.empty(capacity, column.dtype)
    longer[: len(column)] = column
    longer[len(column) :] = fill
    return longer


def distinct(rows: Rows) -> Rows:
    """Each row once, in order; `np.unique` hashes, which takes seconds for millions."""
    ordered = np.sort(rows)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    once: Rows = ordered[first]
    return once
