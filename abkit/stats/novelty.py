"""Novelty and decay: does an effect fade, or grow, as units get used to the treatment?

Age is the time since a unit's first exposure, not the calendar's. There are two situations. Where
each age is measured on other units (or on few of the same), `effect_trend` fits a line through
the effects by age. Where the same units are seen at every age, their values depend on one another,
and `effect_trend_within` takes the slope of each unit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from abkit.comoments import total_of
from abkit.errors import ConfigError
from abkit.moments import Moments
from abkit.stats.contrast import contrast
from abkit.stats.difference import check_test, unanswered, welch_t
from abkit.stats.standardise import standardised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.comoments import Comoments
    from abkit.estimate import Alternative, Estimate

_FEWEST_AGES = 2


def effect_trend(
    ages: Sequence[float],
    effects: Sequence[tuple[Moments, Moments]],
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Slope of the effect over the age of the units, for one look.

    Weighted least squares through the effects, each weighted by its precision. Valid for effects
    that are independent of one another: different units at each age.

    Args:
        ages: age of each effect, in any unit of time, finite, at least two different ones.
        effects: (control, treatment) moments at each age; ages with fewer than two units in an
            arm, or without variance, are left out.
        alpha: error probability of the interval, in (0, 1).
        alternative: "less" asks whether the effect falls with age (novelty).

    Returns:
        An estimate (method "effect_trend") whose `difference` is the slope, in the metric's unit
        per unit of age; `mean_control` and `mean_treatment` are the fitted effects at the first
        and at the last age. Fewer than two ages left give "insufficient_data".

    Raises:
        ConfigError: ages and effects differ in number, or an age is not finite.
        DesignError: alpha or alternative is unusable.

    Source: Thompson, Sharp (1999), meta-regression with known variances.

    Examples:
        >>> control = Moments(1_000, 10.0, 999.0)
        >>> days = [Moments(1_000, 10.0 + effect, 999.0) for effect in (0.5, 0.3, 0.1)]
        >>> result = effect_trend([1, 2, 3], [(control, day) for day in days])
        >>> round(result.difference, 6), round(result.p_value, 6)
        (-0.2, 0.0)
    """
    check_test(alpha, alternative)
    _check_ages(ages, len(effects))
    blank = replace(
        unanswered("effect_trend", Moments(), Moments(), alpha=alpha, alternative=alternative),
        n_control=sum(c.n for c, _ in effects),
        n_treatment=sum(t.n for _, t in effects),
    )
    points = []
    for age, (control, treatment) in zip(ages, effects, strict=True):
        found = contrast([(1.0, treatment), (-1.0, control)])
        if found is None or not 0 < found.standard_error < math.inf:
            continue
        if math.isfinite(found.value):
            points.append((float(age), found.value, found.standard_error))
    if len({age for age, _, _ in points}) < _FEWEST_AGES:
        return blank
    smallest = min(spread for _, _, spread in points)
    weights = [(smallest / spread) ** 2 for _, _, spread in points]
    total = math.fsum(weights)
    centre = math.fsum(w * x for w, (x, _, _) in zip(weights, points, strict=True)) / total
    level = total_of(w * (y / total) for w, (_, y, _) in zip(weights, points, strict=True))
    sxx = total_of(
        w * (x - centre) * (x - centre) for w, (x, _, _) in zip(weights, points, strict=True)
    )
    if sxx == 0 or not math.isfinite(sxx):
        return replace(blank, status="undefined")
    slope = total_of(
        w * (x - centre) / sxx * (y - level) for w, (x, y, _) in zip(weights, points, strict=True)
    )
    result = standardised(blank, slope, smallest / math.sqrt(sxx))
    ends = [level + slope * (edge(x for x, _, _ in points) - centre) for edge in (min, max)]
    if result.status != "ok" or not all(map(math.isfinite, ends)):
        return result
    return replace(result, mean_control=ends[0], mean_treatment=ends[1])


def effect_trend_within(
    control: Comoments,
    treatment: Comoments,
    *,
    ages: Mapping[str, float],
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Slope of the effect over age, on units that were all seen at every age, for one look.

    Each unit's least-squares slope is a weighted sum of its values, so the effect's slope is a
    difference of two means: Welch's t, whatever the dependence between a unit's ages.

    Args:
        control: comoments of control, one column an age.
        treatment: comoments of treatment, the same columns.
        ages: age of each column, finite, at least two different ones.
        alpha: error probability of the interval, in (0, 1).
        alternative: "less" asks whether the effect falls with age (novelty).

    Returns:
        An estimate (method "effect_trend_within") whose `difference` is the slope, in the metric's
        unit per unit of age, and whose means are the arms' own slopes. Statuses as in `welch_t`.

    Raises:
        ConfigError: there are not two different ages, or one is not finite.
        DataError: a column is missing.
        DesignError: alpha or alternative is unusable.

    Source: summary measures, Matthews, Altman, Campbell, Royston (1990).

    Examples:
        >>> from abkit.comoments import Comoments
        >>> control = Comoments.of({"d1": [1.0, 2.0, 3.0], "d2": [1.0, 2.0, 3.5]})
        >>> treatment = Comoments.of({"d1": [3.0, 4.0, 5.0], "d2": [2.0, 3.0, 3.5]})
        >>> trend = effect_trend_within(control, treatment, ages={"d1": 1, "d2": 2})
        >>> round(trend.difference, 6)
        -1.333333
    """
    check_test(alpha, alternative)
    values = list(ages.values())
    _check_ages(values, len(values))
    if len(set(values)) < _FEWEST_AGES:
        raise ConfigError(f"a trend needs two different ages, got {dict(ages)}")
    centre = math.fsum(values) / len(values)
    sxx = math.fsum((age - centre) ** 2 for age in values)
    weights = {name: (age - centre) / sxx for name, age in ages.items()}
    slopes = control.combined(weights), treatment.combined(weights)
    result = welch_t(*slopes, alpha=alpha, alternative=alternative)
    return replace(
        result,
        method="effect_trend_within",
        lift=None,
        lift_interval=None,
        lift_standard_error=None,
    )


def _check_ages(ages: Sequence[float], effects: int) -> None:
    if len(ages) != effects or not all(map(math.isfinite, ages)):
        raise ConfigError(f"need one finite age an effect, got {len(ages)} for {effects}: {ages}")
