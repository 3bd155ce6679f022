"""Clean data, and data with one planted fault each: what the checks of a report are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from abkit.analysis import analyze
from abkit.analysis.logged_trust import early_checks, late_checks, loss_checks
from abkit.store.drift import Early, Late, Losses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abkit.analysis import Report
    from abkit.check import Check

UNITS: Final = 4_000
MONDAY: Final = pd.Timestamp("2026-03-02")
WEEKS: Final = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """A table, and how it is analysed."""

    frame: pd.DataFrame
    options: dict[str, Any]

    def report(self) -> Report:
        return analyze(self.frame, unit="user", variant="arm", control="a", **self.options)


def clean(random: np.random.Generator, units: int = UNITS) -> Sample:
    """An A/A test of whole weeks with all that real data has: skew, gaps, weekdays, segments."""
    arm = np.where(random.random(units) < 0.5, "a", "b")
    time = MONDAY + pd.to_timedelta(np.sort(random.random(units)) * WEEKS * 7, unit="D")
    before = random.gamma(2.0, 5.0, units)
    weekday = 1 + 0.1 * (time.day_of_week.to_numpy() >= 5)
    spend = weekday * (before + random.gamma(1.0, 10.0, units))
    spend[random.random(units) < 0.02] = np.nan
    frame = pd.DataFrame(
        {
            "user": np.arange(units),
            "arm": arm,
            "spend": spend,
            "bought": (random.random(units) < 0.1 * weekday).astype(int),
            "before": before,
            "time": time,
            "country": random.choice(["de", "fr", "it", "es", "pl"], units),
            "page": np.where(arm == "a", "old", "new"),
        }
    )
    options: dict[str, Any] = {
        "metrics": ["spend", "bought"],
        "covariates": ["before"],
        "segments": ["country"],
        "time": "time",
        "delivered": "page",
        "missing": "exclude",
    }
    return Sample(frame, options)


def _of_b(frame: pd.DataFrame) -> np.ndarray:
    return (frame["arm"] == "b").to_numpy()


def lost_units(random: np.random.Generator) -> Sample:
    """6 % of the units of b are lost."""
    sample = clean(random, 60_000)
    kept = ~(_of_b(sample.frame) & (random.random(len(sample.frame)) < 0.06))
    return Sample(sample.frame[kept], sample.options)


def lost_in_a_segment(random: np.random.Generator) -> Sample:
    """A third of the units of b are lost in one country."""
    sample = clean(random)
    gone = (sample.frame["country"] == "fr") & _of_b(sample.frame)
    return Sample(sample.frame[~(gone & (random.random(len(gone)) < 1 / 3))], sample.options)


def crossing_units(random: np.random.Generator) -> Sample:
    """Five units met both variants."""
    sample = clean(random)
    again = sample.frame.sample(5, random_state=int(random.integers(1 << 30))).copy()
    again["arm"] = np.where(again["arm"] == "a", "b", "a")
    return Sample(pd.concat([sample.frame, again]), sample.options)


def doubled_units(random: np.random.Generator) -> Sample:
    """Five units stand there twice."""
    sample = clean(random)
    again = sample.frame.sample(5, random_state=int(random.integers(1 << 30)))
    return Sample(pd.concat([sample.frame, again]), sample.options)


def strayed_delivery(random: np.random.Generator) -> Sample:
    """1 % of the rows met the other page."""
    sample = clean(random)
    frame = sample.frame
    stray = random.random(len(frame)) < 0.01
    frame.loc[stray, "page"] = np.where(frame.loc[stray, "page"] == "old", "new", "old")
    return sample


def lost_outcomes(random: np.random.Generator) -> Sample:
    """6 % of the outcomes of b are lost, and 2 % of those of a."""
    sample = clean(random)
    sample.frame.loc[_of_b(sample.frame) & (random.random(UNITS) < 0.04), "spend"] = np.nan
    return sample


def whale(random: np.random.Generator) -> Sample:
    """One unit of a spends as much as 700 others."""
    sample = clean(random)
    first = sample.frame.index[sample.frame["arm"] == "a"][0]
    sample.frame.loc[first, "spend"] = 14_000.0
    return sample


def doubled_events(random: np.random.Generator) -> Sample:
    """Every purchase of b is logged twice."""
    sample = clean(random)
    sample.frame.loc[_of_b(sample.frame), "spend"] *= 2
    return sample


def small_win(random: np.random.Generator) -> Sample:
    """An effect that is found with power 0.5."""
    sample = clean(random)
    e = sample.report().results[0].estimate
    assert e.standard_error is not None
    sample.frame.loc[_of_b(sample.frame), "spend"] += 1.96 * e.standard_error - (e.difference or 0)
    sample.frame.loc[_of_b(sample.frame), "spend"] += 0.3 * e.standard_error
    return sample


def ramp_without_epochs(random: np.random.Generator) -> Sample:
    """A ramp from 10 to 90 % while the level rises, analysed as if the split had been even."""
    sample = clean(random)
    frame = sample.frame
    late = (frame["time"] >= MONDAY + pd.Timedelta(days=7)).to_numpy()
    frame["arm"] = np.where(random.random(UNITS) < np.where(late, 0.9, 0.1), "b", "a")
    frame["page"] = np.where(frame["arm"] == "a", "old", "new")
    frame["spend"] += np.where(late, 8.0, 0.0) - 2.0 * _of_b(frame)
    return sample


def opposite_countries(random: np.random.Generator) -> Sample:
    """Better in one country, worse in another."""
    sample = clean(random)
    frame = sample.frame
    for country, effect in (("de", 5.0), ("fr", -5.0)):
        frame.loc[_of_b(frame) & (frame["country"] == country), "spend"] += effect
    return sample


def biased_before(random: np.random.Generator) -> Sample:
    """Units of b were different before."""
    sample = clean(random)
    sample.frame.loc[_of_b(sample.frame), "before"] += 1.2
    return sample


def shared_shocks(random: np.random.Generator) -> Sample:
    """What happens to b in one half day goes on in the next."""
    sample = clean(random)
    shock, shocks = 0.0, []
    for _ in range(WEEKS * 14):
        shock = 0.8 * shock + random.normal(0, 4.0)
        shocks.append(shock)
    hours = (sample.frame["time"] - MONDAY).dt.total_seconds().to_numpy() / 3600
    sample.frame["spend"] += np.where(
        _of_b(sample.frame), np.array(shocks)[(hours // 12).astype(int)], 0
    )
    return sample


def no_weekend(random: np.random.Generator) -> Sample:
    """Nobody came at the weekend."""
    sample = clean(random)
    return Sample(sample.frame[sample.frame["time"].dt.day_of_week < 5], sample.options)


def fading_effect(random: np.random.Generator) -> Sample:
    """An effect that fades to nothing within two weeks."""
    sample = clean(random)
    days = (sample.frame["time"] - MONDAY).dt.total_seconds().to_numpy() / 86_400
    sample.frame["spend"] += np.where(_of_b(sample.frame), 8.0 * (1 - days / 14), 0.0)
    return sample


FAULTS: Final[dict[str, Callable[[np.random.Generator], Sample]]] = {
    "sample_ratio_mismatch": lost_units,
    "segment_ratio_mismatch": lost_in_a_segment,
    "crossover_units": crossing_units,
    "repeated_units": doubled_units,
    "delivery_mismatch": strayed_delivery,
    "missing_by_variant": lost_outcomes,
    "outlier_flips_result": whale,
    "twyman": doubled_events,
    "underpowered_win": small_win,
    "simpsons_paradox": ramp_without_epochs,
    "opposite_segments": opposite_countries,
    "covariate_imbalance": biased_before,
    "autocorrelation": shared_shocks,
    "calendar_coverage": no_weekend,
    "novelty": fading_effect,
}
TOLD: Final = ("underpowered_win",)  # an "info" is all that it says


def losses_of(random: np.random.Generator, share: float) -> list[Check]:
    """A log of 20,000 events of each variant, of which a and then b drop so many."""
    events = 20_000
    lost = {"a": int(random.binomial(events, 0.005)), "b": int(random.binomial(events, share))}
    stored = {name: events - n for name, n in lost.items()}
    return loss_checks(Losses(lost, {"queue_full": sum(lost.values())}, stored, 0))


def late_of(random: np.random.Generator, share: float) -> list[Check]:
    """4,000 answered units of each variant; so many of b are later than a tenth of a."""
    late = {"a": int(random.binomial(4_000, 0.1)), "b": int(random.binomial(4_000, share))}
    return late_checks([Late("bought", 3_600.0, 0.2, {"a": 4_000, "b": 4_000}, late)])


def early_of(random: np.random.Generator, share: float) -> list[Check]:
    """4,000 units of each variant; a fifth of a, and so many of b, did something before."""
    seen = {"a": int(random.binomial(4_000, 0.2)), "b": int(random.binomial(4_000, share))}
    return early_checks(Early({"a": 4_000, "b": 4_000}, seen, seen))


LOGGED: Final[
    dict[str, tuple[Callable[[np.random.Generator, float], list[Check]], float, float]]
] = {
    "logging_loss": (losses_of, 0.005, 0.012),
    "late_outcomes": (late_of, 0.1, 0.14),
    "early_outcomes": (early_of, 0.2, 0.26),
}
"""By check of a log: what simulates it, and the share that is clean and the one that is not."""


def raised(report: Report) -> set[str]:
    """What the report warns of, or tells where telling is all that a check does."""
    return {item.id for item in report.checks if item.severity != "info" or item.id in TOLD}


def false_alarms(runs: int, seed: int) -> dict[str, int]:
    """How many of so many clean reports raise each check."""
    counts = dict.fromkeys((*FAULTS, *LOGGED), 0)
    for random in _generators(runs, seed):
        found = raised(clean(random).report())
        for name, (simulate, good, _) in LOGGED.items():
            found |= {item.id for item in simulate(random, good) if item.severity != "info"} & {
                name
            }
        for name in found:
            counts[name] = counts.get(name, 0) + 1
    return counts


def detections(name: str, runs: int, seed: int) -> int:
    """How many of so many reports with the planted fault raise its check."""
    if name in LOGGED:
        simulate, _, bad = LOGGED[name]
        return sum(
            any(item.severity != "info" for item in simulate(random, bad))
            for random in _generators(runs, seed)
        )
    return sum(name in raised(FAULTS[name](random).report()) for random in _generators(runs, seed))


def fault_of(name: str) -> str:
    """What is planted, in words."""
    if name in LOGGED:
        simulate, good, bad = LOGGED[name]
        return f"{simulate.__doc__} ({bad:g} of b, {good:g} where it is clean)".replace("\n", "")
    return str(FAULTS[name].__doc__)


def _generators(runs: int, seed: int) -> Iterator[np.random.Generator]:
    return (np.random.default_rng([seed, number]) for number in range(runs))
