"""Policies: what may halt a rollout, what must hold before promotion, and how fast it may grow.

It imports the standard library alone, so that serving code can read a policy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from abkit.errors import ConfigError
from abkit.metrics import check_name
from abkit.records import (
    build,
    check_choice,
    check_count,
    check_fraction,
    check_positive,
    is_number,
)

GuardrailTest = Literal["canary", "limit", "difference", "budget"]
Rule = Literal["superior", "non_inferior"]

DAY_SECONDS = 86_400.0
DEFAULT_RELATIVE_MARGIN = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """A metric that may halt a rollout, and must be shown not to be worse before promotion.

    Args:
        metric: key of the metric.
        test: "canary" for bad events (errors, wrong answers): relative risk against the live
            control, exact for any split and any drift of the base rate; "limit" for bad events
            against a fixed rate, where no control is live; "difference" for means; "budget" for
            the number of bad events that treatment may have in all.
        margin: how much worse still counts as not worse: a relative risk of 1 + margin for
            "canary" (0.25 unless given), a distance in the metric's unit for "difference" (no
            default; in log units where the metric is analysed as logarithm); unused for "limit".
        limit: the highest rate allowed, in (0, 1); for "limit" only.
        budget: treatment's bad events, over the whole rollout, of which one more halts; for
            "budget" only. It is a person's number and no test: it costs no alpha, and a harmless
            treatment that meets enough units halts too. Each unit counts once.
    """

    metric: str
    test: GuardrailTest = "canary"
    margin: float | None = None
    limit: float | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        """Check the margin, the limit and the budget."""
        check_name(self.metric, "guardrail metric")
        where = f"guardrail {self.metric!r}"
        check_choice(where, "test", self.test, get_args(GuardrailTest))
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
        if (self.test == "budget") != (self.budget is not None):
            raise ConfigError(f"{where}: a budget goes with test='budget' and with no other")
        if self.budget is not None:
            check_count(where, "budget", self.budget)


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
        guardrails: what may halt; each that tests something gets an equal part of alpha.
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
        """The e-value at which one guardrail halts: guardrails / alpha, budgets not counted."""
        tests = sum(item.test != "budget" for item in self.guardrails)
        return max(1, tests) / self.alpha

    @property
    def promote_threshold(self) -> float:
        """The e-value at which one promotion rule holds: 1 / beta."""
        return 1 / self.beta


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A share that grows as fast as the harm that may still be there allows.

    It replaces the stages of a canary: the next share is the largest whose excess bad events,
    until they are seen, stay within the budget, if treatment is as bad as the data still allow.

    Args:
        budget: excess bad events allowed before they are seen, > 0.
        requests_per_second: units a second, of all arms, > 0; None measures first exposures.
        lag_seconds: from a bad event until a halt has reached the serving processes, > 0.
        max_share: largest share, in (0, 1).
        start_share: first share, in (0, max_share]; less where it is known that a total failure
            would cost more than the budget.
        metric: key of a canary guardrail; empty for the first one.
        base_rate: control's rate of bad events, in (0, 1); None measures it.
        min_units: units of treatment to meet at the largest share before promotion.
        min_seconds: shortest time before promotion.
    """

    budget: float = 100.0
    requests_per_second: float | None = None
    lag_seconds: float = 60.0
    max_share: float = 0.5
    start_share: float = 0.01
    metric: str = ""
    base_rate: float | None = None
    min_units: int = 2000
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("budget", "lag_seconds"):
            check_positive("ramp", name, getattr(self, name))
        if self.requests_per_second is not None:
            check_positive("ramp", "requests_per_second", self.requests_per_second)
        for name in ("max_share", "start_share"):
            check_fraction("ramp", name, getattr(self, name))
        if self.start_share > self.max_share:
            raise ConfigError(
                f"ramp: start_share {self.start_share!r} is above max_share {self.max_share!r}"
            )
        if self.base_rate is not None:
            check_fraction("ramp", "base_rate", self.base_rate)
        if self.metric != "":
            check_name(self.metric, "ramp: metric")
        check_count("ramp", "min_units", self.min_units)
        if not is_number(self.min_seconds) or self.min_seconds < 0:
            raise ConfigError(f"ramp: min_seconds must be a number >= 0, got {self.min_seconds!r}")

    @property
    def first_share(self) -> float:
        """The share that it begins with."""
        if self.requests_per_second is None:
            return self.start_share
        unseen = self.requests_per_second * self.lag_seconds * (1 - (self.base_rate or 0.0))
        return min(self.start_share, self.budget / unseen)

    @property
    def growths(self) -> int:
        """How often the share can grow at most: it doubles at least."""
        return max(0, math.ceil(math.log2(self.max_share / self.first_share)))


def sha256_of(data: object) -> str:
    """sha256 of plain data in canonical JSON, in hex."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
