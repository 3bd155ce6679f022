"""First looks at which peers reject, on streams that `anytime.py` wrote: one peer a process.

Runs under the interpreter that has the peer, and imports nothing of abkit.

    python benchmarks/anytime_peers.py PEER STREAM.npz ANSWER.npz
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import numpy as np


def gbstats(stream: Any) -> np.ndarray:
    """GrowthBook's sequential test on the relative scale, tuned to the planned units."""
    from gbstats.frequentist.tests import (
        SequentialConfig,
        SequentialTwoSidedTTest,
    )
    from gbstats.models.statistics import ProportionStatistic

    config = SequentialConfig(sequential_tuning_parameter=float(stream["planned"]))
    first = np.full(len(stream["x"]), -1)
    nc, nt = np.cumsum(stream["nc"]), np.cumsum(stream["nt"])
    ys, xs = np.cumsum(stream["y"], axis=1), np.cumsum(stream["x"], axis=1)
    for run in range(len(xs)):
        for k in range(xs.shape[1]):
            arms = [
                ProportionStatistic(n=int(n[k]), sum=int(total[run, k]))
                for n, total in ((nc, ys), (nt, xs))
            ]
            result = SequentialTwoSidedTTest(*arms, config).compute_result()
            if (result.ci[0] > 0 or result.ci[1] < 0) and result.p_value <= 0.05:
                first[run] = k
                break
    return first


def savvi(stream: Any) -> np.ndarray:
    """Lindon and Malek's multinomial test of the events' sides, at the default prior k = 100."""
    from savvi.multinomial import Multinomial

    share = float(np.sum(stream["nt"]) / np.sum(stream["nt"] + stream["nc"]))
    first = np.full(len(stream["x"]), -1)
    for run, (y, x) in enumerate(zip(stream["y"], stream["x"], strict=True)):
        test = Multinomial(0.05, np.array([1 - share, share]), 100)
        for k, events in enumerate(np.stack([y, x], axis=1)):
            test.n += int(events.sum())
            test.counts += events
            test.odds = test.update_odds(events)
            if test.odds >= 20:
                first[run] = k
                break
    return first


PEERS = {"gbstats": gbstats, "savvi": savvi}

if __name__ == "__main__":
    first_looks = PEERS[sys.argv[1]](np.load(sys.argv[2]))
    np.savez(sys.argv[3], first=first_looks, version=version(sys.argv[1]))
