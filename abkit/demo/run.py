"""The demo: three acts on real models, told in the terminal while they happen.

It starts the serving processes, starts one rollout after the other, ticks the controller, and
prints what came of it. What is printed was measured; nothing here decides an outcome.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from abkit.controller import Controller
from abkit.demo.acts import acts
from abkit.demo.desk import Desk
from abkit.demo.models import ONE_THREAD, load_sample, train
from abkit.demo.traffic import DemoClock
from abkit.demo.worker import EXPERIMENT, Settings
from abkit.errors import ConfigError, StoreError
from abkit.experiment import Experiment
from abkit.plan_file import read_plan
from abkit.store.reader import StoreReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from abkit.demo.acts import Act
    from abkit.demo.models import Models
    from abkit.rollout import Rollout

SPEED = 60.0
"""Demo seconds per second: an hour of traffic in a minute."""
HEAD_START_SECONDS = 2 * 3600.0
"""The demo's clock starts this long ago, so that it does not run ahead of the wall's for long."""
REQUESTS_PER_SECOND = 800.0
"""Mean requests per wall second and serving process."""
LABEL_SECONDS = 90.0
TICK_SECONDS = 0.25
SETTLE_SECONDS = 0.75
START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What one stage took.

    Args:
        name: of the stage.
        requests: answered during it, in the experiment.
        treatment_requests: those that the treatment answered for real.
    """

    name: str
    requests: int
    treatment_requests: int


@dataclass(frozen=True, slots=True)
class ActFigures:
    """What one act came to.

    Args:
        act: its number.
        title: what happened, in a line.
        rollout: key of the rollout.
        control: the variant that served before.
        treatment: the variant on its way in.
        state: state of the rollout at the end.
        reason: why, in words.
        requests: answered in the experiment.
        treatment_requests: those that the treatment answered for real.
        stages: the same by stage.
        looks: how often the judge looked.
        traffic_seconds: length of the rollout on the demo's clock.
        evidence: of the last look, by metric.
        answer: what `abkit serve` answers at the end to whoever asks what to do.
        back_seconds: wall time from the decision to the last request that the treatment was
            given, over all processes; None where it was not taken back.
    """

    act: int
    title: str
    rollout: str
    control: str
    treatment: str
    state: str
    reason: str
    requests: int
    treatment_requests: int
    stages: tuple[StageFigures, ...]
    looks: int
    traffic_seconds: float
    evidence: tuple[dict[str, Any], ...]
    answer: dict[str, Any]
    back_seconds: float | None = None


def main(
    *, workspace: Path | None, fast: bool, as_json: bool, workers: int, seed: int, address: str
) -> Path:
    """Run the demo.

    Args:
        workspace: a new folder to work in; by default `abkit-demo` in the current folder.
        fast: shorter stages.
        as_json: print the summary as JSON on standard output, and the story on standard error.
        workers: number of serving processes, >= 1.
        seed: seed of training and traffic.
        address: where `abkit dashboard` will serve.

    Returns:
        The workspace folder.

    Raises:
        ConfigError: the workspace exists, or the number of workers is not usable.
        StoreError: a serving process did not start.
    """
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {workers}")
    started = time.monotonic()
    os.environ.update(ONE_THREAD)
    folder = _fresh_folder(workspace)
    console = Console(stderr=as_json, highlight=False)
    clock = DemoClock(time.time(), time.time() - HEAD_START_SECONDS, SPEED)
    space = Workspace(folder, clock=clock)
    space.create()  # before anything that takes long: the folder may be refused
    with ExitStack() as stack:
        console.print(f"starting {workers} serving processes, which train their own models")
        fleet = Fleet(folder, clock, workers=workers, seed=seed)
        stack.callback(fleet.kill)
        models = _train(console, seed)
        space.publish(Experiment.create(EXPERIMENT, {models.teacher.name: 1.0}))
        fleet.wait_until_ready(models.fingerprint)
        controller = stack.enter_context(Controller(space, clock=clock))
        controller.tick()  # there is something to be served
        desk = stack.enter_context(Desk(folder))
        console.print(f"decisions are served at {desk.url}/v1/rollouts")
        plan = acts(
            logistic=models.logistic.name,
            student=models.student.name,
            green=models.green.name,
            fast=fast,
        )
        rollouts: list[Rollout] = []
        answers: list[dict[str, Any]] = []
        serving = models.teacher.name
        for act in plan:
            rollouts.append(_play(act, serving, space, controller, console))
            last = rollouts[-1]
            answers.append(desk.decision(last.key))
            console.print(f"  over HTTP: {_answer_text(answers[-1])}")
            serving = last.treatment if last.state == "promoted" else last.control
        reports = fleet.stop()
        controller.tick()
    figures = [
        _figures(act, rollout, answer, folder=folder, clock=clock, reports=reports)
        for act, rollout, answer in zip(plan, rollouts, answers, strict=True)
    ]
    summary = _summary(figures, models, folder, reports, seconds=time.monotonic() - started)
    summary["dashboard"]["address"] = address
    _print_summary(console, figures, summary)
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    return folder


