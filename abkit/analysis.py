"""`analyze`: a table of units -> a report that says what is known and how well.

Statistics come from `stats`, tables are read by `store`; this module joins the two and keeps
no numbers of its own.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from abkit.errors import ConfigError, DataError
from abkit.moments import Moments
from abkit.records import check_choice, check_fraction, is_number
from abkit.stats.difference import welch_t
from abkit.stats.proportion import two_proportions
from abkit.stats.srm import balance_test
from abkit.store.table import Missing, read_table

if TYPE_CHECKING:
    import pandas as pd

    from abkit.estimate import Alternative, BalanceTest, Estimate, Interval
    from abkit.metrics import Kind

Severity = Literal["info", "warn", "block"]
SHARE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Check:
    """A look at whether the data can be trusted.

    Args:
        id: name of the check.
        severity: "info" if all is well, "warn", or "block" if no decision should rest on it.
        text: what was found, with the numbers, and what to do.
    """

    id: str
    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """One metric of one treatment against control.

    Args:
        metric: column of the metric.
        kind: "proportion" or "mean".
        variant: the treatment.
        control: the control.
        estimate: the comparison.
    """

    metric: str
    kind: Kind
    variant: str
    control: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Report:
    """What an analysis found.

    Args:
        variants: units per variant.
        srm: test of the split; None if there is a single variant.
        results: one per metric and treatment.
        checks: what was looked at before believing the results.
    """

    variants: Mapping[str, int]
    srm: BalanceTest
    results: tuple[Result, ...]
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data at full precision; an infinite end of an interval is None."""
        return {
            "variants": {name: {"n": n} for name, n in self.variants.items()},
            "srm": {
                "statistic": self.srm.statistic,
                "p_value": self.srm.p_value,
                "e_value": self.srm.e_value,
                "status": self.srm.status,
            },
            "results": [_result_dict(item) for item in self.results],
            "checks": [
                {"id": item.id, "severity": item.severity, "text": item.text}
                for item in self.checks
            ],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """One row per metric and treatment."""
        import pandas as pd  # noqa: PLC0415 - a second to import; not needed for the rest

        rows = []
        for item in self.results:
            row = _result_dict(item)
            interval, lift = row.pop("interval"), row.pop("lift")
            row["interval_lower"], row["interval_upper"] = interval
            row["lift"] = lift["value"]
            row["lift_lower"], row["lift_upper"] = lift["interval"]
            rows.append(row)
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEADINGS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in table_rows(self)
        )
        notes = "".join(
            f"<li>{html.escape(f'{item.severity}: {item.text}')}</li>" for item in self.checks
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{notes}</ul>"


HEADINGS = (
    "metric",
    "variant",
    "control",
    "treatment",
    "difference",
    "interval",
    "lift",
    "p-value",
)


def table_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells of a report, formatted for reading, one row per result."""
    return [_cells(item) for item in report.results]


def analyze(
    data: object,
    *,
    unit: str,
    variant: str,
    control: str | int | bool,
    metrics: Sequence[str] | Mapping[str, Kind | None],
    weights: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    missing: Missing = "error",
) -> Report:
    """Compare every variant of a table with its control, at one look.

    Proportions report the pooled z test and the unpooled Wald interval, means Welch's t; lift is
    by the delta method. These hold for one planned look: for data that is watched while it
    comes in, use a rollout, whose tests may be looked at any time.

    Args:
        data: path of a CSV, Parquet or JSON file, a pandas or polars frame, an Arrow table or a
            DuckDB relation, with one row per unit.
        unit: column of what was randomised.
        variant: column of the variant.
        control: value of that column which is the control.
        metrics: columns to compare; as a mapping, with their kind ("proportion", "mean", or
            None to infer it from the values).
        weights: intended split, as whole-number ratios (1:1) or shares that sum to 1; even by
            default.
        alpha: error probability of the intervals, in (0, 1).
        alternative: side of the test, "two-sided", "greater" or "less".
        missing: what to do with rows without a value: raise, leave out, or count as 0.

    Raises:
        DataError: the file, a column or a value is not usable; the message names it.
        ConfigError: alpha, alternative, missing or the weights are not usable.

    Examples:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({
        ...     "user": range(6), "arm": ["a", "b"] * 3, "spend": [1.0, 2, 2, 4, 3, 6],
        ... })
        >>> report = analyze(frame, unit="user", variant="arm", control="a", metrics=["spend"])
        >>> report.results[0].estimate.difference
        2.0
    """
    check_fraction("analyze", "alpha", alpha)
    check_choice("analyze", "alternative", alternative, ("two-sided", "greater", "less"))
    check_choice("analyze", "missing", missing, ("error", "exclude", "zero"))
    kinds = dict(metrics) if isinstance(metrics, Mapping) else dict.fromkeys(metrics)
    for name, kind in kinds.items():
        if kind is not None:
            check_choice(f"metric {name!r}", "kind", kind, ("proportion", "mean"))
    table = read_table(data, unit=unit, variant=variant, metrics=kinds, missing=missing)
    names = ", ".join(map(repr, table.counts))
    # Variants are compared as text, the way DuckDB writes them: True is 'true', 1 is '1'.
    control = str(control).lower() if type(control).__name__.startswith("bool") else str(control)
    if control not in table.counts:
        msg = f"column {variant!r} holds no control {control!r}; it holds {names}"
        raise DataError(msg)
    if len(table.counts) == 1:
        msg = f"column {variant!r} holds only {names}; a comparison needs a second variant"
        raise DataError(msg)
    shares = checked_weights(weights, table.counts)
    srm = balance_test(table.counts, shares)
    none = Moments()
    results = tuple(
        Result(
            name,
            table.kinds[name],
            label,
            control,
            compare(
                table.kinds[name],
                table.moments[name].get(control, none),
                table.moments[name].get(label, none),
                alpha=alpha,
                alternative=alternative,
            ),
        )
        for name in kinds
        for label in table.counts
        if label != control
    )
    checks = _checks(srm, table.counts, shares, table.repeated_units, table.crossover_units)
    return Report(table.counts, srm, results, checks)


def compare(
    kind: Kind, control: Moments, treatment: Moments, *, alpha: float, alternative: Alternative
) -> Estimate:
    """The standard test for one look: pooled z for proportions, Welch's t for means."""
    test = two_proportions if kind == "proportion" else welch_t
    return test(control, treatment, alpha=alpha, alternative=alternative)


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


def _checks(
    srm: BalanceTest,
    counts: Mapping[str, int],
    shares: Mapping[str, float],
    repeated: int,
    crossed: int,
) -> tuple[Check, ...]:
    total = sum(counts.values())
    split = ", ".join(
        f"{n:,} {name} (expected {shares[name] * total:,.0f})" for name, n in counts.items()
    )
    found = f"{split}: e-value {srm.e_value:.3g}, chi-square p {srm.p_value:.3g}"
    advice = {
        "ok": "the split is what was intended",
        "warn": "the split looks off; find out why before deciding",
        "block": "the split is not what was intended; units are missing or misassigned, and the "
        "comparison cannot be trusted",
    }[srm.status]
    severity: Severity = "info" if srm.status == "ok" else srm.status
    checks = [Check("sample_ratio_mismatch", severity, f"{found}; {advice}")]
    if crossed:
        checks.append(
            Check(
                "crossover_units",
                "block",
                f"{crossed:,} units stand in more than one variant; "
                "drop them, or keep their first row",
            )
        )
    if repeated:
        checks.append(
            Check(
                "repeated_units",
                "warn",
                f"{repeated:,} units stand in more than one row, and rows of one unit are not "
                "independent; aggregate to one row per unit",
            )
        )
    return tuple(checks)


def _result_dict(item: Result) -> dict[str, Any]:
    e = item.estimate
    return {
        "metric": item.metric,
        "kind": item.kind,
        "variant": item.variant,
        "control": item.control,
        "method": e.method,
        "guarantee": e.guarantee,
        "alpha": e.alpha,
        "alternative": e.alternative,
        "status": e.status,
        "n_treatment": e.n_treatment,
        "n_control": e.n_control,
        "mean_treatment": e.mean_treatment,
        "mean_control": e.mean_control,
        "difference": e.difference,
        "standard_error": e.standard_error,
        "interval": _ends(e.interval),
        "statistic": e.statistic,
        "p_value": e.p_value,
        "lift": {"value": e.lift, "interval": _ends(e.lift_interval)},
    }


def _ends(interval: Interval | None) -> list[float | None]:
    if interval is None:
        return [None, None]
    return [x if math.isfinite(x) else None for x in (interval.lower, interval.upper)]


def _cells(item: Result) -> tuple[str, ...]:
    e = item.estimate
    points = item.kind == "proportion"
    return (
        item.metric,
        item.variant,
        _value(e.mean_control, "%" if points else ""),
        _value(e.mean_treatment, "%" if points else ""),
        _value(e.difference, "pp" if points else "", signed=True),
        _span(e.interval, 100 if points else 1),
        _value(e.lift, "%", signed=True),
        e.status if e.p_value is None else f"{e.p_value:.3g}",
    )


def _value(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A number for reading; "%" and "pp" (percentage points) are hundredths."""
    if value is None:
        return ""
    return (
        f"{_number(100 * value, signed=signed)} {unit}" if unit else _number(value, signed=signed)
    )


def _span(interval: Interval | None, scale: float) -> str:
    if interval is None:
        return ""
    lower, upper = (
        _number(scale * x, signed=True) if math.isfinite(x) else ("−∞" if x < 0 else "+∞")
        for x in (interval.lower, interval.upper)
    )
    return f"{lower} to {upper}"


def _number(value: float, *, signed: bool = False) -> str:
    """Four significant digits at most, two decimals at least where that is shorter."""
    digits = 2 if abs(value) >= 0.1 or value == 0 else 5
    text = (
        f"{value:{'+' if signed else ''},.{digits}f}"
        if abs(value) >= 1e-4 or value == 0
        else f"{value:{'+' if signed else ''}.2e}"
    )
    return text.replace("-", "−")
