"""The canary error test."""

from __future__ import annotations

import itertools
import math

import pytest
from scipy import stats

from abkit.errors import DataError, DesignError
from abkit.moments import Block
from abkit.sequential.canary import CanaryDesign, CanaryState, canary_log_e, relative_risk

HARM = CanaryDesign()
SAFE = CanaryDesign(null_relative_risk=1.25, harm=False, restarts=0)
LIMIT = CanaryDesign(limit_rate=0.1)
UNDER_LIMIT = CanaryDesign(limit_rate=0.1, harm=False)


def mean_e_value(
    design: CanaryDesign, n: tuple[int, int], rates: tuple[float, float], before: CanaryState | None
) -> float:
    """Exact mean of the e-value after one more block, over all outcomes, relative to before."""
    state = before or CanaryState.start(design)
    now = state.log_e_value
    total = 0.0
    for control, treatment in itertools.product(range(n[0] + 1), range(n[1] + 1)):
        chance = stats.binom.pmf(control, n[0], rates[0]) * stats.binom.pmf(
            treatment, n[1], rates[1]
        )
        after = state.update(Block(*n, control, treatment, hour=1)).log_e_value
        total += float(chance) * math.exp(after - now)
    return total


@pytest.mark.parametrize("n", [(1, 1), (9, 1), (1, 9), (12, 4), (5, 5)])
@pytest.mark.parametrize("base", [0.001, 0.05, 0.5, 0.8])
def test_its_mean_is_at_most_one_at_the_border_of_the_null(n: tuple[int, int], base: float) -> None:
    assert mean_e_value(HARM, n, (base, base), None) <= 1 + 1e-12
    assert mean_e_value(SAFE, n, (base, 1.25 * base), None) <= 1 + 1e-12


@pytest.mark.parametrize("base", [0.05, 0.4])
def test_its_mean_is_below_one_inside_the_null(base: float) -> None:
    assert mean_e_value(HARM, (8, 4), (base, base / 2), None) < 1
    assert mean_e_value(SAFE, (8, 4), (base, 2 * base), None) < 1


@pytest.mark.parametrize("base", [0.05, 0.4])
def test_its_mean_exceeds_one_under_the_alternative(base: float) -> None:
    assert mean_e_value(HARM, (8, 4), (base, 2 * base), None) > 1
    assert mean_e_value(SAFE, (8, 4), (base, 0.4 * base), None) > 1


def test_it_stays_fair_after_blocks_with_other_splits_and_base_rates() -> None:
    """Whatever came before, and with a restart in between: the e-process property."""
    for before in (
        [Block(99, 1, 3, 1)],
        [Block(99, 1, 0, 1), Block(50, 50, 20, 30), Block(10, 90, 1, 0)],
    ):
        state = CanaryState.start(HARM)
        for block in before:
            state = state.update(block)
        for base in (0.01, 0.3):
            assert mean_e_value(HARM, (7, 5), (base, base), state) <= 1 + 1e-12


@pytest.mark.parametrize("n", [1, 6, 20])
def test_a_limit_is_exact(n: int) -> None:
    """At the limit the mean is 1, not just at most 1; below it is smaller, above larger."""
    assert mean_e_value(LIMIT, (0, n), (0.0, 0.1), None) == pytest.approx(1.0, rel=1e-10)
    assert mean_e_value(LIMIT, (0, n), (0.0, 0.05), None) < 1
    assert mean_e_value(LIMIT, (0, n), (0.0, 0.2), None) > 1
    assert mean_e_value(UNDER_LIMIT, (0, n), (0.0, 0.1), None) == pytest.approx(1.0, rel=1e-10)
    assert mean_e_value(UNDER_LIMIT, (0, n), (0.0, 0.2), None) < 1
    assert mean_e_value(UNDER_LIMIT, (0, n), (0.0, 0.05), None) > 1


