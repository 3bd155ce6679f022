"""A report in plain words, for people who read sentences rather than tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from abkit.analysis.display import span, unit_of, value

if TYPE_CHECKING:
    from abkit.analysis.report import Report, Result
    from abkit.estimate import Interval

_REASONS: Final = {
    "insufficient_data": "there are too few units; collect more",
    "zero_variance": "all values are the same, so nothing says how far chance reaches; look at "
    "whether the metric is recorded",
    "undefined": "the numbers have no finite answer; look at the metric's values, and for a ratio "
    "at a denominator that sums to zero",
    "collinear": "a covariate is constant or follows from the others; leave it out",
    "too_large": "an exact test of so many units would take minutes; leave the method out",
}
_GUARANTEES: Final = {
    "fixed-horizon": "This holds for one look that was planned beforehand, not for data that is "
    "watched until it looks good.",
    "exact": "The test is exact at any number of units, for one look that was planned beforehand.",
}
_FAMILIES: Final = {
    "holm": "the chance of any false claim",
    "hommel": "the chance of any false claim",
    "bh": "the expected share of false claims",
}


def explained(report: Report) -> str:
    """Paragraphs: the data, each result, its guarantee, and what to do.

    Args:
        report: what `analyze` returned.

    Returns:
        Paragraphs with an empty line between them.
    """
    found = [_trust(report)]
    overall = [item for item in report.results if item.segment is None]
    found += [_result(item, report) for item in overall]
    parts = [item for item in report.results if item.segment is not None]
    if parts:
        found.append(_segments(parts))
    found.append(_guarantee(overall))
    return "\n\n".join(found)


def _trust(report: Report) -> str:
    units = ", ".join(f"{n:,} in {name}" for name, n in report.variants.items())
    bad = [check for check in report.checks if check.severity == "block"]
    odd = [check for check in report.checks if check.severity == "warn"]
    text = f"{sum(report.variants.values()):,} units were compared: {units}."
    if bad:
        reasons = "; ".join(check.text for check in bad)
        return f"{text} Do not decide on this report: {reasons}."
    if odd:
        return f"{text} With care: {'; '.join(check.text for check in odd)}."
    if report.srm is None:
        return f"{text} Whether the split is what was intended was not tested: give its weights."
    return f"{text} The split is what was intended."


def _result(item: Result, report: Report) -> str:
    e = item.estimate
    name = f"{item.metric}, {item.variant} against {item.control}"
    if e.status != "ok" or e.difference is None:
        reason = _REASONS.get(e.status, e.status)
        return f"{name}: no answer, because {reason}."
    level = "%" if item.kind == "proportion" else ""
    text = f"{name}: {value(e.difference, unit_of(item), signed=True)}"
    if e.mean_treatment is not None and e.mean_control is not None:
        text += f" ({value(e.mean_treatment, level)} against {value(e.mean_control, level)}"
        text += f"; {value(e.lift, '%', signed=True)} relative)." if e.lift is not None else ")."
    else:
        text += "."
    sentences = [text, *_known(item), *_made(item)]
    if not any(check.severity == "block" for check in report.checks):
        sentences.append(_advice(item))
    return " ".join(sentences)


def _known(item: Result) -> list[str]:
    e = item.estimate
    found = []
    if e.interval is not None:
        scale = 100 if item.kind == "proportion" else 1
        unit = " pp" if item.kind == "proportion" else ""
        side = "" if e.alternative == "two-sided" else "one-sided "
        found.append(
            f"With {100 * (1 - e.alpha):.4g} % confidence the true difference lies in the "
            f"{side}interval {span(e.interval, scale)}{unit}."
        )
    if isinstance(e.margin, float | int) and e.p_value is not None:
        border = value(e.margin, unit_of(item), signed=True)
        side = "above" if e.alternative == "greater" else "below"
        shown = "shown" if _convinced(item) else "not shown"
        found.append(f"That it is {side} {border} is {shown} (p = {e.p_value:.3g}).")
    elif e.p_value is not None:
        verdict = "chance explains it poorly" if _convinced(item) else "chance alone can explain it"
        found.append(f"If there were no difference, {verdict} (p = {e.p_value:.3g}).")
    return found


def _made(item: Result) -> list[str]:
    """How the options changed the result."""
    e, bayes = item.estimate, item.posterior
    found = []
    if e.variance_reduction is not None:
        found.append(f"Covariates remove {value(e.variance_reduction, '%')} of the variance.")
    if item.epochs:
        used = sum(epoch.weight > 0 for epoch in item.epochs)
        found.append(
            f"Arms are compared within {used} epochs, so a change of the allocation "
            "does not matter."
        )
    if bayes is not None and bayes.chance_to_beat is not None:
        found.append(
            f"With a flat prior, {item.variant} is the larger with probability "
            f"{bayes.chance_to_beat:.1%}; choosing it loses "
            f"{value(bayes.loss_treatment, unit_of(item))} on average."
        )
    return found


def _advice(item: Result) -> str:
    e = item.estimate
    if e.margin is not None:
        if _convinced(item):
            return f"As far as this metric goes, {item.variant} can replace {item.control}."
        return f"Keep {item.control}, or plan a longer test."
    if e.interval is None:
        if item.correction == "bh" and not _convinced(item):
            text = "It does not stand out; the correction gives an interval only to those that do."
        else:
            text = "There is no interval: weigh the p-value with the size of the difference."
        return text
    if _convinced(item):
        near = _nearest(e.interval)
        if near is None:
            return "Decide by whether a difference of this size matters to you."
        return (
            "Decide by whether a difference matters to you that may be as small as "
            f"{value(near, unit_of(item), signed=True)}."
        )
    return (
        "This does not show that there is no difference: if one at the ends of the interval would "
        "matter, plan a longer test (four times the units halve the interval)."
    )


def _nearest(interval: Interval) -> float | None:
    """The end of an interval that is closest to zero; None if zero is inside."""
    if 0 in interval:
        return None
    return min((interval.lower, interval.upper), key=abs)


def _convinced(item: Result) -> bool:
    """Whether the null is rejected at the level that was asked for."""
    p = item.estimate.p_value
    return p is not None and p <= item.level


def _segments(parts: list[Result]) -> str:
    columns = ", ".join(dict.fromkeys(item.segment[0] for item in parts if item.segment))
    firm = [item for item in parts if _convinced(item)]
    text = f"By {columns}, {len(parts)} comparisons were made, corrected for their number"
    if not firm:
        return f"{text}: none is more than chance can explain. Do not pick out a segment."
    listed = "; ".join(map(_standing_out, firm))
    return f"{text}. These stand out: {listed}. Treat them as ideas for the next test."


def _standing_out(item: Result) -> str:
    margin = "" if item.estimate.margin is None else ", within its margin"
    return (
        f"{item.metric} of {item.variant} at {'='.join(item.segment or ())} "
        f"({value(item.estimate.difference, unit_of(item), signed=True)}{margin})"
    )


def _guarantee(overall: list[Result]) -> str:
    kinds = dict.fromkeys(item.estimate.guarantee for item in overall)
    found = [_GUARANTEES[kind] for kind in kinds if kind in _GUARANTEES]
    used = next((item for item in overall if item.correction is not None), None)
    if used is not None and used.correction is not None:
        found.append(
            f"The {len(overall)} comparisons are corrected for their number ({used.correction}): "
            f"{_FAMILIES[used.correction]} is at most {used.level:.4g}."
        )
    elif len(overall) > 1:
        found.append(
            f"The {len(overall)} comparisons are not corrected for their number; with each, "
            f"the chance of a false claim grows by up to {overall[0].level:.4g}."
        )
    return " ".join(found)
