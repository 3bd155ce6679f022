"""Reading a vendor's document: every value that is not what it must be raises a ConfigError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError
from abkit.records import is_number

if TYPE_CHECKING:
    from collections.abc import Iterable

Table = Mapping[str, Any]


def table(value: object, what: str) -> Table:
    """The value, which must be a table with text keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{what} must be a table, got {_shown(value)}")
    return value


def listed(value: object, what: str) -> list[Any]:
    """The value, which must be a list; None is an empty one."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{what} must be a list, got {_shown(value)}")
    return list(value)


def tables(value: object, what: str) -> list[Table]:
    """The value, which must be a list of tables; None is an empty one."""
    return [table(item, f"{what}[{n}]") for n, item in enumerate(listed(value, what))]


def text(value: object, what: str) -> str:
    """The value, which must be a text."""
    if not isinstance(value, str):
        raise ConfigError(f"{what} must be a text, got {_shown(value)}")
    return value


def texts(value: object, what: str) -> list[str]:
    """The value, which must be a list of texts; None is an empty one."""
    return [text(item, f"{what}[{n}]") for n, item in enumerate(listed(value, what))]


def number(value: object, what: str) -> float:
    """The value, which must be a finite number."""
    if not is_number(value):
        raise ConfigError(f"{what} must be a number, got {_shown(value)}")
    return value  # type: ignore[return-value]


def whole(value: object, what: str) -> int:
    """The value, which must be a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{what} must be a whole number, got {_shown(value)}")
    return value


def keyed(rows: Iterable[Table], name: str, what: str) -> dict[str, Table]:
    """Tables by one of their fields, a text that no two of them share."""
    found: dict[str, Table] = {}
    for row in rows:
        key = text(row.get(name), f"{what}: {name}")
        if key in found:
            raise ConfigError(f"{what}: {key!r} stands there twice")
        found[key] = row
    return found


def same(one: object, other: object) -> bool:
    """Whether two values are the same JSON: unlike in Python, true is not 1."""
    try:
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return False


def _shown(value: object) -> str:
    shown = (
        repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    )
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
