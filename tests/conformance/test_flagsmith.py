"""Imported features serve what flagsmith serves from the same environment document."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from abkit.bucketing.scheme import scheme
from abkit.compat import load
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import abkit
    from abkit.compat import Imported

flagsmith = pytest.importorskip(
    "flagsmith", reason="flagsmith is not installed: python3 dev.py conformance"
)

EXTRA = ["tester", "7", "07", "1.5", "-0", "Tester", "é" * 250]


def state(name: str, value: object, *options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    # As a UUID in version 4, which says of itself that it is one.
    number = str(UUID(int=abs(hash_of(name)), version=4))
    return {
        "django_id": hash_of(name) % 100_000 + 1,
        "featurestate_uuid": number,
        "enabled": True,
        "feature": {"id": 1, "name": name, "type": "MULTIVARIATE"},
        "feature_state_value": value,
        "feature_segment": None,
        "multivariate_feature_state_values": list(options),
    } | changes


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode(), "big") % 2**100


def option(
    value: object, percent: float, number: int | None = None, key: str | None = None
) -> dict[str, Any]:
    return {
        "id": number,
        "mv_fs_value_uuid": str(UUID(int=hash_of(str(value)) + 7, version=4)),
        "percentage_allocation": percent,
        "multivariate_feature_option": {"id": number, "value": value, "key": key},
    }


def identity(name: str, *states: dict[str, Any]) -> dict[str, Any]:
    return {
        "identifier": name,
        "environment_api_key": "ser.8VzwKey",
        "identity_uuid": str(UUID(int=hash_of(name), version=4)),
        "created_date": "2026-01-01T00:00:00Z",
        "identity_features": list(states),
        "identity_traits": [],
    }


STATES = [
    state("halves", "off", option("on", 50, 1, "on")),
    state("nothing left", "a", option("b", 70.5, 2, "b"), option("c", 29.5, 1, "c")),
    state("numbers", 1, option(2, 33.3, 3), option(3, 33.3, 2), option(4, 33.3, 1)),
    state("tenths", "x", *(option(f"v{n}", 0.1 * n, n + 5, f"v{n}") for n in range(6))),
    state("by uuid", "x", option("y", 20, key="y y"), option("z", 30, key="z"), django_id=None),
    state("all", "x", option("y", 100, 1, "y"), option("z", 10, 2, "z")),
    state("tested", "x", option("y", 10, 1, "y"), option("z", 20, 2, "z")),
    state("none", "x", option("y", 0, 1, "y")),
    state("truths", False, option(True, 45, 9)),
]
IDENTITIES = [
    identity("tester", state("tested", "z"), state("halves", "on")),
    identity("7", state("tested", "y")),
    identity("1.5", state("tested", "y")),
    identity("-0", state("tested", "y")),
    identity("user-0", state("tested", "x")),
]
DOCUMENT = {
    "id": 1,
    "api_key": "ser.8VzwKey",
    "name": "production",
    "updated_at": "2026-01-01T00:00:00Z",
    "project": {"id": 1, "name": "p", "segments": []},
    "feature_states": STATES,
    "identity_overrides": IDENTITIES,
}
VALUES = {
    row["feature"]["name"]: {
        str(
            item["multivariate_feature_option"]["key"]
            or str(item["multivariate_feature_option"]["value"]).lower()
        ): item["multivariate_feature_option"]["value"]
        for item in row["multivariate_feature_state_values"]
    }
    | {"control": row["feature_state_value"]}
    for row in STATES
}


REACHED = {"all": 1, "numbers": 3, "none": 1, "tenths": 5, "tested": 3}


class Handler:
    def get_environment(self) -> dict[str, Any]:
        return copy.deepcopy(DOCUMENT)


@pytest.fixture
def client(offline: None) -> Any:
    return flagsmith.Flagsmith(offline_mode=True, offline_handler=Handler())


@pytest.mark.parametrize("name", VALUES)
def test_every_unit_keeps_its_value(
    name: str, client: Any, units: list[str], serving: Callable[[Imported], abkit.Client]
) -> None:
    found = load("flagsmith", DOCUMENT)
    assert found.skipped == ()
    ours = serving(found)
    key = found.renamed.get(name, name)
    values = {
        found.renamed.get(f"{name}/{variant}", variant): value
        for variant, value in VALUES[name].items()
    }
    seen = set()
    for unit in (*units, *EXTRA):
        if (name, unit) == ("tested", "07"):
            continue  # the engine reads it as 7: see the importer's docstring
        flag = client.get_identity_flags(unit).get_flag(name)
        variant = ours.variant(key, unit)
        assert flag.enabled
        assert (values[variant], type(values[variant])) == (flag.value, type(flag.value)), unit
        seen.add(variant)
    assert len(seen) >= REACHED.get(name, 2)


@pytest.mark.parametrize(
    "weights", [(33.3, 33.3, 33.4), (0.1, 0.2, 0.3), (0.01,), (99.99, 0.005), (50, 50, 7), (12.5,)]
)
def test_every_single_slot_is_on_the_engines_side_of_a_weight(weights: tuple[float, ...]) -> None:
    options = [option(f"v{n}", weight, n + 1, f"v{n}") for n, weight in enumerate(weights)]
    document = DOCUMENT | {"feature_states": [state("f", "x", *options)], "identity_overrides": []}
    ranges = load("flagsmith", document).experiments[0].ranges
    slots = scheme("flagsmith").split
    for slot in range(slots.count):
        # As get_flag_result_from_context compares it.
        value, start, expected = slot / 9998 * 100, 0.0, "control"
        for number, weight in enumerate(weights):
            limit = weight + start
            if start <= value < limit:
                expected = f"v{number}"
                break
            start = limit
        bucket = slots.edge(slot)
        assert next(r.variant for r in ranges if r.lower <= bucket < r.upper) == expected


def test_the_name_of_a_variant_is_the_options_key(client: Any, units: list[str]) -> None:
    experiment = load("flagsmith", DOCUMENT).experiments[0]
    assert experiment.variants == ("control", "on")
    flags = (client.get_identity_flags(unit).get_flag("halves") for unit in units[:50])
    assert {flag.variant for flag in flags} == {"control", "on"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feature_states": [state("f", 1)]}, "no multivariate values"),
        ({"feature_states": [state("f", 1, option(2, 50, 1), enabled=False)]}, "not enabled"),
        ({"feature_states": [state("f", 1, option(2, -5, 1))]}, "negative"),
        ({"feature_states": [state("f", 1, option(2, 5, 1), option("2", 5, 2))]}, "same name"),
        (
            {
                "feature_states": [state("f", 1, option(2, 5, 1))],
                "project": {
                    "segments": [{"name": "beta", "feature_states": [state("f", 9)], "rules": []}]
                },
            },
            "segment 'beta' overrides it",
        ),
        (
            {
                "feature_states": [state("f", 1, option(2, 5, 1))],
                "identity_overrides": [identity("me", state("f", 3))],
            },
            "a value of its own",
        ),
        (
            {
                "feature_states": [state("f", 1, option(2, 5, 1))],
                "identity_overrides": [
                    identity("me", state("f", 2)),
                    identity("me", state("f", 1)),
                ],
            },
            "two overrides",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_skipped_with_a_reason(
    changes: dict[str, Any], reason: str
) -> None:
    found = load("flagsmith", DOCUMENT | {"identity_overrides": []} | changes)
    assert found.experiments == ()
    assert {skipped.key for skipped in found.skipped} == {"f"}
    assert reason in found.skipped[0].reason


def test_a_feature_that_stands_twice_is_skipped() -> None:
    states = [state("f", 1, option(2, 5, 1)), state("f", 1, option(2, 6, 1))]
    found = load("flagsmith", DOCUMENT | {"feature_states": states})
    assert [skipped.reason for skipped in found.skipped] == [
        "it stands in the document more than once"
    ] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api_key": None}, "flagsmith: api_key must be a text"),
        ({"project": None}, "flagsmith: project must be a table"),
        ({"feature_states": [{}]}, "flagsmith: feature must be a table"),
        (
            {"feature_states": [state("f", 1, option(2, 5) | {"mv_fs_value_uuid": "x"})]},
            "must be a UUID, got 'x'",
        ),
    ],
)
def test_a_malformed_document_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("flagsmith", DOCUMENT | changes)
