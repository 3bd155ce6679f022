"""Reports on the terminal, with rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from abkit.analysis import HEADINGS, table_rows

if TYPE_CHECKING:
    from abkit.analysis import Report

_STYLES = {"info": "dim", "warn": "yellow", "block": "bold red"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print a report: units, what to believe, then the comparisons.

    Args:
        report: what `analyze` returned.
        console: where to print; standard output by default.
    """
    console = console or Console()
    units = "  ".join(f"{name}: {n:,}" for name, n in report.variants.items())
    console.print(f"units  {units}", highlight=False)
    for check in report.checks:
        style = _STYLES[check.severity]
        console.print(f"[{style}]{check.severity}[/] {check.id}: {check.text}", highlight=False)
    lone = len(report.variants) == 2
    control = report.results[0].control
    treatments = ", ".join(name for name in report.variants if name != control)
    console.print(f"\n{treatments} against {control}", style="bold", highlight=False)
    table = Table(box=None, pad_edge=False)
    shown = [i for i, name in enumerate(HEADINGS) if not (lone and name == "variant")]
    for i in shown:
        text = HEADINGS[i] in ("metric", "variant")
        table.add_column(
            HEADINGS[i],
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
        )
    for row in table_rows(report):
        table.add_row(*(row[i] for i in shown))
    console.print(table)
    first = report.results[0].estimate
    console.print(
        f"intervals at {1 - first.alpha:.0%}, {first.alternative}; they hold for one planned look",
        style="dim",
        highlight=False,
    )
