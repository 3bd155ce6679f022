"""Loss of power: ext4 on a disk of its own, shut down in the middle of traffic, without a flush."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

import pytest

from abkit.log import LogReader, seal_dead
from tests.faults.injected import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Account

SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING = struct.pack("I", 2)
WINDOW_SECONDS = 1.0


class LoopDisk:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mounted = folder / "image", folder / "disk"
        self.device = ""
        self.mounted.mkdir()

    def __enter__(self) -> Self:
        need_root()
        with self.image.open("wb") as file:
            file.truncate(32 << 20)
        self._call(need("mkfs.ext4", "e2fsprogs"), "-q", "-F", self.image)
        self.mount()
        return self

    def __exit__(self, *exception: object) -> None:
        self.unmount()

    def mount(self) -> None:
        self.device = self._call(need("losetup", "mount"), "-f", "--show", self.image).strip()
        try:
            self._call("mount", self.device, self.mounted)
        except BaseException:
            self._detach()
            raise

    def unmount(self) -> None:
        if self.device:
            with contextlib.suppress(subprocess.CalledProcessError):
                subprocess.run([need("umount", "mount"), "-l", str(self.mounted)], check=True)
            self._detach()

    def _detach(self) -> None:
        subprocess.run([need("losetup", "mount"), "-d", self.device], check=True)
        self.device = ""

    def cut_power(self) -> None:
        folder = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, WITHOUT_FLUSHING)
        except OSError as error:
            pytest.skip(f"the file system cannot be shut down here: {error}")
        finally:
            os.close(folder)

    @staticmethod
    def _call(*command: object) -> str:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk of our own here: {command[0]}: {done.stderr.strip()}")
        return done.stdout


APPENDING = """
import os, sys, time
from abkit.log import SegmentWriter
writer = SegmentWriter(sys.argv[1], durability="fsync", segment_bytes=30_000)
number = 0
while True:
    number += 1
    if not writer.append(("e", number, "x" * (number % 200)), "ranker", "control"):
        break
    os.write(1, b"a %d %.6f\\n" % (number, time.monotonic()))
    if number % 400 == 0 and writer.flush():
        os.write(1, b"f %d\\n" % number)
    time.sleep(0.0005)
"""


@contextlib.contextmanager
def appending(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", APPENDING, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def cut_once(folder: Path, seconds: float) -> tuple[int, int]:
    """Cut the power after so long; how many events had to be there, and how many there are."""
    with LoopDisk(folder) as disk:
        log = disk.mounted / "workspace" / "log"
        with appending(log) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(seconds)
            disk.cut_power()
            cut = time.monotonic()
            text = first + process.stdout.read()
        words = [line.split() for line in text.splitlines() if line.count(b" ") in {1, 2}]
        flushed = [int(word[1]) for word in words if word[0] == b"f"]
        old = [int(w[1]) for w in words if w[0] == b"a" and float(w[2]) <= cut - WINDOW_SECONDS]
        # The last flush may have been answered while the power went.
        promised = max([*flushed[:-1], *old], default=0)
        disk.unmount()
        disk.mount()
        sealed = seal_dead(log)
        chunk = LogReader(log).read({}, max_records=10**9)
        numbers = [record[1] for _, _, record in chunk.rows()]
        assert numbers == list(range(1, len(numbers) + 1)), "no hole before the end"
        assert all(record[2] == "x" * (record[1] % 200) for _, _, record in chunk.rows())
        assert len(numbers) >= promised, (promised, len(numbers), sealed)
        return promised, len(numbers)


@pytest.mark.fault("power cut")
def test_what_was_on_disk_survives_a_power_cut(tmp_path: Path, account: Account) -> None:
    dice = random.Random(5)
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        promised, found = cut_once(tmp_path / str(number), dice.uniform(1.2, 2.4))
        assert found >= promised > 0
        account(accepted=promised, stored=min(found, promised))


@pytest.mark.slow
@pytest.mark.fault("power cut")
def test_forty_power_cuts(tmp_path: Path, account: Account) -> None:
    dice = random.Random(6)
    for number in range(40):
        (tmp_path / str(number)).mkdir()
        promised, found = cut_once(tmp_path / str(number), dice.uniform(0.0, 4.0))
        account(accepted=promised, stored=min(found, promised))
