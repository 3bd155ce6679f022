"""`analyze` with time, looks and a design: the table as it came in."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import duckdb
import numpy as np
import pandas as pd
import pytest

from abkit.analysis import Report, Result, analyze
from abkit.cli import main
from abkit.comoments import Comoments
from abkit.errors import ConfigError, DataError
from abkit.moments import Block
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.counts import CountBlock, CountMixture
from abkit.sequential.group import GroupSequential
from abkit.sequential.hypergeometric import HypergeometricMixture
from abkit.sequential.msprt import FixedTauMixture
from abkit.stats.winsor import WinsorRule
from abkit.stats.within import comparable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from abkit.sequential.design import Contrast, Look

N, LOOKS = 4_000, 5


def made() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    frame = pd.DataFrame({"user": np.arange(N), "arm": rng.choice(["a", "b"], N)})
    frame["at"] = pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.random(N) * 20, unit="D")
    frame["at"] = frame["at"].dt.floor("us")  # what every form of the table can hold
    frame["epoch"] = (frame["at"] >= pd.Timestamp("2026-03-09")).map({False: "1", True: "2"})
    frame["before"] = rng.normal(10, 3, N)
    frame["views"] = rng.poisson(5, N) + 1
    frame["clicks"] = rng.binomial(frame.views, 0.3)
    frame["errors"] = rng.poisson(0.3 + 0.1 * (frame.arm == "b"))
    frame["spend"] = 2 * frame.before + rng.normal(0, 2, N) + 0.35 * (frame.arm == "b")
    frame["bought"] = (rng.random(N) < 0.2 + 0.06 * (frame.arm == "b")).astype(int)
    return frame


FRAME = made()
PLANNED = {"always-valid": N, "calibrated": N}
PLAN = ("--planned-units", "5000")
DESIGNS = ("fixed", "group-sequential", "obf", "pocock", "always-valid", "calibrated")


def run(frame: object = FRAME, *, design: object = "always-valid", **options: Any) -> Report:
    asked = {"unit": "user", "variant": "arm", "control": "a", "time": "at", "looks": LOOKS}
    if isinstance(design, str):
        asked["planned_units"] = PLANNED.get(design)
    return analyze(frame, design=design, **(asked | options))


def only(frame: object = FRAME, **options: Any) -> Result:
    (result,) = run(frame, **options).results
    return result


def seen(k: int, frame: pd.DataFrame = FRAME, *, new: bool = False) -> pd.DataFrame:
    """The rows of the first k of equal looks, or those that look k is the first to see."""
    order = frame.sort_values("at")
    return order.iloc[(k - 1) * N // LOOKS if new else 0 : k * N // LOOKS]


def arms(frame: pd.DataFrame, *names: str) -> tuple[Comoments, Comoments]:
    a, b = (Comoments.of({n: frame[n][frame.arm == arm] for n in names}) for arm in "ab")
    return a, b


def contrast(frame: pd.DataFrame, *names: str, kind: Any = "mean") -> Contrast:
    control, treatment = (arm.moments(names[0]) for arm in arms(frame, *names))
    return stratified_contrast([(control, treatment)], kind=kind)


def by_hand(design: Any, data: Sequence[Any]) -> list[Look]:
    looks: list[Look] = []
    for item in data:
        looks.append(design.look(item, looks))
    return looks


def same(found: Result, expected: Sequence[Look]) -> None:
    for timed, look in zip(found.looks, expected, strict=True):
        got = timed.look
        assert (got.method, got.status, got.decision) == (look.method, look.status, look.decision)
        for name in ("estimate", "information", "p_value", "e_value", "boundary", "statistic"):
            value = getattr(look, name)
            assert getattr(got, name) == (
                value if value is None else pytest.approx(value, rel=1e-7)
            )
        if look.interval is not None:
            assert got.interval is not None
            assert got.interval.lower == pytest.approx(look.interval.lower, rel=1e-7, abs=1e-9)


# ---- a look is what the table said by then ------------------------------------------------------


def test_looks_are_cumulative_and_of_equal_size() -> None:
    found = only(metrics=["spend"])
    assert [k.n_control + k.n_treatment for k in found.looks] == [800, 1600, 2400, 3200, 4000]
    assert [k.number for k in found.looks] == [1, 2, 3, 4, 5]
    times = [k.time for k in found.looks]
    assert times == sorted(times)  # type: ignore[type-var]
    assert times[-1] == FRAME["at"].max().to_pydatetime()


def test_looks_may_be_spaced_by_time() -> None:
    found = only(metrics=["spend"], spacing="time")
    whole = FRAME["at"].max() - FRAME["at"].min()
    for k, look in enumerate(found.looks, start=1):
        moment = FRAME["at"].min() + whole * k / LOOKS
        assert look.n_control + look.n_treatment == (FRAME["at"] <= moment).sum()


def test_looks_may_be_named_and_later_rows_are_left_out() -> None:
    named: list[object] = ["2026-03-05", datetime(2026, 3, 11, 12)]  # noqa: DTZ001 - as the column
    report = run(metrics=["spend"], looks=named)
    found = report.results[0].looks
    assert [k.time for k in found] == [datetime(2026, 3, 5), datetime(2026, 3, 11, 12)]  # noqa: DTZ001
    units = (FRAME["at"] <= pd.Timestamp("2026-03-11 12:00")).sum()
    assert sum(report.variants.values()) == units == found[-1].n_control + found[-1].n_treatment
    (late,) = (check for check in report.checks if check.id == "late_rows")
    assert late.text.startswith(f"{N - units:,} rows")


@pytest.mark.parametrize("design", DESIGNS)
def test_the_last_look_is_the_analysis_of_the_whole_table(design: str) -> None:
    names: dict[str, Any] = {"metrics": ["spend", "bought"], "ratios": {"ctr": ("clicks", "views")}}
    many = run(design=design, **names).results
    once = run(design=design, time=None, looks=None, **names).results
    plain = run(design=None, time=None, looks=None, planned_units=None, **names).results
    for last, one, old in zip(many, once, plain, strict=True):
        for name in ("n_control", "mean_treatment", "difference", "lift"):
            expected = pytest.approx(getattr(old.estimate, name), rel=1e-9)
            assert getattr(last.estimate, name) == expected
            assert getattr(one.estimate, name) == expected
        if design in ("fixed", "always-valid"):  # no look costs another anything
            assert one.estimate.interval is not None
            assert last.estimate.interval is not None
            assert last.estimate.interval.lower == pytest.approx(one.estimate.interval.lower)
        if design == "fixed":
            assert last.estimate.p_value == pytest.approx(old.estimate.p_value, rel=1e-9)
            assert last.estimate.method == old.estimate.method


@pytest.mark.parametrize("kind", ["date", "number", "nanoseconds", "zone"])
def test_times_of_any_kind(kind: str) -> None:
    at = {
        "date": FRAME["at"].dt.date,
        "number": (FRAME["at"] - FRAME["at"].min()).dt.total_seconds(),
        "nanoseconds": FRAME["at"].astype("datetime64[ns]"),
        "zone": FRAME["at"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
    }[kind]
    found = only(FRAME.assign(at=at), metrics=["spend"])
    expected = only(metrics=["spend"])
    if kind == "date":  # rows of one day are seen together
        assert all(isinstance(k.time, datetime) and k.time.hour == 0 for k in found.looks)
        assert found.looks[0].n_control > expected.looks[0].n_control
        return
    assert [k.n_control for k in found.looks] == [k.n_control for k in expected.looks]
    if kind == "zone":
        assert found.looks[0].time == expected.looks[0].time


def test_order_and_form_of_the_table_do_not_matter(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    path = tmp_path / "table.csv"
    FRAME.to_csv(path, index=False)
    FRAME.to_parquet(tmp_path / "table.parquet")
    mixed = FRAME.sample(frac=1, random_state=1)
    reports = [
        run(table, metrics=["spend", "bought"]).to_dict()
        for table in (FRAME, mixed, polars.from_pandas(FRAME), path, tmp_path / "table.parquet")
    ]
    first = reports[0]["results"]
    for other in reports[1:]:
        for a, b in zip(first, other["results"], strict=True):
            for one, two in zip(a["looks"], b["looks"], strict=True):
                assert one["time"] == two["time"]
                assert one["n_control"] == two["n_control"]
                assert one["estimate"] == pytest.approx(two["estimate"], rel=1e-9)
                assert one["e_value"] == pytest.approx(two["e_value"], rel=1e-9)


def test_one_query_over_the_data_whatever_the_metrics_and_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    connect = duckdb.connect

    class Counted:
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def execute(self, query: str, *rest: Any) -> Any:
            asked.append(query)
            return self.connection.execute(query, *rest)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.connection.close()

    monkeypatch.setattr(duckdb, "connect", lambda *a, **k: Counted(connect(*a, **k)))
    counts = []
    for looks, names in ((1, ["spend"]), (50, ["spend", "bought", "errors", "views"])):
        asked.clear()
        run(metrics=names, looks=looks, covariates=["before"])
        passes = [q for q in asked if "GROUPING SETS" in q or "var_pop" in q]
        assert len(passes) == 2  # the moments, and what the checks need
        counts.append(len(asked))
    assert counts[0] == counts[1]


# ---- each design is its module, called by hand --------------------------------------------------


def test_designs_for_means_are_theirs() -> None:
    data = [contrast(seen(k), "spend") for k in range(1, LOOKS + 1)]
    h, v = data[-1].h, data[-1].v
    for name, design in (
        ("always-valid", AlwaysValid(planned_units=int(4 * h))),
        ("calibrated", CalibratedMixture(planned_units=int(4 * h))),
        ("group-sequential", GroupSequential(planned_information=v, clock="contrast_variance")),
        ("msprt:0.01", FixedTauMixture(tau2=0.01)),
    ):
        same(only(design=name, metrics=["spend"]), by_hand(design, data))
        same(only(design=design, metrics=["spend"]), by_hand(design, data))


def test_proportions_wait_for_events() -> None:
    data = [contrast(seen(k), "bought", kind="proportion") for k in range(1, LOOKS + 1)]
    design = AlwaysValid(planned_units=N, alternative="greater")
    same(only(design=design, metrics=["bought"], alternative="greater"), by_hand(design, data))


def test_covariates_ratios_and_epochs_are_compared_as_they_are_for_one_look() -> None:
    design = AlwaysValid(planned_units=N)
    terms: list[tuple[Any, dict[str, Any]]] = [
        ("spend", {"metrics": ["spend"]}),
        (("clicks", "views"), {"ratios": {"ctr": ("clicks", "views")}}),
    ]
    for (term, named), covariates, epoch in itertools.product(
        terms, ([], ["before"]), (None, "epoch")
    ):
        data = []
        for k in range(1, LOOKS + 1):
            table = seen(k)
            parts = [table] if epoch is None else [p for _, p in table.groupby("epoch")]
            columns = [*([term] if isinstance(term, str) else term), *covariates]
            pairs = comparable(
                [arms(part, *columns) for part in parts], metric=term, covariates=covariates
            )
            assert not isinstance(pairs, str)
            data.append(stratified_contrast(pairs, kind="mean"))
        found = only(design=design, covariates=covariates, epoch=epoch, **named)
        same(found, by_hand(design, data))
        assert bool(found.epochs) == (epoch is not None)


def test_theta_is_estimated_anew_at_each_look() -> None:
    plain, adjusted = only(metrics=["spend"]), only(metrics=["spend"], covariates=["before"])
    for one, other in zip(plain.looks, adjusted.looks, strict=True):
        assert one.look.interval is not None
        assert other.look.interval is not None
        width = one.look.interval.upper - one.look.interval.lower
        assert other.look.interval.upper - other.look.interval.lower < 0.5 * width
    assert adjusted.estimate.variance_reduction is not None


@pytest.mark.parametrize("border", [-0.3, 0.9])
def test_a_margin_moves_the_null_of_any_design(border: float) -> None:
    side: Any = "greater" if border < 0 else "less"
    data = [contrast(seen(k), "spend") for k in range(1, LOOKS + 1)]
    design = AlwaysValid(planned_units=N, alternative=side)
    found = only(design=design, metrics=["spend"], margins={"spend": border})
    expected = AlwaysValid(planned_units=N, alternative=side, margin=border)
    same(found, by_hand(expected, data))
    assert found.estimate.margin == border
    assert (
        f"is {'shown' if found.rejected else 'not shown'}"
        in run(design=design, metrics=["spend"], margins={"spend": border}).explain()
    )


def test_the_hypergeometric_mixture_gets_a_block_for_each_look_and_epoch() -> None:
    design = HypergeometricMixture()
    state, looks = design.start(), []
    for k in range(1, LOOKS + 1):
        for _, part in seen(k, new=True).groupby("epoch"):
            (c, t) = (arm.moments("bought") for arm in arms(part, "bought"))
            state = state.update(Block(c.n, t.n, c.successes, t.successes))
        looks.append(design.look(state, looks))
    found = only(design="hypergeometric", metrics=["bought"], epoch="epoch")
    same(found, looks)
    assert found.estimate.guarantee == "anytime-valid"
    assert found.estimate.interval is not None
    assert found.estimate.difference in found.estimate.interval  # type: ignore[operator]
    assert "tested is the odds ratio" in found.notes[0]


def test_counts_per_unit_and_per_exposure() -> None:
    for named, exposure in (
        ({"metrics": ["errors"]}, None),
        ({"ratios": {"rate": ("errors", "views")}}, "views"),
    ):
        design = CountMixture()
        state, looks = design.start(), []
        for k in range(1, LOOKS + 1):
            part = seen(k, new=True)
            events = [int(part.errors[part.arm == arm].sum()) for arm in "ab"]
            at_risk = [
                float(
                    (part.arm == arm).sum()
                    if exposure is None
                    else part[exposure][part.arm == arm].sum()
                )
                for arm in "ab"
            ]
            state = state.update(CountBlock(*events, *at_risk))
            looks.append(design.look(state, looks))
        found = only(design="counts", **named)
        same(found, looks)
        assert found.rejected


def test_counts_that_cluster_block_the_report() -> None:
    frame = FRAME.assign(errors=FRAME.errors * 5)
    report = run(frame, design="counts", metrics=["errors"])
    assert "overdispersed_counts" in {c.id for c in report.checks if c.severity == "block"}
    assert report.explain().split(".")[1].startswith(" Do not decide")


# ---- decisions ----------------------------------------------------------------------------------


def test_a_result_says_when_it_was_decided() -> None:
    found = only(design="hypergeometric", metrics=["bought"])
    decisions = [k.look.decision for k in found.looks]
    assert found.rejected
    assert found.stopped is not None
    assert found.stopped.number == decisions.index("reject") + 1
    assert found.decision == "reject"
    assert found.estimate.e_value == found.looks[-1].look.e_value
    report = run(design="hypergeometric", metrics=["bought"])
    assert f"the null is rejected at {found.stopped.words} of 5 looks" in report.explain()
    row = report.to_pandas().iloc[0]
    assert (row.design, row.stopped_look) == ("hypergeometric", found.stopped.number)
    plain = report.to_dict()["results"][0]
    assert plain["stopped"] == {"look": found.stopped.number, "time": found.stopped.moment}
    assert len(plain["looks"]) == LOOKS


@pytest.mark.parametrize(
    ("design", "words"),
    [
        ("fixed", "one look that was planned"),
        ("group-sequential", "all looks together up to the planned end"),
        ("always-valid", "anytime-valid"),
        ("hypergeometric", "anytime-valid"),
    ],
)
def test_the_guarantee_is_the_designs(design: str, words: str) -> None:
    report = run(design=design, metrics=["bought"])
    assert words in report.explain()
    assert report.results[0].estimate.alpha == 0.05


def test_fixed_ignores_every_look_but_the_last() -> None:
    found = only(design="fixed", metrics=["spend"])
    assert [k.look.p_value is None for k in found.looks] == [True] * 4 + [False]
    early = only(design="fixed", metrics=["spend"], planned_units=2 * N)
    assert (early.decision, early.estimate.p_value) == ("continue", None)
    assert early.estimate.interval is None
    assert "50.0% of the planned units" in early.notes[-1]


def test_fixed_stands_by_its_one_look_when_units_keep_coming() -> None:
    found = only(design="fixed", metrics=["spend"], planned_units=N // 2)
    (control, treatment) = (arm.moments("spend") for arm in arms(seen(3), "spend"))
    assert found.looks[2].look.p_value == found.estimate.p_value
    assert found.estimate.n_control == control.n
    assert found.estimate.mean_treatment == pytest.approx(treatment.mean)


def test_planned_units_beyond_the_table_leave_alpha_over() -> None:
    whole = only(design="group-sequential", metrics=["spend"])
    half = only(design="group-sequential", metrics=["spend"], planned_units=2 * N)
    assert whole.looks[-1].look.alpha_spent == pytest.approx(0.05)
    assert half.looks[-1].look.fraction == pytest.approx(0.5)
    assert half.looks[-1].look.alpha_spent < 0.01  # type: ignore[operator]
    assert "planned_units names another" in whole.notes[0]
    information = 3 * (whole.looks[-1].look.information)
    third = only(design="group-sequential", metrics=["spend"], max_information=information)
    assert third.looks[-1].look.fraction == pytest.approx(1 / 3)


def test_a_group_sequential_p_value_waits_for_the_end() -> None:
    frame = FRAME.assign(spend=FRAME.spend - 0.35 * (FRAME.arm == "b"))
    assert (
        only(frame, design="pocock", metrics=["spend"], planned_units=2 * N).estimate.p_value
        is None
    )
    ended = only(frame, design="pocock", metrics=["spend"])
    assert ended.estimate.p_value is not None
    assert not ended.rejected
    stopped = only(design="pocock", metrics=["bought"])
    assert stopped.rejected
    assert stopped.estimate.p_value is not None
    assert stopped.estimate.p_value <= 0.05


def test_e_values_of_several_metrics_go_into_ebh() -> None:
    report = run(metrics=["spend", "bought"], correction="ebh")
    assert all(item.estimate.e_value is not None for item in report.results)


def test_several_treatments_are_each_planned_by_their_part() -> None:
    arm = np.where(FRAME.user % 3 == 0, "c", FRAME.arm)
    found = run(FRAME.assign(arm=arm), metrics=["spend"], weights={"a": 1, "b": 1, "c": 1}).results
    for item in found:
        assert item.looks[-1].look.fraction == pytest.approx(1.0, abs=0.01)


@dataclass(frozen=True)
class Threshold:
    """A design of somebody else's: anything with a method look."""

    alpha: float = 0.01

    def look(self, data: Contrast, past: Sequence[Look] = ()) -> Look:
        return AlwaysValid(planned_units=100, alpha=self.alpha).look(data, past)


