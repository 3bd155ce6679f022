"""Posteriors: closed forms and scipy's quadrature are the oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from abkit.errors import DesignError
from abkit.moments import Moments
from abkit.stats.bayes import Beta, Normal, beta_binomial, normal_means, normal_posterior
from abkit.stats.difference import welch_t


def arm(won: int, n: int) -> Moments:
    return Moments.of_counts(n, won)


def chance(c: tuple[int, int], t: tuple[int, int]) -> float:
    """Finite sum for whole parameters (Miller 2014)."""
    (a, b), (p, q) = c, t
    return sum(
        math.exp(
            special.betaln(a + i, b + q)
            - math.log(q + i)
            - special.betaln(1 + i, q)
            - special.betaln(a, b)
        )
        for i in range(p)
    )


counts = st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda x: (min(x), max(x)))


@settings(max_examples=60, deadline=None)
@given(c=counts, t=counts)
def test_the_chance_to_beat_is_the_finite_sum(c: tuple[int, int], t: tuple[int, int]) -> None:
    expected = chance((c[0] + 1, c[1] - c[0] + 1), (t[0] + 1, t[1] - t[0] + 1))
    found = beta_binomial(arm(*c), arm(*t))
    assert found.chance_to_beat == pytest.approx(expected, abs=1e-9)
    assert found.loss_control is not None
    assert found.loss_treatment is not None
    assert found.loss_control - found.loss_treatment == pytest.approx(found.difference, abs=1e-11)


def test_losses_are_those_of_double_quadrature() -> None:
    c, t = stats.beta(4, 9), stats.beta(6, 8)
    result = beta_binomial(arm(3, 11), arm(5, 12))
    expected, _ = integrate.dblquad(
        lambda x, y: max(y - x, 0.0) * c.pdf(y) * t.pdf(x), 0, 1, 0, 1, epsabs=1e-8
    )
    assert result.loss_treatment == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("c", "t"), [((3, 11), (5, 12)), ((0, 10), (0, 10)), ((10, 10), (9, 10)), ((1, 900), (4, 800))]
)
def test_credible_intervals_hold_their_mass(c: tuple[int, int], t: tuple[int, int]) -> None:
    result = beta_binomial(arm(*c), arm(*t), alpha=0.1)
    generator = np.random.default_rng(1)
    x = generator.beta(t[0] + 1, t[1] - t[0] + 1, 200_000)
    y = generator.beta(c[0] + 1, c[1] - c[0] + 1, 200_000)
    for interval, values in ((result.interval, x - y), (result.lift_interval, x / y - 1)):
        assert interval is not None
        # 200,000 draws: a share of .05 has a standard error of .0005.
        assert np.mean(values < interval.lower) == pytest.approx(0.05, abs=0.003)
        assert np.mean(values > interval.upper) == pytest.approx(0.05, abs=0.003)


def test_the_same_arms_are_a_coin() -> None:
    for won, n in ((0, 0), (3, 5), (0, 50), (2_000, 4_000)):
        result = beta_binomial(arm(won, n), arm(won, n))
        assert result.chance_to_beat == pytest.approx(0.5, abs=1e-9)
        assert result.interval is not None
        assert result.interval.lower == pytest.approx(-result.interval.upper, abs=1e-9)


def test_odd_priors() -> None:
    wide, sharp = Beta(0.1, 0.1), Beta(0.01, 50)
    there = beta_binomial(arm(0, 0), arm(0, 0), prior_control=wide, prior_treatment=sharp)
    back = beta_binomial(arm(0, 0), arm(0, 0), prior_control=sharp, prior_treatment=wide)
    assert there.chance_to_beat is not None
    assert back.chance_to_beat == pytest.approx(1 - there.chance_to_beat, abs=1e-4)
    assert there.loss_treatment == pytest.approx(back.loss_control, abs=1e-4)
    uniform = beta_binomial(arm(0, 0), arm(0, 0), prior_treatment=Beta(2, 1))
    assert uniform.chance_to_beat == pytest.approx(2 / 3, abs=1e-12)
    with pytest.raises(DesignError):
        Beta(0.0, 1.0)


def test_billions_of_units() -> None:
    n = 4_000_000_000
    result = beta_binomial(arm(n // 2, n), arm(n // 2 + 100_000, n))
    z = 100_000 / n / math.sqrt(0.5 / n)
    assert result.chance_to_beat == pytest.approx(float(special.ndtr(z)), abs=1e-6)


def test_a_flat_prior_is_the_z_interval() -> None:
    control, treatment = Moments(500, 1.0, 499.0), Moments(500, 1.1, 499.0)
    frequentist = welch_t(control, treatment)
    result = normal_means(control, treatment)
    assert frequentist.standard_error is not None
    assert result.standard_deviation == pytest.approx(frequentist.standard_error, rel=1e-12)
    assert result.chance_to_beat == pytest.approx(
        float(special.ndtr(0.1 / frequentist.standard_error)), rel=1e-9
    )


def test_a_prior_weighs_by_precision() -> None:
    result = welch_t(Moments(500, 1.0, 499.0), Moments(500, 1.1, 499.0))
    posterior = normal_posterior(result, prior=Normal(0.05, 0.02))
    assert result.standard_error is not None
    a, b = 1 / 0.02**2, 1 / result.standard_error**2
    assert posterior.difference == pytest.approx((a * 0.05 + b * 0.1) / (a + b), rel=1e-9)
    assert posterior.standard_deviation == pytest.approx((a + b) ** -0.5, rel=1e-9)


def test_expected_loss_of_a_normal() -> None:
    posterior = normal_means(Moments(500, 1.0, 499.0), Moments(500, 1.1, 499.0))
    assert posterior.difference is not None
    assert posterior.standard_deviation is not None
    d = stats.norm(posterior.difference, posterior.standard_deviation)
    expected, _ = integrate.quad(lambda x: -x * d.pdf(x), -1, 0)
    assert posterior.loss_treatment == pytest.approx(expected, rel=1e-6)


def test_a_status_is_passed_on() -> None:
    assert normal_means(Moments(), Moments()).status == "insufficient_data"
    no_lift = welch_t(Moments.of([-1.0, 1.0]), Moments.of([1.0, 2.0]))
    assert normal_posterior(no_lift, scale="relative").status == "undefined"
    with pytest.raises(DesignError):
        Normal(0.0, 0.0)
