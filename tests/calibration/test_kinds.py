"""Error rates of what `analyze` compares beyond means, at the border of each null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from abkit.analysis import analyze
from abkit.moments import Moments
from abkit.stats.stratified_score import stratified_score

if TYPE_CHECKING:
    from collections.abc import Callable

ROLES = {"unit": "user", "variant": "arm", "control": "a"}
ALPHA = 0.05
FALSE_RED = 1e-7  # chance that a test with the right level fails here


def inside(rejected: int, runs: int, *, least: float, most: float) -> None:
    """The rate may be anything from least to most."""
    lower = stats.binom.ppf(FALSE_RED, runs, least)
    upper = stats.binom.isf(FALSE_RED, runs, most)
    assert lower <= rejected <= upper, f"{rejected} of {runs}"


def clusters(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Sizes and levels that go together, thirty clusters an arm."""
    size = rng.poisson(8, 60) + 1
    own = rng.normal(10 + 0.2 * size, 1.0)
    who = np.repeat(np.arange(60), size)
    frame = pd.DataFrame({"who": who, "user": range(len(who))})
    frame["arm"] = np.where(frame.who % 2, "b", "a")
    frame["x"] = own[frame.who] + rng.normal(size=len(who))
    return frame, {"metrics": ["x"], "cluster": "who"}


def relative(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Treatment is worse by exactly the margin; control's mean is eight errors from zero."""
    frame = pd.DataFrame({"user": range(300), "arm": ["a", "b", "b"] * 100})
    mean = np.where(frame.arm == "a", 1.0, 0.8)
    frame["x"] = rng.gamma(0.7, mean / 0.7)
    return frame, {"metrics": ["x"], "margins": {"x": "-20%"}}


def paired_share(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The same, by pairs that resemble each other."""
    base = rng.gamma(4, 1, 80)
    x = np.concatenate([base, 0.8 * base + rng.normal(0, 0.5, 80)])
    frame = pd.DataFrame({"user": [*range(80)] * 2, "arm": ["a"] * 80 + ["b"] * 80, "x": x})
    return frame, {"metrics": ["x"], "margins": {"x": "-20%"}, "paired": True}


def counted(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rates that differ by exactly the margin, by unequal exposure."""
    frame = pd.DataFrame({"user": range(90), "arm": ["a", "b", "b"] * 30})
    frame["hours"] = rng.uniform(0.5, 3, 90)
    frame["x"] = rng.poisson(frame.hours * np.where(frame.arm == "a", 1.0, 1.3))
    return frame, {"counts": {"x": ("x", "hours")}, "margins": {"x": "30%"}}


def quantile(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The 90th percentile is higher by exactly the margin."""
    frame = pd.DataFrame({"user": range(400), "arm": ["a", "b"] * 200})
    frame["x"] = rng.exponential(10, 400) + 2.0 * (frame.arm == "b")
    return frame, {"quantiles": {"x": 0.9}, "margins": {"x p90": 2.0}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "least"),
    [(clusters, 0.035), (relative, 0.03), (paired_share, 0.04), (counted, 0.025), (quantile, 0.02)],
)
def test_the_error_at_the_border_is_at_most_alpha(
    world: Callable[[np.random.Generator], tuple[pd.DataFrame, dict[str, Any]]], least: float
) -> None:
    rng = np.random.default_rng(20)
    runs, rejected = 300, 0
    for _ in range(runs):
        frame, options = world(rng)
        p = analyze(frame, **ROLES, **options).results[0].estimate.p_value
        rejected += p is not None and p <= ALPHA
    inside(rejected, runs, least=least, most=ALPHA + 0.015)


def test_the_stratified_score_test_keeps_its_level_with_few_events() -> None:
    rng = np.random.default_rng(21)
    sizes, rates = [(200, 20), (100, 100), (60, 180)], [0.02, 0.05, 0.1]
    runs, rejected = 400, 0
    for _ in range(runs):
        strata = [
            (
                Moments.of_counts(n, int(rng.binomial(n, p))),
                Moments.of_counts(m, int(rng.binomial(m, p + 0.03))),
            )
            for (n, m), p in zip(sizes, rates, strict=True)
        ]
        p = stratified_score(strata, margin=0.03, alternative="less").p_value
        rejected += p is not None and p <= ALPHA
    inside(rejected, runs, least=0.03, most=ALPHA + 0.01)
