"""Comparisons within strata: they reduce to the plain ones, and a ramp does not mislead them."""

from __future__ import annotations

import numpy as np
import pytest

from abkit.comoments import Comoments
from abkit.stats.covariate import adjusted_difference
from abkit.stats.difference import welch_t
from abkit.stats.ratio import ratio_difference
from abkit.stats.stratified import post_stratified
from abkit.stats.within import precision_shares, within_strata

NAMES = ("spend", "views", "before")


def arm(n: int, seed: int, level: float = 0.0) -> Comoments:
    rng = np.random.default_rng(seed)
    before = rng.normal(size=n)
    return Comoments.of(
        {
            "spend": level + before + rng.normal(size=n),
            "views": 1.0 + rng.poisson(4, n),
            "before": before,
        }
    )


def test_one_stratum_is_the_plain_comparison() -> None:
    pair = arm(300, 1), arm(200, 2)
    expected = welch_t(*(x.moments("spend") for x in pair))
    found = within_strata([pair], metric="spend")
    assert found.p_value == pytest.approx(expected.p_value, rel=1e-9)
    ratio = within_strata([pair], metric=("spend", "views"))
    plain = ratio_difference(*pair, numerator="spend", denominator="views")
    assert ratio.method == "stratified_ratio"
    assert ratio.p_value == pytest.approx(plain.p_value, rel=1e-9)
    cuped = within_strata([pair], metric="spend", covariates=["before"])
    adjusted = adjusted_difference(*pair, metric="spend", covariates=["before"])
    for name in ("difference", "standard_error", "p_value", "variance_reduction", "mean_control"):
        assert getattr(cuped, name) == pytest.approx(getattr(adjusted, name), rel=1e-9), name


def test_without_covariates_it_is_post_stratification_by_precision() -> None:
    strata = [(arm(900, 1), arm(100, 2)), (arm(300, 3, 5.0), arm(300, 4, 5.0))]
    pairs = [(c.moments("spend"), t.moments("spend")) for c, t in strata]
    expected = post_stratified(pairs, weighting="precision")
    found = within_strata(strata, metric="spend")
    assert found.difference == pytest.approx(expected.difference, rel=1e-12)
    assert found.interval == expected.interval
    assert precision_shares([(900, 100), (300, 300)]) == pytest.approx((90 / 240, 150 / 240))


def test_what_has_no_answer_says_why() -> None:
    empty = Comoments.empty(NAMES)
    found = within_strata([(arm(50, 1), empty), (empty, arm(50, 2))], metric="spend")
    assert (found.status, found.n_control, found.n_treatment) == ("insufficient_data", 50, 50)
    assert within_strata([], metric="spend").status == "insufficient_data"
    flat = Comoments.of({"spend": [0.0, 1.0, 2.0], "views": [0.0] * 3, "before": [1.0] * 3})
    assert within_strata([(flat, flat)], metric=("spend", "views")).status == "undefined"
    collinear = within_strata([(flat, flat)], metric="spend", covariates=["before"])
    assert collinear.status == "collinear"
    assert collinear.p_value is None
    constant = within_strata([(flat, flat)], metric="before")
    assert constant.status == "zero_variance"


@pytest.mark.parametrize("covariates", [(), ("before",)])
def test_a_ramp_with_drift_keeps_its_level(covariates: tuple[str, ...]) -> None:
    """600 ramps without an effect: P(Binomial(600, .05) > 60) < 1e-6; the naive test errs."""
    rejected = naive = 0
    for run in range(600):
        strata = [
            (arm(95, 4 * run), arm(5, 4 * run + 1)),
            (arm(50, 4 * run + 2, 3.0), arm(50, 4 * run + 3, 3.0)),
        ]
        found = within_strata(strata, metric="spend", covariates=covariates)
        assert found.p_value is not None
        rejected += found.p_value <= 0.05
        whole = [strata[0][i] + strata[1][i] for i in (0, 1)]
        naive += (welch_t(*(x.moments("spend") for x in whole)).p_value or 0) <= 0.05
    assert rejected <= 60
    assert naive > 500
