"""Real engines run the audit's query over hostile units and agree with abkit in every row.

BigQuery, Snowflake and Trino cannot be had here: their queries are parsed in their dialect and,
as a weak extra check, translated to DuckDB by sqlglot and run there.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import tempfile
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pytest

from abkit.audit import audit_sql
from abkit.bucketing import SPACE
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

duckdb = pytest.importorskip("duckdb")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PER_KIND = 500
OVERRIDDEN = (
    "user-7 ",
    "USER-8",
    'O\'Brien "9"',
    "back\\slash\\10\\",
    "'; drop table units; -- 11",
    "line\n12\r\n",
    "用户13番",
    "👩🏽‍🚀 14",
    "e\u0301 15",
    "nul\0 16",
    "%17%_{}$1?:x",
    "not in the table",
)


class Row(NamedTuple):
    unit_id: str | None
    country: str | None
    plan: str | None
    age: int | None
    score: float | None
    beta: bool | None


def unit_ids(n: int) -> tuple[str, ...]:
    """The n-th unit of each kind."""
    return (
        f"user-{n}",
        f"USER-{n}",
        f"user-{n} ",
        f"user-{n}  ",
        str(n),
        f"{n:012d}",
        f"u{'1' * n}",
        str(UUID(int=(n + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)),
        f"用户{n}番",
        f"👩🏽‍🚀 {n}",
        unicodedata.normalize("NFC", f"é {n}"),
        unicodedata.normalize("NFD", f"é {n}"),
        f'O\'Brien "{n}"',
        f"back\\slash\\{n}\\",
        f"\t{n}\t",
        f"line\n{n}\r\n",
        f"%{n}%_{{}}$1?:x",
        f"'; drop table units; -- {n}",
        f"nul\0 {n}",
        f"{n}".ljust(5_000, "x"),
    )


@cache
def rows() -> tuple[Row, ...]:
    """10,000 units with attributes, and some that are none."""
    ids: list[str | None] = [unit for n in range(PER_KIND) for unit in unit_ids(n)]
    assert len(set(ids)) == 10_000
    ids += [None, "", *(c * k for c in "aé😀" for k in (16_384, 16_385))]
    countries = (None, "DE", "de", "FR", "FR ", "", "日本", "a\\b'c", "100%", "DE\0")
    plans = (
        "pro-2026",
        "free",
        "",
        None,
        "PRO-2026",
        "é-pro",
        "e\u0301-pro",
        "pro_2026",
        "\\",
        "o",
    )
    ages = (None, 17, 18, -3, 2**53, 2**53 + 1, -(2**62), 0)
    scores = (None, 0.1, 0.5, -0.0, float("nan"), float("inf"), float("-inf"), 0.1 + 0.2, 1e-300)
    return tuple(
        Row(
            unit_id,
            countries[i // 2 % len(countries)],
            plans[i // 3 % len(plans)],
            ages[i // 5 % len(ages)],
            scores[i // 7 % len(scores)],
            (None, True, False)[i % 3],
        )
        for i, unit_id in enumerate(ids)
    )


TARGETING: dict[str, Any] = {
    "any": [
        {
            "all": [
                {"attribute": "country", "in": ["DE", "日本", "a\\b'c", "DE\0", "\ud800"]},
                {"not": {"attribute": "age", "at_least": 18}},
                {"not": {"attribute": "beta", "is": False}},
            ]
        },
        {"all": [{"attribute": "score", "above": 0.1}, {"attribute": "plan", "contains": "-"}]},
        {"all": [{"attribute": "age", "above": 2**53 - 1}, {"attribute": "score", "is": 0.1}]},
        {"all": [{"attribute": "age", "below": 17.5}, {"attribute": "plan", "ends_with": "é-pro"}]},
        {"all": [{"attribute": "plan", "starts_with": "é"}, {"attribute": "beta", "is": True}]},
        {"all": [{"attribute": "score", "at_most": 0}, {"attribute": "country", "ends_with": ""}]},
        {"all": [{"attribute": "score", "at_least": 1}, {"attribute": "plan", "contains": "\\"}]},
        {"all": [{"attribute": "score", "in": [0, 0.5]}, {"attribute": "plan", "ends_with": "26"}]},
        {"attribute": "country", "is": "FR"},
        {"attribute": "country", "in": []},
        {"attribute": "plan", "starts_with": "日本日本日本"},
        {"any": []},
        {"not": {"all": []}},
        {"not": {"not": {"attribute": "plan", "is": "e\u0301-pro"}}},
    ]
}


@dataclass(frozen=True)
class Case:
    experiment: Experiment
    layers: tuple[Layer, ...] = ()
    holdouts: tuple[Holdout, ...] = ()

    def sql(self, dialect: str) -> str:
        return audit_sql(self.experiment, dialect, layers=self.layers, holdouts=self.holdouts)


def cases() -> dict[str, Case]:
    two = {"old": 0.5, "new": 0.5}
    four = {"A": 0.07, "B": 0.31, "C": 0.005, "D": 0.615}
    overrides = {unit: "ABCD"[i % 4] for i, unit in enumerate(OVERRIDDEN)}
    layer = Layer(
        key="page",
        salt="layer-salt",
        ranges=(
            Range(0, SPACE // 3, "test"),
            Range(SPACE // 3, SPACE // 2, "other"),
            Range(SPACE - SPACE // 4, SPACE, "test"),
        ),
    )
    sha_layer = Layer(key="sha", salt="l", ranges=layer.ranges, hash="sha256")
    full = Layer(key="full", salt="f", ranges=(Range(0, SPACE, "test"),))
    empty = Layer(key="empty", salt="e")
    held = tuple(
        Holdout(key=f"held-{share}", salt=f"held-{share}", share=share)
        for share in (0.1, 0.02, 0.0, 1.0)
    )
    gappy = (
        Range(5, SPACE // 5, "old"),
        Range(SPACE // 4, SPACE // 2, "new"),
        Range(SPACE // 2, SPACE - SPACE // 7, "old"),
    )
    raw: dict[str, Any] = {"key": "test", "control": "old", "salt": "S.a_l-t", "ranges": gappy}
    make = Experiment.create
    everything = Experiment(
        **raw | {"control": "A", "ranges": make("t", four).ranges[1:]},
        rollout=0.6,
        rollout_salt="gate",
        overrides=overrides,
        layer="sha",
        holdouts=("held-0.1",),
        targeting=make("t", two, targeting={"not": TARGETING}).targeting,
        hash="sha256",
        epoch=12,
    )
    return {
        "two arms": Case(make("test", two, salt="s1")),
        "one arm": Case(make("test", {"old": 1.0}, salt="s1")),
        "overrides": Case(make("test", four, salt="s2", rollout=0.3, overrides=overrides)),
        "gaps": Case(Experiment(**raw)),
        "rollout salt": Case(Experiment(**raw, rollout=0.4, rollout_salt="gate")),
        "nobody": Case(make("test", two, rollout=0.0)),
        "layer": Case(
            make("test", two, layer="page", holdouts=("held-0.1", "held-0.02", "held-0.0")),
            (layer, full),
            held,
        ),
        "ends": Case(make("test", four, layer="full"), (full,)),
        "no part": Case(make("test", four, layer="empty"), (empty,)),
        "all held out": Case(make("test", four, holdouts=("held-1.0",)), (), held),
        "killed": Case(make("test", four, overrides=overrides).kill()),
        "draft": Case(Experiment(**raw, state="draft", layer="page"), (layer,)),
        "sha256": Case(Experiment(**raw, hash="sha256", rollout=0.5, overrides={"0": "new"})),
        "targeting": Case(make("test", two, targeting=TARGETING)),
        "not targeting": Case(make("test", two, targeting={"not": TARGETING})),
        "everything": Case(everything, (sha_layer,), held),
    }


CASES = cases()


@cache
def expected(name: str) -> dict[str | None, tuple[str, str, int | None]]:
    """What abkit itself assigns to each unit."""
    case = CASES[name]
    assign = compile_experiment(
        case.experiment,
        layers={item.key: item for item in case.layers},
        holdouts={item.key: item for item in case.holdouts},
    )
    found = {}
    for row in rows():
        given = assign(row.unit_id, row._asdict())
        found[row.unit_id] = (given.variant, given.reason, given.bucket)
    return found


class Engine(NamedTuple):
    dialect: str
    run: Callable[[str], list[tuple[Any, ...]]]
    nul: bool = True


def table(*, nul: bool = True) -> Any:
    kept = [row for row in rows() if nul or "\0" not in f"{row.unit_id}{row.country}"]
    return pa.Table.from_pylist([row._asdict() for row in kept])


@contextlib.contextmanager
def duckdb_engine(folder: Path) -> Iterator[Engine]:
    with duckdb.connect() as connection:
        # A collation that must not matter.
        connection.execute(
            "create table units (unit_id varchar collate nocase, country varchar collate noaccent, "
            "plan varchar collate nocase, age bigint, score double, beta boolean)"
        )
        connection.register("given", table())
        connection.execute("insert into units select * from given")
        yield Engine("duckdb", lambda sql: connection.execute(sql).fetchall())


@contextlib.contextmanager
def clickhouse_engine(folder: Path) -> Iterator[Engine]:
    session = pytest.importorskip("chdb.session").Session()
    path, out = folder / "units.parquet", folder / "out.parquet"
    parquet.write_table(table(), path)
    session.query(
        f"create table units engine = Memory as select * from file('{path}', Parquet)"  # noqa: S608
    )

    def run(sql: str) -> list[tuple[Any, ...]]:
        out.unlink(missing_ok=True)
        session.query(f"{sql} into outfile '{out}' format Parquet")
        columns = parquet.read_table(out).to_pydict()
        return list(zip(*columns.values(), strict=True))

    yield Engine("clickhouse", run)
    session.close()


@contextlib.contextmanager
def spark_engine(folder: Path) -> Iterator[Engine]:
    pyspark = pytest.importorskip("pyspark")
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java, which is not installed")
    path = folder / "units.parquet"
    parquet.write_table(table(), path)
    settings = {
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    builder = sql.SparkSession.builder.master("local[1]").appName("abkit")
    for key, value in settings.items():
        builder = builder.config(key, value)
    own = pyspark.SparkContext._active_spark_context is None
    session = builder.getOrCreate()
    try:
        session.sparkContext.setLogLevel("ERROR")
        # Collations that must not matter.
        units = session.read.parquet(str(path)).selectExpr(
            "collate(unit_id, 'UTF8_LCASE') as unit_id",
            "collate(country, 'UNICODE_CI_AI') as country",
            "collate(plan, 'UTF8_LCASE_RTRIM') as plan",
            "age",
            "score",
            "beta",
        )
        units.createOrReplaceTempView("units")
        yield Engine("spark", lambda query: [tuple(row) for row in session.sql(query).collect()])
    finally:
        if own:
            gateway = pyspark.SparkContext._gateway
            session.stop()
            # The Java process would stay until Python ends.
            gateway.shutdown()
            gateway.proc.stdin.close()
            gateway.proc.wait(60)
            pyspark.SparkContext._gateway = pyspark.SparkContext._jvm = None


@contextlib.contextmanager
def private_folder(user: str) -> Iterator[tuple[Path, list[str]]]:
    """A folder of a server's own, and what to put before its commands: servers refuse root."""
    root = os.geteuid() == 0
    # Not below pytest's own folders, which another user cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="abkit-"))
    try:
        if root:
            shutil.chown(folder, user)
        yield folder, ["runuser", "-u", user, "--"] if root else []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def postgres_engine(folder: Path) -> Iterator[Engine]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("Postgres server is not installed")
    psycopg = pytest.importorskip("psycopg")
    control = str(Path(initdb).with_name("pg_ctl"))
    with private_folder("postgres") as (home, before):
        data = str(home / "data")
        locale = ["--locale=C.UTF-8"]
        if "--icu-locale" in run_server([initdb, "--help"]):  # since PostgreSQL 15
            # An order of text that must not matter: digits within text count as numbers.
            locale += ["--locale-provider=icu", "--icu-locale=en-u-kn-true"]
        run_server(
            [*before, initdb, "-D", data, "-U", "abkit", "-E", "UTF8", "-A", "trust", *locale]
        )
        options = f"-k {home} -c listen_addresses='' -c fsync=off -c shared_buffers=32MB"
        start = [control, "-D", data, "-w", "-o", options, "-l", f"{home}/log", "start"]
        run_server([*before, *start])
        try:
            where = f"host={home} user=abkit dbname=postgres"
            with psycopg.connect(where, autocommit=True) as connection:
                connection.execute(
                    "create collation ci "
                    "(provider=icu, locale='und-u-ks-level1', deterministic=false)"
                )
                connection.execute(
                    "create table units (unit_id text collate ci, country text collate ci, "
                    "plan text collate ci, age bigint, score float8, beta boolean)"
                )
                copy = "copy units from stdin"
                with connection.cursor() as cursor, cursor.copy(copy) as into:
                    for row in table(nul=False).to_pylist():
                        into.write_row(tuple(row.values()))
                run = lambda sql: connection.execute(sql).fetchall()  # noqa: E731
                # Its text cannot hold U+0000.
                yield Engine("postgres", run, nul=False)
        finally:
            run_server([*before, control, "-D", data, "-m", "immediate", "stop"])


