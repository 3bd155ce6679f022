"""The JSON Schema of a plan (draft 2020-12), made from the records that a plan becomes.

Types, defaults and descriptions come from the records' fields and docstrings, so that an editor
says what the code says. Ranges and what goes with what are checked by code; the rules that an
editor can use are repeated here, and a test holds them against the code.

`python -m abkit.plan_file.schema` writes the published file anew.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from abkit.metrics import NAME_PATTERN
from abkit.plan_file.build import REQUIRED, essence, plan_keys, record_keys
from abkit.plan_file.strategies import STRATEGIES
from abkit.rollout import Rollout
from abkit.targeting import OPS

PUBLISHED: Final = Path(__file__).parents[1] / "schema" / "rollout.schema.json"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
IDENTITY: Final = "urn:abkit:schema:rollout"

_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}
_NAME: Final = "^" + NAME_PATTERN.pattern.replace(r"\Z", "$")
_FRACTION: Final = {"exclusiveMinimum": 0, "exclusiveMaximum": 1}
_POSITIVE: Final = {"exclusiveMinimum": 0}
_COUNT: Final = {"minimum": 0}
_NAMED: Final = {"pattern": _NAME}

# What a field's type does not say. Keys of a table that is not here take any value of their type.
LIMITS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "plan": {
        **dict.fromkeys(("key", "experiment", "control", "treatment"), _NAMED),
        "treatments": {"items": {"type": "string", **_NAMED}, "minItems": 1, "uniqueItems": True},
        "holdouts": {"items": {"type": "string", **_NAMED}},
        "stages": {"minItems": 1},
        "bake_seconds": _COUNT,
        "bake_share": {"exclusiveMinimum": 0, "maximum": 1},
    },
    "Policy": {
        "alpha": _FRACTION,
        "beta": _FRACTION,
        "max_seconds": _POSITIVE,
        "planned_units": {"minimum": 1},
        "guardrails": {"minItems": 1},
    },
    "Guardrail": {
        "metric": _NAMED,
        "margin": _POSITIVE,
        "limit": _FRACTION,
        "budget": _COUNT,
    },
    "Objective": {"metric": _NAMED, "margin": _COUNT},
    "Stage": {
        "name": {"minLength": 1, "maxLength": 64},
        "share": {"minimum": 0, "maximum": 1},
        "min_units": _COUNT,
        "min_seconds": _COUNT,
        "requires": {"items": {"type": "string", **_NAMED}},
    },
    "Metric": {"key": _NAMED, "window_seconds": _POSITIVE},
    "Ramp": {
        **dict.fromkeys(("budget", "requests_per_second", "lag_seconds"), _POSITIVE),
        **dict.fromkeys(("max_share", "start_share", "base_rate"), _FRACTION),
        **dict.fromkeys(("min_units", "min_seconds"), _COUNT),
    },
    "Distill": {
        **dict.fromkeys(("quality", "latency", "errors"), _NAMED),
        **dict.fromkeys(("margin", "latency_margin", "cost_margin"), _POSITIVE),
        "errors_limit": _FRACTION,
    },
}


def _when(key: str, value: str, then: dict[str, Any]) -> dict[str, Any]:
    """A rule that holds where a key is there and has a value."""
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}


def _rule_of(test: str) -> dict[str, Any]:
    return {"properties": {"test": {"const": test}}, "required": ["test"]}


# What goes with what.
RULES: Final[dict[str, list[dict[str, Any]]]] = {
    "plan": [
        _when("strategy", "distill", {"required": ["distill"]}),
        _when(
            "strategy",
            "blue_green",
            {
                "required": ["policy"],
                "properties": {
                    "policy": {
                        "required": ["guardrails"],
                        "properties": {
                            "guardrails": {
                                "contains": {"anyOf": [_rule_of("limit"), _rule_of("budget")]}
                            }
                        },
                    },
                    "ramp": False,
                },
            },
        ),
        _when(
            "strategy",
            "shadow",
            {
                "required": ["policy"],
                "properties": {
                    "policy": {
                        "required": ["guardrails"],
                        "properties": {"guardrails": {"items": _rule_of("difference")}},
                    },
                    "approval": {"const": "manual"},
                    "ramp": False,
                },
            },
        ),
        _when(
            "strategy",
            "ab",
            {
                "required": ["policy"],
                "properties": {
                    "policy": {
                        "required": ["objectives"],
                        "properties": {"objectives": {"minItems": 1}},
                    }
                },
            },
        ),
        {
            "if": {"required": ["distill"]},
            "then": {"required": ["strategy"], "properties": {"strategy": {"const": "distill"}}},
        },
        {
            "if": {"required": ["treatments"]},
            "then": {
                "required": ["strategy"],
                "properties": {"strategy": {"const": "ab"}, "treatment": False},
            },
            "else": {"required": ["treatment"]},
        },
    ],
    "Guardrail": [
        _when("test", "difference", {"required": ["margin"]}),
        _when("test", "limit", {"required": ["limit"]}),
        {"if": {"required": ["limit"]}, "then": _rule_of("limit")},
        _when("test", "budget", {"required": ["budget"]}),
        {"if": {"required": ["budget"]}, "then": _rule_of("budget")},
    ],
    "Objective": [
        {
            **_when("rule", "non_inferior", {"required": ["margin"]}),
            "else": {"properties": {"margin": {"const": 0}}},
        }
    ],
    "Stage": [
        _when("mode", "switch", {"properties": {"share": {"const": 1}}, "required": ["share"]}),
        {
            **_when("mode", "shadow", {"properties": {"share": {"const": 0}}}),
            "else": {"properties": {"share": _POSITIVE}, "required": ["share"]},
        },
    ],
    "Metric": [
        {
            "if": {"required": ["above"]},
            "then": {"required": ["source"], "not": {"required": ["below"]}},
        },
        {"if": {"required": ["below"]}, "then": {"required": ["source"]}},
    ],
}


def schema() -> dict[str, Any]:
    """The schema, as plain data."""
    records: dict[str, Any] = {}
    told = _told(inspect.getdoc(Rollout.plan) or "")
    properties = {
        "$schema": {"type": "string", "description": "For editors; abkit reads past it."},
        "strategy": {
            "description": "A way to take the treatment to everyone, which fills in what the plan "
            "leaves out. " + " ".join(f"{x.name}: {x.about}" for x in STRATEGIES.values()),
            "oneOf": [
                {"const": item.name, "description": item.about} for item in STRATEGIES.values()
            ],
            "default": "canary",
        },
    }
    known = plan_keys()
    for name, (kind, default) in known.items():
        if name != "rivals":  # with the treatment, the file's list of treatments
            properties[name] = _field(("plan", name), kind, default, told.get(name, ""), records)
    properties["treatments"] = _field(
        ("plan", "treatments"),
        known["rivals"][0],
        None,
        "Instead of `treatment`, for strategy 'ab': several variants, of which one may win.",
        records,
    )
    for item in STRATEGIES.values():
        for name, cls in item.tables.items():
            properties[name] = _field(("plan", name), cls, None, "", records)
    properties["targeting"] = {"$ref": "#/$defs/Condition", "description": told["targeting"]}
    records["Condition"] = _condition()
    return {
        "$schema": DIALECT,
        "$id": IDENTITY,
        "title": "abkit rollout plan",
        "description": "One model on its way to everyone, or back.",
        "type": "object",
        "additionalProperties": False,
        "required": [
            name
            for name, (_, default) in known.items()
            if default is REQUIRED and name != "treatment"
        ],
        "properties": properties,
        "allOf": RULES["plan"],
        "$defs": dict(sorted(records.items())),
    }


def text() -> str:
    """The schema as it is published."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _field(
    place: tuple[str, str], kind: Any, default: Any, about: str, records: dict[str, Any]
) -> dict[str, Any]:
    """The schema of one key, at (record, key)."""
    many, item = essence(kind)
    if is_dataclass(item):
        found: dict[str, Any] = {"$ref": f"#/$defs/{_record(item, records)}"}
    elif get_origin(item) is Literal:
        found = {"enum": list(get_args(item))}
    else:
        found = {"type": _TYPES[item]} if item in _TYPES else {"type": "object"}
    if many:
        found = {"type": "array", "items": found}
    if about:
        found["description"] = about
    if isinstance(default, (str, bool, int, float)) and default != "":
        found["default"] = default
    record, name = place
    return found | LIMITS.get(record, {}).get(name, {})


