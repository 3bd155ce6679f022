"""Targeting: a small typed condition on a unit's attributes.

Plain data in, a closure out. There is no regular expression and no eval: nothing that a
configuration holds can run for long or run code. A test on an attribute that is absent, or of
another type, is not met.

>>> condition = parse({"all": [{"attribute": "country", "in": ["DE", "FR"]},
...                            {"attribute": "app", "version_at_least": "2.10"}]})
>>> met = compile_condition(condition)
>>> met({"country": "DE", "app": "2.9.4"}), met({"country": "FR", "app": "3.0.0-rc.1"})
(False, True)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from abkit.errors import ConfigError
from abkit.records import hint, is_number

Attributes = Mapping[str, Any]
Met = Callable[[Attributes], bool]
Version = tuple[int, int, int, tuple[tuple[int, int, str], ...]]

MAX_DEPTH = 16
MAX_NODES = 1_000
MAX_VERSION_CHARACTERS = 64
_VERSION = re.compile(
    r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?\Z",
    re.ASCII,
)
# A release comes after all of its pre-releases.
_RELEASE: tuple[tuple[int, int, str], ...] = ((2, 0, ""),)

_PLAIN_TYPES = frozenset({str, bool, int, float, type(None)})
_NUMBER_OPS = ("at_least", "above", "at_most", "below")
_VERSION_OPS = tuple(f"version_{name}" for name in ("is", "at_least", "above", "at_most", "below"))
_TEXT_OPS = ("starts_with", "ends_with")
OPS = ("is", "in", *_NUMBER_OPS, *_VERSION_OPS, *_TEXT_OPS, "contains")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One test of one attribute.

    Args:
        attribute: its name.
        op: one of `OPS`.
        value: what it is compared with: a text, number or truth value; for "in" a tuple of them.
    """

    attribute: str
    op: str
    value: Any

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse` reads back."""
        value = list(self.value) if self.op == "in" else self.value
        return {"attribute": self.attribute, self.op: value}


@dataclass(frozen=True, slots=True)
class All:
    """Met when every part is; with no parts, always."""

    parts: tuple[Condition, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse` reads back."""
        return {"all": [part.to_dict() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Met when at least one part is; with no parts, never."""

    parts: tuple[Condition, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse` reads back."""
        return {"any": [part.to_dict() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class Not:
    """Met when its part is not, so also where the attribute is absent."""

    part: Condition

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse` reads back."""
        return {"not": self.part.to_dict()}


Condition = Leaf | All | AnyOf | Not


def parse(data: object, where: str = "targeting") -> Condition:
    """A condition from plain data: `{"all": [..]}`, `{"any": [..]}`, `{"not": {..}}` or a test.

    A test is `{"attribute": name, op: value}` with one of `OPS`.

    Raises:
        ConfigError: anything else; the message names the place and the value.
    """
    budget = [MAX_NODES]
    return _parse(data, where, 0, budget)


def text_attributes(condition: Condition | None) -> frozenset[str]:
    """The attributes that are tested as text: a file without types must not guess numbers."""
    if condition is None:
        return frozenset()
    if isinstance(condition, Not):
        return text_attributes(condition.part)
    if not isinstance(condition, Leaf):
        return frozenset().union(*map(text_attributes, condition.parts))
    values = condition.value if condition.op == "in" else (condition.value,)
    is_text = any(isinstance(value, str) for value in values)
    return frozenset({condition.attribute} if is_text else ())


def _parse(data: object, where: str, depth: int, budget: list[int]) -> Condition:
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise ConfigError(f"{where}: more than {MAX_DEPTH} levels or {MAX_NODES} conditions")
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: a condition must be a table, got {data!r}")
    if "attribute" in data:
        return _leaf(data, where)
    if len(data) == 1:
        ((name, inner),) = data.items()
        if name == "not":
            return Not(_parse(inner, f"{where}.not", depth + 1, budget))
        if name in ("all", "any"):
            if not isinstance(inner, (list, tuple)):
                raise ConfigError(f"{where}.{name} must be a list of conditions, got {inner!r}")
            parts = tuple(
                _parse(part, f"{where}.{name}[{i}]", depth + 1, budget)
                for i, part in enumerate(inner)
            )
            return All(parts) if name == "all" else AnyOf(parts)
    raise ConfigError(
        f"{where}: a condition is 'all', 'any', 'not', or 'attribute' with a test; "
        f"got the keys {sorted(map(str, data))}"
    )


def _leaf(data: Mapping[str, Any], where: str) -> Leaf:
    attribute = data["attribute"]
    if not isinstance(attribute, str) or not attribute:
        raise ConfigError(f"{where}: attribute must be a name, got {attribute!r}")
    ops = [key for key in data if key != "attribute"]
    if len(ops) != 1:
        raise ConfigError(f"{where}: {attribute!r} needs exactly one test, got {ops}")
    op, value = ops[0], data[ops[0]]
    if op not in OPS:
        raise ConfigError(f"{where}: unknown test {op!r}{hint(str(op), dict.fromkeys(OPS))}")
    is_right, wanted = _operand(op)
    if not is_right(value):
        raise ConfigError(f"{where}: {op!r} takes {wanted}, got {value!r}")
    return Leaf(attribute, op, tuple(value) if op == "in" else value)


def _operand(op: str) -> tuple[Callable[[Any], bool], str]:
    """What a test may be given: the check, and its name in messages."""
    if op == "in":
        return _is_plain_list, "a list of texts, numbers and truth values"
    if op in _NUMBER_OPS:
        return is_number, "a number"
    if op in _VERSION_OPS:
        return lambda value: version_of(value) is not None, "a version such as '2.10.0'"
    if op in _TEXT_OPS:
        return lambda value: isinstance(value, str), "a text"
    return _is_plain, "a text, number or truth value"


def _is_plain_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_plain, value))


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, bool)) or is_number(value)


def version_of(text: object) -> Version | None:
    """A semantic version as a key that sorts by precedence, or None if it is none.

    "2.10" counts as 2.10.0 and a leading "v" is allowed; build metadata is left out, as
    semantic versioning 2.0.0 section 10 says.
    """
    if type(text) is not str or len(text) > MAX_VERSION_CHARACTERS:
        return None
    found = _VERSION.match(text)
    if found is None:
        return None
    major, minor, patch, pre = found.groups()
    release = (int(major), int(minor or 0), int(patch or 0))
    if pre is None:
        return (*release, _RELEASE)
    # Numbers sort below words, and as numbers.
    parts = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in pre.split(".")
    )
    return (*release, parts)


def compile_condition(condition: Condition) -> Met:
    """A function from attributes to whether the condition is met."""
    if isinstance(condition, Leaf):
        return _compile_leaf(condition)
    if isinstance(condition, Not):
        inner = compile_condition(condition.part)
        return lambda attributes: not inner(attributes)
    parts = [compile_condition(part) for part in condition.parts]
    if isinstance(condition, All):
        if len(parts) == 1:
            return parts[0]
        return lambda attributes: all(part(attributes) for part in parts)
    return lambda attributes: any(part(attributes) for part in parts)


def _compile_leaf(leaf: Leaf) -> Met:
    name, op, value = leaf.attribute, leaf.op, leaf.value
    if op in ("is", "in"):
        return _one_of(name, value if op == "in" else (value,))
    if op in _NUMBER_OPS:
        return _compared(name, _COMPARE[op], value, _number)
    if op in _VERSION_OPS:
        return _compared(name, _COMPARE[op.removeprefix("version_")], version_of(value), version_of)
    if op == "contains":
        return _containing(name, value)
    test = str.startswith if op == "starts_with" else str.endswith

    def met(attributes: Attributes) -> bool:
        found = _plain(attributes.get(name))
        return type(found) is str and test(found, value)

    return met


def _one_of(name: str, values: tuple[Any, ...]) -> Met:
    # By kind, since True == 1 in Python; a number is the same as text of it nowhere.
    texts = frozenset(value for value in values if isinstance(value, str))
    bools = frozenset(value for value in values if isinstance(value, bool))
    numbers = frozenset(v for v in values if not isinstance(v, (str, bool)))

    def met(attributes: Attributes) -> bool:
        found = _plain(attributes.get(name))
        kind = type(found)
        if kind is str:
            return found in texts
        if kind is bool:
            return found in bools
        return (kind is int or kind is float) and found in numbers

    return met


def _containing(name: str, value: Any) -> Met:
    def met(attributes: Attributes) -> bool:
        found = _plain(attributes.get(name))
        if type(found) is str:
            return type(value) is str and value in found
        if type(found) not in (list, tuple, set, frozenset):
            return False
        return any(type(item) is type(value) and item == value for item in found)

    return met


def _number(value: object) -> Any:
    kind = type(value)
    return value if kind is int or kind is float else None


def _plain(value: object) -> Any:
    """The plain value of an enumeration's member, another subclass, or a number of numpy's."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__int__(value)  # type: ignore[arg-type]
    if issubclass(kind, float):
        return float.__float__(value)  # type: ignore[arg-type]
    if kind.__module__ == "numpy" and hasattr(kind, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()  # type: ignore[attr-defined]
    return value


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "is": lambda found, value: found == value,
    "at_least": lambda found, value: found >= value,
    "above": lambda found, value: found > value,
    "at_most": lambda found, value: found <= value,
    "below": lambda found, value: found < value,
}


def _compared(
    name: str, compare: Callable[[Any, Any], bool], value: Any, read: Callable[[object], Any]
) -> Met:
    def met(attributes: Attributes) -> bool:
        found = read(_plain(attributes.get(name)))
        return found is not None and compare(found, value)

    return met
