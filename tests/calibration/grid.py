"""The calibration grid: every design on every cell that it fits.

Cells: {Bernoulli .3, .02, .001; Poisson .1; normal; log-normal of sigma 1.5; ratio} x {10, 105, 200
looks} x {50 %, 5 %, 1 % in treatment} x {constant, ramp with drift}. Designs: Lan-DeMets on the
score or on the contrast's variance, and on effective units; the mixture calibrated to the end of
the stream; the open-ended mixture; the hypergeometric and the count mixture; the canary test.

What is counted are the answers of the functions that users call. Boundaries that do not depend on
the values are asked for once and compared in arrays; log e-values are computed in arrays and
compared with the designs' own. Where the boundary depends on each run's own information, all runs
that could reject are put to the design: no boundary lies below that of a single test with all the
error probability spent so far, so the others cannot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from scipy import special

from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.canary import CanaryDesign
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.design import Contrast, Look
from abkit.sequential.group import GroupLook, GroupSequential, Statistic
from abkit.sequential.group_score import stratified_score
from abkit.sequential.normal import normal_log_mixture
from tests.calibration.evidence import canary_paths, check_against_the_fold, tilted_paths
from tests.calibration.streams import (
    Cell,
    Flags,
    Floats,
    Paths,
    Stream,
    contrast_paths,
    draw,
    most_rejections,
    score_paths,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from abkit.estimate import Alternative

ALPHA: Final = 0.05
CANARY_ALPHA: Final = 0.01
CHUNK: Final = 2_000
ERRORS: Final = 4.0  # of the alternative at the last look: a z test there has power .98
CANARY_ERRORS: Final = 6.0  # at alpha .01, with restarts
CANARY_RISK: Final = 1.3  # at least: a canary looks for relative risks from 1.15 on
SIDES: Final[tuple[Alternative, ...]] = ("two-sided", "greater", "less")
# Most runs without, and with an effect that are put to a design one by one, by looks.
JUDGED: Final = {10: (10_000, 200), 105: (1_000, 40), 200: (300, 60)}

# Least share of runs that must reject at the alternative.
LEAST: Final = {
    "group sequential, own information": 0.8,
    "group sequential, effective units": 0.85,
    "calibrated mixture": 0.8,
    "always-valid mixture": 0.65,
    "hypergeometric mixture": 0.65,
    "count mixture": 0.65,
    "canary": 0.95,
}


@dataclass(frozen=True)
class Rate:
    """How often one design rejected in one cell.

    Args:
        design: name of the design.
        side: of the test.
        alpha: what was promised.
        runs: without an effect.
        false: runs of those that ever rejected.
        tried: runs with the alternative's effect; 0 on sides that are measured for errors only.
        found: runs of those that ever rejected.
    """

    design: str
    side: Alternative
    alpha: float
    runs: int = 0
    false: int = 0
    tried: int = 0
    found: int = 0

    @property
    def bound(self) -> int:
        """Rejections that a valid test exceeds with probability below 1e-6."""
        return most_rejections(self.runs, self.alpha)

    @property
    def least(self) -> float:
        """Power that the cell must have."""
        return LEAST[self.design]

    @property
    def holds(self) -> bool:
        """Whether the cell keeps its level and has its power."""
        enough = not self.tried or self.found >= self.least * self.tried
        return self.false <= self.bound and enough


def measure(cell: Cell, runs: int, seed: int) -> list[Rate]:
    """Rates of all designs that fit the cell, from as many runs without an effect."""
    found: dict[tuple[str, Alternative], Rate] = {}
    asked = Boundaries(cell)
    for index, start in enumerate(range(0, runs, CHUNK)):
        size = min(CHUNK, runs - start)
        rng = np.random.default_rng([seed, index])
        null = draw(cell, rng, size)
        left = max(0, JUDGED[cell.looks][0] - start)
        for name, side, alpha, flags in decided(null, asked, min(size, left), check=index == 0):
            rate = found.get((name, side), Rate(name, side, alpha))
            found[name, side] = replace(
                rate, runs=rate.runs + len(flags), false=rate.false + int(flags.sum())
            )
    rng = np.random.default_rng([seed, 1_000])
    size = min(CHUNK, max(200, runs // 2))
    moved = draw(cell, rng, size, cell.effect(ERRORS))
    for name, side, _, flags in decided(moved, asked, JUDGED[cell.looks][1], powered=True):
        rate = found[name, side]
        found[name, side] = replace(rate, tried=len(flags), found=int(flags.sum()))
    return list(found.values())


Decided = tuple[str, "Alternative", float, Flags]


def decided(
    stream: Stream, asked: Boundaries, judged: int, *, check: bool = False, powered: bool = False
) -> Iterable[Decided]:
    """Which runs each design ever rejects, by design and side."""
    cell = stream.cell
    sides = ("two-sided", "greater") if powered else SIDES
    paths = contrast_paths(stream)
    if check:
        check_contrast(stream, paths)
        check_replays(stream, paths, asked)
    for side in sides:
        if not cell.counts:
            yield "group sequential, effective units", side, ALPHA, asked.units(paths, side)
        yield "calibrated mixture", side, ALPHA, asked.calibrated(paths, side)
        yield "always-valid mixture", side, ALPHA, always_valid(cell, paths, side)
    if judged:
        for side in ("two-sided",) if cell.looks > 10 else sides:
            flags = own_information(stream, paths, side, judged)
            yield "group sequential, own information", side, ALPHA, flags
    if cell.counts or cell.metric.startswith("poisson"):
        name = "hypergeometric mixture" if cell.counts else "count mixture"
        log_e = tilted_paths(cell.n, stream.events, poisson=not cell.counts)
        for side, path in log_e.items():
            yield name, side, ALPHA, (path >= -math.log(ALPHA)).any(axis=1)
    if cell.counts:
        if powered:
            rng = np.random.default_rng([len(paths.s), cell.looks])
            stream = at_risk(cell, rng, len(paths.s))
        yield "canary", "greater", CANARY_ALPHA, canary(stream, check=check)


# --- boundaries that do not depend on the values -------------------------------------------------


class Boundaries:
    """What z must reach at each look, asked once for each look from which on there is enough."""

    def __init__(self, cell: Cell) -> None:
        self.h = cell.clock
        self._known: dict[tuple[bool, bool, int], Floats] = {}

    def group(self, side: Alternative) -> GroupSequential:
        """Lan-DeMets on effective units, planned to the end of the stream."""
        return GroupSequential(
            planned_information=float(self.h[-1]), clock="effective_units", alternative=side
        )

    def mixture(self, side: Alternative) -> CalibratedMixture:
        """The mixture calibrated to the end of the stream."""
        return CalibratedMixture(planned_units=math.ceil(2 * self.h[-1]), alternative=side)

    def units(self, paths: Paths, side: Alternative) -> Flags:
        """Runs that Lan-DeMets on effective units ever rejects."""
        return self._ever(paths, side, units=True)

    def calibrated(self, paths: Paths, side: Alternative) -> Flags:
        """Runs that the calibrated mixture ever rejects."""
        return self._ever(paths, side, units=False)

    def _ever(self, paths: Paths, side: Alternative, *, units: bool) -> Flags:
        z = towards(paths.z, side)
        first = np.where(paths.enough.any(axis=1), paths.enough.argmax(axis=1), len(self.h))
        rejects = np.zeros(len(z), dtype=np.bool_)
        for start in np.unique(first).tolist():
            at = first == start
            rejects[at] = (z[at] >= self._from(start, side, units=units)).any(axis=1)
        return rejects

    def _from(self, start: int, side: Alternative, *, units: bool) -> Floats:
        """Boundaries of looks from this one on; the two sides' are the same in their direction."""
        one = side != "two-sided"
        if (units, one, start) not in self._known:
            h = self.h[start:].tolist()
            if units:
                looks = self.group("greater" if one else side).replay([(0.0, t) for t in h])
                heights = [look.limit for look in looks]
            else:
                heights = self.mixture("greater" if one else side).boundaries(h)
            self._known[units, one, start] = np.concatenate([np.full(start, np.inf), heights])
        return self._known[units, one, start]


