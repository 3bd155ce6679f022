"""PlanOut: the compiled JSON of a script -> one experiment per random parameter.

Carried over are parameters that a script sets, outside of any condition, by `weightedChoice`,
`uniformChoice` or `bernoulliTrial` of one input. Which input that is stays with the caller: it
must be the unit that abkit is asked about.

PlanOut knows no control: the first choice is, and for a trial 0. It fails on units outside of
ASCII, which abkit sorts by their UTF-8.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from abkit.bucketing import SPACE
from abkit.bucketing.planout import CHOICES, DIGITS, split_salt
from abkit.compat import Skipped
from abkit.compat.document import listed, number, table, tables, text
from abkit.compat.draft import Draft, Span, Unsupported, collect
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abkit.compat import Imported
    from abkit.compat.document import Table

_SALT = "experiment_salt"
_SPACES = re.compile(r"\s+")
_LONG_SCALE = float(0xFFFFFFFFFFFFFFF)


@dataclass(slots=True)
class _Script:
    """What a script says.

    Args:
        steps: parameter, value and the experiment's salt at that point.
        set: how often each variable is set, anywhere.
        nested: variables that are set below the top level.
        closed: why nothing more can be carried over; empty while it can.
    """

    steps: list[tuple[str, Any, str]] = field(default_factory=list)
    set: Counter[str] = field(default_factory=Counter)
    nested: list[str] = field(default_factory=list)
    closed: str = ""


def load(config: Mapping[str, Any]) -> Imported:
    """The experiments in a PlanOut script; the key of each is `name.parameter`.

    Args:
        config: the compiled script, where it sets `experiment_salt` itself or its operators have
            a `full_salt`; or `{"name": ..., "salt": ..., "script": ...}`, where the salt is the
            name unless given, as in PlanOut's own experiments. Without a name the key is the
            parameter alone.

    Raises:
        ConfigError: the document is not one of PlanOut's; the message says where.
    """
    name, salt, script = "", "", config
    if "script" in config:
        script = table(config["script"], "planout: script")
        # PlanOut's own experiments do this to their name, and then take it for their salt.
        name = _SPACES.sub("-", text(config.get("name") or "", "planout: name"))
        salt = text(config.get("salt") or name, "planout: salt")
    if "op" not in script:
        raise ConfigError('planout: a script must be an operator, such as {"op": "seq", "seq": []}')
    found = _script(script, salt)
    prefix = f"{name}." if name else ""
    items = ((prefix + step[0], step) for step in found.steps)
    below = (name for name in dict.fromkeys(found.nested) if name != _SALT)
    skipped = [Skipped(prefix + name, "it is set under a condition: targeting") for name in below]
    return collect(items, lambda _, step: _draft(prefix, step, found), skipped)


def _script(script: Table, salt: str) -> _Script:
    found = _Script()
    todo = [script]
    while todo:
        step = todo.pop()
        operator = step.get("op")
        if operator == "seq":
            todo.extend(reversed(tables(step.get("seq"), "planout: seq")))
            continue
        if operator == "set":
            name, value = text(step.get("var"), "planout: set: var"), step.get("value")
            found.set[name] += 1
            if name != _SALT:
                found.steps.append((name, value, salt))
            elif isinstance(value, str):
                salt = value
            else:
                found.closed = "the script computes its own salt"
        for inner in _operators(step):
            if inner.get("op") == "return":
                found.closed = "the script returns: who is in the experiment depends on it"
            if inner.get("op") == "set" and inner is not step:
                name = text(inner.get("var"), "planout: set: var")
                found.nested.append(name)
                found.set[name] += 1
                if name == _SALT:
                    found.closed = "the script sets its salt under a condition"
    return found


def _operators(value: object) -> Iterator[Table]:
    """A value and everything inside of it, as far as it is a table, at any depth."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, Mapping):
            yield item
            todo.extend(item.values())
        elif isinstance(item, (list, tuple)):
            todo.extend(item)


