"""Every sequential design and function on degenerate input, and a list of what is covered where.

Each gives a finite answer, or a status that says why, or raises an error of abkit's own that does:
never NaN in silence, and never a warning, since the suite turns warnings into errors.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import abkit.sequential
import abkit.stats
from abkit.errors import AbkitError, DataError
from abkit.estimate import Interval
from abkit.moments import Block, Moments, PairedCounts
from abkit.sequential import boundary, quantile, safe
from abkit.sequential.betting import BettingMean, inverse_propensity_scores
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.canary import CanaryDesign, canary_log_e, relative_risk
from abkit.sequential.contrast import paired_contrast, stratified_contrast
from abkit.sequential.counts import (
    CountBlock,
    CountMixture,
    multinomial_intervals,
    multinomial_log_e,
)
from abkit.sequential.design import Contrast
from abkit.sequential.display import displayed
from abkit.sequential.evalues import e_average, e_product, e_to_p, p_to_e
from abkit.sequential.group import Futility, GroupSequential, Statistic
from abkit.sequential.group_inference import stagewise
from abkit.sequential.group_look import CLOCKS
from abkit.sequential.group_score import stratified_score
from abkit.sequential.hypergeometric import HypergeometricMixture, hypergeometric_log_e
from abkit.sequential.mixture import paired_difference, stratified_difference
from abkit.sequential.msprt import FixedTauMixture, liu_log_e, msprt_interval, msprt_log_e
from abkit.sequential.normal import normal_boundary, normal_log_mixture
from abkit.sequential.paired import DiscordantPairs, coin_log_e, symmetric_log_e
from abkit.sequential.risk import RiskBound
from abkit.stats.multiplicity import corrected, e_bh
from abkit.stats.power import minimum_effect, power, sample_size
from abkit.stats.srm import balance_test, chi_square, lindon_malek_log_e
from abkit.stats.unit_model import MeanModel, ProportionModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.estimate import Alternative

Arms = tuple[Moments, Moments]
SIDES: tuple[Alternative, ...] = ("two-sided", "greater", "less")
STATUSES = {"ok", "insufficient_data", "zero_variance", "undefined", "warn", "block"}


def of(values: list[float]) -> Moments:
    return Moments.of(values)


def count(n: int, successes: int) -> Moments:
    return Moments.of_counts(n, successes)


STAMPS = [1.7e9 + x for x in range(40)]
BIG = 5_000_000_000

# Looks at cumulative moments, one stratum after another within a look.
MEANS: dict[str, list[list[Arms]]] = {
    "nothing at all": [[], [(Moments(), Moments())]],
    "nothing in control": [[(Moments(), of([1.0, 2.0] * 20))]],
    "nothing in treatment": [[(of([1.0, 2.0] * 20), Moments())]],
    "one unit each": [[(of([1.0]), of([2.0]))]],
    "one unit in treatment": [[(of([1.0, 2.0] * 20), of([2.0]))]],
    "one unit in an epoch": [
        [(of([1.0, 2.0] * 20), of([2.0, 3.0] * 20)), (of([1.0, 2.0]), of([9.0]))]
    ],
    "zero variance": [[(of([2.0] * 40), of([2.0] * 40))]],
    "zero variance, a difference": [[(of([2.0] * 40), of([3.0] * 40))]],
    "variance in one arm": [[(of([2.0] * 40), of([1.0, 3.0] * 20))]],
    "an exact tie": [[(of([1.0, 2.0] * 20), of([1.0, 2.0] * 20))]] * 3,
    "decreasing counts": [
        [(of([1.0, 2.0] * 40), of([1.0, 2.5] * 40))],
        [(of([1.0, 2.0] * 20), of([1.0, 2.5] * 20))],
        [(of([1.0, 2.0] * 60), of([1.0, 2.5] * 60))],
    ],
    "past the plan": [
        [(of([1.0, 2.0] * size), of([1.0, 2.1] * size))] for size in (200, 3_000, 3_001, 6_000)
    ],
    "means near 1.7e9": [[(of(STAMPS), of([x / 1 + 0.5 for x in STAMPS]))]] * 2,
    "n over 2^31": [
        [(Moments(BIG, 0.3, 0.21 * BIG), Moments(BIG // 5, 0.3001, 0.21 * BIG / 5))],
        [(Moments(2 * BIG, 0.3, 0.42 * BIG), Moments(BIG // 2, 0.3001, 0.105 * BIG))],
    ],
    "tiny": [[(Moments(50, 1e-160, 1e-300), Moments(50, 2e-160, 1e-300))]],
    "huge": [[(Moments(50, 1e150, 1e300), Moments(50, 2e150, 1e300))]],
    "too huge": [[(Moments(50, 1e300, 1e308), Moments(50, -1e300, 1e308))]],
}
COUNTS: dict[str, list[Block]] = {
    "nothing at all": [Block(0, 0, 0, 0)],
    "nothing in control": [Block(0, 40, 0, 9)],
    "one unit each": [Block(1, 1, 0, 1)],
    "no event": [Block(40, 40, 0, 0)] * 2,
    "nothing but events": [Block(40, 40, 40, 40)] * 2,
    "none against all": [Block(40, 40, 0, 40)] * 2,
    "all against none": [Block(40, 40, 40, 0)] * 2,
    "an exact tie": [Block(400, 400, 130, 130)] * 2,
    "5:1 weights": [Block(5_000, 1_000, 21, 7), Block(5_000, 1_000, 30, 5)],
    "one event": [Block(1_000_000, 1_000, 0, 1)],
    "n over 2^31": [Block(BIG, BIG // 5, BIG // 2, BIG // 10 + 70_000)],
    "late block": [Block(100, 100, 5, 6, 30), Block(100, 100, 5, 6, 2)],
}


def sound(result: Any) -> None:
    """No NaN anywhere; intervals are in order; a status is one that exists."""
    if dataclasses.is_dataclass(result) and not isinstance(result, Interval):
        status = getattr(result, "status", "ok")
        assert status in STATUSES, result
        for field in dataclasses.fields(result):
            sound(getattr(result, field.name))
            value = getattr(result, field.name)
            if field.name in {"estimate", "e_value", "p_value", "information", "alpha_spent"}:
                assert value is None or math.isfinite(value), (field.name, result)
    elif isinstance(result, Interval):
        assert result.lower <= result.upper, result
    elif isinstance(result, (tuple, list, np.ndarray)):
        for part in result:
            sound(part)
    elif isinstance(result, (float, np.floating)):
        assert not math.isnan(result)


def answered(function: Callable[[], Any]) -> None:
    """A sound answer, or an error that says what is wrong."""
    try:
        result = function()
    except AbkitError:
        return  # it says which value is wrong
    sound(result)


def on_contrasts(design: Any) -> Callable[[list[list[Arms]]], list[Any]]:
    def run(looks: list[list[Arms]]) -> list[Any]:
        past: list[Any] = []
        for strata in looks:
            past.append(design.look(stratified_contrast(strata, kind="mean"), past))
        return past

    return run


def group(looks: list[list[Arms]], design: GroupSequential) -> list[Any]:
    past = on_contrasts(design)(looks)
    return [*past, stagewise(design, past)]


ON_MEANS: dict[str, Callable[[list[list[Arms]]], Any]] = {
    **{
        f"always valid, {side}": on_contrasts(AlwaysValid(planned_units=1_000, alternative=side))
        for side in SIDES
    },
    **{
        f"calibrated, {side}": on_contrasts(
            CalibratedMixture(planned_units=1_000, alternative=side, margin=-0.01)
        )
        for side in SIDES
    },
    "msprt": on_contrasts(FixedTauMixture(tau2=1e-4)),
    **{
        f"group sequential, {clock}": lambda looks, clock=clock: group(
            looks, GroupSequential(planned_information=100.0, clock=clock)
        )
        for clock in CLOCKS
    },
    "group sequential, futility": lambda looks: group(
        looks,
        GroupSequential(
            planned_information=100.0,
            alternative="greater",
            clock="contrast_variance",
            futility=Futility(effect=0.3, binding=True),
        ),
    ),
    **{
        f"normal mixture, {side}": lambda looks, side=side: [
            stratified_difference(look, planned_units=1_000, kind="mean", alternative=side)
            for look in looks
        ]
        for side in SIDES
    },
    "paired mixture": lambda looks: [
        paired_difference(arm, planned_units=1_000)
        for look in looks
        for pair in look
        for arm in pair
    ],
    "paired contrast": lambda looks: [
        on.look(paired_contrast(arm))
        for on in (AlwaysValid(planned_units=100), CalibratedMixture(planned_units=100))
        for look in looks
        for pair in look
        for arm in pair
    ],
    "liu": lambda looks: [liu_log_e(c, t, tau2=1e-5) for look in looks for c, t in look],
    "symmetric": lambda looks: [
        symmetric_log_e(t, rho=1.0, alternative=side)
        for look in looks
        for _, t in look
        for side in SIDES
    ],
}


def replayed(design: Any, blocks: list[Any]) -> list[Any]:
    state, past = design.start(), []
    for block in blocks:
        state = state.update(block)
        past.append(design.look(state, past))
    return past


def with_display(side: Alternative, blocks: list[Block]) -> list[Any]:
    looks = replayed(HypergeometricMixture(alternative=side), blocks)
    return [*looks, *(displayed(look, rate) for look in looks for rate in (None, 0.0, 0.02, 1.0))]


def pairs(block: Block) -> PairedCounts:
    return PairedCounts(
        block.n_control - block.events_control,
        block.events_control,
        block.events_treatment,
        block.n_treatment - block.events_treatment,
    )


ON_COUNTS: dict[str, Callable[[list[Block]], Any]] = {
    **{f"hypergeometric, {side}": lambda b, side=side: with_display(side, b) for side in SIDES},
    "hypergeometric, margin": lambda b: hypergeometric_log_e(
        b, HypergeometricMixture(alternative="less", null_log_odds=0.2, expected=0.7)
    ),
    **{
        f"counts, {side}": lambda blocks, side=side: replayed(
            CountMixture(alternative=side),
            [
                CountBlock(
                    b.events_control, b.events_treatment, float(b.n_control), float(b.n_treatment)
                )
                for b in blocks
            ],
        )
        for side in SIDES
    },
    "canary": lambda b: [canary_log_e(b, CanaryDesign()), relative_risk(b)],
    "bound of the relative risk": lambda b: [
        functools.reduce(lambda bound, block: bound.update(block), b, RiskBound()).upper
    ],
    "canary, promotion": lambda b: canary_log_e(
        b, CanaryDesign(null_relative_risk=1.25, harm=False, restarts=0)
    ),
    "canary, limit": lambda b: canary_log_e(b, CanaryDesign(limit_rate=0.05)),
    "score": lambda b: [
        GroupSequential(planned_information=50.0).replay([stratified_score(b)] * 2),
        stratified_score(b, fewest_events=0),
    ],
    "contrast of proportions": lambda blocks: [
        stratified_difference(
            [
                (
                    Moments.of_counts(b.n_control, b.events_control),
                    Moments.of_counts(b.n_treatment, b.events_treatment),
                )
                for b in blocks
            ],
            planned_units=1_000,
            kind="proportion",
            alternative=side,
        )
        for side in SIDES
    ],
    "pairs": lambda b: [DiscordantPairs(alternative=side).look(pairs(b[0])) for side in SIDES],
    "coin": lambda b: [
        coin_log_e(b[0].events_treatment, b[0].events_control, alternative=side) for side in SIDES
    ],
    "multinomial": lambda b: [
        multinomial_log_e(
            [([x.events_control, x.events_treatment], [5.0, 1.0]) for x in b], concentration=100
        ),
        multinomial_intervals(
            [b[0].events_control, b[0].events_treatment], [5, 1], concentration=100
        ),
    ],
    "split 5:1:1:1": lambda b: [
        balance_test(
            {"a": b[0].n_control, "b": b[0].n_treatment, "c": b[0].events_control, "d": 0},
            {"a": 5, "b": 1, "c": 1, "d": 1},
        ),
        chi_square([b[0].n_control, b[0].n_treatment, 0, 0], [5, 1, 1, 1]),
        lindon_malek_log_e(
            [b[0].n_control, b[0].n_treatment, 0, 0], [5, 1, 1, 1], concentration=2_500.0
        ),
    ],
    "bernoulli interval": lambda b: [
        boundary.bernoulli_interval(b[0].events_treatment, b[0].n_treatment, n_opt=100)
    ],
    "betting": lambda b: replayed(
        BettingMean(null=0.3, grid=20),
        [[1.0] * min(9, x.events_treatment) + [0.0] * min(9, x.n_treatment) for x in b],
    ),
}

NUMBERS = (0.0, 1e-300, 1e-12, 1.0, 1.7e9, 2.0**63, 1e300)
VALUES: dict[str, list[float]] = {
    "none": [],
    "one": [1.0],
    "the same": [2.0] * 400,
    "ties": [1.0, 2.0] * 200,
    "timestamps": [1.7e9 + x for x in range(400)],
    "infinite": [1.0, math.inf, -math.inf] * 100,
    "not a number": [1.0, math.nan] * 100,
}

ON_NUMBERS: dict[str, Callable[[float, float], Any]] = {
    "normal": lambda s, v: [
        (
            normal_log_mixture(s, v, rho=1.0, alternative=side),
            normal_boundary(v, 0.05, rho=1.0, alternative=side),
        )
        for side in SIDES
    ],
    "gamma-exponential mixture": lambda s, v: boundary.gamma_exponential_log_mixture(
        s, v, rho=1.0, c=1.0
    ),
    "gamma-exponential boundary": lambda _, v: boundary.gamma_exponential_boundary(
        v, 0.05, rho=1.0, c=1.0
    ),
    "gamma-poisson mixture": lambda s, v: boundary.gamma_poisson_log_mixture(s, v, rho=1.0, c=1.0),
    "gamma-poisson boundary": lambda _, v: boundary.gamma_poisson_boundary(v, 0.05, rho=1.0, c=1.0),
    "beta-binomial mixture": lambda s, v: boundary.beta_binomial_log_mixture(
        s, v, rho=1.0, g=0.3, h=0.7
    ),
    "beta-binomial boundary": lambda _, v: boundary.beta_binomial_boundary(
        v, 0.05, rho=1.0, g=0.3, h=0.7
    ),
    "stitching": lambda _, v: boundary.poly_stitching_boundary(v, 0.05, v_min=1.0),
    "msprt": lambda s, v: [
        msprt_log_e(s, v, tau2=1e-4),
        msprt_interval(s, v, tau2=1e-4),
    ],
    "safe z": lambda z, n: [
        safe.safe_z_log_e(z, n, effect=0.3, prior=prior, alternative=side)
        for prior in ("grow", "gauss")
        for side in SIDES
    ],
    "safe t": lambda t, n: [
        safe.safe_t_log_e(t, n, degrees_of_freedom=58, effect=0.3, alternative=side)
        for side in SIDES
    ],
    "safe t interval": lambda mean, sd: safe.safe_t_interval(
        mean, sd, 50.0, degrees_of_freedom=58, effect=0.3
    ),
    "effective n": lambda a, b: safe.effective_n(int(a), int(b)),
    "e to p": lambda e, _: e_to_p(e),
    "p to e": lambda p, _: p_to_e(p),
    "e product": lambda a, b: e_product([a, b]),
    "e average": lambda a, b: e_average([a, b]),
    "e-bh": lambda a, b: e_bh([a, b, None]),
    "corrected": lambda a, b: corrected([min(a, 1.0), min(b, 1.0), None]),
    "a look at any numbers": lambda z, v: GroupSequential(planned_information=1.0).look(
        Statistic(z, v)
    ),
    "contrast": lambda s, v: [
        design.look(Contrast(s, v, max(v, 1.0)))
        for design in (
            AlwaysValid(planned_units=100),
            CalibratedMixture(planned_units=100),
            FixedTauMixture(tau2=1.0),
            GroupSequential(planned_information=1.0, clock="inverse_variance"),
        )
    ],
    "power": lambda a, b: power(MeanModel(b), difference=a, units=[1_000, 200]),
    "sample size": lambda a, b: sample_size(MeanModel(b), difference=a),
    "sample size of a share": lambda a, _: sample_size(ProportionModel(0.02), difference=a),
    "smallest effect": lambda a, b: minimum_effect(MeanModel(a, b), units=[5_000, 1_000]),
}

ON_VALUES: dict[str, Callable[[list[float]], Any]] = {
    "quantile ranks": lambda v: quantile.quantile_ranks(max(1, len(v)), 0.95, n_opt=100),
    "quantile interval": lambda v: quantile.quantile_interval(v, 0.5, n_opt=100),
    "quantile difference": lambda v: quantile.quantile_difference(v, v, 0.5, n_opt=100),
    "exceedances": lambda v: quantile.exceedances(v, v, 1.5),
    "betting": lambda v: replayed(BettingMean(null=0.3, grid=20), [v[:20]]),
    "propensities": lambda v: inverse_propensity_scores(
        [min(1.0, x) for x in v[:20]], [True] * len(v[:20]), share=0.5
    ),
}


@pytest.mark.parametrize("case", MEANS)
@pytest.mark.parametrize("function", ON_MEANS)
def test_moments_give_a_sound_answer_or_say_why_not(function: str, case: str) -> None:
    answered(lambda: ON_MEANS[function](MEANS[case]))


@pytest.mark.parametrize("case", COUNTS)
@pytest.mark.parametrize("function", ON_COUNTS)
def test_counts_give_a_sound_answer_or_say_why_not(function: str, case: str) -> None:
    answered(lambda: ON_COUNTS[function](COUNTS[case]))


@pytest.mark.parametrize("second", NUMBERS)
@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("function", ON_NUMBERS)
def test_numbers_give_a_sound_answer_or_say_why_not(
    function: str, first: float, second: float
) -> None:
    for sign in (1, -1):
        answered(lambda sign=sign: ON_NUMBERS[function](sign * first, second))


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("function", ON_VALUES)
def test_values_give_a_sound_answer_or_say_why_not(function: str, case: str) -> None:
    answered(lambda: ON_VALUES[function](VALUES[case]))


@pytest.mark.parametrize("case", ["nothing at all", "zero variance", "zero variance, a difference"])
@pytest.mark.parametrize("function", sorted(set(ON_MEANS) - {"liu", "symmetric"}))
def test_no_variance_is_no_evidence(function: str, case: str) -> None:
    found = ON_MEANS[function](MEANS[case])
    assert not any(getattr(look, "decision", "continue") == "reject" for look in found)
    assert not any(getattr(look, "e_value", None) not in (None, 1.0) for look in found)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_variance_that_is_no_number_never_gets_in(broken: float) -> None:
    with pytest.raises(DataError):
        Moments(100, 0.5, broken)
    with pytest.raises(DataError):
        Contrast(1.0, broken, 10.0)
    look = GroupSequential(planned_information=1.0).look(Statistic(1.0, broken))
    assert (look.status, look.clock_status, look.decision) == ("undefined", "undefined", "continue")


def test_information_that_goes_backwards_or_past_its_plan_is_said() -> None:
    backwards = ON_MEANS["group sequential, contrast_variance"](MEANS["decreasing counts"])
    assert [look.clock_status for look in backwards[:-1]] == ["ok", "stalled", "ok"]
    assert "went backwards" in backwards[1].notes[0]
    past = ON_MEANS["group sequential, contrast_variance"](MEANS["past the plan"])
    assert past[-2].clock_status == "exhausted"
    for side in SIDES:
        looks = ON_MEANS[f"calibrated, {side}"](MEANS["past the plan"])
        assert "past the stated maximum" in looks[-1].notes[-1]


# --- what is covered ------------------------------------------------------------------------------

# Parts of others above, or of fixed-horizon results, and plans that hold no data.
PARTS = """
    Adjustment Beta BettingState CanaryState Contrast Correction CountState Crossing Design
    Displayed FittedPrior FixedHorizon GroupLook GroupPlan GroupPower HypergeometricState Look
    Plan Posterior QuantileSummary RankTest Spending StagewiseEstimate TiltPrior Walk above
    adjustment advance below calibrated_crossing capped_exp check_design check_fractions
    check_one_look check_one_sided check_past check_test comparable compared_terms
    conditional_power contrast crossings design_named difference_of_lift drift_for even
    evidence_look fnch_log_likelihood from_score futility_plan inflation interval_around
    is_enough lift_interval lift_parts lift_side linearised lower_boundary mixture_crossing
    normal_rho order_ranks pooled_clock power_of precision_shares rejected relative_lift
    restricted_rate run_length running_p separate_clock share_interval spending_plan
    srm_concentration standardised stratified_newcombe successes_of survivors t_p_value
    t_quantile tail_alpha term_name tilt_interval tilt_log_mixture tilted together unanswered
    upper_boundary wang_tsiatis_plan with_lift within_strata
"""


def public(package: Any) -> set[str]:
    """Functions and classes that a package's modules define under a public name."""
    names = set()
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        for name, value in vars(module).items():
            here = getattr(value, "__module__", None) == module.__name__
            if here and not name.startswith("_") and (inspect.isroutine(value) or callable(value)):
                names.add(name)
    return names


def test_every_public_function_meets_degenerate_input() -> None:
    """A new function stands in a table here or in test_degenerate.py, or in PARTS."""
    folder = Path(__file__).parent
    tables = Path(__file__).read_text("utf-8").split("# --- what is covered")[0]
    text = (folder / "test_degenerate.py").read_text("utf-8") + tables
    names = public(abkit.stats) | public(abkit.sequential)
    missing = {name for name in names - set(PARTS.split()) if not re.search(rf"\b{name}\b", text)}
    assert not missing, f"not met by degenerate input: {sorted(missing)}"
