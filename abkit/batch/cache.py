"""The prediction cache: answers kept by model hash and feature hash, up to a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.batch.database import Database, meta, one, transaction
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from abkit.batch.models import Model

DEFAULT_LIMIT: Final = 5_000_000
_LIMIT: Final = "cache_limit"


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the cache holds of one model.

    Args:
        model: `module:function`.
        version: of the model.
        entries: answers kept.
        hits: rows that were answered from the cache, ever.
        misses: rows that the model had to answer.
        used: when it was last asked, seconds since 1970 in UTC.
    """

    model: str
    version: str
    entries: int
    hits: int
    misses: int
    used: float


def cache_stats(database: Database) -> tuple[list[CacheStats], int]:
    """What the cache holds by model, the last used first, and how many entries it may hold."""
    with database.reading() as connection:
        rows = connection.execute(
            "SELECT m.name, m.version, count(c.model), any_value(m.hits), any_value(m.misses), "
            "epoch_us(any_value(m.used)) / 1e6 FROM abkit_cache_model m "
            "LEFT JOIN abkit_cache c USING (model) GROUP BY m.model, m.name, m.version "
            "ORDER BY 6 DESC, 1, 2"
        ).fetchall()
        return [CacheStats(*row) for row in rows], _limit(connection)


def limit_cache(database: Database, entries: int) -> int:
    """Let the cache hold so many entries from now on; returns how many had to go.

    Raises:
        ConfigError: the number is negative.
    """
    if entries < 0:
        raise ConfigError(f"the cache holds 0 or more entries, got {entries}")
    with database.writing() as connection, transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO abkit_meta VALUES ($key, $value)",
            {"key": _LIMIT, "value": str(entries)},
        )
        return evict(connection)


def clear_cache(database: Database) -> int:
    """Forget every answer; returns their number."""
    with database.writing() as connection, transaction(connection):
        entries = one(connection, "SELECT count(*) FROM abkit_cache")
        connection.execute("DELETE FROM abkit_cache")
        connection.execute("DELETE FROM abkit_cache_model")
    return int(entries)


def note_use(
    connection: duckdb.DuckDBPyConnection,
    models: Sequence[tuple[Model, str, int, int]],
    now: int,
) -> None:
    """Count hits and misses of models, given with their keys; within a transaction."""
    for model, key, hits, misses in models:
        values: dict[str, Any] = {
            "key": key,
            "name": model.name,
            "version": model.version,
            "hits": hits,
            "misses": misses,
            "now": now,
        }
        connection.execute(
            "INSERT INTO abkit_cache_model VALUES ($key, $name, $version, $hits, $misses, "
            "make_timestamp($now)) ON CONFLICT DO UPDATE SET hits = hits + excluded.hits, "
            "misses = misses + excluded.misses, used = excluded.used",
            values,
        )


def evict(connection: duckdb.DuckDBPyConnection) -> int:
    """Let go of what is above the limit: least recently used models, then oldest answers."""
    entries, limit = one(connection, "SELECT count(*) FROM abkit_cache"), _limit(connection)
    if entries <= limit:
        return 0
    connection.execute(
        "DELETE FROM abkit_cache WHERE rowid IN (SELECT c.rowid FROM abkit_cache c "
        "LEFT JOIN abkit_cache_model m USING (model) "
        "ORDER BY m.used DESC NULLS LAST, c.job DESC, c.model, c.features OFFSET $limit)",
        {"limit": limit},
    )
    return int(entries - limit)


def _limit(connection: duckdb.DuckDBPyConnection) -> int:
    return int(meta(connection, _LIMIT) or DEFAULT_LIMIT)
