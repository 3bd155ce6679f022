"""The judge: observations -> evidence -> decision, as a fold that can be replayed to the bit.

The judge sees cumulative counts and moments, never events. Between two looks it takes the
increments as blocks, so a look costs what is new. Because every step is a pure function of the
observations, `replay` recomputes all decisions of a rollout from its records.

`counts` makes blocks of bad events, `evidence` compares cumulative statistics, `place` says where
the rollout stands, `growth` how far a ramp may go. `weigh` puts that together for one treatment,
`contest` for several. `state` is what is kept between looks and `checkpoint` keeps it on disk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from abkit.decision import Decision, decide
from abkit.judge.contest import compared
from abkit.judge.state import GuardrailState, JudgeState
from abkit.judge.weigh import trusted, weigh
from abkit.observation import Observation
from abkit.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["GuardrailState", "JudgeState", "judge", "replay", "taken_again"]


def judge(
    rollout: Rollout, state: JudgeState, observation: Observation
) -> tuple[Decision, JudgeState]:
    """Take one look.

    Args:
        rollout: where the rollout is; its policy says what is watched.
        state: what the looks before have left; `JudgeState()` at the first.
        observation: cumulative counts and moments now.

    Returns:
        The decision, and the state for the next look.
    """
    if rollout.is_contest:
        return compared(rollout, state, observation)
    found = weigh(rollout, state, observation)
    alarms, accepted = trusted(rollout, state, observation)
    decision = decide(rollout.policy, found.evidence, found.place, alarms)
    return decision, replace(found.state, since=rollout.expires_from, accepted=accepted)


def replay(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Take all decisions of one rollout again, from the counts in their records.

    Args:
        records: decision records of one rollout, in the order of their looks.

    Returns:
        One line per decision that comes out differently; empty if all agree to the bit.
    """
    return [
        f"look {record['look']}: {name} was {record.get(name)!r}, is {value!r}"
        for record, decision, _ in taken_again(records)
        for name, value in decision.to_dict().items()
        if record.get(name) != value
    ]


def taken_again(
    records: Iterable[Mapping[str, Any]], state: JudgeState | None = None
) -> Iterator[tuple[Mapping[str, Any], Decision, JudgeState]]:
    """Each record with the decision that its counts lead to, and the state after it.

    Args:
        records: decision records of one rollout, in the order of their looks.
        state: what the looks before the first of them have left; none by default.
    """
    state = state or JudgeState()
    for record in records:
        rollout = Rollout.from_dict(record["rollout_state"])
        decision, state = judge(rollout, state, Observation.from_dict(record["observation"]))
        yield record, decision, state
