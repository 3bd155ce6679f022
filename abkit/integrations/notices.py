"""What hooks are told: one message per move of a rollout, as plain data."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from abkit.trail import event_of

if TYPE_CHECKING:
    from abkit.controller import Taken
    from abkit.rollout import Rollout
    from abkit.trail import Entry

SCHEMA: Final = "abkit.event/v1"
EVENTS: Final = (
    *("start", "advance", "hold", "resume", "ready", "bake", "promote", "superseded"),
    *("halt", "rolled_back", "drop", "back", "advice"),
)
URGENT: Final = ("halt", "rolled_back")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message.

    Args:
        id: the same for each attempt to deliver it; receivers drop what they have seen.
        event: one of `EVENTS`, or "test".
        time: of the move, in seconds since 1970 in UTC.
        rollout: key of the rollout.
        experiment: key of its experiment.
        control: the variant that answered before.
        treatment: the variant on its way in.
        mode: "enforce", "notify" or "dry_run".
        state: where the rollout stands now.
        stage: name of its stage.
        share: share of units that treatment answers, in [0, 1].
        version: of the rollout's state.
        reason: in words.
        actor: who moved it; "abkit" for the controller.
        decision_id: of the decision that led to it; empty for a person's.
        sequence: number of the line in the audit trail; 0 for none.
    """

    id: str
    event: str
    time: float
    rollout: str
    experiment: str
    control: str
    treatment: str
    mode: str
    state: str
    stage: str
    share: float
    version: int
    reason: str = ""
    actor: str = ""
    decision_id: str = ""
    sequence: int = 0

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before all others."""
        return self.event in URGENT

    def follows(self, old: Notice) -> bool:
        """Whether it is of a later move than another: by version, as clocks are set back."""
        if self.rollout == old.rollout:
            return self.version >= old.version
        if self.sequence and old.sequence:
            return self.sequence >= old.sequence
        return self.time >= old.time

    @property
    def file_name(self) -> str:
        """A name of its own in a folder."""
        return self.id.replace(":", "-") + ".json"

    def to_dict(self) -> dict[str, Any]:
        """The body of a webhook."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            TypeError: it is none.
        """
        found = cls(**{name: value for name, value in data.items() if name != "schema"})
        kinds: dict[str, Any] = {"time": (int, float), "share": (int, float)}
        kinds |= {"version": int, "sequence": int}
        for item in dataclasses.fields(cls):
            value = getattr(found, item.name)
            if not isinstance(value, kinds.get(item.name, str)):
                raise TypeError(f"{item.name} is {value!r:.60}")
        if _ID.fullmatch(found.id) is None:  # it names a file, and a header
            raise TypeError(f"id is {found.id!r:.60}")
        return found

    def to_bytes(self) -> bytes:
        """The body of a webhook, as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False).encode("ascii")

    @staticmethod
    def of_entry(entry: Entry, rollout: Rollout) -> Notice:
        """A move as the audit trail has it."""
        after = entry.after or {}
        return _of(
            rollout,
            event=event_of(entry.before, entry.after),
            time=entry.time,
            state=str(after.get("state", "")),
            stage=str(after.get("stage", "")),
            share=float(after.get("share", 0.0)),
            version=int(after.get("version", 0)),
            reason=entry.reason,
            actor=entry.actor,
            decision_id=entry.decision_id,
            sequence=entry.sequence,
        )

    @staticmethod
    def of_state(rollout: Rollout, event: str, *, now: float) -> Notice:
        """A move that the audit trail does not have."""
        killed = rollout.experiment.state == "killed"
        return _of(
            rollout,
            event=event,
            time=now if rollout.changed is None else rollout.changed,
            state=rollout.state,
            stage=rollout.stage.name,
            share=0.0 if killed else rollout.last_share,
            version=rollout.version,
            reason=rollout.reason,
            actor=rollout.actor,
        )

    @staticmethod
    def of_advice(taken: Taken, *, now: float) -> Notice | None:
        """What the judge would have a person do; None where it acts itself, or says nothing."""
        rollout, action = taken.rollout, taken.decision.action
        drops = taken.decision.drops
        if taken.changed or rollout.mode == "enforce" or (action == "continue" and not drops):
            return None
        if rollout.state in ("hold", "ready"):
            return None  # they have been told
        notice = Notice.of_state(rollout, "advice", now=now)
        return dataclasses.replace(
            notice,
            id=f"{notice.id}-{action}",
            time=now,
            reason=f"{action}: {'; '.join(taken.decision.reasons)}",
            actor="abkit",
        )


def _of(rollout: Rollout, *, event: str, version: int, **rest: Any) -> Notice:
    return Notice(
        id=f"{rollout.key}:{version}:{event}",
        event=event,
        version=version,
        rollout=rollout.key,
        experiment=rollout.experiment.key,
        control=rollout.control,
        treatment=rollout.treatment,
        mode=rollout.mode,
        **rest,
    )
