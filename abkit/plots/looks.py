"""Decision records as figures see them: looks at one metric, stages, decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from abkit.decision import evidence_on, leading_arm
from abkit.plots.words import Standing, standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from abkit.rollout import Rollout

    Record = Mapping[str, Any]

MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Look:
    """One metric at one look."""

    record: Record
    evidence: Mapping[str, Any]

    @property
    def time(self) -> float:
        """Seconds since 1970 in UTC."""
        return float(self.record["time"])

    @property
    def standing(self) -> Standing:
        """Where the metric stands at this look."""
        return standing(self.evidence, self.record)


@dataclass(frozen=True, slots=True)
class Mark:
    """A decision that ended the rollout, or the moment when a person did."""

    action: Literal["promote", "halt"]
    time: float
    words: str
    by_rule: bool


def looks_of(records: Sequence[Record], metric: str) -> Iterator[Look]:
    """The looks at which a metric was seen; of several treatments, at the one that is ahead now."""
    arm = leading_arm(records[-1]) if records else ""
    for record in records:
        known = evidence_on(record, arm)
        found = next((item for item in known if item["metric"] == metric), None)
        if found is not None:
            yield Look(record, found)


def fronted(records: Sequence[Record], rollout: Rollout) -> Rollout:
    """The rollout with the treatment in front that its figures tell of, and its error rates."""
    arm = leading_arm(records[-1]) if records else ""
    if not rollout.is_contest or arm not in rollout.arms:
        return rollout
    rivals = tuple(name for name in rollout.arms if name != arm)
    return replace(rollout, treatment=arm, rivals=rivals)


def marks_of(records: Sequence[Record], rollout: Rollout) -> list[Mark]:
    """Promotions and halts: those by the rules stand in records, those by a person do not."""
    marks: list[Mark] = []
    for record in records:
        if record["action"] in ("promote", "halt"):
            back = "rolled back" if record["state"] == "rolled_back" else "halted"
            word = "promoted" if record["action"] == "promote" else back
            marks.append(Mark(record["action"], record["time"], word, by_rule=True))
    ended = rollout.state in ("halted", "rolled_back")
    if ended and rollout.changed is not None and not any(m.action == "halt" for m in marks):
        word = "rolled back" if rollout.state == "rolled_back" else "halted"
        marks.append(Mark("halt", rollout.changed, f"{word} by {rollout.actor}", by_rule=False))
    return marks


def spans_of(
    records: Sequence[Record], rollout: Rollout, until: float
) -> list[tuple[str, float, float]]:
    """Stages with their first and last moment, in the order they were met."""
    spans: list[tuple[str, float, float]] = []
    begun = rollout.started
    for record in records:
        if begun is None:
            begun = record["time"]
        if spans and spans[-1][0] == record["stage"]:
            spans[-1] = (record["stage"], spans[-1][1], record["time"])
        else:
            spans.append((record["stage"], begun, record["time"]))
        if record["action"] == "advance":
            begun = record["time"]
    if spans:
        spans[-1] = (*spans[-1][:2], max(until, spans[-1][2]))
    return spans


def thinned(looks: Sequence[Look], *, most: int = MOST_POINTS) -> list[Look]:
    """At most so many looks, evenly; the first, the newest and those that moved stay."""
    step = math.ceil(len(looks) / most)
    return [
        look
        for index, look in enumerate(looks)
        if index % max(1, step) == 0
        or index + 1 == len(looks)
        or look.record["action"] in ("advance", "promote", "halt")
    ]


def information(look: Look) -> float:
    """What a confidence sequence narrows with: pairs, or the harmonic number of units."""
    control, treatment = look.evidence["n_control"], look.evidence["n_treatment"]
    if look.evidence["basis"] == "paired":
        return float(treatment)
    return control * treatment / (control + treatment) if control + treatment else 0.0


def watched_edge(rollout: Rollout, metric: str, last: Look) -> Literal["lower", "upper"]:
    """The edge that decides: the near one of harm once it is shown, else that of the promise."""
    worse_is_more = rollout.experiment.metric(metric).direction == "decrease"
    return "lower" if worse_is_more == (last.standing == "harmed") else "upper"


def decision_zone(levels: Sequence[float], lower: float, upper: float) -> tuple[float, float]:
    """The y axis: zero, the margin and the last interval, 2.2 to 5 half-widths to each side."""
    half = (upper - lower) / 2
    low, high = min(*levels, lower, 0.0), max(*levels, upper, 0.0)
    middle, reach = (low + high) / 2, (high - low) / 2
    reach = max(1.12 * reach, 2.2 * half, 1e-9)
    if low >= 0 and lower >= 0:  # all on one side: leave a little air beyond zero, no more
        return low - 0.12 * reach, max(high + 0.3 * reach, low + 2.2 * half)
    if high <= 0 and upper <= 0:
        return min(low - 0.3 * reach, high - 2.2 * half), high + 0.12 * reach
    return middle - reach, middle + reach
