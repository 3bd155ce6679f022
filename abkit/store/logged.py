"""From the event log to a table of one row per unit, beside the running controller.

The published file holds counts, not units, and the store itself is locked by its writer. So the
events come from where the store has them from: the archive's Parquet files and, after these, the
segments of the log, loaded into a private store that is thrown away. Nothing is written or locked
in the workspace, and all that writers have acknowledged is seen, whether loaded or not.
What a unit's numbers are is said in `abkit.store.moments`.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import StoreError
from abkit.log import LogReader, living
from abkit.store import erasures
from abkit.store.archive import Archive
from abkit.store.batches import collection_paused, read_batch
from abkit.store.connect import STORE, open_store
from abkit.store.loader import Loader
from abkit.store.moments import COUNTS, READ, SCALED, UNITS, declare
from abkit.store.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import duckdb
    import pyarrow as pa

    from abkit.metrics import Metric

UNIT: Final = "unit_id"
VARIANT: Final = "variant"
EPOCH: Final = "epoch"
EXPOSED: Final = "exposed"
COMPLETE: Final = "complete"
LABELS: Final = (UNIT, VARIANT, EPOCH, EXPOSED, COMPLETE)
_TRIES: Final = 3
_MICROSECONDS: Final = 1_000_000  # in a second

# What counts after the exposure, and what came before it and cannot be its effect.
_AFTER = f"{COUNTS} AND ($window IS NULL OR o.time < unit.since + to_microseconds($window))"
_BEFORE = "o.time < unit.since - INTERVAL 60 SECOND"
_VALUES = """
CREATE OR REPLACE TEMP TABLE {name} AS
WITH value AS (
  SELECT o.unit_id, metric.key AS metric, {read}
  FROM outcome o JOIN metric ON metric.source = o.metric JOIN unit ON unit.unit_id = o.unit_id
  WHERE o.variant = '' AND o.experiment IN ('', $experiment) AND {counts}
  GROUP BY o.unit_id, metric.key
), scaled AS (SELECT unit_id, metric, {scaled} AS value FROM value)
SELECT unit_id{columns} FROM scaled GROUP BY unit_id
"""
_MATURE = "($window IS NULL OR unit.since + to_microseconds($window) <= $watermark)"
_FACTS = f"""
WITH met AS (
  SELECT unit_id, epoch, count(*) AS n, min(variant) <> max(variant) AS crossed FROM exposure
  WHERE experiment = $experiment AND epoch BETWEEN $first_epoch AND $last_epoch
  GROUP BY unit_id, epoch
), again AS (
  SELECT unit_id, sum(n) > 1 AS repeated, bool_or(crossed) AS within FROM met GROUP BY unit_id
)
SELECT count(*), count(*) FILTER ({_MATURE}), min(since), count(*) FILTER (crossed),
  count(*) FILTER (within), count(*) FILTER (repeated)
FROM unit JOIN again USING (unit_id)
"""  # noqa: S608 - pieces of this module, no input


@dataclass(frozen=True, slots=True)
class Watermark:
    """Up to when all events are there.

    Args:
        time: UTC; the newest event of the live writer whose newest is the oldest, or the newest
            event of all where no writer lives.
        newest: the newest event of all, UTC.
    """

    time: datetime
    newest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which units and which of their outcomes are wanted.

    Args:
        experiment: key of the experiment.
        epochs: first and last allocation epoch.
        metrics: which outcomes, and how they become one number a unit.
        before: metrics whose outcomes from more than a minute before the exposure are wanted, as
            covariates. A unit without any has 0 or the mean of the others, by `missing`.
        window_seconds: an outcome counts if it came less than so long after the exposure, and a
            unit if that time was over at the watermark; None for all.
        watermark: up to when all events are there, UTC without zone; a window needs it.
    """

    experiment: str
    epochs: tuple[int, int]
    metrics: tuple[Metric, ...]
    before: tuple[Metric, ...] = ()
    window_seconds: float | None = None
    watermark: datetime | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """The units of an experiment.

    Args:
        table: one row per unit that is analysed: `LABELS`, a column for each metric, and one of
            the name `before_name` for each that is asked for as it was before the exposure.
        exposed: all units that were exposed.
        matured: those of them whose window was over at the watermark.
        first: the first exposure of all, UTC; None without one.
        crossed: units that met a second variant; they count for their first one, until then.
        crossed_within: those of them that met both in one epoch.
        repeated: units that were exposed more than once.
    """

    table: pa.Table
    exposed: int
    matured: int
    first: datetime | None
    crossed: int
    crossed_within: int
    repeated: int


def before_name(metric: str) -> str:
    """Column of what a metric was before the exposure; no metric can have this name.

    Examples:
        >>> before_name("spend")
        'spend before exposure'
    """
    return f"{metric} before exposure"


