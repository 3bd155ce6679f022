"""First looks at which peers reject, on streams that `claims.py` wrote: one peer a process.

Runs under the interpreter that has the peer, and imports nothing of abkit.

    python benchmarks/claims_peers.py PEER FOLDER
    python benchmarks/claims_peers.py variance FOLDER    # of gbstats, at a mean of 1.7e9
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

# What pip installs of each; tea-tasting 2 and expectation 0.6 need Python 3.12.
PEERS = {
    "gbstats": "gbstats==0.8.0",
    "tea-tasting": "tea-tasting==1.14.0",
    "spotify-confidence": "spotify-confidence==4.1.0",
    "ep-stats": "ep-stats==2.5.10",
    "savvi": "savvi==0.3.1",
    "ville": "ville==0.1.0",
    "msprt": "msprt==0.1.2",
}


def arms(stream: Any, *names: str) -> Any:
    """Running sums of both arms: units, then each of the names, by run and look."""
    for arm, n in (("y", stream["nc"]), ("x", stream["nt"])):
        yield (np.cumsum(n), *(np.cumsum(stream[arm + name], axis=1) for name in names))


def first_of(crossed: np.ndarray) -> np.ndarray:
    """Look of the first crossing by run, -1 for none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1), -1)


def one_by_one(stream: Any, rejects: Any) -> np.ndarray:
    """First rejecting looks, run by run, look by look from 25 units in each arm."""
    first = np.full(len(stream["x"]), -1)
    usable = np.minimum(np.cumsum(stream["nc"]), np.cumsum(stream["nt"])) >= 25
    for run in range(len(first)):
        for k in np.flatnonzero(usable):
            if rejects(run, k):
                first[run] = k
                break
    return first


def gbstats(kind: str, stream: Any) -> np.ndarray:
    """GrowthBook's sequential test on the relative scale, tuned to the planned units."""
    from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
    from gbstats.models.statistics import ProportionStatistic, RatioStatistic, SampleMeanStatistic

    config = SequentialConfig(sequential_tuning_parameter=float(stream["planned"]))
    names = ("", *(("d", "dd", "nd") if kind == "ratio" else ()))
    squares = [np.cumsum(stream[name], axis=1) for name in ("yy", "xx")]
    both = list(arms(stream, *names))

    def statistic(arm: int, run: int, k: int) -> Any:
        n, total, *more = (x[k] if x.ndim == 1 else x[run, k] for x in both[arm])
        if kind.startswith("p ="):
            return ProportionStatistic(n=int(n), sum=float(total))
        mean = SampleMeanStatistic(
            n=int(n), sum=float(total), sum_squares=float(squares[arm][run, k])
        )
        if kind != "ratio":
            return mean
        views = SampleMeanStatistic(n=int(n), sum=float(more[0]), sum_squares=float(more[1]))
        return RatioStatistic(
            n=int(n), m_statistic=mean, d_statistic=views, m_d_sum_of_products=float(more[2])
        )

    def rejects(run: int, k: int) -> bool:
        pair = [statistic(arm, run, k) for arm in (0, 1)]
        result = SequentialTwoSidedTTest(*pair, config).compute_result()
        return (result.ci[0] > 0 or result.ci[1] < 0) and result.p_value <= 0.05

    return one_by_one(stream, rejects)


def tea_tasting(kind: str, stream: Any) -> np.ndarray:
    """tea-tasting's fixed test (it has no sequential one), looked at each time."""
    import tea_tasting as tt
    from tea_tasting.aggr import Aggregates

    metric = tt.RatioOfMeans("n", "d") if kind == "ratio" else tt.Mean("n")
    names = ("", *(("d", "dd", "nd") if kind == "ratio" else ()))
    squares = [np.cumsum(stream[name], axis=1) for name in ("yy", "xx")]
    both = list(arms(stream, *names))

    def aggregates(arm: int, run: int, k: int) -> Any:
        n, total, *more = (float(x[k] if x.ndim == 1 else x[run, k]) for x in both[arm])
        means = {"n": total / n}
        spreads = {"n": (squares[arm][run, k] - total**2 / n) / (n - 1)}
        moved = {}
        if more:
            means["d"] = more[0] / n
            spreads["d"] = (more[1] - more[0] ** 2 / n) / (n - 1)
            moved["d", "n"] = (more[2] - more[0] * total / n) / (n - 1)
        return Aggregates(int(n), means, spreads, moved)

    def rejects(run: int, k: int) -> bool:
        pair = [aggregates(arm, run, k) for arm in (0, 1)]
        if not all(pair[arm].var_["n"] > 0 for arm in (0, 1)):
            return False
        try:
            return metric.analyze_aggregates(*pair).pvalue <= 0.05
        except OverflowError:  # of its relative interval, with few events
            return False

    return one_by_one(stream, rejects)


