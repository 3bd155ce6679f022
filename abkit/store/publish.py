"""Publishing: a small DuckDB file, replaced atomically, that readers open read-only.

Readers never meet the writer's lock, and a page costs the size of the rollup, not of the log.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import duckdb

from abkit.store.moments import timestamp

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED = "published.duckdb"

# A missing number was dropped by the writer, or lost in damaged bytes, or is unexplained.
_WRITERS = """
WITH stored AS (
  SELECT writer, sum(events) AS stored, max(last_event) AS last_event FROM tally GROUP BY writer
), lost AS (SELECT writer, sum(count) AS dropped FROM loss GROUP BY writer
), absent AS (SELECT writer, sum(count) AS missing FROM gap GROUP BY writer
), gone AS (SELECT writer, sum(count) AS removed FROM retention GROUP BY writer
), bad AS (
  SELECT writer, sum(events) FILTER (segment > 0) AS damaged,
    count(*) FILTER (segment = 0) AS strange
  FROM quarantine GROUP BY writer
), counted AS (
  SELECT w.writer, (w.next_sequence - 1)::BIGINT AS accepted,
    coalesce(stored, 0)::BIGINT AS stored, coalesce(dropped, 0)::BIGINT AS dropped,
    coalesce(missing, 0)::BIGINT AS missing, coalesce(damaged, 0)::BIGINT AS damaged,
    coalesce(strange, 0) AS strange, last_event, coalesce(removed, 0)::BIGINT AS removed
  FROM watermark w LEFT JOIN stored USING (writer) LEFT JOIN lost USING (writer)
    LEFT JOIN absent USING (writer) LEFT JOIN bad USING (writer) LEFT JOIN gone USING (writer)
)
SELECT writer, accepted, stored, dropped,
  greatest(0, least(damaged, missing - dropped)) + strange AS quarantined, last_event, removed,
  missing, damaged, strange
FROM counted ORDER BY writer
"""

_TABLES = {
    "writer": _WRITERS,
    "loss": "FROM loss",
    "quarantine": "FROM quarantine",
    "decision": "SELECT rollout, look, time, record FROM decision ORDER BY rollout, look, time",
    "traffic": "FROM traffic ORDER BY ALL",
    "tally": "SELECT writer, experiment, variant, sum(events)::BIGINT AS stored FROM tally "
    "GROUP BY ALL ORDER BY ALL",
    "retention": "FROM retention",
    "watermark": "FROM watermark",
}


def remove_drafts(folder: Path) -> None:
    """Remove what publishers left behind that were killed; only the leader publishes."""
    for draft in folder.glob(f".{PUBLISHED}.*"):
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def publish(connection: duckdb.DuckDBPyConnection, folder: Path, *, now: float) -> None:
    """Write what readers need to a new file, and put it in the place of the old one.

    Args:
        connection: the open store.
        folder: where the published file lives.
        now: seconds since 1970 in UTC.
    """
    draft = folder / f".{PUBLISHED}.{os.getpid()}"
    remove_drafts(folder)
    # The path is ours, and holds no quote: workspaces with one are refused here by DuckDB itself.
    quoted = str(draft).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS published")
    try:
        connection.begin()
        connection.execute(
            "CREATE TABLE published.meta AS SELECT $1::TIMESTAMP AS published", [timestamp(now)]
        )
        for name, query in _TABLES.items():
            connection.execute(f"CREATE TABLE published.{name} AS {query}")
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            connection.rollback()  # else the cause is hidden, and every later tick fails too
        raise
    finally:
        connection.execute("DETACH published")
    draft.chmod(0o600)
    draft.replace(folder / PUBLISHED)
