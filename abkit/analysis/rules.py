"""What each check of a report looks for, from when on, and what to do: for reports and the docs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from abkit.check import Check


@dataclass(frozen=True, slots=True)
class Rule:
    """One check.

    Args:
        id: its name in reports.
        rule: what is compared with what.
        threshold: from when on it warns or blocks, by default.
        source: where the rule comes from.
        explanation: why it matters.
        remedy: what to do.
    """

    id: str
    rule: str
    threshold: str
    source: str
    explanation: str
    remedy: str


_OURS: Final = "counted, not tested"
RULES: Final = (
    Rule(
        "sample_ratio_mismatch",
        "units per variant against the intended weights, within epochs",
        "e-value 100 warns, 1,000 blocks",
        "Lindon, Malek (2022); Fabijan et al. (2019)",
        "units are lost or counted twice depending on their variant, so that those which are left "
        "are not comparable",
        "look for the step of assignment, logging or joining that treats variants differently; "
        "give the weights, if another split was intended",
    ),
    Rule(
        "segment_ratio_mismatch",
        "the same in each value of each segment, for shifts of about 5 points, corrected for their "
        "number by e-BH",
        "e-BH at 1 % warns, at 0.1 % blocks (one segment: e-value 100 and 1,000)",
        "Wang, Ramdas (2022); Lindon, Malek (2022)",
        "a loss of units in one country or platform does not show in the total",
        "look at logging in that segment; leave out segments that the variant itself may change",
    ),
    Rule(
        "crossover_units",
        "units with exposures or rows of two variants",
        "tables: one blocks; a log: one within an epoch blocks",
        _OURS,
        "a unit that met both variants says nothing clean about either",
        "keep first rows, or drop these units; find out why the assignment was not stable",
    ),
    Rule(
        "repeated_units",
        "units in more than one row",
        "one warns",
        _OURS,
        "rows of one unit depend on one another, so intervals are too narrow",
        "aggregate to one row per unit, or name the unit as `cluster`",
    ),
    Rule(
        "delivery_mismatch",
        "rows whose `delivered` is not the one that most rows of their variant have",
        "one row warns, more than 0.1 % of rows block",
        _OURS,
        "units are counted for a variant that they did not meet",
        "drop these rows, and mend what delivers",
    ),
    Rule(
        "missing_by_variant",
        "rows without a value, by variant: chi-square, or Fisher's test below 5 expected",
        "p < 0.001 over all metrics warns; p < 1e-6 with a gap of 1 point blocks, where rows are "
        "left out",
        "Pearson (1900); Fisher (1935)",
        "who is missing depends on the variant, so those who are left are not comparable",
        "find out where outcomes are lost; compare a metric that every unit has",
    ),
    Rule(
        "outlier_flips_result",
        "each arm's largest and smallest value left out, one at a time, for means",
        "warns where one unit moves the difference by half a standard error, and its verdict or "
        "sign changes or half of the difference is gone",
        "Cook (1977), deletion diagnostics; the threshold is ours",
        "a result that rests on one unit is that unit's, not the variant's",
        "look at the unit; winsorize by a rule that was fixed beforehand",
    ),
    Rule(
        "twyman",
        "the difference against the smallest effect found with power 0.8, at the planned units",
        "more than 5 times warns",
        "Twyman's law; Kohavi, Tang, Xu (2020), chapter 3",
        "most figures that look unusually good are wrong",
        "take a second look at logging, units and exposures; run it again",
    ),
    Rule(
        "underpowered_win",
        "a significant difference against the smallest effect found with power 0.8",
        "less than once is told (info), with the difference shrunken to a normal prior of which "
        "95 % lie within that smallest effect",
        "Gelman, Carlin (2014); Efron (2011)",
        "among effects that were barely large enough to be found, those found are exaggerated",
        "plan with the shrunken effect; run it again with more units before relying on the size",
    ),
    Rule(
        "simpsons_paradox",
        "the sign of the pooled difference against that within epochs, segments or slices of time",
        "opposite signs, one of them significant: warns; blocks where the pooled one is "
        "significant and is what the report shows",
        "Simpson (1951); Crook et al. (2009)",
        "the mix of parts differs between variants, so that totals compare different people",
        "name the column of the epoch; find out why the mix differs",
    ),
    Rule(
        "opposite_segments",
        "segments in which the effect is significant, by sign, after the correction",
        "both signs warn",
        "Gail, Simon (1985), qualitative interaction",
        "the average over all units describes nobody",
        "decide by segment, or find out what they differ in",
    ),
    Rule(
        "covariate_imbalance",
        "covariates of both arms, Welch's t",
        "p < 0.001 over all covariates warns",
        "Welch (1947)",
        "arms that differed before the assignment differ afterwards too (pre-period bias)",
        "make sure that the covariate is measured before; assign anew with another salt",
    ),
    Rule(
        "autocorrelation",
        "differences of 40 slices of time around their trend: Bartlett's lag-1 test, Cochran's Q",
        "p < 0.001 over both tests and all comparisons warns; needs 10 slices with 20 units an arm",
        "Bartlett (1946); Cochran (1954)",
        "rows of neighbouring times depend on one another, so intervals are too narrow",
        "name the cluster that was randomised, or compare differences per day",
    ),
    Rule(
        "calendar_coverage",
        "days of the week between the first row and the last",
        "a day that is absent warns; weeks that are not whole are told (info)",
        "Kohavi, Tang, Xu (2020), chapter 2",
        "people differ by day of the week",
        "let it run for whole weeks",
    ),
    Rule(
        "novelty",
        "the slope of the effect over the time of the rows, weighted by precision",
        "p < 0.001 over all comparisons warns; the standard error allows for the spread",
        "Thompson, Sharp (1999); Sadeghi et al. (2022)",
        "an effect that changes with age or calendar has no one size",
        "let it run until it is steady; look at it by age of the unit",
    ),
    Rule(
        "overdispersed_counts",
        "the variance of counts against a Poisson's",
        "4 standard errors more block a design that relies on it",
        "Fisher (1950)",
        "events of one unit depend on one another, so Poisson's intervals are too narrow",
        "compare means",
    ),
    Rule(
        "assignment_drift",
        "the variant of each logged exposure against the hash, computed again in SQL",
        "one unit blocks",
        "exact",
        "serving code assigned otherwise than published: another salt, version or list of units",
        "find the writer that logged them; its exposures cannot be compared",
    ),
    Rule(
        "logging_loss",
        "events that writers dropped, by variant, against all events that name one",
        "e-value 100 warns, 1,000 blocks; a loss of more than 1 % warns",
        "Lindon, Malek (2022)",
        "what is lost depends on the variant, as when the slower one fills its queue",
        "see the reasons in `abkit reconcile`; mend, and start a new epoch",
    ),
    Rule(
        "late_outcomes",
        "units without an outcome among those exposed in the last part of the time",
        "a share that differs by variant: p < 0.001 warns",
        "Pearson (1900)",
        "outcomes of one variant take longer, so that it looks worse or better until they arrive",
        "give a window, and wait for the watermark",
    ),
    Rule(
        "early_outcomes",
        "outcomes from more than a minute before the unit's exposure, by variant",
        "told (info); a share that differs by variant: p < 0.001 warns",
        _OURS,
        "they cannot be the variant's effect, and are not counted",
        "log the exposure before the outcome, when the unit really meets the variant",
    ),
)
BY_ID: Final = {rule.id: rule for rule in RULES}


def explained_by_rule(check: Check) -> Check:
    """A check with the explanation and the remedy of its rule, where it has none of its own."""
    rule = BY_ID.get(check.id)
    if rule is None or check.explanation:
        return check
    return replace(check, explanation=rule.explanation, remedy=rule.remedy)
