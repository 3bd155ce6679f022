"""The frame: what one write puts into a segment, and how a record becomes text.

The magic begins with byte 0xFF, which no UTF-8 text holds: nothing that a record says can look
like the start of a frame, so after damaged bytes the next frame is found by its magic.
"""

from __future__ import annotations

import json
import zlib
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.events import Record

MAGIC: Final = b"\xffABL"
FORMAT: Final = 1

EVENTS: Final = 1
METADATA: Final = 2

# The checksum stands between the two halves of the header that it covers.
_HEAD: Final = Struct("<4sBBHI")
_CHECKSUM: Final = Struct("<I")
_TAIL: Final = Struct("<QI")
HEADER: Final = Struct("<4sBBHIIQI")
HEADER_BYTES: Final = HEADER.size
CHECKSUM_AT: Final = _HEAD.size
COVERED_AT: Final = _HEAD.size + _CHECKSUM.size

MAX_PAYLOAD_BYTES: Final = 16 * 2**20
MAX_RECORD_CHARACTERS: Final = 2**18
MAX_DEPTH: Final = 32

# Kinds of metadata records.
HEADER_RECORD: Final = "h"
LOSS_RECORD: Final = "l"
END_RECORD: Final = "s"

_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)


def encode_frame(kind: int, first_sequence: int, count: int, payload: bytes) -> bytes:
    """One frame, ready to be written.

    Args:
        kind: EVENTS or METADATA.
        first_sequence: number of the first event; for metadata, of the next one.
        count: number of events; 0 for metadata.
        payload: JSON array of records in UTF-8.
    """
    head = _HEAD.pack(MAGIC, FORMAT, kind, 0, len(payload))
    covered = _TAIL.pack(first_sequence, count) + payload
    return head + _CHECKSUM.pack(zlib.crc32(covered, zlib.crc32(head))) + covered


def encode_metadata(next_sequence: int, records: Sequence[Record]) -> bytes:
    """A frame of metadata records; it consumes no sequence number.

    Args:
        next_sequence: number that the writer's next event will have; 0 where it is unknown.
        records: trusted ones, made by the log itself.
    """
    return encode_frame(METADATA, next_sequence, 0, encode_records(records))


def encode_records(records: Sequence[Record]) -> bytes:
    """Payload of one frame.

    Raises:
        Exception: of any kind, when a record is not JSON; use `measure` first.
    """
    return _ENCODER.encode(records).encode()


def encode_event(record: Record) -> tuple[bytes, str]:
    """Payload with one event, and why it was refused: "" when it was not. Never raises."""
    try:
        if measure(record) > MAX_RECORD_CHARACTERS:
            return b"", "too_large"
        payload = encode_records((record,))
    except Exception:  # noqa: BLE001 - whatever the record holds, serving goes on
        return b"", "unencodable"
    return (payload, "") if len(payload) <= MAX_PAYLOAD_BYTES else (b"", "too_large")


def measure(record: Record) -> int:
    """Characters of text in a record, so that a huge one is refused before it costs time.

    Raises:
        TypeError: it is not a tuple that begins with a string.
        ValueError: it is nested more than 32 deep, which not every reader could follow.
    """
    if type(record) is not tuple and (
        not isinstance(record, tuple) or type(record).__iter__ is not tuple.__iter__
    ):
        raise TypeError("a record is a tuple that begins with the name of its kind")
    size = 0
    for value in record:
        kind = type(value)
        if kind is str:
            size += len(value)
        elif kind is not float and kind is not int:
            size += _measure_nested(value, 1)
    if not isinstance(record[0], str):
        raise TypeError("the first element of a record names its kind")
    return size


def _measure_nested(value: Any, depth: int) -> int:
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, (list, tuple, dict)):
        return 1
    if depth > MAX_DEPTH:
        raise ValueError("a record is nested too deep")
    if len(value) > MAX_RECORD_CHARACTERS:
        return len(value)
    inner = list(value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in inner):
            raise TypeError("keys other than strings would not come back as they were")
        inner += value.values()
    size = 1
    for item in inner:
        size += _measure_nested(item, depth + 1)
        if size > MAX_RECORD_CHARACTERS:
            break
    return size
