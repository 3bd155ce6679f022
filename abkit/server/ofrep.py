"""OFREP, OpenFeature's remote evaluation: flags are experiments, answered from the snapshot.

::

    POST /ofrep/v1/evaluate/flags/{key}    one flag
    POST /ofrep/v1/evaluate/flags          all of them, with an ETag

The value of a flag is the name of its variant. The context's `targetingKey` is the unit, its other
keys are for targeting. An evaluation is no exposure: nothing is logged, because a flag that is
asked for has not been shown yet. Started with `--log-exposures`, the server logs one for each flag
that is evaluated alone; a bulk evaluation, which asks for all, never does.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from starlette.requests import Request  # noqa: TC002 - FastAPI reads it at run time
from starlette.responses import Response

from abkit.server.exchange import MAX_ID_BYTES, headers_of, respond, table_of
from abkit.server.problems import RETRY, Problem, dumps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.assignment import Assignment
    from abkit.client import Client
    from abkit.server.exchange import Route

REASONS = {
    "split": "SPLIT",
    "sticky": "SPLIT",
    "override": "TARGETING_MATCH",
    "forced": "STATIC",
    "holdout": "DEFAULT",
    "layer": "DEFAULT",
    "targeting": "DEFAULT",
    "rollout": "DEFAULT",
    "killed": "DISABLED",
    "draft": "DISABLED",
}

_NOT_READY = {"errorDetails": "there is no good snapshot yet"}


class _Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    def __init__(self, code: str, details: str) -> None:
        super().__init__(code)
        self.told = {"errorCode": code, "errorDetails": details}


def routes(client: Client, *, logs_exposures: bool = False) -> list[Route]:
    """The routes of this contract.

    Args:
        client: evaluates.
        logs_exposures: whether an evaluation of one flag counts as an exposure.
    """

    async def one(request: Request) -> Response:
        key = request.path_params["key"]
        try:
            unit, attributes = _context(request)
        except _Refused as refused:
            return respond({"key": key, **refused.told}, status=400)
        found = client.assign(key, unit, attributes)
        if found.reason == "no_snapshot":
            return respond(_NOT_READY, status=503, headers=RETRY)
        if found.reason == "unknown_experiment":
            details = f"no experiment has the key {key!r}"
            told = {"key": key, "errorCode": "FLAG_NOT_FOUND", "errorDetails": details}
            return respond(told, status=404)
        if found.reason in ("invalid_unit", "error"):
            return respond(_failure(found), status=400)
        if logs_exposures:
            client.expose(found)
        return respond(_success(found))

    async def bulk(request: Request) -> Response:
        try:
            unit, attributes = _context(request)
        except _Refused as refused:
            return respond(refused.told, status=400)
        snapshot = client.snapshot()
        if snapshot is None:
            return respond(_NOT_READY, status=503, headers=RETRY)
        # By experiment: holdouts are no flags.
        found = [client.assign(key, unit, attributes) for key in sorted(snapshot.experiments)]
        body = dumps(
            {
                "flags": [
                    _success(item) if item.reason in REASONS else _failure(item) for item in found
                ]
            }
        )
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        known = headers_of(request).get("if-none-match", "")
        if tag in {item.strip().removeprefix("W/") for item in known.split(",")}:
            return Response(None, 304, headers)
        return Response(body, 200, headers, "application/json")

    return [
        ("POST", "/ofrep/v1/evaluate/flags/{key}", one),
        ("POST", "/ofrep/v1/evaluate/flags", bulk),
    ]


def _context(request: Request) -> tuple[str | int, Mapping[str, Any]]:
    try:
        data = table_of(request)
    except Problem as problem:
        raise _Refused("PARSE_ERROR", problem.message) from None
    context = data.get("context", {})
    if not isinstance(context, dict):
        raise _Refused("INVALID_CONTEXT", "the context must be an object")
    unit = context.get("targetingKey")
    if unit is None or unit == "":
        raise _Refused("TARGETING_KEY_MISSING", "the context has no targetingKey: it is the unit")
    if not isinstance(unit, (str, int)) or isinstance(unit, bool):
        raise _Refused("INVALID_CONTEXT", "the targetingKey must be text or a whole number")
    if isinstance(unit, str) and len(unit.encode("utf-8", "replace")) > MAX_ID_BYTES:
        raise _Refused("INVALID_CONTEXT", f"the targetingKey has more than {MAX_ID_BYTES} bytes")
    return unit, {name: value for name, value in context.items() if name != "targetingKey"}


def _success(found: Assignment) -> dict[str, Any]:
    return {
        "key": found.experiment,
        "value": found.variant,
        "variant": found.variant,
        "reason": REASONS[found.reason],
        "metadata": {
            "reason": found.reason,
            "inExperiment": found.in_experiment,
            "epoch": found.epoch,
            "version": found.version,
        },
    }


def _failure(found: Assignment) -> dict[str, Any]:
    is_unit = found.reason == "invalid_unit"
    return {
        "key": found.experiment,
        "errorCode": "INVALID_CONTEXT" if is_unit else "GENERAL",
        "errorDetails": "the targetingKey is not usable as a unit"
        if is_unit
        else f"not evaluated: {found.reason}",
    }
