"""Several treatments as a server tells of them: one object, and numbers by variant beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.controller import Controller
from abkit.decision import Guardrail, Objective, Policy
from abkit.metrics import Metric
from abkit.rollout import Rollout, Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

parser = pytest.importorskip(
    "prometheus_client.parser", reason="prometheus_client; `python3 dev.py conformance` brings it"
)


def test_several_treatments_have_one_decision_and_numbers_each(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    with Controller(tmp_path / "workspace") as controller:
        workspace = controller.workspace
        workspace.start(
            Rollout.plan(
                "contest",
                experiment="shop",
                control="old",
                treatment="a",
                rivals=("b", "c"),
                policy=Policy(
                    guardrails=(Guardrail(metric="error"),),
                    objectives=(Objective(metric="bought"),),
                ),
                metrics=(Metric(key="bought", kind="proportion", missing="exclude"),),
                stages=(Stage(name="60 %", share=0.6, min_units=100),),
                salt="s",
            )
        )
        with Client(workspace.path, poll_seconds=0.0) as client:
            for i in range(900):
                found = client.assign("shop", f"unit-{i}")
                client.expose(found)
                client.record(found.unit_id, "error", i % 50 == 0)
                client.record(found.unit_id, "bought", i % 5 < 1 + (found.variant == "c"))
        controller.tick()
        with serve(workspace.path) as server:
            decision = server.decision("contest")
            assert (decision["action"], decision["weight"]) == ("continue", 60)
            summary = server.get("/v1/rollouts/contest").json()
            assert (summary["treatments"], summary["dropped"]) == (["a", "b", "c"], [])
            text = server.get("/metrics").text
    families = {item.name: item for item in parser.text_string_to_metric_families(text)}
    harm = {x.labels["variant"]: x.value for x in families["abkit_variant_evalue_harm"].samples}
    assert set(harm) == {"a", "b", "c"}
    assert decision["evalue_harm"] == harm["c"], "of the one that is ahead"
    shares = [x.value for x in families["abkit_variant_share"].samples]
    assert shares == pytest.approx([0.2, 0.2, 0.2])
    (whole,) = families["abkit_rollout_share"].samples
    assert whole.value == pytest.approx(0.6)
