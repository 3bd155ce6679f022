"""`abkit audit`: who moved what, and whether that record is as it was written."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import AbkitError, ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import TypeAlias

    from abkit.trail import Entry, Finding, Head
    from abkit.workspace import Workspace

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

TAMPERED: Final = 1


def add_audit(commands: Commands) -> None:
    """`abkit audit`."""
    parser = commands.add_parser(
        "audit",
        help="who moved what, when and why; and whether that record is genuine",
        usage="abkit audit [verify] WORKSPACE [options]",
        description="Show the audit trail of a workspace, or verify it: exit code 1 if a line was "
        "changed, removed, moved, forged or cut. The key is that of ABKIT_AUDIT_KEY or "
        "ABKIT_AUDIT_KEY_FILE. (`abkit audit-sql` derives assignments again.)",
    )
    parser.add_argument("words", nargs="+", metavar="[verify] WORKSPACE")
    parser.add_argument("--rollout", metavar="KEY", help="the moves of one rollout (show)")
    parser.add_argument(
        "--head", metavar="COUNT:HASH", action="append", default=[], help="a head you kept (verify)"
    )
    parser.add_argument(
        "--unkeyed",
        type=int,
        default=0,
        metavar="N",
        help="the first N lines may be unsigned: they are from before there was a key (verify)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    from abkit.workspace import Workspace

    *verb, folder = options.words
    if verb not in ([], ["verify"]):
        raise ConfigError(f"say `abkit audit [verify] WORKSPACE`, got {' '.join(options.words)!r}")
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(f"no workspace {folder!r}; `abkit rollout start` makes one")
    return _verify(Workspace(path), options) if verb else _show(path, options)


def _show(path: Path, options: argparse.Namespace) -> int:
    from abkit.trail import entries

    found = entries(path, rollout=options.rollout)
    if options.json:
        print(json.dumps([item.to_dict() for item in found], indent=2))
        return 0
    for item in found:
        print(_line(item))
    if not found:
        print("no moves are recorded")
    return 0


def _line(item: Entry) -> str:
    when = datetime.fromtimestamp(item.time, tz=UTC).isoformat(" ", "seconds")
    move = f"{_state(item.before)} -> {_state(item.after)}"
    words = (
        *(f"{item.sequence:>5}", when.removesuffix("+00:00"), item.actor, item.verb),
        *(f"{item.kind} {item.key}", move, item.reason),
    )
    # Reasons come from people: no line of theirs may look like one of ours, or steer a terminal.
    return "  ".join("".join(c if c.isprintable() else "?" for c in word) for word in words)


def _state(state: Mapping[str, Any] | None) -> str:
    if state is None:
        return "nothing"
    if "version" in state:
        where = f"{state['state']} ({state['stage']})"
        return f"{where} {state['share']:.3g} v{state['version']}"
    shares = state.get("shares")
    if isinstance(shares, dict):
        text = ", ".join(f"{name} {share:.3g}" for name, share in shares.items())
        return f"{state.get('state', '')} {text}".strip()
    return f"{state.get('share', '')}"


def _verify(workspace: Workspace, options: argparse.Namespace) -> int:
    from abkit.trail import verify
    from abkit.trail.verify import describe

    heads, missing = _heads(workspace, options.head)
    finding: Finding = verify(
        workspace.path, heads=heads, items=workspace.standing(), unkeyed_allowed=options.unkeyed
    )
    if options.json:
        head = finding.head
        found = {
            "passed": finding.passed,
            "keyed": finding.keyed,
            "entries": 0 if head is None else head.count,
            "head": None if head is None else head.hash,
            "problems": finding.problems,
            "gaps": finding.gaps,
            "heads": finding.heads,
            "not_compared": missing,
        }
        print(json.dumps(found, indent=2))
    else:
        print("\n".join([*describe(finding), *missing]))
    return 0 if finding.passed else TAMPERED


def _heads(workspace: Workspace, texts: list[str]) -> tuple[list[Head], list[str]]:
    """Heads that are kept elsewhere, and why others were not found."""
    from abkit.trail import AUDIT, Head, read_head
    from abkit.trail.lines import HEAD_VARIABLE

    heads, missing = [], []
    for text in texts:
        count, _, mac = text.partition(":")
        if not count.isdecimal() or not mac:
            raise ConfigError(f"--head takes COUNT:HASH, as `abkit audit verify` prints: {text!r}")
        heads.append(Head(int(count), mac, "the head you gave"))
    name = os.environ.get(HEAD_VARIABLE, "")
    if name:
        heads.append(read_head(Path(name)))
    else:
        missing.append(f"no head file: {HEAD_VARIABLE} names none")
    try:
        from abkit.store.reader import StoreReader

        records = StoreReader(workspace.path).decisions(AUDIT)
        heads += [Head(int(r["count"]), str(r["hash"]), "the event log") for r in records]
    except (AbkitError, ModuleNotFoundError) as error:
        missing.append(f"the heads in the event log were not compared: {error}")
    return heads, missing
