"""What one look knows of each guardrail and objective, from cumulative statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from abkit.decision import DEFAULT_RELATIVE_MARGIN, Evidence, Guardrail, Objective
from abkit.moments import Block, Moments
from abkit.sequential.canary import relative_risk
from abkit.sequential.mixture import paired_difference, stratified_difference
from abkit.stats.srm import capped_exp

if TYPE_CHECKING:
    from abkit.estimate import Alternative, Estimate
    from abkit.judge.state import GuardrailState, JudgeState
    from abkit.metrics import Metric
    from abkit.observation import Observation, Paired
    from abkit.rollout import Rollout


def counted_guardrail(
    rollout: Rollout, guardrail: Guardrail, observation: Observation, state: GuardrailState
) -> Evidence:
    """Evidence of a guardrail that counts bad events, alone or beside control's."""
    if guardrail.test == "limit":
        rule, shown = f"rate below {guardrail.limit:g}", _alone(rollout, guardrail, observation)
    else:
        rule = f"relative risk below {1 + (guardrail.margin or DEFAULT_RELATIVE_MARGIN):g}"
        shown = _shown(rollout, guardrail.metric, observation)
    blocks = (
        Block(control.n, treatment.n, control.successes, treatment.successes)
        for control, treatment in observation.strata(
            guardrail.metric, rollout.control, rollout.treatment
        )
    )
    # Pairs can show harm in the dark.
    log_harm = [state.harm.log_e_value]
    if guardrail.test != "limit" and guardrail.metric in observation.pairs:
        log_harm.append(_paired_log_e(rollout, guardrail.metric, observation, "greater", 0.0))
    return Evidence(
        metric=guardrail.metric,
        role="guardrail",
        rule=rule,
        e_harm=_average(log_harm),
        e_promote=1.0 if state.safe is None else capped_exp(state.safe.log_e_value),
        relative_risk=relative_risk(blocks) if guardrail.test == "canary" else None,
        **shown,
    )


def difference_guardrail(
    rollout: Rollout, guardrail: Guardrail, observation: Observation, state: GuardrailState | None
) -> Evidence:
    """Evidence of a guardrail on a mean.

    Args:
        rollout: whose policy it is.
        guardrail: with test "difference".
        observation: what is seen.
        state: the exact test that goes along where bad events can be counted.
    """
    metric = rollout.experiment.metric(guardrail.metric)
    worse, better = _sides(metric)
    distance = guardrail.margin or 0.0
    margin = distance if metric.direction == "decrease" else -distance
    log_harm = [_log_e(_live(rollout, guardrail.metric, observation, worse, margin))]
    if state is not None:
        # The mixture waits for events and others in each arm, which a total failure never has:
        # where bad events can be counted, an exact test for more than twice as many goes along.
        log_harm.append(state.harm.log_e_value)
    if guardrail.metric in observation.pairs:
        log_harm.append(_paired_log_e(rollout, guardrail.metric, observation, worse, margin))
    return Evidence(
        metric=guardrail.metric,
        role="guardrail",
        rule=f"not worse by {guardrail.margin:g}",
        e_harm=_average(log_harm),
        e_promote=_e_promote(rollout, guardrail.metric, observation, (worse, better), margin),
        **_shown(rollout, guardrail.metric, observation),
    )


def budget_guardrail(rollout: Rollout, guardrail: Guardrail, observation: Observation) -> Evidence:
    """Evidence of a budget: none while it lasts, and all there can be once it is overdrawn."""
    shown = _alone(rollout, guardrail, observation)
    bad = round(shown["n_treatment"] * (shown["mean_treatment"] or 0.0))
    budget = guardrail.budget or 0
    most = capped_exp(math.inf)
    return Evidence(
        metric=guardrail.metric,
        role="guardrail",
        rule=f"at most {budget:,} bad events",
        e_harm=most if bad > budget else 1.0,
        e_promote=1.0 if bad > budget else most,
        **shown,
    )


def objective_evidence(
    rollout: Rollout, objective: Objective, observation: Observation
) -> Evidence:
    """Evidence of an objective."""
    metric = rollout.experiment.metric(objective.metric)
    margin = objective.margin if metric.direction == "decrease" else -objective.margin
    rule = (
        "better than control"
        if objective.rule == "superior"
        else f"not worse by {objective.margin:g}"
    )
    return Evidence(
        metric=objective.metric,
        role="objective",
        rule=rule,
        e_promote=_e_promote(rollout, objective.metric, observation, _sides(metric), margin),
        **_shown(rollout, objective.metric, observation),
    )


def _sides(metric: Metric) -> tuple[Alternative, Alternative]:
    """(worse, better) as sides of a test on treatment minus control."""
    return ("greater", "less") if metric.direction == "decrease" else ("less", "greater")


