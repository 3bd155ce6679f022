"""Statsig's hash: the first 8 bytes of a sha256, modulo 1,000 for groups and 10,000 for shares.

The salt of the groups is the experiment's `salt`, that of a layer its allocation's; the rollout
salt, for a rule's pass percentage, is `salt of the gate.salt of the rule`.

Source: the formula that statsig-python-core 0.24.2 computes; its core is compiled, so the
conformance tests are the proof.
"""

from __future__ import annotations

from hashlib import sha256

from abkit.bucketing.scheme import Scheme, Slots

GROUPS = 1000
SHARES = 10_000


def number(salt: str, unit_id: str) -> int:
    """The first 8 bytes of the hash, big-endian, in [0, 2**64)."""
    return int.from_bytes(sha256(f"{salt}.{unit_id}".encode()).digest()[:8], "big")


def group_slot(salt: str, unit_id: str) -> int:
    """The slot that decides the group, or the place in a layer, in [0, 1000).

    Examples:
        >>> group_slot("20bcebf7-792a", "user-1")
        160
    """
    return number(salt, unit_id) % GROUPS


def share_slot(salt: str, unit_id: str) -> int:
    """The slot that a rule's pass percentage is compared with, in [0, 10000)."""
    return number(salt, unit_id) % SHARES


SCHEMES = {"statsig": Scheme(Slots(GROUPS, group_slot), Slots(SHARES, share_slot))}
