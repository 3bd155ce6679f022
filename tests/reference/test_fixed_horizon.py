"""Published numbers of fixed-horizon methods, each with its provenance.

"R" is R 4.2.2, whose help pages print most of these examples; digits beyond the printed ones come
from the call that is quoted. "statistics.md" is the table of reference numbers in the design notes.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from abkit.comoments import Comoments
from abkit.moments import Moments, PairedCounts
from abkit.sequential.mixture import normal_boundary, normal_rho
from abkit.stats.covariate import adjusted_difference
from abkit.stats.difference import lift_parts, welch_t
from abkit.stats.exact import ExactMethod, exact_proportions
from abkit.stats.interaction import Cells, interaction
from abkit.stats.multiplicity import corrected, e_bh
from abkit.stats.paired import McNemarMethod, mcnemar, paired_t
from abkit.stats.power import minimum_effect, power, sample_size
from abkit.stats.proportion import newcombe, two_proportions, unpooled_z
from abkit.stats.quantile import order_ranks
from abkit.stats.ranks import mann_whitney
from abkit.stats.rates import Events, poisson_rates
from abkit.stats.shrinkage import fit_prior
from abkit.stats.stratified import mantel_haenszel
from abkit.stats.unit_model import MeanModel, ProportionModel

if TYPE_CHECKING:
    from abkit.estimate import Interval
    from abkit.stats.multiplicity import Method

SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
MPG = [
    *(21, 21, 22.8, 21.4, 18.7, 18.1, 14.3, 24.4, 22.8, 19.2, 17.8, 16.4, 17.3, 15.2, 10.4, 10.4),
    *(14.7, 32.4, 30.4, 33.9, 21.5, 15.5, 15.2, 13.3, 19.2, 27.3, 26, 30.4, 15.8, 19.7, 15, 21.4),
]
WEIGHT = [
    *(2.62, 2.875, 2.32, 3.215, 3.44, 3.46, 3.57, 3.19, 3.15, 3.44, 3.44, 4.07, 3.73, 3.78, 5.25),
    *(5.424, 5.345, 2.2, 1.615, 1.835, 2.465, 3.52, 3.435, 3.84, 3.845, 1.935, 2.14, 1.513, 3.17),
    *(2.77, 3.57, 2.78),
]
POWER = [
    *(110, 110, 93, 110, 175, 105, 245, 62, 95, 123, 123, 180, 180, 180, 205, 215, 230, 66, 52, 65),
    *(97, 150, 150, 245, 175, 66, 91, 113, 264, 175, 335, 109),
]
MANUAL = [1] * 3 + [0] * 14 + [1] * 3 + [0] * 5 + [1] * 7


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.lower, interval.upper


def near(*values: float, rel: float = 1e-10) -> object:
    return pytest.approx(values, rel=rel)


def cars(manual: int) -> Comoments:
    """Fuel consumption of Motor Trend's cars (R's mtcars) by transmission."""
    chosen = [i for i, flag in enumerate(MANUAL) if flag == manual]
    columns = {"mpg": MPG, "weight": WEIGHT, "power": POWER}
    return Comoments.of({name: [column[i] for i in chosen] for name, column in columns.items()})


def counts(won: int, n: int) -> Moments:
    return Moments.of_counts(n, won)


# ---- the table of statistics.md -----------------------------------------------------------------


def test_reference_12_gbstats_relative_sequential_interval() -> None:
    """statistics.md 12: gbstats' own tests, N* = 1000, alpha .05: .50336 (-.55844, 1.56516)."""
    a = Moments(3_000, 1396.87 / 3_000, 52377.9767 - 1396.87**2 / 3_000)
    b = Moments(3_461, 2422.7 / 3_461, 134698.29 - 2422.7**2 / 3_461)
    parts = lift_parts(a, b)
    assert parts is not None
    lift, standard_error = parts
    assert lift == pytest.approx(0.50336, abs=5e-6)
    n = a.n + b.n
    boundary = normal_boundary(float(n), 0.05, rho=normal_rho(1_000.0, 0.05))
    half = standard_error * math.sqrt(n) * boundary / n
    assert (lift - half, lift + half) == pytest.approx((-0.55844, 1.56516), abs=6e-6)


