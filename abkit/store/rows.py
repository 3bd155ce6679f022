"""Columns of any table as arrays: for planning and simulation, which need the units themselves."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from abkit.errors import DataError
from abkit.store.source import (
    Types,
    check_numbers,
    check_plain,
    connected,
    name_of,
    readable,
    relation_of,
    told_type,
    types_of,
)
from abkit.store.sql import first_line, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_TIMES = ("timestamp", "date")


@contextmanager
def open_rows(
    source: object, *, labels: Mapping[str, str], numbers: Mapping[str, str]
) -> Iterator[Rows]:
    """Load the columns that are needed.

    Args:
        source: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table, or a
            DuckDB relation.
        labels: part and column of what is no number, such as {"unit": "user"}.
        numbers: part and column of numbers; a part may end in a digit to be named twice.

    Raises:
        DataError: the file, a column or a value is not usable; the message names it.
    """
    with connected() as connection:
        relation = relation_of(connection, source)
        types = types_of(relation, [*labels.items(), *numbers.items()])
        check_numbers(types, {name: part for part, name in numbers.items()})
        check_plain(types, labels.items())
        chosen = ", ".join(map(quoted, dict.fromkeys([*labels.values(), *numbers.values()])))
        with readable(source):
            relation.create_view("source")
            connection.execute(f"CREATE TEMP TABLE data AS SELECT {chosen} FROM source")  # noqa: S608
        rows = Rows(connection, types)
        if not rows.count():
            raise DataError(f"{name_of(source)} has no rows")
        yield rows


class Rows:
    """A table that was loaded; made by `open_rows`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, types: Types) -> None:
        self._connection = connection
        self._types = types

    def count(self) -> int:
        """Rows of the table."""
        return int(self._value("SELECT count(*) FROM data"))

    def empty(self, column: str) -> int:
        """Rows in which a column has no value."""
        return int(self._value(f"SELECT count(*) - count({quoted(column)}) FROM data"))  # noqa: S608

    def repeated(self, column: str) -> int:
        """Values of a column that stand in more than one row."""
        return int(
            self._value(
                "SELECT count(*) FROM (SELECT 1 FROM data "  # noqa: S608
                f"GROUP BY {quoted(column)} HAVING count(*) > 1)"
            )
        )

    def days(self, column: str) -> Array:
        """Days since 1970 of a time, with their fraction; NaN where it is empty.

        Raises:
            DataError: the column holds no times.
        """
        kind, written = self._types[column]
        if not kind.startswith(_TIMES) and kind != "varchar":
            raise DataError(f"time {column!r} holds {told_type(written)}, not dates or timestamps")
        return self._array(f"epoch(CAST({quoted(column)} AS TIMESTAMP)) / 86400", "time", column)

    def numbers(self, columns: list[str]) -> list[Array]:
        """Values of columns as floats; NaN where they are empty or infinite.

        Args:
            columns: names of columns of numbers.
        """
        return [
            self._array(
                f"CASE WHEN isfinite(CAST({quoted(name)} AS DOUBLE)) "
                f"THEN CAST({quoted(name)} AS DOUBLE) END",
                "column",
                name,
            )
            for name in columns
        ]

    def ranks(self, column: str) -> NDArray[np.int64]:
        """For each row the number of its value among the sorted distinct ones, from 0."""
        ranks = self._array(f"dense_rank() OVER (ORDER BY {quoted(column)}) - 1", "column", column)
        return ranks.astype(np.int64)

    def _array(self, expression: str, part: str, column: str) -> Array:
        try:
            found: Any = self._connection.execute(
                f"SELECT CAST(x AS DOUBLE) AS x FROM (SELECT rowid AS r, {expression} AS x "  # noqa: S608
                "FROM data) ORDER BY r"
            ).fetchnumpy()["x"]
        except duckdb.Error as error:
            raise DataError(f"{part} {column!r}: {first_line(error)}") from None
        return np.ma.filled(np.ma.asarray(found, dtype=np.float64), np.nan)

    def _value(self, query: str) -> float:
        row = self._connection.execute(query).fetchone()
        return 0 if row is None else row[0]
