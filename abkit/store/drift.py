"""What a log says about itself: assignments computed again, losses, late and early outcomes.

These read the private store of `abkit.store.logged`, after its table of units was made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.audit import audit_sql
from abkit.errors import AbkitError, ConfigError
from abkit.experiment import Experiment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    import duckdb

    from abkit.layer import Holdout, Layer

LATE_LEVEL: Final = 0.9  # quantile of all delays, beyond which an outcome is late
_EXPOSED: Final = """
CREATE OR REPLACE TEMP TABLE abkit_exposed AS
SELECT unit_id, variant AS met, min(writer) AS writer FROM exposure
WHERE experiment = $experiment AND epoch = $epoch GROUP BY ALL
"""
_DRIFTED: Final = """
SELECT count(*), count(*) FILTER (wrong), min(unit_id) FILTER (wrong),
  count(DISTINCT writer) FILTER (wrong), min(writer) FILTER (wrong)
FROM (
  SELECT e.unit_id, e.writer,
    (a.reason = 'split' AND a.variant <> e.met) OR a.reason = 'rollout' AS wrong
  FROM abkit_exposed e JOIN ({audit}) a USING (unit_id)
)
"""
_DEFINED: Final = """
SELECT any_value(record->'$.rollout_state.experiment') FROM decision
WHERE record->>'$.rollout_state.experiment.key' = $experiment
GROUP BY record->>'$.rollout_state.experiment.epoch'
"""
_LOST: Final = """
SELECT variant, reason, sum(count)::BIGINT FROM loss WHERE experiment = $experiment GROUP BY ALL
"""
_EVENTS: Final = """
SELECT variant, sum(events)::BIGINT FROM tally
WHERE experiment = $experiment AND variant <> '' GROUP BY ALL
"""
_UNEXPLAINED: Final = """
SELECT coalesce((SELECT sum(count) FROM gap), 0)::BIGINT
  - coalesce((SELECT sum(count) FROM loss), 0)::BIGINT
"""
_LATE: Final = """
WITH answer AS (
  SELECT o.metric, unit.variant, o.unit_id, any_value(unit.since) AS since,
    epoch_us(min(o.time)) - epoch_us(any_value(unit.since)) AS delay
  FROM outcome o JOIN unit USING (unit_id)
  WHERE o.variant = '' AND o.experiment IN ('', $experiment) AND list_contains($metrics, o.metric)
    AND o.time >= unit.since - INTERVAL 60 SECOND GROUP BY ALL
), edge AS (
  SELECT metric, quantile_disc(delay, {level}) AS late FROM answer GROUP BY metric
), fresh AS (
  SELECT metric, count(*) FILTER (epoch_us(since) + late > epoch_us($watermark)) / count(*) AS share
  FROM edge, unit GROUP BY metric
)
SELECT metric, answer.variant, any_value(late), any_value(share), count(*),
  count(*) FILTER (delay > late)
FROM answer JOIN edge USING (metric) JOIN fresh USING (metric) GROUP BY ALL ORDER BY ALL
"""
_EARLY: Final = """
WITH early AS (
  SELECT unit.variant, o.unit_id, count(*) AS n FROM outcome o JOIN unit USING (unit_id)
  WHERE o.variant = '' AND o.experiment IN ('', $experiment) AND list_contains($metrics, o.metric)
    AND o.time < unit.since - INTERVAL 60 SECOND GROUP BY ALL
), per AS (SELECT variant, count(*) AS units, sum(n) AS events FROM early GROUP BY variant)
SELECT u.variant, count(*), coalesce(any_value(per.units), 0), coalesce(any_value(per.events), 0)
FROM unit u LEFT JOIN per USING (variant) GROUP BY u.variant ORDER BY u.variant
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """Assignments of one epoch, computed again.

    Args:
        epoch: the epoch.
        units: exposed units whose assignment was computed again.
        wrong: those that met another variant than their hash says.
        example: one of those; None without any.
        writers: writers that logged them.
        writer: one of those writers.
    """

    epoch: int
    units: int
    wrong: int
    example: str | None
    writers: int
    writer: str | None


@dataclass(frozen=True, slots=True)
class Losses:
    """What writers dropped of one experiment.

    Args:
        dropped: events by variant.
        reasons: events by reason.
        stored: events that name a variant, by variant.
        unexplained: sequence numbers of all writers that nothing explains.
    """

    dropped: Mapping[str, int]
    reasons: Mapping[str, int]
    stored: Mapping[str, int]
    unexplained: int


