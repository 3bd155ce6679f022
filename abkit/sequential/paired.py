"""Two models on the same units, exactly: discordant pairs, and symmetric differences.

Of two models that both answered a unit, only the units on which exactly one is right tell which is
better. Under the null each of those is a fair coin: the evidence is a mixture over its bias. It
needs no variance estimate and no minimum count.

Differences of scores that are symmetric around zero under the null (exchangeable models) have signs
that are fair coins too, and `exp(l d - l^2 d^2 / 2)` has mean at most 1 whatever their tails: the
normal mixture holds exactly with the sum of squares as clock. For scores in a known range without
symmetry there is `abkit.sequential.betting`; in the limit, `paired_difference`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import special

from abkit.errors import DataError, DesignError
from abkit.estimate import Interval
from abkit.sequential.counts import share_interval
from abkit.sequential.design import Look, check_past, rejected, running_p
from abkit.sequential.normal import normal_log_mixture
from abkit.stats.difference import check_test
from abkit.stats.srm import capped_exp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative
    from abkit.moments import Moments, PairedCounts


def coin_log_e(
    heads: int,
    tails: int,
    *,
    concentration: float = 10.0,
    null: float = 0.5,
    alternative: Alternative = "two-sided",
) -> float:
    """Log e-value that a coin is not as stated.

    Args:
        heads: tosses that came up heads, >= 0.
        tails: tosses that came up tails, >= 0.
        concentration: sum of the beta prior's parameters, > 0, in tosses; its mean is the null.
        null: chance of heads on the border of the null, in (0, 1).
        alternative: "greater" mixes over larger chances only.

    Returns:
        Natural logarithm of the e-value; 0.0 before the first toss. -inf on one side where the
        tosses lie so far on the other that the prior's share does not fit into a float.

    Raises:
        DataError: a count is negative.
        DesignError: concentration, null or alternative is unusable.

    Source: Robbins (1970), the beta mixture; Lindon, Malek (2022) for two arms.

    Examples:
        Two-sided it is Lindon and Malek's test; statistics.md, 11: 4.917049

        >>> round(math.exp(coin_log_e(560, 480, concentration=100)), 6)
        4.917049
    """
    check_test(0.5, alternative)
    if min(heads, tails) < 0:
        raise DataError(f"counts cannot be negative, got {heads} and {tails}")
    if not (math.isfinite(concentration) and concentration > 0 and 0 < null < 1):
        raise DesignError(
            f"need a finite concentration > 0 and a null in (0, 1), got {concentration}, {null}"
        )
    if alternative == "less":
        return coin_log_e(
            tails, heads, concentration=concentration, null=1 - null, alternative="greater"
        )
    a, b = concentration * null, concentration * (1 - null)
    log_e = float(special.betaln(a + heads, b + tails) - special.betaln(a, b))
    log_e -= heads * math.log(null) + tails * math.log1p(-null)
    if alternative == "greater":
        prior = float(special.betaincc(a, b, null))
        posterior = float(special.betaincc(a + heads, b + tails, null))
        # No floor under the posterior: the two-sided evidence beside it may be larger still.
        log_e += (math.log(posterior) if posterior > 0 else -math.inf) - math.log(prior)
    return log_e


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordantPairs:
    """A comparison of two models that both answered the same units right or wrong.

    Args:
        alpha: error probability over all looks together, in (0, 1).
        alternative: "greater" asks whether treatment is right more often.
        concentration: of the beta prior, > 0, in discordant pairs: 10 looks for wins of about 65 %
            against 35 %, 100 for 55 % against 45 %.

    Source: McNemar (1947) for the condition on discordant pairs; Robbins (1970) for the mixture.

    Examples:
        >>> from abkit.moments import PairedCounts
        >>> look = DiscordantPairs().look(PairedCounts(880, 40, 80, 0))
        >>> look.decision, round(look.estimate, 3)
        ('reject', 0.04)
    """

    alpha: float = 0.05
    alternative: Alternative = "two-sided"
    concentration: float = 10.0

    def __post_init__(self) -> None:
        """Reject what no test can ask."""
        check_test(self.alpha, self.alternative)
        coin_log_e(0, 0, concentration=self.concentration)

    def look(self, data: PairedCounts, past: Sequence[Look] = ()) -> Look:
        """Evidence at one look; exact at every look.

        Args:
            data: all pairs so far.
            past: earlier looks, oldest first; the last one's p-value and rejection stand.

        Returns:
            A look; the estimate is the difference of the shares that are right, the interval that
            of the chance that treatment wins a discordant pair (0.5: no difference). Before the
            first discordant pair: "insufficient_data", an e-value of 1.
        """
        check_past(past, self, method="discordant_pairs")
        wins, losses = data.only_treatment, data.only_control
        log_e = coin_log_e(
            wins, losses, concentration=self.concentration, alternative=self.alternative
        )
        stops = log_e >= -math.log(self.alpha) or rejected(past)
        return Look(
            method="discordant_pairs",
            guarantee="anytime-valid",
            alpha=self.alpha,
            alternative=self.alternative,
            status="ok" if data.discordant else "insufficient_data",
            decision="reject" if stops else "continue",
            information=float(data.discordant),
            estimate=(wins - losses) / data.n if data.n else None,
            interval=self._interval(wins, losses, log_e) if data.discordant else None,
            e_value=capped_exp(log_e),
            p_value=running_p(log_e, past),
            notes=("the interval is of the chance that treatment wins a discordant pair",),
        )

    def _interval(self, wins: int, losses: int, log_e: float) -> Interval:
        """Chances of a win that the mixture, around one half, does not rule out."""
        level = log_e + (wins + losses) * math.log(0.5) + math.log(self.alpha)
        found = share_interval(wins, wins + losses, level)
        return Interval(
            0.0 if self.alternative == "less" else found.lower,
            1.0 if self.alternative == "greater" else found.upper,
        )


def symmetric_log_e(
    differences: Moments, *, rho: float, alternative: Alternative = "two-sided"
) -> float:
    """Log e-value that differences which would be symmetric around zero are not.

    Args:
        differences: moments of treatment minus control, one value per unit.
        rho: precision of the mixing normal, > 0, in the metric's unit squared: `normal_rho` of the
            sum of squares that is expected at the planned end.
        alternative: side of the test.

    Returns:
        Natural logarithm of the e-value; 0.0 before the first unit. Exact for symmetric
        differences of any tails, which need not have a variance.

    Raises:
        DataError: values are too large for their squares to be summed.
        DesignError: rho or alternative is unusable.

    Source: de la Pena (1999), theorem 6.1; Howard, Ramdas, McAuliffe, Sekhon (2020), lemma 3.

    Examples:
        >>> from abkit.moments import Moments
        >>> symmetric_log_e(Moments(), rho=1.0)
        0.0
    """
    squares = differences.m2 + differences.n * (differences.mean * differences.mean)
    if not math.isfinite(squares):
        raise DataError("values are too large for their squares to be summed; rescale the metric")
    return normal_log_mixture(differences.total, squares, rho=rho, alternative=alternative)
