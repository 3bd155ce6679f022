"""GrowthBook: the document of its SDK endpoint, `{"features": {...}}`.

An experiment is a feature with one rule, the experiment. Coverage leaves gaps in the ranges, a
namespace or filter is a layer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from abkit.bucketing.scheme import scheme
from abkit.compat import Imported, Skipped
from abkit.compat.document import Table, listed, number, same, table, tables, text, whole
from abkit.compat.draft import (
    Draft,
    Part,
    Span,
    Unsupported,
    collect,
    first_slot,
    is_everybody,
    span,
)
from abkit.compat.names import fresh
from abkit.errors import ConfigError
from abkit.records import is_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.bucketing.scheme import Slots

DEFAULT = "default"
_VERSIONS = (1, 2)


def load(config: Mapping[str, Any], *, unit: str = "id") -> Imported:
    """The experiments of a GrowthBook document.

    Args:
        config: what the SDK endpoint answers, decrypted.
        unit: the hash attribute whose value is abkit's `unit_id`; experiments that hash by
            another one are skipped.

    Raises:
        ConfigError: it is no such document.
    """
    if "features" not in config and "encryptedFeatures" in config:
        raise ConfigError("growthbook: the document is encrypted; hand in the decrypted one")
    features = table(config.get("features"), "growthbook: 'features'")
    visual = [
        Skipped(str(item.get("key", "")), "it runs in the browser (visual editor or redirect)")
        for item in tables(config.get("experiments"), "growthbook: 'experiments'")
    ]
    return collect(features.items(), partial(_draft, unit=unit), visual)


def _draft(key: str, feature: object, unit: str) -> Draft:
    where = f"growthbook: feature {key!r}"
    feature = table(feature, where)
    rule = _only_rule(tables(feature.get("rules"), f"{where}: rules"))
    where = f"{where}: rule"
    attribute = "id" if rule.get("hashAttribute") is None else rule["hashAttribute"]
    if attribute != unit:
        raise Unsupported(f"it hashes by {attribute!r}, not by {unit!r}: import it with that unit")
    name = f"growthbook-v{_version(rule.get('hashVersion') or 1, where)}"
    slots = scheme(name).split
    variations = listed(rule["variations"], f"{where}: variations")
    if len(variations) < 2:
        raise Unsupported(f"it has {len(variations)} variation, and an experiment needs 2")
    variants = _variants(tables(rule.get("meta"), f"{where}: meta"), len(variations))
    spans = tuple(
        span(slots, first_slot(slots.count, low), first_slot(slots.count, high), variant)
        for variant, (low, high) in zip(variants, _shares(rule, len(variants), where), strict=False)
    )
    part = _part(rule, unit, where)
    outside = part is not None or not is_everybody(spans)
    salt = rule.get("seed") or rule.get("key") or key
    return Draft(
        key=key,
        hash=name,
        salt=text(salt, f"{where}: seed or key"),
        spans=spans,
        variants=variants,
        control=_control(feature.get("defaultValue"), variations, variants, outside=outside),
        part=part,
    )


def _only_rule(rules: Sequence[Table]) -> Table:
    """The experiment of a feature that is nothing but one experiment."""
    if not rules:
        raise Unsupported("it has no rules: a flag without an experiment")
    if len(rules) > 1:
        raise Unsupported(f"it has {len(rules)} rules in sequence")
    rule = rules[0]
    for name, what in (
        ("condition", "targets units by condition"),
        ("parentConditions", "depends on other features"),
        ("contextualBanditRef", "is a contextual bandit"),
        ("contextualVariations", "is a contextual bandit"),
    ):
        if rule.get(name):
            raise Unsupported(f"its rule {what}")
    if rule.get("force") is not None:
        raise Unsupported("its rule forces a value: a flag without an experiment")
    if rule.get("variations") is None:
        raise Unsupported("its rule has no variations: a flag without an experiment")
    return rule


def _version(value: object, where: str) -> int:
    version = whole(value, f"{where}: hashVersion")
    if version not in _VERSIONS:
        raise Unsupported(f"hash version {version} is unknown: GrowthBook has {_VERSIONS}")
    return version


def _variants(meta: Sequence[Table], count: int) -> tuple[str, ...]:
    """GrowthBook's keys of the variations: their own, or else their numbers."""
    if any(item.get("passthrough") for item in meta):
        raise Unsupported("it is a GrowthBook holdout: units pass through to other rules")
    keys = [item.get("key") for item in meta[:count]]
    names = [key if isinstance(key, str) and key else str(n) for n, key in enumerate(keys)]
    names += [str(n) for n in range(len(names), count)]
    return tuple(names) if len(set(names)) == count else tuple(map(str, range(count)))


