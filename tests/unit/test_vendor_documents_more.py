"""Documents of Split, Flagsmith, PlanOut, statsig and flagd, whole and broken.

No vendor package is needed here; `tests/conformance` asks the packages themselves.
"""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.compat import load
from abkit.errors import ConfigError
from abkit.snapshot import Snapshot

DOCUMENTS: dict[str, dict[str, Any]] = {
    "split": {
        "ff": {
            "d": [
                {
                    "name": "a split",
                    "seed": -5,
                    "trafficAllocation": 60,
                    "trafficAllocationSeed": 9,
                    "status": "ACTIVE",
                    "killed": False,
                    "defaultTreatment": "off",
                    "algo": 2,
                    "conditions": [
                        {
                            "conditionType": kind,
                            "matcherGroup": {
                                "combiner": "AND",
                                "matchers": [
                                    {
                                        "matcherType": matcher,
                                        "negate": False,
                                        "keySelector": {"attribute": None},
                                        "whitelistMatcherData": {"whitelist": ["me"]},
                                    }
                                ],
                            },
                            "partitions": [{"treatment": "on", "size": 100}],
                        }
                        for kind, matcher in (("WHITELIST", "WHITELIST"), ("ROLLOUT", "ALL_KEYS"))
                    ],
                }
            ]
        }
    },
    "flagsmith": {
        "api_key": "ser.Key",
        "project": {"segments": [{"name": "s", "feature_states": []}]},
        "feature_states": [
            {
                "featurestate_uuid": "f",
                "enabled": True,
                "feature": {"name": "a feature"},
                "feature_state_value": 1,
                "multivariate_feature_state_values": [
                    {
                        "mv_fs_value_uuid": "6f1c24b0-8a1e-4c3f-9d64-0a7a1b2c3d4e",
                        "percentage_allocation": 12.5,
                        "multivariate_feature_option": {"key": "b", "value": 2},
                    }
                ],
            }
        ],
        "identity_overrides": [
            {
                "identifier": "me",
                "identity_features": [
                    {"enabled": True, "feature": {"name": "a feature"}, "feature_state_value": 2}
                ],
            }
        ],
    },
    "planout": {
        "name": "a test",
        "salt": "s",
        "script": {
            "op": "seq",
            "seq": [
                {
                    "op": "set",
                    "var": name,
                    "value": {
                        "op": operator,
                        "choices": {"op": "array", "values": ["a", "b"]},
                        "weights": [1, 0.5],
                        "p": 0.2,
                        "unit": {"op": "get", "var": "userid"},
                    },
                }
                for name, operator in (
                    ("x", "weightedChoice"),
                    ("y", "uniformChoice"),
                    ("z", "bernoulliTrial"),
                )
            ],
        },
    },
    "statsig": {
        "dynamic_configs": {
            "an experiment": {
                "salt": "s",
                "enabled": True,
                "isActive": True,
                "defaultValue": {},
                "idType": "userID",
                "entity": "experiment",
                "rules": [
                    {
                        "id": name,
                        "groupName": name,
                        "passPercentage": 100,
                        "conditions": [name],
                        "returnValue": {},
                        "idType": "userID",
                    }
                    for name in ("allocation", "a group", "group")
                ],
            }
        },
        "feature_gates": {},
        "experiment_to_layer": {"an experiment": "a layer"},
        "condition_map": {
            name: {
                "type": "user_bucket",
                "targetValue": target,
                "operator": operator,
                "additionalValues": {"salt": "t"},
                "idType": "userID",
            }
            for name, target, operator in (
                ("allocation", {"1": True, "7": True}, "none"),
                ("a group", 300, "lt"),
                ("group", 1000, "lt"),
            )
        },
    },
    "flagd": {
        "flags": {
            "a flag": {
                "state": "ENABLED",
                "variants": {"a": 1, "b": 2},
                "defaultVariant": "a",
                "targeting": {
                    "fractional": [
                        {"cat": ["x", {"var": "targetingKey"}]},
                        ["a", 3],
                        ["b", 4],
                    ]
                },
            }
        }
    },
}
TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=6,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything inside of a document."""
    inside: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    below = (place for key, item in inside for place in places(item, (*path, key)))
    return [*([path] if path else []), *below]


@st.composite
def broken(draw: st.DrawFn, vendor: str) -> dict[str, Any]:
    """A document in which up to three values are other ones, or gone."""
    document = copy.deepcopy(DOCUMENTS[vendor])
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(document)))
        holder: Any = document
        for step in path:
            holder = holder[step]
        if draw(st.booleans()):
            holder[last] = draw(JSON)
        else:
            del holder[last]
        if not document:
            break
    return document


@pytest.mark.parametrize("vendor", DOCUMENTS)
def test_a_whole_document_becomes_a_snapshot(vendor: str) -> None:
    found = load(vendor, DOCUMENTS[vendor])
    assert found.experiments
    assert found.skipped == ()
    snapshot = Snapshot.of(found.experiments, layers=found.layers, version=1, published=0.0)
    assert Snapshot.from_bytes(snapshot.to_bytes()).experiments == snapshot.experiments


@pytest.mark.parametrize("vendor", DOCUMENTS)
def test_the_document_is_left_as_it_was(vendor: str) -> None:
    before = json.dumps(DOCUMENTS[vendor])
    load(vendor, DOCUMENTS[vendor])
    assert json.dumps(DOCUMENTS[vendor]) == before


@pytest.mark.parametrize("vendor", DOCUMENTS)
@given(data=st.data())
def test_nothing_but_a_config_error_comes_of_a_broken_document(
    vendor: str, data: st.DataObject
) -> None:
    document = data.draw(broken(vendor))
    with contextlib.suppress(ConfigError):
        found = load(vendor, document)
        for skipped in found.skipped:
            assert skipped.reason
