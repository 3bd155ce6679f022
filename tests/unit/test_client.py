"""The client: whatever it is given and wherever it runs, serving goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from abkit.assignment import Assignment
from abkit.client import Client, MemorySink
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.log import LogReader
from abkit.rollout import Rollout, Stage
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_700_000_000.0
ROOT = 0
NOBODY = 65_534


def ranker(**changes: Any) -> Experiment:
    data = {"key": "ranker", "salt": "s", "control": "v1", "variants": {"v1": 0.5, "v2": 0.5}}
    return Experiment.from_dict(data | {"overrides": {"qa": "v2"}} | changes)


def in_memory(*experiments: Experiment, limit: int = 1000) -> tuple[Client, MemorySink]:
    sink = MemorySink(limit)
    client = Client.from_experiments(experiments or [ranker()], sink=sink, clock=lambda: NOW)
    return client, sink


# Without files


def test_five_lines_without_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    client = Client.from_experiments([ranker()])
    assignment = client.assign("ranker", "user-1")
    assert assignment.variant in {"v1", "v2"}
    assert assignment.reason == "split"
    assert client.expose(assignment)
    assert client.record("user-1", "converted", 1.0)
    assert client.flush()
    client.close()
    assert list(tmp_path.iterdir()) == []


def test_events_reach_the_sink_as_they_were() -> None:
    client, sink = in_memory(ranker(epoch=4))
    assignment = client.assign("ranker", 7)
    assert client.expose(assignment)
    assert client.record(7, "latency", 12)
    assert client.record("7", "clicked", value=True)
    assert client.record("u", "score", 0.5, experiment="ranker", variant="v2")
    assert list(sink.records) == [
        ("e", NOW, "ranker", "7", assignment.variant, 4),
        ("o", NOW, "7", "latency", 12.0, "", ""),
        ("o", NOW, "7", "clicked", 1.0, "", ""),
        ("o", NOW, "u", "score", 0.5, "ranker", "v2"),
    ]
    assert [type(record[4]) for record in list(sink.records)[1:]] == [float] * 3
    assert client.health().rejected == {}
    assert client.health().snapshot is None


def test_assigning_logs_nothing() -> None:
    client, sink = in_memory()
    for unit in range(100):
        client.assign("ranker", unit)
    assert not sink.records


def test_two_experiments_with_one_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="two experiments have the key 'ranker'"):
        Client.from_experiments([ranker(), ranker(salt="other")])


@pytest.mark.parametrize(
    ("experiment", "unit", "reason", "variant"),
    [
        ("ranker", "qa", "override", "v2"),
        ("ranker", None, "invalid_unit", "v1"),
        ("ranker", 1.0, "invalid_unit", "v1"),
        ("absent", "u", "unknown_experiment", "control"),
        ("", "u", "unknown_experiment", "control"),
        (None, "u", "unknown_experiment", "control"),
        (["ranker"], "u", "error", "control"),
    ],
)
def test_what_is_amiss_is_the_reason(experiment: Any, unit: Any, reason: str, variant: str) -> None:
    client, sink = in_memory()
    assignment = client.assign(experiment, unit)
    assert (assignment.reason, assignment.variant) == (reason, variant)
    assert not assignment.in_experiment
    assert client.expose(assignment) is False
    assert client.health().rejected["not_in_experiment"] == 1
    assert not sink.records


def test_a_killed_experiment_exposes_nobody() -> None:
    client, sink = in_memory(ranker(state="killed"))
    assert not client.expose(client.assign("ranker", "u"))
    assert not sink.records


@pytest.mark.parametrize("units", [[None, True, 1.0, "", b"u", "\ud800", 10**5000, "x" * 20_000]])
def test_an_outcome_of_no_unit_is_rejected(units: list[Any]) -> None:
    client, sink = in_memory()
    assert not any(client.record(unit, "clicks", 1.0) for unit in units)
    assert client.health().rejected == {"invalid_unit": len(units)}
    assert not sink.records


@pytest.mark.parametrize(
    "metric", ["", "the clicks", "a b", "x" * 65, "a\n", "../x", None, 7, b"clicks"]
)
def test_an_outcome_of_no_metric_is_rejected(metric: Any) -> None:
    client, _ = in_memory()
    assert client.record("u", metric, 1.0) is False
    assert client.health().rejected == {"invalid_metric": 1}


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), float("-inf"), 10**400, "1", None, [1.0], 1j, Decimal(1)],
    ids=lambda value: repr(value)[:10],
)
def test_an_outcome_without_a_finite_number_is_rejected(value: Any) -> None:
    client, _ = in_memory()
    assert client.record("u", "clicks", value) is False
    assert client.health().rejected == {"invalid_value": 1}


@pytest.mark.parametrize(
    ("experiment", "variant", "reason"),
    [
        ("", "v2", "variant_without_experiment"),
        ("the ranker", "v2", "invalid_variant"),
        ("ranker", "v 2", "invalid_variant"),
        ("ranker", "v" * 65, "invalid_variant"),
        (1, 2, "invalid_variant"),
        (["ranker"], ["v2"], "invalid_variant"),
        ("\ud800", "v2", "invalid_variant"),
    ],
)
def test_a_shadow_outcome_needs_the_names_of_both(
    experiment: Any, variant: Any, reason: str
) -> None:
    client, sink = in_memory()
    assert client.record("u", "m", 1.0, experiment=experiment, variant=variant) is False
    assert client.health().rejected == {reason: 1}
    assert not sink.records


@pytest.mark.parametrize("thing", [None, 7, "ranker", object(), ("ranker", "u"), {}])
def test_what_is_no_assignment_is_not_exposed(thing: Any) -> None:
    client, sink = in_memory()
    assert client.expose(thing) is False
    assert client.health().rejected == {"expose_error": 1}
    assert not sink.records


def test_reasons_add_up() -> None:
    client, _ = in_memory()
    for value in (float("nan"), "1", None):
        client.record("u", "clicks", value)  # type: ignore[arg-type]
    client.record("", "clicks", 1.0)
    assert client.health().rejected == {"invalid_value": 3, "invalid_unit": 1}


def test_a_full_sink_drops_the_newest_and_counts_them_by_variant() -> None:
    client, sink = in_memory(limit=2)
    assignments = [client.assign("ranker", unit) for unit in range(10)]
    assert [client.expose(item) for item in assignments] == [True] * 2 + [False] * 8
    assert [record[3] for record in sink.records] == ["0", "1"]
    counts = client.health().events
    assert (counts.accepted, counts.written, sum(counts.dropped.values())) == (10, 2, 8)
    expected = Counter(("ranker", item.variant, "queue_full") for item in assignments[2:])
    assert counts.dropped == expected
    assert client.health().rejected == {}, "a drop is the sink's to count"


def test_health_is_a_copy() -> None:
    client, _ = in_memory()
    before = client.health()
    client.record("", "clicks", 1.0)
    assert before.rejected == {}


def broken() -> NoReturn:
    raise ZeroDivisionError


def test_a_clock_that_fails_costs_the_event_and_no_request() -> None:
    client = Client.from_experiments([ranker()], clock=broken)
    assert client.expose(client.assign("ranker", "u")) is False
    assert client.record("u", "clicks", 1.0) is False
    assert client.health().rejected == {"expose_error": 1, "record_error": 1}


class BrokenSink(MemorySink):
    def append(self, *_: object) -> NoReturn:
        broken()


def test_a_sink_that_fails_costs_the_event_and_no_request() -> None:
    client = Client.from_experiments([ranker()], sink=BrokenSink())
    assert client.expose(client.assign("ranker", "u")) is False
    assert client.record("u", "clicks", 1.0) is False
    assert client.health().rejected == {"expose_error": 1, "record_error": 1}


# Hostile input


class Loud:
    """Raises whatever is done to it, even when asked for its class."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise ZeroDivisionError

    @property
    def __class__(self) -> type:
        raise ZeroDivisionError

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise ZeroDivisionError

    def _raise(self, *_: object) -> NoReturn:
        raise ZeroDivisionError

    __str__ = __repr__ = __hash__ = __eq__ = __len__ = __bool__ = _raise  # type: ignore[assignment]
    __int__ = __float__ = __index__ = __iter__ = __getitem__ = __call__ = _raise