@pytest.mark.parametrize(
    ("method", "p"), [("barnard", 0.5306371), ("boschloo", 0.4000169), ("fisher", 0.3999949)]
)
def test_reference_13_tea_tasting_exact_tests(method: ExactMethod, p: float) -> None:
    """statistics.md 13: tea-tasting's user data set, 19 of 53 against 13 of 47."""
    result = exact_proportions(counts(19, 53), counts(13, 47), method=method)
    assert result.p_value == pytest.approx(p, abs=6e-8)


def test_reference_13_relative_interval() -> None:
    """statistics.md 13: (-.659335, .343789), from seven printed digits of the moments."""
    from abkit.stats.ratio import log_ratio

    control = Moments(53, 0.5660377, 0.7888244 * 52)
    treatment = Moments(47, 0.3829787, 0.5023127 * 46)
    result = log_ratio(control, treatment)
    assert ends(result.lift_interval) == pytest.approx((-0.659335, 0.343789), abs=1e-6)


def test_reference_14_fisher_and_poisson() -> None:
    """statistics.md 14: fisher.test and poisson.test in R."""
    fisher = exact_proportions(counts(3, 1_000), counts(12, 1_000), method="fisher")
    assert fisher.p_value == pytest.approx(0.0344914253981, rel=1e-10)
    poisson = poisson_rates(Events(28, 1.0), Events(45, 1.0))
    assert poisson.p_value == pytest.approx(0.0603700373399, rel=1e-10)
    assert ends(poisson.lift_interval) == near(0.981007011012 - 1, 2.67530336127 - 1, rel=1e-9)


def test_reference_15_holm_and_sample_sizes() -> None:
    """statistics.md 15: p.adjust, power.prop.test and power.t.test in R."""
    assert corrected([0.01, 0.02, 0.03, 0.04, 0.05]).adjusted == near(0.05, 0.08, 0.09, 0.09, 0.09)
    rates = sample_size(ProportionModel(0.10), difference=0.01)
    assert rates.exact_units[0] == pytest.approx(14750.790469, rel=1e-10)
    assert rates.units == (14_751, 14_751)
    means = sample_size(MeanModel(sd=1.0), difference=0.1)
    assert means.exact_units[0] == pytest.approx(1570.73688801, rel=1e-9)


# ---- means --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "treatment", "t", "df", "p", "ci"),
    [
        (
            SLEEP_2,
            SLEEP_1,
            -1.86081346749,
            17.7764735162,
            0.0793941401874,
            (-3.36548323071, 0.205483230712),
        ),
        (
            range(7, 21),
            range(1, 11),
            -5.43492976389,
            21.9822123402,
            1.85528183251e-05,
            (-11.0528017252, -4.94719827484),
        ),
        (
            [*range(7, 21), 200],
            range(1, 11),
            -1.6329026332,
            14.164598953,
            0.12451349809,
            (-47.2428998871, 6.37623322044),
        ),
        (
            [x for x, m in zip(MPG, MANUAL, strict=True) if m],
            [x for x, m in zip(MPG, MANUAL, strict=True) if not m],
            -3.76712314514,
            18.3322516384,
            0.00137363833307,
            (-11.280194355, -3.20968418747),
        ),
    ],
    ids=["sleep", "1:10 and 7:20", "an outlier", "mtcars"],
)
def test_welch_as_on_rs_help_page(  # noqa: PLR0917 - a table of cases
    control: list[float],
    treatment: list[float],
    t: float,
    df: float,
    p: float,
    ci: tuple[float, float],
) -> None:
    """As published.

    R, ?t.test: `t.test(extra ~ group, sleep)`, `t.test(1:10, c(7:20))`, `t.test(1:10, c(7:20,
    200))`, and `t.test(mpg ~ am, mtcars)`.
    """
    result = welch_t(Moments.of(control), Moments.of(treatment))
    assert (result.statistic, result.degrees_of_freedom, result.p_value) == near(t, df, p)
    assert ends(result.interval) == near(*ci)


