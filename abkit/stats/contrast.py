"""Weighted sums of independent means: what strata, interactions and trends are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.comoments import total_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.moments import Moments


@dataclass(frozen=True, slots=True)
class Contrast:
    """A weighted sum of means.

    Args:
        value: the sum, in the metric's unit.
        standard_error: of the sum, same unit.
        degrees_of_freedom: Satterthwaite's, for Student's t; infinite without variance.
    """

    value: float
    standard_error: float
    degrees_of_freedom: float


def contrast(cells: Sequence[tuple[float, Moments]]) -> Contrast | None:
    """Weighted sum of the means of independent cells.

    Args:
        cells: weight and moments of each; a cell of weight 0 counts nothing.

    Returns:
        The contrast; None where a cell has fewer than two units. Numbers that do not fit into a
        float come out infinite.

    Source: Welch (1947); Satterthwaite (1946).

    Examples:
        >>> from abkit.moments import Moments
        >>> a, b = Moments.of([1.0, 2.0, 3.0]), Moments.of([2.0, 3.0, 4.0])
        >>> found = contrast([(1.0, b), (-1.0, a)])
        >>> found.value, round(found.standard_error, 6), round(found.degrees_of_freedom, 9)
        (1.0, 0.816497, 4.0)
    """
    used = [(weight, cell) for weight, cell in cells if weight != 0]
    if not used or min(cell.n for _, cell in used) < 2:
        return None
    # Each part is a distance, so that a square does not leave the floats before its root is taken.
    parts = [abs(weight) * math.sqrt(cell.variance / cell.n) for weight, cell in used]
    standard_error = math.hypot(*parts)
    value = total_of([weight * cell.mean for weight, cell in used])
    if not 0 < standard_error < math.inf:
        return Contrast(value, standard_error, math.inf)
    freedom = 1 / math.fsum(
        (part / standard_error) ** 4 / (cell.n - 1)
        for part, (_, cell) in zip(parts, used, strict=True)
    )
    return Contrast(value, standard_error, freedom)
