"""Plan files from the command line to the last decision, and the schema that editors read."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from abkit.cli import main
from abkit.client import Client
from abkit.controller import Controller
from abkit.demo.acts import acts
from abkit.plan_file import read_plan
from abkit.plan_file.schema import PUBLISHED, schema
from abkit.plan_file.text import parse
from abkit.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from abkit.rollout import Rollout

    Answer = Callable[[str, random.Random], dict[str, float]]

HEAD = 'key = "r1"\nexperiment = "ranker"\ncontrol = "old"\ntreatment = "new"\n'


def run(folder: Path, plan: str, answer: Answer, *, batch: int, batches: int) -> Rollout:
    """Start a plan by its command, serve `batch` units before each look, and say where it ends."""
    file, space = folder / "plan.toml", folder / "space"
    file.write_text(plan, encoding="utf-8")
    assert main(["rollout", "start", str(space), str(file)]) == 0
    chance = random.Random(1)
    with Controller(space) as controller, Client(space, poll_seconds=0.0) as client:
        for number in range(batches):
            for i in range(batch):
                serve(client, f"user-{number}-{i}", answer, chance)
            client.flush()
            controller.tick()
            rollout = controller.workspace.rollout("r1")
            if not rollout.live or rollout.state in ("ready", "bake"):
                break
    return rollout


def serve(client: Client, unit: str, answer: Answer, chance: random.Random) -> None:
    assigned = client.assign("ranker", unit)
    client.expose(assigned)
    for variant in filter(None, (assigned.variant, assigned.shadow)):
        for metric, value in answer(variant, chance).items():
            where = {"experiment": "ranker", "variant": variant} if assigned.shadow else {}
            client.record(unit, metric, value, **where)


def errors(old: float, new: float) -> Answer:
    return lambda variant, chance: {
        "error": float(chance.random() < (new if variant == "new" else old))
    }


def test_a_file_of_five_lines_halts_a_harmful_canary(tmp_path: Path) -> None:
    plan = HEAD + 'strategy = "canary"\n'
    assert plan.count("\n") == 5
    found = run(tmp_path, plan, errors(0.05, 0.6), batch=1000, batches=40)
    assert found.state == "halted"
    assert "error is worse in treatment" in found.reason


def test_a_file_of_five_lines_brings_a_good_canary_to_everyone(tmp_path: Path) -> None:
    plan = HEAD + 'policy.guardrails = [{ metric = "error" }]\n'
    assert plan.count("\n") == 5
    found = run(tmp_path, plan, errors(0.3, 0.3), batch=4000, batches=20)
    assert (found.state, found.last_share) == ("promoted", 1.0)
    shares = [shares["new"] for _, shares in found.allocations]
    assert shares == pytest.approx([0.01, 0.05, 0.25, 0.5, 1.0])


BLUE_GREEN = """strategy = "blue_green"
policy.guardrails = [{ metric = "failed", test = "limit", limit = 0.02 }]
"""


@pytest.mark.parametrize(("rate", "state"), [(0.0, "bake"), (0.3, "rolled_back")])
def test_a_blue_green_switch_is_watched_to_its_end(tmp_path: Path, rate: float, state: str) -> None:
    def answer(variant: str, chance: random.Random) -> dict[str, float]:
        return {"failed": float(variant == "new" and chance.random() < rate)}

    found = run(tmp_path, HEAD + BLUE_GREEN, answer, batch=600, batches=8)
    assert found.state == state
    assert found.experiment.state == ("running" if state == "bake" else "killed")
    assert [shares.get("new", 0.0) for _, shares in found.allocations][:2] == [0.0, 1.0]


SHADOW = """strategy = "shadow"
policy.guardrails = [{ metric = "wrong", test = "difference", margin = 0.05 }]
metrics = [{ key = "wrong", kind = "proportion", direction = "decrease", missing = "exclude" }]
"""


@pytest.mark.parametrize(("rate", "state"), [(0.2, "ready"), (0.4, "halted")])
def test_a_shadow_serves_nobody_until_a_person_promotes(
    tmp_path: Path, rate: float, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(variant: str, chance: random.Random) -> dict[str, float]:
        return {"wrong": float(chance.random() < (rate if variant == "new" else 0.2))}

    found = run(tmp_path, HEAD + SHADOW, answer, batch=500, batches=12)
    assert (found.state, found.last_share) == (state, 0.0)
    if state == "ready":
        assert main(["rollout", "promote", str(tmp_path / "space"), "r1"]) == 0
        assert "r1: promoted" in capsys.readouterr().out


DISTILL = """strategy = "distill"
[distill]
quality = "wrong"
margin = 0.03
latency = "latency_ms"
cost = "cost_usd"
"""


@pytest.mark.parametrize(
    ("changed", "state", "words"),
    [
        ({}, "promoted", "cost_usd: better than control is shown"),
        ({"cost_usd": 2.0}, "halted", "cost_usd is worse in treatment"),
        ({"latency_ms": 20.0}, "shadow", "latency_ms: better than control not shown yet"),
    ],
    ids=["better", "dearer", "as slow"],
)
def test_a_distilled_model_needs_all_of_the_joint_rule(
    tmp_path: Path, changed: dict[str, float], state: str, words: str
) -> None:
    new = {"latency_ms": 5.0, "cost_usd": 0.1} | changed

    def answer(variant: str, chance: random.Random) -> dict[str, float]:
        means = new if variant == "new" else {"latency_ms": 20.0, "cost_usd": 1.0}
        found = {name: mean * chance.uniform(0.9, 1.1) for name, mean in means.items()}
        return found | {
            "wrong": float(chance.random() < 0.1),
            "error": float(chance.random() < 0.3),
        }

    found = run(tmp_path, HEAD + DISTILL, answer, batch=1500, batches=14)
    assert found.state == state
    with Controller(tmp_path / "space") as controller:
        controller.tick()
    last = StoreReader(tmp_path / "space").decisions("r1", limit=1)[0]
    assert words in last["reason"]


def test_an_a_b_test_promotes_what_wins(tmp_path: Path) -> None:
    plan = (
        HEAD
        + """strategy = "ab"
