"""Plain sums of large tables say what the careful way says, or leave it to that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import abkit
from abkit.errors import DataError
from abkit.store import table as tables
from abkit.store.cells import Key, read_cells
from abkit.store.repeats import repeated_units
from abkit.store.sums import read_sums

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

N = 4_000
COLUMNS = ("converted", "flag", "spend", "before")
FAMILIES: Any = [("converted", "before"), ("flag", "before"), ("spend", "before")]
ASKED: Any = {"variant": "arm", "epoch": None, "segments": (), "families": FAMILIES}


def units(**columns: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    before = rng.lognormal(0, 1, N)
    return {
        "user": np.arange(N),
        "arm": np.where(rng.random(N) < 0.3, "new", "old"),
        "converted": rng.random(N) < 0.1,
        "flag": (rng.random(N) < 0.1).astype(float),
        "spend": before + rng.lognormal(0, 1.5, N),
        "before": before,
        "place": np.where(rng.random(N) < 0.5, "here", "there"),
    } | columns


@pytest.fixture
def connection() -> Any:
    with duckdb.connect() as opened:
        yield opened


def loaded(connection: Any, columns: Mapping[str, Any]) -> Any:
    connection.register("given", pa.table(dict(columns)))
    connection.execute("CREATE TEMP TABLE data AS FROM given")
    return connection


def careful(connection: Any, **options: Any) -> Any:
    parts = dict.fromkeys(COLUMNS, "metric")
    return read_cells(connection, **ASKED | options, missing="error", caps={}, parts=parts)


def assert_alike(found: Any, expected: Any) -> None:
    assert found is not None
    assert found[0].keys() == expected[0].keys()
    for family, cells in expected[0].items():
        assert list(found[0][family]) == list(cells)
        for key, cell in cells.items():
            other = found[0][family][key]
            assert (other.names, other.n) == (cell.names, cell.n)
            assert other.means == pytest.approx(cell.means, rel=1e-12)
            scale = np.sqrt(np.diag(cell.products))
            gap = np.array(other.products) - np.array(cell.products)
            assert np.all(np.abs(gap) <= 1e-9 * np.outer(scale, scale))
    for name, fact in expected[1].items():
        assert found[1][name].binary == fact.binary
        assert found[1][name].missing == fact.missing
        assert found[1][name].infinite == 0


def test_sums_agree_with_the_careful_way(connection: Any) -> None:
    loaded(connection, units())
    assert_alike(read_sums(connection, **ASKED), careful(connection))


def test_sums_agree_by_epoch_and_segment(connection: Any) -> None:
    loaded(connection, units(day=np.arange(N) // 2_000))
    asked = {"epoch": "day", "segments": ("place",)}
    found = read_sums(connection, **ASKED | asked)
    assert_alike(found, careful(connection, **asked))
    assert found is not None
    assert Key("old", "1", "place", "here") in found[0][FAMILIES[0]]


def test_a_mean_of_1_7e9_is_summed_again_around_it(connection: Any) -> None:
    rng = np.random.default_rng(1)
    loaded(connection, units(spend=1.7e9 + rng.standard_normal(N)))
    assert_alike(read_sums(connection, **ASKED), careful(connection))


def test_what_no_shift_helps_is_left_to_the_careful_way(connection: Any) -> None:
    rng = np.random.default_rng(1)
    columns = units()
    apart = np.where(columns["arm"] == "new", 1e10, -1e10)
    loaded(connection, columns | {"spend": apart + rng.standard_normal(N)})
    assert read_sums(connection, **ASKED) is None


@pytest.mark.parametrize("value", [None, np.nan, np.inf, -np.inf, 1e200])
def test_values_that_have_no_sum_are_left_to_the_careful_way(connection: Any, value: Any) -> None:
    columns = units()
    spend = columns["spend"].tolist()
    loaded(connection, columns | {"spend": [*spend[:-1], value]})
    assert read_sums(connection, **ASKED) is None


@pytest.mark.parametrize("odd", [(0.5, 0.5), (-1.0, 1.0), (2.0,), ((1 + 3**0.5) / 2, 0.5, 0.5)])
def test_a_column_is_binary_only_if_all_values_are(connection: Any, odd: tuple[float, ...]) -> None:
    # The last has values whose squares have the same sum as they have themselves.
    flag = units()["flag"]
    flag[-len(odd) :] = odd
    loaded(connection, units(flag=flag))
    found = read_sums(connection, **ASKED)
    assert found is not None
    assert not found[1]["flag"].binary
    assert found[1]["converted"].binary
    assert read_sums(connection, **ASKED, binary=["flag"]) is None


def test_too_many_epochs_are_refused(connection: Any) -> None:
    loaded(connection, units())
    with pytest.raises(DataError, match="'user' has 4,000 values"):
        read_sums(connection, **ASKED | {"epoch": "user"})


@pytest.mark.parametrize("kind", ["int64", "text", "double"])
def test_units_in_several_rows_are_counted(
    connection: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    columns = units()
    user, arm = columns["user"].copy(), columns["arm"].copy()
    user[1:3] = 0  # three rows
    user[10] = 11
    arm[:3], arm[10], arm[11] = "old", "old", "new"
    made = {"int64": user, "text": np.char.add("user-", user.astype(str)), "double": user * 0.5}
    loaded(connection, columns | {"user": made[kind], "arm": arm})
    assert repeated_units(connection, "user", "arm", N) == (2, 1)
    monkeypatch.setattr("abkit.store.repeats._AT_ONCE", 1_000)
    assert repeated_units(connection, "user", "arm", N) == (2, 1)


def test_a_row_without_unit_is_refused(connection: Any) -> None:
    user = [None, *range(1, N)]
    loaded(connection, units(user=user, arm=["old"] * N))
    with pytest.raises(DataError, match="'user' is empty in 1 row of variant 'old'"):
        repeated_units(connection, "user", "arm", N)


def analyzed(path: Path) -> Any:
    return abkit.analyze(
        path,
        unit="user",
        variant="arm",
        control="old",
        metrics=["converted", "flag", "spend"],
        covariates=["before"],
        segments=["place"],
    )


def test_a_large_parquet_file_gives_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "units.parquet"
    pq.write_table(pa.table(units()), path)
    slow = analyzed(path)
    monkeypatch.setattr(tables, "SUMMED_FROM", 0)
    monkeypatch.setattr(tables, "read_cells", None)  # it is not asked
    fast = analyzed(path)
    assert fast.checks == slow.checks
    for one, other in zip(fast.results, slow.results, strict=True):
        assert one.kind == other.kind
        assert one.estimate.difference == pytest.approx(other.estimate.difference, rel=1e-9)
        ends = (other.estimate.interval.lower, other.estimate.interval.upper)
        assert one.estimate.interval.lower == pytest.approx(ends[0], rel=1e-9)
        assert one.estimate.interval.upper == pytest.approx(ends[1], rel=1e-9)


def test_a_proportion_with_another_value_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SUMMED_FROM", 0)
    path = tmp_path / "units.parquet"
    flag = units()["flag"]
    flag[0] = 0.25
    pq.write_table(pa.table(units(flag=flag)), path)
    asked: Any = {"unit": "user", "variant": "arm", "control": "old"}
    with pytest.raises(DataError, match=r"holds 0\.25"):
        abkit.analyze(path, **asked, metrics={"flag": "proportion"})


def test_a_parquet_file_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "units.parquet"
    pq.write_table(pa.table(units()), path, compression="snappy", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:3_000] = bytes(2_996)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read '.*units\.parquet'"):
        analyzed(path)
