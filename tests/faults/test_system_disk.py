"""Disks that fail as the system makes them fail: strace, tmpfs, limits. Every loss is counted."""

from __future__ import annotations

import re
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from abkit.log import LogReader, SegmentWriter
from tests.faults.injected import (
    WRITER,
    append_events,
    check_log,
    need,
    run,
    strace,
    tmpfs,
)

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Account

# Of the calls on a segment: the first write is its header.
HARM: dict[str, tuple[str, int]] = {
    "ENOSPC-once": ("write:error=ENOSPC:when=7", 0),
    "ENOSPC-at-the-header": ("write:error=ENOSPC:when=1", 1),
    "ENOSPC-twice": ("write:error=ENOSPC:when=7..8", 1),
    "ENOSPC-again-and-again": ("write:error=ENOSPC:when=5+4", 0),
    "EIO-once": ("write:error=EIO:when=7", 0),
    "EIO-twice": ("write:error=EIO:when=7..8", 1),
    "EIO-again-and-again": ("write:error=EIO:when=5+4", 0),
}


def check_harm(tmp_path: Path, account: Account, name: str, mode: str) -> None:
    injection, least = HARM[name]
    folder, log = tmp_path / "log", tmp_path / "strace.txt"
    tool = strace(log, folder, injection, segments=40)
    told = append_events(folder, *tool, events=60, pause=0.002, durability=mode, flush_records=4)
    assert "(INJECTED)" in log.read_text()
    assert told.accepted == 60
    assert told.lost >= least
    assert {reason for _, _, reason, _ in told.dropped} <= {injection.split(":")[1][6:]}
    check_log(folder, told)
    account(accepted=60, stored=told.written, dropped=told.lost)


@pytest.mark.fault("ENOSPC at the Nth write")
@pytest.mark.parametrize("name", [name for name in HARM if name.startswith("ENOSPC")])
def test_a_full_disk_at_the_nth_write(tmp_path: Path, account: Account, name: str) -> None:
    check_harm(tmp_path, account, name, "os")


@pytest.mark.fault("ENOSPC at the Nth write", "EIO")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_what_waits_in_the_queue_outlasts_the_fault(
    tmp_path: Path, account: Account, error: str
) -> None:
    check_harm(tmp_path, account, f"{error}-again-and-again", "buffered")


@pytest.mark.fault("EIO")
@pytest.mark.parametrize("name", [name for name in HARM if name.startswith("EIO")])
def test_an_error_of_the_device_at_the_nth_write(
    tmp_path: Path, account: Account, name: str
) -> None:
    check_harm(tmp_path, account, name, "os")


@pytest.mark.slow
@pytest.mark.fault("ENOSPC at the Nth write", "EIO")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT", "EFBIG"])
@pytest.mark.parametrize("nth", range(1, 16))
def test_any_error_at_any_write(tmp_path: Path, account: Account, error: str, nth: int) -> None:
    folder = tmp_path / "log"
    tool = strace(tmp_path / "strace.txt", folder, f"write:error={error}:when={nth}")
    told = append_events(folder, *tool, events=30, mark=1)
    check_log(folder, told)
    account(accepted=30, stored=told.written, dropped=told.lost)


@pytest.mark.fault("short write")
@pytest.mark.parametrize("taken", [0, 1, 20, 37])
def test_a_disk_that_lies_about_what_it_took_is_found_out(
    tmp_path: Path, account: Account, taken: int
) -> None:
    """The system says that so many bytes are in the file, and there is none of them."""
    folder = tmp_path / "log"
    tool = strace(tmp_path / "strace.txt", folder, f"write:retval={taken}:when=7")
    told = append_events(folder, *tool, events=60)
    assert (told.accepted, told.lost) == (60, 0)
    damaged = 1 if taken else 0  # of nothing taken the writer knows, and tries again
    chunk = check_log(folder, told, damaged=damaged)  # a gap that no loss explains
    assert len(chunk.damages) == (taken in {1, 20}), "the half of it that is there"
    account(accepted=60, stored=len(chunk), quarantined=damaged)


@pytest.mark.fault("fsync EIO")
def test_after_a_failed_fsync_the_system_is_never_asked_about_that_file_again(
    tmp_path: Path, account: Account
) -> None:
    folder, log = tmp_path / "log", tmp_path / "strace.txt"
    tool = strace(log, folder, "fsync:error=EIO:when=1")
    told = append_events(folder, *tool, events=60, mark=20, durability="fsync")
    assert told.last_error == "EIO"
    assert told.lost == 0
    check_log(folder, told)
    asked = re.findall(r"fsync\(\d+<[^>]*/(\d{8})\.open>\) += (\S+)", log.read_text())
    assert asked[0] == ("00000001", "-1")
    assert len(asked) >= 2
    assert {name for name, _ in asked[1:]} == {"00000002"}
    assert {answer for _, answer in asked[1:]} == {"0"}
    account(accepted=60, stored=told.written)


