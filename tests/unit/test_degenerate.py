"""Every fixed-horizon function on the same table of degenerate inputs.

Each gives a finite answer or a status that says why: never NaN, and never a warning, since the
suite turns warnings into errors.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abkit.comoments import Comoments
from abkit.errors import AbkitError
from abkit.estimate import Estimate, Interval
from abkit.moments import Moments, PairedCounts
from abkit.stats import (
    bayes,
    bootstrap,
    cluster,
    covariate,
    difference,
    exact,
    interaction,
    margin,
    novelty,
    paired,
    proportion,
    quantile,
    ranks,
    rates,
    ratio,
    shrinkage,
    standardise,
    stratified,
    winsor,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NO_ANSWER = {"insufficient_data", "zero_variance", "undefined", "collinear", "too_large"}

# Zero variance, zero counts, one unit, ties, uneven weights, large means, n beyond 2^31.
SAMPLES: dict[str, tuple[list[float], list[float]]] = {
    "nothing at all": ([], []),
    "nothing in control": ([], [1.0, 2.0, 3.0]),
    "nothing in treatment": ([1.0, 2.0, 3.0], []),
    "one unit each": ([1.0], [2.0]),
    "one unit in treatment": ([1.0, 2.0, 3.0], [2.0]),
    "no variance": ([2.0] * 5, [2.0] * 5),
    "no variance, a difference": ([2.0] * 5, [3.0] * 5),
    "variance in one arm": ([2.0] * 5, [1.0, 2.0, 3.0]),
    "all zero": ([0.0] * 6, [0.0] * 6),
    "zero mean in control": ([-1.0, 1.0, -2.0, 2.0], [1.0, 2.0, 3.0, 4.0]),
    "negative": ([-3.0, -1.0, -2.0], [-2.0, -1.0, -4.0]),
    "an exact tie": ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
    "uneven arms": ([1.0, 2.0, 4.0] * 20, [1.0, 2.0, 9.0] * 4),
    "timestamps": ([1.7e9 + x for x in range(9)], [1.7e9 + x / 2 for x in range(9)]),
    "tiny": ([1e-160, 2e-160, 3e-160], [2e-160, 2e-160, 4e-160]),
    "huge": ([1e150, 2e150, 3e150], [2e150, 2e150, 5e150]),
}
COUNTS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "nothing at all": ((0, 0), (0, 0)),
    "nothing in control": ((0, 0), (9, 3)),
    "one unit each": ((1, 0), (1, 1)),
    "no success": ((20, 0), (20, 0)),
    "nothing but success": ((20, 20), (20, 20)),
    "none against all": ((20, 0), (20, 20)),
    "all against none": ((20, 20), (20, 0)),
    "one event": ((1_000_000, 0), (1_000, 1)),
    "an exact tie": ((40, 13), (40, 13)),
    "5:1 weights": ((500, 21), (100, 7)),
    "beyond 2^31": ((5_000_000_000, 2_500_000_000), (1_000_000_000, 500_050_000)),
}

estimates_of_samples: dict[str, Callable[[list[float], list[float]], Any]] = {}


def moments(values: list[float]) -> Moments:
    return Moments.of(values)


def joint(values: list[float]) -> Comoments:
    """A metric, a covariate that says little of it, a constant, and a denominator."""
    wave = [value + ((i * 7) % 5 - 2) for i, value in enumerate(values)]
    return Comoments.of(
        {
            "y": values,
            "x": wave,
            "same": [2 * value for value in wave],
            "flat": [3.0] * len(values),
            "n": [1.0 + i % 3 for i in range(len(values))],
            "zero": [0.0] * len(values),
        }
    )


def welch(c: list[float], t: list[float]) -> Estimate:
    return difference.welch_t(moments(c), moments(t))


def cuped(*covariates: Any, metric: Any = "y", **more: Any) -> Callable[..., Any]:
    return lambda c, t: covariate.adjusted_difference(
        joint(c), joint(t), metric=metric, covariates=covariates, **more
    )


ON_SAMPLES: dict[str, Callable[[list[float], list[float]], Any]] = {
    "welch": welch,
    "welch greater": lambda c, t: difference.welch_t(moments(c), moments(t), alternative="greater"),
    "at alpha": lambda c, t: standardise.at_alpha(welch(c, t), 0.01),
    "log ratio": lambda c, t: ratio.log_ratio(moments(c), moments(t)),
    "fieller": lambda c, t: ratio.fieller_lift(moments(c), moments(t)),
    "fieller less": lambda c, t: ratio.fieller_lift(moments(c), moments(t), alternative="less"),
    "fieller ratio": lambda c, t: ratio.fieller_ratio(joint(c + t), numerator="y", denominator="x"),
    "ratio": lambda c, t: ratio.ratio_difference(
        joint(c), joint(t), numerator="y", denominator="n"
    ),
    "ratio to the metric": lambda c, t: ratio.ratio_difference(
        joint(c), joint(t), numerator="n", denominator="y"
    ),
    "ratio to zero": lambda c, t: ratio.ratio_difference(
        joint(c), joint(t), numerator="y", denominator="zero"
    ),
    "cuped": cuped("x"),
    "cuped, total": cuped("x", theta_from="total"),
    "cuped by itself": cuped("y", metric="x"),
    "cuped, two": cuped("x", "n"),
    "cuped, collinear": cuped("x", "same"),
    "cuped, flat": cuped("flat"),
    "cuped ratio": cuped("x", ("x", "n"), metric=("y", "n")),
    "non-inferiority": lambda c, t: margin.non_inferiority(welch(c, t), margin=0.1),
    "non-inferiority of the lift": lambda c, t: margin.non_inferiority(
        welch(c, t), margin=0.1, scale="relative"
    ),
    "superiority": lambda c, t: margin.superiority(welch(c, t), higher_is_better=False),
    "equivalence": lambda c, t: margin.equivalence(welch(c, t), lower=-1.0, upper=2.0),
    "relative margin": lambda c, t: margin.relative_margin(moments(c), moments(t), margin=-0.1),
    "paired t": lambda c, t: paired.paired_t(moments(c + t)),
    "median": lambda c, t: quantile.quantile_difference(
        quantile.quantile_summary(c, 0.5), quantile.quantile_summary(t, 0.5)
    ),
    "95th percentile": lambda c, t: quantile.quantile_difference(
        quantile.quantile_summary(c, 0.95, alternative="less"),
        quantile.quantile_summary(t, 0.95, alternative="less"),
    ),
    "mann-whitney": ranks.mann_whitney,
    "bootstrap": lambda c, t: bootstrap.bootstrap_difference(c, t, seed=1, resamples=200),
    "percentile bootstrap": lambda c, t: bootstrap.bootstrap_difference(
        c, t, seed=1, resamples=200, method="percentile"
    ),
    "clusters": lambda c, t: cluster.cluster_difference(
        cluster.cluster_sums(moments([x, x + 1]) for x in c),
        cluster.cluster_sums(moments([x]) for x in t),
    ),
    "one stratum": lambda c, t: stratified.post_stratified([(moments(c), moments(t))]),
    "strata": lambda c, t: stratified.post_stratified(
        [(moments(c), moments(t)), (moments(t), moments(c)), (Moments(), Moments())],
        weighting="precision",
    ),
    "interaction": lambda c, t: interaction.interaction(
        interaction.Cells(neither=moments(c), first=moments(t), second=moments(c), both=moments(t))
    ),
    "trend": lambda c, t: novelty.effect_trend(
        [1, 2, 3], [(moments(c), moments(t)), (moments(t), moments(c)), (moments(c), moments(c))]
    ),
    "trend within": lambda c, t: novelty.effect_trend_within(
        joint(c), joint(t), ages={"y": 1, "x": 2, "n": 5}
    ),
    "normal posterior": lambda c, t: bayes.normal_means(moments(c), moments(t)),
    "normal posterior with a prior": lambda c, t: bayes.normal_posterior(
        welch(c, t), prior=bayes.Normal(0.0, 0.5), scale="relative"
    ),
    "shrunken": lambda c, t: shrinkage.shrunken(welch(c, t), bayes.Normal(0.0, 1.0)),
    "fitted prior": lambda c, t: shrinkage.fit_prior([welch(c, t), welch(t, c), welch(c, t)]),
    "winsorised": lambda c, t: difference.welch_t(
        winsor.WinsorRule(upper=2.5).moments(c), winsor.WinsorRule(upper=2.5).moments(t)
    ),
}

ON_COUNTS: dict[str, Callable[[Moments, Moments], Any]] = {
    "pooled z": proportion.two_proportions,
    "unpooled z": proportion.unpooled_z,
    "newcombe": proportion.newcombe,
    "score": proportion.score_z,
    "score with a margin": lambda c, t: proportion.score_z(
        c, t, margin=-0.05, alternative="greater"
    ),
    "score with a large margin": lambda c, t: proportion.score_z(c, t, margin=0.9),
    "fisher": lambda c, t: exact.exact_proportions(c, t, method="fisher"),
    "barnard": lambda c, t: exact.exact_proportions(c, t, method="barnard"),
    "boschloo": lambda c, t: exact.exact_proportions(c, t, method="boschloo"),
    "mantel-haenszel": lambda c, t: stratified.mantel_haenszel([(c, t), (t, c)]),
    "beta-binomial": bayes.beta_binomial,
    "poisson, exact": lambda c, t: rates.poisson_rates(
        rates.Events(c.successes, float(c.n)), rates.Events(t.successes, float(t.n))
    ),
    "poisson, score": lambda c, t: rates.poisson_rates(
        rates.Events(c.successes, float(c.n)),
        rates.Events(t.successes, float(t.n)),
        method="score",
    ),
    "mcnemar": lambda c, t: paired.mcnemar(
        PairedCounts(c.n - c.successes, c.successes, t.successes, t.n - t.successes)
    ),
    "mcnemar, exact": lambda c, t: paired.mcnemar(
        PairedCounts(c.n - c.successes, c.successes, t.successes, t.n - t.successes),
        method="exact",
        alternative="less",
    ),
    "welch": difference.welch_t,
    "log ratio": ratio.log_ratio,
    "fieller": ratio.fieller_lift,
}


def numbers(result: Any) -> list[float]:
    """Every number in a result, ends of intervals included."""
    flat: list[Any] = []
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        flat += [value.lower, value.upper] if isinstance(value, Interval) else [value]
    return [value for value in flat if isinstance(value, float)]


def check(result: Any) -> None:
    assert result.status == "ok" or result.status in NO_ANSWER
    assert not any(math.isnan(value) for value in numbers(result)), result
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Interval):
            assert value.lower <= value.upper, result
        elif isinstance(value, float) and field.name not in {"statistic", "alpha"}:
            assert math.isfinite(value), (field.name, result)
    p_value = getattr(result, "p_value", None)
    assert p_value is None or 0 <= p_value <= 1
    interval = getattr(result, "interval", None)
    if result.status == "ok" and interval is not None and isinstance(result, Estimate):
        assert result.difference in interval, result
    if result.status in NO_ANSWER - {"zero_variance"} and isinstance(result, Estimate):
        assert p_value is None
        assert interval is None


@pytest.mark.parametrize("function", ON_SAMPLES)
@pytest.mark.parametrize("case", SAMPLES)
def test_samples_give_a_finite_answer_or_say_why_not(function: str, case: str) -> None:
    check(ON_SAMPLES[function](*SAMPLES[case]))


@pytest.mark.parametrize("function", ON_COUNTS)
@pytest.mark.parametrize("case", COUNTS)
def test_counts_give_a_finite_answer_or_say_why_not(function: str, case: str) -> None:
    arms = [Moments.of_counts(*arm) for arm in COUNTS[case]]
    check(ON_COUNTS[function](*arms))


@pytest.mark.parametrize("function", ON_SAMPLES)
def test_an_empty_arm_is_never_ok(function: str) -> None:
    result = ON_SAMPLES[function]([], [])
    assert result.status == "insufficient_data"


values = st.lists(st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.0, 1.0]), max_size=9)


@pytest.mark.parametrize("function", sorted(set(ON_SAMPLES) - {"bootstrap"}))
@settings(max_examples=25, deadline=None)
@given(c=values, t=values)
def test_no_sample_gives_nan_or_a_warning(function: str, c: list[float], t: list[float]) -> None:
    check(ON_SAMPLES[function](c, t))


arms = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (max(pair), min(pair)))


@pytest.mark.parametrize("function", ON_COUNTS)
@settings(max_examples=15, deadline=None)
@given(c=arms, t=arms)
def test_no_counts_give_nan_or_a_warning(
    function: str, c: tuple[int, int], t: tuple[int, int]
) -> None:
    check(ON_COUNTS[function](Moments.of_counts(*c), Moments.of_counts(*t)))


MOMENTS_ONLY: dict[str, Callable[[Moments, Moments], Any]] = {
    "log ratio": ratio.log_ratio,
    "fieller": ratio.fieller_lift,
    "relative margin": lambda c, t: margin.relative_margin(c, t, margin=0.5),
    "non-inferiority": lambda c, t: margin.non_inferiority(
        difference.welch_t(c, t), margin=1.0, scale="relative"
    ),
    "strata": lambda c, t: stratified.post_stratified([(c, t), (t, c)]),
    "interaction": lambda c, t: interaction.interaction(
        interaction.Cells(neither=c, first=t, second=t, both=c)
    ),
    "trend": lambda c, t: novelty.effect_trend([0, 1], [(c, t), (t, c)]),
    "paired t": lambda c, t: paired.paired_t(c),
    "shrunken": lambda c, t: shrinkage.shrunken(difference.welch_t(c, t), bayes.Normal(0, 1)),
    "posterior": bayes.normal_means,
}
anything = st.builds(
    Moments,
    n=st.integers(0, 10**12),
    mean=st.floats(allow_nan=False, allow_infinity=False),
    m2=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)


@pytest.mark.parametrize("function", MOMENTS_ONLY)
@settings(max_examples=60, deadline=None)
@given(c=anything, t=anything)
def test_no_moments_whatever_give_nan_or_a_warning(function: str, c: Moments, t: Moments) -> None:
    try:
        result = MOMENTS_ONLY[function](c, t)
    except AbkitError:  # says which value is too large
        return
    check(result)
