"""Interactions of two experiments, and the contrasts that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from abkit.moments import Moments
from abkit.stats.contrast import contrast
from abkit.stats.difference import welch_t
from abkit.stats.interaction import Cells, interaction


def test_it_is_the_product_term_of_a_regression() -> None:
    """As OLS of statsmodels with HC2 errors, which are s^2 / n in a saturated model."""
    generator = np.random.default_rng(1)
    sizes = {(0, 0): 30, (1, 0): 20, (0, 1): 25, (1, 1): 40}
    drawn = {
        (a, b): generator.normal(1 + 0.5 * a - 0.3 * b + 0.8 * a * b, 1 + a, n)
        for (a, b), n in sizes.items()
    }
    y = np.concatenate(list(drawn.values()))
    a, b = (np.concatenate([np.full(n, key[i]) for key, n in sizes.items()]) for i in (0, 1))
    fit = sm.OLS(y, np.column_stack([np.ones(len(y)), a, b, a * b])).fit(cov_type="HC2")
    cell = {key: Moments.of(values.tolist()) for key, values in drawn.items()}
    result = interaction(
        Cells(neither=cell[0, 0], first=cell[1, 0], second=cell[0, 1], both=cell[1, 1])
    )
    assert result.difference == pytest.approx(float(fit.params[3]), rel=1e-9)
    assert result.standard_error == pytest.approx(float(fit.bse[3]), rel=1e-9)
    assert result.mean_control == pytest.approx(float(fit.params[1]), rel=1e-9)


def test_a_contrast_of_two_means_is_welch() -> None:
    a, b = Moments.of([1.0, 2.0, 4.0, 7.0]), Moments.of([2.0, 3.0, 9.0])
    found, welch = contrast([(1.0, b), (-1.0, a)]), welch_t(a, b)
    assert found is not None
    assert (found.value, found.standard_error, found.degrees_of_freedom) == pytest.approx(
        (welch.difference, welch.standard_error, welch.degrees_of_freedom), rel=1e-12
    )


def test_a_cell_of_one_unit_is_insufficient() -> None:
    a, one = Moments.of([1.0, 2.0]), Moments.of([1.0])
    result = interaction(Cells(neither=a, first=a, second=a, both=one))
    assert (result.status, result.p_value) == ("insufficient_data", None)
    assert contrast([(1.0, a), (0.0, one)]) is not None
    assert contrast([]) is None
