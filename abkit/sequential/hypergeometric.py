"""Two proportions, exactly: the hypergeometric mixture, for rare events, any split and any ramp.

Given how many units and how many events a block has in all, the number of events in treatment is
hypergeometric if both arms have the same rate, and Fisher's noncentral hypergeometric (FNCH) with
the log odds ratio psi otherwise: the base rate has dropped out. The evidence is

    E = integral over psi of prod_k FNCH(x_k; psi) / FNCH(x_k; 0).

**Why it is valid** at every look, for every split and base rate, also if both change from block to
block, as in a ramp with drift: each factor has mean exactly 1 under the null, given the past and
the block's totals. What is needed: units of a block are independent given the past, counted once,
and the block's counts of units do not depend on its own events. A block with one arm only is no
evidence. Compare `abkit.sequential.canary`, which conditions on less: there only the share counts.

**Accuracy.** FNCH is a sum of independent Bernoulli variables (its generating polynomial has real
roots), so its characteristic function is at most `exp(-2 var sin(t/2)^2)`. Summing every h-th term
only, with h <= sd/2.5, is thus accurate to about 1e-30, and tails beyond 10 sd + 30 weigh below
1e-17 by Bernstein's inequality: a block of a billion units costs what one of a thousand does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from abkit.errors import DataError
from abkit.sequential.design import Look, evidence_look
from abkit.sequential.tilting import (
    DEFAULT_PARTS,
    Array,
    TiltPrior,
    tilt_interval,
    tilt_log_mixture,
)
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from abkit.estimate import Alternative, Interval
    from abkit.moments import Block

_WHOLE_SUPPORT: Final = 200  # up to so many terms, all are summed
_STIRLING_FROM: Final = 16


@dataclass(frozen=True, slots=True)
class HypergeometricMixture:
    """A test of two event rates that is exact at every look.

    Args:
        alpha: error probability over all looks together, in (0, 1).
        alternative: "greater" asks whether treatment has the higher rate.
        null_log_odds: log odds ratio on the border of the null, finite; 0.0 for equal rates. For
            non-inferiority of an error rate within an odds ratio of 1.25: "less" with log(1.25).
        parts: weights and standard deviations of the prior's half-normals, see `TiltPrior`.
        expected: distance of the log odds from the null that matters most, > 0, or None: a
            doubled rate is found with 12 % fewer units if log(2) is said beforehand.

    Source: Turner, Ly, Gruenwald (2024) and the package safestats (eGauss) for the e-value given
    the totals; Fisher (1935) for the distribution.

    Examples:
        >>> from abkit.moments import Block
        >>> design = HypergeometricMixture(alternative="greater")
        >>> state = design.start().update(Block(9_500, 500, 95, 20))
        >>> look = design.look(state)
        >>> look.decision, round(look.e_value)
        ('reject', 16806)

        safestats' tests of eGauss, prior N(0, 1), after five pairs of one unit each with events in
        treatment only: 3.057222:

        >>> normal = HypergeometricMixture(parts=((1.0, 1.0),))
        >>> five = hypergeometric_log_e([Block(1, 1, 0, 1)] * 5, normal)
        >>> round(math.exp(five), 5)
        3.05722
    """

    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    null_log_odds: float = 0.0
    parts: tuple[tuple[float, float], ...] = DEFAULT_PARTS
    expected: float | None = None

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        check_test(self.alpha, self.alternative)
        _ = self.prior

    @property
    def prior(self) -> TiltPrior:
        """Prior of the log odds ratio."""
        return TiltPrior(self.null_log_odds, self.alternative, self.parts, self.expected)

    def start(self) -> HypergeometricState:
        """The state before the first block."""
        return HypergeometricState(self)

    def look(self, data: HypergeometricState, past: Sequence[Look] = ()) -> Look:
        """Evidence and confidence sequence of the log odds ratio after some blocks.

        Args:
            data: the state after all blocks so far.
            past: earlier looks, oldest first; the last one's p-value and rejection stand.

        Returns:
            A look on the log scale (log odds ratio, treatment over control); information is the
            null variance of the events in treatment, summed over blocks. The estimate is
            Mantel and Haenszel's, None while an arm has no events or only events. Without any
            block that has both arms and both outcomes: "insufficient_data", an e-value of 1.

        Raises:
            DesignError: the state belongs to another design.
        """
        return evidence_look(
            self,
            data,
            past,
            method="hypergeometric_mixture",
            information=data.information,
            estimate=data.log_odds_ratio,
            interval=data.interval if data.information > 0 else None,
            scale="log",
        )


@dataclass(frozen=True, slots=True)
class HypergeometricState:
    """A hypergeometric mixture after some blocks: what the next block is added to.

    Args:
        design: what is asked.
        values: log likelihood ratio to the null at each node of the prior; empty at the start.
        slopes: its derivative in the log odds ratio.
        information: sum over blocks of the null variance of the events in treatment.
        crossed: Mantel-Haenszel sums of (events in treatment x non-events in control) / units, and
            the reverse.
        rates: sums over blocks of h_k (events / units) in control and of h_k, for display.

    Examples:
        >>> from abkit.moments import Block
        >>> state = HypergeometricMixture().start()
        >>> state.log_e_value
        0.0
        >>> state.update(Block(50, 50, 1, 9)).log_e_value > 0
        True
    """

    design: HypergeometricMixture
    values: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()
    information: float = 0.0
    crossed: tuple[float, float] = (0.0, 0.0)
    rates: tuple[float, float] = (0.0, 0.0)

    def update(self, block: Block) -> Self:
        """The state after one more block; the order of the blocks does not matter.

        Args:
            block: units and events of both arms since the last look, of one allocation epoch.

        Raises:
            DataError: an arm has more events than units.
        """
        _check(block)
        x, y = block.events_treatment, block.events_control
        nt, nc = block.n_treatment, block.n_control
        n, events = nt + nc, x + y
        if not nt or not nc or not events or events == n:
            return self
        prior = self.design.prior
        gained, means = fnch_log_likelihood(x, nt, nc, events, prior.nodes)
        middle = len(prior.nodes) // 2
        share = nt / n
        variance = share * (1 - share) * events * ((n - events) / (n - 1))
        zero = np.zeros(len(gained))
        values = (np.array(self.values) if self.values else zero) + (gained - gained[middle])
        slopes = (np.array(self.slopes) if self.slopes else zero) + (x - means)
        h = nt * nc / n
        return replace(
            self,
            values=tuple(values.tolist()),
            slopes=tuple(slopes.tolist()),
            information=self.information + variance,
            crossed=(
                self.crossed[0] + x * (nc - y) / n,
                self.crossed[1] + y * (nt - x) / n,
            ),
            rates=(self.rates[0] + h * (y / nc), self.rates[1] + h),
        )

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the e-value; 0.0 before the first block, never NaN."""
        if not self.values:
            return 0.0
        return tilt_log_mixture(self.design.prior, np.array(self.values))

    @property
    def interval(self) -> Interval:
        """Confidence sequence of the log odds ratio, if it is the same in all blocks."""
        prior = self.design.prior
        values = np.array(self.values) if self.values else np.zeros(len(prior.nodes))
        slopes = np.array(self.slopes) if self.slopes else np.zeros(len(prior.nodes))
        side = self.design.alternative
        return tilt_interval(prior, values, slopes, alpha=self.design.alpha, alternative=side)

    @property
    def base_rate(self) -> float | None:
        """Control's rate, weighted like the comparison; None before both arms have met."""
        return self.rates[0] / self.rates[1] if self.rates[1] else None

    @property
    def log_odds_ratio(self) -> float | None:
        """Mantel and Haenszel's estimate; None where it is not finite."""
        above, below = self.crossed
        return math.log(above / below) if above > 0 and below > 0 else None


