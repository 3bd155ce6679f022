"""`abkit publish`, `assign`, `audit-sql` and `import`, as a person types them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from abkit.cli import main
from abkit.client import Client
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
[[experiments]]
key = "ranker"
salt = "s"
control = "old"
variants = {old = 0.5, new = 0.5}
targeting = {attribute = "age", at_least = 18}

[[experiments]]
key = "plain"
salt = "t"
control = "a"
variants = {a = 1.0}

[[holdouts]]
key = "quiet"
salt = "h"
share = 0.5
"""
ONE = {"key": "solo", "salt": "u", "control": "a", "variants": {"a": 0.5, "b": 0.5}}


@pytest.fixture
def space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    file = tmp_path / "experiments.toml"
    file.write_text(FILE)
    one = tmp_path / "one.json"
    one.write_text(json.dumps(ONE))
    workspace = str(tmp_path / "ws")
    assert main(["publish", workspace, str(file), str(one)]) == 0
    assert capsys.readouterr().out == "snapshot 1: published 3 experiments, 1 holdouts\n"
    return workspace


def test_what_is_published_serves(space: str) -> None:
    ab = Client(space)
    assert ab.assign("ranker", "user-1", {"age": 20}).reason == "split"
    assert set(ab.assign_all("user-1")) == {"ranker", "plain", "solo", "quiet"}


def test_assign_says_what_and_why(space: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assign", space, "user-1", "ranker"]) == 0
    assert capsys.readouterr().out == "ranker\told\ttargeting\n"
    assert main(["assign", space, "user-1", "--attribute", "age:=18", "--json"]) == 0
    found = {item["experiment"]: item for item in json.loads(capsys.readouterr().out)}
    real = Client(space).assign("ranker", "user-1", {"age": 18})
    assert found["ranker"]["variant"] == real.variant
    assert found["ranker"]["bucket"] == real.bucket
    assert set(found) == {"ranker", "plain", "solo", "quiet"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["assign", "SPACE", "u", "nope"], "no experiment 'nope'"),
        (["assign", "SPACE", "u", "--attribute", "age"], "--attribute 'age' is neither NAME=TEXT nor NAME:=JSON"),
        (["assign", "SPACE", "u", "--attribute", "age:=x"], "'x' is not JSON"),
        (["assign", "ELSEWHERE", "u"], "has no snapshot yet; `abkit publish` writes one"),
        (["audit-sql", "SPACE", "nope"], "no experiment 'nope'"),
        (["audit-sql", "SPACE", "solo", "--dialect", "oracle"], "oracle"),
        (["publish", "SPACE", "absent.toml"], "cannot read absent.toml"),
        (["import", "acme", "ONE"], "acme"),
        (["import", "growthbook", "absent.json"], "cannot read absent.json"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str], said: str, space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"SPACE": space, "ELSEWHERE": str(tmp_path / "x"), "ONE": str(tmp_path / "one.json")}
    assert main([places.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_file_that_does_not_fit_changes_nothing(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({**ONE, "layer": "nowhere"}))
    assert main(["publish", space, str(tmp_path / "bad.json")]) == 2
    assert "layer 'nowhere', which is not there" in capsys.readouterr().err
    snapshot = Workspace(space).snapshot()
    assert snapshot is not None
    assert snapshot.version == 1


def test_the_audit_query_is_printed_and_runs(
    space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    duckdb = pytest.importorskip("duckdb")
    assert main(["audit-sql", space, "solo", "--table", "people", "--unit", "id"]) == 0
    query = capsys.readouterr().out
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE people AS SELECT 'user-' || i AS id FROM range(500) t(i)")
        rows = connection.execute(query).fetchall()
        names = [column[0] for column in connection.description]
    ab = Client(space)
    for row in rows:
        found = dict(zip(names, row, strict=True))
        real = ab.assign("solo", found["unit_id"])
        assert (found["variant"], found["reason"], found["bucket"]) == (
            real.variant,
            real.reason,
            real.bucket,
        )
    assert len(rows) == 500


GROWTHBOOK = {
    "features": {
        "button": {
            "defaultValue": "blue",
            "rules": [
                {"key": "button-test", "variations": ["blue", "red"], "hashVersion": 2}
                | {"seed": "button-test", "meta": [{"key": "blue"}, {"key": "red"}]}
            ],
        },
        "on-off": {"defaultValue": True},
    }
}


def test_another_vendors_experiments_are_taken_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, space = tmp_path / "features.json", str(tmp_path / "ws")
    file.write_text(json.dumps(GROWTHBOOK))
    assert main(["import", "growthbook", str(file), "--workspace", space]) == 0
    out = capsys.readouterr().out
    assert "carried over\tbutton" in out
    assert "left behind\ton-off" in out
    assert main(["import", "growthbook", str(file), "--json"]) == 0
    again = tmp_path / "again.json"
    again.write_text(capsys.readouterr().out)
    assert main(["publish", str(tmp_path / "other"), str(again)]) == 0
    one, two = Client(space), Client(tmp_path / "other")
    key = next(iter(one.assign_all("u")))
    units = [f"user-{i}" for i in range(200)]
    assert [one.variant(key, u) for u in units] == [two.variant(key, u) for u in units]
    assert len({one.variant(key, u) for u in units}) == 2
