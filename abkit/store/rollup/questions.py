"""What a rollup asks of the event tables: columns of numbers, in pieces that fit in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb
    from numpy.typing import NDArray

    from abkit.metrics import Metric

GRACE = 60_000_000
"""An outcome counts from so many microseconds before the exposure."""
OWN, CONTROL, TREATMENT = range(3)
ROLES = 3
"""Slot of an outcome: ROLES x number of the metric + OWN, or the variant that answered.

In SQL the number is that of what is recorded, of which several metrics may be made.
"""
_BATCH = 1_000_000

_EXPOSURES = """
SELECT hash(unit_id) AS unit, epoch_us(time) AS time, variant, epoch FROM exposure
WHERE experiment = $experiment AND load BETWEEN $above AND $upto
  AND epoch BETWEEN $first_epoch AND $last_epoch
"""

_TIED_EXPOSURES = """
SELECT tied.unit, any_value(tied.time) AS time, arg_min(variant, (writer, sequence)) AS variant,
  arg_min(epoch, (writer, sequence)) AS epoch
FROM exposure e JOIN tied ON hash(e.unit_id) = tied.unit AND epoch_us(e.time) = tied.time
WHERE experiment = $experiment AND load <= $upto AND epoch BETWEEN $first_epoch AND $last_epoch
  AND e.time BETWEEN make_timestamp($since) AND make_timestamp($until)
GROUP BY tied.unit
"""

_OUTCOMES = """
SELECT hash(unit_id) AS unit, epoch_us(time) AS time, value, {slot} AS slot FROM outcome
WHERE load BETWEEN $above AND $upto AND {kept}
"""

_SINCE = " AND time >= make_timestamp($since)"
_UNTIL = " AND time < make_timestamp($until)"
_WANTED = " AND hash(unit_id) IN (SELECT unit FROM wanted)"

_TIED_OUTCOMES = """
SELECT unit, slot, {choose}(value, (writer, sequence)) AS value FROM (
  SELECT tied.unit, value, writer, sequence, {slot} AS slot
  FROM outcome o JOIN tied ON hash(o.unit_id) = tied.unit AND epoch_us(o.time) = tied.time
  WHERE load <= $upto AND {kept}
    AND o.time BETWEEN make_timestamp($since) AND make_timestamp($until)
) WHERE slot = $slot GROUP BY unit, slot
"""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a scope counts. If any of it changes, it is another scope.

    Args:
        experiment: key of the experiment.
        first_epoch: first allocation epoch to count.
        control: name of the control.
        treatment: name of the treatment.
        metrics: which outcomes, and how they become one number a unit.
        rivals: names of further treatments.
    """

    experiment: str
    first_epoch: int
    control: str
    treatment: str
    metrics: tuple[Metric, ...]
    rivals: tuple[str, ...] = ()


