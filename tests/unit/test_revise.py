"""Publishing again moves nobody without need; a halt is published whatever state files are in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.errors import ConfigError, SchemaVersionError, StoreError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.rollout import Rollout, Stage
from abkit.snapshot import Snapshot, _checksum
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

UNITS = [f"user-{i}" for i in range(4_000)]


def experiment(key: str = "a", **options: Any) -> Experiment:
    shares = options.pop("shares", {"old": 0.5, "new": 0.5})
    return Experiment.create(key, shares, salt=options.pop("salt", f"salt-{key}"), **options)


def rollout(key: str, name: str) -> Rollout:
    return Rollout.plan(key, experiment=name, control="old", treatment="new")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def published(workspace: Workspace, key: str = "a") -> Experiment:
    snapshot = workspace.snapshot()
    assert snapshot is not None
    return snapshot.experiments[key]


def variants(workspace: Workspace, key: str = "a") -> list[str]:
    ab = Client(workspace.path)
    return [ab.variant(key, unit) for unit in UNITS]


def test_other_shares_move_the_fewest_units_and_begin_an_epoch(workspace: Workspace) -> None:
    workspace.publish(experiment(shares={"old": 0.5, "new": 0.1, "third": 0.4}))
    before = variants(workspace)
    workspace.publish(experiment(shares={"old": 0.1, "new": 0.5, "third": 0.4}))
    after = variants(workspace)
    changes = {(x, y) for x, y in zip(before, after, strict=True) if x != y}
    assert changes == {("old", "new")}
    assert published(workspace).epoch == 2


def test_the_same_again_begins_no_epoch(workspace: Workspace) -> None:
    workspace.publish(experiment())
    workspace.publish(experiment(overrides={"qa": "new"}))
    assert published(workspace).epoch == 1
    assert published(workspace).overrides == {"qa": "new"}


@pytest.mark.parametrize(
    "change", [{"rollout": 0.5}, {"targeting": {"attribute": "x", "is": 1}}, {"sticky": True}]
)
def test_whatever_decides_who_gets_what_begins_an_epoch(
    change: dict[str, Any], workspace: Workspace
) -> None:
    workspace.publish(experiment())
    workspace.publish(experiment(**change))
    assert published(workspace).epoch == 2


def test_a_reweight_is_taken_as_it_is(workspace: Workspace) -> None:
    workspace.publish(experiment())
    wider = experiment().reweight({"old": 0.2, "new": 0.8})
    workspace.publish(wider)
    assert published(workspace) == wider


def test_another_salt_or_hash_is_refused(workspace: Workspace) -> None:
    workspace.publish(experiment())
    with pytest.raises(ConfigError, match="salt would change from 'salt-a' to 'other', and with"):
        workspace.publish(experiment(salt="other"))
    with pytest.raises(ConfigError, match="hash would change"):
        workspace.publish(replace(experiment(), hash="sha256"))
    workspace.publish(layers=[Layer(key="l", salt="s")])
    with pytest.raises(ConfigError, match="layer 'l': salt would change from 's' to 't'"):
        workspace.publish(layers=[Layer(key="l", salt="t")])


def test_a_layer_or_holdout_that_changes_begins_an_epoch_of_those_it_concerns(
    workspace: Workspace,
) -> None:
    layer = Layer(key="l", salt="l").resize("a", 0.3).resize("b", 0.3)
    holdout = Holdout(key="h", salt="h", share=0.1)
    workspace.publish(
        experiment("a", layer="l"),
        experiment("b", layer="l"),
        experiment("c", holdouts=("h",)),
        layers=[layer],
        holdouts=[holdout],
    )
    workspace.publish(layers=[layer.resize("a", 0.5)])
    epochs = [published(workspace, key).epoch for key in "abc"]
    assert epochs == [2, 1, 1]
    workspace.publish(holdouts=[replace(holdout, share=0.2)])
    assert [published(workspace, key).epoch for key in "abc"] == [2, 1, 2]


@pytest.mark.parametrize(
    ("options", "name"),
    [({"layer": "l"}, "layer 'l'"), ({"holdouts": ("h",)}, "holdout 'h'")],
)
def test_two_steps_with_one_salt_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"the experiment and the {name} have the same salt"):
        Snapshot.of(
            [experiment(salt="same", **options)],
            layers=[Layer(key="l", salt="same")],
            holdouts=[Holdout(key="h", salt="same", share=0.5)],
            version=1,
            published=0.0,
        )


def test_a_rollout_takes_over_what_was_published(workspace: Workspace) -> None:
    layer = Layer(key="l", salt="l").resize("ranker", 0.5)
    holdout = Holdout(key="h", salt="h", share=0.1)
    targeting = {"attribute": "country", "is": "DE"}
    plain = experiment(
        "ranker", layer="l", holdouts=("h",), targeting=targeting, overrides={"qa": "old"}
    )
    workspace.publish(plain, layers=[layer], holdouts=[holdout])
    workspace.start(rollout("r", "ranker"))
    found = published(workspace, "ranker")
    assert (found.salt, found.layer, found.holdouts) == (plain.salt, "l", ("h",))
    assert found.targeting == plain.targeting
    assert found.overrides == {"qa": "old"}
    assert found.epoch == 2
    # The next one keeps apart and out the same units, under a salt of its own.
    workspace.halt("r", reason="x", actor="y")
    workspace.start(rollout("r2", "ranker"))
    after = published(workspace, "ranker")
    assert (after.layer, after.holdouts, after.targeting) == ("l", ("h",), plain.targeting)
    assert after.salt != plain.salt


def test_a_plan_that_says_so_takes_over_nothing(workspace: Workspace) -> None:
    workspace.publish(
        experiment("ranker", layer="l"), layers=[Layer(key="l", salt="l").resize("ranker", 1.0)]
    )
    own = Rollout.plan(
        "r", experiment="ranker", control="old", treatment="new", salt="own", targeting=None
    )
    workspace.start(own)
    assert (published(workspace, "ranker").salt, published(workspace, "ranker").layer) == (
        "own",
        "",
    )


@pytest.mark.parametrize("ending", ["halt", "promoted"])
def test_an_experiment_is_published_again_after_its_rollout(
    ending: str, workspace: Workspace
) -> None:
    stages = (Stage(name="all", mode="switch", share=1.0),)
    workspace.start(
        Rollout.plan("r", experiment="ranker", control="old", treatment="new", stages=stages)
    )
    with pytest.raises(ConfigError, match="rollout 'r' owns the experiment 'ranker' while it is"):
        workspace.publish(experiment("ranker"))
    if ending == "halt":
        workspace.halt("r", reason="x", actor="y")
    else:
        live = workspace.rollout("r")
        done = replace(live, state="promoted", version=live.version + 1)
        workspace.put(done, expected_version=live.version)
    workspace.publish(experiment("ranker"))
    found = published(workspace, "ranker")
    assert found.epoch > workspace.rollout("r").last_epoch
    assert found.weights == {"old": 0.5, "new": 0.5}
    workspace.publish(experiment("ranker", shares={"old": 0.2, "new": 0.8}))
    assert published(workspace, "ranker").epoch == found.epoch + 1
    if ending == "promoted":
        assert workspace.rollout("r").state == "superseded"


# A halt is published whatever state the other files are in


def test_what_does_not_fit_is_refused_before_it_is_written(workspace: Workspace) -> None:
    workspace.start(rollout("r", "ranker"))
    workspace.publish(experiment("a"))
    with pytest.raises(ConfigError, match="have the key 'a'"):
        workspace.publish(holdouts=[Holdout(key="a", salt="h", share=0.1)])
    with pytest.raises(ConfigError, match="have the key 'ranker'"):
        workspace.publish(holdouts=[Holdout(key="ranker", salt="h", share=0.1)])
    workspace.publish(holdouts=[Holdout(key="h", salt="h", share=0.1)])
    with pytest.raises(ConfigError, match="have the key 'h'"):
        workspace.start(rollout("r2", "h"))
    assert workspace.halt("r", reason="x", actor="y").state == "halted"


def harm_layer(folder: Path) -> None:
    (folder / "layers" / "l.json").unlink()
    (folder / "snapshot.json").unlink()


def harm_holdout(folder: Path) -> None:
    data = {"key": "ranker", "salt": "h", "share": 0.5}
    (folder / "holdouts" / "ranker.json").write_text(json.dumps(data))


def harm_rollout(folder: Path) -> None:
    (folder / "rollouts" / "other.json").write_text("{")


def harm_snapshot(folder: Path) -> None:
    (folder / "snapshot.json").unlink()
    (folder / "snapshot.json").symlink_to(folder / "snapshot.json")


@pytest.mark.parametrize("harm", [harm_layer, harm_holdout, harm_rollout, harm_snapshot])
def test_a_halt_is_published_all_the_same(harm: Any, workspace: Workspace) -> None:
    layer = Layer(key="l", salt="l").resize("a", 1.0)
    workspace.publish(experiment("a", layer="l"), layers=[layer])
    workspace.start(rollout("r", "ranker"))
    harm(workspace.path)
    workspace.halt("r", reason="x", actor="y")
    ab = Client(workspace.path)
    assert ab.assign("ranker", "u").reason == "killed"
    found = ab.assign("a", "u")
    assert found.variant in ("old", "new")
    # Without its layer, nobody can say who is in it: control for everyone.
    assert (found.reason == "killed") == (harm is harm_layer)


def test_an_experiment_is_killed_beside_a_damaged_rollout(workspace: Workspace) -> None:
    workspace.publish(experiment())
    (workspace.path / "rollouts" / "other.json").write_text("{")
    workspace.publish(experiment().kill())
    assert Client(workspace.path).assign("a", "u").reason == "killed"


def test_killing_keeps_overrides_of_the_shadow_lawful() -> None:
    shadowed = replace(experiment(), shadow="dark", overrides={"qa": "dark"})
    assert shadowed.kill().overrides == {"qa": "dark"}


def test_an_older_abkit_does_not_overwrite_a_newer_ones_snapshot(workspace: Workspace) -> None:
    workspace.publish(experiment())
    newer = json.loads(workspace.snapshot_path.read_text()) | {"schema": "abkit.snapshot/v9"}
    workspace.snapshot_path.write_text(json.dumps(newer))
    with pytest.raises(SchemaVersionError):
        workspace.publish(experiment("b"))
    assert json.loads(workspace.snapshot_path.read_text()) == newer


def test_a_snapshot_that_cannot_be_read_says_so(workspace: Workspace) -> None:
    workspace.publish(experiment())
    harm_snapshot(workspace.path)
    with pytest.raises(StoreError, match="cannot read"):
        workspace.snapshot()


def test_the_version_goes_on_from_whichever_is_newer(workspace: Workspace) -> None:
    workspace.publish(experiment())
    (workspace.path / "snapshot.version").write_text("0")
    assert workspace.publish(experiment()).version == 2
    (workspace.path / "snapshot.version").write_text("41")
    assert workspace.publish(experiment()).version == 42


def test_a_version_that_cannot_be_written_stops_no_halt(workspace: Workspace) -> None:
    workspace.start(rollout("r", "ranker"))
    (workspace.path / "snapshot.version").unlink()
    (workspace.path / "snapshot.version").mkdir()
    workspace.halt("r", reason="x", actor="y")
    assert Client(workspace.path).assign("ranker", "u").reason == "killed"


def test_a_file_with_a_reference_to_nothing_is_no_snapshot() -> None:
    lawful = Snapshot.of(
        [experiment("a", layer="l")], layers=[Layer(key="l", salt="l")], version=1, published=0.0
    )
    body = {**json.loads(lawful.to_bytes())["body"], "layers": []}
    document = {"schema": "abkit.snapshot/v1", "checksum": _checksum(body), "body": body}
    with pytest.raises(StoreError, match="layer 'l', which is not there"):
        Snapshot.from_bytes(json.dumps(document).encode())
