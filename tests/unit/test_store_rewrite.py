"""Records taken out of a segment: the same bytes everywhere else, the same numbers, no damage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from abkit.errors import StoreError
from abkit.log import LogReader, Position, SegmentWriter
from abkit.log.frames import EVENTS, encode_frame, encode_metadata
from abkit.log.rewrite import remove_drafts, rewrite_segment
from abkit.store.redact import Redactor

if TYPE_CHECKING:
    from pathlib import Path

UNIT = 'ü"nit\\7'
END = encode_metadata(0, [("s", 0.0, "dead")])


def written(folder: Path, *, batch: int = 1) -> Path:
    with SegmentWriter(folder, durability="buffered", flush_records=batch) as writer:
        for number in range(30):
            unit = UNIT if number % 3 == 0 else f"unit-{number}"
            writer.append(("e", 1.7e9 + number, "ranker", unit, "new", 1), "ranker", "new")
            writer.append(("o", 1.7e9 + number, unit, "clicks", number / 7, "", ""))
            if number == 10:
                writer.append((), "ranker", "old")  # a loss
    (path,) = folder.glob("*/*.seg")
    return path


@pytest.mark.parametrize("batch", [1, 16])
def test_what_stays_keeps_its_bytes_and_its_numbers(tmp_path: Path, batch: int) -> None:
    path = written(tmp_path, batch=batch)
    before, size = LogReader(tmp_path).read({}), path.stat().st_size
    redactor = Redactor(UNIT)
    done = rewrite_segment(path, redactor.replace, needles=redactor.needles)
    after = LogReader(tmp_path).read({})
    assert len(done.replaced) == 20
    assert redactor.owners == [("ranker", "new"), ("", "")] * 10
    assert path.stat().st_size == size
    assert path.stat().st_mode & 0o777 == 0o600
    assert (after.gaps, after.losses, after.damages) == (before.gaps, before.losses, [])
    assert after.positions == before.positions
    for old, new in zip(before.rows(), after.rows(), strict=True):
        assert old[:2] == new[:2]
        if old[1] in done.replaced:
            owner = ["ranker", "new"] if old[2][0] == "e" else ["", ""]
            assert new[2] == ["x", old[2][1], *owner]
        else:
            assert new[2] == old[2]
    assert all(needle not in path.read_bytes() for needle in redactor.needles)


def test_reading_goes_on_at_any_byte_as_if_nothing_had_been_rewritten(tmp_path: Path) -> None:
    path = written(tmp_path)
    places = [LogReader(tmp_path).read({}, max_records=n).positions for n in range(1, 61, 7)]
    rewrite_segment(path, Redactor(UNIT).replace)
    whole = list(LogReader(tmp_path).read({}).rows())
    for positions in places:
        chunk = LogReader(tmp_path).read(positions)
        ((_, position),) = positions.items()
        assert chunk.damages == []
        assert list(chunk.rows()) == [row for row in whole if row[1] >= position.next_sequence]


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    rewrite_segment(path, Redactor(UNIT).replace)
    content, inode = path.read_bytes(), path.stat().st_ino
    assert rewrite_segment(path, Redactor(UNIT).replace).replaced == ()
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)


def segment(folder: Path, *payloads: str, tail: bytes = END) -> Path:
    frames = [
        encode_frame(EVENTS, number, 1, text.encode()) for number, text in enumerate(payloads, 1)
    ]
    path = folder / "w-1" / "00000001.seg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(frames) + tail)
    return path


@pytest.mark.parametrize(
    "text",
    [
        '[["e", 1e9, "r", "\\u0075nit", "n", 1]]',  # spelt in another way
        '[ [ "o" , 1.50 , "unit" , "m" , 2E0 , "" , "" ] ]',
        '[["z","unit"]]',
        '[["z",{"unit":1}]]',
        '[["z",[["unit"]]]]',
        '[["e",1e999,"r","unit","n",1]]',
        '[["e",1,"\\ud800","unit","n",1]]',
        '[["e",1,{},"unit","n",1]]',
    ],
)
def test_other_writers_and_odd_events_leave_a_tombstone_too(tmp_path: Path, text: str) -> None:
    path = segment(tmp_path, text, '[["e",1,"r","other","n",1]]')
    size = path.stat().st_size
    done = rewrite_segment(path, Redactor("unit").replace)
    assert done.replaced == (1,)
    chunk = LogReader(tmp_path).read({})
    records = [record for _, _, record in chunk.rows()]
    assert records[0][0] == "x"
    assert records[1] == ["e", 1, "r", "other", "n", 1]
    assert chunk.damages == []
    assert path.stat().st_size == size
    assert b"unit" not in path.read_bytes()


def test_a_decision_loses_the_override_alone(tmp_path: Path) -> None:
    record = {"look": 1, "rollout": "v2", "rollout_state": {"overrides": {"unit": "a", "u": "b"}}}
    event = ["d", 1.0, "v2", 1, json.dumps(record)]
    path = segment(tmp_path, json.dumps([event]))
    redactor = Redactor("unit")
    assert rewrite_segment(path, redactor.replace).replaced == (1,)
    assert redactor.owners == [None]
    ((_, _, (*head, text)),) = LogReader(tmp_path).read({}).rows()
    assert head == event[:4]
    record["rollout_state"] = {"overrides": {"u": "b"}}
    assert json.loads(text) == record
    assert rewrite_segment(path, redactor.replace).replaced == ()


def test_bytes_that_cannot_be_read_are_blanked_if_they_hold_the_unit(tmp_path: Path) -> None:
    path = segment(tmp_path, '[["e",1,"r","unit","n",1]]', '[["e",2,"r","b","n",1]]', "no unit")
    content = bytearray(path.read_bytes())
    content[30] ^= 1  # the first frame's payload no longer fits its checksum
    path.write_bytes(content)
    before = LogReader(tmp_path).read({})
    redactor = Redactor("unit")
    done = rewrite_segment(path, redactor.replace, needles=redactor.needles)
    after = LogReader(tmp_path).read({})
    assert done.blanked > 0
    assert done.replaced == ()
    assert b"unit" not in path.read_bytes()
    assert after == before
    assert [damage.reason for damage in after.damages] == ["corrupt", "malformed"]


def test_what_is_no_segment_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    link = tmp_path / "link.seg"
    link.symlink_to(target)
    for path in (tmp_path, link, tmp_path / "absent"):
        with pytest.raises(StoreError, match=r"cannot rewrite|no file"):
            rewrite_segment(path, lambda _: ())


def test_drafts_of_the_killed_are_removed(tmp_path: Path) -> None:
    path = written(tmp_path)
    draft = path.parent / ".rewrite.00000001.seg.99"
    draft.touch()
    assert LogReader(tmp_path).read({}).damages == []
    remove_drafts(tmp_path)
    assert not draft.exists()
    assert path.exists()


def test_a_tombstone_that_does_not_fit_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    path = segment(tmp_path, '[["z"]]')
    before = path.read_bytes()
    big: list[list[Any]] = [["x" * 100]]
    with pytest.raises(StoreError, match="no room"):
        rewrite_segment(path, lambda _: big)
    assert path.read_bytes() == before
    assert LogReader(tmp_path).read({"w-1": Position()}).damages == []
