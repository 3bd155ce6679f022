"""Alpha spending: how much of the error probability may be used up by which information.

A spending function of the information fraction t replaces a fixed schedule of looks. It is chosen
before the data and says how much alpha may be gone by t, so looks may come at any time and in any
number, as long as neither depends on the results (Lan, DeMets 1983). All functions here are per
tail: a two-sided test of 5 % spends 2.5 % in each. Beta, the probability of a false stop for
futility, is spent in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self, get_args

from scipy import special

from abkit.errors import DesignError

if TYPE_CHECKING:
    from collections.abc import Sequence

Family = Literal[
    "obrien_fleming",
    "obrien_fleming_simple",
    "pocock",
    "hwang_shih_decani",
    "kim_demets",
    "tabulated",
]

_LARGEST_GAMMA: Final = 40.0  # exp(gamma) must stay an ordinary number
_SLACK: Final = 1e-9  # rounding that a table may have


@dataclass(frozen=True, slots=True)
class Spending:
    """A spending function: non-decreasing in the information, 0 at 0 and all of alpha at 1.

    For the tail probability a and the information fraction t:

    - `obrien_fleming`: `2 - 2 Phi(z_{a/2} / sqrt t)`, close to O'Brien-Fleming boundaries; the
      convention of rpact, gsDesign and East.
    - `obrien_fleming_simple`: `1 - Phi(z_a / sqrt t)`, the convention of ldbounds' two-sided
      designs and of some A/B-testing packages; it spends more early. Not for a of 1/2 or more.
    - `pocock`: `a log(1 + (e - 1) t)`, close to Pocock boundaries.
    - `hwang_shih_decani`: `a (1 - exp(-gamma t)) / (1 - exp(-gamma))`; gamma -4 is close to
      O'Brien-Fleming, 1 to Pocock, 0 is linear.
    - `kim_demets`: `a t^rho`, rho > 0; 3 is close to O'Brien-Fleming, 1 is linear.
    - `tabulated`: straight lines through given points, such as what an exact Wang-Tsiatis design
      spends at its looks.

    Args:
        family: the function, as above.
        parameter: gamma in [-40, 40], or rho > 0; None for families without one.
        table: for `tabulated` alone: pairs of (information fraction, share of alpha), both
            non-decreasing and ending at (1, 1); (0, 0) is added in front.

    Source: Lan, DeMets (1983), section 2; Hwang, Shih, DeCani (1990), eq. 1.1; Kim, DeMets (1987),
    section 2; Jennison, Turnbull (2000), section 7.2.

    Examples:
        >>> Spending("kim_demets", 2.0).spent(0.5, 0.05)
        0.0125

        East 6.5, as quoted in gsDesign's tests: alpha of .025 at half the information.

        >>> round(Spending().spent(0.5, 0.025), 8)
        0.00152532
    """

    family: Family = "obrien_fleming"
    parameter: float | None = None
    table: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Reject what is no spending function."""
        if self.family not in get_args(Family):
            raise DesignError(f"family must be one of {get_args(Family)}, got {self.family!r}")
        if (self.family == "tabulated") != bool(self.table):
            raise DesignError("a table belongs to the family 'tabulated', and only to it")
        self._check_parameter()
        self._check_table()

    def _check_parameter(self) -> None:
        value = self.parameter
        if self.family == "hwang_shih_decani":
            if value is None or not abs(value) <= _LARGEST_GAMMA:
                raise DesignError(f"gamma must lie in [-40, 40], got {value}; try -4")
        elif self.family == "kim_demets":
            if value is None or not (0 < value < math.inf):
                raise DesignError(f"rho must be finite and > 0, got {value}; try 3")
        elif value is not None:
            raise DesignError(f"{self.family} has no parameter, got {value}")

    def _check_table(self) -> None:
        before = (0.0, 0.0)
        for point in self.table:
            if not all(old <= new <= 1 for old, new in zip(before, point, strict=True)):
                raise DesignError(
                    f"a table must rise within [0, 1] in both columns, got {point} after {before}"
                )
            before = point
        if self.table and before != (1.0, 1.0):
            raise DesignError(f"a table must end at (1, 1), got {before}")

    @classmethod
    def tabulated(cls, fractions: Sequence[float], shares: Sequence[float]) -> Self:
        """Straight lines through shares of alpha at information fractions.

        Args:
            fractions: information fractions, rising in (0, 1]; (1, 1) is added if missing.
            shares: share of alpha spent by each, rising in [0, 1].

        Raises:
            DesignError: either does not rise, or leaves [0, 1].

        Examples:
            >>> Spending.tabulated([0.5], [0.5]).spent(0.25, 0.5)
            0.125
        """
        if len(fractions) != len(shares):
            raise DesignError(f"{len(fractions)} fractions but {len(shares)} shares of alpha")
        points = [(float(t), float(s)) for t, s in zip(fractions, shares, strict=True)]
        if points and abs(points[-1][0] - 1) <= _SLACK and abs(points[-1][1] - 1) <= _SLACK:
            points.pop()
        return cls("tabulated", None, (*points, (1.0, 1.0)))

    def spent(self, fraction: float, alpha: float) -> float:
        """Error probability that may be gone by an information fraction.

        Args:
            fraction: information over planned information; below 0 counts as 0, above 1 as 1.
            alpha: error probability of this tail, in (0, 1).

        Returns:
            A probability: 0.0 at 0, exactly alpha at 1.

        Raises:
            DesignError: alpha is unusable, or fraction is NaN.

        Examples:
            >>> Spending("pocock").spent(1.0, 0.025)
            0.025
            >>> round(Spending("hwang_shih_decani", -4.0).spent(0.5, 0.025), 8)
            0.00298007
        """
        if not 0 < alpha < 1:
            raise DesignError(f"alpha must lie in (0, 1), got {alpha}; 0.025 means 2.5 %")
        if math.isnan(fraction):
            raise DesignError("the information fraction is NaN; give a number")
        if fraction <= 0:
            return 0.0
        if fraction >= 1:
            return alpha
        return min(alpha, max(0.0, self._between(fraction, alpha)))

    def _between(self, t: float, alpha: float) -> float:
        """The formulas, for t strictly between 0 and 1."""
        match self.family:
            case "obrien_fleming":
                return 2 * _normal_tail(-float(special.ndtri(alpha / 2)) / math.sqrt(t))
            case "obrien_fleming_simple":
                if alpha >= 0.5:
                    raise DesignError(f"obrien_fleming_simple needs alpha < 0.5, got {alpha}")
                return _normal_tail(-float(special.ndtri(alpha)) / math.sqrt(t))
        return alpha * self._share(t)

    def _share(self, t: float) -> float:
        """The families whose share of alpha does not depend on alpha."""
        parameter = self.parameter or 0.0
        match self.family:
            case "pocock":
                return math.log1p((math.e - 1) * t)
            case "hwang_shih_decani":
                return math.expm1(-parameter * t) / math.expm1(-parameter) if parameter else t
            case "kim_demets":
                return float(t**parameter)
        return self._interpolated(t)

    def _interpolated(self, t: float) -> float:
        x0, y0 = 0.0, 0.0
        for x1, y1 in self.table:
            if t <= x1:
                return y1 if x1 <= x0 else y0 + (y1 - y0) * (t - x0) / (x1 - x0)
            x0, y0 = x1, y1
        return 1.0


def _normal_tail(z: float) -> float:
    """P(Z > z) for a standard normal Z."""
    return float(special.ndtr(-z))


OBRIEN_FLEMING: Final = Spending()
