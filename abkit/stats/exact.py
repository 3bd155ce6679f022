"""Exact tests of two proportions, for counts that are too small for a z test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from scipy import stats

from abkit.errors import ConfigError
from abkit.stats.difference import check_test, successes_of, unanswered

if TYPE_CHECKING:
    from abkit.estimate import Alternative, Estimate
    from abkit.moments import Moments

ExactMethod = Literal["fisher", "barnard", "boschloo"]

# Fisher's counts multiply inside of scipy; Barnard's and Boschloo's tests visit every table there
# is, for many nuisance rates (5 s at this limit, minutes at ten times it).
MOST_UNITS: Final = 10_000_000
MOST_TABLES: Final = 250_000


def exact_proportions(
    control: Moments,
    treatment: Moments,
    *,
    method: ExactMethod = "boschloo",
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Exact test of the difference of two proportions, for one look.

    Valid for any sample size, independent units. Fisher conditions on the number of successes and
    is conservative; Barnard and Boschloo do not, and reject more often at the same alpha (Boschloo,
    on one side, whenever Fisher does; two-sided it doubles the smaller side). There is no interval:
    `newcombe` has one.

    Args:
        control: moments of zeros and ones in the control arm.
        treatment: moments of zeros and ones in the treatment arm.
        method: "fisher", "barnard" (pooled) or "boschloo".
        alpha: carried into the result, in (0, 1).
        alternative: "greater" asks whether treatment has the larger proportion.

    Returns:
        An estimate with difference and p-value; guarantee "exact", at one look. An empty arm gives
        "insufficient_data"; all or no successes in both arms a p-value of 1. More than 10,000,000
        units for Fisher, or 250,000 tables (500 units an arm) for the others, would take seconds
        to minutes: status "too_large", use `two_proportions`.

    Raises:
        ConfigError: the method is unknown.
        DataError: the values are not all 0 or 1.
        DesignError: alpha or alternative is unusable.

    Source: Fisher (1935); Barnard (1945); Boschloo (1970); scipy's `fisher_exact`,
    `barnard_exact`, `boschloo_exact`.

    Examples:
        R's `fisher.test(matrix(c(12, 988, 3, 997), 2))`: p-value = 0.03449.

        >>> from abkit.moments import Moments
        >>> arms = Moments.of_counts(1_000, 3), Moments.of_counts(1_000, 12)
        >>> round(exact_proportions(*arms, method="fisher").p_value, 7)
        0.0344914
    """
    check_test(alpha, alternative)
    if method not in get_args(ExactMethod):
        raise ConfigError(f"method must be one of {get_args(ExactMethod)}, got {method!r}")
    won_control, won_treatment = successes_of(control), successes_of(treatment)
    blank = unanswered(method, control, treatment, alpha=alpha, alternative=alternative)
    blank = replace(blank, guarantee="exact")
    if min(control.n, treatment.n) == 0:
        return blank
    blank = replace(blank, status="ok", difference=treatment.mean - control.mean)
    if won_control + won_treatment in (0, control.n + treatment.n):
        return replace(blank, p_value=1.0)  # the only table with these successes
    tables = (control.n + 1) * (treatment.n + 1)
    if method == "fisher" and max(control.n, treatment.n) > MOST_UNITS:
        return replace(blank, status="too_large")
    if method != "fisher" and tables > MOST_TABLES:
        return replace(blank, status="too_large")
    # Columns are arms, as scipy's unconditional tests want it: treatment first.
    table = np.array(
        [
            [won_treatment, won_control],
            [treatment.n - won_treatment, control.n - won_control],
        ]
    )
    if method == "fisher":
        p_value = stats.fisher_exact(table, alternative=alternative).pvalue
    elif method == "barnard":
        p_value = stats.barnard_exact(table, alternative=alternative).pvalue
    else:
        p_value = stats.boschloo_exact(table, alternative=alternative).pvalue
    return replace(blank, p_value=float(min(1.0, p_value)))
