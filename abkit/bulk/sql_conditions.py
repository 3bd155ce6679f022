"""Targeting in SQL, for the tests that mean exactly the same there: relations stay lazy then.

Equality of texts, truth values and whole numbers, and the order of numbers against whole numbers.
Versions, parts of texts, lists and fractions are left to Python.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from duckdb import CoalesceOperator as Coalesce
from duckdb import ColumnExpression as Column
from duckdb import ConstantExpression as Constant
from duckdb import FunctionExpression as Function

from abkit.targeting import All, Leaf, Not

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duckdb import Expression
    from duckdb.sqltypes import DuckDBPyType

    from abkit.targeting import Condition

_INTS = {
    "tinyint",
    "smallint",
    "integer",
    "bigint",
    "hugeint",
    "utinyint",
    "usmallint",
    "uinteger",
    "ubigint",
}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "at_least": lambda found, value: found >= value,
    "above": lambda found, value: found > value,
    "at_most": lambda found, value: found <= value,
    "below": lambda found, value: found < value,
}
_WIDEST = 2**126  # within a HUGEINT
_EXACT = 2**53  # whole numbers up to here are the same as doubles
_NEVER = Constant(value=False)


def condition_in_sql(condition: Condition, kinds: Mapping[str, DuckDBPyType]) -> Expression | None:
    """Whether a row meets the condition as an expression that is never NULL.

    Args:
        condition: of the experiment.
        kinds: type of each column that it may see; what has no column is absent.

    Returns:
        The expression, or None where SQL might answer otherwise than serving does.
    """
    if isinstance(condition, Leaf):
        kind = kinds.get(condition.attribute)
        return _NEVER if kind is None else _leaf(condition, kind)
    if isinstance(condition, Not):
        inner = condition_in_sql(condition.part, kinds)
        return None if inner is None else ~inner
    every = isinstance(condition, All)
    parts: list[Expression] = [Constant(value=every)]
    for part in condition.parts:
        met = condition_in_sql(part, kinds)
        if met is None:
            return None
        parts.append(met)
    while len(parts) > 1:  # in pairs, so that a thousand parts are no deep tree
        rest = parts[len(parts) & ~1 :]
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [left & right if every else left | right for left, right in pairs] + rest
    return parts[0]


def _leaf(leaf: Leaf, kind: DuckDBPyType) -> Expression | None:
    if leaf.op in ("is", "in"):
        values = leaf.value if leaf.op == "in" else (leaf.value,)
        found = _one_of(Column(leaf.attribute), kind.id, values)
    elif leaf.op in _COMPARE:
        found = _compared(Column(leaf.attribute), kind.id, leaf)
    else:
        found = None
    return None if found is None else Coalesce(found, _NEVER)


def _one_of(column: Expression, kind: str, values: tuple[Any, ...]) -> Expression | None:
    wanted: list[Any]
    if kind == "varchar":
        # As bytes: the column may have a collation under which other texts are equal.
        column = Function("encode", column)
        texts = (value for value in values if isinstance(value, str))
        wanted = [text.encode() for text in texts if _has_bytes(text)]
    elif kind == "boolean":
        wanted = [value for value in values if isinstance(value, bool)]
    elif kind in _INTS:
        column = column.cast("HUGEINT")
        numbers = (value for value in values if not isinstance(value, (str, bool)))
        wanted = [int(value) for value in numbers if value == int(value)]
        wanted = [value for value in wanted if abs(value) < _WIDEST]
    else:
        return None
    return column.isin(*map(Constant, wanted)) if wanted else _NEVER


def _has_bytes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _compared(column: Expression, kind: str, leaf: Leaf) -> Expression | None:
    compare, value = _COMPARE[leaf.op], leaf.value
    if kind in ("varchar", "boolean"):
        return _NEVER
    if abs(value) > _WIDEST:
        return None
    if kind in _INTS:
        # A whole number is at least 2.5 where it is at least 3, and above it where above 2.
        up = leaf.op in ("at_least", "below")
        whole = math.ceil(value) if up else math.floor(value)
        found: Expression = compare(column.cast("HUGEINT"), Constant(whole))
        return found
    if kind in ("double", "float") and value == int(value) and abs(value) <= _EXACT:
        column = column.cast("DOUBLE")
        # To DuckDB, NaN is above every number.
        found = compare(column, Constant(int(value)).cast("DOUBLE"))
        return found & ~Function("isnan", column)
    return None
