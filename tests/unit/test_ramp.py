"""A ramp: one stage whose share grows, by what the data exclude."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from abkit.decision import Decision, Guardrail, Policy
from abkit.errors import ConfigError, TransitionError
from abkit.judge import JudgeState, judge
from abkit.machine import advance, grow, halt, hold, observe, resume, skip, start
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Ramp, Rollout, Stage

RAMP = Ramp(requests_per_second=1_000.0)


def ramped(**changes: Any) -> Rollout:
    settings = {"experiment": "x", "control": "old", "treatment": "new", "salt": "s", "ramp": RAMP}
    return Rollout.plan("r", **(settings | changes))


def begun(**changes: Any) -> Rollout:
    return start(ramped(**changes), now=0.0, epoch=1)


def growth(share: float) -> Decision:
    return Decision(action="advance", reasons=("it may",), next_share=share)


def seen(n_control: int, n_treatment: int, bad: tuple[int, int], *, time: float = 100.0) -> Any:
    cells = {
        "old": Moments.of_counts(n_control, bad[0]),
        "new": Moments.of_counts(n_treatment, bad[1]),
    }
    exposures = {1: {"old": n_control, "new": n_treatment}}
    return Observation(time, exposures, {"error": {1: cells}})


def test_it_begins_where_a_total_failure_costs_the_budget() -> None:
    assert begun().last_share == pytest.approx(100 / 60_000)
    assert replace(RAMP, base_rate=0.5).first_share == pytest.approx(100 / 30_000)
    assert Ramp().first_share == 0.01
    assert Ramp(requests_per_second=1.0).first_share == 0.01


def test_a_ramp_goes_through_json() -> None:
    rollout = begun(stages=(Stage(name="dark", mode="shadow"),), bake_seconds=9, bake_share=0.9)
    assert Rollout.from_dict(json.loads(json.dumps(rollout.to_dict()))) == rollout
    older = rollout.to_dict()
    del older["ramp"]
    older["stages"] = older["stages"][:1]
    assert Rollout.from_dict(older).ramp is None


def test_each_growth_is_a_transition_within_the_stage() -> None:
    first = begun()
    second = advance(first, growth(0.01), now=9.0)
    assert (second.state, second.stage_index, second.version) == ("canary", 0, 2)
    assert (second.last_epoch, second.reason) == (2, "it may")
    assert second.last_share == pytest.approx(0.01)
    assert second.stage_started == 0.0
    assert [epoch for epoch, _ in second.allocations] == [1, 2]
    assert advance(second, growth(0.9), now=9.0).last_share == pytest.approx(0.5)
    with pytest.raises(TransitionError, match="cannot grow"):
        grow(second, 0.005, now=9.0, reason="why", actor="ann")


def test_a_person_doubles_the_share_and_then_there_is_nothing_left_to_skip() -> None:
    rollout = begun(ramp=Ramp(start_share=0.2, max_share=0.5))
    shares = []
    while rollout.growing:
        rollout = skip(rollout, now=1.0, reason="faster", actor="ann")
        shares.append(rollout.last_share)
    assert shares == pytest.approx([0.4, 0.5])
    with pytest.raises(TransitionError, match="last stage"):
        skip(rollout, now=1.0, reason="faster", actor="ann")


def test_a_ramp_on_hold_or_in_notify_mode_does_not_grow() -> None:
    held = hold(begun(), now=1.0, reason="wait", actor="ann")
    assert advance(held, growth(0.1), now=2.0) == held
    again = resume(held, now=3.0, reason="go", actor="ann")
    assert advance(again, growth(0.1), now=4.0).last_share == pytest.approx(0.1)
    told = begun(mode="notify")
    assert advance(told, growth(0.1), now=2.0) == told
    assert halt(told, now=3.0, reason="bad", actor="ann").experiment.state == "killed"


def test_a_dry_run_judges_what_is_published_and_has_no_ramp() -> None:
    published = begun().experiment
    assert observe(ramped(mode="dry_run"), published, now=0.0).ramp is None


def test_the_share_grows_with_what_is_excluded_and_says_so() -> None:
    decision, state = judge(begun(), JudgeState(), seen(99_800, 200, (998, 1)))
    assert decision.action == "advance"
    assert decision.next_share is not None
    assert 2 * RAMP.first_share <= decision.next_share < 0.5
    (reason,) = decision.reasons
    for words in ("from 0.167 % of 50 %", "relative risk of error is below", "1,000 units/s"):
        assert words in reason
    assert decision.to_dict()["next_share"] == decision.next_share
    assert state.bound is not None
    upper = state.bound.upper
    assert decision.next_share == pytest.approx(100 / (60_000 * 0.01 * (upper - 1)))


def test_without_events_nothing_is_excluded() -> None:
    decision, _ = judge(begun(), JudgeState(), seen(99_800, 200, (0, 0)))
    assert decision.action == "continue"
    assert "exclude no relative risk" in decision.reasons[0]
    assert "next_share" not in decision.to_dict()


def test_a_growth_that_does_not_double_waits() -> None:
    grown = grow(begun(), 0.1, now=1.0, reason="by hand", actor="ann")
    decision, _ = judge(grown, JudgeState(), seen(99_800, 200, (998, 1)))
    assert decision.action == "continue"
    assert "no further than" in decision.reasons[0]


def test_promotion_waits_for_the_largest_share() -> None:
    shown = replace(seen(100_000, 100_000, (10_000, 8_000)), exposures={})
    rollout = grow(begun(), 0.01, now=1.0, reason="by hand", actor="ann")
    decision, _ = judge(rollout, JudgeState(), shown)
    assert (decision.action, decision.next_share) == ("advance", 0.5)
    top = grow(rollout, 0.5, now=2.0, reason="by hand", actor="ann")
    later = replace(shown, live=5_000)
    assert judge(top, JudgeState(), later)[0].action == "promote"


def test_the_rate_is_measured_where_it_is_not_given() -> None:
    rollout = begun(ramp=Ramp())
    decision, _ = judge(rollout, JudgeState(), seen(99_000, 1_000, (990, 5), time=1_000.0))
    assert "at 100 units/s" in decision.reasons[0]
    assert judge(rollout, JudgeState(), seen(9, 1, (9, 1), time=0.0))[0].action == "continue"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": 0}, "budget"),
        ({"lag_seconds": -1}, "lag_seconds"),
        ({"requests_per_second": 0}, "requests_per_second"),
        ({"max_share": 1}, "max_share"),
        ({"start_share": 0.9}, "above max_share"),
        ({"base_rate": 2}, "base_rate"),
        ({"metric": "a b"}, "lawful name"),
        ({"min_units": -1}, "min_units"),
        ({"min_seconds": -1}, "min_seconds"),
    ],
)
def test_an_unlawful_ramp_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Ramp(**changes)


def test_a_ramp_takes_the_place_of_stages_and_needs_a_canary_guardrail() -> None:
    with pytest.raises(ConfigError, match="takes the place of canary stages"):
        ramped(stages=(Stage(name="1 %", share=0.001),))
    limit = Policy(guardrails=(Guardrail(metric="error", test="limit", limit=0.1),))
    with pytest.raises(ConfigError, match="test = 'canary'"):
        ramped(policy=limit)
    with pytest.raises(ConfigError, match="'other'"):
        ramped(ramp=replace(RAMP, metric="other"))
    with pytest.raises(ConfigError, match=r"less than the last stage's 0\.5"):
        ramped(bake_seconds=9, bake_share=0.4)
