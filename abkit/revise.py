"""Revisions: what publishing an experiment anew may change, moving as few units as can be.

A file that is edited and published again says what the shares should be now, and not what they
were. Here the two are brought together: who keeps a variant keeps its units, and the epoch grows
whenever the allocation changes, because analyses are stratified by it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from abkit.errors import ConfigError
from abkit.ranges import moved, widths
from abkit.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from abkit.experiment import Experiment
    from abkit.layer import Holdout, Layer
    from abkit.rollout import Rollout

    Parts = tuple[Mapping[str, Layer], Mapping[str, Holdout]]

# What decides who gets what, besides ranges; the epoch grows when one of them changes.
_ALLOCATION = (
    "control",
    "state",
    "rollout",
    "rollout_salt",
    "layer",
    "holdouts",
    "targeting",
    "sticky",
)


def revised(
    stored: Mapping[str, Experiment],
    given: Iterable[Experiment],
    *,
    before: Parts,
    after: Parts,
) -> dict[str, Experiment]:
    """The experiments to store, by key: those given, and those whose layer or holdout changed.

    Args:
        stored: the experiments as they are, by key.
        given: experiments as they should be.
        before: layers and holdouts as they are.
        after: layers and holdouts as they should be.

    Raises:
        ConfigError: a salt or hash changes, which would re-randomise every unit.
    """
    _check_salts(before, after)
    wanted = {item.key: _revised(stored.get(item.key), item) for item in given}
    for key, item in stored.items():
        current = wanted.get(key, item)
        if current.epoch == item.epoch and _share(item, before) != _share(current, after):
            wanted[key] = replace(current, epoch=item.epoch + 1)
    return wanted


def _revised(old: Experiment | None, new: Experiment) -> Experiment:
    if old is None:
        return new
    for name in ("hash", "salt"):
        if getattr(old, name) != getattr(new, name):
            raise ConfigError(
                f"experiment {new.key!r}: {name} would change from {getattr(old, name)!r} to "
                f"{getattr(new, name)!r}, and with it the variant of every unit; keep it, or "
                "begin an experiment with another key"
            )
    if new.epoch > old.epoch:  # whoever made it knew the one before
        return new
    ranges = moved(old.ranges, widths(new.ranges))
    same = ranges == old.ranges and all(
        getattr(old, name) == getattr(new, name) for name in _ALLOCATION
    )
    return replace(new, ranges=ranges, epoch=old.epoch if same else old.epoch + 1)


def resized(old: Layer | None, new: Layer) -> Layer:
    """A layer with the wanted parts, that moves as few units as can be."""
    if old is None or old.salt != new.salt:
        return new
    return replace(new, ranges=moved(old.ranges, widths(new.ranges)))


def check_parts(given: Iterable[Experiment], layers: Mapping[str, Layer]) -> None:
    """Refuse a running experiment whose layer gives it nothing: nobody would be in it.

    Raises:
        ConfigError: the message says whom the layer knows.
    """
    for item in given:
        layer = layers.get(item.layer)
        if layer is None or item.state != "running":
            continue
        known = widths(layer.ranges)
        if item.key not in known:
            raise ConfigError(
                f"experiment {item.key!r} names the layer {layer.key!r}, which gives it no "
                f"buckets; it has {', '.join(known) or 'none'}"
            )


def after(rollout: Rollout, item: Experiment) -> Experiment:
    """An experiment that takes over from a rollout which is over, in the next epoch."""
    return replace(item, epoch=max(item.epoch, rollout.last_epoch + 1))


def inherited(experiment: Experiment, old: Experiment, *, with_salt: bool) -> Experiment:
    """What a rollout's experiment takes over from the one that is published.

    Args:
        experiment: of the rollout.
        old: the one that serves now.
        with_salt: whether the hash goes on too.
    """
    lawful = {*experiment.variants}
    found = replace(
        experiment,
        layer=old.layer,
        holdouts=old.holdouts,
        targeting=old.targeting,
        sticky=old.sticky,
        overrides={u: v for u, v in old.overrides.items() if v in lawful},
    )
    if not with_salt:
        return found
    return replace(found, salt=old.salt, hash=old.hash, rollout_salt=old.rollout_salt)


def _share(item: Experiment, parts: Parts) -> object:
    """What an experiment is left by its layer and holdouts."""
    layers, holdouts = parts
    layer = layers.get(item.layer)
    own = [] if layer is None else [part for part in layer.ranges if part.variant == item.key]
    return own, [(key, holdouts[key].share) for key in item.holdouts if key in holdouts]


def check_live(rollouts: Iterable[Rollout], *, before: Parts, after: Parts) -> None:
    """Refuse to take units from, or give units to, an experiment in the middle of its rollout.

    Raises:
        ConfigError: a layer or holdout that a live rollout's experiment names would change.
    """
    for rollout in rollouts:
        item = rollout.experiment
        if rollout.live and _share(item, before) != _share(item, after):
            raise ConfigError(
                f"rollout {rollout.key!r} is live, and its layer or holdout would change under "
                "it; halt or promote it first"
            )


def _check_salts(before: Parts, after: Parts) -> None:
    salts = [
        (f"{kind} {key!r}", item.salt, after[place][key].salt)
        for place, kind in enumerate(("layer", "holdout"))
        for key, item in before[place].items()
    ]
    for name, old, new in salts:
        if old != new:
            raise ConfigError(
                f"{name}: salt would change from {old!r} to {new!r}, and with it who is in it; "
                "keep it"
            )


def check_fit(given: Iterable[Experiment], parts: Parts, *, others: Iterable[str]) -> None:
    """Refuse what does not fit, before anything of it is written.

    Args:
        given: experiments to be stored.
        parts: layers and holdouts as they will be.
        others: keys of experiments that are there already.

    Raises:
        ConfigError: a layer or holdout is not there, or a key would mean two things.
    """
    layers, holdouts = parts
    Snapshot.of(given, layers=layers.values(), holdouts=holdouts.values(), version=0, published=0.0)
    both = sorted(set(others) & set(holdouts))
    if both:
        raise ConfigError(f"an experiment and a holdout have the key {both[0]!r}")


def fitting(
    experiments: Iterable[Experiment],
    layers: Mapping[str, Layer],
    holdouts: Mapping[str, Holdout],
    *,
    version: int,
    published: float,
) -> Snapshot:
    """A snapshot of these, whatever state the files they come from are in.

    A halt must be published also where a layer's file was deleted by hand: an experiment that
    does not fit serves control to everyone, as if it were killed.
    """
    fits: list[Experiment] = []
    holdouts = dict(holdouts)
    for item in experiments:
        holdouts.pop(item.key, None)
        fits.append(item)
    for index, item in enumerate(fits):
        try:
            Snapshot.of(
                [item],
                layers=layers.values(),
                holdouts=holdouts.values(),
                version=version,
                published=published,
            )
        except ConfigError:
            fits[index] = replace(item.kill(), layer="", holdouts=(), epoch=item.epoch)
    return Snapshot.of(
        fits,
        layers=layers.values(),
        holdouts=holdouts.values(),
        version=version,
        published=published,
    )
