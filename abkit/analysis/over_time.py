"""What the time of the rows says about a comparison: the calendar, trends, dependence."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scipy import stats

from abkit.check import Check
from abkit.stats.contrast import contrast
from abkit.stats.novelty import effect_trend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.moments import Moments
    from abkit.store.probe import Probe, Span

RARE: Final = 0.001  # p-value from which a check warns, over all comparisons
FEWEST_SLICES: Final = 10
_FEWEST_UNITS: Final = 20  # in each arm of a slice, for its variance to be known
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SLACK_DAYS: Final = 0.1  # that whole weeks may lack or have too much

Arms = tuple["Moments", "Moments"]


def calendar_checks(span: Span | None) -> list[Check]:
    """Days of the week that were not met, or not as often as others.

    Args:
        span: the time that the table covers.
    """
    if span is None or span.days is None or not span.weekdays:
        return []
    days = span.days
    dates = (span.last.date() - span.first.date()).days + 1  # type: ignore[union-attr]
    absent = [name for i, name in enumerate(_DAYS, 1) if not span.weekdays.get(i)]
    told = f"the rows came from {span.first:%a %Y-%m-%d} to {span.last:%a %Y-%m-%d}"
    evidence = {"days": days, "weekdays": {_DAYS[i - 1]: n for i, n in span.weekdays.items()}}
    if absent:
        text = f"{told}: none on {', '.join(absent)}"
        text += "; people differ by day of the week, so let it run for whole weeks"
        return [Check("calendar_coverage", "warn", text, evidence)]
    whole = min(days % 7, 7 - days % 7) <= _SLACK_DAYS
    if whole or dates % 7 == 0:
        return []
    text = f"{told}, {dates} days: some days of the week count more often"
    return [Check("calendar_coverage", "info", f"{text}; whole weeks count each alike", evidence)]


def series_of(
    probe: Probe, metric: str, control: str, treatment: str
) -> tuple[list[float], list[Arms]]:
    """Middles of the slices in which both arms have units, and their moments."""
    ages, arms = [], []
    for bucket, cells in probe.slices.items():
        if control in cells and treatment in cells:
            pair = cells[control][metric], cells[treatment][metric]
            if min(pair[0].n, pair[1].n) > 0:
                ages.append(probe.middles[bucket])
                arms.append(pair)
    return ages, arms


def series_checks(
    series: Mapping[tuple[str, str], tuple[Sequence[float], Sequence[Arms]]],
) -> list[Check]:
    """Trends of the effect, and effects of neighbouring times that depend on one another.

    Args:
        series: by metric and variant, times and arms.
    """
    found: list[Check] = []
    for (metric, variant), (times, arms) in series.items():
        line = line_of(times, arms)
        if line is not None:
            found += _trend(f"{metric}, {variant}", line, len(series))
            found += _dependence(f"{metric}, {variant}", line, len(series))
    return found


@dataclass(frozen=True, slots=True)
class Line:
    """A line through the effects over time, and what is left around it.

    Args:
        first: its value at the earliest time.
        last: its value at the latest.
        slope: per unit of time.
        p_trend: of the slope, with a standard error that allows for the spread.
        spread: squares around the line over what units explain, about 1 where they do.
        p_spread: of more than that (Cochran's Q).
        lag: correlation of each residual with the one before.
        p_lag: of more than none.
        slices: number of effects.
    """

    first: float
    last: float
    slope: float
    p_trend: float
    spread: float
    p_spread: float
    lag: float
    p_lag: float
    slices: int


def line_of(times: Sequence[float], arms: Sequence[Arms]) -> Line | None:
    """The line through the effects; None where there are too few.

    Args:
        times: of each effect.
        arms: control and treatment of each.

    Source: Thompson, Sharp (1999), with a multiplicative spread.
    """
    points = []
    for x, (control, treatment) in zip(times, arms, strict=True):
        if min(control.n, treatment.n) < _FEWEST_UNITS:
            continue
        found = contrast([(1.0, treatment), (-1.0, control)])
        if found is not None and 0 < found.standard_error < math.inf:
            points.append((x, found.value, found.standard_error, (control, treatment)))
    if len(points) < FEWEST_SLICES:
        return None
    fitted = effect_trend([x for x, *_ in points], [pair for *_, pair in points])
    first, last, error = fitted.mean_control, fitted.mean_treatment, fitted.standard_error
    if fitted.status != "ok" or first is None or last is None or not error:
        return None
    lo, hi = points[0][0], points[-1][0]
    slope = (last - first) / (hi - lo)
    away = [(y - first - slope * (x - lo)) / s for x, y, s, _ in points]
    freedom = len(points) - 2
    q = math.fsum(z * z for z in away)
    if not math.isfinite(q):
        return None
    z = abs(slope) / (error * math.sqrt(max(1.0, q / freedom)))
    lag, p_lag = lag_one(away)
    return Line(
        first,
        last,
        slope,
        2 * float(stats.t.sf(z, freedom)),
        q / freedom,
        float(stats.chi2.sf(q, freedom)),
        lag,
        p_lag,
        len(points),
    )


def _trend(what: str, line: Line, family: int) -> list[Check]:
    """Whether units that came early show another effect than those that came late."""
    if line.p_trend * family >= RARE:
        return []
    word = "fades" if abs(line.last) < abs(line.first) else "grows"
    return [
        Check(
            "novelty",
            "warn",
            f"{what}: the effect {word} from {line.first:+.4g} for the earliest rows to "
            f"{line.last:+.4g} for the latest (p {line.p_trend:.2g}); it depends on the age of "
            "units or on the calendar, and an average over time is no forecast: let it run until "
            "it is steady",
            {
                "what": what,
                "first": line.first,
                "last": line.last,
                "slope": line.slope,
                "p_value": line.p_trend,
            },
        )
    ]


def _dependence(what: str, line: Line, family: int) -> list[Check]:
    """Whether differences over time vary, or follow one another, more than units explain."""
    if min(line.p_lag, line.p_spread) * 2 * family >= RARE:
        return []
    return [
        Check(
            "autocorrelation",
            "warn",
            f"{what}: the differences of {line.slices} slices of time depend on time: lag-1 "
            f"correlation {line.lag:.2f} (p {line.p_lag:.2g}), spread {line.spread:.3g} times "
            f"what units explain (p {line.p_spread:.2g}); rows are not independent, so intervals "
            "are too narrow: name the cluster, or compare a difference per day",
            {
                "what": what,
                "lag_one": line.lag,
                "p_lag": line.p_lag,
                "spread": line.spread,
                "p_spread": line.p_spread,
                "slices": line.slices,
            },
        )
    ]


def lag_one(values: Sequence[float]) -> tuple[float, float]:
    """Correlation of each value with the one before, and the p-value of more than none.

    Bartlett's variance 1/n around the mean -1/n of independent values.

    Examples:
        >>> r, p = lag_one([1.0, -1.0] * 10)
        >>> round(r, 2), p > 0.99
        (-0.95, True)
    """
    n = len(values)
    middle = math.fsum(values) / n
    away = [x - middle for x in values]
    total = math.fsum(x * x for x in away)
    if not 0 < total < math.inf:
        return 0.0, 1.0
    r = math.fsum(a * b for a, b in itertools.pairwise(away)) / total
    return r, float(stats.norm.sf((r + 1 / n) * math.sqrt(n)))
