"""Published numbers for the anytime-valid tests, each with its provenance.

"statistics.md" is the table of reference numbers in the design notes, "REFERENCE" the file beside
the data sets. Numbers of software were printed by the call that is named, or stand in its tests.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import optimize, special, stats

from abkit.moments import Block, Moments
from abkit.sequential.betting import BettingMean
from abkit.sequential.boundary import (
    bernoulli_interval,
    beta_binomial_boundary,
    beta_binomial_log_mixture,
    gamma_exponential_boundary,
    gamma_exponential_log_mixture,
    gamma_poisson_boundary,
    gamma_poisson_log_mixture,
    poly_stitching_boundary,
)
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.counts import multinomial_intervals, multinomial_log_e
from abkit.sequential.crossing import mixture_crossing
from abkit.sequential.group import GroupSequential
from abkit.sequential.hypergeometric import (
    HypergeometricMixture,
    fnch_log_likelihood,
    hypergeometric_log_e,
)
from abkit.sequential.msprt import FixedTauMixture, liu_log_e, msprt_interval, msprt_log_e
from abkit.sequential.normal import normal_boundary, normal_log_mixture, normal_rho
from abkit.sequential.paired import coin_log_e
from abkit.sequential.safe import effective_n, safe_t_log_e, safe_z_log_e
from abkit.stats.difference import welch_t

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from abkit.sequential.design import Look

ONE = normal_rho(100.0, 0.05, alternative="greater")
TWO = normal_rho(100.0, 0.05)
ASOS = "asos_digital_experiments_dataset.csv"
Arms = tuple[float, Moments, Moments]


# --- confseq: boundaries -------------------------------------------------------------------------


def test_reference_9_and_the_tests_of_confseq() -> None:
    """statistics.md 9; confseq, test/uniform_boundaries_unittest.cpp: v_opt 100, alpha .05."""
    five = pytest.approx
    assert gamma_exponential_log_mixture(10, 100, rho=ONE, c=2) == five(-0.2490165, abs=1e-5)
    assert gamma_exponential_boundary(100, 0.05, rho=ONE, c=2) == five(33.02017, abs=1e-5)
    assert gamma_poisson_log_mixture(10, 100, rho=ONE, c=2) == five(-0.06991219, abs=1e-5)
    assert gamma_poisson_boundary(100, 0.05, rho=ONE, c=2) == five(30.1949, abs=5e-5)
    two = {"rho": TWO, "g": 0.2, "h": 0.8}
    assert beta_binomial_log_mixture(10, 100, **two) == five(-0.6941012, abs=1e-5)
    assert beta_binomial_boundary(100, 0.05, **two) == five(31.4308, abs=1e-4)
    one = beta_binomial_log_mixture(10, 100, rho=ONE, g=0.2, h=0.8, alternative="greater")
    assert one == five(-0.07134019, abs=1e-5)
    one = beta_binomial_boundary(100, 0.05, rho=ONE, g=0.2, h=0.8, alternative="greater")
    assert one == five(28.41238, abs=1e-5)
    assert poly_stitching_boundary(100, 0.05, v_min=10, c=3) == five(64.48755, abs=1e-5)
    assert poly_stitching_boundary(100, 0.05, v_min=10, c=-1) == five(28.99389, abs=1e-5)


def test_reference_9_bernoulli_confidence_sequence() -> None:
    """statistics.md 9: 700 of 1,000, t_opt 100: (.651629, .745949), truncated there."""
    assert bernoulli_interval(700, 1_000, n_opt=100) == pytest.approx(
        (0.651629, 0.745949), abs=1e-6
    )


@pytest.mark.parametrize(
    ("successes", "n", "n_opt", "expected"),
    [
        (700, 1_000, 100, (0.651629813870, 0.745949500785)),
        (0, 50, 100, (0.0, 0.092980812606)),
        (3, 5_000, 2_000, (0.000013593666, 0.002263024247)),
        (99, 100, 50, (0.930618243909, 1.0)),
    ],
)
def test_confseq_bernoulli_confidence_interval(
    successes: int, n: int, n_opt: float, expected: tuple[float, float]
) -> None:
    """From confseq 0.0.11: bernoulli_confidence_interval(successes, n, .05, n_opt)."""
    assert bernoulli_interval(successes, n, n_opt=n_opt) == pytest.approx(expected, abs=1e-10)


def test_confseq_boundaries_elsewhere() -> None:
    """From confseq 0.0.11: *_mixture_bound(1000, .01, 500, .5, .01), *_log_mixture(-30, ...)."""
    rho = normal_rho(500, 0.01, alternative="greater")
    near = pytest.approx
    assert gamma_exponential_boundary(1_000, 0.01, rho=rho, c=0.5) == near(108.8443939221)
    assert gamma_exponential_log_mixture(-30, 1_000, rho=rho, c=0.5) == near(-2.1445727640)
    assert gamma_poisson_boundary(1_000, 0.01, rho=rho, c=0.5) == near(107.7984940121)
    assert gamma_poisson_log_mixture(-30, 1_000, rho=rho, c=0.5) == near(-2.1137177980)
    normal = normal_boundary(1_000, 0.01, rho=rho, alternative="greater")
    assert normal == near(106.8320794255)
    normal = normal_log_mixture(-30, 1_000, rho=rho, alternative="greater")
    assert normal == near(-2.1306998651)
    assert poly_stitching_boundary(5, 0.01, v_min=10) == near(10.874194313915)


def test_confseq_beta_binomial_of_a_95th_percentile() -> None:
    """From confseq 0.0.11, beta_binomial_mixture_bound(118.75, .05, 47.5, g, h, .05, one_sided)."""
    v, rho = 2_500 * 0.0475, normal_rho(1_000 * 0.0475, 0.05)
    assert beta_binomial_boundary(v, 0.05, rho=rho, g=0.95, h=0.05) == pytest.approx(31.7610028533)
    assert beta_binomial_boundary(v, 0.05, rho=rho, g=0.05, h=0.95) == pytest.approx(35.3838334546)
    one = normal_rho(1_000 * 0.0475, 0.05, alternative="greater")
    bound = beta_binomial_boundary(v, 0.05, rho=one, g=0.05, h=0.95, alternative="greater")
    assert bound == pytest.approx(31.8189372412)


@pytest.mark.parametrize("v", [1e2, 1e4, 1e6])
def test_howard_et_al_equation_2(v: float) -> None:
    """Howard et al. (2021), eq. 2: 1.7 sqrt(v (log log 2v + .72 log(5.2/alpha))), as printed."""
    printed = 1.7 * math.sqrt(v * (math.log(math.log(2 * v)) + 0.72 * math.log(5.2 / 0.05)))
    assert poly_stitching_boundary(v, 0.05, v_min=1.0) == pytest.approx(printed, rel=0.005)


# --- confseq: betting ----------------------------------------------------------------------------

BETS = [i * 7_919 % 1_000 / 1_000 for i in range(1, 41)]


@pytest.mark.parametrize(
    ("alternative", "null", "expected"),
    [
        (
            "two-sided",
            0.3,
            [1.294761904762, 8.302615947919, 11.582418907819, 128.031536050328, 1460.122581022113],
        ),
        (
            "greater",
            0.7,
            [1.156428571429, 1.202017415226, 0.279475765573, 0.063046362137, 0.000963614781],
        ),
        (
            "less",
            0.6,
            [0.601250000000, 0.309155428313, 1.157251446694, 1.234040846847, 5.680978812040],
        ),
    ],
)
def test_confseq_betting_martingale(alternative: str, null: float, expected: list[float]) -> None:
    """From confseq 0.0.11, betting.betting_mart(x, null, theta=.5, 1 or 0, convex_comb=True).

    It multiplies alpha by theta; alpha is .05, two-sided .025, which makes each side's .0125.
    """
    alpha = 0.025 if alternative == "two-sided" else 0.05
    design = BettingMean(null=null, alternative=alternative, alpha=alpha)  # type: ignore[arg-type]
    for n, e_value in zip((1, 5, 10, 20, 40), expected, strict=True):
        log_e = design.start().update(BETS[:n]).log_e_value
        assert math.exp(log_e) == pytest.approx(e_value, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (0, 1)),
        (5, (0.235, 1)),
        (10, (0.274, 0.789)),
        (20, (0.358, 0.718)),
        (40, (0.383, 0.643)),
    ],
)
def test_confseq_hedged_confidence_sequence(n: int, expected: tuple[float, float]) -> None:
    """From confseq 0.0.11, betting.betting_cs(x, [lambda_predmix_eb at .025], breaks=1000)."""
    interval = BettingMean(null=0.5).start().update(BETS[:n]).interval
    assert (interval.lower, interval.upper) == pytest.approx(expected, abs=1e-9)


# --- safestats -----------------------------------------------------------------------------------


def test_reference_10_safe_z() -> None:
    """statistics.md 10: safestats, safeZTestStat(2.5, phiS = .3, n1 = 100, n2 = 100)."""
    n = effective_n(100, 100)
    assert math.exp(safe_z_log_e(2.5, n, effect=0.3)) == pytest.approx(10.59284, abs=5e-6)
    one = safe_z_log_e(2.5, n, effect=0.3, alternative="greater")
    assert math.exp(one) == pytest.approx(21.18516, abs=5e-6)


def test_safestats_effective_sample_size() -> None:
    """safestats, tests/testthat/test-nonExportedFunctions.R: computeNEff(c(3, 4))."""
    assert effective_n(3, 4) == pytest.approx(1.7142857, abs=5e-8)


def batch_beta(effect: float, n: int, prior: str) -> float:
    """Probability that one look at n units misses an effect, two-sided alpha .05."""
    spread = effect if prior == "grow" else abs(effect)
    critical = optimize.brentq(
        lambda z: safe_z_log_e(z, n, effect=spread, prior=prior) - math.log(20),  # type: ignore[arg-type]
        0.0,
        20.0,
    )
    return float(special.ndtr(critical - math.sqrt(n) * effect))


def test_safestats_batch_designs() -> None:
    """safestats, test-nonExportedFunctions.R: computeBetaBatchSafeZ and computeNPlanBatchSafeZ."""
    assert batch_beta(0.9, 12, "grow") == pytest.approx(0.35359335, abs=1e-7)
    assert batch_beta(0.4, 85, "grow") <= 0.2 < batch_beta(0.4, 84, "grow")
    assert batch_beta(0.4, 96, "gauss") <= 0.2 < batch_beta(0.4, 95, "gauss")


def test_safestats_smallest_effect_of_a_batch_design() -> None:
    """safestats, test-nonExportedFunctions.R: computeMinEsBatchSafeZ(78) = .4172752, tol. 1e-3."""
    effect = optimize.brentq(lambda size: batch_beta(size, 78, "grow") - 0.2, 0.2, 0.8)
    assert effect == pytest.approx(0.4172752, abs=1e-3)


def test_safestats_weights_of_a_noncentral_hypergeometric() -> None:
    """safestats, tests/testthat/test-savi2x2Helpers.R: dFNCHypergeo(0:2, 2, 2, 2, 2) = 1, 8, 4."""
    null = np.array([1, 4, 1]) / 6
    for x, weight in enumerate([1, 8, 4]):
        ratio, _ = fnch_log_likelihood(x, 2, 2, 2, np.array([math.log(2)]))
        assert null[x] * math.exp(ratio[0]) == pytest.approx(weight / 13, rel=1e-12)


def test_safestats_growth_of_one_sided_successes() -> None:
    """safestats, test-savi2x2Helpers.R: five tables (1, 0) of one unit an arm at log(3): 1.5^t."""
    total = 0.0
    for t in range(1, 6):
        total += float(fnch_log_likelihood(1, 1, 1, 1, np.array([math.log(3)]))[0][0])
        assert math.exp(total) == pytest.approx(1.5**t, rel=1e-12)


def test_safestats_gaussian_mixture_of_tables() -> None:
    """safestats, test-savi2x2Helpers.R: eGauss, N(0, 1), after 1 to 5 tables (1, 0)."""
    design = HypergeometricMixture(parts=((1.0, 1.0),))
    expected = [1, 1.173516143432372, 1.520548430297116, 2.105509009062085, 3.057222176662974]
    for t, e_value in enumerate(expected, start=1):
        log_e = hypergeometric_log_e([Block(1, 1, 0, 1)] * t, design)
        assert math.exp(log_e) == pytest.approx(e_value, rel=1e-7)  # their grid is another


@pytest.mark.parametrize(
    ("t", "n", "degrees", "effect"),
    [(-3.0, 15.0, 58, 0.25), (2.5, 50.0, 98, 0.3), (1.0, 100.0, 99, 0.4), (3.0, 100.0, 99, 0.3)],
)
def test_safe_t_is_a_ratio_of_noncentral_t_densities(
    t: float, n: float, degrees: int, effect: float
) -> None:
    """Second implementation: scipy's nct; the last two are safestats' documented calls."""
    shift = math.sqrt(n) * effect
    centre = stats.t.logpdf(t, degrees)
    up, down = (stats.nct.logpdf(t, degrees, s) - centre for s in (shift, -shift))
    ask = {"degrees_of_freedom": degrees, "effect": effect, "prior": "grow"}
    assert safe_t_log_e(t, n, alternative="greater", **ask) == pytest.approx(up, abs=1e-9)  # type: ignore[arg-type]
    both = np.logaddexp(up, down) - math.log(2)
    assert safe_t_log_e(t, n, **ask) == pytest.approx(both, abs=1e-9)  # type: ignore[arg-type]


# --- counts --------------------------------------------------------------------------------------


def test_reference_11_as_a_coin_and_as_a_multinomial() -> None:
    """statistics.md 11: 4.917049, of Lindon and Malek's multinomial test (480, 560), k = 100."""
    e_value = pytest.approx(4.917049, abs=5e-7)
    assert math.exp(coin_log_e(480, 560, concentration=100)) == e_value
    epochs = [([480, 560], [0.5, 0.5])]
    assert math.exp(multinomial_log_e(epochs, concentration=100)) == e_value


