"""What the statistics return: intervals and estimates that say how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Alternative = Literal["two-sided", "greater", "less"]
Guarantee = Literal[
    "exact", "asymptotic", "fixed-horizon", "anytime-valid", "anytime-asymptotic", "bayesian"
]
Scale = Literal["absolute", "relative", "log"]
Status = Literal[
    "ok",
    "insufficient_data",
    "zero_variance",
    "undefined",
    "collinear",  # covariates that say the same thing, or nothing
    "too_large",  # an exact or resampling method would take minutes
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval; a one-sided one has an infinite end.

    Args:
        lower: lower end, in the unit of what it bounds; may be -inf.
        upper: upper end; may be +inf.
    """

    lower: float
    upper: float

    def __contains__(self, value: float) -> bool:
        """Whether the interval covers a value."""
        return self.lower <= value <= self.upper


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A comparison of treatment with control on one metric.

    A field that could not be computed is None and `status` says why; NaN never appears.

    Args:
        method: name of the test, such as "welch_t".
        guarantee: what holds, and when: "fixed-horizon" results are for one look only.
        alpha: error probability of the interval, in (0, 1).
        alternative: scipy's word for the side of the test.
        scale: scale of `difference` and `interval`.
        status: "ok", or why there is no answer.
        n_treatment: units in treatment.
        n_control: units in control.
        mean_treatment: mean of treatment, in the metric's unit.
        mean_control: mean of control, in the metric's unit.
        difference: treatment minus control, in the metric's unit.
        standard_error: standard error of `difference` that `interval` uses.
        interval: confidence interval or confidence sequence of `difference`.
        statistic: z or t value; None for methods without one.
        degrees_of_freedom: of a t statistic; None for z.
        p_value: in [0, 1]; None for methods without one.
        e_value: evidence against the null, >= 0; None for methods without one.
        lift: difference relative to the control mean, dimensionless; None where control is 0.
        lift_interval: confidence interval of `lift`.
        lift_standard_error: standard error of `lift`; None for methods without one.
        margin: the border of the null, on `scale`, or the borders of a test of equivalence;
            None where the null is no difference.
        variance_reduction: share of the variance of `difference` that covariates removed, < 1
            (0.36 is the gain of 36 % fewer units); negative where they added some; None without
            covariates.
    """

    method: str
    guarantee: Guarantee
    alpha: float
    alternative: Alternative
    scale: Scale = "absolute"
    status: Status = "ok"
    n_treatment: int = 0
    n_control: int = 0
    mean_treatment: float | None = None
    mean_control: float | None = None
    difference: float | None = None
    standard_error: float | None = None
    interval: Interval | None = None
    statistic: float | None = None
    degrees_of_freedom: float | None = None
    p_value: float | None = None
    e_value: float | None = None
    lift: float | None = None
    lift_interval: Interval | None = None
    lift_standard_error: float | None = None
    margin: float | Interval | None = None
    variance_reduction: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceTest:
    """A test of the split for sample ratio mismatch (SRM).

    Args:
        statistic: Pearson's chi-square.
        p_value: its p-value, valid at one look only.
        e_value: Lindon-Malek e-value, valid at every look.
        status: "ok", "warn" (e-value >= 100) or "block" (e-value >= 1,000).
    """

    statistic: float
    p_value: float
    e_value: float
    status: Literal["ok", "warn", "block"]
