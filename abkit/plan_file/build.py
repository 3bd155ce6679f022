"""Plain data -> the arguments of `Rollout.plan`, as their types say.

What a plan may hold is read off the records themselves: a field that is added to one of them is a
key of the file at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from abkit.errors import ConfigError
from abkit.records import hint
from abkit.rollout import Rollout

REQUIRED = inspect.Parameter.empty


@cache
def plan_keys() -> dict[str, tuple[Any, Any]]:
    """The arguments of `Rollout.plan`: (type, default) by name; `REQUIRED` where there is none."""
    types = get_type_hints(Rollout.plan)
    parameters = inspect.signature(Rollout.plan).parameters.values()
    return {item.name: (types[item.name], item.default) for item in parameters}


@cache
def record_keys(cls: type) -> dict[str, tuple[Any, Any]]:
    """The fields of a record: (type, default) by name; `REQUIRED` where there is none."""
    types = get_type_hints(cls)
    found: dict[str, tuple[Any, Any]] = {}
    for item in fields(cls):
        default = item.default if item.default is not MISSING else REQUIRED
        if item.default_factory is not MISSING:
            default = item.default_factory()
        if item.init:
            found[item.name] = (types[item.name], default)
    return found


def essence(annotation: Any) -> tuple[bool, Any]:
    """(whether a list, the type of it or its items) of a type, without its None.

    Examples:
        >>> essence(tuple[str, ...] | None)
        (True, <class 'str'>)
    """
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (item for item in get_args(annotation) if item is not NoneType)
    if get_origin(annotation) is tuple:
        return True, get_args(annotation)[0]
    return False, annotation


def value_of(annotation: Any, value: object, where: str) -> Any:
    """A value of the plan's file as its type: records from tables, tuples from lists.

    Plain values stay as they are; the record that takes them checks them.

    Args:
        annotation: the type.
        value: as read.
        where: name of the file, and the place in it, for messages.

    Raises:
        ConfigError: with the place, the value, and what to do.
    """
    many, kind = essence(annotation)
    if not many:
        return record_of(kind, value, where) if is_dataclass(kind) else value
    if not isinstance(value, (list, tuple)):
        tables = "tables" if is_dataclass(kind) else "names"
        raise ConfigError(f"{where} must be a list of {tables}, got {value!r}")
    return tuple(
        value_of(kind, item, f"{where}[{number}]{_name(item)}") for number, item in enumerate(value)
    )


def record_of(cls: Any, data: object, where: str) -> Any:
    """A record from a table of its fields.

    Raises:
        ConfigError: not a table, a key that is missing or unknown, or a value that the record
            refuses.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a table of keys, got {data!r}")
    known = record_keys(cls)
    check_keys(data, known, where)
    values = {
        name: value_of(known[name][0], value, f"{where}.{name}") for name, value in data.items()
    }
    try:
        return cls(**values)
    except ConfigError as error:
        place = where.rpartition(": ")[2]
        raise ConfigError(f"{where}: {str(error).removeprefix(f'{place}: ')}") from None


def check_keys(data: Mapping[str, Any], known: Mapping[str, tuple[Any, Any]], where: str) -> None:
    """Refuse a key that is unknown, and name the nearest; refuse a table without what it needs.

    Raises:
        ConfigError: one of both.
    """
    for key in data:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{hint(str(key), known)}")
    for name, (_, default) in known.items():
        if default is REQUIRED and name not in data:
            raise ConfigError(f"{where}: no {name!r}")


def _name(item: object) -> str:
    """What an item of a list calls itself, for messages."""
    if isinstance(item, Mapping):
        for key in ("metric", "key", "name"):
            if isinstance(item.get(key), str):
                return f" ({item[key]!r:.66})"
    return ""
