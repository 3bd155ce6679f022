"""One row per unit, in any table DuckDB can read -> moments by variant, in one pass."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from abkit.errors import DataError
from abkit.moments import Moments
from abkit.records import hint

try:
    import duckdb
except ImportError as error:
    from abkit.errors import MissingExtraError

    msg = "analysis needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from abkit.metrics import Kind

Missing = Literal["error", "exclude", "zero"]

_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".txt": "read_csv",
    ".gz": "read_csv",
    ".parquet": "read_parquet",
    ".pq": "read_parquet",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}
_NUMBERS = ("INT", "DECIMAL", "DOUBLE", "FLOAT", "BOOLEAN", "REAL")


@dataclass(frozen=True, slots=True)
class TableMoments:
    """What the statistics need of a table.

    Args:
        counts: rows per variant.
        kinds: kind of each metric, inferred from the values where it was not given.
        moments: by metric and variant.
        repeated_units: units that stand in more than one row.
        crossover_units: units that stand in more than one variant.
    """

    counts: Mapping[str, int]
    kinds: Mapping[str, Kind]
    moments: Mapping[str, Mapping[str, Moments]]
    repeated_units: int
    crossover_units: int


def read_table(
    source: object,
    *,
    unit: str,
    variant: str,
    metrics: Mapping[str, Kind | None],
    missing: Missing = "error",
) -> TableMoments:
    """Summarise a table by variant.

    Args:
        source: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table,
            or a DuckDB relation; one row per unit.
        unit: column of the unit.
        variant: column of the variant.
        metrics: column names of the metrics, with their kind where known.
        missing: what to do with rows without a value: raise, leave out, or count as 0.

    Raises:
        DataError: the file, a column or a value is not usable; the message names it.
    """
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        relation = _relation(connection, source)
        columns = dict(zip(relation.columns, map(str, relation.types), strict=True))
        _check_columns(columns, unit, variant, metrics)
        try:
            _register(connection, relation, [unit, variant, *metrics])
        except duckdb.Error as error:
            msg = f"cannot read {_name(source)}: {_first_line(error)}"
            raise DataError(msg) from None
        row = connection.execute("SELECT count(*) FROM data").fetchone()
        if row is None or row[0] == 0:
            msg = f"{_name(source)} has no rows"
            raise DataError(msg)
        _check_numbers(columns, metrics)
        counts = _counts(connection, unit, variant)
        repeated, crossed = _repeats(connection, unit, variant)
        stats = _metric_rows(connection, variant, list(metrics))
    kinds: dict[str, Kind] = {}
    moments: dict[str, dict[str, Moments]] = {}
    for name, wanted in metrics.items():
        rows = {label: cell for label, metric, cell in stats if metric == name}
        _check_values(name, rows, missing)
        kinds[name] = _kind(name, wanted, rows)
        moments[name] = {
            label: _moments(cell, counts[label] if missing == "zero" else None)
            for label, cell in rows.items()
        }
    return TableMoments(counts, kinds, moments, repeated, crossed)


@dataclass(frozen=True, slots=True)
class _Cell:
    n: int
    missing: int
    infinite: int
    mean: float
    m2: float
    binary: bool
    other: float | None


def _relation(connection: duckdb.DuckDBPyConnection, source: object) -> Any:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            msg = f"no file {os.fspath(path)!r}"
            raise DataError(msg)
        if path.stat().st_size == 0:
            msg = f"the file {os.fspath(path)!r} is empty"
            raise DataError(msg)
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            msg = (
                f"cannot tell what {os.fspath(path)!r} is from its ending; "
                f"known are {', '.join(_READERS)}"
            )
            raise DataError(msg)
        try:
            return connection.sql(
                f"FROM {reader}($path, hive_partitioning = false)",  # the name is one of ours
                params={"path": _literal(os.fspath(path))},
            )
        except duckdb.Error as error:
            msg = f"cannot read {os.fspath(path)!r}: {_first_line(error)}"
            raise DataError(msg) from None
    if isinstance(source, duckdb.DuckDBPyRelation):
        return connection.from_arrow(source.to_arrow_table())
    module = type(source).__module__.partition(".")[0]
    try:
        if module == "pandas":
            return connection.from_df(source)  # type: ignore[arg-type]
        return connection.from_arrow(source)
    except (duckdb.Error, TypeError, ValueError) as error:
        msg = (
            f"cannot read a {type(source).__name__} as a table "
            f"({_first_line(error)}); give a path, a pandas or polars frame, an Arrow table "
            "or a DuckDB relation"
        )
        raise DataError(msg) from None


def _register(connection: duckdb.DuckDBPyConnection, relation: Any, columns: list[str]) -> None:
    """Load the columns needed as the table `data`: the source is read once, text parsed once."""
    chosen = ", ".join(_quoted(name) for name in dict.fromkeys(columns))
    relation.create_view("source")
    connection.execute(f"CREATE TEMP TABLE data AS SELECT {chosen} FROM source")  # noqa: S608


def _check_columns(
    columns: Mapping[str, str], unit: str, variant: str, metrics: Mapping[str, Kind | None]
) -> None:
    for role, name in (("unit", unit), ("variant", variant), *(("metric", m) for m in metrics)):
        if name not in columns:
            msg = f"no column {name!r} for the {role}{hint(name, columns)}"
            raise DataError(msg)
    if not metrics:
        msg = "no metrics; name at least one column"
        raise DataError(msg)


def _check_numbers(columns: Mapping[str, str], metrics: Mapping[str, Kind | None]) -> None:
    for name in metrics:
        if not any(word in columns[name] for word in _NUMBERS):
            msg = f"metric {name!r} holds {columns[name]}, not numbers"
            raise DataError(msg)


def _counts(connection: duckdb.DuckDBPyConnection, unit: str, variant: str) -> dict[str, int]:
    column = _quoted(variant)
    rows = connection.execute(
        f"SELECT CAST({column} AS VARCHAR), count(*), count(*) - count({_quoted(unit)}) "  # noqa: S608
        "FROM data GROUP BY 1 ORDER BY 1 NULLS FIRST"
    ).fetchall()
    for label, n, without_unit in rows:
        if label is None:
            msg = f"column {variant!r} is empty in {n:,} rows; drop them or name their variant"
            raise DataError(msg)
        if without_unit:
            msg = f"column {unit!r} is empty in {without_unit:,} rows of variant {label!r}"
            raise DataError(msg)
    return {label: n for label, n, _ in rows}


def _repeats(connection: duckdb.DuckDBPyConnection, unit: str, variant: str) -> tuple[int, int]:
    row = connection.execute(
        "SELECT count(*) FILTER (n > 1), count(*) FILTER (arms > 1) FROM ("  # noqa: S608
        f"SELECT count(*) AS n, count(DISTINCT {_quoted(variant)}) AS arms "
        f"FROM data GROUP BY {_quoted(unit)} HAVING count(*) > 1)"
    ).fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def _metric_rows(
    connection: duckdb.DuckDBPyConnection, variant: str, metrics: Sequence[str]
) -> list[tuple[str, str, _Cell]]:
    parts: list[str] = []
    for name in metrics:
        x = f"CAST({_quoted(name)} AS DOUBLE)"
        usable = f"CASE WHEN isfinite({x}) THEN {x} END"
        parts += [
            f"count({usable})",
            f"count(*) FILTER ({x} IS NULL OR isnan({x}))",
            f"count(*) FILTER (isinf({x}))",
            f"coalesce(favg({usable}), 0)",
            f"coalesce(var_pop({usable}), 0) * count({usable})",
            f"coalesce(bool_and({usable} IN (0, 1)), true)",
            f"min({usable}) FILTER ({usable} NOT IN (0, 1))",
        ]
    query = (
        f"SELECT CAST({_quoted(variant)} AS VARCHAR), {', '.join(parts)} "  # noqa: S608
        "FROM data GROUP BY 1 ORDER BY 1"
    )
    width = 7
    return [
        (row[0], name, _Cell(*row[1 + width * i : 1 + width * (i + 1)]))
        for row in connection.execute(query).fetchall()
        for i, name in enumerate(metrics)
    ]


def _check_values(name: str, rows: Mapping[str, _Cell], missing: Missing) -> None:
    infinite = sum(cell.infinite for cell in rows.values())
    if infinite:
        msg = f"metric {name!r} is infinite in {infinite:,} rows; mend or drop them"
        raise DataError(msg)
    absent = {label: cell.missing for label, cell in rows.items() if cell.missing}
    if absent and missing == "error":
        listed = ", ".join(f"{label}: {n:,}" for label, n in absent.items())
        msg = (
            f"metric {name!r} is missing or NaN in {sum(absent.values()):,} rows ({listed}); "
            "drop or fill them, or say missing='exclude' or 'zero' (--missing)"
        )
        raise DataError(msg)


def _kind(name: str, wanted: Kind | None, rows: Mapping[str, _Cell]) -> Kind:
    binary = all(cell.binary for cell in rows.values())
    if wanted == "proportion" and not binary:
        value = next(cell.other for cell in rows.values() if not cell.binary)
        msg = f"metric {name!r} is a proportion but holds {value!r}; its values must be 0 or 1"
        raise DataError(msg)
    return wanted or ("proportion" if binary else "mean")


def _moments(cell: _Cell, rows: int | None) -> Moments:
    moments = Moments(cell.n, cell.mean, cell.m2)
    return moments if rows is None else moments + Moments(rows - cell.n)


def _quoted(name: str) -> str:
    """A column name as an SQL identifier; it is known to be a column of the table."""
    return '"' + name.replace('"', '""') + '"'


def _name(source: object) -> str:
    return repr(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else "the table"


def _literal(path: str) -> str:
    """A path in which DuckDB finds no pattern: only this very file is read."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
