"""Each check finds its planted fault and is silent on clean data, at the rates of the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from abkit.analysis.rules import RULES
from abkit.trust.catalogue import page
from tests.trust import studies

DOCS = Path(__file__).parents[2] / "docs"
RATES: dict[str, dict[str, Any]] = json.loads((DOCS / "checks.json").read_text())
FALSE_RED = 1e-7  # of one bound, where the true rate is at the end of its measured interval
NAMES = (*studies.FAULTS, *studies.LOGGED)


def interval(number: int, runs: int) -> tuple[float, float]:
    found = stats.binomtest(number, runs).proportion_ci(0.999)
    return float(found.low), float(found.high)


def at_most(name: str, runs: int) -> float:
    """Clean reports of so many that may raise a check."""
    high = interval(RATES[name]["false_alarms"], RATES[name]["clean_runs"])[1]
    return float(stats.binom.isf(FALSE_RED, runs, high))


def at_least(name: str, runs: int) -> float:
    """Faulty reports of so many that must raise it."""
    low = interval(RATES[name]["found"], RATES[name]["fault_runs"])[0]
    return float(stats.binom.ppf(FALSE_RED, runs, low))


def test_every_fault_was_measured_and_is_found_more_often_than_not() -> None:
    assert set(RATES) == set(NAMES)
    for name, rate in RATES.items():
        assert rate["found"] >= 0.75 * rate["fault_runs"], name


def test_a_check_that_warns_is_wrong_in_less_than_one_clean_report_in_a_hundred() -> None:
    for name, rate in RATES.items():
        assert name in studies.TOLD or rate["false_alarms"] <= 0.01 * rate["clean_runs"], name


def check_clean(runs: int, seed: int) -> None:
    counts = studies.false_alarms(runs, seed)
    assert set(counts) <= set(NAMES), "a check that is not measured spoke up on clean data"
    for name, number in counts.items():
        assert number <= at_most(name, runs), (name, number)


def test_checks_are_silent_on_clean_data() -> None:
    check_clean(25, seed=21)


def test_nothing_blocks_a_clean_report() -> None:
    for random in studies._generators(25, 22):
        report = studies.clean(random).report()
        assert not [item for item in report.checks if item.severity == "block"]


@pytest.mark.parametrize("name", NAMES)
def test_the_planted_fault_is_found(name: str) -> None:
    runs = 5
    assert studies.detections(name, runs, seed=23) >= max(1, at_least(name, runs))


@pytest.mark.slow
def test_checks_are_silent_on_much_clean_data() -> None:
    check_clean(400, seed=24)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_planted_fault_is_found_at_its_rate(name: str) -> None:
    assert studies.detections(name, 60, seed=25) >= at_least(name, 60)


def test_the_page_is_written_from_the_rules_and_the_rates() -> None:
    told = (DOCS / "checks.md").read_text()
    assert told == page(RATES), "run `python docs/checks.py`"
    assert all(f"### {rule.id}\n" in told for rule in RULES)


def test_every_check_of_a_report_explains_itself() -> None:
    for name, make in studies.FAULTS.items():
        random = next(studies._generators(1, 26))
        for item in make(random).report().checks:
            assert item.explanation, (name, item.id)
            assert item.remedy, (name, item.id)
            json.dumps(item.to_dict(), allow_nan=False)
