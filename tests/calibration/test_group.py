"""Type-I error and power of group sequential tests: Lan-DeMets on statistics that ramps allow.

Every cell runs A/A streams and counts those that ever reject. The bound is exact: a test whose
error is at most alpha exceeds it with probability below 1e-6. The same streams with an effect give
the power, which has a minimum in every cell. As contrasts, what must fail does: the pooled z under
a ramp with drift, and the number of users as clock where users keep accruing outcomes.

Streams are computed in arrays. Boundaries are those of the median stream, moved to each stream's
own information; whatever comes near them is judged by the function that users call, and a sample of
the rest is too.

    pytest -rP tests/calibration/test_group.py            # a part, shows the measured numbers
    pytest -rP -m slow tests/calibration/test_group.py    # all cells, 10,000 streams each
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from abkit.moments import Block, Moments
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.group import GroupLook, GroupSequential, Statistic
from abkit.sequential.group_score import stratified_score
from tests.calibration.streams import most_rejections, note

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Kind = Literal["normal", "bernoulli .3", "bernoulli .02"]
Split = Literal["50/50", "5 %", "ramp with drift"]

ALPHA: Final = 0.05
DRIFT: Final = 3.3  # of z at the end of power runs: a fixed test would find it with power .91
NEAR: Final = 0.15
KINDS: Final[tuple[Kind, ...]] = ("normal", "bernoulli .3", "bernoulli .02")
SPLITS: Final[tuple[Split, ...]] = ("50/50", "5 %", "ramp with drift")
RAMP: Final = (0.01, 0.05, 0.25, 0.5)


@dataclass(frozen=True)
class Cell:
    """A stream: how many units of each arm arrive before each look, and the base mean then.

    Args:
        kind: of the values.
        looks: number of looks.
        split: share of treatment; the ramp has four equally long stages, which are the strata,
            while the base mean moves by as much as the split does.
    """

    kind: Kind
    looks: int
    split: Split

    @property
    def units(self) -> int:
        return {"normal": 20_000, "bernoulli .3": 40_000, "bernoulli .02": 400_000}[self.kind]

    @property
    def stage(self) -> Counts:
        quarters = np.arange(self.looks) * 4 // self.looks
        return quarters if self.split == "ramp with drift" else np.zeros(self.looks, dtype=int)

    @property
    def n(self) -> tuple[Counts, Counts]:
        """Units of (control, treatment) before each look."""
        batch = self.units // self.looks
        if self.split == "ramp with drift":
            share = np.array(RAMP)[self.stage]
        else:
            share = np.full(self.looks, 0.5 if self.split == "50/50" else 0.05)
        treatment = np.maximum(1, np.round(batch * share)).astype(int)
        return batch - treatment, treatment

    @property
    def base(self) -> Floats:
        """Mean of control before each look."""
        ranges = {"normal": (0.0, 1.0), "bernoulli .3": (0.3, 0.5), "bernoulli .02": (0.02, 0.04)}
        low, high = ranges[self.kind]
        if self.split != "ramp with drift":
            return np.full(self.looks, low)
        return np.linspace(low, high, self.looks)

    @property
    def planned(self) -> float:
        """Expected information at the end, from h and the variance of a unit in each stage."""
        control, treatment = self.n
        total = 0.0
        for index in np.unique(self.stage):
            at = self.stage == index
            weight = (control + treatment)[at] / (control + treatment)[at].sum()
            mean = float(weight @ self.base[at])
            between = float(weight @ (self.base[at] - mean) ** 2)
            variance = 1 + between if self.kind == "normal" else mean * (1 - mean)
            n_c, n_t = int(control[at].sum()), int(treatment[at].sum())
            total += n_c * n_t / (n_c + n_t) * variance
        return total


@dataclass(frozen=True)
class Stream:
    """Cumulative z and information of each run and look, shape (runs, looks)."""

    z: Floats
    information: Floats


def within(values: Floats, stage: Counts, index: int) -> Floats:
    """Cumulative sums of one stage; what it had at its end from then on."""
    return np.cumsum(np.where(stage == index, values, 0.0), axis=-1)


def proportions(cell: Cell, runs: int, effect: float, rng: np.random.Generator) -> Stream:
    """The stratified Mantel-Haenszel score, for all runs and looks."""
    n = cell.n
    rate = (cell.base, special.expit(special.logit(cell.base) + effect))
    x = [rng.binomial(m, p, (runs, cell.looks)).astype(float) for m, p in zip(n, rate, strict=True)]
    score, variance = np.zeros((2, runs, cell.looks))
    for index in np.unique(cell.stage):
        n_c, n_t = (within(m.astype(float), cell.stage, index) for m in n)
        x_c, x_t = (within(counts, cell.stage, index) for counts in x)
        total, events = np.maximum(n_c + n_t, 2.0), x_c + x_t
        score += x_t - n_t * events / total
        variance += n_t * n_c * events * (total - events) / (total**2 * (total - 1))
    enough = np.ones(score.shape, dtype=bool)
    for m, counts in zip(n, x, strict=True):
        events = np.cumsum(counts, axis=1)
        enough &= (events >= 25) & (np.cumsum(m) - events >= 25)
    variance = np.where(enough, variance, 0.0)
    z = np.divide(score, np.sqrt(variance), out=np.zeros_like(score), where=variance > 0)
    check_score(cell, x, z, variance)
    return Stream(z, variance)


def check_score(cell: Cell, x: list[Floats], z: Floats, information: Floats) -> None:
    """The arrays agree with `stratified_score` where one looks."""
    rng = np.random.default_rng(0)
    for run, look in zip(rng.integers(0, len(z), 20), rng.integers(0, cell.looks, 20), strict=True):
        blocks = []
        for index in np.unique(cell.stage[: look + 1]):
            at = np.flatnonzero(cell.stage[: look + 1] == index)
            n_c, n_t = (int(m[at].sum()) for m in cell.n)
            x_c, x_t = (int(counts[run, at].sum()) for counts in x)
            blocks.append(Block(n_c, n_t, x_c, x_t))
        found = stratified_score(blocks)
        assert found == pytest.approx((z[run, look], information[run, look]), rel=1e-9, abs=1e-9)


def means(cell: Cell, runs: int, effect: float, rng: np.random.Generator) -> Stream:
    """The stratified contrast of normal values, with the larger of the two variances."""
    shape = (runs, cell.looks)
    arms = []
    for m, mean in zip(cell.n, (cell.base, cell.base + effect), strict=True):
        average = mean + rng.standard_normal(shape) / np.sqrt(m)
        squares = m * average**2
        squares += np.where(m > 1, rng.chisquare(np.maximum(m - 1, 1), shape), 0.0)
        arms.append((m, m * average, squares))
    s, apart, pooled = np.zeros((3, *shape))
    for index in np.unique(cell.stage):
        parts = []
        for m, total, squares in arms:
            n = np.maximum(within(m.astype(float), cell.stage, index), 1e-9)
            t = within(total, cell.stage, index)
            parts.append((n, t / n, np.maximum(within(squares, cell.stage, index) - t**2 / n, 0.0)))
        (nc, mc, m2c), (nt, mt, m2t) = parts
        h = nc * nt / (nc + nt)
        s += h * (mt - mc)
        apart += h**2 * (m2t / np.maximum(nt - 1, 1) / nt + m2c / np.maximum(nc - 1, 1) / nc)
        pooled += h * (m2c + m2t) / np.maximum(nc + nt - 2, 1)
    v = np.maximum(apart, pooled)
    enough = (np.cumsum(cell.n[0]) >= 25) & (np.cumsum(cell.n[1]) >= 25)
    v = np.where(enough, v, 0.0)
    z = np.divide(s, np.sqrt(v), out=np.zeros_like(s), where=v > 0)
    if cell.split != "ramp with drift":
        check_contrast(cell, arms, z, v)
    return Stream(z, v)


def check_contrast(
    cell: Cell, arms: list[tuple[Counts, Floats, Floats]], z: Floats, v: Floats
) -> None:
    """The arrays agree with `stratified_contrast` at the last look."""
    for run in range(10):
        pair = []
        for m, total, squares in arms:
            n, t = int(m.sum()), float(total[run].sum())
            pair.append(Moments(n, t / n, float(squares[run].sum()) - t**2 / n))
        found = stratified_contrast([(pair[0], pair[1])], kind="mean")
        assert (found.z, found.v) == pytest.approx((z[run, -1], v[run, -1]), rel=1e-7)
    assert cell.looks == z.shape[1]


def stream(cell: Cell, runs: int, effect: float, seed: int) -> Stream:
    draw = means if cell.kind == "normal" else proportions
    return draw(cell, runs, effect, np.random.default_rng(seed))


def ever_rejects(found: Stream, design: GroupSequential, *, exact: bool) -> int:
    """Runs that reject at some look; `exact` asks the function about all that come near."""
    last = found.information.shape[1] - 1
    typical = np.median(found.information, axis=0)
    looks: list[GroupLook] = []
    for k, information in enumerate(typical):
        at = Statistic(0.0, float(information))
        looks.append(design.look(at, looks, final=k == last))
    tested = [look for look in looks if look.clock_status == "ok"]
    where = [math.log(look.information) for look in tested]
    heights = [min(look.limit, 20.0) for look in tested]
    with np.errstate(divide="ignore"):
        boundary = np.interp(np.log(found.information), where, heights)
    boundary[:, -1] = heights[-1]
    boundary[found.information <= 0] = math.inf
    excess = (np.abs(found.z) - boundary).max(axis=1)
    rejects = excess >= 0
    if not exact:
        return int(rejects.sum())
    far = np.flatnonzero(np.abs(excess) >= NEAR)
    sample = np.random.default_rng(1).choice(far, 10, replace=False)
    for run in np.concatenate([np.flatnonzero(np.abs(excess) < NEAR), sample]):
        verdict = judged(found, design, int(run))
        assert run not in sample or verdict == rejects[run], f"run {run} was not near"
        rejects[run] = verdict
    return int(rejects.sum())


def judged(found: Stream, design: GroupSequential, run: int) -> bool:
    """What the function says about one run."""
    looks: list[GroupLook] = []
    for k, (z, information) in enumerate(zip(found.z[run], found.information[run], strict=True)):
        final = k == found.z.shape[1] - 1
        at = Statistic(float(z), float(information))
        looks.append(design.look(at, looks, final=final))
        if looks[-1].decision == "reject":
            return True
    return False


def check_cell(cell: Cell, runs: int) -> None:
    """False positives at most alpha, and a minimum power."""
    design = GroupSequential(planned_information=cell.planned, alpha=ALPHA)
    name = f"{cell.kind}, {cell.looks} looks, {cell.split}"
    seed = sum(map(ord, name))
    false = ever_rejects(stream(cell, runs, 0.0, seed), design, exact=True)
    note(f"{name}, false positives", false / runs)
    effect = DRIFT / math.sqrt(cell.planned)  # of log odds, or of means with variance 1
    found = ever_rejects(stream(cell, 2_000, effect, seed + 1), design, exact=False)
    note(f"{name}, power", found / 2_000)
    assert false <= most_rejections(runs, ALPHA)
    assert found / 2_000 >= 0.82


QUICK: Final = (
    Cell("normal", 10, "5 %"),
    Cell("bernoulli .3", 5, "50/50"),
    Cell("bernoulli .3", 105, "ramp with drift"),
    Cell("bernoulli .02", 10, "ramp with drift"),
    Cell("bernoulli .02", 10, "5 %"),
)


@pytest.mark.parametrize("cell", QUICK, ids=lambda c: f"{c.kind}-{c.looks}-{c.split}")
def test_a_part_of_the_grid_keeps_its_level_and_finds_effects(cell: Cell) -> None:
    check_cell(cell, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("looks", [5, 10, 105])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_grid_keeps_its_level_and_finds_effects(
    kind: Kind, looks: int, split: Split
) -> None:
    check_cell(Cell(kind, looks, split), 10_000)


def test_a_pooled_z_under_a_ramp_with_drift_fails() -> None:
    """The contrast: the same streams, the same boundaries, no strata."""
    cell, runs = Cell("bernoulli .02", 10, "ramp with drift"), 500
    rng = np.random.default_rng(3)
    n_c, n_t = (np.cumsum(m) for m in cell.n)
    x_c, x_t = (np.cumsum(rng.binomial(m, cell.base, (runs, cell.looks)), axis=1) for m in cell.n)
    p = (x_c + x_t) / (n_c + n_t)
    z = (x_t / n_t - x_c / n_c) / np.sqrt(p * (1 - p) * (1 / n_c + 1 / n_t))
    clock = np.broadcast_to(n_c * n_t / (n_c + n_t), z.shape).astype(float)
    clock = np.maximum.accumulate(clock, axis=1)
    design = GroupSequential(planned_information=float(clock[0, -1]), alpha=ALPHA)
    rejected = sum(judged(Stream(z, clock), design, run) for run in range(runs))
    note("pooled z under a ramp with drift, false positives", rejected / runs)
    assert rejected / runs > 0.9


# --- users who keep accruing outcomes ---------------------------------------------------------


@dataclass(frozen=True)
class Accrual:
    """How users come and go on: `early` is the share of users before the first look.

    Args:
        early: share of users before the first look; the rest come evenly.
        looks: number of looks.
        spread: standard deviation of users' own level over that of one period's outcome.
    """

    early: float
    looks: int
    spread: float

    def streams(self, runs: int, seed: int) -> tuple[Stream, Stream]:
        """The same z with (contrast variance, number of users) as clock."""
        rng = np.random.default_rng(seed)
        users = 200  # in each arm
        rest = (1 - self.early) / (self.looks - 1)
        shares = np.cumsum([self.early, *[rest] * (self.looks - 1)])
        arrived = np.round(users * shares).astype(int)
        first = np.searchsorted(arrived, np.arange(users), side="right")
        on = np.arange(self.looks) >= first[:, None]
        sums = []
        for _ in range(2):
            level = self.spread * rng.standard_normal((runs, users, 1))
            outcomes = (rng.standard_normal((runs, users, self.looks)) + level) * on
            total = np.cumsum(outcomes, axis=2)
            mean = total.sum(axis=1) / arrived
            square = (total**2).sum(axis=1) / arrived - mean**2
            sums.append((mean, square * arrived / (arrived - 1)))
        h = arrived / 2
        v = h**2 * (sums[0][1] + sums[1][1]) / arrived
        z = h * (sums[1][0] - sums[0][0]) / np.sqrt(v)
        return Stream(z, v), Stream(z, np.broadcast_to(2.0 * arrived, v.shape).astype(float))


@pytest.mark.parametrize(
    ("accrual", "fails_by_users"),
    [
        (Accrual(0.9, 20, 0.0), True),
        (Accrual(0.5, 10, 0.0), True),
        (Accrual(0.5, 10, 0.5), False),
        (Accrual(0.1, 10, 0.0), False),
    ],
    ids=["nearly all come early", "most come early", "levels of their own", "come evenly"],
)
def test_contrast_variance_is_the_clock_of_users_who_keep_accruing(
    accrual: Accrual, *, fails_by_users: bool
) -> None:
    """Rule 3 of statistics.md: 3.5-5.2 % on contrast variance, up to 13.8 % on number of users."""
    runs = 2_000
    by_variance, by_users = accrual.streams(runs, 5)
    rates = []
    for found in (by_variance, by_users):
        planned = float(np.median(found.information[:, -1]))
        design = GroupSequential(planned_information=planned, alpha=ALPHA)
        rates.append(ever_rejects(found, design, exact=True) / runs)
    note(f"{accrual}, clock contrast variance", rates[0])
    note(f"{accrual}, clock number of users", rates[1])
    assert rates[0] * runs <= most_rejections(runs, ALPHA)
    if fails_by_users:
        assert rates[1] * runs > most_rejections(runs, ALPHA)
