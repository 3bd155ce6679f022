"""The judge: observations -> evidence -> decision, as a fold that can be replayed to the bit.

The judge sees cumulative counts and moments, never events. Between two looks it takes the
increments as blocks, so a look costs what is new. Because every step is a pure function of the
observations, `replay` recomputes all decisions of a rollout from its records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from abkit.decision import (
    DEFAULT_RELATIVE_MARGIN,
    Alarm,
    Decision,
    Evidence,
    Guardrail,
    Objective,
    Place,
    decide,
)
from abkit.moments import Block, Moments
from abkit.observation import Observation, Paired
from abkit.rollout import Rollout
from abkit.sequential.canary import CanaryDesign, CanaryState, relative_risk
from abkit.sequential.mixture import paired_difference, stratified_difference
from abkit.stats.srm import SRM_BLOCK, capped_exp, lindon_malek_log_e, srm_concentration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from abkit.estimate import Alternative, Estimate
    from abkit.metrics import Metric

HOUR_SECONDS = 3600.0
SRM_SHARE_SHIFT = 0.01
GROSS_RELATIVE_RISK = 2.0


@dataclass(frozen=True, slots=True)
class GuardrailState:
    """The running tests of one guardrail that counts events.

    Args:
        harm: test against "treatment is not worse".
        safe: test against "treatment is worse by the margin"; None where the difference of means
            is what has to be shown.
        counted: units and bad events that the tests have seen, by epoch and variant.
    """

    harm: CanaryState
    safe: CanaryState | None
    counted: Mapping[tuple[int, str], tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgeState:
    """All that the judge remembers between looks.

    Args:
        guardrails: running tests, by metric.
        peaks: the largest e-value for each promotion rule so far, by role and metric.
        since: when the rollout was started, or last resumed by a person.
        accepted: units by epoch and variant when it was resumed: their split, whatever it was,
            has been accepted.
    """

    guardrails: Mapping[str, GuardrailState] = field(default_factory=dict)
    peaks: Mapping[tuple[str, str], float] = field(default_factory=dict)
    since: float | None = None
    accepted: Mapping[int, Mapping[str, int]] = field(default_factory=dict)


def judge(
    rollout: Rollout, state: JudgeState, observation: Observation
) -> tuple[Decision, JudgeState]:
    """Take one look.

    Args:
        rollout: where the rollout is; its policy says what is watched.
        state: what the looks before have left; `JudgeState()` at the first.
        observation: cumulative counts and moments now.

    Returns:
        The decision, and the state for the next look.
    """
    states: dict[str, GuardrailState] = {}
    evidence: list[Evidence] = []
    for guardrail in rollout.policy.guardrails:
        if guardrail.test == "difference" and not _is_countable(rollout, guardrail):
            evidence.append(_difference_guardrail(rollout, guardrail, observation, None))
            continue
        before = state.guardrails.get(guardrail.metric) or _fresh(guardrail)
        after = _updated(rollout, guardrail, before, observation)
        states[guardrail.metric] = after
        show = _difference_guardrail if guardrail.test == "difference" else _counted_guardrail
        evidence.append(show(rollout, guardrail, observation, after))
    evidence += [_objective(rollout, item, observation) for item in rollout.policy.objectives]
    evidence = [_with_peak(rollout, item, state, observation) for item in evidence]
    place = _place(rollout, observation)
    accepted = state.accepted
    if state.since is not None and rollout.expires_from != state.since:
        accepted = observation.exposures
    alarms = _alarms(rollout, observation, accepted)
    decision = decide(rollout.policy, tuple(evidence), place, alarms)
    peaks: dict[tuple[str, str], float] = {
        (item.role, item.metric): item.e_promote for item in evidence
    }
    return decision, JudgeState(states, peaks, rollout.expires_from, accepted)


def replay(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Take all decisions of one rollout again, from the counts in their records.

    Args:
        records: decision records of one rollout, in the order of their looks.

    Returns:
        One line per decision that comes out differently; empty if all agree to the bit.
    """
    return [
        f"look {record['look']}: {name} was {record[name]!r}, is {value!r}"
        for record, decision, _ in taken_again(records)
        for name, value in decision.to_dict().items()
        if record[name] != value
    ]


def taken_again(
    records: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], Decision, JudgeState]]:
    """Each record with the decision that its counts lead to, and the state after it."""
    state = JudgeState()
    for record in records:
        rollout = Rollout.from_dict(record["rollout_state"])
        decision, state = judge(rollout, state, Observation.from_dict(record["observation"]))
        yield record, decision, state


def _fresh(guardrail: Guardrail) -> GuardrailState:
    margin = guardrail.margin or DEFAULT_RELATIVE_MARGIN
    if guardrail.test == "difference":
        gross = CanaryDesign(null_relative_risk=GROSS_RELATIVE_RISK)
        return GuardrailState(CanaryState.start(gross), None)
    if guardrail.test == "limit":
        limit = guardrail.limit
        harm = CanaryDesign(limit_rate=limit)
        safe = CanaryDesign(limit_rate=limit, harm=False, restarts=0)
    else:
        harm = CanaryDesign()
        safe = CanaryDesign(null_relative_risk=1 + margin, harm=False, restarts=0)
    return GuardrailState(CanaryState.start(harm), CanaryState.start(safe))


