"""Numbers and rows of a report, formatted for reading."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from abkit.records import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.report import Report, Result
    from abkit.estimate import Interval

HEADINGS = (
    "metric",
    "variant",
    "control",
    "treatment",
    "difference",
    "interval",
    "lift",
    "p-value",
)
SEGMENT_HEADINGS = ("segment", *HEADINGS)
_MINUS = "\N{MINUS SIGN}"
_MOST_PLACES = 6
_SIDES = {"two-sided": "two-sided", "greater": "one-sided (greater)", "less": "one-sided (less)"}
_HELD = {
    "anytime-valid": "they hold at every look, whenever one stops",
    "anytime-asymptotic": "they hold at every look, once there are enough units",
    "asymptotic": "they hold at all looks together, up to the planned end",
}


def table_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells of the results on all units, in the order of `HEADINGS`."""
    return [_cells(item) for item in report.results if item.segment is None]


def segment_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells of the results by segment, in the order of `SEGMENT_HEADINGS`."""
    return [
        ("=".join(item.segment), *_cells(item))
        for item in report.results
        if item.segment is not None
    ]


def notes(report: Report) -> list[str]:
    """What the columns do not hold: variance removed, weights of epochs, what Bayes says."""
    lines = []
    for item in report.results:
        if item.segment is not None:
            continue
        what = f"{item.metric}, {item.variant}"
        lines += [f"{what}: {text}" for text in followed(item)]
        gone = item.estimate.variance_reduction
        if gone is not None:
            lines.append(f"{what}: covariates remove {value(gone, '%', places=2)} of the variance")
        if item.epochs:
            weights = ", ".join(f"{e.epoch}: {e.weight:.1%}" for e in item.epochs)
            lines.append(f"{what}: weights of the epochs {weights}")
        bayes = item.posterior
        if bayes is not None and bayes.chance_to_beat is not None:
            lines.append(
                f"{what}: chance to beat {item.control} {bayes.chance_to_beat:.1%}, expected loss "
                f"{value(bayes.loss_treatment, metric_unit(item))} of {item.variant}, "
                f"{value(bayes.loss_control, metric_unit(item))} of {item.control} "
                "(flat prior; no bound on false positives)"
            )
    return lines


def caption(report: Report) -> str:
    """How sure the intervals are, on which side, for how many comparisons, and when they hold."""
    first = report.results[0]
    sides = " or ".join(dict.fromkeys(_SIDES[item.estimate.alternative] for item in report.results))
    used = next((item.correction for item in report.results if item.correction), None)
    family = "" if used is None else f"; corrected for their number ({used})"
    if used is not None and first.correction is None:
        family = f"; those of segments corrected for their number ({used})"
    return f"intervals at {100 * (1 - first.level):.4g} %, {sides}{family}; {held(first)}"


def reach_of(results: Sequence[Result]) -> tuple[float, float]:
    """Ends of an axis for comparisons of one metric: zero, margins, differences, finite ends."""
    found = [0.0]
    for item in results:
        e = item.estimate
        ends = [] if e.interval is None else [e.interval.lower, e.interval.upper]
        border = [e.margin] if isinstance(e.margin, float | int) else []
        found += [x for x in (*ends, *border, e.difference) if x is not None and math.isfinite(x)]
    air = 0.08 * (max(found) - min(found)) or 1.0
    return min(found) - air, max(found) + air


def followed(item: Result) -> list[str]:
    """What a design decided at which look, and what to know of it."""
    if not item.looks:
        return []
    stopped, number = item.stopped, len(item.looks)
    looks = counted(number, "look")
    if stopped is None:
        text = f"the null is not rejected after {looks}"
        text = text if is_over(item) else f"no decision after {looks}"
    else:
        word = "the null is rejected" if item.decision == "reject" else "futility is reached"
        text = f"{word} at {stopped.words} of {looks}"
    alone = "" if item.correction is None else " alone, before the correction"
    return [f"by the design {item.design}{alone}, {text}", *item.notes]


def is_over(item: Result) -> bool:
    """Whether a design has spent its alpha, so that no later look can reject."""
    spent = item.looks[-1].look.alpha_spent if item.looks else None
    return spent is not None and spent >= item.level * (1 - 1e-9)


def held(item: Result) -> str:
    """When a result holds, in a few words."""
    return _HELD.get(item.estimate.guarantee, "they hold for one planned look")


def _cells(item: Result) -> tuple[str, ...]:
    e = item.estimate
    points = item.kind == "proportion"
    missing = e.status if e.status != "ok" else "–"
    return (
        item.metric,
        item.variant,
        value(e.mean_control, "%" if points else "", places=mean_places(item)),
        value(e.mean_treatment, "%" if points else "", places=mean_places(item)),
        value(e.difference, unit_of(item), signed=True, places=places_of(item)),
        _interval(item),
        value(e.lift, "%", signed=True, places=lift_places(item)),
        missing if e.p_value is None else f"{e.p_value:.3g}",
    )


def _interval(item: Result) -> str:
    """The interval of the difference, or of the lift for a method that has no other."""
    e = item.estimate
    if e.interval is None and e.lift_interval is not None:
        return f"{span(e.lift_interval, 100, lift_places(item))} % rel."
    return span(e.interval, hundreds(item), places_of(item))


def unit_of(item: Result) -> str:
    """Unit of a result's difference."""
    if item.estimate.scale == "relative":
        return "%"
    return metric_unit(item)