@pytest.mark.fault("slow disk")
def test_callers_do_not_wait_for_a_slow_disk(tmp_path: Path, account: Account) -> None:
    folder, log = tmp_path / "log", tmp_path / "strace.txt"
    tool = strace(log, folder, "write:delay_exit=30000")
    told = append_events(
        folder, *tool, events=6_000, durability="buffered", queue_records=500, flush_records=10
    )
    # 600 batches of 30 ms each are 18 s: whoever waited for the disk would take as long.
    assert told.took < 9.0
    assert told.accepted == 6_000
    assert {reason for _, _, reason, _ in told.dropped} <= {"queue_full"}
    assert {variant for _, variant, _, _ in told.dropped} == {"control", "treatment"}
    check_log(folder, told)
    account(accepted=6_000, stored=told.written, dropped=told.lost)


@pytest.mark.fault("slow disk")
def test_a_slow_fsync_holds_no_caller_up(tmp_path: Path, account: Account) -> None:
    folder = tmp_path / "log"
    tool = strace(tmp_path / "strace.txt", folder, "fsync:delay_exit=400000")
    told = append_events(folder, *tool, events=400, pause=0.004, durability="fsync")
    assert told.lost == 0
    check_log(folder, told)
    account(accepted=400, stored=told.written)


@pytest.mark.fault("disk full, then freed", "short write")
@pytest.mark.parametrize("mode", ["os", "buffered", "fsync"])
def test_a_disk_that_is_full_and_then_freed(tmp_path: Path, account: Account, mode: Any) -> None:
    with tmpfs(tmp_path / "small", "256k") as disk:
        # A size that is no multiple of a page: the last write before the end falls short.
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 200_000)
        writer = SegmentWriter(
            disk / "log", durability=mode, segment_bytes=9_999, queue_records=300
        )

        def append(count: int) -> int:
            return sum(
                writer.append(("e", number, "x" * 150), "ranker", "treatment")
                for number in range(count)
            )

        assert append(50) == 50
        assert append(2_000) < 2_000
        assert not writer.flush()
        full = writer.counts
        assert full.last_error == "ENOSPC"
        assert {reason for _, _, reason in full.dropped} <= {"ENOSPC", "queue_full"}
        readable = len(LogReader(disk / "log").read({}, max_records=10**9))
        assert readable == full.written, "readers do not mind"
        ballast.unlink()
        assert writer.flush(), "it goes on by itself"
        assert append(50) == 50
        writer.close()
        counts = writer.counts
        chunk = LogReader(disk / "log").read({}, max_records=10**9)
        lost = sum(counts.dropped.values())
        assert len(chunk) == counts.written
        assert sum(gap.count for gap in chunk.gaps) == lost
        assert max(loss.count for loss in chunk.losses) <= lost
        assert counts.accepted == 2_100
        account(accepted=2_100, stored=len(chunk), dropped=lost)


@pytest.mark.fault("file-size limit", "short write")
@pytest.mark.parametrize("limit", [10_001, 40_000])
def test_prlimit_bounds_the_size_of_files(tmp_path: Path, account: Account, limit: int) -> None:
    folder = tmp_path / "log"
    tool = (need("prlimit", "util-linux"), f"--fsize={limit}")
    told = append_events(folder, *tool, events=3_000)
    assert (told.accepted, told.lost) == (3_000, 0), "it goes on in another file"
    assert len(list(folder.glob("*/*.seg"))) >= 3_000 * 37 // limit
    check_log(folder, told)
    account(accepted=3_000, stored=told.written)


READING = """
import sys
from abkit.log import LogReader
for _ in range(200):
    for _, number, record in LogReader(sys.argv[1]).read({}, max_records=10**9).rows():
        assert record == ["e", number], record
"""


@pytest.mark.fault("short write")
def test_readers_beside_a_failing_disk_see_nothing_torn(tmp_path: Path, account: Account) -> None:
    folder = tmp_path / "log"
    (folder / WRITER).mkdir(parents=True)
    tool = strace(tmp_path / "strace.txt", folder, "write:error=ENOSPC:when=3+3", segments=200)
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(append_events(folder, *tool, events=300, pause=0.003))
    )
    thread.start()
    run(sys.executable, "-c", READING, folder)
    thread.join()
    (told,) = answers
    check_log(folder, told)
    account(accepted=300, stored=told.written, dropped=told.lost)
