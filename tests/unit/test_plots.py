"""Figures say what was decided, on which numbers, against which lines."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from abkit import plots
from abkit.controller import decision_record
from abkit.decision import Guardrail, Objective, Policy
from abkit.errors import DataError
from abkit.judge import JudgeState, judge
from abkit.machine import advance, halt, start
from abkit.metrics import Metric
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Rollout, Stage

if TYPE_CHECKING:
    import plotly.graph_objects as go

Records = list[dict[str, Any]]


def story(rate: float, *, base: float = 0.3, units: int = 200) -> tuple[Rollout, Records]:
    """Looks at an even canary through the real judge."""
    rollout = start(
        Rollout.plan(
            "r",
            experiment="ranker",
            control="old",
            treatment="new",
            salt="s",
            stages=(Stage(name="50 %", share=0.5, min_units=100_000),),
        ),
        now=1_700_000_000.0,
        epoch=1,
    )
    random = np.random.default_rng(1)
    state, records = JudgeState(), []
    bad = np.zeros(2, dtype=int)
    for look in range(1, 31):
        bad += random.binomial(units, [base, rate])
        cells = {
            name: Moments.of_counts(units * look, int(x))
            for name, x in zip(("old", "new"), bad, strict=True)
        }
        now = 1_700_000_000.0 + 60 * look
        exposures = {1: {"old": units * look, "new": units * look}}
        seen = Observation(now, exposures, {"error": {1: cells}})
        decision, state = judge(rollout, state, seen)
        moved = advance(rollout, decision, now=now)
        record = decision_record(rollout, moved, decision, seen, look=look, watermark={})
        records.append(json.loads(json.dumps(record)))
        rollout = moved
        if not rollout.live:
            break
    return rollout, records


@pytest.fixture(scope="module")
def halted() -> tuple[Rollout, Records]:
    rollout, records = story(0.45)
    assert rollout.state == "halted"
    return rollout, records


@pytest.fixture(scope="module")
def undecided() -> tuple[Rollout, Records]:
    rollout, records = story(0.3)
    assert rollout.state == "canary"
    return rollout, records


def words(figure: go.Figure) -> str:
    return json.dumps(figure.to_plotly_json(), default=str, ensure_ascii=False)


def test_the_title_of_a_halted_comparison_is_its_conclusion(
    halted: tuple[Rollout, Records],
) -> None:
    rollout, records = halted
    figure = plots.comparison_over_time(records, "error", rollout=rollout, theme="light")
    assert "error is worse" in figure.layout.title.text
    assert "halted" in words(figure)


def test_the_evidence_stands_against_its_thresholds(halted: tuple[Rollout, Records]) -> None:
    rollout, records = halted
    figure = plots.evidence_over_time(records, "error", rollout=rollout, theme="light")
    assert "halts at 100" in words(figure)
    assert "safe at 20" in words(figure)


def test_colour_begins_at_the_decision(
    halted: tuple[Rollout, Records], undecided: tuple[Rollout, Records]
) -> None:
    vermilion = "#C2410C"
    for (rollout, records), coloured in ((halted, True), (undecided, False)):
        figure = plots.comparison_over_time(records, "error", rollout=rollout, theme="light")
        assert (vermilion in words(figure).upper()) is coloured


def test_dark_and_light_differ_in_colour_alone(halted: tuple[Rollout, Records]) -> None:
    rollout, records = halted
    light, dark = (
        plots.comparison_over_time(records, "error", rollout=rollout, theme=theme)
        for theme in ("light", "dark")
    )
    assert light.layout.title.text.count("error") == dark.layout.title.text.count("error")
    assert "#FB923C" in words(dark).upper()
    assert "#FB923C" not in words(light).upper()


def test_the_axis_is_clipped_to_where_the_decision_falls(
    undecided: tuple[Rollout, Records],
) -> None:
    rollout, records = undecided
    figure = plots.comparison_over_time(records, "error", rollout=rollout, theme="light")
    last = records[-1]["evidence"][0]
    half = (last["upper"] - last["lower"]) / 2
    low, high = figure.layout.yaxis.range
    assert low <= last["lower"]
    assert high >= last["upper"]
    assert (high - low) / 2 < 5.5 * half * (100 if high > 1 else 1)


def test_text_from_data_cannot_become_markup(halted: tuple[Rollout, Records]) -> None:
    rollout, records = halted
    forged = json.loads(json.dumps(records))
    for record in forged:
        record["stage"] = "<b>x</b>"
        record["treatment"] = "<a href='https://evil.example'>new</a>"
    figure = plots.comparison_over_time(forged, "error", rollout=rollout, theme="light")
    assert "<a href" not in words(figure)


def test_an_early_halt_without_an_interval_still_says_what_happened() -> None:
    rollout, records = story(0.3, base=0.05, units=100)
    assert rollout.state == "halted"
    assert records[-1]["evidence"][0]["lower"] is None
    figure = plots.comparison_over_time(records, "error", rollout=rollout, theme="light")
    assert "error is worse" in figure.layout.title.text
    assert "too few events" in figure.layout.title.text


@pytest.fixture(scope="module")
def promoted() -> tuple[Rollout, Records]:
    """A rollout with a margin, a limit and a logarithm, through the real judge."""
    metrics = (
        Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude"),
        Metric(key="failed", kind="proportion", direction="decrease", missing="exclude"),
        Metric(key="latency", direction="decrease", unit_of_measure="<b>ms</b>", log=True),
    )
    policy = Policy(
        guardrails=(
            Guardrail(metric="wrong", test="difference", margin=0.02),
            Guardrail(metric="failed", test="limit", limit=0.01),
        ),
        objectives=(Objective(metric="latency"),),
    )
    rollout = start(
        Rollout.plan(
            "r",
            experiment="model",
            control="a-teacher-with-a-name-that-is-longer-than-a-line",
            treatment="student",
            metrics=metrics,
            policy=policy,
            stages=(Stage(name="50 %", share=0.5, min_units=100),),
        ),
        now=1_700_000_000.0,
        epoch=1,
    )
    state, records = JudgeState(), []
    for look in range(1, 400):
        n = 100 * look
        arms = (rollout.control, "student")
        values = {
            "wrong": {name: Moments.of_counts(n, n // 5) for name in arms},
            "failed": {"student": Moments.of_counts(n, 0)},
            "latency": {
                name: Moments(n, mean, 0.2 * n)
                for name, mean in zip(arms, (0.0, -1.2), strict=True)
            },
        }
        seen = Observation(
            1_700_000_000.0 + 60 * look,
            {1: dict.fromkeys(arms, n)},
            {metric: {1: cells} for metric, cells in values.items()},
        )
        decision, state = judge(rollout, state, seen)
        moved = advance(rollout, decision, now=seen.time)
        record = decision_record(rollout, moved, decision, seen, look=look, watermark={})
        records.append(json.loads(json.dumps(record)))
        rollout = moved
        if not rollout.live:
            break
    assert rollout.state == "promoted"
    return rollout, records


def test_zero_is_solid_and_the_margin_dashed(promoted: tuple[Rollout, Records]) -> None:
    rollout, records = promoted
    figure = plots.comparison_over_time(records, "wrong", rollout=rollout)
    across = {shape.y0: shape.line.dash for shape in figure.layout.shapes if shape.xref == "paper"}
    assert across == {0.0: "solid", 2.0: "dash"}
    assert "margin +2.0 pp" in words(figure)


def test_a_promotion_is_a_ring_and_a_halt_a_diamond(
    promoted: tuple[Rollout, Records], halted: tuple[Rollout, Records]
) -> None:
    for (rollout, records), metric, symbol in (
        (promoted, "wrong", "circle-open"),
        (halted, "error", "diamond"),
    ):
        figure = plots.comparison_over_time(records, metric, rollout=rollout)
        marks = [trace for trace in figure.data if trace.mode == "markers"]
        assert marks[-1].marker.symbol == symbol


def test_a_halt_by_hand_has_no_verdict_s_colour(undecided: tuple[Rollout, Records]) -> None:
    rollout, records = undecided[0], undecided[1][:3]
    stopped = halt(rollout, now=records[-1]["time"] + 60, reason="lunch", actor="<i>ada</i>")
    figure = plots.comparison_over_time(records, "error", rollout=stopped)
    shown = words(figure)
    assert "undecided when the rollout was halted by" in figure.layout.title.text
    assert "&lt;i&gt;ada" in shown
    assert "#C2410C" not in shown


def test_a_limit_is_drawn_as_a_rate(promoted: tuple[Rollout, Records]) -> None:
    rollout, records = promoted
    figure = plots.rate_over_time(records, "failed", rollout=rollout)
    assert "failed keeps its limit: 0.0 %, where 1.0 % is allowed" in figure.layout.title.text
    assert "limit 1.0 %" in words(figure)
    with pytest.raises(DataError, match="has no limit for 'wrong'"):
        plots.rate_over_time(records, "wrong", rollout=rollout)


def test_logarithms_are_shown_as_relative_changes(promoted: tuple[Rollout, Records]) -> None:
    rollout, records = promoted
    figure = plots.comparison_over_time(records, "latency", rollout=rollout)
    title = figure.layout.title.text
    assert "latency is better: \N{MINUS SIGN}69.9 %" in title
    assert "student 0.301 &lt;b&gt;ms" in title


def test_a_metric_that_nobody_watches_is_refused(promoted: tuple[Rollout, Records]) -> None:
    rollout, records = promoted
    for draw in (plots.comparison_over_time, plots.evidence_over_time):
        with pytest.raises(DataError, match="its policy watches wrong, failed, latency"):
            draw(records, "clicks", rollout=rollout)


@pytest.mark.parametrize("draw", [plots.comparison_over_time, plots.evidence_over_time])
def test_no_look_yet_is_said(draw: Any, promoted: tuple[Rollout, Records]) -> None:
    rollout, _ = promoted
    figure = draw([], "wrong", rollout=rollout)
    assert "yet" in figure.layout.title.text
    assert not figure.data


def test_many_looks_are_thinned_and_the_changes_kept(undecided: tuple[Rollout, Records]) -> None:
    rollout, records = undecided
    many = []
    for number in range(5_000):
        record = dict(records[-1], look=number + 1, time=records[0]["time"] + number)
        record["action"] = "advance" if number == 1_234 else "continue"
        many.append(record)
    figure = plots.evidence_over_time(many, "error", rollout=rollout)
    line = figure.data[0]
    assert len(line.x) <= 402
    assert any("look 1,235" in text for text in line.text)


def test_labels_at_the_edge_do_not_touch(promoted: tuple[Rollout, Records]) -> None:
    rollout, records = promoted
    for metric in ("wrong", "latency"):
        figure = plots.evidence_over_time(records, metric, rollout=rollout)
        margin = figure.layout.margin
        plot = figure.layout.height - margin.t - margin.b
        labels = [note for note in figure.layout.annotations if note.yanchor == "middle"]
        boxes = sorted((plot * (1 - note.y), 1 + note.text.count("<br>")) for note in labels)
        for (above, lines_above), (below, lines) in itertools.pairwise(boxes):
            assert below - above >= 8 * (lines_above + lines) - 1e-6


def test_traffic_is_counted_by_variant_within_the_rollout(
    promoted: tuple[Rollout, Records],
) -> None:
    rollout, records = promoted
    begin = datetime.fromtimestamp(records[0]["time"] // 60 * 60, UTC).replace(tzinfo=None)
    rows = [
        {
            "minute": begin + timedelta(minutes=minute),
            "epoch": epoch,
            "variant": variant,
            "exposures": 10,
        }
        for minute in (0, 1, 5)
        for epoch in (1, 99)
        for variant in (rollout.control, "student")
    ]
    figure = plots.traffic_over_time(rows, rollout=rollout, records=records)
    assert "30 exposures to student" in figure.layout.title.text
    assert list(figure.data[0].y) == [10, 10, 0, 0, 0, 10, 10]
    assert "no exposures yet" in plots.traffic_over_time([], rollout=rollout).layout.title.text


def test_the_sparkline_names_the_guardrail_that_is_nearest(
    halted: tuple[Rollout, Records],
) -> None:
    rollout, records = halted
    shown = words(plots.harm_sparkline(records, rollout=rollout))
    assert "<b>error " in shown
    assert "halts at 100" in shown
    assert not plots.harm_sparkline([], rollout=rollout).data


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("colour", ["ink", "muted", "good", "bad"])
def test_text_stands_out_from_the_page(theme: str, colour: str) -> None:
    palette = plots.PALETTES[theme]
    pair = sorted((luminance(getattr(palette, colour)), luminance(palette.page)))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0346, "+3.5 pp"),
        (-0.0123, "\N{MINUS SIGN}1.2 pp"),
        (0.0, "0.0 pp"),
        (0.00021, "+0.021 pp"),
    ],
)
def test_differences_of_proportions_are_points_with_a_true_minus(value: float, text: str) -> None:
    assert plots.Scale(Metric(key="m", kind="proportion")).signed(value) == text


@pytest.mark.parametrize(
    ("mean", "text"),
    [(1234.5, "1,234 s"), (12.34, "12.3 s"), (1.234, "1.23 s"), (-0.1234, "\N{MINUS SIGN}0.123 s")],
)
def test_levels_have_three_digits_and_a_unit(mean: float, text: str) -> None:
    assert plots.Scale(Metric(key="m", unit_of_measure="s")).level(mean) == text


def test_a_metric_that_is_guardrail_and_objective_says_each_rule() -> None:
    policy = Policy(
        guardrails=(Guardrail(metric="ms", test="difference", margin=0.5),),
        objectives=(Objective(metric="ms"),),
    )
    rollout = Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="new",
        policy=policy,
        metrics=(Metric(key="ms", direction="decrease"),),
    )
    assert plots.rule_text(rollout, "ms", "guardrail") == "not worse by 0.5"
    assert plots.rule_text(rollout, "ms", "objective") == "better than control"
    record = {"halt_threshold": 100.0, "promote_threshold": 20.0}
    evidence = {"metric": "ms", "e_harm": 1.0, "e_promote": 50.0, "difference": -1.0}
    evidence |= {"lower": -1.5, "upper": -0.5}
    found = [
        plots.finding({**evidence, "role": role}, record, rollout)
        for role in ("guardrail", "objective")
    ]
    assert found[0].startswith("ms is not worse by 0.5: ")
    assert found[1].startswith("ms is better: ")
