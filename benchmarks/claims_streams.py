"""The streams of `claims.py`, and the first looks at which abkit's designs reject on them.

A stream is what a user would sum up: the units of each arm between looks, and for each run their
sums and squares. Peers get the same sums, or the values behind them. Nothing here prints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from anytime import CANARY, HALF, RAMP, first_of, hypergeometric
from numpy.typing import NDArray

from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.group_plan import spending_plan
from abkit.sequential.normal import normal_log_mixture
from abkit.sequential.tilting import TiltPrior

Floats = NDArray[np.float64]
Stream = dict[str, Any]

LOOKS: Final = 40  # of 2 N units, so 20 by N
SEED: Final = 20
SIGMA: Final = 1.5  # of lognormal values
MEAN: Final = 10.0  # of normal values, in standard deviations: relative scales need one
VIEWS: Final = 3.0  # of a unit of the ratio, less one: Poisson
SPLITS: Final = {"50/50": HALF, "5 %": CANARY, "ramp with drift": RAMP}
# Planned units of both arms together at an even split: N. An uneven one needs more.
PLANNED: Final = {
    "normal": 2_000,
    "lognormal": 4_000,
    "p = .3": 4_000,
    "p = .02": 20_000,
    "p = .001": 100_000,
    "Poisson .1": 8_000,
    "ratio": 3_000,
}
RATES: Final = {"p = .3": 0.3, "p = .02": 0.02, "p = .001": 0.001, "Poisson .1": 0.1, "ratio": 0.1}
NEEDED: Final = 2.8016  # standard errors that a fixed test finds with power .8


@dataclass(frozen=True)
class Cell:
    """A metric and an allocation.

    Args:
        kind: a name of `PLANNED`.
        split: a name of `SPLITS`; in a ramp the base rate doubles, or the mean moves by a
            standard deviation.
    """

    kind: str
    split: str

    @property
    def planned(self) -> int:
        """Units of both arms at the planned end, N; the stream ends at 2 N."""
        share = SPLITS[self.split][0]
        more = 1 / (4 * share * (1 - share)) if self.split == "5 %" else 1.0
        return math.ceil(PLANNED[self.kind] * more)

    @property
    def counts(self) -> bool:
        """Whether units are 0 or 1."""
        return self.kind.startswith("p =")

    def blocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Units of control and of treatment, and the epoch, by look."""
        n = np.diff(np.round(np.linspace(0, 2 * self.planned, LOOKS + 1))).astype(int)
        epoch = np.arange(LOOKS) * 4 // LOOKS
        share = np.array(SPLITS[self.split])[epoch]
        nt = np.diff(np.round(np.concatenate([[0], np.cumsum(n * share)]))).astype(int)
        return n - nt, nt, epoch if self.split == "ramp with drift" else 0 * epoch

    def base(self) -> Floats:
        """Rate, or what is added to the mean, of control by look."""
        low = RATES.get(self.kind, MEAN if self.kind == "normal" else 0.0)
        drift = RATES.get(self.kind, 1.0) if self.split == "ramp with drift" else 0.0
        return np.linspace(low, low + drift, LOOKS)

    def effect(self) -> float:
        """What a fixed test of half of the stream's information finds with power .8."""
        nc, nt, epoch = self.blocks()
        h = information(nc, nt, epoch)[-1] / 2
        rate = float(self.base().mean())
        found = 0.0
        for _ in range(20):  # the spread grows with the rate
            p = rate + found / 2
            variance = {
                "normal": 1.0,
                "lognormal": 1.0,
                "Poisson .1": p,
                "ratio": p * (1 - p) / (1 + VIEWS),
            }.get(self.kind, p * (1 - p))
            found = NEEDED * math.sqrt(variance / h)
        return found

    def draw(self, runs: int, *, effect: bool, raw: int = 0) -> Stream:
        """Sums and squares by run and look, and the values of the first `raw` runs."""
        rng = np.random.default_rng([SEED, sum(map(ord, self.kind + self.split)), effect])
        nc, nt, epoch = self.blocks()
        added = self.effect() if effect else 0.0
        stream: Stream = {"nc": nc, "nt": nt, "epoch": epoch, "planned": self.planned}
        for arm, n, base in (("y", nc, self.base()), ("x", nt, self.base() + added)):
            stream |= _arm(rng, arm, (self, n, base), runs=runs, raw=raw)
        return stream | {"effect": self.effect(), "share": SPLITS[self.split][0]}