def test_welch_of_nists_cars() -> None:
    """NIST e-Handbook, section 1.3.5.3, AUTO83B.DAT, unequal variances: T = -12.94627, 136.8750."""
    japan = Moments(79, 30.48101, 6.107710**2 * 78)
    result = welch_t(japan, Moments(249, 20.14458, 6.414700**2 * 248))
    assert result.statistic == pytest.approx(-12.94627, abs=5e-6)
    assert result.degrees_of_freedom == pytest.approx(136.8750, abs=5e-5)


def test_paired_t_of_students_sleep() -> None:
    """R, ?t.test, `t.test(extra.1, extra.2, paired = TRUE)`; Student (1908)."""
    result = paired_t(Moments.of(a - b for a, b in zip(SLEEP_1, SLEEP_2, strict=True)))
    assert (result.statistic, result.p_value) == near(-4.06212768338, 0.00283289019738)
    assert ends(result.interval) == near(-2.45988576328, -0.700114236723)


@pytest.mark.parametrize(
    ("covariates", "coefficient"),
    [(("weight",), -0.0236152196627), (("weight", "power"), 2.08371013032)],
)
def test_cuped_is_the_coefficient_of_an_analysis_of_covariance(
    covariates: tuple[str, ...], coefficient: float
) -> None:
    """R: `lm(mpg ~ am + wt, mtcars)` and `lm(mpg ~ am + wt + hp, mtcars)`, coefficient of am."""
    result = adjusted_difference(cars(0), cars(1), metric="mpg", covariates=covariates)
    assert result.difference == pytest.approx(coefficient, rel=1e-9)


def test_interaction_of_warp_breaks() -> None:
    """As published.

    R: `lm(breaks ~ wool * I(tension == "H"), subset(warpbreaks, tension != "M"))`: 10.5556,
    from the cell means that `tapply` prints.
    """
    cell = {
        "AL": Moments(9, 44.5555555555556, 9.0),
        "AH": Moments(9, 24.5555555555556, 9.0),
        "BL": Moments(9, 28.2222222222222, 9.0),
        "BH": Moments(9, 18.7777777777778, 9.0),
    }
    result = interaction(
        Cells(neither=cell["AL"], first=cell["BL"], second=cell["AH"], both=cell["BH"])
    )
    assert result.mean_control == pytest.approx(-16.3333333333, rel=1e-10)
    assert result.difference == pytest.approx(10.5555555556, rel=1e-10)


@pytest.mark.parametrize(("base", "digits"), [(1_000_000.2, 1e-9), (10_000_000.2, 1e-8)])
def test_certified_standard_deviations_of_nist(base: float, digits: float) -> None:
    """As published.

    NIST StRD, univariate summary statistics, NumAcc3 and NumAcc4 (n = 1001): certified mean
    1000000.2 and 10000000.2, standard deviation 0.1.
    """
    values = [base, *itertools.chain.from_iterable([(base - 0.1, base + 0.1)] * 500)]
    joint = Comoments.of({"a": values, "b": [-x for x in values]})
    halves = Comoments.of({"a": values[:400]}) + Comoments.of({"a": values[400:]})
    for moments in (Moments.of(values), joint.moments("a"), halves.moments("a")):
        assert moments.mean == pytest.approx(base, rel=1e-15)
        assert math.sqrt(moments.variance) == pytest.approx(0.1, rel=digits)
    assert joint.covariance("a", "b") == pytest.approx(-0.01, rel=2 * digits)


