"""The hypergeometric mixture."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from abkit.errors import DataError, DesignError
from abkit.moments import Block
from abkit.sequential.calibrated import AlwaysValid
from abkit.sequential.design import Contrast
from abkit.sequential.display import displayed
from abkit.sequential.hypergeometric import (
    HypergeometricMixture,
    fnch_log_likelihood,
    hypergeometric_log_e,
)
from abkit.sequential.tilting import TiltPrior

SIDES = ("two-sided", "greater", "less")


def mean_e_value(
    design: HypergeometricMixture, n: tuple[int, int], rates: tuple[float, float]
) -> float:
    """Exact mean of the e-value of one more block after two others, relative to before."""
    state = design.start().update(Block(30, 5, 3, 2)).update(Block(10, 40, 4, 6))
    total = 0.0
    for y, x in itertools.product(range(n[0] + 1), range(n[1] + 1)):
        chance = stats.binom.pmf(y, n[0], rates[0]) * stats.binom.pmf(x, n[1], rates[1])
        after = state.update(Block(*n, y, x)).log_e_value
        total += float(chance) * math.exp(after - state.log_e_value)
    return total


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("n", [(1, 1), (9, 1), (4, 12), (6, 6)])
@pytest.mark.parametrize("base", [0.01, 0.3, 0.9])
def test_its_mean_is_one_under_equal_rates(side: str, n: tuple[int, int], base: float) -> None:
    design = HypergeometricMixture(alternative=side)  # type: ignore[arg-type]
    assert mean_e_value(design, n, (base, base)) == pytest.approx(1, abs=1e-12)


def test_its_mean_is_at_most_one_inside_a_one_sided_null_and_above_outside() -> None:
    margin = math.log(1.5)
    design = HypergeometricMixture(alternative="less", null_log_odds=margin)

    def treated(log_odds: float) -> float:
        odds = 0.2 / 0.8 * math.exp(log_odds)
        return odds / (1 + odds)

    assert mean_e_value(design, (8, 8), (0.2, treated(margin))) == pytest.approx(1, abs=1e-12)
    assert mean_e_value(design, (8, 8), (0.2, treated(margin + 0.5))) < 1
    assert mean_e_value(design, (8, 8), (0.2, treated(margin - 1.0))) > 1


@pytest.mark.parametrize(
    ("x", "nt", "nc", "events"),
    [(3, 50, 950, 10), (700, 5_000, 5_000, 1_300), (900, 1_000, 200, 1_100), (0, 7, 9, 4)],
)
def test_likelihoods_are_those_of_the_brute_sum(x: int, nt: int, nc: int, events: int) -> None:
    nodes = TiltPrior().nodes
    value, mean = fnch_log_likelihood(x, nt, nc, events, nodes)
    counts = np.arange(max(0, events - nc), min(nt, events) + 1)
    terms = stats.hypergeom.logpmf(counts, nt + nc, nt, events) + np.multiply.outer(
        nodes, counts - x
    )
    peak = terms.max(axis=1, keepdims=True)
    weights = np.exp(terms - peak)
    assert value == pytest.approx(-(peak[:, 0] + np.log(weights.sum(axis=1))), abs=1e-9)
    assert mean == pytest.approx((weights * counts).sum(axis=1) / weights.sum(axis=1), rel=1e-9)


@pytest.mark.parametrize("x", [0, 1, 200, 201, 250])
def test_scipy_agrees_on_single_probabilities(x: int) -> None:
    ratio, _ = fnch_log_likelihood(x, 400, 600, 250, np.array([0.4]))
    theirs = stats.nchypergeom_fisher.logpmf(x, 1_000, 400, 250, math.exp(0.4))
    null = stats.hypergeom.logpmf(x, 1_000, 400, 250)
    if math.isfinite(theirs):
        assert ratio[0] == pytest.approx(theirs - null, abs=1e-6)


def test_billions_of_units_are_no_problem() -> None:
    block = Block(2_000_000_000, 3_000_000_000, 40_000_000, 60_010_000)
    look = HypergeometricMixture().look(HypergeometricMixture().start().update(block))
    assert look.status == "ok"
    assert look.estimate == pytest.approx(math.log(60_010_000 / 60_000_000), abs=1e-5)
    assert look.estimate in look.interval  # type: ignore[operator]
    assert look.p_value is not None
    assert math.isfinite(look.e_value or math.nan)


def test_blocks_without_both_arms_or_both_outcomes_are_no_evidence() -> None:
    design = HypergeometricMixture()
    state = design.start()
    for block in (Block(0, 9, 0, 3), Block(9, 0, 3, 0), Block(9, 9, 0, 0), Block(9, 9, 9, 9)):
        state = state.update(block)
    assert state == design.start()
    look = design.look(state)
    assert (look.status, look.e_value, look.p_value, look.interval) == (
        "insufficient_data",
        1.0,
        1.0,
        None,
    )


def test_events_in_one_arm_only_give_a_half_open_interval_and_no_estimate() -> None:
    design = HypergeometricMixture()
    look = design.look(design.start().update(Block(1_000, 1_000, 0, 12)))
    assert look.estimate is None
    assert look.interval is not None
    assert look.interval.lower > 0
    assert look.interval.upper == math.inf
    assert look.decision == "reject"


@pytest.mark.parametrize("side", SIDES)
def test_the_interval_excludes_the_null_exactly_when_the_test_rejects(side: str) -> None:
    design = HypergeometricMixture(alternative=side)  # type: ignore[arg-type]
    for x in range(5, 60, 3):
        look = design.look(design.start().update(Block(500, 500, 25, x)))
        wrong_side = (side == "greater" and x < 25) or (side == "less" and x > 25)
        if wrong_side:
            continue
        assert look.interval is not None
        assert (0.0 not in look.interval) == (look.decision == "reject"), x


def test_the_interval_is_never_shorter_than_the_exact_one_and_nearly_as_short() -> None:
    design = HypergeometricMixture()
    state = design.start().update(Block(5_000, 5_000, 250, 400))
    level = state.log_e_value + math.log(0.05)
    fine = np.linspace(-1, 2, 30_001)
    value, _ = fnch_log_likelihood(400, 5_000, 5_000, 650, fine)
    inside = fine[value >= level]
    assert state.interval.lower <= inside[0]
    assert state.interval.upper >= inside[-1]
    assert state.interval.upper - state.interval.lower <= 1.15 * (inside[-1] - inside[0])


def test_the_order_of_blocks_does_not_matter_and_pooling_does() -> None:
    blocks = [Block(990, 10, 20, 1), Block(500, 500, 20, 22), Block(750, 250, 60, 22)]
    design = HypergeometricMixture()
    values = {
        round(hypergeometric_log_e(order, design), 9) for order in itertools.permutations(blocks)
    }
    assert len(values) == 1


def test_evidence_once_found_stays_in_the_p_value_and_the_decision() -> None:
    design = HypergeometricMixture()
    strong = design.start().update(Block(100, 100, 5, 30))
    first = design.look(strong)
    second = design.look(strong.update(Block(100, 100, 40, 10)), [first])
    assert second.e_value is not None
    assert first.e_value is not None
    assert second.e_value < first.e_value
    assert second.p_value == first.p_value
    assert second.decision == "reject"


def test_a_said_expectation_finds_it_sooner() -> None:
    block = Block(9_500, 500, 95, 12)
    plain = HypergeometricMixture(alternative="greater")
    said = HypergeometricMixture(alternative="greater", expected=math.log(2))
    assert hypergeometric_log_e([block], said) > hypergeometric_log_e([block], plain)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(DesignError, match="alpha"):
        HypergeometricMixture(alpha=0.0)
    with pytest.raises(DesignError, match="within"):
        HypergeometricMixture(null_log_odds=math.inf)
    with pytest.raises(DesignError, match="sum to 1"):
        HypergeometricMixture(parts=((0.5, 1.0),))
    with pytest.raises(DesignError, match="expected"):
        HypergeometricMixture(expected=-0.1)
    with pytest.raises(DataError, match="more events"):
        HypergeometricMixture().start().update(Block(1, 1, 2, 0))
    with pytest.raises(DataError, match="impossible"):
        fnch_log_likelihood(5, 2, 2, 3, np.zeros(1))
    other = HypergeometricMixture(alpha=0.01).start()
    with pytest.raises(DesignError, match="another design"):
        HypergeometricMixture().look(other)


def test_relative_risks_and_differences_are_for_display() -> None:
    design = HypergeometricMixture()
    state = design.start().update(Block(4_000, 1_000, 400, 150))
    shown = displayed(design.look(state), state.base_rate)
    assert shown.base_rate == pytest.approx(0.1)
    assert shown.relative_risk == pytest.approx(1.5, rel=1e-6)
    assert shown.difference == pytest.approx(0.05, rel=1e-6)
    assert shown.relative_risk_interval is not None
    assert shown.difference_interval is not None
    assert 1.5 in shown.relative_risk_interval
    assert shown.difference_interval.lower > 0
    assert "for display" in shown.note


def test_display_at_the_edges() -> None:
    design = HypergeometricMixture()
    empty = design.start()
    assert displayed(design.look(empty), empty.base_rate).status == "insufficient_data"
    one_arm = empty.update(Block(100, 100, 5, 0))
    shown = displayed(design.look(one_arm), one_arm.base_rate)
    assert shown.relative_risk is None
    assert shown.relative_risk_interval is not None
    assert shown.relative_risk_interval.lower == pytest.approx(0.0)
    assert math.isfinite(shown.relative_risk_interval.upper)
    with pytest.raises(DataError, match="log scale"):
        displayed(AlwaysValid(planned_units=10).look(Contrast(0.0, 0.0, 0.0)), 0.1)


def test_a_single_event_bounds_the_odds() -> None:
    """Its likelihood is the logistic curve, and e is 1: the end is where that is alpha / 2."""
    design = HypergeometricMixture()
    interval = design.look(design.start().update(Block(1, 1, 0, 1))).interval
    assert interval is not None
    assert interval.lower == pytest.approx(math.log(0.025 / 0.975), abs=2e-3)
    assert interval.upper == math.inf
