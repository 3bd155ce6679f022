"""`analyze` on a workspace: what real clients logged, against numbers made by hand."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import abkit
from abkit.cli import main
from abkit.client import Client
from abkit.controller import Controller
from abkit.errors import ConfigError, DataError, UnknownExperimentError
from abkit.experiment import Experiment
from abkit.metrics import Metric
from abkit.rollout import Rollout, Stage
from abkit.store.compact import compact
from abkit.store.ingest import Ingester
from abkit.store.logged import Scope, open_events
from abkit.store.moments import observe_all
from abkit.store.reader import StoreReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from abkit.analysis import Report
    from abkit.analysis.report import Result

DAY = 86_400.0
BOUGHT = Metric(key="bought", kind="proportion")
SPEND = Metric(key="spend", aggregate="sum", missing="zero")
LATENCY = Metric(key="latency", direction="decrease", log=True)
STARS = Metric(key="stars", aggregate="mean")
METRICS = (BOUGHT, SPEND, LATENCY, STARS)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Served:
    """A workspace that clients write to, and what they wrote by unit."""

    workspace: Workspace
    client: Client
    clock: Clock
    units: dict[str, str] = field(default_factory=dict)

    def expose(self, unit: str) -> str:
        assigned = self.client.assign("ranker", unit)
        assert self.client.expose(assigned)
        self.units.setdefault(unit, assigned.variant)
        return assigned.variant

    def record(self, unit: str, metric: str, value: float) -> None:
        assert self.client.record(unit, metric, value)

    def unit_of(self, variant: str, *, number: int = 0) -> str:
        """A unit of a variant that nobody has met yet."""
        while True:
            unit = f"{variant}-{number}"
            if unit not in self.units and self.client.variant("ranker", unit) == variant:
                return unit
            number += 1

    def analyze(self, **options: Any) -> Report:
        assert self.client.flush()
        return abkit.analyze(self.workspace.path, experiment="ranker", **options)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    clock = Clock()
    workspace = Workspace(tmp_path / "workspace", clock=clock)
    workspace.publish(experiment())
    with Client(workspace.path, poll_seconds=0.0, clock=clock) as client:
        yield Served(workspace, client, clock)


def experiment(*metrics: Metric) -> Experiment:
    return Experiment.create(
        "ranker", {"old": 0.5, "new": 0.5}, salt="a-fixed-salt", metrics=metrics or METRICS
    )


def check(report: Report, name: str) -> Any:
    return next(item for item in report.checks if item.id == name)


def result(report: Report, metric: str) -> Result:
    return next(item for item in report.results if item.metric == metric)


def serve_some(served: Served, *, units: int = 400, start: int = 0, seed: int = 3) -> None:
    """Units with several outcomes each, some before the exposure, some twice exposed."""
    random = np.random.default_rng(seed)
    for number in range(start, start + units):
        unit = f"user-{number}"
        served.clock.now += 1.0
        served.record(unit, "spend", float(random.exponential(9)))
        served.record(unit, "latency", float(random.exponential(90)))
        served.clock.now += 600.0
        served.expose(unit)
        for _ in range(int(random.integers(0, 4))):
            served.clock.now += 1.0
            served.record(unit, "spend", float(random.exponential(10)))
            served.record(unit, "stars", float(random.integers(1, 6)))
        served.record(unit, "latency", float(random.exponential(100)) - 1.0)
        if random.random() < 0.3:
            served.record(unit, "bought", 1.0)
        if random.random() < 0.2:
            served.clock.now += 1.0
            served.expose(unit)


def test_the_numbers_are_those_made_by_hand(served: Served) -> None:
    spent = {"old": [1.0, 2.0, 6.0, 0.0], "new": [4.0, 5.0, 0.0, 8.5]}
    for variant, values in spent.items():
        for value in values:
            served.clock.now += 10.0
            unit = served.unit_of(variant)
            served.expose(unit)
            if value:
                served.record(unit, "spend", value / 4)
                served.clock.now += 1.0
                served.record(unit, "spend", 3 * value / 4)
                served.record(unit, "bought", value > 4)
    report = served.analyze(metrics=["spend", "bought"])
    assert report.variants == {"new": 4, "old": 4}
    spend, bought = report.results
    assert (spend.kind, spend.control, spend.variant) == ("mean", "old", "new")
    assert spend.estimate.mean_control == np.mean(spent["old"])
    assert spend.estimate.mean_treatment == np.mean(spent["new"])
    variances = [np.var(values, ddof=1) / 4 for values in spent.values()]
    assert spend.estimate.standard_error == pytest.approx(math.sqrt(sum(variances)), rel=1e-12)
    assert (bought.kind, bought.estimate.mean_control, bought.estimate.mean_treatment) == (
        "proportion",
        0.25,
        0.5,
    )
    assert report.srm is not None
    assert report.srm.status == "ok"


def test_the_declared_metrics_and_their_directions_are_the_default(served: Served) -> None:
    serve_some(served, units=60)
    report = served.analyze()
    assert [item.metric for item in report.results] == [metric.key for metric in METRICS]
    text = check(report, "metrics").text
    assert "spend: sum of a unit's outcomes, 0 without one, more is better" in text
    assert "latency: logarithm of the last of a unit's outcomes" in text
    assert "less is better" in text
    assert report.to_dict()["log"]["metrics"][0]["key"] == "bought"
    assert json.loads(report.to_json())["log"]["experiment"] == "ranker"


def test_units_and_means_are_those_of_the_judge(served: Served) -> None:
    serve_some(served)
    served.workspace.publish(experiment().reweight({"old": 0.3, "new": 0.7}))
    serve_some(served, units=300, start=250, seed=4)
    report = served.analyze()
    with Ingester(served.workspace, clock=served.clock) as ingester:
        ingester.ingest()
        observation = observe_all(
            ingester.connection,
            experiment="ranker",
            epochs=(1, 2),
            metrics=METRICS,
            control="old",
            treatment="new",
            now=served.clock.now,
        )
        seen = ingester.connection.execute(
            "SELECT metric, epoch, variant, list(value ORDER BY value) FROM unit_value "
            "WHERE value IS NOT NULL GROUP BY ALL"
        ).fetchall()
    with open_events(served.workspace.path) as events:
        units = events.units(
            Scope(experiment="ranker", epochs=(1, 2), metrics=METRICS)
        ).table.to_pandas()
    assert units.groupby(["epoch", "variant"]).size().to_dict() == {
        (epoch, variant): n
        for epoch, row in observation.exposures.items()
        for variant, n in row.items()
    }
    for metric, epoch, variant, values in seen:
        mine = units[(units.epoch == epoch) & (units.variant == variant)][metric].dropna()
        if metric in ("bought", "spend"):
            assert (mine == 0).sum() == len(mine) - len(values)
            mine = mine[mine > 0]
        assert sorted(mine) == values  # to the bit
    for item in report.results:
        cells = observation.values[item.metric]
        for part in item.epochs:
            cell = cells[int(part.epoch)]
            assert (cell["old"].n, cell["new"].n) == (part.n_control, part.n_treatment)
        weights = {int(part.epoch): part.weight for part in item.epochs}
        difference = sum(
            w * (cells[e]["new"].mean - cells[e]["old"].mean) for e, w in weights.items()
        )
        assert item.estimate.difference == pytest.approx(difference, rel=1e-12)


def test_a_ramp_is_compared_within_its_epochs(served: Served) -> None:
    serve_some(served, units=100)
    served.workspace.publish(experiment().reweight({"old": 0.2, "new": 0.8}))
    serve_some(served, units=100, start=100, seed=4)
    report = served.analyze(metrics=["stars"])
    assert [part.epoch for part in report.results[0].epochs] == ["1", "2"]
    # The store keeps the shares of a rollout's epochs, and of a plain experiment's newest.
    assert check(report, "sample_ratio_mismatch").severity == "warn"
    weights = {"1": {"old": 1, "new": 1}, "2": {"old": 0.2, "new": 0.8}}
    known = served.analyze(metrics=["stars"], weights=weights)
    assert check(known, "sample_ratio_mismatch").severity == "info"
    one = served.analyze(metrics=["stars"], segments=["epoch"])
    assert {item.segment for item in one.results if item.segment} == {
        ("epoch", "1"),
        ("epoch", "2"),
    }


def test_a_rollout_brings_its_shares_and_leaves_out_the_run_before(served: Served) -> None:
    serve_some(served, units=40)
    stages = (Stage(name="10 %", share=0.1, min_units=10), Stage(name="50 %", share=0.5))
    plan = Rollout.plan(
        "v2", experiment="ranker", control="old", treatment="newer", stages=stages, metrics=METRICS
    )
    served.workspace.start(plan)
    with Controller(served.workspace, clock=served.clock) as controller:
        random = np.random.default_rng(5)
        for number in range(4_000):
            served.clock.now += 1.0
            unit = f"later-{number}"
            served.expose(unit)
            served.record(unit, "error", random.random() < 0.3)
            served.record(unit, "stars", float(random.integers(1, 6)))
            if number % 400 == 399:
                assert served.client.flush()
                controller.tick()
        rollout = served.workspace.rollout("v2")
        report = served.analyze(metrics=["stars"])
    assert rollout.first_epoch == 2
    assert report.log is not None
    assert report.log["epochs"] == [2, rollout.last_epoch]
    assert set(report.variants) == {"old", "newer"}
    assert check(report, "sample_ratio_mismatch").severity == "info"
    assert len(report.results[0].epochs) >= 2


def test_outcomes_count_within_the_window_and_units_once_it_is_over(served: Served) -> None:
    start = served.clock.now
    early = [served.unit_of("old"), None]
    served.expose(str(early[0]))
    early[1] = served.unit_of("new")
    served.expose(str(early[1]))
    served.clock.now = start + DAY
    late = served.unit_of("old")
    served.expose(late)
    served.clock.now = start + 7 * DAY - 1
    served.record(str(early[0]), "spend", 5.0)
    served.record(str(early[1]), "spend", 7.0)
    served.clock.now = start + 7 * DAY
    served.record(str(early[0]), "spend", 100.0)  # exactly at the end of the window: outside
    report = served.analyze(metrics=["spend"], window="7d")
    spend = result(report, "spend")
    assert report.variants == {"new": 1, "old": 1}
    assert (spend.estimate.mean_control, spend.estimate.mean_treatment) == (5.0, 7.0)
    text = check(report, "watermark").text
    assert "matured: 2 of 3 units; outcomes within 7 d of exposure, data until 2023-11-21" in text
    assert report.log is not None
    assert report.log["matured"] == 2
    assert report.log["watermark"] == "2023-11-21T22:13:20Z"
    served.clock.now = start + 8 * DAY
    served.record(late, "stars", 1.0)  # the unit of the second day matures exactly now
    assert served.analyze(metrics=["spend"], window=7 * DAY).variants == {"new": 1, "old": 2}
    assert served.analyze(metrics=["spend"]).results[0].estimate.mean_control == 52.5
    known = served.analyze(metrics=["spend"], window="7d", watermark="2023-11-22T22:13:19+00:00")
    assert known.variants == {"new": 1, "old": 1}


def test_a_window_that_nobody_has_passed_says_when_the_first_will(served: Served) -> None:
    for variant in ("old", "new"):
        unit = served.unit_of(variant)
        served.expose(unit)
        served.record(unit, "spend", 1.0)
    with pytest.raises(DataError, match="none of 2 units was exposed 1 d before") as e:
        served.analyze(metrics=["spend"], window="24h")
    assert "the first matures at 2023-11-15 22:13 UTC" in str(e.value)


def test_outcomes_before_the_exposure_are_covariates_and_no_outcomes(served: Served) -> None:
    serve_some(served)
    report = served.analyze(metrics=["bought"], covariates=["spend", "latency"])
    assert report.results[0].estimate.variance_reduction is not None
    scope = Scope(experiment="ranker", epochs=(1, 1), metrics=(LATENCY,), before=(SPEND, STARS))
    with open_events(served.workspace.path) as events:
        units = events.units(scope).table.to_pandas()
    assert (units["spend before exposure"] > 0).all()
    assert (units["stars before exposure"] == 0).all()  # nobody had any


def test_an_outcome_counts_from_a_minute_before_the_exposure_on(served: Served) -> None:
    for variant in ("old", "new"):
        unit = served.unit_of(variant)
        served.record(unit, "spend", 100.0)
        served.clock.now += 1.0
        served.record(unit, "spend", 3.0)  # 60 s before: code records first and exposes then
        served.clock.now += 60.0
        served.expose(unit)
    report = served.analyze(metrics=["spend"])
    assert result(report, "spend").estimate.mean_control == 3.0


def test_a_missing_outcome_is_zero_or_left_out_as_the_metric_says(served: Served) -> None:
    for variant in ("old", "new"):
        for value in (3.0, None, 5.0):
            unit = served.unit_of(variant)
            served.expose(unit)
            if value is not None:
                served.record(unit, "spend", value)
                served.record(unit, "stars", value)
    report = served.analyze(metrics=["spend", "stars"])
    spend, stars = report.results
    assert (spend.estimate.n_control, spend.estimate.mean_control) == (3, pytest.approx(8 / 3))
    assert (stars.estimate.n_control, stars.estimate.mean_control) == (2, 4.0)


def test_a_crossover_counts_for_its_first_variant_until_it_meets_the_second(served: Served) -> None:
    serve_some(served, units=30)
    mover = next(
        unit
        for unit in (f"mover-{i}" for i in range(1_000))
        if served.client.variant("ranker", unit) == "old"
        and experiment_after(served, unit) == "new"
    )
    served.expose(mover)
    served.record(mover, "stars", 2.0)
    served.workspace.publish(experiment().reweight({"old": 0.1, "new": 0.9}))
    served.clock.now += 100.0
    assert served.expose(mover) == "new"
    served.record(mover, "stars", 5.0)
    report = served.analyze(metrics=["stars"])
    crossed = check(report, "crossover_units")
    assert (crossed.severity, crossed.text[:6]) == ("info", "1 unit")
    with open_events(served.workspace.path) as events:
        rows = events.units(
            Scope(experiment="ranker", epochs=(1, 2), metrics=(STARS,))
        ).table.to_pylist()
    row = next(row for row in rows if row["unit_id"] == mover)
    assert (row["variant"], row["epoch"], row["stars"]) == ("old", 1, 2.0)


def experiment_after(served: Served, unit: str) -> str:
    return Client.from_experiments([experiment().reweight({"old": 0.1, "new": 0.9})]).variant(
        "ranker", unit
    )


def test_a_unit_in_two_variants_of_one_epoch_blocks(served: Served, tmp_path: Path) -> None:
    serve_some(served, units=30)
    unit, variant = next(iter(served.units.items()))
    other = Client.from_experiments([experiment()])
    with contextlib.closing(other):
        wrong = next(
            arm
            for arm in (other.assign("ranker", f"x-{i}") for i in range(100))
            if arm.variant != variant
        )
    served.client.expose(type(wrong)(unit, wrong.arm))
    report = served.analyze(metrics=["stars"])
    assert check(report, "crossover_units").severity == "block"


def test_a_quiet_live_writer_holds_the_watermark_back(served: Served) -> None:
    serve_some(served, units=40)
    assert served.client.flush()
    quiet = served.clock.now
    with Client(served.workspace.path, poll_seconds=0.0, clock=served.clock) as second:
        for number in range(40):
            served.clock.now += 100.0
            second.expose(second.assign("ranker", f"other-{number}"))
        assert second.flush()
        report = served.analyze(metrics=["spend"])
        assert report.log is not None
        assert report.log["exposed"] == 80
        assert "a live writer has logged nothing since" in check(report, "watermark").text
    served.client.close()
    after = abkit.analyze(served.workspace.path, experiment="ranker", metrics=["spend"])
    assert after.log is not None
    assert after.log["watermark"] > report.log["watermark"]
    assert "a live writer" not in check(after, "watermark").text
    assert quiet < served.clock.now


def test_the_analysis_is_the_same_beside_a_controller_and_after_compaction(served: Served) -> None:
    serve_some(served, units=60)
    before = served.analyze(metrics=["spend", "stars"]).to_dict()
    with Controller(served.workspace, clock=served.clock) as controller:
        controller.tick()
        assert served.analyze(metrics=["spend", "stars"]).to_dict() == before
    served.client.close()
    with Ingester(served.workspace, clock=served.clock) as ingester:
        ingester.ingest()
        compact(ingester)
        assert list((served.workspace.path / "archive").glob("*/date=*/*.parquet"))
    for data in (served.workspace, StoreReader(served.workspace.path), str(served.workspace.path)):
        report = abkit.analyze(data, experiment="ranker", metrics=["spend", "stars"])
        assert report.to_dict() == before


def test_options_of_tables_work_on_a_workspace(served: Served) -> None:
    serve_some(served)
    report = served.analyze(
        metrics=["stars"],
        ratios={"per star": ("spend", "stars")},
        margins={"stars": -0.5},
        winsorize={"spend": 0.99},
        correction="holm",
        bayes=True,
        alpha=0.1,
    )
    assert [item.metric for item in report.results] == ["stars", "per star"]
    assert check(report, "winsorized").severity == "info"
    assert report.results[0].posterior is not None


def test_the_command_reads_a_workspace(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    serve_some(served)
    assert served.client.flush()
    folder = str(served.workspace.path)
    assert main(["analyze", folder, "--experiment", "ranker", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == served.analyze().to_dict()
    assert main(["analyze", folder, "--experiment", "ranker", "--window", "1h"]) == 0
    assert "matured:" in capsys.readouterr().out
    assert main(["analyze", folder, "--experiment", "ranker", "--format", "words"]) == 0
    assert "400 units were compared" in capsys.readouterr().out


def test_bad_questions_get_an_answer_that_says_what_to_do(served: Served, tmp_path: Path) -> None:
    def refused(kind: type[Exception], pattern: str, data: object = None, **options: Any) -> None:
        with pytest.raises(kind, match=pattern):
            abkit.analyze(data or served.workspace.path, **options)

    refused(DataError, "no outcome of bought, spend.*is in the log yet", experiment="ranker")
    refused(DataError, "the log has no outcomes yet", experiment="ranker", metrics=["spend"])
    served.record("nobody", "spend", 1.0)
    assert served.client.flush()
    refused(DataError, r"no exposure of 'ranker'.*expose\(\)", experiment="ranker")
    serve_some(served, units=30)
    assert served.client.flush()
    refused(UnknownExperimentError, "did you mean 'ranker'", experiment="rankr")
    refused(ConfigError, "needs experiment.*there is ranker")
    refused(DataError, "did you mean 'spend'", experiment="ranker", metrics=["spent"])
    refused(DataError, "did you mean 'stars'", experiment="ranker", covariates=["star"])
    refused(ConfigError, "declared as 'mean'", experiment="ranker", metrics={"spend": "proportion"})
    refused(ConfigError, "unit is for tables", experiment="ranker", unit="user")
    refused(ConfigError, "missing is for tables", experiment="ranker", missing="zero")
    refused(ConfigError, "hold no attributes", experiment="ranker", segments=["country"])
    for window in ("7 parsecs", 0, -1, True, math.inf, "1e9w"):
        refused(ConfigError, "window must be", experiment="ranker", window=window)
    refused(ConfigError, "watermark must be", experiment="ranker", watermark="tomorrow")
    refused(DataError, "no control 'older'", experiment="ranker", control="older")
    refused(ConfigError, "no workspace", tmp_path, experiment="ranker")
    table = tmp_path / "table.csv"
    table.write_text("unit,variant,spend\n1,a,1\n2,b,2\n")
    refused(
        ConfigError,
        "experiment is for a workspace",
        table,
        unit="unit",
        variant="variant",
        control="a",
        experiment="ranker",
    )
    refused(ConfigError, "a table needs unit", table, variant="variant", control="a")
    refused(ConfigError, "a table needs control", table, unit="unit", variant="variant")


def test_an_experiment_that_is_not_published_needs_a_control(served: Served) -> None:
    serve_some(served, units=30)
    assert served.client.flush()
    served.workspace.snapshot_path.unlink()
    with pytest.raises(ConfigError, match="no snapshot says which variant is its control"):
        served.analyze(metrics=["spend"])
    report = served.analyze(metrics=["spend"], control="old")
    assert report.results[0].control == "old"


def test_a_declared_metric_without_outcomes_is_left_out_and_named(served: Served) -> None:
    for variant in ("old", "new"):
        for value in (1.0, 2.0):
            unit = served.unit_of(variant)
            served.expose(unit)
            served.record(unit, "stars", value)
    report = served.analyze()
    assert [item.metric for item in report.results] == ["stars"]
    assert "bought, spend, latency" in check(report, "unrecorded_metrics").text


def test_a_lift_of_logarithms_is_that_of_the_values(served: Served) -> None:
    serve_some(served)
    report = served.analyze(metrics=["latency"], quantiles={"latency": 0.5}, segments=["epoch"])
    for item in report.results:
        found, interval = item.estimate, item.estimate.interval
        assert found.lift == pytest.approx(math.expm1(found.difference))
        assert found.lift_interval.lower == pytest.approx(math.expm1(interval.lower))
        assert found.lift_interval.upper == pytest.approx(math.expm1(interval.upper))
    with pytest.raises(ConfigError, match=r"'latency' are logarithms.*a margin of 5 % is 0.04879"):
        served.analyze(metrics=["latency"], margins={"latency": "5%"})
