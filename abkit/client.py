"""The client: the only object that serving code holds.

::

    ab = abkit.Client("workspace")
    a = ab.assign("ranker", user_id)
    score = models[a.variant](request)
    ab.expose(a)
    ab.record(user_id, "converted", 1.0)

No call raises after construction, none opens a network connection or takes a lock that another
process can hold, and the standard library is all it needs.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from abkit.assignment import DEFAULT_CONTROL, Assignment, compile_experiment, fallback, unit_text
from abkit.events import Exposure, Outcome, Record
from abkit.log import SegmentWriter, WriterCounts
from abkit.metrics import NAME_PATTERN, outcome_value
from abkit.snapshot import POLL_SECONDS, SnapshotSource, by_key
from abkit.workspace import Workspace

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from abkit.experiment import Experiment
    from abkit.log import Durability
    from abkit.snapshot import SourceHealth

    Table = Mapping[str, Callable[[object], Assignment]]

MEMORY_EVENTS = 100_000


class Sink(Protocol):
    """Where events go: a segment writer in production, a list in tests."""

    def append(self, record: Record, experiment: str = "", variant: str = "") -> bool:
        """Take one event; False if it was dropped. Never raises."""

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Hand everything taken so far to the system."""

    def close(self) -> None:
        """Flush and stop."""

    @property
    def counts(self) -> WriterCounts:
        """What became of the events."""


class MemorySink:
    """Keeps events in memory, for tests and notebooks.

    Args:
        limit: events kept; later ones are dropped and counted.
    """

    def __init__(self, limit: int = MEMORY_EVENTS) -> None:
        """Begin empty."""
        self.records: deque[Record] = deque()
        self._limit = limit
        self._dropped: dict[tuple[str, str, str], int] = {}

    def append(self, record: Record, experiment: str = "", variant: str = "") -> bool:
        """Keep one event, or count it as dropped."""
        if len(self.records) >= self._limit:
            key = (experiment, variant, "queue_full")
            self._dropped[key] = self._dropped.get(key, 0) + 1
            return False
        self.records.append(record)
        return True

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Nothing to do."""
        del timeout_seconds
        return True

    def close(self) -> None:
        """Nothing to do."""

    @property
    def counts(self) -> WriterCounts:
        """What became of the events."""
        kept, dropped = len(self.records), dict(self._dropped)
        return WriterCounts("memory", kept + sum(dropped.values()), kept, dropped, 0, "")


@dataclass(slots=True)
class Rejections:
    """Calls that could not become an event, by reason.

    Args:
        counts: number of calls by reason, such as "invalid_value".
    """

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str) -> bool:
        """Count one; returns False for the caller to return."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        return False


class Client:
    """Assigns units and logs what happened to them.

    Args:
        workspace: the workspace folder; it may be empty or absent when serving starts.
        durability: "os" (default) writes each event to the page cache before returning, so it
            survives a killed process; "buffered" groups events for speed; "fsync" also
            survives loss of power, a second at most excepted.
        poll_seconds: how often the snapshot file is looked at, at most.
        clock: seconds since 1970 in UTC, stamped on events.
        monotonic: seconds that never jump, for the polling.
    """

    def __init__(
        self,
        workspace: str | os.PathLike[str],
        *,
        durability: Durability = "os",
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the snapshot if there is one; a bad one is counted in `health`."""
        paths = Workspace(workspace)
        source = SnapshotSource(
            paths.snapshot_path, poll_seconds=poll_seconds, clock=clock, monotonic=monotonic
        )
        self._start(
            source.table,
            SegmentWriter(paths.log_path, durability=durability, clock=clock, monotonic=monotonic),
            clock,
        )
        self._source: SnapshotSource | None = source

    @classmethod
    def from_experiments(
        cls,
        experiments: Iterable[Experiment],
        *,
        sink: Sink | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A client with fixed experiments and no files.

        Args:
            experiments: what to assign.
            sink: where events go; by default a `MemorySink`, which is `client.sink`.
            clock: seconds since 1970 in UTC, stamped on events.

        Raises:
            ConfigError: two of the experiments have the same key.
        """
        client = cls.__new__(cls)
        table = {key: compile_experiment(item) for key, item in by_key(experiments).items()}
        client._start(lambda: table, MemorySink() if sink is None else sink, clock)  # noqa: SLF001 - our own, in an alternative constructor
        client._source = None  # noqa: SLF001
        return client

    def _start(self, table: Callable[[], Table], sink: Sink, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self.sink = sink
        self.rejected = Rejections()

    def assign(
        self, experiment: str, unit_id: str | int, *, default: str = DEFAULT_CONTROL
    ) -> Assignment:
        """The variant of a unit, and why. Logs nothing; control whenever anything is amiss.

        Args:
            experiment: key of the experiment.
            unit_id: what is randomised: text or a whole number.
            default: the variant to serve when the experiment is not known here, as before the
                first snapshot: name the model that serves today.
        """
        try:
            assign = self._table().get(experiment)
            if assign is None:
                return fallback(experiment, unit_id, "unknown_experiment", default)
            return assign(unit_id)
        except Exception:  # noqa: BLE001 - R1: serving goes on with control
            self.rejected.add("assign_error")
            return fallback(experiment, unit_id, "error", default)

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
            event = Exposure(
                self._clock(), arm.experiment, assignment.unit_id, arm.variant, arm.epoch
            )
            return self.sink.append(event.to_record(), arm.experiment, arm.variant)
        except Exception:  # noqa: BLE001 - R1
            return self.rejected.add("expose_error")

    def record(  # noqa: PLR0911 - one return a reason
        self,
        unit_id: str | int,
        metric: str,
        value: float,
        *,
        experiment: str = "",
        variant: str = "",
    ) -> bool:
        """Log one measured value of a unit.

        Args:
            unit_id: the unit that was assigned.
            metric: key of the metric.
            value: a finite number, in the metric's unit of measure.
            experiment: with `variant`, for shadow answers: whose experiment this is.
            variant: the variant whose answer was measured, where several answered the unit.

        Returns:
            True if the event was accepted; False, with the reason counted in `health`.
        """
        try:
            text = unit_text(unit_id)
            if text is None:
                return self.rejected.add("invalid_unit")
            if not _is_name(metric):
                return self.rejected.add("invalid_metric")
            number = outcome_value(value)
            if number is None:
                return self.rejected.add("invalid_value")
            if bool(experiment) != bool(variant):
                return self.rejected.add("variant_without_experiment")
            if experiment and not (_is_name(experiment) and _is_name(variant)):
                return self.rejected.add("invalid_variant")
            event = Outcome(self._clock(), text, metric, number, experiment, variant)
            return self.sink.append(event.to_record(), experiment, variant)
        except Exception:  # noqa: BLE001 - R1
            return self.rejected.add("record_error")

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Hand everything accepted so far to the system; True when that is done."""
        return self.sink.flush(timeout_seconds)

    def close(self) -> None:
        """Flush, and seal the log segment."""
        self.sink.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def health(self) -> ClientHealth:
        """What this process knows of its configuration and its events."""
        source = None if self._source is None else self._source.health()
        return ClientHealth(source, self.sink.counts, dict(self.rejected.counts))


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
