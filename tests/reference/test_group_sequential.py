"""Published numbers of group sequential designs, each with its provenance.

"statistics.md" is the table of reference numbers in the design notes, "REFERENCE" is REFERENCE.md
beside the data sets, "JT" is Jennison, Turnbull (2000), Group Sequential Methods with Applications
to Clinical Trials. rpact is version 3.3.4 under R 4.2.2, called as written; its own tolerance is
about 1e-7, and it is validated by its makers up to 10 looks.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from scipy import signal

from abkit.moments import Block, Moments
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.group import GroupSequential, Statistic
from abkit.sequential.group_inference import stagewise
from abkit.sequential.group_plan import (
    GroupPlan,
    even,
    futility_plan,
    spending_plan,
    wang_tsiatis_plan,
)
from abkit.sequential.group_power import conditional_power, drift_for, inflation, power_of
from abkit.sequential.group_score import stratified_score
from abkit.sequential.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from abkit.estimate import Alternative

POCOCK = Spending("pocock")
SIMPLE = Spending("obrien_fleming_simple")


def digits(*values: float, places: int = 5) -> object:
    """To the printed digits."""
    return pytest.approx(values, rel=0, abs=0.51 * 10**-places)


# --- classical families -----------------------------------------------------------------------

LOOKS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)


@pytest.mark.parametrize(
    ("delta", "alpha", "printed"),
    [
        (0.5, 0.01, (2.576, 2.772, 2.873, 2.939, 2.986, 3.023, 3.053, 3.078, 3.099, 3.117)),
        (0.5, 0.05, (1.960, 2.178, 2.289, 2.361, 2.413, 2.453, 2.485, 2.512, 2.535, 2.555)),
        (0.5, 0.10, (1.645, 1.875, 1.992, 2.067, 2.122, 2.164, 2.197, 2.225, 2.249, 2.270)),
        (0.0, 0.05, (1.960, 1.977, 2.004, 2.024, 2.040, 2.053, 2.063, 2.072, 2.080, 2.087)),
    ],
)
def test_jt_tables_2_1_and_2_3_constants(
    delta: float, alpha: float, printed: tuple[float, ...]
) -> None:
    """JT table 2.1, C_P(K, alpha), and table 2.3, C_B(K, .05), two-sided, K = 1 to 10."""
    ours = [wang_tsiatis_plan(even(k), delta=delta, alpha=alpha).boundaries[-1] for k in LOOKS]
    assert ours == digits(*printed, places=3)


@pytest.mark.parametrize(
    ("delta", "alpha", "power", "printed"),
    [
        (0.5, 0.01, 0.8, (1, 1.092, 1.137, 1.166, 1.187, 1.203, 1.216, 1.226, 1.236, 1.243)),
        (0.5, 0.05, 0.8, (1, 1.110, 1.166, 1.202, 1.229, 1.249, 1.265, 1.279, 1.291, 1.301)),
        (0.5, 0.10, 0.8, (1, 1.121, 1.184, 1.224, 1.254, 1.277, 1.296, 1.311, 1.325, 1.337)),
        (0.5, 0.01, 0.9, (1, 1.084, 1.125, 1.152, 1.170, 1.185, 1.197, 1.206, 1.215, 1.222)),
        (0.5, 0.05, 0.9, (1, 1.100, 1.151, 1.183, 1.207, 1.225, 1.239, 1.252, 1.262, 1.271)),
        (0.5, 0.10, 0.9, (1, 1.110, 1.166, 1.202, 1.228, 1.249, 1.266, 1.280, 1.292, 1.302)),
        (0.0, 0.01, 0.8, (1, 1.001, 1.007, 1.011, 1.015, 1.017, 1.019, 1.021, 1.022, 1.024)),
        (0.0, 0.05, 0.8, (1, 1.008, 1.017, 1.024, 1.028, 1.032, 1.035, 1.037, 1.038, 1.040)),
        (0.0, 0.10, 0.8, (1, 1.016, 1.027, 1.035, 1.040, 1.044, 1.047, 1.049, 1.051, 1.053)),
        (0.0, 0.01, 0.9, (1, 1.001, 1.006, 1.010, 1.014, 1.016, 1.018, 1.020, 1.021, 1.022)),
        (0.0, 0.05, 0.9, (1, 1.007, 1.016, 1.022, 1.026, 1.030, 1.032, 1.034, 1.036, 1.037)),
        (0.0, 0.10, 0.9, (1, 1.014, 1.025, 1.032, 1.037, 1.041, 1.044, 1.046, 1.048, 1.049)),
    ],
)
def test_jt_tables_2_2_and_2_4_inflation(
    delta: float, alpha: float, power: float, printed: tuple[float, ...]
) -> None:
    """JT table 2.2, R_P(K, alpha, beta), and table 2.4, R_B, two-sided, K = 1 to 10."""
    ours = [inflation(wang_tsiatis_plan(even(k), delta=delta, alpha=alpha), power) for k in LOOKS]
    assert ours == digits(*printed, places=3)


def test_statistics_md_1_obrien_fleming() -> None:
    """statistics.md 1: rpact `getDesignGroupSequential(kMax=K, sided=2, typeOfDesign="OF")`."""
    plans = {k: wang_tsiatis_plan(even(k), delta=0).boundaries for k in (2, 3, 4, 5, 10)}
    assert plans[5] == digits(4.56174, 3.22564, 2.63372, 2.28087, 2.04007)
    assert plans[2] == digits(2.79651, 1.97743)
    last = [plans[k][-1] for k in (3, 4, 10)]
    assert last == digits(2.00404, 2.02430, 2.08650)


def test_statistics_md_2_pocock() -> None:
    """statistics.md 2: rpact `getDesignGroupSequential(kMax=K, sided=2, typeOfDesign="P")`."""
    ours = [wang_tsiatis_plan(even(k), delta=0.5).boundaries[0] for k in (2, 3, 4, 5, 10)]
    assert ours == digits(2.17827, 2.28948, 2.36130, 2.41318, 2.55501)


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (0.10, (1.994211203, 2.026097886, 2.049972174, 2.068186404, 2.120042839)),
        (0.25, (2.038215618, 2.082813325, 2.113340039, 2.136012003, 2.198726026)),
        (0.40, (2.110961916, 2.185694715, 2.233023126, 2.266644550, 2.355292713)),
    ],
)
def test_rpact_wang_tsiatis_constants(delta: float, expected: tuple[float, ...]) -> None:
    """By rpact: `getDesignGroupSequential(kMax=K, sided=2, typeOfDesign="WT", deltaWT=delta)`.

    K = 2, 3, 4, 5, 10.
    """
    ours = [wang_tsiatis_plan(even(k), delta=delta).boundaries[-1] for k in (2, 3, 4, 5, 10)]
    assert ours == pytest.approx(expected, rel=0, abs=1e-6)


# --- spending ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fractions", "spending", "alpha", "alternative", "expected"),
    [
        # statistics.md 3, and REFERENCE O20 two-sided
        (even(5), None, 0.025, "greater", (4.87688, 3.35701, 2.68028, 2.28982, 2.03103)),
        ((0.2, 0.35, 0.6, 0.9, 1), None, 0.025, "greater",
         (4.87688, 3.61313, 2.67324, 2.12139, 2.06265)),
        # statistics.md 4 and 5
        (even(5), POCOCK, 0.025, "greater", (2.43798, 2.42681, 2.41019, 2.39665, 2.38600)),
        (even(5), Spending("hwang_shih_decani", -4.0), 0.025, "greater",
         (3.25267, 2.98605, 2.69166, 2.37367, 2.02532)),
        # rpact typeOfDesign="asHSD", gammaA=1, sided=1
        (even(5), Spending("hwang_shih_decani", 1.0), 0.025, "greater",
         (2.44868, 2.41898, 2.39838, 2.39123, 2.39477)),
        # rpact typeOfDesign="asKD", gammaA=3, sided=2
        (even(5), Spending("kim_demets", 3.0), 0.05, "two-sided",
         (3.54008, 2.97431, 2.60451, 2.30636, 2.04548)),
        # rpact typeOfDesign="asKD", gammaA=1, sided=1, kMax=4
        (even(4), Spending("kim_demets", 1.0), 0.025, "greater",
         (2.49771, 2.40716, 2.32084, 2.24482)),
        # rpact typeOfDesign="asP", sided=2, informationRates=c(.1, .15, .5, .9, 1)
        ((0.1, 0.15, 0.5, 0.9, 1), POCOCK, 0.05, "two-sided",
         (2.65511, 2.75667, 2.30052, 2.26886, 2.39430)),
        # rpact typeOfDesign="asOF", sided=1, informationRates=c(.5, .75, 1)
        ((0.5, 0.75, 1), None, 0.025, "greater", (2.96259, 2.35902, 2.01408)),
    ],
)  # fmt: skip
def test_spending_boundaries_of_rpact(
    fractions: tuple[float, ...],
    spending: Spending | None,
    alpha: float,
    alternative: Alternative,
    expected: tuple[float, ...],
) -> None:
    """By rpact: `getDesignGroupSequential(kMax, alpha, sided, typeOfDesign)`."""
    plan = spending_plan(fractions, spending=spending, alpha=alpha, alternative=alternative)
    assert plan.boundaries == digits(*expected)


def test_statistics_md_3_the_other_convention() -> None:
    """statistics.md 3: spending 2 - 2 Phi(z_.025 / sqrt t) two-sided."""
    plan = spending_plan(even(5), spending=SIMPLE)
    assert plan.boundaries == digits(4.383, 3.100, 2.553, 2.254, 2.064, places=3)


def test_o20_two_sided_obrien_fleming() -> None:
    """REFERENCE O20, abs 1e-5."""
    expected = (4.876884949, 3.357011922, 2.680280065, 2.289816768, 2.031032043)
    assert spending_plan(even(5)).boundaries == pytest.approx(expected, rel=0, abs=1e-7)


def test_o21_obrien_fleming_at_uneven_looks() -> None:
    """REFERENCE O21, abs 1e-4; ldbounds and the seqabpy blog: 3.92857254, 2.669972, 1.98103004."""
    plan = spending_plan((0.3, 0.6, 1), alpha=0.025, alternative="greater")
    assert plan.boundaries == pytest.approx((3.928572543, 2.669972004, 1.981024504), abs=1e-7)
    assert plan.boundaries == pytest.approx((3.92857254, 2.669972, 1.98103004), abs=1e-5)


def test_reboussin_et_al_2000() -> None:
    """Reboussin, DeMets, Kim, Lan (2000), Controlled Clinical Trials 21: the ld98 examples.

    Five even looks, one-sided .025. Their second O'Brien-Fleming bound is 3.3569, 1.1e-4 below
    rpact's and ours.
    """
    fleming = spending_plan(even(5), alpha=0.025, alternative="greater").boundaries
    pocock = spending_plan(even(5), spending=POCOCK, alpha=0.025, alternative="greater").boundaries
    assert fleming == pytest.approx((4.8769, 3.3569, 2.6803, 2.2898, 2.0310), rel=0, abs=2e-4)
    assert pocock == pytest.approx((2.4380, 2.4268, 2.4101, 2.3966, 2.3859), rel=0, abs=2e-4)


def test_statistics_md_7_alpha_spent() -> None:
    """statistics.md 7: East 6.5 values in gsDesign's test of plotsf, tolerance 1e-4 there.

    At .75 East's .00965528 is 6e-6 above the formula, which rpact's .009649325 confirms.
    """
    assert Spending().spent(0.5, 0.025) == pytest.approx(0.00152532, rel=0, abs=1e-8)
    assert Spending().spent(0.75, 0.025) == pytest.approx(0.00965528, rel=0, abs=1e-5)
    assert Spending().spent(0.75, 0.025) == pytest.approx(0.009649324895, rel=0, abs=1e-10)


def test_rpact_at_twenty_looks() -> None:
    """By rpact: `getDesignGroupSequential(kMax=20, sided=2, typeOfDesign="asP")`."""
    expected = {0: 2.86873988, 1: 2.82932713, 2: 2.78731189, 3: 2.75140464}
    ours = spending_plan(even(20), spending=POCOCK).boundaries
    assert {k: ours[k] for k in expected} == pytest.approx(expected, rel=0, abs=2e-7)


def independent_crossing(plan: GroupPlan, step: float = 1e-3) -> np.ndarray:
    """Two-sided crossing probabilities of even looks by another method.

    A uniform grid and convolution by FFT, in place of quadrature between the boundaries.
    """
    increment = plan.fractions[0]
    x = np.arange(-6, 6 + step / 2, step)
    half = round(10 * math.sqrt(increment) / step)
    reach = np.arange(-half, half + 1) * step
    kernel = np.exp(-0.5 * reach**2 / increment) / math.sqrt(2 * math.pi * increment) * step
    density = np.exp(-0.5 * x**2 / increment) / math.sqrt(2 * math.pi * increment)
    crossed, total = [], 0.0
    for k, (t, b) in enumerate(zip(plan.fractions, plan.boundaries, strict=True)):
        if k:
            density = signal.fftconvolve(density, kernel, mode="same")
        beyond = np.clip((np.abs(x) - b * math.sqrt(t)) / step + 0.5, 0, 1)
        total += float((density * beyond).sum() * step)
        density = density * (1 - beyond)
        crossed.append(total)
    return np.array(crossed)


@pytest.mark.parametrize("spending", [Spending(), POCOCK, Spending("kim_demets", 2.0)])
def test_a_hundred_looks_spend_what_they_should(spending: Spending) -> None:
    """A second implementation as oracle; rpact stops at 20 looks and is unvalidated past 10."""
    plan = spending_plan(even(100), spending=spending)
    assert independent_crossing(plan) == pytest.approx(plan.alpha_spent, rel=0, abs=1e-6)


# --- power, expected size, futility -----------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "factor", "asn"),
    [
        (wang_tsiatis_plan(even(5), delta=0), 1.028410969,
         (0.8175695479, 0.9792911102, 1.0210573489)),
        (wang_tsiatis_plan(even(5), delta=0.5), 1.22859261,
         (0.7990550995, 1.1042763884, 1.1981874927)),
        (spending_plan(even(5)), 1.024719881, (0.8236623223, 0.9785799871, 1.0179917572)),
        (spending_plan(even(5), spending=POCOCK), 1.21262594,
         (0.7956466247, 1.0926484271, 1.1836213288)),
    ],
    ids=["OF", "P", "asOF", "asP"],
)  # fmt: skip
def test_statistics_md_6_inflation_and_expected_size(
    plan: GroupPlan, factor: float, asn: tuple[float, float, float]
) -> None:
    """statistics.md 6: rpact `getDesignCharacteristics`, beta=.2, sided=2.

    Expected size over that of the fixed test under H1, half of it, and H0.
    """
    drift = drift_for(plan, 0.8)
    assert inflation(plan, 0.8) == pytest.approx(factor, rel=0, abs=2e-8)
    sizes = [power_of(plan, d).expected_fraction * factor for d in (drift, drift / 2, 0.0)]
    assert sizes == pytest.approx(asn, rel=0, abs=2e-8)


def test_rpact_rejection_probabilities() -> None:
    """By rpact: `getDesignCharacteristics(getDesignGroupSequential(kMax=5, sided=2, beta=.2))`."""
    plan = wang_tsiatis_plan(even(5), delta=0.5)
    expected = (0.1528160295, 0.2048627080, 0.1870637516, 0.1478056677, 0.1074518432)
    assert power_of(plan, drift_for(plan, 0.8)).reject == pytest.approx(expected, rel=0, abs=1e-8)


def test_rpact_power_and_average_sample_number() -> None:
    """By rpact: `getPowerAndAverageSampleNumber(d, theta=c(-.1, 0, .1, .2, .3), nMax=100)`.

    d is `getDesignGroupSequential(kMax=4, alpha=.025, sided=1, typeOfDesign="asP")`.
    """
    plan = spending_plan(even(4), spending=POCOCK, alpha=0.025, alternative="greater")
    results = [power_of(plan, 10 * theta) for theta in (-0.1, 0.0, 0.1, 0.2, 0.3)]
    power = (0.003436577027, 0.025, 0.135380781490, 0.429756162745, 0.782156494823)
    asn = (99.79611740, 98.87157643, 95.10025748, 84.97334161, 68.37646109)
    assert [r.power for r in results] == pytest.approx(power, rel=0, abs=1e-7)
    assert [100 * r.expected_fraction for r in results] == pytest.approx(asn, rel=0, abs=1e-5)


@pytest.mark.parametrize(
    ("binding", "critical", "bounds", "shift", "factor", "asn"),
    [
        (False, (3.066699549, 2.654980473, 2.369019948, 2.023854531),
         (-0.3703046522, 0.7403613464, 1.3644973296), 11.53050598, 1.097367633,
         (0.7591382144, 0.8240904839, 0.6027919334)),
        (True, (3.066699549, 2.654874973, 2.366235457, 1.967887856),
         (-0.3977165552, 0.7015907816, 1.3196004634), 11.19312507, 1.065258818,
         (0.7446439072, 0.8059983841, 0.5922502469)),
    ],
)  # fmt: skip
def test_rpact_futility(
    *,
    binding: bool,
    critical: tuple[float, ...],
    bounds: tuple[float, ...],
    shift: float,
    factor: float,
    asn: tuple[float, float, float],
) -> None:
    """By rpact: beta spending at fractions .3, .6, .8, 1, alpha=.025, beta=.1, sided=1.

    `typeOfDesign="asHSD", gammaA=-4, typeBetaSpending="bsHSD", gammaB=-2, bindingFutility=...`.
    """
    plan = futility_plan(
        (0.3, 0.6, 0.8, 1),
        power=0.9,
        spending=Spending("hwang_shih_decani", -4.0),
        futility=Spending("hwang_shih_decani", -2.0),
        binding=binding,
    )
    assert plan.futility is not None
    assert plan.drift is not None
    assert plan.boundaries == pytest.approx(critical, rel=0, abs=1e-6)
    assert plan.futility[:-1] == pytest.approx(bounds, rel=0, abs=1e-6)
    assert plan.drift**2 == pytest.approx(shift, rel=0, abs=1e-5)
    assert inflation(plan, 0.9) == pytest.approx(factor, rel=0, abs=1e-6)
    drifts = (plan.drift, plan.drift / 2, 0.0)
    sizes = [factor * power_of(plan, d).expected_fraction for d in drifts]
    assert sizes == pytest.approx(asn, rel=0, abs=1e-6)


def test_rpact_futility_obrien_fleming() -> None:
    """By rpact: `kMax=3, beta=.2, sided=1, typeOfDesign="asOF", typeBetaSpending="bsOF"`."""
    loose, bound = futility_plan(even(3)), futility_plan(even(3), binding=True)
    assert loose.futility is not None
    assert bound.futility is not None
    assert loose.futility[:2] == pytest.approx((-0.2361446099, 1.1703720312), rel=0, abs=1e-6)
    assert bound.futility[:2] == pytest.approx((-0.2700055638, 1.1224846072), rel=0, abs=1e-6)
    assert bound.boundaries == digits(3.710302873, 2.511108436, 1.930915721, places=7)
    assert (loose.drift or 0) ** 2 == pytest.approx(8.667784932, rel=0, abs=1e-6)
    assert (bound.drift or 0) ** 2 == pytest.approx(8.325887013, rel=0, abs=1e-6)


def test_a_design_that_meets_its_plan_has_the_boundaries_of_the_plan() -> None:
    """The look-by-look futility boundary, with rpact's numbers of the test above."""
    from abkit.sequential.group import Futility

    drift = math.sqrt(8.667784914612286)
    design = GroupSequential(
        planned_information=1.0,
        alpha=0.025,
        alternative="greater",
        futility=Futility(effect=drift, beta=0.2),
    )
    looks = design.replay([(0.5, 1 / 3), (1.5, 2 / 3), (1.0, 1.0)])
    floors = [look.futility_boundary for look in looks]
    assert floors == pytest.approx((-0.2361446099, 1.1703720312, 1.993047483), rel=0, abs=1e-6)
    assert looks[-1].beta_spent == pytest.approx(0.2, abs=1e-8)


