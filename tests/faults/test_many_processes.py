"""Two hundred SIGKILLs, sixteen threads in sixteen processes, and what a process may not have."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from abkit.log import LogReader, seal_dead
from tests.faults.injected import append_events, check_log, need, need_root, run

if TYPE_CHECKING:
    from conftest import Account

# Forks writers and kills them at any moment. What each has acknowledged is in memory that both
# share, so that asking costs the writer nothing.
KILLING = """
import json, mmap, os, random, signal, struct, sys, time
from abkit.log import SegmentWriter
folder, kills = sys.argv[1], int(sys.argv[2])
dice, acknowledged = random.Random(7), {}
for kill in range(kills):
    shared = mmap.mmap(-1, 8)
    pid = os.fork()
    if pid == 0:
        writer = SegmentWriter(folder, segment_bytes=dice.choice([9_000, 10**6]))
        number = 0
        while True:
            number += 1
            if writer.append(("e", number, "x" * (number % 97)), "ranker", "control"):
                shared[:8] = struct.pack("q", number)
    while shared[:8] == bytes(8): time.sleep(0.0002)
    time.sleep(dice.uniform(0.0, float(sys.argv[3])))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    (acknowledged[pid],) = struct.unpack("q", shared[:8])
print(json.dumps(acknowledged))
"""


def kill(folder: Path, kills: int, most_seconds: float, account: Account) -> int:
    answer = run(sys.executable, "-c", KILLING, folder, kills, most_seconds, timeout=3000)
    acknowledged = {int(pid): count for pid, count in json.loads(answer).items()}
    assert len(acknowledged) == kills
    seal_dead(folder)
    found: Counter[int] = Counter()
    positions: Any = {}
    has_more = True
    while has_more:  # in steps: a long form writes millions
        chunk = LogReader(folder).read(positions, max_records=200_000)
        positions, has_more = chunk.positions, chunk.has_more
        assert chunk.gaps == []
        for writer, sequence, (_, number, text) in chunk.rows():
            pid = int(writer.split("-")[-2])
            found[pid] += 1
            assert found[pid] == sequence == number
            assert text == "x" * (number % 97)
    lost = sum(max(0, count - found[pid]) for pid, count in acknowledged.items())
    assert lost == 0
    # The last one may have been written and not yet been acknowledged.
    assert all(found[pid] - count in {0, 1} for pid, count in acknowledged.items())
    total = sum(acknowledged.values())
    account(accepted=total, stored=total - lost)
    return total


@pytest.mark.fault("SIGKILL loop (200)")
def test_two_hundred_kills_lose_nothing(tmp_path: Path, account: Account) -> None:
    total = kill(tmp_path, 200, 0.02, account)
    assert total > 2_000


@pytest.mark.slow
@pytest.mark.fault("SIGKILL loop (200)")
def test_two_hundred_kills_of_longer_lives_lose_nothing(tmp_path: Path, account: Account) -> None:
    assert kill(tmp_path, 200, 0.8, account) > 1_000_000


MANY = """
import os, sys, threading
from abkit.log import SegmentWriter
folder, mode, each = sys.argv[1], sys.argv[2], int(sys.argv[3])
def work(writer, thread):
    for number in range(each):
        assert writer.append(("e", os.getpid(), thread, number))
