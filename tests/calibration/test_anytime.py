"""Type-I error and power of everything that claims to hold at any look.

Every cell runs A/A streams that are looked at 200 times and counts the runs that ever reject. The
bound is exact: a test whose error is at most alpha exceeds it with probability below 1e-6, so a red
test means a broken guarantee. The naive z test, on the same streams, must exceed it: otherwise the
cell proves nothing. And since a test that never rejects passes any calibration, every cell has a
minimum power too.

Streams are computed in arrays. Each cell checks some of its looks against the functions that users
call, so that the arrays cannot drift away from them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from abkit.moments import Moments
from abkit.sequential.canary import CanaryDesign
from abkit.sequential.mixture import (
    normal_log_mixture,
    normal_rho,
    paired_difference,
    stratified_difference,
)
from abkit.stats.srm import lindon_malek_log_e, srm_concentration
from tests.calibration.evidence import canary_paths, check_against_the_fold
from tests.calibration.streams import most_rejections, note

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.estimate import Alternative

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Kind = Literal["proportion", "mean"]

RUNS: Final = 2_000
LOOKS: Final = 200


def test_the_bound_is_the_one_of_the_design_notes() -> None:
    """statistics.md, "Calibration": 607 and 151 of 10,000."""
    assert abs(most_rejections(10_000, 0.05) - 607) <= 1
    assert abs(most_rejections(10_000, 0.01) - 151) <= 1


def ever(log_e: Floats, alpha: float) -> int:
    """Runs whose evidence reaches 1/alpha at some look."""
    return int((log_e >= -math.log(alpha)).any(axis=1).sum())


# --- means and proportions: the normal mixture ------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """What arrives in one arm between looks: counts by look, sums by run and look."""

    n: Counts
    total: Floats
    squares: Floats


@dataclass(frozen=True)
class Contrast:
    """S, V, H of the stratified contrast at every look, and whether there is enough to go by.

    `welch` is the clock that a z test would use, with one variance an arm.
    """

    s: Floats
    v: Floats
    h: Floats
    welch: Floats
    enough: NDArray[np.bool_]

    def log_e(self, planned_units: int, alpha: float, alternative: Alternative) -> Floats:
        rho = normal_rho(0.65 * planned_units / 4, alpha, alternative=alternative)
        with np.errstate(invalid="ignore", divide="ignore"):
            s = self.s / np.sqrt(self.v / self.h)
        s = np.where(self.enough, s, 0.0)
        log_e = normal_log_mixture(s, self.h, rho=rho, alternative=alternative)
        return np.where(self.enough, log_e, 0.0)


def contrast(control: Arm, treatment: Arm, stratum: Counts, kind: Kind) -> Contrast:
    """The contrast of `stratified_difference`, for all runs and looks at once."""
    s, apart, pooled = np.zeros((3, *control.total.shape))
    h = np.zeros(len(stratum))
    before = [np.zeros(len(s))] * 3
    h0 = 0.0
    for index in np.unique(stratum):
        at = stratum == index
        parts = []
        for arm in (control, treatment):
            n = np.cumsum(arm.n[at])
            mean = np.cumsum(arm.total[:, at], axis=1) / n
            m2 = np.maximum(np.cumsum(arm.squares[:, at], axis=1) - n * mean**2, 0.0)
            parts.append((n, mean, m2))
        (nc, mc, m2c), (nt, mt, m2t) = parts
        weight = nc * nt / (nc + nt)
        s[:, at] = before[0][:, None] + weight * (mt - mc)
        apart[:, at] = before[1][:, None] + weight**2 * (m2t / (nt - 1) / nt + m2c / (nc - 1) / nc)
        pooled[:, at] = before[2][:, None] + weight * (m2c + m2t) / (nc + nt - 2)
        h[at] = h0 + weight
        before = [path[:, at][:, -1] for path in (s, apart, pooled)]
        h0 = h[at][-1]
    enough = np.ones(s.shape, dtype=bool)
    for arm in (control, treatment):
        n = np.cumsum(arm.n)
        if kind == "mean":
            enough &= n >= 25
        else:
            events = np.cumsum(arm.total, axis=1)
            enough &= (events >= 25) & (n - events >= 25)
    return Contrast(s, np.maximum(apart, pooled), h, apart, enough)


def check_against_the_function(
    control: Arm, treatment: Arm, stratum: Counts, log_e: Floats, **question: object
) -> None:
    """The arrays agree with `stratified_difference` where one looks."""
    rng = np.random.default_rng(0)
    for run, look in zip(rng.integers(0, len(log_e), 40), rng.integers(1, LOOKS, 40), strict=True):
        strata = []
        for index in np.unique(stratum[: look + 1]):
            at = np.flatnonzero(stratum[: look + 1] == index)
            pair = []
            for arm in (control, treatment):
                n = int(arm.n[at].sum())
                total, squares = arm.total[run, at].sum(), arm.squares[run, at].sum()
                pair.append(Moments(n, total / n, max(0.0, squares - total**2 / n)))
            strata.append((pair[0], pair[1]))
        result = stratified_difference(strata, **question)  # type: ignore[arg-type]
        assert result.e_value is not None
        assert math.log(result.e_value) == pytest.approx(log_e[run, look], rel=1e-6, abs=1e-6)


def normal(rng: np.random.Generator, n: Counts, mean: Floats) -> tuple[Floats, Floats]:
    """Sums and squares of n normal values with standard deviation 1, exactly, from n and mean."""
    shape = (RUNS, len(n))
    averages = mean + rng.standard_normal(shape) / np.sqrt(n)
    within = rng.chisquare(n - 1, shape)
    return n * averages, within + n * averages**2


def bernoulli(rng: np.random.Generator, n: Counts, mean: Floats) -> tuple[Floats, Floats]:
    events = rng.binomial(n, mean, (RUNS, len(n))).astype(float)
    return events, events


def lognormal(rng: np.random.Generator, n: Counts, mean: Floats) -> tuple[Floats, Floats]:
    """Values with sigma 1.5, scaled to a standard deviation of 1 and a mean of `mean` more."""
    sigma = 1.5
    spread = math.sqrt(math.expm1(sigma**2) * math.exp(sigma**2))
    sums, squares = np.empty((2, RUNS, len(n)))
    for look, (size, add) in enumerate(zip(n, mean, strict=True)):
        values = np.exp(sigma * rng.standard_normal((RUNS, size))) / spread + add
        sums[:, look] = values.sum(axis=1)
        squares[:, look] = (values**2).sum(axis=1)
    return sums, squares


@dataclass(frozen=True)
class MeanCell:
    """A stream of two arms: 200 looks at twice as many units as were planned.

    Args:
        draw: sums and squares of the values of one arm.
        units: units of both arms together between looks.
        base: mean of control at the first and the last look.
        effect: added to the mean of treatment for the power run.
        power: share of runs that must reject then.
        shares: share of treatment, by stage; stages are equally long and are the strata.
    """

    draw: Callable[[np.random.Generator, Counts, Floats], tuple[Floats, Floats]]
    units: int
    base: tuple[float, float]
    effect: float
    power: float
    shares: tuple[float, ...] = (0.5,)

    @property
    def kind(self) -> Kind:
        return "proportion" if self.draw is bernoulli else "mean"

    @property
    def stratum(self) -> Counts:
        return np.arange(LOOKS) * len(self.shares) // LOOKS

    @property
    def planned_units(self) -> int:
        evenness = np.mean([4 * share * (1 - share) for share in self.shares])
        return round(self.units * LOOKS / 2 * float(evenness))

    def arms(self, seed: int, effect: float) -> tuple[Arm, Arm]:
        rng = np.random.default_rng(seed)
        n_treatment = np.round(self.units * np.array(self.shares)[self.stratum]).astype(int)
        base = np.linspace(*self.base, LOOKS)
        pair = []
        for n, mean in ((self.units - n_treatment, base), (n_treatment, base + effect)):
            pair.append(Arm(n, *self.draw(rng, n, mean)))
        return pair[0], pair[1]


RAMP: Final = (0.01, 0.05, 0.25, 0.5)
MEANS: Final = {
    "normal": MeanCell(normal, 40, (0.0, 0.0), effect=0.105, power=0.9),
    "normal-drift": MeanCell(normal, 40, (0.0, 3.0), effect=0.105, power=0.9, shares=(0.5,) * 10),
    "normal-1-percent": MeanCell(normal, 400, (0.0, 0.0), effect=0.17, power=0.9, shares=(0.01,)),
    "bernoulli-.2": MeanCell(bernoulli, 40, (0.2, 0.2), effect=0.043, power=0.9),
    "bernoulli-.02-5-percent": MeanCell(
        bernoulli, 1_000, (0.02, 0.02), effect=0.0075, power=0.9, shares=(0.05,)
    ),
    "lognormal": MeanCell(lognormal, 20, (0.0, 0.0), effect=0.15, power=0.9),
    "lognormal-5-percent": MeanCell(
        lognormal, 100, (0.0, 0.0), effect=0.2, power=0.9, shares=(0.05,)
    ),
    "ramp-with-drift": MeanCell(
        bernoulli, 1_000, (0.02, 0.04), effect=0.005, power=0.9, shares=RAMP
    ),
    "lognormal-ramp-with-drift": MeanCell(
        lognormal, 200, (0.0, 3.0), effect=0.1, power=0.9, shares=RAMP
    ),
}


@functools.lru_cache(maxsize=4)
def stream(name: str, sign: int, seed: int = 0) -> tuple[Arm, Arm, Contrast]:
    """The two arms of a cell and their contrast, with the cell's effect times `sign`."""
    cell = MEANS[name]
    control, treatment = cell.arms(
        100 * seed + 10 * list(MEANS).index(name) + sign, sign * cell.effect
    )
    return control, treatment, contrast(control, treatment, cell.stratum, cell.kind)


