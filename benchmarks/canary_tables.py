"""The tables of `canary.py`: rates with exact intervals, delays beside the bound, and targets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from canary_rules import BELIEVING, ON_REQUESTS, OURS, PEERS, PLAIN, TOLD
from canary_streams import HOUR
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from canary import Found
    from canary_streams import Floats, Scenario

    Measured = Sequence[tuple[Scenario, Found]]

ALPHA: Final = 0.01
ENOUGH: Final = 80_000  # canary requests a day: with fewer, "not 25 % worse" may lack its proof
SHORT: Final = {
    "Flagger, 2 %": "Flagger",
    "Argo, 2 %": "Argo",
    "Kayenta, hourly": "Kayenta",
    "naive z, .05": "naive z",
    "GrowthBook, each minute": "GrowthBook",
}


def least_requests(scenario: Scenario) -> float:
    """Mean canary requests that any test at level alpha needs to halt this canary.

    log(1 / alpha) over the information of a canary request and of the control requests beside it,
    against the closest pair of equal rates; a test of power one needs as many in the mean (Wald).
    """
    share, p, q = scenario.share[0], scenario.base * scenario.risk, scenario.base
    both = share * p + (1 - share) * q
    return math.log(1 / ALPHA) / (_kl(p, both) + (1 - share) / share * _kl(q, both))


def _kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def interval(hits: int, runs: int) -> tuple[float, float]:
    """Exact 95 % interval of a rate (Clopper-Pearson)."""
    found = stats.binomtest(hits, runs).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


class Rate:
    """A rate of runs, with its interval."""

    def __init__(self, happened: Sequence[bool]) -> None:
        """Count."""
        self.runs, self.hits = len(happened), int(sum(happened))
        self.value = self.hits / self.runs
        self.low, self.high = interval(self.hits, self.runs)

    def __str__(self) -> str:
        """As it stands in a table."""
        return f"{self.value:.4f} ({self.low:.4f}-{self.high:.4f})"


def _ended(moments: Sequence[float]) -> Rate:
    return Rate([math.isfinite(moment) for moment in moments])


def _median(values: Sequence[float] | Floats) -> float:
    """A median that may be infinite."""
    return float(np.quantile(values, 0.5, method="lower"))


def _cell(moments: Sequence[float] | None) -> str:
    return "" if not moments else f"{_ended(moments).value:.3f}"


def false_halts(cells: Measured) -> Iterator[str]:
    """A good canary: who halts it within the day?"""
    yield f"| a good canary | runs | **abkit** (exact 95 %) | {' | '.join(SHORT.values())} |"
    yield f"|---|--:|--:|{'--:|' * len(SHORT)}"
    for scenario, found in cells:
        peers = " | ".join(_cell(found.seconds.get(name)) for name in PEERS)
        ours = found.seconds[OURS]
        yield f"| {scenario.name} | {len(ours):,} | {_ended(ours)} | {peers} |"


def mistakes(cells: Measured) -> Iterator[str]:
    """What happens if the test is used as it should not be."""
    for scenario, found in cells:
        for name in (BELIEVING, ON_REQUESTS):
            if name in found.seconds:
                rate = _ended(found.seconds[name])
                yield f"- {scenario.name}: {name}, it halts {rate} of the runs."
        if scenario.special == "mesh":
            late = _median(found.paused) / 60
            yield (
                f"- {scenario.name}: the check of the split pauses {_ended(found.paused)} of the "
                f"runs, in the median after {late:,.0f} minutes: a true alarm."
            )


def delays(cells: Measured) -> Iterator[str]:
    """A harmful canary: how soon is it halted, and after how many requests?"""
    yield "| rule | halted | before the onset | median time | median requests | mean | / bound |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for scenario, found in cells:
        bound = least_requests(scenario)
        yield f"| **{scenario.name}**; bound {bound:,.0f} | | | | | | |"
        for name in (OURS, PLAIN, TOLD, *PEERS):
            delay = Delay(scenario, found, name)
            if delay.early == 1:
                yield f"| {name} | | 1.000 | | | | |"
                continue
            yield (
                f"| {name} | {delay.halted:.3f} | {delay.early:.3f} | {delay.text} | "
                f"{delay.middle:,.0f} | {delay.requests:,.0f} | {delay.requests / bound:.2f} |"
            )


class Delay:
    """From the onset to the halt, over the runs that were not halted before."""

    def __init__(self, scenario: Scenario, found: Found, name: str) -> None:
        """Leave out the runs that were halted before the onset."""
        seconds = np.array(found.seconds[name])
        is_late = seconds > scenario.onset
        self.early = float(1 - is_late.mean())
        self.halted = float(np.isfinite(seconds[is_late]).mean()) if is_late.any() else math.nan
        delays = seconds[is_late] - scenario.onset
        self.median = _median(delays) if is_late.any() else math.inf
        requests = np.array(found.requests[name])[is_late]
        self.requests = float(requests.mean()) if is_late.any() else math.nan
        self.middle = _median(requests) if is_late.any() else math.nan

    @property
    def text(self) -> str:
        """The median in words."""
        if not math.isfinite(self.median):
            return "never"
        return f"{self.median:.0f} s" if self.median < 120 else f"{self.median / 60:.0f} min"


def promotions(equal: Measured, margin: Measured) -> Iterator[str]:
    """Who lets a canary through that is equal, and one that is 25 % worse?"""
    yield (
        "| split | canary requests | equal: abkit promotes | 25 % worse: abkit promotes | "
        f"25 % worse, not halted: {' | '.join(SHORT.values())} |"
    )
    yield f"|---|--:|--:|--:|{'--:|' * len(SHORT)}"
    for (scenario, found), (_, worse) in zip(equal, margin, strict=True):
        let = " | ".join(
            f"{1 - _ended(worse.seconds[name]).value:.3f}" if worse.seconds.get(name) else ""
            for name in PEERS
        )
        yield (
            f"| {scenario.name} | {_a_day(scenario):,.0f} | {_ended(found.promoted)} | "
            f"{_ended(worse.promoted)} | {let} |"
        )


def _a_day(scenario: Scenario) -> float:
    return scenario.share[0] * scenario.rate * scenario.hours * HOUR


def targets(groups: Mapping[str, Measured]) -> Iterator[str]:
    """Each target of the design, with what was measured."""
    yield "| target | measured | |"
    yield "|---|---|---|"
    false, found = groups["false"], groups["found"]
    scenario, worst = _extreme(false, lambda cell: cell.seconds[OURS])
    words = f"at most {worst}, in: {scenario.name}"
    yield _line(f"false halts <= 1 % in each of {len(false)} cells", worst.value, 0.01, words)
    onset = [(item, cell) for item, cell in found if not item.onset]
    ratio, name = max(
        (Delay(item, cell, OURS).requests / least_requests(item), item.name) for item, cell in onset
    )
    words = f"at most {ratio:.2f}, {name}"
    yield _line("mean canary requests to the halt <= 1.4 x the bound", ratio, 1.4, words)
    cost, name = max(
        (Delay(item, cell, OURS).requests / Delay(item, cell, PLAIN).requests, item.name)
        for item, cell in onset
    )
    yield _line("restarts cost <= 1.2 x at the onset", cost, 1.2, f"at most {cost:.2f}, {name}")
    yield from (_late(item, cell, onset) for item, cell in found if item.onset)
    scenario, wrong = _extreme(groups["margin"], lambda cell: cell.promoted)
    words = f"at most {wrong}, {scenario.name}"
    yield _line("a canary that is 25 % worse is promoted <= 5 %", wrong.value, 0.05, words)
    large = [pair for pair in groups["splits"] if _a_day(pair[0]) >= ENOUGH]
    scenario, right = _extreme(large, lambda cell: cell.promoted, sign=-1)
    target = f"an equal one is promoted >= 98 % (from {ENOUGH:,} canary requests a day on)"
    words = f"at least {right}, {scenario.name}"
    yield _line(target, -right.value, -0.98, words)
    sound = [pair for pair in false if pair[0].special != "mesh"]
    scenario, paused = _extreme(sound, lambda cell: cell.paused)
    yield _line(
        "false pauses by the check of the split <= .1 %", paused.value, 0.001, f"at most {paused}"
    )


def _line(target: str, value: float, limit: float, words: str) -> str:
    return f"| {target} | {words} | {'met' if value <= limit else '**missed**'} |"


def _extreme(
    cells: Measured, moments: Callable[[Found], Sequence[float]], sign: int = 1
) -> tuple[Scenario, Rate]:
    """The cell with the largest rate, or with sign -1 the smallest."""
    rates = ((item, _ended(moments(cell))) for item, cell in cells)
    return max(rates, key=lambda pair: sign * pair[1].value)


def _late(scenario: Scenario, found: Found, onset: Measured) -> str:
    """The delay after a late onset against that of the same canary which was bad at once."""
    same = replace(scenario, onset=0, name="")
    twin = next(cell for item, cell in onset if replace(item, name="") == same)
    soon = Delay(same, twin, OURS).median
    late, plain = (Delay(scenario, found, name).median for name in (OURS, PLAIN))
    words = (
        f"{late / soon:.2f}: {late / 60:.0f} against {soon / 60:.0f} min in the median; "
        f"without restarts {plain / 60:.0f} min"
    )
    return _line("delay at hour 12 <= 2 x that at the onset", late / soon, 2.0, words)


HEAD: Final = """\
# Halting a canary: abkit beside the rules of others

