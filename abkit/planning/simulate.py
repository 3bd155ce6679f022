"""Designs tried out on a user's own data, randomised thousands of times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from scipy import stats

from abkit.errors import ConfigError, DesignError
from abkit.planning.boundaries import (
    COUNT_DESIGNS,
    MOST_LOOKS,
    PEEKING,
    Z_DESIGNS,
    boundary_plan,
    check_designs,
)
from abkit.planning.counts import Evidence
from abkit.planning.sample import BUCKETS, ROWS, SUM, Sample, read_sample
from abkit.planning.simulation import PValues, SimulatedDesign, SimulationReport
from abkit.planning.streams import Effect, affected, draw, paths
from abkit.records import check_count, check_fraction, is_number
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from abkit.estimate import Alternative
    from abkit.planning.streams import Analysis, Paths

    Array = NDArray[np.float64]
    Progress = Callable[[float], None]

SIMULATED: Final = (*Z_DESIGNS, *COUNT_DESIGNS, PEEKING)
DEFAULT_SIMULATED: Final = ("fixed", "group-sequential", "calibrated", "always-valid", PEEKING)
_SRM_ALPHA: Final = 0.01
_DRAWING: Final = 0.7  # share of the time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """How runs are made and judged."""

    designs: tuple[str, ...]
    share: float
    runs: int
    alpha: float
    alternative: Alternative
    seed: int


def simulate_aa(
    data: object,
    *,
    unit: str,
    metrics: Sequence[str],
    time: str | None = None,
    cluster: str | None = None,
    designs: Sequence[str] = DEFAULT_SIMULATED,
    looks: int = 20,
    runs: int = 2_000,
    share: float = 0.5,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    seed: int = 0,
    progress: Progress | None = None,
) -> SimulationReport:
    """Randomise the data again and again without any effect, and count what rejects.

    Args:
        data: path, frame, Arrow table or DuckDB relation; past data without an experiment in it,
            or one arm of one.
        unit: column of the unit; each stands in one row unless there is a cluster.
        metrics: columns of numbers; those of 0 and 1 are proportions.
        time: column by which units come in, for the looks; in a random order without one.
        cluster: column of what is randomised together, such as the user of events. The clusters
            are compared, and beside it the rows, as if each were independent.
        designs: names, see `abkit.sequential.names.DESIGNS`, and "peeking": the fixed test at every
            look, which keeps no promise.
        looks: looks with about as many new rows each, from 1 to 400.
        runs: number of randomisations, >= 100.
        share: of treatment, in (0, 1).
        alpha: error probability, in (0, 1).
        alternative: side of the tests.
        seed: of the random numbers.
        progress: told the share that is done.

    Returns:
        The report; `passed` is False where a design that promises alpha exceeds it beyond chance
        (exact binomial test; a false alarm has a probability of at most .001).

    Raises:
        ConfigError: an option is not usable.
        DataError: the data is not usable.

    Source: Kohavi, Tang, Xu (2020), chapter 19, for A/A tests; Clopper, Pearson (1934) for the
    intervals.

    Examples:
        >>> import pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> frame = pd.DataFrame({"user": range(2_000), "spend": rng.gamma(2.0, 5.0, 2_000)})
        >>> report = simulate_aa(frame, unit="user", metrics=["spend"], looks=10, runs=500)
        >>> report.passed, report.design("peeking").rate > 0.1
        (True, True)
    """
    setting = _setting(
        looks,
        designs=designs,
        share=share,
        runs=runs,
        alpha=alpha,
        alternative=alternative,
        seed=seed,
    )
    sample = read_sample(
        data, unit=unit, metrics=metrics, time=time, cluster=cluster, looks=looks, seed=seed
    )
    return run_simulation(sample, setting, [Effect()] * len(metrics), progress=progress)


def simulate_power(
    data: object,
    *,
    unit: str,
    metrics: Sequence[str],
    lift: float | None = None,
    difference: float | None = None,
    time: str | None = None,
    cluster: str | None = None,
    designs: Sequence[str] = DEFAULT_SIMULATED,
    looks: int = 20,
    runs: int = 2_000,
    share: float = 0.5,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    seed: int = 0,
    progress: Progress | None = None,
) -> SimulationReport:
    """Randomise the data again and again with an effect, and see what finds it, and when.

    Args:
        data: as for `simulate_aa`, and so are the other arguments not named here.
        unit: column of the unit.
        metrics: columns of numbers.
        lift: treatment's values are 1 + lift times as large; of proportions, units are flipped
            until their rate is.
        difference: in the metric's unit, added to treatment's values; of proportions by flips.
        time: column by which units come in.
        cluster: column of what is randomised together.
        designs: names.
        looks: number of looks.
        runs: number of randomisations.
        share: of treatment.
        alpha: error probability.
        alternative: side of the tests.
        seed: of the random numbers.
        progress: told the share that is done.

    Raises:
        ConfigError: an option is not usable, such as a rate beyond 1.
        DataError: the data is not usable.

    Examples:
        >>> import pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> frame = pd.DataFrame({"user": range(2_000), "bought": rng.random(2_000) < 0.3})
        >>> report = simulate_power(frame, unit="user", metrics=["bought"], lift=0.3, runs=500)
        >>> report.design("fixed").rate > 0.9
        True
    """
    setting = _setting(
        looks,
        designs=designs,
        share=share,
        runs=runs,
        alpha=alpha,
        alternative=alternative,
        seed=seed,
    )
    given = [value for value in (lift, difference) if value is not None]
    if len(given) != 1 or not is_number(given[0]) or given[0] == 0:
        raise ConfigError(
            f"give one effect other than 0, as lift or difference; got lift={lift!r}, "
            f"difference={difference!r}"
        )
    sample = read_sample(
        data, unit=unit, metrics=metrics, time=time, cluster=cluster, looks=looks, seed=seed
    )
    effect = Effect(scale=1 + (lift or 0.0), shift=difference or 0.0)
    for name, mean, binary in zip(sample.metrics, sample.means, sample.binary, strict=True):
        rate = mean + effect.difference(mean)
        if binary and not 0 <= rate <= 1:
            raise ConfigError(f"the effect takes the rate {mean:.4g} of {name!r} to {rate:.4g}")
    return run_simulation(sample, setting, [effect] * len(metrics), progress=progress)


def run_simulation(
    sample: Sample,
    setting: _Setting,
    effects: Sequence[Effect],
    *,
    progress: Progress | None = None,
) -> SimulationReport:
    """Runs of a sample: the same randomisations for all metrics and designs.

    Args:
        sample: the data.
        setting: how runs are made and judged.
        effects: one for each metric.
        progress: told the share that is done.
    """
    rng = np.random.default_rng(setting.seed)

    def drawn(part: float) -> None:
        if progress is not None:
            progress(_DRAWING * part)

    new = draw(sample, share=setting.share, runs=setting.runs, rng=rng, progress=drawn)
    totals = sample.totals
    chosen = np.cumsum(new, axis=1)
    control = totals - chosen
    analyses: tuple[Analysis, ...] = ("cluster", "row") if sample.clustered else ("unit",)
    found: list[SimulatedDesign] = []
    p_values: list[PValues] = []
    for number, (name, effect) in enumerate(zip(sample.metrics, effects, strict=True)):
        treated = new if effect == Effect() else affected(new, sample, number, effect, rng)
        running = np.cumsum(treated, axis=1)
        for analysis in analyses:
            path = paths(
                running,
                control,
                sample,
                number,
                analysis=analysis,
                alternative=setting.alternative,
            )
            p_values.append(_p_values(name, analysis, path.p_fixed[:, -1]))
            for design in setting.designs:
                first = _first(
                    design, setting, sample, metric=number, path=path, new=(new, treated)
                )
                found.append(_simulated(name, analysis, design, first, totals[:, ROWS]))
        if progress is not None:
            progress(_DRAWING + (1 - _DRAWING) * (number + 1) / len(effects))
    mode: Literal["aa", "power"] = "aa" if all(e == Effect() for e in effects) else "power"
    return SimulationReport(
        mode=mode,
        alpha=setting.alpha,
        alternative=setting.alternative,
        share=setting.share,
        units=int(totals[-1, ROWS]),
        groups=int(totals[-1, 0]),
        clustered=sample.clustered,
        information=tuple(int(n) for n in totals[:, ROWS]),
        effects=tuple(
            (name, effect.difference(mean))
            for name, effect, mean in zip(sample.metrics, effects, sample.means, strict=True)
        ),
        designs=tuple(found),
        p_values=tuple(p_values),
        srm_alpha=_SRM_ALPHA,
        srm_alarms=_srm_alarms(chosen[:, -1, BUCKETS], totals[-1, BUCKETS], setting.share),
        runs=setting.runs,
        seed=setting.seed,
        notes=sample.notes,
    )


def _setting(looks: int, *, designs: Sequence[str], **rest: Any) -> _Setting:
    check_fraction("simulate", "share", rest["share"])
    check_fraction("simulate", "alpha", rest["alpha"])
    check_test(rest["alpha"], rest["alternative"])
    check_count("simulate", "runs", rest["runs"], least=100)
    check_count("simulate", "looks", looks, least=1)
    if looks > MOST_LOOKS:
        raise ConfigError(f"simulate: looks must be at most {MOST_LOOKS}, got {looks}")
    return _Setting(designs=check_designs(designs, SIMULATED), **rest)


def _first(
    design: str,
    setting: _Setting,
    sample: Sample,
    *,
    metric: int,
    path: Paths,
    new: tuple[Array, Array],
) -> NDArray[np.int64]:
    """The look at which each run rejects; the number of looks where none does."""
    looks = path.z.shape[1]
    if design in COUNT_DESIGNS:
        reached = _counted(design, setting, sample, metric, new)
    elif design == "fixed":
        reached = np.zeros(path.z.shape, dtype=bool)
        reached[:, -1] = path.p_fixed[:, -1] <= setting.alpha
    elif design == PEEKING:
        reached = path.p_fixed <= setting.alpha
    else:
        rows = sample.totals[:, ROWS]
        fractions = tuple((rows / rows[-1]).tolist())
        plan = boundary_plan(
            design, fractions, alpha=setting.alpha, alternative=setting.alternative
        )
        z = np.abs(path.z) if setting.alternative == "two-sided" else path.z
        z = -z if setting.alternative == "less" else z
        reached = path.enough & (z >= np.array(plan.boundaries))
    first: NDArray[np.int64] = np.where(reached.any(axis=1), reached.argmax(axis=1), looks)
    return first


def _counted(
    design: str, setting: _Setting, sample: Sample, metric: int, new: tuple[Array, Array]
) -> NDArray[np.bool_]:
    """Whether the evidence of counts suffices, at every look of every run."""
    name = sample.metrics[metric]
    if sample.clustered or not sample.binary[metric]:
        raise DesignError(
            f"the design {design!r} counts events of single units; {name!r} is not 0 and 1"
            if not sample.clustered
            else f"the design {design!r} counts events of single units, not of clusters"
        )
    chosen, treated = new
    at, mean = sample.metric(metric), sample.means[metric]
    blocks = np.stack([part.sum(axis=0) for part in sample.looks])
    evidence = Evidence(design, setting.alternative, setting.runs)
    found = []
    for look, block in enumerate(blocks):
        nt = np.rint(chosen[:, look, ROWS]).astype(np.int64)
        nc = np.rint(block[ROWS]).astype(np.int64) - nt
        x = np.rint(treated[:, look, at + SUM] + mean * nt).astype(np.int64)
        rest = block[at + SUM] - chosen[:, look, at + SUM]
        y = np.rint(rest + mean * nc).astype(np.int64)
        found.append(evidence.add((nc, nt), (y, x)) >= -np.log(setting.alpha))
    return np.stack(found, axis=1)


def _simulated(
    metric: str, analysis: Analysis, design: str, first: NDArray[np.int64], rows: Array
) -> SimulatedDesign:
    runs, looks = len(first), len(rows)
    counts = np.bincount(first, minlength=looks + 1)[:looks]
    over = np.sort(rows[np.minimum(first, looks - 1)])
    return SimulatedDesign(
        metric=metric,
        analysis=analysis,
        design=design,
        looks=1 if design == "fixed" else looks,
        runs=runs,
        rejections=int(counts.sum()),
        by_look=tuple((np.cumsum(counts) / runs).tolist()),
        mean_units=float(over.mean()),
        median_units=float(np.quantile(over, 0.5, method="inverted_cdf")),
        p90_units=float(np.quantile(over, 0.9, method="inverted_cdf")),
        judged=design != PEEKING and analysis != "row",
    )


def _p_values(metric: str, analysis: Analysis, values: Array) -> PValues:
    found: Any = stats.kstest(values, "uniform")
    return PValues(
        metric=metric,
        analysis=analysis,
        values=tuple(np.sort(values).tolist()),
        ks_statistic=float(found.statistic),
        ks_p_value=float(found.pvalue),
    )


def _srm_alarms(treated: Array, total: float, share: float) -> int:
    """Runs in which a chi-squared test of the split rejects."""
    expected = total * share
    chi2 = (treated - expected) ** 2 * (1 / expected + 1 / (total - expected))
    return int((stats.chi2.sf(chi2, 1) <= _SRM_ALPHA).sum())