def hypergeometric_log_e(blocks: Iterable[Block], design: HypergeometricMixture) -> float:
    """Log e-value of the hypergeometric mixture after all of these blocks.

    Args:
        blocks: units and events of both arms.
        design: what is asked.

    Returns:
        Natural logarithm of the e-value; 0.0 without blocks. Reject once it is at least
        `log(1 / alpha)`, at any look.

    Raises:
        DataError: an arm has more events than units.

    Examples:
        >>> hypergeometric_log_e([], HypergeometricMixture())
        0.0
    """
    state = design.start()
    for block in blocks:
        state = state.update(block)
    return state.log_e_value


def fnch_log_likelihood(
    x: int, n_treatment: int, n_control: int, events: int, log_odds: Array
) -> tuple[Array, Array]:
    """Log likelihood ratio of log odds ratios against 0, and the mean count under each.

    Args:
        x: events in treatment.
        n_treatment: units in treatment, >= 0.
        n_control: units in control, >= 0.
        events: events in both arms, in [0, units].
        log_odds: log odds ratios, shape (k,), finite.

    Returns:
        `log FNCH(x; log_odds) - log FNCH(x; 0)` and the mean number of events in treatment, both
        of shape (k,); zeros and x itself where x is certain.

    Raises:
        DataError: x is not possible with these totals.

    Source: Fisher (1935); the probabilities by Loader's (2000) deviances.

    Examples:
        safestats' tests: with two units an arm, two events and odds of 2 the weights of 0, 1 and 2
        events in treatment are 1, 8 and 4; without effect 1, 4 and 1.

        >>> ratio, mean = fnch_log_likelihood(1, 2, 2, 2, np.array([math.log(2)]))
        >>> round(float(np.exp(ratio[0])) * 13 / 12, 12), round(float(mean[0]) * 13, 12)
        (1.0, 16.0)
    """
    low, high = max(0, events - n_control), min(n_treatment, events)
    if not low <= x <= high:
        raise DataError(
            f"{x} of {events} events in {n_treatment} and {n_control} units: impossible"
        )
    if low == high:
        return np.zeros(len(log_odds)), np.full(len(log_odds), float(x))
    if high - low <= _WHOLE_SUPPORT:
        terms = np.arange(low, high)
        steps = np.log(
            ((n_treatment - terms) / (terms + 1.0))
            * ((events - terms) / (n_control - events + terms + 1.0))
        )
        log_null: Array = np.concatenate([[0.0], np.cumsum(steps)])
        counts = np.arange(low, high + 1.0)
        peak = log_null.max()
        log_null -= peak + math.log(float(np.exp(log_null - peak).sum()))
        exponents = log_null + np.multiply.outer(log_odds, counts - x)
        strides = np.ones(len(log_odds))
    else:
        counts, strides = _lattice(n_treatment, n_control, events, np.exp(log_odds))
        inside = (counts >= low) & (counts <= high)
        counts = np.clip(counts, low, high)
        log_null = _log_hypergeometric(counts, n_treatment, n_control, events)
        exponents = np.where(inside, log_null + log_odds[:, None] * (counts - x), -np.inf)
    peaks = exponents.max(axis=1, keepdims=True)
    weights = np.exp(exponents - peaks)
    totals = weights.sum(axis=1)
    means = (weights * (counts - x)).sum(axis=1) / totals + x
    return -(peaks[:, 0] + np.log(totals * strides)), means


