"""The log reader: positions, copies, gaps, files that change under it, and sealing the dead."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from abkit.errors import StoreError
from abkit.log import Chunk, Gap, LogReader, Position, SegmentWriter, seal_dead
from abkit.log.frames import EVENTS, METADATA, encode_frame, encode_metadata, encode_records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def events(first: int, count: int) -> bytes:
    records = [("e", number) for number in range(first, first + count)]
    return encode_frame(EVENTS, first, count, encode_records(records))


END = encode_metadata(0, [("s", 0.0, "dead")])


def write(folder: Path, name: str, *frames: bytes) -> Path:
    path = folder / "w-1" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(frames))
    return path


def read(folder: Path, positions: Mapping[str, Position] | None = None) -> Chunk:
    """Read once, and see that each record carries the number it was written with."""
    chunk = LogReader(folder).read(positions or {})
    for _, sequence, record in chunk.rows():
        assert record == ["e", sequence]
    return chunk


def numbers(chunk: Chunk) -> list[int]:
    return [sequence for _, sequence, _ in chunk.rows()]


def test_an_absent_folder_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == Chunk()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_that_is_none_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    path.touch() if kind == "file" else path.symlink_to(tmp_path)
    with pytest.raises(StoreError, match="log folder"):
        read(path)
    with pytest.raises(StoreError, match="log folder"):
        seal_dead(path)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    writers = [SegmentWriter(tmp_path, segment_bytes=900) for _ in range(3)]
    reader = LogReader(tmp_path)
    seen: list[tuple[str, int]] = []
    positions: dict[str, Position] = {}
    for step in range(1, 60):
        for writer in writers:
            writer.append(("e", step))
        if step % 7 == 0:
            before = positions
            chunk = reader.read(before)
            again = reader.read(before)
            assert list(again.rows()) == list(chunk.rows())
            assert again.positions == chunk.positions
            seen += [(writer_id, sequence) for writer_id, sequence, _ in chunk.rows()]
            positions = chunk.positions
    for writer in writers:
        writer.close()
    chunk = reader.read(positions)
    seen += [(writer_id, sequence) for writer_id, sequence, _ in chunk.rows()]
    assert sorted(seen) == sorted(
        (writer.counts.writer_id, step) for writer in writers for step in range(1, 60)
    )
    last = reader.read(chunk.positions)
    assert (len(last), last.damages, last.gaps, last.duplicates) == (0, [], [], 0)


@pytest.mark.parametrize("limit", [1, 3, 10, 1000])
def test_a_limit_bounds_a_read_and_is_shared_fairly(tmp_path: Path, limit: int) -> None:
    for name in ("w-a", "w-b", "w-c"):
        (tmp_path / name).mkdir()
        body = b"".join(events(first, 2) for first in range(1, 200, 2))
        (tmp_path / name / "00000001.seg").write_bytes(body + END)
    reader = LogReader(tmp_path)
    chunk = reader.read({}, max_records=limit)
    assert {run.writer for run in chunk.runs} == {"w-a", "w-b", "w-c"} or limit < 3
    total = 0
    while True:
        assert len(chunk) <= limit + 2 * 3
        total += len(chunk)
        if not chunk.has_more:
            break
        assert len(chunk) > 0
        chunk = reader.read(chunk.positions, max_records=limit)
    assert total == 600
    assert chunk.damages == []


@pytest.mark.parametrize("torn", [1, 27, 28, 36])
def test_the_unfinished_end_of_a_live_segment_is_not_yet_there(tmp_path: Path, torn: int) -> None:
    path = write(tmp_path, "00000001.open", events(1, 2), events(3, 1)[:torn])
    first = read(tmp_path)
    assert (numbers(first), first.damages) == ([1, 2], [])
    path.write_bytes(events(1, 2) + events(3, 1) + events(4, 1))
    assert numbers(read(tmp_path, first.positions)) == [3, 4]


def test_a_wrong_frame_at_the_end_of_a_live_segment_waits_for_what_follows(tmp_path: Path) -> None:
    bad = events(3, 1)[:-1] + b"?"
    path = write(tmp_path, "00000001.open", events(1, 2), bad)
    first = read(tmp_path)
    assert (numbers(first), first.damages) == ([1, 2], [])
    path.write_bytes(events(1, 2) + bad + events(4, 1))
    second = read(tmp_path, first.positions)
    (damage,) = second.damages
    assert (damage.offset, damage.length) == (len(events(1, 2)), len(bad))
    assert (damage.reason, damage.first_missing, damage.missing) == ("corrupt", 3, 1)
    assert second.gaps == [Gap("w-1", 3, 1)]
    assert numbers(second) == [4]


def test_a_segment_with_a_follower_is_final_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, "00000001.open", events(1, 2), events(3, 1)[:-5])
    write(tmp_path, "00000002.open", events(4, 1))
    chunk = read(tmp_path)
    assert numbers(chunk) == [1, 2, 4]
    assert [(damage.reason, damage.missing) for damage in chunk.damages] == [("torn tail", 1)]


def test_a_sealed_segment_without_end_mark_is_reported_once(tmp_path: Path) -> None:
    write(tmp_path, "00000001.seg", events(1, 2))
    chunk = read(tmp_path)
    assert [(damage.reason, damage.length) for damage in chunk.damages] == [("no end mark", 0)]
    assert read(tmp_path, chunk.positions).damages == []


def test_copies_add_nothing(tmp_path: Path) -> None:
    one = write(tmp_path, "00000001.seg", events(1, 3), events(4, 3), END)
    shutil.copy(one, one.with_name("00000002.seg"))
    write(tmp_path, "00000003.seg", events(5, 4), events(9, 0), events(2, 0), events(9, 1), END)
    chunk = read(tmp_path)
    assert numbers(chunk) == list(range(1, 10))
    assert (chunk.duplicates, chunk.gaps, chunk.damages) == (8, [], [])
    rewound = {"w-1": Position(1, 0, chunk.positions["w-1"].next_sequence)}
    assert numbers(read(tmp_path, rewound)) == []


def test_a_copied_writer_is_not_read_as_another(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as writer:
        writer.append(("e", 1))
    shutil.copytree(tmp_path / writer.counts.writer_id, tmp_path / "copy")
    chunk = read(tmp_path)
    assert len(chunk) == 1
    assert [damage.reason for damage in chunk.damages] == ["foreign segment"]
    assert read(tmp_path, chunk.positions).damages == []


def test_gaps_are_reported_wherever_a_number_shows_them(tmp_path: Path) -> None:
    write(tmp_path, "00000001.seg", events(3, 1), events(6, 1), encode_metadata(9, []), END)
    write(tmp_path, "00000004.open", encode_metadata(9, []), events(11, 1))
    chunk = read(tmp_path)
    assert numbers(chunk) == [3, 6, 11]
    assert [(gap.first_sequence, gap.count) for gap in chunk.gaps] == [
        (1, 2),
        (4, 2),
        (7, 2),
        (9, 2),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"[",
        b"{}",
        b'[["e",1],["e",2]]',
        b'["e"]',
        b"[[]]",
        b"[[1]]",
        b'[["e",NaN]]',
        b'[["e","\xff"]]',
    ],
)
def test_contents_that_belie_their_header_are_damage(tmp_path: Path, payload: bytes) -> None:
    bad = encode_frame(EVENTS, 3, 1, payload)
    write(tmp_path, "00000001.seg", events(1, 2), bad, events(4, 2), END)
    chunk = read(tmp_path)
    assert numbers(chunk) == [1, 2, 4, 5]
    (damage,) = chunk.damages
    assert (damage.reason, damage.offset) == ("malformed", len(events(1, 2)))
    assert (damage.first_missing, damage.missing, damage.length) == (3, 1, len(bad))
    assert chunk.gaps == [Gap("w-1", 3, 1)]


def test_frames_cannot_borrow_records_from_each_other(tmp_path: Path) -> None:
    left = encode_frame(EVENTS, 1, 1, b'[["e",1]],[["e",2]')
    right = encode_frame(EVENTS, 2, 1, b'["e",3]]')
    write(tmp_path, "00000001.seg", left, right, events(3, 1), END)
    chunk = read(tmp_path)
    assert numbers(chunk) == [3]
    assert [damage.reason for damage in chunk.damages] == ["malformed"] * 2


def test_kinds_of_later_versions_are_passed(tmp_path: Path) -> None:
    write(
        tmp_path,
        "00000001.seg",
        events(1, 1),
        encode_frame(7, 2, 0, b"?"),
        encode_frame(METADATA, 2, 0, b'[["?",1],{},["l",1],["l",0,"a","b","c",5]]'),
        encode_frame(8, 2, 3, b"?"),
        events(5, 1),
        END,
    )
    chunk = read(tmp_path)
    assert numbers(chunk) == [1, 5]
    assert [(damage.reason, damage.missing) for damage in chunk.damages] == [("unknown kind 8", 3)]
    assert [(loss.experiment, loss.count) for loss in chunk.losses] == [("a", 5)]


def test_a_newer_format_holds_its_writer_and_no_other(tmp_path: Path) -> None:
    import zlib

    frame = bytearray(events(3, 1))
    frame[4] = 2
    frame[12:16] = zlib.crc32(frame[:12] + frame[16:]).to_bytes(4, "little")
    write(tmp_path, "00000001.seg", events(1, 2), bytes(frame), END)
    write(tmp_path, "00000002.seg", events(4, 1), END)
    chunk = read(tmp_path)
    for _ in range(2):
        assert [damage.reason for damage in chunk.damages] == ["newer format 2"]
        assert chunk.positions == {"w-1": Position(1, len(events(1, 2)), 3)}
        chunk = read(tmp_path, chunk.positions)


def test_removed_segments_are_passed_as_gaps(tmp_path: Path) -> None:
    write(tmp_path, "00000003.seg", events(7, 1), END)
    chunk = read(tmp_path, {"w-1": Position(1, 500, 4)})
    assert (numbers(chunk), chunk.gaps) == ([7], [Gap("w-1", 4, 3)])


def test_a_file_shorter_than_the_position_is_damage(tmp_path: Path) -> None:
    write(tmp_path, "00000001.open", events(1, 1))
    chunk = read(tmp_path, {"w-1": Position(1, 10_000, 3)})
    assert [damage.reason for damage in chunk.damages] == ["shrunk"]
    assert read(tmp_path, chunk.positions).damages == []


def test_a_segment_sealed_between_listing_and_opening_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "00000001.open", events(1, 2), END)
    real = os.listdir

    def list_then_seal(folder: Any) -> list[str]:
        names = real(folder)
        path.rename(path.with_suffix(".seg"))
        return names

    monkeypatch.setattr(os, "listdir", list_then_seal)
    assert numbers(read(tmp_path)) == [1, 2]


def test_a_segment_that_is_renamed_while_the_folder_is_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        write(tmp_path, f"{number:08d}.seg", events(number, 1), END)
    write(tmp_path, "00000005.seg", events(4, 1), END)  # 4 never was
    real = os.listdir
    lists = []

    def list_badly(folder: Any) -> list[str]:
        lists.append(real(folder))
        return [name for name in lists[-1] if "2" not in name or len(lists) > 1]

    monkeypatch.setattr(os, "listdir", list_badly)
    chunk = read(tmp_path)
    assert (numbers(chunk), chunk.gaps, chunk.damages) == ([1, 2, 3, 4], [], [])


def test_a_stretch_that_changed_while_it_was_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torn frame was cut off and others appended, of which the read caught a mixture."""
    write(tmp_path, "00000001.open", events(1, 1), events(2, 1), events(3, 1))
    real = os.pread
    reads = []

    def mix(file: int, size: int, offset: int) -> bytes:
        reads.append(real(file, size, offset))
        return reads[-1].replace(b'["e",2]', b'["e",?]') if len(reads) == 1 else reads[-1]

    monkeypatch.setattr(os, "pread", mix)
    chunk = read(tmp_path)
    assert (numbers(chunk), chunk.damages) == ([1, 2, 3], [])