def _record(cls: Any, records: dict[str, Any]) -> str:
    """The name of a record, whose schema is among `records` from then on."""
    name = str(cls.__name__)
    if name in records:
        return name
    document = inspect.getdoc(cls) or ""
    told, known = _told(document), record_keys(cls)
    records[name] = {
        "type": "object",
        "description": document.partition("\n")[0],
        "additionalProperties": False,
        "required": [key for key, (_, default) in known.items() if default is REQUIRED],
        "properties": {
            key: _field((name, key), kind, default, told.get(key, ""), records)
            for key, (kind, default) in known.items()
        },
    }
    if name in RULES:
        records[name]["allOf"] = RULES[name]
    return name


def _condition() -> dict[str, Any]:
    """Targeting: `abkit.targeting.parse` says what each test means."""
    again = {"$ref": "#/$defs/Condition"}
    many = {"type": "array", "items": again}
    plain: dict[str, Any] = {"type": ["string", "number", "boolean"]}
    values = dict.fromkeys(OPS, plain) | {"in": {"type": "array", "items": plain}}
    branches: list[dict[str, Any]] = [
        {"properties": {key: kind}, "required": [key], "additionalProperties": False}
        for key, kind in (("all", many), ("any", many), ("not", again))
    ]
    branches.append(
        {
            "properties": {"attribute": {"type": "string"}, **values},
            "required": ["attribute"],
            "minProperties": 2,
            "maxProperties": 2,
            "additionalProperties": False,
        }
    )
    return {
        "type": "object",
        "description": "A condition on a unit's attributes: {all: [..]}, {any: [..]}, "
        "{not: {..}}, or a test such as {attribute: country, in: [DE, FR]}.",
        "oneOf": branches,
    }


def _told(document: str) -> dict[str, str]:
    """What the `Args` of a docstring say, by name."""
    _, _, rest = document.partition("Args:\n")
    block = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", block, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", about).strip() for name, about in found}


if __name__ == "__main__":
    PUBLISHED.write_text(text(), encoding="utf-8")
