"""States, verdicts and times in words. Pure functions of rollouts and records; no streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from abkit.decision import evidence_on
from abkit.plots import e_value_text, finding, standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from abkit.experiment import Experiment
    from abkit.rollout import Rollout
    from data import Listing

    Record = Mapping[str, Any]

Colour = Literal["gray", "blue", "orange", "yellow"]
STALE_SECONDS = 30.0
MINUTE, HOUR, DAY = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Badge:
    """A glyph and a word; the colour repeats what they say.

    Args:
        glyph: the glyph.
        word: the word.
        colour: blue for as promised, orange (vermilion) for harm, yellow for attention.
    """

    glyph: str
    word: str
    colour: Colour = "gray"

    @property
    def text(self) -> str:
        """Glyph and word."""
        return f"{self.glyph} {self.word}"


STATES: Mapping[str, Badge] = {
    "draft": Badge("\N{MIDDLE DOT}", "draft"),
    "shadow": Badge("\N{CIRCLE WITH LEFT HALF BLACK}", "shadow"),
    "canary": Badge("\N{BLACK CIRCLE}", "canary"),
    "switched": Badge("\N{BLACK CIRCLE}", "switched"),
    "hold": Badge("\N{BLACK UP-POINTING TRIANGLE}", "on hold", "yellow"),
    "ready": Badge("\N{BLACK UP-POINTING TRIANGLE}", "ready to be promoted", "yellow"),
    "bake": Badge("\N{BLACK CIRCLE}", "promoted, still watched", "blue"),
    "promoted": Badge("\N{WHITE CIRCLE}", "promoted", "blue"),
    "superseded": Badge("\N{WHITE CIRCLE}", "promoted, then superseded", "blue"),
    "halted": Badge("\N{BLACK DIAMOND}", "halted", "orange"),
    "rolled_back": Badge("\N{BLACK DIAMOND}", "rolled back", "orange"),
}
ACTIONS: Mapping[str, Badge] = {
    "continue": Badge("\N{MIDDLE DOT}", "continue"),
    "advance": Badge("\N{RIGHTWARDS ARROW}", "advance"),
    "promote": Badge("\N{WHITE CIRCLE}", "promote", "blue"),
    "hold": Badge("\N{BLACK UP-POINTING TRIANGLE}", "hold", "yellow"),
    "halt": Badge("\N{BLACK DIAMOND}", "halt", "orange"),
}
STANDINGS: Mapping[str, Badge] = {
    "harmed": Badge("\N{BLACK DIAMOND}", "harm shown", "orange"),
    "shown": Badge("\N{WHITE CIRCLE}", "rule shown", "blue"),
    "open": Badge("\N{MIDDLE DOT}", "open"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a rollout stands, in words.

    Args:
        headline: the conclusion.
        reason: why, as the one who decided put it; free text, to be shown inert.
        change: what would change it.
    """

    headline: str
    reason: str
    change: str


def verdict(rollout: Rollout, records: Sequence[Record]) -> Verdict:
    """Where this rollout stands, with its numbers, and what would change it.

    Args:
        rollout: the rollout as it is now.
        records: its decision records, oldest first.
    """
    last = records[-1] if records else None
    if rollout.live or rollout.state == "draft":
        return _undecided(rollout, last)
    if rollout.state in ("halted", "rolled_back"):
        harmed = _findings(rollout, last, "harmed")
        by_hand = last is None or last["action"] != "halt"
        headline = f"{_word(rollout)} by {rollout.actor}" if by_hand else "; ".join(harmed)
        change = "nothing, this is final; a new attempt is a new rollout."
        return Verdict(headline or _word(rollout), rollout.reason, change)
    decided = next((item for item in reversed(records) if item["action"] == "promote"), None)
    headline = "; ".join(_findings(rollout, decided, "shown")) or "Promoted"
    if rollout.state == "superseded":
        reason = rollout.reason if decided is None else decided["reason"]
        return Verdict(headline, reason, f"nothing, it was {rollout.reason}.")
    change = (
        "guardrails are watched until promotion, not after it; "
        f"abkit rollout rollback makes {rollout.control} answer everyone at once."
    )
    return Verdict(headline, rollout.reason, change)


def _undecided(rollout: Rollout, last: Record | None) -> Verdict:
    policy = rollout.arm_policy
    if rollout.state == "draft":
        return Verdict("Not started", rollout.reason, "abkit rollout start begins its first stage.")
    out = "takes a treatment out" if rollout.rivals else "halts it"
    halts = f"A guardrail's harm e-value of {policy.halt_threshold:,.0f} {out}"
    if last is None:
        return Verdict("No look yet", "the controller has not looked yet", f"{halts}.")
    worst = max(
        (item for item in last["evidence"] if item["role"] == "guardrail"),
        key=lambda item: float(item["e_harm"]),
    )
    halts += f"; the highest is {e_value_text(worst['e_harm'])} ({worst['metric']})."
    if rollout.state == "hold":
        change = f"a person decides: abkit rollout resume, or abkit rollout halt. {halts}"
        return Verdict("On hold: it needs a person", rollout.reason, change)
    final = rollout.stage_index + 1 == len(rollout.stages)
    what = "promotion" if final else f"stage {rollout.stages[rollout.stage_index + 1].name!r}"
    change = f"{what} waits for what is missing above. {halts}"
    return Verdict("No harm shown, and not decided yet", last["reason"], change)


