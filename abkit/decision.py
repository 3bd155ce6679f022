"""Decisions: what the evidence says to do, in numbers and in words.

`decide` is a pure function of a policy, the evidence of one look and the place in the rollout.
It imports the standard library alone, so that serving code can read a policy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from abkit.policy import (
    DEFAULT_RELATIVE_MARGIN,
    Guardrail,
    GuardrailTest,
    Objective,
    Policy,
    Rule,
    sha256_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CODES",
    "DEFAULT_RELATIVE_MARGIN",
    "Action",
    "Alarm",
    "Decision",
    "Evidence",
    "Guardrail",
    "GuardrailTest",
    "Objective",
    "Place",
    "Policy",
    "Rule",
    "decide",
    "e_text",
    "evidence_on",
    "leading_arm",
    "sha256_of",
]

Action = Literal["continue", "advance", "promote", "hold", "halt"]

CODES: Mapping[Action, int] = {"continue": 0, "hold": 0, "advance": 1, "promote": 2, "halt": -1}
MILLION = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one look knows of one metric in one role.

    Args:
        metric: key of the metric.
        role: "guardrail" or "objective".
        rule: what promotion needs, in words, such as "relative risk below 1.25".
        e_harm: e-value against "treatment is not worse"; 1 without evidence.
        e_promote: e-value against the opposite of `rule`, the largest so far unless live units
            contradict it; 1 without evidence.
        difference: treatment minus control, in the metric's unit (in log units for a metric
            analysed as logarithm); None without data.
        lower: lower end of its confidence sequence at level 1 - beta; None where there is none.
        upper: upper end of it.
        basis: "paired" if `difference` comes from units that both variants answered, "live"
            if it comes from units that one of them answered.
        relative_risk: pooled over epochs, for canary guardrails; None without events.
        n_control: units with a value in control.
        n_treatment: the same in treatment.
        mean_control: mean of control; None without units.
        mean_treatment: mean of treatment; None without units.
        variant: which of several treatments it is about; empty for that of the rollout.
    """

    metric: str
    role: Literal["guardrail", "objective"]
    rule: str
    e_harm: float = 1.0
    e_promote: float = 1.0
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    basis: Literal["live", "paired"] = "live"
    relative_risk: float | None = None
    n_control: int = 0
    n_treatment: int = 0
    mean_control: float | None = None
    mean_treatment: float | None = None
    variant: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `variant` is left out where it is empty."""
        data = asdict(self)
        if not self.variant:
            del data["variant"]
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A trust check that failed: it blocks promotion, and never a halt.

    Args:
        check: name of the check, such as "sample_ratio_mismatch".
        text: what is wrong, with the numbers, and what to do.
    """

    check: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in its rollout a decision is taken.

    Args:
        stage: name of the stage.
        units: units of treatment (pairs, in a shadow stage) met in this stage so far.
        min_units: how many the stage needs.
        seconds: time in this stage so far.
        min_seconds: how long the stage must last.
        total_seconds: time since the rollout started, or was last resumed by a person.
        requires: metrics whose promotion rule must hold before the stage is left.
        last: whether promotion is what follows this stage.
        dark: whether treatment answers nobody for real (shadow).
        baking: whether treatment has been promoted, and is still watched.
        growth: of a ramp that has not reached its largest share: how far it may go now and why,
            in words; empty elsewhere.
        next_share: share that it may go to at once, in (0, 1]; None for none.
    """

    stage: str
    units: int
    min_units: int
    seconds: float
    min_seconds: float
    total_seconds: float
    requires: tuple[str, ...] = ()
    last: bool = False
    dark: bool = False
    baking: bool = False
    growth: str = ""
    next_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, and why.

    Args:
        action: continue, advance, promote, hold or halt.
        reasons: why, in words with numbers; the first is the deciding one.
        evidence: what was known.
        alarms: trust checks that failed.
        next_share: with "advance" on a ramp: the share of units that treatment answers next.
        drops: of several treatments, those that are harmed and taken out now.
        leader: of several treatments, the one that is ahead, and wins where all is shown.
    """

    action: Action
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    next_share: float | None = None
    drops: tuple[str, ...] = ()
    leader: str = ""

    @property
    def code(self) -> int:
        """-1 halt, 0 continue or hold, 1 advance, 2 promote."""
        return CODES[self.action]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a decision record."""
        return {
            "action": self.action,
            "code": self.code,
            "reason": "; ".join(self.reasons),
            "evidence": [item.to_dict() for item in self.evidence],
            "alarms": [asdict(item) for item in self.alarms],
            **({} if self.next_share is None else {"next_share": self.next_share}),
            **({"drops": list(self.drops)} if self.drops else {}),
            **({"leader": self.leader} if self.leader else {}),
        }


def leading_arm(record: Mapping[str, Any]) -> str:
    """The treatment that a decision record, as plain data, is about: of several, the one ahead."""
    return str(record.get("leader") or record.get("treatment", ""))


def evidence_on(record: Mapping[str, Any], arm: str) -> list[Mapping[str, Any]]:
    """The evidence on one treatment in a decision record, as plain data."""
    own = record.get("treatment", "") in ("", arm)
    return [
        item
        for item in record.get("evidence", ())
        if item.get("variant") == arm or (own and not item.get("variant"))
    ]


def decide(
    policy: Policy,
    evidence: tuple[Evidence, ...],
    place: Place,
    alarms: tuple[Alarm, ...] = (),
) -> Decision:
    """Say what to do: halt before hold, hold before progress, progress only when all is shown.

    A trust alarm never stops a halt: bad data can't keep a harmful canary alive.

    Args:
        policy: the rules.
        evidence: one record per guardrail and objective, from one look.
        place: the stage and how far it has come.
        alarms: trust checks that failed.
    """

    def decision(action: Action, *reasons: str) -> Decision:
        return Decision(action=action, reasons=reasons, evidence=evidence, alarms=alarms)

    guardrails = [item for item in evidence if item.role == "guardrail"]
    harmed = [item for item in guardrails if item.e_harm >= policy.halt_threshold]
    if harmed:
        return decision("halt", *(_harm_text(item, policy) for item in harmed))
    if place.baking:
        baked = f"{place.seconds:.0f} of {place.min_seconds:.0f} s baked without harm"
        return decision("promote" if place.seconds >= place.min_seconds else "continue", baked)
    doubts = [alarm.text for alarm in alarms]
    if not doubts and place.total_seconds > policy.max_seconds:
        doubts.append(
            f"undecided after {place.total_seconds:.0f} s, the plan allows "
            f"{policy.max_seconds:.0f} s; it needs a person"
        )
    if doubts:
        return decision("hold", *doubts)
    missing = _missing(policy, evidence, place)
    if place.next_share is not None:
        found = replace(decision("advance", place.growth), next_share=place.next_share)
    elif missing:
        found = decision("continue", *missing)
    elif place.last:
        found = decision("promote", *(_shown_text(item, policy) for item in evidence))
    else:
        found = decision("advance", f"stage {place.stage!r} has what it needs and shows no harm")
    return found


def e_text(e_value: float) -> str:
    """An e-value for reading: three digits, and no more than "over 1,000,000"."""
    if e_value > MILLION:
        return "over 1,000,000"
    return f"{e_value:,.0f}" if e_value >= 100 else f"{e_value:.3g}"


def _missing(policy: Policy, evidence: tuple[Evidence, ...], place: Place) -> list[str]:
    missing = [place.growth] if place.growth else []
    if place.units < place.min_units:
        missing.append(f"{place.units:,} of {place.min_units:,} units in stage {place.stage!r}")
    if place.seconds < place.min_seconds:
        missing.append(f"{place.seconds:.0f} of {place.min_seconds:.0f} s in stage {place.stage!r}")
    known = {(item.role, item.metric) for item in evidence}
    watched = [("guardrail", item.metric) for item in policy.guardrails]
    watched += [("objective", item.metric) for item in policy.objectives]
    missing += [
        f"{metric}: no evidence for this {role}"
        for role, metric in watched
        if (role, metric) not in known and (place.last or metric in place.requires)
    ]
    missing += [
        f"no outcome {item.metric!r} has been recorded yet; check its name, and record 0 when "
        "all is well"
        for item in evidence
        if item.role == "guardrail" and not place.dark and not item.n_control + item.n_treatment
    ]
    for item in evidence:
        needed = place.last or item.metric in place.requires
        if needed and not item.e_promote >= policy.promote_threshold:  # NaN shows nothing either
            missing.append(
                f"{item.metric}: {item.rule} not shown yet "
                f"(e-value {e_text(item.e_promote)} of {policy.promote_threshold:.0f})"
            )
    return missing


def _harm_text(item: Evidence, policy: Policy) -> str:
    budget = _budget(item, policy)
    if budget is not None:
        bad = round(item.n_treatment * (item.mean_treatment or 0.0))
        return (
            f"{item.metric} has used up its budget: {bad:,} bad events in {item.n_treatment:,} "
            f"units of treatment, {budget:,} were allowed"
        )
    numbers = f"e-value {e_text(item.e_harm)} passed {policy.halt_threshold:.0f}"
    if item.mean_control is None or item.mean_treatment is None:
        rate = "" if item.mean_treatment is None else f" ({item.mean_treatment:.3g})"
        return (
            f"{item.metric} breaks its limit{rate}, {item.rule} was asked: {numbers} "
            f"after {item.n_treatment:,} units of treatment"
        )
    return (
        f"{item.metric} is worse in treatment ({item.mean_treatment:.3g} against "
        f"{item.mean_control:.3g}): {numbers} after {item.n_treatment:,} units of treatment "
        f"and {item.n_control:,} of control"
    )


def _budget(item: Evidence, policy: Policy) -> int | None:
    budgets = {rule.metric: rule.budget for rule in policy.guardrails}
    return budgets.get(item.metric) if item.role == "guardrail" else None


def _shown_text(item: Evidence, policy: Policy) -> str:
    if _budget(item, policy) is not None:
        bad = round(item.n_treatment * (item.mean_treatment or 0.0))
        return f"{item.metric}: {bad:,} bad events, {item.rule} was asked"
    return (
        f"{item.metric}: {item.rule} is shown "
        f"(e-value {e_text(item.e_promote)}, needed {policy.promote_threshold:.0f})"
    )
