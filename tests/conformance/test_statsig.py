"""Imported experiments and gates serve what statsig-python-core serves, for every unit.

The core is compiled, brings threads of its own and keeps them after `shutdown`: it answers in a
process of its own, out of a data store that holds the document, with the network switched off.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import load
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import abkit
    from abkit.compat import Imported

pytest.importorskip(
    "statsig_python_core",
    reason="statsig-python-core is not installed: python3 dev.py conformance",
)

ORACLE = """
import json, os, sys
from statsig_python_core import DataStore, DataStoreResponse, Statsig, StatsigOptions, StatsigUser

asked = json.load(sys.stdin)

class Store(DataStore):
    def get(self, key):
        return DataStoreResponse(result=json.dumps(asked["document"]), time=1763058994592)

    def support_polling_updates_for(self, key):
        return True

statsig = Statsig("secret-key", StatsigOptions(
    data_store=Store(), disable_network=True, disable_all_logging=True,
    disable_country_lookup=True, disable_disk_access=True, output_log_level="none",
))
statsig.initialize().wait()
assert statsig.get_initialize_details().source == "Adapter(DataStore)"

def user(name, unit):
    custom = asked["document"]["dynamic_configs"].get(name, {}).get("idType") == "companyID"
    return StatsigUser("someone", custom_ids={"companyID": unit}) if custom else StatsigUser(unit)

answers = {}
for name in asked["document"]["dynamic_configs"]:
    found = [statsig.get_experiment(user(name, unit), name) for unit in asked["units"]]
    assert {one.details.reason for one in found} == {"Adapter(DataStore):Recognized"}
    answers[name] = [[one.group_name, one.value] for one in found]
for name in asked["document"]["feature_gates"]:
    answers[name] = [statsig.check_gate(StatsigUser(unit), name) for unit in asked["units"]]

sockets = 0  # to the network, as far as this system shows them
for table in ("tcp", "tcp6", "udp", "udp6"):
    if os.path.exists(f"/proc/self/net/{table}"):
        inodes = [line.split()[9] for line in list(open(f"/proc/self/net/{table}"))[1:]]
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        mine = [os.readlink(link) for link in links if os.path.islink(link)]
        sockets += sum(f"socket:[{inode}]" in mine for inode in inodes)
