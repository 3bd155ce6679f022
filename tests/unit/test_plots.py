"""Figures say what was decided, on which numbers, against which lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from abkit import plots
from abkit.controller import decision_record
from abkit.judge import JudgeState, judge
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Rollout, Stage, advance, start

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
