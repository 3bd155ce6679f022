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
    assert capsys.readouterr().out == (
        "snapshot 1\n"
        "experiment\tplain\tnew\trunning, epoch 1, a 1\n"
        "experiment\tranker\tnew\trunning, epoch 1, old 0.5, new 0.5\n"
        "experiment\tsolo\tnew\trunning, epoch 1, a 0.5, b 0.5\n"
        "holdout\tquiet\tnew\t0.5\n"
    )
    return workspace


def test_what_is_published_serves(space: str) -> None:
    ab = Client(space)
    assert ab.assign("ranker", "user-1", {"age": 20}).reason == "split"
    assert set(ab.assign_all("user-1")) == {"ranker", "plain", "solo", "quiet"}


def test_assign_says_what_and_why(space: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assign", space, "user-1", "ranker"]) == 0
    out = capsys.readouterr().out
    assert out == 'ranker\told\ttargeting\tneeds {"attribute": "age", "at_least": 18}\n'
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
        (
            ["assign", "SPACE", "u", "--attribute", "age"],
            "--attribute 'age' is neither NAME=TEXT nor NAME:=JSON",
        ),
        (["assign", "SPACE", "u", "--attribute", "age:=x"], "'x' is not JSON"),
        (["assign", "ELSEWHERE", "u"], "is no workspace; `abkit publish` makes"),
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


def test_publishing_again_says_what_changed(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wider.json").write_text(
        json.dumps({**ONE, "variants": {"a": 0.25, "b": 0.75}, "key": "solo"})
    )
    assert main(["publish", space, str(tmp_path / "wider.json")]) == 0
    out = capsys.readouterr().out
    assert out == "snapshot 2\nexperiment\tsolo\tchanged\trunning, epoch 1 -> 2, a 0.25, b 0.75\n"
    assert main(["publish", space, str(tmp_path / "wider.json")]) == 0
    assert capsys.readouterr().out == "snapshot 3\n"


def test_any_experiment_is_halted_by_its_name(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["halt", space, "solo"]) == 0
    assert capsys.readouterr().out == "solo: killed, control 'a' for everyone\n"
    assert main(["halt", space, "solo"]) == 0
    assert Client(space).assign("solo", "u").reason == "killed"
    plan = tmp_path / "plan.toml"
    plan.write_text('key = "r"\nexperiment = "fresh"\ncontrol = "a"\ntreatment = "b"\n')
    assert main(["rollout", "start", space, str(plan)]) == 0
    assert main(["halt", space, "fresh"]) == 0
    assert "rollout r: halted" in capsys.readouterr().out
    assert main(["halt", space, "nope"]) == 2
    assert "no experiment 'nope'" in capsys.readouterr().err


def test_a_layer_is_written_in_shares(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "layer.toml"
    text = 'layers = [{key = "l", salt = "ls", shares = {SHARES}}]\n[[experiments]]\n'
    text += 'key = "in"\nsalt = "i"\ncontrol = "a"\nvariants = {a = 1.0}\nlayer = "l"\n'
    file.write_text(text.replace("SHARES", "in = 0.3, other = 0.5"))
    assert main(["publish", space, str(file)]) == 0
    assert "layer\tl\tnew\tin 0.3, other 0.5" in capsys.readouterr().out
    units = [f"user-{i}" for i in range(2_000)]
    before = {unit for unit in units if Client(space).assign("in", unit).in_experiment}
    file.write_text(text.replace("SHARES", "other = 0.4, in = 0.6"))
    assert main(["publish", space, str(file)]) == 0
    after = {unit for unit in units if Client(space).assign("in", unit).in_experiment}
    assert before < after
    assert 0.5 < len(after) / len(units) < 0.7
    file.write_text(text.replace("SHARES", "typo = 0.3"))
    assert main(["publish", space, str(file)]) == 2
    assert "gives it no buckets; it has typo" in capsys.readouterr().err
    file.write_text(text.replace("{SHARES}", "3"))
    assert main(["publish", space, str(file)]) == 2
    assert "shares must be a table" in capsys.readouterr().err


def test_a_snapshot_is_followed_into_a_folder_that_is_not_there_yet(
    space: str, tmp_path: Path
) -> None:
    worker = tmp_path / "worker"
    assert main(["snapshot", "follow", space, str(worker), "--once"]) == 0
    assert Client(worker).assign("solo", "u").reason == "split"


def test_assign_says_where_the_unit_lies(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "more.toml"
    file.write_text("""
layers = [{key = "l", salt = "ls", shares = {in = 0.3, other = 0.5}}]
holdouts = [{key = "all", salt = "a", share = 1.0}]
[[experiments]]
key = "in"
salt = "i"
control = "a"
variants = {a = 1.0}
layer = "l"
[[experiments]]
key = "held"
salt = "j"
control = "a"
variants = {a = 1.0}
holdouts = ["all"]
[[experiments]]
key = "small"
salt = "k"
control = "a"
variants = {a = 1.0}
rollout = 0.0
""")
    assert main(["publish", space, str(file)]) == 0
    capsys.readouterr()
    units = [f"user-{i}" for i in range(40)]
    said = set()
    for unit in units:
        assert main(["assign", space, unit]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        said |= {(row[0], row[2], row[3].partition("of ")[2]) for row in rows}
    assert ("in", "layer", "layer l, which belongs to other") in said
    assert ("in", "layer", "layer l, which is free") in said
    assert ("in", "split", "the buckets") in said
    assert any(key == "small" and "outside" in text for key, _, text in said)
    assert main(["assign", space, "u", "held"]) == 0
    assert capsys.readouterr().out == "held\ta\tholdout\theld out by all\n"


def test_a_table_in_the_singular_is_pointed_at(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.toml"
    file.write_text("[[experiment]]\nkey = 'x'\n")
    assert main(["publish", space, str(file)]) == 2
    assert "say [[experiments]], not [[experiment]]" in capsys.readouterr().err
