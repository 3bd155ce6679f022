"""What became of every event: accepted = stored + dropped + quarantined + removed + waiting.

Each event that a writer is handed consumes a number, so what has no explanation shows. The counts
come from the published file and, for what the ingester has not loaded yet, from the log itself:
neither needs the ingester's lock, and they add up at any moment.
"""

from __future__ import annotations

import html
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abkit.errors import StoreError
from abkit.log import LogReader, Position
from abkit.store.archive import Archive
from abkit.store.batches import read_batch
from abkit.store.connect import open_published
from abkit.store.loader import MAX_SEQUENCE, loss_row
from abkit.store.publish import PUBLISHED

if TYPE_CHECKING:
    import os

    from abkit.log import Chunk

_TRIES = 5
_WAIT_SECONDS = 0.02
Owner = tuple[str, str]


@dataclass(frozen=True, slots=True)
class WriterBalance:
    """What became of the events of one writer.

    Args:
        writer: id of the writer.
        accepted: events it was handed, as far as its log tells.
        stored: events in the store, as published.
        dropped: events it dropped itself, and says so.
        quarantined: events in damaged bytes, or of no use.
        removed: events that expired or were forgotten.
        waiting: events in the log that the published store does not have yet.
    """

    writer: str
    accepted: int
    stored: int
    dropped: int
    quarantined: int
    removed: int
    waiting: int

    @property
    def unexplained(self) -> int:
        """Events of which nothing is known: files of the log are gone, or a number is wrong."""
        explained = self.stored + self.dropped + self.quarantined + self.removed + self.waiting
        return self.accepted - explained


@dataclass(frozen=True, slots=True)
class VariantBalance:
    """What became of the events of one variant, as far as events name theirs.

    Args:
        experiment: its key; "" for events that name none, such as most outcomes.
        variant: its name; "" likewise.
        stored: events in the store.
        dropped: by the writers.
        removed: expired or forgotten.
        waiting: not loaded yet.
    """

    experiment: str
    variant: str
    stored: int
    dropped: int
    removed: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The balance of a workspace.

    Args:
        writers: by writer.
        variants: by experiment and variant; quarantined events name none.
    """

    writers: tuple[WriterBalance, ...]
    variants: tuple[VariantBalance, ...]

    @property
    def total(self) -> WriterBalance:
        """All writers together."""
        names = ("accepted", "stored", "dropped", "quarantined", "removed", "waiting")
        sums = {name: sum(getattr(item, name) for item in self.writers) for name in names}
        return WriterBalance(writer="all", **sums)

    @property
    def balanced(self) -> bool:
        """Whether every event of every writer is explained."""
        return all(item.unexplained == 0 for item in self.writers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "balanced": self.balanced,
            "total": _plain(self.total),
            "writers": [_plain(item) for item in self.writers],
            "variants": [asdict(item) for item in self.variants],
        }

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1)

    def _repr_html_(self) -> str:
        """Two tables, for notebooks."""
        rows = [_plain(item) for item in (*self.writers, self.total)]
        tables = [_table(rows), _table([asdict(item) for item in self.variants])]
        word = "every event is explained" if self.balanced else "events are unexplained"
        return f"<p>{word}</p>" + "".join(tables)


def reconcile(workspace: str | os.PathLike[str]) -> Reconciliation:
    """Account for every event of a workspace.

    Args:
        workspace: the workspace folder.

    Raises:
        StoreError: the published file or the log's folder cannot be read, or the log is not all
            there is and nothing has been published.
    """
    path = Path(workspace)
    if not (path / "store" / PUBLISHED).exists() and Archive(path).manifest().positions:
        raise StoreError(
            f"nothing published in {path}, and part of its log is archived; "
            f"`abkit controller {path} --once` publishes"
        )
    for _ in range(_TRIES):
        book = _published(path / "store" / PUBLISHED)
        if _reads_to_balance(path / "log", book):
            break
        # Segments that were archived meanwhile look lost from an older place in the log.
        if book.stamp == _published(path / "store" / PUBLISHED).stamp:
            break
    owners = sorted({*book.stored, *book.dropped, *book.removed, *book.waiting})
    variants = tuple(
        VariantBalance(
            *owner,
            book.stored[owner],
            book.dropped[owner],
            book.removed[owner],
            book.waiting[owner],
        )
        for owner in owners
    )
    return Reconciliation(_balance(book), variants)


@dataclass(slots=True)
class _Writer:
    """Counts of one writer."""

    stored: int = 0
    removed: int = 0
    waiting: int = 0
    missing: int = 0
    damaged: int = 0
    strange: int = 0
    losses: dict[tuple[str, str, str], int] = field(default_factory=dict)


@dataclass(slots=True)
class _Book:
    """Counts of all, and where the published store had read the log to."""

    stamp: Any = None
    positions: dict[str, Position] = field(default_factory=dict)
    writers: dict[str, _Writer] = field(default_factory=dict)
    stored: Counter[Owner] = field(default_factory=Counter)
    removed: Counter[Owner] = field(default_factory=Counter)
    waiting: Counter[Owner] = field(default_factory=Counter)

    def writer(self, name: str) -> _Writer:
        return self.writers.setdefault(name, _Writer())

    @property
    def dropped(self) -> Counter[Owner]:
        counts: Counter[Owner] = Counter()
        for writer in self.writers.values():
            for (experiment, variant, _), number in writer.losses.items():
                counts[experiment, variant] += number
        return counts


def _published(path: Path) -> _Book:
    book = _Book()
    if not path.exists():
        return book
    with open_published(path) as connection:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query).fetchall()

        book.stamp = rows("SELECT published FROM meta")[0][0]
        marks = rows('SELECT writer, segment, "offset", next_sequence FROM watermark')
        book.positions = {writer: Position(*map(int, rest)) for writer, *rest in marks}
        query = "SELECT writer, stored, removed, missing, damaged, strange FROM writer"
        for name, stored, removed, missing, damaged, strange in rows(query):
            book.writers[name] = _Writer(stored, removed, 0, missing, damaged, strange)
        query = "SELECT writer, experiment, variant, reason, count FROM loss"
        for name, experiment, variant, reason, count in rows(query):
            book.writer(name).losses[experiment, variant, reason] = int(count)
        query = "SELECT experiment, variant, stored FROM tally"
        for experiment, variant, stored in rows(query):
            book.stored[experiment, variant] += stored
        query = "SELECT experiment, variant, count FROM retention"
        for experiment, variant, count in rows(query):
            book.removed[experiment, variant] += int(count)
    return book


def _reads_to_balance(folder: Path, book: _Book) -> bool:
    """Read the log to its end; once more where a writer may be about to explain a number."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_WAIT_SECONDS)
        _read_ahead(folder, book)
        if all(item.unexplained == 0 for item in _balance(book)):
            return True
    return False


