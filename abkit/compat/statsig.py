"""Statsig: download_config_specs in its second version -> experiments and layers.

Carried over are active experiments that everybody qualifies for: their groups, the allocation of a
layer or of the experiment itself, and overrides by id; and feature gates that pass a share of
everybody, as a rollout of one variant "on" against the control "off". Gates, segments, conditions
on attributes, holdouts and contextual bandits stay behind.

Outside of its experiment Statsig serves default parameters. Where those are a group's, that group
is the control. Where there are none, the caller's own fallback serves, and the control is the group
called "Control" or else a variant "off". Other defaults that a unit could meet are no group's, and
the experiment is skipped.

Statsig compares ids of overrides without regard to case; abkit takes them as they are spelt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from reprlib import repr  # noqa: A004 - short, however deep the value is
from typing import TYPE_CHECKING, Any

from abkit.bucketing import SPACE
from abkit.bucketing.statsig import GROUPS, SCHEMES, SHARES
from abkit.compat import Skipped
from abkit.compat.document import number, same, table, tables, text, texts
from abkit.compat.draft import (
    Draft,
    Part,
    Span,
    Unsupported,
    collect,
    control_where_nothing,
    share_below,
    span,
)
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.compat import Imported
    from abkit.compat.document import Table

_SLOTS = SCHEMES["statsig"].split


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule, and its only condition."""

    key: str
    name: str
    salt: str | None
    percentage: float
    value: object
    condition: Table
    kind: str
    operator: object
    target: object


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    upper: int
    value: object


def load(config: Mapping[str, Any]) -> Imported:
    """The experiments and gates in a document of Statsig's.

    Args:
        config: what `/v2/download_config_specs` answers.

    Raises:
        ConfigError: the document is not one of Statsig's; the message says where.
    """
    if config.get("has_updates") is False:
        raise ConfigError("statsig: the document says that nothing is new, and holds no specs")
    conditions = table(config.get("condition_map"), "statsig: condition_map")
    configs = table(config.get("dynamic_configs"), "statsig: dynamic_configs")
    gates = table(config.get("feature_gates"), "statsig: feature_gates")
    layers = table(config.get("experiment_to_layer") or {}, "statsig: experiment_to_layer")
    elsewhere = {
        name: f"{what} decides for it"
        for what in ("overrides", "cmab_configs")
        for name in table(config.get(what) or {}, f"statsig: {what}")
    }
    items: list[tuple[str, Table]] = []
    skipped = []
    for key, given in (*configs.items(), *gates.items()):
        spec = table(given, f"statsig {key!r}")
        if spec.get("entity") in ("experiment", "feature_gate"):
            items.append((key, spec))
        else:
            skipped.append(Skipped(key, f"it is a {repr(spec.get('entity'))}"))

    def draft(key: str, spec: Table) -> Draft:
        if key in elsewhere:
            raise Unsupported(elsewhere[key])
        if spec.get("enabled") is not True:
            raise Unsupported("it is not enabled")
        rules = _rules(key, spec, conditions)
        if spec["entity"] == "experiment":
            layer = text(layers.get(key, key), f"statsig {key!r}: layer")
            return _experiment(key, spec, rules, layer)
        if key in configs:
            raise Unsupported("an experiment has the same name")
        return _gate(key, spec, rules)

    return collect(items, draft, skipped)


def _rules(key: str, spec: Table, conditions: Table) -> list[_Rule]:
    what = f"statsig {key!r}"
    unit = text(spec.get("idType"), f"{what}: idType")
    found = []
    for rule in tables(spec.get("rules"), f"{what}: rules"):
        name = text(rule.get("id"), f"{what}: rule id")
        hashes = texts(rule.get("conditions"), f"{what}: rule {name!r}: conditions")
        if len(hashes) != 1 or hashes[0] not in conditions:
            raise Unsupported(f"rule {name!r} has not one condition but {len(hashes)}: targeting")
        condition = table(conditions[hashes[0]], f"{what}: condition {hashes[0]!r}")
        if not unit == rule.get("idType") == condition.get("idType"):
            raise Unsupported(f"rule {name!r} is about another kind of unit than {unit}")
        if rule.get("configDelegate"):
            raise Unsupported(f"rule {name!r} delegates to another experiment")
        group, salt = rule.get("groupName"), rule.get("salt")
        found.append(
            _Rule(
                key=name,
                name=name if group is None else text(group, f"{what}: groupName"),
                salt=None if salt is None else text(salt, f"{what}: rule {name!r}: salt"),
                percentage=number(rule.get("passPercentage"), f"{what}: passPercentage"),
                value=rule.get("returnValue"),
                condition=condition,
                kind=text(condition.get("type"), f"{what}: condition {hashes[0]!r}: type"),
                operator=condition.get("operator"),
                target=condition.get("targetValue"),
            )
        )
    return found


def _experiment(key: str, spec: Table, rules: list[_Rule], layer: str) -> Draft:
    if spec.get("isActive") is not True:
        raise Unsupported("it is not active: Statsig serves default parameters")
    what = f"statsig {key!r}"
    unit = spec["idType"]
    listed = [rule for rule in rules if _is_list(rule, unit)]
    others = rules[len(listed) :]
    if listed != rules[: len(listed)]:
        raise Unsupported("an override by id does not come before the other rules")
    allocation = others.pop(0) if others and others[0].operator in ("any", "none") else None
    groups, salt = _groups(others, what)
    taken = _allocated(allocation, what)
    outside = []
    if allocation is not None and len(taken) < GROUPS:
        outside.append(allocation.value if allocation.percentage else spec.get("defaultValue"))
    if max(group.upper for group in groups) < GROUPS:
        outside.append(spec.get("defaultValue"))
    part = None
    if allocation is not None and len(taken) < GROUPS:
        part = Part(layer, _salt(allocation, what), "statsig", _runs(taken))
    spans, lower = [], 0
    for group in groups:
        spans.append(span(_SLOTS, lower, group.upper, group.name))
        lower = max(lower, group.upper)
    return Draft(
        key=key,
        hash="statsig",
        salt=salt,
        spans=tuple(spans),
        variants=tuple(group.name for group in groups),
        control=_control(groups, outside),
        overrides=_overrides(listed, {group.name: group.value for group in groups}, what),
        part=part,
    )


