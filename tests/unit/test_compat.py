"""Importers need no vendor package: what they carry over, what they skip, what they refuse."""

from __future__ import annotations

import copy
import string
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import abkit
from abkit.bucketing import SPACE
from abkit.bucketing.scheme import scheme
from abkit.compat import VENDORS, draft, eppo, load
from abkit.compat.draft import Span
from abkit.compat.names import fresh, lawful
from abkit.errors import ConfigError
from abkit.metrics import check_name
from abkit.snapshot import Snapshot

NOW = datetime(2026, 6, 1, tzinfo=UTC)

Json = dict[str, Any]


# ---- one document for each vendor ---------------------------------------------------------------


def growthbook(rule: Json, feature: Json | None = None) -> Json:
    rule = {"variations": ["a", "b"], "hashVersion": 2} | rule
    return {"features": {"it": {"defaultValue": "a", "rules": [rule]} | (feature or {})}}


def eppo_flag(more: Json, allocation: Json | None = None) -> Json:
    ranges = [{"start": 0, "end": 5000}]
    splits = [
        {"variationKey": "a", "shards": [{"salt": "s", "ranges": ranges}]},
        {"variationKey": "b", "shards": []},
    ]
    flag = {
        "enabled": True,
        "variations": {"a": {"key": "a"}, "b": {"key": "b"}},
        "allocations": [{"key": "one", "splits": splits} | (allocation or {})],
        "totalShards": 10000,
    }
    return {"flags": {"it": flag | more}}


def unleash(feature: Json, strategy: Json | None = None, parameters: Json | None = None) -> Json:
    given_parameters = {"rollout": "50", "stickiness": "default", "groupId": "it"}
    one = {"name": "flexibleRollout", "parameters": given_parameters | (parameters or {})}
    variants = [{"name": "a", "weight": 500}, {"name": "b", "weight": 500}]
    base = {"name": "it", "enabled": True, "strategies": [one | (strategy or {})]}
    return {"version": 2, "features": [base | {"variants": variants} | feature]}


def launchdarkly(flag: Json, rollout: Json | None = None) -> Json:
    parts = [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]
    base = {
        "key": "it",
        "on": True,
        "salt": "s",
        "variations": ["a", "b"],
        "offVariation": 0,
        "fallthrough": {"rollout": {"variations": parts} | (rollout or {})},
    }
    return {"flags": {"it": base | flag}}


def optimizely(experiment: Json, datafile: Json | None = None) -> Json:
    base = {
        "id": "1",
        "key": "it",
        "status": "Running",
        "variations": [{"id": "10", "key": "a"}, {"id": "11", "key": "b"}],
        "trafficAllocation": [
            {"entityId": "10", "endOfRange": 5000},
            {"entityId": "11", "endOfRange": 10000},
        ],
        "audienceIds": [],
        "forcedVariations": {},
    }
    return {"version": "4", "experiments": [base | experiment]} | (datafile or {})


def posthog(flag: Json, filters: Json | None = None, condition: Json | None = None) -> Json:
    base_filters = {
        "groups": [{"properties": [], "rollout_percentage": 100} | (condition or {})],
        "multivariate": {
            "variants": [
                {"key": "a", "rollout_percentage": 50},
                {"key": "b", "rollout_percentage": 50},
            ]
        },
    }
    return {
        "flags": [{"key": "it", "active": True, "filters": base_filters | (filters or {})} | flag]
    }


