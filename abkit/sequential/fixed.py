"""The fixed horizon as a design: one look, at the planned end, and none before it.

It has the most power of all designs for those who really look once. What it does not allow is the
early look: with a look a day, a p-value below alpha turns up in a fifth of all A/A tests. So looks
before the planned end are not tested here, whatever they would have said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from abkit.errors import DesignError
from abkit.estimate import Estimate
from abkit.sequential.design import Contrast, Look
from abkit.stats.difference import check_test
from abkit.stats.margin import against
from abkit.stats.standardise import standardised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative

_SLACK: Final = 1e-9  # rounding of the effective units


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedHorizon:
    """A comparison at one look that is planned beforehand.

    Args:
        planned_units: units of both arms together at the planned end of an even split, >= 1. For a
            constant share q give 4 q (1 - q) times the units; for pairs, 4 times the pairs.
        alpha: error probability of the one look, in (0, 1).
        alternative: side of the test and of the interval.
        margin: difference on the border of the null, in the metric's unit, finite.

    Examples:
        >>> design = FixedHorizon(planned_units=20_000)
        >>> early = design.look(Contrast(s=90.0, v=420.0, h=4_500.0))
        >>> early.decision, early.p_value, early.notes
        ('continue', None, ('90.0% of the planned units: not tested before the planned end',))
        >>> end = design.look(Contrast(s=90.0, v=460.0, h=5_000.0), [early])
        >>> end.decision, round(end.p_value, 7)
        ('reject', 2.71e-05)
    """

    planned_units: int
    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        check_test(self.alpha, self.alternative)
        if self.planned_units < 1:
            raise DesignError(f"planned_units must be >= 1, got {self.planned_units}")
        if not math.isfinite(self.margin):
            raise DesignError(f"margin must be finite, got {self.margin}")

    def look(self, data: Contrast | Estimate, past: Sequence[Look] = ()) -> Look:
        """The test at the planned end; before and after it, no more than where one stands.

        Args:
            data: the contrast so far, for a z test; or what any test for one look says, such as
                Welch's, with this design's alpha, side and margin.
            past: earlier looks, oldest first: there is one test, and its answer stands.

        Returns:
            A look in the metric's unit; information is in effective units, `n_c n_t / (n_c + n_t)`
            of an estimate. Before the planned end the status is "insufficient_data" and there is
            no interval. The first look at or past it is the test, if it has an answer; later ones
            repeat that answer.
        """
        h = data.h if isinstance(data, Contrast) else _effective(data)
        fraction = h / (self.planned_units / 4)
        blank = Look(
            method="fixed_horizon",
            guarantee="fixed-horizon",
            alpha=self.alpha,
            alternative=self.alternative,
            status="insufficient_data",
            information=h,
            fraction=fraction,
            estimate=data.difference,
            alpha_spent=0.0,
        )
        done = next((look for look in past if look.alpha_spent), None)
        if done is not None:
            return replace(
                done,
                information=h,
                fraction=fraction,
                estimate=data.difference,
                notes=("the one planned look was taken before; its answer stands",),
            )
        if fraction < 1 - _SLACK:
            note = f"{fraction:.1%} of the planned units: not tested before the planned end"
            return replace(blank, notes=(note,))
        answer = data if isinstance(data, Estimate) else self._z_test(data)
        if answer.status != "ok" or (answer.p_value is None and answer.interval is None):
            return replace(blank, status=answer.status)
        return replace(
            blank,
            method=answer.method,
            guarantee=answer.guarantee,
            status="ok",
            decision="reject" if self._falls(answer) else "continue",
            interval=answer.interval,
            statistic=answer.statistic,
            p_value=answer.p_value,
            alpha_spent=self.alpha,
        )

    def _falls(self, answer: Estimate) -> bool:
        if answer.p_value is not None:
            return answer.p_value <= self.alpha
        return answer.interval is not None and self.margin not in answer.interval

    def _z_test(self, data: Contrast) -> Estimate:
        blank = Estimate(
            method="fixed_horizon",
            guarantee="fixed-horizon",
            alpha=self.alpha,
            alternative=self.alternative,
            status="insufficient_data",
        )
        if not data.enough or data.difference is None:
            return blank
        plain = standardised(blank, data.difference, math.sqrt(data.v) / data.h)
        tested = against(plain, self.margin, alternative=self.alternative)
        return replace(tested, method="fixed_horizon")


def _effective(data: Estimate) -> float:
    n, m = data.n_control, data.n_treatment
    return n * m / (n + m) if n + m else 0.0
