"""Is abkit's statistics ahead of its peers? A table of claims, each with a target and a figure.

Four parts: `claims` (the table, from short runs of the other benchmarks), `streams` (false alarms,
power and stopping on the same random numbers as peers), `runtime` (a whole analysis of 1 and 10
million rows) and `accuracy` (of a variance at a mean of 1.7e9). Peers live in environments of
their own, one each, that the first command makes; without one a peer is left out, and the results
say so. Writes `benchmarks/results/statistics.md`.

    python3 dev.py run python benchmarks/claims.py --install peers   # once: needs a package index
    python3 dev.py run python benchmarks/claims.py --peers peers     # about ten minutes
    python3 dev.py run python benchmarks/claims.py --quick           # half a minute, without peers
"""

from __future__ import annotations

import argparse
import math
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import anytime
import claims_runtime
import duckdb
import group_sequential
import numpy as np
from claims_peers import PEERS
from claims_streams import LOOKS, PLANNED, SPLITS, Cell, formulas, ours

from abkit.store.table import Columns, open_table

HERE: Final = Path(__file__).parent
RESULT: Final = HERE / "results" / "statistics.md"
PARTS: Final = ("accuracy", "claims", "streams", "runtime")
NEVER: Final = -1
CLOSED: Final = ("abkit: Lan-DeMets to N", "spotify-confidence", "ep-stats")  # they end at N
MORE: Final = {
    "tea-tasting": ("ibis-framework[duckdb]==12.0.0", "pyarrow==26.0.1"),
    "ep-stats": ("pytz",),  # it and the next need this, and do not say so
    "savvi": ("matplotlib",),
}
ABSENT: Final = (
    "expectation 0.6.1 and tea-tasting 2.0.0 need Python 3.12, so that the first is left out and "
    "the second is here as 1.14.0."
)


@dataclass(frozen=True)
class Size:
    """How much to run.

    Args:
        runs: streams of abkit's designs, in each cell.
        peers: of them, streams that peers get.
        rows: sizes of the tables whose analysis is timed.
        rounds: how often.
        scenario: streams of the canary and of the even split.
        moved: rows of the table with a large mean.
    """

    runs: int = 1_000
    peers: int = 100
    rows: tuple[int, ...] = (1_000_000, 10_000_000)
    rounds: int = 3
    scenario: int = 1_000
    moved: int = 1_000_000


QUICK: Final = Size(100, 3, (200_000,), 1, 100, 150_000)


@dataclass
class Bench:
    """One run of the benchmark.

    Args:
        size: how much to run.
        pythons: interpreter of each peer at hand.
    """

    size: Size
    pythons: dict[str, str]
    claims: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def claim(self, what: str, target: str, figure: str, *, met: bool, why: str = "") -> None:
        """Add a claim, with the explanation of a miss."""
        verdict = "met" if met else f"missed: {why}" if why else "missed"
        self.claims.append(f"| {what} | {target} | {figure} | {verdict} |")