def test_a_design_of_ones_own() -> None:
    found = only(design=Threshold(), metrics=["spend"])
    assert (found.design, found.level, found.estimate.alpha) == ("Threshold", 0.01, 0.01)


# ---- what is not usable -------------------------------------------------------------------------


def test_degenerate_tables_have_a_status_at_every_look() -> None:
    constant = FRAME.assign(spend=1.0, bought=0, errors=0)
    for design in (*DESIGNS, "hypergeometric", "counts", "msprt:1"):
        metric = {"hypergeometric": "bought", "counts": "errors"}.get(design, "spend")
        found = only(constant, design=design, metrics=[metric])
        assert not found.rejected
        assert found.estimate.status in ("zero_variance", "insufficient_data")
        run(constant, design=design, metrics=[metric]).to_json()
    one = FRAME.assign(arm=np.where(FRAME["at"] < FRAME["at"].median(), "a", "b"))
    for design in DESIGNS:
        found = only(one, design=design, metrics=["spend"], looks=4, weights={"a": 1, "b": 1})
        assert found.looks[0].look.status == "insufficient_data"
    few = FRAME.head(12)
    for design in DESIGNS:
        assert (
            only(few, design=design, metrics=["spend"], looks=12).looks[0].look.decision
            == "continue"
        )


