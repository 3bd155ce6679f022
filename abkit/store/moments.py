"""From events to sufficient statistics: what an experiment's numbers mean, in SQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from abkit.moments import Moments
from abkit.observation import Observation, Paired

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from abkit.metrics import Metric

# The first exposure of a unit within the epochs asked for decides its variant and epoch; what
# happens after it meets another variant is not counted. An outcome may be stamped up to a minute
# before the exposure: code records first and exposes then, and the clocks of hosts differ. Sums
# stop in both arms when the next epoch begins: a growing share takes units from control alone, and
# the treatment would go on adding up.
_UNITS = """
CREATE OR REPLACE TEMP TABLE unit AS
WITH met AS (
  SELECT unit_id, time, variant, epoch, (time, writer, sequence) AS place FROM exposure
  WHERE experiment = $experiment AND epoch BETWEEN $first_epoch AND $last_epoch
), first AS (
  SELECT unit_id, min(time) AS since, arg_min(variant, place) AS variant,
    arg_min(epoch, place) AS epoch, min(variant) <> max(variant) AS crossed
  FROM met GROUP BY unit_id
), crossing AS (
  SELECT met.unit_id, min(met.time) AS until FROM met JOIN first USING (unit_id)
  WHERE first.crossed AND met.variant <> first.variant GROUP BY met.unit_id
), closing AS (SELECT epoch - 1 AS epoch, min(time) AS closed FROM met GROUP BY epoch)
SELECT first.*, crossing.until, closing.closed
FROM first LEFT JOIN crossing USING (unit_id) LEFT JOIN closing USING (epoch)
"""

_METRICS = "CREATE OR REPLACE TEMP TABLE metric (key VARCHAR, aggregate VARCHAR, logarithm BOOLEAN)"

_EXPOSURES = "SELECT epoch, variant, count(*) FROM unit GROUP BY ALL ORDER BY ALL"

_AGGREGATE = """
  CASE any_value(metric.aggregate)
    WHEN 'last' THEN arg_max(o.value, (o.time, o.writer, o.sequence))
    WHEN 'first' THEN arg_min(o.value, (o.time, o.writer, o.sequence))
    WHEN 'sum' THEN sum(o.value) WHEN 'mean' THEN avg(o.value) ELSE max(o.value) END
"""

_LOGARITHM = "CASE WHEN logarithm THEN ln(CASE WHEN value > 0 THEN value END) ELSE value END"

_VALUES = f"""
CREATE OR REPLACE TEMP TABLE unit_value AS
WITH value AS (
  SELECT o.metric, unit.epoch, unit.variant, o.unit_id, max(o.time) AS time,
    any_value(metric.logarithm) AS logarithm, {_AGGREGATE} AS value
  FROM outcome o JOIN metric ON metric.key = o.metric JOIN unit ON unit.unit_id = o.unit_id
  WHERE o.variant = '' AND o.experiment IN ('', $experiment)
    AND o.time >= unit.since - INTERVAL 60 SECOND
    AND (unit.until IS NULL OR o.time < unit.until)
    AND (metric.aggregate <> 'sum' OR unit.closed IS NULL OR o.time < unit.closed)
  GROUP BY o.metric, unit.epoch, unit.variant, o.unit_id
)
SELECT metric, epoch, variant, time, {_LOGARITHM} AS value FROM value
"""  # noqa: S608 - pieces of this module, no input

_CELLS = """
SELECT metric, epoch, variant, count(value), coalesce(avg(value), 0),
  coalesce(var_pop(value), 0) * count(value)
FROM unit_value GROUP BY metric, epoch, variant ORDER BY metric, epoch, variant
"""

_PAIRS = f"""
WITH answer AS (
  SELECT o.metric, o.unit_id, o.variant, any_value(metric.logarithm) AS logarithm,
    {_AGGREGATE} AS value
  FROM outcome o JOIN metric ON metric.key = o.metric JOIN unit ON unit.unit_id = o.unit_id
  WHERE o.experiment = $experiment AND o.variant IN ($control, $treatment)
    AND o.time >= unit.since - INTERVAL 60 SECOND
  GROUP BY o.metric, o.unit_id, o.variant
), scaled AS (SELECT metric, unit_id, variant, {_LOGARITHM} AS value FROM answer
), pair AS (
  SELECT metric, unit_id, max(value) FILTER (variant = $control) AS c,
    max(value) FILTER (variant = $treatment) AS t
  FROM scaled GROUP BY metric, unit_id
)
SELECT metric, count(*), avg(t - c), var_pop(t - c) * count(*),
  avg(c), var_pop(c) * count(*), avg(t), var_pop(t) * count(*)
FROM pair WHERE c IS NOT NULL AND t IS NOT NULL GROUP BY metric ORDER BY metric
"""  # noqa: S608 - pieces of this module, no input


def observe_all(
    connection: duckdb.DuckDBPyConnection,
    *,
    experiment: str,
    epochs: tuple[int, int],
    metrics: Sequence[Metric],
    control: str,
    treatment: str,
    now: float,
) -> Observation:
    """Everything a look needs of one experiment, from all of its events.

    This is the definition; `abkit.store.rollup` gives the same numbers for the price of the news.

    Args:
        connection: an open store.
        experiment: key of the experiment.
        epochs: first and last allocation epoch to count.
        metrics: which outcomes, and how they become one number a unit.
        control: name of the control.
        treatment: name of the treatment.
        now: time of the look, seconds since 1970 in UTC.
    """
    scope = {"experiment": experiment, "first_epoch": epochs[0], "last_epoch": epochs[1]}
    connection.execute(_UNITS, scope)
    connection.execute(_METRICS)
    connection.executemany(
        "INSERT INTO metric VALUES (?, ?, ?)", [[m.key, m.aggregate, m.log] for m in metrics]
    )
    exposures: dict[int, dict[str, int]] = {}
    for epoch, variant, n in connection.execute(_EXPOSURES).fetchall():
        exposures.setdefault(epoch, {})[variant] = n
    connection.execute(_VALUES, {"experiment": experiment})
    values: dict[str, dict[int, dict[str, Moments]]] = {}
    for metric, epoch, variant, n, mean, m2 in connection.execute(_CELLS).fetchall():
        values.setdefault(metric, {}).setdefault(epoch, {})[variant] = Moments(n, mean, m2)
    for item in metrics:
        # A metric that nobody has ever recorded is unknown, not zero: it may be misspelt.
        if item.missing == "zero" and item.key in values:
            values[item.key] = with_zeros(values[item.key], exposures)
    names = {"experiment": experiment, "control": control, "treatment": treatment}
    pairs = {
        row[0]: Paired(*(Moments(row[1], row[i], row[i + 1]) for i in (2, 4, 6)))
        for row in connection.execute(_PAIRS, names).fetchall()
    }
    return Observation(now, exposures, values, pairs)


def with_zeros(
    cells: dict[int, dict[str, Moments]], exposures: dict[int, dict[str, int]]
) -> dict[int, dict[str, Moments]]:
    """Count exposed units without an outcome as zeros."""
    none = Moments()
    return {
        epoch: {
            variant: (seen := cells.get(epoch, {}).get(variant, none)) + Moments(max(0, n - seen.n))
            for variant, n in row.items()
        }
        for epoch, row in exposures.items()
    }


def timestamp(seconds: float) -> datetime:
    """UTC time without a zone, as the store keeps it, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
