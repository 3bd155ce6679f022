"""How labels come in: how many are late or missing, variant by variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scipy.stats import chi2_contingency

from abkit.batch.database import literal, quoted

if TYPE_CHECKING:
    import duckdb

    from abkit.batch.versions import Version


@dataclass(frozen=True, slots=True)
class Arm:
    """How the labels of one variant came in, for the versions that were asked for.

    Args:
        variant: the variant.
        predictions: that wait for a label.
        labelled: that have one.
        median_delay_seconds: from prediction to label; None without labels.
        longest_delay_seconds: the same for the latest.
    """

    variant: str
    predictions: int
    labelled: int
    median_delay_seconds: float | None
    longest_delay_seconds: float | None

    @property
    def missing(self) -> int:
        """Predictions without a label."""
        return self.predictions - self.labelled


def arms_of(
    connection: duckdb.DuckDBPyConnection, metric: str, chosen: list[Version]
) -> tuple[Arm, ...]:
    """How complete the labels are by variant, of all that was assigned by hash."""
    parts = " UNION ALL ".join(
        f"SELECT a.variant, k.unit IS NOT NULL AS seen, "  # noqa: S608
        "epoch_us(k.labelled_at) - epoch_us(k.scored_at) AS delay "
        f"FROM {quoted(item.table)} p JOIN abkit_assigned a ON a.run = {literal(item.run)} "
        "AND a.assignment_id = p.assignment_id AND a.reason = 'split' "
        f"LEFT JOIN abkit_label k ON k.name = {literal(item.name)} "
        f"AND k.version = {item.version} AND k.unit = a.unit AND k.metric = $metric "
        "AND k.variant = a.variant"
        for item in chosen
    )
    rows: list[Any] = connection.execute(
        "SELECT variant, count(*), count(*) FILTER (seen), median(delay) / 1e6, "  # noqa: S608
        f"max(delay) / 1e6 FROM ({parts}) GROUP BY 1 ORDER BY 1",
        {"metric": metric},
    ).fetchall()
    return tuple(Arm(*row) for row in rows)


def missing_alike(arms: tuple[Arm, ...]) -> float | None:
    """P-value of labels missing alike in every variant."""
    if len(arms) < 2 or not any(arm.labelled for arm in arms):
        return None
    if not any(arm.missing for arm in arms):
        return 1.0
    table = [[arm.labelled for arm in arms], [arm.missing for arm in arms]]
    return float(chi2_contingency(table, correction=False).pvalue)
