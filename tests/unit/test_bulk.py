"""Many units at once: every kind of input, what is refused, and in which order."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abkit.bulk import assign_many, codes, experiment_of
from abkit.client import Client
from abkit.compiler import compile_experiment
from abkit.errors import ConfigError, DataError, UnknownExperimentError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range
from abkit.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UNITS = ["user-1", "user-2", "user-3", "qa", "user-2", "", "quote'", "nul\0", "é東"]
TWO = Experiment.create(
    "ranker", {"old": 0.5, "new": 0.5}, salt="s", rollout=0.8, overrides={"qa": "new"}
)
LAYER = Layer(key="page", salt="l", ranges=(Range(0, 3 << 50, "full"),))
HOLDOUT = Holdout(key="nobody", salt="h", share=0.1)
FULL = Experiment.create(
    "full",
    {"old": 0.4, "new": 0.3, "newer": 0.3},
    salt="s",
    rollout=0.7,
    overrides={"user-7": "newer"},
    layer="page",
    holdouts=("nobody",),
    targeting={"attribute": "country", "in": ["DE", "FR"]},
)
ROWS = 200_000


@pytest.fixture(autouse=True, params=["stages", "closure"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few units are not worth starting DuckDB; here both ways are taken."""
    monkeypatch.setattr(codes, "FEW", -1 if request.param == "stages" else 10**9)


def variants(units: list[Any], experiment: Experiment = TWO) -> list[str]:
    return [item.variant for item in map(compile_experiment(experiment), units)]


def reasons(units: list[Any], experiment: Experiment = TWO) -> list[str]:
    return [item.reason for item in map(compile_experiment(experiment), units)]


# Columns


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda units: (unit for unit in units)])
def test_a_list_or_iterator_gives_a_list(kind: Callable[[list[str]], Any]) -> None:
    assert assign_many(TWO, kind(UNITS)) == variants(UNITS)
    assert assign_many(TWO, kind([])) == []


def test_a_pandas_series_gives_categories_on_its_index() -> None:
    index = pd.Index(["b", "a", *range(len(UNITS) - 2)], name="row")
    found = assign_many(TWO, pd.Series(UNITS, index=index))
    assert found.index is index
    assert found.name == "variant"
    assert list(found.cat.categories) == ["old", "new"]
    assert found.tolist() == variants(UNITS)


def test_a_pandas_index_gives_a_series_by_unit() -> None:
    found = assign_many(TWO, pd.Index(UNITS))
    assert found.index.tolist() == UNITS
    assert found.tolist() == variants(UNITS)


@pytest.mark.parametrize(
    "series",
    [
        pd.Series([5, 7, None], dtype="Int64"),
        pd.Series(["5", "7", None], dtype="category"),
        pd.Series([5, 7, None], dtype=object),
        pd.Series([5, "7", float("nan")], dtype=object),
        pd.Series(["5", "7", None], dtype="string"),
        pd.Series([5, 7, None], dtype=pd.ArrowDtype(pa.int32())),
        pd.Categorical([5, 7, None]),
    ],
    ids=lambda series: str(series.dtype),
)
def test_whole_numbers_are_their_decimal_text_and_what_is_missing_is_no_unit(series: Any) -> None:
    found = assign_many(TWO, pd.DataFrame({"unit_id": series}))
    assert found["variant"].tolist() == variants(["5", "7", None])
    assert found["reason"].tolist()[2] == "invalid_unit"


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "uint64", "U", "O"])
def test_a_numpy_array_gives_an_array(kind: str) -> None:
    found = assign_many(TWO, np.arange(20).astype(kind))
    assert isinstance(found, np.ndarray)
    assert found.tolist() == variants(list(range(20)))


@pytest.mark.parametrize(
    "array",
    [
        pa.array([*UNITS, None]),
        pa.array([*UNITS, None], pa.string_view()),
        pa.chunked_array([UNITS[:4], [*UNITS[4:], None]]),
        pa.array([*UNITS, None]).dictionary_encode(),
    ],
    ids=["string", "view", "chunked", "dictionary"],
)
def test_an_arrow_array_gives_a_dictionary_array(array: Any) -> None:
    found = assign_many(TWO, array)
    assert isinstance(found, pa.DictionaryArray)
    assert found.to_pylist() == variants([*UNITS, None])