def test_savvi_multinomial() -> None:
    """From savvi 0.3.1, Multinomial(.05, theta_0, k).update(counts): odds, calculate_conf_int()."""
    pair = multinomial_intervals([480, 560], [1, 1], concentration=100)
    assert [end for arm in pair for end in (arm.lower, arm.upper)] == pytest.approx(
        [0.4155707967744375, 0.5079470928819343, 0.4920529070134456, 0.5844292031087991], abs=1e-8
    )
    three = multinomial_intervals([30, 80, 90], [0.2, 0.3, 0.5], concentration=50)
    assert [end for arm in three for end in (arm.lower, arm.upper)] == pytest.approx(
        [
            *(0.07928771214161867, 0.24608752056562935),
            *(0.2898578534645717, 0.51740861269652),
            *(0.3362998902769878, 0.567333625537601),
        ],
        abs=1e-8,  # theirs are cvxpy's
    )
    log_e = multinomial_log_e([([30, 80, 90], [0.2, 0.3, 0.5])], concentration=50)
    assert math.exp(log_e) == pytest.approx(10.54589925770441, rel=1e-12)


def test_o22_as_a_coin() -> None:
    """REFERENCE O22: Lindon's blog prints a sequential p of .075 for (156, 212)."""
    e_value = math.exp(coin_log_e(156, 212, concentration=100))
    assert 1 / e_value == pytest.approx(0.0748645297877, rel=1e-9)


