"""Designs that add up counts: blocks from looks, and their answers on the scale of the report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from abkit.analysis.report import Check
from abkit.errors import DataError
from abkit.estimate import Interval
from abkit.moments import Block
from abkit.sequential.counts import CountBlock, CountMixture
from abkit.stats.difference import successes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.analysis.compare import Stratum
    from abkit.analysis.options import Options
    from abkit.analysis.report import Result
    from abkit.comoments import Comoments
    from abkit.sequential.design import Look
    from abkit.stats.ratio import Term
    from abkit.store.cells import Key

_OVERDISPERSED: Final = 4.0  # standard errors that a variance may exceed a Poisson's by


def by_blocks(design: Any, increments: Sequence[Sequence[Stratum]], term: Term) -> list[Look]:
    """The looks of a design that adds up counts, a block for each look and epoch.

    Args:
        design: a hypergeometric or a count mixture.
        increments: strata of the rows that each look is the first to see.
        term: column of the events, or their ratio to an exposure.

    Raises:
        DataError: the values are no counts.
    """
    looks: list[Look] = []
    state = design.start()
    for strata in increments:
        for _, c, t in strata:
            if isinstance(design, CountMixture):
                (x, a), (y, b) = (_counts(arm, term) for arm in (c, t))
                state = state.update(CountBlock(x, y, a, b))
            else:
                x, y = (successes_of(arm.moments(str(term))) for arm in (c, t))
                state = state.update(Block(c.n, t.n, x, y))
        looks.append(design.look(state, looks))
    return looks


def _counts(arm: Comoments, term: Term) -> tuple[int, float]:
    """Events and exposure of one arm: units, or what a ratio is divided by."""
    name = term if isinstance(term, str) else term[0]
    total = arm.moments(name).total
    events = round(total)
    exposure = float(arm.n) if isinstance(term, str) else arm.moments(term[1]).total
    if events < 0 or abs(total - events) > 1e-6 * max(1.0, abs(total)) or exposure < 0:
        raise DataError(
            f"the design 'counts' needs whole numbers of events, not below 0; {name!r} sums to "
            f"{total:g}"
        )
    return events, exposure


def on_the_difference(interval: Interval | None, result: Result) -> Interval | None:
    """An interval of a log odds or rate ratio, at control's rate, as one of the difference."""
    base = result.estimate.mean_control
    if interval is None or base is None or not base > 0:
        return None
    ends = []
    for end in (interval.lower, interval.upper):
        if math.isinf(end):
            ends.append(end)
        elif result.kind == "proportion" and base < 1:
            odds = base / (1 - base) * math.exp(end)
            ends.append(odds / (1 + odds) - base)
        else:
            ends.append(base * math.expm1(min(end, 700.0)))
    return Interval(*ends)


def scale_notes(result: Result, look: Look) -> tuple[str, ...]:
    """What an answer on the log scale is about."""
    if look.scale != "log" or look.interval is None:
        return ()
    word = "odds" if result.kind == "proportion" and look.method.startswith("hyper") else "rate"
    ends = [f"{math.exp(min(x, 700.0)):.4g}" for x in (look.interval.lower, look.interval.upper)]
    note = f"tested is the {word} ratio, {ends[0]} to {ends[1]}"
    return (f"{note}; the interval of the difference is that at control's rate",)


def overdispersion_checks(
    options: Options, cells: Mapping[tuple[str, ...], Mapping[Key, Comoments]]
) -> list[Check]:
    """Whether counts vary no more than a Poisson's, which the design "counts" rests on."""
    follow = options.follow
    if follow is None or not (follow.design == "counts" or isinstance(follow.design, CountMixture)):
        return []
    found = []
    for metric, term in options.terms().items():
        if metric in options.counts:  # tested there already, whatever the design
            continue
        name = term if isinstance(term, str) else term[0]
        arms = [cell.moments(name) for cell in cells[options.family(metric)].values()]
        excess = max(
            (
                (arm.variance / arm.mean - 1) * math.sqrt((arm.n - 1) / 2)
                for arm in arms
                if arm.n > 1 and arm.mean > 0
            ),
            default=0.0,
        )
        if excess > _OVERDISPERSED:
            found.append(
                Check(
                    "overdispersed_counts",
                    "block",
                    f"{metric!r} varies more from unit to unit than independent events do, so "
                    "that the design 'counts' rejects too often; compare its mean by 'calibrated' "
                    "or 'always-valid'",
                )
            )
    return found
