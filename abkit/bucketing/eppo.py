"""Eppo's hash: the first four bytes of an md5, into 10,000 shards.

Traffic and split are two shards of the same kind with salts of their own.
"""

from __future__ import annotations

from abkit.bucketing import md5
from abkit.bucketing.scheme import Scheme, Slots


def _slot(salt: str, unit_id: str) -> int:
    raw = md5(f"{salt}-{unit_id}".encode()).digest()
    return int.from_bytes(raw[:4], "big") % 10000


_SHARDS = Slots(10000, _slot)

SCHEMES = {"eppo": Scheme(_SHARDS, _SHARDS)}
