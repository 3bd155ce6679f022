"""Log e-values of the exact designs by run and look, and their agreement with what users call."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from scipy import special

from abkit.moments import Block
from abkit.sequential.canary import CanaryDesign, canary_log_e
from abkit.sequential.counts import CountBlock, CountMixture
from abkit.sequential.hypergeometric import HypergeometricMixture, fnch_log_likelihood
from abkit.sequential.tilting import TiltPrior

if TYPE_CHECKING:
    from abkit.estimate import Alternative
    from tests.calibration.streams import Counts, Floats

CHUNK: Final = 200
SIDES: Final[tuple[Alternative, ...]] = ("two-sided", "greater")


def log_paths(nodes: Floats, weights: Floats, x: Counts, tilt: Floats, row: Counts) -> Floats:
    """Log mixture by run and look; tilt[row] is the log partition of each block on the nodes."""
    used = weights > 0
    nodes, logs, tilt = nodes[used], np.log(weights[used]), tilt[:, used]
    out = np.empty(x.shape)
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        path = np.cumsum(x[part, :, None] * nodes - tilt[row[part]], axis=1) + logs
        peak = path.max(axis=2)
        out[part] = peak + np.log(np.exp(path - peak[:, :, None]).sum(axis=2))
    return out


def partitions(
    nt: Counts, nc: Counts, totals: Counts, nodes: Floats, *, poisson: bool
) -> tuple[Floats, Counts]:
    """Log partition functions of the distinct blocks, and which one each run and look has."""
    shape = np.broadcast_to(nt, totals.shape)
    other = np.broadcast_to(nc, totals.shape)
    keys, row = np.unique(
        np.stack([shape, other, totals], axis=-1).reshape(-1, 3), axis=0, return_inverse=True
    )
    table = np.zeros((len(keys), len(nodes)))
    for i, (t, c, s) in enumerate(keys.tolist()):
        if poisson:
            table[i] = s * np.log1p(t / (t + c) * np.expm1(nodes))
        else:
            x = max(0, s - c)
            table[i] = x * nodes - fnch_log_likelihood(x, t, c, s, nodes)[0]
    return table, row.reshape(totals.shape)


def tilted_paths(
    n: tuple[Counts, Counts], events: tuple[Counts, Counts], *, poisson: bool
) -> dict[Alternative, Floats]:
    """Log e-values of the hypergeometric, or of the count mixture, by side, run and look."""
    (nc, nt), (y, x) = n, events
    nodes = TiltPrior().nodes
    table, row = partitions(nt, nc, x + y, nodes, poisson=poisson)
    paths = {
        side: log_paths(nodes, TiltPrior(alternative=side).weights, x, table, row) for side in SIDES
    }
    for side in SIDES:
        check_tilted(side, n, (y[0], x[0]), paths[side][0], poisson=poisson)
    return paths


def check_tilted(
    side: Alternative,
    n: tuple[Counts, Counts],
    events: tuple[Counts, Counts],
    log_e: Floats,
    *,
    poisson: bool,
) -> None:
    """The arrays say what the designs say, at every look of one run."""
    nc, nt, y, x = (array.tolist() for array in (*n, *events))
    if poisson:
        counts = CountMixture(alternative=side).start()
        for k in range(len(x)):
            counts = counts.update(CountBlock(y[k], x[k], nc[k], nt[k]))
            assert counts.log_e_value == pytest.approx(log_e[k], abs=1e-8)
        return
    state = HypergeometricMixture(alternative=side).start()
    for k in range(len(x)):
        state = state.update(Block(nc[k], nt[k], y[k], x[k]))
        assert state.log_e_value == pytest.approx(log_e[k], abs=1e-8)


def canary_paths(
    n: tuple[Counts, Counts], events: tuple[Counts, Counts], hours: Counts, design: CanaryDesign
) -> Floats:
    """Log e-values by run and look; n by look and events by run and look, (control, treatment).

    Another way to compute the same: the parts that have started are one running product for each
    relative risk, to which a part's weight is added when it starts.
    """
    risks, log_prior = np.array(design.relative_risks), np.log(design.weights)
    share = n[1] / (n[0] + n[1])
    null = design.null_relative_risk
    log_e: Floats = np.empty(events[0].shape)
    started = np.full((len(log_e), len(risks)), -np.inf)
    hour, waiting = -1, 1.0
    for look in range(log_e.shape[1]):
        while hour < min(hours[look], design.starts - 1):
            hour += 1
            weight = design.start_weight(hour)
            waiting -= weight
            started = np.logaddexp(started, math.log(weight) + log_prior)
        hits = events[1][:, look, None]
        scale = np.log1p(share[look] * (risks - 1)) - np.log1p(share[look] * (null - 1))
        started += hits * np.log(risks / null) - (events[0][:, look, None] + hits) * scale
        total = special.logsumexp(started, axis=1)
        log_e[:, look] = total if waiting < 1e-9 else np.logaddexp(total, math.log(waiting))
    return log_e


def check_against_the_fold(
    n: tuple[Counts, Counts],
    events: tuple[Counts, Counts],
    hours: Counts,
    design: CanaryDesign,
    log_e: Floats,
    *,
    runs: int = 5,
) -> None:
    """The arrays agree with `canary_log_e` where one looks."""
    for run in range(runs):
        blocks = [
            Block(
                int(n[0][look]),
                int(n[1][look]),
                int(events[0][run, look]),
                int(events[1][run, look]),
                int(hours[look]),
            )
            for look in range(log_e.shape[1])
        ]
        for look in (0, log_e.shape[1] // 3, log_e.shape[1] - 1):
            assert canary_log_e(blocks[: look + 1], design) == pytest.approx(
                log_e[run, look], rel=1e-9, abs=1e-9
            )
