"""Drawing: axes, stages on top, labels at the right edge, in plain dicts handed to plotly."""

from __future__ import annotations

import html
import math
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from abkit.errors import MissingExtraError
from abkit.plots.looks import marks_of, spans_of
from abkit.plots.words import MINUS, clock_text, signed, with_unit

try:
    import plotly.graph_objects as go
except ImportError as error:
    msg = "figures need plotly: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from abkit.plots.looks import Look, Record
    from abkit.plots.words import Scale
    from abkit.rollout import Rollout

Theme = Literal["light", "dark"]

FONT = '"Source Sans", "Source Sans 3", "Source Sans Pro", system-ui, sans-serif'
_LEFT, _RIGHT, _BOTTOM = 62, 156, 46
_LINE, _SMALL_LINE, _STRIP = 23, 21, 36
_LABEL_GAP = 16
_NARROW = 480  # the plot area, in pixels, on the narrowest screen that is cared for


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours of one theme; text has a contrast of at least 4.8 : 1 on the page.

    Args:
        ink: titles, the estimate, marks that are no verdict.
        muted: labels, the line of a limit.
        faint: hairlines and grid.
        band: filling of a confidence band.
        good: verdict "as promised", never without a glyph and a word.
        bad: verdict "harm", never without a glyph and a word.
        page: what the figure lies on.
        strips: the stages left behind, and the current one.
    """

    ink: str
    muted: str
    faint: str
    band: str
    good: str
    bad: str
    page: str
    strips: tuple[str, str]


PALETTES: Mapping[str, Palette] = {
    "light": Palette(
        ink="#1B2430",
        muted="#59636E",
        faint="#E3E7EB",
        band="rgba(89,99,110,0.16)",
        good="#0B63B6",
        bad="#C2410C",
        page="#FFFFFF",
        strips=("#D3D9DF", "#7B8794"),
    ),
    "dark": Palette(
        ink="#E8EDF2",
        muted="#A3AEBA",
        faint="#2A323C",
        band="rgba(163,174,186,0.20)",
        good="#5AA9F8",
        bad="#FB923C",
        page="#10151B",
        strips=("#3A444F", "#8A96A3"),
    ),
}


class Frame:
    """A figure being drawn: axes, stages on top, labels at the right edge."""

    def __init__(
        self, theme: Theme, rollout: Rollout, records: Sequence[Record], *, height: int
    ) -> None:
        self.palette = PALETTES[theme]
        self.marks = marks_of(records, rollout)
        times = [record["time"] for record in records] + [mark.time for mark in self.marks]
        self._until = max(times, default=0.0)
        self._spans = spans_of(records, rollout, self._until)
        self._height = height
        self._data: list[dict[str, Any]] = []
        self._shapes: list[dict[str, Any]] = []
        self._notes: list[dict[str, Any]] = []
        self._labels: list[tuple[float, str, str]] = []
        self._range = (0.0, 1.0)
        self._ticks: dict[str, Any] = {}

    def verdict_colour(self, last: Look) -> str | None:
        """Colour of what is decided; None while it is not, or where this metric did not tell."""
        by_rule = [mark for mark in self.marks if mark.by_rule]
        if not by_rule or last.standing == "open":
            return None
        if by_rule[0].action == "halt" and last.standing == "shown":
            return None
        return self.palette.bad if last.standing == "harmed" else self.palette.good

    def range_y(self, low: float, high: float) -> None:
        """What of the y axis is seen."""
        self._range = (low, high)

    def add(self, drawn: dict[str, Any]) -> None:
        """One more trace, over those before."""
        self._data.append(drawn)

    def band(self, shown: Sequence[Look], scale: Scale, *, watched: str) -> None:
        """Both edges, the deciding one stronger, the filling between them, and the estimate."""
        x = [iso(look.time) for look in shown]
        lower = [scale.difference(look.evidence["lower"]) for look in shown]
        upper = [scale.difference(look.evidence["upper"]) for look in shown]
        middle = [scale.difference(look.evidence["difference"]) for look in shown]
        strong = {"color": self.palette.ink, "width": 2}
        weak = {"color": self.palette.muted, "width": 0.8}
        for key, y in (("lower", lower), ("upper", upper)):
            line = strong if key == watched else weak
            fill = {"fill": "tonexty", "fillcolor": self.palette.band} if key == "upper" else {}
            self.add(trace(x, y, line=line, name=key, hoverinfo="skip", **fill))
        texts = [
            _hover(
                look,
                f"{scale.signed(look.evidence['difference'])} "
                f"{scale.interval(look.evidence['lower'], look.evidence['upper'])}",
            )
            for look in shown
        ]
        line = {"color": self.palette.muted, "width": 1.6, "dash": "dot"}
        self.add(trace(x, middle, line=line, name="difference", text=texts, hoverinfo="text+x"))

    def line(
        self,
        shown: Sequence[Look],
        y: Sequence[float],
        *,
        name: str,
        says: Callable[[Look], str],
        dash: str = "solid",
    ) -> None:
        """One value a look; `says` puts it in words for whoever points at it."""
        ink = self.palette.ink if dash == "solid" else self.palette.muted
        line = {"color": ink, "width": 2, "dash": dash}
        x, texts = [iso(look.time) for look in shown], [_hover(look, says(look)) for look in shown]
        self.add(trace(x, y, line=line, name=inert(name), text=texts, hoverinfo="text+x"))

    def level_line(self, y: float, words: str, *, dash: str) -> None:
        """A line across for zero (solid) or a limit (dashed), named at the right edge."""
        width = 1.0 if dash == "solid" else 1.4
        self._shapes.append(across(y, self.palette.muted, dash, width))
        self.label(y, words, self.palette.muted)

    def label(self, y: float, words: str, colour: str, *, strong: bool = False) -> None:
        """Plain words at the right edge; they move apart where they would touch."""
        lines = [inert(part) for line in words.split("\n") for part in textwrap.wrap(line, 22)]
        text = "<br>".join(lines)
        self._labels.append((y, f"<b>{text}</b>" if strong else text, colour))

    def end_point(self, y: float, words: str, colour: str | None) -> None:
        """The newest value, named at the right edge."""
        ink = colour or self.palette.ink
        if not self.marks and self._range[0] <= y <= self._range[1]:
            self.add(point(self._until, y, {"size": 7, "color": ink}))
        self.label(y, words, ink, strong=True)

    def interval_bar(self, last: Look, scale: Scale, colour: str | None) -> None:
        """The newest interval as a bar, a tick at each end, and its estimate in words."""
        low, middle, high = (
            scale.difference(last.evidence[key]) for key in ("lower", "difference", "upper")
        )
        ink = colour or self.palette.ink
        error = {
            "type": "data",
            "symmetric": False,
            "array": [high - middle],
            "arrayminus": [middle - low],
            "color": ink,
            "thickness": 2.5,
            "width": 6,
        }
        marker = {"size": 8 if not self.marks else 0.1, "color": ink}
        self.add(point(last.time, middle, marker) | {"error_y": error})
        self.label(middle, scale.signed(last.evidence["difference"]), ink, strong=True)

    def marks_at(self, y: float, colour: str | None) -> None:
        """Decisions as marks on the newest value: ring for promotion, diamond for halt."""
        y = min(max(y, self._range[0]), self._range[1])
        for mark in self.marks:
            ink = colour if colour and mark.by_rule else self.palette.ink
            ring = {"symbol": "circle-open", "size": 15, "line": {"width": 3, "color": ink}}
            edge = {"width": 1.5, "color": self.palette.page}
            diamond = {"symbol": "diamond", "size": 14, "line": edge}
            promoted = mark.action == "promote"
            self.add(point(mark.time, y, {"color": ink, **(ring if promoted else diamond)}))
            glyph = "\N{WHITE CIRCLE}" if promoted else "\N{BLACK DIAMOND}"
            self.label(y, f"{glyph} {mark.words}\n{clock_text(mark.time)}", ink)

    def ticks(self, unit: str, *, sign: bool) -> None:
        """Round numbers on the y axis, with their unit and a true minus."""
        self._ticks = round_ticks(self._range, unit, sign=sign)

    def log_ticks(self) -> None:
        """Powers of ten on the y axis, whose values are logarithms."""
        low, high = (math.ceil(self._range[0] - 1e-9), math.floor(self._range[1] + 1e-9))
        values = list(range(low, high + 1, 1 if high - low < 7 else 2))
        self._ticks = {
            "tickvals": values,
            "ticktext": [f"{10.0**value:,.{max(0, -value)}f}" for value in values],
        }

    def figure(self, title: str, subtitle: str) -> go.Figure:
        """The figure with its title, stages and labels."""
        heading, lines = heading_of(title, subtitle, self.palette)
        top = 8 + lines + _STRIP
        plot = self._height - _BOTTOM - 1
        self._stage_strip(plot)
        self._notes += edge_notes(self._labels, self._range, plot)
        place = {"x": 1, "xref": "paper", "xshift": 8, "xanchor": "left"}
        below = {"y": 0, "yref": "paper", "yshift": -18, "yanchor": "top"}
        self._notes.append(note("time in UTC", self.palette.muted, **place, **below))
        layout = bare_layout(self.palette, height=plot + top + _BOTTOM)
        begin = self._spans[0][1] if self._spans else None
        span = None
        if begin is not None and self._until > begin:
            air = 0.012 * (self._until - begin)
            span = [iso(begin), iso(self._until + air)]
        layout |= {
            "margin": {"l": _LEFT, "r": _RIGHT, "t": top, "b": _BOTTOM},
            "title": heading,
            "xaxis": axis_of(self.palette)
            | {"type": "date", "range": span, "nticks": 7}
            | {"showgrid": False, "linecolor": self.palette.faint, "showline": True},
            "yaxis": axis_of(self.palette) | {"range": list(self._range)} | self._ticks,
            "shapes": self._shapes,
            "annotations": self._notes,
            "hovermode": "closest",
            "hoverlabel": hover_label(self.palette),
        }
        return go.Figure({"data": self._data, "layout": layout}, _validate=False)

    def empty(self, title: str, what: str) -> go.Figure:
        """A figure that says why there is nothing to draw."""
        heading, lines = heading_of(title, what, self.palette)
        layout = bare_layout(self.palette, height=lines + 24) | {
            "margin": {"l": 0, "r": 0, "t": lines + 8, "b": 0},
            "title": heading,
            "xaxis": {"visible": False},
            "yaxis": {"visible": False},
        }
        return go.Figure({"data": [], "layout": layout}, _validate=False)

    def _stage_strip(self, plot: float) -> None:
        if not self._spans:
            return
        whole = max(self._until - self._spans[0][1], 1e-9)
        for number, (name, begin, end) in enumerate(self._spans):
            now = number + 1 == len(self._spans)
            x0, x1 = iso(begin), iso(max(end, begin + 0.002 * whole))
            low, high = 1 + 7 / plot, 1 + 13 / plot
            fill = {"fillcolor": self.palette.strips[now]}
            self._shapes.append(_shape("rect", (x0, x1), (low, high), self.palette.page) | fill)
            if number:
                hairline = _shape("line", (x0, x0), (0, low), self.palette.faint)
                self._shapes.append(hairline | {"layer": "below"})
            if (end - begin) / whole * _NARROW >= 7.5 * len(name) + 6:
                place = {"x": x0, "xref": "x", "yref": "paper", "y": 1 + 14 / plot}
                anchor = {"xanchor": "left", "yanchor": "bottom"}
                self._notes.append(note(inert(name), self.palette.muted, **place, **anchor))

    def shows(self, moment: datetime) -> bool:
        """Whether a moment in UTC lies before the right edge."""
        return not self._spans or moment.replace(tzinfo=UTC).timestamp() <= self._until


def axis_of(palette: Palette) -> dict[str, Any]:
    """What every axis has."""
    return {
        "fixedrange": True,
        "zeroline": False,
        "gridcolor": palette.faint,
        "tickfont": {"color": palette.muted, "size": 13, "family": FONT},
        "ticks": "",
    }


def round_ticks(reach: tuple[float, float], unit: str, *, sign: bool) -> dict[str, Any]:
    """Round numbers on an axis, with their unit and a true minus."""
    values = nice(*reach)
    step = values[1] - values[0] if len(values) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    texts = [inert(with_unit(_tick(value, decimals, sign=sign), unit)) for value in values]
    return {"tickvals": values, "ticktext": texts}


def _tick(value: float, decimals: int, *, sign: bool) -> str:
    if decimals > 5:  # more are written as a power of ten
        return f"{value:{'+' if sign and value else ''}.3g}".replace("-", MINUS)
    return signed(value, decimals) if sign else f"{value:,.{decimals}f}"


def hover_label(palette: Palette) -> dict[str, Any]:
    """How words look that appear where one points."""
    return {
        "bgcolor": palette.page,
        "bordercolor": palette.muted,
        "font": {"color": palette.ink, "family": FONT, "size": 13},
        "align": "left",
    }


def trace(x: Sequence[str | float], y: Sequence[float], **rest: Any) -> dict[str, Any]:
    """A line of values."""
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), **rest}


def point(seconds: float, y: float, marker: dict[str, Any]) -> dict[str, Any]:
    """One mark, drawn whole where it touches the edge."""
    whole = {"mode": "markers", "marker": marker, "hoverinfo": "skip", "cliponaxis": False}
    return trace([iso(seconds)], [y], **whole)


def _hover(look: Look, words: str) -> str:
    where = f"look {look.record['look']:,}, {look.record['stage']}"
    return (
        f"{inert(where)}<br>{inert(words)}<br>{look.evidence['n_treatment']:,} units of treatment"
    )


def across(y: float, colour: str, dash: str, width: float = 1.2) -> dict[str, Any]:
    """A line from edge to edge."""
    line = {"color": colour, "dash": dash, "width": width}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def note(text: str, colour: str, **place: Any) -> dict[str, Any]:
    """Words on the figure; the caller has made them inert."""
    font = {"color": colour, "size": 13, "family": FONT}
    return {"text": text, "showarrow": False, "align": "left", "font": font, **place}


def bare_layout(palette: Palette, *, height: float) -> dict[str, Any]:
    """What every figure has: no template, no legend, the page shines through."""
    return {
        "template": {},
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "dragmode": False,
        "font": {"family": FONT, "color": palette.ink, "size": 13},
    }


def inert(text: str) -> str:
    """Text in which plotly finds no markup."""
    return html.escape(text, quote=False)


def iso(seconds: float) -> str:
    """A moment in UTC, as plotly reads it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S.%f}"


