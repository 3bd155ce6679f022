"""The bootstrap is scipy's: what is tested here is the wiring, the seed and the refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from abkit.errors import ConfigError, DataError
from abkit.moments import Moments
from abkit.stats.bootstrap import MOST_JACKKNIFE, BootstrapMethod, bootstrap_difference
from abkit.stats.difference import welch_t

GENERATOR = np.random.default_rng(4)
CONTROL, TREATMENT = GENERATOR.exponential(1.0, 200), GENERATOR.exponential(1.3, 150)
METHODS: tuple[BootstrapMethod, ...] = ("bca", "percentile", "basic")


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_is_near_welch(method: BootstrapMethod) -> None:
    result = bootstrap_difference(CONTROL, TREATMENT, seed=1, resamples=4_000, method=method)
    welch = welch_t(Moments.of(CONTROL.tolist()), Moments.of(TREATMENT.tolist()))
    assert result.difference == pytest.approx(welch.difference, rel=1e-12)
    assert result.standard_error == pytest.approx(welch.standard_error, rel=0.05)
    assert result.interval is not None
    assert welch.interval is not None
    assert result.interval.lower == pytest.approx(welch.interval.lower, abs=0.05)
    assert result.interval.upper == pytest.approx(welch.interval.upper, abs=0.05)


def test_it_is_scipys_with_this_seed() -> None:
    expected = stats.bootstrap(
        (TREATMENT, CONTROL),
        lambda x, y, axis=-1: np.median(x, axis=axis) - np.median(y, axis=axis),
        n_resamples=500,
        method="BCa",
        rng=np.random.default_rng(9),
    ).confidence_interval
    result = bootstrap_difference(CONTROL, TREATMENT, statistic=np.median, seed=9, resamples=500)
    assert result.interval is not None
    assert (result.interval.lower, result.interval.upper) == (expected.low, expected.high)


def test_the_same_seed_gives_the_same_digits() -> None:
    one, two, other = (
        bootstrap_difference(CONTROL, TREATMENT, seed=seed, resamples=300) for seed in (1, 1, 2)
    )
    assert one == two != other


def test_one_side_has_one_infinite_end() -> None:
    result = bootstrap_difference(CONTROL, TREATMENT, seed=1, resamples=300, alternative="greater")
    assert result.interval is not None
    assert result.interval.upper == math.inf


def test_work_of_minutes_is_refused() -> None:
    many = np.zeros(MOST_JACKKNIFE + 1)
    many[0] = 1.0
    assert bootstrap_difference(many, CONTROL, seed=1, resamples=100).status == "too_large"
    percentile = bootstrap_difference(many, CONTROL, seed=1, resamples=100, method="percentile")
    assert percentile.status == "ok"
    assert bootstrap_difference(CONTROL, many, seed=1, resamples=10**8).status == "too_large"


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ConfigError, match="resamples"):
        bootstrap_difference(CONTROL, TREATMENT, seed=1, resamples=10)
    with pytest.raises(ConfigError, match="'studentised'"):
        bootstrap_difference(CONTROL, TREATMENT, seed=1, method="studentised")  # type: ignore[arg-type]
    with pytest.raises(DataError):
        bootstrap_difference([1.0, math.nan], TREATMENT, seed=1)


def test_a_statistic_that_is_not_finite_is_undefined() -> None:
    def variation(x: Any, axis: int) -> Any:
        means = np.mean(x, axis=axis)
        return np.std(x, axis=axis) / np.where(means == 0, np.nan, means)

    result = bootstrap_difference([0.0] * 5, [1.0, 2.0, 3.0], statistic=variation, seed=1)
    assert (result.status, result.difference, result.mean_control) == ("undefined", None, None)
