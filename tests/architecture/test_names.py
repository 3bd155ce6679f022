"""Names that say nothing, and addresses that belong to one machine, stay out of the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMPTY_NAMES = {"common", "helper", "helpers", "manager", "util", "utils"}
CODE = ("abkit", "benchmarks", "dashboard", "docs", "tests")

# Built from pieces, so that this file does not find itself.
FOREIGN = {
    "a package index": [
        "pypi" + ".org",
        "python" + "hosted.org",
        "npm" + "js.org",
        "debian" + ".org",
    ],
    "a path of one machine": ["/work" + "/", "/root" + "/", "/opt/" + "pypi", "/opt/" + "wheels"],
}
PATTERNS = {
    what: re.compile(
        "|".join(
            rf"(?<![\w.]){re.escape(part)}" if part[0] == "/" else re.escape(part) for part in parts
        )
    )
    for what, parts in FOREIGN.items()
}


def files_in_git() -> list[Path]:
    """Return what git tracks or would take with `git add`; nothing where there is no repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    files = {ROOT / name for name in done.stdout.decode().split("\0") if name}
    return sorted(file for file in files if file.is_file())


FILES = files_in_git()


def text_of(file: Path) -> str:
    """Return a file's text; what is binary has none."""
    content = file.read_bytes()
    return "" if b"\0" in content[:8192] else content.decode("utf-8", "replace")


def foreign(text: str) -> list[str]:
    return [
        f"line {number}: {what}: {line.strip()[:120]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in PATTERNS.items()
        if pattern.search(line)
    ]


def test_no_module_has_a_name_that_says_nothing() -> None:
    modules = [path for folder in CODE for path in (ROOT / folder).rglob("*")]
    names = [*modules, *ROOT.glob("*.py")]
    found = [path for path in names if path.stem in EMPTY_NAMES and path.suffix in {"", ".py"}]
    assert found == []


@pytest.mark.skipif(not FILES, reason="no git repository here")
def test_no_file_names_a_registry_or_a_machine() -> None:
    found = {str(file.relative_to(ROOT)): foreign(text_of(file)) for file in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("text", [part for parts in FOREIGN.values() for part in parts])
def test_a_foreign_address_is_seen(text: str) -> None:
    assert foreign(f"see {text}x")


@pytest.mark.parametrize("text", ["docs/work/plan.md", "../shared/data", "the root/leaf ratio"])
def test_relative_paths_are_fine(text: str) -> None:
    assert not foreign(text)
