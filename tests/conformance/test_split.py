"""Imported splits serve what splitio_client serves, for every unit."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from abkit.compat import load
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import abkit
    from abkit.compat import Imported

splitio = pytest.importorskip(
    "splitio", reason="splitio_client is not installed: python3 dev.py conformance"
)

EXTRA = ["vip", "tester", "Vip", "用户1号", "é" * 250]


def rule(
    partitions: dict[str, int], *, kind: str = "ROLLOUT", matcher: dict[str, Any] | None = None
) -> dict[str, Any]:
    everybody = {"keySelector": None, "matcherType": "ALL_KEYS", "negate": False}
    return {
        "conditionType": kind,
        "label": "a rule",
        "matcherGroup": {"combiner": "AND", "matchers": [matcher or everybody]},
        "partitions": [{"treatment": name, "size": size} for name, size in partitions.items()],
    }


def listed(*units: str) -> dict[str, Any]:
    return {
        "keySelector": None,
        "matcherType": "WHITELIST",
        "negate": False,
        "whitelistMatcherData": {"whitelist": list(units)},
    }


def split(name: str, *conditions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "changeNumber": 1,
        "trafficTypeName": "user",
        "name": name,
        "trafficAllocation": 100,
        "trafficAllocationSeed": 1_234_567,
        "seed": -1_222_652_054,
        "status": "ACTIVE",
        "killed": False,
        "defaultTreatment": "off",
        "algo": 2,
        "conditions": list(conditions),
        "configurations": {"on": '{"colour": "blue"}'},
        "sets": [],
    } | changes


VIPS = rule({"blue": 100}, kind="WHITELIST", matcher=listed("vip", "用户1号"))
TESTERS = rule({"red": 100}, kind="WHITELIST", matcher=listed("tester", "vip"))
COLOURS = rule({"red": 10, "green": 0, "blue": 55, "grey": 35})
SPLITS = [
    split("halves", rule({"on": 50, "off": 50})),
    split("uneven", rule({"on": 7, "off": 93}), seed=2_067_393_204, defaultTreatment="on"),
    split("one sided", rule({"on": 100, "off": 0}), seed=5),
    split("partial", rule({"on": 34, "off": 66}), trafficAllocation=60, seed=-7),
    split("tiny", rule({"a": 50, "b": 50}), trafficAllocation=1, trafficAllocationSeed=-3),
    split("nobody", rule({"a": 50, "b": 50}), trafficAllocation=0),
    split("colours", COLOURS, seed=99, defaultTreatment="grey", trafficAllocation=29),
    split("tested", VIPS, TESTERS, COLOURS, seed=77, trafficAllocation=10),
    split("stopped", VIPS, COLOURS, killed=True, defaultTreatment="green"),
    split("always", rule({"on": 20, "off": 80}, kind="WHITELIST"), trafficAllocation=10),
    split("beyond", rule({"on": 20, "off": 80}), trafficAllocation=130),
]
TREATMENTS = {"halves": 2, "uneven": 2, "partial": 2, "tiny": 3, "colours": 3, "tested": 4}
REASONS = {
    "partial": {"split", "rollout"},
    "tiny": {"split", "rollout"},
    "nobody": {"rollout"},
    "colours": {"split", "rollout"},
    "tested": {"split", "rollout"},
    "stopped": {"killed"},
}
DOCUMENT = {"ff": {"s": -1, "t": 10, "d": SPLITS}, "rbs": {"s": -1, "t": -1, "d": []}}


@pytest.fixture
def client(tmp_path: Path, offline: None) -> Iterator[Any]:
    file = tmp_path / "splits.json"
    file.write_text(json.dumps(DOCUMENT), encoding="utf-8")
    settings = {
        "splitFile": str(file),
        "localhostRefreshEnabled": False,
        "IPAddressesEnabled": False,  # the SDK finds its address by a connection
        "impressionsMode": "none",
    }
    factory = splitio.get_factory("localhost", config=settings)
    factory.block_until_ready(5)
    yield factory.client()
    stopped = threading.Event()
    factory.destroy(stopped)
    assert stopped.wait(5)


@pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")  # the SDK's own threads
def test_every_unit_keeps_its_treatment(
    client: Any, units: list[str], serving: Callable[[Imported], abkit.Client]
) -> None:
    found = load("split", DOCUMENT)
    assert found.skipped == ()
    ours = serving(found)
    for row in SPLITS:
        name = row["name"]
        key = found.renamed.get(name, name)
        served = [client.get_treatment(unit, name) for unit in (*units, *EXTRA)]
        assert [ours.variant(key, unit) for unit in (*units, *EXTRA)] == served, name
        assert len(set(served)) == TREATMENTS.get(name, len(set(served)))
        reasons = {ours.assign(key, unit).reason for unit in units}
        assert reasons == REASONS.get(name, {"split"})


def test_the_older_form_of_the_document_gives_the_same() -> None:
    older = {"splits": SPLITS, "since": -1, "till": 10}
    assert load("split", older) == load("split", DOCUMENT)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (split("s", rule({"on": 50, "off": 50}), algo=1), "murmur3"),
        (split("s", rule({"on": 50, "off": 50}), status="ARCHIVED"), "ARCHIVED"),
        (split("s", rule({"on": 50, "off": 40})), "sum to 100"),
        (split("s", rule({"on": 50, "off": 50}), seed=0), "seed"),
        (
            split("s", rule({"on": 50, "off": 50}), trafficAllocation=5, trafficAllocationSeed=0),
            "trafficAllocationSeed",
        ),
        (split("s", rule({"on": 50, "control": 50})), "in place of an answer"),
        (split("s", rule({"on": 50, "off": 50}), prerequisites=[{"n": "x", "ts": []}]), "depends"),
        (split("s", VIPS), "no rule for all keys"),
        (
            split("s", rule({"on": 100}, matcher=listed("a")), COLOURS),
            "targeting",
        ),
        (
            split("s", rule({"on": 50, "off": 50}, matcher=listed("a"), kind="WHITELIST"), COLOURS),
            "splits a whitelist",
        ),
        (
            split(
                "s",
                rule(
                    {"on": 100},
                    kind="WHITELIST",
                    matcher=listed("a") | {"keySelector": {"attribute": "plan"}},
                ),
                COLOURS,
            ),
            "attribute",
        ),
        (
            split(
                "s",
                rule({"on": 100}, matcher={"matcherType": "IN_SEGMENT", "negate": False}),
                COLOURS,
            ),
            "IN_SEGMENT",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_skipped_with_a_reason(
    row: dict[str, Any], reason: str
) -> None:
    found = load("split", {"ff": {"d": [row]}})
    assert found.experiments == ()
    assert [skipped.key for skipped in found.skipped] == ["s"]
    assert reason in found.skipped[0].reason


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "split: ff must be a table"),
        ({"ff": {"d": 7}}, "split: ff.d must be a list"),
        ({"ff": {"d": [{"name": 3}]}}, "split: name must be a text"),
        ({"splits": [split("s", rule({"on": 100}), seed="x")]}, "'s': seed must be a whole number"),
    ],
)
def test_a_malformed_document_is_named(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("split", document)
