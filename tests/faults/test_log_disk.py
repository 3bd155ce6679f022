"""Failing disks and folders: nothing raises, every loss is counted, no later frame suffers."""

from __future__ import annotations

import errno
import fcntl
import importlib
import inspect
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from abkit.log import Chunk, LogReader, OsFiles, SegmentWriter, WriterCounts, seal_dead

if TYPE_CHECKING:
    from collections.abc import Callable

MODES = ("os", "buffered", "fsync")


class FaultyFiles(OsFiles):
    """The real file system, with faults that a test plans.

    `plan` maps the number of a call (from 1, per kind of call) to an error number, or, for
    writes, to a negative number of bytes after which the write falls short.
    """

    def __init__(self, plan: dict[tuple[str, int], int] | None = None) -> None:
        self.plan = plan or {}
        self.always: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.synced: list[tuple[int, int]] = []
        self.sync_threads: set[int] = set()

    def _fault(self, kind: str) -> int:
        self.calls[kind] = self.calls.get(kind, 0) + 1
        fault = self.always.get(kind) or self.plan.get((kind, self.calls[kind]), 0)
        if fault > 0:
            raise OSError(fault, os.strerror(fault))
        return -fault

    def open_folder(self, path: str, within: int | None = None) -> int:
        self._fault("open_folder")
        return super().open_folder(path, within)

    def open_segment(self, folder: int, name: str) -> int:
        self._fault("open_segment")
        return super().open_segment(folder, name)

    def write(self, file: int, data: Any) -> int:
        short = self._fault("write")
        return os.write(file, data[:short] if short else data)

    def truncate(self, file: int, size_bytes: int) -> None:
        self._fault("truncate")
        os.ftruncate(file, size_bytes)

    def fsync(self, file: int) -> None:  # type: ignore[override]
        self.synced.append(self.identity(file))
        self.sync_threads.add(threading.get_ident())
        self._fault("fsync")
        os.fsync(file)

    def rename(self, folder: int, source: str, target: str) -> None:
        self._fault("rename")
        super().rename(folder, source, target)

    def unlink(self, folder: int, name: str) -> None:
        self._fault("unlink")
        super().unlink(folder, name)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def audit(folder: Path, counts: WriterCounts, *, damaged: bool = False) -> Chunk:
    """Check that what was handed in is stored or missing, and that the log itself says so."""
    dropped = sum(counts.dropped.values())
    assert counts.accepted == counts.written + dropped + counts.queued
    chunk = LogReader(folder).read({}, max_records=10**9)
    for _, sequence, record in chunk.rows():
        assert record == ["e", sequence]
    assert len(chunk) == counts.written
    assert sum(gap.count for gap in chunk.gaps) == dropped
    told = {(loss.experiment, loss.variant, loss.reason): loss.count for loss in chunk.losses}
    assert told == counts.dropped
    if not damaged:  # an end mark may have met the fault
        assert {(damage.reason, damage.missing) for damage in chunk.damages} <= {("no end mark", 0)}
    return chunk


def append(writer: SegmentWriter, numbers: range) -> int:
    return sum(
        writer.append(("e", n), "ranker", "treatment" if n % 3 else "control") for n in numbers
    )


