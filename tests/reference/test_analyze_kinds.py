"""Quantiles, counts, clusters, pairs, relative margins, against other packages and publications.

Everything is computed once more from the frame's rows, by numpy, scipy or statsmodels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import StratifiedTable

from abkit.analysis import Result, analyze
from abkit.moments import Moments
from abkit.stats.proportion import score_z
from abkit.stats.stratified_score import stratified_score

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N = 3_000
ROLES = {"unit": "user", "variant": "arm", "control": "a"}


def units() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    frame = pd.DataFrame({"user": range(N), "arm": rng.choice(["a", "b"], N)})
    treated = frame.arm == "b"
    frame["place"] = rng.choice(["app", "web"], N)
    frame["epoch"] = rng.choice([1, 2, 3], N)
    frame["latency"] = rng.lognormal(4, 1, N) * np.where(treated, 1.1, 1.0)
    frame["errors"] = rng.poisson(np.where(treated, 0.35, 0.3))
    frame["hours"] = rng.uniform(0.5, 3, N)
    frame["before"] = rng.gamma(4, 2, N)
    frame["spend"] = frame.before + rng.normal(0, 1, N) + 0.1 * treated
    frame["views"] = rng.poisson(5, N) + 1
    frame["bought"] = (rng.random(N) < 0.1 * frame.epoch + 0.02 * treated).astype(int)
    return frame


FRAME = units()


def only(frame: object = FRAME, **options: Any) -> Result:
    (found,) = analyze(frame, **(ROLES | options)).results
    return found


def arms(name: str, frame: pd.DataFrame = FRAME) -> tuple[np.ndarray, np.ndarray]:
    return tuple(frame[name][frame.arm == arm].to_numpy(float) for arm in "ab")  # type: ignore[return-value]


# ---- quantiles ----------------------------------------------------------------------------------


def mover(
    control: np.ndarray, treatment: np.ndarray, q: float, alpha: float = 0.05
) -> tuple[float, float, float]:
    """Difference and interval, the arms' own intervals being scipy's (Conover)."""
    ends = []
    for values in (control, treatment):
        test = stats.quantile_test(np.sort(values), p=q)
        found = test.confidence_interval(confidence_level=1 - alpha)
        ends.append((found.low, float(np.quantile(values, q)), found.high))
    (lc, c, uc), (lt, t, ut) = ends
    return t - c, t - c - math.hypot(t - lt, uc - c), t - c + math.hypot(ut - t, c - lc)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.9, 0.95, 0.99])
def test_a_quantile_is_that_of_numpy_and_its_interval_is_made_of_scipys(q: float) -> None:
    found = only(quantiles={"latency": q}).estimate
    difference, lower, upper = mover(*arms("latency"), q)
    assert found.mean_control == pytest.approx(np.quantile(arms("latency")[0], q), rel=1e-12)
    assert found.difference == pytest.approx(difference, rel=1e-9)
    assert found.interval is not None
    assert found.interval.lower == pytest.approx(lower, rel=1e-9)
    assert found.interval.upper == pytest.approx(upper, rel=1e-9)


def test_quantiles_by_segment_hold_together() -> None:
    report = analyze(FRAME, quantiles={"latency": [0.5, 0.9]}, segments=["place"], **ROLES)
    parts = [item for item in report.results if item.segment is not None]
    assert [(item.metric, item.segment) for item in parts] == [
        ("latency p50", ("place", "app")),
        ("latency p90", ("place", "app")),
        ("latency p50", ("place", "web")),
        ("latency p90", ("place", "web")),
    ]
    for item in parts:
        assert item.segment is not None
        inside = FRAME[FRAME.place == item.segment[1]]
        q = 0.5 if item.metric.endswith("p50") else 0.9
        _, lower, upper = mover(*arms("latency", inside), q, alpha=0.05 / 4)
        assert item.estimate.interval is not None
        assert item.estimate.interval.lower == pytest.approx(lower, rel=1e-9)
        assert item.estimate.interval.upper == pytest.approx(upper, rel=1e-9)


@pytest.mark.parametrize("method", ["holm", "hommel", "bh"])
def test_the_interval_of_a_corrected_quantile_is_that_of_its_own_level(method: Any) -> None:
    report = analyze(
        FRAME, quantiles={"latency": [0.25, 0.5, 0.75]}, metrics=["spend"], correction=method,
        **ROLES,
    )  # fmt: skip
    seen = 0
    for item in report.results:
        if item.kind != "quantile" or item.estimate.interval is None:
            continue
        alone = only(quantiles={"latency": int(item.metric[-2:]) / 100}, alpha=item.estimate.alpha)
        assert item.estimate.interval == alone.estimate.interval
        seen += 1
    assert seen == 3 or method == "bh"


def test_a_margin_of_a_quantile_is_shown_when_the_interval_leaves_it_out() -> None:
    plain = only(quantiles={"latency": 0.9}, alternative="less").estimate
    assert plain.interval is not None
    upper = plain.interval.upper
    for border, shown in ((upper * 1.01, True), (upper * 0.99, False)):
        found = only(quantiles={"latency": 0.9}, margins={"latency p90": border}).estimate
        assert found.p_value is not None
        assert (found.p_value < 0.05) is shown
        assert found.interval == plain.interval


# ---- counts -------------------------------------------------------------------------------------


def test_counts_are_poisson_rates_of_scipy() -> None:
    control, treatment = arms("errors")
    found = only(counts=["errors"]).estimate
    total, won = int(control.sum() + treatment.sum()), int(treatment.sum())
    test = stats.binomtest(won, total, treatment.size / N)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)
    ends = test.proportion_ci(0.95, "exact")
    odds = control.size / treatment.size
    assert found.lift_interval is not None
    for end, p in ((found.lift_interval.lower, ends.low), (found.lift_interval.upper, ends.high)):
        assert end == pytest.approx(p / (1 - p) * odds - 1, rel=1e-9)
    assert (found.n_control, found.n_treatment) == (control.size, treatment.size)


def test_rates_per_exposure_are_those_of_r() -> None:
    """R's example of `poisson.test`: c(11, 6+8+7) events in c(800, 1083+1050+878)."""
    frame = pd.DataFrame(
        {
            "user": range(4),
            "arm": ["b", "a", "a", "a"],
            "cases": [11, 6, 8, 7],
            "years": [800, 1083, 1050, 878],
        }
    )
    found = only(frame, counts={"rate": ("cases", "years")}).estimate
    assert found.p_value == pytest.approx(0.07967, abs=5e-6)
    assert found.lift is not None
    assert found.lift_interval is not None
    assert found.lift + 1 == pytest.approx(1.971488, abs=5e-7)
    assert found.lift_interval.lower + 1 == pytest.approx(0.8584264, abs=5e-8)
    assert found.lift_interval.upper + 1 == pytest.approx(4.2772659, abs=5e-8)


