"""From a vendor's words to abkit's: names, ranges, layers.

A vendor's module describes each experiment as a `Draft`, in the vendor's own names, or raises
`Unsupported` where it cannot be carried over; `collect` turns the drafts into what is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from abkit.bucketing import SPACE
from abkit.bucketing.scheme import scheme
from abkit.compat import Imported, Skipped
from abkit.compat.names import fresh, lawful
from abkit.errors import ConfigError
from abkit.experiment import Experiment, State
from abkit.layer import Layer
from abkit.ranges import Range
from abkit.records import is_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from abkit.bucketing.scheme import Slots

_T = TypeVar("_T")
_ROOM = 500

NOTHING = "off"
"""Control where a vendor serves some units no variant at all, and none is called "control"."""


class Unsupported(Exception):  # noqa: N818 - no error of the user's: it ends as a Skipped
    """Something cannot be carried over; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Span:
    """Buckets `lower <= bucket < upper` that go to one variant, unless an earlier span has them."""

    lower: int
    upper: int
    owner: str


@dataclass(frozen=True, slots=True)
class Part:
    """An experiment's part of a layer.

    Args:
        layer: the vendor's name of the layer.
        salt: of the layer.
        hash: of the layer.
        spans: the buckets of this experiment; their owner does not matter.
    """

    layer: str
    salt: str
    hash: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An experiment in the vendor's own names.

    Args:
        key: the name that serving code asks for.
        hash: name of the bucketing function.
        salt: decides the variant.
        spans: buckets per variant; where they overlap, the first one has them.
        variants: all variants, those without buckets too.
        control: what the vendor serves outside of the experiment; may be no variant of it.
        state: whether it runs.
        rollout: share of units inside.
        rollout_salt: decides who is inside; empty for `salt`.
        overrides: unit to variant.
        part: of a layer, or None.
    """

    key: str
    hash: str
    salt: str
    spans: tuple[Span, ...]
    variants: tuple[str, ...]
    control: str
    state: State = "running"
    rollout: float = 1.0
    rollout_salt: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    part: Part | None = None


def collect(
    items: Iterable[tuple[str, _T]],
    read: Callable[[str, _T], Draft],
    skipped: Iterable[Skipped] = (),
) -> Imported:
    """All experiments that can be carried over, and why the others cannot.

    Args:
        items: the vendor's key and description of each.
        read: makes a draft of one, or raises `Unsupported`.
        skipped: what was left out before.
    """
    drafts, left = [], list(skipped)
    for key, item in items:
        try:
            drafts.append(read(key, item))
        except Unsupported as reason:
            left.append(Skipped(key, str(reason)))
    keys = lawful(draft.key for draft in drafts)
    layers = _Layers(draft.part for draft in drafts)
    renamed = {old: new for old, new in {**keys, **layers.names}.items() if old != new}
    experiments = []
    for number, draft in enumerate(drafts):
        names = lawful((*draft.variants, draft.control))
        try:
            layer = layers.of(number)
            experiment = _experiment(draft, keys[draft.key], names, layer.key if layer else "")
        except (ConfigError, Unsupported) as reason:
            left.append(Skipped(draft.key, str(reason)))
            continue
        layers.place(number, experiment.key)
        experiments.append(experiment)
        renamed |= {f"{draft.key}/{old}": new for old, new in names.items() if old != new}
    return Imported(tuple(experiments), layers.found(), tuple(left), renamed)


def first_slot(count: int, share: float) -> int:
    """The first of `count` slots whose share of all slots is not below the given one.

    A vendor that compares `slot / count < share` in floating point says yes to exactly the slots
    below this one.

    Args:
        count: number of slots.
        share: any finite number; below 0 it is the first slot, above 1 it is `count`.
    """
    share = min(max(share, 0.0), 2.0)
    slot = max(math.floor(share * count) - 2, 0)
    while slot < count and slot / count < share:
        slot += 1
    return min(slot, count)


def share_below(slots: Slots, slot: int) -> float:
    """The rollout that lets in the slots below this one; exact, as 2**52 is a power of two."""
    return slots.edge(min(max(slot, 0), slots.count)) / SPACE


def span(slots: Slots, lower: int, upper: int, owner: str = "") -> Span:
    """The buckets of the slots `lower <= slot < upper`."""
    low, high = (slots.edge(min(max(slot, 0), slots.count)) for slot in (lower, upper))
    return Span(low, high, owner)


def carved(spans: Iterable[Span]) -> tuple[Range, ...]:
    """Sorted, disjoint ranges, where of spans that overlap the first one has the buckets."""
    given = [item for item in spans if item.lower < item.upper]
    cuts = sorted({edge for item in given for edge in (item.lower, item.upper)})
    ranges: list[Range] = []
    for lower, upper in pairwise(cuts):
        owner = next((s.owner for s in given if s.lower <= lower and upper <= s.upper), None)
        if owner is None:
            continue
        if ranges and ranges[-1].upper == lower and ranges[-1].variant == owner:
            lower = ranges.pop().lower  # noqa: PLW2901 - the range before goes on
        ranges.append(Range(lower, upper, owner))
    return tuple(ranges)


def is_everybody(spans: Iterable[Span]) -> bool:
    """Whether every bucket belongs to somebody."""
    return sum(item.width for item in carved(spans)) == SPACE


def control_where_nothing(variants: Sequence[str], *, outside: bool) -> str:
    """Control where the vendor answers "no variant" to units outside, and leaves it to the caller.

    The variant called "control" where there is one. Otherwise any other variant would be new to
    the units outside, and so control is a name of its own for them; where nobody is outside, it
    is the first variant.

    Args:
        variants: all variants, at least one.
        outside: whether some unit is outside.
    """
    named = next((name for name in variants if name.casefold() == "control"), "")
    return named or (fresh(NOTHING, variants) if outside else variants[0])


def _experiment(draft: Draft, key: str, names: Mapping[str, str], layer: str) -> Experiment:
    ranges = carved(Span(s.lower, s.upper, names[s.owner]) for s in draft.spans)
    if not ranges or (draft.part is not None and not carved(draft.part.spans)):
        raise Unsupported("no unit is in it: its traffic is 0 %")
    reached = {item.variant for item in ranges} | {names[draft.control]}
    return Experiment(
        key=key,
        salt=draft.salt,
        control=names[draft.control],
        ranges=ranges,
        state=draft.state,
        rollout=draft.rollout,
        rollout_salt=draft.rollout_salt or _spare_salt(draft),
        idle=tuple(names[name] for name in draft.variants if names[name] not in reached),
        # Nothing with such an id is a unit.
        overrides={u: names[name] for u, name in draft.overrides.items() if u and is_text(u)},
        hash=draft.hash,
        layer=layer,
    )


def _spare_salt(draft: Draft) -> str:
    """A salt for a rollout that is everybody today, where the vendor knows no second hash.

    With the salt of the split, a rollout that somebody lowers later would take whole variants away.
    """
    hashes = scheme(draft.hash)
    is_needed = draft.rollout == 1 and hashes.split is hashes.rollout
    return f"{draft.salt[:_ROOM]}.rollout" if is_needed else ""


class _Layers:
    """The layers of some drafts: parts of one layer that overlap go to copies of it.

    A vendor may let two experiments overlap that share a hash; each copy has the same salt, so
    that every unit is in the same experiments as before.
    """

    def __init__(self, parts: Iterable[Part | None]) -> None:
        self._parts = list(parts)
        self._shelf_of: list[int | None] = []
        self._names: list[str] = []
        shelves: list[tuple[tuple[str, str, str], list[Span]]] = []
        for part in self._parts:
            if part is None:
                self._shelf_of.append(None)
                continue
            same = (part.layer, part.salt, part.hash)
            fits = (n for n, (what, has) in enumerate(shelves) if what == same)
            spot = next((n for n in fits if not _overlap(shelves[n][1], part.spans)), len(shelves))
            if spot == len(shelves):
                shelves.append((same, []))
                self._names.append(fresh(part.layer, self._names))
            shelves[spot][1].extend(part.spans)
            self._shelf_of.append(spot)
        self.names = lawful(self._names)
        self._placed: dict[int, list[Span]] = {}

    def of(self, number: int) -> Layer | None:
        """The layer of a draft, still without ranges, or None."""
        part, shelf = self._parts[number], self._shelf_of[number]
        if part is None or shelf is None:
            return None
        return Layer(key=self.names[self._names[shelf]], salt=part.salt, hash=part.hash)

    def place(self, number: int, experiment: str) -> None:
        """Give a draft's experiment its part."""
        part, shelf = self._parts[number], self._shelf_of[number]
        if part is not None and shelf is not None:
            spans = (Span(item.lower, item.upper, experiment) for item in part.spans)
            self._placed.setdefault(shelf, []).extend(spans)

    def found(self) -> tuple[Layer, ...]:
        """All layers that an experiment is in."""
        layers: dict[int, Layer] = {}
        for number, shelf in enumerate(self._shelf_of):
            layer = self.of(number) if shelf in self._placed else None
            if layer is not None and shelf is not None:
                layers[shelf] = replace(layer, ranges=carved(self._placed[shelf]))
        return tuple(layers[shelf] for shelf in sorted(layers))


def _overlap(some: Iterable[Span], others: Sequence[Span]) -> bool:
    return any(a.lower < b.upper and b.lower < a.upper for a in some for b in others)
