"""LaunchDarkly's hash: the first 15 hex digits of a sha1, as a floating-point number.

The salt is "flag key.flag salt", or the rollout's seed as text where it has one.
"""

from __future__ import annotations

from hashlib import sha1

from abkit.bucketing import SPACE
from abkit.bucketing.scheme import Scheme, Slots


def _slot(salt: str, unit_id: str) -> int:
    raw = sha1(f"{salt}.{unit_id}".encode(), usedforsecurity=False).digest()
    # LaunchDarkly divides by float(0xFFFFFFFFFFFFFFF), which is 2**60. Its value keeps 53 bits, so
    # that it may round up to 1; whole slots are 52, and a threshold that lies inside of a slot
    # decides otherwise here with a probability of 2**-52.
    return min(int((int.from_bytes(raw[:8], "big") >> 4) * 2.0**-8), SPACE - 1)


_FLOATS = Slots(SPACE, _slot)

SCHEMES = {"launchdarkly": Scheme(_FLOATS, _FLOATS)}
