"""Whatever DuckDB can read as a table: files, frames, Arrow tables and relations."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from abkit.errors import DataError
from abkit.records import hint
from abkit.store.sql import first_line

try:
    import duckdb
except ImportError as error:
    from abkit.errors import MissingExtraError

    msg = "analysis needs DuckDB: pip install 'abkit-rollouts[analysis]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Types: TypeAlias = (
    "Mapping[str, tuple[str, str]]"  # by column DuckDB's id of its type, and its name
)

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
_TYPES = {"VARCHAR": "text (VARCHAR)", '"NULL"': "no value at all"}


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of one's own, in memory, which installs nothing."""
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        yield connection


@contextmanager
def readable(source: object) -> Iterator[None]:
    """Say of what the database cannot read which source it is."""
    try:
        yield
    except duckdb.Error as error:
        msg = f"cannot read {name_of(source)}: {first_line(error)}"
        raise DataError(msg) from None


def read_rows(source: object) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and all rows, of a small table.

    Args:
        source: as for `relation_of`.

    Raises:
        DataError: it cannot be read, or has no rows.
    """
    with connected() as connection:
        relation = relation_of(connection, source)
        with readable(source):
            rows = relation.fetchall()
        if not rows:
            raise DataError(f"{name_of(source)} has no rows")
        return list(relation.columns), rows


def relation_of(connection: duckdb.DuckDBPyConnection, source: object) -> Any:
    """The table that a source is, not read yet.

    Args:
        connection: from `connected`.
        source: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table, or
            a DuckDB relation.

    Raises:
        DataError: it is none of these, or cannot be read.
    """
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


def is_parquet(source: object) -> bool:
    """Whether it is a file whose columns are read faster than a copy of them is made."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    return _READERS.get(Path(source).suffix.lower()) == "read_parquet"


def types_of(relation: Any, parts: Iterable[tuple[str, str]]) -> Types:
    """Types of a table's columns.

    Args:
        relation: from `relation_of`.
        parts: part and name of each column that must be there.

    Raises:
        DataError: one is not there.
    """
    types = {
        name: (kind.id, str(kind))
        for name, kind in zip(relation.columns, relation.types, strict=True)
    }
    for part, name in parts:
        if name not in types:
            raise DataError(f"no column {name!r} for the {part}{hint(name, types)}")
    return types


def check_numbers(types: Types, columns: Mapping[str, str]) -> None:
    """Reject columns that do not hold numbers.

    Args:
        types: of all columns.
        columns: part of each column, by its name.

    Raises:
        DataError: one holds something else.
    """
    for name, part in columns.items():
        kind, written = types[name]
        if kind not in _NUMBERS:
            advice = "; cast the categories to numbers" if kind == "enum" else ""
            raise DataError(f"{part} {name!r} holds {told_type(written)}, not numbers{advice}")


def check_plain(types: Types, parts: Iterable[tuple[str, str]]) -> None:
    """Reject columns whose values are made of several.

    Args:
        types: of all columns.
        parts: part and name of each column.

    Raises:
        DataError: one holds lists, structures or the like.
    """
    for part, name in parts:
        kind, written = types[name]
        if kind in _NESTED:
            raise DataError(
                f"{part} {name!r} holds {told_type(written)}; give a column of plain text or "
                "numbers"
            )


def told_type(written: str) -> str:
    """A type for people; those of an enumeration can be thousands of words."""
    if written in _TYPES:
        return _TYPES[written]
    return written if len(written) <= 60 else f"{written[:59]}…"


def name_of(source: object) -> str:
    """What a source is called in messages."""
    return repr(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else "the table"


def _literal(path: str) -> str:
    """A path in which DuckDB finds no pattern: only this very file is read."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
