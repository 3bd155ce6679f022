"""The winner's curse, and what takes it back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abkit.estimate import Estimate
from abkit.moments import Moments
from abkit.stats.bayes import Normal, normal_posterior
from abkit.stats.difference import welch_t
from abkit.stats.shrinkage import fit_prior, shrunken


def trial(effect: float, error: float) -> Estimate:
    return Estimate(
        method="welch_t",
        guarantee="fixed-horizon",
        alpha=0.05,
        alternative="two-sided",
        difference=effect,
        standard_error=error,
    )


def test_shrunken_winners_are_right_on_average() -> None:
    """Of 4,000 experiments those that were significant look half as large again as they are."""
    generator = np.random.default_rng(1)
    truths = generator.normal(0.0, 1.0, 4_000)
    errors = generator.uniform(0.5, 1.5, 4_000)
    trials = [
        trial(float(y), float(s))
        for y, s in zip(generator.normal(truths, errors), errors, strict=True)
    ]
    fitted = fit_prior(trials)
    assert fitted.mean == pytest.approx(0.0, abs=0.1)
    assert fitted.sd == pytest.approx(1.0, abs=0.07)
    won = [
        i
        for i, t in enumerate(trials)
        if t.difference is not None and t.difference > 1.96 * errors[i]
    ]
    raw = np.mean([trials[i].difference for i in won])
    prior = Normal(fitted.mean, fitted.sd)
    after = np.mean([shrunken(trials[i], prior).difference for i in won])
    truth = float(np.mean(truths[won]))
    assert raw > 1.3 * truth
    assert after == pytest.approx(truth, rel=0.05)


def test_it_is_the_posterior_of_the_same_prior() -> None:
    result = welch_t(Moments(90, 2.0, 89.0), Moments(90, 2.4, 89.0))
    prior = Normal(0.01, 0.05)
    for scale in ("absolute", "relative"):
        found = shrunken(result, prior, scale=scale)  # type: ignore[arg-type]
        posterior = normal_posterior(result, prior=prior, scale=scale)  # type: ignore[arg-type]
        assert found.difference == pytest.approx(posterior.difference, rel=1e-12)
        assert found.interval == posterior.interval
        assert (found.guarantee, found.p_value, found.scale) == ("bayesian", None, scale)


def test_estimates_that_differ_by_their_errors_only_have_a_prior_without_spread() -> None:
    fitted = fit_prior([trial(0.1, 1.0), trial(-0.2, 1.0), trial(0.15, 1.0)])
    assert (fitted.status, fitted.sd, fitted.experiments) == ("ok", 0.0, 3)


def test_a_scale_of_the_metric_does_not_matter() -> None:
    base = [(0.0, 1.0), (4.0, 2.0), (-4.0, 1.0), (2.5, 0.5)]
    one = fit_prior([trial(*x) for x in base])
    million = fit_prior([trial(1e6 * y, 1e6 * s) for y, s in base])
    assert million.sd == pytest.approx(1e6 * one.sd, rel=1e-9)
    assert million.mean == pytest.approx(1e6 * one.mean, rel=1e-9)


def test_too_few_experiments_and_those_without_answer() -> None:
    silent = welch_t(Moments(), Moments())
    assert fit_prior([trial(1.0, 1.0), trial(2.0, 1.0), silent]).status == "insufficient_data"
    assert shrunken(silent, Normal(0.0, 1.0)).status == "insufficient_data"
    assert shrunken(trial(1.0, 1.0), Normal(0.0, 1.0), scale="relative").status == "undefined"
    flat = shrunken(trial(1.0, 0.5), Normal(0.0, math.inf))
    assert flat.difference == 1.0
