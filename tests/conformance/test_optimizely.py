"""abkit against Optimizely's own package, over the same datafile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import optimizely as importer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import abkit
    from abkit.compat import Imported

optimizely = pytest.importorskip(
    "optimizely.optimizely",
    reason="Optimizely's package is not installed: `python3 dev.py conformance`",
)


def experiment(
    number: int, key: str, names: str, *traffic: tuple[str, int], **more: object
) -> dict[str, Any]:
    ids = {name: f"{number}{n}" for n, name in enumerate(names.split(","))} | {"": ""}
    return {
        "id": str(number),
        "key": key,
        "status": "Running",
        "layerId": f"layer {number}",
        "variations": [{"id": i, "key": name} for name, i in ids.items() if name],
        "trafficAllocation": [
            {"entityId": ids.get(name, name), "endOfRange": end} for name, end in traffic
        ],
        "audienceIds": [],
        "forcedVariations": {},
    } | more


FORCED = {"user-0": "b", "user-6": "no such variation", "user-12": "c", "nobody at all": "a"}
ALONE = [
    experiment(10, "half", "control,new", ("control", 5000), ("new", 10000)),
    experiment(11, "uneven part", "a,b b,c", ("a", 1), ("b b", 2333), ("c", 6000)),
    experiment(12, "with gaps", "a,b", ("", 1000), ("a", 3000), ("", 7500), ("b", 10000)),
    experiment(13, "out-of-order", "a,b,c", ("a", 4000), ("b", 3000), ("c", 9000), ("gone", 9500)),
    experiment(14, "forced", "a,b,c", ("a", 3000), ("b", 6000), forcedVariations=FORCED),
    experiment(15, "paused", "a,control", ("a", 10000), status="Paused", forcedVariations=FORCED),
    experiment(16, "not-started", "a,b", ("a", 5000), ("b", 10000), status="Not started"),
    experiment(17, "of a flag", "on,off", ("on", 2500), ("off", 10000), audienceConditions=[]),
]
GROUPED = [
    experiment(20, "first of group", "a,b", ("a", 5000), ("b", 10000)),
    experiment(21, "second of group", "a,b", ("a", 2000), ("b", 9000)),
    experiment(22, "forced in group", "a,b", ("a", 5000), ("b", 10000), forcedVariations=FORCED),
]
OVERLAPPING = [experiment(30, "overlapping", "a,b", ("a", 5000), ("b", 10000))]
EXPERIMENTS = [*ALONE, *GROUPED, *OVERLAPPING]
DATAFILE = {
    "version": "4",
    "projectId": "1",
    "accountId": "1",
    "revision": "1",
    "anonymizeIP": True,
    "experiments": ALONE,
    "groups": [
        {
            "id": "77",
            "policy": "random",
            "trafficAllocation": [
                {"entityId": "20", "endOfRange": 3000},
                {"entityId": "", "endOfRange": 3500},
                {"entityId": "21", "endOfRange": 8000},
                {"entityId": "22", "endOfRange": 8800},
                {"entityId": "20", "endOfRange": 9000},
            ],
            "experiments": GROUPED,
        },
        {"id": "78", "policy": "overlapping", "trafficAllocation": [], "experiments": OVERLAPPING},
    ],
    "events": [],
    "audiences": [],
    "attributes": [],
    "rollouts": [],
    "featureFlags": [
        {"id": "f", "key": "flag", "experimentIds": ["17"], "rolloutId": "", "variables": []}
    ],
}


@pytest.fixture
def vendor() -> Iterator[Any]:
    found = optimizely.Optimizely(datafile=json.dumps(DATAFILE))
    assert found.is_valid
    yield found
    found.close()


def test_all_of_these_experiments_are_carried_over() -> None:
    imported = importer.load(DATAFILE)
    assert imported.skipped == ()
    assert len(imported.experiments) == len(EXPERIMENTS)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("row", EXPERIMENTS, ids=lambda row: row["key"])
def test_every_unit_gets_the_variation_that_optimizely_gives_it(
    row: dict[str, Any],
    units: list[str],
    vendor: Any,
    serving: Callable[[Imported], abkit.Client],
) -> None:
    key = row["key"]
    imported = importer.load(DATAFILE)
    ab = serving(imported)
    found = next(e for e in imported.experiments if e.key == imported.renamed.get(key, key))
    seen, reasons = set(), set()
    for unit in units:
        name = vendor.get_variation(key, unit)
        assignment = ab.assign(found.key, unit)
        if name is None:
            assert not assignment.in_experiment, unit
            assert assignment.variant == found.control
        else:
            assert assignment.variant == imported.renamed.get(f"{key}/{name}", name), unit
        seen.add(name)
        reasons.add(assignment.reason)
    assert len(seen) >= (1 if row["status"] != "Running" else 2)
    assert ("override" in reasons) == ("forced" in key)
    assert ("layer" in reasons) == ("group" in key)


@pytest.mark.usefixtures("offline")
def test_a_flag_decides_by_its_experiment(
    units: list[str], vendor: Any, serving: Callable[[Imported], abkit.Client]
) -> None:
    imported = importer.load(DATAFILE)
    ab = serving(imported)
    ours = imported.renamed["of a flag"]
    for unit in units[:300]:
        decision = vendor.create_user_context(unit).decide("flag", ["DISABLE_DECISION_EVENT"])
        assert decision.rule_key == "of a flag"
        assert ab.variant(ours, unit) == decision.variation_key
