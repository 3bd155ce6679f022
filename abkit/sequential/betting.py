"""Means of bounded values, exactly and from few units: a confidence sequence by betting.

For each candidate mean m a gambler bets that the next value lies above m, another that it lies
below. If m is the mean, nobody can expect to win, so a capital that has grown 2/alpha-fold rules m
out, at any look (Ville). The size of a bet may depend on all values before: it follows their
variance, so the interval is nearly as short as a normal one, but holds from the first unit on, for
any distribution on the range, skewed or not. Units must arrive one by one and have the same mean
given the past.

The capital of "above m" falls in m and that of "below m" rises, so the candidates that are left
form an interval; its ends are rounded outwards to the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from abkit.errors import DataError, DesignError
from abkit.estimate import Interval
from abkit.sequential.design import Look, evidence_look
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from abkit.estimate import Alternative
    from abkit.sequential.tilting import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class BettingMean:
    """A test and confidence sequence for the mean of values in a known range.

    For the difference of paired scores in [0, 1] use the range [-1, 1]; for the difference of two
    arms, the scores of `inverse_propensity_scores`.

    Args:
        null: mean under the null, inside the range, in the metric's unit.
        lower: smallest possible value.
        upper: largest possible value, > lower.
        alpha: error probability over all looks together, in (0, 1).
        alternative: "greater" bets on larger means only.
        grid: number of steps of the interval's grid, >= 10.
        truncation: largest share of the capital that a single bet may lose, in (0, 1).

    Source: Waudby-Smith, Ramdas (2024), theorem 3 (hedged capital) and eq. 26 (predictable
    plug-in bets).

    Examples:
        >>> design = BettingMean(null=0.5)
        >>> state = design.start().update([0.9, 0.8, 0.95, 1.0, 0.7] * 6)
        >>> look = design.look(state)
        >>> look.decision, round(look.interval.lower, 3), round(look.interval.upper, 3)
        ('reject', 0.686, 0.933)
    """

    null: float
    lower: float = 0.0
    upper: float = 1.0
    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    grid: int = 1_000
    truncation: float = 0.5

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        check_test(self.alpha, self.alternative)
        if not -math.inf < self.lower < self.upper < math.inf:
            raise DesignError(f"need a finite range, got [{self.lower}, {self.upper}]")
        if not self.lower < self.null < self.upper:
            raise DesignError(
                f"the null must lie inside ({self.lower}, {self.upper}), got {self.null}"
            )
        if self.grid < 10 or not 0 < self.truncation < 1:
            raise DesignError(
                f"need grid >= 10 and truncation in (0, 1), got {self.grid}, {self.truncation}"
            )

    def start(self) -> BettingState:
        """The state before the first unit."""
        nodes = np.append(np.arange(self.grid + 1.0) / self.grid, self.scaled(self.null))
        return BettingState(self, np.zeros((2, len(nodes))))

    def scaled(self, value: float) -> float:
        """Place of a value in the range, from 0 to 1."""
        return (value - self.lower) / (self.upper - self.lower)

    def look(self, data: BettingState, past: Sequence[Look] = ()) -> Look:
        """Evidence against the null and confidence sequence of the mean after some units.

        Args:
            data: the state after all units so far.
            past: earlier looks, oldest first; the last one's p-value and rejection stand.

        Returns:
            A look in the metric's unit; information is the number of units. Before the first unit:
            "insufficient_data", an e-value of 1 and the whole range. The interval wants 2/alpha of
            either capital and is rounded outwards, the two-sided test 1/alpha of their average: at
            the border the test can reject a null that the interval just covers.

        Raises:
            DesignError: the state belongs to another design.
        """
        return evidence_look(
            self,
            data,
            past,
            method="betting",
            information=float(data.n),
            estimate=data.mean,
            interval=data.interval,
        )


@dataclass(frozen=True, slots=True)
class BettingState:
    """Capital of every candidate mean after some units: what the next unit is added to.

    Args:
        design: what is asked.
        log_capital: logarithms of the capital of "above" and "below", by candidate; the last
            candidate is the null. Shape (2, grid + 2).
        n: units so far.
        total: sum of the values, scaled to [0, 1].
        squares: sum of squared deviations from the running mean, scaled.
    """

    design: BettingMean
    log_capital: Array = field(repr=False, compare=False)
    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def update(self, values: Iterable[float]) -> Self:
        """The state after some more units, in the order in which they came.

        Args:
            values: one value per unit, in the design's range.

        Raises:
            DataError: a value is outside of the range or NaN.
        """
        design = self.design
        candidates = np.append(
            np.arange(design.grid + 1.0) / design.grid, design.scaled(design.null)
        )
        with np.errstate(divide="ignore"):
            most_above = design.truncation / candidates
            most_below = design.truncation / (1 - candidates)
        two_sided = design.alternative == "two-sided"
        budget = 2 * math.log((2 if two_sided else 1) / design.alpha)
        capital = self.log_capital.copy()
        n, total, squares = self.n, self.total, self.squares
        for value in values:
            x = design.scaled(value)
            if not 0 <= x <= 1:
                raise DataError(
                    f"a value lies in [{design.lower}, {design.upper}], got {value}; "
                    "state the range of the metric"
                )
            variance = (0.25 + squares) / (n + 1)
            bet = math.sqrt(budget / (variance * (n + 1) * math.log(n + 2)))
            gains = x - candidates
            capital[0] += np.log1p(np.minimum(bet, most_above) * gains)
            capital[1] += np.log1p(-np.minimum(bet, most_below) * gains)
            n += 1
            total += x
            squares += (x - min(1.0, (0.5 + total) / (n + 1))) ** 2
        return replace(self, log_capital=capital, n=n, total=total, squares=squares)

    @property
    def mean(self) -> float | None:
        """Mean of the values, in the metric's unit; None before the first."""
        if not self.n:
            return None
        return self.design.lower + (self.design.upper - self.design.lower) * self.total / self.n

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the e-value against the null; 0.0 before the first unit."""
        above, below = float(self.log_capital[0, -1]), float(self.log_capital[1, -1])
        if self.design.alternative != "two-sided":
            return above if self.design.alternative == "greater" else below
        return float(np.logaddexp(above, below)) - math.log(2)

    @property
    def interval(self) -> Interval:
        """Confidence sequence of the mean, in the metric's unit; the whole range at the start."""
        design = self.design
        two_sided = design.alternative == "two-sided"
        wanted = math.log((2 if two_sided else 1) / design.alpha)
        above, below = self.log_capital[:, :-1]
        width = (design.upper - design.lower) / design.grid
        first, last = 0, design.grid
        if design.alternative != "less":
            first = max(0, int((above >= wanted).sum()) - 1)
        if design.alternative != "greater":
            last = min(design.grid, design.grid + 1 - int((below >= wanted).sum()))
        return Interval(
            design.lower + width * first,
            design.upper if last == design.grid else design.lower + width * last,
        )


