"""What an analysis returns, and its forms: plain data, JSON, a frame, HTML, words."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from abkit.analysis.page import page_of
from abkit.analysis.words import explained
from abkit.check import Check, Severity
from abkit.estimate import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import plotly.graph_objects as go

    from abkit.analysis.timed import TimedLook
    from abkit.estimate import BalanceTest, Estimate
    from abkit.plots.frame import Theme
    from abkit.sequential.design import Verdict
    from abkit.stats.bayes import Posterior

__all__ = ["Check", "EpochWeight", "Report", "Result", "ResultKind", "Severity"]

ResultKind = Literal["proportion", "mean", "ratio", "quantile", "count"]


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
        kind: "proportion", "mean", "ratio", "quantile" or "count".
        variant: the treatment.
        control: the control.
        estimate: the comparison; its p-value and interval are corrected where `correction` is set.
        segment: column and value of the segment; None for all units.
        epochs: weight of each epoch, where the comparison is made within epochs.
        correction: "holm", "hommel", "bh" or "ebh", if p-value and interval are corrected by it.
        raw_p_value: the p-value before the correction.
        posterior: chance to beat control and expected loss, if they were asked for.
        level: error probability that was asked for; `estimate.alpha` is that of the interval.
        design: name of the sequential design, if one was asked for.
        looks: what the design said at each look.
        notes: what a reader of the design's answer must know, one sentence each.
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
    design: str | None = None
    looks: tuple[TimedLook, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rejected(self) -> bool:
        """Whether the null is rejected at the level that was asked for."""
        if self.looks and self.correction is None:
            return self.decision == "reject"
        p = self.estimate.p_value
        return p is not None and p <= self.level

    @property
    def decision(self) -> Verdict | None:
        """What the design decided by the last look, before a correction; None without a design."""
        return self.looks[-1].look.decision if self.looks else None

    @property
    def stopped(self) -> TimedLook | None:
        """The first look at which the design decided; None while it goes on."""
        if self.decision in (None, "continue"):
            return None
        return next(item for item in self.looks if item.look.decision == self.decision)


@dataclass(frozen=True, slots=True)
class Report:
    """What an analysis found.

    Args:
        variants: units per variant.
        srm: test of the split; None where the intended split is not known, as in a ramp.
        results: one per metric and treatment, then those of segments.
        checks: what was looked at before believing the results.
        log: of a workspace: experiment, epochs, watermark, window, units and metrics.
    """

    variants: Mapping[str, int]
    srm: BalanceTest | None
    results: tuple[Result, ...]
    checks: tuple[Check, ...]
    log: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data at full precision; an infinite end of an interval is None.

        With a design, a result has "design", "decision", "stopped", "e_value", "looks" and "notes".
        A result has the keys "segment", "epochs", "correction", "margin", "variance_reduction"
        and "bayes" only where the options of the analysis make them, and "scale" where difference,
        interval and margin are not in the metric's unit ("relative": shares of control's mean).
        "decision" and "stopped" are the design's own, before a correction. The analysis of a
        workspace adds "log": experiment, epochs, watermark, window, units and metrics.
        """
        srm = self.srm
        found = {
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
            "checks": [item.to_dict() for item in self.checks],
        }
        return found if self.log is None else found | {"log": dict(self.log)}

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

    def plot(
        self, metric: str | None = None, *, variant: str | None = None, theme: Theme = "light"
    ) -> go.Figure:
        """A plotly figure: the intervals of all comparisons, or one of them look by look.

        Args:
            metric: one metric only; all by default.
            variant: one treatment only; all by default.
            theme: "light" or "dark".

        Raises:
            DataError: the report has no such metric or treatment.
            MissingExtraError: plotly is not installed.
        """
        from abkit.plots.report import report_figure  # noqa: PLC0415 - plotly, for figures alone

        return report_figure(self, metric, variant=variant, theme=theme)

    def _repr_html_(self) -> str:
        return page_of(self)


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
    if e.scale != "absolute":
        found["scale"] = e.scale
    if e.margin is not None:
        found["margin"] = _ends(e.margin) if isinstance(e.margin, Interval) else e.margin
    if e.variance_reduction is not None:
        found["variance_reduction"] = e.variance_reduction
    if item.posterior is not None:
        found["bayes"] = _posterior_dict(item.posterior)
    return found | _design_dict(item)


def _design_dict(item: Result) -> dict[str, Any]:
    """What a design adds."""
    if item.design is None:
        return {}
    stopped = item.stopped
    return {
        "design": item.design,
        "decision": item.decision,
        "stopped": None if stopped is None else {"look": stopped.number, "time": stopped.moment},
        "e_value": item.estimate.e_value,
        "looks": [look.to_dict() for look in item.looks],
        "notes": list(item.notes),
    }


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
    if "design" in row:
        stopped, looks, notes = row.pop("stopped"), row.pop("looks"), row.pop("notes")
        row |= {"looks": len(looks), "notes": "; ".join(notes)}
        row["stopped_look"] = None if stopped is None else stopped["look"]
        row["stopped_time"] = None if stopped is None else stopped["time"]
    if "bayes" in row:
        bayes = row.pop("bayes")
        row |= {name: bayes[name] for name in ("chance_to_beat", "loss_treatment", "loss_control")}
    return row


def _ends(interval: Interval | None) -> list[float | None]:
    if interval is None:
        return [None, None]
    return [x if math.isfinite(x) else None for x in (interval.lower, interval.upper)]
