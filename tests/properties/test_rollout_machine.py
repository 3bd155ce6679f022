"""The rollout's state machine under any sequence of decisions, people and restarts."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from abkit import machine
from abkit.compiler import compile_experiment
from abkit.decision import Action, Decision, Guardrail, Objective, Policy
from abkit.errors import TransitionError
from abkit.metrics import Metric
from abkit.rollout import STATE_OF, Ramp, Rollout, Stage

POLICY = Policy(guardrails=(Guardrail(metric="error"),), objectives=(Objective(metric="clicks"),))
UNITS = [f"unit-{i}" for i in range(100)]
OVER = {"halted", "rolled_back", "promoted", "superseded"}

# Most walks should be long: what ends one comes up rarely.
rarely = st.integers(0, 9).map(lambda n: n == 7)
shares = st.lists(st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0]), max_size=5)


actions = st.sampled_from(
    [*["continue", "advance", "promote"] * 3, "hold", "hold", "halt"]  # as rarely as that
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Stage, ...]:
    stages = [Stage(name="dark", mode="shadow")] if draw(st.booleans()) else []
    stages += [Stage(name=f"{s:.1%}", share=s) for s in sorted(draw(shares))]
    if not stages or draw(st.booleans()):
        stages.append(Stage(name="all", mode="switch", share=1.0))
    return tuple(stages)


class RolloutMachine(RuleBasedStateMachine):
    """Applies moves to a rollout, and compares each result with the state before it."""

    rollout: Rollout

    @initialize(
        stages=plans(),
        epoch=st.integers(1, 50),
        is_draft=rarely,
        mode=st.sampled_from(["enforce", "enforce", "notify"]),
        approval=st.sampled_from(["auto", "auto", "manual"]),
        bakes=st.booleans(),
        is_ramp=rarely,
    )
    def plan(
        self,
        stages: tuple[Stage, ...],
        epoch: int,
        *,
        is_draft: bool,
        mode: Literal["enforce", "notify"],
        approval: Literal["auto", "manual"],
        bakes: bool,
        is_ramp: bool,
    ) -> None:
        self.now = 1000.0
        ramp = Ramp(start_share=0.01, max_share=0.6) if is_ramp else None
        if ramp is not None:
            stages = tuple(stage for stage in stages if stage.mode == "shadow")
        can_bake = bakes and (ramp is not None or stages[-1].share < 1)
        self.first_epoch = epoch
        self.rollout = Rollout.plan(
            "plan",
            experiment="x",
            control="old",
            treatment="new",
            policy=POLICY,
            metrics=(Metric(key="clicks", kind="proportion"),),
            stages=stages,
            salt=f"salt{epoch}",
            mode=mode,
            approval=approval,
            bake_seconds=60.0 if can_bake else 0.0,
            bake_share=max([0.95, *(stage.share for stage in stages)]) if can_bake else 1.0,
            ramp=ramp,
        )
        if not is_draft:
            self.start()

    def step(self, moved: Rollout) -> None:
        """Check a transition, then take it."""
        before, self.rollout = self.rollout, moved
        assert moved.version - before.version == (moved != before)
        assert moved.stages == before.stages
        climbed = moved.stage_index - before.stage_index
        assert climbed in {0, 1}, "a stage was skipped, or left downward"
        assert climbed == 0 or before.state not in OVER | {"draft", "hold"}
        is_over = moved.state in {"bake", "promoted"}
        if is_over and "bake" != before.state != moved.state and moved.actor == "abkit":
            assert before.stage_index == len(before.stages) - 1
        if before.state != "draft":
            self.check_epoch(before, moved)
            self.check_treated(before, moved)
        if moved != before:
            assert moved.changed == self.now
            assert moved.reason

    @staticmethod
    def check_epoch(before: Rollout, moved: Rollout) -> None:
        """The epoch grows when the allocation changes, and never otherwise falls."""
        assert moved.last_epoch >= before.last_epoch
        was, now = before.experiment, moved.experiment
        if (was.ranges, was.state, was.shadow) != (now.ranges, now.state, now.shadow):
            assert moved.last_epoch > before.last_epoch
        assert moved.first_epoch == before.first_epoch

    @staticmethod
    def check_treated(before: Rollout, moved: Rollout) -> None:
        """While the share grows, who is treated stays treated."""
        if moved.experiment.state == "killed":
            return
        assert treated(before) <= treated(moved)

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    @precondition(lambda self: self.rollout.state == "draft")
    @rule()
    def start(self) -> None:
        self.step(machine.start(self.rollout, now=self.tick(), epoch=self.first_epoch))
        assert self.rollout.last_epoch == self.first_epoch

    @precondition(lambda self: self.rollout.state != "draft")
    @rule()
    def start_again(self) -> None:
        with pytest.raises(TransitionError):
            machine.start(self.rollout, now=self.tick(), epoch=99)

    @precondition(lambda self: self.rollout.live and self.rollout.state != "hold")
    @rule()
    def go_on(self) -> None:
        """A sound judge that sees what it needs."""
        is_last = self.rollout.stage_index + 1 == len(self.rollout.stages)
        self.decide("promote" if is_last else "advance")

    @rule(action=actions)
    def decide(self, action: Action) -> None:
        """A judge, mistaken ones too: an illegal decision raises and changes nothing."""
        decision = Decision(action=action, reasons=(f"the judge says {action}",))
        before = self.rollout
        is_last = before.stage_index + 1 == len(before.stages)
        rests = before.state in {"hold", "ready", "bake"}
        is_legal = before.live and (
            rests
            or action not in {"advance", "promote"}
            or (action == "promote") == is_last
            or (action == "advance" and (before.mode == "notify" or before.growing))
        )
        if not is_legal:
            with pytest.raises(TransitionError):
                machine.advance(before, decision, now=self.tick())
            return
        self.step(machine.advance(before, decision, now=self.tick()))
        assert self.rollout.state in self.expected(before, action)
        if self.rollout.state == before.state and action != "advance":
            assert self.rollout == before
        if action == "advance" and not rests:
            climbs = before.mode == "enforce" and not before.growing
            assert self.rollout.stage_index == before.stage_index + climbs

    @staticmethod
    def expected(before: Rollout, action: Action) -> set[str]:
        """States that a decision may lead to."""
        stage: str = STATE_OF[before.stage.mode]
        waits = before.mode == "notify" or before.approval == "manual"
        done = "ready" if waits else "bake" if before.bake_seconds else "promoted"
        usual = {"continue": stage, "hold": "hold", "promote": done}
        known: dict[str, dict[str, str]] = {
            "hold": dict.fromkeys(usual, "hold"),
            "ready": {"promote": "ready", "hold": "hold", "continue": stage, "advance": stage},
            "bake": {"promote": "promoted", "hold": "bake", "continue": "bake"},
        }
        if action == "halt":
            return {"halted", "rolled_back"}
        if action == "advance" and before.state not in known:
            return {"shadow", "canary", "switched"}
        return {known.get(before.state, usual).get(action, before.state)}

    @rule(share=st.sampled_from([0.001, 0.02, 0.2, 0.6, 0.9]))
    def grow(self, share: float) -> None:
        """A judge that lets a ramp grow: it stays in its stage, and never passes the largest."""
        before = self.rollout
        if not before.live or not before.growing:
            return
        decision = Decision(action="advance", reasons=("it may",), next_share=share)
        rests = before.state == "hold" or before.mode == "notify"
        if not rests and share <= before.last_share:
            with pytest.raises(TransitionError):
                machine.advance(before, decision, now=self.tick())
            return
        self.step(machine.advance(before, decision, now=self.tick()))
        assert self.rollout.stage_index == before.stage_index
        grown = before.last_share if rests else min(share, 0.6)
        assert self.rollout.last_share == pytest.approx(grown, abs=1e-9)
        assert len(self.rollout.allocations) == len(before.allocations) + (not rests)

    @rule(is_meant=rarely)
    def skip(self, *, is_meant: bool) -> None:
        before = self.rollout
        if not is_meant:
            return
        at_end = before.stage_index + 1 == len(before.stages) and not before.growing
        if not before.live or at_end or before.state in {"ready", "bake"}:
            with pytest.raises(TransitionError):
                machine.skip(before, now=self.tick(), reason="go", actor="ann")
            return
        self.person = machine.skip(before, now=self.tick(), reason="go", actor="ann")
        assert self.person.stage_index == before.stage_index + (not before.growing)
        assert self.person.last_share >= before.last_share
        self.check_epoch(before, self.person)
        self.check_treated(before, self.person)
        self.rollout = self.person

    @rule(is_meant=rarely)
    def promote(self, *, is_meant: bool) -> None:
        if not (is_meant or self.rollout.state == "ready"):
            return
        if not self.rollout.live:
            with pytest.raises(TransitionError):
                machine.promote(self.rollout, now=self.tick(), reason="go", actor="ann")
            return
        self.step(machine.promote(self.rollout, now=self.tick(), reason="go", actor="ann"))
        assert self.rollout.state in {"bake", "promoted"}

    @rule()
    def hold(self) -> None:
        if self.rollout.live:
            allocation = self.rollout.experiment
            self.step(machine.hold(self.rollout, now=self.tick(), reason="wait", actor="ann"))
            assert self.rollout.experiment == allocation
            return
        with pytest.raises(TransitionError):
            machine.hold(self.rollout, now=self.tick(), reason="wait", actor="ann")

    @rule()
    def resume(self) -> None:
        if self.rollout.state == "hold":
            allocation = self.rollout.experiment
            self.step(machine.resume(self.rollout, now=self.tick(), reason="go", actor="ann"))
            assert self.rollout.experiment == allocation
            return
        with pytest.raises(TransitionError):
            machine.resume(self.rollout, now=self.tick(), reason="go", actor="ann")

    @rule(is_meant=rarely)
    def halt(self, *, is_meant: bool) -> None:
        if not (is_meant or self.rollout.state == "promoted"):
            return
        if self.rollout.live or self.rollout.state == "promoted":
            self.step(machine.halt(self.rollout, now=self.tick(), reason="stop", actor="ann"))
            return
        with pytest.raises(TransitionError):
            machine.halt(self.rollout, now=self.tick(), reason="stop", actor="ann")

    @precondition(lambda self: self.rollout.state == "promoted")
    @rule(is_meant=rarely)
    def supersede(self, *, is_meant: bool) -> None:
        if is_meant:
            self.step(machine.superseded(self.rollout, now=self.tick(), by="next"))

    @rule()
    def restart_the_process(self) -> None:
        data = json.loads(json.dumps(self.rollout.to_dict(), allow_nan=False))
        self.rollout = Rollout.from_dict(data)

    @invariant()
    def plain_data_tells_everything(self) -> None:
        data = json.loads(json.dumps(self.rollout.to_dict(), allow_nan=False))
        assert Rollout.from_dict(data) == self.rollout

    @invariant()
    def the_state_serves_what_it_says(self) -> None:
        rollout = self.rollout
        count = len(treated(rollout))
        if rollout.state in {"draft", "shadow", "halted", "rolled_back"}:
            assert count == 0
        if rollout.state in {"promoted", "superseded", "switched"}:
            assert count == len(UNITS)
        weight = rollout.experiment.weights.get("new", 0.0)
        if rollout.state in {"shadow", "canary", "switched"}:
            is_ramp = rollout.ramp is not None and rollout.stage.name == "ramp"
            most = rollout.top_share if is_ramp else rollout.stage.share
            assert rollout.stage.share - 1e-12 < weight < most + 1e-12
        assert (rollout.experiment.shadow == "new") == (
            rollout.live and rollout.state != "bake" and rollout.stage.mode == "shadow"
        )

    @invariant()
    def allocations_tell_the_history(self) -> None:
        rollout = self.rollout
        epochs = [epoch for epoch, _ in rollout.allocations]
        assert epochs == sorted(set(epochs))
        if rollout.state == "draft":
            assert not epochs
            return
        assert epochs[0] == rollout.first_epoch
        assert epochs[-1] <= rollout.last_epoch
        shares_of_new = [shares.get("new", 0.0) for _, shares in rollout.allocations]
        assert shares_of_new == sorted(shares_of_new), "a treated share fell without a halt"
        if rollout.experiment.state == "running":
            assert rollout.allocations[-1] == (rollout.last_epoch, rollout.experiment.weights)


def treated(rollout: Rollout) -> set[str]:
    assign = compile_experiment(rollout.experiment)
    return {unit for unit in UNITS if assign(unit).variant == "new"}


RolloutMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestRolloutMachine = RolloutMachine.TestCase
