"""The controller: one tick loads events, looks, decides, advances and publishes.

It is the only ingester of its workspace. It keeps no state that it could not rebuild: a
restarted controller replays the recorded observations since its last checkpoint and goes on.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from abkit import __version__
from abkit.decision import sha256_of
from abkit.errors import AbkitError, TransitionError
from abkit.events import Decided
from abkit.judge import JudgeState, judge, taken_again
from abkit.judge.checkpoint import Checkpoint
from abkit.log import SegmentWriter
from abkit.machine import advance, drop
from abkit.store.ingest import Ingested, Ingester
from abkit.trail import AUDIT, head_record
from abkit.workspace import Workspace

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from abkit.decision import Decision
    from abkit.observation import Observation
    from abkit.rollout import Rollout
    from abkit.trail import Head

DECISION_SCHEMA = "abkit.decision/v1"
CHECKPOINT_LOOKS = 100


@dataclass(frozen=True, slots=True)
class Taken:
    """A decision that was taken in a tick.

    Args:
        rollout: the rollout after the decision.
        decision: what was decided, and why.
        changed: whether the rollout moved.
    """

    rollout: Rollout
    decision: Decision
    changed: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick did.

    Args:
        ingested: events loaded.
        taken: decisions, one per live rollout that had news.
        damaged: state files that could not be read, and why.
    """

    ingested: Ingested
    taken: tuple[Taken, ...] = ()
    damaged: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a person wants to read of it: what was loaded, and what moved."""
        lines = [
            f"{item.rollout.key}: {item.decision.action}, now {item.rollout.state} "
            f"({item.rollout.stage.name}); {item.decision.reasons[0]}"
            for item in self.taken
            if item.changed
        ]
        if self.ingested.events:
            lines.insert(0, f"loaded {self.ingested.events:,} events")
        return [*lines, *self.damaged]


@dataclass(slots=True)
class _Memory:
    """What the controller knows of one live rollout between ticks."""

    state: JudgeState = field(default_factory=JudgeState)
    looks: int = 0
    units: int = 0
    seen: tuple[int, int] = (-1, -1)


class Controller:
    """Runs the rollouts of a workspace.

    Args:
        workspace: the workspace folder.
        mend: move a damaged store aside and make a new one from the log.
        clock: seconds since 1970 in UTC.
        checkpoint_looks: looks between two checkpoints of the judge, >= 1.

    Raises:
        StoreBusyError: another controller runs on this workspace.
        StoreError: the store is damaged, and nobody said to mend it.
    """

    def __init__(
        self,
        workspace: str | os.PathLike[str] | Workspace,
        *,
        mend: bool = False,
        clock: Callable[[], float] = time.time,
        checkpoint_looks: int = CHECKPOINT_LOOKS,
    ) -> None:
        """Take the ingester's lock and open the store."""
        self.workspace = (
            workspace if isinstance(workspace, Workspace) else Workspace(workspace, clock=clock)
        )
        self.workspace.create()
        self._clock = clock
        self._checkpoint_looks = max(1, checkpoint_looks)
        self._ingester = Ingester(self.workspace, clock=clock, mend=mend)
        self._log = SegmentWriter(self.workspace.log_path, durability="os", clock=clock)
        self._memory: dict[str, _Memory] = {}
        self._head: Head | None = None

    def __enter__(self) -> Self:
        """The controller itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the store and free the lock."""
        self.close()

    def close(self) -> None:
        """Close the store and free the lock."""
        self._log.close()
        self._ingester.close()

    def tick(self) -> Tick:
        """Load what is new, take one look at every live rollout, act on it, publish.

        A damaged state file stops its own rollout and no other; the tick names it.
        """
        ingested = self._ingester.ingest()
        self.workspace.mend()
        damaged: list[str] = []
        rollouts = self.workspace.rollouts(
            on_damage=lambda path, error: damaged.append(f"{path.name} is damaged: {error}")
        )
        taken: list[Taken] = []
        for rollout in rollouts:
            if not rollout.live:
                continue
            try:
                item = self._look(rollout)
            except (AbkitError, ValueError) as error:  # one rollout's data stops no other
                damaged.append(f"{rollout.key}: no look could be taken: {error}")
            else:
                taken += [] if item is None else [item]
        is_noted = self._note_head()
        if taken or is_noted:
            ingested += self._ingester.ingest()  # the decisions themselves
        self._ingester.publish()
        return Tick(ingested, tuple(taken), tuple(damaged))

    def exposures(self, rollout: str) -> int:
        """Units that the newest look at a rollout had seen; 0 before the first."""
        memory = self._memory.get(rollout)
        return 0 if memory is None else memory.units

    def run(
        self,
        *,
        interval_seconds: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        on_tick: Callable[[Tick], object] = lambda _: None,
    ) -> None:
        """Tick until told to stop.

        Args:
            interval_seconds: pause between ticks.
            stop: asked after each tick.
            on_tick: told of each tick.
        """
        while True:
            on_tick(self.tick())
            if stop():
                return
            time.sleep(interval_seconds)

    def _look(self, rollout: Rollout) -> Taken | None:
        memory = self._memory.get(rollout.key)
        if memory is None:
            memory = self._recall(rollout)
            rollout = self.workspace.rollout(rollout.key)
            if not rollout.live:
                return None
        rollout = self.workspace.followed(rollout)
        now = self._clock()
        observation = self._ingester.observe(
            experiment=rollout.experiment.key,
            epochs=(rollout.first_epoch, rollout.last_epoch),
            metrics=rollout.watched_metrics,
            control=rollout.control,
            treatment=rollout.treatment,
            rivals=rollout.rivals,
            now=now,
        )
        decision, state = judge(rollout, memory.state, observation)
        news = (self._ingester.loaded, rollout.version)
        moved = replace(advance(rollout, decision, now=now), looks=memory.looks + 1)
        if news == memory.seen and moved.version == rollout.version:
            return None  # nothing new was seen: this would be the same look again
        record = decision_record(
            rollout,
            moved,
            decision,
            observation,
            look=moved.looks,
            watermark=self._ingester.watermark(),
        )
        event = Decided(now, rollout.key, moved.looks, json.dumps(record, allow_nan=False))
        written = self._log.append(event.to_record(), rollout.experiment.key, rollout.treatment)
        if not written and decision.action != "halt" and not decision.drops:
            return None  # only what protects people is done without being written down
        self._memory[rollout.key] = _Memory(state, moved.looks, observation.total_units, news)
        if written and moved.looks % self._checkpoint_looks == 0:
            kept = Checkpoint(rollout.key, moved.looks, record["decision_id"], state)
            kept.write(self._checkpoint_path(rollout.key))
        try:
            self.workspace.put(
                moved, expected_version=rollout.version, decision_id=record["decision_id"]
            )
        except TransitionError:
            # An operator moved it meanwhile: a halt stands all the same, the rest looks again.
            if decision.action == "halt":
                self._halt_again(rollout.key, moved.reason, record["decision_id"])
            self._drop_again(rollout.key, decision.drops, moved.reason, record["decision_id"])
            return None
        return Taken(moved, decision, changed=moved.version != rollout.version)

    def _halt_again(self, key: str, reason: str, decision_id: str = "") -> None:
        with contextlib.suppress(TransitionError):  # over already
            self.workspace.act(key, "halt", reason=reason, actor="abkit", decision_id=decision_id)

    def _drop_again(
        self, key: str, drops: Sequence[str], reason: str, decision_id: str = ""
    ) -> None:
        """Drop what a decision drops, as far as it is in still."""
        rollout = self.workspace.rollout(key)
        arms = tuple(arm for arm in drops if arm in rollout.arms)
        if not arms or rollout.mode == "dry_run":
            return
        with contextlib.suppress(TransitionError):  # over, or moved again: then it looks again
            moved = drop(rollout, arms, now=self._clock(), reason=reason, actor="abkit")
            self.workspace.put(moved, expected_version=rollout.version, decision_id=decision_id)

    def _note_head(self) -> bool:
        """Write the head of the audit trail into the event log, where it has moved."""
        head = self.workspace.audit_head()
        if head is None or head == self._head:
            return False
        now = self._clock()
        record = {"rollout": AUDIT, "look": head.count, **head_record(head, now)}
        event = Decided(now, AUDIT, head.count, json.dumps(record))
        if not self._log.append(event.to_record(), AUDIT, ""):
            return False
        self._head = head
        return True

    def _checkpoint_path(self, key: str) -> Path:
        return self.workspace.store_path / f"{key}.judge.json"

    def _recall(self, rollout: Rollout) -> _Memory:
        """Replay the observations recorded before this controller started, from a checkpoint on."""
        memory = _Memory()
        last: tuple[str, str, Sequence[str]] = ("", "", ())
        records: list[dict[str, Any]] = []
        kept = Checkpoint.read(self._checkpoint_path(rollout.key), rollout=rollout.key)
        if kept is not None:
            records = self._ingester.decisions(rollout.key, first=kept.look)
        if kept is not None and records and records[0].get("decision_id") == kept.decision_id:
            memory.state, memory.looks = kept.state, kept.look
            its = records.pop(0)
            last = (its["action"], str(its["reason"]), its.get("drops", ()))
        else:
            records = self._ingester.decisions(rollout.key)
        for record, decision, state in taken_again(records, memory.state):
            memory.state, memory.looks = state, int(record["look"])
            last = (decision.action, "; ".join(decision.reasons), decision.drops)
        action, reason, drops = last
        if action == "halt":  # recorded, and cut off before it was acted on
            self._halt_again(rollout.key, reason)
        self._drop_again(rollout.key, drops, reason)
        return memory


