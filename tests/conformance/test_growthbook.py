"""abkit against GrowthBook's own package, over the same document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from abkit.compat import growthbook as importer

if TYPE_CHECKING:
    from collections.abc import Callable

    import abkit
    from abkit.compat import Imported

growthbook = pytest.importorskip(
    "growthbook", reason="GrowthBook's package is not installed: `python3 dev.py conformance`"
)


def experiment(values: list[object], default: object = None, **rule: object) -> dict[str, object]:
    return {"defaultValue": default, "rules": [{"variations": values, **rule}]}


FEATURES = {
    "even v1": experiment(["red", "blue"], "red"),
    "even-v2": experiment([False, True], False, hashVersion=2, key="an experiment"),
    "uneven": experiment(
        [1, 2, 3], 7, hashVersion=2, weights=[0.2, 0.335, 0.465], coverage=0.37, seed="s1"
    ),
    "uneven-v1": experiment(
        ["a", "b", "c"],
        "b",
        weights=[0.1, 0.2, 0.7],
        coverage=0.9,
        key="shared",
        meta=[{"key": "control"}, {"key": "new model"}, {"key": "neu-é"}],
    ),
    "ten": experiment(list(range(10)), 0, hashVersion=2, weights=[0.1] * 10, coverage=0.7),
    "seven": experiment(list(range(7)), 0, hashVersion=1, coverage=0.999),
    "bad weights": experiment(["a", "b", "c"], "a", hashVersion=2, weights=[0.2, 0.2]),
    "short weights": experiment(["a", "b"], "z", hashVersion=2, weights=[0.4, 0.591]),
    "ranges": experiment(
        ["a", "b", "c"], None, hashVersion=2, ranges=[[0.6, 1.2], [0.1, 0.301], [0.3, 0.65]]
    ),
    "first in namespace": experiment(["a", "b"], "a", hashVersion=2, namespace=["n 1", 0, 0.45]),
    "second in namespace": experiment(["a", "b"], "c", namespace=["n 1", 0.45, 0.9], coverage=0.5),
    "overlaps namespace": experiment(["a", "b"], "c", namespace=["n 1", 0.3, 0.6]),
    "filtered": experiment(
        ["a", "b"], "b", hashVersion=2, filters=[{"seed": "f", "ranges": [[0, 0.2], [0.7, 0.8]]}]
    ),
    "filtered v1": experiment(
        ["a", "b"], "b", filters=[{"seed": "f", "hashVersion": 1, "ranges": [[0.1, 0.7]]}]
    ),
}
DOCUMENT = {"features": FEATURES}


def test_all_of_these_experiments_are_carried_over() -> None:
    imported = importer.load(DOCUMENT)
    assert imported.skipped == ()
    assert len(imported.experiments) == len(FEATURES)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("key", FEATURES)
def test_every_unit_gets_the_variation_that_growthbook_gives_it(
    key: str, units: list[str], serving: Callable[[Imported], abkit.Client]
) -> None:
    imported = importer.load(DOCUMENT)
    ab = serving(imported)
    ours = imported.renamed.get(key, key)
    vendor = growthbook.GrowthBook(features=FEATURES)
    inside, outside = set(), set()
    for unit in units:
        vendor.set_attributes({"id": unit})
        result = vendor.eval_feature(key)
        assignment = ab.assign(ours, unit)
        assert assignment.in_experiment == (result.source == "experiment"), unit
        if result.source == "experiment":
            name = result.experimentResult.key
            assert assignment.variant == imported.renamed.get(f"{key}/{name}", name), unit
            inside.add(name)
        else:
            outside.add((assignment.variant, repr(result.value)))
    vendor.destroy()
    rule = FEATURES[key]["rules"][0]
    assert len(inside) == len(rule["variations"])
    assert len(outside) <= 1
    if outside:
        [(variant, value)] = outside
        values = [repr(v) for v in rule["variations"]]
        names = ["control", "new model", "neu-é"] if "meta" in rule else map(str, range(10))
        expected = dict(zip(values, names, strict=False)).get(value, "default")
        assert variant == imported.renamed.get(f"{key}/{expected}", expected)


@pytest.mark.usefixtures("offline")
def test_another_hash_attribute_is_a_unit_of_its_own(
    units: list[str], serving: Callable[[Imported], abkit.Client]
) -> None:
    features = {"device": experiment(["a", "b"], "a", hashVersion=2, hashAttribute="deviceId")}
    assert importer.load({"features": features}).experiments == ()
    ab = serving(importer.load({"features": features}, unit="deviceId"))
    vendor = growthbook.GrowthBook(features=features)
    for unit in units:
        vendor.set_attributes({"id": "nobody", "deviceId": unit})
        result = vendor.eval_feature("device")
        assert ab.assign("device", unit).variant == result.experimentResult.key
    vendor.destroy()
