"""Prometheus: `/metrics` to be scraped, and `/api/v1/query` to be asked.

The query answers what a MetricTemplate or an AnalysisTemplate asks: `vector(1)`, a number, or a
series of `/metrics` with labels, such as `abkit_decision_code{rollout="ranker-v7"}`. It is no
PromQL: other expressions are refused with `bad_data`, and so are regular expressions (S4).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.requests import Request  # noqa: TC002 - FastAPI reads it at run time
from starlette.responses import Response

from abkit.server.exchange import body_of, headers_of, respond
from abkit.server.problems import Problem
from abkit.server.verdict import guardrail_e_values, share_of, verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from abkit.rollout import Rollout
    from abkit.server.board import Board
    from abkit.server.exchange import Route

MAX_QUERY = 1_024
TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
HELP = {
    "abkit_decision_code": "What to do with a rollout: -1 halt, 0 nothing, 1 advance, 2 promote.",
    "abkit_evalue_harm": "Largest e-value of a guardrail against not worse.",
    "abkit_evalue_noninf": "Smallest e-value of a guardrail for not worse.",
    "abkit_rollout_share": "Share of units that treatment answers.",
    "abkit_variant_share": "Share of units, by treatment, where several are compared.",
    "abkit_variant_evalue_harm": "The same as abkit_evalue_harm, by treatment.",
    "abkit_variant_evalue_noninf": "The same as abkit_evalue_noninf, by treatment.",
    "abkit_rollout_version": "Version of the rollout's state.",
    "abkit_rollout_state": "1 for the state that the rollout is in.",
    "abkit_exposures_total": "First exposures of units in the store.",
    "abkit_drops_total": "Events that writers dropped.",
    "abkit_snapshot_version": "Version of the published snapshot; 0 for none.",
    "abkit_snapshot_age_seconds": "Time since the snapshot was published.",
    "abkit_published_age_seconds": "Time since the controller published.",
    "abkit_store_readable": "1 if the published store can be read.",
    "abkit_rollouts_damaged": "State files that cannot be read.",
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SCALAR = re.compile(rf"{_NUMBER}\Z")
_VECTOR = re.compile(rf"vector\(\s*({_NUMBER})\s*\)\Z")
_SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\Z", re.DOTALL)
_LABEL = re.compile(
    r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"
    r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*(?:,|\Z)"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of one series.

    Args:
        name: of the metric.
        value: the number.
        labels: of the series.
    """

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def routes(board: Board) -> list[Route]:
    """The routes of this contract."""

    async def metrics(request: Request) -> Response:  # noqa: ARG001 - FastAPI's signature
        return Response(exposition(await samples(board)).encode(), 200, media_type=TEXT_FORMAT)

    async def query(request: Request) -> Response:
        try:
            expression, at = _asked(request, board.clock())
            result = evaluate(expression, await samples(board), at)
        except Problem as problem:
            told = {"status": "error", "errorType": "bad_data", "error": problem.message}
            return respond(told, status=400)
        return respond({"status": "success", "data": result})

    return [
        ("GET", "/metrics", metrics),
        ("GET", "/api/v1/query", query),
        ("POST", "/api/v1/query", query),
    ]


async def samples(board: Board) -> list[Sample]:
    """All numbers, as they are now."""
    await board.refresh()
    rollouts, damaged = board.rollouts()
    found: list[Sample] = []
    for rollout in rollouts:
        item = await verdict_of(board, rollout.key)
        labels = {"rollout": rollout.key, "experiment": rollout.experiment.key}
        found += [
            Sample("abkit_decision_code", item.code, labels),
            Sample("abkit_evalue_harm", item.evalue_harm, labels),
            Sample("abkit_evalue_noninf", item.evalue_noninf, labels),
            Sample("abkit_rollout_share", share_of(rollout), labels),
            Sample("abkit_rollout_version", rollout.version, labels),
            Sample("abkit_rollout_state", 1.0, {**labels, "state": rollout.state}),
        ]
        if rollout.rivals:
            found += _by_variant(rollout, board.record(rollout.key), labels)
    overview = board.overview
    if overview is not None:
        for (experiment, variant), count in overview.exposures.items():
            seen = {"experiment": experiment, "variant": variant}
            found.append(Sample("abkit_exposures_total", count, seen))
        for (experiment, variant, reason), count in overview.losses.items():
            lost = {"experiment": experiment, "variant": variant, "reason": reason}
            found.append(Sample("abkit_drops_total", count, lost))
        age = max(0.0, board.clock() - overview.published)
        found.append(Sample("abkit_published_age_seconds", age))
    found.append(Sample("abkit_store_readable", float(not board.store_error)))
    found.append(Sample("abkit_rollouts_damaged", len(damaged)))
    return found + list(_configuration(board))


