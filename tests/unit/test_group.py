"""Group sequential designs: what a look does with data as they come."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from abkit.errors import DataError, DesignError
from abkit.moments import Block, Moments
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.design import Look
from abkit.sequential.group import Futility, GroupLook, GroupSequential, Statistic
from abkit.sequential.group_inference import stagewise
from abkit.sequential.group_plan import (
    check_fractions,
    even,
    futility_plan,
    spending_plan,
    wang_tsiatis_plan,
)
from abkit.sequential.group_power import conditional_power, drift_for, inflation, power_of
from abkit.sequential.group_score import stratified_score
from abkit.sequential.group_walk import START, Walk, advance, lower_boundary, upper_boundary
from abkit.sequential.spending import Spending

TWO_SIDED = GroupSequential(planned_information=100.0)
GREATER = GroupSequential(planned_information=100.0, alpha=0.025, alternative="greater")
LESS = dataclasses.replace(GREATER, alternative="less")
WITH_FUTILITY = dataclasses.replace(GREATER, futility=Futility(effect=0.3))
BINDING = dataclasses.replace(GREATER, futility=Futility(effect=0.3, binding=True))
DESIGNS = (TWO_SIDED, GREATER, LESS, WITH_FUTILITY, BINDING)


def finite(look: GroupLook) -> bool:
    numbers = (look.information, look.fraction, look.statistic, look.alpha_spent, look.estimate)
    return not any(x is not None and math.isnan(x) for x in (*numbers, look.boundary))


# --- what may happen to information -----------------------------------------------------------


def test_information_that_goes_backwards_is_not_tested_and_costs_nothing() -> None:
    first, back, forth = TWO_SIDED.replay([(1.0, 50.0), (9.0, 40.0), (1.0, 70.0)])
    assert (back.clock_status, back.decision, back.boundary) == ("stalled", "continue", math.inf)
    assert back.notes == ("information went backwards: 40 after 50; not tested",)
    assert back.alpha_spent == first.alpha_spent
    assert forth.boundary == TWO_SIDED.replay([(1.0, 50.0), (1.0, 70.0)])[-1].boundary


def test_information_that_stands_still_is_not_tested() -> None:
    _, still = TWO_SIDED.replay([(1.0, 50.0), (9.0, 50.0)])
    assert still.notes == ("information stands still: 50 after 50; not tested",)


def test_information_past_its_plan_spends_all_and_later_looks_are_not_tested() -> None:
    _, over, after = TWO_SIDED.replay([(1.0, 50.0), (1.0, 130.0), (9.0, 150.0)])
    assert over.notes == ("information is past its plan: 130 of 100; all alpha spent",)
    assert over.alpha_spent == pytest.approx(0.05)
    assert over.fraction == pytest.approx(1.3)
    assert (after.clock_status, after.decision) == ("exhausted", "continue")
    assert after.interval is not None
    assert math.isinf(after.interval.upper)


def test_an_end_before_the_plan_spends_what_is_left() -> None:
    first = TWO_SIDED.look(Statistic(1.0, 40.0))
    last = TWO_SIDED.look(Statistic(2.0, 80.0), [first], final=True)
    assert last.notes == ("the end came at 80.0% of the planned information",)
    assert last.alpha_spent == pytest.approx(0.05)
    assert last.decision == "reject"


def test_an_end_without_new_information_is_a_test_of_its_own() -> None:
    first = TWO_SIDED.look(Statistic(1.0, 80.0))
    last = TWO_SIDED.look(Statistic(2.5, 79.0), [first], final=True)
    left = 0.05 - (first.alpha_spent or 0.0)
    assert last.boundary == pytest.approx(stats.norm.isf(left / 2), rel=1e-9)
    assert "the rest of alpha is a test apart" in last.notes[-1]
    assert last.decision == "reject"
    assert stagewise(TWO_SIDED, [first, last]).status == "ok"


@pytest.mark.parametrize("design", [WITH_FUTILITY, BINDING])
def test_an_end_without_new_information_is_final_for_futility_too(design: GroupSequential) -> None:
    first = design.look(Statistic(1.5, 80.0))
    last = design.look(Statistic(1.5, 80.0), [first], final=True)
    assert (last.decision, last.futility_boundary) == ("futility", last.boundary)


@pytest.mark.parametrize(
    ("z", "information", "status", "clock_status"),
    [
        (math.nan, 10.0, "undefined", "undefined"),
        (math.inf, 10.0, "undefined", "undefined"),
        (1.0, math.nan, "undefined", "undefined"),
        (1.0, math.inf, "undefined", "undefined"),
        (1.0, 0.0, "insufficient_data", "no_information"),
        (1.0, -3.0, "insufficient_data", "no_information"),
    ],
)
def test_what_is_no_number_is_not_tested(
    z: float, information: float, status: str, clock_status: str
) -> None:
    look = TWO_SIDED.look(Statistic(z, information))
    assert (look.status, look.clock_status) == (status, clock_status)
    assert (look.decision, look.alpha_spent, look.estimate) == ("continue", 0.0, None)
    assert finite(look)
    after = TWO_SIDED.look(Statistic(1.0, 50.0), [look])
    assert after.boundary == TWO_SIDED.look(Statistic(1.0, 50.0)).boundary


@settings(max_examples=60)
@given(
    st.sampled_from(DESIGNS),
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True) | st.floats(-5, 5),
            st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 150),
            st.booleans(),
        ),
        max_size=8,
    ),
)
def test_no_series_of_looks_raises_or_overspends(
    design: GroupSequential, series: list[tuple[float, float, bool]]
) -> None:
    looks: list[GroupLook] = []
    for z, information, final in series:
        looks.append(design.look(Statistic(z, information), looks, final=final))
    spent = [0.0, *(look.alpha_spent or 0.0 for look in looks)]
    assert all(a <= b for a, b in itertools.pairwise(spent))
    assert spent[-1] <= design.alpha * (1 + 1e-9)
    assert all(finite(look) for look in looks)
    assert stagewise(design, looks).status in {"ok", "insufficient_data", "undefined"}
    assert 0 <= conditional_power(design, looks, [160.0]) <= 1


@settings(max_examples=25)
@given(st.lists(st.floats(0.02, 1.0), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_any_looks_spend_exactly_the_function(steps: list[float], alpha: float) -> None:
    """Crossing probabilities by the plain recursion, with nodes twice as dense."""
    times = np.cumsum(steps) / sum(steps)
    design = GroupSequential(planned_information=1.0, alpha=alpha)
    looks = design.replay([(0.0, float(t)) for t in times])
    walk, total = START, 0.0
    for look, after in itertools.zip_longest(looks, looks[1:]):
        u = (walk.points - look.limit * math.sqrt(look.information)) / math.sqrt(
            look.information - walk.information
        )
        total += 2 * float(walk.masses @ stats.norm.cdf(u))
        assert total == pytest.approx(look.alpha_spent, abs=1e-9)
        if after is not None:
            step = (look.information, -look.limit, look.limit)
            gap = min(look.information - walk.information, after.information - look.information)
            walk = advance(walk, step, look.information + gap / 4)


# --- what a look decides ----------------------------------------------------------------------


def test_a_rejection_stands_whatever_comes_later() -> None:
    looks = TWO_SIDED.replay([(0.0, 30.0), (4.0, 50.0), (0.0, 70.0), (0.0, 60.0), (0.0, 100.0)])
    assert [look.decision for look in looks] == ["continue"] + ["reject"] * 4
    assert [look.stopped_at for look in looks] == [None, 2, 2, 2, 2]
    assert looks[2].notes == ("the test stopped at look 2",)


def test_replaying_gives_the_same_looks_and_past_looks_are_not_touched() -> None:
    series = [(0.5, 20.0), (1.0, 45.0), (1.5, 60.0)]
    once = TWO_SIDED.replay(series)
    assert TWO_SIDED.replay(series) == once
    assert TWO_SIDED.replay(series[:2]) == once[:2]


def test_alpha_spent_under_another_function_is_kept() -> None:
    pocock = dataclasses.replace(TWO_SIDED, spending=Spending("pocock"))
    first = pocock.look(Statistic(0.0, 50.0))
    second = TWO_SIDED.look(Statistic(0.0, 60.0), [first])
    assert second.alpha_spent == first.alpha_spent
    assert second.boundary == math.inf
    assert TWO_SIDED.look(Statistic(0.0, 100.0), [first, second]).alpha_spent == pytest.approx(0.05)


def test_less_mirrors_greater() -> None:
    series = [(0.5, 30.0), (3.5, 70.0)]
    up = GREATER.replay(series)
    down = LESS.replay([(-z, information) for z, information in series])
    assert [k.boundary for k in up] == [k.boundary for k in down]
    assert down[-1].decision == "reject"
    assert up[-1].interval is not None
    assert down[-1].interval is not None
    assert down[-1].interval.upper == -up[-1].interval.lower
    one, other = stagewise(GREATER, up), stagewise(LESS, down)
    assert one.p_value == other.p_value
    assert one.estimate == pytest.approx(-(other.estimate or 0.0))
    assert conditional_power(GREATER, up[:1], [100.0]) == conditional_power(LESS, down[:1], [100.0])


@settings(max_examples=30)
@given(st.floats(-6, 6), st.floats(10, 100), st.sampled_from([TWO_SIDED, GREATER, LESS]))
def test_the_repeated_interval_leaves_zero_out_where_the_test_rejects(
    z: float, information: float, design: GroupSequential
) -> None:
    look = design.look(Statistic(z, information))
    assert look.interval is not None
    if abs(abs(z) - (look.boundary or 0.0)) > 1e-9:
        assert (0.0 not in look.interval) == (look.decision == "reject")


def test_an_interval_in_the_metrics_unit() -> None:
    look = TWO_SIDED.look(Statistic(2.0, 100.0, standard_error=0.7))
    assert look.interval is not None
    assert look.estimate == pytest.approx(1.4)
    assert look.interval.upper - 1.4 == pytest.approx(0.7 * look.limit)
    result = stagewise(TWO_SIDED, [look])
    assert result.estimate == pytest.approx(1.4)  # one look: nothing to correct
    assert result.p_value == pytest.approx(2 * stats.norm.sf(2.0))


@pytest.mark.parametrize("error", [0.0, math.inf, math.nan, -1.0])
def test_a_useless_standard_error_gives_no_estimate(error: float) -> None:
    look = TWO_SIDED.look(Statistic(2.0, 100.0, standard_error=error))
    assert (look.estimate, look.decision) == (None, "reject")
    assert stagewise(TWO_SIDED, [look]).status == "ok"


def test_looks_of_other_designs_are_refused() -> None:
    other = Look(method="other", guarantee="exact", alpha=0.05, alternative="greater")
    with pytest.raises(DesignError, match="looks of this design"):
        TWO_SIDED.look(Statistic(1.0, 1.0), [other])


# --- contrasts and clocks ---------------------------------------------------------------------


def test_the_clocks_of_a_contrast() -> None:
    strata = [(Moments(400, 1.0, 4 * 399.0), Moments(400, 1.5, 4 * 399.0))]
    contrast = stratified_contrast(strata, kind="mean")
    clocks = {"contrast_variance": 800.0, "inverse_variance": 50.0, "effective_units": 200.0}
    for clock, information in clocks.items():
        design = GroupSequential(planned_information=2 * information, clock=clock)  # type: ignore[arg-type]
        look = design.look(contrast)
        assert look.information == pytest.approx(information)
        assert look.fraction == pytest.approx(0.5)
        assert look.statistic == pytest.approx(0.5 / math.sqrt(0.02))
        assert look.estimate == pytest.approx(0.5)
        assert look.clock == clock


def test_a_design_for_units_counts_effective_ones() -> None:
    design = GroupSequential.for_units(80_000, share=0.05, alternative="greater")
    assert design.planned_information == pytest.approx(3_800)
    assert (design.clock, design.alternative) == ("effective_units", "greater")
    strata = [(Moments.of_counts(38_000, 400), Moments.of_counts(2_000, 40))]
    look = design.look(stratified_contrast(strata, kind="proportion"))
    assert look.fraction == pytest.approx(0.5)
    for units, share in ((0, 0.5), (10, 0.0), (10, 1.0), (10, math.nan)):
        with pytest.raises(DesignError, match="planned_units"):
            GroupSequential.for_units(units, share=share)


def test_too_few_units_and_no_variance_are_not_tested() -> None:
    few = stratified_contrast([(Moments(5, 1.0, 4.0), Moments(5, 9.0, 4.0))], kind="mean")
    flat = stratified_contrast([(Moments(50, 1.0, 0.0), Moments(50, 2.0, 0.0))], kind="mean")
    assert TWO_SIDED.look(few).status == "insufficient_data"
    assert TWO_SIDED.look(flat).status == "zero_variance"
    assert TWO_SIDED.look(flat).clock_status == "no_information"


def test_the_score_adds_up_hypergeometric_tables() -> None:
    blocks = [Block(90, 10, 9, 4), Block(50, 50, 10, 15), Block(20, 0, 3, 0), Block(1, 0, 1, 0)]
    z, information = stratified_score(blocks, fewest_events=0)
    tables = [stats.hypergeom(100, 13, 10), stats.hypergeom(100, 25, 50)]
    score = 4 + 15 - sum(t.mean() for t in tables)
    variance = sum(t.var() for t in tables)
    assert information == pytest.approx(variance)
    assert z == pytest.approx(score / math.sqrt(variance))


def test_the_score_waits_for_events_and_variance() -> None:
    assert stratified_score([Block(1_000, 1_000, 24, 30)]) == (0.0, 0.0)
    assert stratified_score([Block(1_000, 1_000, 980, 900)]) == (0.0, 0.0)
    assert stratified_score([Block(1_000, 1_000, 25, 30)])[1] > 0
    assert stratified_score([Block(10, 10, 0, 0)], fewest_events=0) == (0.0, 0.0)
    assert stratified_score([], fewest_events=0) == (0.0, 0.0)


def test_the_score_of_billions_is_exact() -> None:
    n = 2**33
    z, information = stratified_score([Block(n, n, n // 4, n // 4)])
    assert z == 0.0
    assert information == pytest.approx(n / 2 * 0.25 * 0.75, rel=1e-9)


def test_an_impossible_block_is_refused() -> None:
    with pytest.raises(DataError, match="more events than units"):
        stratified_score([Block(10, 10, 11, 0)])


# --- futility ---------------------------------------------------------------------------------


def test_futility_that_does_not_bind_may_be_overruled() -> None:
    looks = WITH_FUTILITY.replay([(1.0, 50.0), (-2.0, 70.0), (3.0, 90.0)])
    assert [look.decision for look in looks] == ["continue", "futility", "reject"]
    assert looks[2].notes == ("futility at look 2 was overruled: it does not bind",)
    again = WITH_FUTILITY.replay([(-2.0, 50.0), (-2.0, 70.0), (9.0, 60.0)])
    assert [look.stopped_at for look in again] == [1, 1, 1]
    assert again[2].decision == "futility"


def test_futility_that_binds_stays() -> None:
    looks = BINDING.replay([(-2.0, 50.0), (4.0, 90.0)])
    assert [look.decision for look in looks] == ["futility", "futility"]
    assert conditional_power(BINDING, looks, [100.0]) == 0.0


def test_binding_lowers_the_bar_and_not_binding_leaves_it() -> None:
    series = [(1.0, 40.0), (1.5, 70.0), (1.5, 100.0)]
    plain, loose, bound = (d.replay(series)[-1].limit for d in (GREATER, WITH_FUTILITY, BINDING))
    assert loose == plain
    assert bound < plain


def test_at_the_end_there_is_no_room_between_the_boundaries() -> None:
    last = WITH_FUTILITY.replay([(1.0, 60.0), (1.0, 100.0)])[-1]
    assert (last.decision, last.futility_boundary) == ("futility", last.boundary)


def test_more_information_than_futility_needs_leaves_it_below_efficacy() -> None:
    design = dataclasses.replace(GREATER, futility=Futility(effect=3.0))
    looks = design.replay([(1.0, 50.0), (1.0, 60.0)])
    assert all((k.futility_boundary or 0.0) <= k.limit for k in looks)


def test_a_two_sided_test_has_no_futility() -> None:
    with pytest.raises(DesignError, match="futility needs a direction"):
        dataclasses.replace(TWO_SIDED, futility=Futility(effect=0.3))
    with pytest.raises(DesignError, match="futility needs a direction"):
        futility_plan(even(3), alternative="two-sided")


# --- power and estimates ----------------------------------------------------------------------


def test_power_counts_every_way_to_stop_once() -> None:
    plan = futility_plan((0.2, 0.5, 1.0))
    for drift in (-2.0, 0.0, 1.0, 4.0):
        result = power_of(plan, drift)
        assert sum(result.reject) + sum(result.futility) == pytest.approx(1.0, abs=1e-9)
        assert 0.2 <= result.expected_fraction <= 1


def test_power_by_simulation() -> None:
    rng = np.random.default_rng(20)
    plan = spending_plan(even(4), spending=Spending("pocock"))
    drift = drift_for(plan, 0.7)
    steps = rng.standard_normal((40_000, 4)) / 2 + drift / 4
    z = np.cumsum(steps, axis=1) / np.sqrt(plan.fractions)
    crossed = np.abs(z) >= np.array(plan.boundaries)
    result = power_of(plan, drift)
    assert crossed.any(axis=1).mean() == pytest.approx(0.7, abs=0.012)
    ends = np.where(crossed.any(axis=1), crossed.argmax(axis=1), 3)
    assert np.array(plan.fractions)[ends].mean() == pytest.approx(
        result.expected_fraction, abs=0.01
    )


def test_the_estimate_is_median_unbiased_and_the_interval_covers() -> None:
    rng = np.random.default_rng(21)
    effect, runs = 0.28, 400
    times = np.array([30.0, 60.0, 100.0])
    low = covered = plain = 0
    for steps in rng.standard_normal((runs, 3)):
        score = np.cumsum(steps * np.sqrt(np.diff(times, prepend=0.0))) + effect * times
        looks: list[GroupLook] = []
        for s, t in zip(score, times, strict=True):
            looks.append(TWO_SIDED.look(Statistic(s / math.sqrt(t), float(t)), looks))
            if looks[-1].decision != "continue":
                break
        result = stagewise(TWO_SIDED, looks)
        assert result.interval is not None
        low += (result.estimate or 0.0) < effect
        covered += effect in result.interval
        plain += (looks[-1].estimate or 0.0) < effect
    assert abs(low - runs / 2) < 5 * math.sqrt(runs / 4)
    assert covered >= stats.binom.ppf(1e-6, runs, 0.95)
    assert plain < low  # the plain estimate is too large more often


@settings(max_examples=30)
@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_the_stagewise_p_value_agrees_with_the_decision(zs: list[float]) -> None:
    looks: list[GroupLook] = []
    for z, information in zip(zs, (30.0, 60.0, 100.0), strict=True):
        looks.append(TWO_SIDED.look(Statistic(z, information), looks))
        if looks[-1].decision != "continue":
            break
    p_value = stagewise(TWO_SIDED, looks).p_value
    assert p_value is not None
    stopped = looks[-1].decision == "reject"
    if len(looks) == 3 or stopped:
        assert (p_value <= 0.05 + 1e-7) == stopped


def test_estimates_before_and_beyond_anything() -> None:
    assert stagewise(TWO_SIDED, []).status == "insufficient_data"
    beyond = GREATER.replay([(0.0, 50.0), (-40.0, 100.0)])
    assert stagewise(GREATER, beyond).status == "undefined"
    first = TWO_SIDED.replay([(40.0, 100.0)])
    assert stagewise(TWO_SIDED, first).estimate == pytest.approx(4.0)


def test_looks_after_the_stop_do_not_change_the_estimate() -> None:
    looks = TWO_SIDED.replay([(1.0, 30.0), (3.9, 50.0), (0.0, 80.0)])
    assert stagewise(TWO_SIDED, looks) == stagewise(TWO_SIDED, looks[:2])


def test_conditional_power_before_any_look_is_power() -> None:
    plan = spending_plan(even(4), alpha=0.025, alternative="greater")
    drift = drift_for(plan, 0.9)
    power = conditional_power(GREATER, [], [25.0, 50.0, 75.0, 100.0], effect=drift / 10)
    assert power == pytest.approx(0.9, abs=1e-9)
    assert conditional_power(GREATER, [], [25.0, 100.0], effect=-0.5) < 0.001
    both = conditional_power(TWO_SIDED, [], [50.0, 100.0], effect=0.0)
    assert both == pytest.approx(0.05, abs=1e-9)


def test_conditional_power_at_its_ends() -> None:
    rejected = GREATER.replay([(5.0, 50.0)])
    assert conditional_power(GREATER, rejected, [100.0]) == 1.0
    exhausted = GREATER.replay([(0.0, 100.0)])
    assert conditional_power(GREATER, exhausted, [120.0]) == 0.0
    assert conditional_power(GREATER, [], []) == 0.0
    with pytest.raises(DesignError, match="the drift must lie"):
        conditional_power(GREATER, [], [100.0], effect=50.0)


@pytest.mark.parametrize("look_count", [1, 2, 20])
def test_a_plans_spending_reproduces_it_look_by_look(look_count: int) -> None:
    plan = wang_tsiatis_plan(even(look_count), delta=0.2)
    design = GroupSequential(planned_information=50.0, spending=plan.spending)
    looks = design.replay([(0.0, 50.0 * t) for t in plan.fractions])
    assert [look.boundary for look in looks] == pytest.approx(plan.boundaries, abs=1e-7)
    assert design.plan(plan.fractions).boundaries == pytest.approx(plan.boundaries, abs=1e-7)


# --- the recursion ----------------------------------------------------------------------------


def test_two_looks_agree_with_the_bivariate_normal() -> None:
    plan = spending_plan((0.37, 1.0), alpha=0.1)
    a, b = plan.boundaries
    r = math.sqrt(0.37)
    inside = stats.multivariate_normal(cov=[[1, r], [r, 1]]).cdf([a, b], lower_limit=[-a, -b])
    assert 1 - inside == pytest.approx(0.1, abs=1e-8)


def test_nothing_goes_on_between_boundaries_that_meet() -> None:
    walk = advance(START, (1.0, 2.0, 2.0), 2.0)
    assert walk.points.size == 0
    assert upper_boundary(walk, 2.0, 0.01) == -math.inf


def test_what_cannot_be_spent_has_no_boundary() -> None:
    assert upper_boundary(START, 1.0, 0.0) == math.inf
    assert lower_boundary(START, 1.0, 0.0, 1.0) == -math.inf
    narrow = Walk(1.0, np.array([-8.0]), np.array([1.0]))
    assert upper_boundary(narrow, 1.01, 1e-200) > 0


def test_many_looks_and_tiny_steps_stay_accurate() -> None:
    jumps = np.concatenate([np.linspace(0.1, 0.1005, 4), [0.5, 0.50006, 1.0]])
    looks = TWO_SIDED.replay([(0.0, 100 * float(t)) for t in jumps])
    assert looks[-1].alpha_spent == pytest.approx(0.05)
    assert all(look.boundary is not None and look.boundary > 1.9 for look in looks)
    many = spending_plan(even(500))
    assert many.alpha_spent[-1] == pytest.approx(0.05)
    assert 2.2 < many.boundaries[-1] < 2.2414  # z_.0125: the limit of ever more looks


def test_a_series_of_looks_costs_a_step_a_look() -> None:
    """Counts steps of the recursion, not seconds."""
    from abkit.sequential import group_walk

    group_walk._remembered.cache_clear()
    TWO_SIDED.replay([(0.0, float(t)) for t in range(1, 101)])
    assert group_walk._remembered.cache_info().misses <= 101


# --- what is refused --------------------------------------------------------------------------


def test_impossible_designs_are_refused() -> None:
    with pytest.raises(DesignError, match="planned_information"):
        GroupSequential(planned_information=0.0)
    with pytest.raises(DesignError, match="alpha must lie"):
        GroupSequential(planned_information=1.0, alpha=1.5)
    with pytest.raises(DesignError, match="clock must be one of"):
        GroupSequential(planned_information=1.0, clock="users")  # type: ignore[arg-type]
    with pytest.raises(DesignError, match="effect must be finite"):
        Futility(effect=-1.0)
    with pytest.raises(DesignError, match="beta must lie"):
        Futility(effect=1.0, beta=0.0)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((), "last information fraction"),
        ((0.5,), "last information fraction"),
        ((0.5, 0.4, 1.0), "must rise"),
        ((0.5, 0.50001, 1.0), "must rise"),
        ((0.5, 1.2), "must rise"),
        ((0.0, 1.0), "must rise"),
        ((math.nan, 1.0), "must rise"),
    ],
)
def test_impossible_plans_are_refused(fractions: tuple[float, ...], message: str) -> None:
    with pytest.raises(DesignError, match=message):
        check_fractions(fractions)


def test_impossible_questions_are_refused() -> None:
    plan = spending_plan(even(2))
    with pytest.raises(DesignError, match="at least one look"):
        even(0)
    with pytest.raises(DesignError, match="delta must lie"):
        wang_tsiatis_plan(even(2), delta=3.0)
    with pytest.raises(DesignError, match=r"alpha < 0\.5"):
        wang_tsiatis_plan(even(2), delta=0.0, alpha=0.7, alternative="greater")
    with pytest.raises(DesignError, match="power must lie"):
        futility_plan(even(2), power=0.01)
    with pytest.raises(DesignError, match="power must lie"):
        inflation(plan, 0.04)
    with pytest.raises(DesignError, match="drift must lie"):
        power_of(plan, math.nan)
    assert drift_for(plan, 0.9999999999999) > 9


@pytest.mark.parametrize("end", [1.0, 2.0, 3.0 * (1 - 1e-13), 3.0, 3.0 * (1 + 1e-13)])
def test_an_end_without_new_information_has_an_estimate(end: float) -> None:
    design = GroupSequential(planned_information=100.0)
    looks: list[GroupLook] = []
    for information in (2.0, 3.0):
        looks.append(design.look(Statistic(0.5, information), looks))
    looks.append(design.look(Statistic(0.5, end), looks, final=True))
    assert stagewise(design, looks).status == "ok"
