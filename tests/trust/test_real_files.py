"""The checks on real files: what they must name, with the numbers that are known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from abkit.analysis import analyze, analyze_moments
from abkit.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from abkit.analysis import Report
    from abkit.check import Check


def found(report: Report, name: str) -> Check | None:
    return next((item for item in report.checks if item.id == name), None)


def test_cookie_cats_single_player_flips_the_result(shared_data: Callable[[str], Path]) -> None:
    report = analyze(
        shared_data("cookie_cats.csv"),
        unit="userid",
        variant="version",
        control="gate_30",
        metrics=["retention_1", "retention_7", "sum_gamerounds"],
    )
    named = [item for item in report.checks if item.id == "outlier_flips_result"]
    assert len(named) == 1
    assert "49,854" in named[0].text
    assert "flips the result of 'sum_gamerounds'" in named[0].text
    assert named[0].evidence["unit"] == "6390605"
    assert named[0].evidence["p_value"] == pytest.approx(0.375924384093, rel=1e-9)  # O05
    assert named[0].evidence["p_value_without"] == pytest.approx(0.949468621546, rel=1e-9)  # O06


def test_winsorising_silences_the_player(shared_data: Callable[[str], Path]) -> None:
    report = analyze(
        shared_data("cookie_cats.csv"),
        unit="userid",
        variant="version",
        control="gate_30",
        metrics=["sum_gamerounds"],
        winsorize={"sum_gamerounds": 0.999},
    )
    assert found(report, "outlier_flips_result") is None


UDACITY: dict[str, Any] = {
    "unit": "user_id",
    "variant": "group",
    "control": "control",
    "metrics": ["converted"],
    "delivered": "landing_page",
}


def test_udacitys_rows_are_reported_and_the_cleaned_analysis_is_o11(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("udacity_ab_data.parquet")
    dirty = analyze(path, **UDACITY)
    strayed, crossed = found(dirty, "delivery_mismatch"), found(dirty, "crossover_units")
    doubled = found(dirty, "repeated_units")
    assert strayed is not None
    assert strayed.severity == "block"
    assert strayed.evidence["rows"] == 3_893  # O10
    assert crossed is not None
    assert crossed.severity == "block"
    assert doubled is not None
    assert doubled.evidence["units"] == 3_894  # 294,478 rows of 290,584 users
    matched = duckdb.sql(
        f"SELECT * FROM '{path}' WHERE (\"group\" = 'treatment') = (landing_page = 'new_page')"  # noqa: S608 - our own
    ).to_arrow_table()
    once = analyze(matched, **UDACITY)
    left = found(once, "repeated_units")
    assert left is not None
    assert left.text.startswith("1 unit in more than one row")  # the doubled user
    assert found(once, "delivery_mismatch") is None
    first = duckdb.sql(
        "SELECT * FROM matched "
        "QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY timestamp) = 1"
    ).to_arrow_table()
    clean = analyze(first, **UDACITY)
    assert not [item for item in clean.checks if item.severity != "info"]
    e = clean.results[0].estimate
    assert (e.n_control, e.n_treatment) == (145_274, 145_310)
    assert e.statistic == pytest.approx(-1.31092419842, rel=1e-9)  # O11
    assert e.p_value == pytest.approx(0.189883374482, rel=1e-9)


def test_the_command_names_what_was_delivered(
    shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(shared_data("udacity_ab_data.parquet"))
    words = ["analyze", path, "--unit", "user_id", "--variant", "group", "--control", "control"]
    words += ["--metric", "converted", "--delivered", "landing_page", "--time", "timestamp"]
    assert main([*words, "--format", "json"]) == 0
    checks = {item["id"]: item for item in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["delivery_mismatch"]["evidence"]["rows"] == 3_893
    assert checks["delivery_mismatch"]["remedy"]
    assert checks["calendar_coverage"]["severity"] == "info"  # 23 days


def test_asos_series_that_are_plainly_not_even_block_unless_weights_are_given(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("asos_digital_experiments_dataset.csv")
    reports = analyze_moments(path, metrics=["1"])
    blocked = {
        key
        for key, report in reports.items()
        for item in report.checks
        if (item.id, item.severity) == ("sample_ratio_mismatch", "block")
    }
    assert len(blocked) == 9  # of 78 experiments
    assert {"329386", "834947", "26bd38"} <= blocked
    for key in ("329386", "834947"):
        rows = duckdb.sql(
            f"SELECT * FROM read_csv('{path}') WHERE experiment_id = '{key}' AND metric_id = 1"  # noqa: S608 - our own
        ).to_arrow_table()
        weights = dict(reports[key].variants)
        again = analyze_moments(rows, metrics=["1"], weights=weights)[key]
        split = found(again, "sample_ratio_mismatch")
        assert split is not None
        assert split.severity == "info"
