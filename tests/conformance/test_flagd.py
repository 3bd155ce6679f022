"""Imported flags serve what openfeature-flagd-core serves from the same document."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import load
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import abkit
    from abkit.compat import Imported

WHY = "openfeature-flagd-core is not installed: python3 dev.py conformance"
core = pytest.importorskip("openfeature.contrib.tools.flagd.core", reason=WHY)
context = pytest.importorskip("openfeature.evaluation_context", reason=WHY)

EXTRA = ["é" * 12, "x" * 23, "x" * 24, "x" * 255, "x" * 256, "x" * 16_384]
NAMES = ("red", "blue", "green", "old model")
KEY, UNIT = {"var": "$flagd.flagKey"}, {"var": "targetingKey"}


def flag(*rule: Any, **changes: Any) -> dict[str, Any]:
    return {
        "state": "ENABLED",
        "variants": {name: f"the value {name}" for name in NAMES},
        "defaultVariant": "green",
        "targeting": {"fractional": list(rule)},
    } | changes


FLAGS = {
    "halves": flag(["red", 50], ["blue", 50]),
    "uneven": flag(["red", 1], ["blue", 7], ["green", 3], ["old model", 2]),
    "one each": flag(["red"], ["blue"], ["green"]),
    "some nothing": flag(["red", 0], ["blue", 25], ["green", -3], ["old model", 75]),
    "again": flag(["red", 10], ["blue", 10], ["red", 10]),
    "many": flag(["red", 2**30], ["blue", 2**30 - 1]),
    "fine": flag(["red", 123_457], ["blue", 876_543]),
    "key and unit": flag({"cat": [KEY, UNIT]}, ["red", 60], ["blue", 40]),
    "only the unit": flag(UNIT, ["red", 60], ["blue", 40]),
    "seed and unit": flag(
        {"cat": ["seed 7-", {"cat": [KEY, "é"]}, {"var": ["targetingKey"]}]},
        ["red", 3],
        ["blue", 5],
    ),
    "no default": flag(["red", 50], ["old model", 50], defaultVariant=None),
    "truths": {
        "state": "ENABLED",
        "variants": {"true": True, "false": False},
        "defaultVariant": False,
        "targeting": {"fractional": [[True, 30], [False, 70]]},
    },
    "objects": flag(
        ["red", 5],
        ["blue", 5],
        variants={"red": {"size": 1}, "blue": {"size": 2}},
        defaultVariant="red",
    ),
}
DOCUMENT = {"flags": FLAGS}


def resolved(evaluator: Any, key: str, unit: str) -> str:
    value = next(iter(FLAGS[key]["variants"].values()))
    kind = {bool: "boolean", str: "string", dict: "object"}[type(value)]
    resolve = getattr(evaluator, f"resolve_{kind}_value")
    variant: str = resolve(key, value, context.EvaluationContext(unit)).variant
    return variant


@pytest.mark.parametrize("key", FLAGS)
@pytest.mark.usefixtures("offline")
def test_every_unit_keeps_its_variant(
    key: str, units: list[str], serving: Callable[[Imported], abkit.Client]
) -> None:
    theirs = core.FlagdCore()
    theirs.set_flags(copy.deepcopy(DOCUMENT))
    found = load("flagd", DOCUMENT)
    assert found.skipped == ()
    ours = serving(found)
    name = found.renamed.get(key, key)
    seen = set()
    for unit in (*units, *EXTRA):
        variant = resolved(theirs, key, unit)
        assert ours.variant(name, unit) == found.renamed.get(f"{key}/{variant}", variant), unit
        seen.add(variant)
    assert len(seen) > 1


def test_control_is_the_flags_default() -> None:
    # The rule meets every unit, and so control is what a kill serves: the flag's default.
    controls = {e.key: e.control for e in load("flagd", DOCUMENT).experiments}
    assert controls["halves"] == "green"
    assert controls["truths"] == "false"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (flag(["red", 50], ["blue", 50], state="DISABLED"), "DISABLED"),
        (flag(["red", 50], ["blue", 50], targeting={}), "not one fractional rule"),
        (flag(targeting={"if": [{"==": [UNIT, "me"]}, "red", "blue"]}), "not one fractional rule"),
        (flag(["red", 0], ["blue", 0]), "must sum to"),
        (flag(["red", 2**31], ["blue", 1]), "must sum to"),
        (flag(["red", 0.5], ["blue", 0.5]), "whole number"),
        (flag(["red", True], ["blue", 1]), "whole number"),
        (flag(["pink", 5], ["blue", 1]), "'pink', which is not among"),
        (flag({"var": "email"}, ["red", 5], ["blue", 1]), "abkit does not know"),
        (flag("constant", ["red", 5], ["blue", 1]), "something else than the targeting key"),
        (flag({"cat": [UNIT, KEY]}, ["red", 5], ["blue", 1]), "something else than the targeting"),
        (flag({"cat": [UNIT, UNIT]}, ["red", 5], ["blue", 1]), "something else than the targeting"),
        (flag(), "is empty"),
        (flag(["red", 5], {"if": [True, ["blue", 5]]}), "a variant and a weight"),
        (flag(["red", 5], ["blue", 5], defaultVariant="pink"), "default 'pink'"),
    ],
)
def test_what_cannot_be_carried_over_is_skipped_with_a_reason(
    row: dict[str, Any], reason: str
) -> None:
    found = load("flagd", {"flags": {"f": row}})
    assert found.experiments == ()
    assert [skipped.key for skipped in found.skipped] == ["f"]
    assert reason in found.skipped[0].reason


def test_a_flag_whose_key_would_be_another_salt_is_skipped() -> None:
    found = load("flagd", {"flags": {"cat:f": flag(["red", 5], ["blue", 5])}})
    assert "a salt of another kind" in found.skipped[0].reason


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "flagd: flags must be a table"),
        ({"flags": {"f": 3}}, "flagd 'f' must be a table, got 3"),
        ({"flags": {"f": flag(["red", 5], variants=["red"])}}, "variants must be a table"),
        ({"flags": {"f": flag(["red", 5], state=None)}}, "state must be a text"),
    ],
)
def test_a_malformed_document_is_named(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("flagd", document)
