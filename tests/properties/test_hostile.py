"""Serving under fire: hostile units, attributes and snapshots never raise, and say why."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, get_args

import pytest

from abkit.assignment import Assignment, Reason
from abkit.client import Client, MemorySticky
from abkit.errors import AbkitError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.metrics import Metric
from abkit.snapshot import Snapshot, SnapshotSource, _checksum, compile_snapshot

if TYPE_CHECKING:
    from pathlib import Path

REASONS = set(get_args(Reason))
TARGETING = {
    "all": [
        {"any": [{"attribute": "country", "in": ["DE", 7]}, {"attribute": "age", "at_least": 18}]},
        {"not": {"attribute": "app", "version_below": "2.0.0"}},
        {"not": {"attribute": "tags", "contains": "internal"}},
    ]
}
SHARES = {"old": 0.5, "new": 0.3, "third": 0.2}
EXPERIMENTS = [
    Experiment.create("plain", {"old": 0.5, "new": 0.5}, salt="plain"),
    Experiment.create(
        "full",
        SHARES,
        salt="full",
        rollout=0.7,
        overrides={"qa": "new"},
        metrics=(Metric(key="clicks"),),
        layer="search",
        holdouts=("quiet",),
        targeting=TARGETING,
        sticky=True,
    ),
    Experiment.from_dict(
        {"key": "theirs", "salt": "any text: ☃", "control": "old", "variants": SHARES}
        | {"hash": "growthbook-v2", "rollout_salt": "two", "rollout": 0.5}
    ),
    Experiment.create("off", SHARES, salt="off").kill(),
]
SNAPSHOT = Snapshot.of(
    EXPERIMENTS,
    layers=[Layer(key="search", salt="search").resize("full", 0.8)],
    holdouts=[Holdout(key="quiet", salt="quiet", share=0.1)],
    version=4,
    published=1.0,
)


class Nasty:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __str__(self) -> str:
        raise RuntimeError("str")


class NastyText(str):
    """Text whose methods raise."""

    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError("encode")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")


class NastyMapping(dict[str, Any]):
    """Attributes that raise when asked."""

    def get(self, *args: Any) -> Any:
        raise RuntimeError("get")


ATOMS: list[Any] = [
    *("", " ", "qa", "user-1", "\x00", "\ud800", "é", "é", "東京", "👩‍👩‍👧", "'; DROP TABLE u; --"),
    *(
        "a" * 5_000,
        "a" * 16_384,
        "a" * 16_385,
        "\n\t",
        "%s%n",
        "../../etc",
        "NaN",
        "null",
        "0",
        "-0",
    ),
    *(0, 1, -1, 2**63, 10**4_000, 10**5_000, True, False, None, 1.5, float("nan"), float("inf")),
    *(
        b"user",
        bytearray(b"u"),
        [],
        {},
        (),
        set(),
        object(),
        Nasty(),
        NastyText("u"),
        NastyMapping(),
    ),
    *(lambda: "u", Exception("u"), range(3), type, 1j, memoryview(b"u")),
]


def hostile(rng: random.Random) -> Any:
    """One odd value: from the list, or text of random code points."""
    if rng.random() < 0.6:
        return rng.choice(ATOMS)
    return "".join(chr(rng.randrange(0x11_0000)) for _ in range(rng.randrange(30)))


def attributes(rng: random.Random) -> Any:
    """Odd attributes."""
    if rng.random() < 0.2:
        return hostile(rng)
    names = ["country", "age", "app", "tags"]
    found = {rng.choice(names): hostile(rng) for _ in range(rng.randrange(5))}
    return NastyMapping(found) if rng.random() < 0.1 else found


def check(found: Assignment) -> None:
    assert found.reason in REASONS
    assert type(found.variant) is str
    assert type(found.unit_id) is str
    assert found.bucket is None or 0 <= found.bucket < 2**52


def test_a_thousand_hostile_units_and_contexts_get_a_variant_and_a_reason() -> None:
    rng = random.Random(3)
    ab = Client.from_experiments(
        SNAPSHOT.experiments.values(),
        layers=SNAPSHOT.layers.values(),
        holdouts=SNAPSHOT.holdouts.values(),
        sticky=MemorySticky(limit=100),
    )
    seen = set()
    for _ in range(1_000):
        unit, given = hostile(rng), attributes(rng)
        for key in ("plain", "full", "theirs", "off", "quiet", "absent"):
            found = ab.assign(key, unit, given)
            check(found)
            seen.add(found.reason)
            assert ab.variant(key, unit, given) == found.variant or found.reason == "sticky"
            ab.expose(found)
            ab.record(unit, "clicks", given)
    assert seen >= {"split", "rollout", "targeting", "layer", "holdout", "invalid_unit"}
    assert seen >= {"killed", "override", "unknown_experiment", "error"}


# Snapshots


def mutated(rng: random.Random, content: bytes) -> bytes:
    """A snapshot with damage: bytes, or values with a checksum that fits them."""
    if rng.random() < 0.4:
        return damaged(rng, bytearray(content))
    document = json.loads(content)
    for _ in range(rng.randrange(1, 4)):
        _change(rng, document["body"])
    try:
        if rng.random() < 0.9:
            document["checksum"] = _checksum(document["body"])
        return json.dumps(document).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError):
        return content


def damaged(rng: random.Random, content: bytearray) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 1:
        del content[rng.randrange(len(content)) :]
    elif kind == 2:
        start = rng.randrange(len(content))
        del content[start : start + rng.randrange(50)]
    else:
        start = rng.randrange(len(content))
        content[start:start] = rng.randbytes(rng.randrange(20))
    return bytes(content)


JSON: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**52, 2**53, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "old", "new", "killed", "sha256", "planout", "x" * 600, "\ud800", "\x00", "☃"),
    *([], {}, [[]], [0, 2**52, "old"], [[0, 2**52, "old"]], {"old": 1.0}, {"not": {"not": {}}}),
    *({"attribute": "a", "is": 1}, {"all": [{}]}, {"key": "x", "salt": "y"}),
]


def _change(rng: random.Random, value: Any) -> None:
    """Put something else in a random place of plain data."""
    while isinstance(value, (dict, list)) and value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        if rng.random() < 0.3 or not isinstance(value[key], (dict, list)) or not value[key]:
            kind = rng.randrange(4)
            if kind == 0:
                del value[key]
            elif kind == 1 and isinstance(value, dict):
                value[rng.choice(["key", "layer", "hash", "idle", "☃"])] = rng.choice(JSON)
            else:
                value[key] = rng.choice(JSON)
            return
        value = value[key]


def fire(count: int, seed: int, path: Path) -> int:
    """Feed so many damaged snapshots; returns how many were lawful all the same."""
    rng, content, lawful = random.Random(seed), SNAPSHOT.to_bytes(), 0
    path.write_bytes(content)
    now = [0.0]
    source = SnapshotSource(path, monotonic=lambda: now[0])
    for number in range(count):
        given = mutated(rng, content)
        try:
            snapshot = Snapshot.from_bytes(given)
        except AbkitError:
            snapshot = None
        else:
            lawful += 1
            again = Snapshot.of(
                snapshot.experiments.values(),
                layers=snapshot.layers.values(),
                holdouts=snapshot.holdouts.values(),
                version=snapshot.version,
                published=snapshot.published,
            )
            assert Snapshot.from_bytes(again.to_bytes()) == again
            for choose in compile_snapshot(snapshot).values():
                for unit in ("user-1", "qa", None):
                    found = choose(unit, {"country": "DE"})
                    assert found.reason in REASONS
        if number % 100 == 0:
            before = source.state[0]
            path.write_bytes(given)
            now[0] += 1.0
            after = source.snapshot()
            assert after == (before if snapshot is None else snapshot)
    return lawful


def test_damaged_snapshots_are_refused_and_lawful_ones_serve(tmp_path: Path) -> None:
    lawful = fire(3_000, 1, tmp_path / "snapshot.json")
    assert 150 < lawful < 1_500


@pytest.mark.slow
def test_a_hundred_thousand_damaged_snapshots(tmp_path: Path) -> None:
    assert fire(100_000, 2, tmp_path / "snapshot.json") > 5_000