DOCUMENTS = {
    "growthbook": growthbook({}),
    "eppo": eppo_flag({}),
    "unleash": unleash({}),
    "launchdarkly": launchdarkly({}),
    "optimizely": optimizely({}),
    "posthog": posthog({}),
}
RUNNING_HOLDOUT = {"status": "Running", "includedRules": ["1"]}
SKIPPED = [
    ("growthbook", growthbook({"condition": {"country": "NZ"}}), "condition"),
    ("growthbook", growthbook({"parentConditions": [{"id": "other"}]}), "other features"),
    ("growthbook", growthbook({"contextualBanditRef": "cb"}), "bandit"),
    ("growthbook", growthbook({"variations": ["a"]}), "1 variation"),
    ("growthbook", growthbook({"variations": None}), "without an experiment"),
    ("growthbook", growthbook({"force": "a"}), "without an experiment"),
    ("growthbook", growthbook({"hashVersion": 3}), "hash version 3"),
    ("growthbook", growthbook({"hashAttribute": "device"}), "import it with that unit"),
    ("growthbook", growthbook({"coverage": 0}), "no unit is in it"),
    ("growthbook", growthbook({"seed": "s" * 513}), "512"),
    ("growthbook", growthbook({"meta": [{"passthrough": True}]}), "holdout"),
    ("growthbook", growthbook({"filters": [{"ranges": []}, {"ranges": []}]}), "2 filters"),
    ("growthbook", growthbook({"filters": [{"attribute": "x", "ranges": []}]}), "hashes by 'x'"),
    ("growthbook", growthbook({"namespace": ["n", 0.2, 0.2]}), "no unit is in it"),
    ("growthbook", growthbook({}, {"rules": []}), "without an experiment"),
    ("growthbook", growthbook({}, {"rules": [{"force": 1}, {"force": 2}]}), "in sequence"),
    ("eppo", eppo_flag({"totalShards": 1000}), "1000 shards"),
    ("eppo", eppo_flag({"allocations": []}), "no open allocation"),
    ("eppo", eppo_flag({}, {"endAt": "2030-01-01T00:00:00Z"}), "ends by itself"),
    ("eppo", eppo_flag({}, {"startAt": "2030-01-01T00:00:00Z"}), "begins by itself"),
    ("eppo", eppo_flag({}, {"splits": [{"variationKey": "a", "shards": []}]}), "to everybody"),
    (
        "eppo",
        eppo_flag(
            {},
            {
                "splits": [{"variationKey": "a"}],
                "rules": [{"conditions": [{"attribute": "age", "operator": "GT", "value": 3}]}],
            },
        ),
        "by rules",
    ),
    ("eppo", eppo_flag({}) | {"bandits": {"x": [{"flagKey": "it"}]}}, "bandit"),
    (
        "eppo",
        eppo_flag(
            {},
            {
                "splits": [
                    {
                        "variationKey": "a",
                        "shards": [{"salt": s, "ranges": [{"start": 0, "end": 9}]} for s in "xyz"],
                    }
                ]
            },
        ),
        "3 salts",
    ),
    ("unleash", unleash({"dependencies": [{"feature": "other"}]}), "other features"),
    ("unleash", unleash({"strategies": [{"name": "default"}] * 2}), "2 strategies"),
    ("unleash", unleash({"variants": []}), "without an experiment"),
    ("unleash", unleash({"variants": [{"name": "a", "weight": 100}]}), "sum to 100"),
    ("unleash", unleash({"variants": [{"name": "a", "stickiness": "random"}]}), "'random'"),
    ("unleash", unleash({}, {"constraints": [{"operator": "IN"}]}), "constraints"),
    ("unleash", unleash({}, {"segments": [1]}), "segments"),
    ("unleash", unleash({}, {"name": "remoteAddress"}), "remoteAddress"),
    ("unleash", unleash({}, {"disabled": True}), "disabled"),
    ("unleash", unleash({}, {}, {"stickiness": "sessionId"}), "import it with that unit"),
    ("unleash", unleash({}, {}, {"groupId": 'a "group"'}), "quotation mark"),
    ("launchdarkly", launchdarkly({"rules": [{"clauses": []}]}), "target contexts"),
    ("launchdarkly", launchdarkly({"prerequisites": [{"key": "other"}]}), "other flags"),
    ("launchdarkly", launchdarkly({"fallthrough": {"variation": 1}}), "without an experiment"),
    ("launchdarkly", launchdarkly({"deleted": True}), "deleted"),
    ("launchdarkly", launchdarkly({}, {"contextKind": "org"}), "import it with that unit"),
    ("launchdarkly", launchdarkly({}, {"bucketBy": "country"}), "'country'"),
    (
        "launchdarkly",
        launchdarkly({"contextTargets": [{"contextKind": "org", "variation": 0, "values": ["x"]}]}),
        "kind 'org'",
    ),
    (
        "launchdarkly",
        launchdarkly(
            {},
            {
                "kind": "experiment",
                "variations": [
                    {"variation": 0, "weight": 20_000},
                    {"variation": 0, "weight": 40_000, "untracked": True},
                    {"variation": 1, "weight": 40_000, "untracked": True},
                ],
            },
        ),
        "2 variations",
    ),
    ("launchdarkly", {"flagValues": {"it": 3}}, "plain value"),
    ("optimizely", optimizely({"audienceIds": ["5"]}), "audience"),
    ("optimizely", optimizely({"audienceConditions": ["or", "5"]}), "audience"),
    ("optimizely", optimizely({"cmab": {"trafficAllocation": 10000}}), "bandit"),
    ("optimizely", optimizely({"type": "td"}), "delivery"),
    ("optimizely", optimizely({"trafficAllocation": []}), "no unit is in it"),
    ("optimizely", optimizely({}, {"localHoldouts": [RUNNING_HOLDOUT]}), "holdout"),
    (
        "optimizely",
        optimizely(
            {},
            {
                "holdouts": [{"status": "Running"}],
                "featureFlags": [{"key": "f", "experimentIds": ["1"]}],
            },
        ),
        "holdout",
    ),
    ("posthog", posthog({"ensure_experience_continuity": True}), "persists"),
    ("posthog", posthog({"bucketing_identifier": "device_id"}), "device_id"),
    ("posthog", posthog({"deleted": True}), "deleted"),
    ("posthog", posthog({}, {"multivariate": None}), "without an experiment"),
    ("posthog", posthog({}, {"aggregation_group_type_index": 0}), "groups, not persons"),
    ("posthog", posthog({}, {"holdout": {"id": 1, "exclusion_percentage": 5}}), "holdout"),
    ("posthog", posthog({}, {"feature_enrollment": True}), "early access"),
    ("posthog", posthog({}, {"groups": [{}, {}]}), "2 release conditions"),
    ("posthog", posthog({}, {}, {"properties": [{"key": "email"}]}), "properties"),
    ("posthog", posthog({}, {}, {"variant": "b"}), "forces a variant"),
    (
        "posthog",
        posthog({}, {"multivariate": {"variants": [{"key": "a", "rollout_percentage": 90}]}}),
        "90%",
    ),
]
REFUSED = [
    ("growthbook", {}, "'features'"),
    ("growthbook", {"encryptedFeatures": "x"}, "encrypted"),
    ("growthbook", growthbook({"variations": "ab"}), "variations must be a list"),
    ("growthbook", growthbook({"coverage": "all"}), "coverage must be a number"),
    ("growthbook", growthbook({"ranges": [[0, 1, 2]]}), "pairs of numbers"),
    ("growthbook", growthbook({"namespace": ["n", 0]}), "namespace must be"),
    ("eppo", {}, "'flags'"),
    ("eppo", {"format": "CLIENT", "flags": {}}, "'CLIENT'"),
    ("eppo", eppo_flag({"enabled": None}), "enabled"),
    ("eppo", eppo_flag({"variations": {"a": {"key": "c"}}}), "another key"),
    ("eppo", eppo_flag({}, {"endAt": "tomorrow"}), "endAt must be a moment"),
    ("eppo", eppo_flag({}, {"startAt": "2020-01-01"}), "time zone"),
    ("eppo", eppo_flag({}, {"splits": [{"variationKey": "z"}]}), "unknown variation 'z'"),
    ("unleash", {}, "'features'"),
    ("unleash", unleash({"enabled": 1}), "enabled"),
    ("unleash", unleash({}, {}, {"rollout": "33.5"}), "'33.5'"),
    ("unleash", unleash({}, {}, {"rollout": 50}), "must be a text, got 50"),
    ("unleash", {"features": [{"name": "x"}, {"name": "x"}]}, "stands there twice"),
    ("launchdarkly", {}, "'flags'"),
    ("launchdarkly", launchdarkly({"key": "other"}), "'other'"),
    ("launchdarkly", launchdarkly({"offVariation": 2}), "variation 2 of 2"),
    ("optimizely", {"version": "9"}, "version"),
    ("optimizely", optimizely({"variations": []}), "variations"),
    ("posthog", {}, "'flags'"),
    (
        "posthog",
        posthog({}, {}, {"rollout_percentage": "50"}),
        "rollout_percentage must be a number",
    ),
]


