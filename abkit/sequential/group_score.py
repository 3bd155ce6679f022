"""The Mantel-Haenszel score of two proportions, for ramps: compared within epochs only.

A group sequential test needs a statistic and the information on it. While a ramp changes the split
and the base rate drifts, pooled comparisons mistake the drift for an effect: ramping 1 -> 5 -> 25
-> 50 % under a rate that doubles, a pooled z rejects nearly always. Comparing within each epoch and
adding up keeps the level, and the variance of the sum is the clock. For means there is
`abkit.sequential.contrast`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from abkit.errors import DataError
from abkit.sequential.clock import FEWEST_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from abkit.moments import Block


def stratified_score(
    blocks: Iterable[Block], *, fewest_events: int = FEWEST_EVENTS
) -> tuple[float, float]:
    """Mantel-Haenszel score of two proportions over allocation epochs, and its information.

    In each block the events of both arms are fixed and their split is hypergeometric under equal
    rates, whatever the rate. The score adds up observed minus expected events in treatment, the
    information their variances. Blocks are independent given their totals, so the score has
    independent increments with that clock, under any ramp and any drift between blocks.

    Args:
        blocks: cumulative counts of both arms, one block for each epoch (or for each epoch and
            day: finer strata lose a little information and bear more drift).
        fewest_events: events, and as many units without, that each arm must have before there is
            anything to test; >= 0. The normal approximation needs them.

    Returns:
        z and information. Information is in squared events, about
        `n_t n_c / n * rate * (1 - rate)`; z / sqrt(information) estimates the log odds ratio (one
        step, Peto). (0.0, 0.0) before there are enough events, or without any variance.

    Raises:
        DataError: an arm has more events than units.

    Source: Mantel, Haenszel (1959); Cochran (1954); Jennison, Turnbull (2000), section 3.5.2 and
    chapter 12 (stratified two-by-two tables).

    Examples:
        >>> from abkit.moments import Block
        >>> z, information = stratified_score([Block(100, 100, 60, 40)])
        >>> round(z, 4), round(information, 4)
        (-2.8213, 12.5628)

        Its square is statsmodels' `StratifiedTable.test_null_odds(correction=False)`.
    """
    arms = [0, 0, 0, 0]
    terms: list[tuple[float, float]] = []
    for block in blocks:
        n_t, n_c = block.n_treatment, block.n_control
        x_t, x_c = block.events_treatment, block.events_control
        if x_t > n_t or x_c > n_c:
            raise DataError(f"an arm has more events than units: {block}; count each unit once")
        arms = [a + b for a, b in zip(arms, (x_t, n_t - x_t, x_c, n_c - x_c), strict=True)]
        n, m = n_t + n_c, x_t + x_c
        if n > 1:  # Python ints: no rounding before the division, no overflow
            terms.append(((x_t * n - n_t * m) / n, n_t * n_c * m * (n - m) / (n * n * (n - 1))))
    score = math.fsum(s for s, _ in terms)
    information = math.fsum(v for _, v in terms)
    if information == 0 or min(arms) < fewest_events:
        return 0.0, 0.0
    return score / math.sqrt(information), information
