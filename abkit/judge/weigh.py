"""All that one look knows of one treatment, and whether its units can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.judge.counts import counted_alone, fresh, updated
from abkit.judge.evidence import (
    budget_guardrail,
    counted_guardrail,
    difference_guardrail,
    objective_evidence,
    with_peak,
)
from abkit.judge.growth import bound_after, growth_of
from abkit.judge.place import alarms_of, place_of
from abkit.judge.state import GuardrailState, JudgeState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.decision import Alarm, Evidence, Place
    from abkit.observation import Observation
    from abkit.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Weighed:
    """What one look knows of one treatment.

    Args:
        evidence: one record per guardrail and objective.
        place: the stage and how far it has come.
        state: what the next look needs of this.
    """

    evidence: tuple[Evidence, ...]
    place: Place
    state: JudgeState


def weigh(rollout: Rollout, state: JudgeState, observation: Observation) -> Weighed:
    """Bring the tests of a treatment forward, and say what they show."""
    states: dict[str, GuardrailState] = {}
    found: list[Evidence] = []
    bound = state.bound
    for guardrail in rollout.policy.guardrails:
        if guardrail.test == "budget":
            found.append(budget_guardrail(rollout, guardrail, observation))
            continue
        if not counted_alone(rollout, guardrail):
            found.append(difference_guardrail(rollout, guardrail, observation, None))
            continue
        before = state.guardrails.get(guardrail.metric) or fresh(guardrail)
        after, blocks = updated(rollout, guardrail, before, observation)
        states[guardrail.metric] = after
        bound = bound_after(rollout, guardrail.metric, bound, blocks)
        show = difference_guardrail if guardrail.test == "difference" else counted_guardrail
        found.append(show(rollout, guardrail, observation, after))
    found += [objective_evidence(rollout, item, observation) for item in rollout.policy.objectives]
    evidence = tuple(with_peak(rollout, item, state, observation) for item in found)
    place = place_of(rollout, observation, growth_of(rollout, observation, bound))
    peaks: dict[tuple[str, str], float] = {
        (item.role, item.metric): item.e_promote for item in evidence
    }
    return Weighed(evidence, place, JudgeState(states, peaks, bound=bound))


def trusted(
    rollout: Rollout, state: JudgeState, observation: Observation
) -> tuple[tuple[Alarm, ...], Mapping[int, Mapping[str, int]]]:
    """The alarms over all variants together, and the units whose split a person has accepted."""
    accepted = state.accepted
    if state.since is not None and rollout.expires_from != state.since:
        accepted = observation.exposures
    return alarms_of(rollout, observation, accepted), accepted
