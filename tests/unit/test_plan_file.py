"""Plan files: each format says the same, strategies fill in, and what is wrong is named."""

from __future__ import annotations

import copy
import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from abkit.decision import Guardrail, Objective, Policy
from abkit.errors import ConfigError, MissingExtraError
from abkit.metrics import Metric
from abkit.plan_file import plan_of, read_plan
from abkit.plan_file import schema as made
from abkit.plan_file.build import record_keys
from abkit.plan_file.distill import Distill
from abkit.plan_file.strategies import STRATEGIES
from abkit.policy import Ramp
from abkit.rollout import Rollout, Stage

if TYPE_CHECKING:
    from pathlib import Path

FOUR = {"key": "r2", "experiment": "ranker", "control": "old", "treatment": "new", "salt": "s"}
LIMIT = {"metric": "failed", "test": "limit", "limit": 0.01}
WRONG = {"metric": "wrong", "test": "difference", "margin": 0.01}
WRONG_METRIC = {"key": "wrong", "kind": "proportion", "direction": "decrease", "missing": "exclude"}
JOINT = {"quality": "wrong", "margin": 0.01, "latency": "latency_ms"}
CLICKS = {
    "policy": {"objectives": [{"metric": "clicked"}]},
    "metrics": [{"key": "clicked", "kind": "proportion"}],
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "canary": {},
    "blue_green": {"policy": {"guardrails": [LIMIT]}},
    "shadow": {"policy": {"guardrails": [WRONG]}, "metrics": [WRONG_METRIC]},
    "distill": {"distill": JOINT},
    "ab": CLICKS,
    "batch": {},
}


def plan(strategy: str, **more: Any) -> Rollout:
    return plan_of(FOUR | {"strategy": strategy} | EXAMPLES[strategy] | more, where="plan p.toml")


