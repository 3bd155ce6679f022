"""`abkit analyze` on the Cookie Cats experiment: O01 to O05 of the reference answers.

The answers were computed with plain numpy, scipy and statsmodels on the same file.
"""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from abkit.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXACT = 1e-9


@pytest.fixture(scope="module")
def report(shared_data: Callable[[str], Path]) -> dict[str, Any]:
    output = io.StringIO()
    words = ["analyze", str(shared_data("cookie_cats.csv")), "--unit", "userid"]
    words += ["--variant", "version", "--control", "gate_30", "--format", "json"]
    for metric in ("retention_1:proportion", "retention_7:proportion", "sum_gamerounds:mean"):
        words += ["--metric", metric]
    with contextlib.redirect_stdout(output):
        assert main(words) == 0
    found: dict[str, Any] = json.loads(output.getvalue())
    return found


def result(report: dict[str, Any], metric: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in report["results"] if item["metric"] == metric)
    return found


def test_o01_units_and_split(report: dict[str, Any]) -> None:
    assert report["variants"] == {"gate_30": {"n": 44700}, "gate_40": {"n": 45489}}
    assert report["srm"]["statistic"] == pytest.approx(6.90240494961, rel=EXACT)
    assert report["srm"]["p_value"] == pytest.approx(0.00860798781084, rel=EXACT)


def test_o02_retention_after_a_day(report: dict[str, Any]) -> None:
    found = result(report, "retention_1")
    assert found["difference"] == pytest.approx(-0.00590516978734, rel=EXACT)
    assert found["statistic"] == pytest.approx(-1.7840862248, rel=EXACT)
    assert found["p_value"] == pytest.approx(0.0744096552969, rel=EXACT)


def test_o03_retention_after_a_week(report: dict[str, Any]) -> None:
    found = result(report, "retention_7")
    assert found["difference"] == pytest.approx(-0.00820129831521, rel=EXACT)
    assert found["statistic"] == pytest.approx(-3.16435891275, rel=EXACT)
    assert found["p_value"] == pytest.approx(0.00155424997561, rel=EXACT)
    assert found["interval"] == pytest.approx([-0.0132815524189, -0.00312104421153], rel=EXACT)


def test_o04_lift_of_retention_after_a_week(report: dict[str, Any]) -> None:
    lift = result(report, "retention_7")["lift"]
    assert lift["value"] == pytest.approx(-0.0431190348965, rel=EXACT)
    assert lift["interval"] == pytest.approx([-0.0692448666656, -0.0169932031273], rel=EXACT)


def test_o05_rounds_played(report: dict[str, Any]) -> None:
    found = result(report, "sum_gamerounds")
    assert found["method"] == "welch_t"
    assert found["mean_treatment"] == pytest.approx(51.2987755281, rel=EXACT)
    assert found["mean_control"] == pytest.approx(52.4562639821, rel=EXACT)
    assert found["statistic"] == pytest.approx(-0.885437433127, rel=EXACT)
    assert found["p_value"] == pytest.approx(0.375924384093, rel=EXACT)
    assert found["interval"] == pytest.approx([-3.71970511649, 1.40472820859], rel=EXACT)


def test_the_shape_of_the_json_stays(report: dict[str, Any]) -> None:
    assert list(report) == ["variants", "srm", "results", "checks"]
    assert list(report["srm"]) == ["statistic", "p_value", "e_value", "status"]
    assert list(report["results"][0]) == [
        "metric",
        "kind",
        "variant",
        "control",
        "method",
        "guarantee",
        "alpha",
        "alternative",
        "status",
        "n_treatment",
        "n_control",
        "mean_treatment",
        "mean_control",
        "difference",
        "standard_error",
        "interval",
        "statistic",
        "p_value",
        "lift",
    ]
