"""Experiments: frozen, versioned plain data that says who gets what.

An experiment holds ranges of buckets, not weights: `reweight` then moves the theoretical
minimum of units, and growing a variant never takes a unit away from it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from abkit.bucketing import SPACE, threshold
from abkit.errors import ConfigError
from abkit.metrics import Metric, check_name
from abkit.records import check_count, is_number

if TYPE_CHECKING:
    from pathlib import Path

State = Literal["draft", "running", "killed"]

STATES: tuple[State, ...] = ("draft", "running", "killed")
HASHES = ("abkit-v1",)
SHARE_TOLERANCE = 1e-9
_SALT = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_KEYS = (
    "key",
    "salt",
    "control",
    "variants",
    "ranges",
    "state",
    "rollout",
    "overrides",
    "shadow",
    "epoch",
    "hash",
    "metrics",
)


@dataclass(frozen=True, slots=True)
class Range:
    """Buckets `lower <= bucket < upper` that belong to one variant.

    Args:
        lower: first bucket, in [0, 2**52].
        upper: one past the last bucket, in [0, 2**52].
        variant: name of the variant.
    """

    lower: int
    upper: int
    variant: str

    @property
    def width(self) -> int:
        """Number of buckets."""
        return self.upper - self.lower


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
        ranges: sorted, disjoint bucket ranges that cover [0, 2**52).
        state: "draft" and "killed" serve control to everyone.
        rollout: share of units inside the experiment, in [0, 1]; the others get control.
            A second uniform of the same hash decides, so growing it only adds units.
        overrides: unit_id to variant, for testing; kept out of the analysis.
        shadow: a variant that answers every request in the dark besides the one that is served;
            empty for none.
        epoch: number of the allocation, grows by one whenever the allocation changes; analyses
            are stratified by it.
        hash: name of the bucketing function.
        metrics: how outcomes are read; metrics not named here are means.
    """

    key: str
    salt: str
    control: str
    ranges: tuple[Range, ...]
    state: State = "running"
    rollout: float = 1.0
    overrides: Mapping[str, str] = field(default_factory=dict)
    shadow: str = ""
    epoch: int = 1
    hash: str = "abkit-v1"
    metrics: tuple[Metric, ...] = ()

    def __post_init__(self) -> None:
        """Check everything that serving will rely on."""
        check_name(self.key, "experiment key")
        where = f"experiment {self.key!r}"
        if not isinstance(self.salt, str) or _SALT.match(self.salt) is None:
            msg = f"{where}: salt {self.salt!r} must be 1 to 128 of A-Z a-z 0-9 _ . -"
            raise ConfigError(msg)
        if self.state not in STATES:
            msg = f"{where}: state must be one of {STATES}, got {self.state!r}"
            raise ConfigError(msg)
        if self.hash not in HASHES:
            msg = f"{where}: hash must be one of {HASHES}, got {self.hash!r}"
            raise ConfigError(msg)
        if not _is_share(self.rollout):
            msg = f"{where}: rollout must be a share in [0, 1], got {self.rollout!r}"
            raise ConfigError(msg)
        check_count(where, "epoch", self.epoch, 1)
        _check_ranges(where, self.ranges)
        check_name(self.control, f"{where}: control")
        names = {check_name(r.variant, f"{where}: variant") for r in self.ranges} | {self.control}
        if self.shadow:
            check_name(self.shadow, f"{where}: shadow variant")
        for unit_id, variant in self.overrides.items():
            if not isinstance(unit_id, str) or not unit_id:
                msg = f"{where}: an override's unit must be a non-empty string, got {unit_id!r}"
                raise ConfigError(msg)
            if not _is_encodable(unit_id):
                msg = f"{where}: override of {unit_id!r}, which UTF-8 cannot encode"
                raise ConfigError(msg)
            if not isinstance(variant, str) or variant not in names:
                msg = f"{where}: override of {unit_id!r} names unknown variant {variant!r}"
                raise ConfigError(msg)
        keys = [metric.key for metric in self.metrics]
        doubled = {key for key in keys if keys.count(key) > 1}
        if doubled:
            msg = f"{where}: metric {min(doubled)!r} is declared twice"
            raise ConfigError(msg)

    @classmethod
    def create(
        cls,
        key: str,
        variants: Mapping[str, float],
        *,
        control: str | None = None,
        salt: str | None = None,
        rollout: float = 1.0,
        metrics: tuple[Metric, ...] = (),
    ) -> Self:
        """A running experiment from shares; control is the first variant unless named.

        Args:
            key: the name that serving code asks for.
            variants: share per variant; they sum to 1.
            control: name of the control; the first variant by default.
            salt: 128 random bits by default.
            rollout: share of units inside the experiment, in [0, 1].
            metrics: how outcomes are read.

        Raises:
            ConfigError: the shares do not sum to 1, or a name is not lawful.
        """
        shares = _check_shares(f"experiment {key!r}", variants)
        return cls(
            key=key,
            salt=new_salt() if salt is None else salt,
            control=next(iter(shares)) if control is None else control,
            ranges=ranges_of(shares),
            rollout=rollout,
            metrics=metrics,
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
            msg = f"{where}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}"
            raise ConfigError(msg)
        if "salt" not in data:
            # A salt made up here would differ from process to process.
            msg = f'{where}: no salt; add one that nobody else uses, such as "{new_salt()}"'
            raise ConfigError(msg)
        for name in ("key", "control"):
            if name not in data:
                msg = f"{where}: no {name!r}"
                raise ConfigError(msg)
        fields = {k: v for k, v in data.items() if k not in ("variants", "ranges", "metrics")}
        overrides = fields.get("overrides", {})
        if not isinstance(overrides, Mapping):
            msg = f"{where}: overrides must map unit_id to variant, got {overrides!r}"
            raise ConfigError(msg)
        fields["overrides"] = dict(overrides)
        if "ranges" in data:
            fields["ranges"] = _ranges_from(where, data["ranges"])
        elif "variants" in data:
            shares = _check_shares(where, data["variants"])
            if check_name(data["control"], f"{where}: control") not in shares:
                msg = (
                    f"{where}: control {data['control']!r} is not among the variants "
                    f"{', '.join(map(repr, shares))}"
                )
                raise ConfigError(msg)
            fields["ranges"] = ranges_of(shares)
        else:
            msg = f"{where}: no 'variants' (a table of name = share)"
            raise ConfigError(msg)
        metrics = data.get("metrics", ())
        if not isinstance(metrics, (list, tuple)):
            msg = f"{where}: metrics must be a list of tables, got {metrics!r}"
            raise ConfigError(msg)
        fields["metrics"] = tuple(Metric.from_dict(metric) for metric in metrics)
        return cls(**fields)

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
        return {
            "key": self.key,
            "salt": self.salt,
            "control": self.control,
            "ranges": [[r.lower, r.upper, r.variant] for r in self.ranges],
            "state": self.state,
            "rollout": self.rollout,
            "overrides": dict(self.overrides),
            "shadow": self.shadow,
            "epoch": self.epoch,
            "hash": self.hash,
            "metrics": [metric.to_dict() for metric in self.metrics],
        }

    @property
    def weights(self) -> dict[str, float]:
        """Share per variant among the units inside the experiment; they sum to 1."""
        widths: dict[str, int] = {}
        for item in self.ranges:
            widths[item.variant] = widths.get(item.variant, 0) + item.width
        return {name: width / SPACE for name, width in widths.items()}

    def metric(self, key: str) -> Metric:
        """The declared metric of this name, or a plain mean."""
        return next((m for m in self.metrics if m.key == key), Metric(key=key))

    def reweight(self, shares: Mapping[str, float]) -> Self:
        """The same experiment with other shares, in the next epoch, moving as few units as can be.

        A variant that grows keeps all of its units; one that shrinks gives up the buckets at
        its upper end. The share of units that change variant is the sum of the growths, which
        no allocation with these shares can beat.
        """
        wanted = _check_shares(f"experiment {self.key!r}", shares)
        return replace(self, ranges=_move(self.ranges, wanted), epoch=self.epoch + 1)

    def kill(self) -> Self:
        """The same experiment serving control to everyone, in the next epoch."""
        return replace(self, state="killed", shadow="", epoch=self.epoch + 1)


def ranges_of(shares: Mapping[str, float]) -> tuple[Range, ...]:
    """Consecutive ranges with these shares; the last one ends at 2**52 exactly."""
    ranges: list[Range] = []
    done, lower = 0.0, 0
    # Whose share is 0 gets nobody, also where decimals add up to a little less than 1.
    names = [name for name, share in shares.items() if share > 0]
    for name in names:
        done += shares[name]
        upper = SPACE if name == names[-1] else min(SPACE, threshold(done))
        if upper > lower:
            ranges.append(Range(lower, upper, name))
        lower = upper
    return tuple(ranges)


def _move(ranges: tuple[Range, ...], shares: Mapping[str, float]) -> tuple[Range, ...]:
    targets: dict[str, int] = {r.variant: 0 for r in ranges_of(shares)}
    for item in ranges_of(shares):
        targets[item.variant] += item.width
    kept: list[Range] = []
    free: list[tuple[int, int]] = []
    need = dict(targets)
    for item in ranges:
        keep = min(item.width, need.get(item.variant, 0))
        if keep:
            kept.append(Range(item.lower, item.lower + keep, item.variant))
            need[item.variant] -= keep
        if keep < item.width:
            free.append((item.lower + keep, item.upper))
    for name in targets:
        while need[name]:
            lower, upper = free.pop(0)
            take = min(upper - lower, need[name])
            kept.append(Range(lower, lower + take, name))
            need[name] -= take
            if lower + take < upper:
                free.insert(0, (lower + take, upper))
    return _joined(sorted(kept, key=lambda r: r.lower))


def _joined(ranges: list[Range]) -> tuple[Range, ...]:
    joined: list[Range] = []
    for item in ranges:
        if joined and joined[-1].variant == item.variant and joined[-1].upper == item.lower:
            joined[-1] = Range(joined[-1].lower, item.upper, item.variant)
        else:
            joined.append(item)
    return tuple(joined)


def _is_share(value: object) -> bool:
    return is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    return True


def _check_shares(where: str, shares: object) -> dict[str, float]:
    if not isinstance(shares, Mapping) or not shares:
        msg = f"{where}: variants must be a table of name = share, got {shares!r}"
        raise ConfigError(msg)
    for name, share in shares.items():
        check_name(name, f"{where}: variant")
        if not _is_share(share):
            msg = f"{where}: the share of {name!r} must lie in [0, 1], got {share!r}"
            raise ConfigError(msg)
    total = math.fsum(shares.values())
    if abs(total - 1) > SHARE_TOLERANCE:
        listed = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        msg = f"{where}: shares must sum to 1, but {listed} sum to {total:.12g}"
        raise ConfigError(msg)
    return {name: float(share) for name, share in shares.items()}


def _check_ranges(where: str, ranges: tuple[Range, ...]) -> None:
    lower = 0
    for item in ranges:
        if item.lower != lower or item.upper <= item.lower:
            msg = (
                f"{where}: ranges must be sorted, disjoint and without gaps; "
                f"see [{item.lower}, {item.upper})"
            )
            raise ConfigError(msg)
        lower = item.upper
    if lower != SPACE:
        msg = f"{where}: ranges must cover buckets 0 to 2**52, but end at {lower}"
        raise ConfigError(msg)


def _ranges_from(where: str, data: object) -> tuple[Range, ...]:
    try:
        ranges = tuple(Range(lower, upper, variant) for lower, upper, variant in data)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        msg = f"{where}: ranges must be a list of [lower, upper, variant], got {data!r}"
        raise ConfigError(msg) from None
    for item in ranges:
        if type(item.lower) is not int or type(item.upper) is not int:
            msg = f"{where}: range ends must be whole numbers, got [{item.lower}, {item.upper})"
            raise ConfigError(msg)
    return ranges


def _read(path: Path) -> tuple[str, str]:
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {path}: {error}"
        raise ConfigError(msg) from None