@pytest.mark.parametrize("name", MEANS)
def test_normal_mixture(name: str) -> None:
    """One draw of a cell serves all three sides."""
    cell = MEANS[name]
    sides: dict[Alternative, int] = {"two-sided": 1, "greater": 1, "less": -1}
    for side, sign in sides.items():
        control, treatment, paths = stream(name, 0, 1)
        log_e = paths.log_e(cell.planned_units, 0.05, side)
        check_against_the_function(
            control,
            treatment,
            cell.stratum,
            log_e,
            planned_units=cell.planned_units,
            kind=cell.kind,
            alpha=0.05,
            alternative=side,
        )
        note(f"{name} {side} type I", ever(log_e, 0.05) / RUNS)
        assert ever(log_e, 0.05) <= most_rejections(RUNS, 0.05)
        _, _, moved = stream(name, sign, 1)
        found = ever(moved.log_e(cell.planned_units, 0.05, side), 0.05)
        note(f"{name} {side} power", found / RUNS)
        assert found >= cell.power * RUNS


@pytest.mark.parametrize("name", MEANS)
def test_the_naive_z_test_fails_on_the_same_streams(name: str) -> None:
    control, treatment, _ = stream(name, 0, 1)
    pooled = contrast(control, treatment, np.zeros(LOOKS, dtype=int), MEANS[name].kind)
    z = np.abs(pooled.s) / np.sqrt(np.where(pooled.enough, pooled.welch, np.inf))
    rejected = int((z > stats.norm.isf(0.025)).any(axis=1).sum())
    note(f"{name} naive z", rejected / RUNS)
    assert rejected > most_rejections(RUNS, 0.05)


