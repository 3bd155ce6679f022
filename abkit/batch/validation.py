"""Is a version fit to be read? Numbers of its own, and beside the version that is live."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.batch.database import Database, first_row, quoted, text_sql
from abkit.batch.publishing import fingerprint
from abkit.batch.versions import Version, find_version, read_versions
from abkit.errors import ConfigError
from abkit.stats.srm import chi_square

if TYPE_CHECKING:
    import duckdb

_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a version may differ by from the one that is live.

    Args:
        row_change: largest share by which the number of rows may change, >= 0.
        nulls: largest share of rows without a prediction, in [0, 1].
        drift: largest distance of the distributions of predictions (Kolmogorov and Smirnov: the
            largest difference of the shares below any value), in [0, 1].
        beyond: how far predictions may lie outside of the live ones' range, as a share of it.
        mismatch: smallest p-value of the test of the shares of the variants, in [0, 1].
    """

    row_change: float = 0.1
    nulls: float = 0.0
    drift: float = 0.1
    beyond: float = 0.5
    mismatch: float = 0.001

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"the limit {name} must be a number >= 0, got {value!r}")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        id: "table", "rows", "entities", "nulls", "change", "range", "drift" or "split".
        passed: whether it is within its limit.
        text: what was found, in numbers.
    """

    id: str
    passed: bool
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found of one version.

    Args:
        name: of the predictions.
        version: that was looked at.
        against: the version that was live; None if there was none.
        checks: what was looked at.
    """

    name: str
    version: int
    against: int | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether everything is within its limit."""
        return all(item.passed for item in self.checks)


def validate(
    database: Database, name: str, version: int | None = None, *, limits: Limits | None = None
) -> Validation:
    """Look at a version before readers do.

    Args:
        database: where it is.
        name: of the predictions.
        version: its number; the newest by default.
        limits: what it may differ by.

    Raises:
        ConfigError: there is no such version.
    """
    allowed = limits or Limits()
    with database.reading() as connection:
        item = find_version(connection, name, version)
        live = next((other for other in read_versions(connection, name) if other.live), None)
        rows, checksum = fingerprint(connection, item.table)
        same = (rows, checksum) == (item.rows, item.checksum)
        told = f"{rows:,} rows, checksum {checksum[:12]}"
        checks = [
            Check("table", same, told if same else f"{told}; made with {item.rows:,} rows, "
                  f"checksum {item.checksum[:12]}: somebody changed it"),
            *_own(connection, item, allowed),
        ]  # fmt: skip
        if live is not None and live.version != item.version:
            checks += _beside(connection, item, live, allowed)
        checks += _split(connection, item, allowed)
    return Validation(name, item.version, None if live is None else live.version, tuple(checks))


def _own(connection: duckdb.DuckDBPyConnection, item: Version, limits: Limits) -> list[Check]:
    unit = quoted(item.entity)
    rows, nulls, absent, distinct = connection.execute(
        "SELECT count(*), count(*) - count(prediction), "  # noqa: S608
        f"count(*) - count({unit}), count(DISTINCT {text_sql(unit)}) FROM {quoted(item.table)}"
    ).fetchall()[0]
    twice = rows - absent - distinct
    share = nulls / rows if rows else 0.0
    return [
        Check("rows", rows > 0, f"{rows:,} rows"),
        Check(
            "entities",
            not absent and not twice,
            f"{absent:,} rows without an entity, {twice:,} that repeat one",
        ),
        Check(
            "nulls",
            share <= limits.nulls,
            f"{nulls:,} rows without a prediction ({share:.2%}, limit {limits.nulls:.2%})",
        ),
    ]


def _beside(
    connection: duckdb.DuckDBPyConnection, item: Version, live: Version, limits: Limits
) -> list[Check]:
    """What changed since the live version."""
    new, old = quoted(item.table), quoted(live.table)
    change = abs(item.rows - live.rows) / live.rows if live.rows else 1.0
    quantiles = f"[{', '.join(map(str, _QUANTILES))}]"
    seen = [
        connection.execute(
            f"SELECT min(prediction), max(prediction), quantile_cont(prediction, {quantiles}) "  # noqa: S608
            f"FROM {table}"
        ).fetchall()[0]
        for table in (new, old)
    ]
    checks = [
        Check(
            "change",
            change <= limits.row_change,
            f"{item.rows:,} rows, version {live.version} has {live.rows:,} "
            f"({change:.2%} apart, limit {limits.row_change:.2%})",
        )
    ]
    (low, high, found), (least, most, before) = seen
    if low is None or least is None:
        return [*checks, Check("drift", False, "no predictions to compare")]
    room = limits.beyond * (most - least)
    checks.append(
        Check(
            "range",
            least - room <= low and high <= most + room,
            f"predictions from {low:.6g} to {high:.6g}, version {live.version} from {least:.6g} "
            f"to {most:.6g} (may go {limits.beyond:.0%} of that range beyond)",
        )
    )
    distance = connection.execute(
        "WITH counted AS (SELECT prediction, count(*) FILTER (side = 0) AS a, "  # noqa: S608
        "count(*) FILTER (side = 1) AS b FROM ("
        f"SELECT prediction, 0 AS side FROM {new} WHERE prediction IS NOT NULL UNION ALL "
        f"SELECT prediction, 1 AS side FROM {old} WHERE prediction IS NOT NULL) GROUP BY 1), "
        "added AS (SELECT sum(a) OVER upto / sum(a) OVER () AS f, "
        "sum(b) OVER upto / sum(b) OVER () AS g FROM counted WINDOW upto AS (ORDER BY prediction)) "
        "SELECT max(abs(f - g)) FROM added"
    ).fetchall()[0][0]
    pairs = ", ".join(
        f"{q:.0%} {was:.4g} -> {is_:.4g}"
        for q, was, is_ in zip(_QUANTILES, before, found, strict=True)
    )
    checks.append(
        Check(
            "drift",
            distance <= limits.drift,
            f"distance {distance:.4f} from version {live.version} "
            f"(limit {limits.drift:g}); {pairs}",
        )
    )
    return checks


def _split(connection: duckdb.DuckDBPyConnection, item: Version, limits: Limits) -> list[Check]:
    """Whether the variants hold the shares that their run meant."""
    row = first_row(connection, "SELECT weights FROM abkit_run WHERE run = $run", {"run": item.run})
    if row is None:
        return []
    weights = {name: share for name, share in json.loads(row[0]).items() if share > 0}
    counts: dict[str, int] = dict(
        connection.execute(
            f"SELECT p.variant, count(*) FROM {quoted(item.table)} p JOIN abkit_assigned a "  # noqa: S608
            "ON a.run = $run AND a.assignment_id = p.assignment_id AND a.reason = 'split' "
            "GROUP BY 1",
            {"run": item.run},
        ).fetchall()
    )
    if len(weights) < 2 or not counts:
        return []
    seen = [counts.get(name, 0) for name in weights]
    _, p_value = chi_square(seen, list(weights.values()))
    shares = ", ".join(
        f"{name} {n:,} (meant {weights[name]:.4g})" for name, n in zip(weights, seen, strict=True)
    )
    return [
        Check(
            "split",
            p_value >= limits.mismatch,
            f"{shares}; p = {p_value:.3g} (limit {limits.mismatch:g})",
        )
    ]
