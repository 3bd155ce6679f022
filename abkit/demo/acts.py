"""The three acts of the demo, as plans that a team could have written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.decision import Guardrail, Objective, Policy
from abkit.demo.worker import EXPERIMENT
from abkit.metrics import Metric
from abkit.rollout import Rollout, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = (
    Metric(key="wrong", kind="proportion", direction="decrease", missing="exclude"),
    Metric(key="failed", kind="proportion", direction="decrease", missing="exclude"),
    Metric(key="latency_ms", direction="decrease", unit_of_measure="ms", log=True),
)
WRONG_MARGIN = 0.01
FAILED_LIMIT = 0.01

# Wrong answers are common (about 17 %), so their difference is tested; failures are rare, so
# their rate is tested exactly against a limit.
_WRONG = Guardrail(metric="wrong", test="difference", margin=WRONG_MARGIN)
_FAILED = Guardrail(metric="failed", test="limit", limit=FAILED_LIMIT)
_FASTER = Objective(metric="latency_ms", rule="superior")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act.

    Args:
        number: 1, 2 or 3.
        title: what happens, in a line.
        plan: from the variant that serves now, the control, to the plan.
        max_requests: give up after so many requests.
    """

    number: int
    title: str
    plan: Callable[[str], Rollout]
    max_requests: int


def acts(*, logistic: str, student: str, green: str, fast: bool) -> list[Act]:
    """The plans.

    Args:
        logistic: the canary of act 1.
        student: the candidate of act 2.
        green: the green side of act 3.
        fast: shorter stages.
    """
    return [
        Act(
            number=1,
            title="logistic regression as canary of the teacher",
            plan=lambda control: Rollout.plan(
                "logistic-canary",
                experiment=EXPERIMENT,
                control=control,
                treatment=logistic,
                metrics=METRICS,
                policy=_policy(),
                stages=_stages(((5, 100), (25, 300), (50, 1_000)))
                if fast
                else _stages(((1, 100), (5, 400), (25, 1_500), (50, 5_000))),
            ),
            max_requests=80_000,
        ),
        Act(
            number=2,
            title="the distilled student: shadow, then canary",
            plan=lambda control: Rollout.plan(
                "student-rollout",
                experiment=EXPERIMENT,
                control=control,
                treatment=student,
                metrics=METRICS,
                policy=_policy(),
                stages=(
                    Stage(
                        name="shadow",
                        mode="shadow",
                        min_units=500,
                        requires=("wrong", "latency_ms"),
                    ),
                    *_stages(((10, 100), (50, 300)) if fast else ((10, 300), (50, 1_500))),
                ),
            ),
            max_requests=80_000,
        ),
        Act(
            number=3,
            title="blue-green: the student's next build takes over at once",
            plan=lambda control: Rollout.plan(
                "green-switch",
                experiment=EXPERIMENT,
                control=control,
                treatment=green,
                metrics=METRICS,
                policy=Policy(guardrails=(_FAILED,)),
                stages=(Stage(name="switched", mode="switch", share=1.0, min_units=2_000),),
            ),
            max_requests=10_000,
        ),
    ]


def _policy() -> Policy:
    return Policy(guardrails=(_WRONG, _FAILED), objectives=(_FASTER,), planned_units=4_000)


def _stages(steps: tuple[tuple[int, int], ...]) -> tuple[Stage, ...]:
    return tuple(
        Stage(name=f"{percent} %", share=percent / 100, min_units=units) for percent, units in steps
    )
