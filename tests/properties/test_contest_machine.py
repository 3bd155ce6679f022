"""Several treatments under any sequence of decisions, people and restarts: who moves, and where."""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from abkit import machine
from abkit.compiler import compile_experiment
from abkit.decision import Decision, Guardrail, Objective, Policy
from abkit.errors import TransitionError
from abkit.metrics import Metric
from abkit.rollout import Rollout, Stage

POLICY = Policy(guardrails=(Guardrail(metric="error"),), objectives=(Objective(metric="clicks"),))
UNITS = [f"unit-{i}" for i in range(300)]
NAMES = ("a", "b", "c", "d")
LOST = {"halted", "rolled_back"}

rarely = st.integers(0, 9).map(lambda n: n == 7)
shares = st.lists(st.sampled_from([0.04, 0.2, 0.5, 0.8, 1.0]), min_size=1, max_size=4)


class ContestMachine(RuleBasedStateMachine):
    """Applies moves, and compares who is served what with the state before."""

    rollout: Rollout

    @initialize(
        count=st.integers(2, 4),
        shares=shares,
        mode=st.sampled_from(["enforce", "enforce", "notify"]),
        approval=st.sampled_from(["auto", "manual"]),
        bakes=st.booleans(),
    )
    def plan(
        self, count: int, shares: list[float], mode: str, approval: str, *, bakes: bool
    ) -> None:
        self.now = 0.0
        shares = sorted(shares)
        can_bake = bakes and shares[-1] < 1
        self.planned = NAMES[:count]
        plan = Rollout.plan(
            "r",
            experiment="x",
            control="old",
            treatment="a",
            rivals=self.planned[1:],
            policy=POLICY,
            metrics=(Metric(key="clicks", kind="proportion"),),
            stages=tuple(Stage(name=f"{i}: {s:g}", share=s) for i, s in enumerate(shares)),
            salt=f"salt{count}",
            mode=mode,  # type: ignore[arg-type]
            approval=approval,  # type: ignore[arg-type]
            bake_seconds=60.0 if can_bake else 0.0,
            bake_share=0.9 if can_bake else 1.0,
        )
        self.rollout = machine.start(plan, now=0.0, epoch=1)

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def step(self, moved: Rollout) -> None:
        """Check who has moved, then take it."""
        before, self.rollout = self.rollout, moved
        assert set(before.dropped) <= set(moved.dropped), "a dropped treatment came back"
        assert moved.last_epoch >= before.last_epoch
        was, now = served(before), served(moved)
        changed = {(was[unit], now[unit]) for unit in UNITS if was[unit] != now[unit]}
        if changed:
            assert moved.last_epoch > before.last_epoch
        out = set(moved.dropped) - set(before.dropped)
        for origin, target in changed:
            if moved.state in LOST:
                assert target == "old"
            elif moved.state in {"bake", "promoted"}:
                assert target == moved.treatment or (origin in out and target == "old")
            elif out:
                assert (origin in out, target) == (True, "old")
            else:  # a stage that is wider
                assert origin == "old"
                assert target in moved.arms

    def decide(self, decision: Decision) -> None:
        self.step(machine.advance(self.rollout, decision, now=self.tick()))

    @precondition(lambda self: self.rollout.live and len(self.rollout.arms) > 1)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        arms = self.rollout.arms
        some = st.lists(st.sampled_from(arms), min_size=1, max_size=len(arms) - 1, unique=True)
        out = data.draw(some)
        before = self.rollout
        self.decide(Decision(action="continue", reasons=("bad",), drops=tuple(out)))
        assert set(self.rollout.dropped) == {*before.dropped, *out}
        assert self.rollout.stage_index == before.stage_index
        assert before.state in {self.rollout.state, "ready"}

    @precondition(lambda self: self.rollout.live)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """A sound judge that sees what it needs."""
        rollout = self.rollout
        if rollout.stage_index + 1 < len(rollout.stages):
            self.decide(Decision(action="advance", reasons=("it may",)))
            return
        leader = data.draw(st.sampled_from(rollout.arms))
        self.decide(Decision(action="promote", reasons=("shown",), leader=leader))
        if rollout.state == "canary":
            assert self.rollout.treatment == leader
        waits = rollout.mode == "notify" or rollout.approval == "manual"
        if rollout.state == "canary" and not waits:
            assert self.rollout.state in {"bake", "promoted"}
            assert self.rollout.arms == (leader,)

    @precondition(lambda self: self.rollout.live)
    @rule()
    def nothing_new(self) -> None:
        self.decide(Decision(action="continue", reasons=("not yet",)))

    @precondition(lambda self: self.rollout.live)
    @rule(is_meant=rarely)
    def promote_by_hand(self, *, is_meant: bool) -> None:
        if not (is_meant or self.rollout.state == "ready"):
            return
        try:
            moved = machine.promote(self.rollout, now=self.tick(), reason="go", actor="ann")
        except TransitionError:
            assert self.rollout.rivals
            assert self.rollout.state != "ready"
            return
        self.step(moved)
        assert self.rollout.rivals == ()

    @precondition(lambda self: self.rollout.live)
    @rule(is_meant=rarely)
    def skip(self, *, is_meant: bool) -> None:
        rests = self.rollout.state in {"ready", "bake"}
        if is_meant and not rests and self.rollout.stage_index + 1 < len(self.rollout.stages):
            self.step(machine.skip(self.rollout, now=self.tick(), reason="go", actor="ann"))

    @precondition(lambda self: self.rollout.live)
    @rule()
    def hold_or_resume(self) -> None:
        verb = machine.resume if self.rollout.state == "hold" else machine.hold
        self.step(verb(self.rollout, now=self.tick(), reason="so", actor="ann"))

    @precondition(lambda self: self.rollout.live or self.rollout.state == "promoted")
    @rule(is_meant=rarely)
    def halt(self, *, is_meant: bool) -> None:
        if is_meant:
            self.step(machine.halt(self.rollout, now=self.tick(), reason="no", actor="ann"))
            assert set(served(self.rollout).values()) == {"old"}

    @rule()
    def restart_the_process(self) -> None:
        data = json.loads(json.dumps(self.rollout.to_dict(), allow_nan=False))
        assert Rollout.from_dict(data) == self.rollout
        self.rollout = Rollout.from_dict(data)

    @invariant()
    def all_that_were_planned_are_in_or_out(self) -> None:
        rollout = self.rollout
        assert sorted((*rollout.arms, *rollout.dropped)) == sorted(self.planned)
        assert rollout.arm_policy.alpha * len(self.planned) == POLICY.alpha
        found = set(served(rollout).values())
        assert not found & set(rollout.dropped)

    @invariant()
    def those_in_have_equal_parts(self) -> None:
        if self.rollout.experiment.state == "killed":
            return
        parts = [self.rollout.experiment.weights.get(arm, 0.0) for arm in self.rollout.arms]
        assert max(parts) - min(parts) < 1e-9
        assert self.rollout.allocations[-1] == (
            self.rollout.last_epoch,
            self.rollout.experiment.weights,
        )


def served(rollout: Rollout) -> dict[str, str]:
    choose = compile_experiment(rollout.experiment)
    return {unit: choose(unit).variant for unit in UNITS}


ContestMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
TestContestMachine = ContestMachine.TestCase
