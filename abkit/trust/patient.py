"""A workspace at one moment, as `abkit doctor` looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit.check import Check
from abkit.trust.rules import BY_ID

if TYPE_CHECKING:
    from pathlib import Path

    from abkit.check import Severity
    from abkit.rollout import Rollout
    from abkit.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Patient:
    """A workspace at one moment.

    Args:
        workspace: the workspace.
        now: seconds since 1970 in UTC.
        controlled: whether a controller runs; None where nobody can tell.
        is_deep: whether every archived byte is read.
    """

    workspace: Workspace
    now: float
    controlled: bool | None
    is_deep: bool = False

    @property
    def path(self) -> Path:
        """The folder."""
        return self.workspace.path

    def rollouts(self) -> tuple[list[Rollout], list[str]]:
        """Rollouts that can be read, and the files of those that cannot."""
        damaged: list[str] = []
        found = self.workspace.rollouts(
            on_damage=lambda path, error: damaged.append(f"{path.name} ({error})")
        )
        return found, damaged


def check(id_: str, severity: Severity, text: str, **evidence: object) -> Check:
    """A check with the explanation and the remedy of its rule."""
    rule = BY_ID[id_]
    return Check(id_, severity, text, evidence, rule.explanation, rule.remedy)
