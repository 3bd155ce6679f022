"""Sufficient statistics: what crosses the border between a store and the statistics.

`store` returns these, `stats` and `sequential` take them, and neither knows the other. They
merge by `+`, so a rollup by time bucket, writer or partition adds up to the batch result.
Counts are Python ints, which do not overflow in products (int64 does at 290,000 units).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from abkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable


def whole(name: str, count: int) -> int:
    """A count as a Python int, whatever integer type it came as.

    Args:
        name: what is counted, for the error.
        count: a whole number >= 0; a numpy integer would overflow in products.

    Raises:
        DataError: it is negative or not whole.

    Examples:
        >>> import numpy as np
        >>> whole("n", np.int64(3_000_000)) ** 3
        27000000000000000000
    """
    try:
        found = operator.index(count)
    except TypeError:
        if isinstance(count, str):
            raise
        fraction = float(count)
        if not fraction.is_integer():
            msg = f"{name} must be a whole number, got {count}"
            raise DataError(msg) from None
        found = int(fraction)
    if found < 0:
        msg = f"a count cannot be negative: {name}={found}"
        raise DataError(msg)
    return found


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and centred second moment of one metric in one arm.

    Centred moments keep their precision when the mean is large: raw sums of squares lose all
    of it at a mean of 1.7e9 with a variance of 1.

    Args:
        n: number of units, >= 0.
        mean: arithmetic mean, in the metric's unit; 0.0 when n is 0.
        m2: sum of squared deviations from the mean, in the metric's unit squared, >= 0.

    Source: Chan, Golub, LeVeque (1983), eq. 1.5, for the merge.

    Examples:
        >>> Moments.of([1.0, 2.0, 3.0]).variance
        1.0
        >>> Moments.of([1.0, 2.0]) + Moments.of([3.0]) == Moments.of([1.0, 2.0, 3.0])
        True
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def __post_init__(self) -> None:
        """Reject what no sample can have; numbers of other libraries become Python's own."""
        if type(self.n) is not int or self.n < 0:
            object.__setattr__(self, "n", whole("n", self.n))
        if type(self.mean) is not float or type(self.m2) is not float:
            object.__setattr__(self, "mean", float(self.mean))
            object.__setattr__(self, "m2", float(self.m2))
        if not (math.isfinite(self.mean) and math.isfinite(self.m2)) or self.m2 < 0:
            msg = f"moments must be finite with m2 >= 0, got mean={self.mean}, m2={self.m2}"
            raise DataError(msg)

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Moments of a small sample held in memory (two passes, correctly rounded sums)."""
        data = [float(value) for value in values]
        if not data:
            return cls()
        try:
            mean = math.fsum(data) / len(data)
            return cls(len(data), mean, math.fsum((x - mean) ** 2 for x in data))
        except OverflowError:
            msg = f"values too large for their squares to be summed, up to {max(map(abs, data)):g}"
            raise DataError(msg) from None

    @classmethod
    def of_counts(cls, n: int, successes: int) -> Self:
        """Moments of `n` values of 0 or 1 of which `successes` are 1."""
        n, successes = whole("n", n), whole("successes", successes)
        if successes > n:
            msg = f"successes must lie in [0, n], got {successes} of {n}"
            raise DataError(msg)
        if n == 0:
            return cls()
        return cls(n, successes / n, successes * (n - successes) / n)

    @property
    def total(self) -> float:
        """Sum of the values, in the metric's unit."""
        return self.n * self.mean

    @property
    def successes(self) -> int:
        """Number of ones, for a metric of zeros and ones."""
        return round(self.n * self.mean)

    @property
    def variance(self) -> float:
        """Sample variance (ddof = 1); 0.0 for fewer than two units."""
        return self.m2 / (self.n - 1) if self.n > 1 else 0.0

    def __add__(self, other: Moments) -> Moments:
        """Moments of both samples together."""
        if not isinstance(other, Moments):
            return NotImplemented
        if other.n == 0:
            return self
        if self.n == 0:
            return other
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        m2 = self.m2 + other.m2 + delta * delta * (self.n * other.n / n)
        return Moments(n, mean, m2)


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """Agreement of two models on the same units, for shadow comparisons.

    Args:
        both: units on which both are right.
        only_control: right in control, wrong in treatment.
        only_treatment: wrong in control, right in treatment.
        neither: units on which both are wrong.
    """

    both: int = 0
    only_control: int = 0
    only_treatment: int = 0
    neither: int = 0

    def __post_init__(self) -> None:
        """Reject counts that no comparison can have."""
        for name in ("both", "only_control", "only_treatment", "neither"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.both + self.only_control + self.only_treatment + self.neither

    @property
    def discordant(self) -> int:
        """Pairs in which exactly one is right: all of the evidence there is."""
        return self.only_control + self.only_treatment


@dataclass(frozen=True, slots=True)
class Block:
    """Requests and events of both arms between two looks, in one allocation epoch.

    The realised share of treatment is `n_treatment / n`; the canary test conditions on it, so
    any ramp, any split and any drift of the base rate between blocks is allowed.

    Args:
        n_control: units at risk in control, >= 0.
        n_treatment: units at risk in treatment, >= 0.
        events_control: events among them in control.
        events_treatment: events among them in treatment.
        hour: clock hour since the rollout began, >= 0; restarts of the canary test use it.
    """

    n_control: int
    n_treatment: int
    events_control: int
    events_treatment: int
    hour: int = 0

    def __post_init__(self) -> None:
        """Reject counts that no block can have."""
        for name in ("n_control", "n_treatment", "events_control", "events_treatment", "hour"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
