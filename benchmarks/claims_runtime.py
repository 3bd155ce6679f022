"""What does a whole analysis cost, beside the bare sums, tea-tasting, pandas and statsmodels?

Four metrics with one covariate, two arms, from a Parquet file. Every contender runs in a process
of its own, in turn; the first analysis of a process warms up, the second is timed. CPU seconds of
all threads are the figure that other work on the machine changes least. `claims.py` calls this;
under a peer's interpreter it imports nothing of abkit.

    python benchmarks/claims_runtime.py CONTENDER FILE
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

METRICS = ("converted", "score", "spend", "visits")
NUMBERS = (*METRICS, "before")

_MADE = """
COPY (
  SELECT hash(i) // 2 AS user_id, CASE WHEN hash(i) % 2 = 0 THEN 'a' ELSE 'b' END AS variant,
    (hash(i + 1) % 100 < 5)::INT AS converted, 10 + z AS score,
    before + exp(1.5 * z2) AS spend, (hash(i + 2) % 9)::DOUBLE AS visits, before
  FROM (
    SELECT i, sqrt(-2 * ln(u)) * cos(2 * pi() * v) AS z, sqrt(-2 * ln(u)) * sin(2 * pi() * v) AS z2,
      exp(2 * w) AS before
    FROM (SELECT i, 1 - random() AS u, random() AS v, random() AS w FROM range({rows}) t(i))
  )
) TO '{path}' (FORMAT parquet)
"""


def make(path: Path, rows: int) -> None:
    """Write a table of units: a proportion, a normal, a skewed and a whole-numbered metric."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(_MADE.format(rows=rows, path=path))


def sums_query(path: str, more: str = "") -> str:
    """The sums that CUPED on each metric needs, as one would write them by hand."""
    parts = ["count(*)", "sum(before)", "sum(before * before)"]
    for name in METRICS:
        parts += [f"sum({name})", f"sum({name} * {name})", f"sum({name} * before)"]
    return f"SELECT variant, {', '.join(parts)}{more} FROM '{path}' GROUP BY variant"  # noqa: S608


def bare(path: str) -> None:
    """The sums alone."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(sums_query(path)).fetchall()


def distinct(path: str) -> None:
    """The sums, and whether there is one row per unit, as one would ask by hand."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(sums_query(path)).fetchall()
        connection.execute(f"SELECT count(DISTINCT user_id) FROM '{path}'").fetchall()  # noqa: S608


def abkit(path: str) -> list[float]:
    """All of `analyze`: sums, checks of values and units, split test, estimates."""
    import abkit as package

    report = package.analyze(
        path,
        unit="user_id",
        variant="variant",
        control="a",
        metrics=METRICS,
        covariates=["before"],
    )
    return [result.estimate.difference for result in report.results]


def tea_tasting(path: str) -> list[float]:
    """tea-tasting over Ibis and DuckDB."""
    import ibis
    import tea_tasting as tt

    table = ibis.duckdb.connect().read_parquet(path)
    metrics: Any = {name: tt.Mean(name, "before") for name in METRICS}
    found = tt.Experiment(metrics).analyze(table)
    return [found[name].effect_size for name in METRICS]


def pandas(path: str) -> list[float]:
    """A pandas groupby, and the formulas of CUPED and Welch."""
    import pandas as pd

    frame = pd.read_parquet(path, columns=["variant", *NUMBERS])
    for name in METRICS:
        frame[f"{name}_before"] = frame[name] * frame["before"]
    for name in NUMBERS:
        frame[f"{name}_squared"] = frame[name] ** 2
    groups = frame.groupby("variant", observed=True)
    sums, n = groups.sum(), groups.size()
    center = sums["before"].sum() / n.sum()
    found = []
    for name in METRICS:
        cross = sums[f"{name}_before"] - sums[name] * sums["before"] / n
        square = sums["before_squared"] - sums["before"] ** 2 / n
        theta = cross.sum() / square.sum()
        mean = sums[name] / n - theta * (sums["before"] / n - center)
        spread = sums[f"{name}_squared"] - sums[name] ** 2 / n - 2 * theta * cross
        math.sqrt(((spread + theta**2 * square) / (n - 1) / n).sum())
        found.append(float(mean["b"] - mean["a"]))
    return found


def statsmodels(path: str) -> list[float]:
    """A robust regression on the arm and the covariate, for each metric."""
    import pandas as pd
    import statsmodels.api as sm

    frame = pd.read_parquet(path, columns=["variant", *NUMBERS])
    treated = (frame["variant"] == "b").to_numpy(float)
    given = sm.add_constant(pd.DataFrame({"treated": treated, "before": frame["before"]}))
    return [
        float(sm.OLS(frame[name], given).fit(cov_type="HC1").params["treated"]) for name in METRICS
    ]


CONTENDERS = {
    "the sums, bare DuckDB": bare,
    "the sums and count(DISTINCT unit), bare DuckDB": distinct,
    "abkit.analyze": abkit,
    "tea-tasting over Ibis and DuckDB": tea_tasting,
    "pandas groupby and formulas": pandas,
    "statsmodels OLS": statsmodels,
}


def timed(name: str, path: str) -> dict[str, Any]:
    """Wall and CPU seconds of the second analysis, peak memory in GB, and the effects found."""
    run = CONTENDERS[name]
    run(path)
    wall, cpu = time.perf_counter(), time.process_time()
    effects = run(path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak": peak_gigabytes(), "effects": effects}


def peak_gigabytes() -> float:
    """The most memory that this program has had; `ru_maxrss` would count the parent's, too."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def measured(
    path: Path, rounds: int, pythons: dict[str, str], tick: Any
) -> dict[str, list[dict[str, Any]]]:
    """What every contender costs, in turn.

    Args:
        path: of the file.
        rounds: how often.
        pythons: interpreter of contenders that have one of their own; without one they are left
            out.
        tick: called before each process.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for name in CONTENDERS:
            python = pythons.get(name, "" if name.startswith("tea") else sys.executable)
            if not python:
                continue
            tick(name)
            command = [python, "-W", "ignore", __file__, name, str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.setdefault(name, []).append(json.loads(done.stdout))
    return found


def rows_of(found: dict[str, list[dict[str, Any]]], rows: int) -> list[str]:
    """Lines of the table: medians, and ratios to the bare sums."""
    base = {
        key: median(run[key] for run in found["the sums, bare DuckDB"]) for key in ("cpu", "wall")
    }
    lines = []
    for name, runs in found.items():
        cpu, wall, peak = (median(run[key] for run in runs) for key in ("cpu", "wall", "peak"))
        lines.append(
            f"| {rows:,} | {name} | {cpu:.3f} | {cpu / base['cpu']:.2f} × | {wall:.3f} "
            f"| {wall / base['wall']:.2f} × | {peak:.2f} |"
        )
    return lines


def disagreement(found: dict[str, list[dict[str, Any]]]) -> float:
    """Largest relative difference of a contender's effect from abkit's."""
    effects = [runs[0]["effects"] for runs in found.values() if runs[0]["effects"]]
    ours = found["abkit.analyze"][0]["effects"]
    return max(abs(a / b - 1) for other in effects for a, b in zip(other, ours, strict=True))


if __name__ == "__main__":
    print(json.dumps(timed(sys.argv[1], sys.argv[2])))
