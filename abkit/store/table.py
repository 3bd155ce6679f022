"""One row per unit, in any table DuckDB can read -> joint moments by variant, epoch and segment."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from abkit.errors import DataError
from abkit.records import hint
from abkit.store.cells import Facts, Key, read_cells
from abkit.store.sql import cast_text, first_line, quoted

try:
    import duckdb
except ImportError as error:
    from abkit.errors import MissingExtraError

    msg = "analysis needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from abkit.comoments import Comoments

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
_NUMBERS = frozenset(["boolean", "float", "double", "decimal"]).union(
    f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")
) | frozenset(["integer", "uinteger"])
_NESTED = frozenset(["struct", "map", "list", "array", "union", "variant"])


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column plays which part.

    Args:
        unit: what was randomised.
        variant: the variant it got.
        numbers: columns of metrics, of the parts of ratios, and of covariates, by part.
        epoch: allocation epoch, if the allocation changed.
        segments: what results are also broken down by.
    """

    unit: str
    variant: str
    numbers: Mapping[str, str]
    epoch: str | None = None
    segments: tuple[str, ...] = ()

    def labels(self) -> list[tuple[str, str]]:
        """Part and column of everything that is not a number."""
        found = [("unit", self.unit), ("variant", self.variant)]
        found += [("epoch", self.epoch)] if self.epoch is not None else []
        return found + [("segment", name) for name in self.segments]


@dataclass(frozen=True, slots=True)
class UnitTable:
    """A table that was loaded; made by `open_table`.

    Args:
        connection: where the table `data` is.
        columns: which column plays which part.
        counts: rows per variant.
        missing: what to do with rows without a value.
    """

    connection: duckdb.DuckDBPyConnection
    columns: Columns
    counts: Mapping[str, int]
    missing: Missing

    def epoch_counts(self) -> dict[str, dict[str, int]]:
        """Rows by epoch and variant; a single epoch without name where there is no such column."""
        if self.columns.epoch is None:
            return {"": dict(self.counts)}
        found: dict[str, dict[str, int]] = {}
        for epoch, label, n in self.connection.execute(
            f"SELECT {cast_text(self.columns.epoch)}, {cast_text(self.columns.variant)}, "  # noqa: S608
            "count(*) FROM data GROUP BY ALL ORDER BY ALL"
        ).fetchall():
            found.setdefault(epoch, {})[label] = n
        return found

    def repeats(self) -> tuple[int, int]:
        """Units that stand in more than one row, and those in more than one variant."""
        row = self.connection.execute(
            "SELECT count(*) FILTER (n > 1), count(*) FILTER (arms > 1) FROM ("  # noqa: S608
            f"SELECT count(*) AS n, count(DISTINCT {quoted(self.columns.variant)}) AS arms "
            f"FROM data GROUP BY {quoted(self.columns.unit)} HAVING count(*) > 1)"
        ).fetchone()
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def quantiles(self, wanted: Mapping[str, float], variant: str) -> dict[str, float]:
        """Quantiles of columns in one variant, each a value that was seen.

        Args:
            wanted: quantile of each column, in (0, 1).
            variant: whose values.

        Returns:
            As numpy's `inverted_cdf`; infinity where there is no value.
        """
        parts = []
        for name, level in wanted.items():
            x = f"CAST({quoted(name)} AS DOUBLE)"
            otherwise = "ELSE 0" if self.missing == "zero" else ""
            x = f"CASE WHEN isfinite({x}) THEN {x} {otherwise} END"
            parts.append(f"coalesce(quantile_disc({x}, {float(level)!r}), 'inf'::DOUBLE)")
        row = self.connection.execute(
            f"SELECT {', '.join(parts)} FROM data "  # noqa: S608
            f"WHERE {cast_text(self.columns.variant)} = ?",
            [variant],
        ).fetchone()
        return dict(zip(wanted, row or (), strict=True))

    def cells(
        self,
        families: Sequence[tuple[str, ...]],
        caps: Mapping[str, tuple[float, float]] | None = None,
    ) -> tuple[dict[tuple[str, ...], dict[Key, Comoments]], dict[str, Facts]]:
        """Joint moments of each family of columns in every cell, from one query.

        Args:
            families: columns that are needed together, of the same units.
            caps: lowest and highest value of columns that are winsorised.

        Returns:
            By family and cell the comoments, and by column what its values are like.

        Raises:
            DataError: values are missing where they must not be, infinite, or too large.
        """
        return read_cells(
            self.connection,
            variant=self.columns.variant,
            epoch=self.columns.epoch,
            segments=self.columns.segments,
            families=families,
            missing=self.missing,
            caps=caps or {},
            parts=self.columns.numbers,
        )


