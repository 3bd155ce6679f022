"""What a simulation says: designs side by side, a verdict, and its forms."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from scipy import stats

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import plotly.graph_objects as go

    from abkit.estimate import Alternative
    from abkit.planning.streams import Analysis

HEADINGS: Final = (
    "metric",
    "analysis",
    "design",
    "rejects",
    "95 % interval",
    "mean units",
    "median",
    "p90",
)
# A sound method is called broken with at most this probability, all designs together.
FALSE_ALARM: Final = 0.001
INTERVAL: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDesign:
    """One design on one metric.

    Args:
        metric: name.
        analysis: what is taken for independent: "unit", "cluster", or "row" within clusters.
        design: name; "peeking" is the fixed test at every look.
        looks: looks at which it can reject.
        runs: number of simulated runs.
        rejections: runs that reject at some look.
        by_look: share of runs that have rejected by each look.
        mean_units: mean rows of all arms when a run is over.
        median_units: by which half of the runs are over.
        p90_units: by which nine of ten are over.
        judged: whether it promises its alpha here; peeking, and rows of clusters, do not.
    """

    metric: str
    analysis: Analysis
    design: str
    looks: int
    runs: int
    rejections: int
    by_look: tuple[float, ...]
    mean_units: float
    median_units: float
    p90_units: float
    judged: bool

    @property
    def rate(self) -> float:
        """Share of runs that reject."""
        return self.rejections / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """Exact interval of the rate (Clopper, Pearson 1934) at 95 %."""
        return exact_interval(self.rejections, self.runs)

    def is_above(self, alpha: float, tests: int = 1) -> bool:
        """Whether the rate is above alpha beyond chance (exact binomial test).

        Args:
            alpha: that was promised.
            tests: number of such questions, which share the chance of a false alarm.
        """
        return float(stats.binom.sf(self.rejections - 1, self.runs, alpha)) < FALSE_ALARM / tests


@dataclass(frozen=True, slots=True, kw_only=True)
class PValues:
    """p-values of the fixed test at the end, over all runs.

    Args:
        metric: name.
        analysis: as in `SimulatedDesign`.
        values: sorted.
        ks_statistic: largest distance of their distribution from the uniform one.
        ks_p_value: of Kolmogorov and Smirnov's test of that.
    """

    metric: str
    analysis: Analysis
    values: tuple[float, ...]
    ks_statistic: float
    ks_p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """What a simulation found.

    Args:
        mode: "aa" without an effect, "power" with one.
        alpha: promised.
        alternative: side of the tests.
        share: of treatment.
        units: rows that were randomised.
        groups: units, or clusters, that were assigned one by one.
        clustered: whether clusters were.
        information: rows up to each look.
        effects: true difference of each metric, in its unit; 0.0 without an effect.
        designs: one for each metric, analysis and design.
        p_values: one for each metric and analysis.
        srm_alpha: level of the test of the split.
        srm_alarms: runs in which it rejected, wrongly.
        runs: number of runs.
        seed: of the random numbers.
        notes: what was done with the data.
    """

    mode: Literal["aa", "power"]
    alpha: float
    alternative: Alternative
    share: float
    units: int
    groups: int
    clustered: bool
    information: tuple[int, ...]
    effects: tuple[tuple[str, float], ...]
    designs: tuple[SimulatedDesign, ...]
    p_values: tuple[PValues, ...]
    srm_alpha: float
    srm_alarms: int
    runs: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[SimulatedDesign, ...]:
        """Designs whose false positives are above alpha beyond chance, though they promise it."""
        if self.mode != "aa":
            return ()
        judged = [item for item in self.designs if item.judged]
        return tuple(item for item in judged if item.is_above(self.alpha, len(judged)))

    @property
    def passed(self) -> bool:
        """Whether every design that promises alpha keeps it, as far as these runs can tell."""
        return not self.broken

    @property
    def verdict(self) -> str:
        """What it means, in plain words."""
        return " ".join(_aa_words(self) if self.mode == "aa" else _power_words(self))

    def design(
        self, name: str, *, metric: str | None = None, analysis: Analysis | None = None
    ) -> SimulatedDesign:
        """The first of a design, of a metric and analysis where they are named.

        Raises:
            KeyError: there is none.
        """
        for item in self.designs:
            if (
                item.design == name
                and metric in (None, item.metric)
                and analysis in (None, item.analysis)
            ):
                return item
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data at full precision; p-values as counts in twenty equal bins."""
        special = ("designs", "p_values", "effects", "notes", "information")
        found: dict[str, Any] = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in special
        }
        return found | {
            "information": list(self.information),
            "effects": dict(self.effects),
            "designs": [_row(item) for item in self.designs],
            "p_values": [
                {
                    "metric": item.metric,
                    "analysis": item.analysis,
                    "bins": histogram(item.values),
                    "ks_statistic": item.ks_statistic,
                    "ks_p_value": item.ks_p_value,
                }
                for item in self.p_values
            ],
            "srm_interval": list(exact_interval(self.srm_alarms, self.runs)),
            "notes": list(self.notes),
            "passed": self.passed,
            "verdict": self.verdict,
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """One row per metric, analysis and design."""
        import pandas as pd  # noqa: PLC0415 - a second to import; not needed for the rest

        return pd.DataFrame([_row(item) for item in self.designs])

    def plot(
        self, *, theme: Literal["light", "dark"] = "light", path: str | Path | None = None
    ) -> list[go.Figure]:
        """Rejections over looks, and p-values against the uniform distribution.

        Args:
            theme: "light" or "dark".
            path: also write an HTML page with them there.

        Returns:
            The figure of the looks, then one of p-values for each metric and analysis.
        """
        from abkit.plots.planning import (  # noqa: PLC0415 - needs plotly
            p_value_figure,
            rejection_figure,
            write_page,
        )

        metrics = dict.fromkeys((item.metric, item.analysis) for item in self.designs)
        figures = [
            rejection_figure(self, metric, analysis, theme=theme) for metric, analysis in metrics
        ]
        if self.mode == "aa":
            figures += [p_value_figure(item, theme=theme) for item in self.p_values]
        if path is not None:
            write_page(path, figures, theme=theme)
        return figures

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEADINGS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in table_rows(self)
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{html.escape(self.verdict)}</p>"
        )


