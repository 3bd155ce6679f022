"""Figures of reports say the conclusion, and mark the look that decided."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from abkit.analysis import Report, analyze, analyze_moments
from abkit.errors import DataError
from abkit.plots import PALETTES

if TYPE_CHECKING:
    import plotly.graph_objects as go

N = 6_000


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"user": range(N), "arm": rng.choice(["old", "new"], N)})
    frame["at"] = pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(N), unit="m")
    frame["spend"] = rng.normal(10, 2, N) + 0.4 * (frame.arm == "new")
    frame["bought"] = (rng.random(N) < 0.2).astype(int)
    frame["place"] = np.resize(["app", "app", "web"], N)
    return frame


def run(frame: pd.DataFrame, **options: Any) -> Report:
    asked = {"unit": "user", "variant": "arm", "control": "old", "metrics": ["spend", "bought"]}
    return analyze(frame, **(asked | options))


def words(figure: go.Figure) -> str:
    return json.dumps(figure.to_plotly_json(), default=str, ensure_ascii=False)


def test_one_look_is_a_line_for_each_comparison(frame: pd.DataFrame) -> None:
    report = run(frame)
    figure = report.plot()
    assert "1 of 2 comparisons shows a difference: spend" in figure.layout.title.text
    spend, bought = report.results
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert spend.estimate.interval is not None
    assert bought.estimate.interval is not None
    assert list(lines[0].x) == [spend.estimate.interval.lower, spend.estimate.interval.upper]
    assert lines[1].x[0] == pytest.approx(100 * bought.estimate.interval.lower)  # in points
    assert lines[0].line.color == PALETTES["light"].good
    assert lines[1].line.color == PALETTES["light"].muted


def test_one_metric_is_its_own_conclusion(frame: pd.DataFrame) -> None:
    assert "spend is higher in new: +0." in run(frame).plot("spend").layout.title.text
    title = run(frame).plot("bought", theme="dark").layout.title.text
    assert "bought: no difference is shown" in title


def test_looks_are_drawn_with_the_one_that_decided(frame: pd.DataFrame) -> None:
    report = run(frame, time="at", looks=12, design="calibrated", planned_units=N)
    result = report.results[0]
    assert result.stopped is not None
    figure = report.plot("spend")
    assert "spend is higher in new" in figure.layout.title.text
    assert "design calibrated" in figure.layout.title.text
    said = words(figure)
    assert f"null rejected at look {result.stopped.number}" in said
    lower = next(trace for trace in figure.data if trace.name == "lower")
    shown = [k.look.interval.lower for k in result.looks if k.look.interval is not None]
    assert list(lower.y)[-3:] == shown[-3:]
    (ring,) = (trace for trace in figure.data if trace.name == "decision")
    assert ring.x[0] == f"{result.stopped.time:%Y-%m-%d %H:%M:%S.%f}"
    assert ring.y[0] == result.stopped.look.estimate


def test_a_series_of_several_metrics_needs_one_to_be_named(frame: pd.DataFrame) -> None:
    report = run(frame, time="at", looks=4, design="always-valid", planned_units=N)
    assert "comparisons" in report.plot().layout.title.text
    with pytest.raises(DataError, match="no metric 'spent'; did you mean 'spend'"):
        report.plot("spent")
    with pytest.raises(DataError, match="no treatment 'newer'"):
        report.plot(variant="newer")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alternative": "greater"},
        {"margins": {"bought": -0.05}},
        {"method": "fisher"},
        {"segments": ["place"]},
        {"time": "at", "looks": 3, "design": "fixed"},
        {"time": "at", "looks": 3, "design": "fixed", "planned_units": 9_999},
        {"time": "at", "looks": 6, "design": "pocock", "alternative": "less"},
        {"time": "at", "looks": 6, "design": "hypergeometric", "metrics": ["bought"]},
        {"time": "at", "looks": 6, "design": "msprt:1", "metrics": ["bought"]},
    ],
)
def test_every_report_has_a_figure(
    frame: pd.DataFrame, theme: Any, options: dict[str, Any]
) -> None:
    report = run(frame, **options)
    for metric in (None, "bought"):
        figure = report.plot(metric, theme=theme)
        assert figure.layout.title.text
        assert "NaN" not in words(figure)


def test_degenerate_results_are_drawn_as_words(frame: pd.DataFrame) -> None:
    constant = frame.assign(spend=1.0)
    assert "no answer" in words(run(constant).plot())
    assert "no answer yet" in run(constant).plot("spend").layout.title.text
    looks: dict[str, Any] = {"time": "at", "looks": 5, "design": "always-valid", "planned_units": N}
    assert "no answer yet" in run(constant, **looks).plot("spend").layout.title.text
    empty = pd.DataFrame({"variant": ["a", "b"] * 2, "metric": "x", "time": [1, 1, 2, 2]})
    report = analyze_moments(empty.assign(n=0, mean=0.0, variance=0.0), control="a")[""]
    assert "nothing to compare yet" in report.plot("x").layout.title.text


def test_a_failed_check_stands_in_the_title(frame: pd.DataFrame) -> None:
    figure = run(frame, weights={"old": 9, "new": 1}).plot()
    assert "Do not decide on this: sample ratio mismatch" in figure.layout.title.text


def test_names_from_data_are_inert(frame: pd.DataFrame) -> None:
    name = "<a href='https://evil.example'>x</a>"
    report = run(frame.rename(columns={"spend": name}), metrics=[name])
    assert "<a href" not in words(report.plot())