def _is_countable(rollout: Rollout, guardrail: Guardrail) -> bool:
    """Whether bad events of this metric can be counted one by one, each for good."""
    metric = rollout.experiment.metric(guardrail.metric)
    final = metric.direction == "decrease" or metric.missing == "exclude"
    return metric.kind == "proportion" and final


def _updated(
    rollout: Rollout, guardrail: Guardrail, state: GuardrailState, observation: Observation
) -> GuardrailState:
    """Feed what is new since the last look to both tests, epoch by epoch.

    Where units without an outcome count as zeros, all units exposed so far are at risk of the
    new events; elsewhere the units whose outcome is new are.
    """
    at_risk_stays = (
        guardrail.test == "canary" and rollout.experiment.metric(guardrail.metric).missing == "zero"
    )
    decreasing = rollout.experiment.metric(guardrail.metric).direction == "decrease"
    hour = _hour(rollout, observation)
    harm, safe, counted = state.harm, state.safe, dict(state.counted)
    for epoch, cell in sorted(observation.values.get(guardrail.metric, {}).items()):
        arms: list[tuple[int, int]] = []
        for variant in (rollout.control, rollout.treatment):
            moments = cell.get(variant, Moments())
            units, events = counted.get((epoch, variant), (0, 0))
            successes = moments.successes
            bad = successes if decreasing else moments.n - successes
            # A corrected value may take a count back; what was seen stays seen.
            fresh = max(0, moments.n - units)
            n = moments.n if at_risk_stays else fresh
            # One event per unit at most; an event beyond that waits for the next look.
            hits = min(n, max(0, bad - events))
            counted[epoch, variant] = (units + fresh, events + hits)
            arms.append((n, hits))
        (n_control, e_control), (n_treatment, e_treatment) = arms
        block = Block(n_control, n_treatment, e_control, e_treatment, hour)
        harm = harm.update(block)
        safe = None if safe is None else safe.update(block)
    return GuardrailState(harm, safe, counted)


def _counted_guardrail(
    rollout: Rollout, guardrail: Guardrail, observation: Observation, state: GuardrailState
) -> Evidence:
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


def _difference_guardrail(
    rollout: Rollout, guardrail: Guardrail, observation: Observation, state: GuardrailState | None
) -> Evidence:
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


def _objective(rollout: Rollout, objective: Objective, observation: Observation) -> Evidence:
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


def _with_peak(
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
    share = rollout.stages[-1].share
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


def _place(rollout: Rollout, observation: Observation) -> Place:
    stage = rollout.stage
    epoch = rollout.last_epoch
    if stage.mode == "shadow":
        units = min(
            (
                observation.pairs[metric].difference.n if metric in observation.pairs else 0
                for metric in stage.requires
            ),
            default=observation.units(epoch, rollout.control),
        )
    else:
        units = observation.units(epoch, rollout.treatment)
    if rollout.state == "bake":
        return Place(
            stage="bake",
            units=units,
            min_units=0,
            seconds=observation.time - (rollout.stage_started or observation.time),
            min_seconds=rollout.bake_seconds,
            total_seconds=0.0,
            last=True,
            baking=True,
        )
    # What waits for a person's word is decided: no time runs out.
    expires_from = None if rollout.state == "ready" else rollout.expires_from
    return Place(
        stage=stage.name,
        units=units,
        min_units=stage.min_units,
        seconds=observation.time - (rollout.stage_started or observation.time),
        min_seconds=stage.min_seconds,
        total_seconds=observation.time - (expires_from or observation.time),
        requires=stage.requires,
        last=rollout.stage_index + 1 == len(rollout.stages),
        dark=stage.mode == "shadow",
    )


def _alarms(
    rollout: Rollout, observation: Observation, accepted: Mapping[int, Mapping[str, int]]
) -> tuple[Alarm, ...]:
    """Sample ratio mismatch in any allocation epoch, at every look.

    Each epoch has its own e-process; their average over the epochs that the plan can have is one
    again, so the threshold holds for the rollout as a whole.
    """
    planned = max(len(rollout.stages) + 1 + bool(rollout.bake_seconds), len(rollout.allocations))
    alarms: list[Alarm] = []
    for epoch, shares in rollout.allocations:
        lawful = {name: share for name, share in shares.items() if share > 0}
        if len(lawful) < 2:
            continue
        before = accepted.get(epoch, {})
        counts = [max(0, observation.units(epoch, name) - before.get(name, 0)) for name in lawful]
        log_e = lindon_malek_log_e(
            counts, list(lawful.values()), concentration=srm_concentration(SRM_SHARE_SHIFT)
        )
        e_value = capped_exp(log_e - math.log(planned))
        if e_value >= SRM_BLOCK:
            seen = ", ".join(f"{n:,} {name}" for n, name in zip(counts, lawful, strict=True))
            meant = ", ".join(f"{share:.3g} {name}" for name, share in lawful.items())
            alarms.append(
                Alarm(
                    check="sample_ratio_mismatch",
                    text=f"the split of epoch {epoch} is {seen} where {meant} were meant "
                    f"(e-value {e_value:.3g}); exposures are lost or misassigned, find out which",
                )
            )
    return tuple(alarms)


def _hour(rollout: Rollout, observation: Observation) -> int:
    started = rollout.started if rollout.started is not None else observation.time
    return max(0, int((observation.time - started) // HOUR_SECONDS))
