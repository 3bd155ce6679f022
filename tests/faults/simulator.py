"""Seeded crash schedules over a simulated disk and clock: whatever happens, no promise is broken.

Writers run for real, in one thread, over files whose durability is simulated: what was written is
in the page cache, and reaches the disk with an fsync only; a name, with an fsync of its folder.
A kill leaves the page cache. A power cut keeps any part of what was not yet on disk, torn at any
byte or sector, with sectors of zeros and noise, and any of the names. After a failed fsync the
system has forgotten what it could not write, and says yes when asked again.

One seed is one schedule, always the same. To see a seed again, or to run many::

    python3 dev.py run python -m tests.faults.simulator --first 1234 --schedules 1
"""

from __future__ import annotations

import argparse
import errno
import random
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from abkit.log import LogReader, SegmentWriter, seal_dead
from tests.faults.simulated_disk import Disk, Killed, SimulatedFiles
from tests.faults.simulated_process import Flusher, Process, Sums, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abkit.log import Position

MODES = ("os", "os", "fsync", "fsync", "buffered")
WINDOW_SECONDS = 1.0
MOST_PROCESSES = 4
STEPS = 45
STORMS = (
    (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT),
    (errno.EMFILE, errno.EIO, errno.EACCES),
)


class PromiseBrokenError(AssertionError):
    """What a schedule found; its seed shows it again."""


