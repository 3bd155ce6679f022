"""Published numbers for plans, each with its provenance.

"statistics.md" is the table of reference numbers in the design notes. R is 4.2.2, rpact 3.3.4; the
claims of mean stops are those of the design notes' table "Where to be ahead of every peer".
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import special

from abkit.cli import main
from abkit.planning import plan, simulate_aa
from abkit.planning.boundaries import boundary_plan, course, inflation_of, needed_drift
from abkit.planning.simulation import exact_interval
from abkit.sequential.group_plan import GroupPlan, even, spending_plan
from abkit.sequential.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from abkit.estimate import Alternative


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # statistics.md 15; R: power.prop.test(p1 = .10, p2 = .11, power = .8): 14750.79
        ({"baseline": 0.10, "difference": 0.01, "power": 0.8}, 14_751),
        # statistics.md 15; R: power.t.test(delta = .1, power = .8): 1570.737
        ({"sd": 1.0, "difference": 0.1, "power": 0.8}, 1_571),
        # R's help of power.prop.test: (p1 = .50, p2 = .75, power = .90): n = 76.7
        ({"baseline": 0.5, "difference": 0.25, "power": 0.9}, 77),
        # R's help of power.t.test: (power = .90, delta = 1): n = 22.02110
        ({"sd": 1.0, "difference": 1.0, "power": 0.9}, 23),
        # the same, alternative = "one.sided": n = 17.84713
        ({"sd": 1.0, "difference": 1.0, "power": 0.9, "alternative": "greater"}, 18),
    ],
)
def test_r_says_as_many_units_in_each_arm(asked: dict[str, Any], expected: int) -> None:
    assert plan(**asked, designs=["fixed"]).design("fixed").arm_units == (expected, expected)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # R's help of power.prop.test: (n = 50, p1 = .50, p2 = .75): power = 0.740
        ({"baseline": 0.5, "difference": 0.25, "units": 100}, 0.740),
        # R's help of power.t.test: (n = 20, delta = 1, sd = 1): power = 0.8689528
        ({"sd": 1.0, "difference": 1.0, "units": 40}, 0.869),
    ],
)
def test_r_says_this_power(asked: dict[str, Any], expected: float) -> None:
    found = plan(**asked, designs=["fixed"]).design("fixed")
    assert found.power == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("design", "inflation", "size"),
    [
        ("obf", 1.02841, 0.81757),
        ("pocock", 1.22859, 0.79906),
        ("group-sequential", 1.02472, 0.82366),
    ],
)
def test_reference_6_of_rpact(design: str, inflation: float, size: float) -> None:
    """statistics.md 6: K = 5, power .8; expected size under H1 over that of the fixed test."""
    found = boundary_plan(design, even(5), alpha=0.05, alternative="two-sided")
    assert inflation_of(found, 0.8) == pytest.approx(inflation, abs=6e-6)
    mean = course(found, needed_drift(found, 0.8)).mean
    assert inflation_of(found, 0.8) * mean == pytest.approx(size, abs=6e-6)
    row = plan(sd=1.0, difference=0.001, designs=[design]).design(design)
    fixed = plan(sd=1.0, difference=0.001, designs=["fixed"]).design("fixed")
    assert row.units / fixed.units == pytest.approx(inflation, abs=6e-6)
    assert row.mean_units is not None
    assert row.mean_units / fixed.units == pytest.approx(size, abs=6e-6)


def test_reference_6_of_rpact_with_pocock_spending() -> None:
    """statistics.md 6: LD-Pocock 1.21263 and .79565."""
    found = spending_plan(even(5), spending=Spending("pocock"))
    assert inflation_of(found, 0.8) == pytest.approx(1.21263, abs=6e-6)
    mean = course(found, needed_drift(found, 0.8)).mean
    assert inflation_of(found, 0.8) * mean == pytest.approx(0.79565, abs=6e-6)


def test_the_claim_of_the_mean_stop() -> None:
    """statistics.md, rule 5: calibrated to 2 N power .92 and mean .88 N, open-ended .88 and 1.06 N.

    N is the size of the fixed test of power .8. The design notes measured with other boundaries;
    these spend all of alpha by 2 N, so power is .94, and the open end stops a little sooner.
    """
    n = plan(baseline=0.1, lift=0.1, designs=["fixed"]).design("fixed").units
    names = ["calibrated", "always-valid", "msprt"]
    found = plan(baseline=0.1, lift=0.1, units=2 * n, designs=names)
    ours, open_end = found.design("calibrated"), found.design("always-valid")
    assert ours.power is not None
    assert ours.mean_units is not None
    assert 0.92 <= ours.power <= 0.945
    assert 0.87 <= ours.mean_units / n <= 0.90
    for item in (open_end, found.design("msprt")):
        assert item.power == pytest.approx(0.88, abs=0.01)
        assert (item.mean_units or 0) / n == pytest.approx(1.06, abs=0.025)
        assert item.false_positives is not None
        assert item.false_positives < 0.025  # half of alpha is never spent


def gavi(alpha: float, n: int) -> GroupPlan:
    """Spotify's GAVI at every pair, one-sided: the mixture's boundary at twice the alpha."""
    doubled = 2 * alpha
    phi = n / (math.log(math.log(math.e * doubled**-2)) - 2 * math.log(doubled))
    t = np.arange(1, n + 1)
    bounds = np.sqrt((t + phi) * np.log((t + phi) / (phi * doubled**2)) / t)
    return one_sided(bounds, alpha)


def one_sided(bounds: np.ndarray[Any, Any], alpha: float) -> GroupPlan:
    side: Alternative = "greater"
    return GroupPlan(
        method="published",
        alpha=alpha,
        alternative=side,
        fractions=even(len(bounds)),
        boundaries=tuple(bounds.tolist()),
        alpha_spent=(alpha,) * len(bounds),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "expected"),
    [
        ("gavi", (0.0176, 0.2275, 0.7631, 0.9875)),
        ("bonferroni", (0.0024, 0.046, 0.397, 0.897)),
    ],
)
def test_reference_16_of_spotify(design: str, expected: tuple[float, ...]) -> None:
    """statistics.md 16: N = 500 an arm, known sd, one-sided .05, looked at after every pair.

    Schultzberg, Ankargren (2023), "Choosing a sequential testing framework", whose numbers are
    simulated: within four standard errors of 10,000 runs of the exact ones.
    """
    bounds = np.full(500, -float(special.ndtri(0.05 / 500)))
    found = gavi(0.05, 500) if design == "gavi" else one_sided(bounds, 0.05)
    for effect, printed in zip((0.0, 0.1, 0.2, 0.3), expected, strict=True):
        exact = course(found, effect * math.sqrt(250)).power
        error = math.sqrt(printed * (1 - printed) / 10_000)
        assert exact == pytest.approx(printed, abs=4 * error)


def test_reference_16_of_spotify_at_every_fifth_pair() -> None:
    """The same with a fifth of the looks: fewer rejections, and not far fewer."""
    every = gavi(0.05, 500)
    fifth = one_sided(np.array(every.boundaries[4::5]), 0.05)
    assert 0.012 < course(fifth, 0.0).power < 0.0176
    assert 0.74 < course(fifth, 0.2 * math.sqrt(250)).power < 0.7631


def test_exact_intervals_are_those_of_r() -> None:
    """R: binom.test(10, 100)$conf.int: 0.04900469, 0.17622260; none of n: 1 - .025^(1/n)."""
    assert exact_interval(10, 100) == pytest.approx((0.04900469, 0.17622260), abs=5e-9)
    assert exact_interval(0, 2_000) == pytest.approx((0.0, 1 - 0.025 ** (1 / 2_000)), rel=1e-9)


# --- real data, from the command line -------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().out


def test_cookie_cats_are_planned_from_their_history(
    shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(shared_data("cookie_cats.csv"))
    page = tmp_path / "plan.html"
    words = ["plan", path, "--unit", "userid", "--metric", "retention_7", "--lift", "5%"]
    code, said = run(capsys, *words, "--json", "--plot", str(page))
    found = json.loads(said)
    assert code == 0
    assert found["kind"] == "proportion"
    assert found["baseline"] == pytest.approx(16_781 / 90_189)  # REFERENCE O03: 8,502 + 8,279
    assert found["designs"][0]["units"] == pytest.approx(55_800, rel=0.01)
    assert page.stat().st_size > 1_000
    code, said = run(capsys, *words)
    assert code == 0
    assert "Take 'group-sequential'" in " ".join(said.split())


def test_cookie_cats_pass_their_a_a_test(
    shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(shared_data("cookie_cats.csv"))
    page = tmp_path / "aa.html"
    words = ["simulate", "aa", path, "--unit", "userid", "--metric", "retention_7"]
    words += ["--looks", "10", "--runs", "600", "--plot", str(page), "--theme", "dark"]
    code, said = run(capsys, *words)
    assert code == 0
    text = " ".join(said.split())
    assert "Sound: without any effect" in text
    assert "Looking 10 times at retention_7 with the fixed test rejects" in text
    code, said = run(capsys, *words, "--json")
    assert json.loads(said)["passed"] is True


def test_cookie_cats_have_the_power_of_the_plan(
    shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(shared_data("cookie_cats.csv"))
    words = ["simulate", "power", path, "--unit", "userid", "--metric", "retention_7"]
    words += ["--lift", "4%", "--runs", "1000", "--design", "fixed", "--design", "obf", "--json"]
    code, said = run(capsys, *words)
    assert code == 0
    rates = {item["design"]: item["rate"] for item in json.loads(said)["designs"]}
    baseline = 16_781 / 90_189
    planned = plan(baseline=baseline, lift=0.04, units=90_189, looks=20, designs=["fixed", "obf"])
    for name, rate in rates.items():
        assert rate == pytest.approx(planned.design(name).power, abs=0.06)


def test_the_long_tail_of_cookie_cats_is_seen(shared_data: Callable[[str], Path]) -> None:
    """One player with 49,854 rounds makes Welch's t conservative: the p-values say so."""
    report = simulate_aa(
        shared_data("cookie_cats.csv"),
        unit="userid",
        metrics=["sum_gamerounds"],
        designs=["fixed"],
        looks=2,
        runs=1_000,
    )
    assert report.passed
    assert report.p_values[0].ks_p_value < 0.001
    assert "not uniform" in report.verdict
