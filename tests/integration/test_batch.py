"""Batch inference on real DuckDB files and workspaces: assigned, scored, swapped, labelled."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from abkit import batch
from abkit.audit import audit_sql
from abkit.batch import outbox, work
from abkit.cli import main
from abkit.client import Client
from abkit.controller import Controller
from abkit.decision import Guardrail, Policy
from abkit.errors import (
    ConfigError,
    DataError,
    StoreBusyError,
    StoreError,
    TransitionError,
    UnknownExperimentError,
)
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.log import LogReader
from abkit.metrics import Metric
from abkit.ranges import Range
from abkit.rollout import Rollout, Stage
from abkit.store.ingest import Ingester
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 2_000
MODELS = """
calls = 0
def old(frame):
    global calls
    calls += len(frame)
    assert list(frame.columns) == ["age", "plan"], frame.columns
    return frame["age"] * 0.01

def new(frame):
    return frame["age"] * 0.01 + (frame["plan"] == "b") * 0.001

def wild(frame):
    return frame["age"] * 100.0

def holes(frame):
    return [float("nan") if age == 30 else 1.0 for age in frame["age"]]

def short(frame):
    return [1.0]

def fails(frame):
    raise RuntimeError("no such feature")

def words(frame):
    return ["yes"] * len(frame)
"""
NASTY = [
    "",
    " ",
    "\0",
    "nul\0inside",
    "O'Brien",
    'double"quote',
    "back\\slash",
    "$1 ? %s {} --; DROP TABLE abkit_assigned",
    "é東👩",
    "e\u0301",
    "É",
    "\ufeff",
    "\u202e",
    "x" * 16_384,
    "x" * 16_385,
    "é" * 16_384,
    "1.0",
    "01",
    "1",
    "NULL",
    "\x1f",
]


class Clock:
    """A clock that moves when told to."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A database of people and a workspace, on one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "predictions.duckdb"
        self.database = batch.Database(self.path, clock=self.clock, wait_seconds=1.0)
        self.space = Workspace(folder / "workspace", clock=self.clock)
        self.sql(
            f"CREATE TABLE people AS SELECT range AS id, 20 + range % 50 AS age, "  # noqa: S608
            f"CASE WHEN range % 3 = 0 THEN 'b' ELSE 'a' END AS plan FROM range({ROWS})"
        )

    def sql(self, query: str) -> list[Any]:
        with duckdb.connect(self.path) as connection:
            return connection.execute(query).fetchall()

    def start(self, *, share: float = 0.3, mode: str = "canary", key: str = "r1") -> Rollout:
        stage = Stage(name="one", mode=mode, share=share, min_units=50)  # type: ignore[arg-type]
        rollout = Rollout.plan(
            key,
            experiment="ranker",
            control="old",
            treatment="new",
            salt="batch",
            stages=(stage, Stage(name="two", share=0.5, min_units=10**6)),
            policy=Policy(guardrails=(Guardrail(metric="wrong", test="difference", margin=0.05),)),
            metrics=(
                Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude"),
            ),
        )
        return self.space.start(rollout)

    def assign(self, run: str = "day-1", **more: Any) -> batch.Assigned:
        given = {"unit": "id", "experiment": "ranker", "workspace": self.space, "run": run}
        return batch.assign(self.database, "people", **(given | more))

    def score(self, model: str = "old", **more: Any) -> batch.Scored:
        given = {"name": "churn", "unit": "id", "model": batch.load_model(f"models:{model}", "1")}
        return batch.score(self.database, "people", **(given | more))

    def swap(self, version: int | None = None, **more: Any) -> batch.Move:
        checked = batch.validate(self.database, "churn", version)
        return batch.swap(self.database, checked, actor="ann", **more)

    def canary(self, run: str = "day-1") -> batch.Scored:
        new = batch.load_model("models:new", "2")
        return self.score(run=run, variants={"new": new})

    def label(self, labels: str = "labels", **more: Any) -> batch.Labelled:
        given: dict[str, Any] = {"name": "churn", "entity": "id", "label": "truth"}
        given |= {"metric": "wrong", "workspace": self.space}
        return batch.join_labels(self.database, labels, **(given | more))

    def events(self, kind: str) -> list[list[Any]]:
        chunk = LogReader(self.space.log_path).read({}, max_records=10**9)
        assert [*chunk.gaps, *chunk.damages, *chunk.losses] == []
        return [record for *_, record in chunk.rows() if record[0] == kind]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "models", raising=False)
    return Desk(tmp_path)


# Assignment


