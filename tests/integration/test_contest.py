"""Several treatments from plan file to the winner, through log, store and state files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from abkit.cli import main
from abkit.controller import Controller
from abkit.decision import sha256_of
from abkit.judge import replay
from abkit.plan_file import read_plan
from abkit.plots import comparison_over_time, evidence_over_time, harm_sparkline, traffic_over_time
from abkit.store.moments import observe_all
from abkit.store.reader import StoreReader
from abkit.trail import entries

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import LivePath

    from abkit.rollout import Rollout

PLAN = """
key = "r"
experiment = "ranker"
control = "old"
treatments = ["a", "b", "c"]
salt = "a-fixed-salt"
strategy = "ab"
metrics = [{ key = "bought", kind = "proportion", missing = "exclude" }]

[policy]
guardrails = [{ metric = "error", margin = 3.0 }]
objectives = [{ metric = "bought", rule = "superior" }]

[[stages]]
name = "30 %"
share = 0.3
min_units = 60

[[stages]]
name = "60 %"
share = 0.6
min_units = 200
"""
ERRORS = {"old": 0.05, "a": 0.05, "b": 0.4, "c": 0.05}
BOUGHT = {"old": 0.2, "a": 0.2, "b": 0.5, "c": 0.45}


def planned(tmp_path: Path, more: str = "") -> Rollout:
    file = tmp_path / "plan.toml"
    file.write_text(more + PLAN)
    return read_plan(file)


def serve(path: LivePath, requests: int = 300) -> None:
    for _ in range(requests):
        path.clock.now += 0.1
        unit = f"unit-{path.served}"
        path.served += 1
        assigned = path.client.assign("ranker", unit)
        path.client.expose(assigned)
        for metric, rates in (("error", ERRORS), ("bought", BOUGHT)):
            hit = path.random.random() < rates[assigned.variant]
            path.client.record(unit, metric, hit)


def run(path: LivePath, *, ticks: int = 30, until: str = "") -> Rollout:
    for _ in range(ticks):
        serve(path)
        path.controller.tick()
        found = path.workspace.rollout("r")
        if not found.live or found.state == until:
            break
    return path.workspace.rollout("r")


def records(path: LivePath) -> list[dict[str, Any]]:
    return StoreReader(path.workspace.path).decisions("r")


def test_of_three_one_is_dropped_and_one_wins(path: LivePath, tmp_path: Path) -> None:
    path.workspace.start(planned(tmp_path))
    rollout = run(path)
    assert (rollout.state, rollout.treatment) == ("promoted", "c")
    assert rollout.dropped == ("b", "a")
    assert {path.client.assign("ranker", f"later-{i}").variant for i in range(300)} == {"c"}
    found = records(path)
    assert replay(found) == []
    dropping = next(record for record in found if "drops" in record)
    assert (dropping["drops"], dropping["action"]) == (["b"], "continue")
    assert dropping["halt_threshold"] == pytest.approx(300)
    assert found[-1]["leader"] == "c"
    verbs = [entry.verb for entry in entries(path.workspace.path, rollout="r")]
    assert verbs[0] == "start"
    assert verbs[-1] == "promote"
    assert verbs.count("drop") == 1


def test_a_unit_of_the_dropped_one_gets_control_and_nobody_else_moves(
    path: LivePath, tmp_path: Path
) -> None:
    path.workspace.start(planned(tmp_path))
    units = [f"later-{i}" for i in range(2_000)]
    while not path.workspace.rollout("r").dropped:
        before = {unit: path.client.assign("ranker", unit).variant for unit in units}
        stage = path.workspace.rollout("r").stage_index
        serve(path)
        path.tick()
        assert path.workspace.rollout("r").live
    assert path.workspace.rollout("r").stage_index == stage
    after = {unit: path.client.assign("ranker", unit).variant for unit in units}
    moved = {(before[unit], after[unit]) for unit in units if before[unit] != after[unit]}
    assert moved == {("b", "old")}


@pytest.mark.parametrize("looks", [1, 100])
def test_a_restarted_controller_goes_on_as_if_it_had_never_stopped(
    path: LivePath, tmp_path: Path, looks: int
) -> None:
    path.workspace.start(planned(tmp_path))
    path.controller.close()
    for _ in range(30):
        # A new controller at every look, from its checkpoint or from all records.
        with Controller(path.workspace, clock=path.clock, checkpoint_looks=looks) as controller:
            serve(path)
            controller.tick()
        if not path.workspace.rollout("r").live:
            break
    rollout = path.workspace.rollout("r")
    assert (rollout.state, rollout.treatment, rollout.dropped) == ("promoted", "c", ("b", "a"))
    assert replay(records(path)) == []


def test_a_drop_that_was_recorded_and_cut_off_is_made_at_the_next_start(
    path: LivePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.workspace.start(planned(tmp_path))

    class Cut(BaseException):
        pass

    put = path.workspace.put

    def cut(rollout: Rollout, **rest: Any) -> None:
        if rollout.dropped:
            raise Cut
        put(rollout, **rest)

    monkeypatch.setattr(path.workspace, "put", cut)
    with pytest.raises(Cut):
        run(path)
    path.controller.close()
    assert path.workspace.rollout("r").dropped == ()
    monkeypatch.undo()
    with Controller(path.workspace, clock=path.clock) as second:
        second.tick()
        assert path.workspace.rollout("r").dropped == ("b",)
    assert replay(records(path)) == []


def test_an_operator_that_moves_it_meanwhile_does_not_stop_a_drop(
    path: LivePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.workspace.start(planned(tmp_path))
    put = path.workspace.put
    calls: list[str] = []

    def late(rollout: Rollout, **rest: Any) -> None:
        if rollout.dropped and not calls:
            calls.append("hold")
            path.workspace.hold("r", reason="wait", actor="ann")
        put(rollout, **rest)

    monkeypatch.setattr(path.workspace, "put", late)
    rollout = run(path, until="hold")
    assert (rollout.state, rollout.dropped) == ("hold", ("b",))


def test_by_hand_the_winner_waits_until_a_person_promotes(path: LivePath, tmp_path: Path) -> None:
    path.workspace.start(planned(tmp_path, 'approval = "manual"\n'))
    rollout = run(path, until="ready")
    assert (rollout.state, rollout.treatment) == ("ready", "c")
    done = path.workspace.act("r", "promote", reason="yes", actor="ann")
    assert (done.state, done.arms) == ("promoted", ("c",))


def test_what_is_held_between_looks_is_what_the_events_say(path: LivePath, tmp_path: Path) -> None:
    path.workspace.start(planned(tmp_path))
    run(path, ticks=8)
    rollout = path.workspace.rollout("r")
    ingester = path.controller._ingester
    ask: dict[str, Any] = {
        "experiment": "ranker",
        "epochs": (rollout.first_epoch, rollout.last_epoch),
        "metrics": rollout.watched_metrics,
        "control": "old",
        "treatment": rollout.treatment,
        "rivals": rollout.rivals,
        "now": path.clock.now,
    }
    held, defined = ingester.observe(**ask), observe_all(ingester._connection, **ask)
    assert held.exposures == defined.exposures
    assert (held.returned, held.live, held.lives) == (
        defined.returned,
        defined.live,
        defined.lives,
    )
    assert set(held.lives) == set(rollout.rivals)


def test_pictures_and_commands_tell_of_the_one_ahead(
    path: LivePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.workspace.start(planned(tmp_path))
    run(path, ticks=3)
    folder = str(path.workspace.path)
    for words in (["status", folder, "r"], ["status", folder], ["status", folder, "r", "--json"]):
        assert main(["rollout", *words]) == 0
    shown = capsys.readouterr().out
    assert "a, c has" in shown or "a, b, c has" in shown
    assert "c: bought" in shown
    assert main(["rollout", "plan", str(tmp_path / "plan.toml")]) == 0
    assert "a, b, c against old" in capsys.readouterr().out
    run(path)
    rollout, found = path.workspace.rollout("r"), records(path)
    rows = StoreReader(path.workspace.path).traffic("ranker")
    for figure in (
        comparison_over_time(found, "bought", rollout=rollout),
        evidence_over_time(found, "error", rollout=rollout),
        harm_sparkline(found, rollout=rollout),
        traffic_over_time(rows, rollout=rollout, records=found),
    ):
        assert figure.to_dict()["layout"]
    assert main(["replay", folder, "r"]) == 0
    assert main(["rollout", "status", folder, "r"]) == 0
    assert "out of it: b, a" in capsys.readouterr().out


def test_a_record_of_one_treatment_is_as_it_was(path: LivePath, tmp_path: Path) -> None:
    one = PLAN.replace('treatments = ["a", "b", "c"]', 'treatment = "a"')
    file = tmp_path / "one.toml"
    file.write_text(one)
    path.workspace.start(read_plan(file))
    serve(path)
    path.tick()
    (record,) = records(path)
    assert not {"leader", "drops"} & set(record)
    assert not {"rivals", "dropped"} & set(record["rollout_state"])
    assert "lives" not in record["observation"]
    assert all("variant" not in item for item in record["evidence"])
    assert record["policy_hash"] == sha256_of(record["rollout_state"]["policy"])
    assert json.loads(json.dumps(record)) == record
