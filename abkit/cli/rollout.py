"""`abkit rollout`: plan, start, look at, decide on and stop rollouts.

Exit codes: 0 done, or advance and promote; 1 halt; 2 hold, or not decided yet; 3 error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from abkit.errors import ConfigError, StoreBusyError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from abkit.forecast import Forecast
    from abkit.rollout import Rollout
    from abkit.workspace import Workspace

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name
    Actions: TypeAlias = "argparse._SubParsersAction[_Parser]"  # noqa: SLF001 - the same

HALT: Final = 1
HOLD: Final = 2
ERROR: Final = 3
CODES: Final = {"advance": 0, "promote": 0, "halt": HALT, "hold": HOLD, "continue": HOLD}
_VERBS: Final = {
    "hold": ("hold", "keep the allocation as it is"),
    "resume": ("resume", "go on after a hold"),
    "skip": ("skip", "begin the next stage now"),
    "promote": ("promote", "treatment for everyone now"),
    "halt": ("halt", "control for everyone at once"),
    "abort": ("halt", "the same as halt"),
    "rollback": ("halt", "take a promoted or switched model back at once"),
}
_OVER: Final = ("promoted", "superseded", "halted", "rolled_back")


class _Parser(argparse.ArgumentParser):
    """Wrong words end with 3 here: 1 and 2 are answers."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ERROR, f"{self.prog}: error: {message}\n")


def add_rollout(commands: Commands) -> None:
    """`abkit rollout`."""
    parser = commands.add_parser(
        "rollout",
        help="plan, start, decide on and stop rollouts",
        description="Plan, start, look at, decide on and stop rollouts. Exit codes: 0 done, "
        "advance or promote; 1 halt; 2 hold or undecided; 3 error.",
    )
    actions = parser.add_subparsers(
        required=True, metavar="ACTION", title="actions", parser_class=_Parser
    )
    _add_plan(actions)
    start = _action(actions, "start", "start a rollout from a plan")
    start.add_argument("plan", type=Path, help="a plan: .toml, .yaml, .yml or .json")
    start.set_defaults(run=_start)
    status = _action(actions, "status", "list rollouts, or show one")
    status.add_argument("key", nargs="?")
    status.set_defaults(run=_status)
    decide = _action(actions, "decide", "look now, and say what to do")
    decide.add_argument("key")
    decide.set_defaults(run=_decide)
    wait = _action(actions, "wait", "wait until a rollout has got somewhere")
    wait.add_argument("key")
    wait.add_argument(
        "--until",
        default="promote",
        choices=["advance", "promote"],
        help="the next stage, or the end (default)",
    )
    wait.add_argument("--timeout", type=float, default=math.inf, metavar="SECONDS")
    wait.add_argument("--interval", type=float, default=1.0, metavar="SECONDS")
    wait.set_defaults(run=_wait)
    for name, (verb, text) in _VERBS.items():
        action = _action(actions, name, text)
        action.add_argument("key")
        action.add_argument("--reason", default="by hand", help="for the record")
        action.add_argument("--actor", default=os.environ.get("USER") or "operator")
        action.add_argument(
            "--expect-version", type=int, metavar="N", help="refuse if it has moved since"
        )
        action.set_defaults(run=_act, verb=verb)
    drill = _action(actions, "drill", "rehearse a rollback on a copy, and time it")
    drill.add_argument("key", nargs="?", help="the newest live one by default")
    drill.add_argument("--workers", type=int, default=4, help="serving processes (default 4)")
    drill.set_defaults(run=_drill)


