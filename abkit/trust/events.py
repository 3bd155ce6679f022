"""Looks at the log, the store and the archive of a workspace."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Final

from abkit.errors import AbkitError
from abkit.log import living
from abkit.records import counted
from abkit.trust.files import AHEAD_SECONDS, named, size, told_age
from abkit.trust.patient import Patient, check

if TYPE_CHECKING:
    from abkit.check import Check

HUNG_SECONDS: Final = 900.0
BUSY_SECONDS: Final = 60.0
LAG_SECONDS: Final = 60.0
SKEW_SECONDS: Final = 300.0
DROPPED: Final = 0.001
_COPIED_BYTES: Final = 512_000_000


def _touched(folder: Path) -> float | None:
    """When a writer last wrote to its newest segment; None without one."""
    newest = max(folder.glob("*.open"), default=None) or max(folder.glob("*.seg"), default=None)
    try:
        return None if newest is None else newest.stat().st_mtime
    except OSError:
        return None


def writers(patient: Patient) -> list[Check]:
    """Writers that live, and those that hang."""
    log = patient.workspace.log_path
    folders = [item for item in sorted(log.glob("[!.]*")) if item.is_dir()] if log.is_dir() else []
    alive = living(log)
    ages = {
        item.name: patient.now - touched
        for item in folders
        if item.name in alive and (touched := _touched(item)) is not None
    }
    busy = [name for name, age in ages.items() if age <= BUSY_SECONDS]
    hung = [f"{name} ({told_age(age)})" for name, age in ages.items() if age > HUNG_SECONDS]
    dead = len(folders) - len(alive & {item.name for item in folders})
    text = f"{len(alive)} alive, {dead} ended"
    if hung and busy:
        text += f"; silent while others write: {named(hung)}"
    return [
        check(
            "writers",
            "warn" if hung and busy else "info",
            text,
            alive=len(alive),
            ended=dead,
            silent=len(hung),
        )
    ]


def accounts(patient: Patient) -> list[Check]:
    """What became of all events: waiting, dropped, quarantined, unexplained."""
    from abkit.store.reader import StoreReader  # noqa: PLC0415 - needs DuckDB
    from abkit.store.reconcile import reconcile  # noqa: PLC0415 - the same

    total = reconcile(patient.path).total
    reader = StoreReader(patient.path)
    reasons: dict[str, int] = {}
    try:
        published = reader.published().replace(tzinfo=UTC).timestamp()
        for row in reader.losses():
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + int(row["count"])
    except AbkitError as error:
        text = f"{total.waiting:,} events wait, and nothing is published ({error})"
        lag = check("ingestion_lag", "warn" if total.waiting else "info", text)
    else:
        lag = _lag(total.waiting, patient.now - published)
    many = total.dropped > DROPPED * max(1, total.accepted)
    why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(reasons.items()))
    text = f"{total.dropped:,} of {total.accepted:,} events" + (f" ({why})" if why else "")
    dropped = check(
        "drops",
        "warn" if many else "info",
        text,
        dropped=total.dropped,
        accepted=total.accepted,
        reasons=reasons,
    )
    bad = total.quarantined + total.unexplained
    text = f"{total.quarantined:,} events quarantined, {total.unexplained:,} unexplained"
    return [
        lag,
        dropped,
        check(
            "quarantine",
            "warn" if bad else "info",
            text,
            quarantined=total.quarantined,
            unexplained=total.unexplained,
        ),
    ]


def _lag(waiting: int, age: float) -> Check:
    late = waiting > 0 and age > LAG_SECONDS
    text = f"{waiting:,} events wait; the store was published {told_age(age)} ago"
    return check(
        "ingestion_lag", "warn" if late else "info", text, waiting=waiting, age_seconds=age
    )


def clocks(patient: Patient) -> list[Check]:
    """Writers whose clock is not that of the others."""
    from abkit.store.reader import StoreReader  # noqa: PLC0415 - needs DuckDB

    found = StoreReader(patient.path).writers()
    log = patient.workspace.log_path
    alive = living(log)
    ahead, off = [], []
    for item in found:
        if item.last_event is None:
            continue
        last = item.last_event.replace(tzinfo=UTC).timestamp()
        if last > patient.now + AHEAD_SECONDS:
            ahead.append(f"{item.writer} ({told_age(last - patient.now)})")
            continue
        touched = _touched(log / item.writer) if item.writer in alive else None
        # What was written after the last event that was loaded is not known here.
        if touched is not None and last - touched > SKEW_SECONDS:
            off.append(f"{item.writer} ({told_age(last - touched)})")
    told = [f"events from the future: {named(ahead)}"] if ahead else []
    told += [f"events later than their file: {named(off)}"] if off else []
    text = "; ".join(told) or f"{counted(len(found), 'writer')} within a minute of this clock"
    return [check("clock_skew", "warn" if told else "info", text, ahead=len(ahead), off=len(off))]


def store(patient: Patient) -> list[Check]:
    """DuckDB's file, and the published one."""
    return [_main_file(patient), _published(patient)]


