"""Trends of an effect over the age of the units."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from abkit.comoments import Comoments
from abkit.errors import ConfigError
from abkit.moments import Moments
from abkit.stats.difference import welch_t
from abkit.stats.novelty import effect_trend, effect_trend_within


def test_it_is_weighted_least_squares_with_known_variances() -> None:
    """As WLS of statsmodels with `cov_type="fixed scale"`."""
    generator = np.random.default_rng(1)
    effects = [
        (
            Moments.of(generator.normal(0, 1 + day / 5, 50 + day).tolist()),
            Moments.of(generator.normal(0.5 - 0.05 * day, 1, 40).tolist()),
        )
        for day in range(1, 9)
    ]
    result = effect_trend(range(1, 9), effects)
    d = np.array([t.mean - c.mean for c, t in effects])
    v = np.array([t.variance / t.n + c.variance / c.n for c, t in effects])
    fit = sm.WLS(d, sm.add_constant(np.arange(1.0, 9.0)), weights=1 / v).fit(cov_type="fixed scale")
    assert result.difference == pytest.approx(float(fit.params[1]), rel=1e-9)
    assert result.standard_error == pytest.approx(float(fit.bse[1]), rel=1e-9)
    assert result.p_value == pytest.approx(float(fit.pvalues[1]), rel=1e-9)
    assert result.mean_control == pytest.approx(float(fit.params[0] + fit.params[1]), rel=1e-9)
    assert result.mean_treatment == pytest.approx(
        float(fit.params[0] + 8 * fit.params[1]), rel=1e-9
    )


def test_the_slope_within_units_is_the_mean_of_their_slopes() -> None:
    generator = np.random.default_rng(2)
    ages = {"a": 0.0, "b": 1.0, "c": 5.0}

    def arm(n: int, decay: float) -> np.ndarray:
        level = generator.normal(size=(n, 1))  # what the unit brings along at every age
        return level + decay * np.array([0.0, 1.0, 5.0]) + generator.normal(size=(n, 3))

    control, treatment = arm(40, 0.0), arm(50, -0.1)
    result = effect_trend_within(
        *(Comoments.of(dict(zip(ages, x.T.tolist(), strict=True))) for x in (control, treatment)),
        ages=ages,
    )
    slopes = [
        Moments.of([float(np.polyfit([0.0, 1.0, 5.0], row, 1)[0]) for row in x])
        for x in (control, treatment)
    ]
    plain = welch_t(*slopes)
    assert result.difference == pytest.approx(plain.difference, rel=1e-9)
    assert result.p_value == pytest.approx(plain.p_value, rel=1e-9)
    assert (result.method, result.lift) == ("effect_trend_within", None)


def test_an_effect_that_stays_is_rarely_a_trend() -> None:
    generator = np.random.default_rng(3)
    rejected = 0
    for _ in range(500):
        effects = [
            tuple(Moments.of(generator.normal(shift, 1, 30).tolist()) for shift in (0.0, 0.4))
            for _ in range(6)
        ]
        result = effect_trend(range(6), effects)  # type: ignore[arg-type]
        assert result.p_value is not None
        rejected += result.p_value < 0.05
    assert rejected <= stats.binom.isf(1e-6, 500, 0.06)  # variances of 30 values are not known


def test_one_age_has_no_trend() -> None:
    arms = Moments.of([1.0, 2.0]), Moments.of([2.0, 4.0])
    assert effect_trend([3, 3], [arms, arms]).status == "insufficient_data"
    assert effect_trend([], []).status == "insufficient_data"
    with pytest.raises(ConfigError, match="one finite age"):
        effect_trend([1], [arms, arms])
    joint = Comoments.of({"a": [1.0, 2.0], "b": [1.0, 3.0]})
    with pytest.raises(ConfigError, match="two different ages"):
        effect_trend_within(joint, joint, ages={"a": 1.0, "b": 1.0})
