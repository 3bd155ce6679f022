"""`abkit snapshot`: one snapshot on many hosts, or a look at it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from abkit.errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

SNAPSHOT_TOKEN = "ABKIT_SNAPSHOT_TOKEN"  # noqa: S105 - the name of a variable


def add_snapshot(commands: Commands) -> None:
    """`abkit snapshot`."""
    parser = commands.add_parser("snapshot", help="take one snapshot to many hosts, or look at it")
    actions = parser.add_subparsers(required=True, metavar="ACTION", title="actions")
    token = argparse.ArgumentParser(add_help=False)
    token.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the bearer token; without it {SNAPSHOT_TOKEN} does, if set",
    )
    follow = actions.add_parser(
        "follow", parents=[token], help="keep a local snapshot equal to a source"
    )
    follow.add_argument("source", help="http(s):// address, file or workspace")
    follow.add_argument(
        "target", type=Path, help="workspace, made if it is absent, or a .json file"
    )
    follow.add_argument("--once", action="store_true", help="one step; 0 if a good file is there")
    follow.add_argument("--interval", type=float, default=1.0, metavar="SECONDS")
    follow.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS")
    follow.add_argument("--mode", default="600", metavar="OCTAL", help="such as 640 (default 600)")
    follow.add_argument("--allow-older", action="store_true", help="take a stale copy too")
    follow.add_argument("--health", type=Path, metavar="FILE", help="write health here each poll")
    follow.set_defaults(run=_snapshot_follow)
    serve = actions.add_parser("serve", parents=[token], help="serve a snapshot to followers")
    serve.add_argument("source", type=Path, help="file or workspace")
    serve.add_argument("--host", default="127.0.0.1", help="others need a token (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8300)
    serve.add_argument(
        "--without-token", action="store_true", help="serve other machines without a token"
    )
    serve.set_defaults(run=_snapshot_serve)
    show = actions.add_parser("show", parents=[token], help="what a snapshot holds")
    show.add_argument("source", help="http(s):// address, file or workspace")
    show.add_argument("--format", default="table", choices=["table", "json"])
    show.set_defaults(run=_snapshot_show)


def _snapshot_follow(options: argparse.Namespace) -> int:
    from abkit.follow import Follower

    try:
        mode = int(options.mode, 8)
    except ValueError:
        raise ConfigError(f"--mode must be octal, such as 640, got {options.mode!r}") from None
    follower = Follower(
        _snapshot_source(options.source),
        _target(options.target),
        interval_seconds=options.interval,
        timeout_seconds=options.timeout,
        token=_snapshot_token(options.token_file),
        mode=mode,
        allow_older=options.allow_older,
        health_path=options.health,
        report=_report,
    )
    if options.once:
        return 0 if follower.poll().checksum else 1
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    follower.run(stop)
    return 0


def _snapshot_serve(options: argparse.Namespace) -> int:
    from abkit.snapshot_server import serve_snapshot

    server = serve_snapshot(
        _snapshot_file(options.source),
        host=options.host,
        port=options.port,
        token=_snapshot_token(options.token_file),
        is_open=options.without_token,
        report=_report,
    )
    signal.signal(signal.SIGTERM, lambda *_: server.close())
    _report(f"{server.url}/v1/snapshot")
    server.run()
    return 0


def _snapshot_show(options: argparse.Namespace) -> int:
    from abkit.fetch import read_snapshot

    snapshot = read_snapshot(
        _snapshot_source(options.source), token=_snapshot_token(options.token_file)
    )
    if options.format == "json":
        print(snapshot.to_bytes().decode())
        return 0
    moment = datetime.fromtimestamp(snapshot.published, UTC).isoformat(timespec="seconds")
    print(f"version {snapshot.version}, published {moment}, checksum {snapshot.checksum}")
    for key, item in snapshot.experiments.items():
        print(f"{key}\t{item.state}\tepoch {item.epoch}\trollout {item.rollout:g}")
    return 0


def _snapshot_source(text: str) -> str | Path:
    return text if "://" in text else _snapshot_file(Path(text))


def _snapshot_file(path: Path) -> Path:
    return path / "snapshot.json" if path.is_dir() else path


def _target(path: Path) -> Path:
    """The file to keep: this one, or the snapshot of a workspace, which is made if it is absent.

    Raises:
        ConfigError: the folder cannot be made.
    """
    if path.suffix == ".json" and not path.is_dir():
        return path
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {error.strerror}") from None
    return path / "snapshot.json"


def _snapshot_token(path: Path | None) -> str:
    """The token; never an argument, which every process of the machine could read.

    Raises:
        ConfigError: the file is not readable.
    """
    if path is None:
        return os.environ.get(SNAPSHOT_TOKEN, "")
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the token file {path} is not readable: {error}") from None
    if not token:
        raise ConfigError(f"the token file {path} is empty")
    return token


def _report(line: str) -> None:
    print(f"abkit: {line}", file=sys.stderr, flush=True)
