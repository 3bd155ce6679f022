"""abkit against Eppo's own package, over the same document."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import eppo as importer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import abkit
    from abkit.compat import Imported

eppo = pytest.importorskip(
    "eppo_client", reason="Eppo's package is not installed: `python3 dev.py conformance`"
)

DEFAULT = "the caller's default"


def shard(salt: str, *ranges: tuple[int, int]) -> dict[str, Any]:
    return {"salt": salt, "ranges": [{"start": start, "end": end} for start, end in ranges]}


def split(variant: str, *shards: dict[str, Any]) -> dict[str, Any]:
    return {"variationKey": variant, "shards": list(shards)}


def allocation(*splits: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"key": "allocation", "rules": [], "splits": list(splits), "doLog": True} | more


def named(variant: str, *subjects: str) -> dict[str, Any]:
    condition = {"attribute": "id", "operator": "ONE_OF", "value": list(subjects)}
    return allocation(split(variant), rules=[{"conditions": [condition]}])


def flag(key: str, variants: str, *allocations: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "key": key,
        "enabled": True,
        "variationType": "STRING",
        "variations": {name: {"key": name, "value": name} for name in variants.split(",")},
        "allocations": list(allocations),
        "totalShards": 10000,
    } | more


ALL = (0, 10000)
FLAGS = [
    flag(
        "half",
        "control,new",
        allocation(
            split("control", shard("s", (0, 5000))), split("new", shard("s", (5000, 10000)))
        ),
    ),
    flag(
        "traffic and uneven",
        "a,b,c d",
        allocation(
            split("a", shard("t", (0, 3370)), shard("Ü s", (0, 1000))),
            split("b", shard("t", (0, 3370)), shard("Ü s", (1000, 3333))),
            split("c d", shard("t", (0, 3370)), shard("Ü s", (3333, 10000))),
        ),
    ),
    flag(
        "traffic in the middle",
        "control,b",
        allocation(
            split("control", shard("t2", (1000, 2500), (7000, 9999)), shard("s2", (0, 5000))),
            split("b", shard("t2", (1000, 2500), (7000, 9999)), shard("s2", (5000, 10000))),
        ),
    ),
    flag(
        "overlap and rest",
        "a,b,c",
        allocation(
            split("a", shard("s3", (0, 4000), (9000, 9500))),
            split("b", shard("s3", (2000, 5000))),
            split("c"),
        ),
    ),
    flag(
        "everybody else",
        "a,b,c",
        named("b", "user-0", "user-6"),
        named("c", "user-6", "nobody at all", "👩🏽‍🚀 3 😀"),
        named("a"),
        allocation(
            split("a", shard("t4", (0, 6000)), shard("s4", (0, 5000))),
            split("b", shard("t4", (0, 6000)), shard("s4", (5000, 9000))),
            startAt="2020-01-01T00:00:00Z",
        ),
        allocation(split("c", shard("t5", ALL)), doLog=False),
    ),
    flag(
        "ended",
        "a,b",
        allocation(split("a"), endAt="2020-01-01T00:00:00Z"),
        allocation(split("a", shard("s6", (0, 700))), split("b", shard("s6", (700, 1400)))),
    ),
    flag(
        "switched-off",
        "a,control",
        allocation(split("a", shard("s", (0, 9000))), split("control", shard("s", (9000, 9500)))),
        allocation(split("a")),
        enabled=False,
    ),
]
DOCUMENT = {
    "createdAt": "2026-01-01T00:00:00Z",
    "format": "SERVER",
    "environment": {"name": "test"},
    "flags": {row["key"]: row for row in FLAGS},
}
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def vendor() -> Iterator[Any]:
    # A closed port, and no polling: its threads are no Python ones.
    client = eppo.init(
        eppo.ClientConfig(
            api_key="none",
            base_url="http://127.0.0.1:9",
            assignment_logger=eppo.AssignmentLogger(),
            poll_interval_seconds=None,
            initial_configuration=eppo.Configuration(
                flags_configuration=json.dumps(DOCUMENT).encode()
            ),
        )
    )
    yield client
    client.shutdown()


def test_all_of_these_flags_are_carried_over() -> None:
    imported = importer.load(DOCUMENT, now=NOW)
    assert imported.skipped == ()
    assert len(imported.experiments) == len(FLAGS)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("key", DOCUMENT["flags"])
def test_every_unit_gets_the_variation_that_eppo_gives_it(
    key: str, units: list[str], vendor: Any, serving: Callable[[Imported], abkit.Client]
) -> None:
    imported = importer.load(DOCUMENT, now=NOW)
    ab = serving(imported)
    experiment = next(e for e in imported.experiments if e.key == imported.renamed.get(key, key))
    seen = set()
    for unit in units:
        value = vendor.get_string_assignment(key, unit, {}, DEFAULT)
        assignment = ab.assign(experiment.key, unit)
        if value == DEFAULT:
            assert not assignment.in_experiment, unit
            assert assignment.variant == experiment.control
        else:
            assert assignment.variant == imported.renamed.get(f"{key}/{value}", value), unit
        seen.add((value, assignment.reason))
    assert len({value for value, _ in seen}) >= (1 if key == "switched-off" else 2)


def test_where_eppo_leaves_it_to_the_caller_control_is_no_variation_that_it_has() -> None:
    controls = {e.key: e.control for e in importer.load(DOCUMENT, now=NOW).experiments}
    assert controls["half"] == controls["switched-off"] == "control"
    assert controls["ended"] == "off"
