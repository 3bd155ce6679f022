"""A report as a page of a notebook: what to beware of, then tables with drawn intervals."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from abkit.analysis.display import (
    HEADINGS,
    SEGMENT_HEADINGS,
    caption,
    notes,
    reach_of,
    segment_rows,
    table_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.report import Report, Result

_WIDE, _HIGH = 180, 20  # pixels of a drawing
_FIRM = "#2F81D0"  # 4 to 1 on white, 4.5 to 1 on a dark page


def page_of(report: Report) -> str:
    """A report as HTML without scripts, in the colours of the page around it.

    Args:
        report: what `analyze` returned.
    """
    overall = [item for item in report.results if item.segment is None]
    parts = [item for item in report.results if item.segment is not None]
    page = _list([f"{x.severity}: {x.text}" for x in report.checks if x.severity != "info"])
    page += _table(HEADINGS, table_rows(report), overall, "variant")
    if parts:
        page += _table(SEGMENT_HEADINGS, segment_rows(report), parts, "variant")
    page += _list(notes(report)) + f"<p>{html.escape(caption(report))}</p>"
    return page + _list([f"{x.severity}: {x.text}" for x in report.checks if x.severity == "info"])


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    results: Sequence[Result],
    after: str,
) -> str:
    """A table, with a drawing of each interval after one of its columns."""
    place = list(headings).index(after) + 1
    reaches = {
        metric: reach_of([item for item in results if item.metric == metric])
        for metric in dict.fromkeys(item.metric for item in results)
    }
    heads = [f"<th>{name}</th>" for name in headings]
    heads.insert(place, "<th>against zero</th>")
    body = ""
    for row, item in zip(rows, results, strict=True):
        cells = [f"<td>{html.escape(cell)}</td>" for cell in row]
        cells.insert(place, f"<td>{interval_svg(item, reaches[item.metric])}</td>")
        body += f"<tr>{''.join(cells)}</tr>"
    table = f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="white-space: nowrap; overflow-x: auto">{table}</div>'


def interval_svg(item: Result, reach: tuple[float, float]) -> str:
    """The interval of a result as a line, its difference as a dot; zero solid, a margin dashed.

    Args:
        item: the result; nothing is drawn of one without a difference.
        reach: ends of the axis, in the unit of the difference.

    Returns:
        An SVG element; empty where there is nothing to draw.
    """
    e = item.estimate
    if e.difference is None or not reach[0] < reach[1]:
        return ""

    def at(x: float) -> str:
        inside = min(max(x, reach[0]), reach[1])
        return f"{_WIDE * (inside - reach[0]) / (reach[1] - reach[0]):.1f}"

    def upright(x: float, rest: str) -> str:
        line = f'<line x1="{at(x)}" x2="{at(x)}" y1="0" y2="{_HIGH}" stroke="currentColor"'
        return f'{line} stroke-opacity="0.7" {rest}/>'

    ink = _FIRM if item.rejected else "currentColor"
    drawn = upright(0.0, "")
    if isinstance(e.margin, float | int) and math.isfinite(e.margin):
        drawn += upright(e.margin, 'stroke-dasharray="3 3"')
    if e.interval is not None:
        ends = f'x1="{at(e.interval.lower)}" x2="{at(e.interval.upper)}"'
        drawn += f'<line {ends} y1="10" y2="10" stroke="{ink}" stroke-width="3"/>'
    drawn += f'<circle cx="{at(e.difference)}" cy="10" r="5" fill="{ink}"/>'
    return f'<svg width="{_WIDE}" height="{_HIGH}" aria-hidden="true">{drawn}</svg>'