def metric_unit(item: Result) -> str:
    """Unit of a difference of the metric itself."""
    return "pp" if item.kind == "proportion" else ""


def hundreds(item: Result) -> float:
    """What the ends of an interval are multiplied by for reading."""
    return 100 if unit_of(item) else 1


def places_of(item: Result) -> int | None:
    """Decimals of a result's difference and interval, by how sure the difference is."""
    e = item.estimate
    if e.interval is None and e.lift is not None and e.lift_interval is not None:
        return _places(
            hundreds(item) * abs(e.mean_control or 0.0) * _reach(e.lift, e.lift_interval)
        )
    if e.interval is None or e.difference is None:
        return None if e.standard_error is None else _places(2 * hundreds(item) * e.standard_error)
    return _places(hundreds(item) * _reach(e.difference, e.interval))


def mean_places(item: Result) -> int | None:
    """Decimals of a result's means: those of their difference, where it is on their scale."""
    return None if item.estimate.scale == "relative" else places_of(item)


def lift_places(item: Result) -> int | None:
    """Decimals of a result's lift."""
    e = item.estimate
    if e.lift is None or e.lift_interval is None:
        return None
    return _places(100 * _reach(e.lift, e.lift_interval))


def _reach(middle: float, interval: Interval) -> float:
    """The distance to the farther finite end of an interval."""
    ends = [abs(x - middle) for x in (interval.lower, interval.upper) if math.isfinite(x)]
    return max(ends, default=0.0)


def _places(reach: float) -> int | None:
    """Decimals that show two digits of a reach, two at least; None where six do not."""
    if not reach > 0 or not math.isfinite(reach):
        return None
    wanted = max(2, 1 - math.floor(math.log10(reach)))
    return wanted if wanted <= _MOST_PLACES else None


def value(
    number: float | None, unit: str, *, signed: bool = False, places: int | None = None
) -> str:
    """A number for reading; "%" and "pp" (percentage points) are hundredths.

    Args:
        number: as it is.
        unit: "%", "pp" or "".
        signed: whether a plus is written.
        places: decimals; None to go by the size of the number.

    Examples:
        >>> value(0.00058, "pp", signed=True), value(0.00058, "pp", signed=True, places=2)
        ('+0.05800 pp', '+0.06 pp')
    """
    if number is None:
        return ""
    text = _text(100 * number if unit else number, signed=signed, places=places)
    return f"{text} {unit}" if unit else text


def span(interval: Interval | None, scale: float, places: int | None = None) -> str:
    """An interval for reading.

    Args:
        interval: as it is.
        scale: what its ends are multiplied by.
        places: decimals; None to go by its width.

    Examples:
        >>> from abkit.estimate import Interval
        >>> span(Interval(-0.0124, 0.00058), 100)
        '−1.24 to +0.06'
    """
    if interval is None:
        return ""
    ends = [scale * x for x in (interval.lower, interval.upper)]
    known = [x for x in ends if math.isfinite(x)]
    if places is None and known:
        places = _places((max(known) - min(known)) / 2 or abs(known[0]))
    lower, upper = (
        _text(x, signed=True, places=places)
        if math.isfinite(x)
        else (f"{_MINUS}∞" if x < 0 else "+∞")
        for x in ends
    )
    return f"{lower} to {upper}"


def _text(number: float, *, signed: bool, places: int | None) -> str:
    """By the size of the number: four significant digits, two decimals where that is shorter."""
    if places is not None:
        return f"{number:{'+' if signed else ''},.{places}f}".replace("-", _MINUS)
    digits = 2 if abs(number) >= 0.1 or number == 0 else 5
    text = (
        f"{number:{'+' if signed else ''},.{digits}f}"
        if abs(number) >= 1e-4 or number == 0
        else f"{number:{'+' if signed else ''}.2e}"
    )
    return text.replace("-", _MINUS)


def short_names(names: list[str], longest: int = 24) -> dict[str, str]:
    """Names that fit into a column, still different from one another.

    Examples:
        >>> short_names(["a", "ranker-with-a-very-long-name-2026"])
        {'a': 'a', 'ranker-with-a-very-long-name-2026': 'ranker-with-…g-name-2026'}
        >>> short_names(["a", "a"])
        {'a': 'a'}
    """
    half = (longest - 1) // 2
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        text = name if len(name) <= longest else f"{name[: half + 1]}…{name[-half:]}"
        if text in found.values():
            text = f"{text[: longest - 4]}…{len(found)}"
        found[name] = text
    return found
