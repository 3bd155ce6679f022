"""Optimizely's hash: MurmurHash3 of unit + id with seed 1, scaled into 10,000 slots.

The salt is the id of the experiment, or of the group whose experiments exclude each other.
"""

from __future__ import annotations

from abkit.bucketing.murmur3 import murmur3_32
from abkit.bucketing.scheme import Scheme, Slots


def _slot(salt: str, unit_id: str) -> int:
    # Optimizely goes through floating point: floor(h / 2**32 * 10000). All of it is exact.
    return murmur3_32(f"{unit_id}{salt}".encode(), 1) * 10000 >> 32


_SLOTS = Slots(10000, _slot)

SCHEMES = {"optimizely": Scheme(_SLOTS, _SLOTS)}
