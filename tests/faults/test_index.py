"""The index of the log under fire: whatever becomes of DuckDB's file, each event is there once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from abkit.errors import StoreBusyError
from abkit.log import LogReader, SegmentWriter
from abkit.workspace import Workspace
from tests.faults.injected import need, run

pytest.importorskip("duckdb")

import duckdb

from abkit.store.ingest import Ingester

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Account

EVENTS = 4_000
Rows = dict[tuple[str, int], tuple[Any, ...]]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose log has events of two writers, and some that were dropped."""
    made = Workspace(tmp_path / "workspace")
    made.create()
    fill(made, EVENTS // 2)
    fill(made, EVENTS // 2)
    return made


def fill(workspace: Workspace, events: int, first: int = 0) -> None:
    with SegmentWriter(workspace.log_path, durability="buffered", segment_bytes=40_000) as writer:
        for n in range(first, first + events // 2):
            writer.append(("e", 1.7e9 + n, "ranker", f"unit-{n}", "new", 1), "ranker", "new")
            writer.append(("o", 1.7e9 + n, f"unit-{n}", "clicks", n / 7, "", ""))
        for _ in range(5):
            writer.append((), "ranker", "new")


def rows(workspace: Workspace) -> Rows:
    """What is in the store, each event once."""
    with duckdb.connect(workspace.store_path / "abkit.duckdb", read_only=True) as store:
        found = store.execute(
            "SELECT writer, sequence, unit_id, variant || epoch FROM exposure UNION ALL "
            "SELECT writer, sequence, unit_id, metric || value FROM outcome"
        ).fetchall()
    by_key: Rows = {row[:2]: row[2:] for row in found}
    assert len(by_key) == len(found), "each once"
    return by_key


def check(workspace: Workspace, account: Account) -> Rows:
    """Everything in the log is in the store, and nothing else."""
    chunk = LogReader(workspace.log_path).read({}, max_records=10**9)
    found = rows(workspace)
    assert found.keys() == {(writer, sequence) for writer, sequence, _ in chunk.rows()}
    dropped = sum(gap.count for gap in chunk.gaps)
    account(accepted=len(chunk) + dropped, stored=len(found), dropped=dropped)
    return found


def ingest(workspace: Workspace) -> int:
    with closing(Ingester(workspace)) as ingester:
        return ingester.ingest().events


HOLDING = """
import duckdb, sys
store = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Somebody else has the file open, for writing."""
    command = [sys.executable, "-c", HOLDING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.fault("DuckDB locked by another")
def test_a_store_that_somebody_else_has_open_stops_no_event(
    workspace: Workspace, account: Account
) -> None:
    ingest(workspace)
    with held(workspace.store_path / "abkit.duckdb"):
        fill(workspace, 100, first=EVENTS)  # whoever serves does not even notice
        with pytest.raises(StoreBusyError):
            Ingester(workspace)
    assert ingest(workspace) == 100
    check(workspace, account)


@pytest.mark.fault("DuckDB locked by another")
def test_one_ingester_runs_at_a_time(workspace: Workspace, account: Account) -> None:
    with closing(Ingester(workspace)) as first:
        with pytest.raises(StoreBusyError, match="another"):
            Ingester(workspace)
        assert first.ingest().events == EVENTS
    check(workspace, account)


OPENING = """
import json, os, sys
from abkit.store.ingest import Ingester
from abkit.workspace import Workspace
import duckdb
from abkit.errors import AbkitError
words = []
for path in json.loads(sys.argv[1]):
    pid = os.fork()  # DuckDB may crash over such a file
    if pid == 0:
        try:
            ingester = Ingester(Workspace(path))
            ingester.ingest()
            ingester.close()
        except (AbkitError, duckdb.Error):
            os._exit(3)
        os._exit(0)
    words.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(words))
"""


@pytest.mark.fault("DuckDB file flipped")
def test_a_flipped_store_is_made_anew_with_equal_rows(
    workspace: Workspace, tmp_path: Path, account: Account
) -> None:
    ingest(workspace)
    before, dice = rows(workspace), random.Random(3)
    log = sorted((path, path.read_bytes()) for path in workspace.log_path.glob("*/*"))
    flipped = []
    for number in range(8):
        copy = Workspace(tmp_path / f"copy-{number}")
        shutil.copytree(workspace.path, copy.path)
        path = copy.store_path / "abkit.duckdb"
        content = bytearray(path.read_bytes())
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        flipped.append(copy)
    text = json.dumps([str(copy.path) for copy in flipped])
    codes = json.loads(run(sys.executable, "-c", OPENING, text))
    assert len(codes) == 8, "whatever happens to whoever opens it, serving does not know"
    for copy in flipped:
        for path in copy.store_path.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        assert ingest(copy) == len(before)
        assert rows(copy) == before
    assert log == sorted((path, path.read_bytes()) for path in workspace.log_path.glob("*/*"))
    check(workspace, account)


@pytest.mark.fault("DuckDB file deleted")
@pytest.mark.parametrize("is_open", [False, True])
def test_a_deleted_store_is_made_anew_with_equal_rows(
    workspace: Workspace, account: Account, *, is_open: bool
) -> None:
    ingest(workspace)
    before = rows(workspace)
    with contextlib.ExitStack() as stack:
        if is_open:
            stack.enter_context(closing(Ingester(workspace)))
        shutil.rmtree(workspace.store_path)
    workspace.create()
    ingest(workspace)
    assert rows(workspace) == before
    check(workspace, account)


# Loads in small transactions and dies without closing anything, so that a WAL is left.
DYING = """
import os, sys
import abkit.store.ingest as module
from abkit.workspace import Workspace
sys.modules["abkit.store.batches"].BATCH_RECORDS = 300
ingester = module.Ingester(Workspace(sys.argv[1]))
ingester._connection.execute("SET checkpoint_threshold = '1GB'")
ingester.ingest()
os._exit(0)
"""


@pytest.mark.fault("DuckDB WAL cut")
def test_a_wal_that_was_cut_costs_a_second_read_and_no_event(
    workspace: Workspace, tmp_path: Path, account: Account
) -> None:
    run(sys.executable, "-c", DYING, workspace.path)
    wal = workspace.store_path / "abkit.duckdb.wal"
    size, dice = wal.stat().st_size, random.Random(4)
    assert size > 10_000
    fresh = 0
    for cut in [0, size - 1, *(dice.randrange(size) for _ in range(8))]:
        copy = Workspace(tmp_path / f"cut-{cut}")
        shutil.copytree(workspace.path, copy.path)
        os.truncate(copy.store_path / "abkit.duckdb.wal", cut)
        with closing(Ingester(copy, mend=True)) as ingester:
            fresh += ingester.ingest().events > 0
        check(copy, account)
    assert fresh > 3, "something was lost with it, and came again from the log"


# Forked from a process that has loaded everything: a kill costs milliseconds.
KILLING = """
import json, os, random, signal, sys, time
import abkit.store.ingest as module
from abkit.log import SegmentWriter
from abkit.workspace import Workspace
workspace, kills = Workspace(sys.argv[1]), int(sys.argv[2])
sys.modules["abkit.store.batches"].BATCH_RECORDS = 200
dice, ended = random.Random(8), 0
writer = SegmentWriter(workspace.log_path, durability="buffered", segment_bytes=30_000)
for kill in range(kills):
    for n in range(400):
        writer.append(("e", 1.7e9, "ranker", f"u{kill}-{n}", "new", 1), "ranker", "new")
    writer.flush()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        ingester = module.Ingester(workspace)
        os.write(told, b"x")
        ingester.ingest()
        ingester.publish()
        os._exit(7)
    os.close(told)
    if dice.random() < 0.8: os.read(ready, 1)
    os.close(ready)
    time.sleep(dice.uniform(0, 0.06))
    os.kill(pid, signal.SIGKILL)
    ended += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
writer.close()
print(json.dumps(ended))
"""


@pytest.mark.fault("killed in mid-ingest (40)")
def test_forty_kills_in_mid_ingest_load_each_event_once(
    workspace: Workspace, account: Account
) -> None:
    ended = json.loads(run(sys.executable, "-c", KILLING, workspace.path, 40))
    assert ended < 40, "some were killed before they were done"
    ingest(workspace)
    assert len(check(workspace, account)) == EVENTS + 40 * 400


@pytest.mark.fault("replayed twice")
def test_a_log_that_is_read_twice_adds_nothing(workspace: Workspace, account: Account) -> None:
    assert ingest(workspace) == EVENTS
    assert ingest(workspace) == 0
    before = rows(workspace)
    for folder in list(workspace.log_path.iterdir()):  # the same segments again, as newer ones
        numbers = sorted(int(path.stem) for path in folder.glob("*.seg"))
        for number in numbers:
            copy = folder / f"{numbers[-1] + number:08d}.seg"
            shutil.copyfile(folder / f"{number:08d}.seg", copy)
    assert ingest(workspace) == 0
    assert rows(workspace) == before
    check(workspace, account)


FAILING = """
import sys
import duckdb
from abkit.errors import AbkitError
from abkit.store.ingest import Ingester
from abkit.workspace import Workspace
try:
    ingester = Ingester(Workspace(sys.argv[1]))
    print(ingester.ingest())
    ingester.close()
except (AbkitError, duckdb.Error) as error:
    print("failed:", type(error).__name__)
"""


@pytest.mark.fault("FATAL after fsync error")
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_failed_fsync_under_duckdb_loses_nothing_and_doubles_nothing(
    workspace: Workspace, tmp_path: Path, account: Account, nth: int
) -> None:
    log, store = tmp_path / "strace.txt", workspace.store_path / "abkit.duckdb"
    command: list[object] = [need("strace", "strace"), "-f", "-qq", "-o", log, "--seccomp-bpf"]
    command += ["-e", "trace=fsync,fdatasync"]
    command += ["-e", f"inject=fsync,fdatasync:error=EIO:when={nth}+"]
    command += ["-P", store, "-P", f"{store}.wal"]
    said = run(*command, sys.executable, "-c", FAILING, workspace.path)
    assert "(INJECTED)" in log.read_text()
    assert said
    with closing(Ingester(workspace, mend=True)) as ingester:
        ingester.ingest()
    check(workspace, account)


INHERITING = """
import os, sys
import duckdb
from abkit.errors import AbkitError
from abkit.log import SegmentWriter
from abkit.store.ingest import Ingester
from abkit.workspace import Workspace
workspace = Workspace(sys.argv[1])
ingester = Ingester(workspace)
before = ingester.ingest().events
writer = SegmentWriter(workspace.log_path)
writer.append(("o", 1.7e9, "parent", "clicks", 1.0, "", ""))
pid = os.fork()
if pid == 0:
    assert writer.append(("o", 1.7e9, "child", "clicks", 1.0, "", ""))
    writer.close()
    try:
        Ingester(workspace)
    except AbkitError:
        os._exit(0)
    os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
writer.append(("o", 1.7e9, "parent", "clicks", 2.0, "", ""))
writer.close()
assert ingester.ingest().events == 3
ingester.close()
"""


@pytest.mark.fault("inherited journal and DuckDB handles")
def test_a_child_of_the_ingester_logs_for_itself_and_gets_no_store(
    workspace: Workspace, account: Account
) -> None:
    run(sys.executable, "-c", INHERITING, workspace.path)
    found = check(workspace, account)
    assert len({writer for writer, _ in found}) == 4
