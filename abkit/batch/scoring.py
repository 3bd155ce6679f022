"""Scoring a table into a new version: in chunks, restartable, published in one transaction.

The work goes to a file of its own beside the database, `<database>.<name>.scoring`: first the
entities and features as they are now, then answers, a transaction a chunk. Whoever starts the
same job after a crash goes on there. Readers of the database see nothing of it until the whole
version is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from abkit.batch.assigning import check_run
from abkit.batch.database import Database, check_prediction_name, first_row, one, transaction
from abkit.batch.publishing import publish
from abkit.batch.work import Job, discard, interrupted, live, opened, planned, prepare
from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import duckdb

    from abkit.batch.models import Model

CHUNK_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scoring job made.

    Args:
        name: of the predictions.
        version: the new version; nobody reads it before a swap.
        table: that holds it.
        rows: entities in it.
        asked: feature rows that a model answered in this call.
        cached: feature rows that the cache answered.
        resumed: feature rows that an earlier, interrupted call had scored.
        existed: whether this run had made it before, and nothing was done.
    """

    name: str
    version: int
    table: str
    rows: int
    asked: int = 0
    cached: int = 0
    resumed: int = 0
    existed: bool = False


def score(
    database: Database,
    table: str,
    *,
    name: str,
    unit: str,
    model: Model,
    run: str = "",
    variants: Mapping[str, Model] | None = None,
    shadow: tuple[str, Model] | None = None,
    features: Sequence[str] | None = None,
    chunk_rows: int = CHUNK_ROWS,
    use_cache: bool = True,
    again: bool = False,
    restart: bool = False,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Scored:
    """Score a table into the next version of some predictions.

    Args:
        database: where the table is, and where the version goes.
        table: its name.
        name: of the predictions; readers use a view of this name, which `swap` moves.
        unit: the column of the entity; each of them once.
        model: scores every row, or, with `variants`, those of control and of no variant.
        run: name of this run; with `variants` or `shadow`, the run of `assign`.
        variants: the models of the other variants: a canary or an A/B test.
        shadow: variant and model that answer every row besides, for a paired comparison.
        features: columns that the models get; by default all but the entity.
        chunk_rows: rows a model gets at once; after each chunk a crash costs nothing.
        use_cache: take answers from the cache, and keep new ones there.
        again: make another version even if this run has made the same one.
        restart: throw away what an interrupted job has scored.
        progress: told of feature rows that are done, and of all.

    Raises:
        ConfigError: no such table, column or run, a variant without a model, or an interrupted
            job of another kind is there.
        DataError: an entity is missing or stands in two rows, or a model fails.
        StoreBusyError: another job works on the database.
    """
    check_prediction_name(name)
    if run:
        check_run(run)
    if chunk_rows < 1:
        raise ConfigError(f"chunk_rows must be at least 1, got {chunk_rows}")
    path = database.path.with_name(f"{database.path.name}.{name}.scoring")
    with database.job("the scoring"):
        database.prepare()
        if restart:
            discard(path)
        with opened(database, path) as connection:
            with live(connection, database, read_only=True):
                job = planned(
                    connection,
                    (name, table, unit, run),
                    models={"": model, **(variants or {})},
                    shadow=shadow,
                    features=features,
                )
                found = None if again or not run else _finished(connection, job)
                resumes = interrupted(connection, job, path)
                if found is not None and not resumes:
                    discard(path)
                    return found
                if not resumes:
                    prepare(connection, database, job, use_cache=use_cache)
            before = int(one(connection, "SELECT count(*) FROM work.answer WHERE fresh"))
            _answer(connection, database, job, chunk_rows, progress)
            with live(connection, database, read_only=False):
                version, rows = publish(connection, job, database.now(), use_cache=use_cache)
            fresh, all_ = connection.execute(
                "SELECT count(*) FILTER (fresh), count(*) FROM work.answer"
            ).fetchall()[0]
        discard(path)
    table = f"pred_{name}_v{version}"
    return Scored(name, version, table, rows, fresh - before, all_ - fresh, before)


def _finished(connection: duckdb.DuckDBPyConnection, job: Job) -> Scored | None:
    """The version that the same job has made before."""
    row = first_row(
        connection,
        'SELECT version, "table", rows FROM abkit_versions WHERE name = $name AND run = $run '
        "AND specification = $specification ORDER BY version DESC LIMIT 1",
        {"name": job.name, "run": job.run, "specification": job.specification},
    )
    return None if row is None else Scored(job.name, row[0], row[1], row[2], existed=True)


def _answer(
    connection: duckdb.DuckDBPyConnection,
    database: Database,
    job: Job,
    chunk_rows: int,
    progress: Callable[[int, int], object],
) -> None:
    """Ask the models what is left, a transaction a chunk."""
    done = int(one(connection, "SELECT count(*) FROM work.answer WHERE fresh"))
    spans = connection.execute(
        "SELECT model, min(number), max(number) FROM work.todo GROUP BY 1 ORDER BY 2"
    ).fetchall()
    total = int(spans[-1][2]) if spans else 0
    names = list(job.features)
    progress(done, total)
    for key, first, last in spans:
        while first - 1 <= done < last:
            frame = connection.execute(
                "SELECT * FROM work.todo WHERE number > $done AND number <= $upto ORDER BY number",
                {"done": done, "upto": min(done + chunk_rows, last)},
            ).df()
            digests = frame["digest"]
            given = frame[[f"f{i}" for i in range(len(names))]].set_axis(names, axis="columns")
            numbers = job.models[key](given)
            # NaN is no answer; the column of a table calls that NULL.
            table = {"digest": digests.tolist(), "prediction": numbers.tolist()}
            _keep(connection, key, table, database.now())
            done += len(numbers)
            progress(done, total)


def _keep(
    connection: duckdb.DuckDBPyConnection, key: str, table: dict[str, list[Any]], now: int
) -> None:
    connection.register("abkit_chunk", pa.table(table))
    try:
        with transaction(connection):
            connection.execute(
                "INSERT INTO work.answer SELECT $key, digest, "
                "CASE WHEN isfinite(prediction) THEN prediction END, make_timestamp($now), true "
                "FROM abkit_chunk",
                {"key": key, "now": now},
            )
    finally:
        connection.unregister("abkit_chunk")