# --- inference --------------------------------------------------------------------------------


def test_rpact_final_p_value_and_interval() -> None:
    """By rpact: asOF, kMax=3, sided=1; `getDataset(n=c(20,20), means=c(.4,.9), stDevs=c(1,1))`.

    `getStageResults(..., normalApproximation=TRUE)`: z = 1.788854382, 4.034113790;
    `getFinalPValue`; `getFinalConfidenceInterval`: finalConfidenceIntervalGeneral is two-sided.
    """
    design = GroupSequential(planned_information=60.0, alpha=0.025, alternative="greater")
    result = stagewise(design, design.replay([(1.788854382, 20.0), (4.034113790, 40.0)]))
    assert result.interval is not None
    assert result.p_value == pytest.approx(0.0001263458951, rel=1e-7)
    assert result.estimate == pytest.approx(0.6301486084, rel=0, abs=1e-6)
    assert result.interval.lower == pytest.approx(0.3095884828, rel=0, abs=1e-6)
    two_sided = GroupSequential(planned_information=60.0)
    both = stagewise(two_sided, two_sided.replay([(1.788854382, 20.0), (4.034113790, 40.0)]))
    assert both.interval is not None
    assert both.interval.upper == pytest.approx(0.9432268352, rel=0, abs=1e-5)


