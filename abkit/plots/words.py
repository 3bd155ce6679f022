"""What a figure or a page says in words: numbers with units, standings, rules, findings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from abkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.decision import Guardrail, Objective
    from abkit.metrics import Metric
    from abkit.rollout import Rollout

    Record = Mapping[str, Any]

Standing = Literal["harmed", "shown", "open"]

LARGEST_E_VALUE = 1e6
SMALLEST_E_VALUE = 1e-3
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Scale:
    """How the numbers of one metric are shown.

    Differences of proportions are in percentage points (pp), differences of logarithms become
    relative changes in percent, others keep the metric's unit.

    Args:
        metric: the metric.
    """

    metric: Metric

    @property
    def unit(self) -> str:
        """Unit of a difference."""
        if self.metric.kind == "proportion":
            return "pp"
        return "%" if self.metric.log else self.metric.unit_of_measure

    def difference(self, value: float) -> float:
        """A difference as the number that is shown."""
        if self.metric.kind == "proportion":
            return 100 * value
        return 100 * math.expm1(min(value, 50.0)) if self.metric.log else value

    def signed(self, value: float) -> str:
        """A difference with its sign and unit, such as "+3.5 pp".

        Examples:
            >>> from abkit.metrics import Metric
            >>> Scale(Metric(key="wrong", kind="proportion")).signed(-0.0123)
            '\N{MINUS SIGN}1.2 pp'
        """
        shown = self.difference(value)
        return with_unit(signed(shown, _decimals(shown)), self.unit)

    def interval(self, lower: float, upper: float) -> str:
        """An interval in the unit of `signed`, which is not repeated: "[+0.5, +6.4]"."""
        ends = self.difference(lower), self.difference(upper)
        decimals = _decimals(*ends)
        return f"[{signed(ends[0], decimals)}, {signed(ends[1], decimals)}]"

    def size(self, value: float) -> str:
        """A distance without a sign, such as the margin "1.0 pp"."""
        shown = abs(self.difference(value))
        return with_unit(f"{shown:,.{_decimals(shown)}f}", self.unit)

    def level(self, mean: float) -> str:
        """The mean of one variant, with its unit: "17.4 %"; of logarithms, the geometric mean."""
        if self.metric.kind == "proportion":
            shown, unit = 100 * mean, "%"
            decimals = _decimals(shown)
        else:
            shown = math.exp(min(mean, 700.0)) if self.metric.log else mean
            unit = self.metric.unit_of_measure
            decimals = 0 if abs(shown) >= 100 else 3 - len(str(int(abs(shown)))) * (abs(shown) >= 1)
        text = f"{abs(shown):,.{decimals}f}"
        return with_unit(f"{MINUS}{text}" if shown < 0 else text, unit)


def signed(value: float, decimals: int = 1) -> str:
    """A number with its sign, a true minus and thousands separators.

    Examples:
        >>> signed(3.46), signed(0.0)
        ('+3.5', '0.0')
    """
    text = f"{abs(value):,.{decimals}f}"
    if not text.strip("0.,"):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def e_value_text(value: float) -> str:
    """An e-value to three digits, cut off where more digits say nothing.

    Examples:
        >>> e_value_text(266.56), e_value_text(0.0728), e_value_text(1e60)
        ('267', '0.07', '> 1,000,000')
    """
    if value >= LARGEST_E_VALUE:
        return f"> {LARGEST_E_VALUE:,.0f}"
    if value >= 100:
        return f"{value:,.0f}"
    if value < SMALLEST_E_VALUE:
        return f"< {SMALLEST_E_VALUE:g}"
    decimals = 1 if value >= 10 else 2 if value >= 0.01 else 3
    return f"{value:.{decimals}f}"


def clock_text(seconds: float) -> str:
    """The time of day in UTC: "08:25:31 UTC"."""
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S} UTC"


def standing(evidence: Mapping[str, Any], record: Record) -> Standing:
    """Where one metric stands at one look: harm is shown, its rule is shown, or it is open.

    Args:
        evidence: one entry of the record's evidence.
        record: the decision record, which carries the thresholds.
    """
    if evidence["role"] == "guardrail" and evidence["e_harm"] >= record["halt_threshold"]:
        return "harmed"
    return "shown" if evidence["e_promote"] >= record["promote_threshold"] else "open"


def rule_text(rollout: Rollout, metric: str, role: str = "") -> str:
    """What promotion asks of a metric, in words with units: "not worse by 1.0 pp".

    Args:
        rollout: whose policy watches it.
        metric: the metric.
        role: "guardrail" or "objective", for a metric that is both.
    """
    item = policy_item(rollout, metric, role)
    scale = Scale(rollout.experiment.metric(metric))
    test = getattr(item, "test", "")
    if test == "canary":
        return f"relative risk below {1 + (item.margin or 0.0):g}"
    limit = getattr(item, "limit", None)
    if limit is not None:
        return f"rate below {scale.level(limit)}"
    if getattr(item, "rule", "") == "superior":
        return "better than control"
    return f"not worse by {scale.size(margin_of(rollout, metric, role) or 0.0)}"


def finding(evidence: Mapping[str, Any], record: Record, rollout: Rollout) -> str:
    """What one look says of one metric, with its numbers: "wrong is worse: +3.5 pp [+0.5, +6.4]".

    Args:
        evidence: one entry of the record's evidence.
        record: the decision record, which carries the thresholds.
        rollout: the rollout as it is now.
    """
    metric, role = evidence["metric"], evidence["role"]
    rule = rule_text(rollout, metric, role)
    scale = Scale(rollout.experiment.metric(metric))
    where = standing(evidence, record)
    limit = getattr(policy_item(rollout, metric, role), "limit", None)
    if limit is not None:
        mean, allowed = evidence["mean_treatment"], f"{scale.level(limit)} is allowed"
        rate = "no units yet" if mean is None else scale.level(mean)
        verb = {"harmed": "breaks its limit", "shown": "keeps its limit", "open": "is open"}
        return f"{metric} {verb[where]}: {rate}, where {allowed}"
    if evidence["difference"] is None:
        return f"{metric}: nothing to compare yet"
    numbers = scale.signed(evidence["difference"])
    if evidence["lower"] is None:
        # The exact test may decide before an interval, which is asymptotic, can be given.
        numbers += ", too few events for an interval"
    else:
        numbers += f" {scale.interval(evidence['lower'], evidence['upper'])}"
    if where == "harmed":
        return f"{metric} is worse: {numbers}"
    if where == "open":
        return f"{metric}: no verdict yet, {numbers}"
    if rule.startswith("relative"):
        return f"{metric} is not worse, {rule}: {numbers}"
    return f"{metric} is {'better' if rule == 'better than control' else rule}: {numbers}"


def policy_item(rollout: Rollout, metric: str, role: str = "") -> Guardrail | Objective:
    """What the policy asks of a metric; without a role a guardrail comes before an objective.

    Raises:
        DataError: the policy does not watch it.
    """
    watched: tuple[Guardrail | Objective, ...] = (
        *(rollout.policy.guardrails if role != "objective" else ()),
        *(rollout.policy.objectives if role != "guardrail" else ()),
    )
    found = next((item for item in watched if item.metric == metric), None)
    if found is None:
        names = ", ".join(dict.fromkeys(item.metric for item in watched))
        msg = f"rollout {rollout.key!r} does not watch {metric!r}; its policy watches {names}"
        raise DataError(msg)
    return found


def margin_of(rollout: Rollout, metric: str, role: str = "") -> float | None:
    """The margin with the sign of "worse"; None where promotion asks for something else."""
    item = policy_item(rollout, metric, role)
    if getattr(item, "test", "difference") != "difference" or not item.margin:
        return None
    worse_is_more = rollout.experiment.metric(metric).direction == "decrease"
    return item.margin if worse_is_more else -item.margin


def _decimals(*values: float) -> int:
    largest = max(abs(value) for value in values)
    if largest >= 1000:
        return 0
    return 1 if largest >= 0.1 or largest == 0 else 1 - math.floor(math.log10(largest))


def with_unit(text: str, unit: str) -> str:
    """A number with its unit, where it has one."""
    return f"{text} {unit}" if unit else text
