"""The command line as a person or a script meets it: one clear line, exit code 2, no traceback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from abkit.cli import main

ROOT = Path(__file__).parents[2]
GOOD = "user,arm,bought,spend\n" + "".join(
    f"{i},{'ab'[i % 2]},{int(i % 5 == 0)},{i % 7}.5\n" for i in range(200)
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(GOOD)
    return path


def analyze(file: Path | str, *more: str, metric: str = "bought") -> list[str]:
    words = ["analyze", str(file), "--unit", "user", "--variant", "arm", "--control", "a"]
    return [*words, "--metric", metric, *more]


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        (GOOD, ["--unit", "usr"], ["no column 'usr'", "did you mean 'user'"]),
        (GOOD, ["--variant", "group"], ["no column 'group'", "known are"]),
        (GOOD, ["--metric", "sales"], ["no column 'sales'"]),
        (GOOD, ["--control", "z"], ["no control 'z'", "'a', 'b'"]),
        (GOOD, ["--metric", "spend:proportion"], ["'spend'", "0.5", "0 or 1"]),
        (GOOD, ["--metric", "spend:median"], ["'median'", "proportion or mean"]),
        (GOOD, ["--weights", "a=0.5,b=0.6"], ["sum to 1.1"]),
        (GOOD, ["--weights", "a=1"], ["no share for the variant 'b'"]),
        (GOOD, ["--weights", "a=1,b=1,c=1"], ["'c'"]),
        (GOOD, ["--weights", "a=1,b=x"], ["'b=x' is not NAME=NUMBER"]),
        (GOOD, ["--weights", "a=1,b=-1"], ["'b'", "-1"]),
        (GOOD, ["--alpha", "1.5"], ["alpha", "1.5"]),
        (GOOD, ["--ratio", "spend"], ["'spend' is not NUMERATOR/DENOMINATOR"]),
        (GOOD, ["--ratio", "spend/vists"], ["no column 'vists' for the metric (part of spend/"]),
        (GOOD, ["--covariate", "spent"], ["no column 'spent' for the covariate", "'spend'"]),
        (GOOD, ["--margin", "bought"], ["--margin 'bought'", "is not NAME=NUMBER"]),
        (GOOD, ["--margin", "bough=-0.1"], ["margin of no metric 'bough'", "'bought'"]),
        (GOOD, ["--winsorize", "spend=.9"], ["is not NAME:NUMBER"]),
        (GOOD, ["--winsorize", "bought:.9"], ["'bought' is a proportion"]),
        (GOOD, ["--segment", "place"], ["no column 'place' for the segment"]),
        (GOOD, ["--epoch", "place"], ["no column 'place' for the epoch"]),
        (GOOD, ["--method", "chi2"], ["method must be one of pooled_z", "'chi2'"]),
        ("user,arm,bought\n1,a,1\n2,a,0\n", [], ["only 'a'", "second variant"]),
        ("user,arm,bought\n1,a,1\n2,b,nan\n", [], ["'bought'", "1 row ", "--missing"]),
        ("user,arm,bought\n1,a,1\n2,b,inf\n", [], ["'bought'", "infinite"]),
        ("user,arm,bought\n1,a,1\n2,,0\n", [], ["'arm' is empty in 1 row"]),
        ("user,arm,bought\n1,a,x\n2,b,y\n", [], ["'bought'", "not numbers"]),
        ("user,arm,bought\n", [], ["has no rows"]),
        ("", [], ["is empty"]),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    more: list[str],
    words: list[str],
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    assert main(analyze(path, *more)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("abkit: ")
    assert [word for word in words if word not in captured.err] == []


def test_an_absent_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(analyze("no/such.csv")) == 2
    assert "no file 'no/such.csv'" in capsys.readouterr().err


def test_the_table_shows_units_checks_and_results(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(analyze(table, "--metric", "spend")) == 0
    out = capsys.readouterr().out
    for word in (
        "a: 100",
        "sample_ratio_mismatch",
        "b against a",
        "bought",
        "spend",
        "one planned",
    ):
        assert word in out


def test_options_reach_the_analysis(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{line},{i % 3},{i % 5}.25" for i, line in enumerate(GOOD.splitlines()[1:])]
    table.write_text("\n".join(["user,arm,bought,spend,place,before", *rows]))
    more = ["--ratio", "bought/spend", "--covariate", "before", "--winsorize", "spend:.9"]
    more += ["--segment", "place", "--correction", "bh", "--bayes", "--margin", "bought=-.5"]
    assert main(analyze(table, *more, "--format", "json")) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [item["metric"] for item in found] == ["bought", "bought/spend"] * 4
    assert [item.get("segment", {}).get("value") for item in found][::2] == [None, "0", "1", "2"]
    assert {item["correction"]["method"] for item in found} == {"bh"}
    assert found[0]["margin"] == -0.5
    assert all(0 < item["bayes"]["chance_to_beat"] < 1 for item in found)
    assert main(analyze(table, *more)) == 0
    assert "place=2" in capsys.readouterr().out
    assert main(analyze(table, "--epoch", "place", "--format", "words")) == 0
    assert "Arms are compared within 3 epochs" in capsys.readouterr().out


def test_one_sided_intervals_have_no_end_in_json(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(analyze(table, "--alternative", "greater", "--format", "json")) == 0
    found = json.loads(capsys.readouterr().out)["results"][0]
    assert found["interval"][1] is None
    assert found["interval"][0] < found["difference"]


@pytest.mark.parametrize(("missing", "n"), [("exclude", 1), ("zero", 2)])
def test_missing_values_are_left_out_or_counted_as_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, n: int
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("user,arm,bought\n1,a,1\n2,a,0\n3,b,1\n4,b,\n")
    assert main(analyze(path, "--missing", missing, "--format", "json")) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["n_treatment"] == n


def test_repeated_and_crossing_units_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(GOOD + "0,a,1,1.5\n1,a,0,2.5\n")
    assert main(analyze(path, "--format", "json")) == 0
    checks = {item["id"]: item for item in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["crossover_units"]["severity"] == "block"
    assert checks["crossover_units"]["text"].startswith("1 unit in more")
    assert checks["repeated_units"]["text"].startswith("2 units")


def test_a_split_that_was_not_meant_blocks_unless_its_weights_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.csv"
    rows = "".join(f"{i},{'b' if i % 6 == 0 else 'a'},{i % 2}\n" for i in range(3_000))
    path.write_text("user,arm,bought\n" + rows)
    for more, status in (((), "block"), (("--weights", "a=5,b=1"), "ok")):
        assert main(analyze(path, "--format", "json", *more)) == 0
        assert json.loads(capsys.readouterr().out)["srm"]["status"] == status


def test_a_plan_is_started_held_and_rolled_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'key = "ranker-v2"\nexperiment = "ranker"\ncontrol = "old"\ntreatment = "new"\n'
    )
    space = str(tmp_path / "workspace")
    assert main(["rollout", "start", space, str(plan)]) == 0
    assert "canary, stage '1 %'" in capsys.readouterr().out
    assert main(["rollout", "hold", space, "ranker-v2", "--reason", "lunch"]) == 0
    assert main(["rollout", "resume", space, "ranker-v2", "--reason", "back"]) == 0
    assert main(["controller", space, "--once"]) == 0
    assert main(["rollout", "rollback", space, "ranker-v2", "--reason", "pager"]) == 0
    capsys.readouterr()
    assert main(["rollout", "status", space]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["ranker-v2", "halted"]
    assert main(["rollout", "status", space, "ranker-v2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "pager"
    assert main(["rollout", "halt", space, "nope", "--reason", "x"]) == 3
    assert "there is ranker-v2" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly(table: Path) -> None:
    command = [sys.executable, "-m", "abkit.cli", *analyze(table, "--format", "json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert b"Traceback" not in errors


def test_a_missing_extra_is_named(table: Path) -> None:
    # Without site-packages, as in a base install.
    command = [sys.executable, "-S", "-m", "abkit.cli", *analyze(table)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "pip install 'abkit-rollouts[analysis]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["rollout", "status"],
        ["rollout", "halt"],
        ["controller", "--once"],
        ["dashboard"],
    ],
)
def test_an_absent_workspace_is_named_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    absent = tmp_path / "wrokspace"
    extra = ["key"] if "halt" in words else []
    assert main([*words, str(absent), *extra]) == (3 if "rollout" in words else 2)
    assert "no workspace" in capsys.readouterr().err
    assert not absent.exists()


def test_a_port_in_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["dashboard", str(tmp_path), "--port", str(port)]) == 2
    assert f"port {port} cannot be served" in capsys.readouterr().err
    assert main(["dashboard", str(tmp_path), "--port", "99999"]) == 2
