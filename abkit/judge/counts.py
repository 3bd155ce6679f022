"""Counts of bad events as blocks for the exact tests: what is new since the last look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from abkit.decision import DEFAULT_RELATIVE_MARGIN, Guardrail
from abkit.judge.state import GuardrailState
from abkit.moments import Block, Moments
from abkit.sequential.canary import CanaryDesign, CanaryState

if TYPE_CHECKING:
    from abkit.observation import Observation
    from abkit.rollout import Rollout

HOUR_SECONDS: Final = 3600.0
GROSS_RELATIVE_RISK: Final = 2.0
_NOTHING: Final = Block(0, 0, 0, 0)


def counted_alone(rollout: Rollout, guardrail: Guardrail) -> bool:
    """Whether bad events of the metric of a guardrail can be counted one by one, each for good."""
    if guardrail.test == "budget":
        return False
    if guardrail.test != "difference":
        return True
    metric = rollout.experiment.metric(guardrail.metric)
    final = metric.direction == "decrease" or metric.missing == "exclude"
    if metric.source or metric.window_seconds is not None:
        final = metric.final
    return metric.kind == "proportion" and final


def fresh(guardrail: Guardrail) -> GuardrailState:
    """The tests of a guardrail before the first look."""
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


def updated(
    rollout: Rollout, guardrail: Guardrail, state: GuardrailState, observation: Observation
) -> tuple[GuardrailState, list[Block]]:
    """Feed what is new since the last look to both tests, epoch by epoch.

    Where units without an outcome count as zeros, all units exposed so far are at risk of the
    new events; elsewhere, and with a window, the units that are new in the count are.

    In an older epoch some units may have come back since, those of control to treatment as well:
    these can have no more events in control. So there are two ways to see who is at risk, all
    units and those met again with the variant they had. The test for harm takes the one that
    gives treatment the larger share, the others the smaller one: each is valid if the truth lies
    between, because a larger share makes harm less surprising, and a smaller one safety.

    Returns:
        The tests, and the blocks that the test for safety has seen.
    """
    metric = rollout.experiment.metric(guardrail.metric)
    stays = (
        guardrail.test == "canary" and metric.missing == "zero" and metric.window_seconds is None
    )
    decreasing = metric.direction == "decrease"
    hour = _hour(rollout, observation)
    harm, safe, counted = state.harm, state.safe, dict(state.counted)
    blocks: list[Block] = []
    for epoch, cell in sorted(observation.values.get(guardrail.metric, {}).items()):
        arms: list[tuple[int, int]] = []
        for variant in (rollout.control, rollout.treatment):
            moments = cell.get(variant, Moments())
            units, events = counted.get((epoch, variant), (0, 0))
            successes = moments.successes
            bad = successes if decreasing else moments.n - successes
            # A corrected value may take a count back; what was seen stays seen.
            fresh_units = max(0, moments.n - units)
            n = moments.n if stays else fresh_units
            # One event per unit at most; an event beyond that waits for the next look.
            hits = min(n, max(0, bad - events))
            counted[epoch, variant] = (units + fresh_units, events + hits)
            arms.append((n, hits))
        (n_control, e_control), (n_treatment, e_treatment) = arms
        block = Block(n_control, n_treatment, e_control, e_treatment, hour)
        cautious, lenient = block, block
        if stays:
            cautious, lenient = _either(rollout, observation, epoch, block)
        harm = harm.update(lenient)
        safe = None if safe is None else safe.update(cautious)
        blocks.append(cautious)
    return GuardrailState(harm, safe, counted), blocks


def _either(
    rollout: Rollout, observation: Observation, epoch: int, block: Block
) -> tuple[Block, Block]:
    """The block with the smaller and the larger share of treatment among the units at risk."""
    if observation.returned is None or epoch == rollout.last_epoch:
        return block, block
    row = observation.returned.get(epoch, {})
    back = (row.get(rollout.control, 0), row.get(rollout.treatment, 0))
    if not sum(back):
        return block, block  # nobody comes back: what is new are late outcomes
    events = (block.events_control, block.events_treatment)
    if any(hits and not n for n, hits in zip(back, events, strict=True)):
        other = _NOTHING  # this cannot have been: no evidence for safety
        return other, block
    scale = max([1, *(-(-hits // n) for n, hits in zip(back, events, strict=True) if n)])
    other = Block(scale * back[0], scale * back[1], *events, block.hour)
    is_smaller = back[1] * block.n_control < block.n_treatment * back[0]
    return (other, block) if is_smaller else (block, other)


def _hour(rollout: Rollout, observation: Observation) -> int:
    started = rollout.started if rollout.started is not None else observation.time
    return max(0, int((observation.time - started) // HOUR_SECONDS))
