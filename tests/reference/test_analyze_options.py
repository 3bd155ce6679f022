"""Options of `abkit analyze` against reference answers and a second implementation.

O06 to O11 are rows of the reference answers, computed with plain numpy, scipy and statsmodels.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.proportion import confint_proportions_2indep

from abkit.analysis import analyze
from abkit.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXACT = 1e-9
METRICS = ("retention_1", "retention_7", "sum_gamerounds")


@pytest.fixture
def cats(
    shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[dict[str, Any]]]:
    """`abkit analyze` on the Cookie Cats experiment: its results, by more words."""
    words = ["analyze", str(shared_data("cookie_cats.csv")), "--unit", "userid"]
    words += ["--variant", "version", "--control", "gate_30", "--format", "json"]

    def run(*more: str, metrics: tuple[str, ...] = METRICS) -> list[dict[str, Any]]:
        named = [word for name in metrics for word in ("--metric", name)]
        assert main([*words, *named, *more]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["results"]
        return found

    return run


def test_o07_holm(cats: Callable[..., list[dict[str, Any]]]) -> None:
    found = cats("--correction", "holm")
    expected = [0.148819310594, 0.00466274992684, 0.375924384093]
    assert [item["p_value"] for item in found] == pytest.approx(expected, rel=EXACT)
    raw = [item["correction"]["raw_p_value"] for item in found]
    assert raw == pytest.approx([0.0744096552969, 0.00155424997561, 0.375924384093], rel=EXACT)


def test_o08_chance_to_beat(cats: Callable[..., list[dict[str, Any]]]) -> None:
    found = cats("--bayes")[:2]
    chances = [item["bayes"]["chance_to_beat"] for item in found]
    assert chances == pytest.approx([0.0372060251754, 0.000777338664576], abs=1e-8)


def test_o06_a_single_outlier_is_capped(cats: Callable[..., list[dict[str, Any]]]) -> None:
    """Without the one user of 49,854 rounds p is .949; a cap that three users meet is near that."""
    (plain,) = cats(metrics=("sum_gamerounds",))
    (capped,) = cats("--winsorize", "sum_gamerounds:.99995", metrics=("sum_gamerounds",))
    assert plain["p_value"] == pytest.approx(0.375924384093, rel=EXACT)
    assert 0.7 < capped["p_value"] < 0.999
    assert capped["standard_error"] < plain["standard_error"]


def test_the_interval_of_newcombe(cats: Callable[..., list[dict[str, Any]]]) -> None:
    """statsmodels: `confint_proportions_2indep(8279, 45489, 8502, 44700, method="newcomb")`."""
    (found,) = cats("--method", "newcombe", metrics=("retention_7",))
    expected = confint_proportions_2indep(8_279, 45_489, 8_502, 44_700, method="newcomb")
    assert found["interval"] == pytest.approx(expected, rel=EXACT)


def test_the_margin_of_retention(cats: Callable[..., list[dict[str, Any]]]) -> None:
    """By hand: (difference + .02) over the unpooled standard error, one side."""
    (found,) = cats("--margin", "retention_7=-0.02", metrics=("retention_7",))
    half = (0.0132815524189 - 0.00312104421153) / 2 / 1.959963984540054
    assert found["statistic"] == pytest.approx((0.02 - 0.00820129831521) / half, rel=1e-8)
    assert found["margin"] == -0.02
    assert found["alternative"] == "greater"
    assert found["interval"][1] is None


def test_o11_one_side_after_cleaning(shared_data: Callable[[str], Path]) -> None:
    """Udacity's landing page; the course answers .905."""
    frame = pd.read_parquet(shared_data("udacity_ab_data.parquet"))
    right = (frame.group == "treatment") == (frame.landing_page == "new_page")
    frame = frame[right].drop_duplicates("user_id")
    options: dict[str, Any] = {"unit": "user_id", "variant": "group", "control": "control"}
    found = analyze(frame, metrics=["converted"], alternative="greater", **options).results[0]
    assert found.estimate.statistic == pytest.approx(-1.31092419842, rel=EXACT)
    assert found.estimate.p_value == pytest.approx(0.905058312759, rel=EXACT)


@pytest.mark.parametrize("covariates", [["before"], ["before", "age"]])
def test_cuped_is_the_coefficient_of_least_squares(covariates: list[str]) -> None:
    """OLS of statsmodels, metric on treatment and covariates: the same difference.

    Its standard error pools both arms' variances, or not at all (HC); Welch's lies within 1 %.
    """
    rng = np.random.default_rng(11)
    n = 5_000
    frame = pd.DataFrame({"user": np.arange(n), "arm": rng.choice(["a", "b"], n, p=[0.3, 0.7])})
    frame["before"] = rng.gamma(2.0, 10.0, n)
    frame["age"] = rng.normal(40, 12, n) + 0.1 * frame.before
    noise = rng.normal(0, 5, n)
    frame["spend"] = 0.8 * frame.before - 0.3 * frame.age + noise + (frame.arm == "b")
    found = analyze(
        frame,
        unit="user",
        variant="arm",
        control="a",
        metrics=["spend"],
        covariates=covariates,
        weights={"a": 3, "b": 7},
    ).results[0]
    frame["b"] = (frame.arm == "b").astype(float)
    fit = smf.ols(f"spend ~ b + {' + '.join(covariates)}", frame).fit()
    assert found.estimate.difference == pytest.approx(fit.params["b"], rel=1e-9)
    assert found.estimate.standard_error == pytest.approx(fit.HC2_se["b"], rel=1e-2)
    plain = smf.ols("spend ~ b", frame).fit().HC2_se["b"]
    gain = 1 - (found.estimate.standard_error or 0) ** 2 / plain**2
    assert found.estimate.variance_reduction == pytest.approx(gain, abs=1e-6)