def decision_record(
    before: Rollout,
    after: Rollout,
    decision: Decision,
    observation: Observation,
    *,
    look: int,
    watermark: Mapping[str, int],
) -> dict[str, Any]:
    """All that is needed to take the decision again, and its id.

    The id is the sha256 of the policy's hash, the code's version, the watermark and the counts.

    Args:
        before: the rollout that was judged.
        after: the rollout that came of it.
        decision: what was decided.
        observation: what was seen.
        look: number of the look, from 1.
        watermark: newest sequence number loaded, by writer.
    """
    seen = observation.to_dict()
    identity = {
        "policy_hash": before.policy.checksum,
        "code_version": __version__,
        # Its hash alone: a workspace may have had thousands of writers.
        "watermark": sha256_of(dict(watermark)),
        "observation": seen,
    }
    return {
        "schema": DECISION_SCHEMA,
        "decision_id": f"sha256:{sha256_of(identity)}",
        "rollout": before.key,
        "experiment": before.experiment.key,
        "control": before.control,
        "treatment": before.treatment,
        "look": look,
        "time": observation.time,
        "stage": before.stage.name,
        "share": before.last_share,
        "state": after.state,
        **decision.to_dict(),
        "halt_threshold": before.arm_policy.halt_threshold,
        "promote_threshold": before.arm_policy.promote_threshold,
        **identity,
        "actor": "abkit",
        "rollout_state": before.to_dict(),
    }
