"""What a plan will take, before anything starts: exposure, time and risk of each stage.

Exposure is what a stage must meet, and what it takes to notice harm: no test that is wrong with
probability alpha at most can halt sooner, on average, than after log(1/alpha)/KL events of the
right kind (Wald); the canary test needs about 1.6 times that. Risk is the number of bad requests
more than control would have had until then.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit.errors import ConfigError
from abkit.records import check_fraction, check_positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.rollout import Rollout, Stage

OVER_BOUND: Final = 1.6
"""Mean requests of the canary test over the bound: 1.41 to 1.73 in benchmarks/canary.py."""
RELATIVE_RISKS: Final = (1.5, 2.0, 5.0, 20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What a treatment that is so much worse costs in one stage.

    Args:
        relative_risk: bad events of treatment over those of control, > 1.
        treatment_requests: that treatment answers until the halt, on average.
        requests: of both arms until then.
        seconds: until then.
        excess: bad events more than control would have had.
    """

    relative_risk: float
    treatment_requests: float
    requests: float
    seconds: float
    excess: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageForecast:
    """What one stage takes.

    Args:
        name: of the stage.
        mode: of the stage.
        share: that treatment answers, in [0, 1]; several have equal parts of it.
        min_units: of treatment (pairs, in the shadow), which it must meet; of each, if several.
        requests: of both arms that meet them.
        seconds: that this takes, and at least what the plan asks.
        harms: cost of harm, one per relative risk; none in the shadow. Of several treatments, of
            one that is so bad.
    """

    name: str
    mode: str
    share: float
    min_units: int
    requests: float
    seconds: float
    harms: tuple[Harm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a plan takes.

    Args:
        rollout: key of the plan.
        requests_per_second: of all arms.
        base_rate: of bad events under control, in (0, 1).
        stages: in order.
        seconds: of all stages, if nothing but units and time holds them up.
        promotion_seconds: in the last stage, until a treatment without harm is shown to be no
            more than the margin worse; None where no canary guardrail asks for it.
    """

    rollout: str
    requests_per_second: float
    base_rate: float
    stages: tuple[StageForecast, ...]
    seconds: float
    promotion_seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what never happens, such as a halt without any guardrail, is None."""
        found = asdict(self)
        for stage in found["stages"]:
            for harm in stage["harms"]:
                for name, value in harm.items():
                    harm[name] = value if math.isfinite(value) else None
        return found


def forecast(
    rollout: Rollout,
    *,
    requests_per_second: float,
    base_rate: float = 0.01,
    relative_risks: Sequence[float] = RELATIVE_RISKS,
) -> Forecast:
    """What the stages of a plan take in exposure and time, and risk.

    Args:
        rollout: the plan.
        requests_per_second: of all arms, > 0; each is taken for a unit of its own.
        base_rate: of bad events under control, in (0, 1).
        relative_risks: how much worse a bad treatment may be, each > 1.

    Raises:
        ConfigError: a number is out of range.

    Source: Wald (1945), Sequential tests of statistical hypotheses; expected sample number.

    Examples:
        >>> from abkit.rollout import Rollout
        >>> plan = Rollout.plan("r", experiment="x", control="old", treatment="new")
        >>> found = forecast(plan, requests_per_second=1_000)
        >>> [(stage.name, round(stage.seconds)) for stage in found.stages]
        [('1 %', 10), ('5 %', 8), ('25 %', 4), ('50 %', 4)]
        >>> round(found.stages[0].harms[1].treatment_requests)  # twice as many, at 1 %
        1932
    """
    check_positive("forecast", "requests_per_second", requests_per_second)
    check_fraction("forecast", "base_rate", base_rate)
    for risk in relative_risks:
        if not risk > 1 or not math.isfinite(risk):
            raise ConfigError(f"forecast: relative risks must be above 1, got {risk!r}")
    stages = tuple(
        _stage(rollout, stage, requests_per_second, base_rate, relative_risks)
        for stage in rollout.stages
    )
    last, part = _between_two(rollout, rollout.top_share)
    promotion = None
    margins = [item.margin for item in rollout.policy.guardrails if item.test == "canary"]
    if margins and 0 < last < 1:
        widest = min(margin for margin in margins if margin is not None)
        threshold = rollout.arm_policy.promote_threshold
        requests = _requests(last, base_rate, 1 + widest, 1.0, threshold) / part
        promotion = requests / requests_per_second if math.isfinite(requests) else None
    return Forecast(
        rollout=rollout.key,
        requests_per_second=requests_per_second,
        base_rate=base_rate,
        stages=stages,
        seconds=math.fsum(stage.seconds for stage in stages) + rollout.bake_seconds,
        promotion_seconds=promotion,
    )


def _stage(
    rollout: Rollout, stage: Stage, rate: float, base_rate: float, risks: Sequence[float]
) -> StageForecast:
    is_ramp = rollout.ramp is not None and stage is rollout.stages[-1]
    share = rollout.top_share if is_ramp else stage.share / len(rollout.arms)
    requests = stage.min_units / (share or 1.0)
    return StageForecast(
        name=stage.name,
        mode=stage.mode,
        share=stage.share,
        min_units=stage.min_units,
        requests=requests,
        seconds=max(requests / rate, stage.min_seconds),
        harms=tuple(_harm(rollout, stage.share, rate, base_rate, risk) for risk in risks)
        if stage.share > 0
        else (),
    )


def _harm(rollout: Rollout, share: float, rate: float, base_rate: float, risk: float) -> Harm:
    bad = min(base_rate * risk, 1.0)
    threshold = rollout.arm_policy.halt_threshold
    if share < 1:
        one, part = _between_two(rollout, share)
        requests = _requests(one, base_rate, 1.0, bad / base_rate, threshold) / part
    else:
        # Without control the rate is held to a limit.
        limits = [item.limit for item in rollout.policy.guardrails if item.limit is not None]
        limit = min(limits, default=None)
        requests = math.inf if limit is None or bad <= limit else _alone(bad, limit, threshold)
    treated = requests * share / len(rollout.arms)
    return Harm(
        relative_risk=risk,
        treatment_requests=treated,
        requests=requests,
        seconds=requests / rate,
        excess=treated * (bad - base_rate),
    )


def _between_two(rollout: Rollout, share: float) -> tuple[float, float]:
    """Of a stage: one treatment's share between it and control, and the part that the two have."""
    arms = len(rollout.arms)
    if arms == 1:
        return share, 1.0
    part = 1 - share + share / arms
    return share / arms / part, part


def _requests(share: float, base_rate: float, null: float, risk: float, threshold: float) -> float:
    """Requests of both arms until an event's side tells `risk` from `null`."""
    events = base_rate * (1 - share + risk * share)
    gain = _divergence(_side(share, risk), _side(share, null))
    # A margin below what numbers can tell from none: never.
    return OVER_BOUND * math.log(threshold) / (events * gain) if gain > 0 else math.inf


def _alone(rate: float, limit: float, threshold: float) -> float:
    return OVER_BOUND * math.log(threshold) / _divergence(rate, limit)


def _side(share: float, risk: float) -> float:
    """Chance that a bad event falls on treatment."""
    return risk * share / (risk * share + 1 - share)


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of one yes or no with chance p from one with chance q."""
    if q >= 1:
        return 0.0 if p >= 1 else math.inf
    found = p * math.log(p / q)
    return found if p == 1 else found + (1 - p) * math.log((1 - p) / (1 - q))