def _e_promote(
    rollout: Rollout,
    metric: str,
    observation: Observation,
    sides: tuple[Alternative, Alternative],
    margin: float,
) -> float:
    """E-value for a promotion rule: of live and paired units together, unless live ones contradict.

    The units are disjoint, so the two e-values multiply. But many pairs could outvote what happens
    to people: once live units show at level beta that the rule fails, pairs count no more.
    """
    worse, better = sides
    live = _log_e(_live(rollout, metric, observation, better, margin))
    against = _log_e(_live(rollout, metric, observation, worse, margin))
    if against >= math.log(rollout.policy.promote_threshold):
        return capped_exp(live)
    return capped_exp(live + _paired_log_e(rollout, metric, observation, better, margin))


def with_peak(
    rollout: Rollout, item: Evidence, state: JudgeState, observation: Observation
) -> Evidence:
    """What a rule has once shown stays shown, unless live units speak against it.

    An e-process passes 1/beta at any time with probability beta at most (Ville), so a sequential
    test keeps its largest value. Without that, a student shown in the shadow could wait for ever
    on the noise of its first live units.
    """
    before = state.peaks.get((item.role, item.metric), 0.0)
    if before <= item.e_promote or _is_contradicted(rollout, item, observation):
        return item
    return replace(item, e_promote=before)


def _is_contradicted(rollout: Rollout, item: Evidence, observation: Observation) -> bool:
    """Whether live units show at level beta that the rule fails."""
    threshold = rollout.policy.promote_threshold
    policy = rollout.policy
    rules = policy.guardrails if item.role == "guardrail" else policy.objectives
    rule = next(rule for rule in rules if rule.metric == item.metric)
    if isinstance(rule, Guardrail) and rule.test != "difference":
        return item.e_harm >= threshold
    metric = rollout.experiment.metric(item.metric)
    distance = rule.margin or 0.0
    margin = distance if metric.direction == "decrease" else -distance
    worse, _ = _sides(metric)
    against = _live(rollout, item.metric, observation, worse, margin)
    return _log_e(against) >= math.log(threshold)


def _average(log_e_values: list[float]) -> float:
    """The average of e-values, which is one again, from their logarithms."""
    top = max(log_e_values)
    rest = math.fsum(math.exp(value - top) for value in log_e_values)
    return capped_exp(top + math.log(rest / len(log_e_values)))


def _paired_log_e(
    rollout: Rollout, metric: str, observation: Observation, side: Alternative, margin: float
) -> float:
    pairs = observation.pairs.get(metric)
    if pairs is None:
        return 0.0
    return _log_e(_paired(rollout, metric, pairs, side, margin))


def _paired(
    rollout: Rollout, metric: str, pairs: Paired, side: Alternative, margin: float = 0.0
) -> Estimate:
    return paired_difference(
        pairs.difference,
        planned_units=rollout.policy.planned_units,
        alpha=rollout.policy.beta,
        alternative=side,
        margin=margin,
        kind=rollout.experiment.metric(metric).kind,
    )


def _live(
    rollout: Rollout, metric: str, observation: Observation, side: Alternative, margin: float = 0.0
) -> Estimate:
    return stratified_difference(
        observation.strata(metric, rollout.control, rollout.treatment),
        planned_units=_even_units(rollout),
        alpha=rollout.policy.beta,
        alternative=side,
        margin=margin,
        kind=rollout.experiment.metric(metric).kind,
    )


def _even_units(rollout: Rollout) -> int:
    """Units of an even split that tell as much as the planned ones do at the last stage's."""
    share = rollout.top_share
    spread = 4 * share * (1 - share)
    return max(1, round(rollout.policy.planned_units * (spread or 1.0)))


def _log_e(estimate: Estimate) -> float:
    return 0.0 if not estimate.e_value else math.log(estimate.e_value)


def _shown(rollout: Rollout, metric: str, observation: Observation) -> dict[str, Any]:
    """The comparison that people see: paired units where there are some, else live ones."""
    live = _live(rollout, metric, observation, "two-sided")
    estimate, basis = live, "live"
    pairs = observation.pairs.get(metric)
    if pairs is not None and pairs.difference.n:
        estimate, basis = _paired(rollout, metric, pairs, "two-sided"), "paired"
    interval = estimate.interval
    means = (live.mean_control, live.mean_treatment)
    if basis == "paired" and pairs is not None:
        means = (pairs.control.mean, pairs.treatment.mean)
    return {
        "difference": estimate.difference,
        "lower": None if interval is None else interval.lower,
        "upper": None if interval is None else interval.upper,
        "basis": basis,
        "n_control": estimate.n_control,
        "n_treatment": estimate.n_treatment,
        "mean_control": means[0],
        "mean_treatment": means[1],
    }


def _alone(rollout: Rollout, guardrail: Guardrail, observation: Observation) -> dict[str, Any]:
    """The rate of treatment, for a guardrail that compares it with a limit."""
    strata = observation.strata(guardrail.metric, rollout.control, rollout.treatment)
    treatment = sum((cell for _, cell in strata), Moments())
    return {
        "n_treatment": treatment.n,
        "mean_treatment": treatment.mean if treatment.n else None,
    }