def _main_file(patient: Patient) -> Check:
    from abkit.store.connect import SCHEMA_VERSION, STORE, store_files  # noqa: PLC0415 - DuckDB

    path = patient.workspace.store_path / STORE
    files = store_files(path)
    if path not in files:
        return check("store", "info", "no store yet; the controller makes one of the log")
    held = sum(item.stat().st_size for item in files)
    if patient.controlled:
        return check("store", "info", f"{size(held)}, in use by the controller", bytes=held)
    if held > _COPIED_BYTES:
        return check(
            "store", "info", f"{size(held)}, too large to look at beside its use", bytes=held
        )
    try:
        version = _version(files)
    except Exception as error:  # noqa: BLE001 - DuckDB raises whatever a damaged file makes of it
        line = str(error).partition("\n")[0]
        return check("store", "warn", f"{STORE} cannot be read: {line}", bytes=held)
    if version is None or version > SCHEMA_VERSION:
        return check(
            "store",
            "warn",
            f"its schema is version {version}, this abkit reads up to {SCHEMA_VERSION}",
            version=version,
        )
    text = f"{size(held)}, schema version {version} of {SCHEMA_VERSION}"
    return check("store", "info", text, bytes=held, version=version)


def _version(files: list[Path]) -> int | None:
    """Version of a store, from a copy: no reader may ever be in its writer's way."""
    import duckdb  # noqa: PLC0415 - an extra

    with tempfile.TemporaryDirectory(prefix="abkit-doctor-") as folder:
        for item in files:
            shutil.copyfile(item, Path(folder) / item.name)
        path = Path(folder) / min((item.name for item in files), key=len)
        with duckdb.connect(path, config={"autoinstall_known_extensions": "false"}) as connection:
            row = connection.execute(
                "SELECT value FROM meta WHERE key = 'schema_version'"
            ).fetchone()
            for table in ("exposure", "outcome", "decision", "watermark", "loss", "gap"):
                connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 - ours
        return None if row is None else int(row[0])


def _published(patient: Patient) -> Check:
    from abkit.store.overview import published_path, read_overview  # noqa: PLC0415 - DuckDB

    if not published_path(patient.path).exists():
        return check("store", "info", "nothing is published for readers yet")
    try:
        found = read_overview(patient.path)
    except AbkitError as error:
        return check("store", "warn", f"readers see nothing: {error}")
    return check(
        "store",
        "info",
        f"published {told_age(patient.now - found.published)} ago",
        published=found.published,
    )


def archive(patient: Patient) -> list[Check]:
    """The archive's manifest and files."""
    from abkit.store.archive import Archive  # noqa: PLC0415 - DuckDB

    found = Archive(patient.path)
    try:
        manifest = found.manifest()
    except AbkitError as error:
        return [check("archive", "block", str(error))]
    if not manifest.files:
        return [check("archive", "info", "nothing is archived")]
    bad = [name for name in manifest.files if not (found.path / name).is_file()]
    if patient.is_deep and not bad:
        bad = found.damaged_files()
    if bad:
        return [check("archive", "block", f"missing or damaged: {named(bad)}", files=len(bad))]
    rows = sum(item.rows for item in manifest.files.values())
    how = "every byte as archived" if patient.is_deep else "all there (--deep reads them)"
    text = f"{rows:,} events in {counted(len(manifest.files), 'file')}, {how}"
    return [check("archive", "info", text, files=len(manifest.files), events=rows)]
