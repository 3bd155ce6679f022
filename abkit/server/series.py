"""A judgement on pairs of metric series, as Kayenta's remote judge is asked for it.

Each pair is compared with the Mann-Whitney test at alpha / (number of metrics), one-sided where
the metric says which direction is bad: of releases that change nothing, at most alpha are failed
by any metric, for independent points and one judgement. Points of a smoothed or seasonal series are
not independent, and Kayenta asks again each interval: abkit's own events know no such limits.
Missing points (NaN) are left out, too few to tell is `Nodata`, and `Nodata` never fails a release
unless the metric must have data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from abkit.server.problems import Problem
from abkit.stats.ranks import mann_whitney

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

JUDGE_NAME = "RemoteJudge-v1.0"
"""What Kayenta calls any remote judge."""
ALPHA = 0.02
MIN_POINTS = 5
"""Points in each series below which nothing is told apart at this alpha."""
_ALTERNATIVE: Mapping[str, Literal["greater", "less", "two-sided"]] = {
    "increase": "greater",
    "decrease": "less",
    "either": "two-sided",
}
_UNGROUPED = "Ungrouped"


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one metric of a canary config is judged."""

    groups: tuple[str, ...] = (_UNGROUPED,)
    direction: str = "either"
    is_critical: bool = False
    must_have_data: bool = False
    replaces_nan: bool = False
    allowed_increase: float = 1.0
    allowed_decrease: float = 1.0

    @classmethod
    def of(cls, metric: Mapping[str, Any]) -> _Rule:
        canary = _table(_table(metric.get("analysisConfigurations")).get("canary"))
        effect = _table(canary.get("effectSize"))
        groups = metric.get("groups")
        named = tuple(str(item) for item in groups) if isinstance(groups, list) else ()
        direction = str(canary.get("direction", "either")).lower()
        return cls(
            groups=named or (_UNGROUPED,),
            direction=direction if direction in _ALTERNATIVE else "either",
            is_critical=canary.get("critical") is True,
            must_have_data=canary.get("mustHaveData") is True,
            replaces_nan=str(canary.get("nanStrategy", "remove")).lower() == "replace",
            allowed_increase=_ratio(effect.get("allowedIncrease")),
            allowed_decrease=_ratio(effect.get("allowedDecrease")),
        )


def judge_series(request: Mapping[str, Any]) -> dict[str, Any]:
    """A `CanaryJudgeResult` for a `RemoteJudgeRequest`, both as plain data.

    Raises:
        Problem: the request has another shape.
    """
    config = _table(request.get("canaryConfig"))
    pairs = request.get("metricSetPairList")
    if not isinstance(pairs, list) or not all(isinstance(item, dict) for item in pairs):
        raise Problem(400, "the body has no metricSetPairList, a list of objects")
    metrics = config.get("metrics")
    named = metrics if isinstance(metrics, list) else []
    rules = {str(item.get("name")): _Rule.of(item) for item in named if isinstance(item, dict)}
    alpha = _alpha(config) / max(1, len(pairs))
    results = [_result(pair, rules.get(str(pair.get("name")), _Rule()), alpha) for pair in pairs]
    groups = _group_scores(results)
    thresholds = _table(request.get("scoreThresholds"))
    score = _score(results, groups, _weights(config), thresholds)
    for item in results:
        item.pop("fails")
        item.pop("counts")
    return {
        "judgeName": JUDGE_NAME,
        "results": results,
        "groupScores": groups,
        "score": score,
    }


def _result(pair: Mapping[str, Any], rule: _Rule, alpha: float) -> dict[str, Any]:
    values = _table(pair.get("values"))
    control = _numbers(values.get("control"), replaces_nan=rule.replaces_nan)
    experiment = _numbers(values.get("experiment"), replaces_nan=rule.replaces_nan)
    classification, reason, extra = _classified(control, experiment, rule, alpha)
    is_missing = classification == "Nodata"
    return {
        "name": str(pair.get("name", "")),
        "id": str(pair.get("id", "")),
        "tags": _table(pair.get("tags")),
        "classification": classification,
        "classificationReason": reason,
        "groups": list(rule.groups),
        "experimentMetadata": {"stats": _stats(experiment)},
        "controlMetadata": {"stats": _stats(control)},
        "resultMetadata": extra,
        "critical": rule.is_critical,
        "muted": False,
        "fails": rule.must_have_data if is_missing else classification != "Pass",
        "counts": rule.must_have_data or not is_missing,
    }


