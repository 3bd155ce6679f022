"""One unit that carries a result: each arm's extremes are left out, one at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from abkit.analysis.compare import estimated
from abkit.analysis.display import value
from abkit.check import Check
from abkit.comoments import Comoments
from abkit.stats.within import precision_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.analysis.compare import Stratum
    from abkit.analysis.options import Options
    from abkit.analysis.report import Result
    from abkit.estimate import Estimate
    from abkit.store.probe import Extreme

INFLUENCE: Final = 0.5  # standard errors by which one unit must move the difference to be named
CARRIED: Final = 0.5  # share of the difference that rests on one unit


@dataclass(frozen=True, slots=True)
class _Removed:
    """A unit, and the result without it."""

    unit: str
    value: float
    variant: str
    influence: float
    estimate: Estimate


def outlier_checks(
    results: Sequence[Result],
    strata: Mapping[tuple[str, str], Sequence[Stratum]],
    extremes: Mapping[tuple[str, str, str], Sequence[Extreme]],
    options: Options,
) -> list[Check]:
    """Results that one unit flips: their verdict, their sign, or most of their difference.

    Args:
        results: of all units.
        strata: what each was made of, by metric and variant.
        extremes: the two ends of each metric, by metric, variant and epoch.
        options: of the analysis.
    """
    plain = replace(options, covariates=(), bayes=False)
    found = []
    for result in results:
        parts = strata.get((result.metric, result.variant))
        if result.kind != "mean" or parts is None or result.segment is not None:
            continue
        check = _check(result, parts, extremes, plain)
        found += [] if check is None else [check]
    return found


def _check(
    result: Result,
    parts: Sequence[Stratum],
    extremes: Mapping[tuple[str, str, str], Sequence[Extreme]],
    options: Options,
) -> Check | None:
    name = result.metric
    alone = [(epoch, _alone(c, name), _alone(t, name)) for epoch, c, t in parts]
    base = estimated(name, "mean", alone, options, options.alpha)
    removed = _most_influential(result, alone, extremes, options, base)
    if removed is None or removed.influence < INFLUENCE:
        return None
    told = _flips(base, removed.estimate, options.alpha)
    if not told:
        return None
    after = removed.estimate
    places = 4 if abs(base.difference or 0) < 1 else 2
    shown = [value(e.difference, "", signed=True, places=places) for e in (base, after)]
    return Check(
        "outlier_flips_result",
        "warn",
        f"one unit flips the result of {name!r}: without {removed.unit!r} of {removed.variant} "
        f"({removed.value:,.10g}) the difference of {result.variant} is {shown[1]} instead of "
        f"{shown[0]}, p {after.p_value:.3g} instead of {base.p_value:.3g} ({told}); find out "
        "whether it is real, and winsorize by a rule that does not look at the result",
        {
            "metric": name,
            "unit": removed.unit,
            "variant": removed.variant,
            "value": removed.value,
            "influence": removed.influence,
            "difference": base.difference,
            "difference_without": after.difference,
            "p_value": base.p_value,
            "p_value_without": after.p_value,
        },
    )


def _alone(cell: Comoments, name: str) -> Comoments:
    i = cell.index(name)
    return Comoments((name,), cell.n, (cell.means[i],), ((cell.products[i][i],),))


def without(cell: Comoments, x: float) -> Comoments:
    """One column's moments after a value has been taken out.

    Examples:
        >>> without(Comoments.of({"x": [1.0, 2.0, 9.0]}), 9.0) == Comoments.of({"x": [1.0, 2.0]})
        True
    """
    n, (mean,) = cell.n - 1, cell.means
    left = mean + (mean - x) / n
    return Comoments(
        cell.names, n, (left,), ((max(0.0, cell.products[0][0] - (x - mean) * (x - left)),),)
    )


def _most_influential(
    result: Result,
    parts: Sequence[Stratum],
    extremes: Mapping[tuple[str, str, str], Sequence[Extreme]],
    options: Options,
    base: Estimate,
) -> _Removed | None:
    """The extreme unit without which the difference moves most."""
    error = base.standard_error
    if base.status != "ok" or not error or base.p_value is None:
        return None
    shares = precision_shares([(c.n, t.n) for _, c, t in parts])
    best: tuple[float, str, Extreme, list[Stratum]] | None = None
    for place, (epoch, *arms) in enumerate(parts):
        for side, variant in enumerate((result.control, result.variant)):
            cell = arms[side]
            if cell.n < 3:  # two must be left
                continue
            for item in extremes.get((result.metric, variant, epoch), ()):
                moved = shares[place] * abs(item.value - cell.means[0]) / (cell.n - 1)
                if best is not None and moved / error <= best[0]:
                    continue
                left = [*arms]
                left[side] = without(cell, item.value)
                changed = [*parts]
                changed[place] = (epoch, left[0], left[1])
                best = (moved / error, variant, item, changed)
    if best is None:
        return None
    influence, variant, item, changed = best
    if influence < INFLUENCE:
        return None
    after = estimated(result.metric, "mean", changed, options, options.alpha)
    if after.status != "ok" or after.p_value is None:
        return None
    return _Removed(item.unit, item.value, variant, influence, after)


def _flips(before: Estimate, after: Estimate, alpha: float) -> str:
    """What changes, in words; empty where the answer stays."""
    old, new = before.difference, after.difference
    if old is None or new is None or before.p_value is None or after.p_value is None:
        return ""
    told = []
    if (before.p_value <= alpha) != (after.p_value <= alpha):
        told.append(
            "significant only with it" if before.p_value <= alpha else "it hides the effect"
        )
    if old * new < 0:
        told.append("the sign changes")
    elif abs(new) < (1 - CARRIED) * abs(old):
        told.append(f"{1 - new / old:.0%} of the difference rests on it")
    return ", ".join(told)