policy.objectives = [{ metric = "bought" }]
metrics = [{ key = "bought", kind = "proportion" }]
stages = [{ name = "50 %", share = 0.5, min_units = 1000 }]
"""
    )

    def answer(variant: str, chance: random.Random) -> dict[str, float]:
        bought = float(chance.random() < (0.3 if variant == "new" else 0.2))
        return {"bought": bought, "error": float(chance.random() < 0.3)}

    found = run(tmp_path, plan, answer, batch=2000, batches=10)
    assert found.state == "promoted"
    assert "bought: better than control is shown" in found.reason


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '{"key": "r1", "experiment": "x", "control": "a", "treatment": "b"}'),
        ("p.yaml", "key: r1\nexperiment: x\ncontrol: a\ntreatment: b\n"),
        ("p.yml", "key: r1\nexperiment: x\ncontrol: a\ntreatment: b\n"),
    ],
)
def test_the_commands_read_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    if "json" not in name:
        pytest.importorskip("yaml")
    file = tmp_path / name
    file.write_text(text)
    assert main(["rollout", "plan", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rollout"] == "r1"
    assert main(["rollout", "start", str(tmp_path / "space"), str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "canary"


def test_a_plan_that_is_wrong_ends_with_its_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.toml"
    file.write_text(HEAD + 'strategy = "distil"\n')
    assert main(["rollout", "start", str(tmp_path / "space"), str(file)]) == 3
    assert "did you mean 'distill'?" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


def test_the_schema_command_prints_what_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == PUBLISHED.read_text(encoding="utf-8")


@pytest.mark.parametrize("fast", [True, False])
def test_the_demo_runs_by_plans_that_an_editor_takes(tmp_path: Path, *, fast: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    found: list[Any] = []
    for act in acts(logistic="logistic", student="student", green="green", fast=fast):
        file = tmp_path / f"act-{act.number}.toml"
        file.write_text(act.plan("teacher"), encoding="utf-8")
        jsonschema.Draft202012Validator(schema()).validate(parse(file.read_text(), file))
        plan = read_plan(file)
        found.append((plan.key, plan.treatment, [stage.mode for stage in plan.stages]))
    assert found == [
        ("logistic-canary", "logistic", ["canary"] * (3 if fast else 4)),
        ("student-rollout", "student", ["shadow", "canary", "canary"]),
        ("green-switch", "green", ["switch"]),
    ]
