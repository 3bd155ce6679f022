"""What is left of a logged record once a unit is forgotten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from abkit.events import DECISION, EXPOSURE, OUTCOME
from abkit.log.rewrite import FORGOTTEN, tombstones

if TYPE_CHECKING:
    from collections.abc import Sequence


class Redactor:
    """Takes one unit out of records.

    Args:
        unit: its id.
    """

    def __init__(self, unit: str) -> None:
        """Know the unit in every way JSON may write it."""
        self.unit = unit
        escaped = {json.dumps(unit, ensure_ascii=flag)[1:-1] for flag in (False, True)}
        twice = {json.dumps(text, ensure_ascii=flag)[1:-1] for text in escaped for flag in (0, 1)}  # type: ignore[arg-type]
        self.needles = tuple(
            sorted(text.encode("utf-8", "surrogatepass") for text in {unit, *escaped, *twice})
        )
        self._texts = tuple(escaped)
        self.owners: list[tuple[str, str] | None] = []
        """Experiment and variant of each event taken out, in order; None for a decision."""

    def replace(self, record: list[Any]) -> Sequence[list[Any]]:
        """What may stand in the place of a record, the best first; nothing to keep it."""
        match record:
            case [kind, _, experiment, unit, variant, _] if kind == EXPOSURE:
                return self._gone(record, experiment, variant) if unit == self.unit else ()
            case [kind, _, unit, _, _, experiment, variant] if kind == OUTCOME:
                return self._gone(record, experiment, variant) if unit == self.unit else ()
            case [kind, time, rollout, look, str(text)] if kind == DECISION:
                changed = self.decision(text)
                if changed is None:
                    return ()
                self.owners.append(None)
                return ([DECISION, time, rollout, look, changed], [FORGOTTEN])
        return self._gone(record, "", "") if _holds(record, self.unit) else ()

    def decision(self, text: str) -> str | None:
        """A decision record without the unit, not longer than before; None if it has none."""
        if not any(part in text for part in self._texts):
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return "{}"
        cleaned = _without(found, self.unit)
        if cleaned == found:
            return None
        return json.dumps(cleaned, ensure_ascii=False, separators=(",", ":"))

    def _gone(self, record: list[Any], experiment: Any, variant: Any) -> list[list[Any]]:
        self.owners.append((_text(experiment), _text(variant)))
        return tombstones(record, experiment, variant)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _holds(value: Any, unit: str) -> bool:
    """Whether a JSON value is or contains the unit, as a text or as a key."""
    if isinstance(value, str):
        return value == unit
    if isinstance(value, dict):
        return unit in value or any(_holds(item, unit) for item in value.values())
    return isinstance(value, list) and any(_holds(item, unit) for item in value)


def _without(value: Any, unit: str) -> Any:
    """A JSON value without the unit's overrides: the only place where a decision names a unit."""
    if isinstance(value, dict):
        return {
            key: {k: v for k, v in item.items() if k != unit}
            if key == "overrides" and isinstance(item, dict)
            else _without(item, unit)
            for key, item in value.items()
        }
    return [_without(item, unit) for item in value] if isinstance(value, list) else value
