"""One comparison of a report, look by look."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from abkit.plots.frame import (
    across,
    axis_of,
    bare_layout,
    edge_notes,
    heading_of,
    hover_label,
    inert,
    note,
    round_ticks,
    trace,
)
from abkit.plots.looks import decision_zone
from abkit.plots.results import Scaled, subtitle, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.report import Report, Result
    from abkit.analysis.timed import TimedLook
    from abkit.plots.frame import Palette

_RIGHT, _PLOT = 176, 300


def course_figure(report: Report, item: Result, palette: Palette) -> go.Figure:
    """The confidence sequence over the looks, with the look that decided."""
    last = item.looks[-1]
    scale = Scaled(item, log=last.look.scale == "log")
    known = [look for look in item.looks if look.look.estimate is not None]
    if not known:
        return _nothing(report, item, palette)
    border = item.estimate.margin if isinstance(item.estimate.margin, float | int) else None
    levels = [0.0] if border is None or scale.log else [0.0, scale.at(border)]
    reach = _reach(levels, known, scale)
    ink = palette.good if item.rejected else palette.ink
    data = [*_band(known, scale, reach, palette), *_ends(item, known, scale, reach, palette)]
    shapes = [across(0.0, palette.muted, "solid", 1.0)]
    labels = [(0.0, "no difference", palette.muted)]
    if len(levels) > 1:
        shapes.append(across(levels[1], palette.muted, "dash", 1.4))
        labels.append((levels[1], f"margin {scale.text(border)}", palette.muted))
    labels.append(
        (scale.at(known[-1].look.estimate or 0.0), f"<b>{_shown(known[-1], scale)}</b>", ink)
    )
    _mark(item, scale, ink, palette, (shapes, labels))
    heading, lines = heading_of(verdict(report, [item], scale), subtitle(report, [item]), palette)
    top = lines + 22
    notes = edge_notes(labels, reach, _PLOT)
    below = {"x": 1, "xref": "paper", "xshift": 8, "xanchor": "left", "y": 0, "yref": "paper"}
    words = "time in UTC" if isinstance(last.time, datetime) else _clock(last)
    notes.append(note(words, palette.muted, **below, yshift=-18, yanchor="top"))
    layout = bare_layout(palette, height=_PLOT + top + 46) | {
        "paper_bgcolor": palette.page,
        "margin": {"l": 72, "r": _RIGHT, "t": top, "b": 46},
        "title": heading,
        "xaxis": axis_of(palette)
        | {"type": "date" if isinstance(last.time, datetime) else "linear", "nticks": 7}
        | {"showgrid": False, "linecolor": palette.faint, "showline": True},
        "yaxis": axis_of(palette)
        | {"range": list(reach)}
        | round_ticks(reach, scale.unit, sign=True),
        "shapes": shapes,
        "annotations": notes,
        "hovermode": "closest",
        "hoverlabel": hover_label(palette),
    }
    return go.Figure({"data": data, "layout": layout}, _validate=False)


def _nothing(report: Report, item: Result, palette: Palette) -> go.Figure:
    """A figure that says why there is nothing to draw."""
    title = f"{item.metric}: nothing to compare yet"
    heading, lines = heading_of(title, subtitle(report, [item]), palette)
    layout = bare_layout(palette, height=lines + 24) | {
        "paper_bgcolor": palette.page,
        "title": heading,
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
    }
    return go.Figure({"data": [], "layout": layout}, _validate=False)


def _mark(
    item: Result,
    scale: Scaled,
    ink: str,
    palette: Palette,
    drawn: tuple[list[dict[str, Any]], list[tuple[float, str, str]]],
) -> None:
    """Add a line through the look that decided, and its label, to the shapes and labels."""
    shapes, labels = drawn
    stopped = item.stopped
    if stopped is None or stopped.look.estimate is None:
        return
    x = _place(stopped)
    hairline = {"color": palette.muted, "width": 1, "dash": "dot"}
    shapes.append(
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": hairline}
        | {"layer": "below"}
    )
    word = "null rejected" if item.decision == "reject" else "futility"
    text = f"\N{WHITE CIRCLE} {word} at look {stopped.number}"
    text += f"<br>{inert(stopped.when)}" if stopped.when else ""
    labels.append((scale.at(stopped.look.estimate), text, ink))


def _reach(levels: list[float], known: Sequence[TimedLook], scale: Scaled) -> tuple[float, float]:
    """The y axis: what the last interval needs, so that wide early bands do not flatten it."""
    shown = [x.look.interval for x in known if x.look.interval is not None]
    last = scale.at(known[-1].look.estimate or 0.0)
    ends = (
        [scale.at(x) for x in (shown[-1].lower, shown[-1].upper) if math.isfinite(x)]
        if shown
        else []
    )
    ends = [x for x in ends if math.isfinite(x)]
    if not ends:
        ends = [scale.at(x.look.estimate or 0.0) for x in known]
    near = [x - last for x in ends]
    half = max(abs(x) for x in [*near, last, 1e-9])
    lower, upper = last + min(*near, -half / 4), last + max(*near, half / 4)
    low, high = decision_zone(levels, lower, upper)
    if scale.log:  # a ratio falls by 100 % at most
        low = max(low, -100.0 - 0.05 * (high + 100.0))
    return low, high


def _band(
    known: Sequence[TimedLook], scale: Scaled, reach: tuple[float, float], palette: Palette
) -> list[dict[str, Any]]:
    """Both ends of the interval at each look, the filling between them, and the estimate."""
    low, high = reach
    far = high - low
    data: list[dict[str, Any]] = []
    shown = [item for item in known if item.look.interval is not None]
    x = [_place(item) for item in shown]
    for end in ("lower", "upper"):
        y = [
            min(max(scale.at(getattr(item.look.interval, end)), low - far), high + far)
            for item in shown
        ]
        fill = {"fill": "tonexty", "fillcolor": palette.band} if end == "upper" else {}
        line = {"color": palette.muted, "width": 1.2}
        data.append(trace(x, y, line=line, name=end, hoverinfo="skip", **fill))
    y = [scale.at(item.look.estimate or 0.0) for item in known]
    texts = [_hover(item, scale) for item in known]
    line = {"color": palette.muted, "width": 1.6, "dash": "dot"}
    x = [_place(item) for item in known]
    drawn = trace(x, y, line=line, name="difference", text=texts, hoverinfo="text")
    marker = {"size": 4, "color": palette.muted}
    return [*data, drawn | {"mode": "lines+markers", "marker": marker}]


def _ends(
    item: Result,
    known: Sequence[TimedLook],
    scale: Scaled,
    reach: tuple[float, float],
    palette: Palette,
) -> list[dict[str, Any]]:
    """The newest interval as a bar, and a ring around the look that decided."""
    ink = palette.good if item.rejected else palette.ink
    last, data = known[-1], []
    y = scale.at(last.look.estimate or 0.0)
    whole = {"mode": "markers", "hoverinfo": "skip", "cliponaxis": False}
    newest = trace([_place(last)], [y], marker={"size": 8, "color": ink}, name="newest") | whole
    if last.look.interval is not None:
        lower, upper = (
            min(max(scale.at(x), reach[0]), reach[1])
            for x in (last.look.interval.lower, last.look.interval.upper)
        )
        newest["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [upper - y],
            "arrayminus": [y - lower],
            "color": ink,
            "thickness": 2.5,
            "width": 6,
        }
    data.append(newest)
    stopped = item.stopped
    if stopped is not None and stopped.look.estimate is not None:
        ring = {
            "symbol": "circle-open",
            "size": 15,
            "color": ink,
            "line": {"width": 3, "color": ink},
        }
        at = min(max(scale.at(stopped.look.estimate), reach[0]), reach[1])
        data.append(trace([_place(stopped)], [at], marker=ring, name="decision") | whole)
    return data


def _place(item: TimedLook) -> Any:
    if isinstance(item.time, datetime):
        return f"{item.time:%Y-%m-%d %H:%M:%S.%f}"
    return item.n_control + item.n_treatment if item.time is None else item.time


def _clock(item: TimedLook) -> str:
    return "units seen" if item.time is None else "time of the look"


def _hover(item: TimedLook, scale: Scaled) -> str:
    words = f"{item.words}<br>{_shown(item, scale)} {scale.span(item.look.interval)}"
    if item.look.e_value is not None:
        words += f"<br>e-value {item.look.e_value:.3g}"
    return words


def _shown(item: TimedLook, scale: Scaled) -> str:
    return inert(scale.text(item.look.estimate))
