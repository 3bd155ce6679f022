"""The compiler: an experiment becomes a closure from unit_id and attributes to an arm.

The closure compares raw digest bytes with threshold bytes and returns an arm that was built
beforehand and that all such units share: nothing on the request's path parses, and nothing
raises.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from abkit.assignment import (
    MAX_UNIT_CHARACTERS,
    Arm,
    Assignment,
    Reason,
    Sticky,
    plain_text,
    unit_text,
)
from abkit.bucketing import SPACE, md5, threshold, threshold_bytes
from abkit.bucketing.scheme import is_vendor, scheme
from abkit.layer import HELD_OUT
from abkit.targeting import compile_condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from abkit.experiment import Experiment
    from abkit.layer import Holdout, Layer
    from abkit.ranges import Range
    from abkit.targeting import Attributes

    Choose = Callable[[object, "Attributes | None"], "Arm"]
    Early = Callable[[str, "Attributes | None"], "Arm | None"]

_HASHED = ("split", "rollout", "sticky")


class _Gates(NamedTuple):
    """What comes before the bucket: overrides by unit, and what may settle a unit after them."""

    overrides: dict[str, Arm]
    early: Early | None


_NOTHING: Mapping[str, Any] = {}


def compile_experiment(
    experiment: Experiment,
    *,
    version: int = 0,
    snapshot: str = "",
    layers: Mapping[str, Layer] = _NOTHING,
    holdouts: Mapping[str, Holdout] = _NOTHING,
    sticky: Sticky | None = None,
) -> Callable[..., Assignment]:
    """A function from unit_id and, optionally, attributes to assignment.

    See `compile_arms` for the arguments; this one names the unit in its result.
    """
    choose = compile_arms(
        experiment,
        version=version,
        snapshot=snapshot,
        layers=layers,
        holdouts=holdouts,
        sticky=sticky,
    )

    def assign(unit_id: object, attributes: Mapping[str, Any] | None = None) -> Assignment:
        return Assignment(plain_text(unit_id), choose(unit_id, attributes))

    return assign


def compile_arms(
    experiment: Experiment,
    *,
    version: int = 0,
    snapshot: str = "",
    layers: Mapping[str, Layer] = _NOTHING,
    holdouts: Mapping[str, Holdout] = _NOTHING,
    sticky: Sticky | None = None,
) -> Choose:
    """A function from unit_id and attributes to an arm that all such units share.

    The order is kill, override, holdout, layer, targeting, rollout, split. What a unit met
    before ("sticky") is asked for after the layer.

    Args:
        experiment: what to compile.
        version: version of the snapshot it came in.
        snapshot: hash of that snapshot.
        layers: layers by key; the experiment's own must be among them.
        holdouts: holdouts by key; the experiment's own must be among them.
        sticky: remembers what units met; without it, nothing sticks.

    Raises:
        KeyError: the experiment names a layer or holdout that is not there.
    """

    def arm(variant: str, reason: Reason) -> Arm:
        inside = reason in ("split", "sticky")
        hashed = reason in _HASHED
        return Arm(
            experiment.key,
            variant,
            reason,
            inside,
            experiment.epoch,
            version,
            snapshot,
            experiment.shadow if inside else "",
            experiment.hash if hashed else "",
            experiment.salt if hashed else "",
        )

    control = experiment.control
    invalid = arm(control, "invalid_unit")
    if experiment.state != "running":
        return _constant(arm(control, experiment.state), invalid)
    overrides = {unit: arm(name, "override") for unit, name in experiment.overrides.items()}
    gates = _Gates(overrides, _early(experiment, arm, layers, holdouts, sticky))
    outside = arm(control, "rollout")
    steps = _steps(experiment.ranges, lambda name: arm(name, "split"), outside)
    if is_vendor(experiment.hash):
        choose = _by_bucket(experiment, steps, outside, invalid, gates)
    else:
        choose = _by_digest(experiment, steps, outside, invalid, gates)
    if sticky is None or not experiment.sticky:
        return choose
    return _remembering(choose, experiment, sticky)


def _steps(
    ranges: Iterable[Range], arm_of: Callable[[str], Arm], outside: Arm
) -> list[tuple[int, Arm]]:
    """The arm of each stretch of buckets by its upper end, in order, gaps filled in."""
    steps: list[tuple[int, Arm]] = []
    lower = 0
    arms: dict[str, Arm] = {}
    for item in ranges:
        if lower < item.lower:
            steps.append((item.lower, outside))
        steps.append((item.upper, arms.setdefault(item.variant, arm_of(item.variant))))
        lower = item.upper
    if lower < SPACE:
        steps.append((SPACE, outside))
    return steps


def _by_digest(
    experiment: Experiment,
    steps: list[tuple[int, Arm]],
    outside: Arm,
    invalid: Arm,
    gates: _Gates,
) -> Choose:
    """Choose by abkit's own hashes: digest bytes are compared with threshold bytes."""
    # Names of a closure are faster than globals, and much faster than attributes.
    overrides, early = gates
    hash_of: Callable[[bytes], Any] = md5 if experiment.hash == "abkit-v1" else sha256
    salted = f"{experiment.salt}:".encode()
    *firsts, (_, last) = steps
    bounds = [(threshold_bytes(upper), item) for upper, item in firsts]
    gate = threshold_bytes(threshold(experiment.rollout))
    gate_salted = f"{experiment.rollout_salt}:".encode() if experiment.rollout_salt else b""

    if gates == ({}, None) and gate is None and len(bounds) == 1 and bounds[0][0] is not None:
        return _of_two(hash_of, salted, bounds[0][0], (bounds[0][1], last, invalid))

    def choose(unit_id: object, attributes: Attributes | None = None) -> Arm:
        if type(unit_id) is str and unit_id.isascii() and 0 < len(unit_id) <= MAX_UNIT_CHARACTERS:
            text = unit_id  # what nearly every request brings
        else:
            other = unit_text(unit_id)
            if other is None:
                return invalid
            text = other
        if overrides and text in overrides:
            return overrides[text]
        if early is not None:
            found = early(text, attributes)
            if found is not None:
                return found
        raw = hash_of(salted + text.encode()).digest()
        if gate is not None:
            inside = hash_of(gate_salted + text.encode()).digest() if gate_salted else raw
            if inside[8:] >= gate:
                return outside
        for upper, item in bounds:
            if raw < upper:
                return item
        return last

    return choose


