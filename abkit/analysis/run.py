"""The front door of analysis: from a table and options to a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from abkit.analysis import checks
from abkit.analysis.compare import compared, correct
from abkit.analysis.options import Options, mapping_of, names_of
from abkit.analysis.report import Report
from abkit.comoments import Comoments
from abkit.errors import ConfigError, DataError
from abkit.records import check_choice
from abkit.stats.winsor import WinsorRule
from abkit.store.table import Columns, Missing, open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.compare import Stratum
    from abkit.analysis.report import Check, Result, ResultKind
    from abkit.estimate import Alternative
    from abkit.metrics import Kind
    from abkit.stats.multiplicity import Method
    from abkit.store.cells import Facts, Key
    from abkit.store.table import UnitTable

    Cells = Mapping[tuple[str, ...], Mapping[Key, Comoments]]


def analyze(
    data: object,
    *,
    unit: str,
    variant: str,
    control: str | int | bool,
    metrics: Sequence[str] | Mapping[str, Kind | None] = (),
    ratios: Mapping[str, tuple[str, str]] | None = None,
    covariates: Sequence[str] = (),
    weights: Mapping[str, Any] | None = None,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    missing: Missing = "error",
    method: str = "pooled_z",
    margins: Mapping[str, float] | None = None,
    winsorize: Mapping[str, float | WinsorRule] | None = None,
    segments: Sequence[str] = (),
    epoch: str | None = None,
    correction: Method | None = None,
    bayes: bool = False,
) -> Report:
    """Compare every variant of a table with its control, at one look.

    Proportions report the pooled z test and the unpooled Wald interval, means Welch's t, ratios
    the delta method; lift is by the delta method too. These hold for one planned look: for data
    that is watched while it comes in, use a rollout, whose tests may be looked at any time.

    Args:
        data: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table or a
            DuckDB relation, with one row per unit.
        unit: column of what was randomised.
        variant: column of the variant.
        control: value of that column which is the control.
        metrics: columns to compare; as a mapping, with their kind ("proportion", "mean", or
            None to infer it from the values).
        ratios: ratios of sums to compare, such as `{"ctr": ("clicks", "views")}`.
        covariates: columns measured before the assignment; what they explain of a metric is taken
            out of it (CUPED).
        weights: intended split, as whole-number ratios (1:1) or shares that sum to 1; even by
            default. With an epoch also such a mapping for each epoch, and no default.
        alpha: error probability of the intervals, in (0, 1).
        alternative: side of the test, "two-sided", "greater" or "less".
        missing: what to do with rows without a value: raise, leave out, or count as 0.
        method: of proportions: "pooled_z", "unpooled_z", "score_z", "newcombe" (interval only),
            "fisher", "barnard" or "boschloo" (p-value only).
        margins: border of the null by metric: -0.02 asks whether treatment loses less than 0.02
            (more is better), 0.02 whether it adds less (less is better). One-sided at alpha.
        winsorize: by column the quantile of control's values, in (0, 1), above which values are
            capped, or a `WinsorRule`. To be fixed before the data is seen.
        segments: columns to break results down by, one at a time. Their results are corrected for
            their number, by Holm unless `correction` says otherwise.
        epoch: column of the allocation epoch. Arms are compared within epochs only, which stays
            right when the allocation changes, as in a ramp.
        correction: for the number of comparisons of all units: "holm", "hommel" or "bh".
        bayes: add chance to beat control and expected loss, for flat priors.

    Raises:
        DataError: the file, a column or a value is not usable; the message names it.
        ConfigError: an option is not usable, or two do not fit together.

    Examples:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({
        ...     "user": range(6), "arm": ["a", "b"] * 3, "spend": [1.0, 2, 2, 4, 3, 6],
        ... })
        >>> report = analyze(frame, unit="user", variant="arm", control="a", metrics=["spend"])
        >>> report.results[0].estimate.difference
        2.0
    """
    check_choice("analyze", "missing", missing, ("error", "exclude", "zero"))
    options = Options(
        kinds=_kinds(metrics),
        ratios=mapping_of("ratios", ratios),  # type: ignore[arg-type]
        covariates=names_of("covariates", covariates),
        margins=mapping_of("margins", margins),  # type: ignore[arg-type]
        winsorize=mapping_of("winsorize", winsorize),  # type: ignore[arg-type]
        segments=names_of("segments", segments),
        epoch=epoch,
        method=method,
        correction=correction,
        bayes=bayes,
        alpha=alpha,
        alternative=alternative,
    )
    columns = Columns(unit, variant, options.numbers(), epoch, options.segments)
    with open_table(data, columns, missing=missing) as table:
        name = _control(control, variant, table.counts)
        srm, expected = checks.split_test(table.epoch_counts(), weights, ramp=epoch is not None)
        rules = _rules(table, options, name)
        cells, facts = table.cells(
            list(dict.fromkeys(map(options.family, options.terms()))),
            {column: (rule.lower, rule.upper) for column, rule in rules.items()},
        )
        repeated, crossed = table.repeats()
    kinds = {metric: _kind(metric, options, facts) for metric in options.terms()}
    found: list[Check] = [
        checks.split_check(srm, table.counts, expected),
        *checks.unit_checks(repeated, crossed),
        *_covariate_checks(options, cells, name, table.counts),
        *checks.cap_checks(rules, {c: facts[c].capped for c in rules}, table.counts),
    ]
    return Report(table.counts, srm, _results(options, kinds, cells, name), tuple(found))


def _kinds(metrics: object) -> dict[str, Any]:
    if isinstance(metrics, Mapping):
        return mapping_of("metrics", metrics)
    return dict.fromkeys(names_of("metrics", metrics))  # type: ignore[arg-type]


def _control(control: object, variant: str, counts: Mapping[str, int]) -> str:
    """Name of the control among the variants, which must be at least two."""
    names = ", ".join(map(repr, counts))
    # Variants are compared as text, the way DuckDB writes them: True is 'true', 1 is '1'.
    name = str(control).lower() if type(control).__name__.startswith("bool") else str(control)
    if name not in counts:
        msg = f"column {variant!r} holds no control {name!r}; it holds {names}"
        raise DataError(msg)
    if len(counts) == 1:
        msg = f"column {variant!r} holds only {names}; a comparison needs a second variant"
        raise DataError(msg)
    return name


def _rules(table: UnitTable, options: Options, control: str) -> dict[str, WinsorRule]:
    """Caps, made from control where they are not given."""
    rules: dict[str, WinsorRule] = {}
    levels: dict[str, float] = {}
    for name, rule in options.winsorize.items():
        if isinstance(rule, WinsorRule):
            rules[name] = rule
        else:
            levels[name] = rule
    caps = table.quantiles(levels, control) if levels else {}
    return rules | {name: WinsorRule(upper=cap, origin="control") for name, cap in caps.items()}


def _kind(name: str, options: Options, facts: Mapping[str, Facts]) -> ResultKind:
    """Kind of a metric; inferred from all values where it was not given."""
    if name in options.ratios:
        return "ratio"
    wanted, fact = options.kinds[name], facts[name]
    if wanted == "proportion" and not fact.binary:
        msg = f"metric {name!r} is a proportion but holds {fact.other!r}; its values must be 0 or 1"
        raise DataError(msg)
    kind = wanted or ("proportion" if fact.binary else "mean")
    if kind == "proportion" and name in options.winsorize:
        raise ConfigError(f"metric {name!r} is a proportion; there is nothing to winsorize")
    return kind


def _results(
    options: Options,
    kinds: Mapping[str, ResultKind],
    cells: Cells,
    control: str,
) -> tuple[Result, ...]:
    """Results of all units, then by segment; each of both is one family of comparisons."""
    found: list[Result] = []
    for by_segment in (False, True):
        results: list[Result] = []
        strata: list[Sequence[Stratum]] = []
        for segment, metric, label, parts in _comparisons(options, cells, control):
            if (segment is not None) == by_segment:
                results.append(
                    compared(
                        metric, kinds[metric], (control, label), parts, options, segment=segment
                    )
                )
                strata.append(parts)
        rule = options.correction or ("holm" if by_segment else None)
        found += correct(results, strata, options, rule) if rule and results else results
    return tuple(found)


def _comparisons(
    options: Options, cells: Cells, control: str
) -> list[tuple[tuple[str, str] | None, str, str, list[Stratum]]]:
    """Segment, metric, treatment and strata of every comparison."""
    keys = next(iter(cells.values()))
    places = dict.fromkeys((key.segment, key.value) for key in keys)
    order = ["", *options.segments]
    variants = sorted({key.variant for key in keys})
    found = []
    for segment, value in sorted(places, key=lambda item: (order.index(item[0]), natural(item[1]))):
        epochs = sorted(
            {key.epoch for key in keys if (key.segment, key.value) == (segment, value)},
            key=natural,
        )
        for metric in options.terms():
            family = options.family(metric)
            inside = {
                (key.variant, key.epoch): cell
                for key, cell in cells[family].items()
                if (key.segment, key.value) == (segment, value)
            }
            none = Comoments.empty(family)
            found += [
                (
                    (segment, value) if segment else None,
                    metric,
                    label,
                    [
                        (e, inside.get((control, e), none), inside.get((label, e), none))
                        for e in epochs
                    ],
                )
                for label in variants
                if label != control
            ]
    return found


def natural(text: str) -> tuple[int, float, str]:
    """Sorts numbers by their value, before other texts.

    Examples:
        >>> sorted(["10", "b", "9", "a"], key=natural)
        ['9', '10', 'a', 'b']
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (1, 0.0, text) if math.isnan(number) else (0, number, text)


def _covariate_checks(
    options: Options, cells: Cells, control: str, counts: Mapping[str, int]
) -> list[Check]:
    """Whether covariates are alike in both arms; within a ramp they need not be."""
    if options.epoch is not None or not options.covariates:
        return []
    family = options.family(next(iter(options.terms())))
    arms = {key.variant: cell for key, cell in cells[family].items() if not key.segment}
    return checks.covariate_checks(
        {
            (name, label): (arms[control].moments(name), arms[label].moments(name))
            for name in options.covariates
            for label in counts
            if label != control
        }
    )
