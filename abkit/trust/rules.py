"""What each look at a workspace is for, from when on it warns or blocks, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Look:
    """One look of `abkit doctor`.

    Args:
        id: its name.
        rule: what is looked at.
        threshold: from when on it warns or blocks.
        explanation: why it matters.
        remedy: what to do.
    """

    id: str
    rule: str
    threshold: str
    explanation: str
    remedy: str


LOOKS: Final = (
    Look(
        "snapshot",
        "whether the snapshot can be read, and says what the state files say",
        "damaged, or absent while experiments exist: blocks; behind a state file, or of the "
        "future: warns",
        "serving follows this file; with a bad one it stays at the last good one",
        "`abkit controller WORKSPACE --once` publishes anew",
    ),
    Look(
        "rollouts",
        "rollouts on hold, past the time their policy allows, or without looks",
        "a damaged state file blocks; hold, ready, out of time, or 5 minutes without a look: warns",
        "a rollout that nobody looks at protects nobody",
        "`abkit rollout status`, then resume, promote or halt it",
    ),
    Look(
        "controller",
        "whether a process holds the ingester's lock",
        "none while a rollout is live blocks",
        "without a controller no look is taken, so nothing halts a harmful treatment",
        "start `abkit controller WORKSPACE`, under a supervisor that restarts it",
    ),
    Look(
        "writers",
        "writers whose process holds its segment, and how long they have been silent",
        "alive but silent for 15 minutes while another wrote in the last minute: warns",
        "a process that serves and logs nothing is missing from every comparison",
        "look at that process; restart it if it hangs",
    ),
    Look(
        "ingestion_lag",
        "events in the log that the published store lacks, and its age",
        "events that wait while the store is older than a minute: warns",
        "looks see what was loaded, so a lag delays a halt",
        "see whether the controller runs, and keeps up",
    ),
    Look(
        "drops",
        "events that writers dropped themselves, by reason",
        "one in 1,000 warns; fewer are told",
        "what is dropped is missing, and perhaps more from one variant",
        "raise the queue's limit, or free the disk; `abkit reconcile` says by variant",
    ),
    Look(
        "quarantine",
        "events in damaged bytes, and numbers that nothing explains",
        "one warns",
        "they are missing from every comparison",
        "`abkit reconcile` says of which writer; look at its disk",
    ),
    Look(
        "clock_skew",
        "the newest event of each writer against now, and against when its file was written",
        "a minute in the future, or 5 minutes off its file: warns",
        "windows and watermarks trust the clocks of hosts",
        "run NTP on the hosts of these writers",
    ),
    Look(
        "store",
        "whether DuckDB's file and the published file can be read, and their schema's version",
        "damaged or of a newer version: warns; the log has everything",
        "the store is an index: a damaged one stops looks, and loses nothing",
        "`abkit rebuild WORKSPACE` makes a new one of log and archive",
    ),
    Look(
        "archive",
        "the manifest, and whether its files are there (`--deep`: their hashes)",
        "a damaged manifest or a missing file blocks",
        "archived events are nowhere else",
        "take the file from a backup",
    ),
    Look(
        "disk",
        "free space, and how long it lasts at the growth of the last day",
        "under 10 % or 1 GB, or less than a week left: warns; under 100 MB blocks",
        "on a full disk writers drop events",
        "`abkit compact` and `abkit retain`, or a larger disk",
    ),
    Look(
        "audit_trail",
        "every line of the trail, against its head in the event log and the state files",
        "a line changed, removed or forged blocks; a move without a line warns",
        "it says who moved what",
        "`abkit audit verify WORKSPACE`",
    ),
    Look(
        "outbox",
        "messages that have not arrived, and those given up",
        "one that waits for 10 minutes, or was given up: warns",
        "somebody was not told",
        "`abkit notify status WORKSPACE`",
    ),
    Look(
        "permissions",
        "modes of files and folders, and symbolic links",
        "readable or writable by others, or a link: warns",
        "the log holds unit ids, and whoever can write the snapshot decides what is served",
        "`chmod -R go= WORKSPACE`",
    ),
)
BY_ID: Final = {look.id: look for look in LOOKS}
