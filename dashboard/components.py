"""Pieces that pages are put together from: badges, tiles, charts, tables, empty states.

Names, reasons and stages come from data. They pass through `inert` or `st.text`, so that no
Markdown, link or image in them takes effect.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Any

import streamlit as st

import data
import words
from abkit.plots import Scale, e_value_text, rule_text, standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import plotly.graph_objects as go

    import data
    from abkit.plots import Theme
    from abkit.rollout import Rollout
    from abkit.store.reader import WriterCounts

    Record = Mapping[str, Any]

# Charts hold still: no zoom to get lost in, no toolbar that covers the title.
CHART_CONFIG = {"displayModeBar": False, "scrollZoom": False, "doubleClick": False}
_PUNCTUATION = str.maketrans({character: f"\\{character}" for character in string.punctuation})
_JOINER = "\N{WORD JOINER}"
_STAY = "\N{NO-BREAK SPACE}"
_HYPHEN = "\N{NON-BREAKING HYPHEN}"


def theme() -> Theme:
    """The theme that the visitor sees."""
    return "dark" if st.context.theme.type == "dark" else "light"


def inert(text: str) -> str:
    """Text that Markdown shows as it stands.

    Escapes do not stop bare addresses from becoming links; an invisible joiner does.
    """
    flat = re.sub(r"[ \t\r\n\f\v]+", " ", text)  # not \\s: what must not break stays together
    for part in ("://", "www.", "@"):
        flat = flat.replace(part, part[:1] + _JOINER + part[1:])
    return flat.translate(_PUNCTUATION)


def seed(key: str, options: Sequence[object], choice: object) -> None:
    """Choose for a widget where neither the address nor the visitor has chosen lawfully.

    A widget's default would not stand in the address; what is chosen does, so that every view is
    an address that shows the same tomorrow.
    """
    if key in st.session_state:
        if st.session_state[key] not in options:
            st.session_state[key] = choice
    elif st.query_params.get(key) not in {str(option) for option in options}:
        st.session_state[key] = choice
        if choice is not None:
            st.query_params[key] = str(choice)


def quiet(*lines: str) -> None:
    """Smaller, greyer lines of plain text."""
    st.markdown("  \n".join(f":small[:gray[{inert(line)}]]" for line in lines if line))


def badge(item: words.Badge) -> None:
    """A glyph and a word in a pill."""
    st.badge(inert(item.text), color=item.colour)


def chart(figure: go.Figure, *, key: str) -> None:
    """A figure in our own look, with its title as its accessible name."""
    title = figure.layout.title.text or ""
    st.plotly_chart(
        figure, theme=None, config=CHART_CONFIG, key=key, alt=plain(title) or "evidence of harm"
    )


def plain(markup: str) -> str:
    """The words of a figure's title."""
    text = markup.replace("<br>", " ")
    while "<" in text and ">" in text[text.index("<") :]:
        start = text.index("<")
        text = text[:start] + text[text.index(">", start) + 1 :]
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


# ---- nothing to show -----------------------------------------------------------------------------


def problem(found: data.Unavailable) -> None:
    """Why there is nothing to show, and what to do."""
    path = found.path
    titles = {
        "no_workspace": "No workspace",
        "missing": "The workspace is not there",
        "unpublished": "Nothing published yet",
        "damaged": "The published data cannot be read",
    }
    remedies = {
        "no_workspace": "Start the dashboard with the folder to show; the demo makes one.",
        "missing": "Check the name, or let the demo make a workspace.",
        "unpublished": "Rollouts are shown as they stand; looks and figures need a controller.",
        "damaged": "The next tick of a controller replaces the file; the event log is the truth.",
    }
    commands = {
        "no_workspace": "abkit demo --workspace demo\nabkit dashboard demo",
        "missing": "abkit demo --workspace demo\nabkit dashboard demo",
        "unpublished": f"abkit controller {path}",
        "damaged": f"abkit controller {path} --once",
    }
    _notice(titles[found.problem], found.detail, remedies[found.problem], commands[found.problem])


def no_rollouts(path: Path) -> None:
    """A workspace in which nothing has been started."""
    _notice(
        "No rollouts yet",
        "Nothing has been started in this workspace.",
        "Describe one in a plan and start it:",
        f"abkit rollout start {path} plan.toml",
    )


def damaged_files(found: Sequence[str]) -> None:
    """State files that could not be read; the others are shown."""
    if found:
        _notice(
            f"{len(found):,} damaged state {'file' if len(found) == 1 else 'files'}",
            "\n".join(found),
            "Serving is not affected: it reads the snapshot. Put the file back from a copy, or "
            "remove it; the decisions are in the event log.",
            "",
        )


def _notice(title: str, detail: str, remedy: str, command: str) -> None:
    with st.container(border=True):
        badge(words.Badge("\N{BLACK UP-POINTING TRIANGLE}", title, "yellow"))
        st.text(detail)
        st.markdown(remedy)
        if command:
            st.code(command, language="bash")


