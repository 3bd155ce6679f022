"""Who may import whom: the contracts in pyproject.toml hold, and leave no module out."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
}
LAYERS = set(re.findall(r"\w+", " ".join(CONTRACTS["layers"]["layers"])))
MODULES = {
    path.stem
    for path in (ROOT / "abkit").iterdir()
    if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").is_file())
}
SERVING = {name.removeprefix("abkit.") for name in CONTRACTS["serving"]["source_modules"]}

# These may use the extras. Whatever else appears is serving code until somebody decides otherwise.
NOT_SERVING = {
    "__main__",
    "analysis",
    "batch",
    "bulk",
    "check",
    "cli",
    "comoments",
    "compat",
    "controller",
    "demo",
    "drill",
    "forecast",
    "integrations",
    "judge",
    "plan_file",
    "planning",
    "plots",
    "sequential",
    "server",
    "stats",
    "store",
    "terminal",
    "trust",
}


@pytest.mark.parametrize("contract", sorted(CONTRACTS))
def test_contract_is_kept(contract: str) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache", "--no-logo", "--contract", contract],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_is_serving_code_or_known_not_to_be() -> None:
    assert MODULES - NOT_SERVING == SERVING


def test_statistics_are_kept_away_from_the_store_as_soon_as_there_is_one() -> None:
    assert ("store" in MODULES) == (
        "abkit.store" in CONTRACTS["pure-statistics"]["forbidden_modules"]
    )


def test_every_module_has_a_layer() -> None:
    assert MODULES <= LAYERS
