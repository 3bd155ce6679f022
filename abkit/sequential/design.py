"""What every sequential design answers with, and the grammar they share.

A design is a frozen value that states the question before the first unit: the side, the error
probability and, where there is one, the horizon. `design.look(data, past)` is pure: it answers
one look and keeps nothing, so the caller holds the looks so far and passes them back. What `data`
is depends on the design: a `Contrast` for comparisons of means, the running state for those that
add up blocks of counts.

::

    past: list[Look] = []
    for data in stream:
        past.append(design.look(data, past))
        if past[-1].decision != "continue":
            break
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from abkit.errors import DataError, DesignError
from abkit.stats.srm import capped_exp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative, Guarantee, Interval, Scale, Status

Verdict = Literal["reject", "continue", "futility"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The answer at one look.

    A field that a design has no use for is None; NaN never appears.

    Args:
        method: name of the test, such as "hypergeometric_mixture".
        guarantee: what holds, and when.
        alpha: error probability over all looks together, in (0, 1).
        alternative: side of the test and of the interval.
        scale: scale of `estimate` and `interval`.
        status: "ok", or why there is no answer yet.
        decision: "reject" from the first look on at which the null falls, "futility" where a
            design with such a boundary gives up, else "continue".
        information: the clock so far, in the unit of the design (units, events or effective
            units), >= 0.
        fraction: share of the planned information, >= 0, above 1 past the plan.
        estimate: point estimate, on `scale`.
        interval: confidence sequence, or repeated confidence interval, of the estimand.
        statistic: z value, sum or count that is compared with `boundary`.
        boundary: what `statistic` must reach at this look; infinite where no look can reject.
        e_value: evidence against the null at this look, >= 0.
        p_value: valid at every look, in [0, 1]; never rises from look to look.
        alpha_spent: error probability spent up to this look, in [0, alpha].
        notes: what a reader must know, one sentence each.
    """

    method: str
    guarantee: Guarantee
    alpha: float
    alternative: Alternative
    scale: Scale = "absolute"
    status: Status = "ok"
    decision: Verdict = "continue"
    information: float = 0.0
    fraction: float | None = None
    estimate: float | None = None
    interval: Interval | None = None
    statistic: float | None = None
    boundary: float | None = None
    e_value: float | None = None
    p_value: float | None = None
    alpha_spent: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contrast:
    """A stratified sum with its clocks: what comparisons of means are looked at by.

    With h_k = n_t n_c / (n_t + n_c) in allocation epoch k, S = sum h_k (mean_t - mean_c) estimates
    the difference times H = sum h_k.

    Args:
        s: the sum S, in the metric's unit times units.
        v: variance of S, >= 0, in the metric's unit squared times units squared.
        h: effective units H, >= 0: a quarter of all units at an even split.
        enough: whether there are enough units (and events) for asymptotics to be relied on.

    Examples:
        >>> contrast = Contrast(s=30.0, v=250.0, h=1_000.0)
        >>> contrast.difference, round(contrast.z, 4)
        (0.03, 1.8974)
    """

    s: float
    v: float
    h: float
    enough: bool = True

    def __post_init__(self) -> None:
        """Reject what no sample can have."""
        if not (math.isfinite(self.s) and math.isfinite(self.v) and math.isfinite(self.h)):
            raise DataError(f"a contrast must be finite, got s={self.s}, v={self.v}, h={self.h}")
        if self.v < 0 or self.h < 0:
            raise DataError(f"a contrast's v and h must be >= 0, got v={self.v}, h={self.h}")

    @property
    def difference(self) -> float | None:
        """Estimated difference, in the metric's unit; None without effective units."""
        return self.s / self.h if self.h else None

    @property
    def spread(self) -> float:
        """Standard deviation of one effective unit, in the metric's unit; 0.0 without units."""
        return math.sqrt(self.v / self.h) if self.h else 0.0

    @property
    def z(self) -> float:
        """S over its standard error; 0.0 without variance: zero variance is no evidence."""
        return self.s / math.sqrt(self.v) if self.v else 0.0


