"""The recursion under every group sequential number: who is still running, and with which score.

The score S is a sum whose mean is effect times information and whose variance is information,
with independent increments: a Brownian motion seen at the looks (Jennison, Turnbull 2000, section
3.1). A `Walk` is the sub-density of S over the runs that no earlier look has stopped, at the nodes
of a quadrature. `advance` carries it to the next look: the density there is the integral of the
old one times a normal kernel, cut off at the boundaries (Armitage, McPherson, Rowe 1969).

All walks are computed under no effect. Under an effect e the density is the same one times
`exp(e S - e^2 I / 2)`, so one walk answers for every effect.

**Accuracy.** Integrands are entire functions on an interval, for which Gauss-Legendre quadrature
converges geometrically. Panels of 16 nodes are at most 6 standard deviations of the smaller
neighbouring increment wide: boundaries of 100 looks are then within 1e-11 of those with panels of
4 and twice the nodes. What lies beyond 8.5 standard deviations (1e-17) is left out.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Step = tuple[float, float, float]  # information, and the z values between which runs go on
Path = tuple[Step, ...]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PANEL: Final = 6.0  # widest panel, in standard deviations of the increment
_REACH: Final = 8.5
_ROOT_TWO_PI: Final = math.sqrt(2 * math.pi)
_SMALLEST: Final = 1e-280  # error probabilities below: the boundary is out of anyone's reach
_NEWTON_STEPS: Final = 100
_CHUNK: Final = 100
_LARGEST_EXPONENT: Final = 700.0  # nothing is left of the masses where it would be larger


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Runs that are still going on after a look.

    Args:
        information: clock of the look, >= 0.
        points: scores at the nodes, shape (m,).
        masses: probability under no effect that goes with each node, shape (m,); their sum is the
            probability of still running.
        origin: score and information from which the walk set out; (0, 0) but for what may still
            happen to a run that is under way.
    """

    information: float
    points: Array
    masses: Array
    origin: tuple[float, float] = (0.0, 0.0)


START: Final = Walk(0.0, np.zeros(1), np.ones(1))


def advance(walk: Walk, step: Step, following: float, *, reach: float = 0.0) -> Walk:
    """Runs that go on after the next look.

    Args:
        walk: runs that came to it.
        step: its information, above that of `walk`, and the z values between which runs go on.
        following: information of the look after it: sets how fine the nodes must lie.
        reach: largest absolute drift in z for which the answer is wanted, >= 0.

    Returns:
        The walk after the look; without nodes where nothing goes on.
    """
    information, lower, upper = step
    increment = information - walk.information
    root, deviation = math.sqrt(information), math.sqrt(increment)
    low = max(lower, -_REACH - reach) * root
    high = min(upper, _REACH + reach) * root
    if not low < high:
        return Walk(information, np.zeros(0), np.zeros(0), walk.origin)
    finest = math.sqrt(min(increment, following - information))
    panels = math.ceil((high - low) / (_PANEL * finest))
    half = (high - low) / panels / 2
    middles = low + half * (2 * np.arange(panels) + 1)
    points = np.add.outer(middles, half * _NODES).ravel()
    u = np.subtract.outer(points / deviation, walk.points / deviation)
    u *= u
    u *= -0.5
    density = np.exp(u, out=u) @ walk.masses
    weights = np.tile(_WEIGHTS * (half / (deviation * _ROOT_TWO_PI)), panels)
    return Walk(information, points, weights * density, walk.origin)


def from_score(score: float, information: float) -> Walk:
    """A single run with this score: the start of what may still happen to it."""
    return Walk(information, np.array([score]), np.ones(1), (score, information))


def tilted(walk: Walk, effect: float) -> Array:
    """Masses under an effect, the mean of the score for each unit of information."""
    score, information = walk.origin
    if effect == 0 or walk.information == information:
        return walk.masses
    elapsed = walk.information - information
    exponent = effect * (walk.points - score) - effect * effect * elapsed / 2
    return walk.masses * np.exp(np.minimum(exponent, _LARGEST_EXPONENT))


