"""What was read of the log -> rows, counts and watermark of a store, in one transaction."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import duckdb

from abkit.log import Damage, Position
from abkit.log.rewrite import FORGOTTEN
from abkit.store import tally
from abkit.store.columns import KINDS, MAX_NAME_CHARACTERS, part
from abkit.store.moments import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from abkit.log import Chunk, Loss, Run
    from abkit.store.columns import Flawed, Row

# More events than a writer logs in its life. Beyond, a number is an error, and sums of such
# numbers would not fit.
MAX_SEQUENCE: Final = 2**48
MAX_REASON_CHARACTERS: Final = 200


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


@dataclass(slots=True)
class _Sorted:
    """The events of a chunk by what becomes of them."""

    rows: dict[str, list[Row]]
    flawed: list[Flawed]
    forgotten: Counter[tuple[str, str, str]]


class Loader:
    """Loads chunks of the log into an open store; each chunk is one transaction.

    Args:
        connection: the store.
        clock: seconds since 1970 in UTC, stamped as the time of receipt.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, *, clock: Callable[[], float]
    ) -> None:
        """Go on with the numbering of loads."""
        self._connection = connection
        self._clock = clock
        self.next_load = 1 + newest_load(connection)
        self._positions = positions(connection)
        self.loaded = 0

    @property
    def positions(self) -> dict[str, Position]:
        """Where to go on reading."""
        return dict(self._positions)

    def load(self, chunk: Chunk) -> Ingested:
        """Load a chunk; nothing of it, if it fails.

        Raises:
            duckdb.Error: the store failed.
        """
        chunk = _sane(chunk, self._positions)
        moved = {
            writer: position
            for writer, position in chunk.positions.items()
            if self._positions.get(writer) != position
        }
        if not (moved or chunk.runs or chunk.losses or chunk.gaps or chunk.damages):
            return Ingested()
        found = _sort(chunk.runs)
        self._connection.begin()
        try:
            stored = {kind: self._insert(kind, rows, found) for kind, rows in found.rows.items()}
            self._account(chunk, found)
            if moved:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO watermark VALUES (?, ?, ?, ?)",
                    [[w, p.segment, p.offset, p.next_sequence] for w, p in moved.items()],
                )
            self._connection.commit()
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # an interrupt may have ended it already
                self._connection.rollback()
            raise
        self.next_load += 1
        self._positions.update(moved)
        self.loaded += sum(stored[kind] for kind in stored if KINDS[kind].table != "decision")
        missing = sum(item.missing for item in chunk.damages)
        return Ingested(sum(stored.values()), len(found.flawed) + missing)

    def _insert(self, kind: str, rows: list[Row], found: _Sorted) -> int:
        table, flawed = part(kind, rows)
        found.flawed += flawed
        if table is None:
            return 0
        names = ", ".join(KINDS[kind].columns)
        self._connection.register("batch", table)
        try:
            self._connection.execute(
                f"INSERT INTO {KINDS[kind].table} (load, {names}, received) "  # noqa: S608 - names of ours
                f"SELECT $load, {names}, $received FROM batch",
                {"load": self.next_load, "received": timestamp(self._clock())},
            )
            tally.count(self._connection, KINDS[kind].table, "batch")
        finally:
            self._connection.unregister("batch")
        return int(table.num_rows)

    def _account(self, chunk: Chunk, found: _Sorted) -> None:
        """Write down everything that did not arrive."""
        execute = self._connection.executemany
        quarantine = [
            [d.writer, d.segment, d.offset, d.length, min(d.missing, MAX_SEQUENCE), d.reason]
            for d in chunk.damages
        ]
        quarantine += [
            [writer, 0, sequence, 0, 1, reason[:MAX_REASON_CHARACTERS]]
            for writer, sequence, reason in found.flawed
        ]
        losses = [loss_row(item) for item in chunk.losses]
        quarantine += [
            [row[0], -1, 0, 0, 0, "a count of losses is out of range"]
            for row in losses
            if not 0 <= row[4] <= MAX_SEQUENCE
        ]
        if quarantine:
            # Damage that reading cannot pass is reported again at each read.
            execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)", quarantine)
        if chunk.gaps:
            execute(
                "INSERT INTO gap VALUES (?, ?, ?)",
                [[g.writer, g.first_sequence, g.count] for g in chunk.gaps],
            )
        newest = {tuple(row[:4]): row for row in losses if 0 <= row[4] <= MAX_SEQUENCE}
        if newest:
            execute(
                "INSERT INTO loss VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET count = greatest(count, excluded.count)",
                list(newest.values()),
            )
        add_retention(self._connection, "forgotten", found.forgotten)


