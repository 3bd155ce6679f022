"""How many units a second of one core does `assign_many` assign? By input and by experiment.

Against a loop over the closure that serving uses, md5 in pandas' `apply`, and loops over other
SDKs, which have no call for many units. Ways are measured in turn, round by round, in CPU seconds
of the process (all of its threads) pinned to one core; the table shows medians. Writes
`benchmarks/results/assign_many.md`.

    python3 dev.py run python benchmarks/assign_many.py --rounds 5
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if hasattr(os, "sched_setaffinity"):
    # Before the packages count the cores.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from abkit.bulk import assign_many
from abkit.compiler import compile_arms
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import Range

sys.path.insert(0, str(Path(__file__).parent))
import assignment_peers as peers

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "assign_many.md"
FEW = 20_000  # for the loops over other SDKs
SALT = "0123456789abcdef0123456789abcdef"
HOLDOUT = Holdout(key="nobody-touches", salt="1123456789abcdef0123456789abcdef", share=0.1)
LAYER = Layer(
    key="page",
    salt="2123456789abcdef0123456789abcdef",
    ranges=(Range(0, 3 << 50, "ranker"),),  # three quarters
)
TWO, THREE, FULL = "two arms", "three arms, rollout", "everything"
EXPERIMENTS = {
    TWO: Experiment.create("ranker", {"old": 0.5, "new": 0.5}, salt=SALT),
    THREE: Experiment.create(
        "ranker", {"old": 0.34, "new": 0.33, "newer": 0.33}, salt=SALT, rollout=0.6
    ),
    FULL: Experiment.create(
        "ranker",
        {"old": 0.34, "new": 0.33, "newer": 0.33},
        salt=SALT,
        rollout=0.6,
        layer="page",
        holdouts=("nobody-touches",),
        overrides={"tester-1": "new", "user-0": "newer"},
        targeting={"attribute": "country", "in": ["DE", "FR", "IT", "ES"]},
    ),
}
PACKAGES = (
    "duckdb",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "growthbook",
    "eppo-server-sdk",
    "statsig-python-core",
)
PEERS = {
    "Eppo": peers.make_eppo,
    "statsig-core": peers.make_statsig,
    "GrowthBook": peers.make_growthbook_run,
}
LOOP = "Python loop over serving's closure"


@dataclass(frozen=True, slots=True)
class Way:
    """One way of assigning.

    Args:
        name: of the row.
        units: number of units in one run.
        run: assigns them all, by name of the experiment; what it can't do is absent.
    """

    name: str
    units: int
    run: dict[str, Callable[[], object]]


def ours(units: list[str], countries: list[str]) -> list[Way]:
    """`assign_many` by kind of input; what it returns is worked out in full."""
    columns = {"unit_id": units, "country": countries}
    table = pa.table(columns)
    connection = duckdb.connect()
    connection.register("given", table)
    connection.execute("CREATE TABLE users AS FROM given")
    wanted = "variant, reason, in_experiment"
    inputs: dict[str, tuple[Any, Callable[[Any], object]]] = {
        "DuckDB relation": (
            connection.table("users"),
            lambda found: found.select(wanted).to_arrow_table(),
        ),
        "pandas frame": (pd.DataFrame(columns), len),
        "polars frame": (pl.DataFrame(columns), len),
        "Arrow table": (table, len),
        "list": (units, len),
    }

    def run(source: Any, finish: Callable[[Any], object], key: str) -> Callable[[], object]:
        item = EXPERIMENTS[key]
        return lambda: finish(assign_many(item, source, layers=[LAYER], holdouts=[HOLDOUT]))

    ways = []
    for name, (source, finish) in inputs.items():
        # A list has no attributes, so nobody would meet the targeting.
        keys = (TWO, THREE) if isinstance(source, list) else tuple(EXPERIMENTS)
        runs = {key: run(source, finish, key) for key in keys}
        ways.append(Way(f"`assign_many`, {name}", len(units), runs))
    return ways


def loops(units: list[str], countries: list[str]) -> list[Way]:
    """What one writes without it."""
    layers, holdouts = {LAYER.key: LAYER}, {HOLDOUT.key: HOLDOUT}
    two, three, full = (
        compile_arms(item, layers=layers, holdouts=holdouts) for item in EXPERIMENTS.values()
    )
    series = pd.Series(units)
    half, third, last = "8", f"{round(0.34 * 2**52):013x}", f"{round(0.67 * 2**52):013x}"
    gate = f"{round(0.6 * 2**52):013x}"

    def of_two(unit: str) -> str:
        digest = hashlib.md5(f"{SALT}:{unit}".encode()).hexdigest()  # noqa: S324
        return "old" if digest < half else "new"

    def of_three(unit: str) -> str:
        digest = hashlib.md5(f"{SALT}:{unit}".encode()).hexdigest()  # noqa: S324
        if digest[16:] >= gate or digest < third:
            return "old"
        return "new" if digest < last else "newer"

    by_closure: dict[str, Callable[[], object]] = {
        TWO: lambda: [two(unit, None).variant for unit in units],
        THREE: lambda: [three(unit, None).variant for unit in units],
        FULL: lambda: [
            full(unit, {"country": country}).variant
            for unit, country in zip(units, countries, strict=True)
        ],
    }
    by_apply: dict[str, Callable[[], object]] = {
        TWO: lambda: series.apply(of_two),
        THREE: lambda: series.apply(of_three),
    }
    return [Way(LOOP, len(units), by_closure), Way("md5 in pandas `apply`", len(units), by_apply)]


def others(units: list[str]) -> list[Way]:
    """Loops over other SDKs, on a few units."""
    few, ways = units[:FEW], []

    def loop(assign: Callable[[str], object]) -> Callable[[], object]:
        return lambda: [assign(unit) for unit in few]

    for name, make in PEERS.items():
        try:
            ways.append(Way(f"loop over {name}, {len(few):,} units", len(few), {TWO: loop(make())}))
        except ImportError:
            continue
    return ways


def measured(ways: list[Way], rounds: int) -> dict[tuple[str, str], float]:
    """CPU nanoseconds a unit, by way and experiment: medians of rounds in which all take turns."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in track(range(rounds + 1), console=Console(stderr=True)):
        for way in ways:
            for key, run in way.run.items():
                start = time.process_time()
                run()
                cost = (time.process_time() - start) / way.units * 1e9
                if number:  # the first round warms up
                    found.setdefault((way.name, key), []).append(cost)
    return {pair: median(costs) for pair, costs in found.items()}


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def written(ways: list[Way], costs: dict[tuple[str, str], float], rounds: int, units: int) -> str:
    """The table in Markdown."""
    lines = [
        "# Many units at once",
        "",
        f"Million units a CPU second of one core, {units:,} units, medians of {rounds} rounds, and",
        'in brackets how many times the loop over serving\'s closure that is. "Everything" is',
        "overrides, a holdout of 10 %, a layer part of 75 %, targeting met by 80 %, rollout 60 %",
        "and three arms. Frames get three columns, the others the variant alone.",
        "",
        f"| way | {' | '.join(EXPERIMENTS)} |",
        f"|---|{'--:|' * len(EXPERIMENTS)}",
    ]
    for way in ways:
        cells = []
        for key in EXPERIMENTS:
            cost = costs.get((way.name, key))
            ratio = 0.0 if cost is None else costs[LOOP, key] / cost
            cells.append("" if cost is None else f"{1e3 / cost:.2f} ({ratio:.2g} ×)")
        lines.append(f"| {way.name} | {' | '.join(cells)} |")
    packages = ", ".join(map(_version, PACKAGES))
    lines += ["", f"Python {platform.python_version()}, {platform.machine()}; {packages}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all take turns (5)")
    parser.add_argument("--units", type=int, default=1_000_000, help="number of units (1,000,000)")
    given = parser.parse_args()
    units = [f"user-{i * 7919}" for i in range(given.units)]
    countries = [("DE", "FR", "IT", "ES", "US")[i % 5] for i in range(given.units)]
    ways = [*ours(units, countries), *loops(units, countries), *others(units)]
    text = written(ways, measured(ways, given.rounds), given.rounds, given.units)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
