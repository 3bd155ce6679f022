"""The cells of a scope: exact sums by metric and by (epoch, variant, day of the first exposure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from abkit.moments import Moments
from abkit.observation import Paired
from abkit.store.moments import window_of
from abkit.store.rollup.exact import Sums, exact_sums
from abkit.store.rollup.questions import CONTROL, OWN, ROLES, TREATMENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from abkit.metrics import Metric
    from abkit.store.rollup.units import Rows, Totals, Units

_PIECE = 1 << 20
DAY = 86_400_000_000


class UncountableError(ValueError):
    """Values that have no exact sum: not finite, or too large to be squared."""


class Cells:
    """Numbers for (epoch, variant, day), given as they turn up; control is variant 0.

    Args:
        control: name of the control.
        treatment: name of the treatment, variant 1.
        rivals: names of further treatments, variants 2 and on.
    """

    def __init__(self, control: str, treatment: str, rivals: tuple[str, ...] = ()) -> None:
        """No cells."""
        self.keys: list[tuple[int, str, int]] = []
        self.variant = np.zeros(0, np.int32)  # number of each cell's variant
        self.epoch = np.zeros(0, np.int64)
        self._numbers: dict[tuple[int, int, int], int] = {}
        names = (control, treatment, *rivals)
        self._variants: dict[str, int] = {name: number for number, name in enumerate(names)}

    def variants(self, names: Any) -> NDArray[np.int32]:
        """Numbers of the variants in an arrow array of names."""
        coded = names.dictionary_encode()
        known = [
            self._variants.setdefault(name, len(self._variants))
            for name in coded.dictionary.to_pylist()
        ]
        places: NDArray[Any] = coded.indices.to_numpy(zero_copy_only=False)
        numbers: NDArray[np.int32] = np.array(known, np.int32)[places]
        return numbers

    def numbers(
        self, epochs: NDArray[Any], variants: NDArray[np.int32], times: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Number of each exposure's cell."""
        columns = (epochs.astype(np.int64), variants.astype(np.int64), times // DAY)
        lowest = [column.min() for column in columns]
        spans = [int(column.max() - low) + 1 for column, low in zip(columns, lowest, strict=True)]
        key = columns[0] - lowest[0]
        for i in (1, 2):
            key = key * spans[i] + (columns[i] - lowest[i])
        _, first, place = np.unique(key, return_index=True, return_inverse=True)
        found = [
            self._number((int(columns[0][i]), int(columns[1][i]), int(columns[2][i])))
            for i in first
        ]
        return np.array(found, np.int32)[place]

    def _number(self, key: tuple[int, int, int]) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.keys)
            self.keys.append((key[0], list(self._variants)[key[1]], key[2]))
            self.variant = np.append(self.variant, np.int32(key[1]))
            self.epoch = np.append(self.epoch, np.int64(key[0]))
        return number


