"""A rehearsed rollback: the real files and real workers, on a copy that serves nobody.

The state of a workspace is copied into a folder beside it, on the same disk. There the treatment
is promoted, serving processes poll the snapshot as they do in production, and the rollback is
pulled. The copy has no store and no controller: a rollback needs neither.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import StoreError, TransitionError
from abkit.machine import drop
from abkit.records import check_count
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from abkit.rollout import Rollout

UNITS: Final = 200
START_SECONDS: Final = 30.0
BACK_SECONDS: Final = 10.0
_STATE: Final = ("experiments", "layers", "holdouts", "rollouts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What a rehearsal has shown.

    Args:
        rollout: key of the rollout that was taken back.
        control: what everybody was served at the end.
        treatment: what everybody was served before.
        write_seconds: from the command to the published snapshot.
        back_seconds: from the command to each worker's last answer of treatment; None for a
            worker that went on serving it.
    """

    rollout: str
    control: str
    treatment: str
    write_seconds: float
    back_seconds: tuple[float | None, ...]

    @property
    def passed(self) -> bool:
        """Whether every worker went back to control."""
        return all(value is not None for value in self.back_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "passed": self.passed}

    def lines(self) -> list[str]:
        """For reading."""
        back = [value for value in self.back_seconds if value is not None]
        stuck = len(self.back_seconds) - len(back)
        what = f"{self.treatment} for everyone, then back to {self.control}"
        lines = [
            f"{self.rollout}: {what}, on a copy without store and controller",
            f"the write took {1000 * self.write_seconds:.1f} ms",
        ]
        if back:
            lines.append(
                f"{len(back)} serving processes gave their last answer of {self.treatment} "
                f"after {max(back):.2f} s at most"
            )
        if stuck:
            lines.append(
                f"FAILED: {stuck} of {len(self.back_seconds)} serving processes still served "
                f"{self.treatment} after {BACK_SECONDS:g} s"
            )
        return lines


def drill(workspace: Workspace, key: str, *, workers: int = 4) -> Drill:
    """Rehearse the rollback of a rollout, and time it.

    Args:
        workspace: whose state is copied; nothing in it changes.
        key: of a rollout that is live or promoted.
        workers: serving processes, >= 1.

    Raises:
        UnknownExperimentError: there is no such rollout.
        TransitionError: there is nothing to roll back.
        StoreError: a serving process did not start.
    """
    check_count("drill", "workers", workers, least=1)
    rollout = workspace.rollout(key)
    if not rollout.owns or not (rollout.live or rollout.state == "promoted"):
        what = "a dry run" if rollout.mode == "dry_run" else rollout.state
        raise TransitionError(f"rollout {key!r} is {what}; there is nothing to roll back")
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="drill-", dir=workspace.path))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        copy = _copied(workspace, folder)
        if rollout.live:
            _promote(copy, rollout)
        serving = [stack.enter_context(_worker(folder, rollout)) for _ in range(workers)]
        for process in serving:
            _line(process)
        begun = time.monotonic()
        copy.halt(key, reason="a drill", actor="drill")
        written = time.monotonic()
        last = [_line(process)["last"] for process in serving]
    return Drill(
        rollout=key,
        control=rollout.control,
        treatment=rollout.treatment,
        write_seconds=written - begun,
        back_seconds=tuple(None if at is None else max(0.0, at - begun) for at in last),
    )


def _copied(workspace: Workspace, folder: Path) -> Workspace:
    copy = Workspace(folder, keeps_head=False)
    copy.create()
    for name in _STATE:
        for path in (workspace.path / name).glob("*.json"):
            shutil.copyfile(path, folder / name / path.name)
    for name in ("snapshot.json", "snapshot.version"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(workspace.path / name, folder / name)
    return copy


def _promote(copy: Workspace, rollout: Rollout) -> None:
    if rollout.rivals and rollout.state != "ready":  # none has won yet: as if the first had
        now = time.time()
        alone = drop(rollout, rollout.rivals, now=now, reason="a drill", actor="drill")
        copy.put(alone, expected_version=rollout.version)
    moved = copy.act(rollout.key, "promote", reason="a drill", actor="drill")
    if moved.state == "bake":
        copy.act(rollout.key, "promote", reason="a drill", actor="drill")


@contextlib.contextmanager
def _worker(folder: Path, rollout: Rollout) -> Any:
    settings = {
        "workspace": str(folder),
        "experiment": rollout.experiment.key,
        "treatment": rollout.treatment,
    }
    command = [sys.executable, "-c", "from abkit.drill import serve; serve()", json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = "" if process.stdout is None else process.stdout.readline()
    if not line:
        raise StoreError(f"a serving process ended with exit code {process.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


def serve() -> None:
    """A serving process: says when it serves treatment, then when it did so for the last time."""
    from abkit.client import Client  # noqa: PLC0415 - the parent never serves

    settings = json.loads(sys.argv[1])
    units = [f"drill-{i}" for i in range(UNITS)]
    treatment, last, told = settings["treatment"], None, False
    with Client(settings["workspace"]) as client:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            answers = [client.variant(settings["experiment"], unit) for unit in units]
            if treatment in answers:
                last = time.monotonic()
                if not told:
                    told = True
                    _say(serving=answers.count(treatment))
                    deadline = last + BACK_SECONDS
            elif told:
                _say(last=last)
                return
            time.sleep(0.001)
    if told:
        _say(last=None)


def _say(**found: float | None) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