def test_a_block_by_hand() -> None:
    """The definition, in products instead of logarithms."""
    block = Block(n_control=900, n_treatment=100, events_control=8, events_treatment=3)
    expected = 0.0
    for risk, weight in zip(HARM.relative_risks, HARM.weights, strict=True):
        theta = risk * 0.1 / (risk * 0.1 + 0.9)
        ratio = (theta / 0.1) ** 3 * ((1 - theta) / 0.9) ** 8
        expected += weight * ratio
    unstarted = 0.5 * 23 / 24
    e_value = math.exp(canary_log_e([block], HARM))
    assert e_value == pytest.approx((1 - unstarted) * expected + unstarted, rel=1e-12)


def test_a_limit_by_hand() -> None:
    expected = 0.0
    for odds, weight in zip(LIMIT.relative_risks, LIMIT.weights, strict=True):
        rate = odds * 0.1 / (odds * 0.1 + 0.9)
        expected += weight * (rate / 0.1) ** 7 * ((1 - rate) / 0.9) ** 23
    design = CanaryDesign(limit_rate=0.1, restarts=0)
    assert math.exp(canary_log_e([Block(0, 30, 0, 7)], design)) == pytest.approx(expected)


def test_control_plays_no_part_in_a_limit() -> None:
    assert canary_log_e([Block(500, 30, 400, 7)], LIMIT) == canary_log_e(
        [Block(0, 30, 0, 7)], LIMIT
    )


@pytest.mark.parametrize(
    "block",
    [Block(0, 0, 0, 0), Block(50, 0, 9, 0), Block(0, 50, 0, 9), Block(50, 50, 0, 0)],
)
@pytest.mark.parametrize("design", [HARM, SAFE])
def test_a_block_without_events_or_without_an_arm_changes_nothing(
    block: Block, design: CanaryDesign
) -> None:
    (row,) = CanaryState.start(design).update(block).by_hour
    assert set(row) == {0.0}
    some = Block(900, 100, 5, 4)
    assert canary_log_e([block], design) == pytest.approx(0.0, abs=1e-12)
    assert canary_log_e([some, block, some], design) == canary_log_e([some, some], design)


def test_before_the_first_block_there_is_no_evidence() -> None:
    assert canary_log_e([], HARM) == 0.0


def day(rate_after_noon: float) -> list[Block]:
    """Twelve good hours and twelve others, 10 % split, base rate 1 %."""
    morning = [Block(9_000, 1_000, 90, 10, hour=hour) for hour in range(12)]
    afternoon = [
        Block(9_000, 1_000, 90, round(1_000 * rate_after_noon), hour=hour) for hour in range(12, 24)
    ]
    return morning + afternoon


def test_the_same_blocks_give_the_same_bits() -> None:
    blocks = day(0.02)
    state = CanaryState.start(HARM)
    for block in blocks:
        state = state.update(block)
    assert canary_log_e(blocks, HARM) == state.log_e_value
    assert canary_log_e(iter(blocks), CanaryDesign()) == state.log_e_value


def test_a_late_block_counts_as_if_it_had_come_in_time() -> None:
    blocks = day(0.02)
    assert canary_log_e(blocks[::-1], HARM) == pytest.approx(canary_log_e(blocks, HARM), rel=1e-12)


def test_splitting_a_block_changes_nothing_while_the_split_holds() -> None:
    whole = [Block(9_000, 1_000, 90, 20)]
    halves = [Block(4_500, 500, 60, 5), Block(4_500, 500, 30, 15)]
    assert canary_log_e(halves, HARM) == pytest.approx(canary_log_e(whole, HARM), rel=1e-12)


