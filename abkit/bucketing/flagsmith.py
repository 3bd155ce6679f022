"""Flagsmith's hash: the whole md5 as a number, modulo 9999, to one of 9,998 slots.

The salt is everything before the identifier: the feature state's key, a comma, the environment's
API key and an underscore, as in `17,ser.8Vzw_`.

Source: flagsmith-flag-engine 11.1.1, `utils/hashing.py`; flagsmith 6.3.0, `mappers.py`.
"""

from __future__ import annotations

from abkit.bucketing import md5
from abkit.bucketing.scheme import Scheme, Slots

COUNT = 9998


def slot(salt: str, unit_id: str) -> int:
    """The slot of a unit, in [0, 9998).

    Examples:
        >>> slot("17,ser.8Vzw_", "user-1")
        3593
    """
    text = f"{salt}{unit_id}".encode()
    found = int.from_bytes(md5(text).digest(), "big") % 9999
    if found < COUNT:
        return found
    # Flagsmith wants less than 100 %: it writes the text once more, as long as the last slot comes.
    joined = text
    while found >= COUNT:
        joined += b"," + text
        found = int.from_bytes(md5(joined).digest(), "big") % 9999
    return found


def percentage(slot: int) -> float:
    """The number in [0, 100) that Flagsmith compares with its weights, in its own arithmetic."""
    return (slot / COUNT) * 100


SCHEMES = {"flagsmith": Scheme(Slots(COUNT, slot), Slots(COUNT, slot))}
