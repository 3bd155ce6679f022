"""Seeded crash schedules: no promise breaks, and a writer with a fault in it is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from abkit.log.journal import Journal
from abkit.log.segment import Segment
from abkit.log.segments import Segments
from abkit.log.writer import SegmentWriter
from tests.faults.simulator import PromiseBrokenError, Simulation, Sums, simulate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Account


def check(first: int, schedules: int, account: Account) -> Sums:
    sums = simulate(first, schedules)
    account(accepted=sums.accepted, stored=sums.stored, dropped=sums.dropped)
    return sums


@pytest.mark.fault("seeded crash schedules", "power cut", "fsync EIO")
def test_five_hundred_crash_schedules(account: Account) -> None:
    sums = check(0, 500, account)
    assert sums.kills > 500
    assert sums.power_cuts > 200
    assert sums.stored > 10_000
    assert sums.dropped > 1_000


@pytest.mark.slow
@pytest.mark.fault("seeded crash schedules", "power cut", "fsync EIO")
def test_ten_thousand_crash_schedules(account: Account) -> None:
    check(1_000_000, 10_000, account)


def test_a_seed_is_the_same_schedule_again(tmp_path: Path) -> None:
    histories, files = [], []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        simulation = Simulation(5, tmp_path / name)
        simulation.run()
        histories.append(simulation.history)
        paths = sorted(simulation.log.glob("*/*"))
        files.append([(path.parent.name, path.name, path.read_bytes()) for path in paths])
    assert len(histories[0]) > 10
    assert histories[0] == histories[1]
    assert files[0] == files[1]


# What the simulator must find: each is a writer that looks right as long as nothing happens.


def acknowledge_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say yes, and write with the next event."""
    write: Callable[[Journal, bytes], str] = Journal._write_event

    def later(self: Any, payload: bytes) -> str:
        waits, self.waits = getattr(self, "waits", b""), payload
        return write(self, waits) if waits else ""

    monkeypatch.setattr(Journal, "_write_event", later)


def never_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it to the system when things reach the disk."""
    monkeypatch.setattr(Segment, "sync", lambda self: None)


def sync_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put contents on disk, and not the name of the file."""
    monkeypatch.setattr(Segment, "_sync_names", lambda self: None)


def sync_the_last_folder_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the file's name on disk, and not that of its folder."""
    monkeypatch.setattr(Segment, "_sync_names", lambda self: self._files.fsync_folder(self._folder))


def sync_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the file after a failed fsync, and believe the next yes."""

    def sync(self: Any, segment: Segment) -> bool:
        try:
            segment.sync()
        except OSError:
            self.has_unsynced = True
        return True

    monkeypatch.setattr(Segments, "_sync", sync)


def forget_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Abandon the file after a failed fsync, and tell nobody."""
    sync = Segments.sync

    def silent(self: Any, timeout_seconds: float = 1.0) -> bool:
        sync(self, timeout_seconds)
        self.has_failed_sync = False
        return True

    monkeypatch.setattr(Segments, "sync", silent)


def share_the_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on in the parent's file after a fork."""
    monkeypatch.setattr(SegmentWriter, "_enter_child", lambda self, inherited: inherited)


def ignore_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seal the files of writers that live."""
    monkeypatch.setattr("abkit.log.recovery.fcntl.flock", lambda *_: None)


def count_no_number_of_the_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the number of an event that failed to the next one, and no gap tells of it."""
    write: Callable[[Journal, bytes], str] = Journal._write_event

    def reuse(self: Any, payload: bytes) -> str:
        reason = write(self, payload)
        if reason:
            self.segments.next_sequence -= 1
        return reason

    monkeypatch.setattr(Journal, "_write_event", reuse)


def leave_out_the_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take bytes as they come."""
    monkeypatch.setattr("zlib.crc32", lambda *_: 0)


@pytest.mark.parametrize(
    "harm",
    [
        acknowledge_first,
        never_sync,
        sync_no_names,
        sync_the_last_folder_only,
        sync_again_after_a_failure,
        forget_the_failure,
        share_the_segment,
        ignore_the_lock,
        count_no_number_of_the_lost,
        leave_out_the_checksum,
    ],
)
def test_a_writer_with_a_fault_in_it_is_found_out(
    harm: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    harm(monkeypatch)
    with pytest.raises(PromiseBrokenError, match=r"seed \d+: "):
        simulate(0, 1_000)
