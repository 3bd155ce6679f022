"""Which hash an experiment uses: abkit's own, or that of the vendor it came from.

A vendor's hash sends a unit to one of so many slots; here the slots lie evenly on abkit's 2**52
buckets, so that ranges, `reweight` and the analysis never need to know whose hash it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING

from abkit.bucketing import SPACE, digest, rollout_bucket, split_bucket
from abkit.errors import ConfigError
from abkit.records import check_choice, check_salt

if TYPE_CHECKING:
    from collections.abc import Callable

    Slot = Callable[[str, str], int]


@dataclass(frozen=True, slots=True)
class Slots:
    """A hash from (salt, unit_id) to one of `count` slots.

    Args:
        count: number of slots, at most 2**52.
        slot: a pure function from salt and unit_id to a slot in [0, count).
    """

    count: int
    slot: Slot

    def bucket(self, salt: str, unit_id: str) -> int:
        """The unit's bucket in [0, 2**52): the first bucket of its slot."""
        return self.slot(salt, unit_id) * SPACE // self.count

    def edge(self, slot: int) -> int:
        """The first bucket of a slot; a bucket is below it where its slot is below this one."""
        return slot * SPACE // self.count


@dataclass(frozen=True, slots=True)
class Scheme:
    """How units meet buckets.

    Args:
        split: decides the variant.
        rollout: decides who is inside the rollout; the same hash as `split` where the vendor
            knows no second one, and then the experiment needs a `rollout_salt` of its own.
    """

    split: Slots
    rollout: Slots


def _sha256(salt: str, unit_id: str) -> bytes:
    return sha256(f"{salt}:{unit_id}".encode()).digest()


_OURS = {
    "abkit-v1": Scheme(
        Slots(SPACE, lambda salt, unit: split_bucket(digest(salt, unit))),
        Slots(SPACE, lambda salt, unit: rollout_bucket(digest(salt, unit))),
    ),
    # For those who may not name md5. The same digits of another digest.
    "sha256": Scheme(
        Slots(SPACE, lambda salt, unit: split_bucket(_sha256(salt, unit))),
        Slots(SPACE, lambda salt, unit: rollout_bucket(_sha256(salt, unit))),
    ),
}

# Each module has a table SCHEMES; nothing is imported before an experiment asks for it.
_VENDORS = {
    "eppo": "eppo",
    "flagd": "flagd",
    "flagsmith": "flagsmith",
    "growthbook-v1": "growthbook",
    "growthbook-v2": "growthbook",
    "launchdarkly": "launchdarkly",
    "optimizely": "optimizely",
    "planout": "planout",
    "posthog": "posthog",
    "split": "split",
    "statsig": "statsig",
    "unleash": "unleash",
}

HASHES = (*_OURS, *_VENDORS)
"""Names of all hashes that an experiment may use."""


def scheme(name: str) -> Scheme:
    """The scheme of this name, which must be one of `HASHES`."""
    ours = _OURS.get(name)
    if ours is not None:
        return ours
    found: Scheme = import_module(f"abkit.bucketing.{_VENDORS[name]}").SCHEMES[name]
    return found


def is_vendor(name: str) -> bool:
    """Whether a hash is a vendor's: its salts are free text, and SQL does not know it."""
    return name in _VENDORS


def check_hash(where: str, name: str, *salts: str) -> None:
    """Raise a ConfigError unless there is such a hash and it can work with these salts."""
    check_choice(where, "hash", name, HASHES)
    for salt in salts:
        check_salt(where, salt, name)
        try:
            found = scheme(name)
            found.split.bucket(salt, "unit")
            found.rollout.bucket(salt, "unit")
        except ValueError as error:
            raise ConfigError(f"{where}: {name} cannot use the salt {salt!r}: {error}") from None
