"""The canary error test: is the treatment's event rate higher, at any look?

For a block with n_t and n_c requests, an event falls on treatment with probability
`theta = n_t / (n_t + n_c)` if the rates are equal, and with probability
`theta_r = r theta / (r theta + 1 - theta)` under a relative risk r. The e-value is a mixture over
r of the likelihood ratio of the events' sides,
`prod (theta_r/theta_r0)^x_t ((1-theta_r)/(1-theta_r0))^x_c`, where r0 is the null relative risk.

**Why it is valid** for any base rates, splits and looks. Write D = r theta + 1 - theta and
D0 = r0 theta + 1 - theta. An event in treatment multiplies by f = r D0 / (r0 D), one in control
by g = D0 / D. Let the requests of a block be independent given its past and its counts n, with
rates p_t and p_c. Then, since 1 + y <= exp(y),

    E[factor] = (1 + p_t (f - 1))^n_t (1 + p_c (g - 1))^n_c
             <= exp(n_t p_t (f - 1) + n_c p_c (g - 1))
              = exp((n_t + n_c) theta (1 - theta) (r - r0)/D (p_t/r0 - p_c)),

because f - 1 = (r - r0)(1 - theta)/(r0 D) and g - 1 = -(r - r0) theta/D. For r > r0 the exponent
is <= 0 whenever p_t <= r0 p_c, and for r < r0 whenever p_t >= r0 p_c: the expected factor is at
most 1 for every base rate, which may change from block to block. Products and mixtures of such
factors are e-processes, so the chance of ever reaching 1/alpha is at most alpha (Ville). What is
needed: counts n that do not depend on the block's own events, and at most one event a request.

**Restarts.** Half of the weight starts with the first block, half is spread evenly over the starts
of the first `restarts` hours (the first of which is that same moment), so that a regression at
noon need not repay the evidence of a good morning. A part that has not started counts as 1.

**A single arm against a limit** p0 is the same test with `theta = p0` and each request in the
place of an event: E = prod (p1/p0)^x ((1-p1)/(1-p0))^(n-x), mixed over odds ratios. One request's
expected factor is linear in its rate and 1 at p0, so it is at most 1 for a rate <= p0.

Floats are added in a fixed order by `math` alone (no SIMD): the same blocks give the same bits.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from abkit.errors import DataError, DesignError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from abkit.moments import Block

# Harm: relative risks 1.15 to 30 times the null. A log-normal around 3 in the logarithm, for the
# regressions that canaries are for, on a floor that is flat in log log for the rest.
_HARM_RATIOS: Final = (1.15, 30.0, 20)
_HARM_CENTRE: Final = 3.0
_HARM_SPREAD: Final = 0.6
_HARM_BUMP: Final = 0.8
# Non-inferiority: relative risks 0.25 to 0.95 times the margin, and no difference itself.
_SAFE_RATIOS: Final = (0.25, 0.95, 14)
_SAFE_EQUAL: Final = 0.6
_NEAREST_EQUAL: Final = 0.97


@dataclass(frozen=True, slots=True)
class CanaryDesign:
    """What a canary test asks, fixed before the first block.

    Args:
        null_relative_risk: relative risk r0 on the border of the null, > 0, dimensionless.
        harm: True tests "relative risk <= r0" against larger ones, to halt; False tests "relative
            risk >= r0" against smaller ones, to promote (with r0 = 1.25: non-inferiority by 25 %).
        restarts: hours at whose start a part of the weight starts, >= 0; 0 and 1 put all of it on
            the first block. Use 0 with `harm=False`: a late start proves nothing about the whole.
        limit_rate: if set, a rate in (0, 1): treatment alone is tested against it and control is
            ignored. `null_relative_risk` must then be 1.

    Examples:
        >>> CanaryDesign(null_relative_risk=1.25, harm=False, restarts=0).harm
        False
    """

    null_relative_risk: float = 1.0
    harm: bool = True
    restarts: int = 24
    limit_rate: float | None = None

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        null = self.null_relative_risk
        if not (math.isfinite(null) and null > 0):
            raise DesignError(f"null_relative_risk must be finite and > 0, got {null}")
        if self.restarts < 0:
            raise DesignError(f"restarts must be >= 0, got {self.restarts}")
        if self.limit_rate is not None and not (0 < self.limit_rate < 1 and null == 1):
            raise DesignError(
                f"limit_rate must lie in (0, 1) and needs null_relative_risk 1, got limit_rate="
                f"{self.limit_rate}, null_relative_risk={null}; move the limit instead"
            )

    @property
    def starts(self) -> int:
        """Number of moments at which a part of the weight starts, >= 1."""
        return max(1, self.restarts)

    @property
    def relative_risks(self) -> tuple[float, ...]:
        """Alternatives that are mixed over; odds ratios to the limit if there is one."""
        return tuple(risk for risk, _ in _prior(self))

    @property
    def weights(self) -> tuple[float, ...]:
        """Prior weight of each relative risk; they sum to 1."""
        return tuple(weight for _, weight in _prior(self))

    def start_weight(self, hour: int) -> float:
        """Weight of the part that starts with this hour, in [0, 1]."""
        if self.starts == 1:
            return float(hour == 0)
        return (0.5 if hour == 0 else 0.0) + 0.5 / self.starts


@functools.lru_cache(maxsize=256)
def _prior(design: CanaryDesign) -> tuple[tuple[float, float], ...]:
    """Relative risks and their weights: a function of the design alone."""
    low, high, points = _HARM_RATIOS if design.harm else _SAFE_RATIOS
    ratios = [low * (high / low) ** (i / (points - 1)) for i in range(points)]
    depths = [abs(math.log(ratio)) for ratio in ratios]
    prior = {
        design.null_relative_risk * ratio: weight
        for ratio, weight in zip(ratios, _scaled([1 / depth for depth in depths]), strict=True)
    }
    if design.harm:
        middle = math.log(math.log(_HARM_CENTRE))
        bump = _scaled(
            [math.exp(-((math.log(d) - middle) ** 2) / (2 * _HARM_SPREAD**2)) / d for d in depths]
        )
        prior = {
            risk: (1 - _HARM_BUMP) * flat + _HARM_BUMP * peak
            for (risk, flat), peak in zip(prior.items(), bump, strict=True)
        }
    elif design.null_relative_risk * _NEAREST_EQUAL > 1:
        prior = {risk: (1 - _SAFE_EQUAL) * weight for risk, weight in prior.items()}
        prior[1.0] = prior.get(1.0, 0.0) + _SAFE_EQUAL
    return tuple(sorted(prior.items()))


def _scaled(weights: list[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]


@dataclass(frozen=True, slots=True)
class CanaryState:
    """A canary test after some blocks: what the next block is added to.

    Args:
        design: what is asked.
        by_hour: log-likelihood ratio of each relative risk, by the hour of its blocks; hours after
            the last restart share a row. A restart's evidence is the sum of the rows from its
            hour on, so an update costs the same however long the rollout has run.

    Examples:
        >>> from abkit.moments import Block
        >>> state = CanaryState.start(CanaryDesign())
        >>> state.log_e_value
        0.0
        >>> state.update(Block(9_900, 100, 99, 5)).log_e_value > 0
        True
    """

    design: CanaryDesign
    by_hour: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def start(cls, design: CanaryDesign) -> Self:
        """The state before the first block."""
        return cls(design)

    def update(self, block: Block) -> Self:
        """The state after one more block; a late block may come after those of later hours.

        Args:
            block: counts of both arms since the last look, of one allocation epoch.

        Raises:
            DataError: an arm has more events than requests.
        """
        gained = _log_factors(self.design, block)
        hour = min(block.hour, self.design.starts - 1)
        rows = list(self.by_hour)
        blank = (0.0,) * len(gained)
        rows += [blank] * (hour + 1 - len(rows))
        rows[hour] = tuple(old + new for old, new in zip(rows[hour], gained, strict=True))
        return replace(self, by_hour=tuple(rows))

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the e-value; 0.0 before the first block, never NaN."""
        if not self.by_hour:
            return 0.0
        log_weights = [math.log(weight) for weight in self.design.weights]
        terms = [
            math.log(weight)
            for hour in range(len(self.by_hour), self.design.starts)
            if (weight := self.design.start_weight(hour)) > 0
        ]
        since = [0.0] * len(log_weights)
        for hour in reversed(range(len(self.by_hour))):
            since = [total + row for total, row in zip(since, self.by_hour[hour], strict=True)]
            log_start = math.log(self.design.start_weight(hour))
            terms += [
                log_start + log_weight + total
                for log_weight, total in zip(log_weights, since, strict=True)
            ]
        largest = max(terms)
        return largest + math.log(math.fsum(math.exp(term - largest) for term in terms))


