"""Units from anywhere as an Arrow column of text, NULL where a value can be no unit.

Python objects are judged one by one, as a request would. A typed column is judged by its type: a
column of floats (such as whole numbers that pandas widened for a missing one) holds no units at
all, and saying so beats serving control to everybody.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from abkit.assignment import unit_text
from abkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb.sqltypes import DuckDBPyType

TEXT = pa.large_string()
BATCH = 1_000_000
_ONLY_INTS = {int, type(None)}
_INTS = ("tinyint", "smallint", "integer", "bigint", "hugeint")
_SQL_TYPES = {"varchar", "enum", "null", *_INTS, *(f"u{name}" for name in _INTS)}


def no_units(where: str, kind: object, example: str) -> DataError:
    """The error for a column that can hold no unit."""
    return DataError(
        f"{where} holds {kind}, but a unit is text or a whole number; cast it first: {example}"
    )


def text_of_objects(values: Sequence[object]) -> Any:
    """Python objects as text; what is no unit becomes NULL."""
    parts = [_batch(values[at : at + BATCH]) for at in range(0, len(values), BATCH)]
    # A batch of over 2 GB comes in several chunks.
    chunks = (part.chunks if isinstance(part, pa.ChunkedArray) else [part] for part in parts)
    return pa.chunked_array([chunk for part in chunks for chunk in part], TEXT)


def _batch(values: Sequence[object]) -> Any:
    try:
        found = pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
        found = None  # a mixture, lone surrogates, or numbers over 64 bits
    if found is not None and _is_safe(found.type, values):
        return pc.cast(found, TEXT)
    return pa.array([unit_text(value) for value in values], TEXT)


def _is_safe(kind: Any, values: Sequence[object]) -> bool:
    """Whether Arrow took the objects for what serving takes them for."""
    # Numpy's truth values become numbers beside others that are numbers.
    ints = pa.types.is_int64(kind) and set(map(type, values)) <= _ONLY_INTS
    return bool(pa.types.is_string(kind) or ints)


def text_of_arrow(values: Any, where: str) -> Any:
    """An Arrow array of texts or whole numbers as text.

    Args:
        values: an Array or ChunkedArray.
        where: what it is, for messages.

    Raises:
        DataError: its type can hold no unit.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        inner = kind.value_type
        if _is_text(inner) or pa.types.is_integer(inner):
            return pc.cast(pc.cast(values, inner), TEXT)
    elif _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind):
        return pc.cast(values, TEXT)
    raise no_units(where, kind, "pyarrow.compute.cast(units, 'int64') or 'string'")


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_string_view(kind)
    )


def text_of_numpy(values: Any, where: str) -> Any:
    """A numpy array of texts, whole numbers or objects as text.

    Raises:
        DataError: its type can hold no unit, or it has not one dimension.
    """
    if values.ndim != 1:
        raise DataError(f"{where} has {values.ndim} dimensions; a column of units has one")
    if values.dtype.kind in "iu":
        return text_of_arrow(pa.array(values), where)
    if values.dtype.kind in "OUT":
        return text_of_objects(values.tolist())
    raise no_units(where, values.dtype, "units.astype('int64') or astype(str)")


def text_of_pandas(values: Any, where: str) -> Any:
    """A pandas Series or Index of texts, whole numbers, categories or objects as text.

    Raises:
        DataError: its type can hold no unit.
    """
    if values.dtype == object:
        return text_of_objects(values.tolist())
    if values.dtype.kind in "fbcmMV":
        raise no_units(where, values.dtype, "units.astype('Int64') or astype(str)")
    try:
        found = pa.array(values, from_pandas=True)
    except (UnicodeEncodeError, pa.ArrowException, TypeError, ValueError):
        return text_of_objects(values.tolist())  # lone surrogates
    return text_of_arrow(found, where)


def text_of_polars(values: Any, where: str) -> Any:
    """A polars Series of texts, whole numbers, categories or objects as text.

    Raises:
        DataError: its type can hold no unit.
    """
    if values.dtype.is_object():
        return text_of_objects(values.to_list())
    if values.dtype.is_float():
        raise no_units(where, values.dtype, "units.cast(pl.Int64) or cast(pl.String)")
    if values.dtype.is_integer():  # Arrow has none of 128 bits
        values = values.cast(sys.modules["polars"].String)
    return text_of_arrow(values.to_arrow(), where)


def check_sql_type(kind: DuckDBPyType, where: str) -> None:
    """Raise a DataError where a column of this DuckDB type can hold no unit."""
    if kind.id not in _SQL_TYPES:
        raise no_units(where, kind, "SELECT CAST(... AS VARCHAR)")
