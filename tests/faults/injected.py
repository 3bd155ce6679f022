"""Real tools around a process that logs: strace, faketime, prlimit, tmpfs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from abkit.log import LogReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from abkit.log import Chunk

# Appends numbered events and tells what it counted. The writer's folder has a name that is known
# beforehand, so that a tool can be told to harm its files and no others.
APPENDING = """
import json, os, sys, time
from abkit.log import SegmentWriter
folder, options = sys.argv[1], json.loads(sys.argv[2])
events, pause, mark = (options.pop(name, 0) for name in ("events", "pause", "mark"))
writer = SegmentWriter(folder, **options)
writer._journal.segments.writer_id = "host-1-w"
taken, before = 0, time.monotonic()
for number in range(1, events + 1):
    variant = "treatment" if number % 3 else "control"
    taken += writer.append(("e", number), "ranker", variant)
    if number == mark:
        writer.flush()
    if pause: time.sleep(pause)
took = time.monotonic() - before
is_flushed = writer.flush()
waited = time.monotonic()
while writer.counts.queued and time.monotonic() < waited + 20: writer.flush()
writer.close()
counts = writer.counts
print(json.dumps({
    "accepted": counts.accepted, "written": counts.written, "taken": taken, "took": took,
    "dropped": [[*key, count] for key, count in counts.dropped.items()],
    "flushed": is_flushed, "last_error": counts.last_error, "clock": time.time(),
}))
"""
WRITER = "host-1-w"


@dataclass(frozen=True)
class Told:
    """What a process that appended has counted."""

    accepted: int
    written: int
    taken: int
    took: float
    dropped: list[tuple[str, str, str, int]]
    flushed: bool
    last_error: str
    clock: float

    @property
    def lost(self) -> int:
        """Events that it dropped."""
        return sum(count for *_, count in self.dropped)


def need(program: str, package: str) -> str:
    """Path of a program; without it the test is skipped."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program}: install the package {package}")
    return path


def need_root() -> None:
    """Skip where we are not root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def run(*command: object, timeout: float = 100.0) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=timeout
    )
    assert done.returncode == 0, (command[0], done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def append_events(folder: Path, *tool: object, **options: Any) -> Told:
    """Append events in a process of its own, under a tool."""
    script = (sys.executable, "-c", APPENDING, folder, json.dumps(options))
    return Told(**json.loads(run(*tool, *script).splitlines()[-1]))


def strace(log: Path, folder: Path, *injections: str, segments: int = 3) -> list[object]:
    """A command that harms system calls on the first segments of `append_events`, and no others."""
    program = need("strace", "strace")
    try:
        probe = [program, "-o", os.devnull, "true"]
        subprocess.run(probe, check=True, capture_output=True, timeout=20)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("strace may not trace here")
    command: list[object] = [program, "-f", "-y", "-qq", "-o", log, "--seccomp-bpf"]
    command += ["-e", "trace=" + ",".join(sorted({word.split(":")[0] for word in injections}))]
    for word in injections:
        command += ["-e", f"inject={word}"]
    for number in range(1, segments + 1):
        command += ["-P", folder / WRITER / f"{number:08d}.open"]
    return command


def check_log(folder: Path, told: Told, *, damaged: int = 0) -> Chunk:
    """What was handed in is stored, dropped or damaged, and the log itself says so."""
    chunk = LogReader(folder).read({}, max_records=10**9)
    assert told.accepted == told.written + told.lost
    assert all(record == ["e", record[1]] for _, _, record in chunk.rows())
    numbers = [record[1] for _, _, record in chunk.rows()]
    assert numbers == sorted(set(numbers)), "each once, in order"
    assert len(chunk) == told.written - damaged
    assert sum(gap.count for gap in chunk.gaps) == told.lost + damaged
    said = {(loss.experiment, loss.variant, loss.reason): loss.count for loss in chunk.losses}
    assert said == {tuple(key): count for *key, count in told.dropped}
    return chunk


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A small file system in memory."""
    need_root()
    folder.mkdir()
    mount = [need("mount", "mount"), "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([need("umount", "mount"), "-l", str(folder)], check=True)


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
