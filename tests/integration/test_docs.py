"""The examples in README and docs run, and their plans are lawful."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from abkit.errors import MissingExtraError
from abkit.plan_file import read_plan
from abkit.plan_file.schema import schema
from abkit.plan_file.text import parse

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


PLANS = [(f"{where}.toml", code) for where, code in blocks("toml")]
PLANS += [(path.name, path.read_text()) for path in sorted(ROOT.glob("examples/**/*.toml"))]
PLANS += [
    (f"{where}.yaml", code) for where, code in blocks("yaml") if "rollout.schema.json" in code
]


@pytest.mark.parametrize(("name", "code"), PLANS)
def test_the_plan_is_lawful_and_an_editor_agrees(name: str, code: str, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    path = tmp_path / name
    path.write_text(code)
    try:
        assert read_plan(path).state == "draft"
    except MissingExtraError as error:
        pytest.skip(str(error))
    jsonschema.Draft202012Validator(schema()).validate(parse(code, path))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(BLOCK.sub("", page.read_text()))
    assert [target for target in targets if not (page.parent / target).exists()] == []
