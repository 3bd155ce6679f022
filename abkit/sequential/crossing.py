"""When a Brownian motion first meets a boundary: by an integral equation, without simulation.

The density g of the first meeting with a smooth boundary b solves Durbin's and Buonocore's
equation

    g(t) = -2 K(t; 0, 0) + 2 integral over u < t of g(u) [K(t; b(u), u) + K(t; -b(u), u)] du,
    K(t; y, u) = density of W(t) = b(t) given W(u) = y, times (b'(t) - (b(t) - y)/(t - u)) / 2,

where the term of -b(u) is there for a boundary on both sides. K vanishes at u = t, so the
trapezoidal rule solves the equation step by step. From g under no drift follows everything under a
drift m too, since the likelihood ratio at the meeting is `exp(m b(t) - m^2 t / 2)`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy import special

from abkit.errors import DesignError
from abkit.sequential.normal import Array, normal_boundary
from abkit.stats.difference import check_test

if TYPE_CHECKING:
    from abkit.estimate import Alternative

_STEPS: Final = 240
_TOLERANCE: Final = 1e-8
_ROUNDS: Final = 80
_STEPPED: Final = 20  # rounds of steps, which can swing to and fro; then the bracket is halved
_TINY: Final = 1e-300
Sides = Literal[1, 2]


@dataclass(frozen=True, slots=True)
class Crossing:
    """First meeting of a Brownian motion with a normal-mixture boundary, up to a horizon.

    Times are in units of the mixture's precision rho, positions in units of sqrt(rho).

    Args:
        log_threshold: the boundary is where the log mixture is this.
        sides: 1 for a boundary above only, 2 for one on both sides.
        times: grid of times, ascending from 0.0, shape (steps + 1,).
        boundary: boundary at those times.
        density: density of the first meeting at those times.
        reached: probability of a meeting up to those times.
    """

    log_threshold: float
    sides: Sides
    times: Array
    boundary: Array
    density: Array
    reached: Array

    @property
    def probability(self) -> float:
        """Probability of ever meeting the boundary up to the horizon, in [0, 1]."""
        return float(self.reached[-1])

    def probability_by(self, time: float) -> float:
        """Probability of a meeting up to a time; that of the horizon for later times."""
        return float(np.interp(math.log1p(time), np.log1p(self.times), self.reached))

    def power(self, drift: float) -> float:
        """Probability of a meeting up to the horizon under a drift per unit of time."""
        return float(np.trapezoid(self._tilted(drift), self.times))

    def mean_time(self, drift: float) -> float:
        """Mean of the time of the meeting, or of the horizon without one, under a drift."""
        density = self._tilted(drift)
        met = float(np.trapezoid(density * self.times, self.times))
        return met + float(self.times[-1]) * (1 - float(np.trapezoid(density, self.times)))

    def _tilted(self, drift: float) -> Array:
        up = drift * self.boundary - 0.5 * drift * drift * self.times
        if self.sides == 1:
            above: Array = self.density * np.exp(up)
            return above
        down = -drift * self.boundary - 0.5 * drift * drift * self.times
        both: Array = self.density * 0.5 * (np.exp(up) + np.exp(down))
        return both


def mixture_crossing(log_threshold: float, horizon: float, *, sides: Sides) -> Crossing:
    """First meeting with the boundary at which the normal mixture reaches a threshold.

    Args:
        log_threshold: log of the mixture on the boundary, > 0.
        horizon: last time, > 0, in units of the mixture's precision.
        sides: 1 or 2.

    Returns:
        The crossing, its probabilities accurate to about 1e-7.

    Source: Durbin (1985); Buonocore, Nobile, Ricciardi (1987), eq. 2.7; Buonocore, Giorno, Nobile,
    Ricciardi (1990) for two boundaries.

    Examples:
        For an open end the probability is at most exp(-log_threshold) by Ville's inequality:

        >>> crossing = mixture_crossing(math.log(20), 1e6, sides=2)
        >>> round(crossing.probability, 4)
        0.0498
    """
    coarse = _solved(log_threshold, horizon, sides, _STEPS // 2)
    fine = _solved(log_threshold, horizon, sides, _STEPS)
    # The kernel's root at u = t leaves an error of order step^1.5, which two grids remove.
    factor = 1 / (2**1.5 - 1)
    density = fine.density.copy()
    density[::2] += factor * (fine.density[::2] - coarse.density)
    density[1::2] += factor * np.interp(
        fine.times[1::2], coarse.times, fine.density[::2] - coarse.density
    )
    reached = fine.reached.copy()
    correction = factor * (fine.reached[::2] - coarse.reached)
    reached[::2] += correction
    reached[1::2] += np.interp(fine.times[1::2], coarse.times, correction)
    return Crossing(log_threshold, sides, fine.times, fine.boundary, density, reached)


def _solved(log_threshold: float, horizon: float, sides: Sides, steps: int) -> Crossing:
    """The integral equation on one grid, even in log(1 + time)."""
    logs = np.linspace(0.0, math.log1p(horizon), steps + 1)
    times = np.expm1(logs)
    total = times + 1.0
    side: Alternative = "two-sided" if sides == 2 else "greater"
    boundary = normal_boundary(times, math.exp(-log_threshold), rho=1.0, alternative=side)
    slope = _slope(boundary, total, sides)
    widths = total * (logs[1] - logs[0])  # d time = total d log
    widths[0] *= 0.5
    density = np.zeros(steps + 1)
    for i in range(1, steps + 1):
        t, b = times[i], boundary[i]
        start = math.exp(-0.5 * b * b / t) / math.sqrt(2 * math.pi * t) * (slope[i] - b / t)
        gone = times[i] - times[1:i]
        kernel = _kernel(b - boundary[1:i], gone, slope[i])
        if sides == 2:
            kernel = kernel + _kernel(b + boundary[1:i], gone, slope[i])
        inner = float((widths[1:i] * density[1:i]) @ kernel)
        density[i] = max(0.0, (inner - start) if sides == 1 else (inner - 2 * start))
    # Two-sided: density is that of either side, each half of it, and so is the sum over both.
    steps_reached = 0.5 * (density[1:] * total[1:] + density[:-1] * total[:-1])
    reached = np.concatenate([[0.0], np.cumsum(steps_reached) * (logs[1] - logs[0])])
    return Crossing(log_threshold, sides, times, boundary, density, reached)


def _kernel(distance: Array, gone: Array, slope: float) -> Array:
    """Twice K of the module's docstring."""
    density = np.exp(-0.5 * distance * distance / gone) / np.sqrt(2 * math.pi * gone)
    return density * (slope - distance / gone)


