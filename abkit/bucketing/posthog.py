"""PostHog's hash: the first 15 hex digits of a sha1, as a floating-point number.

The salt is the flag's key. "variant" behind the unit makes the hash that decides the variant
independent of the one that decides the rollout.
"""

from __future__ import annotations

from hashlib import sha1

from abkit.bucketing import SPACE
from abkit.bucketing.scheme import Scheme, Slots


def _slot(text: str) -> int:
    raw = sha1(text.encode(), usedforsecurity=False).digest()
    # PostHog divides by float(0xFFFFFFFFFFFFFFF), which is 2**60. Its value keeps 53 bits, so that
    # it may round up to 1; whole slots are 52, and a threshold that lies inside of a slot decides
    # otherwise here with a probability of 2**-52.
    return min(int((int.from_bytes(raw[:8], "big") >> 4) * 2.0**-8), SPACE - 1)


_VARIANT = Slots(SPACE, lambda salt, unit_id: _slot(f"{salt}.{unit_id}variant"))
_ROLLOUT = Slots(SPACE, lambda salt, unit_id: _slot(f"{salt}.{unit_id}"))

SCHEMES = {"posthog": Scheme(_VARIANT, _ROLLOUT)}