def test_an_arrow_array_without_values_holds_no_unit() -> None:
    assert assign_many(TWO, pa.nulls(2)).to_pylist() == ["old", "old"]


@pytest.mark.parametrize("kind", ["String", "Categorical", "Object", "Int64", "Int128"])
def test_a_polars_series_gives_a_series_of_categories(kind: str) -> None:
    polars = pytest.importorskip("polars")
    units = list(range(9)) if kind.startswith("Int") else UNITS
    found = assign_many(TWO, polars.Series(units, dtype=getattr(polars, kind)))
    assert isinstance(found, polars.Series)
    assert found.name == "variant"
    assert found.to_list() == variants(units)


# Frames

COUNTRIES = ["DE", "FR", None, "US", "DE", "DE", "FR", "FR", "DE"]
TABLE = pa.table({"x": list(range(len(UNITS))), "unit_id": UNITS, "country": COUNTRIES})


def frames() -> list[Any]:
    return list(_frames())


def _frames() -> Iterator[Any]:
    yield pytest.param(lambda: TABLE, lambda found: found, id="arrow table")
    yield pytest.param(
        lambda: TABLE.to_batches()[0], lambda found: pa.Table.from_batches([found]), id="batch"
    )
    yield pytest.param(
        TABLE.to_pandas,
        lambda found: pa.Table.from_pandas(found, preserve_index=False),
        id="pandas",
    )
    yield pytest.param(
        lambda: pytest.importorskip("polars").from_arrow(TABLE),
        lambda found: found.to_arrow(),
        id="polars",
    )
    yield pytest.param(
        lambda: pytest.importorskip("polars").from_arrow(TABLE).lazy(),
        lambda found: found.collect().to_arrow(),
        id="polars lazy",
    )
    yield pytest.param(
        lambda: duckdb.connect().from_arrow(TABLE),
        lambda found: found.to_arrow_table(),
        id="duckdb",
    )


@pytest.mark.parametrize("experiment", [TWO, FULL, FULL.kill()], ids=["two", "full", "killed"])
@pytest.mark.parametrize(("made", "read"), frames())
def test_a_frame_comes_back_as_its_kind_with_the_columns_appended(
    made: Callable[[], Any], read: Callable[[Any], Any], experiment: Experiment
) -> None:
    frame = made()
    found = assign_many(experiment, frame, layers=[LAYER], holdouts=[HOLDOUT], detail=True)
    assert type(found) is type(frame)
    table = read(found)
    added = ["variant", "reason", "in_experiment", "bucket", "epoch"]
    assert table.column_names == [*TABLE.column_names, *added]
    assert table.select(TABLE.column_names).to_pylist() == TABLE.to_pylist()
    assign = compile_experiment(experiment, layers={"page": LAYER}, holdouts={"nobody": HOLDOUT})
    expected = [
        assign(unit, {"country": country}) for unit, country in zip(UNITS, COUNTRIES, strict=True)
    ]
    assert table.select(added).to_pylist() == [
        {name: getattr(item, name) for name in added} for item in expected
    ]


@pytest.mark.parametrize(("made", "read"), frames())
def test_a_frame_without_rows_stays_without(
    made: Callable[[], Any], read: Callable[[Any], Any]
) -> None:
    frame = made()
    empty = frame.limit(0) if isinstance(frame, duckdb.DuckDBPyRelation) else frame[:0]
    assert read(assign_many(TWO, empty)).num_rows == 0


def test_the_bucket_and_the_epoch_are_added_on_request_only() -> None:
    found = assign_many(TWO, TABLE)
    assert found.column_names[-3:] == ["variant", "reason", "in_experiment"]


def test_a_frame_keeps_its_index_and_its_class() -> None:
    class Frame(pd.DataFrame):
        @property
        def _constructor(self) -> type[Frame]:
            return Frame

    frame = Frame({"who": UNITS}, index=[3, 1, 1, 0, 9, 9, 9, 2, 2])
    found = assign_many(TWO, frame, unit="who")
    assert isinstance(found, Frame)
    assert found.index.tolist() == frame.index.tolist()
    assert found["variant"].tolist() == variants(UNITS)
    assert list(frame.columns) == ["who"], "the frame that was given is not changed"