# ---- proportions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("treatment", "control", "lower", "upper"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombes_own_examples(
    treatment: tuple[int, int], control: tuple[int, int], lower: float, upper: float
) -> None:
    """As published.

    Newcombe (1998), Interval estimation for the difference between independent proportions,
    Statistics in Medicine 17, 873-890, Table II, method 10.
    """
    result = newcombe(counts(*control), counts(*treatment))
    assert ends(result.interval) == pytest.approx((lower, upper), abs=6e-5)


def test_prop_test_and_its_interval() -> None:
    """As published.

    R: `prop.test(c(620, 500), c(10000, 10000), correct = FALSE)`, and with `c(83, 90), c(86, 93)`
    two of the four groups of smokers on ?prop.test.
    """
    result = unpooled_z(counts(500, 10_000), counts(620, 10_000))
    assert ends(result.interval) == near(0.00562918236677, 0.0183708176332)
    smokers = two_proportions(counts(90, 93), counts(83, 86))
    assert smokers.statistic is not None
    assert smokers.statistic**2 == pytest.approx(0.00950851874818, rel=1e-9)
    assert smokers.p_value == pytest.approx(0.922320095734, rel=1e-9)
    assert ends(smokers.interval) == near(-0.0554773785585, 0.0502260657303)


def test_fishers_lady_tasting_tea_and_his_twins() -> None:
    """As published.

    R, ?fisher.test: TeaTasting (Agresti 1990, p. 61), p = .2429, and Convictions of
    Fisher (1962), p = .0004652 and two-sided .0005367.
    """
    tea = exact_proportions(counts(1, 4), counts(3, 4), method="fisher", alternative="greater")
    assert tea.p_value == pytest.approx(0.242857142857, rel=1e-11)
    twins = counts(15, 18), counts(2, 12)
    less = exact_proportions(*twins, method="fisher", alternative="less")
    assert less.p_value == pytest.approx(0.000465180943363, rel=1e-10)
    both = exact_proportions(*twins, method="fisher")
    assert both.p_value == pytest.approx(0.000536724119143, rel=1e-10)


def test_barnards_and_boschloos_examples() -> None:
    """As published.

    scipy's documentation of `barnard_exact` (7 of 15 vaccinated against 12 of 15 not: .0341)
    and `boschloo_exact` (74 of 117 against 31 of 63: .0355, cut off).
    """
    barnard = exact_proportions(counts(12, 15), counts(7, 15), method="barnard", alternative="less")
    assert barnard.p_value == pytest.approx(0.0341, abs=5e-5)
    boschloo = exact_proportions(
        counts(31, 63), counts(74, 117), method="boschloo", alternative="greater"
    )
    assert boschloo.p_value == pytest.approx(0.03555, abs=5e-5)


def test_mantel_haenszel_of_berkeley_and_rabbits() -> None:
    """As published.

    R, ?mantelhaen.test, `correct = FALSE`: UCBAdmissions (Bickel, Hammel, O'Connell 1975),
    M^2 = 1.5246, p = .2169; Rabbits (Mantel, Haenszel), M^2 = 5.6571, p = .01738.
    """
    women = [(89, 108), (17, 25), (202, 593), (131, 375), (94, 393), (24, 341)]
    men = [(512, 825), (353, 560), (120, 325), (138, 417), (53, 191), (22, 373)]
    result = mantel_haenszel([(counts(*m), counts(*w)) for m, w in zip(men, women, strict=True)])
    assert result.statistic is not None
    assert (result.statistic**2, result.p_value) == near(1.52460666044, 0.216923697056)
    # Cured among rabbits injected at once and 1.5 hours later, by five doses of penicillin.
    doses = [
        ((0, 6), (0, 5)),
        ((3, 6), (0, 6)),
        ((6, 6), (2, 6)),
        ((5, 6), (6, 6)),
        ((2, 2), (5, 5)),
    ]
    rabbits = mantel_haenszel([(counts(*late), counts(*soon)) for soon, late in doses])
    assert rabbits.statistic is not None
    assert (rabbits.statistic**2, rabbits.p_value) == near(5.65714285714, 0.0173844203521)


