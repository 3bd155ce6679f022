"""The options of `analyze`, checked before the data is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from abkit.analysis.designs import check_fits
from abkit.analysis.fits import check_kinds, check_method
from abkit.errors import ConfigError
from abkit.records import check_choice, check_fraction, hint, is_number
from abkit.stats.multiplicity import Method as Correction
from abkit.stats.ratio import term_name
from abkit.stats.winsor import WinsorRule

if TYPE_CHECKING:
    from abkit.analysis.designs import Follow
    from abkit.estimate import Alternative
    from abkit.metrics import Kind
    from abkit.stats.ratio import Term

SHARE_TOLERANCE: Final = 1e-9
METHODS: Final = (
    "pooled_z",
    "unpooled_z",
    "score_z",
    "newcombe",
    "fisher",
    "barnard",
    "boschloo",
    "mantel_haenszel",
)
CORRECTIONS: Final = (*get_args(Correction), "ebh")
_WITH_MARGIN: Final = ("pooled_z", "unpooled_z", "score_z", "mantel_haenszel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to compare and how; see `analyze` for the meaning of each.

    Args:
        kinds: columns of the metrics with their kind, None to infer it.
        ratios: columns of numerator and denominator by name.
        covariates: columns measured before the assignment.
        margins: border of the null by metric.
        winsorize: quantile of control, or a rule, by column.
        segments: columns to break down by.
        epoch: column of the allocation epoch.
        method: test of proportions.
        correction: for the number of comparisons.
        bayes: whether to add posteriors.
        alpha: error probability.
        alternative: side.
        follow: looks and design, if the analysis is to be followed by one.
        quantiles: column and level of each quantile, by name.
        counts: column of events, or columns of events and exposure, by name.
        shares: border of the null as a share of control's mean, by metric.
        cluster: column of what was randomised, where a unit is only a part of it.
        paired: whether each unit has a row in both variants.
    """

    kinds: Mapping[str, Kind | None]
    ratios: Mapping[str, tuple[str, str]]
    covariates: tuple[str, ...]
    margins: Mapping[str, float]
    winsorize: Mapping[str, float | WinsorRule]
    segments: tuple[str, ...]
    epoch: str | None
    method: str
    correction: Correction | Literal["ebh"] | None
    bayes: bool
    alpha: float
    alternative: Alternative
    follow: Follow | None = None
    quantiles: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    counts: Mapping[str, Term] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    cluster: str | None = None
    paired: bool = False

    def __post_init__(self) -> None:
        """Reject options that do not fit together."""
        check_fraction("analyze", "alpha", self.alpha)
        check_choice("analyze", "alternative", self.alternative, ("two-sided", "greater", "less"))
        check_choice("analyze", "method", self.method, METHODS)
        if self.correction is not None:
            check_choice("analyze", "correction", self.correction, CORRECTIONS)
        for name, kind in self.kinds.items():
            if kind is not None:
                check_choice(f"metric {name!r}", "kind", kind, ("proportion", "mean"))
        self._check_names()
        self._check_margins()
        self._check_caps()
        check_method(self)
        check_kinds(self)
        if self.follow is not None:
            check_fits(self.follow, self)

    def _check_names(self) -> None:
        if not self.names():
            raise ConfigError("no metrics; name at least one column or ratio")
        for name, pair in self.ratios.items():
            words = isinstance(pair, tuple) and all(isinstance(part, str) for part in pair)
            if not words or len(pair) != 2 or pair[0] == pair[1]:
                raise ConfigError(
                    f"ratio {name!r} needs a pair of columns (numerator, denominator), got {pair!r}"
                )
            if name in self.kinds:
                raise ConfigError(f"ratio {name!r} has the name of a metric; give it another")
        for what, names in (("covariate", self.covariates), ("segment", self.segments)):
            if len(set(names)) < len(names):
                raise ConfigError(f"a {what} is named twice: {', '.join(names)}")
        used = {name for term in self.terms().values() for name in columns_of(term)}
        for name in self.covariates:
            if name in used:
                raise ConfigError(
                    f"covariate {name!r} is a metric too; a covariate is measured before the "
                    "assignment"
                )

    def _check_margins(self) -> None:
        known = dict.fromkeys(self.names())
        for name in (*self.margins, *self.shares):
            if name not in known:
                raise ConfigError(f"margin of no metric {name!r}{hint(name, known)}")
        for name, border in self.margins.items():
            if not is_number(border) or border == 0:
                raise ConfigError(
                    f"the margin of {name!r} must be a number other than 0, got {border!r}: -0.02 "
                    "allows a loss of 0.02 where more is better, 0.02 a rise where less is better"
                )
        if (self.margins or self.shares) and self.method not in _WITH_MARGIN:
            raise ConfigError(
                f"method {self.method!r} tests no margin; use one of {', '.join(_WITH_MARGIN)}"
            )

    def _check_caps(self) -> None:
        known = dict.fromkeys(name for term in self.terms().values() for name in columns_of(term))
        for name, rule in self.winsorize.items():
            if name not in known:
                raise ConfigError(f"winsorize of no column {name!r}{hint(name, known)}")
            if not isinstance(rule, WinsorRule):
                check_fraction(f"winsorize of {name!r}", "the quantile", rule)

    def terms(self) -> dict[str, Term]:
        """What each metric of sums is: a column, or a pair of them."""
        return {**{name: name for name in self.kinds}, **self.ratios, **self.counts}

    def names(self) -> tuple[str, ...]:
        """Everything that is compared, in the order of the report."""
        return (*self.terms(), *self.quantiles)

    def counted(self) -> dict[str, bool]:
        """The columns of counts, and whether each holds events rather than exposure."""
        terms = [columns_of(term) for term in self.counts.values()]
        exposures = {name: False for term in terms for name in term[1:]}
        return exposures | {term[0]: True for term in terms}

    def family(self, name: str) -> tuple[str, ...]:
        """The columns that a metric needs of the same units; a quantile stands alone."""
        if name in self.quantiles:
            return (name,)
        return (*columns_of(self.terms()[name]), *self.covariates)

    def numbers(self) -> dict[str, str]:
        """Every column of numbers, and what it is."""
        found = dict.fromkeys(self.kinds, "metric")
        for term in self.ratios.values():
            for name in term:
                found.setdefault(name, f"metric (part of {term_name(term)})")
        for name, events in self.counted().items():
            found.setdefault(name, "count" if events else "exposure")
        for name, _ in self.quantiles.values():
            found.setdefault(name, "metric")
        return found | dict.fromkeys(self.covariates, "covariate")