def imported(vendor: str, document: Json) -> Any:
    return load(vendor, document, **({"now": NOW} if vendor == "eppo" else {}))


# ---- what is carried over -----------------------------------------------------------------------


@pytest.mark.parametrize("vendor", DOCUMENTS)
def test_a_plain_experiment_is_carried_over_with_the_vendors_hash(vendor: str) -> None:
    found = imported(vendor, DOCUMENTS[vendor])
    assert found.skipped == ()
    assert found.renamed == {}
    [experiment] = found.experiments
    assert experiment.key == "it"
    assert experiment.hash.startswith(vendor)
    # GrowthBook knows a variation without a key of its own by its number.
    names = ["0", "1"] if vendor == "growthbook" else ["a", "b"]
    assert experiment.weights == pytest.approx(dict.fromkeys(names, 0.5))


@pytest.mark.parametrize(("vendor", "document", "reason"), SKIPPED)
def test_what_would_change_for_a_unit_is_skipped_and_says_why(
    vendor: str, document: Json, reason: str
) -> None:
    found = imported(vendor, document)
    assert found.experiments == ()
    [skipped] = [one for one in found.skipped if one.key == "it"]
    assert reason in skipped.reason


@pytest.mark.parametrize(("vendor", "document", "message"), REFUSED)
def test_a_document_that_is_none_of_the_vendors_is_refused(
    vendor: str, document: Json, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        imported(vendor, document)
    assert message in str(caught.value)
    assert str(caught.value).startswith(vendor)


def test_a_visual_experiment_and_a_flag_without_one_are_named_too() -> None:
    found = load("growthbook", {"features": {}, "experiments": [{"key": "headline"}]})
    assert [one.key for one in found.skipped] == ["headline"]
    flags = [{"key": "f", "experimentIds": []}]
    found = load("optimizely", optimizely({}, {"featureFlags": flags}))
    assert [one.key for one in found.skipped] == ["f"]


@pytest.mark.parametrize("vendor", DOCUMENTS)
def test_a_rollout_that_is_lowered_later_keeps_the_shares_of_the_variants(vendor: str) -> None:
    [experiment] = imported(vendor, DOCUMENTS[vendor]).experiments
    lowered = replace(experiment, rollout=0.25)
    before = abkit.Client.from_experiments([experiment])
    after = abkit.Client.from_experiments([lowered])
    units = [f"user-{n}" for n in range(4000)]
    inside = [u for u in units if after.assign("it", u).in_experiment]
    assert len(inside) == pytest.approx(1000, abs=120)
    assert all(before.variant("it", u) == after.variant("it", u) for u in inside)
    first = experiment.ranges[0].variant
    assert sum(after.variant("it", u) == first for u in inside) == pytest.approx(500, abs=90)


def test_an_experiment_that_is_off_serves_what_the_vendor_serves() -> None:
    [experiment] = load("launchdarkly", launchdarkly({"on": False, "offVariation": 1})).experiments
    assert (experiment.state, experiment.control) == ("killed", "b")
    [experiment] = load("unleash", unleash({"enabled": False})).experiments
    assert (experiment.state, experiment.control) == ("killed", "disabled")
    [experiment] = load("posthog", posthog({"active": False})).experiments
    assert (experiment.state, experiment.control) == ("killed", "off")
    [experiment] = load("optimizely", optimizely({"status": "Not started"})).experiments
    assert (experiment.state, experiment.control) == ("draft", "off")


def test_control_is_what_units_outside_get() -> None:
    [everybody] = load("growthbook", growthbook({}, {"defaultValue": "z"})).experiments
    [part] = load("growthbook", growthbook({"coverage": 0.5}, {"defaultValue": "z"})).experiments
    [known] = load("growthbook", growthbook({"coverage": 0.5}, {"defaultValue": "b"})).experiments
    assert [e.control for e in (everybody, part, known)] == ["0", "default", "1"]


def test_true_is_not_the_variation_1() -> None:
    document = growthbook({"variations": [0, 1], "coverage": 0.5}, {"defaultValue": True})
    [experiment] = load("growthbook", document).experiments
    assert experiment.control == "default"


def test_unleash_overrides_hold_inside_the_rollout_only() -> None:
    units = [f"user-{n}" for n in range(40)]
    override = {"contextName": "userId", "values": units}
    variants = [{"name": "a", "weight": 500}, {"name": "b", "weight": 500, "overrides": [override]}]
    [experiment] = load("unleash", unleash({"variants": variants})).experiments
    slot = scheme("unleash").rollout.slot
    assert experiment.overrides == {u: "b" for u in units if slot("it", u) < 50}


def test_experiments_of_one_namespace_exclude_each_other() -> None:
    rules = {"first": [0, 0.4], "second": [0.4, 1], "third": [0.3, 0.5]}
    document: Json = {"features": {}}
    for key, share in rules.items():
        [feature] = growthbook({"namespace": ["n", *share]})["features"].values()
        document["features"][key] = feature
    found = load("growthbook", document)
    # The third overlaps the others, and so it needs a copy of the layer.
    assert [e.layer for e in found.experiments] == ["n", "n", "n-2"]
    assert [layer.salt for layer in found.layers] == ["__n", "__n"]
    assert found.layers[0].shares == pytest.approx({"first": 0.4, "second": 0.6})
    assert found.layers[1].shares == pytest.approx({"third": 0.2})
    Snapshot.of(found.experiments, layers=found.layers, version=1, published=0.0)


def test_names_that_are_not_lawful_here_are_recorded() -> None:
    document = unleash({"name": "ma fée", "variants": [{"name": "a b", "weight": 1000}]})
    found = load("unleash", document)
    [experiment] = found.experiments
    assert found.renamed == {"ma fée": experiment.key, "ma fée/a b": experiment.ranges[0].variant}
    assert experiment.salt == "ma fée"


def test_an_allocation_that_has_ended_by_the_clock_is_gone() -> None:
    # The clock is an argument with a default: without one, it is the machine's.
    document = eppo_flag({}, {"endAt": "2001-01-01T00:00:00Z"})
    assert eppo.load(document).skipped[0].reason.startswith("it has no open allocation")


def test_an_unknown_vendor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vendor must be one of .* got 'acme'"):
        load("acme", {})
    with pytest.raises(ConfigError, match="must be a table, got list"):
        load("eppo", [])  # type: ignore[arg-type]
    assert set(DOCUMENTS) <= set(VENDORS)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="posthog: no option 'units'; known are unit"):
        load("posthog", DOCUMENTS["posthog"], units="device_id")
    with pytest.raises(ConfigError, match="known are none"):
        load("optimizely", DOCUMENTS["optimizely"], unit="user")


