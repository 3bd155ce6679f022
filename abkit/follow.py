"""The follower: keeps a local snapshot file equal to a source, so that many hosts share one.

::

    follower = Follower("http://publisher:8300/v1/snapshot", "workspace/snapshot.json")
    follower.run(stop)

Serving processes read the local file and never the network. What a source sends is read whole and
checked before it replaces anything: a bad, slow or absent source leaves the last good file in
place, is counted, and is asked again after a jittered delay that doubles up to half a minute.

A source whose version is lower than that of the file in place holds a stale copy and is refused,
unless it was published later: then the publisher has lost its counter, as with a workspace that
was restored from a backup, and to refuse it would freeze the configuration, halts included.
`allow_older` takes what is refused.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from abkit.errors import AbkitError, ConfigError
from abkit.fetch import TIMEOUT_SECONDS, FileSource, open_source
from abkit.records import is_number
from abkit.snapshot import MAX_BYTES, Snapshot, write_atomically

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

Status = Literal["new", "same", "older", "bad", "unreachable", "unwritable"]

INTERVAL_SECONDS = 1.0
LEAST_SECONDS = 0.01
MAX_DELAY_SECONDS = 30.0
LEFT_BEHIND_SECONDS = 3600.0
MODES = (0o600, 0o640, 0o604, 0o644)
MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Poll:
    """What one look at the source came to.

    Args:
        changed: whether the local file was replaced.
        version: of the local file; 0 for none.
        checksum: of the local file; empty where no good one is in place.
        status: "new" or "same" as the source has it; "older", refused; "bad", no snapshot;
            "unreachable"; "unwritable", the local file could not be replaced.
        error: why it is none of the first two; empty for those.
    """

    changed: bool
    version: int
    checksum: str
    status: Status
    error: str


class _NotTakenError(Exception):
    """Why a poll left the local file as it was."""

    def __init__(self, status: Status, why: str | Exception) -> None:
        text = str(why)
        if not isinstance(why, (str, AbkitError)):
            # The system's words alone: with a name of one moment no two failures would be alike.
            text = f"{type(why).__name__}: {getattr(why, 'strerror', None) or why}"
        # One line of a log, whatever a server has put into it.
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        super().__init__(line[:MESSAGE_CHARACTERS])
        self.status: Status = status


class Follower:
    """Keeps a local snapshot file equal to a source.

    Two followers of one file do no harm: each sees what the other wrote, and both end with what
    the source has.

    Args:
        source: a path, an http:// or https:// address, or one that fsspec can open.
        target: the local file; its folder must exist.
        interval_seconds: between two looks at a source that answers.
        timeout_seconds: for a server's whole answer.
        token: bearer token for a server; empty for none. It stands in no message.
        mode: permissions of the files: 0o600, or more readers, such as 0o640 for a worker of
            another user in the same group.
        allow_older: take a lower version also where it was not published later.
        health_path: a small JSON file to write at each poll; its time says that the loop runs.
        report: takes one line whenever something changes.
        clock: seconds since 1970 in UTC, for the age.
        monotonic: seconds that never jump, for the time limits.
        jitter: spreads the delays of followers that met the same failure.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        token: str = "",
        mode: int = 0o600,
        allow_older: bool = False,
        health_path: str | os.PathLike[str] | None = None,
        report: Callable[[str], object] = lambda line: None,  # noqa: ARG005 - says nothing
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
    ) -> None:
        """Check the arguments; nothing is read, asked or written yet.

        Raises:
            ConfigError: an argument is not usable.
        """
        if not (is_number(interval_seconds) and interval_seconds >= LEAST_SECONDS):
            raise ConfigError(
                f"interval_seconds must be at least {LEAST_SECONDS}, got {interval_seconds!r}"
            )
        if mode not in MODES:
            known = ", ".join(f"{item:o}" for item in MODES)
            raise ConfigError(f"mode must be one of {known} (octal), got {mode:o}")
        self._source = open_source(
            source, token=token, timeout_seconds=timeout_seconds, monotonic=monotonic
        )
        self._target = Path(target)
        if isinstance(self._source, FileSource) and _is_same(self._source.path, self._target):
            raise ConfigError(f"source and target are the same file, {self._target}")
        self._interval_seconds = float(interval_seconds)
        self._mode = mode
        self._allow_older = allow_older
        self._health_path = None if health_path is None else Path(health_path)
        self._report = report
        self._clock = clock
        self._jitter = random.Random() if jitter is None else jitter
        self._held: Snapshot | None = None
        self._signature: tuple[int, ...] = ()
        self._tag = ("", "")  # checksum of a content, and what the source calls it
        self._errors = 0
        self._streak = 0
        self._last_error = ""
        self._health_error = ""

    def run(self, stop: threading.Event) -> None:
        """Poll until told to stop; no source and no disk makes it raise."""
        _sweep(self._target, self._clock() - LEFT_BEHIND_SECONDS)
        while not stop.is_set():
            self.poll()
            stop.wait(self.delay_seconds())

    def poll(self) -> Poll:
        """Look at the source once, and take what is new and good; never raises."""
        self._look()
        status: Status
        try:
            status, error = self._step(), ""
        except _NotTakenError as failure:
            status, error = failure.status, str(failure)
        self._count(status, error)
        version, checksum = (
            (0, "") if self._held is None else (self._held.version, self._held.checksum)
        )
        result = Poll(status == "new", version, checksum, status, error)
        self._write_health(result)
        return result

    def delay_seconds(self) -> float:
        """How long to wait before the next poll.

        After failures the interval doubles, up to half a minute, and a random part of up to one
        half is taken off, so that many followers do not come back in one instant.
        """
        if not self._streak:
            return self._interval_seconds
        most = max(self._interval_seconds, MAX_DELAY_SECONDS)
        longest = min(most, self._interval_seconds * 2.0 ** min(self._streak, 32))
        return longest * self._jitter.uniform(0.5, 1.0)

    def _step(self) -> Status:
        held = self._held
        checksum = "" if held is None else held.checksum
        # A snapshot server's ETag is the checksum: after a restart the first answer is short too.
        tag = self._tag[1] if self._tag[0] == checksum else f'"{checksum}"'
        try:
            content, fresh = self._source.fetch(tag if checksum else "")
        except Exception as error:  # noqa: BLE001 - fail static, whatever a server or driver does
            raise _NotTakenError("unreachable", error) from None
        if content is None:
            return "same"
        try:
            snapshot = Snapshot.from_bytes(content)
        except Exception as error:  # noqa: BLE001 - fail static: nothing but a snapshot is taken
            raise _NotTakenError("bad", error) from None
        self._look()  # somebody else may have replaced the file during the fetch
        held = self._held
        if held is not None and held.checksum == snapshot.checksum:
            self._tag = (snapshot.checksum, fresh)
            return "same"
        if held is not None:
            self._check_order(snapshot, held)
        try:
            write_atomically(self._target, content, mode=self._mode)
        except (OSError, ValueError) as error:
            raise _NotTakenError("unwritable", error) from None
        self._look()
        self._tag = (snapshot.checksum, fresh)
        return "new"

    def _check_order(self, snapshot: Snapshot, held: Snapshot) -> None:
        if snapshot.version >= held.version:
            return
        if snapshot.published > held.published or self._allow_older:
            self._report(
                f"the version goes back from {held.version} to {snapshot.version}: "
                + ("allowed" if self._allow_older else "taken, because it was published later")
            )
            return
        raise _NotTakenError(
            "older",
            f"the source holds version {snapshot.version}, published no later than version "
            f"{held.version} that is in place: refused as a stale copy; allow_older takes it",
        )

    def _look(self) -> None:
        """Read the local file, unless it is as it was when last seen."""
        try:
            status = os.lstat(self._target)
            signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            if signature == self._signature:
                return
            self._held, self._signature = None, ()
            # Never through a link: what is in place is a file of our own (S7).
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                return
            self._held = Snapshot.from_bytes(self._target.read_bytes())
            self._signature = signature
        except Exception:  # noqa: BLE001 - a bad file in place is what the next good one replaces
            self._held, self._signature = None, ()
            return
        if stat.S_IMODE(status.st_mode) != self._mode:  # an earlier follower had another
            with contextlib.suppress(OSError):
                self._target.chmod(self._mode)

    def _count(self, status: Status, error: str) -> None:
        held = self._held
        if not error:
            if status == "new" and held is not None:
                self._report(
                    f"version {held.version} ({held.checksum[:12]}) of {self._source.name} is in "
                    f"place as {self._target}"
                )
            elif self._last_error:
                self._report(f"{self._source.name} is well again")
            self._streak, self._last_error = 0, ""
            return
        self._errors += 1
        # A server that hands out a stale copy answers well: the next answer may be the right one.
        self._streak = 0 if status == "older" else self._streak + 1
        if error != self._last_error:
            keeps = "no file is in place" if held is None else f"version {held.version} stays"
            self._report(f"{self._source.name}: {status}: {error}; {keeps}")
        self._last_error = error

    def _write_health(self, result: Poll) -> None:
        if self._health_path is None:
            return
        now, held = self._clock(), self._held
        health = {
            "checked": now,
            "status": result.status,
            "version": result.version,
            "checksum": result.checksum,
            "age_seconds": None if held is None else max(0.0, now - held.published),
            "errors": self._errors,
            "errors_in_a_row": self._streak,
            "last_error": result.error,
        }
        failure = ""
        try:
            content = json.dumps(health, indent=1).encode()
            write_atomically(self._health_path, content, mode=self._mode, is_durable=False)
        except (OSError, ValueError) as error:
            failure = str(_NotTakenError("unwritable", error))
        if failure and failure != self._health_error:
            self._report(f"{self._health_path}: unwritable: {failure}")
        self._health_error = failure


def _sweep(target: Path, oldest: float) -> None:
    """Remove what followers that were killed while they wrote have left behind."""
    with contextlib.suppress(OSError, ValueError):
        for path in target.parent.glob(f".{glob.escape(target.name)}.*-*"):
            if path.lstat().st_mtime < oldest:
                path.unlink()


def _is_same(source: Path, target: Path) -> bool:
    try:
        return source.resolve() == target.resolve()
    except (OSError, ValueError, RuntimeError):  # nothing usable there yet
        return False
