"""Configuration and operators under fire: what serves goes on serving, and says why."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest

from abkit.assignment import Reason
from abkit.client import Client
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment
from abkit.log import LogReader
from abkit.snapshot import Snapshot, SnapshotSource, _checksum, write_atomically
from tests.faults.injected import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Account

REASONS = set(get_args(Reason))
SHARES = {"old": 0.5, "new": 0.5}


def make(version: int, key: str = "ranker") -> Snapshot:
    """A snapshot whose experiment tells its version."""
    experiments = [
        replace(Experiment.create(name, SHARES, salt="s"), epoch=version)
        for name in (key, "search")
    ]
    return Snapshot.of(experiments, version=version, published=float(version))


# What may stand in the place of a snapshot


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def reshaped(**changes: Any) -> bytes:
    """A snapshot with another body, and a checksum that fits it."""
    document = json.loads(make(9).to_bytes())
    document["body"] |= changes
    document["checksum"] = _checksum(document["body"])
    return json.dumps(document).encode()


GARBAGE = {
    "nothing": b"",
    "html": b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
    "noise": random.Random(1).randbytes(5_000),
    "zeros": bytes(4_096),
    "half": make(9).to_bytes()[:200],
    "text": b"not found",
    "pickle": b"\x80\x04\x95\x00",
    "utf-16": json.dumps({"schema": "x"}).encode("utf-16"),
}
SHAPES = {
    "list": b"[]",
    "number": b"17",
    "no body": b'{"schema": "abkit.snapshot/v1"}',
    "duplicate key": make(9).to_bytes().replace(b'"version"', b'"version": 3, "version"', 1),
    "two experiments of one key": reshaped(
        experiments=json.loads(make(9).to_bytes())["body"]["experiments"] * 2
    ),
    "yaml aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "deep nesting": nested(100_000),
    "deep nesting within": b'{"schema": "abkit.snapshot/v1", "body": ' + nested(50_000) + b"}",
    "experiments are a dict": reshaped(experiments={}),
    "an experiment is a list": reshaped(experiments=[[]]),
    "version is text": reshaped(version="9"),
    "version is negative": reshaped(version=-1),
    "time is nan": reshaped(published=float("nan")),
    "later schema": make(9).to_bytes().replace(b"snapshot/v1", b"snapshot/v9"),
}


def serves(ab: Client, version: int, *, default: str = "safe") -> None:
    """It answers, without raising, from the snapshot of this version, or with the default."""
    found = ab.assign("ranker", "unit-1", default=default)
    assert found.reason in REASONS
    if version:
        expected = compile_experiment(make(version).experiments["ranker"])("unit-1", None)
        assert (found.variant, found.epoch) == (expected.variant, version)
    else:
        assert (found.variant, found.reason) == (default, "no_snapshot")


@pytest.mark.fault("config missing")
def test_without_a_configuration_the_default_serves_until_there_is_one(tmp_path: Path) -> None:
    with Client(tmp_path / "workspace", poll_seconds=0.0) as ab:
        serves(ab, 0)
        (tmp_path / "workspace").mkdir(exist_ok=True)
        write_atomically(tmp_path / "workspace" / "snapshot.json", make(1).to_bytes())
        serves(ab, 1)
        (tmp_path / "workspace" / "snapshot.json").unlink()
        serves(ab, 1)
        assert ab.health().snapshot.errors > 0  # type: ignore[union-attr]


@pytest.mark.fault("config missing")
def test_without_a_configuration_the_packaged_one_serves(tmp_path: Path) -> None:
    packaged = tmp_path / "packaged.json"
    packaged.write_bytes(make(3).to_bytes())
    with Client(tmp_path / "workspace", fallback=packaged) as ab:
        serves(ab, 3)
        assert ab.health().snapshot.origin == "fallback"  # type: ignore[union-attr]


def check_bad(folder: Path, content: bytes) -> None:
    path = folder / "snapshot.json"
    path.write_bytes(content)
    with Client(folder, poll_seconds=0.0) as ab:
        serves(ab, 0)  # a start on it
        write_atomically(path, make(1).to_bytes())
        serves(ab, 1)
        path.write_bytes(content)  # and a change to it
        serves(ab, 1)
        health = ab.health().snapshot
        assert health is not None
        assert health.errors >= 2
        assert health.last_error
        write_atomically(path, make(2).to_bytes())
        serves(ab, 2)


@pytest.mark.fault("config is garbage or HTML")
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_never_replaces_a_good_configuration(tmp_path: Path, name: str) -> None:
    check_bad(tmp_path, GARBAGE[name])


@pytest.mark.fault("config of the wrong shape, duplicate keys, aliases, deep nesting")
@pytest.mark.parametrize("name", SHAPES)
def test_a_wrong_shape_never_replaces_a_good_configuration(tmp_path: Path, name: str) -> None:
    check_bad(tmp_path, SHAPES[name])


@pytest.mark.fault("config torn during reload (1,000 rewrites, 8 threads)")
def test_a_thousand_rewrites_under_eight_threads_are_never_seen_torn(tmp_path: Path) -> None:
    path, rewrites = tmp_path / "snapshot.json", 1_000
    write_atomically(path, make(1).to_bytes())
    source = SnapshotSource(path, poll_seconds=0.0)  # one, as in a process with threads
    is_over, faults, reads = threading.Event(), [], [0] * 8

    def read(index: int) -> None:
        while not is_over.is_set():
            table = source.table()
            arms = [table[key]("unit", None) for key in ("ranker", "search")]
            versions = {arm.version for arm in arms} | {arm.epoch for arm in arms}
            if len(versions) != 1:
                faults.append(f"mixed {versions}")
            reads[index] += 1
            time.sleep(0.001)

    threads = [threading.Thread(target=read, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for version in range(2, rewrites + 2):
        # Every other time not atomically: half a file stands there for a moment.
        content = make(version).to_bytes()
        if version % 2:
            path.write_bytes(content[: version % len(content)])
        write_atomically(path, content)
    wait_for(lambda: source.snapshot() is not None and source.snapshot().version == rewrites + 1)  # type: ignore[union-attr]
    is_over.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert min(reads) > 0


SERVING = """
import json, os, sys, time
import abkit
folder, number = sys.argv[1], int(sys.argv[2])
ab = abkit.Client(folder, poll_seconds=0.01)
answers, newest, count = [], 0, 0
while newest < int(sys.argv[3]):
    count += 1
    unit = f"{number}-{count}"
    found = ab.assign("ranker", unit)
    assert found.reason == "split", found
    assert found.version >= newest, "never back"
    newest = found.version
    assert ab.expose(found)
    answers.append([unit, found.variant, found.epoch])
    time.sleep(0.0005)
