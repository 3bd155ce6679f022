"""The trail: who moved what, when and why, one line per move, each bound to the line before.

`audit/log.jsonl` in the workspace is only ever appended to. Every line carries the MAC of the
line before and one over itself, so a line that is changed, removed, moved or forged shows. What
is cut off at the end shows where the head, count and hash, is kept elsewhere: in the event log,
and in the file that ABKIT_AUDIT_HEAD names.

The state files come first: a move stands although its line could not be written, and the next
line that can be is preceded by one with the verb "gap". This package is the standard library alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from abkit.errors import StoreError
from abkit.trail import files
from abkit.trail.lines import Entry, Head, Keys, parse
from abkit.trail.state import Change, event_of
from abkit.trail.verify import Finding, verify
from abkit.trail.writer import AUDIT, Trail, head_record, read_head

if TYPE_CHECKING:
    import os

__all__ = [
    "AUDIT",
    "Change",
    "Entry",
    "Finding",
    "Head",
    "Keys",
    "Trail",
    "entries",
    "event_of",
    "head_record",
    "read_head",
    "verify",
]


def entries(
    workspace: str | os.PathLike[str], *, rollout: str | None = None, after: int = 0
) -> list[Entry]:
    """The moves of a workspace, oldest first; lines that are damaged are left out.

    Nothing is verified here: that needs the key, and is what `verify` does.

    Args:
        workspace: the workspace folder.
        rollout: the moves of this one alone.
        after: leave out what has this sequence number or a lower one.
    """
    try:
        content = files.whole(Path(workspace))
    except StoreError:
        return []
    found = [line.entry for line in map(parse, content.split(b"\n")) if line is not None]
    return [
        item
        for item in found
        if item.sequence > after
        and (rollout is None or (item.kind, item.key) == ("rollout", rollout))
    ]
