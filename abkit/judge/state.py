"""What the judge remembers between looks, as records and as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from abkit.errors import DataError
from abkit.sequential.canary import CanaryDesign, CanaryState
from abkit.sequential.risk import RiskBound

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class GuardrailState:
    """The running tests of one guardrail that counts events.

    Args:
        harm: test against "treatment is not worse".
        safe: test against "treatment is worse by the margin"; None where the difference of means
            is what has to be shown.
        counted: units and bad events that the tests have seen, by epoch and variant.
    """

    harm: CanaryState
    safe: CanaryState | None
    counted: Mapping[tuple[int, str], tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgeState:
    """All that the judge remembers between looks.

    Args:
        guardrails: running tests, by metric.
        peaks: the largest e-value for each promotion rule so far, by role and metric.
        since: when the rollout was started, or last resumed by a person.
        accepted: units by epoch and variant when it was resumed: their split, whatever it was,
            has been accepted.
        bound: how much worse treatment can be, where that bounds a ramp.
        arms: where several treatments are compared: the state of each still in.
    """

    guardrails: Mapping[str, GuardrailState] = field(default_factory=dict)
    peaks: Mapping[tuple[str, str], float] = field(default_factory=dict)
    since: float | None = None
    accepted: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    bound: RiskBound | None = None
    arms: Mapping[str, JudgeState] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back; JSON keeps every bit of a float."""
        return {
            "guardrails": {
                key: {
                    "harm": _canary_data(item.harm),
                    "safe": None if item.safe is None else _canary_data(item.safe),
                    "counted": [[*cell, *counts] for cell, counts in item.counted.items()],
                }
                for key, item in self.guardrails.items()
            },
            "peaks": [[*names, value] for names, value in self.peaks.items()],
            "since": self.since,
            "accepted": [
                [epoch, variant, n]
                for epoch, row in self.accepted.items()
                for variant, n in row.items()
            ],
            "bound": None if self.bound is None else asdict(self.bound),
            **({"arms": {k: v.to_dict() for k, v in self.arms.items()}} if self.arms else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A state from the plain data of `to_dict`.

        Raises:
            DataError: the data has another shape.
        """
        try:
            accepted: dict[int, dict[str, int]] = {}
            for epoch, variant, n in data["accepted"]:
                accepted.setdefault(epoch, {})[variant] = n
            bound = data["bound"]
            return cls(
                guardrails={
                    key: GuardrailState(
                        _canary(item["harm"]),
                        None if item["safe"] is None else _canary(item["safe"]),
                        {(epoch, name): (n, bad) for epoch, name, n, bad in item["counted"]},
                    )
                    for key, item in data["guardrails"].items()
                },
                peaks={(role, metric): value for role, metric, value in data["peaks"]},
                since=data["since"],
                accepted=accepted,
                bound=None
                if bound is None
                else RiskBound(bound["alpha"], tuple(bound["log_likelihood"])),
                arms={name: cls.from_dict(item) for name, item in data.get("arms", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a state of the judge: {error!r}") from None


def _canary_data(state: CanaryState) -> dict[str, Any]:
    return {"design": asdict(state.design), "by_hour": [list(row) for row in state.by_hour]}


def _canary(data: Mapping[str, Any]) -> CanaryState:
    return CanaryState(CanaryDesign(**data["design"]), tuple(tuple(x) for x in data["by_hour"]))
