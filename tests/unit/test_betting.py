"""Means of bounded values by betting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from abkit.errors import DataError, DesignError
from abkit.sequential.betting import BettingMean, inverse_propensity_scores


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_its_mean_is_one_under_the_null(side: str) -> None:
    """Values 0 and 1 with chance .3 of 1: all 64 paths of six units."""
    design = BettingMean(null=0.3, alternative=side, grid=10)  # type: ignore[arg-type]
    total = 0.0
    for path in itertools.product((0.0, 1.0), repeat=6):
        chance = math.prod(0.3 if x else 0.7 for x in path)
        total += chance * math.exp(design.start().update(path).log_e_value)
    assert total == pytest.approx(1, abs=1e-12)


def test_units_one_by_one_are_units_together() -> None:
    values = [0.1, 0.9, 0.4, 0.4, 0.0, 1.0]
    design = BettingMean(null=0.5)
    state = design.start()
    for value in values:
        state = state.update([value])
    together = design.start().update(values)
    assert state == together
    assert np.array_equal(state.log_capital, together.log_capital)


def test_the_range_only_scales() -> None:
    values = [0.2, 0.9, 0.5, 0.7, 0.1] * 5
    unit = BettingMean(null=0.5).look(BettingMean(null=0.5).start().update(values))
    wide = BettingMean(null=0.0, lower=-10, upper=10)
    look = wide.look(wide.start().update([20 * x - 10 for x in values]))
    assert look.e_value == pytest.approx(unit.e_value)
    assert look.estimate == pytest.approx(20 * (unit.estimate or 0) - 10)
    assert unit.interval is not None
    assert look.interval is not None
    assert look.interval.lower == pytest.approx(20 * unit.interval.lower - 10)


def test_before_the_first_unit_the_range_is_all_there_is() -> None:
    look = BettingMean(null=0.5).look(BettingMean(null=0.5).start())
    assert (look.status, look.e_value, look.p_value) == ("insufficient_data", 1.0, 1.0)
    assert look.interval is not None
    assert (look.interval.lower, look.interval.upper) == (0.0, 1.0)


def test_constant_values_are_no_problem() -> None:
    design = BettingMean(null=0.5)
    for value in (0.0, 0.5, 1.0):
        look = design.look(design.start().update([value] * 200))
        assert look.interval is not None
        assert value in look.interval
        assert look.interval.upper - look.interval.lower < 0.2


def test_one_sided_intervals_end_at_the_range() -> None:
    design = BettingMean(null=0.5, alternative="greater")
    look = design.look(design.start().update([0.8, 0.9] * 30))
    assert look.decision == "reject"
    assert look.interval is not None
    assert look.interval.upper == 1.0
    assert 0.5 < look.interval.lower < 0.85


def test_scores_of_two_arms_have_the_difference_as_their_mean() -> None:
    rng = np.random.default_rng(6)
    share, n = 0.1, 20_000
    treated = rng.random(n) < share
    outcomes = np.where(treated, rng.beta(3, 2, n), rng.beta(2, 3, n))
    scores = inverse_propensity_scores(outcomes.tolist(), treated.tolist(), share=share)
    assert max(map(abs, scores)) <= 1 / share
    assert np.mean(scores) == pytest.approx(0.2, abs=0.03)
    design = BettingMean(null=0.0, lower=-1 / share, upper=1 / share)
    look = design.look(design.start().update(scores[:6_000]))
    assert look.decision == "reject"
    assert look.interval is not None
    assert 0.2 in look.interval


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(DesignError, match="null"):
        BettingMean(null=1.0)
    with pytest.raises(DesignError, match="range"):
        BettingMean(null=0.5, lower=1.0, upper=0.0)
    with pytest.raises(DesignError, match="grid"):
        BettingMean(null=0.5, grid=1)
    with pytest.raises(DataError, match="range of the metric"):
        BettingMean(null=0.5).start().update([1.5])
    with pytest.raises(DataError, match="range of the metric"):
        BettingMean(null=0.5).start().update([math.nan])
    with pytest.raises(DesignError, match="share"):
        inverse_propensity_scores([0.5], [True], share=1.0)
    with pytest.raises(DataError, match="outcomes lie"):
        inverse_propensity_scores([1.5], [True], share=0.5)
    with pytest.raises(DataError, match="arms"):
        inverse_propensity_scores([0.5], [], share=0.5)
    with pytest.raises(DesignError, match="another design"):
        BettingMean(null=0.4).look(BettingMean(null=0.5).start())
