"""How often, and how soon, do anytime-valid tests reject? Ours beside naive z, mSPRT and peers.

All tests see the same streams of two proportions: without effect they should reject at most 5 % of
the runs, with one nearly all, soon. Peers run under interpreters of their own, since no single
environment holds them; without one they are left out. Writes `benchmarks/results/anytime.md`.

    python3 dev.py run python benchmarks/anytime.py --gbstats PYTHON --savvi PYTHON
"""

from __future__ import annotations

import argparse
import math
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.crossing import mixture_crossing
from abkit.sequential.hypergeometric import fnch_log_likelihood
from abkit.sequential.normal import normal_log_mixture
from abkit.sequential.tilting import TiltPrior

HERE = Path(__file__).parent
RESULT = HERE / "results" / "anytime.md"
SEED = 5
NEVER = -1
CHUNK = 100
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """A stream: blocks of units, a base rate by look and a relative risk.

    Args:
        name: for the table.
        planned: units of both arms at which a fixed test has power .8 (N); the stream ends at
            twice that.
        looks: number of looks.
        shares: share of treatment, by quarter of the stream.
        rates: base rate at the first and at the last look.
        risk: relative risk of treatment; 1 for none.
        expected: relative risk that the tests are told to look for.
        one_sided: whether the question is "is treatment higher?".
        runs: number of streams.
    """

    name: str
    planned: int
    looks: int
    shares: tuple[float, float, float, float]
    rates: tuple[float, float]
    risk: float
    expected: float
    one_sided: bool = False
    runs: int = 1_000

    def blocks(self) -> tuple[Counts, Counts, Counts]:
        """Units in control and in treatment, and the allocation epoch, by look."""
        n = np.diff(np.round(np.linspace(0, 2 * self.planned, self.looks + 1))).astype(int)
        epoch = np.arange(self.looks) * 4 // self.looks
        share = np.array(self.shares)[epoch]
        nt = np.diff(np.round(np.concatenate([[0], np.cumsum(n * share)]))).astype(int)
        return n - nt, nt, epoch if len(set(self.shares)) > 1 else 0 * epoch

    def draw(self) -> dict[str, NDArray[np.int64]]:
        """Units and events by run and look."""
        rng = np.random.default_rng(SEED)
        nc, nt, epoch = self.blocks()
        rate = np.linspace(*self.rates, self.looks)
        y = rng.binomial(nc, rate, (self.runs, self.looks))
        x = rng.binomial(nt, np.minimum(1, rate * self.risk), (self.runs, self.looks))
        return {"nc": nc, "nt": nt, "epoch": epoch, "y": y, "x": x}


HALF = (0.5, 0.5, 0.5, 0.5)
CANARY = (0.05, 0.05, 0.05, 0.05)
RAMP = (0.01, 0.05, 0.25, 0.5)
RARE, FLAT = (0.001, 0.001), (0.1, 0.1)
SCENARIOS = (
    Scenario("p = .1, no effect", 29_500, 100, HALF, FLAT, 1.0, 1.1),
    Scenario("p = .1, + 10 %", 29_500, 100, HALF, FLAT, 1.1, 1.1),
    Scenario("p = .001, no effect", 50_000, 100, HALF, RARE, 1.0, 2.0),
    Scenario(
        "ramp 1-5-25-50 %, p .02 to .04, no effect", 50_000, 100, RAMP, (0.02, 0.04), 1.0, 1.2
    ),
    Scenario("5 % canary, p = .01, no effect", 30_000, 300, CANARY, (0.01, 0.01), 1.0, 2.0, True),
    Scenario("5 % canary, p = .01, doubled", 30_000, 300, CANARY, (0.01, 0.01), 2.0, 2.0, True),
)


