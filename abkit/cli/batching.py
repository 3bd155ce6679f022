"""What `abkit batch` does, and how it says so."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError, TransitionError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from abkit.batch import Database, Model, Validation
    from abkit.workspace import Workspace


def explained(run: Callable[[Any], int]) -> Callable[[Any], int]:
    """The same, with what DuckDB objects to in one line."""

    def guarded(options: Any) -> int:
        import duckdb

        try:
            return run(options)
        except duckdb.Error as error:
            line = str(error).strip().partition("\n")[0]
            raise ConfigError(f"DuckDB cannot do that in {options.database}: {line}") from error

    return guarded


def _database(options: argparse.Namespace) -> Database:
    from abkit import batch

    return batch.Database(options.database, wait_seconds=options.wait)


def _workspace(path: Path) -> Workspace:
    from abkit.workspace import Workspace

    if not path.is_dir():
        raise ConfigError(f"no workspace {str(path)!r}; `abkit rollout start` makes one")
    return Workspace(path)


def assign(options: argparse.Namespace) -> int:
    """Assign a table."""
    from abkit import batch

    workspace = _workspace(options.workspace)
    with _progress("exposures") as progress:
        done = batch.assign(
            _database(options),
            options.table,
            unit=options.unit,
            experiment=options.experiment,
            workspace=workspace,
            run=options.run_name,
            log=not options.no_log,
            progress=lambda n: progress(n, None),
        )
    counts = [
        {"variant": variant, "reason": reason, "entities": n}
        for (variant, reason), n in done.counts.items()
    ]
    if options.json:
        return _print({**asdict(done), "counts": counts})
    print(
        f"run {done.run}, experiment {done.experiment}, epoch {done.epoch}: {done.rows:,} "
        f"entities, {done.added:,} assigned now, {done.logged:,} exposures logged; see {done.view}"
    )
    for row in counts:
        print(f"{row['variant']}\t{row['reason']}\t{row['entities']:,}")
    return 0


def score(options: argparse.Namespace) -> int:
    """Score a table."""
    from abkit import batch

    files = options.model_file
    model = batch.load_model(options.model, options.model_version, files)
    with _progress("rows") as progress:
        done = batch.score(
            _database(options),
            options.table,
            name=options.name,
            unit=options.unit,
            model=model,
            run=options.run_name,
            variants=dict(_named_model(text, files) for text in options.variant),
            shadow=None if options.shadow is None else _named_model(options.shadow, files),
            features=None if options.features is None else options.features.split(","),
            chunk_rows=options.chunk,
            use_cache=not options.no_cache,
            again=options.again,
            restart=options.restart,
            progress=progress,
        )
    if options.json:
        return _print(asdict(done))
    if done.existed:
        print(f"{done.name} version {done.version} is there: this run made it; --again repeats it")
        return 0
    resumed = f", {done.resumed:,} by the interrupted job" if done.resumed else ""
    print(
        f"{done.name} version {done.version}: {done.rows:,} entities; of the feature rows "
        f"{done.asked:,} scored now, {done.cached:,} by the cache{resumed}; not live before "
        f"`abkit batch swap {options.database} {done.name}`"
    )
    return 0


def _named_model(text: str, files: list[Path]) -> tuple[str, Model]:
    from abkit import batch
    from abkit.metrics import check_name

    name, _, rest = text.partition("=")
    spec, _, version = rest.rpartition("@")
    if not spec:
        raise ConfigError(f"a variant's model is NAME=MODULE:FUNCTION@VERSION, got {text!r}")
    return check_name(name, "variant"), batch.load_model(spec, version, files)


def _checked(options: argparse.Namespace) -> Validation:
    from abkit import batch

    names = ("row_change", "nulls", "drift", "beyond", "mismatch")
    limits = batch.Limits(**{name: getattr(options, name) for name in names})
    return batch.validate(_database(options), options.name, options.version, limits=limits)


def _tell(checked: Validation) -> None:
    against = "no live version" if checked.against is None else f"version {checked.against}"
    print(f"{checked.name} version {checked.version}, beside {against}:")
    for item in checked.checks:
        print(f"{'ok' if item.passed else 'REFUSED'}\t{item.id}\t{item.text}")


def validate(options: argparse.Namespace) -> int:
    """Look at a version."""
    checked = _checked(options)
    if options.json:
        _print({**asdict(checked), "passed": checked.passed})
    else:
        _tell(checked)
    return int(not checked.passed)


def swap(options: argparse.Namespace) -> int:
    """Validate a version, and let readers see it."""
    from abkit import batch

    checked = _checked(options)
    if checked.against == checked.version:
        if options.json:
            return _print({"name": checked.name, "after": checked.version, "action": "none"})
        print(f"{checked.name}: version {checked.version} is live already")
        return 0
    if not options.json:
        _tell(checked)
    return _moved(
        options,
        lambda: batch.swap(
            _database(options),
            checked,
            actor=options.actor,
            reason=options.reason,
            force=options.force,
        ),
    )


def back(options: argparse.Namespace) -> int:
    """Let readers see the version before."""
    from abkit import batch

    return _moved(
        options,
        lambda: batch.back(
            _database(options), options.name, actor=options.actor, reason=options.reason
        ),
    )


def _moved(options: argparse.Namespace, move: Callable[[], Any]) -> int:
    try:
        done = move()
    except TransitionError as error:
        print(f"abkit: {error}", file=sys.stderr)
        return 1
    if options.json:
        return _print(asdict(done))
    before = "" if done.before is None else f", {done.before} before"
    print(f"{done.name}: version {done.after} is live{before}{', forced' if done.forced else ''}")
    return 0


def labels(options: argparse.Namespace) -> int:
    """Join labels."""
    from abkit import batch

    workspace = _workspace(options.workspace)
    with _progress("outcomes") as progress:
        done = batch.join_labels(
            _database(options),
            options.labels,
            name=options.name,
            entity=options.entity,
            label=options.label,
            metric=options.metric,
            workspace=workspace,
            value=options.value,
            threshold=options.threshold,
            run=options.run_name,
            version=options.version,
            time=options.time,
            progress=lambda n: progress(n, None),
        )
    if options.json:
        return _print(asdict(done))
    print(
        f"{done.labels:,} labels, {done.added:,} new outcomes, {done.logged:,} logged; "
        f"{done.unmatched:,} of entities without such a prediction, {done.changed:,} that differ "
        "from what was logged"
    )
    for arm in done.arms:
        share = arm.missing / arm.predictions if arm.predictions else 0.0
        delay = arm.median_delay_seconds
        late = "" if delay is None else f"; median delay {delay / 3600:.2f} h"
        missing = f"{arm.missing:,} missing ({share:.2%})"
        print(f"{arm.variant}\t{arm.labelled:,} labelled\t{missing}{late}")
    if done.missing_p_value is not None and done.missing_p_value < 0.001:
        print(
            f"labels are missing unlike by variant (p = {done.missing_p_value:.2g}): what comes "
            "of them cannot be trusted until that is understood"
        )
    return 0


def versions(options: argparse.Namespace) -> int:
    """List versions."""
    from abkit import batch

    found = batch.versions(_database(options), options.name)
    if options.json:
        return _print([asdict(item) for item in found])
    for item in found:
        models = ", ".join(f"{key}: {name} {v}" for key, (name, v, _) in item.models.items())
        mark = "live" if item.live else ""
        print(f"{item.name}\t{item.version}\t{item.rows:,}\t{_day(item.created)}\t{mark}\t{models}")
    return 0


def history(options: argparse.Namespace) -> int:
    """List swaps."""
    from abkit import batch

    found = batch.history(_database(options), options.name)
    if options.json:
        return _print([asdict(item) for item in found])
    for item in found:
        before = "-" if item.before is None else str(item.before)
        mark = " forced" if item.forced else ""
        print(
            f"{_day(item.time)}\t{item.action}{mark}\t{before} -> {item.after}\t{item.actor}\t"
            f"{item.reason}"
        )
    return 0


def _day(time: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def compare(options: argparse.Namespace) -> int:
    """Compare a shadow."""
    from abkit import batch

    found = batch.compare(_database(options), options.name, options.version)
    if options.json:
        return _print(asdict(found))
    low, high = found.interval
    print(
        f"{found.name} version {found.version}: {found.pairs:,} pairs, "
        f"{found.equal / found.pairs:.2%} equal; mean {found.mean:.6g}, shadow "
        f"{found.shadow_mean:.6g}, difference {found.difference:.6g} (95 %: {low:.6g} to "
        f"{high:.6g}), largest {found.largest:.6g}"
    )
    return 0


def cache(options: argparse.Namespace) -> int:
    """Say what the cache holds."""
    from abkit import batch

    database = _database(options)
    gone = batch.clear_cache(database) if options.clear else 0
    if options.limit is not None:
        gone += batch.limit_cache(database, options.limit)
    stats, limit = batch.cache_stats(database)
    if options.json:
        return _print({"limit": limit, "removed": gone, "models": [asdict(s) for s in stats]})
    print(f"{sum(item.entries for item in stats):,} of {limit:,} entries; {gone:,} removed now")
    for item in stats:
        share = item.hits / (item.hits + item.misses) if item.hits + item.misses else 0.0
        print(
            f"{item.model}\t{item.version}\t{item.entries:,} entries\t{item.hits:,} hits, "
            f"{item.misses:,} misses ({share:.2%})\tused {_day(item.used)}"
        )
    return 0


def _print(data: Any) -> int:
    print(json.dumps(data, indent=2))
    return 0


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int | None], object]]:
    """A bar on the terminal: told of a count and a total, or of more without one."""
    if not sys.stderr.isatty():
        yield lambda _number, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.completed:,} " + what), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(number: int, total: int | None) -> None:
            if total is None:
                bar.advance(task, number)
            else:
                bar.update(task, completed=number, total=total)

        yield show
