"""One segment file while it is written: appended to, cut back after a failure, sealed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from abkit.log.files import FileSystem

OPEN_SUFFIX: Final = ".open"
SEALED_SUFFIX: Final = ".seg"
SEGMENT_NAME: Final = re.compile(r"(\d{8})(\.open|\.seg)", re.ASCII)
WRITER_NAME: Final = re.compile(r"[a-z0-9-]{1,200}", re.ASCII)


def segment_name(number: int, suffix: str) -> str:
    """Name of a segment's file."""
    return f"{number:08d}{suffix}"


class Segment:
    """One segment file that this process appends to.

    After any method raised, the segment is to be retired: nothing may be written to it again.

    Args:
        files: the file system.
        root: folder of the whole log.
        writer_id: name of the writer's own folder within it.
        number: of the segment.
        deadline: when it is to be sealed, on the writer's monotonic clock.
    """

    __slots__ = (
        "_file",
        "_files",
        "_folder",
        "_head_bytes",
        "_identity",
        "_is_named",
        "deadline",
        "is_syncable",
        "number",
        "root",
        "size_bytes",
    )

    def __init__(
        self, files: FileSystem, root: str, writer_id: str, number: int, deadline: float
    ) -> None:
        self._files = files
        self.root = root
        self.number = number
        self.deadline = deadline
        self.size_bytes = 0
        self.is_syncable = True
        self._head_bytes = 0
        self._is_named = False
        outer = files.open_folder(root)
        try:
            self._folder = files.open_folder(writer_id, outer)
        finally:
            files.close(outer)
        self._file = -1
        try:
            self._file = files.open_segment(self._folder, segment_name(number, OPEN_SUFFIX))
            self._identity = (files.identity(self._folder), files.identity(self._file))
        except BaseException:
            if self._file < 0:
                files.close(self._folder)
            else:
                self.discard()
            raise

    def begin(self, head: bytes) -> None:
        """Write the header; on failure the file is gone again."""
        try:
            self.write(head)
        except BaseException:
            self.discard()
            raise
        self._head_bytes = self.size_bytes

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing in it but the header."""
        return self.size_bytes == self._head_bytes

    def write(self, data: bytes) -> None:
        """Append all of it, or leave the file as it was as far as that is possible.

        Raises:
            OSError: the data is not in the file.
        """
        try:
            done = self._files.write(self._file, data)
            if done != len(data):
                self._write_rest(data[done:])
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.truncate(self._file, self.size_bytes)
            raise
        self.size_bytes += len(data)

    def _write_rest(self, data: bytes) -> None:
        while data:
            done = self._files.write(self._file, data)
            if done <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            data = data[done:]

    def sync(self) -> None:
        """Put the data and the file's name on disk.

        Raises:
            OSError: what was written since the last success may be lost. The system may have
                forgotten it by then, so asking again would get a false yes.
        """
        try:
            self._files.fsync(self._file)
            if not self._is_named:
                self._sync_names()
                self._is_named = True
        except OSError:
            self.is_syncable = False
            raise

    def _sync_names(self) -> None:
        self._files.fsync_folder(self._folder)
        self._sync_folder(self.root)
        # The folders above it may be as new, and each one's name is in the next.
        place = os.path.realpath(os.path.dirname(self.root))  # noqa: PTH120 - plain strings throughout
        above = ""
        while place != above:
            try:
                self._sync_folder(place)
            except PermissionError:
                return  # not one that we made, nor are those above it
            place, above = os.path.dirname(place), place  # noqa: PTH120 - the same

    def _sync_folder(self, path: str) -> None:
        folder = self._files.open_folder(path)
        try:
            self._files.fsync_folder(folder)
        finally:
            self._files.close(folder)

    def seal(self, *, durable: bool) -> None:
        """Give the file its final name and let go of it.

        Args:
            durable: put data and names on disk, the data first.

        Raises:
            OSError: a step failed; the file is closed all the same.
        """
        try:
            if durable:
                self.sync()
            self._files.rename(
                self._folder,
                segment_name(self.number, OPEN_SUFFIX),
                segment_name(self.number, SEALED_SUFFIX),
            )
            if durable:
                self._files.fsync_folder(self._folder)
        finally:
            self._close()

    def discard(self) -> None:
        """Remove a file that holds no event."""
        with contextlib.suppress(OSError):
            self._files.unlink(self._folder, segment_name(self.number, OPEN_SUFFIX))
        self._close()

    def release_inherited(self) -> None:
        """Close a forked child's copies of the descriptors; the parent's stay open.

        A program that closed all descriptors after the fork may use their numbers for other
        files by now: those are left alone.
        """
        for descriptor, identity in zip((self._folder, self._file), self._identity, strict=True):
            with contextlib.suppress(OSError):
                if self._files.identity(descriptor) == identity:
                    self._files.close(descriptor)

    def _close(self) -> None:
        for descriptor in (self._file, self._folder):
            with contextlib.suppress(OSError):
                self._files.close(descriptor)
