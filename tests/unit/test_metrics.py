"""Metrics: names and choices are checked, defaults follow the kind."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from abkit.errors import ConfigError
from abkit.metrics import Metric, check_name, outcome_value


@pytest.mark.parametrize(("kind", "missing"), [("proportion", "zero"), ("mean", "exclude")])
def test_a_unit_without_an_outcome_counts_as_its_kind_says(kind: Any, missing: str) -> None:
    assert Metric(key="x", kind=kind).missing == missing
    assert Metric(key="x", kind=kind, missing="exclude").missing == "exclude"


def test_a_metric_goes_through_json() -> None:
    metric = Metric(key="latency", direction="decrease", unit_of_measure="ms", log=True)
    assert Metric.from_dict(json.loads(json.dumps(metric.to_dict()))) == metric


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, ["metric", "table", "None"]),
        ("clicks", ["metric", "table", "'clicks'"]),
        ({}, ["no 'key'"]),
        ({"key": "my clicks"}, ["metric key", "'my clicks'", "a-z 0-9"]),
        ({"key": "x\n"}, ["metric key", r"'x\n'"]),
        ({"key": None}, ["metric key", "None"]),
        ({"key": "x", "kind": "rate"}, ["metric 'x'", "kind", "proportion, mean", "'rate'"]),
        ({"key": "x", "kind": ["mean"]}, ["metric 'x'", "kind", "['mean']"]),
        ({"key": "x", "direction": "up"}, ["metric 'x'", "direction", "'up'"]),
        ({"key": "x", "aggregate": "median"}, ["metric 'x'", "aggregate", "'median'"]),
        ({"key": "x", "missing": "drop"}, ["metric 'x'", "missing", "'drop'"]),
        ({"key": "x", "log": "false"}, ["metric 'x'", "log", "true or false", "'false'"]),
        ({"key": "x", "log": 1}, ["metric 'x'", "log", "true or false", "1"]),
        ({"key": "x", "unit_of_measure": 5}, ["metric 'x'", "unit_of_measure", "5"]),
        ({"key": "x", "log": True, "kind": "proportion"}, ["metric 'x'", "log needs kind='mean'"]),
        ({"key": "x", "log": True, "missing": "zero"}, ["metric 'x'", "missing='exclude'"]),
        ({"key": "x", "source": "y"}, ["source", "above and below"]),
        ({"key": "x", "above": 1.0}, ["source=''", "above=1.0"]),
        ({"key": "x", "source": "y", "above": 1, "below": 2}, ["one of above and below"]),
        ({"key": "x", "source": "a b", "above": 1}, ["source", "'a b'"]),
        ({"key": "x", "source": 5, "above": 1}, ["source", "5"]),
        ({"key": "x", "source": "y", "above": "1"}, ["threshold", "'1'"]),
        ({"key": "x", "source": "y", "above": 1, "aggregate": "mean"}, ["'mean'", "last bit"]),
        ({"key": "x", "source": "y", "above": 1, "log": True}, ["log needs"]),
        ({"key": "x", "window_seconds": 0}, ["window_seconds", "above 0"]),
        ({"key": "x", "window_seconds": 1e10}, ["window_seconds", "ten years"]),
        ({"key": "x", "kidn": "mean"}, ["metric 'x'", "'kidn'", "did you mean 'kind'"]),
        ({"key": "x", "zzz": 1}, ["metric 'x'", "'zzz'", "known are key, kind"]),
    ],
)
def test_what_is_unlawful_is_named_with_its_value(data: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Metric.from_dict(data)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message


def test_a_threshold_makes_a_proportion_of_another_metric() -> None:
    slow = Metric(key="slow", source="latency_ms", above=200.0)
    assert (slow.kind, slow.aggregate, slow.missing) == ("proportion", "max", "exclude")
    assert (slow.recorded, Metric(key="slow").recorded) == ("latency_ms", "slow")
    low = Metric(key="low", source="score", below=0.2, missing="zero")
    assert (low.aggregate, low.missing) == ("first", "zero")
    for metric in (slow, low, Metric(key="x", window_seconds=60.0)):
        assert Metric.from_dict(json.loads(json.dumps(metric.to_dict()))) == metric
    assert "source" not in Metric(key="x").to_dict()


@pytest.mark.parametrize(
    ("metric", "is_final"),
    [
        (Metric(key="x", kind="proportion"), True),
        (Metric(key="x", kind="proportion", aggregate="last"), False),
        (Metric(key="x", kind="proportion", aggregate="last", window_seconds=9.0), True),
        (Metric(key="x", source="y", above=1.0), True),
        (Metric(key="x", source="y", below=1.0), True),
        (Metric(key="x", source="y", below=1.0, aggregate="max"), False),
    ],
)
def test_whether_a_bad_event_stays_one(metric: Metric, *, is_final: bool) -> None:
    assert metric.final == is_final


@pytest.mark.parametrize("name", ["a", "7", "a-b_c", "x" * 64])
def test_a_lawful_name_is_returned(name: str) -> None:
    assert check_name(name, "name") == name


@pytest.mark.parametrize(
    "name", ["", "-a", "_a", ".a", "..", "a b", "a/b", "é", "x" * 65, "a\n", "\u0661", None, b"a"]
)
def test_what_could_become_a_path_or_a_query_is_no_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="is not a lawful name"):
        check_name(name, "name")


@pytest.mark.parametrize("value", [0, 1, -1.5, True, 1e308, 10**300, 5e-324])
def test_a_finite_number_is_a_value(value: float) -> None:
    assert outcome_value(value) == float(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "1", None, 1j, [1]])
def test_anything_else_is_none(value: Any) -> None:
    assert outcome_value(value) is None


def test_numpy_scalars_are_values_and_arrays_are_not() -> None:
    import numpy as np

    assert outcome_value(np.float32(0.5)) == 0.5
    assert outcome_value(np.int64(3)) == 3.0
    assert outcome_value(np.bool_(True)) == 1.0
    assert outcome_value(np.float64("nan")) is None
    assert outcome_value(np.array([1.0, 2.0])) is None