@contextlib.contextmanager
def mariadb_engine(folder: Path) -> Iterator[Engine]:
    names = ("mariadbd", "mariadb-install-db", "mariadb", "mariadb-admin")
    search = f"{os.environ.get('PATH', '')}:/usr/sbin"
    paths = [shutil.which(name, path=search) for name in names]
    if None in paths:
        pytest.skip("MariaDB server is not installed")
    server, install, client, admin = map(str, paths)
    with private_folder("mysql") as (home, before):
        data, socket = home / "data", home / "socket"
        auth = "--auth-root-authentication-method=normal"
        run_server([*before, install, "--no-defaults", f"--datadir={data}", auth, "--skip-test-db"])
        options = [f"--datadir={data}", f"--socket={socket}", "--skip-networking"]
        process = subprocess.Popen(
            [*before, server, "--no-defaults", *options, f"--log-error={home}/log"], cwd="/"
        )
        to = ["--no-defaults", f"--socket={socket}", "-u", "root"]
        try:
            for _ in range(600):
                ping = subprocess.run([admin, *to, "ping"], capture_output=True, check=False)
                if ping.returncode == 0:
                    break
                time.sleep(0.1)

            def run(sql: str) -> list[tuple[Any, ...]]:
                columns = "hex(cast(unit_id as binary)), variant, reason, bucket"
                text = f"select {columns} from (\n{sql}) as q;\n"  # noqa: S608
                lines = run_server([client, *to, "-N", "-B", "abkit"], text).splitlines()
                return [read_line(line) for line in lines]

            run_server([client, *to], mariadb_table())
            yield Engine("mariadb", run)
        finally:
            subprocess.run([admin, *to, "shutdown"], capture_output=True, check=False)
            process.wait(60)