pids = []
for _ in range(16):
    pid = os.fork()
    if pid == 0:
        writer = SegmentWriter(folder, durability=mode, segment_bytes=20_000)
        threads = [threading.Thread(target=work, args=(writer, n)) for n in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        writer.close()
        counts = writer.counts
        os._exit(0 if counts.accepted == counts.written == 16 * each else 1)
    pids.append(pid)
assert {os.waitpid(pid, 0)[1] for pid in pids} == {0}
"""


@pytest.mark.fault("16 threads x 16 processes")
@pytest.mark.parametrize(("mode", "each"), [("os", 100), ("buffered", 300), ("fsync", 30)])
def test_sixteen_threads_in_sixteen_processes(
    tmp_path: Path, account: Account, mode: str, each: int
) -> None:
    run(sys.executable, "-c", MANY, tmp_path, mode, each)
    chunk = LogReader(tmp_path).read({}, max_records=10**9)
    assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
    found: Counter[Any] = Counter()
    for writer, _, (_, pid, thread, number) in chunk.rows():
        assert f"-{pid}-" in writer
        assert found[pid, thread] == number, "each thread's events are in its order"
        found[pid, thread] += 1
    assert len(found) == 256
    assert set(found.values()) == {each}
    account(accepted=256 * each, stored=len(chunk))


JUMPS = {
    "clock back 10 days": "-10d",
    "clock forward a year": "+365d",
}


def faketime(*words: str) -> list[object]:
    return [need("faketime", "faketime"), *words]


@pytest.mark.fault("clock back 10 days", "clock forward a year")
@pytest.mark.parametrize("row", JUMPS)
def test_a_clock_that_is_wrong_costs_no_event(tmp_path: Path, account: Account, row: str) -> None:
    told = append_events(tmp_path, *faketime("-f", JUMPS[row]), events=200, durability="fsync")
    assert abs(told.clock - time.time()) > 9 * 86_400
    assert (told.accepted, told.lost, told.flushed) == (200, 0, True)
    check_log(tmp_path, told)
    account(accepted=200, stored=told.written)


CLOCKS = """
import json, select, sys, time
import abkit
from abkit.experiment import Experiment
from abkit.workspace import Workspace
folder, control = sys.argv[1], sys.argv[2]
workspace = Workspace(folder)
workspace.publish(Experiment.create("ranker", {"old": 0.5, "new": 0.5}, salt="s"))
ab = abkit.Client(folder, durability="fsync", poll_seconds=0.05)
seen, times, stood = [], [], []
def sleep(seconds): select.select([], [], [], seconds)  # the tool breaks time.sleep
for jump in json.loads(sys.argv[3]):
    with open(control, "w") as file: file.write(jump)
    sleep(0.1)
    times.append(time.time())
    sleep(0.05)
    stood.append(time.time() == times[-1])
    found = [ab.assign("ranker", f"unit-{n}") for n in range(50)]
    seen.append([item.variant for item in found])
    assert all([ab.expose(item) for item in found])
    workspace.publish(Experiment.create("ranker", {"old": 0.5, "new": 0.5}, salt="s"))
    started = time.monotonic()
    while ab.snapshot().version != workspace.snapshot().version:
        assert time.monotonic() < started + 20, "a flip is reached on any clock"
        sleep(0.02)
    assert ab.flush()
ab.close()
counts = ab.health().events
assert not counts.dropped
print(json.dumps({"variants": seen, "times": times, "stood": stood, "accepted": counts.accepted}))
"""


@pytest.mark.fault("clock back 10 days", "clock forward a year", "clock stopped")
def test_jumps_of_the_clock_change_no_decision_and_lose_no_event(
    tmp_path: Path, account: Account
) -> None:
    control = tmp_path / "time.txt"
    control.write_text("+0")
    jumps = ["+0", "-10d", "+365d", "2026-01-01 00:00:00", "+0"]
    # The wall clock alone: what counts durations is not for anybody to set.
    answer = run(
        *("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1"),
        *("FAKETIME_XRESET=1", f"FAKETIME_TIMESTAMP_FILE={control}", f"LD_PRELOAD={library()}"),
        *(sys.executable, "-c", CLOCKS, tmp_path / "workspace", control, json.dumps(jumps)),
    )
    told = json.loads(answer)
    first = told["variants"][0]
    assert set(first) == {"old", "new"}
    assert all(variants == first for variants in told["variants"])
    times = told["times"]
    assert times[1] < times[0] - 9 * 86_400
    assert times[2] > times[0] + 364 * 86_400
    assert told["stood"] == [False, False, False, True, False]
    chunk = LogReader(tmp_path / "workspace" / "log").read({})
    assert [*chunk.gaps, *chunk.damages] == []
    account(accepted=told["accepted"], stored=len(chunk))


def library() -> str:
    need("faketime", "faketime")
    names = run("sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/* || true")
    if not names.split():
        pytest.skip("no libfaketime: install the package faketime")
    return names.split()[0]


STARVING = """
import json, os, resource, sys
from abkit.log import SegmentWriter
folder, mode = sys.argv[1], sys.argv[2]
writer = SegmentWriter(folder, durability=mode, queue_records=50)
def append(count): return sum(writer.append(("e", n), "ranker", "control") for n in range(count))
held = []
try:
    while True: held.append(os.open(os.devnull, os.O_RDONLY))
except OSError: pass
taken = append(100)
assert not writer.flush()
for descriptor in held: os.close(descriptor)
assert writer.flush()
taken += append(10)
writer.close()
counts = writer.counts
assert counts.accepted == 110
assert {reason for _, _, reason in counts.dropped} <= {"EMFILE", "queue_full"}, counts
print(json.dumps([counts.written, sum(counts.dropped.values())]))
"""


@pytest.mark.fault("no file descriptors")
@pytest.mark.parametrize("mode", ["os", "buffered", "fsync"])
def test_without_file_descriptors_events_are_counted_and_then_written_again(
    tmp_path: Path, account: Account, mode: str
) -> None:
    tool = (need("prlimit", "util-linux"), "--nofile=40")
    written, dropped = json.loads(run(*tool, sys.executable, "-c", STARVING, tmp_path, mode))
    chunk = LogReader(tmp_path).read({})
    assert len(chunk) == written >= 10
    assert sum(gap.count for gap in chunk.gaps) == dropped > 0
    account(accepted=110, stored=written, dropped=dropped)


THREADLESS = """
import json, os, sys, threading, time
sys.path.insert(0, os.getcwd())
import abkit.log
from abkit.log import SegmentWriter
os.setuid(65_533)  # no limit holds for root
try:
    threading.Thread(target=print).start()
except RuntimeError: pass
else: raise SystemExit("a thread could be started")
folder, mode = sys.argv[1], sys.argv[2]
writer = SegmentWriter(folder, durability=mode, flush_records=4)
for number in range(50): assert writer.append(("e", number))
if mode == "fsync":
    time.sleep(0.6)
    assert writer.append(("e", 50))
assert writer.flush()
writer.close()
counts = writer.counts
assert not counts.dropped
print(json.dumps([counts.accepted, counts.written]))
"""


@pytest.mark.fault("no threads")
@pytest.mark.parametrize("mode", ["os", "buffered", "fsync"])
def test_without_threads_everything_is_written_by_its_callers(account: Account, mode: str) -> None:
    need_root()
    tool = (need("prlimit", "util-linux"), "--nproc=1")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # for a user who may own nothing else
        accepted, written = json.loads(run(*tool, sys.executable, "-c", THREADLESS, folder, mode))
        assert len(LogReader(folder).read({})) == written
    account(accepted=accepted, stored=written)


MILLION = """
import json, os, sys
import abkit
from abkit.experiment import Experiment
from abkit.client import MemorySticky
from abkit.workspace import Workspace
def rss(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
folder, users = sys.argv[1], int(sys.argv[2])
workspace = Workspace(folder)
shares = {"old": 0.5, "new": 0.5}
workspace.publish(
    Experiment.create("ranker", shares, salt="s"),
    Experiment.create("held", shares, salt="t", sticky=True),
)
sticky = MemorySticky(limit=10_000)
ab = abkit.Client(folder, durability="buffered", sticky=sticky)
logged, before = 0, 0
for number in range(users):
    unit = f"user-{number}"
    found = ab.assign("ranker", unit)
    ab.assign("held", unit)
    logged += ab.expose(found)
    if number == users // 10: before = rss()
ab.close()
counts = ab.health().events
print(json.dumps([counts.accepted, counts.written, sum(counts.dropped.values()), rss() - before]))
"""


@pytest.mark.fault("memory cap with a million users")
def test_a_million_users_fit_into_a_memory_cap(tmp_path: Path, account: Account) -> None:
    tool = (need("prlimit", "util-linux"), f"--as={400 << 20}")
    answer = run(*tool, sys.executable, "-c", MILLION, tmp_path, 1_000_000, timeout=300)
    accepted, written, dropped, grown = json.loads(answer)
    assert accepted == 1_000_000
    assert grown < 50 << 20, "memory is bounded by settings, not by users"
    chunk_events, positions = 0, {}
    while True:
        chunk = LogReader(tmp_path / "log").read(positions, max_records=100_000)
        positions, chunk_events = chunk.positions, chunk_events + len(chunk)
        if not chunk.has_more:
            break
    assert chunk_events == written
    account(accepted=accepted, stored=written, dropped=dropped)


FLOODING = """
import json, os, resource, sys, threading
from abkit.log import SegmentWriter
folder, each = sys.argv[1], int(sys.argv[2])
writer = SegmentWriter(
    folder, durability="buffered", queue_records=2_000, flush_records=1_000_000, flush_seconds=0.05
)
def rss(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = rss()
def work(thread):
    variant = "treatment" if thread % 2 else "control"
    for number in range(each): writer.append(("e", thread, "x" * 200), "ranker", variant)
threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
grown = rss() - before
writer.close()
counts = writer.counts
dropped = {"|".join(key): count for key, count in counts.dropped.items()}
print(json.dumps([counts.accepted, counts.written, dropped, grown]))
"""


@pytest.mark.fault("queue flood")
def test_a_flood_drops_the_newest_by_variant_in_bounded_memory(
    tmp_path: Path, account: Account
) -> None:
    answer = run(sys.executable, "-c", FLOODING, tmp_path, 25_000)
    accepted, written, dropped, grown = json.loads(answer)
    assert accepted == 200_000
    assert set(dropped) <= {"ranker|control|queue_full", "ranker|treatment|queue_full"}
    assert sum(dropped.values()) > 10_000
    assert grown < 30 << 20
    chunk = LogReader(tmp_path).read({}, max_records=10**9)
    assert sum(gap.count for gap in chunk.gaps) == sum(dropped.values())
    told = {f"{x.experiment}|{x.variant}|{x.reason}": x.count for x in chunk.losses}
    assert told == dropped
    assert len(chunk) == written
    account(accepted=accepted, stored=written, dropped=sum(dropped.values()))