def _draft(prefix: str, step: tuple[str, Any, str], script: _Script) -> Draft:
    name, value, salt = step
    what = f"planout {name!r}"
    if script.closed:
        raise Unsupported(script.closed)
    if script.set[name] > 1:
        raise Unsupported("the script sets it more than once")
    operator = value.get("op") if isinstance(value, Mapping) else None
    if operator not in ("weightedChoice", "uniformChoice", "bernoulliTrial"):
        raise Unsupported("it is not a weightedChoice, a uniformChoice or a bernoulliTrial")
    _check_unit(value.get("unit"), script)
    salt = _salt(name, value, salt)
    if operator == "uniformChoice":
        labels = _labels(value.get("choices"), what)
        salt = f"{salt}{CHOICES}{len(labels)}"
        edges = [place * SPACE // len(labels) for place in range(len(labels) + 1)]
    elif split_salt(salt)[1]:
        raise Unsupported(f"abkit would read the end of its salt {salt!r} as a number of choices")
    elif operator == "weightedChoice":
        labels = _labels(value.get("choices"), what)
        edges = _edges(_weights(value.get("weights"), what), len(labels))
    else:
        labels = ["1", "0"]
        edges = [0, _edge(_share(value.get("p"), what), 1.0), SPACE]
    spans = (Span(edges[n], edges[n + 1], label) for n, label in enumerate(labels))
    return Draft(
        key=prefix + name,
        hash="planout",
        salt=salt,
        spans=tuple(spans),
        variants=tuple(dict.fromkeys(labels)),
        control="0" if operator == "bernoulliTrial" else labels[0],
    )


def _check_unit(unit: object, script: _Script) -> None:
    if isinstance(unit, Mapping) and unit.get("op") == "array":
        unit = unit.get("values")
    if isinstance(unit, list) and len(unit) == 1:
        unit = unit[0]
    if not isinstance(unit, Mapping) or unit.get("op") != "get":
        raise Unsupported("its unit is not a single input of the script")
    if script.set[text(unit.get("var"), "planout: get: var")]:
        raise Unsupported("its unit is a variable that the script sets")


def _salt(name: str, value: Table, salt: str) -> str:
    """What PlanOut hashes before the dot and the unit."""
    own = value.get("full_salt", value.get("salt", name))
    if not isinstance(own, str):
        raise Unsupported("the script computes its salt")
    if "full_salt" not in value:
        if not salt:
            raise Unsupported(
                "its experiment has no salt: give the document as "
                '{"name": ..., "salt": ..., "script": ...}'
            )
        own = f"{salt}.{own}"
    if not own.isascii():
        raise Unsupported(f"PlanOut fails on its salt {own!r}, which is not ASCII")
    return own


def _literals(value: object, what: str) -> list[Any]:
    """The items of a list in which nothing is computed."""
    if isinstance(value, Mapping) and value.get("op") in ("array", "literal"):
        value = value.get("values" if value["op"] == "array" else "value")
    items = [
        item.get("value") if isinstance(item, Mapping) and item.get("op") == "literal" else item
        for item in listed(value, what)
    ]
    if any("op" in item for item in items if isinstance(item, Mapping)):
        raise Unsupported("the script computes its choices or weights")
    return items


def _labels(value: object, what: str) -> list[str]:
    """The names of the choices: a text as it is, other values as JSON."""
    choices = _literals(value, f"{what}: choices")
    if not choices:
        raise Unsupported("it has no choices")
    try:
        shown = [json.dumps(choice, sort_keys=True) for choice in choices]
    except (RecursionError, TypeError, ValueError):
        raise Unsupported("its choices are no JSON, or nested too deeply") from None
    labels = [
        choice if isinstance(choice, str) else dumped
        for choice, dumped in zip(choices, shown, strict=True)
    ]
    if len(set(labels)) != len(set(shown)):
        raise Unsupported(f"two of its choices would have the same name: {labels}")
    return labels


def _weights(value: object, what: str) -> list[float]:
    weights = [number(item, f"{what}: weights") for item in _literals(value, f"{what}: weights")]
    if any(weight < 0 for weight in weights) or not 0 < sum(weights, 0.0) < float("inf"):
        raise Unsupported(f"its weights must not be negative, and not all 0, got {weights}")
    return weights


def _share(value: object, what: str) -> float:
    if isinstance(value, Mapping):
        raise Unsupported("the script computes its probability")
    share = number(value, f"{what}: p")
    if not 0 <= share <= 1:
        raise Unsupported(f"PlanOut fails on its probability {share}")
    return share


def _edges(weights: list[float], choices: int) -> list[int]:
    if len(weights) != choices:
        raise Unsupported(f"it has {choices} choices, but {len(weights)} weights")
    sums = [0.0]
    for weight in weights:
        sums.append(sums[-1] + weight)
    return [0, *(_edge(limit, sums[-1]) for limit in sums[1:-1]), SPACE]


def _edge(limit: float, total: float) -> int:
    """The bucket at which `total * fraction <= limit` ends, in PlanOut's own arithmetic.

    PlanOut compares 60 bits, buckets have 52: the nearest bucket is wrong for at most half a
    bucket's width, or a unit in 2**53.
    """
    ends = bisect_right(range(DIGITS), limit, key=lambda digits: total * (digits / _LONG_SCALE))
    return (ends + 128) >> 8