def test_looks_without_new_rows_change_nothing() -> None:
    gap = FRAME[
        (FRAME["at"] < pd.Timestamp("2026-03-03")) | (FRAME["at"] > pd.Timestamp("2026-03-18"))
    ]
    for design in DESIGNS:
        found = only(gap, design=design, metrics=["spend"], looks=20, spacing="time")
        assert len(found.looks) == 20
        assert found.looks[10].n_control == found.looks[9].n_control


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"design": "always"}, "no design 'always'; did you mean 'always-valid'"),
        ({"design": "always-valid", "planned_units": None}, "needs planned_units"),
        ({"design": "msprt"}, "msprt:0.0001"),
        ({"design": "msprt:x"}, "prior variance must be a number above 0"),
        ({"design": "fixed:3"}, "'fixed' takes no number"),
        ({"design": "msprt:1", "alternative": "less"}, "two-sided"),
        ({"design": 7}, "an object with a method look"),
        ({"design": None}, "needs a design that makes looks safe"),
        ({"time": None}, "both time, a column, and looks"),
        ({"looks": None}, "both time, a column, and looks"),
        ({"looks": 0}, "looks must be a whole number >= 1"),
        ({"looks": []}, "at least one"),
        ({"looks": "2026-03-01"}, "a number or a list"),
        ({"looks": ["soon"]}, "'soon' is no moment"),
        ({"looks": 2_000}, "2,000 looks are more than 1,000"),
        ({"spacing": "rows"}, "spacing must be one of units, time"),
        ({"segments": ["epoch"]}, "does not go with segments"),
        ({"correction": "holm"}, "does not go with correction 'holm'"),
        ({"method": "fisher", "metrics": ["bought"]}, "leave out method 'fisher'"),
        ({"design": "hypergeometric"}, "compares proportions; 'spend' is a mean"),
        ({"design": "counts", "covariates": ["before"]}, "compares counts"),
        ({"winsorize": {"spend": 0.9}}, "give a WinsorRule"),
        ({"design": "fixed", "max_information": 3.0}, "max_information is for group sequential"),
        ({"design": AlwaysValid(planned_units=9), "planned_units": 9}, "belongs into the design"),
        (
            {"design": AlwaysValid(planned_units=9, alternative="less")},
            "alternative is 'less', but the comparison is 'two-sided'",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(**({"metrics": ["spend"]} | options))
    assert words in str(caught.value)


def test_bad_times_are_named() -> None:
    holes = FRAME.assign(at=FRAME["at"].where(FRAME.user > 2))
    with pytest.raises(DataError, match="time 'at' is missing or infinite in 3 rows"):
        run(holes, metrics=["spend"])
    with pytest.raises(DataError, match="time 'arm' holds VARCHAR, no timestamps"):
        run(metrics=["spend"], time="arm")
    with pytest.raises(DataError, match="no column 'att' for the time; did you mean 'at'"):
        run(metrics=["spend"], time="att")
    with pytest.raises(ConfigError, match="'soon' is no number, as 'user' holds"):
        run(metrics=["spend"], time="user", looks=["soon"])
    with pytest.raises(DataError, match="no row came by the last look"):
        run(metrics=["spend"], looks=["2020-01-01"])
    with pytest.raises(DataError, match="needs whole numbers of events"):
        run(design="counts", metrics=["spend"])


def test_a_fixed_cap_goes_with_looks() -> None:
    rule = WinsorRule(upper=25.0, origin="last year")
    found = only(metrics=["spend"], winsorize={"spend": rule})
    assert found.estimate.mean_control == pytest.approx(
        FRAME.spend[FRAME.arm == "a"].clip(upper=25.0).mean()
    )


# ---- on the command line ------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    path = tmp_path / "table.csv"
    FRAME.to_csv(path, index=False)
    words = ["analyze", str(path), "--unit", "user", "--variant", "arm", "--control", "a"]
    return [*words, "--metric", "bought", "--time", "at"]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--looks", "5", "--design", "fixed"], {"design": "fixed"}),
        (
            ["--looks", "4", "--spacing", "time", "--design", "calibrated", *PLAN],
            {"looks": 4, "spacing": "time", "design": "calibrated", "planned_units": 5_000},
        ),
        (
            ["--looks", "2026-03-05,2026-03-12T06:00", "--design", "hypergeometric"],
            {"looks": ["2026-03-05", "2026-03-12T06:00"], "design": "hypergeometric"},
        ),
        (
            ["--looks", "3", "--design", "pocock", "--max-information", "150.5"],
            {"looks": 3, "design": "pocock", "max_information": 150.5},
        ),
    ],
)
def test_the_command_gives_what_the_function_gives(
    command: list[str],
    words: list[str],
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = run(command[1], metrics=["bought"], **options)
    assert main([*command, *words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(expected.to_json())
    assert main([*command, *words]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"by the design {options['design']}" in shown
    assert main([*command, *words, "--format", "words"]) == 0
    assert f"By the design {options['design']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--looks", "3"], "needs a design that makes looks safe: one of fixed"),
        (["--looks", "3", "--design", "calibrated"], "(--planned-units)"),
        (["--looks", "x,y", "--design", "fixed"], "'x' is no moment"),
        (["--design", "fixed"], "both time, a column, and looks"),
    ],
)
def test_the_command_says_what_is_missing(
    command: list[str], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *words]) == 2
    assert message in capsys.readouterr().err


