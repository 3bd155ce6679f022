"""Events older than some days go: from the archive, from the store, and so from a rebuilt one.

Only archived events expire: their segments are gone, so nothing brings them back. The manifest
is the turning point; a store that was not told of it in time is made anew.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import duckdb

from abkit.errors import ConfigError
from abkit.store import tally
from abkit.store.archive import (
    COLUMNS,
    Archive,
    ArchivedFile,
    Manifest,
    export,
    fsync,
    literal,
    set_removals,
    sha256_of,
    with_accounts,
)
from abkit.store.compact import DAY_SECONDS, compact
from abkit.store.loader import add_retention
from abkit.store.moments import timestamp

if TYPE_CHECKING:
    from pathlib import Path

    from abkit.store.ingest import Ingester
    from abkit.workspace import Workspace

# An outcome may be stamped up to a minute before its exposure.
_EARLY_SECONDS: Final = 60.0
TABLES: Final = ("exposure", "outcome")  # decisions stay for ever
Counts = Counter[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Retained:
    """What expired.

    Args:
        expired: events that were taken away, or would be.
        live: experiments whose events stay, because a rollout is live.
        protected: old events that stay for their sake.
        unsealed: old events that stay because their segment is still being written.
        files: archived files that were rewritten or deleted.
    """

    expired: int
    live: tuple[str, ...]
    protected: int
    unsealed: int
    files: int


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which events are old, and which of them stay for a live rollout."""

    cutoff: Any
    since: Any
    live: tuple[str, ...]

    def old(self) -> str:
        """SQL that is true for old events."""
        return f"(time < TIMESTAMP '{self.cutoff}')"

    def expired(self, table: str) -> str:
        """SQL that is true for events that go."""
        if not self.live:
            return self.old()
        # The names of experiments hold no quote: see `check_name`.
        names = ", ".join(f"'{name}'" for name in self.live)
        stays = f"experiment IN ({names})"
        if table == "outcome":  # most name no experiment, and may belong to a live one
            stays += f" OR time >= TIMESTAMP '{self.since}'"
        return f"({self.old()} AND NOT ({stays}))"


def retain(
    ingester: Ingester, days: float, *, force: bool = False, dry_run: bool = False
) -> Retained:
    """Take away exposures and outcomes older than some days; decisions stay.

    Args:
        ingester: of the workspace.
        days: how old events may become; above 0.
        force: whether events of live rollouts go too.
        dry_run: count only.

    Raises:
        ConfigError: `days` is not above 0.
        StoreError: archive and store do not agree with the log.
    """
    if not days > 0:
        raise ConfigError(f"days must be above 0, got {days!r}")
    ingester.ingest()
    rule = _rule(ingester.workspace, ingester.now() - days * DAY_SECONDS, force=force)
    archive = Archive(ingester.workspace.path)
    if dry_run:
        return _report(ingester, rule, archive.manifest(), expired=None, files=0)
    if _unarchived(ingester, rule, archive.manifest()):
        compact(ingester)
    manifest, counts, touched = _filter(ingester.connection, archive, rule)
    if touched:
        archive.commit(manifest)
        _follow(ingester, rule, manifest, counts)
        archive.tidy()
    return _report(ingester, rule, manifest, expired=sum(counts.values()), files=touched)


def _rule(workspace: Workspace, cutoff: float, *, force: bool) -> _Rule:
    rollouts = [] if force else [item for item in workspace.rollouts() if item.live]
    starts = [item.started or 0.0 for item in rollouts]
    return _Rule(
        timestamp(max(0.0, cutoff)),
        timestamp(max(0.0, min(starts, default=0.0) - _EARLY_SECONDS)),
        tuple(sorted({item.experiment.key for item in rollouts})),
    )


