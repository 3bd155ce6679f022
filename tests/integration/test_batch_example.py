"""The example of nightly scoring, run as its reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import duckdb
import pytest

from abkit.workspace import Workspace

EXAMPLE = Path(__file__).parents[2] / "examples" / "batch_scoring"


def test_a_better_model_comes_in_and_a_worse_one_is_taken_back(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="no sklearn: pip install 'abkit-rollouts[demo]'")
    folder = tmp_path / "batch"
    done = subprocess.run(
        [sys.executable, "run.py", "--folder", str(folder)],
        cwd=EXAMPLE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    text = done.stdout
    assert done.returncode == 0, text + done.stderr
    moves = [
        "tree-for-linear: canary, 10 %",
        "tree-for-linear: advance, now canary (50 %)",
        "tree-for-linear: promote, now promoted",
        "stump-for-tree: canary, 10 %",
        "stump-for-tree: halt, now halted",
        "employment: version 4 is live, 5 before",
        "employment: version 6 is live, 4 before",
        "readers see: 6,000 by tree",
    ]
    places = [text.index(move) for move in moves]
    assert places == sorted(places), text
    space = Workspace(folder / "workspace")
    assert space.rollout("stump-for-tree").state == "halted"
    with duckdb.connect(folder / "predictions.duckdb", read_only=True) as connection:
        twice = connection.execute(
            "SELECT count(*) - count(DISTINCT (version, unit, metric)) FROM abkit_label"
        ).fetchall()
    assert twice == [(0,)]
    # A night that is done, started again, does nothing.
    again = subprocess.run(
        [sys.executable, "nightly.py", str(folder), "2026-11-07"],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 assigned now, 0 exposures logged" in again.stdout
    assert "version 6 is there" in again.stdout
    assert "version 6 is live already" in again.stdout


def test_the_schedules_start_the_script_that_is_there() -> None:
    for name in ("crontab", "abkit-nightly.service"):
        text = (EXAMPLE / name).read_text()
        script = re.search(r"python (\S+\.py)", text)
        assert script is not None
        assert (EXAMPLE / script[1]).is_file()
    line = (EXAMPLE / "crontab").read_text().splitlines()[-1]
    assert len(line.split()[:5]) == 5
    assert "OnCalendar=" in (EXAMPLE / "abkit-nightly.timer").read_text()


def test_the_commands_of_the_dag_are_commands_of_abkit(monkeypatch: pytest.MonkeyPatch) -> None:
    from abkit.cli import _parser

    source = (EXAMPLE / "airflow_dag.py").read_text()
    compile(source, "airflow_dag.py", "exec")
    start, end = source.index("DATABASE ="), source.index("with DAG(")
    names: dict[str, dict[str, str]] = {}
    exec(source[start:end], names)  # noqa: S102 - our own example
    for command in names["COMMANDS"].values():
        program, *words = (
            command.replace("{{ ds }}", "d").replace("{{ macros.ds_add(ds, -1) }}", "c").split()
        )
        assert program == "abkit"
        _parser().parse_args(words)
    for name in ("tree.toml", "stump.toml"):
        assert tomllib.loads((EXAMPLE / name).read_text())["experiment"] == "employment"
