"""Reports as people read them: decimals, what a design says, notebooks, options that clash."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from abkit.analysis import Report, analyze
from abkit.analysis.display import caption, span, table_rows
from abkit.cli import main
from abkit.errors import ConfigError, DataError
from abkit.estimate import Interval
from abkit.planning import plan
from abkit.store.rows import open_rows

if TYPE_CHECKING:
    from pathlib import Path

UNITS = 2_000
ROLES: dict[str, Any] = {"unit": "user", "variant": "arm", "control": "old"}


@pytest.fixture(scope="module", name="frame")
def made() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"user": range(UNITS), "arm": ["old", "new"] * (UNITS // 2)})
    frame["spend"] = rng.normal(20, 4, UNITS) + 0.2 * (frame.arm == "new")
    frame["bought"] = rng.random(UNITS) < np.where(frame.arm == "new", 0.28, 0.24)
    frame["place"] = rng.choice(["app", "web"], UNITS)
    frame["at"] = 1_000_000.0 + np.arange(UNITS)
    return frame


def shown(report: Report) -> dict[str, str]:
    names = ("metric", "variant", "control", "treatment", "difference", "interval", "lift", "p")
    return dict(zip(names, table_rows(report)[0], strict=True))


@pytest.mark.parametrize(
    ("interval", "scale", "text"),
    [
        (Interval(-0.0124, 0.00058), 100, "−1.24 to +0.06"),
        (Interval(-0.00046, 0.00071), 1, "−0.00046 to +0.00071"),
        (Interval(-0.0125, float("inf")), 100, "−1.25 to +∞"),
        (Interval(-1.5e-9, 2e-9), 1, "−1.50e−09 to +2.00e−09"),
        (Interval(0.0, 0.0), 1, "+0.00 to +0.00"),
    ],
)
def test_both_ends_of_an_interval_have_as_many_decimals(
    interval: Interval, scale: float, text: str
) -> None:
    assert span(interval, scale) == text


def test_means_have_the_decimals_that_tell_them_apart(frame: pd.DataFrame) -> None:
    small = frame.assign(spend=0.22 + frame.spend / 1e4)
    row = shown(analyze(small, metrics=["spend"], **ROLES))
    decimals = {len(row[name].partition(".")[2]) for name in ("control", "treatment", "difference")}
    assert decimals == {6}
    assert row["control"] != row["treatment"]


def test_rates_have_the_decimals_of_their_lift(frame: pd.DataFrame) -> None:
    events = frame.assign(clicks=np.resize([2, 3, 4, 2, 1], UNITS))
    row = shown(analyze(events, counts=["clicks"], **ROLES))
    assert row["difference"] == "+0.00"
    assert "% rel." in row["interval"]


def test_a_design_says_that_it_speaks_before_the_correction(frame: pd.DataFrame) -> None:
    report = analyze(
        frame,
        metrics=["spend", "bought"],
        design="msprt:0.001",
        correction="ebh",
        **ROLES,
    )
    words = report.explain()
    assert "By the design msprt:0.001 alone, before the correction, " in words


def test_a_look_at_a_number_says_it_whole(frame: pd.DataFrame) -> None:
    report = analyze(frame, metrics=["spend"], time="at", looks=2, design="fixed", **ROLES)
    look = report.results[0].looks[-1]
    assert look.words == "look 2 (time 1,001,999, 2,000 units)"


def test_nobody_is_told_to_go_on_once_the_plan_is_over(frame: pd.DataFrame) -> None:
    same = frame.assign(spend=frame.spend - 0.2 * (frame.arm == "new"))
    report = analyze(same, metrics=["spend"], time="at", looks=3, design="obf", **ROLES)
    words = report.explain()
    assert "the null is not rejected after 3 looks" in words
    assert "go on while the plan has looks left" not in words
    early = analyze(
        same,
        metrics=["spend"],
        time="at",
        looks=3,
        design="obf",
        planned_units=2 * UNITS,
        **ROLES,
    )
    assert "go on while the plan has looks left" in early.explain()


def test_one_sided_tests_are_worded_by_their_side(frame: pd.DataFrame) -> None:
    report = analyze(frame, metrics=["bought"], alternative="less", **ROLES)
    words = report.explain()
    assert "That it is below zero is not shown (p = " in words
    assert "if one at the end of the interval would matter" in words
    assert caption(report).startswith("intervals at 95 %, one-sided (less); ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "arm"}, "'arm' is named as both unit and variant"),
        ({"segments": ["arm"]}, "'arm' is the column of the variant, so it can be no segment"),
        ({"epoch": "arm"}, "'arm' is the column of the variant, so it can be no epoch"),
        ({"cluster": "arm"}, "'arm' is the column of the variant, so it can be no cluster"),
        ({"segments": ["user"]}, "'user' is the column of the unit, so it can be no segment"),
        ({"covariates": ["user"]}, "'user' is the column of the unit, so it can be no covariate"),
        ({"metrics": ["user"]}, "'user' is the column of the unit, so it can be no metric"),
        ({"segments": ["bought"]}, "the segment 'bought' is a metric too"),
        ({"max_information": 2.0}, r"max_information \(--max-information\) needs a design"),
        ({"spacing": "time"}, r"spacing \(--spacing\) needs a design"),
        (
            {"quantiles": {"spend": 0.5}, "bayes": True},
            "the quantile 'spend p50' does not go with bayes",
        ),
    ],
)
def test_columns_and_options_that_clash_are_refused(
    frame: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        analyze(frame, **{"metrics": ["bought"], **ROLES, **options})


def test_a_notebook_draws_every_interval_beside_its_numbers(frame: pd.DataFrame) -> None:
    report = analyze(
        frame,
        metrics=["spend", "bought"],
        segments=["place"],
        margins={"bought": -0.02},
        weights={"old": 1, "new": 3},
        **ROLES,
    )
    page = report._repr_html_()
    assert page.count("<svg") == 6
    assert "<script" not in page
    assert page.index("block: ") < page.index("<table")
    assert "stroke-dasharray" in page  # the margin
    assert "intervals at 95 %, two-sided or one-sided (greater)" in page
    places = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([-0-9.]+)"', page)]
    assert all(0 <= place <= 180 for place in places)


def test_a_notebook_draws_nothing_without_an_answer(frame: pd.DataFrame) -> None:
    page = analyze(frame.iloc[:2].assign(spend=1.0), metrics=["spend"], **ROLES)._repr_html_()
    assert "NaN" not in page
    empty = frame.assign(spend=np.nan)
    page = analyze(empty, metrics=["spend"], missing="exclude", **ROLES)._repr_html_()
    assert "<svg" not in page


def test_a_share_of_nothing_is_explained(frame: pd.DataFrame) -> None:
    below = frame.assign(spend=-frame.spend)
    words = analyze(below, metrics=["spend"], margins={"spend": "-2%"}, **ROLES).explain()
    assert "no answer, because control's mean is not above zero" in words


def test_one_row_is_no_rows(frame: pd.DataFrame) -> None:
    lone = frame.assign(spend=[None, *frame.spend[1:]])
    with pytest.raises(DataError, match=r"missing or NaN in 1 row \(old: 1\)"):
        analyze(lone, metrics=["spend"], **ROLES)
    twice = pd.concat([frame, frame.iloc[:1]])
    report = analyze(twice, metrics=["spend"], **ROLES)
    assert any(check.text.startswith("1 unit in more than one row") for check in report.checks)


@pytest.mark.parametrize(
    ("values", "what"), [("x", r"text \(VARCHAR\)"), (None, "no value at all")]
)
def test_a_column_without_numbers_is_named_for_people(
    frame: pd.DataFrame, values: object, what: str
) -> None:
    odd = frame.assign(spend=values).astype({"spend": object})
    with pytest.raises(DataError, match=f"metric 'spend' holds {what}, not numbers"):
        analyze(odd, metrics=["spend"], **ROLES)
    with (
        pytest.raises(DataError, match=f"metric 'spend' holds {what}, not numbers"),
        open_rows(odd, labels={"unit": "user"}, numbers={"metric": "spend"}),
    ):
        pass


def test_a_plan_without_hope_is_not_recommended() -> None:
    words = plan(baseline=0.1, lift=0.05, units=1_000).recommendation
    assert words.startswith("Too few: 1,000 units find +5 % (+0.5 pp) with probability 0.0")
    assert "with probability 0.045 at most. Take more units" in words  # that of the fixed design


def test_a_plan_names_the_design_that_stops_sooner_and_its_price() -> None:
    report = plan(baseline=0.1, lift=0.05, units_per_day=100_000)
    assert "Take 'group-sequential': at most 118,382 units (2 days)" in report.recommendation
    assert "Sooner where there is an effect is 'calibrated', after 88," in report.recommendation
    assert "(1 day)" in plan(baseline=0.1, lift=0.3, units_per_day=1e6).recommendation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sd", "30", "--lift", "5%"], "a lift needs the baseline that it is a share of"),
        (["--sd", "30", "--baseline", "0", "--lift", "5%"], "there is no lift of the baseline 0.0"),
    ],
)
def test_a_plan_says_what_a_lift_lacks(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *options]) == 2
    assert message in capsys.readouterr().err


def test_analyze_takes_percentages_and_refuses_negative_looks(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    roles = ["--unit", "user", "--variant", "arm", "--control", "old", "--metric", "spend"]
    assert main(["analyze", str(path), *roles, "--alpha", "10%"]) == 0
    assert "intervals at 90 %" in capsys.readouterr().out
    looks = ["--time", "at", "--looks", "-3", "--design", "fixed"]
    assert main(["analyze", str(path), *roles, *looks]) == 2
    assert "looks must be a whole number >= 1, got -3" in capsys.readouterr().err
    moments = ["analyze", str(path), "--from-moments", "--control", "old"]
    assert main([*moments, "--unit", "user"]) == 2
    assert "--unit needs a table of units" in capsys.readouterr().err
    assert main([*moments, "--method", "fisher"]) == 2
    assert "--method needs a table of units" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1.0, 1e-7, 1e-13, 1e-200])
def test_an_axis_has_ticks_at_any_size(frame: pd.DataFrame, size: float) -> None:
    report = analyze(frame.assign(spend=frame.spend * size), metrics=["spend"], **ROLES)
    ticks = report.plot().layout.xaxis
    assert len(set(ticks.tickvals)) == len(set(ticks.ticktext)) >= 4
    assert max(map(len, ticks.ticktext)) < 12


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_figure_brings_its_own_page(frame: pd.DataFrame, theme: Any) -> None:
    report = analyze(
        frame, metrics=["spend"], time="at", looks=3, design="msprt:0.1", segments=(), **ROLES
    )
    both = analyze(frame, metrics=["spend", "bought"], **ROLES)
    planned = plan(baseline=0.1, lift=0.2, designs=["fixed"])
    pages = {
        figure.layout.paper_bgcolor
        for figure in (report.plot(theme=theme), both.plot(theme=theme), planned.plot(theme=theme))
    }
    assert pages == {"#FFFFFF" if theme == "light" else "#10151B"}


def test_a_metric_may_have_the_name_of_a_variant(frame: pd.DataFrame) -> None:
    three = frame.assign(new=frame.spend, arm=np.resize(["old", "new", "next"], UNITS))
    texts = [
        note.text for note in analyze(three, metrics=["new"], **ROLES).plot().layout.annotations
    ]
    assert "<b>new</b><br>new" in texts


def test_a_margin_that_is_not_shown_is_no_missing_difference(frame: pd.DataFrame) -> None:
    report = analyze(frame, metrics=["spend"], margins={"spend": 0.01}, **ROLES)
    assert "spend: not shown to be below its margin" in report.plot().layout.title.text
    both = analyze(
        frame, metrics=["spend", "bought"], margins={"spend": 0.01, "bought": 0.001}, **ROLES
    )
    assert "None of 2 comparisons shows what was asked" in both.plot().layout.title.text


def test_a_ratio_cannot_fall_by_more_than_all(frame: pd.DataFrame) -> None:
    rare = frame.assign(bought=frame.spend > 28)
    report = analyze(rare, metrics=["bought"], time="at", looks=4, design="hypergeometric", **ROLES)
    low, high = report.plot().layout.yaxis.range
    assert high > 0 > low > -100 - 0.06 * (high + 100)