def test_a_share_of_controls_rate_as_margin_is_an_exact_binomial_test() -> None:
    control, treatment = arms("errors")
    found = only(counts=["errors"], margins={"errors": "30%"}).estimate
    share = treatment.size * 1.3 / (treatment.size * 1.3 + control.size)
    total = int(control.sum() + treatment.sum())
    test = stats.binomtest(int(treatment.sum()), total, share, alternative="less")
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)
    assert (found.scale, found.margin, found.guarantee) == ("relative", 0.3, "exact")


def test_counts_that_come_in_bursts_are_told() -> None:
    rng = np.random.default_rng(1)
    frame = FRAME.assign(errors=rng.poisson(rng.gamma(0.5, 0.6, N)))
    report = analyze(frame, counts=["errors"], **ROLES)
    (check,) = (item for item in report.checks if item.id == "overdispersed_counts")
    ratio = np.average([arm.var(ddof=1) / arm.mean() for arm in arms("errors", frame)])
    assert f"varies {ratio:.2g}" in check.text or f"varies {ratio:.3g}" in check.text
    assert check.severity == "warn"
    assert "Welch" in check.text
    calm = analyze(FRAME, counts=["errors"], **ROLES)
    assert not [item for item in calm.checks if item.id == "overdispersed_counts"]