def _arm(
    rng: np.random.Generator,
    arm: str,
    made: tuple[Cell, NDArray[np.int64], Floats],
    *,
    runs: int,
    raw: int,
) -> Stream:
    """Sums (`y`), squares (`yy`), and of ratios the same of views and products, of one arm."""
    cell, n, base = made
    if cell.counts:
        events = rng.binomial(n, np.minimum(base, 1), (runs, LOOKS))
        return {arm: events, arm * 2: events}
    names = [arm, arm * 2, *([f"{arm}d", f"{arm}dd", f"{arm}nd"] if cell.kind == "ratio" else [])]
    found: Stream = {name: np.empty((runs, LOOKS)) for name in names}
    kept = []
    for look in range(LOOKS):
        shape = (runs, int(n[look]))
        if cell.kind == "ratio":
            views = 1 + rng.poisson(VIEWS, shape)
            values = rng.binomial(views, base[look]).astype(float)
            parts = {"d": views, "dd": views**2, "nd": views * values}
            for name, part in parts.items():
                found[arm + name][:, look] = part.sum(axis=1)
        elif cell.kind == "Poisson .1":
            values = rng.poisson(base[look], shape).astype(float)
        else:
            values = rng.standard_normal(shape)
            if cell.kind == "lognormal":
                spread = math.sqrt(math.expm1(SIGMA**2) * math.exp(SIGMA**2))
                values = np.exp(SIGMA * values) / spread
            values += base[look]
        found[arm][:, look] = values.sum(axis=1)
        found[arm * 2][:, look] = (values**2).sum(axis=1)
        kept.append(values[:raw])
    return found | ({f"{arm}_raw": np.concatenate(kept, axis=1)} if raw else {})


def information(nc: Floats, nt: Floats, epoch: NDArray[np.int64]) -> Floats:
    """Sum over epochs of nc nt / (nc + nt), by look."""
    h, before = np.zeros(len(epoch)), 0.0
    for e in np.unique(epoch):
        at = epoch == e
        c, t = np.cumsum(nc[at]), np.cumsum(nt[at])
        h[at] = before + c * t / (c + t)
        before = float(h[at][-1])
    return h


def _moments(
    stream: Stream, arm: str, at: NDArray[np.bool_], rate: Floats | None
) -> tuple[Any, ...]:
    """Units, means and centred squares of an arm in one epoch; of a ratio, of what linearises it.

    Args:
        stream: all of it.
        arm: "y" or "x".
        at: looks of the epoch.
        rate: the ratio by run and look, if the metric is one.
    """
    n = np.cumsum(stream["nc" if arm == "y" else "nt"][at])
    total, squares = (np.cumsum(stream[name][:, at], axis=1) for name in (arm, arm * 2))
    if rate is not None:
        d, dd, nd = (np.cumsum(stream[arm + name][:, at], axis=1) for name in ("d", "dd", "nd"))
        views = np.maximum(d / np.maximum(n, 1), 1e-9)
        squares = (squares - 2 * rate * nd + rate**2 * dd) / views**2
        total = (total - rate * d) / views
    mean = total / np.maximum(n, 1)
    return n, mean, np.maximum(squares - n * mean**2, 0.0)


