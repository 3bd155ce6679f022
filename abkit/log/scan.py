"""Finding the frames in a stretch of a segment, damaged or not, and decoding them.

Every function here is pure: bytes in, frames or records out.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NoReturn

from abkit.log.frames import (
    CHECKSUM_AT,
    COVERED_AT,
    FORMAT,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAX_PAYLOAD_BYTES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


# A frame with a right checksum: kind, first sequence, number of events, and the bytes (start,
# end) it takes. A plain tuple, because a million of them is what a full read makes.
Frame = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Scan:
    """What a stretch of a segment holds.

    Args:
        frames: in their order.
        damaged: stretches (start, end) that are no frames.
        stop: where the next scan begins.
        newer_format: format of the frame at `stop`, which this version cannot read; 0 if there
            is none.
    """

    frames: list[Frame] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    stop: int = 0
    newer_format: int = 0


def scan(buffer: bytes, *, is_end: bool, is_final: bool) -> Scan:
    """Find the frames in a stretch that begins where a frame should.

    Bytes that are no frame count as damaged once a frame follows them, or once nothing more can
    follow. Until then they are taken for a frame that is still being written.

    Args:
        buffer: the stretch.
        is_end: whether the file ended here when it was read.
        is_final: whether the file can no longer grow.
    """
    found = Scan()
    frames = found.frames
    unpack, crc32, length_of = HEADER.unpack_from, zlib.crc32, len(buffer)
    view = memoryview(buffer)
    at = 0
    while at < length_of:
        body = at + HEADER_BYTES
        if body <= length_of:
            magic, version, kind, _, length, checksum, first, count = unpack(buffer, at)
            end = body + length
            if (
                magic == MAGIC
                and length <= MAX_PAYLOAD_BYTES
                and end <= length_of
                and checksum
                == crc32(view[at + COVERED_AT : end], crc32(view[at : at + CHECKSUM_AT]))
            ):
                if version != FORMAT:
                    found.newer_format = version
                    break
                frames.append((kind, first, count, at, end))
                at = end
                continue
        following = _next_frame(buffer, at + 1)
        if following < 0 and not (is_end and is_final):
            break
        if following < 0:
            following = length_of
        found.damaged.append((at, following))
        at = following
    found.stop = at
    return found


def _next_frame(buffer: bytes, start: int) -> int:
    """Where the next frame with a right checksum begins; -1 if there is none."""
    at = buffer.find(MAGIC, start)
    while at >= 0:
        if at + HEADER_BYTES <= len(buffer):
            _, _, _, _, length, checksum, _, _ = HEADER.unpack_from(buffer, at)
            end = at + HEADER_BYTES + length
            if length <= MAX_PAYLOAD_BYTES and end <= len(buffer):
                head = zlib.crc32(buffer[at : at + CHECKSUM_AT])
                if checksum == zlib.crc32(memoryview(buffer)[at + COVERED_AT : end], head):
                    return at
        at = buffer.find(MAGIC, at + 1)
    return -1


def decode(buffer: bytes, frames: Sequence[Frame]) -> list[Any] | None:
    """All records of several frames; None if any of them is not what its header says.

    The payloads are parsed in one go, as an array of arrays: that the count of each is right is
    checked, so none can borrow records from its neighbour.
    """
    parts = [buffer[start + HEADER_BYTES : end] for _, _, _, start, end in frames]
    try:
        text = str(b"[%b]" % b",".join(parts), "utf-8")
        payloads = _DECODER.decode(text)
        if list(map(len, payloads)) != [events for _, _, events, _, _ in frames]:
            return None
        records = list(chain.from_iterable(payloads))
        is_right = set(map(type, records)) <= {list} and set(
            map(type, map(itemgetter(0), records))
        ) <= {str}
    except (ValueError, TypeError, IndexError, RecursionError):
        return None
    return records if is_right else None


def decode_metadata(buffer: bytes, frame: Frame) -> list[list[Any]]:
    """Metadata records of a frame; those of unknown shape are left out."""
    _, _, _, start, end = frame
    try:
        records = _DECODER.decode(str(buffer[start + HEADER_BYTES : end], "utf-8"))
    except (ValueError, RecursionError):
        return []
    if not isinstance(records, list):
        return []
    return [record for record in records if isinstance(record, list) and record]


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)