@contextmanager
def open_table(
    source: object, columns: Columns, *, missing: Missing = "error"
) -> Iterator[UnitTable]:
    """Load the columns that are needed: the source is read once, text is parsed once.

    Args:
        source: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table,
            or a DuckDB relation; one row per unit.
        columns: which column plays which part.
        missing: what to do with rows without a value: raise, leave out, or count as 0.

    Raises:
        DataError: the file, a column or a value is not usable; the message names it.
    """
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        relation = _relation(connection, source)
        types = {name: (kind.id, str(kind)) for name, kind in _types(relation)}
        _check_columns(types, columns)
        names = [name for _, name in columns.labels()] + list(columns.numbers)
        try:
            _register(connection, relation, names)
        except duckdb.Error as error:
            msg = f"cannot read {_name(source)}: {first_line(error)}"
            raise DataError(msg) from None
        row = connection.execute("SELECT count(*) FROM data").fetchone()
        if row is None or row[0] == 0:
            msg = f"{_name(source)} has no rows"
            raise DataError(msg)
        _check_types(types, columns)
        if columns.epoch is not None:
            _check_filled(connection, "epoch", columns.epoch)
        counts = _counts(connection, columns.unit, columns.variant)
        yield UnitTable(connection, columns, counts, missing)


def _types(relation: Any) -> list[tuple[str, Any]]:
    return list(zip(relation.columns, relation.types, strict=True))


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
            msg = f"cannot read {os.fspath(path)!r}: {first_line(error)}"
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
            f"({first_line(error)}); give a path, a pandas or polars frame, an Arrow table "
            "or a DuckDB relation"
        )
        raise DataError(msg) from None


def _register(connection: duckdb.DuckDBPyConnection, relation: Any, columns: list[str]) -> None:
    """Load the columns needed as the table `data`: the source is read once, text parsed once."""
    chosen = ", ".join(quoted(name) for name in dict.fromkeys(columns))
    relation.create_view("source")
    connection.execute(f"CREATE TEMP TABLE data AS SELECT {chosen} FROM source")  # noqa: S608


def _check_columns(types: Mapping[str, tuple[str, str]], columns: Columns) -> None:
    for part, name in (
        *columns.labels(),
        *((part, name) for name, part in columns.numbers.items()),
    ):
        if name not in types:
            msg = f"no column {name!r} for the {part}{hint(name, types)}"
            raise DataError(msg)


def _check_types(types: Mapping[str, tuple[str, str]], columns: Columns) -> None:
    for name, part in columns.numbers.items():
        kind, written = types[name]
        if kind not in _NUMBERS:
            advice = "; cast the categories to numbers" if kind == "enum" else ""
            raise DataError(f"{part} {name!r} holds {_short(written)}, not numbers{advice}")
    for part, name in columns.labels():
        kind, written = types[name]
        if kind in _NESTED:
            raise DataError(
                f"{part} {name!r} holds {_short(written)}; give a column of plain text or numbers"
            )


def _check_filled(connection: duckdb.DuckDBPyConnection, part: str, name: str) -> None:
    row = connection.execute(
        f"SELECT count(*) - count({quoted(name)}) FROM data"  # noqa: S608
    ).fetchone()
    if row is not None and row[0]:
        raise DataError(f"{part} {name!r} is empty in {row[0]:,} rows; drop them or fill them")


def _counts(connection: duckdb.DuckDBPyConnection, unit: str, variant: str) -> dict[str, int]:
    rows = connection.execute(
        f"SELECT {cast_text(variant)}, count(*), count(*) - count({quoted(unit)}) "  # noqa: S608
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


def _short(written: str) -> str:
    """The first of a type's words: those of an enumeration can be thousands."""
    return written if len(written) <= 60 else f"{written[:59]}…"


def _name(source: object) -> str:
    return repr(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else "the table"


def _literal(path: str) -> str:
    """A path in which DuckDB finds no pattern: only this very file is read."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
