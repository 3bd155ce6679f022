"""Boundaries of a group sequential test before its first look: by spending, or by a constant.

Nothing here needs data. The design object that meets data look by look is in
`abkit.sequential.group`; power and expected size of a plan are in `abkit.sequential.group_power`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scipy import optimize

from abkit.errors import DesignError
from abkit.sequential.group_walk import (
    START,
    Path,
    Walk,
    above,
    advance,
    below,
    lower_boundary,
    survivors,
    tilted,
    upper_boundary,
)
from abkit.sequential.spending import OBRIEN_FLEMING, Spending
from abkit.stats.difference import check_test, tail_alpha

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative

CLOSEST: Final = 1e-4  # smallest step of information, relative to it, that counts as a step
_LARGEST_Z: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """Looks and boundaries of a group sequential test, in z and in the alternative's direction.

    Args:
        method: how the boundaries came about, such as "obrien_fleming spending".
        alpha: error probability over all looks, in (0, 1).
        alternative: side of the test; two-sided boundaries hold for both signs of z.
        fractions: information of each look over the planned information, rising to 1.
        boundaries: reject at a look if z (its absolute value if two-sided) is at least this.
        alpha_spent: probability of having rejected by each look under no effect, both tails
            together; futility stops count only where they bind.
        futility: stop for futility if z is below this; the last equals the last boundary. None
            without futility.
        beta_spent: probability under `drift` of having stopped for futility by each look.
        drift: mean of z at fraction 1 for which futility was planned; None without futility.
        binding: whether the boundaries rely on stopping for futility.
    """

    method: str
    alpha: float
    alternative: Alternative
    fractions: tuple[float, ...]
    boundaries: tuple[float, ...]
    alpha_spent: tuple[float, ...]
    futility: tuple[float, ...] | None = None
    beta_spent: tuple[float, ...] | None = None
    drift: float | None = None
    binding: bool = False

    @property
    def path(self) -> Path:
        """What goes on at each look: (information, lower z, upper z), futility included."""
        lowers = self.futility or tuple(
            -b if self.alternative == "two-sided" else -math.inf for b in self.boundaries
        )
        return tuple(zip(self.fractions, lowers, self.boundaries, strict=True))

    @property
    def spending(self) -> Spending:
        """The spending function that spends at these looks what this plan spends.

        With it a `GroupSequential` design reproduces the plan at its own looks, and stays valid at
        others.
        """
        shares = [min(1.0, spent / self.alpha) for spent in self.alpha_spent]
        return Spending.tabulated(self.fractions, [*shares[:-1], 1.0])


def even(looks: int) -> tuple[float, ...]:
    """Information fractions of equally spaced looks.

    Args:
        looks: number of looks, >= 1.

    Raises:
        DesignError: there is no look.

    Examples:
        >>> even(4)
        (0.25, 0.5, 0.75, 1.0)
    """
    if looks < 1:
        raise DesignError(f"a design needs at least one look, got {looks}")
    return tuple(k / looks for k in range(1, looks + 1))


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Information fractions as floats, after checking that they rise to 1.

    Args:
        fractions: information fractions of the looks, in (0, 1].

    Raises:
        DesignError: there is none, they do not rise by at least 1e-4 of themselves, or the last is
            not 1.
    """
    given = tuple(float(t) for t in fractions)
    before = 0.0
    for t in given:
        if not before * (1 + CLOSEST) < t <= 1:
            raise DesignError(f"information fractions must rise within (0, 1], got {given}")
        before = t
    if before != 1:
        raise DesignError(f"the last information fraction must be 1, got {given}")
    return given


