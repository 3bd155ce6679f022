"""Rates of events that can happen many times: errors an hour, orders a thousand sessions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from scipy import optimize, stats

from abkit.errors import ConfigError, DataError
from abkit.estimate import Estimate, Interval
from abkit.moments import whole
from abkit.stats.difference import check_test, tail_alpha
from abkit.stats.standardise import t_p_value

if TYPE_CHECKING:
    from abkit.estimate import Alternative

RateMethod = Literal["exact", "score"]


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one arm and what they could have come from.

    Args:
        count: number of events, >= 0.
        exposure: time, requests or units at risk, > 0, in any unit; 0 before the first.

    Raises:
        DataError: a count or exposure that cannot be.
    """

    count: int
    exposure: float

    def __post_init__(self) -> None:
        """Reject what cannot be counted."""
        object.__setattr__(self, "count", whole("events", self.count))
        if not (math.isfinite(self.exposure) and self.exposure >= 0):
            raise DataError(f"need a finite exposure >= 0, got {self}")
        if self.exposure == 0 and self.count:
            raise DataError(f"{self.count} events without any exposure")

    @property
    def rate(self) -> float | None:
        """Events per unit of exposure; None without exposure."""
        rate = self.count / self.exposure if self.exposure else None
        return rate if rate is not None and math.isfinite(rate) else None


