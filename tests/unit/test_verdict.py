"""The decision as others read it, for every state and whatever the record holds."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit import machine
from abkit.rollout import Ramp, Rollout, Stage, State
from abkit.server import verdict
from abkit.server.verdict import WORDS, verdict_of

if TYPE_CHECKING:
    from abkit.server.board import Board

STAGES = (Stage(name="5 %", share=0.05, min_units=10), Stage(name="50 %", share=0.5))
DRAFT = Rollout.plan("r1", experiment="x", control="old", treatment="new", stages=STAGES)
STARTED = machine.start(DRAFT, now=0.0, epoch=1)
ACTIONS = ("continue", "hold", "advance", "promote", "halt")


class StillBoard:
    """What a board knows, without files."""

    store_error = ""
    overview = None

    def __init__(self, rollout: Rollout, record: Any) -> None:
        self._found, self._record = rollout, record
        self.verdicts: dict[str, Any] = {}

    async def refresh(self) -> None:
        pass

    def rollout(self, key: str) -> Rollout:
        return self._found

    def record(self, key: str) -> Any:
        return self._record


def told(rollout: Rollout, record: Any = None, at_weight: float | None = None) -> dict[str, Any]:
    board: Board = StillBoard(rollout, record)  # type: ignore[assignment]
    return asyncio.run(verdict_of(board, "r1", at_weight=at_weight)).to_dict()


def record_of(rollout: Rollout, action: str, **changes: Any) -> dict[str, Any]:
    """A decision record that was taken in this state."""
    epoch = rollout.experiment.epoch
    observation = {"time": 1.0, "values": [], "pairs": []}
    return {
        "action": action,
        "reason": f"said {action}",
        "share": rollout.stage.share,
        "decision_id": "sha256:1",
        "evidence": [{"role": "guardrail", "e_harm": 3.2, "e_promote": 1.7}],
        "rollout_state": rollout.to_dict(),
        "observation": {**observation, "exposures": [[epoch, "new", 50]]},
    } | changes


numbers = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**400), 10**400),
    st.text(max_size=3),
)
evidence = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["guardrail", "objective"]),
            "e_harm": numbers,
            "e_promote": numbers,
        }
    ),
    max_size=3,
)


@given(
    state=st.sampled_from(get_args(State)),
    action=st.sampled_from(ACTIONS),
    stages=st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 1])),
    version=st.integers(0, 4),
    found=evidence,
    weight=st.one_of(st.none(), st.floats(0, 100)),
)
def test_no_state_and_no_record_makes_a_null_or_a_nan(
    *, state: Any, action: str, stages: tuple[int, int], version: int, found: Any, weight: Any
) -> None:
    index, seen = stages
    rollout = replace(STARTED, state=state, stage_index=index, version=version)
    record = record_of(replace(STARTED, stage_index=seen), action, evidence=found)
    for item in (record, None):
        data = told(rollout, item, weight)
        json.dumps(data, allow_nan=False)
        assert None not in data.values()
        assert data["code"] == WORDS[data["action"]]
        assert data["reason"]
        assert 0 <= data["weight"] <= 100
        assert 0 <= data["next_weight"] <= 100
        for name in ("evalue_harm", "evalue_noninf"):
            assert math.isfinite(data[name])
            assert data[name] >= 0


@given(
    state=st.sampled_from(get_args(State)),
    action=st.sampled_from(ACTIONS),
    weight=st.one_of(st.none(), st.floats(0, 100)),
)
def test_nothing_ships_what_is_halted_held_or_undecided(
    state: Any, action: str, weight: Any
) -> None:
    rollout = replace(STARTED, state=state)
    code = told(rollout, record_of(STARTED, action), weight)["code"]
    if state in ("halted", "rolled_back"):
        assert code == -1
    if state in ("hold", "superseded", "draft"):
        assert code in (0, -1)
    if action == "halt" and rollout.live:
        assert code == -1
    if code == 2:
        assert state == "promoted" or action == "promote"


def test_what_was_said_in_another_stage_counts_no_more() -> None:
    later = machine.skip(STARTED, now=1.0, reason="by hand", actor="ann")
    data = told(later, record_of(STARTED, "continue"))
    assert (data["action"], data["decision_id"]) == ("insufficient_data", "")
    assert data["reason"] == "no look has been taken in stage '50 %' yet"


def test_an_advance_is_told_until_the_next_look_and_not_after_a_hold() -> None:
    record = record_of(STARTED, "advance")
    later = machine.skip(STARTED, now=1.0, reason="shown", actor="abkit")
    data = told(later, record)
    assert (data["action"], data["weight"], data["next_weight"]) == ("advance", 5, 50)
    held = machine.hold(later, now=2.0, reason="by hand", actor="ann")
    assert told(held, record)["action"] == "continue"
    resumed = machine.resume(held, now=3.0, reason="fine", actor="ann")
    assert told(resumed, record)["action"] == "insufficient_data"


def test_a_ramp_tells_each_growth() -> None:
    ramp = Ramp(start_share=0.01, max_share=0.5)
    draft = Rollout.plan("r1", experiment="x", control="old", treatment="new", ramp=ramp)
    first = machine.start(draft, now=0.0, epoch=1)
    data = told(first, record_of(first, "continue"))
    assert (data["action"], data["weight"], data["next_weight"]) == ("insufficient_data", 1, 2)
    grown = machine.grow(first, 0.08, now=1.0, reason="within the budget", actor="abkit")
    record = record_of(first, "advance")
    data = told(grown, record)
    assert (data["action"], data["weight"], data["next_weight"]) == ("advance", 1, 8)
    assert told(grown, record, 1)["action"] == "advance"
    assert told(grown, record, 8)["action"] == "insufficient_data"
    top = machine.grow(grown, 1.0, now=2.0, reason="within the budget", actor="abkit")
    assert told(top, record)["action"] == "insufficient_data"
    assert told(top, record_of(top, "continue"))["next_weight"] == 100


def test_a_hold_of_the_judge_is_settled_when_a_person_resumes() -> None:
    record = record_of(STARTED, "hold")
    held = machine.hold(STARTED, now=1.0, reason="said hold", actor="abkit")
    assert told(held, record)["reason"] == "on hold: said hold"
    resumed = machine.resume(held, now=2.0, reason="fine", actor="ann")
    assert told(resumed, record)["action"] == "insufficient_data"


def test_a_dry_run_tells_the_share_of_others() -> None:
    dry = replace(machine.skip(STARTED, now=1.0, reason="r", actor="a"), mode="dry_run")
    data = told(dry, record_of(dry, "halt"))
    assert (data["action"], data["weight"], data["next_weight"]) == ("halt", 50, 0)
    data = told(dry, record_of(dry, "promote"))
    assert (data["action"], data["weight"], data["next_weight"]) == ("promote", 50, 50)


def test_few_units_are_insufficient_data() -> None:
    few = record_of(STARTED, "continue")
    few["observation"]["exposures"] = [[1, "new", 9]]
    assert told(STARTED, few)["action"] == "insufficient_data"
    assert told(STARTED, record_of(STARTED, "continue"))["action"] == "continue"


@pytest.mark.parametrize("record", [{}, {"action": "fly"}, {"action": "advance"}])
def test_a_record_of_another_shape_is_none(record: Any) -> None:
    assert told(STARTED, record)["action"] == "insufficient_data"


def test_huge_numbers_fit_a_float() -> None:
    assert verdict._finite(10**400) == verdict._finite(math.inf) > 1e308
    assert verdict._finite(math.nan) == verdict._finite(None) == 1.0
