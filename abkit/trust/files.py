"""Looks at the files of a workspace; the standard library suffices for them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import AbkitError, ConfigError
from abkit.records import counted
from abkit.trust.patient import Patient, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from abkit.check import Check
    from abkit.rollout import Rollout

SILENT_SECONDS: Final = 300.0  # without a look
WAITING_SECONDS: Final = 600.0  # of a message
LEAST_BYTES: Final = 100_000_000
FEW_BYTES: Final = 1_000_000_000
FEW_SHARE: Final = 0.1
FEW_DAYS: Final = 7.0
DAY_SECONDS: Final = 86_400.0
AHEAD_SECONDS: Final = 60.0
_MOST_FILES: Final = 20_000
_NAMED: Final = 3


def named(items: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def snapshot(patient: Patient) -> list[Check]:
    """The snapshot: there, whole, of now, and in accord with the state files."""
    workspace = patient.workspace
    rollouts, _ = patient.rollouts()
    owning = [item for item in rollouts if item.owns]
    try:
        found = workspace.snapshot()
    except AbkitError as error:
        return [check("snapshot", "block", f"{error}")]
    if found is None:
        stored = list((patient.path / "experiments").glob("*.json"))
        expected = len(owning) + len(stored)
        severity: Any = "block" if expected else "info"
        text = f"none was published, though there are {expected} experiments and rollouts"
        return [check("snapshot", severity, text if expected else "none was published yet")]
    age = patient.now - found.published
    told = f"version {found.version} with {counted(len(found.experiments), 'experiment')}"
    if age < -AHEAD_SECONDS:
        return [
            check(
                "snapshot",
                "warn",
                f"{told} was published {-age:,.0f} s in the future",
                age_seconds=age,
            )
        ]
    behind = [item.key for item in _newest(owning) if not _shown(item, found.experiments)]
    if behind:
        return [
            check(
                "snapshot",
                "warn",
                f"{told} is behind the state of {named(behind)}",
                version=found.version,
                behind=behind,
            )
        ]
    return [
        check(
            "snapshot",
            "info",
            f"{told}, published {told_age(age)} ago",
            version=found.version,
            age_seconds=age,
        )
    ]


def _newest(rollouts: list[Rollout]) -> list[Rollout]:
    """Of each experiment the rollout that speaks for it."""
    found: dict[str, Rollout] = {}
    for item in rollouts:
        other = found.get(item.experiment.key)
        if other is None or item.last_epoch > other.last_epoch:
            found[item.experiment.key] = item
    return list(found.values())


def _shown(rollout: Rollout, experiments: Any) -> bool:
    published = experiments.get(rollout.experiment.key)
    if published is None or published.epoch < rollout.experiment.epoch:
        return False
    if published.epoch > rollout.experiment.epoch:  # published without a rollout since
        return True
    return dict(published.weights) == dict(rollout.experiment.weights)


def told_age(seconds: float) -> str:
    """A span for reading.

    Examples:
        >>> told_age(42.0), told_age(7_300.0), told_age(300_000.0)
        ('42 s', '2.0 h', '3.5 days')
    """
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return (
        f"{seconds / 3600:.1f} h"
        if seconds < 2 * DAY_SECONDS
        else f"{seconds / DAY_SECONDS:.1f} days"
    )


def rollouts(patient: Patient) -> list[Check]:
    """Rollouts that wait for somebody."""
    items, damaged = patient.rollouts()
    found = (
        [check("rollouts", "block", f"damaged state files: {named(damaged)}")] if damaged else []
    )
    live = [item for item in items if item.live]
    for item in live:
        told = _waits(item, patient.now)
        if told:
            found.append(
                check("rollouts", "warn", f"{item.key} {told}", rollout=item.key, state=item.state)
            )
    if not found:
        text = f"{len(live)} live of {len(items)}, none waits for anybody"
        found.append(check("rollouts", "info", text, live=len(live)))
    return found


def _waits(item: Rollout, now: float) -> str:
    """Why a rollout needs a person; empty where it does not."""
    since = now - (item.changed or item.started or now)
    if item.state == "hold":
        return f"is on hold since {told_age(since)}: {item.reason}"
    if item.state == "ready":
        return f"is ready since {told_age(since)}, and waits for somebody to promote it"
    spent = now - (item.expires_from or now)
    if item.state != "bake" and spent > item.policy.max_seconds:
        allowed = told_age(item.policy.max_seconds)
        return f"is undecided for {told_age(spent)}, longer than its policy's {allowed}"
    if item.looks == 0 and since > SILENT_SECONDS:
        return f"is live for {told_age(since)}, and no look was taken"
    return ""


def controller(patient: Patient) -> list[Check]:
    """Whether one runs where it is needed."""
    live = [item.key for item in patient.rollouts()[0] if item.live]
    if patient.controlled is None:
        return [check("controller", "warn", "its lock cannot be opened, so nobody can tell")]
    if patient.controlled:
        return [check("controller", "info", "one runs, and holds ingest.lock", running=True)]
    if live:
        return [
            check(
                "controller",
                "block",
                f"none runs, while {named(live)} is live",
                running=False,
                live=live,
            )
        ]
    return [check("controller", "info", "none runs, and no rollout is live", running=False)]


def disk(patient: Patient) -> list[Check]:
    """Free space and growth."""
    total, _, free = shutil.disk_usage(patient.path)
    held = grown = 0
    for path in walk(patient.path):
        try:
            status = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            held += status.st_size
            grown += status.st_size if patient.now - status.st_mtime < DAY_SECONDS else 0
    days = free / grown if grown else None
    severity: Any = "info"
    if free < FEW_BYTES or free < FEW_SHARE * total or (days is not None and days < FEW_DAYS):
        severity = "block" if free < LEAST_BYTES else "warn"
    text = f"{size(free)} free of {size(total)}; the workspace holds {size(held)}"
    if days is not None:
        lasts = "more than a year" if days > 366 else f"{days:,.0f} days"
        text += f", {size(grown)} of it written in the last day: lasts {lasts}"
    return [
        check("disk", severity, text, free_bytes=free, held_bytes=held, day_bytes=grown, days=days)
    ]


def size(number: float) -> str:
    """Bytes for reading.

    Examples:
        >>> size(999), size(1_500_000)
        ('999 B', '1.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder, links not followed; the first 20,000 of it."""
    left = _MOST_FILES
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            left -= 1
            if left < 0:
                return
            yield type(folder)(base, name)


def trail(patient: Patient) -> list[Check]:
    """The audit trail, against the state files and its head in the event log."""
    from abkit.trail import AUDIT, Head, verify  # noqa: PLC0415 - a workspace may have none

    heads = []
    try:
        from abkit.store.reader import StoreReader  # noqa: PLC0415 - needs DuckDB

        records = StoreReader(patient.path).decisions(AUDIT)
        heads = [Head(int(r["count"]), str(r["hash"]), "the event log") for r in records]
    except (AbkitError, ModuleNotFoundError, KeyError, ValueError):
        pass  # without the store the chain itself can still be checked
    try:
        finding = verify(patient.path, heads=heads, items=patient.workspace.standing())
    except ConfigError as error:
        return [check("audit_trail", "warn", f"not verified: {error}")]
    count = 0 if finding.head is None else finding.head.count
    if finding.problems:
        return [
            check("audit_trail", "block", named(finding.problems), problems=len(finding.problems))
        ]
    if finding.gaps:
        return [check("audit_trail", "warn", named(finding.gaps), gaps=len(finding.gaps))]
    signed = "signed" if finding.keyed else "unsigned: accidents show, tampering does not"
    text = f"{counted(count, 'line')} as written ({signed})"
    return [check("audit_trail", "info", text, entries=count, heads=len(heads))]


def outbox(patient: Patient) -> list[Check]:
    """Messages that have not arrived."""
    folder = patient.path / "notify"
    waiting = sorted((folder / "outbox").glob("*/[!.]*.json"))
    failed = sorted((folder / "failed").glob("*/[!.]*.json"))
    ages = [patient.now - since for since in map(_since, waiting) if since is not None]
    oldest = max(ages, default=0.0)
    if not waiting and not failed:
        used = "nothing waits" if folder.is_dir() else "no notifications are set up"
        return [check("outbox", "info", used, waiting=0, failed=0)]
    late = oldest > WAITING_SECONDS
    text = f"{counted(len(waiting), 'message')} wait, the oldest for {told_age(oldest)}"
    text += f"; {counted(len(failed), 'message')} given up" if failed else ""
    return [
        check(
            "outbox",
            "warn" if late or failed else "info",
            text,
            waiting=len(waiting),
            failed=len(failed),
            oldest_seconds=oldest,
        )
    ]


def _since(path: Path) -> float | None:
    try:
        return float(json.loads(path.read_bytes())["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def permissions(patient: Patient) -> list[Check]:
    """Files that others may read, and links."""
    open_, links = [], []
    for path in (patient.path, *walk(patient.path)):
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue
        name = path.relative_to(patient.path).as_posix()
        if stat.S_ISLNK(mode):
            links.append(name)
        elif mode & 0o077:
            open_.append(f"{name} ({stat.S_IMODE(mode):o})")
    if not open_ and not links:
        return [check("permissions", "info", "everything is for its owner alone")]
    told = [f"open to others: {named(open_)}"] if open_ else []
    told += [f"symbolic links: {named(links)}"] if links else []
    return [check("permissions", "warn", "; ".join(told), open=len(open_), links=len(links))]