@pytest.mark.parametrize("name", ["variant", "reason", "in_experiment", "bucket", "epoch"])
@pytest.mark.parametrize(("made", "read"), frames())
def test_a_column_that_is_there_already_is_an_error_that_names_it(
    made: Callable[[], Any], read: Callable[[Any], Any], name: str
) -> None:
    frame = made()
    if isinstance(frame, duckdb.DuckDBPyRelation):
        frame = frame.select(f'x AS "{name.upper()}", unit_id')  # the same to DuckDB
    elif isinstance(frame, (pa.Table, pa.RecordBatch)):
        frame = frame.append_column(name, pa.nulls(len(UNITS)))
    elif isinstance(frame, pd.DataFrame):
        frame[name] = 1
    else:
        frame = frame.with_columns(frame.lazy().collect()["x"].alias(name))
    with pytest.raises(DataError, match=rf"(?i)there is a column '{name}' already"):
        assign_many(TWO, frame, detail=True)


@pytest.mark.parametrize(("made", "read"), frames())
def test_a_missing_column_is_an_error_that_names_the_nearest(
    made: Callable[[], Any], read: Callable[[Any], Any]
) -> None:
    with pytest.raises(DataError, match="no column 'unit' for the unit; did you mean 'unit_id'"):
        assign_many(TWO, made(), unit="unit")
    with pytest.raises(DataError, match="no column 'countrie' for an attribute; did you mean"):
        assign_many(TWO, made(), attributes=["countrie"])


def test_two_columns_of_one_name_are_an_error() -> None:
    frame = pd.DataFrame([["a", "b"]], columns=["unit_id", "unit_id"])
    with pytest.raises(DataError, match="more than one column 'unit_id'"):
        assign_many(TWO, frame)


# Targeting


def test_targeting_sees_the_columns_that_it_may() -> None:
    options: dict[str, Any] = {"layers": [LAYER], "holdouts": [HOLDOUT]}
    seen = assign_many(FULL, TABLE, **options).column("reason").to_pylist()
    named = assign_many(FULL, TABLE, attributes="country", **options).column("reason").to_pylist()
    unseen = assign_many(FULL, TABLE, attributes=False, **options).column("reason").to_pylist()
    assert seen == named
    assert set(seen) >= {"split", "targeting"}
    assert set(unseen) <= {"invalid_unit", "holdout", "layer", "targeting"}


def test_a_list_has_no_attributes() -> None:
    item = Experiment.create(
        "x", {"a": 0.0, "b": 1.0}, salt="s", targeting={"not": {"attribute": "bot", "is": True}}
    )
    assert assign_many(item, ["user-1"]) == ["b"]


# What is no unit


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, float("nan")]),
        pd.Series([1.5, None], dtype="Float64"),
        pd.Series([True, False]),
        pd.Series(pd.to_datetime(["2026-01-01"])),
        pd.Series([1.5], dtype="category"),
        np.array([1.0]),
        np.array([True]),
        np.array([b"a"]),
        pa.array([1.0]),
        pa.array([b"a"]),
        pa.array([[1]]),
    ],
    ids=lambda column: str(getattr(column, "dtype", None) or column.type),
)
def test_a_column_whose_type_can_hold_no_unit_is_refused_with_the_way_out(column: Any) -> None:
    with pytest.raises(DataError, match="a unit is text or a whole number; cast it first: "):
        assign_many(TWO, column)


def test_a_polars_column_of_floats_is_refused_also_when_lazy() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"unit_id": [1.0]})
    for given in (frame, frame.lazy(), frame["unit_id"]):
        with pytest.raises(DataError, match=r"holds Float64, .*cast\(pl.Int64\)"):
            assign_many(TWO, given)


