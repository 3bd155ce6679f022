"""Event counts, exactly: given the total, an event's side is a coin of known bias.

If events come as Poisson processes, whose rate may drift in any way but alike in both arms, an
event of a block falls on treatment with probability theta_k, the treatment's share of the block's
exposure (units, requests or hours). Under a rate ratio exp(psi) it does with
`theta_k e^psi / (theta_k e^psi + 1 - theta_k)`. The evidence is a mixture over psi, on the same
prior for all blocks: it learns across epochs and ramps. For more than two arms, and for a check of
shares, there is Lindon and Malek's Dirichlet mixture.

Events of one unit that cluster (ten errors of one user) are no Poisson process: count units with an
event, by `abkit.sequential.hypergeometric`, or compare means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import optimize

from abkit.errors import DataError
from abkit.estimate import Interval
from abkit.moments import whole
from abkit.sequential.design import Look, evidence_look
from abkit.sequential.tilting import DEFAULT_PARTS, TiltPrior, tilt_interval, tilt_log_mixture
from abkit.stats.difference import check_test
from abkit.stats.srm import lindon_malek_log_e

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from abkit.estimate import Alternative


@dataclass(frozen=True, slots=True)
class CountBlock:
    """Events and exposure of both arms between two looks, in one allocation epoch.

    Args:
        events_control: events in control, >= 0; one unit may have many.
        events_treatment: events in treatment, >= 0.
        exposure_control: units, requests or hours at risk in control, >= 0, finite.
        exposure_treatment: the same in treatment.
    """

    events_control: int
    events_treatment: int
    exposure_control: float
    exposure_treatment: float

    def __post_init__(self) -> None:
        """Reject counts that no block can have."""
        exposures = (self.exposure_control, self.exposure_treatment)
        for name in ("events_control", "events_treatment"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if not all(math.isfinite(e) and e >= 0 for e in exposures):
            raise DataError(f"exposure must be finite and >= 0: {self}")
        for events, exposure in zip(
            (self.events_control, self.events_treatment), exposures, strict=True
        ):
            if events and not exposure:
                raise DataError(f"events without exposure: {self}; count who was at risk")


@dataclass(frozen=True, slots=True)
class CountMixture:
    """A test of two event rates per unit of exposure, exact at every look for Poisson events.

    Args:
        alpha: error probability over all looks together, in (0, 1).
        alternative: "greater" asks whether treatment has the higher rate.
        null_log_ratio: log rate ratio on the border of the null, finite.
        parts: weights and standard deviations of the prior's half-normals, see `TiltPrior`.
        expected: distance of the log ratio from the null that matters most, > 0, or None: a
            doubled rate is found with 12 % fewer units if log(2) is said beforehand.

    Source: Przyborowski, Wilenski (1940) for the condition on the total; Lindon, Malek (2022) for
    the sequential test of inhomogeneous Poisson processes.

    Examples:
        >>> design = CountMixture(alternative="greater")
        >>> state = design.start().update(CountBlock(190, 25, 9_500.0, 500.0))
        >>> look = design.look(state)
        >>> look.decision, round(look.estimate, 3)
        ('reject', 0.916)
    """

    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    null_log_ratio: float = 0.0
    parts: tuple[tuple[float, float], ...] = DEFAULT_PARTS
    expected: float | None = None

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        check_test(self.alpha, self.alternative)
        _ = self.prior

    @property
    def prior(self) -> TiltPrior:
        """Prior of the log rate ratio."""
        return TiltPrior(self.null_log_ratio, self.alternative, self.parts, self.expected)

    def start(self) -> CountState:
        """The state before the first block."""
        return CountState(self)

    def look(self, data: CountState, past: Sequence[Look] = ()) -> Look:
        """Evidence and confidence sequence of the log rate ratio after some blocks.

        Args:
            data: the state after all blocks so far.
            past: earlier looks, oldest first; the last one's p-value and rejection stand.

        Returns:
            A look on the log scale (log rate ratio, treatment over control); information is the
            null variance of the events in treatment. The estimate is Mantel and Haenszel's, None
            while an arm has no events. Before the first event: "insufficient_data".

        Raises:
            DesignError: the state belongs to another design.
        """
        return evidence_look(
            self,
            data,
            past,
            method="poisson_mixture",
            information=data.information,
            estimate=data.log_rate_ratio,
            interval=data.interval if data.information > 0 else None,
            scale="log",
        )


@dataclass(frozen=True, slots=True)
class CountState:
    """A count mixture after some blocks: what the next block is added to.

    Args:
        design: what is asked.
        values: log likelihood ratio to the null at each node of the prior; empty at the start.
        slopes: its derivative in the log rate ratio.
        information: sum over blocks of the null variance of the events in treatment.
        crossed: Mantel-Haenszel sums of (events in treatment x exposure of control) / exposure,
            and the reverse.
    """

    design: CountMixture
    values: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()
    information: float = 0.0
    crossed: tuple[float, float] = (0.0, 0.0)

    def update(self, block: CountBlock) -> Self:
        """The state after one more block; the order of the blocks does not matter."""
        exposure = block.exposure_control + block.exposure_treatment
        events = block.events_control + block.events_treatment
        share = block.exposure_treatment / exposure if exposure else 0.0
        if not events or not 0 < share < 1:
            return self
        nodes = self.design.prior.nodes
        middle = len(nodes) // 2
        tilted = share * np.exp(nodes)
        gained = block.events_treatment * nodes - events * np.log(tilted + (1 - share))
        gained -= gained[middle]
        slope = block.events_treatment - events * (tilted / (tilted + (1 - share)))
        zero = np.zeros(len(nodes))
        crossed = (
            block.events_treatment * (1 - share),
            block.events_control * share,
        )
        return replace(
            self,
            values=tuple(((np.array(self.values) if self.values else zero) + gained).tolist()),
            slopes=tuple(((np.array(self.slopes) if self.slopes else zero) + slope).tolist()),
            information=self.information + events * share * (1 - share),
            crossed=(self.crossed[0] + crossed[0], self.crossed[1] + crossed[1]),
        )

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the e-value; 0.0 before the first block, never NaN."""
        if not self.values:
            return 0.0
        return tilt_log_mixture(self.design.prior, np.array(self.values))

    @property
    def interval(self) -> Interval:
        """Confidence sequence of the log rate ratio, if it is the same in all blocks."""
        prior = self.design.prior
        values = np.array(self.values) if self.values else np.zeros(len(prior.nodes))
        slopes = np.array(self.slopes) if self.slopes else np.zeros(len(prior.nodes))
        side = self.design.alternative
        return tilt_interval(prior, values, slopes, alpha=self.design.alpha, alternative=side)

    @property
    def log_rate_ratio(self) -> float | None:
        """Mantel and Haenszel's estimate; None where it is not finite."""
        above, below = self.crossed
        return math.log(above / below) if above > 0 and below > 0 else None