def test_o23_as_a_multinomial() -> None:
    """REFERENCE O23: regression test of the package ssrm-test, running minimum over units."""
    draws = np.random.RandomState(0).multinomial(1, [0.1, 0.49, 0.41], 10)
    running = min(
        math.exp(-multinomial_log_e([(counts, [0.1, 0.5, 0.4])], concentration=10_000))
        for counts in draws.cumsum(axis=0).tolist()
    )
    assert running == pytest.approx(0.9980534145723241, rel=1e-9)


# --- mSPRT on real experiments -------------------------------------------------------------------


def test_o14_udacity_at_the_end() -> None:
    """REFERENCE O14: tau = .01, counts of O11; the answer takes p (1 - p) / n as variance."""
    (n_c, x_c), (n_t, x_t) = (145_274, 17_489), (145_310, 17_264)
    control, treatment = x_c / n_c, x_t / n_t
    variance = control * (1 - control) / n_c + treatment * (1 - treatment) / n_t
    log_l = msprt_log_e(treatment - control, variance, tau2=1e-4)
    assert log_l == pytest.approx(-1.27721631806, rel=1e-9)
    interval = msprt_interval(treatment - control, variance, tau2=1e-4)
    assert (interval.lower, interval.upper) == pytest.approx(
        (-0.00545854763822, 0.00230206966751), rel=1e-9
    )