def test_the_state_does_not_grow_with_the_history() -> None:
    state = CanaryState.start(HARM)
    for minute in range(3 * 24 * 60):
        state = state.update(Block(990, 10, 9, 0, hour=minute // 60))
    assert len(state.by_hour) == HARM.restarts


def test_a_good_morning_cannot_be_worth_less_than_the_parts_that_wait() -> None:
    """Hours 5 to 23 have not started after hour 4: they count as 1."""
    perfect = [Block(5_000, 5_000, 50, 0, hour=hour) for hour in range(5)]
    assert math.log(0.5 * 19 / 24) <= canary_log_e(perfect, HARM) < math.log(0.5 * 20 / 24)
    assert canary_log_e(perfect, CanaryDesign(restarts=0)) < -20


def test_restarts_catch_what_breaks_at_noon() -> None:
    """1 -> 2 % after twelve good hours: two hours of it are enough with restarts only."""
    blocks = day(0.02)[:16]
    assert canary_log_e(blocks, HARM) > math.log(100)
    assert canary_log_e(blocks, CanaryDesign(restarts=0)) < math.log(100)


def test_restarts_cost_at_most_the_logarithm_of_their_weight() -> None:
    bad = [Block(9_900, 100, 99, 5)] * 5
    without = canary_log_e(bad, CanaryDesign(restarts=0))
    assert without - canary_log_e(bad, HARM) <= math.log(2)


def test_a_long_stream_neither_overflows_nor_becomes_nan() -> None:
    worse = [Block(10**9, 10**7, 10**7, 10**6, hour=hour) for hour in range(30)]
    better = [Block(10**9, 10**7, 10**7, 10**4, hour=hour) for hour in range(30)]
    for design in (HARM, SAFE, LIMIT):
        for blocks in (worse, better):
            assert math.isfinite(canary_log_e(blocks, design))


def test_the_prior() -> None:
    for design in (HARM, SAFE, LIMIT, CanaryDesign(null_relative_risk=0.9, harm=False)):
        risks, weights = design.relative_risks, design.weights
        assert sum(weights) == pytest.approx(1.0, rel=1e-14)
        assert min(weights) > 0
        assert list(risks) == sorted(set(risks))
        beyond = [risk > design.null_relative_risk for risk in risks]
        assert all(beyond) if design.harm else not any(beyond)
    assert dict(zip(SAFE.relative_risks, SAFE.weights, strict=True))[1.0] == pytest.approx(0.6)
    assert 1.0 not in CanaryDesign(harm=False).relative_risks


@pytest.mark.parametrize("restarts", [0, 1, 2, 24])
def test_the_weights_of_the_starts_add_up(restarts: int) -> None:
    design = CanaryDesign(restarts=restarts)
    weights = [design.start_weight(hour) for hour in range(design.starts)]
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] >= 0.5


def test_more_events_than_requests_are_refused() -> None:
    for block in (Block(10, 10, 11, 0), Block(10, 10, 0, 11), Block(0, 10, 1, 0)):
        with pytest.raises(DataError, match="more events than requests"):
            canary_log_e([block], HARM)


@pytest.mark.parametrize(
    "arguments",
    [
        {"null_relative_risk": 0.0},
        {"null_relative_risk": math.inf},
        {"restarts": -1},
        {"limit_rate": 0.0},
        {"limit_rate": 1.0},
        {"limit_rate": 0.1, "null_relative_risk": 1.25},
    ],
)
def test_impossible_designs_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(DesignError):
        CanaryDesign(**arguments)  # type: ignore[arg-type]


def test_relative_risk_is_pooled_within_blocks() -> None:
    """Twice the risk in every block; the ratio of the totals would say 4.6."""
    blocks = [Block(9_900, 100, 99, 2), Block(5_000, 5_000, 300, 600)]
    totals = (602 / 5_100) / (399 / 14_900)
    assert relative_risk(blocks) == pytest.approx(2.0)
    assert totals > 4


def test_relative_risk_of_one_block_is_the_ratio_of_its_rates() -> None:
    assert relative_risk([Block(300, 100, 6, 3)]) == pytest.approx(1.5)
    assert relative_risk([Block(300, 100, 6, 0)]) == 0.0


@pytest.mark.parametrize(
    "blocks", [[], [Block(0, 0, 0, 0)], [Block(100, 0, 5, 0)], [Block(100, 100, 0, 5)]]
)
def test_relative_risk_without_a_comparison_is_none(blocks: list[Block]) -> None:
    assert relative_risk(blocks) is None
