"""How long an experiment runs, and what it finds: for one look and for sequential designs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from abkit.errors import ConfigError
from abkit.planning.boundaries import COUNT_DESIGNS, Z_DESIGNS, check_designs
from abkit.planning.designs import design_plan
from abkit.planning.history import History, read_history
from abkit.planning.question import effect_of, question_of, shares_of, units_of
from abkit.planning.report import PlanReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from abkit.estimate import Alternative

DEFAULT_DESIGNS: Final = ("fixed", "group-sequential", "pocock", "calibrated", "always-valid")


def plan(
    history: object = None,
    *,
    unit: str | None = None,
    metric: str | None = None,
    covariates: Sequence[str] = (),
    time: str | None = None,
    baseline: float | None = None,
    sd: float | None = None,
    variance_reduction: float | None = None,
    lift: float | None = None,
    difference: float | None = None,
    units: int | None = None,
    days: float | None = None,
    power: float | None = None,
    units_per_day: float | None = None,
    arms: int = 2,
    weights: Sequence[float] | Mapping[str, float] | None = None,
    alpha: float = 0.05,
    alternative: Alternative | None = None,
    margin: float | None = None,
    designs: Sequence[str] = DEFAULT_DESIGNS,
    looks: int | None = None,
    runs: int = 4_000,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> PlanReport:
    """Units, power or smallest effect of several designs side by side, with their stopping times.

    Give two of effect, units and power, and the third is computed; power is .8 where the effect or
    the units stand alone. Designs that compare a z value are computed exactly (for normal data with
    known variance); those that count events are simulated, with the error of that.

    Args:
        history: past data, one row per unit, from which baseline, spread, what covariates explain
            and units a day are taken: a path, frame, Arrow table or DuckDB relation.
        unit: column of the unit in the history.
        metric: column of the metric in the history.
        covariates: columns known before the assignment, for CUPED.
        time: column of the time at which a unit entered, for the units a day.
        baseline: mean of control; without `sd` a rate in (0, 1).
        sd: standard deviation of one unit; makes the metric a mean.
        variance_reduction: share of the variance that covariates explain, in [0, 1).
        lift: effect relative to the baseline: .05 is +5 %.
        difference: effect in the metric's unit. With a margin, the true difference; 0 by default.
        units: of all arms together at the end.
        days: the same as run length; needs `units_per_day`.
        power: chance to find the effect, in (alpha, 1).
        units_per_day: of all arms together.
        arms: number of arms with control; more than two share alpha (Bonferroni).
        weights: intended split, control first; even by default.
        alpha: error probability of all comparisons together, in (0, 1).
        alternative: side of the test; "two-sided" without a margin, and away from the margin
            with one.
        margin: border of the null for non-inferiority: -0.02 asks whether less than 0.02 is lost,
            0.02 whether less than that is added where less is better. One-sided.
        designs: names, see `abkit.sequential.names.DESIGNS`.
        looks: evenly spaced looks of sequential designs; 5 of group sequential ones and 200 of
            those for any look by default.
        runs: simulated runs for designs that count events.
        seed: of their random numbers.
        progress: told the share that is done.

    Raises:
        ConfigError: an argument is missing, too much, or out of range.
        DesignError: effect and alternative do not go together, or no test can ask this.
        DataError: the history is not usable.

    Source: the fixed test as in `abkit.stats.power`; Jennison, Turnbull (2000), chapters 2 and 19.

    Examples:
        R: `power.prop.test(p1 = .10, p2 = .11, power = .8)` says n = 14750.79 in each arm.

        >>> report = plan(baseline=0.10, lift=0.10, units_per_day=4_000)
        >>> report.design("fixed").arm_units, report.design("fixed").days
        ((14751, 14751), 8)

        The calibrated mixture at twice those units: power .94, and on average over after .88 of
        them.

        >>> found = plan(baseline=0.10, lift=0.10, units=2 * 29_502, designs=["calibrated"])
        >>> best = found.design("calibrated")
        >>> round(best.power, 2), round(best.mean_units / 29_502, 2)
        (0.94, 0.88)
    """
    past = None
    if history is not None:
        if metric is None or unit is None:
            raise ConfigError("a history needs its unit and metric column")
        past = read_history(history, unit=unit, metric=metric, covariates=covariates, time=time)
        baseline, sd, variance_reduction = _with_history(past, baseline, sd, variance_reduction)
        units_per_day = past.units_per_day if units_per_day is None else units_per_day
    elif unit or metric or covariates or time:
        raise ConfigError(
            "unit, metric, covariates and time are columns of a history; name its file"
        )
    question = question_of(
        baseline=baseline,
        sd=sd,
        variance_reduction=variance_reduction or 0.0,
        effect=effect_of(baseline, lift, difference),
        units=units_of(units, days, units_per_day),
        power=power,
        units_per_day=units_per_day,
        shares=shares_of(arms, weights),
        alpha=alpha,
        alternative=alternative,
        margin=margin,
        looks=looks,
        runs=runs,
        seed=seed,
    )
    names = check_designs(designs, (*Z_DESIGNS, *COUNT_DESIGNS))
    rows = []
    for number, name in enumerate(names):

        def told(share: float, number: int = number) -> None:
            if progress is not None:
                progress((number + share) / len(names))

        rows.append(design_plan(name, question, told))
        told(1.0)
    model = question.model
    rate = question.rate
    return PlanReport(
        wanted=question.wanted,
        kind="mean" if rate is None else "proportion",
        baseline=baseline,
        sd=math.sqrt(rate * (1 - rate)) if rate is not None else getattr(model, "sd", 0.0),
        variance_reduction=model.variance_reduction,
        alpha=alpha,
        alternative=question.alternative,
        margin=margin,
        shares=question.shares,
        units_per_day=units_per_day,
        designs=tuple(rows),
        notes=past.notes if past is not None else (),
    )


def _with_history(
    past: History, baseline: float | None, sd: float | None, reduction: float | None
) -> tuple[float, float | None, float]:
    """Numbers of the history, where they were not given."""
    mean = past.mean if baseline is None else baseline
    if not past.binary and sd is None:
        sd = past.sd
    return mean, sd, past.variance_reduction if reduction is None else reduction
