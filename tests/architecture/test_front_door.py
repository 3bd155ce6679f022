"""The front door: the public names, and what they say where an extra is missing."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import abkit
from abkit.errors import AbkitError

MOST_NAMES = 25
# What Python itself and the lazy loading need in the module; nobody's interface.
PLUMBING = {"TYPE_CHECKING", "Any", "annotations", "import_module"}
HEAVY = ["duckdb", "numpy", "pandas", "plotly", "pyarrow", "rich", "scipy", "statsmodels"]
# The names that serving code and plans need; they work in the base install.
LIGHT = [
    "AbkitError",
    "Assignment",
    "Client",
    "Decision",
    "Experiment",
    "Guardrail",
    "Holdout",
    "Layer",
    "MemorySink",
    "MemorySticky",
    "Metric",
    "Moments",
    "Objective",
    "Policy",
    "Rollout",
    "Stage",
    "Workspace",
    "__version__",
    "audit_sql",
    "decide",
]
ANALYSIS = ["Controller", "Report", "StoreReader", "analyze", "assign_many"]

# Runs with these packages absent, as in an image that has the base install only.
WITHOUT = """
import sys
missing = set({missing!r})
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import abkit
{code}
"""


def without(missing: list[str], code: str) -> str:
    """What the code prints in a fresh process that lacks these packages."""
    script = WITHOUT.format(missing=missing, code=code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def refusal(name: str, missing: list[str]) -> str:
    """Kind and words of the error that asking for a name raises."""
    code = f"""
try:
    abkit.{name}
except ImportError as error:
    print([cls.__name__ for cls in type(error).__mro__], error)
else:
    print("there it is")
"""
    return without(missing, code)


def test_there_are_few_public_names() -> None:
    assert len(abkit.__all__) <= MOST_NAMES
    assert len(set(abkit.__all__)) == len(abkit.__all__)


def test_the_public_names_are_sorted_into_those_that_need_an_extra_and_those_that_do_not() -> None:
    assert sorted(LIGHT + ANALYSIS) == sorted(abkit.__all__)


def test_the_names_that_are_listed_are_those_that_are_public() -> None:
    assert dir(abkit) == sorted(abkit.__all__)


@pytest.mark.parametrize("name", abkit.__all__)
def test_every_public_name_is_there_and_comes_from_abkit(name: str) -> None:
    value: Any = getattr(abkit, name)
    assert value is getattr(abkit, name)
    if name == "__version__":
        assert isinstance(value, str)
        return
    assert value.__module__.startswith("abkit.")
    assert value.__name__ == name
    assert value.__doc__, "a public name says what it is"


def test_nothing_else_is_public() -> None:
    """Also after every name has been asked for."""
    for name in abkit.__all__:
        getattr(abkit, name)
    visible = {
        name
        for name, value in vars(abkit).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert visible - set(abkit.__all__) <= PLUMBING


def test_a_star_import_brings_the_public_names() -> None:
    names: dict[str, Any] = {}
    exec("from abkit import *", names)  # noqa: S102 - a star is not allowed inside of a function
    assert set(abkit.__all__) <= names.keys()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'abkit' has no attribute 'analyse'"):
        abkit.analyse  # noqa: B018 - asking is what is tested
    assert not hasattr(abkit, "nonsense")


def test_the_version_is_the_one_that_is_installed() -> None:
    from importlib.metadata import version

    assert abkit.__version__ == version("abkit-rollouts")


@pytest.mark.parametrize("missing", [["duckdb"], ["scipy"], HEAVY], ids="-".join)
def test_a_missing_package_is_reported_with_the_extra_that_brings_it(missing: list[str]) -> None:
    said = refusal("analyze", missing)
    assert said.startswith("['MissingExtraError', 'AbkitError', 'ImportError',")
    assert any(f" needs {name}: " in said.lower() for name in missing)
    assert said.endswith("pip install 'abkit-rollouts[analysis]'")


@pytest.mark.parametrize("name", ANALYSIS)
def test_each_name_that_needs_the_extra_says_so(name: str) -> None:
    said = refusal(name, HEAVY)
    assert "MissingExtraError" in said
    assert said.endswith("pip install 'abkit-rollouts[analysis]'")


def test_a_missing_extra_can_be_caught_as_any_error_of_abkit() -> None:
    code = "try:\n    abkit.analyze\nexcept abkit.AbkitError as error:\n    print(type(error))"
    assert "MissingExtraError" in without(HEAVY, code)
    from abkit.errors import MissingExtraError

    assert issubclass(MissingExtraError, (AbkitError, ImportError))


def test_serving_works_in_the_base_install() -> None:
    code = f"""
for name in {LIGHT!r}:
    getattr(abkit, name)
experiment = abkit.Experiment.create("ranker", {{"a": 0.5, "b": 0.5}})
client = abkit.Client.from_experiments([experiment])
assignment = client.assign("ranker", "user-1")
print(assignment.reason, client.expose(assignment), client.record("user-1", "clicks", 1.0))
"""
    assert without(HEAVY, code) == "split True True"


def test_a_fault_of_abkits_own_is_not_taken_for_a_missing_extra() -> None:
    code = """
abkit._HOMES["Report"] = "no_such_module"
try:
    abkit.Report
except ModuleNotFoundError as error:
    print(type(error).__name__, error.name)
"""
    assert without([], code) == "ModuleNotFoundError abkit.no_such_module"


def test_a_name_is_looked_up_once() -> None:
    code = """
first = abkit.Client
abkit._HOMES.clear()
print(abkit.Client is first)
"""
    assert without([], code) == "True"