Data_contra = TypeVar("Data_contra", contravariant=True)


class Design(Protocol[Data_contra]):
    """What every sequential design can do."""

    @property
    def alpha(self) -> float:
        """Error probability over all looks together, in (0, 1)."""
        ...

    @property
    def alternative(self) -> Alternative:
        """Side of the test."""
        ...

    def look(self, data: Data_contra, past: Sequence[Look] = ()) -> Look:
        """Answer one look.

        Args:
            data: everything seen so far, in the form that the design takes.
            past: the answers of earlier looks, oldest first.

        Returns:
            The answer; pure, the same for the same arguments.
        """
        ...


def rejected(past: Sequence[Look]) -> bool:
    """Whether an earlier look rejected: a rejection stands, whatever comes later.

    Examples:
        >>> rejected([])
        False
    """
    return bool(past) and past[-1].decision == "reject"


def check_past(past: Sequence[Look], design: _AnytimeDesign, *, method: str) -> None:
    """Reject earlier looks of another design: their rejections and p-values are not this one's.

    Args:
        past: earlier looks, oldest first.
        design: what is asked now.
        method: of the looks that this design makes.

    Raises:
        DesignError: the last look differs in method, alpha or side.
    """
    if not past:
        return
    last, mine = past[-1], (method, design.alpha, design.alternative)
    if (last.method, last.alpha, last.alternative) != mine:
        raise DesignError(
            f"past holds looks of another design: {last.method} at alpha {last.alpha}, "
            f"{last.alternative}, but this is {mine[0]} at {mine[1]}, {mine[2]}"
        )


def running_p(log_e: float, past: Sequence[Look]) -> float:
    """p-value that is valid at every look: the smallest 1/e so far, at most 1.

    Args:
        log_e: natural logarithm of the e-value at this look.
        past: earlier looks, oldest first; the last one's p-value sums them up.

    Returns:
        A p-value in [0, 1].

    Source: Ville (1939); Johari, Pekelis, Walsh (2015), always valid p-values.

    Examples:
        >>> running_p(0.0, [])
        1.0
        >>> running_p(math.log(40), [])
        0.025
    """
    before = past[-1].p_value if past else None
    return min(1.0 if before is None else before, 1 / capped_exp(max(0.0, log_e)))


def evidence_look(
    design: _AnytimeDesign,
    state: _Evidence,
    past: Sequence[Look],
    *,
    method: str,
    information: float,
    estimate: float | None,
    interval: Interval | None,
    scale: Scale = "absolute",
) -> Look:
    """The look of a test that adds up evidence and is valid at any of them.

    Args:
        design: what was asked.
        state: after all data so far.
        past: earlier looks; a rejection and the p-value stand.
        method: name of the test.
        information: of the design; without any there is no answer yet.
        estimate: of what the interval bounds.
        interval: confidence sequence; None where there is none yet.
        scale: of estimate and interval.

    Raises:
        DesignError: the state or the past belongs to another design.
    """
    if state.design != design:
        raise DesignError(f"this state was started by another design: {state.design}")
    check_past(past, design, method=method)
    log_e = state.log_e_value
    stops = log_e >= -math.log(design.alpha) or rejected(past)
    return Look(
        method=method,
        guarantee="anytime-valid",
        alpha=design.alpha,
        alternative=design.alternative,
        scale=scale,
        status="ok" if information > 0 else "insufficient_data",
        decision="reject" if stops else "continue",
        information=information,
        estimate=estimate,
        interval=interval,
        e_value=capped_exp(log_e),
        p_value=running_p(log_e, past),
    )


class _AnytimeDesign(Protocol):
    @property
    def alpha(self) -> float: ...

    @property
    def alternative(self) -> Alternative: ...


class _Evidence(Protocol):
    @property
    def design(self) -> object: ...

    @property
    def log_e_value(self) -> float: ...
