"""Covariate adjustment: statsmodels' least squares is the oracle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from abkit.comoments import Comoments
from abkit.errors import ConfigError
from abkit.stats.covariate import adjusted_difference, adjustment
from abkit.stats.difference import welch_t

N = 300, 200


def drawn(seed: int = 0, effect: float = 0.2, base: float = 0.0) -> list[dict[str, Any]]:
    """Two arms with two covariates that predict the metric, and one that does not."""
    generator = np.random.default_rng(seed)
    arms = []
    for n, shift in zip(N, (0.0, effect), strict=True):
        a, b, noise = generator.normal(size=(3, n))
        y = shift + 0.8 * a - 0.5 * b + generator.normal(size=n)
        arms.append({"y": base + y, "a": base + a, "b": base + b + 0.3 * a, "noise": noise})
    return arms


def regression(arms: list[dict[str, Any]], covariates: tuple[str, ...], kind: str) -> Any:
    y = np.concatenate([arm["y"] for arm in arms])
    columns = [np.repeat([0.0, 1.0], N)]
    columns += [np.concatenate([arm[name] for arm in arms]) for name in covariates]
    return sm.OLS(y, sm.add_constant(np.column_stack(columns))).fit(cov_type=kind)


@pytest.mark.parametrize("covariates", [("a",), ("a", "b"), ("a", "b", "noise")])
def test_it_is_least_squares(covariates: tuple[str, ...]) -> None:
    arms = drawn()
    result = adjusted_difference(*map(Comoments.of, arms), metric="y", covariates=covariates)
    oracle = regression(arms, covariates, "HC1")
    assert result.difference == pytest.approx(float(oracle.params[1]), rel=1e-10)
    assert result.standard_error == pytest.approx(float(oracle.bse[1]), rel=0.01)
    within = [sum(p) for p in _pooled(arms, covariates)]
    assert len(within) == 1 + len(covariates)
    found = adjustment(_pooled(arms, covariates), sum(N) - 2)
    assert found.theta == pytest.approx(tuple(oracle.params[2:]), rel=1e-9)


def _pooled(arms: list[dict[str, Any]], covariates: tuple[str, ...]) -> list[list[float]]:
    parts = [
        Comoments.of({name: arm[name] for name in ("y", *covariates)}).products for arm in arms
    ]
    return (np.array(parts[0]) + np.array(parts[1])).tolist()  # type: ignore[no-any-return]


def test_the_standard_error_is_that_of_the_adjusted_values() -> None:
    arms = drawn(3)
    result = adjusted_difference(*map(Comoments.of, arms), metric="y", covariates=["a", "b"])
    theta = regression(arms, ("a", "b"), "nonrobust").params[2:]
    variances = [
        np.var(arm["y"] - theta[0] * arm["a"] - theta[1] * arm["b"], ddof=1) / n
        for arm, n in zip(arms, N, strict=True)
    ]
    assert result.standard_error == pytest.approx(math.sqrt(sum(variances)), rel=1e-10)
    plain = welch_t(*(Comoments.of(arm).moments("y") for arm in arms))
    assert plain.standard_error is not None
    assert result.variance_reduction == pytest.approx(
        1 - sum(variances) / plain.standard_error**2, rel=1e-9
    )
    assert result.variance_reduction is not None
    assert 0.3 < result.variance_reduction < 0.6


def test_a_large_mean_costs_no_precision() -> None:
    small, large = (
        adjusted_difference(
            *map(Comoments.of, drawn(1, base=base)), metric="y", covariates=["a", "b"]
        )
        for base in (0.0, 1.7e9)
    )
    assert large.difference == pytest.approx(small.difference, rel=1e-5)
    assert large.standard_error == pytest.approx(small.standard_error, rel=1e-6)


@pytest.mark.parametrize("covariates", [["a", "twice"], ["flat"], ["a", "flat"], ["a", "b", "sum"]])
def test_covariates_that_say_the_same_are_refused(covariates: list[str]) -> None:
    arms = [
        Comoments.of(
            {
                **arm,
                "twice": 2 * arm["a"] - 7,
                "flat": np.full(n, 3.0),
                "sum": arm["a"] + arm["b"],
            }
        )
        for arm, n in zip(drawn(), N, strict=True)
    ]
    result = adjusted_difference(*arms, metric="y", covariates=covariates)
    assert (result.status, result.p_value, result.interval) == ("collinear", None, None)
    assert result.mean_control is not None


def test_more_covariates_than_units_are_insufficient() -> None:
    arm = Comoments.of({"y": [1.0, 2.0], "a": [0.0, 1.0], "b": [1.0, 1.5]})
    result = adjusted_difference(arm, arm, metric="y", covariates=["a", "b"])
    assert result.status == "insufficient_data"


def test_a_covariate_that_says_all_leaves_no_variance() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    arm = Comoments.of({"y": values, "a": values})
    assert adjusted_difference(arm, arm, metric="y", covariates=["a"]).status == "zero_variance"


def test_what_cannot_be_asked_is_refused() -> None:
    arm = Comoments.of({"y": [1.0, 2.0], "a": [0.0, 1.0]})
    for covariates in ([], ["y"], ["a", "a"]):
        with pytest.raises(ConfigError):
            adjusted_difference(arm, arm, metric="y", covariates=covariates)
    with pytest.raises(ConfigError, match="theta_from"):
        adjusted_difference(arm, arm, metric="y", covariates=["a"], theta_from="x")  # type: ignore[arg-type]


def test_ratios_adjust_as_their_linearised_values_do() -> None:
    generator = np.random.default_rng(8)
    arms = []
    for n in N:
        views = generator.poisson(5, n) + 1.0
        before = generator.poisson(5, n) + 1.0
        taste = generator.normal(size=n)
        arms.append(
            {
                "clicks": views * (0.3 + 0.1 * taste),
                "views": views,
                "clicks_before": before * (0.3 + 0.1 * taste),
                "views_before": before,
            }
        )
    names = ("clicks", "views"), ("clicks_before", "views_before")
    result = adjusted_difference(*map(Comoments.of, arms), metric=names[0], covariates=[names[1]])
    lines = []
    for arm in arms:
        line = {}
        for key, (top, bottom) in zip(("y", "a"), names, strict=True):
            r = arm[top].mean() / arm[bottom].mean()
            line[key] = r + (arm[top] - r * arm[bottom]) / arm[bottom].mean()
        lines.append(line)
    oracle = regression(lines, ("a",), "nonrobust")
    assert result.difference == pytest.approx(float(oracle.params[1]), rel=1e-9)
    assert result.variance_reduction is not None
    assert result.variance_reduction > 0.3