def poisson_rates(
    control: Events,
    treatment: Events,
    *,
    method: RateMethod = "exact",
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Compare two Poisson rates, for one look.

    Valid for events that come independently of one another at a constant rate. Real events come
    in bursts and by user: count them per unit and use `ratio_difference` then. Given the total,
    the events of treatment are binomial with the share of exposure as chance: "exact" is that
    binomial test with Clopper and Pearson's interval, "score" the z test of rates with the same
    variance under the null as the observed total.

    Args:
        control: events and exposure of control.
        treatment: events and exposure of treatment.
        method: "exact" or "score".
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger rate.

    Returns:
        An estimate (method "poisson_exact" or "poisson_score") whose means are rates; `lift` is the
        ratio of the rates minus one, with an interval (an end may be infinite where control has no
        event). It agrees with the test, but for "exact" on two sides: that p-value, as R's, adds up
        the outcomes that are less likely, the interval halves alpha, and near alpha they can
        differ. "score" has an interval of the difference too. An arm without exposure gives
        "insufficient_data", no event at all "zero_variance".

    Raises:
        ConfigError: the method is unknown.
        DesignError: alpha or alternative is unusable.

    Source: Przyborowski, Wilenski (1940); Clopper, Pearson (1934); Gu, Ng, Tang, Schucany (2008)
    for the score test.

    Examples:
        R's `poisson.test(c(45, 28), c(1, 1))`: p-value = 0.06037.

        >>> result = poisson_rates(Events(28, 1.0), Events(45, 1.0))
        >>> round(result.p_value, 5), round(result.lift, 4)
        (0.06037, 0.6071)
    """
    check_test(alpha, alternative)
    if method not in get_args(RateMethod):
        raise ConfigError(f"method must be one of {get_args(RateMethod)}, got {method!r}")
    blank = Estimate(
        method=f"poisson_{method}",
        guarantee="exact" if method == "exact" else "fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_treatment=treatment.count,
        n_control=control.count,
        mean_treatment=treatment.rate,
        mean_control=control.rate,
    )
    if control.exposure == 0 or treatment.exposure == 0:
        return blank
    if control.rate is None or treatment.rate is None:
        return replace(blank, status="undefined")
    blank = replace(blank, difference=treatment.rate - control.rate)
    total = control.count + treatment.count
    if total == 0:
        return replace(blank, status="zero_variance")
    # Shares of the larger exposure first: their sum may not fit into a float.
    largest = max(control.exposure, treatment.exposure)
    share = treatment.exposure / largest
    share /= share + control.exposure / largest
    if not 0 < share < 1:
        return replace(blank, status="undefined")
    odds = (1 - share) / share
    if method == "exact":
        test = stats.binomtest(treatment.count, total, share, alternative=alternative)
        p_value = float(min(1.0, test.pvalue))
        ends = _clopper_pearson(treatment.count, total, alpha, alternative)
        blank = replace(blank, p_value=p_value)
    else:
        z = (treatment.count - total * share) / math.sqrt(total * share * (1 - share))
        ends = _wilson(treatment.count, total, alpha, alternative)
        blank = replace(
            blank,
            statistic=z,
            p_value=t_p_value(z, alternative, math.inf),
            interval=_difference_interval(control, treatment, alpha, alternative),
        )
    ratio = treatment.rate / control.rate if control.rate else None
    return replace(
        blank,
        status="ok",
        lift=ratio - 1 if ratio is not None and math.isfinite(ratio) else None,
        lift_interval=_ratio_interval(ends, odds, alternative),
    )


def _ratio_interval(ends: tuple[float, float], odds: float, side: Alternative) -> Interval:
    """From bounds of the share of treatment to bounds of the rates' ratio minus one."""
    low, high = (odds * p / (1 - p) if p < 1 else math.inf for p in ends)
    return Interval(
        -1.0 if side == "less" else low - 1, math.inf if side == "greater" else high - 1
    )


def _clopper_pearson(won: int, n: int, alpha: float, side: Alternative) -> tuple[float, float]:
    tail = tail_alpha(alpha, side)
    low = float(stats.beta.ppf(tail, won, n - won + 1)) if won else 0.0
    high = float(stats.beta.isf(tail, won + 1, n - won)) if won < n else 1.0
    return low, high


def _wilson(won: int, n: int, alpha: float, side: Alternative) -> tuple[float, float]:
    q2 = float(stats.norm.isf(tail_alpha(alpha, side))) ** 2
    centre = (won + q2 / 2) / (n + q2)
    half = math.sqrt(q2 * (won * (n - won) / n + q2 / 4)) / (n + q2)
    low = 0.0 if won == 0 else max(0.0, centre - half)
    return low, 1.0 if won == n else min(1.0, centre + half)


def _difference_interval(
    control: Events, treatment: Events, alpha: float, side: Alternative
) -> Interval | None:
    """Differences that the score test does not reject (restricted maximum likelihood)."""
    critical = float(stats.norm.isf(tail_alpha(alpha, side)))
    # Time runs in units of control's exposure, so that rates are counts.
    k = treatment.exposure / control.exposure
    x, y = treatment.count, control.count
    point = x / k - y
    if not (math.isfinite(k) and k > 0 and math.isfinite(point)):
        return None

    def z(delta: float) -> float:
        # Control's rate r solves (1 + k) r^2 + ((1 + k) delta - x - y) r - y delta = 0.
        b = (1 + k) * delta - x - y
        root = math.sqrt(max(0.0, b * b + 4 * (1 + k) * y * delta))
        r = (root - b) / (2 * (1 + k)) if b <= 0 else 2 * y * delta / (b + root)
        r = max(r, 0.0, -delta)
        variance = (r + delta) / k + r
        if variance <= 0:
            return 0.0 if point == delta else math.copysign(math.inf, point - delta)
        return (point - delta) / math.sqrt(variance)

    def end(direction: float) -> float:
        def beyond(delta: float) -> float:
            return min(1e300, -direction * z(delta)) - critical

        step = critical * math.sqrt(max(1.0, x) / k / k + max(1.0, y)) + critical**2 * (1 + 1 / k)
        far = point + direction * step
        while beyond(far) < 0:
            step *= 2
            far = point + direction * step
        return float(optimize.brentq(beyond, point, far, xtol=1e-14 * max(1.0, abs(far))))

    lower = -math.inf if side == "less" else end(-1.0) / control.exposure
    upper = math.inf if side == "greater" else end(1.0) / control.exposure
    return Interval(lower, upper)