def _of_two(
    hash_of: Callable[[bytes], Any], salted: bytes, bound: bytes, arms: tuple[Arm, Arm, Arm]
) -> Choose:
    """The commonest experiment, with nothing in the way: two thirds of the time of the general."""
    first, last, invalid = arms

    def choose(unit_id: object, attributes: Attributes | None = None) -> Arm:
        del attributes
        if type(unit_id) is str and 0 < len(unit_id) <= MAX_UNIT_CHARACTERS:
            try:
                raw = hash_of(salted + unit_id.encode()).digest()
            except UnicodeEncodeError:  # lone surrogates
                return invalid
            return first if raw < bound else last
        text = unit_text(unit_id)
        if text is None:
            return invalid
        return first if hash_of(salted + text.encode()).digest() < bound else last

    return choose


def _by_bucket(
    experiment: Experiment,
    steps: list[tuple[int, Arm]],
    outside: Arm,
    invalid: Arm,
    gates: _Gates,
) -> Choose:
    """Choose by a vendor's hash, whose slots lie on the same buckets."""
    hashes = scheme(experiment.hash)
    split, rollout = hashes.split.bucket, hashes.rollout.bucket
    overrides, early = gates
    salt, gate_salt = experiment.salt, experiment.rollout_salt or experiment.salt
    gate = threshold(experiment.rollout)

    def choose(unit_id: object, attributes: Attributes | None = None) -> Arm:
        text = unit_text(unit_id)
        if text is None:
            return invalid
        if text in overrides:
            return overrides[text]
        if early is not None:
            found = early(text, attributes)
            if found is not None:
                return found
        if gate < SPACE and rollout(gate_salt, text) >= gate:
            return outside
        bucket = split(salt, text)
        for upper, item in steps:
            if bucket < upper:
                return item
        return outside

    return choose


