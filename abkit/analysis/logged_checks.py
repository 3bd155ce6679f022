"""What is looked at before the units of a log are compared: split, crossovers, maturity."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from abkit.analysis.windows import told_span, told_time
from abkit.check import Check
from abkit.errors import DataError
from abkit.store.logged import EPOCH, VARIANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from abkit.metrics import Metric
    from abkit.store.logged import Scope, Units, Watermark

Shares = Mapping[int, Mapping[str, float]]


def check_units(units: Units, scope: Scope, path: Path) -> None:
    """Stop where there is no unit to compare.

    Args:
        units: what was found.
        scope: what was looked for.
        path: of the workspace, for the message.

    Raises:
        DataError: nobody was exposed yet, or nobody long enough ago.
    """
    key, (first, last) = scope.experiment, scope.epochs
    if not units.exposed:
        raise DataError(
            f"no exposure of {key!r} in epochs {first} to {last} is in the log of "
            f"{os.fspath(path)!r} yet; serving logs one with expose()"
        )
    if not units.matured and scope.window_seconds is not None and units.first is not None:
        ripe = units.first + timedelta(seconds=scope.window_seconds)
        raise DataError(
            f"none of {units.exposed:,} units was exposed {told_span(scope.window_seconds)} before "
            f"{told_time(scope.watermark)}, up to which there is data; the first matures at "
            f"{told_time(ripe)}"
        )


def cells_of(units: Units) -> dict[int, dict[str, int]]:
    """Units by epoch and variant."""
    found: dict[int, dict[str, int]] = {}
    counted = units.table.group_by([EPOCH, VARIANT]).aggregate([([], "count_all")]).to_pylist()
    for row in counted:
        found.setdefault(row[EPOCH], {})[row[VARIANT]] = row["count_all"]
    return dict(sorted(found.items()))


def shares_of(units: Units, known: Shares) -> tuple[Shares | None, list[Check]]:
    """Intended shares of all epochs that have units; None where one is not known."""
    cells = cells_of(units)
    found: dict[int, dict[str, float]] = {}
    checks: list[Check] = []
    seen = {name for counts in cells.values() for name in counts}
    for epoch, counts in cells.items():
        shares = {name: x for name, x in known.get(epoch, {}).items() if x > 0}
        if not shares:
            continue
        odd = [f"{n:,} of {name}" for name, n in counts.items() if name not in shares]
        absent = [f"{name} ({shares[name]:.3g})" for name in shares if name not in seen]
        if odd:
            checks.append(
                Check(
                    "unplanned_variant",
                    "warn",
                    f"epoch {epoch} has units of a variant that had no share in it: "
                    f"{', '.join(odd)}; the split was not tested",
                )
            )
        if absent:
            checks.append(
                Check(
                    "absent_variant",
                    "block",
                    f"epoch {epoch} gave a share to a variant of which no unit was logged: "
                    f"{', '.join(absent)}; find out what became of them",
                )
            )
        if not odd and not absent:
            found[epoch] = shares
    return (found if set(found) == set(cells) else None), checks


def weights_of(shares: Shares | None, *, ramp: bool) -> dict[str, Any] | None:
    """Intended split as `analyze` takes it."""
    if shares is None:
        return None
    if ramp:
        return {str(epoch): dict(item) for epoch, item in shares.items()}
    return dict(next(iter(shares.values())))


def unit_checks(units: Units) -> list[Check]:
    """Units that met two variants, or one of them again."""
    found = []
    within, across = units.crossed_within, units.crossed - units.crossed_within
    if within:
        found.append(
            Check(
                "crossover_units",
                "block",
                f"{within:,} units met two variants in one epoch; each counts for its first one "
                "until then, but the assignment is not stable: find out why",
            )
        )
    if across > 0:
        found.append(
            Check(
                "crossover_units",
                "info",
                f"{across:,} units met a second variant when the allocation changed; each counts "
                "for its first one, until then",
            )
        )
    if units.repeated:
        found.append(
            Check(
                "repeated_units",
                "info",
                f"{units.repeated:,} of {units.exposed:,} units were exposed more than once; "
                "their first exposure counts",
            )
        )
    return found


def unseen_checks(names: Sequence[str]) -> list[Check]:
    """Declared metrics that nobody has recorded."""
    if not names:
        return []
    text = f"no outcome of {', '.join(names)} is in the log, though the experiment declares "
    text += "it" if len(names) == 1 else "them"
    return [Check("unrecorded_metrics", "warn", f"{text}; left out")]


def metric_check(metrics: Iterable[Metric]) -> Check:
    """How outcomes became one number a unit, and which direction is better."""
    told = []
    for metric in {metric.key: metric for metric in metrics}.values():
        side = "more" if metric.direction == "increase" else "less"
        aggregate = {"max": "largest", "mean": "mean"}.get(str(metric.aggregate), metric.aggregate)
        absent = "0 without one" if metric.missing == "zero" else "units without one left out"
        logarithm = "logarithm of the " if metric.log else ""
        told.append(
            f"{metric.key}: {logarithm}{aggregate} of a unit's outcomes, {absent}, {side} is better"
        )
    return Check("metrics", "info", "; ".join(told))


def watermark_check(units: Units, scope: Scope, watermark: Watermark | None) -> Check:
    """Which units and outcomes are seen, and up to when."""
    until = told_time(scope.watermark)
    text = f"{units.exposed:,} units; outcomes until {until}"
    if scope.window_seconds is not None:
        text = (
            f"matured: {units.matured:,} of {units.exposed:,} units; outcomes within "
            f"{told_span(scope.window_seconds)} of exposure, data until {until}"
        )
    if watermark is not None and watermark.newest - watermark.time > timedelta(minutes=1):
        text += (
            " (a live writer has logged nothing since; others have until "
            f"{told_time(watermark.newest)})"
        )
    return Check("watermark", "info", text)