def refused(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_of(data, where="plan p.toml")
    return str(caught.value)


TOML = """
key = "ranker-v2"
experiment = "ranker"
control = "v1"
treatment = "v2"
salt = "fixed"

[[metrics]]
key = "clicks"
kind = "proportion"

[policy]
alpha = 0.02
guardrails = [{ metric = "error", margin = 0.5 }]
objectives = [{ metric = "clicks", rule = "non_inferior", margin = 0.01 }]

[[stages]]
name = "shadow"
mode = "shadow"

[[stages]]
name = "5 %"
share = 0.05
requires = ["clicks"]
"""


def test_a_plan_file_says_the_same_as_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(TOML, encoding="utf-8")
    assert read_plan(file) == Rollout.plan(
        "ranker-v2",
        experiment="ranker",
        control="v1",
        treatment="v2",
        salt="fixed",
        metrics=(Metric(key="clicks", kind="proportion"),),
        policy=Policy(
            alpha=0.02,
            guardrails=(Guardrail(metric="error", margin=0.5),),
            objectives=(Objective(metric="clicks", rule="non_inferior", margin=0.01),),
        ),
        stages=(
            Stage(name="shadow", mode="shadow"),
            Stage(name="5 %", share=0.05, requires=("clicks",)),
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('key = "ranker-v2"', "", ["plan.toml", "no 'key'"]),
        ('control = "v1"', "", ["plan.toml", "no 'control'"]),
        ('control = "v1"', 'control = "v2"', ["treatment and control are both 'v2'"]),
        ('control = "v1"', 'control = ["v1"]', ["control", "['v1']"]),
        ('treatment = "v2"', "treatment = 2", ["treatment", "2", "lawful name"]),
        ('key = "ranker-v2"', 'key = "../v2"', ["rollout key", "'../v2'"]),
        ('salt = "fixed"', 'seed = "x"', ["plan.toml", "unknown key 'seed'"]),
        ('salt = "fixed"', "salt = 5", ["salt", "5"]),
        ("alpha = 0.02", "alpha = 2", ["policy: alpha", "2"]),
        ("share = 0.05", "share = 5", ["stage '5 %'", "share 5", "above 0 to 1"]),
        ("share = 0.05", 'share = "5 %"', ["stage '5 %'", "share must be a number", "'5 %'"]),
        ("share = 0.05", "share = 0.0", ["stage '5 %'", "share 0.0", "'canary'"]),
        ('mode = "shadow"', "share = 0.5", ["must not fall", "[0.5, 0.05]"]),
        ('mode = "shadow"', 'mode = "dark"', ["mode", "shadow, canary, switch", "'dark'"]),
        ('requires = ["clicks"]', 'requires = ["views"]', ["'5 %'", "'views'", "clicks, error"]),
        ('requires = ["clicks"]', 'requires = "clicks"', ["requires", "list", "'clicks'"]),
        ('requires = ["clicks"]', "requires = 5", ["requires", "list", "5"]),
        ('requires = ["clicks"]', 'requires = [["clicks"]]', ["required metric", "['clicks']"]),
        ('requires = ["clicks"]', "min_units = -1", ["min_units", ">= 0", "-1"]),
        ('requires = ["clicks"]', "min_seconds = -1", ["min_seconds", ">= 0", "-1"]),
        ('requires = ["clicks"]', "min_units = 1.5", ["min_units", "whole", "1.5"]),
        ('requires = ["clicks"]', "wait = 1", ["stage", "'wait'", "known are"]),
        ('name = "5 %"', "", ["stage", "no 'name'"]),
        ('name = "5 %"', 'name = ""', ["name", "1 to 64", "''"]),
        ('kind = "proportion"', 'kind = "rate"', ["metric 'clicks'", "kind", "'rate'"]),
        ("[[metrics]]", "[metrics]", ["plan.toml", "metrics must be a list"]),
        ("[policy]", "[policy", ["cannot read the plan", "plan.toml"]),
    ],
)
def test_an_unlawful_plan_is_named_with_its_value(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in TOML
    file = tmp_path / "plan.toml"
    file.write_text(TOML.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_plan(file)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("stages", ["stages = 3", "stages = ['5 %']", "stages = []"])
def test_stages_that_are_no_list_of_tables_are_refused(tmp_path: Path, stages: str) -> None:
    file = tmp_path / "plan.toml"
    head = TOML[: TOML.index("[[metrics]]")]
    file.write_text(head + stages, encoding="utf-8")
    with pytest.raises(ConfigError, match="stage"):
        read_plan(file)


def test_a_plan_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the plan .*nowhere\.toml"):
        read_plan(tmp_path / "nowhere.toml")


# Formats

YAML = """
key: ranker-v2
experiment: ranker
control: v1
treatment: v2
salt: fixed
metrics:
  - {key: clicks, kind: proportion}
policy:
  alpha: 0.02
  guardrails:
    - {metric: error, margin: 0.5}
  objectives:
    - {metric: clicks, rule: non_inferior, margin: 1e-2}
stages:
  - name: shadow
    mode: shadow
  - name: 5 %
    share: 0.05
    requires: [clicks]
"""


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML"])
def test_yaml_says_the_same(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("yaml")
    toml, yaml = tmp_path / "plan.toml", tmp_path / f"plan{suffix}"
    toml.write_text(TOML, encoding="utf-8")
    yaml.write_text(YAML, encoding="utf-8")
    assert read_plan(yaml) == read_plan(toml)


def test_json_says_the_same(tmp_path: Path) -> None:
    toml, other = tmp_path / "plan.toml", tmp_path / "plan.json"
    toml.write_text(TOML, encoding="utf-8")
    other.write_text(json.dumps({"$schema": "x"} | tomllib.loads(TOML)), encoding="utf-8")
    assert read_plan(other) == read_plan(toml)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("key: ranker-v2", "key: &k ranker-v2", ["anchors and aliases", "line 2"]),
        ("key: ranker-v2", "key: *k", ["anchors and aliases", "line 2"]),
        ("salt: fixed", "salt: !!python/object:os.system x", ["tag", "os.system", "line 6"]),
        ("salt: fixed", "salt: !secret x", ["tag '!secret'", "line 6"]),
        ("salt: fixed", "key: again", ["key 'key' stands there twice", "line 6"]),
        ("salt: fixed", "<<: {salt: x}", ["unknown key '<<'"]),
        ("salt: fixed", "1: x", ["key 1 is no text", "line 6"]),
        ("salt: fixed", "salt: [x", ["line 7"]),
        ("salt: fixed", "salt: " + "[" * 40 + "]" * 40, ["nested more than 32 deep", "line 6"]),
        ("salt: fixed", "salt: fixed\n---\nkey: two", ["single document"]),
        ("salt: fixed", "salt: \x07", ["cannot read", "special characters"]),
        ("salt: fixed", "salt: x\nbake_seconds: 010x", ["bake_seconds", "'010x'"]),
        ("control: v1", "control: no\nshare: 1", ["unknown key 'share'"]),
    ],
)
def test_what_yaml_may_not_do_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "plan.yaml"
    file.write_text(YAML.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_plan(file)
    assert [word for word in (*words, "plan.yaml") if word not in str(caught.value)] == []


def test_yaml_reads_words_and_numbers_as_they_look(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "plan.yaml"
    file.write_text(YAML.replace("control: v1", "control: no").replace("v2", "on", 1))
    assert read_plan(file).control == "no"
    assert read_plan(file).policy.objectives[0].margin == 0.01


def test_yaml_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    file = tmp_path / "plan.yaml"
    file.write_text(YAML)
    with pytest.raises(MissingExtraError, match=r"abkit-rollouts\[yaml\]"):
        read_plan(file)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("plan.toml", "key = 1\nkey = 2", ["line 2"]),
        ("plan.toml", "a = " + "[" * 60_000, ["nested"]),
        ("plan.toml", "# " + "x" * 65_536, ["larger than 65,536 bytes"]),
        ("plan.json", '{"key": 1,\n "key": 2}', ["key 'key' stands there twice"]),
        ("plan.json", '{"key": 1,\n', ["line 2"]),
        ("plan.json", '{"key": NaN}', ["NaN is no number"]),
        ("plan.json", "[" * 60_000, ["nested"]),
        ("plan.json", "[]", ["a plan is a table of keys, got []"]),
        ("plan.txt", "", ["'.txt' names no format", ".toml, .yaml, .yml or .json"]),
        ("plan", "", ["'' names no format"]),
    ],
)
def test_a_text_that_is_no_plan_is_refused(
    tmp_path: Path, name: str, text: str, words: list[str]
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_plan(file)
    assert [word for word in (*words, str(file)) if word not in str(caught.value)] == []


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"plan\.toml: 'utf-8'"):
        read_plan(file)


# Messages


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"polcy": {}}, ["unknown key 'polcy'", "did you mean 'policy'"]),
        ({"policy": {"alhpa": 1}}, ["policy: unknown key 'alhpa'", "did you mean 'alpha'"]),
        (
            {"policy": {"guardrails": [{"metric": "a"}, {"metric": "b", "marign": 1}]}},
            ["policy.guardrails[1] ('b')", "'marign'", "did you mean 'margin'"],
        ),
        ({"stages": [{"name": "x", "shar": 1}]}, ["stages[0] ('x')", "did you mean 'share'"]),
        ({"metrics": [{"key": "x", "knd": 1}]}, ["metrics[0] ('x')", "did you mean 'kind'"]),
        ({"ramp": {"bugdet": 1}}, ["ramp: unknown key 'bugdet'", "did you mean 'budget'"]),
        ({"policy": {"guardrails": [{}]}}, ["policy.guardrails[0]: no 'metric'"]),
        ({"policy": {"guardrails": []}}, ["no guardrails"]),
        ({"policy": {"guardrails": {}}}, ["policy.guardrails must be a list of tables", "{}"]),
        ({"holdouts": "h"}, ["holdouts must be a list of names", "'h'"]),
        ({"strategy": "blue-green"}, ["'blue-green'", "did you mean 'blue_green'"]),
        ({"strategy": ["canary"]}, ["strategy must be one of", "['canary']"]),
        ({"strategy": "blue_green"}, ["guardrail with test = 'limit'", "limit = 0.01"]),
        ({"strategy": "blue_green", "ramp": {}, **EXAMPLES["blue_green"]}, ["leave the ramp out"]),
        ({"strategy": "shadow"}, ["test = 'difference'", "there is none"]),
        (
            {"strategy": "shadow", "policy": {"guardrails": [WRONG, {"metric": "error"}]}},
            ["that of 'error' is not"],
        ),
        (
            {"strategy": "shadow", "approval": "auto", **EXAMPLES["shadow"]},
            ["until a person promotes", "approval = 'auto'"],
        ),
        (
            {
                "strategy": "shadow",
                "stages": [{"name": "5 %", "share": 0.05}],
                **EXAMPLES["shadow"],
            },
            ["'5 %' is 'canary'"],
        ),
        ({"strategy": "distill"}, ["a table that names its metrics", "quality ="]),
        ({"distill": JOINT}, ["distill belongs to strategy 'distill'", "'canary'"]),
        (
            {"strategy": "distill", "distill": JOINT | {"errors": "wrong"}},
            ["distill", "are 'wrong'"],
        ),
        (
            {"strategy": "distill", "distill": JOINT | {"cost_margin": 1}},
            ["distill", "no cost is named"],
        ),
        ({"strategy": "distill", "distill": JOINT | {"margin": 0}}, ["margin", "above 0", "0"]),
        ({"strategy": "distill", "distill": {"quality": "q"}}, ["distill: no 'margin'"]),
        (
            {
                "strategy": "distill",
                "distill": JOINT,
                "metrics": [{"key": "latency_ms", "direction": "decrease"}],
            },
            ["no 'latency_margin'", "'latency_ms'", "log = true"],
        ),
        ({"strategy": "ab"}, ["picks a winner", "policy.objectives ="]),
        ({"strategy": "ab", "treatments": ["b", "c"]}, ["['b', 'c']", "leave out `treatment`"]),
        ({"rivals": ["b"]}, ["'rivals'", "treatments = [...]"]),
    ],
)
def test_a_message_names_file_place_value_and_way_out(
    more: dict[str, Any], words: list[str]
) -> None:
    message = refused(FOUR | more)
    assert message.startswith("plan p.toml: ")
    assert [word for word in words if word not in message] == [], message


