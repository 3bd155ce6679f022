"""Readers beside the ingester: no error, no lock, never a torn state; and how fresh they are."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from abkit.controller import Controller
from abkit.errors import StoreError
from abkit.log import SegmentWriter
from abkit.store.connect import open_published
from abkit.store.ingest import Ingester
from abkit.store.reader import StoreReader
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

PUBLICATIONS = 200
READERS = 2
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["abkit.store.ingest"])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "ws")
    workspace.create()
    return workspace


def event(number: int) -> tuple[object, ...]:
    return ("e", 1.7e9 + number, "ranker", f"unit-{number}", "new", 1)


def read_on(
    path: str, stop: Event, results: multiprocessing.Queue[tuple[int, int, list[str]]]
) -> None:
    """Read without a pause; tell how often, how many states were seen, and what was wrong."""
    reader, wrong, seen, reads = StoreReader(path), [], 0, 0
    states: set[int] = set()
    while not stop.is_set():
        try:
            with open_published(os.path.join(path, "store", "published.duckdb")) as connection:  # noqa: PTH118
                (stored,) = connection.execute("SELECT sum(stored)::BIGINT FROM writer").fetchone()
                (tallied,) = connection.execute("SELECT sum(stored)::BIGINT FROM tally").fetchone()
                (traffic,) = connection.execute("SELECT sum(exposures) FROM traffic").fetchone()
            if not stored == tallied == traffic:
                wrong.append(f"torn: {stored}, {tallied}, {traffic}")
            if stored < seen:
                wrong.append(f"back from {seen} to {stored}")
            seen = stored
            states.add(stored)
            (writer,) = reader.writers()
            if writer.unexplained:
                wrong.append(f"unexplained: {writer}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test looks for
            wrong.append(f"{type(error).__name__}: {error}")
        reads += 1
    results.put((reads, len(states), wrong[:5]))


def test_readers_in_other_processes_never_notice_the_publisher(workspace: Workspace) -> None:
    stop, results = SPAWN.Event(), SPAWN.Queue()
    with SegmentWriter(workspace.log_path) as writer, Ingester(workspace) as ingester:
        writer.append(event(0))
        ingester.ingest()
        ingester.publish()
        readers = [
            SPAWN.Process(target=read_on, args=(str(workspace.path), stop, results))
            for _ in range(READERS)
        ]
        for process in readers:
            process.start()
        for number in range(1, PUBLICATIONS + 1):
            writer.append(event(number))
            assert ingester.ingest().events == 1
            ingester.publish()
        stop.set()
        found = [results.get(timeout=60) for _ in readers]
        for process in readers:
            process.join()
    print([f"{reads} reads of {states} states" for reads, states, _ in found])  # noqa: T201 - the figures are wanted
    assert [wrong for _, _, wrong in found] == [[]] * READERS
    assert all(reads > 1 and states > 1 for reads, states, _ in found)


def test_a_reader_in_the_same_process_sees_each_publication_while_another_reads(
    workspace: Workspace,
) -> None:
    path = workspace.store_path / "published.duckdb"
    with SegmentWriter(workspace.log_path) as writer, Ingester(workspace) as ingester:
        ingester.publish()
        with open_published(path) as held:
            for number in range(1, 6):
                writer.append(event(number))
                ingester.ingest()
                ingester.publish()
                (counts,) = StoreReader(workspace.path).writers()
                assert counts.stored == number
            assert held.execute("SELECT count(*) FROM writer").fetchone() == (0,)


def test_reconciliation_adds_up_at_any_moment_beside_writers_and_ingester(
    workspace: Workspace,
) -> None:
    stop = threading.Event()

    def write() -> None:
        with SegmentWriter(workspace.log_path, segment_bytes=20_000) as writer:
            number = 0
            while not stop.is_set():
                number += 1
                writer.append(() if number % 50 == 0 else event(number), "ranker", "new")
                if number % 10 == 0:
                    time.sleep(0.01)

    threads = [threading.Thread(target=write) for _ in range(2)]
    waited = 0
    with Ingester(workspace) as ingester:
        for thread in threads:
            thread.start()
        try:
            for turn in range(15):
                if turn % 3 == 0:
                    ingester.ingest()
                if turn % 3 == 1:
                    ingester.publish()
                found = reconcile(workspace.path)
                assert found.balanced, found.writers
                waited += found.total.waiting
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        ingester.ingest()
        ingester.publish()
    found = reconcile(workspace.path)
    assert found.balanced
    assert found.total.waiting == 0
    assert found.total.dropped > 0
    assert waited > 0


def test_a_question_that_takes_too_long_is_interrupted(workspace: Workspace) -> None:
    with Ingester(workspace) as ingester:
        ingester.publish()
    path = workspace.store_path / "published.duckdb"
    endless = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    with (
        pytest.raises(StoreError, match=r"took more than 0\.05 s"),
        open_published(path, timeout_seconds=0.05) as connection,
    ):
        connection.execute(endless).fetchall()
    with open_published(path) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    before = threading.active_count()
    for _ in range(5):
        StoreReader(workspace.path).writers()
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    "statement",
    [
        "ATTACH '/tmp/x.duckdb'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "FROM read_csv('/etc/passwd')",
        "FROM '/etc/passwd'",
        "SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CREATE TABLE published.x (y INTEGER)",
        "DELETE FROM writer",
        "DROP TABLE writer",
    ],
)
def test_a_reader_can_do_nothing_but_read(workspace: Workspace, statement: str) -> None:
    with Ingester(workspace) as ingester:
        ingester.publish()
    secret = 1  # a variable that a query must not see
    assert secret
    path = workspace.store_path / "published.duckdb"
    with pytest.raises(StoreError, match="cannot read"), open_published(path) as connection:
        connection.execute(statement)
    with pytest.raises(StoreError, match="cannot read"), open_published(path) as connection:
        connection.execute("SELECT * FROM secret")


def test_how_long_an_event_takes_to_be_seen(workspace: Workspace) -> None:
    """Measured and printed; no assertion about speed beyond that it arrives."""
    stop = threading.Event()

    def control() -> None:
        with Controller(workspace) as controller:
            controller.run(interval_seconds=1.0, stop=stop.is_set)

    thread = threading.Thread(target=control)
    took: list[float] = []
    with SegmentWriter(workspace.log_path) as writer:
        thread.start()
        try:
            for number in range(1, 5):
                started = time.monotonic()
                writer.append(event(number))
                while time.monotonic() - started < 60:
                    if _stored(workspace) == number:
                        break
                    time.sleep(0.02)
                took.append(time.monotonic() - started)
                assert _stored(workspace) == number
        finally:
            stop.set()
            thread.join()
    print(f"seen after {', '.join(f'{seconds:.2f}' for seconds in took)} s")  # noqa: T201 - the figures are wanted


def _stored(workspace: Workspace) -> int:
    try:
        return sum(item.stored for item in StoreReader(workspace.path).writers())
    except StoreError:
        return 0
