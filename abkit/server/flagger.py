"""Flagger's webhooks: `POST /flagger/{hook}`, one path for each type of hook.

A hook passes with 200 and does not with 409 and the reason as the body (Flagger takes any status
above 202 as a no, and shows the body). There is no 5xx: Flagger retries those.

| hook | passes |
|---|---|
| confirm-rollout | the rollout is live and not on hold, or promoted |
| pre-rollout, rollout | unless it is halted: a failure counts there, and too few data is none |
| confirm-traffic-increase | the decision is advance or promote |
| confirm-promotion | the decision is promote |
| rollback | the decision is halt: passing means "roll back" |
| post-rollout, event | always |

Flagger does not say at which weight it stands. With metadata `follow: stages` its increases are
counted instead, for each checksum of the Canary, and `confirm-traffic-increase` passes as often as
the rollout has begun stages that serve units: with stepWeights equal to the plan's stages Flagger
follows and is never ahead. An answer that was lost leaves it one step behind until the promotion.

The rollout is named by the webhook's metadata `rollout`, else by the Canary's name, else by
`NAMESPACE.NAME`. With metadata `weight` the decision is the one for that weight.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

from starlette.requests import Request  # noqa: TC002 - FastAPI reads it at run time
from starlette.responses import Response

from abkit.errors import AbkitError
from abkit.server.decisions import weight_of
from abkit.server.exchange import table_of
from abkit.server.problems import Problem
from abkit.server.verdict import verdict_of
from abkit.snapshot import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from abkit.rollout import Rollout
    from abkit.server.board import Board
    from abkit.server.exchange import Route
    from abkit.server.verdict import Verdict

_GONE = ("hold", "draft", "superseded")


def _is_open(found: Verdict) -> bool:
    return found.action != "halt" and found.state not in _GONE


RULES: Mapping[str, Callable[[Verdict], bool]] = {
    "confirm-rollout": _is_open,
    "pre-rollout": lambda found: found.action != "halt",
    "rollout": lambda found: found.action != "halt",
    "confirm-traffic-increase": lambda found: found.action in ("advance", "promote"),
    "confirm-promotion": lambda found: found.action == "promote",
    "rollback": lambda found: found.action == "halt",
    "post-rollout": lambda found: True,  # noqa: ARG005 - whatever it is
    "event": lambda found: True,  # noqa: ARG005
}
INCREASE = "confirm-traffic-increase"
MAX_COUNTED = 1_000
_TOLD = ("post-rollout", "event")
"""Nothing is asked here, so an unknown rollout is no fault either."""


class Increases:
    """How often Flagger was let raise its weight, in a file: after a restart it is not ahead."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self._path = path
        self._lock = threading.Lock()

    def take(self, name: str, most: int) -> bool:
        """Count one more, unless there were as many as there may be.

        Raises:
            Problem: what was counted before cannot be read or written.
        """
        with self._lock:
            try:
                text = self._path.read_bytes() if self._path.exists() else b"{}"
                counts = {str(key): int(value) for key, value in json.loads(text).items()}
                count = counts.pop(name, 0)
                if count >= most:
                    return False
                counts[name] = count + 1
                while len(counts) > MAX_COUNTED:
                    counts.pop(next(iter(counts)))
                write_atomically(self._path, json.dumps(counts).encode())
            except (OSError, ValueError, TypeError, AttributeError):
                raise Problem(
                    409, f"{self._path.name} in the workspace cannot be read or written"
                ) from None
        return True


def routes(board: Board) -> list[Route]:
    """The routes of this contract."""
    increases = Increases(board.workspace.path / "flagger.json")

    async def hook(request: Request) -> Response:
        name = request.path_params["hook"]
        if name not in RULES:
            return _plain(404, f"there is no hook {name!r:.60}; there is {', '.join(RULES)}")
        try:
            payload = table_of(request)
            found = await _verdict(board, payload)
            if name == INCREASE and _metadata(payload).get("follow") == "stages":
                return await follow(found, payload)
        except Problem as problem:
            if name in _TOLD and problem.status == 404:
                return _plain(200, "noted")
            status = 409 if problem.status >= 500 else problem.status
            return _plain(status, " ".join(filter(None, [f"{problem.message};", problem.hint])))
        except AbkitError:
            return _plain(409, "abkit cannot tell: the workspace is not readable now")
        return _plain(200 if RULES[name](found) else 409, f"{found.action}: {found.reason}")

    async def follow(found: Verdict, payload: Mapping[str, Any]) -> Response:
        stages = _stages_begun(found, board.rollout(found.rollout))
        name = f"{found.rollout} {payload.get('checksum', '')!s:.64}"
        is_good = found.action == "promote"
        is_good = is_good or (stages > 0 and await asyncio.to_thread(increases.take, name, stages))
        return _plain(200 if is_good else 409, f"{found.action}: {found.reason}")

    return [("POST", "/flagger/{hook}", hook)]


def _stages_begun(found: Verdict, rollout: Rollout) -> int:
    """Stages so far in which treatment answers somebody; 0 where nothing may grow."""
    if not _is_open(found):
        return 0
    return sum(stage.share > 0 for stage in rollout.stages[: rollout.stage_index + 1])


def _metadata(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    found = payload.get("metadata")
    return found if isinstance(found, dict) else {}


async def _verdict(board: Board, payload: Mapping[str, Any]) -> Verdict:
    data = _metadata(payload)
    names = [data.get("rollout")]
    if not names[0]:
        names = [payload.get("name"), f"{payload.get('namespace', '')}.{payload.get('name', '')}"]
    known = [name for name in names if isinstance(name, str) and name]
    if not known:
        raise Problem(400, "the body names no canary", hint="metadata: {rollout: KEY} names one")
    there = set(board.keys())
    key = next((name for name in known if name in there), known[0])
    weight = data.get("weight")
    return await verdict_of(
        board, key, at_weight=weight_of(weight) if isinstance(weight, str) else None
    )


def _plain(status: int, text: str) -> Response:
    body = text.encode("utf-8", "replace")
    return Response(body, status, media_type="text/plain")
