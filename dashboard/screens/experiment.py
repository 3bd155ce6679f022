"""Where does one rollout stand, why, and what would change it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

import components
import data
import words
from abkit import plots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.rollout import Rollout

LIVE_SECONDS = 0.5
OVER_SECONDS = 5.0
CHANGES = ("advance", "promote", "hold", "halt")
MOST_ROWS = 50


def page() -> None:
    """Choose a rollout; all that depends on it refreshes on its own."""
    try:
        path = data.workspace_path()
        listing = data.listing()
    except data.Unavailable as found:
        st.title("Experiment", anchor=False)
        components.problem(found)
        return
    if not listing.rollouts:
        st.title("Experiment", anchor=False)
        components.damaged_files(listing.damaged)
        components.no_rollouts(path)
        return
    keys = [item.key for item, _ in words.by_attention(listing, stale=False)]
    wanted = st.query_params.get("rollout")
    if wanted is not None and wanted not in keys:
        st.warning(f"There is no rollout {components.inert(wanted)} here; this is another one.")
    components.seed("rollout", keys, keys[0])
    key = st.selectbox(
        "Rollout",
        keys,
        index=None,
        required=True,
        key="rollout",
        bind="query-params",
        label_visibility="collapsed",
        width=360,
    )
    if key is None:
        return
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
        rollout = listing.find(key)
        if {item.key for item in listing.rollouts} != set(keys):
            st.rerun()
        if rollout is None:
            components.damaged_files(listing.damaged)
        else:
            everything(rollout)
    except data.Unavailable as found:
        components.problem(found)


def everything(rollout: Rollout) -> None:
    """One rollout, from the verdict down to the record.

    Raises:
        data.Unavailable: nothing is published yet, or it cannot be read.
    """
    try:
        source = data.published()
        records = data.decisions(source, rollout.key)
    except data.Unavailable:
        header(rollout, None)
        components.verdict(rollout, words.verdict(rollout, ()))
        raise
    header(rollout, source)
    components.verdict(rollout, words.verdict(rollout, records))
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
    components.quiet(
        f"{', '.join(rollout.arms)} against {rollout.control} in {rollout.experiment.key}; "
        f"{words.history(rollout)}.{now}"
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
    metric = metrics[0]
    if len(metrics) > 1:
        components.seed("metric", metrics, (harmed or metrics)[0])
        metric = (
            st.segmented_control(
                "Metric",
                metrics,
                required=True,
                key="metric",
                bind="query-params",
                label_visibility="collapsed",
            )
            or metric
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
    components.seed("look", range(1, newest + 1), None)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = st.segmented_control(
            "Show",
            ["changes", "all looks"],
            default="changes",
            required=True,
            key="log",
            bind="query-params",
        )
        # A field and no list: a list that grows at every look would close while somebody chooses.
        look = st.number_input(
            "Record of look",
            min_value=1,
            max_value=newest,
            value=None,
            step=1,
            placeholder=f"1 to {newest:,}",
            key="look",
            bind="query-params",
            width=220,
        )
    kept = [item for item in records if shown == "all looks" or item["action"] in CHANGES]
    rows = components.log_rows(rollout, kept)
    if rows:
        st.table(
            rows[:MOST_ROWS],
            width="stretch",
            border="horizontal",
            hide_index=True,
            alt="Decision log",
        )
    else:
        components.quiet("No decision has changed anything yet.")
    part = "" if len(records) == newest else f", the newest {len(records):,} are at hand"
    cut = "" if len(rows) <= MOST_ROWS else f", the newest {MOST_ROWS} rows are shown"
    components.quiet(f"{words.count_text(newest, 'look', 'looks')} so far{part}{cut}")
    if look is not None:
        chosen = next((item for item in records if item["look"] == look), None)
        if chosen is None:
            components.quiet(f"Look {look:,} is not among the newest that are at hand.")
        else:
            record(rollout, chosen, newest, source)


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
            components.quiet("The whole record is not in the published file any more.")
        else:
            with st.expander("The record as stored"):
                st.json(whole, expanded=1)


page()
