"""`abkit batch`: assign and score tables, swap versions of predictions, join labels.

Exit codes: 0 done; 1 a version is refused, or there is nothing to go back to; 2 bad input.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abkit.cli import batching

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_batch(commands: Commands) -> None:
    """`abkit batch`."""
    parser = commands.add_parser(
        "batch",
        help="assign and score tables, swap versions of predictions, join late labels",
        description="Batch inference in a DuckDB file of yours: assign a table in SQL, score it "
        "into immutable versions, validate and swap what readers see, go back, join labels.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION", title="actions")
    _add_assign(actions)
    _add_score(actions)
    _add_validate(actions)
    _add_swap(actions)
    _add_labels(actions)
    found = _action(actions, "versions", "list versions of predictions", batching.versions)
    found.add_argument("name", nargs="?", help="all by default")
    past = _action(actions, "history", "every swap: when, by whom, why", batching.history)
    past.add_argument("name")
    paired = _action(
        actions, "compare", "a shadow's predictions beside those seen", batching.compare
    )
    paired.add_argument("name")
    paired.add_argument("--version", type=int, metavar="N", help="the newest by default")
    kept = _action(actions, "cache", "what the prediction cache holds", batching.cache)
    kept.add_argument("--limit", type=int, metavar="ENTRIES", help="hold so many from now on")
    kept.add_argument("--clear", action="store_true", help="forget every answer")


def _action(
    actions: Commands, name: str, text: str, run: Callable[[Any], int]
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("database", type=Path, metavar="DB", help="the DuckDB file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        *("--wait",),
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for others that have the file open (default 30)",
    )
    parser.set_defaults(run=batching.explained(run))
    return parser


def _add_assign(actions: Commands) -> None:
    parser = _action(
        actions, "assign", "assign a table in SQL, and log exposures once", batching.assign
    )
    parser.add_argument("table")
    parser.add_argument("--unit", required=True, metavar="COLUMN", help="the entity")
    parser.add_argument("--experiment", required=True, metavar="KEY")
    parser.add_argument("--workspace", required=True, type=Path)
    parser.add_argument("--run", required=True, dest="run_name", help="its name, such as the date")
    parser.add_argument("--no-log", action="store_true", help="log no exposures")


def _add_score(actions: Commands) -> None:
    parser = _action(actions, "score", "score a table into the next version", batching.score)
    parser.add_argument("table")
    parser.add_argument("--name", required=True, help="of the predictions")
    parser.add_argument("--unit", required=True, metavar="COLUMN", help="the entity")
    parser.add_argument("--model", required=True, metavar="MODULE:FUNCTION")
    parser.add_argument("--model-version", required=True, metavar="VERSION")
    parser.add_argument(
        "--model-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what the models read: part of their hash (repeatable)",
    )
    parser.add_argument("--run", default="", dest="run_name", help="whose assignments hold")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION@VERSION",
        help="the model of another variant than control (repeatable)",
    )
    parser.add_argument(
        "--shadow",
        metavar="NAME=MODULE:FUNCTION@VERSION",
        help="a model that answers every row besides",
    )
    parser.add_argument("--features", metavar="COLUMNS", help="with commas; all others by default")
    parser.add_argument("--chunk", type=int, default=50_000, metavar="ROWS")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor fill the cache")
    parser.add_argument("--again", action="store_true", help="another version of the same run")
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an interrupted job has scored"
    )


def _add_validate(actions: Commands) -> None:
    parser = _action(actions, "validate", "look at a version before readers do", batching.validate)
    parser.add_argument("name")
    parser.add_argument("--version", type=int, metavar="N", help="the newest by default")
    _add_limits(parser)


def _add_swap(actions: Commands) -> None:
    parser = _action(actions, "swap", "validate a version, and let readers see it", batching.swap)
    parser.add_argument("name")
    parser.add_argument("--version", type=int, metavar="N", help="the newest by default")
    _add_limits(parser)
    parser.add_argument("--force", action="store_true", help="even if refused; needs --reason")
    _add_actor(parser)
    parser = _action(actions, "back", "let readers see the version before, at once", batching.back)
    parser.add_argument("name")
    _add_actor(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for name, default, text in (
        ("row-change", 0.1, "largest share by which the number of rows may change"),
        ("nulls", 0.0, "largest share of rows without a prediction"),
        ("drift", 0.1, "largest distance of the distributions of predictions"),
        ("beyond", 0.5, "how far outside of the live range, as a share of it"),
        ("mismatch", 0.001, "smallest p-value of the shares of the variants"),
    ):
        parser.add_argument(
            f"--max-{name}" if name != "mismatch" else "--min-p",
            type=float,
            default=default,
            dest=name.replace("-", "_"),
            metavar="X",
            help=f"{text} (default {default:g})",
        )


def _add_actor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="for the record")
    parser.add_argument("--actor", default=os.environ.get("USER") or "operator")


def _add_labels(actions: Commands) -> None:
    parser = _action(actions, "labels", "join labels, and log outcomes once", batching.labels)
    parser.add_argument("labels", help="a table of the database, or a Parquet or CSV file")
    parser.add_argument("--name", required=True, help="of the predictions")
    parser.add_argument("--entity", required=True, metavar="COLUMN")
    parser.add_argument("--label", required=True, metavar="COLUMN", help="what turned out true")
    parser.add_argument("--metric", required=True, metavar="KEY", help="as the policy names it")
    parser.add_argument("--workspace", required=True, type=Path)
    parser.add_argument(
        "--value",
        choices=("wrong", "absolute", "squared", "label"),
        default="wrong",
        help="1 where they differ (default), an error, or the label itself",
    )
    parser.add_argument("--threshold", type=float, metavar="X", help="predictions from here are 1")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", default="", dest="run_name", help="labels are of this run")
    which.add_argument("--version", type=int, metavar="N", help="labels are of this version")
    which.add_argument(
        "--time", default="", metavar="COLUMN", help="labels are of what was live then (UTC)"
    )
