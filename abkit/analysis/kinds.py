"""Comparisons beyond means: quantiles, counts of events, and pairs of answers of one unit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from scipy import stats

from abkit.analysis.report import Check
from abkit.moments import PairedCounts
from abkit.stats.difference import tail_alpha, with_lift
from abkit.stats.paired import mcnemar, paired_t
from abkit.stats.quantile import QuantileSummary, order_ranks, quantile_difference
from abkit.stats.rates import Events, poisson_rates
from abkit.stats.ratio import linearised, term_name
from abkit.store.folds import control_side, treatment_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.comoments import Comoments
    from abkit.estimate import Alternative, Estimate
    from abkit.stats.ratio import Term
    from abkit.store.orders import Ordered

_CLEARLY: Final = 0.001  # p-value of the test of dispersion
_MATTERS: Final = 1.1  # variance over mean; below, intervals are less than 5 % too narrow
_LEVELS: Final = 20  # of the intervals that Benjamini-Hochberg may ask for


def quantile_name(column: str, quantile: float) -> str:
    """Name of a quantile's result.

    Examples:
        >>> quantile_name("latency_ms", 0.95), quantile_name("latency_ms", 0.999)
        ('latency_ms p95', 'latency_ms p99.9')
    """
    return f"{column} p{100 * quantile:.10g}"


def interval_levels(alpha: float, families: Sequence[tuple[int, str | None]]) -> list[float]:
    """Error probabilities that intervals may be asked for, with their corrections.

    Args:
        alpha: of one comparison, in (0, 1).
        families: number of comparisons and correction of each family.

    Returns:
        Levels, rising. Benjamini-Hochberg's, one for each number of selected comparisons, are at
        most 20; between two of them the wider interval serves.

    Examples:
        >>> [round(x, 6) for x in interval_levels(0.05, [(1, None), (4, "holm")])]
        [0.0125, 0.05]
    """
    found = {alpha}
    for m, method in families:
        if method in ("holm", "hommel") and m:
            found.add(alpha / m)
        elif method == "bh":
            step = max(1, math.ceil(m / _LEVELS))
            found |= {alpha * k / m for k in (1, *range(step, m + 1, step))}
    return sorted(found)


def ranks_for(
    n: int, quantile: float, levels: Sequence[float], alternatives: Sequence[Alternative]
) -> set[int]:
    """Ranks of the order statistics that a quantile and its intervals need.

    Args:
        n: number of values, >= 1.
        quantile: in (0, 1).
        levels: error probabilities of the intervals, in (0, 1).
        alternatives: sides of the intervals.

    Examples:
        >>> sorted(ranks_for(100, 0.5, [0.05], ["two-sided"]))
        [40, 50, 51, 61]
    """
    middle = math.floor((n - 1) * quantile) + 1
    tails = {tail_alpha(alpha, side) for alpha in levels for side in alternatives}
    ends = {rank for tail in tails for rank in order_ranks(n, quantile, tail)}
    return {rank for rank in ends | {middle, middle + 1} if 1 <= rank <= n}


def quantile_arm(
    found: Ordered, quantile: float, *, alpha: float, alternative: Alternative, factor: float = 1.0
) -> QuantileSummary:
    """A summary of one arm from its order statistics.

    Args:
        found: values at the ranks of `ranks_for`. Where an end's own rank is not among them, the
            next one outside serves.
        quantile: in (0, 1).
        alpha: error probability of the interval, in (0, 1).
        alternative: its side.
        factor: what the values are multiplied by, > 0.

    Examples:
        >>> from abkit.store.orders import Ordered
        >>> values = Ordered(100, {40: 40.0, 50: 50.0, 51: 51.0, 61: 61.0})
        >>> arm = quantile_arm(values, 0.5, alpha=0.05, alternative="two-sided")
        >>> arm.value, arm.lower, arm.upper
        (50.5, 40.0, 61.0)
    """
    n, values = found.n, found.values
    value = None
    lower, upper = -math.inf, math.inf
    if n:
        place = (n - 1) * quantile
        rank = math.floor(place) + 1
        value = values[rank]
        if place > rank - 1:
            value += (place - (rank - 1)) * (values[rank + 1] - value)
        low, high = order_ranks(n, quantile, tail_alpha(alpha, alternative))
        below = [rank for rank in values if rank <= low]
        above = [rank for rank in values if rank >= high]
        lower = values[max(below)] if below else -math.inf
        upper = values[min(above)] if above else math.inf
    return QuantileSummary(
        n=n,
        quantile=quantile,
        value=None if value is None else factor * value,
        lower=factor * lower,
        upper=factor * upper,
        alpha=alpha,
        alternative=alternative,
    )


def quantile_estimate(
    arms: tuple[Ordered, Ordered],
    quantile: float,
    *,
    alpha: float,
    alternative: Alternative,
    factor: float = 1.0,
    margin: float | None = None,
) -> Estimate:
    """Difference of two quantiles, against a margin if there is one.

    Args:
        arms: order statistics of control and treatment.
        quantile: in (0, 1).
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the test.
        factor: what control's values are multiplied by, > 0.
        margin: difference on the border of the null, in the metric's unit.
    """
    control = quantile_arm(arms[0], quantile, alpha=alpha, alternative=alternative, factor=factor)
    treatment = quantile_arm(arms[1], quantile, alpha=alpha, alternative=alternative)
    plain = quantile_difference(control, treatment)
    if margin is None:
        return plain
    moved = treatment
    if treatment.value is not None:
        moved = replace(
            treatment,
            value=treatment.value - margin,
            lower=treatment.lower - margin,
            upper=treatment.upper - margin,
        )
    tested = quantile_difference(control, moved)
    return replace(
        plain,
        method=f"{plain.method}_non_inferiority",
        margin=margin,
        status=tested.status,
        standard_error=tested.standard_error,
        statistic=tested.statistic,
        p_value=tested.p_value,
    )


def events_of(arm: Comoments, term: Term) -> Events:
    """Events of one arm and their exposure: its units, or the sum of a column.

    Examples:
        >>> from abkit.comoments import Comoments
        >>> arm = Comoments.of({"errors": [0.0, 2.0, 1.0], "hours": [1.0, 4.0, 3.5]})
        >>> events_of(arm, "errors"), events_of(arm, ("errors", "hours"))
        (Events(count=3, exposure=3.0), Events(count=3, exposure=8.5))
    """
    if isinstance(term, str):
        return Events(round(arm.moments(term).total), float(arm.n))
    return Events(round(arm.moments(term[0]).total), arm.moments(term[1]).total)


def count_estimate(
    control: Comoments,
    treatment: Comoments,
    term: Term,
    *,
    alpha: float,
    alternative: Alternative,
    share: float | None = None,
) -> Estimate:
    """Exact comparison of two Poisson rates, against a share of control's if there is one.

    That treatment's rate is above (1 + share) times control's is a test of equal rates whose
    treatment had (1 + share) times its exposure, so the margin costs no exactness.

    Args:
        control: comoments of control, with the columns of the term.
        treatment: comoments of treatment.
        term: column of the counts, or (counts, exposure).
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the test.
        share: lift on the border of the null, > -1.
    """
    events = events_of(control, term), events_of(treatment, term)
    units = {"n_control": control.n, "n_treatment": treatment.n}
    plain = replace(poisson_rates(*events, alpha=alpha, alternative=alternative), **units)  # type: ignore[arg-type]
    if share is None:
        return plain
    stretched = replace(events[1], exposure=events[1].exposure * (1 + share))
    tested = poisson_rates(events[0], stretched, alpha=alpha, alternative=alternative)
    return replace(
        plain,
        method=f"{plain.method}_non_inferiority",
        scale="relative",
        margin=share,
        difference=plain.lift,
        interval=plain.lift_interval,
        lift=None,
        lift_interval=None,
        p_value=tested.p_value,
        status=tested.status,
    )


def dispersion_check(metric: str, term: Term, arms: Mapping[str, Comoments]) -> Check | None:
    """Whether counts vary from unit to unit as independent events do.

    Args:
        metric: name of the count.
        term: its column, or (counts, exposure).
        arms: comoments by variant.

    Returns:
        A warning where the variance over the mean, after what exposure explains, is clearly above
        one; None otherwise.

    Source: Fisher (1950) for the index of dispersion; Satterthwaite (1946) for unequal exposure.
    """
    spread, freedom, expected = 0.0, 0.0, 0.0
    for arm in arms.values():
        events = events_of(arm, term)
        if arm.n < 2 or not events.count or events.rate is None:
            continue
        if isinstance(term, str):
            residual, units = arm.moments(term), float(arm.n)
        else:
            residual = arm.combined({term[0]: 1.0, term[1]: -events.rate})
            hours = arm.moments(term[1])
            units = hours.total / (hours.m2 / hours.total + hours.mean)
        part = units * (arm.n - 1) / arm.n
        freedom += part
        spread += part * residual.variance / (events.count / arm.n)
        expected += part
    if freedom <= 0 or spread <= _MATTERS * expected:
        return None
    ratio, p = spread / expected, float(stats.chi2.sf(spread, freedom))
    if p >= _CLEARLY:
        return None
    instead = (
        f"the mean (metrics=[{term!r}])"
        if isinstance(term, str)
        else f"the ratio {term_name(term)}"
    )
    return Check(
        "overdispersed_counts",
        "warn",
        f"{metric!r} varies {ratio:.3g} times as much from unit to unit as independent events do, "
        f"so its interval is about {math.sqrt(ratio):.2g} times too narrow; compare {instead} "
        "instead, whose test (Welch) measures that variance",
    )


def dispersion_checks(
    counts: Mapping[str, Term], cells: Mapping[str, Mapping[str, Comoments]]
) -> list[Check]:
    """`dispersion_check` of every count.

    Args:
        counts: terms by name.
        cells: by name and variant the comoments of all its units, of those that are to be checked.
    """
    found = [dispersion_check(name, counts[name], arms) for name, arms in cells.items()]
    return [check for check in found if check is not None]


def paired_estimate(
    pairs: Comoments,
    term: Term,
    *,
    proportion: bool,
    alpha: float,
    alternative: Alternative,
    factor: float = 1.0,
) -> Estimate:
    """Treatment against control on the same units.

    Args:
        pairs: comoments of both sides' columns, as `read_pairs` returns them.
        term: a column, or (numerator, denominator) for a ratio of sums.
        proportion: whether all values are 0 or 1 and McNemar's test is wanted.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the test.
        factor: what control's values are multiplied by.
    """
    own, other = _side(treatment_side, term), _side(control_side, term)
    both = linearised(pairs, [own, other]) if pairs.n else pairs
    if both is None:
        blank = paired_t(pairs.moments(pairs.names[0]), alpha=alpha, alternative=alternative)
        return replace(
            blank,
            method="paired_ratio",
            status="undefined",
            difference=None,
            standard_error=None,
            interval=None,
            statistic=None,
            p_value=None,
        )
    if not pairs.n:
        both = type(pairs).empty([term_name(own), term_name(other)])
    treatment, control = both.names
    if proportion and isinstance(term, str):
        result = mcnemar(_table(both), alpha=alpha, alternative=alternative)
    else:
        moved = both.combined({treatment: 1.0, control: -factor})
        result = paired_t(moved, alpha=alpha, alternative=alternative)
        name = "paired_t" if isinstance(term, str) else "paired_ratio"
        result = replace(result, method=name)
    if not pairs.n:
        return result
    means = dict(zip(both.names, both.means, strict=True))
    result = replace(result, mean_treatment=means[treatment], mean_control=means[control])
    return _with_lift(result, both) if result.status == "ok" and factor == 1 else result


def _side(name: object, term: Term) -> Term:
    side = name if callable(name) else str
    return side(term) if isinstance(term, str) else (side(term[0]), side(term[1]))


def _table(both: Comoments) -> PairedCounts:
    """How often both sides are 1, one of them, or none."""
    n, (won_t, won_c) = both.n, (round(both.n * mean) for mean in both.means)
    together = round(both.products[0][1] + n * both.means[0] * both.means[1])
    return PairedCounts(
        both=together,
        only_control=won_c - together,
        only_treatment=won_t - together,
        neither=n - won_c - won_t + together,
    )


def _with_lift(result: Estimate, both: Comoments) -> Estimate:
    """The lift by the delta method, both means being of the same units."""
    treatment, control = both.means
    if control == 0 or both.n < 2:
        return result
    lift = (treatment - control) / control
    names = both.names
    residual = both.combined({names[0]: 1.0, names[1]: -(1 + lift)})
    spread = math.sqrt(residual.variance / both.n) / abs(control)
    return with_lift(result, (lift, spread)) if 0 < spread < math.inf else result