def _classified(
    control: NDArray[np.float64], experiment: NDArray[np.float64], rule: _Rule, alpha: float
) -> tuple[str, str, dict[str, Any]]:
    counts = f"{control.size} points of control and {experiment.size} of experiment"
    if min(control.size, experiment.size) < MIN_POINTS:
        return "Nodata", f"{counts}; {MIN_POINTS} of each are needed", {}
    test = mann_whitney(control, experiment, alternative=_ALTERNATIVE[rule.direction])
    mean_control, mean_experiment = float(np.mean(control)), float(np.mean(experiment))
    ratio = mean_experiment / mean_control if mean_control else None
    extra: dict[str, Any] = {} if ratio is None or not math.isfinite(ratio) else {"ratio": ratio}
    if test.status != "ok" or test.p_value is None or test.superiority is None:
        return "Pass", f"all values are equal, over {counts}", extra
    extra |= {"pValue": test.p_value, "alpha": alpha, "superiority": test.superiority}
    numbers = (
        f"p {test.p_value:.3g} at alpha {alpha:.3g}, mean {mean_experiment:.4g} against "
        f"{mean_control:.4g}, over {counts}"
    )
    if test.p_value >= alpha:
        return "Pass", f"no difference is shown: {numbers}", extra
    is_higher = test.superiority > 0.5
    known = extra.get("ratio")
    within = known is not None and (
        known < rule.allowed_increase if is_higher else known > rule.allowed_decrease
    )
    if within and (rule.allowed_increase, rule.allowed_decrease) != (1.0, 1.0):
        return "Pass", f"the difference is within what is allowed: {numbers}", extra
    return ("High" if is_higher else "Low"), f"experiment differs: {numbers}", extra


def _group_scores(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for item in results for name in item["groups"]))
    scores: list[dict[str, Any]] = []
    for name in names:
        counted = [item for item in results if name in item["groups"] and item["counts"]]
        passed = sum(not item["fails"] for item in counted)
        score = 100.0 * passed / len(counted) if counted else 0.0
        words = ("Nodata", "no metric has data") if not counted else ("", "")
        if counted:
            words = (
                "Pass" if passed == len(counted) else "Fail",
                f"{passed} of {len(counted)} metrics pass",
            )
        scores.append(
            {
                "name": name,
                "score": score,
                "classification": words[0],
                "classificationReason": words[1],
            }
        )
    return scores


def _score(
    results: list[dict[str, Any]],
    groups: list[dict[str, Any]],
    weights: Mapping[str, float],
    thresholds: Mapping[str, Any],
) -> dict[str, Any]:
    good, marginal = (
        _threshold(thresholds, *item) for item in (("pass", 75.0), ("marginal", 50.0))
    )
    failed = [item["name"] for item in results if item["critical"] and item["fails"]]
    if failed:
        return _scored(0.0, "Fail", f"critical metrics failed: {', '.join(failed)}")
    counted = [item for item in groups if item["classification"] != "Nodata"]
    if not counted:
        # Read as a number, it must neither pass nor fail.
        score = marginal if marginal < good else 0.0
        return _scored(score, "Nodata", "no metric has data")
    named = sum(weights.get(item["name"], 0.0) for item in counted)
    others = [item for item in counted if item["name"] not in weights]
    rest = max(0.0, 100.0 - sum(weights.values())) / max(1, len(others)) if others else 0.0
    total = named + rest * len(others)
    if total <= 0.0:
        total, rest, weights = float(len(counted)), 1.0, {}
    score = sum(weights.get(item["name"], rest) * item["score"] for item in counted) / total
    word = "Pass" if score >= good else "Marginal" if score >= marginal else "Fail"
    bad = [item["name"] for item in results if item["fails"]]
    reason = f"{', '.join(bad)} failed" if bad else "no metric differs"
    return _scored(score, word, reason)


def _scored(score: float, word: str, reason: str) -> dict[str, Any]:
    return {"score": score, "classification": word, "classificationReason": reason}


def _numbers(values: object, *, replaces_nan: bool) -> NDArray[np.float64]:
    """The finite numbers of a series; Java writes a missing one as "NaN", others as null."""
    if not isinstance(values, list):
        return np.array([])
    found: list[float] = []
    for item in values:
        try:
            number = math.nan if item is None or isinstance(item, bool) else float(item)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            found.append(number)
        elif replaces_nan:
            found.append(0.0)
    return np.array(found)


def _stats(values: NDArray[np.float64]) -> dict[str, float]:
    if not values.size:
        return {"count": 0, "mean": 0.0, "min": 0.0, "max": 0.0, "std": 0.0}
    found = {
        "count": int(values.size),
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "std": float(np.std(values)),
    }
    return {name: value if math.isfinite(value) else 0.0 for name, value in found.items()}


def _weights(config: Mapping[str, Any]) -> dict[str, float]:
    given = _table(_table(config.get("classifier")).get("groupWeights"))
    return {name: _positive(value, 0.0) for name, value in given.items()}


def _alpha(config: Mapping[str, Any]) -> float:
    given = _table(_table(config.get("judge")).get("judgeConfigurations")).get("alpha", ALPHA)
    if not isinstance(given, (int, float)) or isinstance(given, bool) or not 0 < given < 1:
        raise Problem(400, f"judgeConfigurations.alpha must lie between 0 and 1, got {given!r:.40}")
    return float(given)


def _threshold(thresholds: Mapping[str, Any], name: str, default: float) -> float:
    return _positive(thresholds.get(name), default)


def _ratio(value: object) -> float:
    return _positive(value, 1.0)


def _positive(value: object, default: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator]
        return default
    return float(value)  # type: ignore[arg-type]


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
