"""Split's hash: murmur3-32 of the key, seeded with a number, to one of 100 slots.

The salt is the split's numeric `seed` written as text, such as `-1222652054`; the rollout salt is
its `trafficAllocationSeed`. Split counts buckets from 1, abkit slots from 0.

Source: splitio_client 10.7.0, `engine/splitters.py` and `engine/evaluator.py`.
"""

from __future__ import annotations

from abkit.bucketing.murmur3 import murmur3_32
from abkit.bucketing.scheme import Scheme, Slots

COUNT = 100


def slot(salt: str, unit_id: str) -> int:
    """The slot of a unit, in [0, 100): Split's own bucket less one.

    Raises:
        ValueError: the salt is no whole number, and so no seed of Split's.

    Examples:
        >>> slot("-1222652054", "user-1")
        52
    """
    return murmur3_32(unit_id.encode(), int(salt)) % COUNT


# One hash for both questions: the two seeds tell them apart.
SCHEMES = {"split": Scheme(Slots(COUNT, slot), Slots(COUNT, slot))}