@pytest.mark.parametrize("kind", ["DOUBLE", "DECIMAL(9,0)", "BOOLEAN", "DATE", "BLOB", "UUID"])
def test_a_relation_whose_unit_can_be_none_is_refused(kind: str) -> None:
    relation = duckdb.connect().sql(f"SELECT NULL::{kind} AS unit_id")
    with pytest.raises(DataError, match=r"SELECT CAST\(\.\.\. AS VARCHAR\)"):
        assign_many(TWO, relation)


@pytest.mark.parametrize("units", [7, None, b"abc", {"a": 1}, np.zeros((2, 2), int), object()])
def test_what_is_no_collection_of_units_is_refused(units: Any) -> None:
    with pytest.raises(DataError):
        assign_many(TWO, units)


def test_a_list_of_floats_is_judged_one_by_one() -> None:
    """A list has no type that a cast could mend."""
    assert assign_many(TWO, [1.0, 2.0]) == ["old", "old"]


def test_detail_needs_a_frame() -> None:
    with pytest.raises(ConfigError, match="detail adds columns, so it needs a frame"):
        assign_many(TWO, ["a"], detail=True)


# Relations and files


def test_a_relation_stays_lazy_and_on_its_connection() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE users (unit_id HUGEINT, country VARCHAR)")
    connection.execute("CREATE TABLE ages AS SELECT 5::HUGEINT AS unit_id, 30 AS age")
    for item in (TWO, FULL):
        found = assign_many(
            item, connection.table("users"), layers=[LAYER], holdouts=[HOLDOUT], detail=True
        )
        connection.execute("INSERT INTO users VALUES (5, 'DE')")
        assert found.fetchall(), "the row came later"
        assert "HUGEINT" in map(str, found.types)
        assert found.join(connection.table("ages"), "unit_id").fetchall()
        connection.execute("DELETE FROM users")


@pytest.mark.parametrize("hash_name", ["growthbook-v2", "abkit-v1"])
def test_a_relation_that_needs_python_is_read_at_once_and_keeps_types_and_connection(
    hash_name: str,
) -> None:
    item = Experiment(
        key="x",
        salt="s",
        control="a",
        ranges=(Range(0, 1 << 51, "a"), Range(1 << 51, 1 << 52, "b")),
        hash=hash_name,
        targeting=Experiment.create(
            "y", {"a": 1.0}, targeting={"attribute": "app", "version_at_least": "2.10"}
        ).targeting,
    )
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE users AS SELECT i::HUGEINT AS unit_id, '2.' || i AS app, uuid() AS id, "
        "'x'::ENUM('x', 'y') AS kind FROM range(20) rows(i)"
    )
    users = connection.table("users")
    found = assign_many(item, users)
    assert found.types[:4] == users.types
    rows = found.order("unit_id").fetchall()
    assign = compile_experiment(item)
    expected = [assign(i, {"app": f"2.{i}"}) for i in range(20)]
    assert [row[4:] for row in rows] == [(a.variant, a.reason, a.in_experiment) for a in expected]
    assert {"split", "targeting"} == {row[5] for row in rows}
    assert len(found.join(users.set_alias("u"), "unit_id").fetchall()) == 20
    assert (
        connection.sql("FROM duckdb_views() SELECT view_name WHERE NOT internal").fetchall() == []
    )


def test_a_relation_with_a_collation_is_compared_byte_by_byte() -> None:
    connection = duckdb.connect(config={"default_collation": "nocase"})
    connection.execute("CREATE TABLE users (unit_id VARCHAR COLLATE NOCASE)")
    connection.execute("INSERT INTO users VALUES ('QA'), ('qa')")
    found = assign_many(TWO, connection.table("users"))
    assert [row[2] == "override" for row in found.fetchall()] == [False, True]


def test_a_relation_may_have_columns_with_our_working_names() -> None:
    relation = duckdb.connect().sql(
        "SELECT 'user-1' AS unit_id, 1 AS abkit_text, 2 AS ABKIT_CODE, 3 AS \"old\""
    )
    found = assign_many(TWO, relation)
    assert found.columns[:4] == ["unit_id", "abkit_text", "ABKIT_CODE", "old"]
    assert found.fetchall()[0][4] == variants(["user-1"])[0]


