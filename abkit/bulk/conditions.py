"""Targeting over columns: each test once per distinct value, by the closure that serving uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from abkit.targeting import All, Leaf, Not, compile_condition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from abkit.targeting import Condition

    Flags = NDArray[np.bool_]

_EXACT = 2**53  # whole numbers up to here are the same as doubles
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "at_least": np.greater_equal,
    "above": np.greater,
    "at_most": np.less_equal,
    "below": np.less,
}


def attributes_of(condition: Condition | None) -> list[str]:
    """Names of the attributes that a condition asks for."""
    if condition is None:
        return []
    if isinstance(condition, Leaf):
        return [condition.attribute]
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts
    return list(dict.fromkeys(name for part in parts for name in attributes_of(part)))


def met_by(condition: Condition, columns: Mapping[str, Any], rows: int) -> Flags:
    """Whether each row meets the condition.

    Args:
        condition: of the experiment.
        columns: by attribute, an Arrow array or a list of Python objects; what has no column is
            absent in every row, as is what is NULL.
        rows: number of rows.
    """
    if isinstance(condition, Not):
        return ~met_by(condition.part, columns, rows)
    if isinstance(condition, Leaf):
        return _leaf(condition, columns.get(condition.attribute), rows)
    every = isinstance(condition, All)
    found = np.full(rows, every)
    for part in condition.parts:
        flags = met_by(part, columns, rows)
        found = found & flags if every else found | flags
    return found


def _leaf(leaf: Leaf, column: Any, rows: int) -> Flags:
    if column is None:
        return np.zeros(rows, bool)  # a test of what is absent is not met
    if isinstance(column, list):
        return _one_by_one(leaf, column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    flags: Flags
    if leaf.op in _COMPARE and _compares(kind, leaf.value) and not column.null_count:
        flags = _COMPARE[leaf.op](column.to_numpy(zero_copy_only=False), leaf.value)
        return flags
    if _is_list(kind):
        return _one_by_one(leaf, column.to_pylist())
    if not (pa.types.is_dictionary(kind) or _is_plain(kind)):
        return np.zeros(rows, bool)  # dates and the like meet no test
    if not pa.types.is_dictionary(kind):
        column = column.dictionary_encode()
    values = [*column.dictionary.to_pylist(), None]
    places = pc.fill_null(pc.cast(column.indices, pa.int64()), len(values) - 1)
    flags = _one_by_one(leaf, values)[places.to_numpy(zero_copy_only=False)]
    return flags


def _one_by_one(leaf: Leaf, values: list[Any]) -> Flags:
    met, name = compile_condition(leaf), leaf.attribute
    return np.fromiter((met({name: value}) for value in values), bool, len(values))


def _compares(kind: Any, value: float) -> bool:
    """Whether numpy compares such a column with the value as Python would: exactly."""
    if pa.types.is_float64(kind):
        return isinstance(value, float) or abs(value) <= _EXACT
    return bool(pa.types.is_int64(kind)) and type(value) is int and abs(value) < 2**63


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_plain(kind: Any) -> bool:
    return bool(
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    )