# ---- the promise, through the front door --------------------------------------------------------


def wrong(table: pd.DataFrame, **options: Any) -> dict[str, bool]:
    """Which designs reject."""
    asked = {"metrics": ["x"], "planned_units": len(table)} | options
    found = {
        design: only(table, design=design, **asked).rejected
        for design in ("calibrated", "group-sequential")
    }
    item = only(table, design="always-valid", **asked)
    # Somebody who takes every look for the only one.
    found["naive"] = any(
        abs(k.look.statistic or 0.0) > 1.96 for k in item.looks if k.look.status == "ok"
    )
    return found


def test_looks_at_an_a_a_test_do_not_reject_too_often() -> None:
    """40 A/A tables of 10 looks: more than 9 false rejections have a chance below 1e-4 at 5 %."""
    rng = np.random.default_rng(5)
    counts = dict.fromkeys(("calibrated", "group-sequential", "naive"), 0)
    for _ in range(40):
        n = 600
        table = pd.DataFrame({"user": range(n), "at": np.arange(n), "x": rng.normal(size=n)})
        table["arm"] = rng.choice(["a", "b"], n)
        for name, rejects in wrong(table, looks=10).items():
            counts[name] += rejects
    assert counts["calibrated"] <= 9
    assert counts["group-sequential"] <= 9
    assert counts["naive"] > 4  # what they are for


