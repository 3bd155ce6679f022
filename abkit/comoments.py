"""Joint sufficient statistics: what covariates, ratios and repeated measures need of one arm.

`Moments` is one column; `Comoments` several columns of the same units, with the products that say
how they move together. They merge by `+` as moments do, by the same pairwise formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from abkit.errors import DataError
from abkit.moments import Moments, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Comoments:
    """Count, means and centred cross products of several columns in one arm.

    Centred products keep their precision when a mean is large, where raw sums of products lose
    all of it. Both triangles of the matrix are kept, so that reading it needs no care.

    Args:
        names: the columns, without repetition.
        n: number of units, >= 0; each has a value in every column.
        means: arithmetic mean of each column, in its unit; zeros when n is 0.
        products: matrix of the sums of products of deviations from the means, symmetric; entry
            (i, j) is in the unit of column i times that of column j, and (i, i) is `m2`.

    Raises:
        DataError: shapes do not fit, a name is repeated, or a number is one that no sample has.

    Source: Chan, Golub, LeVeque (1983), eq. 1.5, for the merge; Pebay (2008) for
    products of two columns.

    Examples:
        >>> whole = Comoments.of({"spend": [1.0, 2.0, 6.0], "before": [0.0, 1.0, 5.0]})
        >>> whole.covariance("spend", "before")
        7.0
        >>> whole.moments("spend") == Moments.of([1.0, 2.0, 6.0])
        True
        >>> first = Comoments.of({"spend": [1.0, 2.0], "before": [0.0, 1.0]})
        >>> first + Comoments.of({"spend": [6.0], "before": [5.0]}) == whole
        True
    """

    names: tuple[str, ...]
    n: int
    means: tuple[float, ...]
    products: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Reject what no sample can have."""
        k = len(self.names)
        if len(set(self.names)) != k:
            raise DataError(f"a column is named twice: {self.names}")
        if len(self.means) != k or [len(row) for row in self.products] != [k] * k:
            raise DataError(f"{k} columns need {k} means and {k} x {k} products")
        object.__setattr__(self, "n", whole("n", self.n))
        if not all(map(math.isfinite, [*self.means, *(x for row in self.products for x in row)])):
            raise DataError(f"moments of {self.names} must be finite; drop or fill missing values")
        for i in range(k):
            if self.products[i][i] < 0:
                raise DataError(f"m2 of {self.names[i]} is negative: {self.products[i][i]}")
            if any(self.products[i][j] != self.products[j][i] for j in range(i)):
                raise DataError(f"products of {self.names[i]} are not symmetric")

    @classmethod
    def empty(cls, names: Iterable[str]) -> Self:
        """Comoments before the first unit: the neutral element of `+`."""
        names = tuple(names)
        k = len(names)
        return cls(names, 0, (0.0,) * k, ((0.0,) * k,) * k)

    @classmethod
    def of(cls, columns: Mapping[str, Iterable[float]]) -> Self:
        """Comoments of a small sample held in memory (two passes, correctly rounded sums).

        Args:
            columns: values of each column by name, the same units in the same order.

        Raises:
            DataError: columns differ in length, or a value is missing, infinite or too large.
        """
        names = tuple(columns)
        data = [[float(value) for value in columns[name]] for name in names]
        if len({len(column) for column in data}) > 1:
            raise DataError(f"columns differ in length: {dict(zip(names, map(len, data)))}")  # noqa: B905 - they match
        if not data or not data[0]:
            return cls.empty(names)
        for name, column in zip(names, data, strict=True):
            if not all(map(math.isfinite, column)):
                raise DataError(f"{name} has missing or infinite values; drop or fill them")
        n = len(data[0])
        try:
            means = tuple(math.fsum(column) / n for column in data)
            deviations = [[x - m for x in c] for c, m in zip(data, means, strict=True)]
            products = tuple(
                tuple(math.fsum(map(float.__mul__, a, b)) for b in deviations) for a in deviations
            )
        except OverflowError:
            raise DataError(f"values of {names} are too large for their squares") from None
        return cls(names, n, means, products)

    def index(self, name: str) -> int:
        """Position of a column.

        Raises:
            DataError: there is no such column.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(f"no column {name!r} among {self.names}") from None

    def moments(self, name: str) -> Moments:
        """Moments of one column."""
        i = self.index(name)
        return Moments(self.n, self.means[i], self.products[i][i])

    def covariance(self, one: str, other: str) -> float:
        """Sample covariance (ddof = 1) of two columns; 0.0 for fewer than two units."""
        product = self.products[self.index(one)][self.index(other)]
        return product / (self.n - 1) if self.n > 1 else 0.0

    def combined(self, weights: Mapping[str, float], constant: float = 0.0) -> Moments:
        """Moments of a weighted sum of columns, as if it had been a column itself.

        Args:
            weights: factor of each column; columns that are not named count nothing.
            constant: added to every unit's sum.

        Returns:
            Moments in the unit of the sum. Values too large for a float give a DataError.

        Examples:
            >>> both = Comoments.of({"a": [1.0, 2.0, 6.0], "b": [1.0, 1.0, 4.0]})
            >>> both.combined({"a": 1.0, "b": -1.0}) == Moments.of([0.0, 1.0, 2.0])
            True
        """
        chosen = [(self.index(name), weight) for name, weight in weights.items()]
        mean = constant + total_of(weight * self.means[i] for i, weight in chosen)
        m2 = total_of(a * b * self.products[i][j] for i, a in chosen for j, b in chosen)
        return Moments(self.n, mean if self.n else 0.0, max(0.0, m2))  # rounding can go below 0

    def __add__(self, other: Comoments) -> Comoments:
        """Comoments of both samples together; the columns must be the same, in the same order."""
        if not isinstance(other, Comoments):
            return NotImplemented
        if self.names != other.names:
            raise DataError(f"cannot merge columns {self.names} with {other.names}")
        if other.n == 0:
            return self
        if self.n == 0:
            return other
        n = self.n + other.n
        deltas = [theirs - ours for ours, theirs in zip(self.means, other.means, strict=True)]
        weight = self.n * other.n / n
        means = tuple(
            mean + delta * (other.n / n) for mean, delta in zip(self.means, deltas, strict=True)
        )
        products = tuple(
            tuple(
                ours + theirs + left * right * weight
                for ours, theirs, right in zip(row, others, deltas, strict=True)
            )
            for row, others, left in zip(self.products, other.products, deltas, strict=True)
        )
        return Comoments(self.names, n, means, products)


def total_of(values: Iterable[float]) -> float:
    """Correctly rounded sum; infinite where it does not fit into a float.

    Examples:
        >>> total_of([1e308, 1e308, -1e308])
        inf
        >>> total_of([0.1] * 10)
        1.0
    """
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.inf