class Simulation:
    """One schedule.

    Args:
        seed: of everything that happens.
        folder: an empty folder.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.now = 1000.0
        self.skew = 1.7e9
        self.base = folder
        self.log = folder / "workspace" / "log"
        self.disk = Disk(folder, self.dice)
        self.files = SimulatedFiles(self.disk, self.dice)
        self.files.on_sync_error = self._excuse
        self.processes: list[Process] = []
        self.seen: dict[tuple[str, int], Any] = {}
        self.positions: dict[str, Position] = {}
        self.sums = Sums()
        self.history: list[str] = []

    # The schedule

    def run(self) -> Sums:
        """Run it to its end; what is promised and not there raises."""
        with ExitStack() as stack:
            for name, stand_in in (
                ("abkit.log.writer.getpid", self._pid),
                ("os.getpid", self._pid),
                ("os.urandom", self.dice.randbytes),
                ("abkit.log.journal.Flusher", Flusher),
            ):
                stack.enter_context(patch(name, stand_in))
            try:
                self._start()
                for _ in range(self.dice.randint(STEPS // 3, STEPS)):
                    self._step()
                self._end()
            finally:
                for process in self.processes:
                    self._bury(process)
        return self.sums

    def _pid(self) -> int:
        return self.files.process.pid if self.files.process else 1

    def _step(self) -> None:
        steps: list[tuple[int, Callable[[], None]]] = [
            (50, self._append),
            (14, self._advance),
            (6, self._flush),
            (4, self._fork),
            (4, self._start),
            (3, self._kill),
            (5, self._plan_kill),
            (3, self._close),
            (3, self._cut_power),
            (6, self._read),
            (3, self._seal),
            (5, self._storm),
            (2, self._jump),
        ]
        (step,) = self.dice.choices([s for _, s in steps], [weight for weight, _ in steps])
        self.history.append(step.__name__.strip("_"))
        step()
        if not any(process.is_alive for process in self.processes):
            self._start()

    def _living(self) -> Process | None:
        living = [process for process in self.processes if process.is_alive]
        return self.dice.choice(living) if living else None

    @contextmanager
    def _as(self, process: Process) -> Iterator[None]:
        """Run as a process, which may die in it."""
        self.files.process = process
        try:
            yield
        except Killed:
            self._bury(process)
        finally:
            self.files.process = None

    def _start(self) -> None:
        if sum(process.is_alive for process in self.processes) >= MOST_PROCESSES:
            return
        mode = self.dice.choice(MODES)
        process = Process(100 + len(self.processes), mode, None)  # type: ignore[arg-type]
        with self._as(process):
            process.writer = SegmentWriter(
                self.log,
                durability=mode,  # type: ignore[arg-type]
                clock=lambda: self.now + self.skew,
                monotonic=lambda: self.now,
                segment_bytes=self.dice.choice([300, 1500, 10**6]),
                segment_seconds=self.dice.choice([2.0, 300.0]),
                queue_records=self.dice.choice([5, 1000]),
                flush_records=self.dice.choice([1, 4, 64]),
                files=self.files,
            )
        self.processes.append(process)

    def _fork(self) -> None:
        parent = self._living()
        if parent is None or sum(p.is_alive for p in self.processes) >= MOST_PROCESSES:
            return
        child_writer = SegmentWriter.__new__(SegmentWriter)
        child_writer.__dict__.update(parent.writer.__dict__)
        child_writer._children = dict(parent.writer._children)
        child = Process(100 + len(self.processes), parent.mode, child_writer)
        child.handles = {n: handle.duplicate() for n, handle in parent.handles.items()}
        self.processes.append(child)

    def _append(self) -> None:
        process = self._living()
        if process is None:
            return
        with self._as(process):
            for _ in range(self.dice.randint(1, 12)):
                process.handed += 1
                number = process.handed
                process.in_doubt = {number}
                is_taken = process.writer.append(record(process.pid, number), "ranker", "control")
                process.in_doubt = set()
                if not is_taken:
                    process.refused.add(number)
                    continue
                process.acknowledged[number] = self.now
                if process.mode != "buffered":
                    process.written.add(number)

    def _advance(self) -> None:
        end = self.now + self.dice.choice([0.01, 0.2, 0.6, 1.2, 4.0])
        while True:
            due: list[tuple[float, int, Process, Any]] = [
                (flusher.due, process.pid, process, flusher)
                for process in self.processes
                if process.is_alive and process.writer._journal.pid == process.pid
                for flusher in [cast("Any", process.writer._journal.flusher)]
            ]
            if not due or min(due)[0] > end:
                break
            moment, _, process, flusher = min(due)
            self.now = max(self.now, moment)
            with self._as(process):
                flusher.run()
        self.now = end

    def _flush(self) -> None:
        process = self._living()
        if process is None:
            return
        with self._as(process):
            self._note_flush(process, is_done=process.writer.flush())

    def _note_flush(self, process: Process, *, is_done: bool) -> None:
        taken = set(process.acknowledged)
        if process.mode == "fsync" and not is_done:
            process.warned = process.handed
        if is_done:
            process.written |= taken
            if process.mode == "fsync":
                process.promised |= {number for number in taken if number > process.warned}

    def _excuse(self, process: Process) -> None:
        process.excused = process.handed

    def _close(self) -> None:
        process = self._living()
        if process is None:
            return
        is_calm = self.files.is_calm
        with self._as(process):
            self._note_flush(process, is_done=process.writer.flush())
            process.writer.close()
            counts = process.writer.counts
            if counts.accepted != process.handed or counts.queued:
                self._fail(f"{process.pid} was handed {process.handed} and counts {counts}")
            if counts.accepted != counts.written + sum(counts.dropped.values()):
                self._fail(f"{process.pid} counts {counts}")
            process.is_closed_well = is_calm
            self._bury(process)

    def _bury(self, process: Process) -> None:
        """What the system does when a process ends: its descriptors are closed."""
        process.is_alive = False
        for handle in process.handles.values():
            handle.close()
        process.handles.clear()

    def _kill(self) -> None:
        process = self._living()
        if process is not None:
            self.sums.kills += 1
            self._expect_window(process)
            self._bury(process)

    def _plan_kill(self) -> None:
        process = self._living()
        if process is not None:
            self.sums.kills += 1
            process.operations_left = self.dice.randint(0, 7)

    def _expect_window(self, process: Process) -> None:
        """What was acknowledged a second ago is on disk, whatever comes now.

        Of a process that was killed before its fsync, the rest is left to the system's own time:
        a kill and a power cut soon after it are two faults, and no mode promises for both.
        """
        if process.mode == "fsync":
            process.promised |= {
                number
                for number, moment in process.acknowledged.items()
                if number > process.excused and moment <= self.now - WINDOW_SECONDS
            }

    def _cut_power(self) -> None:
        self.sums.power_cuts += 1
        for process in self.processes:
            if process.is_alive:
                self._expect_window(process)
            process.has_met_power_cut = True
            self._bury(process)
        self.disk.adopt()
        self.disk.cut_power()
        self._check()

    def _storm(self) -> None:
        self.files.error_rate = self.dice.choice([0.0, 0.0, 0.15, 0.6, 1.0])
        self.files.errors = self.dice.choice(STORMS)
        self.files.only = self.dice.choice(["", "", "fsync", "write", "rename"])

    def _jump(self) -> None:
        self.skew += self.dice.choice([-864_000.0, 31_536_000.0, -3.0])

    # Reading

    def _seal(self) -> None:
        seal_dead(self.log, clock=lambda: self.now + self.skew)
        self.disk.adopt()

    def _read(self) -> None:
        """Go on reading where the last read stopped, as the ingester does."""
        limit = self.dice.choice([1, 10, 10**6])
        chunk = LogReader(self.log).read(self.positions, max_records=limit)
        self.positions = chunk.positions
        for writer, sequence, item in chunk.rows():
            if (writer, sequence) in self.seen:
                self._fail(f"{writer} {sequence} was read twice")
            self.seen[writer, sequence] = item

    def _end(self) -> None:
        self.files.error_rate = 0.0
        for process in self.processes:
            if process.is_alive and self.dice.random() < 0.5:
                self._bury(process)
            elif process.is_alive:
                with self._as(process):
                    process.operations_left = -1
                    process.writer.close()
                self._bury(process)
        self._seal()
        self._check()
        self._read_rest()

    def _read_rest(self) -> None:
        for _ in range(10_000):
            before = len(self.seen)
            self._read()
            if len(self.seen) == before:
                break
        if not self.sums.power_cuts:
            rows = {row[:2] for row in LogReader(self.log).read({}, max_records=10**9).rows()}
            if rows != set(self.seen):
                self._fail(f"read in steps {len(self.seen)}, at once {len(rows)}")

    def _check(self) -> None:
        """Everything that was promised is in the log, once, and as it was handed in."""
        chunk = LogReader(self.log).read({}, max_records=10**9)
        found: dict[int, set[int]] = {process.pid: set() for process in self.processes}
        for writer, sequence, item in chunk.rows():
            pid, number = item[1], item[2]
            if item != list(record(pid, number)) or number > self.processes[pid - 100].handed:
                self._fail(f"{writer} {sequence} is {item}")
            if number in found[pid]:
                self._fail(f"event {number} of {pid} is there twice")
            if f"-{pid}-" not in writer:
                self._fail(f"event {number} of {pid} is in the log of {writer}")
            found[pid].add(number)
        missing: dict[str, int] = {}
        for gap in chunk.gaps:
            missing[gap.writer] = missing.get(gap.writer, 0) + gap.count
        for process in self.processes:
            self._check_process(process, found[process.pid])
        for writer, count in missing.items():
            process = self.processes[int(writer.split("-")[-2]) - 100]
            if len(found[process.pid]) + count > process.handed:
                self._fail(f"{writer}: {count} missing, {process.handed} handed in")
            if process.is_closed_well and not process.has_met_power_cut:
                lost = process.handed - len(found[process.pid])
                if count != lost:
                    self._fail(f"{writer}: lost {lost}, the log says {count}")

    def _check_process(self, process: Process, found: set[int]) -> None:
        required = process.promised if process.has_met_power_cut else process.written
        if required - found:
            lost = sorted(required - found)
            self._fail(f"{process.mode} process {process.pid} lost {lost[:5]} ({len(lost)})")
        if process.refused & found:
            self._fail(f"{process.pid}: {sorted(process.refused & found)[:5]} were refused")
        known = set(process.acknowledged) | process.in_doubt
        if found - known:
            self._fail(f"{process.pid}: {sorted(found - known)[:5]} were never acknowledged")

    def account(self) -> Sums:
        """The sums over everything whose fate is settled."""
        for process in self.processes:
            kept = process.promised if process.has_met_power_cut else process.written
            self.sums.stored += len(kept)
            self.sums.dropped += len(process.refused)
            self.sums.accepted += len(kept | process.refused)
        return self.sums

    def _fail(self, what: str) -> None:
        raise PromiseBrokenError(f"seed {self.seed}: {what}; steps: {' '.join(self.history)}")


def simulate(first: int, schedules: int) -> Sums:
    """Run schedules.

    Raises:
        PromiseBrokenError: with the seed that shows it again.
    """
    total = Sums()
    memory = Path("/dev/shm")  # noqa: S108 - a file system in memory; the folder in it is private
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for seed in range(first, first + schedules):
            simulation = Simulation(seed, Path(folder, str(seed)))
            simulation.base.mkdir(exist_ok=True)
            try:
                simulation.run()
            except PromiseBrokenError:
                raise
            except Exception as error:
                raise PromiseBrokenError(f"seed {seed}: {error!r}") from error
            sums = simulation.account()
            for name in ("accepted", "stored", "dropped", "power_cuts", "kills"):
                setattr(total, name, getattr(total, name) + getattr(sums, name))
            shutil.rmtree(simulation.base)
    return total


def main() -> None:
    """Run schedules from the command line, and print the sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--first", type=int, default=0, help="seed of the first schedule")
    parser.add_argument("--schedules", type=int, default=10_000)
    options = parser.parse_args()
    sums = simulate(options.first, options.schedules)
    sys.stdout.write(
        f"{options.schedules:,} schedules survived, with {sums.kills:,} kills and "
        f"{sums.power_cuts:,} power cuts: {sums.accepted:,} accepted = {sums.stored:,} stored + "
        f"{sums.dropped:,} dropped\n"
    )


if __name__ == "__main__":
    main()
