"""A look with the moment and the units it saw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from abkit.records import counted

if TYPE_CHECKING:
    from abkit.sequential.design import Look

_NUMBERS = (
    "information",
    "fraction",
    "estimate",
    "statistic",
    "boundary",
    "e_value",
    "p_value",
    "alpha_spent",
)


@dataclass(frozen=True, slots=True)
class TimedLook:
    """One look at one comparison.

    Args:
        number: 1 for the first look.
        time: until when rows were seen, in UTC or in the unit of the time's column; None where
            the table has no time.
        n_control: units of control seen by then.
        n_treatment: units of treatment seen by then.
        look: what the design says.
    """

    number: int
    time: datetime | float | None
    n_control: int
    n_treatment: int
    look: Look

    @property
    def moment(self) -> str | float | None:
        """The time as JSON has it."""
        return self.time.isoformat() if isinstance(self.time, datetime) else self.time

    @property
    def words(self) -> str:
        """Which look this is, for reading.

        Examples:
            >>> from abkit.sequential.calibrated import AlwaysValid
            >>> from abkit.sequential.design import Contrast
            >>> look = AlwaysValid(planned_units=100).look(Contrast(1.0, 2.0, 3.0))
            >>> TimedLook(3, datetime(2026, 3, 1, 12), 600, 612, look).words
            'look 3 (2026-03-01 12:00, 1,212 units)'
        """
        units = counted(self.n_control + self.n_treatment, "unit")
        return f"look {self.number} ({', '.join(filter(None, (self.when, units)))})"

    @property
    def when(self) -> str:
        """The time for reading; empty where there is none."""
        if isinstance(self.time, datetime):
            return f"{self.time:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
        return "" if self.time is None else f"time {self.time:,.10g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is infinite is None."""
        look = self.look
        ends: list[float | None] = [None, None]
        if look.interval is not None:
            ends = [_finite(look.interval.lower), _finite(look.interval.upper)]
        return {
            "look": self.number,
            "time": self.moment,
            "n_control": self.n_control,
            "n_treatment": self.n_treatment,
            "status": look.status,
            "decision": look.decision,
            "scale": look.scale,
            **{name: _finite(getattr(look, name)) for name in _NUMBERS},
            "interval": ends,
            "notes": list(look.notes),
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
