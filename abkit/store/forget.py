"""Erasing a unit everywhere: state files, archive, segments, store and what was published.

What is to be done is written down first, in `forget.json`, and struck off last: an erasure that
is cut off, or that meets a segment that is still being written, is finished by the next one, and
by the next controller that starts. Until then that file names the unit, as the segment does.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import duckdb

from abkit.errors import AbkitError, ConfigError
from abkit.experiment import Experiment
from abkit.log import seal_dead
from abkit.log.rewrite import rewrite_segment
from abkit.snapshot import write_atomically
from abkit.store import tally
from abkit.store.archive import (
    Archive,
    quoted,
    quoted_name,
    segments,
    set_removals,
    with_accounts,
)
from abkit.store.erasures import (
    BEGUN,
    EVENTS,
    PENDING,
    UNSEALED,
    exclude,
    note,
    owners,
    pending,
    redacted,
)
from abkit.store.index import DRAFT, aside, tidy
from abkit.store.loader import add_retention
from abkit.store.migrate import schema
from abkit.store.redact import Redactor
from abkit.store.retention import Counts, rewrite
from abkit.workspace import locked

if TYPE_CHECKING:
    from pathlib import Path

    from abkit.store.ingest import Ingester
    from abkit.workspace import Workspace

# What `write_atomically` calls a file that it has not finished.
_DRAFT: Final = re.compile(r"\..+\.\d+-[0-9a-f]{16}")
Event = tuple[str, int, tuple[str, str]]
_PLAIN: Final = ("meta", "watermark", "loss", "gap", "quarantine", "retention")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was rewritten.

    Args:
        events: rows taken out of the store.
        segments: of the log, rewritten.
        files: of the archive, rewritten or deleted.
        states: experiments and rollouts that named the unit in an override.
        removed: stores that had been set aside, deleted because they cannot be rewritten.
        unsealed: segments still being written that hold the unit; it stays there, and in
            `forget.json`, until they are sealed.
        left: files in which the same characters occur all the same: within a longer name, in a
            reason that a person wrote, or in bytes that cannot be read.
    """

    events: int
    segments: int
    files: int
    states: tuple[str, ...]
    removed: tuple[Path, ...]
    unsealed: tuple[Path, ...]
    left: tuple[Path, ...]


def forget(ingester: Ingester, unit: str) -> Forgotten:
    """Erase a unit everywhere in a workspace, as far as nobody is writing right now.

    Args:
        ingester: of the workspace.
        unit: its id.

    Raises:
        ConfigError: the unit is empty or no text.
        StoreError: a file cannot be rewritten; what was done stays done, and is gone on with.
    """
    try:
        is_text = bool(unit.encode())
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise ConfigError(f"a unit is a text of one character or more, got {unit!r}")
    return _erase(ingester, unit)


def finish(ingester: Ingester) -> list[Forgotten]:
    """Go on with every erasure that could not be finished."""
    return [_erase(ingester, unit) for unit in pending(ingester.workspace.path)]


def resume(ingester: Ingester) -> None:
    """Go on with the erasures that were cut off, or whose segments are sealed by now.

    For an ingester that starts: it must not fail because a file cannot be rewritten.
    """
    workspace = ingester.workspace
    with contextlib.suppress(AbkitError, OSError, duckdb.Error):
        todo = pending(workspace.path)
        if todo:
            seal_dead(workspace.log_path, clock=ingester.now)
        for unit, word in todo.items():
            redactor = Redactor(unit)
            # A sealed segment that still has what the store has not cannot be archived.
            is_due = word == BEGUN or not _unsealed(workspace, redactor)
            if is_due or any(_has(path, redactor.needles) for path in _sealed(workspace)):
                _erase(ingester, unit)
            else:
                exclude(ingester.connection, unit)