# ---- whatever a document holds ------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20_000),
    st.floats(width=32),
    st.sampled_from(["", "a", "it", "\ud800", "Running", "50"]),
    st.just(10**400),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Json]:
    """A vendor's document with some of its values replaced by others."""
    vendor = draw(st.sampled_from(sorted(DOCUMENTS)))
    documents = [document for name, document, _ in SKIPPED if name == vendor]
    document = copy.deepcopy(draw(st.sampled_from([DOCUMENTS[vendor], *documents])))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(node[key], (dict, list)) or draw(st.integers(0, 4)) == 0:
                node[key] = draw(VALUES)
                break
            node = node[key]
    return vendor, document


@settings(max_examples=300)
@given(damaged())
def test_an_importer_raises_nothing_but_a_config_error(case: tuple[str, Json]) -> None:
    vendor, document = case
    try:
        found = imported(vendor, document)
    except ConfigError:
        return
    # What it does carry over can be published and served.
    snapshot = Snapshot.of(found.experiments, layers=found.layers, version=1, published=0.0)
    assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot
    ab = abkit.Client.from_experiments(found.experiments, layers=found.layers)
    for experiment in found.experiments:
        assert ab.variant(experiment.key, "user-1") in experiment.variants


@given(st.lists(st.text(string.printable + "日\ud800", max_size=70)))
def test_names_are_lawful_and_none_is_given_twice(names: list[str]) -> None:
    found = lawful(names)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(found)
    for name in found.values():
        check_name(name, "name")
    assert found == {name: lawful(reversed(names))[name] for name in found}


