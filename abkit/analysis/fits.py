"""Which options of an analysis go together, and what to do where two do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from abkit.errors import ConfigError
from abkit.stats.ratio import term_name

if TYPE_CHECKING:
    from abkit.analysis.options import Options

_EXACT: Final = ("fisher", "barnard", "boschloo")
_ADJUSTED: Final = ("pooled_z", "unpooled_z")


def check_method(options: Options) -> None:
    """Reject a test of proportions that cannot do what the other options ask.

    Raises:
        ConfigError: it cannot; the message says which can.
    """
    method = options.method
    if method == "mantel_haenszel" and options.epoch is None:
        raise ConfigError(
            "method 'mantel_haenszel' compares within epochs; name their column (epoch), or use "
            "pooled_z"
        )
    if method == "pooled_z":  # the usual one, which makes room for whatever else is asked
        return
    for name, given in (("cluster", options.cluster is not None), ("paired", options.paired)):
        if given:
            raise ConfigError(
                f"method {method!r} is for independent units; leave it out with {name}, which has "
                "its own test"
            )
    if options.covariates and method not in _ADJUSTED:
        raise ConfigError(
            f"method {method!r} counts successes, which covariates cannot adjust; leave it out, or "
            f"use one of {', '.join(_ADJUSTED)}"
        )
    if options.epoch is not None and method in _EXACT:
        raise ConfigError(
            f"method {method!r} is exact for one pair of arms and not within epochs; leave it out, "
            "or use mantel_haenszel, score_z, newcombe or unpooled_z"
        )
    if options.shares and method == "score_z":
        raise ConfigError(
            "method 'score_z' tests margins in points; give -0.02 instead of a share of control, "
            "or leave the method out"
        )


def check_roles(unit: str, variant: str, options: Options) -> None:
    """Reject a column that is to be two things which no column can be at once.

    Args:
        unit: column of the unit.
        variant: column of the variant.
        options: of the analysis.

    Raises:
        ConfigError: the variant is a unit, a segment or a number, or a segment is compared.
    """
    if unit == variant:
        raise ConfigError(f"{unit!r} is named as both unit and variant; they are two columns")
    numbers = options.numbers()
    for part, name in (("unit", unit), ("variant", variant)):
        found = numbers.get(name)
        found = "segment" if name in options.segments else found
        found = "epoch" if name == options.epoch else found
        if part == "variant" and name == options.cluster:
            found = "cluster"
        if found is not None:
            raise ConfigError(f"{name!r} is the column of the {part}, so it can be no {found}")
    for name in options.segments:
        if name in numbers:
            raise ConfigError(
                f"the segment {name!r} is a {numbers[name]} too; segments are known before the "
                "assignment, or the arms in them are no longer alike"
            )


def check_kinds(options: Options) -> None:
    """Reject what quantiles, counts, clusters and pairs cannot do.

    Raises:
        ConfigError: it cannot be done; the message says what can.
    """
    _check_own_names(options)
    if options.cluster is not None and options.paired:
        raise ConfigError(
            "paired compares rows of one unit and cluster randomises whole units; give one of both"
        )
    if options.quantiles:
        _refuse(options, "quantiles", next(iter(options.quantiles)), _QUANTILES)
    if options.counts:
        _refuse(options, "counts", next(iter(options.counts)), _COUNTS)
        for name in options.counts:
            if name in options.margins:
                border = options.margins[name]
                raise ConfigError(
                    f"the margin of the count {name!r} must be a share of control's rate such as "
                    f"'-2%', got {border!r}: its exact test compares rates by their ratio"
                )
        for column in options.counted():
            if column in options.winsorize:
                raise ConfigError(
                    f"{column!r} is counted, and a capped count is none; compare it as a metric to "
                    "winsorize it"
                )
    if options.paired:
        _refuse(options, "paired", "", _PAIRED)
    if options.follow is not None and (options.cluster is not None or options.paired):
        what = "paired" if options.paired else "cluster"
        raise ConfigError(
            f"a design does not go with {what}: its looks count independent units; analyse the "
            f"whole table once, or aggregate it to one row per {what.replace('paired', 'unit')}"
        )


_QUANTILES: Final = {
    "covariates": "covariates adjust means; leave them out, or compare the mean",
    "epoch": "a quantile of several epochs together is none of their quantiles; compare one epoch "
    "at a time, or the mean",
    "bayes": "there is no posterior of a quantile; leave bayes out",
    "cluster": "its interval needs independent values; take one value per cluster first",
    "paired": "it compares independent units; leave paired out, or compare the mean",
}
_COUNTS: Final = {
    "covariates": "its exact test has no covariates; compare the column as a metric",
    "epoch": "its exact test has one rate per arm; compare the column as a metric or ratio, which "
    "stays right within epochs",
    "bayes": "there is no posterior of a rate; leave bayes out",
    "cluster": "events of one cluster come together, which Poisson's variance leaves out; compare "
    "the column as a metric or ratio",
    "paired": "its test is of independent units; compare the column as a metric",
}
_PAIRED: Final = {
    "covariates": "each unit is its own control, so leave covariates out",
    "epoch": "both rows of a unit are compared with one another, so leave the epoch out",
}


def _refuse(options: Options, what: str, name: str, reasons: dict[str, str]) -> None:
    given = {
        "covariates": bool(options.covariates),
        "epoch": options.epoch is not None,
        "bayes": options.bayes,
        "cluster": options.cluster is not None,
        "paired": options.paired,
    }
    label = f"the {what.removesuffix('s')} {name!r}" if name else what
    for option, reason in reasons.items():
        if given[option]:
            raise ConfigError(f"{label} does not go with {option}: {reason}")


def _check_own_names(options: Options) -> None:
    taken = {**dict.fromkeys(options.kinds, "metric"), **dict.fromkeys(options.ratios, "ratio")}
    for what, names in (("count", options.counts), ("quantile", options.quantiles)):
        for name in names:
            if name in taken:
                raise ConfigError(
                    f"{what} {name!r} has the name of a {taken[name]}; leave one out, or give the "
                    f"{what} another name in a mapping"
                )
            taken[name] = what
    for name, term in options.counts.items():
        if not isinstance(term, str) and term[0] == term[1]:
            raise ConfigError(f"count {name!r}: {term_name(term)} divides a column by itself")
    events = {term if isinstance(term, str) else term[0] for term in options.counts.values()}
    for name, term in options.counts.items():
        if not isinstance(term, str) and term[1] in events:
            raise ConfigError(f"count {name!r}: exposure {term[1]!r} is counted itself")
