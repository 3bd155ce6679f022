"""The front door of analysis: from a table and options to a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from abkit.analysis import checks
from abkit.analysis.blocks import overdispersion_checks
from abkit.analysis.compare import compared, correct
from abkit.analysis.designs import follow_of
from abkit.analysis.examine import Examined, examined, probed
from abkit.analysis.fits import check_roles
from abkit.analysis.gather import counted_arms, gather, nobody, split_checks
from abkit.analysis.given import counts_of, margins_of, quantiles_of
from abkit.analysis.kinds import dispersion_checks
from abkit.analysis.logged import analyze_logged, check_table, workspace_of
from abkit.analysis.looks import looked_of, merged
from abkit.analysis.options import Options, mapping_of, names_of
from abkit.analysis.report import Report
from abkit.analysis.rules import explained_by_rule
from abkit.errors import ConfigError, DataError
from abkit.records import check_choice
from abkit.stats.winsor import WinsorRule
from abkit.store.table import Columns, Missing, open_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.compare import Stratum
    from abkit.analysis.gather import Cells
    from abkit.analysis.looks import Looked
    from abkit.analysis.report import Check, Result, ResultKind
    from abkit.estimate import Alternative
    from abkit.metrics import Kind
    from abkit.stats.multiplicity import Method
    from abkit.store.cells import Facts
    from abkit.store.looks import Spacing
    from abkit.store.table import UnitTable


def analyze(
    data: object,
    *,
    unit: str | None = None,
    variant: str | None = None,
    control: str | int | bool | None = None,
    metrics: Sequence[str] | Mapping[str, Kind | None] = (),
    ratios: Mapping[str, tuple[str, str]] | None = None,
    covariates: Sequence[str] = (),
    weights: Mapping[str, Any] | None = None,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    missing: Missing = "error",
    method: str = "pooled_z",
    margins: Mapping[str, float | str] | None = None,
    winsorize: Mapping[str, float | WinsorRule] | None = None,
    segments: Sequence[str] = (),
    epoch: str | None = None,
    correction: Method | Literal["ebh"] | None = None,
    bayes: bool = False,
    quantiles: Mapping[str, float | Sequence[float]] | None = None,
    counts: Sequence[str] | Mapping[str, str | tuple[str, str]] = (),
    cluster: str | None = None,
    paired: bool = False,
    time: str | None = None,
    looks: int | Sequence[object] | None = None,
    spacing: Spacing = "units",
    design: object = None,
    planned_units: int | None = None,
    max_information: float | None = None,
    delivered: str | None = None,
    experiment: str | None = None,
    window: float | str | None = None,
    watermark: object = None,
) -> Report:
    """Compare every variant of a table with its control, at one look or at many.

    Proportions report the pooled z test and the unpooled Wald interval, means Welch's t, ratios
    the delta method; lift is by the delta method too. These hold for one planned look: for data
    that is watched while it comes in, name a design.

    Args:
        data: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table or a
            DuckDB relation, with one row per unit; or a workspace (its folder, `Workspace` or
            `StoreReader`), whose log says what units met and did.
        unit: column of what was randomised; tables need it, and variant and control.
        variant: column of the variant.
        control: value of that column which is the control. In a workspace that of the experiment.
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
            "fisher", "barnard" or "boschloo" (p-value only). Within epochs the usual one
            compares means; "mantel_haenszel", "score_z", "newcombe" and "unpooled_z" go there too.
        margins: border of the null by metric: -0.02 asks whether treatment loses less than 0.02
            (more is better), 0.02 whether it adds less (less is better); "-2%" is a share of
            control's mean. One-sided at alpha.
        winsorize: by column the quantile of control's values, in (0, 1), above which values are
            capped, or a `WinsorRule`. To be fixed before the data is seen.
        segments: columns to break results down by, one at a time. Their results are corrected for
            their number, by Holm unless `correction` says otherwise.
        epoch: column of the allocation epoch. Arms are compared within epochs only, which stays
            right when the allocation changes, as in a ramp.
        correction: for the number of comparisons of all units: "holm", "hommel" or "bh"; "ebh"
            for the e-values of a design.
        bayes: add chance to beat control and expected loss, for flat priors.
        quantiles: by column one level or several, in (0, 1), such as `{"latency_ms": 0.95}`.
        counts: columns of events to compare as Poisson rates, per unit; or by name a column or a
            pair such as `{"error_rate": ("errors", "hours")}`.
        cluster: column of what was randomised, where each row is only a part of it.
        paired: whether each unit has one row in control and one in a treatment, as when both
            models answered it.
        time: column of the time at which a row was complete: timestamps, dates or numbers. With
            looks, the table is looked at several times, as it came in; without, time serves the
            checks alone: calendar, trend and dependence.
        looks: number of looks, or the moments of them. Rows of one moment are seen together.
        spacing: with a number of looks: "units" for as many rows from look to look, "time" for as
            much time.
        design: what makes looks safe: "fixed" (the last look counts alone), "group-sequential",
            "obf", "pocock", "always-valid", "calibrated", "msprt:TAU2", "hypergeometric" (exact,
            for proportions), "counts" (exact, for Poisson counts), or a design of
            `abkit.sequential`. Without a time it answers one look at the whole table.
        planned_units: units of all variants at the planned end. Those in the table by default,
            where nothing but the end depends on it.
        max_information: for group sequential designs, the variance of the contrast at the end.
        delivered: column of what a unit really met, such as the page or model that answered; rows
            in which it does not belong to the variant are counted and block.
        experiment: in a workspace, key of the experiment. Its declared metrics are the default,
            and it is compared within epochs once it has several. A covariate is a metric as it
            was before the unit's exposure.
        window: in a workspace, how long after a unit's first exposure its outcomes count: seconds,
            or a text such as "7d". Only units whose window is over are analysed.
        watermark: time up to which a workspace's log is complete, if you know better: a datetime,
            ISO text or seconds since 1970, in UTC.

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
    given = dict(locals())
    if workspace_of(data) is not None:
        return analyze_logged(analyze, given)
    unit, variant, control = check_table(given)
    check_choice("analyze", "missing", missing, ("error", "exclude", "zero"))
    borders, shares = margins_of(margins)
    options = Options(
        kinds=_kinds(metrics),
        ratios=mapping_of("ratios", ratios),  # type: ignore[arg-type]
        covariates=names_of("covariates", covariates),
        margins=borders,
        winsorize=mapping_of("winsorize", winsorize),  # type: ignore[arg-type]
        segments=names_of("segments", segments),
        epoch=epoch,
        method=method,
        correction=correction,
        bayes=bayes,
        alpha=alpha,
        alternative=alternative,
        follow=follow_of(
            time, looks, spacing, design, planned_units=planned_units, information=max_information
        ),
        quantiles=quantiles_of(quantiles),
        counts=counts_of(counts),
        shares=shares,
        cluster=cluster,
        paired=paired,
    )
    check_roles(unit, variant, options)
    columns = Columns(
        unit, variant, options.numbers(), epoch, options.segments, time, cluster, delivered
    )
    cuts = None if options.follow is None else options.follow.looks
    with open_table(data, columns, missing=missing, looks=cuts) as table:
        name = _control(control, variant, table.counts)
        rules = _rules(table, options, name)
        caps = {column: (rule.lower, rule.upper) for column, rule in rules.items()}
        read = gather(table, options, name, caps)
        cells, facts = read.cells, read.facts
        repeated, crossed = table.repeats()
        seen = probed(table, options, read, caps, delivered)
    splits = split_checks(options, read.counts, weights, table.counts)
    looked = None
    if options.follow is not None:
        looked = looked_of(options.follow, table, cells)
        cells = {family: merged(found) for family, found in cells.items()}
    kinds = {metric: _kind(metric, options, facts) for metric in options.names()}
    found: list[Check] = [
        splits[1],
        *([] if paired else checks.unit_checks(repeated if cluster is None else 0, crossed)),
        *read.checks,
        *dispersion_checks(options.counts, counted_arms(options, cells)),
        *_covariate_checks(options, cells, name, table.counts),
        *checks.cap_checks(rules, {c: facts[c].capped for c in rules}, table.counts),
        *overdispersion_checks(options, cells),
        *checks.late_checks(0 if table.cuts is None else table.cuts.late),
    ]
    results = _results(options, kinds, cells, name, looked)
    shares = (
        {} if splits[0] is None or epoch is not None else checks.shares_of(weights, table.counts)
    )
    doubts = Examined(seen, missing, delivered, shares)
    found += examined(doubts, results, options, read, cells, table.counts)
    return Report(table.counts, splits[0], results, tuple(map(explained_by_rule, found)))


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
    if name in options.counts or name in options.quantiles:
        return "count" if name in options.counts else "quantile"
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
    looked: Looked | None = None,
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
                if looked is not None:
                    results[-1] = looked.follow(results[-1], parts, options)
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
        for metric in options.names():
            family = options.family(metric)
            inside = {
                (key.variant, key.epoch): cell
                for key, cell in cells[family].items()
                if (key.segment, key.value) == (segment, value)
            }
            none = nobody(family, metric, options)
            found += [
                (
                    (segment, value) if segment else None,
                    metric,
                    label,
                    [
                        (
                            e,
                            inside.get((label if options.paired else control, e), none),
                            inside.get((label, e), none),
                        )
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
