"""The event log: append-only segments, the truth from which every store is rebuilt.

Each process appends to files of its own, `FOLDER/<writer id>/<number>.open`, sealed by rename
to `.seg`. The writer id is made of host, pid and 64 random bits; numbers have 8 digits. A
segment is a row of frames, each appended by one write::

    bytes   field           holds (little-endian)
    0-3     magic           FF 41 42 4C; FF is in no UTF-8 text, so no record can forge it
    4       format          1
    5       kind            1 events, 2 metadata
    6-7     reserved        0
    8-11    payload length  bytes, at most 16 MiB
    12-15   checksum        CRC-32 of bytes 0-11, 16-27 and the payload
    16-23   first sequence  of the first event; in metadata, of the next event, 0 if unknown
    24-27   count           number of events; 0 in metadata
    28-     payload         JSON array of records in UTF-8; a record is an array, kind first

Events have the numbers first, first + 1 and so on. A writer counts from 1, and each event handed
to it consumes a number, dropped ones too: a loss is a gap. Metadata consumes none::

    ["h", time, {"format", "writer", "host", "pid", "segment"}]     begins each segment
    ["l", time, experiment, variant, reason, count]                 events dropped so far
    ["s", time, "sealed" or "dead"]                                 end mark: nothing follows

The end mark is written by the writer, or by `seal_dead` after its death; a sealed file without
one was cut off, or its disk failed. (writer id, sequence) is the key of an event: a copied file
or a second read adds nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from abkit.log.files import FileSystem, OsFiles
from abkit.log.settings import Durability
from abkit.log.writer import SegmentWriter, WriterCounts

if TYPE_CHECKING:
    from abkit.log.chunk import Chunk, Damage, Gap, Loss, Position, Run
    from abkit.log.reader import LogReader
    from abkit.log.recovery import living, seal_dead

# The reading end, which serving code never loads.
_LATER = {
    "Chunk": "chunk",
    "Damage": "chunk",
    "Gap": "chunk",
    "LogReader": "reader",
    "Loss": "chunk",
    "Position": "chunk",
    "Run": "chunk",
    "living": "recovery",
    "seal_dead": "recovery",
}

__all__ = [
    "Chunk",
    "Damage",
    "Durability",
    "FileSystem",
    "Gap",
    "LogReader",
    "Loss",
    "OsFiles",
    "Position",
    "Run",
    "SegmentWriter",
    "WriterCounts",
    "living",
    "seal_dead",
]


def __getattr__(name: str) -> Any:
    """Import what reads the log when it is first used."""
    if name not in _LATER:
        raise AttributeError(f"module 'abkit.log' has no attribute {name!r}")
    value = getattr(import_module(f"abkit.log.{_LATER[name]}"), name)
    globals()[name] = value
    return value
