"""Sealing what dead writers left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from abkit.log.frames import END_RECORD, encode_metadata
from abkit.log.reader import FOLDER_FLAGS, list_segments, list_writers, open_root
from abkit.log.segment import OPEN_SUFFIX, SEALED_SUFFIX, segment_name

if TYPE_CHECKING:
    from collections.abc import Callable

FILE_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def seal_dead(
    folder: str | os.PathLike[str], *, clock: Callable[[], float] = time.time
) -> list[Path]:
    """Seal the segments whose writers died, so that a torn last frame counts as damage.

    A living writer holds a lock on its file, which the system lifts when the process ends, and
    when the children end that it forked and that never wrote. Safe beside living writers and
    beside other callers. Where a file cannot be locked it is left alone.

    Args:
        folder: of the whole log.
        clock: seconds since 1970 in UTC, stamped on the end mark.

    Returns:
        The sealed files.

    Raises:
        StoreError: the folder is there but cannot be listed, or is a symbolic link.
    """
    sealed: list[Path] = []
    with open_root(os.fsdecode(folder)) as root:
        for writer in [] if root is None else list_writers(root):
            with contextlib.suppress(OSError):
                within = os.open(writer, FOLDER_FLAGS, dir_fd=root)
                try:
                    names = [
                        Path(folder, writer, segment_name(number, SEALED_SUFFIX))
                        for number, suffix in sorted(list_segments(within).items())
                        if suffix == OPEN_SUFFIX and _seal(within, number, clock)
                    ]
                finally:
                    os.close(within)
                sealed += names
    return sealed


def living(folder: str | os.PathLike[str]) -> set[str]:
    """Writers whose process holds the lock on their newest segment; nothing is changed.

    Where files cannot be locked or opened, a writer with an unsealed segment counts as alive.

    Args:
        folder: of the whole log.

    Raises:
        StoreError: the folder is there but cannot be listed, or is a symbolic link.
    """
    with open_root(os.fsdecode(folder)) as root:
        return {
            writer
            for writer in ([] if root is None else list_writers(root))
            if _lives(Path(folder, writer))
        }


def _lives(folder: Path) -> bool:
    for path in folder.glob(f"*{OPEN_SUFFIX}"):
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:  # sealed since it was listed
            continue
        except OSError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
    return False


def _seal(folder: int, number: int, clock: Callable[[], float]) -> bool:
    """Seal one segment unless it is alive, gone or locked by another caller."""
    name = segment_name(number, OPEN_SUFFIX)
    try:
        file = os.open(name, FILE_FLAGS, dir_fd=folder)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(file)
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or named.st_ino != status.st_ino:
            return False
        with contextlib.suppress(OSError):  # on a full disk the mark is missing, no more
            os.write(file, encode_metadata(0, [(END_RECORD, clock(), "dead")]))
        os.rename(name, segment_name(number, SEALED_SUFFIX), src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(file)
