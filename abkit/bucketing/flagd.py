"""flagd's hash, as the `fractional` operator has it since core 2.0: murmur3-32 of CBOR.

The salt is the flag's key: the operator's short form hashes the list [flag key, targeting key]. A
salt that begins with `cat:` hashes one text instead, of what follows and the unit: `cat:my-flag`
is `{"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}`, and `cat:` alone the bare
targeting key.

Earlier cores hashed the plain text and took a percentage of it; they sorted units otherwise.

Source: openfeature-flagd-core 2.0.0, `targeting/custom_ops.py`; RFC 8949, section 3, for CBOR.
"""

from __future__ import annotations

from abkit.bucketing.murmur3 import murmur3_32
from abkit.bucketing.scheme import Scheme, Slots

COUNT = 1 << 32
CAT = "cat:"
"""How the salt of a single text begins."""

_LIST_OF_TWO = b"\x82"
_TEXT = 0x60


def _cbor(text: str) -> bytes:
    """A text in CBOR: its length in the shortest form, then UTF-8."""
    data = text.encode()
    size = len(data)
    if size < 24:
        return bytes((_TEXT | size,)) + data
    step = (size > 0xFF) + (size > 0xFFFF) + (size > 0xFFFFFFFF)
    return bytes((_TEXT | 24 + step,)) + size.to_bytes(1 << step, "big") + data


def slot(salt: str, unit_id: str) -> int:
    """The slot of a unit, in [0, 2**32): the hash itself.

    Examples:
        >>> slot("new-model", "user-1")
        2458672818
        >>> slot("cat:new-model", "user-1")
        3689557687
    """
    if salt.startswith(CAT):
        return murmur3_32(_cbor(salt[len(CAT) :] + unit_id))
    return murmur3_32(_LIST_OF_TWO + _cbor(salt) + _cbor(unit_id))


SCHEMES = {"flagd": Scheme(Slots(COUNT, slot), Slots(COUNT, slot))}
