"""A log odds ratio in words that people use: relative risk and difference, for display.

The exact tests speak of odds ratios, since those have no base rate in them. People ask for relative
risks and differences. With the control's rate put in, both follow, and so do the ends of the
interval; but that rate is itself an estimate, so the guarantee stays with the odds ratio. For rare
events a relative risk is the odds ratio anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.errors import DataError
from abkit.estimate import Interval

if TYPE_CHECKING:
    from abkit.estimate import Status
    from abkit.sequential.design import Look

DISPLAY_ONLY = "for display: the control's rate is taken as known; the odds ratio has the guarantee"


@dataclass(frozen=True, slots=True, kw_only=True)
class Displayed:
    """Relative risk and difference that go with a log odds ratio at one control rate.

    Args:
        base_rate: control's rate that was put in; None if there was none.
        relative_risk: treatment over control; None where the look has no finite estimate.
        relative_risk_interval: ends of the look's interval, converted.
        difference: treatment minus control, in rates.
        difference_interval: the same ends as differences.
        status: "ok", or "insufficient_data" without a rate or an interval.
        note: what the numbers are good for.
    """

    base_rate: float | None
    relative_risk: float | None = None
    relative_risk_interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    status: Status = "ok"
    note: str = DISPLAY_ONLY


def displayed(look: Look, base_rate: float | None) -> Displayed:
    """Relative risk and difference of a look on the log odds scale.

    Args:
        look: of a `HypergeometricMixture`.
        base_rate: control's rate, in (0, 1), such as the state's `base_rate`; None if there is
            none yet.

    Returns:
        The conversion; ends that the data do not bound become a treatment rate of 0 or 1.

    Raises:
        DataError: the look is on another scale.

    Source: Zhang, Yu (1998) for the conversion, and for the warning that it is no more than that.

    Examples:
        >>> from abkit.moments import Block
        >>> from abkit.sequential.hypergeometric import HypergeometricMixture
        >>> design = HypergeometricMixture()
        >>> state = design.start().update(Block(9_500, 500, 95, 20))
        >>> shown = displayed(design.look(state), state.base_rate)
        >>> round(shown.relative_risk, 2), round(shown.difference, 3)
        (4.0, 0.03)
    """
    if look.scale != "log":
        raise DataError(f"needs a look on the log scale, got {look.scale!r} of {look.method}")
    if base_rate is None or not 0 < base_rate < 1 or look.interval is None:
        return Displayed(base_rate=base_rate, status="insufficient_data")
    rates = [_treated(base_rate, end) for end in (look.interval.lower, look.interval.upper)]
    point = None if look.estimate is None else _treated(base_rate, look.estimate)
    return Displayed(
        base_rate=base_rate,
        relative_risk=None if point is None else point / base_rate,
        relative_risk_interval=Interval(rates[0] / base_rate, rates[1] / base_rate),
        difference=None if point is None else point - base_rate,
        difference_interval=Interval(rates[0] - base_rate, rates[1] - base_rate),
    )


def _treated(base_rate: float, log_odds: float) -> float:
    """Treatment's rate at a log odds ratio; stable for any size of it."""
    logit = math.log(base_rate) - math.log1p(-base_rate) + log_odds
    if logit >= 0:
        return 1 / (1 + math.exp(-min(logit, 700.0)))
    odds = math.exp(max(logit, -745.0))
    return odds / (1 + odds)
