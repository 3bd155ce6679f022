"""Quantiles, counts, clusters, pairs and relative margins in `analyze`: forms, edges, messages."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from rich.console import Console

from abkit.analysis import Report, analyze
from abkit.analysis.given import counts_of, margins_of, quantiles_of
from abkit.cli import main
from abkit.errors import ConfigError, DataError
from abkit.stats.quantile import quantile_difference, quantile_summary
from abkit.store import orders
from abkit.store.table import Columns, open_table
from abkit.terminal import print_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N = 400
ROLES = {"unit": "user", "variant": "arm", "control": "a"}


def rounded(found: Any) -> Any:
    """Plain data with its numbers at twelve digits."""
    if isinstance(found, float):
        return float(f"{found:.12g}")
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [rounded(value) for value in found]
    return found


def made() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"user": range(N), "arm": ["a", "b"] * (N // 2)})
    frame["latency"] = rng.lognormal(3, 1, N)
    frame["errors"] = rng.poisson(0.4, N)
    frame["hours"] = rng.uniform(1, 2, N)
    frame["spend"] = rng.gamma(3, 2, N)
    frame["before"] = rng.normal(size=N)
    frame["bought"] = rng.integers(0, 2, N)
    frame["epoch"] = rng.choice([1, 2], N)
    frame["place"] = rng.choice(["app", "web"], N)
    frame["who"] = frame.user // 4 * 2 + (frame.arm == "b")
    return frame


FRAME = made()


def pairs(frame: pd.DataFrame = FRAME) -> pd.DataFrame:
    """Every two rows as the two answers of one unit."""
    return frame.assign(user=frame.user // 2)


def run(frame: object = FRAME, **options: Any) -> Report:
    return analyze(frame, **(ROLES | options))


def printed(report: Report) -> str:
    file = io.StringIO()
    print_report(report, Console(file=file, width=160))
    return file.getvalue()


# ---- every kind of table, every form of report --------------------------------------------------


@pytest.mark.parametrize(
    "shape", [lambda f: f, pl.from_pandas, pa.Table.from_pandas, duckdb.from_df, None]
)
def test_every_kind_of_table_gives_the_same_quantile(
    shape: Callable[[pd.DataFrame], object] | None, tmp_path: Path
) -> None:
    path = tmp_path / "units.csv"
    FRAME.to_csv(path, index=False)
    source = path if shape is None else shape(FRAME)
    found = run(source, quantiles={"latency": 0.9}, counts=["errors"]).results
    expected = quantile_difference(
        *(quantile_summary(FRAME.latency[FRAME.arm == arm], 0.9) for arm in "ab")
    )
    assert found[1].estimate.difference == pytest.approx(expected.difference, rel=1e-12)
    assert found[1].estimate.interval is not None
    assert expected.interval is not None
    assert found[1].estimate.interval.lower == pytest.approx(expected.interval.lower)
    assert found[1].estimate.p_value == pytest.approx(expected.p_value)
    assert found[0].estimate.mean_control == FRAME.errors[FRAME.arm == "a"].mean()


def test_every_form_of_the_report_shows_the_kinds() -> None:
    report = run(
        quantiles={"latency": [0.5, 0.9]},
        counts={"errors": "errors", "rate": ("errors", "hours")},
        metrics=["spend"],
        margins={"spend": "-5%", "rate": "20%", "latency p90": 1},
        segments=["place"],
    )
    names = ["spend", "errors", "rate", "latency p50", "latency p90"]
    rows = report.to_dict()["results"]
    assert [row["metric"] for row in rows[:5]] == names
    assert [row["kind"] for row in rows[:5]] == ["mean", "count", "count", "quantile", "quantile"]
    assert (rows[0]["scale"], rows[0]["margin"]) == ("relative", -0.05)
    assert "scale" not in rows[4]
    assert rows[4]["margin"] == 1
    assert "NaN" not in report.to_json()
    frame = report.to_pandas()
    assert list(frame.metric[:5]) == names
    page = report._repr_html_()
    out, words = printed(report), report.explain()
    for text in (page, out, words):
        assert all(name in text for name in names)
    assert "% rel." in page
    assert "% rel." in out
    assert "of a's" in words
    assert "true relative difference" in words


def test_pairs_are_told_in_words_and_have_no_split() -> None:
    report = run(pairs(), metrics=["spend", "bought"], paired=True, bayes=True)
    assert report.srm is None
    assert {check.id: check.severity for check in report.checks} == {
        "sample_ratio_mismatch": "info"
    }
    assert "Every unit has both" in report.explain()
    assert report.to_dict()["srm"] is None
    assert "mcnemar_mid_p" in report.to_json()
    assert report.results[1].posterior is not None
    assert report.results[1].posterior.status == "ok"


def test_one_query_reads_all_counts_of_values_and_one_all_order_statistics() -> None:
    asked: list[str] = []

    class Spy:
        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self.connection = connection

        def execute(self, query: str, *more: Any) -> Any:
            asked.append(query)
            return self.connection.execute(query, *more)

    roles = Columns("user", "arm", dict.fromkeys(["latency", "spend"], "metric"))
    with open_table(FRAME, roles) as table:
        object.__setattr__(table, "connection", Spy(table.connection))
        for wanted in ({"latency": [0.5]}, {"latency": [0.5, 0.9, 0.99], "spend": [0.1, 0.5]}):
            asked.clear()
            found = orders.read_orders(table, wanted, lambda n, q, _: {int(n * q) or 1, n})
            assert len(asked) == 2
            assert len(found) == sum(map(len, wanted.values()))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 99, 1_000, 4_097])
def test_order_statistics_are_those_of_a_sorted_column(n: int) -> None:
    values = np.random.default_rng(n).integers(0, n, n).astype(float)
    frame = pd.DataFrame({"user": range(n), "arm": "a", "x": values})
    with open_table(frame, Columns("user", "arm", {"x": "metric"})) as table:
        found = orders.read_orders(table, {"x": [0.5]}, lambda n, _q, _p: range(1, n + 1))
    (cell,) = found["x", 0.5].values()
    assert list(cell.values.items()) == list(enumerate(sorted(values), 1))  # noqa: PD011 - ranks


# ---- degenerate input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "frame", "statuses"),
    [
        ({"quantiles": {"x": 0.5}}, {"x": [1.0, 2.0]}, ["insufficient_data"]),
        ({"quantiles": {"x": 0.99}}, {"x": [1.0, 2.0] * 30}, ["insufficient_data"]),
        ({"quantiles": {"x": 0.5}}, {"x": [1.0, 1.0] * 30}, ["zero_variance"]),
        ({"counts": ["x"]}, {"x": [0, 0] * 5}, ["zero_variance"]),
        ({"counts": {"r": ("x", "h")}}, {"x": [0, 0], "h": [0, 1]}, ["insufficient_data"]),
        ({"counts": {"r": ("x", "h")}}, {"x": [0, 3], "h": [2, 1]}, ["ok"]),
        ({"metrics": ["x"], "cluster": "user"}, {"x": [1.0, 2.0]}, ["insufficient_data"]),
        ({"metrics": ["x"], "cluster": "user"}, {"x": [1.5, 1.5] * 5}, ["zero_variance"]),
        ({"metrics": ["x"], "margins": {"x": "-2%"}}, {"x": [1.0, 2.0]}, ["insufficient_data"]),
        ({"metrics": ["x"], "margins": {"x": "-2%"}}, {"x": [1.5, 1.5] * 5}, ["zero_variance"]),
        (
            {"metrics": ["x"], "margins": {"x": "-2%"}},
            {"x": [-1.5, -2.5] * 5 + [-3, 4]},
            ["undefined"],
        ),
        (
            {"metrics": ["x"], "margins": {"x": "-2%"}},
            {"x": [0.0, 1.0] * 5 + [0, 2]},
            ["undefined"],
        ),
    ],
)
def test_too_little_to_compare_has_a_status(
    options: dict[str, Any], frame: dict[str, list[float]], statuses: list[str]
) -> None:
    n = len(next(iter(frame.values())))
    data = pd.DataFrame({"user": range(n), "arm": ["a", "b"] * (n // 2), **frame})
    report = run(data, **options)
    assert [item.estimate.status for item in report.results] == statuses
    report.to_json()
    report.explain()
    printed(report)


@pytest.mark.parametrize(
    ("values", "status"), [([1.0, 2.0], "insufficient_data"), ([1.5, 1.5] * 4, "zero_variance")]
)
def test_pairs_that_say_nothing_have_a_status(values: list[float], status: str) -> None:
    n = len(values)
    data = pd.DataFrame({"user": np.arange(n) // 2, "arm": ["a", "b"] * (n // 2), "x": values})
    report = run(data, metrics=["x"], paired=True)
    assert report.results[0].estimate.status == status
    report.to_json()


def test_units_with_a_single_row_are_counted_and_one_is_named() -> None:
    data = pairs().drop(index=[1, 5])
    report = run(data, metrics=["spend"], paired=True)
    (check,) = (item for item in report.checks if item.id == "single_units")
    assert check.text.startswith("2 units with a row of 'a' or 'b', not of both, such as '0'; ")
    assert report.results[0].estimate.n_control == N // 2 - 2


def test_pairs_with_a_denominator_of_zero_are_undefined() -> None:
    data = pairs().assign(zero=0)
    report = run(data, ratios={"r": ("spend", "zero")}, paired=True, margins={"r": "-1%"})
    assert report.results[0].estimate.status == "undefined"


def test_a_segment_without_a_pair_has_no_answer() -> None:
    data = pairs().assign(place=np.where(FRAME.arm == "a", "app", "web"))
    report = run(data, metrics=["spend"], paired=True, segments=["place"])
    overall, *parts = (item.estimate.status for item in report.results)
    assert overall == "ok"
    assert set(parts) == {"insufficient_data"}


@pytest.mark.parametrize(
    "options",
    [
        {"quantiles": {"x": 0.5}},
        {"counts": ["x"]},
        {"metrics": ["x"], "cluster": "who"},
        {"metrics": ["x"], "paired": True},
    ],
)
def test_missing_values_stop_are_left_out_or_count_as_zero(options: dict[str, Any]) -> None:
    x = FRAME.errors.where(FRAME.index % 10 > 0).astype(float)
    data = (pairs() if "paired" in options else FRAME).assign(x=x)
    with pytest.raises(DataError, match="'x' is missing or NaN in 40 rows"):
        run(data, **options)
    (out,) = run(data, missing="exclude", **options).results
    (zero,) = run(data, missing="zero", **options).results
    (filled,) = run(data.fillna({"x": 0}), **options).results
    assert zero.estimate.difference == pytest.approx(filled.estimate.difference, rel=1e-9)
    kept = data.dropna()
    if "paired" not in options:
        (dropped,) = run(kept, **options).results
        assert out.estimate.difference == pytest.approx(dropped.estimate.difference, rel=1e-9)
        assert out.estimate.n_control == dropped.estimate.n_control
    else:
        assert out.estimate.n_control == 160


@pytest.mark.parametrize("kind", [{"cluster": "who"}, {"paired": True}])
def test_caps_come_before_clusters_and_pairs(kind: dict[str, Any]) -> None:
    data = pairs() if "paired" in kind else FRAME
    cap = data.spend[data.arm == "a"].quantile(0.9, interpolation="inverted_cdf")
    found = run(data, metrics=["spend"], winsorize={"spend": 0.9}, **kind)
    (expected,) = run(
        data.assign(spend=data.spend.clip(upper=cap)), metrics=["spend"], **kind
    ).results
    assert found.results[0].estimate.difference == pytest.approx(expected.estimate.difference)
    assert found.results[0].estimate.p_value == pytest.approx(expected.estimate.p_value)
    assert any(check.id == "winsorized" for check in found.checks)


def test_infinite_values_are_named() -> None:
    data = FRAME.assign(latency=FRAME.latency.where(FRAME.index != 3, np.inf))
    with pytest.raises(DataError, match="metric 'latency' is infinite in 1 row;"):
        run(data, quantiles={"latency": 0.5})


# ---- data that is not what was said -------------------------------------------------------------


def test_a_cluster_in_two_variants_is_named() -> None:
    with pytest.raises(DataError, match=r"cluster '0' stands in 2 variants, 'a' and 'b'; .*drop"):
        run(metrics=["spend"], cluster="epoch0", frame=FRAME.assign(epoch0=FRAME.user // 4))


def test_a_cluster_in_two_epochs_is_named() -> None:
    with pytest.raises(DataError, match=r"cluster '\d+' stands in 2 epochs, '1' and '2'; give"):
        run(metrics=["spend"], cluster="who", epoch="epoch")


def test_a_row_without_cluster_is_counted() -> None:
    data = FRAME.assign(who=FRAME.who.where(FRAME.index > 4))
    with pytest.raises(DataError, match="cluster 'who' is empty in 5 rows"):
        run(data, metrics=["spend"], cluster="who")


def test_few_clusters_are_warned_of() -> None:
    data = FRAME.assign(who=FRAME.who % 20)
    (check,) = (x for x in run(data, metrics=["spend"], cluster="who").checks if x.id == "clusters")
    assert check.severity == "warn"
    assert "fewer than 20" in check.text


def test_a_unit_with_two_rows_of_a_variant_is_no_pair() -> None:
    with pytest.raises(DataError, match="unit '0' has two rows of one variant"):
        run(FRAME.assign(user=FRAME.user // 4), metrics=["spend"], paired=True)


@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_a_count_that_is_none_is_named(value: float) -> None:
    data = FRAME.assign(errors=FRAME.errors.where(FRAME.index != 7, value))
    with pytest.raises(DataError, match=rf"count 'errors' holds {value:g}; .*whole numbers"):
        run(data, counts=["errors"])


def test_an_exposure_below_zero_is_named() -> None:
    data = FRAME.assign(hours=FRAME.hours.where(FRAME.index != 7, -2.0))
    with pytest.raises(DataError, match="exposure 'hours' holds -2; exposures are not below 0"):
        run(data, counts={"rate": ("errors", "hours")})


# ---- options that do not fit --------------------------------------------------------------------

QUANTILE = {"quantiles": {"latency": 0.9}}
COUNT = {"counts": ["errors"]}
PAIRED = {"metrics": ["spend"], "paired": True}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantiles": {"latency": 95}}, "between 0 and 1, got 95; 0.95 is the 95th percentile"),
        ({"quantiles": {"latency": "p95"}}, "between 0 and 1, got 'p95'"),
        ({"quantiles": ["latency"]}, "quantiles must be a mapping"),
        ({"quantiles": {"latency": [0.5, 0.5]}}, "'latency p50' is named twice"),
        (QUANTILE | {"covariates": ["before"]}, "does not go with covariates: .*compare the mean"),
        (QUANTILE | {"epoch": "epoch"}, "does not go with epoch: .*one epoch at a time"),
        (QUANTILE | {"bayes": True}, "does not go with bayes: .*leave bayes out"),
        (QUANTILE | {"cluster": "who"}, "does not go with cluster: .*one value per cluster"),
        (QUANTILE | {"paired": True}, "does not go with paired: .*leave paired out"),
        ({"counts": "errors"}, "counts must be a list"),
        ({"counts": {"r": ("a", "b", "c")}}, r"count 'r' needs a column, or a pair"),
        ({"counts": {"r": ("hours", "hours")}}, "divides a column by itself"),
        ({"counts": {"r": ("errors", "hours"), "h": "hours"}}, "exposure 'hours' is counted"),
        ({"metrics": ["errors"], "counts": ["errors"]}, "'errors' has the name of a metric"),
        ({"metrics": ["latency p90"], **QUANTILE}, "quantile 'latency p90' has the name of a"),
        (COUNT | {"covariates": ["before"]}, "does not go with covariates"),
        (COUNT | {"epoch": "epoch"}, "does not go with epoch: .*stays right within epochs"),
        (COUNT | {"bayes": True}, "does not go with bayes"),
        (COUNT | {"cluster": "who"}, "does not go with cluster: .*metric or ratio"),
        (COUNT | {"paired": True}, "does not go with paired"),
        (COUNT | {"margins": {"errors": 0.1}}, "must be a share of control's rate such as '-2%'"),
        (COUNT | {"winsorize": {"errors": 0.9}}, "a capped count is none"),
        (PAIRED | {"cluster": "who"}, "give one of both"),
        (PAIRED | {"covariates": ["before"]}, "each unit is its own control"),
        (PAIRED | {"epoch": "epoch"}, "leave the epoch out"),
        (PAIRED | {"design": "fixed"}, "a design does not go with paired"),
        ({"metrics": ["spend"], "cluster": "who", "design": "fixed"}, "not go with cluster"),
        ({"metrics": ["spend"], "margins": {"spend": "2"}}, "percentage above -100% such as"),
        ({"metrics": ["spend"], "margins": {"spend": "x%"}}, "percentage above -100% such as"),
        ({"metrics": ["spend"], "margins": {"spend": "-100%"}}, "percentage above -100%"),
        ({"metrics": ["spend"], "margins": {"spend": "0%"}}, "percentage above -100%"),
        ({"metrics": ["spend"], "margins": {"spent": "-2%"}}, "did you mean 'spend'"),
        ({"metrics": ["bought"], "method": "mantel_haenszel"}, "name their column"),
        ({"metrics": ["bought"], "method": "score_z", "covariates": ["before"]}, "cannot adjust"),
        ({"metrics": ["bought"], "method": "fisher", "epoch": "epoch"}, "or use mantel_haenszel"),
        ({"metrics": ["bought"], "method": "fisher", "cluster": "who"}, "independent units"),
        ({"metrics": ["bought"], "method": "newcombe", "paired": True}, "independent units"),
        (
            {"metrics": ["bought"], "method": "score_z", "margins": {"bought": "-2%"}},
            "tests margins in points",
        ),
        ({"metrics": ["bought"], "method": "fisher", "margins": {"bought": "-2%"}}, "no margin"),
        ({"metrics": ["spend"], "correction": "ebh"}, r"'welch_t' of 'spend' has none; name a des"),
        (
            {"metrics": ["spend"], "correction": "ebh", "design": "obf"},
            "'group_sequential' of 'spend' has none",
        ),
        ({"metrics": ["spend"], "correction": "e-bh"}, "correction must be one of"),
    ],
)
def test_options_that_do_not_fit_say_what_to_do(options: dict[str, Any], words: str) -> None:
    frame = pairs() if options.get("paired") else FRAME
    with pytest.raises(ConfigError, match=words):
        run(frame, **options)


def test_paired_units_have_no_weights() -> None:
    with pytest.raises(ConfigError, match="leave weights out"):
        run(pairs(), weights={"a": 1, "b": 1}, **PAIRED)


def test_the_usual_method_goes_with_everything() -> None:
    for more in (
        {"epoch": "epoch"},
        {"covariates": ["before"]},
        {"epoch": "epoch", "covariates": ["before"]},
        {"cluster": "who"},
        {"margins": {"bought": "-5%"}},
        {"margins": {"bought": -0.05}, "epoch": "epoch"},
    ):
        assert run(metrics=["bought"], **more).results[0].estimate.status == "ok"
    report = run(pairs(), metrics=["bought"], paired=True, margins={"bought": -0.05})
    assert report.results[0].estimate.method == "paired_t_non_inferiority"


def test_e_values_of_a_design_are_selected_together() -> None:
    data = FRAME.assign(good=FRAME.spend + 3 * (FRAME.arm == "b"))
    report = run(
        data, metrics=["good", "spend"], design="always-valid", planned_units=N, correction="ebh"
    )
    good, spend = report.results
    assert good.correction == "ebh"
    assert good.estimate.e_value is not None
    assert good.estimate.p_value == pytest.approx(min(1.0, 2 / good.estimate.e_value))
    assert spend.estimate.p_value is not None
    assert spend.estimate.p_value > 0.05
    assert spend.estimate.interval is None
    assert "ebh" in report.explain()


# ---- how people write options -------------------------------------------------------------------


def test_options_are_read_as_they_are_written() -> None:
    assert quantiles_of(None) == {}
    assert quantiles_of({"x": [0.5]}) == {"x p50": ("x", 0.5)}
    assert counts_of({"r": ["a", "b"]}) == {"r": ("a", "b")}
    assert margins_of(None) == ({}, {})


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "units.csv"
    FRAME.to_csv(path, index=False)
    pairs().to_csv(tmp_path / "pairs.csv", index=False)
    return str(path)


def cli(table: str, *more: str) -> list[str]:
    return ["analyze", table, "--unit", "user", "--variant", "arm", "--control", "a", *more]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--quantile latency:.95 --quantile latency:.5", {"quantiles": {"latency": [0.95, 0.5]}}),
        (
            "--count errors --count errors/hours",
            {"counts": {"errors": "errors", "errors/hours": ("errors", "hours")}},
        ),
        ("--metric spend --cluster who", {"metrics": ["spend"], "cluster": "who"}),
        (
            "--metric spend --margin spend=-2%",
            {"metrics": ["spend"], "margins": {"spend": "-2%"}},
        ),
        (
            (
                "--metric bought --epoch epoch --method mantel_haenszel --weights 1:a=1,b=1 "
                "--weights 2:a=3,b=2"
            ),
            {
                "metrics": ["bought"],
                "epoch": "epoch",
                "method": "mantel_haenszel",
                "weights": {"1": {"a": 1, "b": 1}, "2": {"a": 3, "b": 2}},
            },
        ),
        (
            "--metric spend --epoch epoch --weights a=1,b=1",
            {"metrics": ["spend"], "epoch": "epoch", "weights": {"a": 1, "b": 1}},
        ),
    ],
)
def test_the_command_line_says_the_same(
    words: str,
    options: dict[str, Any],
    table: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(cli(table, *words.split(), "--format", "json")) == 0
    assert rounded(json.loads(capsys.readouterr().out)) == rounded(run(table, **options).to_dict())
    for form in ("table", "words"):
        assert main(cli(table, *words.split(), "--format", form)) == 0
        assert capsys.readouterr().out


def test_pairs_on_the_command_line(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = table.replace("units.csv", "pairs.csv")
    assert main(cli(path, "--metric", "bought", "--paired", "--format", "json")) == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    assert found["method"] == "mcnemar_mid_p"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quantile", "latency"], "--quantile 'latency'"),
        (["--quantile", "latency:p95"], "not NAME:NUMBER"),
        (["--count", "/hours"], "not COLUMN or COLUMN/EXPOSURE"),
        (["--count", "errors/"], "not COLUMN or COLUMN/EXPOSURE"),
        (["--metric", "spend", "--margin", "spend=-x%"], "--margin"),
        (["--metric", "spend", "--margin", "spend=1", "--margin", "spend=2%"], "stands twice"),
        (["--metric", "spend", "--weights", "a=1,b=1", "--weights", "a=2"], "need their epochs"),
        (
            ["--metric", "spend", "--epoch", "epoch", "--weights", "1:a=1", "--weights", "1:b=1"],
            "'1' stands twice",
        ),
        (["--metric", "spend", "--correction", "ebh"], "needs e-values|selects by e-values"),
    ],
)  # fmt: skip
def test_the_command_line_says_what_is_wrong(
    words: list[str], said: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(cli(table, *words)) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(("design", "told"), [(None, 1), ("fixed", 1), ("always-valid", 0)])
def test_bursts_are_told_where_poissons_variance_is_relied_on(design: Any, told: int) -> None:
    data = FRAME.assign(errors=FRAME.errors * 5)
    more = {} if design is None else {"design": design, "planned_units": N}
    report = run(data, counts=["errors"], **more)
    assert sum(check.id == "overdispersed_counts" for check in report.checks) == told
    if design is None:
        assert "varies" in report.explain()
