"""Figures of plans and simulations: units by design, rejections over looks, p-values."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from scipy import stats

from abkit.errors import ConfigError
from abkit.plots.frame import (
    PALETTES,
    across,
    bare_layout,
    edge_notes,
    heading_of,
    inert,
    note,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.planning.report import DesignPlan, PlanReport
    from abkit.planning.simulation import PValues, SimulatedDesign, SimulationReport
    from abkit.plots.frame import Palette, Theme

_LEFT, _RIGHT, _BOTTOM, _ROW = 150, 196, 50, 44
_BINS = 20
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def plan_figure(report: PlanReport, *, theme: Theme = "light") -> go.Figure:
    """How many units does each design take: at most, and on average?

    Args:
        report: the plan.
        theme: "light" or "dark".
    """
    palette = PALETTES[theme]
    rows = [item for item in report.designs if item.status == "ok"]
    best = report.recommended
    if best is None:
        return _figure([], "No design finds this", report.recommendation, palette, height=24)
    data: list[dict[str, Any]] = []
    notes = []
    for place, item in enumerate(rows):
        ink = palette.good if item is best else palette.ink
        data += _bar(item, place, ink, palette)
        strong = ("<b>", "</b>") if item is best else ("", "")
        left = {"x": 0, "xref": "paper", "xshift": -10, "xanchor": "right", "y": place}
        notes.append(note(f"{strong[0]}{inert(item.design)}{strong[1]}", ink, **left, yref="y"))
        right = {"x": 1, "xref": "paper", "xshift": 10, "xanchor": "left", "y": place}
        words = f"{item.mean_units or 0:,.0f} of {item.units:,}"
        notes.append(note(words, ink, **right, yref="y"))
    over = {"yref": "paper", "y": 1, "yshift": 4, "yanchor": "bottom", "xref": "paper"}
    notes.append(note("mean, and at most", palette.muted, x=1, xshift=10, xanchor="left", **over))
    title = f"{best.design}: {best.mean_units or 0:,.0f} units on average at the effect, "
    title += f"{best.units:,} at most"
    subtitle = (
        "units of all arms when the test is over; ● mean at the effect, ○ mean without one, "
        "│ end, line: from the median to 9 of 10 runs at the effect"
    )
    layout = {
        "xaxis": _axis(palette)
        | {"range": [0, 1.04 * max(item.units for item in rows)], "tickformat": ",d", "nticks": 6}
        | {"title": _axis_title("units of all arms", palette)},
        "yaxis": _axis(palette)
        | {"range": [len(rows) - 0.5, -0.5], "showgrid": False, "showticklabels": False},
        "annotations": notes,
    }
    return _figure(data, title, subtitle, palette, height=_ROW * len(rows), layout=layout)


def rejection_figure(
    report: SimulationReport, metric: str, analysis: str, *, theme: Theme = "light"
) -> go.Figure:
    """How many runs has each design rejected by each look?

    Args:
        report: the simulation.
        metric: whose designs.
        analysis: "unit", "cluster" or "row".
        theme: "light" or "dark".

    Raises:
        ConfigError: there is no such metric and analysis.
    """
    palette = PALETTES[theme]
    chosen = [i for i in report.designs if i.metric == metric and i.analysis == analysis]
    if not chosen:
        raise ConfigError(f"nothing was simulated for {metric!r} by {analysis}")
    top = max(1.25 * max(item.by_look[-1] for item in chosen), 1.6 * report.alpha, 0.02)
    top = 100 * min(1.0, top)
    data, labels = [], []
    for number, item in enumerate(chosen):
        ink = _ink(item, report, palette)
        y = [0.0, *(100 * share for share in item.by_look)]
        x = [0, *report.information]
        hover = [
            f"{inert(item.design)}<br>{share:.1f} % by {n:,}" for n, share in zip(x, y, strict=True)
        ]
        line = {"color": ink, "width": 2, "dash": _DASHES[number % len(_DASHES)]}
        if item.design == "fixed":  # a single look: a point says so
            mark = {"mode": "markers", "marker": {"color": ink, "size": 9, "symbol": "diamond"}}
            data.append(_trace([x[-1]], [y[-1]], text=[hover[-1]], cliponaxis=False, **mark))
        else:
            data.append(_trace(x, y, text=hover, mode="lines", line=line))
        labels.append((y[-1], f"{inert(item.design)} {y[-1]:.1f} %", ink))
    shapes = []
    if report.mode == "aa":
        shapes.append(across(100 * report.alpha, palette.muted, "dash", 1.4))
        labels.append((100 * report.alpha, f"promised {100 * report.alpha:.4g} %", palette.muted))
    height = 300
    end = report.information[-1]
    layout = {
        "xaxis": _axis(palette)
        | {"range": [0, end], "tickformat": ",d", "nticks": 6, "showgrid": False}
        | {"title": _axis_title("rows seen, all arms", palette)},
        "yaxis": _axis(palette) | {"range": [0, top], "ticksuffix": " %", "nticks": 6},
        "shapes": shapes,
        "annotations": edge_notes(labels, (0.0, top), height),
    }
    where = "" if analysis == "unit" else f", by {analysis}"
    title = f"{metric}{where}: {_finding(report, chosen)}"
    subtitle = f"share of {report.runs:,} runs that have rejected by each look"
    return _figure(data, title, subtitle, palette, height=height, layout=layout, left=62)


def p_value_figure(found: PValues, *, theme: Theme = "light") -> go.Figure:
    """Are p-values uniform where there is no effect?

    Args:
        found: p-values of one metric.
        theme: "light" or "dark".
    """
    palette = PALETTES[theme]
    counts = [0] * _BINS
    for value in found.values:
        counts[min(int(value * _BINS), _BINS - 1)] += 1
    runs = len(found.values)
    low, high = (int(x) for x in stats.binom.interval(0.95, runs, 1 / _BINS))
    odd = found.ks_p_value < 0.001
    bars = {
        "type": "bar",
        "x": [(k + 0.5) / _BINS for k in range(_BINS)],
        "y": counts,
        "width": 0.9 / _BINS,
        "marker": {"color": palette.bad if odd else palette.strips[1], "line": {"width": 0}},
        "text": [
            f"{k / _BINS:.2f} to {(k + 1) / _BINS:.2f}: {n:,} runs" for k, n in enumerate(counts)
        ],
        "hoverinfo": "text",
        "textposition": "none",
    }
    top = 1.15 * max(*counts, high)
    height = 220
    band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high}
    band |= {"fillcolor": palette.band, "line": {"width": 0}, "layer": "below"}
    words = f"{runs // _BINS:,} expected;<br>95 % of the bars<br>lie in the band"
    labels = [(runs / _BINS, words, palette.muted)]
    layout = {
        "xaxis": _axis(palette)
        | {"range": [0, 1], "showgrid": False, "nticks": 6}
        | {"title": _axis_title("p-value of the fixed test at the end", palette)},
        "yaxis": _axis(palette) | {"range": [0, top], "tickformat": ",d", "nticks": 5},
        "shapes": [band, across(runs / _BINS, palette.muted, "dash", 1.2)],
        "annotations": edge_notes(labels, (0.0, top), height),
    }
    where = "" if found.analysis == "unit" else f", by {found.analysis}"
    word = "are not uniform" if odd else "are uniform, as they should be"
    title = f"{found.metric}{where}: p-values {word}"
    subtitle = (
        f"{runs:,} runs without an effect; Kolmogorov-Smirnov distance {found.ks_statistic:.3f}, "
        f"p = {found.ks_p_value:.2g}"
    )
    return _figure([bars], title, subtitle, palette, height=height, layout=layout, left=62)


def write_page(path: str | Path, figures: Sequence[go.Figure], *, theme: Theme = "light") -> None:
    """Write figures as an HTML page that needs no network.

    Args:
        path: where to.
        figures: one below the other.
        theme: of the page behind them.

    Raises:
        ConfigError: the file cannot be written.
    """
    palette = PALETTES[theme]
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0, config={"displaylogo": False})
        for number, figure in enumerate(figures)
    ]
    body = "\n".join(f"<section>{part}</section>" for part in parts)
    style = (
        f"body{{background:{palette.page};color:{palette.ink};margin:24px auto;max-width:1000px;"
        "padding:0 16px}section{margin-bottom:32px}"
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape('abkit')}</title><style>{style}</style></head>"
        f"<body>{body}</body></html>"
    )
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror}") from None


def _bar(item: DesignPlan, place: int, ink: str, palette: Palette) -> list[dict[str, Any]]:
    """One design: the span of stops, the two means, and the end."""
    words = (
        f"{inert(item.design)}<br>at most {item.units:,}<br>mean {item.mean_units or 0:,.0f} at "
        f"the effect, {item.mean_units_null or 0:,.0f} without<br>half of the runs are over by "
        f"{item.median_units or 0:,.0f}, nine of ten by {item.p90_units or 0:,.0f}"
    )
    thin = {"color": palette.faint, "width": 2}
    thick = {"color": ink, "width": 3}
    end = {"symbol": "line-ns", "size": 16, "line": {"width": 2.5, "color": ink}}
    ring = {"symbol": "circle", "size": 11, "color": palette.page}
    ring |= {"line": {"width": 2, "color": palette.muted}}
    dot = {"symbol": "circle", "size": 11, "color": ink}
    span = [item.median_units, item.p90_units]
    return [
        _trace([0, item.units], [place, place], mode="lines", line=thin, hoverinfo="skip"),
        _trace(span, [place, place], mode="lines", line=thick, hoverinfo="skip"),
        _trace([item.units], [place], mode="markers", marker=end, text=[words]),
        _trace([item.mean_units_null], [place], mode="markers", marker=ring, text=[words]),
        _trace([item.mean_units], [place], mode="markers", marker=dot, text=[words]),
    ]


def _ink(item: SimulatedDesign, report: SimulationReport, palette: Palette) -> str:
    if report.mode == "aa":
        return palette.bad if item.is_above(report.alpha) else palette.ink
    return palette.ink if item.judged else palette.muted


def _finding(report: SimulationReport, chosen: Sequence[SimulatedDesign]) -> str:
    if report.mode == "power":
        best = max((i for i in chosen if i.judged), key=lambda i: i.rate, default=chosen[0])
        return f"{best.design} finds the effect in {best.rate:.0%} of runs"
    wrong = [item for item in chosen if item.is_above(report.alpha)]
    if not wrong:
        return f"no design rejects more than {report.alpha:.4g} without an effect"
    worst = max(wrong, key=lambda item: item.rate)
    return f"without any effect {worst.design} rejects {worst.rate:.0%} of runs"


def _trace(x: Sequence[Any], y: Sequence[Any], **rest: Any) -> dict[str, Any]:
    return {"type": "scatter", "x": list(x), "y": list(y), "hoverinfo": "text", **rest}


def _axis(palette: Palette) -> dict[str, Any]:
    return {
        "fixedrange": True,
        "zeroline": False,
        "gridcolor": palette.faint,
        "linecolor": palette.faint,
        "tickfont": {"color": palette.muted, "size": 13},
        "ticks": "",
    }


def _axis_title(text: str, palette: Palette) -> dict[str, Any]:
    return {"text": text, "standoff": 8, "font": {"color": palette.muted, "size": 13}}


def _figure(
    data: list[dict[str, Any]],
    title: str,
    subtitle: str,
    palette: Palette,
    *,
    height: float,
    layout: dict[str, Any] | None = None,
    left: int = _LEFT,
) -> go.Figure:
    heading, lines = heading_of(title, subtitle, palette)
    top = lines + 40
    hidden = {"visible": False}
    whole = bare_layout(palette, height=height + top + _BOTTOM) | {
        "paper_bgcolor": palette.page,
        "margin": {"l": left, "r": _RIGHT, "t": top, "b": _BOTTOM},
        "title": heading,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": palette.page,
            "bordercolor": palette.muted,
            "font": {"color": palette.ink, "size": 13},
            "align": "left",
        },
    }
    whole |= {"xaxis": hidden, "yaxis": hidden} if layout is None else layout
    return go.Figure({"data": data, "layout": whole}, _validate=False)
