"""Where a rollout stands at a look, and whether its units can be trusted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from abkit.decision import Alarm, Place
from abkit.stats.srm import SRM_BLOCK, capped_exp, lindon_malek_log_e, srm_concentration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.judge.growth import Growth
    from abkit.observation import Observation
    from abkit.rollout import Rollout

SRM_SHARE_SHIFT: Final = 0.01


def place_of(rollout: Rollout, observation: Observation, growth: Growth | None) -> Place:
    """The stage and how far it has come.

    The units of a stage are those that met the treatment in it, also if they had control before:
    where the same people come back, an allocation that grows brings hardly any new ones.
    """
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
        units = units if observation.live is None else observation.live
    if rollout.state == "bake":
        return Place(
            stage="bake",
            units=units,
            min_units=0,
            seconds=_since(rollout.stage_started, observation),
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
        seconds=_since(rollout.stage_started, observation),
        min_seconds=stage.min_seconds,
        total_seconds=_since(expires_from, observation),
        requires=stage.requires,
        last=rollout.stage_index + 1 == len(rollout.stages),
        dark=stage.mode == "shadow",
        growth="" if growth is None else growth.text,
        next_share=None if growth is None else growth.share,
    )


def _since(moment: float | None, observation: Observation) -> float:
    return 0.0 if moment is None else observation.time - moment


def alarms_of(
    rollout: Rollout, observation: Observation, accepted: Mapping[int, Mapping[str, int]]
) -> tuple[Alarm, ...]:
    """Sample ratio mismatch in any allocation epoch, at every look.

    Each epoch has its own e-process; their average over the epochs that the plan can have is one
    again, so the threshold holds for the rollout as a whole.
    """
    planned = len(rollout.stages) + 1 + bool(rollout.bake_seconds)
    planned += 0 if rollout.ramp is None else rollout.ramp.growths
    planned += max(0, len(rollout.arms) + len(rollout.dropped) - 1)  # as often can one be dropped
    planned = max(planned, len(rollout.allocations))
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
