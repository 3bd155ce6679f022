"""The segment writer: modes, counts, rotation, and what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import stat
import struct
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest

from abkit.errors import ConfigError
from abkit.log import LogReader, SegmentWriter
from abkit.log.frames import EVENTS
from abkit.log.scan import scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODES = ("os", "buffered", "fsync")
EVENT = ("e", 1732435200.125, "ranker", "unit-1", "treatment", 3)


def sequences(folder: Path) -> list[int]:
    return [sequence for _, sequence, _ in LogReader(folder).read({}).rows()]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


class HasBadText:
    def __str__(self) -> NoReturn:
        raise RuntimeError

    __repr__ = __str__


class Named(NamedTuple):
    kind: str
    value: float


class Endless(tuple[Any, ...]):
    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        return itertools.repeat("e")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = {
    "lone surrogate": ("e", "\ud800"),
    "surrogate pair in two halves": ("e", "\ud83d\ude00"),
    "surrogate in a key": ("e", {"\udfff": 1}),
    "not a number": ("e", float("nan")),
    "infinity": ("e", -float("inf")),
    "integer beyond Python's digits": ("e", 10**5000),
    "bytes": ("e", b"bytes"),
    "a set": ("e", {1}),
    "an object that has no text": ("e", HasBadText()),
    "a list in itself": ("e", nested(5000)),
    "nested just too deep": ("e", nested(40)),
    "keys that are numbers": ("e", {1: 2}),
    "a tuple that never ends": Endless(("e",)),
    "no kind": (),
    "a kind that is a number": (1, 2),
    "no tuple": "e",
    "nothing": None,
    "a list": ["e", 1.0],
    "a text that is too long": ("e", "x" * 10_000_000),
    "a list that is too long": ("e", [0] * 1_000_000),
    "much text in many places": ("e", *["x" * 1000] * 1000),
}


@pytest.mark.parametrize("mode", MODES)
def test_what_was_appended_is_what_is_read(tmp_path: Path, mode: Any) -> None:
    records = [
        ("e", 0.1, "ranker", "ünït \x00\n\"'\\ 𝄞", "treatment", 2**63),
        ("o", 5e-324, "u", "m", -1.7976931348623157e308, "", ""),
        ("d", None, True, [1, [2.5, {"a": "b"}]], 10**400),
        Named("e", -0.0),
    ]
    with SegmentWriter(tmp_path / "log", durability=mode) as writer:
        assert all(writer.append(record, "ranker", "treatment") for record in records)
    chunk = LogReader(tmp_path / "log").read({})
    assert [repr(record) for _, _, record in chunk.rows()] == [
        repr(list(record)) for record in records
    ]
    assert [sequence for _, sequence, _ in chunk.rows()] == [1, 2, 3, 4]
    assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []


@pytest.mark.parametrize("mode", MODES)
def test_construction_touches_nothing_and_starts_no_thread(tmp_path: Path, mode: Any) -> None:
    threads = threading.active_count()
    writer = SegmentWriter(tmp_path / "log", durability=mode)
    assert writer.counts.accepted == 0
    writer.close()
    assert not (tmp_path / "log").exists()
    assert threading.active_count() == threads


def test_an_acknowledged_event_can_be_read_at_once(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    for number in range(1, 6):
        assert writer.append(EVENT)
        assert sequences(tmp_path)[-1] == number
    writer.close()


def test_buffered_events_become_visible_when_traffic_stops(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, durability="buffered", flush_seconds=0.02)
    for number in (1, 2):
        writer.append(EVENT)
        assert wait_for(lambda: len(sequences(tmp_path)) == number)  # noqa: B023 - called at once
    writer.close()


def test_buffered_events_are_written_by_count_where_threads_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer = SegmentWriter(tmp_path, durability="buffered")
    for number in (1, 2, 3):
        assert writer.append(EVENT)
        assert sequences(tmp_path)[-1] == number
    writer.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_record_is_counted_and_a_gap_and_harms_no_other(
    tmp_path: Path, mode: Any, what: str
) -> None:
    with SegmentWriter(tmp_path, durability=mode) as writer:
        writer.append(EVENT)
        taken = writer.append(HOSTILE[what], "ranker", "control")  # type: ignore[arg-type]
        assert taken == (mode == "buffered")
        writer.append(EVENT)
        writer.flush()
        counts = writer.counts
    ((key, dropped),) = counts.dropped.items()
    assert key[:2] == ("ranker", "control")
    assert key[2] in {"unencodable", "too_large"}
    assert (counts.accepted, counts.written, dropped) == (3, 2, 1)
    chunk = LogReader(tmp_path).read({})
    assert [record for _, _, record in chunk.rows()] == [list(EVENT)] * 2
    assert sum(gap.count for gap in chunk.gaps) == 1
    assert [(loss.variant, loss.reason, loss.count) for loss in chunk.losses] == [
        ("control", key[2], 1)
    ]


@pytest.mark.parametrize("name", [None, 7, ["x"], "\ud800", "x" * 10_000, HasBadText()])
def test_hostile_names_are_counted_under_no_name(tmp_path: Path, name: Any) -> None:
    with SegmentWriter(tmp_path) as writer:
        assert not writer.append((), name, name)
        assert writer.counts.dropped == {("", "", "unencodable"): 1}
    assert LogReader(tmp_path).read({}).losses[-1].count == 1


def test_memory_for_counts_is_bounded(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, durability="buffered") as writer:
        for number in range(3000):
            writer.append((), f"experiment-{number}", "control")
        writer.flush()
        dropped = writer.counts.dropped
    assert len(dropped) == 1001
    assert dropped["", "", "unencodable"] == 2000


@pytest.mark.parametrize("mode", MODES)
def test_events_after_the_end_are_dropped_and_counted(tmp_path: Path, mode: Any) -> None:
    writer = SegmentWriter(tmp_path, durability=mode)
    writer.append(EVENT)
    writer.close()
    assert not writer.append(EVENT, "ranker", "control")
    writer.close()
    assert writer.counts.dropped == {("ranker", "control", "closed"): 1}
    assert sequences(tmp_path) == [1]


@pytest.mark.parametrize("mode", MODES)
def test_segments_rotate_by_size_and_lose_nothing(tmp_path: Path, mode: Any) -> None:
    with SegmentWriter(tmp_path, durability=mode, segment_bytes=2_000, flush_records=4) as writer:
        for _ in range(500):
            writer.append(EVENT)
        names = [path.name for path in tmp_path.glob("*/*")]
    files = sorted(tmp_path.glob("*/*"))
    assert len(files) > 15
    assert "00000001.seg" in names or mode == "fsync"
    assert [file.name for file in files] == [f"{n:08d}.seg" for n in range(1, len(files) + 1)]
    assert max(file.stat().st_size for file in files) < 2_500
    chunk = LogReader(tmp_path).read({})
    assert [sequence for _, sequence, _ in chunk.rows()] == list(range(1, 501))
    assert [*chunk.gaps, *chunk.damages] == []


def test_segments_rotate_by_age_on_the_monotonic_clock(tmp_path: Path) -> None:
    now = [0.0]
    writer = SegmentWriter(
        tmp_path, monotonic=lambda: now[0], clock=lambda: -1e9, segment_seconds=60.0
    )
    for second in (0.0, 59.0, 60.0, 61.0, 200.0):
        now[0] = second
        writer.append(EVENT)
    assert sorted(path.name for path in tmp_path.glob("*/*")) == [
        "00000001.seg",
        "00000002.seg",
        "00000003.open",
    ]
    writer.close()
    assert sequences(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("now", [float("nan"), "noon", 1 / 3])
def test_a_broken_clock_costs_no_event(tmp_path: Path, now: Any) -> None:
    with SegmentWriter(tmp_path, clock=lambda: now) as writer:
        assert writer.append(EVENT)
    assert sequences(tmp_path) == [1]


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with SegmentWriter(tmp_path / "deep" / "log") as writer:
            writer.append(EVENT)
            (file,) = (tmp_path / "deep" / "log").glob("*/*")
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(file.parents[1].stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_relative_folder_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    writer = SegmentWriter("log")
    monkeypatch.chdir(tmp_path / "elsewhere")
    writer.append(EVENT)
    writer.close()
    assert sequences(tmp_path / "log") == [1]


def test_the_bytes_are_as_documented(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, clock=lambda: 12.5) as writer:
        writer.append(EVENT)
        writer_id = writer.counts.writer_id
    content = (tmp_path / writer_id / "00000001.seg").read_bytes()
    found = []
    while content:
        magic, form, kind, zero, length, checksum, first, count = struct.unpack_from(
            "<4sBBHIIQI", content
        )
        payload = content[28 : 28 + length]
        assert (magic, form, zero) == (b"\xffABL", 1, 0)
        assert checksum == zlib.crc32(content[:12] + content[16:28] + payload)
        found.append((kind, first, count, json.loads(payload)))
        content = content[28 + length :]
    head, event, end = found
    (about,) = head[3]
    assert head[:3] == (2, 1, 0)
    assert about[:2] == ["h", 12.5]
    assert about[2] == {
        "format": 1,
        "writer": writer_id,
        "host": about[2]["host"],
        "pid": os.getpid(),
        "segment": 1,
    }
    assert event == (1, 1, 1, [list(EVENT)])
    assert end == (2, 2, 0, [["s", 12.5, "sealed"]])


@pytest.mark.parametrize(
    "wrong",
    [
        {"durability": "maybe"},
        {"segment_bytes": 0},
        {"queue_records": 0},
        {"flush_records": -1},
        {"flush_seconds": float("nan")},
        {"segment_seconds": 0.0},
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SegmentWriter(tmp_path, **wrong)


def test_a_frame_of_large_records_is_bounded(tmp_path: Path) -> None:
    writer = SegmentWriter(
        tmp_path, durability="buffered", flush_records=1_000, flush_seconds=1_000.0
    )
    for _ in range(40):
        assert writer.append(("e", "x" * 200_000))
    assert writer.flush()
    writer.close()
    (path,) = tmp_path.glob("*/*.seg")
    found = scan(path.read_bytes(), is_end=True, is_final=True)
    counts = [events for kind, _, events, _, _ in found.frames if kind == EVENTS]
    assert sum(counts) == 40
    assert max(counts) <= 6  # a little over 2**20 characters
