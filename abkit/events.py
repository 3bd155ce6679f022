"""What serving code logs: exposures and outcomes, as frozen records.

The event log stores each as a JSON array whose first element names the kind. The writer's id
and sequence number, which the log adds, make the idempotency key of an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EXPOSURE = "e"
OUTCOME = "o"
DECISION = "d"

Record = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """A unit really met a variant.

    Args:
        time: seconds since 1970 in UTC, stamped by the writer.
        experiment: key of the experiment.
        unit_id: what was randomised.
        variant: the variant that the unit met.
        epoch: allocation epoch under which it was assigned; grows when the allocation changes.
    """

    time: float
    experiment: str
    unit_id: str
    variant: str
    epoch: int

    def to_record(self) -> Record:
        """The form in the log."""
        return (EXPOSURE, self.time, self.experiment, self.unit_id, self.variant, self.epoch)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measured value of a unit.

    Args:
        time: seconds since 1970 in UTC, stamped by the writer.
        unit_id: the unit it belongs to.
        metric: key of the metric.
        value: finite number, in the metric's unit of measure.
        experiment: the one experiment in which it counts; empty for all that the unit is in.
        variant: the variant whose answer was measured when several answered the same unit
            (shadow); empty for the variant that the unit was exposed to.
    """

    time: float
    unit_id: str
    metric: str
    value: float
    experiment: str = ""
    variant: str = ""

    def to_record(self) -> Record:
        """The form in the log."""
        return (
            OUTCOME,
            self.time,
            self.unit_id,
            self.metric,
            self.value,
            self.experiment,
            self.variant,
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """A controller took a decision; the record says all that is needed to take it again.

    Args:
        time: seconds since 1970 in UTC.
        rollout: key of the rollout.
        look: number of the look, from 1.
        record: the decision record, as JSON text.
    """

    time: float
    rollout: str
    look: int
    record: str

    def to_record(self) -> Record:
        """The form in the log."""
        return (DECISION, self.time, self.rollout, self.look, self.record)
