"""What an analysis returns, and its forms: plain data, JSON, a frame, HTML, words."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from abkit.analysis.display import HEADINGS, SEGMENT_HEADINGS, segment_rows, table_rows
from abkit.analysis.words import explained
from abkit.estimate import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from abkit.estimate import BalanceTest, Estimate
    from abkit.stats.bayes import Posterior

Severity = Literal["info", "warn", "block"]
ResultKind = Literal["proportion", "mean", "ratio"]


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
class EpochWeight:
    """How much one allocation epoch counts in a stratified result.

    Args:
        epoch: value of the epoch's column.
        n_control: units of control in it.
        n_treatment: units of treatment in it.
        weight: its share of the result, in [0, 1]; 0 where an arm has fewer than two units.
    """

    epoch: str
    n_control: int
    n_treatment: int
    weight: float


@dataclass(frozen=True, slots=True)
class Result:
    """One metric of one treatment against control.

    Args:
        metric: column of the metric, or name of the ratio.
        kind: "proportion", "mean" or "ratio".
        variant: the treatment.
        control: the control.
        estimate: the comparison; its p-value and interval are corrected where `correction` is set.
        segment: column and value of the segment; None for all units.
        epochs: weight of each epoch, where the comparison is made within epochs.
        correction: "holm", "hommel" or "bh", if p-value and interval are corrected by it.
        raw_p_value: the p-value before the correction.
        posterior: chance to beat control and expected loss, if they were asked for.
        level: error probability that was asked for; `estimate.alpha` is that of the interval.
    """

    metric: str
    kind: ResultKind
    variant: str
    control: str
    estimate: Estimate
    segment: tuple[str, str] | None = None
    epochs: tuple[EpochWeight, ...] = ()
    correction: str | None = None
    raw_p_value: float | None = None
    posterior: Posterior | None = None
    level: float = 0.05


@dataclass(frozen=True, slots=True)
class Report:
    """What an analysis found.

    Args:
        variants: units per variant.
        srm: test of the split; None where the intended split is not known, as in a ramp.
        results: one per metric and treatment, then those of segments.
        checks: what was looked at before believing the results.
    """

    variants: Mapping[str, int]
    srm: BalanceTest | None
    results: tuple[Result, ...]
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data at full precision; an infinite end of an interval is None.

        A result has the keys "segment", "epochs", "correction", "margin", "variance_reduction"
        and "bayes" only where the options of the analysis make them.
        """
        srm = self.srm
        return {
            "variants": {name: {"n": n} for name, n in self.variants.items()},
            "srm": None
            if srm is None
            else {
                "statistic": srm.statistic,
                "p_value": srm.p_value,
                "e_value": srm.e_value,
                "status": srm.status,
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
        """One row per metric and treatment, and per segment."""
        import pandas as pd  # noqa: PLC0415 - a second to import; not needed for the rest

        return pd.DataFrame([_flat(_result_dict(item)) for item in self.results])

    def explain(self) -> str:
        """The report in plain words: what was compared, what is known, how well, what to do."""
        return explained(self)

    def _repr_html_(self) -> str:
        tables = _html_table(HEADINGS, table_rows(self))
        parts = segment_rows(self)
        if parts:
            tables += _html_table(SEGMENT_HEADINGS, parts)
        notes = "".join(
            f"<li>{html.escape(f'{item.severity}: {item.text}')}</li>" for item in self.checks
        )
        return f"{tables}<ul>{notes}</ul>"


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _result_dict(item: Result) -> dict[str, Any]:
    e = item.estimate
    found: dict[str, Any] = {
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
    if item.segment is not None:
        found["segment"] = {"column": item.segment[0], "value": item.segment[1]}
    if item.epochs:
        found["epochs"] = [
            {name: getattr(epoch, name) for name in EpochWeight.__dataclass_fields__}
            for epoch in item.epochs
        ]
    if item.correction is not None:
        found["correction"] = {"method": item.correction, "raw_p_value": item.raw_p_value}
    if e.margin is not None:
        found["margin"] = _ends(e.margin) if isinstance(e.margin, Interval) else e.margin
    if e.variance_reduction is not None:
        found["variance_reduction"] = e.variance_reduction
    if item.posterior is not None:
        found["bayes"] = _posterior_dict(item.posterior)
    return found


def _posterior_dict(posterior: Posterior) -> dict[str, Any]:
    return {
        "method": posterior.method,
        "guarantee": posterior.guarantee,
        "status": posterior.status,
        "chance_to_beat": posterior.chance_to_beat,
        "loss_treatment": posterior.loss_treatment,
        "loss_control": posterior.loss_control,
        "interval": _ends(posterior.interval),
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A result without nested values, for a row of a frame."""
    interval, lift = row.pop("interval"), row.pop("lift")
    row["interval_lower"], row["interval_upper"] = interval
    row["lift"] = lift["value"]
    row["lift_lower"], row["lift_upper"] = lift["interval"]
    if "segment" in row:
        segment = row.pop("segment")
        row["segment"], row["segment_value"] = segment["column"], segment["value"]
    if "epochs" in row:
        row["epochs"] = len(row["epochs"])
    if "correction" in row:
        correction = row.pop("correction")
        row["correction"], row["raw_p_value"] = correction["method"], correction["raw_p_value"]
    if "bayes" in row:
        bayes = row.pop("bayes")
        row |= {name: bayes[name] for name in ("chance_to_beat", "loss_treatment", "loss_control")}
    return row


def _ends(interval: Interval | None) -> list[float | None]:
    if interval is None:
        return [None, None]
    return [x if math.isfinite(x) else None for x in (interval.lower, interval.upper)]
