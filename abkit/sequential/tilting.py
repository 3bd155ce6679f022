"""Tests by exponential tilting: how a mixture over log ratios becomes evidence and an interval.

Two exact tests share this machinery. In each block the treatment's count has, given the block's
totals, a distribution known under the null, and under a log ratio psi that distribution tilted by
`exp(psi count)`. The log likelihood of psi, relative to the null, is concave in psi and adds up
over blocks. The state keeps its value and its slope on a fixed grid of psi, so that a block costs
the same however many came before.

**Evidence.** E = sum of prior weights times likelihood ratios on the grid. Each ratio has mean 1
under the null, given the past, so E is a test martingale whatever the grid; the grid only decides
how close E comes to the integral over the continuous prior. One-sided nulls hold because the tilted
family has a monotone likelihood ratio.

**Interval.** Dividing by the likelihood of psi0 instead of the null's gives a test martingale for
psi0, so the psi0 with likelihood above alpha times the mixture form a confidence sequence for a log
ratio that is the same in all blocks. Between the grid points a concave function lies below the
tangents of both neighbours: the interval uses those and is therefore never too short.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from abkit.errors import DesignError
from abkit.estimate import Interval
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from abkit.estimate import Alternative

Array = NDArray[np.float64]

SMALLEST_SHIFT: Final = 1e-4  # smaller log ratios need ten billion events to be seen
LARGEST_SHIFT: Final = 6.0  # in standard deviations of the widest part of the prior
GRID_RATIO: Final = 1.25  # a true value between two points costs at most 1.3 % of the evidence


LARGEST_LOG: Final = 10.0  # a ratio of 22,000; the grid's exponentials stay ordinary numbers
DEFAULT_PARTS: Final = ((0.5, 0.5), (0.5, 1.0))


@dataclass(frozen=True, slots=True)
class TiltPrior:
    """Prior of a log ratio: half-normals around the null, on the side of the alternative.

    Args:
        null: log ratio on the border of the null, within 10 of 0; 0.0 is no difference.
        alternative: "greater" mixes over larger log ratios only, "less" over smaller ones.
        parts: pairs of weight and standard deviation, both > 0; the weights sum to 1.
        expected: distance from the null that matters most, > 0; three quarters of the weight then
            go to a normal around it with half of it as standard deviation. None: no such distance.

    Examples:
        >>> prior = TiltPrior(alternative="greater")
        >>> bool(prior.weights[prior.nodes < 0].any()), round(float(prior.weights.sum()), 12)
        (False, 1.0)
    """

    null: float = 0.0
    alternative: Alternative = "two-sided"
    parts: tuple[tuple[float, float], ...] = DEFAULT_PARTS
    expected: float | None = None

    def __post_init__(self) -> None:
        """Reject what no prior can be."""
        if self.expected is not None and not 0 < self.expected <= LARGEST_LOG:
            raise DesignError(
                f"expected must lie in (0, {LARGEST_LOG:g}], got {self.expected}: it is a size, "
                "and `alternative` says which way"
            )
        check_test(0.5, self.alternative)
        if not abs(self.null) <= LARGEST_LOG:
            raise DesignError(
                f"a log ratio under the null must be within {LARGEST_LOG:g} of 0, got {self.null}"
            )
        if not self.parts or any(
            not 0 < part <= LARGEST_LOG for pair in self.parts for part in pair
        ):
            raise DesignError(
                f"weights and deviations must lie in (0, {LARGEST_LOG:g}], got {self.parts}"
            )
        if abs(math.fsum(weight for weight, _ in self.parts) - 1) > 1e-9:
            raise DesignError(f"the prior's weights must sum to 1, got {self.parts}")

    @property
    def nodes(self) -> Array:
        """Log ratios of the grid, ascending, the null in the middle."""
        return _grid(self)[0]

    @property
    def weights(self) -> Array:
        """Prior weight of each node; they sum to 1, the null itself has none."""
        return _grid(self)[1]


@functools.lru_cache(maxsize=256)
def _grid(prior: TiltPrior) -> tuple[Array, Array]:
    """Trapezoidal quadrature in the logarithm of the distance from the null."""
    widest = max(sd for _, sd in prior.parts)
    if prior.expected is not None:
        widest = max(widest, prior.expected)
    step = math.log(GRID_RATIO)
    count = math.ceil(math.log(LARGEST_SHIFT * widest / SMALLEST_SHIFT) / step) + 1
    shifts = SMALLEST_SHIFT * np.exp(step * np.arange(count))
    half = np.zeros(count)
    for weight, sd in prior.parts:
        density = math.sqrt(2 / math.pi) / sd * np.exp(-0.5 * (shifts / sd) ** 2)
        half += weight * step * shifts * density
    if prior.expected is not None:
        bump = shifts * np.exp(-0.5 * ((shifts / prior.expected - 1) / 0.5) ** 2)
        half = 0.25 * half + 0.75 * bump / bump.sum()
    half[0] += 1 - half.sum()  # what lies below the smallest shift
    up, down = {"greater": (1.0, 0.0), "less": (0.0, 1.0)}.get(prior.alternative, (0.5, 0.5))
    nodes = prior.null + np.concatenate([-shifts[::-1], [0.0], shifts])
    weights = np.concatenate([down * half[::-1], [0.0], up * half])
    for array in (nodes, weights):
        array.flags.writeable = False
    return nodes, weights


def tilt_log_mixture(prior: TiltPrior, values: Array) -> float:
    """Log evidence of a log likelihood on the prior's grid.

    Args:
        prior: the prior.
        values: log likelihood ratio to the null at each node, shape (nodes,).

    Returns:
        Natural logarithm of the e-value; 0.0 before the first block.

    Examples:
        >>> prior = TiltPrior()
        >>> abs(tilt_log_mixture(prior, 0 * prior.nodes)) < 1e-12
        True
    """
    weights = prior.weights
    used = weights > 0
    largest = float(values[used].max())
    if not values.any():
        return 0.0
    return largest + math.log(float(weights[used] @ np.exp(values[used] - largest)))


def tilt_interval(
    prior: TiltPrior, values: Array, slopes: Array, *, alpha: float, alternative: Alternative
) -> Interval:
    """Confidence sequence of the log ratio, never shorter than the exact one.

    Args:
        prior: the prior.
        values: log likelihood ratio to the null at each node, concave in the nodes.
        slopes: its derivative at each node.
        alpha: error probability over all looks together, in (0, 1).
        alternative: "greater" leaves the upper end infinite, "less" the lower one.

    Returns:
        Interval of log ratios; ends that the data do not bound are infinite.

    Examples:
        >>> prior = TiltPrior()
        >>> tilt_interval(prior, 0 * prior.nodes, 0 * prior.nodes, alpha=0.05,
        ...               alternative="two-sided")
        Interval(lower=-inf, upper=inf)
    """
    level = tilt_log_mixture(prior, values) + math.log(alpha)
    lower = -math.inf if alternative == "less" else _left_end(prior.nodes, values, slopes, level)
    upper = math.inf
    if alternative != "greater":
        upper = -_left_end(-prior.nodes[::-1], values[::-1], -slopes[::-1], level)
    return Interval(lower, upper)


def _left_end(nodes: Array, values: Array, slopes: Array, level: float) -> float:
    """Smallest point at which the tangents of a concave function allow more than the level.

    Every tangent bounds the function from above everywhere, so each one that rises excludes all
    that lies left of its crossing: the end is the largest of those crossings.
    """
    rising = slopes > 1e-300
    if not rising.any():
        return -math.inf
    return float((nodes[rising] + (level - values[rising]) / slopes[rising]).max())
