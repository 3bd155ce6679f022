"""A finished job -> an immutable version, in one transaction of the prediction database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from abkit.batch.cache import evict, note_use
from abkit.batch.database import literal, one, quoted, transaction
from abkit.errors import StoreError

if TYPE_CHECKING:
    import duckdb

    from abkit.batch.work import Job

COLUMNS: Final = (
    "prediction",
    "model_version",
    "variant",
    "assignment_id",
    "scored_at",
    "shadow_prediction",
    "shadow_version",
)
"""Columns of a version after the entity."""

_ROWS: Final = """
SELECT source.unit AS {unit}, answer.prediction, used.version AS model_version, source.variant,
  source.assignment_id, answer.time AS scored_at, dark.prediction AS shadow_prediction,
  {shadow} AS shadow_version
FROM work.source source
JOIN work.answer answer ON answer.model = source.model AND answer.digest = source.digest
JOIN used ON used.key = source.model
LEFT JOIN work.answer dark ON dark.model = {dark} AND dark.digest = source.digest
ORDER BY source.row
"""


def publish(
    connection: duckdb.DuckDBPyConnection, job: Job, now: int, *, use_cache: bool
) -> tuple[int, int]:
    """Make the version from the job's answers; returns its number and its rows.

    Args:
        connection: the database in use, the job's file attached as `work`.
        job: that was scored.
        now: microseconds since 1970 in UTC.
        use_cache: keep new answers in the cache.
    """
    dark = job.models.get(job.shadow[1])
    query = _ROWS.format(
        unit=quoted(job.unit),
        shadow="NULL::VARCHAR" if dark is None else literal(dark.version),
        dark=literal(job.shadow[1]),
    )
    models = {
        variant or "all": [job.models[key].name, job.models[key].version, key]
        for variant, key in job.of_variant.items()
    }
    if dark is not None:
        models |= {f"shadow {job.shadow[0]}": [dark.name, dark.version, job.shadow[1]]}
    connection.execute("CREATE OR REPLACE TEMP TABLE used (key VARCHAR, version VARCHAR)")
    connection.executemany(
        "INSERT INTO used VALUES (?, ?)", [[key, item.version] for key, item in job.models.items()]
    )
    with transaction(connection):
        version = int(
            one(
                connection,
                "SELECT coalesce(max(version), 0) + 1 FROM abkit_versions WHERE name = $name",
                name=job.name,
            )
        )
        table = f"pred_{job.name}_v{version}"
        connection.execute(f"CREATE TABLE {quoted(table)} AS {query}")
        rows, checksum = fingerprint(connection, table)
        if rows != one(connection, "SELECT count(*) FROM work.source"):
            raise StoreError(f"{table} would have {rows:,} rows, fewer than were scored")
        connection.execute(
            "INSERT INTO abkit_versions VALUES ($name, $version, $table, $run, $entity, $rows, "
            "$checksum, $models, $source, $job, $specification, make_timestamp($now))",
            {
                "name": job.name,
                "version": version,
                "table": table,
                "run": job.run,
                "entity": job.unit,
                "rows": rows,
                "checksum": checksum,
                "models": json.dumps(models),
                "source": job.table,
                "job": one(connection, "SELECT id FROM work.job"),
                "specification": job.specification,
                "now": now,
            },
        )
        if use_cache:
            _remember(connection, job, now)
    return version, rows


def fingerprint(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[int, str]:
    """Rows of a table, and a checksum of them that does not depend on their order.

    MD5 of each row as text, added up: stable over versions of DuckDB, which its `hash` is not.
    """
    name = quoted(table)
    parts = [
        f"CAST({quoted(row[0])} AS VARCHAR)"
        for row in connection.execute(f"DESCRIBE SELECT * FROM {name}").fetchall()  # noqa: S608
    ]
    rows, low, high = connection.execute(
        "SELECT count(*), coalesce(sum(md5_number_lower(text)), 0), "  # noqa: S608
        "coalesce(sum(md5_number_upper(text)), 0) FROM "
        f"(SELECT CAST(to_json([{', '.join(parts)}]) AS VARCHAR) AS text FROM {name})"
    ).fetchall()[0]
    return int(rows), f"{int(low) % 2**64:016x}{int(high) % 2**64:016x}"


def _remember(connection: duckdb.DuckDBPyConnection, job: Job, now: int) -> None:
    """Keep the job's new answers in the cache, and what it was asked."""
    connection.execute(
        "INSERT INTO abkit_cache SELECT model, digest, prediction, $now FROM work.answer "
        "WHERE fresh AND prediction IS NOT NULL",
        {"now": now},
    )
    counted: dict[Any, tuple[int, int]] = {
        key: (hits, misses)
        for key, hits, misses in connection.execute(
            "SELECT model, count(*) FILTER (NOT fresh), count(*) FILTER (fresh) "
            "FROM work.answer GROUP BY 1"
        ).fetchall()
    }
    used = [(item, key, *counted.get(key, (0, 0))) for key, item in job.models.items()]
    note_use(connection, used, now)
    evict(connection)
