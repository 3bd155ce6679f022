"""abkit against Unleash's own package, over the same document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import unleash as importer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import abkit
    from abkit.compat import Imported

pytest.importorskip(
    "UnleashClient", reason="Unleash's package is not installed: `python3 dev.py conformance`"
)


def variants(*weights: int, **more: object) -> list[dict[str, Any]]:
    return [
        {"name": f"v {n}" if n == 3 else "abcd"[n], "weight": weight, "weightType": "variable"}
        | {"stickiness": "default"}
        | more
        for n, weight in enumerate(weights)
    ]


def rollout(percentage: int, group: str, **more: object) -> dict[str, Any]:
    parameters = {"rollout": str(percentage), "stickiness": "default", "groupId": group}
    return {"name": "flexibleRollout", "parameters": parameters, "constraints": []} | more


def feature(name: str, strategies: list[Any], rows: list[Any], **more: object) -> dict[str, Any]:
    return {"name": name, "enabled": True, "strategies": strategies, "variants": rows} | more


OVERRIDDEN = variants(500, 500)
OVERRIDDEN[1]["overrides"] = [
    {"contextName": "userId", "values": [f"user-{n}" for n in range(0, 120, 6)]}
]
FEATURES = [
    feature("everybody", [{"name": "default"}], variants(500, 500)),
    feature("no strategy", [], variants(1, 332, 667)),
    feature("half", [rollout(50, "half")], variants(500, 500)),
    feature(
        "37 % of an ünusual group", [rollout(37, "group 7 é 组")], variants(100, 233, 300, 367)
    ),
    feature("one percent", [rollout(1, "g")], variants(0, 1000)),
    feature("hundred", [rollout(100, "g")], variants(333, 333, 334)),
    feature("strategy-variants", [rollout(60, "g", variants=variants(250, 750))], variants(1000)),
    feature("overridden", [rollout(55, "g")], OVERRIDDEN),
    feature(
        "by user",
        [{"name": "gradualRolloutUserId", "parameters": {"percentage": "29", "groupId": "old"}}],
        variants(900, 100, stickiness="userId"),
    ),
    feature("switched-off", [rollout(50, "g")], variants(500, 500), enabled=False),
]
DOCUMENT = {"version": 2, "features": FEATURES}


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Any]:
    from UnleashClient import UnleashClient
    from UnleashClient.cache import FileCache

    cache = FileCache("abkit", directory=str(tmp_path))
    cache.bootstrap_from_dict(DOCUMENT)
    # Bootstrapped and not initialised, it starts no thread and asks no server.
    client = UnleashClient(
        "http://127.0.0.1:9",
        "abkit",
        cache=cache,
        disable_metrics=True,
        disable_registration=True,
    )
    yield client
    client.destroy()


def test_all_of_these_features_are_carried_over() -> None:
    imported = importer.load(DOCUMENT)
    assert imported.skipped == ()
    assert len(imported.experiments) == len(FEATURES)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("row", FEATURES, ids=lambda row: row["name"])
def test_every_unit_gets_the_variant_that_unleash_gives_it(
    row: dict[str, Any],
    units: list[str],
    vendor: Any,
    serving: Callable[[Imported], abkit.Client],
) -> None:
    key = row["name"]
    imported = importer.load(DOCUMENT)
    ab = serving(imported)
    ours = imported.renamed.get(key, key)
    seen, reasons = set(), set()
    for unit in units:
        name = vendor.get_variant(key, {"userId": unit})["name"]
        assignment = ab.assign(ours, unit)
        assert assignment.variant == imported.renamed.get(f"{key}/{name}", name), unit
        seen.add(name)
        reasons.add(assignment.reason)
    assert len(seen) >= (1 if key == "switched-off" else 2)
    assert ("override" in reasons) == (key == "overridden")


@pytest.mark.usefixtures("offline")
def test_another_stickiness_is_a_unit_of_its_own(
    units: list[str], serving: Callable[[Imported], abkit.Client]
) -> None:
    from yggdrasil_engine.engine import UnleashEngine

    strategy = rollout(40, "g")
    strategy["parameters"]["stickiness"] = "sessionId"
    rows = variants(300, 700, stickiness="sessionId")
    document = {"version": 2, "features": [feature("session", [strategy], rows)]}
    assert importer.load(document).experiments == ()
    ab = serving(importer.load(document, unit="sessionId"))
    engine = UnleashEngine()
    engine.take_state(json.dumps(document))
    for unit in units:
        found = engine.get_variant("session", {"userId": "nobody", "sessionId": unit})
        assert ab.variant("session", unit) == found.variant.name