def test_a_csv_file_is_read_with_its_units_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "users[1]*.csv"
    file.write_text("unit_id,x\n007,1\n8,2\n,3\n", "utf-8")
    (tmp_path / "users1x.csv").write_text("unit_id,x\nother,1\n", "utf-8")
    found = assign_many(TWO, file).fetchall()
    assert [row[:3] for row in found] == [
        (unit, x, variant)
        for unit, x, variant in zip(
            ["007", "8", None], [1, 2, 3], variants(["007", "8", None]), strict=True
        )
    ]


def test_a_parquet_file_is_read_lazily(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "users.parquet")
    found = assign_many(TWO, str(tmp_path / "users.parquet"))
    assert isinstance(found, duckdb.DuckDBPyRelation)
    assert [row[3] for row in found.fetchall()] == variants(UNITS)


def test_a_file_that_is_not_there_or_of_another_kind_is_an_error_that_says_so(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match="no file 'user-1'; units are given as a list"):
        assign_many(TWO, "user-1")
    (tmp_path / "users.xlsx").write_text("x", "utf-8")
    with pytest.raises(DataError, match=r"cannot tell what .* known are .csv"):
        assign_many(TWO, tmp_path / "users.xlsx")
    (tmp_path / "users.parquet").write_text("x", "utf-8")
    with pytest.raises(DataError, match=r"cannot read .*users.parquet"):
        assign_many(TWO, tmp_path / "users.parquet")
    (tmp_path / "users.csv").write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(DataError, match="no column 'unit_id'"):
        assign_many(TWO, tmp_path / "users.csv")


# Many rows


