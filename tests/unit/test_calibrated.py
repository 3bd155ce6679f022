"""The open-ended and the calibrated mixture, and the crossing probabilities behind them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abkit.errors import DataError, DesignError
from abkit.moments import Moments
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.contrast import paired_contrast, stratified_contrast
from abkit.sequential.crossing import Sides, calibrated_crossing, mixture_crossing
from abkit.sequential.design import Contrast, Look
from abkit.sequential.mixture import stratified_difference
from abkit.sequential.normal import normal_log_mixture

DESIGN = CalibratedMixture(planned_units=20_000)


def at(z: float, h: float) -> Contrast:
    return Contrast(s=z * math.sqrt(h), v=h, h=h)


def test_always_valid_is_the_mixture_of_stratified_difference() -> None:
    strata = [
        (Moments.of_counts(9_900, 200), Moments.of_counts(100, 30)),
        (Moments.of_counts(5_000, 200), Moments.of_counts(5_000, 320)),
    ]
    look = AlwaysValid(planned_units=20_000).look(stratified_contrast(strata, kind="proportion"))
    estimate = stratified_difference(strata, planned_units=20_000, kind="proportion")
    assert look.e_value == pytest.approx(estimate.e_value)
    assert look.estimate == pytest.approx(estimate.difference)
    assert estimate.interval is not None
    assert look.interval is not None
    assert look.interval.lower == pytest.approx(estimate.interval.lower)
    assert look.interval.upper == pytest.approx(estimate.interval.upper)


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_crossing_probabilities_agree_with_simulation(alternative: str) -> None:
    """Steps so fine that a path rarely meets the boundary between two of them."""
    sides = 2 if alternative == "two-sided" else 1
    crossing = mixture_crossing(2.0, 20.0, sides=sides)
    times = np.expm1(np.linspace(0, math.log(21), 2_001))[1:]
    rng = np.random.default_rng(3)
    step = np.sqrt(np.diff(times, prepend=0.0))
    path = np.cumsum(rng.standard_normal((4_000, len(times))) * step, axis=1)
    log_e = normal_log_mixture(path, times, rho=1.0, alternative=alternative)  # type: ignore[arg-type]
    met = (log_e >= 2.0).any(axis=1).mean()
    assert crossing.probability == pytest.approx(met, abs=0.015)
    assert crossing.power(0.0) == pytest.approx(crossing.probability, abs=1e-5)


def test_the_grid_of_the_integral_equation_is_fine_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = mixture_crossing(2.5, 15.0, sides=2).probability
    monkeypatch.setattr("abkit.sequential.crossing._STEPS", 960)
    assert mixture_crossing(2.5, 15.0, sides=2).probability == pytest.approx(coarse, abs=2e-7)


def test_calibration_spends_alpha_exactly() -> None:
    for alpha in (0.001, 0.05, 0.2):
        assert calibrated_crossing(alpha, 12.0, sides=1).probability == pytest.approx(
            alpha, rel=1e-6
        )


def test_boundaries_of_looks_are_those_of_boundaries() -> None:
    when = [500.0, 1_500.0, 4_000.0, 7_000.0, 10_000.0]
    past: list[Look] = []
    for h in when:
        past.append(DESIGN.look(at(0.5, h), past))
    found = [look.boundary for look in past]
    assert found == pytest.approx(DESIGN.boundaries(when))
    assert past[-1].alpha_spent == pytest.approx(0.05)
    assert all(look.decision == "continue" for look in past)


def test_one_look_at_the_maximum_is_a_fixed_test() -> None:
    assert DESIGN.boundaries([10_000]) == pytest.approx([1.959964], abs=1e-6)
    one = CalibratedMixture(planned_units=20_000, alternative="greater")
    assert one.boundaries([10_000]) == pytest.approx([1.644854], abs=1e-6)


def test_past_the_maximum_one_look_is_left() -> None:
    first = DESIGN.look(at(1.0, 9_000), [])
    late = DESIGN.look(at(3.0, 12_000), [first])
    assert late.decision == "reject"
    assert late.alpha_spent == 0.05
    calm = DESIGN.look(at(1.0, 12_000), [first])
    after = DESIGN.look(at(9.0, 13_000), [first, calm])
    assert after.decision == "continue"
    assert after.boundary == math.inf
    assert after.interval == calm.interval
    assert "past the stated maximum" in after.notes[-1]


def test_information_that_goes_back_is_said_and_not_tested() -> None:
    first = DESIGN.look(at(1.0, 4_000), [])
    back = DESIGN.look(at(9.0, 3_000), [first])
    assert back.decision == "continue"
    assert any("went back" in note for note in back.notes)
    again = DESIGN.look(at(9.0, 5_000), [first, back])
    assert again.decision == "reject"


def test_a_look_right_after_another_is_not_tested() -> None:
    first = DESIGN.look(at(1.0, 4_000), [])
    soon = DESIGN.look(at(9.0, 4_001), [first])
    assert soon.boundary == math.inf
    assert soon.interval == first.interval
    assert DESIGN.look(at(9.0, 4_100), [first, soon]).decision == "reject"


def test_a_rejection_stands_and_the_p_value_never_rises() -> None:
    past: list[Look] = []
    for h, z in ((3_000, 4.0), (5_000, 0.0), (8_000, -1.0)):
        past.append(DESIGN.look(at(z, h), past))
    assert [look.decision for look in past] == ["reject"] * 3
    p_values = [look.p_value for look in past]
    assert p_values == [p_values[0]] * 3
    assert p_values[0] is not None
    assert p_values[0] <= 0.05


@pytest.mark.parametrize("design", [DESIGN, AlwaysValid(planned_units=20_000)])
def test_too_little_and_zero_variance_are_no_evidence(
    design: CalibratedMixture | AlwaysValid,
) -> None:
    few = design.look(Contrast(1.0, 1.0, 1.0, enough=False))
    assert (few.status, few.e_value, few.p_value) == ("insufficient_data", 1.0, 1.0)
    none = design.look(Contrast(0.0, 0.0, 50.0))
    assert (none.status, none.e_value, none.interval) == ("zero_variance", 1.0, None)
    empty = design.look(stratified_contrast([], kind="mean"))
    assert (empty.status, empty.estimate) == ("insufficient_data", None)


def test_sides_mirror_each_other() -> None:
    greater = CalibratedMixture(planned_units=20_000, alternative="greater")
    less = CalibratedMixture(planned_units=20_000, alternative="less")
    up, down = greater.look(at(2.5, 4_000)), less.look(at(-2.5, 4_000))
    assert up.decision == down.decision == "reject"
    assert up.boundary == pytest.approx(-(down.boundary or 0))
    assert up.interval is not None
    assert down.interval is not None
    assert up.interval.lower == pytest.approx(-down.interval.upper)
    assert greater.look(at(-9.0, 4_000)).decision == "continue"


def test_a_margin_moves_the_test_and_not_the_interval() -> None:
    plain = DESIGN.look(at(0.0, 4_000))
    moved = CalibratedMixture(planned_units=20_000, margin=-0.1).look(at(0.0, 4_000))
    assert plain.decision == "continue"
    assert moved.decision == "reject"
    assert moved.interval == plain.interval


def test_contrasts_say_when_values_are_too_large_or_wrong() -> None:
    huge = Moments(10**9, -1e306, 1e307)
    with pytest.raises(DataError, match="rescale"):
        stratified_contrast([(huge, Moments(10**9, 1e306, 1e307))], kind="mean")
    with pytest.raises(DataError):
        stratified_contrast([(Moments.of([0.5, 2.0]), Moments.of([1.0]))], kind="proportion")
    with pytest.raises(DataError, match="finite"):
        Contrast(math.nan, 1.0, 1.0)
    with pytest.raises(DataError, match=">= 0"):
        Contrast(0.0, -1.0, 1.0)
    assert paired_contrast(Moments()).enough is False
    assert paired_contrast(Moments.of([1.0] * 30)).spread == 0.0


def test_large_means_keep_their_precision() -> None:
    rng = np.random.default_rng(1)
    shift = 1.7e9
    arms = [Moments.of((shift + rng.standard_normal(200)).tolist()) for _ in range(2)]
    contrast = stratified_contrast([(arms[0], arms[1])], kind="mean")
    assert contrast.spread == pytest.approx(1, rel=0.2)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(DesignError, match="horizon"):
        CalibratedMixture(planned_units=10, horizon=0.0)
    with pytest.raises(DesignError, match="planned_units"):
        AlwaysValid(planned_units=0)
    with pytest.raises(DesignError, match="margin"):
        AlwaysValid(planned_units=10, margin=math.nan)
    with pytest.raises(DesignError, match="horizon"):
        calibrated_crossing(0.05, math.inf, sides=2)


def test_a_look_that_is_not_tested_does_not_change_the_p_value() -> None:
    design = CalibratedMixture(planned_units=20_000)
    first = design.look(Contrast(s=0.0, v=4_500.0, h=4_500.0))
    soon = design.look(Contrast(s=400.0, v=4_501.0, h=4_501.0), [first])
    assert (soon.decision, soon.p_value) == ("continue", first.p_value)


@pytest.mark.parametrize("alpha", [0.001, 0.3, 0.4, 0.45])
@pytest.mark.parametrize("sides", [1, 2])
def test_any_alpha_is_spent(alpha: float, sides: Sides) -> None:
    assert calibrated_crossing(alpha, 2.8, sides=sides).probability == pytest.approx(alpha)
