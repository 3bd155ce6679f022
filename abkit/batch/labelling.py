"""Labels that arrive days later: joined to the predictions that were live, logged once.

An outcome is logged at the time of its prediction, not of its label: then it counts for the
variant that the entity had when it was scored, whatever the rollout has done since.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from abkit.batch.arrival import Arm, arms_of, missing_alike
from abkit.batch.database import (
    Database,
    check_column,
    columns_of,
    first_row,
    has_table,
    literal,
    one,
    quoted,
    table_sql,
    text_sql,
    transaction,
)
from abkit.batch.outbox import PART_ROWS, log_parts, next_part
from abkit.batch.versions import Version, read_versions
from abkit.errors import ConfigError, DataError
from abkit.metrics import check_name
from abkit.records import check_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import duckdb

    from abkit.workspace import Workspace

Value = Literal["wrong", "absolute", "squared", "label"]
_VALUES: Final[Mapping[str, str]] = {
    "wrong": "CASE WHEN {p} = {l} THEN 0.0 ELSE 1.0 END",
    "absolute": "abs({p} - {l})",
    "squared": "({p} - {l}) * ({p} - {l})",
    "label": "{l}",
}
_FILES: Final = {".parquet": "read_parquet", ".pq": "read_parquet", ".csv": "read_csv"}
_SHADOW: Final = "shadow"


@dataclass(frozen=True, slots=True)
class Labelled:
    """What joining labels did.

    Args:
        labels: in the table.
        versions: that they were joined to.
        added: outcomes that are new.
        logged: outcomes logged now.
        unmatched: labels of entities that no such version predicted.
        changed: labels that differ from one that was logged before; the first one stays.
        arms: by variant.
        missing_p_value: of the test that labels are missing alike in every variant; None where
            there is nothing to compare.
    """

    labels: int
    versions: tuple[int, ...]
    added: int
    logged: int
    unmatched: int
    changed: int
    arms: tuple[Arm, ...]
    missing_p_value: float | None


@dataclass(frozen=True, slots=True)
class _Labels:
    """Where labels are, and what becomes of them."""

    source: str
    entity: str
    label: str
    time: str
    metric: str
    value: str


def join_labels(
    database: Database,
    labels: str,
    *,
    name: str,
    entity: str,
    label: str,
    metric: str,
    workspace: Workspace,
    value: Value = "wrong",
    threshold: float | None = None,
    run: str = "",
    version: int | None = None,
    time: str = "",
    progress: Callable[[int], object] = lambda _events: None,
) -> Labelled:
    """Join labels to predictions, and log one outcome for each, once.

    Args:
        database: where the predictions are.
        labels: a table of the database, or a Parquet or CSV file.
        name: of the predictions.
        entity: column of the entity.
        label: column with what turned out to be true, a number.
        metric: key of the metric, as the rollout's policy names it.
        workspace: whose controller decides.
        value: "wrong" (1 where prediction and label differ), "absolute" or "squared" error, or
            the "label" itself.
        threshold: predictions from this on count as 1, others as 0, before they are compared.
        run: labels are of this run's predictions; or
        version: of this version's; or
        time: column with the time (UTC) to which a label belongs: of what was live then.
        progress: told of outcomes as they are logged.

    Raises:
        ConfigError: no such table, column or version, or not one of run, version and time.
        DataError: an entity has two different labels, or a label is no number.
        StoreBusyError: another job works on the database.
    """
    check_name(metric, "metric")
    check_choice("labels", "value", value, get_args(Value))
    if sum((bool(run), version is not None, bool(time))) != 1:
        raise ConfigError("say which predictions the labels are of: one of run, version or time")
    with database.job("joining labels"), database.writing() as connection:
        given = _given(
            connection,
            labels,
            columns=(entity, label, time),
            metric=metric,
            value=value,
            threshold=threshold,
        )
        chosen = _chosen(connection, name, run, version)
        with transaction(connection):
            _collect(connection, given)
            added = 0
            first = next_part(connection)
            home = str(workspace.log_path.resolve())
            for item in chosen:
                added += _join(connection, given, item, first, database.now())
            _queue(connection, first, home, database.now())
            unmatched = _unmatched(connection, chosen)
            changed = _changed(connection, given, chosen)
            total = int(one(connection, "SELECT count(*) FROM abkit_labels_in"))
            connection.execute("DROP TABLE abkit_labels_in")
        workspace.create()
        logged = log_parts(connection, workspace.log_path, progress=progress)
        arms = arms_of(connection, metric, chosen)
    return Labelled(
        total,
        tuple(item.version for item in chosen),
        added,
        logged,
        unmatched,
        changed,
        arms,
        missing_alike(arms),
    )


def _given(
    connection: duckdb.DuckDBPyConnection,
    labels: str,
    *,
    columns: tuple[str, str, str],
    metric: str,
    value: str,
    threshold: float | None,
) -> _Labels:
    entity, label, time = columns
    path = Path(labels)
    reader = _FILES.get(path.suffix.lower())
    if reader is not None and path.is_file():
        place = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in labels)
        # An entity "007" of a CSV file is not 7.
        texts = ", all_varchar = true" if reader == "read_csv" else ""
        source = f"{reader}({literal(place)}{texts})"
    elif reader is not None:
        raise ConfigError(f"no file {labels!r} with labels")
    else:
        source = table_sql(labels)
    known = columns_of(connection, source, labels)
    for column in [entity, label, *([time] if time else [])]:
        check_column(column, known, labels)
    made = _VALUES[value]
    prediction = "{p}"
    if threshold is not None:
        prediction = f"CASE WHEN {{p}} >= {float(threshold)!r} THEN 1.0 ELSE 0.0 END"
    return _Labels(source, entity, label, time, metric, made.replace("{p}", f"({prediction})"))


def _chosen(
    connection: duckdb.DuckDBPyConnection, name: str, run: str, version: int | None
) -> list[Version]:
    """The versions that the labels may be of, all of which were live."""
    known = read_versions(connection, name)
    if not known:
        raise ConfigError(f"no predictions {name!r}; `abkit batch score` makes them")
    ever = {
        row[0]
        for row in connection.execute(
            'SELECT DISTINCT "to" FROM abkit_history WHERE name = $name', {"name": name}
        ).fetchall()
    }
    wanted = [
        item
        for item in known
        if (not run or item.run == run) and (version is None or item.version == version)
    ]
    told = f"run {run!r}" if run else f"version {version}"
    if not wanted:
        raise ConfigError(f"{name!r} has no {told}")
    found = [item for item in wanted if item.version in ever and has_table(connection, item.table)]
    if not found:
        raise ConfigError(
            f"{name!r}: {told} was never live, so nobody has met its predictions, or its table is "
            "gone"
            if run or version is not None
            else f"{name!r}: no version was ever live; swap one in first"
        )
    return found


def _collect(connection: duckdb.DuckDBPyConnection, given: _Labels) -> None:
    """The labels, one an entity and time, checked."""
    at = f"CAST({quoted(given.time)} AS TIMESTAMP)" if given.time else "NULL::TIMESTAMP"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE abkit_labels_in AS SELECT "  # noqa: S608
        f"{text_sql(quoted(given.entity))} AS unit, TRY_CAST({quoted(given.label)} AS DOUBLE) "
        f"AS label, {at} AS moment FROM {given.source} WHERE {quoted(given.entity)} IS NOT NULL "
        "GROUP BY ALL"
    )
    bad, example = connection.execute(
        "SELECT count(*), min(unit) FROM abkit_labels_in WHERE label IS NULL OR NOT isfinite(label)"
    ).fetchall()[0]
    if bad:
        raise DataError(
            f"{bad:,} labels are no numbers, such as that of {example!r}; leave them out until "
            "they are known"
        )
    row = first_row(
        connection,
        "SELECT count(*) OVER (), unit, n FROM (SELECT unit, moment, count(*) AS n "
        "FROM abkit_labels_in GROUP BY ALL HAVING n > 1) ORDER BY unit LIMIT 1",
    )
    if row is not None:
        raise DataError(
            f"{row[0]:,} entities have several labels that differ, such as {row[1]!r}; keep one"
        )


def _matches(item: Version) -> str:
    """The labels that are of a version, as SQL after FROM: `l` the label, `p` the prediction."""
    # Where no time is given, `moment` is NULL, and the versions were chosen.
    return (
        f"abkit_labels_in l JOIN {quoted(item.table)} p "  # noqa: S608
        f"ON {text_sql(f'p.{quoted(item.entity)}')} = l.unit "
        "AND (l.moment IS NULL OR EXISTS (FROM ("
        'SELECT "to", time AS since, lead(time) OVER (ORDER BY number) AS until '
        f"FROM abkit_history WHERE name = {literal(item.name)}) s "
        f'WHERE s."to" = {item.version} AND l.moment >= s.since '
        "AND (s.until IS NULL OR l.moment < s.until)))"
    )


def _join(
    connection: duckdb.DuckDBPyConnection, given: _Labels, item: Version, first: int, now: int
) -> int:
    """Keep what is new; within a transaction."""
    # Two answers of one entity are a pair, and each names its variant, as in serving.
    dark = next((key for key in item.models if key.startswith(f"{_SHADOW} ")), "")
    shadow = dark.removeprefix(f"{_SHADOW} ")
    answers = [("prediction", "p.variant" if shadow else "''", "p.variant")]
    if shadow:
        answers.append(("shadow_prediction", literal(shadow), literal(shadow)))
    added = 0
    for column, answered, variant in answers:
        made = given.value.replace("{p}", f"p.{column}").replace("{l}", "l.label")
        values = {
            "name": item.name,
            "version": item.version,
            "metric": given.metric,
            "now": now,
            "run": item.run,
            "first": first,
        }
        found = first_row(
            connection,
            "INSERT INTO abkit_label SELECT $name, $version, l.unit, $metric, "  # noqa: S608
            f"{answered}, {variant}, {made}, p.scored_at, "
            f"coalesce(l.moment, make_timestamp($now)), $first FROM {_matches(item)} "
            "JOIN abkit_assigned a ON a.run = $run AND a.assignment_id = p.assignment_id "
            "AND a.reason = 'split' "
            f"ANTI JOIN abkit_label k ON k.name = $name AND k.version = $version "
            f"AND k.unit = l.unit AND k.metric = $metric AND k.variant = {variant} "
            f"WHERE p.{column} IS NOT NULL",
            values,
        )
        added += 0 if found is None else int(found[0])
    return added


def _queue(connection: duckdb.DuckDBPyConnection, first: int, home: str, now: int) -> None:
    """Cut what is new into parts, each of one experiment."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE abkit_cut AS SELECT rowid AS place, experiment, run, "  # noqa: S608
        f"dense_rank() OVER (ORDER BY experiment, run, chunk) - 1 + $first AS part FROM ("
        "SELECT k.rowid, r.experiment, r.run, (row_number() OVER (PARTITION BY r.run "
        f"ORDER BY k.rowid) - 1) // {PART_ROWS} AS chunk FROM abkit_label k "
        "JOIN abkit_versions v ON v.name = k.name AND v.version = k.version "
        "JOIN abkit_run r ON r.run = v.run WHERE k.part = $first)",
        {"first": first},
    )
    connection.execute(
        "UPDATE abkit_label SET part = c.part FROM abkit_cut c WHERE abkit_label.rowid = c.place"
    )
    connection.execute(
        "INSERT INTO abkit_part SELECT part, 'outcome', run, experiment, count(*), "
        "make_timestamp($now), $home, NULL FROM abkit_cut GROUP BY ALL",
        {"now": now, "home": home},
    )
    connection.execute("DROP TABLE abkit_cut")


def _unmatched(connection: duckdb.DuckDBPyConnection, chosen: list[Version]) -> int:
    known = " UNION ALL ".join(f"SELECT l.rowid FROM {_matches(item)}" for item in chosen)  # noqa: S608
    return int(
        one(
            connection,
            f"SELECT count(*) FROM abkit_labels_in l WHERE l.rowid NOT IN ({known})",  # noqa: S608
        )
    )


def _changed(connection: duckdb.DuckDBPyConnection, given: _Labels, chosen: list[Version]) -> int:
    """Labels that would make another outcome than the one that was logged."""
    changed = 0
    for item in chosen:
        made = given.value.replace("{p}", "p.prediction").replace("{l}", "l.label")
        changed += int(
            one(
                connection,
                f"SELECT count(*) FROM {_matches(item)} JOIN abkit_label k "  # noqa: S608
                "ON k.name = $name AND k.version = $version AND k.unit = l.unit "
                f"AND k.metric = $metric AND k.variant = p.variant WHERE k.value <> {made}",
                name=item.name,
                version=item.version,
                metric=given.metric,
            )
        )
    return changed
