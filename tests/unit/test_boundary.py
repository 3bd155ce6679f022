"""Conjugate mixtures, stitching, and the confidence sequence of a proportion."""

from __future__ import annotations

import itertools
import math

import pytest
from scipy import stats

from abkit.errors import DesignError
from abkit.sequential.boundary import (
    bernoulli_interval,
    beta_binomial_boundary,
    beta_binomial_log_mixture,
    gamma_exponential_boundary,
    gamma_exponential_log_mixture,
    gamma_poisson_boundary,
    gamma_poisson_log_mixture,
    poly_stitching_boundary,
)

ALPHA = 0.05


@pytest.mark.parametrize("v", [0.5, 10.0, 1e4, 1e7])
def test_at_the_boundary_the_evidence_is_one_over_alpha(v: float) -> None:
    s = gamma_exponential_boundary(v, ALPHA, rho=10.0, c=1.5)
    assert gamma_exponential_log_mixture(s, v, rho=10.0, c=1.5) == pytest.approx(-math.log(ALPHA))
    s = gamma_poisson_boundary(v, ALPHA, rho=10.0, c=1.5)
    assert gamma_poisson_log_mixture(s, v, rho=10.0, c=1.5) == pytest.approx(-math.log(ALPHA))
    for side in ("two-sided", "greater", "less"):
        s = beta_binomial_boundary(v, ALPHA, rho=10.0, g=0.3, h=0.7, alternative=side)  # type: ignore[arg-type]
        largest = v / (0.7 if side == "less" else 0.3)
        assert 0 < s <= largest
        if s < largest:
            at = beta_binomial_log_mixture(
                -s if side == "less" else s,
                v,
                rho=10.0,
                g=0.3,
                h=0.7,
                alternative=side,  # type: ignore[arg-type]
            )
            assert at == pytest.approx(-math.log(ALPHA))


def test_without_data_there_is_no_evidence() -> None:
    assert gamma_exponential_log_mixture(0, 0, rho=3.0, c=2.0) == pytest.approx(0, abs=1e-12)
    assert gamma_poisson_log_mixture(0, 0, rho=3.0, c=2.0) == pytest.approx(0, abs=1e-12)
    assert beta_binomial_log_mixture(0, 0, rho=3.0, g=1.0, h=2.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_the_beta_binomial_mixture_has_mean_one_for_coins(p: float, side: str) -> None:
    n = 12
    total = sum(
        stats.binom.pmf(k, n, p)
        * math.exp(
            beta_binomial_log_mixture(
                k - n * p,
                n * p * (1 - p),
                rho=2.0,
                g=p,
                h=1 - p,
                alternative=side,  # type: ignore[arg-type]
            )
        )
        for k in range(n + 1)
    )
    assert total == pytest.approx(1, abs=1e-9)


def test_the_gamma_poisson_mixture_has_mean_one_for_poisson_counts() -> None:
    mean = 7.0
    total = sum(
        stats.poisson.pmf(k, mean)
        * math.exp(gamma_poisson_log_mixture(k - mean, mean, rho=4.0, c=1.0))
        for k in range(120)
    )
    assert total == pytest.approx(1, abs=1e-9)


def test_impossible_sums_are_said() -> None:
    assert gamma_exponential_log_mixture(-100, 1, rho=1.0, c=2.0) == -math.inf
    assert gamma_poisson_log_mixture(-100, 1, rho=1.0, c=2.0) == -math.inf
    with pytest.raises(DesignError, match="s must lie"):
        beta_binomial_log_mixture(100, 1, rho=1.0, g=0.5, h=0.5)


def test_intervals_of_a_proportion_shrink_and_stay_inside() -> None:
    assert bernoulli_interval(0, 0, n_opt=100) == (0.0, 1.0)
    assert bernoulli_interval(5, 5, n_opt=100)[1] == 1.0
    assert bernoulli_interval(0, 5, n_opt=100)[0] == 0.0
    widths = []
    for n in (10, 100, 10_000, 3_000_000_000):
        low, high = bernoulli_interval(3 * n // 10, n, n_opt=1_000)
        assert 0 <= low < 0.3 < high <= 1
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_intervals_of_a_proportion_mirror() -> None:
    for x, n in itertools.product((0, 3, 20), (20, 40)):
        low, high = bernoulli_interval(x, n, n_opt=50)
        other = bernoulli_interval(n - x, n, n_opt=50)
        assert (1 - high, 1 - low) == pytest.approx(other, abs=1e-9)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(DesignError, match="rho"):
        gamma_exponential_boundary(1.0, ALPHA, rho=0.0, c=1.0)
    with pytest.raises(DesignError, match="c, g and h"):
        gamma_poisson_boundary(1.0, ALPHA, rho=1.0, c=-1.0)
    with pytest.raises(DesignError, match="clock"):
        gamma_poisson_boundary(-1.0, ALPHA, rho=1.0, c=1.0)
    with pytest.raises(DesignError, match="successes"):
        bernoulli_interval(5, 4, n_opt=10)
    with pytest.raises(DesignError, match="n_opt"):
        bernoulli_interval(1, 4, n_opt=0)
    with pytest.raises(DesignError, match="eta"):
        poly_stitching_boundary(1.0, ALPHA, v_min=1.0, eta=1.0)


@pytest.mark.parametrize("s", [-500.0, -2_000.0, -4_000.0, -4_999.0])
def test_sums_far_below_zero_are_no_evidence_of_a_mean_above(s: float) -> None:
    assert gamma_exponential_log_mixture(s, 10_000.0, rho=10.0, c=2.0) < 0
    assert gamma_poisson_log_mixture(s, 10_000.0, rho=10.0, c=2.0) < 0
    sides = {"greater": s, "less": -s}
    for side, total in sides.items():
        found = beta_binomial_log_mixture(
            total,
            10_000.0,
            rho=10.0,
            g=0.5,
            h=0.5,
            alternative=side,  # type: ignore[arg-type]
        )
        assert found < 0
