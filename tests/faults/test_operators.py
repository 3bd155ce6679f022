"""Operators, followers and callers under fire: one wins, all are told, and nobody waits."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

import pytest

from abkit import machine
from abkit.assignment import Reason
from abkit.client import Client
from abkit.errors import TransitionError
from abkit.experiment import Experiment
from abkit.follow import Follower
from abkit.log import LogReader
from abkit.rollout import Rollout, Stage
from abkit.snapshot import Snapshot, write_atomically
from abkit.snapshot_server import serve_snapshot
from abkit.trail import read_head, verify
from abkit.workspace import Workspace
from tests.faults.injected import run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Account

REASONS = set(get_args(Reason))


def make(version: int) -> Snapshot:
    experiment = Experiment.create("ranker", {"old": 0.5, "new": 0.5}, salt="s")
    return Snapshot.of([experiment], version=version, published=float(version))


def plan(key: str, experiment: str = "ranker") -> Rollout:
    stages = (Stage(name="half", share=0.5, min_units=10),)
    return Rollout.plan(
        key, experiment=experiment, control="old", treatment="new", stages=stages, salt="s"
    )


def operate(path: str, name: str, rounds: int, barrier: Any, results: Any) -> None:
    """One of two operators, who press their buttons at the same moment."""
    workspace, won = Workspace(path), []
    for number in range(rounds):
        before = workspace.rollout(f"r{number}")
        moved = (machine.halt if number % 2 else machine.hold)(
            before, now=1.0, reason=name, actor=name
        )
        barrier.wait()
        try:
            workspace.put(moved, expected_version=before.version)
        except TransitionError:
            continue
        won.append(number)
    results.put((name, won))


@pytest.mark.fault("two operators at once")
def test_of_two_operators_at_once_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    rounds, workspace = 40, Workspace(tmp_path / "workspace")
    for number in range(rounds):
        workspace.start(plan(f"r{number}", f"exp-{number}"))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    people = [
        context.Process(target=operate, args=(str(workspace.path), name, rounds, barrier, results))
        for name in ("ann", "bob")
    ]
    for person in people:
        person.start()
    won = dict(results.get(timeout=60) for _ in people)
    for person in people:
        person.join()
    results.close()
    results.join_thread()
    assert sorted(won["ann"] + won["bob"]) == list(range(rounds)), "one winner each"
    for number in range(rounds):
        stored = workspace.rollout(f"r{number}")
        assert stored.actor == ("ann" if number in won["ann"] else "bob")
        assert stored.state == ("halted" if number % 2 else "hold")
    snapshot = workspace.snapshot()
    assert snapshot is not None
    killed = {key for key, item in snapshot.experiments.items() if item.state == "killed"}
    assert killed == {f"exp-{number}" for number in range(1, rounds, 2)}


HALTING = """
import sys
for name in ("duckdb", "pyarrow", "numpy", "pandas"): sys.modules[name] = None
from abkit.workspace import Workspace
Workspace(sys.argv[1]).halt("r", reason="it burns", actor="ann")
"""


@pytest.mark.fault("halt with DuckDB gone")
@pytest.mark.parametrize("store", ["gone", "a file", "locked", "full of noise"])
def test_a_halt_needs_no_duckdb_and_reaches_workers_within_a_poll(
    tmp_path: Path, store: str
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    workspace.start(plan("r"))
    now = [0.0]
    with Client(workspace.path, monotonic=lambda: now[0]) as ab:
        units = [f"unit-{number}" for number in range(200)]
        assert {ab.variant("ranker", unit) for unit in units} == {"old", "new"}
        if store in {"gone", "a file"}:
            workspace.store_path.rmdir()
        if store == "a file":
            workspace.store_path.touch()
        if store == "full of noise":
            (workspace.store_path / "abkit.duckdb").write_bytes(os.urandom(9_000))
        with holding(workspace.store_path / "abkit.duckdb", is_held=store == "locked"):
            run(sys.executable, "-c", HALTING, workspace.path)
        now[0] += 0.5
        assert {ab.variant("ranker", unit) for unit in units} == {"old"}


@contextmanager
def holding(path: Path, *, is_held: bool) -> Iterator[None]:
    if not is_held:
        yield
        return
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(path):
        yield


@pytest.mark.fault("audit tampering")
def test_a_changed_or_cut_audit_log_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABKIT_AUDIT_KEY", "a key of this test alone")
    monkeypatch.setenv("ABKIT_AUDIT_HEAD", str(tmp_path / "head.json"))
    workspace = Workspace(tmp_path / "workspace")
    workspace.start(plan("r"))
    for verb in ("hold", "resume", "halt"):
        workspace.act("r", verb, reason="by hand", actor="ann")
    log, heads = workspace.path / "audit" / "log.jsonl", [read_head(tmp_path / "head.json")]
    content = log.read_bytes()
    one, two, three, four = content.splitlines(keepends=True)
    assert verify(workspace.path, heads=heads, items=workspace.standing()).passed
    monkeypatch.setenv("ABKIT_AUDIT_KEY", "another key, of whoever forges")
    forged = Workspace(tmp_path / "forged")
    forged.start(plan("r"))
    foreign = (forged.path / "audit" / "log.jsonl").read_bytes()
    monkeypatch.setenv("ABKIT_AUDIT_KEY", "a key of this test alone")
    tampered = {
        "another actor": content.replace(b"ann", b"bob"),
        "a line removed": one + three + four,
        "two lines swapped": one + three + two + four,
        "a line twice": one + two + two + three + four,
        "the first line removed": two + three + four,
        "the tail cut": one + two + three,
        "the tail cut in mid-line": content[:-9],
        "all of it gone": b"",
        "forged with another key": foreign + two + three + four,
        "signed by nobody": content.replace(b'"key_id":"', b'"key_id":"","was":"'),
    }
    for what, changed in tampered.items():
        log.write_bytes(changed)
        assert verify(workspace.path, heads=heads).problems, what
    for place in range(0, len(content), 7):
        log.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert verify(workspace.path).problems, place


# Many followers, and a server that is slow


@pytest.mark.fault("200 clients polling a slow server")
def test_two_hundred_clients_of_a_slow_server_keep_serving_and_follow_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests read a local file; only followers wait for the server, each as long as it may."""
    published = tmp_path / "published.json"
    write_atomically(published, make(1).to_bytes())
    slow = threading.Event()
    slow.set()

    with serve_snapshot(published, port=0, timeout_seconds=5.0) as server:
        address = f"{server.url}/v1/snapshot"
        followers, clients = [], []
        for number in range(200):
            folder = tmp_path / f"host-{number}"
            folder.mkdir()
            write_atomically(folder / "snapshot.json", make(1).to_bytes())
            followers.append(Follower(address, folder / "snapshot.json", timeout_seconds=10.0))
            clients.append(Client(folder, poll_seconds=0.0))
        answer = type(server)._answer

        def late(self: Any, request: Any) -> Any:
            if slow.is_set():
                time.sleep(0.02)  # the one thread of the server: they all queue behind it
            return answer(self, request)

        monkeypatch.setattr(type(server), "_answer", late)
        write_atomically(published, make(2).to_bytes())
        statuses: list[str] = []
        threads = [
            threading.Thread(target=lambda f=follower: statuses.append(f.poll().status))
            for follower in followers
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for ab in clients[:20]:
                found = ab.assign("ranker", "unit")
                assert (found.reason, found.version in {1, 2}) == ("split", True)
            time.sleep(0.01)
        slow.clear()
        assert set(statuses) <= {"new", "unreachable"}, set(statuses)
        for follower in followers:
            wait_for(lambda f=follower: f.poll().version == 2)
    assert {ab.assign("ranker", "unit").version for ab in clients} == {2}
    for ab in clients:
        ab.close()


# Hostile units


class Raising:
    """Raises whatever it is asked."""

    def __str__(self) -> str:
        raise RuntimeError("str")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")


def deep(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


HOSTILE: dict[str, Any] = {
    "surrogates": "\ud800\udfff",
    "nul": "a\x00b",
    "nan": float("nan"),
    "huge number": 10**400,
    "10 MB": "x" * 10_000_000,
    "deep list": deep(5_000),
    "raising": Raising(),
    "bytes": b"\xff\xfe",
    "nothing": None,
    "empty": "",
    "bidi": "\u202euser\u2066",
    "sql": "'; DROP TABLE exposure; --",
    "path": "../../../etc/passwd",
    "frame": "\u00ffABL\x01\x01",
}


@pytest.mark.fault("hostile ids")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ids_get_a_variant_and_harm_no_other_event(
    tmp_path: Path, account: Account, name: str
) -> None:
    write_atomically(tmp_path / "snapshot.json", make(1).to_bytes())
    thing = HOSTILE[name]
    accepted = 0
    with Client(tmp_path) as ab:
        for unit in ("before", thing, "after"):
            found = ab.assign("ranker", unit, {"country": thing, "age": thing})
            assert found.reason in REASONS
            assert found.variant in {"old", "new", "control"}
            accepted += ab.expose(found)
            accepted += ab.record(unit, "clicks", 1.0)
            ab.record("before", "clicks", thing)
            ab.record(unit, thing, thing, experiment=thing, variant=thing)
            ab.assign(thing, unit, thing)
            ab.variant(thing, thing, thing)
        ab.flush()
        counts = ab.health().events
    chunk = LogReader(tmp_path / "log").read({})
    assert chunk.damages == []
    units = {record[3] if record[0] == "e" else record[1] for _, _, record in chunk.rows()}
    assert units >= {"before", "after"}
    assert len(chunk) == counts.written >= accepted
    account(
        accepted=counts.accepted, stored=len(chunk), dropped=sum(gap.count for gap in chunk.gaps)
    )
