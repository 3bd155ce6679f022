"""What an analysis reads of a table: cells of rows, clusters or pairs, and order statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abkit.analysis import checks
from abkit.analysis.kinds import interval_levels, ranks_for
from abkit.analysis.report import Check
from abkit.comoments import Comoments
from abkit.errors import ConfigError, DataError
from abkit.records import counted
from abkit.stats.ratio import linearised
from abkit.store.counted import check_counts
from abkit.store.folds import (
    SIZE,
    control_side,
    read_clusters,
    read_pairs,
    single_units,
    treatment_side,
)
from abkit.store.orders import Ordered, read_orders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.options import Options
    from abkit.estimate import Alternative, BalanceTest
    from abkit.store.cells import Facts, Key
    from abkit.store.table import UnitTable

Cells = Mapping[tuple[str, ...], Mapping["Key", Any]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was read.

    Args:
        cells: by family of columns, or by the name of a quantile, what each cell holds.
        facts: by column what its values are like.
        counts: randomised units or clusters, by epoch and variant.
        checks: what reading found.
    """

    cells: Cells
    facts: Mapping[str, Facts]
    counts: Mapping[str, Mapping[str, int]]
    checks: tuple[Check, ...] = ()


def gather(
    table: UnitTable,
    options: Options,
    control: str,
    caps: Mapping[str, tuple[float, float]],
) -> Gathered:
    """Read what the options need, each kind by one pass whatever the number of its metrics.

    Args:
        table: what was loaded.
        options: of the analysis.
        control: which variant is control.
        caps: lowest and highest value of columns that are winsorised.
    """
    families = list(dict.fromkeys(map(options.family, options.terms())))
    told: list[Check] = []
    counts: Mapping[str, Mapping[str, int]] = table.epoch_counts()
    found: dict[tuple[str, ...], Mapping[Key, Any]] = {}
    facts: Mapping[str, Facts] = {}
    if options.cluster is not None:
        clusters = read_clusters(table, options.cluster, families, caps)
        facts, counts = clusters.facts, clusters.counts
        for family, sums in clusters.cells.items():
            shifts = [clusters.shifts[name] for name in family]
            found[family] = {key: by_row(cell, shifts) for key, cell in sums.items()}
        told.append(_cluster_check(options.cluster, counts, table.counts))
    elif families:
        binary = [name for name, kind in options.kinds.items() if kind == "proportion"]
        cells, facts = table.cells(families, caps, binary)
        found.update(cells)
    if options.paired:
        singles = single_units(table, control)
        found.update(read_pairs(table, control, families, caps))
        told += [
            Check(
                "single_units",
                "warn",
                f"{counted(single.n, 'unit')} with a row of {control!r} or {name!r}, not of both, "
                f"such as {single.example!r}; left out, which is harmless only if what is missing "
                "does not depend on the answer",
            )
            for name, single in singles.items()
        ]
    if options.counts:
        check_counts(table, options.counted())
    if options.quantiles:
        found.update(_orders(table, options, control))
    return Gathered(found, facts, counts, tuple(told))


def by_row(cell: Comoments, shifts: Sequence[float]) -> Comoments:
    """Means over rows with the spread that clusters give them, as if each cluster were a unit.

    A mean over all rows is the ratio of the clusters' sums to their sizes, and moves with cluster
    i by (sum - mean size) / mean size (delta method). What works on means of independent units
    works on these values: n counts clusters.

    Args:
        cell: sums of each column, the shift taken off every row, and sizes (column `SIZE`).
        shifts: of each column but the last.

    Source: Liang, Zeger (1986); Deng, Knoblich, Lu (2018).
    """
    names = cell.names[:-1]
    if not cell.n:
        return Comoments.empty(names)
    found = linearised(cell, [(name, SIZE) for name in names])
    if found is None:
        raise DataError(f"values of {', '.join(map(repr, names))} are too large for their squares")
    means = tuple(mean + shift for mean, shift in zip(found.means, shifts, strict=True))
    return Comoments(names, found.n, means, found.products)


def _orders(
    table: UnitTable, options: Options, control: str
) -> dict[tuple[str, ...], Mapping[Key, Any]]:
    wanted: dict[str, list[float]] = {}
    for column, level in options.quantiles.values():
        wanted.setdefault(column, []).append(level)
    treatments = sum(name != control for name in table.counts)
    sides: dict[Alternative, None] = {options.alternative: None}
    for border in (*options.margins.values(), *options.shares.values()):
        sides["greater" if border < 0 else "less"] = None

    def ranks(n: int, level: float, places: int) -> set[int]:
        family = treatments * len(options.names())
        families = [(family, options.correction)]
        if places:
            families.append((family * places, options.correction or "holm"))
        return ranks_for(n, level, interval_levels(options.alpha, families), list(sides))

    found = read_orders(table, wanted, ranks)
    return {(name,): found[item] for name, item in options.quantiles.items()}


def _cluster_check(
    cluster: str, counts: Mapping[str, Mapping[str, int]], rows: Mapping[str, int]
) -> Check:
    totals = {name: sum(epoch.get(name, 0) for epoch in counts.values()) for name in rows}
    listed = ", ".join(
        f"{totals[name]:,} of {name} ({counted(n, 'row')})" for name, n in rows.items()
    )
    few = min(totals.values()) < 20
    advice = "; fewer than 20 in an arm make intervals too narrow" if few else ""
    return Check(
        "clusters",
        "warn" if few else "info",
        f"compared by cluster {cluster!r}, which is what was randomised: {listed}{advice}",
    )


def split_checks(
    options: Options,
    counts: Mapping[str, Mapping[str, int]],
    weights: Mapping[str, Any] | None,
    rows: Mapping[str, int],
) -> tuple[BalanceTest | None, Check]:
    """Test of the split of what was randomised: units or clusters."""
    if options.paired:
        if weights is not None:
            raise ConfigError("paired units are in both variants; leave weights out")
        return None, checks.paired_split_check(rows)
    srm, expected = checks.split_test(counts, weights, ramp=options.epoch is not None)
    totals = {name: sum(epoch.get(name, 0) for epoch in counts.values()) for name in rows}
    return srm, checks.split_check(srm, totals, expected)


def counted_arms(options: Options, cells: Cells) -> dict[str, dict[str, Any]]:
    """Comoments of all units by count and variant, where Poisson's variance is relied on.

    Designs have tests of their own, and say themselves what these rest on.
    """
    found: dict[str, dict[str, Any]] = {}
    if options.follow is not None and not options.follow.once:
        return found
    for name in options.counts:
        found[name] = {
            key.variant: cell
            for key, cell in cells[options.family(name)].items()
            if not key.segment
        }
    return found


def nobody(family: tuple[str, ...], metric: str, options: Options) -> Any:
    """An arm without units."""
    if metric in options.quantiles:
        return Ordered()
    if options.paired:
        sides = (control_side, treatment_side)
        return Comoments.empty([side(name) for side in sides for name in family])
    return Comoments.empty(family)
