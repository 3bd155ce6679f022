"""What is measured: a named function of a unit's outcomes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Self

from abkit.errors import ConfigError
from abkit.records import build, check_choice, check_positive, is_number

Kind = Literal["proportion", "mean"]
Direction = Literal["increase", "decrease"]
Aggregate = Literal["last", "first", "sum", "mean", "max"]
Missing = Literal["zero", "exclude"]

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_LONGEST_SECONDS = 10 * 366 * 86_400.0
_LATER = ("source", "above", "below", "window_seconds")
_CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("proportion", "mean"),
    "direction": ("increase", "decrease"),
    "aggregate": ("last", "first", "sum", "mean", "max"),
    "missing": ("zero", "exclude"),
}


def check_name(value: object, what: str) -> str:
    """Return `value` if it is a lawful abkit name, or raise a ConfigError that says why not.

    Names become files, SQL values and page titles, so their alphabet is closed.
    """
    if not isinstance(value, str) or NAME_PATTERN.match(value) is None:
        msg = (
            f"{what} {value!r} is not a lawful name: use 1 to 64 of A-Z a-z 0-9 _ . -, "
            "starting with a letter or digit"
        )
        raise ConfigError(msg)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A named function of the outcomes that one unit has.

    Args:
        key: the name under which outcomes are recorded, `[A-Za-z0-9][A-Za-z0-9_.-]*`.
        kind: "proportion" for values of 0 or 1, "mean" for numbers.
        direction: whether more is better ("increase") or worse ("decrease").
        aggregate: how several outcomes of one unit become one number; the default is "max" for
            proportions (it happened, or not) and "last" for means.
        missing: a unit without outcome counts as 0 ("zero": conversions, revenue) or is left
            out until its outcome arrives ("exclude": labels, latencies). The default is "zero"
            for proportions and "exclude" for means.
        unit_of_measure: for display, such as "ms"; empty if dimensionless.
        log: analyse the natural logarithm of the value (latencies); values must be positive.
        source: the name under which the outcomes of a derived metric are recorded; empty for
            `key` itself.
        above: with a source: the metric is 1 for a unit whose value exceeds this, else 0. It is
            a proportion then, `aggregate` is of the source ("max" by default), and `missing` is
            "exclude" by default.
        below: the same for values below this; `aggregate` is "first" by default.
        window_seconds: in a rollout an outcome counts if it came less than so long after the
            exposure, and a unit once that time is over; None for all, at once. Arms whose
            outcomes come later are compared fairly then.

    Examples:
        >>> slow = Metric(key="slow", source="latency_ms", above=200.0, direction="decrease")
        >>> slow.kind, slow.aggregate, slow.missing, slow.recorded
        ('proportion', 'max', 'exclude', 'latency_ms')
    """

    key: str
    kind: Kind = "mean"
    direction: Direction = "increase"
    aggregate: Aggregate | None = None
    missing: Missing | None = None
    unit_of_measure: str = ""
    log: bool = False
    source: str = ""
    above: float | None = None
    below: float | None = None
    window_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the names and choices."""
        check_name(self.key, "metric key")
        self._check_source()
        if self.window_seconds is not None:
            check_positive(f"metric {self.key!r}", "window_seconds", self.window_seconds)
            if self.window_seconds > _LONGEST_SECONDS:
                msg = f"metric {self.key!r}: window_seconds is at most ten years, got "
                raise ConfigError(f"{msg}{self.window_seconds!r}")
        if self.aggregate is None:
            usual: Aggregate = "max" if self.kind == "proportion" else "last"
            object.__setattr__(self, "aggregate", usual)
        if self.missing is None:
            default: Missing = "zero" if self.kind == "proportion" else "exclude"
            object.__setattr__(self, "missing", default)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            check_choice(f"metric {self.key!r}", name, value, choices)
        if not isinstance(self.log, bool):
            msg = f"metric {self.key!r}: log must be true or false, got {self.log!r}"
            raise ConfigError(msg)
        if not isinstance(self.unit_of_measure, str):
            msg = f"metric {self.key!r}: unit_of_measure must be text, got {self.unit_of_measure!r}"
            raise ConfigError(msg)
        if self.kind == "proportion" and self.aggregate in ("sum", "mean"):
            msg = (
                f"metric {self.key!r}: aggregate {self.aggregate!r} of a proportion is not 0 or 1"
                if not self.source
                else f"metric {self.key!r}: aggregate {self.aggregate!r} depends on the order of "
                "events in its last bit, and so would the side of a threshold; use last, first, max"
            )
            raise ConfigError(msg)
        if self.log and (self.kind == "proportion" or self.missing == "zero"):
            msg = f"metric {self.key!r}: log needs kind='mean' and missing='exclude'"
            raise ConfigError(msg)

    def _check_source(self) -> None:
        """Check a threshold, and fill in what follows from it."""
        where = f"metric {self.key!r}"
        limits = [x for x in (self.above, self.below) if x is not None]
        if not isinstance(self.source, str):
            raise ConfigError(f"{where}: source must be the key of outcomes, got {self.source!r}")
        if len(limits) != bool(self.source):
            raise ConfigError(
                f"{where}: a source goes with one of above and below, got source={self.source!r}, "
                f"above={self.above!r}, below={self.below!r}"
            )
        if not limits:
            return
        check_name(self.source, f"{where}: source")
        if not is_number(limits[0]):
            raise ConfigError(f"{where}: a threshold must be a finite number, got {limits[0]!r}")
        object.__setattr__(self, "kind", "proportion")
        if self.aggregate is None:
            object.__setattr__(self, "aggregate", "max" if self.below is None else "first")
        if self.missing is None:
            object.__setattr__(self, "missing", "exclude")

    @property
    def recorded(self) -> str:
        """The name under which its outcomes are recorded."""
        return self.source or self.key

    @property
    def final(self) -> bool:
        """Whether a unit that has counted as 1 stays so, whatever else is recorded of it."""
        if self.window_seconds is not None or self.aggregate == "first":
            return True
        return self.aggregate == "max" and self.below is None

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """A metric from plain data; an unknown or missing key is named."""
        return build(
            cls, data, f"metric {data.get('key')!r}" if isinstance(data, dict) else "metric"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        # Left out where they say nothing, so that an older abkit reads what it can understand.
        return {k: v for k, v in data.items() if k not in _LATER or v not in ("", None)}


def outcome_value(value: object) -> float | None:
    """`value` as an outcome, or None if it can't be one.

    Finite real numbers can, numpy's scalars among them; a bool counts as 0 or 1.
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()  # type: ignore[attr-defined]
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int too large for a double
        return None
    return number if math.isfinite(number) else None