Made by `python3 dev.py run python benchmarks/canary.py`. Days of traffic as counts, the same for
every rule; 1 % errors in control unless the row says otherwise. abkit: one guardrail at alpha .01
for the whole day, a look a minute (a second where harm is sought), promotion at beta .05 against a
relative risk of 1.25. {looks:,} looks of sampled days were compared with the shipped code: the log
e-values differ by {gap:.0e} at most.

The other rules are restated from public documentation, each with its own interval and level:
Flagger (a check a minute, error rate above 2 % fails, 5 failures roll back), Argo (the same each 5
minutes, the fourth failure aborts), Kayenta (each hour by itself, sixty error rates against those
of a baseline of the canary's size, Mann-Whitney at 98 % with a tolerance of a quarter), a naive z
test of the totals each minute at .05, and GrowthBook's sequential interval (.05 two-sided, tuning
5,000) each minute. Of a good canary, and of one at the margin, they see the first fifth of the
runs. All of them count requests; where errors come in users, abkit counts users.

{peer}

## Targets

{targets}

## A good canary: halted within the day

{false}

Used as they should not be:

{mistakes}

## A harmful canary: time and canary requests to the halt

From the onset to the halt. "Before the onset": halted while it was good, and left out of the rest.
Bound: log(1/alpha) over the information of a canary request and the control requests beside it
(a test that halts a good canary with probability 1 % at most needs as many in the mean); a rule
that halts more good ones may be below it. Runs that are not halted count with all of their
requests. "Told the relative risk" is no test that anyone could use: all weight on the true risk
from the first block on. What lies between it and the bound is what the last events are too much;
between it and the test without restarts is the price of not knowing the risk, and from there on
that of not knowing when the canary turns bad.

{delays}

## Promotion

Canary requests: in the whole day. With {short:,} a day a proof of "not 25 % worse" does not come
within the day: the canary waits, and is paused for a person at its end. The others have no test of
that; what they do not halt within the day is promoted.

{promotions}

{made}
"""


def report(groups: Mapping[str, Measured], *, looks: int, gap: float, peer: str, made: str) -> str:
    """The whole page."""
    return HEAD.format(
        looks=looks,
        gap=gap,
        peer=peer,
        made=made,
        short=round(min(_a_day(item) for item, _ in groups["splits"])),
        targets="\n".join(targets(groups)),
        false="\n".join(false_halts(groups["false"])),
        mistakes="\n".join(mistakes(groups["false"])),
        delays="\n".join(delays(groups["found"])),
        promotions="\n".join(promotions(groups["splits"], groups["margin"])),
    )
