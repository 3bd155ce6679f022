"""Bulk assignment: which variant each row of a table gets, in SQL, and its exposures, once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.batch.database import (
    Database,
    check_column,
    check_entities,
    columns_of,
    first_row,
    literal,
    one,
    quoted,
    table_sql,
    text_sql,
    transaction,
)
from abkit.batch.outbox import PART_ROWS, log_parts, next_part
from abkit.bulk import assign_many, experiment_of
from abkit.bulk.conditions import attributes_of
from abkit.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from abkit.experiment import Experiment
    from abkit.workspace import Workspace

MAX_RUN: Final = 128
_UNIT: Final = "abkit_unit"


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a bulk assignment did.

    Args:
        run: its name.
        experiment: key of the experiment.
        epoch: allocation epoch of the run.
        rows: entities in the table.
        added: of them, assigned now; the others were assigned by this run before.
        logged: exposures logged now.
        counts: entities of the run by variant and reason.
        view: the table with variant, reason, epoch and assignment_id.
    """

    run: str
    experiment: str
    epoch: int
    rows: int
    added: int
    logged: int
    counts: dict[tuple[str, str], int]
    view: str


def assign(
    database: Database,
    table: str,
    *,
    unit: str,
    experiment: str,
    workspace: Workspace,
    run: str,
    log: bool = True,
    progress: Callable[[int], object] = lambda _events: None,
) -> Assigned:
    """Assign every entity of a table as `Client.assign` would, and log the exposures once.

    Running it again adds what has come to the table since, and logs nothing twice: within a run
    an entity keeps its variant, also where the allocation has moved meanwhile.

    Args:
        database: where the table is.
        table: its name, `table` or `schema.table`.
        unit: the column with the entity, of text or whole numbers; each of them once.
        experiment: key of the experiment; targeting sees the columns named like its attributes.
        workspace: where it is published, and where exposures go.
        run: name of this run, such as the date.
        log: whether to log exposures.
        progress: told of exposures as they are logged.

    Raises:
        ConfigError: no such table or column, or the run was for something else.
        DataError: an entity is missing, or stands in two rows.
        UnknownExperimentError: the workspace has no such experiment.
        StoreBusyError: another job works on the database.
    """
    check_run(run)
    snapshot = workspace.snapshot()
    if snapshot is None:
        raise StoreError(f"nothing is published in {workspace.path}; start a rollout first")
    bound = experiment_of(snapshot, experiment)
    item = bound.experiment
    with database.job("the assignment"), database.writing() as connection:
        known = columns_of(connection, table_sql(table), table)
        check_column(unit, known, table)
        rows = check_entities(connection, table_sql(table), quoted(unit), table)
        view = f"{table.rpartition('.')[2]}_assigned"
        home = str(workspace.log_path.resolve()) if log else ""
        with transaction(connection):
            _begin(
                connection,
                item,
                run=run,
                table=table,
                unit=unit,
                version=snapshot.version,
                now=database.now(),
            )
            seen = [name for name in attributes_of(item.targeting) if name in known]
            chosen = ", ".join([f"{quoted(unit)} AS {_UNIT}", *map(quoted, seen)])
            units = connection.sql(f"SELECT {chosen} FROM {_fresh(table, unit, run)}")  # noqa: S608
            found = assign_many(bound, units, unit=_UNIT, attributes=seen, detail=True)
            added = _store(
                connection,
                found,
                run=run,
                experiment=experiment,
                home=home,
                now=database.now(),
            )
            _show(connection, table, unit, run, view)
        workspace.create()
        logged = log_parts(connection, workspace.log_path, progress=progress) if log else 0
        counts = connection.execute(
            "SELECT variant, reason, count(*) FROM abkit_assigned WHERE run = $run "
            "GROUP BY ALL ORDER BY ALL",
            {"run": run},
        ).fetchall()
    by = {(variant, reason): n for variant, reason, n in counts}
    return Assigned(run, experiment, item.epoch, rows, added, logged, by, view)


