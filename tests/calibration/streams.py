"""Streams of two arms for the calibration grid, and their contrasts, for all runs at once.

A cell is a metric, a number of looks, a share of treatment, and whether the split ramps up while
the base rate doubles. A stream is what a user would sum up: units of each arm between looks, and
for each run the sums that the metric needs. Nothing here decides anything.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from abkit.comoments import Comoments
from abkit.moments import Block, Moments
from abkit.stats.ratio import linearised

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
Metric = Literal[
    "bernoulli .3", "bernoulli .02", "bernoulli .001", "poisson .1", "normal", "lognormal", "ratio"
]

FALSE_RED: Final = 1e-6
METRICS: Final[tuple[Metric, ...]] = (
    "bernoulli .3",
    "bernoulli .02",
    "bernoulli .001",
    "poisson .1",
    "normal",
    "lognormal",
    "ratio",
)
LOOKS: Final = (10, 105, 200)
SHARES: Final = (0.5, 0.05, 0.01)
RAMP: Final = (0.1, 0.25, 0.5, 1.0)  # of the share
LEVELS: Final = {"bernoulli .3": 0.3, "bernoulli .02": 0.02, "bernoulli .001": 0.001} | {
    "poisson .1": 0.1,
    "normal": 1.0,
    "lognormal": 1.0,
    "ratio": 0.1,
}
# Units of both arms together, by share: enough for some dozens of events in the smaller arm.
UNITS: Final[dict[Metric, tuple[int, int, int]]] = {
    "bernoulli .3": (20_000, 20_000, 100_000),
    "bernoulli .02": (100_000, 200_000, 1_000_000),
    "bernoulli .001": (1_000_000, 2_000_000, 10_000_000),
    "poisson .1": (100_000, 100_000, 100_000),
    "normal": (10_000, 10_000, 10_000),
    "lognormal": (20_000, 20_000, 20_000),
    "ratio": (20_000, 50_000, 200_000),
}
SIGMA: Final = 1.5
LOGNORMAL_MEAN: Final = math.exp(SIGMA**2 / 2)
LOGNORMAL_VARIANCE: Final = math.expm1(SIGMA**2) * math.exp(SIGMA**2)
POISSON_VALUES: Final = np.arange(10.0)  # a unit with more has probability below 1e-12

# One unit of the ratio: views, and clicks that depend on views and on the kind of user.
_VIEWS: Final = ((1, 0.4), (2, 0.3), (4, 0.2), (8, 0.1))
_USERS: Final = (0.5, 1.5)  # times the click rate, equally many
_UNIT: Final = np.array([(y, x) for x, _ in _VIEWS for y in range(x + 1)], dtype=float)
RATIO_SUMS: Final = np.stack(
    [_UNIT[:, 0], _UNIT[:, 1], _UNIT[:, 0] ** 2, _UNIT[:, 0] * _UNIT[:, 1], _UNIT[:, 1] ** 2]
)


def most_rejections(runs: int, alpha: float) -> int:
    """Largest count that a valid test exceeds with probability at most 1e-6."""
    return int(stats.binom.isf(FALSE_RED, runs, alpha))


def note(what: str, value: float) -> None:
    """Measured numbers, shown with `pytest -rP`."""
    sys.stdout.write(f"{what}: {value:.4f}\n")


def effective(control: Counts | Floats, treatment: Counts | Floats) -> Floats:
    """Effective units; 0 where an arm is empty."""
    return np.asarray(control * treatment / np.maximum(control + treatment, 1.0))


@functools.lru_cache(maxsize=2_000)
def ratio_chances(rate: float) -> Floats:
    """Probability of each (clicks, views) of a unit."""
    return np.concatenate(
        [
            weight * np.mean([stats.binom.pmf(range(x + 1), x, u * rate) for u in _USERS], axis=0)
            for x, weight in _VIEWS
        ]
    )


@dataclass(frozen=True)
class Cell:
    """One cell of the grid.

    Args:
        metric: what a unit brings, with its base rate.
        looks: number of looks, evenly spaced in units.
        share: of units in treatment, at the end of a ramp.
        ramp: a tenth, a quarter, half and the whole of the share, each an epoch of its own, while
            the base rate (or mean) doubles.
    """

    metric: Metric
    looks: int
    share: float
    ramp: bool

    def __str__(self) -> str:
        kind = "ramp" if self.ramp else "constant"
        return f"{self.metric}, {self.looks} looks, {self.share:.0%}, {kind}"

    @property
    def counts(self) -> bool:
        """Whether units either have the event or not."""
        return self.metric.startswith("bernoulli")

    @property
    def epoch(self) -> Counts:
        """Allocation epoch of each look."""
        quarters = np.arange(self.looks) * len(RAMP) // self.looks
        return quarters if self.ramp else np.zeros(self.looks, dtype=np.int64)

    @property
    def level(self) -> Floats:
        """Base rate, or mean, before each look."""
        drift = np.linspace(1, 2, self.looks) if self.ramp else np.ones(self.looks)
        return LEVELS[self.metric] * drift

    @property
    def n(self) -> tuple[Counts, Counts]:
        """Units of (control, treatment) that arrive before each look."""
        total = UNITS[self.metric][SHARES.index(self.share)]
        n = np.diff(np.round(np.linspace(0, total, self.looks + 1))).astype(np.int64)
        share = self.share * np.array(RAMP)[self.epoch] if self.ramp else self.share
        treated = np.diff(np.round(np.concatenate([[0], np.cumsum(n * share)]))).astype(np.int64)
        return n - treated, treated

    @property
    def clock(self) -> Floats:
        """Effective units by look."""
        total = np.zeros(self.looks)
        for index in np.unique(self.epoch):
            total += effective(*(np.cumsum(np.where(self.epoch == index, m, 0)) for m in self.n))
        return total

    @property
    def variance(self) -> Floats:
        """Variance of a unit before each look; of a ratio, of the linearised unit."""
        level = self.level
        match self.metric:
            case "normal":
                return np.ones(self.looks)
            case "lognormal":
                return LOGNORMAL_VARIANCE * level**2
            case "poisson .1":
                return level
            case "ratio":
                return np.array([ratio_moments(rate)[2] for rate in level.tolist()])
        return level * (1 - level)

    @property
    def planned(self) -> float:
        """Expected variance of the contrast at the end."""
        n_c, n_t = self.n
        mean = self.level * (LOGNORMAL_MEAN if self.metric == "lognormal" else 1.0)
        total = 0.0
        for index in np.unique(self.epoch):
            at = self.epoch == index
            weight = (n_c + n_t)[at] / (n_c + n_t)[at].sum()
            between = weight @ (mean[at] - weight @ mean[at]) ** 2
            within = weight @ self.variance[at]
            h = float(effective(n_c[at].sum(), n_t[at].sum()))
            total += h * float(within + (0 if self.metric == "ratio" else between))
        return total

    def effect(self, errors: float) -> float:
        """Effect of so many standard errors at the last look.

        Of the log odds (Bernoulli), the log rate (Poisson), the mean or the ratio.
        """
        if self.counts or self.metric.startswith("poisson"):
            return errors / math.sqrt(float((effective(*self.n) * self.variance).sum()))
        return errors * math.sqrt(self.planned) / float(self.clock[-1])


CELLS: Final = [Cell(*parts) for parts in product(METRICS, LOOKS, SHARES, (False, True))]


def ratio_moments(rate: float) -> tuple[float, float, float]:
    """Mean clicks, mean views, and variance of the linearised unit."""
    y, x, yy, xy, xx = (RATIO_SUMS @ ratio_chances(rate)).tolist()
    r = y / x
    return y, x, (yy - 2 * r * xy + r * r * xx) / x**2


@dataclass(frozen=True)
class Stream:
    """What arrives between looks.

    Args:
        cell: which stream this is.
        sums: for (control, treatment) the sums by kind, run and look: of values and squares, or of
            clicks, views, and their squares and products.
    """

    cell: Cell
    sums: tuple[Floats, Floats]

    @property
    def events(self) -> tuple[Counts, Counts]:
        """Events of (control, treatment) by run and look."""
        return self.sums[0][0].astype(np.int64), self.sums[1][0].astype(np.int64)

    def shifted(self, by: float) -> Stream:
        """The same values with a constant added in treatment."""
        total, squares = self.sums[1]
        n = self.cell.n[1]
        moved = np.stack([total + n * by, squares + 2 * by * total + n * by**2])
        return Stream(self.cell, (self.sums[0], moved))

    def strata(self, run: int, look: int) -> list[tuple[Moments, Moments]]:
        """Moments of both arms by epoch, as a user would hand them over."""
        epoch, found = self.cell.epoch[: look + 1], []
        for index in np.unique(epoch):
            at = np.flatnonzero(epoch == index)
            found.append(
                tuple(
                    self._moments(int(n[at].sum()), sums[:, run, at].sum(axis=1).tolist())
                    for n, sums in zip(self.cell.n, self.sums, strict=True)
                )
            )
        return [(control, treatment) for control, treatment in found]

    def _moments(self, n: int, sums: list[float]) -> Moments:
        if n == 0:
            return Moments()
        if self.cell.counts:
            return Moments.of_counts(n, round(sums[0]))
        if self.cell.metric != "ratio":
            return Moments(n, sums[0] / n, max(0.0, sums[1] - sums[0] ** 2 / n))
        y, x, yy, xy, xx = sums
        cross = xy - x * y / n
        products = ((yy - y * y / n, cross), (cross, xx - x * x / n))
        arm = linearised(
            Comoments(("clicks", "views"), n, (y / n, x / n), products), [("clicks", "views")]
        )
        assert arm is not None
        return arm.moments("clicks/views")

    def blocks(self, run: int, look: int) -> list[Block]:
        """Cumulative counts by epoch."""
        return [Block(c.n, t.n, c.successes, t.successes) for c, t in self.strata(run, look) if c.n]


def draw(cell: Cell, rng: np.random.Generator, runs: int, effect: float = 0.0) -> Stream:
    """So many runs of a cell; `effect` as from `Cell.effect`."""
    level = cell.level
    if cell.counts:
        odds = level / (1 - level) * math.exp(effect)
        rates = (level, odds / (1 + odds))
        events = [
            rng.binomial(n, p, (runs, cell.looks)) for n, p in zip(cell.n, rates, strict=True)
        ]
        control, treatment = (np.stack([x, x]).astype(np.float64) for x in events)
        return Stream(cell, (control, treatment))
    control, treatment = (
        _arm(cell, rng, runs, n, add) for n, add in zip(cell.n, (0.0, effect), strict=True)
    )
    return Stream(cell, (control, treatment))


def _arm(cell: Cell, rng: np.random.Generator, runs: int, n: Counts, effect: float) -> Floats:
    level = cell.level
    if cell.metric == "normal":
        mean = level + effect + rng.standard_normal((runs, len(n))) / np.sqrt(np.maximum(n, 1))
        spread = np.where(n > 1, rng.chisquare(np.maximum(n - 1, 1), (runs, len(n))), 0.0)
        return np.stack([n * mean, spread + n * mean**2])
    if cell.metric == "lognormal":
        sums = np.empty((2, runs, len(n)))
        for k, size in enumerate(n.tolist()):
            values = np.exp(np.float32(SIGMA) * rng.standard_normal((runs, size), dtype=np.float32))
            sums[0, :, k] = level[k] * values.sum(axis=1, dtype=np.float64)
            sums[1, :, k] = level[k] ** 2 * np.einsum("ij,ij->i", values, values, dtype=np.float64)
        total, squares = sums
        return np.stack([total + n * effect, squares + 2 * effect * total + n * effect**2])
    sums = np.empty((len(RATIO_SUMS) if cell.metric == "ratio" else 2, runs, len(n)))
    for k, (size, rate) in enumerate(zip(n.tolist(), level.tolist(), strict=True)):
        if cell.metric == "ratio":
            chances, table = ratio_chances(rate + effect), RATIO_SUMS
        else:
            chances = stats.poisson.pmf(POISSON_VALUES, rate * math.exp(effect))
            table = np.stack([POISSON_VALUES, POISSON_VALUES**2])
        units = rng.multinomial(size, chances / chances.sum(), runs)
        sums[:, :, k] = table @ units.T
    return sums


@dataclass(frozen=True)
class Paths:
    """S, V, H of the stratified contrast, and whether there is enough, by run and look."""

    s: Floats
    v: Floats
    h: Floats
    enough: Flags

    @property
    def z(self) -> Floats:
        """S over its standard error; 0 where there is none, or not enough."""
        usable = self.enough & (self.v > 0)
        return np.where(usable, self.s, 0.0) / np.sqrt(np.where(usable, self.v, 1.0))


@dataclass(frozen=True)
class _Stratum:
    """Cumulative moments of one arm in one epoch, by run and look."""

    n: Counts
    mean: Floats
    m2: Floats
    total: Floats


def _stratum(n: Counts, sums: Floats, metric: Metric) -> _Stratum:
    size = np.maximum(n, 1)
    if metric != "ratio":
        total, squares = sums
        mean = total / size
        return _Stratum(n, mean, np.maximum(squares - total * mean, 0.0), total)
    y, x, yy, xy, xx = sums
    views = np.maximum(x, 1.0)
    r = y / views
    m2 = (yy - 2 * r * xy + r * r * xx) / (views / size) ** 2
    return _Stratum(n, r, np.maximum(m2, 0.0), y)


def _used(stream: Stream) -> Iterator[tuple[_Stratum, _Stratum]]:
    epoch = stream.cell.epoch
    for index in np.unique(epoch):
        on = epoch == index
        pair = [
            _stratum(
                np.cumsum(np.where(on, n, 0)),
                np.cumsum(np.where(on, sums, 0.0), axis=-1),
                stream.cell.metric,
            )
            for n, sums in zip(stream.cell.n, stream.sums, strict=True)
        ]
        yield pair[0], pair[1]


def _borrowed(arms: list[_Stratum], used: list[Flags]) -> tuple[Floats, Floats]:
    """Variance of one arm over all epochs, and its degrees of freedom."""
    freedom = sum((arm.n - 1) * on for arm, on in zip(arms, used, strict=True))
    m2 = sum(arm.m2 * on for arm, on in zip(arms, used, strict=True))
    return np.asarray(m2 / np.maximum(freedom, 1)), np.asarray(freedom, dtype=np.float64)


def contrast_paths(stream: Stream) -> Paths:
    """What `stratified_contrast` says of every run and look."""
    pairs = list(_used(stream))
    used = [(c.n > 0) & (t.n > 0) for c, t in pairs]
    pooled = [_borrowed([pair[side] for pair in pairs], used) for side in (0, 1)]
    s, apart, together = np.zeros((3, *stream.sums[0].shape[1:]))
    h = np.zeros(stream.cell.looks)
    for (control, treatment), on in zip(pairs, used, strict=True):
        weight = effective(control.n, treatment.n) * on
        h += weight
        s += weight * (treatment.mean - control.mean)
        own = [arm.m2 / np.maximum(arm.n - 1, 1) for arm in (control, treatment)]
        for side, arm in enumerate((control, treatment)):
            borrowed, freedom = pooled[side]
            alone = np.where(freedom > 0, borrowed, own[1 - side])
            variance = np.where(arm.n > 1, own[side], alone)
            apart += weight**2 / np.maximum(arm.n, 1) * variance
        freedom = np.maximum(control.n + treatment.n - 2, 1)
        together += weight * (control.m2 + treatment.m2) / freedom
    enough = np.ones(s.shape, dtype=np.bool_)
    for side in (0, 1):
        units = np.sum([pair[side].n * on for pair, on in zip(pairs, used, strict=True)], axis=0)
        if stream.cell.counts:
            events = np.sum(
                [pair[side].total * on for pair, on in zip(pairs, used, strict=True)], axis=0
            )
            enough &= (events >= 25) & (units - events >= 25)
        else:
            enough &= units >= 25
    return Paths(s, np.maximum(apart, together), h, enough)


def score_paths(stream: Stream) -> tuple[Floats, Floats]:
    """What `stratified_score` says of every run and look: z and information."""
    score, variance = np.zeros((2, *stream.sums[0].shape[1:]))
    least = [np.zeros(score.shape) for _ in range(4)]
    for control, treatment in _used(stream):
        n_c, n_t, x_c, x_t = control.n, treatment.n, control.total, treatment.total
        n, events = np.maximum(n_c + n_t, 2.0), x_c + x_t
        score += x_t - n_t * events / n
        variance += n_t * n_c * (events * (n - events) / (n * n * (n - 1)))
        least = [
            have + add for have, add in zip(least, (x_c, n_c - x_c, x_t, n_t - x_t), strict=True)
        ]
    usable = (np.min(least, axis=0) >= 25) & (variance > 0)
    z = np.where(usable, score, 0.0) / np.sqrt(np.where(usable, variance, 1.0))
    return z, np.where(usable, variance, 0.0)
