"""Kayenta, from both sides.

::

    POST /judge                 as Kayenta's remote judge: compares the series that it is given
    GET  /canaryConfig          as Kayenta itself, for Argo's provider: each rollout is a config
    POST /canary/{rollout}      begins to wait for a rollout
    GET  /canary/{execution}    complete once there is a decision

For Argo an execution is complete when the rollout has left the stage that it was in when the
execution began, or may leave it: score 100. A halt is score 0. Until then it is not complete, and
Argo asks again: a canary that is undecided fails nobody's threshold. An execution's name holds all
there is to know of it, so a restarted server answers the same.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request  # noqa: TC002 - FastAPI reads it at run time
from starlette.responses import Response  # noqa: TC002

from abkit.server.exchange import respond, table_of
from abkit.server.problems import Problem
from abkit.server.verdict import verdict_of

if TYPE_CHECKING:
    from abkit.rollout import Rollout
    from abkit.server.board import Board
    from abkit.server.exchange import Route

_CUT = "~"
"""Between the rollout's name and the percent it stood at; no name holds one."""


def routes(board: Board) -> list[Route]:
    """The routes of this contract."""

    async def judge(request: Request) -> Response:
        data = table_of(request)
        # Imported here: it needs numpy and scipy, and only Kayenta needs it.
        from abkit.server.series import judge_series  # noqa: PLC0415

        return respond(await asyncio.to_thread(judge_series, data))

    async def configs(request: Request) -> Response:
        application = request.query_params.get("application", "")
        found, _ = board.rollouts()
        return respond([_config(item, application) for item in found])

    async def begin(request: Request) -> Response:
        rollout = board.rollout(request.path_params["name"])
        return respond({"canaryExecutionId": f"{rollout.key}{_CUT}{_percent(rollout):g}"})

    async def status(request: Request) -> Response:
        name = request.path_params["name"]
        key, _, weight = name.rpartition(_CUT)
        try:
            at = float(weight)
        except ValueError:
            at = -1.0
        if not key or not 0.0 <= at <= 100.0:
            raise Problem(404, f"there is no execution {name!r}", hint="POST /canary/{rollout}")
        return respond(await _execution(board, key, at))

    return [
        ("POST", "/judge", judge),
        ("GET", "/canaryConfig", configs),
        ("POST", "/canary/{name}", begin),
        ("GET", "/canary/{name}", status),
    ]


def _percent(rollout: Rollout) -> float:
    return 100.0 * rollout.last_share


def _config(rollout: Rollout, application: str) -> dict[str, Any]:
    changed = rollout.changed or 0.0
    return {
        "id": rollout.key,
        "name": rollout.key,
        "updatedTimestamp": int(changed * 1000),
        "updatedTimestampIso": datetime.fromtimestamp(changed, UTC).isoformat(),
        "applications": [application or rollout.experiment.key],
    }


async def _execution(board: Board, key: str, at: float) -> dict[str, Any]:
    found = await verdict_of(board, key, at_weight=at)
    if found.code == 0:
        return {
            "complete": False,
            "status": "running",
            "pipelineId": f"{key}{_CUT}{at:g}",
            "stageStatus": {"judgement": found.action},
        }
    is_good = found.code > 0
    score = {
        "score": 100.0 if is_good else 0.0,
        "classification": "Pass" if is_good else "Fail",
        "classificationReason": found.reason,
    }
    return {
        "complete": True,
        "status": "succeeded",
        "pipelineId": f"{key}{_CUT}{at:g}",
        "result": {"judgeResult": {"judgeName": "abkit", "results": [], "score": score}},
    }