def _filter(
    connection: duckdb.DuckDBPyConnection, archive: Archive, rule: _Rule
) -> tuple[Manifest, Counts, int]:
    """Write what stays of each file to a new one; returns the manifest to commit."""
    manifest = archive.manifest()
    files = dict(manifest.files)
    counts: Counts = Counter()
    touched = 0
    draft = archive.draft() if files else archive.draft_path
    for name, item in manifest.files.items():
        if item.table not in TABLES:
            continue
        archive.check(name, item)
        source = f"read_parquet('{_sql(archive.path / name)}', hive_partitioning = false)"
        where = rule.expired(item.table)
        gone = connection.execute(
            f"SELECT writer, experiment, variant, count(*) FROM {source} WHERE {where} GROUP BY ALL"  # noqa: S608 - of this module
        ).fetchall()
        if not gone:
            continue
        counts.update({(w, e, v): int(n) for w, e, v, n in gone})
        del files[name]
        files |= rewrite(connection, archive, draft, item.table, f"{source} WHERE NOT {where}")
        touched += 1
    rows = [[*owner, "expired", number] for owner, number in counts.items()]
    changed = replace(manifest, files=files, removals=manifest.removals + bool(touched))
    return with_accounts(changed, "retention", rows), counts, touched


def rewrite(
    connection: duckdb.DuckDBPyConnection, archive: Archive, draft: Path, table: str, source: str
) -> dict[str, ArchivedFile]:
    """Write rows to new files of the archive, which do not count before a manifest names them.

    Args:
        connection: where the query runs.
        archive: of the workspace.
        draft: folder for unfinished files.
        table: kind of the events.
        source: what to select from.
    """
    query = f"SELECT {', '.join(COLUMNS[table])} FROM {source}"  # noqa: S608 - of this package
    written: dict[str, ArchivedFile] = {}
    for path, name, rows in export(connection, query, table, draft):
        target = archive.path / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written[name] = ArchivedFile(table, rows, sha256_of(path))
        path.replace(target)
        fsync(target.parent)
    return written


def _follow(ingester: Ingester, rule: _Rule, manifest: Manifest, counts: Counts) -> None:
    """Take the same events out of the store; if they are not the same there, make it anew."""
    connection = ingester.connection
    connection.begin()
    try:
        mark_archived(connection, manifest)
        deleted = 0
        for table in TABLES:
            (number,) = connection.execute(
                f"DELETE FROM {table} USING archived WHERE {table}.writer = archived.writer "  # noqa: S608 - of this module
                f"AND {table}.sequence < archived.until AND {rule.expired(table)}"
            ).fetchall()[0]
            deleted += int(number)
        add_retention(connection, "expired", counts)
        set_removals(connection, manifest.removals)
        tally.recount(connection)
        if deleted == sum(counts.values()):
            connection.commit()
        else:
            connection.rollback()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            connection.rollback()
        raise
    if deleted == sum(counts.values()):
        ingester.checkpoint()
        ingester.drop_rollups()
    else:
        ingester.reopen()


def mark_archived(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
    """Make the temporary table `archived`: by writer, the first number that is not archived."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE archived (writer VARCHAR, until UBIGINT NOT NULL)"
    )
    if manifest.positions:
        connection.executemany(
            "INSERT INTO archived VALUES (?, ?)",
            [[writer, p.next_sequence] for writer, p in manifest.positions.items()],
        )


def _unarchived(ingester: Ingester, rule: _Rule, manifest: Manifest) -> int:
    """Events in the store that should go and are not archived yet."""
    mark_archived(ingester.connection, manifest)
    total = 0
    for table in TABLES:
        (number,) = ingester.connection.execute(
            f"SELECT count(*) FROM {table} LEFT JOIN archived USING (writer) "  # noqa: S608 - of this module
            f"WHERE sequence >= coalesce(until, 0) AND {rule.expired(table)}"
        ).fetchall()[0]
        total += int(number)
    return total


def _report(
    ingester: Ingester, rule: _Rule, manifest: Manifest, *, expired: int | None, files: int
) -> Retained:
    def count(table: str, where: str) -> int:
        row = ingester.connection.execute(
            f"SELECT count(*) FROM {table} WHERE {where}"  # noqa: S608 - of this module
        ).fetchone()
        return 0 if row is None else int(row[0])

    due = sum(count(table, rule.expired(table)) for table in TABLES)
    old = sum(count(table, rule.old()) for table in TABLES)
    return Retained(
        expired=due if expired is None else expired,
        live=rule.live,
        protected=old - due,
        unsealed=0 if expired is None else _unarchived(ingester, rule, manifest),
        files=files,
    )


def _sql(path: Path) -> str:
    return literal(path).replace("'", "''")