class LoudText(str):
    __slots__ = ()
    __str__ = __repr__ = __hash__ = __eq__ = __len__ = __bool__ = broken  # type: ignore[assignment]
    encode = __iter__ = __format__ = broken  # type: ignore[assignment]


class LoudFloat(float):
    __str__ = __repr__ = __hash__ = __eq__ = __float__ = __bool__ = broken  # type: ignore[assignment]


def nested(depth: int) -> list[Any]:
    inside: list[Any] = []
    for _ in range(depth):
        inside = [inside]
    return inside


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
HOSTILE: list[Any] = [
    None, True, 0, -1, 10**400, 10**5000, 1.5, float("nan"), float("inf"), 1j, Decimal(3),
    b"\xff", bytearray(3), "", "ranker", "clicks", "v2", "u", "x" * 200_000, "x" * 10_000_000,
    "\ud800", "a\x00b", "'; drop table e; --", "../../etc/passwd", "<script>", "\u202e\u0301",
    nested(1), nested(50), nested(5000), CIRCLE, {"a": 1}, {1, 2}, ("e", 1), object(), Loud(), Loud,
    LoudText("ranker"), LoudText("u"), LoudFloat(2.0), broken, Assignment, Exception("x"),
]  # fmt: skip
ODD_CHARACTERS = [chr(code) for code in (0, 10, 34, 39, 58, 0x301, 0xD800, 0xDFFF, 0x1F680)]


