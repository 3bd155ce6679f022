"""SIGKILL at random moments of scoring, swapping, logging: readers never see half of anything."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from abkit import batch
from abkit.errors import StoreBusyError
from abkit.log import LogReader
from abkit.rollout import Rollout, Stage
from abkit.store.ingest import Ingester
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 3_000
CHUNK = 250
KILLS = 15
MODEL = """
import os
from pathlib import Path

def predict(frame):
    with (Path(__file__).parent / "asked").open("a") as file:
        file.write(f"{len(frame)}\\n")
    return frame["x"] * 1.0
"""

# A process from which fresh ones are forked: Python and DuckDB are loaded only once.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["abkit.batch", "pandas"])


def do_score(folder: str) -> None:
    """Score one version after the other, each under the number that comes next."""
    database = opened(folder)
    Path(folder, "ready").touch()
    model = batch.load_model("kill_model:predict", "1")
    while True:
        number = len(batch.versions(database)) + 1
        batch.score(
            database,
            "people",
            name="churn",
            unit="id",
            model=model,
            run=f"run-{number}",
            chunk_rows=CHUNK,
            use_cache=False,
        )
        batch.swap(database, batch.validate(database, "churn"), actor="killed")


def do_swap(folder: str) -> None:
    """Swap there and back, as fast as it goes."""
    database = opened(folder)
    if next(item for item in batch.versions(database) if item.live).version == 2:
        batch.back(database, "churn", actor="killed")
    checked = batch.validate(database, "churn", 2)
    Path(folder, "ready").touch()
    while True:
        batch.swap(database, checked, actor="killed")
        batch.back(database, "churn", actor="killed")


def do_assign(folder: str) -> None:
    """Assign one run after the other, each of them twice."""
    database, space = opened(folder), Workspace(f"{folder}/workspace")
    Path(folder, "ready").touch()
    for number in range(10**6):
        for _ in range(2):
            batch.assign(
                database,
                "people",
                unit="id",
                experiment="ranker",
                workspace=space,
                run=f"run-{number}",
            )


def opened(folder: str) -> batch.Database:
    sys.path.insert(0, folder)
    return batch.Database(Path(folder) / "predictions.duckdb")


def read(folder: Path) -> dict[str, Any]:
    """What a reader sees, and whether all that is on record fits it."""
    database = folder / "predictions.duckdb"
    while True:
        try:
            connection = duckdb.connect(database, read_only=True)
            break
        except duckdb.IOException:  # the moment of a publication
            time.sleep(0.005)
    with connection:

        def ask(query: str) -> list[Any]:
            return connection.execute(query).fetchall()

        tables = {
            row[0]
            for row in ask("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'pred%'")
        }
        known = ask('SELECT "table", rows, version FROM abkit_versions ORDER BY version')
        assert tables == {row[0] for row in known}
        for table, rows, _ in known:
            assert ask(f"SELECT count(*), count(prediction) FROM {table}") == [(rows, rows)]  # noqa: S608
        live = ask("SELECT version FROM abkit_live WHERE name = 'churn'")
        if live:
            assert ask("SELECT count(*), sum(prediction) FROM churn") == [
                (ROWS, ROWS * (ROWS - 1) / 2)
            ]
            last = ask('SELECT "to" FROM abkit_history ORDER BY number DESC LIMIT 1')
            assert live == last
            view = ask("SELECT sql FROM duckdb_views() WHERE view_name = 'churn'")[0][0]
            assert f"pred_churn_v{live[0][0]}" in view
        return {"versions": [row[2] for row in known], "live": live}


def scores(database: batch.Database, model: batch.Model, *, times: int) -> None:
    for _ in range(times):
        batch.score(database, "people", name="other", unit="id", model=model)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def kill_at_random(folder: Path, work: Callable[[str], None], *, kills: int, upto: float) -> None:
    random_ = random.Random(6)
    for _ in range(kills):
        process = SPAWN.Process(target=work, args=(str(folder),))
        process.start()
        wait_for(folder / "ready")
        deadline = time.monotonic() + upto * random_.random()
        while time.monotonic() < deadline and process.is_alive():
            read(folder)
            time.sleep(0.05)  # DuckDB lets nobody write while somebody reads
        (folder / "ready").unlink()
        process.kill()
        process.join()
        assert process.exitcode == -9, "the job ended by itself"
        read(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kill_model.py").write_text(MODEL)
    with duckdb.connect(tmp_path / "predictions.duckdb") as connection:
        connection.execute(
            f"CREATE TABLE people AS SELECT range AS id, range AS x FROM range({ROWS})"  # noqa: S608
        )
    batch.Database(tmp_path / "predictions.duckdb").prepare()
    return tmp_path


def test_readers_see_whole_versions_while_scoring_is_killed(folder: Path) -> None:
    kill_at_random(folder, do_score, kills=KILLS, upto=1.2)
    found = read(folder)
    assert found["versions"] == list(range(1, len(found["versions"]) + 1))
    assert found["versions"], "no version was ever finished"
    # No work is done twice but for the chunk that each kill cut off.
    asked = sum(map(int, (folder / "asked").read_text().split()))
    started = len(found["versions"]) + 1
    assert asked <= started * ROWS + KILLS * CHUNK


def test_readers_see_one_version_while_swaps_are_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    model = batch.load_model("kill_model:predict", "1")
    database = batch.Database(folder / "predictions.duckdb")
    for _ in range(2):
        batch.score(database, "people", name="churn", unit="id", model=model)
    batch.swap(database, batch.validate(database, "churn", 1), actor="test")
    kill_at_random(folder, do_swap, kills=KILLS, upto=0.6)
    moves = batch.history(database, "churn")
    assert len(moves) > KILLS
    for after, before in pairwise(moves):
        assert after.before == before.after


def test_exposures_are_logged_once_while_assignment_is_killed(folder: Path) -> None:
    space = Workspace(folder / "workspace")
    stages = (Stage(name="half", share=0.5),)
    space.start(
        Rollout.plan("r", experiment="ranker", control="old", treatment="new", stages=stages)
    )
    kill_at_random(folder, do_assign, kills=KILLS, upto=0.6)
    database = batch.Database(folder / "predictions.duckdb")
    batch.assign(
        database, "people", unit="id", experiment="ranker", workspace=space, run="the last"
    )
    with duckdb.connect(database.path, read_only=True) as connection:
        ((runs, waiting),) = connection.execute(
            "SELECT (SELECT count(DISTINCT run) FROM abkit_assigned), "
            "(SELECT count(*) FROM abkit_part WHERE writer IS NULL)"
        ).fetchall()
    assert waiting == 0
    assert runs > 1
    chunk = LogReader(space.log_path).read({}, max_records=10**9)
    assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
    seen = Counter(record[3] for *_, record in chunk.rows())
    assert set(seen.values()) == {runs}
    assert len(seen) == ROWS
    with Ingester(space) as ingester:
        assert ingester.ingest().events == runs * ROWS
        ingester.publish()
    assert reconcile(space.path).balanced


def test_of_two_jobs_at_once_the_second_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    process = SPAWN.Process(target=do_score, args=(str(folder),))
    process.start()
    database = batch.Database(folder / "predictions.duckdb")
    model = batch.load_model("kill_model:predict", "1")
    try:
        wait_for(folder / "asked")
        with pytest.raises(StoreBusyError, match="another batch job works on"):
            scores(database, model, times=20)  # between two jobs of the other, one may get in
        read(folder)
    finally:
        process.kill()
        process.join()
