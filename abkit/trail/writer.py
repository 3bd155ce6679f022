"""The writing end of the trail; the caller holds the lock of the workspace."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import AbkitError, ConfigError
from abkit.rollout import Rollout
from abkit.snapshot import write_atomically
from abkit.trail import files
from abkit.trail.lines import FIRST, HEAD_VARIABLE, Entry, Head, Keys, Line
from abkit.trail.state import Change, kind_of, mark_of, state_of, verb_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_LOG = logging.getLogger("abkit")
# Under this name heads stand among the decisions of the event log; no rollout can have it.
AUDIT: Final = "_audit"
HEAD_SCHEMA: Final = "abkit.audit-head/v1"


class Trail:
    """Appends to the trail of one workspace.

    Args:
        workspace: the workspace folder.
        clock: seconds since 1970 in UTC.
        keeps_head: whether the head goes to the file that ABKIT_AUDIT_HEAD names.
    """

    def __init__(
        self, workspace: Path, *, clock: Callable[[], float], keeps_head: bool = True
    ) -> None:
        """Remember where it is; nothing is opened."""
        self._keeps_head = keeps_head
        self._workspace = workspace
        self._clock = clock
        self._known: dict[tuple[str, str], Any] = {}
        self._told = ""

    def check(self) -> None:
        """Refuse what cannot be written down, before it is done.

        Raises:
            ConfigError: the key cannot be used.
            StoreError: the file cannot be opened.
        """
        Keys.find(self._workspace)
        with files.opened(self._workspace):
            pass

    def record(self, changes: Iterable[Change], *, snapshot: int, now: float | None = None) -> bool:
        """Write a line for each change that moved something, and for what has none. Never raises.

        Args:
            changes: what has been moved, oldest first.
            snapshot: version of the snapshot that it led to.
            now: when, in seconds since 1970 in UTC; by the clock by default.

        Returns:
            False if it could not be written: the gap is told with the next line that can be.
        """
        try:
            self._record(list(changes), snapshot, now)
        except Exception as error:  # noqa: BLE001 - what was done stands, whatever this is
            self._tell(f"the audit trail could not be written, and has a gap: {error}")
            return False
        self._told = ""
        return True

    def mend(self, items: Iterable[Rollout | Any], *, snapshot: int) -> bool:
        """Write a line for each thing whose last move has none. Never raises.

        Args:
            items: rollouts, experiments, layers and holdouts as they are stored.
            snapshot: version of the snapshot that serving has.
        """
        moved = [item for item in items if self._is_news(item)]
        return not moved or self.record((Change(item, item) for item in moved), snapshot=snapshot)

    def head(self) -> Head | None:
        """Count and hash of what is written; None before the first line, or if it is damaged."""
        if not (self._workspace / files.LOG).is_file():
            return None
        try:
            with files.opened(self._workspace) as handle:
                line, _ = files.tail(handle)
        except (AbkitError, OSError):
            return None
        return None if line is None else Head(line.entry.sequence, line.mac)

    def _is_news(self, item: Any) -> bool:
        """Whether this process does not know that the item is recorded as it stands."""
        if isinstance(item, Rollout):
            mark: Any = item.version
        else:
            mark = mark_of(state_of(item))
        return bool(self._known.get((kind_of(item), item.key)) != mark)

    def _record(self, changes: list[Change], snapshot: int, now: float | None) -> None:
        keys = Keys.find(self._workspace)
        with files.opened(self._workspace) as handle:
            last, torn = files.tail(handle)
            made: list[Entry] = []
            for change in changes:
                made += self._entries(handle, change, snapshot, made)
            is_torn = bool(torn) and (last is None or not torn.startswith(last.body))
            if not made and not is_torn:
                return
            if not made:
                made = [_entry("gap", "trail", "log", reason="an unfinished line")]
            when = self._clock() if now is None else now
            note = hashlib.sha256(torn).hexdigest() if is_torn else ""
            content, mac = _chained(keys, made, last, torn=note, now=when)
            content = b"\n" + content if torn else content
            files.append(handle, content)
            count = (0 if last is None else last.entry.sequence) + len(made)
            if self._keeps_head:
                _keep_head(handle, Head(count, mac), when)

    def _entries(
        self, handle: int, change: Change, snapshot: int, made: list[Entry]
    ) -> list[Entry]:
        """The line of a change, and before it one for what was moved without a line."""
        kind, key = kind_of(change.after), change.after.key
        before, after = state_of(change.before), state_of(change.after)
        newest = next((e for e in reversed(made) if (e.kind, e.key) == (kind, key)), None)
        if newest is None:
            line = files.last_of(handle, kind, key)
            newest = None if line is None else line.entry
        recorded = None if newest is None else newest.after
        found = []
        if mark_of(recorded) != mark_of(before):
            actor, reason = _said(change.before)
            found.append(
                _entry(
                    *("gap", kind, key, recorded, before),
                    actor=actor,
                    reason=f"no line was written for it: {reason}" if reason else "no line for it",
                    snapshot=snapshot,
                )
            )
        if mark_of(before) != mark_of(after):
            actor, reason = _said(change.after)
            found.append(
                _entry(
                    *(verb_of(change), kind, key, before, after),
                    actor=change.actor or actor,
                    reason=change.reason or reason,
                    decision_id=change.decision_id,
                    snapshot=snapshot,
                )
            )
        self._known[kind, key] = mark_of(after)
        return found

    def _tell(self, message: str) -> None:
        self._known.clear()  # what was thought to be written may not be
        if message != self._told:  # a full disk is told once, and not at each tick
            self._told = message
            _LOG.warning(message)


def _entry(
    verb: str,
    kind: str,
    key: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Entry:
    """An entry that has no number and no time yet."""
    rest.setdefault("actor", "abkit")
    return Entry(0, 0.0, **rest, verb=verb, kind=kind, key=key, before=before, after=after)


def _said(item: Any) -> tuple[str, str]:
    """Who moved a rollout last, and why: its state file knows."""
    return (item.actor, item.reason) if isinstance(item, Rollout) else ("", "")


def _chained(
    keys: Keys, made: list[Entry], last: Line | None, *, torn: str, now: float
) -> tuple[bytes, str]:
    """The lines of some entries, and the MAC of the last."""
    sequence, prev = (0, FIRST) if last is None else (last.entry.sequence, last.mac)
    content = b""
    for number, entry in enumerate(made, start=1):
        data = entry.to_dict() | {"sequence": sequence + number, "time": now}
        data["torn"] = torn if number == 1 else ""
        line, prev = keys.sealed(Entry(**data), prev)
        content += line
    return content, prev


def read_head(path: Path) -> Head:
    """The head that a file keeps.

    Raises:
        ConfigError: it holds none.
    """
    try:
        data = json.loads(path.read_bytes())
        count, mac = data["count"], data["hash"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"the head file {path} cannot be read: {error}") from None
    if data.get("schema") != HEAD_SCHEMA or not isinstance(count, int) or not isinstance(mac, str):
        raise ConfigError(f"the head file {path} holds no head of an audit trail")
    return Head(count, mac, f"the head file {path.name}")


def head_record(head: Head, now: float) -> dict[str, Any]:
    """A head as plain data."""
    return {"schema": HEAD_SCHEMA, "count": head.count, "hash": head.hash, "time": now}


def _keep_head(handle: int, head: Head, now: float) -> None:
    """Write the head to the file that the environment names, if it follows from what is there."""
    name = os.environ.get(HEAD_VARIABLE, "")
    if not name:
        return
    path = Path(name)
    try:
        if path.exists():
            kept = read_head(path)
            line = files.last_with(handle, b'{"sequence":%d,' % kept.count)
            if line is None or line.mac != kept.hash:
                _LOG.warning(
                    "the audit trail does not go on from the head in %s, which stays as it is; "
                    "`abkit audit verify` says more",
                    path,
                )
                return
        write_atomically(path, json.dumps(head_record(head, now)).encode())
    except (AbkitError, OSError) as error:
        _LOG.warning("the head of the audit trail could not be kept in %s: %s", path, error)
