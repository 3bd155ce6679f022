"""Sums without rounding: what is taken out again leaves no trace.

A rollup corrects a cell by taking a unit's old value out and putting the new one in. In floating
point each correction would leave its rounding behind; here sums of values and of squares are whole
numbers of a fixed tiny unit, so a cell depends on the values in it and on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Every double is a whole number of 2**-1126: a 53-bit mantissa, smallest exponent -1073.
SCALE = 1126
_MANTISSA = 53
_LIMB = 18
_MASK = (1 << _LIMB) - 1
# So few that sums of products of two limbs stay below 2**53, where doubles count exactly.
_CHUNK = 1 << 16
_SPAN = 1 << 12  # more than there are exponents


@dataclass(slots=True)
class Sums:
    """Count, sum and sum of squares, exact.

    Args:
        n: number of values.
        s1: sum of the values, in units of 2**-SCALE.
        s2: sum of their squares, in units of 2**-(2 SCALE).
    """

    n: int = 0
    s1: int = 0
    s2: int = 0

    def add(self, other: Sums, sign: int) -> None:
        """Put the values of `other` in (sign 1) or take them out (sign -1)."""
        self.n += sign * other.n
        self.s1 += sign * other.s1
        self.s2 += sign * other.s2

    def moments(self) -> tuple[int, float, float]:
        """(n, mean, m2), each correctly rounded.

        Raises:
            OverflowError: the sum of squared deviations is no double.
        """
        if self.n == 0:
            return 0, 0.0, 0.0
        mean = self.s1 / (self.n << SCALE)
        return self.n, mean, (self.n * self.s2 - self.s1 * self.s1) / (self.n << 2 * SCALE)


def exact_sums(codes: NDArray[Any], values: NDArray[np.float64]) -> dict[int, Sums]:
    """Sums of the values by code.

    Args:
        codes: small non-negative integers, one a value.
        values: finite doubles.
    """
    found: dict[int, Sums] = {}
    for start in range(0, len(values), _CHUNK):
        end = start + _CHUNK
        for code, sums in _chunk_sums(codes[start:end], values[start:end]):
            found.setdefault(code, Sums()).add(sums, 1)
    return found


def _chunk_sums(codes: NDArray[Any], values: NDArray[np.float64]) -> list[tuple[int, Sums]]:
    fraction, exponent = np.frexp(values)
    whole = np.ldexp(fraction, _MANTISSA).astype(np.int64)
    keys = codes.astype(np.int64) * _SPAN + (exponent + (SCALE - _MANTISSA))
    distinct, place = np.unique(keys, return_inverse=True)

    def total(weights: NDArray[Any]) -> list[int]:
        return [int(x) for x in np.bincount(place, weights=weights, minlength=len(distinct))]

    high, middle, low = whole >> 2 * _LIMB, (whole >> _LIMB) & _MASK, whole & _MASK
    first = zip(total(high), total(middle), total(low), strict=True)
    second = zip(
        total(low * low),
        total(low * middle),
        total(middle * middle),
        total(low * high),
        total(middle * high),
        total(high * high),
        strict=True,
    )
    counts = np.bincount(place, minlength=len(distinct))
    return [
        (
            int(key) // _SPAN,
            Sums(
                int(n),
                ((h << 2 * _LIMB) + (m << _LIMB) + w) << (int(key) % _SPAN),
                (
                    ww
                    + (wm << _LIMB + 1)
                    + ((mm + 2 * wh) << 2 * _LIMB)
                    + (mh << 3 * _LIMB + 1)
                    + (hh << 4 * _LIMB)
                )
                << 2 * (int(key) % _SPAN),
            ),
        )
        for key, n, (h, m, w), (ww, wm, mm, wh, mh, hh) in zip(
            distinct, counts, first, second, strict=True
        )
    ]