def hostile_units() -> list[str]:
    random_ = random.Random(1)
    letters = "ab01 '\"\\\0\n;é東👩\u0301\u202e%_-"
    found = dict.fromkeys(NASTY)
    while len(found) < 10_000:
        found["".join(random_.choices(letters, k=random_.randint(1, 24)))] = None
    return list(found)


def test_ten_thousand_hostile_units_get_what_client_and_audit_say(desk: Desk) -> None:
    experiment = Experiment.create(
        "hostile",
        {"old": 0.5, "new": 0.3, "third": 0.2},
        salt="s1",
        rollout=0.7,
        overrides={"O'Brien": "new", "1": "third"},
        layer="page",
        holdouts=("kept",),
    )
    page = Layer(key="page", salt="page-1", ranges=(Range(0, 3 << 50, "hostile"),))
    kept = Holdout(key="kept", salt="kept-1", share=0.1)
    desk.space.publish(experiment, layers=[page], holdouts=[kept])
    units = hostile_units()
    with duckdb.connect(desk.path) as connection:
        connection.execute("CREATE TABLE odd (unit VARCHAR COLLATE NOCASE)")
        connection.register("units", pa.table({"unit": units}))
        connection.execute("INSERT INTO odd FROM units")
    done = batch.assign(
        desk.database, "odd", unit="unit", experiment="hostile", workspace=desk.space, run="o'1"
    )
    found = {
        unit: (variant, reason)
        for unit, variant, reason in desk.sql("SELECT unit, variant, reason FROM odd_assigned")
    }
    published = desk.space.snapshot()
    assert published is not None
    with Client(desk.space.path) as client:
        wanted = {unit: client.assign("hostile", unit) for unit in units}
    assert found == {unit: (item.variant, item.reason) for unit, item in wanted.items()}
    assert {reason for _, reason in found.values()} == {
        *("split", "override", "holdout", "layer", "rollout", "invalid_unit")
    }
    query = audit_sql(
        published.experiments["hostile"],
        "duckdb",
        table="odd",
        unit="unit",
        layers=[page],
        holdouts=[kept],
    )
    audited = {row[0]: row[1:3] for row in desk.sql(query)}
    assert audited == found
    exposed = {record[3]: record[4] for record in desk.events("e")}
    assert exposed == {u: item.variant for u, item in wanted.items() if item.in_experiment}
    assert done.logged == len(exposed)


def test_a_run_logs_each_exposure_once_and_keeps_its_variants(desk: Desk) -> None:
    desk.start()
    first = desk.assign()
    assert (first.rows, first.added, first.logged) == (ROWS, ROWS, ROWS)
    assert (desk.assign().added, desk.assign().logged) == (0, 0)
    desk.sql("INSERT INTO people VALUES (5000, 30, 'a'), (5001, 31, 'b')")
    again = desk.assign()
    assert (again.rows, again.added, again.logged) == (ROWS + 2, 2, 2)
    assert Counter(record[3] for record in desk.events("e")).most_common(1)[0][1] == 1
    before = dict(desk.sql("SELECT id, variant FROM people_assigned"))
    desk.space.act("r1", "skip", reason="test", actor="ann")
    assert desk.assign().added == 0
    assert dict(desk.sql("SELECT id, variant FROM people_assigned")) == before
    desk.sql("INSERT INTO people VALUES (5002, 30, 'a')")
    with pytest.raises(ConfigError, match="epoch 2 holds now: its 1 new entities"):
        desk.assign()
    assert desk.assign(run="day-2").epoch == 2
    with Ingester(desk.space) as ingester:
        assert ingester.ingest().events == ROWS + 2 + ROWS + 3
        ingester.publish()
    assert reconcile(desk.space.path).balanced


def test_a_job_that_died_before_it_logged_is_finished_by_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.start()

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_place", dies)
        with pytest.raises(KeyboardInterrupt):
            desk.assign()
    assert desk.events("e") == []
    done = desk.assign()
    assert (done.added, done.logged, len(desk.events("e"))) == (0, ROWS, ROWS)