def mariadb_table() -> str:
    columns = "unit_id longtext, country text, plan text, age bigint, score double, beta boolean"
    values = ["(" + ", ".join(map(mysql_value, row)) + ")" for row in rows()]
    return "\n".join(
        [
            "create database abkit character set utf8mb4 collate utf8mb4_general_ci;",
            f"create table abkit.units ({columns});",
            *(
                f"insert into abkit.units values {','.join(values[i : i + 200])};"  # noqa: S608
                for i in range(0, len(values), 200)
            ),
        ]
    )


def mysql_value(value: object) -> str:
    if isinstance(value, str):
        return f"X'{value.encode().hex()}'"
    if isinstance(value, float) and not math.isfinite(value):
        # Its doubles are finite. To every test here, these mean the same.
        return "null" if math.isnan(value) else f"{math.copysign(1e308, value)!r}"
    return "null" if value is None else repr(value)


def read_line(line: str) -> tuple[Any, ...]:
    unit, variant, reason, bucket = line.split("\t")
    return (
        None if unit == "NULL" else bytes.fromhex(unit).decode(),
        variant,
        reason,
        None if bucket == "NULL" else int(bucket),
    )


def run_server(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd="/", timeout=300
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


ENGINES = {
    "duckdb": duckdb_engine,
    "clickhouse": clickhouse_engine,
    "spark": spark_engine,
    "postgres": postgres_engine,
    "mariadb": mariadb_engine,
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with ENGINES[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


def agree(engine: Engine, name: str, found: list[tuple[Any, ...]]) -> None:
    """Every row of the table is there once, and as abkit has it."""
    given = table(nul=engine.nul).column("unit_id").to_pylist()
    wanted = expected(name)
    assert len(found) == len(given)
    got = {unit: tuple(rest) for unit, *rest in found}
    assert got.keys() == set(given)
    assert [(unit, got[unit]) for unit in given if got[unit] != wanted[unit]] == []


@pytest.mark.parametrize("name", CASES)
def test_the_engine_assigns_every_hostile_unit_as_abkit_does(engine: Engine, name: str) -> None:
    agree(engine, name, engine.run(CASES[name].sql(engine.dialect)))


def test_whole_numbers_are_hashed_in_decimal(engine: Engine) -> None:
    experiment = Experiment.create("test", {"old": 0.5, "new": 0.5}, overrides={"-3": "new"})
    ages = table(nul=engine.nul).column("age").to_pylist()
    wanted = Counter((str(age), *expected_row(experiment, age)) for age in ages)
    found = engine.run(audit_sql(experiment, engine.dialect, unit="age"))
    assert Counter((str(unit), *rest) for unit, *rest in found) == wanted


def expected_row(experiment: Experiment, unit: object) -> tuple[str, str, int | None]:
    given = compile_experiment(experiment)(unit)
    return given.variant, given.reason, given.bucket


def test_the_cases_meet_every_reason_and_override() -> None:
    met = {reason for name in CASES for _, reason, _ in expected(name).values()}
    assert met == {
        "invalid_unit",
        "killed",
        "draft",
        "override",
        "holdout",
        "layer",
        "targeting",
        "rollout",
        "split",
    }
    for name in ("targeting", "not targeting", "everything"):
        reasons = [reason for _, reason, _ in expected(name).values()]
        assert min(reasons.count("targeting"), reasons.count("split")) > 300
    overridden = [unit for unit, row in expected("overrides").items() if row[1] == "override"]
    assert sorted(map(str, overridden)) == sorted(set(OVERRIDDEN) & {str(r[0]) for r in rows()})
    assert len(overridden) >= 8


# What DuckDB calls otherwise, and sqlglot leaves as it was.
MACROS = (
    "create macro safe_convert_bytes_to_string(x) as decode(x)",
    "create macro from_base(x, base) as cast('0x' || x as bigint)",
    "create macro hex_number(x) as cast('0x' || x as bigint)",
)
PARSED = ("bigquery", "snowflake", "trino", "mysql")


@pytest.mark.parametrize("dialect", PARSED)
@pytest.mark.parametrize("name", CASES)
def test_a_query_for_an_engine_that_is_not_here_parses_in_its_dialect(
    name: str, dialect: str
) -> None:
    sqlglot = pytest.importorskip("sqlglot")
    sqlglot.parse_one(CASES[name].sql(dialect), dialect=dialect, error_level=_strict(sqlglot))


@pytest.fixture(scope="module")
def translating() -> Iterator[Callable[[str, str], list[tuple[Any, ...]]]]:
    sqlglot = pytest.importorskip("sqlglot")

    def own(node: Any) -> Any:
        """What sqlglot would translate wrongly: numbers from hex digits, bytes from text."""
        if isinstance(node, sqlglot.exp.ToNumber):
            return sqlglot.exp.Anonymous(this="hex_number", expressions=[node.this])
        if isinstance(node, sqlglot.exp.Cast) and node.is_type("varbinary", "binary"):
            return sqlglot.exp.Anonymous(this="encode", expressions=[node.this])
        return node

    with duckdb.connect() as connection:
        connection.register("given", table())
        # NaN is above all in DuckDB and above nothing in BigQuery and Trino.
        connection.execute(
            "create table units as select * replace (case when not isnan(score) then score end "
            "as score) from given"
        )
        for macro in MACROS:
            connection.execute(macro)

        def run(sql: str, dialect: str) -> list[tuple[Any, ...]]:
            tree = sqlglot.parse_one(sql, dialect=dialect, error_level=_strict(sqlglot))
            text = tree.transform(own).sql("duckdb", unsupported_level=_strict(sqlglot))
            return connection.execute(text).fetchall()

        yield run


# MySQL's functions on bytes have no like in DuckDB; MariaDB runs the same text for real.
@pytest.mark.parametrize("dialect", ["bigquery", "snowflake", "trino"])
@pytest.mark.parametrize("name", CASES)
def test_a_translation_of_the_query_agrees_too(
    name: str, dialect: str, translating: Callable[[str, str], list[tuple[Any, ...]]]
) -> None:
    run = lambda sql: translating(sql, dialect)  # noqa: E731
    agree(Engine(dialect, run), name, run(CASES[name].sql(dialect)))


def _strict(sqlglot: Any) -> Any:
    return sqlglot.ErrorLevel.RAISE
