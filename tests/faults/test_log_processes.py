"""SIGKILL, forks, threads and processes: no acknowledged event is lost, none is mixed up."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from abkit.log import LogReader, SegmentWriter, seal_dead

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 30


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def run(script: str, *arguments: object, timeout: float = 60.0) -> bytes:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


APPENDING = """
import os, sys
from abkit.log import SegmentWriter
writer = SegmentWriter(sys.argv[1], durability=sys.argv[2], segment_bytes=20_000)
number = 0
while True:
    number += 1
    assert writer.append(("e", os.getpid(), number, "x" * (number % 300)))
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.fault("SIGKILL loop (200)")
@pytest.mark.parametrize("mode", ["os", "fsync"])
def test_no_acknowledged_event_is_lost_by_sigkill(tmp_path: Path, mode: str) -> None:
    dice = random.Random(f"kill {mode}")
    acknowledged: dict[int, int] = {}
    for _ in range(KILLS // 2):
        process = start(APPENDING, tmp_path, mode)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(dice.uniform(0.0, 0.12))
        process.kill()
        lines = process.stdout.read().split(b"\n")
        process.stdout.close()
        process.wait()
        acknowledged[process.pid] = max([int(line) for line in lines[:-1]], default=1)
    assert sum(acknowledged.values()) > 1000
    live = LogReader(tmp_path).read({}, max_records=10**9)
    assert seal_dead(tmp_path)
    assert list(tmp_path.glob("*/*.open")) == []
    sealed = LogReader(tmp_path).read({}, max_records=10**9)
    assert list(live.rows()) == list(sealed.rows())
    assert len(LogReader(tmp_path).read(live.positions)) == 0
    assert sealed.gaps == []
    found: Counter[int] = Counter()
    for _, sequence, (_, pid, number, text) in sealed.rows():
        found[pid] += 1
        assert found[pid] == sequence == number
        assert text == "x" * (number % 300)
    for pid, number in acknowledged.items():
        # The last one may have been written and not yet been acknowledged.
        assert number <= found[pid] <= number + 1


MANY = """
import os, sys, threading
from abkit.log import SegmentWriter
folder, mode, threads, each = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
writer = SegmentWriter(folder, durability=mode, segment_bytes=200_000)
def work(thread):
    for number in range(each):
        assert writer.append(("e", os.getpid(), thread, number))
workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
writer.close()
counts = writer.counts
assert (counts.accepted, counts.written, counts.dropped) == (threads * each, threads * each, {})
print(os.getpid())
"""


@pytest.mark.fault("16 threads x 16 processes")
@pytest.mark.parametrize("mode", ["os", "buffered"])
def test_eight_threads_in_four_processes_stay_intact(tmp_path: Path, mode: str) -> None:
    threads, each = 8, 2000
    processes = [start(MANY, tmp_path, mode, threads, each) for _ in range(4)]
    live: Counter[tuple[int, int]] = Counter()
    positions: Any = {}
    is_over = False
    while not is_over:  # reads beside them, and once more after them
        is_over = all(process.poll() is not None for process in processes)
        chunk = LogReader(tmp_path).read(positions, max_records=10**9)
        positions = chunk.positions
        assert chunk.damages == []
        assert chunk.gaps == []
        for _, _, (_, pid, thread, number) in chunk.rows():
            assert live[pid, thread] == number  # each thread's events are in its order
            live[pid, thread] += 1
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert live == {(p.pid, thread): each for p in processes for thread in range(threads)}


FORKING = """
import os, sys, threading, time
from abkit.log import SegmentWriter
folder, mode = sys.argv[1], sys.argv[2]
writer = SegmentWriter(folder, durability=mode, flush_seconds=0.005)
go = True
def work():
    while go:
        writer.append(("e", os.getpid()))
        time.sleep(0.00005)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
children = []
for _ in range(10):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        arguments = (("e", os.getpid()),)
        more = [threading.Thread(target=writer.append, args=arguments) for _ in range(4)]
        for thread in more: thread.start()
        for thread in more: thread.join()
        for _ in range(100):
            writer.append(("e", os.getpid()))
        writer.close()
        counts = writer.counts
        is_right = counts.accepted == counts.written == 104 and not counts.dropped
        os._exit(0 if is_right else 1)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
go = False
for thread in threads: thread.join()
writer.close()
assert codes == [0] * 10, codes
assert writer.counts.accepted == writer.counts.written, writer.counts
"""


@pytest.mark.fault("fork holding a lock", "inherited journal and DuckDB handles")
@pytest.mark.parametrize("mode", ["os", "buffered", "fsync"])
def test_fork_while_threads_append(tmp_path: Path, mode: str) -> None:
    run(FORKING, tmp_path, mode)
    chunk = LogReader(tmp_path).read({}, max_records=10**9)
    assert [*chunk.gaps, *chunk.damages] == []
    pids: dict[str, set[int]] = {}
    for writer, _, (_, pid) in chunk.rows():
        pids.setdefault(writer, set()).add(pid)
    assert len(pids) == 11
    assert all(f"-{pid}-" in writer for writer, (pid,) in pids.items())
    assert len({pid for (pid,) in pids.values()}) == 11
    assert list(tmp_path.glob("*/*.open")) == []


FORK_WITH_LOCKS_HELD = """
import os, signal, sys, threading
from abkit.log import SegmentWriter
folder, mode = sys.argv[1], sys.argv[2]
writer = SegmentWriter(folder, durability=mode, flush_seconds=100.0, flush_records=1000)
for number in range(10):
    writer.append(("parent", number))
held, forked = threading.Event(), threading.Event()
journal = writer._journal
def hold():
    locks = [journal.segments.lock, journal.segments._sync_lock, journal.losses._lock]
    for lock in [*locks, journal.flusher._starting]:
        lock.acquire()
    held.set()
    forked.wait()
    for lock in [*locks, journal.flusher._starting]:
        lock.release()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)  # a deadlock ends the child, and the test
    for number in range(3):
        assert writer.append(("child", number))
    assert writer.flush()
    # Nothing of the parent's files is open here any more.
    ours = writer.counts.writer_id
    for descriptor in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        assert not path.startswith(folder) or ours in path, path
    writer.close()
    os._exit(0)
forked.set()
thread.join()
assert os.waitpid(child, 0)[1] == 0
writer.append(("parent", 10))
writer.close()
"""


@pytest.mark.fault("fork holding a lock", "inherited journal and DuckDB handles")
@pytest.mark.parametrize("mode", ["os", "buffered", "fsync"])
def test_locks_held_at_the_fork_do_not_bind_the_child(tmp_path: Path, mode: str) -> None:
    run(FORK_WITH_LOCKS_HELD, tmp_path, mode)
    chunk = LogReader(tmp_path).read({})
    assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
    by_kind = sorted((run.records[0][0], [row[1] for row in run.records]) for run in chunk.runs)
    assert by_kind == [("child", [0, 1, 2]), ("parent", list(range(11)))]


DAEMON = """
import os, sys
from abkit.log import SegmentWriter
folder = sys.argv[1]
writer = SegmentWriter(folder)
writer.append(("e", 1))
taken = writer._journal.segments._segment._file
if os.fork() == 0:
    os.closerange(3, 100)  # as daemons do; then the numbers are used for other files
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    assert taken in others
    assert writer.append(("e", 2))
    null = os.stat(os.devnull)
    for descriptor in others:
        assert os.path.samestat(os.fstat(descriptor), null)
    writer.close()
    os._exit(0)
assert os.wait()[1] == 0
assert writer.append(("e", 3))
writer.close()
"""


@pytest.mark.fault("inherited journal and DuckDB handles")
def test_a_child_closes_no_file_that_is_not_its_parents_log(tmp_path: Path) -> None:
    run(DAEMON, tmp_path)
    assert sorted(row[2][1] for row in LogReader(tmp_path).read({}).rows()) == [1, 2, 3]


def test_a_live_parent_is_not_sealed_when_its_child_ends(tmp_path: Path) -> None:
    script = """
import os, sys
from abkit.log import SegmentWriter, seal_dead
writer = SegmentWriter(sys.argv[1])
writer.append(("e", 1))
if os.fork() == 0:
    writer.append(("e", 2))
    os._exit(0)  # without closing
os.wait()
print(len(seal_dead(sys.argv[1])))
writer.append(("e", 3))
writer.close()
"""
    assert run(script, tmp_path) == b"1\n"
    assert len(LogReader(tmp_path).read({})) == 3


@pytest.mark.fault("atexit skipped")
def test_nothing_rests_on_the_end_of_the_process(tmp_path: Path) -> None:
    script = """
import os, sys
from abkit.log import SegmentWriter
writer = SegmentWriter(sys.argv[1])
for number in range(100):
    writer.append(("e", number))
os._exit(0)
"""
    run(script, tmp_path)
    chunk = LogReader(tmp_path).read({})
    assert (len(chunk), chunk.damages) == (100, [])


def test_no_handler_is_installed(tmp_path: Path) -> None:
    script = """
import json, signal, sys
names = [name for name in signal.Signals if name not in (signal.SIGKILL, signal.SIGSTOP)]
before = [signal.getsignal(name) for name in names]
from abkit.log import SegmentWriter
with SegmentWriter(sys.argv[1], durability="buffered") as writer:
    writer.append(("e", 1))
print(json.dumps([signal.getsignal(name) for name in names] == before))
"""
    assert json.loads(run(script, tmp_path))


def test_an_interrupting_handler_that_appends_cannot_deadlock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a signal came in the middle of a write, in the thread that holds the lock."""
    monkeypatch.setattr("abkit.log.journal.LOCK_SECONDS", 0.05)
    writer = SegmentWriter(tmp_path)
    writer.append(("e", 1))
    answers: list[bool] = []
    segment = writer._journal.segments._segment
    assert segment is not None

    class Interrupting:
        def __init__(self, files: Any) -> None:
            self._files = files

        def __getattr__(self, name: str) -> Any:
            return getattr(self._files, name)

        def write(self, file: int, data: bytes) -> int:
            if not answers:
                answers.append(writer.append(("e", 0), "ranker", "control"))
            return int(self._files.write(file, data))

    segment._files = Interrupting(segment._files)
    assert writer.append(("e", 2))
    assert answers == [False]
    writer.close()
    assert writer.counts.dropped == {("ranker", "control", "busy"): 1}
    chunk = LogReader(tmp_path).read({})
    assert [record[1] for _, _, record in chunk.rows()] == [1, 2]
    assert [(gap.first_sequence, gap.count) for gap in chunk.gaps] == [(3, 1)]
