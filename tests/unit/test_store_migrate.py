"""Schema versions: an old store is brought forward whole, a newer one is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from abkit.errors import SchemaVersionError, StoreError
from abkit.store import migrate
from abkit.store.connect import DamagedStoreError, open_store
from abkit.store.ingest import Ingester
from abkit.store.migrate import SCHEMA_VERSION, STEPS
from abkit.store.rebuild import rebuild
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

# The schema of version 1, as it was released.
VERSION_1 = """
CREATE TABLE IF NOT EXISTS meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS exposure (
  writer VARCHAR NOT NULL, sequence UBIGINT NOT NULL,
  time TIMESTAMP NOT NULL, received TIMESTAMP NOT NULL,
  experiment VARCHAR NOT NULL, unit_id VARCHAR NOT NULL,
  variant VARCHAR NOT NULL, epoch INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS outcome (
  writer VARCHAR NOT NULL, sequence UBIGINT NOT NULL,
  time TIMESTAMP NOT NULL, received TIMESTAMP NOT NULL,
  unit_id VARCHAR NOT NULL, metric VARCHAR NOT NULL, value DOUBLE NOT NULL,
  experiment VARCHAR NOT NULL, variant VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS decision (
  writer VARCHAR NOT NULL, sequence UBIGINT NOT NULL,
  time TIMESTAMP NOT NULL, received TIMESTAMP NOT NULL,
  rollout VARCHAR NOT NULL, look INTEGER NOT NULL, record VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS watermark (
  writer VARCHAR PRIMARY KEY,
  segment BIGINT NOT NULL, "offset" BIGINT NOT NULL, next_sequence UBIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS loss (
  writer VARCHAR, experiment VARCHAR, variant VARCHAR, reason VARCHAR, count UBIGINT NOT NULL,
  PRIMARY KEY (writer, experiment, variant, reason)
);
CREATE TABLE IF NOT EXISTS gap (
  writer VARCHAR NOT NULL, first_sequence UBIGINT NOT NULL, count UBIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS quarantine (
  writer VARCHAR NOT NULL, segment BIGINT NOT NULL, "offset" BIGINT NOT NULL,
  length BIGINT NOT NULL, events UBIGINT NOT NULL, reason VARCHAR NOT NULL,
  PRIMARY KEY (writer, segment, "offset", reason)
);
INSERT INTO meta VALUES ('schema_version', '1');
INSERT INTO exposure VALUES
  ('w-1', 1, '2026-01-01 00:00:10', '2026-01-01 00:00:11', 'ranker', 'u1', 'new', 1),
  ('w-1', 2, '2026-01-01 00:00:20', '2026-01-01 00:00:21', 'ranker', 'u2', 'old', 1);
INSERT INTO outcome VALUES
  ('w-1', 3, '2026-01-01 00:00:30', '2026-01-01 00:00:31', 'u1', 'clicks', 0.5, '', '');
INSERT INTO decision VALUES
  ('w-1', 4, '2026-01-01 00:00:40', '2026-01-01 00:00:41', 'ranker-v2', 1, '{"look": 1}');
INSERT INTO watermark VALUES ('w-1', 1, 600, 6);
INSERT INTO quarantine VALUES ('w-1', 0, 5, 0, 1, 'unknown event [''zz'', ''u9'']');
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "abkit.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(VERSION_1)
    return path


def shape(connection: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT table_name, column_name, column_index, data_type FROM duckdb_columns() "
        "WHERE NOT internal ORDER BY ALL"
    ).fetchall()


def test_a_store_of_version_1_is_brought_forward_with_its_rows(old: Path, tmp_path: Path) -> None:
    with open_store(old) as moved, open_store(tmp_path / "fresh.duckdb") as fresh:
        assert shape(moved) == shape(fresh)
        assert moved.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA_VERSION),)]
        query = "SELECT load, writer, sequence, unit_id, variant, epoch FROM exposure ORDER BY ALL"
        assert moved.execute(query).fetchall() == [
            (1, "w-1", 1, "u1", "new", 1),
            (1, "w-1", 2, "u2", "old", 1),
        ]
        assert moved.execute("SELECT load, value, received::VARCHAR FROM outcome").fetchall() == [
            (1, 0.5, "2026-01-01 00:00:31")
        ]
        assert moved.execute("SELECT load, record FROM decision").fetchall() == [(1, '{"look": 1}')]


def test_what_was_not_counted_in_version_1_is_counted(old: Path) -> None:
    with open_store(old) as moved:
        found = moved.execute("SELECT variant, kind, events FROM tally ORDER BY ALL").fetchall()
        assert found == [
            ("", "decision", 1),
            ("", "outcome", 1),
            ("new", "exposure", 1),
            ("old", "exposure", 1),
        ]
        query = "SELECT variant, minute::VARCHAR, exposures FROM traffic ORDER BY ALL"
        assert moved.execute(query).fetchall() == [
            ("new", "2026-01-01 00:00:00", 1),
            ("old", "2026-01-01 00:00:00", 1),
        ]


def test_a_reason_that_quoted_an_event_no_longer_does(old: Path) -> None:
    with open_store(old) as moved:
        assert moved.execute("SELECT reason FROM quarantine").fetchall() == [("unknown event",)]


def test_it_is_done_once(old: Path) -> None:
    for _ in range(3):
        with open_store(old) as moved:
            assert moved.execute("SELECT count(*) FROM exposure").fetchone() == (2,)
            assert moved.execute("SELECT sum(events) FROM tally").fetchone() == (4,)


def test_a_migrated_store_goes_on_where_it_stood(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    workspace.create()
    with duckdb.connect(workspace.store_path / "abkit.duckdb") as connection:
        connection.execute(VERSION_1)
    with Ingester(workspace) as ingester:
        assert ingester.watermark() == {"w-1": 5}
        ingester.publish()
    assert not rebuild(workspace, check=True).equal  # there is no log to rebuild it from


def test_a_step_that_fails_leaves_the_store_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {2: (*STEPS[2], "SELECT no_such_function()")}
    monkeypatch.setattr(migrate, "STEPS", steps)
    with pytest.raises(DamagedStoreError, match="no_such_function"):
        open_store(old)
    with duckdb.connect(old) as connection:
        assert connection.execute("SELECT value FROM meta").fetchone() == ("1",)
        assert connection.execute("SELECT count(*) FROM exposure").fetchone() == (2,)
        names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        assert ("exposure_v1",) not in names


def test_there_is_a_step_to_every_version() -> None:
    assert sorted(STEPS) == list(range(2, SCHEMA_VERSION + 1))


@pytest.mark.parametrize(
    ("version", "error", "words"),
    [("99", SchemaVersionError, "upgrade abkit"), ("two", StoreError, "which is no number")],
)
def test_a_version_that_is_not_known_is_refused(
    old: Path, version: str, error: type[Exception], words: str
) -> None:
    with duckdb.connect(old) as connection:
        connection.execute("UPDATE meta SET value = ?", [version])
    before = old.read_bytes()
    with pytest.raises(error, match=words):
        open_store(old)
    assert old.read_bytes() == before
