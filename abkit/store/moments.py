"""From events to sufficient statistics: what an experiment's numbers mean, in SQL."""

from __future__ import annotations

import math
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
UNITS = """
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

_METRICS = """
CREATE OR REPLACE TEMP TABLE metric (
  key VARCHAR, source VARCHAR, aggregate VARCHAR, logarithm BOOLEAN, above DOUBLE, below DOUBLE,
  time_window BIGINT
)
"""

_EXPOSURES = """
SELECT epoch, variant, count(*) FROM unit
WHERE $ripe IS NULL OR epoch_us(since) <= $ripe GROUP BY ALL ORDER BY ALL
"""

# Units met in the newest epoch: by the epoch and variant they count for, if it is theirs still; and
# how many have the treatment there, whatever they had before.
_RETURNED = """
WITH met AS (
  SELECT DISTINCT unit_id, variant FROM exposure
  WHERE experiment = $experiment AND epoch = $last_epoch AND list_contains($variants, variant)
)
SELECT unit.epoch, unit.variant, count(*) FROM unit JOIN met USING (unit_id, variant)
GROUP BY ALL ORDER BY ALL
"""
_LIVE = """
SELECT count(DISTINCT unit_id) FROM exposure
WHERE experiment = $experiment AND epoch = $last_epoch AND variant = $treatment
"""

AGGREGATE = """
  CASE any_value(metric.aggregate)
    WHEN 'last' THEN arg_max(o.value, (o.time, o.writer, o.sequence))
    WHEN 'first' THEN arg_min(o.value, (o.time, o.writer, o.sequence))
    WHEN 'sum' THEN sum(o.value) WHEN 'mean' THEN avg(o.value) ELSE max(o.value) END
"""

# From a unit's one value to the number that counts: of `value`, with the columns of READ.
SCALED = """
  CASE WHEN logarithm THEN ln(CASE WHEN value > 0 THEN value END)
    WHEN above IS NOT NULL THEN (value > above)::DOUBLE
    WHEN below IS NOT NULL THEN (value < below)::DOUBLE ELSE value END
"""

READ = f"""
  any_value(metric.logarithm) AS logarithm, any_value(metric.above) AS above,
  any_value(metric.below) AS below, {AGGREGATE} AS value
"""

COUNTS = """o.time >= unit.since - INTERVAL 60 SECOND
    AND (unit.until IS NULL OR o.time < unit.until)
    AND (metric.aggregate <> 'sum' OR unit.closed IS NULL OR o.time < unit.closed)"""

# A metric with a window counts a unit once the window is over, and what came within it.
_WINDOW = """(metric.time_window IS NULL
    OR (o.time < unit.since + to_microseconds(metric.time_window)
      AND epoch_us(unit.since) + metric.time_window <= $now))"""

_VALUES = f"""
CREATE OR REPLACE TEMP TABLE unit_value AS
WITH value AS (
  SELECT metric.key AS metric, unit.epoch, unit.variant, o.unit_id, max(o.time) AS time, {READ}
  FROM outcome o JOIN metric ON metric.source = o.metric JOIN unit ON unit.unit_id = o.unit_id
  WHERE o.variant = '' AND o.experiment IN ('', $experiment)
    AND {COUNTS} AND {_WINDOW}
  GROUP BY metric.key, unit.epoch, unit.variant, o.unit_id
)
SELECT metric, epoch, variant, time, {SCALED} AS value FROM value
"""  # noqa: S608 - pieces of this module, no input

_CELLS = """
SELECT metric, epoch, variant, count(value), coalesce(avg(value), 0),
  coalesce(var_pop(value), 0) * count(value)
FROM unit_value GROUP BY metric, epoch, variant ORDER BY metric, epoch, variant
"""

_PAIRS = f"""
WITH answer AS (
  SELECT metric.key AS metric, o.unit_id, o.variant, {READ}
  FROM outcome o JOIN metric ON metric.source = o.metric JOIN unit ON unit.unit_id = o.unit_id
  WHERE o.experiment = $experiment AND o.variant IN ($control, $treatment)
    AND o.time >= unit.since - INTERVAL 60 SECOND
  GROUP BY metric.key, o.unit_id, o.variant
), scaled AS (SELECT metric, unit_id, variant, {SCALED} AS value FROM answer
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
    rivals: tuple[str, ...] = (),
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
        rivals: names of further treatments.
    """
    scope = {"experiment": experiment, "first_epoch": epochs[0], "last_epoch": epochs[1]}
    connection.execute(UNITS, scope)
    declare(connection, metrics)
    exposures = _by_cell(connection.execute(_EXPOSURES, {"ripe": None}).fetchall())
    moment = microseconds(now)
    connection.execute(_VALUES, {"experiment": experiment, "now": moment})
    values: dict[str, dict[int, dict[str, Moments]]] = {}
    for metric, epoch, variant, n, mean, m2 in connection.execute(_CELLS).fetchall():
        values.setdefault(metric, {}).setdefault(epoch, {})[variant] = Moments(n, mean, m2)
    for item in metrics:
        # A metric that nobody has ever recorded is unknown, not zero: it may be misspelt.
        if item.missing == "zero" and item.key in values:
            ripe = window_of(item)
            units = exposures
            if ripe is not None:
                rows = connection.execute(_EXPOSURES, {"ripe": moment - ripe}).fetchall()
                units = _by_cell(rows)
            values[item.key] = with_zeros(values[item.key], units)
    names = {"experiment": experiment, "control": control, "treatment": treatment}
    pairs = {
        row[0]: Paired(*(Moments(row[1], row[i], row[i + 1]) for i in (2, 4, 6)))
        for row in connection.execute(_PAIRS, names).fetchall()
    }
    newest = {"experiment": experiment, "last_epoch": epochs[1]}
    lives: dict[str, int] = {}
    for name in (treatment, *rivals):
        ((n,),) = connection.execute(_LIVE, {**newest, "treatment": name}).fetchall()
        lives[name] = int(n)
    live = lives.pop(treatment)
    named = {**newest, "variants": [control, treatment, *rivals]}
    returned = _by_cell(connection.execute(_RETURNED, named).fetchall())
    return Observation(now, exposures, values, pairs, returned, live, lives)


def declare(connection: duckdb.DuckDBPyConnection, metrics: Sequence[Metric]) -> None:
    """Make the table of metrics that the queries here join outcomes with."""
    connection.execute(_METRICS)
    rows = [
        [m.key, m.recorded, m.aggregate, m.log, m.above, m.below, window_of(m)] for m in metrics
    ]
    if rows:
        connection.executemany("INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def window_of(metric: Metric) -> int | None:
    """The window of a metric in microseconds; None without one."""
    return None if metric.window_seconds is None else max(1, microseconds(metric.window_seconds))


def microseconds(seconds: float) -> int:
    """Whole microseconds, rounded down: no window is over before its time."""
    return math.floor(seconds * 1_000_000)


def _by_cell(rows: Sequence[tuple[int, str, int]]) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for epoch, variant, n in rows:
        found.setdefault(epoch, {})[variant] = n
    return found


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
