"""Kayenta's remote judge, in the JSON that Jackson writes and reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RANDOM = np.random.default_rng(11)
LEVEL = 100.0


def series(points: int = 60, mean: float = LEVEL) -> list[Any]:
    return [float(x) for x in RANDOM.normal(mean, 10.0, points)]


def pair(name: str, control: list[Any], experiment: list[Any]) -> dict[str, Any]:
    """A MetricSetPair."""
    scope = {
        "startTimeIso": "2026-01-01T00:00:00Z",
        "startTimeMillis": 1767225600000,
        "stepMillis": 60000,
    }
    return {
        "name": name,
        "id": f"id-of-{name}",
        "tags": {"type": "gauge"},
        "values": {"control": control, "experiment": experiment},
        "scopes": {"control": scope, "experiment": scope},
        "attributes": {"control": {"query": "q"}, "experiment": {"query": "q"}},
    }


def metric(name: str, *groups: str, **canary: Any) -> dict[str, Any]:
    """A CanaryMetricConfig."""
    return {
        "name": name,
        "query": {"type": "prometheus", "metricName": name},
        "groups": list(groups) or ["latency"],
        "analysisConfigurations": {"canary": {"direction": "increase", **canary}},
        "scopeName": "default",
    }


def request(metrics: list[Any], pairs: list[Any], **weights: float) -> dict[str, Any]:
    """A RemoteJudgeRequest."""
    return {
        "canaryConfig": {
            "name": "config",
            "configVersion": "1",
            "applications": ["ranker"],
            "judge": {"name": "RemoteJudge-v1.0", "judgeConfigurations": {}},
            "metrics": metrics,
            "classifier": {"groupWeights": weights},
        },
        "scoreThresholds": {"pass": 95.0, "marginal": 75.0},
        "metricSetPairList": pairs,
    }


def judged(served: Any, *args: Any, **weights: float) -> dict[str, Any]:
    answer = served.post("/judge", request(*args, **weights))
    assert answer.status_code == 200, answer.text
    assert "NaN" not in answer.text
    assert "null" not in answer.text
    found: dict[str, Any] = answer.json()
    assert list(found) == ["judgeName", "results", "groupScores", "score"]
    for item in found["results"]:
        assert item["experimentMetadata"]["stats"]["count"] >= 0
        assert isinstance(item["groups"], list)
        assert item["classification"] in ("Pass", "High", "Low", "Nodata")
    return found


def verdict(served: Any, control: list[Any], experiment: list[Any], **canary: Any) -> str:
    found = judged(served, [metric("m", **canary)], [pair("m", control, experiment)])
    word: str = found["results"][0]["classification"]
    return word


def test_the_results_echo_the_pairs(served: Any) -> None:
    pairs = [pair("a", series(), series()), pair("b", series(), series(mean=200.0))]
    found = judged(served, [metric("a"), metric("b")], pairs)
    assert [(item["name"], item["id"]) for item in found["results"]] == [
        ("a", "id-of-a"),
        ("b", "id-of-b"),
    ]
    assert [item["classification"] for item in found["results"]] == ["Pass", "High"]
    assert found["results"][0]["tags"] == {"type": "gauge"}
    assert found["results"][1]["resultMetadata"]["ratio"] == pytest.approx(2.0, rel=0.1)
    assert found["groupScores"] == [
        {
            "name": "latency",
            "score": 50.0,
            "classification": "Fail",
            "classificationReason": "1 of 2 metrics pass",
        }
    ]
    assert (found["score"]["score"], found["score"]["classification"]) == (50.0, "Fail")


@pytest.mark.parametrize(
    ("direction", "factor", "word"),
    [
        ("increase", 1.3, "High"),
        ("increase", 0.7, "Pass"),
        ("decrease", 1.3, "Pass"),
        ("decrease", 0.7, "Low"),
        ("either", 1.3, "High"),
        ("either", 0.7, "Low"),
        ("either", 1.0, "Pass"),
    ],
)
def test_the_direction_says_what_is_bad(
    served: Any, direction: str, factor: float, word: str
) -> None:
    told = verdict(served, series(), series(mean=LEVEL * factor), direction=direction)
    assert told == word


def test_missing_points_are_missing(served: Any) -> None:
    """Jackson writes a Double that is no number as a text."""
    gaps: list[Any] = ["NaN", None, "Infinity"] * 20
    assert verdict(served, series() + gaps, gaps + series()) == "Pass"
    assert verdict(served, gaps, gaps) == "Nodata"
    assert verdict(served, [], []) == "Nodata"
    assert verdict(served, series(), []) == "Nodata"
    assert verdict(served, series(), series(4)) == "Nodata"
    assert verdict(served, [0.0] * 60, gaps, nanStrategy="replace") == "Pass"
    assert verdict(served, gaps, [9.0] * 60, nanStrategy="replace") == "High"


def test_no_data_fails_nothing_unless_it_must_be_there(served: Any) -> None:
    pairs = [pair("a", series(), series()), pair("b", [], [])]
    assert judged(served, [metric("a"), metric("b")], pairs)["score"]["score"] == 100.0
    must = [metric("a"), metric("b", mustHaveData=True)]
    assert judged(served, must, pairs)["score"]["score"] == 50.0
    found = judged(served, [metric("b")], [pairs[1]])["score"]
    assert (found["score"], found["classification"]) == (75.0, "Nodata"), "neither passes nor fails"


def test_a_critical_metric_alone_fails_all(served: Any) -> None:
    pairs = [pair(name, series(), series()) for name in "abcdefgh"]
    pairs.append(pair("z", series(), series(mean=200.0)))
    metrics = [metric(name) for name in "abcdefgh"]
    found = judged(served, [*metrics, metric("z", critical=True)], pairs)
    assert (found["score"]["score"], found["score"]["classification"]) == (0.0, "Fail")
    assert found["score"]["classificationReason"] == "critical metrics failed: z"
    mild = judged(served, [*metrics, metric("z")], pairs)["score"]
    assert (round(mild["score"], 1), mild["classification"]) == (88.9, "Marginal")


def test_groups_are_weighted(served: Any) -> None:
    pairs = [pair("a", series(), series()), pair("b", series(), series(mean=200.0))]
    metrics = [metric("a", "good"), metric("b", "bad")]
    found = judged(served, metrics, pairs, good=80.0, bad=20.0)
    assert found["score"]["score"] == 80.0
    assert judged(served, metrics, pairs)["score"]["score"] == 50.0
    assert judged(served, metrics, pairs, good=100.0)["score"]["score"] == 100.0


def test_an_allowed_effect_passes(served: Any) -> None:
    control, experiment = series(500), series(500, mean=105.0)
    assert verdict(served, control, experiment) == "High"
    effect = {"allowedIncrease": 1.2, "allowedDecrease": 0.8}
    assert verdict(served, control, experiment, effectSize=effect) == "Pass"


def test_releases_that_change_nothing_are_seldom_failed(served: Any) -> None:
    """At most alpha = 0.02 of them, whatever the number of metrics: 200 judgements of 10."""
    random = np.random.default_rng(3)
    failed = 0
    for _ in range(200):
        values = random.exponential(1.0, (10, 2, 30)).tolist()
        pairs = [pair(f"m{i}", control, other) for i, (control, other) in enumerate(values)]
        found = judged(served, [metric(f"m{i}") for i in range(10)], pairs)
        failed += found["score"]["score"] < 100.0
    assert failed <= 10  # 4 are expected at most; P(more than 10) is below 0.003


def test_equal_values_and_huge_ones_pass(served: Any) -> None:
    assert verdict(served, [5.0] * 60, [5.0] * 60) == "Pass"
    assert verdict(served, [0.0] * 60, [0.0] * 60) == "Pass"
    assert verdict(served, [1e308] * 60, [1e308] * 60) == "Pass"
    assert verdict(served, [0.0] * 60, [1.0] * 60) == "High"


@pytest.mark.parametrize(
    "body", [{}, {"metricSetPairList": 3}, {"metricSetPairList": [3]}, [], "text"]
)
def test_another_shape_is_refused(served: Any, body: Any) -> None:
    answer = served.post("/judge", body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_long_series_are_taken(served: Any) -> None:
    pairs = [pair(f"m{i}", series(1_440), series(1_440)) for i in range(20)]
    assert len(judged(served, [], pairs)["results"]) == 20
