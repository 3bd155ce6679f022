"""A comparison followed through its looks by a sequential design."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from abkit.analysis.blocks import by_blocks, on_the_difference, scale_notes
from abkit.analysis.compare import estimated
from abkit.analysis.designs import Plan, design_of
from abkit.analysis.timed import TimedLook
from abkit.comoments import Comoments
from abkit.errors import ConfigError, DataError
from abkit.estimate import Interval
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.design import Contrast
from abkit.sequential.fixed import FixedHorizon
from abkit.sequential.group import GroupSequential
from abkit.sequential.group_inference import stagewise
from abkit.sequential.hypergeometric import HypergeometricMixture
from abkit.stats.difference import interval_around, lift_side
from abkit.stats.within import comparable
from abkit.store.cells import Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.analysis.compare import Stratum
    from abkit.analysis.designs import Follow
    from abkit.analysis.options import Options
    from abkit.analysis.report import Result
    from abkit.estimate import Estimate, Status
    from abkit.sequential.design import Look
    from abkit.stats.ratio import Term
    from abkit.store.looks import Moment
    from abkit.store.table import UnitTable


@dataclass(frozen=True, slots=True)
class Looked:
    """A table as it came in.

    Args:
        cells: by family of columns, of the rows that each look is the first to see.
        moments: time of each look; a single None for one look at the whole table.
        share: planned units over the units in the table, > 0.
    """

    cells: Mapping[tuple[str, ...], Mapping[Key, Comoments]]
    moments: Sequence[Moment | None]
    share: float

    def follow(self, result: Result, strata: Sequence[Stratum], options: Options) -> Result:
        """The result by its design; see `followed`."""
        increments: Sequence[Sequence[Stratum]] = [strata]
        if self.moments[0] is not None:
            cells = self.cells[options.family(result.metric)]
            increments = increments_of(strata, cells, result, len(self.moments))
        seen = list(itertools.accumulate(increments, _together))
        return followed(
            result, seen, self.moments, options, share=self.share, increments=increments
        )


def looked_of(
    follow: Follow, table: UnitTable, cells: Mapping[tuple[str, ...], Mapping[Key, Comoments]]
) -> Looked:
    """A table as it came in, from its cells by look."""
    moments = (None,) if table.cuts is None else table.cuts.moments
    units = sum(table.counts.values())
    return Looked(cells, moments, (follow.planned_units or units) / units)


def merged(cells: Mapping[Key, Comoments]) -> dict[Key, Comoments]:
    """The cells of the whole table from those of its looks."""
    found: dict[Key, Comoments] = {}
    for key, cell in cells.items():
        whole = key._replace(look=0)
        found[whole] = found[whole] + cell if whole in found else cell
    return found


def increments_of(
    strata: Sequence[Stratum], cells: Mapping[Key, Comoments], result: Result, looks: int
) -> list[list[Stratum]]:
    """The strata of the rows that each look is the first to see.

    Args:
        strata: of the whole table; each look gets the same epochs.
        cells: of the metric's columns, by look.
        result: which arms are compared.
        looks: their number.
    """

    def cell(variant: str, epoch: str, look: int, like: Comoments) -> Comoments:
        none = Comoments.empty(like.names)
        return cells.get(Key(variant, epoch, look=look), none)

    return [
        [
            (epoch, cell(result.control, epoch, k, c), cell(result.variant, epoch, k, t))
            for epoch, c, t in strata
        ]
        for k in range(1, looks + 1)
    ]


def followed(
    result: Result,
    seen: Sequence[Sequence[Stratum]],
    moments: Sequence[Moment | None],
    options: Options,
    *,
    share: float,
    increments: Sequence[Sequence[Stratum]] = (),
) -> Result:
    """The result as a design sees it, look by look, instead of once at the end.

    Args:
        result: of the whole table, for one look.
        seen: strata of all rows that each look sees, the same epochs in each.
        moments: time of each look.
        options: of the analysis, with a design.
        share: planned units over the units in the table, > 0.
        increments: strata of the rows that each look is the first to see; designs that add up
            counts need them.

    Returns:
        The result with its looks. Interval, p-value, e-value, method and guarantee are the
        design's at the last look; a rejection at an earlier one stands.

    Raises:
        ConfigError: the design does not suit the metric.
        DataError: counts are asked for and the values are none.
    """
    follow = options.follow
    if follow is None:
        return result
    _check_kind(result, follow)
    contrasts = [_contrast(result, strata, options) for strata in seen]
    course = _Course(result, options, seen, contrasts)
    side = result.estimate.alternative
    plan = Plan(*course.end(), share, len(seen))
    design = design_of(follow, plan, alpha=options.alpha, alternative=side)
    options = replace(options, alpha=getattr(design, "alpha", options.alpha))
    course = replace(course, options=options)
    if isinstance(design, FixedHorizon):
        by_table = follow.design == "fixed" and follow.planned_units is None
        looks, estimate = _once(course, design, course.last if by_table else 0)
    else:
        if follow.of_blocks:
            looks = by_blocks(design, increments, course.term)
        else:
            looks = _by_contrasts(course, design)
        estimate = _summary(course, looks, design)
    timed = tuple(
        TimedLook(k + 1, moments[k], *course.units(k), look) for k, look in enumerate(looks)
    )
    return replace(
        result,
        estimate=replace(estimate, alpha=options.alpha),
        level=options.alpha,
        looks=timed,
        design=follow.label,
        notes=(*_plan_notes(follow, design), *scale_notes(result, looks[-1]), *_notes(looks[-1])),
    )


@dataclass(frozen=True, slots=True)
class _Course:
    """One comparison at all looks: what is known by each, and its contrast."""

    result: Result
    options: Options
    seen: Sequence[Sequence[Stratum]]
    contrasts: Sequence[tuple[Contrast, Status]]

    @property
    def term(self) -> Term:
        """What is compared."""
        return self.options.terms()[self.result.metric]

    @property
    def last(self) -> int:
        """Position of the last look that has units in both arms; the last one without any."""
        for k in reversed(range(len(self.seen))):
            if self.contrasts[k][0].h and min(self.units(k)):
                return k
        return len(self.seen) - 1

    def end(self) -> tuple[Contrast, float]:
        """Contrast and effective units at that look."""
        n, m = self.units(self.last)
        return self.contrasts[self.last][0], n * m / (n + m) if n + m else 0.0

    def units(self, k: int) -> tuple[int, int]:
        """Units of control and treatment seen by a look."""
        return sum(c.n for _, c, _ in self.seen[k]), sum(t.n for _, _, t in self.seen[k])


def _check_kind(result: Result, follow: Follow) -> None:
    if result.kind not in ("proportion", "mean", "ratio", "count"):
        raise ConfigError(
            f"a design follows proportions, means, ratios and counts; {result.metric!r} is a "
            f"{result.kind}"
        )
    if result.estimate.scale != "absolute":
        raise ConfigError(f"the margin of {result.metric!r} is relative; a design needs a number")
    if follow.of_blocks and _hypergeometric(follow) and result.kind != "proportion":
        raise ConfigError(
            f"design {follow.label!r} compares proportions; {result.metric!r} is a {result.kind}"
        )


def _hypergeometric(follow: Follow) -> bool:
    return follow.design == "hypergeometric" or isinstance(follow.design, HypergeometricMixture)


def _together(known: Sequence[Stratum], new: Sequence[Stratum]) -> list[Stratum]:
    return [
        (epoch, c + fresh_c, t + fresh_t)
        for (epoch, c, t), (_, fresh_c, fresh_t) in zip(known, new, strict=True)
    ]


def _contrast(
    result: Result, strata: Sequence[Stratum], options: Options
) -> tuple[Contrast, Status]:
    """The contrast by one look, and what is wrong with it."""
    met = [(c, t) for _, c, t in strata if c.n and t.n]
    none = Contrast(0.0, 0.0, 0.0, enough=False)
    term = options.terms()[result.metric]
    pairs = comparable(met, metric=term, covariates=options.covariates)
    if isinstance(pairs, str):
        return none, pairs
    plain = result.kind == "proportion" and not options.covariates
    try:
        return stratified_contrast(pairs, kind="proportion" if plain else "mean"), "ok"
    except DataError:  # squares that do not fit into a float
        return none, "undefined"


def _by_contrasts(course: _Course, design: Any) -> list[Look]:
    """The looks of a design for means: a margin is taken off before it and put back after."""
    border = course.options.margins.get(course.result.metric, 0.0)
    looks: list[Look] = []
    for contrast, status in course.contrasts:
        answer = design.look(replace(contrast, s=contrast.s - border * contrast.h), looks)
        looks.append(answer if status == "ok" else replace(answer, status=status))
    return [_moved(look, border) for look in looks] if border else looks


def _moved(look: Look, border: float) -> Look:
    interval = look.interval
    return replace(
        look,
        estimate=None if look.estimate is None else look.estimate + border,
        interval=interval and Interval(interval.lower + border, interval.upper + border),
    )


def _once(course: _Course, design: FixedHorizon, first: int) -> tuple[list[Look], Estimate]:
    """The looks of a design with one look, and what is known by the planned end.

    Args:
        course: the comparison.
        design: the design.
        first: position of the first look that may be the planned end.
    """
    looks: list[Look] = []
    result, options = course.result, course.options
    answer = replace(
        result.estimate,
        alpha=options.alpha,
        status="insufficient_data",
        statistic=None,
        p_value=None,
        interval=None,
        lift_interval=None,
    )
    blank = answer
    for k, (strata, (contrast, _)) in enumerate(zip(course.seen, course.contrasts, strict=True)):
        n, m = course.units(k)
        early = replace(blank, n_control=n, n_treatment=m, difference=contrast.difference)
        look = design.look(early, looks)
        if k >= first and not look.notes:  # the planned end, and nothing tested yet
            answer = estimated(result.metric, result.kind, strata, options, options.alpha)
            look = design.look(answer, looks)
        looks.append(look)
    return looks, answer


def _summary(course: _Course, looks: Sequence[Look], design: Any) -> Estimate:
    """The estimate of all rows, with what the design says of it."""
    look, plain = looks[-1], course.result.estimate
    contrast, _ = course.contrasts[-1]
    bounded = [x.interval for x in looks if x.interval is not None and _bounded(x.interval)]
    interval = bounded[-1] if bounded else None
    p_value = look.p_value
    if isinstance(design, GroupSequential):
        p_value = _stagewise_p(design, looks)
    found = replace(
        plain,
        method=look.method,
        guarantee=look.guarantee,
        status=look.status,
        degrees_of_freedom=None,
        standard_error=None,
        interval=interval,
        statistic=look.statistic,
        p_value=p_value,
        e_value=look.e_value,
        lift_interval=None,
        lift_standard_error=None,
    )
    if look.scale == "log":
        return replace(found, interval=on_the_difference(interval, course.result))
    if look.estimate is None or not contrast.v or interval is None:
        return found
    error = math.sqrt(contrast.v) / contrast.h
    found = replace(found, difference=look.estimate, standard_error=error)
    if plain.lift is None or plain.lift_standard_error is None or not plain.mean_control:
        return found
    ends = [abs(x - look.estimate) for x in (interval.lower, interval.upper) if math.isfinite(x)]
    width = max(ends) / error * plain.lift_standard_error
    side = lift_side(plain.mean_control, plain.alternative)
    return replace(found, lift_interval=interval_around(plain.lift, width, side))


def _bounded(interval: Interval) -> bool:
    return math.isfinite(interval.lower) or math.isfinite(interval.upper)


def _stagewise_p(design: GroupSequential, looks: Sequence[Look]) -> float | None:
    """The p-value of a test that is over; None while it goes on."""
    answer = stagewise(design, looks)  # type: ignore[arg-type]
    over = answer.stopped or (looks[-1].alpha_spent or 0.0) >= design.alpha * (1 - 1e-12)
    return answer.p_value if over else None


def _notes(look: Look) -> tuple[str, ...]:
    """What the last look says; when a test stopped is said with its moment and units."""
    return tuple(note for note in look.notes if not note.startswith("the test stopped"))


def _plan_notes(follow: Follow, design: Any) -> tuple[str, ...]:
    if not isinstance(follow.design, str):
        return ()
    found = []
    planned = isinstance(design, FixedHorizon | GroupSequential)
    if planned and follow.planned_units is None and follow.max_information is None:
        found.append("the planned end is the end of this table; planned_units names another")
    if isinstance(design, GroupSequential) and follow.max_information is None:
        found.append("the planned information is that of the planned units at the variance so far")
    return tuple(found)