def above(walk: Walk, masses: Array, information: float, z: float, effect: float = 0.0) -> float:
    """Probability to come to the next look and find the statistic at or above z.

    Args:
        walk: runs that come to it.
        masses: their probabilities under the effect, see `tilted`.
        information: clock of the look, above that of `walk`.
        z: a boundary; infinite ones are allowed.
        effect: mean of the score for each unit of information.
    """
    if math.isinf(z):
        return 0.0 if z > 0 else float(masses.sum())
    increment = information - walk.information
    u = walk.points + (effect * increment - z * math.sqrt(information))
    return float(masses @ special.ndtr(u / math.sqrt(increment)))


def below(walk: Walk, masses: Array, information: float, z: float, effect: float = 0.0) -> float:
    """Probability to come to the next look and find the statistic below z."""
    if math.isinf(z):
        return 0.0 if z < 0 else float(masses.sum())
    increment = information - walk.information
    u = z * math.sqrt(information) - walk.points - effect * increment
    return float(masses @ special.ndtr(u / math.sqrt(increment)))


def upper_boundary(walk: Walk, information: float, probability: float) -> float:
    """The z that a run under no effect comes to and reaches with a given probability.

    Newton's method on the logarithm of the probability. Without any earlier stop the boundary
    would be the normal quantile, which is therefore never below the root. The tail of a
    log-concave density is log-concave, so the steps descend to the root and never pass it.

    Args:
        walk: runs that come to the look.
        information: clock of the look, above that of `walk`.
        probability: wanted, in [0, 1).

    Returns:
        The boundary; infinite for probabilities too small to be spent.
    """
    return _boundary(walk, walk.masses, information, probability, 0.0)


def lower_boundary(walk: Walk, information: float, probability: float, effect: float) -> float:
    """The z below which a run under this effect is found with a given probability.

    Args:
        walk: runs that come to the look.
        information: clock of the look, above that of `walk`.
        probability: wanted, in [0, 1).
        effect: mean of the score for each unit of information.

    Returns:
        The boundary; -infinity for probabilities too small to be spent.
    """
    mirrored = Walk(walk.information, -walk.points, walk.masses)
    return -_boundary(mirrored, tilted(walk, effect), information, probability, -effect)


def _boundary(
    walk: Walk, masses: Array, information: float, probability: float, effect: float
) -> float:
    if probability < _SMALLEST:
        return math.inf
    if probability >= float(masses.sum()):
        return -math.inf
    increment = information - walk.information
    deviation, root = math.sqrt(increment), math.sqrt(information)
    z = effect * root - float(special.ndtri(probability))
    shifted = (walk.points + effect * increment) / deviation
    slope = root / deviation
    for _ in range(_NEWTON_STEPS):
        u = shifted - z * slope
        reached = float(masses @ special.ndtr(u))
        if reached < _SMALLEST:
            return z  # on the safe side: the root is not above it
        density = float(masses @ np.exp(-0.5 * u * u)) * slope / _ROOT_TWO_PI
        step = reached * math.log(reached / probability) / density
        z += step
        if abs(step) < 1e-6:  # the next one would be of the order of its square
            break
    return z


@functools.lru_cache(maxsize=512)
def _remembered(path: Path, following: float) -> Walk:
    if not path:
        return START
    *before, last = path
    return advance(_remembered(tuple(before), last[0]), last, following)


def survivors(path: Path, following: float) -> Walk:
    """Runs that go on after a series of looks.

    Walks of recent paths are remembered, so a series that grows look by look costs one step a look.

    Args:
        path: (information, lower z, upper z) of each look, information rising.
        following: information of the next look, above the last.
    """
    for end in range(_CHUNK, len(path), _CHUNK):  # keeps the recursion shallow for long series
        _remembered(path[:end], path[end][0])
    return _remembered(path, following)
