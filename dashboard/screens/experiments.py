"""What is live, is it safe, and what needs a person?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

import components
import data
import words
from abkit.plots import harm_sparkline

if TYPE_CHECKING:
    from abkit.rollout import Rollout

REFRESH_SECONDS = 2.0
MOST_CARDS = 12
MOST_LINES = 8


def page() -> None:
    """All rollouts, those that need attention first."""
    try:
        path = data.workspace_path()
        listing = data.listing()
    except data.Unavailable as found:
        st.title("Experiments", anchor=False)
        components.problem(found)
        return
    source, missing = published()
    live = any(item.live for item in listing.rollouts)
    stale = source is not None and source.age_seconds > words.STALE_SECONDS
    ordered = words.by_attention(listing, stale=stale)
    with st.container(horizontal=True, horizontal_alignment="distribute"):
        st.title(words.headline(ordered), anchor=False, width="content")
        if source is not None:
            components.badge(words.age_badge(source.age_seconds, live=live))
    components.damaged_files(listing.damaged)
    if not listing.rollouts:
        components.no_rollouts(path)
        return
    who_answers(listing)
    if missing is not None:
        components.problem(missing)
    for rollout, attention in ordered[:MOST_CARDS]:
        card(rollout, attention, source)
    table(ordered[MOST_CARDS:])
    if source is not None:
        with_events(source)


def published() -> tuple[data.Published | None, data.Unavailable | None]:
    """The published file, or why there is none."""
    try:
        return data.published(), None
    except data.Unavailable as found:
        return None, found


def who_answers(listing: data.Listing) -> None:
    """One line an experiment: which variant answers now."""
    known = data.serving()
    keys = list(dict.fromkeys(item.experiment.key for item in listing.rollouts))
    lines = []
    for key in keys[:MOST_LINES]:
        answer = words.serving_words(known[key]) if key in known else "not published"
        lines.append(f"**{components.inert(key)}**: {components.inert(answer)}")
    if len(keys) > MOST_LINES:
        lines.append(f"and {len(keys) - MOST_LINES:,} more experiments")
    st.markdown("  \n".join(lines))


def card(rollout: Rollout, attention: words.Attention, source: data.Published | None) -> None:
    """One rollout: state, who against whom, the last decision in words, evidence of harm."""
    records, problem = looks(source, rollout.key)
    with st.container(border=True, key=f"card-{rollout.key}"):
        left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
        with left, st.container(gap="xsmall"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                components.badge(words.STATES[rollout.state])
                st.page_link(
                    "screens/experiment.py",
                    label=f"**{components.inert(rollout.key)}** \N{RIGHTWARDS ARROW}",
                    query_params={"rollout": rollout.key},
                )
                if attention.rank == 0:
                    components.badge(words.Badge("!", attention.words, "yellow"))
            st.markdown(components.inert(words.verdict(rollout, records).headline))
            components.quiet(
                f"{', '.join(rollout.arms)} against {rollout.control}, stage "
                f"{rollout.stage_index + 1} of {len(rollout.stages)}: {rollout.stage.name}",
                words.history(rollout),
            )
        with right:
            if problem:
                components.quiet(problem)
            elif records:
                figure = harm_sparkline(records, rollout=rollout, theme=components.theme())
                components.chart(figure, key=f"spark-{rollout.key}")
                components.quiet(f"evidence of harm by guardrail, {records[-1]['look']:,} looks")


def looks(source: data.Published | None, key: str) -> tuple[tuple[data.Record, ...], str]:
    """The newest looks of a rollout, or why there are none."""
    if source is None:
        return (), ""
    try:
        return data.decisions(source, key), ""
    except data.Unavailable as found:
        return (), found.detail


def table(rest: list[tuple[Rollout, words.Attention]]) -> None:
    """What has no card."""
    if not rest:
        return
    st.subheader(f"{len(rest):,} more", anchor=False)
    st.dataframe(
        [
            {
                "rollout": f"/experiment?rollout={rollout.key}",
                "state": words.STATES[rollout.state].text,
                "treatment": ", ".join(rollout.arms),
                "control": rollout.control,
                "since": words.history(rollout),
                "reason": rollout.reason,
            }
            for rollout, _ in rest
        ],
        column_config={
            "rollout": st.column_config.LinkColumn(display_text=r"rollout=(.*)$"),
            "reason": st.column_config.TextColumn(width="large"),
        },
        hide_index=True,
        alt="Rollouts without a card",
    )


def with_events(source: data.Published) -> None:
    """Whether all events are accounted for."""
    try:
        components.events(data.writers(source))
    except data.Unavailable as found:
        components.problem(found)


st.fragment(page, run_every=REFRESH_SECONDS)()
