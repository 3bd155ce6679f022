"""Doubts about a comparison that its own numbers raise: what is missing, too large, or reversed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import stats

from abkit.analysis.display import metric_unit, value
from abkit.check import Check
from abkit.errors import AbkitError
from abkit.records import counted
from abkit.stats.bayes import Normal
from abkit.stats.multiplicity import e_bh
from abkit.stats.shrinkage import shrunken
from abkit.stats.srm import SRM_BLOCK, SRM_WARN, balance_test
from abkit.stats.stratified import post_stratified

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from abkit.analysis.report import Result
    from abkit.check import Severity
    from abkit.estimate import Estimate
    from abkit.moments import Moments
    from abkit.store.cells import Facts

RARE: Final = 0.001  # p-value, over all comparisons of a kind, from which a check warns
PLAIN: Final = 1e-6  # p-value from which a difference is beyond doubt
MISSING_GAP: Final = 0.01  # difference of the shares without a value that blocks
TWYMAN: Final = 5.0  # minimum detectable effects
POWER: Final = 0.8  # of the minimum detectable effect
STRAY: Final = 0.001  # share of rows that were delivered something else, which blocks
PART_SHIFT: Final = 0.05  # shift of an even share that is looked for in a segment
_SMALL_CELL: Final = 5.0  # expected units below which Fisher's test takes the place of chi-square


def missing_checks(
    facts: Mapping[str, Facts],
    counts: Mapping[str, int],
    metrics: Sequence[str],
    *,
    left_out: bool,
) -> list[Check]:
    """Values that are missing more often in one variant than in another.

    Args:
        facts: of each column.
        counts: rows per variant.
        metrics: columns that are compared.
        left_out: whether rows without a value are left out, rather than counted as 0.
    """
    found = []
    tested = [name for name in metrics if name in facts and any(facts[name].missing.values())]
    for name in tested:
        absent = {label: facts[name].missing.get(label, 0) for label in counts}
        p = p_of_counts(absent, counts) * len(tested)
        if p >= RARE:
            continue
        shares = {label: n / counts[label] for label, n in absent.items()}
        gap = max(shares.values()) - min(shares.values())
        severity: Severity = "block" if left_out and p < PLAIN and gap >= MISSING_GAP else "warn"
        told = ", ".join(f"{share:.2%} of {label}" for label, share in shares.items())
        found.append(
            Check(
                "missing_by_variant",
                severity,
                f"{name!r} is missing in {told} (p {p:.2g}): who is missing depends on the "
                "variant; find out where outcomes are lost before comparing those that are left",
                {"metric": name, "p_value": min(1.0, p), "missing": absent, "gap": gap},
            )
        )
    return found


def p_of_counts(absent: Mapping[str, int], counts: Mapping[str, int]) -> float:
    """Whether a share is the same in all variants: chi-square, or Fisher's test where rare.

    Args:
        absent: units of each variant that have it.
        counts: all units of each variant.

    Returns:
        The p-value; 1 where nobody has it, or all have.

    Source: Pearson (1900); Fisher (1935).

    Examples:
        >>> round(p_of_counts({"a": 8, "b": 1}, {"a": 10, "b": 6}), 6)
        0.034965
    """
    table = [[n, counts[label] - n] for label, n in absent.items()]
    lost, total = sum(absent.values()), sum(counts.values())
    if not 0 < lost < total:
        return 1.0
    fewest = min(counts.values()) * min(lost, total - lost) / total
    if fewest < _SMALL_CELL and len(table) == 2:
        return float(stats.fisher_exact(np.array(table)).pvalue)
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def delivery_checks(delivered: Mapping[str, Mapping[str, int]], column: str) -> list[Check]:
    """Rows whose unit met something else than most of its variant did.

    Args:
        delivered: rows by variant and by what was delivered.
        column: of what was delivered.
    """
    if not delivered:
        return []
    usual = {label: max(sorted(row), key=lambda x: row[x]) for label, row in delivered.items()}
    stray = {
        label: sum(n for met, n in row.items() if met != usual[label])
        for label, row in delivered.items()
    }
    rows = {label: sum(row.values()) for label, row in delivered.items()}
    number, total = sum(stray.values()), sum(rows.values())
    if len(set(usual.values())) < len(usual):
        text = f"most rows of two variants have the same {column!r}"
        return [Check("delivery_mismatch", "block", f"{text}: {usual}; what was compared?", usual)]
    if not number:
        return []
    told = ", ".join(f"{n:,} of {label} ({n / rows[label]:.2%})" for label, n in stray.items())
    return [
        Check(
            "delivery_mismatch",
            "block" if number > STRAY * total else "warn",
            f"{counted(number, 'row')} with a {column!r} that does not belong to the variant: "
            f"{told}; the units met another variant than the one they are counted for: drop "
            "these rows, and find out how they came about",
            {"rows": number, "by_variant": stray, "usual": usual},
        )
    ]


def effect_checks(results: Iterable[Result], *, share: float) -> list[Check]:
    """Effects that are too large to be true, and wins that were too small to be found reliably.

    Args:
        results: of all units.
        share: planned units over the units in the table, > 0.
    """
    found: list[Check] = []
    for item in results:
        e = item.estimate
        if item.segment is not None or e.status != "ok" or e.margin is not None:
            continue
        if e.difference is None or not e.standard_error:
            continue
        found += _twyman(item, e, share)
        if item.design is None and item.rejected:
            found += _cursed(item, e)
    return found


def least_effect(e: Estimate) -> float:
    """Smallest effect that a sample with this standard error finds with power 0.8."""
    tail = e.alpha / 2 if e.alternative == "two-sided" else e.alpha
    return float(stats.norm.isf(tail) + stats.norm.isf(1 - POWER)) * (e.standard_error or 0.0)


def _twyman(item: Result, e: Estimate, share: float) -> list[Check]:
    least = least_effect(e) / math.sqrt(share)
    times = abs(e.difference or 0.0) / least
    if times <= TWYMAN:
        return []
    unit = _unit(item, e)
    return [
        Check(
            "twyman",
            "warn",
            f"{item.metric}, {item.variant}: {value(e.difference, unit, signed=True)} is "
            f"{times:.3g} times the smallest effect that the design can find "
            f"({value(least, unit)}); most figures that look so good are wrong: take a second "
            "look at logging, units and exposures before believing it",
            {"metric": item.metric, "variant": item.variant, "times": times, "least": least},
        )
    ]


def _cursed(item: Result, e: Estimate) -> list[Check]:
    """A win below the minimum detectable effect, and what is left of it after shrinking."""
    least = least_effect(e)
    if abs(e.difference or 0.0) >= least:
        return []
    # Nineteen of twenty true effects lie within what the design was made to find.
    prior = Normal(0.0, least / float(stats.norm.isf(0.025)))
    kept = shrunken(e, prior)
    if kept.status != "ok" or kept.difference is None:
        return []
    unit = _unit(item, e)
    return [
        Check(
            "underpowered_win",
            "info",
            f"{item.metric}, {item.variant}: significant, but "
            f"{value(e.difference, unit, signed=True)} is less than the {value(least, unit)} that "
            f"so many units find with power {POWER:g}, so it is probably exaggerated (winner's "
            f"curse); expect about {value(kept.difference, unit, signed=True)}, if true effects "
            "lie within "
            f"{value(least, unit)} 19 times of 20",
            {
                "metric": item.metric,
                "variant": item.variant,
                "difference": e.difference,
                "least": least,
                "shrunken": kept.difference,
                "prior_sd": prior.sd,
            },
        )
    ]


def _unit(item: Result, e: Estimate) -> str:
    return "%" if e.scale == "relative" else metric_unit(item)


def reversal_check(
    what: str,
    where: str,
    pooled: tuple[Moments, Moments],
    strata: Sequence[tuple[Moments, Moments]],
    *,
    alpha: float,
    shown: bool,
) -> Check | None:
    """Simpson's paradox: the pooled difference and the one within strata have opposite signs.

    Args:
        what: metric and variant.
        where: what the strata are.
        pooled: control and treatment over all strata.
        strata: control and treatment of each.
        alpha: error probability.
        shown: whether the report's own number is the pooled one.
    """
    try:
        whole = post_stratified([pooled], weighting="precision", alpha=alpha)
        inside = post_stratified(strata, weighting="precision", alpha=alpha)
    except AbkitError:  # sums that leave the floats have been told by the comparison itself
        return None
    both = (whole.difference, inside.difference)
    if both[0] is None or both[1] is None or both[0] * both[1] >= 0:
        return None
    ps = [1.0 if e.p_value is None else e.p_value for e in (whole, inside)]
    if min(ps) > alpha:
        return None
    severity: Severity = "block" if shown and ps[0] <= alpha else "warn"
    used = "the pooled number is what the report shows" if shown else "the report compares within"
    return Check(
        "simpsons_paradox",
        severity,
        f"{what}: {both[0]:+.4g} over all units (p {ps[0]:.2g}), but {both[1]:+.4g} within "
        f"{where} (p {ps[1]:.2g}): the mix of {where} differs between the variants; {used}; "
        "believe the comparison within, once it is known why the mix differs",
        {
            "what": what,
            "where": where,
            "pooled": both[0],
            "within": both[1],
            "p_pooled": ps[0],
            "p_within": ps[1],
        },
    )


def opposite_checks(results: Iterable[Result]) -> list[Check]:
    """Segments in which the effect is significant both ways."""
    sides: dict[tuple[str, str, str], dict[bool, list[str]]] = {}
    for item in results:
        e = item.estimate
        if item.segment is None or not item.rejected or not e.difference or e.margin is not None:
            continue
        column, label = item.segment
        found = sides.setdefault((item.metric, item.variant, column), {})
        found.setdefault(e.difference > 0, []).append(label)
    return [
        Check(
            "opposite_segments",
            "warn",
            f"{metric}, {variant}: the effect is positive where {column} is "
            f"{', '.join(found[True])} and negative where it is {', '.join(found[False])}; the "
            "number of all units is an average of opposites: decide by segment",
            {
                "metric": metric,
                "variant": variant,
                "column": column,
                "positive": found[True],
                "negative": found[False],
            },
        )
        for (metric, variant, column), found in sides.items()
        if len(found) == 2
    ]


def segment_split_checks(
    segments: Mapping[tuple[str, str], Mapping[str, int]], shares: Mapping[str, float]
) -> list[Check]:
    """Segments whose split is not what was intended, among all that were looked at (e-BH).

    Args:
        segments: rows by column and value of the segment, and by variant.
        shares: intended share of each variant.
    """
    if not segments or len(shares) < 2:
        return []
    tests = {
        key: balance_test(dict(counts), dict(shares), share_shift=PART_SHIFT)
        for key, counts in segments.items()
    }
    e_values = [test.e_value for test in tests.values()]
    blocked = e_bh(e_values, alpha=1 / SRM_BLOCK).rejected
    warned = e_bh(e_values, alpha=1 / SRM_WARN).rejected
    off = {key: b for key, b, w in zip(tests, blocked, warned, strict=True) if w}
    if not off:
        return []
    told = "; ".join(
        f"{column}={label} ({', '.join(f'{n:,} {v}' for v, n in segments[column, label].items())}"
        f", e-value {tests[column, label].e_value:.3g})"
        for column, label in off
    )
    return [
        Check(
            "segment_ratio_mismatch",
            "block" if any(off.values()) else "warn",
            f"{len(off)} of {len(tests)} segments are split otherwise than intended: {told}; "
            "units are lost there, or the segment is an effect of the variant",
            {
                "tested": len(tests),
                "off": {f"{c}={label}": tests[c, label].e_value for c, label in off},
            },
        )
    ]