def add_retention(
    connection: duckdb.DuckDBPyConnection, reason: str, counts: Counter[tuple[str, str, str]]
) -> None:
    """Count events that were taken away, by (writer, experiment, variant)."""
    if counts:
        connection.executemany(
            "INSERT INTO retention VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [[*owner, reason, number] for owner, number in counts.items()],
        )


def newest_load(connection: duckdb.DuckDBPyConnection) -> int:
    """Number of the newest load in a store; 0 in an empty one."""
    (newest,) = connection.execute(
        "SELECT max(load) FROM (SELECT max(load) AS load FROM exposure UNION ALL "
        "SELECT max(load) FROM outcome UNION ALL SELECT max(load) FROM decision)"
    ).fetchall()[0]
    return int(newest or 0)


def positions(connection: duckdb.DuckDBPyConnection) -> dict[str, Position]:
    """Where each writer's log has been read to."""
    rows = connection.execute(
        'SELECT writer, segment, "offset", next_sequence FROM watermark ORDER BY writer'
    ).fetchall()
    return {row[0]: Position(*map(int, row[1:])) for row in rows}


def _sort(runs: Iterable[Run]) -> _Sorted:
    found = _Sorted({kind: [] for kind in KINDS}, [], Counter())
    first_of = itemgetter(0)
    for run in runs:
        writer, start, records = run.writer, run.first_sequence, run.records
        for kind in set(map(first_of, records)):
            rows = [
                (writer, number, record)
                for number, record in enumerate(records, start)
                if record[0] == kind
            ]
            if kind in KINDS:
                found.rows[kind] += rows
            elif kind == FORGOTTEN:
                found.forgotten.update((writer, *_owner(record)) for _, _, record in rows)
            else:
                found.flawed += [(writer, number, "event of unknown kind") for _, number, _ in rows]
    found.rows = {kind: rows for kind, rows in found.rows.items() if rows}
    return found


def _owner(record: list[Any]) -> tuple[str, str]:
    """Experiment and variant of an event that was forgotten."""
    match record:
        case [_, _, str(experiment), str(variant)]:
            return _name(experiment), _name(variant)
    return "", ""


def loss_row(item: Loss) -> list[Any]:
    """Writer, experiment, variant, reason and count of a loss, as the store can hold them."""
    names = (_name(item.experiment), _name(item.variant), _name(item.reason))
    return [item.writer, *names, int(item.count)]


def _name(text: str) -> str:
    """A name as the store can hold it: "" for what is none."""
    if len(text) > MAX_NAME_CHARACTERS or "\0" in text:
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return ""
    return text


def _sane(chunk: Chunk, before: dict[str, Position]) -> Chunk:
    """A chunk without numbers beyond all reason; that there were some is noted as damage.

    A frame with a right checksum may still carry any number. The writer's count stays where it
    was before, so that its later events are not taken for copies.
    """
    wild = {w: p for w, p in chunk.positions.items() if p.next_sequence > MAX_SEQUENCE}
    if not wild:
        return chunk
    last = {writer: before.get(writer, Position()).next_sequence for writer in wild}
    runs = [run for run in chunk.runs if run.first_sequence + len(run.records) <= MAX_SEQUENCE]
    for run in runs:
        if run.writer in last:
            last[run.writer] = run.first_sequence + len(run.records)
    return replace(
        chunk,
        runs=runs,
        gaps=[gap for gap in chunk.gaps if gap.first_sequence + gap.count <= MAX_SEQUENCE],
        damages=[
            *chunk.damages,
            *(Damage(w, p.segment, 0, 0, "an impossible number") for w, p in wild.items()),
        ],
        positions={
            **chunk.positions,
            **{w: replace(p, next_sequence=last[w]) for w, p in wild.items()},
        },
    )