def edge_notes(
    labels: Sequence[tuple[float, str, str]], reach: tuple[float, float], plot: float
) -> list[dict[str, Any]]:
    """Labels at the right edge, pushed apart where they would touch.

    Args:
        labels: value, inert text and colour of each.
        reach: the two ends of the y axis.
        plot: height of the plot area in pixels.
    """
    low, high = reach
    wanted = [
        (plot * (high - min(max(y, low), high)) / (high - low), 1 + text.count("<br>"))
        for y, text, _ in labels
    ]
    notes: list[dict[str, Any]] = []
    for (_, text, colour), pixels in zip(labels, _spread(wanted, plot), strict=True):
        place = {"x": 1, "xref": "paper", "xshift": 8, "yref": "paper", "y": 1 - pixels / plot}
        notes.append(note(text, colour, **place, xanchor="left", yanchor="middle"))
    return notes


def _spread(wanted: Sequence[tuple[float, int]], plot: float) -> list[float]:
    """Centres in pixels from the top, so that labels of so many lines do not overlap."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index][0])
    heights = [_LABEL_GAP * lines for _, lines in wanted]
    placed = [centre for centre, _ in wanted]
    edge = -_LABEL_GAP / 2
    for index in order:
        placed[index] = max(placed[index], edge + heights[index] / 2)
        edge = placed[index] + heights[index] / 2
    edge = plot + _LABEL_GAP / 2
    for index in reversed(order):
        placed[index] = min(placed[index], edge - heights[index] / 2)
        edge = placed[index] - heights[index] / 2
    return placed


def heading_of(title: str, subtitle: str, palette: Palette) -> tuple[dict[str, Any], float]:
    """The title with its subtitle, wrapped for narrow screens, and its height in pixels."""
    titles = textwrap.wrap(title, 76) or [""]
    subtitles = textwrap.wrap(subtitle, 112)
    text = "<br>".join(f"<b>{inert(line)}</b>" for line in titles)
    style = f"font-size:14px;color:{palette.muted}"
    text += "".join(f'<br><span style="{style}">{inert(line)}</span>' for line in subtitles)
    heading = {
        "text": text,
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 20, "l": 2},
        "font": {"color": palette.ink, "family": FONT, "size": 17},
    }
    return heading, _LINE * len(titles) + _SMALL_LINE * len(subtitles)


def _shape(kind: str, x: tuple[str, str], y: tuple[float, float], colour: str) -> dict[str, Any]:
    ends = {"x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1], "xref": "x", "yref": "paper"}
    return {"type": kind, **ends, "line": {"width": 1, "color": colour}}


def nice(low: float, high: float) -> list[float]:
    """Four to nine round numbers in a range."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (5, 2, 1) if power * factor <= rough)
    first = math.ceil(low / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))  # enough to take off the error of the product
    return [
        round(number * step, digits) for number in range(first, math.floor(high / step + 1e-9) + 1)
    ]