def _lattice(nt: int, nc: int, events: int, odds: Array) -> tuple[Array, Array]:
    """Counts to sum over, by odds ratio, and the stride between them: shapes (k, terms), (k,)."""
    a, b = 1 - odds, nc - events + odds * (nt + events)
    c = odds * nt * events
    root = np.sqrt(np.maximum(b * b + 4 * a * c, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        mode = np.where(b > 0, 2 * c / (b + root), (root - b) / (2 * a))
    cells = (mode, nt - mode, events - mode, nc - events + mode)
    sd = 1 / np.sqrt(sum(1 / (np.maximum(cell, 0.0) + 1) for cell in cells))
    strides = np.maximum(1.0, np.floor(sd / 2.5))
    steps = np.ceil((10 * sd + 30) / strides)
    reach = int(steps.max())
    grid = np.arange(-reach, reach + 1.0)
    return np.round(mode)[:, None] + strides[:, None] * grid, strides


def _log_hypergeometric(x: Array, nt: int, nc: int, events: int) -> Array:
    """Log probability of x under the null, accurate for any counts."""
    p = events / (nt + nc)
    return (
        _log_binomial(x, float(nt), p)
        + _log_binomial(events - x, float(nc), p)
        - _log_binomial(np.array([float(events)]), float(nt + nc), p)
    )


def _log_binomial(x: Array, n: float, p: float) -> Array:
    """Log of the binomial probability without cancellation between large terms (Loader 2000)."""
    y = n - x
    inner = (x > 0) & (y > 0)
    xs, ys = np.where(inner, x, 1.0), np.where(inner, y, 1.0)
    value = (
        float(_stirling_error(np.array([n]))[0])
        - _stirling_error(xs)
        - _stirling_error(ys)
        - _deviance(xs, n * p)
        - _deviance(ys, n * (1 - p))
        + 0.5 * np.log(n / (2 * math.pi * xs * ys))
    )
    edge = np.where(x > 0, n * math.log(p), n * math.log1p(-p))
    return np.where(inner, value, edge)


def _deviance(x: Array, mean: float) -> Array:
    """The deviance x log(x / mean) + mean - x, >= 0."""
    return x * np.log1p((x - mean) / mean) - (x - mean)


_SMALL_ERRORS: Final = np.array(
    [0.0]
    + [
        math.lgamma(k + 1.0) - (k + 0.5) * math.log(k) + k - 0.5 * math.log(2 * math.pi)
        for k in range(1, _STIRLING_FROM)
    ]
)


def _stirling_error(n: Array) -> Array:
    """The logarithm of n! less Stirling's formula, for whole n >= 1."""
    small = _SMALL_ERRORS[np.minimum(n, _STIRLING_FROM - 1).astype(np.int64)]
    inverse = 1 / n
    square = inverse * inverse
    tail = square * (1 / 1260 - square * (1 / 1680 - square / 1188))
    return np.where(n < _STIRLING_FROM, small, inverse * (1 / 12 - square / 360 + square * tail))


def _check(block: Block) -> None:
    arms = ((block.n_control, block.events_control), (block.n_treatment, block.events_treatment))
    if any(events > n for n, events in arms):
        raise DataError(f"an arm has more events than units: {block}; count each unit once")
