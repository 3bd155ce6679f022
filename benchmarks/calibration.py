"""The whole calibration grid: false positives and power of every design in every cell.

    python3 dev.py calibration                       # 10,000 runs a cell, saved in results/
    python3 dev.py calibration --runs 2000 --jobs 2 --only ratio

The table goes to benchmarks/results/calibration.md unless `--only` leaves cells out. Exits with 1
where a cell is over its bound or below its power.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.calibration.grid import JUDGED, LEAST, Rate, measure
from tests.calibration.streams import CELLS, Cell

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT: Final = Path(__file__).parent / "results" / "calibration.md"
HEAD: Final = """\
# Calibration: false positives and power in every cell

Made by `python3 dev.py calibration --runs {runs}` in {minutes:.0f} minutes. Each stream is looked
at 10, 105 or 200 times; "ramp" goes through a tenth, a quarter, half and the whole of the share
while the base rate (or mean) doubles. `false` is the share of runs without an effect that ever
reject, `bound` what a valid test exceeds with probability below 1e-6 in as many runs. `power` is at
4 standard errors at the last look (canary: 6, and a relative risk of 1.3 at least, at alpha .01),
`least` its minimum. "Own information": Lan-DeMets on the variance of the score or contrast; at 105
and 200 looks {judged} runs, as each has boundaries of its own. "Less" is measured for errors only.

{verdict}

## Worst cell of each design

| design | side | alpha | cells | worst false | its bound | in | worst power | least | in |
|---|---|--:|--:|--:|--:|---|--:|--:|---|
{worst}

## All cells

| cell | design | side | runs | false | bound | power | least |
|---|---|---|--:|--:|--:|--:|--:|
{rows}
"""

Measured = tuple[Cell, Rate]


def one(index: int, runs: int) -> list[Rate]:
    """Rates of one cell; the seed is the cell's own."""
    return measure(CELLS[index], runs, 9_000 + index)


def rows(found: list[Measured]) -> Iterator[str]:
    """One line a cell, design and side."""
    for cell, rate in found:
        power = f"{rate.found / rate.tried:.3f} | {rate.least:.2f}" if rate.tried else "|"
        mark = "" if rate.holds else " **fails**"
        yield (
            f"| {cell}{mark} | {rate.design} | {rate.side} | {rate.runs:,} | "
            f"{rate.false / rate.runs:.4f} | {rate.bound / rate.runs:.4f} | {power} |"
        )


def worst(found: list[Measured]) -> Iterator[str]:
    """One line a design and side: its cell nearest to the bound, and its weakest."""
    for design in LEAST:
        for side in ("two-sided", "greater", "less"):
            here = [pair for pair in found if (pair[1].design, pair[1].side) == (design, side)]
            if not here:
                continue
            cell, rate = max(here, key=lambda pair: pair[1].false / pair[1].bound)
            line = (
                f"| {design} | {side} | {rate.alpha} | {len(here)} | "
                f"{rate.false / rate.runs:.4f} | {rate.bound / rate.runs:.4f} | {cell} | "
            )
            powered = [pair for pair in here if pair[1].tried]
            if not powered:
                yield line + "| | |"
                continue
            weak, least = min(powered, key=lambda pair: pair[1].found / pair[1].tried)
            yield line + f"{least.found / least.tried:.3f} | {least.least:.2f} | {weak} |"


def verdict(found: list[Measured]) -> str:
    """One sentence: whether all cells hold."""
    failed = sum(not rate.holds for _, rate in found)
    cells = len({str(cell) for cell, _ in found})
    total = f"{cells} cells, {len(found)} rates"
    return f"{total}: all hold." if not failed else f"{total}: **{failed} do not hold.**"


def main() -> int:
    """Measure, print what fails, and keep the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000, help="runs without an effect, a cell")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    asked = parser.parse_args()
    console = Console(stderr=True)
    chosen = [index for index, cell in enumerate(CELLS) if asked.only in str(cell)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    started, rates = time.monotonic(), dict[int, list[Rate]]()
    with (
        ProcessPoolExecutor(asked.jobs) as pool,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        task = progress.add_task("cells", total=len(chosen))
        # Long cells first, so that the last minutes keep all processes busy.
        ordered = sorted(chosen, key=lambda index: -CELLS[index].looks)
        waiting = {pool.submit(one, index, asked.runs): index for index in ordered}
        for future in as_completed(waiting):
            index = waiting[future]
            rates[index] = future.result()
            for rate in rates[index]:
                if not rate.holds:
                    console.print(f"{CELLS[index]}: {rate}")
            progress.advance(task)
    found = [(CELLS[index], rate) for index in sorted(rates) for rate in rates[index]]
    text = HEAD.format(
        runs=asked.runs,
        minutes=(time.monotonic() - started) / 60,
        judged=" and ".join(f"{JUDGED[looks][0]:,}" for looks in (105, 200)),
        verdict=verdict(found),
        worst="\n".join(worst(found)),
        rows="\n".join(rows(found)),
    )
    if asked.only:
        print(text)
    else:
        RESULT.write_text(text, encoding="utf-8")
        console.print(f"kept in {RESULT.name}: {verdict(found)}")
    return int(not all(rate.holds for _, rate in found))


if __name__ == "__main__":
    raise SystemExit(main())