def exact_interval(successes: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a rate at 95 %.

    Examples:
        >>> low, high = exact_interval(10, 100)  # R: binom.test(10, 100)
        >>> round(low, 7), round(high, 7)
        (0.0490047, 0.1762226)
    """
    tail = (1 - INTERVAL) / 2
    low = float(stats.beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.isf(tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def histogram(values: tuple[float, ...], bins: int = 20) -> list[int]:
    """Counts of p-values in equal bins of [0, 1]."""
    found = [0] * bins
    for value in values:
        found[min(int(value * bins), bins - 1)] += 1
    return found


def table_rows(report: SimulationReport) -> list[tuple[str, ...]]:
    """The cells of each design, in the order of `HEADINGS`."""
    found: list[tuple[str, ...]] = []
    for item in report.designs:
        low, high = item.interval
        found.append(
            (
                item.metric,
                item.analysis,
                item.design,
                f"{item.rate:.2%}",
                f"{low:.2%} to {high:.2%}",
                f"{item.mean_units:,.0f}",
                f"{item.median_units:,.0f}",
                f"{item.p90_units:,.0f}",
            )
        )
    return found


def _name(item: SimulatedDesign) -> str:
    where = "" if item.analysis == "unit" else f" by {item.analysis}"
    return f"{item.design!r} on {item.metric}{where}"


def _rate(item: SimulatedDesign) -> str:
    low, high = item.interval
    return f"{item.rate:.1%} ({low:.1%} to {high:.1%})"


def _aa_words(report: SimulationReport) -> list[str]:
    promised = f"{report.alpha:.4%}".rstrip("0%").rstrip(".") + "%"
    found = []
    if report.broken:
        listed = "; ".join(f"{_name(item)} {_rate(item)}" for item in report.broken)
        found.append(
            f"Do not use this: without any effect more than {promised} of the runs reject: "
            f"{listed}."
        )
        found.append("Look for skewed values, units that depend on one another, or few events.")
    else:
        judged = [item for item in report.designs if item.judged]
        if judged:
            worst = max(judged, key=lambda item: item.rate)
            found.append(
                f"Sound: without any effect no design rejects more than {promised} of "
                f"{report.runs:,} runs beyond chance; the most are {_rate(worst)} by "
                f"{_name(worst)}."
            )
    found += [
        f"Analysing rows of {item.metric} where clusters were randomised rejects {_rate(item)}: "
        "take the cluster as the unit."
        for item in report.designs
        if item.analysis == "row" and item.design == "fixed" and item.is_above(report.alpha)
    ]
    found += [
        f"Looking {len(report.information):,} times at {item.metric} with the fixed test rejects "
        f"{_rate(item)}."
        for item in report.designs
        if item.design == "peeking" and item.analysis != "row"
    ]
    odd = [item for item in report.p_values if item.analysis != "row" and item.ks_p_value < 0.001]
    found += [
        f"The p-values of {item.metric} are not uniform (distance {item.ks_statistic:.3f}): "
        "few different values, or a test that fits them badly."
        for item in odd
    ]
    low, high = exact_interval(report.srm_alarms, report.runs)
    found.append(
        f"The split was called wrong in {report.srm_alarms / report.runs:.2%} of the runs "
        f"({low:.2%} to {high:.2%}; {report.srm_alpha:.2%} is right)."
    )
    return found


def _power_words(report: SimulationReport) -> list[str]:
    found = []
    for metric, effect in report.effects:
        judged = [item for item in report.designs if item.judged and item.metric == metric]
        if not judged:
            continue
        best = max(judged, key=lambda item: item.rate)
        fast = min(judged, key=lambda item: item.mean_units)
        text = (
            f"A difference of {effect:+.4g} in {metric} is found most often by {best.design!r}, in "
            f"{_rate(best)} of {report.runs:,} runs"
        )
        if fast is not best:
            text += f", and soonest by {fast.design!r}: {_rate(fast)}"
        found.append(f"{text}, after {fast.mean_units:,.0f} of {report.units:,} units on average.")
    return found


def _row(item: SimulatedDesign) -> dict[str, Any]:
    row = asdict(item)
    row["by_look"] = list(item.by_look)
    low, high = item.interval
    return row | {"rate": item.rate, "interval_lower": low, "interval_upper": high}
