"""Rules that halt a canary, on whole arrays of runs: abkit's test, and others restated.

abkit's is `abkit.sequential.canary.CanaryDesign`, its relative risks and weights, added up for
many runs at once; `canary.py` checks it against the shipped code, look by look. The others are
restated here from public documentation, each with its source; no code of theirs was taken.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from canary_streams import HOUR, Counts, Floats, Stream
from scipy import optimize, special

if TYPE_CHECKING:
    from abkit.sequential.canary import CanaryDesign

OURS: Final = "abkit"
PLAIN: Final = "abkit, without restarts"
TOLD: Final = "the same, told the relative risk"
BELIEVING: Final = "abkit's, told the configured weight"
ON_REQUESTS: Final = "abkit's, on requests instead of users"
NEVER: Final = -1
PIECE: Final = 240  # blocks at a time: bounds the memory
THRESHOLD: Final = 0.02  # the error rate above which Flagger's and Argo's checks fail
GROWTHBOOK_TUNING: Final = 5_000.0
GROWTHBOOK_ALPHA: Final = 0.05
KAYENTA_TOLERANCE: Final = 0.25
KAYENTA_Z: Final = 2.3263478740408408  # of a two-sided 98 % interval


@dataclass(frozen=True)
class Told:
    """abkit's test with all weight on one relative risk from the first block on: no user has it.

    It shows what of the distance to the bound is the price of not knowing the risk and the onset.
    """

    risk: float
    null_relative_risk: float = 1.0
    starts: int = 1

    @property
    def relative_risks(self) -> tuple[float, ...]:
        """The true one."""
        return (self.risk,)

    @property
    def weights(self) -> tuple[float, ...]:
        """All on it."""
        return (1.0,)

    def start_weight(self, hour: int) -> float:
        """All at once."""
        return float(hour == 0)


def first_of(crossed: np.ndarray) -> Counts:
    """Index of the first True by run, -1 for none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1), NEVER)


def log_e_path(stream: Stream, design: CanaryDesign | Told, until: float = math.inf) -> Floats:
    """Log e-value of the canary test by run and block.

    Args:
        stream: counts.
        design: the shipped design.
        until: a log e-value after which a run is of no more interest; its path ends in -inf.
    """
    risks, weights = np.array(design.relative_risks), np.array(design.weights)
    null = design.null_relative_risk
    gain, cost = np.log(risks) - math.log(null), risks - 1
    runs, blocks = stream.n_control.shape
    hour = np.minimum(stream.hour, design.starts - 1)
    path = np.full((runs, blocks), -np.inf)
    left = np.arange(runs)
    started = np.full((runs, len(risks)), -np.inf)
    seen_hour = -1
    begin = 0
    while begin < blocks and len(left):
        now = int(hour[begin])
        end = min(begin + PIECE, blocks, begin + int(np.searchsorted(hour[begin:], now + 1)))
        for h in range(seen_hour + 1, now + 1):
            weight = design.start_weight(h)
            if weight > 0:
                started = np.logaddexp(started, math.log(weight) + np.log(weights))
        seen_hour = now
        part = (left, slice(begin, end))
        n_t, n_c = stream.n_treatment[part].astype(float), stream.n_control[part]
        hits = stream.events_treatment[part].astype(float)
        trials = hits + stream.events_control[part]
        theta = n_t / np.maximum(1, n_t + n_c)
        told = (theta > 0) & (theta < 1)
        hits, trials = np.where(told, hits, 0.0), np.where(told, trials, 0.0)
        trials_null = trials * np.log1p(theta * (null - 1))
        gained = hits[..., None] * gain
        gained -= trials[..., None] * np.log1p(theta[..., None] * cost)
        gained += trials_null[..., None]
        np.cumsum(gained, axis=1, out=gained)
        gained += started[:, None, :]
        top = gained.max(axis=2)
        waiting = math.fsum(design.start_weight(h) for h in range(now + 1, design.starts))
        value = np.log(np.exp(gained - top[..., None]).sum(axis=2)) + top
        if waiting > 0:
            value = np.logaddexp(value, math.log(waiting))
        path[part] = value
        started = gained[:, -1, :]
        keep = ~(value >= until).any(axis=1)
        left, started = left[keep], started[keep]
        begin = end
    return path