def canary_log_e(blocks: Iterable[Block], design: CanaryDesign) -> float:
    """Log e-value of a canary test after all of these blocks.

    Args:
        blocks: counts of both arms, in the order in which they were seen.
        design: what is asked.

    Returns:
        Natural logarithm of the e-value; 0.0 without blocks. Reject once it is at least
        `log(1 / alpha)`, at any look.

    Raises:
        DataError: an arm has more events than requests.

    Source: proof in the module's docstring; Ville (1939) for the inequality.

    Examples:
        >>> from abkit.moments import Block
        >>> canary_log_e([Block(n_control=0, n_treatment=50, events_control=0, events_treatment=9)],
        ...              CanaryDesign())
        0.0

        A canary with 1 % of the traffic and 5 % errors against 1 %:

        >>> minute = Block(n_control=9_900, n_treatment=100, events_control=99, events_treatment=5)
        >>> round(canary_log_e([minute] * 2, CanaryDesign()), 3)
        6.015
    """
    state = CanaryState.start(design)
    for block in blocks:
        state = state.update(block)
    return state.log_e_value


def _log_factors(design: CanaryDesign, block: Block) -> list[float]:
    """Log-likelihood ratio that a block adds, by relative risk."""
    arms = ((block.n_control, block.events_control), (block.n_treatment, block.events_treatment))
    if any(events > n for n, events in arms):
        raise DataError(f"an arm has more events than requests: {block}; count each request once")
    hits = block.events_treatment
    if design.limit_rate is None:
        trials = block.events_control + block.events_treatment
        theta = block.n_treatment / max(1, block.n_control + block.n_treatment)
    else:
        trials = block.n_treatment
        theta = design.limit_rate
    risks = design.relative_risks
    if trials == 0 or theta in (0.0, 1.0):  # one arm only: the event's side tells nothing
        return [0.0] * len(risks)
    null = design.null_relative_risk
    log_null = math.log(null)
    log_scale = math.log1p(theta * (null - 1))
    return [
        hits * (math.log(risk) - log_null) - trials * (math.log1p(theta * (risk - 1)) - log_scale)
        for risk in risks
    ]


def relative_risk(blocks: Iterable[Block]) -> float | None:
    """Relative risk of an event in treatment, pooled over blocks.

    Pools within blocks (Mantel-Haenszel), so that a base rate that drifts while the split changes
    does not bias it, which it does for the ratio of the total rates.

    Args:
        blocks: counts of both arms.

    Returns:
        Relative risk, dimensionless, >= 0. None where it is undefined: no block with requests in
        both arms and events in control.

    Source: Rothman, Greenland, Lash (2008), chapter 15: the Mantel-Haenszel risk ratio.

    Examples:
        >>> from abkit.moments import Block
        >>> relative_risk([Block(100, 100, 1, 3)])
        3.0
        >>> relative_risk([Block(100, 100, 0, 3)]) is None
        True
    """
    above = below = 0.0
    for block in blocks:
        n = block.n_control + block.n_treatment
        if n:
            above += block.events_treatment * block.n_control / n
            below += block.events_control * block.n_treatment / n
    return above / below if below else None
