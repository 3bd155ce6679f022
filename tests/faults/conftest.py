"""The register of faults: which test proves which row, and the line that says what survived.

A test names its rows with `@pytest.mark.fault("disk full, then freed")`. At the end of a run that
began in this folder, pytest prints a line per row, and then::

    faults survived N/N, S skipped, accepted = stored + dropped + quarantined

with the sums of all tests that counted events (the fixture `account`).
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent

# The fault matrix. Every row needs a test in this folder: `test_matrix.py` looks.
ROWS = (
    "config missing",
    "config is garbage or HTML",
    "config of the wrong shape, duplicate keys, aliases, deep nesting",
    "config torn during reload (1,000 rewrites, 8 threads)",
    "flips under load (4 processes)",
    "journal directory absent, a file, a symlink",
    "journal directory read-only",
    "disk full, then freed",
    "file-size limit",
    "ENOSPC at the Nth write",
    "EIO",
    "short write",
    "fsync EIO",
    "slow disk",
    "SIGKILL loop (200)",
    "power cut",
    "truncation at every byte",
    "every bit flipped in 60 records",
    "SIGTERM: gunicorn sync",
    "SIGTERM: gunicorn gthread",
    "SIGTERM: gunicorn gevent",
    "SIGTERM: gunicorn --preload",
    "SIGTERM: gunicorn uvicorn worker",
    "SIGTERM: uvicorn",
    "SIGTERM: uvicorn --workers",
    "SIGTERM: uWSGI",
    "atexit skipped",
    "fork holding a lock",
    "inherited journal and DuckDB handles",
    "16 threads x 16 processes",
    "DuckDB locked by another",
    "DuckDB file flipped",
    "DuckDB file deleted",
    "DuckDB WAL cut",
    "killed in mid-ingest (40)",
    "replayed twice",
    "FATAL after fsync error",
    "clock back 10 days",
    "clock forward a year",
    "clock stopped",
    "no file descriptors",
    "no threads",
    "memory cap with a million users",
    "hostile ids",
    "queue flood",
    "halt with DuckDB gone",
    "200 clients polling a slow server",
    "two operators at once",
    "audit tampering",
    "controller killed in mid-rollout (50)",
    "seeded crash schedules",
    "soak: a worker killed each 20 s",
)

# Tests of files that name no rows themselves: the beginning of a test's name, and its rows.
NAMED_HERE: dict[str, tuple[str, ...]] = {
    "test_serving_processes.py::test_each_worker_serves_follows_and_logs[gunicorn-sync": (
        "SIGTERM: gunicorn sync",
    ),
    "test_serving_processes.py::test_each_worker_serves_follows_and_logs[gunicorn-preload": (
        "SIGTERM: gunicorn --preload",
    ),
    "test_serving_processes.py::test_each_worker_serves_follows_and_logs[uvicorn-workers": (
        "SIGTERM: uvicorn --workers",
    ),
    "test_serving_processes.py::test_each_worker_serves_follows_and_logs[uwsgi": (
        "SIGTERM: uWSGI",
    ),
    "test_store_damage.py::test_a_flipped_bit_is_seen_or_harmless": ("DuckDB file flipped",),
    "test_store_damage.py::test_a_wal_that_is_cut_costs_no_event": ("DuckDB WAL cut",),
    "test_store_damage.py::test_deleted_files_are_made_anew": ("DuckDB file deleted",),
    "test_store_ingest.py::test_a_store_that_duckdb_gave_up": ("FATAL after fsync error",),
    "test_store_ingest.py::test_an_fsync_that_fails_costs_no_event": ("FATAL after fsync error",),
    "test_serving_processes.py::test_a_killed_worker_takes_no_accepted_event": (
        "soak: a worker killed each 20 s",
    ),
}


class Account(Protocol):
    """Adds the events of one test to the sums, and fails where they do not add up."""

    def __call__(
        self, *, accepted: int, stored: int, dropped: int = 0, quarantined: int = 0
    ) -> None: ...


@pytest.fixture
def account(record_property: Any) -> Account:
    """Accounts for events: accepted = stored + dropped + quarantined."""

    def add(*, accepted: int, stored: int, dropped: int = 0, quarantined: int = 0) -> None:
        assert accepted == stored + dropped + quarantined, (accepted, stored, dropped, quarantined)
        record_property("account", [accepted, stored, dropped, quarantined])

    return add


@pytest.fixture(scope="session")
def matrix() -> tuple[str, ...]:
    """The rows."""
    return ROWS


@pytest.fixture(scope="session")
def proofs() -> Mapping[str, list[tuple[str, bool]]]:
    """Tests by row, as written in this folder; and whether each is quick."""
    return find_proofs()


def find_proofs() -> dict[str, list[tuple[str, bool]]]:
    """Read the marks from the source: what a command line selects must not matter."""
    found: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            marks = [ast.unparse(item) for item in node.decorator_list]
            name, is_quick = f"{path.name}::{node.name}", "pytest.mark.slow" not in marks
            for item in [item for mark in node.decorator_list for item in ast.walk(mark)]:
                if isinstance(item, ast.Call) and ast.unparse(item.func) == "pytest.mark.fault":
                    for word in item.args:
                        found[ast.literal_eval(word)].append((name, is_quick))
            for beginning, rows in NAMED_HERE.items():
                if name.startswith(beginning.partition("[")[0]):
                    for row in rows:
                        found[row].append((name, is_quick))
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "fault(*rows): the rows of the fault matrix it proves")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write each test's rows into its reports, from where they reach whoever sums up."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        name = f"{item.path.name}::{item.name}"
        rows = [row for mark in item.iter_markers("fault") for row in mark.args]
        rows += [row for key, named in NAMED_HERE.items() if name.startswith(key) for row in named]
        for row in rows:
            if row not in ROWS:
                raise pytest.UsageError(f"{name}: the fault matrix has no row {row!r}")
        item.user_properties += [("fault", row) for row in dict.fromkeys(rows)]


def _reports(reporter: Any) -> Iterator[tuple[str, str, list[tuple[str, Any]]]]:
    """Outcome, reason and properties of each test."""
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in reporter.stats.get(outcome, []):
            properties = getattr(report, "user_properties", None)
            if not properties or (outcome == "passed" and report.when != "call"):
                continue
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            yield outcome, str(reason).removeprefix("Skipped: "), properties


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line per row, and the survival line."""
    outcomes: dict[str, set[str]] = defaultdict(set)
    reasons: dict[str, set[str]] = defaultdict(set)
    sums = [0, 0, 0, 0]
    for outcome, reason, properties in _reports(terminalreporter):
        for name, value in properties:
            if name == "fault":
                outcomes[value].add(outcome)
                reasons[value] |= {reason} - {""}
            elif name == "account":
                sums = [total + more for total, more in zip(sums, value, strict=True)]
    if not outcomes:
        return
    proven = find_proofs()
    verdicts = {row: _verdict(outcomes[row], has_test=row in proven) for row in ROWS}
    write = terminalreporter.write_line
    terminalreporter.write_sep("=", "fault matrix")
    for row, verdict in verdicts.items():
        if verdict == "not run":
            continue
        why = f" ({'; '.join(sorted(reasons[row]))})" if verdict.startswith("skipped") else ""
        colour = {"survived": {"green": True}, "FAILED": {"red": True}}.get(verdict, {})
        write(f"  {row:66} {verdict}{why}", **(colour or {"yellow": True}))
    counts = {word: sum(v == word for v in verdicts.values()) for word in set(verdicts.values())}
    left_out = f", {counts['not run']} not run" if "not run" in counts else ""
    accepted, stored, dropped, quarantined = sums
    write(
        f"faults survived {counts.get('survived', 0)}/{len(ROWS)}, "
        f"{counts.get('skipped', 0)} skipped{left_out}, accepted = stored + dropped + quarantined: "
        f"{accepted:,} = {stored:,} + {dropped:,} + {quarantined:,}"
    )


def _verdict(outcomes: set[str], *, has_test: bool) -> str:
    if outcomes & {"failed", "error"} or not has_test:
        return "FAILED"
    if "passed" in outcomes:
        return "survived"
    return "skipped" if outcomes else "not run"
