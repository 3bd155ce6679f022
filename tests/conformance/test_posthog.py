"""abkit against PostHog's own package, over the same document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import posthog as importer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import abkit
    from abkit.compat import Imported

posthog = pytest.importorskip(
    "posthog", reason="PostHog's package is not installed: `python3 dev.py conformance`"
)


def flag(key: str, names: str, *shares: float, rollout: float | None = 100) -> dict[str, Any]:
    variants = [
        {"key": name, "rollout_percentage": share}
        for name, share in zip(names.split(","), shares, strict=True)
    ]
    return {
        "id": 1,
        "key": key,
        "active": True,
        "filters": {
            "groups": [{"properties": [], "rollout_percentage": rollout}],
            "multivariate": {"variants": variants},
            "payloads": {},
        },
    }


OFF = flag("switched-off", "control,test", 50, 50) | {"active": False}
DEVICE = flag("device", "a,b", 30, 70, rollout=40) | {"bucketing_identifier": "device_id"}
FLAGS = [
    flag("half", "control,test", 50, 50),
    flag("all", "a,b", 50, 50, rollout=None),
    flag("part", "control,test", 50, 50, rollout=37.5),
    flag("little", "control,test 1", 10, 90, rollout=1),
    flag("thirds", "a,b,c", 33.33, 33.33, 33.34),
    flag("uneven 日本", "a,b,c,d", 1, 20, 0, 79, rollout=63),
    flag("ten", "a,b,c,d,e,f,g,h,i,j", *[10] * 10, rollout=99.9),
    flag("nobody", "a,b", 50, 50, rollout=0),
    OFF,
]
DOCUMENT = {"flags": FLAGS, "group_type_mapping": {}, "cohorts": {}}


@pytest.fixture
def vendor() -> Iterator[Any]:
    client = posthog.Posthog("none", host="http://127.0.0.1:9", send=False)
    yield client
    client.shutdown()


def test_all_of_these_flags_are_carried_over() -> None:
    imported = importer.load(DOCUMENT)
    assert imported.skipped == ()
    assert len(imported.experiments) == len(FLAGS)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("row", FLAGS, ids=lambda row: row["key"])
def test_every_unit_gets_the_variant_that_posthog_gives_it(
    row: dict[str, Any],
    units: list[str],
    vendor: Any,
    serving: Callable[[Imported], abkit.Client],
) -> None:
    key = row["key"]
    vendor.feature_flags = FLAGS
    imported = importer.load(DOCUMENT)
    ab = serving(imported)
    found = next(e for e in imported.experiments if e.key == imported.renamed.get(key, key))
    seen = set()
    for unit in units:
        flags = vendor.evaluate_flags(unit, only_evaluate_locally=True, flag_keys=[key])
        name = flags.get_flag(key)
        assignment = ab.assign(found.key, unit)
        assert name is not None
        if name is False:
            assert not assignment.in_experiment, unit
            assert assignment.variant == found.control
        else:
            assert assignment.in_experiment
            assert assignment.variant == imported.renamed.get(f"{key}/{name}", name), unit
        seen.add(name)
    assert len(seen) >= (1 if key in ("nobody", "switched-off") else 2)


@pytest.mark.usefixtures("offline")
def test_a_device_is_a_unit_of_its_own(
    units: list[str], vendor: Any, serving: Callable[[Imported], abkit.Client]
) -> None:
    document = {"flags": [DEVICE]}
    assert importer.load(document).experiments == ()
    ab = serving(importer.load(document, unit="device_id"))
    vendor.feature_flags = [DEVICE]
    for unit in units:
        flags = vendor.evaluate_flags("nobody", device_id=unit, only_evaluate_locally=True)
        name = flags.get_flag("device")
        assert ab.variant("device", unit) == (name or "off")
