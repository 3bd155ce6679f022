"""Strategies: what a plan means by "canary" or "distill", filled in where it says nothing itself.

A strategy takes the plain data of a plan and returns more of it. What the plan writes wins: a value
or the list of stages as a whole, the policy key by key. The rules that `distill` makes are joined
by those of the plan; one for the same metric takes the place of the strategy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from abkit.errors import ConfigError
from abkit.plan_file.build import record_of
from abkit.plan_file.distill import Distill
from abkit.records import hint

Data = Mapping[str, Any]
HOUR_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 86_400.0
ERRORS: Final = ({"metric": "error"},)
"""What is watched where the plan does not say: that of `Rollout.plan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A way to take a treatment to everyone.

    Args:
        name: as the plan says it.
        about: what it does, in a sentence or two.
        fill: from the plan's data and its name in messages to the parts that it may leave out.
        tables: keys of the plan that belong to this strategy alone, and their records.
        joins: whether the plan's own metrics and rules join those filled in, or replace them.
    """

    name: str
    about: str
    fill: Callable[[Data, str], dict[str, Any]]
    tables: Mapping[str, type] = field(default_factory=dict)
    joins: bool = False


def expanded(data: Data, where: str) -> dict[str, Any]:
    """The plan's data with the parts that its strategy fills in.

    Args:
        data: as read.
        where: name of the file, for messages.

    Raises:
        ConfigError: the strategy is unknown, or misses something that only the plan can say.
    """
    name = data.get("strategy", "canary")
    if not isinstance(name, str) or name not in STRATEGIES:
        near = hint(name, STRATEGIES) if isinstance(name, str) else ""
        raise ConfigError(
            f"{where}: strategy must be one of {', '.join(STRATEGIES)}, got {name!r}{near}"
        )
    strategy = STRATEGIES[name]
    tables = {table: other for other in STRATEGIES.values() for table in other.tables}
    for table in tables.keys() & data.keys() - strategy.tables.keys():
        raise ConfigError(
            f"{where}: {table} belongs to strategy {tables[table].name!r}, and this plan's is "
            f"{name!r}"
        )
    written = {
        key: value for key, value in data.items() if key not in ("$schema", "strategy", *tables)
    }
    filled = strategy.fill(data, f"{where}: strategy {name!r}")
    if "ramp" in written and "stages" in filled:
        # It takes the place of the canary stages.
        filled["stages"] = [item for item in filled["stages"] if item.get("mode") == "shadow"]
    return _over({key: part for key, part in filled.items() if part}, written, strategy.joins)


def _over(filled: Data, written: Data, joins: bool) -> dict[str, Any]:  # noqa: FBT001 - a trait of the strategy
    """What is written over what is filled in."""
    found = {**filled, **written}
    ours, theirs = filled.get("policy"), written.get("policy", {})
    if isinstance(theirs, Mapping) and ours is not None:
        found["policy"] = {**ours, **theirs}
        for rules in ("guardrails", "objectives") if joins else ():
            found["policy"][rules] = _joined(ours[rules], theirs.get(rules, ()), "metric")
    if joins:
        found["metrics"] = _joined(filled["metrics"], written.get("metrics", ()), "key")
    return found


def _joined(ours: list[Any], theirs: Any, key: str) -> Any:
    """Both lists, without those of ours that theirs name too; what is no list is refused later."""
    if not isinstance(theirs, (list, tuple)):
        return theirs
    named = [item.get(key) for item in theirs if isinstance(item, Mapping)]
    return [item for item in ours if item[key] not in named] + list(theirs)


def _rules(data: Data, kind: str) -> list[Data]:
    """The guardrails or objectives as written, as far as they can be read."""
    policy = data.get("policy")
    items = policy.get(kind, ()) if isinstance(policy, Mapping) else ()
    return [item for item in items if isinstance(item, Mapping)] if _is_list(items) else []


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _shown_in_the_dark(data: Data) -> list[str]:
    """The metrics whose rules pairs can show: objectives, and guardrails on differences."""
    rules = [item for item in _rules(data, "guardrails") if item.get("test") == "difference"]
    rules += _rules(data, "objectives")
    return list(dict.fromkeys(str(item.get("metric")) for item in rules))


def _without_ramp(data: Data, where: str) -> None:
    if "ramp" in data:
        raise ConfigError(f"{where} has no share that could grow; leave the ramp out")


def _canary(_data: Data, _where: str) -> dict[str, Any]:
    return {"policy": {"guardrails": ERRORS}}  # the stages are those of `Rollout.plan`


def _blue_green(data: Data, where: str) -> dict[str, Any]:
    _without_ramp(data, where)
    if not any(item.get("test") in ("limit", "budget") for item in _rules(data, "guardrails")):
        raise ConfigError(
            f"{where} needs a guardrail with test = 'limit': after the switch no control is left "
            "to compare with; such as policy.guardrails = "
            '[{ metric = "failed", test = "limit", limit = 0.01 }]'
        )
    preview = {
        "name": "preview",
        "mode": "shadow",
        "min_units": 500,
        "requires": _shown_in_the_dark(data),
    }
    switch = {"name": "switch", "mode": "switch", "share": 1.0, "min_units": 1000}
    return {"stages": [preview, switch], "bake_seconds": HOUR_SECONDS}


def _shadow(data: Data, where: str) -> dict[str, Any]:
    _without_ramp(data, where)
    guardrails = _rules(data, "guardrails")
    odd = next((item for item in guardrails if item.get("test") != "difference"), None)
    if odd is not None or not guardrails:
        asked = "there is none" if odd is None else f"that of {odd.get('metric')!r} is not"
        raise ConfigError(
            f"{where} compares pairs, so each guardrail needs test = 'difference' and a margin; "
            f'{asked}; such as policy.guardrails = [{{ metric = "wrong", test = "difference", '
            "margin = 0.01 }]"
        )
    if data.get("approval", "manual") != "manual":
        raise ConfigError(
            f"{where} serves nobody until a person promotes, got approval = "
            f"{data['approval']!r}; leave it out, or write the stages of a canary after the shadow"
        )
    written = data.get("stages")
    for stage in written if isinstance(written, (list, tuple)) else ():
        if isinstance(stage, Mapping) and stage.get("mode") != "shadow":
            raise ConfigError(
                f"{where} has stages of mode 'shadow' only, and {stage.get('name')!r} is "
                f"{stage.get('mode', 'canary')!r}; strategy 'canary' may begin with a shadow"
            )
    stage = {
        "name": "shadow",
        "mode": "shadow",
        "min_units": 1000,
        "requires": _shown_in_the_dark(data),
    }
    return {"stages": [stage], "approval": "manual"}


def _distill(data: Data, where: str) -> dict[str, Any]:
    if "distill" not in data:
        raise ConfigError(
            f"{where} needs a table that names its metrics, such as "
            'distill = { quality = "wrong", margin = 0.01, latency = "latency_ms" }'
        )
    place = f"{where}: distill"
    rule: Distill = record_of(Distill, data["distill"], place)
    return rule.parts(data.get("metrics", ()), place)


def _ab(data: Data, where: str) -> dict[str, Any]:
    if not _rules(data, "objectives"):
        raise ConfigError(
            f"{where} picks a winner, and needs to know by what; such as policy.objectives = "
            '[{ metric = "clicked", rule = "superior" }], with the metric declared'
        )
    stages = [
        {"name": "5 %", "share": 0.05, "min_units": 500},
        {"name": "50 %", "share": 0.5, "min_units": 5000, "min_seconds": DAY_SECONDS},
    ]
    return {"stages": stages, "policy": {"guardrails": ERRORS, "max_seconds": 14 * DAY_SECONDS}}


def _batch(_data: Data, _where: str) -> dict[str, Any]:
    stages = [
        {"name": f"{percent} % of entities", "share": percent / 100, "min_units": units}
        for percent, units in ((1, 100), (10, 1000), (50, 5000))
    ]
    return {"stages": stages, "policy": {"guardrails": ERRORS, "max_seconds": 30 * DAY_SECONDS}}


STRATEGIES: Final[Mapping[str, Strategy]] = {
    item.name: item
    for item in (
        Strategy(
            name="canary",
            about="Treatment answers 1, 5, 25 and 50 % of the units, beside a live control. "
            "Errors are watched unless the policy says what is.",
            fill=_canary,
        ),
        Strategy(
            name="blue_green",
            about="Treatment answers 500 units in the dark, then everyone at once, and is watched "
            "for an hour after it is promoted. Needs a guardrail with test 'limit'.",
            fill=_blue_green,
        ),
        Strategy(
            name="shadow",
            about="Treatment answers in the dark only. Once 1000 pairs have shown every rule the "
            "rollout is ready, and a person promotes or halts.",
            fill=_shadow,
        ),
        Strategy(
            name="distill",
            about="A cheaper model replaces a dear one: quality not worse by a margin, latency and "
            "cost better, errors not worse, all shown; first in the dark, then at 10 and 50 %.",
            fill=_distill,
            tables={"distill": Distill},
            joins=True,
        ),
        Strategy(
            name="ab",
            about="Treatment answers 5, then 50 % of the units for a day at least and two weeks at "
            "most, and is promoted if its objectives are shown; of several, the best of those.",
            fill=_ab,
        ),
        Strategy(
            name="batch",
            about="Shares of a table's entities, 1, 10 and 50 %, within 30 days: the time between "
            "two scheduled runs counts.",
            fill=_batch,
        ),
    )
}
