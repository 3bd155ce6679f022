"""Sufficient statistics kept between looks, so that a look costs the new events only.

A look at metrics with an outcome window also looks at the units whose window is still open.
A scope lives in the memory of the one process that ingests, and holds nothing that the event tables
do not: a restarted controller builds it again at its first look, so no state on disk can disagree
with the events. `abkit.store.moments.observe_all` is the definition; this gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.observation import Observation
from abkit.store.moments import microseconds, observe_all, window_of, with_zeros
from abkit.store.rollup.counts import UncountableError
from abkit.store.rollup.questions import Definition
from abkit.store.rollup.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from abkit.metrics import Metric

_IDLE_LOOKS = 100


@dataclass(slots=True)
class _Held:
    """A scope, None where events can't be summed exactly, and the number of its newest look."""

    scope: Scope | None
    look: int


class Rollup:
    """The statistics of all experiments that are looked at.

    Guarantees against `observe_all` over the same events: the same counts, cells and pairs; means
    and m2 within 1e-9, relative to the largest value and its square, because order of summation
    differs within a unit. How the events arrived and in how many looks leaves no trace in a cell.
    Units are told apart by 64 bits of a hash: of 30 million, two fall together with odds of 2e-5.

    Not safe for several threads at once, like the connection itself.

    Args:
        connection: the open store.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Nothing held."""
        self._connection = connection
        self._held: dict[Definition, _Held] = {}
        self._looks = 0

    def observe(
        self,
        *,
        experiment: str,
        epochs: tuple[int, int],
        metrics: Sequence[Metric],
        control: str,
        treatment: str,
        now: float,
        load: int,
        rivals: tuple[str, ...] = (),
    ) -> Observation:
        """Everything a look needs of one experiment, up to a load.

        Args:
            experiment: key of the experiment.
            epochs: first and last allocation epoch to count.
            metrics: which outcomes, and how they become one number a unit.
            control: name of the control.
            treatment: name of the treatment.
            now: time of the look, seconds since 1970 in UTC.
            load: the newest load in the store; loads only grow.
            rivals: names of further treatments.
        """
        definition = Definition(experiment, epochs[0], control, treatment, tuple(metrics), rivals)
        try:
            scope = self._at(definition, load, epochs[1], microseconds(now))
            if scope is not None:
                return _observation(scope, metrics, now, rivals)
        except UncountableError:
            self._held[definition] = _Held(None, self._looks)
        return observe_all(
            self._connection,
            experiment=experiment,
            epochs=epochs,
            metrics=metrics,
            control=control,
            treatment=treatment,
            now=now,
            rivals=rivals,
        )

    def drop(self, experiment: str | None = None) -> None:
        """Forget what is held, because events were removed; the next look counts from the start.

        Args:
            experiment: of this experiment alone.
        """
        for definition in list(self._held):
            if experiment in (None, definition.experiment):
                del self._held[definition]

    def rebuild(self, *, load: int, experiment: str | None = None) -> None:
        """Count what is held from the start, now.

        Args:
            load: the newest load in the store.
            experiment: of this experiment alone.
        """
        scopes = {
            definition: (held.scope.last_epoch, held.scope.moment)
            for definition, held in self._held.items()
            if held.scope is not None and experiment in (None, definition.experiment)
        }
        self.drop(experiment)
        for definition, (last_epoch, moment) in scopes.items():
            self._at(definition, load, last_epoch, moment)

    def _at(self, definition: Definition, load: int, last_epoch: int, moment: int) -> Scope | None:
        """The scope, brought forward to a load."""
        self._looks += 1
        held = self._held.pop(definition, None)  # put back only if all goes well
        if held is not None and held.scope is None:
            self._held[definition] = _Held(None, self._looks)
            return None
        scope = None if held is None else held.scope
        if (
            scope is None
            or last_epoch < scope.last_epoch
            or load < scope.load
            or (scope.waits and moment < scope.moment)
        ):
            scope = Scope(self._connection, definition, last_epoch)
        is_later = scope.waits and moment > scope.moment
        if load > scope.load or last_epoch > scope.last_epoch or is_later:
            scope.look(load, last_epoch, moment)
        self._held[definition] = _Held(scope, self._looks)
        self._let_go()
        return scope

    def _let_go(self) -> None:
        """Free the scopes of rollouts that are over: all that are live get their looks in turn."""
        oldest = self._looks - _IDLE_LOOKS - 10 * len(self._held)
        for definition in [d for d, held in self._held.items() if held.look < oldest]:
            del self._held[definition]


def _observation(
    scope: Scope, metrics: Sequence[Metric], now: float, rivals: tuple[str, ...]
) -> Observation:
    exposures = scope.counts.units(scope.cells)
    values = scope.counts.moments(scope.cells)
    for metric in metrics:
        if metric.missing == "zero" and metric.key in values:
            units = scope.counts.units(scope.cells, window_of(metric))
            values[metric.key] = with_zeros(values[metric.key], units)
    epoch = scope.last_epoch
    returned = scope.counts.returning(scope.cells, epoch)
    live, *others = (
        scope.counts.live.get(number, {}).get(epoch, 0) for number in range(1, 2 + len(rivals))
    )
    lives = dict(zip(rivals, others, strict=True))
    return Observation(now, exposures, values, scope.counts.paired(), returned, live, lives)