def contrast(stream: Stream, *, whole: bool = False) -> tuple[Floats, Floats, Floats]:
    """S, V and H of the difference within epochs, or with `whole` of the totals."""
    epoch = 0 * stream["epoch"] if whole else stream["epoch"]
    runs = len(stream["x"])
    s, v, h = np.zeros((runs, LOOKS)), np.zeros((runs, LOOKS)), np.zeros(LOOKS)
    before: tuple[Any, Any, float] = (0.0, 0.0, 0.0)
    for e in np.unique(epoch):
        at = epoch == e
        rate = None
        if "yd" in stream:
            parts = [
                np.cumsum((stream["y" + k] + stream["x" + k])[:, at], axis=1) for k in ("", "d")
            ]
            rate = parts[0] / parts[1]
        (nc, mc, qc), (nt, mt, qt) = (_moments(stream, arm, at, rate) for arm in ("y", "x"))
        weight = nc * nt / (nc + nt)
        apart = qc / np.maximum(nc - 1, 1) / np.maximum(nc, 1)
        apart = apart + qt / np.maximum(nt - 1, 1) / np.maximum(nt, 1)
        both = (qc + qt) / np.maximum(nc + nt - 2, 1)
        variance = weight**2 * apart if whole else np.maximum(weight**2 * apart, weight * both)
        s[:, at], v[:, at] = before[0] + weight * (mt - mc), before[1] + variance
        h[at] = before[2] + weight
        last = np.flatnonzero(at)[-1:]
        before = (s[:, last], v[:, last], float(h[last][0]))
    return s, v, h


def enough(cell: Cell, stream: Stream) -> NDArray[np.bool_]:
    """Whether each arm has 25 units, of proportions 25 of both outcomes."""
    nc, nt = np.cumsum(stream["nc"]), np.cumsum(stream["nt"])
    if not cell.counts:
        return np.broadcast_to(np.minimum(nc, nt) >= 25, stream["x"].shape)
    y, x = np.cumsum(stream["y"], axis=1), np.cumsum(stream["x"], axis=1)
    return (np.minimum(y, nc - y) >= 25) & (np.minimum(x, nt - x) >= 25)


def ours(cell: Cell, stream: Stream) -> dict[str, NDArray[np.int64]]:
    """First rejecting looks of abkit's designs; all two-sided at .05, within epochs."""
    s, v, h = contrast(stream)
    ready = enough(cell, stream)
    planned = math.ceil(2 * h[-1])
    spread = np.sqrt(np.maximum(v, 1e-300) / h)
    z = np.abs(s) / np.sqrt(np.maximum(v, 1e-300))
    log_e = normal_log_mixture(s / spread, h, rho=AlwaysValid(planned_units=planned).rho)
    closed = np.array(CalibratedMixture(planned_units=planned).boundaries(h.tolist()))
    inside = int((h <= 1.01 * h[-1] / 2).sum())  # the horizon: half of the information
    plan = spending_plan((h[:inside] / h[inside - 1]).tolist(), alternative="two-sided")
    group = np.full(LOOKS, np.inf)
    group[:inside] = plan.boundaries
    found = {
        "abkit: always valid": first_of(ready & (log_e >= math.log(20))),
        "abkit: calibrated to 2 N": first_of(ready & (z >= closed)),
        "abkit: Lan-DeMets to N": first_of(ready & (z >= group)),
    }
    if cell.counts:
        found["abkit: hypergeometric"] = hypergeometric(stream, TiltPrior(alternative="two-sided"))
    return found


def formulas(cell: Cell, stream: Stream) -> dict[str, NDArray[np.int64]]:
    """Naive peeking, and the mSPRT of Johari et al. (2017), eq. 8, on the totals."""
    s, v, h = contrast(stream, whole=True)
    ready = enough(cell, stream)
    difference, variance = s / h, np.maximum(v, 1e-300) / h**2
    tau2 = stream["effect"] ** 2
    total = variance + tau2
    log_e = 0.5 * np.log(variance / total) + 0.5 * tau2 / total * difference**2 / variance
    return {
        "naive z at .05": first_of(ready & (np.abs(difference) >= 1.96 * np.sqrt(variance))),
        "mSPRT, formula": first_of(ready & (log_e >= math.log(20))),
    }
