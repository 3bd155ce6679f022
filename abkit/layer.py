"""Layers and holdouts: what keeps experiments out of each other's way.

A layer gives each of its experiments a part of all units, so that no unit is in two of them. A
holdout keeps a share of all units out of every experiment that names it, to measure later what
all of them together were worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from abkit.bucketing import SPACE, threshold
from abkit.bucketing.scheme import check_hash
from abkit.errors import ConfigError
from abkit.metrics import check_name
from abkit.ranges import (
    Range,
    check_ranges,
    gaps,
    is_share,
    moved,
    ranges_data,
    ranges_from,
    widths,
)
from abkit.records import build

HELD_OUT = "held-out"
OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Experiments that exclude each other.

    Args:
        key: the name that experiments refer to.
        salt: decides the hash; independent of the experiments' own salts.
        ranges: sorted, disjoint bucket ranges, each owned by an experiment's key; what no range
            covers is free.
        hash: name of the bucketing function.
    """

    key: str
    salt: str
    ranges: tuple[Range, ...] = ()
    hash: str = "abkit-v1"

    def __post_init__(self) -> None:
        """Check everything that serving will rely on."""
        check_name(self.key, "layer key")
        where = f"layer {self.key!r}"
        check_hash(where, self.hash, self.salt)
        check_ranges(where, self.ranges, may_be_empty=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A layer from plain data, with `ranges`, or `shares` by experiment as people write them.

        Raises:
            ConfigError: something is missing, unknown or unlawful; the message names it.
        """
        if isinstance(data, Mapping) and "shares" in data:
            shares = data["shares"]
            if not isinstance(shares, Mapping) or "ranges" in data:
                raise ConfigError(
                    f"layer {data.get('key')!r}: shares must be a table of experiment = share, "
                    f"in the place of ranges, got {shares!r}"
                )
            layer = build(cls, {k: v for k, v in data.items() if k != "shares"}, "a layer")
            for experiment, share in shares.items():
                layer = layer.resize(experiment, share)
            return layer
        if isinstance(data, Mapping) and "ranges" in data:
            where = f"layer {data.get('key')!r}"
            data = {**data, "ranges": ranges_from(where, data["ranges"])}
        return build(cls, data, "a layer")

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return {
            "key": self.key,
            "salt": self.salt,
            "ranges": ranges_data(self.ranges),
            "hash": self.hash,
        }

    @property
    def shares(self) -> dict[str, float]:
        """Share of all units per experiment."""
        return {name: width / SPACE for name, width in widths(self.ranges).items()}

    def resize(self, experiment: str, share: float) -> Self:
        """The same layer with another share for one experiment; all others keep their units.

        Args:
            experiment: key of the experiment; it may be new to the layer.
            share: of all units, in [0, 1]; 0 frees its part.

        Raises:
            ConfigError: there is not that much free space; the message says how much there is.
        """
        check_name(experiment, f"layer {self.key!r}: experiment")
        if not is_share(share):
            raise ConfigError(f"layer {self.key!r}: share must lie in [0, 1], got {share!r}")
        wanted = widths(self.ranges)
        before = wanted.pop(experiment, 0)
        width = threshold(share)
        free = sum(upper - lower for lower, upper in gaps(self.ranges)) + before
        if width > free:
            raise ConfigError(
                f"layer {self.key!r}: {experiment!r} wants {share:g} of all units, but only "
                f"{free / SPACE:g} is free"
            )
        return replace(self, ranges=moved(self.ranges, {**wanted, experiment: width}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """A share of all units that no experiment touches which names this holdout.

    Args:
        key: the name that experiments refer to. Serving may `assign` it like an experiment: it
            answers "held-out" or "open", and exposures to it measure what all experiments
            together were worth.
        salt: decides the hash.
        share: of all units, in [0, 1].
    """

    key: str
    salt: str
    share: float

    def __post_init__(self) -> None:
        """Check everything that serving will rely on."""
        check_name(self.key, "holdout key")
        where = f"holdout {self.key!r}"
        check_hash(where, "abkit-v1", self.salt)
        if not is_share(self.share):
            raise ConfigError(f"{where}: share must lie in [0, 1], got {self.share!r}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A holdout from plain data.

        Raises:
            ConfigError: something is missing, unknown or unlawful; the message names it.
        """
        return build(cls, data, "a holdout")

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return {"key": self.key, "salt": self.salt, "share": self.share}

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Two ranges, of the units held out and the others."""
        edge = threshold(self.share)
        both = Range(0, edge, HELD_OUT), Range(edge, SPACE, OPEN)
        return tuple(item for item in both if item.width)
