"""Before an experiment: how long it takes, what it finds, and whether the method holds.

`plan` answers from numbers or from past data; `simulate_aa` and `simulate_power` try designs out on
the units themselves, thousands of times.
"""

from __future__ import annotations

from abkit.planning.plan import plan
from abkit.planning.report import DesignPlan, PlanReport
from abkit.planning.simulate import simulate_aa, simulate_power
from abkit.planning.simulation import PValues, SimulatedDesign, SimulationReport

__all__ = [
    "DesignPlan",
    "PValues",
    "PlanReport",
    "SimulatedDesign",
    "SimulationReport",
    "plan",
    "simulate_aa",
    "simulate_power",
]
