"""The question of a plan: what is given, what is wanted, and whether the two go together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError, DesignError
from abkit.records import check_count, check_fraction, check_positive, is_number
from abkit.stats.unit_model import MeanModel, Model, ProportionModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.planning.report import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with everything filled in.

    Args:
        wanted: what is computed from the other two.
        model: what is measured of one unit; for a margin, with both spreads as they truly are.
        rate: of control, for proportions; None for means.
        difference: true difference that is planned for; None where it is wanted.
        margin: difference on the border of the null; 0.0 without one.
        units: of all arms; None where they are wanted.
        power: None where it is wanted.
        alpha: of all comparisons together.
        alternative: side of the test.
        shares: of the arms, control first; they sum to 1.
        units_per_day: None where it is not known.
        looks: as asked for.
        runs: of simulations.
        seed: of simulations.
    """

    wanted: Wanted
    model: Model
    rate: float | None
    difference: float | None
    margin: float
    units: int | None
    power: float | None
    alpha: float
    alternative: Alternative
    shares: tuple[float, ...]
    units_per_day: float | None
    looks: int | None
    runs: int
    seed: int

    @property
    def alpha_each(self) -> float:
        """Error probability of one comparison (Bonferroni)."""
        return self.alpha / (len(self.shares) - 1)

    @property
    def pair(self) -> tuple[float, float]:
        """Shares of control and of the smallest treatment."""
        return self.shares[0], min(self.shares[1:])


def question_of(
    *,
    baseline: float | None,
    sd: float | None,
    variance_reduction: float,
    effect: float | None,
    units: int | None,
    power: float | None,
    alternative: Alternative | None,
    margin: float | None,
    **rest: Any,
) -> Question:
    """The question, after checking that it has one answer."""
    check_fraction("plan", "alpha", rest["alpha"])
    check_count("plan", "runs", rest["runs"], least=100)
    if margin is not None:
        alternative = _side_of_margin(margin, alternative)
        if effect is None and (units is None or power is None):
            effect = 0.0
    if effect is not None and units is not None and power is not None:
        raise ConfigError("give two of effect, units and power; the third is computed")
    if effect is None and units is None:
        raise ConfigError(
            "nothing to plan with: give an effect (lift or difference) or units (units or days)"
        )
    wanted: Wanted = "units" if units is None else "power" if effect is not None else "effect"
    if power is None and wanted != "power":
        power = 0.8
    if baseline is None and sd is None:
        raise ConfigError("give baseline, a rate in (0, 1), or sd for a mean, or a history of both")
    rate: float | None = None
    model: Model
    if sd is None:
        rate = baseline
        if not is_number(rate) or not 0 < rate < 1:  # type: ignore[operator]
            raise ConfigError(
                f"baseline {rate!r} is no rate in (0, 1); for a mean give its standard deviation sd"
            )
        model = ProportionModel(float(rate), variance_reduction)  # type: ignore[arg-type]
    else:
        model = MeanModel(sd, baseline, None, variance_reduction)
    if rate is not None and margin is not None:
        model = truth_model(rate, effect or 0.0, variance_reduction)
    return Question(
        wanted=wanted,
        model=model,
        rate=rate,
        difference=effect,
        margin=margin or 0.0,
        units=units,
        power=power,
        alternative=alternative or "two-sided",
        **rest,
    )


def truth_model(rate: float, difference: float, reduction: float) -> MeanModel:
    """Both arms' spreads where rates truly differ by so much: under a margin no null pools them."""
    other = rate + difference
    if not 0 < other < 1:
        raise DesignError(f"difference {difference} takes the rate {rate} out of (0, 1)")
    return MeanModel(math.sqrt(rate * (1 - rate)), rate, math.sqrt(other * (1 - other)), reduction)


def _side_of_margin(margin: float, alternative: Alternative | None) -> Alternative:
    if not is_number(margin) or margin == 0:
        raise ConfigError(f"margin must be a number other than 0, got {margin!r}")
    side: Alternative = "greater" if margin < 0 else "less"
    if alternative is not None and alternative != side:
        raise ConfigError(
            f"a margin of {margin:g} is tested on the side {side!r}, got {alternative!r}"
        )
    return side


def effect_of(baseline: float | None, lift: float | None, difference: float | None) -> float | None:
    """The effect in the metric's unit.

    Raises:
        ConfigError: it is given twice, is no number, or is a lift of nothing.
    """
    if lift is not None and difference is not None:
        raise ConfigError("give the effect once: as lift or as difference")
    if lift is None:
        if difference is not None and not is_number(difference):
            raise ConfigError(f"difference must be a finite number, got {difference!r}")
        return difference
    if not is_number(lift):
        raise ConfigError(f"a lift must be a number, got {lift!r}")
    if baseline is None:
        raise ConfigError(
            "a lift needs the baseline that it is a share of (--baseline); or give a difference"
        )
    if not baseline:
        raise ConfigError(f"there is no lift of the baseline {baseline!r}; give a difference")
    return lift * baseline


def units_of(units: int | None, days: float | None, units_per_day: float | None) -> int | None:
    """Units of all arms, from units or days.

    Raises:
        ConfigError: they are given twice, are no number above 0, or days cannot be counted.
    """
    if units_per_day is not None:
        check_positive("plan", "units_per_day", units_per_day)
    if units is not None and days is not None:
        raise ConfigError("give the run length once: as units or as days")
    if days is not None:
        check_positive("plan", "days", days)
        if units_per_day is None:
            raise ConfigError("days need units_per_day, or a history with a time column")
        return max(1, math.floor(days * units_per_day))
    if units is not None:
        check_count("plan", "units", units, least=1)
    return units


def shares_of(
    arms: int, weights: Sequence[float] | Mapping[str, float] | None
) -> tuple[float, ...]:
    """Shares of the arms, control first, that sum to 1.

    Raises:
        ConfigError: arms and weights disagree, or a weight is not above 0.
    """
    check_count("plan", "arms", arms, least=2)
    if weights is None:
        return (1 / arms,) * arms
    given = tuple(weights.values()) if isinstance(weights, Mapping) else tuple(weights)
    if arms not in (2, len(given)):
        raise ConfigError(f"{arms} arms but {len(given)} weights")
    if len(given) < 2 or not all(is_number(w) and w > 0 for w in given):
        raise ConfigError(
            f"weights must be two or more numbers above 0, control first, got {given}"
        )
    total = math.fsum(given)
    return tuple(weight / total for weight in given)
