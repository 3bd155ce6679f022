"""Published numbers for the first statistics of the project, each with its provenance.

"REFERENCE" is REFERENCE.md beside the data sets, "statistics.md" the table of reference numbers in
the design notes. Tolerances are theirs. Which number is tested where stands in README.md; answers
on real experiments are in test_real_experiments.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from abkit.moments import Moments
from abkit.sequential.mixture import normal_boundary, normal_log_mixture, normal_rho
from abkit.stats.difference import relative_lift, welch_t
from abkit.stats.proportion import two_proportions
from abkit.stats.srm import chi_square, lindon_malek_log_e

if TYPE_CHECKING:
    from abkit.estimate import Interval


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.lower, interval.upper


def close(*values: float) -> object:
    return pytest.approx(values, rel=1e-9)


def test_o22_lindon_malek_blog_example() -> None:
    """REFERENCE O22: the sequential p is 1 / e-value; Lindon's blog prints .075."""
    log_e = lindon_malek_log_e([156, 212], [0.5, 0.5], concentration=100)
    assert math.exp(-log_e) == pytest.approx(0.0748645297877, rel=1e-9)


def test_o23_ssrm_test_regression() -> None:
    """REFERENCE O23: value in the tests of the package ssrm-test, a running minimum over units."""
    # The generator of 2021 is part of the published number.
    draws = np.random.RandomState(0).multinomial(1, [0.1, 0.49, 0.41], 10)
    running = min(
        math.exp(-lindon_malek_log_e(counts.tolist(), [0.1, 0.5, 0.4], concentration=10_000))
        for counts in draws.cumsum(axis=0)
    )
    assert running == pytest.approx(0.9980534145723241, rel=1e-9)


def test_reference_8_normal_mixture() -> None:
    """statistics.md 8: confseq's C++ tests, v_opt = 100, alpha = .05, tolerance 1e-5 there."""
    two = normal_rho(100.0, 0.05)
    one = normal_rho(100.0, 0.05, alternative="greater")
    assert two == pytest.approx(12.60056, abs=1e-5)
    assert normal_boundary(100.0, 0.05, rho=two) == pytest.approx(30.35209, abs=1e-5)
    assert normal_log_mixture(10.0, 100.0, rho=two) == pytest.approx(-0.6510052, abs=1e-7)
    assert normal_boundary(100.0, 0.05, rho=one, alternative="greater") == pytest.approx(
        27.66071, abs=1e-5
    )
    assert normal_log_mixture(10.0, 100.0, rho=one, alternative="greater") == pytest.approx(
        -0.06502391, abs=1e-8
    )


def test_reference_11_lindon_malek() -> None:
    """statistics.md 11: the e-value, not its logarithm."""
    log_e = lindon_malek_log_e([480, 560], [0.5, 0.5], concentration=100)
    assert math.exp(log_e) == pytest.approx(4.917049, abs=5e-7)


def test_reference_13_tea_tasting_orders() -> None:
    """statistics.md 13: tea-tasting's user data set, orders; seven digits are published."""
    control = Moments(53, 0.5660377, 0.7888244 * 52)
    treatment = Moments(47, 0.3829787, 0.5023127 * 46)
    result = welch_t(control, treatment)
    assert result.statistic == pytest.approx(-1.144768, abs=2e-6)
    assert result.p_value == pytest.approx(0.2551231, abs=1e-6)
    assert ends(result.interval) == pytest.approx((-0.500436, 0.134318), abs=1e-6)


def test_reference_14_srm() -> None:
    """statistics.md 14: chisq.test(c(10000, 10300)) in R."""
    assert chi_square([10_000, 10_300], [1, 1]) == pytest.approx((4.4334975, 0.0352402), abs=1e-7)


def test_reference_14_prop_test() -> None:
    """statistics.md 14: prop.test(c(620, 500), c(10000, 10000), correct = FALSE) in R."""
    result = two_proportions(Moments.of_counts(10_000, 500), Moments.of_counts(10_000, 620))
    assert result.statistic is not None
    assert result.statistic**2 == pytest.approx(13.6198547, abs=1e-7)
    assert result.p_value == pytest.approx(2.238060e-4, rel=1e-6)


def test_reference_14_sleep() -> None:
    """statistics.md 14: t.test(extra ~ group, sleep) in R; Student's data set."""
    group_1 = Moments.of([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    group_2 = Moments.of([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    result = welch_t(group_2, group_1)
    assert result.statistic == pytest.approx(-1.860813, abs=1e-6)
    assert result.degrees_of_freedom == pytest.approx(17.77647, abs=1e-5)
    assert result.p_value == pytest.approx(0.0793941, abs=1e-7)


def test_the_delta_method_is_the_formula_of_the_conventions() -> None:
    """REFERENCE, conventions: lift +- z sqrt(vt/nt/mc^2 + mt^2 vc/nc/mc^4)."""
    control, treatment = Moments.of([1.0, 2.0, 4.0]), Moments.of([2.0, 3.0, 3.0, 9.0])
    vc, vt = control.variance / control.n, treatment.variance / treatment.n
    mc, mt = control.mean, treatment.mean
    half = stats.norm.isf(0.025) * math.sqrt(vt / mc**2 + mt**2 * vc / mc**4)
    result = relative_lift(control, treatment)
    assert result is not None
    assert ends(result[1]) == close(mt / mc - 1 - half, mt / mc - 1 + half)