def inverse_propensity_scores(
    outcomes: Sequence[float], in_treatment: Sequence[bool], *, share: float
) -> list[float]:
    """One score per unit whose mean is the difference of two arms, for `BettingMean`.

    A unit scores `(y - c) / share` in treatment and `-(y - c) / (1 - share)` in control. Whatever
    c is, if only it was fixed before the unit, the mean given the past is the difference of the
    arms; c is the mean of the outcomes before, which takes most of the noise out.

    Args:
        outcomes: values in [0, 1], in the order in which the units came.
        in_treatment: whether the unit is in treatment.
        share: probability of treatment for each of these units, in (0, 1), by design. Units of
            another allocation epoch: call again, and give the scores to the same state.

    Returns:
        Scores in [-b, b] with `b = 1 / min(share, 1 - share)`: the range to state.

    Raises:
        DataError: an outcome is not in [0, 1], or lengths differ.
        DesignError: share is out of range.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), section 3 (doubly robust scores);
    Horvitz, Thompson (1952).

    Examples:
        >>> inverse_propensity_scores([1.0, 0.0], [True, False], share=0.5)
        [1.0, 1.5]
    """
    if not 0 < share < 1:
        raise DesignError(f"share must lie in (0, 1), got {share}")
    if len(outcomes) != len(in_treatment):
        raise DataError(f"{len(outcomes)} outcomes but {len(in_treatment)} arms")
    scores = []
    total, n = 0.5, 1
    for outcome, treated in zip(outcomes, in_treatment, strict=True):
        if not 0 <= outcome <= 1:
            raise DataError(f"outcomes lie in [0, 1], got {outcome}; rescale them")
        centred = outcome - total / n
        scores.append(centred / share if treated else -centred / (1 - share))
        total += outcome
        n += 1
    return scores
