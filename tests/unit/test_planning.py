"""Plans: any two of effect, units and power give the third, for every design."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from abkit.errors import ConfigError, DataError, DesignError
from abkit.planning import plan
from abkit.planning.boundaries import (
    Z_DESIGNS,
    Course,
    boundary_plan,
    check_designs,
    course,
    even_looks,
    looks_of,
    msprt_tau2,
    needed_drift,
)
from abkit.planning.counts import CountQuestion, Evidence, count_course, first_rejections
from abkit.planning.history import arrivals, facts
from abkit.planning.report import HEADINGS, report_notes, table_rows
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.canary import CanaryDesign, canary_log_e
from abkit.sequential.design import Contrast
from abkit.sequential.group_plan import even
from abkit.sequential.hypergeometric import HypergeometricMixture, hypergeometric_log_e
from abkit.sequential.msprt import FixedTauMixture
from abkit.sequential.names import DESIGNS, check_design, design_named

if TYPE_CHECKING:
    from pathlib import Path

    from abkit.estimate import Alternative


def brownian(plan_: Any, drift: float, runs: int = 20_000) -> tuple[float, float]:
    """Power and mean stop by simulation: what the recursion must agree with."""
    rng = np.random.default_rng(7)
    times = np.array(plan_.fractions)
    steps = np.diff(times, prepend=0.0)
    score = np.cumsum(rng.normal(drift * steps, np.sqrt(steps), (runs, len(times))), axis=1)
    z = score / np.sqrt(times)
    beyond = np.abs(z) if plan_.alternative == "two-sided" else z
    reached = beyond >= np.array(plan_.boundaries)
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(times) - 1)
    won = reached.any(axis=1) & (z[np.arange(runs), first] > 0)
    return float(won.mean()), float(times[first].mean())


# --- the recursion, and what each design asks -----------------------------------------------------


@pytest.mark.parametrize("name", Z_DESIGNS)
@pytest.mark.parametrize("drift", [0.0, 2.8])
def test_the_recursion_agrees_with_simulated_brownian_motion(name: str, drift: float) -> None:
    looks = min(looks_of(name, None), 40)
    found = boundary_plan(name, even_looks(name, looks), alpha=0.05, alternative="two-sided")
    exact = course(found, drift)
    power, mean = brownian(found, drift)
    assert exact.power == pytest.approx(power, abs=5 * math.sqrt(0.25 / 20_000))
    assert exact.mean == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("name", [n for n in Z_DESIGNS if n != "msprt"])
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_no_design_rejects_more_than_alpha_without_an_effect(
    name: str, alternative: Alternative
) -> None:
    found = boundary_plan(name, even_looks(name, 30), alpha=0.05, alternative=alternative)
    stopped = course(found, 0.0).stopped[-1]
    assert stopped <= 0.05 + 1e-9
    if name != "always-valid":
        assert stopped == pytest.approx(0.05, abs=1e-6)


def test_boundaries_are_those_of_the_designs_that_run() -> None:
    fractions = even(8)
    n = 40_000  # planned units; the mixtures may run to twice that
    calibrated = CalibratedMixture(planned_units=n)
    planned = boundary_plan("calibrated", fractions, alpha=0.05, alternative="two-sided")
    run = calibrated.boundaries([t * calibrated.maximum for t in fractions])
    assert planned.boundaries == pytest.approx(run, rel=1e-9)
    planned = boundary_plan("always-valid", fractions, alpha=0.05, alternative="greater")
    anytime = AlwaysValid(planned_units=n, alternative="greater")
    for t, boundary in zip(fractions, planned.boundaries, strict=True):
        h = t * 2 * n / 4
        look = anytime.look(Contrast(s=0.0, v=h, h=h))
        assert look.boundary == pytest.approx(boundary, rel=1e-9)


def test_the_plan_of_msprt_says_the_tau2_that_has_its_boundary() -> None:
    h = 5_000.0
    planned = boundary_plan("msprt", even(4), alpha=0.05, alternative="two-sided")
    design = FixedTauMixture(tau2=msprt_tau2(4.0, h))
    for t, z in zip(planned.fractions, planned.boundaries, strict=True):
        v = 4.0 * t * h
        for nudge, decision in ((1.001, "reject"), (0.999, "continue")):
            look = design.look(Contrast(s=nudge * z * math.sqrt(v), v=v, h=t * h))
            assert look.decision == decision


def test_a_course_knows_its_mean_and_quantiles() -> None:
    found = Course((0.25, 0.5, 1.0), (0.2, 0.6, 0.9), 0.9)
    assert found.mean == pytest.approx(0.25 + 0.25 * 0.8 + 0.5 * 0.4)
    assert found.quantile(0.5) == 0.5
    assert found.quantile(0.95) == 1.0


def test_the_needed_drift_has_the_power() -> None:
    for name in ("fixed", "obf", "calibrated"):
        found = boundary_plan(name, even_looks(name, 20), alpha=0.05, alternative="two-sided")
        assert course(found, needed_drift(found, 0.9)).power == pytest.approx(0.9, abs=1e-9)


def test_a_drift_out_of_reach_is_certain() -> None:
    found = boundary_plan("fixed", (1.0,), alpha=0.05, alternative="two-sided")
    assert course(found, 1e9).power == pytest.approx(1.0)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
def test_every_name_has_a_design(name: str) -> None:
    side: Alternative = "greater" if name == "canary" else "two-sided"
    tau2 = 0.01 if name == "msprt" else None
    design = design_named(name, planned_units=1_000, alternative=side, tau2=tau2)
    assert design == design_named(name, planned_units=1_000, alternative=side, tau2=tau2)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no design 'calibratd'; did you mean 'calibrated'"):
        check_design("calibratd")
    with pytest.raises(ConfigError, match="no design 3"):
        check_design(3)
    with pytest.raises(ConfigError, match="'peeking'"):
        check_designs(["peeking"], Z_DESIGNS)
    with pytest.raises(ConfigError, match="stands twice"):
        check_designs(["obf", "obf"], Z_DESIGNS)
    with pytest.raises(ConfigError, match="at least one"):
        check_designs([], Z_DESIGNS)
    assert check_designs("obf", Z_DESIGNS) == ("obf",)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("msprt", {}, "needs tau2"),
        ("msprt", {"tau2": 0.1, "alternative": "less"}, "two-sided"),
        ("canary", {}, "has a side"),
        ("hypergeometric", {"margin": 0.1}, "no margin"),
    ],
)
def test_a_design_says_what_does_not_suit_it(
    name: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(DesignError, match=words):
        design_named(name, planned_units=100, **settings)


# --- counting designs -----------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["hypergeometric", "canary"])
def test_evidence_in_arrays_is_that_of_the_design(design: str) -> None:
    from abkit.moments import Block

    rng = np.random.default_rng(3)
    evidence = Evidence(design, "greater", 4)
    blocks: list[list[Block]] = [[] for _ in range(4)]
    for _ in range(5):
        nc, nt = rng.integers(200, 400, 4), rng.integers(0, 300, 4)
        y, x = rng.binomial(nc, 0.05), rng.binomial(nt, 0.1)
        found = evidence.add((nc, nt), (y, x))
        for run in range(4):
            blocks[run].append(Block(int(nc[run]), int(nt[run]), int(y[run]), int(x[run])))
    for run in range(4):
        if design == "hypergeometric":
            expected = hypergeometric_log_e(
                blocks[run], HypergeometricMixture(alternative="greater")
            )
        else:
            expected = canary_log_e(blocks[run], CanaryDesign(restarts=0))
        assert found[run] == pytest.approx(expected, abs=1e-9)


def test_a_counting_design_gets_the_units_that_it_needs() -> None:
    report = plan(
        baseline=0.01,
        lift=1.0,
        weights=(95, 5),
        alternative="greater",
        designs=["fixed", "canary"],
        runs=1_000,
    )
    found = report.design("canary")
    assert found.power == pytest.approx(0.8, abs=5 * found.power_error)
    assert found.units > report.design("fixed").units
    assert found.false_positives is not None
    assert found.false_positives <= 0.05
    assert found.planned_units is None
    assert any("±" in cell for row in table_rows(report) for cell in row)
    assert any("simulated" in line for line in report_notes(report))
    again = plan(
        baseline=0.01,
        units=found.units,
        power=0.8,
        weights=(95, 5),
        alternative="greater",
        designs=["canary"],
        runs=1_000,
    ).design("canary")
    assert again.lift == pytest.approx(1.0, abs=0.15)


def test_the_same_seed_gives_the_same_runs() -> None:
    question = CountQuestion(
        design="hypergeometric",
        rate=0.05,
        shares=(0.5, 0.5),
        looks=10,
        alpha=0.05,
        alternative="two-sided",
        runs=300,
    )
    first = first_rejections(question, rate_treatment=0.08, units=4_000)
    assert (first == first_rejections(question, rate_treatment=0.08, units=4_000)).all()
    assert count_course(question, first).mean_error > 0


# --- two of three ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", Z_DESIGNS)
@pytest.mark.parametrize(
    "known", [{"baseline": 0.1}, {"baseline": 20.0, "sd": 30.0}, {"sd": 2.0}], ids=str
)
def test_units_power_and_effect_agree(name: str, known: dict[str, float]) -> None:
    effect = {"difference": 0.02 if "sd" not in known else 0.5}
    asked: dict[str, Any] = {**known, "designs": [name], "looks": 20}
    units = plan(**asked, **effect, power=0.85).design(name)
    power = plan(**asked, **effect, units=units.units).design(name)
    assert power.power == pytest.approx(0.85, abs=0.002)
    least = plan(**asked, units=units.units, power=0.85).design(name)
    assert least.difference == pytest.approx(effect["difference"], rel=0.005)
    assert units.status == power.status == least.status == "ok"
    assert units.mean_units is not None
    assert units.median_units is not None
    assert units.p90_units is not None
    assert units.median_units <= units.p90_units <= units.units
    assert units.mean_units <= units.units


def test_units_are_split_as_intended_and_days_follow() -> None:
    report = plan(baseline=0.1, lift=0.1, weights={"old": 3, "new": 1}, units_per_day=5_000)
    for item in report.designs:
        assert item.arm_units[0] == pytest.approx(3 * item.arm_units[1], rel=0.001)
        assert item.days == math.ceil(item.units / 5_000)
        assert item.mean_days == pytest.approx((item.mean_units or 0) / 5_000)
    days = report.design("fixed").days
    back = plan(baseline=0.1, days=days, power=0.8, weights=(3, 1), units_per_day=5_000)
    assert back.wanted == "effect"
    assert (back.design("fixed").lift or 1) <= 0.1


def test_an_effect_alone_is_planned_with_power_point_eight() -> None:
    assert plan(baseline=0.1, lift=0.1, designs=["fixed"]).design("fixed").power == pytest.approx(
        0.8
    )
    assert plan(baseline=0.1, units=1_000, designs=["fixed"]).wanted == "effect"
    assert plan(baseline=0.1, units=1_000, lift=0.5, designs=["fixed"]).wanted == "power"


def test_more_arms_share_alpha_and_say_so() -> None:
    report = plan(baseline=0.1, lift=0.1, arms=4, designs=["fixed", "obf"])
    assert report.design("obf").alpha == pytest.approx(0.05 / 3)
    assert len(report.design("obf").arm_units) == 4
    assert "3 comparisons" in report_notes(report)[0]


def test_a_margin_is_one_sided_and_needs_no_effect() -> None:
    report = plan(baseline=0.85, margin=-0.05, power=0.9, designs=["fixed", "calibrated"])
    assert report.alternative == "greater"
    found = report.design("fixed")
    assert found.difference == pytest.approx(0.0, abs=1e-12)
    by_hand = 2 * 0.85 * 0.15 * ((1.6448536 + 1.2815516) / 0.05) ** 2
    assert found.arm_units[0] == pytest.approx(by_hand, rel=0.003)
    better = plan(baseline=0.85, margin=-0.05, difference=0.02, power=0.9, designs=["fixed"])
    assert better.design("fixed").units < found.units
    least = plan(baseline=0.85, margin=-0.05, units=found.units, power=0.9, designs=["fixed"])
    assert least.design("fixed").difference == pytest.approx(0.0, abs=0.001)
    assert plan(sd=1.0, margin=0.1, designs=["fixed"]).alternative == "less"


def test_variance_reduction_saves_its_share_of_the_units() -> None:
    plain = plan(sd=1.0, difference=0.1, designs=["obf"]).design("obf")
    reduced = plan(sd=1.0, difference=0.1, variance_reduction=0.4, designs=["obf"]).design("obf")
    assert reduced.units == pytest.approx(0.6 * plain.units, rel=0.003)


def test_the_planned_units_are_what_the_design_is_given() -> None:
    report = plan(baseline=0.1, lift=0.1, designs=["calibrated", "obf", "always-valid"])
    for item in report.designs:
        ends = {"obf": 1, "calibrated": 2, "always-valid": 2}
        assert item.planned_units == pytest.approx(item.units / ends[item.design], abs=1)


def test_an_effect_that_no_one_finds_is_undefined() -> None:
    report = plan(baseline=0.9, units=20, power=0.99, designs=["fixed", "calibrated"])
    assert [item.status for item in report.designs] == ["undefined", "undefined"]
    assert report.recommended is None
    assert report.recommendation.startswith("No design finds this")
    assert report.to_dict()["recommended"] is None
    assert table_rows(report)[0][2] == "undefined"
    report.plot()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "nothing to plan with"),
        ({"lift": 0.1}, "a lift needs the baseline"),
        ({"difference": 0.1}, "give baseline"),
        ({"baseline": 5.0, "lift": 0.1}, "give its standard deviation sd"),
        ({"baseline": 0.1, "lift": 0.1, "difference": 0.1}, "the effect once"),
        ({"baseline": 0.1, "lift": 0.1, "units": 100, "power": 0.8}, "give two of"),
        ({"baseline": 0.1, "units": 100, "days": 3}, "the run length once"),
        ({"baseline": 0.1, "days": 3}, "days need units_per_day"),
        ({"baseline": 0.1, "lift": 0.1, "arms": 3, "weights": (1, 1)}, "3 arms but 2 weights"),
        ({"baseline": 0.1, "lift": 0.1, "weights": (1, 0)}, "above 0"),
        ({"baseline": 0.1, "lift": 0.1, "arms": 1}, "arms must be a whole number >= 2"),
        ({"baseline": 0.1, "lift": 0.1, "alpha": 1.5}, "alpha must lie strictly between"),
        ({"baseline": 0.1, "lift": 0.1, "looks": 0}, "looks must be a whole number from 1"),
        ({"baseline": 0.1, "lift": 0.1, "designs": ["obff"]}, "did you mean 'obf'"),
        ({"baseline": 0.1, "lift": 0.1, "units_per_day": 0}, "units_per_day must be"),
        ({"baseline": 0.1, "lift": 0.1, "metric": "x"}, "columns of a history"),
        ({"baseline": 0.1, "margin": -0.1, "alternative": "less"}, "tested on the side 'greater'"),
        ({"baseline": 0.1, "margin": 0.0}, "margin must be a number other than 0"),
        ({"sd": 1.0, "difference": 0.1, "designs": ["canary"]}, "counts events"),
        ({"baseline": 0.1, "margin": -0.01, "designs": ["hypergeometric"]}, "no margin"),
        ({"baseline": 0.1, "difference": math.nan}, "finite number"),
    ],
)
def test_a_question_without_an_answer_says_what_to_do(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(**asked)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"baseline": 0.1, "lift": 20.0}, "out of"),
        ({"baseline": 0.1, "lift": 0.0}, "not 0"),
        ({"baseline": 0.1, "lift": -0.1, "alternative": "greater"}, "other side"),
        ({"baseline": 0.1, "lift": 0.1, "power": 0.01}, "power must lie"),
        ({"sd": -1.0, "difference": 0.1}, "standard deviation"),
        ({"baseline": 0.1, "lift": 0.1, "designs": ["canary"]}, "needs a side"),
        ({"sd": 1.0, "difference": 1.0, "alternative": "greater", "designs": ["msprt"]}, "two-s"),
        ({"baseline": 0.1, "margin": -0.05, "difference": -0.1}, "out of"),
    ],
)
def test_a_test_that_cannot_be_says_why(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(DesignError, match=words):
        plan(**asked)


# --- the report -----------------------------------------------------------------------------------


def test_a_report_has_its_forms() -> None:
    seen: list[float] = []
    report = plan(baseline=0.1, lift=0.05, units_per_day=4_000, progress=seen.append)
    assert seen[-1] == pytest.approx(1.0)
    data = json.loads(report.to_json())
    assert data["recommended"] == "group-sequential"
    assert data["designs"][0]["design"] == "fixed"
    assert list(report.to_pandas()["design"]) == [item.design for item in report.designs]
    text = report._repr_html_()
    assert all(name in text for name in HEADINGS)
    assert "+5 % (+0.5 pp)" in report.recommendation
    with pytest.raises(KeyError):
        report.design("obf")


def test_a_plot_names_every_design_in_both_themes(tmp_path: Path) -> None:
    report = plan(baseline=0.1, lift=0.05)
    for theme in ("light", "dark"):
        figure = report.plot(theme=theme, path=tmp_path / f"{theme}.html")  # type: ignore[arg-type]
        said = " ".join(note["text"] for note in figure.to_dict()["layout"]["annotations"])
        assert all(item.design in said for item in report.designs)
        assert "plotly" in (tmp_path / f"{theme}.html").read_text()
    with pytest.raises(ConfigError, match="cannot write"):
        report.plot(path=tmp_path / "nowhere" / "x.html")


# --- history --------------------------------------------------------------------------------------


def history(n: int = 3_000) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    before = rng.gamma(2.0, 10.0, n)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in range(n)],
            "before": before,
            "spend": before + rng.normal(0, 10.0, n),
            "bought": rng.random(n) < 0.2,
            "seen": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n) * 10 / n, unit="D"),
        }
    )


def test_history_gives_level_spread_covariates_and_arrivals() -> None:
    frame = history()
    report = plan(frame, unit="user", metric="spend", covariates=["before"], time="seen", lift=0.05)
    assert report.baseline == pytest.approx(frame.spend.mean())
    assert report.sd == pytest.approx(frame.spend.std())
    r = np.corrcoef(frame.before, frame.spend)[0, 1]
    assert report.variance_reduction == pytest.approx(r**2, rel=1e-9)
    assert report.units_per_day == pytest.approx(300, rel=0.01)
    assert any("covariates explain" in line for line in report.notes)
    binary = plan(frame, unit="user", metric="bought", lift=0.1)
    assert binary.kind == "proportion"
    assert binary.baseline == pytest.approx(frame.bought.mean())
    given = plan(frame, unit="user", metric="spend", baseline=50.0, sd=5.0, lift=0.1)
    assert (given.baseline, given.sd) == (50.0, 5.0)


@pytest.mark.parametrize(
    ("change", "asked", "words"),
    [
        ({"user": "u"}, {}, "one row per unit"),
        ({"spend": 1.0}, {}, "all values of the history are the same"),
        ({"spend": np.nan}, {}, "two or more values"),
        ({}, {"metric": "spnd"}, "did you mean 'spend'"),
        ({}, {"metric": "user"}, "not numbers"),
        ({}, {"time": "before"}, "not dates or timestamps"),
        ({"seen": "yesterday"}, {"time": "seen"}, "time 'seen'"),
    ],
)
def test_a_history_that_is_not_usable_says_why(
    change: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    frame = history(50).assign(**change)
    with pytest.raises(DataError, match=words):
        plan(frame, **({"unit": "user", "metric": "spend", "lift": 0.1} | asked))


def test_a_history_needs_its_columns() -> None:
    with pytest.raises(ConfigError, match="needs its unit and metric"):
        plan(history(50), metric="spend", lift=0.1)


def test_rows_without_a_value_are_left_out_and_counted() -> None:
    frame = history(100)
    frame.loc[:9, "spend"] = np.nan
    report = plan(frame, unit="user", metric="spend", lift=0.1, designs=["fixed"])
    assert "10 rows without a value" in " ".join(report.notes)


def test_covariates_that_say_the_same_do_no_harm() -> None:
    x = np.arange(20.0)
    y = x + np.tile([0.0, 1.0], 10)
    one = facts(y, [x], None, ())
    two = facts(y, [x, 3 * x, np.ones(20), np.full(20, np.nan)], None, ())
    assert two.variance_reduction == pytest.approx(one.variance_reduction, rel=1e-6)


def test_arrivals_drop_the_ends_and_warn_where_they_fall() -> None:
    days = np.repeat(np.arange(10.0), [1, 90, 80, 70, 60, 40, 30, 20, 15, 1])
    mean, said = arrivals(days)
    assert mean == pytest.approx(np.mean([90, 80, 70, 60, 40, 30, 20, 15]))
    assert any("the run will be longer" in line for line in said)
    with pytest.raises(DataError, match="no unit"):
        arrivals(np.array([np.nan]))
