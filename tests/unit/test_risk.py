"""The upper bound of the relative risk: by hand, and against the canary test it is made of."""

from __future__ import annotations

import math

import pytest

from abkit.errors import DataError, DesignError
from abkit.moments import Block
from abkit.sequential.risk import BOUNDS, RiskBound

CALM = Block(9_900, 100, 200, 2)


def test_the_bound_is_the_smallest_risk_that_the_mixture_rejects() -> None:
    """The definition, computed without the shared sums."""
    risks = [0.25, 0.5, 0.7, 0.85, 1.0, *BOUNDS]
    theta = 0.01

    def log_likelihood(risk: float) -> float:
        side = risk * theta / (risk * theta + 1 - theta)
        return 2 * math.log(side) + 200 * math.log(1 - side)

    def log_e(null: float) -> float:
        below = [risk for risk in risks if risk < null]
        ratios = [math.exp(log_likelihood(risk) - log_likelihood(null)) for risk in below]
        equal = math.exp(log_likelihood(1.0) - log_likelihood(null))
        return math.log(0.6 * equal + 0.4 * math.fsum(ratios) / len(ratios))

    expected = next(null for null in BOUNDS if log_e(null) >= math.log(20))
    assert RiskBound().update(CALM).upper == expected


def test_more_of_the_same_brings_the_bound_down_and_harm_brings_it_up() -> None:
    bound = RiskBound().update(CALM)
    later = bound.update(CALM).update(CALM)
    assert 1 < later.upper < bound.upper
    assert later.update(Block(9_900, 100, 200, 90)).upper > later.upper
    assert RiskBound(0.5).update(CALM).upper < bound.upper


@pytest.mark.parametrize(
    "block", [Block(0, 0, 0, 0), Block(9, 9, 0, 0), Block(9, 0, 5, 0), Block(0, 9, 0, 5)]
)
def test_without_events_or_with_one_arm_nothing_is_learnt(block: Block) -> None:
    assert RiskBound().update(block) == RiskBound()
    assert math.isinf(RiskBound().upper)


def test_huge_counts_stay_finite() -> None:
    bound = RiskBound()
    for _ in range(3):
        bound = bound.update(Block(10**12, 10**12, 10**10, 10**10))
    assert bound.upper == BOUNDS[0]
    worse = RiskBound().update(Block(10**12, 10**12, 10**6, 10**11))
    assert math.isinf(worse.upper)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, math.nan])
def test_a_level_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(DesignError, match="alpha"):
        RiskBound(alpha)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="more events"):
        RiskBound().update(Block(1, 1, 2, 0))
    with pytest.raises(DataError, match="101 sums, got 1"):
        RiskBound(0.05, (0.0,))