def _findings(rollout: Rollout, record: Record | None, wanted: str) -> list[str]:
    if record is None:
        return []
    arm = record.get("leader", "")  # of several treatments
    known = evidence_on(record, arm) if arm else record["evidence"]
    found = [item for item in known if standing(item, record) == wanted]
    if not rollout.is_contest:
        return [finding(item, record, rollout) for item in found]
    return [
        f"{item.get('variant') or record['treatment']}: {finding(item, record, rollout)}"
        for item in found
    ]


def _word(rollout: Rollout) -> str:
    word = STATES[rollout.state].word
    return word[0].upper() + word[1:]


# ---- what needs attention ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attention:
    """How urgent a rollout is.

    Args:
        rank: 0 needs a person, 1 is live, 2 is over.
        words: why, in a few words.
    """

    rank: int
    words: str


def attention(rollout: Rollout, listing: Listing, *, stale: bool) -> Attention:
    """Whether somebody should look at this rollout, and why.

    Args:
        rollout: the rollout.
        listing: all rollouts of the workspace.
        stale: whether the newest data is too old.
    """
    if rollout.state == "hold":
        return Attention(0, "on hold, waits for a person")
    if rollout.state == "ready":
        return Attention(0, "all is shown, a person must promote")
    if rollout.live:
        return Attention(0, "live, but no fresh data") if stale else Attention(1, "live")
    newest = listing.newest_of(rollout.experiment.key) is rollout
    if rollout.state in ("halted", "rolled_back") and newest:
        by_itself = rollout.actor == "abkit"
        return Attention(0, "halted by itself" if by_itself else f"halted by {rollout.actor}")
    return Attention(2, "draft" if rollout.state == "draft" else "over")


def by_attention(listing: Listing, *, stale: bool) -> list[tuple[Rollout, Attention]]:
    """Rollouts with what needs attention first, then the live ones, then those that are over."""
    found = [(item, attention(item, listing, stale=stale)) for item in listing.rollouts]
    return sorted(found, key=lambda pair: pair[1].rank)  # stable: the newest first within a rank


def headline(found: Iterable[tuple[Rollout, Attention]]) -> str:
    """The page's conclusion in one sentence."""
    ranks = [item.rank for _, item in found]
    urgent, live = ranks.count(0), ranks.count(1)
    if urgent:
        return f"{count_text(urgent, 'rollout needs', 'rollouts need')} attention"
    if live:
        return f"{count_text(live, 'rollout is', 'rollouts are')} live, no harm shown"
    return "All quiet: nothing is being rolled out"


def serving_words(experiment: Experiment) -> str:
    """Who answers now."""
    if experiment.state != "running":
        return f"{experiment.control} answers everyone"
    shares = dict.fromkeys((experiment.control, *experiment.weights), 0.0)
    for name, weight in experiment.weights.items():
        shares[name] += weight * experiment.rollout
    shares[experiment.control] += 1 - experiment.rollout
    answering = {name: share for name, share in shares.items() if share > 0}
    if len(answering) == 1:
        words = f"{next(iter(answering))} answers everyone"
    else:
        words = ", ".join(f"{name} {100 * share:.3g} %" for name, share in answering.items())
    return f"{words}; {experiment.shadow} answers in the dark" if experiment.shadow else words


# ---- times and counts ----------------------------------------------------------------------------


def moment_text(seconds: float) -> str:
    """A moment in UTC: "2026-11-24 07:32:11 UTC"."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: "9 min 47 s"."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def age_badge(seconds: float, *, live: bool) -> Badge:
    """How old the data is; old data is a fault only while something is live."""
    age = f"{seconds:.1f} s" if seconds < 10 else duration_text(seconds)
    if live and seconds > STALE_SECONDS:
        return Badge("\N{BLACK UP-POINTING TRIANGLE}", f"data {age} old", "yellow")
    return Badge("\N{BLACK CIRCLE}" if live else "\N{MIDDLE DOT}", f"data {age} old")


def count_text(number: int, one: str, many: str) -> str:
    """A number with its noun: "1 look", "19 looks"."""
    return f"{number:,} {one if number == 1 else many}"


def history(rollout: Rollout) -> str:
    """When it moved last, after how long, and by whom."""
    if rollout.started is None or rollout.changed is None:
        return "not started"
    after = f", {duration_text(rollout.changed - rollout.started)} after its start"
    if rollout.changed == rollout.started:
        word, after = "started", ""
    else:
        word = "last moved" if rollout.live else STATES[rollout.state].word
    return f"{word} {moment_text(rollout.changed)} by {rollout.actor}{after}"
