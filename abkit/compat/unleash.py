"""Unleash: the client API's document, `{"version": 2, "features": [...]}`.

An experiment is a feature with variants and at most one strategy, a rollout. Its rollout and its
variants have hashes of their own, just as in abkit.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from abkit.bucketing.unleash import SCHEMES
from abkit.compat.document import Table, keyed, table, tables, text, texts, whole
from abkit.compat.draft import (
    Draft,
    Span,
    Unsupported,
    collect,
    control_where_nothing,
    share_below,
    span,
)
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.compat import Imported

DISABLED = "disabled"
"""The variant that Unleash answers where a feature is off for a unit."""

_SPLIT, _ROLLOUT = SCHEMES["unleash"].split, SCHEMES["unleash"].rollout


def load(config: Mapping[str, Any], *, unit: str = "userId") -> Imported:
    """The experiments of an Unleash document.

    Args:
        config: what the client API answers.
        unit: the context field whose value is abkit's `unit_id`; experiments that stick to
            another one are skipped.

    Raises:
        ConfigError: it is no such document.
    """
    if "features" not in config:
        raise ConfigError("unleash: no 'features' in the document")
    features = keyed(tables(config["features"], "unleash: features"), "name", "unleash: features")
    return collect(features.items(), partial(_draft, unit=unit))


def _draft(key: str, feature: Table, unit: str) -> Draft:
    where = f"unleash: feature {key!r}"
    enabled = feature.get("enabled")
    if not isinstance(enabled, bool):
        raise ConfigError(f"{where}: enabled must be true or false")
    if feature.get("dependencies"):
        raise Unsupported("it depends on other features")
    strategies = tables(feature.get("strategies"), f"{where}: strategies")
    if len(strategies) > 1:
        raise Unsupported(f"it has {len(strategies)} strategies, and an experiment one rollout")
    strategy = strategies[0] if strategies else {"name": "default"}
    slots, group = _rollout(key, strategy, unit, where)
    variants = tables(strategy.get("variants"), f"{where}: variants")
    salt = group if variants else key
    variants = variants or tables(feature.get("variants"), f"{where}: variants")
    spans = _spans(variants, unit, where)
    outside = slots < _ROLLOUT.count or not enabled
    names = tuple(keyed(variants, "name", f"{where}: variants"))
    return Draft(
        key=key,
        hash="unleash",
        salt=salt,
        spans=spans,
        variants=names,
        control=DISABLED if outside else control_where_nothing(names, outside=False),
        state="running" if enabled else "killed",
        rollout=share_below(_ROLLOUT, slots),
        rollout_salt="" if group == salt else group,
        overrides=_overrides(variants, unit, slots, group, where),
    )


def _rollout(key: str, strategy: Table, unit: str, where: str) -> tuple[int, str]:
    """How many of 100 slots are inside, and the group that they are hashed with."""
    if strategy.get("constraints") or strategy.get("segments"):
        raise Unsupported("its strategy has constraints or segments")
    if strategy.get("disabled"):
        raise Unsupported("its only strategy is disabled")
    name = text(strategy.get("name"), f"{where}: strategy")
    given = table(strategy.get("parameters") or {}, f"{where}: parameters")
    group = given.get("groupId", key)
    if name == "default":
        return _ROLLOUT.count, text(group, f"{where}: groupId")
    if name == "flexibleRollout":
        _check_stickiness(given.get("stickiness", "default"), unit, "its rollout")
        percentage = given.get("rollout")
    elif name == "gradualRolloutUserId":
        _check_stickiness("userId", unit, "its rollout")
        percentage = given.get("percentage")
    else:
        raise Unsupported(f"its strategy is {name!r}: abkit knows the rollout by user only")
    group = text(group, f"{where}: groupId")
    if '"' in group:
        raise Unsupported(f"its group id {group!r} has a quotation mark: Unleash serves nobody")
    what = text(percentage, f"{where}: percentage of its strategy")
    if not (what.isascii() and what.isdigit() and len(what) <= 3 and int(what) <= 100):
        raise ConfigError(f"{where}: percentage must be a whole number up to 100, got {what!r:.80}")
    return int(what), group


def _check_stickiness(given: object, unit: str, what: str) -> None:
    # By default Unleash takes the first that it is given of userId, sessionId and chance.
    meant = "userId" if given in ("default", None) else given
    if meant != unit:
        raise Unsupported(f"{what} sticks to {given!r}, not to {unit!r}: import it with that unit")


def _spans(variants: Sequence[Table], unit: str, where: str) -> tuple[Span, ...]:
    if not variants:
        raise Unsupported("it has no variants: a flag without an experiment")
    # The first variant's stickiness holds for all of them.
    _check_stickiness(variants[0].get("stickiness"), unit, "its variants")
    spans: list[Span] = []
    lower = 0
    for row in variants:
        weight = whole(row.get("weight"), f"{where}: weight")
        if weight < 0:
            raise ConfigError(f"{where}: weight must not be negative, got {weight}")
        spans.append(span(_SPLIT, lower, lower + weight, text(row.get("name"), f"{where}: name")))
        lower += weight
    if lower != _SPLIT.count:
        raise Unsupported(f"its weights sum to {lower}, and abkit knows {_SPLIT.count}")
    return tuple(spans)


def _overrides(
    variants: Sequence[Table], unit: str, slots: int, group: str, where: str
) -> dict[str, str]:
    """Units with a variant of their own. Unlike in abkit the rollout comes before these."""
    found: dict[str, str] = {}
    for row in variants:
        for override in tables(row.get("overrides"), f"{where}: overrides"):
            if override.get("contextName") != unit:
                raise Unsupported(f"it has an override by {override.get('contextName')!r}")
            for value in texts(override.get("values"), f"{where}: overrides"):
                if _ROLLOUT.slot(group, value) < slots:
                    found.setdefault(value, row["name"])
    return found
