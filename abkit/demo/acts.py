"""The three acts of the demo, as plan files that a team could have written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.demo.worker import EXPERIMENT

if TYPE_CHECKING:
    from collections.abc import Callable

# Wrong answers are common (about 17 %), so their difference is tested; failures are rare, so
# their rate is tested exactly against a limit.
_CANARY = """\
key = "logistic-canary"
experiment = "{experiment}"
control = "{control}"
treatment = "{treatment}"
strategy = "canary"

[policy]
planned_units = 4000
guardrails = [
  {{ metric = "wrong", test = "difference", margin = 0.01 }},
  {{ metric = "failed", test = "limit", limit = 0.01 }},
]
objectives = [{{ metric = "latency_ms", rule = "superior" }}]

[[metrics]]
key = "wrong"
kind = "proportion"
direction = "decrease"
missing = "exclude"

[[metrics]]
key = "latency_ms"
direction = "decrease"
log = true
unit_of_measure = "ms"
"""

_DISTILL = """\
key = "student-rollout"
experiment = "{experiment}"
control = "{control}"
treatment = "{treatment}"
strategy = "distill"
policy.planned_units = 4000

[distill]
quality = "wrong"
margin = 0.01
latency = "latency_ms"
errors = "failed"
errors_limit = 0.01
"""

_SWITCH = """\
key = "green-switch"
experiment = "{experiment}"
control = "{control}"
treatment = "{treatment}"
strategy = "blue_green"
policy.guardrails = [{{ metric = "failed", test = "limit", limit = 0.01 }}]

[[stages]]
name = "switched"
mode = "switch"
share = 1.0
min_units = 2000
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act.

    Args:
        number: 1, 2 or 3.
        title: what happens, in a line.
        plan: from the variant that serves now, the control, to the text of the plan's file.
        max_requests: give up after so many requests.
    """

    number: int
    title: str
    plan: Callable[[str], str]
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
            plan=lambda control: _written(
                _CANARY,
                control,
                logistic,
                _stages((5, 100), (25, 300), (50, 1_000))
                if fast
                else _stages((1, 100), (5, 400), (25, 1_500), (50, 5_000)),
            ),
            max_requests=80_000,
        ),
        Act(
            number=2,
            title="the distilled student: shadow, then canary",
            plan=lambda control: _written(
                _DISTILL,
                control,
                student,
                _SHADOW + _stages((10, 100), (50, 300)) if fast else "",
            ),
            max_requests=80_000,
        ),
        Act(
            number=3,
            title="blue-green: the student's next build takes over at once",
            plan=lambda control: _written(_SWITCH, control, green),
            max_requests=10_000,
        ),
    ]


_SHADOW = """
[[stages]]
name = "shadow"
mode = "shadow"
min_units = 500
requires = ["wrong", "latency_ms"]
"""


def _written(plan: str, control: str, treatment: str, stages: str = "") -> str:
    return plan.format(experiment=EXPERIMENT, control=control, treatment=treatment) + stages


def _stages(*steps: tuple[int, int]) -> str:
    """Canary stages: (per cent, units of treatment to meet)."""
    return "".join(
        f'\n[[stages]]\nname = "{percent} %"\nshare = {percent / 100}\nmin_units = {units}\n'
        for percent, units in steps
    )
