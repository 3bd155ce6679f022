"""abkit against LaunchDarkly's own package, over the same flag file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import launchdarkly as importer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import abkit
    from abkit.compat import Imported

ldclient = pytest.importorskip(
    "ldclient", reason="LaunchDarkly's package is not installed: `python3 dev.py conformance`"
)

DEFAULT = {"the caller's": "default"}


def flag(
    key: str, variations: list[Any], rollout: dict[str, Any], **more: object
) -> dict[str, Any]:
    return {
        "key": key,
        "version": 3,
        "on": True,
        "salt": f"salt of {key}",
        "variations": variations,
        "offVariation": 0,
        "fallthrough": {"rollout": rollout},
    } | more


def weights(*weights: int, **more: object) -> dict[str, Any]:
    return {"variations": [{"variation": n, "weight": w} for n, w in enumerate(weights)]} | more


FLAGS = [
    flag("half", [False, True], weights(50_000, 50_000)),
    flag("uneven", ["a", "b b", "ç"], weights(10_000, 33_333, 56_667), salt="", offVariation=1),
    flag("seeded", [1, 2.5, -3], weights(33_333, 33_333, 33_334, seed=61, kind="experiment")),
    flag("zero-seed", [{"x": 1}, None, ["y"]], weights(30_001, 20_000, 49_999, seed=0)),
    flag("ten", list("abcdefghij"), weights(*[10_000] * 10)),
    flag("short of all", ["a", "b"], weights(20_000, 30_000), offVariation=None),
    flag("more than all", ["a", "b"], weights(70_000, 70_000)),
    flag(
        "partly tracked",
        ["a", "b", "c"],
        {
            "kind": "experiment",
            "seed": 7,
            "variations": [
                {"variation": 1, "weight": 12_000},
                {"variation": 2, "weight": 13_000},
                {"variation": 0, "weight": 75_000, "untracked": True},
            ],
        },
        offVariation=2,
    ),
    flag(
        "targeted",
        ["a", "b", "c"],
        weights(50_000, 25_000, 25_000, contextKind="user", bucketBy="key"),
        targets=[
            {"variation": 2, "values": ["user-0", "user-6", "  Jane Doe 4 "]},
            {"variation": 0, "values": ["user-6", "user-12", "nobody at all"]},
        ],
    ),
    flag(
        "targeted in another order",
        ["a", "b", "c"],
        weights(50_000, 25_000, 25_000),
        targets=[
            {"variation": 2, "values": ["user-0", "user-6"]},
            {"variation": 0, "values": ["user-6", "user-12"]},
            {"variation": 1, "values": ["user-18"]},
        ],
        contextTargets=[
            {"contextKind": "user", "variation": 0, "values": []},
            {"contextKind": "user", "variation": 2, "values": []},
        ],
    ),
    flag("switched-off", ["a", "b"], weights(0, 100_000), on=False, offVariation=1),
    flag("off for the caller", ["a", "b"], weights(50_000, 50_000), on=False, offVariation=None),
]
DOCUMENT = {"flags": {row["key"]: row for row in FLAGS}, "segments": {}}


def client(path: Path, document: dict[str, Any]) -> Any:
    from ldclient.config import Config
    from ldclient.integrations import Files

    file = path / "flags.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    source = Files.new_data_source(paths=[str(file)], auto_update=False)
    config = Config("none", update_processor_class=source, send_events=False)
    return ldclient.LDClient(config=config, start_wait=5)


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Any]:
    found = client(tmp_path, DOCUMENT)
    assert found.is_initialized()
    yield found
    found.close()


def test_all_of_these_flags_are_carried_over() -> None:
    imported = importer.load(DOCUMENT)
    assert imported.skipped == ()
    assert len(imported.experiments) == len(FLAGS)


def name_of(row: dict[str, Any], value: object) -> str:
    """The name of a variation in abkit, before it is made lawful."""
    if value == DEFAULT:
        return "off"
    number = row["variations"].index(value)
    if any(isinstance(v, (dict, list)) for v in row["variations"]):
        return str(number)
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("key", DOCUMENT["flags"])
def test_every_unit_gets_the_variation_that_launchdarkly_gives_it(
    key: str, units: list[str], vendor: Any, serving: Callable[[Imported], abkit.Client]
) -> None:
    row = DOCUMENT["flags"][key]
    imported = importer.load(DOCUMENT)
    ab = serving(imported)
    ours = imported.renamed.get(key, key)
    is_experiment = row["fallthrough"]["rollout"].get("kind") == "experiment"
    seen = set()
    for unit in units:
        context = ldclient.Context.create(unit)
        detail = vendor.variation_detail(key, context, DEFAULT)
        name = name_of(row, detail.value)
        assignment = ab.assign(ours, unit)
        assert assignment.variant == imported.renamed.get(f"{key}/{name}", name), unit
        if is_experiment:
            inside = detail.reason.get("inExperiment", False)
            assert assignment.in_experiment == inside
        seen.add(name)
    assert len(seen) == (1 if "off" in key else len(row["variations"]))


@pytest.mark.usefixtures("offline")
def test_another_context_kind_is_a_unit_of_its_own(
    units: list[str], tmp_path: Path, serving: Callable[[Imported], abkit.Client]
) -> None:
    rollout = weights(30_000, 70_000, contextKind="device")
    target = {"contextKind": "device", "variation": 0, "values": ["user-0", "user-6"]}
    row = flag("device", ["a", "b"], rollout, contextTargets=[target])
    document = {"flags": {"device": row}}
    assert importer.load(document).experiments == ()
    ab = serving(importer.load(document, unit="device"))
    vendor = client(tmp_path, document)
    for unit in units:
        context = ldclient.Context.create(unit, "device")
        assert ab.variant("device", unit) == vendor.variation("device", context, None)
    vendor.close()