def test_the_order_of_many_rows_is_kept() -> None:
    """Over all of DuckDB's chunks and threads, and with duplicates."""
    units = [f"user-{i * 7919 % (ROWS // 2)}" for i in range(ROWS)]
    country = ["DE", "US", "FR"] * (ROWS // 3) + ["DE"] * (ROWS % 3)
    table = pa.table({"unit_id": units, "country": country})
    assign = compile_experiment(FULL, layers={"page": LAYER}, holdouts={"nobody": HOLDOUT})
    expected = [
        assign(unit, {"country": where}) for unit, where in zip(units, country, strict=True)
    ]
    options: dict[str, Any] = {"layers": [LAYER], "holdouts": [HOLDOUT]}
    chunks = pa.concat_tables([table[:70_001], table[70_001:70_002], table[70_002:]])
    found = assign_many(FULL, chunks, **options)
    assert found.column("variant").to_pylist() == [item.variant for item in expected]
    assert found.column("reason").to_pylist() == [item.reason for item in expected]
    relation = assign_many(FULL, duckdb.connect().from_arrow(table), **options).to_arrow_table()
    assert relation.column("unit_id").to_pylist() == units
    assert relation.column("reason").to_pylist() == [item.reason for item in expected]
    assert set(relation.column("reason").to_pylist()) == {
        "override",
        "holdout",
        "layer",
        "targeting",
        "rollout",
        "split",
    }


def test_progress_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    units = [f"user-{i}" for i in range(100)]
    monkeypatch.setattr(codes, "BATCH", 30)
    monkeypatch.setattr("abkit.bulk.columns.BATCH", 30)
    assert assign_many(TWO, units, progress=True) == variants(units)
    found = assign_many(TWO, pa.table({"unit_id": units}), progress=True, detail=True)
    assign = compile_experiment(TWO)
    assert found.column("bucket").to_pylist() == [assign(unit).bucket for unit in units]


def test_hundreds_of_variants_ranges_and_overrides_are_fine() -> None:
    shares = {f"v{i}": 1 / 400 for i in range(400)}
    overrides = {f"qa-{i}": f"v{i % 400}" for i in range(1_000)}
    item = Experiment.create("x", shares, salt="s", overrides=overrides)
    units = [f"user-{i}" for i in range(500)] + list(overrides)[::7]
    assert assign_many(item, units) == variants(units, item)
    relation = assign_many(item, duckdb.connect().from_arrow(pa.table({"unit_id": units})))
    assert [row[1] for row in relation.fetchall()] == variants(units, item)
    assert [row[2] for row in relation.fetchall()] == reasons(units, item)


def test_a_layer_of_many_ranges_and_a_condition_of_many_parts_are_fine() -> None:
    width = (1 << 52) // 2_000
    ranges = tuple(
        Range(i * width, (i + 1) * width, "x" if i % 2 else "other") for i in range(2_000)
    )
    layer = Layer(key="page", salt="l", ranges=ranges)
    tests = [{"attribute": "age", "is": i} for i in range(0, 900, 2)]
    item = Experiment.create(
        "x", {"a": 0.5, "b": 0.5}, salt="s", layer="page", targeting={"any": tests}
    )
    table = pa.table({"unit_id": [f"user-{i}" for i in range(500)], "age": list(range(500))})
    assign = compile_experiment(item, layers={"page": layer})
    expected = [assign(row["unit_id"], row).reason for row in table.to_pylist()]
    assert set(expected) == {"layer", "targeting", "split"}
    assert assign_many(item, table, layers=[layer]).column("reason").to_pylist() == expected
    relation = assign_many(item, duckdb.connect().from_arrow(table), layers=[layer])
    assert [row[3] for row in relation.fetchall()] == expected


# The experiment


def test_a_layer_or_holdout_that_is_not_given_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'full' is in layer 'page', which is not there"):
        assign_many(FULL, ["a"])
    with pytest.raises(ConfigError, match="names the holdout 'nobody', which is not there"):
        assign_many(FULL, ["a"], layers=[LAYER])
    with pytest.raises(ConfigError, match="takes an Experiment, got str; by key, ask a client"):
        assign_many("ranker", ["a"])  # type: ignore[arg-type]


def test_a_snapshot_knows_its_experiments_and_holdouts() -> None:
    snapshot = Snapshot.of(
        [TWO, FULL], layers=[LAYER], holdouts=[HOLDOUT], version=1, published=0.0
    )
    with pytest.raises(
        UnknownExperimentError, match="no experiment 'ranked'; did you mean 'ranker"
    ):
        experiment_of(snapshot, "ranked")
    with pytest.raises(UnknownExperimentError, match="there are: 'ranker', 'full', 'nobody'"):
        experiment_of(snapshot, "zzz")
    with pytest.raises(UnknownExperimentError, match="no snapshot has been read yet"):
        experiment_of(None, "ranker")
    bound = experiment_of(snapshot, "full")
    assert assign_many(bound, ["user-7"]) == ["newer"]
    with pytest.raises(ConfigError, match="come with the snapshot already"):
        assign_many(bound, ["user-7"], layers=[LAYER])


def test_a_client_assigns_many_as_it_assigns_one() -> None:
    ab = Client.from_experiments([TWO, FULL], layers=[LAYER], holdouts=[HOLDOUT])
    for key in ("ranker", "full", "nobody"):
        found = ab.assign_many(key, TABLE, detail=True)
        for row in found.to_pylist():
            one = ab.assign(key, row["unit_id"], {"country": row["country"]})
            assert (row["variant"], row["reason"], row["bucket"]) == (
                one.variant,
                one.reason,
                one.bucket,
            )
    with pytest.raises(UnknownExperimentError):
        ab.assign_many("zzz", UNITS)


@pytest.mark.parametrize("missing", ["duckdb", "numpy", "pyarrow"])
def test_without_the_extra_the_error_says_how_to_get_it(missing: str) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
from abkit.errors import MissingExtraError
try:
    import abkit.bulk
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    said = done.stdout.decode().strip()
    assert said.startswith("abkit.assign_many needs "), done.stderr.decode()
    assert said.endswith("pip install 'abkit-rollouts[analysis]'")


def test_what_is_tested_as_text_is_read_as_text_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "units.csv"
    file.write_text("unit_id,app,zip\n1,2.10,01234\n2,2.9,1234\n")
    targeting = {
        "any": [
            {"attribute": "app", "version_at_least": "2.10"},
            {"attribute": "zip", "is": "01234"},
        ]
    }
    experiment = Experiment.create("x", {"a": 1.0}, salt="s", targeting=targeting)
    rows = assign_many(experiment, file).order("unit_id").fetchall()
    assert [row[-2] for row in rows] == ["split", "targeting"]