Series = dict[str, list[Arms]]


@pytest.fixture(scope="module")
def asos(shared_data: Callable[[str], Path]) -> dict[str, Series]:
    """By metric, by experiment and variant: day and moments of both arms, in order.

    An arm without a finite variance counts as empty.
    """
    metrics: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    with shared_data(ASOS).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            arms = []
            for arm in ("c", "t"):
                n, variance = float(row[f"count_{arm}"]), float(row[f"variance_{arm}"] or "nan")
                usable = n > 1 and math.isfinite(variance)
                arms.append(
                    Moments(round(n), float(row[f"mean_{arm}"]), variance * (n - 1))
                    if usable
                    else Moments()
                )
            key = f"{row['experiment_id']}-{row['variant_id']}"
            looks = metrics[row["metric_id"]][key]
            looks.append((float(row["time_since_start"]), arms[0], arms[1]))
    for series in metrics.values():
        for looks in series.values():
            looks.sort(key=lambda look: look[0])
    return metrics


def test_o15_the_size_of_the_file(asos: dict[str, Series]) -> None:
    """REFERENCE O15: rows, experiments, comparisons, series."""
    assert sum(len(looks) for series in asos.values() for looks in series.values()) == 24_153
    assert len({key.split("-")[0] for series in asos.values() for key in series}) == 78
    assert len(asos["1"]) == 99
    assert sum(map(len, asos.values())) == 396