def _erase(ingester: Ingester, unit: str) -> Forgotten:
    workspace = ingester.workspace
    redactor = Redactor(unit)
    todo = pending(workspace.path)
    was_cut_off = todo.get(unit) == BEGUN
    note(workspace.path, {**todo, unit: BEGUN})
    ingester.ingest()  # also seals the segments of the dead
    states = _erase_states(workspace, unit)
    files = _erase_archive(ingester, redactor)
    segments_done, strange = _erase_segments(workspace, redactor)
    if was_cut_off:
        ingester.rebuild()  # it may or may not know what the first attempt had rewritten
        strange = []
    events = _erase_store(ingester, redactor, strange)
    ingester.publish()
    removed = tuple(aside(workspace.store_path))
    for path in removed:
        path.unlink()
    tidy(workspace)
    _remove_drafts(workspace, redactor)
    unsealed = tuple(_unsealed(workspace, redactor))
    rest = {key: word for key, word in pending(workspace.path).items() if key != unit}
    note(workspace.path, {**rest, unit: UNSEALED} if unsealed else rest)
    left = tuple(_occurrences(workspace.path, redactor, {workspace.path / PENDING, *unsealed}))
    return Forgotten(events, segments_done, files, states, removed, unsealed, left)


def _erase_states(workspace: Workspace, unit: str) -> tuple[str, ...]:
    """Take the unit's overrides out of experiments and rollouts, and publish the snapshot."""

    def cleaned(experiment: Experiment) -> Experiment:
        rest = {key: value for key, value in experiment.overrides.items() if key != unit}
        return replace(experiment, overrides=rest)

    found: list[str] = []
    for rollout in workspace.rollouts(on_damage=lambda _path, _error: None):
        if unit in rollout.experiment.overrides:
            changed = replace(rollout, experiment=cleaned(rollout.experiment))
            workspace.put(changed, expected_version=rollout.version)
            found.append(f"rollout {rollout.key}")
    owned = {item.experiment.key for item in workspace.rollouts(on_damage=lambda *_: None)}
    for path in sorted((workspace.path / "experiments").glob("*.json")):
        with contextlib.suppress(AbkitError, OSError, ValueError):  # damaged: found as left
            experiment = Experiment.from_dict(json.loads(path.read_bytes()))
            if unit in experiment.overrides:
                if experiment.key in owned:
                    text = json.dumps(cleaned(experiment).to_dict(), ensure_ascii=False, indent=1)
                    write_atomically(path, text.encode())
                else:
                    workspace.publish(cleaned(experiment))
                found.append(f"experiment {experiment.key}")
    # An erasure that was cut off may have written the files and not the snapshot.
    snapshot = workspace.snapshot()
    if snapshot and any(unit in item.overrides for item in snapshot.experiments.values()):
        workspace.publish()
    return tuple(found)


def _erase_archive(ingester: Ingester, redactor: Redactor) -> int:
    """Rewrite the archived files that hold the unit; returns their number."""
    archive = Archive(ingester.workspace.path)
    manifest = archive.manifest()
    connection = ingester.connection
    files = dict(manifest.files)
    counts: Counts = Counter()
    touched = 0
    unit = redactor.unit.replace("'", "''")
    for name, item in manifest.files.items():
        archive.check(name, item)
        source = f"read_parquet('{quoted(archive.path / name)}', hive_partitioning = false)"
        if item.table in EVENTS:
            found = owners(connection, source, redactor.unit)
            counts += found
            if not found:
                continue
            source += f" WHERE unit_id <> '{unit}'"
        else:
            changed = redacted(connection, source, redactor)
            if not changed:
                continue
            connection.execute(f"CREATE OR REPLACE TEMP TABLE kept AS FROM {source}")
            connection.executemany(
                "UPDATE kept SET record = $3 WHERE writer = $1 AND sequence = $2", changed
            )
            source = "kept"
        del files[name]
        files |= rewrite(connection, archive, archive.draft(), item.table, source)
        touched += 1
    if touched:
        rows = [[*owner, "forgotten", number] for owner, number in counts.items()]
        fresh = replace(manifest, files=files, removals=manifest.removals + 1)
        archive.commit(with_accounts(fresh, "retention", rows))
    return touched


def _erase_segments(workspace: Workspace, redactor: Redactor) -> tuple[int, list[Event]]:
    """Rewrite the sealed segments that hold the unit.

    Returns:
        Their number; and writer, number, experiment and variant of each event taken out.
    """
    events: list[Event] = []
    touched = 0
    for path in _sealed(workspace):
        redactor.owners.clear()
        done = rewrite_segment(path, redactor.replace, needles=redactor.needles)
        touched += bool(done.replaced or done.blanked)
        events += [
            (path.parent.name, number, owner)
            for number, owner in zip(done.replaced, redactor.owners, strict=True)
            if owner is not None
        ]
    return touched, events


