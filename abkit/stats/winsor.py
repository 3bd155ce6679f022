"""Winsorising: a rule, fixed beforehand, that caps the few values which carry all the variance.

A cap that is chosen after looking at the effect can produce any effect. So the rule is a record
that is made first, from a constant, from the time before the experiment or from control alone, and
then applied to every arm alike. The estimate is then one of the capped metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from abkit.errors import ConfigError, DataError, InsufficientDataError
from abkit.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Origin = Literal["constant", "pre-period", "control"]


@dataclass(frozen=True, slots=True)
class WinsorRule:
    """Caps of a metric.

    Args:
        lower: values below become this; -inf for no cap.
        upper: values above become this; +inf for no cap.
        origin: where the caps come from. A constant or the pre-period leaves every guarantee as it
            was; control's own quantile is a small dependence that vanishes as it grows.

    Raises:
        ConfigError: the caps are NaN or in the wrong order.

    Examples:
        >>> rule = WinsorRule(upper=100.0)
        >>> rule.apply([1.0, 50.0, 9_000.0]).tolist()
        [1.0, 50.0, 100.0]
        >>> rule.share_capped([1.0, 50.0, 9_000.0, 2.0])
        0.25
    """

    lower: float = -math.inf
    upper: float = math.inf
    origin: Origin = "constant"

    def __post_init__(self) -> None:
        """Reject caps that leave nothing."""
        if not self.lower <= self.upper:
            raise ConfigError(f"need lower <= upper, got {self.lower} and {self.upper}")

    @classmethod
    def from_quantiles(
        cls,
        values: ArrayLike,
        *,
        upper: float | None = 0.999,
        lower: float | None = None,
        origin: Literal["pre-period", "control"],
    ) -> Self:
        """Caps at quantiles of the values of the pre-period, or of control.

        Args:
            values: finite; not those of treatment.
            upper: quantile of the upper cap, in (0, 1); None for none.
            lower: quantile of the lower cap, in (0, 1); None for none.
            origin: which values these are.

        Returns:
            The rule; its caps are values that were seen (no interpolation).

        Raises:
            ConfigError: a quantile is outside of (0, 1), or origin is "constant".
            DataError: a value is missing or infinite.
            InsufficientDataError: there are no values.
        """
        if origin not in ("pre-period", "control"):
            raise ConfigError(f"quantiles come from 'pre-period' or 'control', got {origin!r}")
        data = np.asarray(values, dtype=float)
        if not np.all(np.isfinite(data)):
            raise DataError("values must be finite; drop or fill missing ones before")
        if data.size == 0:
            raise InsufficientDataError("no values to take quantiles of")
        caps = []
        for quantile, absent in ((lower, -math.inf), (upper, math.inf)):
            if quantile is None:
                caps.append(absent)
                continue
            if not 0 < quantile < 1:
                raise ConfigError(f"a quantile must lie in (0, 1), got {quantile}; 0.99, not 99")
            caps.append(float(np.quantile(data, quantile, method="inverted_cdf")))
        return cls(caps[0], caps[1], origin)

    def apply(self, values: ArrayLike) -> NDArray[np.float64]:
        """The values with the caps applied; missing ones stay missing."""
        capped: NDArray[np.float64] = np.clip(np.asarray(values, float), self.lower, self.upper)
        return capped

    def moments(self, values: ArrayLike) -> Moments:
        """Moments of the capped values of one arm.

        Raises:
            DataError: a value is missing.
        """
        return Moments.of(self.apply(values).tolist())

    def share_capped(self, values: ArrayLike) -> float:
        """Share of the values that the caps change, in [0, 1]; 0.0 for none.

        Very different shares in two arms mean that the cap removes the effect.
        """
        data = np.asarray(values, dtype=float)
        if data.size == 0:
            return 0.0
        return float(np.count_nonzero((data < self.lower) | (data > self.upper)) / data.size)
