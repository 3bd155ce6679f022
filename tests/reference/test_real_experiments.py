"""Answers on real experiments: O01 to O12 and O17 of REFERENCE.md beside the data sets.

The answers were computed with plain numpy, scipy and statsmodels; tolerances are theirs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from abkit.moments import Moments
from abkit.stats.bayes import beta_binomial
from abkit.stats.difference import welch_t
from abkit.stats.margin import against
from abkit.stats.multiplicity import corrected
from abkit.stats.proportion import two_proportions
from abkit.stats.ranks import mann_whitney
from abkit.stats.srm import balance_test
from abkit.stats.winsor import WinsorRule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from abkit.estimate import Interval

EXACT = 1e-9


def close(*values: float) -> object:
    return pytest.approx(values, rel=EXACT)


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.lower, interval.upper


@dataclass(frozen=True)
class Gate:
    """Players of one variant of Cookie Cats."""

    rounds: NDArray[np.float64]
    day: Moments
    week: Moments


@pytest.fixture(scope="module")
def gates(shared_data: Callable[[str], Path]) -> tuple[Gate, Gate]:
    """(control, treatment): the gate at level 30 and at level 40."""
    rows: dict[str, list[dict[str, str]]] = {"gate_30": [], "gate_40": []}
    with shared_data("cookie_cats.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["version"]].append(row)

    def gate(name: str) -> Gate:
        found = rows[name]
        kept = [
            Moments.of_counts(len(found), sum(row[column].upper() == "TRUE" for row in found))
            for column in ("retention_1", "retention_7")
        ]
        return Gate(np.array([float(row["sum_gamerounds"]) for row in found]), *kept)

    return gate("gate_30"), gate("gate_40")


def test_o01_the_split_is_off(gates: tuple[Gate, Gate]) -> None:
    control, treatment = gates
    sizes = {"gate_30": control.day.n, "gate_40": treatment.day.n}
    assert sizes == {"gate_30": 44_700, "gate_40": 45_489}
    result = balance_test(sizes, {"gate_30": 1, "gate_40": 1})
    assert (result.statistic, result.p_value) == close(6.90240494961, 0.00860798781084)


def test_o02_retention_after_a_day(gates: tuple[Gate, Gate]) -> None:
    control, treatment = gates
    result = two_proportions(control.day, treatment.day)
    assert (result.difference, result.statistic, result.p_value) == close(
        -0.00590516978734, -1.7840862248, 0.0744096552969
    )


def test_o03_and_o04_retention_after_a_week(gates: tuple[Gate, Gate]) -> None:
    control, treatment = gates
    result = two_proportions(control.week, treatment.week)
    assert (result.difference, result.statistic, result.p_value) == close(
        -0.00820129831521, -3.16435891275, 0.00155424997561
    )
    assert ends(result.interval) == close(-0.0132815524189, -0.00312104421153)
    assert result.lift == pytest.approx(-0.0431190348965, rel=EXACT)
    assert ends(result.lift_interval) == close(-0.0692448666656, -0.0169932031273)


def test_o05_rounds_played(gates: tuple[Gate, Gate]) -> None:
    result = welch_t(*(Moments.of(gate.rounds.tolist()) for gate in gates))
    assert (result.mean_treatment, result.mean_control) == close(51.2987755281, 52.4562639821)
    assert (result.statistic, result.degrees_of_freedom, result.p_value) == close(
        -0.885437433127, 58595.4814226, 0.375924384093
    )
    assert ends(result.interval) == close(-3.71970511649, 1.40472820859)


def test_o06_one_player_makes_the_difference(gates: tuple[Gate, Gate]) -> None:
    control, treatment = gates
    assert control.rounds.max() == 49_854.0
    without = control.rounds[control.rounds < 49_854]
    result = welch_t(Moments.of(without.tolist()), Moments.of(treatment.rounds.tolist()))
    assert result.p_value == pytest.approx(0.949468621546, rel=EXACT)


def test_winsorising_does_what_dropping_the_player_does(gates: tuple[Gate, Gate]) -> None:
    """A rule from control alone: the standard error falls by a third, the player stays."""
    control, treatment = gates
    rule = WinsorRule.from_quantiles(control.rounds, upper=0.999, origin="control")
    capped = welch_t(rule.moments(control.rounds), rule.moments(treatment.rounds))
    raw = welch_t(*(Moments.of(gate.rounds.tolist()) for gate in gates))
    assert capped.n_control == 44_700
    assert capped.standard_error is not None
    assert raw.standard_error is not None
    assert capped.standard_error < 0.7 * raw.standard_error
    assert capped.p_value is not None
    assert capped.p_value > 0.5
    assert rule.share_capped(control.rounds) <= 0.001


def test_o07_holm_over_the_three_metrics(gates: tuple[Gate, Gate]) -> None:
    control, treatment = gates
    rounds = welch_t(*(Moments.of(gate.rounds.tolist()) for gate in gates))
    results = [
        two_proportions(control.day, treatment.day),
        two_proportions(control.week, treatment.week),
        rounds,
    ]
    found = corrected([result.p_value for result in results])
    assert found.adjusted == close(0.148819310594, 0.00466274992684, 0.375924384093)
    assert found.rejected == (False, True, False)


def test_o08_chance_to_beat_control(gates: tuple[Gate, Gate]) -> None:
    control, treatment = gates
    for expected, arms in (
        (0.0372060251754, (control.day, treatment.day)),
        (0.000777338664576, (control.week, treatment.week)),
    ):
        assert beta_binomial(*arms).chance_to_beat == pytest.approx(expected, abs=1e-11)


def test_o09_rank_sums(gates: tuple[Gate, Gate]) -> None:
    control, treatment = gates
    result = mann_whitney(control.rounds, treatment.rounds)
    assert result.statistic == 1009027049.5
    assert result.p_value == pytest.approx(0.0502088077204, rel=1e-6)


@dataclass(frozen=True)
class Landing:
    """The landing page experiment, as it came and as it was cleaned."""

    rows: int
    users: int
    mismatched: int
    kept: int
    control: Moments
    treatment: Moments


@pytest.fixture(scope="module")
def landing(shared_data: Callable[[str], Path]) -> Landing:
    duckdb = pytest.importorskip("duckdb")
    path = str(shared_data("udacity_ab_data.parquet"))
    with duckdb.connect() as connection:
        connection.read_parquet(path).create_view("visits")
        connection.execute(
            "CREATE VIEW checked AS SELECT *, (\"group\" = 'treatment') <> "
            "(landing_page = 'new_page') AS wrong FROM visits"
        )
        rows, users, mismatched = connection.execute(
            "SELECT count(*), count(DISTINCT user_id), count(*) FILTER (wrong) FROM checked"
        ).fetchone()
        arms = connection.execute(
            'SELECT "group", count(*), sum(converted)::BIGINT FROM (SELECT DISTINCT ON (user_id) '
            'user_id, "group", converted FROM checked WHERE NOT wrong '
            "ORDER BY user_id, timestamp) GROUP BY 1 ORDER BY 1"
        ).fetchall()
    (_, n_control, x_control), (_, n_treatment, x_treatment) = arms
    return Landing(
        rows,
        users,
        mismatched,
        n_control + n_treatment,
        Moments.of_counts(n_control, x_control),
        Moments.of_counts(n_treatment, x_treatment),
    )


def test_o10_dirty_rows(landing: Landing) -> None:
    found = landing.rows, landing.users, landing.mismatched, landing.kept
    assert found == (294_478, 290_584, 3_893, 290_584)


def test_o11_the_new_page_does_not_win(landing: Landing) -> None:
    control, treatment = landing.control, landing.treatment
    assert (control.n, control.successes) == (145_274, 17_489)
    assert (treatment.n, treatment.successes) == (145_310, 17_264)
    result = two_proportions(control, treatment)
    assert (result.statistic, result.p_value) == close(-1.31092419842, 0.189883374482)
    one_sided = two_proportions(control, treatment, alternative="greater")
    assert one_sided.p_value == pytest.approx(0.905058312759, rel=EXACT)


def test_o12_logistic_regression(landing: Landing) -> None:
    """Its coefficient is the log odds ratio of the cells, and Wald's z comes from their counts."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    arms = landing.control, landing.treatment
    units = np.array([n for arm in arms for n in (arm.successes, arm.n - arm.successes)])
    design = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    converted = np.array([1.0, 0.0, 1.0, 0.0])
    model = GLM(converted, design, family=Binomial(), freq_weights=units).fit()
    assert model.params[1] == pytest.approx(-0.0149891135483, rel=1e-6)
    assert model.pvalues[1] == pytest.approx(0.189886211236, rel=1e-6)
    result = two_proportions(*arms)
    assert result.p_value == pytest.approx(float(model.pvalues[1]), rel=1e-4)


def test_o17_asos_final_look(shared_data: Callable[[str], Path]) -> None:
    name = "asos_digital_experiments_dataset.csv"
    with shared_data(name).open(encoding="utf-8", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["experiment_id"], row["variant_id"], row["metric_id"]) == ("058875", "1", "1")
        ]
    last = max(rows, key=lambda row: float(row["time_since_start"]))

    def arm(suffix: str) -> Moments:
        n = round(float(last[f"count_{suffix}"]))
        return Moments(
            n, float(last[f"mean_{suffix}"]), float(last[f"variance_{suffix}"]) * (n - 1)
        )

    result = welch_t(arm("c"), arm("t"))
    assert (result.difference, result.standard_error, result.p_value) == close(
        9.9304e-05, 6.80095644039e-05, 0.144249530337
    )
    assert result.lift == pytest.approx(0.0021786148236, rel=EXACT)
    assert ends(result.lift_interval) == close(-0.000748934893029, 0.00510616454023)
    # The same standard error against a margin: not worse than -.1 % of control.
    safe = against(result, -0.001, alternative="greater", scale="relative")
    assert safe.p_value is not None
    assert 0.01 < safe.p_value < 0.05
