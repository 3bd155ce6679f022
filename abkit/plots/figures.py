"""The figures, one function per question."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from abkit.errors import DataError
from abkit.plots.frame import (
    PALETTES,
    Frame,
    across,
    bare_layout,
    edge_notes,
    inert,
    iso,
    point,
    trace,
)
from abkit.plots.looks import (
    MOST_POINTS,
    decision_zone,
    fronted,
    information,
    looks_of,
    thinned,
    watched_edge,
)
from abkit.plots.words import (
    SMALLEST_E_VALUE,
    Scale,
    e_value_text,
    finding,
    margin_of,
    policy_item,
    rule_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from abkit.plots.frame import Theme
    from abkit.plots.looks import Look, Mark, Record
    from abkit.rollout import Rollout


def comparison_over_time(
    records: Sequence[Record], metric: str, *, rollout: Rollout, theme: Theme = "light"
) -> go.Figure:
    """How does treatment compare with control, and how sure is that, look by look?

    The difference with its confidence sequence, against zero and the margin. The y axis is clipped
    to the decision zone, so that wide early bands do not flatten the rest.

    Args:
        records: decision records of the rollout, oldest first.
        metric: key of the metric.
        rollout: the rollout as it is now.
        theme: "light" or "dark".

    Raises:
        DataError: the policy does not watch this metric.
    """
    policy_item(rollout, metric)
    rollout = fronted(records, rollout)
    scale = Scale(rollout.experiment.metric(metric))
    met = [x for x in looks_of(records, metric) if x.evidence["difference"] is not None]
    looks = [look for look in met if look.evidence["lower"] is not None]
    frame = Frame(theme, rollout, records, height=400)
    if not looks and met:
        return frame.empty(
            finding(met[-1].evidence, met[-1].record, rollout),
            "a confidence sequence needs 25 events and 25 others in each variant; the evidence "
            "below is exact and needs none",
        )
    if not looks:
        return frame.empty(
            f"{metric}: nothing to compare yet",
            "a comparison needs units with a value in both variants",
        )
    last = looks[-1]
    worth = [look for look in looks if information(look) >= 0.004 * information(last)]
    shown = thinned(worth)
    margin = margin_of(rollout, metric)
    zero_and_margin = [0.0] if not margin else [0.0, scale.difference(margin)]
    low, high = decision_zone(
        zero_and_margin,
        scale.difference(last.evidence["lower"]),
        scale.difference(last.evidence["upper"]),
    )
    frame.range_y(low, high)
    colour = frame.verdict_colour(last)
    frame.band(shown, scale, watched=watched_edge(rollout, metric, last))
    frame.level_line(0.0, "no difference", dash="solid")
    if margin:
        frame.level_line(scale.difference(margin), f"margin {scale.signed(margin)}", dash="dash")
    frame.interval_bar(last, scale, colour)
    frame.marks_at(scale.difference(last.evidence["difference"]), colour)
    frame.ticks(scale.unit, sign=True)
    return frame.figure(_title(last, rollout, frame.marks), _subtitle(last, rollout, scale))


def rate_over_time(
    records: Sequence[Record], metric: str, *, rollout: Rollout, theme: Theme = "light"
) -> go.Figure:
    """Does treatment keep a fixed limit, where no live control is compared?

    Args:
        records: decision records of the rollout, oldest first.
        metric: key of a metric that a guardrail with test "limit" watches.
        rollout: the rollout as it is now.
        theme: "light" or "dark".

    Raises:
        DataError: the policy has no limit for this metric.
    """
    limit = getattr(policy_item(rollout, metric), "limit", None)
    if limit is None:
        msg = f"rollout {rollout.key!r} has no limit for {metric!r}; see comparison_over_time"
        raise DataError(msg)
    rollout = fronted(records, rollout)
    scale = Scale(rollout.experiment.metric(metric))
    looks = [
        look for look in looks_of(records, metric) if look.evidence["mean_treatment"] is not None
    ]
    frame = Frame(theme, rollout, records, height=320)
    if not looks:
        return frame.empty(f"{metric}: no units yet", "waiting for outcomes of treatment")
    last = looks[-1]
    shown = thinned(looks)
    rates = [100 * look.evidence["mean_treatment"] for look in shown]
    top = 1.25 * max(2 * 100 * limit, rates[-1], min(max(rates), 500 * limit))
    frame.range_y(-0.04 * top, top)
    colour = frame.verdict_colour(last)
    frame.line(
        shown,
        rates,
        name=f"rate of {rollout.treatment}",
        says=lambda look: scale.level(look.evidence["mean_treatment"]),
    )
    frame.level_line(100 * limit, f"limit {scale.level(limit)}", dash="dash")
    frame.end_point(rates[-1], f"{scale.level(last.evidence['mean_treatment'])}", colour)
    frame.marks_at(rates[-1], colour)
    frame.ticks("%", sign=False)
    subtitle = (
        f"{rollout.treatment} (n = {last.evidence['n_treatment']:,}) against a fixed limit; "
        "an exact test, valid at every look"
    )
    return frame.figure(_title(last, rollout, frame.marks), subtitle)


def evidence_over_time(
    records: Sequence[Record], metric: str, *, rollout: Rollout, theme: Theme = "light"
) -> go.Figure:
    """How near is a halt, and how near is promotion?

    The e-values of one metric on a logarithmic axis against their thresholds. An e-value may be
    read at any look: reaching t is less likely than 1/t if there is nothing to find.

    Args:
        records: decision records of the rollout, oldest first.
        metric: key of the metric.
        rollout: the rollout as it is now.
        theme: "light" or "dark".

    Raises:
        DataError: the policy does not watch this metric.
    """
    policy_item(rollout, metric)
    rollout = fronted(records, rollout)
    looks = list(looks_of(records, metric))
    frame = Frame(theme, rollout, records, height=320)
    if not looks:
        return frame.empty(f"{metric}: no look yet", "the controller has not looked yet")
    last = looks[-1]
    shown = thinned(looks)
    halts, promotes = last.record["halt_threshold"], last.record["promote_threshold"]
    guards = last.evidence["role"] == "guardrail"
    lines = [("e_promote", "safe" if guards else "shown", promotes, "dot")]
    if guards:
        lines.insert(0, ("e_harm", "harm", halts, "solid"))
    values = [look.evidence[key] for look in shown for key, *_ in lines]
    ceiling = max(threshold for _, _, threshold, _ in lines) * 30
    floor = min(0.3, max(SMALLEST_E_VALUE, min(values) / 2))
    frame.range_y(math.log10(floor), math.log10(ceiling))
    colour = frame.verdict_colour(last)
    for key, word, threshold, dash in lines:
        # What is beyond the edge runs along it, up to the mark.
        logs = [min(_log10(look.evidence[key]), math.log10(ceiling)) for look in shown]
        frame.line(shown, logs, name=word, dash=dash, says=_e_value_of(key, word))
        what = "halts at" if key == "e_harm" else f"{word} at"
        frame.level_line(_log10(threshold), f"{what} {threshold:,.0f}", dash="dash")
        tells = (last.standing == "harmed") == (key == "e_harm")
        frame.end_point(
            logs[-1],
            f"{word} {e_value_text(last.evidence[key])}",
            colour if tells and last.standing != "open" else None,
        )
    halted = any(mark.action == "halt" for mark in frame.marks)
    told = "e_harm" if guards and halted else "e_promote"
    frame.marks_at(_log10(last.evidence[told]), colour)
    frame.log_ticks()
    return frame.figure(*_evidence_words(last, rollout, guards=guards))


def harm_sparkline(
    records: Sequence[Record], *, rollout: Rollout, theme: Theme = "light"
) -> go.Figure:
    """Does any guardrail come near to its threshold? All of them in one small picture.

    Args:
        records: decision records of the rollout, oldest first.
        rollout: the rollout as it is now.
        theme: "light" or "dark".
    """
    palette = PALETTES[theme]
    threshold = math.log10(rollout.arm_policy.halt_threshold)
    low, high = -1.2, threshold + 1.0
    guarded = [item.metric for item in rollout.policy.guardrails]
    found = {metric: list(looks_of(records, metric)) for metric in guarded}
    last = {metric: looks[-1] for metric, looks in found.items() if looks}
    worst = max(last, key=lambda metric: float(last[metric].evidence["e_harm"]), default="")
    data: list[dict[str, Any]] = []
    notes = [(threshold, f"halts at {rollout.arm_policy.halt_threshold:,.0f}", palette.muted)]
    for metric, newest in last.items():
        looks = thinned(found[metric], most=120)
        heights = [min(max(_log10(look.evidence["e_harm"]), low), high) for look in looks]
        harmed = newest.standing == "harmed"
        tells = metric == worst
        ink = palette.bad if harmed else palette.ink if tells else palette.muted
        line = {"color": palette.ink if tells else palette.muted, "width": 1.8 if tells else 1.0}
        x = [iso(look.time) for look in looks]
        data.append(trace(x, heights, line=line, name=metric, hoverinfo="skip"))
        marker = {"symbol": "diamond", "size": 11} if harmed else {"symbol": "circle", "size": 6}
        data.append(point(newest.time, heights[-1], {**marker, "color": ink}))
        if tells:
            value = e_value_text(newest.evidence["e_harm"])
            notes.append((heights[-1], f"<b>{inert(metric)} {value}</b>", ink))
    layout = bare_layout(palette, height=104) | {
        "margin": {"l": 4, "r": 140, "t": 10, "b": 8},
        "xaxis": {"visible": False, "fixedrange": True, "type": "date"},
        "yaxis": {"visible": False, "fixedrange": True, "range": [low, high]},
        "shapes": [
            across(threshold, palette.muted, "dash"),
            across(0.0, palette.faint, "solid") | {"layer": "below"},
        ],
        "annotations": edge_notes(notes, (low, high), 86),
    }
    return go.Figure({"data": data, "layout": layout}, _validate=False)


def traffic_over_time(
    rows: Sequence[Mapping[str, Any]],
    *,
    rollout: Rollout,
    records: Sequence[Record] = (),
    theme: Theme = "light",
) -> go.Figure:
    """Who met which variant, and when?

    Args:
        rows: exposures by minute, epoch and variant, as `StoreReader.traffic` returns them.
        rollout: the rollout as it is now; only its epochs are drawn.
        records: decision records of the rollout, for the stages.
        theme: "light" or "dark".
    """
    frame = Frame(theme, rollout, records, height=250)
    planned = {epoch for epoch, _ in rollout.allocations}  # what follows a halt is not among them
    rows = [row for row in rows if row["epoch"] in planned]
    if not rows:
        return frame.empty("no exposures yet", "serving code calls `expose` when a unit is met")
    minutes, step = time_steps([row["minute"] for row in rows])
    arms = (*rollout.arms, *rollout.dropped)
    totals = dict.fromkeys((rollout.control, *arms), 0)
    heights = {variant: dict.fromkeys(minutes, 0) for variant in totals}
    for row in rows:
        if row["variant"] in totals:
            totals[row["variant"]] += row["exposures"]
            start = minutes[(row["minute"] - minutes[0]) // step]
            heights[row["variant"]][start] += row["exposures"]
    first, *others = (f"{totals[name]:,} to {name}" for name in (*arms, rollout.control))
    title = ", ".join([first.replace(" to ", " exposures to ", 1), *others])
    if len(minutes) < 3:
        return frame.empty(title, "their course is drawn from the third minute on")
    top = max(max(counts.values()) for counts in heights.values())
    frame.range_y(0, 1.15 * max(1, top))
    x = [f"{minute:%Y-%m-%d %H:%M:%S}" for minute in (*minutes, minutes[-1] + step)]
    inks = {rollout.control: frame.palette.muted} | dict.fromkeys(arms, frame.palette.ink)
    for variant, counts in heights.items():
        y = [*counts.values(), list(counts.values())[-1]]
        treated = variant != rollout.control
        line = {"color": inks[variant], "width": 2 if treated else 1.2, "shape": "hv"}
        frame.add(trace(x, y, line=line, name=inert(variant), hovertemplate="%{y:,} exposures"))
        seen = [n for minute, n in counts.items() if frame.shows(minute)]
        frame.label(seen[-1] if seen else 0, variant, inks[variant])
    frame.ticks("", sign=False)
    per = "minute" if step == timedelta(minutes=1) else f"{step // timedelta(minutes=1)} minutes"
    return frame.figure(title, f"exposures per {per}, of the units in this rollout")


def _title(last: Look, rollout: Rollout, marks: Sequence[Mark]) -> str:
    """The finding; where it stayed open, a rollout that is over says so."""
    words = finding(last.evidence, last.record, rollout)
    over = f"undecided when the rollout was {marks[-1].words}" if marks else ""
    return words.replace("no verdict yet", over) if over else words


def _subtitle(last: Look, rollout: Rollout, scale: Scale) -> str:
    seen, paired = last.evidence, last.evidence["basis"] == "paired"
    levels = [
        f"{name} {_level(scale, seen[f'mean_{role}'])}"
        + ("" if paired else f" (n = {seen[f'n_{role}']:,})")
        for name, role in ((rollout.treatment, "treatment"), (rollout.control, "control"))
    ]
    who = f" on {seen['n_treatment']:,} units that both answered" if paired else ""
    band = f"band: {100 * (1 - rollout.arm_policy.beta):.4g} % confidence sequence"
    variants = {variant for _, variant, n in last.record["observation"]["exposures"] if n}
    if last.standing == "shown" and paired and len(variants) > 1:
        band += f"; the verdict's e-value {e_value_text(seen['e_promote'])} joins the live units"
    return f"{', '.join(levels)}{who}; {band}"


def _e_value_of(key: str, word: str) -> Callable[[Look], str]:
    return lambda look: f"{word}: e-value {e_value_text(look.evidence[key])}"


def _level(scale: Scale, mean: float | None) -> str:
    return "no value" if mean is None else scale.level(mean)


def _evidence_words(last: Look, rollout: Rollout, *, guards: bool) -> tuple[str, str]:
    seen, metric = last.evidence, last.evidence["metric"]
    halts, promotes = last.record["halt_threshold"], last.record["promote_threshold"]
    harm, rule = e_value_text(seen["e_harm"]), e_value_text(seen["e_promote"])
    words = rule_text(rollout, metric)
    if last.standing == "harmed":
        title = f"Evidence of harm in {metric} passed {halts:,.0f}: e-value {harm}"
    elif last.standing == "shown":
        title = f"{metric}, {words}: shown, e-value {rule} of {promotes:,.0f} needed"
    else:
        title = f"{metric}, {words}: not shown, e-value {rule} of {promotes:,.0f} needed"
    subtitle = "e-values, logarithmic axis, valid at every look"
    if guards:
        alarm = f"{100 * rollout.policy.alpha:g} %"
        subtitle += f"; a false halt is less likely than {alarm} over the whole rollout"
    return title, subtitle


def time_steps(minutes: Sequence[datetime]) -> tuple[list[datetime], timedelta]:
    """All minutes from the first to the last, in steps wide enough to be at most so many."""
    first, last = min(minutes), max(minutes)
    whole = int((last - first) / timedelta(minutes=1)) + 1
    step = timedelta(minutes=math.ceil(whole / MOST_POINTS))
    return [
        first + number * step for number in range(math.ceil(whole / (step.seconds // 60)))
    ], step


def _log10(e_value: float) -> float:
    return math.log10(max(e_value, SMALLEST_E_VALUE / 10))
