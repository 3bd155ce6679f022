"""Strata: regression with dummies and statsmodels' stratified table are the oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable

from abkit.errors import ConfigError
from abkit.moments import Moments
from abkit.stats.difference import welch_t
from abkit.stats.proportion import two_proportions, unpooled_z
from abkit.stats.stratified import mantel_haenszel, post_stratified

Strata = list[tuple[Moments, Moments]]


def test_one_stratum_is_welch() -> None:
    arms = Moments.of([1.0, 2.0, 4.0, 7.0]), Moments.of([2.0, 3.0, 3.0, 9.0])
    one, plain = post_stratified([arms]), welch_t(*arms)
    for field in ("difference", "standard_error", "degrees_of_freedom", "p_value", "lift"):
        assert getattr(one, field) == pytest.approx(getattr(plain, field), rel=1e-12)


def test_population_weights_are_a_saturated_regression() -> None:
    """OLS on treatment, stratum and both, centred at the shares; HC2 errors are s^2 / n."""
    generator = np.random.default_rng(1)
    strata: Strata = []
    rows = []
    for k, (n, m) in enumerate([(30, 40), (60, 20), (25, 25)]):
        c, t = generator.normal(3 * k, 1 + k, n), generator.normal(3 * k + 0.5 * k, 1 + k, m)
        strata.append((Moments.of(c.tolist()), Moments.of(t.tolist())))
        rows += [(y, 0.0, k) for y in c] + [(y, 1.0, k) for y in t]
    y, treated, stratum = map(np.array, zip(*rows, strict=True))
    dummies = np.stack([stratum == k for k in (1, 2)], axis=1).astype(float)
    centred = dummies - dummies.mean(axis=0)
    design = np.column_stack([np.ones(len(y)), treated, dummies, treated[:, None] * centred])
    fit = sm.OLS(y, design).fit(cov_type="HC2")
    result = post_stratified(strata)
    assert result.difference == pytest.approx(float(fit.params[1]), rel=1e-9)
    assert result.standard_error == pytest.approx(float(fit.bse[1]), rel=1e-9)


def test_a_ramp_with_drift_does_not_confound() -> None:
    """Treatment's share and the base rate both rise; nothing else differs."""
    generator = np.random.default_rng(2)
    pooled, within = 0, 0
    for _ in range(400):
        strata = []
        for share, rate in ((0.01, 0.02), (0.05, 0.03), (0.5, 0.04)):
            m = int(20_000 * share)
            strata.append(
                tuple(
                    Moments.of_counts(n, int(generator.binomial(n, rate))) for n in (20_000 - m, m)
                )
            )
        total = [sum((s[i] for s in strata[1:]), strata[0][i]) for i in (0, 1)]
        plain, result = two_proportions(*total), mantel_haenszel(strata)  # type: ignore[arg-type]
        assert plain.p_value is not None
        assert result.p_value is not None
        pooled += plain.p_value < 0.05
        within += result.p_value < 0.05
    assert within <= stats.binom.isf(1e-6, 400, 0.05)
    assert pooled > 300


def test_the_precision_weights_are_mantel_and_haenszels() -> None:
    strata = [
        (Moments.of_counts(100, 20), Moments.of_counts(50, 15)),
        (Moments.of_counts(30, 3), Moments.of_counts(80, 12)),
    ]
    result = post_stratified(strata, weighting="precision")
    assert result.difference == pytest.approx(mantel_haenszel(strata).difference, rel=1e-12)


def test_the_test_is_statsmodels_and_the_interval_satos() -> None:
    strata = [
        (Moments.of_counts(100, 20), Moments.of_counts(50, 15)),
        (Moments.of_counts(30, 3), Moments.of_counts(80, 12)),
        (Moments.of_counts(5, 0), Moments.of_counts(6, 0)),
    ]
    result = mantel_haenszel(strata)
    tables = [
        np.array([[t.successes, t.n - t.successes], [c.successes, c.n - c.successes]])
        for c, t in strata
    ]
    oracle = StratifiedTable(tables).test_null_odds(correction=False)
    assert result.p_value == pytest.approx(float(oracle.pvalue), rel=1e-9)
    assert result.standard_error is not None
    wald = post_stratified(strata, weighting="precision")
    assert result.standard_error == pytest.approx(wald.standard_error, rel=0.05)


def test_a_stratum_with_one_arm_only_is_left_out() -> None:
    arms = Moments.of([1.0, 2.0, 4.0]), Moments.of([2.0, 3.0, 3.0])
    result = post_stratified([arms, (Moments.of([9.0, 10.0]), Moments())])
    assert result.difference == pytest.approx(welch_t(*arms).difference)
    assert result.n_control == 5


def test_one_unit_in_a_stratum_that_counts_is_insufficient() -> None:
    arms = Moments.of([1.0, 2.0, 4.0]), Moments.of([2.0])
    assert post_stratified([arms]).status == "insufficient_data"
    assert post_stratified([]).status == "insufficient_data"
    assert mantel_haenszel([]).status == "insufficient_data"


def test_given_weights_are_used() -> None:
    strata = [
        (Moments.of([1.0, 2.0]), Moments.of([2.0, 3.0])),
        (Moments.of([1.0, 2.0]), Moments.of([5.0, 6.0])),
    ]
    assert post_stratified(strata, weights=[3, 1]).difference == pytest.approx(1.75)
    for weights in ([1.0], [-1.0, 1.0], [math.inf, 1.0]):
        with pytest.raises(ConfigError):
            post_stratified(strata, weights=weights)
    with pytest.raises(ConfigError, match="'equal'"):
        post_stratified(strata, weighting="equal")  # type: ignore[arg-type]


@pytest.mark.parametrize("arms", [((900, 90), (100, 25)), ((40, 39), (700, 650))])
def test_satos_variance_of_one_stratum_is_that_of_both_arms(
    arms: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    control, treatment = (Moments.of_counts(*arm) for arm in arms)
    found = mantel_haenszel([(control, treatment)])
    plain = unpooled_z(control, treatment)
    assert found.difference == pytest.approx(plain.difference, rel=1e-12)
    assert found.standard_error == pytest.approx(plain.standard_error, rel=1e-12)