def test_a_ramp_with_drift_is_no_effect_within_epochs() -> None:
    rng = np.random.default_rng(6)
    counts = dict.fromkeys(("calibrated", "group-sequential"), 0)
    pooled = 0
    for _ in range(10):
        epoch = np.repeat([1, 2, 3], 500)
        share = np.array([0.05, 0.25, 0.5])[epoch - 1]
        table = pd.DataFrame({"user": range(1_500), "at": np.arange(1_500), "epoch": epoch})
        table["x"] = rng.normal(epoch * 0.5)
        table["arm"] = np.where(rng.random(1_500) < share, "b", "a")
        found = wrong(table, looks=9, epoch="epoch")
        for name in counts:
            counts[name] += found[name]
        pooled += wrong(table, looks=9, weights={"a": 1, "b": 1})["calibrated"]
    assert max(counts.values()) <= 5  # a chance below 1e-5 at 5 %
    assert pooled >= 7


def test_moments_are_merged_not_summed() -> None:
    frame = FRAME.assign(spend=FRAME.spend + 1.7e9)
    found, expected = only(frame, metrics=["spend"]), only(metrics=["spend"])
    for one, other in zip(found.looks, expected.looks, strict=True):
        assert one.look.statistic == pytest.approx(other.look.statistic, rel=1e-5)
