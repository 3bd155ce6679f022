"""What `import abkit` costs a serving process, each time in a fresh one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

MOST_MODULES = 100
STATEMENTS = ["import abkit", "from abkit import Client, Experiment"]
HEAVY = {
    "asyncio",
    "duckdb",
    "http",
    "multiprocessing",
    "numpy",
    "pandas",
    "plotly",
    "pyarrow",
    "rich",
    "scipy",
    "sklearn",
    "statsmodels",
    "streamlit",
    "yaml",
}

# -I: neither the working folder, nor PYTHON* variables, nor user packages have a say; what runs
# before the statement (site, .pth files of other packages) is not abkit's doing and not counted.
SCRIPT = """
import sys
before = set(sys.modules)
{statement}
added = sorted(set(sys.modules) - before)
import json, pathlib, threading
tasks = pathlib.Path("/proc/self/task")
threads = len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
print(json.dumps([added, threads]))
"""


@dataclass(frozen=True, slots=True)
class Import:
    """What one statement brought into a fresh process."""

    modules: list[str]
    threads: int

    @property
    def packages(self) -> set[str]:
        return {name.partition(".")[0] for name in self.modules}


def fresh(statement: str) -> Import:
    script = SCRIPT.format(statement=statement)
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    modules, threads = json.loads(done.stdout)
    return Import(modules, threads)


@pytest.fixture(scope="module", params=STATEMENTS)
def imported(request: pytest.FixtureRequest) -> Import:
    return fresh(request.param)


def test_abkit_is_what_was_imported(imported: Import) -> None:
    assert "abkit" in imported.modules


def test_at_most_a_hundred_modules_are_added(imported: Import) -> None:
    assert len(imported.modules) <= MOST_MODULES, imported.modules


def test_every_module_is_abkits_own_or_of_the_standard_library(imported: Import) -> None:
    assert imported.packages - sys.stdlib_module_names == {"abkit"}


def test_the_heavy_packages_are_absent(imported: Import) -> None:
    assert not imported.packages & HEAVY


def test_no_thread_is_started(imported: Import) -> None:
    assert imported.threads == 1


def test_a_heavy_import_would_be_seen() -> None:
    """The measuring stick itself: json.tool is standard, pytest is not."""
    assert fresh("import json.tool, pytest").packages - sys.stdlib_module_names >= {"pytest"}
