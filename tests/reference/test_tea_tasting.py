"""CUPED, ratios and lifts against tea-tasting, on the data sets of its documentation.

The numbers were made with tea-tasting 1.14.0: `tt.make_users_data(rng=42, n_users=N,
covariates=True)` for N of 100 and 4,000, `tt.Experiment({...}).analyze(data)` with the metrics
named below; the arms' means and centred products come from the same tables, by numpy. tea-tasting's
theta is that of both arms thrown together, and its relative interval one of the logarithm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from abkit.analysis import analyze
from abkit.comoments import Comoments
from abkit.stats.covariate import adjusted_difference
from abkit.stats.difference import welch_t
from abkit.stats.ratio import log_ratio, ratio_difference

if TYPE_CHECKING:
    from abkit.estimate import Estimate, Interval

COLUMNS = (
    "sessions",
    "orders",
    "revenue",
    "sessions_before",
    "orders_before",
    "revenue_before",
)

CONTROL_100 = Comoments(
    COLUMNS,
    53,
    (
        1.9811320754716981,
        0.5660377358490566,
        5.029811320754717,
        1.9245283018867925,
        0.5283018867924528,
        3.569245283018868,
    ),
    (
        (
            50.98113207547169,
            20.56603773584907,
            151.1398113207548,
            57.924528301886795,
            20.528301886792466,
            143.75924528301883,
        ),
        (
            20.56603773584907,
            41.01886792452826,
            323.1056603773584,
            36.264150943396224,
            40.15094339622647,
            259.56264150943406,
        ),
        (
            151.1398113207548,
            323.1056603773584,
            3261.2786981132044,
            230.46924528301886,
            237.50528301886783,
            1795.5228924528283,
        ),
        (
            57.924528301886795,
            36.264150943396224,
            230.46924528301886,
            183.69811320754715,
            64.1132075471698,
            380.85698113207553,
        ),
        (
            20.528301886792466,
            40.15094339622647,
            237.50528301886783,
            64.1132075471698,
            75.20754716981129,
            464.391132075471,
        ),
        (
            143.75924528301883,
            259.56264150943406,
            1795.5228924528283,
            380.85698113207553,
            464.391132075471,
            3891.974769811317,
        ),
    ),
)

TREATMENT_100 = Comoments(
    COLUMNS,
    47,
    (
        1.8936170212765957,
        0.3829787234042553,
        5.43,
        1.9574468085106382,
        0.3191489361702128,
        7.588085106382978,
    ),
    (
        (
            36.468085106382986,
            6.914893617021271,
            145.82000000000008,
            38.787234042553195,
            7.595744680851064,
            262.7404255319148,
        ),
        (
            6.914893617021271,
            23.106382978723424,
            438.9500000000006,
            6.765957446808505,
            17.255319148936177,
            598.534468085107,
        ),
        (
            145.82000000000008,
            438.9500000000006,
            11513.095199999989,
            257.34000000000015,
            406.70999999999964,
            18848.80279999997,
        ),
        (
            38.787234042553195,
            6.765957446808505,
            257.34000000000015,
            109.91489361702133,
            12.63829787234043,
            477.9261702127657,
        ),
        (
            7.595744680851064,
            17.255319148936177,
            406.70999999999964,
            12.63829787234043,
            26.212765957446805,
            896.9487234042559,
        ),
        (
            262.7404255319148,
            598.534468085107,
            18848.80279999997,
            477.9261702127657,
            896.9487234042559,
            43069.44172765948,
        ),
    ),
)

CONTROL_4000 = Comoments(
    COLUMNS,
    2023,
    (
        1.9960454770143352,
        0.5304003954522986,
        5.241028175976273,
        1.9925852694018784,
        0.5388037567968363,
        5.278512110726644,
    ),
    (
        (
            2037.968363816117,
            506.24320316361985,
            4788.068225407818,
            1885.9406821552145,
            539.3104300543738,
            4818.478096885803,
        ),
        (
            506.24320316361985,
            1503.8803756796876,
            14449.216767177511,
            553.9560059317846,
            1112.8635689569967,
            10271.436505190306,
        ),
        (
            4788.068225407818,
            14449.216767177511,
            188167.90146139456,
            5654.665422639646,
            11160.359288185864,
            137444.2423948099,
        ),
        (
            1885.9406821552145,
            553.9560059317846,
            5654.665422639646,
            5746.888779041042,
            1529.0820563519515,
            15581.01768166088,
        ),
        (
            539.3104300543738,
            1112.8635689569967,
            11160.359288185864,
            1529.0820563519515,
            2132.703905091444,
            21269.88179930801,
        ),
        (
            4818.478096885803,
            10271.436505190306,
            137444.2423948099,
            15581.01768166088,
            21269.88179930801,
            349114.8222214543,
        ),
    ),
)

TREATMENT_4000 = Comoments(
    COLUMNS,
    1977,
    (
        1.982802225594335,
        0.5730905412240769,
        5.730111279716743,
        1.9934243803743046,
        0.5088517956499747,
        4.7202630247850275,
    ),
    (
        (
            1925.4152756702058,
            483.4850784016192,
            4568.253783510361,
            1923.7764289327283,
            412.3009610520978,
            4144.998942842681,
        ),
        (
            483.4850784016192,
            1471.6884167931246,
            14490.173920080935,
            462.45017703591304,
            974.470915528577,
            8713.691992918566,
        ),
        (
            4568.253783510361,
            14490.173920080935,
            213116.72437551926,
            3806.9914466363207,
            9149.468052604954,
            118543.54904213469,
        ),
        (
            1923.7764289327283,
            462.45017703591304,
            3806.9914466363207,
            5722.91451694486,
            1318.615073343447,
            11189.943419322213,
        ),
        (
            412.3009610520978,
            974.470915528577,
            9149.468052604954,
            1318.615073343447,
            1868.0950935761136,
            16381.695397066293,
        ),
        (
            4144.998942842681,
            8713.691992918566,
            118543.54904213469,
            11189.943419322213,
            16381.695397066293,
            240627.55346322627,
        ),
    ),
)
ARMS = {100: (CONTROL_100, TREATMENT_100), 4_000: (CONTROL_4000, TREATMENT_4000)}
TOLERANCE = 1e-9


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.lower, interval.upper


def agrees(result: Estimate, means: tuple[float, float], ci: tuple[float, float], p: float) -> None:
    assert (result.mean_control, result.mean_treatment) == pytest.approx(means, rel=TOLERANCE)
    assert ends(result.interval) == pytest.approx(ci, rel=TOLERANCE)
    assert result.p_value == pytest.approx(p, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("n", "metric", "means", "ci", "relative", "p"),
    [
        (
            100,
            "sessions",
            (1.9811320754716981, 1.8936170212765957),
            (-0.46071203804252947, 0.28568192965232464),
            (-0.21161197463209602, 0.15882383474820627),
            0.6427057619617468,
        ),
        (
            100,
            "orders",
            (0.5660377358490566, 0.3829787234042553),
            (-0.5004359360464881, 0.13431791115688552),
            (-0.6593351111329266, 0.34378920951510406),
            0.2551230546709907,
        ),
        (
            100,
            "revenue",
            (5.0298113207547175, 5.43),
            (-4.693648210756064, 5.494025569246628),
            (-0.5830409561305894, 1.7951355445321648),
            0.8758321849172475,
        ),
        (
            4_000,
            "orders",
            (0.5304003954522986, 0.5730905412240769),
            (-0.010800201598205522, 0.09618049314176216),
            (-0.019515294044061937, 0.1906880061278886),
            0.11773177998716207,
        ),
        (
            4_000,
            "revenue",
            (5.241028175976273, 5.73011127971675),
            (-0.13261881482742033, 1.1107850223083753),
            (-0.02373770894855798, 0.22440926894909308),
            0.12306988554250592,
        ),
    ],
)
def test_a_mean(  # noqa: PLR0917 - a table of cases
    n: int,
    metric: str,
    means: tuple[float, float],
    ci: tuple[float, float],
    relative: tuple[float, float],
    p: float,
) -> None:
    """`tt.Mean(metric)`; reference number 13 of statistics.md is the second row."""
    arms = [arm.moments(metric) for arm in ARMS[n]]
    agrees(welch_t(*arms), means, ci, p)
    assert ends(log_ratio(*arms).lift_interval) == pytest.approx(relative, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("n", "means", "ci", "p"),
    [
        (
            100,
            (0.2857142857142857, 0.20224719101123595),
            (-0.235929864264466, 0.0689956748583665),
            0.2799601070110709,
        ),
        (
            4_000,
            (0.2657256067360079, 0.28903061224489796),
            (-0.0024594336679094504, 0.04906944468568951),
            0.07623759978168303,
        ),
    ],
)
def test_a_ratio(n: int, means: tuple[float, float], ci: tuple[float, float], p: float) -> None:
    """`tt.RatioOfMeans("orders", "sessions")`; its README prints .266, .289 and .0762."""
    result = ratio_difference(*ARMS[n], numerator="orders", denominator="sessions")
    agrees(result, means, ci, p)


@pytest.mark.parametrize(
    ("n", "metric", "means", "ci", "p"),
    [
        (
            100,
            "orders",
            (0.5100734580887644, 0.44608737704884016),
            (-0.2873693273276433, 0.15939716524779488),
            0.5710263126825313,
        ),
        (
            100,
            "revenue",
            (5.854699824608279, 4.499806580760877),
            (-4.429028128633348, 1.7192416409385447),
            0.38351536684388066,
        ),
        (
            4_000,
            "orders",
            (0.5226833010781681, 0.5809871936868316),
            (0.015696510168618664, 0.1009112750487084),
            0.007330409808687461,
        ),
        (
            4_000,
            "revenue",
            (5.121453608942883, 5.852468057212222),
            (0.20228702469056814, 1.25974187184811),
            0.0067439292812049734,
        ),
    ],
)
def test_a_mean_with_a_covariate(
    n: int, metric: str, means: tuple[float, float], ci: tuple[float, float], p: float
) -> None:
    """`tt.Mean(metric, covariate)` (CUPED)."""
    result = adjusted_difference(
        *ARMS[n], metric=metric, covariates=[f"{metric}_before"], theta_from="total"
    )
    agrees(result, means, ci, p)


@pytest.mark.parametrize(
    ("n", "means", "ci", "p"),
    [
        (
            100,
            (0.25572348175909, 0.23549786496156164),
            (-0.13255454661183272, 0.09210331301677602),
            0.7216216788350075,
        ),
        (
            4_000,
            (0.261558559079533, 0.29329282211631386),
            (0.01134447701776042, 0.05212404905580126),
            0.002292943842523407,
        ),
    ],
)
def test_a_ratio_with_a_ratio_as_covariate(
    n: int, means: tuple[float, float], ci: tuple[float, float], p: float
) -> None:
    """`tt.RatioOfMeans("orders", "sessions", "orders_covariate", "sessions_covariate")`."""
    result = adjusted_difference(
        *ARMS[n],
        metric=("orders", "sessions"),
        covariates=[("orders_before", "sessions_before")],
        theta_from="total",
    )
    agrees(result, means, ci, p)


def test_more_covariates_explain_more() -> None:
    """What tea-tasting has not: several covariates, and both columns of a ratio on their own."""
    one = adjusted_difference(*ARMS[4_000], metric="orders", covariates=["orders_before"])
    three = adjusted_difference(*ARMS[4_000], metric="orders", covariates=COLUMNS[3:])
    assert one.variance_reduction is not None
    assert three.variance_reduction is not None
    assert 0.3 < one.variance_reduction < three.variance_reduction < 1


# ---- the same through `analyze` -----------------------------------------------------------------


def units(n: int) -> pd.DataFrame:
    """A table whose arms have exactly the published means and products."""
    parts = []
    for label, arm in zip("ab", ARMS[n], strict=True):
        noise = np.random.default_rng(n).normal(size=(arm.n, len(COLUMNS)))
        basis, _ = np.linalg.qr(noise - noise.mean(axis=0))
        values = basis @ np.linalg.cholesky(np.array(arm.products)).T + np.array(arm.means)
        parts.append(pd.DataFrame(values, columns=list(COLUMNS)).assign(arm=label))
    return pd.concat(parts, ignore_index=True).rename_axis("user").reset_index()


@pytest.mark.parametrize("n", [100, 4_000])
def test_analyze_agrees_with_tea_tasting(n: int) -> None:
    report = analyze(
        units(n),
        unit="user",
        variant="arm",
        control="a",
        metrics=["orders", "revenue"],
        ratios={"orders per session": ("orders", "sessions")},
    )
    found = {item.metric: item.estimate for item in report.results}
    if n == 100:
        agrees(
            found["orders"],
            (0.5660377358490566, 0.3829787234042553),
            (-0.5004359360464881, 0.13431791115688552),
            0.2551230546709907,
        )
        agrees(
            found["orders per session"],
            (0.2857142857142857, 0.20224719101123595),
            (-0.235929864264466, 0.0689956748583665),
            0.2799601070110709,
        )
        return
    agrees(
        found["revenue"],
        (5.241028175976273, 5.73011127971675),
        (-0.13261881482742033, 1.1107850223083753),
        0.12306988554250592,
    )
    agrees(
        found["orders per session"],
        (0.2657256067360079, 0.28903061224489796),
        (-0.0024594336679094504, 0.04906944468568951),
        0.07623759978168303,
    )


def test_analyze_with_a_covariate_is_near_tea_tasting_whose_slope_mixes_the_arms() -> None:
    options: dict[str, Any] = {"unit": "user", "variant": "arm", "control": "a"}
    (found,) = analyze(
        units(4_000), metrics=["orders"], covariates=["orders_before"], **options
    ).results
    exact = adjusted_difference(*ARMS[4_000], metric="orders", covariates=["orders_before"])
    assert found.estimate.difference == pytest.approx(exact.difference, rel=TOLERANCE)
    assert found.estimate.p_value == pytest.approx(exact.p_value, rel=1e-8)
    assert found.estimate.p_value == pytest.approx(0.007330409808687461, rel=0.02)
