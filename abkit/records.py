"""Plain data -> frozen record, with errors that name the key, the value and the way out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from abkit.errors import ConfigError

_T = TypeVar("_T")

_SALT = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_OUR_HASHES = ("abkit-v1", "sha256")
_MAX_VENDOR_SALT = 512


def build(cls: type[_T], data: object, what: str) -> _T:
    """A dataclass from a table of its fields.

    Args:
        cls: the dataclass; it checks the values itself.
        data: the table, as read from JSON or TOML.
        what: name of the record in messages.

    Raises:
        ConfigError: not a table, or a key that is missing or unknown.
    """
    if not isinstance(data, Mapping):
        msg = f"{what} must be a table of keys, got {data!r}"
        raise ConfigError(msg)
    known: dict[str, Field[Any]] = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            msg = f"{what}: unknown key {key!r}{hint(str(key), known)}"
            raise ConfigError(msg)
    for name, item in known.items():
        required = item.default is MISSING and item.default_factory is MISSING
        if required and name not in data:
            msg = f"{what}: no {name!r}"
            raise ConfigError(msg)
    return cls(**data)


def hint(word: str, known: Mapping[str, object]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them."""
    from difflib import get_close_matches  # noqa: PLC0415 - costs imports, needed on errors only

    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def counted(number: int, what: str) -> str:
    """A number of things, for reading.

    Args:
        number: how many, >= 0.
        what: one of them, in the singular.

    Examples:
        >>> counted(1, "row"), counted(1_200, "row")
        ('1 row', '1,200 rows')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def check_choice(where: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a ConfigError unless the value is one of the choices."""
    if value not in choices:
        msg = f"{where}: {name} must be one of {', '.join(choices)}, got {value!r}"
        raise ConfigError(msg)


def is_number(value: object) -> bool:
    """Whether a value is a finite real number that is no bool."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int too large for a double
        return False


def check_positive(where: str, name: str, value: object) -> None:
    """Raise a ConfigError unless the value is a finite number above 0."""
    if not is_number(value) or value <= 0:  # type: ignore[operator]
        msg = f"{where}: {name} must be a number above 0, got {value!r}"
        raise ConfigError(msg)


def check_fraction(where: str, name: str, value: object) -> None:
    """Raise a ConfigError unless the value lies strictly between 0 and 1."""
    if not is_number(value) or not 0 < value < 1:  # type: ignore[operator]
        msg = f"{where}: {name} must lie strictly between 0 and 1, got {value!r}"
        raise ConfigError(msg)


def check_count(where: str, name: str, value: object, least: int = 0) -> None:
    """Raise a ConfigError unless the value is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        msg = f"{where}: {name} must be a whole number >= {least}, got {value!r}"
        raise ConfigError(msg)


def check_salt(where: str, salt: object, hash_name: str) -> None:
    """Raise a ConfigError unless the salt suits the hash; a vendor's salt is free text."""
    if hash_name in _OUR_HASHES:
        # Without a colon, "salt:unit" can be read in one way only.
        if not isinstance(salt, str) or _SALT.match(salt) is None:
            raise ConfigError(f"{where}: salt {salt!r} must be 1 to 128 of A-Z a-z 0-9 _ . -")
    elif not isinstance(salt, str) or not 0 < len(salt) <= _MAX_VENDOR_SALT or not is_text(salt):
        raise ConfigError(
            f"{where}: salt {salt!r} must be a text of 1 to {_MAX_VENDOR_SALT} characters"
        )


def is_text(text: str) -> bool:
    """Whether UTF-8 can encode a text: it cannot where it holds lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
