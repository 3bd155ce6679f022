"""Frames of pandas, polars and Arrow: the same frame with what each row gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from abkit.bulk.codes import Codes, codes_of
from abkit.bulk.columns import text_of_arrow, text_of_pandas, text_of_polars
from abkit.bulk.conditions import attributes_of, met_by
from abkit.errors import DataError
from abkit.records import hint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from abkit.bulk.conditions import Flags
    from abkit.bulk.plan import Plan

ADDED = ("variant", "reason", "in_experiment")
DETAIL = ("bucket", "epoch")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of a frame.

    Args:
        plan: the experiment.
        unit: name of the column of units.
        attributes: names of the columns that targeting may see; True for all, False for none.
        detail: whether to add the bucket and the epoch too.
        progress: whether to show a bar.
    """

    plan: Plan
    unit: str
    attributes: bool | Sequence[str]
    detail: bool
    progress: bool

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that are added."""
        return ADDED + DETAIL if self.detail else ADDED

    @property
    def where(self) -> str:
        """The column of units, in messages."""
        return f"the unit column {self.unit!r}"

    def seen(self, names: Sequence[Any]) -> list[str]:
        """The columns that targeting has to see, of those there are.

        Raises:
            DataError: the unit's column or an attribute's is not there, is there twice, or a
                column has the name of one that is to be added.
        """
        known = {name: None for name in names if isinstance(name, str)}
        if self.unit not in known:
            raise DataError(f"no column {self.unit!r} for the unit{hint(self.unit, known)}")
        for name in self.added:
            if name in known:
                raise DataError(
                    f"there is a column {name!r} already; rename or drop it: assign_many adds one"
                )
        allowed: Sequence[str] = []
        if isinstance(self.attributes, bool):
            allowed = list(known) if self.attributes else []
        else:
            allowed = list(self.attributes)
            for name in allowed:
                if name not in known:
                    raise DataError(f"no column {name!r} for an attribute{hint(name, known)}")
        asked = attributes_of(self.plan.experiment.targeting)
        seen = [name for name in asked if name in allowed]
        for name in (self.unit, *seen):
            if list(names).count(name) > 1:
                raise DataError(f"there is more than one column {name!r}; rename or drop one")
        return seen

    def codes(self, text: Any, seen: Sequence[str], column: Callable[[str], Any]) -> Codes:
        """The code of each row, given a function from name to the column of an attribute."""
        return codes_of(
            self.plan,
            text,
            met(self.plan, {name: column(name) for name in seen}, len(text)),
            detail=self.detail,
            progress=self.progress,
        )


def met(plan: Plan, columns: dict[str, Any], rows: int) -> Flags | None:
    """Whether each row meets the experiment's targeting; None where there is none to meet."""
    item = plan.experiment
    if item.targeting is None or item.state != "running":
        return None
    return met_by(item.targeting, columns, rows)


def named(codes: Codes, column: int) -> Any:
    """Variants (column 0) or reasons (column 1) as an Arrow dictionary array."""
    names, places = codes.names(column)
    return pa.DictionaryArray.from_arrays(pa.array(places), pa.array(names, pa.string()))


def _epochs(codes: Codes) -> Any:
    return np.full(len(codes.codes), codes.plan.experiment.epoch, np.int64)


def add_to_arrow(request: Request, table: Any) -> Any:
    """An Arrow table or record batch with the columns appended."""
    seen = request.seen(table.schema.names)
    text = text_of_arrow(table.column(request.unit), request.where)
    return append(request, table, request.codes(text, seen, table.column))


def append(request: Request, table: Any, codes: Codes) -> Any:
    """An Arrow table or record batch with what the codes say."""
    added = [named(codes, 0), named(codes, 1), pa.array(codes.in_experiment)]
    if request.detail:
        added += [codes.buckets, pa.array(_epochs(codes))]
    for name, values in zip(request.added, added, strict=True):
        table = table.append_column(name, values)
    return table


def add_to_pandas(request: Request, frame: Any) -> Any:
    """A pandas frame with the columns appended: categories, and nullable whole numbers."""
    import pandas as pd  # noqa: PLC0415 - it made the frame, so it is there

    seen = request.seen(list(frame.columns))
    text = text_of_pandas(frame[request.unit], request.where)
    codes = request.codes(text, seen, lambda name: _of_pandas(frame[name]))
    added: list[Any] = [categories(codes, 0), categories(codes, 1), codes.in_experiment]
    if request.detail:
        buckets = codes.buckets.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        added += [buckets.array, _epochs(codes)]
    return frame.assign(**dict(zip(request.added, added, strict=True)))


def categories(codes: Codes, column: int) -> Any:
    """Variants (column 0) or reasons (column 1) as a pandas Categorical."""
    import pandas as pd  # noqa: PLC0415 - whoever asks has it

    names, places = codes.names(column)
    return pd.Categorical.from_codes(places, categories=pd.Index(names))


def _of_pandas(series: Any) -> Any:
    """An attribute as an Arrow array, or as a list where the values are any objects."""
    if series.dtype == object:
        return series.tolist()
    try:
        return pa.array(series, from_pandas=True)
    except (UnicodeEncodeError, pa.ArrowException, TypeError, ValueError):
        return series.tolist()


def add_to_polars(request: Request, frame: Any) -> Any:
    """A polars frame with the columns appended; variants and reasons are categories."""
    import polars as pl  # noqa: PLC0415 - it made the frame, so it is there

    seen = request.seen(frame.columns)
    text = text_of_polars(frame.get_column(request.unit), request.where)
    codes = request.codes(text, seen, lambda name: of_polars(frame.get_column(name)))
    added = [pl.from_arrow(named(codes, 0)), pl.from_arrow(named(codes, 1))]
    added.append(pl.Series(codes.in_experiment))
    if request.detail:
        added += [pl.from_arrow(codes.buckets), pl.Series(_epochs(codes))]
    pairs = zip(request.added, added, strict=True)
    return frame.with_columns(series.alias(name) for name, series in pairs)  # type: ignore[union-attr]


def of_polars(series: Any) -> Any:
    """An attribute as an Arrow array, or as a list where Arrow has no such type."""
    kind = str(series.dtype)
    return (
        series.to_list() if kind.startswith(("Object", "Int128", "UInt128")) else series.to_arrow()
    )


def add_to_lazy_polars(request: Request, frame: Any) -> Any:
    """A polars lazy frame with the columns appended, assigned when it is collected."""
    import polars as pl  # noqa: PLC0415 - it made the frame, so it is there

    schema = frame.collect_schema()
    # What is wrong with the columns is said here and not when it is collected.
    empty = add_to_polars(request, pl.DataFrame(schema=schema))
    return frame.map_batches(
        lambda batch: add_to_polars(request, batch), schema=empty.schema, streamable=True
    )
