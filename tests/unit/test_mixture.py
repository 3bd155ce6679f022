"""The normal mixture and the comparisons that rest on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import integrate, stats

from abkit.errors import ConfigError, DataError, DesignError
from abkit.moments import Moments
from abkit.sequential.mixture import (
    normal_boundary,
    normal_log_mixture,
    normal_rho,
    paired_difference,
    stratified_difference,
)

if TYPE_CHECKING:
    from abkit.estimate import Alternative

SIDES: tuple[Alternative, ...] = ("two-sided", "greater", "less")


@pytest.mark.parametrize("alternative", SIDES)
@pytest.mark.parametrize(("s", "v"), [(0.0, 0.0), (2.0, 3.0), (-4.0, 1.5)])
def test_the_mixture_is_a_martingale_of_brownian_motion(
    alternative: Alternative, s: float, v: float
) -> None:
    """One more unit of clock leaves it unchanged on average: this is why it is an e-value."""

    def integrand(x: float) -> float:
        log_e = normal_log_mixture(s + x, v + 1, rho=2.0, alternative=alternative)
        return float(stats.norm.pdf(x)) * math.exp(log_e)

    mean, _ = integrate.quad(integrand, -12, 12, epsabs=1e-12)
    now = math.exp(normal_log_mixture(s, v, rho=2.0, alternative=alternative))
    assert mean == pytest.approx(now, rel=1e-9)


@pytest.mark.parametrize("alternative", SIDES)
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("v", [0.0, 0.01, 1.0, 1e4, 1e9])
def test_the_boundary_is_where_the_evidence_reaches_one_over_alpha(
    alternative: Alternative, alpha: float, v: float
) -> None:
    boundary = normal_boundary(v, alpha, rho=0.7, alternative=alternative)
    s = -boundary if alternative == "less" else boundary
    log_e = normal_log_mixture(s, v, rho=0.7, alternative=alternative)
    assert log_e == pytest.approx(-math.log(alpha), abs=1e-9)


def test_arrays_give_what_floats_give() -> None:
    s, v = np.array([-3.0, 0.0, 5.0]), np.array([0.0, 2.0, 9.0])
    for side in SIDES:
        log_e = normal_log_mixture(s, v, rho=1.5, alternative=side)
        assert log_e.tolist() == [
            normal_log_mixture(float(a), float(b), rho=1.5, alternative=side)
            for a, b in zip(s, v, strict=True)
        ]
        boundary = normal_boundary(v, 0.01, rho=1.5, alternative=side)
        assert boundary == pytest.approx(
            [normal_boundary(float(b), 0.01, rho=1.5, alternative=side) for b in v], rel=1e-13
        )
    assert isinstance(normal_log_mixture(1.0, v, rho=1.0), np.ndarray)
    assert isinstance(normal_log_mixture(1.0, 1.0, rho=1.0), float)


def test_less_is_the_mirror_image_of_greater() -> None:
    s = np.linspace(-5, 5, 11)
    greater = normal_log_mixture(s, 4.0, rho=1.0, alternative="greater")
    less = normal_log_mixture(-s, 4.0, rho=1.0, alternative="less")
    assert less.tolist() == greater.tolist()


def test_rho_makes_the_boundary_nearly_tightest_at_its_clock_time() -> None:
    for side in SIDES:
        rho = normal_rho(50.0, 0.01, alternative=side)
        at = normal_boundary(50.0, 0.01, rho=rho, alternative=side)
        others = [
            normal_boundary(50.0, 0.01, rho=rho * factor, alternative=side)
            for factor in (0.3, 0.5, 2.0, 3.0)
        ]
        assert at < min(others)


@pytest.mark.parametrize("rho", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_rho_is_refused(rho: float) -> None:
    with pytest.raises(DesignError, match="rho"):
        normal_log_mixture(0.0, 1.0, rho=rho)
    with pytest.raises(DesignError, match="rho"):
        normal_boundary(1.0, 0.05, rho=rho)


@pytest.mark.parametrize("v_opt", [0.0, -1.0, math.inf])
def test_an_impossible_clock_time_is_refused(v_opt: float) -> None:
    with pytest.raises(DesignError, match="v_opt"):
        normal_rho(v_opt, 0.05)


@pytest.fixture
def epochs() -> list[tuple[Moments, Moments]]:
    """Two epochs of a ramp, control and treatment, of which the second has a higher base."""
    return [
        (Moments(90, 10.0, 89 * 4.0), Moments(10, 11.0, 9 * 5.0)),
        (Moments(50, 20.0, 49 * 6.0), Moments(50, 21.5, 49 * 3.0)),
    ]


def test_the_contrast_by_hand(epochs: list[tuple[Moments, Moments]]) -> None:
    # h = 90*10/100 = 9 and 25; S = 9*1 + 25*1.5; V = 81(4/90 + 5/10) + 625(6/50 + 3/50)
    h, s, v = 34.0, 46.5, 81 * (4 / 90 + 5 / 10) + 625 * (6 / 50 + 3 / 50)
    result = stratified_difference(epochs, planned_units=400, kind="mean", alpha=0.05)
    rho = normal_rho(0.65 * 100, 0.05)
    spread = math.sqrt(v / h)
    assert (result.status, result.method) == ("ok", "normal_mixture")
    assert result.guarantee == "anytime-asymptotic"
    assert (result.n_control, result.n_treatment) == (140, 60)
    assert result.difference == pytest.approx(s / h)
    assert result.standard_error == pytest.approx(math.sqrt(v) / h)
    assert result.e_value == pytest.approx(
        math.exp(normal_log_mixture(s / spread, h, rho=rho)), rel=1e-12
    )
    half = normal_boundary(h, 0.05, rho=rho) * spread / h
    assert result.interval is not None
    assert (result.interval.lower, result.interval.upper) == pytest.approx(
        (s / h - half, s / h + half)
    )
    # Weighted like the contrast: (9*10 + 25*20)/34
    assert result.mean_control == pytest.approx(590 / 34)
    assert result.lift == pytest.approx((s / h) / (590 / 34))


def test_the_interval_of_the_lift_by_hand(epochs: list[tuple[Moments, Moments]]) -> None:
    """Delta method: var(t) + (1 + lift)^2 var(c), over the control mean."""
    result = stratified_difference(epochs, planned_units=400, kind="mean")
    h, mean_control, lift = 34.0, 590 / 34, 46.5 / 590
    v = 81 * ((1 + lift) ** 2 * 4 / 90 + 5 / 10) + 625 * ((1 + lift) ** 2 * 6 / 50 + 3 / 50)
    half = normal_boundary(h, 0.05, rho=normal_rho(65.0, 0.05)) * math.sqrt(v / h) / h
    assert result.lift_interval is not None
    assert (result.lift_interval.lower, result.lift_interval.upper) == pytest.approx(
        (lift - half / mean_control, lift + half / mean_control)
    )


def test_rho_depends_on_the_plan_and_alpha_alone_as_statistics_md_has_it() -> None:
    assert 100 / normal_rho(0.65 * 100, 0.05) == pytest.approx(12.2, abs=0.02)


@pytest.mark.parametrize("alternative", SIDES)
@pytest.mark.parametrize("margin", [-3.0, -0.4, 0.0, 0.4, 1.0, 1.9, 3.0])
def test_the_interval_holds_the_margins_that_the_e_value_does_not_reject(
    epochs: list[tuple[Moments, Moments]], alternative: Alternative, margin: float
) -> None:
    result = stratified_difference(
        epochs,
        planned_units=400,
        kind="mean",
        alpha=0.05,
        alternative=alternative,
        margin=margin,
    )
    plain = stratified_difference(
        epochs, planned_units=400, kind="mean", alpha=0.05, alternative=alternative
    )
    assert result.e_value is not None
    assert result.interval is not None
    assert result.interval == plain.interval
    assert (margin not in result.interval) == (result.e_value >= 20)


def test_both_outcomes_occur_in_the_test_above(epochs: list[tuple[Moments, Moments]]) -> None:
    result = stratified_difference(epochs, planned_units=400, kind="mean")
    assert result.interval is not None
    assert 0.0 not in result.interval
    assert 1.0 in result.interval


def test_an_epoch_with_an_empty_arm_contributes_nothing(
    epochs: list[tuple[Moments, Moments]],
) -> None:
    odd = [(Moments(7, 99.0, 3.0), Moments()), (Moments(), Moments(7, 99.0, 3.0))]
    assert stratified_difference(
        [odd[0], *epochs, odd[1]], planned_units=400, kind="mean"
    ) == stratified_difference(epochs, planned_units=400, kind="mean")


def test_swapping_the_arms_mirrors_everything(epochs: list[tuple[Moments, Moments]]) -> None:
    there = stratified_difference(epochs, planned_units=400, kind="mean", alternative="greater")
    back = stratified_difference(
        [(t, c) for c, t in epochs], planned_units=400, kind="mean", alternative="less"
    )
    assert there.interval is not None
    assert back.difference == pytest.approx(-(there.difference or 0.0))
    assert back.e_value == pytest.approx(there.e_value)
    assert back.interval is not None
    assert back.interval.lower == -math.inf
    assert back.interval.upper == pytest.approx(-there.interval.lower)


@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (1e-6, 0.0), (1.0, 1.7e9)])
def test_the_unit_of_the_metric_does_not_matter(
    epochs: list[tuple[Moments, Moments]], factor: float, shift: float
) -> None:
    def changed(arm: Moments) -> Moments:
        return Moments(arm.n, factor * arm.mean + shift, factor**2 * arm.m2)

    plain = stratified_difference(epochs, planned_units=400, kind="mean")
    other = stratified_difference(
        [(changed(c), changed(t)) for c, t in epochs], planned_units=400, kind="mean"
    )
    assert other.e_value == pytest.approx(plain.e_value, rel=1e-6)


def test_a_single_unit_borrows_the_variance_of_its_arm() -> None:
    """A variance of zero would be a clock that runs slow, and evidence out of nothing."""
    days = [(Moments(99, 0.0, 98 * 4.0), Moments(1, 0.0, 0.0)) for _ in range(30)]
    day = (Moments(99, 0.0, 98 * 4.0), Moments(11, 0.0, 10 * 9.0))
    result = stratified_difference([*days, day], planned_units=10_000, kind="mean")
    h_one, h_day = 0.99, 99 * 11 / 110
    v = 30 * h_one**2 * (4 / 99 + 9 / 1) + h_day**2 * (4 / 99 + 9 / 11)
    assert result.standard_error == pytest.approx(math.sqrt(v) / (30 * h_one + h_day))


def test_single_units_only_borrow_the_variance_of_the_other_arm() -> None:
    days = [(Moments(99, 0.0, 98 * 4.0), Moments(1, 0.0, 0.0)) for _ in range(30)]
    result = stratified_difference(days, planned_units=10_000, kind="mean")
    v = 30 * 0.99**2 * (4 / 99 + 4 / 1)
    assert result.standard_error == pytest.approx(math.sqrt(v) / (30 * 0.99))


def test_the_clock_is_the_larger_of_one_variance_an_arm_and_one_for_both() -> None:
    """A small arm that has not met a large value yet must not count as precise."""
    large = Moments(950, 0.0, 949 * 4.0)
    h = 950 * 50 / 1_000
    for variance, v in (
        (0.01, h * (949 * 4.0 + 49 * 0.01) / 998),
        (9.0, h**2 * (4 / 950 + 9 / 50)),
    ):
        small = Moments(50, 0.0, 49 * variance)
        for pair in ((large, small), (small, large)):
            result = stratified_difference([pair], planned_units=1_000, kind="mean")
            assert result.standard_error == pytest.approx(math.sqrt(v) / h)


@pytest.mark.parametrize(
    ("control", "treatment", "status"),
    [
        ((1_000, 25), (1_000, 25), "ok"),
        ((1_000, 25), (1_000, 24), "insufficient_data"),
        ((1_000, 24), (1_000, 25), "insufficient_data"),
        ((1_000, 975), (1_000, 976), "insufficient_data"),
        ((1_000, 0), (1_000, 0), "insufficient_data"),
    ],
)
def test_proportions_wait_for_25_events_and_25_others_in_each_arm(
    control: tuple[int, int], treatment: tuple[int, int], status: str
) -> None:
    half = [  # the events may be spread over epochs
        tuple(Moments.of_counts(n, won) for n, won in arms)
        for arms in (
            ((control[0] // 2, control[1] // 2), (treatment[0] // 2, treatment[1] // 2)),
            (
                (control[0] // 2, control[1] - control[1] // 2),
                (treatment[0] // 2, treatment[1] - treatment[1] // 2),
            ),
        )
    ]
    strata = [(arms[0], arms[1]) for arms in half]
    result = stratified_difference(strata, planned_units=2_000, kind="proportion")
    assert result.status == status
    assert result.difference == pytest.approx((treatment[1] - control[1]) / 1_000)
    assert (result.interval is None) == (status != "ok")
    if status != "ok":
        assert result.e_value == 1.0


@pytest.mark.parametrize(("n", "status"), [(24, "insufficient_data"), (25, "ok")])
def test_means_wait_for_25_units_in_each_arm(n: int, status: str) -> None:
    small, large = Moments(n, 1.0, 9.0), Moments(500, 2.0, 400.0)
    for pair in ((small, large), (large, small)):
        assert stratified_difference([pair], planned_units=500, kind="mean").status == status


def test_no_strata_or_none_with_both_arms_is_insufficient_data() -> None:
    for strata in ([], [(Moments.of([1.0]), Moments())]):
        result = stratified_difference(strata, planned_units=500, kind="mean")
        assert (result.status, result.difference, result.e_value) == (
            "insufficient_data",
            None,
            1.0,
        )


def test_zero_variance_is_no_evidence() -> None:
    arms = [(Moments(500, 1.0, 0.0), Moments(500, 2.0, 0.0))]
    result = stratified_difference(arms, planned_units=500, kind="mean")
    assert (result.status, result.difference, result.e_value) == ("zero_variance", 1.0, 1.0)
    assert result.interval is None


def test_overwhelming_evidence_stays_a_finite_number() -> None:
    arms = [(Moments(10**9, 0.0, 1.0), Moments(10**9, 1e6, 1.0))]
    result = stratified_difference(arms, planned_units=500, kind="mean")
    assert result.e_value is not None
    assert 1e300 < result.e_value < math.inf


def test_values_too_large_for_a_float_are_undefined() -> None:
    arms = [(Moments(100, -1.7e308, 1e308), Moments(100, 1.7e308, 1e308))]
    result = stratified_difference(arms, planned_units=500, kind="mean")
    assert (result.status, result.difference, result.e_value) == ("undefined", None, 1.0)


def test_a_negative_control_mean_turns_the_side_of_the_lift_around() -> None:
    arms = [(Moments(100, -2.0, 99.0), Moments(100, -1.5, 99.0))]
    result = stratified_difference(arms, planned_units=200, kind="mean", alternative="greater")
    assert result.lift == pytest.approx(-0.25)
    assert result.lift_interval is not None
    assert result.lift_interval.lower == -math.inf
    assert math.isfinite(result.lift_interval.upper)


def test_a_control_mean_of_zero_has_no_lift() -> None:
    arms = [(Moments(100, 0.0, 99.0), Moments(100, 1.0, 99.0))]
    result = stratified_difference(arms, planned_units=200, kind="mean")
    assert result.status == "ok"
    assert (result.lift, result.lift_interval) == (None, None)


def test_a_proportion_must_be_of_zeros_and_ones() -> None:
    arm = Moments(100, 3.0, 50.0)
    with pytest.raises(DataError):
        stratified_difference([(arm, arm)], planned_units=200, kind="proportion")


def test_bad_questions_are_refused() -> None:
    arms = [(Moments(100, 3.0, 50.0), Moments(100, 3.0, 50.0))]
    with pytest.raises(ConfigError, match="kind"):
        stratified_difference(arms, planned_units=200, kind="ratio")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="margin"):
        stratified_difference(arms, planned_units=200, kind="mean", margin=math.nan)
    with pytest.raises(DesignError, match="planned_units"):
        stratified_difference(arms, planned_units=0, kind="mean")
    with pytest.raises(DesignError, match="alpha"):
        paired_difference(arms[0][0], planned_units=10, alpha=0.0)


def test_pairs_by_hand() -> None:
    moments = Moments(200, 0.05, 199 * 0.09)
    result = paired_difference(moments, planned_units=300, alternative="greater", margin=-0.01)
    rho = normal_rho(0.65 * 300, 0.05, alternative="greater")
    log_e = normal_log_mixture(200 * 0.06 / 0.3, 200.0, rho=rho, alternative="greater")
    assert result.method == "paired_normal_mixture"
    assert result.n_control == result.n_treatment == 200
    assert result.e_value == pytest.approx(math.exp(log_e))
    assert result.standard_error == pytest.approx(0.3 / math.sqrt(200))
    assert (result.mean_control, result.mean_treatment, result.lift) == (None, None, None)


def test_pairs_see_what_two_arms_cannot() -> None:
    """The variance between units, here 100 times that of the difference, is gone."""
    rng = np.random.default_rng(3)
    unit = rng.normal(0, 10, 400)
    control, treatment = unit + rng.normal(0, 1, 400), unit + 0.5 + rng.normal(0, 1, 400)
    paired = paired_difference(Moments.of(treatment - control), planned_units=400)
    arms = stratified_difference(
        [(Moments.of(control), Moments.of(treatment))], planned_units=800, kind="mean"
    )
    assert paired.e_value is not None
    assert arms.e_value is not None
    assert paired.e_value > 1_000
    assert arms.e_value < 1


@pytest.mark.parametrize(
    ("moments", "status", "difference"),
    [
        (Moments(), "insufficient_data", None),
        (Moments(24, 1.0, 3.0), "insufficient_data", 1.0),
        (Moments(25, 0.5, 0.0), "zero_variance", 0.5),
        (Moments(25, 0.5, 3.0), "ok", 0.5),
    ],
)
def test_edges_of_pairs(moments: Moments, status: str, difference: float | None) -> None:
    result = paired_difference(moments, planned_units=100)
    assert (result.status, result.difference) == (status, difference)
    assert (result.e_value == 1.0) == (status != "ok")


def pairs(wins: int, losses: int, ties: int) -> Moments:
    return Moments.of([1.0] * wins + [-1.0] * losses + [0.0] * ties)


@pytest.mark.parametrize(
    ("wins", "losses", "status"),
    [(14, 11, "ok"), (14, 10, "insufficient_data"), (0, 25, "ok"), (0, 0, "insufficient_data")],
)
def test_pairs_of_proportions_wait_for_25_that_differ(wins: int, losses: int, status: str) -> None:
    moments = pairs(wins, losses, 3_000)
    result = paired_difference(moments, planned_units=3_000, kind="proportion")
    assert result.status == status
    if status == "ok":
        assert result == paired_difference(moments, planned_units=3_000, kind="mean")


@pytest.mark.parametrize("values", [[2.0, 0.0], [0.5] * 30, [1.0, 1.0, 1.0, 4.0]])
def test_pairs_of_proportions_must_differ_by_0_or_1(values: list[float]) -> None:
    with pytest.raises(DataError, match="kind='mean'"):
        paired_difference(Moments.of(values), planned_units=100, kind="proportion")


def test_pairs_too_large_for_a_float_are_undefined() -> None:
    result = paired_difference(Moments(100, 1.7e308, 1e300), planned_units=100)
    assert (result.status, result.difference, result.e_value) == ("undefined", None, 1.0)


def test_the_result_says_what_it_was_tested_against() -> None:
    arms = [(Moments(1_000, 10.0, 999.0), Moments(1_000, 10.1, 999.0))]
    assert stratified_difference(arms, planned_units=2_000, kind="mean").margin is None
    found = stratified_difference(arms, planned_units=2_000, kind="mean", margin=-0.1)
    assert found.margin == -0.1
    assert paired_difference(arms[0][1], planned_units=2_000, margin=9.0).margin == 9.0


@pytest.mark.parametrize("z", [-5.0, -40.0, -1e8, -1e12, -1e200])
def test_the_wrong_side_is_never_evidence(z: float) -> None:
    """Large numbers cancel in z^2 / 2 + log Phi(z): Mills' ratio keeps them."""
    log_e = normal_log_mixture(z * math.sqrt(2.0), 1.0, rho=1.0, alternative="greater")
    mills = -math.log(-z) - 0.5 * math.log(2 * math.pi) - math.log1p(1 / (z * z))
    assert log_e == pytest.approx(
        0.5 * math.log(0.5) + math.log(2) + mills, rel=1e-12, abs=3 / z / z
    )
    mirrored = normal_log_mixture(-z * math.sqrt(2.0), 1.0, rho=1.0, alternative="less")
    assert mirrored == log_e
