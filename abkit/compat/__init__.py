"""Moving in from another vendor without re-randomising anyone.

`load(vendor, config)` reads the vendor's own document and returns experiments whose `hash` is the
vendor's: every unit keeps the variant that the vendor's SDK serves it today. What cannot be carried
over like that is skipped and says why; nothing is guessed.

Names are carried over, values are not: what a variant means stays with the code that serves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError
from abkit.records import check_choice

if TYPE_CHECKING:
    from abkit.experiment import Experiment
    from abkit.layer import Layer

VENDORS = (
    "eppo",
    "flagd",
    "flagsmith",
    "growthbook",
    "launchdarkly",
    "optimizely",
    "planout",
    "posthog",
    "split",
    "statsig",
    "unleash",
)
"""Vendors whose documents can be read; each is a module of this package."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What stayed behind.

    Args:
        key: the vendor's name of it.
        reason: why, and where there is a way, what to do.
    """

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What a vendor's document turned into.

    Args:
        experiments: in the document's order.
        layers: the experiments' layers.
        skipped: what could not be carried over, each with the reason.
        renamed: the vendor's name to abkit's, where the vendor's is not lawful here; a variant
            stands as "experiment/variant".
    """

    experiments: tuple[Experiment, ...] = ()
    layers: tuple[Layer, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


def load(vendor: str, config: Mapping[str, Any], **options: Any) -> Imported:
    """The experiments in a vendor's document.

    Args:
        vendor: one of `VENDORS`.
        config: the vendor's own document, parsed from JSON.
        options: what this vendor's `load` takes besides, such as `unit`.

    Raises:
        ConfigError: the vendor or an option is unknown, or the document is none of the vendor's.
    """
    check_choice("import", "vendor", vendor, VENDORS)
    if not isinstance(config, Mapping):
        raise ConfigError(f"{vendor}: the document must be a table, got {type(config).__name__}")
    read = import_module(f"abkit.compat.{vendor}").load
    known = read.__kwdefaults__ or {}
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{vendor}: no option {name!r}; known are {', '.join(known) or 'none'}"
            )
    found: Imported = read(config, **options)
    return found
