"""The commands about the events: rebuild, reconcile, compact, retain, forget."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from abkit.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from abkit.store.forget import Forgotten
    from abkit.store.ingest import Ingester
    from abkit.store.rebuild import Rebuilt
    from abkit.store.reconcile import Reconciliation
    from abkit.workspace import Workspace

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_rebuild(commands: Commands) -> None:
    """`abkit rebuild`."""
    parser = commands.add_parser(
        "rebuild",
        help="make the store anew from the log and the archive, and compare",
        description="Build a new store beside the old one, print a hash of the rows of each table "
        "in both, and put the new one in its place. A store that was not equal is kept under "
        "another name. Stop the controller first.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    parser.set_defaults(run=_rebuild)


def _rebuild(options: argparse.Namespace) -> int:
    from abkit.store.archive import Archive
    from abkit.store.rebuild import rebuild

    workspace = _workspace(options.workspace)
    with _progress("events") as progress:
        found = rebuild(workspace, check=options.check, progress=progress)
    _print_rebuilt(found)
    damaged = Archive(workspace.path).damaged_files() if options.check else []
    for name in damaged:
        print(f"archive\t{name} is missing or damaged")
    return int(options.check and not (found.equal and not damaged))


def _print_rebuilt(found: Rebuilt) -> None:
    for item in found.tables:
        old = "-" if item.old is None else f"{item.old.rows} {item.old.digest}"
        word = "equal" if item.equal else "new" if item.old is None else "DIFFERENT"
        print(f"{item.table}\told {old}\tnew {item.new.rows} {item.new.digest}\t{word}")
    if found.fault:
        print(f"the old store could not be read: {found.fault}")
    word = "equal" if found.equal else "not equal"
    print(f"{found.events:,} events; old and new are {word}")
    if found.kept is not None:
        print(f"the old store is kept as {found.kept.name}")


def add_reconcile(commands: Commands) -> None:
    """`abkit reconcile`."""
    parser = commands.add_parser(
        "reconcile",
        help="account for every event: accepted = stored + dropped + quarantined + ...",
        description="Count what became of every event, by writer and by variant, beside a running "
        "controller or without one. Exit 1 if an event is unexplained.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=_reconcile)


def _reconcile(options: argparse.Namespace) -> int:
    from abkit.store.reconcile import reconcile

    found = reconcile(_workspace(options.workspace).path)
    if options.json:
        print(found.to_json())
    else:
        _print_balance(found)
    return 0 if found.balanced else 1


def _print_balance(found: Reconciliation) -> None:
    names = ("accepted", "stored", "dropped", "quarantined", "removed", "waiting", "unexplained")
    print("\t".join(("writer", *names)))
    for item in (*found.writers, found.total):
        print("\t".join((item.writer, *(str(getattr(item, name)) for name in names))))
    print("\nexperiment\tvariant\tstored\tdropped\tremoved\twaiting")
    for part in found.variants:
        owner = (part.experiment or "-", part.variant or "-")
        counts = (part.stored, part.dropped, part.removed, part.waiting)
        print("\t".join((*owner, *map(str, counts))))
    print("\nevery event is explained" if found.balanced else "\nevents are unexplained")


def add_compact(commands: Commands) -> None:
    """`abkit compact`."""
    parser = commands.add_parser(
        "compact",
        help="turn old segments of the log into Parquet",
        description="Write the events of sealed and loaded segments to archive/ as Parquet, read "
        "them back, and delete the segments. Stop the controller first.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument(
        "--older-than", type=float, default=1.0, metavar="DAYS", help="sealed before that (1)"
    )
    parser.set_defaults(run=_compact)


def _compact(options: argparse.Namespace) -> int:
    from abkit.store.compact import compact

    if not options.older_than >= 0:
        raise ConfigError(f"--older-than must be 0 or more days, got {options.older_than}")
    with _ingester(options.workspace) as ingester, _progress("events") as progress:
        done = compact(ingester, older_than_days=options.older_than, progress=progress)
        ingester.publish()
    print(f"archived {done.segments} segments: {done.events:,} events in {done.files} files")
    return 0


def add_retain(commands: Commands) -> None:
    """`abkit retain`."""
    parser = commands.add_parser(
        "retain",
        help="let exposures and outcomes expire after some days",
        description="Delete exposures and outcomes older than DAYS from store and archive. "
        "Decisions stay, and so does what a live rollout needs. Stop the controller first.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--days", type=float, required=True, help="how old events may become")
    parser.add_argument("--dry-run", action="store_true", help="count only")
    parser.add_argument("--force", action="store_true", help="events of live rollouts go too")
    parser.set_defaults(run=_retain)


def _retain(options: argparse.Namespace) -> int:
    from abkit.store.retention import retain

    with _ingester(options.workspace) as ingester:
        done = retain(ingester, options.days, force=options.force, dry_run=options.dry_run)
        ingester.publish()
    word = "would expire" if options.dry_run else "expired"
    print(f"{done.expired:,} events {word}; {done.files} archived files rewritten or deleted")
    if done.protected:
        print(f"{done.protected:,} old events stay for live rollouts of {', '.join(done.live)}")
    if done.unsealed:
        print(f"{done.unsealed:,} old events stay until their segment is sealed")
    return 0


def add_forget(commands: Commands) -> None:
    """`abkit forget`."""
    parser = commands.add_parser(
        "forget",
        help="erase a unit everywhere in a workspace",
        description="Erase a unit from log, archive, store, state files and snapshot. A segment "
        "that is still being written keeps it until it is sealed: then `--pending`, or the next "
        "controller that starts, finishes. Stop the controller first.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("unit", nargs="?", metavar="UNIT")
    parser.add_argument("--pending", action="store_true", help="finish what could not be finished")
    parser.set_defaults(run=_forget)


def _forget(options: argparse.Namespace) -> int:
    from abkit.store.forget import finish, forget

    if (options.unit is None) != options.pending:
        raise ConfigError("name a UNIT, or say --pending")
    with _ingester(options.workspace) as ingester:
        done = finish(ingester) if options.pending else [forget(ingester, options.unit)]
    for item in done:
        _print_forgotten(item)
    if not done:
        print("nothing is pending")
    return int(any(item.unsealed for item in done))


def _print_forgotten(item: Forgotten) -> None:
    if item.events or item.segments or item.files or item.states or item.removed:
        print(
            f"{item.events:,} events taken out of the store; rewrote {item.segments} segments and "
            f"{item.files} archived files"
        )
    elif not (item.unsealed or item.left):
        print("nothing of this unit was found")
    else:
        print("nothing of this unit was found that can be taken out now")
    for name in item.states:
        print(f"override removed\t{name}\ttake it out of the file you publish from, too")
    for path in item.removed:
        print(f"deleted\t{path}\tan old store that was set aside")
    for path in item.unsealed:
        print(f"pending\t{path}\tis still being written; run `abkit forget --pending` once sealed")
    for path in item.left:
        print(f"left\t{path}\tthe same characters occur in it, perhaps within a longer name")


def _workspace(path: Path) -> Workspace:
    """The workspace, which must be there already.

    Raises:
        ConfigError: it is not, or DuckDB is not installed.
    """
    from abkit.workspace import Workspace

    if not (path / "log").is_dir():
        raise ConfigError(f"no workspace {str(path)!r}: it has no log")
    workspace = Workspace(path)
    workspace.create()
    return workspace


@contextlib.contextmanager
def _ingester(path: Path) -> Iterator[Ingester]:
    from abkit.store.ingest import Ingester

    with Ingester(_workspace(path)) as ingester:
        yield ingester


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int], object]]:
    """A line on the terminal that counts; silent where nobody sees it."""
    if not sys.stderr.isatty():
        yield lambda _number: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.completed:,} " + what), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda number: bar.advance(task, number)
