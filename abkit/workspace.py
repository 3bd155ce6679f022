"""The workspace: one folder that serving, controller, dashboard and people share.

::

    workspace/
      snapshot.json              what serving workers read
      snapshot.version           number of the latest snapshot, in case that file is lost
      experiments/<key>.json     experiments without a rollout
      layers/<key>.json          experiments that exclude each other
      holdouts/<key>.json        units kept out of experiments
      rollouts/<key>.json        one state file per rollout, compared and set on its version
      log/<writer>/<number>.seg  exposures, outcomes and decisions: the truth
      audit/log.jsonl            who moved what, when and why: see `abkit.trail`
      store/                     DuckDB: an index of the log, rebuilt from it at any time

A halt or a rollback writes a state file and the snapshot. It needs neither DuckDB nor a running
controller. This module imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from abkit import machine, revise
from abkit.errors import (
    ConfigError,
    SchemaVersionError,
    StoreBusyError,
    StoreError,
    TransitionError,
    UnknownExperimentError,
)
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.metrics import check_name
from abkit.records import check_choice
from abkit.rollout import Rollout
from abkit.snapshot import Snapshot, by_key, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from abkit.trail import Head, Trail
    from abkit.trail.state import Item

_Part = TypeVar("_Part", Layer, Holdout)

Verb = Literal["hold", "resume", "skip", "promote", "halt"]
FOLDER_MODE = 0o700


class Workspace:
    """A workspace folder; it is made when something is first written to it.

    Args:
        path: the folder.
        clock: seconds since 1970 in UTC.
        keeps_head: whether the head of its trail goes to the file that ABKIT_AUDIT_HEAD names;
            not so for a copy.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        keeps_head: bool = True,
    ) -> None:
        """Remember the paths; nothing is read or made."""
        self.path = Path(path)
        self.snapshot_path = self.path / "snapshot.json"
        self.log_path = self.path / "log"
        self.store_path = self.path / "store"
        self._rollouts = self.path / "rollouts"
        self._experiments = self.path / "experiments"
        self._layers = self.path / "layers"
        self._holdouts = self.path / "holdouts"
        self._clock = clock
        self._keeps_head = keeps_head
        self._kept_trail: Trail | None = None
        self._parts_seen: tuple[int, ...] = ()

    def create(self) -> None:
        """Make the folder and what belongs in it, readable by the owner alone.

        Raises:
            StoreError: the system refuses, such as where a file is in the way.
        """
        for folder in (
            self.path,
            self.log_path,
            self.store_path,
            self._rollouts,
            self._experiments,
            self._layers,
            self._holdouts,
        ):
            try:
                folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            except OSError as error:
                msg = f"cannot make the folder {folder}: {error.strerror}"
                raise StoreError(msg) from None

    def rollouts(
        self, *, on_damage: Callable[[Path, Exception], object] | None = None
    ) -> list[Rollout]:
        """All rollouts, the newest first.

        Args:
            on_damage: told of each file that cannot be read, which is then left out; without
                it the first one is an error.

        Raises:
            StoreError: a state file is damaged.
        """
        found: list[Rollout] = []
        for path in sorted(self._rollouts.glob("*.json")):
            try:
                found.append(self._read_rollout(path))
            except (StoreError, ConfigError) as error:
                if on_damage is None:
                    raise StoreError(f"the state file {path} is damaged: {error}") from None
                on_damage(path, error)
        return sorted(found, key=lambda item: (item.started or 0.0, item.key), reverse=True)

    def rollout(self, key: str) -> Rollout:
        """One rollout.

        Raises:
            UnknownExperimentError: there is none of this name; the message lists the others.
        """
        path = self._rollouts / f"{check_name(key, 'rollout key')}.json"
        if not path.is_file():
            names = ", ".join(sorted(item.stem for item in self._rollouts.glob("*.json")))
            msg = f"no rollout {key!r} in {self.path}; there is {names or 'none yet'}"
            raise UnknownExperimentError(msg)
        return self._read_rollout(path)

    def snapshot(self) -> Snapshot | None:
        """The snapshot as published, or None before the first.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            content = self.snapshot_path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {self.snapshot_path}: {error.strerror}") from None
        return Snapshot.from_bytes(content)

    def start(self, rollout: Rollout, *, actor: str = "abkit") -> Rollout:
        """Start a draft and publish its first allocation.

        Raises:
            TransitionError: the key is taken, or the experiment has a live rollout.
            ConfigError: its control is not what serves now, or a dry run finds no split.
        """
        self.create()
        with self._lock():
            if (self._rollouts / f"{rollout.key}.json").exists():
                msg = f"there is a rollout {rollout.key!r} already; pick another key"
                raise TransitionError(msg)
            self._trail.check()
            now, key = self._clock(), rollout.experiment.key
            if rollout.mode == "dry_run":
                return self._observe(rollout, now=now, actor=actor)
            rivals = [item for item in self.rollouts() if item.experiment.key == key and item.owns]
            for rival in rivals:
                if rival.live:
                    msg = (
                        f"experiment {key!r} has the live rollout {rival.key!r} "
                        f"({rival.state}); halt or promote it first"
                    )
                    raise TransitionError(msg)
            epochs = [item.last_epoch for item in rivals]
            plain = self._experiments / f"{key}.json"
            current = max(rivals, key=lambda item: item.last_epoch, default=None)
            if current is not None and current.state in ("promoted", "bake"):
                serving = {current.treatment: current.key}
            else:
                serving = {}
            if plain.exists():
                published = self._read_experiment(plain)
                epochs.append(published.epoch)
                if published.epoch >= max(epochs):
                    serving = {name: "" for name, share in published.weights.items() if share > 0}
                if rollout.inherits and published.epoch >= max(epochs):
                    rollout = replace(
                        rollout,
                        experiment=revise.inherited(rollout.experiment, published, with_salt=True),
                    )
                    current = None
            if rollout.inherits and current is not None:
                # Another salt: what the last rollout did to a unit says nothing about this one.
                rollout = replace(
                    rollout,
                    experiment=revise.inherited(
                        rollout.experiment, current.experiment, with_salt=False
                    ),
                )
            _check_control(rollout, serving)
            started = machine.start(rollout, now=now, epoch=max(epochs, default=0) + 1, actor=actor)
            parts = self._parts(self._last_snapshot())
            revise.check_fit([started.experiment], parts, others=set())
            moves: list[tuple[Rollout | None, Rollout]] = [
                (rival, machine.superseded(rival, now=now, by=rollout.key))
                for rival in rivals
                if rival.state == "promoted"
            ]
            moves.append((None, started))
            for _, moved in moves:
                self._write(moved)
            self._record(moves, self._publish())
        return started

    def _observe(self, rollout: Rollout, *, now: float, actor: str) -> Rollout:
        """Start a dry run; the caller holds the lock."""
        snapshot = self.snapshot()
        key = rollout.experiment.key
        published = None if snapshot is None else snapshot.experiments.get(key)
        if published is None:
            raise ConfigError(
                f"rollout {rollout.key!r} is a dry run, and no experiment {key!r} is published; "
                "publish the split that it shall judge first"
            )
        started = machine.observe(rollout, published, now=now, actor=actor)
        self._write(started)
        self._record([(None, started)], snapshot, now=now)
        return started

    def followed(self, rollout: Rollout) -> Rollout:
        """A dry run with the split that is published now; any other rollout as it is."""
        if rollout.mode != "dry_run":
            return rollout
        snapshot = self._last_snapshot()
        published = None if snapshot is None else snapshot.experiments.get(rollout.experiment.key)
        return rollout if published is None else machine.followed(rollout, published)

    def put(self, rollout: Rollout, *, expected_version: int, decision_id: str = "") -> None:
        """Store the next state of a rollout and publish its allocation.

        Args:
            rollout: the state to store.
            expected_version: version of the stored state that it was made from.
            decision_id: of the decision that led to it, for the trail.

        Raises:
            TransitionError: somebody else has moved the rollout meanwhile.
            StoreError: it would grow, and the trail cannot be written.
        """
        with self._lock():
            stored = self.rollout(rollout.key)
            if stored.version != expected_version:
                raise _moved_meanwhile(stored, expected_version)
            drops = rollout.live and len(rollout.dropped) > len(stored.dropped)
            if rollout.version != stored.version and (not drops or rollout.state == "bake"):
                self._check_trail(rollout)  # to drop a treatment protects people
            self._write(rollout)
            if rollout.version != stored.version or not self._is_published(rollout):
                self._record([(stored, rollout)], self._publish(), decision_id=decision_id)

    def act(
        self,
        key: str,
        verb: Verb,
        *,
        reason: str,
        actor: str,
        expected_version: int | None = None,
        decision_id: str = "",
    ) -> Rollout:
        """Move a rollout by a person's word.

        Args:
            key: of the rollout.
            verb: "hold" keeps the allocation, "resume" goes on after a hold, "skip" begins the
                next stage, "promote" gives everyone the treatment, "halt" the control.
            reason: for the record.
            actor: who says so.
            expected_version: of the state that the person saw; None for whatever it is.
            decision_id: of the decision that it carries out, for the trail.

        Raises:
            UnknownExperimentError: there is no such rollout.
            TransitionError: it cannot be moved so, or has moved since it was seen.
        """
        check_choice("act", "verb", verb, get_args(Verb))
        move = getattr(machine, verb)
        with self._lock():
            stored = self.rollout(key)
            if expected_version is not None and stored.version != expected_version:
                raise _moved_meanwhile(stored, expected_version)
            try:
                moved: Rollout = move(stored, now=self._clock(), reason=reason, actor=actor)
            except TransitionError:
                # Asked again after a crash: done already, but serving may not know it yet.
                if not self._is_published(stored):
                    self._publish()
                raise
            self._check_trail(moved)
            self._write(moved)
            snapshot = self._publish() if moved.owns else self._last_snapshot()
            self._record([(stored, moved)], snapshot, verb=verb, decision_id=decision_id)
        return moved

    def halt(self, key: str, *, reason: str, actor: str) -> Rollout:
        """Control for everyone: one write, with no store and no controller.

        Raises:
            UnknownExperimentError: there is no such rollout.
            TransitionError: there is nothing to take back.
        """
        return self.act(key, "halt", reason=reason, actor=actor)

    def hold(self, key: str, *, reason: str, actor: str) -> Rollout:
        """Keep the allocation as it is until somebody resumes.

        Raises:
            UnknownExperimentError: there is no such rollout.
            TransitionError: it is not live.
        """
        return self.act(key, "hold", reason=reason, actor=actor)

    def resume(self, key: str, *, reason: str, actor: str) -> Rollout:
        """Go on after a hold.

        Raises:
            UnknownExperimentError: there is no such rollout.
            TransitionError: it is not on hold.
        """
        return self.act(key, "resume", reason=reason, actor=actor)

    def publish(
        self,
        *experiments: Experiment,
        layers: Iterable[Layer] = (),
        holdouts: Iterable[Holdout] = (),
        actor: str = "operator",
        reason: str = "published",
    ) -> Snapshot:
        """Store experiments that have no rollout, layers and holdouts; publish the snapshot.

        Args:
            experiments: what to publish.
            layers: the same.
            holdouts: the same.
            actor: who publishes, for the trail.
            reason: why, for the trail.

        Raises:
            ConfigError: a rollout owns one of the keys, an experiment names a layer or holdout
                that is not there, or units would be re-randomised; see `abkit.revise`.
        """
        self.create()
        with self._lock():
            readable = self.rollouts(on_damage=lambda _path, _error: None)
            owned = {item.experiment.key: item for item in readable if item.owns}
            for experiment in experiments:
                owner = owned.get(experiment.key)
                if owner is not None and owner.live:
                    raise ConfigError(
                        f"rollout {owner.key!r} owns the experiment {experiment.key!r} while it "
                        "is live; halt or promote it first"
                    )
            parts = self._parts(self._last_snapshot())
            moved = {
                key: revise.resized(parts[0].get(key), item) for key, item in by_key(layers).items()
            }
            wanted = {**parts[0], **moved}, {**parts[1], **by_key(holdouts)}
            revise.check_parts(experiments, wanted[0])
            stored = self._stored_experiments()
            over = {key: item for key, item in owned.items() if not item.live}
            taken = {
                item.key: revise.after(over[item.key], item)
                for item in experiments
                if item.key in over
                and stored.get(item.key, item).epoch <= over[item.key].last_epoch
            }
            changed = revise.revised(
                {key: item for key, item in stored.items() if key not in taken},
                [taken.get(item.key, item) for item in experiments],
                before=parts,
                after=wanted,
            )
            revise.check_fit(changed.values(), wanted, others={*stored, *owned})
            revise.check_live(owned.values(), before=parts, after=wanted)
            if not experiments or any(item.state != "killed" for item in experiments):
                self._trail.check()  # only what protects people is done without a line
            moves: list[tuple[Item | None, Item]] = []
            for folder, items, known in (
                (self._layers, wanted[0], parts[0]),
                (self._holdouts, wanted[1], parts[1]),
                (self._experiments, changed, stored),
            ):
                moves += [(known.get(key), item) for key, item in items.items()]
                for key, item in items.items():
                    write_atomically(folder / f"{key}.json", _json(item.to_dict()))
            for key in taken:
                if over[key].state == "promoted":
                    moved_on = machine.superseded(over[key], now=self._clock(), by="publish")
                    self._write(moved_on)
                    moves.append((over[key], moved_on))
            snapshot = self._publish()
            self._record(moves, snapshot, actor=actor, reason=reason)
            return snapshot

    def _stored_experiments(self) -> dict[str, Experiment]:
        found: dict[str, Experiment] = {}
        for path in sorted(self._experiments.glob("*.json")):
            with contextlib.suppress(StoreError, ConfigError):
                item = self._read_experiment(path)
                found[item.key] = item
        return found

    def _named(self, folder: Path, cls: type[_Part]) -> dict[str, _Part]:
        """The layers or holdouts of a folder by key, without those whose file is damaged."""
        found: dict[str, _Part] = {}
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(StoreError, ConfigError):
                item = cls.from_dict(_read_json(path))
                found[item.key] = item
        return found

    def mend(self) -> bool:
        """Publish what a crash between a state file and the snapshot has left unpublished.

        Returns:
            True if there was something to mend.
        """
        with self._lock():
            readable = self.rollouts(on_damage=lambda _path, _error: None)
            is_mended = not all(self._is_published(item) for item in readable)
            if is_mended:
                self._publish()
            if not self._trail.mend(self._standing(readable), snapshot=self._version()):
                self._parts_seen = ()  # look again
        return is_mended

    def standing(self) -> list[Item]:
        """Rollouts, experiments, layers and holdouts as their files say, damaged ones left out."""
        self._parts_seen = ()
        return self._standing(self.rollouts(on_damage=lambda _path, _error: None))

    def _standing(self, rollouts: list[Rollout]) -> list[Item]:
        """The rollouts, and the rest too if its folders have changed since they were last read."""
        folders = (self._experiments, self._layers, self._holdouts)
        seen = tuple(item.stat().st_mtime_ns if item.is_dir() else 0 for item in folders)
        if seen == self._parts_seen:
            return [*rollouts]
        self._parts_seen = seen
        layers, holdouts = self._named(self._layers, Layer), self._named(self._holdouts, Holdout)
        experiments = self._stored_experiments()
        return [*rollouts, *experiments.values(), *layers.values(), *holdouts.values()]

    def audit_head(self) -> Head | None:
        """Count and hash of the trail; None before its first line."""
        return self._trail.head()

    @property
    def _trail(self) -> Trail:
        if self._kept_trail is None:
            from abkit.trail import Trail  # noqa: PLC0415 - serving never needs it

            self._kept_trail = Trail(self.path, clock=self._clock, keeps_head=self._keeps_head)
        return self._kept_trail

    def _check_trail(self, moved: Rollout) -> None:
        """Refuse a move that cannot be written down, unless it protects people."""
        if moved.state not in ("halted", "rolled_back", "hold"):
            self._trail.check()

    def _record(
        self,
        moves: Iterable[tuple[Item | None, Item]],
        snapshot: Snapshot | None,
        *,
        verb: str = "",
        decision_id: str = "",
        actor: str = "",
        reason: str = "",
        now: float | None = None,
    ) -> None:
        """Write the lines of what was moved; a move stands although its line cannot be written."""
        try:
            from abkit.trail import Change  # noqa: PLC0415 - serving never needs it
        except (ImportError, OSError):  # out of file descriptors, say; a halt stands all the same
            return
        changes = []
        for before, after in moves:
            # A rollout's own state says who and why.
            said = {} if isinstance(after, Rollout) else {"actor": actor, "reason": reason}
            changes.append(Change(before, after, verb=verb, decision_id=decision_id, **said))
        version, published = (
            (0, None) if snapshot is None else (snapshot.version, snapshot.published)
        )
        self._trail.record(changes, snapshot=version, now=published if now is None else now)

    def _version(self) -> int:
        """Of the snapshot as published; 0 for none."""
        with contextlib.suppress(StoreError):
            snapshot = self.snapshot()
            return 0 if snapshot is None else snapshot.version
        return 0

    def _is_published(self, rollout: Rollout) -> bool:
        """Whether the snapshot holds this rollout's allocation, or a newer one."""
        if not rollout.owns:
            return True
        try:
            snapshot = self.snapshot()
        except StoreError:
            return False
        key, epoch = rollout.experiment.key, rollout.last_epoch
        current = None if snapshot is None else snapshot.experiments.get(key)
        return current is not None and (current.epoch > epoch or current == rollout.experiment)

    def _publish(self) -> Snapshot:
        """Compile and write the snapshot; the caller holds the lock."""
        before = self._last_snapshot()
        found: list[Experiment] = []
        is_damaged = False
        for path in sorted(self._experiments.glob("*.json")):
            try:
                found.append(self._read_experiment(path))
            except (StoreError, ConfigError):
                is_damaged = True
        for path in sorted(self._rollouts.glob("*.json")):
            try:
                item = self._read_rollout(path)
            except (StoreError, ConfigError):
                is_damaged = True
            else:
                found += [item.experiment] * item.owns
        if is_damaged and before is not None:
            # One damaged file must not stop the halt of another rollout: what it held stays.
            found += before.experiments.values()
        table: dict[str, Experiment] = {}
        for experiment in found:
            current = table.get(experiment.key)
            if current is None or current.epoch < experiment.epoch:
                table[experiment.key] = experiment
        layers, holdouts = self._parts(before)
        version = self._next_version(before)
        snapshot = revise.fitting(
            table.values(), layers, holdouts, version=version, published=self._clock()
        )
        write_atomically(self.snapshot_path, snapshot.to_bytes())
        return snapshot

    def _last_snapshot(self) -> Snapshot | None:
        try:
            return self.snapshot()
        except SchemaVersionError:
            raise  # a newer abkit wrote it: what this one does not know would be lost
        except StoreError:
            return None  # a damaged snapshot is what the next publication mends

    def _parts(self, before: Snapshot | None) -> tuple[dict[str, Layer], dict[str, Holdout]]:
        """Layers and holdouts; a file that is damaged or gone keeps what it held."""
        layers = self._named(self._layers, Layer)
        holdouts = self._named(self._holdouts, Holdout)
        if before is not None:
            layers, holdouts = {**before.layers, **layers}, {**before.holdouts, **holdouts}
        return layers, holdouts

    def _next_version(self, before: Snapshot | None) -> int:
        """One more than ever before, also where the snapshot itself was lost."""
        path = self.path / "snapshot.version"
        try:
            latest = int(path.read_text("ascii"))
        except (OSError, ValueError):
            latest = 0
        version = max(latest, 0 if before is None else before.version) + 1
        # A halt must not fail for want of this number.
        with contextlib.suppress(OSError):
            write_atomically(path, str(version).encode())
        return version

    def _write(self, rollout: Rollout) -> None:
        write_atomically(self._rollouts / f"{rollout.key}.json", _json(rollout.to_dict()))

    def _read_rollout(self, path: Path) -> Rollout:
        return Rollout.from_dict(_read_json(path))

    def _read_experiment(self, path: Path) -> Experiment:
        return Experiment.from_dict(_read_json(path))

    @contextlib.contextmanager
    def _lock(self, timeout_seconds: float = 5.0) -> Iterator[None]:
        with locked(self.path / "state.lock", timeout_seconds=timeout_seconds):
            yield


