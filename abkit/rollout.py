"""Rollouts: the plan that takes a model from shadow or 1 % to everyone, and where it stands.

Frozen plain data; `abkit.machine` moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, get_args

from abkit.decision import Guardrail, Policy
from abkit.errors import ConfigError
from abkit.experiment import Experiment, new_salt
from abkit.metrics import Metric, check_name
from abkit.policy import Ramp
from abkit.records import build, check_choice, check_count, is_number

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
_DUST = 1e-9  # shares are whole numbers of buckets
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
        treatment: the variant on its way in; of several still in, the first, or the one that
            waits to be promoted.
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
        ramp: how the share grows within the last stage; None for fixed stages alone.
        rivals: further treatments still in; together they have what a stage gives, in equal parts.
        dropped: treatments that were in, and were harmed or beaten; they never come back.
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
    ramp: Ramp | None = None
    rivals: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

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
        self._check_rivals(where)
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
        self._check_ramp(where)
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

    def _check_rivals(self, where: str) -> None:
        for name in ("rivals", "dropped"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                raise ConfigError(f"{where}: {name} must be a list of variants, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        if not self.is_contest:
            return
        named = (self.experiment.control, self.treatment, *self.rivals, *self.dropped)
        for name in named:
            check_name(name, f"{where}: treatment")
        if len(set(named)) < len(named):
            raise ConfigError(
                f"{where}: control and treatments must all differ, got "
                f"{', '.join(map(repr, named))}"
            )
        if not self.policy.objectives:
            raise ConfigError(
                f"{where}: several treatments need an objective that tells the winner; declare "
                'one, such as objectives = [{ metric = "clicked", rule = "superior" }]'
            )
        if self.ramp is not None:
            raise ConfigError(f"{where}: a ramp grows one treatment; give several their stages")
        for stage in self.stages:
            if stage.mode != "canary" or stage.requires:
                odd = f"mode {stage.mode!r}" if stage.mode != "canary" else "requires"
                raise ConfigError(
                    f"{where}: stage {stage.name!r} has {odd}; several treatments are compared "
                    "live, in stages of mode 'canary' that require nothing"
                )

    def _check_ramp(self, where: str) -> None:
        if self.ramp is None:
            return
        *before, last = self.stages
        if last.share != self.ramp.first_share or any(stage.mode != "shadow" for stage in before):
            raise ConfigError(
                f"{where}: a ramp takes the place of canary stages; leave stages out, or give "
                f"shadow stages alone, got {', '.join(repr(stage.name) for stage in self.stages)}"
            )
        if self.ramped is None:
            counted = [item.metric for item in self.policy.guardrails if item.test == "canary"]
            raise ConfigError(
                f"{where}: a ramp is bounded by a guardrail with test = 'canary', got "
                f"{self.ramp.metric or 'none'!r} (there is {', '.join(counted) or 'none'})"
            )

    def _check_bake(self, where: str) -> None:
        if not is_number(self.bake_seconds) or self.bake_seconds < 0:
            msg = f"{where}: bake_seconds must be a number >= 0, got {self.bake_seconds!r}"
            raise ConfigError(msg)
        if not is_number(self.bake_share) or not 0 < self.bake_share <= 1:
            msg = f"{where}: bake_share must be above 0 and at most 1, got {self.bake_share!r}"
            raise ConfigError(msg)
        if self.bake_share < 1 and not self.bake_seconds:
            raise ConfigError(f"{where}: bake_share without bake_seconds; say for how long")
        if self.bake_seconds and self.bake_share < self.top_share:
            raise ConfigError(
                f"{where}: bake_share {self.bake_share:g} is less than the last stage's "
                f"{self.top_share:g}; shares must not fall"
            )
        limits = any(item.test in ("limit", "budget") for item in self.policy.guardrails)
        if self.bake_seconds and self.bake_share == 1 and not limits:
            raise ConfigError(
                f"{where}: with bake_share 1 no control is left to compare with, and no guardrail "
                "would see anything; keep some, such as bake_share = 0.95, or add a guardrail "
                "with test = 'limit'"
            )

    @property
    def is_contest(self) -> bool:
        """Whether several treatments were planned, of which one may win."""
        return bool(self.rivals or self.dropped)

    @property
    def arms(self) -> tuple[str, ...]:
        """The treatments still in."""
        return (self.treatment, *self.rivals)

    @property
    def arm_policy(self) -> Policy:
        """What each treatment is judged by: alpha and beta are shared by all that were planned."""
        planned = len(self.arms) + len(self.dropped)
        if planned == 1:
            return self.policy
        # The units of one comparison, as if only they were split at the last stage's share.
        control, treated = 1 - self.top_share, self.top_share / planned
        units = self.policy.planned_units / planned / ((control + treated) or 1.0)
        return replace(
            self.policy,
            alpha=self.policy.alpha / planned,
            beta=self.policy.beta / planned,
            planned_units=max(1, round(units)),
        )

    @property
    def top_share(self) -> float:
        """The largest share that treatment has before promotion, in [0, 1]."""
        return self.stages[-1].share if self.ramp is None else self.ramp.max_share

    @property
    def ramped(self) -> str | None:
        """Key of the metric that bounds the ramp; None where nothing does."""
        if self.ramp is None:
            return None
        counted = [item.metric for item in self.policy.guardrails if item.test == "canary"]
        return next((key for key in counted if self.ramp.metric in ("", key)), None)

    @property
    def growing(self) -> bool:
        """Whether it is on a ramp that has not reached its largest share."""
        on_it = self.ramp is not None and self.stage_index + 1 == len(self.stages)
        return (
            on_it
            and self.state not in ("ready", "bake")
            and self.last_share < self.top_share - _DUST
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
        ramp: Ramp | None = None,
        rivals: tuple[str, ...] = (),
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
            ramp: how the share grows, in place of canary stages; shadow stages may come before.
            rivals: further treatments; each is compared with control, and one may win.
        """
        if ramp is not None:
            grown = Stage(
                name="ramp",
                share=ramp.first_share,
                min_units=ramp.min_units,
                min_seconds=ramp.min_seconds,
            )
            stages = (grown,) if stages is DEFAULT_STAGES else (*stages, grown)
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
            ramp=ramp,
            rivals=rivals,
            inherits=salt is None and not layer and not holdouts and targeting is None,
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
            if values.get("ramp") is not None:
                values["ramp"] = build(Ramp, values["ramp"], "ramp")
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
        data["ramp"] = None if self.ramp is None else asdict(self.ramp)
        data["stages"] = [asdict(stage) for stage in self.stages]
        data["allocations"] = [[epoch, dict(shares)] for epoch, shares in self.allocations]
        for name in ("rivals", "dropped"):  # left out where they say nothing
            data[name] = list(data[name])
            if not data[name]:
                del data[name]
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
        """Share of units that the treatments still in answer as things stand, in [0, 1]."""
        weights = self.experiment.weights
        return sum(weights.get(arm, 0.0) for arm in self.arms)

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
        early = metric.missing == "zero" and metric.window_seconds is None
        if guardrail.test == "limit" and early:
            raise ConfigError(
                f"{where}: guardrail {guardrail.metric!r} holds a rate to a limit, and missing "
                "'zero' takes units for good before their outcome is known; use 'exclude', and "
                "record 0 when all is well, or set window_seconds"
            )
        if not metric.final:
            raise ConfigError(
                f"{where}: guardrail {guardrail.metric!r} counts bad events, and aggregate "
                f"{metric.aggregate!r} takes one back when the next outcome is good; use "
                "'first', or 'max' where no threshold is below, or set window_seconds"
            )
