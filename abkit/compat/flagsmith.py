"""Flagsmith: the environment document -> experiments.

Carried over are enabled features with multivariate values: their percentages, the control value
for the rest, and identity overrides that name one of these values. Features that a segment
overrides are targeted, and skipped.

Flagsmith reads an identifier that looks like a number as one, so that its override of "7" also
meets "07"; abkit's meets "7" alone.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from abkit.bucketing.flagsmith import COUNT, SCHEMES, percentage
from abkit.compat.document import number, same, table, tables, text, whole
from abkit.compat.draft import Draft, Span, Unsupported, collect, span
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.compat import Imported
    from abkit.compat.document import Table

CONTROL = "control"
"""What Flagsmith calls the units that get the feature's own value."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SHORTEST = re.compile(r"0|-?[1-9][0-9]*")


def load(config: Mapping[str, Any]) -> Imported:
    """The experiments in an environment document.

    A variant is named by its option's key, and where it has none by its value as text.

    Args:
        config: the document as the API and the SDK's offline handlers have it.

    Raises:
        ConfigError: the document is not one of Flagsmith's; the message says where.
    """
    environment = text(config.get("api_key"), "flagsmith: api_key")
    rows = tables(config.get("feature_states"), "flagsmith: feature_states")
    names = Counter(_name(row) for row in rows)
    targeted = _targeted(table(config.get("project"), "flagsmith: project"))
    identities = tables(config.get("identity_overrides"), "flagsmith: identity_overrides")

    def draft(key: str, row: Table) -> Draft:
        if names[key] > 1:
            raise Unsupported("it stands in the document more than once")
        if key in targeted:
            raise Unsupported(f"segment {targeted[key]!r} overrides it: targeting")
        return _draft(key, row, environment, identities)

    return collect(((_name(row), row) for row in rows), draft)


def _name(state: Table) -> str:
    feature = table(state.get("feature"), "flagsmith: feature")
    return text(feature.get("name"), "flagsmith: feature.name")


def _targeted(project: Table) -> dict[str, str]:
    """The name of a segment for each feature that one overrides."""
    found = {}
    for segment in tables(project.get("segments"), "flagsmith: segments"):
        for state in tables(segment.get("feature_states"), "flagsmith: segment.feature_states"):
            found[_name(state)] = text(segment.get("name"), "flagsmith: segment.name")
    return found


def _draft(key: str, row: Table, environment: str, identities: list[Table]) -> Draft:
    what = f"flagsmith {key!r}"
    if row.get("enabled") is not True:
        raise Unsupported("it is not enabled: Flagsmith then says so and still splits its value")
    options = _options(row, what)
    values = [(name, value) for name, _, value in options]
    values.append((CONTROL, row.get("feature_state_value")))
    names = [name for name, _ in values]
    if len(set(names)) < len(names):
        raise Unsupported(f"two of its variants have the same name: {names}; give options a key")
    return Draft(
        key=key,
        hash="flagsmith",
        salt=f"{_key(row, what)},{environment}_",
        spans=_spans(options),
        variants=tuple(names),
        control=CONTROL,
        overrides=_overrides(key, values, identities),
    )


def _key(row: Table, what: str) -> str:
    """The feature state's key, which the SDK takes from its database id or else its UUID."""
    number_of = row.get("django_id")
    if number_of:
        return str(whole(number_of, f"{what}: django_id"))
    return text(row.get("featurestate_uuid"), f"{what}: featurestate_uuid")


def _options(row: Table, what: str) -> list[tuple[str, float, object]]:
    """Name, weight in percent and value of the options, in the order of their priority."""
    found = []
    name = f"{what}: multivariate_feature_state_values"
    for place, item in enumerate(tables(row.get(name.partition(": ")[2]), name)):
        option = table(
            item.get("multivariate_feature_option"), f"{name}.multivariate_feature_option"
        )
        weight = number(item.get("percentage_allocation"), f"{name}.percentage_allocation")
        if weight < 0:
            raise Unsupported(f"an option has the negative weight {weight}")
        key, value = option.get("key"), option.get("value")
        shown = _shown(value) if key is None else text(key, f"{name}: key")
        found.append((_priority(item, name), place, (shown, weight, value)))
    if not found:
        raise Unsupported("it has no multivariate values: every unit gets the same")
    return [option for _, _, option in sorted(found, key=lambda item: item[:2])]


def _priority(item: Table, what: str) -> int:
    given = item.get("id")
    if given:
        return whole(given, f"{what}.id")
    shown = text(item.get("mv_fs_value_uuid"), f"{what}.mv_fs_value_uuid")
    try:
        return UUID(shown).int
    except ValueError:
        raise ConfigError(f"{what}.mv_fs_value_uuid must be a UUID, got {shown!r}") from None


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, (bool, int, float)):
        raise Unsupported("the value of an option is no text, number or truth value")
    return str(value).lower()


def _spans(options: list[tuple[str, float, object]]) -> tuple[Span, ...]:
    slots = SCHEMES["flagsmith"].split
    spans, lower, limit = [], 0, 0.0
    for name, weight, _ in options:
        # The engine's own sum and comparison: the first slot whose percentage is not below.
        limit = weight + limit
        upper = bisect_left(range(COUNT), limit, key=percentage)
        spans.append(span(slots, lower, upper, name))
        lower = upper
    spans.append(span(slots, lower, COUNT, CONTROL))
    return tuple(spans)


def _overrides(
    feature: str, values: list[tuple[str, object]], identities: list[Table]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for identity in identities:
        unit = text(identity.get("identifier"), "flagsmith: identifier")
        for state in tables(identity.get("identity_features"), "flagsmith: identity_features"):
            if _name(state) != feature or not _can_match(unit):
                continue
            value = state.get("feature_state_value")
            name = next((name for name, other in values if same(value, other)), None)
            if name is None or state.get("enabled") is not True:
                raise Unsupported(f"identity {unit!r} has a value of its own, or has it disabled")
            if found.setdefault(unit, name) != name:
                raise Unsupported(f"identity {unit!r} has two overrides")
    return found


def _can_match(unit: str) -> bool:
    """Whether the engine can meet this identifier: it reads whole numbers and writes them anew."""
    return _NUMBER.fullmatch(unit) is None or _SHORTEST.fullmatch(unit) is not None
