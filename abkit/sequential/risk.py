"""How much worse treatment can be: an upper bound of the relative risk that holds at every look.

For each relative risk r0 of a grid, "treatment's rate is at least r0 times control's" is tested by
the mixture of `abkit.sequential.canary`, turned round: likelihood ratios of smaller relative risks
against r0, which is valid for any base rates, splits and looks (proof there). The bound is the
smallest r0 that is rejected. A single test suffices, since its null holds all larger risks too.

All tests share one sum per relative risk, so a look costs one pass over the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from abkit.errors import DataError, DesignError

if TYPE_CHECKING:
    from abkit.moments import Block

_POINTS: Final = 96
_NEAREST: Final = 0.02  # bounds are 1 + 0.02 to 1 + 999, evenly spaced in the logarithm
_FARTHEST: Final = 999.0
_BETTER: Final = (0.25, 0.5, 0.7, 0.85)
_EQUAL_WEIGHT: Final = 0.6
BOUNDS: Final[tuple[float, ...]] = tuple(
    1 + _NEAREST * (_FARTHEST / _NEAREST) ** (i / (_POINTS - 1)) for i in range(_POINTS)
)
_RISKS: Final[tuple[float, ...]] = (*_BETTER, 1.0, *BOUNDS)
_EQUAL: Final = len(_BETTER)


@dataclass(frozen=True, slots=True)
class RiskBound:
    """The upper bound after some blocks.

    Args:
        alpha: chance that the bound is ever below the relative risk, in (0, 1).
        log_likelihood: of each relative risk of the grid, up to a constant.

    Examples:
        >>> from abkit.moments import Block
        >>> RiskBound().upper
        inf
        >>> calm = RiskBound().update(Block(9_900, 100, 200, 2))
        >>> 2 < calm.upper < 10
        True
    """

    alpha: float = 0.05
    log_likelihood: tuple[float, ...] = (0.0,) * len(_RISKS)

    def __post_init__(self) -> None:
        """Reject what is no level, or of another grid."""
        if not 0 < self.alpha < 1:
            raise DesignError(f"alpha must lie in (0, 1), got {self.alpha}")
        if len(self.log_likelihood) != len(_RISKS):
            raise DataError(f"a bound has {len(_RISKS)} sums, got {len(self.log_likelihood)}")

    def update(self, block: Block) -> Self:
        """The bound after one more block.

        Raises:
            DataError: an arm has more events than requests.
        """
        if block.events_control > block.n_control or block.events_treatment > block.n_treatment:
            raise DataError(f"an arm has more events than requests: {block}")
        hits, trials = block.events_treatment, block.events_control + block.events_treatment
        theta = block.n_treatment / max(1, block.n_control + block.n_treatment)
        if trials == 0 or theta in (0.0, 1.0):
            return self
        gained = (
            old + hits * math.log(risk) - trials * math.log1p(theta * (risk - 1))
            for old, risk in zip(self.log_likelihood, _RISKS, strict=True)
        )
        return replace(self, log_likelihood=tuple(gained))

    @property
    def upper(self) -> float:
        """The bound, > 1; infinite while nothing is excluded."""
        peak = max(self.log_likelihood)
        weights = [math.exp(value - peak) for value in self.log_likelihood]
        least = math.log(1 / self.alpha)
        below: float = math.fsum(weights[: _EQUAL + 1])
        for i in range(_EQUAL + 1, len(_RISKS)):
            mixture = _EQUAL_WEIGHT * weights[_EQUAL] + (1 - _EQUAL_WEIGHT) * below / i
            null = self.log_likelihood[i] - peak
            if mixture > 0 and math.log(mixture) - null >= least:
                return _RISKS[i]
            below += weights[i]
        return math.inf