class Fleet:
    """The serving processes.

    Args:
        folder: the workspace.
        clock: the demo's clock.
        workers: how many to start.
        seed: seed of models and traffic.
    """

    def __init__(self, folder: Path, clock: DemoClock, *, workers: int, seed: int) -> None:
        """Start them."""
        environment = os.environ | ONE_THREAD
        # Without a byte-code cache every process compiles scikit-learn anew, for seconds.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._processes: list[subprocess.Popen[str]] = []
        for number in range(workers):
            settings = Settings(
                workspace=str(folder),
                clock=(clock.wall_start, clock.demo_start, clock.speed),
                worker=number,
                workers=workers,
                rate=REQUESTS_PER_SECOND / clock.speed,
                label_seconds=LABEL_SECONDS,
                seed=seed,
            )
            command = [sys.executable, "-m", "abkit.demo.worker", json.dumps(asdict(settings))]
            self._processes.append(
                subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    process_group=0,  # Ctrl-C is for the parent, which stops them
                )
            )

    def wait_until_ready(self, fingerprint: str) -> None:
        """Return when every process has its models; let them answer the first request.

        Args:
            fingerprint: of the models that they must have.

        Raises:
            StoreError: one of them ended, with its own message on standard error, or its models
                answer otherwise than ours.
        """
        for process in self._processes:
            theirs = self._line(process)["fingerprint"]
            if theirs != fingerprint:
                raise StoreError(
                    f"a serving process has other models: {theirs[:12]}, not {fingerprint[:12]}"
                )
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write("go\n")
                process.stdin.flush()

    def stop(self) -> list[dict[str, Any]]:
        """Stop them as an orchestrator would, by SIGTERM; returns what each reports."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        reports = [self._line(process) for process in self._processes]
        for process in self._processes:
            process.wait(STOP_SECONDS)
        return reports

    def kill(self) -> None:
        """End whatever still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _line(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        line = "" if process.stdout is None else process.stdout.readline()
        if not line:
            raise StoreError(f"a serving process ended with exit code {process.wait()}")
        report: dict[str, Any] = json.loads(line)
        return report


def _train(console: Console, seed: int) -> Models:
    sample = load_sample()
    with console.status("training"):
        models = train(sample, seed=seed, progress=lambda step: console.print(f"  {step}"))
    table = Table(box=None, pad_edge=False)
    for name in ("model", "held-out accuracy", "what it is"):
        table.add_column(name, justify="right" if "accuracy" in name else "left")
    for model in models.all():
        table.add_row(model.name, f"{model.held_out_accuracy:.1%}", model.description)
    console.print(table)
    return models


def _play(
    act: Act, serving: str, space: Workspace, controller: Controller, console: Console
) -> Rollout:
    """Start the rollout and tick the controller until it is over."""
    console.print(f"\n[bold]Act {act.number}[/bold]  {act.title}")
    file = space.path / "plans" / f"act-{act.number}.toml"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(act.plan(serving), encoding="utf-8")
    console.print(f"  by the plan {file}", style="dim")
    rollout = space.start(read_plan(file), actor="demo")
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(rollout.stage.name, total=1.0, note="waiting for requests")
        while rollout.live:
            time.sleep(TICK_SECONDS)
            for item in controller.tick().taken:
                if item.rollout.key != rollout.key:
                    continue
                if item.changed:
                    console.print(
                        f"  {item.decision.action} -> {item.rollout.state} "
                        f"({item.rollout.stage.name}): {item.decision.reasons[0]}"
                    )
                done, note = _progress(item.rollout, item.decision.evidence)
                progress.update(
                    task, description=item.rollout.stage.name, completed=done, note=note
                )
            rollout = space.rollout(rollout.key)
            seen = controller.exposures(rollout.key)
            if seen > act.max_requests and rollout.live:
                rollout = space.halt(
                    rollout.key, reason=f"undecided after {seen:,} requests", actor="demo"
                )
    settled = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < settled:  # the labels still on their way are read too
        time.sleep(TICK_SECONDS)
        controller.tick()
    return rollout


def _answer_text(answer: dict[str, Any]) -> str:
    return (
        f"action {answer['action']}, code {answer['code']}, weight {answer['weight']:g}, "
        f"state {answer['state']}"
    )


def _progress(rollout: Rollout, evidence: tuple[Any, ...]) -> tuple[float, str]:
    """How near the nearest decision is, and the numbers behind it."""
    watched = [item for item in evidence if item.role == "guardrail"]
    worst = max(watched, key=lambda item: item.e_harm)
    note = (
        f"{max(item.n_treatment for item in evidence):,} answers of {rollout.treatment}, "
        f"{worst.metric}: e-value {worst.e_harm:.3g} of {rollout.policy.halt_threshold:.0f}"
    )
    return min(1.0, worst.e_harm / rollout.policy.halt_threshold), note


def _figures(
    act: Act,
    rollout: Rollout,
    answer: dict[str, Any],
    *,
    folder: Path,
    clock: DemoClock,
    reports: list[dict[str, Any]],
) -> ActFigures:
    records = StoreReader(folder).decisions(rollout.key)
    last = records[-1]
    counts: dict[int, dict[str, int]] = {}
    for epoch, variant, n in last["observation"]["exposures"]:
        counts.setdefault(epoch, {})[variant] = n
    stages = tuple(
        StageFigures(
            stage.name,
            sum(counts.get(epoch, {}).values()),
            counts.get(epoch, {}).get(rollout.treatment, 0),
        )
        for stage, (epoch, _) in zip(rollout.stages, rollout.allocations, strict=False)
    )
    back = None
    if rollout.state in ("halted", "rolled_back") and rollout.changed is not None:
        decided = clock.wall_start + (rollout.changed - clock.demo_start) / clock.speed
        served = [report["last_served"].get(rollout.treatment, decided) for report in reports]
        back = max(0.0, max(served) - decided)
    return ActFigures(
        act=act.number,
        title=act.title,
        rollout=rollout.key,
        control=rollout.control,
        treatment=rollout.treatment,
        state=rollout.state,
        reason=rollout.reason,
        requests=sum(stage.requests for stage in stages),
        treatment_requests=sum(stage.treatment_requests for stage in stages),
        stages=stages,
        looks=len(records),
        traffic_seconds=(rollout.changed or 0.0) - (rollout.started or 0.0),
        evidence=tuple(last["evidence"]),
        answer=answer,
        back_seconds=back,
    )


def _summary(
    figures: list[ActFigures],
    models: Models,
    folder: Path,
    reports: list[dict[str, Any]],
    *,
    seconds: float,
) -> dict[str, Any]:
    writers = StoreReader(folder).writers()
    return {
        "acts": [asdict(item) for item in figures],
        "events": {
            "accepted": sum(item.accepted for item in writers),
            "stored": sum(item.stored for item in writers),
            "dropped": sum(item.dropped for item in writers),
            "quarantined": sum(item.quarantined for item in writers),
            "unexplained": sum(item.unexplained for item in writers),
            "accepted_by_serving": sum(report["accepted"] for report in reports),
            "serving_processes": len(reports),
        },
        "requests": sum(report["requests"] for report in reports),
        "fallbacks": sum(report["fallbacks"] for report in reports),
        "models": {
            model.name: {
                "description": model.description,
                "held_out_accuracy": model.held_out_accuracy,
            }
            for model in models.all()
        },
        "experiment": EXPERIMENT,
        "workspace": str(folder),
        "dashboard": {"command": f"abkit dashboard {folder}"},
        "seconds": round(seconds, 1),
    }


def _print_summary(console: Console, figures: list[ActFigures], summary: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("act", "treatment", "state", "requests", "its answers", "looks", "back in"):
        table.add_column(name, justify="left" if name in ("treatment", "state") else "right")
    for item in figures:
        table.add_row(
            str(item.act),
            item.treatment,
            item.state,
            f"{item.requests:,}",
            f"{item.treatment_requests:,}",
            f"{item.looks:,}",
            "" if item.back_seconds is None else f"{item.back_seconds:.2f} s",
        )
    console.print("\n[bold]What happened[/bold]")
    console.print(table)
    console.print()
    for item in figures:
        stages = ", ".join(f"{x.name}: {x.requests:,}" for x in item.stages if x.requests)
        console.print(f"act {item.act}, requests by stage  {stages}", style="dim")
    events = summary["events"]
    console.print(
        f"\nevents  accepted {events['accepted']:,} = stored {events['stored']:,} + dropped "
        f"{events['dropped']:,} + quarantined {events['quarantined']:,}, from "
        f"{events['serving_processes']} serving processes and the controller"
    )
    console.print(
        f"requests  {summary['requests']:,} in {summary['seconds']:.0f} s, of which "
        f"{summary['fallbacks']:,} failed and were answered by the model that served before"
    )
    board = summary["dashboard"]
    console.print(f"dashboard  {board['address']}, served by `{board['command']}`")


def _fresh_folder(wanted: Path | None) -> Path:
    if wanted is not None:
        if wanted.exists() and any(wanted.iterdir()):
            raise ConfigError(f"--workspace {wanted} is not empty; name a new folder")
        return wanted
    number = 1
    while (folder := Path("abkit-demo" if number == 1 else f"abkit-demo-{number}")).exists():
        number += 1
    return folder
