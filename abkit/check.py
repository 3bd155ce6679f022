"""A look at whether data or a workspace can be trusted: what was found, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Severity = Literal["info", "warn", "block"]


@dataclass(frozen=True, slots=True)
class Check:
    """A look at whether the data can be trusted.

    Args:
        id: name of the check.
        severity: "info" if all is well, "warn", or "block" if no decision should rest on it.
        text: what was found, with the numbers, and what to do.
        evidence: the numbers behind the text, as plain data.
        explanation: why it matters, whatever was found.
        remedy: what to do, in general.
    """

    id: str
    severity: Severity
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict, hash=False)
    explanation: str = ""
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON.

        Examples:
            >>> Check("late_rows", "info", "left out: 3 rows", {"rows": 3}).to_dict()["evidence"]
            {'rows': 3}
        """
        return {
            "id": self.id,
            "severity": self.severity,
            "text": self.text,
            "evidence": dict(self.evidence),
            "explanation": self.explanation,
            "remedy": self.remedy,
        }