def verdicts(series: Series, tau2: float) -> Counter[str]:
    """Liu et al., Table 2: the t test at the end against the mSPRT at any look, by outcome.

    A series whose last look has no variance has no t test: it counts under that test's status.
    """
    counts: Counter[str] = Counter()
    for looks in series.values():
        best = max(
            liu_log_e(control, treatment, tau2=tau2 * control.variance)
            if control.variance > 0
            else 0.0
            for _, control, treatment in looks
        )
        _, control, treatment = looks[-1]
        last = welch_t(control, treatment)
        if last.p_value is None:
            counts[last.status] += 1
            assert best < math.log(20)  # such a series has no variance at any look
            continue
        both = last.p_value <= 0.05, best >= math.log(20)
        counts[
            {
                (True, True): "both",
                (False, True): "only mSPRT",
                (False, False): "neither",
                (True, False): "only t",
            }[both]
        ] += 1
    return counts


def test_o16_table_2_of_liu_et_al(asos: dict[str, Series]) -> None:
    """REFERENCE O16: Liu et al. (2021), table 2, metric 1: both 19, mSPRT 2, neither 71, t 7."""
    assert verdicts(asos["1"], 1.30e-5) == {"both": 19, "only mSPRT": 2, "neither": 71, "only t": 7}


@pytest.mark.parametrize(
    ("metric", "tau2", "expected"),
    [
        ("2", 1.07e-5, {"both": 20, "only mSPRT": 18, "neither": 49, "only t": 7}),
        ("3", 6.48e-6, {"both": 16, "only mSPRT": 6, "neither": 63, "only t": 9}),
        ("4", 5.92e-6, {"both": 16, "only mSPRT": 4, "neither": 63, "only t": 11}),
    ],
)
def test_the_other_metrics_as_metric_1(
    asos: dict[str, Series], metric: str, tau2: float, expected: dict[str, int]
) -> None:
    """Our own counts, kept against regressions: not compared with the paper's table.

    The settings are the authors' (github.com/liuchbryan/oce-dataset, oce-dataset.ipynb): one tau2
    for each metric, times the control's variance. Five series of each have no variance at any look.
    """
    assert verdicts(asos[metric], tau2) == expected | {"insufficient_data": 5}


@pytest.mark.parametrize(
    ("metric", "cohen", "bayes"),
    [
        ("1", 1.301572657324043e-05, 1.3020009248594856e-05),
        ("2", 1.0651973563344495e-05, 1.0661803999734505e-05),
        ("3", 6.478802824829137e-06, 6.490907690571599e-06),
        ("4", 5.915041799704489e-06, 5.931773520743273e-06),
    ],
)
def test_liu_et_al_variance_of_effect_sizes(
    asos: dict[str, Series], metric: str, cohen: float, bayes: float
) -> None:
    """Where tau2 comes from: the variance over series of the last look's effect size.

    Printed by the authors' notebook (oce-dataset.ipynb, comments above naive_tau_sq, naive_V_sq).
    """
    sizes = []
    for looks in asos[metric].values():
        _, control, treatment = looks[-1]
        found = welch_t(control, treatment)
        if found.difference is None or not found.standard_error:
            continue
        pooled = (control.m2 + treatment.m2) / (control.n + treatment.n - 2)
        both = math.sqrt(1 / control.n + 1 / treatment.n)
        z = found.difference / found.standard_error
        sizes.append((found.difference / math.sqrt(pooled), z * both))
    assert np.var(sizes, axis=0) == pytest.approx([cohen, bayes], rel=1e-8)


