"""`/v1/rollouts/{r}/decision`: 200 for every rollout, and nothing that a condition trips over."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from abkit.client import Client
from abkit.controller import DECISION_SCHEMA, Controller
from abkit.rollout import Rollout, Stage
from abkit.server.verdict import SCHEMA
from abkit.snapshot import Snapshot
from abkit.store.reader import StoreReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = [
    "schema",
    "rollout",
    "state",
    "action",
    "code",
    "weight",
    "next_weight",
    "evalue_harm",
    "evalue_noninf",
    "decision_id",
    "reason",
]
CODES = {"insufficient_data": 0, "continue": 0, "advance": 1, "promote": 2, "halt": -1}
EXPECTED = {
    "fresh": ("canary", "insufficient_data", 5, 25),
    "scarce": ("canary", "insufficient_data", 50, 100),
    "going": ("canary", "continue", 50, 100),
    "noted": ("canary", "advance", 5, 25),
    "stepped": ("canary", "advance", 5, 25),
    "held": ("hold", "continue", 50, 50),
    "ready": ("ready", "continue", 50, 100),
    "promoted": ("promoted", "promote", 100, 100),
    "baking": ("bake", "insufficient_data", 90, 100),
    "halted": ("halted", "halt", 0, 0),
}


@pytest.mark.parametrize("key", EXPECTED)
def test_every_state_has_its_answer(served: Any, key: str) -> None:
    found = served.decision(key)
    told = tuple(found[name] for name in ("state", "action", "weight", "next_weight"))
    assert told == EXPECTED[key], found


@pytest.mark.parametrize("key", EXPECTED)
def test_the_answer_has_the_keys_of_the_contract_and_no_null_or_nan(served: Any, key: str) -> None:
    found = served.decision(key)
    assert list(found) == KEYS
    assert found["schema"] == SCHEMA == DECISION_SCHEMA
    assert found["rollout"] == key
    assert found["code"] == CODES[found["action"]]
    for name in ("weight", "next_weight", "evalue_harm", "evalue_noninf"):
        assert isinstance(found[name], (int, float))
        assert math.isfinite(found[name])
    for name in ("decision_id", "reason"):
        assert isinstance(found[name], str)
    assert found["reason"]


def test_the_numbers_are_those_of_the_record(served: Any, zoo: Path) -> None:
    (record,) = StoreReader(zoo).decisions("halted", limit=1)
    found = served.decision("halted")
    assert found["decision_id"] == record["decision_id"]
    assert found["reason"] == record["reason"]
    assert found["evalue_harm"] == max(item["e_harm"] for item in record["evidence"]) > 100


@pytest.mark.parametrize(
    ("key", "weight", "action"),
    [
        ("stepped", 5, "advance"),  # it stands at 25 %
        ("stepped", 25, "insufficient_data"),  # and nothing has been seen there yet
        ("stepped", 50, "continue"),  # the caller is ahead of it
        ("noted", 5, "advance"),
        ("noted", 25, "continue"),
        ("going", 50, "continue"),
        ("going", 10, "advance"),
        ("held", 10, "continue"),
        ("promoted", 50, "promote"),
        ("halted", 50, "halt"),
        ("fresh", 5, "insufficient_data"),
    ],
)
def test_a_caller_that_names_its_weight_gets_the_answer_for_it(
    served: Any, key: str, weight: int, action: str
) -> None:
    found = served.decision(key, f"?weight={weight}")
    assert (found["action"], found["code"], found["weight"]) == (action, CODES[action], weight)


@pytest.mark.parametrize("weight", ["101", "-1", "nan", "much"])
def test_a_weight_that_is_none_is_refused(served: Any, weight: str) -> None:
    answer = served.get(f"/v1/rollouts/going/decision?weight={weight}")
    assert answer.status_code == 400
    assert "percent from 0 to 100" in answer.json()["error"]


def test_an_unknown_rollout_is_404_with_a_hint(served: Any) -> None:
    answer = served.get("/v1/rollouts/promted/decision")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "there is no rollout 'promted'",
        "hint": "did you mean 'promoted'?",
    }
    for name in ("%00", "a" * 65, "💥"):
        assert served.get(f"/v1/rollouts/{name}").status_code == 404
    assert served.get("/v1/rollouts/..%2Fsnapshot/decision").status_code == 404
    assert served.get(f"/v1/rollouts/{'a' * 257}").status_code == 400


def test_all_are_listed_without_salts_or_units(served: Any, zoo: Path) -> None:
    answer = served.get("/v1/rollouts").json()
    assert answer["damaged"] == []
    assert {item["rollout"] for item in answer["rollouts"]} == set(EXPECTED)
    one = served.get("/v1/rollouts/going").json()
    assert one in answer["rollouts"]
    assert one["version"] == Workspace(zoo).rollout("going").version
    assert one["stages"][0]["weight"] == 50
    assert "salt" not in json.dumps(answer)


# ---- without the store, and beside it -----------------------------------------------------------


@pytest.fixture
def copied(zoo: Path, tmp_path: Path) -> Path:
    shutil.copytree(zoo, tmp_path / "workspace")
    return tmp_path / "workspace"


def test_states_and_halts_are_told_when_the_store_is_gone(
    copied: Path, serve: Callable[..., Any]
) -> None:
    shutil.rmtree(copied / "store")
    with serve(copied, "--allow-actions-from-loopback") as served:
        going = served.decision("going")
        assert (going["action"], going["weight"]) == ("insufficient_data", 50)
        assert "nothing is published; is the controller running?" in going["reason"]
        assert served.decision("halted")["action"] == "halt"
        assert served.decision("promoted")["action"] == "promote"
        assert served.get("/readyz").json()["store"].startswith("nothing is published")
        assert served.get("/readyz").status_code == 200
        version = served.get("/v1/rollouts/going").json()["version"]
        asked = {"reason": "by hand", "actor": "ann", "expected_version": version}
        assert served.post("/v1/rollouts/going/halt", asked).json()["state"] == "halted"
        assert served.decision("going")["code"] == -1
        snapshot = Snapshot.from_bytes(served.get("/v1/snapshot").content)
        assert snapshot.experiments["x-going"].state == "killed"


def test_a_damaged_store_and_a_damaged_state_file_are_told(
    copied: Path, serve: Callable[..., Any]
) -> None:
    (copied / "store" / "published.duckdb").write_bytes(b"garbage" * 1000)
    (copied / "rollouts" / "going.json").write_text("{")
    with serve(copied) as served:
        assert "the published store cannot be read" in served.decision("scarce")["reason"]
        answer = served.get("/v1/rollouts/going/decision")
        assert answer.status_code == 503
        assert "damaged" in answer.json()["error"]
        assert served.get("/v1/rollouts").json()["damaged"] == ["going"]
        assert "abkit_rollouts_damaged 1" in served.get("/metrics").text


def test_the_writers_lock_is_no_hindrance(copied: Path, serve: Callable[..., Any]) -> None:
    store = next((copied / "store").glob("abkit.duckdb"))
    with duckdb.connect(store), serve(copied) as served:
        assert served.decision("noted")["action"] == "advance"
        assert served.decision("noted")["decision_id"].startswith("sha256:")


def test_a_halt_of_the_controller_is_told_at_once(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    path = tmp_path / "live"
    with Controller(path) as controller, Client(path, poll_seconds=0.0) as client:
        stages = (Stage(name="50 %", share=0.5, min_units=10),)
        controller.workspace.start(
            Rollout.plan("r1", experiment="x", control="old", treatment="new", stages=stages)
        )
        with serve(path) as served:
            assert served.decision("r1")["action"] == "insufficient_data"
            for i in range(400):
                found = client.assign("x", f"unit-{i}")
                client.expose(found)
                client.record(found.unit_id, "error", found.variant == "new")
            controller.tick()
            found = served.decision("r1")
            assert (found["action"], found["weight"]) == ("halt", 0)
