"""Optimizely: the datafile of a Feature Experimentation or Full Stack project.

An experiment is an experiment, under its own key. A group of experiments that exclude each other
is a layer. Feature flags are left behind: what units outside of the experiment get from a flag's
delivery rules is not an experiment's business.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from abkit.bucketing.optimizely import SCHEMES
from abkit.compat import Skipped
from abkit.compat.document import Table, keyed, table, tables, text, texts, whole
from abkit.compat.draft import (
    Draft,
    Part,
    Span,
    Unsupported,
    carved,
    collect,
    control_where_nothing,
    is_everybody,
    span,
)
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.compat import Imported
    from abkit.experiment import State

_SLOTS = SCHEMES["optimizely"].split
_VERSIONS = ("2", "3", "4")
_EXCLUSIVE = "random"
_KINDS = {
    "cmab": "it is a contextual bandit",
    "fr": "it is a feature rollout",
    "mab": "its traffic is moved by a bandit",
    "td": "it is a targeted delivery",
}


def load(config: Mapping[str, Any]) -> Imported:
    """The experiments of an Optimizely datafile.

    Args:
        config: the datafile.

    Raises:
        ConfigError: it is no such document.
    """
    if config.get("version") not in _VERSIONS:
        raise ConfigError(
            f"optimizely: the datafile's version must be one of {_VERSIONS}, "
            f"got {config.get('version')!r:.80}"
        )
    rows = tables(config.get("experiments"), "optimizely: experiments")
    parts: dict[str, Part] = {}
    for group in tables(config.get("groups"), "optimizely: groups"):
        members = tables(group.get("experiments"), "optimizely: group: experiments")
        rows += members
        if group.get("policy") == _EXCLUSIVE:
            parts |= _parts(group, members)
    held_out, flags_without = _flags(config)
    experiments = keyed(rows, "key", "optimizely: experiments")
    return collect(
        experiments.items(), partial(_draft, parts=parts, held_out=held_out), flags_without
    )


def _draft(key: str, row: Table, parts: Mapping[str, Part], held_out: set[str]) -> Draft:
    where = f"optimizely: experiment {key!r}"
    number = text(row.get("id"), f"{where}: id")
    kind = _KINDS.get(str(row.get("type")), "it is a contextual bandit" if row.get("cmab") else "")
    if kind:
        raise Unsupported(kind)
    audience = row.get("audienceConditions")
    if audience if audience is not None else row.get("audienceIds"):
        raise Unsupported("it targets an audience")
    if number in held_out:
        raise Unsupported("a holdout keeps units out of it")
    variations = keyed(tables(row.get("variations"), f"{where}: variations"), "id", where)
    names = {
        name: text(variation.get("key"), f"{where}: variation: key")
        for name, variation in variations.items()
    }
    if not names or len(set(names.values())) < len(names):
        raise ConfigError(f"{where}: variations must be some, with keys that are unlike")
    spans = tuple(
        Span(item.lower, item.upper, names[item.owner])
        for item in _allocation(row, where)
        if item.owner in names
    )
    part = parts.get(number)
    state = _state(row.get("status"))
    variants = tuple(names.values())
    outside = part is not None or state != "running" or not is_everybody(spans)
    forced = table(row.get("forcedVariations") or {}, f"{where}: forcedVariations")
    return Draft(
        key=key,
        hash="optimizely",
        salt=number,
        spans=spans,
        variants=variants,
        control=control_where_nothing(variants, outside=outside),
        state=state,
        # Optimizely ignores a name that is none of the variations.
        overrides={user: name for user, name in forced.items() if name in variants},
        part=part,
    )


def _state(status: object) -> State:
    if status == "Running":
        return "running"
    return "draft" if status == "Not started" else "killed"


def _allocation(row: Table, where: str) -> list[Span]:
    """The buckets of each entity, "" for those that nobody gets."""
    spans, lower = [], 0
    for item in tables(row.get("trafficAllocation"), f"{where}: trafficAllocation"):
        end = whole(item.get("endOfRange"), f"{where}: endOfRange")
        owner = text(item.get("entityId"), f"{where}: entityId")
        spans.append(span(_SLOTS, lower, end, owner))
        lower = max(lower, end)
    return spans


def _parts(group: Table, members: list[Table]) -> dict[str, Part]:
    """The part of each experiment, by its id, in a group whose experiments exclude each other."""
    number = text(group.get("id"), "optimizely: group: id")
    ranges = carved(_allocation(group, f"optimizely: group {number!r}"))
    return {
        text(row.get("id"), "optimizely: group: experiment: id"): Part(
            f"group-{number}",
            number,
            "optimizely",
            tuple(Span(r.lower, r.upper, "") for r in ranges if r.variant == row["id"]),
        )
        for row in members
    }


def _flags(config: Mapping[str, Any]) -> tuple[set[str], list[Skipped]]:
    """The ids of experiments that a holdout touches, and the flags without an experiment."""
    everywhere, local = (
        [
            row
            for row in tables(config.get(name), f"optimizely: {name}")
            if row.get("status") == "Running"
        ]
        for name in ("holdouts", "localHoldouts")
    )
    held_out = {
        rule
        for row in local
        for rule in texts(row.get("includedRules"), "optimizely: holdout: includedRules")
    }
    flags_without = []
    for flag in tables(config.get("featureFlags"), "optimizely: featureFlags"):
        rules = texts(flag.get("experimentIds"), "optimizely: featureFlags: experimentIds")
        if everywhere:
            held_out.update(rules)
        if not rules:
            flags_without.append(Skipped(str(flag.get("key")), "a flag without an experiment"))
    return held_out, flags_without
