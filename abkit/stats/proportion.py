"""The difference of two proportions at a fixed horizon: the pooled z test."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from scipy import stats
from statsmodels.stats.proportion import proportions_ztest

from abkit.stats.difference import (
    check_test,
    interval_around,
    relative_lift,
    successes_of,
    tail_alpha,
    unanswered,
)

if TYPE_CHECKING:
    from abkit.estimate import Alternative, Estimate
    from abkit.moments import Moments

_FEWEST_UNITS = 2
_STATSMODELS: Final = {"two-sided": "two-sided", "greater": "larger", "less": "smaller"}


def two_proportions(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Pooled z test of the difference of two proportions, for one look at a fixed horizon.

    The test pools the variance, which is right under no difference; the interval does not
    (Wald, variance p(1-p)/n), which is right elsewhere, so near the edge the two can disagree.
    Both are asymptotic: expect at least ten successes and ten failures in each arm. Not valid
    when looked at repeatedly.

    Args:
        control: moments of zeros and ones in the control arm.
        treatment: moments of zeros and ones in the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger proportion.

    Returns:
        An estimate of treatment minus control, in [-1, 1], with pooled z and p, the Wald
        interval and its standard error, lift and the delta-method interval of the lift. At the
        edges: fewer than two units in an arm gives status "insufficient_data"; all or no
        successes in both arms gives "zero_variance", with the difference but no p-value; 0 of n
        against n of n has a z, but no interval, since Wald's would be a point.

    Raises:
        DataError: the values are not all 0 or 1.
        DesignError: alpha or alternative is unusable.

    Source: Fleiss, Levin, Paik (2003), chapter 3; no continuity correction.

    Examples:
        >>> from abkit.moments import Moments
        >>> two_proportions(Moments.of_counts(100, 10), Moments.of_counts(100, 30)).difference
        0.19999999999999998

        R's `prop.test(c(620, 500), c(10000, 10000), correct = FALSE)`: X-squared = 13.61985.

        >>> result = two_proportions(
        ...     Moments.of_counts(10_000, 500), Moments.of_counts(10_000, 620)
        ... )
        >>> f"{result.statistic ** 2:.7f} {result.p_value:.9f}"
        '13.6198547 0.000223806'
    """
    check_test(alpha, alternative)
    won_control, won_treatment = successes_of(control), successes_of(treatment)
    blank = unanswered("pooled_z", control, treatment, alpha=alpha, alternative=alternative)
    if min(control.n, treatment.n) == 0:
        return blank
    difference = treatment.mean - control.mean
    blank = replace(blank, difference=difference)
    if min(control.n, treatment.n) < _FEWEST_UNITS:
        return blank
    if won_control + won_treatment in (0, control.n + treatment.n):
        return replace(blank, status="zero_variance")
    statistic, p_value = proportions_ztest(
        [won_treatment, won_control],
        [treatment.n, control.n],
        alternative=_STATSMODELS[alternative],
    )
    standard_error = math.sqrt(
        won_treatment * (treatment.n - won_treatment) / treatment.n**3
        + won_control * (control.n - won_control) / control.n**3
    )
    result = replace(blank, status="ok", statistic=float(statistic), p_value=float(p_value))
    if standard_error == 0:
        return result
    half_width = float(stats.norm.isf(tail_alpha(alpha, alternative))) * standard_error
    lift = relative_lift(control, treatment, alpha=alpha, alternative=alternative)
    return replace(
        result,
        standard_error=standard_error,
        interval=interval_around(difference, half_width, alternative),
        lift=lift[0] if lift else None,
        lift_interval=lift[1] if lift else None,
    )
