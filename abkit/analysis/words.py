"""A report in plain words, for people who read sentences rather than tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from abkit.analysis.display import (
    followed,
    hundreds,
    is_over,
    lift_places,
    mean_places,
    metric_unit,
    places_of,
    span,
    unit_of,
    value,
)

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
_NO_SHARE: Final = (
    "control's mean is not above zero, and a share of it is no margin; give a number instead"
)
_GUARANTEES: Final = {
    "fixed-horizon": "This holds for one look that was planned beforehand, not for data that is "
    "watched until it looks good.",
    "exact": "The test is exact at any number of units, for one look that was planned beforehand.",
    "anytime-valid": "This is anytime-valid: it holds at every look, however often one looks and "
    "whenever one stops.",
    "anytime-asymptotic": "This is anytime-valid once there are enough units: it holds at every "
    "look, whenever one stops.",
    "asymptotic": "This holds for all looks together up to the planned end, if what the data says "
    "does not decide when one looks.",
}
_OF_PAIRS: Final = ("paired_", "mcnemar_")
_FAMILIES: Final = {
    "holm": "the chance of any false claim",
    "hommel": "the chance of any false claim",
    "bh": "the expected share of false claims",
    "ebh": "the expected share of false claims",
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
    paired = any(item.estimate.method.startswith(_OF_PAIRS) for item in report.results)
    rows = "rows of pairs" if paired else "units"
    text = f"{sum(report.variants.values()):,} {rows} were compared: {units}."
    if bad:
        reasons = "; ".join(check.text for check in bad)
        return f"{text} Do not decide on this report: {reasons}."
    if odd:
        return f"{text} With care: {'; '.join(check.text for check in odd)}."
    if paired:
        return f"{text} Every unit has both, so there is no split to test."
    if report.srm is None:
        return f"{text} Whether the split is what was intended was not tested: give its weights."
    return f"{text} The split fits what was intended."


def _result(item: Result, report: Report) -> str:
    e = item.estimate
    name = f"{item.metric}, {item.variant} against {item.control}"
    if e.status != "ok" or e.difference is None:
        reason = _REASONS.get(e.status, e.status)
        if e.status == "undefined" and e.scale == "relative":
            reason = _NO_SHARE
        told = [f"{_sentence(text)}." for text in followed(item)]
        return " ".join([f"{name}: no answer, because {reason}.", *told])
    level = "%" if item.kind == "proportion" else ""
    text = f"{name}: {value(e.difference, unit_of(item), signed=True, places=places_of(item))}"
    text += " relative" if e.scale == "relative" else ""
    if e.mean_treatment is not None and e.mean_control is not None:
        means = [
            value(x, level, places=mean_places(item)) for x in (e.mean_treatment, e.mean_control)
        ]
        text += f" ({means[0]} against {means[1]}"
        lift = value(e.lift, "%", signed=True, places=lift_places(item))
        text += f"; {lift} relative)." if lift else ")."
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
        unit = f" {unit_of(item)}" if unit_of(item) else ""
        side = "" if e.alternative == "two-sided" else "one-sided "
        found.append(
            f"With {100 * (1 - e.alpha):.4g} % confidence the true difference lies in the "
            f"{side}interval {span(e.interval, hundreds(item), places_of(item))}{unit}."
        )
    elif e.lift_interval is not None:
        found.append(
            f"With {100 * (1 - e.alpha):.4g} % confidence the true relative difference lies in "
            f"{span(e.lift_interval, 100, lift_places(item))} %."
        )
    if isinstance(e.margin, float | int) and e.p_value is not None:
        border = value(e.margin, unit_of(item), signed=True)
        border += f" of {item.control}'s" if e.scale == "relative" else ""
        side = "above" if e.alternative == "greater" else "below"
        shown = "shown" if _convinced(item) else "not shown"
        found.append(f"That it is {side} {border} is {shown} (p = {e.p_value:.3g}).")
    elif item.looks and e.p_value is not None and e.alternative == "two-sided":
        verdict = "rejected" if _convinced(item) else "not rejected"
        found.append(f"That there is no difference is {verdict} (p = {e.p_value:.3g}).")
    elif e.p_value is not None and e.alternative != "two-sided":
        side = "above" if e.alternative == "greater" else "below"
        shown = "shown" if _convinced(item) else "not shown"
        found.append(f"That it is {side} zero is {shown} (p = {e.p_value:.3g}).")
    elif e.p_value is not None:
        verdict = "chance explains it poorly" if _convinced(item) else "chance alone can explain it"
        found.append(f"If there were no difference, {verdict} (p = {e.p_value:.3g}).")
    return found


def _made(item: Result) -> list[str]:
    """How the options changed the result."""
    e, bayes = item.estimate, item.posterior
    found = [f"{_sentence(text)}." for text in followed(item)]
    if e.variance_reduction is not None:
        found.append(
            f"Covariates remove {value(e.variance_reduction, '%', places=2)} of the variance."
        )
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
            f"{value(bayes.loss_treatment, metric_unit(item))} on average."
        )
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _advice(item: Result) -> str:
    going = item.looks and item.decision == "continue" and not is_over(item)
    if going and item.estimate.margin is None:
        return "Undecided: go on while the plan has looks left, or stop without a claim."
    return _advice_at_the_end(item)


def _advice_at_the_end(item: Result) -> str:
    e = item.estimate
    if e.margin is not None:
        if _convinced(item):
            return f"As far as this metric goes, {item.variant} can replace {item.control}."
        return f"Keep {item.control}, or plan a longer test."
    if e.interval is None:
        if item.correction in ("bh", "ebh") and not _convinced(item):
            text = "It does not stand out; the correction gives an interval only to those that do."
        else:
            text = "There is no interval: weigh the p-value with the size of the difference."
            if e.lift_interval is not None:
                text = "Decide by whether a difference of this size matters to you."
        return text
    if _convinced(item):
        near = _nearest(e.interval)
        if near is None:
            return "Decide by whether a difference of this size matters to you."
        return (
            "Decide by whether a difference matters to you that may be as small as "
            f"{value(near, unit_of(item), signed=True, places=places_of(item))}."
        )
    ends = "ends" if e.alternative == "two-sided" else "end"
    return (
        f"This does not show that there is no difference: if one at the {ends} of the interval "
        "would matter, plan a longer test (four times the units halve the interval)."
    )


def _nearest(interval: Interval) -> float | None:
    """The end of an interval that is closest to zero; None if zero is inside."""
    if 0 in interval:
        return None
    return min((interval.lower, interval.upper), key=abs)


def _convinced(item: Result) -> bool:
    return item.rejected


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
        f"({value(item.estimate.difference, unit_of(item), signed=True, places=places_of(item))}"
        f"{margin})"
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
