"""What a plan needs to know of one unit: how its metric spreads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.errors import DesignError
from abkit.stats.ratio import linearised

if TYPE_CHECKING:
    from abkit.comoments import Comoments
    from abkit.moments import Moments


@dataclass(frozen=True, slots=True)
class MeanModel:
    """One unit's value: its mean and how far it spreads.

    Args:
        sd: standard deviation in control, > 0, in the metric's unit.
        mean: of control, for lifts; None where no lift is asked for.
        sd_treatment: standard deviation in treatment; the same as in control where None.
        variance_reduction: share that covariates explain, in [0, 1): `variance_reduction` of a
            past estimate with the same covariates.

    Raises:
        DesignError: a field is out of range.

    Examples:
        >>> MeanModel(sd=2.0).standard_errors(50, 50, 0.0)
        (0.4, 0.4)
    """

    sd: float
    mean: float | None = None
    sd_treatment: float | None = None
    variance_reduction: float = 0.0

    def __post_init__(self) -> None:
        """Reject what no metric can have."""
        for sd in (self.sd, self.sd_treatment):
            if sd is None:
                continue
            if not (math.isfinite(sd) and sd > 0):
                raise DesignError(f"a standard deviation must be finite and > 0, got {sd}")
            if not 1e-150 < sd < 1e150:
                raise DesignError(f"a float cannot hold the square of {sd}; rescale the metric")
        if self.mean is not None and not math.isfinite(self.mean):
            raise DesignError(f"mean must be finite, got {self.mean}")
        _check_reduction(self.variance_reduction)

    @classmethod
    def of(cls, moments: Moments, variance_reduction: float = 0.0) -> MeanModel:
        """The model that historical data suggests."""
        return cls(math.sqrt(moments.variance), moments.mean, None, variance_reduction)

    @classmethod
    def of_ratio(
        cls, arm: Comoments, numerator: str, denominator: str, variance_reduction: float = 0.0
    ) -> MeanModel:
        """The model of a ratio of sums, from historical data with one row a unit.

        Raises:
            DesignError: the denominator sums to zero, or there is no variance.
        """
        line = linearised(arm, [(numerator, denominator)])
        if line is None:
            raise DesignError(f"{denominator} sums to zero: the ratio has no variance to plan with")
        return cls.of(line.moments(line.names[0]), variance_reduction)

    @property
    def base(self) -> float | None:
        """What lifts are relative to."""
        return self.mean

    def standard_errors(
        self, n_control: float, n_treatment: float, difference: float
    ) -> tuple[float, float]:
        """Standard error of the difference (under the null, under the alternative)."""
        del difference
        kept = 1 - self.variance_reduction
        other = self.sd if self.sd_treatment is None else self.sd_treatment
        spread = math.sqrt(kept * (self.sd**2 / n_control + other**2 / n_treatment))
        return spread, spread

    def degrees_of_freedom(self, n_control: float, n_treatment: float) -> float:
        """Of Welch's t; those of the pooled t where the spreads are the same."""
        if self.sd_treatment is None or self.sd_treatment == self.sd:
            return n_control + n_treatment - 2
        a, b = self.sd**2 / n_control, self.sd_treatment**2 / n_treatment
        return (a + b) ** 2 / (a**2 / (n_control - 1) + b**2 / (n_treatment - 1))

    def largest(self, sign: float) -> float:
        """Size of the largest difference in a direction."""
        del sign
        return math.inf


@dataclass(frozen=True, slots=True)
class ProportionModel:
    """One unit's chance of a success.

    Args:
        rate: in control, in (0, 1).
        variance_reduction: share that covariates explain, in [0, 1).

    Raises:
        DesignError: a field is out of range.

    Examples:
        >>> ProportionModel(0.5).standard_errors(50, 50, 0.0)
        (0.1, 0.1)
    """

    rate: float
    variance_reduction: float = 0.0

    def __post_init__(self) -> None:
        """Reject what no proportion can be."""
        if not 0 < self.rate < 1:
            raise DesignError(f"rate must lie in (0, 1), got {self.rate}; 0.05 means 5 %")
        _check_reduction(self.variance_reduction)

    @property
    def base(self) -> float:
        """What lifts are relative to."""
        return self.rate

    def standard_errors(
        self, n_control: float, n_treatment: float, difference: float
    ) -> tuple[float, float]:
        """Standard error of the difference: pooled under the null, not under the alternative."""
        kept = 1 - self.variance_reduction
        other = min(1.0, max(0.0, self.rate + difference))
        pooled = (self.rate * n_control + other * n_treatment) / (n_control + n_treatment)
        null = kept * pooled * (1 - pooled) * (1 / n_control + 1 / n_treatment)
        alternative = kept * (
            self.rate * (1 - self.rate) / n_control + other * (1 - other) / n_treatment
        )
        return math.sqrt(max(0.0, null)), math.sqrt(alternative)

    def degrees_of_freedom(self, n_control: float, n_treatment: float) -> float:
        """Infinite: the z test."""
        del n_control, n_treatment
        return math.inf

    def largest(self, sign: float) -> float:
        """Size of the largest difference in a direction."""
        return 1 - self.rate if sign > 0 else self.rate


Model = MeanModel | ProportionModel


def _check_reduction(share: float) -> None:
    if not (math.isfinite(share) and share < 1):
        raise DesignError(f"variance_reduction must be finite and < 1, got {share}; .3 is 30 %")