def test_rpact_final_inference_at_the_last_look() -> None:
    """By rpact: typeOfDesign="P", kMax=3, sided=1; means .2, .4, .3, n=20 each, stDev 1."""
    plan = wang_tsiatis_plan(even(3), delta=0.5, alpha=0.025, alternative="greater")
    design = GroupSequential(
        planned_information=60.0, alpha=0.025, alternative="greater", spending=plan.spending
    )
    series = [(0.894427191, 20.0), (1.912132318, 40.0), (2.355954721, 60.0)]
    result = stagewise(design, design.replay(series))
    assert result.interval is not None
    assert result.p_value == pytest.approx(0.02375031954, rel=0, abs=1e-8)
    assert result.estimate == pytest.approx(0.2842113694, rel=0, abs=1e-6)
    assert result.interval.lower == pytest.approx(0.003428849586, rel=0, abs=1e-6)


def test_rpact_conditional_power() -> None:
    """By rpact: `getConditionalPower(s, nPlanned=c(25,25), thetaH1=.3, assumedStDev=1)`.

    asOF, kMax=4, sided=1; `getDataset(n=c(25,25), means=c(.1,.4), stDevs=c(1,1))`.
    """
    design = GroupSequential(planned_information=100.0, alpha=0.025, alternative="greater")
    past = design.replay([(0.5, 25.0), (1.765516453, 50.0)])
    power = conditional_power(design, past, [75.0, 100.0], effect=0.3)
    assert power == pytest.approx(0.8593404021, rel=0, abs=1e-7)


