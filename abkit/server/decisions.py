"""`/v1/rollouts`: where rollouts stand, and what to do with them.

::

    GET /v1/rollouts                 all of them, the newest first
    GET /v1/rollouts/{r}             one, with its stages and version
    GET /v1/rollouts/{r}/decision    what to do now; 200 for every rollout that there is
        ?weight=5                    for a caller that stands at 5 % itself

Salts, overrides and targeting stay in the snapshot: no unit id leaves through here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

# FastAPI reads the annotation at run time.
from starlette.requests import Request  # noqa: TC002
from starlette.responses import Response  # noqa: TC002

from abkit.server.exchange import respond
from abkit.server.problems import Problem
from abkit.server.verdict import share_of, verdict_of

if TYPE_CHECKING:
    from abkit.rollout import Rollout
    from abkit.server.board import Board
    from abkit.server.exchange import Route


def routes(board: Board) -> list[Route]:
    """The routes of this contract."""

    async def listed(request: Request) -> Response:  # noqa: ARG001 - FastAPI's signature
        found, damaged = board.rollouts()
        return respond({"rollouts": [summary(item) for item in found], "damaged": damaged})

    async def one(request: Request) -> Response:
        return respond(summary(board.rollout(request.path_params["rollout"])))

    async def decision(request: Request) -> Response:
        weight = weight_of(request.query_params.get("weight"))
        found = await verdict_of(board, request.path_params["rollout"], at_weight=weight)
        return respond(found.to_dict(), headers={"Cache-Control": "no-store"})

    return [
        ("GET", "/v1/rollouts", listed),
        ("GET", "/v1/rollouts/{rollout}", one),
        ("GET", "/v1/rollouts/{rollout}/decision", decision),
    ]


def weight_of(text: str | None) -> float | None:
    """A percentage as a caller writes it, or None.

    Raises:
        Problem: it is none.
    """
    if text is None or not text:
        return None
    try:
        weight = float(text.removesuffix("%"))
    except ValueError:
        weight = math.nan
    if not 0.0 <= weight <= 100.0:
        raise Problem(400, f"weight must be percent from 0 to 100, got {text[:40]!r}")
    return weight


def summary(rollout: Rollout) -> dict[str, Any]:
    """A rollout for others to read."""
    return {
        "rollout": rollout.key,
        "experiment": rollout.experiment.key,
        "control": rollout.control,
        "treatment": rollout.treatment,
        **(
            {"treatments": list(rollout.arms), "dropped": list(rollout.dropped)}
            if rollout.is_contest
            else {}
        ),
        "state": rollout.state,
        "live": rollout.live,
        "mode": rollout.mode,
        "approval": rollout.approval,
        "version": rollout.version,
        "weight": round(100.0 * share_of(rollout), 9),
        "stage": rollout.stage.name,
        "stage_index": rollout.stage_index,
        "stages": [
            {
                "name": stage.name,
                "mode": stage.mode,
                "weight": round(100.0 * stage.share, 9),
                "min_units": stage.min_units,
                "min_seconds": stage.min_seconds,
            }
            for stage in rollout.stages
        ],
        "started": rollout.started,
        "changed": rollout.changed,
        "reason": rollout.reason,
        "actor": rollout.actor,
        "policy_hash": rollout.policy.checksum,
    }
