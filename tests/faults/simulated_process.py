"""Processes of a simulation: what each was promised, and the thread that stands in for its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.log import SegmentWriter


@dataclass
class Process:
    """One process that logs, and what it was promised."""

    pid: int
    mode: str
    writer: SegmentWriter
    handles: dict[int, Any] = field(default_factory=dict)
    acknowledged: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    in_doubt: set[int] = field(default_factory=set)
    promised: set[int] = field(default_factory=set)  # on disk: survives loss of power
    written: set[int] = field(default_factory=set)  # in the page cache: survives a kill
    handed: int = 0
    excused: int = 0  # an fsync failed when this was the newest: no window is promised
    warned: int = 0  # the same for what `flush` has said
    operations_left: int = -1
    is_alive: bool = True
    has_met_power_cut: bool = False
    is_closed_well: bool = False


@dataclass
class Flusher:
    """Stands in for the thread: the schedule decides when it runs."""

    work: Callable[[], None]
    is_needed: Callable[[], bool]
    interval_seconds: float
    monotonic: Callable[[], float]
    parked: bool = True
    absent: bool = False
    due: float = float("inf")

    def wake(self) -> bool:
        if self.parked:
            self.parked, self.due = False, self.monotonic() + self.interval_seconds
        return True

    def run(self) -> None:
        self.work()
        self.parked, self.due = True, float("inf")
        if self.is_needed():
            self.wake()

    def stop(self, timeout_seconds: float) -> None:
        self.due = float("inf")


@dataclass
class Sums:
    """Events whose fate the promises settle."""

    accepted: int = 0
    stored: int = 0
    dropped: int = 0
    power_cuts: int = 0
    kills: int = 0


def record(pid: int, number: int) -> tuple[Any, ...]:
    """What a process appends as its n-th event; one in 17 is larger than a sector."""
    return ("e", pid, number, "x" * (900 if number % 17 == 0 else number % 40))