def spotify_confidence(kind: str, stream: Any) -> np.ndarray | None:
    """Its boundaries (power family, rho 2) to the horizon N, on the z of the totals."""
    from spotify_confidence.analysis.frequentist.sequential_bound_solver import bounds

    if kind == "ratio":
        return None
    looks = len(stream["nc"]) // 2
    found = bounds(np.arange(1, looks + 1) / looks, 0.05, 2.0, 8.0, 2).bounds
    difference, variance = 0.0, 0.0
    for sign, arm, units in ((-1, "y", "nc"), (1, "x", "nt")):
        n = np.maximum(np.cumsum(stream[units]), 1)
        mean = np.cumsum(stream[arm], axis=1) / n
        square = np.cumsum(stream[arm * 2], axis=1) / n - mean**2
        difference = difference + sign * mean
        variance = variance + square / np.maximum(n - 1, 1)
    z = np.abs(difference) / np.sqrt(np.maximum(variance, 1e-300))
    usable = np.minimum(np.cumsum(stream["nc"]), np.cumsum(stream["nt"]))[:looks] >= 25
    return first_of((z[:, :looks] >= np.array(found)) & usable & (variance[:, :looks] > 0))


def ep_stats(kind: str, stream: Any) -> np.ndarray | None:
    """Its t test at the level that its O'Brien-Fleming spending gives a day, to the horizon N."""
    from epstats.toolkit.statistics import Statistics

    if kind == "ratio":
        return None
    runs, days = len(stream["x"]), len(stream["nc"]) // 2
    crossed = np.zeros((runs, days), dtype=bool)
    for k in range(days):
        level = Statistics.obf_alpha_spending_function(0.95, days, k + 1)
        table = np.empty((runs, 2, 8), dtype=object)
        for arm, (name, units) in enumerate((("y", "nc"), ("x", "nt"))):
            n = int(stream[units][: k + 1].sum())
            total = stream[name][:, : k + 1].sum(axis=1).astype(float)
            square = stream[name * 2][:, : k + 1].sum(axis=1)
            std = np.sqrt(np.maximum(square - total**2 / max(n, 1), 0) / max(n - 1, 1))
            table[:, arm, 0] = table[:, arm, 1] = range(runs)
            table[:, arm, 2] = "ab"[arm]
            for place, value in enumerate((max(n, 1), total / max(n, 1), std, total, level)):
                table[:, arm, 3 + place] = value
        if min(stream["nc"][: k + 1].sum(), stream["nt"][: k + 1].sum()) < 25:
            continue
        with np.errstate(all="ignore"):
            result = Statistics.ttest_evaluation(table, "a")
        p = result[result["exp_variant_id"] == "b"].sort_values("metric_id")["p_value"]
        crossed[:, k] = p.to_numpy(float) < 1 - level
    return first_of(crossed)


def savvi(kind: str, stream: Any) -> np.ndarray | None:
    """Lindon and Malek's multinomial test of the events' sides, at the prior k = 100."""
    from savvi.multinomial import Multinomial

    if not kind.startswith(("p =", "Poisson")):
        return None
    share = float(np.sum(stream["nt"]) / np.sum(stream["nt"] + stream["nc"]))
    first = np.full(len(stream["x"]), -1)
    for run, (y, x) in enumerate(zip(stream["y"], stream["x"], strict=True)):
        test = Multinomial(0.05, np.array([1 - share, share]), 100)
        for k, events in enumerate(np.stack([y, x], axis=1).astype(int)):
            test.n += int(events.sum())
            test.counts += events
            test.odds = test.update_odds(events)
            if test.odds >= 20:
                first[run] = k
                break
    return first


