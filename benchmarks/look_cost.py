"""What does a look cost with 1, 10 and 100 million events in the store?

Between two looks 2,000 exposures arrive (nine of ten of units never seen before, the others of
units of any age) and 4,000 outcomes (half at once, a quarter half a minute late, a quarter for
units of any age). Each look is taken from the rollup; the first one counts everything. Against it:
`observe_all`, which computes everything anew, and `select sum(value)` in DuckDB. A third of the
events are exposures, of as many units less a tenth. Each size runs in a process of its own.
Writes `benchmarks/results/look_cost.md`.

    python3 dev.py run python benchmarks/look_cost.py --looks 25
    python3 dev.py run python benchmarks/look_cost.py --full    # 100 million: 4 GB of memory
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import duckdb

from abkit.metrics import Metric
from abkit.store.moments import observe_all
from abkit.store.rollup import Rollup

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.observation import Observation

RESULTS = Path(__file__).parent / "results" / "look_cost.md"
SIZES = (1_000_000, 10_000_000)
FULL = 100_000_000
COMPARED = 10_000_000  # at 100 million it was not done after a quarter of an hour
EXPOSURES, LATE = 2_000, 60_000
METRICS = (
    Metric(key="error", kind="proportion", direction="decrease"),
    Metric(key="score", aggregate="last"),
)
ASK: dict[str, Any] = {
    "experiment": "ranker",
    "epochs": (1, 1),
    "metrics": METRICS,
    "control": "old",
    "treatment": "new",
    "now": 0.0,
}
START = 1_767_225_600_000_000  # 2026-01-01, microseconds
GAP = 500  # microseconds between exposures: 2,000 a second

# A number i counts requests. One in ten comes from a unit that was there before; of two outcomes
# of a request, the first is its own, and the second in turn that of one half a minute before or of
# a unit of any age.
_UNIT = "CASE WHEN i % 10 = 9 THEN hash(i) % (i + 1) ELSE i END"
_MADE = f"""
INSERT INTO exposure (load, writer, sequence, time, received, experiment, unit_id, variant, epoch)
SELECT i // {EXPOSURES} + 1, 'writer-' || i % 4, 3 * i + 1, make_timestamp({START} + i * {GAP}),
  make_timestamp({START} + i * {GAP}), 'ranker', 'user-' || unit,
  CASE WHEN hash(unit) % 4 = 0 THEN 'new' ELSE 'old' END, 1
FROM (SELECT i, {_UNIT} AS unit FROM range($start, $end) t(i));
"""  # noqa: S608 - numbers of this file
_ANSWERED = f"""
INSERT INTO outcome (load, writer, sequence, time, received, unit_id, metric, value, experiment,
  variant)
SELECT i // {EXPOSURES} + 1, 'writer-' || i % 4, 3 * i + 2 + late,
  make_timestamp({START} + i * {GAP} + 100 + late), make_timestamp({START} + i * {GAP} + 200),
  'user-' || CASE WHEN late = 0 THEN {_UNIT} WHEN i % 2 = 0 THEN greatest(i - {LATE}, 0)
    ELSE hash(i + 1) % (i + 1) END,
  CASE late WHEN 0 THEN 'error' ELSE 'score' END,
  CASE late WHEN 0 THEN (hash(i) % 50 = 0)::DOUBLE ELSE (hash(i) % 1000003) / 1000.0 END, '', ''
FROM range($start, $end) t(i), (VALUES (0), (1)) l(late);
"""  # noqa: S608 - numbers of this file
_STRAGGLER = f"""
INSERT INTO exposure (load, writer, sequence, time, received, experiment, unit_id, variant, epoch)
SELECT $load, 'late', 1, make_timestamp({START}), make_timestamp({START}), 'ranker', 'late',
  'new', 1
"""
_SAME_COLUMNS = """
SELECT sum(value), sum(hash(unit_id) % 2), sum(epoch_us(time) % 2), sum(length(writer)),
  sum(sequence) FROM outcome WHERE metric = $metric AND variant = ''
