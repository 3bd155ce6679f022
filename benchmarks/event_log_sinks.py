"""What `event_log.py` compares, and the worker process that calls one of them again and again.

A sink is made from a folder of its own worker and the address of a server; it takes a unit and a
value, and says whether it took them. All clients are as they are shipped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import mmap
import os
import sys
import time
import zlib
from array import array
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Take = Callable[[str, float], object]
    Made = tuple[Take, Callable[[], object]]

MODES = ("buffered", "os", "fsync")
METRIC = "score"
ACKNOWLEDGED = "acknowledged"
SPENT = "spent"
_UNITS = 1_000  # f-strings are not what is measured
_CHECK = 32  # calls between looks at the clock
_BYTES = 84  # of a frame with one event
_TABLE = (
    "CREATE TABLE outcome (time DOUBLE, unit VARCHAR, metric VARCHAR, value DOUBLE, "
    "experiment VARCHAR, variant VARCHAR)"
)
_INSERT = "INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?)"


def segments(durability: Any, folder: Path, _: str) -> Made:
    """The log of abkit; all workers of a run share its folder."""
    from abkit.log import SegmentWriter

    writer = SegmentWriter(folder.parent / "log", durability=durability)
    append, now = writer.append, time.time
    return lambda unit, value: append(("o", now(), unit, METRIC, value, "", "")), writer.close


def plain_list(_folder: Path, _: str) -> Made:
    """The least that a call can cost."""
    kept: list[object] = []
    append, now = kept.append, time.time

    def take(unit: str, value: float) -> bool:
        append(("o", now(), unit, METRIC, value, "", ""))
        return True

    return take, lambda: None


def bare_write(folder: Path, _: str) -> Made:
    """What the system takes to append as many bytes as `os` writes for an event."""
    file = os.open(folder / "bytes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    data, write = bytes(_BYTES), os.write

    def take(_unit: str, _value: float) -> bool:
        return write(file, data) == _BYTES

    return take, lambda: os.close(file)


def by_hand(folder: Path, _: str) -> Made:
    """JSON, checksum and one write an event: no lock, no count of losses, no end of a file."""
    file = os.open(folder / "bytes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    pack, crc32, write, now = Struct("<II").pack, zlib.crc32, os.write, time.time

    def take(unit: str, value: float) -> bool:
        data = encode(("o", now(), unit, METRIC, value, "", "")).encode()
        return write(file, pack(len(data), crc32(data)) + data) > 0

    return take, lambda: os.close(file)


def duckdb_insert(folder: Path, _: str) -> Made:
    """One statement, and so one transaction, an event."""
    import duckdb

    connection = duckdb.connect(folder / "events.duckdb")
    connection.execute(_TABLE)

    def take(unit: str, value: float) -> bool:
        connection.execute(_INSERT, (time.time(), unit, METRIC, value, "", ""))
        return True

    return take, connection.close


def sqlite_insert(folder: Path, _: str) -> Made:
    """The same in SQLite with a write-ahead log that is not synchronised at each commit."""
    import sqlite3

    connection = sqlite3.connect(folder / "events.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(_TABLE)

    def take(unit: str, value: float) -> bool:
        connection.execute(_INSERT, (time.time(), unit, METRIC, value, "", ""))
        return True

    return take, connection.close


def log_file(folder: Path, _: str) -> Made:
    """Python's logging, which flushes each line."""
    logger = logging.getLogger("events")
    handler = logging.FileHandler(folder / "events.log")
    handler.setFormatter(logging.Formatter("%(created)f %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

    def take(unit: str, value: float) -> bool:
        logger.info("o %s %s %r", unit, METRIC, value)
        return True

    return take, logging.shutdown


def posthog_queue(_folder: Path, server: str) -> Made:
    """PostHog's client: a queue of 10,000, batches of 100, one thread that sends."""
    logging.disable()
    from posthog import Posthog

    client = Posthog("key", host=server)

    def take(unit: str, value: float) -> bool:
        return client.capture(METRIC, distinct_id=unit, properties={"value": value}) is not None

    return take, client.shutdown


def launchdarkly_queue(_folder: Path, server: str) -> Made:
    """LaunchDarkly's client: a queue of 10,000, sent every 5 s; it does not tell what it drops."""
    logging.disable()
    import ldclient

    client = ldclient.LDClient(
        ldclient.Config("key", events_uri=server, use_ldd=True, diagnostic_opt_out=True)
    )

    def take(unit: str, value: float) -> bool:
        client.track(METRIC, ldclient.Context.create(unit), None, value)
        return True

    return take, client.close


@dataclass(frozen=True)
class Sink:
    """One contender.

    Args:
        make: makes it.
        module: that it needs.
        counts: in which steps of processes it is measured.
    """

    make: Callable[[Path, str], Made]
    module: str = "abkit"
    counts: tuple[int, ...] = (1, 8)

    @property
    def is_here(self) -> bool:
        """Whether what it needs is installed."""
        return importlib.util.find_spec(self.module) is not None


LIST = "a list"
WRITE = "a bare os.write"
BY_HAND = "JSON, crc32 and os.write by hand"
YARDS = (LIST, WRITE, BY_HAND)
DUCKDB = "DuckDB, an insert each"
POSTHOG = "PostHog's queue"
LAUNCHDARKLY = "LaunchDarkly's queue"
SQLITE = "SQLite in WAL mode, an insert each"
LOGGING = "logging to a file"
IN_MEMORY = ("abkit, buffered", POSTHOG, LAUNCHDARKLY)
SINKS = {
    LIST: Sink(plain_list, counts=(1, 4, 8)),
    WRITE: Sink(bare_write),
    BY_HAND: Sink(by_hand),
    **{f"abkit, {mode}": Sink(partial(segments, mode), counts=(1, 4, 8)) for mode in MODES},
    LOGGING: Sink(log_file, "logging"),
    SQLITE: Sink(sqlite_insert, "sqlite3"),
    DUCKDB: Sink(duckdb_insert, "duckdb"),
    POSTHOG: Sink(posthog_queue, "posthog"),
    LAUNCHDARKLY: Sink(launchdarkly_queue, "ldclient"),
}


def arrived(name: str, folder: Path, bodies: list[bytes]) -> int:
    """How many events of all workers below a folder are where the sink wants them.

    Args:
        name: of the sink.
        folder: of the run.
        bodies: what the server was sent.
    """
    if name.startswith("abkit"):
        return log_length(folder / "log")
    if name == DUCKDB:
        return sum(map(_in_duckdb, folder.glob("*/events.duckdb")))
    if name == SQLITE:
        return sum(map(_in_sqlite, folder.glob("*/events.sqlite")))
    if name == LOGGING:
        return sum(file.read_bytes().count(b"\n") for file in folder.glob("*/events.log"))
    return sum(_in_body(json.loads(body)) for body in bodies)


def log_length(folder: Path) -> int:
    """Events in a log, each counted once."""
    from abkit.log import LogReader

    reader, length = LogReader(folder), 0
    positions: dict[str, Any] = {}
    while True:
        chunk = reader.read(positions)
        length += len(chunk)
        positions = chunk.positions
        if not chunk.has_more:
            return length


def _in_duckdb(file: Path) -> int:
    import duckdb

    with duckdb.connect(file) as connection:
        return int(connection.execute("SELECT count(*) FROM outcome").fetchall()[0][0])


def _in_sqlite(file: Path) -> int:
    import sqlite3

    with contextlib.closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT count(*) FROM outcome").fetchone()[0])


def _in_body(body: Any) -> int:
    if isinstance(body, dict):
        return len(body.get("batch", ()))
    return sum(event.get("kind") == "custom" for event in body)


@contextlib.contextmanager
def shared_number(folder: Path) -> Iterator[Callable[[int], None]]:
    """A number in a file's pages, which outlive the process that sets it."""
    path = folder / ACKNOWLEDGED
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as pages:
        numbers = memoryview(pages).cast("Q")

        def publish(number: int) -> None:
            numbers[0] = number

        try:
            yield publish
        finally:
            numbers.release()


def flat_out(take: Take, end: float) -> tuple[int, int]:
    """Call until a moment; how often, and how often it was accepted."""
    accepted, clock = 0, time.monotonic
    units = [f"user-{number}" for number in range(_UNITS)]
    for number in count(1):
        accepted += bool(take(units[number % _UNITS], 0.5))
        if not number % _CHECK and clock() >= end:
            return number, accepted
    raise AssertionError


def timed(take: Take, end: float, pause: float, spent: array[int]) -> tuple[int, int]:
    """The same, noting how long each call takes, in nanoseconds."""
    accepted, clock, note = 0, time.perf_counter_ns, spent.append
    units = [f"user-{number}" for number in range(_UNITS)]
    for number in count(1):
        unit = units[number % _UNITS]
        begun = clock()
        is_accepted = take(unit, 0.5)
        note(min(clock() - begun, 2**32 - 1))
        accepted += bool(is_accepted)
        if pause:
            time.sleep(pause)
        if (pause or not number % _CHECK) and time.monotonic() >= end:
            return number, accepted
    raise AssertionError


def acknowledging(take: Take, publish: Callable[[int], None], pause: float) -> None:
    """Call until killed, making known how many were accepted."""
    accepted = 0
    while True:
        accepted += bool(take("user-1", 0.5))
        publish(accepted)
        if pause:
            time.sleep(pause)


def main() -> None:
    """Be a worker: make the sink, wait for the word, call, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SINKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("server")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--how", choices=("flat", "timed", "killed"), default="flat")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between calls")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    take, close = SINKS[given.name].make(given.folder, given.server)
    take("warm-up", 0.0)
    spent = array("I")
    with shared_number(given.folder) as publish:
        print("ready", flush=True)
        sys.stdin.readline()
        if given.how == "killed":
            acknowledging(take, publish, given.pause)
        begun, cpu = time.monotonic(), time.process_time()
        end = begun + given.seconds
        if given.how == "timed":
            calls, accepted = timed(take, end, given.pause, spent)
        else:
            calls, accepted = flat_out(take, end)
        ended = time.monotonic()
        close()
        cpu = time.process_time() - cpu
    (given.folder / SPENT).write_bytes(spent.tobytes())
    found = {"calls": calls, "accepted": accepted, "begun": begun, "ended": ended, "cpu": cpu}
    print(json.dumps(found | {"closed": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