def towards(z: Floats, side: Alternative) -> Floats:
    """Turn z into the direction of the alternative."""
    return {"two-sided": np.abs(z), "greater": z, "less": -z}[side]


def open_ended(cell: Cell, side: Alternative) -> AlwaysValid:
    """The open-ended mixture, whose plan is half of the stream."""
    return AlwaysValid(planned_units=math.ceil(2 * cell.clock[-1]), alternative=side)


def always_valid(cell: Cell, paths: Paths, side: Alternative) -> Flags:
    """Runs that the open-ended mixture ever rejects."""
    s = paths.z * np.sqrt(paths.h)
    rho = open_ended(cell, side).rho
    log_e = normal_log_mixture(s, paths.h, rho=rho, alternative=side)
    usable = paths.enough & (paths.v > 0)
    return (np.where(usable, log_e, 0.0) >= -math.log(ALPHA)).any(axis=1)


# --- boundaries that depend on each run's information ---------------------------------------------


def own_information(stream: Stream, paths: Paths, side: Alternative, judged: int) -> Flags:
    """Runs that Lan-DeMets on the score, or on the contrast's variance, ever rejects."""
    cell = stream.cell
    if cell.counts:
        z, information = score_paths(stream)
        planned = cell.planned
    else:
        z, information = paths.z, np.where(paths.enough, paths.v, 0.0)
        planned = cell.planned
    z, information = z[:judged], information[:judged]
    design = GroupSequential(
        planned_information=planned,
        clock="information" if cell.counts else "contrast_variance",
        alternative=side,
    )
    tail = ALPHA / 2 if side == "two-sided" else ALPHA
    fraction = np.maximum.accumulate(information, axis=1) / planned
    fraction[:, -1] = 1.0
    with np.errstate(divide="ignore"):
        spent = 2 * special.ndtr(special.ndtri(tail / 2) / np.sqrt(np.minimum(fraction, 1.0)))
        floor = -special.ndtri(np.minimum(spent, tail))
    could = towards(z, side) >= floor - 1e-9
    rejects = np.zeros(len(z), dtype=np.bool_)
    for run in np.flatnonzero(could.any(axis=1)).tolist():
        last = int(np.flatnonzero(could[run])[-1])
        looks: list[GroupLook] = []
        for k in range(last + 1):
            data: Statistic | Contrast
            if cell.counts:
                data = Statistic(float(z[run, k]), float(information[run, k]))
            else:
                data = Contrast(
                    float(paths.s[run, k]),
                    float(paths.v[run, k]),
                    float(paths.h[k]),
                    enough=bool(paths.enough[run, k]),
                )
            looks.append(design.look(data, looks, final=k == cell.looks - 1))
            if looks[-1].decision == "reject":
                rejects[run] = True
                break
    return rejects