def test_frames_larger_than_a_slice_and_damage_larger_than_a_slice(tmp_path: Path) -> None:
    size = 9 * 2**20
    big = encode_frame(EVENTS, 2, 1, encode_records([("e", "x" * size)]))
    rubbish = b"\xffABL" * 2**20 + bytes(2**22)
    write(tmp_path, "00000001.seg", events(1, 1), big, rubbish, events(3, 1), END)
    chunk = LogReader(tmp_path).read({})
    assert [len(str(record[1])) for _, _, record in chunk.rows()] == [1, size, 1]
    assert [(damage.reason, damage.length) for damage in chunk.damages] == [
        ("corrupt", len(rubbish))
    ]


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_no_segment_is_neither_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, "00000001.open", events(1, 1))
    path.rename(tmp_path / "kept")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "kept")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(path)
    (tmp_path / "w-2").symlink_to(path.parent)
    chunk = read(tmp_path)
    assert len(chunk) == 0
    assert len(chunk.damages) == 1
    assert seal_dead(tmp_path) == []


DYING = """
import os, signal, sys
from abkit.log import SegmentWriter
writer = SegmentWriter(sys.argv[1])
for number in range(1, 4):
    writer.append(("e", number))
if len(sys.argv) > 2:  # die in the middle of a write
    os.write(writer._journal.segments._segment._file, bytes.fromhex(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("torn", [b"", events(4, 1)[:-3], events(4, 1)[:9]])
def test_what_a_dead_writer_left_is_sealed_and_its_torn_end_is_damage(
    tmp_path: Path, torn: bytes
) -> None:
    command = [sys.executable, "-c", DYING, str(tmp_path), *([torn.hex()] if torn else [])]
    assert subprocess.run(command, check=False).returncode == -9
    with SegmentWriter(tmp_path) as living:
        living.append(("e", 1))
        live = read(tmp_path)
        assert (len(live), live.damages) == (4, [])
        (path,) = seal_dead(tmp_path)
        assert path.name == "00000001.seg"
        assert path.parent.name != living.counts.writer_id
        assert seal_dead(tmp_path) == []
        assert living.append(("e", 2))
    for positions, expected in (({}, 5), (live.positions, 1)):
        chunk = read(tmp_path, positions)
        assert len(chunk) == expected
        assert [(damage.reason, damage.length) for damage in chunk.damages] == (
            [("torn tail", len(torn))] if torn else []
        )
        assert chunk.gaps == []
        assert read(tmp_path, chunk.positions).damages == []


def test_damage_before_a_known_number_is_corruption_and_not_a_torn_end(tmp_path: Path) -> None:
    end = encode_metadata(4, [("s", 0.0, "sealed")])
    write(tmp_path, "00000001.seg", events(1, 2), b"rubbish", end)
    (damage,) = read(tmp_path).damages
    assert (damage.reason, damage.first_missing, damage.missing) == ("corrupt", 3, 1)


def test_damage_is_charged_with_its_own_loss_alone(tmp_path: Path) -> None:
    write(tmp_path, "00000001.seg", events(1, 2), b"rubbish", events(4, 1), events(9, 1), END)
    chunk = read(tmp_path)
    assert [(damage.first_missing, damage.missing) for damage in chunk.damages] == [(3, 1)]
    assert [(gap.first_sequence, gap.count) for gap in chunk.gaps] == [(3, 1), (5, 4)]


def test_malformed_events_do_not_count_towards_the_limit(tmp_path: Path) -> None:
    bad = encode_frame(EVENTS, 1, 5, b"[1,2,3,4,5]")
    write(tmp_path, "00000001.seg", bad, events(6, 1), events(7, 1), END)
    chunk = LogReader(tmp_path).read({}, max_records=1)
    assert numbers(chunk) == [6]


@pytest.mark.parametrize("order", [1, -1])
def test_a_sealed_segment_hides_an_open_copy_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    write(tmp_path, "00000001.seg", events(1, 3), END)
    write(tmp_path, "00000001.open", events(1, 1))
    names = ["00000001.seg", "00000001.open"][::order]
    monkeypatch.setattr("abkit.log.reader.os.listdir", lambda _folder: names)
    assert numbers(read(tmp_path)) == [1, 2, 3]


def test_a_frame_longer_than_any_writer_makes_is_damage(tmp_path: Path) -> None:
    long = encode_frame(EVENTS, 2, 1, encode_records([("e", "x" * 2**24)]))
    write(tmp_path, "00000001.seg", events(1, 1), long, events(3, 1), END)
    chunk = read(tmp_path)
    assert numbers(chunk) == [1, 3]
    assert [(damage.reason, damage.missing) for damage in chunk.damages] == [("corrupt", 1)]


def test_a_file_that_took_the_place_of_a_dead_ones_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "00000001.open", events(1, 1))
    real = fcntl.flock

    def lock(file: int, operation: int) -> None:
        path.unlink()
        path.write_bytes(events(1, 2))  # a living writer's, made since the other was opened
        real(file, operation)

    monkeypatch.setattr("abkit.log.recovery.fcntl.flock", lock)
    assert seal_dead(tmp_path) == []
    assert path.exists()
    assert numbers(read(tmp_path)) == [1, 2]


def test_a_limit_in_bytes_bounds_a_read_and_loses_nothing(tmp_path: Path) -> None:
    writers = [SegmentWriter(tmp_path, segment_bytes=700_000) for _ in range(2)]
    for number in range(1, 61):
        for writer in writers:
            writer.append(("e", number, "x" * 60_000))
    for writer in writers:
        writer.close()
    reader, positions = LogReader(tmp_path), dict[str, Position]()
    seen: list[tuple[str, int]] = []
    reads = 0
    while True:
        chunk = reader.read(positions, max_bytes=500_000)
        rows = [row[:2] for row in chunk.rows()]
        assert len(rows) <= 24  # a segment of each
        assert chunk.gaps == chunk.damages == []
        seen += rows
        positions = chunk.positions
        reads += 1
        if not chunk.has_more:
            break
    assert reads >= 5
    assert len(seen) == len(set(seen)) == 120


@pytest.mark.parametrize("most", [1, 300, 70_000])
def test_what_damage_has_cost_is_known_at_any_limit_in_bytes(tmp_path: Path, most: int) -> None:
    write(tmp_path, "00000001.seg", events(1, 300), b"rubbish")
    write(tmp_path, "00000002.seg", b"rubbish", b"\xff" * 70_000)
    write(tmp_path, "00000003.seg", events(305, 2), END)
    positions = dict[str, Position]()
    found: list[tuple[int, int]] = []
    damages: list[int] = []
    while True:
        chunk = LogReader(tmp_path).read(positions, max_bytes=most)
        found += [(gap.first_sequence, gap.count) for gap in chunk.gaps]
        damages += [damage.missing for damage in chunk.damages]
        positions = chunk.positions
        if not chunk.has_more:
            break
    assert found == [(301, 4)]
    assert sum(damages) == 4
