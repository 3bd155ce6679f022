"""PostHog: the local-evaluation document, `{"flags": [...]}`.

An experiment is a multivariate flag with one release condition for everybody. Its rollout and its
variants have hashes of their own, just as in abkit.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from abkit.bucketing import SPACE
from abkit.compat.document import Table, keyed, number, table, tables, text
from abkit.compat.draft import (
    Draft,
    Span,
    Unsupported,
    collect,
    control_where_nothing,
    first_slot,
)
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.compat import Imported

_NO_GAP = 1 - 1e-9


def load(config: Mapping[str, Any], *, unit: str = "distinct_id") -> Imported:
    """The experiments of a PostHog document.

    Args:
        config: what the local-evaluation endpoint answers.
        unit: "distinct_id" or "device_id", whichever abkit's `unit_id` is; experiments that hash
            the other one are skipped.

    Raises:
        ConfigError: it is no such document.
    """
    if "flags" not in config:
        raise ConfigError("posthog: no 'flags' in the document")
    flags = keyed(tables(config["flags"], "posthog: flags"), "key", "posthog: flags")
    return collect(flags.items(), partial(_draft, unit=unit))


def _draft(key: str, flag: Table, unit: str) -> Draft:
    where = f"posthog: flag {key!r}"
    filters = table(flag.get("filters") or {}, f"{where}: filters")
    _check_plain(flag, filters, unit)
    groups = tables(filters.get("groups"), f"{where}: groups")
    if len(groups) != 1:
        raise Unsupported(f"it has {len(groups)} release conditions, and an experiment has one")
    condition = groups[0]
    if condition.get("properties"):
        raise Unsupported("its release condition targets by properties")
    if condition.get("variant"):
        raise Unsupported("its release condition forces a variant")
    if condition.get("aggregation_group_type_index") is not None:
        raise Unsupported("it randomises groups, not persons")
    spans = _spans(filters, where)
    rollout = _rollout(condition.get("rollout_percentage"), where)
    active = flag.get("active") is True
    variants = tuple(item.owner for item in spans)
    return Draft(
        key=key,
        hash="posthog",
        salt=key,
        spans=spans,
        variants=variants,
        control=control_where_nothing(variants, outside=rollout < 1 or not active),
        state="running" if active else "killed",
        rollout=rollout,
    )


def _check_plain(flag: Table, filters: Table, unit: str) -> None:
    if flag.get("deleted"):
        raise Unsupported("it is deleted")
    if flag.get("ensure_experience_continuity"):
        raise Unsupported("it persists across authentication steps: PostHog's server decides")
    if filters.get("aggregation_group_type_index") is not None:
        raise Unsupported("it randomises groups, not persons")
    if filters.get("feature_enrollment") or filters.get("super_groups"):
        raise Unsupported("units enrol in it themselves (early access)")
    if filters.get("holdout") or filters.get("holdout_groups"):
        raise Unsupported("a holdout keeps units out of it")
    identifier = flag.get("bucketing_identifier") or filters.get("bucketing_identifier")
    if (identifier or "distinct_id") != unit:
        raise Unsupported(f"it hashes {identifier or 'distinct_id'!r}, not {unit!r}")


def _rollout(percentage: object, where: str) -> float:
    """The share inside. PostHog's `hash > share` is out, so that the slot of the share is in."""
    if percentage is None:
        return 1.0
    share = number(percentage, f"{where}: rollout_percentage") / 100
    if share <= 0:
        return 0.0
    return 1.0 if share >= 1 else (math.floor(share * SPACE) + 1) / SPACE


def _spans(filters: Table, where: str) -> tuple[Span, ...]:
    multivariate = table(filters.get("multivariate") or {}, f"{where}: multivariate")
    rows = tables(multivariate.get("variants"), f"{where}: variants")
    if not rows:
        raise Unsupported("it has no variants: a flag without an experiment")
    spans: list[Span] = []
    # PostHog adds up floating-point shares, beginning with a whole 0.
    lower = 0.0
    for name, row in keyed(rows, "key", f"{where}: variants").items():
        share = number(row.get("rollout_percentage"), f"{where}: variant") / 100
        if share < 0:
            raise ConfigError(f"{where}: a variant's percentage is below 0: {share * 100:g}")
        upper = lower + share
        spans.append(Span(first_slot(SPACE, lower), first_slot(SPACE, upper), text(name, where)))
        lower = upper
    if lower < _NO_GAP:
        raise Unsupported(f"its variants cover {lower:.0%} only; PostHog serves the others True")
    # Where the sum falls short of 1 by rounding, nobody's hash lies in between.
    last = max(n for n, item in enumerate(spans) if item.lower < item.upper)
    spans[last] = Span(spans[last].lower, SPACE, spans[last].owner)
    return tuple(spans)
