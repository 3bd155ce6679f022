"""Taking records out of a sealed segment without moving a byte of what stays.

A record that is taken out leaves a tombstone in its place, an event like any other::

    ["x", time, experiment, variant]     or ["x"], if there is no room for more

Its frame is padded with spaces to the length that it had. So every frame keeps its place and its
sequence numbers: whoever has read the log up to some byte goes on reading there, and nothing
looks like damage.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import StoreError
from abkit.log.files import FILE_MODE
from abkit.log.frames import EVENTS, HEADER_BYTES, METADATA, encode_frame
from abkit.log.scan import Frame, decode, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FORGOTTEN: Final = "x"
"""Kind of the event that stands where one was taken out."""
DRAFT_PREFIX: Final = ".rewrite."

_SCANNER: Final = json.JSONDecoder()
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of a segment.

    Args:
        replaced: numbers of the events in whose place something else stands now.
        blanked: bytes overwritten with zeros because no event could be read in them.
    """

    replaced: tuple[int, ...] = ()
    blanked: int = 0


def rewrite_segment(
    path: Path,
    replace: Callable[[list[Any]], Sequence[list[Any]]],
    *,
    needles: Sequence[bytes] = (),
) -> Rewritten:
    """Replace records of a sealed segment; it has the same size and the same frames afterwards.

    The file is replaced in one step that survives a crash. Done twice, it changes nothing more.

    Args:
        path: of the segment.
        replace: what may stand in the place of a record, the best first, from which the first
            that fits is taken; nothing to keep the record. The last one must fit: `["x"]` does
            wherever a record holds any text beside its kind.
        needles: bytes that must not stay where no record can be read: a damaged stretch, or
            contents that are none, with one of them is overwritten.

    Raises:
        StoreError: the file is no segment, or cannot be read or replaced.
    """
    try:
        content = _read(path)
        found = scan(content, is_end=True, is_final=True)
        fresh = bytearray(content)
        replaced: list[int] = []
        blanked = 0
        for start, end in found.damaged:
            blanked += _blank(fresh, start, end, needles)
        for frame in found.frames:
            kind, first, count, start, end = frame
            if kind == METADATA:
                continue
            records = decode(content, [frame]) if kind == EVENTS else None
            if records is None:
                blanked += _blank_payload(fresh, frame, needles)
                continue
            wanted = {i: list(new) for i, record in enumerate(records) if (new := replace(record))}
            if not wanted:
                continue
            payload = _spliced(content[start + HEADER_BYTES : end], wanted)
            fresh[start:end] = encode_frame(EVENTS, first, count, payload)
            replaced += [first + i for i in sorted(wanted)]
        if fresh != content:
            _write(path, bytes(fresh))
    except OSError as error:
        raise StoreError(f"cannot rewrite the segment {path}: {error.strerror}") from None
    return Rewritten(tuple(replaced), blanked)


def tombstones(record: list[Any], experiment: object, variant: object) -> list[list[Any]]:
    """What may stand in the place of an event that is to be forgotten, the best first."""
    time = record[1] if len(record) > 1 and isinstance(record[1], (int, float)) else 0
    return [[FORGOTTEN, time, experiment, variant], [FORGOTTEN]]


def remove_drafts(folder: Path) -> None:
    """Remove what a process left behind that was killed while it rewrote a segment."""
    for draft in folder.glob(f"*/{DRAFT_PREFIX}*"):
        with contextlib.suppress(OSError):
            draft.unlink()


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise StoreError(f"{path} is no file")
        return opened.read()


def _spliced(payload: bytes, wanted: dict[int, list[list[Any]]]) -> bytes:
    """A payload of the same length with other records in some places; the rest to the byte."""
    text = payload.decode()
    parts: list[str] = []
    kept_from = 0
    spare = 0
    at = text.index("[") + 1
    for number in range(max(wanted) + 1):
        while text[at] in " \t\r\n,":
            at += 1
        _, end = _SCANNER.raw_decode(text, at)
        if number in wanted:
            new = _fitting(wanted[number], len(text[at:end].encode()))
            parts += [text[kept_from:at], new]
            kept_from = end
            spare += len(text[at:end].encode()) - len(new.encode())
        at = end
    parts.append(text[kept_from:])
    return "".join(parts).encode() + b" " * spare


def _fitting(candidates: list[list[Any]], most_bytes: int) -> str:
    for candidate in candidates:
        with contextlib.suppress(ValueError):  # an owner that is no text, a time that is none
            text = _ENCODER.encode(candidate)
            if len(text.encode()) <= most_bytes:
                return text
    raise StoreError(f"a record of {most_bytes} bytes leaves no room for a tombstone")


def _blank(content: bytearray, start: int, end: int, needles: Sequence[bytes]) -> int:
    """Overwrite a stretch that holds one of the needles; returns how many bytes."""
    if not any(content.find(needle, start, end) >= 0 for needle in needles):
        return 0
    content[start:end] = bytes(end - start)
    return end - start


def _blank_payload(content: bytearray, frame: Frame, needles: Sequence[bytes]) -> int:
    """The same for contents that are no records; the frame stays one, with its numbers."""
    kind, first, count, start, end = frame
    body = start + HEADER_BYTES
    if not any(content.find(needle, body, end) >= 0 for needle in needles):
        return 0
    content[start:end] = encode_frame(kind, first, count, b" " * (end - body))
    return end - body


def _write(path: Path, content: bytes) -> None:
    draft = path.parent / f"{DRAFT_PREFIX}{path.name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, FILE_MODE), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
