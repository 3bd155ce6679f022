"""Argo Rollouts: its web metric and its kayenta provider, driven by the example's own templates.

Argo has no Python: what it does with an answer is restated here from its source (`webmetric`,
`evaluate`, `kayenta` and the assessment of an analysis run), in as many lines as it takes.
"""

from __future__ import annotations

import ast
import operator
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from abkit.client import Client
from abkit.controller import Controller
from abkit.rollout import Rollout, Stage

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; `python3 dev.py conformance`")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EXAMPLE = Path(__file__).parents[3] / "examples" / "kubernetes" / "argo-rollouts.yaml"
TEMPLATES = {
    item["metadata"]["name"]: item["spec"]
    for item in yaml.safe_load_all(EXAMPLE.read_text())
    if item["kind"] == "AnalysisTemplate"
}
(STEPS,) = [
    item["spec"]["strategy"]["canary"]["steps"]
    for item in yaml.safe_load_all(EXAMPLE.read_text())
    if item["kind"] == "Rollout"
]
COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}


def holds(condition: str, result: Any) -> bool:
    """An expr condition. A number compared with nil raises, as in expr: that is Argo's Error."""
    text = condition.replace("&&", " and ").replace("||", " or ").replace("!(", " not (")
    return bool(value_of(ast.parse(text.strip(), mode="eval").body, result))


def value_of(node: ast.AST, result: Any) -> Any:  # noqa: PLR0911 - one return a node
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [value_of(item, result) for item in node.elts]
    if isinstance(node, ast.UnaryOp):
        value = value_of(node.operand, result)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.Name):
        assert node.id == "result"
        return result
    if isinstance(node, ast.Attribute):
        return value_of(node.value, result).get(node.attr)
    if isinstance(node, ast.BoolOp):
        found = (value_of(item, result) for item in node.values)
        return all(found) if isinstance(node.op, ast.And) else any(found)
    assert isinstance(node, ast.Compare), ast.dump(node)
    left = value_of(node.left, result)
    return COMPARE[type(node.ops[0])](left, value_of(node.comparators[0], result))


def web(metric: dict[str, Any], served: Any, arguments: dict[str, str]) -> str:
    """The phase of one measurement of a web metric."""
    provider = metric["provider"]["web"]
    url = filled(provider["url"], arguments)
    headers = {item["key"]: filled(item["value"], arguments) for item in provider["headers"]}
    answer = served.get(re.sub(r"http://[^/]+", served.url, url), headers=headers)
    if not 200 <= answer.status_code < 300:
        return "Error"
    assert provider["jsonPath"] == "{$}"  # the whole document
    try:
        failed = holds(metric["failureCondition"], answer.json())
        succeeded = holds(metric["successCondition"], answer.json())
    except (TypeError, AttributeError):
        return "Error"
    return "Failed" if failed else "Successful" if succeeded else "Inconclusive"


def filled(text: str, arguments: dict[str, str]) -> str:
    return re.sub(r"\{\{args\.(\w+)\}\}", lambda item: arguments[item[1]], text)


def assessed(metric: dict[str, Any], phases: Iterable[str]) -> str:
    """What becomes of a metric after these measurements."""
    counts = dict.fromkeys(("Failed", "Inconclusive", "Successful", "Error"), 0)
    good = errors = 0
    for phase in phases:
        counts[phase] += 1
        good = good + 1 if phase == "Successful" else 0
        errors = errors + 1 if phase == "Error" else 0
        if counts["Failed"] > metric.get("failureLimit", 0):
            return "Failed"
        if counts["Inconclusive"] > metric.get("inconclusiveLimit", 0):
            return "Inconclusive"
        if errors > metric.get("consecutiveErrorLimit", 4):
            return "Error"
        if 0 < metric.get("consecutiveSuccessLimit", 0) <= good:
            return "Successful"
    return "Running"


