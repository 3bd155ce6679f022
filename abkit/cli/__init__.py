"""The `abkit` command. Each sub-command imports what it needs when it runs.

Exit codes: 0 done, 1 no good snapshot (`snapshot follow --once`), 2 bad input or usage (one line
on standard error), 3 an unexpected state. `abkit rollout` has its own, since its answers are codes.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from abkit.cli import (
    analyze,
    batch,
    doctor,
    notify,
    planning,
    rollout,
    schema,
    server,
    serving,
    snapshot,
    store,
    trail,
)
from abkit.errors import AbkitError, ConfigError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from abkit.controller import Tick

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

# What the base install lacks, and the extra `analysis` brings.
_ANALYSIS = ("duckdb", "numpy", "pandas", "plotly", "pyarrow", "rich", "scipy", "statsmodels")
_FULL = (errno.ENOSPC, errno.EDQUOT)
DASHBOARD_PORT = 8501
DASHBOARD_ADDRESS = "http://127.0.0.1:{}"


def main(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one return a kind
    """Run the command line.

    Args:
        arguments: words after `abkit`; those of the process by default.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except AbkitError as error:
        print(f"abkit: {error}", file=sys.stderr)
        return int(getattr(options, "error_code", 2))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _ANALYSIS:
            raise
        print(
            f"abkit: this command needs {package}: pip install 'abkit-rollouts[analysis]'",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the reader of our output went away, as in `abkit ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        advice = "; make room, nothing was moved" if error.errno in _FULL else ""
        print(f"abkit: {place}{error.strerror or error}{advice}", file=sys.stderr)
        return int(getattr(options, "error_code", 2))
    except KeyboardInterrupt:
        return 130
    except RuntimeError as error:
        if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl-C
            return 130
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="abkit", description="Ship models safely, from 1 % of traffic to winner."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for add in (
        _add_demo,
        analyze.add_analyze,
        planning.add_plan,
        planning.add_simulate,
        _add_controller,
        rollout.add_rollout,
        rollout.add_replay,
        doctor.add_doctor,
        trail.add_audit,
        notify.add_notify,
        notify.add_kserve,
        schema.add_schema,
        _add_dashboard,
        serving.add_publish,
        serving.add_halt,
        serving.add_assign,
        serving.add_audit_sql,
        serving.add_import,
        batch.add_batch,
        server.add_serve,
        snapshot.add_snapshot,
        store.add_rebuild,
        store.add_reconcile,
        store.add_compact,
        store.add_retain,
        store.add_forget,
    ):
        add(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="ship real models on real census data, and watch a bad one being halted",
        description="Train a teacher and its students on census data, answer real requests with "
        "them from two processes, and let abkit halt, promote and roll back.",
    )
    parser.add_argument("--fast", action="store_true", help="fewer requests, under 30 seconds")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--workspace", type=Path, help="keep the workspace here")
    parser.add_argument("--workers", type=int, default=2, help="serving processes (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of traffic and training")
    parser.add_argument(
        "--dashboard",
        action=argparse.BooleanOptionalAction,
        help="serve the dashboard at the end (by default in a terminal, until Ctrl-C)",
    )
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    _require("sklearn", "demo", "the demo trains models with scikit-learn")
    from abkit.demo.run import main as demo

    workspace = demo(
        workspace=options.workspace,
        fast=options.fast,
        as_json=options.json,
        workers=options.workers,
        seed=options.seed,
        address=DASHBOARD_ADDRESS.format(DASHBOARD_PORT),
    )
    serve = options.dashboard
    if serve is None:
        serve = not options.json and sys.stdin.isatty() and sys.stdout.isatty()
    if serve:
        try:
            _serve_dashboard(workspace, DASHBOARD_PORT)
        except ConfigError as error:  # the demo itself went well
            print(f"abkit: {error}; `abkit dashboard {workspace}` serves it", file=sys.stderr)
    return 0


def _add_controller(commands: Commands) -> None:
    parser = commands.add_parser(
        "controller",
        help="run the loop: load events, look, decide, advance, publish",
        description="Run the controller of a workspace until interrupted.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--once", action="store_true", help="take one step and stop")
    parser.add_argument(
        "--mend", action="store_true", help="move a damaged store aside and rebuild it"
    )
    parser.set_defaults(run=_controller)


def _controller(options: argparse.Namespace) -> int:
    _require("duckdb", "analysis", "the controller keeps events in DuckDB")
    from abkit.controller import Controller
    from abkit.integrations.hooks import Hooks

    if not options.interval >= 0.01:  # NaN is none either
        raise ConfigError(f"--interval must be at least 0.01 seconds, got {options.interval}")
    if not options.workspace.exists():
        raise ConfigError(
            f"no workspace {str(options.workspace)!r}; `abkit rollout start` makes one"
        )
    with (
        Controller(options.workspace, mend=options.mend) as controller,
        Hooks(controller.workspace) as hooks,
    ):

        def told(tick: Tick) -> None:
            for line in tick.lines():
                print(line, flush=True)
            hooks.notice(tick)

        if options.once:
            told(controller.tick())
        else:
            controller.run(interval_seconds=options.interval, on_tick=told)
    return 0


def _add_dashboard(commands: Commands) -> None:
    parser = commands.add_parser("dashboard", help="see a workspace in the browser")
    parser.add_argument(
        "workspace",
        type=Path,
        nargs="?",
        default=Path(os.environ.get("ABKIT_WORKSPACE", "abkit-demo")),
        help="the workspace folder (ABKIT_WORKSPACE, else abkit-demo)",
    )
    parser.add_argument("--port", type=int, default=DASHBOARD_PORT)
    parser.set_defaults(run=lambda options: _serve_dashboard(options.workspace, options.port))


def _serve_dashboard(workspace: Path, port: int) -> NoReturn:
    _require("streamlit", "dashboard", "the dashboard runs on Streamlit")
    if not workspace.is_dir():
        msg = f"no workspace {str(workspace)!r}; `abkit demo` makes one"
        raise ConfigError(msg)
    environment = os.environ | {"ABKIT_WORKSPACE": str(workspace.resolve())}
    # A byte-code cache that is switched off costs seconds in every process.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    _check_port(port)
    script = _dashboard_script()
    command = [sys.executable, "-m", "streamlit", "run", script.name]
    command += ["--server.port", str(port), "--server.headless", "true"]
    # This process becomes the server: whoever stops it leaves nothing behind.
    os.chdir(script.parent)  # where streamlit finds its settings
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter


def _check_port(port: int) -> None:
    if not 0 < port < 1 << 16:
        raise ConfigError(f"--port must lie between 1 and 65535, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be served ({error.strerror}); stop what uses it, or name "
                "another with --port"
            ) from None


def _dashboard_script() -> Path:
    """The dashboard inside the wheel, or that of a checkout."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "_dashboard", here.parent / "dashboard"):
        if (folder / "app.py").is_file():
            return folder / "app.py"
    msg = f"this installation has no dashboard beside {here}"
    raise ConfigError(msg)


def _require(module: str, extra: str, why: str) -> None:
    if find_spec(module) is None:
        msg = f"{why}: pip install 'abkit-rollouts[{extra}]'"
        raise MissingExtraError(msg)


def _version() -> str:
    from abkit import __version__

    return f"abkit {__version__}"
