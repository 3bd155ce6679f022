"""Lengths and moments of time, as people give them and as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from abkit.errors import ConfigError
from abkit.records import is_number
from abkit.store.moments import timestamp

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_TOLD: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_LONGEST: Final = 100 * 365 * 86_400


def seconds_of(window: object) -> float:
    """Length of a window in seconds, from a number of them or a text such as "7d" or "24h".

    Args:
        window: seconds, or a number with s, m, h, d or w (seconds to weeks).

    Raises:
        ConfigError: it is neither, not above 0, or longer than a century.

    Examples:
        >>> seconds_of("7d"), seconds_of("1.5h"), seconds_of(30)
        (604800.0, 5400.0, 30.0)
    """
    number: float | None = None
    if isinstance(window, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)\s*", window)
        if match is not None:
            number = float(match[1]) * _SECONDS[match[2] or "s"]
    elif is_number(window):
        number = float(window)  # type: ignore[arg-type]
    if number is None or not 0 < number <= _LONGEST:
        raise ConfigError(
            f"window must be seconds above 0 or a text such as '7d', '24h' or '30m', got {window!r}"
        )
    return number


def moment_of(given: object) -> datetime | None:
    """A watermark that somebody gave, in UTC without zone."""
    if given is None:
        return None
    moment = given
    if is_number(given):
        try:
            return timestamp(float(given))  # type: ignore[arg-type]
        except (ValueError, OverflowError, OSError):
            moment = None
    elif isinstance(given, str):
        try:
            moment = datetime.fromisoformat(given)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime):
        raise ConfigError(
            "watermark must be a datetime, a text such as '2026-11-20T12:00' or seconds since "
            f"1970 (UTC), got {given!r}"
        )
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def told_time(moment: datetime | None) -> str:
    """A moment in UTC for reading; the present where there is none."""
    return "now" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def told_span(seconds: float) -> str:
    """A length of time for reading.

    Examples:
        >>> told_span(604_800), told_span(5_400), told_span(0.5)
        ('7 d', '90 min', '0.5 s')
    """
    unit, size = next((u, n) for u, n in _TOLD if (seconds >= n and seconds % n == 0) or n == 1)
    return f"{seconds / size:g} {unit}"
