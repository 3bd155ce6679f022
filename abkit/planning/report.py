"""What a plan says: designs side by side, a recommendation, and its forms."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from abkit.records import counted

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import plotly.graph_objects as go

    from abkit.estimate import Alternative, Guarantee, Status

Wanted = Literal["units", "power", "effect"]

HEADINGS = (
    "design",
    "looks",
    "units at the end",
    "mean, no effect",
    "mean, effect",
    "median",
    "p90",
    "effect",
    "power",
    "false positives",
    "days",
)
_MINUS = "\N{MINUS SIGN}"
_HOPELESS = 0.5  # power; below, a test misses more than it finds


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignPlan:
    """One design for one question.

    Args:
        design: name, as in `abkit.sequential.names.DESIGNS`.
        guarantee: what holds, and when.
        alpha: error probability of one comparison.
        alternative: side of the test.
        looks: number of looks, evenly spaced.
        status: "ok", or "undefined" where no number of units, or no effect, is enough.
        units: of all arms at the end, if nothing stops the test before.
        arm_units: of each arm at the end, control first.
        planned_units: what the design is to be given as its planned units; None where it has none.
        power: chance to reject by the end, to the side of the effect.
        power_error: Monte Carlo standard error of `power`; 0.0 where it is exact.
        false_positives: chance to reject by the end without an effect (on the margin).
        difference: treatment minus control that is looked for, in the metric's unit.
        lift: the same relative to control; None without a control mean.
        mean_units_null: mean units of all arms at the stop without an effect.
        mean_units: the same at the effect.
        mean_units_error: Monte Carlo standard error of it; 0.0 where it is exact.
        median_units: by which half of the runs at the effect are over.
        p90_units: by which nine of ten are over.
        days: whole days to the end; None without units a day.
        mean_days: mean of the days at the effect.
        note: what a reader must know, or "".
    """

    design: str
    guarantee: Guarantee
    alpha: float
    alternative: Alternative
    looks: int
    status: Status
    units: int = 0
    arm_units: tuple[int, ...] = ()
    planned_units: int | None = None
    power: float | None = None
    power_error: float = 0.0
    false_positives: float | None = None
    difference: float | None = None
    lift: float | None = None
    mean_units_null: float | None = None
    mean_units: float | None = None
    mean_units_error: float = 0.0
    median_units: float | None = None
    p90_units: float | None = None
    days: int | None = None
    mean_days: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """Designs side by side.

    Args:
        wanted: what was computed: "units", "power" or "effect".
        kind: "proportion" or "mean".
        baseline: mean of control; None where it was not given.
        sd: standard deviation of one unit, in the metric's unit.
        variance_reduction: share of the variance that covariates explain.
        alpha: error probability of all comparisons together.
        alternative: side of the test.
        margin: difference on the border of the null, in the metric's unit; None for 0.
        shares: of the arms, control first; they sum to 1.
        units_per_day: of all arms together; None where it was not given.
        designs: one for each design asked for.
        notes: what was taken from the history, and what to know of it.
    """

    wanted: Wanted
    kind: Literal["proportion", "mean"]
    baseline: float | None
    sd: float
    variance_reduction: float
    alpha: float
    alternative: Alternative
    margin: float | None
    shares: tuple[float, ...]
    units_per_day: float | None
    designs: tuple[DesignPlan, ...]
    notes: tuple[str, ...] = ()

    def design(self, name: str) -> DesignPlan:
        """The plan of a design, by its name.

        Raises:
            KeyError: it was not asked for.
        """
        return {item.design: item for item in self.designs}[name]

    @property
    def recommended(self) -> DesignPlan | None:
        """The design with the fewest mean units, without and with the effect together.

        Only designs within half a point of the best power, or two hundredths of the smallest
        effect, are compared; where no design has an answer, None.
        """
        answered = [item for item in self.designs if item.status == "ok"]
        if not answered:
            return None
        best = max(item.power or 0.0 for item in answered)
        least = min(abs(item.difference or 0.0) for item in answered)
        near = [
            item
            for item in answered
            if (item.power or 0.0) >= best - 0.005
            and abs(item.difference or 0.0) <= 1.02 * least + 1e-12
        ]
        if self.wanted == "units" or not near:
            near = answered
        return min(near, key=lambda item: (item.mean_units or 0.0) + (item.mean_units_null or 0.0))

    @property
    def recommendation(self) -> str:
        """The recommendation in a plain sentence or two."""
        best = self.recommended
        if best is None:
            return (
                "No design finds this: look for a larger effect, accept less power, or reduce the "
                "variance."
            )
        days = "" if best.days is None else f" ({counted(best.days, 'day')})"
        if self.wanted == "power" and (best.power or 0.0) < _HOPELESS:
            return (
                f"Too few: {best.units:,} units{days} find {effect_text(self, best)} with "
                f"probability {max(item.power or 0.0 for item in self.designs):.3f} at most. Take "
                "more units, or look for a larger effect."
            )
        mean = f"{best.mean_units or 0:,.0f} units"
        if best.mean_days is not None:
            mean += f" ({best.mean_days:.1f} days)"
        text = (
            f"Take {best.design!r}: at most {best.units:,} units{days}; it finds "
            f"{effect_text(self, best)} with probability {best.power or 0:.3f}"
        )
        if best.looks > 1:
            text += (
                f", and then stops after {mean} on average, or after "
                f"{best.mean_units_null or 0:,.0f} where there is nothing to find"
            )
        return f"{text}. {_PROMISES[best.guarantee]}{self._sooner(best)}"

    def _sooner(self, best: DesignPlan) -> str:
        """The design that stops sooner where there is an effect, if its price is another one's."""
        others = [item for item in self.designs if item.status == "ok" and item.mean_units]
        fast = min(others, key=lambda item: item.mean_units or 0.0, default=best)
        enough = (fast.power or 0.0) >= (best.power or 0.0) - 0.005
        if not enough or (fast.mean_units or 0.0) >= 0.98 * (best.mean_units or 0.0):
            return ""
        return (
            f" Sooner where there is an effect is {fast.design!r}, after {fast.mean_units:,.0f} "
            f"units on average; where there is none it takes {fast.mean_units_null or 0:,.0f}, at "
            f"most {fast.units:,}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data at full precision."""
        found: dict[str, Any] = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name != "designs"
        }
        best = self.recommended
        found |= {
            "shares": list(self.shares),
            "notes": list(self.notes),
            "designs": [_row(item) for item in self.designs],
            "recommended": None if best is None else best.design,
            "recommendation": self.recommendation,
        }
        return found

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """One row per design."""
        import pandas as pd  # noqa: PLC0415 - a second to import; not needed for the rest

        return pd.DataFrame([_row(item) | {"arm_units": item.arm_units} for item in self.designs])

    def plot(
        self, *, theme: Literal["light", "dark"] = "light", path: str | Path | None = None
    ) -> go.Figure:
        """Units of each design: at the end, and at the stop without and with the effect.

        Args:
            theme: "light" or "dark".
            path: also write an HTML page there.
        """
        from abkit.plots.planning import plan_figure, write_page  # noqa: PLC0415 - needs plotly

        figure = plan_figure(self, theme=theme)
        if path is not None:
            write_page(path, [figure], theme=theme)
        return figure

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEADINGS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in table_rows(self)
        )
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in report_notes(self))
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{html.escape(self.recommendation)}</p><ul>{notes}</ul>"
        )


