"""Power and stopping time of the designs that count events, by simulating the counts themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from abkit.errors import DesignError
from abkit.planning.boundaries import Course
from abkit.sequential.canary import CanaryDesign
from abkit.sequential.hypergeometric import HypergeometricMixture, fnch_log_likelihood

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.estimate import Alternative

    Progress = Callable[[float], None]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_SEARCH_RUNS: Final = 1_000
_SEARCH_STEPS: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class CountQuestion:
    """What a simulation of counts is asked.

    Args:
        design: "hypergeometric" or "canary"; the latter without restarts.
        rate: of events in control, in (0, 1).
        shares: of control and of treatment, > 0; they need not sum to 1.
        looks: evenly spaced, >= 1.
        alpha: error probability over all looks, in (0, 1).
        alternative: side of the test.
        runs: number of simulated runs, >= 1.
        seed: of the random numbers.
    """

    design: str
    rate: float
    shares: tuple[float, float]
    looks: int
    alpha: float
    alternative: Alternative
    runs: int = 4_000
    seed: int = 0


class Evidence:
    """Log e-values of many runs at once, block by block.

    Args:
        design: "hypergeometric" or "canary".
        alternative: side of the test.
        runs: number of runs.

    Raises:
        DesignError: the canary test is asked for both sides.
    """

    def __init__(self, design: str, alternative: Alternative, runs: int) -> None:
        if design == "hypergeometric":
            prior = HypergeometricMixture(alternative=alternative).prior
            used = prior.weights > 0
            self._nodes, weights = prior.nodes[used], prior.weights[used]
        elif alternative == "two-sided":
            raise DesignError(
                "the design 'canary' needs a side: alternative='greater' (--alternative) looks for "
                "harm, 'less' for its absence"
            )
        else:
            canary = CanaryDesign(harm=alternative == "greater", restarts=0)
            self._nodes = np.log(np.array(canary.relative_risks))
            weights = np.array(canary.weights)
        self._exact = design == "hypergeometric"
        self._log_weights = np.log(weights)
        self._sums = np.zeros((runs, len(self._nodes)))

    def add(self, n: tuple[Counts, Counts], events: tuple[Counts, Counts]) -> Floats:
        """Log e-values after one more block.

        Args:
            n: units of control and of treatment, shape (runs,).
            events: events among them, shape (runs,).
        """
        (nc, nt), (y, x) = n, events
        self._sums += x[:, None] * self._nodes
        if self._exact:
            keys, at = np.unique(np.stack([nc, nt, x + y]), axis=1, return_inverse=True)
            table = np.array([self._normaliser(*map(int, key)) for key in keys.T])
            self._sums -= table[at.ravel()]
        else:
            theta = nt / np.maximum(1, nt + nc)
            risks = np.expm1(self._nodes)
            self._sums -= (x + y)[:, None] * np.log1p(theta[:, None] * risks)
        terms = self._sums + self._log_weights
        largest = terms.max(axis=1)
        answer: Floats = largest + np.log(np.exp(terms - largest[:, None]).sum(axis=1))
        return answer

    def _normaliser(self, nc: int, nt: int, events: int) -> Floats:
        """What the log likelihood ratio subtracts; it depends on the block's totals alone."""
        x = max(0, events - nc)
        ratio, _ = fnch_log_likelihood(x, nt, nc, events, self._nodes)
        return self._nodes * x - ratio


