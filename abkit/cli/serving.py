"""The commands about who gets what: publish, assign, audit-sql, import."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abkit.bucketing import SPACE
from abkit.bucketing.scheme import scheme
from abkit.errors import ConfigError, StoreError, UnknownExperimentError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.workspace import Workspace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import TypeAlias

    from abkit.assignment import Assignment
    from abkit.snapshot import Snapshot

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

_PARTS = ("experiments", "layers", "holdouts")


def add_publish(commands: Commands) -> None:
    """`abkit publish`."""
    parser = commands.add_parser(
        "publish",
        help="publish experiments, layers and holdouts from TOML or JSON files",
        description="Store what the files describe in a workspace and publish its snapshot. A "
        "file holds one experiment, or lists named experiments, layers and holdouts.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--reason", default="published", help="for the audit trail")
    parser.add_argument("--actor", default=os.environ.get("USER") or "operator")
    parser.set_defaults(run=_publish)


def _publish(options: argparse.Namespace) -> int:
    found: dict[str, list[Any]] = {name: [] for name in _PARTS}
    for path in options.files:
        data = _read(path)
        for name in _PARTS:
            if isinstance(data.get(name.removesuffix("s")), (list, dict)):
                raise ConfigError(f"{path}: say [[{name}]], not [[{name.removesuffix('s')}]]")
        for name in _PARTS:
            items = data.get(name, [])
            if not isinstance(items, list):
                raise ConfigError(f"{path}: {name} must be a list of tables, got {items!r}")
            found[name] += items
        rest = {key: value for key, value in data.items() if key not in _PARTS}
        if rest:
            found["experiments"].append(rest)
    workspace = Workspace(options.workspace)
    before = workspace.snapshot() if options.workspace.is_dir() else None
    snapshot = workspace.publish(
        *(Experiment.from_dict(item) for item in found["experiments"]),
        layers=[Layer.from_dict(item) for item in found["layers"]],
        holdouts=[Holdout.from_dict(item) for item in found["holdouts"]],
        actor=options.actor,
        reason=options.reason,
    )
    print(f"snapshot {snapshot.version}")
    for name in _PARTS:
        old = {} if before is None else getattr(before, name)
        for key, item in getattr(snapshot, name).items():
            if item != old.get(key):
                print(f"{name.removesuffix('s')}\t{key}\t{_change(old.get(key), item)}")
    return 0


def _change(old: Any, new: Any) -> str:
    """What publishing made of an experiment, layer or holdout."""
    words = ["new" if old is None else "changed"]
    if isinstance(new, Experiment):
        shares = ", ".join(f"{name} {share:.4g}" for name, share in new.weights.items())
        epochs = f"{old.epoch} -> {new.epoch}" if old is not None else str(new.epoch)
        return f"{words[0]}\t{new.state}, epoch {epochs}, {shares}"
    if isinstance(new, Layer):
        words += [f"{name} {share:.4g}" for name, share in new.shares.items()]
    else:
        words.append(f"{new.share:.4g}")
    return f"{words[0]}\t{', '.join(words[1:]) or 'empty'}"


def add_halt(commands: Commands) -> None:
    """`abkit halt`."""
    parser = commands.add_parser(
        "halt",
        help="control for everyone in an experiment, at once",
        description="Serve control to everyone in an experiment: kills it, or halts the rollout "
        "that owns it. One write; needs no store and no controller.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("experiment")
    parser.add_argument("--reason", default="by hand", help="for the record of a rollout")
    parser.add_argument("--actor", default=os.environ.get("USER") or "operator")
    parser.set_defaults(run=_halt)


def _halt(options: argparse.Namespace) -> int:
    workspace = Workspace(options.workspace)
    readable = workspace.rollouts(on_damage=lambda _path, _error: None)
    owners = [item for item in readable if item.experiment.key == options.experiment]
    over = [item for item in owners if item.live or item.state == "promoted"]
    if over:
        moved = workspace.halt(over[0].key, reason=options.reason, actor=options.actor)
        print(f"rollout {moved.key}: {moved.state}")
        return 0
    found = _experiment(options.workspace, options.experiment)
    if found.state != "killed":
        workspace.publish(found.kill(), actor=options.actor, reason=options.reason)
    print(f"{found.key}: killed, control {found.control!r} for everyone")
    return 0


def _experiment(path: Path, key: str) -> Experiment:
    snapshot = _snapshot(path)
    found = snapshot.experiments.get(key)
    if found is None:
        raise UnknownExperimentError(
            f"no experiment {key!r} in {path}; "
            f"there is {', '.join(snapshot.experiments) or 'none yet'}"
        )
    return found


def _read(path: Path) -> Mapping[str, Any]:
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a table, got {type(data).__name__}")
    return data


def add_assign(commands: Commands) -> None:
    """`abkit assign`."""
    parser = commands.add_parser(
        "assign",
        help="say which variant a unit gets, and why",
        description="Assign a unit as serving code would, from the published snapshot.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("unit", metavar="UNIT")
    parser.add_argument("experiment", nargs="?", help="one experiment; all of them by default")
    parser.add_argument(
        "--attribute",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="for targeting; NAME:=JSON for a number, a truth value or a list; repeat for more",
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=_assign)


def _assign(options: argparse.Namespace) -> int:
    from abkit.client import Client

    snapshot = _snapshot(options.workspace)
    attributes = dict(_attribute(text) for text in options.attribute)
    keys = [*snapshot.experiments, *snapshot.holdouts]
    if options.experiment is not None:
        if options.experiment not in keys:
            raise UnknownExperimentError(
                f"no experiment {options.experiment!r} in {options.workspace}; "
                f"there is {', '.join(keys) or 'none yet'}"
            )
        keys = [options.experiment]
    client = Client.from_experiments(
        snapshot.experiments.values(),
        layers=snapshot.layers.values(),
        holdouts=snapshot.holdouts.values(),
    )
    found = [client.assign(key, options.unit, attributes) for key in keys]
    if options.json:
        names = ("experiment", "variant", "reason", "in_experiment", "epoch", "bucket", "shadow")
        print(json.dumps([{name: getattr(a, name) for name in names} for a in found], indent=1))
        return 0
    for item in found:
        print(f"{item.experiment}\t{item.variant}\t{item.reason}\t{_why(snapshot, item)}")
    return 0


def _why(snapshot: Snapshot, found: Assignment) -> str:
    """In words: where the unit lies, and what that means."""
    item = snapshot.experiments.get(found.experiment)
    where = "" if found.bucket is None else f"at {found.bucket / SPACE:.2%} of the buckets"
    if item is None:
        return where
    if found.reason == "holdout":
        held = [key for key in item.holdouts if _holds(snapshot.holdouts[key], found.unit_id)]
        return f"held out by {', '.join(held)}"
    if found.reason == "layer":
        layer = snapshot.layers[item.layer]
        bucket = scheme(layer.hash).split.bucket(layer.salt, found.unit_id)
        owner = [part.variant for part in layer.ranges if part.lower <= bucket < part.upper]
        who = f"which belongs to {owner[0]}" if owner else "which is free"
        return f"at {bucket / SPACE:.2%} of layer {layer.key}, {who}"
    if found.reason == "targeting" and item.targeting is not None:
        return f"needs {json.dumps(item.targeting.to_dict(), ensure_ascii=False)}"
    if found.reason == "rollout":
        return f"{where}, outside of the {item.rollout * item.coverage:.4g} of units that are in"
    return where


def _holds(holdout: Holdout, unit_id: str) -> bool:
    edge = holdout.ranges[0].upper if holdout.share else 0
    return scheme("abkit-v1").split.bucket(holdout.salt, unit_id) < edge


def _attribute(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name in ("", ":"):
        raise ConfigError(f"--attribute {text!r} is neither NAME=TEXT nor NAME:=JSON")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError:
        raise ConfigError(f"--attribute {text!r}: {value!r} is not JSON") from None


def add_audit_sql(commands: Commands) -> None:
    """`abkit audit-sql`."""
    parser = commands.add_parser(
        "audit-sql",
        help="print the query that re-derives every assignment in a warehouse",
        description="Print a query that computes variant, reason and bucket of every unit of a "
        "table, in SQL alone.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("experiment")
    parser.add_argument(
        "--dialect", default="duckdb", help="duckdb, postgres, clickhouse, spark, …"
    )
    parser.add_argument("--table", default="units", help="table with the units (units)")
    parser.add_argument("--unit", default="unit_id", metavar="COL", help="its column (unit_id)")
    parser.add_argument(
        "--targeting",
        choices=["sql", "ignore"],
        default="sql",
        help="judge it by columns of the table (default), or audit the hash alone",
    )
    parser.set_defaults(run=_audit_sql)


def _audit_sql(options: argparse.Namespace) -> int:
    from abkit.audit import audit_sql

    snapshot = _snapshot(options.workspace)
    experiment = _experiment(options.workspace, options.experiment)
    query = audit_sql(
        experiment,
        options.dialect,
        table=options.table,
        unit=options.unit,
        targeting=options.targeting,
        layers=snapshot.layers.values(),
        holdouts=snapshot.holdouts.values(),
    )
    print(query)
    return 0


def _snapshot(path: Path) -> Snapshot:
    snapshot = Workspace(path).snapshot() if path.is_dir() else None
    if snapshot is None:
        what = "has no snapshot yet" if path.is_dir() else "is no workspace"
        raise StoreError(f"{path} {what}; `abkit publish` makes a workspace with one")
    return snapshot


def add_import(commands: Commands) -> None:
    """`abkit import`."""
    parser = commands.add_parser(
        "import",
        help="take experiments over from another vendor, moving nobody",
        description="Read a vendor's own configuration document. Every unit keeps the variant "
        "that the vendor's SDK serves it; what cannot be carried over is listed with the reason.",
    )
    parser.add_argument("vendor", help="growthbook, eppo, unleash, launchdarkly, …")
    parser.add_argument("file", type=Path, help="the vendor's document, as JSON")
    parser.add_argument("--workspace", type=Path, help="publish what was carried over here")
    parser.add_argument("--unit", metavar="NAME", help="the vendor's name of the unit, if several")
    parser.add_argument("--json", action="store_true", help="print it as `abkit publish` reads it")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from abkit.compat import load

    choices = {} if options.unit is None else {"unit": options.unit}
    found = load(options.vendor, _read(options.file), **choices)
    published = None
    if options.workspace is not None and (found.experiments or found.layers):
        published = Workspace(options.workspace).publish(*found.experiments, layers=found.layers)
    if options.json:
        data = {
            "experiments": [item.to_dict() for item in found.experiments],
            "layers": [item.to_dict() for item in found.layers],
        }
        print(json.dumps(data, ensure_ascii=False, indent=1))
        return 0
    for item in found.experiments:
        shares = ", ".join(f"{name} {share:.4g}" for name, share in item.weights.items())
        traffic = item.coverage * item.rollout
        print(f"carried over\t{item.key}\t{shares}, of {traffic:.4g} of the traffic")
    for layer in found.layers:
        print(f"layer\t{layer.key}\t{', '.join(layer.shares)}")
    for old, new in found.renamed.items():
        print(f"renamed\t{old}\tto {new}")
    for skipped in found.skipped:
        print(f"left behind\t{skipped.key}\t{skipped.reason}")
    if published is not None:
        print(f"snapshot {published.version}: published {len(found.experiments)} experiments")
    return 0