@pytest.mark.parametrize(
    ("won", "lost", "n", "method", "p"),
    [
        (7, 1, 21, "asymptotic", 0.034),
        (7, 1, 21, "exact", 0.070),
        (7, 1, 21, "mid_p", 0.039),
        (16, 6, 161, "asymptotic", 0.0330062576612),
        (16, 6, 161, "exact", 0.0524787902832),
        (16, 6, 161, "mid_p", 0.0347),
    ],
)
def test_mcnemar_of_fagerland(won: int, lost: int, n: int, method: McNemarMethod, p: float) -> None:
    """As published.

    Fagerland, Lydersen, Laake (2013), The McNemar test for binary matched-pairs data: mid-p and
    asymptotic are better than exact conditional, BMC Medical Research Methodology 13:91, airway
    hyper-responsiveness (1, 7) and complete response (6, 16); longer figures from R.
    """
    pairs = PairedCounts(both=n - won - lost, only_control=lost, only_treatment=won)
    assert mcnemar(pairs, method=method).p_value == pytest.approx(p, abs=5e-4)


def test_mcnemar_of_approval_ratings() -> None:
    """R: ?mcnemar.test, Performance (Agresti 1990, p. 350), `correct = FALSE`; z = -4.17."""
    ratings = PairedCounts(both=794, only_control=150, only_treatment=86, neither=570)
    result = mcnemar(ratings, method="asymptotic")
    assert result.statistic == pytest.approx(-math.sqrt(17.3559322034), rel=1e-11)
    assert result.p_value == pytest.approx(3.09929344105e-05, rel=1e-10)


# ---- counts, ranks, quantiles -------------------------------------------------------------------


def test_poisson_rates_as_on_rs_help_page() -> None:
    """R, ?poisson.test: `poisson.test(c(11, 6 + 8 + 7), c(800, 1083 + 1050 + 878))`."""
    control, treatment = Events(21, 3_011.0), Events(11, 800.0)
    result = poisson_rates(control, treatment)
    assert result.p_value == pytest.approx(0.0796686330333, rel=1e-10)
    assert ends(result.lift_interval) == near(0.858426403392 - 1, 4.27726594365 - 1, rel=1e-9)
    assert result.lift == pytest.approx(1.97148809524 - 1, rel=1e-10)
    greater = poisson_rates(control, treatment, alternative="greater")
    assert greater.p_value == pytest.approx(0.0560086597877, rel=1e-10)
    assert ends(greater.lift_interval) == near(0.977584347497 - 1, math.inf, rel=1e-9)


MAY = [41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45]
MAY += [115, 37]
AUGUST = [39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73]
AUGUST += [76, 118, 84, 85]


def test_rank_sums_as_on_rs_help_page() -> None:
    """As published.

    R, ?wilcox.test: permeability (Hollander, Wolfe 1973, p. 69), W = 35, p = .1272;
    `wilcox.test(Ozone ~ Month, airquality, Month %in% c(5, 8), exact = FALSE)`, W = 127.5;
    and `wilcox.test(mpg ~ am, mtcars, exact = FALSE)`.
    """
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    result = mann_whitney([1.15, 0.88, 0.90, 0.74, 1.21], term, alternative="greater")
    assert (result.statistic, result.p_value) == near(35.0, 0.127206127206)
    assert result.guarantee == "exact"
    ozone = mann_whitney(AUGUST, MAY)
    assert (ozone.statistic, ozone.p_value) == near(127.5, 0.000120807830769)
    manual = [x for x, m in zip(MPG, MANUAL, strict=True) if m]
    automatic = [x for x, m in zip(MPG, MANUAL, strict=True) if not m]
    mtcars = mann_whitney(manual, automatic)
    assert (mtcars.statistic, mtcars.p_value) == near(42.0, 0.00187139133318)