@dataclass(frozen=True, slots=True)
class Late:
    """How long the first outcomes of one metric took.

    Args:
        metric: its recorded name.
        seconds: the 90 % quantile of the delays of all units.
        fresh: share of the units that were exposed less than that before the watermark.
        answered: units with an outcome, by variant.
        late: those whose first one took longer, by variant.
    """

    metric: str
    seconds: float
    fresh: float
    answered: Mapping[str, int]
    late: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Early:
    """Outcomes from before the exposure.

    Args:
        units: by variant.
        early: units that have some, by variant.
        events: outcomes, by variant.
    """

    units: Mapping[str, int]
    early: Mapping[str, int]
    events: Mapping[str, int]


def definitions(
    connection: duckdb.DuckDBPyConnection, key: str, known: Iterable[Experiment]
) -> dict[int, Experiment]:
    """The experiment as it was in each epoch: as published, and as decision records have it."""
    found: dict[int, Experiment] = {}
    for (text,) in connection.execute(_DEFINED, {"experiment": key}).fetchall():
        try:
            item = Experiment.from_dict(json.loads(text))
        except (AbkitError, ValueError, TypeError):
            continue
        found[item.epoch] = item
    return found | {item.epoch: item for item in known}


def drift(
    connection: duckdb.DuckDBPyConnection,
    defined: Mapping[int, Experiment],
    epochs: tuple[int, int],
    *,
    layers: Sequence[Layer] = (),
    holdouts: Sequence[Holdout] = (),
) -> tuple[list[Drift], list[str]]:
    """Compute the variant of every logged exposure again.

    Layers, holdouts and targeting may have changed within an epoch: a unit that they would keep
    out is not held against the log. Sticky units keep what they met, so they are left out.

    Args:
        connection: the private store.
        defined: the experiment by epoch.
        epochs: first and last.
        layers: as published.
        holdouts: as published.

    Returns:
        The epochs that could be audited, and why others could not.
    """
    found, skipped = [], []
    first, last = epochs
    for epoch, item in sorted(defined.items()):
        if not first <= epoch <= last or item.state != "running":
            continue
        if item.sticky:
            skipped.append(f"epoch {epoch} is sticky")
            continue
        try:
            audit = audit_sql(
                item,
                "duckdb",
                table="abkit_exposed",
                layers=layers,
                holdouts=holdouts,
                targeting="ignore",
            )
        except ConfigError as error:
            skipped.append(f"epoch {epoch}: {error}")
            continue
        connection.execute(_EXPOSED, {"experiment": item.key, "epoch": epoch})
        row = connection.execute(_DRIFTED.format(audit=audit)).fetchall()[0]
        found.append(Drift(epoch, *row))
    return found, skipped


def losses(connection: duckdb.DuckDBPyConnection, key: str) -> Losses:
    """What writers say they dropped of an experiment, and what nobody explains."""
    dropped: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for variant, reason, n in connection.execute(_LOST, {"experiment": key}).fetchall():
        if variant:
            dropped[variant] = dropped.get(variant, 0) + n
        reasons[reason] = reasons.get(reason, 0) + n
    stored = dict(connection.execute(_EVENTS, {"experiment": key}).fetchall())
    ((unexplained,),) = connection.execute(_UNEXPLAINED).fetchall()
    ((damaged,),) = connection.execute(
        "SELECT coalesce(sum(events), 0)::BIGINT FROM quarantine WHERE segment > 0"
    ).fetchall()
    return Losses(dropped, reasons, stored, max(0, unexplained - damaged))


def late(
    connection: duckdb.DuckDBPyConnection,
    key: str,
    metrics: Sequence[str],
    watermark: datetime,
) -> list[Late]:
    """How long first outcomes take, by metric and variant."""
    rows = connection.execute(
        _LATE.format(level=LATE_LEVEL),
        {"experiment": key, "metrics": list(metrics), "watermark": watermark},
    ).fetchall()
    by: dict[str, list[tuple[Any, ...]]] = {}
    for metric, *rest in rows:
        by.setdefault(metric, []).append(tuple(rest))
    return [
        Late(
            metric,
            item[0][1] / 1e6,
            float(item[0][2]),
            {variant: n for variant, _, _, n, _ in item},
            {variant: n for variant, _, _, _, n in item},
        )
        for metric, item in by.items()
    ]


def early(connection: duckdb.DuckDBPyConnection, key: str, metrics: Sequence[str]) -> Early:
    """Outcomes from more than a minute before the exposure, by variant."""
    rows = connection.execute(_EARLY, {"experiment": key, "metrics": list(metrics)}).fetchall()
    units, early_, events = ({row[0]: int(row[i]) for row in rows} for i in (1, 2, 3))
    return Early(units, early_, events)