ODD: list[Any] = [None, True, -1, 0, 1e400, 2**70, "", "\ud800", [], [None], [[1]], {}, {"a": 1}]


@pytest.mark.parametrize("name", EXAMPLES)
def test_odd_values_anywhere_are_refused_or_lawful_and_never_break(name: str) -> None:
    data = FOUR | {"strategy": name} | EXAMPLES[name]
    data = json.loads(json.dumps(data | {"targeting": {"all": []}, "layer": "l", "mode": "notify"}))
    for path in _places(data, ()):
        for odd in ODD:
            changed = copy.deepcopy(data)
            place: Any = changed
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = odd
            try:
                assert isinstance(plan_of(changed), Rollout)
            except ConfigError as error:
                assert str(error).startswith("plan: "), (path, odd)  # noqa: PT017 - either may be


def _places(data: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += _places(value, (*path, key))
    return found


# Strategies


def test_every_strategy_has_an_example() -> None:
    assert set(EXAMPLES) == set(STRATEGIES)


def test_a_canary_is_what_a_plan_is_without_a_strategy() -> None:
    assert plan("canary") == plan_of(FOUR)
    assert plan("canary") == Rollout.plan(**FOUR)  # type: ignore[arg-type]


def test_part_of_a_policy_keeps_the_rest() -> None:
    found = plan("canary", policy={"alpha": 0.02})
    assert found.policy == Policy(guardrails=(Guardrail(metric="error"),), alpha=0.02)


def test_blue_green_previews_switches_and_bakes() -> None:
    rules = {"guardrails": [LIMIT, WRONG]}
    found = plan("blue_green", policy=rules, metrics=[WRONG_METRIC])
    assert [(item.mode, item.share) for item in found.stages] == [("shadow", 0), ("switch", 1)]
    assert found.stages[0].requires == ("wrong",)
    assert (found.bake_seconds, found.bake_share, found.approval) == (3600, 1, "auto")


def test_a_shadow_is_one_stage_that_waits_for_a_person() -> None:
    found = plan("shadow")
    assert [(item.mode, item.share, item.requires) for item in found.stages] == [
        ("shadow", 0, ("wrong",))
    ]
    assert found.approval == "manual"


def test_distill_is_the_joint_rule() -> None:
    found = plan("distill", distill=JOINT | {"cost": "cost_usd"})
    assert found.policy.guardrails == (
        Guardrail(metric="wrong", test="difference", margin=0.01),
        Guardrail(metric="latency_ms", test="difference", margin=0.1),
        Guardrail(metric="cost_usd", test="difference", margin=0.1),
        Guardrail(metric="error"),
    )
    assert found.policy.objectives == (
        Objective(metric="latency_ms"),
        Objective(metric="cost_usd"),
    )
    assert [item.mode for item in found.stages] == ["shadow", "canary", "canary"]
    assert found.stages[0].requires == ("wrong", "latency_ms", "cost_usd")
    assert found.policy.halt_threshold == 4 / 0.01
    assert found.policy.promote_threshold == 1 / 0.05


def test_what_the_plan_writes_takes_the_place_of_what_distill_makes() -> None:
    found = plan(
        "distill",
        distill=JOINT | {"errors": "failed", "errors_limit": 0.02, "latency_margin": 0.3},
        metrics=[{"key": "wrong", "direction": "increase"}, {"key": "tokens"}],
        policy={
            "planned_units": 500,
            "guardrails": [
                WRONG | {"margin": 0.5},
                {"metric": "tokens", "test": "difference", "margin": 9.0},
            ],
        },
    )
    assert found.policy.guardrails == (
        Guardrail(metric="latency_ms", test="difference", margin=0.3),
        Guardrail(metric="failed", test="limit", limit=0.02),
        Guardrail(metric="wrong", test="difference", margin=0.5),
        Guardrail(metric="tokens", test="difference", margin=9.0),
    )
    assert found.policy.planned_units == 500
    assert found.experiment.metric("wrong").direction == "increase"
    assert found.experiment.metric("latency_ms").log


def test_a_b_test_runs_a_day_at_least_and_two_weeks_at_most() -> None:
    found = plan("ab")
    assert [item.share for item in found.stages] == [0.05, 0.5]
    assert found.stages[-1].min_seconds == 86_400
    assert found.policy.max_seconds == 14 * 86_400
    assert [item.metric for item in found.policy.guardrails] == ["error"]


def test_batch_has_the_time_of_a_month() -> None:
    found = plan("batch")
    assert [item.share for item in found.stages] == [0.01, 0.1, 0.5]
    assert found.policy.max_seconds == 30 * 86_400


@pytest.mark.parametrize("name", ["canary", "ab", "batch"])
def test_a_ramp_takes_the_place_of_canary_stages(name: str) -> None:
    found = plan(name, ramp={"budget": 20})
    assert [item.name for item in found.stages] == ["ramp"]
    assert found.ramp == Ramp(budget=20)


def test_a_ramp_follows_the_shadow_of_a_distilled_model() -> None:
    found = plan("distill", ramp={})
    assert [item.name for item in found.stages] == ["shadow", "ramp"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_part_of_a_strategy_can_be_written(name: str) -> None:
    stage = {"name": "mine", "mode": "shadow", "min_units": 7}
    more: dict[str, Any] = {"stages": [stage], "bake_seconds": 60.0, "bake_share": 0.5}
    more["policy"] = EXAMPLES[name].get("policy", {}) | {"alpha": 0.03, "max_seconds": 9.0}
    if name != "shadow":
        more["approval"] = "manual"
    found = plan(name, **more)
    assert found.stages == (Stage(**stage),)
    assert (found.bake_seconds, found.bake_share, found.approval) == (60, 0.5, "manual")
    assert (found.policy.alpha, found.policy.max_seconds) == (0.03, 9)


# Schema


def test_the_published_schema_is_up_to_date() -> None:
    assert made.PUBLISHED.read_text(encoding="utf-8") == made.text(), (
        "run `python -m abkit.plan_file.schema`"
    )


SEVERAL = {key: value for key, value in FOUR.items() if key != "treatment"}


def test_several_treatments_are_one_rollout() -> None:
    found = plan_of(SEVERAL | {"strategy": "ab", "treatments": ["b", "c"], **CLICKS})
    assert (found.treatment, found.rivals) == ("b", ("c",))
    assert found.arm_policy.beta == pytest.approx(found.policy.beta / 2)
    one = plan_of(SEVERAL | {"strategy": "ab", "treatments": ["b"], **CLICKS})
    assert one == plan_of(FOUR | {"treatment": "b", "strategy": "ab", **CLICKS})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"treatments": ["b", "c"]}, ["strategy = 'ab'", "['b', 'c']"]),
        ({"strategy": "canary", "treatments": ["b", "c"]}, ["strategy = 'ab'"]),
        ({"strategy": "ab", "treatments": "b", **CLICKS}, ["list of variants", "'b'"]),
        ({"strategy": "ab", "treatments": [], **CLICKS}, ["list of variants", "[]"]),
        ({"strategy": "ab", "treatments": ["b", "b"], **CLICKS}, ["all differ"]),
        ({"strategy": "ab", "treatments": ["b", 3], **CLICKS}, ["treatments", "3"]),
        ({"strategy": "ab", **CLICKS}, ["no 'treatment'"]),
    ],
    ids=str,
)
def test_an_odd_list_of_treatments_is_refused(more: dict[str, Any], words: list[str]) -> None:
    message = refused(SEVERAL | more)
    assert [word for word in words if word not in message] == [], message
    assert not valid(SEVERAL | more)


