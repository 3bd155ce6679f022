"""The client: the only object that serving code holds.

::

    ab = abkit.Client("workspace")
    with ab.exposure("ranker", user_id, latency="latency_ms", error="failed") as a:
        score = models[a.variant](request)
    ab.record(user_id, "converted", 1.0)

No call raises after construction, none opens a network connection or takes a lock that another
process can hold, and the standard library is all it needs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from abkit.assignment import (
    DEFAULT_CONTROL,
    Assignment,
    Reason,
    fallback,
    plain_text,
    unit_text,
)
from abkit.client.outcomes import Recording, whose
from abkit.client.sink import MemorySink, Rejections, Sink
from abkit.client.sticky import GuardedSticky, MemorySticky
from abkit.errors import ConfigError
from abkit.events import EXPOSURE, OUTCOME
from abkit.log import SegmentWriter, WriterCounts
from abkit.metrics import NAME_PATTERN, outcome_value
from abkit.snapshot import POLL_SECONDS, Snapshot, SnapshotSource, compile_snapshot
from abkit.workspace import Workspace

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from abkit.assignment import Sticky
    from abkit.client.exposing import Exposing, Route
    from abkit.client.forcing import Forcing
    from abkit.client.outcomes import Measure
    from abkit.client.shadow import Shadows
    from abkit.compiler import Choose
    from abkit.experiment import Experiment
    from abkit.layer import Holdout, Layer
    from abkit.log import Durability
    from abkit.snapshot import SourceHealth
    from abkit.targeting import Attributes

__all__ = ["Client", "ClientHealth", "MemorySink", "MemorySticky", "Rejections", "Sink"]

SHADOW_WORKERS = 2
SHADOW_QUEUE = 100
CLOSE_SECONDS = 2.0
_NEVER = float("inf")
_new = tuple.__new__


class _Fixed:
    """A source whose experiments never change."""

    due = _NEVER

    def __init__(self, snapshot: Snapshot, sticky: Sticky | None) -> None:
        table: dict[str, Choose] = compile_snapshot(snapshot, sticky)
        self.state: tuple[Snapshot | None, dict[str, Choose], tuple[int, ...]]
        self.state = (snapshot, table, ())

    def refresh(self) -> None:
        """Nothing to do."""

    def health(self) -> None:
        """Nothing to tell."""


class Client:
    """Assigns units and logs what happened to them.

    Args:
        workspace: the workspace folder; it may be empty or absent when serving starts.
        fallback: a snapshot file packaged with the application, in use while the workspace has
            none; None for none.
        sticky: remembers what units met, for experiments that are `sticky`: a `MemorySticky`,
            or a store that processes share; None to remember nothing.
        durability: "os" (default) writes each event to the page cache before returning, so it
            survives a killed process; "buffered" groups events for speed; "fsync" also
            survives loss of power, a second at most excepted.
        poll_seconds: how often the snapshot file is looked at, at most.
        shadow_workers: threads per process in which shadow models answer.
        shadow_queue: shadow answers that may wait; more are dropped and counted.
        clock: seconds since 1970 in UTC, stamped on events.
        monotonic: seconds that never jump, for the polling.
    """

    def __init__(
        self,
        workspace: str | os.PathLike[str],
        *,
        fallback: str | os.PathLike[str] | None = None,
        sticky: Sticky | None = None,
        durability: Durability = "os",
        poll_seconds: float = POLL_SECONDS,
        shadow_workers: int = SHADOW_WORKERS,
        shadow_queue: int = SHADOW_QUEUE,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the snapshot if there is one; a bad one is counted in `health`."""
        paths = Workspace(workspace)
        self._start(
            SegmentWriter(paths.log_path, durability=durability, clock=clock, monotonic=monotonic),
            clock,
            (shadow_workers, shadow_queue),
        )
        self._monotonic = monotonic
        self._source: SnapshotSource | _Fixed = SnapshotSource(
            paths.snapshot_path,
            fallback=fallback,
            poll_seconds=poll_seconds,
            clock=clock,
            monotonic=monotonic,
            sticky=self._guarded(sticky),
        )

    @classmethod
    def from_experiments(
        cls,
        experiments: Iterable[Experiment],
        *,
        layers: Iterable[Layer] = (),
        holdouts: Iterable[Holdout] = (),
        sink: Sink | None = None,
        sticky: Sticky | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A client with fixed experiments and no files.

        Args:
            experiments: what to assign.
            layers: the layers that they name.
            holdouts: the holdouts that they name.
            sink: where events go; by default a `MemorySink`, which is `client.sink`.
            sticky: remembers what units met; None to remember nothing.
            clock: seconds since 1970 in UTC, stamped on events.

        Raises:
            ConfigError: two of them have the same key, or one names what is not there.
        """
        client = cls.__new__(cls)
        client._start(  # noqa: SLF001 - our own, in an alternative constructor
            MemorySink() if sink is None else sink, clock, (SHADOW_WORKERS, SHADOW_QUEUE)
        )
        snapshot = Snapshot.of(
            experiments, layers=layers, holdouts=holdouts, version=0, published=0.0
        )
        client._monotonic = time.monotonic  # noqa: SLF001
        client._source = _Fixed(snapshot, client._guarded(sticky))  # noqa: SLF001
        return client

    def _start(self, sink: Sink, clock: Callable[[], float], shadow: tuple[int, int]) -> None:
        self._clock = clock
        self.sink = sink
        self.rejected = Rejections()
        self._forcing: Forcing | None = None
        self._shadow_size = shadow
        self._made: dict[str, Any] = {}
        self._shadows: Shadows | None = None

    def _once(self, name: str, made: Any) -> Any:
        """What was made first under this name; threads that come at once get the same."""
        return self._made.setdefault(name, made)

    def _guarded(self, sticky: Sticky | None) -> Sticky | None:
        return None if sticky is None else GuardedSticky(sticky, self.rejected)

    def assign(
        self,
        experiment: str,
        unit_id: str | int,
        attributes: Attributes | None = None,
        *,
        default: str = DEFAULT_CONTROL,
    ) -> Assignment:
        """The variant of a unit, and why. Logs nothing; control whenever anything is amiss.

        Args:
            experiment: key of the experiment.
            unit_id: what is randomised: text or a whole number.
            attributes: what is known of the unit, for targeting.
            default: the variant to serve when the experiment is not known here, as before the
                first snapshot: name the model that serves today.
        """
        try:
            source = self._source
            if self._monotonic() >= source.due:
                source.refresh()
            if self._forcing is not None:
                forced = self._forcing.of(source.state[0], experiment, unit_id)
                if forced is not None:
                    return forced
            choose = source.state[1].get(experiment)
            if choose is None:
                return fallback(experiment, unit_id, self._unknown(), default)
            arm = choose(unit_id, attributes)
            # The tuple's own constructor: half the time of the class's.
            text = unit_id if type(unit_id) is str else plain_text(unit_id)
            return _new(Assignment, (text, arm))
        except Exception:  # noqa: BLE001 - R1: serving goes on with control
            self.rejected.add("assign_error")
            return fallback(experiment, unit_id, "error", self._control_of(experiment, default))

    def variant(
        self,
        experiment: str,
        unit_id: str | int,
        attributes: Attributes | None = None,
        *,
        default: str = DEFAULT_CONTROL,
    ) -> str:
        """The name of the variant to serve, and nothing else; cheaper than `assign`.

        Takes the same arguments as `assign`.
        """
        try:
            source = self._source
            if self._monotonic() >= source.due:
                source.refresh()
            if self._forcing is not None:
                return self.assign(experiment, unit_id, attributes, default=default).arm.variant
            choose = source.state[1].get(experiment)
            return default if choose is None else choose(unit_id, attributes).variant
        except Exception:  # noqa: BLE001 - R1
            self.rejected.add("assign_error")
            return self._control_of(experiment, default)

    def picker(self, experiment: str, *, default: str = DEFAULT_CONTROL) -> Callable[..., str]:
        """`variant` with the experiment bound: `pick(unit_id, attributes)`, for the hottest paths.

        A quarter faster than `variant`: what it needs is looked up once per configuration.

        Args:
            experiment: key of the experiment.
            default: the variant to serve when the experiment is not known here.
        """
        source, monotonic = self._source, self._monotonic
        seen: Any = None
        choose: Choose | None = None

        def pick(unit_id: str | int, attributes: Attributes | None = None) -> str:
            nonlocal seen, choose
            try:
                if monotonic() >= source.due:
                    source.refresh()
                state = source.state
                if state is not seen:
                    # In this order: a thread that sees the new state sees its function too.
                    choose = state[1].get(experiment)
                    seen = state
                if choose is None or self._forcing is not None:
                    return self.variant(experiment, unit_id, attributes, default=default)
                return choose(unit_id, attributes).variant
            except Exception:  # noqa: BLE001 - R1
                self.rejected.add("assign_error")
                return self._control_of(experiment, default)

        return pick

    def assign_all(
        self, unit_id: str | int, attributes: Attributes | None = None
    ) -> dict[str, Assignment]:
        """What a unit gets in every experiment of the snapshot, by key, such as for a front end."""
        try:
            self.snapshot()  # as fresh as for any other call
            keys = list(self._source.state[1])
        except Exception:  # noqa: BLE001 - R1
            self.rejected.add("assign_error")
            return {}
        return {key: self.assign(key, unit_id, attributes) for key in keys}

    def assign_many(self, experiment: str, units: Any, **options: Any) -> Any:
        """What many units get: a list, or a frame of pandas, polars, Arrow or DuckDB.

        See `abkit.assign_many`, which takes the experiment itself. Meant for batch inference,
        not for a request: this call loads what it needs, and raises.

        Raises:
            UnknownExperimentError: the snapshot has no such experiment.
            MissingExtraError: the `analysis` extra is not installed.
        """
        snapshot = self.snapshot()
        # By name: serving code itself never imports what this brings.
        bulk = import_module("abkit.bulk")
        return bulk.assign_many(bulk.experiment_of(snapshot, experiment), units, **options)

    def force(self, variants: Mapping[str, str]) -> AbstractContextManager[None]:
        """Serve these variants inside a `with` block, whoever the unit is: for testing.

        Holds for the thread or asyncio task that the block runs in. Such units are kept out of
        the analysis. A killed experiment stays killed, and a variant that the experiment does
        not have is left out and counted in `health`.

        Args:
            variants: variant by key of experiment.
        """
        if self._forcing is None:
            from abkit.client.forcing import Forcing  # noqa: PLC0415 - for testing only

            self._forcing = self._once("forcing", Forcing(self.rejected))
        return self._forcing.inside(variants)

    def _control_of(self, experiment: object, default: str) -> str:
        """What to serve where assigning failed: control, if it is known."""
        try:
            snapshot = self._source.state[0]
            found = None if snapshot is None else snapshot.experiments.get(experiment)  # type: ignore[call-overload]
        except Exception:  # noqa: BLE001 - R1: a key that cannot be hashed
            return default
        return default if found is None else found.control

    def _unknown(self) -> Reason:
        return "no_snapshot" if self._source.state[0] is None else "unknown_experiment"

    def snapshot(self) -> Snapshot | None:
        """The configuration in use, or None before the first."""
        if self._monotonic() >= self._source.due:
            self._source.refresh()
        return self._source.state[0]

    def exposure(
        self,
        experiment: str,
        unit_id: str | int,
        attributes: Attributes | None = None,
        *,
        default: str = DEFAULT_CONTROL,
        latency: str = "",
        error: str = "",
    ) -> Exposing:
        """The block in which a unit meets its variant: `with ab.exposure(...) as a:`.

        Logs the exposure when the block begins and, where metrics are named, records its
        duration and whether it raised. Works with `async with` too.

        Args:
            experiment: key of the experiment.
            unit_id: what is randomised.
            attributes: what is known of the unit, for targeting.
            default: the variant to serve when the experiment is not known here.
            latency: metric for the duration in milliseconds; empty for none.
            error: metric for 1 where the block raised, else 0; empty for none.
        """
        from abkit.client.exposing import Exposing  # noqa: PLC0415 - brings inspect

        assignment = self.assign(experiment, unit_id, attributes, default=default)
        return Exposing(self, assignment, Recording(latency, error))

    def expose(self, assignment: Assignment) -> bool:
        """Log that a unit really met its variant.

        Args:
            assignment: what `assign` returned.

        Returns:
            True if the event was accepted. False, with the reason counted in `health`, for
            assignments outside the experiment (which are not analysed) and for dropped events.
        """
        try:
            arm = assignment.arm
            if not arm.in_experiment:
                return self.rejected.add("not_in_experiment")
            experiment, variant = arm.experiment, arm.variant
            # Exposure.to_record() without the Exposure, which costs as much as the assignment.
            record = (EXPOSURE, self._clock(), experiment, assignment.unit_id, variant, arm.epoch)
            return self.sink.append(record, experiment, variant)
        except Exception:  # noqa: BLE001 - R1
            return self.rejected.add("expose_error")

    def route(
        self,
        experiment: str,
        *,
        unit: str | Callable[..., object],
        models: Mapping[str, Any],
        default: str = DEFAULT_CONTROL,
        attributes: Callable[..., Mapping[str, Any] | None] | None = None,
        latency: str = "",
        error: str = "",
        measure: Measure | None = None,
        rescue: bool = False,
    ) -> Route:
        """A decorator that hands a function the model of the assigned variant.

        ::

            @ab.route("ranker", unit="user_id", models={"teacher": big, "student": small},
                      default="teacher", latency="latency_ms", error="failed")
            def rank(model, user_id, features):
                return model.predict(features)

            rank("user-1", features)   # by either model; exposure and outcomes are logged

        The function may be `async`. Where the experiment has a shadow, that model answers too,
        off the request's path.

        Args:
            experiment: key of the experiment.
            unit: name of the function's argument that holds the unit, or a function of all
                arguments that returns it.
            models: what the function gets as its first argument, by variant.
            default: the variant to serve when the experiment is not known here, or the
                assigned variant has no model.
            attributes: a function of all arguments that returns the unit's attributes.
            latency: metric for the duration in milliseconds; empty for none.
            error: metric for 1 where the function raised, else 0; empty for none.
            measure: a function from the answer to outcomes, by metric.
            rescue: answer with the default's model where the variant's model raises.

        Raises:
            ConfigError: at decoration, where `default` has no model.
            TypeError: at decoration, where the function has no such argument.
        """
        from abkit.client.exposing import Route  # noqa: PLC0415 - brings inspect

        if default not in models:
            raise ConfigError(
                f"route {experiment!r}: the default {default!r} has no model; there are models "
                f"for {', '.join(map(repr, models)) or 'no variant'}"
            )
        return Route(
            self,
            experiment,
            unit=unit,
            models=models,
            default=default,
            attributes=attributes,
            recording=Recording(latency, error, measure),
            rescue=rescue,
        )

    def shadow(
        self,
        assignment: Assignment,
        answer: Callable[..., Any],
        *args: Any,
        measure: Measure | None = None,
        latency: str = "",
        error: str = "",
        **kwargs: Any,
    ) -> bool:
        """Let the assignment's shadow variant answer too, off the request's path.

        `answer(*args, **kwargs)` runs in a bounded pool of threads, or as a task of the running
        event loop where it is a coroutine function; its outcomes are recorded for the shadow
        variant, and nothing else comes of it. The arguments must not change meanwhile.

        Args:
            assignment: what `assign` returned.
            answer: the shadow's model.
            *args: its arguments.
            measure: a function from the answer to outcomes, by metric.
            latency: metric for the duration in milliseconds; empty for none.
            error: metric for 1 where the model raised, else 0; empty for none.
            **kwargs: its arguments by name.

        Returns:
            True if it will answer. False, with the reason counted in `health`, where there is
            no shadow ("no_shadow") or no room ("shadow_queue_full").
        """
        return self._in_the_dark(
            assignment, Recording(latency, error, measure), answer, args, kwargs
        )

    def _in_the_dark(
        self, assignment: Assignment, recording: Recording, work: Any, *given: Any
    ) -> bool:
        try:
            if not assignment.shadow:
                return self.rejected.add("no_shadow")
            if self._shadows is None:
                from abkit.client.shadow import Shadows  # noqa: PLC0415 - shadow stages only

                workers, queue_size = self._shadow_size
                made = Shadows(self, workers=workers, queue_size=queue_size)
                self._shadows = self._once("shadows", made)
            return self._shadows.answer(assignment, recording, work, *given)
        except Exception:  # noqa: BLE001 - R1
            return self.rejected.add("shadow_error")

    def record(  # noqa: PLR0911 - one return a reason
        self,
        unit_id: str | int | Assignment,
        metric: str,
        value: float,
        *,
        experiment: str = "",
        variant: str = "",
    ) -> bool:
        """Log one measured value of a unit.

        Args:
            unit_id: the unit that was assigned: the outcome counts in every experiment that it
                is in. Or its assignment: then it counts in that experiment alone, for the
                variant which was served, also where a shadow answers besides it.
            metric: key of the metric.
            value: a finite number, in the metric's unit of measure.
            experiment: the one experiment in which it counts; empty for all of the unit's.
            variant: with `experiment`, the variant whose answer was measured, where several
                answered the unit.

        Returns:
            True if the event was accepted; False, with the reason counted in `health`.
        """
        try:
            if type(unit_id) is Assignment:
                if not unit_id.arm.in_experiment:
                    return self.rejected.add("not_in_experiment")
                owner = whose(unit_id, unit_id.variant)
                return self.record(unit_id.unit_id, metric, value, **owner)
            text = unit_text(unit_id)
            if text is None:
                return self.rejected.add("invalid_unit")
            if not _is_name(metric):
                return self.rejected.add("invalid_metric")
            number = outcome_value(value)
            if number is None:
                return self.rejected.add("invalid_value")
            if variant and not experiment:
                return self.rejected.add("variant_without_experiment")
            if experiment and not (_is_name(experiment) and (not variant or _is_name(variant))):
                return self.rejected.add("invalid_variant")
            # Outcome.to_record() without the Outcome, for the same reason.
            event = (OUTCOME, self._clock(), text, metric, number, experiment, variant)
            return self.sink.append(event, experiment, variant)
        except Exception:  # noqa: BLE001 - R1
            return self.rejected.add("record_error")

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Hand everything accepted so far to the system; True when that is done."""
        return self.sink.flush(timeout_seconds)

    def close(self) -> None:
        """Wait for shadow answers under way, flush, and seal the log segment."""
        if self._shadows is not None and not self._shadows.drain(CLOSE_SECONDS):
            self.rejected.add("shadow_unfinished")
        self.sink.close()

    async def aclose(self) -> None:
        """The same inside an event loop: waits for shadow answers that are tasks of it, too."""
        if self._shadows is not None:
            await self._shadows.drain_tasks(CLOSE_SECONDS)
        self.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def health(self) -> ClientHealth:
        """What this process knows of its configuration and its events."""
        return ClientHealth(self._source.health(), self.sink.counts, dict(self.rejected.counts))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME_PATTERN.match(value) is not None


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Configuration and events of one process.

    Args:
        snapshot: version, age and errors of the configuration; None without a workspace.
        events: accepted, written and dropped events of this process.
        rejected: calls that could not become an event, by reason.
    """

    snapshot: SourceHealth | None
    events: WriterCounts
    rejected: dict[str, int]