@pytest.mark.fault("ENOSPC at the Nth write", "EIO", "short write")
@pytest.mark.parametrize("mode", ["os", "fsync"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("short", [0, 1, 27, 60])
def test_one_failed_write_at_any_place_loses_nothing(
    tmp_path: Path, mode: Any, error: int, short: int
) -> None:
    for nth in range(1, 12):
        folder = tmp_path / str(nth)
        plan = {("write", nth): error}
        if short:  # first some bytes, then the error
            plan = {("write", nth): -short, ("write", nth + 1): error}
        writer = SegmentWriter(folder, durability=mode, files=FaultyFiles(plan))
        first = writer.append(("e", 1))
        writer.flush()  # after a failure at the very beginning: try at once
        taken = append(writer, range(2, 10))
        writer.close()
        assert taken == 8
        # Only the header of the first segment has no second file to go to.
        assert first or nth <= 2
        chunk = audit(folder, writer.counts)
        assert len(chunk) == taken + first


@pytest.mark.fault("ENOSPC at the Nth write", "EIO", "no file descriptors")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", ["write", "open_segment", "open_folder"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_an_outage_is_counted_and_ends(tmp_path: Path, mode: Any, call: str, error: int) -> None:
    files, clock = FaultyFiles(), Clock()
    with SegmentWriter(
        tmp_path,
        durability=mode,
        files=files,
        monotonic=clock,
        segment_bytes=150,
        queue_records=20,
        flush_records=5,
    ) as writer:
        append(writer, range(1, 11))
        writer.flush()
        files.always[call] = error
        append(writer, range(11, 101))
        assert not writer.flush(0.1)
        calls = files.calls[call]
        append(writer, range(101, 111))
        if mode != "buffered":
            assert files.calls[call] == calls  # it waits before it tries again
        files.always.clear()
        clock.now += 60
        before = writer.counts
        assert before.dropped
        assert writer.flush()
        start = before.accepted + 1
        assert append(writer, range(start, start + 10)) == 10
        assert writer.flush()
        live = LogReader(tmp_path).read({})
        assert sum(loss.count for loss in live.losses) >= sum(before.dropped.values())
    counts = writer.counts
    assert counts.accepted == 120
    assert counts.last_error == errno.errorcode[error]
    assert {reason for _, _, reason in counts.dropped} <= {errno.errorcode[error], "queue_full"}
    if mode == "buffered":  # what waited in the queue was written when the disk was back
        assert {reason for _, _, reason in counts.dropped} == {"queue_full"}
        chunk = LogReader(tmp_path).read({})
        assert len(chunk) == counts.written
        assert sum(gap.count for gap in chunk.gaps) == sum(counts.dropped.values())
    else:
        audit(tmp_path, counts)


@pytest.mark.fault("EIO", "short write")
def test_a_torn_frame_that_cannot_be_cut_off_hurts_no_later_one(tmp_path: Path) -> None:
    plan = {("write", 4): -20, ("write", 5): errno.EIO, ("truncate", 1): errno.EIO}
    with SegmentWriter(tmp_path, files=FaultyFiles(plan)) as writer:
        assert append(writer, range(1, 9)) == 8
    chunk = audit(tmp_path, writer.counts, damaged=True)
    assert [(damage.length, damage.missing) for damage in chunk.damages] == [(20, 0)]


@pytest.mark.parametrize("call", ["rename", "unlink"])
def test_files_that_cannot_be_renamed_or_removed_are_read_all_the_same(
    tmp_path: Path, call: str
) -> None:
    files = FaultyFiles({("write", 1): errno.ENOSPC})
    files.always[call] = errno.EPERM
    with SegmentWriter(tmp_path, files=files, segment_bytes=200) as writer:
        writer.append(("e", 1))
        writer.flush()
        append(writer, range(2, 30))
    assert len(audit(tmp_path, writer.counts)) == 28


@pytest.mark.fault("fsync EIO")
def test_after_a_failed_fsync_the_file_is_abandoned(tmp_path: Path) -> None:
    files = FaultyFiles({("fsync", 2): errno.EIO})
    with SegmentWriter(tmp_path, durability="fsync", files=files) as writer:
        assert writer.append(("e", 1))
        assert writer.flush()
        assert writer.append(("e", 2))
        assert not writer.flush()
        assert writer.counts.last_error == "EIO"
        assert writer.append(("e", 3))
        assert writer.flush()  # nothing of before is tried again
    first, failed, *others = files.synced
    assert first == failed
    assert first not in others
    assert others
    assert len(audit(tmp_path, writer.counts)) == 3
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["00000001.seg", "00000002.seg"]


@pytest.mark.fault("fsync EIO")
def test_a_failed_fsync_of_the_flusher_is_told_by_the_next_flush(tmp_path: Path) -> None:
    files = FaultyFiles({("fsync", 1): errno.EIO})
    with SegmentWriter(tmp_path, durability="fsync", files=files) as writer:
        writer.append(("e", 1))
        end = time.monotonic() + 10.0
        while not writer.counts.last_error and time.monotonic() < end:
            time.sleep(0.01)
        writer.append(("e", 2))
        assert not writer.flush()
        assert writer.flush()
    assert len(audit(tmp_path, writer.counts)) == 2


def test_fsync_mode_syncs_within_a_second_and_before_sealing(tmp_path: Path) -> None:
    files = FaultyFiles()
    with SegmentWriter(tmp_path, durability="fsync", files=files) as writer:
        writer.append(("e", 1))
        assert files.synced == []  # not on the caller's thread
        end = time.monotonic() + 10.0
        while not files.synced and time.monotonic() < end:
            time.sleep(0.01)
        (path,) = tmp_path.glob("*/*.open")
        status = path.stat()
        assert files.synced == [(status.st_dev, status.st_ino)]
        writer.append(("e", 2))
    assert len(files.synced) in {2, 3}
    assert set(files.synced) == {(status.st_dev, status.st_ino)}


def test_rotation_in_fsync_mode_leaves_the_disk_to_the_flusher(tmp_path: Path) -> None:
    files = FaultyFiles()
    with SegmentWriter(tmp_path, durability="fsync", files=files, segment_bytes=200) as writer:
        append(writer, range(1, 50))
        end = time.monotonic() + 10.0
        while len(list(tmp_path.glob("*/*.seg"))) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(list(tmp_path.glob("*/*.seg"))) >= 5
        assert threading.get_ident() not in files.sync_threads
    sealed = {(status.st_dev, status.st_ino) for status in map(os.stat, tmp_path.glob("*/*.seg"))}
    assert sealed == set(files.synced)
    assert len(audit(tmp_path, writer.counts)) == 49


def test_what_still_waits_at_the_end_is_counted(tmp_path: Path) -> None:
    files = FaultyFiles()
    files.always["write"] = errno.ENOSPC
    with SegmentWriter(tmp_path, durability="buffered", files=files, flush_records=4) as writer:
        append(writer, range(1, 11))
        counts = writer.counts
        assert (counts.accepted, counts.queued, counts.dropped) == (10, 10, {})
    counts = writer.counts
    assert (counts.accepted, counts.written, counts.queued) == (10, 0, 0)
    assert counts.dropped == {
        ("ranker", "control", "ENOSPC"): 3,
        ("ranker", "treatment", "ENOSPC"): 7,
    }


def test_losses_told_before_a_batch_that_waits_do_not_hide_it(tmp_path: Path) -> None:
    clock = Clock()

    def hurry() -> float:  # every delay is over when it is looked at
        clock.now += 10.0
        return clock.now

    writer = SegmentWriter(
        tmp_path,
        durability="buffered",
        files=FaultyFiles({("write", 1): errno.ENOSPC}),
        monotonic=hurry,
        flush_records=100,
        flush_seconds=1e6,
    )
    append(writer, range(1, 4))
    writer.append((), "ranker", "control")
    assert not writer.flush(1e6)
    assert [loss.count for loss in LogReader(tmp_path).read({}).losses] == [1]
    assert writer.flush(1e6)
    writer.close()
    chunk = LogReader(tmp_path).read({})
    assert [row[1:] for row in chunk.rows()] == [(2, ["e", 1]), (3, ["e", 2]), (4, ["e", 3])]
    assert [(gap.first_sequence, gap.count) for gap in chunk.gaps] == [(1, 1)]


def test_an_outage_leaves_no_empty_segments_behind(tmp_path: Path) -> None:
    files, clock = FaultyFiles(), Clock()
    real = files.write

    def refuse_events(file: int, data: bytes) -> int:
        if b'["e",' in data:
            raise OSError(errno.ENOSPC, "")
        return real(file, data)

    files.write = refuse_events  # type: ignore[method-assign]
    writer = SegmentWriter(tmp_path, files=files, monotonic=clock)
    for number in range(1, 21):
        clock.now += 60
        writer.append(("e", number), "ranker", "control")
    files.write = real  # type: ignore[method-assign]
    writer.close()
    assert len(list(tmp_path.glob("*/*"))) == 1
    assert len(audit(tmp_path, writer.counts)) == 0


def test_a_segment_sealed_between_making_and_locking_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    rivals: list[Any] = []

    def lock(file: int, operation: int) -> None:
        if not rivals:
            rivals.append("is locking itself")
            rivals.extend(seal_dead(tmp_path))
            rivals.append(LogReader(tmp_path).read({}).positions)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock)
    with SegmentWriter(tmp_path) as writer:
        assert append(writer, range(1, 5)) == 4
    _, path, positions = rivals
    assert path.name == "00000001.seg"
    assert len(audit(tmp_path, writer.counts)) == 4
    assert len(LogReader(tmp_path).read(positions)) == 4  # none is in the sealed file


@pytest.mark.fault("EIO")
@pytest.mark.parametrize("call", ["write", "flock"])
def test_a_file_that_could_not_be_removed_hides_no_later_one(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, clock = FaultyFiles({("write", 1): errno.ENOSPC, ("unlink", 1): errno.EIO}), Clock()
    if call == "flock":
        files.plan = {}
        monkeypatch.setattr("abkit.log.files._lock", fail_once("abkit.log.files._lock"))
    writer = SegmentWriter(tmp_path, files=files, monotonic=clock)
    assert not writer.append(("e", 1), "ranker", "control")
    assert len(seal_dead(tmp_path)) == 1  # what is left of the attempt
    positions = LogReader(tmp_path).read({}).positions
    clock.now += 60
    assert append(writer, range(2, 5)) == 3
    assert len(LogReader(tmp_path).read(positions)) == 3
    writer.close()
    assert len(audit(tmp_path, writer.counts)) == 3


def fail_once(name: str) -> Callable[..., Any]:
    """A stand-in for a function, whose first call fails."""
    module, _, attribute = name.rpartition(".")
    real = getattr(importlib.import_module(module), attribute)
    failed: list[bool] = []

    def call(*arguments: Any) -> Any:
        if not failed:
            failed.append(True)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    return call


@pytest.mark.fault("slow disk", "queue flood")
def test_a_slow_disk_fills_the_queue_and_drops_are_counted_by_variant(tmp_path: Path) -> None:
    files = FaultyFiles()
    real = files.write

    def slow(file: int, data: bytes) -> int:
        time.sleep(0.02)
        return real(file, data)

    files.write = slow  # type: ignore[method-assign]
    taken = {"control": 0, "treatment": 0}
    handed = {"control": 0, "treatment": 0}
    waits = []
    with SegmentWriter(
        tmp_path, durability="buffered", files=files, queue_records=500, flush_records=50
    ) as writer:
        for number in range(30_000):
            variant = "treatment" if number % 3 else "control"
            handed[variant] += 1
            before = time.perf_counter()
            taken[variant] += writer.append(("e", number), "ranker", variant)
            waits.append(time.perf_counter() - before)
    counts = writer.counts
    assert counts.accepted == 30_000
    assert counts.accepted == counts.written + sum(counts.dropped.values())
    assert counts.dropped == {
        ("ranker", variant, "queue_full"): handed[variant] - taken[variant]
        for variant in ("control", "treatment")
    }
    assert min(counts.dropped.values()) > 1000
    assert sorted(waits)[len(waits) * 99 // 100] < 0.001  # callers do not wait for the disk
    chunk = LogReader(tmp_path).read({})
    assert len(chunk) == counts.written
    assert sum(gap.count for gap in chunk.gaps) == sum(counts.dropped.values())
    told = {(loss.experiment, loss.variant, loss.reason): loss.count for loss in chunk.losses}
    assert told == counts.dropped


@pytest.mark.fault("slow disk")
def test_a_hung_disk_costs_other_threads_one_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abkit.log.journal.LOCK_SECONDS", 0.2)
    files, hung, free = FaultyFiles(), threading.Event(), threading.Event()
    writer = SegmentWriter(tmp_path, files=files)
    writer.append(("e", 1))
    real = files.write

    def hang(file: int, data: bytes) -> int:
        hung.set()
        free.wait(30)
        return real(file, data)

    files.write = hang  # type: ignore[method-assign]
    thread = threading.Thread(target=writer.append, args=(("e", 2),))
    thread.start()
    hung.wait(30)
    before = time.monotonic()
    assert append(writer, range(3, 1000)) == 0
    assert time.monotonic() - before < 5.0
    free.set()
    thread.join()
    files.write = real  # type: ignore[method-assign]
    assert writer.append(("e", 1000))
    writer.close()
    assert {key[2] for key in writer.counts.dropped} == {"busy"}
    assert len(audit(tmp_path, writer.counts)) == 3


@pytest.mark.fault("short write")
def test_reading_beside_a_writer_whose_writes_fail(tmp_path: Path) -> None:
    """Torn frames come and go while others read: none of them is taken for damage."""
    plan = {}
    for number in range(5, 20_000, 7):  # a few bytes, then an error, then they are cut off again
        plan["write", number] = -1 - number % 50
        plan["write", number + 1] = errno.ENOSPC
    writer = SegmentWriter(tmp_path, files=FaultyFiles(plan), segment_bytes=5_000)
    is_over = threading.Event()

    def work() -> None:
        for number in range(1, 6_001):
            assert writer.append(("e", number, "x" * (number % 40)))
        writer.close()
        is_over.set()

    thread = threading.Thread(target=work)
    thread.start()
    seen = 0
    chunk = Chunk()
    was_over = False
    while not was_over or chunk.has_more:
        was_over = is_over.is_set()
        chunk = LogReader(tmp_path).read(chunk.positions, max_records=500)
        assert [*chunk.gaps, *chunk.losses] == []
        assert {damage.reason for damage in chunk.damages} <= {"no end mark"}
        for _, sequence, record in chunk.rows():
            seen += 1
            assert seen == sequence == record[1]
    thread.join()
    assert seen == 6_000


def a_file(path: Path) -> None:
    path.write_text("")


def a_link(path: Path) -> None:
    (path.parent / "target").mkdir()
    path.symlink_to(path.parent / "target")


def below_a_file(path: Path) -> None:
    path.parent.write_text("")


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.fault("journal directory absent, a file, a symlink")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [a_file, a_link, a_dangling_link, below_a_file])
def test_a_folder_that_is_none_drops_and_recovers(
    tmp_path: Path, mode: Any, make: Callable[[Path], None]
) -> None:
    folder = tmp_path / "workspace" / "log"
    if make is not below_a_file:
        folder.parent.mkdir()
    make(folder)
    writer = SegmentWriter(folder, durability=mode, queue_records=5)
    append(writer, range(1, 11))
    assert not writer.flush()
    counts = writer.counts
    assert counts.written == 0
    assert counts.last_error in {"ENOTDIR", "ELOOP", "EEXIST", "ENOENT"}
    (folder.parent if make is below_a_file else folder).unlink()
    assert writer.flush()
    assert writer.append(("e", 11))
    writer.close()
    assert len(LogReader(folder).read({})) == writer.counts.written
    assert list((tmp_path / "workspace").glob("target/*")) == []


@pytest.mark.fault("journal directory absent, a file, a symlink")
@pytest.mark.parametrize("folder", ["a\0b", "/" + "x" * 300, "\udcff\ud800"])
def test_a_folder_that_cannot_exist_only_drops(folder: str) -> None:
    with SegmentWriter(folder) as writer:
        assert not writer.append(("e", 1))
    assert sum(writer.counts.dropped.values()) == 1


READ_ONLY = """
import os, sys
from abkit.log import SegmentWriter
folder = sys.argv[1]
os.chmod(folder, 0o500)
if os.geteuid() == 0:
    os.setuid(65534)
writer = SegmentWriter(folder)
assert not writer.append(("e", 1), "ranker", "control")
writer.close()
assert writer.counts.dropped == {("ranker", "control", "EACCES"): 1}, writer.counts
"""


@pytest.mark.fault("journal directory read-only")
def test_a_read_only_folder_only_drops(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            path.chmod(0o755)
        os.chown(tmp_path, 65534, 65534)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(tmp_path)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


LIMITED = """
import resource, sys
from abkit.log import SegmentWriter
folder, limit = sys.argv[1], int(sys.argv[2])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
writer = SegmentWriter(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
taken = sum(writer.append(("e", number), "ranker", "control") for number in range(1, 1001))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert writer.flush()
assert writer.append(("e", 1001), "ranker", "control")
writer.close()
counts = writer.counts
assert counts.accepted == counts.written + sum(counts.dropped.values()) == 1001
assert set(counts.dropped) <= {("ranker", "control", "EFBIG")}
print(taken)
"""


@pytest.mark.fault("file-size limit")
@pytest.mark.parametrize(("limit", "expected"), [(5_000, 1000), (130, 0), (0, 0)])
def test_the_size_limit_of_the_system(tmp_path: Path, limit: int, expected: int) -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("the size of files is limited here already")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(limit)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == expected
    chunk = LogReader(tmp_path).read({})
    assert [record[1] for _, _, record in chunk.rows()] == [*range(1, expected + 1), 1001]
    assert sum(gap.count for gap in chunk.gaps) == 1000 - expected
    assert chunk.damages == []
    assert max((loss.count for loss in chunk.losses), default=0) == 1000 - expected


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_written", [False, True])
def test_what_a_signal_handler_raises_in_a_write_leaves_every_number_explained(
    tmp_path: Path, raised: type[BaseException], *, is_written: bool
) -> None:
    files = FaultyFiles()
    real = files.write
    writer = SegmentWriter(tmp_path, files=files)
    assert append(writer, range(1, 4)) == 3

    def interrupted(file: int, data: bytes) -> int:
        if is_written:
            real(file, data)
        raise raised("the time is over")

    for number in (4, 5):
        files.write = interrupted  # type: ignore[method-assign]
        if issubclass(raised, Exception):
            assert not writer.append(("e", number), "ranker", "control")
        else:
            with pytest.raises(raised):
                writer.append(("e", number), "ranker", "control")
        files.write = real  # type: ignore[method-assign]
    assert append(writer, range(6, 9)) == 3
    writer.close()
    assert sum(writer.counts.dropped.values()) == 2
    assert len(audit(tmp_path, writer.counts)) == 6


@pytest.mark.fault("EIO")
def test_a_segment_that_cannot_be_known_again_leaks_no_descriptor(tmp_path: Path) -> None:
    files, clock = FaultyFiles(), Clock()

    def unknown(descriptor: int) -> tuple[int, int]:
        if inspect.stack()[1].function == "__init__":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return OsFiles.identity(files, descriptor)

    files.identity = unknown  # type: ignore[method-assign]
    writer = SegmentWriter(tmp_path, files=files, monotonic=clock)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(1, 21):
        clock.now += 60
        assert not writer.append(("e", number), "ranker", "control")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.glob("*/*")) == []
    del files.identity
    clock.now += 60
    assert writer.append(("e", 21))
    writer.close()
    assert len(audit(tmp_path, writer.counts)) == 1


def test_attempts_after_a_failure_become_rarer(tmp_path: Path) -> None:
    files, clock = FaultyFiles(), Clock()
    files.always["open_folder"] = errno.ENOSPC
    writer = SegmentWriter(tmp_path, files=files, monotonic=clock)
    for number in range(1_000):  # 100 seconds
        clock.now = number / 10
        writer.append(("e", number))
    assert 20 <= files.calls["open_folder"] <= 30
    writer.close()


def test_a_thread_that_waited_for_a_hung_disk_waits_again_once_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path)
    monkeypatch.setattr("abkit.log.journal.LOCK_SECONDS", 0.01)
    with writer._journal.segments.lock:
        assert not writer.append(("e", 1))
    assert writer.append(("e", 2))
    monkeypatch.setattr("abkit.log.journal.LOCK_SECONDS", 30.0)
    writer._journal.segments.lock.acquire()
    timer = threading.Timer(0.05, writer._journal.segments.lock.release)
    timer.start()
    assert writer.append(("e", 3))
    timer.join()
    writer.close()
