"""`abkit plan` and `abkit simulate` on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from abkit.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), err


def test_a_plan_from_numbers_is_a_table_and_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plan", "--baseline", ".1", "--lift", "5%", "--units-per-day", "4000"]
    code, out, _ = said(capsys, *words)
    assert code == 0
    assert "Take 'group-sequential': at most 118,382 units (30 days)" in out
    assert "always-valid" in out


def test_every_option_of_a_plan_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--baseline", "20", "--sd", "30", "--difference", "-2", "--power", ".9"]
    words += ["--weights", "old=2,new=1,other=1", "--arms", "3", "--alpha", ".1", "--json"]
    words += ["--alternative", "less", "--design", "obf", "--looks", "4"]
    words += ["--variance-reduction", "30%"]
    code, out, _ = said(capsys, *words)
    found = json.loads(out)
    assert code == 0
    assert (found["alpha"], found["alternative"]) == (0.1, "less")
    assert found["shares"] == [0.5, 0.25, 0.25]
    assert found["variance_reduction"] == 0.3
    (design,) = found["designs"]
    assert (design["design"], design["looks"], design["alpha"]) == ("obf", 4, 0.05)
    assert design["difference"] == -2.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan"], "nothing to plan with"),
        (["plan", "--baseline", ".1", "--lift", "5%", "--weights", "a=b"], "'a=b' is not NUMBER"),
        (["plan", "--baseline", ".1", "--lift", "5%", "--design", "obff"], "did you mean 'obf'"),
        (["plan", "nothing.csv", "--unit", "u", "--metric", "m"], "no file 'nothing.csv'"),
        (["simulate", "aa", "nothing.csv", "--unit", "u", "--metric", "m"], "no file"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(capsys, *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_word_for_a_number_is_a_matter_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--baseline", "x", "--lift", "5%"])
    assert "argument --baseline: 'x' is no number, such as 0.05 or 5%" in capsys.readouterr().err


def clustered(path: Path) -> Path:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(200), 6)
    value = rng.normal(0, 1, 200)[user] + rng.normal(0, 1, 1_200)
    data = pd.DataFrame({"event": range(1_200), "user": user, "value": value})
    data.to_parquet(path / "events.parquet")
    return path / "events.parquet"


def test_a_test_that_breaks_its_promise_is_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = clustered(tmp_path)
    words = ["simulate", "aa", str(file), "--unit", "event", "--metric", "value", "--runs", "500"]
    code, out, _ = said(capsys, *words, "--cluster", "user", "--looks", "5")
    assert code == 0
    assert "200 clusters of 1,200 rows" in out
    assert "take the cluster as the unit" in out
    # Few units in a small arm: without a large value it has a low mean and a low variance at once.
    rng = np.random.default_rng(1)
    heavy = pd.DataFrame({"user": range(600), "spend": np.exp(rng.normal(0, 1.5, 600))})
    heavy.to_csv(tmp_path / "heavy.csv", index=False)
    words = ["simulate", "aa", str(tmp_path / "heavy.csv"), "--unit", "user", "--metric", "spend"]
    words += ["--share", ".05", "--alternative", "less", "--runs", "2000", "--looks", "1"]
    code, out, _ = said(capsys, *words, "--design", "fixed")
    assert code == 1
    assert "Do not use this" in out


def test_a_simulation_of_power_says_what_finds_the_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = clustered(tmp_path)
    words = ["simulate", "power", str(file), "--unit", "event", "--metric", "value"]
    words += ["--difference", ".5", "--runs", "300", "--plot", str(tmp_path / "x.html")]
    code, out, _ = said(capsys, *words)
    assert code == 0
    assert "A difference of +0.5 in value is found most often by" in out
    assert (tmp_path / "x.html").is_file()


def test_help_names_the_designs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["plan", "--help"], ["simulate", "aa", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
        out = capsys.readouterr().out
        assert "group-sequential" in out