def multinomial_log_e(
    epochs: Iterable[tuple[Sequence[int], Sequence[float]]], *, concentration: float
) -> float:
    """Log e-value against equal rates in several arms, by allocation epoch.

    Args:
        epochs: for each allocation epoch the events so far in each arm, and each arm's exposure in
            it (any positive multiple). Arms without exposure must be left out of that epoch.
        concentration: of the Dirichlet prior, > 0, in events; see `lindon_malek_log_e`.

    Returns:
        Natural logarithm of the e-value: the product over epochs, each with its own prior. 0.0
        without events.

    Raises:
        ConfigError: an exposure is not positive, or an epoch has fewer than two arms.
        DataError: a count is negative.
        DesignError: concentration is not positive.

    Source: Lindon, Malek (2022), section 3.

    Examples:
        >>> epochs = [([30, 10], [99.0, 33.0]), ([40, 90], [1.0, 1.0])]
        >>> multinomial_log_e(epochs, concentration=100) > math.log(20)
        True
    """
    return math.fsum(
        lindon_malek_log_e(counts, exposures, concentration=concentration)
        for counts, exposures in epochs
    )


def multinomial_intervals(
    counts: Sequence[int],
    weights: Sequence[float],
    *,
    alpha: float = 0.05,
    concentration: float,
) -> list[Interval]:
    """Confidence sequences of the shares that events, or units, fall on each arm with.

    All of them hold together, at every look.

    Args:
        counts: events or units in each arm so far, >= 0.
        weights: prior mean of the shares, > 0, any positive multiple; fixed before the data.
        alpha: error probability over all looks and arms together, in (0, 1).
        concentration: of the Dirichlet prior, > 0, in counts.

    Returns:
        An interval of shares in [0, 1] per arm; [0, 1] before the first count.

    Raises:
        ConfigError: a weight is not positive, or there are not two arms.
        DataError: a count is negative.
        DesignError: alpha or concentration is unusable.

    Source: Lindon, Malek (2022), section 4: the shares whose likelihood is at least alpha times
    the mixture's; the other arms' shares are profiled out.

    Examples:
        >>> first, _ = multinomial_intervals([480, 560], [1, 1], concentration=100)
        >>> round(first.lower, 4), round(first.upper, 4)
        (0.4156, 0.5079)
    """
    check_test(alpha, "two-sided")
    mixture = lindon_malek_log_e(counts, weights, concentration=concentration)
    shares = [weight / math.fsum(weights) for weight in weights]
    mixture += math.fsum(x * math.log(q) for x, q in zip(counts, shares, strict=True))
    n = sum(counts)
    if n == 0:
        return [Interval(0.0, 1.0) for _ in counts]
    others = [
        math.fsum(x * math.log(x / (n - own)) for j, x in enumerate(counts) if j != i and x)
        for i, own in enumerate(counts)
    ]
    return [
        share_interval(own, n, mixture + math.log(alpha) - rest)
        for own, rest in zip(counts, others, strict=True)
    ]


def share_interval(own: int, n: int, level: float) -> Interval:
    """Shares under which the log likelihood of a count is at least a level.

    Args:
        own: count of the one kind, in [0, n].
        n: count of all kinds, >= 1.
        level: log likelihood, at most that of the share `own / n`; may be -inf.

    Returns:
        An interval of shares in [0, 1].

    Examples:
        >>> interval = share_interval(5, 10, 10 * math.log(0.5) - 1.0)
        >>> round(interval.lower, 4), round(interval.upper, 4)
        (0.2871, 0.7129)
    """
    return Interval(_least_share(own, n, level), 1 - _least_share(n - own, n, level))


def _least_share(own: int, n: int, level: float) -> float:
    if own == 0 or math.isinf(level):
        return 0.0
    # In logarithms, since the share may be too small for a float. The other kinds can only lower
    # the likelihood, so the end is not below the one without them.
    first, last = min(0.0, level / own), math.log(own / n)
    if own == n:
        return math.exp(first)

    def excess(log_share: float) -> float:
        return own * log_share + (n - own) * math.log1p(-math.exp(log_share)) - level

    if excess(last) <= 0:  # rounding: the level is the likelihood's peak
        return own / n
    return math.exp(float(optimize.brentq(excess, first, last, xtol=1e-14)))
