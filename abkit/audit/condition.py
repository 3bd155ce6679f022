"""A targeting condition as SQL over columns that are named like the attributes.

Only what means the same in SQL as in `abkit.targeting`: a column has one type, and a null is an
attribute that is absent, so every test is met or not, never unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from abkit.errors import ConfigError
from abkit.targeting import All, Condition, Leaf, Not

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.audit.dialects import Dialect

Kind = Literal["text", "number", "truth value"]

# Where engines compare a whole number as a double, whole numbers below this are still exact.
_EXACT = 1 << 53
_NUMBERS = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<"}
_TEXTS = ("starts_with", "ends_with", "contains")
_WAY_OUT = "pass targeting='ignore' to audit the rest"


def kinds_of(condition: Condition, where: str) -> dict[str, Kind]:
    """The type that each attribute's column must have, in order of first appearance.

    Raises:
        ConfigError: SQL cannot tell exactly what abkit does; the message says where.
    """
    kinds: dict[str, Kind] = {}
    for leaf in _leaves(condition):
        test = f"{where}: targeting on {leaf.attribute!r}"
        if leaf.op.startswith("version_"):
            raise ConfigError(f"{test}: versions are not audited in SQL; {_WAY_OUT}")
        values = leaf.value if leaf.op == "in" else (leaf.value,)
        if leaf.op == "contains" and not isinstance(leaf.value, str):
            raise ConfigError(f"{test}: lists are not audited in SQL; {_WAY_OUT}")
        for value in values:
            kind = _kind(value)
            if kinds.setdefault(leaf.attribute, kind) != kind:
                raise ConfigError(
                    f"{test} compares it with a {kinds[leaf.attribute]} and with a {kind}, but a "
                    f"column has one type; {_WAY_OUT}"
                )
            if kind == "number" and float(value).is_integer() and abs(value) >= _EXACT:
                raise ConfigError(f"{test}: {value!r} is not exact in every engine; {_WAY_OUT}")
    return kinds


def condition_sql(
    condition: Condition, columns: Mapping[str, str], dialect: Dialect, depth: int = 0
) -> str:
    """A condition as an SQL expression that is true or false, never null.

    Args:
        condition: one that `kinds_of` has accepted.
        columns: expression per attribute.
        dialect: of the engine.
        depth: number of spaces before a line.
    """
    if isinstance(condition, Leaf):
        column = columns.get(condition.attribute)
        # An "in" of nothing compares with no type, and so needs no column.
        return "false" if column is None else _leaf_sql(condition, column, dialect)
    if isinstance(condition, Not):
        return f"not {condition_sql(condition.part, columns, dialect, depth)}"
    every = isinstance(condition, All)
    if not condition.parts:
        return "true" if every else "false"
    parts = [condition_sql(part, columns, dialect, depth + 2) for part in condition.parts]
    joined = f"\n{' ' * depth}  {'and' if every else 'or'} ".join(parts)
    return f"({joined})"


def _leaves(condition: Condition) -> list[Leaf]:
    if isinstance(condition, Leaf):
        return [condition]
    if isinstance(condition, Not):
        return _leaves(condition.part)
    return [leaf for part in condition.parts for leaf in _leaves(part)]


def _kind(value: object) -> Kind:
    if isinstance(value, str):
        return "text"
    return "truth value" if isinstance(value, bool) else "number"


def _leaf_sql(leaf: Leaf, column: str, dialect: Dialect) -> str:
    op, value = leaf.op, leaf.value
    if op in _NUMBERS:
        test = f"{column} {_NUMBERS[op]} {_value_sql(value, dialect)}"
        if dialect.infinity and op in ("at_least", "above"):
            # In Python NaN is above nothing.
            test += f" and {column} <= {dialect.infinity}"
    elif op in _TEXTS:
        test = _text_sql(op, column, value, dialect)
    else:
        values = value if op == "in" else (value,)
        if not values:
            return "false"
        test = " or ".join(f"{column} = {_value_sql(item, dialect)}" for item in values)
    return f"coalesce({test}, false)"


def _text_sql(op: str, column: str, value: str, dialect: Dialect) -> str:
    if not value:
        # Engines differ on where nothing begins; in Python it is in every text.
        return f"{column} is not null"
    template = {
        "starts_with": dialect.starts_with,
        "ends_with": dialect.ends_with,
        "contains": dialect.contains,
    }[op]
    return template.format(x=column, y=dialect.literal(value), n=dialect.count(value))


def _value_sql(value: Any, dialect: Dialect) -> str:
    if isinstance(value, str):
        return dialect.literal(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if float(value).is_integer():
        return str(int(value))
    return dialect.double.format(x=repr(float(value)))
