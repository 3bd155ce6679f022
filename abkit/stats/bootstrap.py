"""Bootstrap intervals for differences of any statistic that has no formula."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from scipy import stats

from abkit.errors import ConfigError, DataError
from abkit.estimate import Estimate, Interval
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from abkit.estimate import Alternative

BootstrapMethod = Literal["bca", "percentile", "basic"]

# Resampled numbers: 1e9 take about 10 s. BCa's jackknife leaves each value out once, which is
# quadratic in an arm's size.
MOST_RESAMPLED: Final = 1_000_000_000
MOST_JACKKNIFE: Final = 20_000
_FEWEST_UNITS = 3
_BATCH_NUMBERS: Final = 4_000_000


def bootstrap_difference(
    control: ArrayLike,
    treatment: ArrayLike,
    *,
    statistic: Callable[..., Any] = np.mean,
    seed: int,
    resamples: int = 9_999,
    method: BootstrapMethod = "bca",
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Bootstrap interval of the difference of a statistic between two arms, for one look.

    Each arm is resampled by unit. Valid for independent units and statistics that move smoothly
    with the data; not for maxima, and poor for heavy tails, where it misses what a small sample
    has not seen. BCa corrects for bias and skewness.

    Args:
        control: one value a unit, finite.
        treatment: likewise.
        statistic: a function of (array, axis=) such as `numpy.mean` or `numpy.median`.
        seed: of the random generator: the same seed gives the same digits.
        resamples: number of resamples, >= 100.
        method: "bca", "percentile" or "basic".
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the interval.

    Returns:
        An estimate (method "bootstrap_bca" ...) with difference, bootstrap standard error and
        interval, no p-value. Fewer than three values in an arm give "insufficient_data", values
        that are all the same "zero_variance", a statistic that is not finite "undefined"; more
        work than some ten seconds (1e9 resampled values; 20,000 values an arm for BCa)
        "too_large": use "percentile", or fewer resamples.

    Raises:
        ConfigError: the method is unknown, or resamples are too few.
        DataError: a value is missing or infinite.
        DesignError: alpha or alternative is unusable.

    Source: Efron (1987); scipy's `bootstrap`.

    Examples:
        >>> control, treatment = [1.0, 2.0, 3.0, 4.0, 9.0], [2.0, 4.0, 5.0, 6.0, 9.0]
        >>> result = bootstrap_difference(control, treatment, seed=1)
        >>> round(result.difference, 2), 0.0 in result.interval
        (1.4, True)
    """
    check_test(alpha, alternative)
    if method not in get_args(BootstrapMethod):
        raise ConfigError(f"method must be one of {get_args(BootstrapMethod)}, got {method!r}")
    if resamples < 100:
        raise ConfigError(f"resamples must be >= 100, got {resamples}")
    c, t = (np.asarray(values, dtype=float) for values in (control, treatment))
    if not (np.all(np.isfinite(c)) and np.all(np.isfinite(t))):
        raise DataError("values must be finite; drop or fill missing ones before")
    blank = Estimate(
        method=f"bootstrap_{method}",
        guarantee="asymptotic",
        alpha=alpha,
        alternative=alternative,
        status="insufficient_data",
        n_treatment=int(t.size),
        n_control=int(c.size),
    )
    if min(c.size, t.size) == 0:
        return blank
    at_control, at_treatment = float(statistic(c, axis=-1)), float(statistic(t, axis=-1))
    if not math.isfinite(at_treatment - at_control):
        return replace(blank, status="undefined")
    blank = replace(
        blank,
        mean_control=at_control,
        mean_treatment=at_treatment,
        difference=at_treatment - at_control,
    )
    if min(c.size, t.size) < _FEWEST_UNITS:
        return blank
    if np.ptp(c) == 0 and np.ptp(t) == 0:
        return replace(blank, status="zero_variance")
    work = (int(c.size) + int(t.size)) * resamples
    if work > MOST_RESAMPLED or (method == "bca" and max(c.size, t.size) > MOST_JACKKNIFE):
        return replace(blank, status="too_large")
    return _resampled(blank, c, t, statistic, seed=seed, resamples=resamples, method=method)


def _resampled(
    blank: Estimate,
    c: NDArray[np.float64],
    t: NDArray[np.float64],
    statistic: Callable[..., Any],
    *,
    seed: int,
    resamples: int,
    method: BootstrapMethod,
) -> Estimate:
    def difference(x: NDArray[np.float64], y: NDArray[np.float64], axis: int = -1) -> Any:
        return statistic(x, axis=axis) - statistic(y, axis=axis)

    # Where all resamples agree, or none lies on one side, BCa has no answer and says so by a
    # warning and NaN; that is a status here.

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            found = stats.bootstrap(
                (t, c),
                difference,
                n_resamples=resamples,
                batch=max(1, _BATCH_NUMBERS // int(max(c.size, t.size))),
                vectorized=True,
                confidence_level=1 - blank.alpha,
                alternative=blank.alternative,
                method=method,
                rng=np.random.default_rng(seed),
            )
    low, high = (float(end) for end in found.confidence_interval)
    spread = float(found.standard_error)
    if math.isnan(low) or math.isnan(high) or not math.isfinite(spread):
        return replace(blank, status="undefined")
    if spread == 0:
        return replace(blank, status="zero_variance")
    return replace(blank, status="ok", standard_error=spread, interval=Interval(low, high))
