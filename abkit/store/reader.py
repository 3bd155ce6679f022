"""What dashboards and notebooks read: the published file, opened hardened and read-only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abkit.store.connect import READ_SECONDS, open_published
from abkit.store.publish import PUBLISHED

if TYPE_CHECKING:
    import os
    from datetime import datetime

_WRITERS = (
    "SELECT writer, accepted, stored, dropped, quarantined, last_event, removed "
    "FROM writer ORDER BY writer"
)


@dataclass(frozen=True, slots=True)
class WriterCounts:
    """What became of the events of one writer.

    Args:
        writer: id of the writer.
        accepted: events it was handed, up to the newest that was read.
        stored: events in the store.
        dropped: events it says it dropped itself.
        quarantined: events in damaged or unknown bytes.
        last_event: time of its newest event in UTC; None without one.
        removed: events that were stored and then taken away: expired or forgotten.
    """

    writer: str
    accepted: int
    stored: int
    dropped: int
    quarantined: int
    last_event: datetime | None
    removed: int = 0

    @property
    def unexplained(self) -> int:
        """Events of which nothing is known; 0 unless files were lost."""
        return self.accepted - self.stored - self.dropped - self.quarantined - self.removed


class StoreReader:
    """Reads a workspace beside the running controller, without ever blocking it.

    Args:
        workspace: the workspace folder.
        timeout_seconds: how long an answer may take; then its query is interrupted.
    """

    def __init__(
        self, workspace: str | os.PathLike[str], *, timeout_seconds: float = READ_SECONDS
    ) -> None:
        """Remember where the published file is; it is opened for each question."""
        self.workspace = Path(workspace)
        self._path = self.workspace / "store" / PUBLISHED
        self._timeout_seconds = timeout_seconds

    def published(self) -> datetime:
        """When the file was published, in UTC.

        Raises:
            StoreError: nothing has been published yet.
        """
        when: datetime = self._rows("SELECT published FROM meta")[0][0]
        return when

    def decisions(self, rollout: str, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Decision records of a rollout, oldest first.

        Args:
            rollout: key of the rollout.
            limit: the newest so many; all by default.
        """
        rows = self._rows(
            "SELECT record FROM (SELECT * FROM decision WHERE rollout = ? "
            "ORDER BY look DESC, time DESC LIMIT ?) ORDER BY look, time",
            [rollout, limit],
        )
        return [json.loads(text) for (text,) in rows]

    def writers(self) -> list[WriterCounts]:
        """What became of each writer's events."""
        return [WriterCounts(*row) for row in self._rows(_WRITERS)]

    def losses(self) -> list[dict[str, Any]]:
        """Events that writers dropped themselves, by experiment, variant and reason."""
        names = ("writer", "experiment", "variant", "reason", "count")
        rows = self._rows(
            "SELECT writer, experiment, variant, reason, count FROM loss ORDER BY ALL"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def traffic(self, experiment: str) -> list[dict[str, Any]]:
        """Exposures by minute, epoch and variant."""
        names = ("minute", "epoch", "variant", "exposures")
        rows = self._rows(
            "SELECT minute, epoch, variant, exposures FROM traffic "
            "WHERE experiment = ? ORDER BY ALL",
            [experiment],
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _rows(self, query: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        with open_published(self._path, timeout_seconds=self._timeout_seconds) as connection:
            return connection.execute(query, parameters or []).fetchall()
