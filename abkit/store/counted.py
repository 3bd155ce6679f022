"""Whether columns hold counts of events and exposures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abkit.errors import DataError
from abkit.store.sql import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.store.table import UnitTable


def check_counts(table: UnitTable, columns: Mapping[str, bool]) -> None:
    """Reject values that no count of events or exposure has, by one query.

    Args:
        table: what was loaded.
        columns: whether each column is one of counts; otherwise it is one of exposures.

    Raises:
        DataError: a count is below 0 or no whole number, or an exposure below 0.
    """
    parts = []
    for name, counts in columns.items():
        x = f"CAST({quoted(name)} AS DOUBLE)"
        bad = f"{x} < 0 OR {x} <> floor({x})" if counts else f"{x} < 0"
        parts.append(f"min({x}) FILTER (isfinite({x}) AND ({bad}))")
    row = table.connection.execute(f"SELECT {', '.join(parts)} FROM data").fetchone()  # noqa: S608
    for (name, counts), odd in zip(columns.items(), row or (), strict=True):
        if odd is None:
            continue
        if counts:
            raise DataError(
                f"count {name!r} holds {odd:g}; counts of events are whole numbers from 0 on, and "
                "other values are compared as a metric or a ratio"
            )
        raise DataError(f"exposure {name!r} holds {odd:g}; exposures are not below 0")