_PROMISES: dict[Guarantee, str] = {
    "fixed-horizon": "It holds for one look at the end, not for data that is watched meanwhile.",
    "asymptotic": "It may be looked at as often as planned.",
    "anytime-valid": "It may be looked at any time.",
    "anytime-asymptotic": "It may be looked at any time.",
}


def table_rows(report: PlanReport) -> list[tuple[str, ...]]:
    """The cells of each design, in the order of `HEADINGS`."""
    return [_cells(report, item) for item in report.designs]


def report_notes(report: PlanReport) -> list[str]:
    """What the table does not hold, one sentence each."""
    found = list(report.notes)
    if len(report.shares) > 2:
        each = report.designs[0].alpha
        found.append(
            f"each of {len(report.shares) - 1} comparisons is tested at alpha {each:.4g}; the "
            "numbers are those of the one with the fewest units"
        )
    if any(item.power_error for item in report.designs):
        found.append("numbers with ± are simulated; the others are computed exactly")
    found += [f"{item.design}: {item.note}" for item in report.designs if item.note]
    return found


def effect_text(report: PlanReport, item: DesignPlan) -> str:
    """The effect in words, such as "+5.0 % (+0.5 pp)"."""
    if item.difference is None:
        return "no effect"
    scale, unit = (100, " pp") if report.kind == "proportion" else (1, "")
    size = f"{scale * item.difference:+.4g}{unit}".replace("-", _MINUS)
    text = size
    if item.lift:
        text = f"{100 * item.lift:+.3g} %".replace("-", _MINUS) + f" ({size})"
    if report.margin is not None:
        border = f"{scale * report.margin:+.4g}{unit}".replace("-", _MINUS)
        text = f"a difference beyond {border} where the true one is {size}"
    return text


def _cells(report: PlanReport, item: DesignPlan) -> tuple[str, ...]:
    if item.status != "ok":
        return (item.design, str(item.looks), item.status, *("–",) * (len(HEADINGS) - 3))
    error = f" ± {item.power_error:.3f}" if item.power_error else ""
    days = "–" if item.days is None else f"{item.days:,} (mean {item.mean_days or 0:.1f})"
    mean_error = f" ± {item.mean_units_error:,.0f}" if item.mean_units_error else ""
    scale, unit = (100, " pp") if report.kind == "proportion" else (1, "")
    return (
        item.design,
        f"{item.looks:,}",
        f"{item.units:,}",
        f"{item.mean_units_null or 0:,.0f}",
        f"{item.mean_units or 0:,.0f}{mean_error}",
        f"{item.median_units or 0:,.0f}",
        f"{item.p90_units or 0:,.0f}",
        f"{scale * (item.difference or 0.0):+.4g}{unit}".replace("-", _MINUS),
        f"{item.power or 0:.3f}{error}",
        f"{item.false_positives or 0:.4f}",
        days,
    )


def _row(item: DesignPlan) -> dict[str, Any]:
    row = asdict(item)
    row["arm_units"] = list(item.arm_units)
    return row