def columns_of(term: Term) -> tuple[str, ...]:
    """The columns of a term."""
    return (term,) if isinstance(term, str) else term


def names_of(what: str, given: Iterable[str] | None) -> tuple[str, ...]:
    """A list of columns, which must not be one text: its letters would be taken for columns.

    Raises:
        ConfigError: it is one text, or holds something else than texts.
    """
    if isinstance(given, str):
        raise ConfigError(f"{what} must be a list of columns, got the text {given!r}; [{given!r}]")
    try:
        names = tuple(given or ())
    except TypeError:
        raise ConfigError(f"{what} must be a list of columns, got {given!r}") from None
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{what} must be texts, got {name!r}")
    return names


def mapping_of(what: str, given: object) -> dict[str, object]:
    """A mapping from names; None is an empty one.

    Raises:
        ConfigError: it is something else.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"{what} must be a mapping from names, got {given!r}")
    return dict(given)


def checked_weights(
    weights: Mapping[str, float] | None, counts: Mapping[str, int]
) -> dict[str, float]:
    """Intended shares that sum to 1, one per variant.

    Raises:
        ConfigError: a variant without weight, a weight without variant, or shares whose sum is
            not 1.
    """
    if weights is None:
        return {name: 1 / len(counts) for name in counts}
    for name in weights:
        if name not in counts:
            msg = f"weights name {name!r}, but the variants are {', '.join(map(repr, counts))}"
            raise ConfigError(msg)
    for name in counts:
        if name not in weights:
            msg = f"weights have no share for the variant {name!r}"
            raise ConfigError(msg)
        if not is_number(weights[name]) or weights[name] <= 0:
            msg = f"the weight of {name!r} must be a number above 0, got {weights[name]!r}"
            raise ConfigError(msg)
    total = math.fsum(weights.values())
    ratios = all(float(value).is_integer() for value in weights.values())
    if not ratios and abs(total - 1) > SHARE_TOLERANCE:
        msg = f"weights must be whole-number ratios or shares that sum to 1; these sum to {total:g}"
        raise ConfigError(msg)
    return {name: weights[name] / total for name in counts}