def _by_variant(
    rollout: Rollout, record: Mapping[str, Any] | None, labels: Mapping[str, str]
) -> Iterator[Sample]:
    """The treatments still in, each with its share and its evidence."""
    weights = rollout.experiment.weights
    for arm in rollout.arms:
        named = {**labels, "variant": arm}
        share = 0.0 if rollout.experiment.state == "killed" else weights.get(arm, 0.0)
        harm, noninf = guardrail_e_values(record or {}, arm)
        yield Sample("abkit_variant_share", share, named)
        yield Sample("abkit_variant_evalue_harm", harm, named)
        yield Sample("abkit_variant_evalue_noninf", noninf, named)


def _configuration(board: Board) -> Iterator[Sample]:
    health = board.snapshot_health()
    yield Sample("abkit_snapshot_version", health.version)
    if health.age_seconds is not None:
        yield Sample("abkit_snapshot_age_seconds", health.age_seconds)


def exposition(found: list[Sample]) -> str:
    """The samples in Prometheus's text format."""
    lines: list[str] = []
    for name, text in HELP.items():
        series = [item for item in found if item.name == name]
        if not series:
            continue
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for item in series:
            labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in item.labels.items())
            lines.append(
                f"{name}{{{labels}}} {_number(item.value)}"
                if labels
                else f"{name} {_number(item.value)}"
            )
    return "\n".join([*lines, ""])


def evaluate(expression: str, found: list[Sample], at: float) -> dict[str, Any]:
    """The `data` of an answer to an instant query.

    Raises:
        Problem: the expression is none that is answered here.
    """
    text = expression.strip()
    if _SCALAR.match(text):
        return {"resultType": "scalar", "result": [at, _number(float(text))]}
    vector = _VECTOR.match(text)
    if vector:
        value = _number(float(vector[1]))
        return {"resultType": "vector", "result": [{"metric": {}, "value": [at, value]}]}
    series = _SERIES.match(text)
    if series is None:
        raise Problem(
            400,
            f"{text[:120]!r} is not answered here; ask for vector(1), or for a series of "
            '/metrics such as abkit_decision_code{rollout="ranker-v7"}',
        )
    name, matchers = series[1], _matchers(series[2] or "")
    result: list[dict[str, Any]] = [
        {"metric": {"__name__": name} | dict(item.labels), "value": [at, _number(item.value)]}
        for item in found
        if item.name == name
        and all(
            (item.labels.get(key, "") == value) == is_equal for key, is_equal, value in matchers
        )
    ]
    return {"resultType": "vector", "result": result}


def _matchers(text: str) -> list[tuple[str, bool, str]]:
    found: list[tuple[str, bool, str]] = []
    start = 0
    while text[start:].strip():
        match = _LABEL.match(text, start)
        if match is None:
            raise Problem(400, f"cannot read the labels {text[:120]!r}")
        name, operator, quoted = match.groups()
        if operator in ("=~", "!~"):
            raise Problem(
                400, f"{name}{operator}: regular expressions are not answered; use = or !="
            )
        value = re.sub(r"\\(.)", lambda item: {"n": "\n"}.get(item[1], item[1]), quoted[1:-1])
        found.append((name, operator == "=", value))
        start = match.end()
    return found


def _asked(request: Request, now: float) -> tuple[str, float]:
    given = {name: [value] for name, value in request.query_params.items()}
    kind = headers_of(request).get("content-type", "")
    if request.method == "POST" and kind.startswith("application/x-www-form-urlencoded"):
        try:
            given |= parse_qs(body_of(request).decode("utf-8"), max_num_fields=20)
        except ValueError:
            raise Problem(400, "the form is not readable") from None
    expression = given.get("query", [""])[0]
    if not expression or len(expression) > MAX_QUERY:
        raise Problem(400, f"give a query of 1 to {MAX_QUERY} characters")
    return expression, _moment(given.get("time", [""])[0], now)


def _moment(text: str, now: float) -> float:
    """The time that the answer is stamped with; the numbers are always those of now."""
    if not text:
        return round(now, 3)
    try:
        moment = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            moment = math.nan
    if not math.isfinite(moment):
        raise Problem(400, f"time {text[:40]!r} is neither seconds nor RFC 3339")
    return moment


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
