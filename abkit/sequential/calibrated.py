"""The normal mixture as a design: open-ended, or with its error spent by a stated horizon.

`AlwaysValid` may be looked at forever. `CalibratedMixture` states a maximum and lowers the same
mixture's threshold until the whole of alpha is spent there: an open end wastes almost half of it.
With the default maximum of twice the planned units, the power by then is .94 and the mean stop .88
of the planned units, at the effect that the plan finds with power .8; the open end has .89, 1.00.

**Why they are valid.** The contrast over its spread is close to a Brownian motion in the clock of
effective units (Waudby-Smith et al. 2024), stratified by allocation epoch, so ramps with drift do
no harm. `abkit.sequential.crossing` gives the probability that such a motion meets the calibrated
boundary by any time up to the maximum: what may be spent by then (Lan, DeMets 1983). Somebody who
looks all the time has that boundary; fewer looks leave error probability over, and each look uses
what has become free since the last one, exactly, by the recursion of group sequential tests. That
is why `look` needs all earlier looks, and why their times must not depend on the results. The
guarantee is for the limit of a late first look: a contrast that is not `enough` is no evidence.
Small samples and rare events belong to `hypergeometric`, `counts` and `betting`.

**Past the maximum** the first look spends what is left; later ones cannot reject.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import interpolate

from abkit.errors import DesignError
from abkit.sequential.crossing import Crossing, Sides, calibrated_crossing, mixture_crossing
from abkit.sequential.design import Contrast, Look, check_past, rejected, running_p
from abkit.sequential.group_walk import Path, survivors, upper_boundary
from abkit.sequential.normal import normal_boundary, normal_log_mixture, normal_rho
from abkit.stats.difference import check_test, interval_around
from abkit.stats.srm import capped_exp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative, Status

# Open-ended, 0.65 of the plan has the shortest mean run at the effect that the plan can detect.
# With a maximum of twice the plan, 1.8 has it nearly, with more power: the first looks matter less.
_TUNED_OPEN: Final = 0.65
_TUNED_CLOSED: Final = 1.8
_CLOSEST_LOOKS: Final = 1 / 500  # of the maximum; closer ones would cost much and win nothing
_P_NODES: Final = 24
_LARGEST_LOG_E: Final = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysValid:
    """A comparison of means that may be looked at forever.

    Args:
        planned_units: units of both arms together at the planned end of an even split, >= 1. The
            test is valid whatever it is, and most powerful near it. For a constant share q give
            4 q (1 - q) times the units; for pairs, 4 times the pairs.
        alpha: error probability over all looks together, in (0, 1).
        alternative: side of the test and of the confidence sequence.
        margin: difference on the border of the null, in the metric's unit, finite.

    Source: Robbins (1970); Howard et al. (2021), eq. 14; Waudby-Smith et al. (2024).

    Examples:
        >>> design = AlwaysValid(planned_units=20_000)
        >>> look = design.look(Contrast(s=90.0, v=420.0, h=4_500.0))
        >>> look.decision, round(look.e_value, 1), round(look.p_value, 4)
        ('reject', 1991.3, 0.0005)
    """

    planned_units: int
    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        _check(self.planned_units, self.alpha, self.alternative, self.margin)

    @property
    def rho(self) -> float:
        """Precision of the mixture, in effective units."""
        tuned = _TUNED_OPEN * self.planned_units / 4
        return normal_rho(tuned, self.alpha, alternative=self.alternative)

    def look(self, data: Contrast, past: Sequence[Look] = ()) -> Look:
        """Evidence and confidence sequence of the difference at one look.

        Args:
            data: the contrast so far.
            past: earlier looks, oldest first; the last one's p-value and rejection stand.

        Returns:
            A look in the metric's unit; information is in effective units. Without enough units:
            "insufficient_data"; without variance: "zero_variance"; both with an e-value of 1.
        """
        blank = _blank("normal_mixture", self, data, past)
        if blank.status != "ok":
            return blank
        log_e = _log_mixture(self, data)
        boundary = normal_boundary(data.h, self.alpha, rho=self.rho, alternative=self.alternative)
        stops = log_e >= -math.log(self.alpha) or rejected(past)
        return replace(
            _answered(blank, self, data, boundary),
            decision="reject" if stops else "continue",
            e_value=capped_exp(log_e),
            p_value=running_p(log_e, past),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedMixture:
    """A comparison of means at any look up to a stated maximum.

    Args:
        planned_units: as for `AlwaysValid`.
        horizon: stated maximum, as a multiple of the planned units, > 0.
        alpha: error probability over all looks up to the maximum together, in (0, 1).
        alternative: side of the test and of the confidence sequence.
        margin: difference on the border of the null, in the metric's unit, finite.

    Source: Robbins (1970) for the mixture; Lan, DeMets (1983) for spending; Buonocore et al. (1990)
    for the probability of a meeting; Armitage, McPherson, Rowe (1969) for the recursion.

    Examples:
        >>> design = CalibratedMixture(planned_units=20_000)
        >>> first = design.look(Contrast(s=20.0, v=200.0, h=2_000.0))
        >>> second = design.look(Contrast(s=60.0, v=420.0, h=4_500.0), [first])
        >>> first.decision, second.decision, round(second.boundary, 3)
        ('continue', 'reject', 2.285)

        At the effect that a fixed test of 20,000 units finds with power .8, in spreads:

        >>> power, mean_share = design.operating_characteristics(2.8016 / math.sqrt(5_000))
        >>> round(power, 3), round(mean_share, 3)
        (0.939, 0.877)
    """

    planned_units: int
    horizon: float = 2.0
    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        _check(self.planned_units, self.alpha, self.alternative, self.margin)
        if not (math.isfinite(self.horizon) and self.horizon > 0):
            raise DesignError(f"horizon must be finite and > 0, got {self.horizon}; 2 is twice N")

    @property
    def rho(self) -> float:
        """Precision of the mixture, in effective units."""
        tuned = _TUNED_CLOSED * 0.5 * self.horizon * self.planned_units / 4
        return normal_rho(tuned, self.alpha, alternative=self.alternative)

    @property
    def maximum(self) -> float:
        """Effective units at the stated maximum."""
        return self.horizon * self.planned_units / 4

    @property
    def crossing(self) -> Crossing:
        """Probabilities of meeting the boundary, in units of rho; computed once per design."""
        return calibrated_crossing(self.alpha, self.maximum / self.rho, sides=_sides(self))

    def operating_characteristics(self, effect: float) -> tuple[float, float]:
        """Power by the maximum, and mean stop, for somebody who looks all the time.

        Args:
            effect: true difference less the margin, in standard deviations of the metric; its sign
                is ignored.

        Returns:
            Power in [0, 1], and the mean of the units at the stop (the maximum without one) as a
            share of the planned units.
        """
        drift = abs(effect) * math.sqrt(self.rho)
        mean = self.crossing.mean_time(drift) * self.rho
        return self.crossing.power(drift), mean / (self.planned_units / 4)

    def boundaries(self, information: Sequence[float]) -> list[float]:
        """Boundaries of z at planned looks; they do not depend on the data.

        Args:
            information: effective units at each look, in order.

        Returns:
            For each look what z (its absolute value if two-sided) must reach; infinite for looks
            that are not tested: too soon after another, or past the maximum and its one last look.

        Examples:
            >>> design = CalibratedMixture(planned_units=20_000)
            >>> [round(b, 3) for b in design.boundaries([2_000, 4_500, 10_000, 11_000])]
            [2.502, 2.285, 2.231, inf]
        """
        found: list[float] = []
        path: Path = ()
        spent = 0.0
        for h in information:
            boundary, spent = self._next(path, spent, h)
            found.append(boundary)
            path = self._extended(path, h, boundary)
        return found

    def look(self, data: Contrast, past: Sequence[Look] = ()) -> Look:
        """Evidence and confidence sequence of the difference at one look.

        Args:
            data: the contrast so far.
            past: all earlier looks, oldest first: the boundary depends on when they were.

        Returns:
            A look in the metric's unit. `boundary` is that of the z value. `p_value` is the
            probability that a null stream, looked at all the time, comes as far by the maximum, or
            alpha where that is larger and the boundary was reached; the e-value is that of the
            mixture, which needs no maximum. Without enough units: "insufficient_data"; without
            variance: "zero_variance"; both with an e-value of 1. A look that is not tested keeps
            the last interval and p-value.
        """
        blank = _blank("calibrated_normal_mixture", self, data, past)
        most = f"{4 * self.maximum:,.0f} units of an even split"
        note = f"anytime-valid up to the stated maximum: {most}, or as much information"
        blank = replace(blank, notes=(note, *blank.notes))
        before = past[-1].alpha_spent if past else None
        spent = 0.0 if before is None else before
        if blank.status != "ok":
            return replace(blank, alpha_spent=spent)
        path: Path = ()
        for look in past:
            if look.boundary is not None:
                path = self._extended(path, look.information, abs(look.boundary))
        boundary, spent = self._next(path, spent, data.h)
        z, sign = _z(self, data), -1 if self.alternative == "less" else 1
        reached = (abs(z) if self.alternative == "two-sided" else sign * z) >= boundary
        log_e = _log_mixture(self, data)
        counts = math.isfinite(boundary) and data.h <= self.maximum
        p_value = min(_last_p(past), self._p_value(log_e) if counts else 1.0)
        answer = replace(
            blank,
            decision="reject" if reached or rejected(past) else "continue",
            statistic=z,
            boundary=sign * boundary,
            e_value=capped_exp(log_e),
            p_value=min(p_value, self.alpha) if reached else p_value,
            alpha_spent=spent,
        )
        if math.isfinite(boundary):
            return _answered(answer, self, data, boundary * math.sqrt(data.h))
        late = data.h > self.maximum
        why = "past the stated maximum and its one last look" if late else "too soon after another"
        return replace(
            answer,
            interval=past[-1].interval if past else None,
            notes=(*answer.notes, f"not tested: {why}"),
        )

    def _next(self, path: Path, spent: float, h: float) -> tuple[float, float]:
        """Boundary of z at the next look, and alpha spent with it."""
        last = path[-1][0] if path else 0.0
        final = h >= self.maximum
        wanted = self.alpha if final else self.crossing.probability_by(h / self.rho)
        too_soon = h - last < self.maximum * (1e-9 if final else _CLOSEST_LOOKS)
        if last >= self.maximum or too_soon or wanted <= spent:
            return math.inf, spent
        free = (wanted - spent) / _sides(self)
        return upper_boundary(survivors(path, h), h, free), wanted

    def _extended(self, path: Path, h: float, boundary: float) -> Path:
        if not math.isfinite(boundary):
            return path
        lower = -boundary if self.alternative == "two-sided" else -math.inf
        return (*path, (h, lower, boundary))

    def _p_value(self, log_e: float) -> float:
        if log_e <= 0:
            return 1.0
        return math.exp(float(_p_table(self)(min(log_e, _LARGEST_LOG_E))))


_MeanDesign = AlwaysValid | CalibratedMixture


def _check(planned_units: int, alpha: float, alternative: str, margin: float) -> None:
    check_test(alpha, alternative)
    if planned_units < 1:
        raise DesignError(f"planned_units must be >= 1, got {planned_units}")
    if not math.isfinite(margin):
        raise DesignError(f"margin must be finite, got {margin}")


def _sides(design: _MeanDesign) -> Sides:
    return 2 if design.alternative == "two-sided" else 1


def _last_p(past: Sequence[Look]) -> float:
    before = past[-1].p_value if past else None
    return 1.0 if before is None else before


def _z(design: _MeanDesign, data: Contrast) -> float:
    return (data.s - design.margin * data.h) / math.sqrt(data.v)


def _log_mixture(design: _MeanDesign, data: Contrast) -> float:
    s = (data.s - design.margin * data.h) / data.spread
    return normal_log_mixture(s, data.h, rho=design.rho, alternative=design.alternative)


def _blank(method: str, design: _MeanDesign, data: Contrast, past: Sequence[Look]) -> Look:
    """The answer before there is enough to go by."""
    check_past(past, design, method=method)
    status: Status = "ok" if data.enough and data.spread else "insufficient_data"
    if data.enough and not data.spread:
        status = "zero_variance"
    notes: tuple[str, ...] = ()
    if past and data.h < past[-1].information:
        notes = (f"information went back from {past[-1].information:g} to {data.h:g}",)
    return Look(
        method=method,
        guarantee="anytime-asymptotic",
        alpha=design.alpha,
        alternative=design.alternative,
        status=status,
        decision="reject" if rejected(past) else "continue",
        information=data.h,
        fraction=data.h / (design.planned_units / 4),
        estimate=data.difference,
        e_value=1.0,
        p_value=_last_p(past),
        notes=notes,
    )


def _answered(blank: Look, design: _MeanDesign, data: Contrast, boundary: float) -> Look:
    """The answer with the interval of a boundary for the standardised sum."""
    half_width = boundary * data.spread / data.h
    return replace(
        blank,
        interval=interval_around(data.s / data.h, half_width, design.alternative),
        statistic=_z(design, data),
        boundary=(-1 if design.alternative == "less" else 1) * boundary / math.sqrt(data.h),
    )


@functools.lru_cache(maxsize=64)
def _p_table(design: CalibratedMixture) -> interpolate.PchipInterpolator:
    """Log of the probability that the log mixture ever comes so far, by the log mixture."""
    crossing = design.crossing
    nodes = {crossing.log_threshold: math.log(design.alpha), 0.0: 0.0}
    for log_e in np.geomspace(0.02, _LARGEST_LOG_E, _P_NODES).tolist():
        met = mixture_crossing(log_e, design.maximum / design.rho, sides=crossing.sides)
        nodes[log_e] = min(0.0, math.log(max(met.probability, 1e-300)))
    at = np.array(sorted(nodes))
    return interpolate.PchipInterpolator(at, np.array([nodes[x] for x in at.tolist()]))
