"""`abkit notify` and `abkit kserve`: who is told, and what a cluster is told."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import argparse
    from typing import TypeAlias

    from abkit.integrations.notify import Target
    from abkit.workspace import Workspace

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

FAILED: Final = 1


def add_notify(commands: Commands) -> None:
    """`abkit notify`."""
    parser = commands.add_parser(
        "notify",
        help="what became of messages to webhooks, MLflow and KServe; and send a test",
        description="The targets of notify.toml in a workspace. The controller delivers; `status` "
        "tells what arrived and what waits, `test` sends one message to each webhook, now, and "
        "exits with 1 if one does not arrive.",
    )
    parser.add_argument("action", choices=["status", "test"])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--target", metavar="NAME", help="this one alone")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_notify)


def _notify(options: argparse.Namespace) -> int:
    from abkit.integrations.notify import FILE, read_targets

    if not options.workspace.is_dir():
        raise ConfigError(f"no workspace {str(options.workspace)!r}")
    found = read_targets(options.workspace)
    targets = [item for item in found if options.target in (None, item.name)]
    if not targets:
        names = ", ".join(item.name for item in found) or "none"
        raise ConfigError(f"{FILE} in the workspace names no such target; there is {names}")
    is_test = options.action == "test"
    rows = [_test(item) if is_test else _status(item, options.workspace) for item in targets]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print("  ".join(f"{name} {value}" for name, value in row.items() if value != ""))
    return FAILED if any(row.get("failed") for row in rows) else 0


def _status(target: Target, workspace: Path) -> dict[str, Any]:
    from abkit.integrations.hooks import FOLDER
    from abkit.integrations.outbox import read_status, read_waiting

    folder = workspace / FOLDER
    waiting = list(read_waiting(folder / "outbox" / target.name).values())
    status = read_status(folder / f"{target.name}.status.json")
    oldest = min((item.since for item in waiting), default=None)
    return {
        "target": target.name,
        "to": target.host,
        "delivered": status.delivered,
        "waiting": len(waiting),
        "given_up": status.given_up,
        "oldest_seconds": "" if oldest is None else round(time.time() - oldest),
        "last_delivered": status.last_delivered.get("id", ""),
        "last_error": status.last_error.get("error", ""),
    }


def _test(target: Target) -> dict[str, Any]:
    from abkit.integrations.notices import Notice
    from abkit.integrations.webhook import DeliveryError, Webhook

    row = {"target": target.name, "to": target.host}
    if not isinstance(target, Webhook):
        return {**row, "test": "left out: it would move what is served"}
    now = time.time()
    notice = Notice(
        id=f"test:{int(now)}:test",
        event="test",
        time=now,
        rollout="test",
        experiment="test",
        control="control",
        treatment="treatment",
        mode="dry_run",
        state="canary",
        stage="test",
        share=0.0,
        version=0,
        reason="a test; nothing has moved",
        actor=os.environ.get("USER") or "operator",
    )
    try:
        target.deliver(notice)
    except DeliveryError as error:
        return {**row, "failed": error.reason}
    return {**row, "test": "arrived"}


def add_kserve(commands: Commands) -> None:
    """`abkit kserve`."""
    parser = commands.add_parser(
        "kserve",
        help="the patch that gives a KServe canary the share of a rollout",
        description="Print the merge patch of an InferenceService: canaryTrafficPercent is the "
        "share of the rollout, 0 after a halt, and removed after a promotion. With --apply, "
        "kubectl applies it.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("key", help="of the rollout")
    parser.add_argument("--service", metavar="NAME", help="the InferenceService")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--apply", action="store_true", help="apply it with kubectl")
    parser.set_defaults(run=_kserve)


def _kserve(options: argparse.Namespace) -> int:
    from abkit.integrations.kserve import apply, command, patch
    from abkit.integrations.webhook import DeliveryError

    rollout = _existing(options.workspace).rollout(options.key)
    if rollout.mode == "dry_run":
        raise ConfigError(f"rollout {rollout.key!r} is a dry run; it moves nothing")
    change = patch(rollout.state, rollout.last_share)
    if options.apply:
        if not options.service:
            raise ConfigError("--apply needs --service, the name of the InferenceService")
        try:
            print(apply(options.service, options.namespace, change))
        except DeliveryError as error:
            raise StoreError(error.reason) from None
    elif options.service:
        print(shlex.join(command(options.service, options.namespace, change)))
    else:
        print(json.dumps(change))
    return 0


def _existing(path: Path) -> Workspace:
    from abkit.workspace import Workspace

    if not path.is_dir():
        raise ConfigError(f"no workspace {str(path)!r}; `abkit rollout start` makes one")
    return Workspace(path)
