"""Assignment: the variant of one unit, with the reason; and what counts as a unit."""

from __future__ import annotations

from operator import index
from typing import Literal, NamedTuple, Protocol

from abkit.bucketing.scheme import scheme

Reason = Literal[
    "split",
    "override",
    "forced",
    "sticky",
    "holdout",
    "layer",
    "targeting",
    "rollout",
    "killed",
    "draft",
    "invalid_unit",
    "unknown_experiment",
    "no_snapshot",
    "error",
]
DEFAULT_CONTROL = "control"
MAX_UNIT_CHARACTERS = 16_384
"""A longer unit_id is invalid: hashing it would hold up the request."""


class Arm(NamedTuple):
    """What all assignments to one variant for one reason share.

    Args:
        experiment: key of the experiment.
        variant: name of the variant to serve.
        reason: why: "split" by hash, "sticky" as before, "override" or "forced" for testing,
            "holdout", "layer", "targeting" or "rollout" where that keeps the unit out, "killed"
            or "draft" by state, "invalid_unit", "unknown_experiment", "no_snapshot" before the
            first good one, or "error".
        in_experiment: whether the unit counts in the analysis.
        epoch: allocation epoch of the experiment; 0 when there is none.
        version: version of the snapshot; 0 without one.
        snapshot: hash of the snapshot; empty without one.
        shadow: a variant that should answer this unit in the dark too; empty for none.
        hash: name of the bucketing function; empty where nothing was hashed.
        salt: the salt it was hashed with.
    """

    experiment: str
    variant: str
    reason: Reason
    in_experiment: bool = False
    epoch: int = 0
    version: int = 0
    snapshot: str = ""
    shadow: str = ""
    hash: str = ""
    salt: str = ""


class Assignment(NamedTuple):
    """The variant of one unit, and why.

    A tuple rather than a frozen dataclass: it is made on every request, and costs a fifth.
    """

    unit_id: str
    arm: Arm

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
        """Hash bucket in [0, 2**52), worked out when asked for; None where none was needed."""
        arm = self.arm
        return scheme(arm.hash).split.bucket(arm.salt, self.unit_id) if arm.hash else None


class Sticky(Protocol):
    """Remembers which variant a unit met, for experiments that are `sticky`.

    Both calls run on the request's path. What they raise is counted, and the unit is then
    assigned as if nothing was remembered. `experiment` names experiment and salt; what is put is
    a short text to be given back as it is.
    """

    def get(self, experiment: str, unit_id: str) -> str | None:
        """What was put, or None."""

    def put(self, experiment: str, unit_id: str, met: str) -> None:
        """Remember it."""


def unit_text(unit_id: object) -> str | None:  # noqa: PLR0911 - one return a reason
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
    elif not issubclass(kind, int):
        # A row number out of a frame, perhaps; numpy's bool and arrays refuse to be an index.
        try:
            if kind.__module__ != "numpy":
                return None
            text = str(index(unit_id))  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - R1: whoever calls itself numpy's, or has no module
            return None
    elif kind is bool:
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
    return Assignment(plain_text(unit_id), Arm(plain_text(experiment), default, reason))


def plain_text(value: object) -> str:
    """A text or whole number as text, "" for everything else; runs no code of the value."""
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)
    return unit_text(value) or ""