def test_poisson_counts_are_seldom_called_bursts() -> None:
    rng = np.random.default_rng(2)
    told = 0
    for _ in range(60):
        hours = rng.gamma(0.3, 3.0, 400)  # most exposure is that of a few units
        frame = pd.DataFrame({"user": range(400), "arm": ["a", "b"] * 200, "hours": hours})
        frame["errors"] = rng.poisson(0.5 * hours)
        report = analyze(frame, counts={"rate": ("errors", "hours")}, **ROLES)
        told += any(item.id == "overdispersed_counts" for item in report.checks)
    assert told <= 2


# ---- clusters -----------------------------------------------------------------------------------


def requests(level: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    clusters = pd.DataFrame(
        {"who": range(400), "arm": rng.choice(["a", "b"], 400), "own": rng.normal(size=400)}
    )
    frame = clusters.loc[clusters.index.repeat(rng.poisson(6, 400) + 1)].reset_index(drop=True)
    n = len(frame)
    frame["user"] = range(n)
    frame["before"] = frame.own + rng.normal(size=n)
    frame["spend"] = level + frame.own + rng.normal(size=n) + 0.2 * (frame.arm == "b")
    frame["bought"] = (frame.own + rng.normal(size=n) > 0.5).astype(int)
    frame["views"] = rng.poisson(4, n) + 1
    frame["place"] = rng.choice(["app", "web"], n)
    return frame


def liang_zeger(frame: pd.DataFrame, name: str) -> tuple[float, float]:
    """Difference and standard error by statsmodels, with G / (G - 1) in each arm."""
    means, variances = [], []
    for arm in "ab":
        part = frame[frame.arm == arm]
        fit = sm.OLS(part[name].to_numpy(), np.ones(len(part))).fit(
            cov_type="cluster", cov_kwds={"groups": part.who, "use_correction": False}
        )
        g = part.who.nunique()
        means.append(fit.params[0])
        variances.append(fit.bse[0] ** 2 * g / (g - 1))
    return means[1] - means[0], math.sqrt(sum(variances))


@pytest.mark.parametrize("name", ["spend", "bought"])
def test_clusters_have_the_robust_standard_error_of_statsmodels(name: str) -> None:
    frame = requests()
    found = only(frame, metrics=[name], cluster="who").estimate
    difference, error = liang_zeger(frame, name)
    assert found.difference == pytest.approx(difference, rel=1e-9)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.method == "cluster_robust"
    assert found.n_control == frame[frame.arm == "a"].who.nunique()


def test_a_high_level_costs_clusters_no_digits() -> None:
    found = only(requests(1e9), metrics=["spend"], cluster="who").estimate
    _, error = liang_zeger(requests(), "spend")
    assert found.standard_error == pytest.approx(error, rel=1e-6)


def test_a_ratio_of_clusters_is_that_of_their_sums() -> None:
    frame = requests()
    sums = frame.groupby("who").agg(
        arm=("arm", "first"), bought=("bought", "sum"), views=("views", "sum")
    )
    term = {"rate": ("bought", "views")}
    ours = only(frame, ratios=term, cluster="who").estimate
    alone = analyze(sums.reset_index(), unit="who", variant="arm", control="a", ratios=term)
    assert ours.difference == pytest.approx(alone.results[0].estimate.difference, rel=1e-9)
    assert ours.p_value == pytest.approx(alone.results[0].estimate.p_value, rel=1e-9)


def test_clusters_of_one_row_are_units() -> None:
    options = {"metrics": ["spend"], "covariates": ["before"], "epoch": "epoch"}
    ours = only(cluster="user", **options).estimate
    alone = only(**options).estimate
    assert ours.method == "cluster_stratified_cuped"
    for name in ("difference", "standard_error", "p_value", "variance_reduction"):
        assert getattr(ours, name) == pytest.approx(getattr(alone, name), rel=1e-9)


def test_a_segment_of_clusters_is_made_of_the_rows_in_it() -> None:
    frame = requests()
    report = analyze(frame, metrics=["spend"], cluster="who", segments=["place"], **ROLES)
    for item in report.results[1:]:
        assert item.segment is not None
        inside = frame[frame.place == item.segment[1]]
        difference, error = liang_zeger(inside, "spend")
        assert item.estimate.difference == pytest.approx(difference, rel=1e-9)
        assert item.estimate.standard_error == pytest.approx(error, rel=1e-9)


def test_the_split_of_clusters_is_theirs() -> None:
    frame = requests()
    report = analyze(frame, metrics=["spend"], cluster="who", **ROLES)
    counts = frame.groupby("arm").who.nunique()
    assert report.srm is not None
    expected = stats.chisquare(counts.to_numpy())
    assert report.srm.statistic == pytest.approx(expected.statistic)
    assert f"{counts['a']:,} a (expected" in report.checks[0].text


# ---- pairs --------------------------------------------------------------------------------------


def stacked(control: np.ndarray, treatment: np.ndarray, name: str = "value") -> pd.DataFrame:
    n = len(control)
    return pd.DataFrame(
        {
            "user": [*range(n), *range(n)],
            "arm": ["a"] * n + ["b"] * n,
            name: np.concatenate([control, treatment]),
        }
    )


def test_student_s_sleep_is_a_paired_t_test() -> None:
    """R's `t.test(Pair(extra.1, extra.2) ~ 1)`: t = -4.0621, p = .002833."""
    one = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    two = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    found = only(stacked(two, one), metrics=["value"], paired=True).estimate
    assert found.statistic == pytest.approx(-4.0621, abs=5e-5)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)
    expected = stats.ttest_rel(one, two).confidence_interval()
    assert found.interval is not None
    assert (found.interval.lower, found.interval.upper) == pytest.approx(
        (expected.low, expected.high), rel=1e-9
    )
    assert (found.mean_control, found.mean_treatment) == pytest.approx((two.mean(), one.mean()))