def _slope(boundary: Array, total: Array, sides: Sides) -> Array:
    """Derivative of the mixture's boundary in time."""
    z = boundary / np.sqrt(total)
    hazard = np.zeros(len(z))
    if sides == 1:
        hazard = np.exp(-0.5 * z * z - special.log_ndtr(z)) / math.sqrt(2 * math.pi)
    return (0.5 * z + 0.5 / (z + hazard)) / np.sqrt(total)


@functools.lru_cache(maxsize=64)
def calibrated_crossing(alpha: float, horizon: float, *, sides: Sides) -> Crossing:
    """The mixture's boundary that is met up to the horizon with probability alpha exactly.

    Args:
        alpha: probability of a meeting without drift, in (0, 1).
        horizon: last time, > 0, in units of the mixture's precision.
        sides: 1 or 2.

    Returns:
        The crossing; its `log_threshold` is below `log(1 / alpha)`, which an open end needs.

    Raises:
        DesignError: alpha or horizon is unusable.

    Examples:
        >>> crossing = calibrated_crossing(0.05, 24.4, sides=2)
        >>> round(crossing.log_threshold, 3), round(crossing.probability, 6)
        (2.536, 0.05)
    """
    check_test(alpha, "two-sided")
    if not (math.isfinite(horizon) and horizon > 0):
        raise DesignError(f"horizon must be finite and > 0, got {horizon}")
    # The logarithm of the probability is nearly minus the threshold: step by its error, inside a
    # bracket that shrinks. An open end needs log(1 / alpha).
    left, right = 0.0, -math.log(alpha)
    met = mixture_crossing(right, horizon, sides=sides)
    for done in range(_ROUNDS):
        error = math.log(max(met.probability, _TINY) / alpha)
        if abs(error) < _TOLERANCE:
            return met
        if error < 0:
            right = min(right, met.log_threshold)
        else:
            left = max(left, met.log_threshold)
        at = met.log_threshold + error
        if done >= _STEPPED or not left < at < right:
            at = 0.5 * (left + right)
        met = mixture_crossing(at, horizon, sides=sides)
    raise DesignError(
        f"no mixture spends {alpha} within a horizon of {horizon} rho; use a later one"
    )
