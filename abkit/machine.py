"""The state machine of a rollout: from shadow or 1 % to everyone, or back.

Everything here is pure: a transition takes a rollout and returns the next one, whose `version`
is one higher. Whoever stores it compares and sets on that version.

::

    draft -> shadow -> canary (stage by stage) -> ready -> bake -> promoted
                |          |  ^                     |        |
                |          v  |                     |        v
                |         hold                      |    rolled_back
                v          v                        v
              halted     halted                   halted      control for everyone
    draft -> switched -> (ready, bake) -> promoted            blue-green: all at once
                |
                v
           rolled_back                                        and back at once

On hold the allocation stays and nothing grows. A ramp is one stage whose share grows. Ready waits
for a person to promote, bake watches what was promoted; plans without them go straight to promoted.
Of several treatments one that is harmed is dropped, which gives its units back to control in any
state, and one is promoted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError, TransitionError
from abkit.rollout import STATE_OF, Rollout, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.decision import Action, Decision
    from abkit.experiment import Experiment


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


def observe(
    rollout: Rollout, published: Experiment, *, now: float, actor: str = "abkit"
) -> Rollout:
    """Begin a dry run: judge the split that is published, and change nothing.

    Args:
        rollout: a draft in mode "dry_run".
        published: the experiment as serving follows it.
        now: seconds since 1970 in UTC.
        actor: who starts it.

    Raises:
        TransitionError: it has been started before.
        ConfigError: what is published gives it nothing to judge.
    """
    if rollout.state != "draft":
        msg = f"rollout {rollout.key!r} is {rollout.state}; only a draft can be started"
        raise TransitionError(msg)
    weights, dark = published.weights, published.shadow
    share = sum(weights.get(arm, 0.0) for arm in rollout.arms)
    lacking = [arm for arm in rollout.arms if not (weights.get(arm) or dark == arm)]
    if published.control != rollout.control or lacking:
        shares = ", ".join(f"{name} {value:.3g}" for name, value in published.weights.items())
        raise ConfigError(
            f"rollout {rollout.key!r} is a dry run of {', '.join(map(repr, rollout.arms))} against "
            f"{rollout.control!r}, but what is published serves {shares}, with control "
            f"{published.control!r}; publish a split of them first"
        )
    last = rollout.stages[-1]
    stage = replace(
        last,
        name="as published",
        mode="canary" if share else "shadow",
        share=share,
        min_units=max(stage.min_units for stage in rollout.stages),
        requires=() if share else last.requires,
    )
    moved = _moved(rollout, STATE_OF[stage.mode], now=now, reason="started", actor=actor)
    return replace(
        moved,
        experiment=replace(published, metrics=rollout.experiment.metrics),
        stages=(stage,),
        ramp=None,
        first_epoch=published.epoch,
        started=now,
        stage_started=now,
        expires_from=now,
        allocations=((published.epoch, published.weights),),
    )


def followed(rollout: Rollout, published: Experiment) -> Rollout:
    """A dry run after somebody has changed the split that it judges."""
    if rollout.mode != "dry_run" or published.epoch <= rollout.last_epoch:
        return rollout
    return replace(
        rollout,
        experiment=replace(published, metrics=rollout.experiment.metrics),
        allocations=(*rollout.allocations, (published.epoch, published.weights)),
    )


def advance(rollout: Rollout, decision: Decision, *, now: float, actor: str = "abkit") -> Rollout:
    """The rollout after a decision; `continue` changes nothing.

    A rollout on hold obeys a halt and nothing else until a person resumes it. In mode "notify"
    the same is true at all times, and in mode "dry_run" nothing moves. To drop one of several
    treatments is a halt of that one.

    Args:
        rollout: a live rollout.
        decision: what the judge said.
        now: seconds since 1970 in UTC.
        actor: who acts on it.

    Raises:
        TransitionError: the rollout is not live.
    """
    _check_live(rollout, decision.action)
    action = decision.action
    move: Any = {"now": now, "reason": "; ".join(decision.reasons), "actor": actor}
    if rollout.mode == "dry_run":
        return rollout
    if action == "halt":
        return halt(rollout, **move)
    if decision.drops:
        return drop(rollout, decision.drops, **move)
    if action == "hold" or rollout.state == "hold":
        return hold(rollout, **move)
    share = decision.next_share
    if action == "advance" and share is not None and rollout.growing and rollout.mode != "notify":
        return grow(rollout, share, **move)
    return _grown(rollout, action, leader=decision.leader, **move)


def drop(rollout: Rollout, arms: Sequence[str], *, now: float, reason: str, actor: str) -> Rollout:
    """Take treatments out of a comparison of several; their units get control, no other moves.

    Raises:
        TransitionError: one of them is not in, or none would be left: that is a halt.
    """
    _check_live(rollout, "drop a treatment")
    left = tuple(arm for arm in rollout.arms if arm not in arms)
    if not arms or not left or not set(arms) <= set(rollout.arms):
        raise TransitionError(
            f"rollout {rollout.key!r} compares {', '.join(rollout.arms)}; "
            f"{', '.join(arms) or 'nothing'} cannot be dropped of them; halt it to end it"
        )
    shares = dict(rollout.experiment.weights)
    given_back = sum(shares.pop(arm, 0.0) for arm in arms)
    shares[rollout.control] = shares.get(rollout.control, 0.0) + given_back
    experiment = rollout.experiment.reweight(shares)
    # What waits for a person waits no more if it is the one that was dropped.
    waits = rollout.state == "ready" and rollout.treatment in left
    state = "ready" if waits else STATE_OF[rollout.stage.mode]
    state = "hold" if rollout.state == "hold" else state
    return replace(
        _moved(rollout, state, now=now, reason=reason, actor=actor),
        experiment=experiment,
        treatment=left[0],
        rivals=left[1:],
        dropped=(*rollout.dropped, *arms),
        allocations=(*rollout.allocations, (experiment.epoch, experiment.weights)),
    )


def grow(rollout: Rollout, share: float, *, now: float, reason: str, actor: str) -> Rollout:
    """A larger share within the stage of a ramp; it never shrinks, and stops at the largest.

    Raises:
        TransitionError: it is not on a ramp, or the share would not grow.
    """
    _check_live(rollout, "grow")
    if not rollout.growing:
        raise TransitionError(f"rollout {rollout.key!r} is on no ramp that could still grow")
    share = min(share, rollout.top_share)
    if not share > rollout.last_share:
        raise TransitionError(
            f"rollout {rollout.key!r} has the share {rollout.last_share:g}; it cannot grow to "
            f"{share:g}"
        )
    moved = _moved(rollout, "canary", now=now, reason=reason, actor=actor)
    experiment = rollout.experiment.reweight({rollout.control: 1 - share, rollout.treatment: share})
    return replace(
        moved,
        experiment=experiment,
        allocations=(*rollout.allocations, (experiment.epoch, experiment.weights)),
    )


def _grown(
    rollout: Rollout, action: Action, *, leader: str, now: float, reason: str, actor: str
) -> Rollout:
    """What follows from evidence without harm."""
    move: Any = {"now": now, "reason": reason, "actor": actor}
    waits = rollout.mode == "notify" or rollout.approval == "manual"
    found = rollout
    if rollout.state == "ready":
        # What was shown has been contradicted since, though another may be shown instead.
        if action != "promote" or leader not in ("", rollout.treatment):
            found = _moved(rollout, STATE_OF[rollout.stage.mode], **move)
    elif rollout.state == "bake":
        if action == "promote":
            found = _promoted(rollout, 1.0, "promoted", **move)
    elif action == "promote":
        _check_last(rollout)
        rollout = _led(rollout, leader)
        found = _moved(rollout, "ready", **move) if waits else _promote(rollout, **move)
    elif action == "advance" and rollout.mode != "notify":
        found = skip(rollout, **move)
    return found


def skip(rollout: Rollout, *, now: float, reason: str, actor: str) -> Rollout:
    """Begin the next stage, whatever this one has shown; on a ramp, double the share.

    Raises:
        TransitionError: it is not in a stage, or in the last one.
    """
    _check_live(rollout, "advance")
    if rollout.growing:
        return grow(rollout, 2 * rollout.last_share, now=now, reason=reason, actor=actor)
    if rollout.state in ("ready", "bake") or rollout.stage_index + 1 >= len(rollout.stages):
        msg = f"rollout {rollout.key!r} is in its last stage; it can be promoted, not advanced"
        raise TransitionError(msg)
    return _enter(rollout, rollout.stage_index + 1, now=now, reason=reason, actor=actor)


def promote(rollout: Rollout, *, now: float, reason: str, actor: str) -> Rollout:
    """Treatment for everyone by a person's word, from any stage; what is baking is done.

    Raises:
        TransitionError: it is not live, or answers to nobody (a dry run).
    """
    _check_live(rollout, "be promoted")
    if rollout.mode == "dry_run":
        raise TransitionError(f"rollout {rollout.key!r} is a dry run; it owns no allocation")
    if rollout.rivals and rollout.state != "ready":
        raise TransitionError(
            f"rollout {rollout.key!r} still compares {', '.join(rollout.arms)}; none is shown to "
            "win yet. Wait until it is ready, or halt it and start a rollout of the one you want"
        )
    if rollout.state == "bake":
        return _promoted(rollout, 1.0, "promoted", now=now, reason=reason, actor=actor)
    return _promote(rollout, now=now, reason=reason, actor=actor)


def hold(rollout: Rollout, *, now: float, reason: str, actor: str) -> Rollout:
    """Keep the allocation as it is until somebody resumes; guardrails stay watched.

    What is baking has been promoted already and cannot be held, only taken back.
    """
    _check_live(rollout, "hold")
    if rollout.state in ("hold", "bake"):
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
    switched = rollout.state in ("promoted", "bake") or rollout.stage.mode == "switch"
    moved = _moved(
        rollout, "rolled_back" if switched else "halted", now=now, reason=reason, actor=actor
    )
    if rollout.mode == "dry_run":
        return moved  # the allocation is somebody else's
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
    if rollout.bake_seconds:
        baking = _promoted(rollout, rollout.bake_share, "bake", now=now, reason=reason, actor=actor)
        return replace(baking, stage_started=now)
    return _promoted(rollout, 1.0, "promoted", now=now, reason=reason, actor=actor)


def _promoted(
    rollout: Rollout, share: float, state: State, *, now: float, reason: str, actor: str
) -> Rollout:
    shares = {rollout.control: 1 - share, rollout.treatment: share}
    experiment = replace(rollout.experiment.reweight(shares), shadow="")
    moved = _moved(rollout, state, now=now, reason=reason, actor=actor)
    return replace(
        moved,
        experiment=experiment,
        rivals=(),
        dropped=(*rollout.dropped, *rollout.rivals),
        allocations=(*rollout.allocations, (experiment.epoch, experiment.weights)),
    )


def _led(rollout: Rollout, leader: str) -> Rollout:
    """The rollout with the one of its treatments in front that is ahead."""
    if leader in ("", rollout.treatment):
        return rollout
    if leader not in rollout.rivals:
        raise TransitionError(
            f"rollout {rollout.key!r} compares {', '.join(rollout.arms)}; {leader!r} cannot win"
        )
    rivals = tuple(arm for arm in rollout.arms if arm != leader)
    return replace(rollout, treatment=leader, rivals=rivals)


def _check_last(rollout: Rollout) -> None:
    if rollout.stage_index + 1 < len(rollout.stages):
        msg = f"rollout {rollout.key!r} is in stage {rollout.stage.name!r}; only the last promotes"
        raise TransitionError(msg)


def _enter(
    rollout: Rollout, index: int, *, now: float, reason: str, actor: str, epoch: int | None = None
) -> Rollout:
    stage = rollout.stages[index]
    shares = {rollout.control: 1 - stage.share}
    shares |= dict.fromkeys(rollout.arms, stage.share / len(rollout.arms))
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
