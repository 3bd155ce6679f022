"""How often, and how soon, is a canary halted? abkit's test beside the rules of five others.

Days of traffic are drawn as counts, the same for every rule. A good canary should be halted in at
most 1 % of the days, a harmful one after hardly more requests than any test of that level needs.
abkit's test is the shipped design, added up for many runs at once and checked against the shipped
code; the other rules are restated from public documentation (`canary_rules.py`), and GrowthBook's
is compared with gbstats where an interpreter has it. Writes `benchmarks/results/canary.md`.

    python3 dev.py run python benchmarks/canary.py --gbstats PYTHON    # about ten minutes
    python3 dev.py run python benchmarks/canary.py --quick             # half a minute, prints only
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from canary_checks import (
    LARGEST_GAP,
    against_gbstats,
    gap_of_judge,
    gap_of_split,
    gap_of_tests,
)
from canary_rules import (
    BELIEVING,
    NEVER,
    ON_REQUESTS,
    OURS,
    PEERS,
    PLAIN,
    TOLD,
    Told,
    believing,
    first_of,
    log_e_path,
    srm_path,
)
from canary_streams import HOUR, Counts, Scenario, Stream, draw, with_baseline
from canary_tables import report
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from abkit.decision import Guardrail, Policy
from abkit.rollout import DEFAULT_STAGES
from abkit.sequential.canary import CanaryDesign
from abkit.stats.srm import SRM_BLOCK, srm_concentration

RESULT: Final = Path(__file__).parent / "results" / "canary.md"
SEED: Final = 6
CELLS_OF_A_CHUNK: Final = 400_000  # runs times blocks: bounds the memory of a process
POLICY: Final = Policy(guardrails=(Guardrail(metric="error"),))
HARM: Final = CanaryDesign()
AT_ONCE: Final = CanaryDesign(restarts=0)
SAFE: Final = CanaryDesign(null_relative_risk=1.25, harm=False, restarts=0)

SPLITS: Final = tuple(
    Scenario(f"{share:.0%} split, {rate:,} rps".replace("%", " %"), (share,), rate)
    for share in (0.01, 0.1, 0.5)
    for rate in (10, 1_000)
)
HARD: Final = (
    Scenario("20-minute incident in both arms, 10 %, 10 rps", (0.1,), 10, special="incident"),
    Scenario("20-minute incident, 10 %, 1,000 rps", (0.1,), 1_000, special="incident"),
    Scenario("ramp, base rate x 4, 10 rps", (0.01, 0.05, 0.25, 0.5), 10, special="drift"),
    Scenario("ramp, base rate x 4, 1,000 rps", (0.01, 0.05, 0.25, 0.5), 1_000, special="drift"),
    Scenario("mesh sends 13 % for 10 %, 10 rps", (0.1,), 10, special="mesh"),
    Scenario("errors come in users, 10 %, 10 rps", (0.1,), 10, special="users"),
    Scenario("errors come in users, 10 %, 100 rps", (0.1,), 100, special="users"),
    Scenario("day and night, 10 %, 10 rps", (0.1,), 10, special="diurnal"),
    Scenario("10 % split, 10 rps, a look a second", (0.1,), 10, block=1),
)
FALSE: Final = SPLITS + HARD
MARGIN: Final = tuple(item.at(1.25) for item in SPLITS)
FOUND: Final = (
    Scenario("1 % split, 10 rps, 1 to 2 %", (0.01,), 10, risk=2.0, block=1),
    Scenario("1 % split, 10 rps, 1 to 5 %", (0.01,), 10, risk=5.0, block=1),
    Scenario("10 % split, 10 rps, 1 to 2 %", (0.1,), 10, risk=2.0, block=1),
    Scenario("10 % split, 10 rps, 1 to 5 %", (0.1,), 10, risk=5.0, block=1),
    Scenario("50 % split, 10 rps, 1 to 2 %", (0.5,), 10, risk=2.0, block=1),
    Scenario("1 % split, 1,000 rps, 1 to 2 %", (0.01,), 1_000, risk=2.0, block=1, hours=6),
    Scenario("1 % split, 1,000 rps, 1 to 5 %", (0.01,), 1_000, risk=5.0, block=1, hours=6),
    Scenario(
        "onset at hour 12, 10 % split, 10 rps, 1 to 2 %",
        (0.1,),
        10,
        risk=2.0,
        onset=12 * HOUR,
        block=1,
    ),
)
ALL: Final = FALSE + MARGIN + FOUND


@dataclass
class Found:
    """What the rules did with the runs of a scenario.

    Args:
        seconds: when each rule halted, by run; inf for never.
        requests: canary requests from the onset to that moment, or to the end.
        promoted: when abkit's promotion rule held, if it was not halted before; inf for never.
        paused: when the check of the split blocked; inf for never.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    requests: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    shown: list[float] = field(default_factory=list)
    promoted: list[float] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Add more runs."""
        for name in other.seconds:
            self.seconds[name] += other.seconds[name]
            self.requests[name] += other.requests[name]
        self.shown += other.shown
        self.promoted += other.promoted
        self.paused += other.paused

    def note(self, name: str, stream: Stream, first: Counts, onset: int) -> None:
        """Keep what one rule did."""
        total = np.cumsum(stream.n_treatment, axis=1)
        begin = onset // stream.seconds
        before = total[:, begin - 1] if begin else 0
        last = np.where(first == NEVER, total.shape[1] - 1, first)
        self.requests[name] += (total[np.arange(len(total)), last] - before).tolist()
        self.seconds[name] += _moments(first, stream).tolist()


def _moments(first: Counts, stream: Stream) -> np.ndarray:
    """Seconds at the end of a block; inf for never."""
    return np.where(first == NEVER, np.inf, (first + 1.0) * stream.seconds)


@dataclass(frozen=True)
class Task:
    """Some runs of a scenario.

    Args:
        index: of the scenario.
        chunk: number of the chunk: the seed is of both.
        runs: how many.
        for_others: how many of them the other rules see.
    """

    index: int
    chunk: int
    runs: int
    for_others: int


def measure(task: Task) -> Found:
    """Draw some runs and show them to every rule."""
    scenario = ALL[task.index]
    rng = np.random.default_rng([SEED, task.index, task.chunk])
    stream = draw(scenario, task.runs, rng)
    units, found = stream.users or stream, Found()
    halt = math.log(POLICY.halt_threshold)
    harm = first_of(log_e_path(units, HARM, until=halt) >= halt)
    found.note(OURS, units, harm, scenario.onset)
    if scenario in FOUND:
        plain = first_of(log_e_path(units, AT_ONCE, until=halt) >= halt)
        found.note(PLAIN, units, plain, scenario.onset)
        told = first_of(log_e_path(units, Told(scenario.risk), until=halt) >= halt)
        found.note(TOLD, units, told, scenario.onset)
    else:
        _judge_more(found, scenario, stream, harm)
    if task.for_others:
        minutes = with_baseline(stream.some(task.for_others).by_minute(), rng)
        for name, rule in PEERS.items():
            found.note(name, minutes, rule(minutes), scenario.onset)
    return found


def _judge_more(found: Found, scenario: Scenario, stream: Stream, harm: Counts) -> None:
    """Promotion, the check of the split, and the mistakes that a test could make."""
    units = stream.users or stream
    halt, promote = math.log(POLICY.halt_threshold), math.log(POLICY.promote_threshold)
    safe = first_of(log_e_path(units, SAFE, until=promote) >= promote)
    is_halted_first = (harm != NEVER) & (harm <= safe)
    found.shown += _moments(safe, units).tolist()
    found.promoted += _moments(np.where(is_halted_first, NEVER, safe), units).tolist()
    # As the judge: one e-process for each epoch that the default plan can have, averaged.
    limit = math.log(SRM_BLOCK * (len(DEFAULT_STAGES) + 1))
    met = stream if stream.users is None else _users_met(stream.users)
    split = srm_path(met.by_minute(), srm_concentration(0.01)) >= limit
    found.paused += _moments(first_of(split), met.by_minute()).tolist()
    if scenario.special == "mesh":
        told = believing(stream)
        found.note(BELIEVING, told, first_of(log_e_path(told, HARM, until=halt) >= halt), 0)
    if stream.users is not None:
        by_request = first_of(log_e_path(stream, HARM, until=halt) >= halt)
        found.note(ON_REQUESTS, stream, by_request, 0)


def _users_met(users: Stream) -> Stream:
    """New users by block, from those met so far."""
    arms = (np.diff(n, axis=1, prepend=0) for n in (users.n_control, users.n_treatment))
    empty = np.zeros_like(users.n_control)
    return Stream(*arms, empty, empty, users.planned, users.epoch, users.seconds)


def check(index: int, runs: int, looks: int) -> tuple[int, float]:
    """Compare some runs with the shipped code: looks compared and the largest gap."""
    scenario = ALL[index]
    stream = draw(scenario, runs, np.random.default_rng([SEED, index, 0, 1]))
    units = stream.users or stream
    blocks, total, gap = min(looks, scenario.blocks), 0, 0.0
    for design in (HARM, AT_ONCE) if scenario in FOUND else (HARM, SAFE):
        compared, apart = gap_of_tests(units, design, blocks)
        total, gap = total + compared, max(gap, apart)
    if scenario in SPLITS:
        gap = max(gap, gap_of_split(stream.some(1), srm_concentration(0.01)))
    if stream.users is not None:
        gap = max(gap, gap_of_judge(units, min(blocks, 150)))
    return total, gap


def tasks(runs: int, found_runs: int) -> list[Task]:
    """All chunks, the long ones first."""
    plan: list[Task] = []
    for index, scenario in enumerate(ALL):
        wanted = found_runs if scenario.block == 1 else runs // (2 if scenario in MARGIN else 1)
        others = wanted if scenario in FOUND else wanted // 5
        size = max(5, CELLS_OF_A_CHUNK // scenario.blocks)
        for chunk, begin in enumerate(range(0, wanted, size)):
            some = min(size, wanted - begin)
            plan.append(Task(index, chunk, some, max(0, min(some, others - begin))))
    return sorted(plan, key=lambda task: -ALL[task.index].blocks)


def main() -> int:
    """Draw, judge, print and keep the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few runs; prints, and keeps nothing")
    parser.add_argument("--runs", type=int, default=10_000, help="days of a good canary, a cell")
    parser.add_argument("--found", type=int, default=1_000, help="days of a harmful one, a cell")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--gbstats", metavar="PYTHON", help="an interpreter that has gbstats")
    asked = parser.parse_args()
    if asked.quick:
        asked.runs, asked.found = 60, 8
    plan = tasks(asked.runs, asked.found)
    started, console = time.monotonic(), Console(stderr=True)
    found = {scenario: Found() for scenario in range(len(ALL))}
    looks, gap = 0, 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        ProcessPoolExecutor(asked.jobs) as pool,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        bar = progress.add_task("days of rollouts", total=len(plan) + len(ALL))
        waiting = {pool.submit(measure, task): task for task in plan}
        size = (1, 100) if asked.quick else (2, 1_440)
        checking = [pool.submit(check, index, *size) for index in range(len(ALL))]
        done: dict[Task, Found] = {}
        for future in as_completed([*waiting, *checking]):
            progress.advance(bar)
            if future in waiting:
                done[waiting[future]] = future.result()
            else:
                compared, apart = future.result()
                looks, gap = looks + compared, max(gap, apart)
    for task in sorted(done, key=lambda task: (task.index, task.chunk)):
        found[task.index].add(done[task])
    if gap > LARGEST_GAP:
        console.print(f"the sums differ from the shipped code by {gap:.1e}")
        return 1
    peer = "GrowthBook's rule was not compared with gbstats."
    if asked.gbstats:
        sample = draw(FOUND[2], 60, np.random.default_rng([SEED, 0])).by_minute()
        runs, same, its = against_gbstats(asked.gbstats, sample)
        peer = f"gbstats {its} ends {same} of {runs} runs at the minute of the restated rule."
    text = report(
        {group: [(item, found[ALL.index(item)]) for item in items] for group, items in GROUPS},
        looks=looks,
        gap=gap,
        peer=peer,
        made=f"Python {platform.python_version()}, numpy {version('numpy')}; "
        f"{(time.monotonic() - started) / 60:.1f} minutes in {asked.jobs} processes.",
    )
    print(text)
    if not asked.quick:
        RESULT.write_text(text, encoding="utf-8")
    return 0


GROUPS: Final = (("false", FALSE), ("margin", MARGIN), ("found", FOUND), ("splits", SPLITS))


if __name__ == "__main__":
    raise SystemExit(main())
