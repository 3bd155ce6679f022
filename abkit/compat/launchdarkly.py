"""LaunchDarkly: the flags of an SDK or a flag file, `{"flags": {...}, "segments": {...}}`.

An experiment is a flag whose fallthrough, the default rule, is a rollout and that has no other
rules. Individual targets are overrides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from abkit.bucketing import SPACE
from abkit.compat import Skipped
from abkit.compat.document import Table, listed, table, tables, text, texts, whole
from abkit.compat.draft import (
    Draft,
    Span,
    Unsupported,
    carved,
    collect,
    control_where_nothing,
    first_slot,
)
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.compat import Imported


def load(config: Mapping[str, Any], *, unit: str = "user") -> Imported:
    """The experiments of a LaunchDarkly document.

    Args:
        config: flags and segments, as an SDK receives them or a flag file holds them.
        unit: the context kind whose key is abkit's `unit_id`; experiments that randomise another
            kind are skipped.

    Raises:
        ConfigError: it is no such document.
    """
    values = table(config.get("flagValues") or {}, "launchdarkly: 'flagValues'")
    flags = config.get("flags") if values else config.get("flags", "nothing")
    flags = table(flags or {}, "launchdarkly: 'flags'")
    plain = [Skipped(key, "it is a plain value: a flag without an experiment") for key in values]
    return collect(flags.items(), partial(_draft, unit=unit), plain)


def _draft(key: str, flag: object, unit: str) -> Draft:
    where = f"launchdarkly: flag {key!r}"
    flag = table(flag, where)
    if flag.get("deleted"):
        raise Unsupported("it is deleted")
    if flag.get("key") != key:
        raise ConfigError(f"{where}: its own key is {flag.get('key')!r:.80}")
    if flag.get("prerequisites"):
        raise Unsupported("it depends on other flags")
    if flag.get("rules"):
        raise Unsupported("its rules target contexts")
    variants = _variants(listed(flag.get("variations"), f"{where}: variations"))
    fallthrough = table(flag.get("fallthrough") or {}, f"{where}: fallthrough")
    if fallthrough.get("variation") is not None or not fallthrough.get("rollout"):
        raise Unsupported("its default rule is no rollout: a flag without an experiment")
    rollout = table(fallthrough["rollout"], f"{where}: rollout")
    _check_unit(rollout, unit)
    is_on = flag.get("on") is True
    spans, untracked = _spans(rollout, variants, where)
    off = flag.get("offVariation")
    if is_on and untracked:
        control = untracked
    elif off is not None:
        control = _variant(off, variants, f"{where}: offVariation")
    else:
        control = control_where_nothing(variants, outside=not is_on)
    return Draft(
        key=key,
        hash="launchdarkly",
        salt=_salt(key, flag, rollout, where),
        spans=spans,
        variants=variants,
        control=control,
        state="running" if is_on else "killed",
        overrides=_overrides(flag, variants, unit, where),
    )


def _salt(key: str, flag: Table, rollout: Table, where: str) -> str:
    seed = rollout.get("seed")
    if seed is not None:
        return str(whole(seed, f"{where}: seed"))
    return f"{key}.{text(flag.get('salt') or '', f'{where}: salt')}"


def _variants(variations: Sequence[object]) -> tuple[str, ...]:
    """The variations' values where they are unlike, plain and short; else their numbers."""
    numbers = tuple(str(n) for n in range(len(variations)))
    names = tuple(
        str(value).lower() if isinstance(value, bool) else str(value)
        for value in variations
        if isinstance(value, (str, int, float))
    )
    is_plain = len(set(names)) == len(variations) and all(0 < len(name) <= 64 for name in names)
    return names if is_plain else numbers


def _variant(index: object, variants: Sequence[str], where: str) -> str:
    number = whole(index, where)
    if not 0 <= number < len(variants):
        raise ConfigError(f"{where}: variation {number} of {len(variants)} does not exist")
    return variants[number]


def _check_unit(rollout: Table, unit: str) -> None:
    kind = rollout.get("contextKind") or "user"
    if kind != unit:
        raise Unsupported(f"it randomises {kind!r}, not {unit!r}: import it with that unit")
    # An experiment always hashes the key; a rollout may hash another attribute.
    by = rollout.get("bucketBy")
    if rollout.get("kind") != "experiment" and by not in (None, "key"):
        raise Unsupported(f"it hashes by the attribute {by!r}, not by the context's key")


def _spans(rollout: Table, variants: Sequence[str], where: str) -> tuple[tuple[Span, ...], str]:
    """The buckets per variant, and the variant of those whom an experiment only passes through."""
    spans: list[Span] = []
    untracked: dict[str, None] = {}
    rows = tables(rollout.get("variations"), f"{where}: rollout")
    # LaunchDarkly adds up floating-point shares; who is above all of them gets the last variation.
    total, lower = 0.0, 0
    for n, row in enumerate(rows, 1):
        weight = whole(row.get("weight"), f"{where}: weight")
        if not 0 <= weight <= 100_000:
            raise ConfigError(f"{where}: weight must lie between 0 and 100000, got {weight}")
        total += weight / 100_000.0
        upper = SPACE if n == len(rows) else first_slot(SPACE, total)
        variant = _variant(row.get("variation"), variants, f"{where}: rollout")
        if rollout.get("kind") != "experiment" or row.get("untracked") is not True:
            spans.append(Span(lower, upper, variant))
        elif lower < upper:
            untracked[variant] = None
        lower = max(lower, upper)
    if len(untracked) > 1:
        raise Unsupported(
            f"contexts outside the experiment get {len(untracked)} variations, and here only one"
        )
    if not carved(spans):
        raise Unsupported("no context is in it: nothing of its rollout is tracked")
    return tuple(spans), next(iter(untracked), "")


def _overrides(flag: Table, variants: Sequence[str], unit: str, where: str) -> dict[str, str]:
    """Contexts that are targeted one by one, the first target first."""
    users = [
        (_variant(row.get("variation"), variants, f"{where}: target"), _keys(row, where))
        for row in tables(flag.get("targets"), f"{where}: targets")
    ]
    chosen = [] if flag.get("contextTargets") else [("user", *user) for user in users]
    for row in tables(flag.get("contextTargets"), f"{where}: contextTargets"):
        kind = row.get("contextKind") or "user"
        variant = _variant(row.get("variation"), variants, f"{where}: target")
        # For users this list holds the order only; the keys stand in `targets`.
        keys = (
            next((k for v, k in users if v == variant), []) if kind == "user" else _keys(row, where)
        )
        chosen.append((kind, variant, keys))
    found: dict[str, str] = {}
    for kind, variant, keys in chosen:
        if kind != unit and keys:
            raise Unsupported(f"it targets single contexts of kind {kind!r}")
        for context in keys:
            found.setdefault(context, variant)
    return found


def _keys(target: Table, where: str) -> list[str]:
    return texts(target.get("values"), f"{where}: target")
