"""Where does one rollout stand, why, and what would change it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

import components
import data
import words
from abkit import plots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.rollout import Rollout

LIVE_SECONDS = 1.0
OVER_SECONDS = 5.0
CHANGES = ("advance", "promote", "hold", "halt")
MOST_ROWS = 200


def page() -> None:
    """Choose a rollout; the rest of the page refreshes on its own."""
    try:
        path = data.workspace_path()
        listing = data.listing()
    except data.Unavailable as found:
        st.title("Experiment")
        components.problem(found)
        return
    if not listing.rollouts:
        st.title("Experiment")
        components.damaged_files(listing.damaged)
        components.no_rollouts(path)
        return
    keys = [item.key for item, _ in words.by_attention(listing, stale=False)]
    wanted = st.query_params.get("rollout")
    if wanted is not None and wanted not in keys:
        st.warning(f"There is no rollout {components.inert(wanted)} here; this is another one.")
    key = st.selectbox("Rollout", keys, key="rollout", bind="query-params", width=360)
    rollout = listing.find(key)
    live = rollout is not None and rollout.live
    st.fragment(show, run_every=LIVE_SECONDS if live else OVER_SECONDS)(key, tuple(keys))


def show(key: str, keys: tuple[str, ...]) -> None:
    """All that changes while somebody looks.

    Args:
        key: key of the chosen rollout.
        keys: the rollouts that can be chosen; when others appear, the page starts anew.
    """
    try:
        listing = data.listing()
    except data.Unavailable as found:
        components.problem(found)
        return
    rollout = listing.find(key)
    if rollout is None:
        components.damaged_files(listing.damaged)
        return
    if {item.key for item in listing.rollouts} != set(keys):
        st.rerun()
    try:
        source = data.published()
        records = data.decisions(source, key)
    except data.Unavailable as found:
        header(rollout, None)
        components.verdict(words.verdict(rollout, ()))
        components.problem(found)
        return
    header(rollout, source)
    components.verdict(words.verdict(rollout, records))
    if records:
        alarms(records[-1])
        components.tiles(rollout, records[-1])
    st.subheader("Stages", anchor=False)
    components.ramp(rollout, records)
    if records:
        charts(rollout, records, source)
        log(rollout, records, source)
    components.events(data.writers(source))


def header(rollout: Rollout, source: data.Published | None) -> None:
    """Name and state, who meets whom, and how old the data is."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title(components.inert(rollout.key), anchor=False, width="content")
        components.badge(words.STATES[rollout.state])
        if source is not None:
            components.badge(words.age_badge(source.age_seconds, live=rollout.live))
    answering = data.serving().get(rollout.experiment.key)
    now = "" if answering is None else f" Now {words.serving_words(answering)}."
    st.caption(
        components.inert(
            f"{rollout.treatment} against {rollout.control} in {rollout.experiment.key}; "
            f"{words.history(rollout)}.{now}"
        )
    )


def alarms(record: data.Record) -> None:
    """Trust checks that failed at the newest look."""
    for alarm in record["alarms"]:
        with st.container(border=True):
            name = alarm["check"].replace("_", " ")
            components.badge(words.Badge("\N{BLACK UP-POINTING TRIANGLE}", name, "yellow"))
            st.text(alarm["text"])


def charts(rollout: Rollout, records: Sequence[data.Record], source: data.Published) -> None:
    """The comparison, the evidence and the traffic, on one time axis."""
    metrics = list(dict.fromkeys(item["metric"] for item in records[-1]["evidence"]))
    harmed = [
        item["metric"]
        for item in records[-1]["evidence"]
        if plots.standing(item, records[-1]) == "harmed"
    ]
    st.subheader("Comparison over time", anchor=False)
    metric = st.segmented_control(
        "Metric",
        metrics,
        default=(harmed or metrics)[0],
        required=True,
        key="metric",
        bind="query-params",
        label_visibility="collapsed",
    )
    theme = components.theme()
    limits = {item.metric for item in rollout.policy.guardrails if item.test == "limit"}
    compare = plots.rate_over_time if metric in limits else plots.comparison_over_time
    components.chart(compare(records, metric, rollout=rollout, theme=theme), key="comparison")
    evidence = plots.evidence_over_time(records, metric, rollout=rollout, theme=theme)
    components.chart(evidence, key="evidence")
    rows = data.traffic(source, rollout.experiment.key)
    traffic = plots.traffic_over_time(rows, rollout=rollout, records=records, theme=theme)
    components.chart(traffic, key="traffic")


def log(rollout: Rollout, records: Sequence[data.Record], source: data.Published) -> None:
    """The decision log, and the whole record of a chosen look."""
    st.subheader("Decisions", anchor=False)
    newest = records[-1]["look"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = st.segmented_control(
            "Show",
            ["changes", "all looks"],
            default="changes",
            required=True,
            key="log",
            bind="query-params",
        )
        look = st.selectbox(
            "Record of look",
            [record["look"] for record in reversed(records)],
            index=None,
            placeholder="choose a look",
            key="look",
            bind="query-params",
            width=220,
        )
    rows = [item for item in records if shown == "all looks" or item["action"] in CHANGES]
    if not rows:
        st.caption("No decision has changed anything yet.")
    else:
        table(components.log_rows(rows[-MOST_ROWS:]))
    whole = f"{newest:,} looks so far"
    st.caption(whole if len(records) == newest else f"{whole}, the newest {len(records):,} shown")
    if look is not None:
        record(rollout, next(item for item in records if item["look"] == look), newest, source)


def table(rows: list[dict[str, Any]]) -> None:
    """Rows of the log; text from data is inert in it."""
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "look": st.column_config.NumberColumn(width=60, format="localized"),
            "time (UTC)": st.column_config.TextColumn(width=150),
            "stage": st.column_config.TextColumn(width=80),
            "decision": st.column_config.TextColumn(width=100),
            "state after it": st.column_config.TextColumn(width=130),
            "reason": st.column_config.TextColumn(width="large"),
        },
        alt="Decision log, the newest first",
        key="log-table",
    )


def record(rollout: Rollout, light: data.Record, newest: int, source: data.Published) -> None:
    """Everything that one decision rests on; enough to take it again."""
    with st.container(border=True):
        st.markdown(f"**Look {light['look']:,}**, {words.moment_text(light['time'])}")
        st.text(light["reason"])
        st.dataframe(
            components.evidence_rows(rollout, light),
            hide_index=True,
            alt="Evidence of this look",
            key="look-evidence",
        )
        whole = data.decision(source, light, newest=newest)
        if whole is None:
            st.caption("The whole record is not in the published file any more.")
        else:
            with st.expander("The record as stored"):
                st.json(whole, expanded=1)


page()