def check_run(run: str) -> None:
    """Refuse what cannot name a run.

    Raises:
        ConfigError: it is empty, too long, or holds control characters.
    """
    if not run or len(run) > MAX_RUN or not run.isprintable():
        raise ConfigError(f"a run is named by 1 to {MAX_RUN} printable characters, got {run!r}")


def _begin(
    connection: duckdb.DuckDBPyConnection,
    item: Experiment,
    *,
    run: str,
    table: str,
    unit: str,
    version: int,
    now: int,
) -> None:
    """Note the run, or check that it goes on."""
    found = first_row(
        connection,
        "SELECT experiment, source, unit, epoch FROM abkit_run WHERE run = $run",
        {"run": run},
    )
    if found is None:
        connection.execute(
            "INSERT INTO abkit_run VALUES ($run, $experiment, $source, $unit, $epoch, "
            "$control, $shadow, $weights, $version, make_timestamp($now))",
            {
                "run": run,
                "experiment": item.key,
                "source": table,
                "unit": unit,
                "epoch": item.epoch,
                "control": item.control,
                "shadow": item.shadow,
                "weights": json.dumps(dict(item.weights)),
                "version": version,
                "now": now,
            },
        )
        return
    if found[:3] != (item.key, table, unit):
        raise ConfigError(
            f"run {run!r} assigned {found[1]!r} by {found[2]!r} in experiment {found[0]!r}; "
            "name another run"
        )
    missing = one(connection, f"SELECT count(*) FROM {_fresh(table, unit, run)}")  # noqa: S608
    if missing and found[3] != item.epoch:
        raise ConfigError(
            f"run {run!r} assigned under epoch {found[3]}, and epoch {item.epoch} holds now: its "
            f"{missing:,} new entities would get another allocation; name another run"
        )


def _fresh(table: str, unit: str, run: str) -> str:
    """The rows of the table that the run has not assigned, as SQL after FROM."""
    return (
        f"{table_sql(table)} source ANTI JOIN "  # noqa: S608
        f"(SELECT unit FROM abkit_assigned WHERE run = {literal(run)}) done "
        f"ON {text_sql(f'source.{quoted(unit)}')} = done.unit"
    )


def _store(
    connection: duckdb.DuckDBPyConnection,
    abkit_found: Any,
    *,
    run: str,
    experiment: str,
    home: str,
    now: int,
) -> int:
    """Keep the assignments, and the parts that shall be logged; within a transaction."""
    first = next_part(connection)
    abkit_found.create_view("abkit_found", replace=True)
    connection.execute(
        "INSERT INTO abkit_assigned SELECT run, unit, variant, reason, epoch, "  # noqa: S608
        "md5(concat_ws(chr(31), run, experiment, epoch, unit)), "
        f"{first} + (row_number() OVER () - 1) // {PART_ROWS} FROM ("
        f"SELECT {literal(run)} AS run, {literal(experiment)} AS experiment, "
        f"{text_sql(_UNIT)} AS unit, variant, reason, epoch FROM abkit_found)"
    )
    connection.execute("DROP VIEW abkit_found")
    connection.execute(
        "INSERT INTO abkit_part SELECT part, 'exposure', $run, $experiment, count(*), "
        "make_timestamp($now), $home, NULL FROM abkit_assigned WHERE part >= $first "
        "GROUP BY part",
        {"run": run, "experiment": experiment, "now": now, "home": home, "first": first},
    )
    added = one(connection, "SELECT count(*) FROM abkit_assigned WHERE part >= $first", first=first)
    return int(added)


def _show(
    connection: duckdb.DuckDBPyConnection, table: str, unit: str, run: str, view: str
) -> None:
    """The table with its assignment, as a view."""
    connection.execute(
        f"CREATE OR REPLACE VIEW {quoted(view)} AS SELECT source.*, given.run, given.variant, "  # noqa: S608
        f"given.reason, given.epoch, given.assignment_id FROM {table_sql(table)} source "
        f"LEFT JOIN abkit_assigned given ON given.run = {literal(run)} "
        f"AND given.unit = {text_sql(f'source.{quoted(unit)}')}"
    )
