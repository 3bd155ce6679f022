"""A disk behind a page cache, and files on it that fail as a schedule says."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abkit.log import OsFiles

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

SECTOR = 512


class Killed(BaseException):
    """The process is gone, in the middle of what it was doing."""


@dataclass(eq=False)
class File:
    """Contents in the page cache, and what of them is on disk."""

    inode: int
    cached: bytes = b""
    durable: bytes = b""
    versions: list[bytes] = field(default_factory=list)  # of the cache, since the last fsync
    is_forgotten: bool = False  # an fsync failed: the system will never write the rest

    def change(self, content: bytes) -> None:
        self.cached = content
        self.versions.append(content)

    def sync(self) -> None:
        if not self.is_forgotten:
            self.durable = self.cached
            self.versions = []

    def after_power_cut(self, dice: random.Random) -> bytes:
        """Any state that a disk may have been left in."""
        version = dice.choice([self.durable, *self.versions])
        if not version.startswith(self.durable):
            return version
        kept, tail = self.durable, bytearray(version[len(self.durable) :])
        fate = dice.choice(["whole", "none", "torn", "sectors", "zeros", "noise"])
        if fate == "none" or not tail:
            return kept
        if fate == "torn":
            del tail[dice.randrange(len(tail)) :]
        if fate == "sectors":
            end = (len(kept) + dice.randrange(len(tail) + 1)) // SECTOR * SECTOR - len(kept)
            del tail[max(0, end) :]
        if fate in {"zeros", "noise"}:
            for start in range(0, len(tail), SECTOR):
                if dice.random() < 0.5:
                    size = len(tail[start : start + SECTOR])
                    tail[start : start + size] = (
                        bytes(size) if fate == "zeros" else (dice.randbytes(size))
                    )
        return kept + bytes(tail)


@dataclass(eq=False)
class Folder:
    """Names in the page cache, and those on disk."""

    cached: dict[str, Any] = field(default_factory=dict)
    durable: dict[str, Any] = field(default_factory=dict)
    pending: list[tuple[str, str, Any]] = field(default_factory=list)

    def link(self, name: str, node: Any) -> None:
        self.cached[name] = node
        self.pending.append(("link", name, node))

    def rename(self, source: str, target: str) -> None:
        self.cached[target] = self.cached.pop(source)
        self.pending.append(("rename", source, target))

    def unlink(self, name: str) -> None:
        del self.cached[name]
        self.pending.append(("unlink", name, None))

    def sync(self) -> None:
        self.durable = dict(self.cached)
        self.pending = []

    def after_power_cut(self, dice: random.Random) -> dict[str, Any]:
        """The first of the waiting changes, as with a journal; or any of them."""
        kept = self.pending[: dice.randint(0, len(self.pending))]
        if dice.random() < 0.3:
            kept = [change for change in self.pending if dice.random() < 0.5]
        names = dict(self.durable)
        for kind, name, what in kept:
            if kind == "link":
                names[name] = what
            elif kind == "unlink":
                names.pop(name, None)
            elif name in names:
                names[what] = names.pop(name)
        return names


class Disk:
    """A folder of the real file system, and how much of it would survive.

    Args:
        base: the folder, empty; it is on disk already.
        dice: decides what a power cut leaves.
    """

    def __init__(self, base: Path, dice: random.Random) -> None:
        self.base = base
        self.root = Folder()
        self._dice = dice

    def folder(self, path: str) -> Folder:
        """The folder of a path; those on the way that are new are made."""
        at = self.root
        for name in Path(path).relative_to(self.base).parts:
            if name not in at.cached:
                at.link(name, Folder())
            at = at.cached[name]
        return at

    def adopt(self, folder: Folder | None = None, path: Path | None = None) -> None:
        """Take over what others have done to the files: `seal_dead`, which marks and renames."""
        folder, path = folder or self.root, path or self.base
        if not path.is_dir():
            return
        inodes = {
            node.inode: name for name, node in folder.cached.items() if isinstance(node, File)
        }
        for item in sorted(path.iterdir()):
            if item.is_dir():
                self.adopt(folder.cached[item.name], item)
                continue
            before = inodes[item.stat().st_ino]
            if before != item.name:
                folder.rename(before, item.name)
            node = folder.cached[item.name]
            content = item.read_bytes()
            if content != node.cached:
                node.change(content)

    def cut_power(self) -> None:
        """Leave what is on disk, and any part of what is not. Nobody has a file open."""
        shutil.rmtree(self.base)
        self.base.mkdir()
        self.root = self._survivor(self.root, self.base)

    def _survivor(self, folder: Folder, path: Path) -> Folder:
        fresh = Folder()
        for name, node in folder.after_power_cut(self._dice).items():
            place = path / name
            if isinstance(node, Folder):
                place.mkdir()
                fresh.durable[name] = self._survivor(node, place)
                continue
            content = node.after_power_cut(self._dice)
            place.write_bytes(content)
            fresh.durable[name] = File(place.stat().st_ino, content, content)
        fresh.cached = dict(fresh.durable)
        return fresh


@dataclass
class Handle:
    """A descriptor of one process."""

    descriptor: int
    path: str
    node: Any

    def duplicate(self) -> Handle:
        """What a forked child has: the same open file, with the same lock on it."""
        return Handle(os.dup(self.descriptor), self.path, self.node)

    def close(self) -> None:
        os.close(self.descriptor)


class SimulatedFiles:
    """The file system as the current process sees it.

    Args:
        disk: what is behind it.
        dice: decides about errors.
    """

    def __init__(self, disk: Disk, dice: random.Random) -> None:
        self.process: Any = None
        self.error_rate = 0.0
        self.errors: tuple[int, ...] = (0,)
        self.only = ""  # the one kind of call that fails; all kinds where empty
        self.on_sync_error: Callable[[Any], None] = lambda process: None
        self._disk = disk
        self._dice = dice
        self._real = OsFiles()

    @property
    def is_calm(self) -> bool:
        """Whether nothing fails right now."""
        return self.error_rate == 0.0

    def _enter(self, kind: str) -> bool:
        """Let the process die here if its time has come; True if the call is to fail."""
        process = self.process
        if not process.is_alive:
            raise Killed
        if process.operations_left == 0:
            process.is_alive = False
            raise Killed
        process.operations_left -= process.operations_left > 0
        is_meant = not self.only or kind == self.only
        return self._dice.random() < self.error_rate and is_meant

    def _fail(self) -> None:
        number = self._dice.choice(self.errors)
        raise OSError(number, os.strerror(number))

    def _add(self, descriptor: int, path: str, node: Any) -> int:
        handles = self.process.handles
        number = next(n for n in range(3, 10_000) if n not in handles)
        handles[number] = Handle(descriptor, path, node)
        return number

    def open_folder(self, path: str, within: int | None = None) -> int:
        outer = None if within is None else self.process.handles[within]
        whole = path if outer is None else str(Path(outer.path, path))
        inside = Path(whole).is_relative_to(self._disk.base)
        # Outside nothing happens: a seed must mean the same wherever the folder is.
        if inside and self._enter("open_folder"):
            self.on_sync_error(self.process)
            self._fail()
        real = self._real.open_folder(path, None if outer is None else outer.descriptor)
        return self._add(real, whole, self._disk.folder(whole) if inside else Folder())

    def open_segment(self, folder: int, name: str) -> int:
        if self._enter("open_segment"):
            self._fail()
        outer = self.process.handles[folder]
        real = self._real.open_segment(outer.descriptor, name)
        node = File(os.fstat(real).st_ino)
        outer.node.link(name, node)
        return self._add(real, str(Path(outer.path, name)), node)

    def write(self, file: int, data: bytes) -> int:
        handle = self.process.handles[file]
        short = self._dice.randrange(len(data))
        try:
            if self._enter("write"):
                if self._dice.random() < 0.5:
                    self._fail()
                data = data[:short]
        except Killed:  # in the middle of the write
            if self._dice.random() < 0.5 and self.process.operations_left == 0:
                self._put(handle, data[:short])
            raise
        self._put(handle, data)
        return len(data)

    def _put(self, handle: Handle, data: bytes) -> None:
        os.write(handle.descriptor, data)
        handle.node.change(handle.node.cached + data)

    def truncate(self, file: int, size_bytes: int) -> None:
        if self._enter("truncate"):
            self._fail()
        handle = self.process.handles[file]
        os.ftruncate(handle.descriptor, size_bytes)
        handle.node.change(handle.node.cached[:size_bytes])

    def fsync(self, file: int) -> None:
        node = self.process.handles[file].node
        if self._enter("fsync"):
            node.is_forgotten = True
            self.on_sync_error(self.process)
            self._fail()
        node.sync()

    def fsync_folder(self, folder: int) -> None:
        handle = self.process.handles[folder]
        if Path(handle.path).is_relative_to(self._disk.base) and self._enter("fsync_folder"):
            self.on_sync_error(self.process)
            self._fail()
        handle.node.sync()

    def rename(self, folder: int, source: str, target: str) -> None:
        if self._enter("rename"):
            self.on_sync_error(self.process)
            self._fail()
        handle = self.process.handles[folder]
        self._real.rename(handle.descriptor, source, target)
        handle.node.rename(source, target)

    def unlink(self, folder: int, name: str) -> None:
        if self._enter("unlink"):
            self._fail()
        handle = self.process.handles[folder]
        self._real.unlink(handle.descriptor, name)
        handle.node.unlink(name)

    def close(self, descriptor: int) -> None:
        if not self.process.is_alive:
            raise Killed
        if descriptor not in self.process.handles:
            raise OSError(9, "no such descriptor")
        self.process.handles.pop(descriptor).close()

    def identity(self, descriptor: int) -> tuple[int, int]:
        handle = self.process.handles.get(descriptor)
        if handle is None:
            raise OSError(9, "no such descriptor")
        return self._real.identity(handle.descriptor)
