"""Claims about the exact and the calibrated designs, and what the grid has no cell for.

The grid itself is in `test_grid.py`. The bound is exact: a test whose error is at most alpha
exceeds it with probability below 1e-6.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from abkit.sequential.betting import BettingMean
from abkit.sequential.calibrated import CalibratedMixture
from abkit.sequential.paired import coin_log_e
from abkit.sequential.quantile import quantile_ranks
from abkit.sequential.tilting import TiltPrior
from tests.calibration.evidence import log_paths, partitions
from tests.calibration.streams import most_rejections, note

# --- claims of statistics.md ---------------------------------------------------------------------


def test_a_doubled_error_rate_on_a_5_percent_canary() -> None:
    """Errors 1 -> 2 %, 5 % in treatment, one-sided alpha .05, looks every 200 units.

    The claim, a median of 16,000 units, is for a design that says what it looks for.
    """
    rng = np.random.default_rng(5)
    runs, step, looks = 800, 200, 250
    nt, nc = np.full(looks, 10), np.full(looks, 190)
    y, x = rng.binomial(190, 0.01, (runs, looks)), rng.binomial(10, 0.02, (runs, looks))
    medians = {}
    for expected in (math.log(2), None):
        prior = TiltPrior(alternative="greater", expected=expected)
        table, row = partitions(nt, nc, x + y, prior.nodes, poisson=False)
        crossed = log_paths(prior.nodes, prior.weights, x, table, row) >= math.log(20)
        first = np.where(crossed.any(axis=1), (crossed.argmax(axis=1) + 1) * step, np.inf)
        medians[expected] = float(np.median(first))
        note(f"median units to find a doubled rate, expected {expected}", medians[expected])
    assert medians[math.log(2)] <= 16_000
    assert medians[None] <= 19_000


@pytest.mark.parametrize("looks", [10, 105, 200])
def test_power_and_mean_stop_of_the_calibrated_mixture(looks: int) -> None:
    """Power >= .92 by 2 N with a mean stop <= .90 N, where a fixed test of N has power .8.

    With ten looks the mean stop is later, since nobody looks in between.
    """
    design = CalibratedMixture(planned_units=40_000)
    effect = 2.801585 / math.sqrt(10_000)
    power, mean = design.operating_characteristics(effect)
    note("power by 2 N, looking all the time", power)
    note("mean stop / N, looking all the time", mean)
    assert power >= 0.92
    assert mean <= 0.9
    rng = np.random.default_rng(7)
    h = np.linspace(0, 20_000, looks + 1)[1:]
    boundaries = np.array(design.boundaries(h.tolist()))
    noise = np.cumsum(rng.standard_normal((4_000, looks)), axis=1) * math.sqrt(h[0])
    false, found = (np.abs(noise + size * h) / np.sqrt(h) >= boundaries for size in (0.0, effect))
    stop = np.where(found.any(axis=1), h[found.argmax(axis=1)], h[-1]) / 10_000
    note(f"false positives, {looks} looks", false.any(axis=1).mean())
    note(f"power by 2 N, {looks} looks", found.any(axis=1).mean())
    note(f"mean stop / N, {looks} looks", stop.mean())
    assert false.any(axis=1).sum() <= most_rejections(4_000, 0.05)
    assert false.any(axis=1).mean() >= 0.035  # the alpha is spent, whatever the looks
    assert found.any(axis=1).mean() >= 0.92
    assert stop.mean() <= (0.96 if looks == 10 else 0.9)


# --- one arm, pairs, quantiles -------------------------------------------------------------------


def test_betting_covers_a_skewed_mean_from_the_first_unit_on() -> None:
    """Beta(.2, 1.8): mean .1, most values near 0, some near 1; the true mean as the null."""
    rng = np.random.default_rng(8)
    design = BettingMean(null=0.1, grid=10)
    runs = 200
    caught = 0
    for values in rng.beta(0.2, 1.8, (runs, 300)):
        state = design.start()
        for part in np.split(values, 30):
            state = state.update(part.tolist())
            if design.look(state).decision == "reject":
                caught += 1
                break
    note("betting: false positives", caught / runs)
    assert caught <= most_rejections(runs, 0.05)
    found = sum(
        BettingMean(null=0.1, grid=10)
        .look(BettingMean(null=0.1, grid=10).start().update(values.tolist()))
        .decision
        == "reject"
        for values in rng.beta(0.4, 1.6, (60, 300))
    )
    note("betting: power at mean .2", found / 60)
    assert found >= 54


def test_discordant_pairs() -> None:
    """Looks at every discordant pair."""
    rng = np.random.default_rng(9)
    runs, pairs = 1_000, 300
    for chance, least, most in ((0.5, 0, most_rejections(runs, 0.05)), (0.65, 900, runs)):
        wins = np.cumsum(rng.random((runs, pairs)) < chance, axis=1)
        n = np.arange(1, pairs + 1)
        log_e = special.betaln(5 + wins, 5 + n - wins) - special.betaln(5, 5) + n * math.log(2)
        assert log_e[0, -1] == pytest.approx(
            coin_log_e(int(wins[0, -1]), int(pairs - wins[0, -1])), abs=1e-9
        )
        rejected = int((log_e >= math.log(20)).any(axis=1).sum())
        note(f"discordant pairs, wins {chance}: rejected", rejected / runs)
        assert least <= rejected <= most


def test_quantile_sequences_cover_at_all_looks() -> None:
    """95th percentile, 40 looks up to 4,000 units: counts below the true quantile suffice."""
    rng = np.random.default_rng(10)
    runs, looks = 2_000, np.arange(100, 4_001, 100)
    below = np.cumsum(rng.binomial(100, 0.95, (runs, len(looks))), axis=1)
    ranks = np.array([quantile_ranks(n, 0.95, n_opt=1_000) for n in looks.tolist()])
    missed = int(((below < ranks[:, 0]) | (below >= ranks[:, 1])).any(axis=1).sum())
    note("quantiles: missed", missed / runs)
    assert missed <= most_rejections(runs, 0.05)
    width = (ranks[-1, 1] - ranks[-1, 0]) / 4_000
    note("quantiles: width in probability at 4,000", float(width))
    assert width <= 0.027  # a fixed 95 % interval has .0135
