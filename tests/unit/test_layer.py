"""Layers exclude, holdouts keep out, and both fit into a snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from abkit.bucketing import SPACE
from abkit.client import Client
from abkit.compiler import compile_experiment
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range
from abkit.snapshot import Snapshot
from abkit.workspace import Workspace

UNITS = [f"user-{i}" for i in range(4_000)]


def experiment(key: str, **options: Any) -> Experiment:
    return Experiment.create(key, {"old": 0.5, "new": 0.5}, salt=f"salt-{key}", **options)


def layered() -> Layer:
    return Layer(key="search", salt="layer").resize("a", 0.3).resize("b", 0.5)


def test_no_unit_is_in_two_experiments_of_a_layer() -> None:
    layers = {"search": layered()}
    a = compile_experiment(experiment("a", layer="search"), layers=layers)
    b = compile_experiment(experiment("b", layer="search"), layers=layers)
    both = [(a(unit), b(unit)) for unit in UNITS]
    assert not any(x.in_experiment and y.in_experiment for x, y in both)
    share_a = sum(x.in_experiment for x, _ in both) / len(UNITS)
    share_b = sum(y.in_experiment for _, y in both) / len(UNITS)
    assert share_a == pytest.approx(0.3, abs=0.04)
    assert share_b == pytest.approx(0.5, abs=0.04)
    out = next(x for x, _ in both if not x.in_experiment)
    assert (out.variant, out.reason) == ("old", "layer")


def test_resizing_one_experiment_moves_no_unit_of_another() -> None:
    before, after = layered(), layered().resize("a", 0.1).resize("c", 0.4)
    own = [r for r in before.ranges if r.variant == "b"]
    assert [r for r in after.ranges if r.variant == "b"] == own
    kept = [r for r in after.ranges if r.variant == "a"]
    assert all(any(o.lower <= r.lower and r.upper <= o.upper for o in before.ranges) for r in kept)
    assert after.shares == pytest.approx({"a": 0.1, "b": 0.5, "c": 0.4})
    assert after.resize("c", 0).shares == pytest.approx({"a": 0.1, "b": 0.5})


def test_more_than_what_is_free_is_refused_with_what_is_free() -> None:
    with pytest.raises(ConfigError, match=r"'c' wants 0\.3 of all units, but only 0\.2 is free"):
        layered().resize("c", 0.3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"key": "a b", "salt": "s"}, "layer key 'a b'"),
        ({"key": "a", "salt": "s:"}, "salt 's:'"),
        ({"key": "a"}, "no 'salt'"),
        ({"key": "a", "salt": "s", "hash": "crc"}, "hash"),
        ({"key": "a", "salt": "s", "ranges": [[0, 1]]}, "ranges"),
        ({"key": "a", "salt": "s", "ranges": [[5, 3, "x"]]}, r"\[5, 3\)"),
        ({"key": "a", "salt": "s", "colour": 1}, "unknown key 'colour'"),
        ("search", "table of keys"),
    ],
)
def test_an_unlawful_layer_is_named_with_its_value(data: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Layer.from_dict(data)


@pytest.mark.parametrize("share", [-0.1, 1.1, "x", None, True])
def test_a_holdouts_share_is_a_share(share: Any) -> None:
    with pytest.raises(ConfigError, match="holdout 'h': share must lie in"):
        Holdout.from_dict({"key": "h", "salt": "s", "share": share})


def test_held_out_units_are_in_no_experiment_that_names_the_holdout() -> None:
    holdout = Holdout(key="h", salt="hs", share=0.2)
    held = {
        u
        for u in UNITS
        if Client.from_experiments([], holdouts=[holdout]).variant("h", u) == "held-out"
    }
    assert len(held) / len(UNITS) == pytest.approx(0.2, abs=0.03)
    for key in ("a", "b"):
        assign = compile_experiment(experiment(key, holdouts=("h",)), holdouts={"h": holdout})
        assert {u for u in UNITS if assign(u).reason == "holdout"} == held
        assert all(assign(u).variant == "old" and not assign(u).in_experiment for u in held)


def test_an_override_comes_before_a_holdout_and_a_holdout_before_a_layer() -> None:
    everyone = Holdout(key="h", salt="hs", share=1.0)
    layer = Layer(key="search", salt="l")
    one = experiment("a", layer="search", holdouts=("h",), overrides={"qa": "new"})
    assign = compile_experiment(one, layers={"search": layer}, holdouts={"h": everyone})
    assert (assign("qa").variant, assign("qa").reason) == ("new", "override")
    assert assign("u").reason == "holdout"
    nobody = Holdout(key="h", salt="hs", share=0.0)
    assert (
        compile_experiment(one, layers={"search": layer}, holdouts={"h": nobody})("u").reason
        == "layer"
    )


def test_a_layer_comes_before_targeting_and_targeting_before_the_rollout() -> None:
    targeting = {"attribute": "country", "is": "DE"}
    layer = Layer(key="l", salt="l", ranges=(Range(0, SPACE, "a"),))
    one = experiment("a", layer="l", targeting=targeting, rollout=0.0)
    assign = compile_experiment(one, layers={"l": layer})
    assert assign("u").reason == "targeting"
    assert assign("u", {"country": "DE"}).reason == "rollout"
    empty = Layer(key="l", salt="l")
    assert compile_experiment(one, layers={"l": empty})("u").reason == "layer"


def test_a_layer_may_use_a_vendors_hash() -> None:
    layer = Layer(
        key="l", salt="any text: at all", hash="optimizely", ranges=(Range(0, SPACE // 2, "a"),)
    )
    assign = compile_experiment(experiment("a", layer="l"), layers={"l": layer})
    assert sum(assign(u).in_experiment for u in UNITS) / len(UNITS) == pytest.approx(0.5, abs=0.04)


def test_a_snapshot_carries_layers_and_holdouts() -> None:
    snapshot = Snapshot.of(
        [experiment("a", layer="search", holdouts=("h",))],
        layers=[layered()],
        holdouts=[Holdout(key="h", salt="hs", share=0.1)],
        version=3,
        published=0.0,
    )
    assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot


@pytest.mark.parametrize(
    ("options", "words"),
    [({"layer": "x"}, "layer 'x', which is not there"), ({"holdouts": ("x",)}, "holdout 'x'")],
)
def test_a_reference_to_nothing_is_refused(
    options: dict[str, Any], words: str, tmp_path: Any
) -> None:
    with pytest.raises(ConfigError, match=words):
        Snapshot.of([experiment("a", **options)], version=1, published=0.0)
    workspace = Workspace(tmp_path)
    with pytest.raises(ConfigError, match=words):
        workspace.publish(experiment("a", **options))
    assert workspace.snapshot() is None


def test_a_key_means_one_thing() -> None:
    with pytest.raises(ConfigError, match="an experiment and a holdout have the key 'a'"):
        Snapshot.of(
            [experiment("a")],
            holdouts=[Holdout(key="a", salt="s", share=0.5)],
            version=1,
            published=0.0,
        )


def test_a_workspace_keeps_layers_and_holdouts_and_publishes_them(tmp_path: Any) -> None:
    workspace = Workspace(tmp_path)
    holdout = Holdout(key="h", salt="hs", share=0.1)
    workspace.publish(experiment("a", layer="search"), layers=[layered()], holdouts=[holdout])
    workspace.publish(experiment("b", holdouts=("h",)))
    snapshot = workspace.snapshot()
    assert snapshot is not None
    assert snapshot.layers == {"search": layered()}
    assert snapshot.holdouts == {"h": holdout}
    # A damaged file must not stop anything else: what it held stays.
    (tmp_path / "layers" / "search.json").write_text("{")
    workspace.publish(experiment("c"))
    again = workspace.snapshot()
    assert again is not None
    assert again.layers == snapshot.layers
    assert set(again.experiments) == {"a", "b", "c"}


def test_the_version_goes_on_where_the_snapshot_was_lost(tmp_path: Any) -> None:
    workspace = Workspace(tmp_path)
    workspace.publish(experiment("a"))
    assert workspace.publish(experiment("a")).version == 2
    workspace.snapshot_path.unlink()
    assert workspace.publish(experiment("a")).version == 3