@pytest.mark.parametrize(("n", "ranks"), [(6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (25, (8, 18))])
def test_ranks_around_the_median(n: int, ranks: tuple[int, int]) -> None:
    """The sign test's table, as in Conover (1999), Table A3: 95 % for the median."""
    assert order_ranks(n, 0.5, 0.025) == ranks


@pytest.mark.parametrize(
    ("quantile", "tail", "fewest"),
    [(0.95, 0.05, 59), (0.90, 0.05, 29), (0.99, 0.05, 299), (0.99, 0.01, 459)],
)
def test_wilks_number_of_values(quantile: float, tail: float, fewest: int) -> None:
    """Wilks (1941): so many values until the largest is an upper bound of the quantile."""
    assert order_ranks(fewest, quantile, tail)[1] == fewest
    assert order_ranks(fewest - 1, quantile, tail)[1] == fewest  # beyond the largest


# ---- several comparisons ------------------------------------------------------------------------

# Fifteen comparisons of a trial of thrombolysis, in ascending order.
THROMBOLYSIS = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
THROMBOLYSIS += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]


@pytest.mark.parametrize(
    ("method", "rejected", "adjusted"),
    [
        ("bh", 4, [0.0015, 0.003, 0.0095, 0.035625, 0.0603, 0.0638571428571]),
        ("holm", 3, [0.0015, 0.0056, 0.0247, 0.114, 0.2211, 0.278]),
        ("hommel", 3, [0.0015, 0.0056, 0.0247, 0.095, 0.1608, 0.1946]),
    ],
)
def test_benjamini_and_hochbergs_example(
    method: Method, rejected: int, adjusted: list[float]
) -> None:
    """As published.

    Benjamini, Hochberg (1995), Controlling the false discovery rate, JRSS B 57, 289-300, section
    3.2 (four rejected, three by the family-wise method); adjusted by R's p.adjust.
    """
    found = corrected(THROMBOLYSIS, method=method)
    assert sum(found.rejected) == rejected
    assert list(found.adjusted[: len(adjusted)]) == pytest.approx(adjusted, rel=1e-10)


def test_e_bh_of_calibrated_p_values_is_bh() -> None:
    """Wang, Ramdas (2022): e-BH on 1/p is Benjamini-Hochberg on p."""
    found = e_bh([1 / p for p in THROMBOLYSIS])
    bh = corrected(THROMBOLYSIS, method="bh")
    assert found.rejected == bh.rejected
    assert found.adjusted == pytest.approx(bh.adjusted, rel=1e-12)


# ---- planning -----------------------------------------------------------------------------------


def test_power_as_on_rs_help_pages() -> None:
    """As published.

    R, ?power.t.test: n = 20, delta = 1: .8689528; power .9, delta 1: n = 22.02110, one-sided
    17.84713; power .9, n = 50: delta = .6547523. ?power.prop.test: n = 50, .50 and .75: .7401659;
    power .9: n = 76.7 (76.70692845 at tol 1e-12), n = 50, .5: p2 = .8026; and one-sided .2, .25.
    """
    sd = MeanModel(sd=1.0)
    assert power(sd, difference=1.0, units=(20, 20)).power == pytest.approx(
        0.868952801692, rel=1e-10
    )
    assert sample_size(sd, difference=1.0, power=0.9).exact_units[0] == pytest.approx(
        22.0210977, rel=1e-6
    )
    one = sample_size(sd, difference=1.0, power=0.9, alternative="greater")
    assert one.exact_units[0] == pytest.approx(17.84713, rel=1e-6)
    assert minimum_effect(sd, units=(50, 50), power=0.9).difference == pytest.approx(
        0.654752512506, rel=1e-9
    )
    half = ProportionModel(0.5)
    assert power(half, difference=0.25, units=(50, 50)).power == pytest.approx(
        0.740165901331, rel=1e-10
    )
    assert sample_size(half, difference=0.25, power=0.9).exact_units[0] == pytest.approx(
        76.7069284518, rel=1e-7
    )
    assert sample_size(half, difference=0.25, power=0.8).exact_units[0] == pytest.approx(
        57.6734367389, rel=1e-7
    )
    found = minimum_effect(half, units=(50, 50), power=0.9)
    assert found.difference == pytest.approx(0.802630581704 - 0.5, rel=1e-7)
    fifth = sample_size(ProportionModel(0.2), difference=0.05, power=0.9, alternative="greater")
    assert fifth.exact_units[0] == pytest.approx(1192.78058972, rel=1e-9)


