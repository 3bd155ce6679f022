"""What group sequential designs take and give: statistics, futility rules, looks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from abkit.errors import DesignError
from abkit.sequential.design import Look
from abkit.sequential.spending import OBRIEN_FLEMING, Spending

Clock = Literal["contrast_variance", "inverse_variance", "effective_units", "information"]
ClockStatus = Literal["ok", "stalled", "exhausted", "no_information", "undefined"]

CLOCKS: Final = ("contrast_variance", "inverse_variance", "effective_units", "information")


@dataclass(frozen=True, slots=True)
class Statistic:
    """A standardised statistic and how much is known by now.

    Args:
        z: about standard normal under no effect; positive favours treatment.
        information: clock: cumulative, >= 0, in the unit of the design's planned information.
        standard_error: of the difference that z is about, > 0, in the metric's unit; without one
            estimates are in units of z / sqrt(information).

    Examples:
        >>> Statistic(1.5, 200.0).standard_error is None
        True
    """

    z: float
    information: float
    standard_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Futility:
    """When to stop because the planned effect is out of reach.

    Args:
        effect: planned effect, > 0, in units of z / sqrt(information): at information I the
            mean of z is `effect * sqrt(I)` in the direction of the alternative.
        beta: probability of a false stop under that effect, over all looks, in (0, 1).
        spending: how beta is spent; O'Brien-Fleming type by default.
        binding: True makes stopping a promise and lowers the efficacy boundaries in return; False
            lets people overrule it.
    """

    effect: float
    beta: float = 0.2
    spending: Spending = OBRIEN_FLEMING
    binding: bool = False

    def __post_init__(self) -> None:
        """Reject what cannot be planned for."""
        if not (math.isfinite(self.effect) and self.effect > 0):
            raise DesignError(f"effect must be finite and > 0, got {self.effect}; it is a size")
        if not 0 < self.beta < 1:
            raise DesignError(f"beta must lie in (0, 1), got {self.beta}; 0.2 means 20 %")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLook(Look):
    """What one look of a group sequential test says.

    `statistic` is z as it was given; `boundary` and `futility_boundary` are for z in the direction
    of the alternative (its absolute value if two-sided). `interval` is the repeated confidence
    interval: it holds at all looks together, whether one stops or not, and is unbounded where the
    look is not tested. `estimate` is the plain one, which a test that stopped early overstates:
    see `abkit.sequential.group_inference`. `alpha_spent` counts both tails.

    Args:
        clock: what the information is.
        clock_status: "ok": tested; else not tested, and nothing spent: "stalled" (information did
            not grow), "exhausted" (all of alpha was spent before), "no_information" or
            "undefined" (a value is no number).
        number: 1 for the first look, whether it was tested or not.
        futility_boundary: stop for futility below this; None without futility.
        beta_spent: probability of a false futility stop so far; 0.0 without futility.
        stopped_at: number of the look that stopped; None while going on.
        standard_error: of `estimate`, in its unit; None where it is unusable.
    """

    clock: Clock = "information"
    clock_status: ClockStatus = "ok"
    number: int = 1
    futility_boundary: float | None = None
    beta_spent: float = 0.0
    stopped_at: int | None = None
    standard_error: float | None = None

    @property
    def z(self) -> float:
        """The statistic; 0.0 where there is none."""
        return self.statistic or 0.0

    @property
    def limit(self) -> float:
        """The efficacy boundary; infinite where there is none."""
        return math.inf if self.boundary is None else self.boundary