@pytest.mark.parametrize(
    ("rollout", "weight", "phase"),
    [
        ("fresh", 5, "Inconclusive"),
        ("scarce", 50, "Inconclusive"),
        ("going", 50, "Inconclusive"),
        ("held", 50, "Inconclusive"),
        ("ready", 50, "Inconclusive"),
        ("stepped", 5, "Successful"),
        ("stepped", 25, "Inconclusive"),
        ("noted", 5, "Successful"),
        ("promoted", 50, "Successful"),
        ("halted", 50, "Failed"),
        ("nobody", 5, "Error"),
    ],
)
def test_the_web_metric_reads_each_state(
    served: Any, rollout: str, weight: int, phase: str
) -> None:
    (metric,) = TEMPLATES["abkit-decision"]["metrics"]
    arguments = {"rollout": rollout, "weight": str(weight), "token": "none"}
    assert web(metric, served, arguments) == phase
    state = assessed(metric, [phase])
    assert state == ("Running" if phase in ("Inconclusive", "Error") else phase)


@pytest.mark.parametrize(
    "condition",
    [
        "result.evalue_harm < 100",
        "result.evalue_noninf >= 0 && result.weight <= 100",
        "result.code >= -1 && result.next_weight >= 0",
        'result.decision_id != "x" && result.reason != ""',
        'result.action in ["insufficient_data", "continue", "advance", "promote", "halt"]',
    ],
)
def test_no_condition_meets_a_null(served: Any, condition: str) -> None:
    for item in served.get("/v1/rollouts").json()["rollouts"]:
        found = served.decision(item["rollout"])
        assert holds(condition, found) or "evalue_harm" in condition


def test_waiting_never_pauses_and_one_halt_fails() -> None:
    (metric,) = TEMPLATES["abkit-decision"]["metrics"]
    assert assessed(metric, ["Inconclusive"] * 10_000) == "Running"
    assert assessed(metric, ["Inconclusive"] * 100 + ["Failed"]) == "Failed"
    assert assessed(metric, ["Inconclusive"] * 100 + ["Successful"]) == "Successful"
    assert assessed(metric, ["Error"] * 5 + ["Successful"]) == "Successful"
    assert assessed(metric, ["Error"] * 6) == "Error"
    assert assessed({}, ["Inconclusive"]) == "Inconclusive", "Argo's own default pauses at once"


def test_the_web_metric_brings_the_token(zoo: Path, serve: Callable[..., Any], token: str) -> None:
    (metric,) = TEMPLATES["abkit-decision"]["metrics"]
    with serve(zoo, ABKIT_VIEWER_TOKEN=token) as served:
        arguments = {"rollout": "stepped", "weight": "5", "token": token}
        assert web(metric, served, arguments) == "Successful"
        assert web(metric, served, arguments | {"token": "another"}) == "Error"


# ---- a whole rollout, with traffic --------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "end", "reached"),
    [((0.4, 0.2), "Successful", [5, 25, 50]), ((0.02, 0.6), "Failed", [5])],
)
def test_argo_follows_a_rollout_to_its_end(
    tmp_path: Path, serve: Callable[..., Any], rates: tuple[float, float], end: str, reached: Any
) -> None:
    """The example's steps, one analysis run each, beside a controller that acts by itself."""
    (metric,) = TEMPLATES["abkit-decision"]["metrics"]
    stages = tuple(Stage(name=f"{x} %", share=x / 100, min_units=40) for x in (5, 25, 50))
    random, number = np.random.default_rng(5), 0
    weights: list[int] = []
    phases: list[str] = []
    path = tmp_path / "live"
    with Controller(path) as controller, Client(path, poll_seconds=0.0) as client:
        workspace = controller.workspace
        plan = Rollout.plan(
            "r1", experiment="x", control="old", treatment="new", stages=stages, salt="s"
        )
        workspace.start(plan)
        with serve(path, "--rate", "0") as served:
            for step in STEPS:
                if "setWeight" in step:
                    weights.append(step["setWeight"])
                    continue
                given = {item["name"]: item["value"] for item in step["analysis"]["args"]}
                phases = []
                while (state := assessed(metric, phases)) == "Running":
                    assert len(phases) < 100
                    for _ in range(400):
                        number += 1
                        found = client.assign("x", f"unit-{number}")
                        client.expose(found)
                        client.record(
                            found.unit_id, "error", random.random() < rates[found.variant == "new"]
                        )
                    controller.tick()
                    served.get("/readyz")
                    time.sleep(0.25)  # longer than the server looks away
                    arguments = given | {"rollout": "r1", "token": "none"}
                    phases.append(web(metric, served, arguments))
                    stands = 100 * workspace.rollout("r1").last_share
                    assert phases[-1] != "Successful" or stands > weights[-1], "Argo is ahead"
                if state != "Successful":
                    break
        assert (state, weights) == (end, reached)
        assert workspace.rollout("r1").state == ("promoted" if end == "Successful" else "halted")


