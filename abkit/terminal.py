"""Reports on the terminal, with rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from abkit.analysis import HEADINGS, segment_rows, table_rows
from abkit.analysis.display import caption, notes, short_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis import Report

_STYLES = {"info": "dim", "warn": "yellow", "block": "bold red"}
_WORDS = ("metric", "variant")  # columns of text, which may be folded
_FOLDED = 12  # characters of them that a line must hold


def print_report(report: Report, console: Console | None = None) -> None:
    """Print a report: units, what to believe, then the comparisons.

    Args:
        report: what `analyze` returned.
        console: where to print; standard output by default.
    """
    console = console or Console()
    units = "  ".join(f"{name}: {n:,}" for name, n in report.variants.items())
    _line(console, f"units  {units}")
    for check in report.checks:
        start = Text(check.severity, style=_STYLES[check.severity])
        console.print(start.append(f" {check.id}: {check.text}", style="default"), highlight=False)
    control = report.results[0].control
    treatments = ", ".join(name for name in report.variants if name != control)
    _line(console, f"\n{treatments} against {control}", "bold")
    lone = len(report.variants) == 2
    short = short_names(list(report.variants))
    shown = [i for i, name in enumerate(HEADINGS) if not (lone and name == "variant")]
    groups: dict[str, list[tuple[str, ...]]] = {"": table_rows(report)}
    for segment, *cells in segment_rows(report):
        groups.setdefault(segment, []).append(tuple(cells))
    for segment, rows in groups.items():
        if segment:
            _line(console, f"\n{segment}", "bold")
        _print_table(
            console,
            [HEADINGS[i] for i in shown],
            [[short.get(row[i], row[i]) if i == 1 else row[i] for i in shown] for row in rows],
        )
    for note in notes(report):
        _line(console, note)
    _line(console, caption(report), "dim")


def _line(console: Console, text: str, style: str = "") -> None:
    # Names come from the data: without markup, brackets in them stay brackets.
    console.print(text, style=style, highlight=False, markup=False)


def _print_table(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, or, where its numbers do not fit side by side, one line per cell."""
    table = Table(box=None, pad_edge=False)
    needed = -2  # two spaces between columns
    for i, name in enumerate(headings):
        text = name in _WORDS
        widest = max(len(name), *(len(row[i]) for row in rows))
        width = min(_FOLDED, widest) if text else widest
        needed += width + 2
        table.add_column(
            name,
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
            min_width=width,
        )
    for row in rows:
        table.add_row(*map(Text, row))  # no markup: names come from the data
    if needed <= console.width:
        console.print(table)
        return
    for row in rows:
        _line(console, "")
        for name, cell in zip(headings, row, strict=True):
            _line(console, f"{name:<12}{cell}")
