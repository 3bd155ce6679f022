"""The examples in README and docs run, and their plans are lawful."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from abkit.errors import MissingExtraError
from abkit.rollout import Rollout

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", code)
        for page in PAGES
        for number, (found, code) in enumerate(BLOCK.findall(page.read_text()))
        if found == language
    ]


@pytest.mark.parametrize(("where", "code"), blocks("python"))
def test_the_example_runs(
    where: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(code, where, "exec"), {})  # noqa: S102 - our own documents
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("where", "code"), blocks("toml"))
def test_the_plan_is_lawful(where: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / f"{where}.toml"
    path.write_text(code)
    assert Rollout.from_toml(path).state == "draft"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(BLOCK.sub("", page.read_text()))
    assert [target for target in targets if not (page.parent / target).exists()] == []