def _early(
    experiment: Experiment,
    arm: Callable[[str, Reason], Arm],
    layers: Mapping[str, Layer],
    holdouts: Mapping[str, Holdout],
    sticky: Sticky | None,
) -> Early | None:
    """What may settle a unit between overrides and its bucket, or None where nothing may."""
    control = experiment.control
    checks: list[tuple[Callable[[str], bool], Arm]] = []
    for key in experiment.holdouts:
        holdout = holdouts[key]
        held = _within(holdout.ranges, HELD_OUT, holdout.salt, "abkit-v1")
        checks.append((held, arm(control, "holdout")))
    if experiment.layer:
        layer = layers[experiment.layer]
        in_part = _within(layer.ranges, experiment.key, layer.salt, layer.hash)
        checks.append((lambda text: not in_part(text), arm(control, "layer")))
    met = None if experiment.targeting is None else compile_condition(experiment.targeting)
    missed = arm(control, "targeting")
    recall = None if sticky is None or not experiment.sticky else _recalled(experiment, arm, sticky)
    if not (checks or recall):
        if met is None:
            return None
        return lambda _text, given: None if met(_NOTHING if given is None else given) else missed

    def early(text: str, attributes: Attributes | None) -> Arm | None:
        for keeps_out, out in checks:
            if keeps_out(text):
                return out
        if recall is not None:
            known = recall(text)
            if known is not None:
                return known
        if met is not None and not met(_NOTHING if attributes is None else attributes):
            return missed
        return None

    return early


def _within(
    ranges: Iterable[Range], owner: str, salt: str, hash_name: str
) -> Callable[[str], bool]:
    """Whether a unit's bucket lies in one of the ranges of this owner."""
    own = [(item.lower, item.upper) for item in ranges if item.variant == owner]
    bucket_of = scheme(hash_name).split.bucket

    def within(text: str) -> bool:
        bucket = bucket_of(salt, text)
        return any(lower <= bucket < upper for lower, upper in own)

    return within


def _recalled(
    experiment: Experiment, arm: Callable[[str, Reason], Arm], sticky: Sticky
) -> Callable[[str], Arm | None]:
    """The arm that a unit met before, if it would still be inside: only targeting is passed over.

    It counts in the epoch in which the unit came in: it was assigned by the shares of that time.
    """
    rollout = scheme(experiment.hash).rollout
    salt, gate = experiment.rollout_salt or experiment.salt, threshold(experiment.rollout)
    variants = {item.variant for item in experiment.ranges}
    name = _sticky_name(experiment)
    arms: dict[str, Arm] = {}

    def arm_of(known: str) -> Arm | None:
        epoch, _, variant = known.partition(":")
        if variant not in variants or not epoch.isdecimal() or int(epoch) > experiment.epoch:
            return None
        return arms.setdefault(known, arm(variant, "sticky")._replace(epoch=int(epoch)))

    def recall(text: str) -> Arm | None:
        known = sticky.get(name, text)
        if known is None or (gate < SPACE and rollout.bucket(salt, text) >= gate):
            return None
        return arms.get(known) or arm_of(known)

    return recall


def _remembering(choose: Choose, experiment: Experiment, sticky: Sticky) -> Choose:
    """Remember whoever is newly inside."""
    name, epoch = _sticky_name(experiment), experiment.epoch

    def remember(unit_id: object, attributes: Attributes | None = None) -> Arm:
        found = choose(unit_id, attributes)
        if found.reason == "split":
            sticky.put(name, plain_text(unit_id), f"{epoch}:{found.variant}")
        return found

    return remember


def _sticky_name(experiment: Experiment) -> str:
    """With the salt: an experiment that begins anew remembers nobody."""
    return f"{experiment.key}:{experiment.salt}"


def _constant(off: Arm, invalid: Arm) -> Choose:
    def choose(unit_id: object, attributes: Attributes | None = None) -> Arm:
        del attributes
        return invalid if unit_text(unit_id) is None else off

    return choose