def test_an_editor_takes_several_treatments() -> None:
    assert valid(SEVERAL | {"strategy": "ab", "treatments": ["b", "c"], **CLICKS})
    assert not valid(FOUR | {"strategy": "ab", "treatments": ["b", "c"], **CLICKS})
    assert not valid(FOUR | {"rivals": ["b"]})


def valid(data: dict[str, Any]) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    return bool(jsonschema.Draft202012Validator(made.schema()).is_valid(data))


def test_the_schema_is_one() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(made.schema())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_editor_takes_the_examples(name: str) -> None:
    assert valid(FOUR | {"strategy": name} | EXAMPLES[name])
    assert valid(tomllib.loads(TOML))


@pytest.mark.parametrize(
    "more",
    [
        {"polcy": {}},
        {"key": "../v2"},
        {"strategy": "blue-green"},
        {"strategy": "blue_green"},
        {"strategy": "shadow"},
        {"strategy": "shadow", "approval": "auto", **EXAMPLES["shadow"]},
        {"strategy": "distill"},
        {"strategy": "ab"},
        {"distill": JOINT},
        {"policy": {"alpha": 1}},
        {"policy": {"guardrails": []}},
        {"policy": {"guardrails": [{"metric": "e", "test": "difference"}]}},
        {"policy": {"guardrails": [{"metric": "e", "limit": 0.1}]}},
        {"policy": {"objectives": [{"metric": "e", "rule": "non_inferior"}]}},
        {"policy": {"objectives": [{"metric": "e", "margin": 0.1}]}},
        {"stages": []},
        {"stages": [{"name": "x"}]},
        {"stages": [{"name": "x", "share": 0.0}]},
        {"stages": [{"name": "x", "mode": "shadow", "share": 0.5}]},
        {"stages": [{"name": "x", "mode": "switch", "share": 0.5}]},
        {"metrics": [{"key": "x", "above": 3.0}]},
        {"metrics": [{"key": "x", "kind": "rate"}]},
        {"bake_seconds": -1},
        {"targeting": {"attribute": "country", "matches": ".*"}},
        {"targeting": {"all": [{"attribute": "country"}]}},
        {"ramp": {"max_share": 1.0}},
    ],
    ids=str,
)
def test_an_editor_and_the_reader_refuse_alike(more: dict[str, Any]) -> None:
    assert refused(FOUR | more)
    assert not valid(FOUR | more)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_read_an_editor_takes(name: str) -> None:
    data = json.loads(json.dumps(FOUR | {"strategy": name} | EXAMPLES[name]))
    for path in _places(data, ()):
        for odd in (x for x in ODD if x is not None):
            changed = copy.deepcopy(data)
            place: Any = changed
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = odd
            try:
                plan_of(changed)
            except ConfigError:
                continue
            assert valid(changed), (path, odd)


def test_an_editor_tells_every_key_what_it_is_for() -> None:
    found = made.schema()
    for where, table in [("plan", found), *found["$defs"].items()]:
        if where == "Condition":
            continue
        silent = [
            name
            for name, item in table["properties"].items()
            if not item.get("description") and "$ref" not in item
        ]
        assert silent == [], where


@pytest.mark.parametrize("cls", [Policy, Guardrail, Objective, Stage, Metric, Ramp, Distill])
def test_the_limits_are_of_keys_that_exist(cls: type) -> None:
    assert set(made.LIMITS.get(cls.__name__, {})) <= set(record_keys(cls))
    assert set(made.schema()["$defs"]) == {
        *("Policy", "Guardrail", "Objective", "Stage", "Metric", "Ramp", "Distill", "Condition")
    }