class Events:
    """The events of a workspace in a private store; made by `open_events`.

    Args:
        connection: the store.
        log_path: the log's folder.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, log_path: Path) -> None:
        """Remember them."""
        self.connection = connection
        self._log_path = log_path

    def experiments(self) -> list[str]:
        """Experiments that have exposures."""
        return self._names("SELECT DISTINCT experiment FROM exposure ORDER BY 1")

    def metrics(self, experiment: str) -> list[str]:
        """Metrics that have outcomes which count in an experiment."""
        return self._names(
            "SELECT DISTINCT metric FROM outcome WHERE variant = '' "
            "AND experiment IN ('', ?) ORDER BY 1",
            experiment,
        )

    def last_epoch(self, experiment: str) -> int:
        """The newest epoch that has exposures; 0 without any."""
        query = "SELECT coalesce(max(epoch), 0) FROM exposure WHERE experiment = ?"
        ((epoch,),) = self.connection.execute(query, [experiment]).fetchall()
        return int(epoch)

    def watermark(self) -> Watermark | None:
        """Up to when all events are there; None without events.

        Late events need no allowance: a writer stamps an event when it is handed it, so what is
        still to come from it is not older than what came. The clocks of hosts are taken for right.
        """
        alive = living(self._log_path)
        query = "SELECT writer, max(last_event) FROM tally WHERE kind <> 'decision' GROUP BY writer"
        last: dict[str, datetime] = dict(self.connection.execute(query).fetchall())
        if not last:
            return None
        newest = max(last.values())
        ends = [moment for writer, moment in last.items() if writer in alive]
        return Watermark(min(ends, default=newest), newest)

    def units(self, scope: Scope) -> Units:
        """One row per unit, by its first exposure in the scope's epochs."""
        first, last = scope.epochs
        seconds = scope.window_seconds
        window = None if seconds is None else round(seconds * _MICROSECONDS)
        span: dict[str, Any] = {"window": window, "watermark": scope.watermark}
        mine = {"experiment": scope.experiment}
        met = {**mine, "first_epoch": first, "last_epoch": last}
        self.connection.execute(UNITS, met)
        self._values("later", scope.metrics, _AFTER, {**mine, "window": window})
        self._values("earlier", scope.before, _BEFORE, mine)
        (facts,) = self.connection.execute(_FACTS, {**met, **span}).fetchall()
        wide = _wide(scope.metrics, scope.before)
        return Units(self.connection.sql(wide, params=span).to_arrow_table(), *facts)

    def _values(
        self, name: str, metrics: Sequence[Metric], counts: str, values: Mapping[str, Any]
    ) -> None:
        """Make a table of units with the value of each metric, by number of the metric."""
        declare(self.connection, metrics)
        keys = {f"metric{i}": item.key for i, item in enumerate(metrics)}
        columns = "".join(
            f", max(value) FILTER (metric = ${key}) AS v{i}" for i, key in enumerate(keys)
        )
        query = _VALUES.format(name=name, read=READ, scaled=SCALED, counts=counts, columns=columns)
        self.connection.execute(query, {**values, **keys})

    def _names(self, query: str, *values: str) -> list[str]:
        return [name for (name,) in self.connection.execute(query, list(values)).fetchall()]


@contextlib.contextmanager
def open_events(workspace: Path) -> Iterator[Events]:
    """Load the events of a workspace, without locking anything in it.

    Args:
        workspace: the workspace folder.

    Raises:
        StoreError: an archived file is missing or damaged, or the log cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="abkit-units-") as folder:
        for attempt in range(_TRIES):
            path = Path(folder) / f"{attempt}-{STORE}"
            with contextlib.closing(open_store(path)) as connection:
                if _fill(connection, workspace):
                    yield Events(connection, workspace / "log")
                    return
        raise StoreError(
            f"the archive of {workspace} changed {_TRIES} times while it was read; is "
            "`abkit compact` or `abkit retain` running? Try again when it has ended"
        )


def _fill(connection: duckdb.DuckDBPyConnection, workspace: Path) -> bool:
    """Load archive and log; False if events moved from one into the other meanwhile."""
    archive, log_path = Archive(workspace), workspace / "log"
    before = archive.manifest()
    try:
        archive.fill(connection)
        reader, loader = LogReader(log_path), Loader(connection, clock=time.time)
        has_more = True
        while has_more:
            with collection_paused():
                chunk = read_batch(reader, log_path, loader.positions)
                loader.load(chunk)
                has_more = chunk.has_more
                del chunk
        for unit in erasures.pending(workspace):
            erasures.exclude(connection, unit)
    except StoreError:
        if archive.manifest() == before:
            raise
        return False
    return archive.manifest() == before


def _wide(metrics: Sequence[Metric], before: Sequence[Metric]) -> str:
    """The query for one row per unit."""
    shown = [
        f"unit.unit_id AS {UNIT}",
        f"unit.variant AS {VARIANT}",
        f"unit.epoch AS {EPOCH}",
        f"unit.since AS {EXPOSED}",
        f"unit.since + to_microseconds($window) AS {COMPLETE}",
    ]
    shown += [
        f"{_filled(f'later.v{i}', item, 'NULL')} AS {quoted(item.key)}"
        for i, item in enumerate(metrics)
    ]
    shown += [
        f"{_filled(f'earlier.v{i}', item, f'avg(earlier.v{i}) OVER (), 0')} "
        f"AS {quoted(before_name(item.key))}"
        for i, item in enumerate(before)
    ]
    return (
        f"SELECT {', '.join(shown)} FROM unit LEFT JOIN later USING (unit_id) "  # noqa: S608 - names of ours
        f"LEFT JOIN earlier USING (unit_id) WHERE {_MATURE} ORDER BY unit.unit_id"
    )


def _filled(value: str, metric: Metric, otherwise: str) -> str:
    return f"coalesce({value}, {'0' if metric.missing == 'zero' else otherwise})"
