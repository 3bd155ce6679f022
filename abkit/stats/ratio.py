"""Ratios of sums: the delta method within arms, and Fieller's interval for quotients of means.

Clicks per view with users randomised is a ratio of two sums over users. Its numerator and
denominator vary together, so the unit is the user and the variance comes from both columns;
counting each view as a unit rejects a third of all A/A comparisons.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from scipy import stats

from abkit.comoments import Comoments, total_of
from abkit.estimate import Estimate, Interval
from abkit.moments import Moments
from abkit.stats.difference import check_test, lift_side, tail_alpha, unanswered, welch_t
from abkit.stats.standardise import standardised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.estimate import Alternative

Term = str | tuple[str, str]  # a column, or the ratio (numerator, denominator) of two
_FEWEST_UNITS = 2
_LARGEST_LOG = 700.0  # exp(700) is about 1e304, still a float


def term_name(term: Term) -> str:
    """A term as people write it.

    Examples:
        >>> term_name("spend"), term_name(("clicks", "views"))
        ('spend', 'clicks/views')
    """
    return term if isinstance(term, str) else "/".join(term)


def linearised(arm: Comoments, terms: Sequence[Term]) -> Comoments | None:
    """Columns and ratios of one arm as if each were a plain mean (delta method).

    A ratio of means R = my/mx moves with unit i by (y_i - R x_i) / mx to first order. These
    values have mean zero and, shifted by R, the ratio as their mean, so that whatever works on
    means (t tests, covariates, strata) works on ratios.

    Args:
        arm: comoments with all the columns that the terms name.
        terms: a column's name, or a pair (numerator, denominator).

    Returns:
        Comoments whose columns are named as by `term_name`; None where a denominator's mean is
        zero, or a ratio does not fit into a float.

    Raises:
        DataError: a column is missing.

    Source: Deng, Knoblich, Lu (2018).

    Examples:
        >>> arm = Comoments.of({"clicks": [1.0, 0.0, 2.0], "views": [2.0, 2.0, 5.0]})
        >>> linearised(arm, [("clicks", "views")]).means
        (0.3333333333333333,)
    """
    rows: list[list[tuple[int, float]]] = []  # each term as a weighted sum of columns
    means: list[float] = []
    for term in terms:
        if isinstance(term, str):
            rows.append([(arm.index(term), 1.0)])
            means.append(arm.means[arm.index(term)])
            continue
        top, bottom = (arm.index(name) for name in term)
        if arm.means[bottom] == 0:
            return None
        ratio = arm.means[top] / arm.means[bottom]
        rows.append([(top, 1 / arm.means[bottom]), (bottom, -ratio / arm.means[bottom])])
        means.append(ratio)
    products = [
        [total_of(a * b * arm.products[i][j] for i, a in one for j, b in other) for other in rows]
        for one in rows
    ]
    if not all(map(math.isfinite, [*means, *(x for row in products for x in row)])):
        return None
    for i, row in enumerate(products):
        row[i] = max(0.0, row[i])  # rounding can go below zero
        for j in range(i):
            row[j] = products[j][i]
    names = tuple(map(term_name, terms))
    return Comoments(names, arm.n, tuple(means), tuple(map(tuple, products)))


def ratio_difference(
    control: Comoments,
    treatment: Comoments,
    *,
    numerator: str,
    denominator: str,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Difference of two ratios of sums, such as clicks per view, for one look.

    Valid for independent units, each contributing to numerator and denominator; asymptotic, with
    a denominator whose mean is many standard errors away from zero. Welch's t on the linearised
    values (their degrees of freedom are the units', not the denominator's).

    Args:
        control: comoments of the control arm, one row a unit.
        treatment: comoments of the treatment arm.
        numerator: column that is summed on top.
        denominator: column that is summed below.
        alpha: error probability of the interval, in (0, 1).
        alternative: "greater" asks whether treatment has the larger ratio.

    Returns:
        An estimate (method "delta_ratio") whose means are the ratios, in numerator's unit per
        denominator's. Statuses as in `welch_t`; "undefined" where a denominator sums to zero.

    Raises:
        DataError: a column is missing.
        DesignError: alpha or alternative is unusable.

    Source: Deng, Knoblich, Lu (2018); Cochran (1977), chapter 6.

    Examples:
        >>> control = Comoments.of({"clicks": [1, 0, 2, 1], "views": [2, 2, 5, 3]})
        >>> treatment = Comoments.of({"clicks": [2, 1, 2, 0], "views": [3, 2, 4, 1]})
        >>> result = ratio_difference(
        ...     control, treatment, numerator="clicks", denominator="views"
        ... )
        >>> round(result.difference, 6), round(result.standard_error, 6)
        (0.166667, 0.113312)
    """
    check_test(alpha, alternative)
    arms = [linearised(arm, [(numerator, denominator)]) for arm in (control, treatment)]
    return compared_terms(
        arms, (control.n, treatment.n), method="delta_ratio", alpha=alpha, alternative=alternative
    )


