"""What does one assignment cost? abkit against bare md5 and every peer with a Python package.

Thread-CPU time per call, so that neither other processes nor a peer's own threads count; all
contenders take turns in each round, and medians over the rounds are compared as ratios. The
yardstick is the hash as one writes it by hand: `int(md5(f"{salt}:{unit}").hexdigest()[:13], 16)`
compared with a threshold. The same on raw digest bytes is shown too.

    python3 dev.py conformance
    python3 dev.py run python benchmarks/assignment.py
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import abkit
from abkit.bucketing import SPACE
from abkit.compiler import compile_arms

sys.path.insert(0, str(Path(__file__).parent))
from assignment_peers import made

if TYPE_CHECKING:
    from collections.abc import Callable

    Assign = Callable[[str], Any]

RESULTS = Path(__file__).parent / "results" / "assignment.md"
SALT = "0123456789abcdef0123456789abcdef"
TWO = abkit.Experiment.create("exp", {"old": 0.5, "new": 0.5}, salt=SALT)
MANY = abkit.Experiment.create(
    "many",
    {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25},
    salt=SALT,
    rollout=0.5,
    overrides={f"qa-{i}": "b" for i in range(20)},
)
MISSED = abkit.Experiment.create(
    "missed",
    {"old": 0.5, "new": 0.5},
    salt=SALT,
    rollout=0.5,
    overrides={f"qa-{i}": "new" for i in range(20)},
    targeting={"attribute": "country", "in": ["DE", "FR"]},
)
HALF = SPACE // 2
HALF_BYTES = b"\x80" + bytes(6)
YARDSTICK = "md5 by hand: hex digits as an integer"


def by_hand(unit: str) -> bool:
    """The hash as one writes it."""
    return int(hashlib.md5(f"{SALT}:{unit}".encode()).hexdigest()[:13], 16) < HALF  # noqa: S324


def by_digest(unit: str) -> bool:
    """The same on raw bytes."""
    return hashlib.md5(f"{SALT}:{unit}".encode()).digest() < HALF_BYTES  # noqa: S324


def contenders(folder: Path) -> dict[str, Assign]:
    """What is compared, by name, abkit first."""
    ab = abkit.Client.from_experiments([TWO, MANY, MISSED])
    listed = abkit.Client.from_experiments([TWO], sink=abkit.MemorySink(limit=10**9))
    writer = abkit.Client(folder / "buffered", durability="buffered")
    abkit.Workspace(folder / "buffered").publish(TWO)
    durable = abkit.Client(folder / "os")
    abkit.Workspace(folder / "os").publish(TWO)
    time.sleep(0.6)
    writer.assign("exp", "u")
    durable.assign("exp", "u")
    pick = ab.picker("exp")
    attributes = {"country": "US", "age": 33}

    def exposed(client: abkit.Client) -> Assign:
        def assign(unit: str) -> bool:
            return client.expose(client.assign("exp", unit))

        return assign

    return {
        YARDSTICK: by_hand,
        "md5 by hand: digest bytes": by_digest,
        "abkit, the compiled experiment": compile_arms(TWO),
        "abkit `picker`, 2 arms": pick,
        "abkit `variant`, 2 arms": lambda unit: ab.variant("exp", unit),
        "abkit `assign`, 2 arms": lambda unit: ab.assign("exp", unit),
        "abkit `assign`, 4 arms, rollout, overrides": lambda unit: ab.assign("many", unit),
        "abkit `assign`, rollout, overrides, targeting missed": lambda unit: ab.assign(
            "missed", unit, attributes
        ),
        "abkit `assign` + `expose`, to a list": exposed(listed),
        "abkit `assign` + `expose`, buffered": exposed(writer),
        "abkit `assign` + `expose`, written through (os)": exposed(durable),
    }


def measure(table: dict[str, Assign], rounds: int, units: list[str]) -> dict[str, list[float]]:
    """Microseconds of thread CPU per call, by contender, one figure a round."""
    found: dict[str, list[float]] = {name: [] for name in table}
    counts = {name: calls(assign, units) for name, assign in table.items()}
    names = list(table)
    order = random.Random(1)
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            assign, part = table[name], units[: counts[name]]
            gc.collect()
            gc.disable()
            begun = time.thread_time_ns()
            for unit in part:
                assign(unit)
            spent = time.thread_time_ns() - begun
            gc.enable()
            found[name].append(spent / len(part) / 1_000)
    return found


def calls(assign: Assign, units: list[str]) -> int:
    """How many calls take some 10 ms."""
    begun = time.thread_time()
    for unit in units[:200]:
        assign(unit)
    each = max(1e-7, (time.thread_time() - begun) / 200)
    return max(200, min(len(units), int(0.01 / each)))


def import_cost(statement: str) -> tuple[float, int]:
    """Milliseconds of CPU and number of modules that a statement costs a fresh process."""
    script = (
        "import sys, time; b = len(sys.modules); t = time.process_time()\n"
        f"{statement}\n"
        "print((time.process_time() - t) * 1e3, len(sys.modules) - b)"
    )
    runs = []
    for _ in range(7):
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return float("nan"), 0
        runs.append(done.stdout.split())
    return statistics.median(float(run[0]) for run in runs), int(runs[0][1])


IMPORTS = {
    "abkit (`Client`, `Experiment`)": "from abkit import Client, Experiment",
    "eppo-server-sdk": "import eppo_client",
    "growthbook": "import growthbook",
    "statsig-python-core": "import statsig_python_core",
    "launchdarkly-server-sdk": "import ldclient",
    "UnleashClient": "import UnleashClient",
    "optimizely-sdk": "from optimizely import optimizely",
    "posthog": "import posthog",
    "openfeature-sdk": "from openfeature import api",
}


def hostile() -> tuple[int, float, float]:
    """Calls with odd units and attributes: how many, the median and the slowest in microseconds."""
    rng = random.Random(7)
    ab = abkit.Client.from_experiments([TWO, MANY, MISSED])
    odd: list[Any] = [None, True, 1.5, b"u", "", "\ud800", 10**4000, [], {}, object(), "qa-1"]
    odd += ["x" * length for length in (1, 5_000, 16_384, 1_000_000)]
    spent = []
    for _ in range(1_000):
        text = "".join(chr(rng.randrange(1, 0xD800)) for _ in range(rng.randrange(40)))
        unit = rng.choice([rng.choice(odd), text])
        given = rng.choice([None, {"country": rng.choice(odd)}, {text: text}, 7])
        for key in ("exp", "many", "missed", "absent"):
            begun = time.thread_time_ns()
            ab.assign(key, unit, given)
            spent.append((time.thread_time_ns() - begun) / 1_000)
    return len(spent), statistics.median(spent), max(spent)


def cold_start() -> tuple[float, float]:
    """Milliseconds from making a client to its first answer: no snapshot, and a corrupt one."""
    found = []
    for content in (None, b'{"schema": "abkit.snapshot/v1", "chec'):
        runs = []
        for _ in range(7):
            folder = Path(tempfile.mkdtemp())
            if content is not None:
                (folder / "snapshot.json").write_bytes(content)
            begun = time.perf_counter()
            answer = abkit.Client(folder).variant("exp", "u", default="today")
            runs.append((time.perf_counter() - begun) * 1e3)
            if answer != "today":
                raise RuntimeError(answer)
        found.append(statistics.median(runs))
    return found[0], found[1]


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    units = [f"user-{i}" for i in range(20_000)]
    peers = made()
    with tempfile.TemporaryDirectory() as folder:
        table = contenders(Path(folder)) | {name: assign for name, (_, assign) in peers.items()}
        found = measure(table, options.rounds, units)
    yard = found[YARDSTICK]
    lines = [
        "| one assignment | microseconds | × md5 by hand | middle half of the rounds |",
        "|---|---:|---:|---:|",
    ]
    for name, spent in sorted(found.items(), key=lambda item: statistics.median(item[1])):
        ratios = sorted(a / b for a, b in zip(spent, yard, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
        middle = statistics.median(ratios)
        bold = "**" if name.startswith("abkit") else ""
        lines.append(
            f"| {bold}{name}{bold} | {statistics.median(spent):.2f} | {bold}{middle:.2f}{bold} "
            f"| {low:.2f} – {high:.2f} |"
        )
    lines += ["", "| import | CPU milliseconds | modules |", "|---|---:|---:|"]
    for name, statement in IMPORTS.items():
        spent_ms, modules = import_cost(statement)
        lines.append(f"| {name} | {spent_ms:.0f} | {modules} |")
    count, middle, slowest = hostile()
    absent, corrupt = cold_start()
    packages = sorted({peer.package for peer, _ in peers.values()})
    lines += [
        "",
        (
            f"{count:,} calls with hostile units and attributes: median {middle:.2f} µs, "
            f"slowest {slowest:.0f} µs. A client's first answer without a snapshot: "
            f"{absent:.1f} ms; "
            f"with a corrupt one: {corrupt:.1f} ms."
        ),
        "",
        (
            f"Python {platform.python_version()}, {options.rounds} rounds; "
            f"{', '.join(f'{name} {version(name)}' for name in packages)}."
        ),
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        head = "# One assignment\n\nWhat `benchmarks/assignment.py --write` printed.\n\n"
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(f"{head}{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
    # Some peers keep threads that would hold the process up.
    sys.stdout.flush()
    os._exit(0)