def first_rejections(
    question: CountQuestion,
    *,
    rate_treatment: float,
    units: float,
    progress: Progress | None = None,
) -> Counts:
    """The look at which each run rejects.

    Args:
        question: design, looks and rate of control.
        rate_treatment: of events in treatment, in [0, 1].
        units: of control and treatment together at the last look.
        progress: told the share that is done.

    Returns:
        Number of the look from 0, shape (runs,); `looks` for runs that never reject.
    """
    rng = np.random.default_rng(question.seed)
    evidence = Evidence(question.design, question.alternative, question.runs)
    runs, looks = question.runs, question.looks
    share = question.shares[1] / sum(question.shares)
    ends = np.arange(1, looks + 1) / looks * units
    treated = np.diff(np.rint(ends * share), prepend=0.0).astype(np.int64)
    controls = np.diff(np.rint(ends * (1 - share)), prepend=0.0).astype(np.int64)
    first = np.full(runs, looks)
    for look, (nc, nt) in enumerate(zip(controls, treated, strict=True)):
        y = rng.binomial(nc, question.rate, runs)
        x = rng.binomial(nt, rate_treatment, runs)
        log_e = evidence.add((np.full(runs, nc), np.full(runs, nt)), (y, x))
        crossed = (first == looks) & (log_e >= -math.log(question.alpha))
        first[crossed] = look
        if progress is not None:
            progress((look + 1) / looks)
    return first


def count_course(question: CountQuestion, first: Counts) -> Course:
    """What became of simulated runs.

    Args:
        question: as was simulated.
        first: from `first_rejections`.
    """
    looks, runs = question.looks, len(first)
    stopped = np.cumsum(np.bincount(first, minlength=looks + 1)[:looks]) / runs
    power = float(stopped[-1])
    times = np.minimum(first + 1, looks) / looks
    return Course(
        fractions=tuple(((np.arange(looks) + 1) / looks).tolist()),
        stopped=tuple(stopped.tolist()),
        power=power,
        power_error=math.sqrt(max(power * (1 - power), 1 / runs) / runs),
        mean_error=float(times.std(ddof=1)) / math.sqrt(runs) if runs > 1 else 0.0,
    )


def needed_units(
    question: CountQuestion,
    *,
    rate_treatment: float,
    power: float,
    start: float,
    progress: Progress | None = None,
) -> float | None:
    """Units at the end with which a counting design has a power.

    Args:
        question: design, looks and rate of control.
        rate_treatment: of events in treatment.
        power: wanted, in (alpha, 1).
        start: a first guess at the units, > 0, such as those of the fixed test.
        progress: told the share that is done of each attempt, the first of which often suffices.

    Returns:
        Units of both arms; None where 64 times the guess are not enough.
    """
    end = 2 * start
    for _ in range(6):
        first = first_rejections(
            question, rate_treatment=rate_treatment, units=end, progress=progress
        )
        if float(np.mean(first < question.looks)) >= power:
            at = float(np.quantile(first + 1.0, power, method="inverted_cdf"))
            if at > question.looks / 8:
                return end * at / question.looks
            end = 2 * end * at / question.looks  # far too long: the looks were too coarse
        else:
            end *= 2
    return None


def smallest_effect(
    question: CountQuestion,
    *,
    units: float,
    power: float,
    progress: Progress | None = None,
) -> float | None:
    """Smallest difference of rates that so many units find with a power.

    Args:
        question: design, looks and rate of control; looks to the side of the alternative, above
            for a two-sided test.
        units: of both arms at the end.
        power: wanted.
        progress: told the share that is done.

    Returns:
        The difference, with its sign; None where even the largest one is not found.
    """
    sign = -1.0 if question.alternative == "less" else 1.0
    high = question.rate if sign < 0 else 1 - question.rate
    low, most = 0.0, high
    for step in range(_SEARCH_STEPS):
        middle = math.sqrt(max(low, high / 64) * high) if step else high
        small = CountQuestion(
            design=question.design,
            rate=question.rate,
            shares=question.shares,
            looks=question.looks,
            alpha=question.alpha,
            alternative=question.alternative,
            runs=_SEARCH_RUNS,
            seed=question.seed,
        )
        rate = min(1.0, max(0.0, question.rate + sign * middle))
        first = first_rejections(small, rate_treatment=rate, units=units)
        if float(np.mean(first < small.looks)) >= power:
            high = middle
        elif middle == most:
            return None
        else:
            low = middle
        if progress is not None:
            progress((step + 1) / _SEARCH_STEPS)
    return sign * high