# ---- one rollout ---------------------------------------------------------------------------------


def verdict(rollout: Rollout, found: words.Verdict) -> None:
    """The conclusion, the reason with its numbers, and what would change it."""
    state = words.STATES[rollout.state]
    with st.container(border=True, gap="small"):
        st.markdown(f"### :{state.colour}[{state.glyph}] {inert(found.headline)}")
        st.text(found.reason)
        quiet(f"What would change it: {found.change}")


def tiles(rollout: Rollout, record: Record) -> None:
    """One tile a watched metric: its value, what it is held against, and both e-values."""
    evidence = record["evidence"]
    per_row = 3 if len(evidence) != 4 else 2
    for first in range(0, len(evidence), per_row):
        row = evidence[first : first + per_row]
        for column, item in zip(st.columns(max(len(row), min(2, per_row))), row, strict=False):
            with column, st.container(border=True, height="stretch", gap="xsmall"):
                _tile(rollout, record, item)


def _tile(rollout: Rollout, record: Record, item: Mapping[str, Any]) -> None:
    scale = Scale(rollout.experiment.metric(item["metric"]))
    with st.container(horizontal=True, horizontal_alignment="distribute", gap="small"):
        name = item["metric"]
        if rollout.is_contest:
            name = f"{item.get('variant') or record['treatment']}: {name}"
        st.markdown(f"**{inert(name)}**", width="content")
        badge(words.STANDINGS[standing(item, record)])
    known = item["difference"] is not None
    value = scale.signed(item["difference"]) if known else _level(scale, item["mean_treatment"])
    st.metric(item["metric"], value or "no data", label_visibility="collapsed")
    guards = item["role"] == "guardrail"
    harm = f"Guardrail, halts on harm: {_of(item, record, 'halt')}" if guards else ""
    must = "Must show" if guards else "Objective, must show"
    rule = (
        f"{must} {rule_text(rollout, item['metric'], item['role'])}: {_of(item, record, 'promote')}"
    )
    quiet(*_numbers(rollout, item, scale))
    quiet(harm, rule)


def _numbers(rollout: Rollout, item: Mapping[str, Any], scale: Scale) -> list[str]:
    """The interval, and the levels that it compares, with their units."""
    treatment, control = (
        _level(scale, item[key]) or "no value" for key in ("mean_treatment", "mean_control")
    )
    n_treatment, n_control = f"{item['n_treatment']:,}", f"{item['n_control']:,}"
    if item["difference"] is None:
        return [f"{n_treatment} units of treatment"]
    lines = []
    if item["lower"] is not None:
        level = f"{100 * (1 - rollout.arm_policy.beta):.4g} %"
        interval = scale.interval(item["lower"], item["upper"])
        lines.append(f"{interval} {scale.unit}, {level} at every look".replace("  ", " "))
    if item["relative_risk"] is not None:
        lines.append(f"relative risk {item['relative_risk']:.2f}")
    if item["basis"] == "paired":
        return [*lines, f"{treatment} against {control}, {n_treatment} units that both answered"]
    return [*lines, f"{treatment} ({n_treatment} units) against {control} ({n_control})"]


def _of(item: Mapping[str, Any], record: Record, action: str) -> str:
    e_value = item["e_harm" if action == "halt" else "e_promote"]
    text = f"e-value {e_value_text(e_value)} of {record[f'{action}_threshold']:,.0f}"
    return text.replace(" ", _STAY).replace("-", _HYPHEN)


def ramp(rollout: Rollout, records: Sequence[Record]) -> None:
    """The stages as steps: what was met, where it stands, what is ahead."""
    units = _units_by_epoch(records, rollout)
    epochs = _epochs_by_stage(rollout)
    times = _seconds_by_stage(records, rollout)
    with st.container(horizontal=True, gap="small"):
        for index, stage in enumerate(rollout.stages):
            with st.container(border=True, width=208, height="stretch", gap="xsmall"):
                state = _step_badge(rollout, index)
                with st.container(horizontal=True, horizontal_alignment="distribute"):
                    st.markdown(f"**{inert(stage.name)}**", width="content")
                    badge(state)
                if index > rollout.stage_index or rollout.state == "draft":
                    quiet(f"needs {stage.min_units:,} units")
                    continue
                met = sum(units.get(epoch, 0) for epoch in epochs[index])
                spent = times.get(stage.name)
                quiet(
                    f"{met:,} of {stage.min_units:,} units",
                    "just begun" if spent is None else f"for {words.duration_text(spent)}",
                )


def _step_badge(rollout: Rollout, index: int) -> words.Badge:
    if index < rollout.stage_index or rollout.state in ("bake", "promoted", "superseded"):
        return words.Badge("\N{CHECK MARK}", "passed")
    if index > rollout.stage_index or rollout.state == "draft":
        ahead = rollout.live or rollout.state == "draft"
        return words.Badge("\N{MIDDLE DOT}", "ahead" if ahead else "not reached")
    return (
        words.STATES[rollout.state] if not rollout.live else words.Badge("\N{BLACK CIRCLE}", "now")
    )


