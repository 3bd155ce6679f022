"""Split: splitChanges, or the SDK's JSON file for localhost mode -> experiments.

Carried over are splits that treat all keys alike: one rule "all keys" with its percentages, the
traffic allocation with its seed, keys that are whitelisted by name, and killed splits. The rest is
targeting, dependencies or a hash that abkit has not got, and is skipped.

Split's SDK answers "control" for blank keys and for keys of more than 250 characters; abkit sorts
them like any other.
"""

from __future__ import annotations

import math
from reprlib import repr  # noqa: A004 - short, however deep the value is
from typing import TYPE_CHECKING, Any

from abkit.bucketing.split import SCHEMES
from abkit.compat.document import number, table, tables, text, texts, whole
from abkit.compat.draft import Draft, Span, Unsupported, collect, share_below, span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.compat import Imported
    from abkit.compat.document import Table

_MURMUR = 2
_SLOTS = SCHEMES["split"].split
_NO_TREATMENT = "control"  # what the SDK answers when it has nothing to say


def load(config: Mapping[str, Any]) -> Imported:
    """The experiments in a document of Split's.

    Args:
        config: `{"ff": {"d": [...]}}` or the older `{"splits": [...]}`.

    Raises:
        ConfigError: the document is not one of Split's; the message says where.
    """
    if config.get("splits"):  # the SDK asks in this order
        rows = tables(config["splits"], "split: splits")
    else:
        rows = tables(table(config.get("ff"), "split: ff").get("d"), "split: ff.d")
    # Of two splits with the same name the SDK keeps the later one.
    found = {text(row.get("name"), "split: name"): row for row in rows}
    return collect(found.items(), _draft)


def _draft(key: str, row: Table) -> Draft:
    what = f"split {key!r}"
    _check_alike(row, what)
    overrides, rule = _rules(tables(row.get("conditions"), f"{what}: conditions"), what)
    parts = [
        (
            text(part.get("treatment"), f"{what}: treatment"),
            whole(part.get("size"), f"{what}: size"),
        )
        for part in tables(rule.get("partitions"), f"{what}: partitions")
    ]
    if any(size < 0 for _, size in parts) or sum(size for _, size in parts) != _SLOTS.count:
        raise Unsupported(f"the sizes of its partitions must sum to 100, got {parts}")
    control = text(row.get("defaultTreatment"), f"{what}: defaultTreatment")
    treatments = tuple(dict.fromkeys(name for name, _ in parts))
    if _NO_TREATMENT in (control, *treatments, *overrides.values()):
        raise Unsupported('the treatment "control" is what the SDK says in place of an answer')
    rollout, rollout_salt = 1.0, ""
    if rule.get("conditionType") == "ROLLOUT":
        rollout, rollout_salt = _traffic(row, what)
    return Draft(
        key=key,
        hash="split",
        salt=str(_seed(row, "seed", what)),
        spans=_spans(parts),
        variants=tuple(dict.fromkeys((*treatments, *overrides.values()))),
        control=control,
        state="killed" if row.get("killed") else "running",
        rollout=rollout,
        rollout_salt=rollout_salt,
        overrides=overrides,
    )


def _check_alike(row: Table, what: str) -> None:
    status = text(row.get("status"), f"{what}: status")
    if status != "ACTIVE":
        raise Unsupported(f"its status is {status}: the SDK does not serve it")
    algorithm = row.get("algo")
    if algorithm != _MURMUR:
        raise Unsupported(f"its hash is not murmur3 (algo 2) but algo {repr(algorithm)}")
    if tables(row.get("prerequisites"), f"{what}: prerequisites"):
        raise Unsupported("it depends on other splits (prerequisites)")


def _rules(conditions: list[Table], what: str) -> tuple[dict[str, str], Table]:
    """The units that are whitelisted by name, and the rule for all keys."""
    overrides: dict[str, str] = {}
    for place, condition in enumerate(conditions, 1):
        if condition.get("conditionType", "WHITELIST") not in ("ROLLOUT", "WHITELIST"):
            raise Unsupported(f"condition {place} is of an unknown type")
        group = table(condition.get("matcherGroup"), f"{what}: matcherGroup")
        matchers = tables(group.get("matchers"), f"{what}: matchers")
        if len(matchers) != 1 or group.get("combiner") != "AND":
            raise Unsupported(f"condition {place} combines {len(matchers)} matchers: targeting")
        matcher = matchers[0]
        kind = matcher.get("matcherType")
        if matcher.get("negate") is not False or _attribute(matcher, what) is not None:
            raise Unsupported(f"condition {place} asks for an attribute or a negation: targeting")
        if kind == "ALL_KEYS":
            return overrides, condition
        if kind != "WHITELIST" or condition.get("conditionType") == "ROLLOUT":
            raise Unsupported(f"condition {place} matches by {repr(kind)}: targeting")
        treatment = _only(condition, place, what)
        for unit in _whitelist(matcher, what):
            overrides.setdefault(unit, treatment)  # the first condition that matches decides
    raise Unsupported("it has no rule for all keys")


def _attribute(matcher: Table, what: str) -> object:
    selector = matcher.get("keySelector")
    return None if selector is None else table(selector, f"{what}: keySelector").get("attribute")


def _whitelist(matcher: Table, what: str) -> list[str]:
    data = table(matcher.get("whitelistMatcherData"), f"{what}: whitelistMatcherData")
    return texts(data.get("whitelist"), f"{what}: whitelist")


def _only(condition: Table, place: int, what: str) -> str:
    parts = tables(condition.get("partitions"), f"{what}: partitions")
    if len(parts) != 1 or parts[0].get("size") != _SLOTS.count:
        raise Unsupported(f"condition {place} splits a whitelist: targeting")
    return text(parts[0].get("treatment"), f"{what}: treatment")


def _spans(parts: list[tuple[str, int]]) -> tuple[Span, ...]:
    spans, lower = [], 0
    for name, size in parts:
        # Split gives bucket b, from 1, to the first partition with `cumulated size >= b`.
        spans.append(span(_SLOTS, lower, lower + size, name))
        lower += size
    return tuple(spans)


def _traffic(row: Table, what: str) -> tuple[float, str]:
    """The share of traffic inside and its salt."""
    given = row.get("trafficAllocation")
    share = _SLOTS.count if given is None else number(given, f"{what}: trafficAllocation")
    if not 0 <= share < _SLOTS.count:
        return 1.0, ""  # the SDK takes what is out of range as 100
    seed = _seed(row, "trafficAllocationSeed", what)
    return share_below(_SLOTS, math.floor(share)), str(seed)


def _seed(row: Table, name: str, what: str) -> int:
    seed = row.get(name)
    if not seed:
        raise Unsupported(f"its {name} is {repr(seed)}, for which the SDK may put the time of day")
    return whole(seed, f"{what}: {name}")
