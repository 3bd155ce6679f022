"""A/A runs of the simulator itself: sound designs keep alpha, peeking does not.

The bound is exact: a test whose error is at most alpha exceeds it with probability below 1e-6.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from abkit.planning import simulate_aa, simulate_power

RUNS = 2_000
MOST = int(stats.binom.isf(1e-6, RUNS, 0.05))
DESIGNS = ("fixed", "group-sequential", "pocock", "calibrated", "always-valid", "peeking")
KINDS = ("normal", "bernoulli .3", "bernoulli .05", "gamma", "clustered")


def data(kind: str, n: int = 4_000) -> tuple[pd.DataFrame, dict[str, str]]:
    rng = np.random.default_rng(11)
    frame = pd.DataFrame({"unit": range(n)})
    if kind == "clustered":
        group = rng.integers(0, n // 5, n)
        frame["y"] = rng.normal(0, 1, n // 5)[group] + rng.normal(0, 1, n)
        return frame.assign(group=group), {"cluster": "group"}
    rate = {"bernoulli .3": 0.3, "bernoulli .05": 0.05}.get(kind)
    if rate is not None:
        frame["y"] = rng.random(n) < rate
    else:
        frame["y"] = rng.normal(5, 2, n) if kind == "normal" else rng.gamma(0.5, 10.0, n)
    return frame, {}


@pytest.mark.parametrize("share", [0.5, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_sound_designs_keep_alpha_and_peeking_does_not(kind: str, share: float) -> None:
    frame, extra = data(kind)
    report = simulate_aa(
        frame,
        unit="unit",
        metrics=["y"],
        designs=DESIGNS,
        looks=20,
        runs=RUNS,
        share=share,
        **extra,
    )
    analysis = "cluster" if extra else "unit"
    for name in DESIGNS[:-1]:
        found = report.design(name, analysis=analysis)
        assert found.rejections <= MOST, (name, found.rejections)
    assert report.design("peeking", analysis=analysis).rejections > MOST
    assert report.passed
    assert report.srm_alarms <= int(stats.binom.isf(1e-6, RUNS, report.srm_alpha))
    if extra:
        assert report.design("fixed", analysis="row").rejections > MOST


@pytest.mark.parametrize("kind", KINDS)
def test_an_effect_that_is_large_enough_is_found(kind: str) -> None:
    frame, extra = data(kind)
    spread = float(frame.y.std()) * (1.7 if extra else 1.0)
    report = simulate_power(
        frame,
        unit="unit",
        metrics=["y"],
        difference=0.15 * spread,
        designs=DESIGNS[:-1],
        looks=20,
        runs=500,
        **extra,
    )
    for name in DESIGNS[:-1]:
        assert report.design(name, analysis="cluster" if extra else "unit").rate > 0.8, name