def test_a_name_that_two_would_get_goes_to_the_lawful_one() -> None:
    [new] = lawful(["a b"]).values()
    assert lawful(["a b", new])[new] == new
    assert lawful(["a b", new])["a b"] != new
    assert fresh("off", ["on", "off", "off-2"]) == "off-3"


@given(st.sampled_from([1000, 10000, SPACE]), st.floats(allow_nan=False, allow_infinity=False))
def test_the_first_slot_is_where_the_vendors_comparison_turns(count: int, share: float) -> None:
    slot = draft.first_slot(count, share)
    assert 0 <= slot <= count
    assert slot == 0 or (slot - 1) / count < share
    assert slot == count or not slot / count < share


@given(st.integers(0, 1000), st.sampled_from([3, 100, 1000]))
def test_a_rollout_of_so_many_slots_is_exact(slot: int, count: int) -> None:
    slots = scheme("unleash").split if count == 1000 else scheme("unleash").rollout
    edge = Fraction(draft.share_below(slots, slot)) * SPACE
    assert edge == slots.edge(min(slot, slots.count))


@given(
    st.lists(
        st.builds(Span, st.integers(0, 20), st.integers(0, 20), st.sampled_from("abc")), max_size=6
    )
)
def test_of_spans_that_overlap_the_first_has_the_buckets(spans: list[Span]) -> None:
    ranges = draft.carved(spans)
    for bucket in range(20):
        first = [s.owner for s in spans if s.lower <= bucket < s.upper][:1]
        assert [r.variant for r in ranges if r.lower <= bucket < r.upper] == first
    edges = [edge for r in ranges for edge in (r.lower, r.upper)]
    assert edges == sorted(edges)