def _is_list(rule: _Rule, unit: str) -> bool:
    """Whether a rule picks single units by their id."""
    field = rule.condition.get("field")
    by_id = rule.kind == "unit_id" or (rule.kind == "user_field" and unit == field == "userID")
    return by_id and rule.operator == "any" and isinstance(rule.target, list)


def _groups(rules: list[_Rule], what: str) -> tuple[list[_Group], str]:
    """The groups in their order, and the salt that all of them share."""
    groups: list[_Group] = []
    salts = set()
    for rule in rules:
        if rule.kind != "user_bucket" or rule.operator != "lt":
            raise Unsupported(f"rule {rule.key!r} asks for {rule.kind}: targeting or a holdout")
        if rule.percentage != 100:
            raise Unsupported(f"group {rule.name!r} passes only {rule.percentage} %")
        limit = number(rule.target, f"{what}: rule {rule.key!r}: targetValue")
        salts.add(_salt(rule, what))
        groups.append(_Group(rule.name, min(max(math.ceil(limit), 0), GROUPS), rule.value))
    if not groups:
        raise Unsupported("it has no groups")
    if len(salts) > 1 or len({group.name for group in groups}) < len(groups):
        raise Unsupported("its groups differ in salt, or two have the same name")
    return groups, salts.pop()


def _salt(rule: _Rule, what: str) -> str:
    values = table(rule.condition.get("additionalValues"), f"{what}: additionalValues")
    return text(values.get("salt"), f"{what}: additionalValues.salt")


def _allocated(rule: _Rule | None, what: str) -> list[int]:
    """The slots that are in the experiment, where one rule sends the others away."""
    if rule is None:
        return list(range(GROUPS))
    if rule.kind != "user_bucket" or rule.percentage not in (0, 100):
        raise Unsupported(f"rule {rule.key!r} asks for {rule.kind}: targeting or a holdout")
    where = f"{what}: rule {rule.key!r}: targetValue"
    given = rule.target if isinstance(rule.target, list) else table(rule.target, where)
    named = {str(item) for item in given if isinstance(item, (int, str))}
    sent_away = rule.operator == "any"
    return [slot for slot in range(GROUPS) if (str(slot) in named) is not sent_away]


def _runs(slots: list[int]) -> tuple[Span, ...]:
    """Spans of neighbouring slots."""
    starts = [slot for n, slot in enumerate(slots) if n == 0 or slots[n - 1] != slot - 1]
    ends = [slot + 1 for n, slot in enumerate(slots) if slots[n + 1 : n + 2] != [slot + 1]]
    return tuple(span(_SLOTS, lower, upper) for lower, upper in zip(starts, ends, strict=True))


def _control(groups: list[_Group], outside: list[object]) -> str:
    names = [group.name for group in groups]
    for value in outside[1:]:
        if not same(value, outside[0]):
            raise Unsupported("units outside get one of two different defaults")
    if outside:
        alike = next((group.name for group in groups if same(group.value, outside[0])), "")
        if alike:
            return alike
        if not same(outside[0], {}):
            raise Unsupported("units outside get default parameters that no group has")
    return control_where_nothing(names, outside=bool(outside))


def _overrides(rules: list[_Rule], values: Mapping[str, object], what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for rule in rules:
        served = rule.name in values and same(values[rule.name], rule.value)
        if rule.percentage != 100 or not served:
            raise Unsupported(f"override {rule.key!r} serves what no group does")
        for unit in texts(rule.target, f"{what}: rule {rule.key!r}: targetValue"):
            found[unit] = first.setdefault(unit.lower(), rule.name)
    return found


def _gate(key: str, spec: Table, rules: list[_Rule]) -> Draft:
    what = f"statsig {key!r}"
    listed = [rule for rule in rules if _is_list(rule, spec["idType"])]
    others = rules[len(listed) :]
    if listed != rules[: len(listed)]:
        raise Unsupported("an override by id does not come before the other rules")
    if not others or spec.get("defaultValue") is not False:
        raise Unsupported("it passes nobody, or everybody by default")
    rule = others[0]  # what stands behind a rule for everybody is never reached
    if rule.kind != "public" or rule.value is not True:
        raise Unsupported(f"rule {rule.key!r} asks for {rule.kind}: targeting")
    named = [replace(one, name="on" if one.value is True else "off") for one in listed]
    rule_salt = rule.key if rule.salt is None else rule.salt
    salt = f"{text(spec.get('salt'), f'{what}: salt')}.{rule_salt}"
    limit = math.ceil(min(max(rule.percentage * 100.0, 0.0), SHARES))
    return Draft(
        key=key,
        hash="statsig",
        salt=salt,
        spans=(Span(0, SPACE, "on"),),
        variants=("on",),
        control="off",
        rollout=share_below(SCHEMES["statsig"].rollout, limit),
        rollout_salt=salt,
        overrides=_overrides(named, {"on": True, "off": False}, what),
    )