def believing(stream: Stream) -> Stream:
    """The stream as a test would see it that takes the configured weight for the truth."""
    total = stream.n_control + stream.n_treatment
    meant = np.round(total * stream.planned).astype(np.int64)
    return Stream(
        total - meant,
        meant,
        stream.events_control,
        stream.events_treatment,
        stream.planned,
        stream.epoch,
        stream.seconds,
    )


def srm_path(stream: Stream, concentration: float) -> Floats:
    """Largest log e-value so far of the split against the planned one, over epochs."""
    runs, blocks = stream.n_control.shape
    path = np.zeros((runs, blocks))
    for e in np.unique(stream.epoch):
        at = np.flatnonzero(stream.epoch == e)
        share = float(stream.planned[at[0]])
        total = np.zeros((runs, len(at)))
        value = np.zeros((runs, len(at)))
        for counts, q in ((stream.n_control, 1 - share), (stream.n_treatment, share)):
            n = np.cumsum(counts[:, at], axis=1).astype(float)
            prior = concentration * q
            value += special.gammaln(prior + n) - special.gammaln(prior) - n * math.log(q)
            total += n
        value += special.gammaln(concentration) - special.gammaln(concentration + total)
        path[:, at] = value
    return np.maximum.accumulate(np.maximum(path, 0.0), axis=1)


def checks(stream: Stream, minutes: int, allowed: int) -> Counts:
    """Minute at which more than `allowed` windows had an error rate above 2 % in the canary.

    Windows without a request pass.
    """
    runs = len(stream.n_treatment)
    n = stream.n_treatment.reshape(runs, -1, minutes).sum(axis=2)
    x = stream.events_treatment.reshape(runs, -1, minutes).sum(axis=2)
    first = first_of(np.cumsum(x > THRESHOLD * n, axis=1) > allowed)
    return np.where(first == NEVER, NEVER, (first + 1) * minutes - 1)


def flagger(stream: Stream) -> Counts:
    """A check a minute, and `threshold: 5`: the fifth failed check rolls back.

    Source: docs.flagger.app, "Canary analysis" and "Metrics analysis", with a success rate of at
    least 98 (their example has 99, which a base rate of 1 % fails half of the time).
    """
    return checks(stream, 1, 4)


def argo(stream: Stream) -> Counts:
    """A measurement each five minutes, and `failureLimit: 3`: the fourth failure aborts.

    Source: argo-rollouts.readthedocs.io, "Analysis", with `result[0] >= 0.98`.
    """
    return checks(stream, 5, 3)


def naive_z(stream: Stream) -> Counts:
    """Two proportions by their totals, one-sided at .05, at each minute."""
    n_c, n_t = np.cumsum(stream.n_control, axis=1), np.cumsum(stream.n_treatment, axis=1)
    y, x = np.cumsum(stream.events_control, axis=1), np.cumsum(stream.events_treatment, axis=1)
    pooled = (x + y) / np.maximum(1, n_c + n_t)
    spread = pooled * (1 - pooled) * (1 / np.maximum(1, n_c) + 1 / np.maximum(1, n_t))
    apart = x / np.maximum(1, n_t) - y / np.maximum(1, n_c)
    return first_of((spread > 0) & (apart > 1.644854 * np.sqrt(spread)))


