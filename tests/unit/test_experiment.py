"""Experiments: what is unlawful is named with its value and the way out; the rest round-trips."""

from __future__ import annotations

import itertools
import json
from dataclasses import FrozenInstanceError, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.bucketing import SPACE
from abkit.errors import AbkitError, ConfigError
from abkit.experiment import Experiment, Range, new_salt, ranges_of
from abkit.metrics import Metric

if TYPE_CHECKING:
    from pathlib import Path

HALF = SPACE // 2
ENOUGH: dict[str, Any] = {
    "key": "ranker",
    "salt": "s1",
    "control": "a",
    "variants": {"a": 0.25, "b": 0.75},
}
FULL: dict[str, Any] = ENOUGH | {
    "state": "draft",
    "rollout": 0.1,
    "overrides": {"qa-1": "b", "東京": "a"},
    "epoch": 4,
    "hash": "abkit-v1",
    "metrics": [{"key": "clicks"}, {"key": "error", "kind": "proportion"}],
}


def changed(**values: Any) -> dict[str, Any]:
    return ENOUGH | values


def without(name: str, *, data: dict[str, Any] = ENOUGH) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def with_ranges(*ranges: list[Any]) -> dict[str, Any]:
    return without("variants") | {"ranges": list(ranges)}


# What is handed in, and the words that a person needs: what, which value, what to do.
UNLAWFUL: dict[str, tuple[Any, list[str]]] = {
    "no table": ([1], ["table of keys", "list"]),
    "nothing": (None, ["table of keys", "NoneType"]),
    "unknown key": (changed(weights={}), ["'ranker'", "'weights'", "known are", "variants"]),
    "no key": (without("key"), ["no 'key'"]),
    "no control": (without("control"), ["'ranker'", "no 'control'"]),
    "no variants": (without("variants"), ["'ranker'", "no 'variants'", "name = share"]),
    "key with a blank": (changed(key="the ranker"), ["experiment key", "'the ranker'", "a-z 0-9"]),
    "key with a path": (changed(key="../x"), ["experiment key", "'../x'", "a-z 0-9"]),
    "key with a newline": (changed(key="ranker\n"), [r"'ranker\n'", "a-z 0-9"]),
    "empty key": (changed(key=""), ["experiment key", "''", "1 to 64"]),
    "key too long": (changed(key="k" * 65), ["experiment key", "1 to 64"]),
    "key that is no text": (changed(key=7), ["experiment key", "7"]),
    "salt with a colon": (changed(salt="a:b"), ["'ranker'", "salt", "'a:b'", "A-Z a-z 0-9"]),
    "salt with a newline": (changed(salt="a\n"), ["salt", r"'a\n'"]),
    "empty salt": (changed(salt=""), ["salt", "''", "1 to 128"]),
    "salt too long": (changed(salt="s" * 129), ["salt", "1 to 128"]),
    "salt that is no text": (changed(salt=5), ["salt", "5"]),
    "control elsewhere": (changed(control="c"), ["control", "'c'", "not among", "'a', 'b'"]),
    "control that is no text": (changed(control=["a"]), ["control", "['a']"]),
    "control is a number": (with_ranges([0, SPACE, "a"]) | {"control": 7}, ["7", "a-z 0-9"]),
    "unknown state": (changed(state="paused"), ["state", "'paused'", "draft", "running", "killed"]),
    "unknown hash": (changed(hash="crc32"), ["hash", "'crc32'", "abkit-v1"]),
    "rollout above 1": (changed(rollout=50), ["rollout", "[0, 1]", "50"]),
    "rollout below 0": (changed(rollout=-0.1), ["rollout", "[0, 1]", "-0.1"]),
    "rollout in words": (changed(rollout="10 %"), ["rollout", "[0, 1]", "'10 %'"]),
    "rollout true": (changed(rollout=True), ["rollout", "[0, 1]", "True"]),
    "rollout not a number": (changed(rollout=float("nan")), ["rollout", "[0, 1]", "nan"]),
    "rollout too large a number": (changed(rollout=10**400), ["rollout", "[0, 1]"]),
    "epoch 0": (changed(epoch=0), ["epoch", ">= 1", "0"]),
    "epoch half": (changed(epoch=1.5), ["epoch", "whole", "1.5"]),
    "epoch true": (changed(epoch=True), ["epoch", "whole", "True"]),
    "variants as a list": (
        changed(variants=["a", "b"]),
        ["variants", "name = share", "['a', 'b']"],
    ),
    "no variant": (changed(variants={}), ["variants", "name = share", "{}"]),
    "bad variant name": (changed(variants={"A b": 1.0}), ["variant", "'A b'", "a-z 0-9"]),
    "share in percent": (changed(variants={"a": 50, "b": 50}), ["share of 'a'", "[0, 1]", "50"]),
    "share below 0": (changed(variants={"a": -0.5, "b": 1.5}), ["share of 'a'", "-0.5"]),
    "share in words": (changed(variants={"a": "half", "b": 0.5}), ["share of 'a'", "'half'"]),
    "share too large": (changed(variants={"a": 10**400}), ["share of 'a'", "[0, 1]"]),
    "shares that miss 1": (
        changed(variants={"a": 0.5, "b": 0.4}),
        ["'ranker'", "sum to 1", "a=0.5, b=0.4", "0.9"],
    ),
    "shares beyond 1": (changed(variants={"a": 0.5, "b": 0.6}), ["sum to 1", "1.1"]),
    "ranges in words": (without("variants") | {"ranges": "all"}, ["ranges", "[lower, upper"]),
    "ranges as a number": (without("variants") | {"ranges": 3}, ["ranges", "[lower, upper", "3"]),
    "range too short": (with_ranges([0, SPACE]), ["ranges", "[lower, upper, variant]"]),
    "range ends are no ints": (with_ranges([0, float(SPACE), "a"]), ["whole numbers"]),
    "range variant is no text": (with_ranges([0, HALF, "a"], [HALF, SPACE, 3]), ["variant", "3"]),
    "range variant is a list": (with_ranges([0, SPACE, ["a"]]), ["variant", "['a']"]),
    "no ranges": (with_ranges(), ["no ranges", "nobody"]),
    "ranges that overlap": (with_ranges([0, 7, "a"], [6, SPACE, "b"]), ["disjoint", "[6, "]),
    "ranges upside down": (with_ranges([5, 0, "a"], [5, SPACE, "b"]), ["sorted", "[5, 0)"]),
    "an empty range": (with_ranges([0, 0, "a"], [0, SPACE, "b"]), ["[0, 0)"]),
    "ranges that end late": (with_ranges([0, SPACE + 1, "a"]), ["2**52", str(SPACE + 1)]),
    "a hash of nobody's": (changed(hash="md4"), ["hash", "'md4'", "abkit-v1", "growthbook-v2"]),
    "a vendor's salt that is too long": (
        changed(hash="unleash", salt="x" * 513),
        ["salt", "1 to 512"],
    ),
    "a layer that is no name": (changed(layer="a b"), ["layer", "'a b'"]),
    "a holdout that is no name": (changed(holdouts=["a/b"]), ["holdout", "'a/b'"]),
    "holdouts in words": (changed(holdouts="all"), ["holdouts", "list", "'all'"]),
    "sticky in words": (changed(sticky="yes"), ["sticky", "true or false", "'yes'"]),
    "a rollout salt with a colon": (changed(rollout_salt="a:b"), ["salt", "'a:b'"]),
    "targeting in words": (changed(targeting="all"), ["targeting", "table", "'all'"]),
    "a test of nothing": (
        changed(targeting={"any": [{"attribute": "country", "inn": ["DE"]}]}),
        ["targeting.any[0]", "'inn'", "did you mean 'in'"],
    ),
    "overrides as a list": (changed(overrides=["qa"]), ["overrides", "unit_id", "['qa']"]),
    "override of nobody": (changed(overrides={"": "a"}), ["override", "non-empty", "''"]),
    "override of a number": (changed(overrides={7: "a"}), ["override", "string", "7"]),
    "override to nowhere": (changed(overrides={"qa": "z"}), ["override", "'qa'", "'z'"]),
    "override to a list": (changed(overrides={"qa": ["a"]}), ["override", "'qa'", "['a']"]),
    "override that has no bytes": (changed(overrides={"\ud800": "a"}), ["override", r"\ud800"]),
    "metrics as a table": (changed(metrics={"key": "x"}), ["metrics", "list", "'x'"]),
    "a metric as a name": (changed(metrics=["clicks"]), ["metric", "'clicks'"]),
    "metric twice": (
        changed(metrics=[{"key": "x"}, {"key": "x", "kind": "proportion"}]),
        ["metric 'x'", "twice"],
    ),
    "metric with a typo": (
        changed(metrics=[{"key": "x", "knid": "mean"}]),
        ["metric 'x'", "'knid'", "did you mean 'kind'"],
    ),
}


