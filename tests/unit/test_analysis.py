"""`analyze` takes tables as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from abkit.analysis import analyze
from abkit.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

FRAME = pd.DataFrame(
    {"u id": range(400), 'a"rm': ["x", "y"] * 200, "m": np.random.default_rng(0).normal(size=400)}
)


def difference(data: object, *, control: str | bool = "x", metric: str = "m") -> float:
    report = analyze(data, unit="u id", variant='a"rm', control=control, metrics=[metric])
    found = report.results[0].estimate.difference
    assert found is not None
    return found


def test_frames_arrow_tables_and_relations_give_the_same() -> None:
    connection = duckdb.connect()
    connection.register("frame", FRAME)
    expected = FRAME.m[1::2].mean() - FRAME.m[::2].mean()
    for data in (FRAME, pa.Table.from_pandas(FRAME), connection.sql("FROM frame")):
        assert difference(data) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "control"),
    [([0, 1], 0), ([0, 1], "0"), ([True, False], True), ([True, False], np.True_)],
)
def test_variants_may_be_numbers_or_truth_values(values: list[object], control: str) -> None:
    frame = FRAME.assign(**{'a"rm': values * 200})
    assert difference(frame, control=control) == pytest.approx(difference(FRAME), rel=1e-12)


def test_a_large_mean_keeps_its_difference_and_variance() -> None:
    frame = FRAME.assign(m=np.tile([0.0, 1.0, 2.0, 3.0], 100) + 1.7e9)
    report = analyze(frame, unit="u id", variant='a"rm', control="x", metrics=["m"])
    found = report.results[0].estimate
    assert found.difference == 1.0
    assert found.standard_error == pytest.approx(np.sqrt(2 * (200 / 199) / 200), rel=1e-6)


def test_a_frame_with_a_report_has_a_row_and_html() -> None:
    report = analyze(FRAME, unit="u id", variant='a"rm', control="x", metrics=["m"])
    assert list(report.to_pandas().metric) == ["m"]
    assert "<table>" in report._repr_html_()


def test_what_is_no_table_is_named() -> None:
    with pytest.raises(DataError, match="cannot read a list as a table"):
        difference([1, 2])


def test_only_the_named_file_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "m=1"
    folder.mkdir()
    for name, shift in (("b[1].csv", 0.0), ("b1.csv", 50.0), ("s*.csv", 0.0), ("s2.csv", 50.0)):
        FRAME.assign(m=FRAME.m + shift * (FRAME['a"rm'] == "y")).to_csv(folder / name, index=False)
    for name in ("b[1].csv", "s*.csv"):
        assert difference(folder / name) == pytest.approx(difference(FRAME), rel=1e-9)