def test_agresti_s_approval_ratings_are_mcnemar_s_test() -> None:
    """Agresti (1990), page 350: 794, 150, 86 and 570 pairs; chi-squared 17.356."""
    cells = {(1, 1): 794, (1, 0): 150, (0, 1): 86, (0, 0): 570}
    pairs = np.array([pair for pair, n in cells.items() for _ in range(n)])
    found = only(stacked(pairs[:, 0], pairs[:, 1]), metrics=["value"], paired=True).estimate
    assert found.method == "mcnemar_mid_p"
    assert found.statistic is not None
    assert found.statistic**2 == pytest.approx(17.356, abs=5e-4)
    assert found.difference == pytest.approx((86 - 150) / 1600)
    exact = stats.binomtest(86, 236, 0.5).pvalue
    assert found.p_value == pytest.approx(exact - stats.binom.pmf(86, 236, 0.5), rel=1e-9)


def test_a_ratio_of_pairs_is_the_delta_method_on_both_sides() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.poisson(5, (2, 500)) + 1.0, rng.poisson(3, (2, 500)) * 1.0
    frame = stacked(y[0], y[1], "clicks").assign(views=np.concatenate([x[0], x[1]]))
    found = only(frame, ratios={"ctr": ("clicks", "views")}, paired=True).estimate
    ratios = [y[i].sum() / x[i].sum() for i in (0, 1)]
    moved = [(y[i] - ratios[i] * x[i]) / x[i].mean() for i in (0, 1)]
    assert found.difference == pytest.approx(ratios[1] - ratios[0], rel=1e-9)
    error = np.std(moved[1] - moved[0], ddof=1) / math.sqrt(500)
    assert found.standard_error == pytest.approx(error, rel=1e-9)