@pytest.mark.parametrize("name", UNLAWFUL)
def test_what_is_unlawful_is_named_with_its_value(name: str) -> None:
    data, words = UNLAWFUL[name]
    with pytest.raises(ConfigError) as caught:
        Experiment.from_dict(data)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert isinstance(caught.value, (AbkitError, ValueError))
    assert len(message) < 600 + len(str(10**400)), "one line, not a dump"


def test_a_missing_salt_is_answered_with_one_to_use() -> None:
    messages = set()
    for _ in range(2):
        with pytest.raises(ConfigError, match="no salt") as caught:
            Experiment.from_dict(without("salt"))
        messages.add(str(caught.value))
    assert len(messages) == 2, "each suggestion is fresh"
    suggested = messages.pop().split('"')[1]
    assert Experiment.from_dict(changed(salt=suggested)).salt == suggested
    assert len(bytes.fromhex(suggested)) == 16, "128 bits"


def test_a_salt_is_random() -> None:
    assert len({new_salt() for _ in range(100)}) == 100


def test_five_keys_are_enough() -> None:
    experiment = Experiment.from_dict(ENOUGH)
    assert experiment.state == "running"
    assert experiment.rollout == 1.0
    assert experiment.epoch == 1
    assert experiment.weights == {"a": 0.25, "b": 0.75}
    assert experiment.ranges == (Range(0, SPACE // 4, "a"), Range(SPACE // 4, SPACE, "b"))


def test_what_goes_in_comes_out() -> None:
    experiment = Experiment.from_dict(FULL)
    again = Experiment.from_dict(experiment.to_dict())
    assert again == experiment
    assert again.to_dict() == experiment.to_dict()
    assert (again.state, again.rollout, again.epoch) == ("draft", 0.1, 4)
    assert again.overrides == FULL["overrides"]
    assert [metric.kind for metric in again.metrics] == ["mean", "proportion"]


def test_what_goes_through_json_comes_out() -> None:
    experiment = Experiment.from_dict(FULL)
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


TOML = """
key = "ranker"
salt = "s1"
control = "a"
state = "draft"
rollout = 0.1
epoch = 4
hash = "abkit-v1"

[variants]
a = 0.25
b = 0.75

[overrides]
qa-1 = "b"
"東京" = "a"

[[metrics]]
key = "clicks"

[[metrics]]
key = "error"
kind = "proportion"
"""


def test_toml_says_the_same_as_a_dict(tmp_path: Path) -> None:
    file = tmp_path / "ranker.toml"
    file.write_text(TOML, encoding="utf-8")
    assert Experiment.from_toml(TOML) == Experiment.from_dict(FULL)
    assert Experiment.from_toml(file) == Experiment.from_dict(FULL)


def test_text_that_is_no_toml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"not valid TOML: Invalid value"):
        Experiment.from_toml("key = ")


def test_a_toml_file_is_named_in_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(b"key = [")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        Experiment.from_toml(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read .*bad\.toml"):
        Experiment.from_toml(file)
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml"):
        Experiment.from_toml(tmp_path / "absent.toml")


def test_control_is_the_first_variant_unless_named() -> None:
    assert Experiment.create("x", {"b": 0.5, "a": 0.5}).control == "b"
    assert Experiment.create("x", {"b": 0.5, "a": 0.5}, control="a").control == "a"


def test_two_experiments_created_alike_have_different_salts() -> None:
    one, other = (Experiment.create("x", {"a": 1.0}) for _ in range(2))
    assert one.salt != other.salt


def test_an_experiment_is_frozen() -> None:
    experiment = Experiment.from_dict(ENOUGH)
    with pytest.raises(FrozenInstanceError):
        experiment.state = "killed"  # type: ignore[misc]


def test_changing_the_table_later_changes_no_experiment() -> None:
    data = json.loads(json.dumps(FULL))
    experiment = Experiment.from_dict(data)
    data["overrides"]["qa-1"] = "a"
    data["metrics"].clear()
    assert experiment == Experiment.from_dict(FULL)
    experiment.to_dict()["overrides"]["qa-1"] = "a"
    assert experiment == Experiment.from_dict(FULL)


def test_an_undeclared_metric_is_a_plain_mean() -> None:
    experiment = Experiment.from_dict(FULL)
    assert experiment.metric("error").kind == "proportion"
    assert experiment.metric("latency") == Metric(key="latency")


def test_killing_begins_an_epoch_and_keeps_the_rest() -> None:
    experiment = Experiment.from_dict(FULL)
    assert experiment.kill() == replace(experiment, state="killed", epoch=5)


share_lists = st.lists(st.integers(0, 1000), min_size=1, max_size=7).filter(any)


@given(parts=share_lists)
def test_ranges_have_the_width_of_their_shares(parts: list[int]) -> None:
    shares = {f"v{i}": part / sum(parts) for i, part in enumerate(parts)}
    ranges = ranges_of(shares)
    assert ranges[0].lower == 0
    assert ranges[-1].upper == SPACE
    assert all(a.upper == b.lower for a, b in itertools.pairwise(ranges))
    widths = {item.variant: item.width for item in ranges}
    for name, share in shares.items():
        # The ends are sums of up to seven doubles, each off by an ulp of 1, or one bucket.
        assert abs(widths.get(name, 0) - share * SPACE) <= 8


@pytest.mark.parametrize(
    "shares",
    [
        {"a": 1.0, "b": 0.0},
        {"a": 0.9999999995, "b": 0.0},
        {"a": 0.1, "b": 0.2, "c": 0.7, "d": 0.0, "e": 0},
        {"a": 0.0, "b": 1 - 1e-10},
        {"a": 1 / 3, "b": 1 / 3, "c": 0.333333333, "d": 0.0},
    ],
)
def test_a_share_of_zero_gets_nobody(shares: dict[str, float]) -> None:
    """Also where rounded shares add up to a little less than 1, as decimals do."""
    served = {item.variant for item in Experiment.create("x", shares).ranges}
    assert served == {name for name, share in shares.items() if share}


def test_weights_sum_a_variants_ranges() -> None:
    data = with_ranges([0, HALF, "a"], [HALF, HALF + 16, "b"], [HALF + 16, SPACE, "a"])
    assert Experiment.from_dict(data).weights == {"a": 1 - 2.0**-48, "b": 2.0**-48}


@pytest.mark.parametrize("shares", [{"a": 0.5}, {}, {"a": 2.0}, {"a/b": 1.0}])
def test_reweighting_to_unlawful_shares_is_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="experiment 'ranker'"):
        Experiment.from_dict(ENOUGH).reweight(shares)
