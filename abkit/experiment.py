"""Experiments: frozen, versioned plain data that says who gets what.

An experiment holds ranges of buckets, not weights: `reweight` then moves the theoretical
minimum of units, and growing a variant never takes a unit away from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from abkit.bucketing import SPACE
from abkit.bucketing.scheme import check_hash
from abkit.errors import ConfigError
from abkit.metrics import Metric, check_name
from abkit.ranges import (
    Range,
    check_ranges,
    check_shares,
    is_share,
    moved,
    ranges_data,
    ranges_from,
    ranges_of,
    widths,
)
from abkit.records import check_choice, check_count, is_text
from abkit.targeting import Condition, parse

if TYPE_CHECKING:
    from pathlib import Path

State = Literal["draft", "running", "killed"]

STATES: tuple[State, ...] = ("draft", "running", "killed")
_KEYS = (
    "key",
    "salt",
    "control",
    "variants",
    "ranges",
    "state",
    "rollout",
    "rollout_salt",
    "idle",
    "overrides",
    "shadow",
    "epoch",
    "hash",
    "metrics",
    "layer",
    "holdouts",
    "targeting",
    "sticky",
)


def new_salt() -> str:
    """A random salt of 128 bits, in hex."""
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Who gets which variant of one thing.

    Build one with `create`, `from_dict` or `from_toml`.

    Args:
        key: the name that serving code asks for.
        salt: decides the hash; two experiments with different salts are independent.
        control: the variant served whenever the experiment does not apply.
        ranges: sorted, disjoint bucket ranges; a unit in none of them is outside, as with
            partial traffic that came from elsewhere.
        state: "draft" and "killed" serve control to everyone.
        rollout: share of units inside the experiment, in [0, 1]; the others get control.
            A second uniform of the same hash decides, so growing it only adds units.
        rollout_salt: the salt of that second uniform; empty for `salt`.
        idle: variants without buckets, which only overrides and forced variants reach, such as
            one that is tried by hand before it gets traffic.
        overrides: unit_id to variant, for testing; kept out of the analysis.
        shadow: a variant that answers every request in the dark besides the one that is served;
            empty for none.
        epoch: number of the allocation, grows by one whenever the allocation changes; analyses
            are stratified by it.
        hash: name of the bucketing function; one of `abkit.bucketing.scheme.HASHES`.
        metrics: how outcomes are read; metrics not named here are means.
        layer: key of the layer it shares with experiments that it excludes; empty for none.
        holdouts: keys of the holdouts whose units it leaves alone.
        targeting: the condition on a unit's attributes, or None for everybody.
        sticky: a unit keeps its variant while its attributes change; needs a client with a
            sticky store.
    """

    key: str
    salt: str
    control: str
    ranges: tuple[Range, ...]
    state: State = "running"
    rollout: float = 1.0
    rollout_salt: str = ""
    idle: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    shadow: str = ""
    epoch: int = 1
    hash: str = "abkit-v1"
    metrics: tuple[Metric, ...] = ()
    layer: str = ""
    holdouts: tuple[str, ...] = ()
    targeting: Condition | None = None
    sticky: bool = False

    def __post_init__(self) -> None:
        """Check everything that serving will rely on."""
        check_name(self.key, "experiment key")
        where = f"experiment {self.key!r}"
        check_hash(where, self.hash, self.salt)
        if self.rollout_salt != "":
            check_hash(f"{where}: rollout", self.hash, self.rollout_salt)
        check_choice(where, "state", self.state, STATES)
        if not is_share(self.rollout):
            raise ConfigError(f"{where}: rollout must be a share in [0, 1], got {self.rollout!r}")
        check_count(where, "epoch", self.epoch, 1)
        check_ranges(where, self.ranges)
        if not isinstance(self.holdouts, tuple) or not isinstance(self.idle, tuple):
            raise ConfigError(
                f"{where}: holdouts and idle must be tuples of names, got {self.holdouts!r} and "
                f"{self.idle!r}"
            )
        if not isinstance(self.targeting, (Condition, type(None))):
            raise ConfigError(f"{where}: targeting must be a condition, got {self.targeting!r}")
        check_name(self.control, f"{where}: control")
        for name in self.idle:
            check_name(name, f"{where}: idle variant")
        if self.shadow != "":
            check_name(self.shadow, f"{where}: shadow variant")
        if self.layer != "":
            check_name(self.layer, f"{where}: layer")
        for name in self.holdouts:
            check_name(name, f"{where}: holdout")
        if type(self.sticky) is not bool:
            raise ConfigError(f"{where}: sticky must be true or false, got {self.sticky!r}")
        self._check_overrides(where)
        keys = [metric.key for metric in self.metrics]
        doubled = {key for key in keys if keys.count(key) > 1}
        if doubled:
            raise ConfigError(f"{where}: metric {min(doubled)!r} is declared twice")

    def _check_overrides(self, where: str) -> None:
        for unit_id, variant in self.overrides.items():
            if not isinstance(unit_id, str) or not unit_id:
                raise ConfigError(
                    f"{where}: an override's unit must be a non-empty string, got {unit_id!r}"
                )
            if not is_text(unit_id):
                raise ConfigError(f"{where}: override of {unit_id!r}, which UTF-8 cannot encode")
            if variant not in self.variants:
                raise ConfigError(
                    f"{where}: override of {unit_id!r} names unknown variant {variant!r}; "
                    f"known are {', '.join(self.variants)}"
                )

    @classmethod
    def create(
        cls,
        key: str,
        variants: Mapping[str, float],
        *,
        control: str | None = None,
        salt: str | None = None,
        rollout: float = 1.0,
        overrides: Mapping[str, str] | None = None,
        metrics: tuple[Metric, ...] = (),
        layer: str = "",
        holdouts: tuple[str, ...] = (),
        targeting: Mapping[str, Any] | Condition | None = None,
        sticky: bool = False,
    ) -> Self:
        """A running experiment from shares; control is the first variant unless named.

        Args:
            key: the name that serving code asks for.
            variants: share per variant; they sum to 1.
            control: name of the control; the first variant by default.
            salt: 128 random bits by default.
            rollout: share of units inside the experiment, in [0, 1].
            overrides: unit_id to variant, for testing.
            metrics: how outcomes are read.
            layer: key of the layer it shares with experiments that it excludes.
            holdouts: keys of the holdouts whose units it leaves alone.
            targeting: who may be in it, as plain data or a condition; everybody by default.
            sticky: a unit keeps its variant while its attributes change.

        Raises:
            ConfigError: the shares do not sum to 1, or a name is not lawful.
        """
        if isinstance(targeting, Mapping):
            targeting = parse(targeting, f"experiment {key!r}: targeting")
        shares = check_shares(f"experiment {key!r}", variants)
        return cls(
            key=key,
            salt=new_salt() if salt is None else salt,
            control=next(iter(shares)) if control is None else control,
            ranges=ranges_of(shares),
            idle=_idle(shares),
            rollout=rollout,
            overrides={} if overrides is None else dict(overrides),
            metrics=metrics,
            layer=layer,
            holdouts=holdouts,
            targeting=targeting,
            sticky=sticky,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """An experiment from plain data, as read from JSON or TOML.

        `{"key", "salt", "control", "variants": {name: share}}` is enough. `ranges` may replace
        `variants`.

        Raises:
            ConfigError: something is missing, unknown or unlawful; the message names it.
        """
        if not isinstance(data, Mapping):
            msg = f"an experiment must be a table of keys, got {type(data).__name__}"
            raise ConfigError(msg)
        where = f"experiment {data.get('key')!r}"
        unknown = sorted(str(key) for key in data if key not in _KEYS)
        if unknown:
            raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
        if "salt" not in data:
            # A salt made up here would differ from process to process.
            msg = f'{where}: no salt; add one that nobody else uses, such as "{new_salt()}"'
            raise ConfigError(msg)
        for name in ("key", "control"):
            if name not in data:
                msg = f"{where}: no {name!r}"
                raise ConfigError(msg)
        return cls(**_fields(where, data))

    @classmethod
    def from_toml(cls, source: str | Path) -> Self:
        """An experiment from a TOML file (a Path) or from TOML text (a str).

        Raises:
            ConfigError: the text is not TOML, or does not describe an experiment.
        """
        import tomllib  # noqa: PLC0415 - brings seven modules that most serving code never needs

        name, text = ("TOML text", source) if isinstance(source, str) else _read(source)
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            msg = f"{name} is not valid TOML: {error}"
            raise ConfigError(msg) from None
        return cls.from_dict(data)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        data = {
            "key": self.key,
            "salt": self.salt,
            "control": self.control,
            "ranges": ranges_data(self.ranges),
            "state": self.state,
            "rollout": self.rollout,
            "overrides": dict(self.overrides),
            "shadow": self.shadow,
            "epoch": self.epoch,
            "hash": self.hash,
            "metrics": [metric.to_dict() for metric in self.metrics],
        }
        # Left out where they say nothing, so that an older abkit still reads what it can serve.
        optional = {
            "rollout_salt": self.rollout_salt,
            "idle": list(self.idle),
            "layer": self.layer,
            "holdouts": list(self.holdouts),
            "targeting": None if self.targeting is None else self.targeting.to_dict(),
            "sticky": self.sticky,
        }
        return data | {key: value for key, value in optional.items() if value}

    @property
    def variants(self) -> tuple[str, ...]:
        """All variants that a unit can meet, each once: control, those with buckets, idle ones."""
        names = (self.control, *widths(self.ranges), *self.idle, self.shadow)
        return tuple(dict.fromkeys(filter(None, names)))

    @property
    def weights(self) -> dict[str, float]:
        """Share per variant among the units inside the experiment; they sum to 1."""
        found = widths(self.ranges)
        total = sum(found.values())
        return {name: width / total for name, width in found.items()}

    @property
    def coverage(self) -> float:
        """Share of all buckets that belong to a variant; below 1 only where ranges have gaps."""
        return sum(widths(self.ranges).values()) / SPACE

    def metric(self, key: str) -> Metric:
        """The declared metric of this name, or a plain mean."""
        return next((m for m in self.metrics if m.key == key), Metric(key=key))

    def reweight(self, shares: Mapping[str, float], *, coverage: float | None = None) -> Self:
        """The same experiment with other shares, in the next epoch, moving as few units as can be.

        A variant that grows keeps all of its units; one that shrinks gives up the buckets at
        its upper end. The share of units that change variant is the sum of the growths, which
        no allocation with these shares can beat.

        Args:
            shares: share per variant among the units inside; they sum to 1.
            coverage: share of all buckets that belong to a variant, in (0, 1]; as now by
                default. Only experiments from elsewhere have one below 1: `rollout` is the
                better dial.

        Raises:
            ConfigError: the shares do not sum to 1, or the coverage is no share.
        """
        where = f"experiment {self.key!r}"
        wanted = check_shares(where, shares)
        total = sum(widths(self.ranges).values())
        if coverage is not None:
            if not is_share(coverage) or coverage == 0:
                raise ConfigError(f"{where}: coverage must lie in (0, 1], got {coverage!r}")
            total = round(coverage * SPACE)
        target = widths(ranges_of(wanted, total))
        gone = (name for name in (*self.idle, *widths(self.ranges)) if name not in target)
        idle = tuple(dict.fromkeys([*_idle(wanted), *gone]))
        ranges = moved(self.ranges, target)
        return replace(self, ranges=ranges, idle=idle, epoch=self.epoch + 1)

    def kill(self) -> Self:
        """The same experiment serving control to everyone, in the next epoch."""
        # Still known by name, for overrides.
        idle = tuple(dict.fromkeys(filter(None, (*self.idle, self.shadow))))
        return replace(self, state="killed", shadow="", idle=idle, epoch=self.epoch + 1)


def _idle(shares: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(name for name, share in shares.items() if share == 0)


def _fields(where: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an experiment from plain data whose keys are known."""
    fields = {k: v for k, v in data.items() if k not in ("variants", "ranges", "metrics")}
    overrides = fields.get("overrides", {})
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"{where}: overrides must map unit_id to variant, got {overrides!r}")
    fields["overrides"] = dict(overrides)
    for name in ("idle", "holdouts"):
        fields[name] = tuple(_list(where, name, data.get(name, ())))
    if "ranges" in data:
        fields["ranges"] = ranges_from(where, data["ranges"])
    elif "variants" in data:
        shares = check_shares(where, data["variants"])
        if check_name(data["control"], f"{where}: control") not in shares:
            raise ConfigError(
                f"{where}: control {data['control']!r} is not among the variants "
                f"{', '.join(map(repr, shares))}"
            )
        fields["ranges"] = ranges_of(shares)
        fields["idle"] = tuple(dict.fromkeys((*fields["idle"], *_idle(shares))))
    else:
        raise ConfigError(f"{where}: no 'variants' (a table of name = share)")
    metrics = _list(where, "metrics", data.get("metrics", ()))
    fields["metrics"] = tuple(Metric.from_dict(metric) for metric in metrics)
    if data.get("targeting") is not None:
        fields["targeting"] = parse(data["targeting"], f"{where}: targeting")
    return fields


def _list(where: str, name: str, value: object) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: {name} must be a list, got {value!r}")
    return value


def _read(path: Path) -> tuple[str, str]:
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {path}: {error}"
        raise ConfigError(msg) from None
