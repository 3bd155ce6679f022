"""One serving process of the demo: real models answer real rows, `abkit.Client` does the rest.

Started as `python -m abkit.demo.worker SETTINGS`, one process each; stopped by SIGTERM. Between
the two it does what any serving code does: assign, predict, expose, record; labels come late.
"""

from __future__ import annotations

import heapq
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from abkit.client import Client
from abkit.demo.models import load_sample, train
from abkit.demo.traffic import DemoClock, arrivals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from abkit.assignment import Assignment
    from abkit.demo.models import Features, Model

EXPERIMENT = "employment-model"
MILLISECONDS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a serving process is told when it starts.

    Args:
        workspace: the workspace folder.
        clock: `(wall_start, demo_start, speed)` of the demo's clock.
        worker: number of this process, from 0.
        workers: how many there are; they share the rows.
        rate: requests of this process per demo second.
        label_seconds: mean delay of a label, in demo seconds.
        seed: seed of models and traffic.
    """

    workspace: str
    clock: tuple[float, float, float]
    worker: int
    workers: int
    rate: float
    label_seconds: float
    seed: int


class Server:
    """Answers requests with the variant that abkit assigns.

    Args:
        client: the abkit client.
        models: the models by variant name.
        clock: the demo's clock.
        label_seconds: mean delay of a label, in demo seconds.
        seed: seed of the delays.
    """

    def __init__(
        self,
        client: Client,
        models: Mapping[str, Model],
        *,
        clock: DemoClock,
        label_seconds: float,
        seed: int,
    ) -> None:
        """Begin without a pending label."""
        self._client = client
        self._models = models
        self._clock = clock
        self._label_seconds = label_seconds
        self._default = next(iter(models))
        self._recent = (self._default, self._default)  # the last two variants that answered
        self._random = np.random.default_rng(seed)
        self._pending: list[tuple[float, str, int, tuple[tuple[str, int], ...], str]] = []
        self.requests = 0
        self.fallbacks = 0
        self.last_served: dict[str, float] = {}
        """Wall clock of the last request that each variant was given, seconds since 1970."""

    def answer(self, unit_id: str, row: Features, label: int) -> int:
        """Answer one request; the label becomes known some time later."""
        ab = self._client
        assigned = ab.assign(EXPERIMENT, unit_id, default=self._default)
        served, seconds = self._predict(assigned.variant, row)
        answers: tuple[tuple[str, int | None], ...] = ((assigned.variant, served),)
        if served is not None and assigned.variant != self._recent[0]:
            self._recent = (assigned.variant, self._recent[0])
        self.requests += 1
        self.last_served[assigned.variant] = time.time()
        if assigned.in_experiment:
            ab.expose(assigned)
        if assigned.shadow:
            shadow, shadow_seconds = self._predict(assigned.shadow, row)
            answers += ((assigned.shadow, shadow),)
            self._record_shadow(assigned, seconds, shadow_seconds)
        else:
            ab.record(unit_id, "latency_ms", seconds * MILLISECONDS)
            ab.record(unit_id, "failed", served is None)
        known = tuple((name, answer) for name, answer in answers if answer is not None)
        due = self._clock() + float(self._random.exponential(self._label_seconds))
        experiment = EXPERIMENT if assigned.shadow else ""
        heapq.heappush(self._pending, (due, unit_id, label, known, experiment))
        if served is None:  # the variant failed: the model that served before answers instead
            self.fallbacks += 1
            latest, before = self._recent
            served, _ = self._predict(before if latest == assigned.variant else latest, row)
        return -1 if served is None else served

    def labels(self, until: float) -> None:
        """Record what is known by now of earlier answers: right or wrong."""
        while self._pending and self._pending[0][0] <= until:
            _, unit_id, label, answers, experiment = heapq.heappop(self._pending)
            for variant, answer in answers:
                self._client.record(
                    unit_id,
                    "wrong",
                    answer != label,
                    experiment=experiment,
                    variant=variant if experiment else "",
                )

    def _record_shadow(self, assigned: Assignment, seconds: float, shadow_seconds: float) -> None:
        for variant, spent in ((assigned.variant, seconds), (assigned.shadow, shadow_seconds)):
            self._client.record(
                assigned.unit_id,
                "latency_ms",
                spent * MILLISECONDS,
                experiment=EXPERIMENT,
                variant=variant,
            )

    def _predict(self, variant: str, row: Features) -> tuple[int | None, float]:
        start = time.perf_counter()
        try:
            answer = self._models[variant].predict(row)
        except (ValueError, KeyError):
            return None, time.perf_counter() - start
        return answer, time.perf_counter() - start


def main(text: str) -> None:
    """Serve until SIGTERM, then report as one line of JSON."""
    parent = os.getppid()
    settings = Settings(**json.loads(text))
    clock = DemoClock(*settings.clock)
    sample = load_sample()
    trained = train(sample, seed=settings.seed)
    models = {model.name: model for model in trained.all()}
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    seed = settings.seed * 1000 + settings.worker
    mine = np.arange(settings.worker, len(sample.serve), settings.workers)
    order = np.random.default_rng(seed).permutation(mine)
    with Client(settings.workspace, clock=clock) as client:
        server = Server(
            client, models, clock=clock, label_seconds=settings.label_seconds, seed=seed
        )
        # The parent compares: all processes must have the same models.
        print(json.dumps({"fingerprint": trained.fingerprint}), flush=True)
        sys.stdin.readline()
        times = arrivals(settings.rate, since=clock(), seed=seed)
        for number, due in enumerate(times):
            stopping |= os.getppid() != parent  # nobody is left to stop us
            while (now := clock()) < due and not stopping:
                server.labels(now)
                time.sleep(min(0.005, (due - now) / clock.speed))
            if stopping:
                break
            server.labels(now)
            index = int(order[number % len(order)])
            lap = number // len(order)
            person = f"person-{sample.serve_ids[index]}" + (f"-{lap}" if lap else "")
            server.answer(person, sample.serve.features[index], int(sample.serve.labels[index]))
        # The labels of the last answers arrive too, only after the traffic has stopped.
        server.labels(float("inf"))
        client.flush()
        report = {
            "worker": settings.worker,
            "requests": server.requests,
            "fallbacks": server.fallbacks,
            "last_served": server.last_served,
            "accepted": client.health().events.accepted,
            "rejected": client.health().rejected,
        }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