@pytest.mark.parametrize("metric", ["1", "2", "3", "4"])
def test_no_series_crashes_a_design_or_gives_nan(asos: dict[str, Series], metric: str) -> None:
    """Information goes backwards in some, ends before or after its plan, or never comes."""
    statuses: Counter[str] = Counter()
    for looks in asos[metric].values():
        contrasts = [
            stratified_contrast([(control, treatment)], kind="mean")
            for _, control, treatment in looks
        ]
        largest = max(contrast.v for contrast in contrasts) or 1.0
        units = max(1, round(4 * max(contrast.h for contrast in contrasts)))
        for design in (
            AlwaysValid(planned_units=units),
            FixedTauMixture(tau2=1e-5),
            CalibratedMixture(planned_units=units, horizon=0.8),
            GroupSequential(planned_information=0.8 * largest, clock="contrast_variance"),
        ):
            past: list[Look] = []
            for contrast in contrasts[-12:]:
                past.append(design.look(contrast, past))
                for number in (
                    past[-1].statistic,
                    past[-1].boundary,
                    past[-1].e_value,
                    past[-1].p_value,
                    past[-1].estimate,
                    past[-1].alpha_spent,
                ):
                    assert number is None or not math.isnan(number)
            statuses[past[-1].status] += 1
    assert set(statuses) <= {"ok", "insufficient_data"}
    assert statuses["insufficient_data"] == (0 if metric == "1" else 20)


def test_o18_significant_on_day_5_but_not_for_the_msprt(asos: dict[str, Series]) -> None:
    """REFERENCE O18: 036afc-2-1."""
    looks = asos["1"]["036afc-2"]
    p_values = [welch_t(control, treatment).p_value for _, control, treatment in looks]
    first = next(day for (day, *_), p in zip(looks, p_values, strict=True) if p and p <= 0.05)
    assert first == 5.0
    assert p_values[-1] == pytest.approx(0.455816935225, rel=1e-9)
    best = max(
        liu_log_e(control, treatment, tau2=1.30e-5 * control.variance)
        for _, control, treatment in looks
    )
    assert math.exp(-best) == pytest.approx(0.194688327651, rel=1e-9)


def test_o19_first_stop_of_the_msprt(asos: dict[str, Series]) -> None:
    """REFERENCE O19: fdaf62-1-1, plain V form, tau2 = 1.30e-5 times the control's variance."""
    stop = next(
        day
        for day, control, treatment in asos["1"]["fdaf62-1"]
        if msprt_log_e(
            treatment.mean - control.mean,
            treatment.variance / treatment.n + control.variance / control.n,
            tau2=1.30e-5 * control.variance,
        )
        >= math.log(20)
    )
    assert stop == 4.0


# --- crossing probabilities ----------------------------------------------------------------------


@pytest.mark.parametrize("sides", [1, 2])
def test_an_open_end_spends_all_of_alpha(sides: int) -> None:
    """Ville (1939) holds with equality for the mixture: Robbins, Siegmund (1970), theorem 1."""
    crossing = mixture_crossing(math.log(20), 1e10, sides=sides)  # type: ignore[arg-type]
    assert crossing.probability == pytest.approx(0.05, abs=1e-4)


def spotify(shift: float, boundaries: list[tuple[float, np.ndarray]], seed: int) -> list[float]:
    """Share of 20,000 streams of 500 pairs of N(0, 1) that ever reach each boundary."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(len(boundaries))
    for _ in range(20):
        steps = rng.standard_normal((1_000, 500), dtype=np.float32) * np.float32(math.sqrt(2))
        path = np.cumsum(steps + np.float32(shift), axis=1, dtype=np.float64)
        hits += [(path >= boundary).any(axis=1).sum() for _, boundary in boundaries]
    return (hits / 20_000).tolist()


@pytest.mark.parametrize(
    ("shift", "gavi", "bonferroni"),
    [(0.0, 0.0176, 0.0024), (0.1, 0.2275, 0.046), (0.2, 0.7631, 0.397), (0.3, 0.9875, 0.897)],
)
def test_reference_16_and_o24_spotify(shift: float, gavi: float, bonferroni: float) -> None:
    """statistics.md 16, REFERENCE O24: GAVI(500) and Bonferroni(500).

    Tolerance .006 as in REFERENCE; .012 for Bonferroni, which is published from fewer runs.
    """
    v = 2 * np.arange(1.0, 501.0)
    mixture = normal_boundary(v, 0.1, rho=normal_rho(1_000.0, 0.1))  # two-sided at twice alpha
    fixed = np.sqrt(v) * -float(special.ndtri(0.05 / 500))
    found = spotify(shift, [(0.05, mixture), (0.05, fixed)], 24 + round(10 * shift))
    assert found[0] == pytest.approx(gavi, abs=0.006)
    assert found[1] == pytest.approx(bonferroni, abs=0.012)
