"""Every doubt that a table raises about its own comparison, from one query more at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abkit.analysis.doubts import (
    delivery_checks,
    effect_checks,
    missing_checks,
    opposite_checks,
    reversal_check,
    segment_split_checks,
)
from abkit.analysis.outliers import outlier_checks
from abkit.analysis.over_time import calendar_checks, series_checks, series_of
from abkit.moments import Moments
from abkit.store.probe import Probe, probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from abkit.analysis.compare import Stratum
    from abkit.analysis.gather import Cells, Gathered
    from abkit.analysis.options import Options
    from abkit.analysis.report import Result
    from abkit.check import Check
    from abkit.store.table import UnitTable


@dataclass(frozen=True, slots=True)
class Examined:
    """What is looked at beside the comparison.

    Args:
        probe: what was read for it.
        missing: whether rows without a value are left out ("exclude") or count as 0.
        delivered: column of what units really met; None without one.
        shares: intended share by variant; empty where it is not one for all rows.
    """

    probe: Probe
    missing: str
    delivered: str | None
    shares: Mapping[str, float]


def probed(
    table: UnitTable,
    options: Options,
    read: Gathered,
    caps: Mapping[str, tuple[float, float]],
    delivered: str | None,
) -> Probe:
    """Read what the checks need; nothing where rows are not units."""
    if options.paired:
        return Probe()
    of_rows = options.cluster is None
    once = options.follow is None or options.follow.once
    means = [
        name
        for name, kind in options.kinds.items()
        if of_rows and once and kind != "proportion" and not read.facts[name].binary
    ]
    return probe(
        table,
        means=means,
        metrics=list(options.kinds) if of_rows else [],
        caps=caps,
        delivered=delivered,
    )


def examined(  # noqa: PLR0917 - what the analysis has at its end
    found: Examined,
    results: Sequence[Result],
    options: Options,
    read: Gathered,
    cells: Cells,
    counts: Mapping[str, int],
) -> list[Check]:
    """Checks of the finished comparison.

    Args:
        found: what was looked at.
        results: of all units and of segments.
        options: of the analysis.
        read: what was read of the table.
        cells: the moments, all looks together.
        counts: rows per variant.
    """
    overall = [item for item in results if item.segment is None]
    share = 1.0
    if options.follow is not None and options.follow.planned_units is not None:
        share = options.follow.planned_units / max(1, sum(counts.values()))
    checks = delivery_checks(found.probe.delivered, found.delivered or "")
    if not options.paired:
        checks += missing_checks(
            read.facts, counts, list(options.kinds), left_out=found.missing == "exclude"
        )
    if options.epoch is None and options.cluster is None:
        checks += segment_split_checks(found.probe.segments, found.shares)
    strata = _strata(overall, options, cells)
    checks += outlier_checks(overall, strata, found.probe.extremes, options)
    checks += effect_checks(overall, share=share)
    checks += _reversals(overall, options, cells, found.probe)
    checks += opposite_checks(results)
    checks += calendar_checks(found.probe.span)
    return checks + series_checks(_series(overall, options, found.probe))


def _strata(
    results: Iterable[Result], options: Options, cells: Cells
) -> dict[tuple[str, str], list[Stratum]]:
    """Epoch, control and treatment of each result on means."""
    found = {}
    for item in results:
        if item.kind != "mean" or item.estimate.status != "ok" or options.paired:
            continue
        inside = {k: v for k, v in cells[options.family(item.metric)].items() if not k.segment}
        epochs = sorted({key.epoch for key in inside})
        arms = [
            (e, *(_at(inside, name, e) for name in (item.control, item.variant))) for e in epochs
        ]
        found[item.metric, item.variant] = [
            (e, c, t) for e, c, t in arms if c is not None and t is not None
        ]
    return found


def _at(cells: Mapping[Any, Any], variant: str, epoch: str) -> Any:
    return next((v for k, v in cells.items() if (k.variant, k.epoch) == (variant, epoch)), None)


def _series(results: Iterable[Result], options: Options, probe: Probe) -> dict[Any, Any]:
    """Effects over time; where the allocation changes, slices of an epoch would be needed."""
    if options.epoch is not None or options.cluster is not None:
        return {}
    return {
        (item.metric, item.variant): series_of(probe, item.metric, item.control, item.variant)
        for item in results
        if item.metric in options.kinds and probe.slices
    }


def _reversals(
    results: Iterable[Result], options: Options, cells: Cells, probe: Probe
) -> list[Check]:
    """Where epochs, segments or slices of time say the opposite of all units."""
    found = []
    for item in results:
        if item.metric not in options.kinds or options.paired or options.cluster is not None:
            continue
        what = f"{item.metric}, {item.variant}"
        parts = _parts(item, options, cells)
        if options.epoch is None and probe.slices:
            parts["slices of time"] = series_of(probe, item.metric, item.control, item.variant)[1]
        for where, strata in parts.items():
            usable = [(c, t) for c, t in strata if min(c.n, t.n) > 1]
            if len(usable) < 2:
                continue
            pooled = _sum([c for c, _ in strata]), _sum([t for _, t in strata])
            check = reversal_check(
                what, where, pooled, usable, alpha=options.alpha, shown=where != "epochs"
            )
            found += [] if check is None else [check]
    return found


def _parts(item: Result, options: Options, cells: Cells) -> dict[str, list[Any]]:
    """Control and treatment by epoch, and by value of each segment."""
    by: dict[str, dict[str, dict[str, Moments]]] = {}
    for key, cell in cells[options.family(item.metric)].items():
        where = f"values of {key.segment!r}" if key.segment else "epochs"
        part = key.value if key.segment else key.epoch
        arms = by.setdefault(where, {}).setdefault(part, {})
        arms[key.variant] = arms.get(key.variant, Moments()) + cell.moments(item.metric)
    if options.epoch is None:
        by.pop("epochs", None)
    else:  # within epochs only: a segment's parts would mix them again
        by = {"epochs": by.get("epochs", {})}
    names = (item.control, item.variant)
    return {
        where: [tuple(arms.get(name, Moments()) for name in names) for arms in parts.values()]
        for where, parts in by.items()
    }


def _sum(parts: Sequence[Moments]) -> Moments:
    total = Moments()
    for part in parts:
        total = total + part
    return total
