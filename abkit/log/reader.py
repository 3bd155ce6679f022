"""The reading end of the event log: from stored positions on, past damage, idempotently."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from abkit.errors import StoreError
from abkit.log.chunk import Chunk, Position
from abkit.log.cursor import Cursor
from abkit.log.files import error_name
from abkit.log.scan import scan
from abkit.log.segment import OPEN_SUFFIX, SEALED_SUFFIX, SEGMENT_NAME, WRITER_NAME, segment_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
SLICE_BYTES: Final = 4 * 2**20
LEAST_SLICE_BYTES: Final = 2**16
BYTES_PER_RECORD: Final = 128
ANY_BYTES: Final = 2**62


class LogReader:
    """Reads the segments of all writers below a folder, live ones included.

    It holds no state: where to go on is in the positions that each read returns.

    Args:
        folder: of the whole log. It may be absent, which reads as empty.

    Examples:
        >>> import tempfile
        >>> from abkit.log import SegmentWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with SegmentWriter(folder) as writer:
        ...         taken = writer.append(("o", 0.5, "unit-1", "clicks", 2.0, "", ""))
        ...     chunk = LogReader(folder).read({})
        >>> [(sequence, record) for _, sequence, record in chunk.rows()]
        [(1, ['o', 0.5, 'unit-1', 'clicks', 2.0, '', ''])]
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = os.fsdecode(folder)

    def read(
        self,
        positions: Mapping[str, Position],
        *,
        max_records: int = 100_000,
        max_bytes: int = ANY_BYTES,
    ) -> Chunk:
        """The events after the given positions.

        Args:
            positions: by writer, from the last read; a writer that is absent is read from its
                beginning.
            max_records: events to stop at, shared fairly among the writers; no frame is split,
                so there may be some more.
            max_bytes: of segments to stop at, likewise; a writer's slice of 4 MiB is not split.

        Raises:
            StoreError: the folder is there but cannot be listed, or is a symbolic link.
        """
        chunk = Chunk(positions=dict(positions))
        with open_root(self._folder) as root:
            if root is None:
                return chunk
            cursors = [
                Cursor(writer, positions.get(writer, Position()), chunk)
                for writer in list_writers(root)
            ]
            waiting = cursors
            left = max_records
            room = max_bytes
            while waiting and left > 0 and room > 0:
                quotas = -(-left // len(waiting)), -(-room // len(waiting))
                waiting = [item for item in waiting if not _advance(root, item, *quotas)]
                left = max_records - sum(item.events for item in cursors)
                room = max_bytes - sum(item.bytes for item in cursors)
        chunk.positions.update({item.writer: item.position for item in cursors})
        duplicates = sum(item.duplicates for item in cursors)
        return replace(chunk, duplicates=duplicates, has_more=bool(waiting))


@contextmanager
def open_root(folder: str) -> Iterator[int | None]:
    """Descriptor of the log's folder; None if it does not exist."""
    try:
        root = os.open(folder, FOLDER_FLAGS)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise StoreError(
            f"the log folder {folder!r} cannot be read ({error.strerror});"
            " it must be a folder, not a symbolic link, and readable"
        ) from error
    try:
        yield root
    finally:
        os.close(root)


def list_writers(root: int) -> list[str]:
    """Names of the writers' folders, sorted."""
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            if WRITER_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def list_segments(folder: int) -> dict[int, str]:
    """Suffix by number of a writer's segments; a sealed one hides a copy that is not."""
    found: dict[int, str] = {}
    for name in os.listdir(folder):
        match = SEGMENT_NAME.fullmatch(name)
        if match and found.get(int(match[1])) != SEALED_SUFFIX:
            found[int(match[1])] = match[2]
    return found


def _list_from(folder: int, first: int) -> dict[int, str]:
    """Segments from a number on.

    A file that is renamed while the folder is listed may not be in the list at all. Where a
    number is missing it is therefore listed again: by then every segment below the highest has
    the name it had before, or its final one.
    """
    found = {n: suffix for n, suffix in list_segments(folder).items() if n >= first}
    last = max(found, default=0)
    if found and last - first + 1 != len(found):
        again = list_segments(folder).items()
        found |= {n: suffix for n, suffix in again if first <= n <= last}
    return found


@dataclass(frozen=True, slots=True)
class _Limit:
    """Where a cursor is to stop, counted from the beginning of the read."""

    events: int
    bytes: int

    def is_met(self, cursor: Cursor) -> bool:
        # What damage has cost is known only within the read that met it.
        is_read = cursor.bytes >= self.bytes and not cursor.is_open
        return cursor.events >= self.events or is_read


def _advance(root: int, cursor: Cursor, events: int, room: int) -> bool:
    """Read so many more events or bytes; True if there is nothing more to read now."""
    limit = _Limit(cursor.events + events, cursor.bytes + room)
    try:
        folder = os.open(cursor.writer, FOLDER_FLAGS, dir_fd=root)
        try:
            suffixes = _list_from(folder, cursor.segment)
            numbers = sorted(suffixes)
            for number in numbers:
                if limit.is_met(cursor):
                    return False
                # A writer that began another segment never comes back to this one.
                is_followed = number != numbers[-1]
                cursor.enter(number)
                is_done = _read_segment(
                    folder, cursor, limit, suffix=suffixes[number], is_followed=is_followed
                )
                if not is_done:
                    return not limit.is_met(cursor)
        finally:
            os.close(folder)
    except OSError as error:
        cursor.report(cursor.offset, 0, error_name(error))
    return True


def _read_segment(
    folder: int, cursor: Cursor, limit: _Limit, *, suffix: str, is_followed: bool
) -> bool:
    """Read on in a segment; True if it will never have more."""
    try:
        file = os.open(segment_name(cursor.segment, suffix), FILE_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        if suffix == OPEN_SUFFIX:  # sealed since it was listed
            return _read_segment(
                folder, cursor, limit, suffix=SEALED_SUFFIX, is_followed=is_followed
            )
        return is_followed  # removed
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            cursor.report(0, 0, "not a file")
            return False
        if status.st_size < cursor.offset:
            cursor.report(status.st_size, cursor.offset - status.st_size, "shrunk")
            cursor.offset = status.st_size
        return _read_file(
            file,
            cursor,
            limit,
            is_final=is_followed or suffix == SEALED_SUFFIX,
            is_followed=is_followed,
        )
    finally:
        os.close(file)


def _read_file(
    file: int, cursor: Cursor, limit: _Limit, *, is_final: bool, is_followed: bool
) -> bool:
    least = max(LEAST_SLICE_BYTES, (limit.events - cursor.events) * BYTES_PER_RECORD)
    size = least = min(SLICE_BYTES, least)
    is_reread = False
    while not limit.is_met(cursor):
        buffer = os.pread(file, size, cursor.offset)
        is_end = len(buffer) < size
        found = scan(buffer, is_end=is_end, is_final=is_final)
        if found.damaged and not is_final and not is_reread:
            # A writer that just cut back a torn frame may have appended while we were reading.
            is_reread = True
            continue
        start = cursor.offset
        cursor.take(buffer, found, limit.events)
        if cursor.is_foreign:
            cursor.leave()
            return True
        if cursor.events >= limit.events:
            return False
        if found.newer_format:
            cursor.report(cursor.offset, 0, f"newer format {found.newer_format}")
            return False
        if is_end:
            return cursor.offset == start + len(buffer) and _finish(
                cursor, is_final=is_final, is_followed=is_followed
            )
        size = least if found.stop else 2 * size
        is_reread = False
    return False


def _finish(cursor: Cursor, *, is_final: bool, is_followed: bool) -> bool:
    """Leave a segment that was read to its end, if that end is for good."""
    if not cursor.is_at_end_mark:
        if not is_final:
            return False
        if not is_followed:  # otherwise the next one's header tells whether anything is missing
            cursor.report(cursor.offset, 0, "no end mark")
    cursor.leave()
    return True
