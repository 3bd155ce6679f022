"""Whether a trail is as it was written, and where it is not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from abkit.errors import ConfigError
from abkit.trail import files
from abkit.trail.lines import FIRST, Head, Keys, Line, parse
from abkit.trail.state import kind_of, mark_of, state_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from abkit.trail.state import Item


@dataclass(slots=True)
class Finding:
    """What a check of a trail has found.

    Args:
        head: count and hash of what is there; None for an empty trail.
        keyed: whether lines are signed, so that tampering shows and not only accidents.
        problems: what was changed, removed, moved, forged or cut, and where.
        gaps: moves without a line; no tampering, but nobody can tell.
        heads: how many heads kept elsewhere it was compared with.
    """

    head: Head | None = None
    keyed: bool = False
    problems: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    heads: int = 0

    @property
    def passed(self) -> bool:
        """Whether the trail is as it was written."""
        return not self.problems


@dataclass(slots=True)
class _Walk:
    """How far the check has got."""

    keys: Keys
    unkeyed_allowed: int
    finding: Finding
    last: Line | None = None
    odd: list[tuple[int, bytes]] = field(default_factory=list)
    macs: dict[int, str] = field(default_factory=dict)
    newest: dict[tuple[str, str], object] = field(default_factory=dict)


def verify(
    workspace: str | os.PathLike[str],
    *,
    keys: Keys | None = None,
    heads: Iterable[Head] = (),
    items: Iterable[Item] = (),
    unkeyed_allowed: int = 0,
) -> Finding:
    """Check every line of a trail.

    Args:
        workspace: the workspace folder.
        keys: those of the environment by default.
        heads: heads that are kept elsewhere.
        items: rollouts, experiments, layers and holdouts as they are stored.
        unkeyed_allowed: so many lines at the beginning may be from before there was a key.

    Raises:
        ConfigError: lines are signed, and there is no key to check them with.
        StoreError: the file cannot be read.
    """
    folder, known = Path(workspace), list(heads)
    found = Keys.find(folder) if keys is None else keys
    content = files.whole(folder)
    walk = _Walk(found, unkeyed_allowed, Finding(keyed=bool(found), heads=len(known)))
    *lines, torn = content.split(b"\n")
    for number, raw in enumerate(lines, start=1):
        _step(walk, number, raw)
    _tell_odd(walk, is_between=False)
    if torn:
        walk.finding.problems.append(
            f"line {len(lines) + 1} is cut short: a crash in mid-write, which the next line will "
            "note, or a cut tail"
        )
    last = walk.last
    walk.finding.head = None if last is None else Head(last.entry.sequence, last.mac)
    _compare_heads(walk, known)
    _compare_items(walk, items)
    return walk.finding


def _step(walk: _Walk, number: int, raw: bytes) -> None:
    line = parse(raw)
    if line is None:
        walk.odd.append((number, raw))
        return
    problems = walk.finding.problems
    entry, last = line.entry, walk.last
    genuine = _check_mac(walk, number, line)
    count, prev = (0, FIRST) if last is None else (last.entry.sequence, last.mac)
    if walk.odd:
        is_explained = (
            genuine
            and len(walk.odd) == 1
            and hashlib.sha256(walk.odd[0][1]).hexdigest() == entry.torn
            and line.prev == prev
        )
        if is_explained:
            walk.finding.gaps.append(f"line {walk.odd[0][0]}: a crash left a line unfinished")
            walk.odd.clear()
        else:
            follows = line.prev == prev
            count += 0 if follows else len(walk.odd)
            _tell_odd(walk, is_between=follows)
            prev = line.prev
    elif entry.torn:
        problems.append(f"line {number}: the unfinished line before it was removed")
    if entry.sequence > count + 1:
        problems.append(
            f"line {number}: entries {count + 1} to {entry.sequence - 1} before it were removed"
        )
    elif entry.sequence <= count:
        problems.append(f"line {number}: entry {entry.sequence} is out of order, or twice there")
    elif line.prev != prev:
        problems.append(f"line {number} does not follow from the line before it")
    walk.last = line
    walk.macs[entry.sequence] = line.mac
    walk.newest[entry.kind, entry.key] = mark_of(entry.after)
    if entry.verb == "gap":
        walk.finding.gaps.append(f"line {number}: {entry.kind} {entry.key}: {entry.reason}")


def _check_mac(walk: _Walk, number: int, line: Line) -> bool:
    """Whether the line carries a right MAC; what is wrong with it is told."""
    told = ""
    if line.key_id and not walk.keys:
        raise ConfigError(
            f"line {number} of the trail is signed, and there is no key to check it with; set "
            "ABKIT_AUDIT_KEY or ABKIT_AUDIT_KEY_FILE"
        )
    if line.key_id and line.key_id not in walk.keys:
        told = f"line {number} is signed with another key ({line.key_id})"
    elif walk.keys.mac(line.body, line.key_id) != line.mac:
        told = f"line {number} was changed"
    elif walk.keys and not line.key_id and number > walk.unkeyed_allowed:
        told = f"line {number} is not signed; anybody may have written it"
    if told:
        walk.finding.problems.append(told)
    return not told


def _tell_odd(walk: _Walk, *, is_between: bool) -> None:
    """Tell of lines that are none of ours; the chain may go on around them."""
    for number, _ in walk.odd:
        how = "was put in between" if is_between else "was changed or damaged"
        walk.finding.problems.append(f"line {number} {how}: it is no entry")
    walk.odd.clear()


def _compare_heads(walk: _Walk, heads: list[Head]) -> None:
    count = 0 if walk.finding.head is None else walk.finding.head.count
    for head in heads:
        if head.count > count:
            walk.finding.problems.append(
                f"the tail is cut: {head.source or 'a head'} knows {head.count} entries, "
                f"there are {count}"
            )
        elif head.count and walk.macs.get(head.count) != head.hash:
            walk.finding.problems.append(
                f"entry {head.count} is another than {head.source or 'a head'} knows: the trail "
                "was cut there or before, and written anew"
            )


def _compare_items(walk: _Walk, items: Iterable[Item]) -> None:
    for item in items:
        kind, mark = kind_of(item), mark_of(state_of(item))
        recorded = walk.newest.get((kind, item.key))
        if recorded != mark:
            walk.finding.gaps.append(
                f"{kind} {item.key} stands at {mark}, the trail knows {recorded or 'nothing'}: "
                "a line could not be written, or its file was changed by hand"
            )


def describe(finding: Finding) -> list[str]:
    """For reading."""
    count = 0 if finding.head is None else finding.head.count
    lines = [*finding.problems, *(f"gap: {gap}" for gap in finding.gaps)]
    word = "as written" if finding.passed else f"{len(finding.problems)} problems"
    lines.append(f"{count:,} entries, {word}, compared with {finding.heads} heads kept elsewhere")
    if finding.head is not None:
        lines.append(f"head: {finding.head.count} {finding.head.hash}")
    if not finding.keyed:
        lines.append("unkeyed: shows accidents, not tampering; set ABKIT_AUDIT_KEY")
    return lines
