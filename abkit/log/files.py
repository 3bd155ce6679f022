"""The seam to the file system: what a writer asks of it, and the real one.

Tests put a failing one in its place. Every method may raise OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Final, Protocol

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEGMENT_FLAGS: Final = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
)
_NO_LOCKS_HERE: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_NO_FOLDER_SYNC: Final = {errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}


class FileSystem(Protocol):
    """What a writer asks of the file system; folders and files are descriptors."""

    def open_folder(self, path: str, within: int | None = None) -> int:
        """Open a folder, made with mode 0700 where absent; a symbolic link is refused."""

    def open_segment(self, folder: int, name: str) -> int:
        """Make a file for appending, mode 0600, and lock it.

        Raises:
            FileExistsError: the name is taken, or `seal_dead` was quicker.
        """

    def write(self, file: int, data: bytes) -> int:
        """Append; returns the number of bytes taken, which may be fewer."""

    def truncate(self, file: int, size_bytes: int) -> None:
        """Cut the file off at a size."""

    def fsync(self, file: int) -> None:
        """Put a file on disk."""

    def fsync_folder(self, folder: int) -> None:
        """Put the names in a folder on disk."""

    def rename(self, folder: int, source: str, target: str) -> None:
        """Give a file of the folder another name."""

    def unlink(self, folder: int, name: str) -> None:
        """Remove a file of the folder."""

    def close(self, descriptor: int) -> None:
        """Close a file or folder."""

    def identity(self, descriptor: int) -> tuple[int, int]:
        """Device and inode, to know a file again."""


class OsFiles:
    """The file system of the operating system."""

    def open_folder(self, path: str, within: int | None = None) -> int:
        """Open a folder, made with mode 0700 where absent; a symbolic link is refused."""
        try:
            return os.open(path, _FOLDER_FLAGS, dir_fd=within)
        except FileNotFoundError:
            if within is None:
                os.makedirs(os.path.dirname(path) or ".", FOLDER_MODE, exist_ok=True)  # noqa: PTH103, PTH120 - plain strings serve relative descriptors too
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, FOLDER_MODE, dir_fd=within)
            return os.open(path, _FOLDER_FLAGS, dir_fd=within)

    def open_segment(self, folder: int, name: str) -> int:
        """Make a file for appending, mode 0600, and lock it.

        The lock is what tells `seal_dead` that the writer lives. Between making and locking the
        file it could be taken for a dead writer's, hence the look whether it still has its name.
        """
        file = os.open(name, _SEGMENT_FLAGS, FILE_MODE, dir_fd=folder)
        try:
            is_ours = _lock(file) and self._has_name(file, folder, name)
        except BaseException:
            os.close(file)
            raise
        if not is_ours:
            os.close(file)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        return file

    def _has_name(self, file: int, folder: int, name: str) -> bool:
        try:
            named = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == self.identity(file)

    # Static methods of the same signature: no frame of our own on the hot path.
    write = staticmethod(os.write)
    truncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)
    close = staticmethod(os.close)

    def fsync_folder(self, folder: int) -> None:
        """Put the names in a folder on disk, where the file system knows how."""
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise

    def rename(self, folder: int, source: str, target: str) -> None:
        """Give a file of the folder another name."""
        os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)

    def unlink(self, folder: int, name: str) -> None:
        """Remove a file of the folder."""
        os.unlink(name, dir_fd=folder)

    def identity(self, descriptor: int) -> tuple[int, int]:
        """Device and inode, to know a file again."""
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino


def _lock(file: int) -> bool:
    """Lock a file; False if somebody else has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Where locks are unknown, `seal_dead` cannot get one either and leaves the file alone.
        if error.errno not in _NO_LOCKS_HERE:
            raise
    return True


def error_name(error: BaseException) -> str:
    """Short name of a failure: that of the system's error, such as ENOSPC, or of its class."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return type(error).__name__
    return errno.errorcode.get(number, f"errno {number}")