"""
_STEP = 2_000_000


class Store:
    """A store that grows by the second.

    Args:
        folder: where its file is.
    """

    def __init__(self, folder: Path) -> None:
        """No events."""
        config: dict[str, Any] = {"memory_limit": "1.5GB", "threads": 2}
        self.connection = duckdb.connect(folder / "events.duckdb", config=config)
        schema = files("abkit.store").joinpath("schema.sql").read_text(encoding="utf-8")
        self.connection.execute(schema)
        self.requests = 0

    def grow(self, requests: int) -> None:
        """Let requests arrive, each with two outcomes."""
        for start in range(self.requests, self.requests + requests, _STEP):
            end = min(start + _STEP, self.requests + requests)
            for made in (_MADE, _ANSWERED):
                self.connection.execute(made, {"start": start, "end": end})
        self.requests += requests

    @property
    def load(self) -> int:
        """The newest load."""
        return (self.requests - 1) // EXPOSURES + 1


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_gigabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


class Watched:
    """A store with its rollup, that is looked at again and again.

    Args:
        folder: where the store's file is.
        events: how many it starts with.
    """

    def __init__(self, folder: Path, events: int) -> None:
        """No looks yet."""
        folder.mkdir()
        self.store = Store(folder)
        self.store.grow(events // 3 // EXPOSURES * EXPOSURES)
        self.rollup = Rollup(self.store.connection)
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def look(self) -> Observation:
        """Look at all events."""
        return self.rollup.observe(**ASK, load=self.store.load)

    def go_on(self) -> None:
        """Let events arrive, and look."""
        self.store.grow(EXPOSURES)
        start = time.process_time()
        self.wall.append(seconds(self.look))
        self.cpu.append(time.process_time() - start)

    def costs(self) -> dict[str, float]:
        """Seconds a look, by name; the first two warm up."""
        return {
            "look": median(self.wall[2:]),
            "cpu": median(self.cpu[2:]),
            "fastest": min(self.wall[2:]),
            "slowest": max(self.wall[2:]),
        }


def measured(events: int, looks: int, folder: Path) -> dict[str, float]:
    """All costs with so many events in the store: seconds, and gigabytes of memory."""
    small, watched = Watched(folder / "small", min(SIZES)), Watched(folder / "large", events)
    small.look()
    found = {"first": seconds(watched.look), "first_memory": peak_gigabytes()}
    for _ in range(looks + 2):  # in turn, because other work on the machine slows both down
        small.go_on()
        watched.go_on()
    found |= watched.costs() | {f"small_{name}": cost for name, cost in small.costs().items()}
    found["ratio"] = median(b / a for a, b in zip(small.wall[2:], watched.wall[2:], strict=True))
    store, rollup = watched.store, watched.rollup
    connection = store.connection
    store.grow(EXPOSURES)
    # Of an exposure so late the outcomes may lie anywhere: one look reads them all.
    connection.execute(_STRAGGLER, {"load": store.load})
    found["straggler"] = seconds(watched.look)

    def per_metric(query: str) -> float:
        names = [{"metric": metric.key} for metric in METRICS]
        times = (
            seconds(lambda name=name: connection.execute(query, name).fetchall()) for name in names
        )
        return sum(times) / len(names)

    sums = "SELECT sum(value) FROM outcome WHERE metric = $metric"
    found["sum"] = median(per_metric(sums) for _ in range(3))
    found["columns"] = median(per_metric(_SAME_COLUMNS) for _ in range(3))
    if events > COMPARED:
        return found
    seen = watched.look()
    rollup.drop()
    start = time.perf_counter()
    defined = observe_all(connection, **ASK)
    found |= {"all": time.perf_counter() - start, "all_memory": peak_gigabytes()}
    if _counts(seen) != _counts(defined):
        raise SystemExit(f"the rollup and the definition differ: {seen} and {defined}")
    return found


def _counts(observation: Any) -> object:
    values = observation.to_dict()["values"]
    return observation.exposures, [(*row[:4], f"{row[4]:.9e} {row[5]:.8e}") for row in values]


def written(rows: dict[int, dict[str, float]], looks: int) -> str:
    """The table in Markdown."""
    lines = [
        "# What a look costs",
        "",
        f"Milliseconds; medians of {looks} looks, each after 2,000 new exposures and 4,000 new",
        "outcomes, a quarter of them for units of any age. Two metrics (`max` and `last`), two",
        "threads, DuckDB limited to 1.5 GB. In brackets: times a look at a store of 1,000,000",
        "events, taken in turn in the same process. CPU: of all threads. The first look counts",
        "everything. Straggler: a look after an exposure from the first second has arrived.",
        "`observe_all` is left out where it was not done after a quarter of an hour.",
        "",
        (
            "| events | look | CPU | fastest | slowest | straggler | first look | `observe_all` | "
            "`sum(value)` a metric | all columns a metric | peak GB, looks | peak GB in all |"
        ),
        f"|--:|{'--:|' * 11}",
    ]
    for events, row in rows.items():
        names = ("slowest", "straggler", "first", "all", "sum", "columns")
        times = " | ".join(f"{row[name] * 1e3:,.0f}" if name in row else "" for name in names)
        compared = [
            f"{row['look'] * 1e3:,.1f} ({row['ratio']:.2f})",
            *(
                f"{row[name] * 1e3:,.1f} ({row[name] / row['small_' + name]:.2f})"
                for name in ("cpu", "fastest")
            ),
        ]
        memory = f"{row['all_memory']:.2f}" if "all_memory" in row else ""
        lines.append(
            f"| {events:,} | {' | '.join(compared)} | {times} "
            f"| {row['first_memory']:.2f} | {memory} |"
        )
    versions = f"Python {platform.python_version()}, DuckDB {duckdb.__version__}"
    return "\n".join([*lines, *multiples(rows), "", f"{versions}, {platform.machine()}.", ""])


def multiples(rows: dict[int, dict[str, float]]) -> list[str]:
    """How counting everything compares with reading everything."""
    lines = ["", "As multiples, a metric:", ""]
    for events, row in rows.items():
        for name, what in (("first", "the first look"), ("all", "`observe_all`")):
            if name in row:
                cost = row[name] / len(METRICS)
                lines.append(
                    f"- {events:,}: {what} takes {cost / row['columns']:.1f} times as long as "
                    f"reading the same columns, {cost / row['sum']:.0f} times `sum(value)`."
                )
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--looks", type=int, default=25, help="looks at each size (25)")
    parser.add_argument("--full", action="store_true", help="100 million events too")
    parser.add_argument("--events", type=int, help="this size alone, and figures as JSON")
    given = parser.parse_args()
    if given.events:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(given.events, given.looks, Path(folder))))
        return
    rows = {}
    for events in (*SIZES, *([FULL] if given.full else [])):
        command = [sys.executable, __file__, "--events", str(events), "--looks", str(given.looks)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows[events] = json.loads(done.stdout)
        print(events, rows[events], file=sys.stderr)
    text = written(rows, given.looks)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
