"""What one look sees of one experiment: sufficient statistics by epoch and variant.

A decision record carries its observation, so that the decision can be recomputed to the bit
from counts alone, long after the events are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from abkit.errors import DataError
from abkit.moments import Moments

ByVariant = Mapping[str, Moments]


@dataclass(frozen=True, slots=True)
class Paired:
    """Answers of both variants to the same units (shadow).

    Args:
        difference: moments of treatment minus control, one value a unit.
        control: moments of control's values over the same units.
        treatment: moments of treatment's values.
    """

    difference: Moments
    control: Moments
    treatment: Moments


@dataclass(frozen=True, slots=True)
class Observation:
    """Cumulative statistics at one moment.

    Args:
        time: seconds since 1970 in UTC.
        exposures: first exposures of units, by epoch and variant.
        values: moments of unit-level values, by metric, epoch and variant.
        pairs: shadow comparisons, by metric.
        returned: units met in the newest epoch with the variant that they count for, by the epoch
            and variant of their first exposure; None in records of before this was kept.
        live: units that met treatment in the newest epoch, whatever they had before.
        lives: the same of each further treatment; none in most rollouts.
    """

    time: float
    exposures: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    values: Mapping[str, Mapping[int, ByVariant]] = field(default_factory=dict)
    pairs: Mapping[str, Paired] = field(default_factory=dict)
    returned: Mapping[int, Mapping[str, int]] | None = None
    live: int | None = None
    lives: Mapping[str, int] = field(default_factory=dict)

    def strata(self, metric: str, control: str, treatment: str) -> list[tuple[Moments, Moments]]:
        """(control, treatment) of a metric by epoch, oldest first."""
        none = Moments()
        return [
            (cell.get(control, none), cell.get(treatment, none))
            for _, cell in sorted(self.values.get(metric, {}).items())
        ]

    def units(self, epoch: int, variant: str) -> int:
        """First exposures of a variant in an epoch."""
        return self.exposures.get(epoch, {}).get(variant, 0)

    @property
    def total_units(self) -> int:
        """First exposures of all variants in all epochs."""
        return sum(n for row in self.exposures.values() for n in row.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data; JSON keeps every bit of a float."""
        kept: dict[str, Any] = {}
        if self.returned is not None:
            kept["returned"] = _rows(self.returned)
        if self.live is not None:
            kept["live"] = self.live
        if self.lives:
            kept["lives"] = dict(sorted(self.lives.items()))
        return {
            "time": self.time,
            "exposures": _rows(self.exposures),
            "values": [
                [metric, epoch, variant, m.n, m.mean, m.m2]
                for metric, epochs in sorted(self.values.items())
                for epoch, row in sorted(epochs.items())
                for variant, m in sorted(row.items())
            ],
            "pairs": [
                [metric, *(x for m in _triple(pair) for x in (m.n, m.mean, m.m2))]
                for metric, pair in sorted(self.pairs.items())
            ],
            **kept,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """An observation from the plain data of `to_dict`.

        Raises:
            DataError: the data has another shape.
        """
        exposures: dict[int, dict[str, int]] = {}
        values: dict[str, dict[int, dict[str, Moments]]] = {}
        pairs: dict[str, Paired] = {}
        try:
            for epoch, variant, n in data["exposures"]:
                exposures.setdefault(epoch, {})[variant] = n
            returned: dict[int, dict[str, int]] | None = {} if "returned" in data else None
            for epoch, variant, n in data.get("returned", ()):
                if returned is not None:
                    returned.setdefault(epoch, {})[variant] = n
            for metric, epoch, variant, n, mean, m2 in data["values"]:
                cell = values.setdefault(metric, {}).setdefault(epoch, {})
                cell[variant] = Moments(n, mean, m2)
            for metric, *x in data["pairs"]:
                if len(x) != 9:
                    msg = f"a pair has three moments of three numbers, got {x!r}"
                    raise ValueError(msg)  # noqa: TRY301 - reported like any other wrong shape
                pairs[metric] = Paired(Moments(*x[0:3]), Moments(*x[3:6]), Moments(*x[6:9]))
            live, lives = data.get("live"), dict(data.get("lives", {}))
            return cls(float(data["time"]), exposures, values, pairs, returned, live, lives)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"not an observation: {error!r}"
            raise DataError(msg) from None


def _rows(counts: Mapping[int, Mapping[str, int]]) -> list[list[Any]]:
    return [
        [epoch, variant, n]
        for epoch, row in sorted(counts.items())
        for variant, n in sorted(row.items())
    ]


def _triple(pair: Paired) -> tuple[Moments, Moments, Moments]:
    return pair.difference, pair.control, pair.treatment
