"""Clusters: statsmodels' cluster-robust regression is the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from abkit.moments import Moments
from abkit.stats.cluster import cluster_difference, cluster_sums
from abkit.stats.difference import welch_t


def households(seed: int, clusters: int, shift: float = 0.0) -> list[list[float]]:
    generator = np.random.default_rng(seed)
    return [
        (shift + generator.normal() + generator.normal(size=1 + generator.poisson(3))).tolist()
        for _ in range(clusters)
    ]


def test_it_is_cluster_robust_regression() -> None:
    """As statsmodels with `cov_type="cluster"`, uncorrected, and G / (G - 1) in each arm."""
    arms = households(1, 40), households(2, 30, 0.4)
    result = cluster_difference(*(cluster_sums(map(Moments.of, arm)) for arm in arms))
    values = np.concatenate([np.array(home) for arm in arms for home in arm])
    sizes = [len(home) for arm in arms for home in arm]
    labels = np.repeat(np.arange(70), sizes)
    dummy = np.repeat([0.0] * 40 + [1.0] * 30, sizes)
    fit = sm.OLS(values, sm.add_constant(dummy)).fit(
        cov_type="cluster", cov_kwds={"groups": labels, "use_correction": False}
    )
    assert result.difference == pytest.approx(float(fit.params[1]), rel=1e-10)
    variance_control = float(fit.cov_params()[0, 0])
    variance_treatment = float(fit.bse[1]) ** 2 - variance_control
    expected = variance_control * 40 / 39 + variance_treatment * 30 / 29
    assert result.standard_error == pytest.approx(math.sqrt(expected), rel=1e-9)
    assert (result.n_control, result.n_treatment) == (40, 30)


def test_clusters_of_one_are_units() -> None:
    a, b = [1.0, 2.0, 4.0, 7.0], [2.0, 3.0, 3.0, 9.0]
    result = cluster_difference(*(cluster_sums(Moments.of([x]) for x in arm) for arm in (a, b)))
    plain = welch_t(Moments.of(a), Moments.of(b))
    assert result.p_value == pytest.approx(plain.p_value, rel=1e-12)
    assert result.lift_interval == plain.lift_interval


def test_counting_members_as_units_rejects_too_often_and_counting_clusters_does_not() -> None:
    naive, robust = 0, 0
    for run in range(500):
        arms = households(2 * run, 40), households(2 * run + 1, 40)
        result = cluster_difference(*(cluster_sums(map(Moments.of, arm)) for arm in arms))
        members = [Moments.of([x for home in arm for x in home]) for arm in arms]
        plain = welch_t(*members)
        assert result.p_value is not None
        assert plain.p_value is not None
        robust += result.p_value < 0.05
        naive += plain.p_value < 0.05
    assert robust <= stats.binom.isf(1e-6, 500, 0.05)
    assert naive > 75


def test_empty_clusters_are_left_out() -> None:
    assert cluster_sums([Moments(), Moments.of([1.0])]).n == 1
    assert cluster_sums([]).n == 0
