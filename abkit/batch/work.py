"""A scoring job: what is to be done, and the file of its own in which it is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb

from abkit.batch.database import (
    Database,
    check_column,
    check_entities,
    columns_of,
    first_row,
    one,
    patiently,
    quoted,
    table_sql,
    text_sql,
    transaction,
)
from abkit.batch.publishing import COLUMNS
from abkit.errors import ConfigError, StoreError
from abkit.log.files import FILE_MODE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from abkit.batch.models import Model


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be scored, and by whom.

    Args:
        name: of the predictions.
        table: with entities and features.
        unit: column of the entity.
        features: type by column, in order.
        run: whose assignments choose the model; a mere label where `control` is empty.
        control: of the run's experiment; empty where one model scores everything.
        models: every model, by its key.
        of_variant: key of the model of each variant, or of all rows under "".
        shadow: variant and key of the model that answers every row besides, or two empty texts.
    """

    name: str
    table: str
    unit: str
    features: dict[str, str]
    run: str
    control: str
    models: dict[str, Model] = field(compare=False)
    of_variant: dict[str, str] = field(default_factory=dict)
    shadow: tuple[str, str] = ("", "")

    @property
    def specification(self) -> str:
        """A hash of all of it: an interrupted job is only resumed as the same one."""
        about = [self.name, self.table, self.unit, self.features, self.run, self.control]
        about += [self.of_variant, self.shadow]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def opened(database: Database, path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the job's own file attached as `work`."""
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET TimeZone = 'UTC'")
        try:
            _attach(connection, path, "work", database.wait_seconds)
        except StoreError as error:
            raise StoreError(f"{error}; --restart throws away the interrupted job") from None
        path.chmod(FILE_MODE)
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def live(
    connection: duckdb.DuckDBPyConnection, database: Database, *, read_only: bool
) -> Iterator[None]:
    """The database attached for a moment as `live`, and in use."""
    options = " (READ_ONLY)" if read_only else ""
    _attach(connection, database.path, "live", database.wait_seconds, options)
    connection.execute("USE live")
    try:
        yield
    finally:
        connection.execute("USE memory")
        connection.execute("DETACH live")


def _attach(
    connection: duckdb.DuckDBPyConnection, path: Path, alias: str, wait: float, options: str = ""
) -> None:
    literal = os.fspath(path).replace("'", "''")
    patiently(lambda: connection.execute(f"ATTACH '{literal}' AS {alias}{options}"), path, wait)


def discard(path: Path) -> None:
    """Remove the file of a job."""
    for item in (path, path.with_name(f"{path.name}.wal")):
        item.unlink(missing_ok=True)


def planned(
    connection: duckdb.DuckDBPyConnection,
    names: tuple[str, str, str, str],
    *,
    models: Mapping[str, Model],
    shadow: tuple[str, Model] | None,
    features: Sequence[str] | None,
) -> Job:
    """The job, checked against the database.

    Args:
        connection: the database in use.
        names: of the predictions, the table, the entity's column, the run.
        models: by variant; under "" that of control, or of everything.
        shadow: variant and model that answer besides.
        features: columns that the models get; None for all.
    """
    name, table, unit, run = names
    known = columns_of(connection, table_sql(table), table)
    check_column(unit, known, table)
    if unit.lower() in COLUMNS:
        raise ConfigError(f"the entity column {unit!r} has the name of a column of predictions")
    chosen = [column for column in known if column != unit] if features is None else features
    for column in chosen:
        check_column(column, known, table)
    if not chosen:
        raise ConfigError(f"table {table!r} has no features beside {unit!r}")
    kinds = {column: known[column] for column in chosen}
    control = ""
    if len(models) > 1 or shadow:
        control = one(connection, "SELECT control FROM abkit_run WHERE run = $run", run=run) or ""
        if len(models) > 1 and not control:
            raise ConfigError(f"no run {run!r} assigned anything; `abkit batch assign` does")
        if control and control in models:
            raise ConfigError(f"control {control!r} is scored by --model; name other variants")
    by_variant = {variant or control: item for variant, item in models.items()}
    of_variant = {variant: item.key(kinds) for variant, item in by_variant.items()}
    by_key = {item.key(kinds): item for item in by_variant.values()}
    dark = ("", "")
    if shadow is not None:
        dark = (shadow[0], shadow[1].key(kinds))
        by_key[dark[1]] = shadow[1]
    return Job(name, table, unit, kinds, run, control, by_key, of_variant, dark)


def interrupted(connection: duckdb.DuckDBPyConnection, job: Job, path: Path) -> bool:
    """Whether the file holds this job, to be gone on with.

    Raises:
        ConfigError: it holds another one.
    """
    is_there = one(
        connection,
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'work' AND table_name = 'job'",
    )
    row = None
    if is_there:
        row = first_row(connection, "SELECT id, specification FROM work.job")
    if row is None:
        return False
    if one(connection, "SELECT count(*) FROM abkit_versions WHERE job = $id", id=row[0]):
        with transaction(connection):  # published, and killed before the file went
            for name in ("job", "variant", "source", "answer", "todo"):
                connection.execute(f"DROP TABLE IF EXISTS work.{name}")
        return False
    if row[1] != job.specification:
        raise ConfigError(
            f"{path.name} holds an interrupted job with other models, features or another run; "
            "start that one again, or throw it away with --restart"
        )
    return True


def prepare(
    connection: duckdb.DuckDBPyConnection, database: Database, job: Job, *, use_cache: bool
) -> None:
    """Copy entities and features, find what the cache knows, and list what is left to ask."""
    source, unit = table_sql(job.table), quoted(job.unit)
    check_entities(connection, source, unit, job.table)
    columns = [f"source.{quoted(name)} AS f{i}" for i, name in enumerate(job.features)]
    texts = ", ".join(f"CAST(source.{quoted(name)} AS VARCHAR)" for name in job.features)
    given = "NULL AS variant, NULL AS assignment_id, $all AS model"
    joined = ""
    values: dict[str, Any] = {"all": job.of_variant.get(job.control, "")}
    if job.control:
        given = "given.variant, given.assignment_id, chosen.model"
        joined = (
            f"LEFT JOIN abkit_assigned given ON given.run = $run "
            f"AND given.unit = {text_sql(f'source.{unit}')} "
            "LEFT JOIN work.variant chosen ON chosen.variant = given.variant"
        )
        values = {"run": job.run}
    with transaction(connection):
        connection.execute("CREATE TABLE work.variant (variant VARCHAR, model VARCHAR)")
        for variant, key in job.of_variant.items():
            connection.execute("INSERT INTO work.variant VALUES (?, ?)", [variant, key])
        connection.execute(
            "CREATE TABLE work.row AS SELECT row_number() OVER () AS row, "  # noqa: S608
            f"source.{unit} AS unit, {given}, "
            f"sha256(CAST(to_json([{texts}]) AS VARCHAR)) AS digest, "
            f"{', '.join(columns)} FROM {source} source {joined}",
            values,
        )
        _check_chosen(connection, job)
        asked = "SELECT model, digest, row FROM work.row"
        if job.shadow[1]:
            asked += f" UNION ALL SELECT '{job.shadow[1]}', digest, row FROM work.row"  # noqa: S608
        connection.execute(
            "CREATE TABLE work.answer (model VARCHAR, digest VARCHAR, prediction DOUBLE, "
            "time TIMESTAMP, fresh BOOLEAN)"
        )
        grouped = f"SELECT model, digest, min(row) AS row FROM ({asked}) GROUP BY ALL"  # noqa: S608
        if use_cache:
            connection.execute(
                f"INSERT INTO work.answer SELECT asked.model, asked.digest, kept.prediction, "  # noqa: S608
                f"make_timestamp($now), false FROM ({grouped}) asked JOIN abkit_cache kept "
                "ON kept.model = asked.model AND kept.features = asked.digest",
                {"now": database.now()},
            )
        connection.execute(
            "CREATE TABLE work.todo AS SELECT row_number() OVER "  # noqa: S608
            "(ORDER BY asked.model, asked.row) AS number, asked.model, asked.digest, "
            f"{', '.join(f'f{i}' for i in range(len(columns)))} "
            f"FROM ({grouped}) asked JOIN work.row USING (row) "
            "ANTI JOIN work.answer known ON known.model = asked.model "
            "AND known.digest = asked.digest ORDER BY number"
        )
        connection.execute(
            "CREATE TABLE work.source AS SELECT row, unit, variant, assignment_id, model, digest "
            "FROM work.row ORDER BY row"
        )
        connection.execute("DROP TABLE work.row")
        connection.execute("CREATE TABLE work.job (id VARCHAR, specification VARCHAR)")
        connection.execute(
            "INSERT INTO work.job VALUES (?, ?)", [os.urandom(16).hex(), job.specification]
        )


def _check_chosen(connection: duckdb.DuckDBPyConnection, job: Job) -> None:
    """Refuse rows that no model would score."""
    if not job.control:
        return
    rows = connection.execute(
        "SELECT variant, count(*) FROM work.row WHERE model IS NULL GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    for variant, n in rows:
        if variant is None:
            raise ConfigError(
                f"{n:,} rows of {job.table!r} were not assigned by run {job.run!r}; "
                "run `abkit batch assign` first"
            )
        raise ConfigError(
            f"{n:,} rows were assigned {variant!r}, which has no model; there are models of "
            f"{', '.join(map(repr, job.of_variant))}"
        )
