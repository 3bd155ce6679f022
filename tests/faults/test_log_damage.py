"""Every truncation and every flipped bit of a segment: no wrong record, none undetected."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from abkit.log import Chunk, Damage, Position, SegmentWriter
from abkit.log.cursor import Cursor
from abkit.log.frames import EVENTS
from abkit.log.reader import _Limit, _read_file
from abkit.log.scan import Frame, scan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDS = 60


class Specimen:
    """A sealed segment in a file whose bytes can be changed, and what is in it."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.writer = path.parent.name
        self.file = os.open(path, os.O_RDWR)
        self.frames: list[Frame] = scan(self.content, is_end=True, is_final=True).frames
        self.rows = list(self.read(is_final=True).rows())

    def read(self, *, is_final: bool) -> Chunk:
        chunk = Chunk()
        cursor = Cursor(self.writer, Position(), chunk)
        _read_file(self.file, cursor, _Limit(10**6, 10**9), is_final=is_final, is_followed=False)
        return chunk

    def damages(self) -> list[Damage]:
        return self.read(is_final=True).damages


def append_all(writer: SegmentWriter, records: int) -> None:
    for number in range(records):
        unit = f"unit-{number}"
        writer.append(
            ("e", 1.7e9 + number / 7, "ranker", unit, "treatment", 1), "ranker", "treatment"
        )
        if number % 20 == 10:
            writer.append((), "ranker", "control")  # a loss, so that such a frame is here too


@pytest.fixture(params=[1, 7])
def specimen(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Specimen]:
    mode: Any = "os" if request.param == 1 else "buffered"
    with SegmentWriter(tmp_path, durability=mode, flush_records=request.param) as writer:
        append_all(writer, RECORDS)
    (path,) = tmp_path.glob("*/*.seg")
    specimen = Specimen(path)
    assert len(specimen.rows) == RECORDS
    yield specimen
    os.close(specimen.file)


@pytest.mark.fault("truncation at every byte")
def test_every_truncation(specimen: Specimen) -> None:
    for size in range(len(specimen.content) - 1, -1, -1):
        os.ftruncate(specimen.file, size)
        whole = sum(frame[2] for frame in specimen.frames if frame[4] <= size)
        sealed, live = specimen.read(is_final=True), specimen.read(is_final=False)
        assert list(sealed.rows()) == specimen.rows[:whole], size
        assert list(live.rows()) == specimen.rows[:whole], size
        assert sealed.damages, size
        assert live.damages == [], size


@pytest.mark.fault("every bit flipped in 60 records")
def test_every_flipped_bit(specimen: Specimen) -> None:
    for kind, first, count, start, end in specimen.frames:
        lost = range(first, first + count) if kind == EVENTS else range(0)
        kept = [row for row in specimen.rows if row[1] not in lost]
        for place in range(start, end):
            for bit in range(8):
                byte = specimen.content[place] ^ (1 << bit)
                os.pwrite(specimen.file, bytes([byte]), place)
                chunk = specimen.read(is_final=True)
                assert list(chunk.rows()) == kept, (place, bit)
                damage = chunk.damages[0]
                assert (damage.offset, damage.length) == (start, end - start), (place, bit)
                if lost:
                    assert damage.first_missing <= first, (place, bit)
                    assert damage.missing >= count, (place, bit)
            os.pwrite(specimen.file, specimen.content[place : place + 1], place)
    assert specimen.damages() == []
