"""Flagger: the payloads it sends, and what it makes of a status."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; `python3 dev.py conformance`")

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).parents[3] / "examples" / "kubernetes" / "flagger.yaml"
DOCUMENTS = {item["kind"]: item for item in yaml.safe_load_all(EXAMPLE.read_text())}
HOOKS = {
    item["type"]: item["url"].partition(":8400")[2]
    for item in DOCUMENTS["Canary"]["spec"]["analysis"]["webhooks"]
}
OTHERS = {name: f"/flagger/{name}" for name in ("pre-rollout", "post-rollout", "event")}


def payload(name: str = "ranker", phase: str = "Progressing", **metadata: str) -> dict[str, Any]:
    """A CanaryWebhookPayload, as Go writes it."""
    body: dict[str, Any] = {
        "name": name,
        "namespace": "models",
        "phase": phase,
        "checksum": "85d557f47b",
    }
    return body | ({"metadata": metadata} if metadata else {})


def call(served: Any, hook: str, body: dict[str, Any]) -> str:
    """Flagger's `callWebhook`: "" if the hook passes, else the body."""
    answer = served.post({**HOOKS, **OTHERS}[hook], body)
    assert answer.status_code < 500, answer.text  # those are tried again
    assert answer.text
    return "" if answer.status_code <= 202 else answer.text


PASSES = {
    "confirm-rollout": {
        *("fresh", "scarce", "going", "noted", "stepped", "ready", "promoted", "baking")
    },
    "pre-rollout": {
        *("fresh", "scarce", "going", "noted", "stepped", "held", "ready", "promoted", "baking")
    },
    "confirm-traffic-increase": {"noted", "stepped", "promoted"},
    "confirm-promotion": {"promoted"},
    "rollback": {"halted"},
}
PASSES["rollout"] = PASSES["pre-rollout"]
ROLLOUTS = sorted({*PASSES["pre-rollout"], "halted"})


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("hook", PASSES)
def test_each_hook_passes_where_it_should(served: Any, hook: str, rollout: str) -> None:
    told = call(served, hook, payload(rollout=rollout))
    assert (told == "") == (rollout in PASSES[hook]), told
    if told:
        assert told.endswith(served.decision(rollout)["reason"])


def test_a_no_is_409_with_the_reason(served: Any) -> None:
    answer = served.post("/flagger/confirm-promotion", payload(rollout="held"))
    assert (answer.status_code, answer.text) == (409, "continue: on hold: by hand")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("hook", ["post-rollout", "event"])
def test_what_only_tells_passes_always(served: Any, hook: str) -> None:
    told = {"eventMessage": "New revision", "eventType": "Normal", "timestamp": "1578607635167"}
    for rollout in ("halted", "going", "nobody"):
        body = payload(phase="Succeeded", rollout=rollout, **told)
        assert call(served, hook, body) == ""


def test_the_rollout_is_named_by_metadata_or_by_the_canary(served: Any) -> None:
    assert call(served, "confirm-promotion", payload("promoted")) == ""
    assert call(served, "confirm-promotion", payload("halted", rollout="promoted")) == ""
    assert call(served, "rollback", payload("nobody", rollout="halted")) == ""


@pytest.mark.parametrize("hook", [*HOOKS, "pre-rollout"])
def test_an_unknown_rollout_passes_nowhere(served: Any, hook: str) -> None:
    assert "there is no rollout 'ranker'" in call(served, hook, payload())
    assert call(served, hook, {"name": "", "namespace": ""})


def test_a_weight_in_the_metadata_asks_for_it(served: Any) -> None:
    hook = "confirm-traffic-increase"
    assert call(served, hook, payload(rollout="stepped", weight="5")) == ""
    assert "no look" in call(served, hook, payload(rollout="stepped", weight="25"))
    assert "percent" in call(served, hook, payload(rollout="stepped", weight="x"))


def test_flagger_follows_the_stages_and_is_never_ahead(
    zoo: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    """Flagger asks before each of its steps, the first included; what it was let do is kept."""
    copied = tmp_path / "workspace"
    shutil.copytree(zoo, copied)
    hook = "confirm-traffic-increase"

    def passed(served: Any, rollout: str, times: int = 4, **changes: Any) -> int:
        body = payload(rollout=rollout, follow="stages") | changes
        return sum(call(served, hook, body) == "" for _ in range(times))

    with serve(copied) as served:
        assert passed(served, "fresh") == 1  # 0 to 5 %: the stage has begun
        assert passed(served, "stepped", times=1) == 1
    with serve(copied, "--allow-actions-from-loopback") as served:
        assert passed(served, "stepped") == 1  # the second of two, after a restart
        assert passed(served, "stepped", checksum="another") == 2  # a new release of the Canary
        assert passed(served, "promoted") == 4
        assert passed(served, "halted") == passed(served, "held") == 0
        version = served.get("/v1/rollouts/stepped").json()["version"]
        asked = {"reason": "by hand", "actor": "ann", "expected_version": version}
        assert served.post("/v1/rollouts/stepped/skip", asked).status_code == 200
        assert passed(served, "stepped") == 1
        (copied / "flagger.json").write_text("[")
        assert "cannot be read" in call(served, hook, payload(rollout="fresh", follow="stages"))


def test_the_metric_template_asks_for_the_code(served: Any) -> None:
    """Flagger's `RunQuery`: GET, and a text in the second place of the value."""
    query = DOCUMENTS["MetricTemplate"]["spec"]["query"]
    variables = DOCUMENTS["Canary"]["spec"]["analysis"]["metrics"][0]
    least = variables["thresholdRange"]["min"]
    for rollout, code in (("halted", -1), ("promoted", 2), ("going", 0), ("stepped", 1)):
        text = query.replace("{{ variables.rollout }}", rollout)
        answer = served.get("/api/v1/query", params={"query": text})
        (result,) = answer.json()["data"]["result"]
        assert isinstance(result["value"][1], str)
        assert float(result["value"][1]) == code
        assert (code >= least) == (rollout != "halted")


def test_a_token_in_the_address_is_basic_authentication(
    zoo: Path, serve: Callable[..., Any], token: str
) -> None:
    """Go's client sends what stands before the @ as such; Flagger's secretRef too."""
    with serve(zoo, ABKIT_VIEWER_TOKEN=token) as served:
        body = payload(rollout="promoted")
        assert served.post("/flagger/rollout", body).status_code == 401
        good = served.post("/flagger/rollout", body, auth=("flagger", token))
        assert good.status_code == 200
    with serve(zoo, "--open-reads", ABKIT_VIEWER_TOKEN=token) as served:
        assert served.post("/flagger/rollout", body).status_code == 200
        assert served.get("/v1/snapshot").status_code == 401
