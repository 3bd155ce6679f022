"""Assignment: experiment + unit_id -> variant, with the reason.

An experiment is compiled once into a closure that compares raw digest bytes with threshold
bytes; nothing on the request's path parses, allocates more than one tuple, or can raise.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Literal, NamedTuple

from abkit.bucketing import md5, split_bucket, threshold, threshold_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.experiment import Experiment

Reason = Literal[
    "split",
    "override",
    "rollout",
    "killed",
    "draft",
    "invalid_unit",
    "unknown_experiment",
    "error",
]
DEFAULT_CONTROL = "control"
MAX_UNIT_CHARACTERS = 16_384
"""A longer unit_id is invalid: hashing it would hold up the request."""
_EMPTY_DIGEST = b""


class Arm(NamedTuple):
    """What all assignments to one variant for one reason share.

    Args:
        experiment: key of the experiment.
        variant: name of the variant to serve.
        reason: why: "split" by hash, "override" for testing, "rollout" outside the rollout,
            "killed" or "draft" by state, "invalid_unit", "unknown_experiment" or "error".
        in_experiment: whether the unit counts in the analysis.
        epoch: allocation epoch of the experiment; 0 when there is none.
        version: version of the snapshot; 0 without one.
        snapshot: hash of the snapshot; empty without one.
        shadow: a variant that should answer this unit in the dark too; empty for none.
    """

    experiment: str
    variant: str
    reason: Reason
    in_experiment: bool = False
    epoch: int = 0
    version: int = 0
    snapshot: str = ""
    shadow: str = ""


class Assignment(NamedTuple):
    """The variant of one unit, and why.

    A tuple rather than a frozen dataclass: it is made on every request, and costs a fifth.
    """

    unit_id: str
    arm: Arm
    raw: bytes = _EMPTY_DIGEST

    @property
    def variant(self) -> str:
        """Name of the variant to serve; control whenever anything is amiss."""
        return self.arm.variant

    @property
    def reason(self) -> Reason:
        """Why this variant."""
        return self.arm.reason

    @property
    def experiment(self) -> str:
        """Key of the experiment."""
        return self.arm.experiment

    @property
    def in_experiment(self) -> bool:
        """Whether the unit counts in the analysis."""
        return self.arm.in_experiment

    @property
    def epoch(self) -> int:
        """Allocation epoch; 0 when there is none."""
        return self.arm.epoch

    @property
    def version(self) -> int:
        """Version of the snapshot that decided; 0 without one."""
        return self.arm.version

    @property
    def snapshot(self) -> str:
        """Hash of the snapshot that decided; empty without one."""
        return self.arm.snapshot

    @property
    def shadow(self) -> str:
        """A variant that should answer this unit in the dark too; empty for none."""
        return self.arm.shadow

    @property
    def bucket(self) -> int | None:
        """Hash bucket in [0, 2**52); None where no hash was needed."""
        return split_bucket(self.raw) if self.raw else None


def unit_text(unit_id: object) -> str | None:
    """The text that is hashed for a unit, or None if it can't be one.

    Text is taken as it is and whole numbers in decimal. Everything else, the empty text, a
    text over 16,384 characters and one that UTF-8 cannot encode is no unit: two languages
    would not agree on its bytes.
    """
    # By type: isinstance asks an object's own `__class__`, which may be code that raises, and
    # so may be whatever a subclass overrides.
    kind = type(unit_id)
    if kind is str:
        text: str = unit_id  # type: ignore[assignment]
    elif issubclass(kind, str):
        text = str.__str__(unit_id)
    elif kind.__module__ == "numpy" and hasattr(kind, "__index__"):
        # A row number out of a frame; numpy's bool and arrays refuse to be an index.
        try:
            text = str(index(unit_id))  # type: ignore[arg-type]
        except TypeError:
            return None
    elif kind is bool or not issubclass(kind, int):
        return None
    else:
        try:
            text = int.__repr__(unit_id)
        except ValueError:  # an int with more digits than Python prints
            return None
    if not 0 < len(text) <= MAX_UNIT_CHARACTERS:
        return None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return None
    return text


def fallback(
    experiment: object, unit_id: object, reason: Reason, default: str = DEFAULT_CONTROL
) -> Assignment:
    """The default variant, with the reason why nothing better could be done."""
    return Assignment(_plain(unit_id), Arm(_plain(experiment), default, reason))


def _plain(value: object) -> str:
    """A text or whole number as text, "" for everything else; runs no code of the value."""
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)
    return unit_text(value) or ""


def compile_experiment(
    experiment: Experiment, *, version: int = 0, snapshot: str = ""
) -> Callable[[object], Assignment]:
    """A function from unit_id to assignment, in the order kill, override, rollout, split.

    Args:
        experiment: what to compile.
        version: version of the snapshot it came in.
        snapshot: hash of that snapshot.
    """

    def arm(variant: str, reason: Reason, *, inside: bool = False) -> Arm:
        shadow = experiment.shadow if inside else ""
        return Arm(
            experiment.key, variant, reason, inside, experiment.epoch, version, snapshot, shadow
        )

    control = experiment.control
    invalid = arm(control, "invalid_unit")
    if experiment.state != "running":
        off = arm(control, "killed" if experiment.state == "killed" else "draft")
        return _constant(off, invalid)
    overrides = {unit: arm(name, "override") for unit, name in experiment.overrides.items()}
    outside = arm(control, "rollout")
    gate = threshold_bytes(threshold(experiment.rollout))
    # The last range needs no comparison: the ranges cover every bucket.
    bounds = [
        (threshold_bytes(r.upper), arm(r.variant, "split", inside=True)) for r in experiment.ranges
    ]
    steps = [(upper, item) for upper, item in bounds if upper is not None]
    last = bounds[-1][1]
    salt = experiment.salt

    # Names of this closure are faster than globals, and a tuple faster than its class.
    new, cls, md5_of = tuple.__new__, Assignment, md5

    def assign(unit_id: object) -> Assignment:
        if type(unit_id) is str and unit_id.isascii() and 0 < len(unit_id) <= MAX_UNIT_CHARACTERS:
            text = unit_id  # what nearly every request brings
        else:
            other = unit_text(unit_id)
            if other is None:
                return cls(_plain(unit_id), invalid)
            text = other
        if overrides and text in overrides:
            return cls(text, overrides[text])
        raw = md5_of(f"{salt}:{text}".encode()).digest()
        if gate is not None and raw[8:] >= gate:
            return new(cls, (text, outside, raw))
        for upper, item in steps:
            if raw < upper:
                return new(cls, (text, item, raw))
        return new(cls, (text, last, raw))

    return assign


def _constant(off: Arm, invalid: Arm) -> Callable[[object], Assignment]:
    def assign(unit_id: object) -> Assignment:
        text = unit_text(unit_id)
        if text is None:
            return Assignment(_plain(unit_id), invalid)
        return Assignment(text, off)

    return assign