statsig.shutdown().wait()
json.dump({"answers": answers, "sockets": sockets}, sys.stdout)
"""

EXTRA = ["tester", "vip", "VIP", "null", "é" * 3_000]
CONDITIONS: dict[str, dict[str, Any]] = {}


def condition(kind: str, target: Any = None, operator: str | None = None, **changes: Any) -> str:
    found = {
        "type": kind,
        "targetValue": target,
        "operator": operator,
        "field": None,
        "additionalValues": {},
        "idType": "userID",
    } | changes
    key = str(len(CONDITIONS) + 1)
    CONDITIONS[key] = found
    return key


def rule(
    name: str, value: Any, *conditions: str, group: str | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "groupName": group,
        "passPercentage": 100,
        "conditions": list(conditions),
        "returnValue": value,
        "id": name,
        "salt": name,
        "idType": "userID",
    } | changes


def bucket(target: Any, operator: str, salt: str, unit: str = "userID") -> str:
    return condition("user_bucket", target, operator, additionalValues={"salt": salt}, idType=unit)


def groups(salt: str, unit: str = "userID", **limits: float) -> list[dict[str, Any]]:
    return [
        rule(f"id-{name}", {"model": name}, bucket(limit, "lt", salt, unit), group=name)
        | {"isExperimentGroup": True, "idType": unit}
        for name, limit in limits.items()
    ]


def allocation(target: Any, operator: str, salt: str, value: Any, **changes: Any) -> dict[str, Any]:
    return rule("layerAssignment", value, bucket(target, operator, salt), salt="") | changes


def by_id(group: str, *units: str, kind: str = "user_field") -> dict[str, Any]:
    field = {"field": "userID"} if kind == "user_field" else {}
    listed = condition(kind, list(units), "any", **field)
    return rule(f"{group}:userID:id_override", {"model": group}, listed, group=group, salt="")


def experiment(salt: str, *rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "type": "dynamic_config",
        "salt": salt,
        "enabled": True,
        "defaultValue": {},
        "rules": list(rules),
        "idType": "userID",
        "entity": "experiment",
        "version": 1,
        "isActive": True,
        "hasSharedParams": False,
    } | changes


def gate(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    shape = {"type": "feature_gate", "defaultValue": False, "entity": "feature_gate"}
    return experiment("gate-salt", *rules) | shape | changes


def slots(*numbers: int) -> dict[str, bool]:
    return {str(number): True for number in numbers}


PUBLIC = condition("public")
NOBODY = slots(-1)
THIRD = slots(*range(0, 1000, 3))
OTHER = slots(*range(1, 1000, 3))
CONFIGS = {
    "halves": experiment("s1", *groups("s1", Control=500, Test=1000)),
    "allocated": experiment(
        "s2", allocation(NOBODY, "any", "l0", {}), *groups("s2", Control=334, One=667, Two=1000)
    ),
    "uneven": experiment("s3", *groups("s3", a=70, b=71, c=1000)),
    "fractions": experiment("s4", *groups("s4", a=333.3, b=1000)),
    "a third": experiment(
        "s5", allocation(THIRD, "none", "layer-salt", {}), *groups("s5", Control=500, Test=1000)
    ),
    "another third": experiment(
        "s6", allocation(OTHER, "none", "layer-salt", {}), *groups("s6", a=500, b=1000)
    ),
    "without a third": experiment(
        "s7", allocation(THIRD, "any", "l3", {"model": "b"}), *groups("s7", a=250, b=1000)
    ),
    "a listed third": experiment(
        "s12", allocation([*map(int, OTHER)], "none", "l6", {}), *groups("s12", a=500, b=1000)
    ),
    "with gaps": experiment("s8", *groups("s8", Control=150, Test=300)),
    "tested": experiment(
        "s9",
        by_id("Test", "tester", "vip"),
        by_id("Control", "vip", "user-0", kind="unit_id"),
        allocation(THIRD, "none", "l4", {}),
        *groups("s9", Control=500, Test=1000),
    ),
    "by default": experiment(
        "s10",
        allocation(THIRD, "none", "l5", 7, passPercentage=0),
        *groups("s10", Control=500, Test=1000),
        defaultValue={"model": "Test"},
    ),
    "companies": experiment(
        "s11", *groups("s11", "companyID", Control=500, Test=1000), idType="companyID"
    ),
}
GATES = {
    "open": gate(rule("r1", True, PUBLIC)),
    "shut": gate(rule("r2", True, PUBLIC, passPercentage=0)),
    "some": gate(rule("r3", True, PUBLIC, passPercentage=33.33)),
    "rule id": gate(rule("r4", True, PUBLIC, passPercentage=7.07, salt=None)),
    "no salt": gate(rule("r5", True, PUBLIC, passPercentage=50, salt="")),
    "listed": gate(
        by_id("pass", "tester") | {"returnValue": True},
        by_id("fail", "user-0", "vip") | {"returnValue": False},
        rule("r6", True, PUBLIC, passPercentage=60.5),
    ),
}
DOCUMENT = {
    "dynamic_configs": CONFIGS,
    "feature_gates": GATES,
    "layer_configs": {},
    "experiment_to_layer": {"a third": "a layer", "another third": "a layer"},
    "condition_map": CONDITIONS,
    "has_updates": True,
    "time": 1_763_058_994_592,
    "company_id": "a company",
    "response_format": "dcs-v2",
}
# The parameters of units outside, where there are any, and abkit's control for those without.
OUTSIDE = {"without a third": {"model": "b"}, "by default": {"model": "Test"}}
NOTHING = {"another third": "off", "a listed third": "off"}


def asked(document: dict[str, Any], units: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", ORACLE],
        input=json.dumps({"document": document, "units": units}),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["sockets"] == 0
    answers: dict[str, Any] = found["answers"]
    return answers


def test_every_unit_keeps_its_group_and_gate(
    units: list[str], serving: Callable[[Imported], abkit.Client]
) -> None:
    everybody = [*units, *EXTRA]
    answers = asked(DOCUMENT, everybody)
    found = load("statsig", DOCUMENT)
    assert found.skipped == ()
    assert len(found.experiments) == len(CONFIGS) + len(GATES)
    ours = serving(found)
    for name in CONFIGS:
        key = found.renamed.get(name, name)
        kinds = set()
        for unit, (group, value) in zip(everybody, answers[name], strict=True):
            if (name, unit) == ("tested", "VIP"):
                continue  # the core takes it for "vip": see the importer's docstring
            assignment = ours.assign(key, unit)
            inside = assignment.in_experiment or assignment.reason == "override"
            assert inside == (group is not None), (name, unit)
            if group is not None:
                assert (assignment.variant, value) == (group, {"model": group}), (name, unit)
            else:
                default = OUTSIDE.get(name, {})
                assert value == default
                assert assignment.variant == default.get("model", NOTHING.get(name, "Control"))
            kinds.add(group)
        assert len(kinds) > 1
    for name in GATES:
        key = found.renamed.get(name, name)
        for unit, passes in zip(everybody, answers[name], strict=True):
            if (name, unit) == ("listed", "VIP"):
                continue
            assert ours.variant(key, unit) == ("on" if passes else "off"), (name, unit)


def test_experiments_of_one_layer_exclude_each_other(units: list[str]) -> None:
    found = load("statsig", DOCUMENT)
    layer = next(layer for layer in found.layers if layer.key == found.renamed["a layer"])
    assert list(layer.shares) == [found.renamed[name] for name in ("a third", "another third")]
    assert layer.hash == "statsig"
    answers = asked(DOCUMENT, units[:500])
    both = zip(answers["a third"], answers["another third"], strict=True)
    assert all(one[0] is None or other[0] is None for one, other in both)


HALVES = groups("s", Control=500, Test=1000)
STRANGE = condition("pass_gate", "a_holdout", "any", additionalValues=None)
EMAILS = condition("user_field", ["@example.com"], "str_contains_any", field="email")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (experiment("s", *HALVES, isActive=False), "not active"),
        (experiment("s", *HALVES, enabled=False), "not enabled"),
        (experiment("s", rule("holdout", {}, STRANGE), *HALVES), "asks for pass_gate"),
        (experiment("s", rule("targeting", {}, EMAILS), *HALVES), "asks for user_field"),
        (experiment("s", rule("prestart", {}, PUBLIC)), "asks for public"),
        (experiment("s", *HALVES, rule("r", {}, EMAILS, PUBLIC)), "not one condition but 2"),
        (experiment("s", rule("r", {}, "unknown"), *HALVES), "not one condition"),
        (experiment("s", *HALVES, idType="stableID"), "another kind of unit"),
        (experiment("s"), "has no groups"),
        (experiment("s", *HALVES, *groups("t", Third=1000)), "differ in salt"),
        (experiment("s", *HALVES, *groups("s", Control=1000)), "the same name"),
        (experiment("s", HALVES[0] | {"passPercentage": 50}, HALVES[1]), "passes only 50 %"),
        (experiment("s", *HALVES, by_id("Test", "me")), "before the other rules"),
        (experiment("s", by_id("Third", "me"), *HALVES), "serves what no group does"),
        (
            experiment("s", allocation(THIRD, "none", "l", {"model": "another"}), *HALVES),
            "default parameters that no group has",
        ),
        (
            experiment("s", allocation(THIRD, "none", "l", {}), *groups("s", Control=500))
            | {"defaultValue": {"model": "Control"}},
            "two different defaults",
        ),
        (experiment("s", allocation(NOBODY, "none", "l", {}), *HALVES), "0 %"),
        (experiment("s", *HALVES, entity="autotune"), "it is a 'autotune'"),
        (experiment("s", rule("r", {}, PUBLIC, configDelegate="x"), *HALVES), "delegates"),
    ],
)
def test_what_cannot_be_carried_over_is_skipped_with_a_reason(
    spec: dict[str, Any], reason: str
) -> None:
    document = DOCUMENT | {"dynamic_configs": {"x": spec}, "feature_gates": {}}
    found = load("statsig", document)
    assert found.experiments == ()
    assert found.layers == ()
    assert [skipped.key for skipped in found.skipped] == ["x"]
    assert reason in found.skipped[0].reason


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (gate(), "passes nobody"),
        (gate(rule("r", True, PUBLIC), defaultValue=True), "everybody by default"),
        (gate(rule("r", True, EMAILS)), "targeting"),
        (gate(rule("r", False, PUBLIC)), "targeting"),
        (gate(rule("r", True, PUBLIC), entity="holdout"), "holdout"),
        (gate(rule("r", True, PUBLIC), enabled=False), "not enabled"),
    ],
)
def test_gates_that_are_no_plain_rollout_are_skipped(spec: dict[str, Any], reason: str) -> None:
    found = load("statsig", DOCUMENT | {"dynamic_configs": {}, "feature_gates": {"g": spec}})
    assert found.experiments == ()
    assert reason in found.skipped[0].reason


def test_what_another_part_of_the_document_decides_is_skipped() -> None:
    found = load("statsig", DOCUMENT | {"overrides": {"halves": []}, "cmab_configs": {"open": {}}})
    assert {one.key: one.reason for one in found.skipped} == {
        "halves": "overrides decides for it",
        "open": "cmab_configs decides for it",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"has_updates": False}, "holds no specs"),
        ({"condition_map": None}, "statsig: condition_map must be a table"),
        ({"dynamic_configs": []}, "statsig: dynamic_configs must be a table, got list"),
        ({"dynamic_configs": {"x": experiment("s", {})}}, "'x': rule id must be a text"),
        (
            {"dynamic_configs": {"x": experiment("s", rule("r", {}, PUBLIC, passPercentage="9"))}},
            "passPercentage must be a number",
        ),
    ],
)
def test_a_malformed_document_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("statsig", DOCUMENT | changes)
