"""The joint rule of distillation, as metrics, guardrails, objectives and stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from abkit.errors import ConfigError
from abkit.metrics import check_name
from abkit.records import check_fraction, check_positive

LOG_MARGIN: Final = 0.1
"""A tenth slower or dearer, in log units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill:
    """A model that must be as good as the one it replaces, and faster and cheaper.

    Quality not worse by a margin, latency better, cost better and errors not worse must each be
    shown at `beta`: all of them are needed, so none is corrected for the others
    (intersection-union). Harm to any of them halts, at `alpha` over their number.

    Args:
        quality: metric of the quality. Unless declared: a proportion of wrong answers.
        margin: how much worse in quality still counts as not worse, in the metric's unit.
        latency: metric that must become better. Unless declared: milliseconds, compared as ratios.
        cost: the same for cost; empty if nobody records it.
        errors: metric of bad events, not worse by a relative risk of 1.25.
        errors_limit: the rate that errors must stay below, in (0, 1), instead of the comparison.
        latency_margin: how much slower halts, in the metric's unit; 0.1 in log units (a tenth)
            for a metric that is compared as ratios.
        cost_margin: the same for cost.
    """

    quality: str
    margin: float
    latency: str
    cost: str = ""
    errors: str = "error"
    errors_limit: float | None = None
    latency_margin: float | None = None
    cost_margin: float | None = None

    def __post_init__(self) -> None:
        """Check the names and numbers."""
        named = [self.quality, self.latency, self.errors]
        if self.cost != "":
            named.append(self.cost)
        for name in named:
            check_name(name, "metric")
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two of quality, latency, cost and errors are {twice!r}")
        check_positive("distill", "margin", self.margin)
        for key in ("latency_margin", "cost_margin"):
            if getattr(self, key) is not None:
                check_positive("distill", key, getattr(self, key))
        if self.cost_margin is not None and not self.cost:
            raise ConfigError(f"cost_margin is {self.cost_margin!r}, but no cost is named")
        if self.errors_limit is not None:
            check_fraction("distill", "errors_limit", self.errors_limit)

    def parts(self, declared: object, where: str) -> dict[str, Any]:
        """The parts of a plan that the rule comes to, as plain data.

        Args:
            declared: the plan's metrics, as read.
            where: the place in the file, for messages.

        Raises:
            ConfigError: a margin is needed that only the plan can say.
        """
        known = {
            item.get("key"): item
            for item in (declared if isinstance(declared, (list, tuple)) else ())
            if isinstance(item, Mapping)
        }
        made: list[dict[str, Any]] = [
            {
                "key": self.quality,
                "kind": "proportion",
                "direction": "decrease",
                "missing": "exclude",
            },
            {"key": self.latency, "direction": "decrease", "log": True, "unit_of_measure": "ms"},
        ]
        if self.cost:
            made.append({"key": self.cost, "direction": "decrease", "log": True})
        guardrails: list[dict[str, Any]] = [
            {"metric": self.quality, "test": "difference", "margin": self.margin}
        ]
        better = [("latency", self.latency, self.latency_margin)]
        better += [("cost", self.cost, self.cost_margin)] if self.cost else []
        for part, name, margin in better:
            if margin is None and not known.get(name, {"log": True}).get("log", False):
                raise ConfigError(
                    f"{where}: no '{part}_margin', which the metric {name!r} needs, as it is not "
                    "compared as ratios (log = true); say from how much worse it halts"
                )
            guardrails.append(
                {"metric": name, "test": "difference", "margin": margin or LOG_MARGIN}
            )
        limit = {} if self.errors_limit is None else {"test": "limit", "limit": self.errors_limit}
        guardrails.append({"metric": self.errors, **limit})
        dark = [self.quality, *(name for _, name, _ in better)]
        return {
            "metrics": [item for item in made if item["key"] not in known],
            "policy": {
                "guardrails": guardrails,
                "objectives": [{"metric": name, "rule": "superior"} for _, name, _ in better],
            },
            "stages": [
                {"name": "shadow", "mode": "shadow", "min_units": 500, "requires": dark},
                {"name": "10 %", "share": 0.1, "min_units": 300},
                {"name": "50 %", "share": 0.5, "min_units": 1500},
            ],
        }
