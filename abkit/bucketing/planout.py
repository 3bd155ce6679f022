"""PlanOut's hash: the first 15 hex digits of a sha1, as a fraction or modulo a number of choices.

The salt is what stands before the unit, without the last dot: `experiment.parameter`, or an
operator's `full_salt`. WeightedChoice and BernoulliTrial read the digits as a fraction of 1.
UniformChoice and RandomInteger take them modulo the number of choices, which the salt then names
at its end: `experiment.parameter % 3`.

PlanOut itself fails on units outside of ASCII; here they are UTF-8.

Source: PlanOut 0.6.0, `ops/random.py`.
"""

from __future__ import annotations

from hashlib import sha1

from abkit.bucketing import SPACE
from abkit.bucketing.scheme import Scheme, Slots

CHOICES = " % "
"""What parts the salt from the number of choices."""

DIGITS = 1 << 60
"""Number of different values of 15 hex digits."""


def split_salt(salt: str) -> tuple[str, int]:
    """The salt that is hashed and the number of choices, 0 for a fraction of 1."""
    text, mark, choices = salt.rpartition(CHOICES)
    if mark and choices.isascii() and choices.isdigit():
        number = int(choices)
        if 0 < number <= SPACE:
            return text, number
    return salt, 0


def digits(salt: str, unit_id: str) -> int:
    """The first 15 hex digits of the hash as a number, in [0, 2**60)."""
    found = sha1(f"{salt}.{unit_id}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(found[:8], "big") >> 4


def slot(salt: str, unit_id: str) -> int:
    """The slot of a unit, in [0, 2**52).

    A fraction keeps 52 of its 60 bits: a unit sits on the wrong side of a threshold with
    probability 2**-52 at most. A choice k of n is the slot `k * 2**52 // n`, exactly.

    Examples:
        >>> slot("signup.colour", "user-1")
        557624475193318
        >>> slot("signup.colour % 3", "user-3")
        3002399751580330
    """
    text, choices = split_salt(salt)
    found = digits(text, unit_id)
    return found % choices * SPACE // choices if choices else found >> 8


SCHEMES = {"planout": Scheme(Slots(SPACE, slot), Slots(SPACE, slot))}
