"""Sample ratio mismatch."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from abkit.errors import ConfigError, DataError, DesignError
from abkit.stats.srm import balance_test, chi_square, lindon_malek_log_e, srm_concentration


def test_chi_square_normalises_the_weights() -> None:
    expected = stats.chisquare([510, 90, 100], [500, 100, 100])
    assert chi_square([510, 90, 100], [5, 1, 1]) == pytest.approx(
        (expected.statistic, expected.pvalue), rel=1e-12
    )


@pytest.mark.parametrize("counts", [(0, 0), (3, 9), (40, 7), (1_000, 1_100)])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.01, 0.99), (3.0, 1.0)])
def test_the_e_value_is_a_martingale_under_the_intended_split(
    counts: tuple[int, int], weights: tuple[float, float]
) -> None:
    """The next unit leaves it unchanged on average: the whole proof of its validity."""
    now = lindon_malek_log_e(counts, weights, concentration=50)
    to_first = lindon_malek_log_e((counts[0] + 1, counts[1]), weights, concentration=50)
    to_second = lindon_malek_log_e((counts[0], counts[1] + 1), weights, concentration=50)
    share = weights[0] / sum(weights)
    mean = share * math.exp(to_first - now) + (1 - share) * math.exp(to_second - now)
    assert mean == pytest.approx(1.0, rel=1e-10)


def test_concentration_is_the_sum_of_the_priors_parameters() -> None:
    """One unit on an arm of share q: prior mean q, so the factor is q / q = 1 for any prior.

    Two units on the same arm: (k q + 1) / (k + 1) / q.
    """
    k, share = 30.0, 0.2
    once = lindon_malek_log_e([1, 0], [0.2, 0.8], concentration=k)
    twice = lindon_malek_log_e([2, 0], [0.2, 0.8], concentration=k)
    assert once == pytest.approx(0.0, abs=1e-12)
    assert math.exp(twice) == pytest.approx((k * share + 1) / (k + 1) / share, rel=1e-12)


def test_the_prior_spreads_an_even_share_by_the_shift_that_matters() -> None:
    k = srm_concentration(0.01)
    spread = stats.beta(k / 2, k / 2).std()
    assert spread == pytest.approx(0.01, rel=1e-3)


def test_a_split_as_intended_is_ok_and_a_lost_percent_blocks() -> None:
    weights = {"control": 0.9, "canary": 0.1}
    assert balance_test({"control": 90_100, "canary": 9_900}, weights).status == "ok"
    assert balance_test({"control": 91_000, "canary": 9_000}, weights).status == "block"


def test_status_follows_the_e_value() -> None:
    seen: dict[str, float] = {}
    for extra in range(0, 3_000, 10):
        result = balance_test({"a": 50_000 + extra, "b": 50_000}, {"a": 1, "b": 1})
        seen.setdefault(result.status, result.e_value)
    assert list(seen) == ["ok", "warn", "block"]
    assert 100 <= seen["warn"] < 1_000 <= seen["block"]


def test_a_variant_that_nobody_saw_counts_as_zero() -> None:
    result = balance_test({"a": 200}, {"a": 1, "b": 1})
    assert result.status == "block"
    assert result.statistic == pytest.approx(200.0)


def test_before_the_first_unit_there_is_no_evidence() -> None:
    result = balance_test({}, {"a": 1, "b": 1})
    assert (result.statistic, result.p_value, result.e_value) == (0.0, 1.0, 1.0)
    assert result.status == "ok"


def test_overwhelming_evidence_stays_a_finite_number() -> None:
    result = balance_test({"a": 10**9, "b": 0}, {"a": 1, "b": 1})
    assert math.isfinite(result.e_value)
    assert result.e_value > 1e300


@pytest.mark.parametrize(
    ("counts", "weights", "error"),
    [
        ({"a": 1, "b": 1}, {"a": 1.0, "b": 0.0}, ConfigError),
        ({"a": 1, "b": 1}, {"a": 1.0, "b": -1.0}, ConfigError),
        ({"a": 1, "b": 1}, {"a": 1.0, "b": math.inf}, ConfigError),
        ({"a": 1}, {"a": 1.0}, ConfigError),
        ({"a": -1, "b": 1}, {"a": 1.0, "b": 1.0}, DataError),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1.0, "b": 1.0}, DataError),
    ],
)
def test_bad_input_is_refused(
    counts: dict[str, int], weights: dict[str, float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        balance_test(counts, weights)


@pytest.mark.parametrize("shift", [0.0, -0.1, 0.6, math.nan])
def test_an_impossible_shift_is_refused(shift: float) -> None:
    with pytest.raises(DesignError, match="share_shift"):
        balance_test({"a": 1, "b": 1}, {"a": 1, "b": 1}, share_shift=shift)


def test_one_weight_per_count_is_needed() -> None:
    with pytest.raises(ConfigError, match="one weight"):
        chi_square([1, 2, 3], [1, 1])


@pytest.mark.parametrize("concentration", [0.0, -1.0, math.inf])
def test_an_impossible_concentration_is_refused(concentration: float) -> None:
    with pytest.raises(DesignError, match="concentration"):
        lindon_malek_log_e([1, 1], [1, 1], concentration=concentration)
