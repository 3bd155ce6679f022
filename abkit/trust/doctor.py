"""`abkit doctor`: everything that can be wrong with a workspace, looked at without touching it.

Each look stands alone: where one cannot be taken, it says so and the others go on. Nothing is
written and no lock is kept, so it works beside a controller, and with the store locked, damaged
or gone.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from abkit.errors import AbkitError, ConfigError, MissingExtraError
from abkit.trust import events, files
from abkit.trust.patient import Patient, check
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abkit.check import Check


def diagnose(
    path: str | os.PathLike[str],
    *,
    is_deep: bool = False,
    clock: Callable[[], float] = time.time,
) -> list[Check]:
    """Look at everything that can be wrong with a workspace.

    Args:
        path: the workspace folder.
        is_deep: read every archived file and compare its hash.
        clock: seconds since 1970 in UTC.

    Returns:
        What was found, in a fixed order; several of one id where several things are wrong.

    Raises:
        ConfigError: the folder is no workspace.
    """
    folder = Path(path)
    if not folder.is_dir() or not _is_workspace(folder):
        raise ConfigError(
            f"no workspace {os.fspath(path)!r}: it has neither snapshot.json nor rollouts nor log; "
            "`abkit rollout start` makes one"
        )
    patient = Patient(Workspace(folder, clock=clock), clock(), _controlled(folder), is_deep)
    return [item for name, look in _looks() for item in _looked(name, look, patient)]


def _is_workspace(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("snapshot.json", "rollouts", "log", "store"))


def _looks() -> Iterator[tuple[str, Callable[[Patient], list[Check]]]]:
    """Every look, by the id that its failure is reported under."""
    yield "snapshot", files.snapshot
    yield "rollouts", files.rollouts
    yield "controller", files.controller
    yield "writers", events.writers
    yield "ingestion_lag", events.accounts
    yield "clock_skew", events.clocks
    yield "store", events.store
    yield "archive", events.archive
    yield "disk", files.disk
    yield "audit_trail", files.trail
    yield "outbox", files.outbox
    yield "permissions", files.permissions


def _looked(name: str, look: Callable[[Patient], list[Check]], patient: Patient) -> list[Check]:
    try:
        return look(patient)
    except (MissingExtraError, ModuleNotFoundError) as error:
        return [check(name, "info", f"not looked at: {error}")]
    except (AbkitError, OSError, ValueError) as error:
        return [check(name, "warn", f"could not be looked at: {error}")]


def _controlled(folder: Path) -> bool | None:
    """Whether another process leads the store; the lock is tried for an instant."""
    try:
        handle = os.open(folder / "ingest.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False