def test_a_job_that_died_after_it_logged_logs_nothing_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.start()
    place = outbox._place

    def dies_after(*given: Any) -> None:
        place(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_place", dies_after)
        with pytest.raises(KeyboardInterrupt):
            desk.assign()
    assert len(desk.events("e")) == ROWS
    desk.assign()
    assert len(desk.events("e")) == ROWS
    assert not list(desk.space.log_path.glob(".*"))


def test_large_parts_are_cut_into_segments_that_readers_accept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_FRAME_RECORDS", 7)
    monkeypatch.setattr(outbox, "_FRAME_BYTES", 300)
    monkeypatch.setattr(outbox, "_SEGMENT_FRAMES", 100)
    desk.start()
    desk.assign()
    (writer,) = desk.space.log_path.glob("batch-*")
    assert len(list(writer.glob("*.seg"))) > 2
    assert len({record[3] for record in desk.events("e")}) == ROWS
    assert {path.stat().st_mode & 0o777 for path in writer.iterdir()} == {0o600}


def test_targeting_sees_the_columns_of_the_table(desk: Desk) -> None:
    desk.space.publish(
        Experiment.create(
            "ranker",
            {"old": 0.5, "new": 0.5},
            targeting={
                "all": [{"attribute": "plan", "is": "b"}, {"attribute": "age", "above": 30}]
            },
        )
    )
    done = desk.assign()
    inside = desk.sql("SELECT count(*) FROM people WHERE plan = 'b' AND age > 30")[0][0]
    assert done.logged == inside
    assert done.counts["old", "targeting"] == ROWS - inside


def test_assignment_refuses_what_it_cannot_tell_apart(desk: Desk) -> None:
    with pytest.raises(StoreError, match="nothing is published"):
        desk.assign()
    desk.start()
    desk.space.publish(Experiment.create("other", {"old": 0.5, "new": 0.5}))
    with pytest.raises(UnknownExperimentError, match="there are: "):
        desk.assign(experiment="rankr")
    with pytest.raises(ConfigError, match="no column 'idd'; did you mean 'id'"):
        desk.assign(unit="idd")
    with pytest.raises(ConfigError, match="1 to 128 printable"):
        desk.assign(run="a\nb")
    desk.assign()
    with pytest.raises(ConfigError, match="name another run"):
        desk.assign(experiment="other")
    desk.sql("INSERT INTO people VALUES (0, 1, 'a')")
    with pytest.raises(DataError, match=r"2,001 rows of 2,000 entities, such as '0'"):
        desk.assign()
    desk.sql("UPDATE people SET id = NULL WHERE id = 1")
    with pytest.raises(DataError, match=r"1 of 2,001 rows of 'people' have no entity"):
        desk.assign()


# Scoring


def test_a_canary_scores_each_row_with_the_model_of_its_variant(desk: Desk) -> None:
    desk.start(share=0.1)
    desk.assign()
    done = desk.canary()
    assert (done.version, done.rows, done.table) == (1, ROWS, "pred_churn_v1")
    rows = desk.sql(
        "SELECT p.id, p.prediction, p.model_version, p.variant, a.variant, a.assignment_id = "
        "p.assignment_id, age, plan FROM pred_churn_v1 p JOIN people_assigned a USING (id)"
    )
    assert len(rows) == ROWS
    for _, prediction, version, variant, assigned, same, age, plan in rows:
        assert variant == assigned
        assert same
        assert version == {"old": "1", "new": "2"}[variant]
        more = 0.001 if variant == "new" and plan == "b" else 0.0
        assert prediction == pytest.approx(age * 0.01 + more)
    assert 100 < sum(row[3] == "new" for row in rows) < 300
    # The scheduler starts it again: the version is there.
    assert desk.canary().existed
    assert desk.canary().version == 1


def test_the_cache_answers_what_a_model_has_seen(desk: Desk) -> None:
    first = desk.score()
    assert (first.asked, first.cached) == (100, 0)  # so many different rows of features
    assert sys.modules["models"].calls == 100
    second = desk.score()
    assert (second.version, second.asked, second.cached) == (2, 0, 100)
    assert sys.modules["models"].calls == 100
    assert desk.sql("FROM pred_churn_v1 EXCEPT SELECT * REPLACE ("
                    "scored_at AS scored_at) FROM pred_churn_v2") == []  # fmt: skip
    desk.sql("UPDATE people SET age = 71 WHERE id = 7")
    assert desk.score().asked == 1
    assert desk.score(use_cache=False).asked == 101
    (stats,), limit = batch.cache_stats(desk.database)
    assert (stats.model, stats.version, stats.entries) == ("models:old", "1", 101)
    assert (stats.hits, stats.misses, limit) == (200, 101, 5_000_000)
    desk.clock.now += 1
    desk.score("new")
    assert batch.limit_cache(desk.database, 120) == 82
    entries = {s.model: s.entries for s in batch.cache_stats(desk.database)[0]}
    assert entries == {"models:new": 101, "models:old": 19}  # the last used stays
    assert batch.clear_cache(desk.database) == 120
    with pytest.raises(ConfigError, match="0 or more"):
        batch.limit_cache(desk.database, -1)


def test_everything_an_answer_depends_on_is_in_the_key(desk: Desk, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1")
    kinds = {"age": "BIGINT", "plan": "VARCHAR"}
    keys = [
        batch.load_model("models:old", "1").key(kinds),
        batch.load_model("models:old", "2").key(kinds),
        batch.load_model("models:new", "1").key(kinds),
        batch.load_model("models:old", "1", [weights]).key(kinds),
        batch.load_model("models:old", "1").key({"age": "BIGINT"}),
        batch.load_model("models:old", "1").key({"age": "DOUBLE", "plan": "VARCHAR"}),
    ]
    weights.write_bytes(b"2")
    keys.append(batch.load_model("models:old", "1", [weights]).key(kinds))
    (tmp_path / "models.py").write_text(MODELS + "\n# changed\n")
    keys.append(batch.load_model("models:old", "1").key(kinds))
    assert len(set(keys)) == len(keys)


def test_null_and_odd_features_never_share_an_answer(desk: Desk) -> None:
    desk.sql(
        "CREATE TABLE odd AS SELECT * FROM (VALUES (1, NULL, 'x'), (2, 'NULL', 'x'), (3, '', 'x'), "
        "(4, 'a\",\"x', 'y'), (5, 'a', 'x\",\"y')) t(id, age, plan)"
    )
    (desk.path.parent / "texts.py").write_text(
        "def f(frame):\n    return list(range(len(frame)))\n"
    )
    model = batch.load_model("texts:f", "1")
    done = batch.score(desk.database, "odd", name="odd_p", unit="id", model=model)
    assert done.asked == 5
    assert desk.sql("SELECT count(DISTINCT prediction) FROM pred_odd_p_v1") == [(5,)]


def test_a_killed_job_goes_on_where_it_was(desk: Desk) -> None:
    with pytest.raises(DataError, match=r"models:fails 1 raised RuntimeError: no such feature"):
        desk.score("fails")
    with pytest.raises(ConfigError, match="holds an interrupted job with other models"):
        desk.score()
    seen: list[int] = []

    def dies(done: int, _total: int) -> None:
        seen.append(done)
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.score(chunk_rows=20, progress=dies, restart=True)
    assert seen == [0, 20, 40]
    assert sys.modules["models"].calls == 40
    desk.sql("UPDATE people SET age = 99 WHERE id = 3")  # the job has its own copy
    done = desk.score(chunk_rows=20)
    assert (done.version, done.resumed, done.asked) == (1, 40, 60)
    assert sys.modules["models"].calls == 100
    assert desk.sql("SELECT count(*) FROM pred_churn_v1 WHERE prediction > 0.98") == [(0,)]
    assert not list(desk.path.parent.glob("*.scoring*"))


def test_a_job_killed_after_publishing_does_not_publish_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("abkit.batch.scoring.discard", lambda _path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.score(run="day-1")
    assert desk.score(run="day-1").existed
    assert [item.version for item in batch.versions(desk.database)] == [1]


@pytest.mark.parametrize(
    ("model", "says"),
    [("short", r"shape \(1,\) for 100 rows"), ("words", "must return numbers, got list")],
)
def test_a_model_that_answers_something_else_is_told_so(desk: Desk, model: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        desk.score(model)
    assert batch.versions(desk.database) == []


def test_scoring_says_what_it_cannot_do(desk: Desk) -> None:
    for name in ("pred_x", "abkit_x", "1x", "a b", ""):
        with pytest.raises(ConfigError, match="cannot name predictions"):
            desk.score(name=name)
    with pytest.raises(ConfigError, match="module:function"):
        batch.load_model("models.old", "1")
    with pytest.raises(ConfigError, match="no function 'olb'"):
        batch.load_model("models:olb", "1")
    with pytest.raises(ConfigError, match="cannot import 'nothing'"):
        batch.load_model("nothing:old", "1")
    with pytest.raises(ConfigError, match="no run 'day-1' assigned anything"):
        desk.canary()
    desk.start()
    desk.assign()
    desk.sql("INSERT INTO people VALUES (5000, 30, 'a')")
    with pytest.raises(ConfigError, match="1 rows of 'people' were not assigned by run"):
        desk.canary()
    desk.sql("DELETE FROM people WHERE id = 5000")
    with pytest.raises(ConfigError, match="rows were assigned 'new', which has no model"):
        desk.score(run="day-1", variants={"third": batch.load_model("models:new", "1")})
    with pytest.raises(ConfigError, match="'old' is scored by --model"):
        desk.score(run="day-1", variants={"old": batch.load_model("models:new", "1")})
    with pytest.raises(StoreError, match="no database"):
        batch.versions(batch.Database(desk.path.with_name("none.duckdb")))


def test_the_database_stays_readable_while_a_model_works(desk: Desk) -> None:
    desk.score()
    desk.swap()
    read: list[Any] = []

    def looks(_done: int, _total: int) -> None:
        words = f"import duckdb;print(duckdb.connect({str(desk.path)!r}, read_only=True).execute("
        words += "'SELECT count(*) FROM churn').fetchall()[0][0])"
        out = subprocess.run([sys.executable, "-c", words], capture_output=True, check=True)
        read.append(int(out.stdout))

    desk.score("new", chunk_rows=60, progress=looks)
    assert read == [ROWS] * 3


# Versions


def test_swap_and_back_move_what_readers_see(desk: Desk) -> None:
    desk.score()
    with pytest.raises(TransitionError, match="no version to go back to"):
        batch.back(desk.database, "churn", actor="ann")
    assert desk.swap(reason="first").before is None
    desk.score("new")
    assert desk.swap().after == 2
    assert desk.sql("SELECT count(*) FROM churn WHERE model_version = '1'") == [(ROWS,)]
    desk.score()
    desk.swap()
    assert batch.back(desk.database, "churn", actor="bob", reason="worse").after == 2
    assert batch.back(desk.database, "churn", actor="bob").after == 1
    assert desk.sql("FROM churn ORDER BY id") == desk.sql("FROM pred_churn_v1 ORDER BY id")
    told = [(m.action, m.before, m.after, m.actor) for m in batch.history(desk.database, "churn")]
    assert told == [
        ("back", 2, 1, "bob"),
        ("back", 3, 2, "bob"),
        ("swap", 2, 3, "ann"),
        ("swap", 1, 2, "ann"),
        ("swap", None, 1, "ann"),
    ]
    assert [v.version for v in batch.versions(desk.database, "churn") if v.live] == [1]


def test_a_swap_is_refused_with_numbers_and_forced_with_a_reason(desk: Desk) -> None:
    desk.score()
    desk.swap()
    desk.score("wild")
    checked = batch.validate(desk.database, "churn")
    failed = {item.id: item.text for item in checked.checks if not item.passed}
    assert failed.keys() == {"range", "drift"}
    assert "from 2000 to 6900, version 1 from 0.2 to 0.69" in failed["range"]
    assert "distance 1.0000 from version 1 (limit 0.1); 5% 0.22 -> 2200" in failed["drift"]
    with pytest.raises(TransitionError, match="churn version 2 was refused: predictions from"):
        desk.swap()
    with pytest.raises(ConfigError, match="a forced swap needs a reason"):
        desk.swap(force=True)
    move = desk.swap(force=True, reason="the scale has changed")
    assert move.forced
    last = batch.history(desk.database, "churn")[0]
    assert (last.forced, last.reason) == (True, "the scale has changed")
    assert any(not check["passed"] for check in last.checks)
    desk.score("holes")
    found = {item.id: item for item in batch.validate(desk.database, "churn").checks}
    assert not found["nulls"].passed
    assert "40 rows without a prediction (2.00%, limit 0.00%)" in found["nulls"].text
    desk.sql("DELETE FROM people WHERE id >= 1500")
    desk.score("wild")
    found = {item.id: item for item in batch.validate(desk.database, "churn").checks}
    assert "1,500 rows, version 2 has 2,000 (25.00% apart" in found["change"].text
    loose = batch.Limits(row_change=0.3)
    assert batch.validate(desk.database, "churn", limits=loose).passed
    with pytest.raises(ConfigError, match="drift must be a number >= 0"):
        batch.Limits(drift=float("nan"))


def test_a_version_that_somebody_changed_is_refused(desk: Desk) -> None:
    desk.score()
    desk.sql("UPDATE pred_churn_v1 SET prediction = prediction + 1e-9 WHERE id = 5")
    checked = batch.validate(desk.database, "churn")
    assert not checked.passed
    assert "somebody changed it" in checked.checks[0].text
    desk.sql("DROP TABLE pred_churn_v1")
    with pytest.raises(ConfigError, match="the table pred_churn_v1 is gone"):
        batch.validate(desk.database, "churn")


def test_a_lost_share_of_a_variant_is_a_mismatch(desk: Desk) -> None:
    desk.start(share=0.5)
    desk.assign()
    desk.sql("DELETE FROM people WHERE id IN (SELECT id FROM people_assigned WHERE "
             "variant = 'new' AND age > 60)")  # fmt: skip
    desk.canary()
    found = {item.id: item for item in batch.validate(desk.database, "churn").checks}
    assert not found["split"].passed
    assert "(meant 0.5)" in found["split"].text


def test_a_swap_holds_only_against_what_it_was_validated_with(desk: Desk) -> None:
    desk.score()
    early = batch.validate(desk.database, "churn")
    desk.score()
    desk.swap()
    with pytest.raises(TransitionError, match="validated against None; validate it again"):
        batch.swap(desk.database, early, actor="ann")
    with pytest.raises(TransitionError, match="version 2 is live already"):
        desk.swap(2)
    desk.sql("CREATE TABLE taken (a INTEGER)")
    desk.score(name="taken")
    checked = batch.validate(desk.database, "taken")
    with pytest.raises(TransitionError, match="'taken' already, which is not abkit's"):
        batch.swap(desk.database, checked, actor="ann")
    assert desk.sql("SELECT count(*) FROM taken") == [(0,)]


# Labels


def labels(desk: Desk, *, of: str = "SELECT id FROM people", wrong: str = "false") -> None:
    desk.sql(
        f"CREATE OR REPLACE TABLE labels AS SELECT id, CASE WHEN {wrong} THEN 9.0 ELSE prediction "  # noqa: S608
        f"END AS truth FROM churn WHERE id IN ({of})"
    )


def live_canary(desk: Desk, share: float = 0.3) -> None:
    desk.start(share=share)
    desk.assign()
    desk.clock.now += 60
    desk.canary()
    desk.swap()


def test_late_labels_become_outcomes_once(desk: Desk) -> None:
    live_canary(desk)
    desk.clock.now += 2 * 86_400
    labels(desk, of="SELECT id FROM people WHERE id < 1000", wrong="variant = 'new'")
    done = desk.label(run="day-1")
    assert (done.labels, done.added, done.logged, done.versions) == (1000, 1000, 1000, (1,))
    assert (desk.label(run="day-1").added, desk.label(version=1).logged) == (0, 0)
    arms = {arm.variant: arm for arm in done.arms}
    assert sum(arm.labelled for arm in arms.values()) == 1000
    assert sum(arm.missing for arm in arms.values()) == 1000
    assert arms["old"].median_delay_seconds == pytest.approx(2 * 86_400)
    assert done.missing_p_value is not None
    assert done.missing_p_value > 0.001
    desk.clock.now += 86_400
    labels(desk, wrong="variant = 'new' OR id = 3")
    more = desk.label(run="day-1")
    assert (more.added, more.logged, more.unmatched) == (1000, 1000, 0)
    variant = dict(desk.sql("SELECT id, variant FROM people_assigned"))
    assert more.changed == (variant[3] == "old")
    outcomes = desk.events("o")
    assert len({record[2] for record in outcomes}) == len(outcomes) == ROWS
    for _, time, unit, metric, value, experiment, answered in outcomes:
        assert (metric, experiment, answered) == ("wrong", "ranker", "")
        assert time == 1_700_000_060.0  # of the prediction
        assert value == (variant[int(unit)] == "new")


def test_the_controller_halts_a_worse_model_by_its_late_labels(desk: Desk) -> None:
    live_canary(desk)
    with Controller(desk.space, clock=desk.clock) as controller:
        controller.tick()
        desk.clock.now += 86_400
        labels(desk, wrong="id % 10 = 0 OR (variant = 'new' AND id % 2 = 0)")
        desk.label(run="day-1")
        controller.tick()
    assert desk.space.rollout("r1").state == "halted"
    assert desk.assign(run="day-2").counts == {("old", "killed"): ROWS}


def test_an_outcome_counts_for_the_variant_of_its_prediction(desk: Desk) -> None:
    """Labels come after the next stage has moved many entities to the treatment."""
    live_canary(desk, share=0.1)
    desk.clock.now += 3600
    desk.space.act("r1", "skip", reason="test", actor="ann")
    desk.assign(run="day-2")
    desk.clock.now += 86_400
    labels(desk, wrong="variant = 'old'")
    desk.label(run="day-1")
    with Ingester(desk.space, clock=desk.clock) as ingester:
        ingester.ingest()
        rollout = desk.space.rollout("r1")
        seen = ingester.observe(
            experiment="ranker",
            epochs=(rollout.first_epoch, rollout.last_epoch),
            metrics=rollout.watched_metrics,
            control="old",
            treatment="new",
            now=desk.clock.now,
        )
    ((old, new),) = seen.strata("wrong", "old", "new")
    counts = Counter(variant for (variant,) in desk.sql("SELECT variant FROM churn"))
    assert (old.n, old.mean) == (counts["old"], 1.0)
    assert (new.n, new.mean) == (counts["new"], 0.0)


def test_a_shadow_answers_every_row_and_is_judged_in_pairs(desk: Desk) -> None:
    desk.start(share=0.0, mode="shadow")
    done = desk.assign()
    assert done.counts == {("old", "split"): ROWS}
    desk.clock.now += 60
    desk.score(run="day-1", shadow=("new", batch.load_model("models:new", "2")))
    desk.swap()
    assert desk.sql("SELECT count(*) FROM churn WHERE shadow_version = '2' AND variant = 'old'") \
        == [(ROWS,)]  # fmt: skip
    found = batch.compare(desk.database, "churn")
    others = desk.sql("SELECT count(*) FROM people WHERE plan = 'b'")[0][0]
    assert (found.pairs, found.equal, found.unpaired) == (ROWS, ROWS - others, 0)
    assert found.difference == pytest.approx(0.001 * others / ROWS)
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.largest == pytest.approx(0.001)
    labels(desk, wrong="id % 100 = 0")
    joined = desk.label(run="day-1")
    assert joined.added == 2 * ROWS
    assert desk.label(run="day-1").added == 0
    with Controller(desk.space, clock=desk.clock) as controller:
        tick = controller.tick()
    assert tick.taken
    with Ingester(desk.space, clock=desk.clock) as ingester:
        ingester.ingest()
        rollout = desk.space.rollout("r1")
        seen = ingester.observe(
            experiment="ranker",
            epochs=(rollout.first_epoch, rollout.last_epoch),
            metrics=rollout.watched_metrics,
            control="old",
            treatment="new",
            now=desk.clock.now,
        )
    pair = seen.pairs["wrong"]
    assert pair.difference.n == ROWS
    assert pair.control.mean == pytest.approx(0.01)
    assert pair.treatment.mean > 0.3
    desk.score(name="plain")
    with pytest.raises(ConfigError, match="without a shadow"):
        batch.compare(desk.database, "plain")


def test_labels_with_a_time_are_of_what_was_live_then(desk: Desk) -> None:
    live_canary(desk)  # live since +60 s
    desk.clock.now += 1000
    desk.assign(run="day-2")
    desk.canary("day-2")
    desk.swap()
    desk.sql(
        "CREATE TABLE labels AS SELECT id, 0.5 AS truth, CASE id % 3 "
        "WHEN 0 THEN make_timestamp(1700000000000000) "
        "WHEN 1 THEN make_timestamp(1700000500000000) "
        "ELSE make_timestamp(1700005000000000) END AS bought FROM people WHERE id < 300"
    )
    desk.clock.now += 86_400
    done = desk.label(time="bought")
    assert (done.added, done.unmatched) == (200, 100)
    assert desk.sql("SELECT version, count(*) FROM abkit_label GROUP BY ALL ORDER BY 1") == [
        (1, 100),
        (2, 100),
    ]


def test_labels_say_what_is_wrong_with_them(desk: Desk, tmp_path: Path) -> None:
    desk.start()
    desk.assign()
    desk.canary()
    desk.sql("CREATE TABLE labels AS SELECT id, 1.0 AS truth FROM people")
    with pytest.raises(ConfigError, match="run 'day-1' was never live"):
        desk.label(run="day-1")
    desk.swap()
    with pytest.raises(ConfigError, match="one of run, version or time"):
        desk.label()
    with pytest.raises(ConfigError, match="'churn' has no version 7"):
        desk.label(version=7)
    with pytest.raises(ConfigError, match=r"no file 'none.csv'"):
        desk.label("none.csv", run="day-1")
    desk.sql("INSERT INTO labels VALUES (3, 0.0), (4, 0.0)")
    with pytest.raises(DataError, match="2 entities have several labels that differ, such as '3'"):
        desk.label(run="day-1")
    path = tmp_path / "some.csv"
    path.write_text("id,truth\n1,0.21\n2,\n")
    with pytest.raises(DataError, match="1 labels are no numbers, such as that of '2'"):
        desk.label(str(path), run="day-1")
    path.write_text("id,truth\n1,0.21\n1,0.21\n90000,1\n")
    done = desk.label(str(path), run="day-1", value="absolute")
    assert (done.labels, done.added, done.unmatched) == (2, 1, 1)
    desk.sql(f"COPY (SELECT id, truth FROM labels WHERE id = 7) TO '{tmp_path}/a.parquet'")  # noqa: S608
    done = desk.label(str(tmp_path / "a.parquet"), run="day-1", metric="m", threshold=0.1)
    assert done.added == 1
    assert [record[3:5] for record in desk.events("o")][-1] == ["m", 0.0]


def test_labels_that_are_missing_in_one_variant_are_told(desk: Desk) -> None:
    live_canary(desk)
    labels(desk, of="SELECT id FROM people_assigned WHERE variant = 'old' OR id % 2 = 0")
    done = desk.label(run="day-1")
    assert done.missing_p_value is not None
    assert done.missing_p_value < 1e-9


# Others at work


def test_a_second_job_is_refused_with_a_clear_message(desk: Desk) -> None:
    with (
        desk.database.job("the first"),
        pytest.raises(StoreBusyError, match=r"another batch job works on .*so the scoring did not"),
    ):
        desk.score()
    desk.score()


def test_a_database_that_others_hold_is_waited_for_then_refused(desk: Desk) -> None:
    words = f"import duckdb,sys;c=duckdb.connect({str(desk.path)!r});print(flush=True);input()"
    with subprocess.Popen(
        [sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StoreBusyError, match=r"another process \(PID \d+\) has had .* 1 s"):
            desk.score()
        holder.communicate(b"\n")
    desk.score()


def test_work_is_for_the_owner_alone(desk: Desk) -> None:
    def looks(_done: int, _total: int) -> None:
        (path,) = desk.path.parent.glob("*.scoring")
        assert path.stat().st_mode & 0o077 == 0

    desk.score(progress=looks)
    work.discard(desk.path.with_name("nothing"))


# The command


def test_the_whole_path_as_a_person_types_it(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.start()
    database, space = str(desk.path), str(desk.space.path)

    def run(code: int, *words: str) -> str:
        assert main(["batch", *words]) == code
        return capsys.readouterr().out

    def data(*words: str) -> Any:
        return json.loads(run(0, *words, "--json"))

    assign = ("assign", database, "people", "--unit", "id", "--experiment", "ranker")
    assign += ("--workspace", space, "--run", "d1")
    assert "2,000 assigned now, 2,000 exposures logged" in run(0, *assign)
    assert data(*assign)["added"] == 0
    score = ("score", database, "people", "--name", "churn", "--unit", "id", "--run", "d1")
    score += ("--model", "models:old", "--model-version", "1")
    score += ("--variant", "new=models:new@2", "--features", "age,plan")
    assert "churn version 1: 2,000 entities" in run(0, *score)
    assert "--again repeats it" in run(0, *score)
    assert data(*score, "--again")["version"] == 2
    assert "ok\tsplit" in run(0, "validate", database, "churn", "--version", "1")
    assert "version 1 is live" in run(0, "swap", database, "churn", "--version", "1")
    assert "live already" in run(0, "swap", database, "churn", "--version", "1")
    assert data("swap", database, "churn", "--reason", "r")["before"] == 1
    assert "version 1 is live, 2 before" in run(0, "back", database, "churn", "--actor", "bob")
    run(1, "back", database, "churn")
    wild = ("score", database, "people", "--name", "churn", "--unit", "id")
    wild += ("--model", "models:wild", "--model-version", "9")
    assert data(*wild)["asked"] == 100
    assert "REFUSED\tdrift" in run(1, "swap", database, "churn")
    assert "REFUSED" in run(1, "validate", database, "churn")
    forced = ("swap", database, "churn", "--force", "--reason", "because")
    assert "forced" in run(0, *forced)
    assert "swap forced\t1 -> 3" in run(0, "history", database, "churn")
    assert "churn\t3\t2,000" in run(0, "versions", database)
    assert [item["version"] for item in data("versions", database, "churn")] == [3, 2, 1]
    run(0, "back", database, "churn")
    labels(desk)
    label = ("labels", database, "labels", "--name", "churn", "--run", "d1", "--entity", "id")
    label += ("--label", "truth", "--metric", "wrong", "--workspace", space)
    assert "new outcomes" in run(0, *label)
    assert data(*label)["added"] == 0
    shadow = ("--shadow", "new=models:new@2", "--name", "dark")
    plain = ("score", database, "people", "--unit", "id", "--model", "models:old")
    run(0, *plain, "--model-version", "1", *shadow)
    assert "equal; mean" in run(0, "compare", database, "dark")
    assert "hits" in run(0, "cache", database)
    assert data("cache", database, "--limit", "10", "--clear")["limit"] == 10
    run(2, "versions", "none.duckdb")
    run(2, *score[:-4], "--variant", "new")
    run(2, "score", database, "peple", "--name", "x", "--unit", "id", *score[9:13])
