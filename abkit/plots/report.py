"""Figures of a report: all comparisons side by side, or one of them look by look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from abkit.analysis.display import reach_of, short_names
from abkit.errors import DataError
from abkit.plots.course import course_figure
from abkit.plots.frame import (
    PALETTES,
    axis_of,
    bare_layout,
    heading_of,
    hover_label,
    inert,
    note,
    round_ticks,
    trace,
)
from abkit.plots.results import Scaled, answer, plain, subtitle, verdict
from abkit.records import hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.report import Report, Result
    from abkit.plots.frame import Palette, Theme

_ROW, _AXIS, _GAP = 44, 26, 22  # pixels: a comparison, the numbers below a metric, between metrics
_RIGHT, _BOTTOM = 176, 30
_LETTER: Final = 9  # pixels, of the widest font that may be used
_LONGEST: Final = 22  # characters of a name beside the plot


def report_figure(
    report: Report,
    metric: str | None = None,
    *,
    variant: str | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """What differs, and how sure is that?

    One comparison that was looked at several times is drawn look by look; else every comparison is
    a line with its interval, each metric on an axis of its own. Segments are left out.

    Args:
        report: what `analyze` returned.
        metric: one metric only; all by default.
        variant: one treatment only; all by default.
        theme: "light" or "dark".

    Raises:
        DataError: the report has no such metric or treatment.
    """
    results = [item for item in report.results if item.segment is None]
    for what, wanted, names in (
        ("metric", metric, dict.fromkeys(item.metric for item in results)),
        ("treatment", variant, dict.fromkeys(item.variant for item in results)),
    ):
        if wanted is not None and wanted not in names:
            raise DataError(f"the report has no {what} {wanted!r}{hint(wanted, names)}")
    chosen = [
        item
        for item in results
        if metric in (None, item.metric) and variant in (None, item.variant)
    ]
    if len(chosen) == 1 and len(chosen[0].looks) > 1:
        return course_figure(report, chosen[0], PALETTES[theme])
    return _forest(report, chosen, PALETTES[theme])


def _forest(report: Report, results: Sequence[Result], palette: Palette) -> go.Figure:
    """Each comparison as a line with its interval, each metric on its own axis."""
    panels: dict[str, list[Result]] = {}
    for item in results:
        panels.setdefault(item.metric, []).append(item)
    several = len({item.variant for item in results}) > 1
    names = short_names([*panels, *dict.fromkeys(item.variant for item in results)], _LONGEST)
    plot = sum(_ROW * len(rows) + _AXIS + _GAP for rows in panels.values()) - _GAP
    heading, lines = heading_of(verdict(report, results, None), subtitle(report, results), palette)
    top = lines + 26 + 14 * any(item.estimate.margin is not None for item in results)
    layout: dict[str, Any] = bare_layout(palette, height=plot + top + _BOTTOM) | {
        "title": heading,
        "hovermode": "closest",
        "hoverlabel": hover_label(palette),
    }
    layout |= {"paper_bgcolor": palette.page}  # a figure of one's own has no page below it
    data: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    widest, start = 0, 0
    for k, (metric, rows) in enumerate(panels.items(), start=1):
        suffix = "" if k == 1 else str(k)
        bottom = start + _ROW * len(rows)
        domain = [max(0.0, 1 - bottom / plot), 1 - start / plot]
        start = bottom + _AXIS + _GAP
        scale = Scaled(rows[0])
        low, high = reach_of(rows)
        reach = (scale.at(low), scale.at(high))
        layout[f"xaxis{suffix}"] = (
            axis_of(palette)
            | {"anchor": f"y{suffix}", "range": list(reach)}
            | round_ticks(reach, scale.unit, sign=True)
        )
        layout[f"yaxis{suffix}"] = {
            "visible": False,
            "fixedrange": True,
            "domain": domain,
            "range": [len(rows) - 0.5, -0.5],
        }
        drawn, said = _borders(rows[0], suffix, palette)
        shapes += drawn
        notes += said
        for row, item in enumerate(rows):
            data += _row(item, row, reach, suffix, palette)
            name = names[metric] if row == 0 else ""
            label = [f"<b>{inert(name)}</b>"] if name else []
            label += [inert(names[item.variant])] if several else []
            widest = max(widest, len(name), len(names[item.variant]) if several else 0)
            notes += _beside(item, "<br>".join(label), (row, len(rows)), domain, palette)
    said_most = max((len(line) for item in results for line in plain(answer(item))), default=0)
    right = max(_RIGHT, 16 + _LETTER * said_most)
    left = 20 + _LETTER * max(4, widest)
    layout["margin"] = {"l": left, "r": right, "t": top, "b": _BOTTOM}
    layout |= {"shapes": shapes, "annotations": notes}
    return go.Figure({"data": data, "layout": layout}, _validate=False)


def _borders(
    first: Result, suffix: str, palette: Palette
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines of a metric's panel at zero (solid) and at the margin (dashed), and words for it."""
    refs = {"xref": f"x{suffix}", "yref": f"y{suffix} domain"}
    whole = {"type": "line", "y0": 0, "y1": 1, **refs}
    solid = {"color": palette.muted, "width": 1.2, "dash": "solid"}
    shapes: list[dict[str, Any]] = [{"x0": 0, "x1": 0, "line": solid, **whole}]
    border = first.estimate.margin
    if not isinstance(border, float | int):
        return shapes, []
    scale = Scaled(first)
    at = scale.at(border)
    dashed = {"color": palette.muted, "width": 1.4, "dash": "dash"}
    shapes.append({"x0": at, "x1": at, "line": dashed, **whole})
    place = refs | {"x": at, "y": 1, "yanchor": "bottom", "xanchor": "center"}
    return shapes, [note(inert(f"margin {scale.text(border)}"), palette.muted, **place)]


def _row(
    item: Result, row: int, reach: tuple[float, float], suffix: str, palette: Palette
) -> list[dict[str, Any]]:
    e, scale = item.estimate, Scaled(item)
    if e.difference is None:
        return []
    ink = palette.good if item.rejected else palette.muted
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "name": inert(item.metric)}
    data = []
    if e.interval is not None:
        ends = [
            min(max(scale.at(x), reach[0]), reach[1]) for x in (e.interval.lower, e.interval.upper)
        ]
        line = {"color": ink, "width": 3}
        data.append(trace(ends, [row, row], line=line, hoverinfo="skip", **axes))
    words = f"{inert(item.metric)}, {inert(item.variant)}<br>{answer(item)}"
    dot = trace([scale.at(e.difference)], [row], text=[words], hoverinfo="text", **axes)
    return [*data, dot | {"mode": "markers", "marker": {"size": 10, "color": ink}}]


def _beside(
    item: Result, left: str, place: tuple[int, int], domain: list[float], palette: Palette
) -> list[dict[str, Any]]:
    """Names at the left edge, numbers at the right one."""
    row, rows = place
    y = domain[1] - (row + 0.5) / rows * (domain[1] - domain[0])
    height = {"y": y, "yref": "paper", "yanchor": "middle", "xref": "paper"}
    ink = palette.ink if item.estimate.difference is not None else palette.muted
    ink = palette.good if item.rejected else ink
    return [
        note(left, palette.ink, x=0, xshift=-10, xanchor="right", **height) | {"align": "right"},
        note(answer(item), ink, x=1, xshift=8, xanchor="left", **height),
    ]