class Counts:
    """What the units of a scope add up to.

    Args:
        metrics: the metrics of the scope.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        """Nothing counted."""
        self._metrics = metrics
        self.exposures: dict[int, int] = {}
        self._windows = [window_of(metric) for metric in metrics]
        # By window and cell: units whose window is over.
        self.ripe: dict[int, dict[int, int]] = {w: {} for w in self._windows if w is not None}
        # By epoch and cell: units whose newest meeting with the variant of their cell was then.
        self.returned: dict[int, dict[int, int]] = {}
        # By variant and epoch: units whose newest meeting with it was then.
        self.live: dict[int, dict[int, int]] = {}
        # By metric and cell: units with an outcome, and the sums of those that count.
        self.seen: list[dict[int, int]] = [{} for _ in metrics]
        self.values: list[dict[int, Sums]] = [{} for _ in metrics]
        # By metric: difference, control and treatment of the units with both answers.
        self.pairs: list[tuple[Sums, Sums, Sums]] = [(Sums(), Sums(), Sums()) for _ in metrics]

    def add(
        self,
        units: Units,
        totals: Mapping[int, Totals],
        rows: Rows,
        sign: int,
        *,
        variant: NDArray[np.int32],
        moment: int,
    ) -> None:
        """Put rows in (sign 1) or take them out (sign -1).

        Args:
            units: what is known of each unit.
            totals: its outcomes, by slot.
            rows: which units.
            sign: 1 or -1.
            variant: number of each cell's variant.
            moment: windows that were over then count, microseconds since 1970; what was put in at
                a moment is taken out at the same.

        Raises:
            UncountableError: a value is not finite.
        """
        for start in range(0, len(rows), _PIECE):
            piece = rows[start : start + _PIECE]
            codes = units.cell[piece]
            _add_counts(self.exposures, codes, sign)
            self._add_met([met[piece] for met in units.met], codes, variant[codes], sign)
            ripe = {w: units.since[piece] + w <= moment for w in self.ripe}
            for w, over in ripe.items():
                _add_counts(self.ripe[w], codes[over], sign)
            answers: dict[int, NDArray[np.float64]] = {}
            for slot, total in totals.items():
                metric, role = divmod(slot, ROLES)
                seen, values = total.read(piece)
                if role != OWN:
                    answers[slot] = values
                    continue
                cells, window = codes, self._windows[metric]
                if window is not None:
                    over = ripe[window]
                    seen, values, cells = seen[over], values[over], codes[over]
                _add_counts(self.seen[metric], cells[seen], sign)
                for code, sums in _sums(cells, values).items():
                    self.values[metric].setdefault(code, Sums()).add(sums, sign)
            self._add_pairs(answers, sign)

    def _add_met(
        self,
        met: list[NDArray[np.int32]],
        codes: NDArray[np.int32],
        variant: NDArray[np.int32],
        sign: int,
    ) -> None:
        for number, newest in enumerate(met):
            if number:
                _add_counts(self.live.setdefault(number, {}), newest[newest > 0], sign)
            mine = variant == number
            epochs, cells = newest[mine], codes[mine]
            for epoch in np.flatnonzero(np.bincount(epochs)).tolist():
                found = self.returned.setdefault(epoch, {})
                _add_counts(found, cells[epochs == epoch], sign)

    def _add_pairs(self, answers: Mapping[int, NDArray[np.float64]], sign: int) -> None:
        for metric, sums in enumerate(self.pairs):
            control = answers.get(ROLES * metric + CONTROL)
            treatment = answers.get(ROLES * metric + TREATMENT)
            if control is None or treatment is None:
                continue
            both = ~(np.isnan(control) | np.isnan(treatment))
            c, t = control[both], treatment[both]
            none = np.zeros(len(c), np.int64)
            for held, values in zip(sums, (t - c, c, t), strict=True):
                held.add(_sums(none, values).get(0, Sums()), sign)

    def units(self, cells: Cells, window: int | None = None) -> dict[int, dict[str, int]]:
        """Units by epoch and variant: all, or those whose window is over."""
        return _by_cell(cells, self.exposures if window is None else self.ripe[window])

    def returning(self, cells: Cells, epoch: int) -> dict[int, dict[str, int]]:
        """Units met in the newest epoch with the variant they count for, by first epoch."""
        return _by_cell(cells, self.returned.get(epoch, {}))

    def moments(self, cells: Cells) -> dict[str, dict[int, dict[str, Moments]]]:
        """Moments by metric, epoch and variant, over all days.

        Raises:
            UncountableError: a moment is no double.
        """
        found: dict[str, dict[int, dict[str, Moments]]] = {}
        for metric, seen, values in zip(self._metrics, self.seen, self.values, strict=True):
            pooled: dict[tuple[int, str], Sums] = {}
            for epoch, variant, code in _sorted(cells, seen):
                sums = pooled.setdefault((epoch, variant), Sums())
                sums.add(values.get(code, Sums()), 1)
            for (epoch, variant), sums in pooled.items():
                row = found.setdefault(metric.key, {}).setdefault(epoch, {})
                row[variant] = _moments(sums)
        return found

    def paired(self) -> dict[str, Paired]:
        """Shadow comparisons by metric.

        Raises:
            UncountableError: a moment is no double.
        """
        return {
            metric.key: Paired(*map(_moments, sums))
            for metric, sums in zip(self._metrics, self.pairs, strict=True)
            if sums[0].n
        }


def _by_cell(cells: Cells, counts: Mapping[int, int]) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for epoch, variant, code in _sorted(cells, counts):
        row = found.setdefault(epoch, {})
        row[variant] = row.get(variant, 0) + counts[code]
    return found


def _add_counts(counts: dict[int, int], codes: NDArray[Any], sign: int) -> None:
    found = np.bincount(codes)
    for code in np.flatnonzero(found).tolist():
        counts[code] = counts.get(code, 0) + sign * int(found[code])


def _sums(codes: NDArray[Any], values: NDArray[np.float64]) -> dict[int, Sums]:
    counted = ~np.isnan(values)
    codes, values = codes[counted], values[counted]
    if not np.isfinite(values).all():
        raise UncountableError("a unit's outcomes add up to no finite number")
    return exact_sums(codes, values)


def _moments(sums: Sums) -> Moments:
    try:
        return Moments(*sums.moments())
    except OverflowError:
        raise UncountableError("values too large for their squares to be summed") from None


def _sorted(cells: Cells, counts: Mapping[int, int]) -> list[tuple[int, str, int]]:
    """(epoch, variant, cell) of the cells that hold units, in order."""
    return sorted((*cells.keys[code][:2], code) for code, n in counts.items() if n)