@pytest.mark.parametrize(
    ("d", "n", "table"), [(0.2, 393.4057, 393), (0.5, 63.76561, 64), (0.8, 25.52458, 26)]
)
def test_cohens_small_medium_and_large_effects(d: float, n: float, table: int) -> None:
    """As published.

    Cohen (1988), Statistical power analysis for the behavioral sciences, Table 2.4.1 (393, 64
    and 26 at power .80); digits as of R's package pwr, `pwr.t.test(d =, power = .8)`, which also
    counts rejections to the wrong side (2e-6 of n).
    """
    plan = sample_size(MeanModel(sd=1.0), difference=d)
    assert plan.exact_units[0] == pytest.approx(n, rel=1e-5)
    assert abs(plan.units[0] - table) <= 1


def test_kohavis_sixteen() -> None:
    """As published.

    Kohavi, Longbotham, Sommerfield, Henne (2009), section 3.2: n = 16 sigma^2 / Delta^2, for 5 %
    conversion and a relative change of 5 %: 121,600 an arm, a rule rounded up by about 2 %.
    """
    plan = sample_size(MeanModel(sd=math.sqrt(0.05 * 0.95)), difference=0.0025)
    assert 0.97 < plan.exact_units[0] / 121_600 < 1


# ---- many experiments ---------------------------------------------------------------------------


def test_paule_mandel_of_bcg_vaccine_trials() -> None:
    """As published.

    The trials of Colditz et al. (1994), log risk ratios; oracle: statsmodels 0.15,
    `combine_effects(..., method_re="iterated")`. metafor prints tau^2 = .3181 for method PM.
    """
    from statsmodels.stats.meta_analysis import combine_effects

    from abkit.estimate import Estimate

    trials = [
        (4, 123, 11, 139),
        (6, 306, 29, 303),
        (3, 231, 11, 220),
        (62, 13598, 248, 12867),
        (33, 5069, 47, 5808),
        (180, 1541, 372, 1451),
        (8, 2545, 10, 629),
        (505, 88391, 499, 88391),
        (29, 7499, 45, 7277),
        (17, 1716, 65, 1665),
        (186, 50634, 141, 27338),
        (5, 2498, 3, 2341),
        (27, 16913, 29, 17854),
    ]
    effects = np.array([math.log(a / n * m / c) for a, n, c, m in trials])
    variances = np.array([1 / a - 1 / n + 1 / c - 1 / m for a, n, c, m in trials])
    oracle = combine_effects(effects, variances, method_re="iterated")
    fitted = fit_prior(
        [
            Estimate(
                method="log_ratio",
                guarantee="asymptotic",
                alpha=0.05,
                alternative="two-sided",
                difference=float(effect),
                standard_error=math.sqrt(variance),
            )
            for effect, variance in zip(effects, variances, strict=True)
        ]
    )
    assert fitted.sd**2 == pytest.approx(float(oracle.tau2), rel=1e-8)
    assert fitted.sd**2 == pytest.approx(0.3181, abs=5e-5)
    assert fitted.mean == pytest.approx(float(oracle.mean_effect_re), rel=1e-8)
    assert stats.norm.sf(abs(fitted.mean) / fitted.standard_error) < 1e-4
