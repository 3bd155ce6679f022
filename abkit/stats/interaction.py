"""Two experiments on the same units: does the effect of one depend on the other?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from abkit.estimate import Estimate
from abkit.stats.contrast import contrast
from abkit.stats.difference import check_test
from abkit.stats.standardise import standardised

if TYPE_CHECKING:
    from abkit.estimate import Alternative
    from abkit.moments import Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Moments of units in both experiments, by their pair of variants.

    Args:
        neither: control in both.
        first: treatment in the first experiment, control in the second.
        second: control in the first, treatment in the second.
        both: treatment in both.
    """

    neither: Moments
    first: Moments
    second: Moments
    both: Moments


def interaction(
    cells: Cells, *, alpha: float = 0.05, alternative: Alternative = "two-sided"
) -> Estimate:
    """How much larger the first experiment's effect is under the second's treatment, for one look.

    Valid for units that both experiments randomised independently. Interactions have four times
    the variance of an effect, so a test that does not reject says little; look at the interval.

    Args:
        cells: moments of the four pairs of variants.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether the two treatments reinforce each other.

    Returns:
        An estimate (method "interaction") in the metric's unit: `mean_control` is the first
        experiment's effect under the second's control, `mean_treatment` under its treatment, and
        `difference` the interaction; n counts the units of each. Fewer than two units in a cell
        give "insufficient_data", no variance "zero_variance".

    Raises:
        DesignError: alpha or alternative is unusable.

    Source: the 2 x 2 factorial contrast; Satterthwaite (1946) for the degrees of freedom.

    Examples:
        >>> from abkit.moments import Moments
        >>> a, b = Moments.of([1.0, 2.0, 3.0]), Moments.of([3.0, 4.0, 5.0])
        >>> result = interaction(Cells(neither=a, first=b, second=a, both=a))
        >>> result.mean_control, result.mean_treatment, result.difference
        (2.0, 0.0, -2.0)
    """
    check_test(alpha, alternative)
    blank = Estimate(
        method="interaction",
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_control=cells.neither.n + cells.first.n,
        n_treatment=cells.second.n + cells.both.n,
    )
    found = contrast(
        [(1.0, cells.both), (-1.0, cells.second), (-1.0, cells.first), (1.0, cells.neither)]
    )
    if found is None:
        return blank
    result = standardised(blank, found.value, found.standard_error, found.degrees_of_freedom)
    return _with_effects(result, cells)


def _with_effects(result: Estimate, cells: Cells) -> Estimate:

    under_control = cells.first.mean - cells.neither.mean
    under_treatment = cells.both.mean - cells.second.mean
    if not (math.isfinite(under_control) and math.isfinite(under_treatment)):
        return result
    return replace(result, mean_control=under_control, mean_treatment=under_treatment)