# --- the canary ----------------------------------------------------------------------------------


def at_risk(cell: Cell, rng: np.random.Generator, runs: int) -> Stream:
    """Runs whose rate in treatment is the canary's alternative: a relative risk, as it mixes."""
    risk = max(CANARY_RISK, math.exp(cell.effect(CANARY_ERRORS)))
    rates = (cell.level, np.minimum(risk * cell.level, 0.99))
    events = [rng.binomial(n, p, (runs, cell.looks)) for n, p in zip(cell.n, rates, strict=True)]
    control, treatment = (np.stack([x, x]).astype(np.float64) for x in events)
    return Stream(cell, (control, treatment))


def canary(stream: Stream, *, check: bool) -> Flags:
    """Runs that the canary test ever halts, in a rollout of 24 hours."""
    hours = np.arange(stream.cell.looks) * 24 // stream.cell.looks
    design = CanaryDesign()
    log_e = canary_paths(stream.cell.n, stream.events, hours, design)
    if check:
        check_against_the_fold(stream.cell.n, stream.events, hours, design, log_e, runs=2)
    return (log_e >= -math.log(CANARY_ALPHA)).any(axis=1)


# --- the arrays say what the functions say --------------------------------------------------------


def check_contrast(stream: Stream, paths: Paths) -> None:
    """S, V, H and the score are those of the functions where one looks."""
    rng = np.random.default_rng(0)
    runs, looks = paths.s.shape
    score = score_paths(stream) if stream.cell.counts else None
    kind = "proportion" if stream.cell.counts else "mean"
    for run, k in zip(rng.integers(0, runs, 12), rng.integers(0, looks, 12), strict=True):
        found = stratified_contrast(stream.strata(run, k), kind=kind)  # type: ignore[arg-type]
        assert found.enough == paths.enough[run, k]
        size = max(1.0, math.sqrt(found.v))
        assert found.s == pytest.approx(paths.s[run, k], rel=1e-6, abs=1e-6 * size)
        assert (found.v, found.h) == pytest.approx((paths.v[run, k], paths.h[k]), rel=1e-6)
        if score:
            at = score[0][run, k], score[1][run, k]
            assert stratified_score(stream.blocks(run, k)) == pytest.approx(at, rel=1e-9, abs=1e-9)


def check_replays(stream: Stream, paths: Paths, asked: Boundaries) -> None:
    """Designs that meet a run look by look decide as the arrays do: one that rejects, one not."""
    cell = stream.cell
    for side in ("two-sided", "less"):
        ways: list[tuple[AlwaysValid | CalibratedMixture | GroupSequential, Flags]] = [
            (asked.mixture(side), asked.calibrated(paths, side)),
            (open_ended(cell, side), always_valid(cell, paths, side)),
        ]
        if not cell.counts:
            ways.append((asked.group(side), asked.units(paths, side)))
        for design, rejects in ways:
            for run in {int(rejects.argmax()), int(rejects.argmin())}:
                past: list[Look] = []
                for k in range(cell.looks):
                    data = Contrast(
                        float(paths.s[run, k]),
                        float(paths.v[run, k]),
                        float(paths.h[k]),
                        enough=bool(paths.enough[run, k]),
                    )
                    past.append(design.look(data, past))
                    if past[-1].decision == "reject":
                        break
                assert (past[-1].decision == "reject") == rejects[run], (cell, design, run)