@pytest.mark.parametrize(
    ("z", "effect", "expected"),
    [
        (1.5, None, NormalDist().cdf((1.5 / math.sqrt(0.5) - 1.959963985) / math.sqrt(0.5))),
        (1.5, 0.0, NormalDist().cdf((1.5 * math.sqrt(0.5) - 1.959963985) / math.sqrt(0.5))),
    ],
)
def test_conditional_power_of_one_last_look(
    z: float, effect: float | None, expected: float
) -> None:
    """Lan, Wittes (1988), Biometrics 44, the B-value formula; no alpha spent before the end."""
    late: Literal["greater"] = "greater"
    spending = Spending.tabulated([0.999], [0.0])
    design = GroupSequential(
        planned_information=1.0, alpha=0.025, alternative=late, spending=spending
    )
    past = design.replay([(z, 0.5)])
    assert conditional_power(design, past, [1.0], effect=effect) == pytest.approx(
        expected, abs=1e-7
    )


# --- real data --------------------------------------------------------------------------------


def test_o13_udacity_daily_looks(shared_data: Callable[[str], Path]) -> None:
    """REFERENCE O13: 23 daily looks at cumulative counts, unpooled z, information n / n_final."""
    duckdb = pytest.importorskip("duckdb")
    path = shared_data("udacity_ab_data.parquet")
    with duckdb.connect() as connection:
        columns = {row[0] for row in connection.execute(f"describe from '{path}'").fetchall()}
        assert {"user_id", "timestamp", "group", "landing_page", "converted"} <= columns
        days = connection.execute(
            f"""
            with agreeing as (
                select *, row_number() over (partition by user_id order by timestamp) as nth
                from '{path}' where ("group" = 'treatment') = (landing_page = 'new_page')
            )
            select cast(timestamp as date) as day,
                count(*) filter ("group" = 'control'),
                coalesce(sum(converted) filter ("group" = 'control'), 0),
                count(*) filter ("group" = 'treatment'),
                coalesce(sum(converted) filter ("group" = 'treatment'), 0)
            from agreeing where nth = 1 group by day order by day
            """  # noqa: S608
        ).fetchall()
    counts = np.cumsum([[int(v) for v in day[1:]] for day in days], axis=0)
    assert len(counts) == 23
    design = GroupSequential(planned_information=float(counts[-1][0] + counts[-1][2]))
    looks = []
    for n_c, x_c, n_t, x_t in counts.tolist():
        p_c, p_t = x_c / n_c, x_t / n_t
        error = math.sqrt(p_c * (1 - p_c) / n_c + p_t * (1 - p_t) / n_t)
        looks.append(design.look(Statistic((p_t - p_c) / error, float(n_c + n_t)), looks))
    largest = max(abs(look.z) for look in looks)
    assert largest == pytest.approx(1.52626496388, rel=0, abs=1e-9)
    assert largest < 1.959963985  # no fixed p below .05 on any day
    assert {look.decision for look in looks} == {"continue"}
    assert looks[-1].boundary == pytest.approx(2.14564252802, rel=0, abs=1e-4)


