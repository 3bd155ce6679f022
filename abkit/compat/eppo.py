"""Eppo: the server's flags document (UFC), `{"flags": {...}}`.

An experiment is a flag with one allocation that is open to everybody. Allocations before it that
name single subjects are overrides, one behind it that serves everybody else is the control.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from abkit.bucketing import SPACE
from abkit.bucketing.eppo import SCHEMES
from abkit.compat.document import Table, table, tables, text, texts, whole
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
    from collections.abc import Mapping, Sequence

    from abkit.compat import Imported

_SLOTS = SCHEMES["eppo"].split
_EVERYBODY = (Span(0, SPACE, ""),)

Shards = dict[str, tuple[Span, ...]]


def load(config: Mapping[str, Any], *, now: datetime | None = None) -> Imported:
    """The experiments of an Eppo flags document.

    Args:
        config: what the server SDK's endpoint answers, not the obfuscated one for clients.
        now: decides which allocations have begun and ended; the clock by default.

    Raises:
        ConfigError: it is no such document.
    """
    if config.get("format", "SERVER") != "SERVER":
        raise ConfigError(
            f"eppo: the document's format is {config['format']!r}; hand in that of a server SDK"
        )
    flags = table(config.get("flags"), "eppo: 'flags'")
    bandits = table(config.get("bandits") or {}, "eppo: 'bandits'")
    flags_of_bandits = {
        text(row.get("flagKey"), f"eppo: bandit {name!r}: flagKey")
        for name, rows in bandits.items()
        for row in tables(rows, f"eppo: bandit {name!r}")
    }
    moment = datetime.now(UTC) if now is None else now
    return collect(flags.items(), partial(_draft, now=moment, bandits=flags_of_bandits))


def _draft(key: str, flag: object, now: datetime, bandits: set[str]) -> Draft:
    where = f"eppo: flag {key!r}"
    flag = table(flag, where)
    if key in bandits:
        raise Unsupported("it is a contextual bandit")
    if whole(flag.get("totalShards"), f"{where}: totalShards") != _SLOTS.count:
        raise Unsupported(f"it has {flag['totalShards']} shards, and abkit knows {_SLOTS.count}")
    if not isinstance(flag.get("enabled"), bool):
        raise ConfigError(f"{where}: enabled must be true or false")
    variants = _variants(flag, where)
    allocations = [
        row
        for row in tables(flag.get("allocations"), f"{where}: allocations")
        if _is_open(row, now, f"{where}: allocation {row.get('key')!r}")
    ]
    overrides: dict[str, str] = {}
    while allocations and (conditions := _conditions(allocations[0], where)):
        variant = _only_variant(allocations.pop(0), variants, where)
        if not variant:
            raise Unsupported("it splits subjects that it targets by rules")
        overrides = dict.fromkeys(_subjects(conditions, where), variant) | overrides
    if not allocations:
        raise Unsupported("it has no open allocation for everybody: a flag without an experiment")
    return _experiment(key, flag, variants, overrides, allocations)


def _experiment(
    key: str,
    flag: Table,
    variants: tuple[str, ...],
    overrides: dict[str, str],
    allocations: Sequence[Table],
) -> Draft:
    where = f"eppo: flag {key!r}"
    first, *rest = allocations
    if _only_variant(first, variants, where):
        raise Unsupported("it serves one variation to everybody: a flag without an experiment")
    salt, spans, traffic_salt, traffic = _split(_splits(first, variants, where))
    edges = carved(traffic)
    is_prefix = len(edges) == 1 and edges[0].lower == 0
    enabled = flag["enabled"]
    outside = not (enabled and is_everybody(spans) and is_everybody(traffic))
    # A flag that is off leaves all subjects to the caller, not to the allocation behind.
    control = _everybody_else(rest, variants, where) if outside and enabled else ""
    return Draft(
        key=key,
        hash="eppo",
        salt=salt,
        spans=spans,
        variants=variants,
        control=control or control_where_nothing(variants, outside=outside),
        state="running" if enabled else "killed",
        rollout=edges[0].upper / SPACE if is_prefix else 1.0,
        rollout_salt=traffic_salt if is_prefix else "",
        overrides=overrides,
        part=None if is_prefix else Part(traffic_salt, traffic_salt, "eppo", traffic),
    )


def _variants(flag: Table, where: str) -> tuple[str, ...]:
    variations = table(flag.get("variations"), f"{where}: variations")
    for name, variation in variations.items():
        if table(variation, f"{where}: variation {name!r}").get("key") != name:
            raise ConfigError(f"{where}: variation {name!r} has another key inside")
    if not variations:
        raise Unsupported("it has no variations")
    return tuple(variations)


def _is_open(allocation: Table, now: datetime, where: str) -> bool:
    begins = _moment(allocation.get("startAt"), f"{where}: startAt")
    ends = _moment(allocation.get("endAt"), f"{where}: endAt")
    if ends is not None and ends <= now:
        return False
    if begins is not None and begins > now:
        raise Unsupported(f"an allocation begins by itself at {begins}: import it then")
    if ends is not None:
        raise Unsupported(f"an allocation ends by itself at {ends}, and none does so here")
    return True


def _moment(value: object, what: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(text(value, what))
    except ValueError:
        raise ConfigError(f"{what} must be a moment like 2026-01-31T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ConfigError(f"{what} must name its time zone, got {value!r}")
    return moment


def _conditions(allocation: Table, where: str) -> list[list[Table]]:
    """The rules of which one has to be met; none where the allocation is open to everybody."""
    rules = [
        tables(rule.get("conditions"), f"{where}: conditions")
        for rule in tables(allocation.get("rules"), f"{where}: rules")
    ]
    return rules if all(rules) else []


def _subjects(conditions: Sequence[Sequence[Table]], where: str) -> list[str]:
    """The subjects that rules name one by one; their key is the attribute "id"."""
    subjects: list[str] = []
    for rule in conditions:
        one = rule[0]
        if len(rule) > 1 or one.get("attribute") != "id" or one.get("operator") != "ONE_OF":
            raise Unsupported("an allocation targets subjects by rules")
        subjects += texts(one.get("value"), f"{where}: rule: value")
    return subjects


def _splits(allocation: Table, variants: Sequence[str], where: str) -> list[tuple[str, Shards]]:
    """Variant and slots per salt of each split; the first one whose shards all match counts."""
    found = []
    for split in tables(allocation.get("splits"), f"{where}: splits"):
        variant = text(split.get("variationKey"), f"{where}: variationKey")
        if variant not in variants:
            raise ConfigError(f"{where}: a split names unknown variation {variant!r}")
        shards: Shards = {}
        for shard in tables(split.get("shards"), f"{where}: shards"):
            salt = text(shard.get("salt"), f"{where}: salt")
            if salt in shards:
                raise Unsupported("a split has two shards with one salt")
            shards[salt] = tuple(
                span(_SLOTS, whole(row.get("start"), where), whole(row.get("end"), where))
                for row in tables(shard.get("ranges"), f"{where}: ranges")
            )
        found.append((variant, shards))
    return found


def _only_variant(allocation: Table, variants: Sequence[str], where: str) -> str:
    """The variant of an allocation that serves all of its subjects the same; "" where it splits."""
    splits = _splits(allocation, variants, where)
    return splits[0][0] if splits and all(map(is_everybody, splits[0][1].values())) else ""


def _split(
    splits: Sequence[tuple[str, Shards]],
) -> tuple[str, tuple[Span, ...], str, tuple[Span, ...]]:
    """Salt and spans of the split, then those of the traffic that all of it shares."""
    salts = list(dict.fromkeys(salt for _, shards in splits for salt in shards))
    if not salts:
        raise Unsupported("its allocation has no splits")
    if len(salts) > 2:
        raise Unsupported(f"it hashes by {len(salts)} salts (a holdout, maybe), and abkit by two")
    traffic_salt = ""
    traffic: tuple[Span, ...] = _EVERYBODY
    if len(salts) == 2:
        shared = [s for s in salts if len({shards.get(s) for _, shards in splits}) == 1]
        if not shared:
            raise Unsupported("its splits have no traffic in common")
        traffic_salt = shared[0]
        traffic = splits[0][1][traffic_salt]
        salts.remove(traffic_salt)
    spans = tuple(
        Span(item.lower, item.upper, variant)
        for variant, shards in splits
        for item in shards.get(salts[0], _EVERYBODY)
    )
    return salts[0], spans, traffic_salt, traffic


def _everybody_else(rest: Sequence[Table], variants: Sequence[str], where: str) -> str:
    """The variant of those outside the experiment, or "" where the caller's default serves them."""
    if not rest:
        return ""
    if _conditions(rest[0], where):
        raise Unsupported("an allocation behind the experiment targets subjects by rules")
    variant = _only_variant(rest[0], variants, where)
    if not variant:
        raise Unsupported("it has several allocations in sequence that split")
    return variant
