"""Turning queued events into the payload of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from abkit.events import Record
from abkit.log.frames import (
    MAX_PAYLOAD_BYTES,
    MAX_RECORD_CHARACTERS,
    encode_event,
    encode_records,
    measure,
)

if TYPE_CHECKING:
    from collections import deque

    from abkit.log.losses import Losses

MAX_BATCH_CHARACTERS: Final = 2**20

# A record, and the experiment and variant that its loss would count under.
Queued = tuple[Record, object, object]


@dataclass(frozen=True, slots=True)
class Batch:
    """A numbered frame of queued events; it keeps its numbers when its write is tried again."""

    data: bytes
    first_sequence: int
    events: list[Queued]


def take_payload(
    queue: deque[Queued], most_records: int, losses: Losses
) -> tuple[bytes, list[Queued]]:
    """Take events from a queue; what cannot be written is counted as lost.

    Args:
        queue: of events; other threads may append to it meanwhile.
        most_records: how many to take.
        losses: counts what had to be refused.

    Returns:
        The payload and the events in it.
    """
    events: list[Queued] = []
    size = 0
    for _ in range(min(len(queue), most_records)):
        event = queue.popleft()
        try:
            characters = measure(event[0])
        except Exception:  # noqa: BLE001 - whatever the record holds, serving goes on
            losses.add(event[1], event[2], "unencodable")
            continue
        if characters > MAX_RECORD_CHARACTERS:
            losses.add(event[1], event[2], "too_large")
            continue
        events.append(event)
        size += characters
        if size > MAX_BATCH_CHARACTERS:
            break
    try:
        payload = encode_records([event[0] for event in events])
        if len(payload) <= MAX_PAYLOAD_BYTES:
            return payload, events
    except Exception:  # noqa: BLE001, S110 - the same; now see which one it was
        pass
    return _encode_singly(events, losses)


def _encode_singly(events: list[Queued], losses: Losses) -> tuple[bytes, list[Queued]]:
    parts: list[bytes] = []
    good: list[Queued] = []
    room = MAX_PAYLOAD_BYTES
    for event in events:
        part, reason = encode_event(event[0])
        if not reason and len(part) > room:
            reason = "too_large"
        if reason:
            losses.add(event[1], event[2], reason)
            continue
        room -= len(part)
        parts.append(part[1:-1])
        good.append(event)
    return b"[%b]" % b",".join(parts), good
