"""What a table can be given, numbered: one code stands for a variant with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.bucketing.scheme import is_vendor
from abkit.errors import ConfigError, UnknownExperimentError
from abkit.experiment import Experiment
from abkit.layer import HELD_OUT, Holdout, Layer
from abkit.records import hint
from abkit.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from abkit.assignment import Reason

INVALID = 0
"""The code of what is no unit; it comes first everywhere."""


@dataclass(frozen=True, slots=True)
class Bound:
    """An experiment together with the layer and holdouts that it names.

    Args:
        experiment: whom to serve what.
        layers: layers by key, its own among them.
        holdouts: holdouts by key, its own among them.
    """

    experiment: Experiment
    layers: Mapping[str, Layer]
    holdouts: Mapping[str, Holdout]


def experiment_of(snapshot: Snapshot | None, key: str) -> Bound:
    """An experiment or holdout of a snapshot, with whatever it names; for `assign_many`.

    Raises:
        UnknownExperimentError: there is no such key; the message lists those there are.
    """
    if snapshot is None:
        raise UnknownExperimentError(
            f"no experiment {key!r}: no snapshot has been read yet; publish one first"
        )
    found = snapshot.experiments.get(key)
    if found is None and key in snapshot.holdouts:
        item = snapshot.holdouts[key]
        found = Experiment(key=key, salt=item.salt, control=HELD_OUT, ranges=item.ranges)
    if found is None:
        known = dict.fromkeys([*snapshot.experiments, *snapshot.holdouts])
        listed = ", ".join(map(repr, known)) or "none"
        raise UnknownExperimentError(
            f"no experiment {key!r}{hint(key, known)}; there are: {listed}"
        )
    return Bound(found, snapshot.layers, snapshot.holdouts)


def bind(
    experiment: Experiment | Bound, layers: Iterable[Layer], holdouts: Iterable[Holdout]
) -> Bound:
    """An experiment with the layers and holdouts beside it.

    Raises:
        ConfigError: it is no experiment, or names a layer or holdout that is not there.
    """
    layers, holdouts = tuple(layers), tuple(holdouts)
    if isinstance(experiment, Bound):
        if layers or holdouts:
            raise ConfigError(
                "layers and holdouts come with the snapshot already; leave them out here"
            )
        return experiment
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"assign_many takes an Experiment, got {type(experiment).__name__}; "
            "by key, ask a client: ab.assign_many(key, units)"
        )
    snapshot = Snapshot.of([experiment], layers=layers, holdouts=holdouts, version=0, published=0.0)
    return experiment_of(snapshot, experiment.key)


@dataclass(frozen=True, slots=True)
class Plan:
    """A bound experiment, and the number of each thing that a unit may get from it.

    Args:
        bound: the experiment.
        outcomes: variant and reason by code, without repeats; `INVALID` is the first.
    """

    bound: Bound
    outcomes: tuple[tuple[str, Reason], ...]

    @classmethod
    def of(cls, bound: Bound) -> Plan:
        """The plan of an experiment."""
        item = bound.experiment
        found: list[tuple[str, Reason]] = [(item.control, "invalid_unit")]
        if item.state != "running":
            return cls(bound, (*found, (item.control, item.state)))
        found += [(name, "override") for name in item.overrides.values()]
        if item.holdouts:
            found.append((item.control, "holdout"))
        if item.layer:
            found.append((item.control, "layer"))
        if item.targeting is not None:
            found.append((item.control, "targeting"))
        found.append((item.control, "rollout"))
        found += [(part.variant, "split") for part in item.ranges]
        return cls(bound, tuple(dict.fromkeys(found)))

    @property
    def experiment(self) -> Experiment:
        """The experiment."""
        return self.bound.experiment

    def code(self, variant: str, reason: Reason) -> int:
        """The number of an outcome."""
        return self.outcomes.index((variant, reason))

    def out(self, reason: Reason) -> int:
        """The number of being kept out with control for this reason."""
        return self.code(self.experiment.control, reason)

    @property
    def overrides(self) -> dict[str, int]:
        """Code by unit."""
        if self.experiment.state != "running":
            return {}
        given = self.experiment.overrides
        codes = {name: self.code(name, "override") for name in set(given.values())}
        return {unit: codes[name] for unit, name in given.items()}

    @property
    def variants(self) -> list[str]:
        """All variants that may be served, in the experiment's order where it has one."""
        served = {variant for variant, _ in self.outcomes}
        known = [name for name in self.experiment.variants if name in served]
        return list(dict.fromkeys([*known, *(variant for variant, _ in self.outcomes)]))

    @property
    def reasons(self) -> list[Reason]:
        """All reasons that may be given."""
        return list(dict.fromkeys(reason for _, reason in self.outcomes))

    @property
    def in_sql(self) -> bool:
        """Whether SQL knows every hash that is asked: abkit's own, but no vendor's."""
        item = self.experiment
        names = [item.hash]
        if item.layer:
            names.append(self.bound.layers[item.layer].hash)
        return item.state != "running" or not any(map(is_vendor, names))


def codes_where(plan: Plan, wanted: Collection[str]) -> list[int]:
    """The codes whose reason is one of these."""
    return [code for code, (_, reason) in enumerate(plan.outcomes) if reason in wanted]
