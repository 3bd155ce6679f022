"""MurmurHash3 in its 32-bit x86 form, as Optimizely, Unleash, Split and flagd use it."""

from __future__ import annotations

from struct import unpack_from

_C1 = 0xCC9E2D51
_C2 = 0x1B873593
_MASK = 0xFFFFFFFF


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """MurmurHash3_x86_32 of some bytes.

    Args:
        data: any bytes; text should be UTF-8, as all the vendors have it.
        seed: any whole number; its lowest 32 bits count.

    Returns:
        The hash, unsigned: in [0, 2**32).

    Examples:
        >>> murmur3_32(b"hello", 1)
        3142237357
    """
    length = len(data)
    h = seed & _MASK
    words = length >> 2
    for word in unpack_from(f"<{words}I", data):
        k = word * _C1 & _MASK
        k = (k << 15 | k >> 17) * _C2
        h ^= k & _MASK
        h = ((h << 13 | h >> 19) & _MASK) * 5 + 0xE6546B64 & _MASK
    if length & 3:
        k = int.from_bytes(data[words << 2 :], "little") * _C1 & _MASK
        k = (k << 15 | k >> 17) * _C2
        h ^= k & _MASK
    h ^= length
    h ^= h >> 16
    h = h * 0x85EBCA6B & _MASK
    h ^= h >> 13
    h = h * 0xC2B2AE35 & _MASK
    return h ^ h >> 16
