"""How many requests do the demo's acts need? By split and by test, on the demo's own models.

Replays the census rows in many random orders through the real tests, one look every 100 requests:
act 1 (the logistic model as canary of the teacher) with the canary test and the difference test;
act 2 (the distilled student) on paired shadow answers. Prints medians and 90th percentiles.

    python3 dev.py run python benchmarks/census_rollouts.py --orders 400
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from abkit.demo.models import ONE_THREAD

os.environ.update(ONE_THREAD)

from abkit.demo.models import load_sample, train
from abkit.moments import Block, Moments
from abkit.sequential.canary import CanaryDesign, CanaryState
from abkit.sequential.mixture import paired_difference, stratified_difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Search = Callable[[Bools, Bools, np.random.Generator], float]

LOOK = 100
ALPHA = 0.01
BETA = 0.05
MARGIN = 0.01
PLANNED = 4_000


def canary(share: float) -> Search:
    """Requests until the canary test halts at this split."""

    def search(control: Bools, treatment: Bools, random: np.random.Generator) -> float:
        state = CanaryState.start(CanaryDesign())
        order = random.permutation(len(control))
        arm = random.random(len(control)) < share
        for end in range(LOOK, len(order) + 1, LOOK):
            rows, treated = order[end - LOOK : end], arm[end - LOOK : end]
            bad_control = int(control[rows[~treated]].sum())
            bad_treatment = int(treatment[rows[treated]].sum())
            n = int(treated.sum())
            state = state.update(Block(LOOK - n, n, bad_control, bad_treatment))
            if state.log_e_value >= np.log(1 / ALPHA):
                return float(end)
        return np.inf

    return search


def difference(share: float) -> Search:
    """Requests until the one-sided normal mixture on the difference halts at this split."""

    def search(control: Bools, treatment: Bools, random: np.random.Generator) -> float:
        order = random.permutation(len(control))
        arm = random.random(len(control)) < share
        n_treatment = np.cumsum(arm)
        x_treatment = np.cumsum(arm & treatment[order])
        x_control = np.cumsum(~arm & control[order])
        for end in range(LOOK, len(order) + 1, LOOK):
            n, x, y = (int(v[end - 1]) for v in (n_treatment, x_treatment, x_control))
            pair = (Moments.of_counts(end - n, y), Moments.of_counts(n, x))
            found = stratified_difference(
                [pair],
                planned_units=PLANNED,
                alpha=BETA,
                alternative="greater",
                margin=MARGIN,
                kind="proportion",
            )
            if (found.e_value or 0.0) >= 1 / ALPHA:
                return float(end)
        return np.inf

    return search


def paired(control: Bools, treatment: Bools, random: np.random.Generator) -> float:
    """Paired answers until the student is shown to be at most a point worse."""
    order = random.permutation(len(control))
    worse = np.cumsum(treatment[order] & ~control[order])
    better = np.cumsum(control[order] & ~treatment[order])
    for end in range(LOOK, len(order) + 1, LOOK):
        up, down = int(worse[end - 1]), int(better[end - 1])
        mean = (up - down) / end
        moments = Moments(end, mean, up + down - end * mean * mean)
        found = paired_difference(
            moments,
            planned_units=PLANNED,
            alpha=BETA,
            alternative="less",
            margin=MARGIN,
            kind="proportion",
        )
        if (found.e_value or 0.0) >= 1 / BETA:
            return float(end)
    return np.inf


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=400, help="random orders a row (400)")
    orders = parser.parse_args().orders
    sample = load_sample()
    models = train(sample)
    wrong = {
        model.name: model.predict_many(sample.serve.features) != sample.serve.labels
        for model in (models.teacher, models.logistic, models.student)
    }
    teacher, logistic, student = wrong.values()
    rows: list[tuple[str, Search, Bools]] = []
    for share in (0.5, 0.25, 0.05):
        rows.append((f"act 1, canary test, {share:.0%} split", canary(share), logistic))
        rows.append((f"act 1, difference test, {share:.0%} split", difference(share), logistic))
    rows.append(("act 2, paired shadow, margin 1 point", paired, student))
    table = Table(box=None, pad_edge=False)
    for name in ("what", "median requests", "p90", "decided in 60,000"):
        table.add_column(name, justify="left" if name == "what" else "right")
    console = Console()
    for name, search, treatment in track(rows, console=Console(stderr=True)):
        random = np.random.default_rng(1)
        found = np.array([search(teacher, treatment, random) for _ in range(orders)])
        decided = np.isfinite(found)
        middle, late = np.quantile(found, [0.5, 0.9], method="inverted_cdf")
        cells = [f"{x:,.0f}" if np.isfinite(x) else "over 60,000" for x in (middle, late)]
        table.add_row(name, *cells, f"{decided.mean():.0%}")
    means = ", ".join(f"{name} {values.mean():.4f}" for name, values in wrong.items())
    console.print(f"wrong answers on {len(teacher):,} rows: {means}")
    console.print(f"student and teacher differ on {np.mean(teacher != student):.2%} of rows")
    console.print(table)


if __name__ == "__main__":
    main()
