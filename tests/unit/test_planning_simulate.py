"""Simulations on one's own data: randomised again and again, by unit or by cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from abkit.errors import ConfigError, DataError, DesignError
from abkit.moments import Moments
from abkit.planning import SimulatedDesign, simulate_aa, simulate_power
from abkit.planning.sample import ROWS, sample_of
from abkit.planning.simulation import HEADINGS, exact_interval, histogram, table_rows
from abkit.planning.streams import Effect, affected, draw, paths
from abkit.sequential.contrast import stratified_contrast
from abkit.stats.difference import welch_t
from abkit.stats.proportion import two_proportions

if TYPE_CHECKING:
    from pathlib import Path


def frame(n: int = 1_500) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "user": range(n),
            "spend": rng.gamma(2.0, 5.0, n),
            "bought": rng.random(n) < 0.3,
            "seen": rng.permutation(n),
        }
    )


def clustered(n: int = 250) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    user = np.repeat(np.arange(n), rng.poisson(5, n) + 1)
    level = rng.normal(10.0, 1.0, n)
    value = level[user] + rng.normal(0, 1.0, len(user))
    return pd.DataFrame(
        {"event": range(len(user)), "user": user, "value": value, "good": value > 10.5}
    )


SMALL: dict[str, Any] = {"unit": "user", "looks": 8, "runs": 400}


# --- the arrays are the functions that users call -------------------------------------------------


def test_sums_at_a_look_are_those_of_the_chosen_units() -> None:
    y = np.random.default_rng(1).gamma(2.0, 3.0, (200, 1))
    sample = sample_of(y, ["y"], times=np.arange(200), looks=4)
    rng = np.random.default_rng(9)
    new = draw(sample, share=0.4, runs=3, rng=np.random.default_rng(9))
    for look in range(4):
        part = y[50 * look : 50 * (look + 1), 0]
        chosen = rng.random((3, 50), dtype=np.float32) < 0.4
        for run in range(3):
            values = part[chosen[run]]
            assert new[run, look, ROWS] == len(values)
            centred = (values - y.mean()) / sample.scales[0]
            assert new[run, look, sample.metric(0)] == pytest.approx(centred.sum())


@pytest.mark.parametrize("binary", [False, True])
def test_statistics_are_those_of_the_analysis(binary: bool) -> None:  # noqa: FBT001 - a case
    rng = np.random.default_rng(3)
    y = rng.gamma(2.0, 3.0, 600) if not binary else (rng.random(600) < 0.3).astype(float)
    sample = sample_of(y[:, None], ["y"], times=np.arange(600), looks=3)
    new = draw(sample, share=0.3, runs=5, rng=np.random.default_rng(8))
    treated = np.cumsum(new, axis=1)
    found = paths(
        treated,
        sample.totals - treated,
        sample,
        0,
        analysis="unit",
        alternative="two-sided",
    )
    rng = np.random.default_rng(8)
    chosen = np.concatenate(
        [rng.random((5, 200), dtype=np.float32) < 0.3 for _ in range(3)], axis=1
    )
    for run in range(5):
        for look in range(3):
            seen = slice(0, 200 * (look + 1))
            control = Moments.of(y[seen][~chosen[run, seen]])
            treatment = Moments.of(y[seen][chosen[run, seen]])
            if binary:
                control = Moments.of_counts(control.n, control.successes)
                treatment = Moments.of_counts(treatment.n, treatment.successes)
                fixed = two_proportions(control, treatment)
            else:
                fixed = welch_t(control, treatment)
            kind = "proportion" if binary else "mean"
            contrast = stratified_contrast([(control, treatment)], kind=kind)  # type: ignore[arg-type]
            assert found.p_fixed[run, look] == pytest.approx(fixed.p_value, rel=1e-6)
            assert found.z[run, look] == pytest.approx(contrast.z, rel=1e-6)
            assert found.enough[run, look] == contrast.enough


def test_clusters_are_compared_like_the_ratio_of_their_sums() -> None:
    from abkit.comoments import Comoments
    from abkit.stats.ratio import ratio_difference

    data = clustered(120)
    values = data.value.to_numpy()[:, None]
    sample = sample_of(values, ["value"], groups=data.user.to_numpy(), looks=1, seed=6)
    new = draw(sample, share=0.5, runs=2, rng=np.random.default_rng(8))
    treated = np.cumsum(new, axis=1)
    found = paths(
        treated, sample.totals - treated, sample, 0, analysis="cluster", alternative="two-sided"
    )
    sums = data.groupby("user").value.agg(["sum", "size"])
    order = np.random.default_rng(6).permutation(len(data))
    first = pd.Series(order).groupby(data.user.to_numpy()).min().sort_values(kind="stable").index
    sums = sums.loc[first]
    rng = np.random.default_rng(8)
    chosen = rng.random((2, len(sums)), dtype=np.float32) < 0.5
    for run in range(2):
        arms = []
        for here in (~chosen[run], chosen[run]):
            part = sums[here]
            arms.append(
                Comoments.of({"x": part["sum"].tolist(), "n": part["size"].astype(float).tolist()})
            )
        expected = ratio_difference(arms[0], arms[1], numerator="x", denominator="n")
        assert found.z[run, 0] == pytest.approx(
            (expected.difference or 0.0) / (expected.standard_error or 1.0), rel=1e-6
        )


@pytest.mark.parametrize("effect", [Effect(scale=1.2), Effect(shift=0.7), Effect(0.9, -0.3)])
def test_an_effect_on_sums_is_that_on_values(effect: Effect) -> None:
    data = clustered(80)
    y = data.value.to_numpy()
    groups = data.user.to_numpy()
    sample = sample_of(y[:, None], ["y"], groups=groups, looks=1)
    everyone = np.sum(sample.looks[0], axis=0)[None, None, :]
    found = affected(everyone, sample, 0, effect, np.random.default_rng(0))[0, 0]
    changed = (effect.scale * y + effect.shift - y.mean()) / sample.scales[0]
    totals = np.bincount(groups, weights=changed)
    sizes = np.bincount(groups)
    at = sample.metric(0)
    expected = [changed.sum(), (totals**2).sum(), (totals * sizes).sum(), (changed**2).sum()]
    assert found[at : at + 4] == pytest.approx(expected)


@pytest.mark.parametrize("lift", [0.5, -0.5])
def test_proportions_are_flipped_to_the_rate(lift: float) -> None:
    y = (np.random.default_rng(0).random(20_000) < 0.3).astype(float)[:, None]
    sample = sample_of(y, ["y"], looks=2)
    everyone = np.stack([part.sum(axis=0) for part in sample.looks])[None]
    rng = np.random.default_rng(0)
    found = affected(everyone, sample, 0, Effect(scale=1 + lift), rng).sum(axis=1)[0]
    ones = found[sample.metric(0)] + sample.means[0] * found[ROWS]
    assert ones / 20_000 == pytest.approx(sample.means[0] * (1 + lift), abs=0.01)
    assert ones == pytest.approx(round(ones))


@pytest.mark.parametrize("size", [1e-200, 1.0, 2.0**40, 1e160])
def test_the_unit_of_a_metric_does_not_matter(size: float) -> None:
    y = np.random.default_rng(0).normal(3.0, 1.0, 400)
    data = pd.DataFrame({"user": range(400), "spend": size * y})
    report = simulate_power(data, metrics=["spend"], lift=0.1, **SMALL)
    plain = simulate_power(data.assign(spend=y), metrics=["spend"], lift=0.1, **SMALL)
    for ours, theirs in zip(report.designs, plain.designs, strict=True):
        assert ours.rejections == pytest.approx(theirs.rejections, abs=2)


def test_a_mean_far_from_zero_does_not_matter() -> None:
    y = np.random.default_rng(0).normal(0.0, 1.0, 400)
    data = pd.DataFrame({"user": range(400), "spend": 1.7e9 + y})
    near = simulate_aa(data.assign(spend=y), metrics=["spend"], **SMALL)
    far = simulate_aa(data, metrics=["spend"], **SMALL)
    assert [item.rejections for item in far.designs] == pytest.approx(
        [item.rejections for item in near.designs], abs=2
    )


def test_values_that_cannot_be_summed_say_so() -> None:
    data = pd.DataFrame({"user": range(60), "spend": [1e308, 1.2e308] * 30})
    with pytest.raises(DataError, match="too large to be summed"):
        simulate_aa(data, metrics=["spend"], **SMALL)


def test_many_units_are_randomised_in_buckets_with_the_same_moments() -> None:
    y = np.random.default_rng(0).normal(5.0, 2.0, (9_000, 1))
    sample = sample_of(y, ["y"], looks=2)
    assert [len(part) for part in sample.looks] == [2_000, 2_000]
    assert "buckets" in sample.notes[0]
    assert sample.totals[-1, ROWS] == 9_000
    new = draw(sample, share=0.5, runs=400, rng=np.random.default_rng(1)).sum(axis=1)
    mean = sample.scales[0] * new[:, sample.metric(0)] / new[:, ROWS]
    assert mean.std() == pytest.approx(2.0 / np.sqrt(9_000), rel=0.12)


# --- A/A ------------------------------------------------------------------------------------------


def test_sound_designs_pass_and_peeking_is_shown_for_what_it_is() -> None:
    seen: list[float] = []
    report = simulate_aa(frame(), metrics=["spend", "bought"], progress=seen.append, **SMALL)
    assert report.passed
    assert seen[-1] == pytest.approx(1.0)
    assert report.verdict.startswith("Sound")
    assert report.design("peeking", metric="bought").rate > 0.1
    assert "with the fixed test rejects" in report.verdict
    assert report.srm_alarms < 20
    assert report.information[-1] == report.units == report.groups == 1_500
    assert all(item.ks_p_value > 1e-4 for item in report.p_values)


def test_rows_of_clusters_are_no_units() -> None:
    report = simulate_aa(
        clustered(), unit="event", cluster="user", metrics=["value", "good"], looks=5, runs=800
    )
    assert report.passed
    assert report.clustered
    assert report.groups == 250
    for metric in ("value", "good"):
        wrong = report.design("fixed", metric=metric, analysis="row")
        right = report.design("fixed", metric=metric, analysis="cluster")
        assert wrong.rate > 2 * right.rate
        assert not wrong.judged
    assert "take the cluster as the unit" in report.verdict


def test_a_design_above_its_promise_fails_the_report() -> None:
    item = SimulatedDesign(
        metric="x",
        analysis="unit",
        design="fixed",
        looks=1,
        runs=1_000,
        rejections=100,
        by_look=(0.1,),
        mean_units=1.0,
        median_units=1.0,
        p90_units=1.0,
        judged=True,
    )
    assert item.is_above(0.05)
    report = simulate_aa(frame(), metrics=["spend"], designs=["fixed"], **SMALL)
    from dataclasses import replace

    broken = replace(report, designs=(item,))
    assert not broken.passed
    assert broken.verdict.startswith("Do not use this: without any effect more than 5% of")
    assert replace(broken, mode="power").passed


def test_counting_designs_run_on_units_of_0_and_1() -> None:
    report = simulate_aa(
        frame(600),
        metrics=["bought"],
        designs=["hypergeometric", "canary"],
        alternative="greater",
        **SMALL,
    )
    assert report.passed
    found = simulate_power(
        frame(600),
        metrics=["bought"],
        lift=1.0,
        designs=["hypergeometric", "canary"],
        alternative="greater",
        **SMALL,
    )
    assert found.design("hypergeometric").rate > 0.9
    with pytest.raises(DesignError, match="'spend' is not 0 and 1"):
        simulate_aa(frame(600), metrics=["spend"], designs=["hypergeometric"], **SMALL)
    with pytest.raises(DesignError, match="not of clusters"):
        simulate_aa(
            clustered(),
            unit="event",
            cluster="user",
            metrics=["good"],
            designs=["hypergeometric"],
        )


# --- power ----------------------------------------------------------------------------------------


def test_power_and_stopping_time_are_those_of_the_plan() -> None:
    from abkit.planning import plan

    rng = np.random.default_rng(0)
    data = pd.DataFrame({"user": range(3_000), "y": rng.normal(10.0, 2.0, 3_000)})
    designs = ["fixed", "obf", "calibrated", "always-valid"]
    planned = plan(sd=2.0, difference=0.2, units=3_000, looks=10, designs=designs)
    found = simulate_power(
        data, unit="user", metrics=["y"], difference=0.2, looks=10, runs=2_000, designs=designs
    )
    for name in designs:
        ours, theirs = found.design(name), planned.design(name)
        assert ours.rate == pytest.approx(theirs.power, abs=0.05)
        assert ours.mean_units == pytest.approx(theirs.mean_units, rel=0.04)
    assert found.passed
    assert "is found most often by" in found.verdict
    assert dict(found.effects)["y"] == pytest.approx(0.2)


def test_one_side_finds_its_own_effect_only() -> None:
    up = simulate_power(frame(), metrics=["spend"], lift=0.2, alternative="greater", **SMALL)
    down = simulate_power(frame(), metrics=["spend"], lift=-0.2, alternative="greater", **SMALL)
    less = simulate_power(frame(), metrics=["spend"], lift=-0.2, alternative="less", **SMALL)
    for name in ("fixed", "calibrated"):
        assert up.design(name).rate > 0.9
        assert less.design(name).rate > 0.9
        assert down.design(name).rate < 0.01


# --- messages and forms ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"runs": 10}, "runs must be a whole number >= 100"),
        ({"looks": 0}, "looks must be a whole number >= 1"),
        ({"looks": 900}, "at most 400"),
        ({"share": 1.0}, "share must lie strictly between"),
        ({"designs": ["peek"]}, "no design 'peek'"),
        ({"metrics": []}, "one or more different metrics"),
        ({"metrics": ["spend", "spend"]}, "one or more different metrics"),
    ],
)
def test_an_option_that_is_not_usable_says_why(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        simulate_aa(frame(60), **(SMALL | {"metrics": ["spend"]} | asked))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user": 1}, "say cluster='user'"),
        ({"user": None}, "unit 'user' is empty in 60 rows"),
        ({"spend": 3.0}, "all values of 'spend' are the same"),
        ({"spend": np.nan}, "needs at least 50 units, got 0"),
        ({"spend": "x"}, "not numbers"),
    ],
)
def test_data_that_is_not_usable_says_why(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        simulate_aa(frame(60).assign(**change), metrics=["spend"], **SMALL)


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        ({}, "give one effect"),
        ({"lift": 0.1, "difference": 0.1}, "give one effect"),
        ({"lift": 0.0}, "give one effect"),
        ({"lift": 5.0}, "takes the rate"),
    ],
)
def test_an_effect_that_cannot_be_says_why(effect: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        simulate_power(frame(200), metrics=["bought"], **effect, **SMALL)


def test_fewer_moments_than_looks_are_said() -> None:
    y = np.random.default_rng(0).normal(size=(100, 1))
    groups = np.repeat(np.arange(50), 2)
    assert "looks instead of 80" in sample_of(y, ["y"], groups=groups, looks=80).notes[0]


def test_a_simulation_has_its_forms(tmp_path: Path) -> None:
    report = simulate_aa(frame(), metrics=["spend"], time="seen", **SMALL)
    data = json.loads(report.to_json())
    assert sum(data["p_values"][0]["bins"]) == 400
    assert data["passed"] is True
    assert len(report.to_pandas()) == len(report.designs)
    assert all(name in report._repr_html_() for name in HEADINGS)
    assert len(table_rows(report)) == len(report.designs)
    for theme in ("light", "dark"):
        figures = report.plot(theme=theme, path=tmp_path / "page.html")  # type: ignore[arg-type]
        assert len(figures) == 2
        title = figures[0].to_dict()["layout"]["title"]["text"]
        assert "peeking rejects" in title
    with pytest.raises(KeyError):
        report.design("obf")


def test_names_from_data_are_inert_in_figures() -> None:
    data = frame(200).rename(columns={"spend": "<a href='x'>s</a>"})
    figures = simulate_aa(data, metrics=["<a href='x'>s</a>"], **SMALL).plot()
    assert all("<a href" not in figure.to_json() for figure in figures)


def test_the_same_seed_gives_the_same_report() -> None:
    first = simulate_aa(frame(300), metrics=["spend"], **SMALL)
    assert first == simulate_aa(frame(300), metrics=["spend"], **SMALL)
    assert first != simulate_aa(frame(300), metrics=["spend"], seed=1, **SMALL)


def test_exact_intervals_have_their_ends() -> None:
    assert exact_interval(0, 20)[0] == 0.0
    assert exact_interval(20, 20)[1] == 1.0
    assert histogram((0.0, 0.049, 0.05, 1.0)) == [2, 1, *[0] * 17, 1]