def _units_by_epoch(records: Sequence[Record], rollout: Rollout) -> dict[int, int]:
    """Units of treatment by epoch; in the dark, those of control, which both answered."""
    if not records:
        return {}
    found: dict[int, int] = {}
    for epoch, variant, n in records[-1]["observation"]["exposures"]:
        shadow = all(row[1] != rollout.treatment for row in _rows_of(records[-1], epoch))
        if variant == (rollout.control if shadow else rollout.treatment):
            found[epoch] = n
    return found


def _epochs_by_stage(rollout: Rollout) -> list[list[int]]:
    """The epochs of each stage that was entered; a treatment that is dropped begins one within."""
    if not rollout.is_contest:
        return [[epoch] for epoch, _ in rollout.allocations]
    found: list[list[int]] = []
    before = 1.0
    for epoch, shares in rollout.allocations:
        kept = shares.get(rollout.control, 0.0)
        if kept < before or not found:
            found.append([])
        found[-1].append(epoch)
        before = kept
    return found + [[]] * len(rollout.stages)


def _rows_of(record: Record, epoch: int) -> list[list[Any]]:
    return [row for row in record["observation"]["exposures"] if row[0] == epoch]


def _seconds_by_stage(records: Sequence[Record], rollout: Rollout) -> dict[str, float]:
    found: dict[str, float] = {}
    begun = rollout.started
    for record in records:
        if begun is not None:
            found[record["stage"]] = record["time"] - begun
        if record["action"] == "advance":
            begun = record["time"]
    return found


def log_rows(rollout: Rollout, records: Sequence[Record]) -> list[dict[str, str]]:
    """The decision log as rows of Markdown, the newest first; text from data is inert.

    What a person did last stands in the rollout's state alone, so it is put on top.
    """
    rows = [
        _log_row(record, words.ACTIONS[record["action"]], f"{record['look']:,}")
        for record in reversed(records)
    ]
    by_hand = rollout.actor not in ("abkit", "") and rollout.changed != rollout.started
    if by_hand and rollout.state != "superseded":
        act = {
            "time": rollout.changed,
            "stage": rollout.stage.name,
            "actor": rollout.actor,
            "reason": rollout.reason,
        }
        rows.insert(0, _log_row(act, words.STATES[rollout.state]))
    return rows


def _log_row(act: Record, done: words.Badge, look: str = "") -> dict[str, str]:
    return {
        "Look": look,
        "Time in UTC": inert(words.moment_text(act["time"]).removesuffix(" UTC")).replace(
            " ", _STAY
        ),
        "Stage": inert(act["stage"]),
        "Decision": f":{done.colour}[{done.glyph}]{_STAY}{done.word}",
        "By": inert(act["actor"]),
        "Reason": inert(act["reason"]),
    }


def evidence_rows(rollout: Rollout, record: Record) -> list[dict[str, Any]]:
    """The evidence of one look as a table."""
    rows = []
    several = rollout.is_contest
    for item in record["evidence"]:
        scale = Scale(rollout.experiment.metric(item["metric"]))
        known = item["difference"] is not None
        has_interval = known and item["lower"] is not None
        rows.append(
            {
                **({"variant": item.get("variant") or record["treatment"]} if several else {}),
                "metric": item["metric"],
                "role": item["role"],
                "must show": rule_text(rollout, item["metric"], item["role"]),
                "treatment": _level(scale, item["mean_treatment"]),
                "control": _level(scale, item["mean_control"]),
                "difference": scale.signed(item["difference"]) if known else "",
                "interval": scale.interval(item["lower"], item["upper"]) if has_interval else "",
                "e-value, harm": e_value_text(item["e_harm"]),
                "e-value, rule": e_value_text(item["e_promote"]),
                "units": f"{item['n_treatment']:,} / {item['n_control']:,}",
                "basis": item["basis"],
            }
        )
    return rows


def _level(scale: Scale, mean: float | None) -> str:
    return "" if mean is None else scale.level(mean)


def events(found: Sequence[WriterCounts]) -> None:
    """Whether every event that was accepted is accounted for."""
    accepted, stored, dropped, quarantined, unexplained = (
        sum(getattr(item, name) for item in found)
        for name in ("accepted", "stored", "dropped", "quarantined", "unexplained")
    )
    whole = f"{accepted:,} events accepted = {stored:,} stored"
    rest = f" + {dropped:,} dropped + {quarantined:,} quarantined"
    who = f", from {len(found):,} {'writer' if len(found) == 1 else 'writers'}"
    if unexplained:
        lost = f"{unexplained:,} events unaccounted for"
        badge(words.Badge("\N{BLACK UP-POINTING TRIANGLE}", lost, "yellow"))
        whole = whole.replace("=", "against")
    quiet(whole + (rest if dropped or quarantined or unexplained else "") + who)
