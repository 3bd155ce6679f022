"""The options of `analyze`: each gives what its statistic gives, and bad ones are named."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from abkit.analysis import Report, Result, analyze
from abkit.comoments import Comoments
from abkit.errors import ConfigError, DataError
from abkit.stats.bayes import beta_binomial
from abkit.stats.covariate import adjusted_difference
from abkit.stats.difference import welch_t
from abkit.stats.exact import exact_proportions
from abkit.stats.margin import non_inferiority
from abkit.stats.multiplicity import corrected
from abkit.stats.proportion import newcombe, score_z, two_proportions, unpooled_z
from abkit.stats.ratio import ratio_difference
from abkit.stats.winsor import WinsorRule
from abkit.store.table import Columns, open_table
from abkit.terminal import print_report

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

N = 1_200


def made() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    before = rng.normal(10, 3, N)
    views = rng.poisson(5, N) + 1
    frame = pd.DataFrame(
        {
            "user": np.arange(N),
            "arm": rng.choice(["a", "b"], N),
            "before": before,
            "visits": rng.poisson(before.clip(0)),
            "views": views,
            "clicks": rng.binomial(views, 0.3),
            "epoch": rng.choice([9, 10], N),
            "place": rng.choice(["app", "web", "tv"], N),
        }
    )
    frame["spend"] = 2 * before + rng.normal(0, 2, N) + 0.4 * (frame.arm == "b")
    frame["bought"] = (rng.random(N) < 0.2 + 0.12 * (frame.arm == "b")).astype(int)
    return frame


FRAME = made()


def run(frame: object = FRAME, **options: Any) -> Report:
    found = {"unit": "user", "variant": "arm", "control": "a"} | options
    return analyze(frame, **found)


def only(frame: object = FRAME, **options: Any) -> Result:
    (result,) = run(frame, **options).results
    return result


def arms(*names: str, frame: pd.DataFrame = FRAME) -> list[Comoments]:
    return [Comoments.of({n: frame[n][frame.arm == arm] for n in names}) for arm in "ab"]


def near(value: float | None, rel: float = 1e-9) -> object:
    return None if value is None else pytest.approx(value, rel=rel)


def same(found: Any, expected: Any) -> None:
    """Two estimates agree to rounding."""
    assert found.method == expected.method
    for name in ("mean_control", "mean_treatment", "difference", "standard_error", "p_value"):
        assert getattr(found, name) == near(getattr(expected, name)), name
    if expected.interval is not None:
        assert found.interval.lower == near(expected.interval.lower)
        assert found.interval.upper == near(expected.interval.upper)


# ---- each option is its statistic ---------------------------------------------------------------


def test_covariates_are_cuped() -> None:
    found = only(metrics=["spend"], covariates=["before", "visits"])
    expected = adjusted_difference(
        *arms("spend", "before", "visits"), metric="spend", covariates=["before", "visits"]
    )
    same(found.estimate, expected)
    assert found.estimate.variance_reduction == near(expected.variance_reduction)
    assert expected.variance_reduction is not None
    assert expected.variance_reduction > 0.8


def test_a_ratio_of_sums_is_compared_by_the_delta_method() -> None:
    found = only(ratios={"ctr": ("clicks", "views")})
    expected = ratio_difference(*arms("clicks", "views"), numerator="clicks", denominator="views")
    same(found.estimate, expected)
    assert (found.metric, found.kind) == ("ctr", "ratio")


def test_a_ratio_with_a_covariate() -> None:
    found = only(ratios={"ctr": ("clicks", "views")}, covariates=["visits"])
    same(
        found.estimate,
        adjusted_difference(
            *arms("clicks", "views", "visits"), metric=("clicks", "views"), covariates=["visits"]
        ),
    )


@pytest.mark.parametrize(
    ("method", "test"),
    [
        ("pooled_z", two_proportions),
        ("unpooled_z", unpooled_z),
        ("score_z", score_z),
        ("newcombe", newcombe),
        ("fisher", None),
    ],
)
def test_a_method_of_proportions(method: str, test: Callable[..., Any] | None) -> None:
    pair = [arm.moments("bought") for arm in arms("bought")]
    expected = exact_proportions(*pair, method="fisher") if test is None else test(*pair)
    same(only(metrics=["bought"], method=method).estimate, expected)


@pytest.mark.parametrize(("border", "better"), [(-0.5, True), (0.7, False)])
def test_a_margin_is_a_test_of_non_inferiority(border: float, better: bool) -> None:  # noqa: FBT001
    found = only(metrics=["spend"], margins={"spend": border}).estimate
    pair = [arm.moments("spend") for arm in arms("spend")]
    side = "greater" if better else "less"
    same(
        found,
        non_inferiority(
            welch_t(*pair, alternative=side), margin=abs(border), higher_is_better=better
        ),
    )
    assert found.margin == border


def test_a_margin_of_a_score_test_is_in_its_null() -> None:
    found = only(metrics=["bought"], margins={"bought": -0.02}, method="score_z").estimate
    pair = [arm.moments("bought") for arm in arms("bought")]
    same(found, score_z(*pair, margin=-0.02, alternative="greater"))


def test_winsorizing_takes_its_cap_from_control_alone() -> None:
    control, treatment = (FRAME.spend[FRAME.arm == arm] for arm in "ab")
    rule = WinsorRule.from_quantiles(control, upper=0.9, origin="control")
    expected = welch_t(rule.moments(control), rule.moments(treatment))
    report = run(metrics=["spend"], winsorize={"spend": 0.9})
    same(report.results[0].estimate, expected)
    (check,) = (item for item in report.checks if item.id == "winsorized")
    assert f"{rule.share_capped(treatment):.2%} of b" in check.text
    same(run(metrics=["spend"], winsorize={"spend": rule}).results[0].estimate, expected)


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 1_000])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9, 0.99, 0.999])
def test_a_quantile_is_that_of_numpy(n: int, level: float) -> None:
    values = np.random.default_rng(n).normal(size=n)
    frame = pd.DataFrame({"u": range(n), "v": "a", "x": values})
    with open_table(frame, Columns("u", "v", {"x": "metric"})) as table:
        found = table.quantiles({"x": level}, "a")["x"]
    assert found == np.quantile(values, level, method="inverted_cdf")


def test_bayes_adds_chance_to_beat_and_expected_loss() -> None:
    bought, spend = run(metrics=["bought", "spend"], bayes=True).results
    expected = beta_binomial(*(arm.moments("bought") for arm in arms("bought")))
    assert bought.posterior is not None
    assert bought.posterior.chance_to_beat == near(expected.chance_to_beat)
    assert bought.posterior.loss_treatment == near(expected.loss_treatment)
    assert spend.posterior is not None
    assert spend.posterior.method == "normal"
    assert spend.posterior.difference == near(spend.estimate.difference)


# ---- families of comparisons --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["holm", "hommel", "bh"])
def test_a_correction_corrects_p_values_and_intervals(method: Any) -> None:
    names = ["bought", "spend", "clicks"]
    plain = run(metrics=names).results
    expected = corrected([item.estimate.p_value for item in plain], method=method)
    found = run(metrics=names, correction=method).results
    assert [item.estimate.p_value for item in found] == list(expected.adjusted)
    assert [item.raw_p_value for item in found] == [item.estimate.p_value for item in plain]
    for item, level in zip(found, expected.interval_alpha, strict=True):
        assert item.correction == method
        if level is None:
            assert item.estimate.interval is None
            continue
        assert item.estimate.alpha == level
        (alone,) = run(metrics=[item.metric], alpha=level).results
        assert item.estimate.interval == alone.estimate.interval


def test_an_interval_that_is_no_multiple_of_a_standard_error_is_made_anew() -> None:
    found = run(metrics=["bought", "spend"], method="newcombe", correction="holm").results[0]
    pair = [arm.moments("bought") for arm in arms("bought")]
    assert found.estimate.interval == newcombe(*pair, alpha=0.025).interval
    assert found.estimate.p_value is None


def test_segments_are_corrected_over_their_number() -> None:
    report = run(metrics=["spend"], segments=["place"], missing="exclude")
    overall, *parts = report.results
    assert overall.segment is None
    assert overall.correction is None
    assert [item.segment for item in parts] == [("place", x) for x in ("app", "tv", "web")]
    raw = []
    for item in parts:
        assert item.segment is not None
        inside = FRAME[FRAME.place == item.segment[1]]
        pair = [arm.moments("spend") for arm in arms("spend", frame=inside)]
        same(only(inside, metrics=["spend"]).estimate, welch_t(*pair))
        assert item.estimate.difference == near(welch_t(*pair).difference)
        raw.append(welch_t(*pair).p_value)
    assert [x.raw_p_value for x in parts] == [near(p) for p in raw]
    expected = corrected(raw, method="holm").adjusted
    assert [x.estimate.p_value for x in parts] == [near(p) for p in expected]
    assert {x.estimate.alpha for x in parts} == {0.05 / 3}


def test_two_segment_columns_and_missing_values() -> None:
    frame = FRAME.assign(place=FRAME.place.where(FRAME.place != "tv", None))
    report = run(frame, metrics=["spend"], segments=["place", "epoch"])
    assert [item.segment for item in report.results] == [
        None,
        *[("place", x) for x in ("(missing)", "app", "web")],
        *[("epoch", x) for x in ("9", "10")],
    ]


# ---- ramps --------------------------------------------------------------------------------------


def ramp() -> pd.DataFrame:
    """5 % treatment at a low level, then 50 % at a high one; no effect at all."""
    rng = np.random.default_rng(3)
    epoch = np.repeat(["1", "2"], 4_000)
    arm = np.where(rng.random(8_000) < np.where(epoch == "1", 0.05, 0.5), "b", "a")
    before = rng.normal(size=8_000)
    spend = rng.normal(np.where(epoch == "1", 0.0, 5.0)) + before
    return pd.DataFrame(
        {"user": range(8_000), "arm": arm, "epoch": epoch, "spend": spend, "before": before}
    )


def test_a_ramp_misleads_unless_arms_are_compared_within_epochs() -> None:
    frame = ramp()
    naive = only(frame, metrics=["spend"]).estimate
    assert naive.interval is not None
    assert 0 not in naive.interval
    found = only(frame, metrics=["spend"], epoch="epoch")
    assert found.estimate.interval is not None
    assert 0 in found.estimate.interval
    assert found.estimate.method == "post_stratified"
    weights = [epoch.weight for epoch in found.epochs]
    assert sum(weights) == near(1.0)
    assert weights[0] < 0.2 < weights[1]
    better = only(frame, metrics=["spend"], epoch="epoch", covariates=["before"]).estimate
    assert better.method == "stratified_cuped"
    assert better.variance_reduction is not None
    assert 0.4 < better.variance_reduction < 0.6


def test_an_epoch_with_a_single_treated_unit_is_left_out() -> None:
    frame = ramp()
    first = (frame.epoch == "1") & (frame.arm == "b")
    frame = frame[~first | (first.cumsum() == 1)]
    found = only(frame, metrics=["spend"], epoch="epoch")
    assert (found.epochs[0].n_treatment, found.epochs[0].weight) == (1, 0.0)
    late = frame[frame.epoch == "2"]
    alone = only(late, metrics=["spend"]).estimate
    assert found.estimate.difference == near(alone.difference)
    assert found.estimate.p_value == near(alone.p_value)
    assert found.estimate.n_control == (frame.arm == "a").sum()
    assert "within 1 epochs" in run(frame, metrics=["spend"], epoch="epoch").explain()


def test_cuped_within_epochs_is_least_squares_with_an_intercept_for_each() -> None:
    import statsmodels.formula.api as smf

    frame = FRAME.assign(b=(FRAME.arm == "b").astype(float))
    found = only(metrics=["spend"], covariates=["before"], epoch="epoch").estimate
    fit = smf.ols("spend ~ b + C(epoch) + before", frame).fit(cov_type="HC1")
    assert found.difference == near(fit.params["b"], 1e-3)
    assert found.standard_error == near(fit.bse["b"], 2e-2)


def test_the_split_of_a_ramp_is_tested_against_the_shares_of_its_epochs() -> None:
    frame = ramp()
    assert run(frame, metrics=["spend"], epoch="epoch").srm is None
    weights = {"1": {"a": 19, "b": 1}, "2": {"a": 1, "b": 1}}
    good = run(frame, metrics=["spend"], epoch="epoch", weights=weights)
    assert good.srm is not None
    assert good.srm.status == "ok"
    bad = run(frame, metrics=["spend"], epoch="epoch", weights={"a": 1, "b": 1})
    assert bad.srm is not None
    assert bad.srm.status == "block"
    with pytest.raises(ConfigError, match="no mapping for the epoch '2'"):
        run(frame, metrics=["spend"], epoch="epoch", weights={"1": {"a": 19, "b": 1}})


# ---- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 1.7e9, -1.7e9])
def test_joint_moments_keep_their_digits_at_a_large_level(level: float) -> None:
    rng = np.random.default_rng(5)
    x = np.round(rng.normal(size=50_000), 6)
    frame = pd.DataFrame(
        {"user": range(50_000), "arm": "a", "x": x + level, "y": np.round(x, 2) - level}
    )
    pair = {"x": frame.x, "y": frame.y}
    with open_table(frame, Columns("user", "arm", dict.fromkeys(pair, "metric"))) as table:
        cells, _ = table.cells([("x", "y")])
    (found,) = cells["x", "y"].values()
    expected = Comoments.of(pair)
    assert found.means == pytest.approx(expected.means, rel=1e-15, abs=1e-15)
    for ours, theirs in zip(found.products, expected.products, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_one_query_reads_the_moments_whatever_the_number_of_metrics() -> None:
    asked: list[str] = []

    class Spy:
        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self.connection = connection

        def execute(self, query: str, *more: Any) -> Any:
            asked.append(query)
            return self.connection.execute(query, *more)

    connection = duckdb.connect()
    connection.register("frame", FRAME)
    connection.execute("CREATE TEMP TABLE data AS FROM frame")
    from abkit.store.cells import read_cells

    counts = []
    for names in (["spend"], ["spend", "clicks", "views", "bought", "visits"]):
        asked.clear()
        read_cells(
            Spy(connection),  # type: ignore[arg-type]
            variant="arm",
            epoch="epoch",
            segments=["place"],
            families=[(name, "before") for name in names],
            missing="error",
            caps={},
            parts={},
        )
        counts.append(len(asked))
        assert sum(len(re.findall(r"\bvar_pop", query)) for query in asked) == len(names) + 1
    assert counts[0] == counts[1]


def test_columns_may_have_the_names_that_the_query_uses() -> None:
    names = {"user": "v", "arm": "e", "spend": "c1", "before": "r0", "place": "c0", "epoch": "s0"}
    found = analyze(
        FRAME.rename(columns=names),
        unit="v",
        variant="e",
        control="a",
        metrics=["c1"],
        covariates=["r0"],
        segments=["c0"],
        epoch="s0",
    )
    expected = run(metrics=["spend"], covariates=["before"], segments=["place"], epoch="epoch")
    for ours, theirs in zip(found.results, expected.results, strict=True):
        same(ours.estimate, theirs.estimate)


def test_units_that_lack_a_covariate_are_left_out_of_the_metric_too() -> None:
    frame = FRAME.assign(before=FRAME.before.where(FRAME.index % 10 > 0))
    with pytest.raises(DataError, match="covariate 'before' is missing or NaN in 120 rows"):
        run(frame, metrics=["spend"], covariates=["before"])
    found = only(frame, metrics=["spend"], covariates=["before"], missing="exclude").estimate
    kept = frame.dropna()
    same(found, only(kept, metrics=["spend"], covariates=["before"]).estimate)
    zero = only(frame, metrics=["spend"], covariates=["before"], missing="zero").estimate
    same(zero, only(frame.fillna(0), metrics=["spend"], covariates=["before"]).estimate)


# ---- forms of the report ------------------------------------------------------------------------


def everything() -> Report:
    return run(
        metrics=["spend", "bought"],
        ratios={"ctr": ("clicks", "views")},
        covariates=["before"],
        margins={"bought": -0.05},
        winsorize={"spend": 0.99},
        segments=["place"],
        epoch="epoch",
        correction="holm",
        bayes=True,
        weights={"a": 1, "b": 1},
    )


def test_every_form_of_the_report_carries_the_options() -> None:
    report = everything()
    row = report.to_dict()["results"][-1]
    assert row["segment"] == {"column": "place", "value": "web"}
    assert [epoch["epoch"] for epoch in row["epochs"]] == ["9", "10"]
    assert row["correction"]["method"] == "holm"
    assert {"variance_reduction", "bayes"} <= row.keys()
    assert "NaN" not in report.to_json()
    frame = report.to_pandas()
    assert len(frame) == 3 + 9
    assert {"segment_value", "raw_p_value", "variance_reduction", "chance_to_beat"} <= set(frame)
    page = report._repr_html_()
    assert page.count("<table>") == 2
    assert "place=web" in page


def printed(report: Report, width: int) -> str:
    file = io.StringIO()
    print_report(report, Console(file=file, width=width))
    return file.getvalue()


def test_the_terminal_shows_segments_weights_and_what_bayes_says() -> None:
    out = printed(everything(), 100)
    for word in ("place=tv", "weights of the epochs 9:", "chance to beat a", "corrected", "holm"):
        assert word in out


@pytest.mark.parametrize("width", [40, 80, 120])
def test_long_and_odd_variant_names_do_not_break_the_table(width: int) -> None:
    names = ["ranker-" + "x" * 80 + end for end in ("-one", "-two", "-[red]three")]
    frame = FRAME.assign(arm=np.array(names)[np.arange(N) % 3])
    report = run(frame, control=names[0], metrics=["spend", "bought"])
    out = printed(report, width)
    assert max(map(len, out.splitlines())) <= width
    for item in report.results:
        assert item.estimate.p_value is not None
        assert f"{item.estimate.p_value:.3g}" in out  # no number is cut off
    assert "[red]three" in out.replace("\n", "")


# ---- plain words --------------------------------------------------------------------------------


def test_the_words_say_what_is_known_and_how_well() -> None:
    words = run(metrics=["bought"]).explain()
    assert words.startswith("1,200 units were compared: ")
    assert "The split fits what was intended." in words
    assert "bought, b against a: +" in words
    assert " pp (" in words
    assert "With 95 % confidence" in words
    assert "Decide by whether a difference matters to you" in words
    assert "one look that was planned beforehand" in words


def test_the_words_do_not_take_silence_for_equality() -> None:
    words = run(metrics=["clicks"]).explain()
    assert "chance alone can explain it" in words
    assert "does not show that there is no difference" in words


def test_the_words_of_a_result_that_is_not_selected() -> None:
    words = run(metrics=["bought", "clicks"], correction="bh").explain()
    assert "It does not stand out" in words
    assert "the expected share of false claims is at most 0.05" in words


def test_the_words_stop_at_a_broken_split() -> None:
    words = run(metrics=["bought"], weights={"a": 2, "b": 1}).explain()
    assert "Do not decide on this report" in words
    assert "matters to you" not in words


def test_the_words_of_margins_covariates_and_segments() -> None:
    words = everything().explain()
    for part in (
        "That it is above −5.00 pp is shown",
        "b can replace a",
        "of the variance",
        "within 2 epochs",
        "By place, 9 comparisons were made",
        "corrected for their number (holm)",
    ):
        assert part in words


@pytest.mark.parametrize(
    ("metric", "options", "word"),
    [
        ("flat", {}, "all values are the same"),
        ("spend", {"covariates": ["flat"]}, "leave it out"),
        ("bought", {"method": "boschloo"}, "leave the method out"),
    ],
)
def test_the_words_say_why_there_is_no_answer(
    metric: str, options: dict[str, Any], word: str
) -> None:
    report = run(FRAME.assign(flat=2.0), metrics=[metric], **options)
    assert word in report.explain()
    report.to_json()
    assert report.results[0].estimate.status in printed(report, 100)


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": "spend"}, r"metrics must be a list of columns.*'spend'.*\['spend'\]"),
        ({"metrics": ["spend"], "covariates": "before"}, "covariates must be a list"),
        ({"metrics": ["spend"], "segments": "place"}, "segments must be a list"),
        ({"metrics": [1]}, "must be texts, got 1"),
        ({"metrics": 3}, "must be a list of columns, got 3"),
        ({}, "no metrics"),
        ({"metrics": ["spend"], "covariates": ["spend"]}, "'spend' is a metric too"),
        ({"metrics": ["spend"], "covariates": ["before", "before"]}, "named twice"),
        ({"metrics": ["spend"], "segments": ["place", "place"]}, "segment is named twice"),
        ({"ratios": {"ctr": "clicks/views"}}, "needs a pair of columns"),
        ({"ratios": {"ctr": ("clicks", "clicks")}}, "needs a pair of columns"),
        ({"ratios": ["clicks"]}, "ratios must be a mapping"),
        ({"metrics": ["spend"], "ratios": {"spend": ("clicks", "views")}}, "name of a metric"),
        ({"metrics": ["spend"], "margins": {"spent": 1}}, "did you mean 'spend'"),
        ({"metrics": ["spend"], "margins": {"spend": 0}}, "other than 0, got 0"),
        ({"metrics": ["bought"], "margins": {"bought": 1}, "method": "fisher"}, "no margin"),
        ({"metrics": ["bought"], "method": "chi2"}, "method must be one of"),
        ({"metrics": ["bought"], "method": "fisher", "epoch": "epoch"}, "leave it out"),
        ({"metrics": ["spend"], "correction": "bonferroni"}, "correction must be one of"),
        ({"metrics": ["spend"], "winsorize": {"spend": 99}}, "strictly between 0 and 1, got 99"),
        ({"metrics": ["spend"], "winsorize": {"clicks": 0.9}}, "winsorize of no column 'clicks'"),
        ({"metrics": ["bought"], "winsorize": {"bought": 0.9}}, "nothing to winsorize"),
        ({"metrics": ["spend"], "weights": {"9": {"a": 1, "b": 1}}}, "need the column of the"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(**options)


def odd() -> pa.Table:
    table = duckdb.sql(
        "SELECT range AS u, CASE WHEN range % 2 = 0 THEN 'a' ELSE 'b' END AS arm, "
        "map {'x': 1} AS m, {'x': 1} AS s, [1, 2] AS l, (range % 2)::VARCHAR AS t, "
        "INTERVAL 1 DAY AS d, range::DOUBLE AS x FROM range(10)"
    )
    return table.to_arrow_table()


@pytest.mark.parametrize("name", ["m", "s", "l", "t", "d"])
def test_a_column_that_holds_no_numbers_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"metric '{name}' holds .*, not numbers"):
        analyze(odd(), unit="u", variant="arm", control="a", metrics=[name])


def test_categories_are_no_numbers_but_may_be_variants() -> None:
    frame = FRAME.assign(kind=pd.Categorical(FRAME.bought.astype(str)), arm=FRAME.arm)
    with pytest.raises(DataError, match=r"metric 'kind' holds ENUM.*cast the categories"):
        run(frame, metrics=["kind"])
    frame["arm"] = pd.Categorical(FRAME.arm)
    same(only(frame, metrics=["spend"]).estimate, only(metrics=["spend"]).estimate)


@pytest.mark.parametrize("part", ["unit", "variant", "segments", "epoch"])
def test_a_nested_column_is_no_label(part: str) -> None:
    options: dict[str, Any] = {"unit": "u", "variant": "arm", "control": "a", "metrics": ["x"]}
    options[part] = ["m"] if part == "segments" else "m"
    with pytest.raises(DataError, match=r"'m' holds MAP.*plain text or numbers"):
        analyze(odd(), **options)


def test_an_identifier_is_no_segment() -> None:
    frame = FRAME.assign(session=FRAME.user)
    with pytest.raises(DataError, match="'session' has 1,200 values, more than 200"):
        run(frame, metrics=["spend"], segments=["session"])


def test_an_epoch_must_be_there_for_every_row() -> None:
    frame = FRAME.assign(epoch=FRAME.epoch.where(FRAME.index > 2))
    with pytest.raises(DataError, match="epoch 'epoch' is empty in 3 rows"):
        run(frame, metrics=["spend"], epoch="epoch")


def test_values_that_are_too_large_for_their_squares_are_named() -> None:
    frame = FRAME.assign(spend=np.where(FRAME.index % 2, 1e200, -1e200))
    with pytest.raises(DataError, match="'spend' are too large for their squares"):
        run(frame, metrics=["spend"])


def test_a_covariate_that_the_treatment_moves_is_reported() -> None:
    frame = FRAME.assign(before=FRAME.before + 3 * (FRAME.arm == "b"))
    (check,) = (
        item
        for item in run(frame, metrics=["spend"], covariates=["before"]).checks
        if item.id == "covariate_imbalance"
    )
    assert check.severity == "warn"
    assert "'before'" in check.text


def test_an_arm_without_units_in_a_segment_has_no_answer_there() -> None:
    frame = FRAME.assign(place=FRAME.place.where(FRAME.arm == "a", "web"))
    parts = run(frame, metrics=["spend"], segments=["place"]).results[1:]
    assert [item.estimate.status for item in parts] == ["insufficient_data"] * 2 + ["ok"]
    assert parts[2].estimate.p_value == near(min(1.0, 3 * (parts[2].raw_p_value or 0)))
    assert parts[0].estimate.n_treatment == 0
