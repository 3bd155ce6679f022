"""Prometheus: its parser reads `/metrics`, and `/api/v1/query` has the shape of its API."""

from __future__ import annotations

import time
from typing import Any

import pytest

parser = pytest.importorskip(
    "prometheus_client.parser", reason="prometheus_client; `python3 dev.py conformance` brings it"
)
CODES = {"halted": -1, "going": 0, "noted": 1, "promoted": 2}


def test_the_real_parser_reads_the_metrics(served: Any) -> None:
    answer = served.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {item.name: item for item in parser.text_string_to_metric_families(answer.text)}
    assert {item.type for item in families.values()} == {"gauge", "counter"}
    assert all(item.documentation.endswith(".") for item in families.values())

    def values(name: str, label: str) -> dict[str, float]:
        return {item.labels[label]: item.value for item in families[name].samples}

    codes = values("abkit_decision_code", "rollout")
    assert {name: codes[name] for name in CODES} == CODES
    assert values("abkit_evalue_harm", "rollout")["halted"] > 100
    assert values("abkit_evalue_noninf", "rollout")["promoted"] >= 20
    shares = values("abkit_rollout_share", "rollout")
    assert (shares["going"], shares["halted"], shares["promoted"]) == (0.5, 0.0, 1.0)
    assert values("abkit_rollout_state", "state")["hold"] == 1
    seen = [item for item in families["abkit_exposures"].samples if item.name.endswith("_total")]
    assert sum(item.value for item in seen if item.labels["experiment"] == "x-going") == 2_000
    (age,) = families["abkit_snapshot_age_seconds"].samples
    assert 0 <= age.value < 3_600
    (readable,) = families["abkit_store_readable"].samples
    assert readable.value == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_probe_of_flagger_and_argo_is_one(served: Any, method: str) -> None:
    """Argo's client posts a form, Flagger's gets."""
    form = {"query": "vector(1)"}
    answer = served.get("/api/v1/query", params=form) if method == "GET" else None
    answer = answer or served.http.post("/api/v1/query", data=form)
    found = answer.json()
    assert (answer.status_code, found["status"]) == (200, "success")
    assert found["data"]["resultType"] == "vector"
    (result,) = found["data"]["result"]
    assert result["metric"] == {}
    assert abs(result["value"][0] - time.time()) < 60
    assert result["value"][1] == "1"


@pytest.mark.parametrize(("rollout", "code"), CODES.items())
def test_a_series_is_answered(served: Any, rollout: str, code: int) -> None:
    query = f'abkit_decision_code{{rollout="{rollout}"}}'
    form = {"query": query, "time": "1700000000.5"}
    found = served.http.post("/api/v1/query", data=form).json()["data"]
    labels = {"rollout": rollout, "experiment": f"x-{rollout}"}
    assert found["result"] == [
        {
            "metric": {"__name__": "abkit_decision_code"} | labels,
            "value": [1700000000.5, str(code)],
        }
    ]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("abkit_decision_code", 10),
        ('abkit_decision_code{rollout!="going"}', 9),
        ("abkit_decision_code{rollout='going', experiment=\"x-going\",}", 1),
        ('abkit_decision_code{rollout="nobody"}', 0),
        ("up", 0),
        (" vector( 1.5e0 ) ", 1),
    ],
)
def test_labels_select(served: Any, query: str, count: int) -> None:
    found = served.get("/api/v1/query", params={"query": query}).json()
    assert len(found["data"]["result"]) == count


def test_a_number_is_a_scalar(served: Any) -> None:
    found = served.get("/api/v1/query", params={"query": "2.5", "time": "2026-01-01T00:00:00Z"})
    assert found.json()["data"] == {"resultType": "scalar", "result": [1767225600.0, "2.5"]}


@pytest.mark.parametrize(
    "query", ["", "sum(abkit_decision_code)", 'x{a=~"b.*"}', "x{a}", "x" * 2_000, "1 +"]
)
def test_other_expressions_are_bad_data(served: Any, query: str) -> None:
    answer = served.get("/api/v1/query", params={"query": query})
    assert answer.status_code == 400
    assert (answer.json()["status"], answer.json()["errorType"]) == ("error", "bad_data")
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("query", "value"), [("vector(1e999)", "+Inf"), ("vector(-1e999)", "-Inf")]
)
def test_a_number_beyond_all_bounds_is_infinite(served: Any, query: str, value: str) -> None:
    answer = served.get("/api/v1/query", params={"query": query})
    assert (answer.status_code, answer.json()["data"]["result"][0]["value"][1]) == (200, value)