def add_replay(commands: Commands) -> None:
    """`abkit replay`."""
    parser = commands.add_parser(
        "replay",
        help="take every recorded decision again, from its counts",
        description="Take every decision of a workspace, or of one rollout, again from the counts "
        "in its record. Exit code 1 if one comes out differently, 3 on an error.",
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("key", nargs="?", help="one rollout; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_replay, error_code=ERROR)


def _replay(options: argparse.Namespace) -> int:
    from abkit.judge import replay
    from abkit.store.reader import StoreReader

    workspace = _existing(options.workspace)
    keys = [options.key] if options.key else [item.key for item in _readable(workspace)]
    if options.key:
        workspace.rollout(options.key)
    reader = StoreReader(workspace.path)
    looks: dict[str, int] = {}
    found: dict[str, list[str]] = {}
    for key in keys:
        records = reader.decisions(key)
        looks[key], found[key] = len(records), replay(records)
    if options.json:
        rows = [{"rollout": k, "looks": looks[k], "differences": found[k]} for k in keys]
        print(json.dumps(rows, indent=2))
    else:
        for key in keys:
            print(f"{key}: {looks[key]:,} decisions, {len(found[key]):,} come out differently")
            for line in found[key]:
                print(f"  {line}")
    return int(any(found.values()))


def _action(actions: Actions, name: str, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(error_code=ERROR)
    return parser


def _add_plan(actions: Actions) -> None:
    parser = actions.add_parser(
        "plan", help="what each stage of a plan takes: exposure, time, risk"
    )
    parser.add_argument("plan", type=Path, help="a plan: .toml, .yaml, .yml or .json")
    parser.add_argument(
        "--requests-per-second", "--rps", type=float, default=100.0, metavar="N", dest="rate"
    )
    parser.add_argument(
        "--base-rate", type=float, default=0.01, help="of bad events under control (0.01)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_plan, error_code=ERROR)


def _plan(options: argparse.Namespace) -> int:
    from abkit.forecast import forecast
    from abkit.plan_file import read_plan

    rollout = read_plan(options.plan)
    found = forecast(rollout, requests_per_second=options.rate, base_rate=options.base_rate)
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        _print_forecast(rollout, found)
    return 0


def _print_forecast(rollout: Rollout, found: Forecast) -> None:
    policy = rollout.policy
    print(
        f"{rollout.key}: {', '.join(rollout.arms)} against {rollout.control} in "
        f"{rollout.experiment.key}, {found.requests_per_second:g} requests/s, "
        f"{found.base_rate:.3g} of them bad under control"
    )
    for item in policy.guardrails:
        asked = f"below {item.limit:g}" if item.test == "limit" else f"margin {item.margin:g}"
        asked = asked if item.budget is None else f"at most {item.budget:,} bad events"
        print(f"guardrail {item.metric}: {item.test}, {asked}")
    for goal in policy.objectives:
        print(f"objective {goal.metric}: {goal.rule}")
    who, out = ("treatment", "dropped") if rollout.is_contest else ("rollout", "halted")
    print(
        f"a harmless {who} is {out} with probability {policy.alpha:g} at most, one that fails "
        f"a rule is promoted with {policy.beta:g}\n"
    )
    rows = [("stage", "share", "units", "requests", "time", *_risk_headings(found))]
    for stage in found.stages:
        risks = [
            "never noticed"
            if math.isinf(harm.requests)
            else f"{harm.excess:,.0f} in {_time(harm.seconds)}"
            for harm in stage.harms
        ]
        share = "in the dark" if stage.mode == "shadow" else f"{stage.share:.3g}"
        cells = (f"{stage.min_units:,}", f"{stage.requests:,.0f}", _time(stage.seconds))
        rows.append((stage.name, share, *cells, *risks))
    _print_columns(rows)
    print(
        "\nrisk: bad requests more than control would have had, until the halt, if treatment is "
        "so many times as bad"
    )
    if found.promotion_seconds is not None:
        print(
            "a treatment without harm is shown to be within the margin after about "
            f"{_time(found.promotion_seconds)} of the last stage"
        )
    print(f"all stages: {_time(found.seconds)} at least")


def _risk_headings(found: Forecast) -> list[str]:
    harms = next((stage.harms for stage in found.stages if stage.harms), ())
    return [f"risk at {harm.relative_risk:g} x" for harm in harms]


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip())


def _time(seconds: float) -> str:
    """A duration in the unit that fits it."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _start(options: argparse.Namespace) -> int:
    from abkit.plan_file import read_plan
    from abkit.workspace import Workspace

    plan = read_plan(options.plan)
    if not options.workspace.exists() and not options.json:
        print(f"{options.workspace} is a new workspace")
    _show(Workspace(options.workspace).start(plan, actor="operator"), options)
    return 0


def _show(rollout: Rollout, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(_summary(rollout), indent=2))
    else:
        print(f"{rollout.key}: {rollout.state}, stage {rollout.stage.name!r}")


def _summary(rollout: Rollout, look: Mapping[str, Any] | None = None) -> dict[str, Any]:
    found = {
        "rollout": rollout.key,
        "experiment": rollout.experiment.key,
        "control": rollout.control,
        "treatment": rollout.treatment,
        "mode": rollout.mode,
        "state": rollout.state,
        "stage": rollout.stage.name,
        "share": _share(rollout),
        "version": rollout.version,
        "changed": rollout.changed,
        "reason": rollout.reason,
        "actor": rollout.actor,
    }
    if rollout.is_contest:
        found |= {"treatments": list(rollout.arms), "dropped": list(rollout.dropped)}
    if look is not None:
        names = ("look", "time", "action", "reason", "evidence", "alarms", "decision_id")
        found["last_look"] = {name: look[name] for name in names}
    return found


def _status(options: argparse.Namespace) -> int:
    workspace = _existing(options.workspace)
    rollouts = [workspace.rollout(options.key)] if options.key else _readable(workspace)
    looks = {item.key: _last_look(workspace, item.key) for item in rollouts}
    if options.json:
        found = [_summary(item, looks[item.key]) for item in rollouts]
        print(json.dumps(found[0] if options.key else found, indent=2))
    elif options.key:
        _print_status(rollouts[0], looks[options.key])
    else:
        rows = [("rollout", "state", "stage", "share", "why")]
        for item in rollouts:
            last = looks[item.key]
            why = last["reason"] if item.live and last is not None else item.reason
            cells = (item.state, item.stage.name, f"{_share(item):.3g}", why)
            rows.append((item.key, *cells))
        _print_columns(rows if rollouts else [("no rollouts",)])
    return 0


def _share(rollout: Rollout) -> float:
    """Share of units that treatment answers now: none after a halt."""
    return 0.0 if rollout.experiment.state == "killed" else rollout.last_share


def _readable(workspace: Workspace) -> list[Rollout]:
    """All rollouts whose state file can be read; the others are told of, and hide none."""

    def tell(path: Path, error: Exception) -> None:
        print(
            f"abkit: rollout {path.stem!r} is not shown, its state file is damaged: {error}; "
            "`abkit halt WORKSPACE EXPERIMENT` takes the experiment back without it",
            file=sys.stderr,
        )

    return workspace.rollouts(on_damage=tell)


def _print_status(rollout: Rollout, look: Mapping[str, Any] | None) -> None:
    mode = "" if rollout.mode == "enforce" else f", {rollout.mode.replace('_', ' ')}"
    print(
        f"{rollout.key}: {rollout.state}{mode}, stage {rollout.stage.name!r}; "
        f"{', '.join(rollout.arms)} has {_share(rollout):.3g} of {rollout.experiment.key}"
    )
    if rollout.dropped:
        print(f"out of it: {', '.join(rollout.dropped)}")
    print(f"last move: {rollout.reason} ({rollout.actor}), version {rollout.version}")
    if look is None:
        print("no look has been taken yet")
        return
    print(f"look {look['look']}: {look['action']}; {look['reason']}")
    rows = [("metric", "role", "harm e-value", "rule", "rule e-value")]
    for item in look["evidence"]:
        cells = (f"{item['e_harm']:.3g}", item["rule"], f"{item['e_promote']:.3g}")
        arm = f"{item.get('variant') or look['treatment']}: " if "leader" in look else ""
        rows.append((f"{arm}{item['metric']}", item["role"], *cells))
    _print_columns(rows)
    print(
        f"halts at a harm e-value of {look['halt_threshold']:g}, "
        f"a rule is shown at {look['promote_threshold']:g}"
    )


def _last_look(workspace: Workspace, key: str) -> Mapping[str, Any] | None:
    """The newest decision record; None where there is none, or no store to ask."""
    from abkit.errors import AbkitError

    try:
        from abkit.store.reader import StoreReader

        return next(iter(StoreReader(workspace.path).decisions(key, limit=1)), None)
    except (AbkitError, ModuleNotFoundError):
        return None


def _decide(options: argparse.Namespace) -> int:
    """Take a look, or read the newest where a controller runs."""
    from abkit.controller import Controller

    workspace = _existing(options.workspace)
    workspace.rollout(options.key)
    try:
        with Controller(workspace) as controller:
            controller.tick()
    except StoreBusyError:
        pass  # a controller runs, and looks itself
    rollout, look = workspace.rollout(options.key), _last_look(workspace, options.key)
    action, reason = _answer(rollout, look)
    if options.json:
        found = {"action": action, **_summary(rollout, look)}
        print(json.dumps(found, indent=2))
    else:
        print(f"{action}: {reason}")
    return CODES[action]


def _answer(rollout: Rollout, look: Mapping[str, Any] | None) -> tuple[str, str]:
    """What to do, from the state where it says so, else from the newest look."""
    by_state = {"promoted": "promote", "superseded": "promote", "bake": "promote"}
    by_state |= {"halted": "halt", "rolled_back": "halt", "hold": "hold", "ready": "promote"}
    if rollout.state in by_state:
        return by_state[rollout.state], rollout.reason
    if look is None:
        return "continue", "no look has been taken yet"
    return str(look["action"]), str(look["reason"])


def _wait(options: argparse.Namespace) -> int:
    workspace = _existing(options.workspace)
    if not options.interval > 0:
        raise ConfigError(f"--interval must be above 0 seconds, got {options.interval}")
    begun = workspace.rollout(options.key)
    deadline = time.monotonic() + options.timeout
    while True:
        rollout = workspace.rollout(options.key)
        code = _reached(begun, rollout, options.until)
        if code is None and time.monotonic() >= deadline:
            print(f"{rollout.key}: {rollout.state}, still undecided after {options.timeout:g} s")
            return HOLD
        if code is not None:
            _show(rollout, options)
            return code
        time.sleep(min(options.interval, max(0.0, deadline - time.monotonic())))


def _reached(begun: Rollout, rollout: Rollout, until: str) -> int | None:
    """The exit code, once what was waited for has come, or cannot come any more."""
    if rollout.state in ("halted", "rolled_back"):
        return HALT
    if rollout.state in ("promoted", "superseded", "bake"):
        return 0
    if rollout.state in ("hold", "ready"):
        return HOLD  # a person must act
    return 0 if until == "advance" and rollout.stage_index > begun.stage_index else None


def _act(options: argparse.Namespace) -> int:
    workspace = _existing(options.workspace)
    moved = workspace.act(
        options.key,
        options.verb,
        reason=options.reason,
        actor=options.actor,
        expected_version=options.expect_version,
    )
    _show(moved, options)
    return 0


def _drill(options: argparse.Namespace) -> int:
    from abkit.drill import drill

    workspace = _existing(options.workspace)
    key = options.key or next(
        (item.key for item in _readable(workspace) if item.live or item.state == "promoted"), None
    )
    if key is None:
        raise StoreError(
            f"{options.workspace} has no rollout that is live or promoted; start one, and drill it"
        )
    found = drill(workspace, key, workers=options.workers)
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print("\n".join(found.lines()))
    return 0 if found.passed else HALT


def _existing(path: Path) -> Workspace:
    """The workspace, which must be there already.

    Raises:
        ConfigError: it is not.
    """
    from abkit.workspace import Workspace

    if not (path / "rollouts").is_dir():
        raise ConfigError(f"no workspace {str(path)!r}; `abkit rollout start` makes one")
    return Workspace(path)
