"""mSPRT, safe tests, pairs, e-values and the prior of tilted tests."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import integrate, stats

from abkit.errors import ConfigError, DataError, DesignError
from abkit.moments import Moments, PairedCounts
from abkit.sequential.design import Contrast
from abkit.sequential.evalues import e_average, e_product, e_to_p, p_to_e
from abkit.sequential.msprt import FixedTauMixture, liu_log_e, msprt_interval, msprt_log_e
from abkit.sequential.paired import DiscordantPairs, coin_log_e, symmetric_log_e
from abkit.sequential.safe import safe_t_interval, safe_t_log_e, safe_z_log_e
from abkit.sequential.tilting import TiltPrior

if TYPE_CHECKING:
    from abkit.estimate import Alternative
    from abkit.sequential.safe import EffectPrior

SIDES: tuple[Alternative, ...] = ("two-sided", "greater", "less")

# --- mSPRT ---------------------------------------------------------------------------------------


def test_the_msprt_is_the_formula_of_the_conventions() -> None:
    """REFERENCE, conventions: .5 ln(V/(V+tau2)) + tau2 d^2 / (2 V (V+tau2))."""
    d, v, tau2 = 0.3, 0.02, 0.05
    expected = 0.5 * math.log(v / (v + tau2)) + tau2 * d * d / (2 * v * (v + tau2))
    assert msprt_log_e(d, v, tau2=tau2) == pytest.approx(expected, rel=1e-12)


def test_the_msprt_interval_ends_where_the_evidence_is_one_over_alpha() -> None:
    interval = msprt_interval(0.3, 0.02, tau2=0.05)
    for end in (interval.lower, interval.upper):
        assert msprt_log_e(0.3 - end, 0.02, tau2=0.05) == pytest.approx(math.log(20))


@pytest.mark.parametrize("tau2", [1e-300, 1e300])
def test_extreme_priors_stay_finite(tau2: float) -> None:
    assert math.isfinite(msprt_log_e(0.3, 0.02, tau2=tau2))


def test_the_msprt_design_says_why_there_is_no_answer() -> None:
    design = FixedTauMixture(tau2=0.1)
    assert design.look(Contrast(0.0, 0.0, 0.0, enough=False)).status == "insufficient_data"
    assert design.look(Contrast(0.0, 0.0, 9.0)).status == "zero_variance"
    assert liu_log_e(Moments.of([1.0, 1.0]), Moments.of([1.0, 1.0]), tau2=1.0) == 0.0
    with pytest.raises(DataError, match="variance"):
        msprt_log_e(0.1, 0.0, tau2=0.1)
    with pytest.raises(DesignError, match="tau2"):
        FixedTauMixture(tau2=0.0)


# --- safe tests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("prior", ["grow", "gauss"])
def test_safe_tests_have_mean_one_under_the_null(side: str, prior: str) -> None:
    ask = {"effect": 0.5, "prior": prior, "alternative": side}

    def z_term(z: float) -> float:
        return float(stats.norm.pdf(z)) * math.exp(safe_z_log_e(z, 9, **ask))  # type: ignore[arg-type]

    def t_term(t: float) -> float:
        e_value = math.exp(safe_t_log_e(t, 9, degrees_of_freedom=8, **ask))  # type: ignore[arg-type]
        return float(stats.t.pdf(t, 8)) * e_value

    assert integrate.quad(z_term, -20, 20)[0] == pytest.approx(1, abs=1e-6)
    assert integrate.quad(t_term, -400, 400, limit=500)[0] == pytest.approx(1, abs=1e-4)


def test_the_safe_t_interval_ends_where_the_evidence_is_one_over_alpha() -> None:
    interval = safe_t_interval(1.0, 2.0, 40, degrees_of_freedom=39, effect=0.5)
    for end in (interval.lower, interval.upper):
        t = (1.0 - end) / (2.0 / math.sqrt(40))
        log_e = safe_t_log_e(t, 40, degrees_of_freedom=39, effect=0.5)
        assert log_e == pytest.approx(math.log(20), abs=1e-9)


def test_safe_tests_at_the_edges() -> None:
    assert safe_z_log_e(5.0, 0, effect=0.3) == 0.0
    assert safe_t_log_e(5.0, 1, degrees_of_freedom=0, effect=0.3) == 0.0
    few = safe_t_interval(1.0, 2.0, 2, degrees_of_freedom=1, effect=0.5)
    assert (few.lower, few.upper) == (-math.inf, math.inf)
    for t in (-60.0, 60.0, 1e6):
        for side, prior in itertools.product(SIDES, ("grow", "gauss")):
            log_e = safe_t_log_e(
                t,
                500,
                degrees_of_freedom=499,
                effect=0.3,
                prior=prior,  # type: ignore[arg-type]
                alternative=side,  # type: ignore[arg-type]
            )
            assert not math.isnan(log_e)
    with pytest.raises(ConfigError, match="prior"):
        safe_z_log_e(1.0, 9, effect=0.3, prior="cauchy")  # type: ignore[arg-type]
    with pytest.raises(DesignError, match="effect"):
        safe_z_log_e(1.0, 9, effect=0.0)
    with pytest.raises(DataError, match="finite"):
        safe_z_log_e(math.nan, 9, effect=0.3)


# --- pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_a_fair_coin_has_mean_one(side: str) -> None:
    total = sum(
        stats.binom.pmf(k, 14, 0.5) * math.exp(coin_log_e(k, 14 - k, alternative=side))  # type: ignore[arg-type]
        for k in range(15)
    )
    assert total == pytest.approx(1, abs=1e-12)


def test_discordant_pairs_reject_exactly_when_one_half_is_outside() -> None:
    design = DiscordantPairs()
    for wins in range(31):
        look = design.look(PairedCounts(50, 30 - wins, wins, 5))
        assert look.interval is not None
        assert (0.5 not in look.interval) == (look.decision == "reject")
    empty = design.look(PairedCounts(9, 0, 0, 1))
    assert (empty.status, empty.e_value, empty.interval) == ("insufficient_data", 1.0, None)
    only = design.look(PairedCounts(0, 0, 12, 0))
    assert only.interval is not None
    assert only.interval.upper == 1.0
    assert only.decision == "reject"


def test_symmetric_differences_need_no_variance() -> None:
    rng = np.random.default_rng(2)
    rejected = 0
    for _ in range(200):
        values = rng.standard_cauchy(200)
        state, worst = Moments(), 0.0
        for part in np.split(values, 10):
            state = state + Moments.of(part.tolist())
            worst = max(worst, symmetric_log_e(state, rho=200.0))
        rejected += worst >= math.log(20)
    assert rejected <= stats.binom.isf(1e-6, 200, 0.05)
    with pytest.raises(DesignError, match="rho"):
        symmetric_log_e(Moments(), rho=0.0)


def test_impossible_coins_are_refused() -> None:
    with pytest.raises(DataError, match="negative"):
        coin_log_e(-1, 0)
    with pytest.raises(DesignError, match="null"):
        coin_log_e(1, 0, null=1.0)


# --- e-values ------------------------------------------------------------------------------------


def test_calibrators_are_valid() -> None:
    mass = integrate.quad(lambda u: p_to_e(math.exp(-u)) * math.exp(-u), 0, 700, limit=500)[0]
    assert mass + 1 / 700 == pytest.approx(1, abs=1e-4)  # the tail is 1 / u^2
    assert p_to_e(1.0) == pytest.approx(0.5)
    assert p_to_e(1 - 1e-5) == pytest.approx(p_to_e(1 - 2e-4), abs=1e-4)
    assert math.isfinite(p_to_e(0.0))
    assert e_to_p(0.0) == 1.0
    assert e_to_p(math.inf) == 0.0
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(DataError):
            p_to_e(wrong)


def test_combinations_stay_finite() -> None:
    assert e_product([]) == 1.0
    assert e_product([0.0, 5.0]) == 0.0
    assert math.isfinite(e_product([1e300] * 5))
    assert math.isfinite(e_product([math.inf]))
    assert e_average([2.0, 4.0], [3.0, 1.0]) == pytest.approx(2.5)
    assert math.isfinite(e_average([math.inf, 1.0]))
    with pytest.raises(ConfigError):
        e_average([])
    with pytest.raises(ConfigError):
        e_average([1.0], [1.0, 2.0])
    with pytest.raises(DataError):
        e_product([math.nan])


# --- the prior of tilted tests -------------------------------------------------------------------


@pytest.mark.parametrize("expected", [None, 0.1, 2.0])
@pytest.mark.parametrize("side", SIDES)
def test_prior_weights_sum_to_one_on_their_side(side: str, expected: float | None) -> None:
    prior = TiltPrior(null=0.3, alternative=side, expected=expected)  # type: ignore[arg-type]
    assert prior.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (prior.weights >= 0).all()
    if side == "greater":
        assert not prior.weights[prior.nodes <= 0.3].any()
    if side == "less":
        assert not prior.weights[prior.nodes >= 0.3].any()


def test_the_prior_has_the_moments_of_its_half_normals() -> None:
    prior = TiltPrior()
    square = float((prior.weights * prior.nodes**2).sum())
    assert square == pytest.approx(0.5 * 0.25 + 0.5 * 1.0, rel=1e-3)


@pytest.mark.parametrize("losses", [100, 1_000, 5_000, 1_000_000])
def test_a_coin_far_on_the_other_side_is_no_evidence(losses: int) -> None:
    assert coin_log_e(0, losses, alternative="greater") < 0
    assert coin_log_e(losses, 0, alternative="less") < 0
    look = DiscordantPairs(alternative="greater").look(PairedCounts(0, losses, losses // 9, 0))
    assert look.decision == "continue"
    assert look.p_value == 1.0


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("wins", range(0, 120, 3))
def test_the_interval_of_wins_leaves_one_half_out_exactly_when_the_test_rejects(
    side: Alternative, wins: int
) -> None:
    look = DiscordantPairs(alternative=side).look(PairedCounts(0, 40, wins, 0))
    assert look.interval is not None
    assert (0.5 not in look.interval) == (look.decision == "reject")


def test_a_single_loss_among_many_wins_has_an_interval() -> None:
    look = DiscordantPairs().look(PairedCounts(0, 1, 10_000, 0))
    assert look.interval is not None
    assert 0.99 < look.interval.lower < 1 - 1e-4 < look.interval.upper <= 1
    for concentration in (1e-3, 1e6):
        design = DiscordantPairs(concentration=concentration)
        for pairs in (PairedCounts(0, 1, 999, 0), PairedCounts(0, 999, 1, 0)):
            found = design.look(pairs).interval
            assert found is not None
            assert 0 <= found.lower < found.upper <= 1


def test_pairs_cannot_be_negative() -> None:
    with pytest.raises(DataError, match="only_control"):
        PairedCounts(0, -1, 3, 0)


@pytest.mark.parametrize("prior", ["grow", "gauss"])
def test_less_is_greater_seen_in_a_mirror(prior: EffectPrior) -> None:
    for t in (-3.0, 0.5, 3.0):
        z = safe_z_log_e(t, 50, effect=0.3, prior=prior, alternative="less")
        assert z == safe_z_log_e(-t, 50, effect=0.3, prior=prior, alternative="greater")
        log_e = safe_t_log_e(
            t, 50, degrees_of_freedom=49, effect=0.3, prior=prior, alternative="less"
        )
        mirrored = safe_t_log_e(
            -t, 50, degrees_of_freedom=49, effect=0.3, prior=prior, alternative="greater"
        )
        assert log_e == pytest.approx(mirrored, rel=1e-12)
    assert safe_t_log_e(-3.0, 50, degrees_of_freedom=49, effect=0.3, alternative="less") > 0


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("t", [-2.0, 0.3, 2.5])
def test_the_gauss_t_test_is_the_mixture_of_noncentral_t(side: Alternative, t: float) -> None:
    """The density of t over effects, against the central one, by scipy."""
    n, nu, effect = 5, 4, 0.8
    ends = {"two-sided": (-12, 12), "greater": (0, 12), "less": (-12, 0)}[side]
    weight = 1 if side == "two-sided" else 2

    def ratio(d: float) -> float:
        tilted = stats.nct.pdf(t, nu, math.sqrt(n) * d * effect) / stats.t.pdf(t, nu)
        return float(weight * stats.norm.pdf(d) * tilted)

    expected = sum(
        integrate.quad(ratio, a, b)[0]
        for a, b in itertools.pairwise([ends[0], *_middle(ends), ends[1]])
    )
    found = safe_t_log_e(t, n, degrees_of_freedom=nu, effect=effect, alternative=side)
    assert math.exp(found) == pytest.approx(expected, rel=1e-6)


def _middle(ends: tuple[int, int]) -> list[float]:
    return [x for x in (-3.0, 0.0, 3.0) if ends[0] < x < ends[1]]