def first_of(crossed: NDArray[np.bool_]) -> Counts:
    """Look of the first crossing by run, -1 for none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1), NEVER)


def pooled(stream: dict[str, Counts]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Difference and its variance from the totals, and whether each arm has 25 of both outcomes."""
    nc, nt = np.cumsum(stream["nc"]), np.maximum(1, np.cumsum(stream["nt"]))
    y, x = np.cumsum(stream["y"], axis=1), np.cumsum(stream["x"], axis=1)
    pc, pt = y / nc, x / nt
    variance = np.maximum(pc * (1 - pc) / nc + pt * (1 - pt) / nt, 1e-300)
    enough = (np.minimum(y, nc - y) >= 25) & (np.minimum(x, nt - x) >= 25)
    return pt - pc, variance, enough


def stratified(stream: dict[str, Counts]) -> tuple[Floats, Floats, Floats]:
    """S, V and H of the contrast within allocation epochs."""
    epoch, runs = stream["epoch"], len(stream["x"])
    s, v, h = np.zeros((runs, len(epoch))), np.zeros((runs, len(epoch))), np.zeros(len(epoch))
    before: tuple[Floats, Floats, float] = (np.zeros((runs, 1)), np.zeros((runs, 1)), 0.0)
    for e in np.unique(epoch):
        at = epoch == e
        nc, nt = np.cumsum(stream["nc"][at]), np.cumsum(stream["nt"][at])
        y, x = np.cumsum(stream["y"][:, at], axis=1), np.cumsum(stream["x"][:, at], axis=1)
        pc, pt = y / np.maximum(nc, 1), x / np.maximum(nt, 1)
        weight = nc * nt / (nc + nt)
        apart = pc * (1 - pc) / np.maximum(nc - 1, 1) + pt * (1 - pt) / np.maximum(nt - 1, 1)
        both = (nc * pc * (1 - pc) + nt * pt * (1 - pt)) / np.maximum(nc + nt - 2, 1)
        s[:, at] = before[0] + weight * (pt - pc)
        v[:, at] = before[1] + np.maximum(weight**2 * apart, weight * both)
        h[at] = before[2] + weight
        last = np.flatnonzero(at)[-1:]
        before = (s[:, last], v[:, last], float(h[last][0]))
    return s, v, h


def hypergeometric(stream: dict[str, Counts], prior: TiltPrior) -> Counts:
    """The exact mixture, whole paths at a time."""
    used = prior.weights > 0
    nodes, logs = prior.nodes[used], np.log(prior.weights[used])
    x, totals = stream["x"], stream["x"] + stream["y"]
    nt, nc = (np.broadcast_to(stream[name], x.shape) for name in ("nt", "nc"))
    keys, row = np.unique(
        np.stack([nt, nc, totals], axis=-1).reshape(-1, 3), axis=0, return_inverse=True
    )
    table = np.zeros((len(keys), len(nodes)))
    for i, (t, c, m) in enumerate(keys.tolist()):
        least = max(0, m - c)
        table[i] = least * nodes - fnch_log_likelihood(least, t, c, m, nodes)[0]
    row = row.reshape(x.shape)
    crossed = np.zeros(x.shape, dtype=bool)
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        path = np.cumsum(x[part, :, None] * nodes - table[row[part]], axis=1) + logs
        crossed[part] = special.logsumexp(path, axis=2) >= math.log(20)
    return first_of(crossed)


def ours(scenario: Scenario, stream: dict[str, Counts]) -> dict[str, Counts]:
    """First rejecting looks of abkit's designs."""
    side = "greater" if scenario.one_sided else "two-sided"
    s, v, h = stratified(stream)
    enough = pooled(stream)[2]
    planned = math.ceil(2 * h[-1])
    spread = np.sqrt(np.maximum(v, 1e-300) / h)
    open_end = AlwaysValid(planned_units=planned, alternative=side)
    log_e = normal_log_mixture(s / spread, h, rho=open_end.rho, alternative=side)
    z = s / np.sqrt(np.maximum(v, 1e-300))
    boundary = np.array(
        CalibratedMixture(planned_units=planned, alternative=side).boundaries(h.tolist())
    )
    height = z if scenario.one_sided else np.abs(z)
    found = {
        "abkit: normal mixture, open end": first_of(enough & (log_e >= math.log(20))),
        "abkit: calibrated to 2 N": first_of(enough & (height >= boundary)),
        "abkit: hypergeometric mixture": hypergeometric(stream, TiltPrior(alternative=side)),
    }
    prior = TiltPrior(alternative=side, expected=math.log(scenario.expected))
    found["abkit: the same, told what to expect"] = hypergeometric(stream, prior)
    return found


