"""Where a rollout, an experiment, a layer or a holdout stands, in the few words of a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from abkit.decision import sha256_of
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Mapping

Item: TypeAlias = Rollout | Experiment | Layer | Holdout

_BY_STATE: Final = {
    "halted": "halt",
    "rolled_back": "rolled_back",
    "hold": "hold",
    "ready": "ready",
    "bake": "bake",
    "promoted": "promote",
    "superseded": "superseded",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was moved.

    Args:
        before: as it was; None for what is new.
        after: as it is now.
        actor: who moved it; by default what a rollout says itself.
        reason: in words; the same.
        verb: what a person asked for; by default what it amounts to.
        decision_id: of the decision that led to it.
    """

    before: Item | None
    after: Item
    actor: str = ""
    reason: str = ""
    verb: str = ""
    decision_id: str = ""


def kind_of(item: Item) -> str:
    """What it is, in a word."""
    return type(item).__name__.lower()


def state_of(item: Item | None) -> dict[str, Any] | None:
    """Where it stands."""
    if item is None:
        return None
    if isinstance(item, Rollout):
        return {
            "state": item.state,
            "version": item.version,
            "stage": item.stage.name,
            "share": 0.0 if item.experiment.state == "killed" else round(item.last_share, 12),
            **({"dropped": list(item.dropped)} if item.dropped else {}),
        }
    checksum = sha256_of(item.to_dict())[:16]
    if isinstance(item, Experiment):
        shares = {name: round(share, 12) for name, share in item.weights.items()}
        return {"state": item.state, "epoch": item.epoch, "shares": shares, "checksum": checksum}
    if isinstance(item, Layer):
        return {"shares": {k: round(v, 12) for k, v in item.shares.items()}, "checksum": checksum}
    return {"share": item.share, "checksum": checksum}


def mark_of(state: Mapping[str, Any] | None) -> Any:
    """What differs as soon as it has moved; None for what is not there."""
    return None if state is None else state.get("version", state.get("checksum"))


def event_of(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """What a move of a rollout amounts to.

    Returns:
        "start", "advance", "hold", "resume", "ready", "bake", "promote", "superseded", "halt",
        "rolled_back", "drop" (one of several treatments), "back" (ready, and contradicted since)
        or "gone".
    """
    if after is None:
        return "gone"
    out = len(after.get("dropped", ())) - len((before or {}).get("dropped", ()))
    if before is not None and out > 0 and after.get("state") not in ("bake", "promoted"):
        return "drop"
    named = _BY_STATE.get(str(after.get("state")))
    if named is not None:
        return named
    if before is None:
        return "start"
    if before.get("state") == "ready":
        return "back"
    same = before.get("stage") == after.get("stage")
    return "resume" if same and before.get("state") == "hold" else "advance"


def verb_of(change: Change) -> str:
    """What was done, in the word for it."""
    if change.verb:
        return change.verb
    if not isinstance(change.after, Rollout):
        return "publish"
    event = event_of(state_of(change.before), state_of(change.after))
    return "halt" if event == "rolled_back" else event
