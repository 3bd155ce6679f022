"""The manifests under examples/kubernetes parse, and name what their readers need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; `python3 dev.py conformance`")

FOLDER = Path(__file__).parents[2] / "examples" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
VERSIONS = {
    "AnalysisTemplate": "argoproj.io/v1alpha1",
    "Rollout": "argoproj.io/v1alpha1",
    "MetricTemplate": "flagger.app/v1beta1",
    "Canary": "flagger.app/v1beta1",
    "InferenceService": "serving.kserve.io/v1beta1",
    "Deployment": "apps/v1",
    "Service": "v1",
    "Secret": "v1",
    "PersistentVolumeClaim": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def named(name: str, kind: str, key: str = "") -> dict[str, Any]:
    found = [
        item
        for item in documents(name)
        if item["kind"] == kind and key in ("", item["metadata"]["name"])
    ]
    assert len(found) == 1
    spec: dict[str, Any] = found[0]["spec"]
    return spec


def test_all_four_are_there() -> None:
    assert [path.name for path in FILES] == [
        "argo-rollouts.yaml",
        "deployment-with-sidecar.yaml",
        "flagger.yaml",
        "kserve.yaml",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_document_is_one_that_kubernetes_knows(path: Path) -> None:
    for item in documents(path.name):
        assert item["apiVersion"] == VERSIONS[item["kind"]]
        assert NAME.match(item["metadata"]["name"])
        assert item.get("spec") or item.get("stringData")


def test_argo_waits_for_a_decision_and_fails_on_the_first_halt() -> None:
    (metric,) = named("argo-rollouts.yaml", "AnalysisTemplate", "abkit-decision")["metrics"]
    limits = {name: value for name, value in metric.items() if name.lower().endswith("limit")}
    assert limits == {
        "failureLimit": 0,
        "inconclusiveLimit": 100_000,
        "consecutiveSuccessLimit": 1,
        "consecutiveErrorLimit": 5,
    }
    assert metric["successCondition"] == 'result.action in ["advance", "promote"]'
    assert metric["failureCondition"] == 'result.action == "halt"'
    assert "count" not in metric
    web = metric["provider"]["web"]
    assert web["jsonPath"] == "{$}"
    assert "/v1/rollouts/{{args.rollout}}/decision" in web["url"]


def test_argo_asks_at_each_weight_for_that_weight() -> None:
    template = named("argo-rollouts.yaml", "AnalysisTemplate", "abkit-decision")
    wanted = {item["name"] for item in template["args"] if "valueFrom" not in item}
    steps = named("argo-rollouts.yaml", "Rollout")["strategy"]["canary"]["steps"]
    weights = [step["setWeight"] for step in steps if "setWeight" in step]
    asked = [
        {item["name"]: item["value"] for item in step["analysis"]["args"]}
        for step in steps
        if "analysis" in step
    ]
    assert all(item.keys() == wanted for item in asked)
    assert [int(item["weight"]) for item in asked] == weights == [5, 25, 50]


def test_argo_can_ask_as_if_abkit_were_kayenta() -> None:
    (metric,) = named("argo-rollouts.yaml", "AnalysisTemplate", "abkit-as-kayenta")["metrics"]
    kayenta = metric["provider"]["kayenta"]
    assert kayenta["threshold"]["marginal"] < kayenta["threshold"]["pass"] <= 100
    assert {"address", "application", "canaryConfigName", "storageAccountName"} <= kayenta.keys()
    assert kayenta["scopes"][0].keys() == {"name", "controlScope", "experimentScope"}


def test_flagger_asks_every_question_at_its_own_path() -> None:
    analysis = named("flagger.yaml", "Canary")["analysis"]
    hooks = {item["type"]: item for item in analysis["webhooks"]}
    assert hooks.keys() == {
        "confirm-rollout",
        "rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "rollback",
    }
    for kind, item in hooks.items():
        assert item["url"].endswith(f":8400/flagger/{kind}")
        follow = {"follow": "stages"} if kind == "confirm-traffic-increase" else {}
        assert item["metadata"] == {"rollout": "ranker-v7"} | follow
    assert analysis["stepWeights"] == [5, 25, 50]
    (metric,) = analysis["metrics"]
    assert metric["thresholdRange"] == {"min": 0}
    provider = named("flagger.yaml", "MetricTemplate")["provider"]
    assert provider["type"] == "prometheus"


def test_kserve_has_the_field_that_a_decision_patches() -> None:
    predictor = named("kserve.yaml", "InferenceService")["predictor"]
    assert predictor["canaryTrafficPercent"] == 5


def test_the_server_is_open_to_others_with_tokens_and_the_sidecar_to_its_pod_alone() -> None:
    name = "deployment-with-sidecar.yaml"

    def containers(key: str) -> dict[str, dict[str, Any]]:
        pod = named(name, "Deployment", key)["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        claims = {item["persistentVolumeClaim"]["claimName"] for item in pod["volumes"]}
        assert claims == {"abkit-workspace"}
        return {item["name"]: item for item in pod["containers"]}

    sidecar = containers("ranker")["abkit"]
    assert sidecar["args"] == ["abkit", "serve", "/workspace", "--log-exposures"]
    found = containers("abkit")
    assert found["controller"]["args"] == ["abkit", "controller", "/workspace"]
    server = found["server"]
    assert {item["name"] for item in server["env"]} == {
        "ABKIT_VIEWER_TOKEN",
        "ABKIT_OPERATOR_TOKEN",
        "ABKIT_APPROVER_TOKEN",
    }
    assert server["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for item in (sidecar, server, found["controller"]):
        assert item["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_commands_of_the_manifests_are_commands() -> None:
    from abkit.cli import _parser

    name = "deployment-with-sidecar.yaml"
    for item in documents(name):
        if item["kind"] == "Deployment":
            for container in item["spec"]["template"]["spec"]["containers"]:
                words = container.get("args", [])
                if words:
                    assert _parser().parse_args(words[1:]).run
