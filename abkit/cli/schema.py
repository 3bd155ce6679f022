"""`abkit schema`: what a plan file may hold, for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_schema(commands: Commands) -> None:
    """`abkit schema`."""
    parser = commands.add_parser(
        "schema",
        help="print the JSON Schema of rollout plans, for editors",
        description="Print the JSON Schema of rollout plans. Save it beside your plans; an editor "
        "completes and checks them then. In TOML: `#:schema ./rollout.schema.json` on the first "
        "line; in YAML: `# yaml-language-server: $schema=./rollout.schema.json`.",
    )
    parser.set_defaults(run=_schema)


def _schema(_: argparse.Namespace) -> int:
    from abkit.plan_file.schema import PUBLISHED

    print(PUBLISHED.read_text(encoding="utf-8"), end="")
    return 0
