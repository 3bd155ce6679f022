"""What do the boundaries of a group sequential test cost, and do they spend what they should?

abkit against spotify-confidence (a private environment: name its Python) and rpact (if Rscript and
the package are at hand). Each contender computes the same boundaries in a process of its own and
times itself, in CPU seconds of that process after its imports; abkit's memory of earlier walks is
emptied before each round. "Spent" is the error probability of the printed boundaries by abkit's
recursion, which an FFT convolution confirms to 1e-7 (tests/reference/test_group_sequential.py).
Writes `benchmarks/results/group_sequential.md`.

    python3 -m venv spotify && spotify/bin/pip install spotify-confidence
    python3 dev.py run python benchmarks/group_sequential.py --spotify spotify/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import scipy

from abkit.sequential import group_walk
from abkit.sequential.group import GroupSequential
from abkit.sequential.group_plan import crossings, even, spending_plan
from abkit.sequential.spending import Spending

RESULTS = Path(__file__).parent / "results" / "group_sequential.md"

SPOTIFY = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
from importlib.metadata import version
import numpy as np
from spotify_confidence.analysis.frequentist.sequential_bound_solver import bounds
looks, alpha, rho = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
started = time.process_time()
found = bounds(np.arange(1, looks + 1) / looks, alpha, rho, 8.0, 1).bounds
spent = time.process_time() - started
print(json.dumps([version("spotify-confidence"), spent, list(map(float, found))]))
"""

# rpact refuses more than 20 looks; the limit is lifted to show what lies beyond.
RPACT = """
suppressMessages(library(rpact))
given <- commandArgs(trailingOnly = TRUE)
space <- asNamespace("rpact")
unlockBinding("C_KMAX_UPPER_BOUND", space)
assign("C_KMAX_UPPER_BOUND", 1000, space)
spent <- system.time(found <- suppressWarnings(getDesignGroupSequential(
  kMax = as.integer(given[1]), alpha = as.numeric(given[2]), sided = as.integer(given[3]),
  typeOfDesign = given[4], gammaA = if (given[4] == "asKD") as.numeric(given[5]) else NA_real_)))
cat(as.character(packageVersion("rpact")), spent[1] + spent[2],
    format(found$criticalValues, digits = 12), sep = "\\n")
"""


@dataclass(frozen=True)
class Question:
    """Boundaries to be computed at even looks.

    Args:
        name: heading.
        looks: number of looks.
        alpha: over all looks.
        sides: 1 or 2.
        spending: of alpha.
        rpact: rpact's name of the spending function.
    """

    name: str
    looks: int
    alpha: float
    sides: int
    spending: Spending
    rpact: str


@dataclass(frozen=True)
class Answer:
    """What one contender found, and its CPU time in seconds."""

    who: str
    seconds: float
    boundaries: tuple[float, ...]


QUESTIONS = (
    Question("O'Brien-Fleming type, two-sided", 100, 0.05, 2, Spending(), "asOF"),
    Question("Pocock type, two-sided", 100, 0.05, 2, Spending("pocock"), "asP"),
    Question("O'Brien-Fleming type, two-sided", 20, 0.05, 2, Spending(), "asOF"),
    Question("Pocock type, two-sided", 20, 0.05, 2, Spending("pocock"), "asP"),
    Question("Kim-DeMets, rho 2, one-sided", 105, 0.025, 1, Spending("kim_demets", 2.0), "asKD"),
)


def ours(question: Question, rounds: int) -> Answer:
    """Abkit: the median of some rounds."""
    costs, found = [], ()
    for _ in range(rounds + 1):
        group_walk._remembered.cache_clear()  # noqa: SLF001
        started = time.process_time()
        plan = spending_plan(
            even(question.looks),
            spending=question.spending,
            alpha=question.alpha,
            alternative="two-sided" if question.sides == 2 else "greater",
        )
        costs.append(time.process_time() - started)
        found = plan.boundaries
    return Answer("abkit", median(costs[1:]), found)


def live(looks: int, rounds: int) -> float:
    """CPU seconds of a series of looks, judged one by one as they come."""
    design = GroupSequential(planned_information=1.0)
    costs = []
    for _ in range(rounds + 1):
        group_walk._remembered.cache_clear()  # noqa: SLF001
        started = time.process_time()
        design.replay([(0.5, t) for t in even(looks)])
        costs.append(time.process_time() - started)
    return median(costs[1:])


def spotify(question: Question, python: str) -> Answer | None:
    """spotify-confidence, whose only spending function is the power family, one-sided."""
    if question.rpact != "asKD" or not python:
        return None
    numbers = (question.looks, question.alpha, question.spending.parameter)
    command = [python, "-c", SPOTIFY, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    version, seconds, found = json.loads(done.stdout)
    return Answer(f"spotify-confidence {version}", seconds, tuple(found))


def rpact(question: Question) -> Answer | None:
    """Ask rpact, if R has it."""
    program = shutil.which("Rscript")
    if program is None:
        return None
    numbers = (question.looks, question.alpha, question.sides, question.rpact)
    command = [program, "-e", RPACT, *map(str, numbers), str(question.spending.parameter or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"rpact did not answer: {done.stderr.strip().splitlines()[-1:]}")
        return None
    version, seconds, *found = done.stdout.split()
    return Answer(f"rpact {version}", float(seconds), tuple(map(float, found)))


def spent(question: Question, boundaries: tuple[float, ...]) -> float:
    """Error probability of boundaries over all looks, both tails together."""
    both = question.sides == 2
    finite = [min(b, 30.0) for b in boundaries]
    return question.sides * crossings(even(question.looks), finite, two_sided=both)[-1]


def rows(question: Question, answers: list[Answer]) -> list[str]:
    """One table row for each contender."""
    first = answers[0]
    reachable = [k for k, b in enumerate(first.boundaries) if b < 4.5]
    lines = []
    for answer in answers:
        gap = max(abs(answer.boundaries[k] - first.boundaries[k]) for k in reachable)
        lines.append(
            f"| {question.name} | {question.looks} | {answer.who} | {1e3 * answer.seconds:,.1f} "
            f"| {answer.seconds / first.seconds:,.1f} × | {spent(question, answer.boundaries):.7f} "
            f"of {question.alpha:g} | {'' if answer is first else f'{gap:.1e}'} |"
        )
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of abkit (15)")
    parser.add_argument("--spotify", default="", help="a Python that has spotify-confidence")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    lines = [
        "# Boundaries of group sequential tests",
        "",
        "CPU milliseconds of one core for all boundaries at even looks, and how many times abkit's",
        "that is. Spent: error probability of the boundaries; the gap is the largest difference",
        "from abkit's where abkit's is below 4.5. rpact allows 20 looks; its limit was lifted",
        "for more, where its boundaries no longer spend alpha.",
        "",
        "| spending | looks | who | ms | ratio | spent | gap |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for question in QUESTIONS:
        others = [rpact(question), spotify(question, given.spotify)]
        answers = [ours(question, given.rounds), *(other for other in others if other)]
        lines += rows(question, answers)
    cost = live(100, given.rounds)
    lines += [
        "",
        f"100 looks judged one by one by `GroupSequential.look`: {1e3 * cost:.1f} ms.",
        "",
        f"Python {platform.python_version()}; numpy {np.__version__}, scipy {scipy.__version__}.",
        "",
    ]
    text = "\n".join(lines)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
