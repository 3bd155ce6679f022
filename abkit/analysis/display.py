"""Numbers and rows of a report, formatted for reading."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        gone = item.estimate.variance_reduction
        if gone is not None:
            lines.append(f"{what}: covariates remove {value(gone, '%')} of the variance")
        if item.epochs:
            weights = ", ".join(f"{e.epoch}: {e.weight:.1%}" for e in item.epochs)
            lines.append(f"{what}: weights of the epochs {weights}")
        bayes = item.posterior
        if bayes is not None and bayes.chance_to_beat is not None:
            lines.append(
                f"{what}: chance to beat {item.control} {bayes.chance_to_beat:.1%}, expected loss "
                f"{value(bayes.loss_treatment, unit_of(item))} of {item.variant}, "
                f"{value(bayes.loss_control, unit_of(item))} of {item.control} "
                "(flat prior; no bound on false positives)"
            )
    return lines


def _cells(item: Result) -> tuple[str, ...]:
    e = item.estimate
    points = item.kind == "proportion"
    missing = e.status if e.status != "ok" else "–"
    return (
        item.metric,
        item.variant,
        value(e.mean_control, "%" if points else ""),
        value(e.mean_treatment, "%" if points else ""),
        value(e.difference, unit_of(item), signed=True),
        span(e.interval, 100 if points else 1),
        value(e.lift, "%", signed=True),
        missing if e.p_value is None else f"{e.p_value:.3g}",
    )


def unit_of(item: Result) -> str:
    """Unit of a result's difference."""
    return "pp" if item.kind == "proportion" else ""


def value(number: float | None, unit: str, *, signed: bool = False) -> str:
    """A number for reading; "%" and "pp" (percentage points) are hundredths."""
    if number is None:
        return ""
    return f"{_text(100 * number, signed=signed)} {unit}" if unit else _text(number, signed=signed)


def span(interval: Interval | None, scale: float) -> str:
    """An interval for reading."""
    if interval is None:
        return ""
    lower, upper = (
        _text(scale * x, signed=True) if math.isfinite(x) else ("−∞" if x < 0 else "+∞")
        for x in (interval.lower, interval.upper)
    )
    return f"{lower} to {upper}"


def _text(number: float, *, signed: bool = False) -> str:
    """Four significant digits at most, two decimals at least where that is shorter."""
    digits = 2 if abs(number) >= 0.1 or number == 0 else 5
    text = (
        f"{number:{'+' if signed else ''},.{digits}f}"
        if abs(number) >= 1e-4 or number == 0
        else f"{number:{'+' if signed else ''}.2e}"
    )
    return text.replace("-", "−")


def short_names(names: list[str], longest: int = 24) -> dict[str, str]:
    """Names that fit into a column, still different from one another.

    Examples:
        >>> short_names(["a", "ranker-with-a-very-long-name-2026"])
        {'a': 'a', 'ranker-with-a-very-long-name-2026': 'ranker-with-…g-name-2026'}
    """
    half = (longest - 1) // 2
    found: dict[str, str] = {}
    for name in names:
        text = name if len(name) <= longest else f"{name[: half + 1]}…{name[-half:]}"
        if text in found.values():
            text = f"{text[: longest - 4]}…{len(found)}"
        found[name] = text
    return found