def units_of(stream: Any, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and arms of all units of one run, in an order that mixes arms, and where looks end."""
    rng = np.random.default_rng(run)
    values, treated = [], []
    ends = {
        arm: np.concatenate([[0], np.cumsum(stream[n])]) for arm, n in (("y", "nc"), ("x", "nt"))
    }
    for k in range(len(stream["nc"])):
        parts = []
        for arm in "yx":
            start, end = ends[arm][k], ends[arm][k + 1]
            if f"{arm}_raw" in stream:
                parts.append(stream[f"{arm}_raw"][run, start:end])
            else:
                parts.append((np.arange(end - start) < stream[arm][run, k]).astype(float))
        order = rng.permutation(sum(map(len, parts)))
        values.append(np.concatenate(parts)[order])
        treated.append(np.repeat([0, 1], [len(part) for part in parts])[order])
    lengths = np.cumsum([len(part) for part in values])
    return np.concatenate(values), np.concatenate(treated), lengths


def ville(kind: str, stream: Any) -> np.ndarray | None:
    """Its asymptotic A/B test, which knows the share, tuned to N; of constant shares."""
    from ville import AsymptoticABTest

    if kind == "ratio" or stream["epoch"].any():
        return None
    first = np.full(len(stream["x"]), -1)
    for run in range(len(first)):
        values, treated, ends = units_of(stream, run)
        test = AsymptoticABTest(propensity=float(stream["share"]), t_opt=int(stream["planned"]))
        test.fit(values, treated)
        at = ends - 1
        lower, upper = test.lower_[at], test.upper_[at]
        first[run] = first_of(((lower > 0) | (upper < 0))[None, :])[0]
    return first


def msprt(kind: str, stream: Any) -> np.ndarray | None:
    """The package msprt, pair by pair, of even splits: normal values only, its loop is slow."""
    from msprt import msprt as test

    if kind != "normal" or float(stream["share"]) != 0.5:
        return None
    first = np.full(min(40, len(stream["x"])), -1)
    pairs = np.cumsum(np.minimum(stream["nc"], stream["nt"]))
    for run in range(len(first)):
        n = pairs[-1]
        x, y = stream["x_raw"][run, :n], stream["y_raw"][run, :n]
        answer = test(x=x, y=y, sigma=1.0, theta=0.0, truncation=float(n // 2), alpha=0.05)
        if answer.n_rejection < n:
            first[run] = int(np.searchsorted(pairs, answer.n_rejection))
    return first


def relative_error(folder: Path) -> float:
    """Of gbstats' variance, from the sums that its queries make: as DuckDB sums them."""
    from gbstats.models.statistics import SampleMeanStatistic

    given = np.load(folder / "variance.npz")
    found = SampleMeanStatistic(
        n=int(given["n"]), sum=float(given["sum"]), sum_squares=float(given["squares"])
    )
    return float(abs(found.variance / float(given["variance"]) - 1))


RUN = {
    "gbstats": gbstats,
    "tea-tasting": tea_tasting,
    "spotify-confidence": spotify_confidence,
    "ep-stats": ep_stats,
    "savvi": savvi,
    "ville": ville,
    "msprt": msprt,
}


def main() -> None:
    """Answer every stream of a folder."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name == "variance":
        print(relative_error(folder))
        return
    answers: dict[str, Any] = {"version": version(name)}
    files = sorted(folder.glob("stream-*.npz"))
    for done, file in enumerate(files, start=1):
        with np.load(file) as stream:
            loaded = dict(stream)
        found = RUN[name](str(loaded["kind"]), loaded)
        if found is not None:
            answers[file.stem] = found
        print(f"\r{name}: {done}/{len(files)} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    np.savez(folder / f"answer-{name}.npz", **answers)


if __name__ == "__main__":
    main()