def test_every_treatment_is_paired_with_control_on_their_own_units() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(10, 3, 300)
    frame = stacked(base, base + rng.normal(0.2, 1, 300))
    third = pd.DataFrame({"user": range(200), "arm": "c", "value": base[:200] + 1})
    third.value += rng.normal(size=200)
    frame = pd.concat([frame[:-5], third])
    report = analyze(frame, metrics=["value"], paired=True, segments=[], **ROLES)
    wide = frame.pivot_table(index="user", columns="arm", values="value")
    for item in report.results:
        both = wide[["a", item.variant]].dropna()
        expected = stats.ttest_rel(both[item.variant], both.a)
        assert item.estimate.n_control == len(both)
        assert item.estimate.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    singles = [check.text for check in report.checks if check.id == "single_units"]
    assert singles[0].startswith("5 units with a row of 'a' or 'b', not of both, such as '29")
    assert singles[1].startswith("100 units with a row of 'a' or 'c', not of both, such as '20")


# ---- margins that are a share of control's mean -------------------------------------------------


def fieller_t(control: np.ndarray, treatment: np.ndarray, share: float, side: str) -> Any:
    return stats.ttest_ind(treatment, (1 + share) * control, equal_var=False, alternative=side)


@pytest.mark.parametrize(("share", "side"), [(-0.02, "greater"), (0.05, "less")])
@pytest.mark.parametrize("name", ["spend", "bought"])
def test_a_relative_margin_is_welchs_test_of_a_linear_contrast(
    name: str, share: float, side: str
) -> None:
    found = only(metrics=[name], margins={name: f"{100 * share:g}%"}).estimate
    expected = fieller_t(*arms(name), share, side)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.scale, found.margin, found.alternative) == ("relative", share, side)
    control, treatment = arms(name)
    assert found.difference == pytest.approx(treatment.mean() / control.mean() - 1, rel=1e-9)
    assert found.interval is not None
    end = found.interval.lower if side == "greater" else found.interval.upper
    root = optimize.brentq(
        lambda r: fieller_t(control, treatment, r, side).pvalue - 0.05, end - 0.01, end + 0.01
    )
    assert end == pytest.approx(root, abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"metrics": ["spend"], "covariates": ["before"]},
        {"metrics": ["spend"], "epoch": "epoch"},
        {"metrics": ["spend"], "cluster": "user"},
        {"ratios": {"spend": ("bought", "views")}},
        {"quantiles": {"latency": 0.5}},
    ],
)
def test_a_relative_margin_at_the_intervals_end_has_a_p_value_of_alpha(
    options: dict[str, Any],
) -> None:
    name = "latency p50" if "quantiles" in options else "spend"
    options = options | {"control": "b"}  # the treatment is below it, and so is the interval's end
    first = only(margins={name: "-5%"}, **options).estimate
    assert first.interval is not None
    again = only(margins={name: f"{100 * first.interval.lower!r}%"}, **options).estimate
    assert again.p_value == pytest.approx(0.05, rel=1e-6)


def test_a_relative_margin_of_pairs_is_the_paired_test_of_the_contrast() -> None:
    rng = np.random.default_rng(6)
    base = rng.normal(10, 3, 300)
    other = base + rng.normal(0, 1, 300)
    found = only(
        stacked(base, other), metrics=["value"], paired=True, margins={"value": "-1%"}
    ).estimate
    expected = stats.ttest_rel(other, 0.99 * base, alternative="greater")
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


# ---- methods of proportions within epochs -------------------------------------------------------


def tables(frame: pd.DataFrame = FRAME) -> list[np.ndarray]:
    found = []
    for _, part in frame.groupby("epoch"):
        counts = pd.crosstab(part.arm, part.bought)
        found.append(counts.loc[["b", "a"], [1, 0]].to_numpy())
    return found


