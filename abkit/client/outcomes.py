"""What comes of one answer: its duration, whether it failed, and what is measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from abkit.assignment import Assignment
    from abkit.client import Client

    Measure = Callable[[Any], Mapping[str, float]]

MILLISECONDS = 1_000.0


def whose(assignment: Assignment, variant: str) -> dict[str, str]:
    """Whose outcome it is: of this experiment, and of no other that the unit is in.

    Where a shadow answers too, both answers of a unit name their variant: they are a pair.
    """
    owner = {"experiment": assignment.experiment}
    return owner | {"variant": variant} if assignment.shadow else owner


@dataclass(frozen=True, slots=True)
class Recording:
    """Which outcomes of an answer are recorded, and how.

    Args:
        latency: metric for the duration in milliseconds; empty for none.
        error: metric for 1 where the model raised, else 0; empty for none.
        measure: a function from the answer to outcomes, by metric; None for none.
    """

    latency: str = ""
    error: str = ""
    measure: Measure | None = None

    def failed(self, client: Client, assignment: Assignment, variant: str, seconds: float) -> None:
        """Record an answer that did not come."""
        self._both(client, assignment, variant, seconds, 1.0)

    def answered(
        self, client: Client, assignment: Assignment, variant: str, seconds: float
    ) -> None:
        """Record an answer that came, without looking at it."""
        self._both(client, assignment, variant, seconds, 0.0)

    def measured(
        self, client: Client, assignment: Assignment, variant: str, answer: object
    ) -> None:
        """Record what is measured on an answer."""
        if self.measure is None or not assignment.in_experiment:
            return
        try:
            for metric, value in self.measure(answer).items():
                client.record(assignment.unit_id, metric, value, **whose(assignment, variant))
        except Exception:  # noqa: BLE001 - R1: the application's own function
            client.rejected.add("measure_error")

    def _both(
        self, client: Client, assignment: Assignment, variant: str, seconds: float, error: float
    ) -> None:
        if not assignment.in_experiment:  # nobody would compare it
            return
        owner = whose(assignment, variant)
        if self.latency:
            client.record(assignment.unit_id, self.latency, seconds * MILLISECONDS, **owner)
        if self.error:
            client.record(assignment.unit_id, self.error, error, **owner)