def spending_plan(
    fractions: Sequence[float],
    *,
    spending: Spending | None = None,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> GroupPlan:
    """Boundaries that spend alpha by a function of the information.

    Valid for any statistic that is, or in the limit becomes, a Brownian motion in the information,
    if the times of the looks do not depend on the statistic.

    Args:
        fractions: information fractions of the looks, rising to 1; see `even`.
        spending: spending function; O'Brien-Fleming type without one.
        alpha: error probability over all looks, in (0, 1).
        alternative: side of the test.

    Returns:
        The plan. A boundary is infinite where less than 1e-280 may be spent.

    Raises:
        DesignError: fractions, alpha or alternative is unusable.

    Source: Lan, DeMets (1983); Jennison, Turnbull (2000), sections 7.2 and 19.2.

    Examples:
        >>> plan = spending_plan(even(5))
        >>> [round(b, 5) for b in plan.boundaries]
        [4.87688, 3.35701, 2.68028, 2.28982, 2.03103]

        Pocock type, one-sided .025 (rpact 3.3.4):

        >>> plan = spending_plan(even(5), spending=Spending("pocock"), alpha=0.025,
        ...                      alternative="greater")
        >>> [round(b, 5) for b in plan.boundaries]
        [2.43798, 2.42681, 2.41019, 2.39665, 2.386]
    """
    check_test(alpha, alternative)
    times = check_fractions(fractions)
    function = spending or OBRIEN_FLEMING
    tail = tail_alpha(alpha, alternative)
    path: Path = ()
    spent: list[float] = [0.0]
    for t in times:
        spent.append(function.spent(t, tail))
        b = upper_boundary(survivors(path, t), t, spent[-1] - spent[-2])
        path = (*path, (t, -b if alternative == "two-sided" else -math.inf, b))
    return GroupPlan(
        method=f"{function.family} spending",
        alpha=alpha,
        alternative=alternative,
        fractions=times,
        boundaries=tuple(b for _, _, b in path),
        alpha_spent=tuple(alpha * (s / tail) for s in spent[1:]),
    )


def wang_tsiatis_plan(
    fractions: Sequence[float],
    *,
    delta: float,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> GroupPlan:
    """Boundaries `C t^(delta - 1/2)`: O'Brien-Fleming at delta 0, Pocock at delta 1/2.

    The constant C is the one that makes the error probability exactly alpha. The last boundary is
    C itself. It needs the looks to be those of the plan: where they may not be, run a
    `GroupSequential` design with the plan's `spending`.

    Args:
        fractions: information fractions of the looks, rising to 1; see `even`.
        delta: shape, in [-2, 1].
        alpha: error probability over all looks, in (0, 1).
        alternative: side of the test.

    Returns:
        The plan.

    Raises:
        DesignError: fractions, delta, alpha or alternative is unusable.

    Source: Wang, Tsiatis (1987); O'Brien, Fleming (1979); Pocock (1977); Jennison, Turnbull (2000),
    sections 2.4, 2.5 and 2.7.1.

    Examples:
        >>> [round(b, 5) for b in wang_tsiatis_plan(even(5), delta=0).boundaries]
        [4.56174, 3.22564, 2.63372, 2.28087, 2.04007]
        >>> round(wang_tsiatis_plan(even(5), delta=0.5).boundaries[-1], 5)
        2.41318
    """
    check_test(alpha, alternative)
    times = check_fractions(fractions)
    if not -2 <= delta <= 1:
        raise DesignError(f"delta must lie in [-2, 1], got {delta}; 0 is O'Brien-Fleming")
    tail = tail_alpha(alpha, alternative)
    shape = [t ** (delta - 0.5) for t in times]

    def excess(constant: float) -> float:
        bounds = [constant * s for s in shape]
        return crossings(times, bounds, two_sided=alternative == "two-sided")[-1] - tail

    if alternative != "two-sided" and tail >= 0.5:
        raise DesignError(f"a one-sided classical design needs alpha < 0.5, got {alpha}")
    constant = float(optimize.brentq(excess, 1e-6, _LARGEST_Z, xtol=1e-11, rtol=1e-13))
    bounds = [constant * s for s in shape]
    spent = crossings(times, bounds, two_sided=alternative == "two-sided")
    return GroupPlan(
        method=f"wang_tsiatis {delta:g}",
        alpha=alpha,
        alternative=alternative,
        fractions=times,
        boundaries=tuple(bounds),
        alpha_spent=tuple(alpha * (s / tail) for s in spent),
    )


def crossings(times: Sequence[float], bounds: Sequence[float], *, two_sided: bool) -> list[float]:
    """Probability under no effect of having crossed the upper boundary by each look.

    Args:
        times: information of the looks, rising.
        bounds: upper boundary of z at each.
        two_sided: whether runs also stop at the mirrored lower boundary.

    Returns:
        Cumulative probabilities of one tail.
    """
    walk, total, answer = START, 0.0, []
    for k, (t, b) in enumerate(zip(times, bounds, strict=True)):
        total += above(walk, walk.masses, t, b)
        answer.append(total)
        if k + 1 < len(times):
            walk = advance(walk, (t, -b if two_sided else -math.inf, b), times[k + 1])
    return answer


def futility_plan(
    fractions: Sequence[float],
    *,
    power: float = 0.8,
    spending: Spending | None = None,
    futility: Spending | None = None,
    binding: bool = False,
    alpha: float = 0.025,
    alternative: Alternative = "greater",
) -> GroupPlan:
    """One-sided boundaries that also stop when an effect of the planned size is out of reach.

    Alpha is spent under no effect, beta = 1 - power under the drift; the drift is the one at which
    both boundaries meet at the last look. Non-binding: futility stops may be overruled without
    losing the error guarantee. Binding: they may not, and efficacy boundaries are a little lower.

    Args:
        fractions: information fractions of the looks, rising to 1.
        power: probability of rejecting under the drift, above alpha.
        spending: of alpha; O'Brien-Fleming type without one.
        futility: spending of beta; O'Brien-Fleming type without one.
        binding: whether stopping for futility is a promise.
        alpha: error probability over all looks, in (0, 1).
        alternative: "greater" or "less".

    Returns:
        The plan, with its drift: the mean of z at the planned end.

    Raises:
        DesignError: an argument is unusable, or the test is two-sided.

    Source: Pampallona, Tsiatis, Kim (2001); Jennison, Turnbull (2000), section 7.3.

    Examples:
        rpact 3.3.4: `getDesignGroupSequential(kMax=3, alpha=.025, beta=.2, sided=1,
        typeOfDesign="asOF", typeBetaSpending="bsOF")`.

        >>> plan = futility_plan(even(3))
        >>> [round(a, 5) for a in plan.futility], round(plan.drift**2, 5)
        ([-0.23614, 1.17037, 1.99305], 8.66778)
    """
    check_one_sided(alternative)
    check_test(alpha, alternative)
    if not alpha < power < 1:
        raise DesignError(f"power must lie between alpha and 1, got {power}")
    beta = 1 - power
    plain = spending_plan(fractions, spending=spending, alpha=alpha, alternative=alternative)
    function = futility or OBRIEN_FLEMING

    def planned(drift: float) -> tuple[GroupPlan, float]:
        """The plan for a drift, and the beta that it has left over at its end."""
        effect, alpha_path, beta_path = drift, Path(), Path()
        beta_spent: list[float] = []
        for k, t in enumerate(plain.fractions):
            alpha_walk, beta_walk = survivors(alpha_path, t), survivors(beta_path, t)
            new = plain.alpha_spent[k] - (plain.alpha_spent[k - 1] if k else 0.0)
            b = upper_boundary(alpha_walk, t, new)
            last = k + 1 == len(plain.fractions)
            spent = beta_spent[-1] if beta_spent else 0.0
            allowed = function.spent(t, beta) - spent
            a = b if last else min(b, lower_boundary(beta_walk, t, allowed, effect))
            beta_spent.append(spent + _stopped_below(beta_walk, t, a, effect))
            beta_path = (*beta_path, (t, a, b))
            alpha_path = beta_path if binding else (*alpha_path, (t, -math.inf, b))
        plan = replace(
            plain,
            method=f"{plain.method}, {function.family} futility",
            boundaries=tuple(b for _, _, b in beta_path),
            futility=tuple(a for _, a, _ in beta_path),
            beta_spent=tuple(beta_spent),
            drift=drift,
            binding=binding,
        )
        return plan, beta_spent[-1] - beta

    highest = 20.0
    drift = float(optimize.brentq(lambda d: planned(d)[1], 1e-3, highest, xtol=1e-10))
    return planned(drift)[0]


def _stopped_below(walk: Walk, information: float, z: float, effect: float) -> float:
    return below(walk, tilted(walk, effect), information, z, effect)


def check_one_sided(alternative: str) -> None:
    """Reject futility for a two-sided test.

    Raises:
        DesignError: the alternative is "two-sided".
    """
    if alternative == "two-sided":
        raise DesignError(
            "futility needs a direction: use alternative='greater' or 'less' with half the alpha"
        )