# ---- the kayenta provider -----------------------------------------------------------------------


def run(provider: dict[str, Any], served: Any, name: str) -> str:
    """Argo's `Run`: looks the config up by its name, and posts a job; returns its id."""
    configs = served.get(
        f"/canaryConfig?application={provider['application']}"
        f"&configurationAccountName={provider['storageAccountName']}"
    )
    assert configs.status_code == 200
    ids = [item["id"] for item in configs.json() if item["name"] == name]
    scopes = {
        item["name"]: {
            "controlScope": item["controlScope"],
            "experimentScope": item["experimentScope"],
        }
        for item in provider["scopes"]
    }
    job = served.post(
        f"/canary/{ids[0]}?application={provider['application']}"
        f"&metricsAccountName={provider['metricsAccountName']}"
        f"&configurationAccountName={provider['configurationAccountName']}"
        f"&storageAccountName={provider['storageAccountName']}",
        {"scopes": scopes, "thresholds": provider["threshold"]},
    )
    assert job.status_code == 200
    found: str = job.json()["canaryExecutionId"]
    return found


def resumed(provider: dict[str, Any], served: Any, execution: str) -> str:
    """Argo's `Resume`: the phase that follows from the score."""
    answer = served.get(f"/canary/{execution}")
    if answer.status_code != 200 or not isinstance(answer.json().get("complete"), bool):
        return "Error"
    if not answer.json()["complete"]:
        return "Running"
    score = answer.json()["result"]["judgeResult"]["score"]["score"]
    assert isinstance(score, float)  # NestedFloat64
    if int(score) >= provider["threshold"]["pass"]:
        return "Successful"
    return "Inconclusive" if int(score) >= provider["threshold"]["marginal"] else "Failed"


@pytest.mark.parametrize(
    ("rollout", "phase"),
    [
        ("fresh", "Running"),
        ("scarce", "Running"),
        ("going", "Running"),
        ("held", "Running"),
        ("noted", "Successful"),
        ("stepped", "Running"),
        ("promoted", "Successful"),
        ("halted", "Failed"),
    ],
)
def test_the_kayenta_provider_waits_and_then_reads_the_score(
    served: Any, rollout: str, phase: str
) -> None:
    provider = TEMPLATES["abkit-as-kayenta"]["metrics"][0]["provider"]["kayenta"]
    execution = run(provider, served, rollout)
    assert execution
    assert resumed(provider, served, execution) == phase


def test_an_execution_that_began_lower_is_complete(served: Any) -> None:
    provider = TEMPLATES["abkit-as-kayenta"]["metrics"][0]["provider"]["kayenta"]
    assert resumed(provider, served, "stepped~5") == "Successful"
    assert resumed(provider, served, "nobody~5") == "Error"
    assert resumed(provider, served, "stepped") == "Error"
