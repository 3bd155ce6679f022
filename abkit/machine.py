"""The state machine of a rollout: from shadow or 1 % to everyone, or back.

Everything here is pure: a transition takes a rollout and returns the next one, whose `version`
is one higher. Whoever stores it compares and sets on that version.

::

    draft -> shadow -> canary (stage by stage) -> promoted
                |          |  ^
                |          v  |         hold: the allocation stays, nothing grows
                |         hold
                v          v
              halted     halted         control for everyone
    draft -> switched -> promoted       blue-green: all at once
                |
                v
           rolled_back                  and back at once
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from abkit.errors import TransitionError
from abkit.rollout import STATE_OF, Rollout, State

if TYPE_CHECKING:
    from abkit.decision import Decision


def start(rollout: Rollout, *, now: float, epoch: int, actor: str = "abkit") -> Rollout:
    """Begin the first stage.

    Args:
        rollout: a draft.
        now: seconds since 1970 in UTC.
        epoch: first free allocation epoch of the experiment.
        actor: who starts it.

    Raises:
        TransitionError: it has been started before.
    """
    if rollout.state != "draft":
        msg = f"rollout {rollout.key!r} is {rollout.state}; only a draft can be started"
        raise TransitionError(msg)
    fresh = replace(rollout, first_epoch=epoch, started=now, expires_from=now)
    return _enter(fresh, 0, now=now, epoch=epoch, reason="started", actor=actor)


def advance(rollout: Rollout, decision: Decision, *, now: float, actor: str = "abkit") -> Rollout:
    """The rollout after a decision; `continue` changes nothing.

    A rollout on hold obeys a halt and nothing else until a person resumes it.

    Args:
        rollout: a live rollout.
        decision: what the judge said.
        now: seconds since 1970 in UTC.
        actor: who acts on it.

    Raises:
        TransitionError: the rollout is not live.
    """
    _check_live(rollout, decision.action)
    reason = "; ".join(decision.reasons)
    if decision.action == "halt":
        return halt(rollout, now=now, reason=reason, actor=actor)
    if rollout.state == "hold" or decision.action == "continue":
        return rollout
    if decision.action == "hold":
        return hold(rollout, now=now, reason=reason, actor=actor)
    if decision.action == "promote":
        return _promote(rollout, now=now, reason=reason, actor=actor)
    if rollout.stage_index + 1 >= len(rollout.stages):
        msg = f"rollout {rollout.key!r} is in its last stage; it can be promoted, not advanced"
        raise TransitionError(msg)
    return _enter(rollout, rollout.stage_index + 1, now=now, reason=reason, actor=actor)


def hold(rollout: Rollout, *, now: float, reason: str, actor: str) -> Rollout:
    """Keep the allocation as it is until somebody resumes; guardrails stay watched."""
    _check_live(rollout, "hold")
    if rollout.state == "hold":
        return rollout
    return _moved(rollout, "hold", now=now, reason=reason, actor=actor)


def resume(rollout: Rollout, *, now: float, reason: str, actor: str) -> Rollout:
    """Go on with the stage that was put on hold; the time that the policy allows begins anew.

    Raises:
        TransitionError: the rollout is not on hold.
    """
    if rollout.state != "hold":
        msg = f"rollout {rollout.key!r} is {rollout.state}; only one on hold can be resumed"
        raise TransitionError(msg)
    moved = _moved(rollout, STATE_OF[rollout.stage.mode], now=now, reason=reason, actor=actor)
    return replace(moved, expires_from=now)


def halt(rollout: Rollout, *, now: float, reason: str, actor: str) -> Rollout:
    """Control for everyone, at once; a switched blue-green rollout is rolled back.

    Raises:
        TransitionError: there is nothing to take back: a draft, or over already.
    """
    if not rollout.live and rollout.state != "promoted":
        msg = f"rollout {rollout.key!r} is {rollout.state}; there is nothing to halt"
        raise TransitionError(msg)
    switched = rollout.state == "promoted" or rollout.stage.mode == "switch"
    moved = _moved(
        rollout, "rolled_back" if switched else "halted", now=now, reason=reason, actor=actor
    )
    return replace(moved, experiment=moved.experiment.kill())


def superseded(rollout: Rollout, *, now: float, by: str) -> Rollout:
    """A promoted rollout whose experiment a newer rollout has taken over.

    Raises:
        TransitionError: the rollout was not promoted; a halted one keeps its state.
    """
    if rollout.state != "promoted":
        raise TransitionError(
            f"rollout {rollout.key!r} is {rollout.state}; only a promoted one is superseded, "
            f"here by {by!r}"
        )
    return _moved(rollout, "superseded", now=now, reason=f"superseded by {by}", actor="abkit")


def _promote(rollout: Rollout, *, now: float, reason: str, actor: str) -> Rollout:
    if rollout.stage_index + 1 < len(rollout.stages):
        msg = f"rollout {rollout.key!r} is in stage {rollout.stage.name!r}; only the last promotes"
        raise TransitionError(msg)
    shares = {rollout.control: 0.0, rollout.treatment: 1.0}
    experiment = replace(rollout.experiment.reweight(shares), shadow="")
    moved = _moved(rollout, "promoted", now=now, reason=reason, actor=actor)
    return replace(
        moved,
        experiment=experiment,
        allocations=(*rollout.allocations, (experiment.epoch, experiment.weights)),
    )


def _enter(
    rollout: Rollout, index: int, *, now: float, reason: str, actor: str, epoch: int | None = None
) -> Rollout:
    stage = rollout.stages[index]
    shares = {rollout.control: 1 - stage.share, rollout.treatment: stage.share}
    experiment = rollout.experiment.reweight(shares)
    experiment = replace(
        experiment,
        shadow=rollout.treatment if stage.mode == "shadow" else "",
        epoch=experiment.epoch if epoch is None else epoch,
    )
    moved = _moved(rollout, STATE_OF[stage.mode], now=now, reason=reason, actor=actor)
    return replace(
        moved,
        experiment=experiment,
        stage_index=index,
        stage_started=now,
        allocations=(*rollout.allocations, (experiment.epoch, experiment.weights)),
    )


def _moved(rollout: Rollout, state: State, *, now: float, reason: str, actor: str) -> Rollout:
    return replace(
        rollout, state=state, version=rollout.version + 1, changed=now, reason=reason, actor=actor
    )


def _check_live(rollout: Rollout, action: str) -> None:
    if not rollout.live:
        msg = f"rollout {rollout.key!r} is {rollout.state}; it cannot {action}"
        raise TransitionError(msg)