def growthbook(stream: Stream) -> Counts:
    """GrowthBook's sequential interval of the relative lift, at each minute; it lies above 0.

    Source: docs.growthbook.io, "Sequential testing": Waudby-Smith et al. (2023), equations 9 and
    161, alpha .05 two-sided, tuning parameter 5,000, variance of the lift by the delta method.
    """
    n_c, n_t = np.cumsum(stream.n_control, axis=1), np.cumsum(stream.n_treatment, axis=1)
    y, x = np.cumsum(stream.events_control, axis=1), np.cumsum(stream.events_treatment, axis=1)
    mean_c, mean_t = y / np.maximum(1, n_c), x / np.maximum(1, n_t)
    safe = np.where(mean_c > 0, mean_c, 1.0)
    # Both have sample variances; a variance of zero gives no result.
    var_c = mean_c * (1 - mean_c) * n_c / np.maximum(1, n_c - 1)
    var_t = mean_t * (1 - mean_t) * n_t / np.maximum(1, n_t - 1)
    variance = var_t / (safe**2 * np.maximum(1, n_t))
    variance += var_c * mean_t**2 / (safe**4 * np.maximum(1, n_c))
    log_alpha = -2 * math.log(GROWTHBOOK_ALPHA)
    rho2 = (log_alpha + math.log(log_alpha + 1)) / GROWTHBOOK_TUNING
    total = (n_c + n_t).astype(float)
    inner = total * rho2 + 1
    width = 2 * inner * np.log(np.sqrt(inner) / GROWTHBOOK_ALPHA) / (total * rho2)
    return first_of(
        (var_c > 0) & (var_t > 0) & ((mean_t - mean_c) / safe > np.sqrt(variance * width))
    )


def kayenta(stream: Stream) -> Counts:
    """Each hour by itself: sixty error rates of the canary against those of an equal baseline.

    "High" if the lower end of the 98 % Mann-Whitney interval of the shift exceeds a quarter of
    its Hodges-Lehmann estimate, both found by Brent's method to 1e-4 on a normal approximation
    with continuity and tie corrections. Such an hour fails.

    Source: kayenta's judge documentation and R's `wilcox.test`, which it follows.
    """
    if stream.baseline is None:
        raise ValueError("no baseline")
    n_b, x_b = stream.baseline
    runs, minutes = n_b.shape
    canary = stream.events_treatment / np.maximum(1, stream.n_treatment)
    baseline = x_b / np.maximum(1, n_b)
    first = np.full(runs, NEVER)
    for run in range(runs):
        for begin in range(0, minutes, HOUR // 60):
            if _is_high(canary[run, begin : begin + 60], baseline[run, begin : begin + 60]):
                first[run] = begin + 59
                break
    return first


def _is_high(x: Floats, y: Floats) -> bool:
    if x.mean() <= y.mean():  # cannot be high, and costs no search
        return False
    apart = np.sort((x[:, None] - y[None, :]).ravel()).tolist()
    half, size = len(apart) / 2, len(x) + len(y)
    within = np.concatenate(
        [np.unique(x, return_counts=True)[1], np.unique(y, return_counts=True)[1]]
    )
    # A shift that ties x with y is met by chance only: the ties are those within the samples.
    tied = float((within**3 - within).sum()) / (size * (size - 1))
    sigma = math.sqrt(half / 6 * (size + 1 - tied)) if size + 1 > tied else 0.0
    if sigma == 0:
        return False

    def above(shift: float, z: float) -> float:
        low, high = bisect_left(apart, shift), bisect_right(apart, shift)
        gap = len(apart) - (low + high) / 2 - half
        return (gap - math.copysign(0.5, gap) * (gap != 0)) / sigma - z

    ends = (apart[0] - 1e-9, apart[-1] + 1e-9)
    if above(ends[0], KAYENTA_Z) <= 0:
        return False
    lower, estimate = (
        float(optimize.brentq(above, *ends, args=(z,), xtol=1e-4)) for z in (KAYENTA_Z, 0.0)
    )
    return lower > KAYENTA_TOLERANCE * abs(estimate)


PEERS: Final = {
    "Flagger, 2 %": flagger,
    "Argo, 2 %": argo,
    "Kayenta, hourly": kayenta,
    "naive z, .05": naive_z,
    "GrowthBook, each minute": growthbook,
}
