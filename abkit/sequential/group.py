"""Group sequential tests that meet data look by look.

A `GroupSequential` design is fixed before the first look. `look` is a pure function of the design,
the data and the past looks, so replaying a series gives the same answers. Looks may come at any
information and in any number; alpha that past looks have spent is never given back.

**What the guarantee rests on.** The statistic times the root of the information must be a sum with
independent increments whose variance is the information: a Mantel-Haenszel score with its
hypergeometric variance (`abkit.sequential.group_score`), or a contrast of means with its own
variance (`abkit.sequential.contrast`). The number of users is not such a clock while users keep
accruing outcomes. And the times of the looks, and the end, must not depend on the statistic.

**What real data do**, and what happens then. No look ever raises for its data.

- Information that stalls or goes backwards: the look is not tested and spends nothing.
- Information past its plan: all of alpha is spent there; later looks are not tested.
- An end before the plan (`final=True`): what is left of alpha is spent there. Should information
  not have grown since the last tested look, what is left is spent as if on a test of its own,
  which is valid whatever the two statistics have in common.
- A statistic or an information that is no number, or no information at all: not tested.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from scipy import special

from abkit.errors import DesignError
from abkit.estimate import Interval, Scale
from abkit.sequential.design import check_past
from abkit.sequential.group_look import (
    CLOCKS,
    Clock,
    ClockStatus,
    Futility,
    GroupLook,
    Statistic,
)
from abkit.sequential.group_plan import CLOSEST, GroupPlan, check_one_sided, spending_plan
from abkit.sequential.group_walk import (
    Path,
    below,
    lower_boundary,
    survivors,
    tilted,
    upper_boundary,
)
from abkit.sequential.spending import OBRIEN_FLEMING, Spending
from abkit.stats.difference import check_test, interval_around, tail_alpha

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from abkit.estimate import Alternative, Status
    from abkit.sequential.design import Contrast, Look, Verdict

__all__ = ["Futility", "GroupLook", "GroupSequential", "Statistic"]

_EVERYTHING: Final = Interval(-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Efficacy boundary of a look, and what is spent of each tail by then."""

    clock_status: ClockStatus
    boundary: float
    tail_spent: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSequential:
    """A group sequential test with alpha spending, fixed before the first look.

    Args:
        planned_information: information at the planned end, > 0, in the unit of the clock.
        alpha: error probability over all looks together, in (0, 1).
        alternative: side of the test.
        spending: spending function, applied to each tail; O'Brien-Fleming type by default.
        futility: when to give up; one-sided tests only. None never does.
        clock: what the information is. Of a `Contrast`, "contrast_variance" takes the variance v
            of the sum; "inverse_variance" 1 / standard error squared, the same share of its plan
            while the variance of a unit does not change; "effective_units" h, which needs no
            variance to be planned and is valid only where each unit brings its value once.
            "information" is what a `Statistic` brings, such as the variance of a score.
        scale: scale of the estimate, for the record.

    Source: Lan, DeMets (1983); Jennison, Turnbull (2000), chapters 7, 9 and 19.

    Examples:
        >>> design = GroupSequential(planned_information=400.0)
        >>> first = design.look(Statistic(1.1, 100.0))
        >>> second = design.look(Statistic(3.2, 210.0), (first,))
        >>> first.decision, second.decision, round(second.boundary, 3)
        ('continue', 'reject', 2.882)

        Information fractions .3, .6, 1, one-sided .025 (ldbounds: 3.9286, 2.6700, 1.9810):

        >>> design = GroupSequential(planned_information=1.0, alpha=0.025, alternative="greater")
        >>> [round(look.boundary, 4) for look in design.replay([(0, 0.3), (0, 0.6), (0, 1)])]
        [3.9286, 2.67, 1.981]
    """

    planned_information: float
    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    spending: Spending = OBRIEN_FLEMING
    futility: Futility | None = None
    clock: Clock = "information"
    scale: Scale = "absolute"

    def __post_init__(self) -> None:
        """Reject what is no design."""
        check_test(self.alpha, self.alternative)
        if not (math.isfinite(self.planned_information) and self.planned_information > 0):
            raise DesignError(
                f"planned_information must be finite and > 0, got {self.planned_information}"
            )
        if self.clock not in CLOCKS:
            raise DesignError(f"clock must be one of {CLOCKS}, got {self.clock!r}")
        self.spending.spent(0.5, tail_alpha(self.alpha, self.alternative))  # the pair must fit
        if self.futility is not None:
            check_one_sided(self.alternative)

    @classmethod
    def for_units(cls, planned_units: int, *, share: float = 0.5, **settings: Any) -> Self:
        """A design planned in units of both arms, each of which brings its value once.

        Args:
            planned_units: units of both arms at the planned end, >= 1.
            share: planned share of treatment, in (0, 1).
            settings: alpha, alternative, spending, futility and scale, as for the class.

        Raises:
            DesignError: an argument is unusable.

        Examples:
            >>> GroupSequential.for_units(10_000).planned_information
            2500.0
        """
        if planned_units < 1 or not 0 < share < 1:
            raise DesignError(
                f"planned_units must be >= 1 and share in (0, 1), got {planned_units} and {share}"
            )
        information = planned_units * share * (1 - share)
        return cls(planned_information=information, clock="effective_units", **settings)

    def plan(self, fractions: Sequence[float]) -> GroupPlan:
        """Efficacy boundaries at planned looks: see `abkit.sequential.group_plan`."""
        return spending_plan(
            fractions, spending=self.spending, alpha=self.alpha, alternative=self.alternative
        )

    def look(
        self,
        data: Statistic | Contrast,
        past: Sequence[Look] = (),
        *,
        final: bool = False,
    ) -> GroupLook:
        """Judge a look, given the looks before it.

        Args:
            data: the statistic and its clock. A `Contrast` with too few units, or without
                variance, is not tested.
            past: all earlier looks, in order, as this method returned them.
            final: True at the last look, whatever its information: what is left of alpha is
                spent. Whether a look is the last must not depend on the statistic.

        Returns:
            The look. Its `boundary` and `alpha_spent` do not depend on the statistic. After a stop
            the decision stays.

        Raises:
            DesignError: past holds looks of another kind of design.

        Source: Lan, DeMets (1983); Jennison, Turnbull (2000), sections 7.2 (spending), 7.3
        (futility), 9.2 (repeated confidence intervals) and 19.2 (recursion).

        Examples:
            >>> design = GroupSequential(planned_information=100.0)
            >>> first = design.look(Statistic(0.4, 60.0))
            >>> again = design.look(Statistic(0.5, 55.0), (first,))
            >>> again.clock_status, again.decision, again.notes
            ('stalled', 'continue', ('information went backwards: 55 after 60; not tested',))
        """
        looks = _group_looks(past)
        check_past(past, self, method="group_sequential")
        before = looks[-1] if looks else None
        tested = [look for look in looks if look.clock_status == "ok"]
        statistic, status = self._read(data)
        bounds = self._efficacy(statistic, tested, before, final=final)
        beta_spent = before.beta_spent if before else 0.0
        floor: float | None = None
        if self.futility is not None and bounds.clock_status == "ok":
            floor, beta_spent = self._floor(
                self.futility, statistic.information, tested, bounds, beta_spent
            )
        decision, stopped_at = self._decide(statistic.z, bounds, floor, looks)
        known = bounds.clock_status not in {"undefined", "no_information"}
        information = statistic.information if known else 0.0
        error = _error(statistic) if known else None
        if bounds.clock_status == "undefined":
            status = "undefined"
        return GroupLook(
            method="group_sequential",
            guarantee="asymptotic",
            alpha=self.alpha,
            alternative=self.alternative,
            scale=self.scale,
            status=status,
            decision=decision,
            information=information,
            fraction=information / self.planned_information,
            estimate=statistic.z * error if error else None,
            interval=_interval(statistic.z, error, bounds, self.alternative) if error else None,
            statistic=statistic.z if known else None,
            boundary=bounds.boundary,
            alpha_spent=self.alpha * (bounds.tail_spent / tail_alpha(self.alpha, self.alternative)),
            notes=bounds.notes + _remarks(before, decision),
            clock=self.clock,
            clock_status=bounds.clock_status,
            number=len(looks) + 1,
            futility_boundary=floor,
            beta_spent=beta_spent,
            stopped_at=stopped_at,
            standard_error=error,
        )

    def replay(self, observations: Iterable[tuple[float, float]]) -> tuple[GroupLook, ...]:
        """Judge a series of (z, information); the last is a look like the others.

        Args:
            observations: statistic and information at each look, in order.

        Returns:
            The looks; empty for none.
        """
        looks: list[GroupLook] = []
        for z, information in observations:
            looks.append(self.look(Statistic(z, information), looks))
        return tuple(looks)

    def path(self, tested: Sequence[GroupLook], *, futility: bool) -> Path:
        """Between which z values runs went on at tested looks, in the alternative's direction.

        Args:
            tested: looks with clock status "ok".
            futility: whether stops for futility count.
        """
        if self.alternative == "two-sided":
            return tuple((k.information, -k.limit, k.limit) for k in tested)
        lows = [k.futility_boundary if futility else None for k in tested]
        return tuple(
            (k.information, -math.inf if low is None else low, k.limit)
            for k, low in zip(tested, lows, strict=True)
        )

    @property
    def binding(self) -> bool:
        """Whether stops for futility are a promise that the boundaries rely on."""
        return self.futility is not None and self.futility.binding

    def _read(self, data: Statistic | Contrast) -> tuple[Statistic, Status]:
        if isinstance(data, Statistic):
            plain = Statistic(float(data.z), float(data.information), data.standard_error)
            return plain, "ok" if plain.information > 0 else "insufficient_data"
        if not (data.enough and data.h):
            return Statistic(0.0, 0.0), "insufficient_data"
        if data.v == 0:
            return Statistic(0.0, 0.0), "zero_variance"
        if self.clock == "inverse_variance":
            information = data.h * (data.h / data.v)
        else:
            information = data.h if self.clock == "effective_units" else data.v
        return Statistic(data.z, information, math.sqrt(data.v) / data.h), "ok"

    def _efficacy(
        self,
        statistic: Statistic,
        tested: Sequence[GroupLook],
        before: GroupLook | None,
        *,
        final: bool,
    ) -> _Bounds:
        """The efficacy boundary, and what is spent of each tail."""
        z, information = statistic.z, statistic.information
        tail = tail_alpha(self.alpha, self.alternative)
        spent = tail * ((before.alpha_spent or 0.0) / self.alpha) if before else 0.0
        if not (math.isfinite(z) and math.isfinite(information)):
            note = f"no number: z={z}, information={information}; not tested"
            return _Bounds("undefined", math.inf, spent, (note,))
        if information <= 0:
            note = "nothing to go by yet; not tested"
            return _Bounds("no_information", math.inf, spent, (note,))
        if spent >= tail * (1 - 1e-12):
            note = "all of alpha was spent at an earlier look; not tested"
            return _Bounds("exhausted", math.inf, spent, (note,))
        reached = tested[-1].information if tested else 0.0
        moved = information > reached * (1 + CLOSEST)
        if not moved and not final:
            how = "stands still" if information >= reached else "went backwards"
            note = f"information {how}: {information:g} after {reached:g}; not tested"
            return _Bounds("stalled", math.inf, spent, (note,))
        fraction = information / self.planned_information
        allowed = tail if final else max(spent, self.spending.spent(fraction, tail))
        notes = self._end_notes(fraction, information, final=final)
        if not moved:
            note = f"information did not grow after {reached:g}: the rest of alpha is a test apart"
            return _Bounds("ok", -float(special.ndtri(tail - spent)), tail, (*notes, note))
        walk = survivors(self.path(tested, futility=self.binding), information)
        return _Bounds("ok", upper_boundary(walk, information, allowed - spent), allowed, notes)

    def _end_notes(self, fraction: float, information: float, *, final: bool) -> tuple[str, ...]:
        if fraction > 1 + 1e-9:
            plan = self.planned_information
            return (f"information is past its plan: {information:g} of {plan:g}; all alpha spent",)
        if final and fraction < 1:
            return (f"the end came at {fraction:.1%} of the planned information",)
        return ()

    def _floor(
        self,
        futility: Futility,
        information: float,
        tested: Sequence[GroupLook],
        bounds: _Bounds,
        spent: float,
    ) -> tuple[float, float]:
        """The futility boundary and the beta spent by it; at the end it meets the other one."""
        if tested and information <= tested[-1].information:  # a final test apart
            return bounds.boundary, spent
        walk = survivors(self.path(tested, futility=True), information)
        floor = bounds.boundary
        if bounds.tail_spent < tail_alpha(self.alpha, self.alternative):
            fraction = information / self.planned_information
            allowed = futility.spending.spent(fraction, futility.beta) - spent
            floor = min(floor, lower_boundary(walk, information, allowed, futility.effect))
        masses = tilted(walk, futility.effect)
        return floor, spent + below(walk, masses, information, floor, futility.effect)

    def _decide(
        self, z: float, bounds: _Bounds, floor: float | None, past: Sequence[GroupLook]
    ) -> tuple[Verdict, int | None]:
        before = past[-1] if past else None
        stays = before is not None and (
            before.decision == "reject" or (before.decision == "futility" and self.binding)
        )
        if before is not None and (stays or bounds.clock_status != "ok"):
            return before.decision, before.stopped_at
        if bounds.clock_status != "ok":
            return "continue", None
        towards = {"two-sided": abs(z), "greater": z, "less": -z}[self.alternative]
        if towards >= bounds.boundary:
            return "reject", len(past) + 1
        if floor is not None and towards < floor:
            again = before is not None and before.decision == "futility"
            return "futility", before.stopped_at if before and again else len(past) + 1
        return "continue", None


def _group_looks(past: Sequence[Look]) -> list[GroupLook]:
    looks = [look for look in past if isinstance(look, GroupLook)]
    if len(looks) != len(past):
        raise DesignError("past must hold the looks of this design, in order, and no others")
    return looks


def _error(statistic: Statistic) -> float | None:
    """The standard error of the estimate; None where it, or the estimate, is no number."""
    given = statistic.standard_error
    error = 1 / math.sqrt(statistic.information) if given is None else float(given)
    usable = math.isfinite(error) and error > 0 and math.isfinite(statistic.z * error)
    return error if usable else None


def _interval(z: float, error: float, bounds: _Bounds, alternative: Alternative) -> Interval:
    width = bounds.boundary * error
    return interval_around(z * error, width, alternative) if math.isfinite(width) else _EVERYTHING


def _remarks(before: GroupLook | None, decision: Verdict) -> tuple[str, ...]:
    if before is None or before.stopped_at is None:
        return ()
    if before.decision == decision:
        return (f"the test stopped at look {before.stopped_at}",)
    return (f"futility at look {before.stopped_at} was overruled: it does not bind",)
