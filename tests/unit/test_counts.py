"""Event counts with exposure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from abkit.errors import DataError, DesignError
from abkit.sequential.counts import (
    CountBlock,
    CountMixture,
    multinomial_intervals,
    multinomial_log_e,
)


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_its_mean_is_one_given_the_total(side: str, share: float) -> None:
    design = CountMixture(alternative=side)  # type: ignore[arg-type]
    state = design.start().update(CountBlock(7, 3, 10.0, 5.0))
    total = sum(
        stats.binom.pmf(x, 15, share)
        * math.exp(
            state.update(CountBlock(15 - x, x, 1 - share, share)).log_e_value - state.log_e_value
        )
        for x in range(16)
    )
    assert total == pytest.approx(1, abs=1e-12)


def test_a_ramp_is_compared_within_its_epochs() -> None:
    """The rate doubles while the share rises: pooled it would look like an effect."""
    design = CountMixture()
    state = design.start().update(CountBlock(990, 10, 99.0, 1.0))
    state = state.update(CountBlock(1_000, 1_000, 50.0, 50.0))
    look = design.look(state)
    assert look.estimate == pytest.approx(0, abs=1e-9)
    assert look.decision == "continue"
    assert look.interval is not None
    assert 0.0 in look.interval


def test_no_events_or_one_arm_are_no_evidence() -> None:
    design = CountMixture()
    state = design.start()
    assert state.interval.lower == -math.inf
    for block in (CountBlock(0, 0, 9.0, 9.0), CountBlock(0, 4, 0.0, 9.0), CountBlock(0, 0, 0, 0)):
        state = state.update(block)
    look = design.look(state)
    assert (look.status, look.e_value, look.interval) == ("insufficient_data", 1.0, None)


def test_zero_events_in_one_arm_leave_one_end_open() -> None:
    design = CountMixture()
    look = design.look(design.start().update(CountBlock(0, 14, 1.0, 1.0)))
    assert look.estimate is None
    assert look.interval is not None
    assert look.interval.lower > 0
    assert look.interval.upper == math.inf


def test_counts_beyond_32_bits_stay_finite() -> None:
    design = CountMixture()
    look = design.look(design.start().update(CountBlock(3 * 10**9, 3 * 10**9 + 10**6, 1.0, 1.0)))
    assert look.decision == "reject"
    assert all(
        math.isfinite(value or math.nan)
        for value in (look.e_value, look.estimate, look.information, look.p_value)
    )


def test_impossible_blocks_are_refused() -> None:
    with pytest.raises(DataError, match="negative"):
        CountBlock(-1, 0, 1.0, 1.0)
    with pytest.raises(DataError, match="finite"):
        CountBlock(1, 0, math.inf, 1.0)
    with pytest.raises(DataError, match="without exposure"):
        CountBlock(1, 0, 0.0, 1.0)
    with pytest.raises(DesignError, match="another design"):
        CountMixture(alpha=0.01).look(CountMixture().start())


def test_shares_of_all_arms_are_held_together() -> None:
    assert [(i.lower, i.upper) for i in multinomial_intervals([0, 0], [1, 1], concentration=9)] == [
        (0.0, 1.0)
    ] * 2
    one_sided = multinomial_intervals([0, 50], [1, 1], concentration=9)
    assert one_sided[0].lower == 0.0
    assert one_sided[1].upper == 1.0
    assert one_sided[0].upper == pytest.approx(1 - one_sided[1].lower)
    rng = np.random.default_rng(4)
    shares, missed = np.array([0.6, 0.3, 0.1]), 0
    for _ in range(60):
        counts = np.zeros(3, dtype=int)
        for _ in range(15):
            counts += rng.multinomial(60, shares)
            found = multinomial_intervals(counts.tolist(), [5, 4, 1], concentration=100)
            if any(q not in i for q, i in zip(shares.tolist(), found, strict=True)):
                missed += 1
                break
    assert missed <= stats.binom.isf(1e-6, 60, 0.05)


def test_epochs_multiply() -> None:
    epochs = [([30, 10], [9.0, 3.0]), ([5, 9], [1.0, 1.0])]
    parts = [multinomial_log_e([epoch], concentration=50) for epoch in epochs]
    assert multinomial_log_e(epochs, concentration=50) == pytest.approx(sum(parts))
    assert multinomial_log_e([], concentration=50) == 0.0


def test_shares_that_nearly_never_happen_have_intervals() -> None:
    for counts in ([1_000, 1], [1, 100_000], [0, 50, 3]):
        for concentration in (1.0, 100.0, 1e6):
            found = multinomial_intervals(counts, [1] * len(counts), concentration=concentration)
            for own, interval in zip(counts, found, strict=True):
                assert 0 <= interval.lower <= own / sum(counts) <= interval.upper <= 1
