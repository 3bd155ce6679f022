"""The trail as a file: opened with care, read from its end, appended to and synced."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from abkit.errors import StoreError
from abkit.trail.lines import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from abkit.trail.lines import Line

LOG: Final = "audit/log.jsonl"
_BLOCK: Final = 1 << 16
# Further back no line of ours can be hidden: whoever put so much behind it has damaged the trail.
MOST_TAIL: Final = 1 << 24


@contextlib.contextmanager
def opened(workspace: Path) -> Iterator[int]:
    """The trail, open for reading and appending; it is made where it is absent.

    Raises:
        StoreError: what stands in its place is no plain file, or the system refuses.
    """
    path = workspace / LOG
    folder = path.parent
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        if folder.is_symlink():
            raise StoreError(f"{folder} is a symbolic link; the trail is written to no other place")
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            handle = os.open(path, flags)
        except FileNotFoundError:
            handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            for made in (folder, workspace):
                _sync_folder(made)
    except OSError as error:
        raise StoreError(f"cannot open the audit trail {path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise StoreError(f"the audit trail {path} is no plain file")
        yield handle
    finally:
        os.close(handle)


def whole(workspace: Path) -> bytes:
    """All of the trail; nothing before its first line.

    Raises:
        StoreError: what stands in its place is no plain file, or the system refuses.
    """
    path = workspace / LOG
    # Nobody waits for the other end of a pipe that somebody has put there.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StoreError(f"the audit trail {path} is no plain file; move it away")
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"cannot read the audit trail {path}: {error.strerror}") from None


def tail(handle: int) -> tuple[Line | None, bytes]:
    """The last good line, and what an unfinished write has left behind the last line feed.

    A good line that lacks nothing but its line feed is both.

    Raises:
        StoreError: there is no good line for a long way back.
    """
    size = os.fstat(handle).st_size
    length = _BLOCK
    while True:
        begin = max(0, size - length)
        *whole, torn = os.pread(handle, size - begin, begin).split(b"\n")
        finished = parse(torn)
        if finished is not None and (whole or begin == 0):
            return finished, torn
        for raw in reversed(whole if begin == 0 else whole[1:]):
            line = parse(raw)
            if line is not None:
                return line, torn
        if begin == 0:
            return None, torn
        if length >= MOST_TAIL:
            raise StoreError(f"the last {length:,} bytes of the audit trail are damaged")
        length *= 4


def last_of(handle: int, kind: str, key: str) -> Line | None:
    """The newest line about one thing; None if there is none."""
    needle = b'"kind":"%s","key":"%s"' % (kind.encode(), key.encode())
    return last_with(handle, needle)


def last_with(handle: int, needle: bytes) -> Line | None:
    """The newest good line that holds these bytes."""
    end = os.fstat(handle).st_size
    kept = b""  # the beginning of a line whose end was in the block before
    while end > 0:
        begin = max(0, end - _BLOCK)
        block = os.pread(handle, end - begin, begin) + kept
        first, *rest = block.split(b"\n")
        for raw in reversed(rest if begin else [first, *rest]):
            line = parse(raw) if needle in raw else None
            if line is not None:
                return line
        kept, end = first[:MOST_TAIL], begin
    return None


def append(handle: int, content: bytes) -> None:
    """Append, and force it to disk; on a failure what was there before stays.

    Raises:
        OSError: it could not be written.
    """
    size = os.fstat(handle).st_size
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