class Questions:
    """The questions of one scope.

    Args:
        connection: an open store.
        definition: what is counted.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, definition: Definition) -> None:
        """Prepare the texts."""
        self._connection = connection
        self._experiment = definition.experiment
        self._first_epoch = definition.first_epoch
        recorded = list(dict.fromkeys(metric.recorded for metric in definition.metrics))
        self._source = [recorded.index(metric.recorded) for metric in definition.metrics]
        keys = {f"metric{i}": name for i, name in enumerate(recorded)}
        answers = {"control": definition.control, "treatment": definition.treatment}
        self._names: dict[str, str] = {**keys, **answers, "experiment": definition.experiment}
        numbers = " ".join(f"WHEN ${name} THEN {ROLES * i}" for i, name in enumerate(keys))
        self._texts = {
            "slot": f"(CASE metric {numbers} END + CASE variant WHEN '' THEN {OWN} "
            f"WHEN $control THEN {CONTROL} ELSE {TREATMENT} END)",
            "kept": f"metric IN ({', '.join(f'${name}' for name in keys)}) AND ((variant = '' "
            "AND experiment IN ('', $experiment)) "
            "OR (experiment = $experiment AND variant IN ($control, $treatment)))",
        }

    def exposures(
        self, loads: tuple[int, int], epochs: tuple[int, int]
    ) -> Iterator[dict[str, Any]]:
        """Exposures in these loads and epochs, both ends included: unit, time, variant, epoch."""
        scope = {"experiment": self._experiment, "above": loads[0], "upto": loads[1]}
        yield from self._read(
            _EXPOSURES, scope | {"first_epoch": epochs[0], "last_epoch": epochs[1]}
        )

    def outcomes(
        self,
        loads: tuple[int, int],
        *,
        since: int | None = None,
        until: int | None = None,
        units: NDArray[np.uint64] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Outcomes in these loads: unit, time, value, slot.

        Args:
            loads: first and last load.
            since: not before this time, microseconds since 1970.
            until: before this time.
            units: of these units only.
        """
        query = _OUTCOMES.format(**self._texts)
        values: dict[str, Any] = {**self._names, "above": loads[0], "upto": loads[1]}
        if since is not None:
            query, values["since"] = query + _SINCE, since
        if until is not None:
            query, values["until"] = query + _UNTIL, until
        if units is None:
            yield from map(self._by_metric, self._read(query, values))
            return
        self._connection.register("wanted", pa.table({"unit": units}))
        try:
            yield from map(self._by_metric, self._read(query + _WANTED, values))
        finally:
            self._connection.unregister("wanted")

    def _by_metric(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with each outcome once for every metric that is made of it."""
        if self._source == list(range(len(self._source))):
            return batch
        source, role = np.divmod(batch["slot"], ROLES)
        places = [np.flatnonzero(source == number) for number in self._source]
        chosen = np.concatenate(places)
        metric = np.repeat(np.arange(len(places)), [len(place) for place in places])
        return {
            **{name: column[chosen] for name, column in batch.items() if name != "slot"},
            "slot": ROLES * metric + role[chosen],
        }

    def first_of_tied(
        self, units: NDArray[np.uint64], times: NDArray[np.int64], *, upto: int, last_epoch: int
    ) -> Iterator[dict[str, Any]]:
        """Which of a unit's exposures of one time is the first: unit, time, variant, epoch."""
        scope = {"experiment": self._experiment, "upto": upto}
        scope |= {"first_epoch": self._first_epoch, "last_epoch": last_epoch}
        return self._tied(_TIED_EXPOSURES, scope, units, times)

    def value_of_tied(
        self,
        slot: int,
        units: NDArray[np.uint64],
        times: NDArray[np.int64],
        *,
        last: bool,
        upto: int,
    ) -> Iterator[dict[str, Any]]:
        """Which of a unit's outcomes of one time is the last or the first: unit, value."""
        choose = "arg_max" if last else "arg_min"
        query = _TIED_OUTCOMES.format(choose=choose, **self._texts)
        metric, role = divmod(slot, ROLES)
        recorded = ROLES * self._source[metric] + role
        return self._tied(query, {**self._names, "upto": upto, "slot": recorded}, units, times)

    def _tied(
        self,
        query: str,
        values: Mapping[str, Any],
        units: NDArray[np.uint64],
        times: NDArray[np.int64],
    ) -> Iterator[dict[str, Any]]:
        self._connection.register("tied", pa.table({"unit": units, "time": times}))
        try:
            ends = {"since": int(times.min()), "until": int(times.max())}
            yield from self._read(query, {**values, **ends})
        finally:
            self._connection.unregister("tied")

    def _read(self, query: str, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Columns of numbers; a column of text stays an arrow array."""
        result = self._connection.sql(query, params=dict(values))
        for batch in result.to_arrow_reader(_BATCH):
            if batch.num_rows:
                yield {
                    name: column if name == "variant" else column.to_numpy(zero_copy_only=False)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