def test_mantel_haenszel_is_that_of_statsmodels() -> None:
    found = only(metrics=["bought"], epoch="epoch", method="mantel_haenszel").estimate
    expected = StratifiedTable(tables()).test_null_odds(correction=False)
    assert found.statistic is not None
    assert found.statistic**2 == pytest.approx(expected.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    weights = [t.sum(1)[0] * t.sum(1)[1] / t.sum() for t in tables()]
    rates = [t[0, 0] / t[0].sum() - t[1, 0] / t[1].sum() for t in tables()]
    assert found.difference == pytest.approx(np.average(rates, weights=weights), rel=1e-9)


def test_the_score_test_within_epochs_is_its_formula() -> None:
    found = only(
        metrics=["bought"], epoch="epoch", method="score_z", margins={"bought": -0.03}
    ).estimate
    top, bottom = 0.0, 0.0
    for t in tables():
        (x, m), (y, n) = ((row[0], row.sum()) for row in t)
        weight = m * n / (m + n)

        def loss(p: float, x: int = x, m: int = m, y: int = y, n: int = n) -> float:
            q = p - 0.03
            return -(
                x * math.log(q)
                + (m - x) * math.log(1 - q)
                + y * math.log(p)
                + (n - y) * math.log(1 - p)
            )

        p = optimize.minimize_scalar(
            loss, bounds=(0.0301, 0.999), method="bounded", options={"xatol": 1e-12}
        ).x
        q = p - 0.03
        top += weight * (x / m - y / n + 0.03)
        bottom += weight**2 * (q * (1 - q) / m + p * (1 - p) / n)
    assert found.statistic == pytest.approx(top / math.sqrt(bottom), rel=1e-6)
    assert found.method == "stratified_score"


@pytest.mark.parametrize("method", ["score_z", "newcombe", "mantel_haenszel", "unpooled_z"])
def test_one_epoch_is_no_epoch(method: str) -> None:
    frame = FRAME.assign(epoch=1)
    found = only(frame, metrics=["bought"], epoch="epoch", method=method).estimate
    plain = only(frame, metrics=["bought"], method="pooled_z" if "mantel" in method else method)
    assert found.difference == pytest.approx(plain.estimate.difference, rel=1e-9)
    if method in ("score_z", "newcombe"):
        assert found.interval is not None
        assert plain.estimate.interval is not None
        assert found.interval.lower == pytest.approx(plain.estimate.interval.lower, abs=1e-12)
        assert found.interval.upper == pytest.approx(plain.estimate.interval.upper, abs=1e-12)
    if method == "mantel_haenszel":
        assert found.statistic == pytest.approx(
            plain.estimate.statistic * math.sqrt((N - 1) / N),
            rel=1e-9,  # type: ignore[operator]
        )


def test_the_ends_of_the_stratified_score_interval_are_on_the_border() -> None:
    found = only(metrics=["bought"], epoch="epoch", method="score_z").estimate
    assert found.interval is not None
    at_end = only(
        metrics=["bought"], epoch="epoch", method="score_z", alpha=0.025,
        margins={"bought": found.interval.lower},
    ).estimate  # fmt: skip
    assert at_end.p_value == pytest.approx(0.025, rel=1e-6)


def test_unpooled_with_covariates_is_cuped() -> None:
    options = {"metrics": ["bought"], "covariates": ["before"]}
    assert only(method="unpooled_z", **options) == only(**options)


# ---- a real table -------------------------------------------------------------------------------


def test_quantiles_of_the_rounds_in_cookie_cats(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("cookie_cats.csv")
    report = analyze(
        path, unit="userid", variant="version", control="gate_30",
        quantiles={"sum_gamerounds": [0.5, 0.9, 0.99]}, counts=["sum_gamerounds"],
    )  # fmt: skip
    frame = pd.read_csv(path)
    groups = [
        frame.sum_gamerounds[frame.version == v].to_numpy(float) for v in ("gate_30", "gate_40")
    ]
    count, *quantiles = report.results
    for item, q in zip(quantiles, (0.5, 0.9, 0.99), strict=True):
        difference, lower, upper = mover(*groups, q)
        assert item.estimate.difference == difference
        assert item.estimate.interval is not None
        assert (item.estimate.interval.lower, item.estimate.interval.upper) == pytest.approx(
            (lower, upper)
        )
    assert count.estimate.mean_control == pytest.approx(groups[0].mean())
    assert any(item.id == "overdispersed_counts" for item in report.checks)


def test_the_score_test_of_one_stratum_is_the_plain_one() -> None:

    pair = Moments.of_counts(70, 3), Moments.of_counts(90, 9)
    found, plain = stratified_score([pair], margin=-0.05), score_z(*pair, margin=-0.05)
    assert found.statistic == pytest.approx(plain.statistic, rel=1e-12)
    assert found.interval == plain.interval
