"""Bucket ranges: who owns which part of a hash space, and how to change that moving nobody else.

Ranges rather than weights: growing one owner never takes a unit away from it, and a change of
shares moves the theoretical minimum of units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from abkit.bucketing import SPACE
from abkit.errors import ConfigError
from abkit.metrics import check_name
from abkit.records import is_number

SHARE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Range:
    """Buckets `lower <= bucket < upper` that belong to one owner.

    Args:
        lower: first bucket, in [0, 2**52].
        upper: one past the last bucket, in [0, 2**52].
        variant: the owner: name of a variant, or in a layer key of an experiment.
    """

    lower: int
    upper: int
    variant: str

    @property
    def width(self) -> int:
        """Number of buckets."""
        return self.upper - self.lower


def ranges_of(shares: Mapping[str, float], total: int = SPACE) -> tuple[Range, ...]:
    """Consecutive ranges with these shares of `total` buckets; the last one ends at `total`.

    Args:
        shares: share per owner; they sum to 1. Whose share is 0 gets no range.
        total: number of buckets, from bucket 0.
    """
    ranges: list[Range] = []
    done, lower = 0.0, 0
    # Whose share is 0 gets nobody, also where decimals add up to a little less than 1.
    names = [name for name, share in shares.items() if share > 0]
    for name in names:
        done += shares[name]
        upper = total if name == names[-1] else min(total, round(done * total))
        if upper > lower:
            ranges.append(Range(lower, upper, name))
        lower = upper
    return tuple(ranges)


def widths(ranges: Iterable[Range]) -> dict[str, int]:
    """Number of buckets per owner, in the order of first appearance."""
    found: dict[str, int] = {}
    for item in ranges:
        found[item.variant] = found.get(item.variant, 0) + item.width
    return found


def moved(ranges: tuple[Range, ...], wanted: Mapping[str, int]) -> tuple[Range, ...]:
    """Ranges with the wanted widths, moving as few buckets as can be.

    An owner that grows keeps all of its buckets; one that shrinks gives up those at its upper
    end. What grows takes what was given up first, and then what belonged to nobody.

    Args:
        ranges: sorted and disjoint.
        wanted: number of buckets per owner; together at most 2**52. Who is absent gets none.
    """
    kept: list[Range] = []
    given_up: list[tuple[int, int]] = []
    need = dict(wanted)
    for item in ranges:
        keep = min(item.width, need.get(item.variant, 0))
        if keep:
            kept.append(Range(item.lower, item.lower + keep, item.variant))
            need[item.variant] -= keep
        if keep < item.width:
            given_up.append((item.lower + keep, item.upper))
    free = [*given_up, *gaps(ranges)]
    for name in wanted:
        while need[name]:
            lower, upper = free.pop(0)
            take = min(upper - lower, need[name])
            kept.append(Range(lower, lower + take, name))
            need[name] -= take
            if lower + take < upper:
                free.insert(0, (lower + take, upper))
    return _joined(sorted(kept, key=lambda item: item.lower))


def gaps(ranges: Iterable[Range]) -> list[tuple[int, int]]:
    """The bucket intervals [lower, upper) that no range covers."""
    found: list[tuple[int, int]] = []
    lower = 0
    for item in ranges:
        if lower < item.lower:
            found.append((lower, item.lower))
        lower = item.upper
    if lower < SPACE:
        found.append((lower, SPACE))
    return found


def _joined(ranges: list[Range]) -> tuple[Range, ...]:
    joined: list[Range] = []
    for item in ranges:
        if joined and joined[-1].variant == item.variant and joined[-1].upper == item.lower:
            joined[-1] = Range(joined[-1].lower, item.upper, item.variant)
        else:
            joined.append(item)
    return tuple(joined)


def is_share(value: object) -> bool:
    """Whether a value is a number in [0, 1]."""
    return is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def check_shares(where: str, shares: object) -> dict[str, float]:
    """The shares as floats, or a ConfigError: a table of lawful names that sums to 1."""
    if not isinstance(shares, Mapping) or not shares:
        raise ConfigError(f"{where}: variants must be a table of name = share, got {shares!r}")
    for name, share in shares.items():
        check_name(name, f"{where}: variant")
        if not is_share(share):
            raise ConfigError(f"{where}: the share of {name!r} must lie in [0, 1], got {share!r}")
    total = math.fsum(shares.values())
    if abs(total - 1) > SHARE_TOLERANCE:
        listed = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise ConfigError(f"{where}: shares must sum to 1, but {listed} sum to {total:.12g}")
    return {name: float(share) for name, share in shares.items()}


def check_ranges(where: str, ranges: tuple[Range, ...], *, may_be_empty: bool = False) -> None:
    """Raise a ConfigError unless ranges are sorted, disjoint, lawfully named, in [0, 2**52]."""
    if not ranges and not may_be_empty:
        raise ConfigError(f"{where}: no ranges: nobody would be in it")
    lower = 0
    for item in ranges:
        if not isinstance(item, Range):
            raise ConfigError(f"{where}: ranges must be of type Range, got {item!r}")
        if type(item.lower) is not int or type(item.upper) is not int:
            raise ConfigError(
                f"{where}: range ends must be whole numbers, got [{item.lower}, {item.upper})"
            )
        if item.lower < lower or item.upper <= item.lower or item.upper > SPACE:
            raise ConfigError(
                f"{where}: ranges must be sorted, disjoint, not empty and within "
                f"[0, 2**52]; see [{item.lower}, {item.upper})"
            )
        check_name(item.variant, f"{where}: variant")
        lower = item.upper


def ranges_from(where: str, data: object) -> tuple[Range, ...]:
    """Ranges from a list of [lower, upper, owner].

    Raises:
        ConfigError: not such a list.
    """
    try:
        return tuple(Range(lower, upper, variant) for lower, upper, variant in data)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise ConfigError(
            f"{where}: ranges must be a list of [lower, upper, variant], got {data!r}"
        ) from None


def ranges_data(ranges: Iterable[Range]) -> list[list[int | str]]:
    """Plain data that `ranges_from` reads back."""
    return [[item.lower, item.upper, item.variant] for item in ranges]
