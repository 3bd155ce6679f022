"""Type-I error and power of every design in every cell of the calibration grid.

The bound is exact: a test whose error is at most alpha exceeds it with probability below 1e-6, so a
red test means a broken guarantee. A few cells run always; `python3 dev.py slow` runs all of them,
and `python3 dev.py calibration` does too, with more runs, and keeps the table.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.calibration.grid import measure
from tests.calibration.streams import CELLS, METRICS, Cell, note

QUICK: Final = 500
LONG: Final = 2_000
# Every metric, number of looks, share and shape; every design at least twice.
QUICK_CELLS: Final = [
    *(Cell(metric, 10, 0.01, ramp=True) for metric in METRICS),
    *(Cell(metric, 10, 0.05, ramp=False) for metric in METRICS),
    Cell("bernoulli .02", 105, 0.5, ramp=True),
    Cell("poisson .1", 105, 0.05, ramp=True),
    Cell("ratio", 105, 0.01, ramp=False),
]


def check(cell: Cell, runs: int, seed: int) -> None:
    """Every design holds in this cell."""
    for rate in measure(cell, runs, seed):
        name = f"{cell}, {rate.design}, {rate.side}"
        note(f"{name}: false positives", rate.false / rate.runs)
        assert rate.false <= rate.bound, (name, rate)
        if rate.tried:
            note(f"{name}: power", rate.found / rate.tried)
            assert rate.found >= rate.least * rate.tried, (name, rate)


@pytest.mark.parametrize("cell", QUICK_CELLS, ids=str)
def test_quick_cells(cell: Cell) -> None:
    check(cell, QUICK, 1_000 + CELLS.index(cell))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_cell(cell: Cell) -> None:
    check(cell, LONG, 5_000 + CELLS.index(cell))
