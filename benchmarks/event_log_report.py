"""The tables of `event_log.py`, and what they say of the targets of the event log."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING

from event_log_sinks import BY_HAND, DUCKDB, LAUNCHDARKLY, LIST, MODES, POSTHOG, SINKS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from event_log import Found

COUNTS = (1, 4, 8)
SLOW, SEEN, INGESTED = 1_000, 2, 500_000  # microseconds, seconds, rows a second
PACKAGES = ("duckdb", "posthog", "launchdarkly-server-sdk")


def written(found: Found, given: Namespace, *, minutes: float) -> str:
    """Everything in Markdown."""
    parts = [
        ["# The event log", "", *_about(found, given, minutes)],
        ["## Targets", "", *_targets(found)],
        ["## Accepted events a second", "", *_rates(found)],
        ["## One call, microseconds", "", *_calls(found)],
        ["## SIGKILL", "", *_kills(found)],
        ["## Until it is seen, and ingest", "", *_seen(found)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _about(found: Found, given: Namespace, minutes: float) -> Iterator[str]:
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except ImportError:
            continue
    before, after = found.load
    yield "What `benchmarks/event_log.py` wrote: medians of"
    yield f"{given.rounds} rounds of {given.seconds} s a run, contenders in turn, on"
    yield f"{os.cpu_count()} cores; load average {before:.1f} before and {after:.1f} after"
    yield f"{minutes:.1f} minutes, this one's own included. {', '.join(versions)}."
    for name in found.absent:
        yield f"Not installed, and left out: {name}."


def _targets(found: Found) -> Iterator[str]:
    base = found.calls[LIST, "1"][0]
    yield "| target | measured | |"
    yield "|---|---|---|"

    def row(target: str, measured: str, *, is_met: bool) -> str:
        return f"| {target} | {measured} | {'met' if is_met else '**missed**'} |"

    for mode, most in (("buffered", 1.0), ("os", 5.0)):
        above = found.calls[f"abkit, {mode}", "1"][0] - base
        target = f"`{mode}`: p50 at most {most:.0f} µs above a list's append"
        yield row(target, f"{above:.2f} µs above", is_met=above <= most)
    for pace in ("8 flat out", "8, 1 ms apart"):
        yard = found.calls[BY_HAND, pace][2]
        for mode in MODES:
            spent = found.calls[f"abkit, {mode}", pace][2]
            target = f"`{mode}`: p99.9 under 1 ms, processes: {pace}"
            text = f"{spent:,.0f} µs; by hand {yard:,.0f} µs"
            yield row(target, text, is_met=spent < SLOW)
    for number, least in ((1, 200_000), (8, 300_000)):
        rates = {mode: median(found.rates[f"abkit, {mode}", number]) for mode in MODES}
        each = ", ".join(f"{mode} {per_second:,.0f}" for mode, per_second in rates.items())
        target = f"at least {least:,} events/s accepted, `buffered`, {_processes(number)}"
        yield row(target, each, is_met=rates["buffered"] >= least)
    longest = max(max(spent) for spent in found.seen.values())
    yield row("seen within 2 s", f"longest {longest:.2f} s", is_met=longest <= SEEN)
    wall, cpu = (median(found.ingest[clock]) for clock in ("wall", "cpu"))
    text = f"{wall:,.0f} by the clock, {cpu:,.0f} a second of CPU"
    yield row("ingest at least 500,000 rows/s", text, is_met=wall >= INGESTED)
    lost = sum(found.lost[f"abkit, {mode}"][2] for mode in ("os", "fsync"))
    killed = sum(found.lost[f"abkit, {mode}"][0] for mode in ("os", "fsync"))
    text = f"{lost} events in {killed} kills"
    yield row("nothing acknowledged lost to SIGKILL (`os`, `fsync`)", text, is_met=not lost)
    logged, stored = map(sum, zip(*found.stored, strict=True))
    text = f"{stored:,} stored of {logged:,}"
    yield row("each stored exactly once", text, is_met=logged == stored)
    yield ""
    yield "What a look costs is in [look_cost.md](look_cost.md)."


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def _rates(found: Found) -> Iterator[str]:
    yield "×: times DuckDB with an insert each, by as many processes, in the same round. Arrived:"
    yield "of those accepted, after an orderly end (8 processes). CPU: microseconds a call, all"
    yield "threads and the end included (1 process), which other work on the machine moves less."
    yield "DuckDB, SQLite and logging have a file for each process."
    yield ""
    yield "| | 1 process | × | 4 | 8 | × | arrived | CPU |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name in SINKS:
        if name in found.absent:
            continue
        cells = [name]
        for number in COUNTS:
            rates = found.rates.get((name, number))
            cells.append(f"{median(rates):,.0f}" if rates else "")
            yard = found.rates.get((DUCKDB, number))
            if yard and rates:
                ratio = median(a / b for a, b in zip(rates, yard, strict=True))
                cells.append(f"{ratio:,.1f}" if ratio < 10 else f"{ratio:,.0f}")
        shares = found.arrivals.get((name, 8))
        cells.append(f"{median(shares):.1%}" if shares else "")
        cells.append(f"{median(found.cpu[name, 1]):,.2f}")
        yield f"| {' | '.join(cells)} |"
    if LAUNCHDARKLY not in found.absent:
        yield ""
        yield "LaunchDarkly's `track` does not tell what it drops: every call counts as accepted."
    if POSTHOG not in found.absent:
        yield "PostHog's `capture` tells; only what it took counts."


def _calls(found: Found) -> Iterator[str]:
    yield "The record is made and the time is read in each, and two readings of the clock are in"
    yield "each figure. The list shows what the scheduler does to anyone: with more processes than"
    yield "cores a call is now and then interrupted, the more often the longer it lasts; the last"
    yield "column counts it. By hand means what `os` does without lock, counts, rotation or"
    yield "recovery. In `buffered` each 64th call writes for all, hence its p99."
    yield ""
    yield "| processes | | p50 | p99 | p99.9 | slowest | of a million over 1 ms |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for (name, pace), (p50, p99, p999, most, over) in found.calls.items():
        cells = f"{p50:.2f} | {p99:,.1f} | {p999:,.1f} | {most:,.0f} | {over:,.0f}"
        yield f"| {pace} | {name} | {cells} |"


def _kills(found: Found) -> Iterator[str]:
    yield "Accepted events that are gone after a kill within the first second of calls flat out."
    yield "`buffered` and the queues keep events in memory, and promise nothing; calls flat out"
    yield "leave the queues' threads little time to send, so they are shown 1 ms apart too."
    yield ""
    yield "| | kills | accepted | lost | a kill |"
    yield "|---|--:|--:|--:|--:|"
    for name, (kills, accepted, lost) in found.lost.items():
        yield f"| {name} | {kills} | {accepted:,} | {lost:,} | {lost / kills:,.0f} |"


def _seen(found: Found) -> Iterator[str]:
    yield "From the call to the published file, beside a controller that pauses for 1 s and 2,000"
    yield "other events a second:"
    yield ""
    for mode, spent in found.seen.items():
        yield (
            f"- {mode}: median {median(spent):.2f} s, longest {max(spent):.2f} s of {len(spent)}."
        )
    wall, cpu = (median(found.ingest[clock]) for clock in ("wall", "cpu"))
    each = median(found.rates[DUCKDB, 1]) if (DUCKDB, 1) in found.rates else 0.0
    beside = f"; {wall / each:,.0f} times DuckDB with an insert each" if each else ""
    yield ""
    yield (
        f"Ingest of {found.stored[0][0]:,} events of four writers: {wall:,.0f} rows/s by the clock,"
    )
    yield f"{cpu:,.0f} a second of CPU, all threads{beside}."
