"""Designs by name: one list for what is planned, simulated and analysed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

from abkit.errors import ConfigError, DesignError
from abkit.records import hint
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.canary import CanaryDesign
from abkit.sequential.fixed import FixedHorizon
from abkit.sequential.group import GroupSequential
from abkit.sequential.group_plan import even, wang_tsiatis_plan
from abkit.sequential.hypergeometric import HypergeometricMixture
from abkit.sequential.msprt import FixedTauMixture
from abkit.sequential.spending import Spending

if TYPE_CHECKING:
    from abkit.estimate import Alternative

NamedDesign: TypeAlias = (
    FixedHorizon
    | GroupSequential
    | AlwaysValid
    | CalibratedMixture
    | FixedTauMixture
    | HypergeometricMixture
    | CanaryDesign
)

# What each name means, in one line for people.
DESIGNS: Final = {
    "fixed": "one look, at the planned end",
    "group-sequential": "a few looks at any time, O'Brien-Fleming type spending",
    "obf": "a few planned looks, O'Brien and Fleming's boundaries",
    "pocock": "a few planned looks, Pocock's boundaries: stops early more often, needs more units",
    "always-valid": "any look, without an end",
    "calibrated": "any look up to twice the planned units, all of alpha spent by then",
    "msprt": "any look, the mixture SPRT with a stated prior variance",
    "hypergeometric": "rates, exact at any look",
    "canary": "error events, exact at any look, to halt",
}
_SHAPES: Final = {"obf": 0.0, "pocock": 0.5}
CALIBRATED_HORIZON: Final = 2.0


def check_design(name: object) -> str:
    """The name of a design, if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(name, str) or name not in DESIGNS:
        raise ConfigError(f"no design {name!r}{hint(str(name), DESIGNS)}")
    return name


def design_named(
    name: str,
    *,
    planned_units: int,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    looks: int = 5,
    margin: float = 0.0,
    tau2: float | None = None,
) -> NamedDesign:
    """The design of a name.

    Args:
        name: one of `DESIGNS`.
        planned_units: units of both arms together at the planned end of an even split, >= 1; for
            a constant share q, 4 q (1 - q) times the units. "calibrated" may run to twice that.
        alpha: error probability over all looks together, in (0, 1). The canary test has none of
            its own: compare its e-value with 1 / alpha.
        alternative: side of the test; "canary" asks for harm with "greater" and for its absence
            with "less".
        looks: planned looks of "obf" and "pocock", >= 1; others need no plan of them.
        margin: difference on the border of the null, in the metric's unit. "fixed", "always-valid"
            and "calibrated" hold it; group sequential designs are given a contrast from which
            margin times effective units was taken off; the others take none.
        tau2: prior variance of the difference, in the metric's unit squared, for "msprt".

    Returns:
        The design, fixed before the first unit.

    Raises:
        ConfigError: there is no such design.
        DesignError: an argument does not suit the design.

    Examples:
        >>> from abkit.sequential.group import Statistic
        >>> design_named("calibrated", planned_units=20_000).maximum
        10000.0
        >>> design_named("obf", planned_units=400, looks=2).look(Statistic(2.8, 50.0)).decision
        'reject'
    """
    check_design(name)
    if name in ("group-sequential", *_SHAPES):
        spending = Spending()
        if name in _SHAPES:
            plan = wang_tsiatis_plan(
                even(looks), delta=_SHAPES[name], alpha=alpha, alternative=alternative
            )
            spending = plan.spending
        return GroupSequential.for_units(
            planned_units, spending=spending, alpha=alpha, alternative=alternative
        )
    if name in ("fixed", "always-valid"):
        kind = FixedHorizon if name == "fixed" else AlwaysValid
        return kind(
            planned_units=planned_units, alpha=alpha, alternative=alternative, margin=margin
        )
    if name == "calibrated":
        return CalibratedMixture(
            planned_units=planned_units,
            horizon=CALIBRATED_HORIZON,
            alpha=alpha,
            alternative=alternative,
            margin=margin,
        )
    if margin:
        raise DesignError(f"the design {name!r} takes no margin on the absolute scale")
    return _unusual(name, alpha=alpha, alternative=alternative, tau2=tau2)


def _unusual(
    name: str, *, alpha: float, alternative: Alternative, tau2: float | None
) -> FixedTauMixture | HypergeometricMixture | CanaryDesign:
    if name == "msprt":
        if alternative != "two-sided":
            raise DesignError(f"the design 'msprt' is two-sided, got {alternative!r}")
        if tau2 is None or not (math.isfinite(tau2) and tau2 > 0):
            raise DesignError(
                f"the design 'msprt' needs tau2, the prior variance of the difference, got {tau2}"
            )
        return FixedTauMixture(tau2=tau2, alpha=alpha)
    if name == "hypergeometric":
        return HypergeometricMixture(alpha=alpha, alternative=alternative)
    if alternative == "two-sided":
        raise DesignError(
            "the design 'canary' has a side: 'greater' looks for harm, 'less' for its absence"
        )
    return CanaryDesign(harm=alternative == "greater")
