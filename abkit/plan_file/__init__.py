"""Plan files: a rollout as TOML, YAML or JSON, with a strategy that fills in what it leaves out.

`read_plan` reads a file, `plan_of` plain data; `docs/rollouts.md` has the keys, and
`abkit schema` prints them as a JSON Schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError
from abkit.metrics import check_name
from abkit.plan_file.build import REQUIRED, check_keys, plan_keys, value_of
from abkit.plan_file.strategies import STRATEGIES, expanded
from abkit.plan_file.text import parse, read_text
from abkit.rollout import Rollout

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["plan_of", "read_plan"]


def read_plan(path: str | os.PathLike[str]) -> Rollout:
    """A draft from a plan file.

    Args:
        path: of the file; its suffix says the format: .toml, .yaml, .yml or .json.

    Raises:
        ConfigError: the file cannot be read, or does not describe a rollout; the message names
            file, place, key, value and what to do.
        MissingExtraError: YAML, without PyYAML.
    """
    file = Path(path)
    return plan_of(parse(read_text(file), file), where=f"plan {file}")


def plan_of(data: Mapping[str, Any], *, where: str = "plan") -> Rollout:
    """A draft from the plain data of a plan.

    Args:
        data: as a file holds it.
        where: name of the file, for messages.

    Raises:
        ConfigError: the data does not describe a rollout.

    Examples:
        >>> plan = plan_of({"key": "r1", "experiment": "x", "control": "a", "treatment": "b"})
        >>> [stage.name for stage in plan.stages]
        ['1 %', '5 %', '25 %', '50 %']
    """
    known = plan_keys()
    if "treatments" in data:
        data = _spread(data, where)
    elif "rivals" in data:
        raise ConfigError(f"{where}: unknown key 'rivals'; name several as treatments = [...]")
    extra = {"$schema": str, "strategy": str} | {
        name: dict for item in STRATEGIES.values() for name in item.tables
    }
    check_keys(data, known | {name: (kind, None) for name, kind in extra.items()}, where)
    check_name(data["control"], f"{where}: control")
    filled = expanded(data, where)
    values = {
        name: value_of(known[name][0], value, f"{where}: {name}") for name, value in filled.items()
    }
    required = {name for name, (_, default) in known.items() if default is REQUIRED}
    try:
        return Rollout.plan(**{name: values.pop(name) for name in required}, **values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _spread(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The plan's data with its list of treatments as one and its rivals."""
    names = data["treatments"]
    place = f"{where}: treatments"
    if "treatment" in data or "rivals" in data:
        raise ConfigError(f"{place} = {names!r} says it all; leave out `treatment`")
    if data.get("strategy") != "ab":
        raise ConfigError(
            f"{place} = {names!r} needs strategy = 'ab', which picks the winner of several; the "
            "others take one `treatment`"
        )
    if not isinstance(names, (list, tuple)) or not names:
        raise ConfigError(f"{place} must be a list of variants, got {names!r}")
    for name in names:
        check_name(name, place)
    others = {key: value for key, value in data.items() if key != "treatments"}
    return {**others, "treatment": names[0], "rivals": list(names[1:])}
