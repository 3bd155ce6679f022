"""Decisions: what the evidence says to do, in numbers and in words.

`decide` is a pure function of a policy, the evidence of one look and the place in the rollout.
It imports the standard library alone, so that serving code can read a policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from abkit.errors import ConfigError
from abkit.metrics import check_name
from abkit.records import build, check_choice, check_count, check_fraction, check_positive

Action = Literal["continue", "advance", "promote", "hold", "halt"]
GuardrailTest = Literal["canary", "limit", "difference"]
Rule = Literal["superior", "non_inferior"]

CODES: Mapping[Action, int] = {"continue": 0, "hold": 0, "advance": 1, "promote": 2, "halt": -1}
DAY_SECONDS = 86_400.0
DEFAULT_RELATIVE_MARGIN = 0.25
MILLION = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """A metric that may halt a rollout, and must be shown not to be worse before promotion.

    Args:
        metric: key of the metric.
        test: "canary" for bad events (errors, wrong answers): relative risk against the live
            control, exact for any split and any drift of the base rate; "limit" for bad events
            against a fixed rate, where no control is live; "difference" for means.
        margin: how much worse still counts as not worse: a relative risk of 1 + margin for
            "canary" (0.25 unless given), a distance in the metric's unit for "difference" (no
            default; in log units where the metric is analysed as logarithm); unused for "limit".
        limit: the highest rate allowed, in (0, 1); for "limit" only.
    """

    metric: str
    test: GuardrailTest = "canary"
    margin: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        """Check the margin and the limit."""
        check_name(self.metric, "guardrail metric")
        where = f"guardrail {self.metric!r}"
        check_choice(where, "test", self.test, ("canary", "limit", "difference"))
        if self.margin is None and self.test == "difference":
            raise ConfigError(f"{where}: no 'margin', which test 'difference' needs (in the unit)")
        if self.margin is None:
            object.__setattr__(self, "margin", DEFAULT_RELATIVE_MARGIN)
        check_positive(where, "margin", self.margin)
        if (self.test == "limit") != (self.limit is not None):
            msg = f"{where}: a limit goes with test='limit' and with no other"
            raise ConfigError(msg)
        if self.limit is not None:
            check_fraction(where, "limit", self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric that must be good enough for promotion; it never halts.

    Args:
        metric: key of the metric.
        rule: "superior", or "non_inferior" by `margin`.
        margin: how much worse still counts as not worse, in the metric's unit; 0 if superior.
    """

    metric: str
    rule: Rule = "superior"
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Check the rule and its margin."""
        check_name(self.metric, "objective metric")
        where = f"objective {self.metric!r}"
        check_choice(where, "rule", self.rule, ("superior", "non_inferior"))
        if self.rule == "non_inferior":
            check_positive(where, "margin", self.margin)
        elif self.margin != 0:
            msg = f"{where}: rule 'superior' takes no margin, got {self.margin!r}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a rollout halts, advances and is promoted.

    Args:
        guardrails: what may halt; each gets alpha / len(guardrails).
        objectives: what must hold for promotion, each at beta (intersection-union: no
            correction is needed).
        alpha: probability of halting a rollout that harms no guardrail, over its whole life.
        beta: probability of promoting a rollout that fails a given rule.
        max_seconds: an undecided rollout is put on hold after this long; never shipped.
        planned_units: units, of all arms, at which confidence sequences are tightest.
    """

    guardrails: tuple[Guardrail, ...] = ()
    objectives: tuple[Objective, ...] = ()
    alpha: float = 0.01
    beta: float = 0.05
    max_seconds: float = DAY_SECONDS
    planned_units: int = 10_000

    def __post_init__(self) -> None:
        """Check the error rates, and that something is watched."""
        check_fraction("policy", "alpha", self.alpha)
        check_fraction("policy", "beta", self.beta)
        check_positive("policy", "max_seconds", self.max_seconds)
        check_count("policy", "planned_units", self.planned_units, 1)
        if not self.guardrails:
            msg = "policy: no guardrails; a rollout that nothing can halt is not safe"
            raise ConfigError(msg)
        for what, items in (("guardrail", self.guardrails), ("objective", self.objectives)):
            keys = [item.metric for item in items]
            for key in keys:
                if keys.count(key) > 1:
                    msg = f"policy: two {what}s watch the metric {key!r}"
                    raise ConfigError(msg)

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """A policy from plain data.

        Raises:
            ConfigError: something is missing, unknown or unlawful.
        """
        if not isinstance(data, Mapping):
            msg = f"a policy must be a table of keys, got {data!r}"
            raise ConfigError(msg)
        values = dict(data)
        for name, cls_of, what in (
            ("guardrails", Guardrail, "guardrail"),
            ("objectives", Objective, "objective"),
        ):
            items = values.get(name, ())
            if not isinstance(items, (list, tuple)):
                msg = f"policy: {name} must be a list of tables, got {items!r}"
                raise ConfigError(msg)
            values[name] = tuple(build(cls_of, item, what) for item in items)
        return build(cls, values, "policy")

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return asdict(self)

    @property
    def checksum(self) -> str:
        """sha256 of the policy, in hex: part of the id of every decision made under it."""
        return sha256_of(self.to_dict())

    @property
    def halt_threshold(self) -> float:
        """The e-value at which one guardrail halts: len(guardrails) / alpha."""
        return len(self.guardrails) / self.alpha

    @property
    def promote_threshold(self) -> float:
        """The e-value at which one promotion rule holds: 1 / beta."""
        return 1 / self.beta


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, and why.

    Args:
        action: continue, advance, promote, hold or halt.
        reasons: why, in words with numbers; the first is the deciding one.
        evidence: what was known.
        alarms: trust checks that failed.
    """

    action: Action
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()
    alarms: tuple[Alarm, ...] = ()

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
            "evidence": [asdict(item) for item in self.evidence],
            "alarms": [asdict(item) for item in self.alarms],
        }


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
    if missing:
        return decision("continue", *missing)
    if place.last:
        return decision("promote", *(_shown_text(item, policy) for item in evidence))
    return decision("advance", f"stage {place.stage!r} has what it needs and shows no harm")


def sha256_of(data: object) -> str:
    """sha256 of plain data in canonical JSON, in hex."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def e_text(e_value: float) -> str:
    """An e-value for reading: three digits, and no more than "over 1,000,000"."""
    if e_value > MILLION:
        return "over 1,000,000"
    return f"{e_value:,.0f}" if e_value >= 100 else f"{e_value:.3g}"


def _missing(policy: Policy, evidence: tuple[Evidence, ...], place: Place) -> list[str]:
    missing: list[str] = []
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


def _shown_text(item: Evidence, policy: Policy) -> str:
    return (
        f"{item.metric}: {item.rule} is shown "
        f"(e-value {e_text(item.e_promote)}, needed {policy.promote_threshold:.0f})"
    )
