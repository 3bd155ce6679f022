"""Versions of predictions, the view that readers use, and its history.

A version is a table that is made once and never changed: its rows and checksum are on record, and
a swap refuses one that differs. The view, the pointer and the history move in one transaction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.batch.database import (
    Database,
    check_prediction_name,
    first_row,
    has_table,
    one,
    quoted,
    transaction,
)
from abkit.errors import ConfigError, TransitionError

if TYPE_CHECKING:
    import duckdb

    from abkit.batch.validation import Validation

MAX_REASON: Final = 2_000


@dataclass(frozen=True, slots=True)
class Version:
    """One version of some predictions.

    Args:
        name: of the predictions.
        version: its number, from 1.
        table: that holds it.
        run: that made it; empty if it was not named.
        entity: column of the entity.
        rows: when it was made.
        checksum: of them.
        models: name, version and hash of each model, by variant.
        created: seconds since 1970 in UTC.
        live: whether readers see it now.
    """

    name: str
    version: int
    table: str
    run: str
    entity: str
    rows: int
    checksum: str
    models: dict[str, Any]
    created: float
    live: bool


@dataclass(frozen=True, slots=True)
class Move:
    """One change of what readers see.

    Args:
        name: of the predictions.
        action: "swap" or "back".
        before: the version that was live; None before the first.
        after: the version that is live since.
        time: seconds since 1970 in UTC.
        actor: who did it.
        reason: why.
        forced: whether it went against the validation.
        checks: what the validation found.
    """

    name: str
    action: str
    before: int | None
    after: int
    time: float
    actor: str
    reason: str
    forced: bool
    checks: list[dict[str, Any]]


def versions(database: Database, name: str | None = None) -> list[Version]:
    """All versions, of one name or of all; the newest first."""
    with database.reading() as connection:
        return read_versions(connection, name)


def history(database: Database, name: str) -> list[Move]:
    """Every swap of some predictions, the newest first."""
    with database.reading() as connection:
        rows = connection.execute(
            'SELECT name, action, "from", "to", epoch_us(time) / 1e6, actor, reason, forced, '
            "checks FROM abkit_history WHERE name = $name ORDER BY number DESC",
            {"name": name},
        ).fetchall()
    return [Move(*(*row[:8], json.loads(row[8]))) for row in rows]


def read_versions(connection: duckdb.DuckDBPyConnection, name: str | None) -> list[Version]:
    """The same from an open database."""
    rows = connection.execute(
        'SELECT v.name, v.version, "table", run, entity, rows, checksum, models, '
        "epoch_us(created) / 1e6, coalesce(l.version = v.version, false) FROM abkit_versions v "
        "LEFT JOIN abkit_live l USING (name) WHERE $name IS NULL OR v.name = $name "
        "ORDER BY v.name, v.version DESC",
        {"name": name},
    ).fetchall()
    return [Version(*(*row[:7], json.loads(row[7]), *row[8:])) for row in rows]


def find_version(connection: duckdb.DuckDBPyConnection, name: str, version: int | None) -> Version:
    """One version; the newest where no number is given.

    Raises:
        ConfigError: there is none, and the message lists those there are, or its table is gone.
    """
    known = read_versions(connection, check_prediction_name(name))
    if not known:
        raise ConfigError(f"no predictions {name!r}; `abkit batch score` makes them")
    found = next((item for item in known if version in (None, item.version)), None)
    if found is None:
        listed = ", ".join(str(item.version) for item in reversed(known))
        raise ConfigError(f"{name!r} has no version {version}; there are {listed}")
    if not has_table(connection, found.table):
        raise ConfigError(f"the table {found.table} is gone: somebody has dropped it")
    return found


def swap(
    database: Database, checked: Validation, *, actor: str, reason: str = "", force: bool = False
) -> Move:
    """Let readers see a version that was validated, in one transaction.

    Args:
        database: where it is.
        checked: what `validate` said of it.
        actor: who does it.
        reason: for the record; needed with `force`.
        force: even though the validation refused it.

    Raises:
        TransitionError: it was refused, is live already, or another version has become live
            since it was validated.
        ConfigError: forced without a reason.
    """
    if force and not reason.strip():
        raise ConfigError("a forced swap needs a reason: it stays in the history")
    if not checked.passed and not force:
        raise TransitionError(
            f"{checked.name} version {checked.version} was refused: "
            + "; ".join(item.text for item in checked.checks if not item.passed)
        )
    with database.writing() as connection, transaction(connection):
        live, behind = _live(connection, checked.name)
        if live != checked.against:
            raise TransitionError(
                f"{checked.name}: version {live} is live now, and {checked.version} was "
                f"validated against {checked.against}; validate it again"
            )
        if live == checked.version:
            raise TransitionError(f"{checked.name}: version {live} is live already")
        behind = behind if live is None else [*behind, live]
        checks = [item.to_dict() for item in checked.checks]
        return _move(
            connection,
            Move(
                *(checked.name, "swap", live, checked.version, database.now() / 1e6),
                *(actor, reason, force and not checked.passed, checks),
            ),
            behind,
        )


def back(database: Database, name: str, *, actor: str, reason: str = "") -> Move:
    """Let readers see the version that was live before, at once.

    Raises:
        TransitionError: there is none before it.
        ConfigError: its table is gone.
    """
    with database.writing() as connection, transaction(connection):
        live, behind = _live(connection, check_prediction_name(name))
        if live is None or not behind:
            raise TransitionError(f"{name!r} has no version to go back to")
        *rest, before = behind
        move = Move(name, "back", live, before, database.now() / 1e6, actor, reason, False, [])
        return _move(connection, move, rest)


def _live(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[int | None, list[int]]:
    """The version that is live, and those that were before it."""
    row = first_row(
        connection, "SELECT version, behind FROM abkit_live WHERE name = $name", {"name": name}
    )
    return (None, []) if row is None else (int(row[0]), list(json.loads(row[1])))


def _move(connection: duckdb.DuckDBPyConnection, move: Move, behind: list[int]) -> Move:
    """View, pointer and history, in the transaction of the caller."""
    version = find_version(connection, move.name, move.after)
    if move.before is None and has_table(connection, move.name):
        raise TransitionError(
            f"there is a table or view {move.name!r} already, which is not abkit's; rename it"
        )
    connection.execute(
        f"CREATE OR REPLACE VIEW {quoted(move.name)} AS SELECT * FROM {quoted(version.table)}"  # noqa: S608
    )
    connection.execute(
        "INSERT OR REPLACE INTO abkit_live VALUES ($name, $version, $behind)",
        {"name": move.name, "version": move.after, "behind": json.dumps(behind)},
    )
    number = one(
        connection,
        "SELECT coalesce(max(number), 0) + 1 FROM abkit_history WHERE name = $name",
        name=move.name,
    )
    connection.execute(
        "INSERT INTO abkit_history VALUES ($name, $number, $action, $before, $after, "
        "make_timestamp($time), $actor, $reason, $forced, $checks)",
        {
            "name": move.name,
            "number": number,
            "action": move.action,
            "before": move.before,
            "after": move.after,
            "time": int(move.time * 1e6),
            "actor": move.actor,
            "reason": move.reason[:MAX_REASON],
            "forced": move.forced,
            "checks": json.dumps(move.checks),
        },
    )
    return move
