"""The newest of everything that is published, read in one go: what a server holds in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abkit.store.connect import READ_SECONDS, open_published
from abkit.store.publish import PUBLISHED

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

_DECISIONS = (
    "SELECT rollout, record FROM decision "
    "QUALIFY row_number() OVER (PARTITION BY rollout ORDER BY look DESC, time DESC) = 1"
)
_EXPOSURES = (
    "SELECT experiment, variant, sum(exposures)::BIGINT FROM traffic GROUP BY ALL ORDER BY ALL"
)
_LOSSES = (
    "SELECT experiment, variant, reason, sum(count)::BIGINT FROM loss GROUP BY ALL ORDER BY ALL"
)


@dataclass(frozen=True, slots=True)
class Overview:
    """What was published at one moment.

    Args:
        published: seconds since 1970 in UTC.
        decisions: the newest decision record of each rollout.
        exposures: first exposures by experiment and variant.
        losses: events that writers dropped, by experiment, variant and reason.
    """

    published: float
    decisions: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    exposures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    losses: Mapping[tuple[str, str, str], int] = field(default_factory=dict)


def published_path(workspace: str | os.PathLike[str]) -> Path:
    """Where the published file of a workspace is."""
    return Path(workspace) / "store" / PUBLISHED


def read_overview(
    workspace: str | os.PathLike[str], *, timeout_seconds: float = READ_SECONDS
) -> Overview:
    """Read it all with one connection.

    Args:
        workspace: the workspace folder.
        timeout_seconds: how long it may take.

    Raises:
        StoreError: nothing has been published yet, the file is damaged, or the time is over.
    """
    path = published_path(workspace)
    with open_published(path, timeout_seconds=timeout_seconds) as connection:
        when = connection.execute("SELECT epoch(published) FROM meta").fetchall()[0][0]
        decisions = connection.execute(_DECISIONS).fetchall()
        exposures = connection.execute(_EXPOSURES).fetchall()
        losses = connection.execute(_LOSSES).fetchall()
    return Overview(
        published=float(when),
        decisions={rollout: json.loads(record) for rollout, record in decisions},
        exposures={(experiment, variant): count for experiment, variant, count in exposures},
        losses={tuple(key): count for *key, count in losses},
    )
