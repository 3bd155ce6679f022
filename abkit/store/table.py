"""One row per unit, in any table DuckDB can read -> joint moments by variant, epoch and segment."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from abkit.errors import DataError
from abkit.records import counted
from abkit.store.cells import Facts, Key, read_cells
from abkit.store.looks import cut
from abkit.store.repeats import repeated_units
from abkit.store.source import (
    check_numbers,
    check_plain,
    connected,
    is_parquet,
    name_of,
    readable,
    relation_of,
    types_of,
)
from abkit.store.sql import cast_text, quoted
from abkit.store.sums import read_sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb

    from abkit.comoments import Comoments
    from abkit.store.looks import Cuts, Looks

Missing = Literal["error", "exclude", "zero"]
SUMMED_FROM = 100_000  # rows; fewer are counted the most careful way in milliseconds


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column plays which part.

    Args:
        unit: what was randomised.
        variant: the variant it got.
        numbers: columns of metrics, of the parts of ratios, and of covariates, by part.
        epoch: allocation epoch, if the allocation changed.
        segments: what results are also broken down by.
        time: when a row is complete, if the table is looked at more than once.
        cluster: what was randomised, if a unit is only a part of it.
        delivered: what a unit really met, if that was logged.
    """

    unit: str
    variant: str
    numbers: Mapping[str, str]
    epoch: str | None = None
    segments: tuple[str, ...] = ()
    time: str | None = None
    cluster: str | None = None
    delivered: str | None = None

    def labels(self) -> list[tuple[str, str]]:
        """Part and column of everything that is not a number."""
        found = [("unit", self.unit), ("variant", self.variant)]
        found += [("epoch", self.epoch)] if self.epoch is not None else []
        found += [("time", self.time)] if self.time is not None else []
        found += [("cluster", self.cluster)] if self.cluster is not None else []
        found += [("delivered", self.delivered)] if self.delivered is not None else []
        return found + [("segment", name) for name in self.segments]


@dataclass(frozen=True, slots=True)
class UnitTable:
    """A table that was loaded; made by `open_table`.

    Args:
        connection: where the table `data` is.
        columns: which column plays which part.
        counts: rows per variant.
        missing: what to do with rows without a value.
        cuts: moments at which the table is looked at; None for one look at all of it.
        repeated: units in more than one row, and those in more than one variant.
    """

    connection: duckdb.DuckDBPyConnection
    columns: Columns
    counts: Mapping[str, int]
    missing: Missing
    cuts: Cuts | None = None
    repeated: tuple[int, int] = (0, 0)

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
        return self.repeated

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
        binary: Sequence[str] = (),
    ) -> tuple[dict[tuple[str, ...], dict[Key, Comoments]], dict[str, Facts]]:
        """Joint moments of each family of columns in every cell, from one query.

        Args:
            families: columns that are needed together, of the same units.
            caps: lowest and highest value of columns that are winsorised.
            binary: columns that may hold nothing but 0 and 1; what else they hold is looked up.

        Returns:
            By family and cell the comoments, and by column what its values are like.

        Raises:
            DataError: values are missing where they must not be, infinite, or too large.
        """
        asked: dict[str, Any] = {
            "variant": self.columns.variant,
            "epoch": self.columns.epoch,
            "segments": self.columns.segments,
            "families": families,
        }
        large = sum(self.counts.values()) >= SUMMED_FROM
        if large and self.missing == "error" and not caps and self.cuts is None:
            found = read_sums(self.connection, **asked, binary=binary)
            if found is not None:
                return found
        return read_cells(
            self.connection,
            **asked,
            missing=self.missing,
            caps=caps or {},
            parts=self.columns.numbers,
            look=None if self.cuts is None else self.cuts.sql,
        )


@contextmanager
def open_table(
    source: object,
    columns: Columns,
    *,
    missing: Missing = "error",
    looks: Looks | None = None,
) -> Iterator[UnitTable]:
    """Load the columns that are needed: the source is read once, text is parsed once.

    Args:
        source: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table,
            or a DuckDB relation; one row per unit.
        columns: which column plays which part.
        missing: what to do with rows without a value: raise, leave out, or count as 0.
        looks: moments to look at, of the column of the time; rows after the last are dropped.

    Raises:
        DataError: the file, a column or a value is not usable; the message names it.
    """
    with connected() as connection:
        relation = relation_of(connection, source)
        parts = [*columns.labels(), *((part, name) for name, part in columns.numbers.items())]
        types = types_of(relation, parts)
        names = [name for _, name in columns.labels()] + list(columns.numbers)
        scanned = is_parquet(source) and looks is None
        with readable(source):
            _register(connection, relation, names, scanned=scanned)
        row = connection.execute("SELECT count(*) FROM data").fetchone()
        if row is None or row[0] == 0:
            msg = f"{name_of(source)} has no rows"
            raise DataError(msg)
        check_numbers(types, columns.numbers)
        check_plain(types, columns.labels())
        if columns.epoch is not None:
            _check_filled(connection, "epoch", columns.epoch)
        if columns.cluster is not None:
            _check_filled(connection, "cluster", columns.cluster)
        cuts = None if looks is None else cut(connection, looks)
        # A file that is scanned in place may be damaged anywhere.
        with readable(source) if scanned else nullcontext():
            counts = _counts(connection, columns.variant)
            rows = sum(counts.values())
            repeated = repeated_units(connection, columns.unit, columns.variant, rows)
            yield UnitTable(connection, columns, counts, missing, cuts, repeated)


def _register(
    connection: duckdb.DuckDBPyConnection,
    relation: Any,
    columns: list[str],
    *,
    scanned: bool = False,
) -> None:
    """Make the columns needed the table `data`, or a view if the source is scanned in place."""
    chosen = ", ".join(quoted(name) for name in dict.fromkeys(columns))
    relation.create_view("source")
    kind = "VIEW" if scanned else "TABLE"
    connection.execute(f"CREATE TEMP {kind} data AS SELECT {chosen} FROM source")  # noqa: S608


def _check_filled(connection: duckdb.DuckDBPyConnection, part: str, name: str) -> None:
    row = connection.execute(
        f"SELECT count(*) - count({quoted(name)}) FROM data"  # noqa: S608
    ).fetchone()
    if row is not None and row[0]:
        raise DataError(f"{part} {name!r} is empty in {counted(row[0], 'row')}; drop or fill each")


def _counts(connection: duckdb.DuckDBPyConnection, variant: str) -> dict[str, int]:
    rows = connection.execute(
        f"SELECT {cast_text(variant)}, count(*) FROM data GROUP BY 1 ORDER BY 1 NULLS FIRST"  # noqa: S608
    ).fetchall()
    for label, n in rows:
        if label is None:
            msg = (
                f"column {variant!r} is empty in {counted(n, 'row')}; drop each or name its variant"
            )
            raise DataError(msg)
    return dict(rows)
