"""`analyze_moments` on real series of moments, against reference answers and by hand.

O15 to O19 are rows of the reference answers; O16 is table 2 of Liu et al. (2021).
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from abkit.analysis import analyze, analyze_moments
from abkit.cli import main
from abkit.errors import ConfigError, DataError
from abkit.moments import Moments
from abkit.sequential.calibrated import AlwaysValid
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.msprt import FixedTauMixture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from abkit.analysis import Report
    from abkit.sequential.design import Contrast, Look

ASOS = "asos_digital_experiments_dataset.csv"


@pytest.fixture(scope="module")
def asos(shared_data: Callable[[str], Path]) -> Path:
    return shared_data(ASOS)


@pytest.fixture(scope="module")
def fixed(asos: Path) -> dict[str, Report]:
    return analyze_moments(asos, metrics=["1"])


def test_o15_every_series_is_met(fixed: dict[str, Report]) -> None:
    assert len(fixed) == 78
    assert sum(len(report.results) for report in fixed.values()) == 99


def test_o17_a_last_checkpoint(fixed: dict[str, Report]) -> None:
    result = next(item for item in fixed["058875"].results if item.variant == "1")
    e = result.estimate
    assert e.difference == pytest.approx(9.9304e-05, rel=1e-9)
    assert e.standard_error == pytest.approx(6.80095644039e-05, rel=1e-9)
    assert e.p_value == pytest.approx(0.144249530337, rel=1e-9)
    assert e.lift == pytest.approx(0.0021786148236, rel=1e-9)
    assert e.lift_interval is not None
    assert e.lift_interval.lower == pytest.approx(-0.000748934893029, rel=1e-9)
    assert e.lift_interval.upper == pytest.approx(0.00510616454023, rel=1e-9)


@dataclass(frozen=True)
class Liu:
    """The mSPRT of Liu et al. (2021): tau2 is 1.30e-5 times the variance of a unit."""

    alpha: float = 0.05
    alternative: str = "two-sided"

    def look(self, data: Contrast, past: Sequence[Look] = ()) -> Look:
        tau2 = 1.30e-5 * data.spread**2 or 1.0
        return FixedTauMixture(tau2=tau2, alpha=self.alpha).look(data, past)


def test_o16_table_2_of_liu_et_al(asos: Path, fixed: dict[str, Report]) -> None:
    """Metric 1: both 19, only the mSPRT 2, neither 71, only t 7."""
    followed = analyze_moments(asos, metrics=["1"], design=Liu())
    counts = Counter(
        (once.rejected, many.rejected)
        for name, report in followed.items()
        for many, once in zip(report.results, fixed[name].results, strict=True)
    )
    assert counts == {(True, True): 19, (False, True): 2, (False, False): 71, (True, False): 7}


def test_o19_first_stop_of_the_msprt(asos: Path) -> None:
    result = analyze_moments(asos, metrics=["1"], design=Liu())["fdaf62"].results[0]
    assert result.stopped is not None
    assert result.stopped.time == 4.0


def test_information_that_goes_backwards_is_said(fixed: dict[str, Report]) -> None:
    """Two of the 99 series have fewer users at a later day."""
    found = [c for report in fixed.values() for c in report.checks if c.id == "counts_fell"]
    assert len(found) == 2
    assert "1 of 54 checkpoints (first at 18.0) with fewer units" in found[0].text


def test_a_series_is_its_design_called_by_hand(asos: Path) -> None:
    design = AlwaysValid(planned_units=40_000_000)
    looks: list[Look] = []
    with asos.open(encoding="utf-8", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["experiment_id"], row["variant_id"], row["metric_id"]) == ("058875", "1", "1")
        ]
    for row in sorted(rows, key=lambda row: float(row["time_since_start"])):
        pair = [
            Moments(n := round(float(row[f"count_{arm}"])), float(row[f"mean_{arm}"]),
                    float(row[f"variance_{arm}"]) * (n - 1))
            for arm in "ct"
        ]  # fmt: skip
        looks.append(design.look(stratified_contrast([(pair[0], pair[1])], kind="mean"), looks))
    found = analyze_moments(asos, metrics=["1"], design=design)["058875"].results
    result = next(item for item in found if item.variant == "1")
    assert [item.look for item in result.looks] == looks


@pytest.mark.parametrize("design", ["always-valid", "calibrated", "msprt:1e-6"])
def test_no_series_crashes_any_design(asos: Path, design: str) -> None:
    """All four metrics of eight experiments, missing variances and falling counts included."""
    frame = pd.read_csv(asos)
    frame = frame[frame.experiment_id.isin(sorted(frame.experiment_id.unique())[::10])]
    planned = None if design.startswith("msprt") else 2_000_000
    for report in analyze_moments(frame, design=design, planned_units=planned).values():
        json.loads(report.to_json())
        report.explain()
        for item in report.results:
            assert item.looks


def test_a_group_sequential_test_bears_series_whose_counts_fall(
    asos: Path, fixed: dict[str, Report]
) -> None:
    names = [n for n, r in fixed.items() if any(c.id == "counts_fell" for c in r.checks)]
    frame = pd.read_csv(asos).query("metric_id == 1")
    reports = analyze_moments(frame[frame.experiment_id.isin(names)], design="group-sequential")
    for report in reports.values():
        for item in report.results:
            spent = [look.look.alpha_spent or 0.0 for look in item.looks]
            assert spent == sorted(spent)
            assert spent[-1] == pytest.approx(0.05)


# ---- the long layout ----------------------------------------------------------------------------


def table(**changes: Any) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    values = {arm: rng.normal(10 + 0.3 * (arm == "b"), 2, 900) for arm in "ab"}
    rows = []
    for day, arm in itertools.product((1, 2, 3), "ab"):
        seen = values[arm][: 300 * day]
        row = {"variant": arm, "metric": "spend", "time": day, "n": len(seen)}
        rows.append(row | {"mean": seen.mean(), "variance": seen.var(ddof=1)})
    frame = pd.DataFrame(rows).astype({"n": float})
    for column, (row, value) in changes.items():
        frame.loc[row, column] = value
    return frame


def test_moments_say_what_units_say() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(10, 2, 900), rng.normal(10.3, 2, 900)
    units = pd.DataFrame({"u": range(1_800), "arm": ["a"] * 900 + ["b"] * 900})
    units["spend"] = np.concatenate([a, b])
    units["day"] = np.tile(np.repeat([1, 2, 3], 300), 2)
    for design in ("fixed", "always-valid", "pocock"):
        planned = 1_800 if design == "always-valid" else None
        asked: dict[str, Any] = {"design": design, "planned_units": planned, "control": "a"}
        (found,) = analyze_moments(table(), **asked)[""].results
        (expected,) = analyze(
            units, unit="u", variant="arm", metrics=["spend"], time="day", looks=3, **asked
        ).results
        for one, other in zip(found.looks, expected.looks, strict=True):
            assert (one.time, one.n_control) == (other.time, other.n_control)
            assert one.look.estimate == pytest.approx(other.look.estimate)
            assert one.look.p_value == (other.look.p_value and pytest.approx(other.look.p_value))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"variance": (2, math.nan)}, "unusable_checkpoints"),
        ({"variance": (2, -1.0)}, "unusable_checkpoints"),
        ({"mean": (3, math.inf)}, "unusable_checkpoints"),
        ({"n": (2, math.nan)}, "unusable_checkpoints"),
        ({"n": (3, -5.0)}, "unusable_checkpoints"),
        ({"variance": (2, 1e308)}, "unusable_checkpoints"),
        ({"n": (2, 30.0)}, "counts_fell"),
        ({"n": (2, 0.0)}, "counts_fell"),
    ],
)
def test_what_a_checkpoint_lacks_is_said_and_the_rest_is_answered(
    changes: dict[str, Any], check: str
) -> None:
    for design in ("fixed", "group-sequential", "always-valid", "calibrated"):
        planned = 1_800 if design in ("always-valid", "calibrated") else None
        report = analyze_moments(
            table(**changes), control="a", design=design, planned_units=planned
        )[""]
        assert check in {item.id for item in report.checks}
        (result,) = report.results
        assert result.estimate.status == "ok"
        json.loads(report.to_json())
        if check == "unusable_checkpoints":
            assert result.looks[1].look.status == "insufficient_data"


def test_a_series_without_any_units_has_a_status() -> None:
    frame = table().assign(n=0.0)
    for design in ("fixed", "group-sequential", "always-valid", "calibrated"):
        planned = 1_800 if design in ("always-valid", "calibrated") else None
        report = analyze_moments(frame, control="a", design=design, planned_units=planned)[""]
        assert report.results[0].estimate.status == "insufficient_data"
        report.explain()


def test_proportions_take_their_variance_from_the_mean() -> None:
    frame = pd.DataFrame(
        {"variant": ["a", "b"], "metric": "bought", "n": 1_000, "mean": [0.1, 0.14]}
    ).assign(variance=math.nan)
    (result,) = analyze_moments(frame, control="a", metrics={"bought": "proportion"})[""].results
    assert (result.kind, result.estimate.method) == ("proportion", "pooled_z")
    assert result.rejected


def test_bad_tables_are_named() -> None:
    for frame, asked, words in (
        (table().drop(columns="mean"), {"control": "a"}, "no column 'mean' in a table of moments"),
        (table(), {"control": "z"}, "no control 'z'; it has 'a', 'b'"),
        (table().query("variant == 'a'"), {"control": "a"}, "holds only 'a'"),
        (pd.concat([table(), table()]), {"control": "a"}, "stands in the table twice at 1.0"),
        (table(), {"control": "a", "metrics": ["spent"]}, "did you mean 'spend'"),
        (table().assign(time="soon"), {"control": "a"}, "a time of the table is 'soon'"),
    ):
        with pytest.raises(DataError) as caught:
            analyze_moments(frame, **asked)
        assert words in str(caught.value)
    with pytest.raises(ConfigError, match="which variant is the control"):
        analyze_moments(table())
    with pytest.raises(ConfigError, match="adds up counts from look to look"):
        analyze_moments(table(), control="a", design="hypergeometric")


def test_the_split_is_tested_where_it_is_said() -> None:
    report = analyze_moments(table(), control="a", weights={"a": 1, "b": 1})[""]
    assert report.srm is not None
    assert report.srm.status == "ok"
    assert analyze_moments(table(), control="a")[""].checks[0].text.startswith("the split was not")


# ---- the command --------------------------------------------------------------------------------


def test_the_command_reads_both_layouts(
    tmp_path: Path, asos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "moments.csv"
    table().to_csv(path, index=False)
    words = ["analyze", str(path), "--from-moments", "--control", "a", "--design", "pocock"]
    assert main([*words, "--format", "json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["experiments"][""]["results"]
    assert (result["design"], len(result["looks"])) == ("pocock", 3)
    assert main(["analyze", str(asos), "--from-moments", "--metric", "1"]) == 0
    assert "experiment fdaf62" in capsys.readouterr().out
    assert main([*words, "--covariate", "before"]) == 2
    assert "--covariate needs a table of units" in capsys.readouterr().err
