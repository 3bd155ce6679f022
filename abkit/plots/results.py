"""What a figure says of results in words: numbers with units, verdicts, which guarantee holds."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from abkit.analysis.display import held, lift_places, places_of, span, unit_of, value
from abkit.plots.frame import inert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.report import Report, Result
    from abkit.estimate import Interval

REASONS: Final = {
    "insufficient_data": "too few units",
    "zero_variance": "no variance",
    "collinear": "useless covariate",
}


@dataclass(frozen=True, slots=True)
class Scaled:
    """How the numbers of one comparison are shown: as they are, in points, or as ratios."""

    result: Result
    log: bool = False

    @property
    def unit(self) -> str:
        """Unit of a number on the axis."""
        return "%" if self.log else unit_of(self.result)

    def at(self, x: float) -> float:
        """Where a number lies on the axis."""
        if self.log:
            return 100 * math.expm1(min(x, 50.0))
        return 100 * x if self.unit else x

    def text(self, x: float | None) -> str:
        """A number in words."""
        if x is None:
            return ""
        places = None if self.log else places_of(self.result)
        return value(self.at(x) / 100 if self.unit else x, self.unit, signed=True, places=places)

    def span(self, interval: Interval | None) -> str:
        """An interval in words, in the unit of `text`."""
        if interval is None:
            return ""
        if self.log:
            shown = type(interval)(self.at(interval.lower), self.at(interval.upper))
            return f"[{span(shown, 1)}]"
        return f"[{span(interval, 100 if self.unit else 1)}]"


def answer(item: Result) -> str:
    """Difference, lift and interval of one comparison."""
    e, scale = item.estimate, Scaled(item)
    if e.difference is None or e.status != "ok":
        return f"no answer: {REASONS.get(e.status, inert(e.status))}"
    lift = (
        "" if e.lift is None else f" ({value(e.lift, '%', signed=True, places=lift_places(item))})"
    )
    interval = scale.span(e.interval)
    if not interval and e.p_value is not None:
        interval = f"p = {e.p_value:.3g}"
    return f"<b>{inert(scale.text(e.difference))}</b>{inert(lift)}<br>{inert(interval)}"


def plain(text: str) -> list[str]:
    """The lines of a text as they are read, without what makes them bold.

    Examples:
        >>> plain("<b>+1 pp</b> (+3 %)<br>[0 to 2]")
        ['+1 pp (+3 %)', '[0 to 2]']
    """
    bare = text.replace("<b>", "").replace("</b>", "")
    return [html.unescape(line) for line in bare.split("<br>")]


def verdict(report: Report, results: Sequence[Result], scale: Scaled | None) -> str:
    """The conclusion, as the title says it."""
    bad = [check.id.replace("_", " ") for check in report.checks if check.severity == "block"]
    if bad:
        return f"Do not decide on this: {', '.join(dict.fromkeys(bad))}"
    if len(results) == 1:
        return _alone(results[0], scale)
    firm = [item for item in results if item.rejected]
    if not firm and any(item.estimate.margin is not None for item in results):
        return f"None of {len(results)} comparisons shows what was asked"
    if not firm:
        return f"No difference is shown in {len(results)} comparisons"
    several = len({item.variant for item in results}) > 1
    listed = ", ".join(
        f"{item.metric} of {item.variant}" if several else item.metric for item in firm
    )
    verb = "show" if len(firm) > 1 else "shows"
    what = f"{verb} a difference"
    if any(item.estimate.margin is not None for item in firm):
        what = f"{verb} what was asked"
    return f"{len(firm)} of {len(results)} comparisons {what}: {listed}"


def _alone(item: Result, scale: Scaled | None) -> str:
    e = item.estimate
    if e.difference is None or e.status != "ok":
        return f"{item.metric}: no answer yet, {REASONS.get(e.status, e.status)}"
    shown, interval, point = scale or Scaled(item), e.interval, e.difference
    if shown.log:
        last = item.looks[-1].look
        interval, point = last.interval, last.estimate if last.estimate is not None else 0.0
    numbers = f"{shown.text(point)} {shown.span(interval)}".strip()
    side = "above" if e.alternative == "greater" else "below"
    if not item.rejected:
        state = "no difference is shown"
        if isinstance(e.margin, float | int):
            state = f"not shown to be {side} its margin"
        state = "futile" if item.decision == "futility" else state
        return f"{item.metric}: {state}, {numbers}"
    if isinstance(e.margin, float | int):
        return f"{item.metric} is {side} its margin in {item.variant}: {numbers}"
    side = "higher" if e.difference > 0 else "lower"
    return f"{item.metric} is {side} in {item.variant}: {numbers}"


def subtitle(report: Report, results: Sequence[Result]) -> str:
    """Who is compared, on how many units, by which design, under which guarantee."""
    first = results[0]
    treatments = ", ".join(dict.fromkeys(item.variant for item in results))
    design = "" if first.design is None else f"design {first.design}, "
    units = f"{sum(report.variants.values()):,} units"
    scale = ""
    if len(results) == 1 and first.looks and first.looks[-1].look.scale == "log":
        word = "odds" if first.kind == "proportion" else "rate"
        scale = f"; change of the {word} ratio"
    return (
        f"{treatments} against {first.control}; {units}; {design}"
        f"{100 * (1 - first.level):.4g} % intervals, {held(first)}{scale}"
    )