ab.close()
print(json.dumps(answers))
"""


@pytest.mark.fault("flips under load (4 processes)")
def test_flips_under_load_change_who_gets_what_and_nothing_else(
    tmp_path: Path, account: Account
) -> None:
    folder, flips = tmp_path / "workspace", 60
    folder.mkdir()
    experiments = {
        epoch: replace(Experiment.create("ranker", SHARES, salt=f"s{epoch}"), epoch=epoch)
        for epoch in range(1, flips + 1)
    }
    publish(folder, experiments[1])
    command = [sys.executable, "-c", SERVING, str(folder)]
    processes = [
        subprocess.Popen([*command, str(number), str(flips)], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    wait_for(lambda: len(list(folder.glob("log/*/*"))) == 4)
    for epoch in range(2, flips + 1):
        publish(folder, experiments[epoch])
        time.sleep(0.01)
    answers = []
    for process in processes:
        answers += json.loads(process.communicate(timeout=60)[0])
        assert process.returncode == 0
    choose = {epoch: compile_experiment(item) for epoch, item in experiments.items()}
    for unit, variant, epoch in answers:
        assert choose[epoch](unit, None).variant == variant
    assert len({epoch for _, _, epoch in answers}) > 10
    chunk = LogReader(folder / "log").read({}, max_records=10**9)
    logged = sorted([record[3], record[4], record[5]] for _, _, record in chunk.rows())
    assert logged == sorted(answers)
    assert [*chunk.gaps, *chunk.damages] == []
    account(accepted=len(answers), stored=len(chunk))


def publish(folder: Path, experiment: Experiment) -> None:
    content = Snapshot.of([experiment], version=experiment.epoch, published=0.0).to_bytes()
    write_atomically(folder / "snapshot.json", content)
