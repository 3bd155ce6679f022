"""Sequential designs as options of an analysis: from a name and a plan to a design."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import ConfigError
from abkit.records import check_count, check_positive, hint
from abkit.sequential.counts import CountMixture
from abkit.sequential.fixed import FixedHorizon
from abkit.sequential.group import GroupSequential
from abkit.sequential.hypergeometric import HypergeometricMixture
from abkit.sequential.names import DESIGNS, design_named
from abkit.store.looks import Looks

if TYPE_CHECKING:
    from abkit.analysis.options import Options
    from abkit.estimate import Alternative
    from abkit.sequential.design import Contrast
    from abkit.store.looks import Spacing

NAMES: Final = (*(name for name in DESIGNS if name != "canary"), "counts")
_OF_BLOCKS: Final = (HypergeometricMixture, CountMixture)
_PLANNED: Final = (
    "always-valid",
    "calibrated",
)  # the plan shapes them, so it must not be the data's


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How a table is followed through its looks.

    Args:
        design: name of a design, "msprt:TAU2" for one with its prior variance, or a design that
            takes contrasts, counts or estimates.
        looks: moments to look at; None for one look at the whole table.
        planned_units: units of all variants at the planned end, >= 1; None for those in the table.
        max_information: variance of the contrast at the planned end, > 0, of group sequential
            designs; None for that of the table, in proportion to the planned units.

    Raises:
        ConfigError: there is no such design, or it needs a plan.
    """

    design: object
    looks: Looks | None = None
    planned_units: int | None = None
    max_information: float | None = None

    def __post_init__(self) -> None:
        """Reject what cannot be followed."""
        if self.planned_units is not None:
            check_count("analyze", "planned_units", self.planned_units, least=1)
        if self.max_information is not None:
            check_positive("analyze", "max_information", self.max_information)
        if not isinstance(self.design, str):
            self._check_object()
            return
        name, tau2 = self.named
        if name not in NAMES:
            raise ConfigError(f"no design {name!r}{hint(name, dict.fromkeys(NAMES))}")
        if name == "msprt" and tau2 is None:
            raise ConfigError(
                "the design msprt needs the prior variance of the difference, in the metric's unit "
                "squared: msprt:0.0001; always-valid finds it from planned_units"
            )
        if name in _PLANNED and self.planned_units is None:
            raise ConfigError(
                f"the design {name!r} needs planned_units (--planned-units), the units of all "
                "variants at the planned end: it must be fixed before the data is seen"
            )
        if self.max_information is not None and name not in ("group-sequential", "obf", "pocock"):
            raise ConfigError(f"max_information is for group sequential designs, not for {name!r}")

    def _check_object(self) -> None:
        if not callable(getattr(self.design, "look", None)):
            raise ConfigError(
                f"design must be one of {', '.join(NAMES)}, or an object with a method look, "
                f"got {self.design!r}"
            )
        for name in ("planned_units", "max_information"):
            if getattr(self, name) is not None:
                raise ConfigError(f"{name} belongs into the design that was given, {self.design}")

    @property
    def named(self) -> tuple[str, float | None]:
        """Name and parameter of a design that was named."""
        name, colon, text = str(self.design).partition(":")
        if not colon:
            return name, None
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if name != "msprt":
            raise ConfigError(f"design {self.design!r}: {name!r} takes no number")
        check_positive(f"design {self.design!r}", "the prior variance", number)
        return name, number

    @property
    def label(self) -> str:
        """What the design is called."""
        return self.design if isinstance(self.design, str) else type(self.design).__name__

    @property
    def of_blocks(self) -> bool:
        """Whether the design adds up counts from look to look."""
        if isinstance(self.design, str):
            return self.named[0] in ("hypergeometric", "counts")
        return isinstance(self.design, _OF_BLOCKS)

    @property
    def once(self) -> bool:
        """Whether the design has one look only, whose answer is that of the test for one look."""
        return self.design == "fixed" or isinstance(self.design, FixedHorizon)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the design of one comparison is made from.

    Args:
        last: contrast at the last look.
        effective: effective units at the last look by plain counts, for the one look of "fixed".
        share: planned units over the units in the table, > 0.
        looks: number of looks.
    """

    last: Contrast
    effective: float
    share: float
    looks: int


def check_fits(follow: Follow, options: Options) -> None:
    """Reject a design that does not go with the other options.

    Raises:
        ConfigError: it does not; the message says what to leave out.
    """
    name = follow.label
    if options.segments or options.correction not in (None, "ebh"):
        what = "segments" if options.segments else f"correction {options.correction!r}"
        raise ConfigError(
            f"design {name!r} does not go with {what}: intervals of looks are not corrected; give "
            "each comparison its share of alpha"
        )
    if options.quantiles:
        raise ConfigError(f"design {name!r} does not go with quantiles; analyze them at one look")
    if options.method != "pooled_z" and not follow.once:
        raise ConfigError(f"design {name!r} has its own test; leave out method {options.method!r}")
    if follow.of_blocks and (options.covariates or options.margins):
        what = "covariates" if options.covariates else "margins"
        raise ConfigError(
            f"design {name!r} compares counts, which have no {what}; a margin on its scale is the "
            "null_log_odds or null_log_ratio of the design"
        )
    if follow.looks is None:
        return
    for column, rule in options.winsorize.items():
        if isinstance(rule, float):
            raise ConfigError(
                f"winsorize of {column!r}: a quantile of the whole table was not known at earlier "
                "looks; give a WinsorRule that was fixed beforehand"
            )


def design_of(follow: Follow, plan: Plan, *, alpha: float, alternative: Alternative) -> Any:
    """The design of one comparison.

    Args:
        follow: what was asked for.
        plan: of this comparison.
        alpha: error probability, in (0, 1).
        alternative: side.

    Raises:
        ConfigError: a design that was given has another side, or the named one has no such side.
    """
    if not isinstance(follow.design, str):
        own = getattr(follow.design, "alternative", alternative)
        if own != alternative:
            raise ConfigError(
                f"the design's alternative is {own!r}, but the comparison is {alternative!r}"
            )
        return follow.design
    name, tau2 = follow.named
    both = {"alpha": alpha, "alternative": alternative}
    if name == "counts":
        return CountMixture(**both)  # type: ignore[arg-type]
    if name == "msprt" and alternative != "two-sided":
        raise ConfigError(f"the design 'msprt' is two-sided, got {alternative!r}")
    if name == "fixed":
        units = max(1, int(4 * plan.effective * plan.share))
        return FixedHorizon(planned_units=units, **both)  # type: ignore[arg-type]
    units = max(1, int(4 * plan.last.h * plan.share))
    design = design_named(
        name, planned_units=units, looks=plan.looks, tau2=tau2, alpha=alpha, alternative=alternative
    )
    if isinstance(design, GroupSequential):
        information = follow.max_information or (plan.last.v or 1.0) * plan.share
        return replace(design, planned_information=information, clock="contrast_variance")
    return design


def follow_of(
    time: str | None,
    looks: object,
    spacing: Spacing,
    design: object,
    *,
    planned_units: int | None,
    information: float | None,
) -> Follow | None:
    """The looks and the design of an analysis; None where none was asked for.

    Raises:
        ConfigError: a part is missing, or unusable.
    """
    if design is None:
        for name, given in (
            ("looks", looks is not None),
            ("spacing", spacing != "units"),
            ("planned_units", planned_units is not None),
            ("max_information", information is not None),
        ):
            if given:
                raise ConfigError(
                    f"{name} (--{name.replace('_', '-')}) needs a design that makes looks safe: "
                    f"one of {', '.join(NAMES)}"
                )
        return None
    cuts = None
    if time is not None or looks is not None:
        if time is None or looks is None:
            raise ConfigError("several looks need both time, a column, and looks, their number")
        at = looks if isinstance(looks, int) else _moments(looks)
        cuts = Looks(time, at, spacing)
    return Follow(
        design=design, looks=cuts, planned_units=planned_units, max_information=information
    )


def _moments(looks: object) -> tuple[object, ...]:
    if isinstance(looks, str) or not isinstance(looks, Iterable):
        raise ConfigError(f"looks must be a number or a list of moments, got {looks!r}")
    return tuple(looks)
