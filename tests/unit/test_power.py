"""Planning: statsmodels is the oracle, and the three questions answer one another."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import tt_ind_solve_power

from abkit.comoments import Comoments
from abkit.errors import ConfigError, DesignError
from abkit.moments import Moments
from abkit.stats.power import (
    difference_of_lift,
    minimum_effect,
    power,
    run_length,
    sample_size,
)
from abkit.stats.unit_model import MeanModel, ProportionModel


@pytest.mark.parametrize(("d", "ratio"), [(0.3, 1.0), (0.5, 2.0), (0.2, 0.25)])
def test_it_is_statsmodels(d: float, ratio: float) -> None:
    plan = sample_size(MeanModel(sd=2.0), difference=2 * d, shares=(1.0, ratio), power=0.9)
    expected = tt_ind_solve_power(d, None, 0.05, 0.9, ratio, "two-sided")
    assert plan.exact_units[0] == pytest.approx(float(expected), rel=1e-5)
    assert plan.exact_units[1] == pytest.approx(ratio * plan.exact_units[0], rel=1e-12)


models = st.one_of(
    st.builds(MeanModel, sd=st.floats(0.1, 100)),
    st.builds(ProportionModel, rate=st.floats(0.02, 0.98)),
)


@settings(max_examples=40, deadline=None)
@given(
    model=models,
    size=st.floats(0.05, 0.9),
    wanted=st.floats(0.5, 0.95),
    shares=st.lists(st.floats(0.1, 1), min_size=2, max_size=4),
)
def test_the_three_questions_answer_one_another(
    model: MeanModel | ProportionModel, size: float, wanted: float, shares: list[float]
) -> None:
    scale = model.sd if isinstance(model, MeanModel) else min(model.rate, 1 - model.rate)
    plan = sample_size(model, difference=size * scale, power=wanted, shares=shares)
    assert plan.status == "ok"
    if min(plan.exact_units) <= 2.0 + 1e-9:
        return  # so large an effect that the fewest units are enough
    back = power(model, difference=size * scale, units=plan.exact_units)
    assert back.power == pytest.approx(wanted, rel=1e-8)
    effect = minimum_effect(model, units=plan.exact_units, power=wanted)
    assert effect.difference is not None
    assert effect.difference <= size * scale * (1 + 1e-6)


def test_covariates_save_the_share_that_they_explain() -> None:
    plain = sample_size(MeanModel(sd=1.0), difference=0.02)
    adjusted = sample_size(MeanModel(sd=1.0, variance_reduction=0.36), difference=0.02)
    assert adjusted.exact_units[0] / plain.exact_units[0] == pytest.approx(0.64, rel=1e-3)
    rates = [sample_size(ProportionModel(0.2, v), difference=0.01) for v in (0.0, 0.36)]
    assert rates[1].exact_units[0] / rates[0].exact_units[0] == pytest.approx(0.64, rel=1e-9)


def test_several_treatments_split_alpha() -> None:
    plan = sample_size(MeanModel(sd=1.0), difference=0.1, shares=(1, 1, 1))
    alone = sample_size(MeanModel(sd=1.0), difference=0.1, alpha=0.025)
    assert plan.units == (alone.units[0],) * 3
    assert (plan.alpha, plan.alpha_each) == (0.05, 0.025)


def test_the_smallest_treatment_is_the_one_that_counts() -> None:
    plan = sample_size(MeanModel(sd=1.0), difference=0.1, shares=(5, 1, 1, 1))
    found = power(MeanModel(sd=1.0), difference=0.1, units=plan.exact_units)
    assert found.power == pytest.approx(0.8, rel=1e-9)
    assert plan.exact_units[0] == pytest.approx(5 * plan.exact_units[1], rel=1e-12)


def test_other_spread_in_treatment_has_welchs_degrees_of_freedom() -> None:
    model = MeanModel(sd=1.0, sd_treatment=3.0)
    freedom = model.degrees_of_freedom(50, 50)
    assert freedom == pytest.approx((0.02 + 0.18) ** 2 / (0.02**2 / 49 + 0.18**2 / 49), rel=1e-12)
    assert sample_size(model, difference=0.3).exact_units[0] == pytest.approx(
        5 * sample_size(MeanModel(sd=1.0), difference=0.3).exact_units[0], rel=0.01
    )


def test_a_sequential_design_inflates() -> None:
    fixed, group = (
        sample_size(ProportionModel(0.1), difference=0.01, inflation=factor)
        for factor in (1.0, 1.02841)
    )
    assert group.exact_units[0] / fixed.exact_units[0] == pytest.approx(1.02841, rel=1e-12)


def test_models_from_historical_data() -> None:
    values = [1.0, 2.0, 4.0, 9.0]
    assert MeanModel.of(Moments.of(values)).sd == pytest.approx(math.sqrt(38 / 3), rel=1e-12)
    arm = Comoments.of({"y": values, "n": [1.0, 1.0, 2.0, 2.0]})
    ratio = MeanModel.of_ratio(arm, "y", "n", 0.2)
    assert (ratio.mean, ratio.variance_reduction) == (4.0 / 1.5, 0.2)
    with pytest.raises(DesignError, match="sums to zero"):
        MeanModel.of_ratio(Comoments.of({"y": [1.0, 2.0], "n": [0.0, 0.0]}), "y", "n")
    with pytest.raises(DesignError, match="standard deviation"):
        MeanModel.of(Moments.of([2.0, 2.0]))


def test_lifts_need_a_control_mean() -> None:
    model = MeanModel(sd=2.0, mean=10.0)
    assert difference_of_lift(model, 0.05) == 0.5
    assert sample_size(model, difference=0.5).lift == 0.05
    with pytest.raises(DesignError):
        difference_of_lift(MeanModel(sd=2.0), 0.05)


def test_what_no_experiment_can_find_is_undefined() -> None:
    tiny = sample_size(MeanModel(sd=1.0), difference=1e-9)
    assert (tiny.status, tiny.total) == ("undefined", 0)
    assert run_length(tiny, units_by_day=10**6) is None
    few = minimum_effect(ProportionModel(0.99), units=(20, 20))
    assert (few.status, few.difference) == ("undefined", None)


def test_less_looks_below_zero() -> None:
    plan = minimum_effect(ProportionModel(0.5), units=(200, 200), alternative="less")
    assert plan.difference is not None
    assert plan.difference < 0
    back = power(
        ProportionModel(0.5), difference=plan.difference, units=(200, 200), alternative="less"
    )
    assert back.power == pytest.approx(0.8, rel=1e-9)


def test_days() -> None:
    plan = sample_size(ProportionModel(0.1), difference=0.01)
    assert plan.total == 29_502
    assert run_length(plan, units_by_day=29_502) == 1
    assert run_length(plan, units_by_day=29_501) == 2
    assert run_length(plan, units_by_day=[20_000, 9_000, 502, 9]) == 3
    with pytest.raises(ConfigError):
        run_length(plan, units_by_day=0)
    with pytest.raises(ConfigError):
        run_length(plan, units_by_day=[1.0, -1.0])


def test_billions_of_units_are_no_trouble() -> None:
    found = power(ProportionModel(0.5), difference=3e-5, units=(5_000_000_000, 5_000_000_000))
    assert found.power is not None
    assert 0.8 < found.power < 0.95
    assert power(MeanModel(sd=1.0), difference=1e3, units=(9, 9)).power == 1.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"difference": 0.0}, "not 0"),
        ({"difference": -0.1, "alternative": "greater"}, "other side"),
        ({"difference": 0.95}, "out of"),
        ({"difference": 0.1, "power": 0.01}, "power"),
        ({"difference": 0.1, "shares": (1.0,)}, "at least one treatment"),
        ({"difference": 0.1, "shares": (1.0, 0.0)}, "shares"),
        ({"difference": 0.1, "inflation": 0.9}, "inflation"),
        ({"difference": 0.1, "alpha": 5}, "alpha"),
    ],
)
def test_plans_that_cannot_be_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DesignError, match=said):
        sample_size(ProportionModel(0.1), **wrong)  # type: ignore[arg-type]
    with pytest.raises(DesignError):
        ProportionModel(5.0)
    with pytest.raises(DesignError):
        MeanModel(sd=1.0, variance_reduction=30)
    with pytest.raises(DesignError, match="at least 2"):
        power(MeanModel(sd=1.0), difference=1.0, units=(1, 5))


def test_the_smallest_effect_is_that_of_the_smallest_treatment() -> None:
    model = MeanModel(sd=1.0)
    three = minimum_effect(model, units=(1_000, 100, 500), alpha=0.05)
    weakest = minimum_effect(model, units=(1_000, 100), alpha=0.025)
    assert three.difference == pytest.approx(weakest.difference)


def test_the_pooled_rate_weighs_the_arms_by_their_units() -> None:
    null, alternative = ProportionModel(0.1).standard_errors(900, 100, 0.1)
    assert null == pytest.approx(math.sqrt(0.11 * 0.89 * (1 / 900 + 1 / 100)))
    assert alternative == pytest.approx(math.sqrt(0.1 * 0.9 / 900 + 0.2 * 0.8 / 100))