def _check_control(rollout: Rollout, serving: Mapping[str, str]) -> None:
    """Refuse a plan whose control would take back what serves everybody now."""
    if len(serving) != 1 or rollout.control in serving:
        return
    ((name, by),) = serving.items()
    since = f", which rollout {by!r} promoted" if by else ""
    raise ConfigError(
        f"rollout {rollout.key!r} has the control {rollout.control!r}, but everybody is served "
        f"{name!r}{since}: starting it would take that back; name {name!r} as control, or roll "
        "back first"
    )


def _moved_meanwhile(stored: Rollout, expected_version: int) -> TransitionError:
    return TransitionError(
        f"rollout {stored.key!r} has moved: version {stored.version} "
        f"({stored.state}, {stored.reason!r}), expected {expected_version}"
    )


@contextlib.contextmanager
def locked(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """Hold an advisory file lock; the system frees it when the process dies.

    Raises:
        StoreError: the folder is absent.
        StoreBusyError: another process still holds it after the timeout.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        msg = f"cannot open {path}: {error.strerror}; is {path.parent} a workspace?"
        raise StoreError(msg) from None
    deadline = time.monotonic() + timeout_seconds
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    msg = f"another process holds {path}"
                    raise StoreBusyError(msg) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _json(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)
    # A reason typed in a foreign encoding holds lone surrogates; it must not stop a halt.
    return text.encode("utf-8", "replace")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} is not readable: {error}"
        raise StoreError(msg) from None
    if not isinstance(data, dict):
        msg = f"{path} does not hold a table"
        raise StoreError(msg)
    return data
