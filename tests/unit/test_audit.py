"""The audit's query, in DuckDB and as text; tests/conformance runs it on other engines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abkit import __version__
from abkit.audit import DIALECTS, audit_sql
from abkit.audit.dialects import dialect_of
from abkit.bucketing import SPACE
from abkit.compiler import compile_experiment
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
TWO = {"old": 0.5, "new": 0.5}


def two(**changes: Any) -> Experiment:
    return Experiment.create("test", TWO, **{"salt": "salt"} | changes)


def run(
    experiment: Experiment, units: list[Any], kind: str = "varchar", **named: Any
) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute(f"create table units (unit_id {kind})")
        connection.executemany("insert into units values (?)", [[unit] for unit in units])
        return connection.execute(audit_sql(experiment, "duckdb", **named)).fetchall()


def targeted(
    condition: dict[str, Any], kind: str, values: list[Any], targeting: Any = "sql"
) -> list[str]:
    """Reason per value of a column `x` of this type."""
    sql = audit_sql(two(targeting=condition), "duckdb", targeting=targeting)
    with duckdb.connect() as connection:
        connection.execute(f"create table units (unit_id varchar, x {kind})")
        rows = [[str(i), value] for i, value in enumerate(values)]
        connection.executemany("insert into units values (?, ?)", rows)
        return [row[2] for row in connection.execute(sql).fetchall()]


def test_a_unit_gets_the_bucket_of_the_golden_vector() -> None:
    assert run(two(), ["user-1"]) == [("user-1", "new", "split", 3_118_532_721_041_239)]


def test_what_is_no_unit_is_invalid_and_gets_control() -> None:
    long = "é" * 16_385
    rows = run(two(overrides={long: "new"}), [None, "", long, long[1:]])
    assert [row[1:3] for row in rows[:3]] == [("old", "invalid_unit")] * 3
    assert [row[3] for row in rows[:3]] == [None] * 3
    assert rows[3][2] == "split"


def test_whole_numbers_are_hashed_in_decimal() -> None:
    assert [row[1:] for row in run(two(), [-7, 12_345_678_901], "bigint")] == [
        row[1:] for row in run(two(), ["-7", "12345678901"])
    ]


@pytest.mark.parametrize("state", ["killed", "draft"])
def test_an_experiment_that_does_not_run_gives_control_without_a_hash(state: Any) -> None:
    off = Experiment(
        key="off",
        salt="salt",
        control="old",
        ranges=(Range(0, SPACE, "new"),),
        state=state,
        overrides={"a": "new"},
        targeting=two(targeting={"attribute": "app", "version_is": "1.0"}).targeting,
    )
    assert run(off, ["a", "b", ""]) == [
        ("a", "old", state, None),
        ("b", "old", state, None),
        ("", "old", "invalid_unit", None),
    ]


def test_the_first_of_override_holdout_layer_targeting_and_rollout_decides() -> None:
    changes: dict[str, Any] = {"rollout": 0.0}
    around: dict[str, Any] = {}

    def reason() -> str:
        return str(run(two(**changes), ["a"], **around)[0][2])

    assert reason() == "rollout"
    changes["targeting"] = {"any": []}
    assert reason() == "targeting"
    changes["layer"], around["layers"] = "page", [Layer(key="page", salt="p")]
    assert reason() == "layer"
    changes["holdouts"] = ("held",)
    around["holdouts"] = iter([Holdout(key="held", salt="h", share=1)])
    assert reason() == "holdout"
    changes["overrides"] = {"a": "new"}
    around["holdouts"] = [Holdout(key="held", salt="h", share=1)]
    assert run(two(**changes), ["a"], **around) == [("a", "new", "override", None)]


def test_a_bucket_that_belongs_to_nobody_is_outside() -> None:
    bucket = 3_118_532_721_041_239
    ranges = (Range(0, bucket, "new"), Range(bucket + 1, SPACE, "new"))
    gap = Experiment(key="test", salt="salt", control="old", ranges=ranges)
    assert run(gap, ["user-1"]) == [("user-1", "old", "rollout", bucket)]


@settings(max_examples=20)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=20, unique=True
    ),
    st.floats(0, 1),
)
def test_any_text_is_assigned_and_overridden_as_abkit_does(units: list[str], share: float) -> None:
    overrides = {unit: "new" for unit in units[::3] if unit}
    experiment = two(rollout=share, overrides=overrides)
    assign = compile_experiment(experiment)
    wanted = [(a.unit_id, a.variant, a.reason, a.bucket) for a in map(assign, units)]
    assert run(experiment, units) == wanted


NUMBERS = [None, float("nan"), float("inf"), 18.0, 17.9]


@pytest.mark.parametrize(
    ("condition", "kind", "values", "met"),
    [
        ({"attribute": "x", "is": "DE"}, "varchar", [None, "DE", "de", "DE "], "0100"),
        ({"not": {"attribute": "x", "is": "DE"}}, "varchar", [None, "DE", "de"], "101"),
        ({"attribute": "x", "in": ["'", "\\", "%"]}, "varchar", ["'", "\\", "%", "_"], "1110"),
        ({"attribute": "x", "in": []}, "varchar", [None, ""], "00"),
        ({"attribute": "x", "contains": "%"}, "varchar", [None, "a%b", "ab"], "010"),
        ({"attribute": "x", "contains": ""}, "varchar", [None, "", "a"], "011"),
        ({"attribute": "x", "starts_with": "é"}, "varchar", ["éa", "e\u0301a", "é"], "101"),
        ({"attribute": "x", "ends_with": "_"}, "varchar", ["a_", "ab", "_"], "101"),
        ({"attribute": "x", "at_least": 18}, "double", NUMBERS, "00110"),
        ({"attribute": "x", "above": 17.9}, "double", NUMBERS, "00110"),
        ({"attribute": "x", "at_most": 17.9}, "double", NUMBERS, "00001"),
        ({"attribute": "x", "below": 18}, "double", NUMBERS, "00001"),
        ({"not": {"attribute": "x", "below": 18}}, "double", NUMBERS, "11110"),
        ({"attribute": "x", "above": 2**53 - 1}, "bigint", [2**53 - 1, 2**53, 2**53 + 1], "011"),
        ({"attribute": "x", "is": True}, "boolean", [None, True, False], "010"),
        ({"all": []}, "boolean", [None, True], "11"),
        ({"not": {"any": []}}, "boolean", [None, True], "11"),
    ],
)
def test_targeting_means_in_sql_what_it_means_in_python(
    condition: dict[str, Any], kind: str, values: list[Any], met: str
) -> None:
    assign = compile_experiment(two(targeting=condition))
    reasons = targeted(condition, kind, values)
    assert reasons == [assign("a", {"x": value}).reason for value in values]
    assert reasons == ["split" if digit == "1" else "targeting" for digit in met]


def test_a_text_test_on_a_column_of_numbers_is_refused_by_the_engine() -> None:
    with pytest.raises(duckdb.BinderException):
        targeted({"attribute": "x", "is": "1"}, "bigint", [1])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"attribute": "x", "version_at_least": "2.1"}, "versions are not audited in SQL"),
        ({"attribute": "x", "contains": 1}, "lists are not audited in SQL"),
        ({"attribute": "x", "in": [1, "1"]}, "with a number and with a text"),
        (
            {"any": [{"attribute": "x", "is": True}, {"attribute": "x", "above": 1}]},
            "with a truth value and with a number",
        ),
        ({"not": {"attribute": "x", "at_most": 2**53}}, "9007199254740992 is not exact"),
        ({"not": {"attribute": "x", "is": -1e300}}, "-1e\\+300 is not exact"),
    ],
)
def test_targeting_that_sql_cannot_tell_exactly_is_refused_or_left_out(
    condition: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"'test': targeting on 'x'.*{message}.*'ignore'"):
        audit_sql(two(targeting=condition), "duckdb")
    assert targeted(condition, "varchar", [None], "ignore") == ["split"]
    ignoring = audit_sql(two(targeting=condition), "duckdb", targeting="ignore")
    assert "-- Targeting is left out: whom it keeps out is not shown." in ignoring.splitlines()


def test_an_unknown_way_with_targeting_is_refused() -> None:
    with pytest.raises(ConfigError, match="targeting must be one of sql, ignore, got 'skip'"):
        audit_sql(two(), "duckdb", targeting="skip")  # type: ignore[arg-type]


def test_a_sticky_experiment_says_that_memory_is_not_audited() -> None:
    assert "-- Sticky, but" in audit_sql(two(sticky=True), "duckdb")
    assert "-- Sticky, but" not in audit_sql(two(), "duckdb")


def test_the_query_names_experiment_epoch_dialect_and_version_first() -> None:
    first = audit_sql(two(), "spark").splitlines()[0]
    assert first == f"-- abkit {__version__}: audit of experiment test, epoch 1, in spark."


def test_vendors_hashes_are_refused() -> None:
    theirs = Experiment(
        key="test", salt="x", control="old", ranges=(Range(0, SPACE, "old"),), hash="growthbook-v2"
    )
    message = "SQL cannot audit the vendor's hash '{}'; assign the units in Python and import"
    with pytest.raises(ConfigError, match=f"experiment 'test': {message.format('growthbook-v2')}"):
        audit_sql(theirs, "duckdb")
    page = Layer(key="page", salt="x", hash="unleash")
    with pytest.raises(ConfigError, match=f"layer 'page': {message.format('unleash')}"):
        audit_sql(two(layer="page"), "duckdb", layers=[page])


def test_a_layer_or_holdout_that_is_not_passed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"in layer 'page', .* pass layers=\[...\]"):
        audit_sql(two(layer="page"), "duckdb")
    other = Holdout(key="other", salt="x", share=0.1)
    with pytest.raises(ConfigError, match=r"in holdout 'held', .* pass holdouts=\[...\]"):
        audit_sql(two(holdouts=("held",)), "duckdb", holdouts=[other])


def test_an_unknown_dialect_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'postgresql'; did you mean 'postgres'"):
        audit_sql(two(), "postgresql")
    with pytest.raises(ConfigError, match="unknown SQL dialect None"):
        audit_sql(two(), None)  # type: ignore[arg-type]


HOSTILE = [
    "",
    'units"; drop table units; --',
    "units`",
    "units where 1=1",
    "units\n",
    "1units",
    "ünits",
    "a..b",
    "a.b.c.d.e",
    "x" * 129,
    "units\0",
    None,
    7,
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_hostile_names_are_refused(name: Any, dialect: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be named in an audit|more than 4 parts"):
        audit_sql(two(), dialect, table=name)
    with pytest.raises(ConfigError, match=r"unit column .* cannot be named in an audit"):
        audit_sql(two(), dialect, unit=name)
    if name and isinstance(name, str):
        hostile = two(targeting={"attribute": f"{name}'", "is": "x"})
        with pytest.raises(ConfigError, match=r"attribute .* cannot be named in an audit"):
            audit_sql(hostile, dialect)


@pytest.mark.parametrize(
    ("dialect", "table"),
    [
        ("duckdb", '"lake"."raw-data"."Units"'),
        ("snowflake", '"lake"."raw-data"."Units"'),
        ("bigquery", "`lake`.`raw-data`.`Units`"),
        ("mariadb", "`lake`.`raw-data`.`Units`"),
    ],
)
def test_each_part_of_a_name_is_quoted(dialect: str, table: str) -> None:
    sql = audit_sql(two(), dialect, table="lake.raw-data.Units", unit="order")
    assert f"from {table} as source\n" in sql
    assert f"source.{table[0]}order{table[0]} as unit_id" in sql


def test_columns_that_are_named_like_those_of_the_query_do_no_harm() -> None:
    names = ("unit", "reason", "split_digits", "override_variant")
    condition = {"all": [{"attribute": name, "is": "x"} for name in names]}
    experiment = two(targeting=condition, overrides={"b": "new"})
    with duckdb.connect() as connection:
        connection.execute("create schema abkit_hash; create table abkit_hash.t (unit_id int)")
        for name in names:
            connection.execute(f"alter table abkit_hash.t add column {name} varchar default 'x'")
        connection.execute("insert into abkit_hash.t (unit_id, unit) values (1, 'x'), (2, 'y')")
        sql = audit_sql(experiment, "duckdb", table="abkit_hash.t", unit="unit")
        wanted = compile_experiment(experiment)("x", dict.fromkeys(names, "x"))
        assert connection.execute(sql).fetchall() == [
            ("x", wanted.variant, "split", wanted.bucket),
            ("y", "old", "targeting", None),
        ]


@pytest.mark.parametrize(
    ("dialect", "hostile", "nul"),
    [
        ("duckdb", "decode(unhex('275c'))", "decode(unhex('00'))"),
        ("postgres", "convert_from(decode('275c', 'hex'), 'UTF8')", "null"),
        ("clickhouse", "unhex('275c')", "unhex('00')"),
        ("spark", "cast(unhex('275c') as string)", "cast(unhex('00') as string)"),
        (
            "bigquery",
            "safe_convert_bytes_to_string(from_hex('275c'))",
            "safe_convert_bytes_to_string(from_hex('00'))",
        ),
        ("snowflake", "hex_decode_string('275c')", "hex_decode_string('00')"),
        ("trino", "from_utf8(from_hex('275c'))", "from_utf8(from_hex('00'))"),
        ("mysql", "X'275c'", "X'00'"),
    ],
)
def test_a_text_that_needs_escapes_is_written_as_hex(dialect: str, hostile: str, nul: str) -> None:
    engine = dialect_of(dialect)
    assert engine.literal("'\\") == hostile
    assert engine.literal("\0") == nul
    assert engine.literal("\ud800") == "null"
    assert engine.literal("user-1@a.b") == "'user-1@a.b'"
    sql = audit_sql(two(overrides={"'\\": "new", "\0": "old"}), dialect)
    assert f"unit in ({hostile}) then 'new'" in sql
    assert f"unit in ({nul}) then 'old'" in sql


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text", ["'", "\\", "`", '"', "\n", "é", "{{x}}", "%s", ":x", ";", "?", "$1"]
)
def test_no_overridden_unit_leaves_its_literal(text: str, dialect: str) -> None:
    plain = audit_sql(two(overrides={"a": "new"}), dialect)
    hostile = audit_sql(two(overrides={text: "new"}), dialect)
    inside = dialect_of(dialect).literal(text)
    assert re.search(r"'[0-9a-f]+'", inside)
    assert hostile.replace(inside, "'a'") == plain


def test_mariadb_gets_the_query_of_mysql() -> None:
    experiment = two(rollout=0.5, targeting={"attribute": "x", "ends_with": "é"})
    sql = audit_sql(experiment, "mariadb")
    assert sql == audit_sql(experiment, "mysql")
    assert "right(`attribute_x`, 2) = X'c3a9'" in sql


def test_clickhouse_takes_malformed_text_for_no_unit() -> None:
    assert "or not isValidUTF8(unit) then 'invalid_unit'" in audit_sql(two(), "clickhouse")


def test_the_query_in_the_documents_is_what_abkit_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = PAGE.read_text()
    code, sql = (
        re.findall(rf"```{name}\n(.*?)```", page, re.DOTALL)[0] for name in ("python", "sql")
    )
    exec(compile(code, PAGE.name, "exec"), {})  # noqa: S102 - our own document
    printed = capsys.readouterr().out
    assert re.sub(r"abkit \S+:", "abkit:", sql).strip() == (
        re.sub(r"abkit \S+:", "abkit:", printed).strip()
    )
    with duckdb.connect() as connection:
        connection.execute("create table units (unit_id varchar, country varchar)")
        connection.execute("insert into units values ('O''Brien', null), ('someone', 'DE')")
        assert ("O'Brien", "new", "override", None) in connection.execute(sql).fetchall()
