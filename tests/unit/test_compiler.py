"""The compiler: each step by itself, on every kind of hash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from abkit.bucketing import SPACE
from abkit.bucketing.scheme import HASHES, scheme
from abkit.client import MemorySticky
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range

UNITS = [f"user-{i}" for i in range(1_500)]
# A salt that every hash can use.
SALTS = {"split": "7", "planout": "exp.param % 3"}


def salt_of(name: str, salt: str = "s") -> str:
    return SALTS.get(name, salt)


def with_gaps(name: str) -> Experiment:
    ranges = (
        Range(SPACE // 8, SPACE // 4, "b"),
        Range(SPACE // 2, SPACE // 2 + SPACE // 8, "a"),
        Range(SPACE // 2 + SPACE // 8, SPACE - SPACE // 8, "c"),
    )
    return Experiment(key="x", salt=salt_of(name), control="a", ranges=ranges, hash=name)


@pytest.mark.parametrize("name", HASHES)
def test_a_bucket_in_a_gap_is_outside_and_any_other_in_its_range(name: str) -> None:
    experiment = with_gaps(name)
    assign, split = compile_experiment(experiment), scheme(name).split
    for unit in UNITS:
        bucket = split.bucket(experiment.salt, unit)
        owner = next((r.variant for r in experiment.ranges if r.lower <= bucket < r.upper), None)
        found = assign(unit)
        assert (found.variant, found.reason) == (owner or "a", "split" if owner else "rollout")
        assert found.bucket == bucket


@pytest.mark.parametrize("name", ["abkit-v1", "sha256", "growthbook-v2"])
def test_the_rollout_asks_its_own_salt(name: str) -> None:
    experiment = Experiment.from_dict(
        {"key": "x", "salt": "s", "control": "a", "variants": {"a": 0.5, "b": 0.5}, "hash": name}
        | {"rollout": 0.4, "rollout_salt": "another"}
    )
    assign, rollout = compile_experiment(experiment), scheme(name).rollout
    inside = {unit for unit in UNITS if rollout.bucket("another", unit) < round(0.4 * SPACE)}
    assert {unit for unit in UNITS if assign(unit).in_experiment} == inside
    assert 0.3 < len(inside) / len(UNITS) < 0.5


@pytest.mark.parametrize("name", ["abkit-v1", "growthbook-v2", "unleash"])
def test_an_override_comes_first_on_every_hash(name: str) -> None:
    experiment = replace(with_gaps(name), overrides={"user-3": "c"}, rollout=0.0)
    assign = compile_experiment(experiment)
    assert (assign("user-3").variant, assign("user-3").reason) == ("c", "override")
    assert assign("user-4").reason == "rollout"


@pytest.mark.parametrize("name", ["abkit-v1", "sha256", "optimizely"])
def test_a_layer_asks_its_own_hash_and_salt(name: str) -> None:
    layer = Layer(key="l", salt="layer", hash=name, ranges=(Range(SPACE // 4, SPACE // 2, "x"),))
    experiment = Experiment.create("x", {"a": 0.5, "b": 0.5}, salt="s", layer="l")
    assign, split = compile_experiment(experiment, layers={"l": layer}), scheme(name).split
    for unit in UNITS:
        inside = SPACE // 4 <= split.bucket("layer", unit) < SPACE // 2
        assert assign(unit).in_experiment == inside


def test_every_holdout_keeps_its_units_out() -> None:
    holdouts = {
        key: Holdout(key=key, salt=f"salt-{key}", share=0.2) for key in ("one", "two", "three")
    }
    experiment = Experiment.create("x", {"a": 1.0}, salt="s", holdouts=tuple(holdouts))
    assign = compile_experiment(experiment, holdouts=holdouts)
    edge = round(0.2 * SPACE)
    split = scheme("abkit-v1").split
    for unit in UNITS:
        held = any(split.bucket(item.salt, unit) < edge for item in holdouts.values())
        assert (assign(unit).reason == "holdout") == held


def sticky_with(unit: str, met: str) -> MemorySticky:
    sticky = MemorySticky()
    sticky.put("x:s", unit, met)
    return sticky


def sticky_experiment(**options: Any) -> Experiment:
    shares = {"a": 1.0, "b": 0.0}
    return Experiment.create("x", shares, salt="s", sticky=True, **options)


def test_a_holdout_and_a_layer_come_before_memory() -> None:
    everyone = {"h": Holdout(key="h", salt="h", share=1.0)}
    nobody = {"l": Layer(key="l", salt="l")}
    held = sticky_experiment(holdouts=("h",))
    assign = compile_experiment(held, holdouts=everyone, sticky=sticky_with("u", "1:a"))
    assert assign("u").reason == "holdout"
    layered = sticky_experiment(layer="l")
    assign = compile_experiment(layered, layers=nobody, sticky=sticky_with("u", "1:a"))
    assert assign("u").reason == "layer"


def test_memory_never_reaches_a_variant_without_buckets() -> None:
    assign = compile_experiment(sticky_experiment(), sticky=sticky_with("u", "1:b"))
    found = assign("u")
    assert (found.variant, found.reason) == ("a", "split")


def test_only_who_is_inside_is_remembered() -> None:
    sticky = MemorySticky()
    outside = sticky_experiment(rollout=0.0, overrides={"qa": "b"})
    assign = compile_experiment(outside, sticky=sticky)
    assert (assign("u").reason, assign("qa").reason) == ("rollout", "override")
    assert sticky.get("x:s", "u") is None
    assert sticky.get("x:s", "qa") is None


@pytest.mark.parametrize(
    "options",
    [{"holdouts": "quiet"}, {"targeting": "all"}, {"ranges": ((0, SPACE, "a"),)}],
)
def test_what_has_another_type_is_named(options: dict[str, Any]) -> None:
    from abkit.errors import ConfigError

    base = {"key": "x", "salt": "s", "control": "a", "ranges": (Range(0, SPACE, "a"),)}
    with pytest.raises(ConfigError, match="experiment 'x'"):
        Experiment(**(base | options))
