"""Rollouts: the plan that takes a model from shadow or 1 % to everyone, and where it stands.

Frozen plain data; `abkit.machine` moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from abkit.decision import Guardrail, Policy
from abkit.errors import ConfigError
from abkit.experiment import Experiment, new_salt
from abkit.metrics import Metric, check_name
from abkit.records import build, check_choice, check_count, hint, is_number

if TYPE_CHECKING:
    from pathlib import Path


Mode = Literal["shadow", "canary", "switch"]
State = Literal[
    "draft",
    "shadow",
    "canary",
    "switched",
    "hold",
    "ready",
    "bake",
    "promoted",
    "halted",
    "rolled_back",
    "superseded",
]
Acting = Literal["enforce", "notify", "dry_run"]
Approval = Literal["auto", "manual"]
LIVE: tuple[State, ...] = ("shadow", "canary", "switched", "hold", "ready", "bake")
STATE_OF: Mapping[Mode, State] = {"shadow": "shadow", "canary": "canary", "switch": "switched"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a rollout.

    Args:
        name: for people, such as "5 %".
        mode: "shadow" (control answers, treatment answers in the dark), "canary" (treatment
            answers `share` of the units), "switch" (treatment answers everyone at once).
        share: share of units that treatment answers, in [0, 1]; 0 for shadow, 1 for switch.
        min_units: units of treatment (pairs, in shadow) to meet before the stage is left.
        min_seconds: shortest stay.
        requires: metrics whose promotion rule must hold before the stage is left.
    """

    name: str
    mode: Mode = "canary"
    share: float = 0.0
    min_units: int = 100
    min_seconds: float = 0.0
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the share fits the mode."""
        where = f"stage {self.name!r}"
        if not isinstance(self.name, str) or not 0 < len(self.name) <= 64:
            msg = f"a stage's name must be text of 1 to 64 characters, got {self.name!r}"
            raise ConfigError(msg)
        check_choice(where, "mode", self.mode, tuple(STATE_OF))
        if not is_number(self.share):
            msg = f"{where}: share must be a number, got {self.share!r}"
            raise ConfigError(msg)
        lawful = {
            "shadow": self.share == 0,
            "canary": 0 < self.share <= 1,
            "switch": self.share == 1,
        }
        if not lawful[self.mode]:
            msg = (
                f"{where}: share {self.share!r} does not fit mode {self.mode!r} "
                "(0 for shadow, above 0 to 1 for canary, 1 for switch)"
            )
            raise ConfigError(msg)
        check_count(where, "min_units", self.min_units)
        if not is_number(self.min_seconds) or self.min_seconds < 0:
            msg = f"{where}: min_seconds must be a number >= 0, got {self.min_seconds!r}"
            raise ConfigError(msg)
        if not isinstance(self.requires, (list, tuple)):
            msg = f"{where}: requires must be a list of metrics, got {self.requires!r}"
            raise ConfigError(msg)
        for metric in self.requires:
            check_name(metric, f"{where}: required metric")
        object.__setattr__(self, "requires", tuple(self.requires))


DEFAULT_STAGES = tuple(
    Stage(name=f"{percent} %", share=percent / 100, min_units=units)
    for percent, units in ((1, 100), (5, 400), (25, 1000), (50, 2000))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One model on its way, at one moment.

    Args:
        key: name of this rollout, such as "ranker-v7".
        experiment: the allocation that serving follows now.
        treatment: the variant on its way in.
        policy: when to halt, advance and promote.
        stages: the steps, in order.
        state: where it is; see the module's drawing.
        stage_index: index of the current stage.
        version: grows by one at each transition.
        first_epoch: first allocation epoch that belongs to this rollout.
        started: seconds since 1970 in UTC; None before the start.
        stage_started: when the current stage began.
        changed: when the last transition happened.
        expires_from: when the time that the policy allows began: the start, or the last resume.
        looks: decisions recorded so far.
        allocations: intended shares by epoch: `(epoch, {variant: share})`.
        reason: why the last transition happened, in words.
        actor: who made it.
        mode: "enforce" acts on every decision; "notify" acts on halts alone, and a person makes
            every other move; "dry_run" publishes nothing and judges the split that is live.
        approval: "auto" promotes when all is shown; "manual" waits, in state ready, for a person.
        bake_seconds: how long a promoted treatment stays watched, and a halt takes it back.
        bake_share: share of units that treatment answers meanwhile, in (0, 1]; the rest keep
            control, so that the comparison goes on.
        inherits: whether it takes over layer, holdouts, targeting, sticky and overrides of the
            experiment as published, and the salt of one that was published without a rollout.
    """

    key: str
    experiment: Experiment
    treatment: str
    policy: Policy
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    state: State = "draft"
    stage_index: int = 0
    version: int = 0
    first_epoch: int = 1
    started: float | None = None
    stage_started: float | None = None
    changed: float | None = None
    expires_from: float | None = None
    looks: int = 0
    allocations: tuple[tuple[int, dict[str, float]], ...] = ()
    reason: str = ""
    actor: str = ""
    mode: Acting = "enforce"
    approval: Approval = "auto"
    bake_seconds: float = 0.0
    bake_share: float = 1.0
    inherits: bool = True

    def __post_init__(self) -> None:
        """Check that the plan can be walked."""
        check_name(self.key, "rollout key")
        where = f"rollout {self.key!r}"
        check_name(self.treatment, f"{where}: treatment")
        if self.treatment == self.experiment.control:
            msg = f"{where}: treatment and control are both {self.treatment!r}"
            raise ConfigError(msg)
        if not self.stages:
            msg = f"{where}: no stages"
            raise ConfigError(msg)
        check_choice(where, "state", self.state, get_args(State))
        check_choice(where, "mode", self.mode, get_args(Acting))
        check_choice(where, "approval", self.approval, get_args(Approval))
        self._check_bake(where)
        for name in ("stage_index", "version", "looks"):
            check_count(where, name, getattr(self, name))
        if self.stage_index >= len(self.stages):
            msg = f"{where}: stage_index {self.stage_index} of {len(self.stages)} stages"
            raise ConfigError(msg)
        shares = [stage.share for stage in self.stages]
        if shares != sorted(shares):
            msg = f"{where}: shares must not fall from stage to stage, got {shares}"
            raise ConfigError(msg)
        _check_watched(where, self.policy, self.experiment)
        watched = {item.metric for item in self.policy.guardrails}
        watched |= {item.metric for item in self.policy.objectives}
        for stage in self.stages:
            for name in stage.requires:
                if name not in watched:
                    msg = (
                        f"{where}: stage {stage.name!r} requires {name!r}, "
                        f"but the policy watches {', '.join(sorted(watched))}"
                    )
                    raise ConfigError(msg)

    def _check_bake(self, where: str) -> None:
        if not is_number(self.bake_seconds) or self.bake_seconds < 0:
            msg = f"{where}: bake_seconds must be a number >= 0, got {self.bake_seconds!r}"
            raise ConfigError(msg)
        if not is_number(self.bake_share) or not 0 < self.bake_share <= 1:
            msg = f"{where}: bake_share must be above 0 and at most 1, got {self.bake_share!r}"
            raise ConfigError(msg)
        if self.bake_share < 1 and not self.bake_seconds:
            raise ConfigError(f"{where}: bake_share without bake_seconds; say for how long")
        if self.bake_seconds and self.bake_share < self.stages[-1].share:
            raise ConfigError(
                f"{where}: bake_share {self.bake_share:g} is less than the last stage's "
                f"{self.stages[-1].share:g}; shares must not fall"
            )
        limits = any(item.test == "limit" for item in self.policy.guardrails)
        if self.bake_seconds and self.bake_share == 1 and not limits:
            raise ConfigError(
                f"{where}: with bake_share 1 no control is left to compare with, and no guardrail "
                "would see anything; keep some, such as bake_share = 0.95, or add a guardrail "
                "with test = 'limit'"
            )

    @classmethod
    def plan(
        cls,
        key: str,
        *,
        experiment: str,
        control: str,
        treatment: str,
        policy: Policy | None = None,
        stages: tuple[Stage, ...] = DEFAULT_STAGES,
        metrics: tuple[Metric, ...] = (),
        salt: str | None = None,
        layer: str = "",
        holdouts: tuple[str, ...] = (),
        targeting: Mapping[str, Any] | None = None,
        mode: Acting = "enforce",
        approval: Approval = "auto",
        bake_seconds: float = 0.0,
        bake_share: float = 1.0,
    ) -> Self:
        """A draft in which control still answers everyone.

        Args:
            key: name of this rollout.
            experiment: the name that serving code asks for.
            control: the variant that answers now.
            treatment: the variant on its way in.
            policy: by default one canary guardrail on the metric "error".
            stages: by default canaries of 1, 5, 25 and 50 %.
            metrics: how outcomes are read. A metric that a guardrail counts is a proportion of
                bad events unless it is declared here.
            salt: 128 random bits by default, or that of the experiment as published. Whoever
                names salt, layer, holdouts or targeting here takes none of them over.
            layer: key of the layer it shares with experiments that it excludes.
            holdouts: keys of the holdouts whose units it leaves alone.
            targeting: who may be in it, as plain data.
            mode: "enforce", "notify" or "dry_run".
            approval: "auto", or "manual" to promote by hand.
            bake_seconds: how long a promoted treatment stays watched.
            bake_share: share of units that treatment answers meanwhile, in (0, 1].
        """
        rules = policy or Policy(guardrails=(Guardrail(metric="error"),))
        declared = {item.key for item in metrics}
        counted = tuple(
            Metric(
                key=item.metric,
                kind="proportion",
                direction="decrease",
                missing="exclude" if item.test == "limit" else "zero",
            )
            for item in rules.guardrails
            if item.test != "difference" and item.metric not in declared
        )
        return cls(
            key=key,
            experiment=Experiment.create(
                experiment,
                {control: 1.0},
                salt=new_salt() if salt is None else salt,
                metrics=(*metrics, *counted),
                layer=layer,
                holdouts=holdouts,
                targeting=targeting,
            ),
            treatment=treatment,
            policy=rules,
            stages=stages,
            mode=mode,
            approval=approval,
            bake_seconds=bake_seconds,
            bake_share=bake_share,
            inherits=salt is None and not layer and not holdouts and targeting is None,
        )

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """A draft from a plan file; see `docs/rollouts.md` for its keys.

        Raises:
            ConfigError: the file is not TOML, or does not describe a rollout.
        """
        import tomllib  # noqa: PLC0415 - brings seven modules that most serving code never needs

        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            msg = f"cannot read the plan {path}: {error}"
            raise ConfigError(msg) from None
        known = dict.fromkeys(
            (
                *("key", "experiment", "control", "treatment", "salt", "layer", "holdouts"),
                *("targeting", "policy", "stages", "metrics"),
                *("mode", "approval", "bake_seconds", "bake_share"),
            )
        )
        for name in data:
            if name not in known:
                msg = f"plan {path}: unknown key {name!r}{hint(name, known)}"
                raise ConfigError(msg)
        for name in ("key", "experiment", "control", "treatment"):
            if name not in data:
                msg = f"plan {path}: no {name!r}"
                raise ConfigError(msg)
        for name in ("stages", "metrics", "holdouts"):
            if not isinstance(data.get(name, []), list):
                msg = f"plan {path}: {name} must be a list of tables, got {data[name]!r}"
                raise ConfigError(msg)
        check_name(data["control"], f"plan {path}: control")
        return cls.plan(
            data["key"],
            experiment=data["experiment"],
            control=data["control"],
            treatment=data["treatment"],
            salt=data.get("salt"),
            layer=data.get("layer", ""),
            holdouts=tuple(data.get("holdouts", ())),
            targeting=data.get("targeting"),
            policy=Policy.from_dict(data["policy"]) if "policy" in data else None,
            stages=tuple(build(Stage, item, "stage") for item in data["stages"])
            if "stages" in data
            else DEFAULT_STAGES,
            metrics=tuple(Metric.from_dict(item) for item in data.get("metrics", ())),
            mode=data.get("mode", "enforce"),
            approval=data.get("approval", "auto"),
            bake_seconds=data.get("bake_seconds", 0.0),
            bake_share=data.get("bake_share", 1.0),
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A rollout from the plain data of `to_dict`.

        Raises:
            ConfigError: something is missing, unknown or unlawful.
        """
        if not isinstance(data, Mapping):
            msg = f"a rollout must be a table of keys, got {type(data).__name__}"
            raise ConfigError(msg)
        values = dict(data)
        try:
            values["experiment"] = Experiment.from_dict(values["experiment"])
            values["policy"] = Policy.from_dict(values["policy"])
            values["stages"] = tuple(build(Stage, item, "stage") for item in values["stages"])
            values["allocations"] = tuple(
                (int(epoch), dict(shares)) for epoch, shares in values["allocations"]
            )
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            msg = f"rollout {values.get('key')!r}: unusable state, {error!r}"
            raise ConfigError(msg) from None
        return build(cls, values, "rollout")

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["experiment"] = self.experiment.to_dict()
        data["policy"] = self.policy.to_dict()
        data["stages"] = [asdict(stage) for stage in self.stages]
        data["allocations"] = [[epoch, dict(shares)] for epoch, shares in self.allocations]
        return data

    @property
    def control(self) -> str:
        """The variant that answered before, and answers again after a halt."""
        return self.experiment.control

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self.stages[self.stage_index]

    @property
    def watched_metrics(self) -> tuple[Metric, ...]:
        """The metrics that the policy reads, guardrails first."""
        keys = [item.metric for item in self.policy.guardrails]
        keys += [item.metric for item in self.policy.objectives]
        return tuple(self.experiment.metric(key) for key in dict.fromkeys(keys))

    @property
    def live(self) -> bool:
        """Whether looks are still taken and can still change something."""
        return self.state in LIVE

    @property
    def owns(self) -> bool:
        """Whether the published allocation of its experiment is this rollout's to change."""
        return self.state != "draft" and self.mode != "dry_run"

    @property
    def last_share(self) -> float:
        """Share of units that treatment answers as things stand, in [0, 1]."""
        return self.experiment.weights.get(self.treatment, 0.0)

    @property
    def last_epoch(self) -> int:
        """The newest allocation epoch that belongs to this rollout."""
        return self.experiment.epoch


def _check_watched(where: str, policy: Policy, experiment: Experiment) -> None:
    """Refuse a policy whose metrics are not declared, or cannot be tested as it asks."""
    declared = {metric.key for metric in experiment.metrics}
    keys = [item.metric for item in policy.guardrails]
    for key in [*keys, *(item.metric for item in policy.objectives)]:
        if key not in declared:
            raise ConfigError(
                f"{where}: the policy watches {key!r}, which is not among the metrics "
                f"({', '.join(sorted(declared)) or 'none'}); declare its kind and direction"
            )
    for guardrail in policy.guardrails:
        if guardrail.test == "difference":
            continue
        metric = experiment.metric(guardrail.metric)
        if metric.kind != "proportion" or metric.direction != "decrease":
            raise ConfigError(
                f"{where}: guardrail {guardrail.metric!r} counts bad events; declare the "
                "metric with kind = 'proportion' and direction = 'decrease', or use "
                "test = 'difference'"
            )
        if guardrail.test == "limit" and metric.missing == "zero":
            raise ConfigError(
                f"{where}: guardrail {guardrail.metric!r} holds a rate to a limit, and missing "
                "'zero' takes units for good before their outcome is known; use 'exclude', and "
                "record 0 when all is well"
            )
        if metric.aggregate == "last":
            raise ConfigError(
                f"{where}: guardrail {guardrail.metric!r} counts bad events, and aggregate "
                "'last' takes one back when the next outcome is good; use 'max' or 'first'"
            )
