"""`abkit serve`: the HTTP server that Argo, Flagger, Kayenta, Prometheus and OpenFeature ask."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from abkit.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from typing import TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_serve(commands: Commands) -> None:
    """`abkit serve`."""
    parser = commands.add_parser(
        "serve",
        help="answer over HTTP: decisions, actions, Flagger, Prometheus, Kayenta, OFREP, snapshot",
        description="Serve a workspace over HTTP until interrupted. It reads what the controller "
        "publishes, and works where the store is locked or gone. Tokens come from a file, or from "
        "ABKIT_VIEWER_TOKEN, ABKIT_OPERATOR_TOKEN and ABKIT_APPROVER_TOKEN; without any it is "
        "read-only and serves this machine alone.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--host", default="127.0.0.1", help="others need tokens (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8400, help="0 for any free one (8400)")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="lines of `role token` or `role name token`"
    )
    parser.add_argument(
        "--open-reads",
        action="store_true",
        help="reading needs no token, but for the snapshot; for callers that can send none",
    )
    parser.add_argument(
        "--allow-actions-from-loopback",
        action="store_true",
        help="whoever is on this machine may act without a token",
    )
    parser.add_argument(
        "--log-exposures",
        action="store_true",
        help="an OFREP evaluation of one flag is an exposure",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=200.0,
        metavar="N",
        help="requests a second from one address, twice that in a burst; 0 for no limit (200)",
    )
    parser.add_argument(
        "--read-timeout", type=float, default=10.0, metavar="SECONDS", help="(default 10)"
    )
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from abkit.server.app import Settings
    from abkit.server.auth import read_tokens
    from abkit.server.serve import bind

    if not options.workspace.is_dir():
        raise ConfigError(
            f"no workspace {str(options.workspace)!r}; `abkit rollout start` makes one"
        )
    if not options.rate >= 0:  # NaN is none either
        raise ConfigError(f"--rate must be at least 0, got {options.rate}")
    if not options.read_timeout > 0:
        raise ConfigError(f"--read-timeout must be above 0, got {options.read_timeout}")
    logging.basicConfig(format="abkit: %(message)s", stream=sys.stderr, level=logging.WARNING)
    server = bind(
        options.workspace,
        Settings(
            tokens=read_tokens(options.token_file),
            has_open_reads=options.open_reads,
            trusts_loopback=options.allow_actions_from_loopback,
            logs_exposures=options.log_exposures,
            rate=options.rate,
            read_seconds=options.read_timeout,
        ),
        host=options.host,
        port=options.port,
    )
    # uvicorn closes on SIGTERM, and then sends it again to whoever was there before it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    print(f"abkit: {server.url}", file=sys.stderr, flush=True)
    server.run()
    return 0