def test_the_clock_of_two_separate_variances_would_not_do() -> None:
    """Why `stratified_difference` takes the larger clock: skewed values, 5 % in treatment."""
    _, _, paths = stream("lognormal-5-percent", 0, 1)
    apart = dataclasses.replace(paths, v=paths.welch)
    planned = MEANS["lognormal-5-percent"].planned_units
    assert ever(apart.log_e(planned, 0.05, "less"), 0.05) > 2 * most_rejections(RUNS, 0.05)


# --- paired proportions ------------------------------------------------------------------------

# (treatment wins, control wins): probabilities at the border of the null, margin one point
PAIRS: Final = {"5 percent discordant": (0.02, 0.03), "losses only": (0.0, 0.01)}


@pytest.mark.parametrize("planned", [1_500, 10_000])
@pytest.mark.parametrize("name", PAIRS)
def test_paired_proportions_at_the_margin(name: str, planned: int) -> None:
    """Non-inferiority by one point, the question of distillation, where models rarely differ."""
    rng = np.random.default_rng(planned)
    wins, losses = PAIRS[name]
    chances = [wins, losses, 1 - wins - losses]
    new: Counts = rng.multinomial(2 * planned // LOOKS, chances, (RUNS, LOOKS))
    counts: Counts = new.cumsum(axis=1)
    n = counts[0].sum(axis=1)
    won, lost = counts[..., 0], counts[..., 1]
    s, squares = (won - lost).astype(float), (won + lost).astype(float)
    v = (squares - s**2 / n) * n / (n - 1)
    rho = normal_rho(0.65 * planned, 0.05, alternative="greater")
    enough = squares >= 25
    log_e = normal_log_mixture(
        np.where(enough, s + 0.01 * n, 0.0) / np.sqrt(np.where(enough, v / n, 1.0)),
        n.astype(float),
        rho=rho,
        alternative="greater",
    )
    log_e = np.where(enough, log_e, 0.0)
    for run, look in ((0, LOOKS - 1), (1, LOOKS // 2), (2, 3)):
        moments = Moments(
            int(n[look]), s[run, look] / n[look], v[run, look] * (n[look] - 1) / n[look]
        )
        result = paired_difference(
            moments, planned_units=planned, kind="proportion", alternative="greater", margin=-0.01
        )
        assert result.e_value == pytest.approx(math.exp(log_e[run, look]), rel=1e-6)
    note(f"paired {name} planned {planned} type I", ever(log_e, 0.05) / RUNS)
    assert ever(log_e, 0.05) <= most_rejections(RUNS, 0.05)


# --- the canary test ---------------------------------------------------------------------------


@dataclass(frozen=True)
class CanaryCell:
    """A rollout of 24 hours at 10 requests a second, looked at 200 times.

    Args:
        base: error rate of control at the first and the last look.
        shares: share of treatment, by stage of equal length.
        risk: relative risk of the power run.
        power: share of runs that must reject then.
    """

    base: tuple[float, float]
    shares: tuple[float, ...]
    risk: float
    power: float = 0.95
    requests: int = 4_320

    def run(
        self, seed: int, risk: float, runs: int = RUNS
    ) -> tuple[tuple[Counts, Counts], tuple[Counts, Counts], Counts]:
        rng = np.random.default_rng(seed)
        stage = np.arange(LOOKS) * len(self.shares) // LOOKS
        n_treatment = np.round(self.requests * np.array(self.shares)[stage]).astype(int)
        n = (self.requests - n_treatment, n_treatment)
        base = np.linspace(*self.base, LOOKS)
        events = (
            rng.binomial(n[0], base, (runs, LOOKS)),
            rng.binomial(n[1], risk * base, (runs, LOOKS)),
        )
        return n, events, np.arange(LOOKS) * 24 // LOOKS


CANARIES: Final = {
    f"base {base} split {share}": CanaryCell((base, base), (share,), risk)
    for base, share, risk in [
        (0.001, 0.01, 5.0),
        (0.001, 0.1, 2.0),
        (0.001, 0.5, 1.5),
        (0.01, 0.01, 2.0),
        (0.01, 0.1, 1.5),
        (0.01, 0.5, 1.2),
        (0.2, 0.01, 1.3),
        (0.2, 0.1, 1.1),
        (0.2, 0.5, 1.1),
    ]
} | {
    "ramp with drift": CanaryCell((0.02, 0.04), RAMP, 1.2),
    "ramp with drift, rare": CanaryCell((0.0005, 0.002), RAMP, 2.0),
}


def canary_false_halts(name: str, runs: int, seed: int) -> None:
    cell = CANARIES[name]
    design = CanaryDesign()
    n, events, hours = cell.run(seed, 1.0, runs)
    log_e = canary_paths(n, events, hours, design)
    check_against_the_fold(n, events, hours, design, log_e)
    note(f"canary {name} type I", ever(log_e, 0.01) / runs)
    assert ever(log_e, 0.01) <= most_rejections(runs, 0.01)

    total, ones = (np.cumsum([n[0], n[1]], axis=1), [np.cumsum(x, axis=1) for x in events])
    rate = (ones[0] + ones[1]) / total.sum(axis=0)
    error = np.sqrt(rate * (1 - rate) * (1 / total[0] + 1 / total[1]))
    z = (ones[1] / total[1] - ones[0] / total[0]) / np.where(error > 0, error, np.inf)
    naive = int((z > stats.norm.isf(0.01)).any(axis=1).sum())
    note(f"canary {name} naive z", naive / runs)
    assert naive > most_rejections(runs, 0.01)


@pytest.mark.parametrize("name", CANARIES)
def test_canary_false_halts(name: str) -> None:
    canary_false_halts(name, RUNS, 10 + list(CANARIES).index(name))


@pytest.mark.parametrize("name", CANARIES)
def test_canary_power(name: str) -> None:
    cell = CANARIES[name]
    n, events, hours = cell.run(50 + list(CANARIES).index(name), cell.risk, 500)
    found = ever(canary_paths(n, events, hours, CanaryDesign()), 0.01) / 500
    note(f"canary {name} power at {cell.risk}", found)
    assert found >= cell.power


def least_requests(base: float, risk: float, share: float) -> float:
    """Lower bound on the mean canary requests to halt: log(1/alpha) / KL, alpha = .01."""

    def divergence(p: float, q: float) -> float:
        return float(special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q))

    null = base * (risk * share + 1 - share)
    information = divergence(base * risk, null) + (1 - share) / share * divergence(base, null)
    return math.log(100) / information


def requests_to_halt(
    base: float, risk: float, share: float, rps: int, design: CanaryDesign
) -> Floats:
    """Canary requests until the halt, by run, with about 150 looks to the bound."""
    looks, runs = 700, 1_000
    step = max(1, round(least_requests(base, risk, share) / 150))
    n = (np.full(looks, round(step * (1 - share) / share)), np.full(looks, step))
    rng = np.random.default_rng(round(1e6 * base * risk * share))
    events = (
        rng.binomial(n[0], base, (runs, looks)),
        rng.binomial(n[1], base * risk, (runs, looks)),
    )
    hours = (np.arange(looks) * step / (share * rps) / 3600).astype(int)
    halted = canary_paths(n, events, hours, design) >= math.log(100)
    return step * np.where(halted.any(axis=1), halted.argmax(axis=1) + 1, looks)


# The cells of rollout.md, then the range of relative risks. A mean of 1.4 x the bound is out of
# reach at RR 5 and above: with the relative risk known, half of the weight and the overshoot of
# single events alone cost 1.30 at RR 5, 1.34 at 10 and 1.46 at 20.
@pytest.mark.parametrize(
    ("base", "risk", "share", "rps", "mean", "median"),
    [
        (0.01, 2.0, 0.01, 10, 1.45, 1.35),
        (0.01, 5.0, 0.01, 10, 1.52, 1.35),
        (0.01, 2.0, 0.1, 10, 1.45, 1.35),
        (0.01, 5.0, 0.01, 1_000, 1.52, 1.35),
        (0.01, 1.2, 0.05, 100, 1.8, 1.8),
        (0.01, 1.5, 0.05, 100, 1.6, 1.45),
        (0.01, 3.0, 0.05, 100, 1.48, 1.35),
        (0.01, 10.0, 0.05, 100, 1.8, 1.6),
        (0.01, 20.0, 0.05, 100, 2.0, 1.9),
    ],
)
def test_canary_requests_are_near_the_lower_bound(  # noqa: PLR0917 - a table of cases
    base: float, risk: float, share: float, rps: int, mean: float, median: float
) -> None:
    bound = least_requests(base, risk, share)
    used = requests_to_halt(base, risk, share, rps, CanaryDesign())
    without = requests_to_halt(base, risk, share, rps, CanaryDesign(restarts=0))
    cell = f"canary requests, base {base}, RR {risk}, split {share}, {rps} rps"
    note(
        f"{cell}: bound {bound:.0f}, median {np.median(used):.0f}, mean / bound",
        used.mean() / bound,
    )
    note(f"{cell}: median / bound", np.median(used) / bound)
    assert used.mean() <= mean * bound
    assert np.median(used) <= median * bound
    assert used.mean() <= 1.2 * without.mean()  # what restarts cost at onset


def minutes_to_halt(onset_hour: int, design: CanaryDesign) -> Floats:
    """Delay by run: 10 % split, 10 requests a second, errors 1 -> 2 % from that hour on."""
    runs, minutes = 400, 24 * 60
    n = (np.full(minutes, 540), np.full(minutes, 60))
    rng = np.random.default_rng(onset_hour)
    rate = np.where(np.arange(minutes) >= 60 * onset_hour, 0.02, 0.01)
    events = (rng.binomial(n[0], 0.01, (runs, minutes)), rng.binomial(n[1], rate, (runs, minutes)))
    halted = canary_paths(n, events, np.arange(minutes) // 60, design) >= math.log(100)
    assert halted.any(axis=1).all()
    return np.asarray(halted.argmax(axis=1) + 1.0 - 60 * onset_hour)


def test_a_regression_at_noon_is_caught_nearly_as_fast_as_one_at_onset() -> None:
    onset = float(np.median(minutes_to_halt(0, CanaryDesign())))
    noon = float(np.median(minutes_to_halt(12, CanaryDesign())))
    without = float(np.median(minutes_to_halt(12, CanaryDesign(restarts=0))))
    note("minutes to halt at onset", onset)
    note("minutes to halt at hour 12", noon)
    note("minutes to halt at hour 12 without restarts", without)
    assert noon <= 2 * onset
    assert without > 2 * noon


@pytest.mark.parametrize(("share", "requests"), [(0.1, 3_000), (0.5, 1_200)])
def test_promotion_at_the_margin_and_of_an_equal(share: float, requests: int) -> None:
    """Margin 1.25, beta .05: at most 5 % of those at the margin, at least 98 % of equals."""
    design = CanaryDesign(null_relative_risk=1.25, harm=False, restarts=0)
    cell = CanaryCell((0.01, 0.01), (share,), 1.0, requests=requests)
    promoted = {}
    for risk in (1.25, 1.0, 1.5):
        n, events, hours = cell.run(90, risk)
        log_e = canary_paths(n, events, hours, design)
        check_against_the_fold(n, events, hours, design, log_e)
        promoted[risk] = ever(log_e, 0.05)
        note(f"promoted at RR {risk}, split {share}", promoted[risk] / RUNS)
    assert promoted[1.25] <= most_rejections(RUNS, 0.05)
    assert promoted[1.5] <= most_rejections(RUNS, 0.05)
    assert promoted[1.0] >= 0.98 * RUNS


# --- sample ratio mismatch -----------------------------------------------------------------------


def test_srm_false_alarms_and_power() -> None:
    """Daily looks at 1,000 units, 90/10: warns at 100 and blocks at 1,000."""
    rng = np.random.default_rng(70)
    k = srm_concentration(0.01)

    def log_e(share: float, runs: int) -> Floats:
        seen = rng.binomial(1_000, share, (runs, LOOKS)).cumsum(axis=1)
        total = 1_000 * (1 + np.arange(LOOKS))
        return np.array(
            [
                [
                    lindon_malek_log_e([n - x, x], [0.9, 0.1], concentration=k)
                    for n, x in zip(total.tolist(), row, strict=True)
                ]
                for row in seen.tolist()
            ]
        )

    null = log_e(0.1, RUNS)
    note("SRM warns", ever(null, 0.01) / RUNS)
    note("SRM blocks", ever(null, 0.001) / RUNS)
    assert ever(null, 0.01) <= most_rejections(RUNS, 0.01)
    assert ever(null, 0.001) <= most_rejections(RUNS, 0.001)
    lost = log_e(0.1 * 0.95 / (0.9 + 0.1 * 0.95), 200)  # 5 % of treatment is lost
    note("SRM blocks when 5 % of treatment is lost", ever(lost, 0.001) / 200)
    assert ever(lost, 0.001) >= 0.95 * 200


# --- longer grids --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", CANARIES)
def test_canary_false_halts_in_10_000_runs(name: str) -> None:
    canary_false_halts(name, 10_000, 200 + list(CANARIES).index(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", MEANS)
def test_normal_mixture_in_10_000_runs(name: str) -> None:
    """Five seeds of 2,000 runs: fail over 607 at alpha .05."""
    cell = MEANS[name]
    sides: tuple[Alternative, ...] = ("two-sided", "greater", "less")
    rejected = dict.fromkeys(sides, 0)
    for seed in range(5):
        _, _, paths = stream(name, 0, 2 + seed)
        for side in sides:
            rejected[side] += ever(paths.log_e(cell.planned_units, 0.05, side), 0.05)
    for side in sides:
        note(f"{name} {side} type I in 10,000", rejected[side] / 10_000)
        assert rejected[side] <= most_rejections(10_000, 0.05)