def others(scenario: Scenario, stream: dict[str, Counts]) -> dict[str, Counts]:
    """Naive z and mSPRT on the totals."""
    difference, variance, enough = pooled(stream)
    z = difference / np.sqrt(variance)
    height = z if scenario.one_sided else np.abs(z)
    critical = 1.6449 if scenario.one_sided else 1.96
    tau2 = (scenario.rates[0] * (scenario.expected - 1)) ** 2
    total = variance + tau2
    log_e = 0.5 * np.log(variance / total) + 0.5 * tau2 / total * z**2
    return {
        "naive z at .05": first_of(enough & (height >= critical)),
        "mSPRT, tau = the effect": first_of(enough & (log_e >= math.log(20))),
    }


def peer(
    name: str, python: str, scenario: Scenario, stream: dict[str, Counts]
) -> tuple[Counts, str]:
    """First rejecting looks of a peer, under its own interpreter, and its version."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder) / "stream.npz", Path(folder) / "answer.npz"
        np.savez(here, planned=scenario.planned, **stream)
        script = HERE / "anytime_peers.py"
        subprocess.run([python, str(script), name, str(here), str(there)], check=True)
        answer = np.load(there)
        return answer["first"], str(answer["version"])


def line(name: str, scenario: Scenario, first: Counts) -> str:
    """Row of the table: rejected, mean and median of the units at the stop."""
    nc, nt, _ = scenario.blocks()
    units = np.cumsum(nc + nt)
    stop = np.where(first == NEVER, units[-1], units[first])
    median = f"{np.median(stop):,.0f}" if (first != NEVER).mean() > 0.5 else "-"
    mean = f"{stop.mean() / scenario.planned:.2f}" if scenario.risk != 1 else ""
    return f"| {name} | {(first != NEVER).mean():.3f} | {mean} | {median if mean else ''} |"


def main() -> None:
    """Run every scenario and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gbstats", metavar="PYTHON", help="interpreter that has gbstats")
    parser.add_argument("--savvi", metavar="PYTHON", help="interpreter that has savvi")
    asked = vars(parser.parse_args())
    peers = {name: python for name, python in asked.items() if python}
    out = ["# Anytime-valid tests on the same streams", ""]
    out += [
        "Alpha .05 over all looks. N is planned: a fixed test of + 10 % has power .8 there.",
        "Stops are in units of both arms; runs that never reject count with 2 N. Ours within",
        "allocation epochs, the others on the totals, as they do it. gbstats: two-sided, relative,",
        "tuned to N, 300 runs; savvi: two-sided, default prior. Streams end at 2 N. The boundaries",
        "of confseq equal ours to ten digits (tests/reference/test_anytime_published.py).",
    ]
    versions: dict[str, str] = {}
    for scenario in SCENARIOS:
        stream = scenario.draw()
        out += ["", f"## {scenario.name}: {scenario.looks} looks, {scenario.runs:,} runs", ""]
        out += ["| test | rejected | mean stop / N | median units |", "|---|--:|--:|--:|"]
        results = ours(scenario, stream) | others(scenario, stream)
        for name, python in peers.items():
            less = dict(stream)
            if name == "gbstats":
                less |= {"x": stream["x"][:300], "y": stream["y"][:300]}
            results[name], versions[name] = peer(name, python, scenario, less)
        out += [line(name, scenario, first) for name, first in results.items()]
        print("\n".join(out[-len(results) - 4 :]), flush=True)
    ville = mixture_crossing(math.log(20), 24.4, sides=2).probability
    out += [
        "",
        f"An open end wastes: by 2 N the mixture has spent {ville:.3f} of its .05 at most.",
        "",
        f"Python {platform.python_version()}, numpy {version('numpy')}, scipy {version('scipy')}.",
        f"Peers: {', '.join(' '.join(pair) for pair in versions.items()) or 'none'}.",
    ]
    RESULT.write_text("\n".join(out) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
