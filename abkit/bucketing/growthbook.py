"""GrowthBook's two hashes: FNV-1a over UTF-16 code units, into 1,000 or 10,000 slots.

The salt is the rule's seed, or where it has none the experiment's key. A namespace hashes with
version 1 and the salt `__` + its name.
"""

from __future__ import annotations

from functools import lru_cache
from struct import unpack

from abkit.bucketing.scheme import Scheme, Slots

_START = 0x811C9DC5
_PRIME = 0x01000193
_MASK = 0xFFFFFFFF


def fnv1a32(text: str, h: int = _START) -> int:
    """FNV-1a in 32 bits, as JavaScript reads a text: one UTF-16 code unit at a time.

    Args:
        text: what to hash.
        h: the hash of what came before it.
    """
    if text.isascii():
        for unit in text.encode():
            h = (h ^ unit) * _PRIME & _MASK
        return h
    data = text.encode("utf-16-le")
    for unit in unpack(f"<{len(data) >> 1}H", data):
        h = (h ^ unit) * _PRIME & _MASK
    return h


# The salt comes first in version 2, so that its part of the work is done once.
_salted = lru_cache(maxsize=1024)(fnv1a32)


def _slot_v1(salt: str, unit_id: str) -> int:
    return fnv1a32(salt, fnv1a32(unit_id)) % 1000


def _slot_v2(salt: str, unit_id: str) -> int:
    return fnv1a32(str(fnv1a32(unit_id, _salted(salt)))) % 10000


_V1 = Slots(1000, _slot_v1)
_V2 = Slots(10000, _slot_v2)

SCHEMES = {"growthbook-v1": Scheme(_V1, _V1), "growthbook-v2": Scheme(_V2, _V2)}
