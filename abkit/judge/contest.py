"""Several treatments, each judged against control; the harmed are dropped, and one may win.

Each of k planned treatments is judged as a rollout of its own at alpha/k and beta/k (Bonferroni),
so over all of them a harmless one is dropped with probability alpha at most, and one that fails a
rule is promoted with beta at most, whenever the looks are taken and whichever is picked at the end.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from abkit.decision import Decision, decide
from abkit.judge.state import JudgeState
from abkit.judge.weigh import Weighed, trusted, weigh

if TYPE_CHECKING:
    from abkit.decision import Action, Evidence
    from abkit.observation import Observation
    from abkit.rollout import Rollout


def compared(
    rollout: Rollout, state: JudgeState, observation: Observation
) -> tuple[Decision, JudgeState]:
    """Take one look at all treatments still in.

    Args:
        rollout: a contest; see `abkit.rollout.Rollout.is_contest`.
        state: what the looks before have left.
        observation: cumulative counts and moments now, of all variants.

    Returns:
        The decision, and the state for the next look.
    """
    alarms, accepted = trusted(rollout, state, observation)
    weighed: dict[str, Weighed] = {}
    judged: dict[str, Decision] = {}
    for arm in rollout.arms:
        view, seen = _view(rollout, arm), _seen(rollout, arm, observation)
        found = weigh(view, state.arms.get(arm, JudgeState()), seen)
        if rollout.state == "ready":  # it has met its units; a drop since began a new epoch
            found = replace(found, place=replace(found.place, min_units=0))
        weighed[arm] = found
        judged[arm] = decide(view.policy, found.evidence, found.place, alarms)
    decision = _joined(rollout, weighed, judged)
    evidence = tuple(
        item if arm == rollout.treatment else replace(item, variant=arm)
        for arm, found in weighed.items()
        for item in found.evidence
    )
    arms = {arm: found.state for arm, found in weighed.items()}
    after = JudgeState(since=rollout.expires_from, accepted=accepted, arms=arms)
    return replace(decision, evidence=evidence, alarms=alarms), after


def _view(rollout: Rollout, arm: str) -> Rollout:
    """The rollout as if this treatment were the only one."""
    return replace(rollout, treatment=arm, policy=rollout.arm_policy, rivals=(), dropped=())


def _seen(rollout: Rollout, arm: str, observation: Observation) -> Observation:
    """What was seen, from the side of one treatment; there are no pairs, as nothing is dark."""
    live = observation.live
    if arm != rollout.treatment and live is not None:
        live = observation.lives.get(arm, 0)
    return replace(observation, live=live, lives={}, pairs={})


def _joined(rollout: Rollout, weighed: dict[str, Weighed], judged: dict[str, Decision]) -> Decision:
    """One decision of those on each treatment, halt before hold before progress."""
    by_action: dict[Action, list[str]] = {}
    for arm, decision in judged.items():
        by_action.setdefault(decision.action, []).append(arm)
    reasons = {arm: "; ".join(decision.reasons) for arm, decision in judged.items()}
    harmed = by_action.get("halt", [])
    left = [arm for arm in judged if arm not in harmed]
    if not left:
        return Decision(action="halt", reasons=_named(reasons, harmed))
    leader = _ahead(rollout, weighed, left)
    if harmed:
        dropped = tuple(f"{arm} is dropped: {reasons[arm]}" for arm in harmed)
        return Decision(action="continue", reasons=dropped, drops=tuple(harmed), leader=leader)
    if "hold" in by_action:  # alarms and time, which are those of all
        held = by_action["hold"][0]
        return Decision(action="hold", reasons=judged[held].reasons, leader=leader)
    shown = by_action.get("promote", [])
    scarce = [arm for arm, item in weighed.items() if item.place.units < item.place.min_units]
    if shown and not scarce:
        # Who waits for a person's word stays the one that was told of.
        waits = rollout.state == "ready" and rollout.treatment in shown
        winner = rollout.treatment if waits else _ahead(rollout, weighed, shown)
        return Decision(action="promote", reasons=_named(reasons, [winner]), leader=winner)
    advancing = by_action.get("advance", [])
    if len(advancing) == len(judged):
        return Decision(action="advance", reasons=judged[leader].reasons, leader=leader)
    open_ = by_action.get("continue", [])
    return Decision(action="continue", reasons=_named(reasons, open_), leader=leader)


def _named(reasons: dict[str, str], arms: list[str]) -> tuple[str, ...]:
    return tuple(f"{arm}: {reasons[arm]}" for arm in arms)


def _ahead(rollout: Rollout, weighed: dict[str, Weighed], arms: list[str]) -> str:
    """The treatment with the best estimate of the first objective; the first of equals."""
    return max(arms, key=lambda arm: _score(rollout, weighed[arm].evidence))


def _score(rollout: Rollout, evidence: tuple[Evidence, ...]) -> float:
    """How much better than control the first objective is, in its unit."""
    metric = rollout.experiment.metric(rollout.policy.objectives[0].metric)
    item = next(x for x in evidence if x.role == "objective" and x.metric == metric.key)
    if item.difference is None or math.isnan(item.difference):
        return -math.inf
    return -item.difference if metric.direction == "decrease" else item.difference