def _read_ahead(folder: Path, book: _Book) -> None:
    """Add what is in the log after the published watermark."""
    reader = LogReader(folder)
    while True:
        chunk = read_batch(reader, folder, book.positions)
        _add(chunk, book)
        book.positions = chunk.positions
        if not chunk.has_more:
            return


def _add(chunk: Chunk, book: _Book) -> None:
    for run in chunk.runs:
        book.writer(run.writer).waiting += len(run.records)
        book.waiting.update(map(_owner, run.records))
    for gap in chunk.gaps:
        book.writer(gap.writer).missing += gap.count
    for damage in chunk.damages:
        book.writer(damage.writer).damaged += damage.missing
    for name, experiment, variant, reason, count in map(loss_row, chunk.losses):
        if 0 <= count <= MAX_SEQUENCE:
            losses = book.writer(name).losses
            key = (experiment, variant, reason)
            losses[key] = max(losses.get(key, 0), count)


def _owner(record: list[Any]) -> Owner:
    match record:
        case ["e", _, str(experiment), _, str(variant), _]:
            return experiment, variant
        case ["o", _, _, _, _, str(experiment), str(variant)]:
            return experiment, variant
        case ["x", _, str(experiment), str(variant)]:
            return experiment, variant
    return "", ""


def _balance(book: _Book) -> tuple[WriterBalance, ...]:
    found = []
    for name in sorted({*book.writers, *book.positions}):
        item = book.writers.get(name, _Writer())
        accepted = book.positions.get(name, Position()).next_sequence - 1
        dropped = sum(item.losses.values())
        # A missing number was dropped by the writer, or lost in damaged bytes, or is unexplained.
        damaged = max(0, min(item.damaged, item.missing - dropped))
        found.append(
            WriterBalance(
                name,
                accepted,
                item.stored,
                dropped,
                damaged + item.strange,
                item.removed,
                item.waiting,
            )
        )
    return tuple(found)


def _plain(item: WriterBalance) -> dict[str, Any]:
    return {**asdict(item), "unexplained": item.unexplained}


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))
