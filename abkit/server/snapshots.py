"""The snapshot for followers, with an ETag, and whether the server is well.

`/v1/snapshot` answers as `abkit snapshot serve` does: `abkit snapshot follow` works with either.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request  # noqa: TC002 - FastAPI reads it at run time
from starlette.responses import Response

from abkit.errors import AbkitError
from abkit.server.exchange import headers_of, respond
from abkit.server.problems import RETRY, Problem
from abkit.snapshot_server import GoodSnapshot, snapshot_answer

if TYPE_CHECKING:
    from abkit.server.board import Board
    from abkit.server.exchange import Route


class SnapshotFile:
    """The last good content of a snapshot file; a bad one never replaces it."""

    def __init__(self, board: Board) -> None:
        """Nothing is read yet."""
        self._path = board.workspace.snapshot_path
        self._good: GoodSnapshot | None = None
        self._signature: tuple[int, ...] = ()

    async def good(self) -> GoodSnapshot | None:
        """What to send now; None before the first good one."""
        try:
            status = self._path.stat()
            signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            if signature != self._signature:
                found = await asyncio.to_thread(GoodSnapshot.read, self._path)
                self._good, self._signature = found, signature
        except (OSError, AbkitError):
            pass  # fail static
        return self._good


def routes(board: Board) -> list[Route]:
    """The routes of this contract."""
    file = SnapshotFile(board)

    async def snapshot(request: Request) -> Response:
        good = await file.good()
        if good is None:
            raise Problem(503, "there is no good snapshot yet", headers=RETRY)
        status, headers, body = snapshot_answer(good, headers_of(request))
        return Response(body, status, headers)

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - FastAPI's signature
        return respond({"status": "ok"})

    async def readyz(request: Request) -> Response:  # noqa: ARG001
        await board.refresh()
        _, damaged = board.rollouts()
        health = board.snapshot_health()
        is_there = board.workspace.path.is_dir()
        told = {
            "status": "ready" if is_there else "there is no workspace",
            "snapshot": health.version,
            "store": board.store_error or "ok",
            "damaged": len(damaged),
        }
        # Without the store states, halts and the snapshot are still served: that is ready.
        return respond(told, status=200 if is_there else 503)

    return [
        ("GET", "/v1/snapshot", snapshot),
        ("GET", "/healthz", healthz),
        ("GET", "/readyz", readyz),
    ]