def bar(done: int, total: int, what: str) -> None:
    """Show how far it is, on stderr."""
    width = 30 * done // max(total, 1)
    text = f"[{'#' * width}{'.' * (30 - width)}] {done}/{total} {what[:34]:34}"
    print(f"\r{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)


# ---- false alarms, power and stopping ------------------------------------------------------------


def streams(bench: Bench, folder: Path) -> None:
    """Every design and peer on the same streams."""
    cells = [Cell(kind, split) for split in SPLITS for kind in PLANNED]
    found: dict[tuple[Cell, bool], dict[str, np.ndarray]] = {}
    names: dict[str, tuple[Cell, bool]] = {}
    for done, cell in enumerate(cells):
        bar(done, len(cells), f"{cell.kind}, {cell.split}")
        for effect in (False, True):
            # Those that need the values behind the sums need a constant share, too.
            raw = 0 if cell.split == "ramp with drift" else bench.size.peers
            stream = cell.draw(bench.size.runs, effect=effect, raw=raw)
            found[cell, effect] = ours(cell, stream) | formulas(cell, stream)
            if bench.pythons:
                name = f"stream-{done:02}-{int(effect)}"
                names[name] = (cell, effect)
                few = {
                    key: value[: bench.size.peers] if np.ndim(value) == 2 else value
                    for key, value in stream.items()
                }
                np.savez(folder / name, kind=cell.kind, **few)
    bar(len(cells), len(cells), "streams")
    for peer, python in bench.pythons.items():
        script = str(HERE / "claims_peers.py")
        command = [python, "-W", "ignore", script, peer, str(folder)]
        if subprocess.run(command, check=False).returncode:
            bench.versions[peer] = "(did not run)"
            continue
        with np.load(folder / f"answer-{peer}.npz") as answer:
            bench.versions[peer] = str(answer["version"])
            for name, key in names.items():
                if name in answer:
                    found[key][_shown(peer)] = answer[name]
    bench.lines += _tables(cells, found, bench.size)
    _false_alarms(bench, cells, found)
    _stopping(bench, cells, found)


def _shown(peer: str) -> str:
    return f"{peer}, looked at each time" if peer == "tea-tasting" else peer


def _rate(first: np.ndarray) -> float:
    return float((first != NEVER).mean())


def _stop(name: str, cell: Cell, first: np.ndarray) -> float:
    """Mean units at the stop, as a share of N; other runs count with N or 2 N, where they end."""
    units = np.cumsum(np.add(*cell.blocks()[:2]))
    end = cell.planned if name in CLOSED else 2 * cell.planned
    return float(np.where(first == NEVER, end, units[first]).mean()) / cell.planned


def _tables(
    cells: list[Cell], found: dict[tuple[Cell, bool], dict[str, np.ndarray]], size: Size
) -> list[str]:
    lines = [
        "",
        "## Same streams",
        "",
        f"Two-sided at .05 over {LOOKS} looks up to 2 N units; N is where a fixed test of the",
        f"effect has power .8. {size.runs:,} streams a cell of abkit and the formulas, the first",
        f"{size.peers} of them of peers, of the package msprt 40 (standard error of .05 among",
        f"{size.peers}: {math.sqrt(0.05 * 0.95 / size.peers):.3f}).",
        "abkit compares within allocation epochs, the others the totals, as they do it.",
        "Lan-DeMets, spotify-confidence and ep-stats end at N, and power is theirs by then. A ramp",
        "goes 1-5-25-50 % while the base rate doubles, or the mean moves by a standard deviation;",
        "its effect is that of half of its information. Stop: mean units at the end, over N; runs",
        "without rejection count with 2 N, or N if that is the end. gbstats: relative scale, tuned",
        "to N.",
        "spotify-confidence: its boundaries (power family, rho 2) on z. ep-stats: its t test at",
        "the level of its alpha spending. savvi: multinomial test of the events, prior k = 100.",
        "ville: asymptotic A/B test that knows the share, tuned to N. tea-tasting has a fixed test",
        "only; where its relative interval overflows, that look does not reject. msprt: the",
        "package, pair by pair, normal values only, its loop being slow; 'mSPRT, formula' is after",
        "Johari et al. (2017), tau the effect, and no package. Empty: no test for the cell.",
    ]
    for title, effect, figure in (
        ("False alarms", False, lambda _, __, first: f"{_rate(first):.3f}"),
        ("Power by 2 N", True, lambda _, __, first: f"{_rate(first):.2f}"),
        ("Mean stop over N", True, lambda *given: f"{_stop(*given):.2f}"),
    ):
        for split in SPLITS:
            if split == "ramp with drift" and title.startswith("Mean"):
                continue
            here = [cell for cell in cells if cell.split == split]
            tests = dict.fromkeys(name for cell in here for name in found[cell, effect])
            tests = sorted(tests, key=lambda name: not name.startswith("abkit"))
            lines += ["", f"### {title}, {split}", ""]
            lines += [f"| test | {' | '.join(cell.kind for cell in here)} |"]
            lines += [f"|---|{'--:|' * len(here)}"]
            for name in tests:
                row = [
                    figure(name, cell, found[cell, effect][name])
                    if name in found[cell, effect]
                    else ""
                    for cell in here
                ]
                lines.append(f"| {name} | {' | '.join(row)} |")
    return lines


def _false_alarms(bench: Bench, cells: list[Cell], found: Any) -> None:
    runs = bench.size.runs
    limit = 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    worst: dict[str, tuple[float, str]] = {}
    over = total = 0
    for cell in cells:
        for name, first in found[cell, False].items():
            rate = _rate(first)
            worst[name] = max(worst.get(name, (0.0, "")), (rate, f"{cell.kind}, {cell.split}"))
            if name.startswith("abkit"):
                total, over = total + 1, over + (rate > limit)
    best = max((pair, name) for name, pair in worst.items() if name.startswith("abkit"))
    others = "; ".join(
        f"{name} {pair[0]:.0%}" for name, pair in worst.items() if not name.startswith("abkit")
    )
    bench.claim(
        f"false alarms in every cell ({total} of designs and streams)",
        f"<= {limit:.4f}, which is .05 + 2 s.e.",
        f"at most {best[0][0]:.4f} ({best[1]}; {best[0][1]}); {over} above; at most: {others}",
        met=over == 0,
        why=f"{over} of {total}; by chance alone a true .05 is above in 1 of 44",
    )


def _stopping(bench: Bench, cells: list[Cell], found: Any) -> None:
    name = "abkit: calibrated to 2 N"
    even = [cell for cell in cells if cell.split == "50/50"]
    power = {cell.kind: _rate(found[cell, True][name]) for cell in even}
    stop = {cell.kind: _stop(name, cell, found[cell, True][name]) for cell in even}
    good = [kind for kind in power if power[kind] >= 0.92 and stop[kind] <= 0.90]
    bad = [f"{kind} ({power[kind]:.2f}, {stop[kind]:.2f})" for kind in power if kind not in good]
    bench.claim(
        "calibrated mixture, 50/50, by metric",
        "power >= .92 by 2 N, mean stop <= .90 N",
        f"power {min(power.values()):.2f} to {max(power.values()):.2f}, "
        f"stop {min(stop.values()):.2f} to {max(stop.values()):.2f} N",
        met=not bad,
        why=f"{', '.join(bad)}; looks N/{LOOKS // 2} apart are late by N/{LOOKS}, and "
        "p = .001 waits for 25 events in each arm",
    )


# ---- claims of single designs --------------------------------------------------------------------


def claims(bench: Bench) -> None:
    """The claims that other benchmarks measure at length, from shorter runs of them."""
    even, canary = (
        anytime.Scenario(**{**vars(anytime.SCENARIOS[i]), "runs": bench.size.scenario})
        for i in (1, 5)
    )
    first = anytime.ours(even, even.draw())["abkit: calibrated to 2 N"]
    units = np.cumsum(np.add(*even.blocks()[:2]))
    power = _rate(first)
    stops = np.where(first == NEVER, units[-1], units[first]) / even.planned
    stop, error = float(stops.mean()), float(stops.std() / math.sqrt(len(stops)))
    bench.claim(
        "p = .1, + 10 %, 100 looks, calibrated mixture",
        "power >= .92 by 2 N, mean stop <= .90 N",
        f"power {power:.3f}, stop {stop:.3f} N (s.e. {error:.3f})",
        met=power >= 0.92 and stop <= 0.90,
        why="by its formula .94 and .88 for all who look all the time; looks N/50 apart are late "
        "by N/100",
    )
    units = np.cumsum(np.add(*canary.blocks()[:2]))
    found = anytime.ours(canary, canary.draw())
    told, plain = (
        float(np.median(np.where(found[name] == NEVER, units[-1], units[found[name]])))
        for name in ("abkit: the same, told what to expect", "abkit: hypergeometric mixture")
    )
    bench.claim(
        "doubled error rate on a 5 % canary (p = .01), hypergeometric mixture",
        "median <= 16,000 units",
        f"{told:,.0f} told what to expect, {plain:,.0f} without",
        met=told <= 16_000,
    )
    _boundaries(bench)


def _boundaries(bench: Bench) -> None:
    hundred, twenty = group_sequential.QUESTIONS[0], group_sequential.QUESTIONS[2]
    cost = group_sequential.ours(hundred, 15)
    spent = group_sequential.spent(hundred, cost.boundaries)
    text = f"{1e3 * cost.seconds:.1f} ms at 100 looks, spending {spent:.7f} of .05"
    near = abs(spent - 0.05) < 1e-6
    other = group_sequential.rpact(twenty)
    if other is not None:
        mine = group_sequential.ours(twenty, 1).boundaries
        gap = max(abs(a - b) for a, b in zip(mine, other.boundaries, strict=True) if a < 4.5)
        text += f"; {other.who} at its limit of 20 looks: {gap:.1e} away"
        near = near and gap < 1e-4
    python = bench.pythons.get("spotify-confidence")
    if python:
        theirs = group_sequential.spotify(group_sequential.QUESTIONS[4], python)
        mine = group_sequential.ours(group_sequential.QUESTIONS[4], 3)
        if theirs is not None:
            text += (
                f"; {theirs.who} at 105 looks {1e3 * theirs.seconds:,.0f} ms, "
                f"abkit {1e3 * mine.seconds:.0f} ms"
            )
    bench.claim(
        "Lan-DeMets boundaries at 100 looks",
        "within 1e-4 of rpact, < 50 ms",
        text,
        met=near and cost.seconds < 0.05,
    )


# ---- accuracy and run time -----------------------------------------------------------------------


def accuracy(bench: Bench, folder: Path) -> None:
    """Relative error of a variance of 1 at a mean of 1.7e9."""
    path = folder / "moved.parquet"
    rng = np.random.default_rng(3)
    values = 1.7e9 + rng.standard_normal(bench.size.moved)
    with duckdb.connect() as connection:
        connection.register(
            "given", {"x": values, "u": np.arange(len(values)), "v": values > 1.7e9}
        )
        connection.execute(f"COPY (SELECT u, 1 AS v, x FROM given) TO '{path}'")  # noqa: S608
        sums = connection.execute("SELECT count(*), sum(x), sum(x * x) FROM given").fetchall()[0]
    exact = values - 1.7e9  # without rounding
    true = math.fsum((exact - math.fsum(exact) / len(exact)) ** 2) / (len(exact) - 1)
    with open_table(path, Columns("u", "v", {"x": "metric"})) as table:
        cells, _ = table.cells([("x",)])
    (cell,) = cells["x",].values()
    error = abs(cell.moments("x").m2 / (cell.n - 1) / true - 1)
    text = f"{error:.1e}"
    if "gbstats" in bench.pythons:
        np.savez(folder / "variance", n=sums[0], sum=sums[1], squares=sums[2], variance=true)
        command = [bench.pythons["gbstats"], str(HERE / "claims_peers.py"), "variance", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        text += f"; gbstats, from the sums of its queries: {float(done.stdout):.1e}"
    bench.claim(
        f"relative error of the variance at mean 1.7e9 ({bench.size.moved:,} rows)",
        "< 1e-6",
        text,
        met=error < 1e-6,
    )


def runtime(bench: Bench, folder: Path) -> None:
    """The whole analysis beside the bare sums."""
    bench.lines += [
        "",
        "## Run time of the whole analysis",
        "",
        "Four metrics with CUPED, two arms, from a Parquet file; seconds of the second analysis",
        f"in a process, medians of {bench.size.rounds}, contenders in turn. CPU: of all threads,",
        "the figure to go by. Peak: resident memory of the process, imports included.",
        "",
        "| rows | contender | CPU s | ratio | wall s | ratio | peak GB |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    pythons = {}
    if "tea-tasting" in bench.pythons:
        pythons["tea-tasting over Ibis and DuckDB"] = bench.pythons["tea-tasting"]
    for rows in bench.size.rows:
        path = folder / f"{rows}.parquet"
        claims_runtime.make(path, rows)
        total = bench.size.rounds * (len(claims_runtime.CONTENDERS) - 1 + len(pythons))
        done = [0]

        def tick(name: str, done: list[int] = done, total: int = total) -> None:
            done[0] += 1
            bar(done[0], total, name)

        found = claims_runtime.measured(path, bench.size.rounds, pythons, tick)
        path.unlink()
        bench.lines += claims_runtime.rows_of(found, rows)
        gap = claims_runtime.disagreement(found)
        cpu = {name: median(run["cpu"] for run in runs) for name, runs in found.items()}
        sums, checked, mine, *_ = cpu.values()
        bench.claim(
            f"whole analysis of {rows:,} rows",
            "<= 1.2 x the CPU time of the bare sums",
            f"{mine / sums:.2f} x; {mine / checked:.2f} x the sums with count(DISTINCT unit); "
            f"effects of all contenders within {gap:.0e}",
            met=mine / sums <= 1.2,
            why="the sums do not read the units; whether a unit stands in two rows or arms costs "
            "reading, hashing and sorting them, and nothing short of that is exact; tea-tasting "
            "does not look",
        )


# ---- the command ---------------------------------------------------------------------------------


def install(folder: Path) -> None:
    """Make an environment for each peer."""
    for name, requirement in PEERS.items():
        target = folder / name
        if not (target / "bin" / "python").exists():
            venv.create(target, with_pip=True)
        more = MORE.get(name, ())
        command = [str(target / "bin" / "python"), "-m", "pip", "install", "-q", requirement, *more]
        done = subprocess.run(command, check=False)
        if done.returncode:
            shutil.rmtree(target)
            print(f"{requirement} cannot be installed here and will be left out", file=sys.stderr)


def written(bench: Bench) -> str:
    """All results as Markdown."""
    lines = ["# Statistics beside its peers", ""]
    lines += ["| claim | target | measured | |", "|---|---|---|---|", *bench.claims, *bench.lines]
    peers = {name: bench.versions.get(name, PEERS[name].split("==")[1]) for name in bench.pythons}
    gone = [name for name in PEERS if name not in bench.pythons]
    packages = ("numpy", "scipy", "duckdb", "pandas", "statsmodels")
    mine = ", ".join(f"{name} {version(name)}" for name in packages)
    lines += ["", f"Python {platform.python_version()}; {mine}."]
    lines += [f"Peers: {', '.join(' '.join(pair) for pair in peers.items()) or 'none'}."]
    lines += [f"Not at hand: {', '.join(gone)}."] * bool(gone)
    return "\n".join([*lines, ABSENT, ""])


def main() -> None:
    """Run the parts asked for, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which (all)")
    parser.add_argument("--quick", action="store_true", help="small sizes; writes no results")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--install", type=Path, metavar="FOLDER", help="make them, and stop")
    given = parser.parse_args()
    if given.install:
        install(given.install)
        return
    pythons = {}
    for name in PEERS if given.peers else ():
        python = given.peers.absolute() / name / "bin" / "python"
        if python.exists():
            pythons[name] = str(python)
    bench = Bench(QUICK if given.quick else Size(), pythons)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "claims" in given.parts:
            claims(bench)
        if "accuracy" in given.parts:
            accuracy(bench, folder)
        if "streams" in given.parts:
            streams(bench, folder)
        if "runtime" in given.parts:
            runtime(bench, folder)
    text = written(bench)
    print(text)
    if not given.quick and set(given.parts) == set(PARTS):
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
