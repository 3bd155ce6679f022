"""How a writer writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.log.files import FileSystem

Durability = Literal["os", "buffered", "fsync"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `SegmentWriter` was told; its docstring explains each field."""

    folder: str
    durability: Durability
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    segment_bytes: int
    segment_seconds: float
    queue_records: int
    flush_records: int
    flush_seconds: float
    files: FileSystem

    def __post_init__(self) -> None:
        """Refuse what no writer could work with."""
        if self.durability not in get_args(Durability):
            raise ConfigError(
                f"durability must be one of {', '.join(get_args(Durability))},"
                f" got {self.durability!r}"
            )
        for name in ("segment_bytes", "queue_records", "flush_records"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        for name in ("segment_seconds", "flush_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a time above 0, got {getattr(self, name)!r}")

    @property
    def is_durable(self) -> bool:
        """Whether the writer asks the disk to keep what it wrote."""
        return self.durability == "fsync"

    def time(self) -> float:
        """What the clock says; 0.0 from a broken one, which must not cost an event."""
        try:
            now = float(self.clock())
        except Exception:  # noqa: BLE001 - the clock is the caller's code
            return 0.0
        return now if math.isfinite(now) else 0.0
