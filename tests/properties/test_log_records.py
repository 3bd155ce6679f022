"""Whatever is appended comes back the same, or is refused; whatever is damaged is never wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abkit.log import Chunk, LogReader, SegmentWriter
from abkit.log.frames import EVENTS, encode_event
from abkit.log.scan import decode, scan

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
records = st.builds(lambda kind, rest: (kind, *rest), st.text(max_size=3), st.lists(values))


def is_plain(value: Any) -> bool:
    """Whether JSON in UTF-8 can say it."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(is_plain(item) for pair in value.items() for item in pair)
    return not isinstance(value, (list, tuple)) or all(map(is_plain, value))


def read_in_steps(folder: Path, limit: int) -> list[Chunk]:
    chunks = [LogReader(folder).read({}, max_records=limit)]
    while chunks[-1].has_more:
        chunks.append(LogReader(folder).read(chunks[-1].positions, max_records=limit))
    return chunks


@settings(deadline=None)
@given(
    batch=st.lists(records, max_size=40),
    durability=st.sampled_from(["os", "buffered"]),
    segment_bytes=st.integers(1, 3000),
    flush_records=st.integers(1, 9),
    limit=st.integers(1, 50),
)
def test_records_come_back_the_same_or_are_gaps(
    batch: list[tuple[Any, ...]],
    durability: Any,
    segment_bytes: int,
    flush_records: int,
    limit: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with SegmentWriter(
            folder,
            durability=durability,
            segment_bytes=segment_bytes,
            flush_records=flush_records,
        ) as writer:
            for record in batch:
                writer.append(record)
        chunks = read_in_steps(Path(folder), limit)
    rows = [row for chunk in chunks for row in chunk.rows()]
    good = [record for record in batch if is_plain(record)]
    assert [repr(record) for _, _, record in rows] == [repr(list(record)) for record in good]
    seen = {sequence for _, sequence, _ in rows}
    gaps = [gap for chunk in chunks for gap in chunk.gaps]
    missing = {gap.first_sequence + step for gap in gaps for step in range(gap.count)}
    assert len(seen) == len(rows)
    assert not seen & missing
    assert seen | missing == set(range(1, len(batch) + 1))
    lost = max((loss.count for chunk in chunks for loss in chunk.losses), default=0)
    assert len(missing) == lost == len(batch) - len(good)
    assert not any(chunk.damages for chunk in chunks)
    counts = writer.counts
    assert counts.accepted == counts.written + sum(counts.dropped.values()) == len(batch)


@given(record=st.one_of(records, st.tuples(values), values))
def test_encoding_never_raises(record: Any) -> None:
    payload, reason = encode_event(record)
    assert bool(payload) != bool(reason)


def make_segment() -> tuple[bytes, list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        with SegmentWriter(folder, durability="buffered", flush_records=3) as writer:
            for number in range(60):
                writer.append(("o", number / 7, f"unit-{number}", "ÿ", float(number)))
        content = next(Path(folder).glob("*/*.seg")).read_bytes()
        rows = [record for _, _, record in LogReader(folder).read({}).rows()]
    return content, rows


@pytest.fixture(scope="module")
def segment() -> tuple[bytes, list[Any]]:
    return make_segment()


# Where to cut, how many bytes to take out (at most up to the next cut), and what to put in.
edits = st.dictionaries(
    st.integers(0, 6000), st.tuples(st.integers(0, 300), st.binary(max_size=300)), min_size=1
)


@settings(max_examples=400, deadline=None)
@given(edits=edits, finality=st.sampled_from([True, False]))
def test_damage_loses_only_what_it_touches(
    segment: tuple[bytes, list[Any]],
    edits: dict[int, tuple[int, bytes]],
    finality: bool,  # noqa: FBT001 - from hypothesis
) -> None:
    content, rows = segment
    original = scan(content, is_end=True, is_final=True).frames
    kept = {frame[:3]: frame[3:] for frame in original}
    changed = content
    following = len(content)
    for start in sorted(edits, reverse=True):
        length, new = edits[start]
        stop = min(start + length, following)
        following = start
        changed = changed[:start] + new + changed[stop:]
        kept = {
            header: (begin, end)
            for header, (begin, end) in kept.items()
            if not (begin < stop and start < end and (begin < start or start < stop))
        }
    found = scan(changed, is_end=True, is_final=finality).frames
    assert kept.keys() <= {frame[:3] for frame in found}
    for frame in found:
        if frame[0] == EVENTS:
            _, first, count, _, _ = frame
            assert decode(changed, [frame]) == rows[first - 1 : first - 1 + count]
