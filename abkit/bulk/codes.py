"""Units as text -> the number of each one's outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb import ColumnExpression as Column

from abkit.bucketing.scheme import scheme
from abkit.bulk.columns import BATCH, TEXT
from abkit.bulk.plan import Plan, codes_where
from abkit.bulk.stages import Stages, bucket, connect, decide_all
from abkit.compiler import compile_arms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from abkit.bulk.conditions import Flags

FEW = 10_000
"""Up to so many units a loop is done before DuckDB has started."""
_HASHED = ("split", "rollout")


@dataclass(frozen=True, slots=True)
class Codes:
    """What each row gets.

    Args:
        plan: tells what the codes mean.
        codes: code by row.
        buckets: Arrow array of the buckets, NULL where none was needed; None unless asked for.
    """

    plan: Plan
    codes: NDArray[np.int32]
    buckets: Any = None

    def names(self, column: int) -> tuple[list[str], NDArray[np.int16]]:
        """All variants (column 0) or reasons (column 1), and each row's place among them."""
        names: list[str] = [*(self.plan.variants if column == 0 else self.plan.reasons)]
        places = [names.index(outcome[column]) for outcome in self.plan.outcomes]
        return names, np.array(places, np.int16)[self.codes]

    @property
    def in_experiment(self) -> Flags:
        """Whether each row counts in the analysis."""
        inside = np.array([reason == "split" for _, reason in self.plan.outcomes])
        flags: Flags = inside[self.codes]
        return flags


def codes_of(
    plan: Plan, text: Any, met: Flags | None = None, *, detail: bool = False, progress: bool = False
) -> Codes:
    """The code of each unit.

    Args:
        plan: the experiment.
        text: Arrow column of the units as text, NULL where a value is no unit.
        met: whether each row meets the targeting; None where that is no question.
        detail: work out the buckets too.
        progress: show a bar in the terminal.
    """
    decide = _by_stages if plan.in_sql and len(text) > FEW else _by_closure
    parts = [
        decide(plan, text.slice(at, size), _sliced(met, at, size), detail=detail)
        for at, size in _pieces(len(text), progress=progress)
    ]
    if len(parts) == 1:
        return parts[0]
    codes = np.concatenate([part.codes for part in parts])
    buckets = pa.chunked_array([part.buckets for part in parts], pa.int64()) if detail else None
    return Codes(plan, codes, buckets)


def _pieces(rows: int, *, progress: bool) -> Iterable[tuple[int, int]]:
    """Begin and size of each piece: one, unless their number is to be watched."""
    if not progress:
        return [(0, rows)]
    from rich.progress import track  # noqa: PLC0415 - only for those who watch

    pieces = [(at, min(BATCH, rows - at)) for at in range(0, max(rows, 1), BATCH)]
    return track(pieces, description="assigning")


def _sliced(met: Flags | None, at: int, size: int) -> Flags | None:
    return None if met is None else met[at : at + size]


def _by_stages(plan: Plan, text: Any, met: Flags | None, *, detail: bool) -> Codes:
    """In DuckDB, for abkit's own hashes."""
    columns = {"text": text}
    overrides = plan.overrides
    if overrides:
        place = _flat(pc.index_in(text, value_set=pa.array(list(overrides), TEXT)))
        columns["given"] = pa.array(list(overrides.values()), pa.int32()).take(place)
    if met is not None:
        columns["met"] = pa.array(met)
    wanted = [Column("code")]
    with connect() as connection:
        stages = decide_all(
            Stages(connection.from_arrow(pa.table(columns)), "text", "code", "digest"),
            plan,
            given=Column("given") if overrides else None,
            met=None if met is None else Column("met"),
        )
        if detail:
            wanted.append(bucket(stages, plan).alias("bucket"))
        found = stages.relation.select(*wanted).to_arrow_table()
    codes = found.column("code").to_numpy()
    return Codes(plan, codes, _flat(found.column("bucket")) if detail else None)


def _flat(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _by_closure(plan: Plan, text: Any, met: Flags | None, *, detail: bool) -> Codes:
    """By serving's own closure for each distinct unit: for a few, and for vendors' hashes."""
    # Targeting comes after all that keeps a unit out and before all that is hashed: a row that
    # misses it is told from one that does not by what the unit would get without.
    item = replace(plan.experiment, targeting=None)
    choose = compile_arms(item, layers=plan.bound.layers, holdouts=plan.bound.holdouts)
    encoded = _flat(text).dictionary_encode()
    units = [*encoded.dictionary.to_pylist(), None]
    code_of = {outcome: code for code, outcome in enumerate(plan.outcomes)}
    arms = [choose(unit, None) for unit in units]
    by_unit = np.array([code_of[arm.variant, arm.reason] for arm in arms], np.int32)
    places = pc.fill_null(encoded.indices, len(units) - 1).to_numpy(zero_copy_only=False)
    codes = by_unit[places]
    hashed = np.isin(codes, codes_where(plan, _HASHED))
    if met is not None and plan.experiment.state == "running":
        codes[hashed & ~met] = plan.out("targeting")
        hashed &= met
    if not detail:
        return Codes(plan, codes)
    slot, salt = scheme(item.hash).split, item.salt
    buckets = np.array(
        [slot.bucket(salt, unit) if arm.hash else 0 for unit, arm in zip(units, arms, strict=True)]
    )
    return Codes(plan, codes, pa.array(buckets[places], pa.int64(), mask=~hashed))
