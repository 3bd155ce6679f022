"""`abkit doctor`: whether a workspace is well, and what to do where it is not."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import TypeAlias

    from abkit.check import Check

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

UNWELL: Final = 1
_STYLES: Final = {"info": "green", "warn": "yellow", "block": "bold red"}
_WORDS: Final = {"info": "ok", "warn": "warn", "block": "BLOCK"}


def add_doctor(commands: Commands) -> None:
    """`abkit doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="whether a workspace is well: snapshot, writers, lag, drops, disk, store, rollouts",
        description="Look at everything that can be wrong with a workspace, without touching it. "
        "Exit code 1 if something blocks, with --strict also if something warns. docs/checks.md "
        "says what each look is for.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit 1 for warnings too")
    parser.add_argument("--deep", action="store_true", help="read every archived file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from abkit.trust import diagnose

    found = diagnose(options.workspace, is_deep=options.deep)
    if options.json:
        print(json.dumps([item.to_dict() for item in found], indent=2, default=str))
    elif find_spec("rich") is None:
        for item in found:
            print(f"{_WORDS[item.severity]:<6}{item.id}: {_plain(item.text)}")
    else:
        _print_table(found)
    bad = {"block", "warn"} if options.strict else {"block"}
    return UNWELL if any(item.severity in bad for item in found) else 0


def _print_table(found: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for item in found:
        style = _STYLES[item.severity]
        text = Text(_plain(item.text))  # no markup: names and reasons come from people
        if item.severity != "info":
            text.append(f"\n{item.explanation}; {item.remedy}", style="dim")
        table.add_row(Text(_WORDS[item.severity], style=style), item.id, text)
    console.print(table)
    bad = sum(item.severity == "block" for item in found)
    odd = sum(item.severity == "warn" for item in found)
    told = "all is well" if not bad and not odd else f"{bad} block, {odd} warn"
    console.print(f"\n{told}", style="bold", highlight=False, markup=False)


def _plain(text: str) -> str:
    """No line of a person's may look like one of ours, or steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
