"""The `abkit-v1` hash: unit_id + salt -> two independent uniforms on 52 bits.

`h = md5("{salt}:{unit_id}")` in UTF-8. Hex digits 1-13 of h decide the variant, hex digits
17-29 decide whether the unit is inside the rollout. 52 bits are exact in a double and in a
signed 64-bit integer, so any SQL engine can audit an assignment. md5 is the one hash that gave
equal buckets in all nine engines tried.

The functions in this module are frozen: changing one would re-randomise every running
experiment. `tests/unit/test_bucketing.py` holds golden vectors as literals.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

try:
    # CPython's own md5 skips OpenSSL's set-up: half the time of hashlib.md5 on short input.
    from _md5 import md5 as _md5  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # a build without it, such as some FIPS ones
    from hashlib import md5 as _openssl_md5

    _md5 = partial(_openssl_md5, usedforsecurity=False)

md5: Callable[[bytes], _Hash] = _md5
"""The hash; nothing here is a matter of security."""

SPACE = 1 << 52
"""Number of buckets; a share p of the traffic is the buckets below `round(p * SPACE)`."""

THRESHOLD_BYTES = 7


def digest(salt: str, unit_id: str) -> bytes:
    """The 16 raw digest bytes of a unit under a salt."""
    return md5(f"{salt}:{unit_id}".encode()).digest()


def split_bucket(raw: bytes) -> int:
    """The bucket that decides the variant, in [0, SPACE): hex digits 1-13 of the digest."""
    return int.from_bytes(raw[:7], "big") >> 4


def rollout_bucket(raw: bytes) -> int:
    """The bucket that decides who is inside the rollout: hex digits 17-29 of the digest."""
    return int.from_bytes(raw[8:15], "big") >> 4


def threshold(share: float) -> int:
    """The bucket at which a share of the traffic ends: `round(share * SPACE)`.

    Args:
        share: part of all traffic, in [0, 1].
    """
    return round(share * SPACE)


def threshold_bytes(bucket: int) -> bytes | None:
    """A bucket as digest bytes, so that `digest < bytes` means `bucket_of(digest) < bucket`.

    Bytes compare from the left, and a digest that begins with all of the threshold is longer
    and so not smaller: the comparison needs no slice and no integer.

    Returns:
        Seven bytes, or None for SPACE itself, which every digest is below.
    """
    return None if bucket >= SPACE else (bucket << 4).to_bytes(THRESHOLD_BYTES, "big")


def bucket(salt: str, unit_id: str) -> int:
    """The variant bucket of a unit, in [0, SPACE).

    Examples:
        >>> bucket("salt", "user-1")
        3118532721041239
    """
    return split_bucket(digest(salt, unit_id))