def compared_terms(
    arms: Sequence[Comoments | None],
    counts: tuple[int, int],
    *,
    method: str,
    alpha: float,
    alternative: Alternative,
) -> Estimate:
    """Welch's t on the first column of two linearised arms, (control, treatment).

    Args:
        arms: as `linearised` returns them.
        counts: units of control and treatment.
        method: name of the result.
        alpha: error probability, in (0, 1).
        alternative: side of the test.

    Returns:
        The estimate; an arm that could not be linearised gives "undefined", or
        "insufficient_data" where an arm has no units.
    """
    first = [arm.moments(arm.names[0]) if arm is not None else None for arm in arms]
    control, treatment = first
    if control is None or treatment is None:
        blank = unanswered(method, Moments(), Moments(), alpha=alpha, alternative=alternative)
        return replace(
            blank,
            n_control=counts[0],
            n_treatment=counts[1],
            mean_control=control.mean if control else None,
            mean_treatment=treatment.mean if treatment else None,
            status="undefined" if min(counts) else "insufficient_data",
        )
    return replace(welch_t(control, treatment, alpha=alpha, alternative=alternative), method=method)


def log_ratio(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Logarithm of the ratio of two positive means, for one look.

    The logarithm of a mean is nearer to normal than a ratio, so the interval of the lift that it
    gives, `expm1` of the ends, is skewed as it should be and never below -100 %.

    Args:
        control: moments of the control arm.
        treatment: moments of the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the test.

    Returns:
        An estimate on the log scale (method "log_ratio_t") with Welch's degrees of freedom and
        the lift, its interval transformed from the logarithm's. A mean that is not positive gives
        "undefined"; other statuses as in `welch_t`.

    Raises:
        DesignError: alpha or alternative is unusable.

    Source: delta method on the logarithm; as tea-tasting's interval of the relative effect.

    Examples:
        >>> result = log_ratio(Moments(100, 2.0, 99.0), Moments(100, 2.5, 99.0))
        >>> ends = result.lift_interval
        >>> f"{result.lift:.4f} [{ends.lower:.4f}, {ends.upper:.4f}]"
        '0.2500 [0.1017, 0.4183]'
    """
    check_test(alpha, alternative)
    blank = unanswered("log_ratio_t", control, treatment, alpha=alpha, alternative=alternative)
    blank = replace(blank, scale="log")
    if min(control.n, treatment.n) < _FEWEST_UNITS:
        return blank
    if min(control.mean, treatment.mean) <= 0:
        return replace(blank, status="undefined")
    parts = [math.sqrt(arm.variance / arm.n) / arm.mean for arm in (control, treatment)]
    spread = math.hypot(*parts)
    freedom = math.inf
    if 0 < spread < math.inf:
        freedom = 1 / math.fsum(
            (part / spread) ** 4 / (arm.n - 1)
            for part, arm in zip(parts, (control, treatment), strict=True)
        )
    difference = math.log(treatment.mean) - math.log(control.mean)
    result = standardised(blank, difference, spread, freedom)
    if result.interval is None:
        return result
    lift = _grown(difference)
    return replace(
        result,
        lift=lift if math.isfinite(lift) else None,
        lift_interval=Interval(_grown(result.interval.lower), _grown(result.interval.upper)),
    )


def _grown(log_value: float) -> float:
    """Lift that the logarithm of a ratio means; infinite where it does not fit into a float."""
    return math.expm1(log_value) if log_value < _LARGEST_LOG else math.inf


def fieller_lift(
    control: Moments,
    treatment: Moments,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> Estimate:
    """Lift of treatment over control with Fieller's interval, for one look.

    The interval holds every lift r for which `mt - (1 + r) mc` is not significantly different
    from zero, so unlike the delta method it does not need a control mean far from zero, and it
    says so when the data cannot bound the lift.

    Args:
        control: moments of the control arm.
        treatment: moments of the treatment arm.
        alpha: error probability of the interval, in (0, 1).
        alternative: side of the difference; a side keeps one end of the interval.

    Returns:
        An estimate on the relative scale (method "fieller"): `difference` and `interval` are
        the lift and its interval. Where the control mean is not significantly different from
        zero the set is unbounded, and the status is "undefined" without an interval.

    Raises:
        DesignError: alpha or alternative is unusable.

    Source: Fieller (1954), with normal quantiles.

    Examples:
        >>> control, treatment = Moments(100, 2.0, 99.0), Moments(100, 2.5, 99.0)
        >>> result = fieller_lift(control, treatment)
        >>> f"{result.difference} [{result.interval.lower:.6f}, {result.interval.upper:.6f}]"
        '0.25 [0.104023, 0.420219]'
    """
    check_test(alpha, alternative)
    blank = unanswered("fieller", control, treatment, alpha=alpha, alternative=alternative)
    blank = replace(blank, scale="relative")
    if min(control.n, treatment.n) < _FEWEST_UNITS:
        return blank
    spread = (treatment.variance / treatment.n, 0.0, control.variance / control.n)
    answer = _fieller(blank, treatment.mean, control.mean, spread)
    if answer.difference is None:
        return answer
    interval = answer.interval
    return replace(
        answer,
        difference=answer.difference - 1,
        interval=interval and Interval(interval.lower - 1, interval.upper - 1),
    )


def fieller_ratio(
    arm: Comoments, *, numerator: str, denominator: str, alpha: float = 0.05
) -> Estimate:
    """One arm's ratio of sums with Fieller's interval, numerator and denominator correlated.

    Args:
        arm: comoments of the arm, one row a unit.
        numerator: column on top.
        denominator: column below.
        alpha: error probability of the interval, in (0, 1).

    Returns:
        An estimate (method "fieller_ratio") whose `difference` is the ratio itself; units are
        counted as treatment. Statuses as in `fieller_lift`.

    Raises:
        DataError: a column is missing.
        DesignError: alpha is unusable.

    Source: Fieller (1954).

    Examples:
        >>> arm = Comoments.of({"clicks": [1.0, 0.0, 2.0, 1.0], "views": [2.0, 2.0, 5.0, 3.0]})
        >>> fieller_ratio(arm, numerator="clicks", denominator="views").difference
        0.3333333333333333
    """
    check_test(alpha, "two-sided")
    i, j = arm.index(numerator), arm.index(denominator)
    blank = Estimate(
        method="fieller_ratio",
        guarantee="fixed-horizon",
        alpha=alpha,
        alternative="two-sided",
        status="insufficient_data",
        n_treatment=arm.n,
    )
    if arm.n < _FEWEST_UNITS:
        return blank
    scale = arm.n * (arm.n - 1)
    spread = tuple(arm.products[a][b] / scale for a, b in ((i, i), (i, j), (j, j)))
    return _fieller(blank, arm.means[i], arm.means[j], (spread[0], spread[1], spread[2]))


def _fieller(
    blank: Estimate, top: float, bottom: float, spread: tuple[float, float, float]
) -> Estimate:
    """Interval of top/bottom from their (co)variances (top, both, bottom): a quadratic's roots."""
    if bottom == 0:
        return replace(blank, status="undefined")
    # In units of the bottom: r solves (t - r)^2 <= q^2 (vt - 2 r c + r^2 vb).
    ratio = top / bottom
    squares = [value / bottom / bottom for value in spread]
    if not all(map(math.isfinite, [ratio, *squares])):
        return replace(blank, status="undefined")
    blank = replace(blank, difference=ratio)
    if squares[0] == squares[2] == 0:
        return replace(blank, status="zero_variance")
    q2 = float(stats.norm.isf(tail_alpha(blank.alpha, blank.alternative))) ** 2
    vt, c, vb = (q2 * value for value in squares)
    g = 1 - vb
    discriminant = (ratio - c) * (ratio - c) - g * (ratio * ratio - vt)
    if g <= 0 or discriminant < 0 or not math.isfinite(discriminant):
        return replace(blank, status="undefined")
    centre, half = (ratio - c) / g, math.sqrt(discriminant) / g
    side = lift_side(bottom, blank.alternative)
    lower = -math.inf if side == "less" else centre - half
    upper = math.inf if side == "greater" else centre + half
    return replace(blank, status="ok", interval=Interval(lower, upper))
