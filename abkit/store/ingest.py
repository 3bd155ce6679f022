"""The ingester: segments -> DuckDB, exactly once, in large batches.

Rows and the watermark of each writer are committed in one transaction, so a killed ingester
goes on where it had committed, and reading the log twice changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from abkit.errors import StoreBusyError
from abkit.events import DECISION, EXPOSURE, OUTCOME
from abkit.log import LogReader, Position, seal_dead
from abkit.store import publish
from abkit.store.connect import open_store
from abkit.store.moments import observe, timestamp
from abkit.workspace import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from abkit.log import Chunk
    from abkit.metrics import Metric
    from abkit.observation import Observation
    from abkit.workspace import Workspace

BATCH_RECORDS = 200_000
MICROSECONDS = 1_000_000
_TEXT, _TIME = pa.string(), pa.timestamp("us")
_HEAD = {"writer": _TEXT, "sequence": pa.uint64(), "time": _TIME}
# Columns of each kind of event, in the order of `to_record`; `time` comes first there.
_BODIES: dict[str, tuple[str, dict[str, pa.DataType]]] = {
    EXPOSURE: (
        "exposure",
        {"experiment": _TEXT, "unit_id": _TEXT, "variant": _TEXT, "epoch": pa.int32()},
    ),
    OUTCOME: (
        "outcome",
        {
            "unit_id": _TEXT,
            "metric": _TEXT,
            "value": pa.float64(),
            "experiment": _TEXT,
            "variant": _TEXT,
        },
    ),
    DECISION: ("decision", {"rollout": _TEXT, "look": pa.int32(), "record": _TEXT}),
}


@dataclass(frozen=True, slots=True)
class Ingested:
    """What was loaded.

    Args:
        events: rows that are new in the store.
        quarantined: events that could not be read or understood.
    """

    events: int = 0
    quarantined: int = 0

    def __add__(self, other: Ingested) -> Ingested:
        """Both together."""
        return Ingested(self.events + other.events, self.quarantined + other.quarantined)


class Ingester:
    """The only process that writes the store of a workspace.

    Args:
        workspace: the workspace.
        clock: seconds since 1970 in UTC, stamped as the time of receipt.

    Raises:
        StoreBusyError: another ingester runs on this workspace.
    """

    def __init__(self, workspace: Workspace, *, clock: Callable[[], float] = time.time) -> None:
        """Take the leader's lock and open the store."""
        self._workspace = workspace
        self._clock = clock
        with contextlib.ExitStack() as stack:
            lock = workspace.path / "ingest.lock"
            try:
                stack.enter_context(locked(lock, timeout_seconds=0.5))
            except StoreBusyError:
                raise StoreBusyError(
                    f"another controller runs on {workspace.path}: it holds {lock.name}"
                ) from None
            schema = files("abkit.store").joinpath("schema.sql").read_text(encoding="utf-8")
            self._connection = open_store(workspace.store_path / "abkit.duckdb", schema=schema)
            stack.callback(self._connection.close)
            self._resources = stack.pop_all()
        self._reader = LogReader(workspace.log_path)
        self._next_load = 1 + self._newest_load()
        self.loaded = 0
        """Exposures and outcomes loaded since the start: grows exactly when there is news."""

    def close(self) -> None:
        """Close the store and free the lock."""
        self._resources.close()

    def ingest(self) -> Ingested:
        """Load everything that the writers have acknowledged."""
        seal_dead(self._workspace.log_path, clock=self._clock)
        total = Ingested()
        while True:
            chunk = self._reader.read(self._positions(), max_records=BATCH_RECORDS)
            total += self._load(chunk)
            if not chunk.has_more:
                return total

    def observe(
        self,
        *,
        experiment: str,
        epochs: tuple[int, int],
        metrics: Sequence[Metric],
        control: str,
        treatment: str,
        now: float,
    ) -> Observation:
        """Everything a look needs of one experiment; see `abkit.store.moments.observe`."""
        return observe(
            self._connection,
            experiment=experiment,
            epochs=epochs,
            metrics=metrics,
            control=control,
            treatment=treatment,
            now=now,
        )

    def decisions(self, rollout: str) -> list[dict[str, Any]]:
        """The decision records of a rollout, in the order of their looks."""
        rows = self._connection.execute(
            "SELECT record FROM decision WHERE rollout = ? ORDER BY look, time, writer, sequence",
            [rollout],
        ).fetchall()
        return [json.loads(text) for (text,) in rows]

    def watermark(self) -> dict[str, int]:
        """Newest sequence number loaded, by writer."""
        rows = self._connection.execute("SELECT writer, next_sequence FROM watermark ORDER BY ALL")
        return {writer: int(sequence) - 1 for writer, sequence in rows.fetchall()}

    def publish(self) -> None:
        """Replace what readers see."""
        publish.publish(self._connection, self._workspace.store_path, now=self._clock())

    def _newest_load(self) -> int:
        (newest,) = self._connection.execute(
            "SELECT max(load) FROM (SELECT max(load) AS load FROM exposure UNION ALL "
            "SELECT max(load) FROM outcome UNION ALL SELECT max(load) FROM decision)"
        ).fetchall()[0]
        return int(newest or 0)

    def _positions(self) -> dict[str, Position]:
        rows = self._connection.execute(
            'SELECT writer, segment, "offset", next_sequence FROM watermark'
        ).fetchall()
        return {row[0]: Position(*map(int, row[1:])) for row in rows}

    def _load(self, chunk: Chunk) -> Ingested:
        received = timestamp(self._clock())
        rows: dict[str, list[tuple[str, int, list[Any]]]] = {kind: [] for kind in _BODIES}
        strange: list[tuple[str, int, list[Any]]] = []
        for item in chunk.rows():
            kind = item[2][0] if item[2] else None
            (rows.get(kind, strange) if isinstance(kind, str) else strange).append(item)
        self._connection.begin()
        try:
            stored = 0
            for kind, found in rows.items():
                good, bad = self._insert(kind, found, received)
                stored += good
                strange += bad
                self.loaded += 0 if kind == DECISION else good
            self._account(chunk, strange)
            self._connection.commit()
            self._next_load += 1
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # an interrupt may have ended it already
                self._connection.rollback()
            raise
        return Ingested(stored, len(strange) + sum(item.missing for item in chunk.damages))

    def _insert(
        self, kind: str, found: list[tuple[str, int, list[Any]]], received: object
    ) -> tuple[int, list[tuple[str, int, list[Any]]]]:
        """Insert the events of one kind; returns their number and those of a strange shape."""
        if not found:
            return 0, []
        table, body = _BODIES[kind]
        bad: list[tuple[str, int, list[Any]]] = []
        try:
            arrow = _arrow(found, body)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            good: list[tuple[str, int, list[Any]]] = []
            for item in found:
                try:
                    _arrow([item], body)
                except (pa.ArrowException, ValueError, TypeError, OverflowError):
                    bad.append(item)
                else:
                    good.append(item)
            if not good:
                return 0, bad
            found, arrow = good, _arrow(good, body)
        names = ", ".join([*_HEAD, *body])
        self._connection.register("batch", arrow)
        self._connection.execute(
            f"INSERT INTO {table} (load, {names}, received) "  # noqa: S608 - names of this module
            f"SELECT $load, {names}, $received FROM batch",
            {"load": self._next_load, "received": received},
        )
        self._connection.unregister("batch")
        return len(found), bad

    def _account(self, chunk: Chunk, strange: Iterable[tuple[str, int, list[Any]]]) -> None:
        """Write down where reading stopped, and everything that did not arrive."""
        execute = self._connection.executemany
        quarantine = [
            [d.writer, d.segment, d.offset, d.length, d.missing, d.reason] for d in chunk.damages
        ]
        quarantine += [
            [writer, 0, sequence, 0, 1, f"unknown event {str(record)[:80]}"]
            for writer, sequence, record in strange
        ]
        if quarantine:
            # Damage that reading cannot pass is reported again at each read.
            execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)", quarantine)
        if chunk.gaps:
            execute(
                "INSERT INTO gap VALUES (?, ?, ?)",
                [[g.writer, g.first_sequence, g.count] for g in chunk.gaps],
            )
        if chunk.losses:
            execute(
                "INSERT OR REPLACE INTO loss VALUES (?, ?, ?, ?, ?)",
                [[x.writer, x.experiment, x.variant, x.reason, x.count] for x in chunk.losses],
            )
        before = self._positions()
        moved = [
            [writer, p.segment, p.offset, p.next_sequence]
            for writer, p in chunk.positions.items()
            if before.get(writer) != p
        ]
        if moved:
            execute("INSERT OR REPLACE INTO watermark VALUES (?, ?, ?, ?)", moved)


def _arrow(found: list[tuple[str, int, list[Any]]], body: dict[str, pa.DataType]) -> pa.Table:
    """Columns of events of one kind: writer, sequence, time, then the body.

    Raises:
        ValueError: an event has another number of fields.
        TypeError: a field has another type.
        pa.ArrowException: the same.
    """
    width = len(body) + 2
    if any(len(record) != width for _, _, record in found):
        raise ValueError("an event of another shape")
    writers, sequences, records = zip(*found, strict=True)
    _, times, *columns = zip(*records, strict=True)
    arrays = [
        pa.array(writers, _TEXT),
        pa.array(sequences, pa.uint64()),
        pa.array([round(seconds * MICROSECONDS) for seconds in times], pa.int64()).cast(_TIME),
        *(pa.array(values, kind) for values, kind in zip(columns, body.values(), strict=True)),
    ]
    table = pa.table(arrays, names=[*_HEAD, *body])
    if any(column.null_count for column in table.columns):
        raise ValueError("an event with an empty field")
    return table
