"""What still has to be delivered to one target: a folder, so that a restart loses nothing."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from abkit.integrations.notices import Notice
from abkit.snapshot import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

MOST_WAITING: Final = 1_000
_DAMAGE: Final = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError),
    *(OverflowError, RecursionError),
)
"""What reading a file of another form raises."""
_LOG = logging.getLogger("abkit")


@dataclass(slots=True)
class Waiting:
    """A message that has not arrived yet.

    Args:
        notice: the message.
        since: when it was put here, in seconds since 1970 in UTC.
        attempts: how often it was tried.
        error: why the last attempt failed.
        due: when to try next, on a clock that never jumps; at once after a restart.
    """

    notice: Notice
    since: float
    attempts: int = 0
    error: str = ""
    due: float = 0.0

    def to_bytes(self) -> bytes:
        """The file of it."""
        data = {
            "notice": self.notice.to_dict(),
            "since": self.since,
            "attempts": self.attempts,
            "error": self.error,
        }
        return json.dumps(data, indent=1).encode("ascii")


@dataclass(slots=True)
class Status:
    """What became of the messages to one target.

    Args:
        delivered: messages that arrived.
        given_up: messages that never did.
        last_delivered: id of the newest that arrived, and when.
        last_error: of the newest attempt that failed, and when.
    """

    delivered: int = 0
    given_up: int = 0
    last_delivered: dict[str, Any] = field(default_factory=dict)
    last_error: dict[str, Any] = field(default_factory=dict)


class Outbox:
    """The messages for one target. Any thread may use it.

    Args:
        folder: of all outboxes of a workspace.
        name: of the target.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Read what an earlier process left."""
        self.folder = folder / "outbox" / name
        self.failed_folder = folder / "failed" / name
        self._status_path = folder / f"{name}.status.json"
        self._lock = threading.Lock()
        self._waiting = read_waiting(self.folder)
        self.status = read_status(self._status_path)

    def waiting(self) -> list[Waiting]:
        """What waits: what is urgent first, then the oldest."""
        with self._lock:
            found = list(self._waiting.values())
        return sorted(found, key=lambda item: (not item.notice.is_urgent, item.notice.time))

    def put(self, notice: Notice, *, now: float, instead: list[Notice]) -> bool:
        """Take a message; in memory alone where the disk refuses.

        Args:
            notice: the message.
            now: seconds since 1970 in UTC.
            instead: messages that need not be delivered any more.

        Returns:
            False if too many wait already, and this one is not urgent.
        """
        with self._lock:
            for old in instead:
                self._drop(old)
            if notice.id in self._waiting:
                return True
            if len(self._waiting) >= MOST_WAITING and not notice.is_urgent:
                self.status.given_up += 1
                return False
            item = Waiting(notice, since=now)
            self._waiting[notice.id] = item
            self._write(self.folder, item)
        return True

    def done(self, item: Waiting, *, now: float) -> None:
        """It has arrived."""
        with self._lock:
            self._drop(item.notice)
            self.status.delivered += 1
            self.status.last_delivered = {"id": item.notice.id, "time": now}
            self._write_status()

    def failed(self, item: Waiting, error: str, *, now: float, is_over: bool) -> None:
        """It has not arrived; if it is over, it moves where a person may look for it."""
        with self._lock:
            item.attempts, item.error = item.attempts + 1, error
            self.status.last_error = {"id": item.notice.id, "time": now, "error": error}
            if is_over:
                self.status.given_up += 1
                self._write(self.failed_folder, item)
                self._drop(item.notice)
            elif item.notice.id in self._waiting:
                self._write(self.folder, item)
            self._write_status()

    def _drop(self, notice: Notice) -> None:
        self._waiting.pop(notice.id, None)
        try:
            (self.folder / notice.file_name).unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("a message that is done stays in %s: %s", self.folder, error)

    def _write(self, folder: Path, item: Waiting) -> None:
        try:
            for made in (folder.parent.parent, folder.parent, folder):  # parents=True gives no mode
                made.mkdir(mode=0o700, exist_ok=True)
            write_atomically(folder / item.notice.file_name, item.to_bytes())
        except OSError as error:
            _LOG.warning("a message is kept in memory alone: %s", error)

    def _write_status(self) -> None:
        data = {name: getattr(self.status, name) for name in Status.__slots__}
        try:
            self._status_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._status_path, json.dumps(data).encode(), is_durable=False)
        except OSError as error:
            _LOG.warning("the state of deliveries is not kept: %s", error)


def read_waiting(folder: Path) -> dict[str, Waiting]:
    """What a folder holds; files that are damaged are left out."""
    found: dict[str, Waiting] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            data = json.loads(path.read_bytes())
            notice = Notice.from_dict(data["notice"])
            item = Waiting(notice, float(data["since"]), int(data["attempts"]), str(data["error"]))
        except _DAMAGE as error:
            _LOG.warning("a message in %s cannot be read: %s", path.name, error)
            continue
        found[notice.id] = item
    return found


def read_status(path: Path) -> Status:
    """What a status file holds; zeros where there is none."""
    try:
        data = json.loads(path.read_bytes())
        return Status(
            int(data["delivered"]),
            int(data["given_up"]),
            dict(data["last_delivered"]),
            dict(data["last_error"]),
        )
    except _DAMAGE:
        return Status()
