"""One experiment's rollup: what its units have done up to a load, brought forward by the news.

A look reads the events of newer loads only, with two exceptions, both bounded by time: outcomes
that arrived before the exposure of their unit, and the outcomes of units whose history has turned
out to be another (an earlier exposure, a crossing or a closing before outcomes already counted).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from abkit.store.moments import window_of
from abkit.store.rollup.counts import Cells, Counts, UncountableError
from abkit.store.rollup.questions import GRACE, OWN, ROLES, Definition, Questions
from abkit.store.rollup.units import NEVER, Totals, Units, distinct

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb
    from numpy.typing import NDArray

    from abkit.store.rollup.units import Rows

NOTHING = -1
"""The load before the first."""
_NO_ROWS = np.zeros(0, np.intp)


class Scope:
    """The units of one experiment and what they add up to.

    An exception in `look` leaves the scope half moved: throw it away.

    Args:
        connection: an open store.
        definition: what is counted.
        last_epoch: last allocation epoch to count; it may grow.

    Attributes:
        load: newest load that is counted.
        last_epoch: last allocation epoch that is counted.
        moment: windows that were over then are counted, microseconds since 1970.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, definition: Definition, last_epoch: int
    ) -> None:
        """Nothing counted."""
        self.load = NOTHING
        self.last_epoch = last_epoch
        self.moment = 0
        self.cells = Cells(definition.control, definition.treatment, definition.rivals)
        self.counts = Counts(definition.metrics)
        self._definition = definition
        self._questions = Questions(connection, definition)
        self._units = Units(2 + len(definition.rivals))
        self._totals: dict[int, Totals] = {}
        self._opened: dict[int, int] = {}
        self._windows = [window_of(metric) for metric in definition.metrics]
        # By window, units for which it was not over yet.
        self._waiting: dict[int, Rows] = dict.fromkeys(self.counts.ripe, _NO_ROWS)
        # Of the look under way.
        self._afresh = True
        self._counted = 0
        self._touched: list[Rows] = []
        self._ties: dict[int, list[Rows]] = {}

    @property
    def size(self) -> int:
        """Units held."""
        return self._units.size

    @property
    def waits(self) -> bool:
        """Whether time alone can change what is counted."""
        return bool(self._waiting)

    def look(self, load: int, last_epoch: int, moment: int) -> None:
        """Count everything up to a load.

        Args:
            load: newest load to count, at least `self.load`.
            last_epoch: last epoch to count, at least `self.last_epoch`.
            moment: time of the look, at least `self.moment`, microseconds since 1970.

        Raises:
            UncountableError: an outcome is not finite, or a unit's outcomes overflow.
        """
        self._afresh = self.load == NOTHING
        self._counted = self._units.size
        self._touched, self._ties = [], {}
        opened = dict(self._opened)
        fresh, moved, cut = self._meet(load, last_epoch)
        for total in self._totals.values():
            total.reserve(self._units.capacity)
        if not self._afresh:
            changed = [fresh, moved, self._cut_short(cut), self._closed_early(opened)]
            self._count_again(_distinct(changed))
        for batch in self._outcomes((self.load + 1, load)):
            self._take(batch)
        self._settle_outcomes(load)
        self._ripen(moment)
        self.moment = moment
        self._count()
        self.load, self.last_epoch = load, last_epoch

    def _meet(self, load: int, last_epoch: int) -> tuple[Rows, Rows, Rows]:
        """Take new exposures in.

        Returns:
            Rows that are new, rows whose first exposure is another one now, and rows that count
            for a shorter time.
        """
        first = self._definition.first_epoch
        asked = [((self.load + 1, load), (first, last_epoch))]
        if last_epoch > self.last_epoch and not self._afresh:
            asked.append(((0, self.load), (self.last_epoch + 1, last_epoch)))
        moved: list[Rows] = []
        cut: list[Rows] = []
        tied: list[Rows] = []
        for loads, epochs in asked:
            for batch in self._questions.exposures(loads, epochs):
                for rows, found in zip(self._expose(batch), (moved, cut, tied), strict=True):
                    found.append(rows)
        ties = _distinct(tied)
        if len(ties):
            self._settle_exposures(ties, load, last_epoch)
        fresh = np.arange(self._counted, self._units.size)
        again, shorter = (
            rows[rows < self._counted] for rows in (_distinct([*moved, ties]), _distinct(cut))
        )
        return fresh, again, np.setdiff1d(shorter, again, assume_unique=True)

    def _expose(self, batch: dict[str, Any]) -> tuple[Rows, Rows, Rows]:
        """Take a batch of exposures in; returns rows moved, cut short, and tied."""
        units, time, cells = self._units, batch["time"], self.cells
        variant = cells.variants(batch["variant"])
        number = cells.numbers(batch["epoch"], variant, time)
        self._open(number, time)
        rows = self._rows(batch["unit"])
        # A unit that comes back to the variant it has is no news.
        news = (time <= units.since[rows]) & (number != units.cell[rows])
        news |= (time < units.until[rows]) & (variant != self._variant(rows))
        news |= time < units.since[rows]
        for role, met in enumerate(units.met):
            news |= (variant == role) & (batch["epoch"] > met[rows])
        rows, time, variant, number = rows[news], time[news], variant[news], number[news]
        self._touch(rows)
        for role, met in enumerate(units.met):
            mine = variant == role
            np.maximum.at(met, rows[mine], batch["epoch"][news][mine].astype(np.int32))
        since, cell = units.since[rows], units.cell[rows]
        had = self._variant(rows)
        np.minimum.at(units.since, rows, time)
        first = time == units.since[rows]
        units.cell[rows[first]] = number[first]
        tied = first & ((units.cell[rows] != number) | ((since == time) & (cell != number)))
        has = self._variant(rows)
        # Of all exposures before, the first one was the earliest to the variant of then.
        other = (has != had) & (cell >= 0)
        until = units.until[rows]
        np.minimum.at(units.until, rows[other], since[other])
        other = variant != has
        np.minimum.at(units.until, rows[other], time[other])
        earlier = units.since[rows] < since
        return rows[earlier], rows[units.until[rows] < until], rows[tied]

    def _variant(self, rows: Rows) -> NDArray[np.int32]:
        cell = self._units.cell[rows]
        return np.where(cell >= 0, self.cells.variant[cell], np.int32(-1))

    def _rows(self, units: NDArray[np.uint64]) -> Rows:
        """Rows of units, which are given one where they have none."""
        rows = self._units.find(units)
        unknown = rows < 0
        if unknown.any():
            names, place = np.unique(units[unknown], return_inverse=True)
            rows[unknown] = self._units.add(names)[place]
        return rows

    def _open(self, cells: NDArray[np.int32], times: NDArray[np.int64]) -> None:
        """Note when the epochs of these cells began."""
        earliest = np.full(len(self.cells.keys), NEVER)
        np.minimum.at(earliest, cells, times)
        for (epoch, *_), time in zip(self.cells.keys, earliest.tolist(), strict=True):
            if time != NEVER:
                self._opened[epoch] = min(self._opened.get(epoch, NEVER), time)

    def _settle_exposures(self, rows: Rows, load: int, last_epoch: int) -> None:
        """Of exposures of one time, the first in the order of writers counts."""
        units = self._units
        for batch in self._questions.first_of_tied(
            units.unit[rows], units.since[rows], upto=load, last_epoch=last_epoch
        ):
            variant = self.cells.variants(batch["variant"])
            found = units.find(batch["unit"])
            units.cell[found] = self.cells.numbers(batch["epoch"], variant, batch["time"])

    def _cut_short(self, rows: Rows) -> Rows:
        """Rows among those that cross earlier now which have counted an outcome after that."""
        if not len(rows):
            return rows
        units = self._units
        since = int(units.until[rows].min())
        found = [
            batch["row"][batch["time"] >= units.until[batch["row"]]]
            for batch in self._outcomes((0, self.load), since=since, units=units.unit[rows])
        ]
        return _distinct(found)

    def _closed_early(self, opened: dict[int, int]) -> Rows:
        """Rows whose epoch has closed before outcomes whose sum is already counted."""
        sums = [i for i, m in enumerate(self._definition.metrics) if m.aggregate == "sum"]
        found: list[Rows] = []
        for epoch, since in self._opened.items():
            until = opened.get(epoch, NEVER)
            if since == until or not sums or not (self.cells.epoch == epoch - 1).any():
                continue
            limits = {"since": since} | ({} if until == NEVER else {"until": until})
            for batch in self._outcomes((0, self.load), **limits):
                rows = batch["row"]
                hit = np.isin(batch["slot"], [ROLES * i + OWN for i in sums])
                hit &= self.cells.epoch[self._units.cell[rows]] == epoch - 1
                found.append(rows[hit])
        return _distinct(found)

    def _count_again(self, rows: Rows) -> None:
        """Take the outcomes of these rows from the loads before, whatever was counted of them."""
        if not len(rows):
            return
        self._touch(rows)
        units = self._units
        for total in self._totals.values():
            total.reset(rows)
        since = int(units.since[rows].min()) - GRACE
        for batch in self._outcomes((0, self.load), since=since, units=units.unit[rows]):
            self._take(batch)

    def _outcomes(self, loads: tuple[int, int], **limits: Any) -> Iterator[dict[str, Any]]:
        """Batches of outcomes of units that are known here, with their rows."""
        if not self._definition.metrics:
            return
        for batch in self._questions.outcomes(loads, **limits):
            rows = self._units.find(batch["unit"])
            known = rows >= 0
            yield {
                "row": rows[known],
                **{name: batch[name][known] for name in ("time", "value", "slot")},
            }

    def _take(self, batch: dict[str, Any]) -> None:
        """Take outcomes in that count."""
        for slot in np.flatnonzero(np.bincount(batch["slot"])).tolist():
            mine = batch["slot"] == slot
            rows, time, value = (batch[name][mine] for name in ("row", "time", "value"))
            counts = self._in_time(slot, rows, time)
            rows, time, value = rows[counts], time[counts], value[counts]
            if not np.isfinite(value).all():
                raise UncountableError("an outcome is not a finite number")
            self._touch(rows)
            tied = self._total(slot).apply(rows, time, value)
            if len(tied):
                self._ties.setdefault(slot, []).append(tied)

    def _in_time(self, slot: int, rows: Rows, time: NDArray[np.int64]) -> NDArray[np.bool_]:
        units = self._units
        metric, role = divmod(slot, ROLES)
        counts: NDArray[np.bool_] = time >= units.since[rows] - GRACE
        if role == OWN:
            counts &= time < units.until[rows]
            window = self._windows[metric]
            if window is not None:
                counts &= time < units.since[rows] + window
            if self._definition.metrics[metric].aggregate == "sum":
                closed = [self._opened.get(int(epoch) + 1, NEVER) for epoch in self.cells.epoch]
                counts &= time < np.array(closed, np.int64)[units.cell[rows]]
        return counts

    def _total(self, slot: int) -> Totals:
        total = self._totals.get(slot)
        if total is None:
            metric = self._definition.metrics[slot // ROLES]
            total = self._totals[slot] = Totals(metric)
        total.reserve(self._units.capacity)
        return total

    def _settle_outcomes(self, load: int) -> None:
        """Of outcomes of one time, the last or first in the order of writers counts."""
        units = self._units
        for slot, found in self._ties.items():
            total, rows = self._totals[slot], _distinct(found)
            for batch in self._questions.value_of_tied(
                slot,
                units.unit[rows],
                total.time[rows],
                last=total.aggregate == "last",
                upto=load,
            ):
                total.value[units.find(batch["unit"])] = batch["value"]
        self._ties = {}

    def _ripen(self, moment: int) -> None:
        """Take rows out whose window has ended since the last look; `_count` puts them in again."""
        fresh = np.arange(self._counted, self._units.size)
        for window, waiting in self._waiting.items():
            rows = np.concatenate([waiting, fresh])
            is_over = self._units.since[rows] + window <= moment
            self._touch(rows[is_over])
            self._waiting[window] = rows[~is_over]

    def _touch(self, rows: Rows) -> None:
        """Take rows out of the counts before they change; `_count` puts them in again."""
        if self._afresh:
            return
        rows = distinct(rows[~self._units.dirty[rows]])
        self._units.dirty[rows] = True
        self._touched.append(rows)
        self._add(rows[rows < self._counted], -1)

    def _count(self) -> None:
        if self._afresh:
            self.recount()
            return
        rows = _distinct(self._touched)
        self._add(rows, 1)
        self._units.dirty[rows] = False

    def recount(self) -> None:
        """Count all units again from what is kept of them; this changes nothing."""
        self.counts = Counts(self._definition.metrics)
        self._add(np.arange(self._units.size), 1)

    def _add(self, rows: Rows, sign: int) -> None:
        variant, moment = self.cells.variant, self.moment
        self.counts.add(self._units, self._totals, rows, sign, variant=variant, moment=moment)


def _distinct(found: list[Rows]) -> Rows:
    return distinct(np.concatenate(found)) if found else _NO_ROWS
