"""Unleash's hash: MurmurHash3 of "group:unit", into 100 slots for the rollout, 1,000 for variants.

The salt is the group id. Unleash counts from 1: its `hash <= share` is our `slot < share`.
"""

from __future__ import annotations

from abkit.bucketing.murmur3 import murmur3_32
from abkit.bucketing.scheme import Scheme, Slots

# Another seed for variants: with the same one, a rollout of 10 % would hold the first variant only.
_VARIANT_SEED = 86028157


def _variant_slot(salt: str, unit_id: str) -> int:
    return murmur3_32(f"{salt}:{unit_id}".encode(), _VARIANT_SEED) % 1000


def _rollout_slot(salt: str, unit_id: str) -> int:
    return murmur3_32(f"{salt}:{unit_id}".encode()) % 100


SCHEMES = {"unleash": Scheme(Slots(1000, _variant_slot), Slots(100, _rollout_slot))}
