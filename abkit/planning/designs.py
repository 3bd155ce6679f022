"""One design for one question: exactly where it compares z, simulated where it counts events."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from abkit.errors import ConfigError
from abkit.planning.boundaries import (
    COUNT_DESIGNS,
    Course,
    boundary_plan,
    course,
    drift_of,
    even_looks,
    guarantee_of,
    inflation_of,
    looks_of,
    msprt_tau2,
    needed_drift,
)
from abkit.planning.counts import (
    CountQuestion,
    count_course,
    first_rejections,
    needed_units,
    smallest_effect,
)
from abkit.planning.question import Question, truth_model
from abkit.planning.report import DesignPlan
from abkit.stats import power as fixed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from abkit.planning.counts import Progress
    from abkit.stats.unit_model import Model

_ROUNDS: Final = 8


def design_plan(name: str, question: Question, progress: Callable[[float], None]) -> DesignPlan:
    """What a design needs, or finds, and when it stops.

    Args:
        name: of the design.
        question: what is asked.
        progress: told the share that is done, where it takes long.

    Raises:
        ConfigError: the design does not suit the question.
        DesignError: effect and alternative do not go together.
    """
    return (_count_row if name in COUNT_DESIGNS else _z_row)(name, question, progress)


def _z_row(name: str, question: Question, _: Callable[[float], None]) -> DesignPlan:
    """A design that compares z with a boundary: computed exactly."""
    alpha = question.alpha_each
    blank = _blank(name, question)
    found = boundary_plan(
        name, even_looks(name, question.looks), alpha=alpha, alternative=question.alternative
    )
    settings = {"alpha": question.alpha, "alternative": question.alternative}
    model, distance = question.model, None
    if question.difference is not None:
        distance = question.difference - question.margin
    if question.wanted == "power":
        arms = [(question.units or 0) * share for share in question.shares]
        result = fixed.power(model, difference=distance or 0.0, units=arms, **settings)  # type: ignore[arg-type]
        error = model.standard_errors(arms[0], min(arms[1:]), distance or 0.0)[1]
        drift = drift_of(
            result.power or 0.0,
            alpha=alpha,
            alternative=question.alternative,
            ratio=abs(distance or 0.0) / error if error else math.inf,
        )
    else:
        factor = inflation_of(found, question.power or 0.8)
        drift = needed_drift(found, question.power or 0.8)
        if question.wanted == "units":
            result = fixed.sample_size(
                model,
                difference=distance or 0.0,
                power=question.power or 0.8,
                shares=question.shares,
                inflation=max(1.0, factor),
                **settings,  # type: ignore[arg-type]
            )
        else:
            result, model = _smallest(question, factor)
    if result.status != "ok" or result.difference is None:
        return replace(blank, status="undefined")
    arm_units = result.units
    if question.wanted != "units":
        arm_units = _whole(question.units or 0, question.shares)
    difference = result.difference + question.margin
    row = _filled(
        replace(blank, power=None),
        question,
        (course(found, 0.0), course(found, drift)),
        arm_units,
        difference,
    )
    if name != "msprt":
        return row
    variance = _variance(question, difference) * (1 - model.variance_reduction)
    tau2 = msprt_tau2(variance, _effective(arm_units))
    return replace(row, note=f"with tau2 = {tau2:.6g}")


def _smallest(question: Question, factor: float) -> tuple[fixed.Plan, Model]:
    """The smallest distance from the null that is found, and the model at it."""
    arms = [(question.units or 0) * share / factor for share in question.shares]
    model = question.model
    for _ in range(_ROUNDS):
        result = fixed.minimum_effect(
            model,
            units=arms,
            power=question.power or 0.8,
            alpha=question.alpha,
            alternative=question.alternative,
        )
        if not question.margin or question.rate is None or result.difference is None:
            break
        # The spread of treatment goes with its rate, which is what is looked for.
        truth = result.difference + question.margin
        other = min(max(truth, 1e-6 - question.rate), 1 - 1e-6 - question.rate)
        model = truth_model(question.rate, other, model.variance_reduction)
    return result, model


def _count_row(name: str, question: Question, progress: Callable[[float], None]) -> DesignPlan:
    """A design that counts events: simulated."""
    blank = _blank(name, question)
    if question.rate is None:
        raise ConfigError(f"the design {name!r} counts events; give a rate as baseline, and no sd")
    if question.margin:
        raise ConfigError(f"the design {name!r} takes no margin in a plan")
    asked = CountQuestion(
        design=name,
        rate=question.rate,
        shares=question.pair,
        looks=looks_of(name, question.looks),
        alpha=question.alpha_each,
        alternative=question.alternative,
        runs=question.runs,
        seed=question.seed,
    )
    part = sum(question.pair)
    difference, total = question.difference, question.units
    if question.wanted == "effect":
        difference = smallest_effect(
            asked,
            units=(total or 0) * part,
            power=question.power or 0.8,
            progress=_within(progress, 0.0, 0.5),
        )
        if difference is None:
            return replace(blank, status="undefined")
    wanted = difference or 0.0
    one = fixed.sample_size(
        question.model,
        difference=wanted,
        power=question.power or 0.8,
        alpha=question.alpha,
        alternative=question.alternative,
        shares=question.shares,
    )
    rate = question.rate + wanted
    if total is None:
        units = needed_units(
            asked,
            rate_treatment=rate,
            power=question.power or 0.8,
            start=max(one.total, 1) * part,
            progress=_within(progress, 0.0, 0.5),
        )
        if units is None:
            return replace(blank, status="undefined")
        total = math.ceil(units / part)
    fresh = replace(asked, seed=asked.seed + 1)
    courses = [
        count_course(
            fresh,
            first_rejections(
                fresh,
                rate_treatment=p,
                units=total * part,
                progress=_within(progress, 0.5 + 0.25 * number, 0.25),
            ),
        )
        for number, p in enumerate((question.rate, rate))
    ]
    note = "all of its weight starts with the first block" if name == "canary" else ""
    row = _filled(blank, question, (courses[0], courses[1]), _whole(total, question.shares), wanted)
    return replace(row, planned_units=None, note=note)


def _within(progress: Callable[[float], None], start: float, length: float) -> Progress:
    """Progress of a part of the whole."""
    return lambda share: progress(start + length * share)


def _blank(name: str, question: Question) -> DesignPlan:
    return DesignPlan(
        design=name,
        guarantee=guarantee_of(name),
        alpha=question.alpha_each,
        alternative=question.alternative,
        looks=looks_of(name, question.looks),
        status="ok",
    )


def _filled(
    blank: DesignPlan,
    question: Question,
    courses: tuple[Course, Course],
    arm_units: Sequence[int],
    difference: float,
) -> DesignPlan:
    null, effect = courses
    total = sum(arm_units)
    base = question.model.base if question.rate is None else question.rate
    per_day = question.units_per_day
    half = 2 if blank.design in ("calibrated", "always-valid") else 1
    return replace(
        blank,
        units=total,
        arm_units=tuple(arm_units),
        planned_units=max(1, round(4 * _effective(arm_units) / half)),
        power=effect.power,
        power_error=effect.power_error,
        false_positives=null.stopped[-1],
        difference=difference,
        lift=difference / base if base else None,
        mean_units_null=null.mean * total,
        mean_units=effect.mean * total,
        mean_units_error=effect.mean_error * total,
        median_units=effect.quantile(0.5) * total,
        p90_units=effect.quantile(0.9) * total,
        days=None if per_day is None else max(1, math.ceil(total / per_day - 1e-9)),
        mean_days=None if per_day is None else effect.mean * total / per_day,
    )


def _effective(arm_units: Sequence[int]) -> float:
    """Effective units of the weakest comparison."""
    weakest = min(arm_units[1:])
    return arm_units[0] * weakest / (arm_units[0] + weakest) if arm_units[0] else 0.0


def _variance(question: Question, difference: float) -> float:
    if question.rate is None:
        return float(getattr(question.model, "sd", 1.0)) ** 2
    middle = min(max(question.rate + difference / 2, 0.0), 1.0)
    return middle * (1 - middle)


def _whole(total: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Whole units by arm that sum to the total."""
    ends = [round(total * math.fsum(shares[: k + 1])) for k in range(len(shares))]
    return tuple(b - a for a, b in zip([0, *ends], ends, strict=False))