def hostile(rng: random.Random) -> Any:
    if rng.random() < 0.2:
        return "".join(rng.choices(ODD_CHARACTERS, k=rng.choice((1, 3, 300))))
    return rng.choice(HOSTILE)


@pytest.mark.parametrize("place", ["memory", "workspace"])
def test_a_thousand_hostile_inputs_never_raise(place: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    if place == "memory":
        client, _ = in_memory()
    else:
        Workspace(tmp_path / "ws").publish(ranker())
        client = Client(tmp_path / "ws")
    good = client.assign("ranker", "user")
    assert good.reason == "split"
    for _ in range(1000):
        assignment = client.assign(hostile(rng), hostile(rng))
        assert isinstance(assignment.variant, str)
        assert client.assign("ranker", hostile(rng)).variant in {"v1", "v2"}
        forged = rng.choice([assignment, good._replace(unit_id=hostile(rng)), hostile(rng)])
        results = [
            client.expose(forged),
            client.record(hostile(rng), hostile(rng), hostile(rng)),
            client.record("u", "clicks", hostile(rng)),
            client.record(
                hostile(rng), "clicks", 1.0, experiment=hostile(rng), variant=hostile(rng)
            ),
        ]
        assert all(type(result) is bool for result in results)
    health = client.health()
    assert {"invalid_unit", "invalid_metric", "invalid_value", "not_in_experiment"} <= set(
        health.rejected
    )
    assert health.events.accepted == health.events.written + sum(health.events.dropped.values())
    assert client.expose(good)
    assert client.record("user", "clicks", 1.0)
    client.close()
    if place == "workspace":
        chunk = LogReader(tmp_path / "ws" / "log").read({})
        assert len(chunk) == client.health().events.written
        assert chunk.damages == []
        json.dumps([record for _, _, record in chunk.rows()], allow_nan=False)


# In a workspace


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_a_flip_is_reached_within_one_poll(tmp_path: Path) -> None:
    workspace, clock = Workspace(tmp_path / "ws"), Clock()
    client = Client(workspace.path, poll_seconds=0.5, monotonic=clock)
    assert client.assign("ranker", "u").reason == "no_snapshot"
    plan = Rollout.plan(
        "v2-out",
        experiment="ranker",
        control="v1",
        treatment="v2",
        stages=(Stage(name="all", mode="switch", share=1.0),),
    )
    moves = [
        (lambda: workspace.start(plan), ("v2", "split")),
        (lambda: workspace.halt("v2-out", reason="r", actor="a"), ("v1", "killed")),
    ]
    before = client.assign("ranker", "u")
    for version, (move, expected) in enumerate(moves, 1):
        move()
        clock.now += 0.499
        assert client.assign("ranker", "u") == before
        clock.now += 0.001
        before = client.assign("ranker", "u")
        assert (before.variant, before.reason) == expected
        health = client.health().snapshot
        assert health is not None
        assert before.version == health.version == version
        assert before.snapshot == health.checksum != ""


def test_a_flip_is_reached_in_real_time(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    workspace.publish(ranker())
    client = Client(workspace.path, poll_seconds=0.05)
    assert client.assign("ranker", "u").reason == "split"
    workspace.publish(ranker(state="killed"))
    deadline = time.monotonic() + 5
    while client.assign("ranker", "u").reason != "killed":
        assert time.monotonic() < deadline
    snapshot = client.health().snapshot
    assert snapshot is not None
    assert snapshot.age_seconds is not None
    assert 0 <= snapshot.age_seconds < 5


def test_a_damaged_snapshot_keeps_the_last_good_one_and_is_counted(tmp_path: Path) -> None:
    workspace, clock = Workspace(tmp_path / "ws"), Clock()
    workspace.publish(ranker())
    client = Client(workspace.path, monotonic=clock)
    before = client.assign("ranker", "u")
    workspace.snapshot_path.write_bytes(b"<html>")
    clock.now += 1
    assert client.assign("ranker", "u") == before
    snapshot = client.health().snapshot
    assert snapshot is not None
    assert snapshot.errors == 1
    assert "not valid JSON" in snapshot.last_error


def use(client: Client) -> None:
    """Everything that serving code calls."""
    for unit in range(20):
        assignment = client.assign("ranker", unit)
        assert assignment.variant == "control"
        assert client.expose(assignment) is False
        assert client.record(unit, "clicks", 1.0) in {True, False}
    assert client.flush() in {True, False}
    health = client.health()
    assert health.snapshot is not None
    assert health.snapshot.last_error
    assert health.snapshot.last_error
    counts = health.events
    assert counts.accepted == 20
    assert counts.accepted == counts.written + sum(counts.dropped.values())
    client.close()


def test_an_absent_workspace_never_raises_and_is_made_by_the_first_event(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "ws"
    client = Client(folder)
    client.assign("ranker", "u")
    assert not folder.exists()
    use(client)
    assert len(LogReader(folder / "log").read({})) == client.health().events.written == 20


def test_a_file_in_the_place_of_the_workspace_never_raises(tmp_path: Path) -> None:
    file = tmp_path / "ws"
    file.write_bytes(b"keep")
    client = Client(file)
    use(client)
    assert file.read_bytes() == b"keep"
    assert client.health().events.dropped == {("", "", "ENOTDIR"): 20}


def test_files_in_the_place_of_its_folders_never_raise(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    (tmp_path / "snapshot.json").mkdir()
    client = Client(tmp_path)
    use(client)
    assert sum(client.health().events.dropped.values()) == 20


@pytest.mark.parametrize("name", ["a\x00b", "x" * 300, "\udcff"])
def test_a_workspace_with_an_impossible_name_never_raises(tmp_path: Path, name: str) -> None:
    use(Client(tmp_path / name))


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder that this process can't write to, whoever runs the tests."""
    # Not tmp_path: its parents are closed to everybody but the owner.
    folder = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == ROOT
    try:
        folder.chmod(0o555)
        if is_root:
            os.seteuid(NOBODY)
        yield folder
    finally:
        if is_root:
            os.seteuid(ROOT)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_read_only_workspace_never_raises() -> None:
    with read_only_folder() as folder:
        client = Client(folder)
        use(client)
        counts = client.health().events
        assert counts.dropped == {("", "", "EACCES"): 20}
        assert counts.last_error == "EACCES"
        assert list(folder.iterdir()) == []


def test_a_log_that_cannot_be_written_costs_no_assignment(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    workspace.publish(ranker())
    workspace.log_path.rmdir()
    workspace.log_path.write_bytes(b"")
    with Client(workspace.path) as client:
        for unit in range(20):
            assignment = client.assign("ranker", unit)
            assert assignment.reason == "split"
            assert client.expose(assignment) is False
        dropped = client.health().events.dropped
    assert sum(dropped.values()) == 20
    assert {variant for _, variant, _ in dropped} == {"v1", "v2"}, "counted by variant"


def test_durability_that_is_none_is_refused_when_the_client_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"durability must be one of .* got 'fast'"):
        Client(tmp_path, durability="fast")  # type: ignore[arg-type]


def test_serving_starts_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with Client(tmp_path / "ws") as client:
        for unit in range(100):
            client.record(unit, "clicks", 1.0)
        assert threading.active_count() == before


LOGGING = """
import sys, time
from pathlib import Path
import abkit
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
client = abkit.Client(folder / "ws")
(folder / f"ready-{name}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.001)
taken = 0
for number in range(count):
    unit = f"{name}-{number}"
    assignment = client.assign("ranker", unit)
    taken += client.expose(assignment)
    taken += client.record(unit, "clicks", float(number))
print(taken, client.health().events.writer_id, flush=True)
if name == "killed":
    time.sleep(60)  # neither flushed nor closed
client.close()
"""


def test_two_processes_log_into_one_workspace_and_every_event_is_readable(tmp_path: Path) -> None:
    """One of them is killed with no chance to flush: what was acknowledged is there."""
    Workspace(tmp_path / "ws").publish(ranker())
    count = 1000
    workers = {
        name: subprocess.Popen(
            [sys.executable, "-c", LOGGING, str(tmp_path), name, str(count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("closed", "killed")
    }
    said = {}
    for name, worker in workers.items():
        assert worker.stdout is not None
        said[name] = worker.stdout.readline().split()
    workers["killed"].send_signal(signal.SIGKILL)
    for worker in workers.values():
        worker.communicate(timeout=20)
    assert {name: int(taken) for name, (taken, _) in said.items()} == dict.fromkeys(said, 2 * count)

    chunk = LogReader(tmp_path / "ws" / "log").read({})
    assert (chunk.gaps, chunk.losses, chunk.damages) == ([], [], [])
    by_writer: dict[str, list[tuple[int, list[Any]]]] = {}
    for writer, sequence, record in chunk.rows():
        by_writer.setdefault(writer, []).append((sequence, record))
    assert set(by_writer) == {writer for _, writer in said.values()}
    check = Client.from_experiments([ranker()])
    for name, (_, writer) in said.items():
        rows = by_writer[writer]
        assert [sequence for sequence, _ in rows] == list(range(1, 2 * count + 1))
        for number in range(count):
            unit = f"{name}-{number}"
            exposure, outcome = rows[2 * number][1], rows[2 * number + 1][1]
            variant = check.assign("ranker", unit).variant
            assert exposure[:1] + exposure[2:] == ["e", "ranker", unit, variant, 1]
            assert outcome[:1] + outcome[2:] == ["o", unit, "clicks", float(number), "", ""]


def test_the_default_is_served_when_the_experiment_is_unknown() -> None:
    client = Client.from_experiments([])
    found = client.assign("ranker", 7, default="teacher")
    assert (found.variant, found.reason, found.unit_id) == ("teacher", "unknown_experiment", "7")
