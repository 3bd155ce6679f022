"""The dashboard shows what others computed, and never lets raw HTML or scripts through (S13)."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "dashboard").rglob("*.py"))

RAW_HTML = {"unsafe_allow_html", "unsafe_allow_javascript"}
RAW_HTML_MODULES = ("streamlit.components", "streamlit.elements.html")
NOT_ITS_BUSINESS = ("abkit.sequential", "abkit.stats", "duckdb")


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imported_names(node: ast.AST) -> list[str]:
    """Return the full dotted names that one statement imports; none for other nodes."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names):
            return [module, *(f"{module}.{alias.name}" for alias in names)]
        case ast.Call(args=[ast.Constant(value=str(name)), *_]) if is_import_call(node.func):
            return [name]
    return []


def is_import_call(function: ast.expr) -> bool:
    return ast.unparse(function).rpartition(".")[2] in {"__import__", "import_module"}


def faults(source: str) -> Iterator[str]:
    """Yield what breaks a rule, with its line."""
    tree = ast.parse(source)
    streamlit = {"st", "streamlit"} | {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "streamlit" and alias.asname
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.keyword(arg=str(word)) if word in RAW_HTML:
                yield f"line {line}: {word}"
            case ast.Constant(value=str(word)) if word in RAW_HTML:
                yield f"line {line}: {word} as a key"
            case ast.Attribute(attr="html" | "components" | "iframe" as word):
                # st.html, st.sidebar.html, column.html: raw HTML hangs on any container
                if word == "html" or ast.unparse(node.value) in streamlit:
                    yield f"line {line}: {ast.unparse(node)}"
        for name in imported_names(node):
            if name == "streamlit.html" or is_within(name, RAW_HTML_MODULES):
                yield f"line {line}: {name}"
            if is_within(name, NOT_ITS_BUSINESS):
                yield f"line {line}: import of {name}"


def test_there_is_a_dashboard_to_check() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_file_follows_the_rules(file: Path) -> None:
    assert list(faults(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "st.markdown(text, unsafe_allow_html=True)",
        "st.markdown(text, **{'unsafe_allow_html': True})",
        "st.html(text)",
        "st.sidebar.html(text)",
        "import streamlit as s\ns.components.v1.html(text)",
        "from streamlit import html",
        "import streamlit.components.v1 as components",
        "st.html(text, unsafe_allow_javascript=True)",
        "import duckdb",
        "from abkit import stats",
        "from abkit.stats import difference",
        "import abkit.sequential.mixture",
        "importlib.import_module('abkit.stats')",
    ],
)
def test_rule_sees_a_fault(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "import streamlit as st\nst.write('all well')",
        "from abkit import analysis",
        "from abkit.store import reader",
        "from abkit.statsy import nothing",
    ],
)
def test_rule_lets_the_rest_be(source: str) -> None:
    assert not list(faults(source))