def test_the_score_is_the_mantel_haenszel_test() -> None:
    """By statsmodels' StratifiedTable on the Berkeley admissions, six departments.

    R: `mantelhaen.test(UCBAdmissions, correct = FALSE)`: X-squared 1.5246 (1.4269 corrected).
    """
    from statsmodels.stats.contingency_tables import StratifiedTable

    admitted_rejected = [  # men, women
        (512, 313, 89, 19),
        (353, 207, 17, 8),
        (120, 205, 202, 391),
        (138, 279, 131, 244),
        (53, 138, 94, 299),
        (22, 351, 24, 317),
    ]
    blocks = [Block(c + d, a + b, c, a) for a, b, c, d in admitted_rejected]
    z, information = stratified_score(blocks, fewest_events=0)
    tables = [np.array([[a, b], [c, d]]) for a, b, c, d in admitted_rejected]
    oracle = StratifiedTable(tables).test_null_odds(correction=False)
    assert z**2 == pytest.approx(oracle.statistic, rel=1e-10)
    assert (abs(z * math.sqrt(information)) - 0.5) ** 2 / information == pytest.approx(
        1.4269, abs=5e-5
    )


def test_the_contrast_of_one_epoch_is_the_unpooled_z() -> None:
    """REFERENCE O11's counts: both clocks give the same share of their plans."""
    strata = [(Moments.of_counts(145_274, 17_489), Moments.of_counts(145_310, 17_264))]
    contrast = stratified_contrast(strata, kind="proportion")
    assert contrast.z == pytest.approx(-1.3109, abs=1e-3)
    by_variance = GroupSequential(planned_information=2 * contrast.v, clock="contrast_variance")
    by_units = GroupSequential(planned_information=2 * contrast.h, clock="effective_units")
    first, second = by_variance.look(contrast), by_units.look(contrast)
    assert first.boundary == pytest.approx(second.boundary, rel=1e-12)
    assert first.estimate == pytest.approx(17_264 / 145_310 - 17_489 / 145_274, rel=1e-12)