def _shares(rule: Table, count: int, where: str) -> list[tuple[float, float]]:
    """From which to which share each variation reaches, in GrowthBook's own floating point."""
    ranges = listed(rule.get("ranges"), f"{where}: ranges")
    if ranges:
        if len(ranges) > count:
            raise ConfigError(f"{where}: {len(ranges)} ranges for {count} variations")
        return [_pair(item, f"{where}: ranges") for item in ranges]
    coverage = rule.get("coverage")
    coverage = 1.0 if coverage is None else number(coverage, f"{where}: coverage")
    coverage = min(max(coverage, 0.0), 1.0)
    weights = rule.get("weights")
    if not isinstance(weights, list) or not _is_usable(weights, count):
        weights = [1 / count] * count
    shares, start = [], 0.0
    for weight in weights:
        shares.append((start, start + coverage * weight))
        start += weight
    return shares


def _is_usable(weights: Sequence[Any], count: int) -> bool:
    """Whether GrowthBook uses these weights; it replaces others by equal ones."""
    if len(weights) != count or not all(is_number(w) and w >= 0 for w in weights):
        return False
    total: float = sum(weights)
    return 0.99 <= total <= 1.01


def _pair(value: object, where: str) -> tuple[float, float]:
    pair = listed(value, where)
    if len(pair) != 2:
        raise ConfigError(f"{where} must be pairs of numbers, got one of {len(pair)}")
    return number(pair[0], where), number(pair[1], where)


def _part(rule: Table, unit: str, where: str) -> Part | None:
    """The layer that a filter or, where there is none, a namespace means."""
    filters = tables(rule.get("filters"), f"{where}: filters")
    if len(filters) > 1:
        raise Unsupported(f"it has {len(filters)} filters, and an experiment has one layer here")
    if filters:
        one = filters[0]
        if one.get("attribute", "id") != unit:
            raise Unsupported(f"its filter hashes by {one.get('attribute', 'id')!r}, not {unit!r}")
        version = _version(one.get("hashVersion", 2), f"{where}: filter")
        seed = text(one.get("seed", ""), f"{where}: filter: seed")
        pairs = [_pair(item, f"{where}: filter") for item in listed(one.get("ranges"), where)]
        return _layer(seed, seed, f"growthbook-v{version}", pairs)
    namespace = listed(rule.get("namespace"), f"{where}: namespace")
    if not namespace:
        return None
    if len(namespace) != 3:
        raise ConfigError(f"{where}: namespace must be [name, from, to], got {namespace!r:.80}")
    name = text(namespace[0], f"{where}: namespace")
    return _layer(name, f"__{name}", "growthbook-v1", [_pair(namespace[1:], f"{where}: namespace")])


def _layer(name: str, salt: str, hash_name: str, pairs: Sequence[tuple[float, float]]) -> Part:
    slots: Slots = scheme(hash_name).split
    spans: list[Span] = []
    for low, high in pairs:
        spans.append(span(slots, first_slot(slots.count, low), first_slot(slots.count, high)))
    return Part(name, salt, hash_name, tuple(spans))


def _control(
    default: object, variations: Sequence[object], variants: Sequence[str], *, outside: bool
) -> str:
    """What units outside get: the feature's default value, which may be no variation."""
    for variation, variant in zip(variations, variants, strict=True):
        if same(default, variation):
            return variant
    return fresh(DEFAULT, variants) if outside else variants[0]