def _sealed(workspace: Workspace) -> list[Path]:
    """Segments that nobody writes any more."""
    folders = sorted(workspace.log_path.glob("*"))
    return [path for folder in folders for path in segments(folder)]


def _erase_store(ingester: Ingester, redactor: Redactor, strange: list[Event]) -> int:
    """Copy the store without the unit into a new file: what is deleted leaves its bytes behind.

    Args:
        ingester: of the workspace.
        redactor: of the unit.
        strange: events taken out of segments, of which some may be in quarantine.
    """
    connection = ingester.connection
    draft = ingester.workspace.store_path / DRAFT
    row = connection.execute("SELECT current_database()").fetchone()
    here = quoted_name("" if row is None else str(row[0]))
    manifest = Archive(ingester.workspace.path).manifest()
    connection.execute(f"ATTACH '{quoted(draft)}' AS fresh")
    try:
        connection.execute("USE fresh")
        connection.begin()
        connection.execute(schema())
        for table in _PLAIN:
            connection.execute(f"INSERT INTO fresh.{table} BY NAME FROM {here}.{table}")
        counts: Counts = Counter()
        for table in EVENTS:
            connection.execute(
                f"INSERT INTO fresh.{table} BY NAME FROM {here}.{table} WHERE unit_id <> ?",
                [redactor.unit],
            )
            counts += owners(connection, f"{here}.{table}", redactor.unit)
        _copy_decisions(connection, here, redactor)
        for writer, number, owner in strange:
            gone = connection.execute(
                'DELETE FROM quarantine WHERE writer = ? AND segment = 0 AND "offset" = ? '
                "RETURNING 1",
                [writer, number],
            ).fetchall()
            counts[(writer, *owner)] += len(gone)
        add_retention(connection, "forgotten", +counts)
        set_removals(connection, manifest.removals)
        tally.recount(connection)
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            connection.rollback()
        raise
    finally:
        connection.execute(f"USE {here}")
        connection.execute("DETACH fresh")
    ingester.swap(draft)
    return sum(counts.values())


def _copy_decisions(connection: duckdb.DuckDBPyConnection, here: str, redactor: Redactor) -> None:
    cursor = connection.cursor()
    cursor.execute(f"USE {here}")
    changed = redacted(cursor, "decision", redactor)
    cursor.close()
    connection.execute("CREATE TEMP TABLE changed (writer VARCHAR, sequence UBIGINT, new VARCHAR)")
    if changed:
        connection.executemany("INSERT INTO changed VALUES (?, ?, ?)", changed)
    connection.execute(
        f"INSERT INTO fresh.decision BY NAME SELECT d.* REPLACE (coalesce(new, record) AS record) "  # noqa: S608 - names of this module
        f"FROM {here}.decision d LEFT JOIN changed USING (writer, sequence) "
    )
    connection.execute("DROP TABLE changed")


def _remove_drafts(workspace: Workspace, redactor: Redactor) -> None:
    """Remove unfinished state files of processes that were killed, where they hold the unit."""
    # Whoever writes a state file holds this lock, so what is unfinished now is nobody's.
    with locked(workspace.path / "state.lock", timeout_seconds=5.0):
        for path in workspace.path.rglob(".*"):
            if _DRAFT.fullmatch(path.name) and path.is_file() and _has(path, redactor.needles):
                path.unlink()


def _unsealed(workspace: Workspace, redactor: Redactor) -> list[Path]:
    """Segments still being written that hold the unit."""
    return [
        path for path in sorted(workspace.log_path.glob("*/*.open")) if _has(path, redactor.needles)
    ]


def _occurrences(workspace: Path, redactor: Redactor, known: set[Path]) -> list[Path]:
    """Files in which the unit's characters occur."""
    return [
        path
        for path in sorted(workspace.rglob("*"))
        if path not in known and path.is_file() and _has(path, redactor.needles)
    ]


def _has(path: Path, needles: Any) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return any(needle in content for needle in needles)
