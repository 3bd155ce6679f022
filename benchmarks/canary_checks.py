"""Is what `canary.py` adds up for many runs at once what abkit ships? Look by look, on a sample."""

from __future__ import annotations

import math
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from canary_rules import GROWTHBOOK_TUNING, growthbook, log_e_path, srm_path
from canary_streams import HOUR

from abkit.judge import JudgeState, judge
from abkit.machine import start
from abkit.moments import Block, Moments
from abkit.observation import Observation
from abkit.rollout import Rollout, Stage
from abkit.sequential.canary import CanaryDesign, CanaryState
from abkit.stats.srm import lindon_malek_log_e

if TYPE_CHECKING:
    from canary_streams import Floats, Stream

LARGEST_GAP: Final = 1e-8

GBSTATS: Final = """
import sys
from importlib.metadata import version
import numpy as np
from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import ProportionStatistic
given = np.load(sys.argv[1])
config = SequentialConfig(sequential_tuning_parameter=float(given["tuning"]))
first = np.full(len(given["x"]), -1)
for run in range(len(first)):
    for k in range(given["x"].shape[1]):
        arms = [ProportionStatistic(n=int(given[n][run, k]), sum=int(given[total][run, k]))
                for n, total in (("n_c", "y"), ("n_t", "x"))]
        if SequentialTwoSidedTTest(*arms, config).compute_result().ci[0] > 0:
            first[run] = k
            break
np.savez(sys.argv[2], first=first, version=version("gbstats"))
"""


def by_one(stream: Stream, run: int, design: CanaryDesign, blocks: int) -> Floats:
    """Log e-values of one run by the shipped code."""
    state, found = CanaryState.start(design), []
    for k in range(blocks):
        state = state.update(
            Block(
                int(stream.n_control[run, k]),
                int(stream.n_treatment[run, k]),
                int(stream.events_control[run, k]),
                int(stream.events_treatment[run, k]),
                int(stream.hour[k]),
            )
        )
        found.append(state.log_e_value)
    return np.array(found)


def gap_of_tests(stream: Stream, design: CanaryDesign, blocks: int) -> tuple[int, float]:
    """Looks compared and the largest difference of log e-values, relative where they are large."""
    many, gap, looks = log_e_path(stream, design), 0.0, 0
    for run in range(len(stream.n_control)):
        one = by_one(stream, run, design, blocks)
        apart = np.abs(many[run, :blocks] - one) / np.maximum(1.0, np.abs(one))
        gap, looks = max(gap, float(apart.max())), looks + blocks
    return looks, gap


def gap_of_split(stream: Stream, concentration: float) -> float:
    """The same for the check of the split, at the end of each hour of the first epoch."""
    path = srm_path(stream, concentration)
    gap, at = 0.0, np.flatnonzero(stream.epoch == stream.epoch[0])
    for run in range(len(stream.n_control)):
        share, largest = float(stream.planned[0]), 0.0
        counts = np.cumsum([stream.n_control[run, at], stream.n_treatment[run, at]], axis=1)
        for k in range(len(at)):
            pair = [int(n) for n in counts[:, k]]
            log_e = lindon_malek_log_e(pair, [1 - share, share], concentration=concentration)
            largest = max(largest, log_e)
            gap = max(gap, abs(float(path[run, at[k]]) - largest))
    return gap


def gap_of_judge(stream: Stream, looks: int) -> float:
    """Largest relative gap between the judge's e-values for harm and those of a user stream."""
    plan = Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="new",
        salt="s",
        stages=(Stage(name="canary", share=float(stream.planned[0]), min_units=10**9),),
    )
    many, gap = log_e_path(stream, CanaryDesign()), 0.0
    for run in range(len(stream.n_control)):
        rollout, state = start(plan, now=0.0, epoch=1), JudgeState()
        events = np.cumsum([stream.events_control[run], stream.events_treatment[run]], axis=1)
        for k in range(looks):
            n = (int(stream.n_control[run, k]), int(stream.n_treatment[run, k]))
            cells = {
                name: Moments.of_counts(units, int(bad))
                for name, units, bad in zip(("old", "new"), n, events[:, k], strict=True)
            }
            now = int(stream.hour[k]) * HOUR + 1.0 + k * stream.seconds % HOUR
            seen = Observation(now, {1: {"old": n[0], "new": n[1]}}, {"error": {1: cells}})
            decision, state = judge(rollout, state, seen)
            gap = max(gap, abs(math.log(decision.evidence[0].e_harm) - float(many[run, k])))
    return gap


def against_gbstats(python: str, stream: Stream) -> tuple[int, int, str]:
    """Runs, those that gbstats ends at the same minute as the restated rule, and its version."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder) / "stream.npz", Path(folder) / "answer.npz"
        np.savez(
            here,
            tuning=GROWTHBOOK_TUNING,
            n_c=np.cumsum(stream.n_control, axis=1),
            n_t=np.cumsum(stream.n_treatment, axis=1),
            y=np.cumsum(stream.events_control, axis=1),
            x=np.cumsum(stream.events_treatment, axis=1),
        )
        command = [python, "-W", "ignore", "-c", GBSTATS, str(here), str(there)]
        subprocess.run(command, check=True)
        answer = np.load(there)
        same = int((answer["first"] == growthbook(stream)).sum())
        return len(answer["first"]), same, str(answer["version"])
