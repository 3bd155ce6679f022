"""Options as people write them, as the records that an analysis works with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from abkit.analysis.kinds import quantile_name
from abkit.analysis.options import mapping_of, names_of
from abkit.errors import ConfigError
from abkit.records import is_number

if TYPE_CHECKING:
    from abkit.stats.ratio import Term


def quantiles_of(given: object) -> dict[str, tuple[str, float]]:
    """Column and level of each quantile, by the name of its result.

    Args:
        given: levels by column: a number, or a list of numbers.

    Raises:
        ConfigError: a level is none, or is named twice.

    Examples:
        >>> quantiles_of({"latency_ms": [0.5, 0.95]})
        {'latency_ms p50': ('latency_ms', 0.5), 'latency_ms p95': ('latency_ms', 0.95)}
    """
    found: dict[str, tuple[str, float]] = {}
    for column, levels in mapping_of("quantiles", given).items():
        several = isinstance(levels, list | tuple)
        for level in levels if several else [levels]:  # type: ignore[attr-defined]
            if not is_number(level) or not 0 < level < 1:
                raise ConfigError(
                    f"the quantile of {column!r} must lie strictly between 0 and 1, got {level!r}; "
                    "0.95 is the 95th percentile"
                )
            name = quantile_name(column, float(level))
            if name in found:
                raise ConfigError(f"the quantile {name!r} is named twice")
            found[name] = (column, float(level))
    return found


def counts_of(given: object) -> dict[str, Term]:
    """Columns of events, or of events and exposure, by the name of the result.

    Args:
        given: a list of columns, or by name a column or a pair (events, exposure).

    Raises:
        ConfigError: it is something else.

    Examples:
        >>> counts_of(["errors"]), counts_of({"error_rate": ("errors", "hours")})
        ({'errors': 'errors'}, {'error_rate': ('errors', 'hours')})
    """
    if not isinstance(given, Mapping):
        return {name: name for name in names_of("counts", given)}  # type: ignore[arg-type]
    found: dict[str, Term] = {}
    for name, term in mapping_of("counts", given).items():
        parts = tuple(term) if isinstance(term, list | tuple) else (term,)
        if len(parts) > 2 or not parts or not all(isinstance(part, str) for part in parts):
            raise ConfigError(
                f"count {name!r} needs a column, or a pair (events, exposure), got {term!r}"
            )
        found[name] = parts[0] if len(parts) == 1 else (parts[0], parts[1])
    return found


def margins_of(given: object) -> tuple[dict[str, Any], dict[str, float]]:
    """Margins in the metric's unit, and those that are shares of control's mean.

    Args:
        given: by metric a number, or a text such as "-2%".

    Raises:
        ConfigError: a text is no percentage.

    Examples:
        >>> margins_of({"bought": -0.02, "spend": "-2%"})
        ({'bought': -0.02}, {'spend': -0.02})
    """
    margins: dict[str, Any] = {}
    shares: dict[str, float] = {}
    for name, border in mapping_of("margins", given).items():
        if not isinstance(border, str):
            margins[name] = border
            continue
        number = _percent(border)
        if number is None or number == 0 or not -1 < number < 100:
            raise ConfigError(
                f"the margin of {name!r} must be a number or a percentage above -100% such as "
                f"'-2%', got {border!r}"
            )
        shares[name] = number
    return margins, shares


def _percent(text: str) -> float | None:
    if not text.endswith("%"):
        return None
    try:
        return float(text[:-1]) / 100
    except ValueError:
        return None
