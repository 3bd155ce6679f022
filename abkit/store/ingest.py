"""The ingester: segments -> DuckDB, exactly once, in large batches.

Rows and the watermark of each writer are committed in one transaction, so a killed ingester
goes on where it had committed, and reading the log twice changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import time
from os import getpid
from typing import TYPE_CHECKING, Any, Final, Self

import duckdb

from abkit.errors import StoreError
from abkit.log import LogReader, seal_dead
from abkit.store import erasures, forget, publish
from abkit.store.batches import collection_paused, read_batch
from abkit.store.connect import MEMORY_LIMIT, STORE, THREADS, protect
from abkit.store.index import leading, open_index, refill, take_place
from abkit.store.loader import Ingested, Loader
from abkit.store.rollup import Rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from abkit.metrics import Metric
    from abkit.observation import Observation
    from abkit.workspace import Workspace

__all__ = ["Ingested", "Ingester"]

# After these DuckDB answers nothing any more: a write or an fsync failed half way.
_INVALIDATING: Final = (duckdb.FatalException, duckdb.InternalException)


class Ingester:
    """The only process that writes the store of a workspace.

    Args:
        workspace: the workspace.
        clock: seconds since 1970 in UTC, stamped as the time of receipt.
        mend: whether a store that is damaged is set aside and made anew from archive and log.
        memory_limit: what DuckDB may use, such as "2GB".
        threads: that DuckDB may use.

    Raises:
        StoreBusyError: another ingester runs on this workspace.
        DamagedStoreError: the store is damaged, and `mend` is off.
    """

    _connection: duckdb.DuckDBPyConnection
    _loader: Loader

    def __init__(
        self,
        workspace: Workspace,
        *,
        clock: Callable[[], float] = time.time,
        mend: bool = False,
        memory_limit: str = MEMORY_LIMIT,
        threads: int = THREADS,
    ) -> None:
        """Take the leader's lock and open the store."""
        self.workspace = workspace
        self._clock = clock
        self._pid = getpid()
        self._limits: dict[str, Any] = {"memory_limit": memory_limit, "threads": threads}
        self._path = workspace.store_path / STORE
        self._reader = LogReader(workspace.log_path)
        self._loaded_before = 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(leading(workspace))
            self._open(mend=mend)
            stack.callback(self._close)
            forget.resume(self)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        """The ingester itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store and free the lock."""
        self.close()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The open store; another one after `swap`."""
        return self._connection

    @property
    def loaded(self) -> int:
        """Exposures and outcomes loaded since the start: grows exactly when there is news."""
        return self._loaded_before + self._loader.loaded

    @property
    def _next_load(self) -> int:
        return self._loader.next_load

    def close(self) -> None:
        """Close the store and free the lock."""
        self._resources.close()

    def _close(self) -> None:
        self._connection.close()

    def ingest(self) -> Ingested:
        """Load everything that the writers have acknowledged.

        Where DuckDB gives up its file, such as after a failed fsync, the store is opened again:
        what had been committed is there, and the log has the rest.

        Raises:
            StoreError: the store failed again, or this process is a fork of the ingester's.
        """
        if getpid() != self._pid:
            raise StoreError(
                "this ingester belongs to the process that forked this one; a store has one "
                "writer: open another when that one has ended"
            )
        seal_dead(self.workspace.log_path, clock=self._clock)
        try:
            return self._ingest()
        except _INVALIDATING:
            self.reopen()
        try:
            return self._ingest()
        except _INVALIDATING as error:
            line = str(error).strip().partition("\n")[0]
            raise StoreError(
                f"the store {self._path} fails again after being opened anew: {line}; see to its "
                "disk; events stay in the log until then"
            ) from error

    def _ingest(self) -> Ingested:
        total = Ingested()
        since = self._next_load
        while True:
            with collection_paused():
                chunk = read_batch(self._reader, self.workspace.log_path, self._loader.positions)
                total += self._loader.load(chunk)
                has_more = chunk.has_more
                del chunk
            protect(self._path)
            if not has_more:
                break
        if self._next_load > since:
            for unit in erasures.unsealed(self.workspace.path):
                erasures.exclude(self._connection, unit, since=since)
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
        rivals: tuple[str, ...] = (),
    ) -> Observation:
        """Everything a look needs of one experiment, for the price of the news."""
        return self._rollup.observe(
            experiment=experiment,
            epochs=epochs,
            metrics=metrics,
            control=control,
            treatment=treatment,
            now=now,
            load=self._next_load - 1,
            rivals=rivals,
        )

    def decisions(self, rollout: str, *, first: int = 0) -> list[dict[str, Any]]:
        """The decision records of a rollout, in the order of their looks, from a look on."""
        rows = self._connection.execute(
            "SELECT record FROM decision WHERE rollout = ? AND look >= ? "
            "ORDER BY look, time, writer, sequence",
            [rollout, first],
        ).fetchall()
        return [json.loads(text) for (text,) in rows]

    def watermark(self) -> dict[str, int]:
        """Newest sequence number loaded, by writer."""
        return {writer: p.next_sequence - 1 for writer, p in self._loader.positions.items()}

    def publish(self) -> None:
        """Replace what readers see."""
        publish.publish(self._connection, self.workspace.store_path, now=self._clock())

    def now(self) -> float:
        """What its clock says: seconds since 1970 in UTC."""
        return self._clock()

    def checkpoint(self) -> None:
        """Put everything into the store's file, and empty its write-ahead log."""
        self._connection.execute("CHECKPOINT")
        protect(self._path)

    def swap(self, draft: Path) -> None:
        """Let another store take the place of this one.

        Args:
            draft: a finished store beside it, closed.
        """
        self._connection.close()
        try:
            take_place(draft, self._path)
        finally:  # the old one, if the system refused
            self._renew()

    def drop_rollups(self) -> None:
        """Forget what is kept between looks, because events were taken away."""
        self._rollup.drop()

    def rebuild(self) -> None:
        """Make the store anew from archive and log; see `abkit.store.rebuild` for a careful way.

        Raises:
            StoreError: an archived file is missing or damaged; the old store is still there.
        """
        self._connection.close()
        try:
            refill(self.workspace, **self._limits)
        finally:
            self._renew()
        self.ingest()

    def reopen(self) -> None:
        """Open the store again, and bring it up to its archive."""
        with contextlib.suppress(duckdb.Error):
            self._connection.close()
        self._renew()

    def _renew(self) -> None:
        self._loaded_before = self.loaded
        self._open(mend=False)

    def _open(self, *, mend: bool) -> None:
        self._connection = open_index(self.workspace, mend=mend, **self._limits)
        self._loader = Loader(self._connection, clock=self._clock)
        self._rollup = Rollup(self._connection)
